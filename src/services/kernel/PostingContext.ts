import type { Some } from "../../schema/Some.ts"
import type { DiscrepancyKind } from "../../schema/Discrepancy.ts"
import { balanceDiscrepancies } from "../../schema/Discrepancy.ts"
import { type ItemStatus, statusOf } from "../../schema/Item.ts"
import { type MovementSource, type MovementType, movementKind } from "../../schema/Movement.ts"
import {
  type EventData,
  type EventDefinition,
  DiscrepancyClosed,
  DiscrepancyOpened,
  type ItemEventDefinition,
  type ItemEventData
} from "../../schema/OutgoingEvent.ts"
import { kindOf } from "../../schema/Reservation.ts"
import { hasStock, isDiscontinuedWithStock, sellableOf } from "./figures.ts"
import type { DerivedIds } from "./ids.ts"
import { eventsOfItem } from "./itemEvents.ts"
import type { ItemKey, LocationKey, OrderKey, RowKey, TrackingKey } from "./Needs.ts"
import type { Posting } from "./Posting.ts"
import type { ReadBy } from "./Table.ts"
import type { ItemRow, LocationRow } from "./tables/catalog.ts"
import { type DiscrepancyRow, openName, type TrackingRow } from "./tables/documents.ts"
import type { ReservationRow } from "./tables/reservations.ts"
import type { LedgerRow, StockRow } from "./tables/stock.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/** What is noted with a movement, besides what it moves. */
export interface MovementNotes {
  readonly orderId?: string | undefined
  readonly reservationId?: string | undefined
  readonly reference?: string | undefined
  readonly reason?: string | undefined
  readonly occurredAt?: number | undefined
  /** Why an allocation was given back. */
  readonly releaseReason?: ReleaseReason | undefined
}
export type ReleaseReason = "RELEASED" | "EXPIRED" | "CANCELLED"

export interface Deltas {
  readonly onHand?: number
  readonly reserved?: number
  readonly unallocatable?: number
}

export interface Moved {
  readonly row: LedgerRow
  readonly stock: StockRow
  readonly notes: MovementNotes
}

/** What a posting does to an item: how it was before, what moves, and which other events it has. */
export interface Touched {
  readonly quantityBefore: number
  readonly availableBefore: number
  readonly statusBefore: ItemStatus
  readonly wasDiscontinuedWithStock: boolean
  readonly movements: Array<Moved>
  readonly events: Array<{ readonly event: ItemEventDefinition<Some>; readonly data: object }>
}

const orderOf = (command: object): string | undefined =>
  "orderId" in command && typeof command.orderId === "string" ? command.orderId : undefined

const isOfOrderLines = (reservation: ReservationRow): boolean => kindOf(reservation).isOfOrderLines

/** One posting while it is decided: the rows it asked for, the movements it makes and the events that it emits. */
export class PostingContext {
  readonly unit: UnitOfWork
  readonly posting: Posting
  readonly merchantId: string
  readonly at: number
  /** Of all events of the posting: the order that it is about, or the request that it comes from. */
  readonly correlationId: string
  /** Where movements come from whose type does not say it. */
  readonly source: MovementSource | null
  /** The discrepancies that it opened, and those open already that it adds to. */
  readonly discrepancies: Array<Pick<DiscrepancyRow, "discrepancyId" | "kind">> = []
  /** Whether this posting is the first to name its merchant. */
  isNewMerchant = false
  /** The stock whose balance would pass 2^53−1, if any: the posting is then refused as a whole. */
  overflow: StockRow | undefined
  /** Not there before an item is touched: a bulk itself touches none. */
  #touched: Map<ItemRow, Touched> | undefined
  readonly ids: DerivedIds
  #events = 0

  constructor(unit: UnitOfWork, posting: Posting, source: MovementSource | null, ids: DerivedIds) {
    this.unit = unit
    this.posting = posting
    this.merchantId = posting.caller.merchantId
    this.at = posting.at
    this.correlationId = orderOf(posting.command) ?? posting.caller.requestId
    this.source = source
    this.ids = ids
  }

  nextId(): string {
    return this.ids.next()
  }

  findItem(key: ItemKey): ItemRow | undefined {
    return this.unit.findItem(this.merchantId, key)
  }

