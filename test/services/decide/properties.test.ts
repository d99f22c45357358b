import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type {
  AdjustStock,
  Answers,
  ChangeType,
  Command,
  ItemRef,
  Posting
} from "../../../src/schema/Posting.ts"
import type { Books, EventRow, LedgerRow } from "../../../src/services/decide/Books.ts"
import { type Verdict, decide } from "../../../src/services/decide/decide.ts"
import { cancelledOrderKey } from "../../../src/services/decide/reservations.ts"
import { MemoryStore, callerOf, epoch, merchantId, postingId, snapshotOf } from "../../support/books.ts"

// Goal: whatever is asked in whatever order, the kernel does what CONTRACTS sections 1, 2 and 4 say. Method: random
// histories of batches over tables in memory, which each batch reads back as the database would hand them over; beside
// them a model that is written from CONTRACTS alone (it shares no code with src), and rules about ledger, documents
// and events that hold for every history. fast-check prints the seed and the smallest history that breaks a rule.

describe("the kernel, over random histories", { timeout: 120_000 }, () => {
  it("decides what the model decides, and leaves the books as the model has them", () => {
    check(4_000, (script) => {
      play(script, {
        onDecided: ({ expected, posting, verdict }) =>
          assert.deepStrictEqual(outcomeOf(verdict, posting), expected, describePosting(posting)),
        onCommitted: ({ store, world }) => assert.deepStrictEqual(booksOf(store), expectedBooks(world))
      })
    })
  })

  it("changes nothing at all when it refuses", () => {
    check(2_000, (script) => {
      let before = ""
      play(script, {
        onDeciding: ({ books }) => {
          before = snapshotOf(books)
        },
        onDecided: ({ books, posting, verdict }) => {
          if ("refusal" in verdict) assert.strictEqual(snapshotOf(books), before, describePosting(posting))
        }
      })
    })
  })

  it("never promises what cannot be sold", () => {
    check(1_500, (script) => {
      play(script, {
        onDecided: ({ books, ledgerRows, posting }) => {
          for (const row of ledgerRows) {
            const promised =
              row.type === "ORDER_ALLOCATE"
                ? row.reservedDelta
                : row.type === "SALE"
                  ? row.reservedDelta - row.onHandDelta
                  : 0
            if (promised === 0) continue
            const free = row.onHand - row.onHandDelta - (row.reserved - row.reservedDelta) - row.unallocatable
            const { lotExpiresAt } = books.stocks.get(`${merchantId}\u001f${row.stockId}`)!
            assert.isAtMost(promised, free, describePosting(posting))
            assert.isTrue(lotExpiresAt === null || lotExpiresAt > posting.at, describePosting(posting))
          }
        }
      })
    })
  })

  it("keeps ledger, balances, totals and lines equal, and a discrepancy open exactly where the balance is impossible", () => {
    check(2_000, (script) => {
      play(script, { onCommitted: ({ store }) => checkBooks(store) })
    })
  })

  it("tells every change in gapless order, once, and each crossing once", () => {
    check(1_500, (script) => {
      const teller = new Teller()
      play(script, { onDecided: (decided) => teller.listen(decided) })
    })
  })

  it("moves a reservation only from PENDING to one end, or from EXPIRED to CONFIRMED", () => {
    const moves = new Set(["PENDING CONFIRMED", "PENDING CANCELLED", "PENDING EXPIRED", "EXPIRED CONFIRMED"])
    check(1_000, (script) => {
      const statuses = new Map<string, string>()
      play(script, {
        onDecided: ({ books }) => {
          for (const { reservationId, status } of [...books.reservationsOfOrder.values()].flat()) {
            const before = statuses.get(reservationId) ?? status
            if (before !== status) assert.include([...moves], `${before} ${status}`)
            statuses.set(reservationId, status)
          }
        }
      })
    })
  })

  it("answers a posting that runs a second time as the first time, and changes nothing", () => {
    check(1_000, (script) => {
      play(
        script.map((batch) => ({ ...batch, asks: batch.asks.slice(0, 1) })),
        {
          onCommitted: ({ postings, store, verdicts }) => {
            const [posting] = postings
            const [first] = verdicts
            if (first === undefined || posting === undefined || "refusal" in first) return
            const books = store.open([posting], posting.at)
            const before = snapshotOf(books)
            const second = decide(books, posting)
            // A sweep that runs again says that there is nothing left to expire.
            const expected =
              posting.command._tag === "ExpireReservation"
                ? { ...first.answer, expired: false }
                : first.answer
            assert.deepStrictEqual("answer" in second && second.answer, JSON.parse(JSON.stringify(expected)))
            assert.strictEqual(snapshotOf(books), before)
          }
        }
      )
    })
  })

  it("replays the stored answer of an Idempotency-Key, and refuses the key for another request", () => {
    check(1_000, (script) => {
      const kept = new Map<string, string>()
      play(
        script,
        {
          onDecided: ({ changedSomething, posting, verdict }) => {
            const { fingerprint, key } = posting.caller.idempotency!
            const stored = kept.get(key)
            if (stored === undefined) {
              if ("answer" in verdict) kept.set(key, `${fingerprint} ${JSON.stringify(verdict.answer)}`)
              return
            }
            assert.isFalse(changedSomething)
            if (!stored.startsWith(`${fingerprint} `)) {
              assert.strictEqual("refusal" in verdict && verdict.refusal._tag, "IdempotencyKeyReused")
              return
            }
            assert.deepStrictEqual(verdict, {
              answer: JSON.parse(stored.slice(fingerprint.length + 1)),
              replayed: true
            } as never)
          }
        },
        // Few keys and two requests a key, so that most postings meet a key that is taken.
        (n) => ({ key: `key ${(n * 7) % 5}`, fingerprint: `request ${(n * 11) % 2}` })
      )
    })
  })

  it("sells an order line at most once, whichever of the ways sells it", () => {
    const quantity = 3
    const ask = fc.oneof(
      fc.constant<Ask>({
        do: "reserve",
        kind: "ORDER",
        order: 0,
        lines: [[0, quantity, null]],
        seconds: 5,
        location: null
      }),
      fc.constant<Ask>({ do: "confirm", order: 0, which: null }),
      fc.nat(3).map((which): Ask => ({ do: "confirm", order: 0, which })),
      fc.constant<Ask>({ do: "release", order: 0, line: null }),
      fc.nat(3).map((which): Ask => ({ do: "expire", order: 0, which })),
      fc.constant<Ask>({ do: "extend", order: 0, seconds: 5 }),
      fc.constant<Ask>(sale(quantity))
    )
    const script = fc.array(
      fc.record({
        advance: fc.constantFrom(0, 1_000, 4_000, 6_000),
        asks: fc.array(ask, { minLength: 1, maxLength: 4 })
      }),
      { minLength: 2, maxLength: 8 }
    )
    fc.assert(
      fc.property(script, (batches) => {
        const stocked: Batch = { advance: 0, asks: [{ ...sale(100), changeType: "RECEIPT", order: null }] }
        play([opening, stocked, ...batches], {
          onCommitted: ({ store }) => {
            const sold = [...store.lines.values()].reduce((sum, line) => sum + line.sold, 0)
            assert.include([0, quantity], sold)
            assert.strictEqual([...store.stocks.values()][0]!.onHand, 100 - sold)
          }
        })
      }),
      { numRuns: 2_000 }
    )
  })
})

