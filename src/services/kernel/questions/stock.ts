import { balanceDiscrepanciesInSql, balanceDiscrepancyKindsInSql } from "../../../schema/Discrepancy.ts"
import {
  movementTypesInSql,
  returningTypes,
  sellingTypes,
  typesOfReservations
} from "../../../schema/Movement.ts"
import {
  checkpointsInSql,
  inPart,
  inShare,
  isAfterCheckpoint,
  isAfterFirst,
  isKept,
  keptSinceInSql,
  type Question,
  wasCommitted,
  within,
  withPredecessor
} from "../Question.ts"
import { postingKeyPrefix } from "../trackingKeys.ts"

/** Invariants 1 to 3 of stocks, and 1, 2, 4 and 5 of their ledger. */

export const stockQuestions: ReadonlyArray<Question> = [
  {
    // A stock is what its last movement says, or the checkpoint that stands for it.
    over: "stocks",
    // stock_pkey, inventory_ledger_pkey, ledger_checkpoint_pkey
    statement: `
  SELECT CASE WHEN sequence > ledger_sequence THEN 'ledger-ends' ELSE 'stock-is-its-ledger' END AS check, stated.*
  FROM (
    SELECT s.merchant_id, s.stock_id, s.item_id, 'stock ' || s.stock_id AS subject, s.on_hand,
           COALESCE(last.on_hand, c.on_hand, 0) AS ledger_on_hand, s.reserved,
           COALESCE(last.reserved, c.reserved, 0) AS ledger_reserved, s.unallocatable,
           COALESCE(last.unallocatable, c.unallocatable, 0) AS ledger_unallocatable, s.sequence,
           COALESCE(last.sequence, c.sequence, 0) AS ledger_sequence
    FROM stock s
    LEFT JOIN (${checkpointsInSql}) c ON c.merchant_id = s.merchant_id AND c.stock_id = s.stock_id
    LEFT JOIN LATERAL (
      SELECT l.on_hand, l.reserved, l.unallocatable, l.sequence
      FROM inventory_ledger l
      WHERE l.merchant_id = s.merchant_id AND l.stock_id = s.stock_id AND ${isAfterCheckpoint("l")}
      ORDER BY l.recorded_at DESC, l.sequence DESC
      LIMIT 1
    ) last ON true
    WHERE ${within("s", "stock_id")}
  ) stated
  WHERE (on_hand, reserved, unallocatable, sequence)
    IS DISTINCT FROM (ledger_on_hand, ledger_reserved, ledger_unallocatable, ledger_sequence)`
  },
  {
    check: "reserved-is-open",
    over: "stocks",
    // stock_pkey, reservation_line_open
    statement: `
  SELECT s.merchant_id, s.stock_id, s.item_id, 'stock ' || s.stock_id AS subject, s.reserved, held.open
  FROM stock s
  CROSS JOIN LATERAL (
    SELECT COALESCE(sum(h.open), 0)::bigint AS open
    FROM reservation_line h
    WHERE h.merchant_id = s.merchant_id AND h.stock_id = s.stock_id AND h.open > 0
    OFFSET 0
  ) held
  WHERE ${within("s", "stock_id")}
    AND s.reserved <> held.open`
  },
  {
    check: "balance-has-its-discrepancy",
    over: "stocks",
    // stock_pkey, discrepancy_one_open
    statement: `
  SELECT s.merchant_id, s.stock_id, s.item_id, 'stock ' || s.stock_id AS subject, s.on_hand, s.reserved, s.unallocatable,
         s.discrepancy AS flagged, ${balanceDiscrepanciesInSql("s")} AS called, named.kinds AS open
  FROM stock s
  CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(d.kind ORDER BY d.kind), '{}') AS kinds
    FROM discrepancy d
    WHERE d.merchant_id = s.merchant_id AND d.subject = s.stock_id::text AND d.status = 'OPEN'
      AND d.kind IN (${balanceDiscrepancyKindsInSql})
    OFFSET 0
  ) named
  WHERE ${within("s", "stock_id")}
    AND (${balanceDiscrepanciesInSql("s")} <> named.kinds
      OR s.discrepancy <> (cardinality(${balanceDiscrepanciesInSql("s")}) > 0))`
  },
  {
    // A stock is of an item and a location of its merchant.
    check: "own-merchant",
    over: "stocks",
    // stock_pkey, item_pkey, location_pkey
    statement: `
  SELECT *
  FROM (
    SELECT s.merchant_id, s.stock_id, s.item_id, 'stock ' || s.stock_id AS subject, s.location_id,
           EXISTS (
             SELECT FROM item i WHERE i.merchant_id = s.merchant_id AND i.item_id = s.item_id OFFSET 0
           ) AS has_item,
           EXISTS (
             SELECT FROM location p WHERE p.merchant_id = s.merchant_id AND p.location_id = s.location_id OFFSET 0
           ) AS has_location
    FROM stock s
    WHERE ${within("s", "stock_id")}
  ) stated
  WHERE NOT has_item OR NOT has_location`
  },
  {
    // What lines hold and sell is of a stock of their merchant and their item.
    check: "own-merchant",
    over: "stocks",
    // audit_line, stock_pkey
    statement: `
  SELECT n.merchant_id, n.reservation_id, n.item_id, n.stock_id,
         'lines of reservation ' || n.reservation_id || ' on stock ' || n.stock_id AS subject, n.item_id AS names_item
  FROM audit_line n
  WHERE NOT EXISTS (
      SELECT
      FROM stock s
      WHERE ${within("s", "stock_id")}
        AND s.merchant_id = n.merchant_id AND s.stock_id = n.stock_id AND s.item_id = n.item_id
    )`
  }
]

