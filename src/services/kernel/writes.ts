import type { Some } from "../../schema/Some.ts"
import type { OutboxEvent } from "../../schema/Event.ts"
import { bucketOf, outboxChannel } from "../OutboxBuckets.ts"
import { arrays, parameter, rowsOf } from "../PostgresTypes.ts"
import { type Table, type Write, type Writes, writesOf } from "./Table.ts"
import type { Rows, UnitOfWork } from "./UnitOfWork.ts"

/** What a batch has decided, as set-based writes in the order in which they have to go. */

type Statement = readonly [statement: string, parameters: ReadonlyArray<unknown>]

export const statementsOf = (unit: UnitOfWork): ReadonlyArray<Statement> => {
  const statements: Array<Statement> = []
  for (const rows of unit.all) if (rows.hasWrites) writeRows(rows, statements)
  if (unit.events.length > 0) writeEvents(unit.events, statements)
  return statements
}

/** Updates go before inserts: a name that one row gives up, or its place under a partial index, may be another's. */
const writeRows = (rows: Rows<Some>, statements: Array<Statement>): void => {
  const { changed, freed, inserted, removed, table } = rows
  const writes = writesOfTable(table)
  const write = ({ columns, isCounted, statement }: Write, written: ReadonlyArray<object>): void => {
    if (written.length === 0) return
    const parameters: Array<unknown> = columns.map(([type, field]) =>
      arrays[type](written.map((row) => (row as Readonly<Record<string, unknown>>)[field]))
    )
    if (isCounted) parameters.push(parameter("int4", written.length))
    statements.push([statement, parameters])
  }
  write(writes.free, [...freed])
  write(writes.remove, [...removed])
  // A row that the batch itself inserts is inserted as it stands.
  write(writes.update, inserted.size === 0 ? [...changed] : [...changed].filter((row) => !inserted.has(row)))
  write(writes.insert, table.isUpserted ? lastOfEach(rows) : [...inserted])
}

/** The last of several: one statement writes a row once. */
const lastOfEach = ({ inserted, table }: Rows<Some>): ReadonlyArray<object> => [
  ...new Map([...inserted].map((row) => [table.key.map((field) => row[field]).join("\u001f"), row])).values()
]

const known = new WeakMap<Table, Writes>()
const writesOfTable = (table: Table): Writes => {
  let writes = known.get(table)
  if (writes === undefined) known.set(table, (writes = writesOf(table)))
  return writes
}

const writeEvents = (events: ReadonlyArray<OutboxEvent>, statements: Array<Statement>): void => {
  const groups = [...Map.groupBy(events, ({ key }) => bucketOf(key))]
  statements.push([
    insertOutbox,
    [
      arrays.int4(groups.map(([bucket]) => bucket)),
      arrays.timestamptz(groups.map(([, ofBucket]) => ofBucket.at(-1)!.at)),
      arrays.pieces(groups.map(([, ofBucket]) => jsonPieces(ofBucket))),
      arrays.int4(groups.map(([, ofBucket]) => ofBucket.length))
    ]
  ])
  // Names the buckets, so that a dispatcher looks into no others.
  statements.push([
    `SELECT pg_notify('${outboxChannel}', $1)::text`,
    [parameter("text", groups.map(([bucket]) => bucket).join(","))]
  ])
}

/** A JSON array in pieces that are made as they are asked for: one long string would be copied as a whole, several times. */
const jsonPieces = (events: ReadonlyArray<OutboxEvent>): Iterable<string> => ({
  *[Symbol.iterator]() {
    yield "["
    let separator = ""
    for (const event of events) {
      yield separator + JSON.stringify(event)
      separator = ","
    }
    yield "]"
  }
})

/** position is taken here, while the items of the events are locked: a key's rows are in order. */
const insertOutbox = `
    INSERT INTO outbox (bucket, recorded_at, events, event_count)
    SELECT * FROM ${rowsOf(["bucket", "recorded_at", "events", "event_count"])} AS u`
