import { Clock, Effect, Exit, Latch, type Scope, SubscriptionRef } from "effect"
import {
  type BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  PartitionLost,
  type Position,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
  inFlightMax
} from "../../services/messaging/Broker.ts"
import {
  type GroupTimings,
  Holding,
  Holdings,
  type StoredPartition,
  assignedTo,
  checkNames,
  opened,
  subscriptionOf,
  tellAssignment
} from "../GroupMember.ts"
import {
  type Client,
  type KafkaOptions,
  findCoordinator,
  makeClient,
  offsetsTopic,
  refusedWith,
  requestTimeoutMs,
  unavailable
} from "./Client.ts"
import type { FetchAnswer, FetchedPartition, FetchedRecord } from "./FetchAnswer.ts"
import { codes, errorTypeOf, groupProtocol, isPassing } from "./Protocol.ts"

/**
 * A member of one of Kafka's consumer groups, by its classic protocol. When the group changes, a member delivers
 * nothing more, waits until what it delivered is committed (or that takes too long), and only then joins again; what it
 * keeps goes on where it was. Heartbeats and joining have a connection of their own, beside fetches and commits.
 */

export interface KafkaMemberOptions {
  readonly kafka: KafkaOptions
  readonly timings: GroupTimings
  readonly subscribe: SubscribeOptions
}

/** Named by the members to each other: all that are in a group share this rule of assignment. */
const assignmentRule = "holdfast"
/** A fetch waits this long for messages where it asks for all partitions of the node. */
const fetchWaitMs = 500
/** The same where some have enough for now: as long may these be kept waiting by the others, which are idle. */
const fetchWaitShortMs = 100
/** In one fetch, of all partitions and of one, compressed; a batch is never cut, so that it may be larger. */
const fetchBytesMax = 2_000_000
const partitionBytesMax = 250_000
/** Of one partition, and of all together: nothing more is fetched where so much waits to be delivered. */
const bufferBytesMax = 2_000_000
const buffersBytesMax = 32_000_000
/** A batch that cannot be read is fetched this often before whoever consumes it is told. */
const readsMax = 3
/** What a transaction has not committed is not seen, and what it aborted never is. */
const readCommitted = 1
const earliest = "-2"
const latest = "-1"
/** Beyond the time in which members commit what they were given. */
const rebalanceMarginMs = 5_000
const retryPauseMs = 100
/** Between attempts to fetch during an outage: how soon it is found out that it has ended. */
const retryPauseMaxMs = 1_000
/** Commits, and whatever else asks again while the group or its leaders move. */
const settleMs = 5_000
const leaveWithinMs = 2_000
/** How often topics are looked at that are missing or may get more partitions. */
const topicsEveryMs = 5_000
/** What does not work is not said again before this. */
const complainEveryMs = 30_000

interface Life {
  readonly options: KafkaMemberOptions
  readonly group: string
  readonly topics: ReadonlyArray<string>
  readonly holdings: Holdings
  /** Heartbeats, joining. */
  readonly coordination: Client
  /** Fetches, commits and questions. */
  readonly data: Client
  readonly scope: Scope.Scope
  memberId: string
  generation: number
  /** The generation whose assignment is held. */
  settledGeneration: number
  /** Whether the assignment that is held is the group's present one, as far as is known. */
  joined: boolean
  /** Whether this member, which leads the group, wants its partitions to be shared anew. */
  regroup: boolean
  /** What the assignment was made of, if this member made it: how many partitions each topic had. */
  dealt: ReadonlyMap<string, number> | undefined
  /** When the coordinator last heard of this member: the beginning of the last request that it answered. */
  heardAt: number
  /** When what was complained of, since it worked last. */
  readonly complaints: Map<string, number>
  /** The topics that do not exist, as they were named last. */
  missing: string
  /** The group's coordinator for commits, while it is known. */
  coordinator: number | undefined
  /** Nodes that are being fetched from. */
  readonly fetching: Set<number>
  /** Fetches that failed since one was answered. */
  failedFetches: number
  /** How often it was tried to read batches that cannot be read. */
  readonly unread: Map<string, number>
  readonly ids: Map<string, StoredPartition>
  /** Open while the member is in the group's present generation. */
  readonly settled: Latch.Latch
  /** Opened when there may be messages to deliver. */
  readonly stirred: Latch.Latch
  /** Opened when there may be something to fetch. */
  readonly hungry: Latch.Latch
  /** Opened when the coordinator should be asked before the next heartbeat is due. */
  readonly nudged: Latch.Latch
  readonly assignment: SubscriptionRef.SubscriptionRef<ReadonlyArray<TopicPartition>>
}

