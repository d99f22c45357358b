import { Effect, Fiber } from "effect"
import { hash } from "node:crypto"
import { DiscrepancyOpened } from "../../../schema/OutgoingEvent.ts"
import type { DatabaseUnavailable } from "../../../schema/Failure.ts"
import { bucketOf, outboxBuckets } from "../../OutboxBuckets.ts"
import { arrays, parameter, rowsOf } from "../../PostgresTypes.ts"
import { type Finding, findingOf } from "./Finding.ts"
import type { Ask } from "./ranges.ts"

/**
 * Unpacks the outbox into temporary tables of the audit's own connection, which the questions about events are asked of:
 * `audit_event` has a row for each event that reports a movement, or a first one, and one more for each further movement;
 * `audit_horizon` says which rows were committed before it was read. The JSON is parsed here, because PostgreSQL takes five times as long.
 */

/** Group rows of the outbox read at once. */
const groupsPerRead = 32
/** More than a group has: a batch is bounded. */
const eventsPerGroup = 1_000_000

export const eventColumns = {
  merchant_id: "text",
  item_id: "uuid",
  /** Grows in the order in which the events of a key are published. */
  place: "int8",
  posting_id: "uuid",
  /** An event's id is its posting's, and this; null on the further movements of an event. */
  number: "int4",
  sequence: "int8",
  /** Of the events of its posting that follow it at once and report nothing that is compared: they have no row. */
  last_sequence: "int8",
  discrepancy_id: "uuid",
  stock_id: "uuid",
  type: "text",
  on_hand_delta: "int8",
  reserved_delta: "int8",
  unallocatable_delta: "int8"
} as const
type Columns = { readonly [C in keyof typeof eventColumns]: Array<unknown> }
const names = Object.keys(eventColumns) as ReadonlyArray<keyof typeof eventColumns>

const insertStatement = `INSERT INTO audit_event_row SELECT * FROM ${rowsOf(names)} AS u`

/**
 * The position is taken after the snapshot: what was committed by then lies before it, because a position is taken before
 * its transaction commits.
 */
const horizonStatement = `
  CREATE TEMPORARY TABLE audit_horizon AS
  SELECT pg_snapshot_xmax(s.snapshot)::xid AS next_transaction, o.last_value AS position,
         ARRAY(SELECT running::xid::text FROM pg_snapshot_xip(s.snapshot) AS running) AS running
  FROM (SELECT pg_current_snapshot() AS snapshot OFFSET 0) s
  CROSS JOIN outbox_position o`

// Whoever has taken a position holds this lock until it commits.
const writersStatement = `
  SELECT DISTINCT w.virtualtransaction AS writer
  FROM pg_locks w
  WHERE w.locktype = 'relation' AND w.relation = 'outbox'::regclass AND w.mode = 'RowExclusiveLock'
    AND w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`
/** A batch ends within its deadline and its time-outs; what writes for longer is none. */
const patienceMs = 30_000
const pauseMs = 20

/** Every transaction that has taken a position up to the horizon has ended: all events up to there can be read. */
const awaitWriters = Effect.fnUntraced(function* (ask: Ask) {
  const writers = yield* ask<{ readonly writer: string }>(writersStatement, [])
  for (let waited = 0; waited < patienceMs && writers.length > 0; waited += pauseMs) {
    const left = yield* ask(`SELECT FROM (${writersStatement}) w WHERE w.writer = ANY ($1) LIMIT 1`, [
      arrays.text(writers.map(({ writer }) => writer))
    ])
    if (left.length === 0) return
    yield* ask(`SELECT pg_sleep(${pauseMs / 1000})::text`, [])
  }
})

interface Group {
  readonly bucket: number
  readonly position: number
  readonly recordedAt: number
  readonly events: string
}

// outbox_pkey
const groupsStatement = `
  SELECT bucket, position, recorded_at AS "recordedAt", events
  FROM outbox
  WHERE bucket = $1 AND position > $2 AND position <= $3
  ORDER BY position
  LIMIT ${groupsPerRead}`

