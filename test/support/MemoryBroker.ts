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
  type GroupTimings,
  type Member,
  type Sleepers,
  type StoredPartition,
  defaultTimings,
  subscribe,
  wake
} from "../../src/layers/GroupMember.ts"
import {
  headersFrom,
  keyFrom,
  partitionsPerTopic,
  prepare,
  refusedNames
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

interface Group {
  readonly members: Map<string, { readonly topics: ReadonlyArray<string>; heardAt: number }>
  readonly offsets: Map<number, { committed: number; owner: string | null; epoch: number }>
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
    if (found === undefined) this.groups.set(group, (found = { members: new Map(), offsets: new Map() }))
    return found
  }
  /** The group's row of a partition, if the member still holds it under that epoch. */
  held({ group, memberId }: Member, partitionId: number, epoch: number) {
    const offset = this.group(group).offsets.get(partitionId)
    return offset?.owner === memberId && offset.epoch === epoch ? offset : undefined
  }
  endSession({ group, memberId }: Member): void {
    const { members, offsets } = this.group(group)
    members.delete(memberId)
    for (const offset of offsets.values()) if (offset.owner === memberId) offset.owner = null
    wake(this.sleepers, { group })
  }
  publish(prepared: ReturnType<typeof prepare>["prepared"], now: number): void {
    const topicIds = new Set<number>()
    for (const { topic, partition, key, headers, value } of prepared) {
      const log = this.topic(topic)[partition]!
      log.lastPublishedAt = Math.max(log.lastPublishedAt, now)
      log.messages.push({
        topic,
        partition,
        offset: log.first + log.messages.length,
        key: keyFrom(key),
        headers: headersFrom(headers),
        // A copy: the publisher may use its bytes for something else.
        value: value === null ? null : Uint8Array.from(value),
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
      for (const { offsets } of this.groups.values()) {
        floor = Math.min(floor, offsets.get(partition.partitionId)?.committed ?? floor)
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
  const members = new Map<string, Member>()
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
  const store = storeOf(log, call, members)
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(
    function* (messages) {
      const now = yield* Clock.currentTimeMillis
      return yield* call(() => {
        const { prepared, refusals } = prepare(messages, {
          messageBytesMax: options.messageBytesMax ?? messageBytesMax,
          keylessPartition: keylessTurn++ % partitionsPerTopic,
          refuse: (message) =>
            faults.missing.includes(message.topic)
              ? hasNoTopic(message.topic)
              : faults.refused(message)
                ? refusedByTest(message.topic)
                : undefined
        })
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
      Effect.sync(() => {
        for (const member of members.values()) log.endSession(member)
      })
    )
  }
}

const unavailable = (reason: string) => new BrokerUnavailable({ cause: new Error(reason) })
const hasNoTopic = (topic: string) =>
  new MessageRefused({ reason: "UNKNOWN_TOPIC", topic, detail: "there is no such topic" })
const refusedByTest = (topic: string) =>
  new MessageRefused({ reason: "OTHER", topic, detail: "refused by the test" })

/** The store as one replica reaches it. `members` are those that the replica's crash ends. */
const storeOf = (
  log: MemoryLog,
  call: <A>(step: () => A) => Effect.Effect<A, BrokerUnavailable>,
  members: Map<string, Member>
): GroupStore => ({
  join: (member, now) =>
    call(() => {
      const { members: all, offsets } = log.group(member.group)
      for (const { partitionId, first } of member.topics.flatMap((topic) => log.topic(topic))) {
        if (!offsets.has(partitionId)) offsets.set(partitionId, { committed: first, owner: null, epoch: 0 })
      }
      all.set(member.memberId, { topics: member.topics, heardAt: now })
      members.set(member.memberId, member)
      wake(log.sleepers, { group: member.group })
    }),
  beat: (member, now, silentSince) =>
    call(() => {
      const { members: all, offsets } = log.group(member.group)
      const self = all.get(member.memberId)
      if (self === undefined) return undefined
      self.heardAt = now
      for (const [memberId, { heardAt }] of all) {
        if (silentSince !== undefined && heardAt < silentSince) all.delete(memberId)
      }
      return {
        members: [...all].map(([memberId, { topics }]) => ({ memberId, topics })),
        partitions: member.topics.flatMap((name) =>
          log.topic(name).map(({ partitionId, topicId, topic, partition }) => {
            const { owner, epoch } = offsets.get(partitionId)!
            const ownerLives = owner !== null && all.has(owner)
            return { partitionId, topicId, topic, partition, owner, epoch, ownerLives }
          })
        )
      }
    }),
  claim: (member, claims) =>
    call(() => {
      const { offsets } = log.group(member.group)
      return claims.flatMap(({ partitionId, epoch }) => {
        const offset = offsets.get(partitionId)
        if (offset?.epoch !== epoch) return []
        offset.owner = member.memberId
        offset.epoch += 1
        return [{ partitionId, epoch: offset.epoch, next: offset.committed }]
      })
    }),
  release: (member, claims) =>
    call(() => {
      for (const { partitionId, epoch } of claims) {
        const offset = log.held(member, partitionId, epoch)
        if (offset !== undefined) offset.owner = null
      }
      wake(log.sleepers, { group: member.group })
    }),
  leave: (member) =>
    call(() => {
      members.delete(member.memberId)
      log.endSession(member)
    }),
  commit: (member, commits) =>
    call(() => {
      const done = new Set<number>()
      for (const { partitionId, epoch, next } of commits) {
        const offset = log.held(member, partitionId, epoch)
        if (offset === undefined) continue
        offset.committed = Math.max(offset.committed, next)
        done.add(partitionId)
      }
      return done
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
})

const lagOf = (log: MemoryLog, group: string, name: string): ReadonlyArray<Lag> => {
  const { offsets } = log.group(group)
  return log.topic(name).map(({ partitionId, topic, partition, messages, first }) => {
    const end = first + messages.length
    const committed = offsets.get(partitionId)?.committed ?? first
    return { topic, partition, committed, end, lag: end - committed }
  })
}