export const subscribe: (
  options: KafkaMemberOptions
) => Effect.Effect<Subscription, BrokerUnavailable, Scope.Scope> = Effect.fnUntraced(function* (options) {
  const { subscribe: asked } = options
  yield* checkNames(asked)
  const coordination = yield* makeClient(options.kafka)
  const data = yield* makeClient(options.kafka)
  const life: Life = {
    options,
    group: asked.group,
    topics: [...new Set(asked.topics)].sort(),
    holdings: new Holdings(),
    coordination,
    data,
    scope: yield* Effect.scope,
    memberId: "",
    generation: -1,
    settledGeneration: -1,
    joined: false,
    regroup: false,
    dealt: undefined,
    heardAt: yield* Clock.currentTimeMillis,
    complaints: new Map(),
    missing: "",
    coordinator: undefined,
    fetching: new Set(),
    failedFetches: 0,
    unread: new Map(),
    ids: new Map(),
    settled: Latch.makeUnsafe(),
    stirred: Latch.makeUnsafe(),
    hungry: Latch.makeUnsafe(),
    nudged: Latch.makeUnsafe(),
    assignment: yield* SubscriptionRef.make<ReadonlyArray<TopicPartition>>([])
  }
  // Whoever subscribes is told of an outage; whatever comes later is waited out.
  yield* data.refresh([offsetsTopic, ...life.topics])
  yield* noteMissing(life)
  life.coordinator = yield* findCoordinator(data, life.group, settleMs)
  // A member that cannot say goodbye is expelled when its session ends.
  yield* Effect.addFinalizer(() => Effect.ignore(leave(life)))
  yield* Effect.forkScoped(coordinate(life))
  yield* Effect.forkScoped(keepFetching(life))
  const lookEveryMs = Math.min(topicsEveryMs, life.options.timings.heartbeatMs * 5)
  yield* Effect.forkScoped(watchTopics(life, lookEveryMs))
  yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(Effect.sleep(lookEveryMs), Effect.ignore(commitPassed(life))))
  )
  return yield* subscriptionOf({
    holdings: life.holdings,
    assignment: life.assignment,
    take: (messagesMax, taken) => take(life, messagesMax, taken),
    commit: (positions) => commit(life, positions),
    lag: lag(life),
    paused: () => {
      life.hungry.openUnsafe()
      life.stirred.openUnsafe()
    }
  })
})

// Delivery

const take = Effect.fnUntraced(function* (life: Life, messagesMax: number, taken: Array<IncomingMessage>) {
  const { pollMs, sessionMs } = life.options.timings
  for (;;) {
    life.stirred.closeUnsafe()
    // Who was frozen may find itself here before its heartbeat: others may hold its partitions by now.
    if ((yield* Clock.currentTimeMillis) - life.heardAt < sessionMs) {
      life.holdings.take(messagesMax, taken)
      if (taken.length > 0) {
        life.hungry.openUnsafe()
        return taken
      }
    }
    yield* opened(life.stirred, pollMs)
  }
})

const commit = Effect.fnUntraced(function* (life: Life, positions: ReadonlyArray<Position>) {
  const { holdings } = life
  const boundMs = life.options.kafka.requestTimeoutMs ?? requestTimeoutMs
  const giveUpAt = (yield* Clock.currentTimeMillis) + boundMs
  for (;;) {
    // Looked at anew each time: the group may have moved on meanwhile.
    const { due, lost } = holdings.committable(positions)
    let again: number | undefined
    if (due.length > 0) {
      const { generation } = life
      // A connection may have ended that nobody used: the next one shows whether the broker is there.
      // Whoever stops has ten seconds in all, and this cannot be interrupted.
      const answer = yield* Effect.retry(sendCommit(life, due), { times: 1 }).pipe(
        Effect.timeoutOrElse({
          duration: boundMs,
          orElse: () => Effect.fail(unavailable(`commits are not answered in ${boundMs} ms`))
        })
      )
      for (const { partition, partitionId, topic, epoch, next } of due) {
        const code = answer.get(`${topic}/${partition}`) ?? codes.unknownMember
        const holding = holdings.byId.get(partitionId)
        const held = holding?.epoch === epoch ? holding : undefined
        if (code === codes.none) {
          if (held !== undefined) held.committed = Math.max(held.committed, next)
        } else if (code === codes.unknownMember || code === codes.illegalGeneration) {
          if (generation !== life.generation || !life.joined) again = code
          else {
            lost.push({ topic, partition })
            if (held !== undefined) holdings.byId.delete(partitionId)
          }
        } else if (code === codes.rebalanceInProgress || isPassing(code)) again = code
        else return yield* refusedWith(code, `commit of ${topic}/${partition}`)
      }
      if (again !== undefined || lost.length > 0) life.nudged.openUnsafe()
      life.hungry.openUnsafe()
      life.stirred.openUnsafe()
    }
    if (again === undefined) {
      if (lost.length === 0) return
      yield* tellAssignment(life)
      return yield* new PartitionLost({ partitions: lost })
    }
    if ((yield* Clock.currentTimeMillis) >= giveUpAt) return yield* refusedWith(again, "commit")
    yield* opened(life.settled, retryPauseMs)
    yield* Effect.sleep(retryPauseMs / 4)
  }
})

