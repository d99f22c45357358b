import { balanceDiscrepancyKindsInSql } from "../../../schema/Discrepancy.ts"
import { type Question, within } from "../Question.ts"
import { postingKeyPrefix, saleStockKeyInSql } from "../trackingKeys.ts"

/** Invariants 5 and 7 of tracking rows, and 3 and 7 of discrepancies. */

export const trackingQuestions: ReadonlyArray<Question> = [
  {
    check: "tracking-names-its-posting",
    over: "trackings",
    // tracking_pkey
    statement: `
  SELECT t.merchant_id, 'tracking ' || t.tracking_key AS subject, t.tracking_key,
         substr(t.tracking_key, ${postingKeyPrefix.length + 1}) AS posting_id, t.posting_id AS named
  FROM tracking t
  WHERE ${within("t", "tracking_key", "text")}
    AND t.tracking_key LIKE '${postingKeyPrefix}%' AND t.tracking_key <> '${postingKeyPrefix}' || t.posting_id::text`
  },
  {
    // What notes a stock that a paid order was sold from is of a line that was.
    check: "noted-stock-is-paid",
    over: "trackings",
    // tracking_pkey, reservation_by_order, reservation_line_pkey
    statement: `
  SELECT t.merchant_id, noted.order_id, 'order ' || noted.order_id || ' sold from stock ' || noted.stock_id AS subject,
         t.tracking_key
  FROM tracking t
  CROSS JOIN LATERAL (
    SELECT split_part(t.tracking_key, E'\\x1f', 2) AS order_id, split_part(t.tracking_key, E'\\x1f', 4) AS stock_id
  ) noted
  WHERE ${within("t", "tracking_key", "text")}
    AND t.tracking_key LIKE ${saleStockKeyInSql("'%'", "'%'")}
    AND NOT EXISTS (
      SELECT
      FROM reservation r
      CROSS JOIN LATERAL (
        SELECT
        FROM reservation_line l
        WHERE l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id AND l.paid > 0
          AND l.stock_id::text = noted.stock_id
        OFFSET 0
      ) l
      WHERE r.merchant_id = t.merchant_id AND r.order_id = noted.order_id
      OFFSET 0
    )`
  }
]

export const discrepancyQuestions: ReadonlyArray<Question> = [
  {
    // A discrepancy is about a stock and an item of its merchant, and one of a balance about its own subject.
    check: "own-merchant",
    over: "discrepancies",
    // discrepancy_pkey, stock_pkey, item_pkey
    statement: `
  SELECT d.merchant_id, d.stock_id, d.item_id, 'discrepancy ' || d.discrepancy_id AS subject, d.kind, d.status,
         d.subject AS about
  FROM discrepancy d
  WHERE ${within("d", "discrepancy_id")}
    AND (d.stock_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM stock s WHERE s.merchant_id = d.merchant_id AND s.stock_id = d.stock_id OFFSET 0
      )
      OR d.item_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM item i WHERE i.merchant_id = d.merchant_id AND i.item_id = d.item_id OFFSET 0
      )
      OR d.status = 'OPEN' AND d.kind IN (${balanceDiscrepancyKindsInSql})
        AND d.subject IS DISTINCT FROM d.stock_id::text
      OR d.status = 'OPEN' AND d.kind = 'DISCONTINUED_WITH_STOCK' AND d.subject IS DISTINCT FROM d.item_id::text)`
  }
]
