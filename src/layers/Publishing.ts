import { MessageRefused, type OutgoingMessage, isTopicName } from "../services/Broker.ts"

/** What the brokers kept in PostgreSQL and in memory do with messages that are to be published. */

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

/** What can be published of these messages, in their order, and why the others cannot, at their places. */
export const prepare = (
  messages: ReadonlyArray<OutgoingMessage>,
  options: {
    readonly messageBytesMax: number
    /** Where messages without a key go. */
    readonly keylessPartition: number
  }
): {
  readonly prepared: ReadonlyArray<Prepared>
  readonly refusals: ReadonlyArray<MessageRefused | undefined>
} => {
  const prepared: Array<Prepared> = []
  const refusals = messages.map((message) => {
    const { topic } = message
    if (!isTopicName(topic)) {
      return new MessageRefused({ reason: "INVALID_TOPIC", topic, detail: "not a topic name" })
    }
    const key = message.key === null ? null : Buffer.from(message.key)
    const value = typeof message.value === "string" ? Buffer.from(message.value) : message.value
    const headers = headersOf(message.headers)
    const bytes = (key?.byteLength ?? 0) + (value?.byteLength ?? 0) + headers.length
    if (bytes > options.messageBytesMax) {
      return new MessageRefused({
        reason: "TOO_LARGE",
        topic,
        detail: `${bytes} bytes are more than ${options.messageBytesMax}`
      })
    }
    const partition = key === null ? options.keylessPartition : partitionOf(key)
    prepared.push({ topic, partition, key, headers, value, bytes })
    return undefined
  })
  return { prepared, refusals }
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
