import {
  Cause,
  Clock,
  Context,
  Deferred,
  Effect,
  Exit,
  Layer,
  Metric,
  Queue,
  Random,
  Schedule,
  Scope
} from "effect"
import { DatabaseUnavailable, OperationTimedOut, Overloaded } from "../../schema/Failure.ts"
import type {
  AnyRefusal,
  Caller,
  Command,
  Posted,
  Posting,
  PostingFailure,
  Refusal
} from "../../schema/Posting.ts"
import { Db, type Session, StatementFailed } from "../Db.ts"
import { type Books, keyOf } from "./decide/Books.ts"
import { type Verdict, decide } from "./decide/decide.ts"
import { FailPoint } from "../FailPoint.ts"
import * as LedgerStore from "./LedgerStore.ts"
import { Partitions } from "../Partitions.ts"
import { uuidV7 } from "../Uuid.ts"

/**
 * The only writer of stock, ledger and outbox. Concurrent callers do not each fight for a hot row: while a transaction
 * is in flight, new postings queue, and the next one takes all that wait (decision 0001).
 */
export class StockLedger extends Context.Service<
  StockLedger,
  {
    /**
     * Decides and commits a command, together with its ledger rows, tracking, idempotency row and events, or not at
     * all. Interrupting it does not roll back what is in flight. Past the caller's deadline the outcome is unknown but
     * whole: `OperationTimedOut`.
     */
    readonly post: <C extends Command>(
      caller: Caller,
      command: C
    ) => Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>
  }
>()("holdfast/services/StockLedger") {
  static readonly layer = Layer.effect(
    StockLedger,
    Effect.suspend(() => make)
  )
}

/** Two lanes overlap deciding with committing; a third made it slower (docs/performance.md). */
const lanes = 2
/** Bounds of one batch: postings, and advisory locks, of which the server's lock table has a finite number. */
const batchPostingsMax = 512
const batchWeightMax = 4_096
/** How much larger a lane's batches become with each that is committed, after a connection was lost over one. */
const batchGrowth = 16
/** Advisory locks that the batches of one process take at their fullest. */
export const kernelLocksMax = lanes * batchWeightMax
/** More than this waiting is more than can be answered before its deadline: refused early. */
const queueMax = 8_192
/** Conflicts of one batch before it is split, and of one posting before its caller is told that the database fails. */
const conflictsMax = 5
const retryAfterSeconds = 1

interface Entry {
  readonly posting: Posting
  readonly done: Deferred.Deferred<Posted<Command>, AnyRefusal | PostingFailure>
  readonly queuedAt: number
  /** Those that wait for their answers, this one among them until it has its own. */
  readonly waiting: Set<Entry>
}
type Outcome = Exit.Exit<Posted<Command>, AnyRefusal | PostingFailure>

/** Answers a caller. A second answer is for nobody. */
const settle = (entry: Entry, outcome: Outcome): void => {
  entry.waiting.delete(entry)
  Deferred.doneUnsafe(entry.done, outcome)
}

const settleOverdue = (entry: Entry): void =>
  settle(entry, Exit.fail(new OperationTimedOut({ operation: entry.posting.command._tag })))

const postings = Metric.counter("holdfast_postings_total", {
  description: "Postings by command and outcome (applied, replayed, or the failure)",
  incremental: true
})
const reservations = Metric.counter("holdfast_reservations_total", {
  description: "Reservations by outcome (made, confirmed, cancelled, expired)",
  incremental: true
})
const batchSize = Metric.histogram("holdfast_batch_postings", {
  description: "Postings committed in one transaction",
  boundaries: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
})
const batchSeconds = Metric.histogram("holdfast_batch_duration_seconds", {
  description: "Time from the begin of a batch's transaction to its commit",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
})
const waitSeconds = Metric.histogram("holdfast_posting_wait_seconds", {
  description: "Time that a posting waited for its batch to begin",
  boundaries: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
})
const batchRetries = Metric.counter("holdfast_batch_retries_total", {
  description: "Batches that were run again, by cause (conflict, split, connection, unknown commit)",
  incremental: true
})
const countRetry = (cause: string) => Metric.update(Metric.withAttributes(batchRetries, { cause }), 1)