const sendCommit = Effect.fnUntraced(function* (
  life: Life,
  due: ReadonlyArray<StoredPartition & { readonly next: number }>
) {
  life.coordinator ??= yield* findCoordinator(life.data, life.group, settleMs)
  const { responses } = yield* life.data
    .ask<{
      readonly responses: ReadonlyArray<{
        readonly topic: string
        readonly partitions: ReadonlyArray<{ readonly partition: number; readonly errorCode: number }>
      }>
    }>(life.coordinator, "OffsetCommit", {
      groupId: life.group,
      groupGenerationId: life.generation,
      memberId: life.memberId,
      topics: byTopic(due).map(([topic, partitions]) => ({
        topic,
        partitions: partitions.map(({ next, partition }) => ({ partition, offset: String(next) }))
      }))
    })
    .pipe(Effect.tapError(() => Effect.sync(() => (life.coordinator = undefined))))
  const answer = new Map<string, number>()
  for (const { partitions, topic } of responses) {
    for (const { errorCode, partition } of partitions) {
      answer.set(`${topic}/${partition}`, errorCode)
      if (errorCode === codes.notCoordinator || errorCode === codes.coordinatorNotAvailable)
        life.coordinator = undefined
    }
  }
  return answer
})

/**
 * Where nothing waits, what is for no consumer is committed too, which is behind the last message that was: markers of
 * transactions, and what those left that were aborted. The group would lag for ever otherwise.
 */
const commitPassed = Effect.fnUntraced(function* (life: Life) {
  if (!life.joined) return
  const passed = [...life.holdings.byId.values()].filter(({ passed }) => passed)
  if (passed.length === 0) return
  const due = passed.map(({ position, stored }) => ({ ...stored, next: position }))
  const answer = yield* sendCommit(life, due)
  for (const [index, { next, partition, topic }] of due.entries())
    if (answer.get(`${topic}/${partition}`) === codes.none) passed[index]!.passTo(next)
})

const byTopic = <A extends TopicPartition>(
  partitions: ReadonlyArray<A>
): ReadonlyArray<readonly [string, ReadonlyArray<A>]> => {
  const topics = new Map<string, Array<A>>()
  for (const each of partitions) {
    const of = topics.get(each.topic)
    if (of === undefined) topics.set(each.topic, [each])
    else of.push(each)
  }
  return [...topics]
}

// The group

/** Stays in the group until the scope closes. */
const coordinate = Effect.fnUntraced(function* (life: Life) {
  const { heartbeatMs, sessionMs } = life.options.timings
  for (;;) {
    const outcome = yield* Effect.exit(stayMember(life))
    life.settled.closeUnsafe()
    yield* complain(life, `group ${life.group}`, outcome)
    // Others may have taken over by now. What comes back later comes back from what was committed.
    if ((yield* Clock.currentTimeMillis) - life.heardAt >= sessionMs) yield* forgetAll(life)
    yield* Effect.sleep(Math.min(heartbeatMs / 4, 500))
  }
})

const forgetAll = (life: Life): Effect.Effect<void> =>
  Effect.suspend(() => {
    life.joined = false
    life.holdings.byId.clear()
    return tellAssignment(life)
  })

/** An outage is said once in a while, a bug of ours always. */
const complain = Effect.fnUntraced(function* (
  life: Life,
  where: string,
  outcome: Exit.Exit<unknown, unknown>
) {
  if (Exit.isSuccess(outcome) || Exit.hasInterrupts(outcome)) return
  const failure = Exit.findErrorOption(outcome)
  if (failure._tag === "None") return yield* Effect.logError(`${where} failed`, outcome.cause)
  const at = yield* Clock.currentTimeMillis
  if (at - (life.complaints.get(where) ?? Number.NEGATIVE_INFINITY) < complainEveryMs) return
  life.complaints.set(where, at)
  yield* Effect.logWarning(
    "a consumer waits for the broker",
    where,
    (failure.value as BrokerUnavailable).cause
  )
})

