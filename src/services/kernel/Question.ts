/**
 * What `holdfast audit` asks of a table. A question is one statement over a range of keys whose rows are what breaks an
 * invariant of CONTRACTS section 2: no row, nothing wrong. It stands with its table (`questions` of `defineTable`), so that
 * whoever adds a table or a column sees where its questions go; `books/Audit.ts` walks the ranges.
 *
 * A statement answers with `merchant_id`, `subject` (what the finding is about, in words) and, where it knows them,
 * `item_id`, `stock_id`, `order_id` and `reservation_id`; every other column is shown with the finding. One statement is
 * one snapshot, so that what one transaction wrote is seen whole, whatever is written meanwhile.
 */
export interface Question {
  /** Without it, each row says it as `check`. */
  readonly check?: Check
  readonly over: Walk
  readonly statement: string
}

/** The keys that a walk goes through, in ranges of so many rows. */
export interface Keys {
  readonly table: string
  readonly column: string
  readonly type: "uuid" | "text"
  readonly rows: number
}

const keyWalks = {
  items: { table: "item", column: "item_id", type: "uuid", rows: 4_000 },
  reservations: { table: "reservation", column: "reservation_id", type: "uuid", rows: 10_000 },
  lines: { table: "reservation_line", column: "reservation_id", type: "uuid", rows: 10_000 },
  orders: { table: "reservation", column: "order_id", type: "text", rows: 10_000 },
  discrepancies: { table: "discrepancy", column: "discrepancy_id", type: "uuid", rows: 4_000 },
  trackings: { table: "tracking", column: "tracking_key", type: "text", rows: 10_000 }
} as const satisfies Readonly<Record<string, Keys>>
export const keysOf: Readonly<Record<KeyWalk, Keys>> = keyWalks

export type KeyWalk = keyof typeof keyWalks
/**
 * - `stocks`: ranges of stocks with some 20,000 movements each.
 * - `movements`: the same; a stock with more is walked by ranges of its sequence (`inPart`).
 * - `shares`: the same; a stock with very many is asked about several times, each time for a share of what it is about.
 * - `itemsReported`, `sharesReported`: ranges of items with some 20,000 reported events each, in the same two ways.
 * - `once`: no range. `$1` is the one merchant, or null.
 */
export type Walk = KeyWalk | "stocks" | "movements" | "shares" | "itemsReported" | "sharesReported" | "once"

/** The rows of a range. `$1` to `$4` are its keys (the first exclusive; no second: to the end), `$5` the one merchant. */
export const within = (row: string, column: string, type: "uuid" | "text" = "uuid"): string =>
  `(${row}.merchant_id, ${row}.${column}) > ($1::text, $2::text::${type})
      AND ($3::text IS NULL OR (${row}.merchant_id, ${row}.${column}) <= ($3::text, $4::text::${type}))
      AND ($5::text IS NULL OR ${row}.merchant_id = $5::text)`

/** The movements of a range of `movements`: `$6` to `$9` are places in the ledger of one stock, or null. */
export const inPart = (row: string): string =>
  `${withPredecessor(row)}
      AND ${isAfterFirst(row)}`

/** The same with the movement before them, which the first of them follows. */
export const withPredecessor = (row: string): string =>
  `${within(row, "stock_id")}
      AND ($8::text IS NULL OR (${row}.merchant_id = $3::text AND ${row}.stock_id = $4::text::uuid
        AND (${row}.recorded_at, ${row}.sequence) <= ($8::text::timestamptz, $9::int8)))
      AND ($6::text IS NULL OR (${row}.recorded_at, ${row}.sequence) >= ($6::text::timestamptz, $7::int8))`
export const isAfterFirst = (row: string): string =>
  `($6::text IS NULL OR (${row}.recorded_at, ${row}.sequence) > ($6::text::timestamptz, $7::int8))`

/**
 * Whether a row was committed when the audit began to read the outbox, and has not changed since: its events are among
 * those that were read (`books/audit/OutboxReading.ts`).
 */
export const wasCommitted = (row: string): string =>
  `(age(${row}.xmin) > age((SELECT h.next_transaction FROM audit_horizon h))
        AND ${row}.xmin <> ALL ((SELECT h.running FROM audit_horizon h)::xid[]))`

/**
 * The postings none of whose events and movements was removed by age. A posting's id carries its time, on both sides the
 * same; the minute is for what others of its batch carried.
 */
export const isKept = (row: string): string =>
  `(${keptSinceInSql("outbox", "inventory_ledger")} IS NULL OR COALESCE(uuid_extract_timestamp(${row}.posting_id)
        > ${keptSinceInSql("outbox", "inventory_ledger")} + interval '1 minute', true))`

/** A share of a range of `shares`, by a whole number that is not negative: `$6` of `$7`. */
export const inShare = (number: string): string => `($7::int4 = 1 OR (${number}) % $7::int4 = $6::int4)`

/** The newest checkpoint of each stock of a range: its chain begins after it. */
export const checkpointsInSql = `
    SELECT DISTINCT ON (c.merchant_id, c.stock_id) c.merchant_id, c.stock_id, c.sequence, c.recorded_at, c.on_hand,
           c.reserved, c.unallocatable
    FROM ledger_checkpoint c
    WHERE ${within("c", "stock_id")}
    ORDER BY c.merchant_id, c.stock_id, c.sequence DESC`

/** Whether a movement comes after its stock's newest checkpoint, joined as `c`. */
export const isAfterCheckpoint = (row: string): string =>
  `(c.sequence IS NULL OR ${row}.sequence > c.sequence AND ${row}.recorded_at >= c.recorded_at)`

