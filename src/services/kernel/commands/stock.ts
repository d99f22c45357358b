import { Schema } from "effect"
import {
  AmbiguousStock,
  InsufficientStock,
  ItemNotFound,
  LocationNotFound,
  LotMismatch,
  StockNotFound,
  UnallocatableExceeded,
  VersionMismatch
} from "../../../schema/Failure.ts"
import { kindsOfDiscrepancy } from "../../../schema/Discrepancy.ts"
import { ItemFigures, ItemRef, nameOf, StockFigures } from "../../../schema/Item.ts"
import { changeTypes, ReturnCondition } from "../../../schema/Movement.ts"
import { LotExpiryChanged } from "../../../schema/OutgoingEvent.ts"
import { timestampOrNull } from "../../../schema/Time.ts"
import { initialize } from "../catalogue.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { countedDeltas } from "../counting.ts"
import { isOnSale, itemFigures, lotOf, stockFigures } from "../figures.ts"
import {
  addSale,
  endIfNothingOpen,
  isAt,
  isPromise,
  sellFromLine,
  sellFromStock,
  sellInPlaceOfHeld,
  shortLine
} from "../holds.ts"
import type { ItemKey, LocationKey, OrderKey, TrackingKey } from "../Needs.ts"
import { closeCancelledAfterSale, openReturnExceedsSale, outstanding } from "../orderDiscrepancies.ts"
import { allocate, allocateSellable } from "../pickOrder.ts"
import { type Decision, answered, refused } from "../Posting.ts"
import type { Deltas, MovementNotes, PostingContext } from "../PostingContext.ts"
import { matchStock, stockAt, stockFor, stocksMatching } from "../stockMatching.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { StockRow } from "../tables/stock.ts"
import { adjustmentKey } from "../trackingKeys.ts"

/** Changes of stock outside the life of a reservation (CONTRACTS 4.2, `adjust-stock`). */

export interface AdjustKeys {
  readonly item: ItemKey
  readonly order: OrderKey | undefined
  readonly location: LocationKey | undefined
  readonly applied: TrackingKey | undefined
}

const adjustStockShape = commandShape({
  tag: "AdjustStock",
  payload: {
    changeType: Schema.Literals(changeTypes),
    item: ItemRef,
    quantity: Schema.Number,
    orderId: Schema.optional(Schema.String),
    locationId: Schema.optional(Schema.String),
    lotNumber: Schema.optional(Schema.String),
    /** Epoch milliseconds. Of a CORRECTION it becomes the lot's; null: the lot does not expire. */
    lotExpiresAt: Schema.optional(Schema.NullOr(Schema.Number)),
    /** Of a RETURN. */
    condition: Schema.optional(ReturnCondition),
    reason: Schema.optional(Schema.String),
    reference: Schema.optional(Schema.String),
    /** Epoch milliseconds. */
    occurredAt: Schema.optional(Schema.Number),
    expectedVersion: Schema.optional(Schema.Number)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    applied: Schema.Boolean,
    item: ItemFigures,
    stocks: Schema.Array(StockFigures),
    /** What it opened, or adds to. */
    discrepancies: Schema.Array(
      Schema.Struct({ discrepancyId: Schema.String, kind: Schema.Literals(kindsOfDiscrepancy) })
    )
  }),
  version: 2,
  upgrade: (kept, version) => (version > 1 ? kept : { discrepancies: [], ...(kept as object) }),
  refusals: [
    AmbiguousStock,
    InsufficientStock,
    ItemNotFound,
    LocationNotFound,
    LotMismatch,
    StockNotFound,
    UnallocatableExceeded,
    VersionMismatch
  ]
})
export type AdjustStock = PayloadOf<typeof adjustStockShape>

