import type { OutboxEvent } from "../../../schema/Event.ts"
import type {
  AnyRefusal,
  Command,
  DiscrepancyKind,
  ItemStatus,
  MovementSource,
  MovementType,
  Posting
} from "../../../schema/Posting.ts"
import {
  type Books,
  DerivedIds,
  type DiscrepancyRow,
  type ItemRow,
  type LedgerRow,
  type LocationRow,
  type StockRow,
  isStranded,
  openKey,
  sellableOf,
  statusOf
} from "./Books.ts"

/** The names under which a movement is told, besides what it moves. */
export interface MovementNotes {
  readonly source: MovementSource
  readonly orderId?: string | undefined
  readonly reservationId?: string | undefined
  readonly reference?: string | undefined
  readonly reason?: string | undefined
  readonly occurredAt?: number | undefined
  /** Why an allocation was given back: RELEASED, EXPIRED or CANCELLED. */
  readonly releaseReason?: string | undefined
}

export interface Deltas {
  readonly onHand?: number
  readonly reserved?: number
  readonly unallocatable?: number
}

interface Moved {
  readonly row: LedgerRow
  readonly stock: StockRow
  readonly notes: MovementNotes
}

interface Touched {
  readonly quantityBefore: number
  readonly availableBefore: number
  readonly statusBefore: ItemStatus
  readonly strandedBefore: boolean
  readonly movements: Array<Moved>
  readonly notices: Array<{ readonly type: string; readonly data: Readonly<Record<string, unknown>> }>
}

const outboxTopic = "inventory.events"

/** One posting while it is decided: the movements it makes and the events that tell of them. */
export class Draft {
  readonly books: Books
  readonly posting: Posting
  readonly merchantId: string
  readonly at: number
  /** The stock whose balance would pass 2^53−1, if any: the posting is then refused as a whole. */
  overflow: StockRow | undefined
  /** Whether this posting is the first to name its merchant. */
  isNewMerchant = false
  /** Not there before an item is touched: a bulk itself touches none. */
  #touched: Map<ItemRow, Touched> | undefined
  readonly #ids: DerivedIds
  #events = 0

  constructor(books: Books, posting: Posting, ids = new DerivedIds(posting.id)) {
    this.#ids = ids
    this.books = books
    this.posting = posting
    this.merchantId = posting.caller.merchantId
    this.at = posting.at
  }

  nextId(): string {
    return this.#ids.next()
  }

