import { Schema } from "effect"
import { itemOfMessage, locationOf, retireItem } from "../catalogue.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { isExpired } from "../figures.ts"
import { addSale, endIfNothingOpen, releaseAll, sellFromLine, sellFromStock } from "../holds.ts"
import type { ItemKey, LocationKey, OrderKey, TrackingKey } from "../Needs.ts"
import { allocate, byPickOrder } from "../pickOrder.ts"
import { stocksAt } from "../plan.ts"
import { answered } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { LineRow } from "../tables/reservations.ts"
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

/** A line with what was locked and read for it. */
export interface Line {
  readonly quantity: number
  readonly productVariantId: string
  readonly item: ItemKey
  readonly location: LocationKey | undefined
  readonly applied: TrackingKey
}

/**
 * `payment.success`: a fact, never refused. Sells what the order holds, the rest directly and below zero if need be, and
 * releases what was not paid. Lines of the same key (`saleOrderItemId`, else item and location) are summed, and each key
 * has one effect: repeated it has none, and with another quantity a discrepancy says so.
 */
const recordSaleShape = commandShape({
  tag: "RecordSale",
  payload: {
    /** The `saleOrderId`: the same order. */
    orderId: Schema.String,
    lines: Schema.Array(saleLine),
    /** Epoch milliseconds. */
    occurredAt: Schema.optional(Schema.Number)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** How many lines (after those of one key were summed) had their effect now, had it before, or differ from before. */
    applied: Schema.Number,
    repeated: Schema.Number,
    changed: Schema.Number
  }),
  refusals: []
})
export type RecordSale = PayloadOf<typeof recordSaleShape>

export const recordSale = defineCommand(recordSaleShape, {
  // Its lines' tracking rows carry the posting's id.
  keepsAnswer: false,
  weight: ({ lines }) => 2 * lines.length,
  // What messages name may be new: the locks are those of who creates it. Keys that name an order are under its lock.
  needs: (need, { lines, orderId }) => {
    need.locations()
    return {
      order: need.order(orderId),
      cancelled: need.tracking(orderCancelledKey(orderId), { isLocked: true }),
      lines: lines.map((line): Line => ({
        quantity: line.quantity,
        productVariantId: line.productVariantId,
        item: need.item({ variantId: line.productVariantId }, { creates: true }),
        location:
          line.locationId === undefined ? undefined : need.location(line.locationId, { creates: true }),
        applied: need.tracking(saleLineKey(orderId, line), { isLocked: true, isSubject: true })
      }))
    }
  },
  decide: (context, { occurredAt }, { cancelled, lines, order }) => {
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
})

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

/** The order was sold, and it was cancelled or found fraudulent: nothing is put back by itself. */
export const openCancelledAfterSale = (context: PostingContext, orderId: OrderKey): void => {
  const sold = context
    .reservationsOf(orderId)
    .flatMap((reservation) => reservation.lines.filter((line) => line.sold > line.returned))
  if (sold.length === 0) return
  const item = context.unit.items.indexes.byId.get(context.merchantId, sold[0]!.itemId)!
  const lines = sold.map((line) => ({
    itemId: line.itemId,
    stockId: line.stockId,
    quantity: line.sold - line.returned
  }))
  context.openDiscrepancy("CANCELLED_AFTER_SALE", { item, orderId }, { lines })
}

interface Surplus {
  readonly item: ItemRow
  readonly location: LocationKey | undefined
  quantity: number
}

/** Sells what was paid: what was sold already counts, then what the order holds is sold, then the surplus directly. */
const sellPaid = (
  context: PostingContext,
  order: OrderKey,
  lines: ReadonlyArray<Line>,
  occurredAt: number | undefined
): ReadonlySet<ItemRow> => {
  const items = new Set<ItemRow>()
  const surplus = new Map<string, Surplus>()
  // Lines that say where come first: what the order holds there is theirs.
  const inOrder = lines.toSorted(
    (a, b) => Number(b.location !== undefined) - Number(a.location !== undefined)
  )
  for (const { item: key, location, quantity } of inOrder) {
    const item = itemOfMessage(context, key)
    items.add(item)
    const left = sellHeld(context, order, { item, quantity, location }, occurredAt)
    if (left === 0) continue
    const place = `${item.itemId} ${location ?? ""}`
    const same = surplus.get(place)
    if (same === undefined) surplus.set(place, { item, location, quantity: left })
    else same.quantity += left
  }
  if (surplus.size > 0) sellSurplus(context, order, [...surplus.values()], occurredAt)
  return items
}

/** Takes a payment as being for what the order was sold in another way, and sells what it holds. Answers what is left. */
const sellHeld = (
  context: PostingContext,
  order: OrderKey,
  { item, location, quantity }: Surplus,
  occurredAt: number | undefined
): number => {
  const { byId } = context.unit.stocks.indexes
  const isElsewhere = ({ merchantId, stockId }: LineRow): number =>
    Number(
      location !== undefined && stockId !== null && byId.get(merchantId, stockId)!.locationId !== location
    )
  const ofItem = context
    .reservationsOf(order)
    .flatMap((reservation) => reservation.lines.map((line) => ({ line, reservation })))
    .filter(({ line }) => line.itemId === item.itemId)
    .sort((a, b) => isElsewhere(a.line) - isElsewhere(b.line))
  let left = quantity
  for (const { line } of ofItem) {
    const take = Math.min(left, line.sold - line.paid)
    if (take > 0) pay(context, order, line, take)
    left -= take
  }
  for (const { line, reservation } of ofItem) {
    const take = Math.min(left, line.open)
    if (take > 0) {
      sellFromLine(context, reservation, line, take, { occurredAt })
      pay(context, order, line, take)
      endIfNothingOpen(context, reservation, "CANCELLED")
    }
    left -= take
  }
  return left
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
  surplus: ReadonlyArray<Surplus>,
  occurredAt: number | undefined
): void => {
  const wants = new Map<string, number>()
  for (const { item, quantity } of surplus) wants.set(item.itemId, (wants.get(item.itemId) ?? 0) + quantity)
  const sale = addSale(
    context,
    order,
    [...wants].sort(([a], [b]) => (a < b ? -1 : 1))
  )
  for (const { item, location, quantity } of surplus) {
    const taken = item.stocked ? takenFor(context, item, quantity, location) : [[null, quantity] as const]
    for (const [stock, part] of taken) {
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
): Iterable<readonly [StockRow, number]> => {
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
