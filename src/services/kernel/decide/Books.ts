import type { OutboxEvent } from "../../../schema/Event.ts"
import type {
  DiscrepancyKind,
  ItemFigures,
  ItemRef,
  ItemStatus,
  MovementSource,
  MovementType,
  ReservationStatus,
  StockFigures
} from "../../../schema/Posting.ts"

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

export const openKey = (subject: string, kind: DiscrepancyKind): string => `${subject} ${kind}`

/**
 * What a merchant has, by names or ids that are its own. Of items and stocks a posting asks many times, and a name joined
 * with its merchant's (`keyOf`) would be copied and hashed each time.
 */
export class ByMerchant<V> {
  readonly #merchants = new Map<string, Map<string, V>>()

  get(merchantId: string, id: string): V | undefined {
    return this.#merchants.get(merchantId)?.get(id)
  }

  has(merchantId: string, id: string): boolean {
    return this.get(merchantId, id) !== undefined
  }

  set(merchantId: string, id: string, value: V): void {
    const own = this.#merchants.get(merchantId)
    if (own === undefined) this.#merchants.set(merchantId, new Map([[id, value]]))
    else own.set(id, value)
  }

  delete(merchantId: string, id: string): void {
    this.#merchants.get(merchantId)?.delete(id)
  }

  *values(): Generator<V> {
    for (const own of this.#merchants.values()) yield* own.values()
  }

  *[Symbol.iterator](): Generator<readonly [merchantId: string, id: string, value: V]> {
    for (const [merchantId, own] of this.#merchants) {
      for (const [id, value] of own) yield [merchantId, id, value]
    }
  }
}

export class Books {
  readonly merchants = new Set<string>()
  readonly locations = new ByMerchant<LocationRow>()
  readonly items = new ByMerchant<ItemRow>()
  readonly itemsByVariant = new ByMerchant<ItemRow>()
  readonly itemsBySku = new ByMerchant<ItemRow>()
  readonly stocks = new ByMerchant<StockRow>()
  readonly stocksOfItem = new ByMerchant<Array<StockRow>>()
  readonly reservationsOfOrder = new ByMerchant<Array<ReservationRow>>()
  readonly tracking = new ByMerchant<TrackingRow>()
  readonly idempotency = new ByMerchant<IdempotencyRow>()
  readonly discrepancies = new ByMerchant<DiscrepancyRow>()
  /** The discrepancies that are open, by subject and kind, as far as the batch may open one of its own. */
  readonly open = new ByMerchant<true>()

  /** For repairs: the ledger's side of stocks and of reservations, and lines whose reservation is gone. */
  readonly truths = new ByMerchant<StockTruth>()
  readonly moved = new ByMerchant<Array<MovedRow>>()
  readonly orphans = new ByMerchant<Array<LineRow>>()

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

  /** What undoes the posting that is being decided. */
  #journal: Array<() => void> = []

  /** Begins a posting: what follows can be undone with `undo`. */
  begin(): void {
    this.#journal = []
  }

  /** Ends a posting: what was done stays, and what would undo it lies in nobody's way while the batch is written. */
  end(): void {
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
    const first = !kind.has(row)
    if (first) kind.add(row)
    const before: Array<R[keyof R]> = []
    for (const field in patch) {
      before.push(row[field])
      row[field] = patch[field]!
    }
    this.#journal.push(() => {
      let index = 0
      for (const field in patch) row[field] = before[index++] as R[typeof field]
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

  /** A new item, which is found by its names from now on. */
  insertItem(item: ItemRow): void {
    const { itemId, merchantId } = item
    this.written.items.add(item)
    this.items.set(merchantId, itemId, item)
    this.#journal.push(() => {
      this.written.items.delete(item)
      this.items.delete(merchantId, itemId)
    })
  }

