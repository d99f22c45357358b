import type { OutboxEvent } from "../../../src/schema/Event.ts"
import * as fc from "fast-check"
import type { CancelOrder } from "../../../src/services/kernel/commands/orders.ts"
import type { ChangeType } from "../../../src/schema/Movement.ts"
import type { Command, Posting } from "../../../src/services/kernel/commands.ts"
import type { ItemRef } from "../../../src/schema/Item.ts"
import type { UnitOfWork } from "../../../src/services/kernel/UnitOfWork.ts"
import type { LedgerRow } from "../../../src/services/kernel/tables/stock.ts"
import { MemoryStore, callerOf, epoch, postingId, decide, type Verdict } from "../../support/books.ts"
import { type Outcome, type World, emptyWorld, judge, stockName } from "./model.ts"

/** Random histories, and playing them: the kernel over tables in memory, the model beside it. */

/**
 * Item, quantity and, for one that names a stock, the how manieth of the item's stocks; for one that names a location, that
 * and perhaps a lot there.
 */
type WantedLine = readonly [
  item: number,
  quantity: number,
  stock: number | null,
  location?: number | null,
  lot?: number | null
]

/** What is asked, before it is known which ids it speaks of: those are looked up when its batch begins. */
export type Ask =
  | {
      readonly do: "reserve"
      readonly kind: "ORDER" | "VARIANT"
      readonly order: number
      readonly lines: ReadonlyArray<WantedLine>
      readonly seconds: number
      readonly location: number | null
    }
  | {
      readonly do: "amend"
      readonly order: number
      readonly lines: ReadonlyArray<WantedLine>
      readonly seconds: number | null
    }
  | { readonly do: "release"; readonly order: number; readonly line: readonly [number, number | null] | null }
  | {
      readonly do: "confirm"
      readonly order: number
      readonly which: number | null
      readonly part?: ReadonlyArray<readonly [item: number, quantity: number]> | null
    }
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
      /** Of a return. */
      readonly damaged?: boolean
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
  | {
      readonly do: "place"
      readonly location: number
      readonly order: number | null
      readonly retired: boolean | null
    }
  | { readonly do: "resolve"; readonly which: number }
  | {
      readonly do: "cancel"
      readonly order: number
      readonly reason: CancelOrder["reason"]
      readonly message?: number
    }
  | {
      readonly do: "paid"
      readonly order: number
      /** Item, quantity, location and the sale's own name of the line. */
      readonly lines: ReadonlyArray<readonly [number, number, number | null, number | null]>
      readonly overHttp?: boolean
    }
  | {
      readonly do: "ordered"
      readonly order: number
      readonly lines: ReadonlyArray<readonly [number, number]>
      readonly seconds: number
    }
  | { readonly do: "asked"; readonly order: number; readonly which: number | null }
  | {
      readonly do: "returned"
      readonly message: number
      readonly order: number | null
      readonly lines: ReadonlyArray<readonly [number, number]>
    }
  | {
      readonly do: "told"
      readonly item: number
      readonly initialStock: number | null
      readonly discontinued: boolean | null
      readonly sku: number | null
      readonly captured: boolean
    }
  | { readonly do: "deleted"; readonly item: number; readonly mustExist: boolean }

