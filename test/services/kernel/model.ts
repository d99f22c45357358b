import type { AdjustStock } from "../../../src/services/kernel/commands/stock.ts"
import type { Command, Posting } from "../../../src/services/kernel/commands.ts"
import type { ItemRef } from "../../../src/schema/Item.ts"
import type { SaleLine } from "../../../src/services/kernel/commands/sales.ts"

/**
 * What CONTRACTS sections 1, 2 and 4 say about the kernel's commands, as plainly as it can be said: arrays, no journal,
 * no rows, no code in common with src. It is the specification that random histories are compared with.
 */

export interface Item {
  readonly id: string
  variant: string | null
  sku: string | null
  stocked: boolean
  threshold: number
  discontinued: boolean
  initialized: boolean
  deleted: boolean
  /** Deleted as soon as nothing of it is there or held. */
  isLeaving: boolean
  captured: boolean
}
export interface Stock {
  readonly item: string
  readonly location: string
  readonly lot: string
  expiresAt: number | null
  readonly createdAt: number
  /** Known once the batch that opened it is committed. */
  id: string | null
  onHand: number
  reserved: number
  damaged: number
  version: number
}
interface Line {
  readonly item: string
  readonly stock: number | null
  readonly quantity: number
  open: number
  sold: number
  released: number
  /** The part of `released` that the order did not give back of its own will. */
  expired: number
  returned: number
  /** The part of `sold` that had come back before it was told. */
  early: number
  paid: number
}
/** What somebody wants, and from where as far as it is said. */
interface Want {
  readonly item: string
  readonly quantity: number
  readonly stock: string | null
  readonly location: string | null
  readonly lot: string | null
}
export interface Document {
  readonly id: string
  readonly order: string
  readonly kind: "ORDER" | "VARIANT" | "SALE"
  readonly scope: string
  wants: ReadonlyArray<Want>
  status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
  expiresAt: number
  readonly lines: Array<Line>
}
export interface World {
  /** In the order in which they are taken from. */
  readonly locations: Array<{ readonly id: string; name: string | null; retired: boolean }>
  readonly items: Array<Item>
  readonly stocks: Array<Stock>
  readonly documents: Array<Document>
  /** Adjustments that name a reference, and direct sales of orders: each is applied once. */
  readonly applied: Array<string>
  readonly cancelledOrders: Array<string>
  /** Messages and facts that were taken already: payments that failed, orders received, returns, first stocks. */
  readonly heard: Array<string>
  /** The lines of paid sales, and what was said of each. */
  readonly paidLines: Array<{ readonly key: string; readonly says: string }>
  /** Variants that messages have deleted. */
  readonly deletions: Array<string>
  /** Discrepancies that no balance calls for: `kind subject`, open or not; of some, by how much. */
  readonly flags: Array<{
    readonly kind: string
    readonly subject: string
    open: boolean
    quantity: number
    id: string | null
  }>
}

export type Outcome =
  | { readonly refused: string; readonly detail: unknown }
  | { readonly told: Readonly<Record<string, unknown>> }

class Refused {
  readonly tag: string
  readonly detail: unknown
  constructor(tag: string, detail: unknown = null) {
    this.tag = tag
    this.detail = detail
  }
}

const expiredFor = (short: ReadonlyArray<unknown>) => new Refused("ReservationExpired", short)

export const emptyWorld = (): World => ({
  locations: [{ id: "default", name: null, retired: false }],
  items: [],
  stocks: [],
  documents: [],
  applied: [],
  cancelledOrders: [],
  heard: [],
  paidLines: [],
  deletions: [],
  flags: []
})

/** What CONTRACTS says about one posting. All or none, by construction: it is played on a copy. */
export const judge = (
  world: World,
  posting: Posting
): { readonly outcome: Outcome; readonly world: World } => {
  const next = copyOf(world)
  try {
    const told = new Rules(next, posting).told()
    for (const item of next.items) {
      if (!item.isLeaving || hasStock(next, item.id)) continue
      item.isLeaving = false
      item.deleted = true
    }
    return { outcome: { told }, world: next }
  } catch (reason) {
    if (!(reason instanceof Refused)) throw reason
    return { outcome: { refused: reason.tag, detail: reason.detail }, world }
  }
}

const copyOf = (world: World): World => ({
  locations: world.locations.map((location) => ({ ...location })),
  items: world.items.map((item) => ({ ...item })),
  stocks: world.stocks.map((stock) => ({ ...stock })),
  documents: world.documents.map((one) => ({ ...one, lines: one.lines.map((line) => ({ ...line })) })),
  applied: [...world.applied],
  cancelledOrders: [...world.cancelledOrders],
  heard: [...world.heard],
  paidLines: [...world.paidLines],
  deletions: [...world.deletions],
  flags: world.flags.map((flag) => ({ ...flag }))
})

class Rules {
  readonly world: World
  readonly posting: Posting
  readonly at: number

  constructor(world: World, posting: Posting) {
    this.world = world
    this.posting = posting
    this.at = posting.at
  }

  told(): Readonly<Record<string, unknown>> {
    const { command } = this.posting
    switch (command._tag) {
      case "ReserveStock":
        return this.reserve(command)
      case "ReleaseReservation":
        return this.release(command)
      case "ConfirmReservation":
        return command.lines === undefined ? this.confirm(command) : this.confirmPart(command)
      case "AmendReservation":
        return this.amend(command)
      case "ExtendReservation":
        return this.extend(command)
      case "ExpireReservation":
        return this.expire(command)
      case "AdjustStock":
        return this.adjust(command)
      case "EnsureItem":
        return this.ensureItem(command)
      case "EnsureLocation":
        return this.ensureLocation(command)
      case "UpdateLocation":
        return this.updateLocation(command)
      case "ResolveDiscrepancy":
        return this.resolve(command)
      case "RecordSale":
        return this.recordSale(command)
      case "ReportSale":
        return this.reportSale(command)
      case "ReceiveOrder":
        return this.receiveOrder(command)
      case "ConfirmOrder":
        return this.confirmOrder(command)
      case "CancelOrder":
        return this.cancelOrder(command)
      case "ReturnGoods":
        return this.returnGoods(command)
      case "DeleteItem":
        return this.deleteItem(command)
      default:
        throw new Error(`${command._tag} is not in the model`)
    }
  }

  reserve(command: Extract<Command, { _tag: "ReserveStock" }>) {
    const { unknown, wants } = this.wanted(command.lines)
    const placed = this.wanted(command.lines, command.locationId).wants
    const scope = command.kind === "VARIANT" ? (wants[0]?.item ?? "") : ""

    const mine = this.world.documents.filter(({ order }) => order === command.orderId)
    const promises = mine.filter(({ kind }) => kind === command.kind).filter((one) => one.scope === scope)
    for (const one of promises) {
      if (one.status === "PENDING" && one.expiresAt <= this.at) this.giveBack(one, "EXPIRED")
    }
    const live =
      promises.find(({ status }) => status === "PENDING") ??
      promises.findLast(({ status }) => status === "CONFIRMED") ??
      mine.findLast(
        ({ kind, lines }) =>
          kind === "SALE" && lines.some((line) => wants.some(({ item }) => line.item === item))
      )
    if (live !== undefined) {
      const isOther = unknown || !this.hasJust(live, scope, wants)
      if (isOther) throw new Refused("ReservationFailed", "OTHER_ITEMS")
      return { created: false, ...this.reservation(live) }
    }
    if (this.world.cancelledOrders.includes(command.orderId)) {
      throw new Refused("ReservationFailed", "ORDER_CANCELLED")
    }
    if (unknown) throw new Refused("ItemNotFound")
    if (wants.some(({ item }) => this.item(item).discontinued)) {
      throw new Refused("ReservationFailed", "DISCONTINUED_ITEM")
    }
    for (const { locationId } of [command, ...command.lines]) this.checkLocation(locationId)
    const one: Document = {
      id: this.posting.id,
      order: command.orderId,
      kind: command.kind,
      scope,
      wants: placed,
      status: "PENDING",
      expiresAt: this.at + command.expiresInSeconds * 1_000,
      lines: []
    }
    this.checkStocks(placed)
    this.hold(placed, () => one)
    this.world.documents.push(one)
    return { created: true, ...this.reservation(one) }
  }

