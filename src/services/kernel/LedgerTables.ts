import type {
  CheckpointRow,
  DiscrepancyRow,
  IdempotencyRow,
  ItemRow,
  LedgerRow,
  LineRow,
  LocationRow,
  RepairRow,
  ReservationRow,
  StockRow,
  TrackingRow
} from "./decide/Books.ts"
import { arrays, rowsOf } from "../PostgresTypes.ts"

/**
 * The tables of the books, as the kernel reads and writes them. A field of a row is the column of the same name in snake
 * case; the statements are made of these lists, so that a column is named once.
 */
interface Table<R> {
  readonly name: string
  /** What a row is found by. */
  readonly key: Columns<R>
  /** What is written once. */
  readonly fixed: Columns<R>
  /** What an update writes. */
  readonly changing: Columns<R>
}
type Columns<R> = { readonly [F in keyof R & string]?: keyof typeof arrays }

export const merchants: Table<{ readonly merchantId: string; readonly createdAt: number }> = {
  name: "merchant",
  key: { merchantId: "text" },
  fixed: { createdAt: "timestamptz" },
  changing: {}
}

export const locations: Table<LocationRow> = {
  name: "location",
  key: { merchantId: "text", locationId: "text" },
  fixed: { isDefault: "bool", position: "int4", createdAt: "timestamptz" },
  changing: { name: "text" }
}

export const items: Table<ItemRow> = {
  name: "item",
  key: { merchantId: "text", itemId: "uuid" },
  fixed: { kind: "text", createdAt: "timestamptz" },
  changing: {
    productVariantId: "text",
    sku: "text",
    productId: "text",
    name: "text",
    unit: "text",
    stocked: "bool",
    lowStockThreshold: "int8",
    safetyStock: "int8",
    countTolerance: "int8",
    discontinued: "bool",
    initialized: "bool",
    status: "text",
    onHand: "int8",
    reserved: "int8",
    unallocatable: "int8",
    eventSequence: "int8",
    updatedAt: "timestamptz",
    deletedAt: "timestamptz"
  }
}

/** Without what is its location's: whether that is the default one, and its place in the picking order. */
export const stocks: Table<Omit<StockRow, "locationIsDefault" | "locationPosition">> = {
  name: "stock",
  key: { merchantId: "text", stockId: "uuid" },
  fixed: {
    itemId: "uuid",
    locationId: "text",
    lotNumber: "text",
    lotExpiresAt: "timestamptz",
    createdAt: "timestamptz"
  },
  changing: {
    onHand: "int8",
    reserved: "int8",
    unallocatable: "int8",
    sequence: "int8",
    discrepancy: "bool",
    updatedAt: "timestamptz"
  }
}

export const ledger: Table<LedgerRow> = {
  name: "inventory_ledger",
  key: { merchantId: "text", stockId: "uuid", recordedAt: "timestamptz", sequence: "int8" },
  fixed: {
    itemId: "uuid",
    type: "text",
    onHandDelta: "int8",
    reservedDelta: "int8",
    unallocatableDelta: "int8",
    onHand: "int8",
    reserved: "int8",
    unallocatable: "int8",
    source: "text",
    postingId: "uuid",
    actor: "text",
    orderId: "text",
    reservationId: "uuid",
    reference: "text",
    reason: "text",
    occurredAt: "timestamptz"
  },
  changing: {}
}

/** Without its lines, which are rows of their own. */
export const reservations: Table<Omit<ReservationRow, "lines">> = {
  name: "reservation",
  key: { merchantId: "text", reservationId: "uuid" },
  fixed: {
    orderId: "text",
    kind: "text",
    scope: "text",
    request: "text",
    metadata: "text",
    createdAt: "timestamptz"
  },
  changing: { status: "text", expiresAt: "timestamptz", updatedAt: "timestamptz" }
}

export const lines: Table<LineRow> = {
  name: "reservation_line",
  key: { merchantId: "text", reservationId: "uuid", lineNumber: "int4" },
  fixed: { itemId: "uuid", stockId: "uuid", quantity: "int8" },
  changing: {
    open: "int8",
    sold: "int8",
    released: "int8",
    expired: "int8",
    returned: "int8",
    paid: "int8"
  }
}

export const tracking: Table<TrackingRow> = {
  name: "tracking",
  key: { merchantId: "text", trackingKey: "text" },
  fixed: { postingId: "uuid", answer: "text", recordedAt: "timestamptz" },
  changing: {}
}