export const adjustStock = defineCommand(adjustStockShape, {
  source: "MANUAL_ADJUSTMENT",
  weight: () => 2,
  needs: (need, command): AdjustKeys => {
    const { item, locationId, orderId } = command
    const applied = adjustmentKey(command)
    need.locations()
    return {
      item: need.item(item),
      order: orderId === undefined ? undefined : need.order(orderId),
      location: locationId === undefined ? undefined : need.location(locationId),
      applied: applied === undefined ? undefined : need.tracking(applied)
    }
  },
  decide: (context, command, keys) => {
    const item = context.findItem(keys.item)
    if (item === undefined) return refused(new ItemNotFound({ items: [nameOf(command.item)] }))
    if (keys.location !== undefined && context.location(keys.location) === undefined) {
      return refused(new LocationNotFound({ locationId: keys.location }))
    }
    const adjustment = { command, item, keys }
    switch (command.changeType) {
      case "RECEIPT":
        return once(context, adjustment, () => receive(context, adjustment))
      case "SALE":
        return sell(context, adjustment)
      case "RETURN":
        return once(context, adjustment, () => {
          const stockForRest = () => stockFor(context, item, command)
          const { order } = keys
          const { condition, quantity } = command
          return takeBack(context, { item, order, quantity, condition, stockForRest }, notesOf(command))
        })
      case "DAMAGE":
      case "QUARANTINE":
        return moveOneStock(context, adjustment, () => ({ unallocatable: command.quantity }))
      case "UNQUARANTINE":
        return moveOneStock(context, adjustment, ({ stockId, unallocatable }) => {
          const { quantity: requested } = command
          return requested > unallocatable
            ? refused(new UnallocatableExceeded({ stockId, requested, unallocatable }))
            : { unallocatable: -requested }
        })
      case "WRITE_OFF":
        // What is damaged goes first, and what is more than that was good.
        return moveOneStock(context, adjustment, (stock) => ({
          onHand: -command.quantity,
          unallocatable: 0 - Math.min(command.quantity, stock.unallocatable)
        }))
      case "CORRECTION":
        return moveOneStock(context, adjustment, (stock) => {
          initialize(context, item)
          if (command.lotExpiresAt !== undefined) correctExpiry(context, item, stock, command.lotExpiresAt)
          return countedDeltas(stock, command.quantity)
        })
    }
  }
})

interface Adjustment {
  readonly command: AdjustStock
  readonly item: ItemRow
  readonly keys: AdjustKeys
}
type Effect<R> = { readonly moved: ReadonlyArray<StockRow> } | { readonly refusal: R }
type Adjusted = AnswerOf<typeof adjustStockShape>

/** Applies an adjustment that names a reference once; without one, every time. */
const once = <R>(
  context: PostingContext,
  adjustment: Adjustment,
  apply: () => Effect<R>
): Decision<Adjusted, R | AmbiguousStock | StockNotFound | VersionMismatch> => {
  const { applied } = adjustment.keys
  if (applied !== undefined) {
    if (context.tracked(applied) !== undefined) return adjusted(context, adjustment, false, [])
    context.track(applied)
  }
  const unexpected = unexpectedVersion(context, adjustment)
  if (unexpected !== undefined) return unexpected
  const effect = apply()
  return "refusal" in effect ? effect : adjusted(context, adjustment, true, effect.moved)
}

const adjusted = (
  { at, discrepancies, unit }: PostingContext,
  { item }: Adjustment,
  applied: boolean,
  stocks: ReadonlyArray<StockRow>
): Decision<Adjusted> =>
  answered({
    at,
    applied,
    item: itemFigures(unit, item, at),
    // Two lines may have moved the same stock.
    stocks: stocks.filter((stock, index) => stocks.indexOf(stock) === index).map(stockFigures),
    // The same list: what the posting opens once it is decided is in it too.
    discrepancies
  })

/** Moves the one stock that is meant, if there is anything to move. */
const moveOneStock = <R = never>(
  context: PostingContext,
  adjustment: Adjustment,
  deltasOf: (stock: StockRow) => Deltas | undefined | { readonly refusal: R }
): Decision<Adjusted, R | AmbiguousStock | LotMismatch | StockNotFound | VersionMismatch> =>
  once(context, adjustment, (): Effect<R | AmbiguousStock | LotMismatch | StockNotFound> => {
    const stock = requireOneStock(context, adjustment)
    if ("refusal" in stock) return stock
    const deltas = deltasOf(stock.found)
    if (deltas !== undefined && "refusal" in deltas) return deltas
    if (deltas !== undefined) context.move(stock.found, "ADJUSTMENT", deltas, notesOf(adjustment.command))
    return { moved: [stock.found] }
  })

/** A lot has one expiry, wherever it lies. What can be sold changes with it, though nothing moves. */
const correctExpiry = (
  context: PostingContext,
  item: ItemRow,
  { lotNumber, stockId }: StockRow,
  lotExpiresAt: number | null
): void => {
  const ofLot = context.unit
    .stocksOf(item)
    // Goods without a lot number are no lot: elsewhere they are others.
    .filter((stock) => (lotNumber === "" ? stock.stockId === stockId : stock.lotNumber === lotNumber))
    .filter((stock) => stock.lotExpiresAt !== lotExpiresAt)
  if (ofLot.length > 0) context.unit.items.update(item, { updatedAt: Math.max(item.updatedAt, context.at) })
  for (const stock of ofLot) {
    context.emitOfItem(item, LotExpiryChanged, {
      stockId: stock.stockId,
      locationId: stock.locationId,
      lotNumber: lotOf(stock),
      expiresAtBefore: timestampOrNull(stock.lotExpiresAt),
      expiresAtAfter: timestampOrNull(lotExpiresAt)
    })
    context.unit.stocks.update(stock, { lotExpiresAt })
  }
}

