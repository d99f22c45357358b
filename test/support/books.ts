import type { Some } from "../../src/schema/Some.ts"
import type { OutboxEvent } from "../../src/schema/Event.ts"
import type { Caller } from "../../src/schema/Caller.ts"
import type { ItemRef } from "../../src/schema/Item.ts"
import { type CommandDefinition, definitionsOf } from "../../src/services/kernel/Command.ts"
import type { Answers, AnyRefusal, Answer, Command, Posting } from "../../src/services/kernel/commands.ts"
import { commands } from "../../src/services/kernel/commands.ts"
import {
  type Prepared,
  type Verdict as VerdictOf,
  decide as decidePrepared,
  prepare
} from "../../src/services/kernel/decide.ts"
import { keyOf } from "../../src/services/kernel/Needs.ts"
import type { Table } from "../../src/services/kernel/Table.ts"
import { tables } from "../../src/services/kernel/tables.ts"
import {
  capturedVariants,
  type ItemRow,
  items,
  locations,
  merchants
} from "../../src/services/kernel/tables/catalog.ts"
import { discrepancies, idempotency, tracking } from "../../src/services/kernel/tables/documents.ts"
import {
  reservationLines,
  type ReservationRow,
  reservations
} from "../../src/services/kernel/tables/reservations.ts"
import { ledger, type StockRow, stocks } from "../../src/services/kernel/tables/stock.ts"
import { ByMerchant, type Rows, UnitOfWork } from "../../src/services/kernel/UnitOfWork.ts"

/** The kernel without a database: tables in memory, and a desk that posts commands over them. */

export const merchantId = "m"
/** When tests begin. Any time would do; a round one is easy to read in a counterexample. */
export const epoch = Date.UTC(2030, 0, 1)

/** What was asked for when a unit of work was read: a posting is decided with the keys that were locked for it. */
const preparations = new WeakMap<UnitOfWork, ReadonlyMap<Posting, Prepared>>()

export type Verdict = VerdictOf<Answers[keyof Answers], AnyRefusal>

export const decide = (unit: UnitOfWork, posting: Posting): Verdict =>
  decidePrepared(unit, preparations.get(unit)!.get(posting)!)

type Stored = Record<string, Some>

/**
 * What PostgreSQL would keep, for one merchant or several. It reads exactly the rows that the commands ask for, copies
 * whatever goes in or out, and holds the constraints of `migrations/0001_kernel.sql`, so that what the database would
 * refuse fails here too. It knows the tables by their definitions alone.
 */