const works = (life: Life, where: string): Effect.Effect<void> =>
  Effect.suspend(() =>
    life.complaints.delete(where) ? Effect.logInfo("the broker answers again", where) : Effect.void
  )

/** Joins, and sends heartbeats for as long as they are answered. */
const stayMember = Effect.fnUntraced(function* (life: Life) {
  const { coordination, group } = life
  const { heartbeatMs, sessionMs } = life.options.timings
  yield* coordination.refresh([offsetsTopic])
  const coordinator = yield* findCoordinator(coordination, group, settleMs)
  for (;;) {
    while (!life.joined) yield* join(life, coordinator)
    yield* opened(life.nudged, heartbeatMs)
    life.nudged.closeUnsafe()
    if ((yield* heartbeat(life, coordinator, sessionMs / 3)) && !life.regroup) continue
    life.joined = false
    life.regroup = false
    yield* handOver(life, coordinator)
  }
})

/** Whether the group is as it was. */
const heartbeat = Effect.fnUntraced(function* (life: Life, coordinator: number, withinMs: number) {
  const now = yield* Clock.currentTimeMillis
  const { errorCode } = yield* life.coordination.ask<{ readonly errorCode: number }>(
    coordinator,
    "Heartbeat",
    { groupId: life.group, groupGenerationId: life.generation, memberId: life.memberId },
    withinMs
  )
  if (errorCode === codes.none || errorCode === codes.rebalanceInProgress) life.heardAt = now
  if (errorCode === codes.none) return true
  if (errorCode === codes.rebalanceInProgress) return false
  return yield* refused(life, errorCode, "heartbeat")
})

/** A member that the group does not know begins anew. */
const refused = Effect.fnUntraced(function* (life: Life, code: number, what: string) {
  if (code === codes.unknownMember) life.memberId = ""
  if (code === codes.unknownMember || code === codes.illegalGeneration) yield* forgetAll(life)
  return yield* refusedWith(code, what)
})

/** Delivers nothing more, and waits until what was delivered is committed or that takes too long. */
const handOver = Effect.fnUntraced(function* (life: Life, coordinator: number) {
  const { handoverMs, heartbeatMs, sessionMs } = life.options.timings
  const since = yield* Clock.currentTimeMillis
  for (const holding of life.holdings.byId.values()) holding.handOver(since)
  while ([...life.holdings.byId.values()].some(({ drained }) => !drained)) {
    if ((yield* Clock.currentTimeMillis) - since >= handoverMs) return
    yield* opened(life.stirred, Math.min(heartbeatMs / 4, retryPauseMs))
    life.stirred.closeUnsafe()
    if ((yield* Clock.currentTimeMillis) - life.heardAt >= heartbeatMs)
      yield* heartbeat(life, coordinator, sessionMs / 3)
  }
})

interface Joined {
  readonly errorCode: number
  readonly generationId: number
  readonly leaderId: string
  readonly memberId: string
  readonly members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>
}

const join = Effect.fnUntraced(function* (life: Life, coordinator: number) {
  const { coordination, group, options, topics } = life
  const { handoverMs, sessionMs } = options.timings
  const rebalanceTimeout = handoverMs + rebalanceMarginMs
  // It is answered when all others have joined again.
  const withinMs = rebalanceTimeout + (options.kafka.requestTimeoutMs ?? requestTimeoutMs)
  life.settled.closeUnsafe()
  const ask = () =>
    coordination.ask<Joined>(
      coordinator,
      "JoinGroup",
      {
        groupId: group,
        sessionTimeout: sessionMs,
        rebalanceTimeout,
        memberId: life.memberId,
        protocolType: "consumer",
        groupProtocols: [{ name: assignmentRule, metadata: groupProtocol.encodeMember(topics) }]
      },
      withinMs
    )
  let answer = yield* ask()
  if (answer.errorCode === codes.memberIdRequired) {
    life.memberId = answer.memberId
    answer = yield* ask()
  }
  // The coordinator has just moved there and is still reading.
  if (answer.errorCode === codes.coordinatorLoading) return yield* Effect.sleep(retryPauseMs)
  if (answer.errorCode !== codes.none) return yield* refused(life, answer.errorCode, "join")
  const { generationId, leaderId, memberId, members } = answer
  // Without a generation between them nobody else can have held what this member held.
  const kept = memberId === life.memberId && generationId === life.settledGeneration + 1
  life.memberId = memberId
  life.generation = generationId
  const heardAt = yield* Clock.currentTimeMillis
  const dealt = leaderId === memberId ? yield* deal(coordination, members) : undefined
  const { errorCode, memberAssignment } = yield* coordination.ask<{
    readonly errorCode: number
    readonly memberAssignment: Buffer
  }>(
    coordinator,
    "SyncGroup",
    { groupId: group, generationId, memberId, groupAssignment: dealt?.assignments ?? [] },
    withinMs
  )
  // Somebody has come or gone meanwhile: on to the next generation.
  if (errorCode === codes.rebalanceInProgress) return
  if (errorCode !== codes.none) return yield* refused(life, errorCode, "join")
  yield* settle(life, groupProtocol.decodeAssignment(memberAssignment), kept)
  life.settledGeneration = generationId
  life.heardAt = heardAt
  life.dealt = dealt?.partitions
  life.joined = true
  yield* works(life, `group ${group}`)
  life.settled.openUnsafe()
  life.hungry.openUnsafe()
  life.stirred.openUnsafe()
})

