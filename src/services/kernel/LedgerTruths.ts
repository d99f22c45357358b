import { Effect } from "effect"
import type { Posting } from "../../schema/Posting.ts"
import type { Session } from "../Db.ts"
import { type Books, type MovedRow, type StockTruth } from "./decide/Books.ts"
import { columnsOf, lines, rowOf } from "./LedgerTables.ts"
import { arrays, rowsOf } from "../PostgresTypes.ts"

const lineOf = rowOf(lines)

/** What repairs are decided over: the ledger's side of the stocks and reservations that they mend. */
export const readTruths = Effect.fnUntraced(function* (
  session: Session,
  postings: ReadonlyArray<Posting>,
  books: Books
) {
  const mends = postings.flatMap(({ caller: { merchantId }, command }) =>
    command._tag === "MendItem" || command._tag === "MendReservation" ? [{ merchantId, mend: command }] : []
  )
  if (mends.length === 0) return
  const stocks = [...books.stocks.values()]
  const reservations = mends.flatMap(({ mend, merchantId }) =>
    mend._tag === "MendReservation" ? [{ mend, merchantId }] : []
  )
  const moved = reservations.flatMap(({ mend, merchantId }) =>
    stocks
      .filter((stock) => stock.merchantId === merchantId)
      .map(({ stockId }) => ({
        merchantId,
        stockId,
        reservationId: mend.reservationId,
        since: mend.since
      }))
  )
  const [truths, movements, orphans] = yield* Effect.all(
    [
      session.run(readStockTruths, [
        arrays.text(stocks.map(({ merchantId }) => merchantId)),
        arrays.uuid(stocks.map(({ stockId }) => stockId))
      ]),
      session.run(readMoved, [
        arrays.text(moved.map(({ merchantId }) => merchantId)),
        arrays.uuid(moved.map(({ reservationId }) => reservationId)),
        arrays.uuid(moved.map(({ stockId }) => stockId)),
        arrays.timestamptz(moved.map(({ since }) => since))
      ]),
      session.run(readOrphans, [
        arrays.text(reservations.map(({ merchantId }) => merchantId)),
        arrays.uuid(reservations.map(({ mend }) => mend.reservationId))
      ])
    ],
    { concurrency: "unbounded" }
  )
  for (const [merchantId, stockId, ...figures] of truths) {
    const [onHand, reserved, unallocatable, sequence, recordedAt, open] = figures as ReadonlyArray<number>
    books.truths.set(
      merchantId as string,
      stockId as string,
      {
        onHand,
        reserved,
        unallocatable,
        sequence,
        recordedAt,
        open
      } as StockTruth
    )
  }
  for (const [merchantId, reservationId, stockId, open, sold, returned] of movements) {
    books.append(
      books.moved,
      merchantId as string,
      reservationId as string,
      {
        stockId,
        open,
        sold,
        returned
      } as MovedRow
    )
  }
  for (const values of orphans) {
    const line = lineOf(values)
    books.append(books.orphans, line.merchantId, line.reservationId, line)
  }
})

// ledger_checkpoint_pkey, inventory_ledger_pkey, reservation_line_open
const readStockTruths = `
  SELECT wanted.merchant_id, wanted.stock_id, COALESCE(last.on_hand, c.on_hand, 0),
         COALESCE(last.reserved, c.reserved, 0), COALESCE(last.unallocatable, c.unallocatable, 0),
         COALESCE(last.sequence, c.sequence, 0), COALESCE(last.recorded_at, c.recorded_at, 'epoch'),
         COALESCE((
           SELECT sum(h.open)
           FROM reservation_line h
           WHERE h.merchant_id = wanted.merchant_id AND h.stock_id = wanted.stock_id AND h.open > 0
         ), 0)::bigint
  FROM ${rowsOf(["merchant_id", "stock_id"])} AS wanted
  LEFT JOIN LATERAL (
    SELECT k.sequence, k.recorded_at, k.on_hand, k.reserved, k.unallocatable
    FROM ledger_checkpoint k
    WHERE k.merchant_id = wanted.merchant_id AND k.stock_id = wanted.stock_id
    ORDER BY k.sequence DESC
    LIMIT 1
  ) c ON true
  LEFT JOIN LATERAL (
    SELECT l.sequence, l.recorded_at, l.on_hand, l.reserved, l.unallocatable
    FROM inventory_ledger l
    WHERE l.merchant_id = wanted.merchant_id AND l.stock_id = wanted.stock_id
      AND (c.sequence IS NULL OR l.sequence > c.sequence AND l.recorded_at >= c.recorded_at)
    ORDER BY l.recorded_at DESC, l.sequence DESC
    LIMIT 1
  ) last ON true`

// inventory_ledger_pkey: of each stock from when the reservation was made
const readMoved = `
  SELECT l.merchant_id, l.reservation_id, l.stock_id, sum(l.reserved_delta)::bigint,
         COALESCE(-sum(l.on_hand_delta) FILTER (WHERE l.type = 'SALE'), 0)::bigint,
         COALESCE(sum(l.on_hand_delta) FILTER (WHERE l.type = 'RETURN'), 0)::bigint
  FROM ${rowsOf(["merchant_id", "reservation_id", "stock_id", "since"])} AS wanted
  JOIN inventory_ledger l
    ON l.merchant_id = wanted.merchant_id AND l.stock_id = wanted.stock_id AND l.recorded_at >= wanted.since
      AND l.reservation_id = wanted.reservation_id
  WHERE l.type IN ('ORDER_ALLOCATE', 'ORDER_RELEASE', 'SALE', 'RETURN')
  GROUP BY l.merchant_id, l.reservation_id, l.stock_id`

// reservation_line_pkey, reservation_pkey
const readOrphans = `
  SELECT ${columnsOf(lines, "l")}
  FROM ${rowsOf(["merchant_id", "reservation_id"])} AS wanted
  JOIN reservation_line l ON l.merchant_id = wanted.merchant_id AND l.reservation_id = wanted.reservation_id
  LEFT JOIN reservation r ON r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
  WHERE r.reservation_id IS NULL
  ORDER BY l.merchant_id, l.reservation_id, l.line_number`
