import { Clock, Effect, Exit, Latch, Result, type Scope, Semaphore, SubscriptionRef } from "effect"
import {
  type BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  PartitionLost,
  type Position,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
  inFlightMax,
  isTopicName
} from "../services/messaging/Broker.ts"
import { nextUuid } from "../services/Uuid.ts"

/**
 * A member of a consumer group over a store of messages, memberships and offsets: what the brokers kept in PostgreSQL
 * and in memory have in common. Each member works out the same assignment from the same members, lets go of what is no
 * longer its own once that is committed, and claims what nobody alive holds. The store's `epoch` of a partition grows
 * with each claim and fences the commits of whoever held it before.
 */

export interface GroupTimings {
  readonly heartbeatMs: number
  /** A member that has been silent for this long is out of the group, and gives nothing more itself. */
  readonly sessionMs: number
  /** A member keeps a partition that it must hand over for at most this long to commit what it was given. */
  readonly handoverMs: number
  /** How often a waiting poll looks by itself, should a wake-up be lost. */
  readonly pollMs: number
}

export const defaultTimings: GroupTimings = {
  heartbeatMs: 2_000,
  sessionMs: 8_000,
  handoverMs: 10_000,
  pollMs: 1_000
}

export interface StoredPartition extends TopicPartition {
  readonly partitionId: number
  readonly topicId: number
}

export interface Member {
  readonly group: string
  readonly memberId: string
  readonly topics: ReadonlyArray<string>
}

export interface OwnedPartition extends StoredPartition {
  readonly owner: string | null
  /** Whether the owner is still in the group. */
  readonly ownerLives: boolean
  readonly epoch: number
}

/** A group at one moment, as a member sees it that subscribed to these partitions. */
export interface GroupState {
  readonly members: ReadonlyArray<{ readonly memberId: string; readonly topics: ReadonlyArray<string> }>
  readonly partitions: ReadonlyArray<OwnedPartition>
}

/** A partition as its holder knows it. */
export interface Claim {
  readonly partitionId: number
  readonly epoch: number
}

export interface Wanted {
  readonly partitionId: number
  readonly from: number
  readonly messagesMax: number
}

/** What a member asks of its store. Each is one atomic step; `next` and `from` are offsets to be read next. */
export interface GroupStore {
  /** Makes the topics, the group's offsets (earliest) and the member, and tells the others. */
  readonly join: (member: Member, now: number) => Effect.Effect<void, BrokerUnavailable>
  /** Keeps the member alive and expels those silent since before then; `undefined` when it was expelled itself. */
  readonly beat: (
    member: Member,
    now: number,
    silentSince: number | undefined
  ) => Effect.Effect<GroupState | undefined, BrokerUnavailable>
  /** Takes the partitions whose epoch is still the one seen; answers with their new epochs. */
  readonly claim: (
    member: Member,
    claims: ReadonlyArray<Claim>
  ) => Effect.Effect<ReadonlyArray<Claim & { readonly next: number }>, BrokerUnavailable>
  /** Gives up the partitions that are still the member's, and tells the others. */
  readonly release: (member: Member, claims: ReadonlyArray<Claim>) => Effect.Effect<void, BrokerUnavailable>
  /** Commits what is still the member's; answers with the partitions that were. Never goes back. */
  readonly commit: (
    member: Member,
    commits: ReadonlyArray<Claim & { readonly next: number }>,
    now: number
  ) => Effect.Effect<ReadonlySet<number>, BrokerUnavailable>
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

/** The partitions a member should hold: those of each topic are dealt in turn to the members that subscribed to it. */
export const assignedTo = (memberId: string, state: GroupState): ReadonlySet<number> => {
  const dealt = new Set<number>()
  const players = new Map<string, ReadonlyArray<string>>()
  for (const { topic, topicId, partition, partitionId } of state.partitions) {
    let members = players.get(topic)
    if (members === undefined) {
      members = state.members
        .filter(({ topics }) => topics.includes(topic))
        .map((member) => member.memberId)
        .sort()
      players.set(topic, members)
    }
    // Starting at another member for each topic, so that a member too many for one topic is not idle in all.
    if (members[(partition + topicId) % members.length] === memberId) dealt.add(partitionId)
  }
  return dealt
}

/** A partition in a member's hands. All offsets are those to be read next. */
export class Holding {
  readonly stored: StoredPartition
  readonly epoch: number
  readonly inFlightMax: number
  /** Where this holding began: what lies before was delivered under another one. */
  readonly first: number
  committed: number
  delivered: number
  position: number
  buffer: Array<IncomingMessage> = []
  paused = false
  handingOverSince: number | undefined
  mayHaveMore = true

