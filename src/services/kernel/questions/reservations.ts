import { reservationKindsInSql } from "../../../schema/Reservation.ts"
import { type Question, within } from "../Question.ts"
import { saleStockKeyInSql } from "../trackingKeys.ts"

/** Invariants 2, 5 and 7 of reservations and their lines. */

const ofOrderLines = reservationKindsInSql(({ isOfOrderLines }) => isOfOrderLines)

/**
 * What was sold of orders beyond what their documents asked for. Of the documents of some kinds only the largest counts,
 * because they followed one another for the same line. `documents` says how many an order must have.
 */
// reservation_by_order, reservation_line_pkey
const soldMoreThanAsked = (orders: string, documents: string): string => `
  WITH document AS MATERIALIZED (
    SELECT r.merchant_id, r.order_id, r.kind, r.reservation_id, r.request
    FROM (${orders}) suspected
    CROSS JOIN LATERAL (
      SELECT r.*, count(*) OVER () AS documents
      FROM reservation r
      WHERE r.merchant_id = suspected.merchant_id AND r.order_id = suspected.order_id
      OFFSET 0
    ) r
    WHERE r.documents ${documents} AND r.kind IN (${ofOrderLines})
  ),
  sold AS (
    SELECT d.merchant_id, d.order_id, l.item_id, sum(l.sold)::bigint AS quantity
    FROM document d
    CROSS JOIN LATERAL (
      SELECT l.item_id, l.sold
      FROM reservation_line l
      WHERE l.merchant_id = d.merchant_id AND l.reservation_id = d.reservation_id AND l.sold > 0
      OFFSET 0
    ) l
    GROUP BY d.merchant_id, d.order_id, l.item_id
  ),
  asked AS (
    SELECT merchant_id, order_id, item_id, sum(quantity)::bigint AS quantity
    FROM (
      SELECT merchant_id, order_id, item_id,
             CASE WHEN kind IN (${reservationKindsInSql(({ asks }) => asks === "LARGEST")}) THEN max(quantity)
                  WHEN kind IN (${reservationKindsInSql(({ asks }) => asks === "ALL")}) THEN sum(quantity) END AS quantity
      FROM (
        SELECT d.merchant_id, d.order_id, d.kind, d.reservation_id, line.value ->> 0 AS item_id,
               sum((line.value ->> 1)::bigint) AS quantity
        FROM document d
        CROSS JOIN LATERAL jsonb_array_elements(d.request::jsonb) AS line (value)
        GROUP BY d.merchant_id, d.order_id, d.kind, d.reservation_id, line.value ->> 0
      ) requests
      GROUP BY merchant_id, order_id, item_id, kind
    ) asked_by_kind
    GROUP BY merchant_id, order_id, item_id
  )
  SELECT sold.merchant_id, sold.order_id, sold.item_id,
         'item ' || sold.item_id || ' of order ' || sold.order_id AS subject, sold.quantity AS sold,
         COALESCE(asked.quantity, 0) AS asked
  FROM sold
  LEFT JOIN asked
    ON asked.merchant_id = sold.merchant_id AND asked.order_id = sold.order_id AND asked.item_id = sold.item_id::text
  WHERE sold.quantity > COALESCE(asked.quantity, 0)`

