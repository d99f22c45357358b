import type { ShortLine } from "../../schema/Failure.ts"
import { ReservationExpired } from "../../schema/OutgoingEvent.ts"
import { kindOf } from "../../schema/Reservation.ts"
import { timestamp } from "../../schema/Time.ts"
import { isExpired } from "./figures.ts"
import { coverReturn } from "./orderDiscrepancies.ts"
import type { MovementNotes, PostingContext, ReleaseReason } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { LineRow, ReservationRow } from "./tables/reservations.ts"
import type { StockRow } from "./tables/stock.ts"

/** What documents hold and sell: every change of a reservation's lines goes through here, with its movement. */

/** Where something is wanted from, as far as that is said. */
export interface Place {
  readonly stockId: string | null
  readonly locationId?: string | undefined
  readonly lotNumber?: string | undefined
}

/** What was asked for, by item: `[itemId, quantity, stockId | null]`, and the location and the lot if they were given. */
export type Asked = readonly [
  itemId: string,
  quantity: number,
  stockId: string | null,
  locationId?: string | null,
  lotNumber?: string
]
export const asked = (itemId: string, quantity: number, place: Place): Asked => {
  const { locationId, lotNumber, stockId } = place
  if (lotNumber !== undefined) return [itemId, quantity, stockId, locationId ?? null, lotNumber]
  return locationId === undefined ? [itemId, quantity, stockId] : [itemId, quantity, stockId, locationId]
}
export const askedOf = ({ request }: Pick<ReservationRow, "request">): ReadonlyArray<Asked> =>
  JSON.parse(request)

export const isPromise = (reservation: ReservationRow): boolean => kindOf(reservation).isPromise

export const shortLine = (item: ItemRow, requested: number, available: number): ShortLine => ({
  ...(item.productVariantId === null ? {} : { productVariantId: item.productVariantId }),
  ...(item.sku === null ? {} : { sku: item.sku }),
  requested,
  available
})

/** A new document of an order. */
export const addReservation = (
  context: PostingContext,
  given: Pick<ReservationRow, "reservationId" | "orderId" | "kind" | "scope" | "status" | "expiresAt"> & {
    readonly asked: ReadonlyArray<Asked>
    readonly metadata?: string | null
    readonly createdAt?: number
    readonly lines?: Array<LineRow>
  }
): ReservationRow => {
  const reservation: ReservationRow = {
    merchantId: context.merchantId,
    reservationId: given.reservationId,
    orderId: given.orderId,
    kind: given.kind,
    scope: given.scope,
    request: JSON.stringify(given.asked),
    metadata: given.metadata ?? null,
    createdAt: given.createdAt ?? context.at,
    status: given.status,
    expiresAt: given.expiresAt,
    updatedAt: context.at,
    lines: given.lines ?? []
  }
  context.unit.reservations.insert(reservation)
  return reservation
}

export const addLine = (
  context: PostingContext,
  reservation: ReservationRow,
  item: ItemRow,
  stock: StockRow | null,
  quantity: number,
  state: { readonly open: number; readonly sold: number }
): LineRow => {
  const line: LineRow = {
    merchantId: reservation.merchantId,
    reservationId: reservation.reservationId,
    lineNumber: (reservation.lines.at(-1)?.lineNumber ?? 0) + 1,
    itemId: item.itemId,
    stockId: stock?.stockId ?? null,
    promiseId: null,
    quantity,
    ...state,
    released: 0,
    expired: 0,
    returned: 0,
    returnedEarly: 0,
    paid: 0
  }
  context.unit.lines.insert(line)
  context.unit.append(reservation.lines, line)
  return line
}

/** A line that holds: of an item that is not stocked it holds nothing but the promise. */
export const holdLine = (
  context: PostingContext,
  reservation: ReservationRow,
  item: ItemRow,
  stock: StockRow | null,
  quantity: number
): void => {
  addLine(context, reservation, item, stock, quantity, { open: quantity, sold: 0 })
  if (stock === null) return
  const { orderId, reservationId } = reservation
  context.move(stock, kindOf(reservation).holdsBy, { reserved: quantity }, { orderId, reservationId })
}

const stockOf = ({ unit }: PostingContext, line: LineRow): StockRow | undefined =>
  line.stockId === null ? undefined : unit.stocks.indexes.byId.get(line.merchantId, line.stockId)!

/** Whether a line is of a stock at that place. One of an item that is not stocked is nowhere, and so at any. */
export const isAt = (context: PostingContext, line: LineRow, place: Place): boolean => {
  const stock = stockOf(context, line)
  return (
    stock === undefined ||
    ((place.stockId ?? stock.stockId) === stock.stockId &&
      (place.locationId ?? stock.locationId) === stock.locationId &&
      (place.lotNumber ?? stock.lotNumber) === stock.lotNumber)
  )
}

/**
 * Takes what is wanted of an item from what `left` says of lines, in their order. Answers what is missing.
 */
export const claim = (
  context: PostingContext,
  left: Map<LineRow, number>,
  wanted: Place & { readonly item: ItemRow; readonly quantity: number }
): number => {
  let missing = wanted.quantity
  for (const [line, has] of left) {
    if (line.itemId !== wanted.item.itemId || !isAt(context, line, wanted)) continue
    const take = Math.min(missing, has)
    left.set(line, has - take)
    missing -= take
  }
  return missing
}

