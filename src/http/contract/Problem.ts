import { Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { HttpApiSchema } from "effect/http-api"
import * as Failure from "../../schema/Failure.ts"
import { InvalidCursor } from "../../schema/Page.ts"
import { Unauthenticated } from "../../schema/Principal.ts"
import { JwksUnavailable } from "../../services/identity/Jwks.ts"

/**
 * The one place that gives each failure its HTTP status, its code and its mend (CONTRACTS section 4). Errors travel as
 * `application/problem+json` (RFC 9457).
 */

/** Every permission is named in the token's scope or follows from its roles. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { permission: Schema.String }) {}

/** Bad input: one entry for each bad field. Nothing changed. */
export class ValidationFailed extends Schema.TaggedError<ValidationFailed>()("ValidationFailed", {
  errors: Schema.Array(Schema.Struct({ path: Schema.String, message: Schema.String }))
}) {}

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) => (issue._tag === "MissingKey" ? "is required" : SchemaIssue.defaultLeafHook(issue))
})

/**
 * Reads what was given by its schema, or names each bad field; `slot` is the part of the request that they are in. All are
 * looked for only where there is one: looking for the first alone takes two thirds of the time.
 */
export const readerOf = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "first" })
  const explain = Schema.decodeUnknownResult(schema, { errors: "all" })
  return (input: unknown, slot: string): Result.Result<S["Type"], ValidationFailed> =>
    Result.orElse(decode(input), () =>
      Result.mapError(explain(input), ({ issue }) => new ValidationFailed({ errors: badFields(issue, slot) }))
    )
}

const badFields = (issue: SchemaIssue.Issue, slot: string): ValidationFailed["errors"] =>
  formatIssues(issue).issues.map(({ message, path }) => ({
    path: [slot, ...(path ?? []).map((part) => String(typeof part === "object" ? part.key : part))].join("."),
    message
  }))

export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  limitBytes: Schema.Int
}) {}

export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  {}
) {}

export class RouteNotFound extends Schema.TaggedError<RouteNotFound>()("RouteNotFound", {}) {}

export class MethodNotAllowed extends Schema.TaggedError<MethodNotAllowed>()("MethodNotAllowed", {
  allow: Schema.Array(Schema.String)
}) {}

/** Our own bug, or an outage that no other failure names. The cause is in the logs, under the request id. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", {}) {}

interface Kind<F> {
  readonly status: number
  readonly code: string
  readonly title: string
  /** What happened, and what to do about it. */
  readonly detail: (failure: F) => string
}

const classes = {
  AmbiguousStock: Failure.AmbiguousStock,
  BalanceOverflow: Failure.BalanceOverflow,
  CountMismatch: Failure.CountMismatch,
  DatabaseUnavailable: Failure.DatabaseUnavailable,
  DiscrepancyNotFound: Failure.DiscrepancyNotFound,
  DiscrepancyPersists: Failure.DiscrepancyPersists,
  Forbidden,
  HistoryNotKept: Failure.HistoryNotKept,
  IdempotencyKeyReused: Failure.IdempotencyKeyReused,
  InsufficientStock: Failure.InsufficientStock,
  InternalError,
  InvalidCursor,
  ItemConflict: Failure.ItemConflict,
  ItemNotFound: Failure.ItemNotFound,
  JwksUnavailable,
  LocationNotFound: Failure.LocationNotFound,
  LotMismatch: Failure.LotMismatch,
  MethodNotAllowed,
  OperationTimedOut: Failure.OperationTimedOut,
  Overloaded: Failure.Overloaded,
  PayloadTooLarge,
  ReleaseExceedsReservation: Failure.ReleaseExceedsReservation,
  ReservationAlreadyConfirmed: Failure.ReservationAlreadyConfirmed,
  ReservationCancelled: Failure.ReservationCancelled,
  ReservationExpired: Failure.ReservationExpired,
  ReservationFailed: Failure.ReservationFailed,
  ReservationNotFound: Failure.ReservationNotFound,
  RouteNotFound,
  RowRefused: Failure.RowRefused,
  StockNotFound: Failure.StockNotFound,
  Unauthenticated,
  UnsupportedMediaType,
  ValidationFailed,
  VersionMismatch: Failure.VersionMismatch
}
type Classes = typeof classes
export type Failing = InstanceType<Classes[keyof Classes]>

