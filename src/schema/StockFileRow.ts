import { Schema } from "effect"
import { NewItemId, OutsideId, Text } from "./Identifier.ts"
import { Count, maxQuantity } from "./Quantity.ts"
import { DayOrInstant } from "./Time.ts"

/** A row of the files that `holdfast import` reads and `holdfast export` writes (CONTRACTS section 8). */

/** The columns of a CSV file and the names in a JSON line that are written, in this order. */
export const writtenColumns = [
  "productVariantId",
  "sku",
  "quantity",
  "locationId",
  "lotNumber",
  "expiresAt",
  "name",
  "lowStockThreshold",
  "safetyStock",
  "countTolerance",
  "productId",
  "stocked"
] as const
/** Those that are read: what a row expects to find is not what the books hold. */
export const columns = [...writtenColumns, "expectedQuantity", "expectedVersion"] as const
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
  expiresAt: Schema.optionalKey(DayOrInstant),
  name: Schema.optionalKey(Text),
  lowStockThreshold: Schema.optionalKey(Count),
  safetyStock: Schema.optionalKey(Count),
  countTolerance: Schema.optionalKey(Count),
  productId: Schema.optionalKey(OutsideId),
  stocked: Schema.optionalKey(Schema.Boolean.annotate({ message: "must be true or false" })),
  /** What the books must say for the row to be loaded: of a stock that is not there yet both are 0. */
  expectedQuantity: Schema.optionalKey(BookedQuantity),
  expectedVersion: Schema.optionalKey(Count)
}).check(
  Schema.makeFilter(({ expectedQuantity, expectedVersion, productVariantId, quantity, sku }) => {
    if (productVariantId === undefined && sku === undefined) {
      return { path: ["productVariantId"], issue: "is required where there is no sku" }
    }
    const expects = expectedQuantity ?? expectedVersion
    return expects !== undefined && quantity === undefined
      ? { path: ["quantity"], issue: "is required where the row expects a quantity or a version" }
      : undefined
  })
)
export type StockFileRow = typeof StockFileRow.Type
