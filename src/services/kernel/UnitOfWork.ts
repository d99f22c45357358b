import type { Some } from "../../schema/Some.ts"
import type { OutboxEvent } from "../../schema/Event.ts"
import type { ItemRef } from "../../schema/Item.ts"
import type { Table } from "./Table.ts"
import { tables as allTables } from "./tables.ts"
import { items, locations, merchants, type ItemRow } from "./tables/catalog.ts"
import { discrepancies, idempotency, tracking } from "./tables/documents.ts"
import { reservationLines, type ReservationRow, reservations } from "./tables/reservations.ts"
import { ledger, stocks, type StockRow } from "./tables/stock.ts"

/**
 * What a merchant has, by names or ids that are its own. Of items and stocks a posting asks many times, and a name joined
 * with its merchant's would be copied and hashed each time.
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

/** What undoes the posting that is being decided, step by step. */
class Journal {
  #steps: Array<() => void> = []

  push(undo: () => void): void {
    this.#steps.push(undo)
  }

  /** A place in the posting: what follows can be undone alone with `undoTo`. */
  get mark(): number {
    return this.#steps.length
  }

  undoTo(mark: number): void {
    while (this.#steps.length > mark) this.#steps.pop()!()
  }

  clear(): void {
    this.#steps = []
  }
}

/** The rows of one table within a batch: those that were read, changed in memory, and those that are new. */
export class Rows<R extends object, Unique extends string = string, Lists extends string = string> {
  readonly table: Table<R, Unique, Lists>
  /** One row under each name. */
  readonly indexes: { readonly [U in Unique]: ByMerchant<R> }
  /** All rows under a name, in the order in which they came. */
  readonly lists: { readonly [L in Lists]: ByMerchant<Array<R>> }
  /** Written as they stand in the end, and never updated. */
  readonly inserted = new Set<R>()
  readonly changed = new Set<R>()
  readonly removed = new Set<R>()
  /** Rows that have given up a unique name, which another row of the same batch may take. */
  readonly freed = new Set<R>()
  /** Of rows whose watched field the batch has set: what it was before. */
  readonly before = new Map<R, unknown>()
  readonly #journal: Journal
  readonly #unique: ReadonlyArray<readonly [ByMerchant<R>, Table<R>["indexes"][string]]>
  readonly #lists: ReadonlyArray<readonly [ByMerchant<Array<R>>, Table<R>["lists"][string]]>
  readonly #indexed: ReadonlySet<string>

  constructor(table: Table<R, Unique, Lists>, journal: Journal) {
    this.table = table
    this.#journal = journal
    const unique = Object.entries(table.indexes as Table<R>["indexes"])
    const lists = Object.entries(table.lists as Table<R>["lists"])
    this.#unique = unique.map(([, index]) => [new ByMerchant<R>(), index])
    this.#lists = lists.map(([, index]) => [new ByMerchant<Array<R>>(), index])
    this.#indexed = new Set(unique.flatMap(([, { fields }]) => fields))
    this.indexes = Object.fromEntries(unique.map(([name], place) => [name, this.#unique[place]![0]])) as never
    this.lists = Object.fromEntries(lists.map(([name], place) => [name, this.#lists[place]![0]])) as never
  }

  /** Adds a row that was read. One that is there already stays as it is. */
  add(row: R): void {
    const [first] = this.#unique
    if (first !== undefined && first[0].has(merchantOf(row), first[1].nameOf(row)!)) return
    this.#index(row)
  }

  /** Takes the place of a row that was read before the locks were had. */
  refresh(row: R): void {
    const [first] = this.#unique
    const stale = first?.[0].get(merchantOf(row), first[1].nameOf(row)!)
    if (stale !== undefined) this.#unindex(stale)
    this.#index(row)
  }

  /** The row that has a name in a field, which an index of the table must be made of alone. */
  find(field: string, merchantId: string, name: string): R | undefined {
    const index = this.#unique.find(([, { fields }]) => fields.length === 1 && fields[0] === field)
    if (index === undefined) throw new Error(`${this.table.name} has no index by ${field}`)
    return index[0].get(merchantId, name)
  }

  insert(row: R): void {
    this.inserted.add(row)
    this.#index(row)
    this.#journal.push(() => {
      this.#unindex(row)
      this.inserted.delete(row)
    })
  }

  update(row: R, patch: Partial<R>): void {
    this.#remember(row, patch)
    const isFirst = !this.changed.has(row)
    if (isFirst) this.changed.add(row)
    const moves = this.#indexesOf(patch)
    for (const [index, { nameOf }] of moves) leave(index, row, nameOf(row))
    const before: Array<R[keyof R]> = []
    for (const field in patch) {
      before.push(row[field])
      row[field] = patch[field]!
    }
    for (const [index, { nameOf }] of moves) enter(index, row, nameOf(row))
    this.#journal.push(() => {
      for (const [index, { nameOf }] of moves) leave(index, row, nameOf(row))
      let place = 0
      for (const field in patch) row[field] = before[place++] as R[typeof field]
      for (const [index, { nameOf }] of moves) enter(index, row, nameOf(row))
      if (isFirst) this.changed.delete(row)
    })
  }

  remove(row: R): void {
    const isNew = this.inserted.delete(row)
    // One of this very batch is not written in the first place.
    if (!isNew) this.removed.add(row)
    this.#unindex(row)
    this.#journal.push(() => {
      this.#index(row)
      this.removed.delete(row)
      if (isNew) this.inserted.add(row)
    })
  }

