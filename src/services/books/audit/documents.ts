import { Effect } from "effect"
import { balanceDiscrepancyKindsInSql } from "../../../schema/Discrepancy.ts"
import type { DatabaseUnavailable } from "../../../schema/Failure.ts"
import { nilUuid } from "../../../schema/Identifier.ts"
import { statusInSql } from "../../../schema/Item.ts"
import { movementTypesInSql } from "../../../schema/Movement.ts"
import { reservationKindsInSql } from "../../../schema/Reservation.ts"
import { sellableOfItemInSql } from "../../kernel/figuresInSql.ts"
import { fieldsInSql } from "../../kernel/Table.ts"
import { type ItemRow, items } from "../../kernel/tables/catalog.ts"
import {
  type DiscrepancyRow,
  type TrackingRow,
  discrepancies,
  tracking
} from "../../kernel/tables/documents.ts"
import { type LineRow, type ReservationRow, reservationLines } from "../../kernel/tables/reservations.ts"
import { postingKeyPrefix } from "../../kernel/trackingKeys.ts"
import type { LedgerRow } from "../../kernel/tables/stock.ts"
import { arrays, parameter } from "../../PostgresTypes.ts"
import {
  type Ask,
  type Key,
  type Range,
  askedTwice,
  beginning,
  questionOf,
  rangeParameters,
  within
} from "./Asking.ts"
import { type Comparison, cellInSql, gatherInSql, pairDigestInSql } from "./digests.ts"
import { type Window, boundsOf } from "./events.ts"
import { type Finding, finding } from "./Finding.ts"

// One file: a question is a statement, its row and its finding, and all are alike; nothing in it is shared by half of them.

/** Invariants 1 to 3, 5 and 7 of items, reservations, orders, discrepancies and tracking rows, over ranges of keys. */

/** How many rows of the leading table are one question. */
const rowsPerRange = 4_000

export interface Marks {
  /** All tracking rows recorded after this (epoch milliseconds) are still there. */
  readonly trackingKeptSince: number | null
  /** And all movements. */
  readonly ledgerKeptSince: number | null
}

/** A question over ranges of one table's keys. */
export interface Question {
  readonly name: string
  readonly table: string
  readonly column: string
  readonly type: "uuid" | "text"
  readonly ask: (ask: Ask, range: Range) => Effect.Effect<ReadonlyArray<Finding>, DatabaseUnavailable>
}

/** The ranges of a table's keys, one after the other; the last reaches to the end. */
export const nextRange = Effect.fnUntraced(function* (
  ask: Ask,
  { column, table, type }: Question,
  from: Key,
  merchantId: string | undefined
) {
  const [end] = yield* ask<Key>(
    `
    SELECT t.merchant_id AS "merchantId", t.${column}::text AS id
    FROM ${table} t
    WHERE (t.merchant_id, t.${column}) > ($1::text, $2::text::${type})
      AND ${merchantId === undefined ? "$4::text IS NULL" : "t.merchant_id = $4::text"}
    ORDER BY t.merchant_id, t.${column}
    OFFSET $3
    LIMIT 1`,
    [
      parameter("text", from.merchantId),
      parameter("text", from.id),
      parameter("int4", rowsPerRange - 1),
      parameter("text", merchantId ?? null)
    ]
  )
  return end === undefined
    ? { range: { from, merchantId }, next: undefined }
    : { range: { from, to: end, merchantId }, next: end }
})

export const firstKey = ({ type }: Question, merchantId: string | undefined): Key =>
  beginning(merchantId, type === "uuid" ? nilUuid : "")

const question = <Row extends object>(
  name: string,
  key: Pick<Question, "table" | "column" | "type">,
  statement: (range: Range) => string,
  of: (row: Row) => ReadonlyArray<Finding>
): Question => ({
  name,
  ...key,
  ask: questionOf(statement, of)
})

const byItem = { table: "item", column: "item_id", type: "uuid" } as const
const byReservation = { table: "reservation", column: "reservation_id", type: "uuid" } as const
const byOrder = { table: "reservation", column: "order_id", type: "text" } as const
const byDiscrepancy = { table: "discrepancy", column: "discrepancy_id", type: "uuid" } as const
const byTracking = { table: "tracking", column: "tracking_key", type: "text" } as const

