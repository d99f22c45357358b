import { Context, type Effect, Schema, type Scope } from "effect"

/**
 * The port to the message broker: topics of partitions, consumer groups, explicit commits. Kafka, PostgreSQL and memory
 * are behind it. Delivery is at least once; the exactly-once *effect* is the consumer's (tracking), not the broker's.
 */

/** A message's bytes (value, key and headers) beyond which a broker refuses it, unless it is told otherwise. */
export const messageBytesMax = 1_000_000
/** Messages of one partition that may be delivered and not yet committed, unless the subscriber says otherwise. */
export const inFlightMax = 1_000

export interface OutgoingMessage {
  readonly topic: string
  /** Messages of one key stay in order; `null` goes to any partition. */
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  /** `null` is a tombstone, which is not the same as an empty value. */
  readonly value: Uint8Array | string | null
}

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** A message's place. Offsets of a partition only grow; those of Kafka may have gaps. */
export interface Position extends TopicPartition {
  readonly offset: number
}

export interface IncomingMessage extends Position {
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  /** `null` is a tombstone, as Debezium sends after a delete. */
  readonly value: Uint8Array | null
  /** Epoch milliseconds. */
  readonly publishedAt: number
  /**
   * Why this is no message: what lies here, up to this offset, cannot be read (Kafka: a batch compressed in a way that
   * nobody knows), and `value` is that as it came. It is delivered so that nothing waits behind it for ever.
   */
  readonly unreadable?: string
}

export interface Lag extends TopicPartition {
  /** The offset that the group reads next, and the one that the next message gets; `lag` is what lies between. */
  readonly committed: number
  readonly end: number
  readonly lag: number
}

/**
 * The broker does not answer. What was asked may or may not have happened: ask again (at least once). With `denied` it
 * answers that it does not know who asks: that is for an operator to mend, so that whoever starts need not wait.
 */
export class BrokerUnavailable extends Schema.TaggedError<BrokerUnavailable>()("BrokerUnavailable", {
  cause: Schema.Defect(),
  denied: Schema.optionalKey(Schema.Boolean)
}) {}

/** The broker refuses this very message for good; sending it again is refused again. An answer, not an outage. */
export class MessageRefused extends Schema.TaggedError<MessageRefused>()("MessageRefused", {
  reason: Schema.Literals(["TOO_LARGE", "UNKNOWN_TOPIC", "INVALID_TOPIC", "FORBIDDEN", "OTHER"]),
  topic: Schema.String,
  detail: Schema.String
}) {}

/**
 * These partitions are no longer this member's (or were lost and won back since the message was delivered): another
 * one delivers again what was not committed. The other positions of the same commit are committed.
 */
export class PartitionLost extends Schema.TaggedError<PartitionLost>()("PartitionLost", {
  partitions: Schema.Array(Schema.Struct({ topic: Schema.String, partition: Schema.Int }))
}) {}

/** These topics were not made, and why: a name that is none, no right, more replicas than there are nodes. */
export class TopicsRefused extends Schema.TaggedError<TopicsRefused>()("TopicsRefused", {
  refusals: Schema.Array(Schema.Struct({ topic: Schema.String, detail: Schema.String }))
}) {
  override get message(): string {
    return this.refusals.map(({ detail, topic }) => `${topic}: ${detail}`).join("; ")
  }
}

export interface TopicOptions {
  /** Keys are spread over the partitions: their number should not change once there are messages. */
  readonly partitions?: number | undefined
  /** On how many nodes each message is kept, where there are several. */
  readonly replicas?: number | undefined
}

/** One member of a consumer group. It leaves the group when its scope closes; commit before that. */
export interface Subscription {
  /**
   * The next messages, at least one and at most `messagesMax`, each partition's in order; waits until there are some,
   * through outages too, and may be interrupted. A partition with `inFlightMax` messages not yet committed gives no
   * more until some are. What was delivered and never committed is delivered again only after the partition has left
   * `assignment`: who fails to process a message keeps it and tries again.
   */
  readonly poll: (messagesMax: number) => Effect.Effect<ReadonlyArray<IncomingMessage>>
  /**
   * Everything up to and including these positions has had its effect; of several in a partition the last one counts.
   * Only what this member was given since it was last assigned the partition can be committed.
   */
  readonly commit: (
    positions: ReadonlyArray<Position>
  ) => Effect.Effect<void, PartitionLost | BrokerUnavailable>
  /** Of all partitions of the group's topics that this member subscribed to, whoever they are assigned to. */
  readonly lag: Effect.Effect<ReadonlyArray<Lag>, BrokerUnavailable>
  /**
   * The partitions that are this member's now. One that moves to another member leaves only when all that was
   * delivered is committed, or when that takes too long. Whoever still works on messages of a partition that left
   * should stop: they are delivered again, here too if the partition comes back.
   */
  readonly assignment: Effect.Effect<ReadonlyArray<TopicPartition>>
}

export interface SubscribeOptions {
  /** Members of one group share the partitions. A new group begins at the earliest message that is kept. */
  readonly group: string
  /**
   * Topics that do not exist: brokers of our own make them; with Kafka they are waited for while the others work, and
   * `missingTopics` names them.
   */
  readonly topics: ReadonlyArray<string>
  /** Replaces the default bound of that name, for each partition. */
  readonly inFlightMax?: number | undefined
  /**
   * Ends the work on what was delivered of these partitions, which have left `assignment`. Another member is given them
   * when this has ended, unless they were lost already.
   */
  readonly onRevoked?: ((partitions: ReadonlyArray<TopicPartition>) => Effect.Effect<void>) | undefined
}

export class Broker extends Context.Service<
  Broker,
  {
    /**
     * Succeeds when the broker has made durable all that it did not refuse; the answer holds, for each message in the
     * order given, `undefined` or why it was refused. Messages of a key keep their order within a call and across the
     * calls of one `Broker`, also when calls overlap: if one of them fails, those that wait behind it fail too. What
     * follows a refused message in its key, whatever its topic, is refused within the same call: nothing overtakes it.
     */
    readonly publish: (
      messages: ReadonlyArray<OutgoingMessage>
    ) => Effect.Effect<ReadonlyArray<MessageRefused | undefined>, BrokerUnavailable>
    /** Joins a consumer group; heartbeats and rebalancing are the broker's business. */
    readonly subscribe: (
      options: SubscribeOptions
    ) => Effect.Effect<Subscription, BrokerUnavailable, Scope.Scope>
    /**
     * Removes messages older than this that every known group has committed; answers with how many. A broker that
     * keeps its own retention, as Kafka does, removes none.
     */
    readonly removeExpired: (olderThanMs: number) => Effect.Effect<number, BrokerUnavailable>
    /** Makes those of these topics that are not there; answers with their names. */
    readonly createTopics: (
      topics: ReadonlyArray<string>,
      options?: TopicOptions
    ) => Effect.Effect<ReadonlyArray<string>, TopicsRefused | BrokerUnavailable>
    /** Which of these topics do not exist and will not by themselves. */
    readonly missingTopics: (
      topics: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<string>, BrokerUnavailable>
    /** Whether the broker answers now. */
    readonly ready: Effect.Effect<boolean>
  }
>()("holdfast/services/Broker") {}

/** Kafka's rule for the names of topics, and ours for groups: it holds for every broker, so that topics can move. */
export const isTopicName = (name: string): boolean =>
  /^[A-Za-z0-9._-]{1,249}$/.test(name) && name !== "." && name !== ".."
