import type { Answers, RecordSale, SaleLine } from "../../../schema/Posting.ts"
import {
  type Books,
  type ItemRow,
  type LineRow,
  type ReservationRow,
  type StockRow,
  byPick,
  isExpired
} from "./Books.ts"
import { bury, itemOfMessage, locationOf } from "./catalog.ts"
import { type Decision, type Draft, answered } from "./Draft.ts"
import {
  addLine,
  allocate,
  cancelledOrderKey,
  giveBack,
  saleOf,
  sellFromLine,
  settle
} from "./reservations.ts"

/** Paid sales (CONTRACTS sections 2 and 5, `payment.success`): facts, which the books follow. */

/** What a line of a sale is known by. Names from outside hold no control characters. */
export const saleLineKey = (orderId: string, line: SaleLine): string =>
  (line.saleOrderItemId === undefined
    ? ["SALE_ORDER", orderId, "item", line.productVariantId, line.locationId ?? ""]
    : ["SALE_ORDER", orderId, "line", line.saleOrderItemId]
  ).join("\u001f")

/** The stocks that a paid order was sold from. */
export const saleStockKey = (orderId: string, stockId: string): string =>
  ["SALE_ORDER", orderId, "stock", stockId].join("\u001f")

export const recordSale = (draft: Draft, command: RecordSale): Decision<Answers["RecordSale"]> => {
  const { at, books, merchantId, posting } = draft
  const { orderId } = command
  for (const line of command.lines) {
    itemOfMessage(draft, line.productVariantId)
    if (line.locationId !== undefined) locationOf(draft, line.locationId)
  }
  const counts = { applied: 0, repeated: 0, changed: 0 }
  const fresh: Array<SaleLine> = []
  for (const [trackingKey, lines] of Map.groupBy(command.lines, (line) => saleLineKey(orderId, line))) {
    const quantities = quantitiesOf(lines)
    const before = books.tracking.get(merchantId, trackingKey)
    if (before === undefined) {
      books.track({ merchantId, trackingKey, postingId: posting.id, answer: quantities, recordedAt: at })
      fresh.push(...lines)
      counts.applied += 1
    } else if (before.answer !== quantities) {
      noteChange(draft, orderId, trackingKey, { before: before.answer!, now: quantities })
      counts.changed += 1
    } else if (before.postingId === posting.id) counts.applied += 1
    else counts.repeated += 1
  }
  if (fresh.length > 0) {
    const items = sellPaid(draft, command, fresh)
    // What the order holds beyond what was paid is nobody's any more.
    for (const reservation of books.reservationsOf(merchantId, orderId)) {
      if (reservation.status === "PENDING") giveBack(draft, reservation, "RELEASED")
    }
    for (const item of items) if (item.deletedAt !== null) bury(draft, item)
    if (books.tracking.has(merchantId, cancelledOrderKey(orderId))) noteCancelled(draft, orderId)
  }
  return answered({ at, ...counts })
}

/** What a sale may open a discrepancy about that is open already: as a rule nothing, so that nobody need ask. */
export const saleSubjects = (
  books: Books,
  merchantId: string,
  { lines, orderId }: RecordSale,
  at: number
): ReadonlyArray<string> => {
  const subjects: Array<string> = []
  if (books.tracking.has(merchantId, cancelledOrderKey(orderId))) subjects.push(orderId)
  for (const [trackingKey, ofKey] of Map.groupBy(lines, (line) => saleLineKey(orderId, line))) {
    const before = books.tracking.get(merchantId, trackingKey)
    if (before !== undefined && before.answer !== quantitiesOf(ofKey)) subjects.push(trackingKey)
  }
  for (const { productVariantId } of lines) {
    const item = books.itemsByVariant.get(merchantId, productVariantId)
    const stocks = item === undefined ? [] : books.stocksOf(item)
    for (const stock of stocks) if (isExpired(stock, at)) subjects.push(stock.stockId)
  }
  return subjects
}

