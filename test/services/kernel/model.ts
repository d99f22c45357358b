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
  paid: number
}
export interface Document {
  readonly id: string
  readonly order: string
  readonly kind: "ORDER" | "VARIANT" | "SALE"
  readonly scope: string
  readonly wants: ReadonlyArray<readonly [string, number, string | null]>
  readonly location: string | null
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
  /** Discrepancies that a person closes: `kind subject`, open or resolved. */
  readonly flags: Array<{ readonly kind: string; readonly subject: string; open: boolean; id: string | null }>
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
        return this.confirm(command)
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
    const unknown = command.lines.filter(({ item }) => this.find(item) === undefined)
    const wants = new Map<string, [string, number, string | null]>()
    for (const { item: ref, quantity, stockId } of command.lines) {
      const item = this.find(ref)
      if (item === undefined) continue
      const want = wants.get(`${item.id} ${stockId}`) ?? [item.id, 0, stockId ?? null]
      want[1] += quantity
      wants.set(`${item.id} ${stockId}`, want)
    }
    const wanted = [...wants.values()]
    const scope = command.kind === "VARIANT" ? (wanted[0]?.[0] ?? "") : ""

    const mine = this.world.documents.filter(({ order }) => order === command.orderId)
    const promises = mine.filter(({ kind }) => kind === command.kind).filter((one) => one.scope === scope)
    for (const one of promises) {
      if (one.status === "PENDING" && one.expiresAt <= this.at) this.giveBack(one, "EXPIRED")
    }
    const live =
      promises.find(({ status }) => status === "PENDING" || status === "CONFIRMED") ??
      mine.findLast(
        ({ kind, lines }) => kind === "SALE" && lines.some(({ item }) => wanted.some(([id]) => id === item))
      )
    if (live !== undefined) {
      if (unknown.length > 0 || sorted(live.wants) !== sorted(wanted)) {
        throw new Refused("ReservationFailed", "OTHER_ITEMS")
      }
      return this.reservation(live, false)
    }
    if (this.world.cancelledOrders.includes(command.orderId)) {
      throw new Refused("ReservationFailed", "ORDER_CANCELLED")
    }
    if (unknown.length > 0) throw new Refused("ItemNotFound")
    if (wanted.some(([id]) => this.item(id).discontinued)) {
      throw new Refused("ReservationFailed", "DISCONTINUED_ITEM")
    }
    this.checkLocation(command.locationId)