  /** What the lines of a request want, those for the same summed. */
  wanted(lines: Extract<Command, { _tag: "ReserveStock" }>["lines"], otherwiseAt?: string) {
    const wants = new Map<string, Want>()
    for (const { item: ref, locationId, lotNumber, quantity, stockId } of lines) {
      const item = this.find(ref)?.id
      if (item === undefined) continue
      const place = {
        stock: stockId ?? null,
        location: locationId ?? otherwiseAt ?? null,
        lot: lotNumber ?? null
      }
      const key = JSON.stringify([item, place])
      wants.set(key, { item, ...place, quantity: (wants.get(key)?.quantity ?? 0) + quantity })
    }
    return {
      unknown: lines.some(({ item }) => this.find(item) === undefined),
      wants: [...wants.values()].sort((a, b) => (a.item < b.item ? -1 : a.item > b.item ? 1 : 0))
    }
  }

  /** Whether a document holds just what is wanted, or was sold it once it holds nothing: nothing more, and all of it there. */
  hasJust(one: Document, scope: string, wants: ReadonlyArray<Want>): boolean {
    const has = one.lines
      .filter(({ item }) => scope === "" || item === scope)
      .map((line) => ({ line, quantity: one.status === "PENDING" ? line.open : line.sold }))
    const total = sumsOf(has.map(({ line, quantity }) => [line.item, quantity]))
    if (total !== sumsOf(wants.map(({ item, quantity }) => [item, quantity]))) return false
    // Each set of wants finds enough where any of them may be: then all do (Hall).
    return subsetsOf(wants).every((some) => {
      const there = has.filter(({ line }) => some.some((want) => this.isThere(line, want)))
      return sum(some) <= sum(there)
    })
  }

  isThere({ item, stock }: Line, want: Want): boolean {
    if (item !== want.item) return false
    if (stock === null) return true
    const at = this.world.stocks[stock]!
    return this.isWanted(at, want)
  }

  isWanted(stock: Stock, { location, lot, stock: id }: Want): boolean {
    return (
      (id === null || stock.id === id) &&
      (location === null || stock.location === location) &&
      (lot === null || stock.lot === lot)
    )
  }

  checkStocks(wants: ReadonlyArray<Want>): void {
    for (const { item, location, stock: id } of wants) {
      const isKnown = this.world.stocks.some(
        (stock) => stock.id === id && stock.item === item && this.isHere(stock, location ?? undefined)
      )
      if (id !== null && this.item(item).stocked && !isKnown) throw new Refused("StockNotFound")
    }
  }

  /** Holds what is wanted, what names more of its place first: it can come from fewer stocks. All of it, or none. */
  hold(
    wants: ReadonlyArray<Want & { readonly held?: number }>,
    documentOf: (item: string) => Document
  ): void {
    const short: Array<readonly [string | null, number, number]> = []
    for (const want of mostNamedFirst(wants)) {
      const { held = 0, item, quantity } = want
      const missing = this.take(item, quantity, {
        from: (stock) => this.isWanted(stock, want),
        each: (stock, picked) => {
          if (stock !== null) this.move(stock, { reserved: picked })
          documentOf(item).lines.push(newLine(item, stock, picked, { open: picked }))
        }
      })
      if (missing > 0) short.push([this.nameOf(item), held + quantity, held + quantity - missing])
    }
    if (short.length > 0) throw new Refused("InsufficientStock", short.sort())
  }

  amend(command: Extract<Command, { _tag: "AmendReservation" }>) {
    const { expiresInSeconds, lines } = command
    const pending = this.pendingOf(command.orderId)
    const { unknown, wants } = this.wanted(lines)
    if (unknown) throw new Refused("ItemNotFound")
    for (const { locationId } of lines) this.checkLocation(locationId)
    this.checkStocks(wants)
    // What is held of it stays, what expires first before the rest.
    const held = pending.flatMap((one) => one.lines).filter(({ open }) => open > 0)
    const placeOf = ({ item, stock }: Line): number =>
      stock === null ? -1 : this.picking(item, () => true).indexOf(stock)
    const byPicking = held.toSorted((a, b) => placeOf(a) - placeOf(b))
    const surplus = new Map(byPicking.map((line) => [line, line.open]))
    const missing = mostNamedFirst(wants).map((want) => {
      let left = want.quantity
      for (const [line, has] of surplus) {
        const keeps = this.isThere(line, want) ? Math.min(left, has) : 0
        surplus.set(line, has - keeps)
        left -= keeps
      }
      return { ...want, quantity: left, held: want.quantity - left }
    })
    const taken = missing.filter(({ quantity }) => quantity > 0)
    if (taken.some(({ item }) => this.item(item).discontinued)) {
      throw new Refused("ReservationFailed", "DISCONTINUED_ITEM")
    }
    for (const [line, quantity] of surplus) this.letGo(line, quantity)
    const [{ expiresAt }] = pending as [Document]
    // By the variants contract each item has a document of its own.
    const holding = [...pending]
    const documentOf = (item: string): Document => {
      const known =
        holding.find(({ kind, scope }) => kind === "VARIANT" && scope === item) ??
        holding.find(({ kind }) => kind === "ORDER")
      if (known !== undefined) return known
      const id = countedOn(this.posting.id, holding.length - pending.length + 1)
      const order = command.orderId
      const made = { id, order, scope: item, wants: [], expiresAt, lines: [] }
      const one: Document = { ...made, kind: "VARIANT", status: "PENDING" }
      this.world.documents.push(one)
      holding.push(one)
      return one
    }
    this.hold(taken, documentOf)
    const isOther = taken.length > 0 || [...surplus.values()].some((quantity) => quantity > 0)
    for (const one of isOther ? holding : []) {
      one.wants = this.wantsNow(one, wants)
      this.settle(one, "CANCELLED")
    }
    const left = holding.filter(({ status }) => status === "PENDING")
    if (expiresInSeconds !== undefined) {
      for (const one of left) one.expiresAt = this.at + expiresInSeconds * 1_000
    }
    const all = left.flatMap((one) => one.lines)
    return {
      applied: isOther || expiresInSeconds !== undefined,
      ...this.reservation({ ...left[0]!, lines: all })
    }
  }

  /** What an amended document is for: what it was sold, and what it holds, from where that is wanted. */
  wantsNow({ lines }: Document, wants: ReadonlyArray<Want>): ReadonlyArray<Want> {
    const anywhere = { stock: null, location: null, lot: null }
    return [...new Set(lines.map(({ item }) => item))].flatMap((item) => {
      const total = (of: (line: Line) => number) =>
        lines.reduce((all, line) => all + (line.item === item ? of(line) : 0), 0)
      const named = wants.filter((want) => want.item === item)
      const isWhole = sum(named) === total(({ open }) => open)
      const held = isWhole ? named : [{ item, quantity: total(({ open }) => open), ...anywhere }]
      return [{ item, quantity: total(({ sold }) => sold), ...anywhere }, ...held].filter(
        ({ quantity }) => quantity > 0
      )
    })
  }

  release(command: Extract<Command, { _tag: "ReleaseReservation" }>) {
    const mine = this.promisesOf(command.orderId)
    if (command.line === undefined) {
      const pending = mine.filter(({ status }) => status === "PENDING")
      if (pending.length > 0) {
        const quantity = pending.reduce((sum, one) => sum + this.giveBack(one, "CANCELLED"), 0)
        return { applied: true, quantity }
      }
      const known =
        mine.length > 0 ? mine : this.world.documents.filter(({ order }) => order === command.orderId)
      if (known.length === 0) throw new Refused("ReservationNotFound")
      if (known.some(({ status }) => status === "CONFIRMED")) throw new Refused("ReservationAlreadyConfirmed")
      return { applied: false, quantity: 0 }
    }
    const item = this.find(command.line.item)
    if (item === undefined) throw new Refused("ItemNotFound")
    const lines = mine.flatMap((one) =>
      one.lines.filter((line) => line.item === item.id).map((line) => ({ line, one }))
    )
    if (lines.length === 0) throw new Refused("ReservationNotFound")
    const held = lines.reduce((sum, { line }) => sum + line.open, 0)
    const wanted = command.line.quantity ?? held
    if (wanted > held) throw new Refused("ReleaseExceedsReservation", held)
    if (held === 0) {
      if (lines.some(({ line }) => line.sold > 0)) throw new Refused("ReservationAlreadyConfirmed")
      return { applied: false, quantity: 0, item: this.figures(item) }
    }
    let left = wanted
    for (const { line, one } of lines.toReversed()) {
      const quantity = Math.min(left, line.open)
      left -= quantity
      this.letGo(line, quantity)
      this.settle(one, "CANCELLED")
    }
    return { applied: true, quantity: wanted, item: this.figures(item) }
  }

