import { PgConnection } from "@effect/sql-pg"
import { assert } from "@effect/vitest"
import { Effect, type Redacted } from "effect"

/**
 * The invariants of CONTRACTS section 2 as questions to a database: every row that comes back is a violation. They are
 * asked in one snapshot each, so that they can be asked while others write, too.
 *
 * `holdfast audit` asks the same in slices, by other means. The two share nothing on purpose: each is the other's oracle
 * (decision 0009).
 */

export interface Violation {
  /** The number in CONTRACTS section 2, and what is wrong. */
  readonly invariant: string
  readonly row: unknown
}

/** The violations of a database, a few of each kind. */
export const violations = (url: Redacted.Redacted<string>): Effect.Effect<ReadonlyArray<Violation>> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({
        url,
        applicationName: "holdfast invariants",
        // Whole tables are compared, of which the planner knows nothing yet: never one row after the other.
        startupParameters: { enable_nestloop: "off", jit: "off" }
      })
      const found: Array<Violation> = []
      for (const [invariant, question] of Object.entries(questions)) {
        const rows = yield* connection.queryValues(
          `SELECT to_jsonb(violation)::text FROM (${question}) AS violation LIMIT 5`
        )
        for (const [row] of rows) found.push({ invariant, row: JSON.parse(row as string) })
      }
      return found
    })
  ).pipe(Effect.orDie)

export const assertInvariants = (url: Redacted.Redacted<string>): Effect.Effect<void> =>
  Effect.map(violations(url), (found) => assert.deepStrictEqual(found, []))

/** The events of the outbox one by one, in the order in which they are published within a key. */
const events = `
  SELECT o.bucket, o.position, e.ordinal, e.event, e.event -> 'data' AS data,
         split_part(e.event ->> 'id', '.', 1) AS posting_id
  FROM outbox o
  CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) WITH ORDINALITY AS e (event, ordinal)`

