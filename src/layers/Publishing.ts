import {
  MessageRefused,
  type OutgoingMessage,
  TopicsRefused,
  isTopicName
} from "../services/messaging/Broker.ts"

/** What the brokers kept in PostgreSQL and in memory do with messages that are to be published; Kafka has its own. */

/** How many partitions each topic has. Keys are spread by it, so that it never changes for a topic that has messages. */
export const partitionsPerTopic = 8

/** A message as it is kept. */
export interface Prepared {
  readonly topic: string
  readonly partition: number
  readonly key: Uint8Array | null
  /** A JSON object of texts. */
  readonly headers: string
  readonly value: Uint8Array | null
  readonly bytes: number
}

/**
 * What can be published of these messages, in their order, and why the others cannot, at their places. What follows a
 * refused message in its key is refused with it, so that nothing overtakes what is sent again.
 */
export const prepare = (
  messages: ReadonlyArray<OutgoingMessage>,
  options: {
    readonly messageBytesMax: number
    /** Where messages without a key go. */
    readonly keylessPartition: number
    /** What else is to be refused, as a test wants it. */
    readonly refuse?: (message: OutgoingMessage) => MessageRefused | undefined
  }
): {
  readonly prepared: ReadonlyArray<Prepared>
  readonly refusals: ReadonlyArray<MessageRefused | undefined>
} => {
  const prepared: Array<Prepared> = []
  const refusedKeys = new Set<string>()
  const refusals = messages.map((message) => {
    const { key, topic } = message
    const made = makeReady(message, options)
    const refusal =
      key !== null && refusedKeys.has(key)
        ? followsRefused(topic)
        : (options.refuse?.(message) ?? (made instanceof MessageRefused ? made : undefined))
    if (refusal === undefined) prepared.push(made as Prepared)
    else if (key !== null) refusedKeys.add(key)
    return refusal
  })
  return { prepared, refusals }
}

/** Names that no topic can have. */
export const refusedNames = (topics: ReadonlyArray<string>): TopicsRefused | undefined => {
  const wrong = topics.filter((topic) => !isTopicName(topic))
  return wrong.length === 0
    ? undefined
    : new TopicsRefused({ refusals: wrong.map((topic) => ({ topic, detail: "not a topic name" })) })
}

export const followsRefused = (topic: string): MessageRefused =>
  new MessageRefused({ reason: "OTHER", topic, detail: "follows a message of its key that was refused" })

const makeReady = (
  { headers: given, key: keyText, topic, value: content }: OutgoingMessage,
  options: { readonly messageBytesMax: number; readonly keylessPartition: number }
): Prepared | MessageRefused => {
  if (!isTopicName(topic)) {
    return new MessageRefused({ reason: "INVALID_TOPIC", topic, detail: "not a topic name" })
  }
  const key = keyText === null ? null : Buffer.from(keyText)
  const value = typeof content === "string" ? Buffer.from(content) : content
  const headers = headersOf(given)
  const bytes = (key?.byteLength ?? 0) + (value?.byteLength ?? 0) + headers.length
  if (bytes > options.messageBytesMax) {
    return new MessageRefused({
      reason: "TOO_LARGE",
      topic,
      detail: `${bytes} bytes are more than ${options.messageBytesMax}`
    })
  }
  const partition = key === null ? options.keylessPartition : partitionOf(key)
  return { topic, partition, key, headers, value, bytes }
}

const noHeaders = "{}"
const headersOf = (headers: Readonly<Record<string, string>>): string => {
  for (const _ in headers) return JSON.stringify(headers)
  return noHeaders
}
/** Headers as they were given; the texts are as `JSON.stringify` left them. */
export const headersFrom = (text: string): Readonly<Record<string, string>> =>
  text === noHeaders ? {} : (JSON.parse(text) as Record<string, string>)

export const keyFrom = (key: Uint8Array | null): string | null =>
  key === null ? null : Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString()

/** FNV-1a: cheap, and spread well enough over few partitions. Every publisher must use the same. */
const partitionOf = (key: Uint8Array): number => {
  let hash = 0x811c9dc5
  for (const byte of key) hash = Math.imul(hash ^ byte, 0x01000193)
  // The lowest bits of FNV are the weakest.
  return ((hash ^ (hash >>> 15)) >>> 0) % partitionsPerTopic
}
