import { Schema } from "effect"
import { balanceDiscrepancies } from "../../../schema/Discrepancy.ts"
import { ItemNotFound, ReservationNotFound } from "../../../schema/Failure.ts"
import { statusOf } from "../../../schema/Item.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { hasStock, sellableOf } from "../figures.ts"
import { addLine, addReservation, type Asked, releaseAll } from "../holds.ts"
import { answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { type MovedRow, readRepairs, repairReadings, type StockTruth } from "../repairReads.ts"
import type { ItemRow } from "../tables/catalog.ts"
import { checkpoints, repairs } from "../tables/repair.ts"
import type { LineRow, ReservationRow } from "../tables/reservations.ts"
import type { StockRow } from "../tables/stock.ts"

/**
 * What `audit --repair` does to the books (decisions 0009 and 0020). The ledger is the truth of stock and of what documents
 * hold and have sold, and is never rewritten: what was changed beside it is made again from it, without events, because
 * events said what the ledger says. What is reserved for no document is made up for by a movement, with its events.
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

const common = { reason: Schema.String, findings: Schema.Array(repairedFinding) }
const answer = Schema.Struct({ at: Schema.Number })

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
    ...common
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
    const stocks = unit.stocksOf(item)
    const before = structuredClone({ item, stocks })
    // What is deleted has no stock: it is discontinued for as long as it has some.
    if (item.deletedAt !== null && hasStock(stocks)) {
      unit.items.update(item, { deletedAt: null, discontinued: true, deletionPending: true })
    }
    for (const stock of stocks) {
      const truth = truths.get(merchantId, stock.stockId)!
      if (command.acknowledged.includes(stock.stockId)) continueFrom(context, stock, truth, command.reason)
      else rebuild(context, stock, truth)
    }
    addUp(context, item, command.eventsEmitted)
    // What happens from here on is news, and has its events.
    context.touch(item)
    for (const stock of stocks) {
      const reserved = truths.get(merchantId, stock.stockId)!.open - stock.reserved
      if (command.movesReserved && reserved !== 0) {
        context.move(stock, "ADJUSTMENT", { reserved }, { reason: command.reason })
      }
      context.followBalance(stock, item)
    }
    context.followDiscontinued(item)
    log(context, command, before, { item, stocks })
    return answered({ at })
  }
})

/** The stock's balances as its ledger has them. Movements that are missing at the end are not made up by forgetting. */
const rebuild = ({ unit }: PostingContext, stock: StockRow, truth: StockTruth): void => {
  const { onHand, recordedAt, reserved, sequence, unallocatable } = truth
  const figures = { onHand, reserved, unallocatable, sequence }
  if (sequence < stock.sequence || isSame(figures, stock)) return
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
  if (!isSame({ sequence, updatedAt: recordedAt }, stock)) {
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

const addUp = ({ at, unit }: PostingContext, item: ItemRow, eventsEmitted: number | undefined): void => {
  const stocks = unit.stocksOf(item)
  const sum = (of: (stock: StockRow) => number): number =>
    stocks.reduce((total, stock) => total + of(stock), 0)
  const figures = {
    onHand: sum(({ onHand }) => onHand),
    reserved: sum(({ reserved }) => reserved),
    unallocatable: sum(({ unallocatable }) => unallocatable),
    status: statusOf(item, sellableOf(item, stocks, at)),
    // A number that an event was published with may not be given to another.
    eventSequence: Math.max(item.eventSequence, eventsEmitted ?? 0)
  }
  if (!isSame(figures, item)) unit.items.update(item, figures)
}

/** Makes a reservation's lines what the ledger says that it holds, has sold and has taken back, and its status what they say. */
const repairReservationShape = commandShape({
  tag: "RepairReservation",
  payload: {
    orderId: Schema.String,
    reservationId: Schema.String,
    /** The items that it has moved, by its lines or by the ledger: they are locked. */
    itemIds: Schema.Array(Schema.String),
    /** When it was made (epoch milliseconds): its movements are not older. */
    since: Schema.Number,
    ...common
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
    const others = unit.reservationsOf(merchantId, orderId)
    const known = others.find((other) => other.reservationId === reservationId)
    const reservation = known ?? restored(context, command)
    if (reservation === undefined) return refused(new ReservationNotFound({ orderId, reservationId }))
    const before = structuredClone(reservation)
    const moved = repairReadings(unit).moved.get(merchantId, reservationId) ?? []
    const stockIds = [...moved, ...reservation.lines].map(({ stockId }) => stockId)
    for (const stockId of new Set(stockIds)) {
      const stock = stockId === null ? undefined : unit.stocks.indexes.byId.get(merchantId, stockId)
      // A stock that is not this merchant's, or not of a locked item, is left alone.
      if (stock === undefined) continue
      const ledger = moved.find((row) => row.stockId === stockId)
      followLedger(
        context,
        reservation,
        stock,
        ledger ?? { stockId: stock.stockId, open: 0, sold: 0, returned: 0 }
      )
    }
    const isInTheWay = ({ kind, scope, status }: ReservationRow): boolean =>
      status === "PENDING" && kind === reservation.kind && scope === reservation.scope
    // The order has another one in its place: what this one holds is given back.
    if (reservation.status !== "PENDING" && others.some(isInTheWay))
      releaseAll(context, reservation, "CANCELLED")
    const ended = reservation.status === "EXPIRED" ? "EXPIRED" : "CANCELLED"
    const isSold = reservation.lines.some(({ sold }) => sold > 0)
    const isHeld = reservation.lines.some(({ open }) => open > 0)
    const status = isHeld ? "PENDING" : isSold ? "CONFIRMED" : ended
    if (status !== reservation.status) unit.reservations.update(reservation, { status, updatedAt: at })
    log(context, command, before, reservation)
    return answered({ at })
  }
})

/** The lines of one stock come to what the ledger says, in their order; what none of them has room for is a line more. */
const followLedger = (
  context: PostingContext,
  reservation: ReservationRow,
  stock: StockRow,
  ledger: MovedRow
): void => {
  const lines = reservation.lines.filter(({ stockId }) => stockId === stock.stockId)
  const sum = (of: (line: LineRow) => number): number => lines.reduce((total, line) => total + of(line), 0)
  const figures = {
    open: sum((line) => line.open),
    sold: sum((line) => line.sold),
    returned: sum((line) => line.returned)
  }
  if (isSame(figures, ledger)) return
  const left = { ...ledger }
  if (lines.reduce((total, { quantity }) => total + quantity, 0) < left.open + left.sold) {
    const item = context.unit.items.indexes.byId.get(stock.merchantId, stock.itemId)!
    const missing = left.open + left.sold - sum(({ quantity }) => quantity)
    lines.push(addLine(context, reservation, item, stock, missing, { open: missing, sold: 0 }))
  }
  for (const line of lines) {
    const sold = Math.min(left.sold, line.quantity)
    const open = Math.min(left.open, line.quantity - sold)
    const returned = Math.min(left.returned, sold)
    const released = line.quantity - sold - open
    left.sold -= sold
    left.open -= open
    left.returned -= returned
    const [expired, paid] = [Math.min(line.expired, released), Math.min(line.paid, sold)]
    // What the ledger has as come back for the reservation is not what came back before its sale.
    const returnedEarly = Math.min(line.returnedEarly, sold - returned)
    context.unit.lines.update(line, { open, sold, released, expired, returned, returnedEarly, paid })
  }
}

/**
 * A reservation that is gone, from the lines that it has left and from what it moved: due at once, so that the sweeper
 * gives back what it holds by the rules of every day.
 */
const restored = (context: PostingContext, command: RepairReservation): ReservationRow | undefined => {
  const { at, merchantId, unit } = context
  const { orderId, reservationId, since } = command
  const readings = repairReadings(unit)
  const lines = readings.orphans.get(merchantId, reservationId) ?? []
  const moved = readings.moved.get(merchantId, reservationId) ?? []
  if (lines.length + moved.length === 0) return undefined
  const beyond = moved.filter(({ stockId }) => lines.every((line) => line.stockId !== stockId))
  const asked = [
    ...lines.map(({ itemId, quantity }): Asked => [itemId, quantity, null]),
    ...beyond.flatMap(({ open, sold, stockId }): ReadonlyArray<Asked> => {
      const stock = unit.stocks.indexes.byId.get(merchantId, stockId)
      return stock === undefined ? [] : [[stock.itemId, open + sold, null]]
    })
  ]
  return addReservation(context, {
    reservationId,
    orderId,
    kind: "VARIANT",
    // Of no item: in nobody's way.
    scope: reservationId,
    status: "CANCELLED",
    asked,
    expiresAt: at,
    createdAt: Math.min(at, since),
    lines: [...lines]
  })
}

/** One row for each finding that this answers. */
const log = (
  context: PostingContext,
  { _tag, findings, reason }: RepairItem | RepairReservation,
  before: object,
  after: object
): void => {
  for (const { acknowledges, check, finding, subject } of findings) {
    context.unit.rows(repairs).insert({
      merchantId: context.merchantId,
      repairId: context.nextId(),
      finding,
      invariant: check,
      action: acknowledges ? "ACKNOWLEDGE" : _tag,
      subject,
      before: before as Readonly<Record<string, unknown>>,
      after: structuredClone(after) as Readonly<Record<string, unknown>>,
      actor: context.posting.caller.actor,
      reason,
      repairedAt: context.at
    })
  }
}
