import { PgConnection } from "@effect/sql-pg"
import { Effect, Exit, Redacted, Schedule, type Scope } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { type Backup, backUp as copyCluster } from "./embedded/Backup.ts"
import { findBinaries } from "./embedded/Binaries.ts"
import {
  configurationName,
  configurationOf,
  databaseName,
  ensureDatabase,
  openCluster,
  roleName
} from "./embedded/Cluster.ts"
import { type Holder, findHome, hold } from "./embedded/DataFolder.ts"
import {
  type EmbeddedPostgresError,
  exists,
  failure,
  giveToFolderOwner,
  isRoot,
  makeFolder,
  messageOf,
  onFiles,
  readOptional
} from "./embedded/Files.ts"
import { readPostmaster, serves } from "./embedded/Processes.ts"
import {
  type Plan,
  type Server,
  asFree,
  awaitReady,
  clearRemains,
  findWrapper,
  freePort,
  spawnServer,
  stop,
  strayServer
} from "./embedded/Server.ts"
import { boundLog } from "./embedded/ServerLog.ts"

/**
 * A real PostgreSQL under a folder of ours, for whoever has no `DATABASE_URL`.
 *
 * What lies where (`home` is `<dataDir>/postgres`, or the system folder that `<dataDir>/postgres.home` names):
 * - `home/cluster/data` PostgreSQL's own directory, `home/cluster/password` the password of its only role;
 * - `home/server.log` and `server.log.1` what the server says;
 * - `<dataDir>/postgres.lock` held by the service that serves this folder, or for a moment by a command;
 *   `postgres.lock.owner` says who that is.
 */

export { EmbeddedPostgresError } from "./embedded/Files.ts"

export interface EmbeddedPostgresOptions {
  readonly dataDir: string
  /** Settings of PostgreSQL that go before ours. */
  readonly settings?: Readonly<Record<string, string>>
  /** For tests: where the system can do it (`setpriv` on Linux), the server dies with a service that is killed. */
  readonly diesWithService?: boolean
}

export interface EmbeddedPostgres {
  readonly url: Redacted.Redacted<string>
  readonly dataDirectory: string
}

const attemptsMax = 20
const restartDelayMinMs = 100
const restartDelayMaxMs = 5_000

/** The server of the moment: the supervisor replaces it, the end of the scope stops it. */
interface Serving {
  server: Server | undefined
}

/**
 * Starts PostgreSQL under `dataDir`, or takes over the one that runs there, which a command or a killed service has
 * started; restarts it on the same port when it dies; stops it when the scope closes. The address serves the database
 * `holdfast`.
 */
export const start: (
  options: EmbeddedPostgresOptions
) => Effect.Effect<EmbeddedPostgres, EmbeddedPostgresError, Scope.Scope> = Effect.fn(
  "EmbeddedPostgres.start"
)(function* (options) {
  const { plan, serving, started } = yield* obtain(options, "service")
  yield* Effect.forkScoped(supervise(plan, serving))
  yield* Effect.forkScoped(boundLog(plan.log))
  return started
})

/**
 * The server under `dataDir` for a command: that of the service beside it, or one that commands share and the last of
 * them stops, unless a service has taken it over meanwhile.
 */
export const share: (
  options: EmbeddedPostgresOptions
) => Effect.Effect<Redacted.Redacted<string>, EmbeddedPostgresError, Scope.Scope> = Effect.fn(
  "EmbeddedPostgres.share"
)(function* (options) {
  yield* Effect.addFinalizer(() => leave(options.dataDir))
  const attempt = Effect.gen(function* () {
    const found = yield* running(options.dataDir)
    const url =
      found ?? (yield* Effect.scoped(Effect.map(obtain(options, "command"), ({ started }) => started.url)))
    yield* present(url)
    return url
  })
  // A service that holds the folder is about to start its server, or has stopped it.
  return yield* Effect.retry(attempt, {
    schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: serviceStartBound })),
    while: ({ problem }) => problem === "in_use" || problem === "connect"
  })
})
const serviceStartBound = "20 seconds"

/** A connection that says that somebody is using the server. */
const present = (url: Redacted.Redacted<string>) =>
  PgConnection.make({ url, applicationName: "holdfast command" }).pipe(
    Effect.mapError((error) => failure("connect", `The embedded PostgreSQL refuses us: ${error.message}`))
  )

