import {
  Cause,
  Clock,
  type Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Latch,
  Layer,
  Metric,
  Option,
  Result,
  Schedule,
  Scope,
  Stream
} from "effect"
import { CircuitBreaker } from "effect/persistence"
import type { DatabaseUnavailable } from "../schema/Failure.ts"
import type { DeadLetterReason } from "../schema/MessageDecoding.ts"
import { groupOf } from "../schema/Topic.ts"
import {
  Broker,
  type BrokerUnavailable,
  type IncomingMessage,
  type Subscription
} from "../services/messaging/Broker.ts"
import { Db } from "../services/Db.ts"
import { DeadLetters, unreadableCode } from "../services/messaging/DeadLetters.ts"
import { FailPoint } from "../services/FailPoint.ts"
import { Backlog } from "./Backlog.ts"
import type { Consumer, Origin, Outcome, Work } from "./Consumer.ts"

/**
 * The one runner of all topics: reads, asks the operation, and commits the offset once the effect, its tracking and its
 * events are durable. Everything that was delivered is worked on at once, so that it goes through the group commit
 * together; of one partition, messages of the same key and messages about the same thing keep their order.
 *
 * An outage stops nothing but time: it is waited out, however long it takes. What can never succeed is a dead letter.
 * What is delivered again was applied before, and the operation says so.
 */

export interface RunnerOptions {
  /** Whose a message is that names no merchant. */
  readonly defaultMerchantId: string | undefined
  /** Replaces how long a refusal is asked again before it is a dead letter. */
  readonly refusalPatienceMs?: number | undefined
}

/** Messages that one consumer takes in at once, and has in hand: enough to fill both lanes of the group commit. */
const pollMax = 512
const backlogMax = 2_048
/** Bytes of messages in hand, over all consumers of the process. */
const backlogBytesMax = 32 * 1024 * 1024
/** One attempt; what takes longer is asked again, and then says whether it happened. */
const attemptMs = 10_000
/** Attempts at what fails with a bug of ours, each with a database that answers, before it is a dead letter. */
const defectsMax = 3
/**
 * A refusal is for good once it has lasted this long: what it is for may lie in another partition or topic, which have no
 * order among each other (a sku whose former item is about to be deleted).
 */
const refusalPatienceMs = 10_000
const refusalPauseMs = 100
const refusalPauseMaxMs = 2_000
/** SIGTERM: attempts that are running may end within this (CONTRACTS section 3 gives 10 s for everything). */
const farewellMs = 8_000
/** Outages one after the other that open the breaker: from then on one attempt at a time asks whether it is over. */
const outagesInARow = 8
const measureEveryMs = 5_000

/** How long to wait between attempts during an outage. */
const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("3 seconds")]).pipe(
  Schedule.jittered
)

/** What fails by outages alone is asked for without end: there is no failure left. */
const waitOut = <A, R>(
  effect: Effect.Effect<A, BrokerUnavailable | DatabaseUnavailable, R>
): Effect.Effect<A, never, R> => Effect.orDie(Effect.retry(effect, backoff))

const handled = Metric.counter("holdfast_consumer_messages_total", {
  description: "Messages by topic and outcome (applied, repeated, ignored, dead_letter)",
  incremental: true
})
const retries = Metric.counter("holdfast_consumer_retries_total", {
  description: "Attempts that were made again, by topic and cause",
  incremental: true
})
const lagMessages = Metric.gauge("holdfast_consumer_lag_messages", {
  description: "Messages of a topic that its group has not committed"
})
const oldestSeconds = Metric.gauge("holdfast_consumer_oldest_seconds", {
  description: "Age of the oldest message of a topic that this process was given and has not committed"
})
const delaySeconds = Metric.histogram("holdfast_consumer_delay_seconds", {
  description: "Time from a message's publication to its effect, by topic",
  boundaries: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600]
})

/** Failures by which a dependency says that it is away: asking again will do. All others are for good. */
const outages: ReadonlySet<unknown> = new Set([
  "BrokerUnavailable",
  "DatabaseUnavailable",
  "OperationTimedOut",
  "Overloaded",
  "CircuitBreakerError"
])
const isOutage = (failure: unknown): boolean =>
  typeof failure === "object" && failure !== null && outages.has((failure as { _tag?: unknown })._tag)

