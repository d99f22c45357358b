import { Schema } from "effect"
import {
  ReservationCancelled,
  ReservationExpired,
  ReservationNotFound,
  type ShortLine
} from "../../../schema/Failure.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { askedOf, endIfNothingOpen, isPromise, sellFromLine, sellFromStock } from "../holds.ts"
import type { OrderKey, TrackingKey } from "../Needs.ts"
import { planOf, type Wanted } from "../plan.ts"
import { type Decision, answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ReservationRow } from "../tables/reservations.ts"
import { orderCancelledKey } from "../trackingKeys.ts"

/** Selling what is promised (CONTRACTS section 2, "Life of a reservation"). */

const confirmAnswer = Schema.Struct({
  at: Schema.Number,
  confirmed: Schema.Boolean,
  reservationId: Schema.String
})
const confirmReservationShape = commandShape({
  tag: "ConfirmReservation",
  payload: { orderId: Schema.String, reservationId: Schema.optional(Schema.String) },
  answer: confirmAnswer,
  refusals: [ReservationNotFound, ReservationExpired, ReservationCancelled]
})
export type ConfirmReservation = PayloadOf<typeof confirmReservationShape>

export const confirmReservation = defineCommand(confirmReservationShape, {
  needs: (need, { orderId }) => ({
    order: need.order(orderId),
    cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true })
  }),
  decide: (context, command, keys) => confirm(context, command, keys)
})

export interface ConfirmKeys {
  readonly order: OrderKey
  readonly cancelled: TrackingKey
}

export const confirm = (
  context: PostingContext,
  { orderId, reservationId: given }: Pick<ConfirmReservation, "orderId" | "reservationId">,
  keys: ConfirmKeys
): Decision<
  AnswerOf<typeof confirmReservationShape>,
  ReservationNotFound | ReservationExpired | ReservationCancelled
> => {
  const { at } = context
  const ofOrder = context.reservationsOf(keys.order)
  const meant = ofOrder.filter(({ reservationId }) => given === undefined || reservationId === given)
  const reservations = meant.filter(isPromise)
  const last = reservations.at(-1)
  if (last === undefined) {
    // A sale without reservation stands for one: a repeated reserve is answered with it.
    const sale = meant[0]
    const named = given === undefined ? { orderId } : { orderId, reservationId: given }
    return sale === undefined
      ? refused(new ReservationNotFound(named))
      : answered({ at, confirmed: false, reservationId: sale.reservationId })
  }
  const pending = reservations.filter(({ status }) => status === "PENDING")
  if (pending.length > 0) {
    for (const reservation of pending) {
      for (const line of reservation.lines) {
        if (line.open > 0) sellFromLine(context, reservation, line, line.open)
      }
      endIfNothingOpen(context, reservation, "CANCELLED")
    }
    return answered({ at, confirmed: true, reservationId: pending[0]!.reservationId })
  }
  const confirmed = reservations.find(({ status }) => status === "CONFIRMED")
  if (confirmed !== undefined) {
    return answered({ at, confirmed: false, reservationId: confirmed.reservationId })
  }
  // A payment is the last word on what the order is sold: what it did not take is not taken by a confirmation.
  if (ofOrder.some(({ lines }) => lines.some(({ paid }) => paid > 0))) {
    return answered({ at, confirmed: false, reservationId: last.reservationId })
  }
  // One that the order has reserved anew after its expiry is over for good, whatever became of the newer one.
  const isNewest = ({ kind, reservationId, scope }: ReservationRow): boolean =>
    ofOrder.findLast((other) => other.kind === kind && other.scope === scope)?.reservationId === reservationId
  const expired = reservations.findLast(
    (reservation) => reservation.status === "EXPIRED" && isNewest(reservation)
  )
  if (expired !== undefined) return takeAgain(context, expired, ofOrder, keys)
  const named = { orderId, reservationId: last.reservationId }
  return refused(
    last.status === "EXPIRED"
      ? new ReservationExpired({ ...named, items: [] })
      : new ReservationCancelled(named)
  )
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
  keys: ConfirmKeys
): Decision<AnswerOf<typeof confirmReservationShape>, ReservationExpired> => {
  const { at, merchantId, unit } = context
  const { orderId, reservationId } = reservation
  const gone = (items: ReadonlyArray<ShortLine>) =>
    refused(new ReservationExpired({ orderId, reservationId, items: [...items] }))
  if (context.tracked(keys.cancelled) !== undefined) return gone([])
  /** What is not to be sold (again): what the order was sold in another way, and what it has given back itself. */
  const done = new Map<string, number>()
  for (const other of ofOrder) {
    for (const line of other.lines) {
      const isWanted = reservation.lines.some(({ itemId }) => itemId === line.itemId)
      if (isWanted && line.open > 0) return gone([])
      const givenBack = other === reservation ? line.released - line.expired : 0
      done.set(line.itemId, (done.get(line.itemId) ?? 0) + line.sold + givenBack)
    }
  }
  const asked = askedOf(reservation)
  const lines: Array<Wanted> = []
  for (const [itemId, quantity, stockId] of asked) {
    const part = Math.min(quantity, done.get(itemId) ?? 0)
    done.set(itemId, (done.get(itemId) ?? 0) - part)
    const item = unit.items.indexes.byId.get(merchantId, itemId)!
    if (quantity > part) lines.push({ item, stockId, quantity: quantity - part })
  }
  const { planned, short } = planOf(context, lines, asked[0]?.[3])
  if (short.length > 0) return gone(short)
  if (planned.length === 0) return answered({ at, confirmed: false, reservationId })
  for (const { item, quantity, stock } of planned) {
    sellFromStock(context, reservation, item, stock, quantity)
  }
  unit.reservations.update(reservation, { status: "CONFIRMED", updatedAt: at })
  return answered({ at, confirmed: true, reservationId })
}
