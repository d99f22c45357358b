import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import type { CancelOrder } from "../../../src/services/kernel/commands/orders.ts"
import type { SaleLine } from "../../../src/services/kernel/commands/sales.ts"
import { Audit } from "../../../src/services/books/Audit.ts"
import type { Db } from "../../../src/services/Db.ts"
import { assertInvariants } from "../../support/invariants.ts"
import {
  type Sql,
  caller,
  connect,
  dawn,
  inOneBatch,
  ledger,
  lockItem,
  replica,
  shopOf,
  untilWaiting
} from "../../support/ledger.ts"

// Goal: what messages of orders and the catalogue do (CONTRACTS section 5) holds over a real PostgreSQL: in any order
// among the topics, told twice, told at once to two replicas. What each does alone is in decide/orders.test.ts.

type Shop = ReturnType<typeof shopOf>

/** Messages as operations of one replica, in one line each. */
const desk = ({ catalog, orders }: Shop) => ({
  paid: Effect.fnUntraced(function* (orderId: string, lines: ReadonlyArray<SaleLine>) {
    return (yield* orders.recordSale(yield* caller(), { orderId, lines })).answer
  }),
  created: Effect.fnUntraced(function* (orderId: string, productVariantId: string, quantity: number) {
    const lines = [{ productVariantId, quantity }]
    return (yield* orders.receive(yield* caller(), { orderId, lines, expiresInSeconds: 1800 })).answer
  }),
  asked: Effect.fnUntraced(function* (orderId: string, reservationId?: string) {
    return (yield* orders.confirm(yield* caller(), { orderId, reservationId })).answer
  }),
  ended: Effect.fnUntraced(function* (orderId: string, reason: CancelOrder["reason"] = "CANCELLED") {
    return (yield* orders.cancel(yield* caller(), { orderId, reason })).answer
  }),
  returned: Effect.fnUntraced(function* (
    messageId: string,
    orderId: string | undefined,
    productVariantId: string,
    quantity: number
  ) {
    const lines = [{ productVariantId, quantity }]
    return (yield* orders.takeBack(yield* caller(), { messageId, orderId, lines })).answer
  }),
  variant: Effect.fnUntraced(function* (
    productVariantId: string,
    given: Omit<Partial<Parameters<Shop["catalog"]["ensureItem"]>[1]>, "productVariantId"> = {}
  ) {
    const command = { kind: "PRODUCT" as const, productVariantId, keepsDeletion: true, ...given }
    return (yield* catalog.ensureItem(yield* caller(), command)).answer
  }),
  deleted: Effect.fnUntraced(function* (productVariantId: string) {
    return (yield* catalog.deleteItem(yield* caller(), { productVariantId })).answer
  })
})

/** Two replicas on one database. */
const replicas = Effect.gen(function* () {
  const shop = yield* ledger
  const other = shopOf(yield* replica(shop.url))
  return { ...shop, other, ...desk(shop), desks: [desk(shop), desk(other)] as const }
})

const itemsOf = (sql: Sql) =>
  sql.run<{ name: string; on_hand: number; reserved: number; status: string; deleted: boolean }>(
    `SELECT product_variant_id AS name, on_hand, reserved, status, deleted_at IS NOT NULL AS deleted
     FROM item ORDER BY product_variant_id`
  )
const openOf = (sql: Sql) =>
  Effect.map(
    sql.run<{ kind: string; order_id: string | null }>(
      "SELECT kind, order_id FROM discrepancy WHERE status = 'OPEN' ORDER BY kind, order_id"
    ),
    (rows) => rows.map(({ kind, order_id }) => (order_id === null ? kind : `${kind} ${order_id}`))
  )
