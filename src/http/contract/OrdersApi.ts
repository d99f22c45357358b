import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { pageQuery } from "../../schema/Page.ts"
import { Balance, Quantity, Total } from "../../schema/Quantity.ts"
import { Timestamp } from "../../schema/Time.ts"
import { ExampleCall, RequiredPermission, envelope } from "./Contract.ts"
import { problem } from "./Problem.ts"
import {
  AmendOrder,
  ConfirmOrder,
  ConfirmedOrder,
  ExpiresIn,
  ReleasedOrder,
  ReservationStatus,
  ReserveOrder,
  ReservedOrder,
  orderItems
} from "./Reservation.ts"

/** The contract of the order service: `/api/v1/inventory/…`, answers in an envelope (CONTRACTS 4.1). */

export const CheckAvailability = Schema.Struct({ items: orderItems })
export const AvailabilityOfItems = Schema.Struct({
  available: Schema.Boolean,
  items: Schema.Array(
    Schema.Struct({
      productId: Schema.optionalKey(OutsideId),
      variantId: OutsideId,
      available: Schema.Boolean,
      requestedQuantity: Quantity,
      availableQuantity: Total
    })
  )
})

export const ReservationView = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  status: ReservationStatus,
  expiresAt: Timestamp,
  createdAt: Timestamp,
  updatedAt: Timestamp,
  metadata: Schema.Json,
  lines: Schema.Array(
    Schema.Struct({
      itemId: Uuid,
      variantId: Schema.NullOr(OutsideId),
      sku: Schema.NullOr(OutsideId),
      quantity: Balance,
      open: Balance,
      sold: Balance,
      released: Balance,
      returned: Balance,
      /** Which stock the line holds: null for an item that is not stocked. */
      allocation: Schema.NullOr(
        Schema.Struct({
          stockId: Uuid,
          locationId: Schema.NullOr(OutsideId),
          lotNumber: Schema.NullOr(Schema.String)
        })
      )
    })
  )
})

export const ExtendedOrder = Schema.Struct({ orderId: OutsideId, reservationId: Uuid, expiresAt: Timestamp })
export const ReservationList = Schema.Struct({
  success: Schema.Literal(true),
  data: Schema.Array(ReservationView),
  nextCursor: Schema.NullOr(Schema.String),
  meta: Schema.Struct({ timestamp: Timestamp })
})

const reserving = [
  problem("InsufficientStock"),
  problem("ReservationFailed"),
  problem("LocationNotFound"),
  problem("StockNotFound")
] as const

export class OrdersApi extends HttpApiGroup.make("orders")
  .add(
    HttpApiEndpoint.post("checkAvailability", "/check-availability", {
      payload: CheckAvailability,
      success: envelope(AvailabilityOfItems)
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, { body: { items: [{ variantId: "espresso-cup", quantity: 2 }] } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Could these items be reserved now?",
          description:
            "A hint, not a promise: only reserving holds stock. An unknown variant is not available (0)."
        })
      ),
    HttpApiEndpoint.post("reserve", "/reserve", {
      payload: ReserveOrder,
      success: [
        envelope(ReservedOrder).pipe(HttpApiSchema.status(201)),
        envelope(ReservedOrder).annotate({
          description: "The order holds the same items already, or was sold them (see status)"
        })
      ],
      error: reserving
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, {
        body: {
          orderId: "order-1001",
          items: [{ variantId: "espresso-cup", quantity: 2 }],
          expiresIn: 1800,
          metadata: { channel: "web" }
        }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Reserve the items of an order",
          description:
            "All lines or none, each from its own location and lot if it names them. Idempotent by order: the items are compared with what the order holds now, or was sold once it is CONFIRMED; the same ones are answered with it (200, applied: false), others are refused (422): amend changes what is held."
        })
      ),
    HttpApiEndpoint.post("release", "/release", {
      payload: Schema.Struct({ orderId: OutsideId }),
      success: envelope(ReleasedOrder),
      error: [
        problem("ReservationNotFound"),
        problem("ReservationAlreadyConfirmed"),
        problem("ItemNotFound"),
        problem("ReleaseExceedsReservation")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, { body: { orderId: "order-1002" } })
      .annotateMerge(OpenApi.annotations({ summary: "Give back what an order holds" })),
    HttpApiEndpoint.post("confirm", "/confirm", {
      payload: ConfirmOrder,
      success: envelope(ConfirmedOrder),
      error: [
        problem("ReservationNotFound"),
        problem("ReservationExpired"),
        problem("ReservationCancelled"),
        problem("ConfirmExceedsReservation"),
        problem("ReservationFailed")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, { body: { orderId: "order-1001" } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Sell what an order holds, or a part of it",
          description:
            "With items, that part is sold and the rest stays PENDING; confirming a part is repeatable only with an Idempotency-Key. Idempotent by order otherwise: a repeat answers confirmed: true, applied: false."
        })
      ),
    HttpApiEndpoint.post("amend", "/amend", {
      payload: AmendOrder,
      success: envelope(ReservedOrder),
      error: [
        ...reserving,
        problem("ReservationNotFound"),
        problem("ReservationAlreadyConfirmed"),
        problem("ReservationExpired"),
        problem("ReservationCancelled")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, {
        body: { orderId: "order-1001", items: [{ variantId: "espresso-cup", quantity: 3 }], expiresIn: 1800 }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Change what an order holds to these items",
          description:
            "In one step: the difference is taken or given back, first-expired-first-out. Short, or not PENDING: 409, and everything stays as it was. Repeating it is harmless (applied: false). With expiresIn it is held for that long from now."
        })
      ),
    HttpApiEndpoint.post("extend", "/extend", {
      payload: Schema.Struct({ orderId: OutsideId, expiresIn: ExpiresIn }),
      success: envelope(ExtendedOrder),
      error: [
        problem("ReservationNotFound"),
        problem("ReservationAlreadyConfirmed"),
        problem("ReservationExpired"),
        problem("ReservationCancelled")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, { body: { orderId: "order-1001", expiresIn: 3600 } })
      .annotateMerge(OpenApi.annotations({ summary: "Hold an order's items longer, counted from now" })),
    HttpApiEndpoint.get("getReservation", "/reservations/:id", {
      params: { id: Uuid.annotate({ description: "The reservationId of the answer that made it" }) },
      success: envelope(ReservationView),
      error: problem("ReservationNotFound")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { id: "01a1c0de-0000-7000-8000-000000000001" } })
      .annotateMerge(OpenApi.annotations({ summary: "A reservation with its lines and allocations" })),
    HttpApiEndpoint.get("listReservations", "/reservations", {
      query: {
        ...pageQuery,
        orderId: Schema.optionalKey(
          OutsideId.annotate({ description: "Only the reservations of this order" })
        ),
        status: Schema.optionalKey(
          ReservationStatus.annotate({ description: "Only the reservations in this state" })
        )
      },
      success: ReservationList
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(OpenApi.annotations({ summary: "Reservations, newest first" }))
  )
  .prefix("/api/v1/inventory")
  .annotateMerge(OpenApi.annotations({ title: "Orders", description: "What an order service needs." })) {}
