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
  asked,
  claim,
  endIfNothingOpen,
  holdLine,
  isPromise,
  releaseAll,
  releaseFromLine
} from "../holds.ts"
import type { ItemKey, LocationKey, Needs, OrderKey } from "../Needs.ts"
import { mostNamedFirst, planOf, stocksAt, type Wanted } from "../plan.ts"
import { type Decision, answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import { orderCancelledKey } from "../trackingKeys.ts"

/** The life of a reservation (CONTRACTS section 2): reserve → confirm, release or expire. */

/** What is wanted of items, and from where as far as that is said. */
export const wantedLines = Schema.Array(
  Schema.Struct({
    item: ItemRef,
    quantity: Schema.Number,
    stockId: Schema.optional(Schema.String),
    locationId: Schema.optional(Schema.String),
    lotNumber: Schema.optional(Schema.String)
  })
)

/** Answers of earlier versions did not say what of a line was sold: of one that was confirmed, all that was not open. */
const withSold = (kept: unknown): unknown => {
  const { reservation, ...answer } = kept as { readonly reservation: ReservationAnswer }
  const lines = reservation.lines.map((line) => ({
    ...line,
    sold: reservation.status === "CONFIRMED" ? line.quantity - line.open : 0
  }))
  return { ...answer, reservation: { ...reservation, lines } }
}

const reserveStockShape = commandShape({
  tag: "ReserveStock",
  payload: {
    orderId: Schema.String,
    /** ORDER: one PENDING reservation an order; VARIANT: one an order and item. */
    kind: Schema.Literals(["ORDER", "VARIANT"]),
    lines: wantedLines,
    expiresInSeconds: Schema.Number,
    /** Of the lines that name none. */
    locationId: Schema.optional(Schema.String),
    metadata: Schema.optional(Schema.Unknown)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** False where the order had it already: then it is as it stands now. */
    created: Schema.Boolean,
    reservation: ReservationAnswer
  }),
  version: 2,
  upgrade: (kept, version) => (version === 1 ? withSold(kept) : kept),
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
    locations: locationsNamed(need, [{ locationId }, ...lines])
  }),
  decide: (context, command, { cancelled, items, locations, order }) => {
    const { posting } = context
    const { lines, unknown } = wantedOf(context, command.lines, items, command.locationId)
    const scope = command.kind === "VARIANT" ? (lines[0]?.item.itemId ?? "") : ""

    const existing = liveReservation(context, order, command.kind, scope, lines)
    if (existing !== undefined) {
      if (existing.reservationId === posting.id) return reserved(context, existing, true)
      // Where the request as a whole is to be taken from is no part of what is wanted.
      const { lines: wanted } = wantedOf(context, command.lines, items)
      if (unknown.length > 0 || !isWhatItHas(context, existing, scope, wanted)) {
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
    const unknownPlace = unknownPlaceOf(context, locations, lines)
    if (unknownPlace !== undefined) return unknownPlace
    return hold(context, { ...command, scope, lines })
  }
})

/** The locations that requests name, each once. */
export const locationsNamed = (
  need: Needs,
  places: ReadonlyArray<{ readonly locationId?: string | undefined }>
): ReadonlyArray<LocationKey> => {
  const named = new Set(places.flatMap(({ locationId }) => (locationId === undefined ? [] : [locationId])))
  return [...named].map((locationId) => need.location(locationId))
}

/** A location that is not there, or a stock that is not the item's or not where it is wanted from. */
export const unknownPlaceOf = (
  context: PostingContext,
  locations: ReadonlyArray<LocationKey>,
  lines: ReadonlyArray<Wanted>
): { readonly refusal: LocationNotFound | StockNotFound } | undefined => {
  const unknown = locations.find((location) => context.location(location) === undefined)
  if (unknown !== undefined) return refused(new LocationNotFound({ locationId: unknown }))
  const elsewhere = lines.find(
    ({ item, locationId, stockId }) =>
      stockId !== null && item.stocked && !stocksAt(context, item, locationId, stockId).length
  )
  return elsewhere === undefined ? undefined : refused(new StockNotFound({ item: elsewhere.stockId! }))
}

/** What is wanted of each item (and place), lines for the same summed, in the order of their ids. */
export const wantedOf = (
  context: PostingContext,
  given: typeof wantedLines.Type,
  items: ReadonlyArray<ItemKey>,
  /** Of the lines that name none. */
  otherwiseAt?: string
): { readonly lines: ReadonlyArray<Wanted>; readonly unknown: ReadonlyArray<string> } => {
  const wanted = new Map<string, Wanted>()
  const unknown: Array<string> = []
  for (let index = 0; index < items.length; index++) {
    const line = given[index]!
    const item = context.findItem(items[index]!)
    if (item === undefined) {
      unknown.push(nameOf(line.item))
      continue
    }
    const { locationId = otherwiseAt, lotNumber, quantity } = line
    const stockId = line.stockId ?? null
    const key = [item.itemId, stockId ?? "", locationId ?? "", lotNumber ?? ""].join("\u001f")
    const same = wanted.get(key)
    if (same === undefined) wanted.set(key, { item, stockId, locationId, lotNumber, quantity })
    else same.quantity += line.quantity
  }
  const inOrder = [...wanted.entries()].sort(([a], [b]) => (a < b ? -1 : 1))
  return { lines: inOrder.map(([, line]) => line), unknown }
}