  confirm(command: Extract<Command, { _tag: "ConfirmReservation" }>) {
    const { meant, promises } = this.meant(command)
    if (promises.length === 0) {
      if (meant[0] === undefined) throw new Refused("ReservationNotFound")
      return { applied: false, reservationId: meant[0].id, status: meant[0].status }
    }
    const pending = promises.filter(({ status }) => status === "PENDING")
    for (const one of pending) {
      for (const line of one.lines) this.sell(one, line, line.open)
      this.settle(one, "CANCELLED")
    }
    if (pending[0] !== undefined) return { applied: true, reservationId: pending[0].id, status: "CONFIRMED" }
    const confirmed = promises.find(({ status }) => status === "CONFIRMED")
    if (confirmed !== undefined) {
      return { applied: false, reservationId: confirmed.id, status: "CONFIRMED" }
    }
    const last = promises.at(-1)!
    // What was paid is all that is sold.
    if (this.isPaid(command.orderId)) return { applied: false, reservationId: last.id, status: last.status }
    const expired = this.takeable(promises, command.orderId)
    if (expired !== undefined) return this.takeAgain(expired)
    throw last.status === "EXPIRED"
      ? new Refused("ReservationExpired", [])
      : new Refused("ReservationCancelled")
  }

  confirmPart(command: Extract<Command, { _tag: "ConfirmReservation" }>) {
    const lines = command.lines!
    const part = new Map<string, number>()
    for (const { item, quantity } of lines) {
      const id = this.find(item)?.id
      if (id === undefined) throw new Refused("ItemNotFound")
      part.set(id, (part.get(id) ?? 0) + quantity)
    }
    const { meant, promises } = this.meant(command)
    if (meant.length === 0) throw new Refused("ReservationNotFound")
    const total = (item: string, of: (line: Line) => number) =>
      meant.flatMap((one) => one.lines).reduce((all, line) => all + (line.item === item ? of(line) : 0), 0)
    const beyond = (has: (item: string) => number) =>
      [...part]
        .filter(([item, quantity]) => has(item) < quantity)
        .map(([item, quantity]) => [this.nameOf(item), quantity, has(item)] as const)
        .sort()
    const short = beyond((item) => total(item, ({ open }) => open))
    if (short.length === 0) {
      const holds = (one: Document) => one.lines.some(({ item, open }) => open > 0 && part.has(item))
      const first = promises.find(holds)!
      for (const [item, quantity] of part) {
        let left = quantity
        for (const one of promises) {
          for (const line of one.lines) {
            const picked = line.item === item ? Math.min(left, line.open) : 0
            this.sell(one, line, picked)
            left -= picked
          }
          this.settle(one, "CANCELLED")
        }
      }
      return { applied: true, reservationId: first.id, status: first.status }
    }
    const isPending = promises.some(({ status }) => status === "PENDING")
    const isSold = [...part].every(
      ([item, quantity]) =>
        total(item, ({ open }) => open) === 0 && total(item, ({ sold }) => sold) >= quantity
    )
    const last = promises.at(-1) ?? meant.at(-1)!
    if (isSold || (!isPending && this.isPaid(command.orderId))) {
      return { applied: false, reservationId: last.id, status: last.status }
    }
    if (isPending || meant.some(({ status }) => status === "CONFIRMED")) {
      throw new Refused("ConfirmExceedsReservation", short)
    }
    const expired = this.takeable(promises, command.orderId)
    if (expired === undefined) {
      throw last.status === "EXPIRED"
        ? new Refused("ReservationExpired", [])
        : new Refused("ReservationCancelled")
    }
    const tooMuch = beyond((item) => this.expiredOf(expired, item))
    if (tooMuch.length > 0) throw new Refused("ConfirmExceedsReservation", tooMuch)
    return this.takeAgain(expired, part)
  }

  meant({
    orderId,
    reservationId
  }: {
    readonly orderId: string
    readonly reservationId?: string | undefined
  }) {
    const meant = this.world.documents.filter(
      ({ id, order }) => order === orderId && (reservationId === undefined || id === reservationId)
    )
    return { meant, promises: meant.filter(({ kind }) => kind !== "SALE") }
  }

  isPaid(orderId: string): boolean {
    return this.linesOf(orderId).some(({ line }) => line.paid > 0)
  }

  /** The last that expired, unless a newer reservation of the same kind and scope has taken its place. */
  takeable(promises: ReadonlyArray<Document>, orderId: string): Document | undefined {
    const isLast = (one: Document) =>
      this.promisesOf(orderId).findLast(({ kind, scope }) => kind === one.kind && scope === one.scope) === one
    return promises.findLast((one) => one.status === "EXPIRED" && isLast(one))
  }

  /** What it held when it expired, less what the order was sold of the item in another way. */
  expiredOf(one: Document, item: string): number {
    const ofItem = (lines: ReadonlyArray<Line>, of: (line: Line) => number) =>
      lines.reduce((all, line) => all + (line.item === item ? of(line) : 0), 0)
    const others = this.linesOf(one.order).filter((other) => other.one !== one)
    const sold = ofItem(
      others.map(({ line }) => line),
      (line) => line.sold
    )
    return Math.max(0, ofItem(one.lines, ({ expired }) => expired) - sold)
  }

  takeAgain(one: Document, part?: ReadonlyMap<string, number>) {
    if (this.world.cancelledOrders.includes(one.order)) throw expiredFor([])
    const items = new Set(one.lines.map(({ item }) => item))
    const isHeld = this.linesOf(one.order).some(({ line }) => items.has(line.item) && line.open > 0)
    if (isHeld) throw expiredFor([])
    const left = new Map(
      [...items].map((item) => [
        item,
        Math.min(this.expiredOf(one, item), part === undefined ? Number.MAX_VALUE : (part.get(item) ?? 0))
      ])
    )
    // What names its place is taken again there; what was sold meanwhile is of what may come from anywhere.
    const named = [...one.wants].sort((a, b) => (textOf(a) > textOf(b) ? -1 : 1))
    const wants = named.map((want) => {
      const quantity = Math.min(want.quantity, left.get(want.item) ?? 0)
      left.set(want.item, (left.get(want.item) ?? 0) - quantity)
      return { ...want, quantity }
    })
    const short: Array<readonly [string | null, number, number]> = []
    let tookAny = false
    for (const want of mostNamedFirst(wants).filter(({ quantity }) => quantity > 0)) {
      const { item, quantity } = want
      const missing = this.take(item, quantity, {
        from: (stock) => this.isWanted(stock, want),
        each: (stock, picked) => {
          tookAny = true
          if (stock !== null) this.move(stock, { onHand: -picked })
          this.addSold(one.order, one.lines, newLine(item, stock, picked, { sold: picked }))
        }
      })
      if (missing > 0) short.push([this.nameOf(item), quantity, quantity - missing])
    }
    if (short.length > 0) throw expiredFor(short.sort())
    if (tookAny) one.status = "CONFIRMED"
    return { applied: tookAny, reservationId: one.id, status: one.status }
  }

  extend(command: Extract<Command, { _tag: "ExtendReservation" }>) {
    const pending = this.pendingOf(command.orderId)
    const expiresAt = this.at + command.expiresInSeconds * 1_000
    for (const one of pending) one.expiresAt = expiresAt
    return { reservationId: pending[0]!.id, expiresAt }
  }

