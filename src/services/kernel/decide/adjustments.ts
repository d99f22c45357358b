import { hash } from "node:crypto"
import {
  AmbiguousStock,
  InsufficientStock,
  ItemNotFound,
  LocationNotFound,
  LotMismatch,
  StockNotFound,
  VersionMismatch
} from "../../../schema/Failure.ts"
import type { AdjustStock, AnyRefusal, Answers, MovementSource } from "../../../schema/Posting.ts"
import { type ItemRow, type StockRow, itemFigures, stockFigures } from "./Books.ts"
import { locationOf } from "./catalog.ts"
import { type Decision, type Draft, type MovementNotes, answered, refused } from "./Draft.ts"
import { addLine, allocate, nameOf, saleOf, sellFromLine, settle, shortLine } from "./reservations.ts"

/** Changes of stock outside the life of a reservation (CONTRACTS 4.2, `adjust-stock`). */

/**
 * The tracking key under which an adjustment with a reference, or a direct sale of an order, is applied once. One
 * delivery or count may speak of several places and lots under one reference, and each is a fact of its own. Names from
 * outside hold any visible character, so that only a control character can part them.
 */
export const adjustmentKey = (command: AdjustStock): string | undefined => {
  const { changeType, item, locationId, lotNumber, orderId, reference } = command
  const isSaleOfOrder = changeType === "SALE" && orderId !== undefined
  if (reference === undefined && !isSaleOfOrder) return undefined
  const kind = "variantId" in item ? "variant" : "sku" in item ? "sku" : "item"
  const place = isSaleOfOrder ? [] : [locationId, lotNumber]
  const key = [changeType, orderId, kind, nameOf(item), reference, ...place].join("\u001f")
  return key.length <= keyLengthMax ? key : `${changeType}\u001f${hash("sha256", key)}`
}
/** A row of an index holds 2,704 bytes, and a character up to four of them: what is longer is known by its hash. */
const keyLengthMax = 400

export const adjust = (draft: Draft, command: AdjustStock): Decision<Answers["AdjustStock"]> => {
  const { books, merchantId } = draft
  const item = books.findItem(merchantId, command.item)
  if (item === undefined) return refused(new ItemNotFound({ items: [nameOf(command.item)] }))
  if (command.locationId !== undefined && !books.locations.has(merchantId, command.locationId)) {
    return refused(new LocationNotFound({ locationId: command.locationId }))
  }
  switch (command.changeType) {
    case "RECEIPT":
      return once(draft, command, item, () => receive(draft, command, item))
    case "SALE":
      return sell(draft, command, item)
    case "RETURN":
      return once(draft, command, item, () => takeBack(draft, command, item))
    case "DAMAGE":
      return once(draft, command, item, () => {
        const stock = theStock(draft, item, command)
        if ("refusal" in stock) return stock
        draft.move(stock.found, "ADJUSTMENT", { unallocatable: command.quantity }, notesOf(command))
        return { moved: [stock.found] }
      })
    case "CORRECTION":
      return once(draft, command, item, () => {
        const stock = theStock(draft, item, command)
        if ("refusal" in stock) return stock
        draft.touch(item)
        initialize(draft, item)
        const onHand = command.quantity - stock.found.onHand
        if (onHand !== 0) draft.move(stock.found, "ADJUSTMENT", { onHand }, notesOf(command))
        return { moved: [stock.found] }
      })
  }
}

type Effect = { readonly moved: ReadonlyArray<StockRow> } | { readonly refusal: AnyRefusal }

/** Applies an adjustment that names a reference once; without one, every time. */
const once = (
  draft: Draft,
  command: AdjustStock,
  item: ItemRow,
  apply: () => Effect
): Decision<Answers["AdjustStock"]> => {
  const { books, merchantId, posting } = draft
  const trackingKey = adjustmentKey(command)
  if (trackingKey !== undefined) {
    if (books.tracking.has(merchantId, trackingKey)) return adjusted(draft, item, false, [])
    books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: draft.at })
  }
  const unexpected = unexpectedVersion(draft, item, command)
  if (unexpected !== undefined) return unexpected
  const effect = apply()
  return "refusal" in effect ? effect : adjusted(draft, item, true, effect.moved)
}

const adjusted = (
  draft: Draft,
  item: ItemRow,
  applied: boolean,
  stocks: ReadonlyArray<StockRow>
): Decision<Answers["AdjustStock"]> =>
  answered({
    at: draft.at,
    applied,
    item: itemFigures(draft.books, item, draft.at),
    // Two lines may have moved the same stock.
    stocks: stocks.filter((stock, index) => stocks.indexOf(stock) === index).map(stockFigures)
  })

