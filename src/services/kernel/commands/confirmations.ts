import { Schema } from "effect"
import {
  ConfirmExceedsReservation,
  ItemNotFound,
  ReservationCancelled,
  ReservationExpired,
  ReservationNotFound,
  type ShortLine
} from "../../../schema/Failure.ts"
import { ItemRef, nameOf } from "../../../schema/Item.ts"
import { reservationStatuses } from "../../../schema/Reservation.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { askedOf, endIfNothingOpen, isPromise, sellFromLine, sellFromStock, shortLine } from "../holds.ts"
import type { OrderKey, TrackingKey } from "../Needs.ts"
import { planOf, type Wanted } from "../plan.ts"
import { type Decision, answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import { orderCancelledKey } from "../trackingKeys.ts"

/** Selling what is promised (CONTRACTS section 2, "Life of a reservation"). */

const confirmReservationShape = commandShape({
  tag: "ConfirmReservation",
  payload: {
    orderId: Schema.String,
    reservationId: Schema.optional(Schema.String),
    /** The part that is sold; without it, all that is held. */
    lines: Schema.optional(Schema.Array(Schema.Struct({ item: ItemRef, quantity: Schema.Number })))
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** False where all of it was sold before: the order is confirmed all the same. */
    applied: Schema.Boolean,
    reservationId: Schema.String,
    /** PENDING where a part was sold, and the rest is held. */
    status: Schema.Literals(reservationStatuses)
  }),
  refusals: [
    ConfirmExceedsReservation,
    ItemNotFound,
    ReservationNotFound,
    ReservationExpired,
    ReservationCancelled
  ],
  version: 2,
  upgrade: (kept, version) => {
    if (version > 1) return kept
    const { confirmed, ...answer } = kept as { readonly confirmed: boolean }
    return { ...answer, applied: confirmed, status: "CONFIRMED" }
  }
})
export type ConfirmReservation = PayloadOf<typeof confirmReservationShape>
type Confirmed = AnswerOf<typeof confirmReservationShape>

export const confirmReservation = defineCommand(confirmReservationShape, {
  weight: ({ lines = [] }) => Math.max(1, lines.length),
  needs: (need, { lines = [], orderId }) => ({
    order: need.order(orderId),
    cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true }),
    items: lines.map(({ item }) => need.item(item))
  }),
  decide: (context, command, keys) => {
    const { lines } = command
    if (lines === undefined) return confirm(context, command, keys)
    const part = new Map<ItemRow, number>()
    const unknown: Array<string> = []
    for (const [index, { item: ref, quantity }] of lines.entries()) {
      const item = context.findItem(keys.items[index]!)
      if (item === undefined) unknown.push(nameOf(ref))
      else part.set(item, (part.get(item) ?? 0) + quantity)
    }
    return unknown.length > 0
      ? refused(new ItemNotFound({ items: unknown }))
      : confirmPart(context, command, part, keys)
  }
})

export interface ConfirmKeys {
  readonly order: OrderKey
  readonly cancelled: TrackingKey
}

type Named = Pick<ConfirmReservation, "orderId" | "reservationId">

/** The order's documents that are meant, those of them that are promises, and those that hold. */
const meantOf = (context: PostingContext, { reservationId: given }: Named, { order }: ConfirmKeys) => {
  const ofOrder = context.reservationsOf(order)
  const meant = ofOrder.filter(({ reservationId }) => given === undefined || reservationId === given)
  const promises = meant.filter(isPromise)
  return { ofOrder, meant, promises, pending: promises.filter(({ status }) => status === "PENDING") }
}

const notFound = ({ orderId, reservationId }: Named): ReservationNotFound =>
  new ReservationNotFound(reservationId === undefined ? { orderId } : { orderId, reservationId })

const confirmed = (
  { at }: PostingContext,
  { reservationId, status }: ReservationRow,
  applied: boolean
): Decision<Confirmed> => answered({ at, applied, reservationId, status })

