import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Logger } from "effect"
import * as Postgres from "../../../src/layers/Postgres.ts"
import * as MemoryBroker from "../../support/MemoryBroker.ts"
import { Broker } from "../../../src/services/messaging/Broker.ts"
import { Orders } from "../../../src/services/orders/Orders.ts"
import { Outbox } from "../../../src/services/messaging/Outbox.ts"
import { bucketOf } from "../../../src/services/OutboxBuckets.ts"
import { caller, connect, services, shopOf, until } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"

/** The dispatcher over a real PostgreSQL and a broker in memory that refuses what the test wants refused. */

const dispatching = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const context = yield* Layer.build(
    Layer.provideMerge(Outbox.layer, services).pipe(
      Layer.provideMerge(Postgres.layer({ url, idleInTransactionMs: 10_000 })),
      Layer.provideMerge(MemoryBroker.layer())
    )
  )
  return { context, url }
})

describe("an event that the broker refuses", () => {
  it.live("holds back its own merchant's order, and not another's of the same name", () =>
    Effect.gen(function* () {
      const { context } = yield* dispatching
      const orders = Context.get(context, Orders)
      const outbox = Context.get(context, Outbox)
      const broker = Context.get(context, Broker)
      yield* Context.get(context, MemoryBroker.MemoryCluster).refuse(
        ({ headers }) => headers?.["x-merchant-id"] === "one"
      )
      const asked = Effect.fnUntraced(function* (merchantId: string) {
        yield* orders.confirm(yield* caller({ merchantId }), { orderId: "order" })
      })
      yield* Effect.forkScoped(outbox.dispatch)
      yield* asked("one")
      yield* until(Effect.map(outbox.held, (held) => held.some(({ state }) => state === "FAILED")))
      for (const merchantId of ["two", "one", "two"]) yield* asked(merchantId)
      yield* until(Effect.map(outbox.held, (held) => held.length === 2))
      const subscription = yield* broker.subscribe({
        group: "test",
        topics: ["inventory.confirmation_failed"]
      })
      const told: Array<string | undefined> = []
      yield* until(
        Effect.map(subscription.poll(10), (messages) => {
          told.push(...messages.map(({ headers }) => String(headers["x-merchant-id"])))
          return told.length >= 2
        })
      )
      assert.deepStrictEqual(told, ["two", "two"])
      assert.deepStrictEqual(
        (yield* outbox.held).map(({ key, merchantId, state }) => [merchantId, key, state]),
        [
          ["one", "order", "FAILED"],
          ["one", "order", "HELD"]
        ]
      )
    })
  )
})

describe("a row that is not JSON", () => {
  it.live("stops its own bucket until it is put right, and no other", () =>
    Effect.gen(function* () {
      const { context, url } = yield* dispatching
      const orders = Context.get(context, Orders)
      const outbox = Context.get(context, Outbox)
      const sql = yield* connect(url)
      const asked = Effect.fnUntraced(function* (orderId: string) {
        yield* orders.confirm(yield* caller({ merchantId: "one" }), { orderId })
      })
      yield* asked("a")
      yield* sql.run(
        "INSERT INTO outbox (bucket, recorded_at, events, event_count) VALUES ($1, now(), $2, 1)",
        [bucketOf("a"), "no JSON"]
      )
      const elsewhere = ["b", "c", "d", "e"].find((orderId) => bucketOf(orderId) !== bucketOf("a"))!
      const said: Array<string> = []
      const recorder = Logger.layer([Logger.make(({ message }) => said.push(String(message)))])
      yield* Effect.forkScoped(Effect.provide(outbox.dispatch, recorder))
      yield* asked(elsewhere)
      const unsent = sql.run<{ readonly bucket: number }>(
        "SELECT bucket FROM outbox WHERE sent_at IS NULL ORDER BY position"
      )
      yield* until(Effect.map(unsent, (rows) => rows.every(({ bucket }) => bucket === bucketOf("a"))))
      assert.strictEqual((yield* unsent).length, 2)
      // The dispatcher itself did not die of it, which would have stopped all buckets again and again.
      yield* until(Effect.sync(() => said.length > 0))
      for (const message of said) assert.include(message, `bucket ${bucketOf("a")} of the outbox`)
      yield* sql.run("UPDATE outbox SET events = '[]', event_count = 0 WHERE events = 'no JSON'")
      yield* until(Effect.map(unsent, (rows) => rows.length === 0))
    })
  )
})

