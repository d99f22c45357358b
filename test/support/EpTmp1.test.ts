import { PgConnection } from "@effect/sql-pg"
import { assert, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { freshDatabase } from "./Postgres.ts"
it.effect("fresh", () => Effect.gen(function* () {
  const names: string[] = []
  for (let i = 0; i < 5; i++) {
  const t = performance.now()
  yield* Effect.scoped(Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const made = performance.now() - t
  const c = yield* PgConnection.make({ url })
  const rows = yield* c.queryValues("SELECT current_database(), (SELECT count(*)::int FROM pg_tables WHERE schemaname NOT IN ('pg_catalog','information_schema')), pg_database_size(current_database())::text")
  console.log(made, rows); names.push(Redacted.value(url))
  }))
  console.log("all", performance.now() - t)
  }
  const t = performance.now()
  yield* Effect.scoped(Effect.all(Array.from({ length: 10 }, () => freshDatabase), { concurrency: 10 }))
  console.log("10 concurrently", performance.now() - t)
  if (process.env.HANG) yield* Effect.never
}), 60_000)
