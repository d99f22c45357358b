import { Effect } from "effect"
import { parameter } from "../PostgresTypes.ts"
import { type Ask, type Range, rangeParameters, within } from "./Asking.ts"
import { cellInSql, digestInSql, weightInSql } from "./digests.ts"
import { type Marks, hasNoTracking } from "./documents.ts"
import { type Comparison, type Window, inWindow, windowParameters } from "./events.ts"
import { isBeforeItsPosting } from "./stocks.ts"

/**
 * The one pass over a range's movements that every audit makes. It adds them to the comparison with the outbox and says
 * what does not seem right; only that is asked for, row by row, by a question of its own (`chain`, `homes`, `tracked`).
 */

/** What seems wrong with a range of movements. It may not be: each question knows exceptions that this pass does not. */
export interface Suspicion {
  /** A movement does not follow the one before it, or a chain has a checkpoint amid its movements. */
  readonly chain: boolean
  /** One is not of its stock's item, or of no stock. */
  readonly homes: boolean
  /** Nothing tells that a posting was applied. */
  readonly tracked: boolean
}

interface CellRow {
  readonly cell: number
  readonly count: number
  readonly sum: number
  readonly chain: boolean
  readonly homes: boolean
  readonly tracked: boolean
}

// inventory_ledger_pkey; for the first movement of a stock stock_pkey and ledger_checkpoint_pkey; tracking_pkey
const passStatement = (range: Range) => `
  WITH movement AS (
    SELECT l.merchant_id, l.stock_id, l.item_id, l.recorded_at, l.sequence, l.type, l.posting_id, l.on_hand, l.reserved,
           l.unallocatable, l.on_hand_delta, l.reserved_delta, l.unallocatable_delta,
           lag(l.item_id) OVER w AS item_before,
           l.sequence <> lag(l.sequence) OVER w + 1
             OR l.on_hand <> lag(l.on_hand) OVER w + l.on_hand_delta
             OR l.reserved <> lag(l.reserved) OVER w + l.reserved_delta
             OR l.unallocatable <> lag(l.unallocatable) OVER w + l.unallocatable_delta
             OR ${isBeforeItsPosting("l")} AS breaks
    FROM inventory_ledger l
    WHERE ${within(range, "uuid", "l", "stock_id")}
    WINDOW w AS (PARTITION BY l.merchant_id, l.stock_id ORDER BY l.recorded_at, l.sequence)
  )
  SELECT ${cellInSql("digest")} AS cell, count(*) FILTER (WHERE is_asked) AS count,
         COALESCE(sum(${weightInSql("digest")}) FILTER (WHERE is_asked), 0)::bigint AS sum,
         bool_or(chain) AS chain, bool_or(homes) AS homes, bool_or(tracked) AS tracked
  FROM (
    SELECT ${digestInSql("l")} AS digest,
           ${inWindow} AS is_asked,
           CASE WHEN item_before IS NOT NULL THEN breaks
                ELSE breaks IS TRUE OR ${isNoBeginning} OR ${hasOlderCheckpoint} END AS chain,
           CASE WHEN item_before IS NOT NULL THEN l.item_id <> item_before
                ELSE NOT EXISTS (
                  SELECT FROM stock s
                  WHERE s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
                  OFFSET 0
                ) END AS homes,
           ${hasNoTracking("l", "$13")} AS tracked
    FROM movement l
    -- Computed once for each row, and not wherever it is used.
    OFFSET 0
  ) movement
  GROUP BY 1`

/** The first movement there is of a stock is number 1, or goes on from a checkpoint. */
const isNoBeginning = `
                  (l.sequence, l.on_hand, l.reserved, l.unallocatable)
                    <> (1, l.on_hand_delta, l.reserved_delta, l.unallocatable_delta)
                  AND NOT EXISTS (
                    SELECT FROM ledger_checkpoint c
                    WHERE c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id AND c.sequence = l.sequence - 1
                      AND c.recorded_at <= l.recorded_at AND c.on_hand = l.on_hand - l.on_hand_delta
                      AND c.reserved = l.reserved - l.reserved_delta
                      AND c.unallocatable = l.unallocatable - l.unallocatable_delta
                    OFFSET 0
                  )`

/** A checkpoint amid the movements that are there: the chain before it does not count. */
const hasOlderCheckpoint = `EXISTS (
                    SELECT FROM ledger_checkpoint c
                    WHERE c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id AND c.sequence >= l.sequence
                    OFFSET 0
                  )`

/** Adds a range of the ledger to the comparison, and tells what seems wrong there. */
export const pass = Effect.fnUntraced(function* (
  ask: Ask,
  range: Range,
  options: { readonly window: Window; readonly marks: Marks; readonly comparison: Comparison }
) {
  const { comparison, marks, window } = options
  const rows = yield* ask<CellRow>(passStatement(range), [
    ...rangeParameters(range),
    ...windowParameters(window),
    parameter("timestamptz", marks.trackingKeptSince)
  ])
  const suspicion = { chain: false, homes: false, tracked: false }
  for (const row of rows) {
    comparison.add(row.cell, row.count, row.sum)
    suspicion.chain ||= row.chain
    suspicion.homes ||= row.homes
    suspicion.tracked ||= row.tracked
  }
  return suspicion satisfies Suspicion
})
