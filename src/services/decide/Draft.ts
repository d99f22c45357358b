import type { OutboxEvent } from "../../schema/Event.ts"
import type {
  AnyRefusal,
  Command,
  DiscrepancyKind,
  ItemStatus,
  MovementSource,
  MovementType,
  Posting
} from "../../schema/Posting.ts"
import {
  type Books,
  DerivedIds,
  type DiscrepancyRow,
  type ItemRow,
  type LedgerRow,
  type LocationRow,
  type StockRow,
  isStranded,
  keyOf,
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

interface Touched {
  readonly quantityBefore: number
  readonly availableBefore: number
  readonly statusBefore: ItemStatus
  readonly strandedBefore: boolean
  readonly movements: Array<{
    readonly row: LedgerRow
    readonly stock: StockRow
    readonly notes: MovementNotes
  }>
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
  #touched = new Map<ItemRow, Touched>()
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
    let touched = this.#touched.get(item)
    if (touched === undefined) {
      touched = {
        quantityBefore: item.onHand,
        availableBefore: sellableOf(this.books.stocksOf(item), this.at),
        statusBefore: item.status,
        strandedBefore: isStranded(this.books, item),
        movements: [],
        notices: []
      }
      this.#touched.set(item, touched)
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
    const item = books.items.get(keyOf(stock.merchantId, stock.itemId))!
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
      unallocatable: item.unallocatable + unallocatableDelta
    }
    const balances = [onHand, reserved, unallocatable, totals.onHand, totals.reserved, totals.unallocatable]
    if (!balances.every(Number.isSafeInteger)) this.overflow ??= stock
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
    books.change(books.changed.items, item, {
      ...totals,
      updatedAt: Math.max(item.updatedAt, this.at)
    })
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
    books.insert(books.written.stocks, stock)
    books.index(books.stocks, keyOf(stock.merchantId, stock.stockId), stock)
    books.append(books.stocksOfItem, keyOf(stock.merchantId, stock.itemId), stock)
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
    const key = openKey(this.merchantId, subject, kind)
    if (books.open.has(key)) return
    books.index(books.open, key, true as const)
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
    for (const [item, touched] of this.#touched) {
      const { books } = this
      this.#followStranding(item, touched.strandedBefore)
      const available = sellableOf(books.stocksOf(item), this.at)
      const status = statusOf(item, available)
      const names = {
        merchantId: item.merchantId,
        itemId: item.itemId,
        productVariantId: item.productVariantId,
        sku: item.sku
      }
      const figures = { quantity: item.onHand, reservedQuantity: item.reserved, availableQuantity: available }
      let sequence = item.eventSequence
      const tell = (type: string, data: Readonly<Record<string, unknown>>): void => {
        sequence += 1
        this.emit({ topic: outboxTopic, key: item.itemId, type, data: { ...names, ...data, sequence } })
      }
      for (const [type, movements] of Map.groupBy(touched.movements, ({ row }) => eventTypeOf(row.type))) {
        const { notes } = movements[0]!
        tell(type, {
          orderId: notes.orderId,
          reservationId: notes.reservationId,
          reason: notes.releaseReason,
          movements: movements.map(({ row, stock }) => ({
            stockId: row.stockId,
            locationId: stock.locationId,
            lotNumber: stock.lotNumber === "" ? null : stock.lotNumber,
            type: row.type,
            onHandDelta: row.onHandDelta,
            reservedDelta: row.reservedDelta,
            unallocatableDelta: row.unallocatableDelta
          })),
          ...figures
        })
      }
      for (const notice of touched.notices) tell(notice.type, notice.data)
      if (item.onHand !== touched.quantityBefore) {
        tell("StockLevelChanged", {
          ...figures,
          changeType: changeTypeOf(touched.movements.find(({ row }) => row.onHandDelta !== 0)!.row.type),
          quantityBefore: touched.quantityBefore,
          quantityAfter: item.onHand
        })
      }
      if (status !== touched.statusBefore) {
        tell("StockStatusChanged", { ...figures, statusBefore: touched.statusBefore, statusAfter: status })
      }
      this.#emitCrossings(item, touched.availableBefore, available)
      if (sequence !== item.eventSequence || status !== item.status) {
        books.change(books.changed.items, item, { status, eventSequence: sequence })
      }
    }
  }

  /** Makes a stock's discrepancies what its balances call for, whatever was written about them. */
  followBalance(stock: StockRow, item: ItemRow): void {
    const { open } = this.books
    const isOpen = (kind: DiscrepancyKind): boolean =>
      open.has(openKey(stock.merchantId, stock.stockId, kind))
    this.#followBalance(stock, item, (["NEGATIVE_STOCK", "OVERCOMMITTED"] as const).filter(isOpen))
  }

  emit(event: {
    readonly topic: string
    readonly key: string
    readonly type: string
    readonly data: Readonly<Record<string, unknown>>
  }): void {
    const { caller } = this.posting
    this.#events += 1
    const row: OutboxEvent = {
      // Stable when the posting runs again, and unique because a posting is.
      id: `${this.posting.id}.${this.#events}`,
      topic: event.topic,
      key: event.key,
      type: event.type,
      data: event.data,
      merchantId: this.merchantId,
      at: this.at,
      requestId: caller.requestId,
      ...(caller.traceparent === undefined ? {} : { traceparent: caller.traceparent })
    }
    this.books.insert(this.books.written.events, row)
  }

  /** Once per crossing of the item's total, not per sale (CONTRACTS section 6). */
  #emitCrossings(item: ItemRow, before: number, after: number): void {
    const data = {
      merchantId: item.merchantId,
      productId: item.productId ?? undefined,
      variantId: item.productVariantId,
      sku: item.sku,
      availableQuantity: after,
      threshold: item.lowStockThreshold
    }
    const threshold = item.lowStockThreshold
    if (threshold > 0 && before > threshold && after <= threshold) {
      this.emit({ topic: "inventory.low_stock", key: item.itemId, type: "inventory.low_stock", data })
    }
    if (before > 0 && after <= 0) {
      this.emit({ topic: "inventory.out_of_stock", key: item.itemId, type: "inventory.out_of_stock", data })
    }
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
    books.unindex(books.open, openKey(merchantId, subject, kind))
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

const balanceDiscrepancies = (stock: StockRow): ReadonlyArray<DiscrepancyKind> => {
  const kinds: Array<DiscrepancyKind> = []
  if (stock.onHand < 0) kinds.push("NEGATIVE_STOCK")
  if (stock.reserved + stock.unallocatable > stock.onHand && stock.reserved + stock.unallocatable > 0) {
    kinds.push("OVERCOMMITTED")
  }
  return kinds
}

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