/** The events of one key, in the order in which they are published. */
const eventsOf = (sql: Sql, key: string) =>
  sql.run<{ type: string; id: string; topic: string; reason: string | null; order: string }>(
    `SELECT e.event ->> 'type' AS type, e.event ->> 'id' AS id, e.event ->> 'topic' AS topic,
            e.event -> 'data' ->> 'reason' AS reason, e.event -> 'data' ->> 'orderId' AS order
     FROM outbox o CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) WITH ORDINALITY AS e (event, ordinal)
     WHERE e.event ->> 'key' = $1
     ORDER BY o.position, e.ordinal`,
    [key]
  )
/** Another order for each seed, and the same one in each run. */
const shuffled = <A>(seed: string, all: ReadonlyArray<A>): Effect.Effect<ReadonlyArray<A>> =>
  Effect.gen(function* () {
    const left = [...all]
    const taken: Array<A> = []
    while (left.length > 0) taken.push(...left.splice(yield* Random.nextIntBetween(0, left.length - 1), 1))
    return taken
  }).pipe(Random.withSeed(seed))

/** What `holdfast audit` says of the books, once nothing is on its way any more. */
const assertAudited = Effect.fnUntraced(function* (context: Context.Context<Db>) {
  yield* TestClock.adjust("1 minute")
  const audit = Context.get(
    yield* Layer.build(Audit.layer.pipe(Layer.provide(Layer.succeedContext(context)))),
    Audit
  )
  const found: Array<unknown> = []
  yield* audit.examine({ tell: (finding) => Effect.sync(() => void found.push(finding)) })
  assert.deepStrictEqual(found, [])
})

const inTurn = <E, R>(all: ReadonlyArray<Effect.Effect<unknown, E, R>>) =>
  Effect.forEach(all, (one) => one, { discard: true })

