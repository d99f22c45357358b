import { Clock, Context, Effect, Layer, Metric } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { Broker, type BrokerUnavailable } from "../messaging/Broker.ts"
import { Db } from "../Db.ts"
import { postingKeyPrefix } from "../kernel/trackingKeys.ts"
import { idempotencyAgeMs } from "../kernel/decide.ts"
import { Outbox } from "../messaging/Outbox.ts"
import { Partitions } from "../Partitions.ts"
import { parameter } from "../PostgresTypes.ts"

const hourMs = 60 * 60 * 1000

/** How long what nobody needs any more is kept, in milliseconds. */
export interface Windows {
  /** Events that the broker has acknowledged: as far back as `audit` can compare them with the ledger. */
  readonly outboxMs: number
  /** Messages of the broker in PostgreSQL that every group has committed: as far back as a new group begins. */
  readonly brokerMs: number
  /** Dead letters that were replayed. What was neither replayed nor dropped waits for an operator, however long. */
  readonly deadLettersMs: number
}
export const defaultWindows: Windows = {
  outboxMs: 7 * 24 * hourMs,
  brokerMs: 7 * 24 * hourMs,
  deadLettersMs: 7 * 24 * hourMs
}

/** Rows (of the outbox: groups of events) that were removed, by table. */
export type Removed = Readonly<
  Record<"outbox" | "idempotency" | "tracking" | "broker_message" | "dead_letter", number>
>

/**
 * Keeps the database from growing with what is over (docs/operations.md says what stays, and why). Everything goes in
 * bounded batches, so that nobody waits for it; any number of replicas may do it.
 */
export class Retention extends Context.Service<
  Retention,
  {
    /** Removes what is past its age. Goes on after a table that could not be cleaned; fails with what it met there. */
    readonly removeExpired: Effect.Effect<Removed, DatabaseUnavailable | BrokerUnavailable>
    /** Measures how long the oldest transaction has been open, which is how long nothing dead could be vacuumed away. */
    readonly measureSnapshots: Effect.Effect<void, DatabaseUnavailable>
  }
>()("holdfast/services/Retention") {
  static readonly layer = (windows: Windows = defaultWindows) =>
    Layer.effect(
      Retention,
      Effect.gen(function* () {
        const db = yield* Db
        const broker = yield* Broker
        const outbox = yield* Outbox
        const partitions = yield* Partitions

        /** Batch by batch, until one is not full. */
        const removeBefore = Effect.fnUntraced(function* (statement: string, ageMs: number) {
          const before = (yield* Clock.currentTimeMillis) - ageMs
          let removed = 0
          for (;;) {
            const [row] = yield* db.maintain<{ count: number }>(statement, [
              parameter("timestamptz", before),
              parameter("int4", batchRows)
            ])
            removed += row!.count
            if (row!.count < batchRows) return removed
          }
        })

        /** Months of the outbox that are over and empty. */
        const dropEmptied = Effect.gen(function* () {
          const before = (yield* Clock.currentTimeMillis) - windows.outboxMs
          for (const { attached, name, until } of yield* partitions.list("outbox")) {
            if (until > before) continue
            const [row] = yield* db.maintain<{ empty: boolean }>(
              `SELECT NOT EXISTS (SELECT 1 FROM ${name}) AS empty`,
              []
            )
            if (row?.empty !== true) continue
            if (attached) yield* partitions.detach("outbox", name)
            yield* db.maintain(`DROP TABLE IF EXISTS ${name}`, [])
          }
        })

        const removeExpired = Effect.gen(function* () {
          type Step = Effect.Effect<number, DatabaseUnavailable | BrokerUnavailable>
          const steps: Readonly<Record<keyof Removed, Step>> = {
            outbox: Effect.tap(outbox.removeSent(windows.outboxMs), () => dropEmptied),
            idempotency: removeBefore(removeIdempotency, idempotencyAgeMs + marginMs),
            tracking: removeBefore(removePostings, postingAgeMs),
            broker_message: broker.removeExpired(windows.brokerMs),
            dead_letter: removeBefore(removeReplayed, windows.deadLettersMs)
          }
          let failed: DatabaseUnavailable | BrokerUnavailable | undefined
          const removed = { outbox: 0, idempotency: 0, tracking: 0, broker_message: 0, dead_letter: 0 }
          for (const table of Object.keys(removed) as ReadonlyArray<keyof Removed>) {
            removed[table] = yield* Effect.catch(steps[table], (failure) => {
              failed = failure
              return Effect.succeed(0)
            })
            yield* Metric.update(Metric.withAttributes(removedRows, { table }), removed[table])
          }
          if (failed !== undefined) return yield* Effect.fail(failed)
          yield* Metric.update(lastRun, (yield* Clock.currentTimeMillis) / 1000)
          return removed
        })
        return Retention.of({
          removeExpired: Effect.withSpan(removeExpired, "Retention.removeExpired"),
          measureSnapshots: Effect.flatMap(db.maintain<{ age: number }>(oldestTransaction, []), ([row]) =>
            Metric.update(oldestSnapshot, row!.age)
          )
        })
      })
    )
}

