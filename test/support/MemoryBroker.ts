import { Clock, Context, Effect, Layer, Semaphore } from "effect"
import {
  Broker,
  BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  MessageRefused,
  type OutgoingMessage,
  messageBytesMax
} from "../../src/services/messaging/Broker.ts"
import {
  type Fetched,
  type GroupStore,
  type Member,
  type Sleepers,
  type StoredPartition,
  subscribe,
  wake
} from "../../src/layers/GroupMember.ts"
import { type GroupTimings, defaultTimings } from "../../src/layers/Holdings.ts"
import {
  type Prepared,
  partitionOf,
  partitionsPerTopic,
  prepare,
  refusedNames,
  tooLarge
} from "../../src/layers/Publishing.ts"

/**
 * A broker in memory for tests, with the faults of a real one at hand. Time is Effect's clock, and nothing else decides
 * what happens when: under the TestClock a run repeats exactly.
 */

interface Partition extends StoredPartition {
  readonly messages: Array<IncomingMessage>
  /** The offset of the first message that is kept. */
  first: number
  lastPublishedAt: number
}

/** The session of a replica, which ends when nothing is heard of it for a while. */
interface Session {
  readonly number: number
  heardAt: number
}

interface Group {
  /** Who takes part, by the topic's id; a session that is named twice has two members. */
  readonly sessions: Map<number, Array<Session>>
  readonly locks: Map<number, Session>
  readonly committed: Map<number, number>
}

export interface MemoryBrokerOptions {
  readonly timings?: Partial<GroupTimings>
  readonly messageBytesMax?: number
}

/** One process' connection to the broker, which can be cut. */
export interface MemoryReplica {
  readonly broker: Broker["Service"]
  /** From here on nothing gets through, either way, until `plug`. */
  readonly unplug: Effect.Effect<void>
  readonly plug: Effect.Effect<void>
  /** As `kill -9`: unplugged for good, and its members' sessions end at once. */
  readonly crash: Effect.Effect<void>
}

export class MemoryCluster extends Context.Service<
  MemoryCluster,
  {
    /** Another replica of the same broker, as another process has. */
    readonly connect: Effect.Effect<MemoryReplica>
    /** While it is on, every call of every replica fails and nothing happens. */
    readonly setOutage: (on: boolean) => Effect.Effect<void>
    /** While it is on, what is asked happens, and who asked is told that the broker is unavailable. */
    readonly setAnswersLost: (on: boolean) => Effect.Effect<void>
    /** Messages that are refused for good; they name the reason `OTHER`. */
    readonly refuse: (refused: (message: OutgoingMessage) => boolean) => Effect.Effect<void>
    /** These topics do not exist until it is said otherwise, as with Kafka. */
    readonly setMissing: (topics: ReadonlyArray<string>) => Effect.Effect<void>
    /** How long every call takes. */
    readonly setDelay: (delayMs: number) => Effect.Effect<void>
    /** How many messages of a topic a group has not committed, seen from outside. */
    readonly lag: (group: string, topic: string) => Effect.Effect<number>
  }
>()("holdfast/layers/MemoryCluster") {}

/** One replica, and the cluster to make faults and further replicas with. */
export const layer = (options: MemoryBrokerOptions = {}): Layer.Layer<Broker | MemoryCluster> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const cluster = makeCluster(options)
      const { broker } = yield* cluster.connect
      return Context.make(Broker, broker).pipe(Context.add(MemoryCluster, cluster))
    })
  )

/** The state of the broker. No effects: each method is one atomic step. */
class MemoryLog {
  readonly topics = new Map<string, ReadonlyArray<Partition>>()
  readonly partitions: Array<Partition> = []
  readonly groups = new Map<string, Group>()
  readonly sleepers: Sleepers = new Set()