  location(key: LocationKey): LocationRow | undefined {
    return this.unit.locations.indexes.byId.get(this.merchantId, key)
  }

  /** The documents of what an order bought, oldest first. What its dishes are made of is held by documents apart. */
  reservationsOf(key: OrderKey): ReadonlyArray<ReservationRow> {
    const all = this.unit.reservationsOf(this.merchantId, key)
    return all.every(isOfOrderLines) ? all : all.filter(isOfOrderLines)
  }

  tracked(key: TrackingKey): TrackingRow | undefined {
    return this.unit.tracking.indexes.byKey.get(this.merchantId, key)
  }

  row<R extends object>({ field, table }: ReadBy<R>, key: RowKey<R>): R | undefined {
    return this.unit.rows(table).find(field, this.merchantId, key)
  }

  /** Writes down that a fact was applied. Its key was asked for, or is guarded by the lock of its document. */
  track(trackingKey: string, answer: string | null = null): void {
    const { at: recordedAt, merchantId, posting } = this
    this.unit.tracking.insert({ merchantId, trackingKey, postingId: posting.id, answer, recordedAt })
  }

  touch(item: ItemRow): Touched {
    const items = (this.#touched ??= new Map())
    let touched = items.get(item)
    if (touched === undefined) {
      touched = {
        quantityBefore: item.onHand,
        availableBefore: sellableOf(item, this.unit.stocksOf(item), this.at),
        statusBefore: item.status,
        wasDiscontinuedWithStock: isDiscontinuedWithStock(this.unit, item),
        movements: [],
        events: []
      }
      items.set(item, touched)
    }
    return touched
  }

  /** The only way that stock moves: balances, item totals, ledger row and balance discrepancies, together. */
  move(stock: StockRow, type: MovementType, deltas: Deltas, notes: MovementNotes = {}): void {
    const { unit } = this
    const item = unit.items.indexes.byId.get(stock.merchantId, stock.itemId)!
    const touched = this.touch(item)
    const onHandDelta = deltas.onHand ?? 0
    const reservedDelta = deltas.reserved ?? 0
    const unallocatableDelta = deltas.unallocatable ?? 0
    const onHand = stock.onHand + onHandDelta
    const reserved = stock.reserved + reservedDelta
    const unallocatable = stock.unallocatable + unallocatableDelta
    const totals = {
      onHand: item.onHand + onHandDelta,
      reserved: item.reserved + reservedDelta,
      unallocatable: item.unallocatable + unallocatableDelta,
      updatedAt: Math.max(item.updatedAt, this.at)
    }
    const areBookable =
      areSafe(onHand, reserved, unallocatable) &&
      areSafe(totals.onHand, totals.reserved, totals.unallocatable)
    if (!areBookable) this.overflow ??= stock
    const before = balanceDiscrepancies(stock)
    // Ledger time never decreases within a stock, whichever replica's turn it is.
    const recordedAt = Math.max(stock.updatedAt, this.at)
    const sequence = stock.sequence + 1
    unit.stocks.update(stock, { onHand, reserved, unallocatable, sequence, updatedAt: recordedAt })
    unit.items.update(item, totals)
    const row: LedgerRow = {
      merchantId: stock.merchantId,
      stockId: stock.stockId,
      recordedAt,
      sequence,
      itemId: stock.itemId,
      type,
      onHandDelta,
      reservedDelta,
      unallocatableDelta,
      onHand,
      reserved,
      unallocatable,
      source: this.#sourceOf(type, onHandDelta, reservedDelta, unallocatableDelta),
      postingId: this.posting.id,
      actor: this.posting.caller.actor,
      orderId: notes.orderId ?? null,
      reservationId: notes.reservationId ?? null,
      reference: notes.reference ?? null,
      reason: notes.reason ?? null,
      occurredAt: notes.occurredAt ?? null,
      eventSequence: null
    }
    unit.ledger.insert(row)
    touched.movements.push({ row, stock, notes })
    this.#followBalance(stock, item, before)
  }

  /** A movement that its type does not allow, or of which nobody says where it comes from, is our own bug. */
  #sourceOf(type: MovementType, ...deltas: readonly [number, number, number]): MovementSource {
    const kind = movementKind(type)
    const allowed = [kind.onHand, kind.reserved, kind.unallocatable] as const
    for (let place = 0; place < 3; place++) {
      const sign = Math.sign(deltas[place]!)
      if (sign < allowed[place]![0] || sign > allowed[place]![1]) {
        throw new Error(`${type} cannot move ${deltas.join(", ")}`)
      }
    }
    const source = kind.source ?? this.source
    if (source === null) throw new Error(`${this.posting.command._tag} names no source for ${type}`)
    return source
  }