// item_pkey, stock_merchant_id_item_id_location_id_lot_number_key, location_pkey. What can be sold depends on the clock
// where a lot expires, and on more than the item where a location was ever retired, and the status with it: it is asked
// for only where neither is so.
const itemStatement = (range: Range) => `
  SELECT *
  FROM (
    SELECT ${fieldsInSql(items, "i", ["merchantId", "itemId", "onHand", "reserved", "unallocatable", "status"])},
           sums.on_hand AS "stocksOnHand", sums.reserved AS "stocksReserved",
           sums.unallocatable AS "stocksUnallocatable",
           CASE WHEN sums.judged THEN i.status ELSE ${statusInSql("i", "sums.available")} END AS "statusExpected"
    FROM item i
    CROSS JOIN LATERAL (
      SELECT COALESCE(sum(s.on_hand), 0)::bigint AS on_hand, COALESCE(sum(s.reserved), 0)::bigint AS reserved,
             COALESCE(sum(s.unallocatable), 0)::bigint AS unallocatable,
             ${sellableOfItemInSql("i", "s", "l", "'-infinity'::timestamptz")} AS available,
             COALESCE(bool_or(s.lot_expires_at IS NOT NULL OR l.retired IS NOT NULL), false) AS judged
      FROM stock s
      LEFT JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id
      WHERE s.merchant_id = i.merchant_id AND s.item_id = i.item_id
    ) sums
    WHERE ${within(range, "uuid", "i", "item_id")}
  ) stated
  WHERE ("onHand", reserved, unallocatable) IS DISTINCT FROM ("stocksOnHand", "stocksReserved", "stocksUnallocatable")
    OR status <> "statusExpected"`

interface StatedItem extends Pick<
  ItemRow,
  "merchantId" | "itemId" | "onHand" | "reserved" | "unallocatable" | "status"
> {
  readonly stocksOnHand: number
  readonly stocksReserved: number
  readonly stocksUnallocatable: number
  readonly statusExpected: string
}

const ofItem = ({ itemId, merchantId, status, statusExpected, ...figures }: StatedItem) => {
  const about = { merchantId, itemId, subject: `item ${itemId}`, identity: "" }
  const { onHand, reserved, stocksOnHand, stocksReserved, stocksUnallocatable, unallocatable } = figures
  const found: Array<Finding> = []
  if (onHand !== stocksOnHand || reserved !== stocksReserved || unallocatable !== stocksUnallocatable) {
    const row = { onHand, stocksOnHand, reserved, stocksReserved, unallocatable, stocksUnallocatable }
    found.push(finding("item-is-its-stocks", { ...about, row }))
  }
  if (status !== statusExpected) {
    found.push(finding("item-status", { ...about, row: { status, statusExpected } }))
  }
  return found
}

// item_pkey and merchant_pkey, from one merchant to the next: no foreign key says it (decision 0015).
const strangersStatement = `
  WITH RECURSIVE named AS (
    SELECT COALESCE($1::text, (SELECT min(i.merchant_id) FROM item i)) AS merchant_id
    UNION ALL
    SELECT (SELECT min(i.merchant_id) FROM item i WHERE i.merchant_id > n.merchant_id)
    FROM named n
    WHERE n.merchant_id IS NOT NULL AND $1::text IS NULL
  )
  SELECT n.merchant_id AS "merchantId"
  FROM named n
  WHERE NOT EXISTS (SELECT FROM merchant m WHERE m.merchant_id = n.merchant_id OFFSET 0)
    AND EXISTS (SELECT FROM item i WHERE i.merchant_id = n.merchant_id OFFSET 0)`

/** Items are of merchants that are there. */
export const strangers = (ask: Ask, merchantId: string | undefined) =>
  askedTwice(
    Effect.map(
      ask<Pick<ItemRow, "merchantId">>(strangersStatement, [parameter("text", merchantId ?? null)]),
      (rows) =>
        rows.map((row) =>
          finding("own-merchant", {
            ...row,
            subject: `items of merchant ${row.merchantId}`,
            row: { hasMerchant: false }
          })
        )
    )
  )

