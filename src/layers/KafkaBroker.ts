import { Effect, Layer } from "effect"
import { Broker, TopicsRefused, messageBytesMax } from "../services/messaging/Broker.ts"
import { type GroupTimings, defaultTimings } from "./GroupMember.ts"
import { type Client, type KafkaOptions, makeClient, offsetsTopic, unavailable } from "./kafka/Client.ts"
import { subscribe } from "./kafka/Member.ts"
import { codes, errorTypeOf } from "./kafka/Protocol.ts"
import { makePublisher } from "./kafka/Publisher.ts"
import { partitionsPerTopic, refusedNames } from "./Publishing.ts"

/**
 * Topics in Kafka, over the protocol of kafkajs (docs/decisions/0010). Nothing is made but by `createTopics`. An outage
 * is waited out by whoever is subscribed and told to whoever publishes; afterwards everything goes on by itself, within
 * about a heartbeat.
 */

export interface KafkaBrokerOptions extends KafkaOptions {
  readonly timings?: Partial<GroupTimings>
  readonly messageBytesMax?: number
}

/** One address may take this long, whoever else was named may answer after it. */
const lookWithinMs = 2_500
const replicasMax = 3
const createWithinMs = 10_000
const createPauseMs = 100

export const layer = (options: KafkaBrokerOptions): Layer.Layer<Broker> => Layer.effect(Broker, make(options))

export const make = Effect.fnUntraced(function* (options: KafkaBrokerOptions) {
  const lookMs = Math.min(lookWithinMs, options.requestTimeoutMs ?? lookWithinMs)
  const timings = { ...defaultTimings, ...options.timings }
  const asking = yield* makeClient(options)
  const publish = yield* makePublisher({
    client: yield* makeClient(options),
    messageBytesMax: options.messageBytesMax ?? messageBytesMax,
    boundMs: options.requestTimeoutMs
  })
  return Broker.of({
    publish,
    subscribe: (asked) => subscribe({ kafka: options, timings, subscribe: asked }),
    // Kafka keeps its own retention.
    removeExpired: () => Effect.succeed(0),
    createTopics: (topics, asked) => createTopics(asking, topics, asked ?? {}),
    missingTopics: (topics) =>
      Effect.map(asking.refresh([offsetsTopic, ...topics], lookMs), (known) =>
        topics.filter((topic) => known.get(topic)?.code === codes.unknownTopicOrPartition)
      ),
    ready: Effect.isSuccess(asking.refresh([offsetsTopic], lookMs))
  })
})

interface Created {
  readonly topicErrors: ReadonlyArray<{
    readonly topic: string
    readonly errorCode: number
    readonly errorMessage: string | null
  }>
}

const createTopics = Effect.fnUntraced(function* (
  client: Client,
  topics: ReadonlyArray<string>,
  asked: { readonly partitions?: number | undefined; readonly replicas?: number | undefined }
) {
  const refused = refusedNames(topics)
  if (refused !== undefined) return yield* refused
  if (topics.length === 0) return []
  yield* client.refresh([offsetsTopic])
  const replicas = asked.replicas ?? Math.min(replicasMax, client.nodeCount())
  const { topicErrors } = yield* client.ask<Created>(
    client.controller(),
    "CreateTopics",
    {
      topics: [...new Set(topics)].map((topic) => ({
        topic,
        numPartitions: asked.partitions ?? partitionsPerTopic,
        replicationFactor: replicas,
        // One replica may be away; what is acknowledged is on more than one disk.
        configEntries: [{ name: "min.insync.replicas", value: String(Math.max(1, replicas - 1)) }]
      })),
      validateOnly: false,
      timeout: createWithinMs
    },
    createWithinMs
  )
  const refusals = topicErrors
    .filter(({ errorCode }) => errorCode !== codes.none && errorCode !== codes.topicAlreadyExists)
    .map(({ errorCode, errorMessage, topic }) => ({ topic, detail: errorMessage ?? errorTypeOf(errorCode) }))
  if (refusals.length > 0) return yield* new TopicsRefused({ refusals })
  yield* awaitLeaders(client, topics)
  return topicErrors.filter(({ errorCode }) => errorCode === codes.none).map(({ topic }) => topic)
})

/** A topic that was just made takes no messages before its leaders are elected. */
const awaitLeaders = Effect.fnUntraced(function* (client: Client, topics: ReadonlyArray<string>) {
  for (let waitedMs = 0; ; waitedMs += createPauseMs) {
    const known = yield* client.refresh([offsetsTopic, ...topics])
    const led = topics.every((topic) => {
      const view = known.get(topic)
      return view?.code === codes.none && view.leaders.length > 0 && !view.leaders.includes(-1)
    })
    if (led) return
    if (waitedMs >= createWithinMs) return yield* unavailable("the topics that were made have no leaders")
    yield* Effect.sleep(createPauseMs)
  }
})