/* ------------------------------------------------------------------------------------------------ the model */

interface Item {
  readonly id: string
  variant: string | null
  sku: string | null
  stocked: boolean
  threshold: number
  discontinued: boolean
  initialized: boolean
}
interface Stock {
  readonly item: string
  readonly location: string
  readonly lot: string
  readonly expiresAt: number | null
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
}
interface Document {
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
interface World {
  readonly locations: Array<{ readonly id: string; name: string | null }>
  readonly items: Array<Item>
  readonly stocks: Array<Stock>
  readonly documents: Array<Document>
  /** Adjustments that name a reference, and direct sales of orders: each is applied once. */
  readonly applied: Array<string>
  readonly cancelledOrders: Array<string>
  /** Discrepancies that a person closes: `kind subject`, open or resolved. */
  readonly flags: Array<{ readonly kind: string; readonly subject: string; open: boolean; id: string | null }>
}

type Outcome =
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

/** Where CONTRACTS asks for more than the kernel's rows can say today: the history is judged no further. */
class Unjudged {}

const emptyWorld = (): World => ({
  locations: [{ id: "default", name: null }],
  items: [],
  stocks: [],
  documents: [],
  applied: [],
  cancelledOrders: [],
  flags: []
})

/** What CONTRACTS says about one posting. All or none, by construction: it is played on a copy. */
const judge = (world: World, posting: Posting): { readonly outcome: Outcome; readonly world: World } => {
  const next = structuredClone(world)
  try {
    return { outcome: { told: new Rules(next, posting).told() }, world: next }
  } catch (reason) {
    if (!(reason instanceof Refused)) throw reason
    return { outcome: { refused: reason.tag, detail: reason.detail }, world }
  }
}

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
      case "ResolveDiscrepancy":
        return this.resolve(command)
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
    const short: Array<readonly [string, number, number]> = []
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
      if (missing > 0) short.push([id, quantity, quantity - missing])
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
    // A newer reservation of the same kind and scope has taken its place.
    const isLast = (one: Document) =>
      this.promisesOf(orderId).findLast(({ kind, scope }) => kind === one.kind && scope === one.scope) === one
    const expired = mine.findLast((one) => one.status === "EXPIRED" && isLast(one))
    if (expired !== undefined) return this.takeAgain(expired)
    throw new Refused(mine.at(-1)!.status === "EXPIRED" ? "ReservationExpired" : "ReservationCancelled", [])
  }

  takeAgain(one: Document) {
    const gone = (short: unknown) => new Refused("ReservationExpired", short)
    if (this.world.cancelledOrders.includes(one.order)) throw gone([])
    const ofOrder = (item: string, of: (line: Line) => number) =>
      this.world.documents
        .filter(({ order }) => order === one.order)
        .flatMap(({ lines }) => lines)
        .reduce((sum, line) => sum + (line.item === item ? of(line) : 0), 0)
    const lost = new Map<string, number>()
    for (const line of one.lines) lost.set(line.item, (lost.get(line.item) ?? 0) + line.expired)
    if ([...lost.keys()].some((item) => ofOrder(item, ({ open }) => open) > 0)) throw gone([])
    if (isBeyondTheRows(one)) throw new Unjudged()
    const short: Array<readonly [string, number, number]> = []
    let tookAny = false
    for (const [item, quantity] of lost) {
      const need = quantity - ofOrder(item, ({ sold }) => sold)
      if (need <= 0) continue
      const missing = this.take(item, need, {
        from: () => true,
        each: (stock, picked) => {
          tookAny = true
          if (stock !== null) this.move(stock, { onHand: -picked })
          one.lines.push(newLine(item, stock, picked, { sold: picked }))
        }
      })
      if (missing > 0) short.push([item, need, need - missing])
    }
    if (short.length > 0) throw gone(short.sort())
    if (tookAny) one.status = "CONFIRMED"
    return { confirmed: tookAny, reservationId: one.id }
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
      if (lines.some(({ line }) => line.sold > 0)) return false
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
    if (missing > 0) throw new Refused("InsufficientStock", [[item.id, quantity, quantity - missing]])
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
        change(this.theStock(command, item), { damaged: quantity })
        return
      case "CORRECTION": {
        const matching = this.matching(command, item)
        const stock =
          matching.length > 0 || command.expectedVersion !== undefined
            ? this.theStock(command, item)
            : this.stockFor(command, item)
        moved.add(stock)
        const onHand = quantity - this.world.stocks[stock]!.onHand
        if (onHand !== 0) change(stock, { onHand })
        item.initialized = true
        return
      }
      case "RETURN": {
        let left = quantity
        const sold = this.world.documents
          .filter(({ order }) => orderId !== undefined && order === orderId)
          .flatMap(({ lines }) => lines)
        for (const line of sold) {
          const back = line.item === item.id ? Math.min(left, line.sold - line.returned) : 0
          line.returned += back
          left -= back
          if (back > 0 && line.stock !== null) change(line.stock, { onHand: back })
        }
        if (left === 0 || !item.stocked) return
        change(this.stockFor(command, item), { onHand: left })
        item.initialized = true
        if (orderId !== undefined) this.flag("RETURN_EXCEEDS_SALE", orderId)
      }
    }
  }

  ensureItem(command: Extract<Command, { _tag: "EnsureItem" }>) {
    const { productVariantId, sku } = command
    const { items } = this.world
    const byVariant = items.find(
      ({ variant }) => productVariantId !== undefined && variant === productVariantId
    )
    const bySku = items.find((item) => sku !== undefined && item.sku === sku)
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
      initialized: false
    }
    if (known === undefined) items.push(item)
    item.variant = productVariantId ?? item.variant
    item.sku = sku ?? item.sku
    item.stocked = command.stocked ?? item.stocked
    item.threshold = command.lowStockThreshold ?? item.threshold
    item.discontinued = command.discontinued ?? item.discontinued
    return {
      created: known === undefined,
      item: this.figures(item),
      stocked: item.stocked,
      threshold: item.threshold
    }
  }

  ensureLocation(command: Extract<Command, { _tag: "EnsureLocation" }>) {
    const known = this.world.locations.find(({ id }) => id === command.locationId)
    if (known === undefined) this.world.locations.push({ id: command.locationId, name: command.name ?? null })
    else known.name = command.name ?? known.name
    return {
      created: known === undefined,
      locationId: command.locationId,
      name: command.name ?? known?.name ?? null
    }
  }

  resolve(command: Extract<Command, { _tag: "ResolveDiscrepancy" }>) {
    const flag = this.world.flags.find(({ id }) => id === command.discrepancyId)
    if (flag === undefined) throw new Refused("DiscrepancyNotFound")
    const wasOpen = flag.open
    flag.open = false
    return { resolved: wasOpen }
  }

  /* What the rules share. */

  find(ref: ItemRef): Item | undefined {
    return this.world.items.find((item) =>
      "variantId" in ref
        ? item.variant === ref.variantId
        : "sku" in ref
          ? item.sku === ref.sku
          : item.id === ref.itemId
    )
  }

  item(id: string): Item {
    return this.world.items.find((item) => item.id === id)!
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

  /** Takes what can be sold now: by location, then first-expired-first-out. Answers how much is missing. */
  take(
    id: string,
    quantity: number,
    how: {
      readonly from: (stock: Stock) => boolean
      readonly each: (stock: number | null, quantity: number) => void
    }
  ): number {
    if (!this.item(id).stocked) {
      how.each(null, quantity)
      return 0
    }
    const { locations, stocks } = this.world
    const place = (stock: Stock) => locations.findIndex((location) => location.id === stock.location)
    const never = Number.MAX_SAFE_INTEGER
    const inOrder = stocks
      .map((stock, index) => ({ stock, index }))
      .filter(({ stock }) => stock.item === id && how.from(stock))
      .sort(
        (a, b) =>
          place(a.stock) - place(b.stock) ||
          (a.stock.expiresAt ?? never) - (b.stock.expiresAt ?? never) ||
          a.stock.createdAt - b.stock.createdAt ||
          a.index - b.index
      )
    let left = quantity
    for (const { index, stock } of inOrder) {
      const picked = Math.min(left, sellableNow(stock, this.at))
      if (picked > 0) how.each(index, picked)
      left -= picked
    }
    return left
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
    const stock = this.world.stocks[line.stock]!
    if (stock.expiresAt !== null && stock.expiresAt <= this.at)
      this.flag("EXPIRED_LOT_SOLD", stockName(stock))
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
    const expiresAt = command.lotExpiresAt ?? null
    if (index >= 0) {
      if (expiresAt !== null && stocks[index]!.expiresAt !== expiresAt) throw new Refused("LotMismatch")
      return index
    }
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
    const available = sum((stock) => sellableNow(stock, this.at))
    return {
      itemId: item.id,
      quantity: sum(({ onHand }) => onHand),
      reserved: sum(({ reserved }) => reserved),
      damaged: sum(({ damaged }) => damaged),
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
      expiresAt: one.kind === "SALE" ? null : one.expiresAt,
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
  ...state
})

const sellableNow = (stock: Stock, at: number): number =>
  stock.expiresAt !== null && at >= stock.expiresAt
    ? 0
    : Math.max(0, stock.onHand - stock.reserved - stock.damaged)

const statusNow = (item: Item, available: number): string => {
  if (item.discontinued) return "DISCONTINUED"
  if (!item.initialized) return "AWAITING_INITIAL_STOCK"
  if (available === 0) return "OUT_OF_STOCK"
  return available <= item.threshold ? "LOW_STOCK" : "IN_STOCK"
}

const stockName = ({ item, location, lot }: Pick<Stock, "item" | "location" | "lot">): string =>
  `${item} at ${location} lot ${lot || null}`

const stockText = (stock: Stock): string =>
  `${stockName(stock)}: ${stock.onHand} ${stock.reserved} ${stock.damaged}, version ${stock.version}`

/**
 * What an expired reservation may take again is not in its rows when part of it was released before, or when it was
 * bound to a location or a stock.
 */
const isBeyondTheRows = (one: Document): boolean =>
  one.location !== null ||
  one.wants.some(([, , stockId]) => stockId !== null) ||
  one.lines.some(({ expired, released }) => released > expired)

/* --------------------------------------------------------------------------- kernel and model, in one notation */

const outcomeOf = (verdict: Verdict, posting: Posting): Outcome => {
  if ("refusal" in verdict) {
    const { refusal } = verdict
    switch (refusal._tag) {
      case "InsufficientStock":
      case "ReservationExpired":
        return {
          refused: refusal._tag,
          detail: refusal.items
            .map(({ available, productVariantId, requested, sku }) => [
              productVariantId ?? sku,
              requested,
              available
            ])
            .sort()
        }
      case "ReservationFailed":
        return { refused: refusal._tag, detail: refusal.reason }
      case "VersionMismatch":
        return { refused: refusal._tag, detail: refusal.actual }
      case "ReleaseExceedsReservation":
        return { refused: refusal._tag, detail: refusal.held }
      default:
        return { refused: refusal._tag, detail: null }
    }
  }
  return { told: toldOf(verdict.answer, posting.command) }
}

const toldOf = (given: Answers[keyof Answers], { _tag }: Command): Readonly<Record<string, unknown>> => {
  switch (_tag) {
    case "ReserveStock": {
      const { created, reservation } = given as Answers["ReserveStock"]
      return {
        created,
        reservationId: reservation.reservationId,
        status: reservation.status,
        expiresAt: reservation.expiresAt,
        lines: reservation.lines
          .map(
            ({ itemId, locationId, lotNumber, open, quantity }) =>
              `${itemId} at ${locationId} lot ${lotNumber}: ${quantity}, ${open} open`
          )
          .sort()
      }
    }
    case "ReleaseReservation": {
      const { item, quantity, released } = given as Answers["ReleaseReservation"]
      return { released, quantity, ...(item === null ? {} : { item: figuresOf(item) }) }
    }
    case "AdjustStock": {
      const { applied, item, stocks } = given as Answers["AdjustStock"]
      return {
        applied,
        item: figuresOf(item),
        stocks: stocks
          .map(
            ({ locationId, lotNumber, quantity, reservedQuantity, unallocatableQuantity, version }) =>
              `${item.itemId} at ${locationId} lot ${lotNumber}: ${quantity} ${reservedQuantity} ${unallocatableQuantity}, version ${version}`
          )
          .sort()
      }
    }
    case "EnsureItem": {
      const { created, item } = given as Answers["EnsureItem"]
      return { created, item: figuresOf(item), stocked: item.stocked, threshold: item.lowStockThreshold }
    }
    case "EnsureLocation": {
      const { created, location } = given as Answers["EnsureLocation"]
      return { created, locationId: location.locationId, name: location.name }
    }
    case "ResolveDiscrepancy":
      return { resolved: (given as Answers["ResolveDiscrepancy"]).resolved }
    default: {
      const { at: _at, ...told } = given as Answers["ConfirmReservation"]
      return told
    }
  }
}

const figuresOf = (item: Answers["AdjustStock"]["item"]) => ({
  itemId: item.itemId,
  quantity: item.quantity,
  reserved: item.reservedQuantity,
  damaged: item.unallocatableQuantity,
  available: item.availableQuantity,
  status: item.status
})

/** What the store holds, without the ids that only the kernel knows. */
const booksOf = (store: MemoryStore) => {
  const stocks = [...store.stocks.values()]
  const nameOf = (stockId: string | null): string | null => {
    const row = stocks.find((stock) => stock.stockId === stockId)
    return row === undefined
      ? null
      : stockName({ item: row.itemId, location: row.locationId, lot: row.lotNumber })
  }
  const orders = new Set([...store.reservations.values()].map(({ orderId }) => orderId))
  return {
    stocks: stocks
      .map(
        (row) =>
          `${nameOf(row.stockId)}: ${row.onHand} ${row.reserved} ${row.unallocatable}, version ${row.sequence}, until ${row.lotExpiresAt}`
      )
      .sort(),
    items: [...store.items.values()]
      .map((row) =>
        JSON.stringify([
          row.itemId,
          row.productVariantId,
          row.sku,
          row.stocked,
          row.lowStockThreshold,
          row.discontinued,
          row.initialized
        ])
      )
      .sort(),
    documents: [...orders].sort().map((order) =>
      store.reservationsOf(merchantId, order).map((row) => ({
        id: row.kind === "SALE" ? "a sale" : row.reservationId,
        kind: row.kind,
        status: row.status,
        expiresAt: row.expiresAt,
        lines: row.lines
          .map((line) =>
            JSON.stringify([
              line.itemId,
              nameOf(line.stockId),
              line.quantity,
              line.open,
              line.sold,
              line.released,
              line.returned
            ])
          )
          .sort()
      }))
    ),
    discrepancies: [...store.discrepancies.values()]
      .filter(({ status }) => status === "OPEN")
      .map((row) => `${row.kind} ${nameOf(row.stockId) ?? row.subject}`)
      .sort()
  }
}

const expectedBooks = (world: World): ReturnType<typeof booksOf> => {
  const nameOf = (stock: number | null) => (stock === null ? null : stockName(world.stocks[stock]!))
  const impossible = world.stocks.flatMap((stock) => {
    const held = stock.reserved + stock.damaged
    return [
      ...(stock.onHand < 0 ? [`NEGATIVE_STOCK ${stockName(stock)}`] : []),
      ...(held > 0 && held > stock.onHand ? [`OVERCOMMITTED ${stockName(stock)}`] : [])
    ]
  })
  return {
    stocks: world.stocks.map((stock) => `${stockText(stock)}, until ${stock.expiresAt}`).sort(),
    items: world.items
      .map((item) =>
        JSON.stringify([
          item.id,
          item.variant,
          item.sku,
          item.stocked,
          item.threshold,
          item.discontinued,
          item.initialized
        ])
      )
      .sort(),
    documents: [...new Set(world.documents.map(({ order }) => order))].sort().map((order) =>
      world.documents
        .filter((one) => one.order === order)
        .map((one) => ({
          id: one.id,
          kind: one.kind,
          status: one.status,
          expiresAt: one.expiresAt,
          lines: one.lines
            .map((line) =>
              JSON.stringify([
                line.item,
                nameOf(line.stock),
                line.quantity,
                line.open,
                line.sold,
                line.released,
                line.returned
              ])
            )
            .sort()
        }))
    ),
    discrepancies: [
      ...impossible,
      ...world.flags.filter(({ open }) => open).map(({ kind, subject }) => `${kind} ${subject}`)
    ].sort()
  }
}

/* ------------------------------------------------------------------------------------- rules for every history */

/** Invariants 1, 2 and 3 of CONTRACTS section 2, and that an order holds one PENDING reservation of a kind and scope. */
const checkBooks = (store: MemoryStore): void => {
  const balances = new Map<string, LedgerRow>()
  for (const row of store.ledger) {
    const before = balances.get(row.stockId)
    assert.strictEqual(row.sequence, (before?.sequence ?? 0) + 1)
    assert.strictEqual(row.onHand, (before?.onHand ?? 0) + row.onHandDelta)
    assert.strictEqual(row.reserved, (before?.reserved ?? 0) + row.reservedDelta)
    assert.strictEqual(row.unallocatable, (before?.unallocatable ?? 0) + row.unallocatableDelta)
    assert.isAtLeast(row.recordedAt, before?.recordedAt ?? 0)
    assert.isFalse(row.onHandDelta === 0 && row.reservedDelta === 0 && row.unallocatableDelta === 0)
    balances.set(row.stockId, row)
  }
  const lines = [...store.lines.values()]
  for (const stock of store.stocks.values()) {
    const last = balances.get(stock.stockId)
    assert.deepStrictEqual(
      [stock.onHand, stock.reserved, stock.unallocatable, stock.sequence],
      [last?.onHand ?? 0, last?.reserved ?? 0, last?.unallocatable ?? 0, last?.sequence ?? 0]
    )
    const held = lines.reduce((sum, line) => sum + (line.stockId === stock.stockId ? line.open : 0), 0)
    assert.strictEqual(stock.reserved, held)
    const kinds = [...store.discrepancies.values()]
      .filter(
        (row) => row.subject === stock.stockId && row.status === "OPEN" && row.kind !== "EXPIRED_LOT_SOLD"
      )
      .map(({ kind }) => kind)
      .sort()
    const overcommitted = held + stock.unallocatable > Math.max(0, stock.onHand)
    assert.deepStrictEqual(kinds, [
      ...(stock.onHand < 0 ? (["NEGATIVE_STOCK"] as const) : []),
      ...(overcommitted ? (["OVERCOMMITTED"] as const) : [])
    ])
    assert.strictEqual(stock.discrepancy, kinds.length > 0)
  }
  for (const item of store.items.values()) {
    const stocks = [...store.stocks.values()].filter((stock) => stock.itemId === item.itemId)
    const sum = (field: "onHand" | "reserved" | "unallocatable") =>
      stocks.reduce((total, stock) => total + stock[field], 0)
    assert.deepStrictEqual(
      [item.onHand, item.reserved, item.unallocatable],
      [sum("onHand"), sum("reserved"), sum("unallocatable")]
    )
  }
  for (const reservation of store.reservations.values()) {
    const open = lines.some((line) => line.reservationId === reservation.reservationId && line.open > 0)
    assert.strictEqual(open, reservation.status === "PENDING")
  }
}

const count = (isTrue: boolean): number => (isTrue ? 1 : 0)

/** Follows the events of every item (CONTRACTS section 6). */
class Teller {
  readonly #sequences = new Map<string, number>()
  readonly #statuses = new Map<string, unknown>()

  listen({ books, events, ledgerRows, posting, worldAfter, worldBefore }: Decided): void {
    const text = describePosting(posting)
    const { at } = posting
    for (const { id: itemId, threshold } of worldAfter.items) {
      const told = events.filter(({ key }) => key === itemId)
      const ofType = (type: string) => told.filter((event) => event.type === type)
      for (const { data } of told.filter(({ topic }) => topic === "inventory.events")) {
        const last = this.#sequences.get(itemId) ?? 0
        assert.strictEqual(data["sequence"], last + 1, text)
        this.#sequences.set(itemId, last + 1)
      }
      const rows = ledgerRows.filter((row) => row.itemId === itemId)
      const isTold = (type: string, tells: (row: LedgerRow) => boolean): void => {
        const movements = ofType(type).map(({ data }) =>
          (data["movements"] as ReadonlyArray<Record<string, unknown>>).map((movement) => movement["stockId"])
        )
        const expected = rows.filter(tells).map((row) => row.stockId)
        assert.deepStrictEqual(movements, expected.length === 0 ? [] : [expected], text)
      }
      isTold("InventoryAllocated", ({ type }) => type === "ORDER_ALLOCATE")
      isTold("InventoryReleased", ({ type }) => type === "ORDER_RELEASE")
      isTold("InventoryAdjusted", ({ type }) => type !== "ORDER_ALLOCATE" && type !== "ORDER_RELEASE")

      const availableIn = (world: World) =>
        world.stocks.reduce((sum, stock) => sum + (stock.item === itemId ? sellableNow(stock, at) : 0), 0)
      const onHandIn = (world: World) =>
        world.stocks.reduce((sum, stock) => sum + (stock.item === itemId ? stock.onHand : 0), 0)
      const before = availableIn(worldBefore)
      const after = availableIn(worldAfter)
      assert.lengthOf(ofType("inventory.out_of_stock"), count(before > 0 && after === 0), text)
      assert.lengthOf(
        ofType("inventory.low_stock"),
        count(threshold > 0 && before > threshold && after <= threshold),
        text
      )
      assert.lengthOf(
        ofType("StockLevelChanged"),
        count(onHandIn(worldBefore) !== onHandIn(worldAfter)),
        text
      )
      for (const { data } of ofType("StockStatusChanged")) {
        assert.notStrictEqual(data["statusBefore"], data["statusAfter"], text)
        assert.strictEqual(data["statusBefore"], this.#statuses.get(itemId) ?? "AWAITING_INITIAL_STOCK", text)
        this.#statuses.set(itemId, data["statusAfter"])
      }
      const item = books.items.get(`${merchantId}\u001f${itemId}`)
      if (item === undefined) continue
      assert.strictEqual(item.eventSequence, this.#sequences.get(itemId) ?? 0, text)
      if (!this.#statuses.has(itemId)) this.#statuses.set(itemId, item.status)
      assert.strictEqual(item.status, this.#statuses.get(itemId), text)
    }
    assert.isTrue(
      events.every(({ data }) => data["merchantId"] === merchantId),
      text
    )
    const ids = new Set(events.map(({ id }) => id))
    assert.strictEqual(ids.size, events.length, text)
  }
}

/* --------------------------------------------------------------------------------------------- random histories */

/** What is asked, before it is known which ids it speaks of: those are looked up when its batch begins. */
type Ask =
  | {
      readonly do: "reserve"
      readonly kind: "ORDER" | "VARIANT"
      readonly order: number
      /** Item, quantity and, for one that names a stock, the how manieth of the item's stocks. */
      readonly lines: ReadonlyArray<readonly [number, number, number | null]>
      readonly seconds: number
      readonly location: number | null
    }
  | { readonly do: "release"; readonly order: number; readonly line: readonly [number, number | null] | null }
  | { readonly do: "confirm"; readonly order: number; readonly which: number | null }
  | { readonly do: "extend"; readonly order: number; readonly seconds: number }
  | { readonly do: "expire"; readonly order: number; readonly which: number }
  | {
      readonly do: "adjust"
      readonly changeType: ChangeType
      readonly item: number
      readonly quantity: number
      readonly order: number | null
      readonly location: number | null
      readonly lot: number | null
      readonly reference: number | null
      readonly version: "any" | "current" | "stale"
      /** How much earlier than its batch it was asked, in milliseconds. */
      readonly lateBy: number
    }
  | {
      readonly do: "item"
      readonly item: number
      readonly stocked: boolean | null
      readonly threshold: number | null
      readonly discontinued: boolean | null
      readonly renames: boolean
    }
  | { readonly do: "location"; readonly location: number; readonly name: string | null }
  | { readonly do: "resolve"; readonly which: number }
  | { readonly do: "cancel"; readonly order: number }

interface Batch {
  /** Milliseconds since the batch before. */
  readonly advance: number
  readonly asks: ReadonlyArray<Ask>
}

// The sku of one item is the variant of another: names of different kinds are not each other's.
const names: ReadonlyArray<{ readonly variant?: string; readonly sku?: string }> = [
  { variant: "v0", sku: "s0" },
  { variant: "v1" },
  { variant: "v2" },
  { sku: "v1" },
  { variant: "v4" }
]
const itemRef = (index: number, bySku = false): ItemRef => {
  const { sku, variant } = names[index]!
  return variant === undefined || (bySku && sku !== undefined) ? { sku: sku! } : { variantId: variant }
}
// A separator in a name must not make two names one.
const orders = ["o", "o|v0", "o2"]
const locations = ["default", "north", "south"]
const lots = [
  { lotNumber: "A", lotExpiresAt: epoch + 20_000 },
  { lotNumber: "B", lotExpiresAt: epoch + 60_000 },
  { lotNumber: "C", lotExpiresAt: undefined },
  // The same lot with another expiry.
  { lotNumber: "A", lotExpiresAt: epoch + 90_000 }
]
const references = ["r", "v0|r"]

/** What every history begins with; the fifth item and the third location are not there yet. */
const opening: Batch = {
  advance: 0,
  asks: [
    { do: "item", item: 0, stocked: null, threshold: null, discontinued: null, renames: false },
    { do: "item", item: 1, stocked: null, threshold: 5, discontinued: null, renames: false },
    { do: "item", item: 2, stocked: false, threshold: null, discontinued: null, renames: false },
    { do: "item", item: 3, stocked: null, threshold: 2, discontinued: null, renames: false },
    { do: "location", location: 1, name: null }
  ]
}

const sale = (quantity: number): Extract<Ask, { do: "adjust" }> => ({
  do: "adjust",
  changeType: "SALE",
  item: 0,
  quantity,
  order: 0,
  location: null,
  lot: null,
  reference: null,
  version: "any",
  lateBy: 0
})

const itemIndex = fc.oneof(
  { weight: 5, arbitrary: fc.constant(0) },
  { weight: 4, arbitrary: fc.nat(names.length - 1) }
)
const orderIndex = fc.oneof(
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.nat(orders.length - 1) }
)
const quantity = fc.integer({ min: 1, max: 8 })
const maybe = <A>(arbitrary: fc.Arbitrary<A>, freq = 2) => fc.option(arbitrary, { freq })
const reserveAsk: fc.Arbitrary<Ask> = fc
  .record({
    do: fc.constant("reserve" as const),
    kind: fc.constantFrom("ORDER" as const, "VARIANT" as const),
    order: orderIndex,
    lines: fc.array(fc.tuple(itemIndex, quantity, fc.option(fc.nat(3), { freq: 5 }).map(noneOften)), {
      minLength: 1,
      maxLength: 3
    }),
    seconds: fc.integer({ min: 1, max: 15 }),
    location: maybe(fc.nat(2), 1)
  })
  .map((ask) =>
    ask.kind === "VARIANT" ? { ...ask, lines: [[ask.lines[0]![0], ask.lines[0]![1], null] as const] } : ask
  )

function noneOften(which: number | null): number | null {
  return which === null || which > 1 ? null : which
}

const ask: fc.Arbitrary<Ask> = fc.oneof(
  { weight: 7, arbitrary: reserveAsk },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("release" as const),
      order: orderIndex,
      line: maybe(fc.tuple(itemIndex, maybe(fc.integer({ min: 1, max: 4 }))))
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("confirm" as const),
      order: orderIndex,
      which: maybe(fc.nat(4), 1)
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("extend" as const),
      order: orderIndex,
      seconds: fc.integer({ min: 1, max: 15 })
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("expire" as const), order: orderIndex, which: fc.nat(4) })
  },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("adjust" as const),
      changeType: fc.constantFrom<ChangeType>(
        "RECEIPT",
        "RECEIPT",
        "SALE",
        "SALE",
        "RETURN",
        "DAMAGE",
        "CORRECTION"
      ),
      item: itemIndex,
      quantity,
      order: maybe(orderIndex),
      location: maybe(fc.nat(2), 1),
      lot: maybe(fc.constantFrom(0, 0, 0, 1, 1, 1, 2, 2, 2, 3), 1),
      reference: fc.constantFrom(null, null, null, 0, 1),
      version: fc.constantFrom(
        "any" as const,
        "any" as const,
        "any" as const,
        "current" as const,
        "stale" as const
      ),
      lateBy: fc.constantFrom(0, 0, 1, 700, 2_500)
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("item" as const),
      item: fc.nat(names.length - 1),
      stocked: fc.constantFrom(null, null, true, false),
      threshold: fc.constantFrom(null, 0, 3),
      discontinued: fc.constantFrom(null, null, true, false),
      renames: fc.boolean()
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("location" as const),
      location: fc.nat(2),
      name: fc.constantFrom(null, "a", "b")
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resolve" as const), which: fc.nat(3) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("cancel" as const), order: fc.integer({ min: 1, max: 2 }) })
  }
)

