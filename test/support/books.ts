import type { OutboxEvent } from "../../src/schema/Event.ts"
import { outboxPieces } from "../../src/schema/OutboxText.ts"
import type { AnyRefusal, Answer, Caller, Command, ItemRef, Posting } from "../../src/schema/Posting.ts"
import {
  Books,
  ByMerchant,
  type DiscrepancyRow,
  type IdempotencyRow,
  type ItemRow,
  type LedgerRow,
  type LineRow,
  type LocationRow,
  type ReservationRow,
  type StockRow,
  type TrackingRow,
  keyOf,
  openKey
} from "../../src/services/kernel/decide/Books.ts"
import { type Verdict, decide } from "../../src/services/kernel/decide/decide.ts"
import { idempotencyAgeMs, needsOf } from "../../src/services/kernel/LedgerStore.ts"

/** The kernel without a database: tables in memory, and a desk that posts commands over them. */

export const merchantId = "m"
/** When tests begin. Any time would do; a round one is easy to read in a counterexample. */
export const epoch = Date.UTC(2030, 0, 1)

type Stored<R extends object> = { -readonly [K in keyof R]: R[K] }

/**
 * What PostgreSQL would keep, for one merchant or several. It reads exactly the rows that `needsOf` asks for, copies
 * whatever goes in or out, and holds the constraints of `migrations/0001_kernel.sql`, so that what the database would
 * refuse fails here too.
 */
export class MemoryStore {
  readonly merchants = new Set<string>()
  readonly locations = new Map<string, LocationRow>()
  readonly items = new Map<string, ItemRow>()
  readonly stocks = new Map<string, StockRow>()
  readonly ledger: Array<LedgerRow> = []
  readonly reservations = new Map<string, Omit<ReservationRow, "lines">>()
  readonly lines = new Map<string, LineRow>()
  readonly tracking = new Map<string, TrackingRow>()
  readonly idempotency = new Map<string, IdempotencyRow>()
  readonly discrepancies = new Map<string, Stored<DiscrepancyRow>>()
  readonly events: Array<OutboxEvent> = []
  readonly captured = new Map<string, string>()

  copy(): MemoryStore {
    const copy = new MemoryStore()
    for (const merchant of this.merchants) copy.merchants.add(merchant)
    copyRows(this.locations, copy.locations)
    copyRows(this.items, copy.items)
    copyRows(this.stocks, copy.stocks)
    copyRows(this.reservations, copy.reservations)
    copyRows(this.lines, copy.lines)
    copyRows(this.tracking, copy.tracking)
    copyRows(this.idempotency, copy.idempotency)
    copyRows(this.discrepancies, copy.discrepancies)
    copy.ledger.push(...this.ledger)
    copy.events.push(...this.events)
    for (const [rowId, merchant] of this.captured) copy.captured.set(rowId, merchant)
    return copy
  }

  /** The books of a batch, as `LedgerStore.open` reads them. */
  open(
    postings: ReadonlyArray<Posting>,
    at: number,
    knownMerchants: ReadonlySet<string> = this.merchants
  ): Books {
    const needs = needsOf(postings, knownMerchants)
    const books = new Books()
    for (const merchant of knownMerchants) books.merchants.add(merchant)
    for (const [merchant, orderId] of needs.orders.values()) {
      for (const reservation of this.reservationsOf(merchant, orderId)) books.addReservation(reservation)
    }
    for (const [key, [merchant, trackingKey]] of needs.tracking) {
      const row = this.tracking.get(key)
      if (row !== undefined) books.tracking.set(merchant, trackingKey, { ...row })
    }
    for (const [key, [merchant, idempotencyKey]] of needs.idempotency) {
      const row = this.idempotency.get(key)
      if (row !== undefined && row.createdAt > at - idempotencyAgeMs)
        books.idempotency.set(merchant, idempotencyKey, { ...row })
    }
    for (const location of this.locations.values()) {
      if (!needs.merchants.has(location.merchantId)) continue
      books.merchants.add(location.merchantId)
      books.locations.set(location.merchantId, location.locationId, { ...location })
    }
    const wanted = new Set(needs.items.keys())
    for (const key of needs.discrepancies.keys()) {
      const row = this.discrepancies.get(key)
      if (row === undefined) continue
      books.discrepancies.set(row.merchantId, row.discrepancyId, { ...row })
      if (row.itemId !== null) wanted.add(keyOf(row.merchantId, row.itemId))
    }
    for (const reservations of books.reservationsOfOrder.values()) {
      for (const line of reservations.flatMap(({ lines }) => lines))
        wanted.add(keyOf(line.merchantId, line.itemId))
    }
    for (const [key, item] of this.items) {
      const named =
        (item.productVariantId !== null &&
          needs.variants.has(keyOf(item.merchantId, item.productVariantId))) ||
        (item.sku !== null && needs.skus.has(keyOf(item.merchantId, item.sku)))
      if (!named && !wanted.has(key)) continue
      books.addItem({ ...item })
      for (const stock of this.stocks.values()) {
        if (keyOf(stock.merchantId, stock.itemId) === key) books.addStock({ ...stock })
      }
    }
    // More than the batch may meet, which is all that LedgerStore asks for.
    for (const { kind, merchantId: merchant, status, subject } of this.discrepancies.values()) {
      if (status === "OPEN") books.open.set(merchant, openKey(subject, kind), true)
    }
    return books
  }

