import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import { TerminalCapabilities } from "effect/cli"
import { type Column, printRows, table, widthOf } from "../../src/cli/Table.ts"

interface Stock {
  readonly item: string
  readonly quantity: number | null
  readonly lot?: string | null
}
const columns: ReadonlyArray<Column<Stock>> = [
  { title: "item", value: (row) => row.item },
  {
    title: "quantity",
    value: (row) => row.quantity,
    colour: (row) => ((row.quantity ?? 0) < 0 ? "red" : undefined)
  },
  { title: "lot", value: (row) => row.lot }
]

/** What is printed, line by line. */
const printed = (effect: Effect.Effect<void>, canColor = false) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const recorder = { ...console, log: (line: string) => lines.push(line) }
    yield* effect.pipe(
      Effect.provideService(Console.Console, recorder),
      Effect.provideService(TerminalCapabilities.TerminalCapabilities, {
        canColor,
        canAnimate: false,
        canPrompt: false
      })
    )
    return lines
  })

describe("a table", () => {
  it("aligns text to the left and numbers to the right, and ends no line in blanks", () => {
    const rows = [
      { item: "cup", quantity: 5, lot: "A" },
      { item: "saucer", quantity: -1200, lot: null }
    ]
    assert.deepStrictEqual(table(rows, columns), [
      "item    quantity  lot",
      "cup            5  A",
      "saucer     -1200  -"
    ])
  })

  it("keeps columns apart where characters are wide, combined or pictures", () => {
    assert.strictEqual(widthOf("茶碗"), 4)
    assert.strictEqual(widthOf("カップ"), 6)
    assert.strictEqual(widthOf("ｶｯﾀ"), 3)
    assert.strictEqual(widthOf("컵"), 2)
    assert.strictEqual(widthOf("☕"), 2)
    assert.strictEqual(widthOf("👩‍🍳"), 2)
    assert.strictEqual(widthOf("e\u0301"), 1)
    assert.strictEqual(widthOf("Größe"), 5)
    const rows = [
      { item: "茶碗", quantity: 1 },
      { item: "cup", quantity: 2 }
    ]
    assert.deepStrictEqual(table(rows, columns.slice(0, 2)), [
      "item  quantity",
      "茶碗         1",
      "cup          2"
    ])
  })

  it("never lets data steer the terminal", () => {
    const rows = [{ item: "a\u001b[2Jb\nc\u202Ed", quantity: 1 }]
    assert.deepStrictEqual(table(rows, columns.slice(0, 2)), [
      "item        quantity",
      "a\uFFFD[2Jb\uFFFDc\uFFFDd         1"
    ])
  })

  it("aligns a column without any number as text", () => {
    assert.deepStrictEqual(table([{ item: "a", quantity: null }], columns), [
      "item  quantity  lot",
      "a     -         -"
    ])
  })

  it.effect("has colours only where the terminal takes them, and pads by what is seen", () =>
    Effect.gen(function* () {
      const rows = [{ item: "cup", quantity: -1 }]
      const print = printRows(rows, columns.slice(0, 2), { json: false, empty: "Nothing." })
      assert.deepStrictEqual(yield* printed(print), ["item  quantity", "cup         -1"])
      assert.deepStrictEqual(yield* printed(print, true), [
        "\u001b[1mitem\u001b[0m  \u001b[1mquantity\u001b[0m",
        "cup         \u001b[31m-1\u001b[0m"
      ])
    })
  )

  it.effect("prints JSON without colours, one value a line, and nothing where there is nothing", () =>
    Effect.gen(function* () {
      const rows = [{ item: "a\nb", quantity: 1 }]
      const json = { json: true, empty: "Nothing." }
      assert.deepStrictEqual(yield* printed(printRows(rows, columns, json), true), [JSON.stringify(rows[0])])
      assert.deepStrictEqual(yield* printed(printRows([], columns, json)), [])
      const words = { json: false, empty: "Nothing." }
      assert.deepStrictEqual(yield* printed(printRows([], columns, words)), ["Nothing."])
    })
  )
})