/** Goods have come in: a fact, into the given location (or the default one) and lot. */
const receive = (draft: Draft, command: AdjustStock, item: ItemRow): Effect => {
  const stock = stockFor(draft, item, command)
  if ("refusal" in stock) return stock
  draft.touch(item)
  initialize(draft, item)
  draft.move(stock.found, "RECEIPT", { onHand: command.quantity }, notesOf(command))
  return { moved: [stock.found] }
}

/**
 * A sale: of what the order holds of the item, and beyond that (or without a reservation) of what can be sold. An order
 * whose item has been sold already is not sold a second time.
 */
const sell = (draft: Draft, command: AdjustStock, item: ItemRow): Decision<Answers["AdjustStock"]> => {
  const { books, merchantId } = draft
  const { orderId, quantity } = command
  if (orderId === undefined) {
    return once(draft, command, item, () => sellDirectly(draft, command, item, quantity))
  }
  const ofOrder = books.reservationsOf(merchantId, orderId)
  const reservations = ofOrder.filter(({ kind }) => kind !== "SALE")
  const lines = reservations.flatMap((reservation) =>
    reservation.lines.filter(({ itemId }) => itemId === item.itemId).map((line) => ({ line, reservation }))
  )
  const held = lines.filter(({ line }) => line.open > 0)
  if (held.length === 0) {
    const isPaid = ofOrder.some((one) =>
      one.lines.some((line) => line.itemId === item.itemId && line.paid > 0)
    )
    return isPaid || lines.some(({ line }) => line.sold > 0)
      ? adjusted(draft, item, false, [])
      : once(draft, command, item, () => sellDirectly(draft, command, item, quantity))
  }
  const unexpected = unexpectedVersion(draft, item, command)
  if (unexpected !== undefined) return unexpected
  const moved: Array<StockRow> = []
  let open = quantity
  for (const { line, reservation } of held) {
    const take = Math.min(open, line.open)
    if (take === 0) continue
    sellFromLine(draft, reservation, line, take, { reference: command.reference, reason: command.reason })
    settle(draft, reservation, "CANCELLED")
    if (line.stockId !== null) moved.push(books.stocks.get(merchantId, line.stockId)!)
    open -= take
  }
  if (open > 0) {
    const surplus = sellDirectly(draft, command, item, open)
    if ("refusal" in surplus) return surplus
    moved.push(...surplus.moved)
  }
  return adjusted(draft, item, true, moved)
}

/** A sale is a promise: refused when what can be sold is short. */
const sellDirectly = (draft: Draft, command: AdjustStock, item: ItemRow, quantity: number): Effect => {
  const { at, books } = draft
  if (!item.stocked) {
    if (command.orderId !== undefined)
      addLine(draft, saleOf(draft, command.orderId, [[item.itemId, quantity]]), item, null, quantity, {
        open: 0,
        sold: quantity
      })
    return { moved: [] }
  }
  const stocks = books
    .stocksOf(item)
    .filter(
      (stock) =>
        (command.locationId === undefined || stock.locationId === command.locationId) &&
        (command.lotNumber === undefined || stock.lotNumber === command.lotNumber)
    )
  const { picks, short } = allocate(stocks, quantity, at)
  if (short > 0)
    return refused(new InsufficientStock({ items: [shortLine(item, quantity, quantity - short)] }))
  const sale =
    command.orderId === undefined ? undefined : saleOf(draft, command.orderId, [[item.itemId, quantity]])
  for (const pick of picks) {
    if (sale !== undefined)
      addLine(draft, sale, item, pick.stock, pick.quantity, { open: 0, sold: pick.quantity })
    draft.move(
      pick.stock,
      "SALE",
      { onHand: -pick.quantity },
      {
        ...notesOf(command),
        source: "ORDER",
        reservationId: sale?.reservationId
      }
    )
  }
  return { moved: picks.map(({ stock }) => stock) }
}

/**
 * A return is a fact. With an order it goes back to the stocks it was sold from; what exceeds that goes where returns
 * without an order go, and a discrepancy says so.
 */
export const takeBack = (
  draft: Draft,
  command: AdjustStock,
  item: ItemRow,
  source?: MovementSource
): Effect => {
  const { books, merchantId } = draft
  const notes = { ...notesOf(command), ...(source === undefined ? {} : { source }) }
  const moved: Array<StockRow> = []
  let open = command.quantity
  if (command.orderId !== undefined) {
    for (const reservation of books.reservationsOf(merchantId, command.orderId)) {
      for (const line of reservation.lines) {
        const quantity = Math.min(open, line.sold - line.returned)
        if (line.itemId !== item.itemId || quantity <= 0) continue
        books.change(books.changed.lines, line, { returned: line.returned + quantity })
        open -= quantity
        if (line.stockId === null) continue
        const stock = books.stocks.get(merchantId, line.stockId)!
        draft.move(
          stock,
          "RETURN",
          { onHand: quantity },
          {
            ...notes,
            reservationId: reservation.reservationId
          }
        )
        moved.push(stock)
      }
    }
  }
  if (open > 0 && item.stocked) {
    const stock = stockFor(draft, item, command)
    if ("refusal" in stock) return stock
    draft.touch(item)
    initialize(draft, item)
    draft.move(stock.found, "RETURN", { onHand: open }, notes)
    moved.push(stock.found)
    if (command.orderId !== undefined) {
      draft.openDiscrepancy("RETURN_EXCEEDS_SALE", { item, orderId: command.orderId }, { quantity: open })
    }
  }
  return { moved }
}