/** Holds all lines under a new reservation, or none. Whatever else may stand against it has been ruled out. */
export const hold = (
  context: PostingContext,
  wanted: Pick<ReserveStock, "orderId" | "kind" | "expiresInSeconds" | "metadata"> & {
    readonly scope: string
    readonly lines: ReadonlyArray<Wanted>
  }
): Decision<AnswerOf<typeof reserveStockShape>, InsufficientStock> => {
  const { expiresInSeconds, kind, lines, metadata, orderId, scope } = wanted
  const { planned, short } = planOf(context, lines)
  if (short.length > 0) return refused(new InsufficientStock({ items: short }))
  const reservation = addReservation(context, {
    reservationId: context.posting.id,
    orderId,
    kind,
    scope,
    status: "PENDING",
    expiresAt: context.at + expiresInSeconds * 1000,
    asked: lines.map((line) => asked(line.item.itemId, line.quantity, line)),
    metadata: metadata === undefined ? null : JSON.stringify(metadata)
  })
  for (const { item, quantity, stock } of planned) holdLine(context, reservation, item, stock, quantity)
  return reserved(context, reservation, true)
}

/**
 * Whether what is wanted is what a reservation holds now, or was sold once it holds nothing (CONTRACTS section 2). Where it
 * lies is compared for lines that say so.
 */
const isWhatItHas = (
  context: PostingContext,
  { lines, status }: ReservationRow,
  scope: string,
  wanted: ReadonlyArray<Wanted>
): boolean => {
  const left = new Map(
    lines
      .filter(({ itemId }) => scope === "" || itemId === scope)
      .map((line) => [line, status === "PENDING" ? line.open : line.sold])
  )
  return (
    mostNamedFirst(wanted).every((each) => claim(context, left, each) === 0) &&
    [...left.values()].every((quantity) => quantity === 0)
  )
}

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
    /** False where the order held nothing of it any more. */
    applied: Schema.Boolean,
    quantity: Schema.Number,
    item: Schema.NullOr(ItemFigures)
  }),
  version: 2,
  upgrade: (kept, version) => {
    if (version > 1) return kept
    const { released, ...answer } = kept as { readonly released: boolean }
    return { ...answer, applied: released }
  },
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
        ? answered({ at, applied: false, quantity: 0, item: null })
        : refused(new ReservationAlreadyConfirmed({ orderId, reservationId: confirmed.reservationId }))
    }
    let quantity = 0
    for (const reservation of pending) quantity += releaseAll(context, reservation, command.reason)
    return answered({ at, applied: true, quantity, item: null })
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
      ? answered({ at, applied: false, quantity: 0, item: itemFigures(unit, item, at) })
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
  return answered({ at, applied: true, quantity, item: itemFigures(unit, item, at) })
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
    const pending = pendingOf(context, orderId, keys.order)
    if ("refusal" in pending) return pending
    const expiresAt = at + expiresInSeconds * 1000
    for (const reservation of pending.found)
      unit.reservations.update(reservation, { expiresAt, updatedAt: at })
    return answered({ at, reservationId: pending.found[0]!.reservationId, expiresAt })
  }
})

/** What an order holds that can still be changed, or why there is nothing of it. */
export const pendingOf = (
  context: PostingContext,
  orderId: string,
  order: OrderKey
):
  | { readonly found: ReadonlyArray<ReservationRow> }
  | {
      readonly refusal:
        | ReservationNotFound
        | ReservationAlreadyConfirmed
        | ReservationExpired
        | ReservationCancelled
    } => {
  const ofOrder = context.reservationsOf(order)
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
  const due = pending.find(({ expiresAt }) => expiresAt <= context.at)
  return due === undefined
    ? { found: pending }
    : refused(new ReservationExpired({ orderId, reservationId: due.reservationId, items: [] }))
}

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

/** `lines`: those of the order's other reservations with it, where they were changed together. */
export const reservationAnswer = (
  { unit }: PostingContext,
  reservation: ReservationRow,
  lines: ReadonlyArray<LineRow> = reservation.lines
): ReservationAnswer => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  status: reservation.status,
  expiresAt: reservation.expiresAt,
  lines: lines.map(({ itemId, merchantId, open, quantity, sold, stockId }) => {
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
      open,
      sold
    }
  })
})
