import type { OutboxEvent } from "../../schema/Event.ts"
import type {
  DiscrepancyKind,
  ItemFigures,
  ItemRef,
  ItemStatus,
  MovementSource,
  MovementType,
  ReservationStatus,
  StockFigures
} from "../../schema/Posting.ts"

/**
 * The books that a batch of postings is decided over: the locked rows, changed in memory as postings are decided, and
 * what is to be written in the end. Every change is journalled, so that a refused posting leaves no trace.
 *
 * Quantities are safe integers of the item's base unit; times are epoch milliseconds.
 */
export interface ItemRow {
  readonly merchantId: string
  readonly itemId: string
  readonly kind: "PRODUCT" | "MATERIAL"
  productVariantId: string | null
  sku: string | null
  productId: string | null
  name: string | null
  unit: string
  stocked: boolean
  lowStockThreshold: number
  safetyStock: number
  countTolerance: number
  discontinued: boolean
  initialized: boolean
  status: ItemStatus
  onHand: number
  reserved: number
  unallocatable: number
  eventSequence: number
  readonly createdAt: number
  updatedAt: number
  deletedAt: number | null
}
export interface StockRow {
  readonly merchantId: string
  readonly stockId: string
  readonly itemId: string
  readonly locationId: string
  readonly locationIsDefault: boolean
  readonly locationPosition: number
  readonly lotNumber: string
  readonly lotExpiresAt: number | null
  onHand: number
  reserved: number
  unallocatable: number
  sequence: number
  discrepancy: boolean
  readonly createdAt: number
  updatedAt: number
}
export interface ReservationRow {
  readonly merchantId: string
  readonly reservationId: string
  readonly orderId: string
  readonly kind: "ORDER" | "VARIANT" | "SALE"
  readonly scope: string
  status: ReservationStatus
  readonly request: string
  readonly metadata: string | null
  expiresAt: number
  readonly createdAt: number
  updatedAt: number
  readonly lines: Array<LineRow>
}
export interface LineRow {
  readonly merchantId: string
  readonly reservationId: string
  readonly lineNumber: number
  readonly itemId: string
  readonly stockId: string | null
  readonly quantity: number
  open: number
  sold: number
  released: number
  /** The part of `released` that the order did not give back itself. */
  expired: number
  returned: number
  /** The part of `sold` that a payment has spoken of (RecordSale). */
  paid: number
}
export interface LocationRow {
  readonly merchantId: string
  readonly locationId: string
  name: string | null
  readonly isDefault: boolean
  readonly position: number
  readonly createdAt: number
}
export interface LedgerRow {
  readonly merchantId: string
  readonly stockId: string
  readonly recordedAt: number
  readonly sequence: number
  readonly itemId: string
  readonly type: MovementType
  readonly onHandDelta: number
  readonly reservedDelta: number
  readonly unallocatableDelta: number
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly source: MovementSource
  readonly postingId: string
  readonly actor: string
  readonly orderId: string | null
  readonly reservationId: string | null
  readonly reference: string | null
  readonly reason: string | null
  readonly occurredAt: number | null
}
export interface TrackingRow {
  readonly merchantId: string
  readonly trackingKey: string
  readonly postingId: string
  readonly answer: string | null
  readonly recordedAt: number
}
export interface IdempotencyRow {
  readonly merchantId: string
  readonly idempotencyKey: string
  readonly fingerprint: string
  readonly answer: string
  readonly createdAt: number
}
export interface DiscrepancyRow {
  readonly merchantId: string
  readonly discrepancyId: string
  readonly kind: DiscrepancyKind
  readonly subject: string
  readonly stockId: string | null
  readonly itemId: string | null
  readonly orderId: string | null
  readonly detail: Readonly<Record<string, unknown>>
  status: "OPEN" | "CLOSED" | "RESOLVED"
  readonly openedAt: number
  closedAt: number | null
  closedBy: string | null
  reason: string | null
}
/** From where the chain of a stock's movements goes on. */
export interface CheckpointRow {
  readonly merchantId: string
  readonly stockId: string
  readonly sequence: number
  readonly recordedAt: number
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly kind: "CHECKPOINT"
  readonly actor: string
  readonly reason: string
  readonly createdAt: number
}
/** What was mended, or acknowledged, of what audit found. */
export interface RepairRow {
  readonly merchantId: string
  readonly repairId: string
  readonly finding: string
  readonly invariant: string
  readonly action: string
  readonly subject: string
  readonly before: Readonly<Record<string, unknown>>
  readonly after: Readonly<Record<string, unknown>>
  readonly actor: string
  readonly reason: string
  readonly repairedAt: number
}
/** What the ledger says of a stock, and the open lines of what is reserved of it: read for a repair alone. */
export interface StockTruth {
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly sequence: number
  readonly recordedAt: number
  readonly open: number
}
/** What the ledger says that a reservation holds of a stock, has sold and has taken back: read for a repair alone. */
export interface MovedRow {
  readonly stockId: string
  readonly open: number
  readonly sold: number
  readonly returned: number
}
/** A key inside one merchant. Ids hold no control characters, so that the separator cannot be forged. */
export const keyOf = (merchantId: string, id: string): string => `${merchantId}\u001f${id}`

