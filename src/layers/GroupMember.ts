import { Clock, Effect, Exit, Latch, Result, Scope } from "effect"
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
} from "../services/messaging/Broker.ts"
import {
  type GroupTimings,
  Holding,
  Holdings,
  checkNames,
  opened,
  revoke,
  subscriptionOf
} from "./Holdings.ts"

/**
 * A member of a consumer group over a store that knows locks: whoever has a partition's lock is given its messages, and
 * the lock goes with the session of the process that has it. Each process takes its share of a topic's partitions, as
 * many as there are for each process, and lets go of more once that is committed.
 */

export interface StoredPartition extends TopicPartition {
  readonly partitionId: number
  readonly topicId: number
}

export interface Member {
  readonly group: string
  readonly topics: ReadonlyArray<string>
  /** The partitions whose locks this member has: in a process, locks do not tell its members apart. */
  readonly held: Set<number>
}

/** A group at one moment, as a process sees it. */
export interface GroupState {
  /** The session that the locks of this process belong to: when it is another one, they are gone. */
  readonly session: number
  readonly partitions: ReadonlyArray<StoredPartition>
  /** How many processes take part, by the topic's id. */
  readonly processes: ReadonlyMap<number, number>
  /** Partitions that other processes have. */
  readonly taken: ReadonlySet<number>
}

export interface Wanted {
  readonly partitionId: number
  readonly from: number
  readonly messagesMax: number
}

/** Offsets are those to be read next. */
export interface At {
  readonly partitionId: number
  readonly next: number
}

