import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import type { MovementType } from "../../../src/schema/Movement.ts"
import { LedgerHistory } from "../../../src/services/books/LedgerHistory.ts"
import type { Movement, MovementFilter } from "../../../src/services/stock/Movements.ts"
import { dawn, ledger, ledgerFrom } from "../../support/ledger.ts"

/** Looking into the books: what moved, and what was there at a time, over partitions of the ledger. */

const hour = 60 * 60 * 1000
const month = 31 * 24 * hour
/** So that the ledger's next partition begins between the second and the third round of movements. */
const eve = Date.UTC(2026, 4, 31, 22, 30)
const merchantId = "acme"

const key = ({ sequence, stockId }: Movement): string => `${stockId} ${sequence}`

type Shop = Effect.Success<typeof ledger>

/** All pages of a list of movements; `between` runs after each. */
const walk = Effect.fnUntraced(function* (
  { movements }: Shop,
  filter: MovementFilter,
  between: Effect.Effect<unknown, unknown> = Effect.void
) {
  const seen: Array<Movement> = []
  const pages: Array<number> = []
  let cursor: string | null | undefined
  while (cursor !== null) {
    const page: { readonly data: ReadonlyArray<Movement>; readonly nextCursor: string | null } =
      yield* movements.ofVariant(merchantId, "cup", {
        ...filter,
        ...(cursor === undefined ? {} : { cursor })
      })
    seen.push(...page.data)
    pages.push(page.data.length)
    cursor = page.nextCursor
    yield* between
  }
  return { seen, pages }
})

/** Three stocks of one item that move each hour, several times in one millisecond; then it is so many hours later. */
const history = Effect.fnUntraced(function* (shop: Shop, hours: number) {
  const { adjust, item, location, receive } = shop
  yield* item("cup", { sku: "CUP" })
  yield* location("shop")
  for (let n = 0; n < hours; n++) {
    yield* receive("cup", 10)
    yield* receive("cup", 5, { locationId: "shop" })
    yield* receive("cup", 3, { lotNumber: "L" })
    yield* adjust({
      changeType: "SALE",
      item: { variantId: "cup" },
      quantity: 2,
      orderId: `o${n}`,
      locationId: "shop"
    })
    yield* TestClock.adjust(hour)
  }
})