  constructor(stored: StoredPartition, epoch: number, next: number, inFlight: number) {
    this.stored = stored
    this.epoch = epoch
    this.inFlightMax = inFlight
    this.first = this.committed = this.delivered = this.position = next
  }
  get room(): number {
    return this.paused || this.handingOverSince !== undefined
      ? 0
      : Math.max(0, this.inFlightMax - (this.delivered - this.committed))
  }
  get drained(): boolean {
    return this.committed >= this.delivered
  }
  /** Whether nothing waits or is under way, and what was looked at since is for no consumer. */
  get passed(): boolean {
    return this.drained && this.buffer.length === 0 && this.position > this.delivered
  }
  passTo(next: number): void {
    this.committed = Math.max(this.committed, next)
    this.delivered = Math.max(this.delivered, next)
  }
  handOver(now: number): void {
    if (this.handingOverSince !== undefined) return
    this.handingOverSince = now
    this.forget()
  }
  keep(): void {
    this.handingOverSince = undefined
  }
  /** Takes back what was delivered from this offset on. */
  giveBack(offset: number): void {
    if (offset < this.first || offset >= this.delivered) return
    this.delivered = offset
    this.forget()
  }
  /** Drops what was fetched and not yet delivered. */
  private forget(): void {
    this.buffer = []
    this.position = this.delivered
    this.mayHaveMore = true
  }
  accept(messages: ReadonlyArray<IncomingMessage>): void {
    const last = messages.at(-1)
    if (last === undefined) return
    for (const message of messages) this.buffer.push(message)
    this.position = last.offset + 1
  }
  take(messagesMax: number, into: Array<IncomingMessage>): number {
    const count = Math.min(messagesMax, this.room, this.buffer.length)
    if (count === 0) return 0
    for (const message of this.buffer.splice(0, count)) into.push(message)
    this.delivered = into[into.length - 1]!.offset + 1
    return count
  }
}

/** What a member holds and has been given. No effects: everything between two awaits is one step. */
export class Holdings {
  readonly byId = new Map<number, Holding>()
  private turn = 0

  find(topic: string, partition: number): Holding | undefined {
    for (const holding of this.byId.values()) {
      if (holding.stored.topic === topic && holding.stored.partition === partition) return holding
    }
    return undefined
  }
  get assignment(): ReadonlyArray<TopicPartition> {
    return [...this.byId.values()]
      .map(({ stored: { topic, partition } }) => ({ topic, partition }))
      .sort((a, b) => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition))
  }
  /** Buffered messages, an even share of each partition; another partition is first each time. */
  take(messagesMax: number, taken: Array<IncomingMessage>): void {
    for (;;) {
      const ready = [...this.byId.values()].filter(({ buffer, room }) => buffer.length > 0 && room > 0)
      const left = messagesMax - taken.length
      if (ready.length === 0 || left === 0) return
      const share = Math.max(1, Math.floor(left / ready.length))
      this.turn += 1
      for (let index = 0; index < ready.length && taken.length < messagesMax; index++) {
        ready[(index + this.turn) % ready.length]!.take(Math.min(share, messagesMax - taken.length), taken)
      }
    }
  }
  /** What is worth looking for. Whoever asks has to look. */
  wanted(messagesMax: number): ReadonlyArray<Wanted & Claim> {
    const wanted: Array<Wanted & Claim> = []
    for (const holding of this.byId.values()) {
      const room = Math.min(messagesMax, holding.room)
      if (room === 0 || holding.buffer.length > 0 || !holding.mayHaveMore) continue
      holding.mayHaveMore = false
      const { stored, epoch, position } = holding
      wanted.push({ partitionId: stored.partitionId, epoch, from: position, messagesMax: room })
    }
    return wanted
  }
  /** Takes in what was found, where the partition has not been lost or let go meanwhile. */
  accept(wanted: ReadonlyArray<Wanted & Claim>, fetched: Fetched): boolean {
    let any = false
    for (const { partitionId, epoch, from } of wanted) {
      const holding = this.byId.get(partitionId)
      const found = fetched.get(partitionId)
      if (holding?.epoch !== epoch || holding.position !== from || found === undefined) continue
      if (holding.handingOverSince !== undefined) continue
      holding.accept(found.messages)
      holding.mayHaveMore ||= found.mayHaveMore
      any ||= found.messages.length > 0
    }
    return any
  }
  /** What was taken and reached nobody is delivered again. */
  giveBack(messages: ReadonlyArray<IncomingMessage>): void {
    for (const { topic, partition, offset } of messages) this.find(topic, partition)?.giveBack(offset)
    this.lookAgain()
  }
  lookAgain(topicIds?: ReadonlySet<number>): void {
    for (const holding of this.byId.values()) {
      if (topicIds === undefined || topicIds.has(holding.stored.topicId)) holding.mayHaveMore = true
    }
  }
  /** The last position of each partition, told apart by whether this holding was given it. */
  committable(positions: ReadonlyArray<Position>): {
    readonly due: ReadonlyArray<Claim & StoredPartition & { readonly next: number }>
    readonly lost: Array<TopicPartition>
  } {
    const last = new Map<string, Position>()
    for (const position of positions) {
      const key = `${position.topic}/${position.partition}`
      if ((last.get(key)?.offset ?? -1) < position.offset) last.set(key, position)
    }
    const due: Array<Claim & StoredPartition & { readonly next: number }> = []
    const lost: Array<TopicPartition> = []
    for (const { topic, partition, offset } of last.values()) {
      const holding = this.find(topic, partition)
      const next = offset + 1
      if (holding === undefined || next <= holding.first || next > holding.delivered) {
        lost.push({ topic, partition })
      } else if (next > holding.committed) {
        due.push({ ...holding.stored, epoch: holding.epoch, next })
      }
    }
    // In the order of the partitions, so that the commits of two members do not deadlock.
    return { due: due.sort((a, b) => a.partitionId - b.partitionId), lost }
  }
}

