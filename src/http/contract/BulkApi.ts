import { Schema, SchemaTransformation } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { OutsideId, Text, Uuid } from "../../schema/Identifier.ts"
import { Balance, Count, Quantity } from "../../schema/Quantity.ts"
import { AdjustedStock, adjustment, checkQuantity } from "./Adjustment.ts"
import { ExampleCall, RequiredPermission, maxLines } from "./Contract.ts"
import { problem, rowProblem } from "./Problem.ts"
import {
  ExpiresIn,
  ReleasedOrder,
  ReleasedVariant,
  ReserveOrder,
  ReservedOrder,
  ReservedVariant
} from "./Reservation.ts"

/** The contract of many changes at once: `/api/v1/inventory/bulk` and `/count` (CONTRACTS 4.2). */

/** Operations of one bulk, and the lines of all its reservations. */
export const maxOperations = 1_000
export const maxBulkLines = 2_000

const adjustmentTypes = ["receipt", "sale", "return", "damage", "correction"] as const

/** The kinds of operation, each with the fields of its single call. */
export const operations = {
  adjust: Schema.Struct({ type: Schema.Literals(adjustmentTypes), ...adjustment })
    .check(Schema.makeFilter((given) => checkQuantity(given, given.type === "correction")))
    .annotate({ identifier: "BulkAdjustment", description: "As POST adjust-stock" }),
  reserve: Schema.Struct({
    type: Schema.Literal("reserve"),
    productVariantId: OutsideId,
    orderId: OutsideId,
    quantity: Quantity,
    expiresIn: Schema.optionalKey(ExpiresIn)
  }).annotate({ identifier: "BulkReserve", description: "As POST {productVariantId}/reserve" }),
  reserveOrder: Schema.Struct({ type: Schema.Literal("reserve"), ...ReserveOrder.fields }).annotate({
    identifier: "BulkReserveOrder",
    description: "As POST reserve: all lines of the order, or none"
  }),
  release: Schema.Struct({
    type: Schema.Literal("release"),
    orderId: OutsideId,
    productVariantId: Schema.optionalKey(OutsideId),
    quantity: Schema.optionalKey(Quantity)
  })
    .check(
      Schema.makeFilter(({ productVariantId, quantity }) =>
        quantity !== undefined && productVariantId === undefined
          ? { path: ["productVariantId"], issue: "is required with a quantity" }
          : undefined
      )
    )
    .annotate({
      identifier: "BulkRelease",
      description: "As POST {productVariantId}/release, or POST release without productVariantId"
    })
}
export const Operation = Schema.Union([
  operations.adjust,
  operations.reserve,
  operations.reserveOrder,
  operations.release
])
export type Operation = typeof Operation.Type

export const operationTypes: ReadonlyArray<string> = [...adjustmentTypes, "reserve", "release"]

/** The schema that an operation is meant to have. */
export const schemaOf = (row: {
  readonly [field: string]: unknown
}): Schema.Codec<Operation, unknown> | undefined => {
  const { type } = row
  if (type === "reserve") return "items" in row ? operations.reserveOrder : operations.reserve
  if (type === "release") return operations.release
  return operationTypes.includes(type as string) ? operations.adjust : undefined
}

/** What is not an operation comes through as it is: what is wrong with it is told in its own row. */
const Unreadable = Schema.Unknown.annotate({
  description: "Anything else is answered in its row with 400"
}).pipe(
  Schema.decodeTo(
    Schema.Struct({ _tag: Schema.Literal("Unreadable"), row: Schema.Unknown }),
    SchemaTransformation.transform({
      decode: (row: unknown) => ({ _tag: "Unreadable" as const, row }),
      encode: ({ row }) => row
    })
  )
)
export type Unreadable = typeof Unreadable.Type

const BulkRequest = Schema.Struct({
  mode: Schema.Literals(["atomic", "continueOnFailure"]),
  operations: Schema.Array(Schema.Union([Operation, Unreadable])).check(
    Schema.isMinLength(1, { message: "must have at least one operation" }),
    Schema.isMaxLength(maxOperations, { message: `must have at most ${maxOperations} operations` })
  )
})

