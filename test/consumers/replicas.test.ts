import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, type Redacted, Scope } from "effect"
import * as Runner from "../../src/consumers/Runner.ts"
import { topics } from "../../src/consumers/topics.ts"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { Catalog } from "../../src/services/stock/Catalog.ts"
import { DeadLetters } from "../../src/services/messaging/DeadLetters.ts"
import { Orders } from "../../src/services/orders/Orders.ts"
import { Outbox } from "../../src/services/messaging/Outbox.ts"
import { Partitions } from "../../src/services/Partitions.ts"
import { StockLedger } from "../../src/services/kernel/StockLedger.ts"
import { assertInSequence, consume, untilAllReceived } from "../faults/consumer.ts"
import { timings } from "../support/brokers.ts"
import { assertInvariants } from "../support/invariants.ts"
import { connect } from "../support/ledger.ts"
import { messagesAt } from "../support/messages.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { eventually } from "../support/service.ts"

// Goal: several processes at once change neither the order of a key nor how often something happens.
// Method: as many processes' worth of layers on one database; what comes out is numbered, item by item.

const testBoundMs = 120_000

/** What a process is made of. */
const processOn = (url: Redacted.Redacted<string>) =>
  Layer.mergeAll(Catalog.layer, DeadLetters.layer, Orders.layer, Outbox.layer).pipe(
    Layer.provideMerge(StockLedger.layer),
    Layer.provideMerge(Partitions.layer),
    Layer.provideMerge(PostgresBroker.layer({ timings })),
    Layer.provideMerge(Postgres.layer({ url, idleInTransactionMs: 10_000 }))
  )

/** A process that consumes, until it is stopped. */
const consumer = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const paid = topics.filter(({ topic }) => topic === "payment.success")
  yield* Layer.buildWithScope(
    Runner.layer(paid, { defaultMerchantId: undefined }).pipe(Layer.provide(processOn(url))),
    scope
  )
  return { stop: Scope.close(scope, Exit.void) }
})

/** A process that dispatches. */
const dispatcher = (url: Redacted.Redacted<string>) =>
  Effect.flatMap(Layer.build(processOn(url)), (context) =>
    Effect.forkScoped(Context.get(context, Outbox).dispatch)
  )

const sale = (order: number) => ({
  topic: "payment.success",
  key: `order-${order}`,
  headers: {},
  value: JSON.stringify({
    merchantId: "acme",
    saleOrderId: `order-${order}`,
    items: [{ productVariantId: `item-${order % 12}`, quantity: 1 + (order % 3) }]
  })
})

describe("two dispatchers and four consumers", () => {
  it.live(
    "keep the order of each item, and apply each sale once, while consumers come and go",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const sql = yield* connect(url)
        const { publish, untilDone } = yield* messagesAt(url)
        const received = yield* consume(url)
        yield* dispatcher(url)
        yield* dispatcher(url)
        const first = yield* consumer(url)
        yield* consumer(url)
        yield* consumer(url)

        const orders = 600
        for (let from = 0; from < orders; from += 100) {
          const part = Array.from({ length: 100 }, (_, index) => sale(from + index))
          // A third of them twice.
          yield* publish(...part, ...part.filter((_, index) => index % 3 === 0))
          if (from === 200) yield* first.stop
          if (from === 300) yield* consumer(url)
        }
        yield* consumer(url)
        yield* untilDone("payment.success")

        const [sold] = yield* sql.run<{ rows: number; quantity: number }>(
          "SELECT count(*)::int AS rows, -sum(on_hand_delta)::int AS quantity FROM inventory_ledger WHERE type = 'SALE'"
        )
        assert.deepStrictEqual(sold, { rows: orders, quantity: orders * 2 })
        const [letters] = yield* sql.run<{ count: number }>("SELECT count(*) AS count FROM dead_letter")
        assert.strictEqual(letters!.count, 0)
        const awaited = yield* untilAllReceived(sql, received)
        assert.isAbove(awaited, orders)
        assertInSequence(received)
        yield* eventually(
          Effect.map(
            sql.run<{ count: number }>("SELECT count(*) AS count FROM outbox WHERE sent_at IS NULL"),
            ([row]) => row!.count
          ),
          (count) => count === 0
        )
        yield* assertInvariants(url)
      }),
    testBoundMs
  )
})