export interface Batch {
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
/** Messages name variants only. What is known by its sku alone is another item to them, which they create. */
const variantOf = (index: number): string => names[index]!.variant ?? "v9"
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
const opening: ReadonlyArray<Ask> = [
  { do: "item", item: 0, stocked: null, threshold: null, discontinued: null, renames: false },
  { do: "item", item: 1, stocked: null, threshold: 5, discontinued: null, renames: false },
  { do: "item", item: 2, stocked: false, threshold: null, discontinued: null, renames: false },
  { do: "item", item: 3, stocked: null, threshold: 2, discontinued: null, renames: false },
  { do: "location", location: 1, name: null }
]

export const sale = (quantity: number): Extract<Ask, { do: "adjust" }> => ({
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

const weighted = <A>(...choices: ReadonlyArray<readonly [weight: number, choice: A]>): fc.Arbitrary<A> =>
  fc.oneof(...choices.map(([weight, choice]) => ({ weight, arbitrary: fc.constant(choice) })))
/** Absent in so many of a hundred cases. */
const absent = <A>(percent: number, arbitrary: fc.Arbitrary<A>): fc.Arbitrary<A | null> =>
  fc.oneof({ weight: percent, arbitrary: fc.constant(null) }, { weight: 100 - percent, arbitrary })

const itemIndex = weighted([8, 0], [3, 1], [1, 2], [1, 3], [1, 4])
const orderIndex = weighted([7, 0], [2, 1], [1, 2])
const location = weighted([3, 0], [3, 1], [1, 2])
const few = fc.integer({ min: 1, max: 4 })
const seconds = fc.integer({ min: 1, max: 12 })

const orderLine = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(itemIndex, few, absent(85, fc.nat(3))) },
  {
    weight: 1,
    arbitrary: fc.tuple(itemIndex, few, fc.constant(null), location, absent(60, fc.nat(2)))
  }
)
const orderLines = fc.oneof(fc.tuple(orderLine), fc.array(orderLine, { minLength: 2, maxLength: 3 }))
const fewOrNone = fc.oneof({ weight: 9, arbitrary: few }, { weight: 1, arbitrary: fc.constant(0) })
const reserveAsk = fc.oneof(
  fc.record({
    do: fc.constant("reserve" as const),
    kind: fc.constant("ORDER" as const),
    order: orderIndex,
    // One line more often than not, so that the same is asked for again often enough.
    lines: orderLines,
    seconds,
    location: absent(80, location)
  }),
  fc.record({
    do: fc.constant("reserve" as const),
    kind: fc.constant("VARIANT" as const),
    order: orderIndex,
    lines: fc.tuple(fc.tuple(itemIndex, few, fc.constant(null))),
    seconds,
    location: fc.constant(null)
  })
)
const adjustAsk = (
  changeType: fc.Arbitrary<ChangeType>,
  quantity: fc.Arbitrary<number>,
  order: fc.Arbitrary<number | null>
) =>
  fc.record({
    do: fc.constant("adjust" as const),
    changeType,
    item: itemIndex,
    quantity,
    order,
    location: absent(60, location),
    lot: absent(50, weighted([4, 0], [4, 1], [4, 2], [1, 3])),
    reference: absent(75, fc.nat(1)),
    version: weighted([12, "any" as const], [2, "current" as const], [1, "stale" as const]),
    damaged: weighted([3, false], [1, true]),
    lateBy: weighted([3, 0], [1, 1], [1, 700], [1, 2_500])
  })
const receiptAsk = adjustAsk(fc.constant("RECEIPT"), fc.integer({ min: 1, max: 12 }), fc.constant(null))

/** Few names of lines, so that the same one is told again, as it was or otherwise. */
const paidAsk = (order: fc.Arbitrary<number>) =>
  fc.record({
    do: fc.constant("paid" as const),
    order,
    lines: fc.array(fc.tuple(itemIndex, fewOrNone, absent(60, location), absent(50, fc.nat(2))), {
      minLength: 1,
      maxLength: 3
    }),
    overHttp: weighted([3, false], [1, true])
  })

const part = absent(70, fc.array(fc.tuple(itemIndex, few), { minLength: 1, maxLength: 2 }))

const ask: fc.Arbitrary<Ask> = fc.oneof(
  { weight: 8, arbitrary: reserveAsk },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("release" as const),
      order: orderIndex,
      line: absent(40, fc.tuple(itemIndex, absent(30, few)))
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("confirm" as const),
      order: orderIndex,
      which: absent(60, weighted([3, 0], [2, 1], [1, 2])),
      part
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("amend" as const),
      order: orderIndex,
      lines: orderLines,
      seconds: absent(60, seconds)
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("extend" as const), order: orderIndex, seconds }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("expire" as const),
      order: orderIndex,
      which: weighted([4, 0], [2, 1], [1, 2])
    })
  },
  { weight: 2, arbitrary: receiptAsk },
  { weight: 3, arbitrary: adjustAsk(fc.constant("SALE"), few, absent(30, orderIndex)) },
  {
    weight: 4,
    arbitrary: adjustAsk(
      weighted<ChangeType>(
        [4, "RETURN"],
        [2, "DAMAGE"],
        [1, "QUARANTINE"],
        [2, "UNQUARANTINE"],
        [2, "WRITE_OFF"],
        [4, "CORRECTION"],
        [2, "RECEIPT"]
      ),
      few,
      absent(50, orderIndex)
    )
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("item" as const),
      item: fc.nat(names.length - 1),
      stocked: weighted([4, null], [1, true], [1, false]),
      threshold: fc.constantFrom(null, 0, 3),
      discontinued: weighted([4, null], [2, false], [1, true]),
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
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("place" as const),
      location: fc.nat(2),
      order: absent(50, fc.nat(3)),
      retired: weighted([2, null], [2, true], [3, false])
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resolve" as const), which: fc.nat(1) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("cancel" as const),
      order: weighted([1, 0], [6, 1], [6, 2]),
      reason: fc.constantFrom("CANCELLED", "FRAUDULENT", "PAYMENT_FAILED"),
      message: fc.nat(2)
    })
  },
  { weight: 5, arbitrary: paidAsk(orderIndex) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("ordered" as const),
      order: orderIndex,
      lines: fc.array(fc.tuple(itemIndex, few), { minLength: 1, maxLength: 3 }),
      seconds
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("asked" as const),
      order: orderIndex,
      which: absent(50, weighted([3, 0], [2, 1], [1, 2]))
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("returned" as const),
      message: fc.nat(3),
      order: absent(30, orderIndex),
      lines: fc.array(fc.tuple(itemIndex, fewOrNone), { minLength: 1, maxLength: 2 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("told" as const),
      item: fc.nat(names.length - 1),
      initialStock: absent(50, fc.nat(4)),
      discontinued: weighted([3, null], [1, true], [1, false]),
      sku: absent(50, fc.nat(2)),
      captured: fc.boolean()
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("deleted" as const),
      item: weighted([4, 0], [1, 1], [1, 2], [1, 3], [1, 4]),
      mustExist: fc.boolean()
    })
  }
)

