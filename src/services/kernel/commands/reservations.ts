import { Schema } from "effect"
import {
  InsufficientStock,
  ItemNotFound,
  LocationNotFound,
  ReleaseExceedsReservation,
  ReservationAlreadyConfirmed,
  ReservationCancelled,
  ReservationExpired,
  ReservationFailed,
  ReservationNotFound,
  StockNotFound
} from "../../../schema/Failure.ts"
import { ItemFigures, ItemRef, nameOf } from "../../../schema/Item.ts"
import { ReservationAnswer } from "../../../schema/Reservation.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { itemFigures, lotOf } from "../figures.ts"
import {
  addReservation,
  type Asked,
  askedOf,
  endIfNothingOpen,
  holdLine,
  isPromise,
  releaseAll,
  releaseFromLine
} from "../holds.ts"
import type { ItemKey, OrderKey } from "../Needs.ts"
import { planOf, stocksAt, type Wanted } from "../plan.ts"
import { type Decision, answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ReservationRow } from "../tables/reservations.ts"
import { orderCancelledKey } from "../trackingKeys.ts"

/** The life of a reservation (CONTRACTS section 2): reserve → confirm, release or expire. */

const reserveStockShape = commandShape({
  tag: "ReserveStock",
  payload: {
    orderId: Schema.String,
    /** ORDER: one PENDING reservation an order; VARIANT: one an order and item. */
    kind: Schema.Literals(["ORDER", "VARIANT"]),
    lines: Schema.Array(
      Schema.Struct({ item: ItemRef, quantity: Schema.Number, stockId: Schema.optional(Schema.String) })
    ),
    expiresInSeconds: Schema.Number,
    locationId: Schema.optional(Schema.String),
    metadata: Schema.optional(Schema.Unknown)
  },
  answer: Schema.Struct({ at: Schema.Number, created: Schema.Boolean, reservation: ReservationAnswer }),
  refusals: [InsufficientStock, ItemNotFound, LocationNotFound, StockNotFound, ReservationFailed]
})
export type ReserveStock = PayloadOf<typeof reserveStockShape>

export const reserveStock = defineCommand(reserveStockShape, {
  // The reservation carries the posting's id.
  keepsAnswer: false,
  weight: ({ lines }) => lines.length,
  needs: (need, { lines, locationId, orderId }) => ({
    order: need.order(orderId),
    cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true }),
    items: lines.map(({ item }) => need.item(item)),
    location: locationId === undefined ? undefined : need.location(locationId)
  }),
  decide: (context, command, { cancelled, items, location, order }) => {
    const { posting } = context
    const { lines, unknown } = wantedOf(context, command, items)
    const asked = lines.map(({ item, quantity, stockId }): Asked =>
      location === undefined
        ? [item.itemId, quantity, stockId]
        : [item.itemId, quantity, stockId, command.locationId!]
    )
    const scope = command.kind === "VARIANT" ? (lines[0]?.item.itemId ?? "") : ""

    const existing = liveReservation(context, order, command.kind, scope, lines)
    if (existing !== undefined) {
      if (existing.reservationId === posting.id) return reserved(context, existing, true)
      if (unknown.length > 0 || !isSameRequest(existing.request, asked)) {
        const { reservationId } = existing
        return refused(new ReservationFailed({ reason: "OTHER_ITEMS", reservationId }))
      }
      return reserved(context, existing, false)
    }
    if (context.tracked(cancelled) !== undefined) {
      return refused(new ReservationFailed({ reason: "ORDER_CANCELLED" }))
    }
    if (unknown.length > 0) return refused(new ItemNotFound({ items: unknown }))
    const discontinued = lines.filter(({ item }) => item.discontinued)
    if (discontinued.length > 0) {
      const named = discontinued.map(({ item }) => item.productVariantId ?? item.sku ?? item.itemId)
      return refused(new ReservationFailed({ reason: "DISCONTINUED_ITEM", items: named }))
    }
    if (location !== undefined && context.location(location) === undefined) {
      return refused(new LocationNotFound({ locationId: location }))
    }
    const elsewhere = lines.find(
      ({ item, stockId }) =>
        stockId !== null && item.stocked && !stocksAt(context, item, command.locationId, stockId).length
    )
    if (elsewhere !== undefined) return refused(new StockNotFound({ item: elsewhere.stockId! }))
    return hold(context, { ...command, scope, asked, lines })
  }
})

