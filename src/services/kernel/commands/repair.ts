import { Schema } from "effect"
import { balanceDiscrepancies } from "../../../schema/Discrepancy.ts"
import { ItemNotFound, ReservationNotFound } from "../../../schema/Failure.ts"
import { statusOf } from "../../../schema/Item.ts"
import { kindOf } from "../../../schema/Reservation.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { sellableOf } from "../figures.ts"
import { addLine, addReservation, type Asked } from "../holds.ts"
import { answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { type MovedRow, readRepairs, repairReadings, type StockTruth } from "../repairReads.ts"
import type { ItemRow } from "../tables/catalog.ts"
import { checkpoints, repairs } from "../tables/repair.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import type { StockRow } from "../tables/stock.ts"

/**
 * What `audit --repair` does to the books (decision 0009). The ledger is the truth of stock, and is never rewritten: what
 * was changed beside it is made again from it, silently, because events said what the ledger says. What a document
 * promises and the ledger does not have is made up for by a movement, with its events like any other.
 */

/** What the audit has found, and a repair answers. */
const repairedFinding = Schema.Struct({
  finding: Schema.String,
  check: Schema.String,
  subject: Schema.String,
  /** Whether a person has acknowledged it, rather than that it is repaired. */
  acknowledges: Schema.Boolean
})
export type RepairedFinding = typeof repairedFinding.Type

const figures = Schema.Record(Schema.String, Schema.Unknown)
const repaired = Schema.Struct({
  finding: Schema.String,
  subject: Schema.String,
  action: Schema.String,
  before: figures,
  after: figures
})
type Repaired = typeof repaired.Type
const answer = Schema.Struct({ at: Schema.Number, repaired: Schema.Array(repaired) })

/** Rebuilds an item's stocks from the ledger, its totals and status from its stocks, its discrepancies from both. */
const repairItemShape = commandShape({
  tag: "RepairItem",
  payload: {
    itemId: Schema.String,
    /** The stocks whose broken ledger is acknowledged: their chain goes on from what they have. */
    acknowledged: Schema.Array(Schema.String),
    /** Whether what is reserved beyond (or less than) the open lines is made up for by a movement. */
    movesReserved: Schema.Boolean,
    /** The number of the item's last event that was published, where the item's own is less. */
    eventsEmitted: Schema.optional(Schema.Number),
    reason: Schema.String,
    findings: Schema.Array(repairedFinding)
  },
  answer,
  refusals: [ItemNotFound]
})
export type RepairItem = PayloadOf<typeof repairItemShape>

export const repairItem = defineCommand(repairItemShape, {
  source: "MANUAL_ADJUSTMENT",
  needs: (need, { itemId }) => {
    need.later(readRepairs, { merchantId: need.merchantId })
    return { item: need.item({ itemId }) }
  },
  decide: (context, command) => {
    const { at, merchantId, unit } = context
    const item = unit.items.indexes.byId.get(merchantId, command.itemId)
    if (item === undefined) return refused(new ItemNotFound({ items: [command.itemId] }))
    const truths = repairReadings(unit).stocks
    const before = figuresOf(context, item)
    for (const stock of unit.stocksOf(item)) {
      const truth = truths.get(merchantId, stock.stockId)!
      if (command.acknowledged.includes(stock.stockId)) continueFrom(context, stock, truth, command.reason)
      else rebuild(context, stock, truth)
    }
    addUp(context, item, command.eventsEmitted)
    // What happens from here on is news, and has its events.
    context.touch(item)
    for (const stock of unit.stocksOf(item)) {
      const reserved = truths.get(merchantId, stock.stockId)!.open - stock.reserved
      if (command.movesReserved && reserved !== 0) {
        context.move(stock, "ADJUSTMENT", { reserved }, { reason: command.reason })
      }
      context.followBalance(stock, item)
    }
    return answered({ at, repaired: log(context, command, before, figuresOf(context, item)) })
  }
})

/** The stock's balances as its ledger has them. Movements that are missing at the end are not made up by forgetting. */
const rebuild = (context: PostingContext, stock: StockRow, truth: StockTruth): void => {
  const { unit } = context
  const { onHand, recordedAt, reserved, sequence, unallocatable } = truth
  if (sequence < stock.sequence) return
  const figures = { onHand, reserved, unallocatable, sequence }
  if (isSame(figures, stock)) return
  unit.stocks.update(stock, {
    ...figures,
    updatedAt: Math.max(stock.updatedAt, recordedAt),
    // The flag goes with the balances in one write, which the table's check looks at.
    discrepancy: balanceDiscrepancies(truth).length > 0
  })
}

const isSame = (figures: Readonly<Record<string, unknown>>, row: object): boolean =>
  Object.entries(figures).every(([name, figure]) => Reflect.get(row, name) === figure)

/** A broken ledger is acknowledged: the chain goes on from what the stock has, after all that was recorded. */
const continueFrom = (context: PostingContext, stock: StockRow, truth: StockTruth, reason: string): void => {
  const { at, posting, unit } = context
  const sequence = Math.max(stock.sequence, truth.sequence)
  const recordedAt = Math.max(stock.updatedAt, truth.recordedAt)
  if (sequence !== stock.sequence || recordedAt !== stock.updatedAt) {
    unit.stocks.update(stock, { sequence, updatedAt: recordedAt })
  }
  const { merchantId, onHand, reserved, stockId, unallocatable } = stock
  unit.rows(checkpoints).insert({
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

const addUp = (context: PostingContext, item: ItemRow, eventsEmitted: number | undefined): void => {
  const { at, unit } = context
  const stocks = unit.stocksOf(item)
  const sum = (of: (stock: StockRow) => number): number =>
    stocks.reduce((total, stock) => total + of(stock), 0)
  const figures = {
    onHand: sum(({ onHand }) => onHand),
    reserved: sum(({ reserved }) => reserved),
    unallocatable: sum(({ unallocatable }) => unallocatable),
    status: statusOf(item, sellableOf(stocks, at)),
    // A number that an event was published with may not be given to another.
    eventSequence: Math.max(item.eventSequence, eventsEmitted ?? 0)
  }
  if (!isSame(figures, item)) unit.items.update(item, figures)
}

/**
 * Makes a reservation agree with the ledger. What it has sold and taken back is what the ledger says; what it holds is what
 * its lines say, and a movement makes the stock follow; its status follows from both.
 */
const repairReservationShape = commandShape({
  tag: "RepairReservation",
  payload: {
    orderId: Schema.String,
    reservationId: Schema.String,
    /** The items that it has moved, by its lines or by the ledger: they are locked. */
    itemIds: Schema.Array(Schema.String),
    /** When it was made (epoch milliseconds): its movements are not older. */
    since: Schema.Number,
    reason: Schema.String,
    findings: Schema.Array(repairedFinding)
  },
  answer,
  refusals: [ReservationNotFound]
})
export type RepairReservation = PayloadOf<typeof repairReservationShape>

export const repairReservation = defineCommand(repairReservationShape, {
  needs: (need, { itemIds, orderId, reservationId, since }) => {
    need.later(readRepairs, { merchantId: need.merchantId, reservation: { reservationId, since } })
    for (const itemId of itemIds) need.item({ itemId })
    return { order: need.order(orderId) }
  },
  decide: (context, command) => {
    const { at, merchantId, unit } = context
    const { orderId, reservationId } = command
    // A document of any kind, and so not only those of what the order bought.
    const reservation =
      unit.reservationsOf(merchantId, orderId).find((other) => other.reservationId === reservationId) ??
      restored(context, command)
    if (reservation === undefined) return refused(new ReservationNotFound({ orderId, reservationId }))
    const before = documentOf(reservation)
    const moved = repairReadings(unit).moved.get(merchantId, reservationId) ?? []
    const stockIds = new Set([
      ...moved.map(({ stockId }) => stockId),
      ...reservation.lines.flatMap(({ stockId }) => (stockId === null ? [] : [stockId]))
    ])
    for (const stockId of stockIds) {
      const stock = unit.stocks.indexes.byId.get(merchantId, stockId)
      // A stock that is not this merchant's, or not of a locked item: no movement can be made there.
      if (stock === undefined) continue
      const ledger = moved.find((row) => row.stockId === stockId) ?? noMovement(stockId)
      followSales(context, reservation, stock, ledger)
      followHeld(context, command, reservation, stock, ledger)
    }
    followLines(context, reservation, command.reason)
    return answered({ at, repaired: log(context, command, before, documentOf(reservation)) })
  }
})

const noMovement = (stockId: string): MovedRow => ({ stockId, open: 0, sold: 0, returned: 0 })

/** What left the shelf, and what came back, is what the ledger says: the lines follow. */
const followSales = (
  context: PostingContext,
  reservation: ReservationRow,
  stock: StockRow,
  ledger: MovedRow
): void => {
  const { unit } = context
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
    const returned = Math.min(line.returned, sold)
    unit.lines.update(line, {
      sold,
      released,
      expired: Math.min(line.expired, released),
      returned,
      returnedEarly: Math.min(line.returnedEarly, sold - returned),
      paid: Math.min(line.paid, sold)
    })
    surplus -= change
  }
  if (surplus < 0) {
    const item = unit.items.indexes.byId.get(stock.merchantId, stock.itemId)!
    lines.push(addLine(context, reservation, item, stock, -surplus, { open: 0, sold: -surplus }))
  }
  let returned = ledger.returned
  for (const line of lines) {
    const takes = Math.min(returned, line.sold)
    if (takes !== line.returned) {
      // What the ledger has as come back for the reservation is not what came back before its sale.
      const returnedEarly = Math.min(line.returnedEarly, line.sold - takes)
      unit.lines.update(line, { returned: takes, returnedEarly })
    }
    returned -= takes
  }
}

/** What the lines hold is promised: the stock follows by a movement. */
const followHeld = (
  context: PostingContext,
  command: RepairReservation,
  reservation: ReservationRow,
  stock: StockRow,
  ledger: MovedRow
): void => {
  const open = reservation.lines
    .filter(({ stockId }) => stockId === stock.stockId)
    .reduce((sum, line) => sum + line.open, 0)
  const reserved = open - ledger.open
  if (reserved === 0) return
  context.move(
    stock,
    reserved > 0 ? kindOf(reservation).holdsBy : kindOf(reservation).releasesBy,
    { reserved },
    {
      orderId: reservation.orderId,
      reservationId: reservation.reservationId,
      reason: command.reason,
      releaseReason: reserved > 0 ? undefined : "RELEASED"
    }
  )
}

/** One that holds is PENDING, unless the order has another one in its place: then it gives back what it holds. */
const followLines = (context: PostingContext, reservation: ReservationRow, reason: string): void => {
  const { at, merchantId, unit } = context
  const isTaken = unit
    .reservationsOf(merchantId, reservation.orderId)
    .some(
      (other) =>
        other !== reservation &&
        other.status === "PENDING" &&
        other.kind === reservation.kind &&
        other.scope === reservation.scope
    )
  if (isTaken && reservation.status !== "PENDING") releaseQuietly(context, reservation, reason)
  const ended = reservation.status === "EXPIRED" ? "EXPIRED" : "CANCELLED"
  const isHeld = reservation.lines.some(({ open }) => open > 0)
  const status = isHeld ? "PENDING" : reservation.lines.some(({ sold }) => sold > 0) ? "CONFIRMED" : ended
  if (status !== reservation.status) {
    unit.reservations.update(reservation, { status, updatedAt: at })
  }
}

const releaseQuietly = (context: PostingContext, reservation: ReservationRow, reason: string): void => {
  const { merchantId, unit } = context
  const { orderId, reservationId } = reservation
  for (const line of reservation.lines) {
    if (line.open === 0) continue
    const { open, stockId } = line
    unit.lines.update(line, { open: 0, released: line.released + open })
    const stock = stockId === null ? undefined : unit.stocks.indexes.byId.get(merchantId, stockId)
    if (stock === undefined) continue
    context.move(
      stock,
      kindOf(reservation).releasesBy,
      { reserved: -open },
      { orderId, reservationId, reason, releaseReason: "RELEASED" }
    )
  }
}

/**
 * A reservation that is gone, from the lines that it has left and from what it moved: due at once, so that the sweeper
 * gives back what it holds by the rules of every day.
 */
const restored = (context: PostingContext, command: RepairReservation): ReservationRow | undefined => {
  const { at, merchantId, unit } = context
  const readings = repairReadings(unit)
  const lines = readings.orphans.get(merchantId, command.reservationId) ?? []
  const moved = readings.moved.get(merchantId, command.reservationId) ?? []
  if (lines.length + moved.length === 0) return undefined
  const asked = new Map<string, number>()
  const ask = (itemId: string, quantity: number): unknown =>
    asked.set(itemId, (asked.get(itemId) ?? 0) + quantity)
  for (const { itemId, quantity } of lines) ask(itemId, quantity)
  for (const { sold, stockId } of moved) {
    if (lines.every((line) => line.stockId !== stockId)) {
      ask(unit.stocks.indexes.byId.get(merchantId, stockId)!.itemId, sold)
    }
  }
  return addReservation(context, {
    reservationId: command.reservationId,
    orderId: command.orderId,
    kind: "VARIANT",
    // Of no item: in nobody's way.
    scope: command.reservationId,
    status: "CANCELLED",
    asked: [...asked].map(([itemId, quantity]): Asked => [itemId, quantity, null]),
    expiresAt: at,
    createdAt: Math.min(at, command.since),
    lines: [...lines]
  })
}

type Figures = Readonly<Record<string, unknown>>

const figuresOf = ({ unit }: PostingContext, item: ItemRow): Figures => ({
  onHand: item.onHand,
  reserved: item.reserved,
  unallocatable: item.unallocatable,
  status: item.status,
  eventSequence: item.eventSequence,
  stocks: unit.stocksOf(item).map(({ discrepancy, onHand, reserved, sequence, stockId, unallocatable }) => ({
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
  context: PostingContext,
  command: RepairItem | RepairReservation,
  before: Figures,
  after: Figures
): ReadonlyArray<Repaired> =>
  command.findings.map(({ acknowledges, check, finding, subject }) => {
    const repaired = { finding, subject, action: acknowledges ? "ACKNOWLEDGE" : command._tag, before, after }
    context.unit.rows(repairs).insert({
      merchantId: context.merchantId,
      repairId: context.nextId(),
      finding,
      invariant: check,
      action: repaired.action,
      subject,
      before,
      after,
      actor: context.posting.caller.actor,
      reason: command.reason,
      repairedAt: context.at
    })
    return repaired
  })