  /** In the order of `readOrders`. */
  reservationsOf(merchant: string, orderId: string): Array<ReservationRow> {
    return [...this.reservations.values()]
      .filter((row) => row.merchantId === merchant && row.orderId === orderId)
      .sort((a, b) => a.createdAt - b.createdAt || (a.reservationId < b.reservationId ? -1 : 1))
      .map((row) => ({
        ...row,
        lines: [...this.lines.values()]
          .filter((line) => line.merchantId === merchant && line.reservationId === row.reservationId)
          .sort((a, b) => a.lineNumber - b.lineNumber)
          .map((line) => ({ ...line }))
      }))
  }

  /**
   * Writes what a batch has decided. Updates go before inserts wherever a unique key may pass from one row to another
   * in the same batch.
   */
  commit({ changed, written }: Books): void {
    for (const merchant of written.merchants) {
      expect(!this.merchants.has(merchant), "inserted twice", merchant)
      this.merchants.add(merchant)
    }
    write(this.locations, written.locations, changed.locations, (row) => row.locationId)
    write(this.items, written.items, changed.items, (row) => row.itemId)
    write(this.stocks, written.stocks, changed.stocks, (row) => row.stockId)
    for (const row of written.ledger) this.ledger.push({ ...row })
    const withoutLines = new Map<ReservationRow, Omit<ReservationRow, "lines">>()
    for (const row of [...written.reservations, ...changed.reservations]) {
      const { lines: _lines, ...stored } = row
      withoutLines.set(row, stored)
    }
    const storedOf = (rows: ReadonlySet<ReservationRow>) =>
      new Set([...rows].map((row) => withoutLines.get(row)!))
    write(
      this.reservations,
      storedOf(written.reservations),
      storedOf(changed.reservations),
      (row) => row.reservationId
    )
    write(this.lines, written.lines, changed.lines, (row) => `${row.reservationId} ${row.lineNumber}`)
    for (const row of written.forgotten) this.tracking.delete(keyOf(row.merchantId, row.trackingKey))
    write(this.tracking, new Set(written.tracking), new Set(), (row) => row.trackingKey)
    for (const row of written.idempotency) {
      this.idempotency.set(keyOf(row.merchantId, row.idempotencyKey), { ...row })
    }
    for (const { rowId, merchantId: merchant } of written.captured) this.captured.set(rowId, merchant)
    for (const { at, kind, merchantId: merchant, subject } of written.closings) {
      for (const row of this.discrepancies.values()) {
        if (
          row.merchantId === merchant &&
          row.subject === subject &&
          row.kind === kind &&
          row.status === "OPEN"
        ) {
          Object.assign(row, { status: "CLOSED", closedAt: at, closedBy: "holdfast" })
        }
      }
    }
    write(
      this.discrepancies,
      new Set(),
      difference(changed.discrepancies, written.discrepancies),
      idOfDiscrepancy
    )
    for (const row of written.discrepancies) {
      const isOpen = (other: DiscrepancyRow) =>
        other.status === "OPEN" &&
        other.merchantId === row.merchantId &&
        other.subject === row.subject &&
        other.kind === row.kind
      if (row.status === "OPEN" && [...this.discrepancies.values()].some(isOpen)) continue
      this.discrepancies.set(keyOf(row.merchantId, row.discrepancyId), { ...row })
    }
    expect(
      [...outboxPieces(written.events)].join("") === JSON.stringify(written.events),
      "events are JSON",
      written.events
    )
    for (const row of written.events) this.events.push(row)
    this.checkConstraints()
  }