const histories: fc.Arbitrary<ReadonlyArray<Batch>> = fc.array(
  fc.record({
    advance: fc.constantFrom(0, 1, 900, 3_000, 7_000, 16_000),
    asks: fc.array(ask, { minLength: 1, maxLength: 5 })
  }),
  { minLength: 1, maxLength: 10, size: "max" }
)

const check = (numRuns: number, holds: (script: ReadonlyArray<Batch>) => void): void =>
  fc.assert(
    fc.property(histories, (script) => holds([opening, ...script])),
    { numRuns }
  )

/* ----------------------------------------------------------------------------------------------------- playing */

interface Decided {
  readonly books: Books
  readonly posting: Posting
  readonly verdict: Verdict
  readonly expected: Outcome
  readonly worldBefore: World
  readonly worldAfter: World
  readonly ledgerRows: ReadonlyArray<LedgerRow>
  readonly events: ReadonlyArray<EventRow>
  readonly changedSomething: boolean
}
interface Watch {
  readonly onDeciding?: (moment: { readonly books: Books; readonly posting: Posting }) => void
  readonly onDecided?: (decided: Decided) => void
  readonly onCommitted?: (moment: {
    readonly store: MemoryStore
    readonly world: World
    readonly postings: ReadonlyArray<Posting>
    readonly verdicts: ReadonlyArray<Verdict>
  }) => void
}

