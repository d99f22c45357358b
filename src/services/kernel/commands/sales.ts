import { Schema } from "effect"
import { ItemNotFound, LocationNotFound } from "../../../schema/Failure.ts"
import { itemOfMessage, locationOf, retireItem } from "../catalogue.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { isExpired } from "../figures.ts"
import {
  addSale,
  endIfNothingOpen,
  isAt,
  releaseAll,
  sellFromLine,
  sellFromStock,
  sellInPlaceOfHeld
} from "../holds.ts"
import type { ItemKey, LocationKey, Needs, OrderKey, TrackingKey } from "../Needs.ts"
import { openCancelledAfterSale } from "../orderDiscrepancies.ts"
import { allocate, byPickOrder } from "../pickOrder.ts"
import { stocksAt } from "../plan.ts"
import { answered, type Decision, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import type { StockRow } from "../tables/stock.ts"
import { orderCancelledKey, saleLineKey, saleStockKey } from "../trackingKeys.ts"

/** Paid sales (CONTRACTS sections 2 and 5, `payment.success`): facts, which the books follow. */

/** One line of a paid sale. Items and locations that are named here first are created. */
const saleLine = Schema.Struct({
  saleOrderItemId: Schema.optional(Schema.String),
  productVariantId: Schema.String,
  quantity: Schema.Number,
  locationId: Schema.optional(Schema.String)
})

export type SaleLine = typeof saleLine.Type

/** In a fact, a line of quantity 0 is nothing (CONTRACTS section 5). */
export const isOfSomething = ({ quantity }: { readonly quantity: number }): boolean => quantity > 0

/** A line with what was locked and read for it. */
export interface Line {
  readonly quantity: number
  readonly productVariantId: string
  readonly item: ItemKey
  readonly location: LocationKey | undefined
  readonly applied: TrackingKey
}

const paidSale = {
  /** The `saleOrderId`: the same order. */
  orderId: Schema.String,
  lines: Schema.Array(saleLine),
  /** Epoch milliseconds. */
  occurredAt: Schema.optional(Schema.Number)
}
const salesAnswer = Schema.Struct({
  at: Schema.Number,
  /** How many lines (after those of one key were summed) had their effect now, had it before, or differ from before. */
  applied: Schema.Number,
  repeated: Schema.Number,
  changed: Schema.Number
})

/**
 * `payment.success`: a fact, never refused. Sells what the order holds, the rest directly and below zero if need be, and
 * releases what was not paid. Lines of the same key (`saleOrderItemId`, else item and location) are summed, and each key
 * has one effect: repeated it has none, and with another quantity a discrepancy says so.
 */
const recordSaleShape = commandShape({
  tag: "RecordSale",
  payload: paidSale,
  answer: salesAnswer,
  refusals: []
})
export type RecordSale = PayloadOf<typeof recordSaleShape>

export const recordSale = defineCommand(recordSaleShape, {
  // Its lines' tracking rows carry the posting's id.
  keepsAnswer: false,
  weight: ({ lines }) => 2 * lines.length,
  needs: (need, sale) => saleKeys(need, sale, true),
  decide: (context, sale, keys) => record(context, sale, keys)
})

/**
 * The same fact over HTTP, where items and locations are unknown until somebody creates them (CONTRACTS section 5): refused
 * for no other reason.
 */
const reportSaleShape = commandShape({
  tag: "ReportSale",
  payload: paidSale,
  answer: salesAnswer,
  refusals: [ItemNotFound, LocationNotFound]
})
export type ReportSale = PayloadOf<typeof reportSaleShape>

export const reportSale = defineCommand(reportSaleShape, {
  keepsAnswer: false,
  weight: ({ lines }) => 2 * lines.length,
  needs: (need, sale) => saleKeys(need, sale, false),
  decide: (context, sale, keys) => unknownOf(context, keys.lines) ?? record(context, sale, keys)
})

export interface SaleKeys {
  readonly order: OrderKey
  readonly cancelled: TrackingKey
  readonly lines: ReadonlyArray<Line>
}

/** `creates`: what is named may be new, and the locks are those of who creates it. */
const saleKeys = (need: Needs, { lines, orderId }: Omit<RecordSale, "_tag">, creates: boolean): SaleKeys => {
  need.locations()
  return {
    order: need.order(orderId),
    // Keys that name an order are under its lock.
    cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true }),
    // A line of nothing is nothing; the others count.
    lines: lines.filter(isOfSomething).map((line): Line => ({
      quantity: line.quantity,
      productVariantId: line.productVariantId,
      item: need.item({ variantId: line.productVariantId }, { creates }),
      location: line.locationId === undefined ? undefined : need.location(line.locationId, { creates }),
      applied: need.tracking(saleLineKey(orderId, line), { isLocked: true, isSubject: true })
    }))
  }
}

