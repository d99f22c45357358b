import { Context, Effect, Layer } from "effect"
import { Db } from "./Db.ts"

/** Whether the service can do its work, by what it depends on. */
export class Health extends Context.Service<
  Health,
  {
    /** Never fails: what does not answer is DOWN. */
    readonly ready: Effect.Effect<Readonly<Record<"database" | "migrations", "UP" | "DOWN">>>
  }
>()("holdfast/services/Health") {
  static readonly layer = Layer.effect(
    Health,
    Effect.gen(function* () {
      const db = yield* Db
      const ready = db.maintain<{ migrated: boolean }>(readyStatement, []).pipe(
        Effect.timeout("1 second"),
        Effect.map(([row]) => ({
          database: "UP" as const,
          migrations: row?.migrated === true ? ("UP" as const) : ("DOWN" as const)
        })),
        Effect.orElseSucceed(() => ({ database: "DOWN" as const, migrations: "DOWN" as const }))
      )
      return Health.of({ ready })
    })
  )
}

const readyStatement = `SELECT to_regclass('inventory_ledger') IS NOT NULL AS migrated`