  /** An operation of this posting, as a posting of its own: it has an id, movements and events for itself. */
  operation(command: Command): Draft {
    const { at, caller } = this.posting
    return new Draft(this.books, { id: this.nextId(), at, caller, command }, this.#ids)
  }

  touch(item: ItemRow): Touched {
    const items = (this.#touched ??= new Map())
    let touched = items.get(item)
    if (touched === undefined) {
      touched = {
        quantityBefore: item.onHand,
        availableBefore: sellableOf(this.books.stocksOf(item), this.at),
        statusBefore: item.status,
        strandedBefore: isStranded(this.books, item),
        movements: [],
        notices: []
      }
      items.set(item, touched)
    }
    return touched
  }

  /** Tells of something about an item that is not a movement. */
  notify(item: ItemRow, type: string, data: Readonly<Record<string, unknown>>): void {
    this.touch(item).notices.push({ type, data })
  }

  /** The only way that stock moves: balances, item totals, ledger row and balance discrepancies, together. */
  move(stock: StockRow, type: MovementType, deltas: Deltas, notes: MovementNotes): void {
    const { books, posting } = this
    const item = books.items.get(stock.merchantId, stock.itemId)!
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
    books.change(books.changed.stocks, stock, {
      onHand,
      reserved,
      unallocatable,
      sequence: stock.sequence + 1,
      updatedAt: recordedAt
    })
    books.change(books.changed.items, item, totals)
    const row: LedgerRow = {
      merchantId: stock.merchantId,
      stockId: stock.stockId,
      recordedAt,
      sequence: stock.sequence,
      itemId: stock.itemId,
      type,
      onHandDelta,
      reservedDelta,
      unallocatableDelta,
      onHand,
      reserved,
      unallocatable,
      source: notes.source,
      postingId: posting.id,
      actor: posting.caller.actor,
      orderId: notes.orderId ?? null,
      reservationId: notes.reservationId ?? null,
      reference: notes.reference ?? null,
      reason: notes.reason ?? null,
      occurredAt: notes.occurredAt ?? null
    }
    books.insert(books.written.ledger, row)
    touched.movements.push({ row, stock, notes })
    this.#followBalance(stock, item, before)
  }

  /** A new, empty stock of an item at a location, in a lot. */
  openStock(item: ItemRow, location: LocationRow, lotNumber: string, lotExpiresAt: number | null): StockRow {
    const { books } = this
    this.touch(item)
    const stock: StockRow = {
      merchantId: item.merchantId,
      stockId: this.nextId(),
      itemId: item.itemId,
      locationId: location.locationId,
      locationIsDefault: location.isDefault,
      locationPosition: location.position,
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
    books.insertStock(stock)
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
      this.books
        .stocksOf(item)
        .find((stock) => stock.locationId === location.locationId && stock.lotNumber === lotNumber) ??
      this.openStock(item, location, lotNumber, lotExpiresAt)
    )
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
    const { books } = this
    const subject = about.subject ?? about.stock?.stockId ?? about.orderId ?? about.item.itemId
    const key = openKey(subject, kind)
    if (books.open.has(this.merchantId, key)) return
    books.index(books.open, this.merchantId, key, true as const)
    const row: DiscrepancyRow = {
      merchantId: this.merchantId,
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
    books.insert(books.written.discrepancies, row)
    this.notify(about.item, "DiscrepancyOpened", {
      discrepancyId: row.discrepancyId,
      kind,
      stockId: row.stockId,
      orderId: row.orderId ?? undefined,
      detail
    })
  }

  /** Writes the events of what was touched, item by item, in the order of each item's sequence. */
  finish(): void {
    if (this.#touched === undefined) return
    for (const [item, touched] of this.#touched) this.#tellOf(item, touched)
  }

  /** Each event's data is written out: it is made with every movement, and gathered of parts it cost more than all else. */
  #tellOf(item: ItemRow, touched: Touched): void {
    const { books } = this
    this.#followStranding(item, touched.strandedBefore)
    const { itemId, merchantId, onHand: quantity, productVariantId, reserved: reservedQuantity, sku } = item
    const availableQuantity = sellableOf(books.stocksOf(item), this.at)
    const status = statusOf(item, availableQuantity)
    let sequence = item.eventSequence
    for (const { movements, type } of eventsOf(touched.movements)) {
      const { orderId, releaseReason, reservationId } = movements[0]!.notes
      sequence += 1
      this.#tell(item, type, {
        merchantId,
        itemId,
        productVariantId,
        sku,
        orderId,
        reservationId,
        reason: releaseReason,
        movements: movements.map(movementTold),
        quantity,
        reservedQuantity,
        availableQuantity,
        sequence
      })
    }
    for (const notice of touched.notices) {
      sequence += 1
      this.#tell(item, notice.type, { merchantId, itemId, productVariantId, sku, ...notice.data, sequence })
    }
    if (quantity !== touched.quantityBefore) {
      sequence += 1
      this.#tell(item, "StockLevelChanged", {
        merchantId,
        itemId,
        productVariantId,
        sku,
        quantity,
        reservedQuantity,
        availableQuantity,
        changeType: changeTypeOf(touched.movements.find(({ row }) => row.onHandDelta !== 0)!.row.type),
        quantityBefore: touched.quantityBefore,
        quantityAfter: quantity,
        sequence
      })
    }
    if (status !== touched.statusBefore) {
      sequence += 1
      this.#tell(item, "StockStatusChanged", {
        merchantId,
        itemId,
        productVariantId,
        sku,
        quantity,
        reservedQuantity,
        availableQuantity,
        statusBefore: touched.statusBefore,
        statusAfter: status,
        sequence
      })
    }
    this.#emitCrossings(item, touched.availableBefore, availableQuantity)
    if (sequence !== item.eventSequence || status !== item.status) {
      books.change(books.changed.items, item, { status, eventSequence: sequence })
    }
  }

  #tell(item: ItemRow, type: string, data: Readonly<Record<string, unknown>>): void {
    this.emit(outboxTopic, item.itemId, type, data)
  }

  /** Makes a stock's discrepancies what its balances call for, whatever was written about them. */
  followBalance(stock: StockRow, item: ItemRow): void {
    const { open } = this.books
    const isOpen = (kind: DiscrepancyKind): boolean =>
      open.has(stock.merchantId, openKey(stock.stockId, kind))
    this.#followBalance(stock, item, (["NEGATIVE_STOCK", "OVERCOMMITTED"] as const).filter(isOpen))
  }

  emit(topic: string, key: string, type: string, data: Readonly<Record<string, unknown>>): void {
    const { requestId, traceparent } = this.posting.caller
    this.#events += 1
    const event: OutboxEvent = {
      // Stable when the posting runs again, and unique because a posting is.
      id: `${this.posting.id}.${this.#events}`,
      topic,
      key,
      type,
      data,
      merchantId: this.merchantId,
      at: this.at,
      requestId,
      traceparent
    }
    this.books.insert(this.books.written.events, event)
  }

  /** Once per crossing of the item's total, not per sale (CONTRACTS section 6). */
  #emitCrossings(item: ItemRow, before: number, after: number): void {
    const threshold = item.lowStockThreshold
    const isLow = threshold > 0 && before > threshold && after <= threshold
    const isOut = before > 0 && after <= 0
    if (!isLow && !isOut) return
    const data = {
      merchantId: item.merchantId,
      productId: item.productId ?? undefined,
      variantId: item.productVariantId,
      sku: item.sku,
      availableQuantity: after,
      threshold
    }
    if (isLow) this.emit("inventory.low_stock", item.itemId, "inventory.low_stock", data)
    if (isOut) this.emit("inventory.out_of_stock", item.itemId, "inventory.out_of_stock", data)
  }

  /** Opens and closes the discrepancies that a balance speaks of by itself (CONTRACTS section 2). */
  #followBalance(stock: StockRow, item: ItemRow, before: ReadonlyArray<DiscrepancyKind>): void {
    const { books } = this
    const after = balanceDiscrepancies(stock)
    if (stock.discrepancy !== after.length > 0) {
      books.change(books.changed.stocks, stock, { discrepancy: after.length > 0 })
    }
    for (const kind of after) {
      if (!before.includes(kind)) {
        this.openDiscrepancy(
          kind,
          { item, stock },
          {
            onHand: stock.onHand,
            reserved: stock.reserved,
            unallocatable: stock.unallocatable
          }
        )
      }
    }
    for (const kind of before) {
      if (after.includes(kind)) continue
      this.#close(stock.stockId, kind)
      this.notify(item, "DiscrepancyClosed", { kind, stockId: stock.stockId })
    }
  }

  /** Stock of an item that is discontinued: sold off, or sold again, it is no discrepancy any more. */
  #followStranding(item: ItemRow, before: boolean): void {
    const after = isStranded(this.books, item)
    if (after === before) return
    const kind = "DISCONTINUED_WITH_STOCK"
    if (after) {
      const { onHand, reserved, unallocatable } = item
      this.openDiscrepancy(kind, { item }, { onHand, reserved, unallocatable })
    } else {
      this.#close(item.itemId, kind)
      this.notify(item, "DiscrepancyClosed", { kind, stockId: null })
    }
  }

  /** One that this very batch opened is written as closed; any other is closed where it stands. */
  #close(subject: string, kind: DiscrepancyKind): void {
    const { books, merchantId } = this
    books.unindex(books.open, merchantId, openKey(subject, kind))
    for (const row of books.written.discrepancies) {
      if (isOpen(row, merchantId, subject, kind)) {
        books.change(books.changed.discrepancies, row, {
          status: "CLOSED",
          closedAt: this.at,
          closedBy: "holdfast"
        })
        return
      }
    }
    books.insert(books.written.closings, { merchantId, subject, kind, at: this.at })
  }
}

