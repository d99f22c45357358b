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
  type ShortLine,
  StockNotFound
} from "../../../schema/Failure.ts"
import type {
  Answers,
  ConfirmReservation,
  ExpireReservation,
  ExtendReservation,
  ItemRef,
  ReleaseReservation,
  ReservationAnswer,
  ReserveStock
} from "../../../schema/Posting.ts"
import {
  type ItemRow,
  type LineRow,
  type ReservationRow,
  type StockRow,
  byPick,
  isExpired,
  itemFigures,
  sellable
} from "./Books.ts"
import { type Decision, type Draft, type MovementNotes, answered, refused } from "./Draft.ts"

/** The life of a reservation (CONTRACTS section 2): reserve → confirm, release or expire. */

export const cancelledOrderKey = (orderId: string): string => `ORDER_CANCELLED|${orderId}`

interface Pick {
  readonly stock: StockRow
  readonly quantity: number
}

/** Takes up to `quantity` from the stocks, in picking order, and not what is `taken`. What is missing is `short`. */
export const allocate = (
  stocks: ReadonlyArray<StockRow>,
  quantity: number,
  at: number,
  taken: ReadonlyMap<StockRow, number> = new Map()
): { readonly picks: ReadonlyArray<Pick>; readonly short: number } => {
  const picks: Array<Pick> = []
  let open = quantity
  for (const stock of [...stocks].sort(byPick)) {
    const take = Math.min(open, sellable(stock, at) - (taken.get(stock) ?? 0))
    if (take > 0) picks.push({ stock, quantity: take })
    open -= take
    if (open === 0) break
  }
  return { picks, short: open }
}

export const shortLine = (item: ItemRow, requested: number, available: number): ShortLine => ({
  ...(item.productVariantId === null ? {} : { productVariantId: item.productVariantId }),
  ...(item.sku === null ? {} : { sku: item.sku }),
  requested,
  available
})

export const nameOf = (ref: ItemRef): string =>
  "variantId" in ref ? ref.variantId : "sku" in ref ? ref.sku : ref.itemId

interface Wanted {
  readonly item: ItemRow
  readonly stockId: string | null
  quantity: number
}

export const reserve = (draft: Draft, command: ReserveStock): Decision<Answers["ReserveStock"]> => {
  const { at, books, merchantId, posting } = draft
  const wanted = new Map<string, Wanted>()
  const unknown: Array<string> = []
  for (const line of command.lines) {
    const item = books.findItem(merchantId, line.item)
    if (item === undefined) {
      unknown.push(nameOf(line.item))
      continue
    }
    const key = `${item.itemId} ${line.stockId ?? ""}`
    const same = wanted.get(key)
    if (same === undefined) wanted.set(key, { item, stockId: line.stockId ?? null, quantity: line.quantity })
    else same.quantity += line.quantity
  }
  const lines = [...wanted.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, line]) => line)
  const request = requestOf(lines, command.locationId)
  const scope = command.kind === "VARIANT" ? (lines[0]?.item.itemId ?? "") : ""

  const existing = liveReservation(draft, command, scope, lines)
  if (existing !== undefined) {
    if (existing.reservationId === posting.id) return reserved(draft, existing, true)
    if (unknown.length > 0 || !isSameRequest(existing.request, request)) {
      return refused(new ReservationFailed({ reason: "OTHER_ITEMS", reservationId: existing.reservationId }))
    }
    return reserved(draft, existing, false)
  }
  if (books.tracking.has(merchantId, cancelledOrderKey(command.orderId))) {
    return refused(new ReservationFailed({ reason: "ORDER_CANCELLED" }))
  }
  if (unknown.length > 0) return refused(new ItemNotFound({ items: unknown }))
  const discontinued = lines.filter(({ item }) => item.discontinued)
  if (discontinued.length > 0) {
    return refused(
      new ReservationFailed({
        reason: "DISCONTINUED_ITEM",
        items: discontinued.map(({ item }) => item.productVariantId ?? item.sku ?? item.itemId)
      })
    )
  }
  if (command.locationId !== undefined && !books.locations.has(merchantId, command.locationId)) {
    return refused(new LocationNotFound({ locationId: command.locationId }))
  }

  const elsewhere = lines.find(
    ({ item, stockId }) =>
      stockId !== null && item.stocked && !stocksAt(draft, item, command.locationId, stockId).length
  )
  if (elsewhere !== undefined) return refused(new StockNotFound({ item: elsewhere.stockId! }))
  const { planned, short } = plan(draft, lines, command.locationId)
  if (short.length > 0) return refused(new InsufficientStock({ items: short }))

  const reservation: ReservationRow = {
    merchantId,
    reservationId: posting.id,
    orderId: command.orderId,
    kind: command.kind,
    scope,
    status: "PENDING",
    request,
    metadata: command.metadata === undefined ? null : JSON.stringify(command.metadata),
    expiresAt: at + command.expiresInSeconds * 1000,
    createdAt: at,
    updatedAt: at,
    lines: []
  }
  books.insert(books.written.reservations, reservation)
  books.append(books.reservationsOfOrder, merchantId, command.orderId, reservation)
  for (const { item, quantity, stock } of planned) {
    addLine(draft, reservation, item, stock, quantity, { open: quantity, sold: 0 })
    if (stock !== null) {
      draft.move(
        stock,
        "ORDER_ALLOCATE",
        { reserved: quantity },
        {
          source: "ORDER",
          orderId: command.orderId,
          reservationId: reservation.reservationId
        }
      )
    }
  }
  return reserved(draft, reservation, true)
}

