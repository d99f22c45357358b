import { PgConnection } from "@effect/sql-pg"
import { Effect, Exit, Redacted, Scope, Semaphore } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import type { TestProject } from "vitest/node"
import { start } from "../../src/layers/EmbeddedPostgres.ts"
import { migrate } from "../../src/layers/Migrations.ts"
import { isAlive } from "./javaServers.ts"

/**
 * One PostgreSQL for a test run, and a database of its own for whoever asks. The server comes from TEST_DATABASE_URL (a
 * maintenance database, with the right to create others) or is the embedded one in a folder that goes with the run.
 * With TEST_DATABASE_ROLE=owner the databases belong to an ordinary role, and are served under it: what a managed
 * PostgreSQL gives. Tests that administer the server themselves (settings, replication) need the superuser and fail then.
 */

declare module "vitest" {
  interface ProvidedContext {
    /** The maintenance database that test databases are created from. */
    readonly postgresUrl: string
  }
}

export interface TestPostgresOptions {
  /** Makes an empty database into one that tests start from. */
  readonly migrate: (url: Redacted.Redacted<string>) => Effect.Effect<void, unknown>
}

export interface TestPostgres {
  readonly url: string
  readonly stop: () => Promise<void>
}

/** Every test database is a copy of this one. Two runs at once need two servers, since each makes its own. */
export const templateName = "holdfast_template"

/** Who the databases belong to when they are not the superuser's. */
const ownerRole = process.env["TEST_DATABASE_ROLE"] === "owner" ? "holdfast_test_owner" : undefined
const ownerPassword = "owner"

const folderPrefix = "holdfast-test-"

/** Crashes of the machine are not tested for, so that nothing waits for the disk. */
const settings = {
  fsync: "off",
  full_page_writes: "off",
  synchronous_commit: "on",
  log_statement: "none",
  max_connections: "300",
  // For tests with change data capture.
  wal_level: "logical"
}

/** The globalSetup of vitest. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await startTestPostgres({ migrate })
  project.provide("postgresUrl", postgres.url)
  return postgres.stop
}

export const startTestPostgres = async (options: TestPostgresOptions): Promise<TestPostgres> => {
  const scope = Scope.makeUnsafe()
  const stop = () => Effect.runPromise(Scope.close(scope, Exit.void))
  const given = process.env["TEST_DATABASE_URL"] ?? ""
  try {
    const url = await Effect.runPromise(
      (given === "" ? embedded : Effect.succeed(Redacted.make(given))).pipe(
        Effect.tap((maintenance) => makeTemplate(maintenance, options)),
        Scope.provide(scope)
      )
    )
    return { url: Redacted.value(url), stop }
  } catch (cause) {
    await stop()
    throw cause
  }
}

type TestDatabase = Effect.Effect<{ readonly url: Redacted.Redacted<string> }, never, Scope.Scope>

const databaseFrom = (template: string): TestDatabase =>
  Effect.gen(function* () {
    const { administer, maintenance } = yield* Effect.promise(() => (administrator ??= makeAdministrator()))
    const name = `holdfast_test_${randomBytes(6).toString("hex")}`
    yield* Effect.acquireRelease(
      // Copied file by file: half of what it costs to write each page to the log.
      administer(
        `CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY FILE_COPY${ownerRole === undefined ? "" : ` OWNER ${ownerRole}`}`
      ),
      () => administer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
    )
    return { url: databaseUrl(maintenance, name, ownerRole) }
  })

/** A migrated database that nobody else uses; it is dropped, with whoever is still connected, when the scope closes. */
export const freshDatabase: TestDatabase = databaseFrom(templateName)

/** The same without any table of ours, for what belongs to others. */
export const emptyDatabase: TestDatabase = databaseFrom("template0")

/**
 * An empty database of an ordinary role of its own, as a managed PostgreSQL gives it, on the run's server or another. Both
 * go when the scope closes, with the role that the service may have made for its readers.
 */
export const ownedDatabase = Effect.fnUntraced(function* (
  attributes: "CREATEROLE" | "",
  server?: Redacted.Redacted<string>
) {
  const maintenance =
    server ?? (yield* Effect.promise(() => (administrator ??= makeAdministrator()))).maintenance
  const role = `shop_${randomBytes(6).toString("hex")}`
  yield* Effect.acquireRelease(
    execute(
      maintenance,
      `CREATE ROLE ${role} LOGIN ${attributes} PASSWORD '${ownerPassword}'`,
      `CREATE DATABASE ${role} OWNER ${role}`
    ),
    () =>
      execute(
        maintenance,
        `DROP DATABASE ${role} WITH (FORCE)`,
        `DROP ROLE ${role}`,
        `DROP ROLE IF EXISTS holdfast_reader_${role}`
      )
  )
  return {
    role,
    url: databaseUrl(maintenance, role, role),
    superuser: databaseUrl(maintenance, role)
  }
})

