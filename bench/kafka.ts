import { Context, Effect, Layer, type Redacted } from "effect"
import * as KafkaBroker from "../src/layers/KafkaBroker.ts"
import { topicNames } from "../src/schema/Topic.ts"
import { Broker } from "../src/services/messaging/Broker.ts"
import { ownKafka } from "../test/support/kafka.ts"
import { dispatcherOf, drained, fill, pacedPerSecond, pacedRun, pending, reading } from "./outbox.ts"
import { type Options, generate, median, print } from "./reserve.ts"
import { execute, freshDatabase, server } from "./support/Database.ts"
import { atLeast, below, machineOf, printFigures, writeReport } from "./support/Report.ts"
import { seed } from "./support/Seed.ts"
import { processorSecondsOf, service } from "./support/Service.ts"

/**
 * From the outbox to Kafka: a dispatcher that is a process of its own, a broker of one node on the same machine, and a
 * consumer in this process.
 */
const full = { drains: 3, drainedEvents: 120_000, pacedSeconds: 10 }
const quick = { drains: 1, drainedEvents: 60_000, pacedSeconds: 5 }
const connections = 64
const spreadItems = 100_000
const targets = { drainedPerSecond: 20_000, pacedP99Ms: 100 }
const eventsTopic = "inventory.events"

export const kafka = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const wanted = (name: "paced" | "drain") => options.only?.has(name) ?? true
  const startedAt = performance.now()
  const maintenance = yield* server
  const books = yield* freshDatabase(maintenance, "bench_kafka")
  yield* seed(books, [
    { merchantId: "hot", items: 1 },
    { merchantId: "spread", items: spreadItems }
  ])
  const { brokers } = yield* ownKafka()
  const connected = yield* Layer.build(KafkaBroker.layer({ brokers: [brokers] }))
  const broker = Context.get(connected, Broker)
  yield* broker.createTopics(topicNames)
  const holdfast = yield* service(books, options.profile, "inventory-api,sweeper")
  const tokens = yield* Effect.promise(async () => ({
    hot: [await holdfast.tokenOf("hot")],
    spread: [await holdfast.tokenOf("spread")]
  }))
  let runs = 0
  const load = (merchant: "hot" | "spread", seconds: number, ratePerSecond?: number) =>
    generate({
      port: holdfast.port,
      connections,
      warmupSeconds: 0.5,
      seconds,
      tokens: tokens[merchant],
      items: merchant === "hot" ? 1 : spreadItems,
      run: `order-${(runs += 1)}`,
      ...(ratePerSecond === undefined ? {} : { ratePerSecond })
    })
  const dispatcher = dispatcherOf(books, options.profile, { KAFKA_BROKERS: brokers })
  print(`  Warming up`)
  yield* Effect.promise(() => load("spread", 2))

  const paced = wanted("paced")
    ? yield* pacedRun(books, dispatcher, Effect.provide(reading, connected), (seconds) =>
        load("hot", seconds, pacedPerSecond)
      )(settings.pacedSeconds)
    : undefined
  const acknowledged = paced === undefined ? undefined : yield* acknowledgedOf(books, settings.pacedSeconds)
  if (acknowledged !== undefined)
    print(`      to Kafka  p50 ${acknowledged.p50Ms} ms   p99 ${acknowledged.p99Ms} ms`)

  const drains: Array<Drain> = []
  for (let round = 0; wanted("drain") && round < settings.drains; round++) {
    yield* fill(books, settings.drainedEvents, () => load("spread", 2))
    const drain = yield* Effect.scoped(drainOnce(books, broker, dispatcher))
    drains.push(drain)
    print(
      `  ${String(round + 1).padStart(2)}  drain ${String(drain.perSecond).padStart(7)}/s of ${drain.events}` +
        `   µs: dispatcher ${drain.microseconds} (with its start)`
    )
  }

  const perSecond = drains.length === 0 ? Number.NaN : median(drains.map((drain) => drain.perSecond))
  const ratios = [
    atLeast("drained", "events/s from the outbox to Kafka", perSecond, targets.drainedPerSecond),
    below(
      "paced",
      `p99 ms from a posting to Kafka's answer at ${pacedPerSecond}/s`,
      acknowledged?.p99Ms ?? Number.NaN,
      targets.pacedP99Ms
    )
  ]
  printFigures(ratios, startedAt)
  if (options.quick || options.only !== undefined) return
  yield* writeReport({
    benchmark: "kafka",
    date: new Date().toISOString(),
    machine: yield* machineOf(maintenance),
    settings: { ...settings, connections, spreadItems, pacedPerSecond },
    ratios,
    latency: { acknowledged, consumed: paced },
    drains
  })
})

/**
 * How long the events of the last seconds took from the last posting of their group, which is before its commit, until
 * Kafka's answer was marked. Milliseconds.
 */
const acknowledgedOf = Effect.fnUntraced(function* (books: Redacted.Redacted<string>, seconds: number) {
  const [row] = yield* execute(
    books,
    `SELECT (percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (
       ORDER BY extract(epoch FROM sent_at - recorded_at) * 1000))::float8[] AS ms
     FROM outbox
     CROSS JOIN generate_series(1, event_count)
     WHERE recorded_at > (SELECT max(recorded_at) FROM outbox) - interval '${seconds} seconds'`
  )
  const [p50Ms, p99Ms] = (row!["ms"] as ReadonlyArray<number>).map(Math.round)
  return { p50Ms: p50Ms!, p99Ms: p99Ms! }
})

interface Drain {
  readonly events: number
  /** From the first message to the last group that was marked. */
  readonly perSecond: number
  /** Processor time of the dispatcher for an event, its start included. */
  readonly microseconds: number
}

/** A dispatcher comes to an outbox that is full. */
const drainOnce = Effect.fnUntraced(function* (
  books: Redacted.Redacted<string>,
  broker: Broker["Service"],
  dispatcher: ReturnType<typeof dispatcherOf>
) {
  const events = yield* pending(books)
  const group = `drain-${Date.now()}`
  const subscription = yield* broker.subscribe({ group, topics: [eventsTopic] })
  const endOf = Effect.map(subscription.lag, (lag) => lag.reduce((sum, { end }) => sum + end, 0))
  const before = yield* endOf
  const running = yield* dispatcher
  while ((yield* endOf) === before) yield* Effect.sleep("10 millis")
  const first = Date.now()
  yield* drained(books)
  const [row] = yield* execute(
    books,
    "SELECT (extract(epoch FROM max(sent_at)) * 1000)::float8 AS last FROM outbox"
  )
  const arrived = (yield* endOf) - before
  if (arrived < events) return yield* Effect.die(new Error(`${events} events became ${arrived} messages`))
  const spent = yield* Effect.promise(() => processorSecondsOf(running.pid!))
  return {
    events,
    perSecond: Math.round((events * 1000) / Math.max(1, Number(row!["last"]) - first)),
    microseconds: Math.round((spent * 1e6) / events)
  } satisfies Drain
})
