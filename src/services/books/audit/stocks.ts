import { Effect } from "effect"
import {
  type DiscrepancyKind,
  balanceDiscrepanciesInSql,
  balanceDiscrepancyKindsInSql
} from "../../../schema/Discrepancy.ts"
import { returningTypes, sellingTypes, typesOfReservations } from "../../../schema/Movement.ts"
import { arrays, parameter } from "../../PostgresTypes.ts"
import { fieldsInSql } from "../../kernel/Table.ts"
import { checkpoints } from "../../kernel/tables/repair.ts"
import {
  type LedgerRow,
  type StockRow,
  ledger as ledgerTable,
  stocks as stockTable
} from "../../kernel/tables/stock.ts"
import { type Ask, type Key, type Place, type Range, questionOf, rangeParameters, within } from "./Asking.ts"
import {
  type Comparison,
  type Digest,
  type Figures,
  cellInSql,
  pairDigestInSql,
  pairDigestOf,
  stateAfterInSql
} from "./digests.ts"
import { type Window, boundsOf } from "./events.ts"
import { type Finding, finding } from "./Finding.ts"

// One file: the chain of a stock is followed whole or in parts by statements that must say the same.

/** Invariants 1, 2 and 3 of stocks and of their ledger, over ranges of stocks. */

/** A range of stocks with about so many movements is one question. */
const movementsPerRange = 20_000
const stocksPerRange = 2_000
/** Stocks whose keys are read at once. */
export const stocksPerPage = 10_000

interface StockKey extends Key {
  readonly movements: number
}

/** A range of stocks, or a part of one stock that has too many movements for one question. */
export interface Slice {
  readonly range: Range
  readonly stocks: number
  readonly movements: number
}

/** The next ranges after a key. The last of all reaches to the end, where movements of no stock may be. */
export const slicesAfter = Effect.fnUntraced(function* (ask: Ask, from: Key, merchantId: string | undefined) {
  const rows = yield* ask<StockKey>(keysStatement(merchantId), [
    parameter("text", from.merchantId),
    parameter("text", from.id),
    parameter("int4", stocksPerPage),
    parameter("text", merchantId ?? null)
  ])
  const slices: Array<Slice> = []
  let begin = from
  let stocks = 0
  let movements = 0
  rows.forEach((row, index) => {
    const isHot = row.movements > movementsPerRange
    const end = keyOf(row)
    if (isHot && stocks > 0) {
      const to = keyOf(rows[index - 1]!)
      slices.push({ range: { from: begin, to, merchantId }, stocks, movements })
      begin = to
      stocks = 0
      movements = 0
    }
    stocks += 1
    movements += Math.max(0, row.movements)
    if (movements >= movementsPerRange || stocks >= stocksPerRange || index === rows.length - 1) {
      slices.push({ range: { from: begin, to: end, merchantId }, stocks, movements })
      begin = end
      stocks = 0
      movements = 0
    }
  })
  const isLast = rows.length < stocksPerPage
  if (isLast) slices.push({ range: { from: begin, merchantId }, stocks: 0, movements: 0 })
  return { slices, next: begin, isLast }
})

const keyOf = ({ id, merchantId }: Key): Key => ({ merchantId, id })

// stock_pkey, ledger_checkpoint_pkey
const keysStatement = (merchantId: string | undefined) => `
  SELECT s.merchant_id AS "merchantId", s.stock_id AS id,
         s.sequence - COALESCE((
           SELECT c.sequence
           FROM ledger_checkpoint c
           WHERE c.merchant_id = s.merchant_id AND c.stock_id = s.stock_id
           ORDER BY c.sequence DESC
           LIMIT 1
         ), 0) AS movements
  FROM stock s
  WHERE (s.merchant_id, s.stock_id) > ($1::text, $2::text::uuid)
    AND ${merchantId === undefined ? "$4::text IS NULL" : "s.merchant_id = $4::text"}
  ORDER BY s.merchant_id, s.stock_id
  LIMIT $3`

