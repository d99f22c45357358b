import { PgConnection } from "@effect/sql-pg"
import { Effect, Redacted, type Scope } from "effect"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { start } from "../../src/layers/EmbeddedPostgres.ts"

/**
 * The server that both sides of a comparison run on: BENCH_DATABASE_URL, or an embedded one in a temporary folder with
 * the durability of production, which goes when the run ends.
 */
export const server: Effect.Effect<Redacted.Redacted<string>, unknown, Scope.Scope> = Effect.suspend(() => {
  const given = process.env["BENCH_DATABASE_URL"] ?? ""
  if (given !== "") return Effect.succeed(Redacted.make(given))
  return Effect.gen(function* () {
    const dataDir = yield* Effect.acquireRelease(Effect.promise(makeFolder), (folder) =>
      Effect.promise(() => removeFolder(folder))
    )
    const { url } = yield* start({ dataDir, settings: serverSettings, diesWithService: true })
    return url
  })
})

/** What production has to have, whatever the defaults become. */
export const serverSettings = { fsync: "on", synchronous_commit: "on", full_page_writes: "on" }

const makeFolder = async (): Promise<string> => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-bench-"))
  // Run as root, PostgreSQL has another account, which must get in.
  await fs.chmod(folder, 0o755)
  return folder
}

/** The server of a root's run may live in a folder that its own names. */
const removeFolder = async (dataDir: string): Promise<void> => {
  const home = await fs.readFile(path.join(dataDir, "postgres.home"), "utf8").catch(() => undefined)
  if (home !== undefined) await fs.rm(home.trim(), { recursive: true, force: true })
  await fs.rm(dataDir, { recursive: true, force: true })
}

/** A new database of this run; it is dropped when the scope closes. */
export const freshDatabase = Effect.fnUntraced(function* (
  maintenance: Redacted.Redacted<string>,
  name: string
) {
  const unique = `${name}_${process.pid}`
  yield* Effect.acquireRelease(execute(maintenance, `CREATE DATABASE ${unique}`), () =>
    Effect.ignore(execute(maintenance, `DROP DATABASE IF EXISTS ${unique} WITH (FORCE)`))
  )
  const url = new URL(Redacted.value(maintenance))
  url.pathname = `/${unique}`
  return Redacted.make(url.href)
})

/** Statements on a connection of their own, with the rows of the last. */
export const execute = (url: Redacted.Redacted<string>, ...statements: ReadonlyArray<string>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url, applicationName: "holdfast bench" })
      let rows: ReadonlyArray<object> = []
      for (const statement of statements) rows = (yield* connection.query(statement)).rows
      return rows as ReadonlyArray<Record<string, unknown>>
    })
  )