/** What was asked for, by item: `[itemId, quantity, stockId | null]`, and the location if one was given. */
type Asked = readonly [itemId: string, quantity: number, stockId: string | null, locationId?: string]

const requestOf = (lines: ReadonlyArray<Wanted>, locationId: string | undefined): string =>
  JSON.stringify(
    lines.map(({ item, quantity, stockId }): Asked =>
      locationId === undefined
        ? [item.itemId, quantity, stockId]
        : [item.itemId, quantity, stockId, locationId]
    )
  )

/** A repeat asks for the same items; where they are to be taken from is not compared (CONTRACTS section 2). */
const isSameRequest = (a: string, b: string): boolean => a === b || itemsOf(a) === itemsOf(b)

const itemsOf = (request: string): string =>
  JSON.stringify(
    (JSON.parse(request) as ReadonlyArray<Asked>).map(([itemId, quantity, stockId]) => [
      itemId,
      quantity,
      stockId
    ])
  )

/** Where the lines are taken from, and what is short. Nothing is taken twice. */
const plan = (
  draft: Draft,
  lines: ReadonlyArray<Wanted>,
  locationId: string | undefined
): {
  readonly planned: ReadonlyArray<{
    readonly item: ItemRow
    readonly stock: StockRow | null
    readonly quantity: number
  }>
  readonly short: ReadonlyArray<ShortLine>
} => {
  const planned = []
  const short: Array<ShortLine> = []
  const taken = new Map<StockRow, number>()
  // What is wanted of one stock can come from nowhere else: it goes before what may come from any.
  const inOrder = [...lines].sort((a, b) => Number(b.stockId !== null) - Number(a.stockId !== null))
  for (const { item, quantity, stockId } of inOrder) {
    if (!item.stocked) {
      planned.push({ item, stock: null, quantity })
      continue
    }
    const stocks = stocksAt(draft, item, locationId, stockId)
    const { picks, short: missing } = allocate(stocks, quantity, draft.at, taken)
    if (missing > 0) short.push(shortLine(item, quantity, quantity - missing))
    for (const pick of picks) {
      taken.set(pick.stock, (taken.get(pick.stock) ?? 0) + pick.quantity)
      planned.push({ item, ...pick })
    }
  }
  return { planned, short }
}

const stocksAt = (
  draft: Draft,
  item: ItemRow,
  locationId: string | undefined,
  stockId: string | null
): ReadonlyArray<StockRow> =>
  draft.books
    .stocksOf(item)
    .filter(
      (stock) =>
        (stockId === null || stock.stockId === stockId) &&
        (locationId === undefined || stock.locationId === locationId)
    )

/**
 * The reservation that a repeated request is compared with: the live one of the same order and scope, or a sale
 * without reservation of one of its items. One that is due makes way first, as it would for the sweeper, and is live
 * still if part of it was sold.
 */