const kinds: { readonly [Tag in keyof Classes]: Kind<InstanceType<Classes[Tag]>> } = {
  AmbiguousStock: {
    status: 422,
    code: "AMBIGUOUS_STOCK",
    title: "Several stocks match",
    detail: () =>
      "The item has several stocks: name the locationId and lotNumber that are meant (see stocks)."
  },
  BalanceOverflow: {
    status: 422,
    code: "BALANCE_OVERFLOW",
    title: "The balance would be too large",
    detail: () => "A balance may not pass 2^53−1 base units: use a larger base unit."
  },
  CountMismatch: {
    status: 409,
    code: "VERSION_MISMATCH",
    title: "Counted stocks have moved meanwhile",
    detail: ({ counts }) =>
      `${counts.length === 1 ? "One count is" : `${counts.length} counts are`} of a stock that has moved: look at it again and repeat with its version or quantity (see counts). Nothing was changed.`
  },
  DatabaseUnavailable: {
    status: 503,
    code: "INVENTORY_UNAVAILABLE",
    title: "The inventory is unavailable",
    detail: () =>
      "The database does not answer at the moment. Nothing was changed: try again after Retry-After."
  },
  DiscrepancyNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "No such discrepancy",
    detail: () => "There is no discrepancy with that id: list them with GET /v1/api/inventory/discrepancies."
  },
  DiscrepancyPersists: {
    status: 409,
    code: "DISCREPANCY_PERSISTS",
    title: "The discrepancy still holds",
    detail: () =>
      "Its condition still holds: correct the stock (adjust-stock CORRECTION) and it closes by itself."
  },
  Forbidden: {
    status: 403,
    code: "FORBIDDEN",
    title: "Permission missing",
    detail: ({ permission }) =>
      `This call needs the permission ${permission}: ask for a token that carries it.`
  },
  HistoryNotKept: {
    status: 410,
    code: "HISTORY_NOT_KEPT",
    title: "The movements of that time are no longer kept",
    detail: ({ at }) =>
      `The movements up to ${at} were removed by age: ask for a later time, or look into the backup of then.`
  },
  IdempotencyKeyReused: {
    status: 422,
    code: "IDEMPOTENCY_KEY_REUSED",
    title: "The Idempotency-Key was used for another request",
    detail: () =>
      "Use a new Idempotency-Key for a new request, and the same key only to repeat the same request."
  },
  InsufficientStock: {
    status: 409,
    code: "INSUFFICIENT_INVENTORY",
    title: "Not enough stock",
    detail: ({ items }) =>
      `${items.length === 1 ? "One item is" : `${items.length} items are`} short: lower the quantities to what is available (see items). Nothing was changed.`
  },
  InternalError: {
    status: 500,
    code: "INTERNAL_ERROR",
    title: "Something went wrong on our side",
    detail: () => "Try again; if it fails again, report the instance (the request id)."
  },
  InvalidCursor: {
    status: 400,
    code: "VALIDATION_FAILED",
    title: "The cursor is not valid",
    detail: () =>
      "Use nextCursor of the page before as it is, with the same filters, or leave the cursor away."
  },
  ItemConflict: {
    status: 409,
    code: "ITEM_CONFLICT",
    title: "Two different items",
    detail: ({ productVariantId, sku }) =>
      `The sku ${sku} belongs to another item than the product variant ${productVariantId}: change one of them first.`
  },
  ItemNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "Unknown item",
    detail: ({ items }) =>
      `Not stocked here: ${items.join(", ")}. Create items with POST /v1/api/inventory/product-variants.`
  },
  JwksUnavailable: {
    status: 503,
    code: "INVENTORY_UNAVAILABLE",
    title: "Tokens cannot be verified",
    detail: () => "The keys of the token issuer cannot be had at the moment: try again after Retry-After."
  },
  LocationNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "Unknown location",
    detail: ({ locationId }) =>
      `There is no location ${locationId}: create it with POST /v1/api/inventory/locations.`
  },
  LotMismatch: {
    status: 422,
    code: "LOT_MISMATCH",
    title: "The lot has another expiry",
    detail: ({ expiresAt, lotNumber }) =>
      `Lot ${lotNumber === "" ? "(unnamed)" : lotNumber} ${expiresAt === null ? "does not expire" : `expires at ${expiresAt}`}: leave expiresAt away or use another lotNumber.`
  },
  MethodNotAllowed: {
    status: 405,
    code: "METHOD_NOT_ALLOWED",
    title: "Method not allowed",
    detail: ({ allow }) => `Use ${allow.join(", ")}: see /docs.`
  },
  OperationTimedOut: {
    status: 408,
    code: "INVENTORY_TIMEOUT",
    title: "The operation took too long",
    detail: () =>
      "The outcome is unknown but whole: all of it happened, or nothing. Ask again; the answer tells."
  },
  Overloaded: {
    status: 503,
    code: "INVENTORY_UNAVAILABLE",
    title: "Too much work is waiting",
    detail: () => "The request was refused early, and nothing was changed: try again after Retry-After."
  },
  PayloadTooLarge: {
    status: 413,
    code: "PAYLOAD_TOO_LARGE",
    title: "The body is too large",
    detail: ({ limitBytes }) => `A body may have at most ${limitBytes} bytes: send several requests.`
  },
  ReleaseExceedsReservation: {
    status: 409,
    code: "RELEASE_EXCEEDS_RESERVATION",
    title: "More than is reserved",
    detail: ({ held }) =>
      `The order still holds ${held}: release at most that, or leave quantity away for all of it.`
  },
  ReservationAlreadyConfirmed: {
    status: 409,
    code: "RESERVATION_CONFIRMED",
    title: "The reservation is confirmed already",
    detail: () => "It has been sold. To take goods back, record a RETURN with adjust-stock."
  },
  ReservationCancelled: {
    status: 409,
    code: "RESERVATION_CANCELLED",
    title: "The reservation was released",
    detail: () => "Nothing is held any more: reserve again."
  },
  ReservationExpired: {
    status: 409,
    code: "RESERVATION_EXPIRED",
    title: "The reservation has expired",
    detail: () => "Its stock was given back and cannot be had again as asked: reserve again."
  },
  ReservationFailed: {
    status: 422,
    code: "RESERVATION_FAILED",
    title: "The reservation cannot be made",
    detail: ({ reason }) =>
      ({
        UNKNOWN_ITEM: "Some items are not stocked here: create them first (see items).",
        DISCONTINUED_ITEM: "Some items are discontinued: leave them away (see items).",
        OTHER_ITEMS: "The order has a reservation of other items: release it first, or repeat it as it was.",
        ORDER_CANCELLED: "The order was cancelled: use a new order id."
      })[reason]
  },
  ReservationNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "No such reservation",
    detail: () => "Nothing was ever reserved under that id: check the orderId and reservationId."
  },
  RouteNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "No such route",
    detail: () => "There is nothing at this path: see /docs."
  },
  RowRefused: {
    status: 422,
    code: "ROW_REFUSED",
    title: "One operation was refused",
    detail: ({ index }) => `Operation ${index} was refused, and with it all of them. Nothing was changed.`
  },
  StockNotFound: {
    status: 404,
    code: "NOT_FOUND",
    title: "No such stock",
    detail: () =>
      "There is no such stock: see GET /v1/api/inventory/stocks, or receive it first (adjust-stock RECEIPT)."
  },
  Unauthenticated: {
    status: 401,
    code: "UNAUTHENTICATED",
    title: "A valid token is needed",
    detail: () => "Send Authorization: Bearer with a token that has not expired, from the configured issuer."
  },
  UnsupportedMediaType: {
    status: 415,
    code: "UNSUPPORTED_MEDIA_TYPE",
    title: "The body must be JSON",
    detail: () => "Send Content-Type: application/json, without a Content-Encoding."
  },
  ValidationFailed: {
    status: 400,
    code: "VALIDATION_FAILED",
    title: "The request is not valid",
    detail: ({ errors }) =>
      `${errors.length === 1 ? "One field needs" : `${errors.length} fields need`} mending: see errors.`
  },
  VersionMismatch: {
    status: 409,
    code: "VERSION_MISMATCH",
    title: "The stock has moved meanwhile",
    detail: ({ actual }) =>
      `Its version is ${actual} now: look at it again and repeat with that expectedVersion.`
  }
}

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance?: string
  readonly code: string
  readonly [member: string]: unknown
}