/**
 * Reservations beside their lines, and the lines' side of the comparison with the ledger. What one line says is right for
 * a reservation that has no other one, and what does not seem right is asked for by itself.
 */
// reservation_pkey, reservation_line_pkey: both in the order of their keys.
const documentsStatement = (range: Range) => `
  SELECT ${gatherInSql(pairDigestInSql("l"), "l.open", "l.sold", "l.returned")} FILTER (
           WHERE l.stock_id IS NOT NULL AND l.reservation_id >= $10::text::uuid AND l.reservation_id < $11::text::uuid
         ) AS pairs,
         array_agg(COALESCE(r.merchant_id, l.merchant_id)) FILTER (WHERE ${seemsAmiss}) AS "merchantIds",
         array_agg(COALESCE(r.reservation_id, l.reservation_id)::text) FILTER (WHERE ${seemsAmiss}) AS "reservationIds"
  FROM (
    SELECT r.merchant_id, r.reservation_id, r.status, r.request, r.scope
    FROM reservation r
    WHERE ${within(range, "uuid", "r", "reservation_id")}
  ) r
  FULL JOIN (
    SELECT l.merchant_id, l.reservation_id, l.item_id, l.stock_id, l.quantity, l.open, l.sold, l.returned
    FROM reservation_line l
    WHERE ${within(range, "uuid", "l", "reservation_id")}
  ) l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id`

/** A line without a reservation or the other way round, one that its status contradicts, or that may have sold too much. */
const seemsAmiss = `(r.reservation_id IS NULL
             OR l.reservation_id IS NULL AND r.status IN ('PENDING', 'CONFIRMED')
             OR CASE r.status WHEN 'PENDING' THEN l.open = 0
                              WHEN 'CONFIRMED' THEN l.sold = 0 OR l.open > 0
                              ELSE l.sold > 0 OR l.open > 0 END
             OR l.sold > 0 AND (r.scope <> '' AND r.scope = r.reservation_id::text
               OR strpos(r.request, '["' || l.item_id || '",' || l.quantity || ',') = 0))`

interface DocumentsRow {
  readonly pairs: Uint8Array | null
  readonly merchantIds: ReadonlyArray<string> | null
  readonly reservationIds: ReadonlyArray<string> | null
}

/**
 * Only a PENDING reservation holds, and every PENDING one does. Lines are of a reservation. And what a document has sold of
 * an item is at most what it asked for: where its lines of the item are not one that the request names with its quantity
 * (they are when it was taken from one stock), or where the document was mended, its order is looked at more closely.
 */
// reservation_pkey, reservation_line_pkey
const reservationStatement = `
  SELECT *
  FROM (
    SELECT asked.merchant_id AS "merchantId", asked.reservation_id AS "reservationId",
           d.order_id AS "orderId", d.status,
           COALESCE(sum(l.open), 0)::bigint AS open, COALESCE(sum(l.sold), 0)::bigint AS sold,
           d.order_id IS NULL AND bool_or(l.item_id IS NOT NULL) AS "isOrphan",
           (d.status = 'PENDING') <> (COALESCE(sum(l.open), 0) > 0)
             OR (d.status = 'CONFIRMED' AND COALESCE(sum(l.sold), 0) = 0)
             OR (d.status IN ('CANCELLED', 'EXPIRED') AND COALESCE(sum(l.sold), 0) > 0) AS "isAstray",
           bool_or(l.sold > 0 AND (d.scope = asked.reservation_id::text
             OR strpos(d.request, '["' || l.item_id || '",' || l.quantity || ',') = 0)) AS "isCloser"
    FROM (SELECT DISTINCT merchant_id, reservation_id FROM unnest($1, $2) AS each (merchant_id, reservation_id)) asked
    LEFT JOIN LATERAL (
      SELECT r.order_id, r.status, r.request, r.scope
      FROM reservation r
      WHERE r.merchant_id = asked.merchant_id AND r.reservation_id = asked.reservation_id
      OFFSET 0
    ) d ON true
    LEFT JOIN LATERAL (
      SELECT l.item_id, sum(l.quantity) AS quantity, sum(l.open) AS open, sum(l.sold) AS sold
      FROM reservation_line l
      WHERE l.merchant_id = asked.merchant_id AND l.reservation_id = asked.reservation_id
      GROUP BY l.item_id
      OFFSET 0
    ) l ON true
    GROUP BY asked.merchant_id, asked.reservation_id, d.order_id, d.status
  ) stated
  WHERE "isOrphan" OR "isAstray" OR "isCloser"`

