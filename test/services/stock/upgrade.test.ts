import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import path from "node:path"
import { assertInvariants } from "../../support/invariants.ts"
import { caller, ledger } from "../../support/ledger.ts"

// Goal: books from before migration 0010 are what they would be had it always been there. Method: the books are put back
// into their older form, and the statements of the migration that change rows are run over them.

const file = path.join(import.meta.dirname, "../../../migrations/0010_what_can_be_sold.sql")
const updates = readFileSync(file, "utf8")
  .replaceAll(/^--.*\n/gm, "")
  .split(";\n")
  .map((statement) => statement.trim())
  .filter((statement) => statement.startsWith("UPDATE"))

describe("the books from before what can be sold was one formula", () => {
  it.effect("delete what was deleted and sold since, wait for what is there, and know what is captured", () =>
    Effect.gen(function* () {
      const { adjust, catalog, item, receive, sql, url } = yield* ledger
      const by = yield* caller()
      const { merchantId, ...origin } = by
      yield* item("debt", { sku: "debt" })
      yield* receive("debt", 2, { lotNumber: "L" })
      yield* receive("debt", 3)
      yield* adjust({ changeType: "WRITE_OFF", item: { variantId: "debt" }, lotNumber: "", quantity: 5 })
      for (const name of ["sold", "there", "ended"]) {
        yield* item(name, { sku: name })
        yield* receive(name, 1)
      }
      yield* catalog.applyRowChange(origin, { _tag: "Written", rowId: "7", merchantId, sku: "seven" })
      for (const productVariantId of ["sold", "there"]) yield* catalog.deleteItem(by, { productVariantId })
      yield* item("ended", { discontinued: true })
      yield* adjust({ changeType: "WRITE_OFF", item: { variantId: "sold" }, quantity: 1 })
      yield* sql.run("UPDATE item SET deletion_pending = false, captured = false, deleted_at = NULL")
      yield* sql.run("UPDATE item SET status = 'IN_STOCK' WHERE sku = 'debt'")
      assert.isAbove(updates.length, 3)
      for (const statement of updates) yield* sql.run(statement)
      assert.deepStrictEqual(
        yield* sql.run(
          `SELECT sku, deletion_pending, captured, deleted_at IS NOT NULL AS deleted
           FROM item
           WHERE sku <> 'debt'
           ORDER BY sku`
        ),
        [
          { sku: "ended", deletion_pending: false, captured: false, deleted: false },
          { sku: "seven", deletion_pending: false, captured: true, deleted: false },
          { sku: "sold", deletion_pending: false, captured: false, deleted: true },
          { sku: "there", deletion_pending: true, captured: false, deleted: false }
        ]
      )
      yield* assertInvariants(url)
    })
  )
})
