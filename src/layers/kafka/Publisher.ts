import { Clock, Deferred, Effect, Exit, Queue } from "effect"
import {
  type Broker,
  BrokerUnavailable,
  MessageRefused,
  type OutgoingMessage,
  isTopicName
} from "../../services/messaging/Broker.ts"
import { followsRefused } from "../Publishing.ts"
import { type Client, type TopicView, refusedWith, requestTimeoutMs } from "./Client.ts"
import { partitionOf } from "./Partitioner.ts"
import { codes, encodedBody, errorTypeOf, isPassing } from "./Protocol.ts"
import { encodeProduce } from "./RecordBatch.ts"

/**
 * Sends messages in rounds: one fiber takes what waits, and each round has at most one batch for each partition and at
 * most one request for each node. The next round begins when this one is answered, so that nothing overtakes anything.
 */

/** Calls that wait for the publisher; more wait outside. */
const backlogMax = 1_024
/** What a round takes at most: what is encoded at once holds up the event loop. */
const roundMessagesMax = 4_000
const roundBytesMax = 4_000_000
/** Brokers refuse batches, not messages, beyond `max.message.bytes`: 1 MiB after compression unless configured. */
const batchBytesMax = 1_000_000
const retryPauseMs = 50
/** Below our own bound, so that the broker's answer says what it waited for. */
const replicasWithinMs = 4_000

/** A message on its way. */
interface Sending {
  readonly call: Call
  readonly index: number
  readonly topic: string
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, string>>
  readonly bytes: number
}

interface Call {
  readonly messages: ReadonlyArray<OutgoingMessage>
  /** By the places of the messages; written here as they are refused. */
  readonly refusals: Array<MessageRefused | undefined>
  /** Where in the call the first message of a key was refused: what stands behind it may not overtake it. */
  readonly refusedKeys: Map<string, number>
  /** Messages that are not settled yet. */
  left: number
  /** Where those without a key go, counted modulo the partitions. */
  readonly keylessTurn: number
  readonly done: Deferred.Deferred<ReadonlyArray<MessageRefused | undefined>, BrokerUnavailable>
}

interface Batch {
  readonly topic: string
  readonly partition: number
  readonly leader: number
  readonly messages: Array<Sending>
  bytes: number
}

interface ProduceAnswer {
  readonly topics: ReadonlyArray<{
    readonly topicName: string
    readonly partitions: ReadonlyArray<{ readonly partition: number; readonly errorCode: number }>
  }>
}

export interface PublisherOptions {
  readonly client: Client
  readonly messageBytesMax: number
  /** How long a call waits for leaders and replicas before it fails. */
  readonly boundMs?: number | undefined
}

export const makePublisher = Effect.fnUntraced(function* (options: PublisherOptions) {
  const calls = yield* Queue.bounded<Call>(backlogMax)
  const closed = yield* Deferred.make<never, BrokerUnavailable>()
  yield* Effect.addFinalizer(() =>
    Deferred.fail(closed, new BrokerUnavailable({ cause: new Error("the broker is closed") }))
  )
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.flatMap(Queue.takeAll(calls), (waiting) =>
        Effect.flatMap(Effect.exit(publishAll(options, waiting)), (outcome) => {
          if (Exit.isSuccess(outcome)) return Effect.void
          // Who waits behind fails too: its messages may be of the same keys, and would overtake what is sent again.
          return Effect.map(Queue.clear(calls), (behind) => {
            for (const { done } of [...waiting, ...behind]) Deferred.doneUnsafe(done, outcome as never)
          })
        })
      )
    )
  )
  let keylessTurn = 0
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(function* (messages) {
    if (messages.length === 0) return []
    const done = Deferred.makeUnsafe<ReadonlyArray<MessageRefused | undefined>, BrokerUnavailable>()
    const call: Call = {
      messages,
      refusals: messages.map(() => undefined),
      refusedKeys: new Map(),
      left: messages.length,
      keylessTurn: keylessTurn++,
      done
    }
    const published = Effect.andThen(Queue.offer(calls, call), Deferred.await(done))
    // Who still waits when the layer closes is told so.
    return yield* Effect.raceFirst(published, Deferred.await(closed))
  })
  return publish
})