    const one: Document = {
      id: this.posting.id,
      order: command.orderId,
      kind: command.kind,
      scope,
      wants: wanted,
      location: command.locationId ?? null,
      status: "PENDING",
      expiresAt: this.at + command.expiresInSeconds * 1_000,
      lines: []
    }
    const short: Array<readonly [string | null, number, number]> = []
    // What is wanted of one stock can come from nowhere else, so it is taken first.
    const byName = wanted.sort((a, b) => ((a[2] ?? "~") < (b[2] ?? "~") ? -1 : 1))
    for (const [id, , stockId] of byName) {
      const known = this.world.stocks.some(
        (stock) => stock.id === stockId && stock.item === id && this.isHere(stock, command.locationId)
      )
      if (stockId !== null && this.item(id).stocked && !known) throw new Refused("StockNotFound")
    }
    for (const [id, quantity, stockId] of byName) {
      const missing = this.take(id, quantity, {
        from: (stock) => this.isHere(stock, command.locationId) && (stockId === null || stock.id === stockId),
        each: (stock, picked) => {
          if (stock !== null) this.move(stock, { reserved: picked })
          one.lines.push(newLine(id, stock, picked, { open: picked }))
        }
      })
      if (missing > 0) short.push([this.nameOf(id), quantity, quantity - missing])
    }
    if (short.length > 0) throw new Refused("InsufficientStock", short.sort())
    this.world.documents.push(one)
    return this.reservation(one, true)
  }

  release(command: Extract<Command, { _tag: "ReleaseReservation" }>) {
    const mine = this.promisesOf(command.orderId)
    if (command.line === undefined) {
      const pending = mine.filter(({ status }) => status === "PENDING")
      if (pending.length > 0) {
        const quantity = pending.reduce((sum, one) => sum + this.giveBack(one, "CANCELLED"), 0)
        return { released: true, quantity }
      }
      const known =
        mine.length > 0 ? mine : this.world.documents.filter(({ order }) => order === command.orderId)
      if (known.length === 0) throw new Refused("ReservationNotFound")
      if (known.some(({ status }) => status === "CONFIRMED")) throw new Refused("ReservationAlreadyConfirmed")
      return { released: false, quantity: 0 }
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
      return { released: false, quantity: 0, item: this.figures(item) }
    }
    let left = wanted
    for (const { line, one } of lines.toReversed()) {
      const quantity = Math.min(left, line.open)
      left -= quantity
      this.letGo(line, quantity)
      this.settle(one, "CANCELLED")
    }
    return { released: true, quantity: wanted, item: this.figures(item) }
  }

  confirm(command: Extract<Command, { _tag: "ConfirmReservation" }>) {
    const { orderId, reservationId } = command
    const isMeant = ({ id }: Document) => reservationId === undefined || id === reservationId
    const mine = this.promisesOf(orderId).filter(isMeant)
    if (mine.length === 0) {
      const sold = this.world.documents.filter(({ order }) => order === orderId).find(isMeant)
      if (sold === undefined) throw new Refused("ReservationNotFound")
      return { confirmed: false, reservationId: sold.id }
    }
    const pending = mine.filter(({ status }) => status === "PENDING")
    for (const one of pending) {
      for (const line of one.lines) this.sell(one, line, line.open)
      this.settle(one, "CANCELLED")
    }
    if (pending[0] !== undefined) return { confirmed: true, reservationId: pending[0].id }
    const confirmed = mine.find(({ status }) => status === "CONFIRMED")
    if (confirmed !== undefined) return { confirmed: false, reservationId: confirmed.id }
    // What was paid is all that is sold.
    const isPaid = this.linesOf(orderId).some(({ line }) => line.paid > 0)
    if (isPaid) return { confirmed: false, reservationId: mine.at(-1)!.id }
    // A newer reservation of the same kind and scope has taken its place.
    const isLast = (one: Document) =>
      this.promisesOf(orderId).findLast(({ kind, scope }) => kind === one.kind && scope === one.scope) === one
    const expired = mine.findLast((one) => one.status === "EXPIRED" && isLast(one))
    if (expired !== undefined) return this.takeAgain(expired)
    const isOver = mine.at(-1)!.status === "EXPIRED"
    throw isOver ? new Refused("ReservationExpired", []) : new Refused("ReservationCancelled")
  }

  takeAgain(one: Document) {
    if (this.world.cancelledOrders.includes(one.order)) throw expiredFor([])
    const ofOrder = (item: string, of: (line: Line) => number) =>
      this.world.documents
        .filter(({ order }) => order === one.order)
        .flatMap(({ lines }) => lines)
        .reduce((sum, line) => sum + (line.item === item ? of(line) : 0), 0)
    const items = new Set(one.wants.map(([item]) => item))
    if ([...items].some((item) => ofOrder(item, ({ open }) => open) > 0)) throw expiredFor([])
    const short: Array<readonly [string | null, number, number]> = []
    let tookAny = false
    const givenBack = (item: string) =>
      one.lines.reduce((sum, line) => sum + (line.item === item ? line.released - line.expired : 0), 0)
    for (const [item, quantity, stockId] of this.withoutSold(
      one.wants,
      (id) => ofOrder(id, ({ sold }) => sold) + givenBack(id)
    )) {
      const missing = this.take(item, quantity, {
        from: (stock) =>
          this.isHere(stock, one.location ?? undefined) && (stockId === null || stock.id === stockId),
        each: (stock, picked) => {
          tookAny = true
          if (stock !== null) this.move(stock, { onHand: -picked })
          one.lines.push(newLine(item, stock, picked, { sold: picked }))
        }
      })
      if (missing > 0) short.push([this.nameOf(item), quantity, quantity - missing])
    }
    if (short.length > 0) throw expiredFor(short.sort())
    if (tookAny) one.status = "CONFIRMED"
    return { confirmed: tookAny, reservationId: one.id }
  }

  /** What was sold already is taken off what may come from any stock first; what names its stock is taken first. */
  withoutSold(wants: Document["wants"], soldOf: (item: string) => number): Document["wants"] {
    const sold = new Map(wants.map(([item]) => [item, soldOf(item)]))
    const anyFirst = [...wants].sort((a, b) => ((a[2] ?? "") < (b[2] ?? "") ? -1 : 1))
    return anyFirst
      .map(([item, quantity, stockId]) => {
        const off = Math.min(quantity, sold.get(item)!)
        sold.set(item, sold.get(item)! - off)
        return [item, quantity - off, stockId] as const
      })
      .filter(([, quantity]) => quantity > 0)
      .toReversed()
  }

  extend(command: Extract<Command, { _tag: "ExtendReservation" }>) {
    const mine = this.promisesOf(command.orderId)
    const known =
      mine.length > 0 ? mine : this.world.documents.filter(({ order }) => order === command.orderId)
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
    const expiresAt = this.at + command.expiresInSeconds * 1_000
    for (const one of pending) one.expiresAt = expiresAt
    return { reservationId: pending[0]!.id, expiresAt }
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
    let left = quantity
    for (const { line, one } of lines) {
      const picked = Math.min(left, line.open)
      if (picked === 0) continue
      left -= picked
      this.sell(one, line, picked)
      this.settle(one, "CANCELLED")
      if (line.stock !== null) moved.add(line.stock)
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
        lines.push(newLine(item.id, stock, picked, { sold: picked }))
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
      wants: [[item.id, quantity, null]],
      location: null,
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
          const part = line.item === item.id ? Math.min(left, line.sold - line.returned) : 0
          line.returned += part
          left -= part
          if (part > 0 && line.stock !== null) change(line.stock, back(part))
        }
        if (left === 0 || !item.stocked) return
        change(this.stockFor(command, item), back(left))
        item.initialized = true
        if (orderId !== undefined) this.flag("RETURN_EXCEEDS_SALE", orderId)
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

  recordSale({ lines, orderId }: Extract<Command, { _tag: "RecordSale" }>) {
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
    const placed = [
      ...news.filter(({ locationId }) => locationId !== undefined),
      ...news.filter(({ locationId }) => locationId === undefined)
    ]
    const surplus = placed.map((line) => ({ line, left: this.sellPaid(orderId, line) }))
    this.sellSurplus(
      orderId,
      surplus.filter(({ left }) => left > 0)
    )
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

  /** First what was sold already, then what is held; of each what is at the line's place before the rest. */
  sellPaid(orderId: string, { locationId, productVariantId, quantity }: SaleLine): number {
    const item = this.named(productVariantId)
    const ofItem = this.linesOf(orderId).filter(({ line }) => line.item === item.id)
    const isHere = ({ line }: { line: Line }) =>
      line.stock === null || this.isHere(this.world.stocks[line.stock]!, locationId)
    const inOrder = [...ofItem.filter(isHere), ...ofItem.filter((one) => !isHere(one))]
    let left = quantity
    for (const { line } of inOrder) {
      const known = Math.min(left, line.sold - line.paid)
      line.paid += known
      left -= known
    }
    for (const { line, one } of inOrder) {
      const held = Math.min(left, line.open)
      this.sell(one, line, held)
      line.paid += held
      left -= held
      this.settle(one, "CANCELLED")
    }
    return left
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
      if (!item.stocked) lines.push(newLine(item.id, null, left, { sold: left, paid: left }))
      else
        for (const [stock, sold] of this.missing(item, left, at)) {
          lines.push(newLine(item.id, stock, sold, { sold, paid: sold }))
          this.move(stock, { onHand: -sold })
          this.flagExpired(stock)
        }
    }
    this.world.documents.push({
      id: "a sale",
      order: orderId,
      kind: "SALE",
      scope: "",
      wants: [...wants].map(([item, quantity]) => [item, quantity, null]),
      location: null,
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
    const wanted = sumsOf(live.flatMap(({ wants }) => wants))
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
      return { confirmed: true, reservationId: outcome.told["reservationId"], reason: null }
    }
    const reasons: Readonly<Record<string, string>> = {
      ReservationNotFound: "RESERVATION_NOT_FOUND",
      ReservationExpired: "RESERVATION_EXPIRED",
      ReservationCancelled: "RESERVATION_CANCELLED"
    }
    const isCancelled = this.world.cancelledOrders.includes(orderId)
    return {
      confirmed: false,
      reservationId: reservationId ?? null,
      reason: isCancelled ? "ORDER_CANCELLED" : reasons[outcome.refused]
    }
  }

  cancelOrder({ orderId, reason }: Extract<Command, { _tag: "CancelOrder" }>) {
    const isOver = reason !== "PAYMENT_FAILED"
    const { cancelledOrders, documents } = this.world
    const isNews = isOver ? !cancelledOrders.includes(orderId) : this.isNews(`unpaid ${orderId}`)
    if (!isNews) return { applied: false, released: 0 }
    if (isOver) cancelledOrders.push(orderId)
    const released = documents
      .filter(({ order, status }) => order === orderId && status === "PENDING")
      .reduce((sum, one) => sum + this.giveBack(one, "CANCELLED"), 0)
    if (isOver) this.flagCancelled(orderId)
    return { applied: true, released }
  }

  returnGoods({ lines, messageId, orderId }: Extract<Command, { _tag: "ReturnGoods" }>) {
    if (!this.isNews(`return ${messageId}`)) return { applied: false }
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
    const isSold = this.linesOf(orderId).some(({ line }) => line.sold > line.returned)
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
    if (quantity === 0 || line.stock === null) return
    this.move(line.stock, { onHand: -quantity, reserved: -quantity })
    this.flagExpired(line.stock)
  }

  flag(kind: string, subject: string): void {
    const isOpen = this.world.flags.some(
      (flag) => flag.open && flag.kind === kind && flag.subject === subject
    )
    if (!isOpen) this.world.flags.push({ kind, subject, open: true, id: null })
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

  reservation(one: Document, created: boolean) {
    return {
      created,
      reservationId: one.id,
      status: one.status,
      expiresAt: one.expiresAt,
      lines: one.lines
        .map(({ item, open, quantity, stock }) => {
          const { location, lot } = stock === null ? { location: null, lot: null } : this.world.stocks[stock]!
          return `${item} at ${location} lot ${lot || null}: ${quantity}, ${open} open`
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

const sorted = (wants: Document["wants"]): string =>
  JSON.stringify([...wants].map((want) => JSON.stringify(want)).sort())

const newLine = (item: string, stock: number | null, quantity: number, state: Partial<Line>): Line => ({
  item,
  stock,
  quantity,
  open: 0,
  sold: 0,
  released: 0,
  expired: 0,
  returned: 0,
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
