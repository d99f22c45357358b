import { Effect, Redacted } from "effect"
import { start } from "../../src/layers/EmbeddedPostgres.ts"

/** A service that does nothing but keep its database in the folder that it is given, and say where. To be killed. */
setInterval(() => undefined, 60_000)
await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const { dataDirectory, url } = yield* start({ dataDir: process.argv[2]! })
      process.stdout.write(`${JSON.stringify({ dataDirectory, url: Redacted.value(url) })}\n`)
      yield* Effect.never
    })
  )
)
