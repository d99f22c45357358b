import { Clock, Effect, Redacted, type Scope } from "effect"
import { type Socket, connect as connectTcp, isIP } from "node:net"
import { connect as connectTls } from "node:tls"
import { BrokerUnavailable } from "../../services/messaging/Broker.ts"
import {
  type Api,
  type ConnectionPool,
  type KafkaNode,
  type WireLogger,
  codes,
  errorTypeOf,
  isLoginRefused,
  makeConnectionPool,
  makeNode,
  requestOf,
  wireLogger
} from "./Protocol.ts"

/**
 * Connections to a cluster, for one purpose each: whoever waits for an answer of the broker holds up all that comes
 * behind on the same connection. Every request has a bound of time; where it passes, or anything else goes wrong, the
 * connection is thrown away and the next request makes a new one. So a connection that has gone silent costs one bound.
 */

export interface KafkaOptions {
  /** host:port of brokers to begin with. */
  readonly brokers: ReadonlyArray<string>
  readonly sasl?: {
    readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512"
    readonly username: string
    readonly password: Redacted.Redacted<string>
  }
  /** TLS, verified by the system's certificates and those of NODE_EXTRA_CA_CERTS, or by these. */
  readonly tls?: { readonly ca?: string }
  /** The bound of every request but those that wait by their nature. */
  readonly requestTimeoutMs?: number
  /** For tests: how a connection is made. */
  readonly dial?: (address: { readonly host: string; readonly port: number }) => Socket
}

export const requestTimeoutMs = 5_000
const clientId = "holdfast"
/** Below the idle time-outs of common load balancers. */
const keepAliveMs = 30_000

/** A topic as the cluster knows it. */
export interface TopicView {
  readonly code: number
  /** The node that leads each partition; -1 where none does now. */
  readonly leaders: ReadonlyArray<number>
}

export interface Client {
  /** Asks one node, by its id. */
  readonly ask: <A>(
    node: number,
    api: Api,
    parameters: object,
    timeoutMs?: number
  ) => Effect.Effect<A, BrokerUnavailable>
  /** Asks any node. */
  readonly askAny: <A>(
    api: Api,
    parameters: object,
    timeoutMs?: number
  ) => Effect.Effect<A, BrokerUnavailable>
  /** What the cluster says of these topics now; it is remembered. */
  readonly refresh: (
    topics: ReadonlyArray<string>,
    timeoutMs?: number
  ) => Effect.Effect<ReadonlyMap<string, TopicView>, BrokerUnavailable>
  /** What is remembered. */
  readonly topics: ReadonlyMap<string, TopicView>
  readonly controller: () => number
  readonly nodeCount: () => number
}

interface Link {
  readonly pool: ConnectionPool
  readonly node: KafkaNode
  readonly sockets: Set<Socket>
  /** Connected for the first time, and the broker's versions known. Later the pool connects again by itself. */
  opened: Promise<void> | undefined
}

interface Metadata {
  readonly brokers: ReadonlyArray<{ readonly nodeId: number; readonly host: string; readonly port: number }>
  readonly controllerId: number
  readonly topicMetadata: ReadonlyArray<{
    readonly topic: string
    readonly topicErrorCode: number
    readonly partitionMetadata: ReadonlyArray<{
      readonly partitionErrorCode: number
      readonly partitionId: number
      readonly leader: number
    }>
  }>
}

const failed = (cause: unknown) =>
  new BrokerUnavailable({ cause, ...(isLoginRefused(cause) ? { denied: true } : {}) })
export const unavailable = (reason: string) => new BrokerUnavailable({ cause: new Error(reason) })
export const refusedWith = (code: number, what: string) => unavailable(`${what}: ${errorTypeOf(code)}`)

