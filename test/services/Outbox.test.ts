import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as MemoryBroker from "../../src/layers/MemoryBroker.ts"
import { Broker } from "../../src/services/Broker.ts"
import { Orders } from "../../src/services/Orders.ts"
import { Outbox } from "../../src/services/Outbox.ts"
import { caller, services, until } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"

/** The dispatcher over a real PostgreSQL and a broker in memory that refuses what the test wants refused. */

describe("an event that the broker refuses", () => {
  it.live("holds back its own merchant's order, and not another's of the same name", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const context = yield* Layer.build(
        Layer.provideMerge(Outbox.layer, services).pipe(
          Layer.provideMerge(Postgres.layer({ url, idleInTransactionMs: 10_000 })),
          Layer.provideMerge(MemoryBroker.layer())
        )
      )
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
