import { Effect } from "effect"
import { nilUuid } from "../../../schema/Identifier.ts"
import { parameter } from "../../PostgresTypes.ts"
import { type Ask, type Range, rangeParameters, within } from "./Asking.ts"
import {
  type Comparison,
  digestInSql,
  gatherInSql,
  pairDigestInSql,
  stateAfterInSql,
  stateBeforeInSql
} from "./digests.ts"
import { type Marks, hasNoTracking } from "./documents.ts"
import { type Window, boundsOf, idAt, inWindow, windowParameters } from "./events.ts"
import { differsInSql, isReturn, isSale, movesForReservation } from "./stocks.ts"

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
  /** What has moved for a reservation that is not compared in cells is not what its lines say. */
  readonly lines: boolean
}

interface PassRow {
  readonly digests: Uint8Array | null
  readonly pairs: Uint8Array | null
  readonly breaks: boolean
  readonly begins: boolean
  readonly strays: boolean
  readonly tracked: boolean
  readonly differs: boolean
}

// inventory_ledger_pkey; for the first movement of a stock stock_pkey and ledger_checkpoint_pkey; tracking_pkey. One value
// of the row before it costs as much as all hashes, so that there is one.
const passStatement = (range: Range) => `
  SELECT ${gatherInSql(digestInSql("l"))} FILTER (WHERE ${inWindow}) AS digests,
         ${gatherInSql(pairDigestInSql("l"), "l.reserved_delta", soldInSql, returnedInSql)}
           FILTER (WHERE ${isCompared}) AS pairs,
         -- Without the millisecond that the question itself allows.
         COALESCE(bool_or(state_before <> ${stateBeforeInSql("l")}
           OR (uuid_extract_timestamp(l.posting_id) <= l.recorded_at) IS NOT TRUE), false) AS breaks,
         COALESCE(bool_or(state_before IS NULL AND (${isNoBeginning} OR ${hasOlderCheckpoint})), false) AS begins,
         COALESCE(bool_or(state_before IS NULL AND ${hasNoStock}), false) AS strays,
         COALESCE(bool_or(${hasNoTracking("l", "$13")}), false) AS tracked,
         COALESCE(bool_or(${isApart} AND ${differsInSql("l")}), false) AS differs
  FROM (
    SELECT l.merchant_id, l.stock_id, l.item_id, l.recorded_at, l.sequence, l.type, l.posting_id, l.on_hand, l.reserved,
           l.unallocatable, l.on_hand_delta, l.reserved_delta, l.unallocatable_delta, l.reservation_id,
           COALESCE(lag(${stateAfterInSql("l")}) OVER w, $17::text::bigint) AS state_before
    FROM inventory_ledger l
    WHERE ${within(range, "uuid", "l", "stock_id")}
    WINDOW w AS (PARTITION BY l.merchant_id, l.stock_id ORDER BY l.recorded_at, l.sequence)
  ) l`

const soldInSql = `CASE WHEN ${isSale("l")} THEN -l.on_hand_delta ELSE 0 END`
const returnedInSql = `CASE WHEN ${isReturn("l")} THEN l.on_hand_delta ELSE 0 END`

/** What moves for reservations of a window is compared with the lines; that of others is looked at by itself. */
const isCompared = `l.reservation_id >= $14::text::uuid AND l.reservation_id < $15::text::uuid AND ${movesForReservation("l")}`
const isApart = `l.reservation_id >= $16::text::uuid
           AND (l.reservation_id < $14::text::uuid OR l.reservation_id >= $15::text::uuid) AND ${movesForReservation("l")}`

const hasNoStock = `NOT EXISTS (
           SELECT FROM stock s
           WHERE s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
           OFFSET 0
         )`

/** Reservations of some moments before the ledger begins: the kernel recorded their movements when it got to them. */
const queuedMs = 60_000

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

/**
 * Adds a range of the ledger to the comparison with the outbox and, unless it is a part of a stock's movements, to that with
 * the lines; and tells what seems wrong there.
 */
export const pass = Effect.fnUntraced(function* (
  ask: Ask,
  range: Range,
  options: {
    readonly windows: { readonly events: Window; readonly lines: Window }
    readonly marks: Marks
    readonly comparisons: { readonly events: Comparison; readonly lines: Comparison }
  }
) {
  const { comparisons, marks, windows } = options
  const { after } = windows.lines
  const { beyond, least } = boundsOf(windows.lines)
  const asked =
    range.part === undefined
      ? [least, beyond, after === null ? nilUuid : idAt(after - queuedMs)]
      : [lastUuid, lastUuid, lastUuid]
  const [row] = yield* ask<PassRow>(passStatement(range), [
    ...rangeParameters(range),
    ...windowParameters(windows.events),
    parameter("timestamptz", marks.trackingKeptSince),
    ...asked.map((id) => parameter("text", id)),
    parameter("text", range.part?.state ?? null)
  ])
  const { begins, breaks, differs, digests, pairs, strays, tracked } = row!
  comparisons.events.addAll(digests, 1)
  comparisons.lines.addPairs(pairs, 1)
  // One that is of another item does not follow the one before it.
  return { chain: breaks || begins, homes: breaks || strays, tracked, lines: differs } satisfies Suspicion
})

const lastUuid = "ffffffff-ffff-ffff-ffff-ffffffffffff"
