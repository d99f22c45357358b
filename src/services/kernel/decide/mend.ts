import { ItemNotFound, ReservationNotFound } from "../../../schema/Failure.ts"
import type { Answers, MendItem, MendReservation, Mended } from "../../../schema/Posting.ts"
import {
  type ItemRow,
  type LineRow,
  type MovedRow,
  type ReservationRow,
  type StockRow,
  type StockTruth,
  sellableOf,
  statusOf
} from "./Books.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"
import { addLine } from "./reservations.ts"

/**
 * What `audit --repair` does to the books (decision 0009). The ledger is the truth of stock, and is never rewritten: what
 * was changed beside it is made again from it, silently, because the events told what the ledger says. What a document
 * promises and the ledger does not have is made up for by a movement, with its events like any other.
 */

/** Rebuilds an item's stocks from the ledger, its totals and status from its stocks, its discrepancies from both. */
export const mendItem = (draft: Draft, command: MendItem): Decision<Answers["MendItem"]> => {
  const { at, books, merchantId } = draft
  const item = books.items.get(merchantId, command.itemId)
  if (item === undefined) return refused(new ItemNotFound({ items: [command.itemId] }))
  const before = figuresOf(draft, item)
  for (const stock of books.stocksOf(item)) {
    const truth = books.truths.get(merchantId, stock.stockId)!
    if (command.acknowledged.includes(stock.stockId)) goOnFrom(draft, stock, truth, command.reason)
    else rebuild(draft, stock, truth)
  }
  addUp(draft, item, command.eventsTold)
  // What happens from here on is news, and is told.
  draft.touch(item)
  for (const stock of books.stocksOf(item)) {
    const reserved = books.truths.get(merchantId, stock.stockId)!.open - stock.reserved
    if (command.settles && reserved !== 0) {
      draft.move(stock, "ADJUSTMENT", { reserved }, { source: "MANUAL_ADJUSTMENT", reason: command.reason })
    }
    draft.followBalance(stock, item)
  }
  return answered({ at, mended: log(draft, command, before, figuresOf(draft, item)) })
}

/** The stock's balances as its ledger has them. Movements that are missing at the end are not made up by forgetting. */
const rebuild = (draft: Draft, stock: StockRow, truth: StockTruth): void => {
  const { books } = draft
  const { onHand, recordedAt, reserved, sequence, unallocatable } = truth
  if (sequence < stock.sequence) return
  const isSame =
    sequence === stock.sequence &&
    onHand === stock.onHand &&
    reserved === stock.reserved &&
    unallocatable === stock.unallocatable
  if (isSame) return
  books.change(books.changed.stocks, stock, {
    onHand,
    reserved,
    unallocatable,
    sequence,
    updatedAt: Math.max(stock.updatedAt, recordedAt),
    // The flag goes with the balances in one write, which the table's check looks at.
    discrepancy: onHand < 0 || (reserved + unallocatable > onHand && reserved + unallocatable > 0)
  })
}

/** A broken ledger is acknowledged: the chain goes on from what the stock has, after all that was recorded. */
const goOnFrom = (draft: Draft, stock: StockRow, truth: StockTruth, reason: string): void => {
  const { at, books, posting } = draft
  const sequence = Math.max(stock.sequence, truth.sequence)
  const recordedAt = Math.max(stock.updatedAt, truth.recordedAt)
  if (sequence !== stock.sequence || recordedAt !== stock.updatedAt) {
    books.change(books.changed.stocks, stock, { sequence, updatedAt: recordedAt })
  }
  const { merchantId, onHand, reserved, stockId, unallocatable } = stock
  books.insert(books.written.checkpoints, {
    merchantId,
    stockId,
    sequence,
    recordedAt,
    onHand,
    reserved,
    unallocatable,
    kind: "CHECKPOINT",
    actor: posting.caller.actor,
    reason,
    createdAt: at
  })
}

const addUp = (draft: Draft, item: ItemRow, eventsTold: number | undefined): void => {
  const { at, books } = draft
  const stocks = books.stocksOf(item)
  const sum = (of: (stock: StockRow) => number): number =>
    stocks.reduce((total, stock) => total + of(stock), 0)
  const figures = {
    onHand: sum(({ onHand }) => onHand),
    reserved: sum(({ reserved }) => reserved),
    unallocatable: sum(({ unallocatable }) => unallocatable),
    status: statusOf(item, sellableOf(stocks, at)),
    // A number that was told may not be told again.
    eventSequence: Math.max(item.eventSequence, eventsTold ?? 0)
  }
  const isSame = (Object.keys(figures) as ReadonlyArray<keyof typeof figures>).every(
    (name) => figures[name] === item[name]
  )
  if (!isSame) books.change(books.changed.items, item, figures)
}