const liveReservation = (
  draft: Draft,
  command: ReserveStock,
  scope: string,
  lines: ReadonlyArray<Wanted>
): ReservationRow | undefined => {
  const ofOrder = draft.books.reservationsOf(draft.merchantId, command.orderId)
  // The posting's own second run comes first: whatever has become of the order meanwhile, it made this one.
  const own = ofOrder.find(({ reservationId }) => reservationId === draft.posting.id)
  if (own !== undefined) return own
  for (const reservation of ofOrder.toReversed()) {
    if (reservation.kind !== command.kind || reservation.scope !== scope) continue
    if (reservation.status === "PENDING" && reservation.expiresAt <= draft.at)
      giveBack(draft, reservation, "EXPIRED")
    if (reservation.status === "PENDING" || reservation.status === "CONFIRMED") return reservation
  }
  return ofOrder.findLast(
    (sale) =>
      sale.kind === "SALE" && sale.lines.some((sold) => lines.some(({ item }) => item.itemId === sold.itemId))
  )
}

export const release = (
  draft: Draft,
  command: ReleaseReservation
): Decision<Answers["ReleaseReservation"]> => {
  const { at, books, merchantId } = draft
  const ofOrder = books.reservationsOf(merchantId, command.orderId)
  const reserved = ofOrder.filter(({ kind }) => kind !== "SALE")
  if (command.line !== undefined) return releaseLine(draft, command, command.line, reserved)
  // An order that was sold without a reservation is known, and confirmed.
  const reservations = reserved.length > 0 ? reserved : ofOrder
  if (reservations.length === 0) return refused(new ReservationNotFound({ orderId: command.orderId }))
  const pending = reservations.filter(({ status }) => status === "PENDING")
  if (pending.length === 0) {
    const confirmed = reservations.find(({ status }) => status === "CONFIRMED")
    return confirmed === undefined
      ? answered({ at, released: false, quantity: 0, item: null })
      : refused(
          new ReservationAlreadyConfirmed({
            orderId: command.orderId,
            reservationId: confirmed.reservationId
          })
        )
  }
  let quantity = 0
  for (const reservation of pending) quantity += giveBack(draft, reservation, command.reason)
  return answered({ at, released: true, quantity, item: null })
}

const releaseLine = (
  draft: Draft,
  command: ReleaseReservation,
  wanted: NonNullable<ReleaseReservation["line"]>,
  reservations: ReadonlyArray<ReservationRow>
): Decision<Answers["ReleaseReservation"]> => {
  const { at, books, merchantId } = draft
  const item = books.findItem(merchantId, wanted.item)
  if (item === undefined) return refused(new ItemNotFound({ items: [nameOf(wanted.item)] }))
  const lines = reservations.flatMap((reservation) =>
    reservation.lines.filter((line) => line.itemId === item.itemId).map((line) => ({ line, reservation }))
  )
  if (lines.length === 0) return refused(new ReservationNotFound({ orderId: command.orderId }))
  const held = lines.reduce((sum, { line }) => sum + line.open, 0)
  if (wanted.quantity !== undefined && wanted.quantity > held) {
    return refused(
      new ReleaseExceedsReservation({ orderId: command.orderId, requested: wanted.quantity, held })
    )
  }
  if (held === 0) {
    const sold = lines.find(({ line }) => line.sold > 0)
    return sold === undefined
      ? answered({ at, released: false, quantity: 0, item: itemFigures(books, item, at) })
      : refused(
          new ReservationAlreadyConfirmed({
            orderId: command.orderId,
            reservationId: sold.reservation.reservationId
          })
        )
  }
  let open = wanted.quantity ?? held
  // What was taken last is given back first, so that what expires first stays with the order.
  for (const { line, reservation } of lines.toReversed()) {
    const quantity = Math.min(open, line.open)
    if (quantity > 0) releaseFromLine(draft, reservation, line, quantity, command.reason)
    open -= quantity
    settle(draft, reservation, "CANCELLED")
  }
  return answered({
    at,
    released: true,
    quantity: wanted.quantity ?? held,
    item: itemFigures(books, item, at)
  })
}

