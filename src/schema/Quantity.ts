import { Schema } from "effect"

/** The most that one movement may carry: 10^12 base units (CONTRACTS section 1). */
export const maxQuantity = 1_000_000_000_000

const wholeNumber = (minimum: number) => {
  const message = `must be a whole number from ${minimum} to ${maxQuantity}`
  return Schema.Number.annotate({ message }).check(
    Schema.isInt({ message }),
    Schema.isBetween({ minimum, maximum: maxQuantity }, { message })
  )
}

/** A quantity that moves: a whole number of the item's base unit, 1…10^12. */
export const Quantity = wholeNumber(1).annotate({
  identifier: "Quantity",
  description: "A whole number of the item's base unit, from 1 to 10^12"
})

/** A counted quantity: 0…10^12. */
export const Count = wholeNumber(0).annotate({
  identifier: "Count",
  description: "A whole number of the item's base unit, from 0 to 10^12"
})

/** A sum over lines or stocks: past what one movement may carry, within what a balance may reach. */
export const Total = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)).annotate({
  identifier: "Total",
  description: "A whole number of the item's base unit, from 0"
})

/** A balance. Signed, because a fact may take it below zero; never past 2^53−1. */
export const Balance = Schema.Int.annotate({
  identifier: "Balance",
  description: "A signed whole number of the item's base unit"
})