  topic(topic: string): ReadonlyArray<Partition> {
    let partitions = this.topics.get(topic)
    if (partitions === undefined) {
      const topicId = this.topics.size + 1
      partitions = Array.from({ length: partitionsPerTopic }, (_, partition) => ({
        partitionId: this.partitions.length + partition,
        topicId,
        topic,
        partition,
        messages: [],
        first: 0,
        lastPublishedAt: 0
      }))
      this.partitions.push(...partitions)
      this.topics.set(topic, partitions)
    }
    return partitions
  }
  group(group: string): Group {
    let found = this.groups.get(group)
    if (found === undefined)
      this.groups.set(group, (found = { sessions: new Map(), locks: new Map(), committed: new Map() }))
    return found
  }
  endSession(session: Session): void {
    session.heardAt = Number.NEGATIVE_INFINITY
    wake(this.sleepers, undefined)
  }
  publish(all: ReadonlyArray<Prepared>, now: number): void {
    const topicIds = new Set<number>()
    for (const prepared of all) {
      const { headers, key, topic } = prepared.message
      const partition = partitionOf(prepared)
      const log = this.topic(topic)[partition]!
      log.lastPublishedAt = Math.max(log.lastPublishedAt, now)
      log.messages.push({
        topic,
        partition,
        offset: log.first + log.messages.length,
        key: key === null ? null : Buffer.from(key).toString(),
        headers,
        // A copy: the publisher may use its bytes for something else.
        value: prepared.value === null ? null : Uint8Array.from(prepared.value),
        publishedAt: log.lastPublishedAt
      })
      topicIds.add(log.topicId)
    }
    wake(this.sleepers, { topicIds })
  }
  removeExpired(before: number): number {
    let removed = 0
    for (const partition of this.partitions) {
      let floor = partition.first + partition.messages.length
      for (const { committed } of this.groups.values()) {
        floor = Math.min(floor, committed.get(partition.partitionId) ?? floor)
      }
      const kept = partition.messages.findIndex(
        ({ offset, publishedAt }) => offset >= floor || publishedAt >= before
      )
      const count = kept === -1 ? partition.messages.length : kept
      partition.messages.splice(0, count)
      partition.first += count
      removed += count
    }
    return removed
  }
}

export const makeCluster = (options: MemoryBrokerOptions = {}): MemoryCluster["Service"] => {
  const log = new MemoryLog()
  const faults = {
    outage: false,
    answersLost: false,
    refused: (_: OutgoingMessage): boolean => false,
    missing: [] as ReadonlyArray<string>,
    delayMs: 0
  }
  return MemoryCluster.of({
    connect: Effect.sync(() => connect(log, faults, options)),
    setOutage: (on) =>
      Effect.sync(() => {
        faults.outage = on
        if (!on) wake(log.sleepers, undefined)
      }),
    setAnswersLost: (on) => Effect.sync(() => void (faults.answersLost = on)),
    refuse: (refused) => Effect.sync(() => void (faults.refused = refused)),
    setMissing: (topics) => Effect.sync(() => void (faults.missing = topics)),
    setDelay: (delayMs) => Effect.sync(() => void (faults.delayMs = delayMs)),
    lag: (group, topic) => Effect.sync(() => lagOf(log, group, topic).reduce((sum, { lag }) => sum + lag, 0))
  })
}

interface Faults {
  readonly outage: boolean
  readonly answersLost: boolean
  readonly refused: (message: OutgoingMessage) => boolean
  readonly missing: ReadonlyArray<string>
  readonly delayMs: number
}

const connect = (log: MemoryLog, faults: Faults, options: MemoryBrokerOptions): MemoryReplica => {
  const timings = { ...defaultTimings, ...options.timings }
  let session: Session = { number: 1, heardAt: Number.NEGATIVE_INFINITY }
  const publishing = Semaphore.makeUnsafe(1)
  let plugged = true
  let keylessTurn = 0
  /** A call over the wire, with the faults that are on. */
  const call = <A>(step: () => A): Effect.Effect<A, BrokerUnavailable> =>
    Effect.gen(function* () {
      if (faults.delayMs > 0) yield* Effect.sleep(faults.delayMs)
      if (faults.outage || !plugged) return yield* unavailable("the broker does not answer")
      const answer = step()
      if (faults.answersLost) return yield* unavailable("the answer was lost")
      return answer
    })
  const store = storeOf(
    log,
    call,
    (now) => {
      if (now - session.heardAt >= timings.sessionMs) session = { number: session.number + 1, heardAt: now }
      session.heardAt = now
      return session
    },
    timings.sessionMs
  )
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(
    function* (messages) {
      const now = yield* Clock.currentTimeMillis
      return yield* call(() => {
        const check = tooLarge(options.messageBytesMax ?? messageBytesMax)
        const { prepared, refusals } = prepare(messages, keylessTurn++, (message, bytes) =>
          faults.missing.includes(message.topic)
            ? hasNoTopic(message.topic)
            : faults.refused(message)
              ? refusedByTest(message.topic)
              : check(message, bytes)
        )
        log.publish(prepared, now)
        return refusals
      })
    },
    // In the order of the calls, however long each takes.
    publishing.withPermits(1)
  )
  const setPlugged = (on: boolean) =>
    Effect.sync(() => {
      plugged = on
      if (on) wake(log.sleepers, undefined)
    })
  return {
    broker: Broker.of({
      publish,
      subscribe: (asked) => subscribe({ store, sleepers: log.sleepers, timings, subscribe: asked }),
      removeExpired: Effect.fnUntraced(function* (olderThanMs) {
        const before = (yield* Clock.currentTimeMillis) - olderThanMs
        return yield* call(() => log.removeExpired(before))
      }),
      createTopics: Effect.fnUntraced(function* (topics) {
        const refused = refusedNames(topics)
        if (refused !== undefined) return yield* refused
        return yield* call(() => topics.filter((topic) => !log.topics.has(topic) && log.topic(topic)))
      }),
      missingTopics: (topics) => call(() => topics.filter((topic) => faults.missing.includes(topic))),
      ready: Effect.isSuccess(call(() => undefined))
    }),
    unplug: setPlugged(false),
    plug: setPlugged(true),
    crash: Effect.andThen(
      setPlugged(false),
      Effect.sync(() => log.endSession(session))
    )
  }
}