export const openKey = (merchantId: string, subject: string, kind: DiscrepancyKind): string =>
  keyOf(merchantId, `${subject} ${kind}`)

export class Books {
  readonly merchants = new Set<string>()
  readonly locations = new Map<string, LocationRow>()
  readonly items = new Map<string, ItemRow>()
  readonly itemsByVariant = new Map<string, ItemRow>()
  readonly itemsBySku = new Map<string, ItemRow>()
  readonly stocks = new Map<string, StockRow>()
  readonly stocksOfItem = new Map<string, Array<StockRow>>()
  readonly reservationsOfOrder = new Map<string, Array<ReservationRow>>()
  readonly tracking = new Map<string, TrackingRow>()
  readonly idempotency = new Map<string, IdempotencyRow>()
  readonly discrepancies = new Map<string, DiscrepancyRow>()
  /** The discrepancies that are open, by subject and kind, as far as the batch may open one of its own. */
  readonly open = new Map<string, true>()

  /** For repairs: the ledger's side of stocks and of reservations, and lines whose reservation is gone. */
  readonly truths = new Map<string, StockTruth>()
  readonly moved = new Map<string, Array<MovedRow>>()
  readonly orphans = new Map<string, Array<LineRow>>()

  /** What the batch writes. A row that is new is inserted as it stands in the end, and never updated. */
  readonly written = {
    merchants: new Set<string>(),
    locations: new Set<LocationRow>(),
    items: new Set<ItemRow>(),
    stocks: new Set<StockRow>(),
    reservations: new Set<ReservationRow>(),
    lines: new Set<LineRow>(),
    ledger: [] as Array<LedgerRow>,
    tracking: [] as Array<TrackingRow>,
    idempotency: [] as Array<IdempotencyRow>,
    discrepancies: new Set<DiscrepancyRow>(),
    /** Tracking keys that are no longer to be known. */
    forgotten: [] as Array<{ merchantId: string; trackingKey: string }>,
    /** Items that have given up their sku, which another item of the same batch may take. */
    freedSkus: new Set<ItemRow>(),
    /** The merchants of captured rows. */
    captured: [] as Array<{ rowId: string; merchantId: string }>,
    /** Discrepancies whose condition has ended, by subject and kind. */
    closings: [] as Array<{ merchantId: string; subject: string; kind: DiscrepancyKind; at: number }>,
    checkpoints: [] as Array<CheckpointRow>,
    repairs: [] as Array<RepairRow>,
    events: [] as Array<OutboxEvent>
  }
  readonly changed = {
    locations: new Set<LocationRow>(),
    items: new Set<ItemRow>(),
    stocks: new Set<StockRow>(),
    reservations: new Set<ReservationRow>(),
    lines: new Set<LineRow>(),
    discrepancies: new Set<DiscrepancyRow>()
  }

  /** Of reservations whose status the batch has set: what it was before. */
  readonly statusBefore = new Map<ReservationRow, ReservationStatus>()

  #journal: Array<() => void> = []

  /** Begins a posting: what follows can be undone with `undo`. */
  begin(): void {
    this.#journal = []
  }

  undo(): void {
    this.undoTo(0)
  }

  /** A place in the posting: what follows can be undone alone with `undoTo`. */
  mark(): number {
    return this.#journal.length
  }

