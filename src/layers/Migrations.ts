import { PgClient, PgMigrator } from "@effect/sql-pg"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Path, type Redacted, Schema } from "effect"
import { SqlClient } from "effect/sql"
import {
  type Access,
  type Obstacle,
  accessStatement,
  obstacles,
  withoutReader
} from "../services/DatabaseAccess.ts"
import { ensureReaderRole } from "../services/ReaderRole.ts"

/** The migrations could not be applied: the database refused them, or does not answer. */
export class MigrationFailed extends Schema.TaggedError<MigrationFailed>()("MigrationFailed", {
  cause: Schema.Defect()
}) {
  override get message(): string {
    return "the database (DATABASE_URL) cannot be brought up to date"
  }
}

/** The database, or its user, is not what a service needs: nothing was changed. */
export class DatabaseUnfit extends Schema.TaggedError<DatabaseUnfit>()("DatabaseUnfit", {
  obstacles: Schema.Array(Schema.Struct({ found: Schema.String, mend: Schema.String }))
}) {
  override get message(): string {
    return this.obstacles.map(({ found, mend }) => `DATABASE_URL: ${found}: ${mend}`).join("; ")
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
): Effect.Effect<A, MigrationFailed | DatabaseUnfit> =>
  use.pipe(
    Effect.provide([
      PgClient.layer({ url, maxConnections: 1, applicationName: "holdfast migrations" }),
      NodeServices.layer
    ]),
    Effect.mapError((cause) => (cause instanceof DatabaseUnfit ? cause : new MigrationFailed({ cause }))),
    Effect.scoped
  ) as Effect.Effect<A, MigrationFailed | DatabaseUnfit>

/**
 * Applies the numbered files of `migrations/` that are not applied yet, forward only, and makes the role that reads run
 * under. The migrator locks its table, so that services that start together do not race. A database or a user that will
 * not do is refused before anything is changed.
 */
export const migrate = (
  url: Redacted.Redacted<string>
): Effect.Effect<void, MigrationFailed | DatabaseUnfit> =>
  connected(
    url,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const access = Effect.map(sql.unsafe<Access>(accessStatement), ([row]) => row!)
      const found: ReadonlyArray<Obstacle> = obstacles(yield* access)
      if (found.length > 0) return yield* new DatabaseUnfit({ obstacles: found })
      const migrations: Record<string, Effect.Effect<void, unknown, SqlClient.SqlClient>> = {}
      for (const [name, text] of Object.entries(yield* read)) {
        migrations[name] = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          // EXECUTE takes a whole file of statements, which the extended protocol does not.
          Effect.asVoid(sql.unsafe(`DO $migration$ BEGIN EXECUTE $text$${text}$text$; END $migration$`))
        )
      }
      yield* PgMigrator.run({ loader: PgMigrator.fromRecord(migrations as never), table })
      yield* sql.unsafe(ensureReaderRole)
      const unguarded = withoutReader(yield* access)
      if (unguarded !== undefined) yield* Effect.logWarning(`${unguarded.found}: ${unguarded.mend}`)
    })
  )

/** What the database lacks of this program's migrations, and what it has that this program does not know, by number. */
export const compare = (
  url: Redacted.Redacted<string>
): Effect.Effect<
  { readonly lacking: ReadonlyArray<string>; readonly unknown: ReadonlyArray<string> },
  MigrationFailed | DatabaseUnfit
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