  /** The indexes under which a change moves a row: as a rule none. */
  #indexesOf(patch: Partial<R>): ReadonlyArray<readonly [ByMerchant<R>, Table<R>["indexes"][string]]> {
    for (const field in patch) {
      if (this.#indexed.has(field)) {
        return this.#unique.filter(([, { fields }]) => fields.some((indexed) => indexed in patch))
      }
    }
    return none
  }

  get hasWrites(): boolean {
    return this.inserted.size + this.changed.size + this.removed.size > 0
  }

  #remember(row: R, patch: Partial<R>): void {
    const { passing, watched } = this.table
    if (watched !== null && watched in patch && !this.before.has(row)) {
      this.before.set(row, row[watched as keyof R])
    }
    for (const field of passing) {
      const given = row[field as keyof R]
      const isGivenUp = field in patch && given !== null && patch[field as keyof R] !== given
      if (!isGivenUp || this.inserted.has(row) || this.freed.has(row)) continue
      this.freed.add(row)
      this.#journal.push(() => this.freed.delete(row))
    }
  }

  #index(row: R): void {
    const merchantId = merchantOf(row)
    for (const [index, { nameOf }] of this.#unique) enter(index, row, nameOf(row))
    for (const [list, { nameOf }] of this.#lists) {
      const name = nameOf(row)
      if (name === null) continue
      const known = list.get(merchantId, name)
      if (known === undefined) list.set(merchantId, name, [row])
      else known.push(row)
    }
  }

  #unindex(row: R): void {
    const merchantId = merchantOf(row)
    for (const [index, { nameOf }] of this.#unique) leave(index, row, nameOf(row))
    for (const [list, { nameOf }] of this.#lists) {
      const known = list.get(merchantId, nameOf(row) ?? "")
      if (known !== undefined) known.splice(known.lastIndexOf(row), 1)
    }
  }
}

/** Rows of tables that no merchant leads are found by nothing. */
const merchantOf = (row: object): string => (row as { readonly merchantId: string }).merchantId

const enter = <R extends object>(index: ByMerchant<R>, row: R, name: string | null): void => {
  if (name !== null) index.set(merchantOf(row), name, row)
}
/** A name may be another row's by now. */
const leave = <R extends object>(index: ByMerchant<R>, row: R, name: string | null): void => {
  if (name !== null && index.get(merchantOf(row), name) === row) index.delete(merchantOf(row), name)
}

type RowsOf<T> = T extends Table<infer R, infer U, infer L> ? Rows<R, U, L> : never