describe("the topics of one order", () => {
  it.effect(
    "end the same, whatever their order and however often each is told",
    () =>
      Effect.gen(function* () {
        const { asked, context, created, ended, paid, returned, sql, url, variant } = yield* replicas
        const histories = 150
        yield* Effect.forEach(
          Array.from({ length: histories }, (_, index) => index),
          Effect.fnUntraced(function* (index) {
            const [order, cup] = [`order-${index}`, `cup-${index}`]
            const told = [
              variant(cup, { initialStock: 10 }),
              created(order, cup, 3),
              asked(order),
              paid(order, [{ saleOrderItemId: "line", productVariantId: cup, quantity: 3 }]),
              ended(order),
              returned(`message-${index}`, order, cup, 1)
            ]
            yield* inTurn(yield* shuffled(cup, [...told, ...told]))
          }),
          { concurrency: 16, discard: true }
        )
        // Three sold by whichever came first, one back; nothing held, since the order is over.
        const items = yield* itemsOf(sql)
        assert.lengthOf(items, histories)
        for (const { name, on_hand, reserved, status } of items) {
          assert.deepStrictEqual([on_hand, reserved, status], [8, 0, "IN_STOCK"], name)
        }
        const open = yield* openOf(sql)
        assert.lengthOf(
          open.filter((one) => one.startsWith("CANCELLED_AFTER_SALE")),
          histories
        )
        // A return that was told before its sale is no discrepancy once the sale is told.
        assert.lengthOf(open, histories)
        // Every request had its answer, the repeated one too.
        const answers = yield* sql.run<{ count: number }>(
          `SELECT count(*) AS count
           FROM outbox o CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
           WHERE e.event ->> 'topic' IN ('inventory.confirmed', 'inventory.confirmation_failed')
           GROUP BY e.event ->> 'key'`
        )
        assert.isTrue(answers.length === histories && answers.every(({ count }) => count >= 2))
        yield* assertInvariants(url)
        yield* assertAudited(context)
      }),
    60_000
  )

  it.effect(
    "sell once when everything that sells or ends an order is told to two replicas at once",
    () =>
      Effect.gen(function* () {
        const { desks, item, other, receive, reservations, reserve, sql, url } = yield* replicas
        yield* item("cup")
        yield* receive("cup", 10_000)
        const orders = Array.from({ length: 120 }, (_, index) => `order-${index}`)
        yield* Effect.forEach(orders, (order) => reserve(order, [["cup", 3]], { expiresInSeconds: 60 }), {
          concurrency: "unbounded"
        })
        yield* TestClock.adjust("61 seconds")
        const line = { saleOrderItemId: "line", productVariantId: "cup", quantity: 3 }
        const told = orders.flatMap((order, index) => [
          ...desks.flatMap((one) => [
            Effect.ignore(one.paid(order, [line])),
            Effect.ignore(one.asked(order)),
            ...(index % 3 === 0 ? [Effect.ignore(one.ended(order))] : [])
          ]),
          Effect.ignore(other.release(order)),
          Effect.ignore(other.confirm(order)),
          Effect.ignore(
            other.adjust({ changeType: "SALE", item: { variantId: "cup" }, quantity: 3, orderId: order })
          )
        ])
        const sweeps = [reservations.expireDue, other.reservations.expireDue]
        yield* Effect.all(yield* shuffled("at once", [...told, ...sweeps, ...sweeps]), {
          concurrency: "unbounded"
        })
        assert.deepInclude((yield* itemsOf(sql))[0], { on_hand: 10_000 - 3 * orders.length, reserved: 0 })
        const sold = yield* sql.run(
          `SELECT r.order_id, sum(l.sold) AS sold FROM reservation r
           JOIN reservation_line l USING (merchant_id, reservation_id)
           GROUP BY r.order_id HAVING sum(l.sold) <> 3 OR sum(l.paid) <> 3`
        )
        assert.deepStrictEqual(sold, [])
        yield* assertInvariants(url)
      }),
    60_000
  )

  it.effect("tell of each discrepancy once, however often its cause is told", () =>
    Effect.gen(function* () {
      const { ended, paid, receive, returned, sql, url, variant } = yield* replicas
      yield* variant("cup")
      yield* receive("cup", 9, { lotNumber: "A", lotExpiresAt: dawn + 1_000 })
      yield* TestClock.adjust("2 seconds")
      yield* ended("order")
      const told = [
        paid("order", [{ saleOrderItemId: "a", productVariantId: "cup", quantity: 1 }]),
        paid("order", [{ saleOrderItemId: "a", productVariantId: "cup", quantity: 2 }]),
        paid("order", [{ saleOrderItemId: "b", productVariantId: "cup", quantity: 1 }]),
        returned("one", "other", "cup", 1),
        returned("two", "other", "cup", 1)
      ]
      yield* inTurn([...told, ...told])
      assert.deepStrictEqual(yield* openOf(sql), [
        "CANCELLED_AFTER_SALE order",
        "EXPIRED_LOT_SOLD order",
        "RETURN_EXCEEDS_SALE other",
        "SALE_LINE_CHANGED order"
      ])
      yield* assertInvariants(url)
    })
  )

  it.effect("are one effect of a payment that is told to two replicas at once", () =>
    Effect.gen(function* () {
      const { desks, item, receive, sql, url } = yield* replicas
      yield* item("cup")
      yield* receive("cup", 100)
      const answers = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) => desks[index % 2]!.paid("order", [{ productVariantId: "cup", quantity: 7 }]),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(answers.filter(({ applied }) => applied === 1).length, 1)
      assert.strictEqual(answers.filter(({ repeated }) => repeated === 1).length, 39)
      assert.deepInclude((yield* itemsOf(sql))[0], { on_hand: 93 })
      yield* assertInvariants(url)
    })
  )

  it.effect("are answered in the order in which they were decided, also by two replicas", () =>
    Effect.gen(function* () {
      const { desks, item, receive, reserve, sql, url } = yield* replicas
      const [here, there] = desks
      yield* item("cup")
      yield* receive("cup", 9)
      yield* reserve("order", [["cup", 1]])
      const lock = yield* lockItem(url, "cup")
      // The first holds the order's lock while it waits for the item; the second waits for the order.
      const first = yield* Effect.forkChild(here.asked("order"), { startImmediately: true })
      yield* untilWaiting(sql, 1)
      const second = yield* Effect.forkChild(there.ended("order"), { startImmediately: true })
      yield* untilWaiting(sql, 2)
      const third = yield* Effect.forkChild(here.asked("order", "nobody's"), { startImmediately: true })
      yield* lock.release
      for (const fiber of [first, second, third]) yield* Fiber.join(fiber as Fiber.Fiber<unknown, never>)
      const events = yield* eventsOf(sql, "order")
      assert.deepStrictEqual(
        events.map(({ order, topic, type }) => [topic, type, order]),
        [
          ["inventory.confirmed", "inventory.confirmed", "order"],
          ["inventory.confirmation_failed", "inventory.confirmation_failed", "order"]
        ]
      )
      assert.deepStrictEqual(yield* openOf(sql), ["CANCELLED_AFTER_SALE order"])
    })
  )
})

