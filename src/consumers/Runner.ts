import {
  Cause,
  Clock,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Latch,
  Layer,
  Result,
  Schedule,
  Scope
} from "effect"
import { CircuitBreaker } from "effect/persistence"
import { groupOf } from "../schema/Topic.ts"
import { Broker, type IncomingMessage, type Subscription } from "../services/messaging/Broker.ts"
import { Db } from "../services/Db.ts"
import { DeadLetters, unreadableCode } from "../services/messaging/DeadLetters.ts"
import { FailPoint } from "../services/FailPoint.ts"
import { type Task, attemptMs, backoff, deadLetter, retryThroughOutages, untilDone } from "./Attempts.ts"
import { Backlog } from "./Backlog.ts"
import type { Consumer } from "./Consumer.ts"
import { count, measure } from "./ConsumerMetrics.ts"
import type { PartitionWork, RunnerOptions, Shared, Worker } from "./Worker.ts"

/**
 * The runner of all topics: polls messages, runs their operations, and commits an offset once the effect, its tracking
 * and its events are durable. All delivered messages are worked on concurrently, so that one group commit takes many of
 * them; within a partition, messages with the same key or the same aggregate keep their order.
 *
 * A message that is delivered again was applied before, and the operation answers so.
 */

/** Messages of one poll, and of one consumer's backlog: enough to fill both lanes of the group commit. */
const pollMax = 512
const backlogMax = 2_048
/** Bytes of all backlogs of the process. */
const backlogBytesMax = 32 * 1024 * 1024

/** After SIGTERM, running attempts may end within this time (CONTRACTS section 3 gives 10 s for everything). */
const drainMs = 8_000

/** Consecutive outages that open the breaker: from then on one attempt at a time probes the dependency. */
const outagesInARow = 8

const measureEveryMs = 5_000

/** Consumes these topics while the layer lives. */
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
        inOutage: false,
        bytes: 0
      }
      // A set interrupts all workers at once; each of them drains by itself.
      const workers = yield* FiberSet.make<void>()
      yield* Effect.forEach(consumers, (consumer) => FiberSet.run(workers, consume(shared, consumer)), {
        discard: true
      })
    })
  ).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))

/** Runs one consumer until it is interrupted. */
const consume = <E, R>(shared: Shared, consumer: Consumer<E, R>): Effect.Effect<void, never, R> =>
  Effect.gen(function* () {
    const { topic } = consumer
    const group = groupOf(topic)
    const worker: Worker<E, R> = {
      shared,
      consumer,
      backlog: new Backlog(),
      workScope: yield* Scope.make(),
      work: new Map(),
      room: Latch.makeUnsafe(),
      mayCommit: Latch.makeUnsafe(),
      revocations: 0,
      revokedAt: new Map()
    }
    // Waiting for one topic delays neither the other topics nor the start of the service.
    const subscription = yield* retryThroughOutages(
      shared.broker.subscribe({
        group,
        topics: [topic],
        onRevoked: (revoked) =>
          Effect.forEach(revoked, ({ partition }) => drop(worker, partition), {
            concurrency: "unbounded",
            discard: true
          })
      })
    )
    const polling = yield* Effect.forkScoped(pollLoop(worker, subscription))
    const committing = yield* Effect.forkScoped(commitAsDone(worker, subscription))
    yield* Effect.forkScoped(Effect.repeat(measure(worker, subscription), Schedule.spaced(measureEveryMs)))
    // Added last, so this finalizer runs first, while the worker is still a member of its consumer group.
    yield* Effect.addFinalizer(() => drain(worker, subscription, [polling, committing]))
    yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.logError(`the consumer of ${consumer.topic} died`, cause)
    )
  ) as Effect.Effect<void, never, R>

const hasRoom = <E, R>({ backlog, shared }: Worker<E, R>): boolean =>
  backlog.count < backlogMax && shared.bytes < backlogBytesMax

/** Polls messages while the backlog has room. */
const pollLoop = Effect.fnUntraced(function* <E, R>(worker: Worker<E, R>, subscription: Subscription) {
  for (;;) {
    worker.room.closeUnsafe()
    if (hasRoom(worker)) {
      const polled = yield* Effect.map(subscription.poll(pollMax), (messages) => ({
        messages,
        revocations: worker.revocations
      }))
      for (const message of polled.messages) {
        const revokedSince = (worker.revokedAt.get(message.partition) ?? 0) > polled.revocations
        if (!revokedSince) yield* admit(worker, message)
      }
    } else {
      // Another consumer may hold the bytes, and its release does not open this latch.
      yield* Effect.timeoutOption(worker.room.await, "100 millis")
    }
  }
})