  /** What the order holds that can still be changed. */
  pendingOf(orderId: string): ReadonlyArray<Document> {
    const mine = this.promisesOf(orderId)
    const known = mine.length > 0 ? mine : this.world.documents.filter(({ order }) => order === orderId)
    if (known.length === 0) throw new Refused("ReservationNotFound")
    const pending = mine.filter(({ status }) => status === "PENDING")
    if (pending.length === 0) {
      const last = known.at(-1)!.status
      throw new Refused(
        last === "CONFIRMED"
          ? "ReservationAlreadyConfirmed"
          : last === "EXPIRED"
            ? "ReservationExpired"
            : "ReservationCancelled",
        last === "EXPIRED" ? [] : null
      )
    }
    if (pending.some(({ expiresAt }) => expiresAt <= this.at)) throw new Refused("ReservationExpired", [])
    return pending
  }

  expire(command: Extract<Command, { _tag: "ExpireReservation" }>) {
    const one = this.world.documents.find(
      ({ id, order }) => order === command.orderId && id === command.reservationId
    )
    if (one === undefined) throw new Refused("ReservationNotFound")
    const isDue = one.status === "PENDING" && one.expiresAt <= this.at
    if (isDue) this.giveBack(one, "EXPIRED")
    return { expired: isDue, expiresAt: one.expiresAt }
  }

  adjust(command: AdjustStock) {
    const item = this.find(command.item)
    if (item === undefined) throw new Refused("ItemNotFound")
    this.checkLocation(command.locationId)
    const moved = new Set<number>()
    const applied =
      command.changeType === "SALE"
        ? this.sale(command, item, moved)
        : this.once(command, item, () => this.fact(command, item, moved))
    return {
      applied,
      item: this.figures(item),
      stocks: [...moved].map((index) => this.stockFigures(index)).sort()
    }
  }

  once(command: AdjustStock, item: Item, apply: () => void): boolean {
    const { changeType, locationId, lotNumber, orderId, reference } = command
    const isSaleOfOrder = changeType === "SALE" && orderId !== undefined
    if (reference !== undefined || isSaleOfOrder) {
      const key = JSON.stringify(
        isSaleOfOrder
          ? [orderId, item.id, reference]
          : [changeType, item.id, reference, orderId, locationId, lotNumber]
      )
      if (this.world.applied.includes(key)) return false
      this.world.applied.push(key)
    }
    this.checkVersion(command, item)
    apply()
    return true
  }

  sale(command: AdjustStock, item: Item, moved: Set<number>): boolean {
    const { orderId, quantity } = command
    if (orderId === undefined)
      return this.once(command, item, () => this.sellDirectly(command, item, quantity, moved))
    const lines = this.promisesOf(orderId).flatMap((one) =>
      one.lines.filter((line) => line.item === item.id).map((line) => ({ line, one }))
    )
    if (lines.every(({ line }) => line.open === 0)) {
      const isPaid = this.linesOf(orderId).some(({ line }) => line.item === item.id && line.paid > 0)
      if (isPaid || lines.some(({ line }) => line.sold > 0)) return false
      return this.once(command, item, () => this.sellDirectly(command, item, quantity, moved))
    }
    this.checkVersion(command, item)
    const place = { location: command.locationId ?? null, lot: command.lotNumber ?? null }
    const want: Want = { item: item.id, quantity, stock: null, ...place }
    let left = quantity
    for (const { line, one } of lines) {
      const picked = this.isThere(line, want) ? Math.min(left, line.open) : 0
      if (picked === 0) continue
      left -= picked
      this.sell(one, line, picked)
      this.settle(one, "CANCELLED")
      if (line.stock !== null) moved.add(line.stock)
    }
    // What was sold at the place is not what is held elsewhere: as much of that is given back.
    const elsewhere = lines.filter(({ line }) => line.open > 0)
    const there = this.world.stocks.filter((stock) => stock.item === item.id && this.isWanted(stock, want))
    const free = there.reduce((all, stock) => all + sellableNow(this.world, stock, this.at), 0)
    if (left > 0 && elsewhere.length > 0) {
      if (item.stocked && free < left)
        throw new Refused("InsufficientStock", [[this.nameOf(item.id), left, free]])
      for (const { line, one } of elsewhere.toReversed()) {
        const swapped = Math.min(left, line.open)
        this.letGo(line, swapped)
        // The order gives back as much as it takes, so that of the item as a whole nothing more is promised.
        let open = swapped
        for (const stock of item.stocked
          ? this.picking(item.id, (one) => this.isWanted(one, want))
          : [null]) {
          const there = stock === null ? open : sellableNow(this.world, this.world.stocks[stock]!, this.at)
          const picked = Math.min(open, there)
          if (picked <= 0) continue
          open -= picked
          if (stock !== null) {
            moved.add(stock)
            this.move(stock, { onHand: -picked })
          }
          this.addSold(orderId, one.lines, newLine(item.id, stock, picked, { sold: picked }))
        }
        this.settle(one, "CANCELLED")
        left -= swapped
      }
    }
    if (left > 0) this.sellDirectly(command, item, left, moved)
    return true
  }

  sellDirectly(command: AdjustStock, item: Item, quantity: number, moved: Set<number>): void {
    const lines: Array<Line> = []
    const missing = this.take(item.id, quantity, {
      from: (stock) =>
        this.isHere(stock, command.locationId) &&
        (command.lotNumber === undefined || stock.lot === command.lotNumber),
      each: (stock, picked) => {
        const line = newLine(item.id, stock, picked, { sold: picked })
        if (command.orderId === undefined) lines.push(line)
        else this.addSold(command.orderId, lines, line)
        if (stock === null) return
        moved.add(stock)
        this.move(stock, { onHand: -picked })
      }
    })
    if (missing > 0)
      throw new Refused("InsufficientStock", [[this.nameOf(item.id), quantity, quantity - missing]])
    if (command.orderId === undefined) return
    this.world.documents.push({
      id: "a sale",
      order: command.orderId,
      kind: "SALE",
      scope: item.id,
      wants: [{ item: item.id, quantity, stock: null, location: null, lot: null }],
      status: "CONFIRMED",
      expiresAt: this.at,
      lines
    })
  }

  fact(command: AdjustStock, item: Item, moved: Set<number>): void {
    const { changeType, orderId, quantity } = command
    const change = (stock: number, by: Change): void => {
      moved.add(stock)
      this.move(stock, by)
    }
    switch (changeType) {
      case "RECEIPT":
        change(this.stockFor(command, item), { onHand: quantity })
        item.initialized = true
        return
      case "DAMAGE":
      case "QUARANTINE":
        change(this.theStock(command, item), { damaged: quantity })
        return
      case "UNQUARANTINE": {
        const stock = this.theStock(command, item)
        const { damaged } = this.world.stocks[stock]!
        if (damaged < quantity) throw new Refused("UnallocatableExceeded", damaged)
        change(stock, { damaged: -quantity })
        return
      }
      case "WRITE_OFF": {
        const stock = this.theStock(command, item)
        const { damaged } = this.world.stocks[stock]!
        change(stock, { onHand: -quantity, damaged: -(damaged < quantity ? damaged : quantity) })
        return
      }
      case "CORRECTION": {
        const matching = this.matching(command, item)
        const stock =
          matching.length > 0 || command.expectedVersion !== undefined
            ? this.theStock(command, item)
            : this.stockFor({ ...command, lotExpiresAt: undefined }, item)
        moved.add(stock)
        item.initialized = true
        const { damaged, lot, onHand } = this.world.stocks[stock]!
        if (command.lotExpiresAt !== undefined) {
          for (const [index, other] of this.world.stocks.entries()) {
            const isOfLot = other.item === item.id && other.lot === lot && lot !== ""
            if (isOfLot || index === stock) other.expiresAt = command.lotExpiresAt
          }
        }
        // The count has damaged units in it: of fewer units than are damaged, all are.
        const most = Math.max(0, quantity)
        const fewer = damaged > most ? most - damaged : 0
        if (onHand !== quantity || fewer !== 0) change(stock, { onHand: quantity - onHand, damaged: fewer })
        return
      }
      case "RETURN": {
        let left = quantity
        const back = (units: number): Change => ({
          onHand: units,
          damaged: command.condition === "DAMAGED" ? units : 0
        })
        const sold = this.world.documents
          .filter(({ order }) => orderId !== undefined && order === orderId)
          .flatMap(({ lines }) => lines)
        for (const line of sold) {
          const part = line.item === item.id ? Math.min(left, outstanding(line)) : 0
          line.returned += part
          left -= part
          if (part > 0 && line.stock !== null) change(line.stock, back(part))
        }
        if (left > 0 && item.stocked) {
          change(this.stockFor(command, item), back(left))
          item.initialized = true
          if (orderId !== undefined) this.flag("RETURN_EXCEEDS_SALE", `${orderId}\u001f${item.id}`, left)
        }
        if (sold.every((line) => outstanding(line) === 0)) this.unflag("CANCELLED_AFTER_SALE", orderId)
      }
    }
  }

