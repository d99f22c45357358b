import { Effect, Option, type Redacted, Schema, type Scope } from "effect"
import * as Configuration from "../layers/Configuration.ts"
import * as EmbeddedPostgres from "../layers/EmbeddedPostgres.ts"

/** There is nothing here for a command to look at, and only a service or a migration makes a database. */
export class DatabaseMissing extends Schema.TaggedError<DatabaseMissing>()("DatabaseMissing", {
  folder: Schema.String
}) {
  override get message(): string {
    return `there is no database in ${this.folder}: run this in the folder of the service, name its data with HOLDFAST_DATA_DIR or its database with DATABASE_URL, or make one with holdfast serve`
  }
}

/** The database of a service: DATABASE_URL, or the embedded one, started for as long as the scope is open. */
export const serviceDatabase = (
  settings: Configuration.Settings
): Effect.Effect<Redacted.Redacted<string>, EmbeddedPostgres.EmbeddedPostgresError, Scope.Scope> =>
  Option.isSome(settings.databaseUrl)
    ? Effect.succeed(settings.databaseUrl.value)
    : Effect.map(EmbeddedPostgres.start({ dataDir: settings.dataDirectory }), ({ url }) => url)

/**
 * The database for a command, which never makes one. The embedded server of a service is used beside it; without a
 * service commands share one, which a service that starts meanwhile takes over.
 */
export const commandDatabase = Effect.fnUntraced(function* (settings: Configuration.Settings) {
  if (Option.isNone(settings.databaseUrl) && !(yield* EmbeddedPostgres.hasData(settings.dataDirectory)))
    return yield* new DatabaseMissing({ folder: settings.dataDirectory })
  return yield* madeDatabase(settings)
})

/** The same for a command that may make one. */
export const madeDatabase = (settings: Configuration.Settings) =>
  Option.isSome(settings.databaseUrl)
    ? Effect.succeed(settings.databaseUrl.value)
    : EmbeddedPostgres.share({ dataDir: settings.dataDirectory })