export const confirm = (
  context: PostingContext,
  named: Named,
  keys: ConfirmKeys
): Decision<Confirmed, ReservationNotFound | ReservationExpired | ReservationCancelled> => {
  const { meant, ofOrder, pending, promises } = meantOf(context, named, keys)
  const last = promises.at(-1)
  if (last === undefined) {
    // A sale without reservation stands for one: a repeated reserve is answered with it.
    const sale = meant[0]
    return sale === undefined ? refused(notFound(named)) : confirmed(context, sale, false)
  }
  if (pending.length > 0) {
    for (const reservation of pending) {
      for (const line of reservation.lines) {
        if (line.open > 0) sellFromLine(context, reservation, line, line.open)
      }
      endIfNothingOpen(context, reservation, "CANCELLED")
    }
    return confirmed(context, pending[0]!, true)
  }
  const sold = promises.find(({ status }) => status === "CONFIRMED")
  if (sold !== undefined) return confirmed(context, sold, false)
  // A payment is the last word on what the order is sold: what it did not take is not taken by a confirmation.
  if (isPaid(ofOrder)) return confirmed(context, last, false)
  const expired = takeable(promises, ofOrder)
  return expired === undefined ? over(last) : takeAgain(context, expired, ofOrder, keys)
}

/**
 * Sells a part of what is held, and the rest stays PENDING. A part is repeatable only with an Idempotency-Key, but for the
 * last one: what was sold, and is not held any more, is confirmed.
 */
const confirmPart = (
  context: PostingContext,
  named: Named,
  part: ReadonlyMap<ItemRow, number>,
  keys: ConfirmKeys
): Decision<
  Confirmed,
  ConfirmExceedsReservation | ReservationNotFound | ReservationExpired | ReservationCancelled
> => {
  const { meant, ofOrder, pending, promises } = meantOf(context, named, keys)
  if (meant.length === 0) return refused(notFound(named))
  const exceeds = (has: (item: ItemRow) => number) =>
    [...part].flatMap(([item, quantity]) =>
      has(item) < quantity ? [shortLine(item, quantity, has(item))] : []
    )
  const refuse = (items: ReadonlyArray<ShortLine>) =>
    refused(new ConfirmExceedsReservation({ orderId: named.orderId, items }))
  const sum = (item: ItemRow, of: (line: LineRow) => number): number =>
    meant
      .flatMap(({ lines }) => lines)
      .reduce((total, line) => total + (line.itemId === item.itemId ? of(line) : 0), 0)

  const short = exceeds((item) => sum(item, ({ open }) => open))
  if (short.length === 0) {
    const isOfPart = ({ itemId, open }: LineRow): boolean =>
      open > 0 && [...part.keys()].some((item) => item.itemId === itemId)
    const first = pending.find(({ lines }) => lines.some(isOfPart))!
    for (const [item, quantity] of part) sellPart(context, pending, item, quantity)
    return confirmed(context, first, true)
  }
  const isSold = [...part].every(
    ([item, quantity]) => sum(item, ({ open }) => open) === 0 && sum(item, ({ sold }) => sold) >= quantity
  )
  if (isSold || (pending.length === 0 && isPaid(ofOrder))) {
    return confirmed(context, promises.at(-1) ?? meant.at(-1)!, false)
  }
  if (pending.length > 0 || meant.some(({ status }) => status === "CONFIRMED")) return refuse(short)
  const expired = takeable(promises, ofOrder)
  if (expired === undefined) return over(promises.at(-1)!)
  const beyond = exceeds((item) => leftOf(expired, ofOrder).get(item.itemId) ?? 0)
  return beyond.length > 0 ? refuse(beyond) : takeAgain(context, expired, ofOrder, keys, part)
}

const sellPart = (
  context: PostingContext,
  pending: ReadonlyArray<ReservationRow>,
  item: ItemRow,
  quantity: number
): void => {
  let left = quantity
  for (const reservation of pending) {
    for (const line of reservation.lines) {
      const take = line.itemId === item.itemId ? Math.min(left, line.open) : 0
      if (take > 0) sellFromLine(context, reservation, line, take)
      left -= take
    }
    endIfNothingOpen(context, reservation, "CANCELLED")
  }
}