export interface MemberOptions {
  readonly store: GroupStore
  readonly sleepers: Sleepers
  readonly timings: GroupTimings
  readonly subscribe: SubscribeOptions
}

interface Life {
  readonly options: MemberOptions
  readonly holdings: Holdings
  member: Member
  /** When the store last heard of this member: the beginning of the last beat that was answered. */
  heardAt: number
  /** Until then nobody is expelled: after an outage, the others need time to be heard too. */
  graceUntil: number
  outage: boolean
  /** Opened when there may be messages, or room for them. */
  readonly stirred: Latch.Latch
  /** Opened when the group may have changed. */
  readonly nudged: Latch.Latch
  readonly assignment: SubscriptionRef.SubscriptionRef<ReadonlyArray<TopicPartition>>
}

export const subscribe: (
  options: MemberOptions
) => Effect.Effect<Subscription, BrokerUnavailable, Scope.Scope> = Effect.fnUntraced(function* (options) {
  const { store, sleepers, subscribe: asked } = options
  yield* checkNames(asked)
  const life: Life = {
    options,
    holdings: new Holdings(),
    member: { group: asked.group, memberId: yield* nextUuid, topics: [...new Set(asked.topics)].sort() },
    heardAt: yield* Clock.currentTimeMillis,
    graceUntil: 0,
    outage: false,
    stirred: Latch.makeUnsafe(),
    nudged: Latch.makeUnsafe(),
    assignment: yield* SubscriptionRef.make<ReadonlyArray<TopicPartition>>([])
  }
  const sleeper = (wakeUp: WakeUp): void => {
    if (wakeUp !== undefined && "group" in wakeUp) {
      if (wakeUp.group === asked.group) life.nudged.openUnsafe()
      return
    }
    life.holdings.lookAgain(wakeUp?.topicIds)
    life.stirred.openUnsafe()
    if (wakeUp === undefined) life.nudged.openUnsafe()
  }
  yield* Effect.acquireRelease(
    Effect.andThen(
      Effect.sync(() => sleepers.add(sleeper)),
      Effect.tapError(store.join(life.member, life.heardAt), () =>
        Effect.sync(() => sleepers.delete(sleeper))
      )
    ),
    () =>
      Effect.andThen(
        Effect.sync(() => sleepers.delete(sleeper)),
        // A member that cannot say goodbye is expelled when its session ends.
        store.leave(life.member).pipe(Effect.timeoutOption(options.timings.heartbeatMs), Effect.ignore)
      )
  )
  yield* beat(life)
  yield* Effect.forkScoped(coordinate(life))
  return yield* subscriptionOf({
    holdings: life.holdings,
    assignment: life.assignment,
    take: (messagesMax, taken) => take(life, messagesMax, taken),
    commit: (positions) => commit(life, positions),
    lag: store.lag(life.member.group, life.member.topics),
    paused: () => life.stirred.openUnsafe()
  })
})