const publishAll = Effect.fnUntraced(function* (options: PublisherOptions, calls: ReadonlyArray<Call>) {
  const { client } = options
  const topics = [
    ...new Set(calls.flatMap(({ messages }) => messages.map(({ topic }) => topic)).filter(isTopicName))
  ]
  const unknown = topics.filter((topic) => !isThere(client.topics.get(topic)))
  if (unknown.length > 0) yield* client.refresh([...client.topics.keys(), ...unknown])
  let waiting: ReadonlyArray<Sending> = calls.flatMap((call) => sendingsOf(options, call))
  // How many messages a batch of a partition may have, after the broker did not like one of a bigger batch.
  const limits = new Map<string, number>()
  let stuckSince: number | undefined
  while (waiting.length > 0) {
    const { batches, later } = nextRound(client, waiting, limits)
    const answers = yield* sendRound(client, batches)
    const again: Array<Sending> = []
    let passing: number | undefined
    let refused = false
    for (const { messages, partition, topic } of batches) {
      const place = placeOf(topic, partition)
      const code = answers.get(place) ?? codes.unknownTopicOrPartition
      if (code === codes.none) {
        for (const sending of messages) settle(sending, undefined)
        const limit = limits.get(place)
        if (limit !== undefined) limits.set(place, limit * 2)
      } else if (isPassing(code)) {
        // A leader has moved or is on the way; or the topic is gone, which the metadata tells.
        passing = code
        again.push(...messages)
      } else if (messages.length > 1) {
        limits.set(place, Math.ceil(messages.length / 2))
        again.push(...messages)
      } else {
        refused = true
        settle(messages[0]!, refusalOf(code, topic))
      }
    }
    if (passing !== undefined) {
      const now = yield* Clock.currentTimeMillis
      stuckSince ??= now
      if (now - stuckSince >= (options.boundMs ?? requestTimeoutMs))
        return yield* refusedWith(passing, "no leader takes the messages")
      yield* Effect.sleep(retryPauseMs)
      yield* client.refresh([...client.topics.keys()])
    } else stuckSince = undefined
    waiting = again.length === 0 ? later : inOrder([...again, ...later], calls)
    if (refused || passing !== undefined)
      waiting = waiting.filter((sending) => !refusedSince(client, sending))
  }
})

const isThere = (view: TopicView | undefined): boolean => view?.code === codes.none && view.leaders.length > 0

const placeOf = (topic: string, partition: number): string => `${topic}/${partition}`

/** What can be sent of a call; what cannot is refused here. */
const sendingsOf = (options: PublisherOptions, call: Call): ReadonlyArray<Sending> =>
  call.messages.flatMap((message, index) => {
    const { headers, key: keyText, topic, value: content } = message
    const key = keyText === null ? null : Buffer.from(keyText)
    const value =
      content === null
        ? null
        : typeof content === "string"
          ? Buffer.from(content)
          : Buffer.from(content.buffer, content.byteOffset, content.byteLength)
    let bytes = (key?.byteLength ?? 0) + (value?.byteLength ?? 0)
    for (const name in headers) bytes += Buffer.byteLength(name) + Buffer.byteLength(headers[name]!)
    const sending: Sending = { call, index, topic, key, value, headers, bytes }
    const refused = (refusal: MessageRefused): ReadonlyArray<Sending> => {
      settle(sending, refusal)
      return []
    }
    if (isBehindRefused(sending)) return refused(followsRefused(topic))
    if (!isTopicName(topic))
      return refused(new MessageRefused({ reason: "INVALID_TOPIC", topic, detail: "not a topic name" }))
    if (bytes > options.messageBytesMax) {
      const detail = `${bytes} bytes are more than ${options.messageBytesMax}`
      return refused(new MessageRefused({ reason: "TOO_LARGE", topic, detail }))
    }
    return refusedSince(options.client, sending) ? [] : [sending]
  })

/** Refuses what the cluster has no topic for, and what follows a message of its call and key that was refused. */
const refusedSince = (client: Client, sending: Sending): boolean => {
  const { topic } = sending
  const view = client.topics.get(topic)
  if (isBehindRefused(sending)) settle(sending, followsRefused(topic))
  else if (view === undefined || isPassing(view.code)) {
    if (view === undefined || view.code === codes.unknownTopicOrPartition)
      settle(sending, refusalOf(codes.unknownTopicOrPartition, topic))
    else return false
  } else if (view.code !== codes.none) settle(sending, refusalOf(view.code, topic))
  else return false
  return true
}

const isBehindRefused = ({ call, index }: Sending): boolean => {
  const { key } = call.messages[index]!
  return key !== null && (call.refusedKeys.get(key) ?? index) < index
}

const reasons: Readonly<Record<number, MessageRefused["reason"]>> = {
  [codes.messageTooLarge]: "TOO_LARGE",
  [codes.recordListTooLarge]: "TOO_LARGE",
  [codes.unknownTopicOrPartition]: "UNKNOWN_TOPIC",
  [codes.invalidTopic]: "INVALID_TOPIC",
  [codes.topicAuthorizationFailed]: "FORBIDDEN"
}

