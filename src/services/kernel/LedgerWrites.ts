import type { OutboxEvent } from "../../schema/Event.ts"
import { outboxPieces } from "../../schema/OutboxText.ts"
import type { Books, ItemRow, LocationRow } from "./decide/Books.ts"
import {
  type Write,
  checkpoints,
  discrepancies,
  idempotency,
  insertInto,
  items,
  ledger,
  lines,
  locations,
  merchants,
  repairs,
  reservations,
  stocks,
  tracking,
  updateOf
} from "./LedgerTables.ts"
import { bucketOf, outboxChannel } from "../OutboxBuckets.ts"
import { arrays, parameter, rowsOf } from "../PostgresTypes.ts"

/** What the batch has decided, as set-based writes in the order in which they have to go. */
export const writesOf = ({
  changed,
  written
}: Books): ReadonlyArray<readonly [string, ReadonlyArray<unknown>]> => {
  const statements: Array<readonly [string, ReadonlyArray<unknown>]> = []
  const insert = <R>(write: Write<R>, rows: Iterable<R>): void => {
    const all = [...rows]
    if (all.length > 0) {
      statements.push([write.statement, write.columns.map(([type, value]) => arrays[type](all.map(value)))])
    }
  }
  /** An update also says how many rows it must match. A row that the batch itself inserts is inserted as it stands. */
  const update = <R>(write: Write<R>, rows: Set<R>, inserted: ReadonlySet<R>): void => {
    const all = [...rows].filter((row) => !inserted.has(row))
    if (all.length > 0) {
      const columns = write.columns.map(([type, value]) => arrays[type](all.map(value)))
      statements.push([write.statement, [...columns, parameter("int4", all.length)]])
    }
  }
  insert(
    insertMerchants,
    [...written.merchants].map((merchantId) => ({
      merchantId,
      createdAt: createdAtOf(written.locations, merchantId)
    }))
  )
  insert(insertLocations, written.locations)
  update(updateLocations, changed.locations, written.locations)
  // Updates first: a name that one item gives up may be another's in the same batch.
  insert(freeSkus, written.freedSkus)
  update(updateItems, changed.items, written.items)
  insert(insertItems, written.items)
  insert(insertStocks, written.stocks)
  update(updateStocks, changed.stocks, written.stocks)
  insert(insertLedger, written.ledger)
  // Updates first where a unique index is partial: the reservation that ends makes way for the order's next one.
  update(updateReservations, changed.reservations, written.reservations)
  insert(insertReservations, written.reservations)
  insert(insertLines, written.lines)
  update(updateLines, changed.lines, written.lines)
  insert(deleteTracking, written.forgotten)
  insert(insertTracking, written.tracking)
  insert(insertIdempotency, written.idempotency)
  insert(closeDiscrepancies, written.closings)
  update(updateDiscrepancies, changed.discrepancies, written.discrepancies)
  insert(insertDiscrepancies, written.discrepancies)
  insert(insertCheckpoints, written.checkpoints)
  insert(insertRepairs, written.repairs)
  // The last of several, since one statement writes a row once.
  const captured = new Map(written.captured.map((row) => [row.rowId, row]))
  insert(insertCaptured, captured.values())
  if (written.events.length > 0) {
    const groups = [...Map.groupBy(written.events, ({ key }) => bucketOf(key))]
    insert(
      insertOutbox,
      groups.map(([bucket, events]) => ({ bucket, events }))
    )
    // Names the buckets, so that a dispatcher looks into no others.
    statements.push([
      `SELECT pg_notify('${outboxChannel}', $1)::text`,
      [parameter("text", groups.map(([bucket]) => bucket).join(","))]
    ])
  }
  return statements
}

/** A merchant is created with its default location. */
const createdAtOf = (created: ReadonlySet<LocationRow>, merchantId: string): number => {
  for (const location of created) if (location.merchantId === merchantId) return location.createdAt
  return 0
}