/** What a member is to whoever subscribed, whatever it reads from. */
export const subscriptionOf = (member: {
  readonly holdings: Holdings
  readonly assignment: SubscriptionRef.SubscriptionRef<ReadonlyArray<TopicPartition>>
  /** Waits for messages, takes at least one, and says each that it takes also if it is interrupted. */
  readonly take: (
    messagesMax: number,
    taken: Array<IncomingMessage>
  ) => Effect.Effect<ReadonlyArray<IncomingMessage>>
  readonly commit: Subscription["commit"]
  readonly lag: Subscription["lag"]
  /** A partition was paused or resumed. */
  readonly paused: () => void
}): Effect.Effect<Subscription> =>
  Effect.map(Semaphore.make(1), (turn) => {
    const { assignment, holdings, take } = member
    const poll = (messagesMax: number) =>
      Effect.suspend(() => {
        const taken: Array<IncomingMessage> = []
        // An interruption may come while messages are looked for, or just after some were taken.
        return Effect.onInterrupt(take(messagesMax, taken), () => Effect.sync(() => holdings.giveBack(taken)))
      })
    const setPaused = (paused: boolean) => (topic: string, partition: number) =>
      Effect.sync(() => {
        const holding = holdings.find(topic, partition)
        if (holding === undefined) return
        holding.paused = paused
        member.paused()
      })
    return {
      poll: (messagesMax) => turn.withPermits(1)(poll(messagesMax)),
      commit: (positions) => Effect.uninterruptible(member.commit(positions)),
      pause: setPaused(true),
      resume: setPaused(false),
      lag: member.lag,
      // Of this very moment: nothing is delivered of a partition that is not in it.
      assignment: Effect.sync(() => holdings.assignment),
      assignments: SubscriptionRef.changes(assignment)
    } satisfies Subscription
  })

/** Names of groups and topics are ours, not a caller's: a wrong one is our own bug. */
export const checkNames = ({ group, topics }: SubscribeOptions): Effect.Effect<void> =>
  Effect.forEach(
    [group, ...topics],
    (name) => (isTopicName(name) ? Effect.void : Effect.die(new Error(`"${name}" names no topic or group`))),
    { discard: true }
  )

/** Waits until the latch is opened, or for this long; answers whether it was opened. */
export const opened = (latch: Latch.Latch, waitMs: number): Effect.Effect<boolean> =>
  latch.await.pipe(
    Effect.as(true),
    Effect.timeoutOrElse({ duration: waitMs, orElse: () => Effect.succeed(false) })
  )

const take = Effect.fnUntraced(function* (life: Life, messagesMax: number, taken: Array<IncomingMessage>) {
  const { holdings, stirred } = life
  const { store, timings } = life.options
  for (;;) {
    stirred.closeUnsafe()
    // Who was frozen may find itself here before its coordinator: others may hold its partitions by now.
    const heard = (yield* Clock.currentTimeMillis) - life.heardAt < timings.sessionMs
    if (heard) {
      holdings.take(messagesMax, taken)
      if (taken.length > 0) return taken
      const wanted = holdings.wanted(messagesMax)
      if (wanted.length > 0) {
        const fetched = yield* Effect.result(store.fetch(wanted))
        if (Result.isSuccess(fetched)) {
          if (holdings.accept(wanted, fetched.success)) continue
        } else {
          holdings.lookAgain()
          yield* Effect.sleep(Math.min(timings.pollMs, timings.heartbeatMs))
          continue
        }
      }
    }
    if (!(yield* opened(stirred, timings.pollMs))) holdings.lookAgain()
  }
})