/** Plays a history over a fresh store, batch by batch, the model beside it. */
const play = (
  script: ReadonlyArray<Batch>,
  watch: Watch,
  idempotencyOf?: (n: number) => { readonly key: string; readonly fingerprint: string }
): void => {
  const store = new MemoryStore()
  let world = emptyWorld()
  let now = epoch
  let count = 0
  for (const { advance, asks } of script) {
    now += advance
    const postings: Array<Posting> = []
    for (const one of asks) {
      if (one.do === "cancel") {
        world = cancelOrder(store, world, orders[one.order]!)
        continue
      }
      count += 1
      const id = postingId(now, count)
      const command = commandOf(one, { postings, world })
      const at = one.do === "adjust" && one.changeType !== "SALE" ? now - one.lateBy : now
      const idempotency = idempotencyOf?.(count)
      postings.push({ id, at, caller: callerOf(at, { idempotency }), command })
    }
    // A replica that sees a merchant for the first time reads more; it must not decide differently.
    const books = store.open(postings, now, count % 3 === 0 ? new Set() : store.merchants)
    const verdicts: Array<Verdict> = []
    for (const posting of postings) {
      watch.onDeciding?.({ books, posting })
      const before = weightOf(books)
      const { events, ledger } = books.written
      const [eventCount, ledgerCount] = [events.length, ledger.length]
      const verdict = decide(books, posting)
      verdicts.push(verdict)
      const replayed = "answer" in verdict && verdict.replayed
      const reused = "refusal" in verdict && verdict.refusal._tag === "IdempotencyKeyReused"
      const worldBefore = world
      let outcome: Outcome
      if (replayed || reused) outcome = { told: {} }
      else {
        try {
          ;({ outcome, world } = judge(world, posting))
        } catch (reason) {
          if (reason instanceof Unjudged) return
          throw reason
        }
      }
      watch.onDecided?.({
        books,
        posting,
        verdict,
        expected: withNames(outcome, world, verdict),
        worldBefore,
        worldAfter: world,
        ledgerRows: ledger.slice(ledgerCount),
        events: events.slice(eventCount),
        changedSomething: weightOf(books) !== before
      })
    }
    store.commit(books)
    world = withIds(world, store)
    watch.onCommitted?.({ store, world, postings, verdicts })
  }
}

