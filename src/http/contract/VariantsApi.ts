import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { OutsideId, Text, Uuid } from "../../schema/Identifier.ts"
import { pageQuery } from "../../schema/Page.ts"
import { itemStatuses, type MovementType, movementTypes } from "../../schema/Posting.ts"
import { Balance, Count, Quantity, Total } from "../../schema/Quantity.ts"
import { Instant, Timestamp } from "../../schema/Time.ts"
import { RequiredPermission, listOf } from "./Contract.ts"
import { ExpiresIn } from "./OrdersApi.ts"
import { problem } from "./Problem.ts"

/** The contract of a shop's product variants: `/api/v1/inventory…` (CONTRACTS 4.2). */

export const ItemStatus = Schema.Literals(itemStatuses).annotate({ identifier: "ItemStatus" })

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

const figures = {
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  quantity: Balance,
  reservedQuantity: Balance,
  unallocatableQuantity: Balance,
  availableQuantity: Total,
  status: ItemStatus
}

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
  ...figures
})

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
  if (given === undefined) return { path: ["quantity"], issue: "quantity (or quantitySold) is required" }
  if (quantity !== undefined && quantitySold !== undefined && quantity !== quantitySold) {
    return { path: ["quantitySold"], issue: "must equal quantity where both are given" }
  }
  return given === 0 && !mayBeZero
    ? { path: ["quantity"], issue: "must be from 1 to 1000000000000 (only a CORRECTION may count 0)" }
    : undefined
}
export const AdjustStock = Schema.Struct({
  ...adjustment,
  changeType: Schema.Literals(["RECEIPT", "SALE", "RETURN", "DAMAGE", "CORRECTION"])
}).check(Schema.makeFilter((given) => checkQuantity(given, given.changeType === "CORRECTION")))
export const AdjustedStock = Schema.Struct({
  applied: Schema.Boolean.annotate({ description: "false: it had been applied before, nothing changed" }),
  ...figures,
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

export const MovementView = Schema.Struct({
  stockId: Uuid,
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  sequence: Count,
  type: Schema.String,
  onHandDelta: Balance,
  reservedDelta: Balance,
  unallocatableDelta: Balance,
  onHand: Balance,
  reserved: Balance,
  unallocatable: Balance,
  source: Schema.String,
  orderId: Schema.NullOr(Schema.String),
  reservationId: Schema.NullOr(Uuid),
  reference: Schema.NullOr(Schema.String),
  reason: Schema.NullOr(Schema.String),
  actor: Schema.String,
  occurredAt: Schema.NullOr(Timestamp),
  recordedAt: Timestamp
}).annotate({ identifier: "Movement" })

export const VariantList = Schema.Struct({
  data: Schema.Array(VariantView),
  missing: Schema.Array(Schema.String)
})
export const VariantListThen = Schema.Struct({
  data: Schema.Array(VariantThen),
  missing: Schema.Array(Schema.String)
})
export const MovementList = listOf(MovementView)

/** Balances are as they are now, or as they were recorded at a time. */
const at = Schema.optionalKey(
  Instant.annotate({
    description:
      "The balances as they were recorded at this time, movements of that very millisecond included; not in the future"
  })
)

const isMovementType = Schema.is(Schema.Literals(movementTypes))
/** `RECEIPT,RETURN` in a query. */
const MovementTypes = Schema.String.check(
  Schema.makeFilter((text: string) =>
    text.split(",").every(isMovementType)
      ? undefined
      : `must be one or several of ${movementTypes.join(", ")}, separated by commas`
  )
).annotate({ description: `One or several of ${movementTypes.join(", ")}, separated by commas` })

export const movementQuery = Schema.Struct({
  ...pageQuery,
  from: Schema.optionalKey(Instant.annotate({ description: "Recorded then or later" })),
  to: Schema.optionalKey(Instant.annotate({ description: "Recorded before then" })),
  type: Schema.optionalKey(MovementTypes)
}).check(
  Schema.makeFilter(({ from, to }) =>
    from !== undefined && to !== undefined && to < from
      ? { path: ["to"], issue: "must not be before from" }
      : undefined
  )
)
export const movementFilter = ({
  type,
  ...filter
}: typeof movementQuery.Type): Omit<typeof movementQuery.Type, "type"> & {
  readonly types?: ReadonlyArray<MovementType>
} => ({ ...filter, ...(type === undefined ? {} : { types: type.split(",") as Array<MovementType> }) })

/** What lists of movements have in common, for their documentation. */
export const movementsDescription =
  "Newest first. A page that is picked by type may be shorter than its limit, and even empty, while there are more: go on until nextCursor is null."

const variantParams = { productVariantId: OutsideId }
const maxVariants = 200
const isOutsideId = Schema.is(OutsideId)
/** `a,b,c` in a query. */
const VariantIds = Schema.String.check(
  Schema.isMinLength(1),
  Schema.makeFilter((text: string) => {
    const ids = text.split(",").filter((id) => id !== "")
    if (ids.length > maxVariants) return `must name at most ${maxVariants} variants`
    return ids.every(isOutsideId) ? undefined : "must name variants by ids of 1 to 128 visible characters"
  })
)

export class VariantsApi extends HttpApiGroup.make("variants")
  .add(
    HttpApiEndpoint.get("getVariants", "/", {
      query: { productVariantIds: VariantIds, at },
      success: [VariantList, VariantListThen],
      error: problem("HistoryNotKept")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(OpenApi.annotations({ summary: "The stock of up to 200 product variants" })),
    HttpApiEndpoint.get("getVariant", "/:productVariantId", {
      params: variantParams,
      query: { at },
      success: [VariantView, VariantThen],
      error: [problem("ItemNotFound"), problem("HistoryNotKept")]
    })
      .annotate(RequiredPermission, "inventory:read")
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
      .annotateMerge(
        OpenApi.annotations({
          summary: "What moved, when, why and by whom",
          description: movementsDescription
        })
      )
  )
  .prefix("/api/v1/inventory")
  .annotateMerge(OpenApi.annotations({ title: "Variants", description: "Stock by product variant." })) {}
