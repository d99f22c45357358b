import { Effect, Redacted, type Scope } from "effect"
import kafkajs, {
  type Admin,
  type Consumer,
  type ISocketFactory,
  type Kafka,
  type RetryOptions
} from "kafkajs"
import { type Socket, connect as connectTcp, isIP } from "node:net"
import { connect as connectTls } from "node:tls"
import { BrokerUnavailable } from "../../services/messaging/Broker.ts"

/** Clients of kafkajs that can be thrown away with their connections, which it cannot do itself. */

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
/** Below the idle time-outs of common load balancers. */
const keepAliveMs = 30_000

export interface Client {
  readonly kafka: Kafka
  /** Ends its connections without a word to the broker, which may not listen. It makes new ones. */
  readonly cut: () => void
  /** The same for good. */
  readonly close: () => void
}

/** kafkajs sets timers to times gone by, of which Node.js warns once in the life of a process: here, unheard. */
const warnUnheard = (): void => {
  const { emitWarning } = process
  process.emitWarning = () => undefined
  clearTimeout(setTimeout(() => undefined, -1))
  process.emitWarning = emitWarning
}

/**
 * A consumer that is stopped while it makes its fetchers anew, because a broker has gone or come, fetches nothing for ever
 * after, without a turn of the event loop: the whole process stands still. It says so first, at the level that
 * `endsItsFetchers` sets, and an error at that point ends the fetcher.
 */
const endFetching = (message: string): void => {
  if (message === "consumer not running, exiting") throw new Error("the consumer is stopped")
}
/** Before a consumer is stopped. */
export const endsItsFetchers = (consumer: Consumer): void =>
  consumer.logger().setLogLevel(kafkajs.logLevel.DEBUG)

/** Of kafkajs' own: whoever asks is told soon. */
const attempts: RetryOptions = { initialRetryTime: 50, maxRetryTime: 500, retries: 2 }

export const openClient = (options: KafkaOptions, retry = attempts): Effect.Effect<Client> =>
  Effect.map(Effect.context<never>(), (context) => {
    warnUnheard()
    const { sasl, tls } = options
    const boundMs = options.requestTimeoutMs ?? requestTimeoutMs
    const { brokers, literals } = namesOf(options.brokers)
    const sockets = new Set<Socket>()
    let closed = false
    const socketFactory: ISocketFactory = ({ host, onConnect, port }) => {
      if (closed) throw new Error("the client was given up")
      const socket = dial(literals.get(host) ?? host, port, options, onConnect)
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
      return socket.setKeepAlive(true, keepAliveMs).setNoDelay(true)
    }
    const kafka = new kafkajs.Kafka({
      brokers,
      clientId: "holdfast",
      connectionTimeout: boundMs,
      authenticationTimeout: boundMs,
      requestTimeout: boundMs,
      retry,
      ...(tls === undefined ? {} : { ssl: tls }),
      ...(sasl === undefined ? {} : { sasl: { ...sasl, password: Redacted.value(sasl.password) } as never }),
      socketFactory,
      logLevel: kafkajs.logLevel.WARN,
      // It logs each failed attempt as an error: what a failure means is logged by whoever meets it.
      logCreator:
        () =>
        ({ level, log: { message, stack: _, ...details } }) => {
          if (level === kafkajs.logLevel.DEBUG) return endFetching(message)
          Effect.runForkWith(context)(Effect.logDebug(`kafkajs: ${message}`, details))
        }
    })
    const cut = () => {
      // Without an error kafkajs would not notice.
      for (const socket of sockets) socket.destroy(new Error("the connection was given up"))
    }
    return {
      kafka,
      cut,
      close: () => {
        closed = true
        cut()
      }
    }
  })

/** kafkajs cuts an address at its first colon: an IPv6 address goes by a name that only `dial` knows. */
const namesOf = (addresses: ReadonlyArray<string>) => {
  const literals = new Map<string, string>()
  const brokers = addresses.map((address, index) => {
    const [, host, port] = /^\[(.+)\]:(\d+)$/.exec(address) ?? []
    if (host === undefined) return address
    literals.set(`ipv6-${index}`, host)
    return `ipv6-${index}:${port}`
  })
  return { brokers, literals }
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

/** Asks a producer or an admin; the failure's cause is what kafkajs threw, or that the time is over. */
export type Ask<A> = <B>(
  question: (client: A) => Promise<B>,
  withinMs?: number
) => Effect.Effect<B, BrokerUnavailable>

/**
 * A client that is connected when it is first asked. Where the broker does not answer, it is thrown away with its
 * connections, and the next question has a new one: a connection that has gone silent costs one bound.
 */
export const connected = Effect.fnUntraced(function* <A extends Pick<Admin, "connect">>(
  options: KafkaOptions,
  make: (kafka: Kafka) => A
): Effect.fn.Return<Ask<A>, never, Scope.Scope> {
  let current: { readonly client: Client; readonly ready: Promise<A> } | undefined
  const discard = (given = current) => {
    given?.client.close()
    if (current === given) current = undefined
  }
  yield* Effect.addFinalizer(() => Effect.sync(discard))
  return (question, withinMs = options.requestTimeoutMs ?? requestTimeoutMs) =>
    Effect.gen(function* () {
      if (current === undefined) {
        const client = yield* openClient(options)
        const made = make(client.kafka)
        current = { client, ready: made.connect().then(() => made) }
      }
      const asked = current
      return yield* Effect.tryPromise({
        try: () => asked.ready.then(question),
        catch: unavailable
      }).pipe(
        Effect.timeoutOrElse({
          duration: withinMs,
          orElse: () => Effect.fail(unavailable(new Error(`Kafka does not answer within ${withinMs} ms`)))
        }),
        // An answer that is an error came from a broker that is there. A topic that is gone would fail all others too.
        Effect.tapError(({ cause }) =>
          Effect.sync(() => {
            const type = errorTypeOf(cause)
            if (type === undefined || type === unknownTopic) discard(asked)
          })
        )
      )
    })
})

export const unknownTopic = "UNKNOWN_TOPIC_OR_PARTITION"

/** kafkajs wraps what it met, sometimes more than once. */
const causesOf = (error: unknown): ReadonlyArray<{ readonly name?: string; readonly type?: string }> => {
  const causes: Array<object> = []
  for (let at = error; typeof at === "object" && at !== null; at = (at as { cause?: unknown }).cause)
    causes.push(at)
  return causes
}

/** Kafka's name for what it answered, if it answered. */
export const errorTypeOf = (error: unknown): string | undefined =>
  causesOf(error).find(({ type }) => type !== undefined)?.type

export const unavailable = (cause: unknown): BrokerUnavailable =>
  new BrokerUnavailable({
    cause,
    ...(causesOf(cause).some(({ name }) => name === "KafkaJSSASLAuthenticationError") ? { denied: true } : {})
  })