/** Consumes these topics for as long as the layer lives. */
export const layer = <E, R>(
  consumers: ReadonlyArray<Consumer<E, R>>,
  options: RunnerOptions
): Layer.Layer<never, never, R | Broker | Db | DeadLetters> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const shared: Shared = {
        broker: yield* Broker,
        db: yield* Db,
        deadLetters: yield* DeadLetters,
        failPoint: yield* FailPoint,
        breaker: yield* CircuitBreaker.make({
          tripPolicy: CircuitBreaker.consecutive(outagesInARow),
          openDuration: backoff
        }),
        options,
        clock: yield* Clock.Clock,
        metrics: yield* Effect.context<never>(),
        away: false,
        bytes: 0
      }
      // Ends them all at once: each has its own farewell.
      const members = yield* FiberSet.make<void>()
      yield* Effect.forEach(consumers, (consumer) => FiberSet.run(members, consume(shared, consumer)), {
        discard: true
      })
    })
  ).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))

interface Shared {
  readonly broker: Broker["Service"]
  readonly db: Db["Service"]
  readonly deadLetters: DeadLetters["Service"]
  readonly failPoint: typeof FailPoint.Service
  readonly breaker: CircuitBreaker.CircuitBreaker
  readonly options: RunnerOptions
  readonly clock: Clock.Clock
  /** What metrics are written with. */
  readonly metrics: Context.Context<never>
  /** Whether the last attempt of anybody met an outage. */
  away: boolean
  /** What the messages in hand weigh. */
  bytes: number
}

/** A consumer at work. */
interface Member<E, R> {
  readonly shared: Shared
  readonly consumer: Consumer<E, R>
  readonly subscription: Subscription
  readonly backlog: Backlog
  /** What is worked on, by partition; in a scope of its own, which ends when the attempts that run have ended. */
  readonly workScope: Scope.Closeable
  readonly work: Map<number, FiberSet.FiberSet<void>>
  /** Opened when there may be room for more. */
  readonly room: Latch.Latch
  /** Opened when there may be something to commit. */
  readonly stirred: Latch.Latch
  /** Open while no attempt runs. */
  readonly idle: Latch.Latch
  attempts: number
  stopping: boolean
}

/** One consumer, until it is interrupted. */
const consume = <E, R>(shared: Shared, consumer: Consumer<E, R>): Effect.Effect<void, never, R> =>
  Effect.gen(function* () {
    const { topic } = consumer
    const group = groupOf(topic)
    // A topic that has to be waited for holds up no other, and not the start either.
    const subscription = yield* waitOut(shared.broker.subscribe({ group, topics: [topic] }))
    const member: Member<E, R> = {
      shared,
      consumer,
      subscription,
      backlog: new Backlog(),
      workScope: yield* Scope.make(),
      work: new Map(),
      room: Latch.makeUnsafe(),
      stirred: Latch.makeUnsafe(),
      idle: Latch.makeUnsafe(true),
      attempts: 0,
      stopping: false
    }
    const taking = yield* Effect.forkScoped(take(member))
    const committing = yield* Effect.forkScoped(commitAsDone(member))
    yield* Effect.forkScoped(Stream.runForEach(subscription.assignments, () => letGo(member)))
    yield* Effect.forkScoped(Effect.repeat(measure(member), Schedule.spaced(measureEveryMs)))
    // Added last and so run first, while the member is still in its group.
    yield* Effect.addFinalizer(() => farewell(member, [taking, committing]))
    yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.logError(`the consumer of ${consumer.topic} died`, cause)
    )
  ) as Effect.Effect<void, never, R>

const hasRoom = <E, R>({ backlog, shared }: Member<E, R>): boolean =>
  backlog.count < backlogMax && shared.bytes < backlogBytesMax