/** The newest checkpoint of each stock of a range: its chain begins after it. */
const checkpointsOf = (range: Range) => `
  SELECT DISTINCT ON (c.merchant_id, c.stock_id) c.merchant_id, c.stock_id, c.sequence, c.recorded_at, c.on_hand,
         c.reserved, c.unallocatable
  FROM ledger_checkpoint c
  WHERE ${within(range, "uuid", "c", "stock_id")}
  ORDER BY c.merchant_id, c.stock_id, c.sequence DESC`

/** Where a slice of one stock's movements goes on: after this one. Times are text, to the microsecond. */
export interface Carry {
  readonly sequence: number
  readonly recordedAt: string | null
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
}

const chainFields = [
  "merchantId",
  "stockId",
  "itemId",
  "sequence",
  "recordedAt",
  "postingId",
  "onHand",
  "reserved",
  "unallocatable"
] as const satisfies ReadonlyArray<keyof LedgerRow>
interface ChainRow extends Pick<LedgerRow, (typeof chainFields)[number]> {
  readonly sequenceBefore: number
  readonly onHandExpected: number
  readonly reservedExpected: number
  readonly unallocatableExpected: number
  readonly breaks: boolean
}

/** A movement's figures with those of the one before it, or with what the chain begins from. */
const besideTheOneBefore = (begin: Readonly<Record<keyof Carry, string>>): string => `
           l.merchant_id, l.stock_id, l.item_id, l.sequence, l.recorded_at, l.posting_id, l.on_hand, l.reserved,
           l.unallocatable, l.on_hand_delta, l.reserved_delta, l.unallocatable_delta,
           COALESCE(lag(l.sequence) OVER w, ${begin.sequence}) AS sequence_before,
           COALESCE(lag(l.on_hand) OVER w, ${begin.onHand}) AS on_hand_before,
           COALESCE(lag(l.reserved) OVER w, ${begin.reserved}) AS reserved_before,
           COALESCE(lag(l.unallocatable) OVER w, ${begin.unallocatable}) AS unallocatable_before,
           COALESCE(lag(l.recorded_at) OVER w, ${begin.recordedAt}) AS recorded_before`

/**
 * The movements of a range of stocks follow one another: numbered without gaps, in time, each with the balances of the one
 * before it plus its deltas. A row that does not is told with what it should be.
 */
// inventory_ledger_pkey
const chainStatement = (range: Range) => `
  WITH checkpoint AS (${checkpointsOf(range)}),
  movement AS (
    SELECT ${besideTheOneBefore({
      sequence: "c.sequence, 0",
      onHand: "c.on_hand, 0",
      reserved: "c.reserved, 0",
      unallocatable: "c.unallocatable, 0",
      recordedAt: "c.recorded_at"
    })}
    FROM inventory_ledger l
    LEFT JOIN checkpoint c ON c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id
    WHERE ${within(range, "uuid", "l", "stock_id")}
      AND (c.sequence IS NULL OR l.sequence > c.sequence AND l.recorded_at >= c.recorded_at)
    WINDOW w AS (PARTITION BY l.merchant_id, l.stock_id ORDER BY l.recorded_at, l.sequence)
  )
  SELECT * FROM (${judged}) judged WHERE breaks`

/** A posting's id carries its time, and nothing is recorded before it was asked for. */
const isBeforeItsPosting = (row: string): string =>
  `COALESCE(uuid_extract_timestamp(${row}.posting_id) >= ${row}.recorded_at + interval '1 millisecond', true)`

const judged = `
    SELECT ${fieldsInSql(ledgerTable, "movement", chainFields)},
           sequence_before AS "sequenceBefore", on_hand_before + on_hand_delta AS "onHandExpected",
           reserved_before + reserved_delta AS "reservedExpected",
           unallocatable_before + unallocatable_delta AS "unallocatableExpected",
           sequence <> sequence_before + 1
             OR on_hand <> on_hand_before + on_hand_delta
             OR reserved <> reserved_before + reserved_delta
             OR unallocatable <> unallocatable_before + unallocatable_delta
             OR recorded_at < recorded_before
             OR ${isBeforeItsPosting("movement")} AS breaks
    FROM movement`