/** What the members of a process ask of their store. Each is one atomic step. */
export interface GroupStore {
  /** The members of this process. */
  readonly members: Set<Member>
  /** Makes the topics and the group's offsets (earliest), takes part in the group, and tells the others. */
  readonly join: (member: Member, now: number) => Effect.Effect<void, BrokerUnavailable>
  /** A sign of life. */
  readonly look: (member: Member, now: number) => Effect.Effect<GroupState, BrokerUnavailable>
  /** Locks those of these partitions that nobody has. */
  readonly claim: (
    member: Member,
    partitionIds: ReadonlyArray<number>
  ) => Effect.Effect<ReadonlyArray<At>, BrokerUnavailable>
  /** Gives up the locks and tells the others. */
  readonly release: (
    member: Member,
    partitionIds: ReadonlyArray<number>
  ) => Effect.Effect<void, BrokerUnavailable>
  /** Commits on the session that has the locks; answers whether it is still the one. Never goes back. */
  readonly commit: (
    member: Member,
    session: number,
    commits: ReadonlyArray<At>,
    now: number
  ) => Effect.Effect<boolean, BrokerUnavailable>
  /** Gives up everything and tells the others. */
  readonly leave: (member: Member) => Effect.Effect<void, BrokerUnavailable>
  /** For each partition what there is, in order; it may hold back some for their size, never all. */
  readonly fetch: (wanted: ReadonlyArray<Wanted>) => Effect.Effect<Fetched, BrokerUnavailable>
  readonly lag: (
    group: string,
    topics: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<Lag>, BrokerUnavailable>
}

export type Fetched = ReadonlyMap<
  number,
  { readonly messages: ReadonlyArray<IncomingMessage>; readonly mayHaveMore: boolean }
>

/** What a store tells the members of its process. `undefined`: anything may have happened. */
export type WakeUp = { readonly topicIds: ReadonlySet<number> } | { readonly group: string } | undefined

/** The members of this process that want to be told. */
export type Sleepers = Set<(wakeUp: WakeUp) => void>

export const wake = (sleepers: Sleepers, wakeUp: WakeUp): void => {
  for (const sleeper of sleepers) sleeper(wakeUp)
}

/** How many of the partitions one of a process' members should hold. */
export const shareOf = (partitions: number, processes: number, members: number, index: number): number =>
  Math.floor((Math.ceil(partitions / Math.max(1, processes)) + index) / members)

export interface MemberOptions {
  readonly store: GroupStore
  readonly sleepers: Sleepers
  readonly timings: GroupTimings
  readonly subscribe: SubscribeOptions
}

interface Life {
  readonly options: MemberOptions
  readonly scope: Scope.Scope
  readonly holdings: Holdings
  readonly member: Member
  readonly stored: Map<Holding, StoredPartition>
  session: number
  /** When the store last heard of this member: the beginning of the last look that was answered. */
  heardAt: number
  /** Opened when there may be messages, or room for them. */
  readonly stirred: Latch.Latch
  /** Opened when the group may have changed. */
  readonly nudged: Latch.Latch
}

export const subscribe: (
  options: MemberOptions
) => Effect.Effect<Subscription, BrokerUnavailable, Scope.Scope> = Effect.fnUntraced(function* (options) {
  const { store, sleepers, subscribe: asked } = options
  yield* checkNames(asked)
  const member: Member = { group: asked.group, topics: [...new Set(asked.topics)].sort(), held: new Set() }
  const life: Life = {
    options,
    scope: yield* Effect.scope,
    holdings: new Holdings(),
    member,
    stored: new Map(),
    session: 0,
    heardAt: yield* Clock.currentTimeMillis,
    stirred: Latch.makeUnsafe(),
    nudged: Latch.makeUnsafe()
  }
  const sleeper = (wakeUp: WakeUp): void => {
    if (wakeUp !== undefined && "group" in wakeUp) {
      if (wakeUp.group === asked.group) life.nudged.openUnsafe()
      return
    }
    lookAgain(life, wakeUp?.topicIds)
    life.stirred.openUnsafe()
    if (wakeUp === undefined) life.nudged.openUnsafe()
  }
  const forget = Effect.sync(() => {
    sleepers.delete(sleeper)
    store.members.delete(member)
  })
  yield* Effect.acquireRelease(
    Effect.suspend(() => {
      sleepers.add(sleeper)
      store.members.add(member)
      return Effect.tapError(store.join(member, life.heardAt), () => forget)
    }),
    () =>
      // A member that cannot say goodbye loses its locks with its session.
      Effect.ensuring(
        store.leave(member).pipe(Effect.timeoutOption(options.timings.heartbeatMs), Effect.ignore),
        forget
      )
  )
  life.session = (yield* store.look(member, life.heardAt)).session
  yield* beat(life)
  yield* Effect.forkScoped(coordinate(life))
  return yield* subscriptionOf({
    holdings: life.holdings,
    take: (messagesMax, taken) => take(life, messagesMax, taken),
    commit: (positions) => commit(life, positions),
    lag: store.lag(member.group, member.topics)
  })
})

const lookAgain = ({ stored }: Life, topicIds?: ReadonlySet<number>): void => {
  for (const [holding, { topicId }] of stored)
    if (topicIds === undefined || topicIds.has(topicId)) holding.mayHaveMore = true
}

const take = Effect.fnUntraced(function* (life: Life, messagesMax: number, taken: Array<IncomingMessage>) {
  const { holdings, stirred } = life
  const { store, timings } = life.options
  for (;;) {
    stirred.closeUnsafe()
    // Who was frozen may find itself here before its coordinator: others may hold its partitions by now.
    if ((yield* Clock.currentTimeMillis) - life.heardAt < timings.sessionMs) {
      holdings.take(messagesMax, taken)
      if (taken.length > 0) return taken
      const wanted = wantedOf(life, messagesMax)
      if (wanted.length > 0) {
        const fetched = yield* Effect.result(store.fetch(wanted))
        if (Result.isSuccess(fetched)) {
          if (accept(wanted, fetched.success)) continue
        } else {
          lookAgain(life)
          yield* Effect.sleep(Math.min(timings.pollMs, timings.heartbeatMs))
          continue
        }
      }
    }
    if (!(yield* opened(stirred, timings.pollMs))) lookAgain(life)
  }
})

type WantedOf = Wanted & { readonly holding: Holding }

/** What is worth looking for. Whoever asks has to look. */
const wantedOf = ({ holdings, stored }: Life, messagesMax: number): ReadonlyArray<WantedOf> =>
  holdings.all.flatMap((holding) => {
    const room = Math.min(messagesMax, holding.room)
    if (room === 0 || holding.buffer.length > 0 || !holding.mayHaveMore) return []
    holding.mayHaveMore = false
    const { partitionId } = stored.get(holding)!
    return [{ partitionId, holding, from: holding.position, messagesMax: room }]
  })

/** Takes in what was found, where the partition has not been let go meanwhile. */
const accept = (wanted: ReadonlyArray<WantedOf>, fetched: Fetched): boolean => {
  let any = false
  for (const { from, holding, partitionId } of wanted) {
    const found = fetched.get(partitionId)
    if (found === undefined || holding.position !== from || holding.handingOverSince !== undefined) continue
    holding.accept(found.messages)
    holding.mayHaveMore ||= found.mayHaveMore
    any ||= found.messages.length > 0
  }
  return any
}

const commit = Effect.fnUntraced(function* (life: Life, positions: ReadonlyArray<Position>) {
  const { holdings, member, session, stored } = life
  const { due, lost } = holdings.committable(positions)
  if (due.length > 0) {
    const commits = due
      .map(({ holding, next }) => ({ partitionId: stored.get(holding)!.partitionId, next }))
      // In the order of the partitions, so that the commits of two members do not deadlock.
      .sort((a, b) => a.partitionId - b.partitionId)
    const now = yield* Clock.currentTimeMillis
    const done = yield* Effect.tapError(life.options.store.commit(member, session, commits, now), () =>
      Effect.sync(() => life.nudged.openUnsafe())
    )
    for (const { holding, next } of due) {
      if (!done) lost.push(holding.place)
      else holding.committed = Math.max(holding.committed, next)
      if (!done || (holding.handingOverSince !== undefined && holding.drained)) life.nudged.openUnsafe()
    }
    life.stirred.openUnsafe()
  }
  if (lost.length > 0) return yield* new PartitionLost({ partitions: lost })
})

/** Keeps the member alive until its scope closes. */
const coordinate = Effect.fnUntraced(function* (life: Life) {
  const { heartbeatMs, sessionMs } = life.options.timings
  for (;;) {
    yield* opened(life.nudged, heartbeatMs)
    life.nudged.closeUnsafe()
    const outcome = yield* Effect.exit(beat(life))
    if (Exit.isSuccess(outcome)) continue
    if (Exit.findErrorOption(outcome)._tag === "None")
      yield* Effect.logError("Heartbeat failed", outcome.cause)
    // Others may have taken over by now. What comes back later comes back from what was committed.
    if ((yield* Clock.currentTimeMillis) - life.heardAt >= sessionMs) yield* letGo(life, life.holdings.all)
    // Nudges may come in quick succession during an outage.
    yield* Effect.sleep(heartbeatMs / 4)
  }
})

/** One heartbeat, and what follows from the state of the group that it answers with. */
const beat = Effect.fnUntraced(function* (life: Life) {
  const { member, options } = life
  const { store } = options
  const now = yield* Clock.currentTimeMillis
  const silent = now - life.heardAt >= options.timings.sessionMs
  const state = yield* store.look(member, now)
  life.heardAt = now
  if (state.session !== life.session || silent) {
    const lost = state.session !== life.session
    yield* letGo(life, life.holdings.all, lost)
    if (lost) yield* store.join(member, now)
    life.session = state.session
    life.nudged.openUnsafe()
  } else yield* Effect.uninterruptible(settle(life, state, now))
  life.stirred.openUnsafe()
})

/** Holds this member's share: lets go of what is more, and claims what is missing and is nobody's. */
const settle = Effect.fnUntraced(function* (life: Life, state: GroupState, now: number) {
  const { holdings, member, options, stored } = life
  const { store, subscribe: asked, timings } = options
  const claims: Array<StoredPartition> = []
  for (const [topicId, partitions] of Map.groupBy(state.partitions, (each) => each.topicId)) {
    const { topic } = partitions[0]!
    const members = [...store.members].filter(
      (each) => each.group === member.group && each.topics.includes(topic)
    )
    const processes = state.processes.get(topicId) ?? 1
    const share = shareOf(partitions.length, processes, members.length, members.indexOf(member))
    const own = holdings.all.filter(({ place }) => place.topic === topic)
    for (const [index, holding] of own.entries()) {
      if (index < share) holding.keep()
      else holding.handOver(now)
    }
    const free = partitions.filter(
      ({ partitionId }) => !state.taken.has(partitionId) && !members.some(({ held }) => held.has(partitionId))
    )
    claims.push(...free.slice(0, Math.max(0, share - own.length)))
  }
  yield* letGo(
    life,
    holdings.all.filter(
      ({ drained, handingOverSince: since }) =>
        since !== undefined && (drained || now - since >= timings.handoverMs)
    )
  )
  if (claims.length === 0) return
  // Before it is asked for, so that no other member of this process claims it too.
  const byId = new Map(claims.map((partition) => [partition.partitionId, partition]))
  for (const partitionId of byId.keys()) member.held.add(partitionId)
  const claimed = yield* Effect.onExit(store.claim(member, [...byId.keys()]), (exit) =>
    Effect.sync(() => {
      const got = new Set(Exit.isSuccess(exit) ? exit.value.map(({ partitionId }) => partitionId) : [])
      for (const partitionId of byId.keys()) if (!got.has(partitionId)) member.held.delete(partitionId)
    })
  )
  for (const { next, partitionId } of claimed) {
    const partition = byId.get(partitionId)!
    const holding = new Holding(partition, next, asked.inFlightMax ?? inFlightMax)
    stored.set(holding, partition)
    holdings.set(holding)
  }
})

/** Gives partitions up once the work on them has ended; heartbeats go on meanwhile. */
const letGo = (life: Life, given: ReadonlyArray<Holding>, lost = false): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { holdings, member, options, stored } = life
    if (given.length === 0) return Effect.void
    const partitionIds = given.map((holding) => stored.get(holding)!.partitionId)
    for (const holding of given) stored.delete(holding)
    return revoke(holdings, options.subscribe, given).pipe(
      Effect.andThen(lost ? Effect.void : Effect.ignore(options.store.release(member, partitionIds))),
      Effect.ensuring(
        Effect.sync(() => {
          for (const partitionId of partitionIds) member.held.delete(partitionId)
          life.nudged.openUnsafe()
        })
      ),
      Effect.forkIn(life.scope, { startImmediately: true }),
      Effect.asVoid
    )
  })