/** Goods have come in: a fact, into the given location (or the default one) and lot. */
const receive = (context: PostingContext, { command, item }: Adjustment): Effect<LotMismatch> => {
  const stock = stockFor(context, item, command)
  if ("refusal" in stock) return stock
  initialize(context, item)
  context.move(stock.found, "RECEIPT", { onHand: command.quantity }, notesOf(command))
  return { moved: [stock.found] }
}

/**
 * A sale: of what the order holds of the item, and beyond that (or without a reservation) of what can be sold. An order
 * whose item has been sold already is not sold a second time.
 */
const sell = (
  context: PostingContext,
  adjustment: Adjustment
): Decision<Adjusted, InsufficientStock | AmbiguousStock | StockNotFound | VersionMismatch> => {
  const { command, item, keys } = adjustment
  const { quantity, reason, reference } = command
  const directly = () => once(context, adjustment, () => sellDirectly(context, adjustment, quantity))
  if (keys.order === undefined) return directly()
  const ofOrder = context.reservationsOf(keys.order)
  const ofItem = ofOrder.flatMap((reservation) =>
    reservation.lines.filter(({ itemId }) => itemId === item.itemId).map((line) => ({ line, reservation }))
  )
  const promised = ofItem.filter(({ reservation }) => isPromise(reservation))
  const held = promised.filter(({ line }) => line.open > 0)
  if (held.length === 0) {
    const isSold = ofItem.some(({ line }) => line.paid > 0) || promised.some(({ line }) => line.sold > 0)
    return isSold ? adjusted(context, adjustment, false, []) : directly()
  }
  const unexpected = unexpectedVersion(context, adjustment)
  if (unexpected !== undefined) return unexpected
  const moved: Array<StockRow> = []
  const place = { stockId: null, locationId: command.locationId, lotNumber: command.lotNumber }
  let open = quantity
  for (const { line, reservation } of held) {
    const take = isAt(context, line, place) ? Math.min(open, line.open) : 0
    if (take === 0) continue
    sellFromLine(context, reservation, line, take, { reference, reason })
    endIfNothingOpen(context, reservation, "CANCELLED")
    if (line.stockId !== null) {
      moved.push(context.unit.stocks.indexes.byId.get(context.merchantId, line.stockId)!)
    }
    open -= take
  }
  // What was sold at the place is not what the order holds elsewhere: as much of that is given back, so that of the item
  // as a whole nothing more is promised, and what lies at the place decides.
  const elsewhere = held.filter(({ line }) => line.open > 0)
  if (open > 0 && elsewhere.length > 0) {
    const matching = stocksMatching(context, item, command)
    const short = item.stocked ? allocate(matching, open, context.at).short : 0
    if (short > 0) return refused(new InsufficientStock({ items: [shortLine(item, open, open - short)] }))
    const takenFor = (part: number) =>
      item.stocked
        ? allocate(matching, part, context.at).picks.map((pick) => [pick.stock, pick.quantity] as const)
        : [[null, part] as const]
    const given = { item, quantity: open, takenFor }
    for (const line of sellInPlaceOfHeld(context, elsewhere, given, { reference, reason })) {
      if (line.stockId !== null) {
        moved.push(context.unit.stocks.indexes.byId.get(context.merchantId, line.stockId)!)
      }
      open -= line.quantity
    }
  }
  if (open > 0) {
    const surplus = sellDirectly(context, adjustment, open)
    if ("refusal" in surplus) return surplus
    moved.push(...surplus.moved)
  }
  return adjusted(context, adjustment, true, moved)
}