/** The same of a part of one stock's movements. */
const partStatement = `
  WITH part AS (
    SELECT *
    FROM inventory_ledger l
    WHERE l.merchant_id = $1::text AND l.stock_id = $2::text::uuid
      AND ($3::text IS NULL OR (l.recorded_at, l.sequence) > ($3::text::timestamptz, $4::bigint))
      AND l.sequence > $8::bigint
    ORDER BY l.recorded_at, l.sequence
    LIMIT ${movementsPerRange}
  ),
  movement AS (
    SELECT ${besideTheOneBefore({
      sequence: "$4::bigint",
      onHand: "$5::bigint",
      reserved: "$6::bigint",
      unallocatable: "$7::bigint",
      recordedAt: "$3::text::timestamptz"
    })},
           lead(l.sequence) OVER w IS NULL AS is_last,
           l.recorded_at::text AS at
    FROM part l
    WINDOW w AS (ORDER BY l.recorded_at, l.sequence)
  )
  SELECT judged.*, last.at, last.count
  FROM (${judged}) judged
  JOIN (SELECT recorded_at, sequence, is_last, at, count(*) OVER () AS count FROM movement) last
    ON last.recorded_at = judged."recordedAt" AND last.sequence = judged.sequence
  WHERE breaks OR last.is_last`

interface PartRow extends ChainRow {
  readonly at: string
  readonly count: number
}

const ofChain = (row: ChainRow): ReadonlyArray<Finding> => {
  const { breaks, itemId, merchantId, postingId, recordedAt, sequence, sequenceBefore, stockId } = row
  if (!breaks) return []
  const { onHand, onHandExpected, reserved, reservedExpected, unallocatable, unallocatableExpected } = row
  return [
    finding("ledger-follows", {
      merchantId,
      stockId,
      itemId,
      subject: `movement ${sequence} of stock ${stockId}`,
      row: {
        sequence,
        sequenceBefore,
        recordedAt,
        postingId,
        onHand,
        onHandExpected,
        reserved,
        reservedExpected,
        unallocatable,
        unallocatableExpected
      }
    })
  ]
}

export const chain = questionOf(chainStatement, ofChain)

interface HomeRow extends Pick<LedgerRow, "merchantId" | "stockId" | "itemId"> {
  readonly firstSequence: number
  readonly movements: number
}

// inventory_ledger_pkey, stock_pkey
const homeStatement = (range: Range) => `
  SELECT ${fieldsInSql(ledgerTable, "moved", ["merchantId", "stockId", "itemId"])},
         moved.first_sequence AS "firstSequence", moved.movements
  FROM (
    SELECT l.merchant_id, l.stock_id, l.item_id, min(l.sequence) AS first_sequence, count(*) AS movements
    FROM inventory_ledger l
    WHERE ${within(range, "uuid", "l", "stock_id")}
    GROUP BY l.merchant_id, l.stock_id, l.item_id
  ) moved
  WHERE NOT EXISTS (
    SELECT FROM stock s
    WHERE s.merchant_id = moved.merchant_id AND s.stock_id = moved.stock_id AND s.item_id = moved.item_id
    OFFSET 0
  )`

/** Movements are of a stock of their merchant and their item. */
export const homes = questionOf(homeStatement, ({ firstSequence, movements, ...about }: HomeRow) => [
  finding("own-merchant", {
    ...about,
    subject: `movements of item ${about.itemId} on stock ${about.stockId}`,
    row: { firstSequence, movements }
  })
])