describe("what messages are the first to name", () => {
  it.effect(
    "is created once by all who name it at once: merchants, locations, items",
    () =>
      Effect.gen(function* () {
        const { desks, other, orders, sql, url } = yield* replicas
        const rounds = Array.from({ length: 40 }, (_, index) => index)
        yield* Effect.forEach(
          rounds,
          Effect.fnUntraced(function* (round) {
            const change = { merchantId: `merchant-${round % 5}` }
            const line = { productVariantId: `cup-${round % 8}`, quantity: 1, locationId: `bar-${round % 3}` }
            const own = yield* caller(change)
            yield* Effect.all(
              [
                orders.recordSale(own, { orderId: `a-${round}`, lines: [line] }),
                other.orders.recordSale(own, { orderId: `b-${round}`, lines: [line] }),
                other.catalog.ensureItem(own, { kind: "PRODUCT", productVariantId: line.productVariantId }),
                orders.takeBack(own, { messageId: `c-${round}`, lines: [line] }),
                other.catalog.ensureMerchant(own),
                other.catalog.ensureLocation(own, { locationId: line.locationId }),
                desks[0].paid(`d-${round}`, [line]),
                desks[1].created(`e-${round}`, line.productVariantId, 1)
              ],
              { concurrency: "unbounded", discard: true }
            )
          }),
          { concurrency: "unbounded", discard: true }
        )
        const [counts] = yield* sql.run(
          `SELECT (SELECT count(*) FROM merchant) AS merchants, (SELECT count(*) FROM item) AS items,
                  (SELECT count(*) FROM location WHERE NOT is_default) AS locations,
                  (SELECT sum(on_hand) FROM stock)::bigint AS on_hand`
        )
        // Forty rounds over 5 merchants meet each of their 8 items and 3 locations; one merchant more is that of `desks`.
        assert.deepStrictEqual(counts, { merchants: 6, items: 40 + 8, locations: 15 + 3, on_hand: -80 })
        yield* assertInvariants(url)
      }),
    60_000
  )

  it.effect("is found by those who come after it in the same batch", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const { deleted, paid, variant } = desk(shop)
      const line = { productVariantId: "new", quantity: 2, locationId: "bar" }
      const results = yield* inOneBatch(shop, [
        Effect.asVoid(paid("one", [line])),
        Effect.asVoid(paid("two", [line])),
        Effect.asVoid(variant("new", { sku: "s", initialStock: 5 })),
        Effect.asVoid(deleted("gone")),
        Effect.asVoid(variant("gone", { sku: "t" })),
        Effect.asVoid(paid("three", [{ productVariantId: "new", quantity: 1 }]))
      ])
      assert.isTrue(results.every(({ _tag }) => _tag === "Success"))
      assert.deepStrictEqual((yield* itemsOf(shop.sql)).slice(0, 2), [
        { name: "gone", on_hand: 0, reserved: 0, status: "AWAITING_INITIAL_STOCK", deleted: true },
        // What is missing at the bar is not for sale elsewhere.
        { name: "new", on_hand: 0, reserved: 0, status: "OUT_OF_STOCK", deleted: false }
      ])
      assert.deepStrictEqual(yield* openOf(shop.sql), ["NEGATIVE_STOCK"])
      yield* assertInvariants(shop.url)
    })
  )
})