/**
 * The unit of work that a batch of postings is decided over: the locked rows, changed in memory as postings are decided,
 * and what is to be written in the end. Every change is journalled, so that a refused posting leaves no trace.
 *
 * Quantities are safe integers of the item's base unit; times are epoch milliseconds.
 */
export class UnitOfWork {
  readonly #journal = new Journal()
  readonly #tables: ReadonlyMap<Table, Rows<Some>>
  /** What others are to be told, in order. */
  readonly events: Array<OutboxEvent> = []
  /** What commands have had read besides rows, by what they call it: the ledger's side of what is to be repaired. */
  readonly readings = new Map<object, unknown>()

  /** Merchants that exist, though their rows were not read. */
  readonly knownMerchants = new Set<string>()

  readonly merchants: RowsOf<typeof merchants>
  readonly locations: RowsOf<typeof locations>
  readonly items: RowsOf<typeof items>
  readonly stocks: RowsOf<typeof stocks>
  readonly ledger: RowsOf<typeof ledger>
  readonly reservations: RowsOf<typeof reservations>
  readonly lines: RowsOf<typeof reservationLines>
  readonly tracking: RowsOf<typeof tracking>
  readonly idempotency: RowsOf<typeof idempotency>
  readonly discrepancies: RowsOf<typeof discrepancies>

  constructor(tables: ReadonlyArray<Table> = allTables) {
    this.#tables = new Map(tables.map((table) => [table, new Rows<Some>(table, this.#journal)]))
    this.merchants = this.rows(merchants)
    this.locations = this.rows(locations)
    this.items = this.rows(items)
    this.stocks = this.rows(stocks)
    this.ledger = this.rows(ledger)
    this.reservations = this.rows(reservations)
    this.lines = this.rows(reservationLines)
    this.tracking = this.rows(tracking)
    this.idempotency = this.rows(idempotency)
    this.discrepancies = this.rows(discrepancies)
  }

  rows<R extends object, U extends string, L extends string>(table: Table<R, U, L>): Rows<R, U, L> {
    const rows = this.#tables.get(table)
    if (rows === undefined) throw new Error(`${table.name} is not among the kernel's tables`)
    return rows as unknown as Rows<R, U, L>
  }

  /** In the order in which tables are written. */
  get all(): Iterable<Rows<Some>> {
    return this.#tables.values()
  }

  get hasWrites(): boolean {
    return this.events.length > 0 || [...this.all].some((rows) => rows.hasWrites)
  }

  /** Begins and ends a posting: what was done before stays, and what would undo it lies in nobody's way. */
  keep(): void {
    this.#journal.clear()
  }

  get mark(): number {
    return this.#journal.mark
  }

  undoTo(mark: number): void {
    this.#journal.undoTo(mark)
  }

  append<V>(list: Array<V>, value: V): void {
    list.push(value)
    this.#journal.push(() => list.pop())
  }

  /** A merchant has a default location from its beginning. */
  knowsMerchant(merchantId: string): boolean {
    return (
      this.knownMerchants.has(merchantId) ||
      (this.locations.lists.ofMerchant.get(merchantId, merchantId)?.length ?? 0) > 0
    )
  }

  /** An item that was not deleted. */
  findItem(merchantId: string, ref: ItemRef): ItemRow | undefined {
    const { byId, bySku, byVariant } = this.items.indexes
    const item =
      "variantId" in ref
        ? byVariant.get(merchantId, ref.variantId)
        : "sku" in ref
          ? bySku.get(merchantId, ref.sku)
          : byId.get(merchantId, ref.itemId)
    return item === undefined || item.deletedAt !== null ? undefined : item
  }

  stocksOf(item: ItemRow): ReadonlyArray<StockRow> {
    return this.stocks.lists.ofItem.get(item.merchantId, item.itemId) ?? none
  }

  reservationsOf(merchantId: string, orderId: string): ReadonlyArray<ReservationRow> {
    return this.reservations.lists.ofOrder.get(merchantId, orderId) ?? none
  }
}

const none: ReadonlyArray<never> = []