const make = Effect.gen(function* () {
  const db = yield* Db
  const partitions = yield* Partitions
  const clock = yield* Clock.Clock
  const failPoint = yield* FailPoint
  const queue = yield* Queue.bounded<Entry>(queueMax)
  const known = new Set<string>()

  const opening: Opening = { done: undefined }
  for (let lane = 0; lane < lanes; lane++) {
    yield* Effect.forkScoped(runLane({ clock, db, failPoint, known, opening, partitions, queue }))
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
        if (entry.posting.caller.deadline <= now) settleOverdue(entry)
        else lookAt = Math.min(lookAt, entry.posting.caller.deadline)
      }
      if (waiting.size > 0) yield* Effect.forkIn(answerOverdue(lookAt), scope)
    })

  const post = <C extends Command>(caller: Caller, command: C) =>
    Effect.withFiber<Posted<C>, Refusal<C> | PostingFailure>((fiber) => {
      const at = clock.currentTimeMillisUnsafe()
      const posting = { id: uuidV7(at, fiber.getRef(Random.Random)), at, caller, command }
      const entry: Entry = { posting, done: Deferred.makeUnsafe(), queuedAt: at, waiting }
      if (!Queue.offerUnsafe(queue, entry)) return Effect.fail(new Overloaded({ retryAfterSeconds }))
      waiting.add(entry)
      const answer = Deferred.await(entry.done) as Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>
      // One look at the earliest deadline, for all: a timer for each caller costs more than its posting does.
      if (caller.deadline >= lookAt) return answer
      lookAt = caller.deadline
      return Effect.andThen(Effect.forkIn(answerOverdue(lookAt), scope), answer)
    })
  return StockLedger.of({ post })
})

interface Lane {
  readonly clock: Clock.Clock
  readonly db: Db["Service"]
  readonly failPoint: typeof FailPoint.Service
  /** Merchants and locations (by `keyOf`) that are known to exist. Neither ever goes. */
  readonly known: Set<string>
  readonly opening: Opening
  readonly partitions: Partitions["Service"]
  readonly queue: Queue.Queue<Entry>
}

/** The batch that is taken and not yet decided, if any: ends when its writes are sent. */
interface Opening {
  done: Deferred.Deferred<void> | undefined
}

/**
 * A lane that waits for a hot row holds postings that the lane before it could have had: it takes its batch once the
 * other one's is decided, and all that came meanwhile with it. One that does not get there is not waited for.
 */
const openingPatienceMs = 20

/** A timer of the machine's, not of the clock that the books go by: it says who waits, never what is decided. */
const impatience = Effect.callback<boolean>((resume) => {
  const timer = setTimeout(() => resume(Effect.succeed(false)), openingPatienceMs)
  return Effect.sync(() => clearTimeout(timer))
})

/** A lane owns one connection and runs one batch after the other on it. It outlives every failure. */
const runLane = Effect.fnUntraced(function* (lane: Lane) {
  const holder: SessionHolder = { current: undefined, away: false, batchMax: batchPostingsMax }
  yield* Effect.addFinalizer(() => closeSession(holder))
  while (true) {
    const entries = yield* takeBatch(lane, holder)
    const opening = Deferred.makeUnsafe<void>()
    lane.opening.done = opening
    yield* runBatch(lane, holder, entries).pipe(
      // Our own bug: this batch's callers get a 500, the lane goes on with a new connection.
      Effect.catchCause((cause) =>
        Effect.gen(function* () {
          yield* Effect.logError("a batch died", cause)
          yield* closeSession(holder)
          for (const entry of entries) settle(entry, Exit.die(Cause.squash(cause)))
        })
      )
    )
    opened(lane, opening)
  }
})

const takeBatch = Effect.fnUntraced(function* ({ opening, queue }: Lane, holder: SessionHolder) {
  while (true) {
    yield* Queue.peek(queue)
    if (opening.done !== undefined) {
      const inTime = yield* Effect.raceFirst(Effect.as(Deferred.await(opening.done), true), impatience)
      // Another lane may have been faster.
      if (inTime) continue
    }
    if (Queue.sizeUnsafe(queue) > 0) {
      const entries: ReadonlyArray<Entry> = yield* Queue.takeBetween(queue, 1, holder.batchMax)
      return entries
    }
  }
})

/** The batch that the lane has taken is decided, or given up: the next may be taken. */
const opened = ({ opening }: Lane, done = opening.done): void => {
  if (done === undefined) return
  Deferred.doneUnsafe(done, Exit.void)
  if (opening.done === done) opening.done = undefined
}

interface SessionHolder {
  current: { readonly session: Session; readonly scope: Scope.Closeable } | undefined
  /** Whether the last connection could not even be opened. */
  away: boolean
  /** Postings that the next batch may have: half of what a connection was lost over, then growing again. */
  batchMax: number
}

const closeSession = (holder: SessionHolder): Effect.Effect<void> =>
  Effect.suspend(() => {
    const open = holder.current
    holder.current = undefined
    return open === undefined ? Effect.void : Scope.close(open.scope, Exit.void)
  })

