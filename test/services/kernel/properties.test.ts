import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Answers, Command, Posting } from "../../../src/services/kernel/commands.ts"
import type { LedgerRow } from "../../../src/services/kernel/tables/stock.ts"
import { keyOf } from "../../../src/services/kernel/Needs.ts"
import { MemoryStore, merchantId, snapshotOf, decide, type Verdict } from "../../support/books.ts"
import {
  type Batch,
  type Decided,
  describePosting,
  histories,
  lives,
  oneSale,
  play,
  sale,
  share
} from "./histories.ts"
import {
  type Item,
  type Outcome,
  type World,
  isStranded,
  canSell,
  statusNow,
  stockName,
  stockText
} from "./model.ts"

// Goal: whatever is asked in whatever order, the kernel does what CONTRACTS sections 1, 2 and 4 say. Method: random
// histories of batches over tables in memory, which each batch reads back as the database would hand them over; beside
// them a model that is written from CONTRACTS alone, and rules about ledger, documents and events that hold for every
// history. fast-check prints the seed and the smallest history that breaks a rule. `npm run test:faults` plays as many as
// each rule names; `npm test` a fifth of that.

describe("the kernel, over random histories", { timeout: 120_000 }, () => {
  it("decides what the model decides, and leaves the books as the model has them", () => {
    check(2_000, asTheModel)
    fc.assert(fc.property(lives, asTheModel), { numRuns: share(1_500) })
  })

  it("changes nothing at all when it refuses", () => {
    check(1_000, (script) => {
      let before = ""
      play(script, {
        onDeciding: ({ books }) => {
          before = snapshotOf(books)
        },
        onDecided: ({ books, posting, verdict }) => {
          if ("refusal" in verdict) same(snapshotOf(books), before, posting)
        }
      })
    })
  })

  it("never promises what cannot be sold", () => {
    check(800, (script) => {
      play(script, {
        onDecided: ({ books, ledgerRows, posting }) => {
          // A fact is no promise.
          if (posting.command._tag === "RecordSale" || posting.command._tag === "ReportSale") return
          for (const row of ledgerRows) {
            const promised =
              row.type === "ORDER_ALLOCATE"
                ? row.reservedDelta
                : row.type === "SALE"
                  ? row.reservedDelta - row.onHandDelta
                  : 0
            if (promised === 0) continue
            const free = row.onHand - row.onHandDelta - (row.reserved - row.reservedDelta) - row.unallocatable
            const { lotExpiresAt } = books.stocks.indexes.byId.get(merchantId, row.stockId)!
            const isGood = lotExpiresAt === null || lotExpiresAt > posting.at
            same({ isGood, isThere: promised <= free }, { isGood: true, isThere: true }, posting)
          }
        }
      })
    })
  })

  it("never promises more of an item than there is of it, wherever what is missing was taken", () => {
    check(800, (script) => {
      play(script, {
        onDecided: ({ ledgerRows, posting, worldAfter, worldBefore }) => {
          if (posting.command._tag === "RecordSale" || posting.command._tag === "ReportSale") return
          const promised = ledgerRows.filter(
            ({ onHandDelta, reservedDelta, type }) =>
              (type === "ORDER_ALLOCATE" || type === "SALE") && reservedDelta - onHandDelta > 0
          )
          for (const itemId of new Set(promised.map((row) => row.itemId))) {
            // What was missing before may go on missing: an order that is sold at another place gives back as much there.
            const missing = Math.min(0, leftOf(worldBefore, itemId, posting.at))
            same(
              { itemId, isThere: leftOf(worldAfter, itemId, posting.at) >= missing },
              { itemId, isThere: true },
              posting
            )
          }
        }
      })
    })
  })

  it("keeps ledger, balances, totals and lines equal, and a discrepancy open exactly where the balance is impossible", () => {
    check(1_000, (script) => {
      play(script, { onCommitted: ({ postings, store }) => checkBooks(store, postings.at(-1)!) })
    })
  })

  it("tells every change in gapless order, once, and each crossing once", () => {
    check(1_000, (script) => {
      const teller = new Teller()
      play(script, { onDecided: (decided) => teller.listen(decided) })
    })
  })

  it("moves a reservation only from PENDING to one end, or from EXPIRED to CONFIRMED", () => {
    const moves = ["PENDING CONFIRMED", "PENDING CANCELLED", "PENDING EXPIRED", "EXPIRED CONFIRMED"]
    check(700, (script) => {
      const statuses = new Map<string, string>()
      play(script, {
        onDecided: ({ books }) => {
          for (const { reservationId, status } of [...books.reservations.lists.ofOrder.values()].flat()) {
            const before = statuses.get(reservationId) ?? status
            if (before !== status) assert.include(moves, `${before} ${status}`)
            statuses.set(reservationId, status)
          }
        }
      })
    })
  })

  it("answers a posting that runs a second time as the first time, and changes nothing", () => {
    check(600, (script) => {
      play(
        // Alone in its batch, so that nothing has happened since.
        script.flatMap(({ advance, asks }) =>
          asks.map((one, index) => ({ advance: index === 0 ? advance : 0, asks: [one] }))
        ),
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
    check(600, (script) => {
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
    const stocked: Batch = { advance: 0, asks: [{ ...sale(100), changeType: "RECEIPT", order: null }] }
    fc.assert(
      fc.property(
        fc.constantFrom("ORDER" as const, "VARIANT" as const).chain((kind) => oneSale(kind, quantity)),
        (batches) => {
          play([stocked, ...batches], {
            onCommitted: ({ postings, store }) => {
              const sold = [...store.lines.values()].reduce((sum, line) => sum + line.sold, 0)
              const onHand = [...store.stocks.values()].reduce((sum, stock) => sum + stock.onHand, 0)
              if (onHand > 0) same([sold, onHand], [sold === 0 ? 0 : quantity, 100 - sold], postings.at(-1)!)
            }
          })
        }
      ),
      { numRuns: share(1_500) }
    )
  })
})

const asTheModel = (script: ReadonlyArray<Batch>): void => {
  play(script, {
    onDecided: (decided) => same(outcomeOf(decided), decided.expected, decided.posting),
    onCommitted: ({ postings, store, world }) => same(booksOf(store), expectedBooks(world), postings.at(-1)!)
  })
}

const check = (count: number, holds: (script: ReadonlyArray<Batch>) => void): void =>
  fc.assert(fc.property(histories, holds), { numRuns: share(count) })

/** Equal, told with the posting that made them differ. Text is compared first: that is what there is time for. */
const same = (actual: unknown, expected: unknown, posting: Posting): void => {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) {
    assert.deepStrictEqual(actual, expected, describePosting(posting))
  }
}

const outcomeOf = ({ books, posting, verdict }: Decided): Outcome => {
  if ("refusal" in verdict) {
    const { refusal } = verdict
    switch (refusal._tag) {
      case "ConfirmExceedsReservation":
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
      case "UnallocatableExceeded":
        return { refused: refusal._tag, detail: refusal.unallocatable }
      case "ReleaseExceedsReservation":
        return { refused: refusal._tag, detail: refusal.held }
      default:
        return { refused: refusal._tag, detail: null }
    }
  }
  const told = toldOf(verdict.answer, posting.command)
  const sales = [...books.reservations.lists.ofOrder.values()].flat().filter(({ kind }) => kind === "SALE")
  // Only the kernel knows the ids of sales without reservation.
  const isSale = sales.some(({ reservationId }) => reservationId === told["reservationId"])
  return { told: isSale ? { ...told, reservationId: "a sale" } : told }
}

const toldOf = (given: Answers[keyof Answers], { _tag }: Command): Readonly<Record<string, unknown>> => {
  switch (_tag) {
    case "AmendReservation":
    case "ReserveStock": {
      const { at: _at, reservation, ...told } = given as Answers["AmendReservation"] | Answers["ReserveStock"]
      return {
        ...told,
        reservationId: reservation.reservationId,
        status: reservation.status,
        expiresAt: reservation.expiresAt,
        lines: reservation.lines
          .map(
            ({ itemId, locationId, lotNumber, open, quantity, sold }) =>
              `${itemId} at ${locationId} lot ${lotNumber}: ${quantity}, ${open} open, ${sold} sold`
          )
          .sort()
      }
    }
    case "ReleaseReservation": {
      const { applied, item, quantity } = given as Answers["ReleaseReservation"]
      return { applied, quantity, ...(item === null ? {} : { item: figuresOf(item) }) }
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
    case "UpdateLocation": {
      const { locationId, name, order, retired } = (given as Answers["UpdateLocation"]).location
      return { locationId, name, order, retired }
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
          row.initialized,
          row.deletedAt !== null,
          row.deletionPending
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
              line.returned,
              line.returnedEarly,
              line.paid
            ])
          )
          .sort()
      }))
    ),
    discrepancies: [...store.discrepancies.values()]
      .filter(({ status }) => status === "OPEN")
      .map((row) => flagText(row.kind, nameOf(row.stockId) ?? row.subject, row.detail["quantity"]))
      .sort()
  }
}