/**
 * Settles a reservation with the ledger. What it has sold and taken back is what the ledger says; what it holds is what
 * its lines say, and a movement makes the stock follow; its status follows from both.
 */
export const mendReservation = (
  draft: Draft,
  command: MendReservation
): Decision<Answers["MendReservation"]> => {
  const { at, books, merchantId } = draft
  const { orderId, reservationId } = command
  const reservation =
    books.reservationsOf(merchantId, orderId).find((other) => other.reservationId === reservationId) ??
    restored(draft, command)
  if (reservation === undefined) return refused(new ReservationNotFound({ orderId, reservationId }))
  const before = documentOf(reservation)
  const moved = books.moved.get(merchantId, reservationId) ?? []
  const stockIds = new Set([
    ...moved.map(({ stockId }) => stockId),
    ...reservation.lines.flatMap(({ stockId }) => (stockId === null ? [] : [stockId]))
  ])
  for (const stockId of stockIds) {
    const stock = books.stocks.get(merchantId, stockId)
    // A stock that is not this merchant's, or not of a locked item: no movement can be made there.
    if (stock === undefined) continue
    const ledger = moved.find((row) => row.stockId === stockId) ?? noMovement(stockId)
    followSales(draft, reservation, stock, ledger)
    followHeld(draft, command, reservation, stock, ledger)
  }
  followLines(draft, reservation, command.reason)
  return answered({ at, mended: log(draft, command, before, documentOf(reservation)) })
}

const noMovement = (stockId: string): MovedRow => ({ stockId, open: 0, sold: 0, returned: 0 })

/** What left the shelf, and what came back, is what the ledger says: the lines follow. */
const followSales = (draft: Draft, reservation: ReservationRow, stock: StockRow, ledger: MovedRow): void => {
  const { books } = draft
  const lines = reservation.lines.filter(({ stockId }) => stockId === stock.stockId)
  const sum = (of: (line: LineRow) => number): number => lines.reduce((total, line) => total + of(line), 0)
  let surplus = sum(({ sold }) => sold) - ledger.sold
  for (const line of lines) {
    if (surplus === 0) break
    // Too much was written down as sold: it counts as given back. Too little: of what counts as given back.
    const change = surplus > 0 ? Math.min(surplus, line.sold) : -Math.min(-surplus, line.released)
    if (change === 0) continue
    const sold = line.sold - change
    const released = line.released + change
    books.change(books.changed.lines, line, {
      sold,
      released,
      expired: Math.min(line.expired, released),
      returned: Math.min(line.returned, sold),
      paid: Math.min(line.paid, sold)
    })
    surplus -= change
  }
  if (surplus < 0) {
    const item = books.items.get(stock.merchantId, stock.itemId)!
    lines.push(addLine(draft, reservation, item, stock, -surplus, { open: 0, sold: -surplus }))
  }
  let returned = ledger.returned
  for (const line of lines) {
    const takes = Math.min(returned, line.sold)
    if (takes !== line.returned) books.change(books.changed.lines, line, { returned: takes })
    returned -= takes
  }
}

/** What the lines hold is promised: the stock follows by a movement. */
const followHeld = (
  draft: Draft,
  command: MendReservation,
  reservation: ReservationRow,
  stock: StockRow,
  ledger: MovedRow
): void => {
  const open = reservation.lines
    .filter(({ stockId }) => stockId === stock.stockId)
    .reduce((sum, line) => sum + line.open, 0)
  const reserved = open - ledger.open
  if (reserved === 0) return
  draft.move(
    stock,
    reserved > 0 ? "ORDER_ALLOCATE" : "ORDER_RELEASE",
    { reserved },
    {
      source: "ORDER",
      orderId: reservation.orderId,
      reservationId: reservation.reservationId,
      reason: command.reason,
      releaseReason: reserved > 0 ? undefined : "RELEASED"
    }
  )
}