/** What is wanted of each item (and stock), lines for the same summed, in the order of their ids. */
const wantedOf = (
  context: PostingContext,
  command: ReserveStock,
  items: ReadonlyArray<ItemKey>
): { readonly lines: ReadonlyArray<Wanted>; readonly unknown: ReadonlyArray<string> } => {
  const wanted = new Map<string, Wanted>()
  const unknown: Array<string> = []
  for (let index = 0; index < items.length; index++) {
    const line = command.lines[index]!
    const item = context.findItem(items[index]!)
    if (item === undefined) {
      unknown.push(nameOf(line.item))
      continue
    }
    const stockId = line.stockId ?? null
    const key = `${item.itemId} ${stockId ?? ""}`
    const same = wanted.get(key)
    if (same === undefined) wanted.set(key, { item, stockId, quantity: line.quantity })
    else same.quantity += line.quantity
  }
  const inOrder = [...wanted.entries()].sort(([a], [b]) => (a < b ? -1 : 1))
  return { lines: inOrder.map(([, line]) => line), unknown }
}

/** Holds all lines under a new reservation, or none. Whatever else may stand against it has been ruled out. */
export const hold = (
  context: PostingContext,
  wanted: Pick<ReserveStock, "orderId" | "kind" | "expiresInSeconds" | "locationId" | "metadata"> & {
    readonly scope: string
    readonly asked: ReadonlyArray<Asked>
    readonly lines: ReadonlyArray<Wanted>
  }
): Decision<AnswerOf<typeof reserveStockShape>, InsufficientStock> => {
  const { asked, expiresInSeconds, kind, lines, locationId, metadata, orderId, scope } = wanted
  const { planned, short } = planOf(context, lines, locationId)
  if (short.length > 0) return refused(new InsufficientStock({ items: short }))
  const reservation = addReservation(context, {
    reservationId: context.posting.id,
    orderId,
    kind,
    scope,
    status: "PENDING",
    expiresAt: context.at + expiresInSeconds * 1000,
    asked,
    metadata: metadata === undefined ? null : JSON.stringify(metadata)
  })
  for (const { item, quantity, stock } of planned) holdLine(context, reservation, item, stock, quantity)
  return reserved(context, reservation, true)
}

/** A repeat asks for the same items; where they are to be taken from is not compared (CONTRACTS section 2). */
const isSameRequest = (request: string, asked: ReadonlyArray<Asked>): boolean =>
  request === JSON.stringify(asked) || withoutPlaces(askedOf({ request })) === withoutPlaces(asked)

const withoutPlaces = (asked: ReadonlyArray<Asked>): string =>
  JSON.stringify(asked.map(([itemId, quantity, stockId]) => [itemId, quantity, stockId]))

/**
 * The reservation that a repeated request is compared with: the live one of the same order and scope, or a sale
 * without reservation of one of its items. One that is due makes way first, as it would for the sweeper, and is live
 * still if part of it was sold.
 */
const liveReservation = (
  context: PostingContext,
  order: OrderKey,
  kind: ReserveStock["kind"],
  scope: string,
  lines: ReadonlyArray<Wanted>
): ReservationRow | undefined => {
  const ofOrder = context.reservationsOf(order)
  // The posting's own second run comes first: whatever has become of the order meanwhile, it made this one.
  const own = ofOrder.find(({ reservationId }) => reservationId === context.posting.id)
  if (own !== undefined) return own
  for (const reservation of ofOrder.toReversed()) {
    if (reservation.kind !== kind || reservation.scope !== scope) continue
    if (reservation.status === "PENDING" && reservation.expiresAt <= context.at) {
      releaseAll(context, reservation, "EXPIRED")
    }
    if (reservation.status === "PENDING" || reservation.status === "CONFIRMED") return reservation
  }
  return ofOrder.findLast(
    (sale) =>
      sale.kind === "SALE" && sale.lines.some((sold) => lines.some(({ item }) => item.itemId === sold.itemId))
  )
}

