import { Schema } from "effect"
import { OutsideId } from "./Identifier.ts"

/**
 * Records of captured tables as Debezium writes them: only the key and the few columns that are used are looked at, the
 * others are the business of whoever owns the table.
 */

/** A key column, in the row's own words: text, or a number (one past 2^53−1 was read as text). */
export const RowId = Schema.Union([OutsideId, Schema.Int])

/** What stands for a large value that did not change: nothing is said about it. */
export const unavailableValue = "__debezium_unavailable_value"

/** Null and empty are no sku. */
const SkuColumn = Schema.NullOr(Schema.Union([Schema.Literal(""), OutsideId]))

export const RowKey = Schema.Struct({ id: RowId }).annotate({ identifier: "RowKey" })

export const ProductVariantRow = Schema.Struct({
  id: RowId,
  merchant_id: Schema.optionalKey(Schema.NullOr(RowId)),
  sku: Schema.optionalKey(SkuColumn),
  status: Schema.optionalKey(Schema.NullOr(Schema.String))
}).annotate({ identifier: "ProductVariantRow" })
export type ProductVariantRow = typeof ProductVariantRow.Type

export const MerchantRow = Schema.Struct({ id: RowId }).annotate({ identifier: "MerchantRow" })
export type MerchantRow = typeof MerchantRow.Type

/** r: read by a snapshot, c: created, u: updated, d: deleted. A delete carries the row's key alone. */
export const changeOf = <S extends Schema.Constraint>(row: S) =>
  Schema.Struct({
    op: Schema.Literals(["r", "c", "u", "d"]),
    before: Schema.optionalKey(Schema.Unknown),
    after: Schema.NullOr(row)
  })