const inAnyCase = <A extends Extract<Ask, { do: "adjust" }>>(receipt: A): A => ({
  ...receipt,
  version: "any"
})

/** Some stock first, then whatever is asked; longer than the reservations last. */
export const histories: fc.Arbitrary<ReadonlyArray<Batch>> = fc
  .tuple(
    fc.array(receiptAsk, { minLength: 1, maxLength: 4 }),
    fc.array(
      fc.record({
        advance: weighted([3, 0], [1, 1], [2, 900], [3, 3_000], [3, 7_000], [1, 16_000]),
        asks: fc.array(ask, { minLength: 1, maxLength: 5 })
      }),
      { minLength: 3, maxLength: 9, size: "max" }
    )
  )
  .map(([receipts, batches]) => [{ advance: 0, asks: receipts.map(inAnyCase) }, ...batches])

/** Enough for a few reservations at once, in a lot that soon expires and in one that does not. */
const smallStock: Batch = {
  advance: 0,
  asks: [
    { ...sale(4), changeType: "RECEIPT", order: null, lot: 0 },
    { ...sale(4), changeType: "RECEIPT", order: null, location: 1 }
  ]
}

/** What may become of the reservations of one order, mostly for one item. */
export const lives: fc.Arbitrary<ReadonlyArray<Batch>> = fc
  .array(
    fc.record({
      advance: weighted([3, 0], [2, 1_000], [2, 4_000], [2, 6_000]),
      asks: fc.array(
        fc.oneof(
          {
            weight: 6,
            arbitrary: fc.record({
              do: fc.constant("reserve" as const),
              kind: weighted([3, "ORDER" as const], [2, "VARIANT" as const]),
              order: fc.constant(0),
              lines: fc.tuple(
                fc.tuple(weighted([6, 0], [1, 2]), fc.integer({ min: 1, max: 3 }), fc.constant(null))
              ),
              seconds: fc.constantFrom(1, 5),
              location: fc.constant(null)
            })
          },
          {
            weight: 4,
            arbitrary: fc.record({
              do: fc.constant("confirm" as const),
              order: fc.constant(0),
              which: absent(50, fc.nat(3)),
              part: absent(60, fc.tuple(fc.tuple(fc.constant(0), few)))
            })
          },
          {
            weight: 4,
            arbitrary: fc.record({
              do: fc.constant("amend" as const),
              order: fc.constant(0),
              lines: fc.tuple(
                fc.tuple(
                  weighted([6, 0], [1, 2]),
                  fc.integer({ min: 1, max: 4 }),
                  fc.constant(null),
                  absent(60, weighted([1, 0], [1, 1]))
                )
              ),
              seconds: absent(60, fc.constantFrom(1, 5))
            })
          },
          {
            weight: 4,
            arbitrary: fc.record({
              do: fc.constant("expire" as const),
              order: fc.constant(0),
              which: fc.nat(2)
            })
          },
          {
            weight: 3,
            arbitrary: fc.record({
              do: fc.constant("release" as const),
              order: fc.constant(0),
              line: absent(50, fc.tuple(fc.constant(0), absent(30, few)))
            })
          },
          {
            weight: 1,
            arbitrary: fc.record({ do: fc.constant("extend" as const), order: fc.constant(0), seconds })
          },
          { weight: 3, arbitrary: paidAsk(fc.constant(0)) },
          {
            weight: 2,
            arbitrary: fc.record({
              do: fc.constant("asked" as const),
              order: fc.constant(0),
              which: absent(50, fc.nat(3))
            })
          },
          {
            weight: 1,
            arbitrary: fc.record({
              do: fc.constant("ordered" as const),
              order: fc.constant(0),
              lines: fc.tuple(fc.tuple(fc.constant(0), fc.integer({ min: 1, max: 3 }))),
              seconds
            })
          },
          {
            weight: 3,
            arbitrary: fc
              .tuple(
                weighted<ChangeType>([3, "SALE"], [1, "RETURN"], [1, "CORRECTION"]),
                few,
                absent(20, fc.constant(0))
              )
              .chain(([changeType, quantity, order]) =>
                absent(60, weighted([1, 0], [1, 1])).map((location): Ask => ({
                  ...sale(quantity),
                  changeType,
                  order,
                  location
                }))
              )
          }
        ),
        { minLength: 1, maxLength: 3 }
      )
    }),
    { minLength: 3, maxLength: 9, size: "max" }
  )
  .map((batches) => [smallStock, ...batches])

