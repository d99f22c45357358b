import { assert, describe, it } from "@effect/vitest"
import type { StockFileRow } from "../../../src/schema/StockFileRow.ts"
import type { LoadRows, PreviewRows } from "../../../src/services/kernel/commands/files.ts"
import { fileChunks } from "../../../src/services/kernel/tables/files.ts"
import { Desk, variant } from "../../support/books.ts"

/** Rows of files: loaded once by the file's bytes and their line, each for itself. */

const loading = (
  rows: Readonly<Record<number, StockFileRow>>,
  terms: Partial<Omit<LoadRows, "_tag" | "rows">> = {}
): LoadRows => ({
  _tag: "LoadRows",
  fileHash: "h",
  chunk: 0,
  run: "first",
  again: false,
  reason: "import of stock.csv",
  ...terms,
  rows: Object.entries(rows).map(([line, row]) => ({ line: Number(line), row }))
})
const previewing = (...of: Parameters<typeof loading>): PreviewRows => ({
  ...loading(...of),
  _tag: "PreviewRows"
})
const cup = (quantity: number, more: StockFileRow = {}): StockFileRow => ({
  productVariantId: "cup",
  quantity,
  ...more
})
const pot = (quantity: number, more: StockFileRow = {}): StockFileRow => ({
  productVariantId: "pot",
  quantity,
  ...more
})
const sell = (desk: Desk, quantity: number): void => {
  desk.post({ _tag: "AdjustStock", changeType: "SALE", item: variant("cup"), quantity })
}
const linesOf = (desk: Desk): ReadonlyArray<unknown> =>
  [...desk.store.of(fileChunks).values()].map(({ loads }) =>
    (loads["loads"] as ReadonlyArray<{ readonly run: string; readonly lines: unknown }>).map(
      ({ lines, run }) => [run, lines]
    )
  )

