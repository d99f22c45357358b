import { hash } from "node:crypto"
import type { ShortLine } from "../../../schema/Failure.ts"
import type {
  AnyRefusal,
  Answers,
  CancelOrder,
  ConfirmOrder,
  ConfirmationFailure,
  ReceiveOrder,
  ReturnGoods
} from "../../../schema/Posting.ts"
import { takeBack } from "./adjustments.ts"
import type { ItemRow, ReservationRow } from "./Books.ts"
import { bury, itemOfMessage } from "./catalog.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"
import { cancelledOrderKey, confirm, giveBack, reserve, shortLine } from "./reservations.ts"
import { noteCancelled } from "./sales.ts"

/**
 * What the order service tells and asks by messages (CONTRACTS section 5). Its topics have no order among each other:
 * each of these may come before or after its neighbours.
 */

export const receivedOrderKey = (orderId: string): string => ["ORDER_CREATED", orderId].join("\u001f")
export const failedPaymentKey = (orderId: string): string => ["PAYMENT_FAILED", orderId].join("\u001f")
/** An identity is of any length. */
export const returnKey = (messageId: string): string =>
  ["RETURN", messageId.length <= messageIdLengthMax ? messageId : hash("sha256", messageId)].join("\u001f")
const messageIdLengthMax = 200

interface Failure {
  readonly reason: ConfirmationFailure
  readonly items?: ReadonlyArray<ShortLine>
}

/** The answers to the order service, in the order of the order: they are written under its lock. */
const tellConfirmed = (draft: Draft, orderId: string, reservationId: string): void =>
  draft.emit("inventory.confirmed", orderId, "inventory.confirmed", {
    merchantId: draft.merchantId,
    orderId,
    reservationId
  })

const tellFailed = (
  draft: Draft,
  orderId: string,
  reservationId: string | null,
  { items = [], reason }: Failure
): void =>
  draft.emit("inventory.confirmation_failed", orderId, "inventory.confirmation_failed", {
    merchantId: draft.merchantId,
    orderId,
    reservationId,
    reason,
    items
  })

export const receiveOrder = (draft: Draft, command: ReceiveOrder): Decision<Answers["ReceiveOrder"]> => {
  const { at, books, merchantId, posting } = draft
  const { orderId } = command
  const trackingKey = receivedOrderKey(orderId)
  const isKnown = books.tracking.has(merchantId, trackingKey)
  if (isKnown || books.tracking.has(merchantId, cancelledOrderKey(orderId))) {
    return answered({ at, outcome: "IGNORED", reservationId: null, reason: null })
  }
  books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  const asked = new Map<ItemRow, number>()
  for (const { productVariantId, quantity } of command.lines) {
    const item = itemOfMessage(draft, productVariantId)
    asked.set(item, (asked.get(item) ?? 0) + quantity)
  }
  const ofOrder = books.reservationsOf(merchantId, orderId)
  if (ofOrder.length === 0) return reserveReceived(draft, command, asked)
  const live = ofOrder.filter(
    ({ kind, status }) => kind !== "SALE" && (status === "PENDING" || status === "CONFIRMED")
  )
  if (live.length === 0) return answered({ at, outcome: "IGNORED", reservationId: null, reason: null })
  const { reservationId } = live[0]!
  const differing = differencesOf(draft, asked, live, ofOrder)
  if (differing.length === 0) return answered({ at, outcome: "MATCHED", reservationId, reason: null })
  tellFailed(draft, orderId, reservationId, { reason: "ITEMS_MISMATCH", items: differing })
  return answered({ at, outcome: "FAILED", reservationId, reason: "ITEMS_MISMATCH" })
}

/**
 * The items of which the order wants another quantity than it has: empty when it is what its live reservations were
 * asked for, or what it holds and was sold by now (a part may have been given back).
 */
const differencesOf = (
  { books, merchantId }: Draft,
  asked: ReadonlyMap<ItemRow, number>,
  live: ReadonlyArray<ReservationRow>,
  ofOrder: ReadonlyArray<ReservationRow>
): ReadonlyArray<ShortLine> => {
  const requested = new Map<string, number>()
  for (const { request } of live) {
    for (const [itemId, quantity] of JSON.parse(request) as ReadonlyArray<readonly [string, number]>) {
      requested.set(itemId, (requested.get(itemId) ?? 0) + quantity)
    }
  }
  const had = new Map<string, number>()
  for (const { itemId, open, sold } of ofOrder.flatMap(({ lines }) => lines)) {
    if (open + sold > 0) had.set(itemId, (had.get(itemId) ?? 0) + open + sold)
  }
  const against = (has: ReadonlyMap<string, number>): ReadonlyArray<ShortLine> => {
    const wants = new Map([...asked].map(([item, quantity]) => [item.itemId, quantity]))
    return [...new Set([...wants.keys(), ...has.keys()])]
      .filter((itemId) => wants.get(itemId) !== has.get(itemId))
      .map((itemId) =>
        shortLine(books.items.get(merchantId, itemId)!, wants.get(itemId) ?? 0, has.get(itemId) ?? 0)
      )
  }
  return against(requested).length === 0 ? [] : against(had)
}

