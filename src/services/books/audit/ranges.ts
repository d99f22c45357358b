import { Effect } from "effect"
import type { DatabaseUnavailable } from "../../../schema/Failure.ts"
import { nilUuid } from "../../../schema/Identifier.ts"
import type { Keys } from "../../kernel/Question.ts"
import { parameter } from "../../PostgresTypes.ts"

/**
 * The ranges of keys that questions are asked over: each one short statement, in a snapshot of its own that ends with it, so
 * that nobody's clean-up waits for an audit. They follow one another without a gap, to the end: what is of no row of the
 * table that leads is in one of them, too.
 */

export type Ask = <R extends object>(
  statement: string,
  parameters: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<R>, DatabaseUnavailable>

interface Key {
  readonly merchantId: string
  readonly id: string
}
interface Range {
  readonly from: Key
  /** Without it, to the end. */
  readonly to: Key | undefined
}

/** `$1` to `$5` of a statement (`within`). */
const parametersOf = ({ from, to }: Range, merchantId: string | undefined): ReadonlyArray<unknown> => [
  parameter("text", from.merchantId),
  parameter("text", from.id),
  parameter("text", to?.merchantId ?? null),
  parameter("text", to?.id ?? null),
  parameter("text", merchantId ?? null)
]

type Use<A> = (given: A) => Effect.Effect<void, DatabaseUnavailable>
type Parameters = ReadonlyArray<unknown>

/** A table's keys, from range to range. */
export const eachRange = Effect.fnUntraced(function* (
  ask: Ask,
  { column, rows, table, type }: Keys,
  merchantId: string | undefined,
  use: Use<Parameters>
) {
  let from: Key | undefined = { merchantId: merchantId ?? "", id: type === "uuid" ? nilUuid : "" }
  while (from !== undefined) {
    const [to]: ReadonlyArray<Key> = yield* ask<Key>(
      `SELECT t.merchant_id AS "merchantId", t.${column}::text AS id
       FROM ${table} t
       WHERE (t.merchant_id, t.${column}) > ($1::text, $2::text::${type}) AND ($3::text IS NULL OR t.merchant_id = $3)
       ORDER BY t.merchant_id, t.${column}
       OFFSET ${rows - 1}
       LIMIT 1`,
      [...parametersOf({ from, to: undefined }, undefined).slice(0, 2), parameter("text", merchantId ?? null)]
    )
    yield* use(parametersOf({ from, to }, merchantId))
    from = to
  }
})

/** A range of stocks with about so many movements is one question, and so is a part of a stock with many more. */
const movementsPerRange = 20_000
const stocksPerRange = 2_000
/** Stocks whose keys are read at once. */
const stocksPerPage = 10_000
/** Movements of one stock that are added up at once; of a stock with more, a share of what they are about. */
const movementsPerShare = 250_000

/** Ranges of stocks, with the parameters of each kind of walk over them (`Walk`). */
export interface StockRange {
  readonly stocks: number
  readonly movements: number
  readonly whole: Parameters
  readonly parts: Effect.Effect<ReadonlyArray<Parameters>, DatabaseUnavailable>
  readonly shares: ReadonlyArray<Parameters>
}

export const sharesOf = (range: Parameters, rows: number, perShare: number): ReadonlyArray<Parameters> => {
  const shares = Math.max(1, Math.ceil(rows / perShare))
  return Array.from({ length: shares }, (_, share) => [...range, parameter("int4", share), parameter("int4", shares)])
}
/** A range of everything. */
export const everything = (merchantId: string | undefined): Parameters =>
  parametersOf({ from: { merchantId: merchantId ?? "", id: nilUuid }, to: undefined }, merchantId)

export const eachRangeOfStocks = Effect.fnUntraced(function* (
  ask: Ask,
  merchantId: string | undefined,
  use: Use<StockRange>
) {
  let from: Key = { merchantId: merchantId ?? "", id: nilUuid }
  for (;;) {
    const page = yield* ask<Key & { readonly movements: number }>(stocksStatement, [
      ...parametersOf({ from, to: undefined }, undefined).slice(0, 2),
      parameter("text", merchantId ?? null)
    ])
    let stocks = 0
    let movements = 0
    for (const [index, stock] of page.entries()) {
      stocks += 1
      movements += Math.max(0, stock.movements)
      const next = page[index + 1]
      const isFull = movements >= movementsPerRange || stocks >= stocksPerRange
      // A stock with very many movements is a range of its own.
      if (!isFull && next !== undefined && next.movements < movementsPerRange) continue
      const to = { merchantId: stock.merchantId, id: stock.id }
      yield* use(rangeOfStocks(ask, { from, to }, merchantId, stocks, movements))
      from = to
      stocks = 0
      movements = 0
    }
    if (page.length < stocksPerPage) break
  }
  // Behind the last stock there may be movements of none.
  yield* use(rangeOfStocks(ask, { from, to: undefined }, merchantId, 0, 0))
})

const rangeOfStocks = (
  ask: Ask,
  range: Range,
  merchantId: string | undefined,
  stocks: number,
  movements: number
): StockRange => {
  const whole = parametersOf(range, merchantId)
  const isLong = range.to !== undefined && stocks === 1 && movements > 2 * movementsPerRange
  return {
    stocks,
    movements,
    whole,
    parts: isLong ? partsOf(ask, whole, range.to) : Effect.succeed([[...whole, ...placesOf(null, null)]]),
    shares: sharesOf(whole, movements, movementsPerShare)
  }
}

// stock_pkey, ledger_checkpoint_pkey
const stocksStatement = `
  SELECT s.merchant_id AS "merchantId", s.stock_id AS id, s.sequence - COALESCE((
           SELECT c.sequence
           FROM ledger_checkpoint c
           WHERE c.merchant_id = s.merchant_id AND c.stock_id = s.stock_id
           ORDER BY c.sequence DESC
           LIMIT 1
         ), 0) AS movements
  FROM stock s
  WHERE (s.merchant_id, s.stock_id) > ($1::text, $2::text::uuid) AND ($3::text IS NULL OR s.merchant_id = $3)
  ORDER BY s.merchant_id, s.stock_id
  LIMIT ${stocksPerPage}`

/** A movement's place in the ledger of its stock. The time is text, to the microsecond. */
interface Place {
  readonly at: string
  readonly sequence: number
}
const placesOf = (from: Place | null, to: Place | null): Parameters =>
  [from, to].flatMap((place) => [
    parameter("text", place?.at ?? null),
    parameter("int8", place?.sequence ?? null)
  ])

/** The movements of one stock, in ranges of its sequence; the last goes on to the end. */
const partsOf = Effect.fnUntraced(function* (ask: Ask, whole: Parameters, { id, merchantId }: Key) {
  const parts: Array<Parameters> = []
  let from: Place | null = null
  for (;;) {
    const [to]: ReadonlyArray<Place> = yield* ask<Place>(placeStatement, [
      parameter("text", merchantId),
      parameter("text", id),
      ...placesOf(from, null).slice(0, 2)
    ])
    parts.push([...whole, ...placesOf(from, to ?? lastPlace)])
    if (to === undefined) return parts
    from = to
  }
})
const lastPlace: Place = { at: "infinity", sequence: 0 }

// inventory_ledger_pkey
const placeStatement = `
  SELECT l.recorded_at::text AS at, l.sequence
  FROM inventory_ledger l
  WHERE l.merchant_id = $1::text AND l.stock_id = $2::text::uuid
    AND ($3::text IS NULL OR (l.recorded_at, l.sequence) > ($3::text::timestamptz, $4::int8))
  ORDER BY l.recorded_at, l.sequence
  OFFSET ${movementsPerRange - 1}
  LIMIT 1`
