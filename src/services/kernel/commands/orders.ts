import { Schema } from "effect"
import type {
  InsufficientStock,
  ReservationCancelled,
  ReservationExpired,
  ReservationNotFound,
  ShortLine
} from "../../../schema/Failure.ts"
import {
  type ConfirmationFailure,
  confirmationFailures,
  InventoryConfirmationFailed,
  InventoryConfirmed
} from "../../../schema/OutgoingEvent.ts"
import { ReturnCondition } from "../../../schema/Movement.ts"
import { itemOfMessage, locationOf, retireItem } from "../catalogue.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { askedOf, isPromise, releaseAll, shortLine } from "../holds.ts"
import { openCancelledAfterSale } from "../orderDiscrepancies.ts"
import { answered, type Decision } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { ReservationRow } from "../tables/reservations.ts"
import { orderCancelledKey, orderReceivedKey, paymentFailedKey, returnKey } from "../trackingKeys.ts"
import { confirm } from "./confirmations.ts"
import { hold } from "./reservations.ts"
import { isOfSomething } from "./sales.ts"
import { takeBack } from "./stock.ts"

/**
 * What the order service tells and asks by messages (CONTRACTS section 5). Its topics have no order among each other:
 * each of these may come before or after its neighbours.
 */

interface Failure {
  readonly reason: ConfirmationFailure
  readonly items?: ReadonlyArray<ShortLine>
}

/** The answer to the order service, in the order of the order: it is written under its lock. */
const emitFailed = (
  context: PostingContext,
  orderId: string,
  reservationId: string | null,
  { items = [], reason }: Failure
): void => {
  const { merchantId } = context
  context.emit(InventoryConfirmationFailed, orderId, { merchantId, orderId, reservationId, reason, items })
}

const lines = Schema.Array(Schema.Struct({ productVariantId: Schema.String, quantity: Schema.Number }))

/** `order.created`: checks what the order holds against its items, or reserves them. Once per order. */
const receiveOrderShape = commandShape({
  tag: "ReceiveOrder",
  payload: {
    orderId: Schema.String,
    lines,
    /** The one that the order service believes to have: named in a failure where the order has none. */
    reservationId: Schema.optional(Schema.String),
    expiresInSeconds: Schema.Number
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /**
     * RESERVED now; MATCHED by what the order holds or was sold; FAILED, for which `inventory.confirmation_failed` is
     * emitted; or IGNORED: received before, cancelled, or over (its reservation expired or was released).
     */
    outcome: Schema.Literals(["RESERVED", "MATCHED", "FAILED", "IGNORED"]),
    reservationId: Schema.NullOr(Schema.String),
    reason: Schema.NullOr(Schema.Literals(confirmationFailures))
  }),
  refusals: []
})
export type ReceiveOrder = PayloadOf<typeof receiveOrderShape>

export const receiveOrder = defineCommand(receiveOrderShape, {
  weight: (command) => 2 * command.lines.length,
  // Keys that name an order are under its lock.
  needs: (need, command) => ({
    order: need.order(command.orderId),
    cancelled: need.tracking(orderCancelledKey(command.orderId), { isLocked: true }),
    received: need.tracking(orderReceivedKey(command.orderId), { isLocked: true }),
    items: command.lines.map(({ productVariantId }) =>
      need.item({ variantId: productVariantId }, { creates: true })
    )
  }),
  decide: (context, command, keys) => {
    const { at } = context
    const { orderId } = command
    const isOver = context.tracked(keys.received) ?? context.tracked(keys.cancelled)
    if (isOver !== undefined) return answered({ at, outcome: "IGNORED", reservationId: null, reason: null })
    context.track(keys.received)
    const asked = new Map<ItemRow, number>()
    for (const [index, { quantity }] of command.lines.entries()) {
      const item = itemOfMessage(context, keys.items[index]!)
      asked.set(item, (asked.get(item) ?? 0) + quantity)
    }
    const ofOrder = context.reservationsOf(keys.order)
    if (ofOrder.length === 0) return reserveReceived(context, command, asked)
    const live = ofOrder.filter(
      (reservation) =>
        isPromise(reservation) && (reservation.status === "PENDING" || reservation.status === "CONFIRMED")
    )
    if (live.length === 0) return answered({ at, outcome: "IGNORED", reservationId: null, reason: null })
    const { reservationId } = live[0]!
    const differing = differencesOf(context, asked, live, ofOrder)
    if (differing.length === 0) return answered({ at, outcome: "MATCHED", reservationId, reason: null })
    emitFailed(context, orderId, reservationId, { reason: "ITEMS_MISMATCH", items: differing })
    return answered({ at, outcome: "FAILED", reservationId, reason: "ITEMS_MISMATCH" })
  }
})

