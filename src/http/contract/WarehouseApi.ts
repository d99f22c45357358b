import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { Balance, Count, Quantity, Total } from "../../schema/Quantity.ts"
import { Timestamp } from "../../schema/Time.ts"
import { ExampleCall, RequiredPermission, maxLines } from "./Contract.ts"
import { problem } from "./Problem.ts"
import { ExpiresIn, ReleasedOrder } from "./Reservation.ts"

/** The contract of a warehouse, by sku and batch: `/inventory/…` (CONTRACTS 4.3). */

export const AllocatedOrder = Schema.Struct({
  reservationId: Uuid,
  orderId: OutsideId,
  allocations: Schema.Array(
    Schema.Struct({
      sku: Schema.NullOr(OutsideId),
      skuBatchId: Schema.NullOr(Uuid),
      lotNumber: Schema.NullOr(Schema.String),
      quantity: Total
    })
  ),
  expiresAt: Timestamp
})

export const SkuView = Schema.Struct({
  sku: OutsideId,
  totalQuantity: Balance,
  unallocatableQuantity: Balance,
  reservedQuantity: Balance,
  availableQuantity: Total,
  batches: Schema.Array(
    Schema.Struct({
      skuBatchId: Uuid,
      locationId: OutsideId,
      lotNumber: Schema.NullOr(Schema.String),
      expiresAt: Schema.NullOr(Timestamp),
      totalQuantity: Balance,
      unallocatableQuantity: Balance,
      reservedQuantity: Balance,
      availableQuantity: Total,
      version: Count
    })
  ),
  lastWmsSyncAt: Schema.NullOr(Timestamp)
})

export class WarehouseApi extends HttpApiGroup.make("warehouse")
  .add(
    HttpApiEndpoint.post("reserveSkus", "/reserve", {
      payload: Schema.Struct({
        orderId: OutsideId,
        items: Schema.Array(
          Schema.Struct({ sku: OutsideId, quantity: Quantity, skuBatchId: Schema.optionalKey(Uuid) })
        ).check(
          Schema.isMinLength(1, { message: "must name at least one item" }),
          Schema.isMaxLength(maxLines, { message: `must have at most ${maxLines} lines` })
        ),
        expiresIn: Schema.optionalKey(ExpiresIn)
      }),
      success: [
        AllocatedOrder.pipe(HttpApiSchema.status(201)),
        AllocatedOrder.annotate({ description: "Reserved already, with the same items" })
      ],
      error: [
        problem("ItemNotFound"),
        problem("StockNotFound"),
        problem("InsufficientStock"),
        problem("ReservationFailed"),
        problem("LocationNotFound")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, {
        body: { orderId: "order-1003", items: [{ sku: "CUP-1", quantity: 1 }], expiresIn: 1800 }
      })
      .annotateMerge(OpenApi.annotations({ summary: "Allocate skus to an order, first-expired-first-out" })),
    HttpApiEndpoint.post("releaseOrder", "/release", {
      payload: Schema.Struct({ orderId: OutsideId }),
      success: ReleasedOrder,
      error: [
        problem("ReservationNotFound"),
        problem("ReservationAlreadyConfirmed"),
        problem("ItemNotFound"),
        problem("ReleaseExceedsReservation")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, { body: { orderId: "order-1003" } })
      .annotateMerge(OpenApi.annotations({ summary: "Give back what an order holds" })),
    HttpApiEndpoint.get("getSku", "/:sku", {
      params: { sku: OutsideId.annotate({ description: "The sku of the item" }) },
      success: SkuView,
      error: problem("ItemNotFound")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { sku: "CUP-1" } })
      .annotateMerge(OpenApi.annotations({ summary: "The stock of a sku, by batch" }))
  )
  .prefix("/inventory")
  .annotateMerge(OpenApi.annotations({ title: "Warehouse", description: "Stock by sku and batch." })) {}