/** Since when all rows of these tables are kept; null: none was ever removed. */
export const keptSinceInSql = (...tables: ReadonlyArray<string>): string =>
  `(SELECT max(m.kept_since) FROM retention_mark m WHERE m.table_name IN (${tables.map((table) => `'${table}'`).join(", ")}))`

/** What `audit --repair` does about a finding (docs/audit.md). */
export type Repair = "ITEM" | "RESERVATION" | "TRACKING" | "SCHEMA" | "ACKNOWLEDGE"

interface Rule {
  /** The number in CONTRACTS section 2. */
  readonly invariant: 1 | 2 | 3 | 4 | 5 | 7
  readonly says: string
  readonly repair: Repair
}
const rule = (invariant: Rule["invariant"], repair: Repair, says: string): Rule => ({
  invariant,
  says,
  repair
})

/**
 * What can be found, by name. How it is repaired:
 *
 * - `ITEM`: the item's stocks are rebuilt from the ledger, its totals from its stocks, its discrepancies from both.
 * - `RESERVATION`: the document is made to agree with the ledger, by a movement where stock is held.
 * - `TRACKING`: the missing or wrong row is written.
 * - `SCHEMA`: the trigger or policy is put back.
 * - `ACKNOWLEDGE`: nothing can be derived. A person says why it is so; a broken ledger goes on from a checkpoint.
 */
const rules = {
  "ledger-follows": rule(1, "ACKNOWLEDGE", "a movement does not follow the one before it"),
  "ledger-ends": rule(1, "ACKNOWLEDGE", "the stock's last movements are missing from the ledger"),
  "stock-is-its-ledger": rule(1, "ITEM", "a stock is not what its ledger says"),
  "item-is-its-stocks": rule(1, "ITEM", "an item is not the sum of its stocks"),
  "item-status": rule(1, "ITEM", "an item's status is not what its figures say"),
  "append-only": rule(1, "SCHEMA", "a table that is append-only is not guarded by its trigger"),
  "reserved-is-open": rule(2, "ITEM", "what is reserved of a stock is not what is open on it"),
  "line-is-its-ledger": rule(
    2,
    "RESERVATION",
    "what a reservation holds, has sold or has taken back of a stock is not what the ledger says"
  ),
  "pending-holds": rule(
    2,
    "RESERVATION",
    "a reservation's status is not what its lines say: PENDING holds stock, CONFIRMED has sold, no other does either"
  ),
  "line-of-a-reservation": rule(2, "RESERVATION", "lines are of a reservation that is not there"),
  "balance-has-its-discrepancy": rule(
    3,
    "ITEM",
    "a broken balance has no open discrepancy, or an open one names a balance that is not broken"
  ),
  "discontinued-has-its-discrepancy": rule(
    3,
    "ITEM",
    "a discontinued item with stock has no open discrepancy, or an open one names an item that is none"
  ),
  "deleted-has-no-stock": rule(3, "ITEM", "a deleted item has stock"),
  "movement-is-told": rule(
    4,
    "ACKNOWLEDGE",
    "a movement has no event, or an event reports a movement that is not in the ledger"
  ),
  "events-are-readable": rule(
    4,
    "ACKNOWLEDGE",
    "a row of the outbox is no list of events, or holds what is none: it cannot be sent"
  ),
  "events-are-numbered": rule(
    4,
    "ACKNOWLEDGE",
    "an item's events are not numbered one by one in the order of the outbox"
  ),
  "last-event-is-told": rule(
    4,
    "ACKNOWLEDGE",
    "an item's number of events is greater than that of its last event"
  ),
  "number-was-told": rule(4, "ITEM", "an item's number of events is less than that of its last event"),
  "event-is-there-once": rule(4, "ACKNOWLEDGE", "two events have one id"),
  "event-in-its-bucket": rule(
    4,
    "ACKNOWLEDGE",
    "an event lies in a bucket that its key does not belong to, or its key is not its item's"
  ),
  "sent-in-order": rule(
    4,
    "ACKNOWLEDGE",
    "an event is marked SENT although an earlier one of its key is not"
  ),
  "discrepancy-is-there": rule(4, "ACKNOWLEDGE", "an event reports a discrepancy that is not there"),
  "tracking-names-its-posting": rule(5, "TRACKING", "a tracking row names another posting than its own"),
  "posting-is-tracked": rule(
    5,
    "TRACKING",
    "a posting has moved stock, and no tracking row says that it was applied"
  ),
  "paid-stock-is-noted": rule(5, "TRACKING", "no tracking row notes a stock that a paid order was sold from"),
  "noted-stock-is-paid": rule(
    5,
    "ACKNOWLEDGE",
    "a tracking row notes a stock from which nothing paid was sold"
  ),
  "sold-once": rule(5, "ACKNOWLEDGE", "an order was sold more of an item than it asked for"),
  "constraint-in-place": rule(
    5,
    "ACKNOWLEDGE",
    "a key or check that the books rely on is missing or not valid"
  ),
  "own-merchant": rule(7, "ACKNOWLEDGE", "a row refers to what its merchant does not have"),
  "event-of-its-merchant": rule(7, "ACKNOWLEDGE", "an event reports another merchant than its own"),
  "row-security": rule(7, "SCHEMA", "a table of merchants' data is not guarded by row-level security")
}
export type Check = keyof typeof rules
export const checks: Readonly<Record<Check, Rule>> = rules