  ensureItem(command: Extract<Command, { _tag: "EnsureItem" }>) {
    const { productVariantId } = command
    const { deletions, items } = this.world
    const wasDeleted = productVariantId !== undefined && deletions.includes(productVariantId)
    const staysDeleted = wasDeleted && command.keepsDeletion === true
    if (wasDeleted && !staysDeleted) deletions.splice(deletions.indexOf(productVariantId), 1)
    const sku = staysDeleted ? undefined : command.sku
    const isCaptured = command.capturedRow !== undefined
    const byVariant = items.find(
      ({ variant }) => productVariantId !== undefined && variant === productVariantId
    )
    const holder = items.find((item) => sku !== undefined && item.sku === sku)
    // Who is deleted needs no sku, and of captured rows the one that was told last has it.
    const isFree =
      holder !== undefined && holder !== byVariant && (holder.deleted || (isCaptured && holder.captured))
    const bySku = isFree ? undefined : holder
    const isAnother = bySku !== undefined && bySku !== byVariant
    // An item known by its sku alone is adopted; any other sku belongs to the item that has it.
    if (
      isAnother &&
      (byVariant !== undefined || (productVariantId !== undefined && bySku.variant !== null))
    ) {
      throw new Refused("ItemConflict")
    }
    const known = byVariant ?? bySku
    const item = known ?? {
      id: this.posting.id,
      variant: null,
      sku: null,
      stocked: true,
      threshold: 0,
      discontinued: false,
      initialized: false,
      deleted: false,
      isLeaving: false,
      captured: false
    }
    if (isFree) holder.sku = null
    if (known === undefined) items.push(item)
    item.variant = productVariantId ?? item.variant
    item.sku = sku ?? item.sku
    item.captured ||= isCaptured
    item.stocked = command.stocked ?? item.stocked
    item.threshold = command.lowStockThreshold ?? item.threshold
    item.discontinued = command.discontinued ?? (wasDeleted && !staysDeleted ? false : item.discontinued)
    const { initialStock } = command
    if (initialStock !== undefined && this.isNews(`first stock ${productVariantId ?? `sku ${sku}`}`)) {
      item.initialized = true
      if (initialStock > 0 && item.stocked) this.move(this.stockAt(item), { onHand: initialStock })
    }
    if (staysDeleted) this.bury(item)
    else item.deleted = item.isLeaving = false
    return {
      created: known === undefined,
      item: this.figures(item),
      stocked: item.stocked,
      threshold: item.threshold
    }
  }

  ensureLocation(command: Extract<Command, { _tag: "EnsureLocation" }>) {
    const known = this.world.locations.find(({ id }) => id === command.locationId)
    if (known === undefined) this.meetLocation(command.locationId, command.name ?? null)
    else known.name = command.name ?? known.name
    return {
      created: known === undefined,
      locationId: command.locationId,
      name: command.name ?? known?.name ?? null
    }
  }

  updateLocation({ locationId, name, order, retired }: Extract<Command, { _tag: "UpdateLocation" }>) {
    const { locations } = this.world
    const place = locations.findIndex(({ id }) => id === locationId)
    const location = locations[place]
    if (location === undefined) throw new Refused("LocationNotFound")
    const isFixed = place === 0 && (retired === true || (order !== undefined && order !== 0))
    if (isFixed) throw new Refused("DefaultLocation")
    location.name = name ?? location.name
    location.retired = retired ?? location.retired
    if (order !== undefined && place !== 0) {
      locations.splice(place, 1)
      locations.splice(Math.max(1, order), 0, location)
    }
    const { name: called, retired: isRetired } = location
    return { locationId, name: called, order: locations.indexOf(location), retired: isRetired }
  }

  meetLocation(id: string, name: string | null): void {
    this.world.locations.push({ id, name, retired: false })
  }

  resolve(command: Extract<Command, { _tag: "ResolveDiscrepancy" }>) {
    const flag = this.world.flags.find(({ id }) => id === command.discrepancyId)
    if (flag === undefined) throw new Refused("DiscrepancyNotFound")
    const wasOpen = flag.open
    flag.open = false
    return { resolved: wasOpen }
  }

  deleteItem({ mustExist, productVariantId }: Extract<Command, { _tag: "DeleteItem" }>) {
    const { deletions, items } = this.world
    const known = items.find(({ variant }) => variant === productVariantId)
    if (known === undefined && mustExist === true) return { outcome: "UNKNOWN", applied: false }
    const applied = !deletions.includes(productVariantId)
    if (applied) deletions.push(productVariantId)
    const item = known ?? this.create(productVariantId, this.posting.id)
    this.bury(item)
    return {
      outcome: known === undefined ? "REMEMBERED" : item.deleted ? "DELETED" : "DISCONTINUED",
      applied
    }
  }

  /** The same over HTTP, where what nobody has created is unknown. */
  reportSale(command: Extract<Command, { _tag: "ReportSale" }>) {
    const lines = command.lines.filter(({ quantity }) => quantity > 0)
    const isKnown = (line: SaleLine) =>
      this.world.items.some(({ variant }) => variant === line.productVariantId)
    if (!lines.every(isKnown)) throw new Refused("ItemNotFound")
    for (const { locationId } of lines) this.checkLocation(locationId)
    return this.recordSale({ ...command, _tag: "RecordSale" })
  }

  recordSale({ lines: told, orderId }: Extract<Command, { _tag: "RecordSale" }>) {
    // A line of nothing is nothing.
    const lines = told.filter(({ quantity }) => quantity > 0)
    this.meet(lines)
    const keyOf = (line: SaleLine) =>
      line.saleOrderItemId === undefined
        ? ["SALE_ORDER", orderId, "item", line.productVariantId, line.locationId ?? ""].join("\u001f")
        : ["SALE_ORDER", orderId, "line", line.saleOrderItemId].join("\u001f")
    const counts = { applied: 0, repeated: 0, changed: 0 }
    const news: Array<SaleLine> = []
    for (const key of new Set(lines.map(keyOf))) {
      const ofKey = lines.filter((line) => keyOf(line) === key)
      const variants = [...new Set(ofKey.map(({ productVariantId }) => productVariantId))].sort()
      const says = variants
        .map((variant) =>
          ofKey.reduce((sum, line) => sum + (line.productVariantId === variant ? line.quantity : 0), 0)
        )
        .map((quantity, index) => `${variants[index]}: ${quantity}`)
        .join()
      const before = this.world.paidLines.find((line) => line.key === key)
      if (before === undefined) {
        this.world.paidLines.push({ key, says })
        news.push(...ofKey)
        counts.applied += 1
      } else if (before.says === says) counts.repeated += 1
      else {
        counts.changed += 1
        this.flag("SALE_LINE_CHANGED", key)
      }
    }
    if (news.length === 0) return counts
    this.sellPaid(orderId, [
      ...news.filter(({ locationId }) => locationId !== undefined),
      ...news.filter(({ locationId }) => locationId === undefined)
    ])
    for (const one of this.world.documents) {
      if (one.order === orderId && one.status === "PENDING") this.giveBack(one, "CANCELLED")
    }
    for (const { productVariantId } of news) {
      const item = this.named(productVariantId)
      if (item.deleted) this.bury(item)
    }
    if (this.world.cancelledOrders.includes(orderId)) this.flagCancelled(orderId)
    return counts
  }

