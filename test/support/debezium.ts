import { Effect, Redacted, type Scope } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { freePort } from "../../src/layers/embedded/Server.ts"
import { classpathOf } from "./javaServers.ts"
import { makeTopics, startJava } from "./kafka.ts"
import { type Sql, connect } from "./ledger.ts"
import { emptyDatabase, makeFolder } from "./Postgres.ts"

/**
 * The database of another service with a real Debezium connector on it, as the nx suite has: what is written to its
 * tables arrives in Kafka. Its PostgreSQL needs wal_level=logical, which that of the tests has.
 */

export interface DebeziumOptions {
  /** host:port of the Kafka that changes go to. */
  readonly brokers: string
  /** Put before the names of the topics, as with TOPIC_PREFIX. */
  readonly prefix?: string
  /** Statements that are run before the connector is there: their rows arrive as a snapshot. */
  readonly rows?: ReadonlyArray<string>
  /** Whether each record says its schema, as JsonConverter does unless it is told not to. */
  readonly schemas?: boolean
  /** Settings of the connector that go before ours. */
  readonly connector?: Readonly<Record<string, string>>
}

export interface Debezium {
  /** The database whose changes arrive. */
  readonly sql: Sql
}

/** The columns that CONTRACTS section 5 names, and some that nobody knows. */
const sellerTables: ReadonlyArray<string> = [
  "CREATE TABLE merchant (id text PRIMARY KEY, name text)",
  `CREATE TABLE product_variant (
    id text PRIMARY KEY, merchant_id text NOT NULL, sku text, status text, price numeric(12, 2), title text)`
]

const startMaxMs = 90_000
const pollMs = 50

/** Kafka Connect in a process of its own, which runs the connectors that it is given. */
export interface ConnectWorker {
  /** Its REST interface. */
  readonly url: string
  /** The file with what it says. */
  readonly log: string
}

/** Starts a worker and waits until it takes connectors; it ends with the scope, and with the test run however that ends. */
export const startConnect = (brokers: string): Effect.Effect<ConnectWorker, never, Scope.Scope> =>
  Effect.gen(function* () {
    const classpath = yield* Effect.promise(() => classpathOf("debezium"))
    const folder = yield* Effect.acquireRelease(Effect.promise(makeFolder), (made) =>
      Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
    )
    const port = yield* Effect.orDie(freePort)
    const worker = { url: `http://127.0.0.1:${port}`, log: path.join(folder, "connect.log") }
    const settings = path.join(folder, "worker.properties")
    yield* Effect.promise(() =>
      fs.writeFile(
        settings,
        Object.entries({
          "bootstrap.servers": brokers,
          listeners: worker.url,
          "plugin.discovery": "service_load",
          "key.converter": "org.apache.kafka.connect.json.JsonConverter",
          "value.converter": "org.apache.kafka.connect.json.JsonConverter",
          "topic.creation.enable": "false",
          "offset.storage.file.filename": path.join(folder, "offsets"),
          "offset.flush.interval.ms": "1000"
        })
          .map(([name, value]) => `${name}=${value}\n`)
          .join("")
      )
    )
    const child = yield* Effect.acquireRelease(
      Effect.promise(() =>
        startJava(classpath, ["org.apache.kafka.connect.cli.ConnectStandalone", settings], worker.log)
      ),
      (started) =>
        Effect.promise(async () => {
          if (started.exitCode !== null || started.signalCode !== null) return
          const ended = new Promise((resolve) => started.once("exit", resolve))
          started.kill("SIGKILL")
          await ended
        })
    )
    yield* until(worker, async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error("it ended")
      return (await fetch(`${worker.url}/connectors`)).ok
    })
    return worker
  })