/**
 * The items of which the order wants another quantity than it has: empty when it is what its live reservations were
 * asked for, or what it holds and was sold by now (a part may have been given back).
 */
const differencesOf = (
  { merchantId, unit }: PostingContext,
  asked: ReadonlyMap<ItemRow, number>,
  live: ReadonlyArray<ReservationRow>,
  ofOrder: ReadonlyArray<ReservationRow>
): ReadonlyArray<ShortLine> => {
  const requested = new Map<string, number>()
  for (const [itemId, quantity] of live.flatMap(askedOf)) {
    requested.set(itemId, (requested.get(itemId) ?? 0) + quantity)
  }
  const had = new Map<string, number>()
  for (const { itemId, open, sold } of ofOrder.flatMap((reservation) => reservation.lines)) {
    if (open + sold > 0) had.set(itemId, (had.get(itemId) ?? 0) + open + sold)
  }
  const wants = new Map([...asked].map(([item, quantity]) => [item.itemId, quantity]))
  const itemOf = (itemId: string): ItemRow => unit.items.indexes.byId.get(merchantId, itemId)!
  const against = (has: ReadonlyMap<string, number>): ReadonlyArray<ShortLine> =>
    [...new Set([...wants.keys(), ...has.keys()])]
      .filter((itemId) => wants.get(itemId) !== has.get(itemId))
      .map((itemId) => shortLine(itemOf(itemId), wants.get(itemId) ?? 0, has.get(itemId) ?? 0))
  return against(requested).length === 0 ? [] : against(had)
}

/** An order that nobody has reserved for: all of it is reserved, or none and the order service is told. */
const reserveReceived = (
  context: PostingContext,
  { expiresInSeconds, orderId, reservationId: given }: ReceiveOrder,
  asked: ReadonlyMap<ItemRow, number>
): Decision<AnswerOf<typeof receiveOrderShape>> => {
  const { at } = context
  const fail = (failure: Failure): Decision<AnswerOf<typeof receiveOrderShape>> => {
    const reservationId = given ?? null
    emitFailed(context, orderId, reservationId, failure)
    return answered({ at, outcome: "FAILED", reservationId, reason: failure.reason })
  }
  const discontinued = [...asked].filter(([item]) => item.discontinued || item.deletedAt !== null)
  if (discontinued.length > 0) {
    const items = discontinued.map(([item, quantity]) => shortLine(item, quantity, 0))
    return fail({ reason: "DISCONTINUED_ITEM", items })
  }
  const wanted = [...asked]
    .map(([item, quantity]) => ({ item, quantity, stockId: null }))
    .sort((a, b) => (a.item.itemId < b.item.itemId ? -1 : 1))
  const decision = hold(context, {
    orderId,
    kind: "ORDER",
    scope: "",
    expiresInSeconds,
    lines: wanted
  })
  if ("refusal" in decision) return fail(failureOf(decision.refusal))
  const { reservationId } = decision.answer.reservation
  return answered({ at, outcome: "RESERVED", reservationId, reason: null })
}

/** A refusal as the order service is told it. */
const failureOf = (
  refusal: InsufficientStock | ReservationNotFound | ReservationExpired | ReservationCancelled
): Failure => {
  switch (refusal._tag) {
    case "InsufficientStock":
      return { reason: "INSUFFICIENT_INVENTORY", items: refusal.items }
    case "ReservationExpired":
      return { reason: "RESERVATION_EXPIRED", items: refusal.items }
    case "ReservationCancelled":
      return { reason: "RESERVATION_CANCELLED" }
    case "ReservationNotFound":
      return { reason: "RESERVATION_NOT_FOUND" }
  }
}

/** `inventory.confirm_requested`: confirms as `ConfirmReservation` does, and answers every request by an event. */
const confirmOrderShape = commandShape({
  tag: "ConfirmOrder",
  payload: { orderId: Schema.String, reservationId: Schema.optional(Schema.String) },
  answer: Schema.Struct({
    at: Schema.Number,
    /** What the event says: `inventory.confirmed`, or `inventory.confirmation_failed` with the reason. */
    confirmed: Schema.Boolean,
    /** False where all of it was sold before this request, or nothing was sold. */
    applied: Schema.Boolean,
    reservationId: Schema.NullOr(Schema.String),
    reason: Schema.NullOr(Schema.Literals(confirmationFailures))
  }),
  refusals: [],
  version: 2,
  // Whether an answer of before was the first one is not known: only its own second run asks for it.
  upgrade: (kept, version) =>
    version > 1 ? kept : { applied: (kept as { readonly confirmed: boolean }).confirmed, ...(kept as object) }
})
export type ConfirmOrder = PayloadOf<typeof confirmOrderShape>

