import { Schema } from "effect"
import {
  InsufficientStock,
  ItemNotFound,
  LocationNotFound,
  ReservationAlreadyConfirmed,
  ReservationCancelled,
  ReservationExpired,
  ReservationFailed,
  ReservationNotFound,
  StockNotFound
} from "../../../schema/Failure.ts"
import { ReservationAnswer } from "../../../schema/Reservation.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import {
  addReservation,
  asked,
  type Asked,
  claim,
  endIfNothingOpen,
  holdLine,
  releaseFromLine
} from "../holds.ts"
import { byPickOrder } from "../pickOrder.ts"
import { mostNamedFirst, type Plan, planOf, type Wanted } from "../plan.ts"
import { answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import {
  locationsNamed,
  pendingOf,
  reservationAnswer,
  unknownPlaceOf,
  wantedLines,
  wantedOf
} from "./reservations.ts"

/**
 * Changes what an order holds to the items given, in one step (CONTRACTS section 2): what it holds of them stays, the rest
 * is given back, and what is missing is taken. Short: nothing changes.
 */
const amendReservationShape = commandShape({
  tag: "AmendReservation",
  payload: {
    orderId: Schema.String,
    lines: wantedLines,
    /** From now; without it, the reservation ends when it would have. */
    expiresInSeconds: Schema.optional(Schema.Number)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** False where the order held just that already. */
    applied: Schema.Boolean,
    /** With the lines of all that the order holds: by the variants contract it may have several reservations. */
    reservation: ReservationAnswer
  }),
  refusals: [
    InsufficientStock,
    ItemNotFound,
    LocationNotFound,
    StockNotFound,
    ReservationFailed,
    ReservationNotFound,
    ReservationAlreadyConfirmed,
    ReservationExpired,
    ReservationCancelled
  ]
})
export type AmendReservation = PayloadOf<typeof amendReservationShape>

export const amendReservation = defineCommand(amendReservationShape, {
  weight: ({ lines }) => 2 * lines.length,
  needs: (need, { lines, orderId }) => ({
    order: need.order(orderId),
    items: lines.map(({ item }) => need.item(item)),
    locations: locationsNamed(need, lines)
  }),
  decide: (context, command, keys) => {
    const { at, unit } = context
    const pending = pendingOf(context, command.orderId, keys.order)
    if ("refusal" in pending) return pending
    const reservations = pending.found
    const { lines: wanted, unknown } = wantedOf(context, command.lines, keys.items)
    if (unknown.length > 0) return refused(new ItemNotFound({ items: unknown }))
    const unknownPlace = unknownPlaceOf(context, keys.locations, wanted)
    if (unknownPlace !== undefined) return unknownPlace

    const surplus = heldOf(context, reservations)
    const missing = mostNamedFirst(wanted)
      .map((each) => {
        const quantity = claim(context, surplus, each)
        return { ...each, quantity, held: each.quantity - quantity }
      })
      .filter(({ quantity }) => quantity > 0)
    const discontinued = missing.filter(({ item }) => item.discontinued)
    if (discontinued.length > 0) {
      const items = discontinued.map(({ item }) => item.productVariantId ?? item.sku ?? item.itemId)
      return refused(new ReservationFailed({ reason: "DISCONTINUED_ITEM", items }))
    }
    const hasGivenBack = giveBack(context, reservations, surplus)
    const { planned, short } = planOf(context, missing)
    if (short.length > 0) return refused(new InsufficientStock({ items: short }))
    const isOther = hasGivenBack || planned.length > 0
    const holding = isOther ? take(context, reservations, planned) : reservations
    if (isOther) {
      for (const reservation of holding) {
        const request = JSON.stringify(requestOf(reservation, wanted))
        unit.reservations.update(reservation, { request, updatedAt: at })
        endIfNothingOpen(context, reservation, "CANCELLED")
      }
    }
    const pendingNow = holding.filter(({ status }) => status === "PENDING")
    const { expiresInSeconds } = command
    if (expiresInSeconds !== undefined) {
      const expiresAt = at + expiresInSeconds * 1_000
      for (const reservation of pendingNow)
        unit.reservations.update(reservation, { expiresAt, updatedAt: at })
    }
    const lines = pendingNow.flatMap((reservation) => reservation.lines)
    return answered({
      at,
      applied: isOther || expiresInSeconds !== undefined,
      reservation: reservationAnswer(context, pendingNow[0]!, lines)
    })
  }
})