const isOpen = (row: DiscrepancyRow, merchantId: string, subject: string, kind: DiscrepancyKind): boolean =>
  row.status === "OPEN" && row.kind === kind && row.subject === subject && row.merchantId === merchantId

const areSafe = (a: number, b: number, c: number): boolean =>
  Number.isSafeInteger(a) && Number.isSafeInteger(b) && Number.isSafeInteger(c)

const balanceDiscrepancies = ({
  onHand,
  reserved,
  unallocatable
}: StockRow): ReadonlyArray<DiscrepancyKind> => {
  const held = reserved + unallocatable
  const isOvercommitted = held > onHand && held > 0
  if (onHand >= 0) return isOvercommitted ? overcommitted : sound
  return isOvercommitted ? negativeAndOvercommitted : negative
}
const sound: ReadonlyArray<DiscrepancyKind> = []
const negative: ReadonlyArray<DiscrepancyKind> = ["NEGATIVE_STOCK"]
const overcommitted: ReadonlyArray<DiscrepancyKind> = ["OVERCOMMITTED"]
const negativeAndOvercommitted: ReadonlyArray<DiscrepancyKind> = ["NEGATIVE_STOCK", "OVERCOMMITTED"]

/** What the movements of an item are told by: one event for those of a type, in the order in which types come up. */
const eventsOf = (
  movements: ReadonlyArray<Moved>
): ReadonlyArray<{ readonly type: string; readonly movements: Array<Moved> }> => {
  const events: Array<{ readonly type: string; readonly movements: Array<Moved> }> = []
  for (const movement of movements) {
    const type = eventTypeOf(movement.row.type)
    const same = events.find((event) => event.type === type)
    if (same === undefined) events.push({ type, movements: [movement] })
    else same.movements.push(movement)
  }
  return events
}

const movementTold = ({ row, stock }: Moved) => ({
  stockId: row.stockId,
  locationId: stock.locationId,
  lotNumber: stock.lotNumber === "" ? null : stock.lotNumber,
  type: row.type,
  onHandDelta: row.onHandDelta,
  reservedDelta: row.reservedDelta,
  unallocatableDelta: row.unallocatableDelta
})

const eventTypeOf = (type: MovementType): string =>
  type === "ORDER_ALLOCATE"
    ? "InventoryAllocated"
    : type === "ORDER_RELEASE"
      ? "InventoryReleased"
      : "InventoryAdjusted"

const changeTypeOf = (type: MovementType): string => (type === "ADJUSTMENT" ? "CORRECTION" : type)

/** The answer of a command, or why it is refused. A refusal leaves no trace in the books. */
export type Decision<A> = { readonly answer: A } | { readonly refusal: AnyRefusal }
export const answered = <A>(answer: A): Decision<A> => ({ answer })
export const refused = (refusal: AnyRefusal): { readonly refusal: AnyRefusal } => ({ refusal })