/** Takes messages in, as long as there is room. */
const take = Effect.fnUntraced(function* <E, R>(member: Member<E, R>) {
  for (;;) {
    member.room.closeUnsafe()
    if (hasRoom(member)) {
      for (const message of yield* member.subscription.poll(pollMax)) yield* admit(member, message)
    } else {
      // The bytes may be another consumer's, whose room is not ours to hear of.
      yield* Effect.timeoutOption(member.room.await, "100 millis")
    }
  }
})

/** Begins the work on a message; it waits there for those that are before it. */
const admit = <E, R>(member: Member<E, R>, message: IncomingMessage): Effect.Effect<void, never, R> =>
  Effect.suspend(() =>
    // The partition went away and came back: what was delivered before is void, and comes again.
    member.backlog.isRedelivery(message)
      ? Effect.andThen(drop(member, message.partition), begin(member, message))
      : begin(member, message)
  )

const begin = <E, R>(member: Member<E, R>, message: IncomingMessage): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const { backlog, consumer, shared } = member
    const read =
      message.unreadable === undefined
        ? consumer.read(message, { merchantId: shared.options.defaultMerchantId })
        : Result.fail({ code: unreadableCode, detail: message.unreadable })
    const keys: Array<string> = []
    if (message.key !== null) keys.push(`key ${message.key}`)
    if (Result.isSuccess(read) && read.success.aggregate !== undefined) {
      keys.push(`about ${read.success.aggregate}`)
    }
    const { before, delivery } = backlog.add(message, keys)
    shared.bytes += delivery.bytes
    const task: Task<E, R> = {
      member,
      message,
      finish: (outcome) => {
        backlog.done(delivery, keys)
        Deferred.doneUnsafe(delivery.finished, Exit.void)
        member.stirred.openUnsafe()
        count(shared, consumer.topic, outcome, message)
      }
    }
    const work = Result.isSuccess(read) ? apply(task, read.success) : bury(task, read.failure)
    const inOrder =
      before.size === 0
        ? work
        : Effect.andThen(
            Effect.forEach(before, ({ finished }) => Deferred.await(finished), { discard: true }),
            work
          )
    const fibers = member.work.get(message.partition)
    return fibers === undefined
      ? Effect.flatMap(Scope.provide(FiberSet.make<void>(), member.workScope), (made) => {
          member.work.set(message.partition, made)
          return FiberSet.run(made, inOrder)
        })
      : FiberSet.run(fibers, inOrder)
  })

/** A message that is worked on. */
interface Task<E, R> {
  readonly member: Member<E, R>
  readonly message: IncomingMessage
  /** It has had its effect, or is a dead letter: to be said in the same step in which that is known. */
  readonly finish: (outcome: Outcome | "dead_letter") => void
}

/** Asks the operation until it has an answer. As a rule the first time is enough. */
const apply = <E, R>(task: Task<E, R>, work: Work<E, R>): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const { member, message } = task
    const { shared } = member
    const origin = originOf(message)
    const attempt = Effect.suspend(() =>
      work.run({ ...origin, deadline: shared.clock.currentTimeMillisUnsafe() + attemptMs })
    )
    if (shared.away) return insist(task, attempt)
    const first = counted(task, attempt, (outcome) => outcome)
    return Effect.catchCause(first, (cause) => insist(task, attempt, cause))
  })

/**
 * Asks until there is an answer. An outage is waited out: all that wait ask through one breaker, so that one at a time
 * sees whether it is over. A refusal is asked again for a while, and a bug a few times. `met` is what the attempt before
 * met.
 */