const databaseUrl = (
  maintenance: Redacted.Redacted<string>,
  database: string,
  role?: string
): Redacted.Redacted<string> => {
  const url = new URL(Redacted.value(maintenance))
  url.pathname = `/${database}`
  if (role !== undefined) {
    url.username = role
    url.password = ownerPassword
  }
  return Redacted.make(url.href)
}

/** What makes and drops databases: one connection for as long as the worker lives, a statement at a time. */
const makeAdministrator = async () => {
  // Imported here: the globalSetup has no business with a worker's context.
  const { inject } = await import("vitest")
  return Effect.runPromise(
    Effect.gen(function* () {
      const maintenance = Redacted.make(inject("postgresUrl"))
      const connection = yield* PgConnection.make({ url: maintenance, applicationName: "holdfast tests" })
      const turn = yield* Semaphore.make(1)
      const administer = (statement: string) =>
        Effect.orDie(Effect.asVoid(turn.withPermits(1)(connection.query(statement))))
      return { administer, maintenance }
    }).pipe(Scope.provide(Scope.makeUnsafe()))
  )
}
let administrator: ReturnType<typeof makeAdministrator> | undefined

/** A statement on a connection of its own. Nothing can be tested where it fails: that is a defect. */
const execute = (url: Redacted.Redacted<string>, ...statements: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.scoped(
    Effect.flatMap(PgConnection.make({ url, applicationName: "holdfast tests" }), (connection) =>
      Effect.forEach(statements, (statement) => connection.query(statement), { discard: true })
    )
  ).pipe(Effect.orDie)

const makeTemplate = Effect.fnUntraced(function* (
  maintenance: Redacted.Redacted<string>,
  options: TestPostgresOptions
) {
  yield* execute(
    maintenance,
    // A given server may still have the last run's.
    `DROP DATABASE IF EXISTS ${templateName} WITH (FORCE)`,
    `CREATE DATABASE ${templateName}`,
    ...(ownerRole === undefined
      ? []
      : [
          `DO $$ BEGIN CREATE ROLE ${ownerRole} LOGIN CREATEROLE PASSWORD '${ownerPassword}';
           EXCEPTION WHEN duplicate_object THEN NULL; END $$`,
          // For tests that change behind the service's back what its triggers guard.
          `GRANT SET ON PARAMETER session_replication_role TO ${ownerRole}`,
          `ALTER DATABASE ${templateName} OWNER TO ${ownerRole}`
        ])
  )
  yield* options.migrate(databaseUrl(maintenance, templateName, ownerRole))
  // A template that someone is connected to cannot be copied: not even autovacuum may come in.
  yield* execute(maintenance, `ALTER DATABASE ${templateName} ALLOW_CONNECTIONS false`)
})

const embedded = Effect.gen(function* () {
  const dataDir = yield* Effect.acquireRelease(Effect.promise(makeFolder), (folder) =>
    Effect.promise(() => removeFolder(folder))
  )
  const { url } = yield* start({ dataDir, settings, diesWithService: true })
  return databaseUrl(url, "postgres")
})

/** A folder for this run; those of runs that were killed go on the way. */
export const makeFolder = async (): Promise<string> => {
  for (const name of await fs.readdir(os.tmpdir())) {
    const [, pid] = new RegExp(`^${folderPrefix}(\\d+)-`).exec(name) ?? []
    if (pid !== undefined && !isAlive(Number(pid))) {
      await removeFolder(path.join(os.tmpdir(), name)).catch(() => undefined) // perhaps another user's
    }
  }
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), `${folderPrefix}${process.pid}-`))
  // Run as root, PostgreSQL has another account, which must get in.
  await fs.chmod(folder, 0o755)
  return folder
}

/** A folder of a test's own, in which commands and services keep their databases. */
export const emptyFolder = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-folder-"))
    // Run as root, PostgreSQL has another account, which must get in.
    await fs.chmod(folder, 0o755)
    return folder
  }),
  (folder) =>
    Effect.promise(async () => {
      await removeFolder(path.join(folder, ".holdfast"))
      await fs.rm(folder, { recursive: true, force: true })
    })
)

/** Removes a data folder, and the one that it names if PostgreSQL could not use it. */
export const removeFolder = async (dataDir: string): Promise<void> => {
  const home = await fs.readFile(path.join(dataDir, "postgres.home"), "utf8").catch(() => undefined)
  if (home !== undefined) await fs.rm(home.trim(), { recursive: true, force: true })
  await fs.rm(dataDir, { recursive: true, force: true })
}