  /**
   * What was sold already counts first, wherever that was. Then what is held is sold: at the place that is named, or
   * anywhere. Then what is held elsewhere than it was sold is given back, and sold there. The rest was never held.
   */
  sellPaid(orderId: string, lines: ReadonlyArray<SaleLine>): void {
    const all = lines.map((line) => ({ line, item: this.named(line.productVariantId), left: line.quantity }))
    const ofItem = (item: Item, locationId: string | undefined) => {
      const mine = this.linesOf(orderId).filter(({ line }) => line.item === item.id)
      const isHere = ({ line }: { line: Line }) =>
        line.stock === null || this.isHere(this.world.stocks[line.stock]!, locationId)
      return { here: mine.filter(isHere), elsewhere: mine.filter((one) => !isHere(one)) }
    }
    for (const one of all) {
      const { elsewhere, here } = ofItem(one.item, one.line.locationId)
      for (const { line } of [...here, ...elsewhere]) {
        const known = Math.min(one.left, line.sold - line.paid)
        line.paid += known
        one.left -= known
      }
    }
    for (const each of all) {
      for (const { line, one } of ofItem(each.item, each.line.locationId).here) {
        const held = Math.min(each.left, line.open)
        this.sell(one, line, held)
        line.paid += held
        each.left -= held
        this.settle(one, "CANCELLED")
      }
    }
    for (const each of all) {
      const { item, line: said } = each
      for (const { line, one } of ofItem(item, said.locationId).elsewhere.toReversed()) {
        const swapped = Math.min(each.left, line.open)
        if (swapped === 0) continue
        this.letGo(line, swapped)
        if (!item.stocked) {
          this.addSold(orderId, one.lines, newLine(item.id, null, swapped, { sold: swapped, paid: swapped }))
        }
        const taken = item.stocked ? this.missing(item, swapped, said.locationId) : []
        for (const [stock, sold] of taken) {
          this.addSold(orderId, one.lines, newLine(item.id, stock, sold, { sold, paid: sold }))
          this.move(stock, { onHand: -sold })
          this.flagExpired(stock)
        }
        this.settle(one, "CANCELLED")
        each.left -= swapped
      }
    }
    this.sellSurplus(
      orderId,
      all.filter(({ left }) => left > 0)
    )
  }

  sellSurplus(orderId: string, all: ReadonlyArray<{ readonly line: SaleLine; readonly left: number }>): void {
    if (all.length === 0) return
    const lines: Array<Line> = []
    const wants = new Map<string, number>()
    // Lines of one item and place are one sale.
    const places = new Map<string, { readonly item: Item; readonly at: string | undefined; left: number }>()
    for (const { left, line } of all) {
      const item = this.named(line.productVariantId)
      const place = JSON.stringify([item.id, line.locationId])
      const same = places.get(place)
      if (same !== undefined) same.left += left
      else places.set(place, { item, left, at: line.locationId })
      wants.set(item.id, (wants.get(item.id) ?? 0) + left)
    }
    for (const { at, item, left } of places.values()) {
      if (!item.stocked) {
        this.addSold(orderId, lines, newLine(item.id, null, left, { sold: left, paid: left }))
      } else
        for (const [stock, sold] of this.missing(item, left, at)) {
          this.addSold(orderId, lines, newLine(item.id, stock, sold, { sold, paid: sold }))
          this.move(stock, { onHand: -sold })
          this.flagExpired(stock)
        }
    }
    this.world.documents.push({
      id: "a sale",
      order: orderId,
      kind: "SALE",
      scope: "",
      wants: [...wants].map(([item, quantity]) => ({
        item,
        quantity,
        stock: null,
        location: null,
        lot: null
      })),
      status: "CONFIRMED",
      expiresAt: this.at,
      lines
    })
  }

  /** What is free to be sold, then what is there at one place, the good before the expired, then nothing but a debt. */
  missing(item: Item, quantity: number, locationId: string | undefined): ReadonlyMap<number, number> {
    const { stocks } = this.world
    const from = new Map<number, number>()
    let left = quantity
    const more = (stock: number, picked: number): void => {
      if (picked > 0) from.set(stock, (from.get(stock) ?? 0) + picked)
      left -= picked
    }
    for (const stock of this.picking(item.id, (one) => this.isHere(one, locationId))) {
      more(stock, Math.min(left, sellableNow(this.world, stocks[stock]!, this.at)))
    }
    const isGone = ({ expiresAt }: Stock) => expiresAt !== null && expiresAt <= this.at
    const there = this.picking(item.id, (stock) => stock.location === (locationId ?? "default"))
    for (const spoilt of [false, true]) {
      for (const stock of there) {
        if (isGone(stocks[stock]!) !== spoilt) continue
        more(stock, Math.min(left, Math.max(0, stocks[stock]!.onHand - (from.get(stock) ?? 0))))
      }
    }
    if (left > 0) more(this.stockAt(item, locationId), left)
    return from
  }

  receiveOrder(command: Extract<Command, { _tag: "ReceiveOrder" }>): Readonly<Record<string, unknown>> {
    const { orderId } = command
    const nothing = { outcome: "IGNORED", reservationId: null, reason: null }
    if (this.world.cancelledOrders.includes(orderId) || !this.isNews(`order ${orderId}`)) return nothing
    this.meet(command.lines)
    const asked = new Map<string, number>()
    for (const { productVariantId, quantity } of command.lines) {
      const { id } = this.named(productVariantId)
      asked.set(id, (asked.get(id) ?? 0) + quantity)
    }
    const mine = this.world.documents.filter(({ order }) => order === orderId)
    if (mine.length === 0) return this.reserveReceived(command, asked)
    const live = this.promisesOf(orderId).filter(
      ({ status }) => status === "PENDING" || status === "CONFIRMED"
    )
    if (live.length === 0) return nothing
    const wanted = sumsOf(live.flatMap(({ wants }) => wants.map(({ item, quantity }) => [item, quantity])))
    const had = sumsOf(mine.flatMap(({ lines }) => lines.map((line) => [line.item, line.open + line.sold])))
    const isRight = [wanted, had].includes(sumsOf([...asked]))
    return {
      outcome: isRight ? "MATCHED" : "FAILED",
      reservationId: live[0]!.id,
      reason: isRight ? null : "ITEMS_MISMATCH"
    }
  }

  reserveReceived(
    { expiresInSeconds, orderId, reservationId }: Extract<Command, { _tag: "ReceiveOrder" }>,
    asked: ReadonlyMap<string, number>
  ): Readonly<Record<string, unknown>> {
    const failed = (reason: string) => ({ outcome: "FAILED", reservationId: reservationId ?? null, reason })
    const items = [...asked].map(([id, quantity]) => ({ item: this.item(id), quantity }))
    if (items.some(({ item }) => item.discontinued || item.deleted)) return failed("DISCONTINUED_ITEM")
    const isShort = items.some(
      ({ item, quantity }) => item.stocked && this.figures(item).available < quantity
    )
    if (isShort) return failed("INSUFFICIENT_INVENTORY")
    const lines = items.map(({ item, quantity }) => ({ item: { itemId: item.id }, quantity }))
    const made = this.reserve({ _tag: "ReserveStock", kind: "ORDER", orderId, lines, expiresInSeconds })
    return { outcome: "RESERVED", reservationId: made.reservationId, reason: null }
  }

  confirmOrder({ orderId, reservationId }: Extract<Command, { _tag: "ConfirmOrder" }>) {
    const confirm = { _tag: "ConfirmReservation" as const, orderId, reservationId }
    const { outcome, world } = judge(this.world, { ...this.posting, command: confirm })
    if ("told" in outcome) {
      Object.assign(this.world, world)
      const { applied, reservationId: confirmed } = outcome.told
      return { confirmed: true, applied, reservationId: confirmed, reason: null }
    }
    const reasons: Readonly<Record<string, string>> = {
      ReservationNotFound: "RESERVATION_NOT_FOUND",
      ReservationExpired: "RESERVATION_EXPIRED",
      ReservationCancelled: "RESERVATION_CANCELLED"
    }
    const isCancelled = this.world.cancelledOrders.includes(orderId)
    return {
      confirmed: false,
      applied: false,
      reservationId: reservationId ?? null,
      reason: isCancelled ? "ORDER_CANCELLED" : reasons[outcome.refused]
    }
  }

