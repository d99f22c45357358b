import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import type { BulkOperation } from "../../src/services/kernel/commands/bulk.ts"
import { Audit } from "../../src/services/books/Audit.ts"
import type { Check, Finding } from "../../src/services/books/audit/Finding.ts"
import { StockLedger } from "../../src/services/kernel/StockLedger.ts"
import { caller, ledger } from "../support/ledger.ts"

/**
 * Audit of a stock with more movements than one statement looks at: it is read in parts, each of which goes on from the one
 * before it. Whatever was changed, and wherever, at a part's seam, too, is found and named, and nothing else is.
 */

const movementsPerBulk = 1_000
const bulks = 82

/** What moves the stock: receipts, and in the first and the last thousand some sales of orders. */
const operationsOf = (bulk: number): ReadonlyArray<BulkOperation> =>
  Array.from({ length: movementsPerBulk }, (_, index) => {
    const item = { variantId: "cup" }
    return index >= 500 && index < 505 && (bulk === 0 || bulk === bulks - 1)
      ? { _tag: "AdjustStock", changeType: "SALE", item, quantity: 1, orderId: `order ${bulk} ${index}` }
      : { _tag: "AdjustStock", changeType: "RECEIPT", item, quantity: 2 }
  })

const lineOf = (orderId: string): string =>
  `reservation_id = (SELECT reservation_id FROM reservation WHERE order_id = '${orderId}')`

const changes: ReadonlyArray<{
  readonly says: string
  readonly done: ReadonlyArray<string>
  readonly undone: ReadonlyArray<string>
  /** Checks, each with what it names. */
  readonly found: ReadonlyArray<readonly [check: Check, subject: RegExp]>
}> = [
  {
    says: "a balance amid its movements",
    done: ["UPDATE inventory_ledger SET on_hand = on_hand + 1 WHERE sequence = 50000"],
    undone: ["UPDATE inventory_ledger SET on_hand = on_hand - 1 WHERE sequence = 50000"],
    found: [
      ["ledger-follows", /^movement 50000 of/],
      ["ledger-follows", /^movement 50001 of/]
    ]
  },
  {
    says: "a balance at the end of a part",
    done: ["UPDATE inventory_ledger SET on_hand = on_hand + 1 WHERE sequence = 20000"],
    undone: ["UPDATE inventory_ledger SET on_hand = on_hand - 1 WHERE sequence = 20000"],
    found: [
      ["ledger-follows", /^movement 20000 of/],
      ["ledger-follows", /^movement 20001 of/]
    ]
  },
  {
    says: "a balance at the beginning of a part",
    done: ["UPDATE inventory_ledger SET reserved = reserved + 1 WHERE sequence = 20001"],
    undone: ["UPDATE inventory_ledger SET reserved = reserved - 1 WHERE sequence = 20001"],
    found: [
      ["ledger-follows", /^movement 20001 of/],
      ["ledger-follows", /^movement 20002 of/]
    ]
  },
  {
    says: "a movement that is gone",
    done: [
      "CREATE TABLE gone AS SELECT * FROM inventory_ledger WHERE sequence = 40000",
      "DELETE FROM inventory_ledger WHERE sequence = 40000"
    ],
    undone: ["INSERT INTO inventory_ledger SELECT * FROM gone"],
    found: [
      ["ledger-follows", /^movement 40001 of/],
      ["movement-is-told", /./]
    ]
  },
  {
    says: "what was sold of a line",
    done: [`UPDATE reservation_line SET quantity = 2, sold = 2 WHERE ${lineOf("order 81 503")}`],
    undone: [`UPDATE reservation_line SET quantity = 1, sold = 1 WHERE ${lineOf("order 81 503")}`],
    found: [
      ["line-is-its-ledger", /^reservation .* on stock/],
      ["sold-once", /of order order 81 503$/]
    ]
  }
]

describe("a stock with very many movements", () => {
  it.effect("is audited in parts, and whatever was changed is found", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("cup")
      const { post } = Context.get(shop.context, StockLedger)
      for (let bulk = 0; bulk < bulks; bulk++) {
        yield* TestClock.adjust("1 second")
        yield* post(yield* caller(), {
          _tag: "Bulk",
          mode: "atomic",
          operations: operationsOf(bulk)
        })
      }
      const audit = Effect.gen(function* () {
        const { examine } = Context.get(
          yield* Layer.build(Audit.layer.pipe(Layer.provide(Layer.succeedContext(shop.context)))),
          Audit
        )
        const findings: Array<Finding> = []
        const tell = (finding: Finding) => Effect.sync(() => findings.push(finding))
        const { looked } = yield* examine({ merchantId: undefined, tell })
        assert.isAtLeast(looked.movements, bulks * movementsPerBulk)
        return findings
      })
      assert.deepStrictEqual(yield* audit, [])
      yield* shop.sql.run("SET session_replication_role = replica")
      for (const { done, found, says, undone } of changes) {
        for (const statement of done) yield* shop.sql.run(statement)
        const findings = (yield* audit).toSorted(
          (a, b) => a.check.localeCompare(b.check) || a.subject.localeCompare(b.subject)
        )
        assert.deepStrictEqual(
          findings.map(({ check }) => check),
          found.map(([check]) => check),
          says
        )
        findings.forEach(({ subject }, index) => assert.match(subject, found[index]![1], says))
        for (const statement of undone) yield* shop.sql.run(statement)
      }
      assert.deepStrictEqual(yield* audit, [])
    })
  )
})