/** One stock's movements in parts that are not too many for one look. `since` is the time of its checkpoint. */
export const partsOf = Effect.fnUntraced(function* (ask: Ask, range: Range) {
  const stock = range.to!
  const key = [parameter("text", stock.merchantId), parameter("text", stock.id)]
  const [begin] = yield* ask<Carry>(beginStatement, key)
  const since = begin?.recordedAt ?? null
  const parts: Array<Range> = []
  // All of them: what is before the checkpoint has its events, too.
  let from: Place | null = null
  let state: string | null = null
  for (;;) {
    const place = [
      ...key,
      parameter("text", from?.recordedAt ?? null),
      parameter("int8", from?.sequence ?? null)
    ]
    const [full]: ReadonlyArray<EndRow> = yield* ask<EndRow>(
      endStatement("ASC", movementsPerRange - 1),
      place
    )
    const [end]: ReadonlyArray<EndRow> =
      full === undefined ? yield* ask<EndRow>(endStatement("DESC", 0), place) : [full]
    if (end === undefined) return { parts, since }
    const to: Place = { recordedAt: end.at, sequence: end.sequence }
    parts.push({ ...range, part: { from, to, state } })
    if (full === undefined) return { parts, since }
    from = to
    state = end.state
  }
})

interface EndRow {
  readonly at: string
  readonly sequence: number
  readonly state: string
}

// inventory_ledger_pkey
const endStatement = (order: "ASC" | "DESC", offset: number) => `
  SELECT l.recorded_at::text AS at, l.sequence, ${stateAfterInSql("l")}::text AS state
  FROM inventory_ledger l
  WHERE l.merchant_id = $1::text AND l.stock_id = $2::text::uuid
    AND ($3::text IS NULL OR (l.recorded_at, l.sequence) > ($3::text::timestamptz, $4::bigint))
  ORDER BY l.recorded_at ${order}, l.sequence ${order}
  OFFSET ${offset}
  LIMIT 1`

/** The chain of one stock, part by part: what was read stays as it is, so that parts may be read at different times. */
export const longChain = Effect.fnUntraced(function* (ask: Ask, range: Range) {
  const stock = range.to!
  const [begin] = yield* ask<Carry>(beginStatement, [
    parameter("text", stock.merchantId),
    parameter("text", stock.id)
  ])
  const checkpointed = begin?.sequence ?? 0
  let carry: Carry = begin ?? { sequence: 0, recordedAt: null, onHand: 0, reserved: 0, unallocatable: 0 }
  const found: Array<Finding> = []
  for (;;) {
    const rows = yield* ask<PartRow>(partStatement, [
      parameter("text", stock.merchantId),
      parameter("text", stock.id),
      parameter("text", carry.recordedAt),
      parameter("int8", carry.sequence),
      parameter("int8", carry.onHand),
      parameter("int8", carry.reserved),
      parameter("int8", carry.unallocatable),
      parameter("int8", checkpointed)
    ])
    const last = rows.at(-1)
    if (last === undefined) return found
    found.push(...rows.flatMap(ofChain))
    carry = { ...last, recordedAt: last.at }
    if (last.count < movementsPerRange) return found
  }
})

// ledger_checkpoint_pkey
const beginStatement = `
  SELECT c.recorded_at::text AS "recordedAt",
         ${fieldsInSql(checkpoints, "c", ["sequence", "onHand", "reserved", "unallocatable"])}
  FROM ledger_checkpoint c
  WHERE c.merchant_id = $1::text AND c.stock_id = $2::text::uuid
  ORDER BY c.sequence DESC
  LIMIT 1`

const stateFields = [
  "merchantId",
  "stockId",
  "itemId",
  "locationId",
  "onHand",
  "reserved",
  "unallocatable",
  "sequence",
  "discrepancy"
] as const satisfies ReadonlyArray<keyof StockRow>
interface StateRow extends Pick<StockRow, (typeof stateFields)[number]> {
  readonly ledgerOnHand: number
  readonly ledgerReserved: number
  readonly ledgerUnallocatable: number
  readonly ledgerSequence: number
  readonly open: number
  readonly hasItem: boolean
  readonly hasLocation: boolean
  /** The balance discrepancies that its figures call for, and those that are open. */
  readonly called: ReadonlyArray<DiscrepancyKind>
  readonly named: ReadonlyArray<DiscrepancyKind>
}

