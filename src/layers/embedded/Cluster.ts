import { PgConnection } from "@effect/sql-pg"
import { Effect, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { type Account, run } from "./Account.ts"
import { type Binaries } from "./Binaries.ts"
import { type EmbeddedPostgresError, exists, failure, onFiles, readOptional } from "./Files.ts"

/** What PostgreSQL calls a cluster: its directory with role, password and database in it, and its configuration. */

export const roleName = "holdfast"
export const databaseName = "holdfast"
const connectBoundMs = 10_000

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

/** The cluster in `home`, made if there is none; it appears whole, with its password, or not at all. */
export const openCluster = Effect.fnUntraced(function* (
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
export const configurationName = "holdfast.conf"

export const configurationOf = Effect.fnUntraced(function* (
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

export const ensureDatabase = (url: Redacted.Redacted<string>): Effect.Effect<void, EmbeddedPostgresError> =>
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