  undoTo(mark: number): void {
    while (this.#journal.length > mark) this.#journal.pop()!()
  }

  change<R extends object>(kind: Set<R>, row: R, patch: Partial<R>): void {
    if (kind === (this.changed.reservations as Set<unknown>) && "status" in patch) {
      const reservation = row as unknown as ReservationRow
      if (!this.statusBefore.has(reservation)) this.statusBefore.set(reservation, reservation.status)
    }
    const before: Partial<R> = {}
    for (const field in patch) before[field] = row[field]
    const first = !kind.has(row)
    kind.add(row)
    Object.assign(row, patch)
    this.#journal.push(() => {
      Object.assign(row, before)
      if (first) kind.delete(row)
    })
  }

  insert<R>(kind: Set<R> | Array<R>, row: R): void {
    if (Array.isArray(kind)) {
      kind.push(row)
      this.#journal.push(() => kind.pop())
    } else {
      kind.add(row)
      this.#journal.push(() => kind.delete(row))
    }
  }

  index<V>(map: Map<string, V>, key: string, value: V): void {
    const before = map.get(key)
    map.set(key, value)
    this.#journal.push(() => (before === undefined ? map.delete(key) : map.set(key, before)))
  }

  unindex<V>(map: Map<string, V>, key: string): void {
    const before = map.get(key)
    if (before === undefined) return
    map.delete(key)
    this.#journal.push(() => map.set(key, before))
  }

  append<V>(map: Map<string, Array<V>>, key: string, value: V): void {
    let list = map.get(key)
    if (list === undefined) map.set(key, (list = []))
    const target = list
    target.push(value)
    this.#journal.push(() => target.pop())
  }

  track(row: TrackingRow): void {
    this.insert(this.written.tracking, row)
    this.index(this.tracking, keyOf(row.merchantId, row.trackingKey), row)
  }

  forget(row: TrackingRow): void {
    const { merchantId, trackingKey } = row
    const rows = this.written.tracking
    const place = rows.indexOf(row)
    if (place < 0) this.insert(this.written.forgotten, { merchantId, trackingKey })
    else {
      // One of this very batch is not written in the first place.
      rows.splice(place, 1)
      this.#journal.push(() => rows.splice(place, 0, row))
    }
    this.unindex(this.tracking, keyOf(merchantId, trackingKey))
  }

  findItem(merchantId: string, ref: ItemRef): ItemRow | undefined {
    const item =
      "variantId" in ref
        ? this.itemsByVariant.get(keyOf(merchantId, ref.variantId))
        : "sku" in ref
          ? this.itemsBySku.get(keyOf(merchantId, ref.sku))
          : this.items.get(keyOf(merchantId, ref.itemId))
    return item === undefined || item.deletedAt !== null ? undefined : item
  }

  stocksOf(item: ItemRow): ReadonlyArray<StockRow> {
    return this.stocksOfItem.get(keyOf(item.merchantId, item.itemId)) ?? []
  }

  reservationsOf(merchantId: string, orderId: string): ReadonlyArray<ReservationRow> {
    return this.reservationsOfOrder.get(keyOf(merchantId, orderId)) ?? []
  }

  addItem(item: ItemRow): void {
    const key = keyOf(item.merchantId, item.itemId)
    this.items.set(key, item)
    if (item.productVariantId !== null)
      this.itemsByVariant.set(keyOf(item.merchantId, item.productVariantId), item)
    if (item.sku !== null) this.itemsBySku.set(keyOf(item.merchantId, item.sku), item)
  }

  addStock(stock: StockRow): void {
    this.stocks.set(keyOf(stock.merchantId, stock.stockId), stock)
    const key = keyOf(stock.merchantId, stock.itemId)
    const siblings = this.stocksOfItem.get(key)
    if (siblings === undefined) this.stocksOfItem.set(key, [stock])
    else siblings.push(stock)
  }

  addReservation(reservation: ReservationRow): void {
    const key = keyOf(reservation.merchantId, reservation.orderId)
    const siblings = this.reservationsOfOrder.get(key)
    if (siblings === undefined) this.reservationsOfOrder.set(key, [reservation])
    else siblings.push(reservation)
  }
}

