import { Effect, type Latch, Semaphore } from "effect"
import {
  type IncomingMessage,
  type Position,
  type SubscribeOptions,
  type Subscription,
  type TopicPartition,
  isTopicName
} from "../services/messaging/Broker.ts"

/** What a member of a consumer group holds and has been given, whatever broker it reads from. */

export interface GroupTimings {
  readonly heartbeatMs: number
  /** A member that has been silent for this long is out of the group, and gives nothing more itself. */
  readonly sessionMs: number
  /** A member keeps a partition that it must hand over for at most this long to commit what it was given. */
  readonly handoverMs: number
  /** How often a waiting poll looks by itself, should a wake-up be lost. */
  readonly pollMs: number
}

/** A session outlasts an attempt of the runner's: whoever loses a partition has nothing under way when it is another's. */
export const defaultTimings: GroupTimings = {
  heartbeatMs: 2_000,
  sessionMs: 8_000,
  handoverMs: 10_000,
  pollMs: 1_000
}

export const placeOf = ({ partition, topic }: TopicPartition): string => `${topic}/${partition}`

/** A partition in a member's hands. All offsets are those to be read next. */
export class Holding {
  readonly place: TopicPartition
  readonly inFlightMax: number
  /** Where this holding began: what lies before was delivered under another one. */
  first: number
  committed: number
  delivered: number
  /** Where to look for more. */
  position: number
  buffer: Array<IncomingMessage> = []
  handingOverSince: number | undefined
  mayHaveMore = true

  constructor({ partition, topic }: TopicPartition, next: number, inFlight: number) {
    this.place = { topic, partition }
    this.inFlightMax = inFlight
    this.first = this.committed = this.delivered = this.position = next
  }
  get room(): number {
    return this.handingOverSince === undefined
      ? Math.max(0, this.inFlightMax - (this.delivered - this.committed))
      : 0
  }
  /** Whether all that was delivered is committed. */
  get drained(): boolean {
    return this.committed >= this.delivered
  }
  handOver(now: number): void {
    if (this.handingOverSince !== undefined) return
    this.handingOverSince = now
    this.forget()
  }
  keep(): void {
    this.handingOverSince = undefined
  }
  /** Takes back what was delivered last and reached nobody. */
  giveBack(messages: ReadonlyArray<IncomingMessage>): void {
    const { offset } = messages[0]!
    // It may have been delivered under another holding.
    if (offset < this.first || offset >= this.delivered) return
    this.delivered = offset
    if (this.handingOverSince === undefined) this.buffer.unshift(...messages)
    else this.forget()
  }
  accept(messages: ReadonlyArray<IncomingMessage>): void {
    for (const message of messages) this.buffer.push(message)
    this.position = Math.max(this.position, (messages.at(-1)?.offset ?? -1) + 1)
  }
  take(messagesMax: number, into: Array<IncomingMessage>): void {
    const count = Math.min(messagesMax, this.room, this.buffer.length)
    for (const message of this.buffer.splice(0, count)) into.push(message)
    if (count > 0) this.delivered = into[into.length - 1]!.offset + 1
  }
  /** Drops what was fetched and not yet delivered. */
  private forget(): void {
    this.buffer = []
    this.position = this.delivered
    this.mayHaveMore = true
  }
}

/** No effects: everything between two awaits is one step. */
export class Holdings {
  readonly byPlace = new Map<string, Holding>()
  private turn = 0

  find(place: TopicPartition): Holding | undefined {
    return this.byPlace.get(placeOf(place))
  }
  set(holding: Holding): void {
    this.byPlace.set(placeOf(holding.place), holding)
  }
  /** Whether it is still held. */
  has(holding: Holding): boolean {
    return this.find(holding.place) === holding
  }
  delete({ place }: Holding): void {
    this.byPlace.delete(placeOf(place))
  }
  get all(): ReadonlyArray<Holding> {
    return [...this.byPlace.values()]
  }
  get assignment(): ReadonlyArray<TopicPartition> {
    return this.all
      .map(({ place }) => place)
      .sort((a, b) => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition))
  }
  /** Buffered messages, an even share of each partition; another partition is first each time. */
  take(messagesMax: number, taken: Array<IncomingMessage>): void {
    for (;;) {
      const ready = this.all.filter(({ buffer, room }) => buffer.length > 0 && room > 0)
      const left = messagesMax - taken.length
      if (ready.length === 0 || left === 0) return
      const share = Math.max(1, Math.floor(left / ready.length))
      this.turn += 1
      for (let index = 0; index < ready.length && taken.length < messagesMax; index++) {
        ready[(index + this.turn) % ready.length]!.take(Math.min(share, messagesMax - taken.length), taken)
      }
    }
  }
  /** What was taken and reached nobody is delivered again; what was being looked for is looked for again. */
  giveBack(taken: ReadonlyArray<IncomingMessage>): void {
    for (const holding of this.all) holding.mayHaveMore = true
    for (const messages of Map.groupBy(taken, placeOf).values()) this.find(messages[0]!)?.giveBack(messages)
  }
  /** The last position of each partition, told apart by whether this holding was given it. */
  committable(positions: ReadonlyArray<Position>) {
    const last = new Map<string, Position>()
    for (const position of positions) {
      const key = placeOf(position)
      if ((last.get(key)?.offset ?? -1) < position.offset) last.set(key, position)
    }
    const due: Array<{ readonly holding: Holding; readonly next: number }> = []
    const lost: Array<TopicPartition> = []
    for (const { topic, partition, offset } of last.values()) {
      const holding = this.find({ topic, partition })
      const next = offset + 1
      if (holding === undefined || next <= holding.first || next > holding.delivered)
        lost.push({ topic, partition })
      else if (next > holding.committed) due.push({ holding, next })
    }
    return { due, lost }
  }
}

/** What a member is to whoever subscribed. */
export const subscriptionOf = (member: {
  readonly holdings: Holdings
  /** Waits for messages, takes at least one, and says each that it takes also if it is interrupted. */
  readonly take: (
    messagesMax: number,
    taken: Array<IncomingMessage>
  ) => Effect.Effect<ReadonlyArray<IncomingMessage>>
  readonly commit: Subscription["commit"]
  readonly lag: Subscription["lag"]
}): Effect.Effect<Subscription> =>
  Effect.map(Semaphore.make(1), (turn) => {
    const { holdings, take } = member
    const poll = (messagesMax: number) =>
      Effect.suspend(() => {
        const taken: Array<IncomingMessage> = []
        // An interruption may come while messages are looked for, or just after some were taken.
        return Effect.onInterrupt(take(messagesMax, taken), () => Effect.sync(() => holdings.giveBack(taken)))
      })
    return {
      poll: (messagesMax) => turn.withPermits(1)(poll(messagesMax)),
      commit: (positions) => Effect.uninterruptible(member.commit(positions)),
      lag: member.lag,
      // Of this very moment: nothing is delivered of a partition that is not in it.
      assignment: Effect.sync(() => holdings.assignment)
    } satisfies Subscription
  })

/** Takes these from the member, and waits until whoever works on their messages has stopped. */
export const revoke = (
  holdings: Holdings,
  { onRevoked }: SubscribeOptions,
  revoked: ReadonlyArray<Holding>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (revoked.length === 0) return Effect.void
    for (const holding of revoked) if (holdings.has(holding)) holdings.delete(holding)
    return onRevoked?.(revoked.map(({ place }) => place)) ?? Effect.void
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