export const confirmOrder = defineCommand(confirmOrderShape, {
  needs: (need, { orderId }) => ({
    order: need.order(orderId),
    cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true })
  }),
  decide: (context, command, keys) => {
    const { at, merchantId } = context
    const { orderId } = command
    const decision = confirm(context, command, keys)
    if ("answer" in decision) {
      const { applied, reservationId } = decision.answer
      context.emit(InventoryConfirmed, orderId, { merchantId, orderId, reservationId, applied })
      return answered({ at, confirmed: true, applied, reservationId, reason: null })
    }
    // That the order was cancelled says more than what became of its promise.
    const failure: Failure =
      context.tracked(keys.cancelled) === undefined
        ? failureOf(decision.refusal)
        : { reason: "ORDER_CANCELLED" }
    const reservationId = command.reservationId ?? null
    emitFailed(context, orderId, reservationId, failure)
    return answered({ at, confirmed: false, applied: false, reservationId, reason: failure.reason })
  }
})

/**
 * `order.cancelled`, `order.fraudulent`, `order.payment-failed`: releases what the order still holds. The first two are
 * remembered, also of an order that is not known yet: nothing is reserved for it any more. Once per order and reason; each
 * failed payment once, because the order may have reserved again since the one before.
 */
const cancelOrderShape = commandShape({
  tag: "CancelOrder",
  payload: {
    orderId: Schema.String,
    reason: Schema.Literals(["CANCELLED", "FRAUDULENT", "PAYMENT_FAILED"]),
    /** The identity of the message that tells of a failed payment; without one, the order's first counts. */
    messageId: Schema.optional(Schema.String)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** False when the order was cancelled in this way before. */
    applied: Schema.Boolean,
    released: Schema.Number
  }),
  refusals: []
})
export type CancelOrder = PayloadOf<typeof cancelOrderShape>

export const cancelOrder = defineCommand(cancelOrderShape, {
  needs: (need, { messageId, orderId, reason }) => ({
    order: need.order(orderId),
    ended: need.tracking(
      reason === "PAYMENT_FAILED" ? paymentFailedKey(orderId, messageId) : orderCancelledKey(orderId),
      { isLocked: true }
    )
  }),
  decide: (context, { reason }, keys) => {
    const { at } = context
    const isOver = reason !== "PAYMENT_FAILED"
    if (context.tracked(keys.ended) !== undefined) return answered({ at, applied: false, released: 0 })
    context.track(keys.ended)
    let released = 0
    for (const reservation of context.reservationsOf(keys.order)) {
      if (reservation.status !== "PENDING") continue
      released += releaseAll(context, reservation, isOver ? "CANCELLED" : "RELEASED")
    }
    if (isOver) openCancelledAfterSale(context, keys.order)
    return answered({ at, applied: true, released })
  }
})

/**
 * `order.returned`, `return.processed`: a fact, never refused. Goes back to the stocks that the order was sold from; what
 * exceeds that, and what names no order, goes to the default location. Once per `messageId`.
 */
const returnGoodsShape = commandShape({
  tag: "ReturnGoods",
  payload: {
    /** The identity of the message (CONTRACTS section 5). */
    messageId: Schema.String,
    orderId: Schema.optional(Schema.String),
    lines: Schema.Array(
      Schema.Struct({
        productVariantId: Schema.String,
        quantity: Schema.Number,
        condition: Schema.optional(ReturnCondition)
      })
    ),
    reason: Schema.optional(Schema.String),
    /** Epoch milliseconds. */
    occurredAt: Schema.optional(Schema.Number)
  },
  answer: Schema.Struct({ at: Schema.Number, applied: Schema.Boolean }),
  refusals: []
})
export type ReturnGoods = PayloadOf<typeof returnGoodsShape>

export const returnGoods = defineCommand(returnGoodsShape, {
  source: "ORDER",
  weight: (command) => 2 * command.lines.length,
  needs: (need, command) => {
    need.locations()
    return {
      order: command.orderId === undefined ? undefined : need.order(command.orderId),
      applied: need.tracking(returnKey(command.messageId)),
      lines: command.lines.filter(isOfSomething).map(({ condition, productVariantId, quantity }) => ({
        item: need.item({ variantId: productVariantId }, { creates: true }),
        condition,
        quantity
      }))
    }
  },
  decide: (context, command, { applied, lines, order }) => {
    const { at } = context
    if (context.tracked(applied) !== undefined) return answered({ at, applied: false })
    context.track(applied)
    const { occurredAt, orderId, reason } = command
    for (const line of lines) itemOfMessage(context, line.item)
    for (const { condition, item: key, quantity } of lines) {
      const item = itemOfMessage(context, key)
      const stockForRest = () => ({ found: context.stockIn(item, locationOf(context, undefined)) })
      takeBack(context, { item, order, quantity, condition, stockForRest }, { orderId, reason, occurredAt })
      if (item.deletedAt !== null) retireItem(context, item)
    }
    return answered({ at, applied: true })
  }
})