export const isFailing = (failure: unknown): failure is Failing =>
  typeof failure === "object" && failure !== null && "_tag" in failure && (failure._tag as string) in kinds

/** What a failure looks like on the wire. */
export const problemOf = (failure: Failing, instance?: string): Problem => {
  if (failure._tag === "RowRefused" && isFailing(failure.failure)) {
    return rowProblemOf(failure.index, failure.failure, instance)
  }
  const kind = kinds[failure._tag] as Kind<Failing>
  const members: Record<string, unknown> = {}
  for (const field of Object.keys(classes[failure._tag].fields)) {
    if (field !== "_tag") members[field] = failure[field as keyof Failing]
  }
  return {
    type: "about:blank",
    title: kind.title,
    status: kind.status,
    detail: kind.detail(failure),
    ...(instance === undefined ? {} : { instance }),
    code: kind.code,
    ...members
  }
}

/**
 * All were refused because of one: its own problem, and which one it is. The request itself was found and understood,
 * so that it is a conflict or cannot be processed, whatever the one would have been told alone.
 */
const rowProblemOf = (index: number, failure: Failing, instance: string | undefined): Problem => {
  const { status, ...problem } = problemOf(failure, instance)
  return {
    ...problem,
    status: status === 409 ? 409 : 422,
    detail: `Operation ${index} was refused, and with it all of them: ${problem.detail}`,
    index
  }
}

