import { Schema } from "effect"
import { NewItemId, OutsideId, Text } from "./Identifier.ts"
import { Count, maxQuantity } from "./Quantity.ts"
import { Instant } from "./Time.ts"

/** A row of the files that `holdfast import` reads and `holdfast export` writes (CONTRACTS section 8). */

/** The columns of a CSV file and the names in a JSON line, in the order in which they are written. */
export const columns = [
  "productVariantId",
  "sku",
  "quantity",
  "locationId",
  "lotNumber",
  "expiresAt",
  "name",
  "lowStockThreshold"
] as const
export type Column = (typeof columns)[number]

const quantityMessage = `must be a whole number from -${maxQuantity} to ${maxQuantity}`
/** What the books say or shall say: a fact may have taken them below zero, and a file that was exported says so. */
const BookedQuantity = Schema.Number.annotate({ message: quantityMessage }).check(
  Schema.isInt({ message: quantityMessage }),
  Schema.isBetween({ minimum: -maxQuantity, maximum: maxQuantity }, { message: quantityMessage })
)

/** The unnamed lot is `""`. */
const LotNumber = Schema.String.annotate({ message: "must be text" }).check(
  Schema.makeFilter((lot: string) => lot === "" || isOutsideId(lot), {
    message: "must have at most 128 characters and no control characters"
  })
)
const isOutsideId = Schema.is(OutsideId)

/**
 * Without a quantity the row is of the item alone. Without a lot or location the item's one stock is meant, wherever it
 * is (several: refused), or the default location where it has none yet.
 */
export const StockFileRow = Schema.Struct({
  productVariantId: Schema.optionalKey(NewItemId),
  sku: Schema.optionalKey(NewItemId),
  quantity: Schema.optionalKey(BookedQuantity),
  locationId: Schema.optionalKey(OutsideId),
  lotNumber: Schema.optionalKey(LotNumber),
  expiresAt: Schema.optionalKey(Instant),
  name: Schema.optionalKey(Text),
  lowStockThreshold: Schema.optionalKey(Count)
}).check(
  Schema.makeFilter(({ productVariantId, sku }) =>
    productVariantId === undefined && sku === undefined
      ? { path: ["productVariantId"], issue: "is required where there is no sku" }
      : undefined
  )
)
export type StockFileRow = typeof StockFileRow.Type
