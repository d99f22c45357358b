import { Deferred, Effect, Exit, Queue } from "effect"
import {
  type Broker,
  BrokerUnavailable,
  MessageRefused,
  type OutgoingMessage,
  TopicsRefused,
  isTopicName
} from "../services/messaging/Broker.ts"

/** What the brokers have in common when messages are published. */

/** How many partitions each topic has. Keys are spread by it, so that it never changes for a topic that has messages. */
export const partitionsPerTopic = 8
/** Calls that wait for the publisher; more wait outside. */
const callsMax = 1_024
/** What is sent at once at most, unless a single message is larger. */
const sendMessagesMax = 4_000
const sendBytesMax = 8_000_000

/** A message that nothing is known against. */
export interface Prepared {
  readonly call: Call
  /** Its place in the call. */
  readonly index: number
  readonly message: OutgoingMessage
  readonly key: Buffer | null
  readonly value: Buffer | null
  /** Of key, value and headers. */
  readonly bytes: number
}

export interface Call {
  readonly prepared: Array<Prepared>
  /** By the places of the messages. */
  readonly refusals: Array<MessageRefused | undefined>
  readonly refusedKeys: Set<string>
  /** Counts the calls: messages without a key go to a partition by it. */
  readonly turn: number
  bytes: number
}

/** Refuses a message; what follows it in its key is refused with it, so that nothing overtakes what is sent again. */
export const refuse = ({ call, index, message: { key } }: Prepared, refusal: MessageRefused): void => {
  call.refusals[index] = refusal
  if (key !== null) call.refusedKeys.add(key)
}

/** Refuses a message if it follows one of its call and key that was refused. */
export const isBehindRefused = (prepared: Prepared): boolean => {
  const { call, index, message } = prepared
  if (message.key === null || !call.refusedKeys.has(message.key)) return false
  call.refusals[index] = new MessageRefused({
    reason: "OTHER",
    topic: message.topic,
    detail: "follows a message of its key that was refused"
  })
  return true
}

/** Tells apart what can be published of these messages, in their order. */
export const prepare = (
  messages: ReadonlyArray<OutgoingMessage>,
  turn: number,
  check: (message: OutgoingMessage, bytes: number) => MessageRefused | undefined
): Call => {
  const refusals = messages.map(() => undefined)
  const call: Call = { prepared: [], refusals, refusedKeys: new Set(), turn, bytes: 0 }
  for (const [index, message] of messages.entries()) {
    const { headers, topic, value: content } = message
    const key = message.key === null ? null : Buffer.from(message.key)
    const value =
      content === null
        ? null
        : typeof content === "string"
          ? Buffer.from(content)
          : Buffer.from(content.buffer, content.byteOffset, content.byteLength)
    let bytes = (key?.byteLength ?? 0) + (value?.byteLength ?? 0)
    for (const name in headers) bytes += Buffer.byteLength(name) + Buffer.byteLength(headers[name]!)
    const prepared = { call, index, message, key, value, bytes }
    if (isBehindRefused(prepared)) continue
    const refusal = isTopicName(topic)
      ? check(message, bytes)
      : new MessageRefused({ reason: "INVALID_TOPIC", topic, detail: "not a topic name" })
    if (refusal !== undefined) refuse(prepared, refusal)
    else {
      call.prepared.push(prepared)
      call.bytes += bytes
    }
  }
  return call
}

export const tooLarge = (bytesMax: number) => (message: OutgoingMessage, bytes: number) =>
  bytes <= bytesMax
    ? undefined
    : new MessageRefused({
        reason: "TOO_LARGE",
        topic: message.topic,
        detail: `${bytes} bytes are more than ${bytesMax}`
      })

/**
 * One fiber publishes for all callers, in the order of their calls: what waits meanwhile is sent together. `send` may
 * refuse messages; it fails when the broker does not answer.
 */