const sessionOf = Effect.fnUntraced(function* (db: Db["Service"], holder: SessionHolder) {
  if (holder.current !== undefined) return holder.current.session
  const scope = yield* Scope.make()
  holder.away = true
  const session = yield* Effect.onError(Scope.provide(db.session, scope), () => Scope.close(scope, Exit.void))
  holder.away = false
  holder.current = { session, scope }
  return session
})

/**
 * Runs a batch to its end: decided and committed, run again after a conflict, split in halves down to the one posting
 * that cannot be written, or refused because the database does not answer.
 */
const runBatch: (lane: Lane, holder: SessionHolder, entries: ReadonlyArray<Entry>) => Effect.Effect<void> =
  Effect.fnUntraced(function* (lane, holder, given) {
    if (weightOf(given) > batchWeightMax && given.length > 1) return yield* runHalves(lane, holder, given)
    for (let attempt = 1; ; attempt++) {
      const entries = yield* refuseOverdue(lane.clock, given)
      if (entries.length === 0) return
      const outcome = yield* Effect.exit(attemptBatch(lane, holder, entries))
      if (Exit.isSuccess(outcome)) {
        holder.batchMax = Math.min(batchPostingsMax, holder.batchMax + batchGrowth)
        complete(entries, outcome.value)
        return
      }
      const failure = Exit.findErrorOption(outcome)
      if (failure._tag === "None" || failure.value.disposition === "DEFECT") {
        if (entries.length === 1) {
          yield* Effect.logError("a posting cannot be written", outcome.cause)
          settle(entries[0]!, Exit.die(Cause.squash(outcome.cause)))
          return
        }
        yield* countRetry("split")
        yield* Effect.logWarning("a batch was refused and is split", outcome.cause)
        return yield* runHalves(lane, holder, entries)
      }
      if (failure.value.disposition === "UNAVAILABLE") {
        // A connection that was lost is worth another one. A database that takes none is away: callers are told at once.
        if (holder.away || attempt >= conflictsMax) {
          return failAll(entries, new DatabaseUnavailable({ retryAfterSeconds }))
        }
        yield* countRetry("connection")
        // On a machine that is too busy, deciding so many takes longer than a transaction may idle: fewer at once do not.
        holder.batchMax = Math.ceil(entries.length / 2)
        if (entries.length > 1) return yield* runHalves(lane, holder, entries)
        continue
      }
      yield* countRetry("conflict")
      if (attempt >= conflictsMax) {
        if (entries.length === 1) return failAll(entries, new DatabaseUnavailable({ retryAfterSeconds }))
        return yield* runHalves(lane, holder, entries)
      }
    }
  })

const runHalves = Effect.fnUntraced(function* (
  lane: Lane,
  holder: SessionHolder,
  entries: ReadonlyArray<Entry>
): Effect.fn.Return<void> {
  const middle = Math.ceil(entries.length / 2)
  yield* runBatch(lane, holder, entries.slice(0, middle))
  yield* runBatch(lane, holder, entries.slice(middle))
})

const weightOf = (entries: ReadonlyArray<Entry>): number =>
  entries.reduce((sum, { posting: { command } }) => sum + LedgerStore.weightOf(command), 0)

/** One whose deadline has passed is refused, not decided: a reserve that its caller gave up must not come alive later. */
const refuseOverdue = (
  clock: Clock.Clock,
  entries: ReadonlyArray<Entry>
): Effect.Effect<ReadonlyArray<Entry>> =>
  Effect.sync(() => {
    const now = clock.currentTimeMillisUnsafe()
    return entries.filter((entry) => {
      if (entry.posting.caller.deadline > now) return true
      settleOverdue(entry)
      return false
    })
  })

/** One transaction: begin, lock, read, decide, write, commit. */
const attemptBatch = Effect.fnUntraced(function* (
  lane: Lane,
  holder: SessionHolder,
  entries: ReadonlyArray<Entry>
): Effect.fn.Return<ReadonlyArray<Verdict>, StatementFailed> {
  const { clock } = lane
  const startedAt = clock.currentTimeMillisUnsafe()
  // Of the oldest posting: it may have waited over the end of a month.
  yield* lane.partitions.ensure(entries[0]!.posting.at)
  const session = yield* sessionOf(lane.db, holder)
  const { books, transactionId } = yield* LedgerStore.open(
    session,
    entries.map(({ posting }) => posting),
    lane.known,
    startedAt
  ).pipe(Effect.tapError((failure) => abandon(holder, failure)))
  // A bug in deciding must not leave the transaction open with its locks.
  const verdicts = yield* Effect.onError(
    Effect.sync(() => entries.map(({ posting }) => decide(books, posting))),
    () => closeSession(holder)
  )
  if (!LedgerStore.hasWrites(books)) {
    yield* Effect.tapError(LedgerStore.rollback(session), (failure) => abandon(holder, failure))
  } else {
    opened(lane)
    yield* lane.failPoint("beforeCommit")
    yield* LedgerStore.commit(session, books).pipe(
      Effect.catch((failure) => afterFailedCommit(lane, holder, failure, transactionId, books))
    )
    yield* lane.failPoint("afterCommitBeforeReply")
  }
  for (const merchantId of books.merchants) lane.known.add(merchantId)
  for (const { locationId, merchantId } of books.locations.values()) {
    lane.known.add(keyOf(merchantId, locationId))
  }
  yield* measure(clock, entries, verdicts, startedAt)
  yield* countReservations(books)
  return verdicts
})