/** Starts the work on a message; in its fiber the message waits for those before it. */
const admit = <E, R>(worker: Worker<E, R>, message: IncomingMessage): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const present = worker.work.get(message.partition)
    if (present !== undefined) return start(worker, present, message)
    return Effect.flatMap(Scope.provide(FiberSet.make<void>(), worker.workScope), (fibers) => {
      const work = { fibers, idle: Latch.makeUnsafe(true), attempts: 0, stopping: false }
      worker.work.set(message.partition, work)
      return start(worker, work, message)
    })
  })

const start = <E, R>(
  worker: Worker<E, R>,
  work: PartitionWork,
  message: IncomingMessage
): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const { backlog, consumer, shared } = worker
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
      worker,
      work,
      message,
      finish: (outcome) => {
        backlog.done(delivery, keys)
        Deferred.doneUnsafe(delivery.finished, Exit.void)
        worker.mayCommit.openUnsafe()
        count(shared, consumer.topic, outcome, message)
      }
    }
    const attempts = Result.isSuccess(read) ? untilDone(task, read.success) : deadLetter(task, read.failure)
    const inOrder =
      before.size === 0
        ? attempts
        : Effect.andThen(
            Effect.forEach(before, ({ finished }) => Deferred.await(finished), { discard: true }),
            attempts
          )
    return FiberSet.run(work.fibers, inOrder)
  })

const commitAsDone = Effect.fnUntraced(function* <E, R>(worker: Worker<E, R>, subscription: Subscription) {
  for (;;) {
    yield* worker.mayCommit.await
    worker.mayCommit.closeUnsafe()
    yield* retryThroughOutages(commit(worker, subscription))
  }
})

/** Commits each partition up to its first message that is not done. */
const commit = Effect.fnUntraced(function* <E, R>(worker: Worker<E, R>, subscription: Subscription) {
  const { backlog, shared } = worker
  const positions = backlog.committable()
  if (positions.length === 0) return
  yield* shared.failPoint("afterEffectBeforeOffset")
  // The new owner of a lost partition commits it. Messages delivered after a reassignment are committed in a later turn.
  yield* Effect.catchTag(subscription.commit(positions), "PartitionLost", () => Effect.void)
  release(worker, () => backlog.forgetUntil(positions))
})

const release = <E, R>(worker: Worker<E, R>, change: () => void): void => {
  const { backlog, shared } = worker
  const before = backlog.bytes
  change()
  shared.bytes += backlog.bytes - before
  worker.room.openUnsafe()
}

/** Ends the work on a revoked partition: its messages are delivered again, here or to another member. */
const drop = <E, R>(worker: Worker<E, R>, partition: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    worker.revocations += 1
    worker.revokedAt.set(partition, worker.revocations)
    // Released first, so that an attempt that ends from here on is not committed.
    release(worker, () => worker.backlog.forgetPartition(partition))
    const work = worker.work.get(partition)
    worker.work.delete(partition)
    return work === undefined ? Effect.void : endWork(work, attemptMs)
  })

/** Lets the running attempts end within this time, and starts none. */
const endWork = (work: PartitionWork, withinMs: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    work.stopping = true
    return Effect.andThen(
      Effect.timeoutOption(Effect.interruptible(work.idle.await), withinMs),
      FiberSet.clear(work.fibers)
    )
  })

/** Stops polling, lets the running attempts end, and commits the messages that are done. */
const drain = Effect.fnUntraced(function* <E, R>(
  worker: Worker<E, R>,
  subscription: Subscription,
  loops: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
) {
  for (const work of worker.work.values()) work.stopping = true
  yield* Fiber.interruptAll(loops)
  yield* Effect.forEach(worker.work.values(), (work) => endWork(work, drainMs), {
    concurrency: "unbounded",
    discard: true
  })
  yield* Scope.close(worker.workScope, Exit.void)
  const committing = commit(worker, subscription)
  yield* Effect.timeoutOption(Effect.interruptible(committing), drainMs / 4).pipe(Effect.ignore)
})