/** Who gets what, as the member sees it that leads the group in this generation. */
const deal = Effect.fnUntraced(function* (client: Client, joined: Joined["members"]) {
  const members = joined.map(({ memberId, memberMetadata }) => ({
    memberId,
    topics: groupProtocol.decodeMember(memberMetadata)
  }))
  const topics = [...new Set(members.flatMap((member) => member.topics))].sort()
  const known = yield* client.refresh([offsetsTopic, ...topics])
  const counts = partitionCounts(known, topics)
  let partitionId = 0
  const partitions = [...counts].flatMap(([topic, count], topicId) =>
    Array.from({ length: count }, (_, partition) => ({
      partitionId: partitionId++,
      topicId,
      topic,
      partition,
      owner: null,
      ownerLives: false,
      epoch: 0
    }))
  )
  const assignments = members.map(({ memberId }) => {
    const own = assignedTo(memberId, { members, partitions })
    const held = byTopic(partitions.filter((each) => own.has(each.partitionId)))
    return {
      memberId,
      memberAssignment: groupProtocol.encodeAssignment(
        Object.fromEntries(held.map(([topic, of]) => [topic, of.map(({ partition }) => partition)]))
      )
    }
  })
  return { assignments, partitions: counts }
})

const partitionCounts = (known: Client["topics"], topics: Iterable<string>): ReadonlyMap<string, number> =>
  new Map(
    [...topics].flatMap((topic) => {
      const view = known.get(topic)
      // A topic whose leaders are being elected has its partitions all the same.
      return view === undefined || view.leaders.length === 0 ? [] : [[topic, view.leaders.length]]
    })
  )

/** Keeps what stays, lets go of what is others' now, and begins what is new where the group has committed. */
const settle = Effect.fnUntraced(function* (
  life: Life,
  assignment: Readonly<Record<string, ReadonlyArray<number>>>,
  kept: boolean
) {
  const { holdings } = life
  if (!kept) holdings.byId.clear()
  const stored = Object.entries(assignment).flatMap(([topic, partitions]) =>
    partitions.map((partition) => storedOf(life, topic, partition))
  )
  const own = new Set(stored.map(({ partitionId }) => partitionId))
  for (const partitionId of holdings.byId.keys()) if (!own.has(partitionId)) holdings.byId.delete(partitionId)
  // Said before the new ones are fetched: others may hold what is gone.
  yield* tellAssignment(life)
  const fresh = stored.filter(({ partitionId }) => !holdings.byId.has(partitionId))
  if (fresh.length > 0) {
    const begins = yield* committedOf(life, fresh)
    for (const one of fresh) {
      const next = begins.get(one.partitionId)!
      const room = life.options.subscribe.inFlightMax ?? inFlightMax
      holdings.byId.set(one.partitionId, new Holding(one, life.generation, next, room))
    }
  }
  for (const holding of holdings.byId.values()) holding.keep()
  yield* tellAssignment(life)
})

const storedOf = (life: Life, topic: string, partition: number): StoredPartition => {
  const place = `${topic}/${partition}`
  let stored = life.ids.get(place)
  if (stored === undefined) {
    const partitionId = life.ids.size
    life.ids.set(place, (stored = { partitionId, topicId: life.topics.indexOf(topic), topic, partition }))
  }
  return stored
}

