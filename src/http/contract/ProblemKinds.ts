import * as Failure from "../../schema/Failure.ts"
import { InvalidCursor } from "../../schema/Page.ts"
import { Unauthenticated } from "../../schema/Principal.ts"
import { rolesWith } from "../../schema/Role.ts"
import { ValidationFailed } from "../../schema/Validation.ts"
import * as HttpFailure from "./HttpFailure.ts"
import { type ProblemCode, problemTypeOf } from "./ProblemCodes.ts"

/** The one place that gives each failure its HTTP status, its code and its remedy (CONTRACTS section 4). */

export interface ProblemKind<F> {
  readonly status: number
  readonly code: ProblemCode
  readonly title: string
  /** What happened, and what to do about it. */
  readonly detail: (failure: F) => string
}

export const classes = {
  AmbiguousStock: Failure.AmbiguousStock,
  BalanceOverflow: Failure.BalanceOverflow,
  CountMismatch: Failure.CountMismatch,
  DatabaseUnavailable: Failure.DatabaseUnavailable,
  DiscrepancyNotFound: Failure.DiscrepancyNotFound,
  DiscrepancyPersists: Failure.DiscrepancyPersists,
  Forbidden: HttpFailure.Forbidden,
  HistoryNotKept: Failure.HistoryNotKept,
  IdempotencyKeyReused: Failure.IdempotencyKeyReused,
  InsufficientStock: Failure.InsufficientStock,
  InternalError: HttpFailure.InternalError,
  InvalidCursor,
  ItemConflict: Failure.ItemConflict,
  ItemNotFound: Failure.ItemNotFound,
  JwksUnavailable: Failure.JwksUnavailable,
  LocationNotFound: Failure.LocationNotFound,
  LotMismatch: Failure.LotMismatch,
  MethodNotAllowed: HttpFailure.MethodNotAllowed,
  OperationTimedOut: Failure.OperationTimedOut,
  Overloaded: Failure.Overloaded,
  PayloadTooLarge: HttpFailure.PayloadTooLarge,
  ReleaseExceedsReservation: Failure.ReleaseExceedsReservation,
  ReservationAlreadyConfirmed: Failure.ReservationAlreadyConfirmed,
  ReservationCancelled: Failure.ReservationCancelled,
  ReservationExpired: Failure.ReservationExpired,
  ReservationFailed: Failure.ReservationFailed,
  ReservationNotFound: Failure.ReservationNotFound,
  RouteNotFound: HttpFailure.RouteNotFound,
  RowRefused: Failure.RowRefused,
  StockMoved: Failure.StockMoved,
  StockNotFound: Failure.StockNotFound,
  Unauthenticated,
  UnsupportedMediaType: HttpFailure.UnsupportedMediaType,
  ValidationFailed,
  VersionMismatch: Failure.VersionMismatch
}
export type Classes = typeof classes
export type Failing = InstanceType<Classes[keyof Classes]>

export const kinds: { readonly [Tag in keyof Classes]: ProblemKind<InstanceType<Classes[Tag]>> } = {
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
      `This call needs the permission ${permission}, which the token does not carry. Ask the issuer of your tokens for the scope ${permission}, or for one of the roles ${rolesWith(permission).join(", ")}; see ${problemTypeOf("FORBIDDEN")}.`
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
  StockMoved: {
    status: 409,
    code: "VERSION_MISMATCH",
    title: "The stock has moved meanwhile",
    detail: ({ quantity, version }) =>
      `The stock has a quantity of ${quantity} (version ${version}) and the row expects another: look at it again and say what it shall be set to.`
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
      `${errors.length === 1 ? "One field is" : `${errors.length} fields are`} not valid: see errors.`
  },
  VersionMismatch: {
    status: 409,
    code: "VERSION_MISMATCH",
    title: "The stock has moved meanwhile",
    detail: ({ actual }) =>
      `Its version is ${actual} now: look at it again and repeat with that expectedVersion.`
  }
}