const commit = Effect.fnUntraced(function* (life: Life, positions: ReadonlyArray<Position>) {
  const { holdings, member } = life
  const { due, lost } = holdings.committable(positions)
  if (due.length > 0) {
    const done = yield* life.options.store.commit(member, due, yield* Clock.currentTimeMillis)
    for (const { partitionId, topic, partition, epoch, next } of due) {
      // The holding may have ended while the store was asked.
      const holding = holdings.byId.get(partitionId)
      const held = holding?.epoch === epoch ? holding : undefined
      if (!done.has(partitionId)) {
        lost.push({ topic, partition })
        if (held !== undefined) holdings.byId.delete(partitionId)
        life.nudged.openUnsafe()
      } else if (held !== undefined) {
        held.committed = Math.max(held.committed, next)
        if (held.handingOverSince !== undefined && held.drained) life.nudged.openUnsafe()
      }
    }
    life.stirred.openUnsafe()
  }
  if (lost.length === 0) return
  yield* tellAssignment(life)
  return yield* new PartitionLost({ partitions: lost })
})

/** Says what is held now, if that has changed. */
export const tellAssignment = (life: Pick<Life, "holdings" | "assignment">): Effect.Effect<void> =>
  Effect.suspend(() => {
    const now = life.holdings.assignment
    const before = SubscriptionRef.getUnsafe(life.assignment)
    const same =
      now.length === before.length &&
      now.every(
        ({ topic, partition }, index) =>
          before[index]!.topic === topic && before[index]!.partition === partition
      )
    return same ? Effect.void : SubscriptionRef.set(life.assignment, now)
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
    life.outage = true
    // Others may have taken over by now. What comes back later comes back from what was committed.
    if ((yield* Clock.currentTimeMillis) - life.heardAt >= sessionMs) {
      life.holdings.byId.clear()
      yield* tellAssignment(life)
    }
    // Nudges may come in quick succession during an outage.
    yield* Effect.sleep(heartbeatMs / 4)
  }
})

/** One heartbeat, and what follows from the state of the group that it answers with. */
const beat = Effect.fnUntraced(function* (life: Life) {
  const { store, timings } = life.options
  const now = yield* Clock.currentTimeMillis
  const silentSince = life.outage || now < life.graceUntil ? undefined : now - timings.sessionMs
  const state = yield* store.beat(life.member, now, silentSince)
  life.heardAt = now
  if (life.outage) {
    life.outage = false
    life.graceUntil = now + 2 * timings.heartbeatMs
    life.holdings.lookAgain()
  }
  if (state === undefined) {
    life.holdings.byId.clear()
    life.member = { ...life.member, memberId: yield* nextUuid }
    yield* store.join(life.member, now)
    life.nudged.openUnsafe()
  } else {
    yield* settle(life, state, now)
  }
  yield* tellAssignment(life)
  life.stirred.openUnsafe()
})

/** Lets go of what is not this member's any more, and claims what is and is nobody else's. */
const settle = Effect.fnUntraced(function* (life: Life, state: GroupState, now: number) {
  const { holdings, member } = life
  const { store, subscribe: asked, timings } = life.options
  const own = assignedTo(member.memberId, state)
  const releases: Array<Claim> = []
  const claims: Array<Claim> = []
  for (const row of state.partitions) {
    const { partitionId, epoch } = row
    const mine = row.owner === member.memberId
    let holding = holdings.byId.get(partitionId)
    if (holding !== undefined && (!mine || holding.epoch !== epoch)) {
      holdings.byId.delete(partitionId)
      holding = undefined
    }
    if (own.has(partitionId)) {
      holding?.keep()
      // A row of mine that I do not hold: the answer to a claim was lost.
      if (holding === undefined && (mine || !row.ownerLives)) claims.push({ partitionId, epoch })
    } else if (holding !== undefined) {
      holding.handOver(now)
      const since = holding.handingOverSince ?? now
      if (!holding.drained && now - since < timings.handoverMs) continue
      // From here on no commit of it is accepted.
      holdings.byId.delete(partitionId)
      releases.push({ partitionId, epoch })
    } else if (mine) {
      releases.push({ partitionId, epoch })
    }
  }
  if (releases.length > 0) yield* store.release(member, releases)
  if (claims.length === 0) return
  const byId = new Map(state.partitions.map((row) => [row.partitionId, row]))
  for (const { partitionId, epoch, next } of yield* store.claim(member, claims)) {
    const { topicId, topic, partition } = byId.get(partitionId)!
    const stored = { partitionId, topicId, topic, partition }
    holdings.byId.set(partitionId, new Holding(stored, epoch, next, asked.inFlightMax ?? inFlightMax))
  }
})