/** A sale is a promise: refused when what can be sold is short. */
const sellDirectly = (
  context: PostingContext,
  { command, item }: Adjustment,
  quantity: number
): Effect<InsufficientStock> => {
  const { orderId } = command
  const newSale = () =>
    orderId === undefined ? undefined : addSale(context, orderId, [[item.itemId, quantity]])
  if (!item.stocked && isOnSale(item)) {
    const sale = newSale()
    if (sale !== undefined) sellFromStock(context, sale, item, null, quantity)
    return { moved: [] }
  }
  const { lotNumber, locationId } = command
  const wanted = stocksMatching(context, item, { lotNumber, locationId })
  const { picks, short } = allocateSellable(item, context.unit.stocksOf(item), wanted, quantity, context.at)
  if (short > 0) {
    return refused(new InsufficientStock({ items: [shortLine(item, quantity, quantity - short)] }))
  }
  const sale = newSale()
  const notes = notesOf(command)
  for (const { quantity: part, stock } of picks) {
    if (sale === undefined) context.move(stock, "SALE", { onHand: -part }, notes)
    else sellFromStock(context, sale, item, stock, part, notes)
  }
  return { moved: picks.map(({ stock }) => stock) }
}

/**
 * A return is a fact. With an order it goes back to the stocks it was sold from; what exceeds that goes where returns
 * without an order go, and a discrepancy says so.
 */
export const takeBack = <R = never>(
  context: PostingContext,
  {
    item,
    order,
    quantity,
    condition,
    stockForRest
  }: {
    readonly item: ItemRow
    readonly order: OrderKey | undefined
    readonly quantity: number
    readonly condition?: ReturnCondition | undefined
    readonly stockForRest: () => { readonly found: StockRow } | { readonly refusal: R }
  },
  notes: MovementNotes
): Effect<R> => {
  const { merchantId, unit } = context
  const moved: Array<StockRow> = []
  const comeBack = (onHand: number): Deltas =>
    condition === "DAMAGED" ? { onHand, unallocatable: onHand } : { onHand }
  let open = quantity
  for (const { lines, reservationId } of order === undefined ? [] : context.reservationsOf(order)) {
    for (const line of lines) {
      const part = Math.min(open, outstanding(line))
      if (line.itemId !== item.itemId || part <= 0) continue
      unit.lines.update(line, { returned: line.returned + part })
      open -= part
      if (line.stockId === null) continue
      const stock = unit.stocks.indexes.byId.get(merchantId, line.stockId)!
      context.move(stock, "RETURN", comeBack(part), { ...notes, reservationId })
      moved.push(stock)
    }
  }
  if (open > 0 && item.stocked) {
    const stock = stockForRest()
    if ("refusal" in stock) return stock
    initialize(context, item)
    context.move(stock.found, "RETURN", comeBack(open), notes)
    moved.push(stock.found)
    if (order !== undefined) openReturnExceedsSale(context, order, item, open)
  }
  if (order !== undefined) closeCancelledAfterSale(context, order)
  return { moved }
}

const notesOf = ({ occurredAt, orderId, reason, reference }: AdjustStock): MovementNotes => ({
  orderId,
  reference,
  reason,
  occurredAt
})

/**
 * `expectedVersion` is that of the stock that is meant, and makes the adjustment compare-and-set. It is asked for after
 * what was applied already: a repeat is answered so, although its own first run has moved the stock.
 */
const unexpectedVersion = (
  context: PostingContext,
  adjustment: Adjustment
): { readonly refusal: AmbiguousStock | StockNotFound | VersionMismatch } | undefined => {
  const { command, item } = adjustment
  const { changeType, expectedVersion: expected } = command
  if (expected === undefined) return undefined
  const comesIn = changeType === "RECEIPT" || changeType === "RETURN"
  const meant = comesIn ? { found: stockAt(context, item, command) } : matchStock(context, item, command)
  if ("refusal" in meant) return meant
  if (meant.found === undefined) return refused(new StockNotFound({ item: nameOf(command.item) }))
  const { onHand: quantity, sequence: actual } = meant.found
  return actual === expected ? undefined : refused(new VersionMismatch({ expected, actual, quantity }))
}

/** The one stock that is meant. A count may be the first to speak of it. */
const requireOneStock = (
  context: PostingContext,
  { command, item }: Adjustment
): { readonly found: StockRow } | { readonly refusal: AmbiguousStock | LotMismatch | StockNotFound } => {
  const meant = matchStock(context, item, command)
  if ("refusal" in meant) return meant
  if (meant.found !== undefined) return { found: meant.found }
  if (command.changeType !== "CORRECTION" || command.expectedVersion !== undefined) {
    return refused(new StockNotFound({ item: nameOf(command.item) }))
  }
  // What it says of the expiry becomes that of a lot which is known elsewhere; only a new one begins with it.
  const { locationId, lotExpiresAt, lotNumber } = command
  const isKnownLot = lotNumber !== undefined && stocksMatching(context, item, { lotNumber }).length > 0
  return stockFor(context, item, {
    locationId,
    lotNumber,
    lotExpiresAt: isKnownLot ? undefined : lotExpiresAt
  })
}
