import { PgClient, PgMigrator } from "@effect/sql-pg"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Path, type Redacted, Schema } from "effect"
import { SqlClient } from "effect/sql"

/** The migrations could not be applied: the database refused them, or does not answer. */
export class MigrationFailed extends Schema.TaggedError<MigrationFailed>()("MigrationFailed", {
  cause: Schema.Defect()
}) {
  override get message(): string {
    return "the database (DATABASE_URL) cannot be brought up to date"
  }
}

/**
 * Applies the numbered files of `migrations/` that are not applied yet, forward only. The migrator locks its table, so
 * that services that start together do not race.
 */
export const migrate = (url: Redacted.Redacted<string>): Effect.Effect<void, MigrationFailed> =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = path.join(import.meta.dirname, "..", "..", "migrations")
    const names = (yield* files.readDirectory(folder)).filter((name) => name.endsWith(".sql")).sort()
    const migrations: Record<string, Effect.Effect<void, unknown, SqlClient.SqlClient>> = {}
    for (const name of names) {
      const text = yield* files.readFileString(path.join(folder, name))
      migrations[name.slice(0, -".sql".length)] = Effect.flatMap(SqlClient.SqlClient, (sql) =>
        // EXECUTE takes a whole file of statements, which the extended protocol does not.
        Effect.asVoid(sql.unsafe(`DO $migration$ BEGIN EXECUTE $text$${text}$text$; END $migration$`))
      )
    }
    yield* PgMigrator.run({ loader: PgMigrator.fromRecord(migrations as never), table: "holdfast_migration" })
  }).pipe(
    Effect.provide([
      PgClient.layer({ url, maxConnections: 1, applicationName: "holdfast migrations" }),
      NodeServices.layer
    ]),
    Effect.mapError((cause) => new MigrationFailed({ cause })),
    Effect.scoped
  ) as Effect.Effect<void, MigrationFailed>
