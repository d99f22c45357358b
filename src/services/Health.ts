import { Context, Effect, Layer } from "effect"
import { topicNames } from "../schema/Topic.ts"
import { Broker } from "./messaging/Broker.ts"
import { Db } from "./Db.ts"

/** Whether the service can do its work, by what it depends on. */
export class Health extends Context.Service<
  Health,
  {
    /** Never fails: what does not answer is DOWN. */
    readonly ready: Effect.Effect<Readonly<Record<"database" | "migrations" | "broker", "UP" | "DOWN">>>
    /** Topics that do not exist: the others work meanwhile. Empty while the broker does not answer. */
    readonly missingTopics: Effect.Effect<ReadonlyArray<string>>
  }
>()("holdfast/services/Health") {
  static readonly layer = Layer.effect(
    Health,
    Effect.gen(function* () {
      const db = yield* Db
      const broker = yield* Broker
      const databaseReady = db.maintain<{ migrated: boolean }>(readyStatement, []).pipe(
        Effect.timeout("1 second"),
        Effect.map(([row]) => ({
          database: "UP" as const,
          migrations: row?.migrated === true ? ("UP" as const) : ("DOWN" as const)
        })),
        Effect.orElseSucceed(() => ({ database: "DOWN" as const, migrations: "DOWN" as const }))
      )
      const brokerReady = Effect.map(broker.ready, (up) => (up ? ("UP" as const) : ("DOWN" as const)))
      return Health.of({
        ready: Effect.map(
          Effect.all([databaseReady, brokerReady], { concurrency: "unbounded" }),
          ([checks, up]) => ({ ...checks, broker: up })
        ),
        missingTopics: broker.missingTopics(topicNames).pipe(
          Effect.timeout("2 seconds"),
          Effect.orElseSucceed(() => [])
        )
      })
    })
  )
}

const readyStatement = `SELECT to_regclass('inventory_ledger') IS NOT NULL AS migrated`