export const confirm = (
  draft: Draft,
  command: ConfirmReservation
): Decision<Answers["ConfirmReservation"]> => {
  const { at, books, merchantId } = draft
  const { orderId } = command
  const ofOrder = books.reservationsOf(merchantId, orderId)
  const meant = ofOrder.filter(
    ({ reservationId }) => command.reservationId === undefined || reservationId === command.reservationId
  )
  const reservations = meant.filter(({ kind }) => kind !== "SALE")
  const last = reservations.at(-1)
  if (last === undefined) {
    // A sale without reservation stands for one: a repeated reserve is answered with it.
    const sale = meant[0]
    return sale === undefined
      ? refused(
          new ReservationNotFound({
            orderId,
            ...(command.reservationId === undefined ? {} : { reservationId: command.reservationId })
          })
        )
      : answered({ at, confirmed: false, reservationId: sale.reservationId })
  }
  const pending = reservations.filter(({ status }) => status === "PENDING")
  if (pending.length > 0) {
    for (const reservation of pending) {
      for (const line of reservation.lines) {
        if (line.open > 0) sellFromLine(draft, reservation, line, line.open)
      }
      settle(draft, reservation, "CANCELLED")
    }
    return answered({ at, confirmed: true, reservationId: pending[0]!.reservationId })
  }
  const confirmed = reservations.find(({ status }) => status === "CONFIRMED")
  if (confirmed !== undefined)
    return answered({ at, confirmed: false, reservationId: confirmed.reservationId })
  // A payment is the last word on what the order is sold: what it did not take is not taken by a confirmation.
  if (ofOrder.some(({ lines }) => lines.some(({ paid }) => paid > 0)))
    return answered({ at, confirmed: false, reservationId: last.reservationId })
  // One that the order has reserved anew after its expiry is over for good, whatever became of the newer one.
  const isNewest = ({ kind, reservationId, scope }: ReservationRow): boolean =>
    ofOrder.findLast((other) => other.kind === kind && other.scope === scope)?.reservationId === reservationId
  const expired = reservations.findLast(
    (reservation) => reservation.status === "EXPIRED" && isNewest(reservation)
  )
  if (expired !== undefined) return retake(draft, expired)
  const named = { orderId, reservationId: last.reservationId }
  return refused(
    last.status === "EXPIRED"
      ? new ReservationExpired({ ...named, items: [] })
      : new ReservationCancelled(named)
  )
}

/**
 * Confirms an EXPIRED reservation by taking its stock again in the same posting. What the order has meanwhile been sold
 * in another way is not sold a second time, and what it holds again under another reservation is confirmed as that one.
 * Where it was to be taken from, it is taken again.
 */
const retake = (draft: Draft, reservation: ReservationRow): Decision<Answers["ConfirmReservation"]> => {
  const { at, books, merchantId } = draft
  const { orderId, reservationId } = reservation
  const gone = (items: ReadonlyArray<ShortLine>) =>
    refused(new ReservationExpired({ orderId, reservationId, items: [...items] }))
  if (books.tracking.has(merchantId, cancelledOrderKey(orderId))) return gone([])
  /** What is not to be sold (again): what the order was sold in another way, and what it has given back itself. */
  const settled = new Map<string, number>()
  for (const other of books.reservationsOf(merchantId, orderId)) {
    for (const line of other.lines) {
      const isWanted = reservation.lines.some(({ itemId }) => itemId === line.itemId)
      if (isWanted && line.open > 0) return gone([])
      const givenBack = other === reservation ? line.released - line.expired : 0
      settled.set(line.itemId, (settled.get(line.itemId) ?? 0) + line.sold + givenBack)
    }
  }
  const asked: ReadonlyArray<Asked> = JSON.parse(reservation.request)
  const lines: Array<Wanted> = []
  for (const [itemId, quantity, stockId] of asked) {
    const done = Math.min(quantity, settled.get(itemId) ?? 0)
    settled.set(itemId, (settled.get(itemId) ?? 0) - done)
    const item = books.items.get(merchantId, itemId)!
    if (quantity > done) lines.push({ item, stockId, quantity: quantity - done })
  }
  const { planned, short } = plan(draft, lines, asked[0]?.[3])
  if (short.length > 0) return gone(short)
  if (planned.length === 0) return answered({ at, confirmed: false, reservationId })
  for (const { item, quantity, stock } of planned) {
    addLine(draft, reservation, item, stock, quantity, { open: 0, sold: quantity })
    if (stock !== null) {
      draft.move(stock, "SALE", { onHand: -quantity }, { source: "ORDER", orderId, reservationId })
    }
  }
  books.change(books.changed.reservations, reservation, { status: "CONFIRMED", updatedAt: at })
  return answered({ at, confirmed: true, reservationId })
}