const insertMerchants = insertInto(merchants)
const insertLocations = insertInto(locations)
const updateLocations = updateOf(locations)
const insertItems = insertInto(items)
/** The catalogue's columns change seldom; they travel with the figures all the same, so that one statement serves. */
const updateItems = updateOf(items)
const insertStocks = insertInto(stocks)
const updateStocks = updateOf(stocks)
const insertLedger = insertInto(ledger)
const insertReservations = insertInto(reservations)
const updateReservations = updateOf(reservations)
const insertLines = insertInto(lines)
const updateLines = updateOf(lines)
const insertTracking = insertInto(tracking)
/** A key past its age may be used again: its old row makes way. */
const insertIdempotency = insertInto(
  idempotency,
  `ON CONFLICT (merchant_id, idempotency_key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at`
)
/** One open discrepancy for each subject and kind (discrepancy_one_open): what is open already stays as it is. */
const insertDiscrepancies = insertInto(
  discrepancies,
  `ON CONFLICT (merchant_id, subject, kind) WHERE status = 'OPEN' DO NOTHING`
)
const updateDiscrepancies = updateOf(discrepancies)
const insertCheckpoints = insertInto(checkpoints, "ON CONFLICT (merchant_id, stock_id, sequence) DO NOTHING")
const insertRepairs = insertInto(repairs)

/** In a statement of its own before the others: within one, a unique key does not pass from row to row. */
const freeSkus: Write<ItemRow> = {
  statement: `
    UPDATE item i SET sku = NULL
    FROM ${rowsOf(["merchant_id", "item_id"])} AS u
    WHERE i.merchant_id = u.merchant_id AND i.item_id = u.item_id`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.itemId]
  ]
}

const deleteTracking: Write<{ readonly merchantId: string; readonly trackingKey: string }> = {
  statement: `
    DELETE FROM tracking t
    USING ${rowsOf(["merchant_id", "tracking_key"])} AS u
    WHERE t.merchant_id = u.merchant_id AND t.tracking_key = u.tracking_key`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.trackingKey]
  ]
}

/** The newest record of a row says whose it is. */
const insertCaptured: Write<{ readonly rowId: string; readonly merchantId: string }> = {
  statement: `
    INSERT INTO captured_variant (row_id, owner_id)
    SELECT row_id, owner_id FROM ${rowsOf(["row_id", "owner_id"])} AS u
    ON CONFLICT (row_id) DO UPDATE SET owner_id = excluded.owner_id
    WHERE captured_variant.owner_id <> excluded.owner_id`,
  columns: [
    ["text", (row) => row.rowId],
    ["text", (row) => row.merchantId]
  ]
}

const closeDiscrepancies: Write<{
  readonly merchantId: string
  readonly subject: string
  readonly kind: string
  readonly at: number
}> = {
  statement: `
    UPDATE discrepancy d
    SET status = 'CLOSED', closed_at = u.at, closed_by = 'holdfast'
    FROM ${rowsOf(["merchant_id", "subject", "kind", "at"])} AS u
    WHERE d.merchant_id = u.merchant_id AND d.subject = u.subject AND d.kind = u.kind AND d.status = 'OPEN'`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.subject],
    ["text", (row) => row.kind],
    ["timestamptz", (row) => row.at]
  ]
}

/** position is taken here, while the items of the events are locked: a key's rows are in order. */
const insertOutbox: Write<{ readonly bucket: number; readonly events: ReadonlyArray<OutboxEvent> }> = {
  statement: `
    INSERT INTO outbox (bucket, recorded_at, events, event_count)
    SELECT * FROM ${rowsOf(["bucket", "recorded_at", "events", "event_count"])} AS u`,
  columns: [
    ["int4", (row) => row.bucket],
    ["timestamptz", (row) => row.events.at(-1)!.at],
    ["pieces", (row) => outboxPieces(row.events)],
    ["int4", (row) => row.events.length]
  ]
}