describe("a topic that does not exist", () => {
  it.live("is waited for, its events follow in their order, and all others go on meanwhile", () =>
    Effect.gen(function* () {
      const { context, url } = yield* dispatching
      const outbox = Context.get(context, Outbox)
      const shop = shopOf(context)
      const { setMissing } = Context.get(context, MemoryBroker.MemoryCluster)
      const told: Array<{ readonly topic: string; readonly key: string | null; readonly at: string }> = []
      const topics = ["inventory.events", "inventory.out_of_stock"]
      const subscription = yield* Context.get(context, Broker).subscribe({ group: "test", topics })
      const reading = subscription.poll(100).pipe(
        Effect.map((messages) => {
          for (const { key, topic, value } of messages) {
            const { timestamp: at } = JSON.parse(Buffer.from(value!).toString()) as {
              readonly timestamp: string
            }
            told.push({ topic, key, at })
          }
        }),
        Effect.forever
      )
      yield* Effect.forkScoped(reading)
      const toldOf = (topic: string) => told.filter((one) => one.topic === topic)
      const waiting = Effect.map(outbox.held, (held) => {
        assert.deepStrictEqual([...new Set(held.map(({ state }) => state))].slice(1), [])
        return held.filter(({ state }) => state === "WAITING").length
      })
      const variants = ["a", "b", "c", "d", "e"]
      yield* Effect.forEach(variants, (variant) => shop.item(variant))
      // Each sale crosses to zero: one event for the missing topic, between others of the same item.
      let sold = 0
      const sellOut = Effect.forEach(variants, (variant) =>
        Effect.gen(function* () {
          yield* shop.receive(variant, 1)
          yield* shop.reserve(`order ${++sold}`, [[variant, 1]])
          yield* shop.confirm(`order ${sold}`)
        })
      )

      yield* setMissing(["inventory.out_of_stock"])
      const first = yield* Effect.forkScoped(outbox.dispatch)
      yield* sellOut
      yield* until(Effect.map(waiting, (count) => count === 5))
      // A receipt, a reservation and a sale of each.
      const movements = variants.length * 3
      const adjusted = () => toldOf("inventory.events").length
      yield* until(Effect.sync(() => adjusted() >= movements))
      assert.deepStrictEqual(toldOf("inventory.out_of_stock"), [])

      // Another dispatcher takes over what waits, and what is behind it waits too.
      yield* Fiber.interrupt(first)
      const before = adjusted()
      yield* Effect.forkScoped(outbox.dispatch)
      yield* sellOut
      yield* until(Effect.map(waiting, (count) => count === 10))
      yield* until(Effect.sync(() => adjusted() >= before + movements))
      assert.deepStrictEqual(toldOf("inventory.out_of_stock"), [])

      yield* setMissing([])
      yield* sellOut
      yield* until(Effect.sync(() => toldOf("inventory.out_of_stock").length >= 15))
      yield* until(Effect.map(waiting, (count) => count === 0))
      const late = toldOf("inventory.out_of_stock")
      assert.strictEqual(late.length, 15)
      for (const key of new Set(late.map((one) => one.key))) {
        const times = late.filter((one) => one.key === key).map(({ at }) => at)
        assert.deepStrictEqual(times, times.toSorted())
      }
      const sql = yield* connect(url)
      const [left] = yield* sql.run<{ count: number }>("SELECT count(*) AS count FROM outbox_failure")
      assert.strictEqual(left!.count, 0)
    })
  )
})
