import { Clock, Context, Effect, Layer } from "effect"
import { DatabaseUnavailable } from "../schema/Failure.ts"
import { Db, StatementFailed } from "./Db.ts"
import { arrays, parameter } from "./PostgresTypes.ts"

/** The monthly partitions of the ledger and the outbox: there before they are written to. */
export class Partitions extends Context.Service<
  Partitions,
  {
    /** Makes sure that rows of this time (epoch milliseconds) and of the week after it have a partition. */
    readonly ensure: (at: number) => Effect.Effect<void, StatementFailed>
    /** Makes those of this month and the months ahead, long before any posting asks. Returns how many were missing. */
    readonly prepare: Effect.Effect<number, DatabaseUnavailable>
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
      return Partitions.of({
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

const partitioned = ["inventory_ledger", "outbox"]
/** A service that prepares nothing for this long is still not in need of it. */
export const monthsAhead = 3
const retryAfterSeconds = 1
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