/** A return beyond the sale says by how much. */
const flagText = (kind: string, subject: string, quantity: unknown): string =>
  kind === "RETURN_EXCEEDS_SALE" ? `${kind} ${subject} by ${String(quantity)}` : `${kind} ${subject}`

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
          item.initialized,
          item.deleted,
          item.isLeaving
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
                line.returned,
                line.early,
                line.paid
              ])
            )
            .sort()
        }))
    ),
    discrepancies: [
      ...impossible,
      ...world.items
        .filter((item) => isStranded(world, item))
        .map(({ id }) => `DISCONTINUED_WITH_STOCK ${id}`),
      ...world.flags
        .filter(({ open }) => open)
        .map(({ kind, quantity, subject }) => flagText(kind, subject, quantity))
    ].sort()
  }
}

/** Invariants 1, 2 and 3 of CONTRACTS section 2, and that an order holds one PENDING reservation of a kind and scope. */
const checkBooks = (store: MemoryStore, posting: Posting): void => {
  const found: Array<unknown> = []
  const expected: Array<unknown> = []
  const balances = new Map<
    string,
    Pick<LedgerRow, "onHand" | "reserved" | "unallocatable" | "sequence" | "recordedAt">
  >()
  const nothing = { onHand: 0, reserved: 0, unallocatable: 0, sequence: 0, recordedAt: 0 }
  for (const row of store.ledger) {
    const before = balances.get(row.stockId) ?? nothing
    found.push([
      row.sequence,
      row.onHand,
      row.reserved,
      row.unallocatable,
      row.recordedAt >= before.recordedAt
    ])
    expected.push([
      before.sequence + 1,
      before.onHand + row.onHandDelta,
      before.reserved + row.reservedDelta,
      before.unallocatable + row.unallocatableDelta,
      true
    ])
    const isMovement = row.onHandDelta !== 0 || row.reservedDelta !== 0 || row.unallocatableDelta !== 0
    found.push(isMovement)
    expected.push(true)
    balances.set(row.stockId, row)
  }
  const lines = [...store.lines.values()]
  const totals = new Map<string, [number, number, number]>()
  for (const stock of store.stocks.values()) {
    const { itemId, onHand, reserved, sequence, stockId, unallocatable } = stock
    const last = balances.get(stockId) ?? nothing
    const held = lines.reduce((sum, line) => sum + (line.stockId === stockId ? line.open : 0), 0)
    found.push([onHand, reserved, unallocatable, sequence, reserved])
    expected.push([last.onHand, last.reserved, last.unallocatable, last.sequence, held])
    const total = totals.get(itemId) ?? [0, 0, 0]
    totals.set(itemId, [total[0] + onHand, total[1] + reserved, total[2] + unallocatable])
    const kinds = [...store.discrepancies.values()]
      .filter((row) => row.subject === stockId && row.status === "OPEN" && row.kind !== "EXPIRED_LOT_SOLD")
      .map(({ kind }) => kind)
      .sort()
    found.push(kinds, stock.discrepancy)
    const conditions = [
      ...(onHand < 0 ? ["NEGATIVE_STOCK"] : []),
      ...(reserved + unallocatable > Math.max(0, onHand) ? ["OVERCOMMITTED"] : [])
    ]
    expected.push(conditions, conditions.length > 0)
  }
  for (const item of store.items.values()) {
    found.push([item.onHand, item.reserved, item.unallocatable])
    expected.push(totals.get(item.itemId) ?? [0, 0, 0])
  }
  for (const reservation of store.reservations.values()) {
    found.push(reservation.status === "PENDING")
    expected.push(
      lines.some(({ open, reservationId }) => reservationId === reservation.reservationId && open > 0)
    )
  }
  for (const { data } of store.events.filter(({ type }) => type === "DiscrepancyOpened")) {
    found.push(store.discrepancies.has(keyOf(merchantId, String(data["discrepancyId"]))))
    expected.push(true)
  }
  same(found, expected, posting)
}

