import { Effect, Option, type Redacted, type Scope } from "effect"
import * as Configuration from "../layers/Configuration.ts"
import * as EmbeddedPostgres from "../layers/EmbeddedPostgres.ts"

/** The database of a service: DATABASE_URL, or the embedded one, started for as long as the scope is open. */
export const serviceDatabase = (
  settings: Configuration.Settings
): Effect.Effect<Redacted.Redacted<string>, EmbeddedPostgres.EmbeddedPostgresError, Scope.Scope> =>
  Option.isSome(settings.databaseUrl)
    ? Effect.succeed(settings.databaseUrl.value)
    : Effect.map(EmbeddedPostgres.start({ dataDir: settings.dataDirectory }), ({ url }) => url)

/** The database for a command: where a service runs on the same data, its embedded server is used beside it. */
export const commandDatabase = Effect.fnUntraced(function* (settings: Configuration.Settings) {
  if (Option.isSome(settings.databaseUrl)) return settings.databaseUrl.value
  const running = yield* EmbeddedPostgres.running(settings.dataDirectory)
  return running ?? (yield* serviceDatabase(settings))
})