interface StatedReservation
  extends
    Pick<ReservationRow, "merchantId" | "reservationId" | "orderId" | "status">,
    Pick<LineRow, "open" | "sold"> {
  readonly isOrphan: boolean
  readonly isAstray: boolean
  readonly isCloser: boolean
}

const ofPending = ({ merchantId, open, orderId, reservationId, sold, status }: StatedReservation) =>
  finding("pending-holds", {
    merchantId,
    orderId,
    reservationId,
    subject: `reservation ${reservationId} of order ${orderId}`,
    identity: "",
    row: { status, open, sold }
  })

const lineFields = [
  "merchantId",
  "reservationId",
  "itemId",
  "stockId",
  "lineNumber",
  "quantity",
  "open",
  "sold",
  "returned"
] as const satisfies ReadonlyArray<keyof LineRow>

/**
 * A line is of a reservation, an item and a stock of its merchant, and its stock has moved for it. The first movement is
 * found where the reservation was made; a line that has none is looked for to the stock's end.
 */
// reservation_line_pkey, reservation_pkey, item_pkey, stock_pkey, ledger_checkpoint_pkey, inventory_ledger_pkey
const lineStatement = `
  SELECT *
  FROM (
    SELECT ${fieldsInSql(reservationLines, "l", lineFields)},
           CASE WHEN r.reservation_id IS NOT NULL THEN r.order_id
                ELSE (
                  SELECT m.order_id
                  FROM inventory_ledger m
                  WHERE m.merchant_id = l.merchant_id AND m.stock_id = l.stock_id AND m.reservation_id = l.reservation_id
                    -- A reservation carries its posting's id, and that its time.
                    AND m.recorded_at >= to_timestamp(
                      ('x' || left(replace(l.reservation_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
                  ORDER BY m.recorded_at
                  LIMIT 1
                ) END AS "orderId",
           r.reservation_id IS NOT NULL AS "hasReservation",
           i.item_id IS NOT NULL AND (l.stock_id IS NULL OR s.stock_id IS NOT NULL) AS "hasStock",
           r.reservation_id IS NULL OR s.stock_id IS NULL
             OR EXISTS (
               SELECT FROM ledger_checkpoint c
               WHERE c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id AND c.recorded_at >= r.created_at
               OFFSET 0
             )
             OR EXISTS (
               SELECT FROM inventory_ledger m
               WHERE m.merchant_id = l.merchant_id AND m.stock_id = l.stock_id AND m.recorded_at >= r.created_at
                 AND m.reservation_id = l.reservation_id
               OFFSET 0
             ) AS "hasMovement"
    FROM unnest($1, $2) AS asked (merchant_id, reservation_id)
    CROSS JOIN LATERAL (
      SELECT *
      FROM reservation_line l
      WHERE l.merchant_id = asked.merchant_id AND l.reservation_id = asked.reservation_id
      OFFSET 0
    ) l
    LEFT JOIN LATERAL (
      SELECT r.reservation_id, r.order_id, r.created_at
      FROM reservation r
      WHERE r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
      OFFSET 0
    ) r ON true
    LEFT JOIN LATERAL (
      SELECT i.item_id FROM item i WHERE i.merchant_id = l.merchant_id AND i.item_id = l.item_id OFFSET 0
    ) i ON true
    LEFT JOIN LATERAL (
      SELECT s.stock_id
      FROM stock s
      WHERE s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id AND s.item_id = l.item_id
      OFFSET 0
    ) s ON true
  ) stated
  WHERE NOT "hasReservation" OR NOT "hasStock" OR NOT "hasMovement"`

interface StatedLine extends Pick<LineRow, (typeof lineFields)[number]> {
  readonly orderId: string | null
  readonly hasReservation: boolean
  readonly hasStock: boolean
  readonly hasMovement: boolean
}

