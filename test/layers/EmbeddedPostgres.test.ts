import { PgConnection } from "@effect/sql-pg"
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, References, Schedule, type Scope } from "effect"
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { createInterface } from "node:readline"
import { promisify } from "node:util"
import { type EmbeddedPostgres, start } from "../../src/layers/EmbeddedPostgres.ts"
import { removeFolder } from "../support/Postgres.ts"
import { compileCache } from "../support/service.ts"
import { program } from "../support/shared.ts"

/**
 * Real servers that are started, killed and found again. What is waited for is a condition that will come true, never a
 * length of time; a service that gets killed is a process of its own.
 */

/** A few seconds each on two idle cores; the bounds are for machines that do something else as well. */
const testBoundMs = 120_000
const waitBoundMs = 30_000
const isRoot = process.getuid?.() === 0

const folderWith = (mode: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-embedded-"))
      await fs.chmod(folder, mode)
      return folder
    }),
    (folder) => Effect.promise(() => removeFolder(folder))
  )

/** A folder with a database that an earlier start has made: `initdb` is most of what a first start costs. */
const usedFolder = Effect.gen(function* () {
  const folder = yield* folderWith(0o755)
  yield* Effect.promise(async () => {
    const made = path.join(await (template ??= makeTemplate()), "postgres")
    // Where PostgreSQL's account cannot pass to such folders, each test makes its own elsewhere.
    const isHere = await fs.access(path.join(made, "cluster")).then(
      () => true,
      () => false
    )
    // As an archive, so that the account keeps what is its own.
    if (isHere) await promisify(execFile)("cp", ["-a", made, folder])
  })
  return folder
})

const makeTemplate = async (): Promise<string> => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-embedded-"))
  await fs.chmod(folder, 0o755)
  await Effect.runPromise(Effect.scoped(quietly(served(folder, () => Effect.void))))
  return folder
}
let template: Promise<string> | undefined
afterAll(async () => {
  if (template !== undefined) await removeFolder(await template)
})

const query = (url: Redacted.Redacted<string>, statement: string) =>
  Effect.scoped(Effect.flatMap(PgConnection.make({ url }), (connection) => connection.queryValues(statement)))

/** Ends the server within the test, unlike `start` alone, which ends it with the test. */
const served = <A, E>(dataDir: string, use: (postgres: EmbeddedPostgres) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(start({ dataDir }), use))

const postmasterPid = (dataDirectory: string) =>
  Effect.tryPromise(async () =>
    Number((await fs.readFile(path.join(dataDirectory, "postmaster.pid"), "utf8")).split("\n")[0])
  )

/** A zombie is not alive: not everything that runs as process 1 reaps what falls to it. */
const isAlive = (pid: number) =>
  Effect.promise(() =>
    process.platform === "linux"
      ? fs.readFile(`/proc/${pid}/cmdline`).then(
          (line) => line.length > 0,
          () => false
        )
      : Promise.resolve()
          .then(() => process.kill(pid, 0))
          .catch(() => false)
  )

const until = <E>(condition: Effect.Effect<boolean, E>) =>
  condition.pipe(
    Effect.orElseSucceed(() => false),
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced(20) }),
    Effect.timeout(waitBoundMs)
  )

/** Whether a query is answered, at last, on the same address. */
const answersAgain = (url: Redacted.Redacted<string>) => until(Effect.as(query(url, "SELECT 1"), true))

const write = (url: Redacted.Redacted<string>) => query(url, "CREATE TABLE kept AS SELECT 42 AS answer")

const assertKept = (url: Redacted.Redacted<string>) =>
  Effect.map(query(url, "SELECT answer FROM kept"), (rows) => assert.deepStrictEqual(rows, [[42]]))

const signal = (pid: number, name: NodeJS.Signals) => Effect.sync(() => process.kill(pid, name))

interface Service {
  readonly pid: number
  readonly url: Redacted.Redacted<string>
  readonly dataDirectory: string
  /** kill -9 of its whole process group, and the end of it. */
  readonly killed: Effect.Effect<void>
}

/** A service in a process of its own, that can be killed. */
const startService = (dataDir: string): Effect.Effect<Service, never, Scope.Scope> =>
  Effect.flatMap(program("embeddedService"), (file) =>
    Effect.acquireRelease(
      Effect.promise(async () => {
        const child = spawn(process.execPath, [file, dataDir], {
          env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
          stdio: ["ignore", "pipe", "inherit"],
          detached: true
        })
        const exited = once(child, "exit")
        const [line] = (await once(createInterface(child.stdout), "line")) as [string]
        const { dataDirectory, url } = JSON.parse(line) as { dataDirectory: string; url: string }
        const pid = child.pid ?? assert.fail("The service has no pid")
        const killed = Effect.promise(async () => {
          if (child.exitCode === null && child.signalCode === null) process.kill(-pid, "SIGKILL")
          await exited
        })
        return { pid, dataDirectory, url: Redacted.make(url), killed }
      }),
      ({ killed }) => killed
    )
  )