/** What is held, in picking order: what expires first stays with the order, as where a part is released. */
const heldOf = (
  { merchantId, unit }: PostingContext,
  reservations: ReadonlyArray<ReservationRow>
): Map<LineRow, number> => {
  const stockOf = ({ stockId }: LineRow) =>
    stockId === null ? undefined : unit.stocks.indexes.byId.get(merchantId, stockId)
  const held = reservations.flatMap(({ lines }) => lines.filter(({ open }) => open > 0))
  const inOrder = held.toSorted((a, b) => {
    const [one, other] = [stockOf(a), stockOf(b)]
    return one === undefined || other === undefined
      ? Number(one !== undefined) - Number(other !== undefined)
      : byPickOrder(one, other)
  })
  return new Map(inOrder.map((line) => [line, line.open]))
}

const giveBack = (
  context: PostingContext,
  reservations: ReadonlyArray<ReservationRow>,
  surplus: ReadonlyMap<LineRow, number>
): boolean => {
  let isAny = false
  for (const reservation of reservations) {
    for (const line of reservation.lines) {
      const quantity = surplus.get(line) ?? 0
      if (quantity === 0) continue
      releaseFromLine(context, reservation, line, quantity, "RELEASED")
      isAny = true
    }
  }
  return isAny
}

/**
 * Holds what is missing under the reservation of its item or of the whole order, and under one of its own where the order
 * has neither. Answers with all that the order holds by.
 */
const take = (
  context: PostingContext,
  pending: ReadonlyArray<ReservationRow>,
  planned: Plan["planned"]
): ReadonlyArray<ReservationRow> => {
  const reservations = [...pending]
  const { expiresAt, orderId } = pending[0]!
  for (const { item, quantity, stock } of planned) {
    let reservation =
      reservations.find(({ kind, scope }) => kind === "VARIANT" && scope === item.itemId) ??
      reservations.find(({ kind }) => kind === "ORDER")
    if (reservation === undefined) {
      reservation = addReservation(context, {
        reservationId: context.nextId(),
        orderId,
        expiresAt,
        scope: item.itemId,
        kind: "VARIANT",
        status: "PENDING",
        asked: []
      })
      reservations.push(reservation)
    }
    holdLine(context, reservation, item, stock, quantity)
  }
  return reservations
}

/** What a reservation is for once it is amended: what it was sold, and what it holds, from where that was asked for. */
const requestOf = ({ lines }: ReservationRow, wanted: ReadonlyArray<Wanted>): ReadonlyArray<Asked> =>
  [...Map.groupBy(lines, ({ itemId }) => itemId)].flatMap(([itemId, ofItem]) => {
    const open = ofItem.reduce((sum, line) => sum + line.open, 0)
    const sold = ofItem.reduce((sum, line) => sum + line.sold, 0)
    const named = wanted.filter(({ item }) => item.itemId === itemId)
    const anywhere = { stockId: null }
    // Where another reservation of the order holds some of it too, the place is nobody's alone.
    const isWhole = named.reduce((sum, { quantity }) => sum + quantity, 0) === open
    const held = isWhole
      ? named.map((each) => asked(itemId, each.quantity, each))
      : [asked(itemId, open, anywhere)]
    return [asked(itemId, sold, anywhere), ...held].filter(([, quantity]) => quantity > 0)
  })
