import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { assertInvariants } from "../support/invariants.ts"
import { caller, connect, replica, shopOf } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type Fault, proxyTo } from "../support/proxy.ts"

/**
 * The connection goes away around COMMIT, and the caller is told the truth all the same (DESIGN, rule 5). By the live
 * clock: what is waited for are answers of a network.
 */

const proxied = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const proxy = yield* proxyTo(url)
  const shop = shopOf(yield* replica(proxy.url))
  yield* shop.item("cup")
  yield* shop.receive("cup", 100)
  return { ...shop, proxy, url, sql: yield* connect(url) }
})

const faults: ReadonlyArray<readonly [Fault, Parameters<Effect.Success<typeof proxied>["proxy"]["arm"]>[1]]> =
  [
    ["answer to COMMIT lost", {}],
    ["answer to COMMIT lost", { status: "forgotten" }],
    ["answer to COMMIT lost", { status: "of another" }],
    ["answer to COMMIT lost", { refuse: 3 }],
    ["COMMIT lost", {}],
    ["COMMIT lost", { status: "forgotten" }],
    ["COMMIT lost", { status: "of another" }],
    ["COMMIT lost", { refuse: 3 }],
    ["COMMIT late", {}]
  ]

describe("a commit whose outcome is unknown", () => {
  for (const [fault, more] of faults) {
    it.live(
      `has the right answer and one effect: ${[fault, ...Object.entries(more ?? {}).flat()].join(", ")}`,
      () =>
        Effect.gen(function* () {
          const { available, confirm, item, orders, proxy, receive, reserve, sql, url } = yield* proxied

          // Its creator is told that it made the reservation.
          proxy.arm(fault, more)
          const { answer, replayed } = yield* reserve("order", [["cup", 2]])
          assert.deepInclude({ created: answer.created, replayed }, { created: true, replayed: false })
          assert.strictEqual(proxy.fired(), 1)
          assert.isAtLeast(proxy.statusAsked(), 1)
          assert.isFalse((yield* reserve("order", [["cup", 2]])).answer.created)
          assert.strictEqual(yield* available("cup"), 98)

          // A receipt without any key is applied once.
          proxy.arm(fault, more)
          const received = yield* receive("cup", 7)
          assert.isTrue(received.applied)
          assert.strictEqual(received.item.quantity, 107)
          assert.strictEqual(proxy.fired(), 2)
          const rows = yield* sql.run(
            "SELECT on_hand_delta AS delta FROM inventory_ledger WHERE type = 'RECEIPT'"
          )
          assert.deepStrictEqual(rows, [{ delta: 100 }, { delta: 7 }])

          // A paid sale keeps no answer: its lines say that it was applied.
          proxy.arm(fault, more)
          const line = { productVariantId: "cup", quantity: 1 }
          const paid = yield* orders.recordSale(yield* caller(), { orderId: "paid", lines: [line] })
          assert.deepInclude(paid.answer, { applied: 1, repeated: 0, changed: 0 })
          assert.strictEqual(proxy.fired(), 3)
          assert.strictEqual(yield* available("cup"), 104)

          // Many callers of one batch are answered each for themselves.
          yield* item("saucer")
          yield* receive("saucer", 100)
          yield* reserve("sold", [["saucer", 1]])
          proxy.arm(fault, more)
          const asked = yield* Effect.forEach(Array.from({ length: 150 }), (_, index) =>
            Effect.forkChild(Effect.result(reserve(`order-${index}`, [["saucer", 1]])), {
              startImmediately: true
            })
          )
          assert.isTrue((yield* confirm("sold")).applied)
          const results = yield* Effect.forEach(asked, Fiber.join)
          const created = results.filter(
            (result) => result._tag === "Success" && result.success.answer.created
          )
          const refused = results.filter(
            (result) => result._tag === "Failure" && result.failure._tag === "InsufficientStock"
          )
          assert.deepStrictEqual([created.length, refused.length], [99, 51])
          assert.strictEqual(proxy.fired(), 4)
          assert.strictEqual(yield* available("saucer"), 0)
          assert.deepStrictEqual(yield* sql.run("SELECT count(*) AS count FROM reservation"), [
            { count: 102 }
          ])
          yield* assertInvariants(url)
        })
    )
  }
})

describe("an Idempotency-Key whose first answer was lost", () => {
  it.live("is not called a replay, and the next one is", () =>
    Effect.gen(function* () {
      const { proxy, reserve } = yield* proxied
      const key = { idempotency: { key: "key", fingerprint: "print" } }
      proxy.arm("answer to COMMIT lost")
      const first = yield* reserve("order", [["cup", 1]], {}, key)
      assert.isTrue(first.answer.created)
      assert.isFalse(first.replayed)
      const second = yield* reserve("order", [["cup", 1]], {}, key)
      assert.deepStrictEqual(second, { ...first, replayed: true })
    })
  )
})