/** An order that nobody has reserved for: all of it is reserved, or none and the order service is told. */
const reserveReceived = (
  draft: Draft,
  command: ReceiveOrder,
  asked: ReadonlyMap<ItemRow, number>
): Decision<Answers["ReceiveOrder"]> => {
  const { at } = draft
  const fail = (failure: Failure): Decision<Answers["ReceiveOrder"]> => {
    const reservationId = command.reservationId ?? null
    tellFailed(draft, command.orderId, reservationId, failure)
    return answered({ at, outcome: "FAILED", reservationId, reason: failure.reason })
  }
  const discontinued = [...asked].filter(([item]) => item.discontinued || item.deletedAt !== null)
  if (discontinued.length > 0) {
    const items = discontinued.map(([item, quantity]) => shortLine(item, quantity, 0))
    return fail({ reason: "DISCONTINUED_ITEM", items })
  }
  const decision = reserve(draft, {
    _tag: "ReserveStock",
    orderId: command.orderId,
    kind: "ORDER",
    lines: [...asked].map(([{ itemId }, quantity]) => ({ item: { itemId }, quantity })),
    expiresInSeconds: command.expiresInSeconds
  })
  if ("answer" in decision) {
    const { reservationId } = decision.answer.reservation
    return answered({ at, outcome: "RESERVED", reservationId, reason: null })
  }
  return fail(failureOf(decision.refusal, false))
}

export const confirmOrder = (draft: Draft, command: ConfirmOrder): Decision<Answers["ConfirmOrder"]> => {
  const { at, books, merchantId } = draft
  const { orderId } = command
  const decision = confirm(draft, { ...command, _tag: "ConfirmReservation" })
  if ("answer" in decision) {
    const { reservationId } = decision.answer
    tellConfirmed(draft, orderId, reservationId)
    return answered({ at, confirmed: true, reservationId, reason: null })
  }
  const isCancelled = books.tracking.has(merchantId, cancelledOrderKey(orderId))
  const failure = failureOf(decision.refusal, isCancelled)
  const reservationId = command.reservationId ?? null
  tellFailed(draft, orderId, reservationId, failure)
  return answered({ at, confirmed: false, reservationId, reason: failure.reason })
}

/** A refusal as the order service is told it. That the order was cancelled says more than what became of its promise. */
const failureOf = (refusal: AnyRefusal, isCancelled: boolean): Failure => {
  if (isCancelled) return { reason: "ORDER_CANCELLED" }
  switch (refusal._tag) {
    case "InsufficientStock":
      return { reason: "INSUFFICIENT_INVENTORY", items: refusal.items }
    case "ReservationExpired":
      return { reason: "RESERVATION_EXPIRED", items: refusal.items }
    case "ReservationCancelled":
      return { reason: "RESERVATION_CANCELLED" }
    case "ReservationNotFound":
      return { reason: "RESERVATION_NOT_FOUND" }
    default:
      // What else reserving and confirming refuse was ruled out before.
      throw new Error(`an order was refused with ${refusal._tag}`)
  }
}

export const cancelOrder = (draft: Draft, command: CancelOrder): Decision<Answers["CancelOrder"]> => {
  const { at, books, merchantId, posting } = draft
  const { orderId } = command
  const isOver = command.reason !== "PAYMENT_FAILED"
  const trackingKey = isOver ? cancelledOrderKey(orderId) : failedPaymentKey(orderId)
  if (books.tracking.has(merchantId, trackingKey)) return answered({ at, applied: false, released: 0 })
  books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  let released = 0
  for (const reservation of books.reservationsOf(merchantId, orderId)) {
    if (reservation.status !== "PENDING") continue
    released += giveBack(draft, reservation, isOver ? "CANCELLED" : "RELEASED")
  }
  if (isOver) noteCancelled(draft, orderId)
  return answered({ at, applied: true, released })
}

export const returnGoods = (draft: Draft, command: ReturnGoods): Decision<Answers["ReturnGoods"]> => {
  const { at, books, merchantId, posting } = draft
  const trackingKey = returnKey(command.messageId)
  if (books.tracking.has(merchantId, trackingKey)) return answered({ at, applied: false })
  books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  const { occurredAt, orderId, reason } = command
  for (const line of command.lines) itemOfMessage(draft, line.productVariantId)
  for (const { productVariantId, quantity } of command.lines) {
    const item = itemOfMessage(draft, productVariantId)
    const returned = { changeType: "RETURN", item: { itemId: item.itemId }, quantity } as const
    const effect = takeBack(
      draft,
      { _tag: "AdjustStock", ...returned, orderId, reason, occurredAt },
      item,
      "ORDER"
    )
    if ("refusal" in effect) return refused(effect.refusal)
    if (item.deletedAt !== null) bury(draft, item)
  }
  return answered({ at, applied: true })
}
