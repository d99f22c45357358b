import { Effect, type Redacted, Redacted as Secret } from "effect"
import { assert } from "@effect/vitest"
import { assertInvariants } from "./invariants.ts"
import { type Sql, connect, until } from "./ledger.ts"
import { freshDatabase } from "./Postgres.ts"
import { type Answer, type RunningService, merchantAt, startService } from "./service.ts"

/** Several services as processes on one database, and what must be true when they are gone. */

/**
 * Starts services on a database of their own, all at once, and lets them be used. Afterwards no invariant is broken, and
 * PostgreSQL has seen no deadlock.
 */
export const withServices = <A, E>(
  count: number,
  use: (
    services: ReadonlyArray<RunningService>,
    database: { readonly url: Redacted.Redacted<string>; readonly sql: Sql }
  ) => Effect.Effect<A, E>,
  environment: Readonly<Record<string, string>> = {}
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const result = yield* Effect.scoped(
        Effect.flatMap(
          Effect.all(
            Array.from({ length: count }, () => startService(Secret.value(url), environment)),
            { concurrency: "unbounded" }
          ),
          (services) => use(services, { url, sql })
        )
      )
      yield* assertUnbroken({ url, sql })
      return result
    })
  )

/** Of a database whose services were killed: no invariant is broken, and PostgreSQL has seen no deadlock. */
export const assertUnbroken = Effect.fnUntraced(function* ({
  sql,
  url
}: {
  readonly url: Redacted.Redacted<string>
  readonly sql: Sql
}) {
  yield* gone(sql)
  yield* assertInvariants(url)
  const [row] = yield* sql.run<{ deadlocks: number }>(
    "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
  )
  assert.strictEqual(row!.deadlocks, 0, "deadlocks")
})

/** Connections of killed services end by themselves, and report their statistics when they do. */
const gone = (sql: Sql) =>
  until(
    Effect.map(
      sql.run<{ count: number }>(
        `SELECT count(*) AS count FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'holdfast%'
           AND application_name NOT IN ('holdfast test', 'holdfast tests')`
      ),
      ([row]) => row!.count === 0
    )
  )

/** The same merchant as each of the services sees it. */
export const desks = (services: ReadonlyArray<RunningService>, merchantId = "acme") =>
  Effect.forEach(services, (service) => merchantAt(service, merchantId))

/** How many answers had which status. */
export const statusesOf = (answers: ReadonlyArray<Answer>): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}