const ofLine = ({ hasMovement, hasReservation, hasStock, orderId, ...row }: StatedLine) => {
  const { itemId, merchantId, reservationId, stockId, ...line } = row
  const about = { merchantId, itemId, stockId, orderId, reservationId, identity: "" }
  const subject = `line ${line.lineNumber} of reservation ${reservationId}`
  const found: Array<Finding> = []
  if (!hasReservation) found.push(finding("line-of-a-reservation", { ...about, subject, row: line }))
  if (!hasStock) {
    const identity = [itemId, stockId]
    found.push(finding("own-merchant", { ...about, subject, identity, row: { ...line, itemId, stockId } }))
  } else if (!hasMovement) {
    const { open, returned, sold } = line
    found.push(
      finding("line-is-its-ledger", {
        ...about,
        subject: `reservation ${reservationId} on stock ${stockId}`,
        row: { open, ledgerOpen: 0, sold, ledgerSold: 0, returned, ledgerReturned: 0 }
      })
    )
  }
  return found
}

/**
 * Orders of which more than one document of a kind may have sold the same: they followed one another for the same line.
 * Where all documents of a kind count, each asked for what it sold.
 */
// reservation_by_order
const ordersStatement = (range: Range) => `
  SELECT DISTINCT r.merchant_id AS "merchantId", r.order_id AS "orderId"
  FROM reservation r
  WHERE ${within(range, "text", "r", "order_id")}
    AND r.kind IN (${largestCounts})
  GROUP BY r.merchant_id, r.order_id, r.kind, r.scope
  HAVING count(*) > 1`

/** Documents of such a kind followed one another for the same line: only the largest counts. */
const largestCounts = reservationKindsInSql(({ asks }) => asks === "LARGEST")
const allCount = reservationKindsInSql(({ asks }) => asks === "ALL")

// reservation_by_order, reservation_line_pkey
const soldStatement = `
  WITH document AS MATERIALIZED (
    SELECT r.merchant_id, r.order_id, r.kind, r.reservation_id, r.request
    FROM (SELECT DISTINCT merchant_id, order_id FROM unnest($1, $2) AS each (merchant_id, order_id)) looked
    CROSS JOIN LATERAL (
      SELECT *
      FROM reservation r
      WHERE r.merchant_id = looked.merchant_id AND r.order_id = looked.order_id
        AND r.kind IN (${reservationKindsInSql(({ isOfOrderLines }) => isOfOrderLines)})
      OFFSET 0
    ) r
  ),
  asked AS (
    SELECT merchant_id, order_id, item_id, sum(quantity)::bigint AS quantity
    FROM (
      SELECT merchant_id, order_id, item_id,
             CASE WHEN kind IN (${largestCounts}) THEN max(quantity)
                  WHEN kind IN (${allCount}) THEN sum(quantity) END AS quantity
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
  )
  SELECT sold.merchant_id AS "merchantId", sold.order_id AS "orderId", sold.item_id AS "itemId", sold.quantity AS sold,
         COALESCE(asked.quantity, 0) AS asked
  FROM sold
  LEFT JOIN asked
    ON asked.merchant_id = sold.merchant_id AND asked.order_id = sold.order_id AND asked.item_id = sold.item_id::text
  WHERE sold.quantity > COALESCE(asked.quantity, 0)`

interface SoldItem extends OrderKey, Pick<LineRow, "itemId" | "sold"> {
  readonly asked: number
}

const ofSold = ({ asked, sold, ...about }: SoldItem) =>
  finding("sold-once", {
    ...about,
    subject: `item ${about.itemId} of order ${about.orderId}`,
    row: { sold, asked }
  })

const discrepancyFields = [
  "merchantId",
  "discrepancyId",
  "kind",
  "subject",
  "status",
  "stockId",
  "itemId"
] as const satisfies ReadonlyArray<keyof DiscrepancyRow>

