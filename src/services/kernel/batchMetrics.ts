import { type Clock, Effect, Metric } from "effect"
import { kindOf } from "../../schema/Reservation.ts"
import type { Verdict } from "./decide.ts"
import type { Posting } from "./Posting.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/** What is counted of batches and their postings (docs/metrics.md). */

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
export const countRetry = (cause: string) => Metric.update(Metric.withAttributes(batchRetries, { cause }), 1)

/** A sale without a reservation is written as one that is confirmed (decision 0003): it was none. */
export const countReservations = Effect.fnUntraced(function* ({
  reservations: { before, inserted }
}: UnitOfWork) {
  const counts = new Map<string, number>()
  const count = (outcome: string): unknown => counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  for (const reservation of inserted) if (kindOf(reservation).isPromise) count("made")
  for (const [{ status }, statusBefore] of before) if (status !== statusBefore) count(status.toLowerCase())
  for (const [outcome, times] of counts) {
    yield* Metric.update(Metric.withAttributes(reservations, { outcome }), times)
  }
})

export const measureBatch = Effect.fnUntraced(function* (
  clock: Clock.Clock,
  entries: ReadonlyArray<{ readonly posting: Posting; readonly queuedAt: number }>,
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
