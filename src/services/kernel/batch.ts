import { Cause, type Clock, Deferred, Effect, Exit, Schedule, Scope } from "effect"
import { DatabaseUnavailable, OperationTimedOut, retryAfterSeconds } from "../../schema/Failure.ts"
import { type Db, type Session, StatementFailed } from "../Db.ts"
import type { FailPoint } from "../FailPoint.ts"
import type { Partitions } from "../Partitions.ts"
import { countReservations, countRetry, measureBatch } from "./batchMetrics.ts"
import { type Definitions, definitionOf } from "./Command.ts"
import { decide, prepare, type Verdict } from "./decide.ts"
import { keyOf } from "./Needs.ts"
import type { Posting } from "./Posting.ts"
import type { Table } from "./Table.ts"
import * as Transaction from "./transaction.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/** One batch of postings from its connection to its callers' answers, over every failure in between. */

/** Bounds of one batch: postings, and advisory locks, of which the server's lock table has a finite number. */
export const batchPostingsMax = 512
export const batchWeightMax = 4_096
/** How much larger a lane's batches become with each that is committed, after a connection was lost over one. */
const batchGrowth = 16
/** Conflicts of one batch before it is split, and of one posting before its caller is told that the database fails. */
const conflictsMax = 5

export interface Entry {
  readonly posting: Posting
  readonly done: Deferred.Deferred<{ readonly answer: unknown; readonly replayed: boolean }, unknown>
  readonly queuedAt: number
  /** Those that wait for their answers, this one among them until it has its own. */
  readonly waiting: Set<Entry>
}
type Outcome = Exit.Exit<{ readonly answer: unknown; readonly replayed: boolean }, unknown>

/** Answers a caller. A second answer is for nobody. */
export const answerEntry = (entry: Entry, outcome: Outcome): void => {
  entry.waiting.delete(entry)
  Deferred.doneUnsafe(entry.done, outcome)
}

export const failOverdue = (entry: Entry): void =>
  answerEntry(entry, Exit.fail(new OperationTimedOut({ operation: entry.posting.command._tag })))

export interface Lane {
  readonly clock: Clock.Clock
  readonly db: Db["Service"]
  readonly failPoint: typeof FailPoint.Service
  readonly definitions: Definitions
  /** Merchants and locations (by `keyOf`) that are known to exist. */
  readonly known: { has(key: string): boolean; add(key: string): void }
  readonly gate: BatchGate
  readonly partitions: Partitions["Service"]
  readonly tables: ReadonlyArray<Table>
}

/** The batch that a lane has taken and not yet decided, if any: done when its writes are sent. */
export interface BatchGate {
  done: Deferred.Deferred<void> | undefined
}

/** Lets the next lane close its batch, once this one is decided or has failed. */
export const openGate = ({ gate }: Lane, done = gate.done): void => {
  if (done === undefined) return
  Deferred.doneUnsafe(done, Exit.void)
  if (gate.done === done) gate.done = undefined
}

export interface SessionHolder {
  current: { readonly session: Session; readonly scope: Scope.Closeable } | undefined
  /** Whether the last connection could not even be opened. */
  away: boolean
  /** Postings that the next batch may have: half of what a connection was lost over, then growing again. */
  batchMax: number
}

export const closeSession = (holder: SessionHolder): Effect.Effect<void> =>
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
export const runBatch: (
  lane: Lane,
  holder: SessionHolder,
  entries: ReadonlyArray<Entry>
) => Effect.Effect<void> = Effect.fnUntraced(function* (lane, holder, given) {
  if (weightOf(lane, given) > batchWeightMax && given.length > 1) return yield* runHalves(lane, holder, given)
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
        answerEntry(entries[0]!, Exit.die(Cause.squash(outcome.cause)))
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

const weightOf = ({ definitions }: Lane, entries: ReadonlyArray<Entry>): number =>
  entries.reduce(
    (sum, { posting: { command } }) => sum + definitionOf(definitions, command._tag).weight(command),
    0
  )

/** One whose deadline has passed is refused, not decided: a reserve that its caller gave up must not come alive later. */
const refuseOverdue = (
  clock: Clock.Clock,
  entries: ReadonlyArray<Entry>
): Effect.Effect<ReadonlyArray<Entry>> =>
  Effect.sync(() => {
    const now = clock.currentTimeMillisUnsafe()
    return entries.filter((entry) => {
      if (entry.posting.caller.deadline > now) return true
      failOverdue(entry)
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
  const { needs, prepared } = prepare(
    lane.definitions,
    entries.map(({ posting }) => posting),
    lane.known
  )
  const known = prepared.map(({ posting }) => posting.caller.merchantId).filter((id) => lane.known.has(id))
  const { transactionId, unit } = yield* Transaction.begin(session, lane.tables, needs, known).pipe(
    Effect.tapError((failure) => abandon(holder, failure))
  )
  // A bug in deciding must not leave the transaction open with its locks.
  const verdicts = yield* Effect.onError(
    Effect.sync(() => prepared.map((each) => decide(unit, each))),
    () => closeSession(holder)
  )
  if (!unit.hasWrites) {
    yield* Effect.tapError(Transaction.rollback(session), (failure) => abandon(holder, failure))
  } else {
    openGate(lane)
    yield* lane.failPoint("beforeCommit")
    yield* Transaction.commit(session, unit).pipe(
      Effect.catch((failure) => afterFailedCommit(lane, holder, failure, transactionId, unit))
    )
    yield* lane.failPoint("afterCommitBeforeReply")
  }
  for (const { locationId, merchantId } of unit.locations.indexes.byId.values()) {
    lane.known.add(merchantId)
    lane.known.add(keyOf(merchantId, locationId))
  }
  yield* measureBatch(clock, entries, verdicts, startedAt)
  yield* countReservations(unit)
  return verdicts
})

/** After a failure the transaction is rolled back where the connection lives, and the connection given up where not. */
const abandon = (holder: SessionHolder, failure: StatementFailed): Effect.Effect<void> =>
  failure.disposition === "UNAVAILABLE" || holder.current === undefined
    ? closeSession(holder)
    : Effect.catch(Transaction.rollback(holder.current.session), () => closeSession(holder))

/**
 * A refused statement has rolled its transaction back. When instead the answer to COMMIT is lost, the outcome is asked
 * for on a new connection until it is known: succeeding means that the transaction is committed.
 */
const afterFailedCommit = Effect.fnUntraced(function* (
  lane: Lane,
  holder: SessionHolder,
  failure: StatementFailed,
  transactionId: string,
  unit: UnitOfWork
) {
  yield* abandon(holder, failure)
  if (failure.disposition !== "UNAVAILABLE") return yield* failure
  yield* countRetry("unknown commit")
  yield* Effect.logWarning("the answer to a COMMIT was lost", failure.message)
  const committed = yield* Effect.gen(function* () {
    const session = yield* sessionOf(lane.db, holder)
    if (yield* Transaction.isInProgress(session, transactionId)) return yield* stillInProgress
    return yield* Transaction.isWritten(session, unit)
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
    answerEntry(entry, "refusal" in verdict ? Exit.fail(verdict.refusal) : Exit.succeed(verdict))
  })
}

const failAll = (entries: ReadonlyArray<Entry>, failure: DatabaseUnavailable): void => {
  for (const entry of entries) answerEntry(entry, Exit.fail(failure))
}