  /** A new, empty stock of an item at a location, in a lot. */
  openStock(item: ItemRow, location: LocationRow, lotNumber: string, lotExpiresAt: number | null): StockRow {
    this.touch(item)
    const stock: StockRow = {
      merchantId: item.merchantId,
      stockId: this.nextId(),
      itemId: item.itemId,
      locationId: location.locationId,
      locationIsDefault: location.isDefault,
      locationPosition: location.position,
      locationRetired: location.retired === true,
      lotNumber,
      lotExpiresAt,
      onHand: 0,
      reserved: 0,
      unallocatable: 0,
      sequence: 0,
      discrepancy: false,
      createdAt: this.at,
      updatedAt: this.at
    }
    this.unit.stocks.insert(stock)
    return stock
  }

  /** The stock of an item at a location in a lot (by default the unnamed one), opened if it is not there yet. */
  stockIn(
    item: ItemRow,
    location: LocationRow,
    lotNumber = "",
    lotExpiresAt: number | null = null
  ): StockRow {
    return (
      this.unit
        .stocksOf(item)
        .find((stock) => stock.locationId === location.locationId && stock.lotNumber === lotNumber) ??
      this.openStock(item, location, lotNumber, lotExpiresAt)
    )
  }

  /** What is open of a kind about a subject. */
  discrepancyOf(subject: string, kind: DiscrepancyKind): DiscrepancyRow | undefined {
    return this.unit.discrepancies.indexes.open.get(this.merchantId, openName(subject, kind))
  }

