import { Clock, Context, Effect, Layer, Metric } from "effect"
import { hash } from "node:crypto"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import type { DeadLetterReason } from "../../schema/MessageDecoding.ts"
import { timestamp } from "../../schema/Time.ts"
import { deadLetterTopicOf } from "../../schema/Topic.ts"
import { Broker, type BrokerUnavailable, type IncomingMessage } from "./Broker.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"

/**
 * Messages that can never be applied as things are (CONTRACTS section 5). Each goes to `<topic>.dlq` as it came, and
 * into a table: there it can be listed, replayed and dropped whatever the broker, and what the broker refuses (it may be
 * too large for the topic) is kept all the same.
 */

/** The reason of what is no message (`IncomingMessage.unreadable`): it can be kept and shown, and never be sent again. */
export const unreadableCode = "UNREADABLE"

/** Times are epoch milliseconds. */
export interface DeadLetter extends Omit<IncomingMessage, "value" | "unreadable"> {
  readonly deadLetterId: string
  readonly reason: DeadLetterReason
  /** Of the value; `null` is a tombstone. */
  readonly valueBytes: number | null
  readonly recordedAt: number
  readonly replayedAt: number | null
  readonly replays: number
}

export class DeadLetters extends Context.Service<
  DeadLetters,
  {
    /** Durable when it succeeds. A message that is recorded again is the same dead letter. */
    readonly record: (
      message: IncomingMessage,
      reason: DeadLetterReason
    ) => Effect.Effect<void, BrokerUnavailable | DatabaseUnavailable>
    /** Oldest first; without `replayed`, only those that were never replayed. */
    readonly list: (filter: {
      readonly topic?: string | undefined
      readonly replayed?: boolean | undefined
      readonly limit?: number | undefined
    }) => Effect.Effect<ReadonlyArray<DeadLetter>, DatabaseUnavailable>
    /** With the value as it came; `undefined`: there is none with that id. */
    readonly show: (
      deadLetterId: string
    ) => Effect.Effect<(DeadLetter & { readonly value: Uint8Array | null }) | undefined, DatabaseUnavailable>
    /**
     * Publishes the original key, headers and bytes to the original topic. May be repeated: the message has the identity
     * it had, and has its effect once. Answers with those that were published, and why the others were not.
     */
    readonly replay: (
      deadLetterIds: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<Replayed>, BrokerUnavailable | DatabaseUnavailable>
    /** Forgets them; answers with how many there were. What lies in `<topic>.dlq` stays as long as the topic keeps it. */
    readonly drop: (deadLetterIds: ReadonlyArray<string>) => Effect.Effect<number, DatabaseUnavailable>
  }
>()("holdfast/services/DeadLetters") {
  static readonly layer = Layer.effect(
    DeadLetters,
    Effect.suspend(() => make)
  )
}

export interface Replayed {
  readonly deadLetterId: string
  readonly topic: string
  readonly outcome: "PUBLISHED" | "NOT_FOUND" | "REFUSED"
  /** Why it is refused: by the broker, or because it is no message. */
  readonly detail?: string
}

const listMax = 1_000
const deadLetters = Metric.counter("holdfast_dead_letters_total", {
  description: "Messages that went to <topic>.dlq, by topic and reason",
  incremental: true
})

const make = Effect.gen(function* () {
  const db = yield* Db
  const broker = yield* Broker

  const record: DeadLetters["Service"]["record"] = Effect.fn("DeadLetters.record")(
    function* (message, reason) {
      const deadLetterId = idOf(message)
      const now = yield* Clock.currentTimeMillis
      // The topic first: when the row is there, so is the message.
      const [refusal] = yield* broker.publish([
        {
          topic: deadLetterTopicOf(message.topic),
          key: message.key,
          value: message.value,
          headers: { ...message.headers, ...headersOf(deadLetterId, message, reason, now) }
        }
      ])
      const added = yield* db.maintain(recordStatement, [
        parameter("uuid", deadLetterId),
        parameter("text", message.topic),
        parameter("int4", message.partition),
        parameter("int8", message.offset),
        parameter("timestamptz", message.publishedAt),
        parameter("bytea", message.key === null ? null : Buffer.from(message.key)),
        parameter("text", JSON.stringify(message.headers)),
        parameter("bytea", message.value),
        parameter("text", reason.code),
        parameter("text", withoutNul(reason.detail)),
        parameter("timestamptz", now)
      ])
      if (added.length === 0) return
      const { offset, partition, topic } = message
      yield* Metric.update(Metric.withAttributes(deadLetters, { topic, reason: reason.code }), 1)
      yield* Effect.annotateLogs(Effect.logWarning("a message is a dead letter"), {
        deadLetterId,
        topic,
        partition,
        offset,
        reason: reason.code,
        detail: reason.detail,
        ...(refusal === undefined ? {} : { dlqRefused: refusal.detail })
      })
    }
  )

  const list: DeadLetters["Service"]["list"] = Effect.fn("DeadLetters.list")(function* (filter) {
    const rows = yield* db.maintain<DeadLetterRow>(listStatement, [
      parameter("text", filter.topic ?? null),
      parameter("bool", filter.replayed ?? false),
      parameter("int4", Math.min(filter.limit ?? listMax, listMax))
    ])
    return rows.map(deadLetter)
  })

  const show: DeadLetters["Service"]["show"] = Effect.fn("DeadLetters.show")(function* (deadLetterId) {
    const [row] = yield* db.maintain<StoredRow>(showStatement, [parameter("uuid", deadLetterId)])
    return row === undefined ? undefined : { ...deadLetter(row), value: row.value }
  })

  const replayOne = Effect.fnUntraced(function* (deadLetterId: string) {
    const found = yield* show(deadLetterId)
    if (found === undefined) return { deadLetterId, topic: "", outcome: "NOT_FOUND" } as Replayed
    const { headers, key, reason, topic, value } = found
    if (reason.code === unreadableCode) {
      const detail = "is no message: whoever sent it has to send it again, compressed otherwise"
      return { deadLetterId, topic, outcome: "REFUSED", detail } as Replayed
    }
    const [refusal] = yield* broker.publish([{ topic, key, headers, value }])
    if (refusal !== undefined) {
      return { deadLetterId, topic, outcome: "REFUSED", detail: refusal.detail } as Replayed
    }
    yield* db.maintain(replayedStatement, [
      parameter("uuid", deadLetterId),
      parameter("timestamptz", yield* Clock.currentTimeMillis)
    ])
    return { deadLetterId, topic, outcome: "PUBLISHED" } as Replayed
  })

  return DeadLetters.of({
    record,
    list,
    show,
    // One by one, in the order given: of a key, each waits for the one before it.
    replay: (deadLetterIds) => Effect.forEach(deadLetterIds, replayOne),
    drop: (deadLetterIds) =>
      Effect.map(db.maintain(dropStatement, [arrays.uuid(deadLetterIds)]), (rows) => rows.length)
  })
})

/** Made from where the message lay and what it was: offsets begin again where a topic is made anew. */
const idOf = ({ headers, key, offset, partition, publishedAt, topic, value }: IncomingMessage): string => {
  const content = value === null ? "tombstone" : hash("sha256", value)
  const place = JSON.stringify([topic, partition, offset, publishedAt, key, headers, content])
  const digest = hash("sha256", place)
  // A UUID of version 8: its bits are our own.
  const variant = ((Number.parseInt(digest[16]!, 16) & 0x3) | 0x8).toString(16)
  return `${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-${variant}${digest.slice(17, 20)}-${digest.slice(20, 32)}`
}

const headersOf = (
  deadLetterId: string,
  { offset, partition, publishedAt, topic }: IncomingMessage,
  { code, detail }: DeadLetterReason,
  now: number
): Record<string, string> => ({
  "dlq-id": deadLetterId,
  "dlq-reason": code,
  "dlq-detail": detail,
  "dlq-topic": topic,
  "dlq-partition": String(partition),
  "dlq-offset": String(offset),
  "dlq-published-at": timestamp(publishedAt),
  "dlq-recorded-at": timestamp(now)
})

/** What PostgreSQL does not take in a text. */
const withoutNul = (text: string): string => text.replaceAll("\0", "\u{FFFD}")

interface DeadLetterRow {
  readonly dead_letter_id: string
  readonly topic: string
  readonly partition: number
  readonly message_offset: number
  readonly published_at: number
  readonly key: Uint8Array | null
  readonly headers: string
  readonly value_bytes: number | null
  readonly reason: string
  readonly detail: string
  readonly recorded_at: number
  readonly replayed_at: number | null
  readonly replays: number
}
interface StoredRow extends DeadLetterRow {
  readonly value: Uint8Array | null
}

const deadLetter = (row: DeadLetterRow): DeadLetter => ({
  deadLetterId: row.dead_letter_id,
  topic: row.topic,
  partition: row.partition,
  offset: row.message_offset,
  publishedAt: row.published_at,
  key: row.key === null ? null : Buffer.from(row.key).toString(),
  headers: JSON.parse(row.headers) as Record<string, string>,
  valueBytes: row.value_bytes,
  reason: { code: row.reason, detail: row.detail },
  recordedAt: row.recorded_at,
  replayedAt: row.replayed_at,
  replays: row.replays
})

// dead_letter_pkey
const recordStatement = `
  INSERT INTO dead_letter
    (dead_letter_id, topic, partition, message_offset, published_at, key, headers, value, reason, detail, recorded_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
  ON CONFLICT DO NOTHING
  RETURNING dead_letter_id`

const columns = `dead_letter_id, topic, partition, message_offset, published_at, key, headers,
         octet_length(value) AS value_bytes, reason, detail, recorded_at, replayed_at, replays`

// dead_letter_by_time
const listStatement = `
  SELECT ${columns}
  FROM dead_letter
  WHERE ($1 IS NULL OR topic = $1)
    AND ($2 OR replayed_at IS NULL)
  ORDER BY recorded_at, dead_letter_id
  LIMIT $3`

// dead_letter_pkey
const showStatement = `
  SELECT ${columns}, value
  FROM dead_letter
  WHERE dead_letter_id = $1`

// dead_letter_pkey
const replayedStatement = `
  UPDATE dead_letter
  SET replayed_at = $2, replays = replays + 1
  WHERE dead_letter_id = $1`

// dead_letter_pkey
const dropStatement = `
  DELETE FROM dead_letter
  WHERE dead_letter_id = ANY ($1)
  RETURNING dead_letter_id`