// stock_pkey, inventory_ledger_pkey, ledger_checkpoint_pkey, reservation_line_open, discrepancy_one_open
const stateStatement = (range: Range) => `
  SELECT *
  FROM (
    SELECT ${fieldsInSql(stockTable, "s", stateFields)},
           COALESCE(last.on_hand, c.on_hand, 0) AS "ledgerOnHand",
           COALESCE(last.reserved, c.reserved, 0) AS "ledgerReserved",
           COALESCE(last.unallocatable, c.unallocatable, 0) AS "ledgerUnallocatable",
           COALESCE(last.sequence, c.sequence, 0) AS "ledgerSequence",
           COALESCE((
             SELECT sum(h.open)
             FROM reservation_line h
             WHERE h.merchant_id = s.merchant_id AND h.stock_id = s.stock_id AND h.open > 0
           ), 0)::bigint AS open,
           EXISTS (
             SELECT FROM item i WHERE i.merchant_id = s.merchant_id AND i.item_id = s.item_id OFFSET 0
           ) AS "hasItem",
           EXISTS (
             SELECT FROM location p WHERE p.merchant_id = s.merchant_id AND p.location_id = s.location_id OFFSET 0
           ) AS "hasLocation",
           ${balanceDiscrepanciesInSql("s")} AS called,
           ARRAY(
             SELECT d.kind
             FROM discrepancy d
             WHERE d.merchant_id = s.merchant_id AND d.subject = s.stock_id::text AND d.status = 'OPEN'
               AND d.kind IN (${balanceDiscrepancyKindsInSql})
             ORDER BY d.kind
           ) AS named
    FROM stock s
    LEFT JOIN (${checkpointsOf(range)}) c ON c.merchant_id = s.merchant_id AND c.stock_id = s.stock_id
    LEFT JOIN LATERAL (
      SELECT l.on_hand, l.reserved, l.unallocatable, l.sequence
      FROM inventory_ledger l
      WHERE l.merchant_id = s.merchant_id AND l.stock_id = s.stock_id
        AND (c.sequence IS NULL OR l.sequence > c.sequence AND l.recorded_at >= c.recorded_at)
      ORDER BY l.recorded_at DESC, l.sequence DESC
      LIMIT 1
    ) last ON true
    WHERE ${within(range, "uuid", "s", "stock_id")}
  ) stated
  WHERE ("onHand", reserved, unallocatable, sequence)
      IS DISTINCT FROM ("ledgerOnHand", "ledgerReserved", "ledgerUnallocatable", "ledgerSequence")
    OR reserved <> open
    OR NOT "hasItem"
    OR NOT "hasLocation"
    OR called <> named
    OR discrepancy <> (cardinality(called) > 0)`

const ofState = (row: StateRow): ReadonlyArray<Finding> => {
  const { itemId, locationId, merchantId, stockId } = row
  const about = { merchantId, stockId, itemId, subject: `stock ${stockId}`, identity: "" }
  const { onHand, reserved, sequence, unallocatable } = row
  const figures = { onHand, reserved, unallocatable, sequence }
  const { ledgerOnHand, ledgerReserved, ledgerSequence, ledgerUnallocatable } = row
  const ledger = { ledgerOnHand, ledgerReserved, ledgerUnallocatable, ledgerSequence }
  const found: Array<Finding> = []
  if (sequence > ledgerSequence) {
    found.push(finding("ledger-ends", { ...about, row: { ...figures, ...ledger } }))
  } else if (
    onHand !== ledgerOnHand ||
    reserved !== ledgerReserved ||
    unallocatable !== ledgerUnallocatable ||
    sequence !== ledgerSequence
  ) {
    found.push(finding("stock-is-its-ledger", { ...about, row: { ...figures, ...ledger } }))
  }
  const { called, discrepancy, hasItem, hasLocation, named, open } = row
  if (reserved !== open) found.push(finding("reserved-is-open", { ...about, row: { reserved, open } }))
  if (called.join() !== named.join() || discrepancy !== called.length > 0) {
    found.push(
      finding("balance-has-its-discrepancy", {
        ...about,
        row: { ...figures, flagged: discrepancy, called, open: named }
      })
    )
  }
  if (!hasItem || !hasLocation) {
    found.push(finding("own-merchant", { ...about, row: { itemId, hasItem, locationId, hasLocation } }))
  }
  return found
}

