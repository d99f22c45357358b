import { Schema } from "effect"
import { OutsideId, Text } from "./Identifier.ts"
import type { ReturnCondition } from "./Movement.ts"
import { Count, Quantity } from "./Quantity.ts"

/**
 * What other services say to us (CONTRACTS section 5): the payload of each topic. A payload stands at the top level of
 * the message's JSON object, or in its `data`. Fields that are not named here are ignored, and one that may be left out
 * may as well be null. The contract of /asyncapi.json is made of these.
 */

/** Lines of one message: as many as the kernel can lock in one batch with others. */
export const messageLinesMax = 1_000

const optional = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const lines = <S extends Schema.Constraint>(line: S) =>
  Schema.Array(line).check(
    Schema.isMinLength(1, { message: "must name at least one item" }),
    Schema.isMaxLength(messageLinesMax, { message: `must have at most ${messageLinesMax} lines` })
  )

/** Of a fact: a line of 0 is nothing, and the others count (CONTRACTS section 5). */
const CountOfLine = Count

/** A sale that has been paid: a fact. */
export const PaymentSuccess = Schema.Struct({
  saleOrderId: OutsideId,
  items: lines(
    Schema.Struct({
      saleOrderItemId: optional(OutsideId),
      productVariantId: OutsideId,
      quantity: CountOfLine,
      locationId: optional(OutsideId)
    })
  ),
  kitchenTickets: optional(
    Schema.Array(
      Schema.Struct({
        kitchenTicketItemId: OutsideId,
        productVariantId: OutsideId,
        quantity: CountOfLine
      })
    ).check(Schema.isMaxLength(messageLinesMax, { message: `must have at most ${messageLinesMax} lines` }))
  )
}).annotate({ identifier: "PaymentSuccess" })
export type PaymentSuccess = typeof PaymentSuccess.Type

/** A paid sale as the kernel records it, by message or over HTTP. */
export const paidSale = ({ items, saleOrderId }: PaymentSuccess) => ({
  orderId: saleOrderId,
  lines: items.map(({ locationId, productVariantId, quantity, saleOrderItemId }) => ({
    productVariantId,
    quantity,
    locationId: locationId ?? undefined,
    saleOrderItemId: saleOrderItemId ?? undefined
  }))
})

export const ProductVariantCreated = Schema.Struct({
  productVariantId: OutsideId,
  sku: optional(OutsideId),
  productId: optional(OutsideId),
  name: optional(Text),
  initialStock: optional(Count)
}).annotate({ identifier: "ProductVariantCreated" })
export type ProductVariantCreated = typeof ProductVariantCreated.Type

export const ProductVariantUpdated = Schema.Struct({
  productVariantId: OutsideId,
  status: optional(Text),
  isOrderable: optional(Schema.Boolean)
}).annotate({ identifier: "ProductVariantUpdated" })
export type ProductVariantUpdated = typeof ProductVariantUpdated.Type

export const ProductVariantDeleted = Schema.Struct({ productVariantId: OutsideId }).annotate({
  identifier: "ProductVariantDeleted"
})
export type ProductVariantDeleted = typeof ProductVariantDeleted.Type

/** The order service says `variantId`, the return service `productVariantId`: both name the same. */
const namesVariant = Schema.makeFilter(
  ({
    productVariantId,
    variantId
  }: {
    readonly variantId?: string | null
    readonly productVariantId?: string | null
  }) =>
    (variantId ?? productVariantId) === undefined || (variantId ?? productVariantId) === null
      ? "must name a variantId"
      : variantId !== undefined &&
          variantId !== null &&
          productVariantId !== undefined &&
          productVariantId !== null &&
          variantId !== productVariantId
        ? "must not name two variants"
        : undefined
)

const OrderLine = Schema.Struct({
  productId: optional(OutsideId),
  variantId: optional(OutsideId),
  productVariantId: optional(OutsideId),
  quantity: Quantity
}).check(namesVariant)

export const OrderCreated = Schema.Struct({
  orderId: OutsideId,
  items: lines(OrderLine),
  reservationId: optional(OutsideId)
}).annotate({ identifier: "OrderCreated" })
export type OrderCreated = typeof OrderCreated.Type

/** order.cancelled, order.payment-failed and order.fraudulent. */
export const OrderEnded = Schema.Struct({ orderId: OutsideId, reason: optional(Text) }).annotate({
  identifier: "OrderEnded"
})
export type OrderEnded = typeof OrderEnded.Type

/** Any word; what is `DAMAGED` comes back, and is not for sale. */
const Condition = optional(Text)
export const returnConditionOf = (condition: string | null | undefined): ReturnCondition =>
  condition?.trim().toUpperCase() === "DAMAGED" ? "DAMAGED" : "GOOD"

const ReturnedLine = Schema.Struct({
  variantId: optional(OutsideId),
  productVariantId: optional(OutsideId),
  quantity: CountOfLine,
  condition: Condition
}).check(namesVariant)

/** order.returned and return.processed: several items, or one of them at the top level. */
export const ItemsReturned = Schema.Struct({
  orderId: optional(OutsideId),
  items: optional(lines(ReturnedLine)),
  productVariantId: optional(OutsideId),
  quantityReturned: optional(CountOfLine),
  condition: Condition
})
  .check(
    Schema.makeFilter(({ items, productVariantId, quantityReturned }) =>
      items !== undefined && items !== null
        ? undefined
        : productVariantId === undefined ||
            productVariantId === null ||
            quantityReturned === undefined ||
            quantityReturned === null
          ? "must name items, or a productVariantId and its quantityReturned"
          : undefined
    )
  )
  .annotate({ identifier: "ItemsReturned" })
export type ItemsReturned = typeof ItemsReturned.Type

export const ConfirmRequested = Schema.Struct({ orderId: OutsideId, reservationId: OutsideId }).annotate({
  identifier: "ConfirmRequested"
})
export type ConfirmRequested = typeof ConfirmRequested.Type

/** Of a line that names its variant in one of two ways. */
export const variantOf = (line: {
  readonly variantId?: string | null
  readonly productVariantId?: string | null
}): string => line.variantId ?? line.productVariantId!

/** Status words of catalogues for a variant that is not sold any more. */
const discontinuedStatuses: ReadonlySet<string> = new Set(["ARCHIVED", "DELETED", "DISCONTINUED", "RETIRED"])

/** Undefined where neither field is given. A variant that may not be ordered may not be reserved either. */
export const isDiscontinued = (status?: string, isOrderable?: boolean): boolean | undefined =>
  status === undefined && isOrderable === undefined
    ? undefined
    : isOrderable === false || (status !== undefined && discontinuedStatuses.has(status.trim().toUpperCase()))