/** Unpacks all events of one merchant, or of all, through `own`; the outbox is read by `ask` meanwhile. Returns their number. */
export const unpackOutbox = Effect.fnUntraced(function* (
  own: Ask,
  ask: Ask,
  merchantId: string | undefined,
  report: (findings: ReadonlyArray<Finding>) => Effect.Effect<void, DatabaseUnavailable>
) {
  yield* own(horizonStatement, [])
  yield* awaitWriters(own)
  const [horizon] = yield* own<{ readonly position: number }>("SELECT position FROM audit_horizon", [])
  let events = 0
  const read = (bucket: number, position: number) =>
    ask<Group>(groupsStatement, [
      parameter("int4", bucket),
      parameter("int8", position),
      parameter("int8", horizon!.position)
    ])
  let inserted: Fiber.Fiber<unknown, DatabaseUnavailable> | undefined
  for (let bucket = 0; bucket < outboxBuckets; bucket++) {
    let groups = yield* read(bucket, -1)
    while (groups.length > 0) {
      // PostgreSQL reads what comes next, and inserts what came before, while these are parsed.
      const next = yield* Effect.forkChild(
        groups.length < groupsPerRead ? Effect.succeed([]) : read(bucket, groups.at(-1)!.position),
        { startImmediately: true }
      )
      const unpacked = unpack(groups, merchantId)
      events += unpacked.events
      yield* report(unpacked.findings)
      if (inserted !== undefined) yield* Fiber.join(inserted)
      const values = names.map((name) => arrays[eventColumns[name]](unpacked.columns[name]))
      inserted = yield* Effect.forkChild(own(insertStatement, values), { startImmediately: true })
      groups = yield* Fiber.join(next)
    }
  }
  if (inserted !== undefined) yield* Fiber.join(inserted)
  return events
})

const unpack = (groups: ReadonlyArray<Group>, merchantId: string | undefined) => {
  const columns = Object.fromEntries(names.map((name) => [name, []])) as unknown as Columns
  const findings: Array<Finding> = []
  let events = 0
  for (const group of groups) {
    const list = listOf(group.events)
    if (typeof list === "string") findings.push(unreadable(group, null, list))
    else {
      list.forEach((json, index) => {
        const wrong = faultOf(json)
        if (wrong !== undefined) return findings.push(unreadable(group, index + 1, wrong))
        const event = json as Event
        if (merchantId !== undefined && event.merchantId !== merchantId) return
        events += 1
        addRows(columns, event, group.position * eventsPerGroup + index)
        findings.push(...misplaced(event, group))
      })
    }
  }
  return { columns, findings, events }
}

const listOf = (text: string): ReadonlyArray<unknown> | string => {
  try {
    const json: unknown = JSON.parse(text)
    return Array.isArray(json) ? json : "it is not an array"
  } catch (failure) {
    return `it is not JSON: ${(failure as Error).message}`
  }
}

/** Whose it is cannot be known: it is shown to every merchant that asks. */
const unreadable = (
  { bucket, events, position, recordedAt }: Group,
  ordinal: number | null,
  says: string
): Finding => {
  const row = `row ${position} of bucket ${bucket} of the outbox`
  return findingOf("events-are-readable", {
    subject: ordinal === null ? row : `event ${ordinal} in ${row}`,
    bucket,
    position,
    recordedAt,
    says,
    text: events.slice(0, textShownMax),
    sha256: hash("sha256", events)
  })
}
/** Characters of a text that cannot be read. */
const textShownMax = 200

interface Moved {
  readonly stockId: string
  readonly type: string
  readonly onHandDelta: number
  readonly reservedDelta: number
  readonly unallocatableDelta: number
}
interface Event {
  readonly id: string
  readonly key: unknown
  readonly type: unknown
  readonly merchantId: string
  readonly data: {
    readonly merchantId?: unknown
    readonly itemId?: string
    readonly sequence?: number
    readonly discrepancyId?: string
    readonly movements?: ReadonlyArray<Moved>
  }
}

