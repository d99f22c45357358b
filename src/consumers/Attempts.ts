import { Cause, Effect, Exit, Option, Schedule } from "effect"
import { CircuitBreaker } from "effect/persistence"
import type { DatabaseUnavailable } from "../schema/Failure.ts"
import type { DeadLetterReason } from "../schema/MessageDecoding.ts"
import { requestIdOf, traceparentOf } from "../schema/RequestHeaders.ts"
import type { BrokerUnavailable, IncomingMessage } from "../services/messaging/Broker.ts"
import type { Origin, Outcome, Work } from "./Consumer.ts"
import { countRetry } from "./ConsumerMetrics.ts"
import type { PartitionWork, Worker } from "./Worker.ts"

/**
 * Attempts at one message, until it has had its effect or is a dead letter. An outage is waited out, however long it
 * takes; a refusal is retried for a while, and a bug a few times.
 */

/**
 * Deadline of one attempt. A message that takes longer is tried again, and the operation answers if it had been applied.
 * Shorter than a session of a consumer group: the attempts at a partition have ended before another member may own it.
 */
export const attemptMs = 5_000
/** Attempts that may die of a bug, each with a database that answers, before the message becomes a dead letter. */
const defectsMax = 3
/**
 * A refusal is final once it has lasted this long. Until then a message of another partition or topic may lift it: those
 * have no order among each other (a sku whose former item is about to be deleted).
 */
const refusalPatienceMs = 10_000
const refusalPauseMs = 100
const refusalPauseMaxMs = 2_000

/** Pauses between attempts during an outage. */
export const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("3 seconds")]).pipe(
  Schedule.jittered
)

/** Retries without end, for effects whose only failures are outages. */
export const retryThroughOutages = <A, R>(
  effect: Effect.Effect<A, BrokerUnavailable | DatabaseUnavailable, R>
): Effect.Effect<A, never, R> => Effect.orDie(Effect.retry(effect, backoff))

/** Failures of an unavailable dependency, which pass. Every other failure is a refusal. */
const outages: ReadonlySet<unknown> = new Set([
  "BrokerUnavailable",
  "DatabaseUnavailable",
  "OperationTimedOut",
  "Overloaded",
  "CircuitBreakerError"
])
const isOutage = (failure: unknown): boolean =>
  typeof failure === "object" && failure !== null && outages.has((failure as { _tag?: unknown })._tag)

/** A message in work. */
export interface Task<E, R> {
  readonly worker: Worker<E, R>
  readonly work: PartitionWork
  readonly message: IncomingMessage
  /** Call synchronously when the outcome is known; an interruption in between would lose it. */
  readonly finish: (outcome: Outcome | "dead_letter") => void
}

/** Runs the operation until it answers. As a rule the first attempt does, and it needs no breaker. */
export const untilDone = <E, R>(task: Task<E, R>, operation: Work<E, R>): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const { worker, message } = task
    const { shared } = worker
    const origin = originOf(message)
    const attempt = Effect.suspend(() =>
      operation.run({ ...origin, deadline: shared.clock.currentTimeMillisUnsafe() + attemptMs })
    )
    if (shared.inOutage) return retryUntilDone(task, attempt)
    const first = counted(task, attempt, (outcome) => outcome)
    return Effect.catchCause(first, (cause) => retryUntilDone(task, attempt, cause))
  })

/**
 * Retries until the operation answers or the message is a dead letter. During an outage all waiting messages go through
 * one breaker, so that one attempt at a time probes whether the outage is over. `met` is the cause of the attempt before.
 */
const retryUntilDone: <E, R>(
  task: Task<E, R>,
  attempt: Effect.Effect<Outcome, E, R>,
  met?: Cause.Cause<E>
) => Effect.Effect<void, never, R> = Effect.fnUntraced(function* <E, R>(
  task: Task<E, R>,
  attempt: Effect.Effect<Outcome, E, R>,
  met?: Cause.Cause<E>
) {
  const { shared } = task.worker
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
          return yield* deadLetter(task, { code: "DEFECT", detail: "cannot be applied; the logs say why" })
        }
        // The defect may come from an outage: the next attempt waits for a database that answers.
        yield* retryThroughOutages(shared.db.maintain("SELECT 1", []))
      } else if (isOutage(failure)) {
        shared.inOutage = true
      } else {
        const now = shared.clock.currentTimeMillisUnsafe()
        refusedSince ??= now
        if (now - refusedSince >= patienceMs) return yield* deadLetter(task, refusalOf(failure))
        yield* Effect.sleep(pauseMs)
        pauseMs = Math.min(2 * pauseMs, refusalPauseMaxMs)
      }
    }
    const exit = yield* answered
    if (Exit.isSuccess(exit)) {
      shared.inOutage = false
      return
    }
    cause = exit.cause
  }
})

const outageOf = (exit: Exit.Exit<unknown, unknown>) =>
  isOutage(Option.getOrUndefined(Exit.findErrorOption(exit)))
    ? CircuitBreaker.failure()
    : CircuitBreaker.success

/** Records the message as a dead letter, which is durable when this effect ends. */
export const deadLetter = <E, R>(task: Task<E, R>, reason: DeadLetterReason): Effect.Effect<void> => {
  const { worker, message } = task
  const recording = counted(task, worker.shared.deadLetters.record(message, reason), () => "dead_letter")
  return retryThroughOutages(retried(message.topic, recording))
}

/** Counts an attempt that an outage ended, and that will be repeated. */
const retried = <A, E, R>(topic: string, attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tapError(attempt, (failure) => (isOutage(failure) ? countRetry(topic, tagOf(failure)) : Effect.void))

/** Lets a running attempt end when its partition is revoked or the service stops, and starts no attempt after that. */
const counted = <A, E, R, E2, R2>(
  { finish, work }: Task<E2, R2>,
  attempt: Effect.Effect<A, E, R>,
  outcomeOf: (answer: A) => Outcome | "dead_letter"
): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    if (work.stopping) return Effect.never
    work.attempts += 1
    work.idle.closeUnsafe()
    return Effect.onExit(attempt, (exit) => {
      if (Exit.isSuccess(exit)) finish(outcomeOf(exit.value))
      work.attempts -= 1
      if (work.attempts === 0) work.idle.openUnsafe()
      return Effect.void
    }) as Effect.Effect<never, E, R>
  })

const tagOf = (failure: unknown): string => String((failure as { readonly _tag?: unknown })._tag ?? "unknown")

/** The failure of an operation as the reason of a dead letter: `ItemConflict` becomes `ITEM_CONFLICT`. */
const refusalOf = (failure: unknown): DeadLetterReason => {
  const { _tag, ...fields } = failure as { readonly _tag?: string }
  const code = (_tag ?? "REFUSED").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase()
  return { code, detail: JSON.stringify(fields) }
}

/** A message belongs to the request that its headers name; without one, its position is the request's id. */
const originOf = ({ headers, offset, partition, topic }: IncomingMessage): Omit<Origin, "deadline"> => {
  const traceparent = traceparentOf(headers)
  return {
    actor: topic,
    requestId: requestIdOf(headers) ?? `${topic}:${partition}:${offset}`,
    ...(traceparent === undefined ? {} : { traceparent })
  }
}