const record = (
  context: PostingContext,
  { occurredAt }: Omit<RecordSale, "_tag">,
  { cancelled, lines, order }: SaleKeys
): Decision<typeof salesAnswer.Type> => {
  const { at, posting } = context
  for (const { item, location } of lines) {
    itemOfMessage(context, item)
    if (location !== undefined) locationOf(context, location)
  }
  const counts = { applied: 0, repeated: 0, changed: 0 }
  const fresh: Array<Line> = []
  for (const [applied, ofKey] of Map.groupBy(lines, (line) => line.applied)) {
    const quantities = quantitiesOf(ofKey)
    const before = context.tracked(applied)
    if (before === undefined) {
      context.track(applied, quantities)
      fresh.push(...ofKey)
      counts.applied += 1
    } else if (before.answer !== quantities) {
      openLineChanged(context, order, applied, ofKey, before.answer!)
      counts.changed += 1
    } else if (before.postingId === posting.id) counts.applied += 1
    else counts.repeated += 1
  }
  if (fresh.length > 0) {
    const items = sellPaid(context, order, fresh, occurredAt)
    // What the order holds beyond what was paid is nobody's any more.
    for (const reservation of context.reservationsOf(order)) {
      if (reservation.status === "PENDING") releaseAll(context, reservation, "RELEASED")
    }
    for (const item of items) if (item.deletedAt !== null) retireItem(context, item)
    if (context.tracked(cancelled) !== undefined) openCancelledAfterSale(context, order)
  }
  return answered({ at, ...counts })
}

/** What nobody has created. An item that was deleted is known: it may have been sold before. */
const unknownOf = (
  context: PostingContext,
  lines: ReadonlyArray<Line>
): { readonly refusal: ItemNotFound | LocationNotFound } | undefined => {
  const { byVariant } = context.unit.items.indexes
  const items = lines.filter(({ productVariantId }) => !byVariant.has(context.merchantId, productVariantId))
  if (items.length > 0) {
    return refused(new ItemNotFound({ items: [...new Set(items.map((line) => line.productVariantId))] }))
  }
  const elsewhere = lines.find(
    ({ location }) => location !== undefined && context.location(location) === undefined
  )
  return elsewhere === undefined
    ? undefined
    : refused(new LocationNotFound({ locationId: elsewhere.location! }))
}

