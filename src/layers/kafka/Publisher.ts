import { Clock, Effect, Result } from "effect"
import kafkajs from "kafkajs"
import { MessageRefused } from "../../services/messaging/Broker.ts"
import { type Prepared, isBehindRefused, makePublisher as makeQueue, refuse } from "../Publishing.ts"
import { type KafkaOptions, connected, errorTypeOf, requestTimeoutMs, unknownTopic } from "./Client.ts"
import { partitionOf } from "./Partitioner.ts"

/**
 * Sends messages in rounds. kafkajs tells of the first refusal in a round and not whose it is: the round is halved until
 * it is a single message, and what had been written of it is written again. A duplicate is harmless.
 */

/**
 * What a round takes at most: kafkajs encodes it in one go, some 25 ms in which nothing else runs, and brokers refuse
 * batches beyond 1 MiB when packed.
 */
const roundMessagesMax = 500
const roundBytesMax = 2_000_000
const retryPauseMs = 50
/** Below our own bound, so that the broker's answer says what it waited for. */
const replicasWithinMs = 4_000

const reasons: Readonly<Record<string, MessageRefused["reason"]>> = {
  MESSAGE_TOO_LARGE: "TOO_LARGE",
  RECORD_LIST_TOO_LARGE: "TOO_LARGE",
  [unknownTopic]: "UNKNOWN_TOPIC",
  INVALID_TOPIC_EXCEPTION: "INVALID_TOPIC",
  TOPIC_AUTHORIZATION_FAILED: "FORBIDDEN"
}
/** A leader or a replica is on its way. */
const passing: ReadonlySet<string> = new Set([
  "LEADER_NOT_AVAILABLE",
  "NOT_LEADER_FOR_PARTITION",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "REQUEST_TIMED_OUT",
  "NOT_ENOUGH_REPLICAS",
  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
  "NETWORK_EXCEPTION",
  "KAFKA_STORAGE_ERROR"
])

export const makePublisher = Effect.fnUntraced(function* (
  options: KafkaOptions & { readonly messageBytesMax: number }
) {
  const boundMs = options.requestTimeoutMs ?? requestTimeoutMs
  const ask = yield* connected(options, (kafka) =>
    kafka.producer({
      // kafkajs' own rule is the same and takes ten times as long.
      createPartitioner: () => {
        let turn = 0
        return ({ message, partitionMetadata: { length } }) =>
          message.key === null ? turn++ % length : partitionOf(message.key as Buffer, length)
      },
      allowAutoTopicCreation: false,
      retry: { retries: 0 }
    })
  )
  const sendRound = (round: ReadonlyArray<Prepared>) =>
    Effect.result(
      ask((producer) =>
        producer.sendBatch({
          acks: -1,
          timeout: replicasWithinMs,
          compression: kafkajs.CompressionTypes.GZIP,
          topicMessages: [...Map.groupBy(round, ({ message }) => message.topic)].map(([topic, of]) => ({
            topic,
            messages: of.map(({ key, message, value }) => ({ key, value, headers: message.headers }))
          }))
        })
      )
    )
  return yield* makeQueue(
    options.messageBytesMax,
    Effect.fnUntraced(function* (messages) {
      let waiting = messages
      let countMax = roundMessagesMax
      let passingSince: number | undefined
      let unknownTwice = false
      while (waiting.length > 0) {
        const round = nextRound(waiting, countMax)
        const outcome = yield* sendRound(round)
        const type = Result.isFailure(outcome) ? errorTypeOf(outcome.failure.cause) : undefined
        if (Result.isSuccess(outcome)) {
          waiting = waiting.slice(round.length)
          countMax = Math.min(roundMessagesMax, countMax * 2)
          passingSince = undefined
        } else if (type === undefined) return yield* outcome.failure
        else if (passing.has(type)) {
          const now = yield* Clock.currentTimeMillis
          passingSince ??= now
          if (now - passingSince >= boundMs) return yield* outcome.failure
          yield* Effect.sleep(retryPauseMs)
        } else if (round.length > 1) countMax = Math.ceil(round.length / 2)
        else if (type === unknownTopic && !unknownTwice) {
          // Another producer looks at the cluster anew.
          unknownTwice = true
          continue
        } else {
          const { topic } = round[0]!.message
          refuse(round[0]!, new MessageRefused({ reason: reasons[type] ?? "OTHER", topic, detail: type }))
          waiting = waiting.slice(1).filter((prepared) => !isBehindRefused(prepared))
        }
        unknownTwice = false
      }
    })
  )
})

/** The first of those that wait, up to one whose key goes elsewhere in this round and might be refused there. */
const nextRound = (waiting: ReadonlyArray<Prepared>, countMax: number): ReadonlyArray<Prepared> => {
  const topicOfKey = new Map<string, string>()
  let bytes = 0
  let end = 0
  for (; end < Math.min(waiting.length, countMax); end++) {
    const { bytes: more, message } = waiting[end]!
    bytes += more
    if (end > 0 && bytes > roundBytesMax) break
    if (message.key === null) continue
    if ((topicOfKey.get(message.key) ?? message.topic) !== message.topic) break
    topicOfKey.set(message.key, message.topic)
  }
  return waiting.slice(0, end)
}