/** Small enough that nobody waits long for a row that is on its way out. */
const batchRows = 1_000
/** A key is read by its age on another replica's clock: none goes before everyone agrees that it is over. */
const marginMs = hourMs
/** A posting's own row answers its second run, which comes within its deadline or never. */
const postingAgeMs = 24 * hourMs

const removedRows = Metric.counter("holdfast_retention_removed_total", {
  description: "Rows removed by age, by table",
  incremental: true
})
const lastRun = Metric.gauge("holdfast_retention_last_run_timestamp_seconds", {
  description: "When everything past its age was last removed, in seconds since 1970"
})

const oldestSnapshot = Metric.gauge("holdfast_oldest_transaction_seconds", {
  description: "How long the oldest open transaction of the database server has been holding back clean-up"
})

const oldestTransaction = `
  SELECT COALESCE(max(EXTRACT(epoch FROM clock_timestamp() - xact_start)), 0)::double precision AS age
  FROM pg_stat_activity
  WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type <> 'autovacuum worker'
    AND pid <> pg_backend_pid()`

// idempotency_by_age, and the rows by their place: sees all merchants
const removeIdempotency = `
  WITH removed AS (
    DELETE FROM idempotency
    WHERE ctid = ANY (ARRAY(
      SELECT ctid
      FROM idempotency
      WHERE created_at < $1
      ORDER BY created_at
      LIMIT $2
      FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
  )
  SELECT count(*) AS count FROM removed`

// tracking_by_age, and the rows by their place: sees all merchants. Only a posting's own row goes: what says that an
// outside fact was applied, or that an order is cancelled, is asked for again whenever a topic is read from its beginning.
const removePostings = `
  WITH removed AS (
    DELETE FROM tracking
    WHERE ctid = ANY (ARRAY(
      SELECT ctid
      FROM tracking
      WHERE tracking_key LIKE '${postingKeyPrefix}%' AND recorded_at < $1
      ORDER BY recorded_at
      LIMIT $2
      FOR UPDATE SKIP LOCKED
    ))
    RETURNING recorded_at
  ), marked AS (
    INSERT INTO retention_mark (table_name, kept_since)
    SELECT 'tracking', max(recorded_at) FROM removed HAVING count(*) > 0
    ON CONFLICT (table_name) DO UPDATE
    SET kept_since = GREATEST(retention_mark.kept_since, excluded.kept_since)
  )
  SELECT count(*) AS count FROM removed`

// dead_letter_replayed, and the rows by their place
const removeReplayed = `
  WITH removed AS (
    DELETE FROM dead_letter
    WHERE ctid = ANY (ARRAY(
      SELECT ctid
      FROM dead_letter
      WHERE replayed_at < $1
      ORDER BY replayed_at
      LIMIT $2
      FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
  )
  SELECT count(*) AS count FROM removed`
