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

/** Starts a connector and waits until it runs; it ends with the scope, and with the test run however that ends. */
export const debezium = (options: DebeziumOptions): Effect.Effect<Debezium, never, Scope.Scope> =>
  Effect.gen(function* () {
    const classpath = yield* Effect.promise(() => classpathOf("debezium"))
    const { url } = yield* emptyDatabase
    const sql = yield* connect(url)
    for (const statement of [...sellerTables, ...(options.rows ?? [])]) yield* sql.run(statement)
    yield* makeTopics(
      options.brokers,
      sellerTopics.map((topic) => `${options.prefix ?? ""}${topic}`)
    )
    const folder = yield* Effect.acquireRelease(Effect.promise(makeFolder), (made) =>
      Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
    )
    // A database with a slot cannot be dropped, nor a slot while somebody reads it.
    yield* Effect.addFinalizer(() => dropSlot(sql))
    const port = yield* Effect.orDie(freePort)
    const files = yield* Effect.promise(() => writeSettings(folder, port, url, options))
    const log = path.join(folder, "connect.log")
    const child = yield* Effect.acquireRelease(
      Effect.promise(() =>
        startJava(classpath, ["org.apache.kafka.connect.cli.ConnectStandalone", ...files], log)
      ),
      (started) =>
        Effect.promise(async () => {
          if (started.exitCode !== null || started.signalCode !== null) return
          const ended = new Promise((resolve) => started.once("exit", resolve))
          started.kill("SIGKILL")
          await ended
        })
    )
    yield* Effect.promise(async () => {
      const giveUpAt = Date.now() + startMaxMs
      while (!(await isRunning(port))) {
        if (child.exitCode !== null || child.signalCode !== null || Date.now() > giveUpAt) {
          throw new Error(`Debezium does not run:\n${await errorsOf(log)}`)
        }
        await new Promise((resolve) => setTimeout(resolve, pollMs))
      }
    })
    return { sql }
  })

/** What the connector sends to, before the prefix. */
export const sellerTopics = ["nx.seller.public.product_variant", "nx.seller.public.merchant"] as const

const connectorName = "seller"
const slotName = "debezium"

const writeSettings = async (
  folder: string,
  port: number,
  url: Redacted.Redacted<string>,
  options: DebeziumOptions
): Promise<ReadonlyArray<string>> => {
  const database = new URL(Redacted.value(url))
  const schemas = String(options.schemas ?? false)
  const worker = {
    "bootstrap.servers": options.brokers,
    listeners: `http://127.0.0.1:${port}`,
    "plugin.discovery": "service_load",
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": schemas,
    "value.converter.schemas.enable": schemas,
    "topic.creation.enable": "false",
    "offset.storage.file.filename": path.join(folder, "offsets"),
    "offset.flush.interval.ms": "1000"
  }
  const connector = {
    name: connectorName,
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "plugin.name": "pgoutput",
    "database.hostname": database.hostname.replace(/^\[|\]$/g, ""),
    "database.port": database.port,
    "database.user": decodeURIComponent(database.username),
    "database.password": decodeURIComponent(database.password),
    "database.dbname": database.pathname.slice(1),
    "topic.prefix": `${options.prefix ?? ""}nx.seller`,
    "table.include.list": "public.product_variant,public.merchant",
    "publication.autocreate.mode": "filtered",
    // Slots are the server's, not the database's: two tests at once have two.
    "slot.name": `${slotName}_${database.pathname.slice(1)}`,
    "snapshot.mode": "initial",
    "poll.interval.ms": "50",
    ...options.connector
  }
  const files = [path.join(folder, "worker.properties"), path.join(folder, "connector.properties")]
  for (const [index, settings] of [worker, connector].entries()) {
    const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`)
    await fs.writeFile(files[index]!, lines.join(""))
  }
  return files
}

/** Connector and task: a task that failed would leave the test waiting for nothing. */
const isRunning = async (port: number): Promise<boolean> => {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/connectors/${connectorName}/status`)
    if (!answer.ok) return false
    const { connector, tasks } = (await answer.json()) as {
      readonly connector: { readonly state: string }
      readonly tasks: ReadonlyArray<{ readonly state: string; readonly trace?: string }>
    }
    const failed = tasks.find(({ state }) => state === "FAILED")
    if (failed !== undefined) throw new Error(`Debezium's task failed: ${failed.trace ?? ""}`)
    return (
      connector.state === "RUNNING" && tasks.length > 0 && tasks.every(({ state }) => state === "RUNNING")
    )
  } catch (error) {
    if (error instanceof TypeError) return false // nobody listens yet
    throw error
  }
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