  checkConstraints(): void {
    unique(this.items.values(), (row) => row.productVariantId && `variant ${row.productVariantId}`)
    unique(this.items.values(), (row) => row.sku && `sku ${row.sku}`)
    unique(this.stocks.values(), (row) => `stock ${row.itemId} ${row.locationId} ${row.lotNumber}`)
    unique(
      this.reservations.values(),
      (row) => row.status === "PENDING" && `PENDING ${row.orderId} ${row.kind} ${row.scope}`
    )
    unique(
      this.discrepancies.values(),
      (row) => row.status === "OPEN" && `discrepancy ${row.subject} ${row.kind}`
    )
    unique(this.locations.values(), (row) => row.isDefault && "default location")
    for (const stock of this.stocks.values()) {
      const { onHand, reserved, unallocatable } = stock
      expect(reserved >= 0 && unallocatable >= 0, "stock_holds_are_counts", stock)
      expect(
        stock.discrepancy || (onHand >= 0 && reserved + unallocatable <= onHand),
        "stock_balance_or_discrepancy",
        stock
      )
    }
    for (const line of this.lines.values()) {
      const { open, quantity, released, returned, sold } = line
      expect(
        open >= 0 && sold >= 0 && released >= 0 && quantity === open + sold + released,
        "a line is open, sold or released",
        line
      )
      expect(returned >= 0 && returned <= sold, "what is returned was sold", line)
      expect(line.paid >= 0 && line.paid <= sold, "what is paid was sold", line)
    }
  }
}

const copyRows = <R extends object>(from: ReadonlyMap<string, R>, to: Map<string, R>): void => {
  for (const [key, row] of from) to.set(key, { ...row })
}

const idOfDiscrepancy = (row: DiscrepancyRow): string => row.discrepancyId

const difference = <R>(rows: ReadonlySet<R>, without: ReadonlySet<R>): Set<R> =>
  new Set([...rows].filter((row) => !without.has(row)))

/** Every update matches its row, and no insert meets one: the counts that the database asserts. */
const write = <R extends { readonly merchantId: string }>(
  table: Map<string, R>,
  inserted: ReadonlySet<R>,
  updated: ReadonlySet<R>,
  idOf: (row: R) => string
): void => {
  for (const row of difference(updated, inserted)) {
    const key = keyOf(row.merchantId, idOf(row))
    expect(table.has(key), "no row to update", row)
    table.set(key, { ...row })
  }
  for (const row of inserted) {
    const key = keyOf(row.merchantId, idOf(row))
    expect(!table.has(key), "inserted twice", row)
    table.set(key, { ...row })
  }
}

const unique = <R extends { readonly merchantId: string }>(
  rows: Iterable<R>,
  keyOfRow: (row: R) => string | false | null
): void => {
  const seen = new Set<string>()
  for (const row of rows) {
    const key = keyOfRow(row)
    if (key === false || key === null) continue
    const inMerchant = keyOf(row.merchantId, key)
    expect(!seen.has(inMerchant), "not unique", key)
    seen.add(inMerchant)
  }
}

const expect = (condition: boolean, rule: string, row?: unknown): void => {
  if (!condition) throw new Error(`${rule} ${JSON.stringify(row)}`)
}

