import { Schema } from "effect"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { Quantity, Total } from "../../schema/Quantity.ts"
import { reservationStatuses } from "../../schema/Reservation.ts"
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
const linesOf = <S extends Schema.Constraint>(line: S) =>
  Schema.Array(line).check(
    Schema.isMinLength(1, { message: "must name at least one item" }),
    Schema.isMaxLength(maxLines, { message: `must have at most ${maxLines} lines` })
  )
export const orderItems = linesOf(OrderItem)
/** What is to be held, and from where as far as that is said: a line's own location goes before the request's. */
export const heldItems = linesOf(
  Schema.Struct({
    ...OrderItem.fields,
    locationId: Schema.optionalKey(OutsideId),
    lotNumber: Schema.optionalKey(OutsideId)
  })
)

const applied = Schema.Boolean.annotate({
  description: "false: a repeat, answered with what is so now; this call changed nothing"
})
export const ReservationStatus = Schema.Literals(reservationStatuses)

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
  items: heldItems,
  expiresIn: Schema.optionalKey(ExpiresIn),
  locationId: Schema.optionalKey(OutsideId),
  metadata: Schema.optionalKey(Metadata)
})
export const AmendOrder = Schema.Struct({
  orderId: OutsideId,
  items: heldItems,
  expiresIn: Schema.optionalKey(ExpiresIn)
})

/** Which stock is held, or was sold where nothing is held any more. */
export const Allocations = Schema.Array(
  Schema.Struct({
    variantId: Schema.NullOr(OutsideId),
    stockId: Uuid,
    locationId: Schema.NullOr(OutsideId),
    lotNumber: Schema.NullOr(Schema.String),
    quantity: Total
  })
).annotate({ description: "Which stock it holds or, once it is CONFIRMED, was sold from" })

export const ReservedOrder = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  status: ReservationStatus,
  applied,
  items: Schema.Array(
    Schema.Struct({
      productId: Schema.optionalKey(OutsideId),
      variantId: OutsideId,
      quantity: Quantity,
      reserved: Schema.Literal(true)
    })
  ),
  allocations: Allocations,
  expiresAt: Timestamp
})

/** `released` is true in a repeat too: nothing of it is held any more. */
export const ReleasedOrder = Schema.Struct({ orderId: OutsideId, released: Schema.Boolean, applied })

export const ConfirmOrder = Schema.Struct({
  orderId: OutsideId,
  reservationId: Schema.optionalKey(Uuid),
  items: Schema.optionalKey(orderItems)
})
/** `confirmed` is true in a repeat too: it is sold. */
export const ConfirmedOrder = Schema.Struct({
  orderId: OutsideId,
  reservationId: Uuid,
  confirmed: Schema.Boolean,
  applied,
  status: ReservationStatus.annotate({
    description: "PENDING: a part was sold, and the rest is held; CONFIRMED: nothing is held any more"
  })
})

export const ReservedVariant = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  productVariantId: OutsideId,
  quantity: Quantity,
  status: Schema.String,
  applied,
  allocations: Allocations,
  expiresAt: Timestamp
})
export const ReleasedVariant = Schema.Struct({
  orderId: OutsideId,
  released: Schema.Boolean,
  applied,
  releasedQuantity: Total,
  ...itemFigures
})
