import { Schema } from "effect"
import { OutsideId, Text, Uuid } from "../../schema/Identifier.ts"
import { Balance, Count, Quantity } from "../../schema/Quantity.ts"
import { Instant } from "../../schema/Time.ts"
import { itemFigures } from "./ItemFigures.ts"

/** Parameters and answer of a stock adjustment, which the single call and bulk operations share. */

/** `quantitySold` is the name that the document gives to the quantity of a sale. */
export const adjustment = {
  productVariantId: OutsideId,
  quantity: Schema.optionalKey(Count),
  quantitySold: Schema.optionalKey(Quantity),
  orderId: Schema.optionalKey(OutsideId),
  locationId: Schema.optionalKey(OutsideId),
  lotNumber: Schema.optionalKey(OutsideId),
  expiresAt: Schema.optionalKey(Instant),
  reason: Schema.optionalKey(Text),
  reference: Schema.optionalKey(Text),
  occurredAt: Schema.optionalKey(Instant),
  expectedVersion: Schema.optionalKey(Count)
}
/** What is wrong with the quantity of an adjustment, if anything. */
export const checkQuantity = (
  { quantity, quantitySold }: { readonly quantity?: number; readonly quantitySold?: number },
  mayBeZero: boolean
) => {
  const given = quantity ?? quantitySold
  if (given === undefined) return { path: ["quantity"], issue: "is required where there is no quantitySold" }
  if (quantity !== undefined && quantitySold !== undefined && quantity !== quantitySold) {
    return { path: ["quantitySold"], issue: "must equal quantity where both are given" }
  }
  return given === 0 && !mayBeZero
    ? { path: ["quantity"], issue: "must be from 1 to 1000000000000 (only a CORRECTION may count 0)" }
    : undefined
}

export const AdjustedStock = Schema.Struct({
  applied: Schema.Boolean.annotate({ description: "false: it had been applied before, nothing changed" }),
  ...itemFigures,
  stocks: Schema.Array(
    Schema.Struct({
      stockId: Uuid,
      locationId: OutsideId,
      lotNumber: Schema.NullOr(Schema.String),
      quantity: Balance,
      reservedQuantity: Balance,
      unallocatableQuantity: Balance,
      version: Count
    })
  )
})
