import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Audit } from "../../src/services/Audit.ts"
import type { Finding } from "../../src/services/audit/Finding.ts"
import { dawn, ledger } from "../support/ledger.ts"

/**
 * Audit against books that are right, and against ones that were changed behind the service's back: by somebody with the
 * owner's rights, who switches triggers and foreign keys off.
 */

/** The services, an audit over them, and a hand behind their back. */
const books = Effect.gen(function* () {
  const shop = yield* ledger
  const context = yield* Layer.build(Audit.layer.pipe(Layer.provide(Layer.succeedContext(shop.context))))
  const { examine } = Context.get(context, Audit)
  return {
    ...shop,
    /** Everything that was posted has settled, however the clock of the test stands. */
    audit: Effect.fnUntraced(function* (merchantId?: string) {
      yield* TestClock.adjust("1 minute")
      const findings: Array<Finding> = []
      const report = yield* examine({
        merchantId,
        tell: (finding) => Effect.sync(() => findings.push(finding))
      })
      return { ...report, findings }
    }),
    tamper: (statement: string) =>
      shop.sql.run(`
      SET session_replication_role = replica; ${statement}; SET session_replication_role = DEFAULT`)
  }
})

type Books = Effect.Success<typeof books>

/** A little of everything: receipts, lots, reservations in every state, sales, returns, damage and counts. */
const aDay = Effect.fnUntraced(function* ({
  adjust,
  confirm,
  item,
  location,
  receive,
  release,
  reserve
}: Books) {
  yield* item("cup", { sku: "CUP", lowStockThreshold: 5 })
  yield* item("pan")
  yield* location("north")
  yield* receive("cup", 50, { reference: "receipt:1" })
  yield* receive("cup", 8, { locationId: "north", lotNumber: "L1", lotExpiresAt: dawn + 86_400_000 })
  yield* receive("pan", 10)
  yield* reserve(
    "held",
    [
      ["cup", 3],
      ["pan", 2]
    ],
    { expiresInSeconds: 86_400 }
  )
  yield* reserve("sold", [["cup", 4]])
  yield* confirm("sold")
  yield* reserve("gone", [["pan", 1]])
  yield* release("gone")
  yield* adjust({ changeType: "SALE", item: { variantId: "pan" }, quantity: 1, orderId: "direct" })
  yield* adjust({ changeType: "RETURN", item: { variantId: "cup" }, quantity: 2, orderId: "sold" })
  yield* adjust({ changeType: "DAMAGE", item: { variantId: "pan" }, quantity: 1 })
  yield* adjust({ changeType: "CORRECTION", item: { variantId: "pan" }, quantity: 9 })
})

describe("an audit", () => {
  it.effect("finds nothing wrong with books that nobody has changed", () =>
    Effect.gen(function* () {
      const shop = yield* books
      yield* aDay(shop)
      const { findings, holds, looked } = yield* shop.audit()
      assert.deepStrictEqual(findings, [])
      assert.isTrue(holds)
      assert.strictEqual(looked.stocks, 3)
      assert.isAbove(looked.movements, 8)
      assert.isAbove(looked.events, 10)
    })
  )

  it.effect("finds nothing wrong with an empty database", () =>
    Effect.gen(function* () {
      const { audit } = yield* books
      assert.isTrue((yield* audit()).holds)
    })
  )
})