/** One order that wants one item, and whatever may be asked about it, in any order and as often as one likes. */
export const oneSale = (kind: "ORDER" | "VARIANT", quantity: number): fc.Arbitrary<ReadonlyArray<Batch>> => {
  const which = absent(50, fc.nat(3))
  const asked = fc.oneof(
    fc.constant<Ask>({
      do: "reserve",
      kind,
      order: 0,
      lines: [[0, quantity, null]],
      seconds: 5,
      location: null
    }),
    which.map((one): Ask => ({ do: "confirm", order: 0, which: one })),
    fc.constant<Ask>({ do: "release", order: 0, line: null }),
    which.map((one): Ask => ({ do: "expire", order: 0, which: one ?? 0 })),
    fc.constant<Ask>({ do: "extend", order: 0, seconds: 5 }),
    fc.constant<Ask>(sale(quantity)),
    fc.constantFrom<Ask>(
      { do: "paid", order: 0, lines: [[0, quantity, null, 0]] },
      { do: "paid", order: 0, lines: [[0, quantity, 1, 0]] },
      { do: "paid", order: 0, lines: [[0, quantity, 1, 0]], overHttp: true }
    ),
    fc.constant<Ask>({ do: "amend", order: 0, lines: [[0, quantity, null]], seconds: null }),
    which.map((one): Ask => ({ do: "confirm", order: 0, which: one, part: [[0, quantity]] })),
    fc.constant<Ask>({ ...sale(quantity), location: 1 }),
    which.map((one): Ask => ({ do: "asked", order: 0, which: one })),
    // Its reservation is the order's: a variant's reservation of the same order is another one.
    ...(kind === "ORDER"
      ? [fc.constant<Ask>({ do: "ordered", order: 0, lines: [[0, quantity]], seconds: 5 })]
      : []),
    fc.constantFrom<Ask>(
      { do: "cancel", order: 0, reason: "CANCELLED" },
      { do: "cancel", order: 0, reason: "PAYMENT_FAILED" }
    )
  )
  return fc.array(
    fc.record({
      advance: fc.constantFrom(0, 1_000, 4_000, 6_000),
      asks: fc.array(asked, { minLength: 1, maxLength: 4 })
    }),
    { minLength: 2, maxLength: 8 }
  )
}