/** A UUIDv7 of a time, with a counter where others have chance: later ones sort later. */
export const postingId = (at: number, n: number): string => {
  const time = at.toString(16).padStart(12, "0")
  // Apart by more than any posting derives from its own id.
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${(n * 0x10000).toString(16).padStart(12, "0")}`
}

export const callerOf = (at: number, change: Partial<Caller> = {}): Caller => ({
  merchantId,
  actor: "tester",
  requestId: "request",
  deadline: at + 2_500,
  ...change
})

export const variant = (variantId: string): ItemRef => ({ variantId })

/** Everything that a batch holds and would write, for comparing before and after. Empty lists and order say nothing. */
export const snapshotOf = (books: Books): string =>
  JSON.stringify(
    [
      books.merchants,
      books.locations,
      books.items,
      books.itemsByVariant,
      books.itemsBySku,
      books.stocks,
      books.stocksOfItem,
      books.reservationsOfOrder,
      books.tracking,
      books.idempotency,
      books.discrepancies,
      books.open,
      ...Object.values(books.written),
      ...Object.values(books.changed)
    ].map((rows) =>
      rows instanceof ByMerchant
        ? [...rows]
            .map(([merchant, id, row]) => [keyOf(merchant, id), row] as const)
            .filter(([, row]) => !Array.isArray(row) || row.length > 0)
            .sort(([a], [b]) => (a < b ? -1 : 1))
        : [...rows]
    )
  )

/**
 * Where examples are played: one command after the other, each over books of its own that are read from the store and
 * written back, as a lone posting would be. `batch` decides several over the same books.
 */
export class Desk {
  readonly store = new MemoryStore()
  now = epoch
  #postings = 0

  pass(seconds: number): void {
    this.now += seconds * 1_000
  }

  posting<C extends Command>(command: C, caller: Partial<Caller> = {}): Posting<C> {
    this.#postings += 1
    return {
      id: postingId(this.now, this.#postings),
      at: this.now,
      caller: callerOf(this.now, caller),
      command
    }
  }

  /** Decides the postings over one set of books and commits them. */
  batch(...postings: ReadonlyArray<Posting>): ReadonlyArray<Verdict> {
    const books = this.store.open(postings, this.now)
    const verdicts = postings.map((posting) => decide(books, posting))
    this.store.commit(books)
    return verdicts
  }

  verdict(command: Command, caller: Partial<Caller> = {}): Verdict {
    return this.batch(this.posting(command, caller))[0]!
  }

  /** The answer of a command that must not be refused. */
  post<C extends Command>(command: C, caller: Partial<Caller> = {}): Answer<C> {
    const verdict = this.verdict(command, caller)
    if ("refusal" in verdict)
      throw new Error(`${command._tag} was refused: ${JSON.stringify(verdict.refusal)}`)
    return verdict.answer as Answer<C>
  }

  /** Why a command is refused that must be. */
  refusal(command: Command, caller: Partial<Caller> = {}): AnyRefusal {
    const verdict = this.verdict(command, caller)
    if ("answer" in verdict)
      throw new Error(`${command._tag} was not refused: ${JSON.stringify(verdict.answer)}`)
    return verdict.refusal
  }

  item(variantId: string): ItemRow {
    const item = [...this.store.items.values()].find((row) => row.productVariantId === variantId)
    if (item === undefined) throw new Error(`no item ${variantId}`)
    return item
  }

  /** The balances of an item's stocks as `[location, lot, onHand, reserved, unallocatable]`, oldest stock first. */
  balances(variantId: string): ReadonlyArray<readonly [string, string, number, number, number]> {
    const { itemId } = this.item(variantId)
    return [...this.store.stocks.values()]
      .filter((row) => row.itemId === itemId)
      .map((row) => [row.locationId, row.lotNumber, row.onHand, row.reserved, row.unallocatable] as const)
  }

  stockOf(variantId: string, locationId = "default", lotNumber = ""): StockRow {
    const { itemId } = this.item(variantId)
    const stock = [...this.store.stocks.values()].find(
      (row) => row.itemId === itemId && row.locationId === locationId && row.lotNumber === lotNumber
    )
    if (stock === undefined)
      throw new Error(`no stock of ${variantId} at ${locationId} in lot "${lotNumber}"`)
    return stock
  }

  /** The order's documents, oldest first. */
  reservations(orderId: string): ReadonlyArray<ReservationRow> {
    return this.store.reservationsOf(merchantId, orderId)
  }

  statuses(orderId: string): ReadonlyArray<string> {
    return this.reservations(orderId).map(({ status }) => status)
  }

  openDiscrepancies(): ReadonlyArray<string> {
    return [...this.store.discrepancies.values()]
      .filter(({ status }) => status === "OPEN")
      .map(({ kind }) => kind)
      .sort()
  }

  eventsOfType(type: string): ReadonlyArray<OutboxEvent> {
    return this.store.events.filter((event) => event.type === type)
  }
}