describe("rows of a file", () => {
  it("are loaded once by each file, whatever moved since, and others are told when", () => {
    const desk = new Desk()
    const rows = { 2: cup(5), 3: pot(7), 5: { productVariantId: "jug" } }
    const first = desk.post(loading(rows))
    assert.deepStrictEqual([first.refused, first.earlier], [[], []])
    assert.deepStrictEqual(linesOf(desk), [
      [
        [
          "first",
          [
            [2, 3],
            [5, 5]
          ]
        ]
      ]
    ])
    sell(desk, 2)
    // Its own run is not told so: it was this one that loaded them.
    assert.deepStrictEqual(desk.post(loading(rows)).earlier, [])
    const rowsBefore = desk.store.tracking.size
    const second = desk.post(loading(rows, { run: "second" }))
    assert.deepStrictEqual(second.earlier, [{ at: first.at, lines: 3 }])
    // Nothing is written where nothing is loaded.
    assert.strictEqual(desk.store.tracking.size, rowsBefore)
    assert.strictEqual(desk.item("cup").onHand, 3)
    // Of another file, or other lines of this one.
    assert.deepStrictEqual(desk.post(loading({ 2: cup(4) }, { fileHash: "other" })).earlier, [])
    assert.strictEqual(desk.item("cup").onHand, 4)
    assert.deepStrictEqual(desk.post(loading({ 9: cup(6) }, { run: "third" })).earlier, [])
    assert.strictEqual(desk.item("cup").onHand, 6)
  })

  it("are loaded again by a run that says so, once by each of them", () => {
    const desk = new Desk()
    const rows = { 2: cup(5) }
    desk.post(loading(rows))
    sell(desk, 2)
    const again = loading(rows, { run: "second", again: true })
    assert.deepStrictEqual(desk.post(again).earlier, [])
    assert.strictEqual(desk.item("cup").onHand, 5)
    sell(desk, 1)
    desk.post(again)
    assert.strictEqual(desk.item("cup").onHand, 4)
    assert.strictEqual(desk.post(loading(rows, { run: "third" })).earlier[0]!.lines, 1)
    assert.deepStrictEqual(linesOf(desk), [[["second", [[2, 2]]]]])
  })

  it("that were refused leave nothing, and are tried again by the next run", () => {
    const desk = new Desk()
    const rows = { 2: cup(5), 3: pot(1, { sku: "S", expectedQuantity: 4 }), 4: pot(2, { sku: "T" }) }
    const first = desk.post(loading(rows))
    assert.deepStrictEqual(first.refused, [
      { line: 3, failure: { _tag: "StockMoved", expectedQuantity: 4, quantity: 0, version: 0 } }
    ])
    assert.strictEqual(desk.item("pot").sku, "T")
    desk.post({ _tag: "AdjustStock", changeType: "CORRECTION", item: variant("pot"), quantity: 4 })
    const second = desk.post(loading(rows, { run: "second" }))
    assert.deepStrictEqual([second.refused, second.earlier], [[], [{ at: first.at, lines: 2 }]])
    assert.strictEqual(desk.item("pot").onHand, 1)
    assert.deepStrictEqual(desk.post(loading(rows, { run: "third" })).refused, [])
    assert.strictEqual(desk.item("pot").onHand, 1)
  })

  it("that a run was to load again and that were refused are tried again", () => {
    const desk = new Desk()
    const rows = { 2: cup(5, { expectedQuantity: 0 }) }
    desk.post(loading(rows))
    assert.strictEqual(desk.post(loading(rows, { run: "second", again: true })).refused.length, 1)
    assert.strictEqual(desk.post(loading(rows, { run: "third" })).refused.length, 1)
    sell(desk, 5)
    assert.deepStrictEqual(desk.post(loading(rows, { run: "fourth" })).refused, [])
    assert.strictEqual(desk.item("cup").onHand, 5)
  })

  it("are compare-and-set by what they expect, of a stock that is there or not", () => {
    for (const [expects, isLoaded] of [
      [{ expectedQuantity: 5 }, true],
      [{ expectedQuantity: 4 }, false],
      [{ expectedVersion: 1 }, true],
      [{ expectedVersion: 0 }, false],
      [{ expectedQuantity: 5, expectedVersion: 1 }, true],
      [{ expectedQuantity: 5, expectedVersion: 2 }, false],
      [{ locationId: "default", lotNumber: "L", expectedQuantity: 0, expectedVersion: 0 }, true],
      [{ locationId: "default", lotNumber: "L", expectedQuantity: 5 }, false]
    ] as const) {
      const desk = new Desk()
      desk.post(loading({ 2: cup(5) }))
      const { refused } = desk.post(loading({ 2: cup(8, expects) }, { fileHash: "other" }))
      assert.strictEqual(refused.length === 0, isLoaded, JSON.stringify(expects))
      if (!isLoaded) assert.strictEqual(desk.item("cup").onHand, 5)
    }
  })

  it("of a preview change nothing, and are answered as they would be", () => {
    const desk = new Desk()
    const rows = { 2: cup(5, { locationId: "shop", name: "Cup" }), 3: pot(1, { expectedQuantity: 2 }) }
    const dry = desk.post(previewing(rows))
    assert.deepStrictEqual(
      dry.refused.map(({ line }) => line),
      [3]
    )
    assert.deepStrictEqual(dry.locations, ["shop"])
    assert.strictEqual(desk.store.merchants.size, 0)
    assert.strictEqual(desk.store.items.size, 0)
    assert.strictEqual(desk.store.tracking.size, 0)
    assert.deepStrictEqual(desk.store.events, [])
    const attributes = { lowStockThreshold: 0, safetyStock: 0, countTolerance: 0, stocked: true }
    const after = {
      productVariantId: "cup",
      quantity: 5,
      locationId: "shop",
      lotNumber: "",
      name: "Cup",
      ...attributes
    }
    assert.deepStrictEqual(dry.changes, [{ line: 2, before: null, after }])
    desk.post({ _tag: "EnsureLocation", locationId: "shop" })
    assert.deepStrictEqual(desk.post(loading(rows)).refused.length, 1)
    const second = desk.post(previewing({ 2: cup(9) }, { fileHash: "other" }))
    assert.deepStrictEqual(second.changes, [{ line: 2, before: after, after: { ...after, quantity: 9 } }])
    assert.strictEqual(desk.item("cup").onHand, 5)
  })
})