/** Stops the server unless somebody else uses it, or a service holds it. */
const leave = (dataDir: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const dataDirectory = path.join(yield* clusterOf(dataDir), "data")
    if ((yield* readPostmaster(dataDirectory)) === undefined) return
    yield* hold(path.resolve(dataDir), "command")
    const url = yield* running(dataDir)
    const postmaster = yield* readPostmaster(dataDirectory)
    if (url === undefined || postmaster === undefined) return
    const alone = Effect.scoped(
      Effect.flatMap(present(url), (connection) =>
        Effect.map(
          connection.queryValues(
            "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            []
          ),
          ({ length }) => length === 0
        )
      )
    )
    // PostgreSQL takes a moment to see that our own connections are closed.
    const isAlone = yield* alone.pipe(
      Effect.repeat({
        until: (is) => is,
        schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 25 }))
      })
    )
    if (isAlone) yield* stop(strayServer(postmaster.pid, postmaster.port, dataDirectory))
  }).pipe(Effect.scoped, Effect.ignore)

/** Whether there is a database under `dataDir`, running or not. */
export const hasData = (dataDir: string): Effect.Effect<boolean> =>
  Effect.map(
    Effect.forEach(["postgres.home", path.join("postgres", "cluster")], (name) =>
      exists(path.join(path.resolve(dataDir), name))
    ),
    (found) => found.includes(true)
  )

/**
 * Takes the folder, and the server that runs there or a new one. A service keeps both until its scope closes; a command
 * lets the folder go, and leaves the server running once it has started.
 */
const obtain = Effect.fnUntraced(function* (options: EmbeddedPostgresOptions, holder: Holder) {
  const dataDir = yield* makeFolder(path.resolve(options.dataDir), isRoot ? 0o755 : 0o700)
  yield* hold(dataDir, holder)
  const { account, home } = yield* findHome(dataDir)
  // A copied folder may name the home of the original.
  if (path.dirname(home) !== dataDir) yield* hold(home, holder)
  const binaries = yield* findBinaries(home, account)
  const { dataDirectory, password } = yield* openCluster(
    home,
    binaries,
    account,
    options.settings?.["fsync"] !== "off"
  )
  const clusterName = `holdfast-${createHash("sha256").update(dataDirectory).digest("hex").slice(0, 12)}`
  const plan: Plan = {
    account,
    binaries,
    clusterName,
    configuration: yield* configurationOf(binaries, clusterName, options.settings ?? {}),
    dataDirectory,
    log: path.join(home, "server.log"),
    wrapper: options.diesWithService === true ? yield* findWrapper : []
  }
  const serving: Serving = { server: undefined }
  yield* Effect.addFinalizer((exit) =>
    Effect.suspend(() =>
      serving.server === undefined || (holder === "command" && Exit.isSuccess(exit))
        ? Effect.void
        : stop(serving.server)
    )
  )

  const urlOf = (database: string, port: number) =>
    Redacted.make(`postgres://${roleName}:${password}@127.0.0.1:${port}/${database}`)
  const connectable = Effect.suspend(() => ensureDatabase(urlOf("postgres", serving.server?.port ?? 0)))
  const adoptOrLaunch = Effect.gen(function* () {
    if (yield* adopt(plan, serving, connectable)) return
    yield* launch(plan, serving, yield* portFor(plan))
    yield* connectable
  })
  // Between a look and the deed, others may be faster: a program at the port, or the server of a service that was
  // killed while it started it.
  yield* Effect.retry(adoptOrLaunch, { times: attemptsMax - 1, while: ({ problem }) => problem === "taken" })
  const started: EmbeddedPostgres = { url: urlOf(databaseName, serving.server?.port ?? 0), dataDirectory }
  return { plan, serving, started }
})

/**
 * The address of the server that runs under `dataDir`; none where no server runs.
 */
export const running: (
  dataDir: string
) => Effect.Effect<Redacted.Redacted<string> | undefined, EmbeddedPostgresError> = Effect.fn(
  "EmbeddedPostgres.running"
)(function* (dataDir) {
  const cluster = yield* clusterOf(dataDir)
  const dataDirectory = path.join(cluster, "data")
  const postmaster = yield* readPostmaster(dataDirectory)
  if (postmaster === undefined || !(yield* serves(postmaster.pid, dataDirectory))) return undefined
  const password = (yield* readOptional(path.join(cluster, "password")))?.trim()
  return Redacted.make(`postgres://${roleName}:${password}@127.0.0.1:${postmaster.port}/${databaseName}`)
})

/** Copies what is served under `dataDir` into a data folder of its own, while it works (see `embedded/Backup.ts`). */
export const backUp = (
  dataDir: string,
  url: Redacted.Redacted<string>,
  target: string
): Effect.Effect<Backup, EmbeddedPostgresError> =>
  Effect.flatMap(clusterOf(dataDir), (cluster) => copyCluster(cluster, url, target))

