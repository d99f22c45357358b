import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { assertInvariants } from "../../support/invariants.ts"
import { caller, dawn, ledger, replica, shopOf } from "../../support/ledger.ts"

/** What a merchant stocks, and where, over a real PostgreSQL (CONTRACTS 4.4, *ensureInventoryItem*). */

describe("ensuring an item", () => {
  it.effect("creates it, finds it by either name, and changes only what is given", () =>
    Effect.gen(function* () {
      const { item } = yield* ledger
      const created = yield* item("cup", { sku: "CUP", name: "a cup", lowStockThreshold: 5 })
      assert.deepInclude(created, { status: "AWAITING_INITIAL_STOCK", unit: "each", stocked: true })
      const same = yield* item("cup", { productId: "crockery" })
      assert.deepInclude(same, {
        itemId: created.itemId,
        name: "a cup",
        lowStockThreshold: 5,
        productId: "crockery"
      })
    })
  )

  it.effect("adopts one that was known by its sku alone", () =>
    Effect.gen(function* () {
      const { available, catalog, item, receive } = yield* ledger
      const { answer } = yield* catalog.ensureItem(yield* caller(), { sku: "CUP", kind: "PRODUCT" })
      assert.isTrue(answer.created)
      const adopted = yield* item("cup", { sku: "CUP" })
      assert.strictEqual(adopted.itemId, answer.item.itemId)
      yield* receive("cup", 2)
      assert.strictEqual(yield* available("cup"), 2)
    })
  )

  it.effect("refuses a variant and a sku of two different items, and changes neither", () =>
    Effect.gen(function* () {
      const { item, sql } = yield* ledger
      yield* item("a", { sku: "A" })
      yield* item("b", { sku: "B" })
      const conflict = yield* Effect.flip(item("a", { sku: "B", name: "mixed up" }))
      assert.deepInclude(conflict, { _tag: "ItemConflict", productVariantId: "a", sku: "B" })
      assert.strictEqual((yield* Effect.flip(item("c", { sku: "B" })))._tag, "ItemConflict")
      assert.deepStrictEqual(
        yield* sql.run("SELECT product_variant_id AS id, sku, name FROM item ORDER BY sku"),
        [
          { id: "a", sku: "A", name: null },
          { id: "b", sku: "B", name: null }
        ]
      )
    })
  )

  it.effect("at two replicas at once makes one item, and one merchant", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const other = shopOf(yield* replica(shop.url))
      const ids = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) => [shop, other][index % 2]!.item("cup", { sku: "CUP" }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(ids.map(({ itemId }) => itemId)).size, 1)
      assert.deepStrictEqual(
        yield* shop.sql.run(
          "SELECT (SELECT count(*) FROM merchant) AS merchants, (SELECT count(*) FROM location) AS locations"
        ),
        [{ merchants: 1, locations: 1 }]
      )
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("keeps the same names of two merchants apart", () =>
    Effect.gen(function* () {
      const { available, item, receive, url } = yield* ledger
      yield* item("cup", { sku: "CUP" })
      yield* item("cup", { sku: "CUP" }, { merchantId: "other" })
      yield* receive("cup", 3, {}, { merchantId: "other" })
      assert.strictEqual(yield* available("cup"), 0)
      assert.strictEqual(yield* available("cup", "other"), 3)
      yield* assertInvariants(url)
    })
  )

  it.effect("tells when a new threshold or a discontinuation changes the status", () =>
    Effect.gen(function* () {
      const { availability, item, receive, reserve, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 3)
      const status = Effect.map(availability.ofVariant("acme", "cup"), (view) => view.status)
      assert.strictEqual(yield* status, "IN_STOCK")
      yield* item("cup", { lowStockThreshold: 3 })
      assert.strictEqual(yield* status, "LOW_STOCK")
      yield* item("cup", { discontinued: true })
      assert.strictEqual(yield* status, "DISCONTINUED")
      assert.deepInclude(yield* Effect.flip(reserve("order", [["cup", 1]])), {
        _tag: "ReservationFailed",
        reason: "DISCONTINUED_ITEM"
      })
      yield* assertInvariants(url)
    })
  )
})

describe("listing", () => {
  it.effect("pages through items in the order of their creation, and finds parts of names literally", () =>
    Effect.gen(function* () {
      const { catalog, item } = yield* ledger
      for (const variant of ["a-cup", "b_cup", "c%cup", "saucer", "PLATE"]) {
        yield* item(variant)
        yield* TestClock.adjust(1)
      }
      const seen: Array<string | null> = []
      let cursor: string | null | undefined
      do {
        const page = yield* catalog.items("acme", { kind: "PRODUCT", limit: 2, cursor: cursor ?? undefined })
        seen.push(...page.data.map(({ productVariantId }) => productVariantId))
        cursor = page.nextCursor
      } while (cursor !== null)
      assert.deepStrictEqual(seen, ["a-cup", "b_cup", "c%cup", "saucer", "PLATE"])
      const found = (search: string) =>
        Effect.map(catalog.items("acme", { kind: "PRODUCT", search }), ({ data }) =>
          data.map(({ productVariantId }) => productVariantId)
        )
      assert.deepStrictEqual(yield* found("CUP"), ["a-cup", "b_cup", "c%cup"])
      assert.deepStrictEqual(yield* found("%"), ["c%cup"])
      assert.deepStrictEqual(yield* found("_"), ["b_cup"])
      assert.deepStrictEqual(yield* found("plate"), ["PLATE"])
      assert.deepStrictEqual((yield* catalog.items("acme", { kind: "MATERIAL" })).data, [])
    })
  )

  it.effect("shows an item by the same figures as asking for it, also when a lot has expired", () =>
    Effect.gen(function* () {
      const { availability, catalog, item, receive, reserve } = yield* ledger
      yield* item("milk")
      yield* receive("milk", 5, { lotNumber: "L", lotExpiresAt: dawn + 1_000 })
      yield* reserve("order", [["milk", 2]])
      for (const wait of [0, 1_000]) {
        yield* TestClock.adjust(wait)
        const asked = yield* availability.ofVariant("acme", "milk")
        const [listed] = (yield* catalog.items("acme", { kind: "PRODUCT" })).data
        assert.deepInclude(listed, {
          quantity: asked.quantity,
          reservedQuantity: asked.reservedQuantity,
          availableQuantity: asked.availableQuantity,
          status: asked.status
        })
        const status = wait === 0 ? "IN_STOCK" : "OUT_OF_STOCK"
        assert.strictEqual(asked.status, status)
        assert.strictEqual((yield* catalog.items("acme", { kind: "PRODUCT", status })).data.length, 1)
      }
    })
  )

  it.effect("gives the default location first, and the others as they were created", () =>
    Effect.gen(function* () {
      const { catalog, location } = yield* ledger
      for (const id of ["zeta", "alpha", "mid"]) assert.isTrue((yield* location(id)).created)
      assert.isFalse((yield* location("alpha")).created)
      const first = yield* catalog.locations("acme", { limit: 3 })
      const second = yield* catalog.locations("acme", { limit: 3, cursor: first.nextCursor! })
      assert.deepStrictEqual(
        [...first.data, ...second.data].map(({ isDefault, locationId }) => [locationId, isDefault]),
        [
          ["default", true],
          ["zeta", false],
          ["alpha", false],
          ["mid", false]
        ]
      )
      assert.strictEqual(second.nextCursor, null)
    })
  )
})