/** After a failure the transaction is rolled back where the connection lives, and the connection given up where not. */
const abandon = (holder: SessionHolder, failure: StatementFailed): Effect.Effect<void> =>
  failure.disposition === "UNAVAILABLE" || holder.current === undefined
    ? closeSession(holder)
    : Effect.catch(LedgerStore.rollback(holder.current.session), () => closeSession(holder))

/**
 * A refused statement has rolled its transaction back. When instead the answer to COMMIT is lost, the outcome is asked
 * for on a new connection until it is known: succeeding means that the transaction is committed.
 */
const afterFailedCommit = Effect.fnUntraced(function* (
  lane: Lane,
  holder: SessionHolder,
  failure: StatementFailed,
  transactionId: string,
  books: Books
) {
  yield* abandon(holder, failure)
  if (failure.disposition !== "UNAVAILABLE") return yield* failure
  yield* countRetry("unknown commit")
  yield* Effect.logWarning("the answer to a COMMIT was lost", failure.message)
  const committed = yield* Effect.gen(function* () {
    const session = yield* sessionOf(lane.db, holder)
    if (yield* LedgerStore.isInProgress(session, transactionId)) return yield* stillInProgress
    return yield* LedgerStore.isWritten(session, books)
  }).pipe(
    Effect.tapError((again) => (again === stillInProgress ? Effect.void : closeSession(holder))),
    Effect.retry({ schedule: askAgain, while: ({ disposition }) => disposition !== "DEFECT" })
  )
  // Not there, or nothing to tell by: run again, which the postings' own ids make harmless.
  if (!committed) return yield* failure
})
const stillInProgress = new StatementFailed({
  disposition: "CONFLICT",
  sqlState: undefined,
  cause: "in progress"
})
const askAgain = Schedule.min([Schedule.exponential("10 millis"), Schedule.spaced("500 millis")])

const complete = (entries: ReadonlyArray<Entry>, verdicts: ReadonlyArray<Verdict>): void => {
  entries.forEach((entry, index) => {
    const verdict = verdicts[index]!
    settle(
      entry,
      "refusal" in verdict ? Exit.fail(verdict.refusal) : Exit.succeed(verdict as Posted<Command>)
    )
  })
}

const failAll = (entries: ReadonlyArray<Entry>, failure: PostingFailure): void => {
  for (const entry of entries) settle(entry, Exit.fail(failure))
}

/** A sale without a reservation is written as one that is confirmed (decision 0003): it was none. */
const countReservations = Effect.fnUntraced(function* ({ statusBefore, written }: Books) {
  const counts = new Map<string, number>()
  const count = (outcome: string): unknown => counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  for (const { kind } of written.reservations) if (kind !== "SALE") count("made")
  for (const [{ status }, before] of statusBefore) if (status !== before) count(status.toLowerCase())
  for (const [outcome, times] of counts) {
    yield* Metric.update(Metric.withAttributes(reservations, { outcome }), times)
  }
})

const measure = Effect.fnUntraced(function* (
  clock: Clock.Clock,
  entries: ReadonlyArray<Entry>,
  verdicts: ReadonlyArray<Verdict>,
  startedAt: number
) {
  const context = yield* Effect.context<never>()
  batchSize.updateUnsafe(entries.length, context)
  batchSeconds.updateUnsafe((clock.currentTimeMillisUnsafe() - startedAt) / 1000, context)
  const counts = new Map<string, number>()
  entries.forEach(({ posting }, index) => {
    const verdict = verdicts[index]!
    const outcome = "refusal" in verdict ? verdict.refusal._tag : verdict.replayed ? "replayed" : "applied"
    const key = `${posting.command._tag} ${outcome}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
  })
  for (const [key, count] of counts) {
    const [command, outcome] = key.split(" ") as [string, string]
    yield* Metric.update(Metric.withAttributes(postings, { command, outcome }), count)
  }
  for (const { queuedAt } of entries) waitSeconds.updateUnsafe((startedAt - queuedAt) / 1000, context)
})