export const makeClient: (options: KafkaOptions) => Effect.Effect<Client, never, Scope.Scope> =
  Effect.fnUntraced(function* (options) {
    const logger = yield* effectLogger
    const boundMs = options.requestTimeoutMs ?? requestTimeoutMs
    const links = new Map<string, Link>()
    const nodes = new Map<number, string>()
    const topics = new Map<string, TopicView>()
    let controller = -1
    let seed = 0
    const drop = (address: string, link: Link | undefined): void => {
      if (link === undefined) return
      if (links.get(address) === link) links.delete(address)
      destroy(link)
    }
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const [address, link] of links) drop(address, link)
      })
    )

    const askAt = <A>(address: string, api: Api, parameters: object, timeoutMs = boundMs) =>
      Effect.suspend(() => {
        let link = links.get(address)
        if (link === undefined) links.set(address, (link = makeLink(address, options, logger, boundMs)))
        const { node, pool } = link
        return Effect.tryPromise({
          try: async () => {
            await (link.opened ??= node.connect())
            const { decode, request } = requestOf(node.versions, api, parameters)
            const bytes = await pool.send(request)
            return () => decode(bytes) as Promise<A>
          },
          catch: failed
        }).pipe(
          Effect.timeoutOrElse({
            duration: timeoutMs,
            orElse: () => Effect.fail(unavailable(`${address} does not answer ${api} in ${timeoutMs} ms`))
          }),
          Effect.tapError(() => Effect.sync(() => drop(address, link))),
          Effect.flatMap((decode) => Effect.tryPromise({ try: decode, catch: failed }))
        )
      })

    const ask: Client["ask"] = (node, api, parameters, timeoutMs) =>
      Effect.suspend(() => {
        const address = nodes.get(node)
        return address === undefined
          ? Effect.fail(unavailable(`the cluster has no node ${node}`))
          : askAt(address, api, parameters, timeoutMs)
      })

    /** Whoever answered last is asked first; then those of the configuration in turn, as all others may be gone. */
    const askAny = <A>(api: Api, parameters: object, timeoutMs?: number) =>
      Effect.suspend(() => {
        const connected = [...links].filter(([, { node }]) => node.isConnected()).map(([address]) => address)
        const begin = seed++ % options.brokers.length
        const inTurn = [...options.brokers.slice(begin), ...options.brokers.slice(0, begin)]
        const candidates = [...new Set([...connected.slice(0, 1), ...inTurn, ...nodes.values()])]
        return candidates
          .slice(1)
          .reduce(
            (asked, address) => Effect.catch(asked, () => askAt<A>(address, api, parameters, timeoutMs)),
            askAt<A>(candidates[0]!, api, parameters, timeoutMs)
          )
      })

    const refresh: Client["refresh"] = (names, timeoutMs) =>
      Effect.map(
        askAny<Metadata>("Metadata", { topics: [...names], allowAutoTopicCreation: false }, timeoutMs),
        ({ brokers, controllerId, topicMetadata }) => {
          nodes.clear()
          for (const { host, nodeId, port } of brokers) nodes.set(nodeId, `${host}:${port}`)
          controller = controllerId
          for (const { partitionMetadata, topic, topicErrorCode } of topicMetadata) {
            const leaders: Array<number> = []
            for (const { leader, partitionId } of partitionMetadata) leaders[partitionId] = leader
            topics.set(topic, {
              code: topicErrorCode,
              leaders: Array.from(leaders, (leader) => leader ?? -1)
            })
          }
          return topics
        }
      )
    return {
      ask,
      askAny,
      refresh,
      topics,
      controller: () => controller,
      nodeCount: () => nodes.size
    } satisfies Client
  })

const makeLink = (address: string, options: KafkaOptions, logger: WireLogger, boundMs: number): Link => {
  const at = address.lastIndexOf(":")
  const host = address.slice(0, at).replace(/^\[|\]$/g, "")
  const port = Number(address.slice(at + 1))
  const sockets = new Set<Socket>()
  const { sasl, tls } = options
  const pool = makeConnectionPool({
    host,
    port,
    ssl: tls ?? null,
    sasl: sasl === undefined ? null : { ...sasl, password: Redacted.value(sasl.password) },
    clientId,
    connectionTimeout: boundMs,
    // The bounds are ours: kafkajs would leave the connection as it is.
    enforceRequestTimeout: false,
    logger,
    socketFactory: ({ onConnect }) => {
      const socket = dial(host, port, options, onConnect)
      sockets.add(socket)
      socket.setKeepAlive(true, keepAliveMs)
      socket.setNoDelay(true)
      socket.once("close", () => sockets.delete(socket))
      return socket
    }
  })
  return { pool, node: makeNode({ connectionPool: pool, logger }), sockets, opened: undefined }
}

const dial = (
  host: string,
  port: number,
  { dial: given, tls }: KafkaOptions,
  onConnect: () => void
): Socket => {
  if (tls !== undefined) {
    const name = isIP(host) === 0 ? { servername: host } : {}
    return connectTls({ host, port, ...name, ...tls }, onConnect)
  }
  if (given === undefined) return connectTcp({ host, port }, onConnect)
  return given({ host, port }).once("connect", onConnect)
}

/** At once, and without a word to the broker: it may be what does not listen. */
const destroy = ({ pool, sockets }: Link): void => {
  for (const connection of pool.pool) {
    connection.rejectRequests(new Error("the connection was given up"))
    connection.requestQueue.destroy()
  }
  for (const socket of sockets) socket.destroy()
}

/** kafkajs' words go where ours go, for whoever looks closely: it says each failed attempt, and we what that means. */
const effectLogger = Effect.map(Effect.context<never>(), (context) =>
  wireLogger((_, message, { stack: __, ...details }: { readonly stack?: unknown }) => {
    Effect.runForkWith(context)(Effect.logDebug(`kafkajs: ${message}`, details))
  })
)

const coordinatorPauseMs = 100

/** The node that coordinates a group. A new cluster needs a moment to make its offsets topic. */
export const findCoordinator = Effect.fnUntraced(function* (client: Client, group: string, boundMs: number) {
  const giveUpAt = (yield* Clock.currentTimeMillis) + boundMs
  for (;;) {
    const { coordinator, errorCode } = yield* client.askAny<{
      readonly errorCode: number
      readonly coordinator: { readonly nodeId: number }
    }>("GroupCoordinator", { groupId: group })
    if (errorCode === codes.none) {
      yield* client.refresh([...client.topics.keys(), offsetsTopic])
      return coordinator.nodeId
    }
    if ((yield* Clock.currentTimeMillis) >= giveUpAt) return yield* refusedWith(errorCode, `group ${group}`)
    yield* Effect.sleep(coordinatorPauseMs)
  }
})

/** A topic that every cluster has: asking for none asks for all. */
export const offsetsTopic = "__consumer_offsets"
