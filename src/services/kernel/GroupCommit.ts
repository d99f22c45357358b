import { Cause, Clock, Deferred, Effect, Exit, Queue, Random } from "effect"
import { Overloaded, retryAfterSeconds } from "../../schema/Failure.ts"
import { Db } from "../Db.ts"
import { FailPoint } from "../FailPoint.ts"
import { Partitions } from "../Partitions.ts"
import { uuidV7 } from "../Uuid.ts"
import {
  answerEntry,
  type BatchGate,
  batchPostingsMax,
  closeSession,
  type Entry,
  failOverdue,
  type Lane,
  openGate,
  runBatch,
  type SessionHolder
} from "./batch.ts"
import type { Definitions } from "./Command.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { Posting } from "./Posting.ts"
import type { Table } from "./Table.ts"

/**
 * Group commit: while a transaction is in flight, new postings queue, and the next one takes all that wait (decision
 * 0001).
 */

/** Two lanes overlap deciding with committing; a third made it slower (docs/performance.md). */
export const lanes = 2
/** More than this waiting is more than can be answered before its deadline: refused early. */
const queueMax = 8_192
/** Merchants and locations that are remembered to exist; past it the ones that were seen first are looked up again. */
const knownMax = 100_000

/** Posts a command: its answer, or the refusal or failure that its definition and every posting may have. */
export type Post = (
  caller: Caller,
  command: Posting["command"]
) => Effect.Effect<{ readonly answer: unknown; readonly replayed: boolean }, unknown>

export const groupCommit = Effect.fnUntraced(function* (
  definitions: Definitions,
  tables: ReadonlyArray<Table>
) {
  const db = yield* Db
  const partitions = yield* Partitions
  const clock = yield* Clock.Clock
  const failPoint = yield* FailPoint
  const queue = yield* Queue.bounded<Entry>(queueMax)
  const known = new KnownKeys()

  const gate: BatchGate = { done: undefined }
  for (let lane = 0; lane < lanes; lane++) {
    yield* Effect.forkScoped(
      runLane({ clock, db, definitions, failPoint, known, gate, partitions, tables }, queue)
    )
  }

  const scope = yield* Effect.scope
  const waiting = new Set<Entry>()
  /** When the next look at the deadlines is due. */
  let lookAt = Number.POSITIVE_INFINITY
  const answerOverdue = (deadline: number): Effect.Effect<void> =>
    Effect.gen(function* () {
      yield* Effect.sleep(Math.max(0, deadline - clock.currentTimeMillisUnsafe()))
      // Another look, at an earlier time, has come in between and goes on.
      if (lookAt !== deadline) return
      const now = clock.currentTimeMillisUnsafe()
      lookAt = Number.POSITIVE_INFINITY
      for (const entry of waiting) {
        if (entry.posting.caller.deadline <= now) failOverdue(entry)
        else lookAt = Math.min(lookAt, entry.posting.caller.deadline)
      }
      if (waiting.size > 0) yield* Effect.forkIn(answerOverdue(lookAt), scope)
    })

  const post: Post = (caller, command) =>
    Effect.withFiber((fiber) => {
      const at = clock.currentTimeMillisUnsafe()
      const posting = { id: uuidV7(at, fiber.getRef(Random.Random)), at, caller, command }
      const entry: Entry = { posting, done: Deferred.makeUnsafe(), queuedAt: at, waiting }
      if (!Queue.offerUnsafe(queue, entry)) return Effect.fail(new Overloaded({ retryAfterSeconds }))
      waiting.add(entry)
      const answer = Deferred.await(entry.done)
      // One look at the earliest deadline, for all: a timer for each caller costs more than its posting does.
      if (caller.deadline >= lookAt) return answer
      lookAt = caller.deadline
      return Effect.andThen(Effect.forkIn(answerOverdue(lookAt), scope), answer)
    })
  return post
})

/** Keys that are known, bounded: the oldest makes way. */
class KnownKeys {
  readonly #keys = new Set<string>()

  has(key: string): boolean {
    return this.#keys.has(key)
  }

  add(key: string): void {
    if (this.#keys.has(key)) return
    if (this.#keys.size >= knownMax) this.#keys.delete(this.#keys.values().next().value!)
    this.#keys.add(key)
  }
}

/**
 * A lane that waits for a hot row holds postings that the lane before it could have had: it takes its batch once the
 * other one's is decided, and all that came meanwhile with it. One that does not get there is not waited for.
 */
const gatePatienceMs = 20

/** Real time, not the Clock service: it affects batching only, never a decision, so tests need not advance it. */
const patienceEnds = Effect.callback<boolean>((resume) => {
  const timer = setTimeout(() => resume(Effect.succeed(false)), gatePatienceMs)
  return Effect.sync(() => clearTimeout(timer))
})

/** A lane owns one connection and runs one batch after the other on it. It outlives every failure. */
const runLane = Effect.fnUntraced(function* (lane: Lane, queue: Queue.Queue<Entry>) {
  const holder: SessionHolder = { current: undefined, away: false, batchMax: batchPostingsMax }
  yield* Effect.addFinalizer(() => closeSession(holder))
  while (true) {
    const entries = yield* takeBatch(lane, queue, holder)
    const done = Deferred.makeUnsafe<void>()
    lane.gate.done = done
    yield* runBatch(lane, holder, entries).pipe(
      // Our own bug: this batch's callers get a 500, the lane goes on with a new connection.
      Effect.catchCause((cause) =>
        Effect.gen(function* () {
          yield* Effect.logError("a batch died", cause)
          yield* closeSession(holder)
          for (const entry of entries) answerEntry(entry, Exit.die(Cause.squash(cause)))
        })
      )
    )
    openGate(lane, done)
  }
})

const takeBatch = Effect.fnUntraced(function* (
  { gate }: Lane,
  queue: Queue.Queue<Entry>,
  holder: SessionHolder
) {
  while (true) {
    yield* Queue.peek(queue)
    if (gate.done !== undefined) {
      const inTime = yield* Effect.raceFirst(Effect.as(Deferred.await(gate.done), true), patienceEnds)
      // Another lane may have been faster.
      if (inTime) continue
    }
    if (Queue.sizeUnsafe(queue) > 0) {
      const entries: ReadonlyArray<Entry> = yield* Queue.takeBetween(queue, 1, holder.batchMax)
      return entries
    }
  }
})