/** Where the group reads on; where it never committed, at the earliest message. By the partitions' ids. */
const committedOf = Effect.fnUntraced(function* (life: Life, partitions: ReadonlyArray<StoredPartition>) {
  life.coordinator ??= yield* findCoordinator(life.data, life.group, settleMs)
  const { errorCode, responses } = yield* life.data
    .ask<{
      readonly errorCode: number
      readonly responses: ReadonlyArray<{
        readonly topic: string
        readonly partitions: ReadonlyArray<{
          readonly partition: number
          readonly offset: string
          readonly errorCode: number
        }>
      }>
    }>(life.coordinator, "OffsetFetch", {
      groupId: life.group,
      topics: byTopic(partitions).map(([topic, of]) => ({ topic, partitions: of }))
    })
    .pipe(Effect.tapError(() => Effect.sync(() => (life.coordinator = undefined))))
  const wrong =
    errorCode !== codes.none
      ? errorCode
      : responses.flatMap((topic) => topic.partitions).find((of) => of.errorCode !== codes.none)?.errorCode
  if (wrong !== undefined) {
    life.coordinator = undefined
    return yield* refusedWith(wrong, "committed offsets")
  }
  const offsets = new Map<number, number>()
  for (const { partitions: of, topic } of responses) {
    for (const { offset, partition } of of) {
      if (Number(offset) >= 0) offsets.set(storedOf(life, topic, partition).partitionId, Number(offset))
    }
  }
  const never = partitions.filter(({ partitionId }) => !offsets.has(partitionId))
  for (const [partitionId, offset] of yield* offsetsAt(life, never, earliest))
    offsets.set(partitionId, offset)
  return offsets
})

/** The earliest or latest offsets, by the partitions' ids. Waits a moment for leaders. */
const offsetsAt = Effect.fnUntraced(function* (
  life: Life,
  partitions: ReadonlyArray<StoredPartition>,
  timestamp: string
) {
  const giveUpAt = (yield* Clock.currentTimeMillis) + settleMs
  const offsets = new Map<number, number>()
  for (;;) {
    const missing = partitions.filter(({ partitionId }) => !offsets.has(partitionId))
    if (missing.length === 0) return offsets
    let code: number = codes.unknownTopicOrPartition
    for (const [leader, of] of byLeader(life.data, missing)) {
      if (leader < 0) continue
      const { responses } = yield* life.data.ask<{
        readonly responses: ReadonlyArray<{
          readonly topic: string
          readonly partitions: ReadonlyArray<{
            readonly partition: number
            readonly errorCode: number
            readonly offset: string
          }>
        }>
      }>(leader, "ListOffsets", {
        replicaId: -1,
        isolationLevel: readCommitted,
        topics: byTopic(of).map(([topic, each]) => ({
          topic,
          partitions: each.map(({ partition }) => ({ partition, timestamp }))
        }))
      })
      for (const { partitions: found, topic } of responses) {
        for (const { errorCode, offset, partition } of found) {
          if (errorCode !== codes.none) code = errorCode
          else offsets.set(storedOf(life, topic, partition).partitionId, Number(offset))
        }
      }
    }
    if (offsets.size === partitions.length) return offsets
    if ((yield* Clock.currentTimeMillis) >= giveUpAt || !isPassing(code))
      return yield* refusedWith(code, "offsets")
    yield* Effect.sleep(retryPauseMs)
    yield* life.data.refresh([offsetsTopic, ...life.topics])
  }
})

const byLeader = (
  client: Client,
  partitions: ReadonlyArray<StoredPartition>
): ReadonlyMap<number, ReadonlyArray<StoredPartition>> => {
  const leaders = new Map<number, Array<StoredPartition>>()
  for (const stored of partitions) {
    const leader = client.topics.get(stored.topic)?.leaders[stored.partition] ?? -1
    const of = leaders.get(leader)
    if (of === undefined) leaders.set(leader, [stored])
    else of.push(stored)
  }
  return leaders
}

/** On the other connection: the first one may be waiting for the group. */
const leave = Effect.fnUntraced(function* (life: Life) {
  if (life.memberId === "") return
  life.coordinator ??= yield* findCoordinator(life.data, life.group, leaveWithinMs)
  yield* life.data.ask(
    life.coordinator,
    "LeaveGroup",
    { groupId: life.group, memberId: life.memberId },
    leaveWithinMs
  )
})

/** Topics may come, or get more partitions; whoever leads the group then has it deal anew. */
const watchTopics = Effect.fnUntraced(function* (life: Life, everyMs: number) {
  for (;;) {
    yield* Effect.sleep(everyMs)
    const names = [...new Set([offsetsTopic, ...life.topics, ...(life.dealt?.keys() ?? [])])]
    // An outage is the others' to tell of.
    const refreshed = yield* Effect.exit(life.data.refresh(names))
    if (Exit.isFailure(refreshed)) continue
    yield* noteMissing(life)
    if (life.dealt === undefined) continue
    const counts = partitionCounts(life.data.topics, names.slice(1))
    const same = [...counts].every(([topic, count]) => life.dealt?.get(topic) === count)
    if (same || !life.joined) continue
    life.dealt = undefined
    yield* Effect.logInfo("topics have changed: the group shares its partitions anew", life.group)
    life.regroup = true
    life.nudged.openUnsafe()
  }
})

