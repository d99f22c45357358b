import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { assertInvariants } from "../support/invariants.ts"
import { connect, lockItem, untilWaiting } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type Answer, merchantAt, startService } from "../support/service.ts"
import { assertInSequence, consume, untilAllReceived, untilAllSent } from "./consumer.ts"
import { askAgain, assertBooks, load, merchantId, report, stocked, untilAcknowledged } from "./load.ts"

/** The service is killed by SIGKILL at each named fail-point, under load, and started again. */

const script = "test/support/failingService.ts"

const database = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  return { url, sql: yield* connect(url), address: Redacted.value(url) }
})

describe("the service killed", () => {
  for (const [failPoint, count] of [
    ["beforeCommit", 150],
    ["afterCommitBeforeReply", 150],
    ["afterSendBeforeMark", 40]
  ] as const) {
    it.live(`at ${failPoint} loses nothing that it acknowledged, and does nothing twice`, () =>
      Effect.gen(function* () {
        const { address, sql, url } = yield* database
        const failing = yield* startService(address, {}, { script, parameters: [failPoint, String(count)] })
        yield* stocked(failing)
        const received = yield* consume(url)
        const work = yield* load(failing)
        const ended = yield* failing.ended
        yield* work.stop
        assert.strictEqual(ended.signal, "SIGKILL")
        assert.include(failing.stderr(), `killed at ${failPoint}`)
        assert.isAbove(work.acknowledged.size, 0)
        assert.isAbove(work.asked.size, work.acknowledged.size)

        const restarted = yield* startService(address)
        yield* assertBooks(url, sql, work)
        const again = yield* askAgain(restarted, sql, work)
        // It was killed where it was meant to be.
        if (failPoint === "beforeCommit") assert.isAbove(again.made, 0)
        if (failPoint === "afterCommitBeforeReply") assert.isAbove(again.existed, 0)

        yield* untilAcknowledged(yield* load(restarted, "later"), 100)
        const events = yield* untilAllReceived(sql, received)
        const duplicates = assertInSequence(received)
        if (failPoint === "afterSendBeforeMark") assert.isAbove(duplicates, 0)
        report(`killed at ${failPoint}`, {
          acknowledged: work.acknowledged.size,
          ...again,
          events,
          duplicates
        })
      }).pipe(Effect.scoped)
    )
  }

  it.live("before it could answer an Idempotency-Key answers it when asked again, and does it once", () =>
    Effect.gen(function* () {
      const { address, sql, url } = yield* database
      const first = yield* startService(address)
      const shop = yield* stocked(first)
      const receive = (desk: typeof shop, key: string) =>
        desk.post(
          "/api/v1/inventory/adjust-stock",
          { productVariantId: "cup", changeType: "RECEIPT", quantity: 7 },
          { headers: { "idempotency-key": key } }
        )
      const onHand = Effect.map(
        sql.run<{ on_hand: number }>("SELECT on_hand FROM item WHERE product_variant_id = 'cup'"),
        ([row]) => row!.on_hand
      )
      let quantity = yield* onHand
      const killed = { alone: 0, amongMany: 0 }
      for (const atOnce of [0, 50, 50, 50]) {
        const failing = yield* startService(
          address,
          {},
          { script, parameters: ["afterCommitBeforeReply", "1"] }
        )
        const dying = yield* merchantAt(failing, merchantId)
        const amongMany = atOnce > 0
        if (amongMany) {
          // At once over two processes. The failing one is the first, and is killed with the answer on its lips …
          const askAll = (desk: typeof shop) =>
            Effect.forEach(
              Array.from({ length: atOnce / 2 }),
              () => Effect.exit(receive(desk, `key-${quantity}`)),
              { concurrency: "unbounded" }
            )
          const lock = yield* lockItem(url, "cup")
          const first = yield* Effect.forkChild(askAll(dying), { startImmediately: true })
          yield* untilWaiting(sql, 1)
          const second = yield* Effect.forkChild(askAll(shop), { startImmediately: true })
          yield* untilWaiting(sql, 2)
          yield* lock.release
          for (const exit of yield* Fiber.join(first)) assert.strictEqual(exit._tag, "Failure")
          const answers: Array<Answer> = (yield* Fiber.join(second)).flatMap((exit) =>
            exit._tag === "Success" ? [exit.value] : []
          )
          assert.strictEqual(answers.length, atOnce / 2)
          answers.push(yield* receive(shop, `key-${quantity}`))
          for (const { headers, status, text } of answers) {
            assert.strictEqual(status, 200, text)
            assert.strictEqual(headers["idempotency-replayed"], "true")
          }
          assert.strictEqual(new Set(answers.map(({ text }) => text)).size, 1)
          quantity += 7
          assert.strictEqual(yield* onHand, quantity)
        }
        // … and here otherwise.
        const alone = yield* Effect.exit(receive(dying, `alone-${quantity}`))
        assert.strictEqual(alone._tag, "Failure")
        assert.strictEqual((yield* failing.ended).signal, "SIGKILL")
        assert.include(failing.stderr(), "killed at afterCommitBeforeReply")
        killed[amongMany ? "amongMany" : "alone"] += 1
        const later = yield* receive(shop, `alone-${quantity}`)
        assert.strictEqual(later.status, 200, later.text)
        assert.strictEqual(later.headers["idempotency-replayed"], amongMany ? undefined : "true")
        quantity += 7
        assert.strictEqual(yield* onHand, quantity)
      }
      report("killed before an Idempotency-Key was answered", killed)
      assert.deepStrictEqual(killed, { alone: 1, amongMany: 3 })
      yield* untilAllSent(sql)
      yield* assertInvariants(url)
    }).pipe(Effect.scoped)
  )
})