const releaseReservationShape = commandShape({
  tag: "ReleaseReservation",
  payload: {
    orderId: Schema.String,
    /** Without it, all that the order still holds. Without a quantity, all of that item. */
    line: Schema.optional(Schema.Struct({ item: ItemRef, quantity: Schema.optional(Schema.Number) })),
    reason: Schema.Literals(["RELEASED", "CANCELLED"])
  },
  answer: Schema.Struct({
    at: Schema.Number,
    released: Schema.Boolean,
    quantity: Schema.Number,
    item: Schema.NullOr(ItemFigures)
  }),
  refusals: [ItemNotFound, ReservationNotFound, ReservationAlreadyConfirmed, ReleaseExceedsReservation]
})
export type ReleaseReservation = PayloadOf<typeof releaseReservationShape>

export const releaseReservation = defineCommand(releaseReservationShape, {
  needs: (need, { line, orderId }) => ({
    order: need.order(orderId),
    item: line === undefined ? undefined : need.item(line.item)
  }),
  decide: (context, command, keys) => {
    const { at } = context
    const { orderId } = command
    const ofOrder = context.reservationsOf(keys.order)
    const promises = ofOrder.filter(isPromise)
    if (command.line !== undefined) {
      const item = context.findItem(keys.item!)
      return item === undefined
        ? refused(new ItemNotFound({ items: [nameOf(command.line.item)] }))
        : releaseItem(context, { ...command, item, quantity: command.line.quantity }, promises)
    }
    // An order that was sold without a reservation is known, and confirmed.
    const reservations = promises.length > 0 ? promises : ofOrder
    if (reservations.length === 0) return refused(new ReservationNotFound({ orderId }))
    const pending = reservations.filter(({ status }) => status === "PENDING")
    if (pending.length === 0) {
      const confirmed = reservations.find(({ status }) => status === "CONFIRMED")
      return confirmed === undefined
        ? answered({ at, released: false, quantity: 0, item: null })
        : refused(new ReservationAlreadyConfirmed({ orderId, reservationId: confirmed.reservationId }))
    }
    let quantity = 0
    for (const reservation of pending) quantity += releaseAll(context, reservation, command.reason)
    return answered({ at, released: true, quantity, item: null })
  }
})

const releaseItem = (
  context: PostingContext,
  wanted: Pick<ReleaseReservation, "orderId" | "reason"> &
    Pick<Wanted, "item"> & {
      readonly quantity: number | undefined
    },
  promises: ReadonlyArray<ReservationRow>
): Decision<
  AnswerOf<typeof releaseReservationShape>,
  ReservationNotFound | ReleaseExceedsReservation | ReservationAlreadyConfirmed
> => {
  const { at, unit } = context
  const { item, orderId } = wanted
  const lines = promises.flatMap((reservation) =>
    reservation.lines.filter((line) => line.itemId === item.itemId).map((line) => ({ line, reservation }))
  )
  if (lines.length === 0) return refused(new ReservationNotFound({ orderId }))
  const held = lines.reduce((sum, { line }) => sum + line.open, 0)
  if (wanted.quantity !== undefined && wanted.quantity > held) {
    return refused(new ReleaseExceedsReservation({ orderId, requested: wanted.quantity, held }))
  }
  if (held === 0) {
    const sold = lines.find(({ line }) => line.sold > 0)
    return sold === undefined
      ? answered({ at, released: false, quantity: 0, item: itemFigures(unit, item, at) })
      : refused(new ReservationAlreadyConfirmed({ orderId, reservationId: sold.reservation.reservationId }))
  }
  const quantity = wanted.quantity ?? held
  let open = quantity
  // What was taken last is given back first, so that what expires first stays with the order.
  for (const { line, reservation } of lines.toReversed()) {
    const take = Math.min(open, line.open)
    if (take > 0) releaseFromLine(context, reservation, line, take, wanted.reason)
    open -= take
    endIfNothingOpen(context, reservation, "CANCELLED")
  }
  return answered({ at, released: true, quantity, item: itemFigures(unit, item, at) })
}

