import { Effect } from "effect"
import type { Session, StatementFailed } from "../Db.ts"
import { arrays, rowsOf } from "../PostgresTypes.ts"
import { type BatchNeeds, keyOf } from "./Needs.ts"
import { columnsOf, type ReadBy, rowReader, type Table } from "./Table.ts"
import { items } from "./tables/catalog.ts"
import { statementsOf } from "./writes.ts"
import { UnitOfWork } from "./UnitOfWork.ts"

/**
 * The transaction of a batch. The lock order is the same everywhere (DESIGN): advisory locks over the documents in a
 * statement of their own, then what they guard, then the item rows, which are the locks of their stocks.
 */

type Answer = ReadonlyArray<ReadonlyArray<unknown>>
type Pair = readonly [merchantId: string, value: string]

const columns = (pairs: Iterable<Pair>, type: keyof typeof arrays = "text") => {
  const all = [...pairs]
  return [
    arrays.text(all.map(([merchantId]) => merchantId)),
    arrays[type](all.map(([, value]) => value))
  ] as const
}

/** Begins the transaction, takes the locks and reads what is needed. Answers with the transaction's id, for its COMMIT. */
export const begin = Effect.fnUntraced(function* (
  session: Session,
  tables: ReadonlyArray<Table>,
  needs: BatchNeeds,
  knownMerchants: Iterable<string>
) {
  const unit = new UnitOfWork(tables)
  for (const merchantId of knownMerchants) unit.knownMerchants.add(merchantId)
  const reads = [...needs.reads]
  const [, locked, named, ...found] = yield* Effect.all(
    [
      session.run("BEGIN ISOLATION LEVEL READ COMMITTED", []),
      session.run(takeLocks, [arrays.text([...needs.locks])]),
      needs.variants.size + needs.skus.size > 0
        ? session.run(findItems, [...columns(needs.variants.values()), ...columns(needs.skus.values())])
        : noRows,
      ...reads.map(([{ statement, type }, wanted]) => session.run(statement, columns(wanted.values(), type)))
    ],
    { concurrency: "unbounded" }
  )
  const wanted = new Map(needs.items)
  const want = (merchantId: string, itemId: string): unknown =>
    wanted.set(keyOf(merchantId, itemId), [merchantId, itemId])
  for (const [merchantId, itemId] of named) want(merchantId as string, itemId as string)
  reads.forEach(([read], index) => addRows(unit, read, found[index]!, want))
  if (wanted.size > 0) yield* lockItems(session, unit, tables, wanted, needs)
  for (const [read, requests] of needs.later) yield* read(session, unit, requests)
  return { unit, transactionId: locked![0]![1] as string }
})

const noRows = Effect.succeed([] as Answer)

/** The items that documents name are locked with those that the postings name. */
const addRows = (
  unit: UnitOfWork,
  read: ReadBy,
  answer: Answer,
  want: (merchantId: string, itemId: string) => unknown
): void => {
  const rows = unit.rows(read.table)
  const { itemsOf } = read.table
  for (const row of read.rowsOf(answer)) {
    rows.add(row)
    if (itemsOf !== null) for (const itemId of itemsOf(row)) want(row.merchantId, itemId)
  }
}

/** Locks the items, and reads what belongs to them: in statements of their own, after the locks are had. */
const lockItems = Effect.fnUntraced(function* (
  session: Session,
  unit: UnitOfWork,
  tables: ReadonlyArray<Table>,
  wanted: ReadonlyMap<string, Pair>,
  needs: BatchNeeds
) {
  const ofItems = tables.filter((table) => table.ofItems !== null)
  const parameters = columns(wanted.values(), "uuid")
  const about = columns(needs.subjects.values())
  const [locked, ...answers] = yield* Effect.all(
    [
      session.run(lockStatement, parameters),
      ...ofItems.map(({ ofItems: read }) =>
        session.run(read!.statement, read!.subjects ? [...parameters, ...about] : parameters)
      )
    ],
    { concurrency: "unbounded" }
  )
  for (const values of locked!) unit.items.add(itemOf(values))
  // What is closed under the items' locks may have been read while they were waited for.
  for (const [{ rowsOf: readRows, statement, table, type }, again] of needs.reads) {
    if (table.ofItems === null) continue
    const rows = unit.rows(table)
    for (const row of readRows(yield* session.run(statement, columns(again.values(), type))))
      rows.refresh(row)
  }
  ofItems.forEach((table, index) => {
    const rows = unit.rows(table)
    for (const values of answers[index]!) rows.add(table.ofItems!.rowOf(values))
  })
})