describe("the topics of one product variant", () => {
  it.effect(
    "end the same, whatever their order and however often each is told",
    () =>
      Effect.gen(function* () {
        const { context, deleted, paid, returned, sql, url, variant } = yield* replicas
        const histories = 120
        yield* Effect.forEach(
          Array.from({ length: histories }, (_, index) => index),
          Effect.fnUntraced(function* (index) {
            const [cup, glass] = [`cup-${index}`, `glass-${index}`]
            const told = [
              variant(cup, { initialStock: 4, sku: `sku-${cup}` }),
              deleted(cup),
              paid(`order-${index}`, [{ productVariantId: cup, quantity: 3 }]),
              returned(`message-${index}`, undefined, cup, 1),
              variant(glass, { sku: `sku-${glass}` }),
              deleted(glass)
            ]
            yield* inTurn(yield* shuffled(cup, [...told, ...told]))
          }),
          { concurrency: 16, discard: true }
        )
        for (const { deleted: isDeleted, name, on_hand, status } of yield* itemsOf(sql)) {
          if (name.startsWith("cup")) {
            assert.deepStrictEqual([on_hand, status, isDeleted], [2, "DISCONTINUED", false], name)
          } else assert.deepStrictEqual([on_hand, isDeleted], [0, true], name)
        }
        assert.deepStrictEqual(
          yield* openOf(sql),
          Array.from({ length: histories }, () => "DISCONTINUED_WITH_STOCK")
        )
        yield* assertInvariants(url)
        yield* assertAudited(context)
      }),
    60_000
  )

  it.effect("closes its discrepancy when the stock is gone, which nobody can do by hand", () =>
    Effect.gen(function* () {
      const { discrepancies, paid, sql, url, variant } = yield* replicas
      yield* variant("cup", { initialStock: 2 })
      yield* variant("cup", { discontinued: true })
      const [row] = yield* sql.run<{ discrepancy_id: string }>("SELECT discrepancy_id FROM discrepancy")
      const refusal = yield* Effect.flip(
        discrepancies.resolve(yield* caller(), { discrepancyId: row!.discrepancy_id, reason: "seen" })
      )
      assert.strictEqual(refusal._tag, "DiscrepancyPersists")
      yield* paid("order", [{ productVariantId: "cup", quantity: 2 }])
      assert.deepStrictEqual(yield* openOf(sql), [])
      yield* assertInvariants(url)
    })
  )

  it.effect("passes the sku of one that is deleted to another, in one batch and across batches", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const { deleted, variant } = desk(shop)
      const nameOf = (sku: string) =>
        Effect.map(
          shop.sql.run<{ name: string }>("SELECT product_variant_id AS name FROM item WHERE sku = $1", [sku]),
          ([row]) => row?.name
        )
      yield* variant("a", { sku: "s" })
      yield* variant("b")
      yield* deleted("a")
      yield* variant("b", { sku: "s" })
      assert.strictEqual(yield* nameOf("s"), "b")
      yield* variant("c")
      const results = yield* inOneBatch(shop, [
        Effect.asVoid(deleted("b")),
        Effect.asVoid(variant("c", { sku: "s" })),
        Effect.asVoid(variant("d", { sku: "u" })),
        Effect.asVoid(variant("d", { sku: "v" })),
        Effect.asVoid(variant("e", { sku: "u" }))
      ])
      assert.isTrue(results.every(({ _tag }) => _tag === "Success"))
      assert.deepStrictEqual([yield* nameOf("s"), yield* nameOf("u"), yield* nameOf("v")], ["c", "e", "d"])
    })
  )

  it.effect("is brought back over HTTP after it was deleted, and is then told of again", () =>
    Effect.gen(function* () {
      const { deleted, item, sql, variant } = yield* replicas
      yield* variant("cup", { initialStock: 2 })
      yield* deleted("cup")
      yield* item("cup")
      yield* variant("cup", { discontinued: true })
      yield* variant("cup", { discontinued: false })
      assert.deepInclude((yield* itemsOf(sql))[0], { status: "IN_STOCK", deleted: false })
    })
  )
})