/** How many of so many histories are played here: `npm run test:faults` plays them all, `npm test` a fifth of them. */
export const share = (all: number): number =>
  process.env["HISTORIES"] === "all" ? all : Math.max(historiesMin, all / 5)
const historiesMin = 100

export interface Decided {
  readonly books: UnitOfWork
  readonly posting: Posting
  readonly verdict: Verdict
  readonly expected: Outcome
  readonly worldBefore: World
  readonly worldAfter: World
  readonly ledgerRows: ReadonlyArray<LedgerRow>
  readonly events: ReadonlyArray<OutboxEvent>
  /** Only told where Idempotency-Keys are given. */
  readonly changedSomething: boolean
}
export interface Watch {
  readonly onDeciding?: (moment: { readonly books: UnitOfWork; readonly posting: Posting }) => void
  readonly onDecided?: (decided: Decided) => void
  readonly onCommitted?: (moment: {
    readonly store: MemoryStore
    readonly world: World
    readonly postings: ReadonlyArray<Posting>
    readonly verdicts: ReadonlyArray<Verdict>
  }) => void
}

/** What every history begins with, played once: it is the same for all of them. */
const opened = (): { readonly store: MemoryStore; readonly world: World } => {
  beginning ??= opening.reduce(
    ({ store, world }, asked, index) => {
      const id = postingId(epoch, index + 1)
      const command = commandOf(asked, { postings: [], world })
      const posting = { id, at: epoch, caller: callerOf(epoch), command }
      const books = store.open([posting], epoch)
      decide(books, posting)
      store.commit(books)
      return { store, world: judge(world, posting).world }
    },
    { store: new MemoryStore(), world: emptyWorld() }
  )
  return { store: beginning.store.copy(), world: beginning.world }
}
let beginning: { readonly store: MemoryStore; readonly world: World } | undefined