// discrepancy_pkey, stock_pkey, item_pkey
const discrepancyStatement = (range: Range) => `
  SELECT *
  FROM (
    SELECT ${fieldsInSql(discrepancies, "d", discrepancyFields)},
           (d.stock_id IS NULL OR s.stock_id IS NOT NULL) AND (d.item_id IS NULL OR i.item_id IS NOT NULL) AS is_own,
           d.status <> 'OPEN' OR d.kind NOT IN (${balanceDiscrepancyKindsInSql}) OR s.stock_id::text = d.subject
             AS is_named
    FROM discrepancy d
    LEFT JOIN LATERAL (
      SELECT s.stock_id FROM stock s WHERE s.merchant_id = d.merchant_id AND s.stock_id = d.stock_id OFFSET 0
    ) s ON true
    LEFT JOIN LATERAL (
      SELECT i.item_id FROM item i WHERE i.merchant_id = d.merchant_id AND i.item_id = d.item_id OFFSET 0
    ) i ON true
    WHERE ${within(range, "uuid", "d", "discrepancy_id")}
  ) stated
  WHERE NOT is_own OR is_named IS DISTINCT FROM true`

const ofDiscrepancy = (row: Pick<DiscrepancyRow, (typeof discrepancyFields)[number]>) => {
  const { discrepancyId, itemId, kind, merchantId, status, stockId, subject } = row
  return [
    finding("own-merchant", {
      merchantId,
      stockId,
      itemId,
      subject: `discrepancy ${discrepancyId}`,
      row: { kind, status, about: subject, stockId, itemId }
    })
  ]
}

// tracking_pkey
const trackingStatement = (range: Range) => `
  SELECT ${fieldsInSql(tracking, "t", ["merchantId", "trackingKey", "postingId"])}
  FROM tracking t
  WHERE ${within(range, "text", "t", "tracking_key")}
    AND t.tracking_key LIKE '${postingKeyPrefix}%' AND t.tracking_key <> '${postingKeyPrefix}' || t.posting_id::text`

const ofTracking = ({
  merchantId,
  ...row
}: Pick<TrackingRow, "merchantId" | "trackingKey" | "postingId">) => [
  finding("tracking-names-its-posting", { merchantId, subject: `tracking ${row.trackingKey}`, row })
]

/**
 * A movement whose posting has left no tracking row, where one must be. A reservation carries its posting's id itself, and
 * expiry is harmless to repeat: those two leave none. The operations of a bulk count on from its id in the last twelve
 * digits. `since` is the parameter that says how far back tracking rows are kept.
 */
// tracking_pkey
export const hasNoTracking = (row: string, since: string): string => `
    ${row}.type IN (${movementTypesInSql(({ isTracked }) => isTracked)})
    AND (${since}::timestamptz IS NULL OR ${row}.recorded_at > ${since})
    AND NOT EXISTS (
      SELECT FROM tracking t
      WHERE t.merchant_id = ${row}.merchant_id
        AND t.tracking_key >= '${postingKeyPrefix}' || left(${row}.posting_id::text, 24) || '000000000000'
        AND t.tracking_key <= '${postingKeyPrefix}' || left(${row}.posting_id::text, 24) || 'ffffffffffff'
      OFFSET 0
    )`

// inventory_ledger_pkey, tracking_pkey
const trackedStatement = (range: Range) => `
  SELECT l.merchant_id AS "merchantId", l.posting_id AS "postingId", min(l.type) AS type,
         min(l.stock_id::text) AS "stockId", min(l.recorded_at) AS "recordedAt"
  FROM inventory_ledger l
  WHERE ${within(range, "uuid", "l", "stock_id")}
    AND ${hasNoTracking("l", "$10")}
  GROUP BY l.merchant_id, l.posting_id`

type Untracked = Pick<LedgerRow, "merchantId" | "postingId" | "type" | "stockId" | "recordedAt">

const ofTracked = ({ merchantId, stockId, ...row }: Untracked) =>
  finding("posting-is-tracked", {
    merchantId,
    stockId,
    subject: `posting ${row.postingId}`,
    identity: "",
    row
  })

/** Postings that nothing tells of, over a range of stocks. */
export const tracked = (ask: Ask, range: Range, marks: Marks) =>
  askedTwice(
    Effect.map(
      ask<Untracked>(trackedStatement(range), [
        ...rangeParameters(range),
        parameter("timestamptz", marks.trackingKeptSince)
      ]),
      (rows) => rows.map(ofTracked)
    )
  )

