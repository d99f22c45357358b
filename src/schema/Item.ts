import { Schema } from "effect"

/** How an item is named from outside, or by us. */
export const ItemRef = Schema.Union([
  Schema.Struct({ variantId: Schema.String }),
  Schema.Struct({ sku: Schema.String }),
  Schema.Struct({ itemId: Schema.String })
])
export type ItemRef = typeof ItemRef.Type

/** The name that a reference carries. */
export const nameOf = (ref: ItemRef): string =>
  "variantId" in ref ? ref.variantId : "sku" in ref ? ref.sku : ref.itemId

export const itemKinds = ["PRODUCT", "MATERIAL"] as const
export const ItemKind = Schema.Literals(itemKinds)
export type ItemKind = typeof ItemKind.Type

export const itemStatuses = [
  "AWAITING_INITIAL_STOCK",
  "IN_STOCK",
  "LOW_STOCK",
  "OUT_OF_STOCK",
  "DISCONTINUED"
] as const
export type ItemStatus = (typeof itemStatuses)[number]

/** An item's status from its own flags and what is available of it (CONTRACTS section 1). `statusInSql` is the same rule. */
export const statusOf = (
  item: { readonly discontinued: boolean; readonly initialized: boolean; readonly lowStockThreshold: number },
  available: number
): ItemStatus => {
  if (item.discontinued) return "DISCONTINUED"
  if (!item.initialized) return "AWAITING_INITIAL_STOCK"
  if (available <= 0) return "OUT_OF_STOCK"
  return available <= item.lowStockThreshold ? "LOW_STOCK" : "IN_STOCK"
}

/** The same for the row of an item in a statement. A test compares the two. */
export const statusInSql = (item: string, available: string): string => `CASE
      WHEN ${item}.discontinued THEN 'DISCONTINUED'
      WHEN NOT ${item}.initialized THEN 'AWAITING_INITIAL_STOCK'
      WHEN ${available} <= 0 THEN 'OUT_OF_STOCK'
      WHEN ${available} <= ${item}.low_stock_threshold THEN 'LOW_STOCK'
      ELSE 'IN_STOCK'
    END`

const Integer = Schema.Number
const named = {
  itemId: Schema.String,
  productVariantId: Schema.NullOr(Schema.String),
  sku: Schema.NullOr(Schema.String)
}

/** An item's figures in an answer of the kernel. Quantities are of the item's base unit. */
const figures = {
  ...named,
  quantity: Integer,
  reservedQuantity: Integer,
  unallocatableQuantity: Integer,
  availableQuantity: Integer,
  status: Schema.Literals(itemStatuses)
}
export const ItemFigures = Schema.Struct(figures)
export type ItemFigures = typeof ItemFigures.Type

export const StockFigures = Schema.Struct({
  stockId: Schema.String,
  locationId: Schema.String,
  lotNumber: Schema.NullOr(Schema.String),
  quantity: Integer,
  reservedQuantity: Integer,
  unallocatableQuantity: Integer,
  version: Integer
})
export type StockFigures = typeof StockFigures.Type

/** An item with all its attributes. Times are epoch milliseconds. */
export const ItemAnswer = Schema.Struct({
  ...figures,
  kind: ItemKind,
  productId: Schema.NullOr(Schema.String),
  name: Schema.NullOr(Schema.String),
  unit: Schema.String,
  stocked: Schema.Boolean,
  lowStockThreshold: Integer,
  safetyStock: Integer,
  countTolerance: Integer,
  createdAt: Integer,
  updatedAt: Integer
})
export type ItemAnswer = typeof ItemAnswer.Type

export const LocationAnswer = Schema.Struct({
  locationId: Schema.String,
  name: Schema.NullOr(Schema.String),
  isDefault: Schema.Boolean,
  /** Its place after the default location, which is 0. */
  order: Integer,
  retired: Schema.Boolean,
  createdAt: Integer
})
export type LocationAnswer = typeof LocationAnswer.Type