const unavailable = (reason: string) => new BrokerUnavailable({ cause: new Error(reason) })
const hasNoTopic = (topic: string) =>
  new MessageRefused({ reason: "UNKNOWN_TOPIC", topic, detail: "there is no such topic" })
const refusedByTest = (topic: string) =>
  new MessageRefused({ reason: "OTHER", topic, detail: "refused by the test" })

/** The store as one replica reaches it, whose session it asks for. */
const storeOf = (
  log: MemoryLog,
  call: <A>(step: () => A) => Effect.Effect<A, BrokerUnavailable>,
  sessionAt: (now: number) => Session,
  sessionMs: number
): GroupStore => {
  const partitionsOf = ({ topics }: Member) => topics.flatMap((topic) => log.topic(topic))
  const timed = <A>(step: (now: number) => A) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => call(() => step(now)))
  return {
    members: new Set(),
    join: (member) =>
      timed((now) => {
        const session = sessionAt(now)
        const { committed, sessions } = log.group(member.group)
        for (const { first, partitionId, topicId } of partitionsOf(member)) {
          if (!committed.has(partitionId)) committed.set(partitionId, first)
          const of = sessions.get(topicId) ?? []
          if (!of.includes(session)) sessions.set(topicId, [...of, session])
        }
        wake(log.sleepers, { group: member.group })
      }),
    look: (member) =>
      timed((now) => {
        const session = sessionAt(now)
        const { locks, sessions } = log.group(member.group)
        const lives = ({ heardAt }: Session) => now - heardAt < sessionMs
        for (const [topicId, of] of sessions) sessions.set(topicId, of.filter(lives))
        for (const [partitionId, of] of locks) if (!lives(of)) locks.delete(partitionId)
        return {
          session: session.number,
          partitions: partitionsOf(member),
          processes: new Map([...sessions].map(([topicId, of]) => [topicId, of.length])),
          taken: new Set([...locks].filter(([, of]) => of !== session).map(([partitionId]) => partitionId))
        }
      }),
    claim: (member, partitionIds) =>
      timed((now) => {
        const session = sessionAt(now)
        const { committed, locks } = log.group(member.group)
        return partitionIds
          .filter((partitionId) => (locks.get(partitionId) ?? session) === session)
          .map((partitionId) => {
            locks.set(partitionId, session)
            return { partitionId, next: committed.get(partitionId)! }
          })
      }),
    release: (member, partitionIds) =>
      timed((now) => {
        const { locks } = log.group(member.group)
        for (const partitionId of partitionIds)
          if (locks.get(partitionId) === sessionAt(now)) locks.delete(partitionId)
        wake(log.sleepers, { group: member.group })
      }),
    leave: (member) =>
      timed((now) => {
        const { locks, sessions } = log.group(member.group)
        for (const partitionId of member.held) locks.delete(partitionId)
        for (const { topicId } of partitionsOf(member))
          sessions.set(
            topicId,
            (sessions.get(topicId) ?? []).filter((of) => of !== sessionAt(now))
          )
        wake(log.sleepers, { group: member.group })
      }),
    commit: (member, number, commits) =>
      timed((now) => {
        if (sessionAt(now).number !== number) return false
        const { committed } = log.group(member.group)
        for (const { next, partitionId } of commits)
          committed.set(partitionId, Math.max(committed.get(partitionId)!, next))
        return true
      }),
    fetch: (wanted) =>
      call((): Fetched => {
        return new Map(
          wanted.map(({ partitionId, from, messagesMax }) => {
            const { messages, first } = log.partitions[partitionId]!
            const start = Math.max(0, from - first)
            const found = messages.slice(start, start + messagesMax)
            return [partitionId, { messages: found, mayHaveMore: found.length === messagesMax }]
          })
        )
      }),
    lag: (group, topics) => call(() => topics.flatMap((topic) => lagOf(log, group, topic)))
  }
}

const lagOf = (log: MemoryLog, group: string, name: string): ReadonlyArray<Lag> => {
  const { committed: at } = log.group(group)
  return log.topic(name).map(({ partitionId, topic, partition, messages, first }) => {
    const end = first + messages.length
    const committed = at.get(partitionId) ?? first
    return { topic, partition, committed, end, lag: end - committed }
  })
}