export const states = questionOf(stateStatement, ofState)

/** What a reservation holds of a stock, has sold and has taken back: by the ledger, and by its lines. */
interface NetRow extends Figures, Pick<LedgerRow, "merchantId" | "stockId" | "itemId" | "orderId"> {
  readonly reservationId: string
  readonly lineOpen: number
  readonly lineSold: number
  readonly lineReturned: number
}

export const isSale = (row: string): string => `${row}.type IN (${sellingTypes})`
export const isReturn = (row: string): string => `${row}.type IN (${returningTypes})`
/** What moves for a reservation. */
export const movesForReservation = (row: string): string => `${row}.type IN (${typesOfReservations})`

/** What movements come to: what they hold, have sold and have taken back. */
const movedFigures = (row: string) =>
  [
    `sum(${row}.reserved_delta)::bigint`,
    `COALESCE(-sum(${row}.on_hand_delta) FILTER (WHERE ${isSale(row)}), 0)::bigint`,
    `COALESCE(sum(${row}.on_hand_delta) FILTER (WHERE ${isReturn(row)}), 0)::bigint`
  ] as const
const [openInSql, soldInSql, returnedInSql] = movedFigures("l")
const movedSums = `${openInSql} AS open, ${soldInSql} AS sold, ${returnedInSql} AS returned`

const lineSums = `COALESCE(line.open, 0)::bigint AS "lineOpen", COALESCE(line.sold, 0)::bigint AS "lineSold",
           COALESCE(line.returned, 0)::bigint AS "lineReturned"`
const isUnlikeLines = `(open, sold, returned) IS DISTINCT FROM ("lineOpen", "lineSold", "lineReturned")`

/**
 * What the ledger says that a reservation holds of a stock, has sold and has taken back, against its lines. Reservations
 * from before a stock's checkpoint are left out: their movements are not all there.
 */
// inventory_ledger_pkey, reservation_pkey, reservation_line_pkey
const netsStatement = (range: Range) => `
  WITH checkpoint AS (${checkpointsOf(range)}),
  moved AS (
    SELECT l.merchant_id, l.stock_id, l.reservation_id, any_value(l.item_id) AS item_id, any_value(l.order_id) AS order_id,
           min(c.recorded_at) AS since,
           ${movedSums}
    FROM inventory_ledger l
    LEFT JOIN checkpoint c ON c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id
    WHERE ${within(range, "uuid", "l", "stock_id")}
      AND l.reservation_id IS NOT NULL
      AND ${movesForReservation("l")}
      AND (c.sequence IS NULL OR l.sequence > c.sequence AND l.recorded_at >= c.recorded_at)
    GROUP BY l.merchant_id, l.stock_id, l.reservation_id
  )
  SELECT *
  FROM (
    SELECT ${fieldsInSql(ledgerTable, "m", ["merchantId", "stockId", "itemId", "reservationId", "orderId"])},
           m.open, m.sold, m.returned, ${lineSums}, m.since
    FROM moved m
    CROSS JOIN LATERAL (
      SELECT sum(n.open) AS open, sum(n.sold) AS sold, sum(n.returned) AS returned
      FROM reservation_line n
      WHERE n.merchant_id = m.merchant_id AND n.reservation_id = m.reservation_id AND n.stock_id = m.stock_id
    ) line
  ) compared
  WHERE ${isUnlikeLines}
    AND (since IS NULL OR EXISTS (
      SELECT FROM reservation r
      WHERE r.merchant_id = compared."merchantId" AND r.reservation_id = compared."reservationId"
        AND r.created_at > since
      OFFSET 0
    ))`

const ofNet = ({ lineOpen, lineReturned, lineSold, open, returned, sold, ...about }: NetRow): Finding =>
  finding("line-is-its-ledger", {
    ...about,
    subject: `reservation ${about.reservationId} on stock ${about.stockId}`,
    identity: "",
    row: {
      open: lineOpen,
      ledgerOpen: open,
      sold: lineSold,
      ledgerSold: sold,
      returned: lineReturned,
      ledgerReturned: returned
    }
  })