const questions: Readonly<Record<string, string>> = {
  "1: a stock is the sum of its ledger deltas": `
    SELECT s.merchant_id, s.stock_id, s.on_hand, s.reserved, s.unallocatable, s.sequence, m.*
    FROM stock s
    LEFT JOIN (
      SELECT merchant_id, stock_id, sum(on_hand_delta) AS on_hand_sum, sum(reserved_delta) AS reserved_sum,
             sum(unallocatable_delta) AS unallocatable_sum, max(sequence) AS last
      FROM inventory_ledger
      GROUP BY merchant_id, stock_id
    ) m ON m.merchant_id = s.merchant_id AND m.stock_id = s.stock_id
    WHERE (s.on_hand, s.reserved, s.unallocatable, s.sequence) IS DISTINCT FROM
      (COALESCE(m.on_hand_sum, 0), COALESCE(m.reserved_sum, 0), COALESCE(m.unallocatable_sum, 0), COALESCE(m.last, 0))`,

  "1: a ledger row's balances are the previous row's plus its deltas, without gaps, in time": `
    SELECT *
    FROM (
      SELECT merchant_id, stock_id, sequence, on_hand, on_hand_delta, reserved, reserved_delta, unallocatable,
             unallocatable_delta, recorded_at,
             lag(sequence, 1, 0::bigint) OVER w AS sequence_before,
             lag(on_hand, 1, 0::bigint) OVER w AS on_hand_before,
             lag(reserved, 1, 0::bigint) OVER w AS reserved_before,
             lag(unallocatable, 1, 0::bigint) OVER w AS unallocatable_before,
             lag(recorded_at) OVER w AS recorded_before
      FROM inventory_ledger
      WINDOW w AS (PARTITION BY merchant_id, stock_id ORDER BY sequence)
    ) l
    WHERE sequence <> sequence_before + 1
      OR on_hand <> on_hand_before + on_hand_delta
      OR reserved <> reserved_before + reserved_delta
      OR unallocatable <> unallocatable_before + unallocatable_delta
      OR recorded_at < recorded_before`,

  "1: a movement belongs to a stock of its item": `
    SELECT l.merchant_id, l.stock_id, l.item_id, l.sequence
    FROM inventory_ledger l
    LEFT JOIN stock s
      ON s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
    WHERE s.stock_id IS NULL`,

  "1: an item is the sum of its stocks": `
    SELECT i.merchant_id, i.item_id, i.on_hand, i.reserved, i.unallocatable, sums.*
    FROM item i
    LEFT JOIN (
      SELECT merchant_id, item_id, sum(on_hand) AS on_hand_sum, sum(reserved) AS reserved_sum,
             sum(unallocatable) AS unallocatable_sum
      FROM stock
      GROUP BY merchant_id, item_id
    ) sums ON sums.merchant_id = i.merchant_id AND sums.item_id = i.item_id
    WHERE (i.on_hand, i.reserved, i.unallocatable) IS DISTINCT FROM
      (COALESCE(sums.on_hand_sum, 0), COALESCE(sums.reserved_sum, 0), COALESCE(sums.unallocatable_sum, 0))`,

  "2: what is reserved of a stock is what is open on it": `
    SELECT s.merchant_id, s.stock_id, s.reserved, held.open
    FROM stock s
    LEFT JOIN (
      SELECT merchant_id, stock_id, sum(open) AS open
      FROM reservation_line
      GROUP BY merchant_id, stock_id
    ) held ON held.merchant_id = s.merchant_id AND held.stock_id = s.stock_id
    WHERE s.reserved <> COALESCE(held.open, 0)`,

  "2: only a PENDING reservation holds, and every PENDING one does": `
    SELECT r.merchant_id, r.reservation_id, r.status, COALESCE(sum(l.open), 0) AS open
    FROM reservation r
    LEFT JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
    GROUP BY r.merchant_id, r.reservation_id, r.status
    HAVING (r.status = 'PENDING') <> (COALESCE(sum(l.open), 0) > 0)`,

  "2: a line is of a reservation, an item and a stock of its merchant": `
    SELECT l.merchant_id, l.reservation_id, l.line_number, l.item_id, l.stock_id
    FROM reservation_line l
    LEFT JOIN reservation r ON r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
    LEFT JOIN item i ON i.merchant_id = l.merchant_id AND i.item_id = l.item_id
    LEFT JOIN stock s ON s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
    WHERE r.reservation_id IS NULL OR i.item_id IS NULL OR (l.stock_id IS NOT NULL AND s.stock_id IS NULL)`,

  "3: a broken balance has its open discrepancy, and no other one is open": `
    SELECT broken.kind AS broken, named.kind AS named, COALESCE(broken.stock_id, named.stock_id) AS stock_id
    FROM (
      SELECT merchant_id, stock_id, 'NEGATIVE_STOCK' AS kind FROM stock WHERE on_hand < 0
      UNION ALL
      SELECT merchant_id, stock_id, 'OVERCOMMITTED' FROM stock
      WHERE reserved + unallocatable > on_hand AND reserved + unallocatable > 0
    ) broken
    FULL JOIN (
      SELECT merchant_id, stock_id, kind FROM discrepancy
      WHERE status = 'OPEN' AND kind IN ('NEGATIVE_STOCK', 'OVERCOMMITTED')
    ) named
      ON named.merchant_id = broken.merchant_id AND named.stock_id = broken.stock_id AND named.kind = broken.kind
    WHERE broken.kind IS NULL OR named.kind IS NULL`,

  "3: a stock's flag says whether its balance is broken": `
    SELECT merchant_id, stock_id, discrepancy, on_hand, reserved, unallocatable
    FROM stock
    WHERE discrepancy <> (on_hand < 0 OR (reserved + unallocatable > on_hand AND reserved + unallocatable > 0))`,

  "3: what is discontinued and in stock has its open discrepancy, and nothing else has": `
    SELECT stranded.item_id, named.item_id AS named
    FROM (
      SELECT DISTINCT i.merchant_id, i.item_id
      FROM item i
      JOIN stock s ON s.merchant_id = i.merchant_id AND s.item_id = i.item_id
      WHERE i.discontinued AND (s.on_hand <> 0 OR s.reserved <> 0 OR s.unallocatable <> 0)
    ) stranded
    FULL JOIN (
      SELECT merchant_id, item_id FROM discrepancy WHERE status = 'OPEN' AND kind = 'DISCONTINUED_WITH_STOCK'
    ) named ON named.merchant_id = stranded.merchant_id AND named.item_id = stranded.item_id
    WHERE stranded.item_id IS NULL OR named.item_id IS NULL`,

  "3: what is deleted is not in stock": `
    SELECT i.merchant_id, i.item_id
    FROM item i
    JOIN stock s ON s.merchant_id = i.merchant_id AND s.item_id = i.item_id
    WHERE i.deleted_at IS NOT NULL AND (s.on_hand <> 0 OR s.reserved <> 0 OR s.unallocatable <> 0)`,

  "4: every ledger row is in exactly one event, and every movement of an event in the ledger": `
    WITH told AS (
      SELECT e.event ->> 'merchantId' AS merchant_id, e.posting_id, e.data ->> 'itemId' AS item_id,
             m.movement ->> 'stockId' AS stock_id, m.movement ->> 'type' AS type,
             (m.movement ->> 'onHandDelta')::bigint AS on_hand_delta,
             (m.movement ->> 'reservedDelta')::bigint AS reserved_delta,
             (m.movement ->> 'unallocatableDelta')::bigint AS unallocatable_delta
      FROM (${events}) e
      CROSS JOIN LATERAL jsonb_array_elements(e.data -> 'movements') AS m (movement)
      WHERE e.data ? 'movements'
    ), moved AS (
      SELECT merchant_id, posting_id::text, item_id::text, stock_id::text, type, on_hand_delta, reserved_delta,
             unallocatable_delta
      FROM inventory_ledger
    )
    (SELECT 'untold' AS what, * FROM moved EXCEPT ALL SELECT 'untold', * FROM told)
    UNION ALL
    (SELECT 'unmoved' AS what, * FROM told EXCEPT ALL SELECT 'unmoved', * FROM moved)`,

  "4: an item's events are numbered without gaps in the order of the outbox": `
    SELECT *
    FROM (
      SELECT e.data ->> 'merchantId' AS merchant_id, e.data ->> 'itemId' AS item_id, e.event ->> 'id' AS event_id,
             (e.data ->> 'sequence')::bigint AS sequence,
             row_number() OVER (PARTITION BY e.data ->> 'merchantId', e.data ->> 'itemId'
               ORDER BY e.position, e.ordinal) AS place
      FROM (${events}) e
      WHERE e.data ? 'sequence'
    ) numbered
    WHERE sequence <> place`,

  "4: an item's last event has the item's number": `
    SELECT i.merchant_id, i.item_id, i.event_sequence, told.last
    FROM item i
    LEFT JOIN (
      SELECT e.data ->> 'merchantId' AS merchant_id, e.data ->> 'itemId' AS item_id,
             max((e.data ->> 'sequence')::bigint) AS last
      FROM (${events}) e
      GROUP BY 1, 2
    ) told ON told.merchant_id = i.merchant_id AND told.item_id = i.item_id::text
    WHERE i.event_sequence <> COALESCE(told.last, 0)`,

  "4: an event is in the outbox once, and a key in one bucket": `
    SELECT 'id' AS what, e.event ->> 'id' AS value, count(*) AS times
    FROM (${events}) e
    GROUP BY 2 HAVING count(*) > 1
    UNION ALL
    SELECT 'key', e.event ->> 'key', count(DISTINCT e.bucket)
    FROM (${events}) e
    GROUP BY 2 HAVING count(DISTINCT e.bucket) > 1`,

  "4: a discrepancy that is told of is there": `
    SELECT e.event ->> 'id' AS event_id, e.data ->> 'kind' AS kind
    FROM (${events}) e
    LEFT JOIN discrepancy d
      ON d.merchant_id = e.data ->> 'merchantId' AND d.discrepancy_id::text = e.data ->> 'discrepancyId'
    WHERE e.event ->> 'type' = 'DiscrepancyOpened' AND d.discrepancy_id IS NULL`,

  "5: a tracking key is there once": `
    SELECT merchant_id, tracking_key, count(*) AS times
    FROM tracking
    GROUP BY merchant_id, tracking_key HAVING count(*) > 1`,

  "5: the stocks that paid orders were sold from are noted, and no others": `
    SELECT paid.tracking_key AS paid, noted.tracking_key AS noted
    FROM (
      SELECT DISTINCT r.merchant_id,
             concat_ws(E'\\x1f', 'SALE_ORDER', r.order_id, 'stock', l.stock_id) AS tracking_key
      FROM reservation_line l
      JOIN reservation r ON r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
      WHERE l.paid > 0 AND l.stock_id IS NOT NULL
    ) paid
    FULL JOIN (
      SELECT merchant_id, tracking_key FROM tracking
      WHERE tracking_key LIKE E'SALE\\_ORDER\\x1f%\\x1fstock\\x1f%'
    ) noted ON noted.merchant_id = paid.merchant_id AND noted.tracking_key = paid.tracking_key
    WHERE paid.tracking_key IS NULL OR noted.tracking_key IS NULL`,

  "5: what a document sold is what its SALE movements took": `
    SELECT sold.*, taken.quantity AS taken
    FROM (
      SELECT merchant_id, reservation_id, stock_id, sum(sold) AS quantity
      FROM reservation_line
      WHERE stock_id IS NOT NULL AND sold > 0
      GROUP BY merchant_id, reservation_id, stock_id
    ) sold
    FULL JOIN (
      SELECT merchant_id, reservation_id, stock_id, -sum(on_hand_delta) AS quantity
      FROM inventory_ledger
      WHERE type = 'SALE' AND reservation_id IS NOT NULL
      GROUP BY merchant_id, reservation_id, stock_id
    ) taken
      ON taken.merchant_id = sold.merchant_id AND taken.reservation_id = sold.reservation_id
        AND taken.stock_id = sold.stock_id
    WHERE sold.quantity IS DISTINCT FROM taken.quantity`,

  "5: an order is sold no more of an item than it asked for": `
    WITH asked AS (
      SELECT merchant_id, order_id, item_id,
             -- Of reservations of one kind only the largest counts: they followed one another for the same line.
             COALESCE(max(quantity) FILTER (WHERE kind = 'ORDER'), 0)
               + COALESCE(max(quantity) FILTER (WHERE kind = 'VARIANT'), 0)
               + COALESCE(sum(quantity) FILTER (WHERE kind = 'SALE'), 0) AS quantity
      FROM (
        SELECT r.merchant_id, r.order_id, r.kind, r.reservation_id, line.value ->> 0 AS item_id,
               sum((line.value ->> 1)::bigint) AS quantity
        FROM reservation r
        CROSS JOIN LATERAL jsonb_array_elements(r.request::jsonb) AS line (value)
        GROUP BY r.merchant_id, r.order_id, r.kind, r.reservation_id, line.value ->> 0
      ) requests
      GROUP BY merchant_id, order_id, item_id
    )
    SELECT r.merchant_id, r.order_id, l.item_id, sum(l.sold) AS sold, min(asked.quantity) AS asked
    FROM reservation r
    JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
    LEFT JOIN asked
      ON asked.merchant_id = r.merchant_id AND asked.order_id = r.order_id AND asked.item_id = l.item_id::text
    GROUP BY r.merchant_id, r.order_id, l.item_id
    HAVING sum(l.sold) > COALESCE(min(asked.quantity), 0)`,

  "7: an event tells of its own merchant only": `
    SELECT e.event ->> 'id' AS event_id, e.event ->> 'merchantId' AS merchant_id, e.data ->> 'merchantId' AS told
    FROM (${events}) e
    LEFT JOIN item i
      ON i.merchant_id = e.event ->> 'merchantId' AND i.item_id::text = e.data ->> 'itemId'
    WHERE e.event ->> 'merchantId' IS DISTINCT FROM e.data ->> 'merchantId'
      OR (e.data ? 'itemId' AND i.item_id IS NULL)`,

  "7: a stock is of an item and a location, and an item of a merchant, that are there": `
    SELECT s.merchant_id, s.stock_id, i.item_id, p.location_id, m.merchant_id AS merchant
    FROM stock s
    LEFT JOIN item i ON i.merchant_id = s.merchant_id AND i.item_id = s.item_id
    LEFT JOIN location p ON p.merchant_id = s.merchant_id AND p.location_id = s.location_id
    LEFT JOIN merchant m ON m.merchant_id = s.merchant_id
    WHERE i.item_id IS NULL OR p.location_id IS NULL OR m.merchant_id IS NULL
    UNION ALL
    SELECT i.merchant_id, NULL, i.item_id, NULL, NULL
    FROM item i
    WHERE NOT EXISTS (SELECT FROM merchant m WHERE m.merchant_id = i.merchant_id)`,

  "7: a discrepancy speaks of its own merchant's stock and item": `
    SELECT d.merchant_id, d.discrepancy_id
    FROM discrepancy d
    LEFT JOIN stock s ON s.merchant_id = d.merchant_id AND s.stock_id = d.stock_id
    LEFT JOIN item i ON i.merchant_id = d.merchant_id AND i.item_id = d.item_id
    WHERE (d.stock_id IS NOT NULL AND s.stock_id IS NULL) OR (d.item_id IS NOT NULL AND i.item_id IS NULL)`
}