  cancelOrder({ messageId, orderId, reason }: Extract<Command, { _tag: "CancelOrder" }>) {
    const isOver = reason !== "PAYMENT_FAILED"
    const { cancelledOrders, documents } = this.world
    const isNews = isOver ? !cancelledOrders.includes(orderId) : this.isNews(`unpaid ${orderId} ${messageId}`)
    if (!isNews) return { applied: false, released: 0 }
    if (isOver) cancelledOrders.push(orderId)
    const released = documents
      .filter(({ order, status }) => order === orderId && status === "PENDING")
      .reduce((sum, one) => sum + this.giveBack(one, "CANCELLED"), 0)
    if (isOver) this.flagCancelled(orderId)
    return { applied: true, released }
  }

  returnGoods({ lines: told, messageId, orderId }: Extract<Command, { _tag: "ReturnGoods" }>) {
    if (!this.isNews(`return ${messageId}`)) return { applied: false }
    const lines = told.filter(({ quantity }) => quantity > 0)
    this.meet(lines)
    for (const { condition, productVariantId, quantity } of lines) {
      const item = this.named(productVariantId)
      const back = { changeType: "RETURN", item: { itemId: item.id }, quantity, orderId, condition } as const
      this.fact({ _tag: "AdjustStock", ...back }, item, new Set())
      if (item.deleted) this.bury(item)
    }
    return { applied: true }
  }

  /* What the rules share. */

  find(ref: ItemRef): Item | undefined {
    return this.world.items.find(
      (item) =>
        !item.deleted &&
        ("variantId" in ref
          ? item.variant === ref.variantId
          : "sku" in ref
            ? item.sku === ref.sku
            : item.id === ref.itemId)
    )
  }

  /** The item that a message names, deleted or not. */
  named(variant: string): Item {
    return this.world.items.find((item) => item.variant === variant)!
  }

  /** Items and places that a message is the first to name; ids are counted on from the posting's. */
  meet(
    lines: ReadonlyArray<{ readonly productVariantId: string; readonly locationId?: string | undefined }>
  ) {
    let count = 0
    for (const { locationId, productVariantId } of lines) {
      const isNew = !this.world.items.some(({ variant }) => variant === productVariantId)
      if (isNew) this.create(productVariantId, countedOn(this.posting.id, (count += 1)))
      const isKnown = locationId === undefined || this.world.locations.some(({ id }) => id === locationId)
      if (!isKnown) this.meetLocation(locationId, null)
    }
  }

  create(variant: string, id: string): Item {
    const item: Item = {
      id,
      variant,
      sku: null,
      stocked: true,
      threshold: 0,
      discontinued: false,
      initialized: false,
      deleted: false,
      isLeaving: false,
      captured: false
    }
    this.world.items.push(item)
    return item
  }

  bury(item: Item): void {
    item.deleted = !hasStock(this.world, item.id)
    item.isLeaving = !item.deleted
    if (item.isLeaving) item.discontinued = true
  }

  isNews(what: string): boolean {
    if (this.world.heard.includes(what)) return false
    this.world.heard.push(what)
    return true
  }

  flagCancelled(orderId: string): void {
    const isSold = this.linesOf(orderId).some(({ line }) => outstanding(line) > 0)
    if (isSold) this.flag("CANCELLED_AFTER_SALE", orderId)
  }

  flagExpired(stock: number): void {
    const { expiresAt } = this.world.stocks[stock]!
    if (expiresAt !== null && expiresAt <= this.at)
      this.flag("EXPIRED_LOT_SOLD", stockName(this.world.stocks[stock]!))
  }

  linesOf(orderId: string): ReadonlyArray<{ readonly line: Line; readonly one: Document }> {
    return this.world.documents
      .filter(({ order }) => order === orderId)
      .flatMap((one) => one.lines.map((line) => ({ line, one })))
  }

  item(id: string): Item {
    return this.world.items.find((item) => item.id === id)!
  }

  nameOf(id: string): string | null {
    const { sku, variant } = this.item(id)
    return variant ?? sku
  }

  promisesOf(orderId: string): ReadonlyArray<Document> {
    return this.world.documents.filter(({ kind, order }) => order === orderId && kind !== "SALE")
  }

  checkLocation(locationId: string | undefined): void {
    const isKnown = locationId === undefined || this.world.locations.some(({ id }) => id === locationId)
    if (!isKnown) throw new Refused("LocationNotFound")
  }

  isHere(stock: Stock, locationId: string | undefined): boolean {
    return locationId === undefined || stock.location === locationId
  }

  /**
   * A promise: takes what can be sold now, by location, then first-expired-first-out, and no more than can be sold of the
   * item and at each location. Answers how much is missing.
   */
  take(
    id: string,
    quantity: number,
    how: {
      readonly from: (stock: Stock) => boolean
      readonly each: (stock: number | null, quantity: number) => void
    }
  ): number {
    const item = this.item(id)
    if (!item.stocked && !item.discontinued) {
      how.each(null, quantity)
      return 0
    }
    const before = { ...this.world, stocks: this.world.stocks.map((stock) => ({ ...stock })) }
    const picked = new Map<number, number>()
    const rest = (location?: string): number => {
      const here = [...picked].filter(([index]) => this.isHere(before.stocks[index]!, location))
      return here.reduce((left, [, units]) => left - units, canSell(before, item, this.at, location))
    }
    let left = quantity
    for (const index of this.picking(id, how.from)) {
      const stock = before.stocks[index]!
      const units = Math.min(left, rest(), rest(stock.location), sellableNow(before, stock, this.at))
      if (units <= 0) continue
      picked.set(index, units)
      how.each(index, units)
      left -= units
    }
    return left
  }

  /** By location, then first-expired-first-out, then the oldest. */
  picking(id: string, from: (stock: Stock) => boolean): ReadonlyArray<number> {
    const { locations, stocks } = this.world
    const place = (stock: Stock) => locations.findIndex((location) => location.id === stock.location)
    const never = Number.MAX_SAFE_INTEGER
    return stocks
      .map((stock, index) => ({ stock, index }))
      .filter(({ stock }) => stock.item === id && from(stock))
      .sort(
        (a, b) =>
          place(a.stock) - place(b.stock) ||
          (a.stock.expiresAt ?? never) - (b.stock.expiresAt ?? never) ||
          a.stock.createdAt - b.stock.createdAt ||
          a.index - b.index
      )
      .map(({ index }) => index)
  }

  /** The unnamed lot of an item at a place. */
  stockAt(item: Item, locationId?: string): number {
    return this.stockFor(
      { _tag: "AdjustStock", changeType: "RECEIPT", item: { itemId: item.id }, quantity: 1, locationId },
      item
    )
  }

  move(index: number, by: Change): void {
    const stock = this.world.stocks[index]!
    stock.onHand += by.onHand ?? 0
    stock.reserved += by.reserved ?? 0
    stock.damaged += by.damaged ?? 0
    stock.version += 1
  }

  letGo(line: Line, quantity: number, why: "RELEASED" | "EXPIRED" = "RELEASED"): void {
    line.open -= quantity
    line.released += quantity
    if (why === "EXPIRED") line.expired += quantity
    if (quantity > 0 && line.stock !== null) this.move(line.stock, { reserved: -quantity })
  }

  giveBack(one: Document, end: "CANCELLED" | "EXPIRED"): number {
    const held = one.lines.reduce((sum, { open }) => sum + open, 0)
    for (const line of one.lines) this.letGo(line, line.open, end === "EXPIRED" ? "EXPIRED" : "RELEASED")
    this.settle(one, end)
    return held
  }

  settle(one: Document, otherwise: "CANCELLED" | "EXPIRED"): void {
    if (one.status !== "PENDING" || one.lines.some(({ open }) => open > 0)) return
    one.status = one.lines.some(({ sold }) => sold > 0) ? "CONFIRMED" : otherwise
  }

  sell(one: Document, line: Line, quantity: number): void {
    line.open -= quantity
    line.sold += quantity
    this.cover(one.order, line)
    if (quantity === 0 || line.stock === null) return
    this.move(line.stock, { onHand: -quantity, reserved: -quantity })
    this.flagExpired(line.stock)
  }

  addSold(order: string, lines: Array<Line>, line: Line): void {
    lines.push(line)
    this.cover(order, line)
  }

  /** A sale is told after goods of it came back: the return exceeds what the order was sold by so much less. */
  cover(order: string, line: Line): void {
    const flag = this.flagged("RETURN_EXCEEDS_SALE", `${order}\u001f${line.item}`)
    if (flag === undefined) return
    const covered = Math.min(flag.quantity, outstanding(line))
    line.early += covered
    flag.quantity -= covered
    flag.open = flag.quantity > 0
  }