/** Names the topics that do not exist, once: whoever runs this can make them while the others work. */
const noteMissing = Effect.fnUntraced(function* (life: Life) {
  const missing = life.topics.filter(
    (topic) => life.data.topics.get(topic)?.code === codes.unknownTopicOrPartition
  )
  const named = missing.join(", ")
  if (named === life.missing) return
  life.missing = named
  if (named === "") return yield* Effect.logInfo("all topics are there", life.group)
  yield* Effect.logWarning(
    `topics do not exist and are waited for: ${named} (holdfast topics create makes them)`,
    life.group
  )
})

// Fetching

/** One fetch at a time from each node, for all partitions that it leads and whose buffers have room. */
const keepFetching = Effect.fnUntraced(function* (life: Life) {
  for (;;) {
    life.hungry.closeUnsafe()
    const wanted = hungryOf(life.holdings.byId.values())
    const waitMs = wanted.length === life.holdings.byId.size ? fetchWaitMs : fetchWaitShortMs
    const leaders = byLeader(
      life.data,
      wanted.map(({ stored }) => stored)
    )
    for (const [leader, partitions] of leaders) {
      if (leader < 0 || life.fetching.has(leader)) continue
      life.fetching.add(leader)
      yield* fetchFrom(life, leader, partitions, waitMs).pipe(
        Effect.exit,
        Effect.flatMap((outcome) =>
          Exit.isSuccess(outcome) ? Effect.void : afterFailedFetch(life, leader, outcome)
        ),
        Effect.ensuring(
          Effect.sync(() => {
            life.fetching.delete(leader)
            life.hungry.openUnsafe()
          })
        ),
        Effect.forkIn(life.scope)
      )
    }
    if (leaders.has(-1)) {
      yield* Effect.sleep(retryPauseMs)
      yield* Effect.ignore(life.data.refresh([offsetsTopic, ...life.topics]))
      continue
    }
    yield* opened(life.hungry, life.options.timings.pollMs)
  }
})

const afterFailedFetch = Effect.fnUntraced(function* (
  life: Life,
  leader: number,
  outcome: Exit.Exit<unknown, unknown>
) {
  yield* complain(life, `fetch from node ${leader}`, outcome)
  yield* Effect.sleep(Math.min(retryPauseMaxMs, retryPauseMs * 2 ** Math.min(life.failedFetches++, 10)))
  yield* Effect.ignore(life.data.refresh([offsetsTopic, ...life.topics]))
})

/** Messages are fetched ahead of those that may be delivered, up to a bound. */
const hungryOf = (holdings: Iterable<Holding>): ReadonlyArray<Holding> => {
  let total = 0
  return [...holdings].filter(({ buffer, handingOverSince, inFlightMax: countMax, paused }) => {
    let bytes = 0
    for (const { value } of buffer) bytes += value?.byteLength ?? 0
    total += bytes
    if (paused || handingOverSince !== undefined) return false
    return (
      buffer.length === 0 || (buffer.length < countMax && bytes < bufferBytesMax && total < buffersBytesMax)
    )
  })
}