const extendReservationShape = commandShape({
  tag: "ExtendReservation",
  payload: { orderId: Schema.String, expiresInSeconds: Schema.Number },
  answer: Schema.Struct({ at: Schema.Number, reservationId: Schema.String, expiresAt: Schema.Number }),
  refusals: [ReservationNotFound, ReservationAlreadyConfirmed, ReservationExpired, ReservationCancelled]
})
export type ExtendReservation = PayloadOf<typeof extendReservationShape>

export const extendReservation = defineCommand(extendReservationShape, {
  needs: (need, { orderId }) => ({ order: need.order(orderId) }),
  decide: (context, { expiresInSeconds, orderId }, keys) => {
    const { at, unit } = context
    const ofOrder = context.reservationsOf(keys.order)
    const reservations = ofOrder.filter(isPromise)
    const last = reservations.at(-1) ?? ofOrder.at(-1)
    if (last === undefined) return refused(new ReservationNotFound({ orderId }))
    const pending = reservations.filter(({ status }) => status === "PENDING")
    if (pending.length === 0) {
      const named = { orderId, reservationId: last.reservationId }
      return refused(
        last.status === "CONFIRMED"
          ? new ReservationAlreadyConfirmed(named)
          : last.status === "EXPIRED"
            ? new ReservationExpired({ ...named, items: [] })
            : new ReservationCancelled(named)
      )
    }
    // At its expiresAt a reservation is over, whether or not a sweeper has been there (CONTRACTS section 7).
    const due = pending.find(({ expiresAt }) => expiresAt <= at)
    if (due !== undefined) {
      return refused(new ReservationExpired({ orderId, reservationId: due.reservationId, items: [] }))
    }
    const expiresAt = at + expiresInSeconds * 1000
    for (const reservation of pending) unit.reservations.update(reservation, { expiresAt, updatedAt: at })
    return answered({ at, reservationId: pending[0]!.reservationId, expiresAt })
  }
})

/** The sweeper's: expires the reservation if it is PENDING and due, and otherwise does nothing. */
const expireReservationShape = commandShape({
  tag: "ExpireReservation",
  payload: { orderId: Schema.String, reservationId: Schema.String },
  answer: Schema.Struct({ at: Schema.Number, expired: Schema.Boolean, expiresAt: Schema.Number }),
  refusals: [ReservationNotFound]
})

export const expireReservation = defineCommand(expireReservationShape, {
  // Harmless to repeat.
  keepsAnswer: false,
  needs: (need, { orderId }) => ({ order: need.order(orderId) }),
  decide: (context, { orderId, reservationId }, keys) => {
    const { at } = context
    const reservation = context
      .reservationsOf(keys.order)
      .find((other) => other.reservationId === reservationId)
    if (reservation === undefined) return refused(new ReservationNotFound({ orderId, reservationId }))
    const { expiresAt } = reservation
    if (reservation.status !== "PENDING" || expiresAt > at) return answered({ at, expired: false, expiresAt })
    releaseAll(context, reservation, "EXPIRED")
    return answered({ at, expired: true, expiresAt })
  }
})

const reserved = (context: PostingContext, reservation: ReservationRow, created: boolean) =>
  answered({ at: context.at, created, reservation: reservationAnswer(context, reservation) })

const reservationAnswer = (
  { unit }: PostingContext,
  reservation: ReservationRow
): typeof ReservationAnswer.Type => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  status: reservation.status,
  expiresAt: reservation.expiresAt,
  lines: reservation.lines.map(({ itemId, merchantId, open, quantity, stockId }) => {
    const item = unit.items.indexes.byId.get(merchantId, itemId)
    const stock = stockId === null ? undefined : unit.stocks.indexes.byId.get(merchantId, stockId)
    return {
      itemId,
      productVariantId: item?.productVariantId ?? null,
      sku: item?.sku ?? null,
      stockId,
      locationId: stock?.locationId ?? null,
      lotNumber: stock === undefined ? null : lotOf(stock),
      quantity,
      open
    }
  })
})