const weightOf = ({ changed, written }: Books): number =>
  Object.values(written).reduce((sum, rows) => sum + (Array.isArray(rows) ? rows.length : rows.size), 0) +
  Object.values(changed).reduce((sum, rows) => sum + rows.size, 0)

/** The model speaks of items by id; a refusal names them as the outside knows them. Sales have ids of the kernel's. */
const withNames = (outcome: Outcome, { items }: World, verdict: Verdict): Outcome => {
  if ("refused" in outcome) {
    if (!Array.isArray(outcome.detail)) return outcome
    const named = (outcome.detail as ReadonlyArray<readonly [string, number, number]>).map(
      ([id, ...figures]) => {
        const item = items.find((one) => one.id === id)
        return [item === undefined ? id : (item.variant ?? item.sku), ...figures]
      }
    )
    return { refused: outcome.refused, detail: named.sort() }
  }
  if (!("answer" in verdict) || outcome.told["reservationId"] !== "a sale") return outcome
  const { answer } = verdict
  const told = "reservation" in answer ? answer.reservation : (answer as Answers["ConfirmReservation"])
  const { expiresAt } = told as { readonly expiresAt?: number }
  return {
    told: {
      ...outcome.told,
      reservationId: told.reservationId,
      ...(expiresAt === undefined ? {} : { expiresAt })
    }
  }
}