const linesInSql = (row: string): string => `(
            SELECT ROW(COALESCE(sum(n.open), 0)::bigint, COALESCE(sum(n.sold), 0)::bigint,
                     COALESCE(sum(n.returned), 0)::bigint)
            FROM reservation_line n
            WHERE n.merchant_id = ${row}.merchant_id AND n.reservation_id = ${row}.reservation_id
              AND n.stock_id = ${row}.stock_id
          )`

/**
 * Whether what has moved for a movement's reservation differs from its lines, in the snapshot in which it is asked. It is
 * looked for from the reservation's own time on.
 */
// inventory_ledger_pkey, reservation_line_pkey
export const differsInSql = (row: string): string => `(
            SELECT ROW(${movedFigures("m").join(", ")})
            FROM inventory_ledger m
            WHERE m.merchant_id = ${row}.merchant_id AND m.stock_id = ${row}.stock_id
              AND m.recorded_at >= uuid_extract_timestamp(${row}.reservation_id)
              AND m.reservation_id = ${row}.reservation_id AND ${movesForReservation("m")}
            OFFSET 0
          ) IS DISTINCT FROM ${linesInSql(row)}`

// inventory_ledger_pkey, reservation_line_pkey
const differingStatement = (range: Range) => `
  SELECT EXISTS (
    SELECT
    FROM (
      SELECT l.merchant_id, l.stock_id, l.reservation_id, ${movedSums}
      FROM inventory_ledger l
      WHERE ${within(range, "uuid", "l", "stock_id")}
        AND ${movesForReservation("l")}
        AND ${cellInSql(pairDigestInSql("l"))} = ANY ($10)
      GROUP BY l.merchant_id, l.stock_id, l.reservation_id
      OFFSET 0
    ) m
    WHERE ROW(m.open, m.sold, m.returned) IS DISTINCT FROM ${linesInSql("m")}
  ) AS differs`

/** Whether any of the pairs of some cells seem to differ from their lines: `nets` knows exceptions that this does not. */
export const differsIn = (ask: Ask, range: Range, cells: ReadonlyArray<number>) =>
  Effect.map(
    ask<{ differs: boolean }>(differingStatement(range), [...rangeParameters(range), arrays.int4(cells)]),
    ([row]) => row!.differs
  )

export const nets = questionOf(netsStatement, (row: NetRow) => [ofNet(row)])

/** Reservations of one stock whose sums are held at once; more take another pass over its movements. */
const reservationsPerPass = 250_000
const reservationsPerQuestion = 5_000

type PartialRow = Figures & Pick<NetRow, "reservationId" | "itemId" | "orderId">

// inventory_ledger_pkey
const partialStatement = (range: Range) => `
  SELECT l.reservation_id AS "reservationId", any_value(l.item_id) AS "itemId", any_value(l.order_id) AS "orderId",
         ${movedSums}
  FROM inventory_ledger l
  WHERE ${within(range, "uuid", "l", "stock_id")}
    AND l.reservation_id IS NOT NULL
    AND ${movesForReservation("l")}
    AND abs(hashtext(l.reservation_id::text)::bigint) % $10::bigint = $11::bigint
  GROUP BY l.reservation_id`