/** Plays a history over a fresh store, batch by batch, the model beside it. */
export const play = (
  script: ReadonlyArray<Batch>,
  watch: Watch,
  idempotencyOf?: (n: number) => { readonly key: string; readonly fingerprint: string }
): void => {
  const { store, world: firstWorld } = opened()
  let world = firstWorld
  let now = epoch
  let count = opening.length
  for (const { advance, asks } of script) {
    now += advance
    const postings: Array<Posting> = []
    for (const one of asks) {
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
      const before = idempotencyOf && weightOf(books)
      const { events } = books
      const ledger = () => [...books.ledger.inserted]
      const [eventCount, ledgerCount] = [events.length, ledger().length]
      const verdict = withoutTraces(() => decide(books, posting))
      verdicts.push(verdict)
      const replayed = "answer" in verdict && verdict.replayed
      const reused = "refusal" in verdict && verdict.refusal._tag === "IdempotencyKeyReused"
      const worldBefore = world
      let outcome: Outcome
      if (replayed || reused) outcome = { told: {} }
      else ({ outcome, world } = judge(world, posting))
      watch.onDecided?.({
        books,
        posting,
        verdict,
        expected: outcome,
        worldBefore,
        worldAfter: world,
        ledgerRows: ledger().slice(ledgerCount),
        events: events.slice(eventCount),
        changedSomething: idempotencyOf !== undefined && weightOf(books) !== before
      })
    }
    store.commit(books)
    world = withIds(world, store)
    watch.onCommitted?.({ store, world, postings, verdicts })
  }
}

/** A refusal is an Error: its stack trace costs more than deciding it. */
const withoutTraces = <A>(run: () => A): A => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return run()
  } finally {
    Error.stackTraceLimit = limit
  }
}

const weightOf = (unit: UnitOfWork): number =>
  [...unit.all].reduce(
    (sum, { changed, inserted, removed }) => sum + changed.size + inserted.size + removed.size,
    unit.events.length
  )

/** Ids that the kernel has given away are learnt from the store, once committed. */
const withIds = (world: World, store: MemoryStore): World => {
  for (const stock of world.stocks) {
    stock.id ??=
      [...store.stocks.values()].find(
        (row) => row.itemId === stock.item && row.locationId === stock.location && row.lotNumber === stock.lot
      )?.stockId ?? null
  }
  for (const flag of world.flags) {
    if (flag.id !== null || !flag.open) continue
    const subject = world.stocks.find((stock) => stockName(stock) === flag.subject)?.id ?? flag.subject
    flag.id =
      [...store.discrepancies.values()].find(
        (row) => row.kind === flag.kind && row.subject === subject && row.status === "OPEN"
      )?.discrepancyId ?? null
  }
  return world
}