/** The schemas of those problems. */
export const rowProblem = (status: 409 | 422) =>
  Schema.StructWithRest(
    Schema.Struct({
      type: Schema.String,
      title: Schema.String,
      status: Schema.Literal(status),
      detail: Schema.String,
      instance: Schema.optionalKey(Schema.String.annotate({ description: "The request id" })),
      code: Schema.String.annotate({ description: "The code of the operation's own failure" }),
      index: Schema.Int.annotate({ description: "The place of the operation in the request, from 0" })
    }),
    [Schema.Record(Schema.String, Schema.Unknown)]
  )
    .annotate({ identifier: `RowRefused${status}Problem`, description: kinds.RowRefused.title })
    .pipe(
      Schema.decodeTo(
        Schema.toType(Failure.RowRefused),
        SchemaTransformation.transform({
          decode: ({ index, ...failure }) =>
            new Failure.RowRefused({ index, failure: { ...failure, _tag: failure.code } }),
          encode: (failure) => problemOf(failure) as never
        })
      ),
      HttpApiSchema.status(status),
      HttpApiSchema.asJson({ contentType: "application/problem+json" })
    )

/** The schema of a failure's problem, for the contract and for typed clients. */
export const problem = <Tag extends keyof Classes>(tag: Tag) => {
  const Class = classes[tag] as unknown as Schema.Codec<InstanceType<Classes[Tag]>> & {
    readonly fields: Schema.Struct.Fields
    new (fields: unknown): InstanceType<Classes[Tag]>
  }
  const { code, status, title } = kinds[tag]
  const { _tag, ...fields } = Class.fields
  return Schema.Struct({
    type: Schema.String,
    title: Schema.String,
    status: Schema.Literal(status),
    detail: Schema.String,
    instance: Schema.optionalKey(Schema.String.annotate({ description: "The request id" })),
    code: Schema.Literal(code),
    ...fields
  })
    .annotate({ identifier: `${tag}Problem`, description: title })
    .pipe(
      Schema.decodeTo(
        Schema.toType(Class),
        SchemaTransformation.transform({
          decode: (problem) => new Class(problem),
          encode: (failure) => problemOf(failure as Failing) as never
        })
      ),
      HttpApiSchema.status(status),
      HttpApiSchema.asJson({ contentType: "application/problem+json" })
    )
}

/** What any call may meet. */
export const commonProblems = [
  problem("ValidationFailed"),
  problem("InvalidCursor"),
  problem("Unauthenticated"),
  problem("Forbidden"),
  problem("OperationTimedOut"),
  problem("PayloadTooLarge"),
  problem("UnsupportedMediaType"),
  problem("BalanceOverflow"),
  problem("IdempotencyKeyReused"),
  problem("InternalError"),
  problem("DatabaseUnavailable"),
  problem("JwksUnavailable"),
  problem("Overloaded")
] as const