/** What a line says, by variant. Where it was taken from may be told with more detail the second time. */
const quantitiesOf = (lines: ReadonlyArray<SaleLine>): string => {
  const quantities = new Map<string, number>()
  for (const { productVariantId, quantity } of lines) {
    quantities.set(productVariantId, (quantities.get(productVariantId) ?? 0) + quantity)
  }
  return JSON.stringify([...quantities].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A line that was sold is told again, with other quantities: for a person to look at. */
const noteChange = (
  draft: Draft,
  orderId: string,
  subject: string,
  told: { readonly before: string; readonly now: string }
): void => {
  const before: ReadonlyArray<readonly [string, number]> = JSON.parse(told.before)
  const now: ReadonlyArray<readonly [string, number]> = JSON.parse(told.now)
  const item = itemOfMessage(draft, now[0]![0])
  draft.openDiscrepancy("SALE_LINE_CHANGED", { item, orderId, subject }, { orderId, before, now })
}

/** The order was sold, and it was cancelled or found fraudulent: nothing is put back by itself. */
export const noteCancelled = (draft: Draft, orderId: string): void => {
  const { books, merchantId } = draft
  const sold = books
    .reservationsOf(merchantId, orderId)
    .flatMap(({ lines }) => lines.filter((line) => line.sold > line.returned))
  if (sold.length === 0) return
  const item = books.items.get(merchantId, sold[0]!.itemId)!
  const lines = sold.map((line) => ({
    itemId: line.itemId,
    stockId: line.stockId,
    quantity: line.sold - line.returned
  }))
  draft.openDiscrepancy("CANCELLED_AFTER_SALE", { item, orderId }, { lines })
}

interface Surplus {
  readonly item: ItemRow
  readonly locationId: string | undefined
  quantity: number
}

/** Sells what was paid: what was sold already counts, then what the order holds is sold, then the surplus directly. */
const sellPaid = (
  draft: Draft,
  { occurredAt, orderId }: RecordSale,
  lines: ReadonlyArray<SaleLine>
): ReadonlySet<ItemRow> => {
  const items = new Set<ItemRow>()
  const surplus = new Map<string, Surplus>()
  // Lines that say where come first: what the order holds there is theirs.
  const inOrder = lines.toSorted(
    (a, b) => Number(b.locationId !== undefined) - Number(a.locationId !== undefined)
  )
  for (const { locationId, productVariantId, quantity } of inOrder) {
    const item = itemOfMessage(draft, productVariantId)
    items.add(item)
    const left = sellHeld(draft, { orderId, item, quantity, locationId, occurredAt })
    if (left === 0) continue
    const key = `${item.itemId} ${locationId ?? ""}`
    const same = surplus.get(key)
    if (same === undefined) surplus.set(key, { item, locationId, quantity: left })
    else same.quantity += left
  }
  if (surplus.size > 0) sellSurplus(draft, orderId, [...surplus.values()], occurredAt)
  return items
}

/** Takes a payment as being for what the order was sold in another way, and sells what it holds. Answers what is left. */
const sellHeld = (
  draft: Draft,
  sold: Surplus & { readonly orderId: string; readonly occurredAt: number | undefined }
): number => {
  const { item, locationId, occurredAt, orderId } = sold
  const { books, merchantId } = draft
  const isElsewhere = (line: LineRow): number =>
    Number(
      locationId !== undefined &&
        line.stockId !== null &&
        books.stocks.get(merchantId, line.stockId)!.locationId !== locationId
    )
  const ofItem = books
    .reservationsOf(merchantId, orderId)
    .flatMap((reservation) => reservation.lines.map((line) => ({ line, reservation })))
    .filter(({ line }) => line.itemId === item.itemId)
    .sort((a, b) => isElsewhere(a.line) - isElsewhere(b.line))
  let left = sold.quantity
  for (const { line } of ofItem) {
    const take = Math.min(left, line.sold - line.paid)
    if (take > 0) pay(draft, orderId, line, take)
    left -= take
  }
  for (const { line, reservation } of ofItem) {
    const take = Math.min(left, line.open)
    if (take > 0) {
      sellFromLine(draft, reservation, line, take, { occurredAt })
      pay(draft, orderId, line, take)
      settle(draft, reservation, "CANCELLED")
    }
    left -= take
  }
  return left
}

/** Notes that a payment has spoken of what was sold, and, the first time, that the order was sold from that stock. */
const pay = (draft: Draft, orderId: string, line: LineRow, quantity: number): void => {
  const { at, books, merchantId, posting } = draft
  const { stockId } = line
  const isNoted = books
    .reservationsOf(merchantId, orderId)
    .some(({ lines }) => lines.some((other) => other.stockId === stockId && other.paid > 0))
  if (stockId !== null && !isNoted) {
    const trackingKey = saleStockKey(orderId, stockId)
    books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  }
  books.change(books.changed.lines, line, { paid: line.paid + quantity })
}

/** Sells what the order did not hold: one document for all of it. */
const sellSurplus = (
  draft: Draft,
  orderId: string,
  surplus: ReadonlyArray<Surplus>,
  occurredAt: number | undefined
): void => {
  const wants = new Map<string, number>()
  for (const { item, quantity } of surplus) wants.set(item.itemId, (wants.get(item.itemId) ?? 0) + quantity)
  const sale = saleOf(
    draft,
    orderId,
    [...wants].sort(([a], [b]) => (a < b ? -1 : 1))
  )
  for (const { item, locationId, quantity } of surplus) {
    if (!item.stocked) {
      pay(draft, orderId, addLine(draft, sale, item, null, quantity, { open: 0, sold: quantity }), quantity)
      continue
    }
    for (const [stock, taken] of takenFor(draft, item, quantity, locationId)) {
      sellFromStock(draft, sale, { item, stock, quantity: taken, occurredAt })
    }
  }
}

const sellFromStock = (
  draft: Draft,
  sale: ReservationRow,
  sold: {
    readonly item: ItemRow
    readonly stock: StockRow
    readonly quantity: number
    readonly occurredAt: number | undefined
  }
): void => {
  const { item, occurredAt, quantity, stock } = sold
  const { orderId, reservationId } = sale
  const line = addLine(draft, sale, item, stock, quantity, { open: 0, sold: quantity })
  pay(draft, orderId, line, quantity)
  draft.move(stock, "SALE", { onHand: -quantity }, { source: "ORDER", orderId, reservationId, occurredAt })
  if (isExpired(stock, draft.at)) {
    draft.openDiscrepancy(
      "EXPIRED_LOT_SOLD",
      { item, stock, orderId },
      { quantity, lotNumber: stock.lotNumber }
    )
  }
}

/**
 * Where goods that are gone were taken from: from what could be sold; then, at the given or the default location, from
 * what is there but promised to others, damaged or expired; and what is not there is missing from the unnamed lot.
 */
const takenFor = (
  draft: Draft,
  item: ItemRow,
  quantity: number,
  locationId: string | undefined
): ReadonlyMap<StockRow, number> => {
  const { at, books } = draft
  const stocks = books
    .stocksOf(item)
    .filter((stock) => locationId === undefined || stock.locationId === locationId)
  const { picks, short } = allocate(stocks, quantity, at)
  const taken = new Map(picks.map((pick) => [pick.stock, pick.quantity]))
  if (short === 0) return taken
  const location = locationOf(draft, locationId)
  const there = books
    .stocksOf(item)
    .filter((stock) => stock.locationId === location.locationId)
    .sort((a, b) => Number(isExpired(a, at)) - Number(isExpired(b, at)) || byPick(a, b))
  let left = short
  const take = (stock: StockRow, most: number): void => {
    const more = Math.min(left, most)
    if (more <= 0) return
    taken.set(stock, (taken.get(stock) ?? 0) + more)
    left -= more
  }
  for (const stock of there) take(stock, stock.onHand - (taken.get(stock) ?? 0))
  if (left > 0) take(draft.stockIn(item, location), left)
  return taken
}
