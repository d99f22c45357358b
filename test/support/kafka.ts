import { Effect, type Scope } from "effect"
import { Kafka as KafkaClient, logLevel } from "kafkajs"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { hash } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs/promises"
import { connect } from "node:net"
import * as path from "node:path"
import { freePort } from "../../src/layers/embedded/Server.ts"
import { classpathOf, javaMissing } from "./javaServers.ts"
import { makeFolder } from "./Postgres.ts"

/**
 * A real Kafka (one node, KRaft), with its data in a folder that goes with it. Tests that only need a broker share the
 * run's (`kafka` in `shared.ts`); those that stop or freeze one take `ownKafka`.
 */

/** Why tests over Kafka are skipped here, or `undefined`. Under CI they are not. */
export const kafkaMissing: string | undefined = (() => {
  if ((process.env["TEST_KAFKA_BROKERS"] ?? "") !== "") return undefined
  return missingJava()
})()

/** The same for tests that need a server of their own. */
export const ownKafkaMissing: string | undefined = missingJava()

function missingJava(): string | undefined {
  const missing = javaMissing()
  if (missing === undefined || process.env["CI"] === "true") return undefined
  process.stderr.write(`\nSKIPPED: tests over a real Kafka, because ${missing}\n\n`)
  return missing
}

export interface KafkaOptions {
  /** A listener for users by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: `user` with the password `secret`. */
  readonly sasl?: boolean
  /** A listener with TLS, whose certificate is in `certificate`. */
  readonly tls?: boolean
  /** A listener that clients are told to reach by this port, where a proxy listens. */
  readonly advertisedPort?: number
  readonly properties?: Readonly<Record<string, string>>
}

export interface Kafka {
  /** host:port, as in KAFKA_BROKERS. */
  readonly brokers: string
  readonly saslBrokers: string
  readonly tlsBrokers: string
  /** What a proxy behind `advertisedPort` connects to. */
  readonly proxiedPort: number
  readonly certificate: string
}

