import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { Balance, Count, Quantity, Total } from "../../schema/Quantity.ts"
import { Instant, Timestamp } from "../../schema/Time.ts"
import { AdjustedStock, adjustment, checkQuantity } from "./Adjustment.ts"
import { ExampleCall, RequiredPermission, listParameter } from "./Contract.ts"
import { ItemStatus } from "./ItemFigures.ts"
import { MovementList, movementQuery, movementsDescription } from "./Movement.ts"
import { problem } from "./Problem.ts"
import { ExpiresIn, ReleasedVariant, ReservedVariant } from "./Reservation.ts"

/** The contract of a shop's product variants: `/api/v1/inventory…` (CONTRACTS 4.2). */

export const Batch = Schema.Struct({
  stockId: Uuid,
  lotNumber: Schema.NullOr(Schema.String),
  expiresAt: Schema.NullOr(Timestamp),
  quantity: Balance,
  reservedQuantity: Balance,
  unallocatableQuantity: Balance,
  availableQuantity: Total,
  version: Count
}).annotate({ identifier: "Batch" })

const VariantFigures = {
  productVariantId: OutsideId,
  sku: Schema.NullOr(OutsideId),
  stocked: Schema.Boolean.annotate({
    description: "false: made to order, sold without a stock of its own, whatever availableQuantity says"
  }),
  quantity: Balance,
  reservedQuantity: Balance,
  availableQuantity: Total,
  locations: Schema.Array(
    Schema.Struct({
      locationId: OutsideId,
      quantity: Balance,
      reservedQuantity: Balance,
      availableQuantity: Total,
      batches: Schema.Array(Batch)
    })
  )
}

export const VariantView = Schema.Struct({
  ...VariantFigures,
  status: ItemStatus,
  updatedAt: Timestamp
}).annotate({ identifier: "Variant" })

export const VariantThen = Schema.Struct({
  ...VariantFigures,
  at: Timestamp,
  updatedAt: Schema.NullOr(Timestamp).annotate({
    description: "When the newest movement of then was recorded; null if none had been"
  })
}).annotate({ identifier: "VariantThen", description: "The balances as they were recorded at that time" })

export const AdjustStock = Schema.Struct({
  ...adjustment,
  changeType: Schema.Literals(["RECEIPT", "SALE", "RETURN", "DAMAGE", "CORRECTION"])
}).check(Schema.makeFilter((given) => checkQuantity(given, given.changeType === "CORRECTION")))
export const VariantList = Schema.Struct({
  data: Schema.Array(VariantView),
  missing: Schema.Array(Schema.String)
})
export const VariantListThen = Schema.Struct({
  data: Schema.Array(VariantThen),
  missing: Schema.Array(Schema.String)
})
/** Balances are as they are now, or as they were recorded at a time. */
const at = Schema.optionalKey(
  Instant.annotate({
    description:
      "The balances as they were recorded at this time, movements of that very millisecond included; not in the future"
  })
)

const variantParams = {
  productVariantId: OutsideId.annotate({ description: "The id that the shop gives the product variant" })
}
const maxVariants = 200
const variantIds = listParameter(OutsideId, {
  description: `Up to ${maxVariants} ids: separated by commas, or the parameter repeated`,
  examples: [["espresso-cup", "saucer"]]
}).check(
  Schema.isMinLength(1, { message: "must name at least one variant" }),
  Schema.isMaxLength(maxVariants, { message: `must name at most ${maxVariants} variants` })
)

export class VariantsApi extends HttpApiGroup.make("variants")
  .add(
    HttpApiEndpoint.get("getVariants", "/", {
      query: { productVariantIds: variantIds, at },
      success: [VariantList, VariantListThen],
      error: problem("HistoryNotKept")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { productVariantIds: ["espresso-cup"] } })
      .annotateMerge(OpenApi.annotations({ summary: "The stock of up to 200 product variants" })),
    HttpApiEndpoint.get("getVariant", "/:productVariantId", {
      params: variantParams,
      query: { at },
      success: [VariantView, VariantThen],
      error: [problem("ItemNotFound"), problem("HistoryNotKept")]
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { productVariantId: "espresso-cup" } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "The stock of a product variant, by location and batch",
          description:
            "With at, as it was recorded at that time: what had not been recorded by then is 0, a lot's expiry is judged at that time, and a product variant that was deleted since is still told. Movements are recorded with the time of their request: those of the last seconds may still be on their way."
        })
      ),
    HttpApiEndpoint.post("reserveVariant", "/:productVariantId/reserve", {
      params: variantParams,
      payload: Schema.Struct({
        orderId: OutsideId,
        quantity: Quantity,
        expiresIn: Schema.optionalKey(ExpiresIn)
      }),
      success: [
        ReservedVariant.pipe(HttpApiSchema.status(201)),
        ReservedVariant.annotate({ description: "Reserved already, with the same quantity" })
      ],
      error: [
        problem("ItemNotFound"),
        problem("InsufficientStock"),
        problem("ReservationFailed"),
        problem("LocationNotFound"),
        problem("StockNotFound")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, {
        params: { productVariantId: "espresso-cup" },
        body: { orderId: "order-1002", quantity: 2, expiresIn: 1800 }
      })
      .annotateMerge(OpenApi.annotations({ summary: "Reserve a product variant for an order" })),
    HttpApiEndpoint.post("releaseVariant", "/:productVariantId/release", {
      params: variantParams,
      payload: Schema.Struct({ orderId: OutsideId, quantity: Schema.optionalKey(Quantity) }),
      success: ReleasedVariant,
      error: [
        problem("ItemNotFound"),
        problem("ReservationNotFound"),
        problem("ReservationAlreadyConfirmed"),
        problem("ReleaseExceedsReservation")
      ]
    })
      .annotate(RequiredPermission, "inventory:reserve")
      .annotate(ExampleCall, {
        params: { productVariantId: "espresso-cup" },
        body: { orderId: "order-1002", quantity: 1 }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Give back what an order holds of a product variant, or part of it",
          description: "Releasing a part is repeatable only with an Idempotency-Key."
        })
      ),
    HttpApiEndpoint.post("adjustStock", "/adjust-stock", {
      payload: AdjustStock,
      success: AdjustedStock,
      error: [
        problem("AmbiguousStock"),
        problem("InsufficientStock"),
        problem("ItemNotFound"),
        problem("LocationNotFound"),
        problem("LotMismatch"),
        problem("StockNotFound"),
        problem("VersionMismatch")
      ]
    })
      .annotate(RequiredPermission, "inventory:adjust")
      .annotate(ExampleCall, {
        body: {
          productVariantId: "espresso-cup",
          changeType: "RECEIPT",
          quantity: 100,
          reference: "delivery-1",
          reason: "first delivery"
        }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Record a receipt, sale, return, damage or count",
          description:
            "RECEIPT, RETURN, DAMAGE, and a SALE without order are applied once with a reference or an Idempotency-Key; without, each call is another one."
        })
      ),
    HttpApiEndpoint.get("listMovements", "/:productVariantId/ledger", {
      params: variantParams,
      query: movementQuery,
      success: MovementList,
      error: problem("ItemNotFound")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { productVariantId: "espresso-cup" } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "What moved, when, why and by whom",
          description: movementsDescription
        })
      )
  )
  .prefix("/api/v1/inventory")
  .annotateMerge(OpenApi.annotations({ title: "Variants", description: "Stock by product variant." })) {}