export const extend = (draft: Draft, command: ExtendReservation): Decision<Answers["ExtendReservation"]> => {
  const { at, books, merchantId } = draft
  const { orderId } = command
  const ofOrder = books.reservationsOf(merchantId, orderId)
  const reservations = ofOrder.filter(({ kind }) => kind !== "SALE")
  const last = reservations.at(-1) ?? ofOrder.at(-1)
  if (last === undefined) return refused(new ReservationNotFound({ orderId }))
  const pending = reservations.filter(({ status }) => status === "PENDING")
  const named = { orderId, reservationId: last.reservationId }
  if (pending.length === 0) {
    return refused(
      last.status === "CONFIRMED"
        ? new ReservationAlreadyConfirmed(named)
        : last.status === "EXPIRED"
          ? new ReservationExpired({ ...named, items: [] })
          : new ReservationCancelled(named)
    )
  }
  // At its expiresAt a reservation is over, whether or not a sweeper has been there (CONTRACTS section 7).
  const due = pending.find(({ expiresAt }) => expiresAt <= at)
  if (due !== undefined) {
    return refused(new ReservationExpired({ orderId, reservationId: due.reservationId, items: [] }))
  }
  const expiresAt = at + command.expiresInSeconds * 1000
  for (const reservation of pending) {
    books.change(books.changed.reservations, reservation, { expiresAt, updatedAt: at })
  }
  return answered({ at, reservationId: pending[0]!.reservationId, expiresAt })
}

export const expire = (draft: Draft, command: ExpireReservation): Decision<Answers["ExpireReservation"]> => {
  const { at } = draft
  const reservation = draft.books
    .reservationsOf(draft.merchantId, command.orderId)
    .find(({ reservationId }) => reservationId === command.reservationId)
  if (reservation === undefined) {
    return refused(
      new ReservationNotFound({ orderId: command.orderId, reservationId: command.reservationId })
    )
  }
  const { expiresAt } = reservation
  if (reservation.status !== "PENDING" || expiresAt > at) return answered({ at, expired: false, expiresAt })
  giveBack(draft, reservation, "EXPIRED")
  return answered({ at, expired: true, expiresAt })
}

/** Gives back all that a reservation still holds, and ends it. Returns how much that was. */
export const giveBack = (
  draft: Draft,
  reservation: ReservationRow,
  reason: "RELEASED" | "CANCELLED" | "EXPIRED"
): number => {
  let quantity = 0
  for (const line of reservation.lines) {
    quantity += line.open
    if (line.open > 0) releaseFromLine(draft, reservation, line, line.open, reason)
  }
  settle(draft, reservation, reason === "EXPIRED" ? "EXPIRED" : "CANCELLED")
  if (reason === "EXPIRED") {
    for (const itemId of new Set(reservation.lines.map((line) => line.itemId))) {
      const item = draft.books.items.get(reservation.merchantId, itemId)!
      draft.notify(item, "ReservationExpired", {
        orderId: reservation.orderId,
        reservationId: reservation.reservationId,
        expiresAt: new Date(reservation.expiresAt).toISOString()
      })
    }
  }
  return quantity
}

/** When nothing is open any more: any sold line makes it CONFIRMED, none what `otherwise` says. */
export const settle = (
  draft: Draft,
  reservation: ReservationRow,
  otherwise: "CANCELLED" | "EXPIRED"
): void => {
  if (reservation.status !== "PENDING" || reservation.lines.some(({ open }) => open > 0)) return
  const { books } = draft
  const status = reservation.lines.some(({ sold }) => sold > 0) ? "CONFIRMED" : otherwise
  books.change(books.changed.reservations, reservation, { status, updatedAt: draft.at })
}