/** Ids that the kernel has given away are learnt from the store, once committed. */
const withIds = (world: World, store: MemoryStore): World => {
  for (const stock of world.stocks) {
    stock.id ??=
      [...store.stocks.values()].find(
        (row) => row.itemId === stock.item && row.locationId === stock.location && row.lotNumber === stock.lot
      )?.stockId ?? null
  }
  for (const flag of world.flags) {
    if (flag.id !== null) continue
    const subject = world.stocks.find((stock) => stockName(stock) === flag.subject)?.id ?? flag.subject
    flag.id =
      [...store.discrepancies.values()].find(
        (row) => row.kind === flag.kind && row.subject === subject && row.status === "OPEN"
      )?.discrepancyId ?? null
  }
  return world
}

/** What the operation behind `order.cancelled` leaves. It is no command of the kernel yet, so the test writes it. */
const cancelOrder = (store: MemoryStore, world: World, orderId: string): World => {
  const trackingKey = cancelledOrderKey(orderId)
  store.tracking.set(`${merchantId}\u001f${trackingKey}`, {
    merchantId,
    trackingKey,
    postingId: postingId(epoch, 0),
    answer: null,
    recordedAt: epoch
  })
  return { ...world, cancelledOrders: [...world.cancelledOrders, orderId] }
}

