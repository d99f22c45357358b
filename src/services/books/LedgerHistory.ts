import { Clock, Context, Effect, Layer, Schema } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import { Db } from "../Db.ts"
import { type Partition, Partitions } from "../Partitions.ts"
import { parameter } from "../PostgresTypes.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type StockRow, stocks } from "../kernel/tables/stock.ts"

/** Only months that are over can be detached: a movement may still come into the others. */
export class MonthNotOver extends Schema.TaggedError<MonthNotOver>()("MonthNotOver", {
  before: Schema.String,
  latest: Schema.String
}) {
  override get message(): string {
    return `${this.before} is too late: movements still come into that month. The latest that can be named is ${this.latest}`
  }
}

/** A month that was taken out of the ledger: its rows are in a table of that name. */
export interface DetachedMonth {
  readonly name: string
  /** Closing balances written: stocks that moved in that month. */
  readonly closed: number
}

/**
 * How far back the ledger reaches. A month that is detached leaves a closing balance for each stock that moved in it
 * (`ledger_checkpoint`), from which `audit` and `?at=` go on; its rows stay, append-only, until an operator drops them.
 */
export class LedgerHistory extends Context.Service<
  LedgerHistory,
  {
    readonly months: Effect.Effect<ReadonlyArray<Partition>, DatabaseUnavailable>
    /**
     * Detaches the months that end at or before this time (epoch milliseconds), oldest first, while postings go on.
     * Breaking off is harmless: asked again, it goes on.
     */
    readonly detach: (
      before: number,
      actor: string
    ) => Effect.Effect<ReadonlyArray<DetachedMonth>, MonthNotOver | DatabaseUnavailable>
  }
>()("holdfast/services/LedgerHistory") {
  static readonly layer = Layer.effect(
    LedgerHistory,
    Effect.gen(function* () {
      const db = yield* Db
      const partitions = yield* Partitions
      const months = partitions.list("inventory_ledger")

      /** The last balance of each stock that moved in a month, stock by stock in the order of their keys. */
      const close = Effect.fnUntraced(function* ({ name }: Partition, actor: string) {
        const at = yield* Clock.currentTimeMillis
        let closed = 0
        let last: SliceRow | undefined
        for (;;) {
          const [row] = yield* db.maintain<SliceRow>(closeStatement(name), [
            parameter("text", last?.merchantId ?? ""),
            parameter("uuid", last?.stockId ?? nilUuid),
            parameter("int4", stocksPerSlice),
            parameter("text", actor),
            parameter("text", `${name} was detached`),
            parameter("timestamptz", at)
          ])
          if (row === undefined) return closed
          closed += row.closed
          last = row
        }
      })

      const detach = Effect.fn("LedgerHistory.detach")(function* (before: number, actor: string) {
        const now = yield* Clock.currentTimeMillis
        const latest = monthOf(now - settledMs)
        if (before > latest) {
          return yield* new MonthNotOver({ before: monthName(before), latest: monthName(latest) })
        }
        const detached: Array<DetachedMonth> = []
        for (const month of yield* months) {
          if (!month.attached || month.until > before) continue
          const closed = yield* close(month, actor)
          yield* db.maintain(markStatement, [parameter("timestamptz", month.until)])
          yield* partitions.detach("inventory_ledger", month.name)
          yield* db.maintain(protectStatement(month.name), [])
          detached.push({ name: month.name, closed })
        }
        return detached
      })

      return LedgerHistory.of({ detach, months })
    })
  )
}

const stocksPerSlice = 500
/** A posting that began before midnight may commit after it, and clocks may differ. */
const settledMs = 24 * 60 * 60 * 1000

const monthOf = (at: number): number => {
  const date = new Date(at)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1)
}
const monthName = (at: number): string => new Date(at).toISOString().slice(0, 7)

interface SliceRow extends Pick<StockRow, "merchantId" | "stockId"> {
  readonly closed: number
}

/** The partition's name comes from the catalog, by a pattern of ours. */
// stock_pkey, the partition's primary key, ledger_checkpoint_pkey
const closeStatement = (partition: string): string => `
  WITH slice AS (
    SELECT s.merchant_id, s.stock_id
    FROM stock s
    WHERE (s.merchant_id, s.stock_id) > ($1, $2)
    ORDER BY s.merchant_id, s.stock_id
    LIMIT $3
  ), closed AS (
    INSERT INTO ledger_checkpoint (merchant_id, stock_id, sequence, recorded_at, on_hand, reserved, unallocatable, kind,
      actor, reason, created_at)
    SELECT slice.merchant_id, slice.stock_id, last.sequence, last.recorded_at, last.on_hand, last.reserved,
           last.unallocatable, 'CLOSING', $4, $5, $6
    FROM slice
    CROSS JOIN LATERAL (
      SELECT l.sequence, l.recorded_at, l.on_hand, l.reserved, l.unallocatable
      FROM ${partition} l
      WHERE l.merchant_id = slice.merchant_id AND l.stock_id = slice.stock_id
      ORDER BY l.recorded_at DESC, l.sequence DESC
      LIMIT 1
    ) last
    ON CONFLICT (merchant_id, stock_id, sequence) DO NOTHING
    RETURNING 1
  )
  SELECT ${fieldsInSql(stocks, "slice", ["merchantId", "stockId"])}, (SELECT count(*) FROM closed) AS closed
  FROM slice
  ORDER BY slice.merchant_id DESC, slice.stock_id DESC
  LIMIT 1`

/** Before the rows go: audit may ask for less than is there, never for more. */
const markStatement = `
  INSERT INTO retention_mark (table_name, kept_since)
  VALUES ('inventory_ledger', $1)
  ON CONFLICT (table_name) DO UPDATE
  SET kept_since = GREATEST(retention_mark.kept_since, excluded.kept_since)`

/**
 * Detaching took the ledger's own trigger away: history is never rewritten, wherever it is. Of another name, so that the
 * table can be attached again.
 */
const protectStatement = (partition: string): string => `
  CREATE OR REPLACE TRIGGER detached_append_only
    BEFORE UPDATE OR DELETE ON ${partition}
    FOR EACH ROW EXECUTE FUNCTION holdfast_ledger_is_append_only()`