const releaseFromLine = (
  draft: Draft,
  reservation: ReservationRow,
  line: LineRow,
  quantity: number,
  reason: "RELEASED" | "CANCELLED" | "EXPIRED"
): void => {
  const { books } = draft
  books.change(books.changed.lines, line, {
    open: line.open - quantity,
    released: line.released + quantity,
    expired: line.expired + (reason === "EXPIRED" ? quantity : 0)
  })
  if (line.stockId === null) return
  const stock = books.stocks.get(line.merchantId, line.stockId)!
  draft.move(
    stock,
    "ORDER_RELEASE",
    { reserved: -quantity },
    {
      source: "ORDER",
      orderId: reservation.orderId,
      reservationId: reservation.reservationId,
      releaseReason: reason
    }
  )
}

/** Sells what a line holds. Of a lot past its expiry too, with a discrepancy: it was promised (CONTRACTS section 1). */
export const sellFromLine = (
  draft: Draft,
  reservation: ReservationRow,
  line: LineRow,
  quantity: number,
  notes: Omit<MovementNotes, "source" | "orderId" | "reservationId"> = {}
): void => {
  const { books } = draft
  books.change(books.changed.lines, line, { open: line.open - quantity, sold: line.sold + quantity })
  if (line.stockId === null) return
  const stock = books.stocks.get(line.merchantId, line.stockId)!
  const { orderId, reservationId } = reservation
  draft.move(
    stock,
    "SALE",
    { onHand: -quantity, reserved: -quantity },
    {
      ...notes,
      source: "ORDER",
      orderId,
      reservationId
    }
  )
  if (isExpired(stock, draft.at)) {
    const item = books.items.get(line.merchantId, line.itemId)!
    draft.openDiscrepancy(
      "EXPIRED_LOT_SOLD",
      { item, stock, orderId },
      { quantity, lotNumber: stock.lotNumber }
    )
  }
}

/** The document of a sale without reservation: what an order was sold, for returns and for "sold once". */
export const saleOf = (
  draft: Draft,
  orderId: string,
  wants: ReadonlyArray<readonly [itemId: string, quantity: number]>
): ReservationRow => {
  const { at, books, merchantId } = draft
  const sale: ReservationRow = {
    merchantId,
    reservationId: draft.nextId(),
    orderId,
    kind: "SALE",
    scope: wants.length === 1 ? wants[0]![0] : "",
    status: "CONFIRMED",
    request: JSON.stringify(wants.map(([itemId, quantity]): Asked => [itemId, quantity, null])),
    metadata: null,
    expiresAt: at,
    createdAt: at,
    updatedAt: at,
    lines: []
  }
  books.insert(books.written.reservations, sale)
  books.append(books.reservationsOfOrder, merchantId, orderId, sale)
  return sale
}

export const addLine = (
  draft: Draft,
  reservation: ReservationRow,
  item: ItemRow,
  stock: StockRow | null,
  quantity: number,
  state: { readonly open: number; readonly sold: number }
): LineRow => {
  const { books } = draft
  const line: LineRow = {
    merchantId: reservation.merchantId,
    reservationId: reservation.reservationId,
    lineNumber: (reservation.lines.at(-1)?.lineNumber ?? 0) + 1,
    itemId: item.itemId,
    stockId: stock?.stockId ?? null,
    quantity,
    ...state,
    released: 0,
    expired: 0,
    returned: 0,
    paid: 0
  }
  books.insert(books.written.lines, line)
  books.insert(reservation.lines, line)
  return line
}

const reserved = (
  draft: Draft,
  reservation: ReservationRow,
  created: boolean
): Decision<Answers["ReserveStock"]> =>
  answered({ at: draft.at, created, reservation: reservationAnswer(draft, reservation) })

const reservationAnswer = (draft: Draft, reservation: ReservationRow): ReservationAnswer => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  status: reservation.status,
  expiresAt: reservation.expiresAt,
  lines: reservation.lines.map((line) => {
    const item = draft.books.items.get(line.merchantId, line.itemId)
    const stock = line.stockId === null ? undefined : draft.books.stocks.get(line.merchantId, line.stockId)
    return {
      itemId: line.itemId,
      productVariantId: item?.productVariantId ?? null,
      sku: item?.sku ?? null,
      stockId: line.stockId,
      locationId: stock?.locationId ?? null,
      lotNumber: stock === undefined || stock.lotNumber === "" ? null : stock.lotNumber,
      quantity: line.quantity,
      open: line.open
    }
  })
})