const told = Effect.fnUntraced(function* (
  shop: Shop,
  record: Parameters<Shop["catalog"]["applyRowChange"]>[1]
) {
  const { merchantId: _, ...origin } = yield* caller()
  return yield* shop.catalog.applyRowChange(origin, record)
})
const ofMerchants = (sql: Sql) =>
  Effect.map(
    sql.run<{ merchant_id: string; sku: string | null; status: string; deleted: boolean }>(
      "SELECT merchant_id, sku, status, deleted_at IS NOT NULL AS deleted FROM item ORDER BY merchant_id"
    ),
    (rows) => rows.map(({ deleted, merchant_id, sku, status }) => [merchant_id, sku, status, deleted])
  )
const written = (
  merchantId: string,
  given: { readonly sku?: string; readonly discontinued?: boolean } = {}
) => ({ _tag: "Written", rowId: "7", merchantId, ...given }) as const
const gone = { _tag: "Deleted", rowId: "7" } as const

describe("a captured row", () => {
  it.effect("is an item of its merchant, whose delete needs nothing but the key", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      assert.strictEqual(yield* told(shop, gone), "UNKNOWN")
      assert.strictEqual(yield* told(shop, written("one", { sku: "s" })), "ENSURED")
      assert.strictEqual(yield* told(shop, written("one", { discontinued: true })), "ENSURED")
      assert.deepStrictEqual(yield* ofMerchants(shop.sql), [["one", "s", "DISCONTINUED", false]])
      assert.strictEqual(yield* told(shop, gone), "DELETED")
      assert.strictEqual(yield* told(shop, gone), "DELETED")
      assert.deepStrictEqual(yield* ofMerchants(shop.sql), [["one", "s", "DISCONTINUED", true]])
    })
  )

  it.effect("that changes hands is deleted where it was, and comes back when it does", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      for (const merchantId of ["one", "two", "one"]) yield* told(shop, written(merchantId))
      assert.deepStrictEqual(yield* ofMerchants(shop.sql), [
        ["one", null, "AWAITING_INITIAL_STOCK", false],
        ["two", null, "AWAITING_INITIAL_STOCK", true]
      ])
    })
  )

  it.effect("told again from the beginning ends where it ended", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const records = [written("one", { sku: "s" }), written("one", { discontinued: true }), gone]
      for (const record of [...records, ...records]) yield* told(shop, record)
      assert.deepStrictEqual(yield* ofMerchants(shop.sql), [["one", "s", "DISCONTINUED", true]])
    })
  )
})

describe("an event of an order", () => {
  it.effect("is the answer of its merchant's request, with what is short", () =>
    Effect.gen(function* () {
      const { created, item, receive, sql, url } = yield* replicas
      const reader = yield* connect(url)
      yield* item("cup")
      yield* receive("cup", 1)
      yield* created("order", "cup", 3)
      const [event] = yield* reader.run<{ data: unknown }>(
        `SELECT e.event -> 'data' AS data
         FROM outbox o CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
         WHERE e.event ->> 'topic' = 'inventory.confirmation_failed'`
      )
      assert.deepStrictEqual(event!.data, {
        merchantId: "acme",
        orderId: "order",
        reservationId: null,
        reason: "INSUFFICIENT_INVENTORY",
        items: [{ productVariantId: "cup", requested: 3, available: 1 }]
      })
      assert.lengthOf(yield* eventsOf(sql, "order"), 1)
    })
  )
})
