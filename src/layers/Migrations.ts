import { PgClient, PgMigrator } from "@effect/sql-pg"
import * as NodeServices from "@effect/platform-node/NodeServices"
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

const table = "holdfast_migration"

/** The numbered files, by name without their ending, in their order. */
const read = Effect.gen(function* () {
  const files = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = path.join(import.meta.dirname, "..", "..", "migrations")
  const names = (yield* files.readDirectory(folder)).filter((name) => name.endsWith(".sql")).sort()
  const texts: Record<string, string> = {}
  for (const name of names) {
    texts[name.slice(0, -".sql".length)] = yield* files.readFileString(path.join(folder, name))
  }
  return texts
})

const connected = <A>(
  url: Redacted.Redacted<string>,
  use: Effect.Effect<A, unknown, SqlClient.SqlClient | NodeServices.NodeServices>
): Effect.Effect<A, MigrationFailed> =>
  use.pipe(
    Effect.provide([
      PgClient.layer({ url, maxConnections: 1, applicationName: "holdfast migrations" }),
      NodeServices.layer
    ]),
    Effect.mapError((cause) => new MigrationFailed({ cause })),
    Effect.scoped
  ) as Effect.Effect<A, MigrationFailed>

/**
 * Applies the numbered files of `migrations/` that are not applied yet, forward only. The migrator locks its table, so
 * that services that start together do not race.
 */
export const migrate = (url: Redacted.Redacted<string>): Effect.Effect<void, MigrationFailed> =>
  connected(
    url,
    Effect.gen(function* () {
      const migrations: Record<string, Effect.Effect<void, unknown, SqlClient.SqlClient>> = {}
      for (const [name, text] of Object.entries(yield* read)) {
        migrations[name] = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          // EXECUTE takes a whole file of statements, which the extended protocol does not.
          Effect.asVoid(sql.unsafe(`DO $migration$ BEGIN EXECUTE $text$${text}$text$; END $migration$`))
        )
      }
      yield* PgMigrator.run({ loader: PgMigrator.fromRecord(migrations as never), table })
    })
  )

/** What the database lacks of this program's migrations, and what it has that this program does not know, by number. */
export const compare = (
  url: Redacted.Redacted<string>
): Effect.Effect<
  { readonly lacking: ReadonlyArray<string>; readonly unknown: ReadonlyArray<string> },
  MigrationFailed
> =>
  connected(
    url,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const known = Object.keys(yield* read)
      const [there] = yield* sql<{ there: boolean }>`SELECT to_regclass(${table}) IS NOT NULL AS there`
      const applied = there?.there
        ? yield* sql<{ migration_id: number; name: string }>`
            SELECT migration_id, name FROM holdfast_migration ORDER BY migration_id`
        : []
      const ids = new Set(applied.map((row) => row.migration_id))
      return {
        lacking: known.filter((name) => !ids.has(numberOf(name))),
        unknown: applied
          .filter((row) => !known.some((name) => numberOf(name) === row.migration_id))
          .map((row) => `${String(row.migration_id).padStart(4, "0")}_${row.name}`)
      }
    })
  )

const numberOf = (name: string): number => Number(name.split("_")[0])