/** Follows the events of every item (CONTRACTS section 6). */
class Teller {
  readonly #sequences = new Map<string, number>()
  readonly #statuses = new Map<string, unknown>()

  listen({ books, events, ledgerRows, posting, verdict, worldAfter, worldBefore }: Decided): void {
    const told: Array<unknown> = [
      events
        .filter(({ topic }) => topic.startsWith("inventory.confirm"))
        .map(({ data, key, topic, type }) => [
          key,
          topic === type && type,
          data["reservationId"],
          data["reason"] ?? null
        ])
    ]
    const expected: Array<unknown> = [answersTo(posting, verdict)]
    for (const item of worldAfter.items) {
      const { id: itemId, threshold } = item
      const itemBefore = worldBefore.items.find(({ id }) => id === itemId)
      const ofItem = events.filter(({ key }) => key === itemId)
      const ofType = (type: string) => ofItem.filter((event) => event.type === type)
      const last = this.#sequences.get(itemId) ?? 0
      const inOrder = ofItem.filter(({ topic }) => topic === "inventory.events")
      told.push(inOrder.map(({ data }) => data["sequence"]))
      expected.push(inOrder.map((_, index) => last + 1 + index))
      this.#sequences.set(itemId, last + inOrder.length)

      const rows = ledgerRows.filter((row) => row.itemId === itemId)
      for (const type of ["InventoryAllocated", "InventoryReleased", "InventoryAdjusted"]) {
        const moved = rows.filter((row) => eventOf(row) === type).map((row) => row.stockId)
        told.push(
          ofType(type).map(({ data }) =>
            (data["movements"] as ReadonlyArray<Record<string, unknown>>).map(({ stockId }) => stockId)
          )
        )
        expected.push(moved.length === 0 ? [] : [moved])
      }

      const [before, after] = [
        sumsOf(worldBefore, itemBefore, posting.at),
        sumsOf(worldAfter, item, posting.at)
      ]
      told.push(
        ["inventory.out_of_stock", "inventory.low_stock", "StockLevelChanged"].map(
          (type) => ofType(type).length
        )
      )
      // What a location that closes takes out of sale is judged, as an expiry is, and told with the item's next change.
      const isTold = posting.command._tag !== "UpdateLocation"
      expected.push([
        Number(isTold && before.available > 0 && after.available === 0),
        Number(isTold && threshold > 0 && before.available > threshold && after.available <= threshold),
        Number(before.onHand !== after.onHand)
      ])

      // Each change of status begins where the last one ended, and the row says where that is.
      const row = books.items.indexes.byId.get(merchantId, itemId)
      const isNew = itemBefore === undefined
      const isOver = isNew && posting.command._tag === "EnsureItem" && posting.command.discontinued === true
      const known = this.#statuses.get(itemId) ?? (isOver ? "DISCONTINUED" : "AWAITING_INITIAL_STOCK")
      const changes = ofType("StockStatusChanged").map(({ data }) => [
        data["statusBefore"],
        data["statusAfter"]
      ])
      const status = changes[0] === undefined ? known : changes[0][1]
      told.push(changes, row?.status, row?.eventSequence)
      expected.push(status === known ? [] : [[known, status]], row && status, row && last + inOrder.length)
      this.#statuses.set(itemId, status)

      // Whatever changes an item or its stock brings its status up to date.
      const isChanged = rows.length > 0 || JSON.stringify(item) !== JSON.stringify(itemBefore)
      told.push(row?.status)
      expected.push(isChanged ? statusNow(item, after.available) : row?.status)
    }
    told.push(
      events.every(({ data }) => data["merchantId"] === merchantId),
      new Set(events.map(({ id }) => id)).size
    )
    expected.push(true, events.length)
    same(told, expected, posting)
  }
}