const commandOf = (
  asked: Exclude<Ask, { do: "cancel" }>,
  known: { readonly postings: ReadonlyArray<Posting>; readonly world: World }
): Command => {
  const { postings, world } = known
  const itemId = (index: number): string | undefined => {
    const { sku, variant } = names[index]!
    return world.items.find((item) => (variant === undefined ? item.sku === sku : item.variant === variant))
      ?.id
  }
  const reservationId = (orderId: string, which: number): string => {
    const committed = world.documents
      .filter(({ kind, order }) => order === orderId && kind !== "SALE")
      .map(({ id }) => id)
    const queued = postings
      .filter(({ command }) => command._tag === "ReserveStock" && command.orderId === orderId)
      .map(({ id }) => id)
    // Newest first: the last ones are those that most is done with.
    return [...committed, ...queued].toReversed()[which] ?? postingId(epoch, 0)
  }
  switch (asked.do) {
    case "reserve":
      return {
        _tag: "ReserveStock",
        orderId: orders[asked.order]!,
        kind: asked.kind,
        lines: asked.lines.map(([item, amount, which], index) => ({
          item: itemRef(item, index % 2 === 1),
          quantity: amount,
          stockId:
            which === null
              ? undefined
              : (world.stocks.filter((stock) => stock.item === itemId(item))[which]?.id ??
                postingId(epoch, 0))
        })),
        expiresInSeconds: asked.seconds,
        locationId: asked.location === null ? undefined : locations[asked.location]
      }
    case "release":
      return {
        _tag: "ReleaseReservation",
        orderId: orders[asked.order]!,
        reason: "RELEASED",
        ...(asked.line === null
          ? {}
          : { line: { item: itemRef(asked.line[0]), quantity: asked.line[1] ?? undefined } })
      }
    case "confirm": {
      const orderId = orders[asked.order]!
      return {
        _tag: "ConfirmReservation",
        orderId,
        ...(asked.which === null ? {} : { reservationId: reservationId(orderId, asked.which) })
      }
    }
    case "extend":
      return { _tag: "ExtendReservation", orderId: orders[asked.order]!, expiresInSeconds: asked.seconds }
    case "expire": {
      const orderId = orders[asked.order]!
      return { _tag: "ExpireReservation", orderId, reservationId: reservationId(orderId, asked.which) }
    }
    case "adjust": {
      const { lotExpiresAt, lotNumber } =
        asked.lot === null ? { lotExpiresAt: undefined, lotNumber: undefined } : lots[asked.lot]!
      const locationId = asked.location === null ? undefined : locations[asked.location]
      const comesIn = asked.changeType === "RECEIPT" || asked.changeType === "RETURN"
      const stock = world.stocks.find(
        (one) =>
          one.item === itemId(asked.item) &&
          (locationId === undefined ? !comesIn || one.location === "default" : one.location === locationId) &&
          (lotNumber === undefined ? !comesIn || one.lot === "" : one.lot === lotNumber)
      )
      // An order's sale or return goes by what the order holds, whichever stock the request may name.
      const isFree = asked.order === null && asked.version !== "any"
      return {
        _tag: "AdjustStock",
        changeType: asked.changeType,
        item: itemRef(asked.item),
        quantity: asked.changeType === "CORRECTION" ? asked.quantity - 1 : asked.quantity,
        orderId: asked.order === null ? undefined : orders[asked.order],
        locationId,
        lotNumber,
        lotExpiresAt: asked.changeType === "RECEIPT" ? lotExpiresAt : undefined,
        reference: asked.reference === null ? undefined : references[asked.reference],
        expectedVersion: isFree ? (stock?.version ?? 0) + (asked.version === "stale" ? 1 : 0) : undefined
      }
    }
    case "item": {
      const { sku, variant } = names[asked.item]!
      // Gives the item another sku, or a variant to the one that is known by its sku alone.
      const renamed = asked.renames
        ? variant === undefined
          ? { productVariantId: "v5", sku }
          : { productVariantId: variant, sku: "s1" }
        : { productVariantId: variant, sku }
      return {
        _tag: "EnsureItem",
        kind: "PRODUCT",
        ...renamed,
        stocked: asked.stocked ?? undefined,
        lowStockThreshold: asked.threshold ?? undefined,
        discontinued: asked.discontinued ?? undefined
      }
    }
    case "location":
      return { _tag: "EnsureLocation", locationId: locations[asked.location]!, name: asked.name ?? undefined }
    case "resolve": {
      const open = world.flags.filter(({ id }) => id !== null)
      return {
        _tag: "ResolveDiscrepancy",
        discrepancyId: open[asked.which]?.id ?? postingId(epoch, 0),
        reason: "counted"
      }
    }
  }
}

const describePosting = ({ at, command, id }: Posting): string =>
  `${JSON.stringify(command)} as ${id} at +${at - epoch} ms`