/** One that holds is PENDING, unless the order has another one in its place: then it gives back what it holds. */
const followLines = (draft: Draft, reservation: ReservationRow, reason: string): void => {
  const { at, books, merchantId } = draft
  const isTaken = books
    .reservationsOf(merchantId, reservation.orderId)
    .some(
      (other) =>
        other !== reservation &&
        other.status === "PENDING" &&
        other.kind === reservation.kind &&
        other.scope === reservation.scope
    )
  if (isTaken && reservation.status !== "PENDING") giveBack(draft, reservation, reason)
  const isSold = reservation.lines.some(({ sold }) => sold > 0)
  const status = reservation.lines.some(({ open }) => open > 0)
    ? "PENDING"
    : isSold
      ? "CONFIRMED"
      : reservation.status === "EXPIRED"
        ? "EXPIRED"
        : "CANCELLED"
  if (status !== reservation.status) {
    books.change(books.changed.reservations, reservation, { status, updatedAt: at })
  }
}

const giveBack = (draft: Draft, reservation: ReservationRow, reason: string): void => {
  const { books, merchantId } = draft
  const { orderId, reservationId } = reservation
  for (const line of reservation.lines) {
    if (line.open === 0) continue
    const { open, stockId } = line
    books.change(books.changed.lines, line, { open: 0, released: line.released + open })
    const stock = stockId === null ? undefined : books.stocks.get(merchantId, stockId)
    if (stock === undefined) continue
    draft.move(
      stock,
      "ORDER_RELEASE",
      { reserved: -open },
      { source: "ORDER", orderId, reservationId, reason, releaseReason: "RELEASED" }
    )
  }
}

/**
 * A reservation that is gone, from the lines that it has left and from what it moved: due at once, so that the sweeper
 * gives back what it holds by the rules of every day.
 */
const restored = (draft: Draft, command: MendReservation): ReservationRow | undefined => {
  const { at, books, merchantId } = draft
  const lines = books.orphans.get(merchantId, command.reservationId) ?? []
  const moved = books.moved.get(merchantId, command.reservationId) ?? []
  if (lines.length + moved.length === 0) return undefined
  const asked = new Map<string, number>()
  const ask = (itemId: string, quantity: number): unknown =>
    asked.set(itemId, (asked.get(itemId) ?? 0) + quantity)
  for (const { itemId, quantity } of lines) ask(itemId, quantity)
  for (const { sold, stockId } of moved) {
    if (lines.every((line) => line.stockId !== stockId)) {
      ask(books.stocks.get(merchantId, stockId)!.itemId, sold)
    }
  }
  const reservation: ReservationRow = {
    merchantId,
    reservationId: command.reservationId,
    orderId: command.orderId,
    kind: "VARIANT",
    // Of no item: in nobody's way.
    scope: command.reservationId,
    status: "CANCELLED",
    request: JSON.stringify([...asked].map(([itemId, quantity]) => [itemId, quantity, null])),
    metadata: null,
    expiresAt: at,
    createdAt: Math.min(at, command.since),
    updatedAt: at,
    lines: [...lines]
  }
  books.insert(books.written.reservations, reservation)
  books.append(books.reservationsOfOrder, merchantId, command.orderId, reservation)
  return reservation
}

type Figures = Readonly<Record<string, unknown>>

const figuresOf = ({ books }: Draft, item: ItemRow): Figures => ({
  onHand: item.onHand,
  reserved: item.reserved,
  unallocatable: item.unallocatable,
  status: item.status,
  eventSequence: item.eventSequence,
  stocks: books.stocksOf(item).map(({ discrepancy, onHand, reserved, sequence, stockId, unallocatable }) => ({
    stockId,
    onHand,
    reserved,
    unallocatable,
    sequence,
    discrepancy
  }))
})

const documentOf = ({ lines, status }: ReservationRow): Figures => ({
  status,
  lines: lines.map(({ expired, lineNumber, open, quantity, released, returned, sold, stockId }) => ({
    lineNumber,
    stockId,
    quantity,
    open,
    sold,
    released,
    expired,
    returned
  }))
})

/** One row for each finding that this answers. */
const log = (
  draft: Draft,
  command: MendItem | MendReservation,
  before: Figures,
  after: Figures
): ReadonlyArray<Mended> =>
  command.findings.map(({ acknowledges, check, finding, subject }) => {
    const mended = { finding, subject, action: acknowledges ? "ACKNOWLEDGE" : command._tag, before, after }
    draft.books.insert(draft.books.written.repairs, {
      merchantId: draft.merchantId,
      repairId: draft.nextId(),
      finding,
      invariant: check,
      action: mended.action,
      subject,
      before,
      after,
      actor: draft.posting.caller.actor,
      reason: command.reason,
      repairedAt: draft.at
    })
    return mended
  })