  /** A new stock, which is one of its item's from now on. */
  insertStock(stock: StockRow): void {
    const { itemId, merchantId, stockId } = stock
    const ofItem = listOf(this.stocksOfItem, merchantId, itemId)
    this.written.stocks.add(stock)
    this.stocks.set(merchantId, stockId, stock)
    ofItem.push(stock)
    this.#journal.push(() => {
      ofItem.pop()
      this.stocks.delete(merchantId, stockId)
      this.written.stocks.delete(stock)
    })
  }

  index<V>(index: ByMerchant<V>, merchantId: string, id: string, value: V): void {
    const before = index.get(merchantId, id)
    index.set(merchantId, id, value)
    this.#journal.push(() =>
      before === undefined ? index.delete(merchantId, id) : index.set(merchantId, id, before)
    )
  }

  unindex<V>(index: ByMerchant<V>, merchantId: string, id: string): void {
    const before = index.get(merchantId, id)
    if (before === undefined) return
    index.delete(merchantId, id)
    this.#journal.push(() => index.set(merchantId, id, before))
  }

  append<V>(index: ByMerchant<Array<V>>, merchantId: string, id: string, value: V): void {
    const list = listOf(index, merchantId, id)
    list.push(value)
    this.#journal.push(() => list.pop())
  }

  track(row: TrackingRow): void {
    this.insert(this.written.tracking, row)
    this.index(this.tracking, row.merchantId, row.trackingKey, row)
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
    this.unindex(this.tracking, merchantId, trackingKey)
  }

  findItem(merchantId: string, ref: ItemRef): ItemRow | undefined {
    const item =
      "variantId" in ref
        ? this.itemsByVariant.get(merchantId, ref.variantId)
        : "sku" in ref
          ? this.itemsBySku.get(merchantId, ref.sku)
          : this.items.get(merchantId, ref.itemId)
    return item === undefined || item.deletedAt !== null ? undefined : item
  }

  stocksOf(item: ItemRow): ReadonlyArray<StockRow> {
    return this.stocksOfItem.get(item.merchantId, item.itemId) ?? none
  }

  reservationsOf(merchantId: string, orderId: string): ReadonlyArray<ReservationRow> {
    return this.reservationsOfOrder.get(merchantId, orderId) ?? none
  }

  addItem(item: ItemRow): void {
    const { merchantId } = item
    this.items.set(merchantId, item.itemId, item)
    if (item.productVariantId !== null) this.itemsByVariant.set(merchantId, item.productVariantId, item)
    if (item.sku !== null) this.itemsBySku.set(merchantId, item.sku, item)
  }

  addStock(stock: StockRow): void {
    this.stocks.set(stock.merchantId, stock.stockId, stock)
    listOf(this.stocksOfItem, stock.merchantId, stock.itemId).push(stock)
  }

  addReservation(reservation: ReservationRow): void {
    listOf(this.reservationsOfOrder, reservation.merchantId, reservation.orderId).push(reservation)
  }
}

const none: ReadonlyArray<never> = []

const listOf = <V>(index: ByMerchant<Array<V>>, merchantId: string, id: string): Array<V> => {
  const known = index.get(merchantId, id)
  if (known !== undefined) return known
  const list: Array<V> = []
  index.set(merchantId, id, list)
  return list
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
  /** All but the lower six digits. */
  #begin: string

  constructor(postingId: string) {
    this.#head = postingId.slice(0, 24)
    this.#upper = Number.parseInt(postingId.slice(24, 30), 16)
    this.#lower = Number.parseInt(postingId.slice(30), 16)
    this.#begin = postingId.slice(0, 30)
  }

  next(): string {
    this.#lower = (this.#lower + 1) % 0x1000000
    if (this.#lower === 0) {
      this.#upper = (this.#upper + 1) % 0x1000000
      this.#begin = this.#head + sixDigits(this.#upper)
    }
    return this.#begin + sixDigits(this.#lower)
  }
}

const sixDigits = (value: number): string => threeDigits[value >>> 12]! + threeDigits[value & 0xfff]!
const threeDigits = Array.from({ length: 0x1000 }, (_, value) => value.toString(16).padStart(3, "0"))

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
