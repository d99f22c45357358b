import { Effect } from "effect"
import type { DatabaseUnavailable } from "../../../schema/Failure.ts"
import type { Db } from "../../Db.ts"
import { parameter } from "../../PostgresTypes.ts"
import type { Finding } from "./Finding.ts"

/**
 * How audit asks without standing in anybody's way: every question is one short read-only statement over a range of keys,
 * in a snapshot of its own that ends with it (DESIGN, rule 7). What rows of one transaction say of each other is asked in
 * one statement, so that it holds while others write.
 */

/** A key of two columns, the merchant first. `null` stands for the end. */
export interface Key {
  readonly merchantId: string
  readonly id: string
}
export interface Range {
  /** Exclusive. */
  readonly from: Key
  /** Inclusive; without it, to the end. */
  readonly to?: Key | undefined
  /** Only this merchant's. */
  readonly merchantId?: string | undefined
  /** Of the ledger, only the movements of the stock `to` from one place to another: one that has too many for one look. */
  readonly part?:
    | {
        readonly from: Place | null
        readonly to: Place
        /** What the movement `from` has left (`stateAfterInSql`), if it is there. */
        readonly state: string | null
      }
    | undefined
}
/** A movement's place in the ledger of its stock. The time is text, to the microsecond. */
export interface Place {
  readonly recordedAt: string
  readonly sequence: number
}

/** Before every key of a merchant, or of all of them. */
export const beginning = (merchantId: string | undefined, least: string): Key => ({
  merchantId: merchantId ?? "",
  id: least
})

/** What a statement over a range is made of: `$1` to `$9` are the range's. */
export const within = (
  { merchantId, part, to }: Range,
  key: "uuid" | "text",
  alias: string,
  column: string
): string =>
  [
    ...(part === undefined
      ? [`$6::text IS NULL AND $7::int8 IS NULL AND $8::text IS NULL AND $9::int8 IS NULL`]
      : partOf(part, alias)),
    `(${alias}.merchant_id, ${alias}.${column}) > ($1::text, $2::text::${key})`,
    to === undefined
      ? `$3::text IS NULL AND $4::text IS NULL`
      : `(${alias}.merchant_id, ${alias}.${column}) <= ($3::text, $4::text::${key})`,
    merchantId === undefined ? `$5::text IS NULL` : `${alias}.merchant_id = $5::text`
  ].join("\n      AND ")

const partOf = ({ from }: NonNullable<Range["part"]>, alias: string): ReadonlyArray<string> => [
  `${alias}.merchant_id = $3::text AND ${alias}.stock_id = $4::text::uuid`,
  from === null
    ? `$6::text IS NULL AND $7::int8 IS NULL`
    : `(${alias}.recorded_at, ${alias}.sequence) > ($6::text::timestamptz, $7::int8)`,
  `(${alias}.recorded_at, ${alias}.sequence) <= ($8::text::timestamptz, $9::int8)`
]

export const rangeParameters = ({ from, merchantId, part, to }: Range) => [
  parameter("text", from.merchantId),
  parameter("text", from.id),
  parameter("text", to?.merchantId ?? null),
  parameter("text", to?.id ?? null),
  parameter("text", merchantId ?? null),
  parameter("text", part?.from?.recordedAt ?? null),
  parameter("int8", part?.from?.sequence ?? null),
  parameter("text", part?.to.recordedAt ?? null),
  parameter("int8", part?.to.sequence ?? null)
]

export type Ask = <R extends object>(
  statement: string,
  parameters: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<R>, DatabaseUnavailable>

export const askOf =
  (db: Db["Service"]): Ask =>
  (statement, parameters) =>
    db.survey(statement, parameters)

/**
 * What is found is asked again, in another snapshot, and only what is found both times is told. A question that holds in
 * every snapshot needs it only where something is removed by age, or a partition comes and goes, in between.
 */
export const askedTwice = <E, R>(
  question: Effect.Effect<ReadonlyArray<Finding>, E, R>
): Effect.Effect<ReadonlyArray<Finding>, E, R> =>
  Effect.gen(function* () {
    const first = yield* question
    if (first.length === 0) return first
    const known = new Set(first.map(({ id }) => id))
    return (yield* question).filter(({ id }) => known.has(id))
  })

/** A question of one statement over a range. */
export const questionOf =
  <Row extends object>(
    statement: (range: Range) => string,
    findingsOf: (row: Row) => ReadonlyArray<Finding>
  ) =>
  (ask: Ask, range: Range) =>
    askedTwice(
      Effect.map(ask<Row>(statement(range), rangeParameters(range)), (rows) => rows.flatMap(findingsOf))
    )