export const releaseFromLine = (
  context: PostingContext,
  reservation: ReservationRow,
  line: LineRow,
  quantity: number,
  reason: ReleaseReason
): void => {
  context.unit.lines.update(line, {
    open: line.open - quantity,
    released: line.released + quantity,
    expired: line.expired + (reason === "EXPIRED" ? quantity : 0)
  })
  const stock = stockOf(context, line)
  if (stock === undefined) return
  const { orderId, reservationId } = reservation
  const notes = { orderId, reservationId, releaseReason: reason }
  context.move(stock, kindOf(reservation).releasesBy, { reserved: -quantity }, notes)
}

/** Sells what a line holds. Of a lot past its expiry too, with a discrepancy: it was promised (CONTRACTS section 1). */
export const sellFromLine = (
  context: PostingContext,
  reservation: ReservationRow,
  line: LineRow,
  quantity: number,
  given: Omit<MovementNotes, "orderId" | "reservationId"> = {}
): void => {
  context.unit.lines.update(line, { open: line.open - quantity, sold: line.sold + quantity })
  coverReturn(context, reservation.orderId, line)
  const stock = stockOf(context, line)
  if (stock === undefined) return
  const { orderId, reservationId } = reservation
  const deltas = { onHand: -quantity, reserved: -quantity }
  context.move(stock, kindOf(reservation).sellsBy, deltas, { ...given, orderId, reservationId })
  noteExpiredLot(context, stock, orderId, quantity)
}

/** Sells from a stock what the document did not hold. */
export const sellFromStock = (
  context: PostingContext,
  reservation: ReservationRow,
  item: ItemRow,
  stock: StockRow | null,
  quantity: number,
  given: Omit<MovementNotes, "orderId" | "reservationId"> = {}
): LineRow => {
  const line = addLine(context, reservation, item, stock, quantity, { open: 0, sold: quantity })
  coverReturn(context, reservation.orderId, line)
  if (stock === null) return line
  const { orderId, reservationId } = reservation
  context.move(
    stock,
    kindOf(reservation).sellsBy,
    { onHand: -quantity },
    { ...given, orderId, reservationId }
  )
  noteExpiredLot(context, stock, orderId, quantity)
  return line
}

/**
 * Sells what was sold elsewhere than the order holds it: as much is given back, what was taken last first, and sold from
 * `takenFor` under the same reservation. Answers with the lines that are sold.
 */
export const sellInPlaceOfHeld = (
  context: PostingContext,
  held: ReadonlyArray<{ readonly line: LineRow; readonly reservation: ReservationRow }>,
  given: {
    readonly item: ItemRow
    readonly quantity: number
    readonly takenFor: (quantity: number) => Iterable<readonly [StockRow | null, number]>
  },
  notes: Omit<MovementNotes, "orderId" | "reservationId">
): ReadonlyArray<LineRow> => {
  const sold: Array<LineRow> = []
  let left = given.quantity
  for (const { line, reservation } of held.toReversed()) {
    const take = Math.min(left, line.open)
    if (take === 0) continue
    releaseFromLine(context, reservation, line, take, "RELEASED")
    for (const [stock, part] of given.takenFor(take)) {
      sold.push(sellFromStock(context, reservation, given.item, stock, part, notes))
    }
    endIfNothingOpen(context, reservation, "CANCELLED")
    left -= take
  }
  return sold
}

const noteExpiredLot = (
  context: PostingContext,
  stock: StockRow,
  orderId: string,
  quantity: number
): void => {
  if (!isExpired(stock, context.at)) return
  const item = context.unit.items.indexes.byId.get(stock.merchantId, stock.itemId)!
  const { lotNumber } = stock
  context.openDiscrepancy("EXPIRED_LOT_SOLD", { item, stock, orderId }, { quantity, lotNumber })
}

/** Gives back all that a reservation still holds, and ends it. Returns how much that was. */
export const releaseAll = (
  context: PostingContext,
  reservation: ReservationRow,
  reason: ReleaseReason
): number => {
  let quantity = 0
  for (const line of reservation.lines) {
    quantity += line.open
    if (line.open > 0) releaseFromLine(context, reservation, line, line.open, reason)
  }
  endIfNothingOpen(context, reservation, reason === "EXPIRED" ? "EXPIRED" : "CANCELLED")
  if (reason === "EXPIRED") emitExpired(context, reservation)
  return quantity
}

const emitExpired = (context: PostingContext, reservation: ReservationRow): void => {
  const { orderId, reservationId } = reservation
  const expiresAt = timestamp(reservation.expiresAt)
  for (const itemId of new Set(reservation.lines.map((line) => line.itemId))) {
    const item = context.unit.items.indexes.byId.get(reservation.merchantId, itemId)!
    context.emitOfItem(item, ReservationExpired, { orderId, reservationId, expiresAt })
  }
}

/** When nothing is open any more: any sold line makes it CONFIRMED, none what `otherwise` says. */
export const endIfNothingOpen = (
  context: PostingContext,
  reservation: ReservationRow,
  otherwise: "CANCELLED" | "EXPIRED"
): void => {
  if (reservation.status !== "PENDING" || reservation.lines.some(({ open }) => open > 0)) return
  const status = reservation.lines.some(({ sold }) => sold > 0) ? "CONFIRMED" : otherwise
  context.unit.reservations.update(reservation, { status, updatedAt: context.at })
}

/** The document of a sale without reservation: what an order was sold, for returns and for "sold once". */
export const addSale = (
  context: PostingContext,
  orderId: string,
  wants: ReadonlyArray<readonly [itemId: string, quantity: number]>
): ReservationRow =>
  addReservation(context, {
    reservationId: context.nextId(),
    orderId,
    kind: "SALE",
    scope: wants.length === 1 ? wants[0]![0] : "",
    status: "CONFIRMED",
    expiresAt: context.at,
    asked: wants.map(([itemId, quantity]): Asked => [itemId, quantity, null])
  })
