import { assert, describe, it } from "@effect/vitest"
import { Console, Effect } from "effect"
import { CliOutput, TerminalCapabilities } from "effect/cli"
import * as fc from "fast-check"
import { type Column, printJson, printRows, table } from "../../src/cli/Table.ts"

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
    const names = ["茶碗", "カップ", "ｶｯﾀ", "컵", "☕", "👩‍🍳", "e\u0301", "Größe"]
    const rows = names.map((item) => ({ item, quantity: 1 }))
    assert.deepStrictEqual(table(rows, columns.slice(0, 2)).slice(1), [
      "茶碗           1",
      "カップ         1",
      "ｶｯﾀ            1",
      "컵             1",
      "☕             1",
      "👩‍🍳             1",
      "e\u0301              1",
      "Größe          1"
    ])
  })

  it("never lets data steer the terminal", () => {
    const rows = [{ item: "a\u001b[2Jb\nc\u202Ed", quantity: 1 }]
    assert.deepStrictEqual(table(rows, columns.slice(0, 2)), [
      "item        quantity",
      "a\uFFFD[2Jb\uFFFDc\uFFFDd         1"
    ])
  })

  it("leaves out a column in which there is nothing", () => {
    assert.deepStrictEqual(table([{ item: "a", quantity: null }], columns), ["item", "a"])
  })

  const wide: ReadonlyArray<
    Column<{ readonly id: string; readonly text: string; readonly quantity: number }>
  > = [
    { title: "quantity", value: (row) => row.quantity },
    { title: "text", value: (row) => row.text },
    { title: "id", value: (row) => row.id, id: "shortened" }
  ]
  const long = [
    {
      id: "01a2269f-aee2-7a63-8648-0fab87d23df7",
      text: "wrote to the customer, no answer yet",
      quantity: 12
    },
    { id: "01a2269f-aee2-7a63-8648-0fab97d23df7", text: "茶碗茶碗茶碗茶碗茶碗茶碗茶碗", quantity: 3 }
  ]

  it("that is wider than its terminal shortens ids to the ends that tell them apart", () => {
    assert.deepStrictEqual(table(long, wide, { width: 60 }), [
      "quantity  text                                  id",
      "      12  wrote to the customer, no answer yet  …87d23df7",
      "       3  茶碗茶碗茶碗茶碗茶碗茶碗茶碗          …97d23df7"
    ])
  })

  it("breaks text into lines inside of its column, between words or where a word is too long", () => {
    const lines = table(long, wide, { width: 36 })
    assert.deepStrictEqual(lines, [
      "quantity  text             id",
      "      12  wrote to the     …87d23df7",
      "          customer, no",
      "          answer yet",
      "       3  茶碗茶碗茶碗茶   …97d23df7",
      "          碗茶碗茶碗茶碗"
    ])
  })

  it("gives up where a terminal is too narrow for any table, and never breaks an id that is typed", () => {
    const ids: ReadonlyArray<Column<string>> = [
      { title: "id", value: (id) => id, id: "whole" },
      { title: "n", value: () => 1 }
    ]
    assert.deepStrictEqual(table([long[0]!.id], ids, { width: 10 }), [
      "id                                    n",
      `${long[0]!.id}  1`
    ])
  })

  it("fits every row into the terminal, whatever its texts are", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ id: fc.uuid(), text: fc.string({ unit: "grapheme" }), quantity: fc.nat(999) }), {
          minLength: 1,
          maxLength: 5
        }),
        fc.integer({ min: 60, max: 90 }),
        (rows, width) => table(rows, wide, { width }).every((line) => CliOutput.displayWidth(line) <= width)
      )
    )
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

  it.effect("prints JSON with the times of HTTP, and leaves alone what a caller gave", () =>
    Effect.gen(function* () {
      const at = Date.UTC(2030, 0, 31, 12)
      const time = "2030-01-31T12:00:00.000Z"
      const value = {
        at,
        stocks: [{ expiresAt: at, quantity: 5 }],
        replayedAt: null,
        metadata: { paidAt: 1 }
      }
      assert.deepStrictEqual(yield* printed(printJson(value)), [
        JSON.stringify({
          at: time,
          stocks: [{ expiresAt: time, quantity: 5 }],
          replayedAt: null,
          metadata: { paidAt: 1 }
        })
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