const refusalOf = (code: number, topic: string): MessageRefused =>
  new MessageRefused({ reason: reasons[code] ?? "OTHER", topic, detail: errorTypeOf(code) })

const settle = ({ call, index }: Sending, refusal: MessageRefused | undefined): void => {
  const { key } = call.messages[index]!
  call.refusals[index] = refusal
  if (refusal !== undefined && key !== null)
    call.refusedKeys.set(key, Math.min(index, call.refusedKeys.get(key) ?? index))
  call.left -= 1
  if (call.left === 0) Deferred.doneUnsafe(call.done, Exit.succeed(call.refusals))
}

const inOrder = (sendings: ReadonlyArray<Sending>, calls: ReadonlyArray<Call>): ReadonlyArray<Sending> => {
  if (calls.length === 1) return sendings.toSorted((a, b) => a.index - b.index)
  const turns = new Map(calls.map((call, turn) => [call, turn]))
  return sendings.toSorted((a, b) => turns.get(a.call)! - turns.get(b.call)! || a.index - b.index)
}

/**
 * The batches of the next round, and what must wait for another: because there is no room, or because a message of the
 * same key goes elsewhere in this round and might be refused.
 */
const nextRound = (
  client: Client,
  waiting: ReadonlyArray<Sending>,
  limits: ReadonlyMap<string, number>
): { readonly batches: ReadonlyArray<Batch>; readonly later: ReadonlyArray<Sending> } => {
  const batches = new Map<string, Batch>()
  const placeOfKey = new Map<string, string | undefined>()
  const later: Array<Sending> = []
  let count = 0
  let total = 0
  for (const [at, sending] of waiting.entries()) {
    if (count >= roundMessagesMax || (total > 0 && total + sending.bytes > roundBytesMax)) {
      for (let rest = at; rest < waiting.length; rest++) later.push(waiting[rest]!)
      break
    }
    const { call, index, key, topic } = sending
    const { leaders } = client.topics.get(topic)!
    const partition =
      leaders.length === 0
        ? 0
        : key === null
          ? call.keylessTurn % leaders.length
          : partitionOf(key, leaders.length)
    const place = placeOf(topic, partition)
    const name = call.messages[index]!.key
    let batch = batches.get(place)
    const elsewhere = name !== null && placeOfKey.has(name) && placeOfKey.get(name) !== place
    const full =
      batch !== undefined &&
      (batch.messages.length >= (limits.get(place) ?? roundMessagesMax) ||
        batch.bytes + sending.bytes > batchBytesMax)
    if (elsewhere || full) {
      // From here on the key waits, whatever its topic.
      if (name !== null) placeOfKey.set(name, undefined)
      later.push(sending)
      continue
    }
    if (batch === undefined) {
      batch = { topic, partition, leader: leaders[partition] ?? -1, messages: [], bytes: 0 }
      batches.set(place, batch)
    }
    batch.messages.push(sending)
    batch.bytes += sending.bytes + recordBytes
    if (name !== null) placeOfKey.set(name, place)
    count += 1
    total += sending.bytes
  }
  return { batches: [...batches.values()], later }
}

/** About what a record takes beyond its content. */
const recordBytes = 32

/** The code of each partition. A round is answered whole or it has failed. */
const sendRound = Effect.fnUntraced(function* (client: Client, batches: ReadonlyArray<Batch>) {
  const byLeader = new Map<number, Array<Batch>>()
  const answers = new Map<string, number>()
  const now = yield* Clock.currentTimeMillis
  for (const batch of batches) {
    if (batch.leader < 0) {
      answers.set(placeOf(batch.topic, batch.partition), leaderNotAvailable)
      continue
    }
    const of = byLeader.get(batch.leader)
    if (of === undefined) byLeader.set(batch.leader, [batch])
    else of.push(batch)
  }
  yield* Effect.forEach(
    byLeader,
    ([leader, of]) =>
      Effect.gen(function* () {
        const body = yield* Effect.promise(() =>
          encodeProduce(
            of.map(({ messages, partition, topic }) => ({ topic, partition, records: messages })),
            replicasWithinMs,
            now
          )
        )
        const { topics } = yield* client.ask<ProduceAnswer>(leader, "Produce", { [encodedBody]: body })
        for (const { partitions, topicName } of topics)
          for (const { errorCode, partition } of partitions)
            answers.set(placeOf(topicName, partition), errorCode)
      }),
    { concurrency: "unbounded", discard: true }
  ).pipe(
    // What the cluster looks like may be what is wrong.
    Effect.tapError(() => Effect.ignore(client.refresh([...client.topics.keys()])))
  )
  return answers
})

const leaderNotAvailable = 5
