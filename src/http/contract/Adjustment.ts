import { Schema } from "effect"
import { kindsOfDiscrepancy } from "../../schema/Discrepancy.ts"
import { OutsideId, Text, Uuid } from "../../schema/Identifier.ts"
import { type ChangeType, ReturnCondition } from "../../schema/Movement.ts"
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
  expiresAt: Schema.optionalKey(
    Schema.NullOr(Instant).annotate({
      description:
        "The lot's expiry: of goods that come in (RECEIPT, RETURN), or corrected by a CORRECTION, where null says that the lot does not expire"
    })
  ),
  condition: Schema.optionalKey(
    ReturnCondition.annotate({
      description: "Of a RETURN: what comes back DAMAGED is unallocatable"
    })
  ),
  reason: Schema.optionalKey(Text),
  reference: Schema.optionalKey(Text),
  occurredAt: Schema.optionalKey(Instant),
  expectedVersion: Schema.optionalKey(Count)
}
interface Adjusting {
  readonly quantity?: number
  readonly quantitySold?: number
  readonly expiresAt?: number | null
  readonly condition?: ReturnCondition
}

/** What is wrong with an adjustment of that type, if anything. */
export const checkAdjustment = (given: Adjusting, changeType: ChangeType) =>
  checkQuantity(given, changeType === "CORRECTION") ??
  checkExpiry(given, changeType) ??
  (given.condition !== undefined && changeType !== "RETURN"
    ? { path: ["condition"], issue: "is of a RETURN only" }
    : undefined)

const checkQuantity = ({ quantity, quantitySold }: Adjusting, mayBeZero: boolean) => {
  const given = quantity ?? quantitySold
  if (given === undefined) return { path: ["quantity"], issue: "is required where there is no quantitySold" }
  if (quantity !== undefined && quantitySold !== undefined && quantity !== quantitySold) {
    return { path: ["quantitySold"], issue: "must equal quantity where both are given" }
  }
  return given === 0 && !mayBeZero
    ? { path: ["quantity"], issue: "must be from 1 to 1000000000000 (only a CORRECTION may count 0)" }
    : undefined
}

const comesWithExpiry: ReadonlySet<ChangeType> = new Set(["RECEIPT", "RETURN", "CORRECTION"])
const checkExpiry = ({ expiresAt }: Adjusting, changeType: ChangeType) => {
  if (expiresAt === undefined) return undefined
  if (!comesWithExpiry.has(changeType)) {
    return { path: ["expiresAt"], issue: "is of a RECEIPT, RETURN or CORRECTION only" }
  }
  return expiresAt === null && changeType !== "CORRECTION"
    ? { path: ["expiresAt"], issue: "must be a time: only a CORRECTION may say that a lot does not expire" }
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
  ),
  discrepancies: Schema.Array(
    Schema.Struct({ discrepancyId: Uuid, kind: Schema.Literals(kindsOfDiscrepancy) })
  ).annotate({ description: "What it contradicts: the discrepancies that it opened, or adds to" })
})