export const reservationQuestions: ReadonlyArray<Question> = [
  {
    // Only a PENDING reservation holds, and every PENDING one does; what was sold is CONFIRMED.
    check: "pending-holds",
    over: "reservations",
    // reservation_pkey, reservation_line_pkey
    statement: `
  SELECT *
  FROM (
    SELECT r.merchant_id, r.reservation_id, r.order_id,
           'reservation ' || r.reservation_id || ' of order ' || r.order_id AS subject, r.status,
           COALESCE(sum(l.open), 0)::bigint AS open, COALESCE(sum(l.sold), 0)::bigint AS sold
    FROM (
      SELECT r.merchant_id, r.reservation_id, r.order_id, r.status
      FROM reservation r
      WHERE ${within("r", "reservation_id")}
    ) r
    LEFT JOIN (
      SELECT l.merchant_id, l.reservation_id, l.open, l.sold
      FROM reservation_line l
      WHERE ${within("l", "reservation_id")}
    ) l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
    GROUP BY r.merchant_id, r.reservation_id, r.order_id, r.status
  ) stated
  WHERE (status = 'PENDING') <> (open > 0)
    OR (status = 'CONFIRMED' AND sold = 0)
    OR (status IN ('CANCELLED', 'EXPIRED') AND sold > 0)`
  },
  {
    // A document of an order sells no more of an item than it asked for.
    check: "sold-once",
    over: "reservations",
    // Most have sold just what one of their lines asks for, as it is written there: of those nothing is read out of JSON.
    // reservation_pkey, reservation_line_pkey
    statement: soldMoreThanAsked(
      `
    SELECT DISTINCT r.merchant_id, r.order_id
    FROM reservation r
    JOIN (
      SELECT l.merchant_id, l.reservation_id, l.item_id, sum(l.sold) AS sold
      FROM reservation_line l
      WHERE ${within("l", "reservation_id")}
        AND l.sold > 0
      GROUP BY l.merchant_id, l.reservation_id, l.item_id
    ) l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
    WHERE ${within("r", "reservation_id")}
      AND r.kind IN (${ofOrderLines})
      AND strpos(r.request, '["' || l.item_id || '",' || l.sold || ',') = 0`,
      "= 1"
    )
  },
  {
    // Nor do several documents of one order.
    check: "sold-once",
    over: "orders",
    // reservation_by_order
    statement: soldMoreThanAsked(
      `
    SELECT r.merchant_id, r.order_id
    FROM reservation r
    WHERE ${within("r", "order_id", "text")}
    GROUP BY r.merchant_id, r.order_id
    HAVING count(*) > 1`,
      "> 1"
    )
  }
]

export const lineQuestions: ReadonlyArray<Question> = [
  {
    check: "line-of-a-reservation",
    over: "lines",
    // reservation_line_pkey, reservation_pkey; inventory_ledger_pkey: whose order it was, its movements say
    statement: `
  SELECT l.merchant_id, l.reservation_id, l.item_id, l.stock_id, l.line_number,
         'line ' || l.line_number || ' of reservation ' || l.reservation_id AS subject, l.quantity, l.open, l.sold,
         l.returned, (
           SELECT m.order_id
           FROM inventory_ledger m
           WHERE m.merchant_id = l.merchant_id AND m.stock_id = l.stock_id AND m.reservation_id = l.reservation_id
           ORDER BY m.recorded_at
           LIMIT 1
         ) AS order_id
  FROM reservation_line l
  WHERE ${within("l", "reservation_id")}
    AND NOT EXISTS (
      SELECT
      FROM reservation r
      WHERE ${within("r", "reservation_id")}
        AND r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
    )`
  },
  {
    // A line of what is not stocked is of an item of its merchant. (Those about stock: where stocks are walked.)
    check: "own-merchant",
    over: "lines",
    // reservation_line_pkey, item_pkey
    statement: `
  SELECT l.merchant_id, l.reservation_id, l.item_id,
         'line ' || l.line_number || ' of reservation ' || l.reservation_id AS subject, l.item_id AS names_item
  FROM reservation_line l
  WHERE ${within("l", "reservation_id")}
    AND l.stock_id IS NULL
    AND NOT EXISTS (SELECT FROM item i WHERE i.merchant_id = l.merchant_id AND i.item_id = l.item_id OFFSET 0)`
  },
  {
    // The stocks that a paid order was sold from are noted: a return without its order's message asks for them.
    check: "paid-stock-is-noted",
    over: "lines",
    // reservation_line_pkey, reservation_pkey, tracking_pkey
    statement: `
  SELECT l.merchant_id, l.reservation_id, l.item_id, l.stock_id, r.order_id,
         'order ' || r.order_id || ' sold from stock ' || l.stock_id AS subject, l.paid,
         ${saleStockKeyInSql("r.order_id", "l.stock_id")} AS tracking_key, l.reservation_id AS posting_id
  FROM reservation_line l
  JOIN LATERAL (
    SELECT r.order_id
    FROM reservation r
    WHERE r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
    OFFSET 0
  ) r ON true
  WHERE ${within("l", "reservation_id")}
    AND l.paid > 0 AND l.stock_id IS NOT NULL
    AND NOT EXISTS (
      SELECT FROM tracking t
      WHERE t.merchant_id = l.merchant_id AND t.tracking_key = ${saleStockKeyInSql("r.order_id", "l.stock_id")}
      OFFSET 0
    )`
  }
]