export interface OwnKafka extends Kafka {
  /** Ends it politely; its data stays. */
  readonly stop: Effect.Effect<void>
  /** As `kill -9`. */
  readonly kill: Effect.Effect<void>
  /** Starts it again, with the same ports and data, and waits until it answers. */
  readonly start: Effect.Effect<void>
  /** As SIGSTOP: connections stay open and nothing answers. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

export const saslUser = { username: "user", password: "canaryOfKafkasOwnUser" }

/** Makes those of these topics that are not there. */
export const makeTopics = (
  brokers: string,
  topics: ReadonlyArray<string>,
  {
    configuration = {},
    partitions = 8
  }: {
    readonly partitions?: number
    readonly configuration?: Readonly<Record<string, string>>
  } = {}
): Effect.Effect<void> =>
  Effect.promise(async () => {
    const admin = new KafkaClient({ brokers: brokers.split(","), logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    const create = () =>
      admin.createTopics({
        topics: topics.map((topic) => ({
          topic,
          numPartitions: partitions,
          replicationFactor: -1,
          configEntries: Object.entries(configuration).map(([name, value]) => ({ name, value }))
        })),
        waitForLeaders: true
      })
    // A topic that was made a moment ago may not be known yet to whoever is asked about its leaders.
    for (let attempt = 1; ; attempt++) {
      const isMade = await create().then(
        () => true,
        (error: unknown) => {
          if (attempt === topicAttemptsMax) throw error
          return false
        }
      )
      if (isMade) break
      await new Promise((resolve) => setTimeout(resolve, topicPauseMs))
    }
    await admin.disconnect()
  })

const topicAttemptsMax = 50
const topicPauseMs = 100
const startMaxMs = 90_000
const stopMaxMs = 15_000
const readyPollMs = 20

/** Starts a server; it is killed when the scope closes, and with the test run however that ends. */
export const ownKafka = (options: KafkaOptions = {}): Effect.Effect<OwnKafka, never, Scope.Scope> =>
  Effect.flatMap(Effect.orDie(freePort), (controller) =>
    makeNode({ id: 1, controllers: [controller] }, options)
  )

/** The same of several servers that are one cluster, each of which is a controller too: most of them must live. */
export const ownCluster = (nodes: number): Effect.Effect<ReadonlyArray<OwnKafka>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const ids = Array.from({ length: nodes }, (_, index) => index + 1)
    const controllers = yield* Effect.forEach(ids, () => Effect.orDie(freePort))
    const replicas = String(nodes)
    const properties = {
      "offsets.topic.replication.factor": replicas,
      "transaction.state.log.replication.factor": replicas,
      "default.replication.factor": replicas,
      // Who has died is out soon.
      "controller.quorum.election.timeout.ms": "500",
      "controller.quorum.fetch.timeout.ms": "1000",
      "replica.lag.time.max.ms": "3000"
    }
    // At once: none listens before most are there.
    return yield* Effect.forEach(ids, (id) => makeNode({ id, controllers }, { properties }), {
      concurrency: "unbounded"
    })
  })

/** A server's place in its cluster. */
interface Place {
  readonly id: number
  /** Of the nodes from 1 on, where their controllers listen. */
  readonly controllers: ReadonlyArray<number>
}

const makeNode = (place: Place, options: KafkaOptions): Effect.Effect<OwnKafka, never, Scope.Scope> =>
  Effect.gen(function* () {
    const classpath = yield* Effect.promise(() => classpathOf("kafka"))
    const folder = yield* Effect.acquireRelease(Effect.promise(makeFolder), (made) =>
      Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
    )
    const [client, sasl, tls, proxied] = yield* Effect.orDie(
      Effect.all([freePort, freePort, freePort, freePort])
    )
    const ports = { client, sasl, tls, proxied }
    const certificate = options.tls === true ? yield* makeCertificate(folder) : ""
    const file = path.join(folder, "server.properties")
    yield* Effect.promise(() => fs.writeFile(file, propertiesOf(folder, ports, place, options)))
    yield* format(classpath, file, place, options)

    let child: ChildProcess | undefined
    const end = (signal: NodeJS.Signals) =>
      Effect.promise(async () => {
        const ending = child
        child = undefined
        if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return
        const ended = once(ending, "exit")
        // A frozen process takes no other signal.
        ending.kill("SIGCONT")
        ending.kill(signal)
        const impatience = setTimeout(() => ending.kill("SIGKILL"), stopMaxMs)
        await ended
        clearTimeout(impatience)
      })
    const log = path.join(folder, "server.log")
    const start = Effect.gen(function* () {
      child = yield* Effect.promise(() => startJava(classpath, ["kafka.Kafka", file], log))
      yield* awaitListening(child, client, log)
    })
    yield* Effect.acquireRelease(start, () => end("SIGKILL"))
    return {
      brokers: `127.0.0.1:${client}`,
      saslBrokers: `127.0.0.1:${sasl}`,
      tlsBrokers: `localhost:${tls}`,
      proxiedPort: proxied,
      certificate,
      stop: end("SIGTERM"),
      kill: end("SIGKILL"),
      start,
      freeze: Effect.sync(() => void child?.kill("SIGSTOP")),
      thaw: Effect.sync(() => void child?.kill("SIGCONT"))
    }
  })

const propertiesOf = (
  folder: string,
  ports: Readonly<Record<"client" | "sasl" | "tls" | "proxied", number>>,
  { controllers, id }: Place,
  options: KafkaOptions
): string => {
  const listeners = [
    { name: "CLIENT", port: ports.client, protocol: "PLAINTEXT", advertised: ports.client },
    ...(options.sasl === true
      ? [{ name: "USERS", port: ports.sasl, protocol: "SASL_PLAINTEXT", advertised: ports.sasl }]
      : []),
    ...(options.tls === true
      ? [{ name: "TLS", port: ports.tls, protocol: "SSL", advertised: ports.tls, host: "localhost" }]
      : []),
    ...(options.advertisedPort === undefined
      ? []
      : [
          {
            name: "PROXIED",
            port: ports.proxied,
            protocol: "PLAINTEXT",
            advertised: options.advertisedPort
          }
        ])
  ]
  const controller = { name: "CONTROLLER", port: controllers[id - 1]!, protocol: "PLAINTEXT" }
  const properties: Record<string, string> = {
    "process.roles": "broker,controller",
    "node.id": String(id),
    "controller.quorum.voters": controllers.map((port, index) => `${index + 1}@127.0.0.1:${port}`).join(),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENT",
    listeners: [...listeners, controller].map(({ name, port }) => `${name}://127.0.0.1:${port}`).join(),
    "advertised.listeners": listeners
      .map(
        ({ advertised, name, ...rest }) =>
          `${name}://${"host" in rest ? rest.host : "127.0.0.1"}:${advertised}`
      )
      .join(),
    "listener.security.protocol.map": [...listeners, controller]
      .map(({ name, protocol }) => `${name}:${protocol}`)
      .join(),
    "log.dirs": path.join(folder, "data"),
    // A broker that makes what is asked for would hide that we must not rely on it.
    "auto.create.topics.enable": "false",
    "num.partitions": "8",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    // A server that was killed is let in again when its last session has ended.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    // Tests have sessions that end soon.
    "group.min.session.timeout.ms": "500",
    // Small: the defaults take hundreds of megabytes and dozens of threads.
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.index.size.max.bytes": "65536",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "num.replica.fetchers": "1",
    "background.threads": "2",
    ...options.properties
  }
  if (options.sasl === true) {
    properties["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
    const { password, username } = saslUser
    properties["listener.name.users.plain.sasl.jaas.config"] =
      `${login("plain")} user_${username}="${password}";`
    for (const mechanism of ["scram-sha-256", "scram-sha-512"]) {
      properties[`listener.name.users.${mechanism}.sasl.jaas.config`] = `${login("scram")};`
    }
  }
  if (options.tls === true) {
    properties["listener.name.tls.ssl.keystore.location"] = path.join(folder, keystoreName)
    properties["listener.name.tls.ssl.keystore.password"] = keystorePassword
  }
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("")
}

const login = (mechanism: "plain" | "scram") =>
  `org.apache.kafka.common.security.${mechanism}.${mechanism === "plain" ? "Plain" : "Scram"}LoginModule required`

const keystoreName = "keys.p12"
const keystorePassword = "changeit"

/** A key and a certificate signed by itself; answers with the certificate. */
const makeCertificate = (folder: string): Effect.Effect<string> =>
  Effect.sync(() => {
    const store = ["-keystore", path.join(folder, keystoreName), "-storepass", keystorePassword]
    const subject = "-dname CN=localhost -ext SAN=dns:localhost,ip:127.0.0.1 -validity 30"
    const made = spawnSync("keytool", [
      ...`-genkeypair -alias kafka -keyalg EC -storetype PKCS12 ${subject}`.split(" "),
      ...store
    ])
    if (made.status !== 0) throw new Error(`keytool: ${String(made.stderr)}${String(made.stdout)}`)
    return String(spawnSync("keytool", ["-exportcert", "-rfc", "-alias", "kafka", ...store]).stdout)
  })

const format = (
  classpath: string,
  file: string,
  { controllers }: Place,
  options: KafkaOptions
): Effect.Effect<void> =>
  Effect.promise(async () => {
    const { password, username } = saslUser
    const users =
      options.sasl === true
        ? ["SCRAM-SHA-256", "SCRAM-SHA-512"].flatMap((mechanism) => [
            "--add-scram",
            `${mechanism}=[name=${username},password=${password}]`
          ])
        : []
    // The cluster's: the same for all of its nodes. One that began with a hyphen would be taken for an option.
    const id = `A${hash("sha256", controllers.join(), "base64url").slice(1, 22)}`
    const child = spawn(
      "java",
      [...jvm, "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", id, "-c", file, ...users],
      { stdio: ["ignore", "pipe", "pipe"] }
    )
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)))
    const [code] = (await once(child, "close")) as [number | null]
    if (code !== 0) throw new Error(`Kafka's folder could not be formatted:\n${output}`)
  })