describe("the books of the past", () => {
  it.effect("tell each movement once, newest first, over partitions and while more are added", () =>
    Effect.gen(function* () {
      const shop = yield* ledgerFrom(eve)
      const { movements, receive } = shop
      yield* history(shop, 7)
      const { data: all } = yield* movements.ofVariant(merchantId, "cup", { limit: 200 })
      assert.strictEqual(all.length, 28)
      const newestFirst = [...all].sort(
        (a, b) =>
          b.recordedAt - a.recordedAt ||
          (a.stockId < b.stockId ? 1 : a.stockId > b.stockId ? -1 : b.sequence - a.sequence)
      )
      assert.deepStrictEqual(all.map(key), newestFirst.map(key))
      for (const limit of [1, 3, 27, 28]) {
        const added = Effect.gen(function* () {
          yield* receive("cup", 1)
          yield* receive("cup", 1, { locationId: "shop" })
          yield* TestClock.adjust(limit % 2)
        })
        const { data: before } = yield* movements.ofVariant(merchantId, "cup", { limit: 200 })
        const { seen } = yield* walk(shop, { limit }, added)
        const found = seen.map(key)
        assert.strictEqual(new Set(found).size, found.length, `pages of ${limit} repeat a movement`)
        const there = new Set(before.map(key))
        assert.deepStrictEqual(
          found.filter((each) => there.has(each)),
          before.map(key),
          `pages of ${limit}`
        )
      }
    })
  )

  it.effect("pick movements by time, from inclusive and to exclusive, and by type", () =>
    Effect.gen(function* () {
      const shop = yield* ledgerFrom(eve)
      const { movements } = shop
      yield* history(shop, 4)
      const { data: all } = yield* movements.ofVariant(merchantId, "cup", { limit: 200 })
      const times = [...new Set(all.map(({ recordedAt }) => recordedAt))].sort((a, b) => a - b)
      assert.deepStrictEqual(
        times,
        [0, 1, 2, 3].map((n) => eve + n * hour)
      )
      const expect = Effect.fnUntraced(function* (
        filter: MovementFilter,
        holds: (movement: Movement) => boolean
      ) {
        for (const limit of [1, 4, 200]) {
          const { seen } = yield* walk(shop, { ...filter, limit })
          assert.deepStrictEqual(
            seen.map(key),
            all.filter(holds).map(key),
            JSON.stringify({ ...filter, limit })
          )
        }
      })
      const [first, second, third] = times as [number, number, number]
      yield* expect({ from: second }, ({ recordedAt }) => recordedAt >= second)
      yield* expect({ from: second + 1 }, ({ recordedAt }) => recordedAt > second)
      yield* expect({ to: second }, ({ recordedAt }) => recordedAt < second)
      yield* expect({ to: second + 1 }, ({ recordedAt }) => recordedAt <= second)
      yield* expect({ from: first, to: third }, ({ recordedAt }) => recordedAt < third)
      yield* expect({ from: second, to: second }, () => false)
      yield* expect({ types: ["SALE"] }, ({ type }) => type === "SALE")
      yield* expect(
        { types: ["SALE", "RETURN"], from: second, to: third },
        ({ recordedAt, type }) => type === "SALE" && recordedAt === second
      )
      yield* expect({ types: ["RETURN"] }, () => false)
    })
  )

  it.effect("look through a bounded number of movements a page, and find the rare one all the same", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const { adjust, item, receive } = shop
      yield* item("cup")
      yield* receive("cup", 1)
      const cup = { variantId: "cup" }
      yield* adjust({ changeType: "RETURN", item: cup, quantity: 1 })
      yield* Effect.forEach(Array.from({ length: 4_100 }), () => receive("cup", 1), {
        concurrency: "unbounded",
        discard: true
      })
      const types: ReadonlyArray<MovementType> = ["RETURN"]
      const { pages, seen } = yield* walk(shop, { types, limit: 5 })
      assert.deepStrictEqual(pages, [0, 0, 1])
      assert.deepStrictEqual(
        seen.map(({ type }) => type),
        ["RETURN"]
      )
    })
  )

  it.effect("have the balance of each stock as it was recorded at any moment", () =>
    Effect.gen(function* () {
      const shop = yield* ledgerFrom(eve)
      const { availability, movements } = shop
      yield* history(shop, 5)
      const now = yield* Clock.currentTimeMillis
      const { data: all } = yield* movements.ofVariant(merchantId, "cup", { limit: 200 })
      const moments = [...new Set(all.flatMap(({ recordedAt: at }) => [at - 1, at, at + 1])), now]
      for (const at of moments) {
        const then = yield* availability.ofVariantAt(merchantId, "cup", at)
        const recorded = all.filter(({ recordedAt }) => recordedAt <= at)
        const sum = (of: (movement: Movement) => number) =>
          recorded.reduce((total, movement) => total + of(movement), 0)
        assert.strictEqual(
          then.quantity,
          sum((movement) => movement.onHandDelta),
          String(at - eve)
        )
        assert.strictEqual(
          then.reservedQuantity,
          sum((movement) => movement.reservedDelta)
        )
        assert.strictEqual(
          then.unallocatableQuantity,
          sum((movement) => movement.unallocatableDelta)
        )
        assert.strictEqual(then.updatedAt, recorded[0]?.recordedAt ?? null)
        for (const stock of then.stocks) {
          const [newest] = recorded.filter(({ stockId }) => stockId === stock.stockId)
          assert.strictEqual(stock.version, newest!.sequence)
          assert.strictEqual(stock.quantity, newest!.onHand)
        }
        assert.strictEqual(then.stocks.length, new Set(recorded.map(({ stockId }) => stockId)).size)
      }
      const { status: _, updatedAt: __, ...current } = yield* availability.ofVariant(merchantId, "cup")
      const { updatedAt: ___, ...latest } = yield* availability.ofVariantAt(merchantId, "cup", now)
      assert.deepStrictEqual(latest, current)
    })
  )

  it.effect("judge a lot's expiry at the moment that is asked for", () =>
    Effect.gen(function* () {
      const { availability, item, receive } = yield* ledger
      yield* item("milk")
      yield* receive("milk", 7, { lotNumber: "L", lotExpiresAt: dawn + 1_000 })
      yield* TestClock.adjust("1 hour")
      const at = (time: number) =>
        Effect.map(
          availability.ofVariantAt(merchantId, "milk", time),
          ({ availableQuantity, quantity, unallocatableQuantity }) => [
            quantity,
            unallocatableQuantity,
            availableQuantity
          ]
        )
      assert.deepStrictEqual(yield* at(dawn + 999), [7, 0, 7])
      assert.deepStrictEqual(yield* at(dawn + 1_000), [7, 7, 0])
      assert.deepStrictEqual(yield* at(dawn - 1), [0, 0, 0])
    })
  )

  it.effect("refuse a moment that lies ahead, but not by as little as clocks differ", () =>
    Effect.gen(function* () {
      const { availability, item, receive } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 1)
      const failure = yield* Effect.flip(availability.ofVariantAt(merchantId, "cup", dawn + 1_001))
      assert.strictEqual(failure._tag, "MomentInFuture")
      assert.strictEqual((yield* availability.ofVariantAt(merchantId, "cup", dawn + 1_000)).quantity, 1)
    })
  )

  it.effect("tell of an item that was deleted since, and of none that was never there", () =>
    Effect.gen(function* () {
      const { availability, item, movements, receive, sql } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 4)
      yield* TestClock.adjust("1 hour")
      yield* sql.run("UPDATE item SET deleted_at = updated_at")
      assert.strictEqual((yield* Effect.flip(availability.ofVariant(merchantId, "cup")))._tag, "ItemNotFound")
      assert.strictEqual((yield* availability.ofVariantAt(merchantId, "cup", dawn)).quantity, 4)
      assert.strictEqual((yield* movements.ofVariant(merchantId, "cup", {})).data.length, 1)
      for (const effect of [
        availability.ofVariantAt(merchantId, "saucer", dawn),
        availability.ofVariantAt("other", "cup", dawn),
        movements.ofVariant(merchantId, "saucer", {}),
        movements.ofVariant("other", "cup", {})
      ]) {
        assert.strictEqual(
          (yield* Effect.flip<unknown, { _tag: string }, never>(effect))._tag,
          "ItemNotFound"
        )
      }
    })
  )

  it.effect("go on from the balances that detached months left, and say what is no longer kept", () =>
    Effect.gen(function* () {
      const shop = yield* ledgerFrom(eve)
      const { availability, context, item, receive } = shop
      yield* item("cup")
      yield* receive("cup", 4)
      yield* TestClock.adjust(hour)
      yield* receive("cup", 2)
      yield* TestClock.adjust(hour) // June
      const june = yield* Clock.currentTimeMillis
      yield* receive("cup", 3)
      yield* TestClock.adjust(month)
      const july = yield* Clock.currentTimeMillis
      yield* receive("cup", 5)
      yield* TestClock.adjust(2 * 24 * hour)
      const at = (time: number) =>
        Effect.match(availability.ofVariantAt(merchantId, "cup", time), {
          onFailure: ({ _tag }) => _tag,
          onSuccess: ({ quantity }) => quantity
        })
      // A millisecond before June's movement lies in June: what was there then is in no closing balance.
      const moments = [eve - 1, eve, eve + hour, june - 1, june, july - 1, july, july + hour]
      assert.deepStrictEqual(yield* Effect.forEach(moments, at), [0, 4, 6, 6, 9, 9, 14, 14])

      const detach = Effect.flatMap(LedgerHistory, (kept) => kept.detach(Date.UTC(2026, 6, 1), "tester"))
      const detached = yield* detach.pipe(Effect.provide(LedgerHistory.layer), Effect.provide(context))
      assert.strictEqual(detached.length, 2)
      assert.deepStrictEqual(yield* Effect.forEach(moments, at), [
        0,
        "HistoryNotKept",
        6,
        "HistoryNotKept",
        9,
        9,
        14,
        14
      ])
      assert.strictEqual(yield* at(june - 30 * 60 * 1000 - 1), 6) // the end of May
      assert.strictEqual(yield* at(june - 30 * 60 * 1000), "HistoryNotKept") // June, before its last movement
    })
  )

  it.effect("let every figure be followed to the movements that made it", () =>
    Effect.gen(function* () {
      const shop = yield* ledgerFrom(eve)
      const { adjust, catalog, confirm, item, movements, receive, reserve, stocks } = shop
      yield* history(shop, 3)
      yield* item("saucer", { sku: "SAUCER" })
      yield* receive("saucer", 20, { lotNumber: "L", lotExpiresAt: eve + 3 * hour + 10_000 })
      yield* receive("saucer", 9)
      yield* reserve("held", [
        ["cup", 7],
        ["saucer", 8]
      ])
      yield* reserve("sold", [["cup", 3]])
      yield* confirm("sold")
      yield* adjust({ changeType: "DAMAGE", item: { variantId: "cup" }, quantity: 2, locationId: "shop" })
      yield* adjust({
        changeType: "CORRECTION",
        item: { variantId: "cup" },
        quantity: 1,
        lotNumber: "L"
      })
      yield* adjust({ changeType: "DAMAGE", item: { variantId: "saucer" }, quantity: 1, lotNumber: "L" })
      yield* TestClock.adjust("20 seconds") // the lot expires with what is free in it

      const { data: items } = yield* catalog.items(merchantId, { kind: "PRODUCT" })
      assert.strictEqual(items.length, 2)
      for (const each of items) {
        const total = { quantity: 0, reserved: 0, unallocatable: 0, available: 0 }
        const { data: ofItem } = yield* stocks.list(merchantId, { productVariantId: each.productVariantId! })
        assert.isAbove(ofItem.length, 1)
        for (const stock of ofItem) {
          const { data: rows } = yield* movements.ofStock(merchantId, stock.stockId, { limit: 200 })
          const sum = (of: (movement: Movement) => number) => rows.reduce((all, row) => all + of(row), 0)
          assert.strictEqual(
            stock.quantity,
            sum((row) => row.onHandDelta)
          )
          assert.strictEqual(
            stock.reservedQuantity,
            sum((row) => row.reservedDelta)
          )
          assert.strictEqual(
            stock.unallocatableQuantity - stock.expiredQuantity,
            sum((row) => row.unallocatableDelta)
          )
          assert.strictEqual(stock.version, rows[0]!.sequence)
          assert.deepStrictEqual(stock, yield* stocks.byId(merchantId, stock.stockId))
          total.quantity += stock.quantity
          total.reserved += stock.reservedQuantity
          total.unallocatable += stock.unallocatableQuantity
          // What one stock is below zero is not for sale in another.
          const { expiredQuantity, quantity, reservedQuantity, unallocatableQuantity } = stock
          const balance = quantity - reservedQuantity - (unallocatableQuantity - expiredQuantity)
          total.available += stock.availableQuantity + Math.min(0, balance)
        }
        assert.deepStrictEqual(total, {
          quantity: each.quantity,
          reserved: each.reservedQuantity,
          unallocatable: each.unallocatableQuantity,
          available: each.availableQuantity
        })
      }
      const { data: expired } = yield* stocks.list(merchantId, { sku: "SAUCER" })
      assert.deepStrictEqual(
        expired
          .map(({ expiredQuantity, unallocatableQuantity }) => [expiredQuantity, unallocatableQuantity])
          .sort(([a], [b]) => a! - b!),
        [
          [0, 0],
          [11, 12]
        ]
      )
    })
  )
})