export const makePublisher = Effect.fnUntraced(function* (
  messageBytesMax: number,
  send: (messages: ReadonlyArray<Prepared>) => Effect.Effect<void, BrokerUnavailable>
) {
  interface Waiting {
    readonly call: Call
    readonly done: Deferred.Deferred<void, BrokerUnavailable>
  }
  const calls = yield* Queue.bounded<Waiting>(callsMax)
  const closed = yield* Deferred.make<never, BrokerUnavailable>()
  yield* Effect.addFinalizer(() =>
    Deferred.fail(closed, new BrokerUnavailable({ cause: new Error("the broker is closed") }))
  )
  const sendAll = Effect.fnUntraced(function* (waiting: ReadonlyArray<Waiting>) {
    for (let start = 0; start < waiting.length;) {
      const end = endOf(
        waiting.map(({ call }) => [call.prepared.length, call.bytes] as const),
        start
      )
      const together = waiting.slice(start, end)
      const messages = together.flatMap(({ call }) => call.prepared)
      const outcome = yield* Effect.exit(sendInParts(messages, send))
      start = end
      for (const { done } of together) Deferred.doneUnsafe(done, outcome)
      if (Exit.isSuccess(outcome)) continue
      // Who waits behind fails too: its messages may be of the same keys, and would overtake those that are tried again.
      for (const { done } of [...waiting.slice(start), ...(yield* Queue.clear(calls))])
        Deferred.doneUnsafe(done, outcome)
      return
    }
  })
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.takeAll(calls), sendAll)))
  let turn = 0
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(function* (messages) {
    const call = prepare(messages, turn++, tooLarge(messageBytesMax))
    if (call.prepared.length === 0) return call.refusals
    const done = Deferred.makeUnsafe<void, BrokerUnavailable>()
    const published = Effect.andThen(Queue.offer(calls, { call, done }), Deferred.await(done))
    // Who still waits when the layer closes is told so.
    yield* Effect.raceFirst(published, Deferred.await(closed))
    return call.refusals
  })
  return publish
})

const sendInParts = Effect.fnUntraced(function* (
  messages: ReadonlyArray<Prepared>,
  send: (messages: ReadonlyArray<Prepared>) => Effect.Effect<void, BrokerUnavailable>
) {
  for (let start = 0; start < messages.length;) {
    const end = endOf(
      messages.map(({ bytes }) => [1, bytes] as const),
      start
    )
    yield* send(start === 0 && end === messages.length ? messages : messages.slice(start, end))
    start = end
  }
})

/** Where to stop so that what is sent at once is not too much; behind one at least. */
const endOf = (weights: ReadonlyArray<readonly [count: number, bytes: number]>, start: number): number => {
  let messages = 0
  let total = 0
  let end = start
  for (; end < weights.length; end++) {
    const [count, bytes] = weights[end]!
    messages += count
    total += bytes
    if (end > start && (messages > sendMessagesMax || total > sendBytesMax)) break
  }
  return end
}

/** Names that no topic can have. */
export const refusedNames = (topics: ReadonlyArray<string>): TopicsRefused | undefined => {
  const wrong = topics.filter((topic) => !isTopicName(topic))
  return wrong.length === 0
    ? undefined
    : new TopicsRefused({ refusals: wrong.map((topic) => ({ topic, detail: "not a topic name" })) })
}

/** Headers as a JSON object of texts, and back. */
const noHeaders = "{}"
export const headersOf = (headers: Readonly<Record<string, string>>): string => {
  for (const _ in headers) return JSON.stringify(headers)
  return noHeaders
}
export const headersFrom = (text: string): Readonly<Record<string, string>> =>
  text === noHeaders ? {} : (JSON.parse(text) as Record<string, string>)

export const keyFrom = (key: Uint8Array | null): string | null =>
  key === null ? null : Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString()

/** FNV-1a: cheap, and spread well enough over few partitions. Every publisher must use the same. */
export const partitionOf = ({ call, key }: Prepared): number => {
  if (key === null) return call.turn % partitionsPerTopic
  let hash = 0x811c9dc5
  for (const byte of key) hash = Math.imul(hash ^ byte, 0x01000193)
  // The lowest bits of FNV are the weakest.
  return ((hash ^ (hash >>> 15)) >>> 0) % partitionsPerTopic
}