/** Reservations with their lines, which are added to the comparison with the ledger. */
export const reservations = (window: Window, comparison: Comparison): Question => ({
  name: "reservations",
  ...byReservation,
  ask: Effect.fnUntraced(function* (ask, range) {
    const [row] = yield* ask<DocumentsRow>(documentsStatement(range), [
      ...rangeParameters(range),
      ...pairParameters(window)
    ])
    const { merchantIds, pairs, reservationIds } = row!
    comparison.addPairs(pairs, -1)
    if (reservationIds === null) return []
    return yield* askedTwice(statesOf(ask, merchantIds!, reservationIds))
  })
})

/** Some reservations, one by one. */
const statesOf = Effect.fnUntraced(function* (
  ask: Ask,
  merchantIds: ReadonlyArray<string>,
  reservationIds: ReadonlyArray<string>
) {
  const rows = yield* ask<StatedReservation>(reservationStatement, [
    arrays.text(merchantIds),
    arrays.uuid(reservationIds)
  ])
  const lines = yield* linesOf(
    ask,
    rows.filter(({ isOrphan }) => isOrphan)
  )
  const sold = yield* soldOf(
    ask,
    rows.filter(({ isCloser }) => isCloser)
  )
  return [...rows.filter(({ isAstray }) => isAstray).map(ofPending), ...lines, ...sold]
})

const orders: Question = {
  name: "orders",
  ...byOrder,
  ask: (ask, range) =>
    askedTwice(
      Effect.flatMap(ask<OrderKey>(ordersStatement(range), rangeParameters(range)), (rows) =>
        soldOf(ask, rows)
      )
    )
}

type OrderKey = Pick<ReservationRow, "merchantId" | "orderId">

/** Some orders, against what they were sold. */
const soldOf = Effect.fnUntraced(function* (ask: Ask, some: ReadonlyArray<OrderKey>) {
  if (some.length === 0) return []
  const rows = yield* ask<SoldItem>(soldStatement, [
    arrays.text(some.map(({ merchantId }) => merchantId)),
    arrays.text(some.map(({ orderId }) => orderId))
  ])
  return rows.map(ofSold)
})

type ReservationKey = Pick<ReservationRow, "merchantId" | "reservationId">

/** Some reservations' lines, one by one. */
const linesOf = Effect.fnUntraced(function* (ask: Ask, some: ReadonlyArray<ReservationKey>) {
  if (some.length === 0) return []
  const rows = yield* ask<StatedLine>(lineStatement, [
    arrays.text(some.map(({ merchantId }) => merchantId)),
    arrays.uuid(some.map(({ reservationId }) => reservationId))
  ])
  return rows.flatMap(ofLine)
})

// reservation_line_pkey
const pairsStatement = (range: Range) => `
  SELECT DISTINCT ${fieldsInSql(reservationLines, "l", ["merchantId", "reservationId"])}
  FROM reservation_line l
  WHERE ${within(range, "uuid", "l", "reservation_id")}
    AND l.stock_id IS NOT NULL
    AND l.reservation_id >= $10::text::uuid AND l.reservation_id < $11::text::uuid
    AND ${cellInSql(pairDigestInSql("l"))} = ANY ($12)`

/** Reservations carry their time like postings. */
const pairParameters = (window: Window) => {
  const { beyond, least } = boundsOf(window)
  return [parameter("text", least), parameter("text", beyond)]
}

/** The lines of some cells, one by one: each line's stock has moved for it. What has moved for no line, `nets` finds. */
export const linesIn = (window: Window, cells: ReadonlyArray<number>): Question => ({
  name: "lines of some cells",
  ...byReservation,
  table: "reservation_line",
  ask: Effect.fnUntraced(function* (ask, range) {
    const rows = yield* ask<ReservationKey>(pairsStatement(range), [
      ...rangeParameters(range),
      ...pairParameters(window),
      arrays.int4(cells)
    ])
    return yield* askedTwice(linesOf(ask, rows))
  })
})

export const questions: ReadonlyArray<Question> = [
  question("items", byItem, itemStatement, ofItem),
  orders,
  question("discrepancies", byDiscrepancy, discrepancyStatement, ofDiscrepancy),
  question("tracking", byTracking, trackingStatement, ofTracking)
]
