import { Schema } from "effect"
import { OutsideId } from "./Identifier.ts"
import { Balance, Count, Quantity, Total } from "./Quantity.ts"

/**
 * Every failure that a caller can meet. `http/contract/ProblemKinds.ts` gives each its status, code and remedy; the fields are what a
 * caller needs to act.
 */

/** How much of one item was asked for, and how much could be had. */
export const ShortLine = Schema.Struct({
  productVariantId: Schema.optionalKey(OutsideId),
  sku: Schema.optionalKey(OutsideId),
  // Lines for the same item are summed, and so are its stocks: both may pass what one movement carries.
  requested: Total,
  available: Total
})
export type ShortLine = typeof ShortLine.Type

/** A promise was refused because stock is short; names every short line. Nothing changed. */
export class InsufficientStock extends Schema.TaggedError<InsufficientStock>()("InsufficientStock", {
  items: Schema.Array(ShortLine)
}) {}

/** Items that this merchant does not stock under the given variant ids or skus. */
export class ItemNotFound extends Schema.TaggedError<ItemNotFound>()("ItemNotFound", {
  items: Schema.Array(Schema.String)
}) {}

/** The reservation cannot be made as asked (CONTRACTS 4.1: unknown or discontinued variants, another request). */
export class ReservationFailed extends Schema.TaggedError<ReservationFailed>()("ReservationFailed", {
  reason: Schema.Literals(["UNKNOWN_ITEM", "DISCONTINUED_ITEM", "OTHER_ITEMS", "ORDER_CANCELLED"]),
  items: Schema.optionalKey(Schema.Array(Schema.String)),
  reservationId: Schema.optionalKey(Schema.String)
}) {}

/** No reservation of that order (or with that id) was ever made. */
export class ReservationNotFound extends Schema.TaggedError<ReservationNotFound>()("ReservationNotFound", {
  orderId: Schema.optionalKey(Schema.String),
  reservationId: Schema.optionalKey(Schema.String)
}) {}

/** The reservation has been sold already, so that it can be neither released nor extended. */
export class ReservationAlreadyConfirmed extends Schema.TaggedError<ReservationAlreadyConfirmed>()(
  "ReservationAlreadyConfirmed",
  { orderId: Schema.String, reservationId: Schema.String }
) {}

/** The reservation has expired and its stock cannot be had again. */
export class ReservationExpired extends Schema.TaggedError<ReservationExpired>()("ReservationExpired", {
  orderId: Schema.String,
  reservationId: Schema.String,
  items: Schema.Array(ShortLine)
}) {}

/** The reservation was released, so that there is nothing left to confirm or extend. */
export class ReservationCancelled extends Schema.TaggedError<ReservationCancelled>()("ReservationCancelled", {
  orderId: Schema.String,
  reservationId: Schema.String
}) {}

/** More was to be released than the order still holds. */
export class ReleaseExceedsReservation extends Schema.TaggedError<ReleaseExceedsReservation>()(
  "ReleaseExceedsReservation",
  { orderId: Schema.String, requested: Quantity, held: Total }
) {}

/** The stock has moved since the caller looked at it. */
export class VersionMismatch extends Schema.TaggedError<VersionMismatch>()("VersionMismatch", {
  expected: Count,
  actual: Count,
  quantity: Balance
}) {}

/** Counted stocks have moved since the caller looked at them: names each with its figures. Nothing changed. */
export class CountMismatch extends Schema.TaggedError<CountMismatch>()("CountMismatch", {
  counts: Schema.Array(
    Schema.Struct({
      /** Its place in the request, from 0. */
      index: Count,
      productVariantId: Schema.NullOr(OutsideId),
      sku: Schema.NullOr(OutsideId),
      expectedVersion: Schema.optionalKey(Count),
      expectedQuantity: Schema.optionalKey(Balance),
      version: Count,
      quantity: Balance
    })
  )
}) {}

/** A row of a file expects another quantity or version than the stock has. */
export class StockMoved extends Schema.TaggedError<StockMoved>()("StockMoved", {
  expectedQuantity: Schema.optionalKey(Balance),
  expectedVersion: Schema.optionalKey(Count),
  quantity: Balance,
  version: Count
}) {}