const fetchFrom = Effect.fnUntraced(function* (
  life: Life,
  leader: number,
  partitions: ReadonlyArray<StoredPartition>,
  waitMs: number
) {
  const { byId } = life.holdings
  const asked = new Map<number, { readonly holding: Holding; readonly from: number }>()
  const wanted = partitions.flatMap((stored) => {
    // It may have been lost since it was found to be hungry.
    const holding = byId.get(stored.partitionId)
    if (holding === undefined) return []
    asked.set(stored.partitionId, { holding, from: holding.position })
    return [{ ...stored, from: holding.position }]
  })
  if (wanted.length === 0) return
  const { errorCode, topics } = yield* life.data.ask<FetchAnswer>(
    leader,
    "Fetch",
    {
      maxWaitTime: waitMs,
      minBytes: 1,
      maxBytes: fetchBytesMax,
      isolationLevel: readCommitted,
      topics: byTopic(wanted).map(([topic, of]) => ({
        topic,
        partitions: of.map(({ from, partition }) => ({
          partition,
          fetchOffset: String(from),
          maxBytes: partitionBytesMax
        }))
      }))
    },
    waitMs + (life.options.kafka.requestTimeoutMs ?? requestTimeoutMs)
  )
  if (errorCode !== codes.none) return yield* refusedWith(errorCode, `fetch from node ${leader}`)
  let stale = false
  const outOfRange: Array<Holding> = []
  for (const { partitions: fetched, topic } of topics) {
    for (const found of fetched) {
      const of = asked.get(storedOf(life, topic, found.partition).partitionId)
      // Lost or let go of, or taken back from whoever was given it.
      if (of === undefined || byId.get(of.holding.stored.partitionId) !== of.holding) continue
      const { from, holding } = of
      if (holding.position !== from || holding.handingOverSince !== undefined) continue
      if (found.errorCode === codes.none) yield* accept(life, holding, from, found)
      else if (found.errorCode === codes.offsetOutOfRange) outOfRange.push(holding)
      else stale = true
      if (found.errorCode !== codes.none && !isPassing(found.errorCode) && !outOfRange.includes(holding))
        return yield* unavailable(`${topic}/${found.partition}: ${errorTypeOf(found.errorCode)}`)
    }
  }
  life.failedFetches = 0
  yield* works(life, `fetch from node ${leader}`)
  life.stirred.openUnsafe()
  if (outOfRange.length > 0) yield* beginAgain(life, outOfRange)
  if (stale) return yield* unavailable(`node ${leader} does not lead all of its partitions`)
})

const accept = Effect.fnUntraced(function* (
  life: Life,
  holding: Holding,
  from: number,
  { next, records, unreadable }: FetchedPartition
) {
  const { stored } = holding
  holding.accept(records.filter(({ offset }) => offset >= from).map((record) => incomingOf(stored, record)))
  // Behind what is not for consumers, too.
  if (next !== undefined) holding.position = Math.max(holding.position, next)
  if (unreadable === undefined) return
  const { bytes, first, last, reason, timestamp } = unreadable
  const { partition, topic } = stored
  const where = `${topic}/${partition} ${first}`
  const reads = (life.unread.get(where) ?? 0) + 1
  life.unread.set(where, reads)
  // It may have been damaged on its way to us: then it comes whole another time.
  if (reads < readsMax) return
  life.unread.delete(where)
  yield* Effect.logError("a batch of messages cannot be read and is handed over as it came", {
    topic,
    partition,
    first,
    last,
    reason
  })
  holding.accept([
    {
      topic,
      partition,
      offset: last,
      key: null,
      headers: {},
      value: bytes,
      publishedAt: timestamp,
      unreadable: `the batch of offsets ${first} to ${last}: ${reason}`
    }
  ])
})

const incomingOf = ({ partition, topic }: StoredPartition, record: FetchedRecord): IncomingMessage => ({
  topic,
  partition,
  offset: record.offset,
  key: record.key,
  headers: record.headers,
  value: record.value,
  publishedAt: record.timestamp
})

/** What should come next is no longer kept, or the partition has lost its end: everything that there is comes again. */
const beginAgain = Effect.fnUntraced(function* (life: Life, holdings: ReadonlyArray<Holding>) {
  const begins = yield* offsetsAt(
    life,
    holdings.map(({ stored }) => stored),
    earliest
  )
  for (const holding of holdings) {
    const { partition, partitionId, topic } = holding.stored
    const next = begins.get(partitionId)
    if (next === undefined || life.holdings.byId.get(partitionId) !== holding) continue
    yield* Effect.logWarning("messages are gone that were not read: reading on at the earliest", {
      topic,
      partition,
      from: holding.position,
      earliest: next
    })
    const { inFlightMax: room } = holding
    life.holdings.byId.set(partitionId, new Holding(holding.stored, life.generation, next, room))
  }
})

// Lag

const lag = (life: Life): Effect.Effect<ReadonlyArray<Lag>, BrokerUnavailable> =>
  Effect.gen(function* () {
    yield* life.data.refresh([offsetsTopic, ...life.topics])
    const partitions = [...partitionCounts(life.data.topics, life.topics)].flatMap(([topic, count]) =>
      Array.from({ length: count }, (_, partition) => storedOf(life, topic, partition))
    )
    if (partitions.length === 0) return []
    const ends = yield* offsetsAt(life, partitions, latest)
    const committed = yield* committedOf(life, partitions)
    return partitions.map(({ partition, partitionId, topic }) => {
      const end = ends.get(partitionId)!
      const at = committed.get(partitionId)!
      return { topic, partition, committed: at, end, lag: Math.max(0, end - at) }
    })
  })