const commandOf = (
  asked: Ask,
  known: { readonly postings: ReadonlyArray<Posting>; readonly world: World }
): Command => {
  const { postings, world } = known
  const itemId = (index: number): string | undefined => {
    const { sku, variant } = names[index]!
    return world.items.find((item) => (variant === undefined ? item.sku === sku : item.variant === variant))
      ?.id
  }
  const isReserved = (orderId: string): boolean =>
    world.documents.some(({ order }) => order === orderId) ||
    postings.some(({ command }) => command._tag === "ReserveStock" && command.orderId === orderId)
  // Mostly about an order that there is something to say about; the last one may be asked for in vain.
  const orderOf = (index: number): string =>
    (index < 2 && !isReserved(orders[index]!) ? orders.find(isReserved) : undefined) ?? orders[index]!
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
  const linesOf = (lines: ReadonlyArray<WantedLine>) =>
    lines.map(([item, amount, which, location, lot], index) => ({
      item: itemRef(item, index % 2 === 1),
      quantity: amount,
      stockId:
        which === null
          ? undefined
          : (world.stocks.filter((stock) => stock.item === itemId(item))[which]?.id ?? postingId(epoch, 0)),
      locationId: location === null || location === undefined ? undefined : locations[location],
      lotNumber: lot === null || lot === undefined ? undefined : lots[lot]!.lotNumber
    }))
  switch (asked.do) {
    case "amend":
      return {
        _tag: "AmendReservation",
        orderId: orderOf(asked.order),
        lines: linesOf(asked.lines),
        expiresInSeconds: asked.seconds ?? undefined
      }
    case "reserve":
      return {
        _tag: "ReserveStock",
        orderId: orders[asked.order]!,
        kind: asked.kind,
        lines: linesOf(asked.lines),
        expiresInSeconds: asked.seconds,
        locationId: asked.location === null ? undefined : locations[asked.location]
      }
    case "release":
      return {
        _tag: "ReleaseReservation",
        orderId: orderOf(asked.order),
        reason: "RELEASED",
        ...(asked.line === null
          ? {}
          : { line: { item: itemRef(asked.line[0]), quantity: asked.line[1] ?? undefined } })
      }
    case "confirm": {
      const orderId = orderOf(asked.order)
      return {
        _tag: "ConfirmReservation",
        orderId,
        ...(asked.part === null || asked.part === undefined
          ? {}
          : { lines: asked.part.map(([item, amount]) => ({ item: itemRef(item), quantity: amount })) }),
        ...(asked.which === null ? {} : { reservationId: reservationId(orderId, asked.which) })
      }
    }
    case "extend":
      return { _tag: "ExtendReservation", orderId: orderOf(asked.order), expiresInSeconds: asked.seconds }
    case "expire": {
      const orderId = orderOf(asked.order)
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
        lotExpiresAt: lotExpiryOf(asked, lotExpiresAt),
        condition: asked.changeType === "RETURN" && asked.damaged === true ? "DAMAGED" : undefined,
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
    case "cancel":
      return {
        _tag: "CancelOrder",
        orderId: orders[asked.order]!,
        reason: asked.reason,
        messageId:
          asked.reason !== "PAYMENT_FAILED" || asked.message === undefined
            ? undefined
            : `message ${asked.message}`
      }
    case "paid":
      return {
        _tag: asked.overHttp === true ? "ReportSale" : "RecordSale",
        orderId: orders[asked.order]!,
        lines: asked.lines.map(([item, amount, location, name]) => ({
          productVariantId: variantOf(item),
          quantity: amount,
          locationId: location === null ? undefined : locations[location],
          saleOrderItemId: name === null ? undefined : `line ${name}`
        }))
      }
    case "ordered":
      return {
        _tag: "ReceiveOrder",
        orderId: orders[asked.order]!,
        lines: asked.lines.map(([item, amount]) => ({ productVariantId: variantOf(item), quantity: amount })),
        expiresInSeconds: asked.seconds
      }
    case "asked": {
      const orderId = orderOf(asked.order)
      return {
        _tag: "ConfirmOrder",
        orderId,
        ...(asked.which === null ? {} : { reservationId: reservationId(orderId, asked.which) })
      }
    }
    case "returned":
      return {
        _tag: "ReturnGoods",
        messageId: `message ${asked.message}`,
        orderId: asked.order === null ? undefined : orders[asked.order],
        lines: asked.lines.map(([item, amount]) => ({ productVariantId: variantOf(item), quantity: amount }))
      }
    case "told":
      return {
        _tag: "EnsureItem",
        kind: "PRODUCT",
        productVariantId: variantOf(asked.item),
        sku: asked.sku === null ? undefined : `s${asked.sku}`,
        initialStock: asked.initialStock ?? undefined,
        discontinued: asked.discontinued ?? undefined,
        keepsDeletion: true,
        capturedRow: asked.captured ? variantOf(asked.item) : undefined
      }
    case "deleted":
      return { _tag: "DeleteItem", productVariantId: variantOf(asked.item), mustExist: asked.mustExist }
    case "place":
      return {
        _tag: "UpdateLocation",
        locationId: locations[asked.location]!,
        order: asked.order ?? undefined,
        retired: asked.retired ?? undefined
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

/** What comes in brings its lot's expiry along; some counts correct it, or say that there is none. */
const lotExpiryOf = (
  { changeType, damaged, lot }: Extract<Ask, { do: "adjust" }>,
  lotExpiresAt: number | undefined
): number | null | undefined => {
  if (changeType === "RECEIPT") return lotExpiresAt
  return changeType === "CORRECTION" && damaged === true && lot !== null ? (lotExpiresAt ?? null) : undefined
}

export const describePosting = ({ at, command, id }: Posting): string =>
  `${JSON.stringify(command)} as ${id} at +${at - epoch} ms`