/**
 * The ids that a posting gives away: its own, counted on in the last twelve digits. The operations of a bulk draw theirs
 * from one count, so that none of them meets those of its neighbours, however many it needs.
 */
export class DerivedIds {
  readonly #head: string
  /** Two times six digits, because numbers of more than 31 bits are slow to write. */
  #upper: number
  #lower: number

  constructor(postingId: string) {
    this.#head = postingId.slice(0, 24)
    this.#upper = Number.parseInt(postingId.slice(24, 30), 16)
    this.#lower = Number.parseInt(postingId.slice(30), 16)
  }

  next(): string {
    this.#lower = (this.#lower + 1) % 0x1000000
    if (this.#lower === 0) this.#upper = (this.#upper + 1) % 0x1000000
    return this.#head + sixDigits(this.#upper) + sixDigits(this.#lower)
  }
}

const sixDigits = (value: number): string => (0x1000000 + value).toString(16).slice(1)

export const isExpired = ({ lotExpiresAt }: StockRow, at: number): boolean =>
  lotExpiresAt !== null && lotExpiresAt <= at

/**
 * What can be sold of a stock at a time: `max(0, onHand − reserved − unallocatable)`, and nothing of a lot past its
 * expiry (CONTRACTS section 1: one formula everywhere).
 */
export const sellable = (stock: StockRow, at: number): number =>
  isExpired(stock, at) ? 0 : Math.max(0, stock.onHand - stock.reserved - stock.unallocatable)

export const sellableOf = (stocks: ReadonlyArray<StockRow>, at: number): number => {
  let sum = 0
  for (const stock of stocks) sum += sellable(stock, at)
  return sum
}

/** What would be sellable if no lot ever expired: views show the difference as unallocatable (CONTRACTS section 1). */
const freeOf = (stocks: ReadonlyArray<StockRow>): number => sellableOf(stocks, Number.NEGATIVE_INFINITY)

const hasStock = (stocks: ReadonlyArray<StockRow>): boolean =>
  stocks.some(({ onHand, reserved, unallocatable }) => onHand !== 0 || reserved !== 0 || unallocatable !== 0)

/** Whether an item is sold no more although there is stock of it: a discrepancy is open for as long as it is so. */
export const isStranded = (books: Books, item: ItemRow): boolean =>
  item.discontinued && hasStock(books.stocksOf(item))

export const isEmpty = (books: Books, item: ItemRow): boolean => !hasStock(books.stocksOf(item))

export const statusOf = (
  item: Pick<ItemRow, "discontinued" | "initialized" | "lowStockThreshold">,
  available: number
): ItemStatus => {
  if (item.discontinued) return "DISCONTINUED"
  if (!item.initialized) return "AWAITING_INITIAL_STOCK"
  if (available <= 0) return "OUT_OF_STOCK"
  return available <= item.lowStockThreshold ? "LOW_STOCK" : "IN_STOCK"
}

export const itemFigures = (books: Books, item: ItemRow, at: number): ItemFigures => {
  const stocks = books.stocksOf(item)
  const available = sellableOf(stocks, at)
  return {
    itemId: item.itemId,
    productVariantId: item.productVariantId,
    sku: item.sku,
    quantity: item.onHand,
    reservedQuantity: item.reserved,
    unallocatableQuantity: item.unallocatable + freeOf(stocks) - available,
    availableQuantity: available,
    status: statusOf(item, available)
  }
}

export const stockFigures = (stock: StockRow): StockFigures => ({
  stockId: stock.stockId,
  locationId: stock.locationId,
  lotNumber: stock.lotNumber === "" ? null : stock.lotNumber,
  quantity: stock.onHand,
  reservedQuantity: stock.reserved,
  unallocatableQuantity: stock.unallocatable,
  version: stock.sequence
})

/** The order in which stock is taken: by location (default first, then oldest), first-expired-first-out inside it. */
export const byPick = (a: StockRow, b: StockRow): number =>
  Number(b.locationIsDefault) - Number(a.locationIsDefault) ||
  a.locationPosition - b.locationPosition ||
  (a.lotExpiresAt ?? Number.POSITIVE_INFINITY) - (b.lotExpiresAt ?? Number.POSITIVE_INFINITY) ||
  a.createdAt - b.createdAt ||
  (a.stockId < b.stockId ? -1 : 1)