  #contradicted({ discrepancyId, kind }: DiscrepancyRow): void {
    if (this.discrepancies.every((noted) => noted.discrepancyId !== discrepancyId)) {
      this.discrepancies.push({ discrepancyId, kind })
    }
  }

  /** Opens a discrepancy. One that is open already for the same subject and kind stays as it is (one open per pair). */
  openDiscrepancy(
    kind: DiscrepancyKind,
    about: {
      readonly item: ItemRow
      readonly stock?: StockRow
      readonly orderId?: string | undefined
      /** What there is one of, where it is neither the stock nor the order nor the item. */
      readonly subject?: string
    },
    detail: Readonly<Record<string, unknown>>
  ): void {
    const { merchantId, unit } = this
    const subject = about.subject ?? about.stock?.stockId ?? about.orderId ?? about.item.itemId
    const existing = this.discrepancyOf(subject, kind)
    if (existing !== undefined) return this.#contradicted(existing)
    const row: DiscrepancyRow = {
      merchantId,
      discrepancyId: this.nextId(),
      kind,
      subject,
      stockId: about.stock?.stockId ?? null,
      itemId: about.item.itemId,
      orderId: about.orderId ?? null,
      detail,
      status: "OPEN",
      openedAt: this.at,
      closedAt: null,
      closedBy: null,
      reason: null
    }
    unit.discrepancies.insert(row)
    this.#contradicted(row)
    const { discrepancyId, orderId, stockId } = row
    this.emitOfItem(about.item, DiscrepancyOpened, {
      discrepancyId,
      kind,
      stockId,
      orderId: orderId ?? undefined,
      detail: detail as EventData<typeof DiscrepancyOpened>["detail"]
    })
  }

  /** Ends what is open for a subject, if it is: its condition has ended, or a person says why it stays. */
  closeDiscrepancy(
    row: DiscrepancyRow,
    by: { readonly actor: string; readonly reason: string } | null
  ): void {
    this.unit.discrepancies.update(row, {
      status: by === null ? "CLOSED" : "RESOLVED",
      closedAt: this.at,
      closedBy: by?.actor ?? "holdfast",
      reason: by?.reason ?? null
    })
    const { discrepancyId, itemId, kind, merchantId, stockId } = row
    const item = itemId === null ? undefined : this.unit.items.indexes.byId.get(merchantId, itemId)
    if (item !== undefined) this.emitOfItem(item, DiscrepancyClosed, { discrepancyId, kind, stockId })
  }

  /** Makes a stock's discrepancies what its balances call for, whatever was written about them. */
  followBalance(stock: StockRow, item: ItemRow): void {
    const isOpen = (kind: DiscrepancyKind): boolean => this.discrepancyOf(stock.stockId, kind) !== undefined
    this.#followBalance(stock, item, (["NEGATIVE_STOCK", "OVERCOMMITTED"] as const).filter(isOpen))
  }

  /** Makes an item's discrepancy what its stock calls for, if it is discontinued, whatever was written about it. */
  followDiscontinued(item: ItemRow): void {
    this.#followDiscontinued(item, this.discrepancyOf(item.itemId, "DISCONTINUED_WITH_STOCK") !== undefined)
  }

  /** Emits an event of an item that has no movement. It is numbered with the item's others when the posting is done. */
  emitOfItem<D extends object>(item: ItemRow, event: ItemEventDefinition<D>, data: ItemEventData<D>): void {
    this.touch(item).events.push({ event, data })
  }

  /** Emits an event. Those of one key are published in this order. */
  emit<D extends object>(event: EventDefinition<D>, key: string, data: EventData<EventDefinition<D>>): void {
    const { requestId, traceparent } = this.posting.caller
    this.#events += 1
    this.unit.append(this.unit.events, {
      // Stable when the posting runs again, and unique because a posting is.
      id: `${this.posting.id}.${this.#events}`,
      topic: event.topic,
      key,
      type: event.type,
      data: data as Readonly<Record<string, unknown>>,
      merchantId: this.merchantId,
      at: this.at,
      requestId,
      traceparent,
      correlationId: this.correlationId
    })
  }

  /** Emits the events of what was touched, item by item, in the order of each item's sequence. */
  finish(): void {
    if (this.#touched === undefined) return
    for (const [item, touched] of this.#touched) {
      this.#followDiscontinued(item, touched.wasDiscontinuedWithStock)
      this.#deleteEmptied(item)
      const available = sellableOf(item, this.unit.stocksOf(item), this.at)
      const status = statusOf(item, available)
      const sequence = eventsOfItem(this, item, touched, { available, status })
      if (sequence !== item.eventSequence || status !== item.status) {
        this.unit.items.update(item, { status, eventSequence: sequence })
      }
    }
  }

  /** Opens and closes the discrepancies that a balance calls for by itself (CONTRACTS section 2). */
  #followBalance(stock: StockRow, item: ItemRow, before: ReadonlyArray<DiscrepancyKind>): void {
    const after = balanceDiscrepancies(stock)
    const hasAny = after.length > 0
    if (stock.discrepancy !== hasAny) this.unit.stocks.update(stock, { discrepancy: hasAny })
    for (const kind of after) {
      if (before.includes(kind)) continue
      const { onHand, reserved, unallocatable } = stock
      this.openDiscrepancy(kind, { item, stock }, { onHand, reserved, unallocatable })
    }
    for (const kind of before) if (!after.includes(kind)) this.#close(stock.stockId, kind)
  }

  /** Stock of an item that is discontinued: sold off, or sold again, it is no discrepancy any more. */
  #followDiscontinued(item: ItemRow, before: boolean): void {
    const after = isDiscontinuedWithStock(this.unit, item)
    if (after === before) return
    const kind = "DISCONTINUED_WITH_STOCK"
    if (!after) return this.#close(item.itemId, kind)
    const { onHand, reserved, unallocatable } = item
    this.openDiscrepancy(kind, { item }, { onHand, reserved, unallocatable })
  }

  /** A deleted item goes with its last unit and hold. */
  #deleteEmptied(item: ItemRow): void {
    if (!item.deletionPending || hasStock(this.unit.stocksOf(item))) return
    this.unit.items.update(item, { deletedAt: this.at, deletionPending: false })
  }

  #close(subject: string, kind: DiscrepancyKind): void {
    const row = this.discrepancyOf(subject, kind)
    if (row !== undefined) this.closeDiscrepancy(row, null)
  }
}

const areSafe = (a: number, b: number, c: number): boolean =>
  Number.isSafeInteger(a) && Number.isSafeInteger(b) && Number.isSafeInteger(c)