export const ledgerQuestions: ReadonlyArray<Question> = [
  {
    // Numbered without gaps, in time, each with the balances of the one before it plus its deltas, and none recorded
    // before its posting was asked for: the posting's id carries that time.
    check: "ledger-follows",
    over: "movements",
    // inventory_ledger_pkey, ledger_checkpoint_pkey
    statement: `
  WITH movement AS (
    SELECT l.*, c.sequence AS checkpoint, c.recorded_at AS checkpoint_at,
           COALESCE(lag(l.sequence) OVER w, c.sequence, 0) AS sequence_before,
           COALESCE(lag(l.on_hand) OVER w, c.on_hand, 0) + l.on_hand_delta AS on_hand_expected,
           COALESCE(lag(l.reserved) OVER w, c.reserved, 0) + l.reserved_delta AS reserved_expected,
           COALESCE(lag(l.unallocatable) OVER w, c.unallocatable, 0) + l.unallocatable_delta AS unallocatable_expected
    FROM (
      SELECT l.merchant_id, l.stock_id, l.item_id, l.recorded_at, l.sequence, l.posting_id, l.on_hand, l.reserved,
             l.unallocatable, l.on_hand_delta, l.reserved_delta, l.unallocatable_delta
      FROM inventory_ledger l
      WHERE ${withPredecessor("l")}
    ) l
    LEFT JOIN (${checkpointsInSql}) c ON c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id
    WHERE ${isAfterCheckpoint("l")}
    WINDOW w AS (PARTITION BY l.merchant_id, l.stock_id ORDER BY l.recorded_at, l.sequence)
  )
  SELECT l.merchant_id, l.stock_id, l.item_id, 'movement ' || l.sequence || ' of stock ' || l.stock_id AS subject,
         l.sequence, l.sequence_before, l.recorded_at, l.posting_id, l.on_hand, l.on_hand_expected, l.reserved,
         l.reserved_expected, l.unallocatable, l.unallocatable_expected
  FROM movement l
  WHERE ${isAfterFirst("l")}
    AND (l.sequence <> l.sequence_before + 1
      OR (l.on_hand, l.reserved, l.unallocatable)
        <> (l.on_hand_expected, l.reserved_expected, l.unallocatable_expected)
      OR COALESCE(uuid_extract_timestamp(l.posting_id) >= l.recorded_at + interval '1 millisecond', true))`
  },
  {
    // A movement is of a stock of its merchant and its item.
    check: "own-merchant",
    over: "movements",
    // inventory_ledger_pkey, stock_pkey
    statement: `
  SELECT l.merchant_id, l.stock_id, l.item_id, 'movements of item ' || l.item_id || ' on stock ' || l.stock_id AS subject,
         min(l.sequence) AS first_sequence, count(*) AS movements
  FROM inventory_ledger l
  WHERE ${inPart("l")}
    AND NOT EXISTS (
      SELECT
      FROM stock s
      WHERE ${within("s", "stock_id")}
        AND s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
    )
  GROUP BY l.merchant_id, l.stock_id, l.item_id`
  },
  {
    // A reservation carries its posting's id itself, and expiry is harmless to repeat: those two leave no tracking row.
    // The operations of a bulk count on from its id in the last twelve digits.
    check: "posting-is-tracked",
    over: "movements",
    // inventory_ledger_pkey, tracking_pkey
    statement: `
  SELECT l.merchant_id, min(l.stock_id::text) AS stock_id, 'posting ' || l.posting_id AS subject, l.posting_id,
         min(l.type) AS type, min(l.recorded_at) AS recorded_at
  FROM inventory_ledger l
  WHERE ${inPart("l")}
    AND l.type IN (${movementTypesInSql(({ isTracked }) => isTracked)})
    AND COALESCE(l.recorded_at > ${keptSinceInSql("tracking")}, true)
    AND NOT EXISTS (
      SELECT FROM tracking t
      WHERE t.merchant_id = l.merchant_id
        AND t.tracking_key >= '${postingKeyPrefix}' || left(l.posting_id::text, 24) || '000000000000'
        AND t.tracking_key <= '${postingKeyPrefix}' || left(l.posting_id::text, 24) || 'ffffffffffff'
      OFFSET 0
    )
  GROUP BY l.merchant_id, l.posting_id`
  },
  {
    // What a reservation holds of a stock, has sold and has taken back is what its lines say. Lines were copied in the order
    // of stocks some time ago (`audit_line`): where one differs, all are read again beside the ledger. Reservations from
    // before a checkpoint are left out: their movements are not all there.
    check: "line-is-its-ledger",
    over: "shares",
    // inventory_ledger_pkey, ledger_checkpoint_pkey, audit_line, reservation_line_pkey, reservation_pkey
    statement: `
  WITH checkpoint AS MATERIALIZED (${checkpointsInSql})
  SELECT DISTINCT merchant_id, stock_id, COALESCE(item_id, line.any_item_id) AS item_id,
         COALESCE(order_id, document.any_order_id) AS order_id, reservation_id,
         'reservation ' || reservation_id || ' on stock ' || stock_id AS subject, line.open, COALESCE(m.open, 0) AS ledger_open,
         line.sold, COALESCE(m.sold, 0) AS ledger_sold, line.returned, COALESCE(m.returned, 0) AS ledger_returned
  FROM (
    SELECT l.merchant_id, l.stock_id, l.reservation_id, any_value(l.item_id) AS item_id,
           any_value(l.order_id) AS order_id, sum(l.reserved_delta)::bigint AS open,
           COALESCE(-sum(l.on_hand_delta) FILTER (WHERE l.type IN (${sellingTypes})), 0)::bigint AS sold,
           COALESCE(sum(l.on_hand_delta) FILTER (WHERE l.type IN (${returningTypes})), 0)::bigint AS returned
    FROM inventory_ledger l
    LEFT JOIN checkpoint c ON c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id
    WHERE ${within("l", "stock_id")}
      AND l.reservation_id IS NOT NULL
      AND l.type IN (${typesOfReservations})
      AND ${inShare("uuid_hash(l.reservation_id) & 2147483647")}
      AND ${isAfterCheckpoint("l")}
    GROUP BY l.merchant_id, l.stock_id, l.reservation_id
  ) m
  FULL JOIN (
    SELECT n.merchant_id, n.stock_id, n.reservation_id, n.open, n.sold, n.returned
    FROM audit_line n
    WHERE ${inShare("uuid_hash(n.reservation_id) & 2147483647")}
  ) n USING (merchant_id, stock_id, reservation_id)
  CROSS JOIN LATERAL (
    SELECT COALESCE(sum(o.open), 0)::bigint AS open, COALESCE(sum(o.sold), 0)::bigint AS sold,
           COALESCE(sum(o.returned), 0)::bigint AS returned, any_value(o.item_id) AS any_item_id
    FROM reservation_line o
    WHERE o.merchant_id = COALESCE(m.merchant_id, n.merchant_id)
      AND o.reservation_id = COALESCE(m.reservation_id, n.reservation_id)
      AND o.stock_id = COALESCE(m.stock_id, n.stock_id)
      AND (m.open, m.sold, m.returned) IS DISTINCT FROM (n.open, n.sold, n.returned)
    OFFSET 0
  ) line
  LEFT JOIN LATERAL (
    SELECT r.order_id AS any_order_id, r.created_at
    FROM reservation r
    WHERE r.merchant_id = COALESCE(m.merchant_id, n.merchant_id)
      AND r.reservation_id = COALESCE(m.reservation_id, n.reservation_id)
    OFFSET 0
  ) document ON true
  LEFT JOIN checkpoint since USING (merchant_id, stock_id)
  WHERE (m.open, m.sold, m.returned) IS DISTINCT FROM (n.open, n.sold, n.returned)
    AND (COALESCE(m.open, 0), COALESCE(m.sold, 0), COALESCE(m.returned, 0)) <> (line.open, line.sold, line.returned)
    AND (since.recorded_at IS NULL OR document.created_at > since.recorded_at)`
  },
  {
    // Every movement is in exactly one event, the one that it names, and every movement of an event in the ledger. Of the
    // ledger only what was committed before the outbox was read can be missed there (`audit_horizon`).
    check: "movement-is-told",
    over: "sharesReported",
    // stock_merchant_id_item_id_location_id_lot_number_key, inventory_ledger_pkey, audit_event
    statement: `
  SELECT *
  FROM (
    SELECT both_sides.merchant_id, both_sides.stock_id, both_sides.item_id,
           'posting ' || both_sides.posting_id || ' on stock ' || both_sides.stock_id AS subject,
           both_sides.event_sequence, both_sides.type, both_sides.on_hand_delta, both_sides.reserved_delta,
           both_sides.unallocatable_delta, min(both_sides.sequence) AS sequence,
           GREATEST(0, sum(both_sides.settled) - sum(both_sides.reported)) AS untold,
           GREATEST(0, sum(both_sides.reported) - count(both_sides.sequence)) AS unmoved
    FROM (
      SELECT l.merchant_id, l.stock_id, l.item_id, l.event_sequence, l.posting_id, l.type, l.on_hand_delta,
             l.reserved_delta, l.unallocatable_delta, l.sequence, 0 AS reported,
             ${wasCommitted("l")}::int AS settled
      FROM stock s
      CROSS JOIN LATERAL (
        SELECT l.merchant_id, l.stock_id, l.item_id, l.event_sequence, l.posting_id, l.type, l.on_hand_delta,
               l.reserved_delta, l.unallocatable_delta, l.sequence, l.xmin
        FROM inventory_ledger l
        WHERE l.merchant_id = s.merchant_id AND l.stock_id = s.stock_id AND ${inShare("COALESCE(l.event_sequence, 0)")}
        OFFSET 0
      ) l
      WHERE ${within("s", "item_id")}
        AND ${isKept("l")}
      UNION ALL
      SELECT e.merchant_id, e.stock_id, e.item_id, e.sequence, e.posting_id, e.type, e.on_hand_delta,
             e.reserved_delta, e.unallocatable_delta, NULL, 1, 0
      FROM audit_event e
      WHERE e.stock_id IS NOT NULL
        AND ${inShare("COALESCE(e.sequence, 0)")}
        AND ${isKept("e")}
    ) both_sides
    GROUP BY both_sides.posting_id, both_sides.event_sequence, both_sides.stock_id, both_sides.on_hand_delta,
             both_sides.reserved_delta, both_sides.unallocatable_delta, both_sides.item_id, both_sides.type,
             both_sides.merchant_id
    HAVING sum(both_sides.settled) > sum(both_sides.reported)
      OR sum(both_sides.reported) > count(both_sides.sequence)
  ) differing`
  }
]