const clusterOf = Effect.fnUntraced(function* (dataDir: string) {
  const named = (yield* readOptional(path.join(path.resolve(dataDir), "postgres.home")))?.trim()
  return path.join(named ?? path.join(path.resolve(dataDir), "postgres"), "cluster")
})

/**
 * Takes over the server that a killed service has left, if it was started in the same way and answers; stops it
 * otherwise.
 */
const adopt = Effect.fnUntraced(function* (
  plan: Plan,
  serving: Serving,
  connectable: Effect.Effect<void, EmbeddedPostgresError>
): Effect.fn.Return<boolean, EmbeddedPostgresError> {
  const found = yield* readPostmaster(plan.dataDirectory)
  if (found === undefined || !(yield* serves(found.pid, plan.dataDirectory))) return false
  const server = strayServer(found.pid, found.port, plan.dataDirectory)
  serving.server = server
  const configuration = yield* readOptional(path.join(plan.dataDirectory, configurationName))
  const healthy =
    configuration === plan.configuration &&
    (yield* awaitReady(plan, server, 0).pipe(
      Effect.andThen(connectable),
      Effect.as(true),
      Effect.catch(() => Effect.succeed(false))
    ))
  if (healthy) {
    yield* Effect.logInfo(
      `Took over the embedded PostgreSQL that runs already (pid ${found.pid}, port ${found.port})`
    )
    return true
  }
  yield* stop(server)
  serving.server = undefined
  return false
})

/** The port of the last time, where it is free: who was connected then, such as a `tail`, finds the server again. */
const portFor = Effect.fnUntraced(function* (plan: Plan) {
  const [, last] =
    /"-p" "(\d+)"/.exec((yield* readOptional(path.join(plan.dataDirectory, "postmaster.opts"))) ?? "") ?? []
  return yield* last === undefined ? freePort : Effect.catch(asFree(Number(last)), () => freePort)
})

/** Starts a server where none runs, and waits until it takes connections. */
const launch = Effect.fnUntraced(function* (plan: Plan, serving: Serving, port: number) {
  if ((yield* readPostmaster(plan.dataDirectory)) !== undefined) yield* clearRemains(plan)
  yield* onFiles(`Cannot write to ${plan.dataDirectory}`, async () => {
    const file = path.join(plan.dataDirectory, configurationName)
    await fs.writeFile(`${file}.new`, plan.configuration, { flush: true })
    await fs.chmod(`${file}.new`, 0o644)
    await fs.rename(`${file}.new`, file)
  })
  const logged = yield* Effect.acquireUseRelease(
    onFiles(`Cannot write ${plan.log}`, async () => {
      const log = await fs.open(plan.log, "a", 0o600)
      await giveToFolderOwner(plan.log)
      return log
    }),
    (log) =>
      Effect.flatMap(
        onFiles(`Cannot read ${plan.log}`, () => log.stat()),
        ({ size }) =>
          // In one step, so that no interruption comes between a server and our knowledge of it.
          Effect.sync(() => {
            serving.server = spawnServer(plan, port, log.fd)
            return { size, server: serving.server }
          })
      ),
    (log) => Effect.promise(() => log.close())
  )
  yield* awaitReady(plan, logged.server, logged.size).pipe(
    Effect.tapError(() => stop(logged.server)),
    Effect.mapError((error) => (takenByAnother.test(error.reason) ? failure("taken", error.reason) : error))
  )
})
const takenByAnother = /could not create any TCP\/IP sockets|lock file "postmaster.pid" already exists/

/** Brings the server back on its port as often as it dies: the service's connections find it again by themselves. */
const supervise = (plan: Plan, serving: Serving): Effect.Effect<never> =>
  Effect.gen(function* () {
    const server = serving.server
    if (server === undefined) return yield* Effect.never
    const how = yield* server.ended
    yield* Effect.logError(
      `The embedded PostgreSQL (pid ${server.pid}) died: ${how}. It is started again on port ${server.port}`
    )
    yield* launch(plan, serving, server.port).pipe(
      Effect.catchDefect((defect) => Effect.fail(failure("start", messageOf(defect)))),
      Effect.tapError(({ reason }) => Effect.logError(`The embedded PostgreSQL is tried again. ${reason}`)),
      Effect.retry(
        Schedule.min([Schedule.exponential(restartDelayMinMs), Schedule.spaced(restartDelayMaxMs)])
      ),
      Effect.orDie // the schedule has no end
    )
    yield* Effect.logInfo(`The embedded PostgreSQL runs again (port ${server.port})`)
  }).pipe(Effect.forever)
