import { Context, Effect, Layer } from "effect"
import { Db, StatementFailed } from "./Db.ts"
import { parameter } from "./PostgresTypes.ts"

/** The monthly partitions of the ledger and the outbox: there before they are written to. */
export class Partitions extends Context.Service<
  Partitions,
  {
    /** Makes sure that rows of this time (epoch milliseconds) and of the week after it have a partition. */
    readonly ensure: (at: number) => Effect.Effect<void, StatementFailed>
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
      return Partitions.of({
        ensure: (at) => {
          const missing = [monthOf(at), monthOf(at + aheadMs)].filter((month) => !known.has(month))
          return missing.length === 0 ? Effect.void : Effect.forEach(missing, create, { discard: true })
        }
      })
    })
  )
}

const partitioned = ["inventory_ledger", "outbox"]
/** How long before a month begins its partitions are made. */
const aheadMs = 7 * 24 * 60 * 60 * 1000

const monthOf = (at: number): number => {
  const date = new Date(at)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1)
}
