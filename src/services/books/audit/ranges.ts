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

/** A range of rows with about so many movements or events is one question, and so is a part of a stock with many more. */
const weightPerRange = 20_000
const rowsPerRange = 2_000
/** More ranges than these are wider instead: each has a part in a temporary table (`partition`). */
const rangesMax = 128
/** Rows whose keys are read at once. */
const rowsPerPage = 10_000
/** Movements of one stock (events of one item) that are compared at once; of more, a share of what they are about. */
const weightPerShare = 250_000

/** A range of rows, with its parameters for each kind of walk over it (`Walk`). */
export interface WeightedRange extends Range {
  readonly rows: number
  readonly weight: number
  readonly whole: Parameters
  readonly parts: Effect.Effect<ReadonlyArray<Parameters>, DatabaseUnavailable>
  readonly shares: ReadonlyArray<Parameters>
}

/** Ranges of stocks by the numbers of their movements, or of items by those of their events. */
export const weightedRanges = Effect.fnUntraced(function* (
  ask: Ask,
  table: keyof typeof weights,
  merchantId: string | undefined
) {
  const rangeOf = (from: Key, to: Key | undefined, rows: number, weight: number): WeightedRange => {
    const whole = parametersOf({ from, to }, merchantId)
    const shares = Math.max(1, Math.ceil(weight / weightPerShare))
    const isLong = table === "stock" && to !== undefined && rows === 1 && weight > 2 * weightPerRange
    return {
      from,
      to,
      rows,
      weight,
      whole,
      parts: isLong ? partsOf(ask, whole, to) : Effect.succeed([[...whole, ...placesOf(null, null)]]),
      shares: Array.from({ length: shares }, (_, share) => [
        ...whole,
        parameter("int4", share),
        parameter("int4", shares)
      ])
    }
  }
  const ranges: Array<WeightedRange> = []
  const [all] = yield* ask<{ rows: number; weight: number }>(sumStatement(table), [
    parameter("text", merchantId ?? null)
  ])
  const weightMax = Math.max(weightPerRange, all!.weight / rangesMax)
  const rowsMax = Math.max(rowsPerRange, all!.rows / rangesMax)
  let from: Key = { merchantId: merchantId ?? "", id: nilUuid }
  for (;;) {
    const page = yield* ask<Key & { readonly weight: number }>(weightsStatement(table), [
      ...parametersOf({ from, to: undefined }, undefined).slice(0, 2),
      parameter("text", merchantId ?? null)
    ])
    let rows = 0
    let weight = 0
    for (const [index, row] of page.entries()) {
      rows += 1
      weight += Math.max(0, row.weight)
      const next = page[index + 1]
      const isFull = weight >= weightMax || rows >= rowsMax
      // A row with very much is a range of its own.
      if (!isFull && next !== undefined && next.weight < weightMax) continue
      const to = { merchantId: row.merchantId, id: row.id }
      ranges.push(rangeOf(from, to, rows, weight))
      from = to
      rows = 0
      weight = 0
    }
    if (page.length < rowsPerPage) break
  }
  // Behind the last row there may be what is of none.
  return [...ranges, rangeOf(from, undefined, 0, 0)]
})

/**
 * A temporary table for rows that come in any order, with a part for each range: nothing is sorted and no index made.
 * `columns` begin with a merchant, the key of the ranges, and what is never null. `look` makes the table's name mean the
 * part of one range (or all of it), and rows go in as `<name>_row`.
 */
export const partition = Effect.fnUntraced(function* (
  own: Ask,
  name: string,
  columns: Readonly<Record<string, string>>,
  ranges: ReadonlyArray<Range>
) {
  const keys = Object.keys(columns).slice(0, 3).join(", ")
  const definitions = Object.entries(columns).map(([column, type]) => `${column} ${type}`)
  yield* own(
    `CREATE TEMPORARY TABLE ${name}_row (${definitions.join(", ")}) PARTITION BY RANGE (${keys})`,
    []
  )
  for (const [index, { from, to }] of ranges.entries()) {
    yield* own(
      `CREATE TEMPORARY TABLE ${name}_${index} PARTITION OF ${name}_row
       FOR VALUES FROM ${bound(index === 0 ? undefined : from, "MINVALUE")} TO ${bound(to, "MAXVALUE")}`,
      []
    )
  }
  yield* own(`CREATE TEMPORARY TABLE ${name}_none PARTITION OF ${name}_row DEFAULT`, [])
  return (index: number | "row") =>
    own(`CREATE OR REPLACE TEMPORARY VIEW ${name} AS SELECT * FROM ${name}_${index}`, [])
})

const bound = (key: Key | undefined, end: string): string =>
  key === undefined
    ? `(${end}, ${end}, ${end})`
    : `('${key.merchantId.replaceAll("'", "''")}', '${key.id}', MAXVALUE)`

/** Of a row `t`. */
const weights = {
  // ledger_checkpoint_pkey
  stock: `t.sequence - COALESCE((
           SELECT c.sequence
           FROM ledger_checkpoint c
           WHERE c.merchant_id = t.merchant_id AND c.stock_id = t.stock_id
           ORDER BY c.sequence DESC
           LIMIT 1
         ), 0)`,
  item: "t.event_sequence"
}

// stock_pkey, item_pkey
const sumStatement = (table: keyof typeof weights): string => `
  SELECT count(*) AS rows, COALESCE(sum(${weights[table]}), 0)::bigint AS weight
  FROM ${table} t
  WHERE $1::text IS NULL OR t.merchant_id = $1`

// stock_pkey, item_pkey
const weightsStatement = (table: keyof typeof weights): string => `
  SELECT t.merchant_id AS "merchantId", t.${table}_id AS id, ${weights[table]} AS weight
  FROM ${table} t
  WHERE (t.merchant_id, t.${table}_id) > ($1::text, $2::text::uuid) AND ($3::text IS NULL OR t.merchant_id = $3)
  ORDER BY t.merchant_id, t.${table}_id
  LIMIT ${rowsPerPage}`

/** A movement's place in the ledger of its stock. The time is text, to the microsecond. */
interface Place {
  readonly at: string
  readonly sequence: number
}
const lastPlace: Place = { at: "infinity", sequence: 0 }
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

// inventory_ledger_pkey
const placeStatement = `
  SELECT l.recorded_at::text AS at, l.sequence
  FROM inventory_ledger l
  WHERE l.merchant_id = $1::text AND l.stock_id = $2::text::uuid
    AND ($3::text IS NULL OR (l.recorded_at, l.sequence) > ($3::text::timestamptz, $4::int8))
  ORDER BY l.recorded_at, l.sequence
  OFFSET ${weightPerRange - 1}
  LIMIT 1`