/** What lines of one key say, by variant. Where they were taken from may be told with more detail the second time. */
const quantitiesOf = (lines: ReadonlyArray<Line>): string => {
  const quantities = new Map<string, number>()
  for (const { productVariantId, quantity } of lines) {
    quantities.set(productVariantId, (quantities.get(productVariantId) ?? 0) + quantity)
  }
  return JSON.stringify([...quantities].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A line that was sold comes again with other quantities: for a person to look at. */
const openLineChanged = (
  context: PostingContext,
  orderId: OrderKey,
  subject: TrackingKey,
  lines: ReadonlyArray<Line>,
  quantitiesBefore: string
): void => {
  const before: ReadonlyArray<readonly [string, number]> = JSON.parse(quantitiesBefore)
  const now: ReadonlyArray<readonly [string, number]> = JSON.parse(quantitiesOf(lines))
  const first = lines.find(({ productVariantId }) => productVariantId === now[0]![0])!
  const item = itemOfMessage(context, first.item)
  context.openDiscrepancy("SALE_LINE_CHANGED", { item, orderId, subject }, { orderId, before, now })
}

/** What was paid of an item, and where: as far as it has not been sold yet. */
interface Paid {
  readonly item: ItemRow
  readonly location: LocationKey | undefined
  left: number
}

/**
 * Sells what was paid: what was sold already counts, then what the order holds is sold, then the surplus directly. What
 * names a location was sold there: of what the order holds elsewhere for it, as much is given back.
 */
const sellPaid = (
  context: PostingContext,
  order: OrderKey,
  lines: ReadonlyArray<Line>,
  occurredAt: number | undefined
): ReadonlySet<ItemRow> => {
  // Lines that say where come first: what the order holds there is theirs.
  const paid = lines
    .map(({ item, location, quantity }): Paid => ({
      item: itemOfMessage(context, item),
      location,
      left: quantity
    }))
    .toSorted((a, b) => Number(b.location !== undefined) - Number(a.location !== undefined))
  for (const one of paid) coverSold(context, order, one)
  for (const one of paid) sellHeld(context, order, one, occurredAt)
  for (const one of paid) {
    const { item, left: quantity, location } = one
    if (location === undefined || quantity === 0) continue
    const takenThere = (part: number) => takenFor(context, item, part, location)
    const given = { item, quantity, takenFor: takenThere }
    for (const line of sellInPlaceOfHeld(context, linesOf(context, order, one), given, { occurredAt })) {
      pay(context, order, line, line.quantity)
      one.left -= line.quantity
    }
  }
  sellSurplus(context, order, paid, occurredAt)
  return new Set(paid.map(({ item }) => item))
}

interface Held {
  readonly line: LineRow
  readonly reservation: ReservationRow
}

/** The order's lines of an item: those at the place first, if one is meant. */
const linesOf = (context: PostingContext, order: OrderKey, { item, location }: Paid): ReadonlyArray<Held> => {
  const place = { stockId: null, locationId: location }
  return context
    .reservationsOf(order)
    .flatMap((reservation) => reservation.lines.map((line) => ({ line, reservation })))
    .filter(({ line }) => line.itemId === item.itemId)
    .sort((a, b) => Number(isAt(context, b.line, place)) - Number(isAt(context, a.line, place)))
}

/** Takes a payment as being for what the order was sold in another way, wherever that was: it is not sold again. */
const coverSold = (context: PostingContext, order: OrderKey, paid: Paid): void => {
  for (const { line } of linesOf(context, order, paid)) {
    const take = Math.min(paid.left, line.sold - line.paid)
    if (take > 0) pay(context, order, line, take)
    paid.left -= take
  }
}

/** Sells what the order holds, at the place that was paid. */
const sellHeld = (
  context: PostingContext,
  order: OrderKey,
  paid: Paid,
  occurredAt: number | undefined
): void => {
  const place = { stockId: null, locationId: paid.location }
  for (const { line, reservation } of linesOf(context, order, paid)) {
    const take = isAt(context, line, place) ? Math.min(paid.left, line.open) : 0
    if (take === 0) continue
    sellFromLine(context, reservation, line, take, { occurredAt })
    pay(context, order, line, take)
    endIfNothingOpen(context, reservation, "CANCELLED")
    paid.left -= take
  }
}

/** Notes that a payment covers what was sold, and, the first time, that the order was sold from that stock. */
const pay = (context: PostingContext, order: OrderKey, line: LineRow, quantity: number): void => {
  const { stockId } = line
  const isNoted = context
    .reservationsOf(order)
    .some(({ lines }) => lines.some((other) => other.stockId === stockId && other.paid > 0))
  if (stockId !== null && !isNoted) context.track(saleStockKey(order, stockId))
  context.unit.lines.update(line, { paid: line.paid + quantity })
}

/** Sells what the order did not hold: one document for all of it. */
const sellSurplus = (
  context: PostingContext,
  order: OrderKey,
  paid: ReadonlyArray<Paid>,
  occurredAt: number | undefined
): void => {
  const surplus = [
    ...Map.groupBy(
      paid.filter(({ left }) => left > 0),
      ({ item, location }) => `${item.itemId} ${location ?? ""}`
    ).values()
  ].map((same) => ({ ...same[0]!, quantity: same.reduce((sum, { left }) => sum + left, 0) }))
  if (surplus.length === 0) return
  const wants = new Map<string, number>()
  for (const { item, quantity } of surplus) wants.set(item.itemId, (wants.get(item.itemId) ?? 0) + quantity)
  const sale = addSale(
    context,
    order,
    [...wants].sort(([a], [b]) => (a < b ? -1 : 1))
  )
  for (const { item, location, quantity } of surplus) {
    for (const [stock, part] of takenFor(context, item, quantity, location)) {
      pay(context, order, sellFromStock(context, sale, item, stock, part, { occurredAt }), part)
    }
  }
}

/**
 * Where goods that are gone were taken from: from what could be sold; then, at the given or the default location, from
 * what is there but promised to others, damaged or expired; and what is not there is missing from the unnamed lot.
 */
const takenFor = (
  context: PostingContext,
  item: ItemRow,
  quantity: number,
  locationKey: LocationKey | undefined
): Iterable<readonly [StockRow | null, number]> => {
  if (!item.stocked) return [[null, quantity]]
  const { at } = context
  const { picks, short } = allocate(stocksAt(context, item, locationKey), quantity, at)
  const taken = new Map(picks.map((pick) => [pick.stock, pick.quantity]))
  if (short === 0) return taken
  const location = locationOf(context, locationKey)
  const there = stocksAt(context, item, location.locationId).toSorted(
    (a, b) => Number(isExpired(a, at)) - Number(isExpired(b, at)) || byPickOrder(a, b)
  )
  let left = short
  const take = (stock: StockRow, most: number): void => {
    const more = Math.min(left, most)
    if (more <= 0) return
    taken.set(stock, (taken.get(stock) ?? 0) + more)
    left -= more
  }
  for (const stock of there) take(stock, stock.onHand - (taken.get(stock) ?? 0))
  if (left > 0) take(context.stockIn(item, location), left)
  return taken
}