/** Every request to confirm is answered; an order that was created, when it cannot be had as it is. */
const answersTo = ({ command }: Posting, verdict: Verdict): ReadonlyArray<unknown> => {
  if (!("answer" in verdict)) return []
  if (command._tag === "ConfirmOrder") {
    const { confirmed, reason, reservationId } = verdict.answer as Answers["ConfirmOrder"]
    const type = confirmed ? "inventory.confirmed" : "inventory.confirmation_failed"
    return [[command.orderId, type, reservationId, reason]]
  }
  if (command._tag !== "ReceiveOrder") return []
  const { outcome, reason, reservationId } = verdict.answer as Answers["ReceiveOrder"]
  return outcome === "FAILED"
    ? [[command.orderId, "inventory.confirmation_failed", reservationId, reason]]
    : []
}

const eventOf = ({ type }: LedgerRow): string =>
  type === "ORDER_ALLOCATE"
    ? "InventoryAllocated"
    : type === "ORDER_RELEASE"
      ? "InventoryReleased"
      : "InventoryAdjusted"

const sumsOf = (world: World, item: Item | undefined, at: number) => ({
  available: item === undefined ? 0 : canSell(world, item, at),
  onHand: world.stocks.reduce((sum, stock) => sum + (stock.item === item?.id ? stock.onHand : 0), 0)
})

/** What the good stocks of an item have left, less what is missing in any: below zero, more is promised than there is. */
const leftOf = ({ stocks }: World, itemId: string, at: number): number =>
  stocks.reduce((left, { damaged, expiresAt, item, onHand, reserved }) => {
    const balance = onHand - reserved - damaged
    const isGood = balance < 0 || expiresAt === null || expiresAt > at
    return item === itemId && isGood ? left + balance : left
  }, 0)