/** Quick to start rather than fast for long. */
const jvm = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]

/** A command that ends what it starts when the test run dies. */
const wrapper: ReadonlyArray<string> = (() => {
  const command = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"]
  return process.platform === "linux" &&
    spawnSync(command[0]!, [...command.slice(1), "/bin/true"]).status === 0
    ? command
    : []
})()

/** A server in Java; what it says goes to the end of the file. */
export const startJava = async (
  classpath: string,
  parameters: ReadonlyArray<string>,
  log: string
): Promise<ChildProcess> => {
  const [command, ...rest] = [...wrapper, "java", ...jvm, "-cp", classpath, ...parameters]
  const output = await fs.open(log, "a")
  const child = spawn(command!, rest, {
    stdio: ["ignore", output.fd, output.fd],
    // Ctrl-C in the terminal must not take it before the tests.
    detached: true
  })
  child.unref()
  await output.close()
  return child
}

/** The listener for clients opens last. By the machine's clock, so that tests under a TestClock can have a server too. */
const awaitListening = (child: ChildProcess, port: number, log: string): Effect.Effect<void> =>
  Effect.promise(async () => {
    const giveUpAt = Date.now() + startMaxMs
    for (;;) {
      const ended = child.exitCode !== null || child.signalCode !== null
      if (!ended && (await isListening(port))) return
      if (ended || Date.now() > giveUpAt) {
        throw new Error(`Kafka does not listen:\n${(await fs.readFile(log, "utf8")).slice(-4_000)}`)
      }
      await new Promise((resolve) => setTimeout(resolve, readyPollMs))
    }
  })

const isListening = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port })
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })
