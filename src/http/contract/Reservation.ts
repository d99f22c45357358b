import { Schema } from "effect"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { Quantity, Total } from "../../schema/Quantity.ts"
import { Timestamp } from "../../schema/Time.ts"
import { maxLines } from "./Contract.ts"
import { itemFigures } from "./ItemFigures.ts"

/** Parameters and answers of reserving and releasing, which single calls and bulk operations share. */

const expiresInMessage = "must be a whole number of seconds from 1 to 604800"
/** Seconds that a reservation lives: 1 second to 7 days. */
export const ExpiresIn = Schema.Number.annotate({ message: expiresInMessage })
  .check(
    Schema.isInt({ message: expiresInMessage }),
    Schema.isBetween({ minimum: 1, maximum: 604_800 }, { message: expiresInMessage })
  )
  .annotate({
    identifier: "ExpiresIn",
    description: "Seconds, from 1 to 604,800 (7 days)"
  })
export const defaultExpiresIn = 1_800

const OrderItem = Schema.Struct({
  productId: Schema.optionalKey(OutsideId),
  variantId: OutsideId,
  quantity: Quantity
})
export const orderItems = Schema.Array(OrderItem).check(
  Schema.isMinLength(1, { message: "must name at least one item" }),
  Schema.isMaxLength(maxLines, { message: `must have at most ${maxLines} lines` })
)

/** What a caller wants to find again, as it was given: a number that JavaScript would round is refused. */
export const Metadata = Schema.Record(Schema.String, Schema.Json).check(
  Schema.makeFilter((metadata: Readonly<Record<string, Schema.Json>>) =>
    isExact(metadata) ? undefined : "must not have whole numbers past 2^53−1: give them as text"
  )
)
const isExact = (value: Schema.Json): boolean =>
  typeof value === "number"
    ? !Number.isInteger(value) || Number.isSafeInteger(value)
    : typeof value !== "object" || value === null || Object.values(value).every(isExact)

export const ReserveOrder = Schema.Struct({
  orderId: OutsideId,
  items: orderItems,
  expiresIn: Schema.optionalKey(ExpiresIn),
  locationId: Schema.optionalKey(OutsideId),
  metadata: Schema.optionalKey(Metadata)
})
export const ReservedOrder = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  items: Schema.Array(
    Schema.Struct({
      productId: Schema.optionalKey(OutsideId),
      variantId: OutsideId,
      quantity: Quantity,
      reserved: Schema.Literal(true)
    })
  ),
  expiresAt: Timestamp
})

export const ReleasedOrder = Schema.Struct({ orderId: OutsideId, released: Schema.Boolean })

export const ReservedVariant = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  productVariantId: OutsideId,
  quantity: Quantity,
  status: Schema.String,
  expiresAt: Timestamp
})
export const ReleasedVariant = Schema.Struct({
  orderId: OutsideId,
  released: Schema.Boolean,
  releasedQuantity: Total,
  ...itemFigures
})