const isPaid = (ofOrder: ReadonlyArray<ReservationRow>): boolean =>
  ofOrder.some(({ lines }) => lines.some(({ paid }) => paid > 0))

/** One that the order has reserved anew after its expiry is over for good, whatever became of the newer one. */
const takeable = (
  promises: ReadonlyArray<ReservationRow>,
  ofOrder: ReadonlyArray<ReservationRow>
): ReservationRow | undefined => {
  const isNewest = ({ kind, reservationId, scope }: ReservationRow): boolean =>
    ofOrder.findLast((other) => other.kind === kind && other.scope === scope)?.reservationId === reservationId
  return promises.findLast((reservation) => reservation.status === "EXPIRED" && isNewest(reservation))
}

const over = ({ orderId, reservationId, status }: ReservationRow) => {
  const named = { orderId, reservationId }
  return refused(
    status === "EXPIRED" ? new ReservationExpired({ ...named, items: [] }) : new ReservationCancelled(named)
  )
}

/** What expired of each item and was not sold to the order in another way. */
const leftOf = (
  reservation: ReservationRow,
  ofOrder: ReadonlyArray<ReservationRow>
): ReadonlyMap<string, number> => {
  const left = new Map<string, number>()
  for (const { expired, itemId } of reservation.lines) left.set(itemId, (left.get(itemId) ?? 0) + expired)
  for (const { itemId, sold } of ofOrder.flatMap((other) => (other === reservation ? [] : other.lines))) {
    const before = left.get(itemId)
    if (before !== undefined) left.set(itemId, Math.max(0, before - sold))
  }
  return left
}

/**
 * Confirms an EXPIRED reservation by taking its stock again in the same posting. What the order has meanwhile been sold
 * in another way is not sold a second time, and what it holds again under another reservation is confirmed as that one.
 * Where it was to be taken from, it is taken again.
 */
const takeAgain = (
  context: PostingContext,
  reservation: ReservationRow,
  ofOrder: ReadonlyArray<ReservationRow>,
  keys: ConfirmKeys,
  part?: ReadonlyMap<ItemRow, number>
): Decision<Confirmed, ReservationExpired> => {
  const { at, merchantId, unit } = context
  const { orderId, reservationId } = reservation
  const gone = (items: ReadonlyArray<ShortLine>) =>
    refused(new ReservationExpired({ orderId, reservationId, items: [...items] }))
  if (context.tracked(keys.cancelled) !== undefined) return gone([])
  const isHeldAgain = ofOrder.some((other) =>
    other.lines.some(
      ({ itemId, open }) => open > 0 && reservation.lines.some((line) => line.itemId === itemId)
    )
  )
  if (isHeldAgain) return gone([])
  const itemOf = (itemId: string): ItemRow => unit.items.indexes.byId.get(merchantId, itemId)!
  const most = (itemId: string): number =>
    part === undefined ? Number.POSITIVE_INFINITY : (part.get(itemOf(itemId)) ?? 0)
  const left = new Map(
    [...leftOf(reservation, ofOrder)].map(([itemId, quantity]) => [itemId, Math.min(quantity, most(itemId))])
  )
  const lines: Array<Wanted> = []
  // What may come from any stock stands first: of what the order was sold meanwhile, that is taken off first.
  for (const [itemId, quantity, stockId, locationId, lotNumber] of askedOf(reservation).toReversed()) {
    const take = Math.min(quantity, left.get(itemId) ?? 0)
    left.set(itemId, (left.get(itemId) ?? 0) - take)
    const place = { stockId, locationId: locationId ?? undefined, lotNumber }
    if (take > 0) lines.unshift({ item: itemOf(itemId), quantity: take, ...place })
  }
  const { planned, short } = planOf(context, lines)
  if (short.length > 0) return gone(short)
  if (planned.length === 0) return confirmed(context, reservation, false)
  for (const { item, quantity, stock } of planned) {
    sellFromStock(context, reservation, item, stock, quantity)
  }
  unit.reservations.update(reservation, { status: "CONFIRMED", updatedAt: at })
  return confirmed(context, reservation, true)
}