const notesOf = (command: AdjustStock): MovementNotes => ({
  source: command.orderId === undefined ? "MANUAL_ADJUSTMENT" : "ORDER",
  orderId: command.orderId,
  reference: command.reference,
  reason: command.reason,
  occurredAt: command.occurredAt
})

/** From its first count or receipt on, an item has stock to speak of. */
export const initialize = (draft: Draft, item: ItemRow): void => {
  const { books } = draft
  if (!item.initialized) books.change(books.changed.items, item, { initialized: true })
}

/**
 * `expectedVersion` is that of the stock that is meant, and makes the adjustment compare-and-set. It is asked for after
 * what was applied already: a repeat is told so, although its own first run has moved the stock.
 */
const unexpectedVersion = (
  draft: Draft,
  item: ItemRow,
  command: AdjustStock
): { readonly refusal: AnyRefusal } | undefined => {
  const { changeType, expectedVersion } = command
  if (expectedVersion === undefined) return undefined
  const comesIn = changeType === "RECEIPT" || changeType === "RETURN"
  const meant = comesIn ? foundAt(draft, item, command) : theStock(draft, item, command)
  if ("refusal" in meant) return meant
  const { onHand, sequence } = meant.found
  return sequence === expectedVersion
    ? undefined
    : refused(new VersionMismatch({ expected: expectedVersion, actual: sequence, quantity: onHand }))
}

type Found = { readonly found: StockRow } | { readonly refusal: AnyRefusal }

/** Where a stock is, as far as the request says. */
export interface Place {
  readonly locationId?: string | undefined
  readonly lotNumber?: string | undefined
  readonly lotExpiresAt?: number | undefined
}

/** The one stock that is meant: of the given location and lot, where that leaves no choice. */
const theStock = (draft: Draft, item: ItemRow, command: AdjustStock): Found => {
  const meant = stockMeant(draft, item, command)
  if ("refusal" in meant) return meant
  if (meant.found !== undefined) return { found: meant.found }
  return command.changeType === "CORRECTION" && command.expectedVersion === undefined
    ? stockFor(draft, item, command)
    : refused(new StockNotFound({ item: nameOf(command.item) }))
}

/** The same, or none: the item is not there yet. */
export const stockMeant = (
  draft: Draft,
  item: ItemRow,
  place: Place
): { readonly found: StockRow | undefined } | { readonly refusal: AnyRefusal } => {
  const matching = draft.books
    .stocksOf(item)
    .filter(
      (stock) =>
        (place.locationId === undefined || stock.locationId === place.locationId) &&
        (place.lotNumber === undefined || stock.lotNumber === place.lotNumber)
    )
  if (matching.length > 1) {
    return refused(
      new AmbiguousStock({
        stocks: matching.map(({ locationId, lotNumber, stockId }) => ({
          stockId,
          locationId,
          lotNumber: lotNumber === "" ? null : lotNumber
        }))
      })
    )
  }
  return { found: matching[0] }
}

/** The stock of the given (or default) location and (or unnamed) lot, opened if it is not there yet. */
export const stockFor = (draft: Draft, item: ItemRow, place: Place): Found => {
  const lotNumber = place.lotNumber ?? ""
  const lotExpiresAt = place.lotExpiresAt ?? null
  const existing = stockAt(draft, item, place)
  if (existing === undefined) {
    return { found: draft.openStock(item, locationOf(draft, place.locationId), lotNumber, lotExpiresAt) }
  }
  if (lotExpiresAt !== null && existing.lotExpiresAt !== lotExpiresAt) {
    return refused(
      new LotMismatch({
        lotNumber,
        expiresAt: existing.lotExpiresAt === null ? null : new Date(existing.lotExpiresAt).toISOString()
      })
    )
  }
  return { found: existing }
}

const foundAt = (draft: Draft, item: ItemRow, command: AdjustStock): Found => {
  const found = stockAt(draft, item, command)
  return found === undefined ? refused(new StockNotFound({ item: nameOf(command.item) })) : { found }
}

const stockAt = (draft: Draft, item: ItemRow, place: Place): StockRow | undefined => {
  const { locationId } = locationOf(draft, place.locationId)
  const lotNumber = place.lotNumber ?? ""
  return draft.books
    .stocksOf(item)
    .find((stock) => stock.locationId === locationId && stock.lotNumber === lotNumber)
}
