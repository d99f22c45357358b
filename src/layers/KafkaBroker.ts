import { Effect, Layer, Schedule } from "effect"
import kafkajs, { type Admin } from "kafkajs"
import { Broker, type TopicOptions, TopicsRefused, messageBytesMax } from "../services/messaging/Broker.ts"
import { type GroupTimings, defaultTimings } from "./Holdings.ts"
import { type KafkaOptions, connected, errorTypeOf, unknownTopic } from "./kafka/Client.ts"
import { registerCodecs } from "./kafka/Compression.ts"
import { subscribe } from "./kafka/Consumer.ts"
import { makePublisher } from "./kafka/Publisher.ts"
import { partitionsPerTopic, refusedNames } from "./Publishing.ts"

/**
 * Topics in Kafka, by the clients of kafkajs, which are watched from outside (docs/decisions/0019). Nothing is made but
 * by `createTopics`. An outage is waited out by whoever is subscribed and told to whoever publishes; afterwards
 * everything goes on by itself, within about a heartbeat.
 */

export interface KafkaBrokerOptions extends KafkaOptions {
  readonly timings?: Partial<GroupTimings>
  readonly messageBytesMax?: number
}

/** One address may take this long, whoever else was named may answer after it. */
const lookWithinMs = 2_500
const replicasMax = 3
const createWithinMs = 10_000
/** A topic that every cluster has sooner or later: asking for none asks for all. */
const offsetsTopic = "__consumer_offsets"

export const layer = (options: KafkaBrokerOptions): Layer.Layer<Broker> => Layer.effect(Broker, make(options))

export const make = Effect.fnUntraced(function* (options: KafkaBrokerOptions) {
  registerCodecs()
  const lookMs = Math.min(lookWithinMs, options.requestTimeoutMs ?? lookWithinMs)
  const timings = { ...defaultTimings, ...options.timings }
  const missingTopics = missingOf(options, lookMs)
  const ask = yield* connected(options, (kafka) => kafka.admin())
  const publish = yield* makePublisher({
    ...options,
    messageBytesMax: options.messageBytesMax ?? messageBytesMax
  })
  return Broker.of({
    publish,
    subscribe: (asked) => subscribe({ kafka: options, timings, subscribe: asked, ask, missingTopics }),
    // Kafka keeps its own retention.
    removeExpired: () => Effect.succeed(0),
    createTopics: (topics, asked) => createTopics(options, topics, asked ?? {}),
    missingTopics,
    ready: Effect.isSuccess(missingTopics([]))
  })
})

export type MissingTopics = Broker["Service"]["missingTopics"]

/** What Kafka says of a topic, where it says that something is wrong. */
const wrongWith = (topic: string) => (admin: Admin) =>
  admin.fetchTopicMetadata({ topics: [topic] }).then(
    () => undefined,
    (error: unknown) => {
      const type = errorTypeOf(error)
      if (type === undefined) throw error
      return type
    }
  )

/** Asks by a client of its own: kafkajs remembers what it was asked for, and a topic that is gone fails all others. */
const missingOf = (options: KafkaOptions, withinMs: number): MissingTopics =>
  Effect.fnUntraced(function* (topics) {
    const ask = yield* connected(options, (kafka) => kafka.admin())
    yield* ask(wrongWith(offsetsTopic), withinMs)
    return yield* Effect.filter(topics, (topic) =>
      Effect.map(ask(wrongWith(topic), withinMs), (type) => type === unknownTopic)
    )
  }, Effect.scoped)

const createTopics = Effect.fnUntraced(function* (
  options: KafkaOptions,
  topics: ReadonlyArray<string>,
  asked: TopicOptions
) {
  const refused = refusedNames(topics)
  if (refused !== undefined) return yield* refused
  const ask = yield* connected(options, (kafka) => kafka.admin())
  yield* ask(wrongWith(offsetsTopic))
  const replicas =
    asked.replicas ??
    (yield* ask(async (admin) => Math.min(replicasMax, (await admin.describeCluster()).brokers.length)))
  const create = (topic: string) => async (admin: Admin) => {
    try {
      return await admin.createTopics({
        topics: [
          {
            topic,
            numPartitions: asked.partitions ?? partitionsPerTopic,
            replicationFactor: replicas,
            // One replica may be away; what is acknowledged is on more than one disk.
            configEntries: [{ name: "min.insync.replicas", value: String(Math.max(1, replicas - 1)) }]
          }
        ],
        timeout: createWithinMs,
        waitForLeaders: false
      })
    } catch (error) {
      if (!(error instanceof kafkajs.KafkaJSAggregateError)) throw error
      return new Error(error.errors.map((each) => (each as Error).message).join("; "))
    }
  }
  const made: Array<string> = []
  const refusals: Array<TopicsRefused["refusals"][number]> = []
  for (const topic of new Set(topics)) {
    const answer = yield* ask(create(topic), createWithinMs)
    if (answer === true) made.push(topic)
    else if (answer !== false) refusals.push({ topic, detail: answer.message })
  }
  if (refusals.length > 0) return yield* new TopicsRefused({ refusals })
  // A topic that was just made takes no messages before its leaders know that they are.
  for (const topic of topics)
    yield* Effect.retry(
      ask((admin) => admin.fetchTopicOffsets(topic)),
      Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(createWithinMs / 100)])
    )
  return made
}, Effect.scoped)