/** Puts a connector into the worker and waits until it runs; it ends with the scope. */
export const debezium = (
  worker: ConnectWorker,
  options: DebeziumOptions
): Effect.Effect<Debezium, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { url } = yield* emptyDatabase
    const sql = yield* connect(url)
    for (const statement of [...sellerTables, ...(options.rows ?? [])]) yield* sql.run(statement)
    yield* makeTopics(
      options.brokers,
      sellerTopics.map((topic) => `${options.prefix ?? ""}${topic}`)
    )
    // A database with a slot cannot be dropped, nor a slot while somebody reads it.
    yield* Effect.addFinalizer(() => dropSlot(sql))
    const { name, ...settings } = settingsOf(url, options)
    const connector = `${worker.url}/connectors/${name}`
    yield* Effect.acquireRelease(
      Effect.promise(() => ask("PUT", `${connector}/config`, settings)),
      () => Effect.promise(() => ask("DELETE", connector))
    )
    yield* until(worker, () => isRunning(connector))
    return { sql }
  })

const ask = async (method: string, url: string, body?: object): Promise<void> => {
  const answer = await fetch(url, {
    method,
    headers: { "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  if (!answer.ok) throw new Error(`Kafka Connect refuses ${method} ${url}: ${await answer.text()}`)
}

/** By the machine's clock, so that tests under a TestClock can have a connector too. */
const until = ({ log }: ConnectWorker, holds: () => Promise<boolean>): Effect.Effect<void> =>
  Effect.promise(async () => {
    const giveUpAt = Date.now() + startMaxMs
    for (;;) {
      try {
        if (await holds()) return
        if (Date.now() > giveUpAt) throw new Error("it takes too long")
      } catch (error) {
        // A TypeError: nobody listens yet.
        if (!(error instanceof TypeError) || Date.now() > giveUpAt) {
          throw new Error(`Debezium does not run:\n${await errorsOf(log)}`, { cause: error })
        }
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
  })

/** What the connector sends to, before the prefix. */
export const sellerTopics = ["nx.seller.public.product_variant", "nx.seller.public.merchant"] as const

/** Names and slots are the server's, not the database's: two tests at once have two. */
const settingsOf = (url: Redacted.Redacted<string>, options: DebeziumOptions) => {
  const database = new URL(Redacted.value(url))
  const own = `seller_${database.pathname.slice(1)}`
  const schemas = String(options.schemas ?? false)
  return {
    name: own,
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": schemas,
    "value.converter.schemas.enable": schemas,
    "plugin.name": "pgoutput",
    "database.hostname": database.hostname.replace(/^\[|\]$/g, ""),
    "database.port": database.port,
    "database.user": decodeURIComponent(database.username),
    "database.password": decodeURIComponent(database.password),
    "database.dbname": database.pathname.slice(1),
    "topic.prefix": `${options.prefix ?? ""}nx.seller`,
    "table.include.list": "public.product_variant,public.merchant",
    "publication.autocreate.mode": "filtered",
    "slot.name": own,
    "snapshot.mode": "initial",
    "poll.interval.ms": "50",
    ...options.connector
  }
}

/** Connector and task: a task that failed would leave the test waiting for nothing. */
const isRunning = async (connector: string): Promise<boolean> => {
  const answer = await fetch(`${connector}/status`)
  if (!answer.ok) return false
  const { connector: itself, tasks } = (await answer.json()) as {
    readonly connector: { readonly state: string }
    readonly tasks: ReadonlyArray<{ readonly state: string; readonly trace?: string }>
  }
  const failed = tasks.find(({ state }) => state === "FAILED")
  if (failed !== undefined) throw new Error(`Debezium's task failed: ${failed.trace ?? ""}`)
  return itself.state === "RUNNING" && tasks.length > 0 && tasks.every(({ state }) => state === "RUNNING")
}

const dropSlot = (sql: Sql): Effect.Effect<void> =>
  sql
    .run<{ left: number }>(
      `WITH gone AS (
         SELECT pg_drop_replication_slot(slot_name)::text
         FROM pg_replication_slots
         WHERE database = current_database() AND NOT active
       ), dropped AS (SELECT count(*) AS count FROM gone)
       SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) - dropped.count AS left
       FROM dropped`
    )
    .pipe(Effect.repeat({ until: ([row]) => row!.left === 0 }), Effect.asVoid)

/** Why it ended is said long before its last words. */
const errorsOf = async (log: string): Promise<string> => {
  const text = await fs.readFile(log, "utf8")
  const errors = text.split("\n").filter((line) => / ERROR |Exception|Caused by/.test(line))
  return (errors.length === 0 ? text : errors.join("\n")).slice(0, 6_000)
}