export const BulkResult = Schema.Struct({
  index: Count.annotate({ description: "The place of the operation in the request, from 0" }),
  status: Schema.Int.annotate({ description: "The HTTP status that the operation would have had alone" }),
  result: Schema.optionalKey(
    Schema.Union([AdjustedStock, ReservedVariant, ReservedOrder, ReleasedVariant, ReleasedOrder])
  ),
  code: Schema.optionalKey(Schema.String),
  title: Schema.optionalKey(Schema.String),
  detail: Schema.optionalKey(Schema.String)
}).annotate({
  identifier: "BulkResult",
  description:
    "What became of an operation: the result of its single call, or the code and the other members of its problem"
})
export const BulkAnswer = Schema.Struct({
  mode: Schema.Literals(["atomic", "continueOnFailure"]),
  succeeded: Count,
  failed: Count,
  results: Schema.Array(BulkResult)
})

const Counted = Schema.Struct({
  productVariantId: OutsideId,
  lotNumber: Schema.optionalKey(OutsideId),
  quantity: Count,
  expectedVersion: Schema.optionalKey(Count),
  expectedQuantity: Schema.optionalKey(Balance)
})
const CountRequest = Schema.Struct({
  locationId: Schema.optionalKey(OutsideId),
  counts: Schema.Array(Counted).check(
    Schema.isMinLength(1, { message: "must have at least one count" }),
    Schema.isMaxLength(maxLines, { message: `must have at most ${maxLines} counts` })
  ),
  reason: Schema.optionalKey(Text)
}).check(
  Schema.makeFilter(({ counts }) => {
    const seen = new Set<string>()
    for (const [index, { lotNumber, productVariantId }] of counts.entries()) {
      const key = JSON.stringify([productVariantId, lotNumber])
      if (seen.has(key))
        return { path: ["counts", index], issue: "must not name what an earlier row counts already" }
      seen.add(key)
    }
    return undefined
  })
)
export const CountAnswer = Schema.Struct({
  counts: Schema.Array(
    Schema.Struct({
      productVariantId: Schema.NullOr(OutsideId),
      sku: Schema.NullOr(OutsideId),
      stockId: Uuid,
      locationId: OutsideId,
      lotNumber: Schema.NullOr(Schema.String),
      quantity: Balance,
      reservedQuantity: Balance,
      unallocatableQuantity: Balance,
      version: Count,
      difference: Balance.annotate({ description: "What was counted less what the books said" }),
      discrepancy: Schema.Boolean.annotate({
        description: "Whether the difference is beyond the item's countTolerance, and so a discrepancy"
      })
    })
  )
})

export class BulkApi extends HttpApiGroup.make("bulk")
  .add(
    HttpApiEndpoint.post("bulk", "/bulk", {
      payload: BulkRequest,
      success: BulkAnswer,
      error: [rowProblem(409), rowProblem(422)]
    })
      .annotate(RequiredPermission, "inventory:adjust")
      .annotate(ExampleCall, {
        body: {
          mode: "continueOnFailure",
          operations: [
            {
              type: "receipt",
              productVariantId: "espresso-cup",
              quantity: 12,
              lotNumber: "L-2031",
              expiresAt: "2031-06-30T23:59:59Z",
              reference: "delivery-2"
            },
            { type: "reserve", productVariantId: "espresso-cup", orderId: "order-1004", quantity: 1 }
          ]
        }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Many changes in one transaction",
          description: `Up to ${maxOperations} operations, decided in order, each over what those before it have left. continueOnFailure: an answer for each, and one that is refused leaves nothing behind. atomic: the first that is refused refuses all (409 or 422, with its own code, its members and its index). Send an Idempotency-Key: most operations are not repeatable by themselves.`
        })
      ),
    HttpApiEndpoint.post("count", "/count", {
      payload: CountRequest,
      success: CountAnswer,
      error: [problem("CountMismatch"), problem("ItemNotFound"), problem("LocationNotFound"), rowProblem(422)]
    })
      .annotate(RequiredPermission, "inventory:adjust")
      .annotate(ExampleCall, {
        body: {
          locationId: "paris",
          counts: [{ productVariantId: "espresso-cup", quantity: 3, expectedQuantity: 0 }],
          reason: "monthly count"
        }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Record counted quantities, all or none",
          description:
            "Each difference is a movement, and one beyond the item's countTolerance opens a COUNT_DIFFERENCE discrepancy. expectedVersion or expectedQuantity makes a row compare-and-set: those of stocks that have moved are named, and nothing changes. A stock that is not there yet has version 0 and quantity 0."
        })
      )
  )
  .prefix("/api/v1/inventory")
  .annotateMerge(OpenApi.annotations({ title: "Bulk", description: "Many changes at once, and counts." })) {}