export const idempotency: Table<IdempotencyRow> = {
  name: "idempotency",
  key: { merchantId: "text", idempotencyKey: "text" },
  fixed: { fingerprint: "text", answer: "text", createdAt: "timestamptz" },
  changing: {}
}

export const discrepancies: Table<DiscrepancyRow> = {
  name: "discrepancy",
  key: { merchantId: "text", discrepancyId: "uuid" },
  fixed: {
    kind: "text",
    subject: "text",
    stockId: "uuid",
    itemId: "uuid",
    orderId: "text",
    detail: "jsonb",
    openedAt: "timestamptz"
  },
  changing: { status: "text", closedAt: "timestamptz", closedBy: "text", reason: "text" }
}

export const checkpoints: Table<CheckpointRow> = {
  name: "ledger_checkpoint",
  key: { merchantId: "text", stockId: "uuid", sequence: "int8" },
  fixed: {
    recordedAt: "timestamptz",
    onHand: "int8",
    reserved: "int8",
    unallocatable: "int8",
    kind: "text",
    actor: "text",
    reason: "text",
    createdAt: "timestamptz"
  },
  changing: {}
}

export const repairs: Table<RepairRow> = {
  name: "audit_repair",
  key: { merchantId: "text", repairId: "uuid" },
  fixed: {
    finding: "text",
    invariant: "text",
    action: "text",
    subject: "text",
    before: "jsonb",
    after: "jsonb",
    actor: "text",
    reason: "text",
    repairedAt: "timestamptz"
  },
  changing: {}
}

/** A set-based write: one typed array a column, for `rowsOf`. */
export interface Write<R> {
  readonly statement: string
  readonly columns: ReadonlyArray<readonly [type: keyof typeof arrays, value: (row: R) => unknown]>
}

const columnOf = (field: string): string => field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const allOf = <R>({ changing, fixed, key }: Table<R>): Columns<R> => ({ ...key, ...fixed, ...changing })
const namesOf = <R>(columns: Columns<R>): ReadonlyArray<string> => Object.keys(columns).map(columnOf)

const writeOf = <R>(statement: string, columns: Columns<R>): Write<R> => ({
  statement,
  columns: Object.entries(columns).map(([field, type]) => [
    type as keyof typeof arrays,
    (row) => row[field as keyof R]
  ])
})

/** Inserts rows as they stand. */
export const insertInto = <R>(table: Table<R>, onConflict = ""): Write<R> => {
  const names = namesOf(allOf(table))
  return writeOf(
    `
    INSERT INTO ${table.name} (${names.join(", ")})
    SELECT * FROM ${rowsOf(names)} AS u
    ${onConflict}`,
    allOf(table)
  )
}

/** Updates rows by their keys. A last parameter says how many rows it must match, and fails it otherwise. */
export const updateOf = <R>(table: Table<R>): Write<R> => {
  const columns = { ...table.key, ...table.changing }
  const names = namesOf(columns)
  const sets = namesOf(table.changing).map((name) => `${name} = u.${name}`)
  const matches = namesOf(table.key).map((name) => `t.${name} = u.${name}`)
  return writeOf(
    `
    WITH written AS (
      UPDATE ${table.name} AS t SET ${sets.join(", ")}
      FROM ${rowsOf(names)} AS u
      WHERE ${matches.join(" AND ")}
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $${names.length + 1}, '${table.name}')::text FROM written`,
    columns
  )
}

/** All columns of a table, for a SELECT; `rowOf` makes a row of what that gives. */
export const columnsOf = <R>(table: Table<R>, alias: string): string =>
  namesOf(allOf(table))
    .map((name) => `${alias}.${name}`)
    .join(", ")

/** How many values a row takes. */
export const widthOf = <R>(table: Table<R>): number => Object.keys(allOf(table)).length

/** Reads a row from the values of a SELECT, from `offset` on. */
export const rowOf = <R>(table: Table<R>, offset = 0): ((values: ReadonlyArray<unknown>) => R) => {
  const fields = Object.keys(allOf(table))
  // Rows are copies of one, so that all have its shape: V8 makes a slow dictionary of one that gets many fields one by one.
  const blank: Record<string, unknown> = JSON.parse(
    JSON.stringify(Object.fromEntries(fields.map((field) => [field, null])))
  )
  return (values) => {
    const row = { ...blank }
    for (let index = 0; index < fields.length; index++) row[fields[index]!] = values[offset + index]
    return row as R
  }
}