/** What the service logs of all this is not the reader's concern. */
const quietly = <A, E>(body: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.provideService(body, References.MinimumLogLevel, "None")

const test = <A, E>(rule: string, body: Effect.Effect<A, E, Scope.Scope>) =>
  it.live(rule, () => quietly(body), testBoundMs)

const testAsRoot = <A, E>(rule: string, body: Effect.Effect<A, E, Scope.Scope>) =>
  it.live.skipIf(!isRoot)(rule, () => quietly(body), testBoundMs)

describe.concurrent("EmbeddedPostgres", () => {
  test(
    "starts in an empty folder, answers as configured, and leaves nothing running",
    Effect.gen(function* () {
      const dataDir = yield* folderWith(0o755)
      const pid = yield* served(dataDir, ({ dataDirectory, url }) =>
        Effect.gen(function* () {
          const rows = yield* query(
            url,
            `SELECT current_database(), current_setting('server_version_num')::integer / 10000,
                current_setting('wal_level'), current_setting('max_locks_per_transaction'),
                current_setting('data_checksums'), current_setting('TimeZone'), upper('straße é')`
          )
          assert.deepStrictEqual(rows, [["holdfast", 18, "replica", "256", "on", "UTC", "STRAßE É"]])
          return yield* postmasterPid(dataDirectory)
        })
      )
      assert.isFalse(yield* isAlive(pid))
      const password = yield* Effect.promise(() => fs.stat(path.join(dataDir, "postgres/cluster/password")))
      assert.strictEqual(password.mode & 0o777, 0o600)
    })
  )

  test(
    "keeps the data from one start to the next",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      yield* served(dataDir, ({ url }) => write(url))
      yield* served(dataDir, ({ url }) => assertKept(url))
    })
  )

  test(
    "takes settings that go before its own",
    Effect.gen(function* () {
      const settings = { max_connections: "37", "holdfast.note": "it's a \\ in\ntwo lines" }
      const { url } = yield* start({ dataDir: yield* usedFolder, settings })
      const rows = yield* query(
        url,
        "SELECT current_setting('max_connections'), current_setting('holdfast.note')"
      )
      assert.deepStrictEqual(rows, [Object.values(settings)])
    })
  )

  test(
    "says what PostgreSQL said when it does not start",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const refused = yield* Effect.flip(start({ dataDir, settings: { port: "1" } }))
      assert.strictEqual(refused.problem, "settings")
      const broken = yield* Effect.flip(
        Effect.scoped(start({ dataDir: yield* usedFolder, settings: { work_mem: "much" } }))
      )
      assert.strictEqual(broken.problem, "start")
      assert.match(broken.reason, /invalid value for parameter "work_mem"/)
    })
  )

  test(
    "refuses data of another PostgreSQL, and leaves them alone",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const version = yield* served(dataDir, ({ dataDirectory }) =>
        Effect.succeed(path.join(dataDirectory, "PG_VERSION"))
      )
      yield* Effect.promise(() => fs.writeFile(version, "17\n"))
      const refused = yield* Effect.flip(Effect.scoped(start({ dataDir })))
      assert.strictEqual(refused.problem, "folder")
      assert.match(refused.reason, /written by PostgreSQL 17/)
    })
  )

  test(
    "refuses a folder that another service serves, and says which",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const owner = yield* startService(dataDir)
      const refused = yield* Effect.flip(Effect.scoped(start({ dataDir })))
      assert.strictEqual(refused.problem, "in_use")
      assert.include(refused.reason, `pid ${owner.pid}:`)
      yield* query(owner.url, "SELECT 1")
      yield* owner.killed
      yield* served(dataDir, () => Effect.void)
    })
  )

  test(
    "refuses a folder that this process serves already",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const { url } = yield* start({ dataDir })
      for (const attempt of ["first", "second"]) {
        const refused = yield* Effect.flip(Effect.scoped(start({ dataDir })))
        assert.strictEqual(refused.problem, "in_use", attempt)
      }
      yield* query(url, "SELECT 1")
    })
  )

  test(
    "takes over the server of a service that was killed with its process group, and stops it in the end",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const before = yield* startService(dataDir)
      const pid = yield* postmasterPid(before.dataDirectory)
      yield* write(before.url)
      yield* before.killed
      yield* query(before.url, "SELECT 1")
      yield* served(dataDir, ({ dataDirectory, url }) =>
        Effect.gen(function* () {
          assert.strictEqual(Redacted.value(url), Redacted.value(before.url))
          assert.strictEqual(yield* postmasterPid(dataDirectory), pid)
          yield* assertKept(url)
        })
      )
      assert.isFalse(yield* isAlive(pid))
    })
  )

  test(
    "replaces a server that was started with other settings",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const before = yield* startService(dataDir)
      yield* write(before.url)
      yield* before.killed
      const { url } = yield* start({ dataDir, settings: { max_connections: "37" } })
      assert.deepStrictEqual(yield* query(url, "SELECT current_setting('max_connections')"), [["37"]])
      yield* assertKept(url)
    })
  )

  test(
    "recovers when service and server were both killed",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const before = yield* startService(dataDir)
      yield* write(before.url)
      yield* before.killed
      yield* signal(yield* postmasterPid(before.dataDirectory), "SIGKILL")
      yield* served(dataDir, ({ url }) => assertKept(url))
    })
  )

  test(
    "is not held up by a stale pid that now is another process of the same account",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const before = yield* startService(dataDir)
      yield* write(before.url)
      yield* before.killed
      yield* signal(yield* postmasterPid(before.dataDirectory), "SIGKILL")
      const { uid } = yield* Effect.promise(() => fs.stat(before.dataDirectory))
      const other = yield* Effect.acquireRelease(
        Effect.sync(() => spawn("sleep", ["60"], { stdio: "ignore", ...(isRoot ? { uid } : {}) })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const note = path.join(before.dataDirectory, "postmaster.pid")
      yield* Effect.promise(async () =>
        fs.writeFile(note, (await fs.readFile(note, "utf8")).replace(/^\d+/, String(other.pid)))
      )
      yield* served(dataDir, ({ url }) => assertKept(url))
      assert.isNull(other.exitCode)
    })
  )

  test(
    "brings a killed server back on the same port, with its data",
    Effect.gen(function* () {
      const { dataDirectory, url } = yield* start({ dataDir: yield* usedFolder })
      yield* write(url)
      const pid = yield* postmasterPid(dataDirectory)
      yield* signal(pid, "SIGKILL")
      yield* until(Effect.map(postmasterPid(dataDirectory), (now) => now !== pid))
      yield* answersAgain(url)
      yield* assertKept(url)
    })
  )

  test(
    "brings a server back that was not its child",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      const before = yield* startService(dataDir)
      yield* write(before.url)
      yield* before.killed
      const { dataDirectory, url } = yield* start({ dataDir })
      const pid = yield* postmasterPid(dataDirectory)
      yield* signal(pid, "SIGKILL")
      yield* until(Effect.map(postmasterPid(dataDirectory), (now) => now !== pid))
      yield* answersAgain(url)
      yield* assertKept(url)
    })
  )

  test(
    "ends a busy backend that outlives its postmaster",
    Effect.gen(function* () {
      const { dataDirectory, url } = yield* start({ dataDir: yield* usedFolder })
      yield* write(url)
      const endless =
        "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b"
      const busy = yield* Effect.forkChild(Effect.exit(query(url, endless)))
      const running = `SELECT pid FROM pg_stat_activity WHERE query = '${endless}' AND state = 'active'`
      yield* until(Effect.map(query(url, running), (rows) => rows.length === 1))
      const [[backend] = []] = yield* query(url, running)
      yield* signal(yield* postmasterPid(dataDirectory), "SIGKILL")
      yield* answersAgain(url)
      yield* assertKept(url)
      assert.isFalse(yield* isAlive(Number(backend)))
      assert.isTrue(Exit.isFailure(yield* Fiber.join(busy)))
    })
  )

  test(
    "cuts its log when that has grown",
    Effect.gen(function* () {
      const dataDir = yield* usedFolder
      yield* served(dataDir, () => Effect.void)
      const log = path.join(dataDir, "postgres/server.log")
      yield* Effect.promise(() => fs.appendFile(log, `${"x".repeat(1023)}\n`.repeat(9 * 1024)))
      yield* start({ dataDir })
      yield* until(
        Effect.map(
          Effect.promise(() => fs.stat(log)),
          ({ size }) => size < 1024 * 1024
        )
      )
      const earlier = yield* Effect.promise(() => fs.stat(`${log}.1`))
      assert.isAbove(earlier.size, 9 * 1024 * 1024)
    })
  )

  testAsRoot(
    "serves root from a folder that no other account can pass to",
    Effect.gen(function* () {
      const hidden = yield* folderWith(0o700)
      const dataDir = path.join(hidden, "project", ".holdfast")
      yield* Effect.addFinalizer(() => Effect.promise(() => removeFolder(dataDir)))
      const directory = yield* served(dataDir, ({ dataDirectory, url }) =>
        Effect.as(write(url), dataDirectory)
      )
      assert.isFalse(directory.startsWith(hidden))
      assert.strictEqual((yield* Effect.promise(() => fs.stat(directory))).mode & 0o777, 0o700)
      yield* served(dataDir, ({ dataDirectory, url }) => {
        assert.strictEqual(dataDirectory, directory)
        return assertKept(url)
      })
    })
  )
})