const insist: <E, R>(
  task: Task<E, R>,
  attempt: Effect.Effect<Outcome, E, R>,
  met?: Cause.Cause<E>
) => Effect.Effect<void, never, R> = Effect.fnUntraced(function* <E, R>(
  task: Task<E, R>,
  attempt: Effect.Effect<Outcome, E, R>,
  met?: Cause.Cause<E>
) {
  const { shared } = task.member
  const { topic } = task.message
  const guarded = counted(
    task,
    shared.breaker.execute(attempt, { key: "database", classify: outageOf }),
    (outcome) => outcome
  )
  const answered = Effect.exit(Effect.retry(retried(topic, guarded), { schedule: backoff, while: isOutage }))
  const patienceMs = shared.options.refusalPatienceMs ?? refusalPatienceMs
  let refusedSince: number | undefined
  let pauseMs = refusalPauseMs
  let defects = 0
  for (let cause = met as Cause.Cause<unknown> | undefined; ;) {
    if (cause !== undefined) {
      const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
      if (failure !== undefined) yield* countRetry(topic, tagOf(failure))
      if (failure === undefined) {
        if (Cause.hasInterrupts(cause)) return yield* Effect.interrupt
        defects += 1
        yield* Effect.logError(`a message of ${topic} meets a bug`, cause)
        yield* countRetry(topic, "defect")
        if (defects === defectsMax) {
          return yield* bury(task, { code: "DEFECT", detail: "cannot be applied; the logs say why" })
        }
        // It may be the look of an outage: the next attempt is made with a database that answers.
        yield* waitOut(shared.db.maintain("SELECT 1", []))
      } else if (isOutage(failure)) {
        shared.away = true
      } else {
        const now = shared.clock.currentTimeMillisUnsafe()
        refusedSince ??= now
        if (now - refusedSince >= patienceMs) return yield* bury(task, refusalOf(failure))
        yield* Effect.sleep(pauseMs)
        pauseMs = Math.min(2 * pauseMs, refusalPauseMaxMs)
      }
    }
    const exit = yield* answered
    if (Exit.isSuccess(exit)) {
      shared.away = false
      return
    }
    cause = exit.cause
  }
})

const outageOf = (exit: Exit.Exit<unknown, unknown>) =>
  isOutage(Option.getOrUndefined(Exit.findErrorOption(exit)))
    ? CircuitBreaker.failure()
    : CircuitBreaker.success

/** Makes a dead letter of it: durable when this ends. */
const bury = <E, R>(task: Task<E, R>, reason: DeadLetterReason): Effect.Effect<void> => {
  const { member, message } = task
  const recording = counted(task, member.shared.deadLetters.record(message, reason), () => "dead_letter")
  return waitOut(retried(message.topic, recording))
}

/** Counts an attempt that an outage ended: it will be made again. */
const retried = <A, E, R>(topic: string, attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tapError(attempt, (failure) => (isOutage(failure) ? countRetry(topic, tagOf(failure)) : Effect.void))

/** An attempt that has begun may end, also when the service is told to stop; none begins after that. */
const counted = <A, E, R, E2, R2>(
  { finish, member }: Task<E2, R2>,
  attempt: Effect.Effect<A, E, R>,
  outcomeOf: (answer: A) => Outcome | "dead_letter"
): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    if (member.stopping) return Effect.never
    member.attempts += 1
    member.idle.closeUnsafe()
    return Effect.onExit(attempt, (exit) => {
      if (Exit.isSuccess(exit)) finish(outcomeOf(exit.value))
      member.attempts -= 1
      if (member.attempts === 0) member.idle.openUnsafe()
      return Effect.void
    }) as Effect.Effect<never, E, R>
  })

const commitAsDone = Effect.fnUntraced(function* <E, R>(member: Member<E, R>) {
  for (;;) {
    yield* member.stirred.await
    member.stirred.closeUnsafe()
    yield* waitOut(commit(member))
  }
})

/** Commits each partition up to the first message that is not done. */
const commit = Effect.fnUntraced(function* <E, R>(member: Member<E, R>) {
  const { backlog, shared, subscription } = member
  const positions = backlog.committable()
  if (positions.length === 0) return
  yield* shared.failPoint("afterEffectBeforeOffset")
  // What is not ours any more is another's to commit, and what came after it may be ours again: it has its own turn.
  yield* Effect.catchTag(subscription.commit(positions), "PartitionLost", () => Effect.void)
  forget(member, () => backlog.forgetUntil(positions))
})

const forget = <E, R>(member: Member<E, R>, change: () => void): void => {
  const { backlog, shared } = member
  const before = backlog.bytes
  change()
  shared.bytes += backlog.bytes - before
  member.room.openUnsafe()
}

