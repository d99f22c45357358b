import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Postgres from "../../../src/layers/Postgres.ts"
import { commands } from "../../../src/services/kernel/commands.ts"
import { StockLedger } from "../../../src/services/kernel/StockLedger.ts"
import { tables } from "../../../src/services/kernel/tables.ts"
import { Partitions } from "../../../src/services/Partitions.ts"
import { Desk, MemoryStore, variant } from "../../support/books.ts"
import { assertInvariants } from "../../support/invariants.ts"
import { caller, connect, dawn } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { createSamples, samples } from "../../support/toy/samplesTable.ts"
import { type TakeSample, takeSample } from "../../support/toy/takeSample.ts"

// Goal: a new command is one file and a new table is one file, each put on its list (CONTRIBUTING, "Add a command", "Add a
// table"). Method: a toy of each, posted over tables in memory and over a real PostgreSQL.

const lists = { commands: [...commands, takeSample], tables: [...tables, samples] }

const taking = (quantity: number, item = "cup"): TakeSample => ({
  _tag: "TakeSample",
  sampleId: "s",
  item: variant(item),
  quantity
})

describe("a command and a table that are put on the lists", () => {
  it("are decided, read back and written in memory as those that were there", () => {
    const desk = new Desk(new MemoryStore(lists))
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "cup" })
    desk.post({ _tag: "AdjustStock", changeType: "RECEIPT", item: variant("cup"), quantity: 5 })
    const post = (command: TakeSample): object => desk.verdict(command as never)
    assert.deepInclude(post(taking(2)), { answer: { taken: 2, total: 2 } })
    assert.deepInclude(post(taking(1)), { answer: { taken: 1, total: 3 } })
    assert.deepInclude(Reflect.get(post(taking(3)), "refusal"), { _tag: "InsufficientStock" })
    assert.deepInclude(Reflect.get(post(taking(1, "plate")), "refusal"), { _tag: "ItemNotFound" })
    const [row] = desk.store.of(samples).values()
    assert.deepInclude(row, { sampleId: "s", itemId: desk.item("cup").itemId, quantity: 3 })
    assert.strictEqual(desk.item("cup").onHand, 2)
    assert.deepInclude(desk.eventsOfType("InventoryAdjusted").at(-1)!.data, { quantity: 2 })
  })

  it.effect("are posted to PostgreSQL, under the locks and with the bookkeeping of all others", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      yield* TestClock.setTime(dawn)
      const sql = yield* connect(url)
      yield* sql.run(createSamples)
      const context = yield* Layer.build(
        StockLedger.layerOf(lists.commands, lists.tables).pipe(
          Layer.provide(Partitions.layer),
          Layer.provide(Postgres.layer({ url, idleInTransactionMs: 10_000 }))
        )
      )
      const { post } = Context.get(context, StockLedger)
      yield* post(yield* caller(), { _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "cup" })
      const receipt = { changeType: "RECEIPT", item: variant("cup"), quantity: 50 } as const
      yield* post(yield* caller(), { _tag: "AdjustStock", ...receipt })
      const taken = Effect.flatMap(caller(), (from) => post(from, taking(1) as never))
      yield* Effect.all(
        Array.from({ length: 20 }, () => taken),
        { concurrency: "unbounded" }
      )
      const short = yield* Effect.flip(Effect.flatMap(caller(), (from) => post(from, taking(31) as never)))
      assert.strictEqual(short._tag, "InsufficientStock")
      const rows = yield* sql.run("SELECT sample_id, quantity FROM sample")
      assert.deepStrictEqual(rows, [{ sample_id: "s", quantity: 20 }])
      yield* assertInvariants(url)

      const idempotency = { key: "k", fingerprint: "f" }
      const first = yield* post(yield* caller({ idempotency }), taking(2) as never)
      assert.deepStrictEqual<unknown>(first, { answer: { taken: 2, total: 22 }, replayed: false })
      const again = yield* post(yield* caller({ idempotency }), taking(2) as never)
      assert.deepStrictEqual<unknown>(again, { answer: { taken: 2, total: 22 }, replayed: true })
    })
  )

  it("replay an answer that was kept in an older form as it would be given today", () => {
    const desk = new Desk(new MemoryStore(lists))
    const idempotency = { key: "k", fingerprint: "f" }
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "cup" })
    for (const answer of [
      { posting: "p", command: "TakeSample", version: 1, answer: { taken: 4 } },
      // From before answers were kept with a version.
      { taken: 4 }
    ]) {
      desk.store.idempotency.set("m\u001fk", {
        merchantId: "m",
        idempotencyKey: "k",
        fingerprint: "f",
        answer: JSON.stringify(answer),
        createdAt: desk.now
      })
      assert.deepStrictEqual<unknown>(desk.verdict(taking(1) as never, { idempotency }), {
        answer: { taken: 4, total: 4 },
        replayed: true
      })
    }
  })
})