const isObject = (json: unknown): json is Readonly<Record<string, unknown>> =>
  typeof json === "object" && json !== null && !Array.isArray(json)
const hex = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
const uuid = new RegExp(`^${hex}$`)
const eventId = new RegExp(`^${hex}\\.[1-9]\\d{0,8}$`)
const isUuid = (json: unknown): boolean => typeof json === "string" && uuid.test(json)
const isOptional = (json: unknown, is: (json: unknown) => boolean): boolean => json === undefined || is(json)

/** Why a value is no event that can be compared with the ledger. */
const faultOf = (event: unknown): string | undefined => {
  if (!isObject(event)) return "it is not an object"
  const { data, id, merchantId } = event
  if (typeof id !== "string" || !eventId.test(id)) return "its id is not a posting's and a number"
  if (typeof merchantId !== "string") return "its merchant is not a text"
  if (!isObject(data)) return "its data is not an object"
  const { discrepancyId, itemId, movements = [], sequence } = data
  if (!isOptional(itemId, isUuid)) return "its item is not a UUID"
  if (!isOptional(discrepancyId, isUuid)) return "its discrepancy is not a UUID"
  if (!isOptional(sequence, Number.isSafeInteger)) return "its sequence is not a number"
  return Array.isArray(movements) && movements.every(isMovement) ? undefined : "its movements are none"
}

const isMovement = (json: unknown): boolean =>
  isObject(json) &&
  isUuid(json["stockId"]) &&
  typeof json["type"] === "string" &&
  Number.isSafeInteger(json["onHandDelta"]) &&
  Number.isSafeInteger(json["reservedDelta"]) &&
  Number.isSafeInteger(json["unallocatableDelta"])

const none = [undefined]

const addRows = (columns: Columns, { data, id, merchantId, type }: Event, place: number): void => {
  const postingId = id.slice(0, 36)
  const { itemId = null, sequence = null } = data
  const discrepancyId = type === DiscrepancyOpened.type ? (data.discrepancyId ?? null) : null
  const movements = data.movements?.length === 0 ? none : (data.movements ?? none)
  const last = columns.place.length - 1
  const follows =
    sequence !== null &&
    columns.last_sequence[last] === sequence - 1 &&
    columns.number[last] !== null &&
    columns.posting_id[last] === postingId &&
    columns.item_id[last] === itemId
  if (follows && movements === none && discrepancyId === null) {
    columns.last_sequence[last] = sequence
    return
  }
  movements.forEach((moved, index) => {
    columns.merchant_id.push(merchantId)
    columns.posting_id.push(postingId)
    columns.number.push(index === 0 ? Number(id.slice(37)) : null)
    columns.place.push(place)
    columns.item_id.push(itemId)
    columns.sequence.push(sequence)
    columns.last_sequence.push(sequence)
    columns.discrepancy_id.push(discrepancyId)
    columns.stock_id.push(moved?.stockId ?? null)
    columns.type.push(moved?.type ?? null)
    columns.on_hand_delta.push(moved?.onHandDelta ?? null)
    columns.reserved_delta.push(moved?.reservedDelta ?? null)
    columns.unallocatable_delta.push(moved?.unallocatableDelta ?? null)
  })
}

/** What an event says of itself that is not so: where it lies, and whose it is. */
const misplaced = ({ data, id, key, merchantId }: Event, { bucket }: Group): ReadonlyArray<Finding> => {
  const about = { merchant_id: merchantId, subject: `event ${id}` }
  const isOfItem = data.itemId === undefined || data.itemId === key
  const isInPlace = typeof key === "string" && isOfItem && bucketOf(key) === bucket
  return [
    ...(isInPlace ? [] : [findingOf("event-in-its-bucket", { ...about, key, bucket })]),
    ...(data.merchantId === merchantId
      ? []
      : [findingOf("event-of-its-merchant", { ...about, reports: data.merchantId ?? null })])
  ]
}