  flagged(kind: string, subject: string | undefined) {
    return this.world.flags.find((flag) => flag.open && flag.kind === kind && flag.subject === subject)
  }

  flag(kind: string, subject: string, quantity = 0): void {
    const open = this.flagged(kind, subject)
    if (open === undefined) this.world.flags.push({ kind, subject, open: true, quantity, id: null })
    else open.quantity += quantity
  }

  unflag(kind: string, subject: string | undefined): void {
    const open = this.flagged(kind, subject)
    if (open !== undefined) open.open = false
  }

  matching(command: AdjustStock, item: Item): ReadonlyArray<number> {
    return this.world.stocks.flatMap((stock, index) =>
      stock.item === item.id &&
      this.isHere(stock, command.locationId) &&
      (command.lotNumber === undefined || stock.lot === command.lotNumber)
        ? [index]
        : []
    )
  }

  theStock(command: AdjustStock, item: Item): number {
    const [stock, ...others] = this.matching(command, item)
    if (others.length > 0) throw new Refused("AmbiguousStock")
    if (stock === undefined) throw new Refused("StockNotFound")
    return stock
  }

  /** Where goods come in: the given place and lot, or the default place and the unnamed lot. */
  stockFor(command: AdjustStock, item: Item): number {
    const { stocks } = this.world
    const location = command.locationId ?? "default"
    const lot = command.lotNumber ?? ""
    const index = stocks.findIndex(
      (stock) => stock.item === item.id && stock.location === location && stock.lot === lot
    )
    const given = command.lotExpiresAt ?? null
    // A lot has one expiry, at whatever location.
    const ofLot =
      index >= 0
        ? [stocks[index]!]
        : stocks.filter((one) => one.item === item.id && one.lot === lot && lot !== "")
    const isAnother = given !== null && ofLot.length > 0 && ofLot.every((one) => one.expiresAt !== given)
    if (isAnother) throw new Refused("LotMismatch")
    if (index >= 0) return index
    const expiresAt = given ?? ofLot[0]?.expiresAt ?? null
    stocks.push({
      item: item.id,
      location,
      lot,
      expiresAt,
      createdAt: this.at,
      id: null,
      onHand: 0,
      reserved: 0,
      damaged: 0,
      version: 0
    })
    return stocks.length - 1
  }

  checkVersion(command: AdjustStock, item: Item): void {
    if (command.expectedVersion === undefined) return
    const comesIn = command.changeType === "RECEIPT" || command.changeType === "RETURN"
    const index = comesIn
      ? this.world.stocks.findIndex(
          (stock) =>
            stock.item === item.id &&
            stock.location === (command.locationId ?? "default") &&
            stock.lot === (command.lotNumber ?? "")
        )
      : this.theStock(command, item)
    const stock = this.world.stocks[index]
    if (stock === undefined) throw new Refused("StockNotFound")
    if (stock.version !== command.expectedVersion) throw new Refused("VersionMismatch", stock.version)
  }

  figures(item: Item) {
    const stocks = this.world.stocks.filter((stock) => stock.item === item.id)
    const sum = (of: (stock: Stock) => number) => stocks.reduce((total, stock) => total + of(stock), 0)
    const available = canSell(this.world, item, this.at)
    const isGone = ({ expiresAt }: Stock) => expiresAt !== null && this.at >= expiresAt
    return {
      itemId: item.id,
      quantity: sum(({ onHand }) => onHand),
      reserved: sum(({ reserved }) => reserved),
      // What expired lots have free cannot be sold either, and is shown so.
      damaged: sum((stock) => stock.damaged + (isGone(stock) ? freeIn(stock) : 0)),
      available,
      status: statusNow(item, available)
    }
  }

  stockFigures(index: number): string {
    return stockText(this.world.stocks[index]!)
  }

  reservation(one: Document) {
    return {
      reservationId: one.id,
      status: one.status,
      expiresAt: one.expiresAt,
      lines: one.lines
        .map(({ item, open, quantity, sold, stock }) => {
          const { location, lot } = stock === null ? { location: null, lot: null } : this.world.stocks[stock]!
          return `${item} at ${location} lot ${lot || null}: ${quantity}, ${open} open, ${sold} sold`
        })
        .sort()
    }
  }
}

interface Change {
  readonly onHand?: number
  readonly reserved?: number
  readonly damaged?: number
}

const outstanding = ({ early, returned, sold }: Line): number => sold - returned - early

const sum = (all: ReadonlyArray<{ readonly quantity: number }>): number =>
  all.reduce((total, { quantity }) => total + quantity, 0)

const subsetsOf = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  all.reduce<ReadonlyArray<ReadonlyArray<A>>>(
    (sets, one) => [...sets, ...sets.map((set) => [...set, one])],
    [[]]
  )

const mostNamedFirst = <W extends Want>(wants: ReadonlyArray<W>): ReadonlyArray<W> => {
  const names = ({ location, lot, stock }: Want) =>
    [location, lot, lot, stock, stock, stock, stock].filter((name) => name !== null).length
  return wants.toSorted((a, b) => names(b) - names(a))
}

const textOf = ({ location, lot, stock }: Want): string =>
  JSON.stringify([stock ?? "", location ?? "", lot ?? ""])

const newLine = (item: string, stock: number | null, quantity: number, state: Partial<Line>): Line => ({
  item,
  stock,
  quantity,
  open: 0,
  sold: 0,
  released: 0,
  expired: 0,
  returned: 0,
  early: 0,
  paid: 0,
  ...state
})

const balanceOf = (stock: Stock): number => stock.onHand - stock.reserved - stock.damaged
const freeIn = (stock: Stock): number => Math.max(0, balanceOf(stock))

/** What a stock has that is good, at a location that is open. */
export const sellableNow = ({ locations }: World, stock: Stock, at: number): number => {
  const isClosed = locations.some(({ id, retired }) => id === stock.location && retired)
  return isClosed || (stock.expiresAt !== null && at >= stock.expiresAt) ? 0 : freeIn(stock)
}

/** What can be sold of an item, or of what it has at one location. */
export const canSell = (world: World, item: Item, at: number, location?: string): number => {
  if (item.discontinued || item.deleted) return 0
  const stocks = world.stocks.filter(
    (stock) => stock.item === item.id && (location === undefined || stock.location === location)
  )
  const good = stocks.reduce((sum, stock) => sum + sellableNow(world, stock, at), 0)
  const missing = stocks.reduce((sum, stock) => sum + Math.min(0, balanceOf(stock)), 0)
  return Math.max(0, good + missing)
}

/** Nobody can buy what is there. */
export const isStranded = (world: World, { discontinued, id }: Item): boolean =>
  discontinued && hasStock(world, id)

const hasStock = ({ stocks }: World, id: string): boolean =>
  stocks.some(({ damaged, item, onHand, reserved }) => item === id && (onHand || reserved || damaged) !== 0)

const sumsOf = (all: ReadonlyArray<readonly [string, number, ...ReadonlyArray<unknown>]>): string => {
  const sums = new Map<string, number>()
  for (const [item, quantity] of all) sums.set(item, (sums.get(item) ?? 0) + quantity)
  return JSON.stringify([...sums].filter(([, quantity]) => quantity > 0).sort())
}

const countedOn = (id: string, count: number): string =>
  id.slice(0, 24) + (Number.parseInt(id.slice(24), 16) + count).toString(16).padStart(12, "0")

export const statusNow = (item: Item, available: number): string => {
  if (item.discontinued) return "DISCONTINUED"
  if (!item.initialized) return "AWAITING_INITIAL_STOCK"
  if (available === 0) return "OUT_OF_STOCK"
  return available <= item.threshold ? "LOW_STOCK" : "IN_STOCK"
}

export const stockName = ({ item, location, lot }: Pick<Stock, "item" | "location" | "lot">): string =>
  `${item} at ${location} lot ${lot || null}`

export const stockText = (stock: Stock): string =>
  `${stockName(stock)}: ${stock.onHand} ${stock.reserved} ${stock.damaged}, version ${stock.version}`
