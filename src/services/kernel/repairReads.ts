import { Effect } from "effect"
import { returningTypes, sellingTypes, typesOfReservations } from "../../schema/Movement.ts"
import { arrays, rowsOf } from "../PostgresTypes.ts"
import type { LaterRead } from "./Needs.ts"
import { columnsOf, rowReader } from "./Table.ts"
import { type LineRow, reservationLines } from "./tables/reservations.ts"
import { ByMerchant, type UnitOfWork } from "./UnitOfWork.ts"

/** What repairs are decided over besides the rows: the ledger's side of what they repair. */

/** What the ledger says of a stock, and the open lines of what is reserved of it. */
export interface StockTruth {
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly sequence: number
  readonly recordedAt: number
  readonly open: number
}
/** What the ledger says that a reservation holds of a stock, has sold and has taken back. */
export interface MovedRow {
  readonly stockId: string
  readonly open: number
  readonly sold: number
  readonly returned: number
}
interface RepairReadings {
  readonly stocks: ByMerchant<StockTruth>
  readonly moved: ByMerchant<Array<MovedRow>>
  /** Lines whose reservation is gone. */
  readonly orphans: ByMerchant<Array<LineRow>>
}

/** Of an item, or also of a reservation that was made at a time (epoch milliseconds): its movements are not older. */
export interface RepairRequest {
  readonly merchantId: string
  readonly reservation?: { readonly reservationId: string; readonly since: number }
}

export const repairReadings = (unit: UnitOfWork): RepairReadings => {
  const known = unit.readings.get(readRepairs) as RepairReadings | undefined
  if (known !== undefined) return known
  const readings = {
    stocks: new ByMerchant<StockTruth>(),
    moved: new ByMerchant<Array<MovedRow>>(),
    orphans: new ByMerchant<Array<LineRow>>()
  }
  unit.readings.set(readRepairs, readings)
  return readings
}

const lineOf = rowReader(reservationLines)

const merchantsOf = (rows: ReadonlyArray<{ readonly merchantId: string }>) =>
  arrays.text(rows.map(({ merchantId }) => merchantId))
const reservationsOf = (rows: ReadonlyArray<{ readonly reservationId: string }>) =>
  arrays.uuid(rows.map(({ reservationId }) => reservationId))
const stocksOf = (rows: ReadonlyArray<{ readonly stockId: string }>) =>
  arrays.uuid(rows.map(({ stockId }) => stockId))

const append = <V>(lists: ByMerchant<Array<V>>, merchantId: string, id: string, value: V): unknown =>
  lists.get(merchantId, id)?.push(value) ?? lists.set(merchantId, id, [value])

export const readRepairs: LaterRead<RepairRequest> = Effect.fnUntraced(function* (session, unit, requests) {
  const stocks = [...unit.stocks.indexes.byId.values()]
  const wanted = requests.flatMap(({ merchantId, reservation }) =>
    reservation === undefined ? [] : [{ merchantId, ...reservation }]
  )
  const pairs = wanted.flatMap((reservation) =>
    stocks.flatMap(({ merchantId, stockId }) =>
      merchantId === reservation.merchantId ? [{ ...reservation, stockId }] : []
    )
  )
  const since = arrays.timestamptz(pairs.map((pair) => pair.since))
  const [truths, movements, orphans] = yield* Effect.all(
    [
      session.run(readStockTruths, [merchantsOf(stocks), stocksOf(stocks)]),
      session.run(readMoved, [merchantsOf(pairs), reservationsOf(pairs), stocksOf(pairs), since]),
      session.run(readOrphans, [merchantsOf(wanted), reservationsOf(wanted)])
    ],
    { concurrency: "unbounded" }
  )
  const readings = repairReadings(unit)
  for (const [merchantId, stockId, onHand, reserved, unallocatable, sequence, recordedAt, open] of truths) {
    const truth = { onHand, reserved, unallocatable, sequence, recordedAt, open } as StockTruth
    readings.stocks.set(merchantId as string, stockId as string, truth)
  }
  for (const [merchantId, reservationId, stockId, open, sold, returned] of movements) {
    const row = { stockId, open, sold, returned } as MovedRow
    append(readings.moved, merchantId as string, reservationId as string, row)
  }
  for (const line of orphans.map(lineOf)) append(readings.orphans, line.merchantId, line.reservationId, line)
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
         COALESCE(-sum(l.on_hand_delta) FILTER (WHERE l.type IN (${sellingTypes})), 0)::bigint,
         COALESCE(sum(l.on_hand_delta) FILTER (WHERE l.type IN (${returningTypes})), 0)::bigint
  FROM ${rowsOf(["merchant_id", "reservation_id", "stock_id", "since"])} AS wanted
  JOIN inventory_ledger l
    ON l.merchant_id = wanted.merchant_id AND l.stock_id = wanted.stock_id AND l.recorded_at >= wanted.since
      AND l.reservation_id = wanted.reservation_id
  WHERE l.type IN (${typesOfReservations})
  GROUP BY l.merchant_id, l.reservation_id, l.stock_id`

// reservation_line_pkey, reservation_pkey
const readOrphans = `
  SELECT ${columnsOf(reservationLines, "l")}
  FROM ${rowsOf(["merchant_id", "reservation_id"])} AS wanted
  JOIN reservation_line l ON l.merchant_id = wanted.merchant_id AND l.reservation_id = wanted.reservation_id
  LEFT JOIN reservation r ON r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
  WHERE r.reservation_id IS NULL
  ORDER BY l.merchant_id, l.reservation_id, l.line_number`