/** Stops the work on partitions that are another's by now: they are delivered again, and order counts there. */
const letGo = <E, R>(member: Member<E, R>): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { backlog, consumer, subscription } = member
    const assigned = yield* subscription.assignment
    for (const partition of backlog.partitions) {
      const kept = assigned.some((own) => own.topic === consumer.topic && own.partition === partition)
      if (!kept) yield* drop(member, partition)
    }
  })

/** Forgets first: what ends here is not to be committed. */
const drop = <E, R>(member: Member<E, R>, partition: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    forget(member, () => member.backlog.forgetPartition(partition))
    const fibers = member.work.get(partition)
    return fibers === undefined ? Effect.void : FiberSet.clear(fibers)
  })

/** Takes no more, lets the attempts that run end, and commits what is done. */
const farewell = Effect.fnUntraced(function* <E, R>(
  member: Member<E, R>,
  loops: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
) {
  member.stopping = true
  yield* Fiber.interruptAll(loops)
  yield* Effect.timeoutOption(Effect.interruptible(member.idle.await), farewellMs)
  yield* Scope.close(member.workScope, Exit.void)
  yield* Effect.timeoutOption(Effect.interruptible(commit(member)), farewellMs / 4).pipe(Effect.ignore)
})

const measure = Effect.fnUntraced(function* <E, R>({ backlog, consumer, subscription }: Member<E, R>) {
  const attributes = { topic: consumer.topic }
  const lag = yield* Effect.option(subscription.lag)
  if (Option.isSome(lag)) {
    const messages = lag.value.reduce((sum, partition) => sum + partition.lag, 0)
    yield* Metric.update(Metric.withAttributes(lagMessages, attributes), messages)
  }
  const oldest = backlog.oldestPublishedAt
  const now = yield* Clock.currentTimeMillis
  const age = oldest === undefined ? 0 : Math.max(0, now - oldest) / 1000
  yield* Metric.update(Metric.withAttributes(oldestSeconds, attributes), age)
})

/** Metrics with their attributes, made once each: by topic and outcome they are few. */
const outcomes = new Map<string, typeof handled>()
const delays = new Map<string, typeof delaySeconds>()
const count = (
  { clock, metrics }: Shared,
  topic: string,
  outcome: Outcome | "dead_letter",
  { publishedAt }: IncomingMessage
): void => {
  const key = `${topic} ${outcome}`
  let messages = outcomes.get(key)
  if (messages === undefined) {
    outcomes.set(key, (messages = Metric.withAttributes(handled, { topic, outcome })))
  }
  let delay = delays.get(topic)
  if (delay === undefined) delays.set(topic, (delay = Metric.withAttributes(delaySeconds, { topic })))
  messages.updateUnsafe(1, metrics)
  delay.updateUnsafe(Math.max(0, clock.currentTimeMillisUnsafe() - publishedAt) / 1000, metrics)
}
const countRetry = (topic: string, cause: string) =>
  Metric.update(Metric.withAttributes(retries, { topic, cause }), 1)

const tagOf = (failure: unknown): string => String((failure as { readonly _tag?: unknown })._tag ?? "unknown")

/** A failure of the operation in the words of a dead letter: `ItemConflict` is `ITEM_CONFLICT`. */
const refusalOf = (failure: unknown): DeadLetterReason => {
  const { _tag, ...fields } = failure as { readonly _tag?: string }
  const code = (_tag ?? "REFUSED").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase()
  return { code, detail: JSON.stringify(fields) }
}

const requestIdPattern = /^[\x21-\x7e]{1,128}$/
const traceparentPattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

/** The request that a message is part of goes on with it, into the books and out with what follows; else its place does. */
const originOf = ({ headers, offset, partition, topic }: IncomingMessage): Omit<Origin, "deadline"> => {
  const given = headers["x-request-id"]
  const traceparent = headers["traceparent"]
  return {
    actor: topic,
    requestId:
      given !== undefined && requestIdPattern.test(given) ? given : `${topic}:${partition}:${offset}`,
    ...(traceparent !== undefined && traceparentPattern.test(traceparent) ? { traceparent } : {})
  }
}