export class MemoryStore {
  readonly #lists: {
    readonly commands: ReadonlyArray<CommandDefinition>
    readonly tables: ReadonlyArray<Table>
  }
  readonly #rows: ReadonlyMap<Table, Map<string, Stored>>
  readonly events: Array<OutboxEvent> = []

  constructor(
    lists: { readonly commands: ReadonlyArray<CommandDefinition>; readonly tables: ReadonlyArray<Table> } = {
      commands,
      tables
    }
  ) {
    this.#lists = lists
    this.#rows = new Map(lists.tables.map((table) => [table, new Map()]))
  }

  /** The rows of a table by their keys, `keyOf` the merchant and the rest. */
  of<R extends object>(table: Table<R>): Map<string, R> {
    return this.#rows.get(table) as unknown as Map<string, R>
  }

  get merchants(): ReadonlySet<string> {
    return new Set([...this.of(merchants).values()].map((row) => row.merchantId))
  }
  get locations() {
    return this.of(locations)
  }
  get items() {
    return this.of(items)
  }
  get stocks() {
    return this.of(stocks)
  }
  get ledger() {
    return [...this.of(ledger).values()]
  }
  get reservations() {
    return this.of(reservations)
  }
  get lines() {
    return this.of(reservationLines)
  }
  get tracking() {
    return this.of(tracking)
  }
  get idempotency() {
    return this.of(idempotency)
  }
  get discrepancies() {
    return this.of(discrepancies)
  }
  get captured(): ReadonlyMap<string, string> {
    return new Map([...this.of(capturedVariants).values()].map((row) => [row.rowId, row.ownerId]))
  }

  copy(): MemoryStore {
    const copy = new MemoryStore(this.#lists)
    for (const [table, rows] of this.#rows) {
      for (const [key, row] of rows) copy.#rows.get(table)!.set(key, { ...row })
    }
    copy.events.push(...this.events)
    return copy
  }

  /** The unit of work of a batch, as its transaction reads it. */
  open(
    postings: ReadonlyArray<Posting>,
    _at: number,
    knownMerchants: ReadonlySet<string> = this.merchants
  ): UnitOfWork {
    const { needs, prepared } = prepare(definitionsOf(this.#lists.commands), postings, knownMerchants)
    const unit = new UnitOfWork(this.#lists.tables)
    preparations.set(unit, new Map(prepared.map((each) => [each.posting as Posting, each])))
    for (const merchant of knownMerchants) unit.knownMerchants.add(merchant)
    const wanted = new Set(needs.items.keys())
    for (const [{ field, table }, values] of needs.reads) {
      for (const row of this.#inOrder(table)) {
        if (!values.has(keyOf(row["merchantId"], row[field]))) continue
        unit.rows(table).add(row)
        for (const itemId of table.itemsOf?.(row) ?? []) wanted.add(keyOf(row["merchantId"], itemId))
      }
    }
    for (const item of this.items.values()) {
      const { itemId, merchantId: merchant, productVariantId, sku } = item
      const isNamed =
        (productVariantId !== null && needs.variants.has(keyOf(merchant, productVariantId))) ||
        (sku !== null && needs.skus.has(keyOf(merchant, sku)))
      if (!isNamed && !wanted.has(keyOf(merchant, itemId))) continue
      wanted.add(keyOf(merchant, itemId))
      unit.items.add({ ...item })
    }
    for (const table of this.#lists.tables) {
      const { ofItems } = table
      if (ofItems === null) continue
      for (const row of this.#inOrder(table)) {
        const isAbout = (ids: { has(key: string): boolean }, id: string): boolean =>
          ids.has(keyOf(row["merchantId"], id))
        // What is read by its subject as well is read for as long as it is open.
        const isWanted = ofItems.subjects
          ? row["status"] === "OPEN" &&
            (isAbout(wanted, row["itemId"]) || isAbout(needs.subjects, row["subject"]))
          : isAbout(wanted, row["itemId"])
        if (isWanted) unit.rows(table).add(row)
      }
    }
    return unit
  }

  /** Copies, each with what is read along with it, in the order in which they were made. */
  #inOrder(table: Table): ReadonlyArray<Stored> {
    const rows = [...this.#rows.get(table)!.values()].map((row) => ({ ...row }))
    if (table === (stocks as Table)) return rows.map((row): Stored => ({ ...row, ...this.#locationOf(row) }))
    if (table !== (reservations as Table)) return rows
    return rows
      .map((row): Stored => ({ ...row, lines: this.#linesOf(row as ReservationRow) }))
      .sort((a, b) => a["createdAt"] - b["createdAt"] || (a["reservationId"] < b["reservationId"] ? -1 : 1))
  }

  #locationOf({ locationId, merchantId: merchant }: Stored) {
    const { isDefault, position, retired } = this.locations.get(keyOf(merchant, locationId))!
    return { locationIsDefault: isDefault, locationPosition: position, locationRetired: retired === true }
  }

  #linesOf({ merchantId: merchant, reservationId }: ReservationRow) {
    return [...this.lines.values()]
      .filter((line) => line.merchantId === merchant && line.reservationId === reservationId)
      .sort((a, b) => a.lineNumber - b.lineNumber)
      .map((line) => ({ ...line }))
  }

  /** In the order in which they are read. */
  reservationsOf(merchant: string, orderId: string): Array<ReservationRow> {
    return this.#inOrder(reservations).filter(
      (row) => row["merchantId"] === merchant && row["orderId"] === orderId
    ) as Array<ReservationRow>
  }

  /** Writes what a batch has decided. Every update matches its row, and no insert meets one. */
  commit(unit: UnitOfWork): void {
    for (const { changed, inserted, removed, table } of unit.all) {
      const rows = this.#rows.get(table)!
      const nameOf = (row: Stored): string => keyOf(row["merchantId"], keyRest(table, row))
      for (const row of removed) rows.delete(nameOf(row))
      for (const row of changed) {
        if (inserted.has(row)) continue
        expect(rows.has(nameOf(row)), "no row to update", row)
        rows.set(nameOf(row), stored(row))
      }
      for (const row of inserted) {
        expect(table.isUpserted || !rows.has(nameOf(row)), "inserted twice", row)
        rows.set(nameOf(row), stored(row))
      }
    }
    this.events.push(...unit.events)
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
    unique(this.locations.values(), (row) => `location ${row.position}`)
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
      expect(returned >= 0 && line.returnedEarly >= 0, "what came back is a count", line)
      expect(returned + line.returnedEarly <= sold, "what is returned was sold", line)
      expect(line.paid >= 0 && line.paid <= sold, "what is paid was sold", line)
    }
  }
}

const keyRest = ({ key }: Table, row: Stored): string =>
  key
    .filter((field) => field !== "merchantId")
    .map((field) => row[field])
    .join(" ")

const stored = ({ lines: _lines, ...row }: Stored): Stored => row

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
export const snapshotOf = (unit: UnitOfWork): string =>
  JSON.stringify([
    [...unit.knownMerchants],
    unit.events,
    [...unit.all].map((rows: Rows<Some>) => [
      rows.table.name,
      ...Object.values({ ...rows.indexes, ...rows.lists }).map((index: ByMerchant<object>) =>
        [...index]
          .map(([merchant, id, row]) => [keyOf(merchant, id), row] as const)
          .filter(([, row]) => !Array.isArray(row) || row.length > 0)
          .sort(([a], [b]) => (a < b ? -1 : 1))
      ),
      ...[rows.inserted, rows.changed, rows.removed, rows.freed].map((set) =>
        [...set].map((row) => JSON.stringify(row)).sort()
      )
    ])
  ])

/**
 * Where examples are played: one command after the other, each over books of its own that are read from the store and
 * written back, as a lone posting would be. `batch` decides several over the same books.
 */
export class Desk {
  readonly store: MemoryStore

  constructor(store = new MemoryStore()) {
    this.store = store
  }

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