/** The item has several stocks and the request does not say which one is meant. */
export class AmbiguousStock extends Schema.TaggedError<AmbiguousStock>()("AmbiguousStock", {
  stocks: Schema.Array(
    Schema.Struct({
      stockId: Schema.String,
      locationId: Schema.String,
      lotNumber: Schema.NullOr(Schema.String)
    })
  )
}) {}

/** A lot of that number is in stock at that location with another expiry. */
export class LotMismatch extends Schema.TaggedError<LotMismatch>()("LotMismatch", {
  lotNumber: Schema.String,
  expiresAt: Schema.NullOr(Schema.String)
}) {}

/** A balance would pass 2^53−1. */
export class BalanceOverflow extends Schema.TaggedError<BalanceOverflow>()("BalanceOverflow", {
  stockId: Schema.String
}) {}

/** The product variant and the sku are those of two different items. */
export class ItemConflict extends Schema.TaggedError<ItemConflict>()("ItemConflict", {
  productVariantId: Schema.String,
  sku: Schema.String
}) {}

/** No such location at this merchant. */
export class LocationNotFound extends Schema.TaggedError<LocationNotFound>()("LocationNotFound", {
  locationId: Schema.String
}) {}

/** No such stock (item, location and lot) at this merchant. */
export class StockNotFound extends Schema.TaggedError<StockNotFound>()("StockNotFound", {
  item: Schema.String
}) {}

/** A balance was asked for as of a moment that lies ahead: nothing is recorded there yet. */
export class MomentInFuture extends Schema.TaggedError<MomentInFuture>()("MomentInFuture", {
  at: Schema.String
}) {
  override get message(): string {
    return `${this.at} lies in the future: nothing is recorded there yet`
  }
}

/** The movements of that time have been removed by age, and only the closing balance after them is kept. */
export class HistoryNotKept extends Schema.TaggedError<HistoryNotKept>()("HistoryNotKept", {
  at: Schema.String,
  stockIds: Schema.Array(Schema.String)
}) {}

/** No such discrepancy at this merchant. */
export class DiscrepancyNotFound extends Schema.TaggedError<DiscrepancyNotFound>()("DiscrepancyNotFound", {
  discrepancyId: Schema.String
}) {}

/** The discrepancy's condition still holds: it closes itself when the books are right again. */
export class DiscrepancyPersists extends Schema.TaggedError<DiscrepancyPersists>()("DiscrepancyPersists", {
  discrepancyId: Schema.String
}) {}

/** A refusal as plain data, its tag with its fields: what is kept of it in an answer. */
export const RefusalData = Schema.StructWithRest(Schema.Struct({ _tag: Schema.String }), [
  Schema.Record(Schema.String, Schema.Unknown)
])
export type RefusalData = typeof RefusalData.Type

/** One of many operations was refused, and with it all of them. Nothing changed. */
export class RowRefused extends Schema.TaggedError<RowRefused>()("RowRefused", {
  /** Its place in the request, from 0. */
  index: Count,
  failure: RefusalData
}) {}

/** The Idempotency-Key was used for another request. */
export class IdempotencyKeyReused extends Schema.TaggedError<IdempotencyKeyReused>()("IdempotencyKeyReused", {
  idempotencyKey: Schema.String
}) {}

/** Retry-After of a refusal whose cause is expected to pass soon. */
export const retryAfterSeconds = 1

/** The database does not answer: nothing was changed, ask again. */
export class DatabaseUnavailable extends Schema.TaggedError<DatabaseUnavailable>()("DatabaseUnavailable", {
  retryAfterSeconds: Schema.Int
}) {}

/** The token issuer's keys cannot be fetched and none are cached, so that no token can be judged: ask again. */
export class JwksUnavailable extends Schema.TaggedError<JwksUnavailable>()("JwksUnavailable", {
  retryAfterSeconds: Schema.Int
}) {}

/** More work is waiting than can be done in time: refused before anything was decided. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  retryAfterSeconds: Schema.Int
}) {}

/**
 * The deadline passed. The outcome is unknown but whole: either all of it happened or none, and asking again tells
 * which (or does it).
 */
export class OperationTimedOut extends Schema.TaggedError<OperationTimedOut>()("OperationTimedOut", {
  operation: Schema.String
}) {}