// Counted, because a row to be sent and read for each lock costs as much as the lock.
const takeLocks = `
  SELECT count(pg_advisory_xact_lock(lock)::text), pg_current_xact_id()::text
  FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock FROM ${rowsOf(["key"])} AS keys ORDER BY lock) AS locks`

// item_merchant_id_product_variant_id_key, item_merchant_id_sku_key. UNION, because OR scans the table.
const findItems = `
  SELECT i.merchant_id, i.item_id
  FROM ${rowsOf(["merchant_id", "variant_id"])} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.product_variant_id = wanted.variant_id
  UNION ALL
  SELECT i.merchant_id, i.item_id
  FROM ${rowsOf(["merchant_id", "sku"], 3)} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.sku = wanted.sku`

// item_pkey. The item row is the lock of its stocks, and the order of its events.
const lockStatement = `
  SELECT ${columnsOf(items, "i")}
  FROM ${rowsOf(["merchant_id", "item_id"])} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.item_id = wanted.item_id
  ORDER BY i.merchant_id, i.item_id
  FOR NO KEY UPDATE OF i`

const itemOf = rowReader(items)

/** Writes what the batch has decided and commits, in one flight. Every update asserts how many rows it matched. */
export const commit = Effect.fnUntraced(function* (session: Session, unit: UnitOfWork) {
  const writes = statementsOf(unit).map(([statement, parameters]) => session.run(statement, parameters))
  yield* Effect.all([...writes, session.run("COMMIT", [])], { concurrency: "unbounded", discard: true })
})

export const rollback = (session: Session): Effect.Effect<void, StatementFailed> =>
  Effect.asVoid(session.run("ROLLBACK", []))

/**
 * Whether a transaction whose answer is lost may still come to commit. After a crash its id may be in the future of the
 * server that recovered: then it never wrote anything.
 */
export const isInProgress = (
  session: Session,
  transactionId: string
): Effect.Effect<boolean, StatementFailed> =>
  Effect.map(session.run(readStatus, [transactionId]), ([row]) => row?.[0] === "in progress")

const readStatus = `
  SELECT CASE WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    THEN pg_xact_status($1::text::xid8) END`

/**
 * Whether what a batch has decided is in the database. Asked by a row that carries a posting's id, and not by
 * `pg_xact_status`: a server that crashed gives the ids of transactions whose WAL was not flushed to others, so that
 * "committed" may be said of somebody else's. One row speaks for all, since they were written by one transaction.
 */
export const isWritten = Effect.fnUntraced(function* (session: Session, unit: UnitOfWork) {
  const [tracked] = unit.tracking.inserted
  const [reservation] = unit.reservations.inserted
  const rows =
    tracked !== undefined
      ? yield* session.run(readWrittenTracking, [tracked.merchantId, tracked.trackingKey, tracked.postingId])
      : reservation !== undefined
        ? yield* session.run(readWrittenReservation, [reservation.merchantId, reservation.reservationId])
        : []
  return rows.length > 0
})

// tracking_pkey
const readWrittenTracking = `
  SELECT 1 FROM tracking WHERE merchant_id = $1::text AND tracking_key = $2::text AND posting_id = $3::text::uuid`

// reservation_pkey
const readWrittenReservation = `
  SELECT 1 FROM reservation WHERE merchant_id = $1::text AND reservation_id = $2::text::uuid`
