import { Clock, Context, Effect, Layer, Schedule } from "effect"
import { DatabaseUnavailable, retryAfterSeconds } from "../schema/Failure.ts"
import { Db, StatementFailed } from "./Db.ts"
import { arrays, parameter } from "./PostgresTypes.ts"

export type PartitionedTable = "inventory_ledger" | "outbox"

/** One month of a table. Times are epoch milliseconds; rows are PostgreSQL's estimate. */
export interface Partition {
  readonly name: string
  readonly from: number
  readonly until: number
  readonly attached: boolean
  readonly rows: number
  readonly bytes: number
}

/** The monthly partitions of the ledger and the outbox: there before they are written to. */
export class Partitions extends Context.Service<
  Partitions,
  {
    /** Makes sure that rows of this time (epoch milliseconds) and of the week after it have a partition. */
    readonly ensure: (at: number) => Effect.Effect<void, StatementFailed>
    /** Makes those of this month and the months ahead, long before any posting asks. Returns how many were missing. */
    readonly prepare: Effect.Effect<number, DatabaseUnavailable>
    /**
     * Takes a partition out of its table while readers and writers go on, whose old snapshots it waits for: asked again
     * after a failure, it goes on where it was. The rows stay, in a table of the partition's name.
     */
    readonly detach: (parent: PartitionedTable, partition: string) => Effect.Effect<void, DatabaseUnavailable>
    /** All that were ever made and are still there, oldest first, detached ones too. */
    readonly list: (parent: PartitionedTable) => Effect.Effect<ReadonlyArray<Partition>, DatabaseUnavailable>
    /** Which of these are missing at a time, by name. */
    readonly missing: (at: number) => Effect.Effect<ReadonlyArray<string>, DatabaseUnavailable>
  }
>()("holdfast/services/Partitions") {
  static readonly layer = Layer.effect(
    Partitions,
    Effect.gen(function* () {
      const db = yield* Db
      const known = new Set<number>()
      const create = Effect.fnUntraced(function* (month: number) {
        for (const parent of partitioned) {
          yield* Effect.mapError(
            db.maintain("SELECT holdfast_ensure_partition($1, $2::text::date)", [
              parameter("text", parent),
              parameter("text", new Date(month).toISOString().slice(0, 10))
            ]),
            (cause) => new StatementFailed({ disposition: "UNAVAILABLE", sqlState: undefined, cause })
          )
        }
        known.add(month)
      })
      const prepare = Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const lacking = yield* missing(at)
        if (lacking.length > 0) {
          yield* Effect.forEach(monthsFrom(at), create, { discard: true }).pipe(
            Effect.mapError(() => new DatabaseUnavailable({ retryAfterSeconds }))
          )
        }
        return lacking.length
      })
      const missing = (at: number) =>
        Effect.map(
          db.maintain<{ name: string }>(missingStatement, [
            arrays.text(monthsFrom(at).flatMap((month) => partitioned.map((parent) => nameOf(parent, month))))
          ]),
          (rows) => rows.map(({ name }) => name)
        )
      const list = (parent: PartitionedTable) =>
        Effect.map(
          db.maintain<PartitionRow>(listStatement, [parameter("text", `^${parent}_[0-9]{6}$`)]),
          (rows) =>
            rows.map(({ attached, bytes, name, rows }): Partition => {
              const year = Number(name.slice(-6, -2))
              const month = Number(name.slice(-2)) - 1
              const [from, until] = [Date.UTC(year, month, 1), Date.UTC(year, month + 1, 1)]
              return { name, from, until, attached, rows, bytes }
            })
        )
      const detach = Effect.fn("Partitions.detach")(
        function* (parent: PartitionedTable, partition: string) {
          if (!new RegExp(`^${parent}_\\d{6}$`).test(partition)) {
            return yield* Effect.die(new Error(`${partition} is no partition of ${parent}`))
          }
          const [row] = yield* db.maintain<{ pending: boolean }>(stateStatement, [
            parameter("text", partition)
          ])
          if (row === undefined) return
          yield* db.maintain(
            `ALTER TABLE ${parent} DETACH PARTITION ${partition} ${row.pending ? "FINALIZE" : "CONCURRENTLY"}`,
            []
          )
        },
        // A statement that waited for an old snapshot until its time-out has begun the work: the next one ends it.
        Effect.retry({ times: detachRetriesMax, schedule: Schedule.spaced("1 second") })
      )
      return Partitions.of({
        detach,
        list,
        prepare: Effect.withSpan(prepare, "Partitions.prepare"),
        missing,
        ensure: (at) => {
          const missing = [monthOf(at), monthOf(at + aheadMs)].filter((month) => !known.has(month))
          return missing.length === 0 ? Effect.void : Effect.forEach(missing, create, { discard: true })
        }
      })
    })
  )
}

const partitioned: ReadonlyArray<PartitionedTable> = ["inventory_ledger", "outbox"]
const detachRetriesMax = 5

interface PartitionRow {
  readonly name: string
  readonly attached: boolean
  readonly rows: number
  readonly bytes: number
}

// pg_class_relname_nsp_index, pg_inherits_relid_seqno_index
const listStatement = `
  SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AS attached, GREATEST(c.reltuples, 0)::bigint AS rows,
         pg_total_relation_size(c.oid) AS bytes
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ $1
  ORDER BY c.relname`

const stateStatement = `
  SELECT i.inhdetachpending AS pending
  FROM pg_inherits i
  JOIN pg_class c ON c.oid = i.inhrelid
  WHERE c.relname = $1 AND c.relnamespace = current_schema()::regnamespace`

/** A service that prepares nothing for this long is still not in need of it. */
export const monthsAhead = 3
/** How long before a month begins its partitions are made. */
const aheadMs = 7 * 24 * 60 * 60 * 1000

const monthOf = (at: number): number => {
  const date = new Date(at)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1)
}

const monthsFrom = (at: number): ReadonlyArray<number> => {
  const date = new Date(at)
  return Array.from({ length: monthsAhead + 1 }, (_, ahead) =>
    Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + ahead, 1)
  )
}

const nameOf = (parent: string, month: number): string =>
  `${parent}_${new Date(month).toISOString().slice(0, 7).replace("-", "")}`

// pg_class_relname_nsp_index, pg_inherits_relid_seqno_index: one that was detached is missing
const missingStatement = `
  SELECT wanted.name
  FROM unnest($1) AS wanted (name)
  WHERE NOT EXISTS (
    SELECT 1
    FROM pg_class c
    JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE c.relname = wanted.name AND c.relnamespace = current_schema()::regnamespace
  )`
