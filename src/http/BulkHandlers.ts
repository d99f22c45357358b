import { Effect, Result } from "effect"
import { ReservationFailed } from "../schema/Failure.ts"
import type { Answers } from "../services/kernel/commands.ts"
import type { BulkOperation, BulkRow } from "../services/kernel/commands/bulk.ts"
import type { ChangeType } from "../services/kernel/commands/stock.ts"
import { timestamp } from "../schema/Time.ts"
import { ValidationFailed, readerOf } from "../schema/Validation.ts"
import { Movements } from "../services/stock/Movements.ts"
import { answer } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import {
  BulkAnswer,
  type BulkResult,
  CountAnswer,
  type Operation,
  type Unreadable,
  maxBulkLines,
  operationTypes,
  schemaOf
} from "./contract/BulkApi.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import { problemOf } from "./contract/Problem.ts"
import { adjustedStock, adjustmentOf, releasedVariant, reservedVariant } from "./Views.ts"
import type { Failing } from "./contract/ProblemKinds.ts"
import { defaultExpiresIn } from "./contract/Reservation.ts"

export const BulkHandlers = routesOf(
  "bulk",
  Effect.gen(function* () {
    const movements = yield* Movements
    return {
      bulk: Effect.fnUntraced(function* ({ payload: { mode, operations } }) {
        const rows = operations.map(readRow)
        const bad = rows.flatMap((row) => (Result.isFailure(row) ? row.failure.errors : []))
        if (mode === "atomic" && bad.length > 0) return yield* new ValidationFailed({ errors: bad })
        const valid = rows.flatMap((row) => (Result.isSuccess(row) ? [row.success] : []))
        yield* checkLines(valid)
        const posted = yield* movements.bulk(yield* CurrentCaller, {
          mode,
          operations: valid.map(operationOf)
        })
        const answers = posted.answer.rows.values()
        const results = rows.map((row, index) =>
          Result.isFailure(row)
            ? failed(index, row.failure)
            : resultOf(index, row.success, answers.next().value!)
        )
        const succeeded = results.filter(({ code }) => code === undefined).length
        return answer(
          BulkAnswer,
          { mode, succeeded, failed: results.length - succeeded, results },
          { replayed: posted.replayed }
        )
      }),

      count: Effect.fnUntraced(function* ({ payload: { counts, locationId, reason } }) {
        const posted = yield* movements.count(yield* CurrentCaller, {
          counts: counts.map(({ productVariantId, ...count }) => ({
            item: { variantId: productVariantId },
            ...count
          })),
          locationId,
          reason
        })
        return answer(CountAnswer, { counts: posted.answer.counts }, { replayed: posted.replayed })
      })
    }
  })
)

/** A row as an operation, or what is wrong with it. */
const readRow = (
  given: Operation | Unreadable,
  index: number
): Result.Result<Operation, ValidationFailed> => {
  if (!("_tag" in given)) return Result.succeed(given)
  const { row } = given
  const slot = `body.operations.${index}`
  if (typeof row !== "object" || row === null || Array.isArray(row)) {
    return Result.fail(new ValidationFailed({ errors: [{ path: slot, message: "must be an object" }] }))
  }
  const schema = schemaOf(row as { readonly [field: string]: unknown })
  if (schema === undefined) {
    const message = `must be one of ${operationTypes.join(", ")}`
    return Result.fail(new ValidationFailed({ errors: [{ path: `${slot}.type`, message }] }))
  }
  return readerOf(schema, { onExcessProperty: "error" })(row, slot)
}

const checkLines = (rows: ReadonlyArray<Operation>) => {
  const lines = rows.reduce((sum, row) => sum + ("items" in row ? row.items.length : 1), 0)
  if (lines <= maxBulkLines) return Effect.void
  const message = `must have at most ${maxBulkLines} lines altogether`
  return Effect.fail(new ValidationFailed({ errors: [{ path: "body.operations", message }] }))
}

const operationOf = (row: Operation): BulkOperation => {
  switch (row.type) {
    case "reserve":
      return "items" in row
        ? {
            _tag: "ReserveStock",
            orderId: row.orderId,
            kind: "ORDER",
            lines: row.items.map(({ quantity, variantId }) => ({ item: { variantId }, quantity })),
            expiresInSeconds: row.expiresIn ?? defaultExpiresIn,
            locationId: row.locationId,
            metadata: row.metadata
          }
        : {
            _tag: "ReserveStock",
            orderId: row.orderId,
            kind: "VARIANT",
            lines: [{ item: { variantId: row.productVariantId }, quantity: row.quantity }],
            expiresInSeconds: row.expiresIn ?? defaultExpiresIn
          }
    case "release":
      return {
        _tag: "ReleaseReservation",
        orderId: row.orderId,
        ...(row.productVariantId === undefined
          ? {}
          : { line: { item: { variantId: row.productVariantId }, quantity: row.quantity } }),
        reason: "RELEASED"
      }
    default:
      return { _tag: "AdjustStock", ...adjustmentOf(row, row.type.toUpperCase() as ChangeType) }
  }
}

type BulkResult = typeof BulkResult.Encoded

const resultOf = (index: number, operation: Operation, row: BulkRow): BulkResult =>
  "failure" in row
    ? failed(index, ofSingleCall(operation, row.failure as unknown as Failing))
    : { index, ...succeeded(operation, row.answer) }

/** In the contract of orders an unknown variant is a reservation that cannot be made (CONTRACTS 4.1). */
const ofSingleCall = (operation: Operation, failure: Failing): Failing =>
  failure._tag === "ItemNotFound" && "items" in operation
    ? new ReservationFailed({ reason: "UNKNOWN_ITEM", items: failure.items })
    : failure

const failed = (index: number, failure: Failing): BulkResult => {
  const { type: _, ...problem } = problemOf(failure)
  return { index, ...problem }
}

const succeeded = (
  operation: Operation,
  given: Answers[BulkOperation["_tag"]]
): Pick<BulkResult, "status" | "result"> => {
  switch (operation.type) {
    case "reserve": {
      const reserved = given as Answers["ReserveStock"]
      const status = reserved.created ? 201 : 200
      if (!("items" in operation)) {
        const { productVariantId, quantity } = operation
        return { status, result: reservedVariant(reserved, productVariantId, quantity) }
      }
      const { expiresAt, orderId, reservationId } = reserved.reservation
      const items = operation.items.map((line) => ({ ...line, reserved: true as const }))
      return { status, result: { reservationId, orderId, items, expiresAt: timestamp(expiresAt) } }
    }
    case "release": {
      const released = given as Answers["ReleaseReservation"]
      const { orderId } = operation
      return {
        status: 200,
        result:
          released.item === null
            ? { orderId, released: released.released }
            : releasedVariant(released, orderId)
      }
    }
    default:
      return { status: 200, result: adjustedStock(given as Answers["AdjustStock"]) }
  }
}