// What has moved after the last part is added in the snapshot in which the lines are read.
// inventory_ledger_pkey, reservation_pkey, reservation_line_pkey
const summedStatement = `
  WITH later AS MATERIALIZED (
    SELECT l.reservation_id, sum(l.reserved_delta) AS open,
           -sum(l.on_hand_delta) FILTER (WHERE ${isSale("l")}) AS sold,
           sum(l.on_hand_delta) FILTER (WHERE ${isReturn("l")}) AS returned
    FROM inventory_ledger l
    WHERE l.merchant_id = $1::text AND l.stock_id = $2::text::uuid
      AND (l.recorded_at, l.sequence) > ($3::text::timestamptz, $4::bigint)
      AND l.reservation_id IS NOT NULL
      AND ${movesForReservation("l")}
    GROUP BY l.reservation_id
  )
  SELECT *
  FROM (
    SELECT $1::text AS "merchantId", $2::text AS "stockId",
           (SELECT s.item_id FROM stock s WHERE s.merchant_id = $1::text AND s.stock_id = $2::text::uuid) AS "itemId",
           u.reservation_id AS "reservationId", u.order_id AS "orderId",
           (u.open + COALESCE(later.open, 0))::bigint AS open, (u.sold + COALESCE(later.sold, 0))::bigint AS sold,
           (u.returned + COALESCE(later.returned, 0))::bigint AS returned, ${lineSums}
    FROM unnest($5, $6, $7, $8, $9) AS u (reservation_id, order_id, open, sold, returned)
    LEFT JOIN LATERAL (
      SELECT r.created_at
      FROM reservation r
      WHERE r.merchant_id = $1::text AND r.reservation_id = u.reservation_id
      OFFSET 0
    ) r ON true
    LEFT JOIN later ON later.reservation_id = u.reservation_id
    CROSS JOIN LATERAL (
      SELECT sum(n.open) AS open, sum(n.sold) AS sold, sum(n.returned) AS returned
      FROM reservation_line n
      WHERE n.merchant_id = $1::text AND n.reservation_id = u.reservation_id AND n.stock_id = $2::text::uuid
    ) line
    WHERE $10::text IS NULL OR r.created_at > $10::text::timestamptz
  ) compared
  WHERE ${isUnlikeLines}`

/** The same as `nets`, of one stock in parts. `since` is the time of its checkpoint. */
export const longNets = Effect.fnUntraced(function* (
  ask: Ask,
  { movements, range }: Slice,
  options: {
    readonly parts: ReadonlyArray<Range>
    readonly since: string | null
    readonly window: Window
    readonly comparison: Comparison
  }
) {
  const { comparison, parts, since, window } = options
  const { beyond, least } = boundsOf(window)
  const digest: Digest = { high: 0, low: 0 }
  const found: Array<Finding> = []
  const stock = range.to!
  const end = parts.at(-1)?.part?.to
  if (end === undefined) return found
  const passes = Math.max(1, Math.ceil(movements / 2 / reservationsPerPass))
  for (let pass = 0; pass < passes; pass++) {
    const sums = new Map<string, PartialRow>()
    for (const part of parts) {
      const rows = yield* ask<PartialRow>(partialStatement(part), [
        ...rangeParameters(part),
        parameter("int8", passes),
        parameter("int8", pass)
      ])
      for (const row of rows) {
        const known = sums.get(row.reservationId)
        sums.set(
          row.reservationId,
          known === undefined
            ? row
            : {
                ...known,
                open: known.open + row.open,
                sold: known.sold + row.sold,
                returned: known.returned + row.returned
              }
        )
      }
    }
    const all = [...sums.values()]
    for (const row of all) {
      const { itemId, reservationId } = row
      if (reservationId < least || reservationId >= beyond) continue
      pairDigestOf({ merchantId: stock.merchantId, reservationId, stockId: stock.id, itemId }, digest)
      comparison.addPair(digest, row, 1)
    }
    for (let index = 0; index < all.length; index += reservationsPerQuestion) {
      const some = all.slice(index, index + reservationsPerQuestion)
      const rows = yield* ask<NetRow>(summedStatement, [
        parameter("text", stock.merchantId),
        parameter("text", stock.id),
        parameter("text", end.recordedAt),
        parameter("int8", end.sequence),
        arrays.uuid(some.map(({ reservationId }) => reservationId)),
        arrays.text(some.map(({ orderId }) => orderId)),
        arrays.int8(some.map(({ open }) => open)),
        arrays.int8(some.map(({ sold }) => sold)),
        arrays.int8(some.map(({ returned }) => returned)),
        parameter("text", since)
      ])
      found.push(...rows.map(ofNet))
    }
  }
  return found
})

export const isHot = ({ movements }: Slice): boolean => movements > 4 * movementsPerRange
