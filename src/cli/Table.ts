import { Console, Effect } from "effect"
import { TerminalCapabilities } from "effect/cli"
import { timestamp } from "../schema/Time.ts"

/** What commands print: aligned tables for a person, one JSON value a line for a program. */

/** One column. A value that is not there shows as `-`. */
export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string | number | null | undefined
  /** Only on a terminal that takes colours. */
  readonly colour?: (row: Row) => Colour | undefined
  /** A column of ids, which are never broken into lines. */
  readonly id?: "whole"
}
export type Colour = keyof typeof sequences

/** Select Graphic Rendition: what begins a colour. */
const sequences = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2, bold: 1 } as const
const reset = "\u001b[0m"
const painted = (text: string, colour: Colour | undefined): string =>
  colour === undefined ? text : `\u001b[${sequences[colour]}m${text}${reset}`

/** A line of text in a colour, where the terminal takes colours. */
export const paint = (text: string, colour: Colour): Effect.Effect<string> =>
  Effect.map(TerminalCapabilities.TerminalCapabilities, ({ canColor }) =>
    canColor ? painted(text, colour) : text
  )

/** What separates columns. */
const gap = "  "

/**
 * The lines of a table: a heading, then the rows, columns padded to the widest value as a terminal shows it. A column
 * of numbers is aligned to the right. The last column is not padded, so that no line ends in blanks.
 */
export const table = <Row>(
  rows: ReadonlyArray<Row>,
  columns: ReadonlyArray<Column<Row>>,
  options: { readonly colours?: boolean } = {}
): ReadonlyArray<string> => {
  const colours = options.colours ?? false
  const shown = columns.map(({ colour, title, value }) => {
    const values = rows.map(value)
    const cells = values.map((each) => plain(each ?? "-"))
    return {
      title,
      cells,
      colours: colours && colour !== undefined ? rows.map(colour) : [],
      isNumeric:
        values.every((each) => typeof each !== "string") && values.some((each) => typeof each === "number"),
      width: Math.max(...[title, ...cells].map(widthOf))
    }
  })
  const line = (cell: (column: (typeof shown)[number]) => readonly [string, Colour | undefined]): string =>
    shown
      .map((column, index) => {
        const [text, colour] = cell(column)
        const padding = " ".repeat(column.width - widthOf(text))
        const ink = painted(text, colour)
        if (column.isNumeric) return padding + ink
        return index === shown.length - 1 ? ink : ink + padding
      })
      .join(gap)
  return [
    line(({ title }) => [title, colours ? "bold" : undefined]),
    ...rows.map((_, index) => line((column) => [column.cells[index]!, column.colours[index]]))
  ]
}

/** Prints rows: as JSON, one value a line, or as a table; `empty` says in words that there are none. */
export const printRows = Effect.fnUntraced(function* <Row>(
  rows: ReadonlyArray<Row>,
  columns: ReadonlyArray<Column<Row>>,
  options: { readonly json: boolean; readonly empty: string }
) {
  if (options.json) {
    for (const row of rows) yield* printJson(row)
    return
  }
  if (rows.length === 0) return yield* Console.log(options.empty)
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  for (const line of table(rows, columns, { colours: canColor })) yield* Console.log(line)
})

/** Prints a value as JSON in one line, with times as HTTP has them: what is called `…At` is a moment. */
export const printJson = (value: unknown): Effect.Effect<void> =>
  Console.log(
    JSON.stringify(value, (name, each: unknown) =>
      name.endsWith("At") && typeof each === "number" ? timestamp(each) : each
    )
  )

/** A moment as a person reads it, in UTC as everywhere: `2030-01-31 12:00:00.000Z`. */
export const momentOf = (at: number | null): string | null =>
  at === null ? null : new Date(at).toISOString().replace("T", " ")

/** What would move the cursor or hide in a terminal is shown as a mark: data never steers the screen it is shown on. */
const plain = (value: string | number): string =>
  String(value).replace(/[\p{Cc}\p{Cs}\p{Bidi_C}]/gu, "\uFFFD")

const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" })
/** What takes two cells: East Asian wide characters and pictures. */
const wide =
  /^[[\p{sc=Han}\p{sc=Hangul}\p{sc=Hiragana}\p{sc=Katakana}\p{Emoji_Presentation}\u3000-\u303E\uFF01-\uFF60\uFFE0-\uFFE6]--[\uFF61-\uFFDC]]|\uFE0F/v
const invisible = /^[\p{Mn}\p{Me}\p{Cf}]+$/u

/** How many cells of a terminal a text takes. */
export const widthOf = (text: string): number => {
  let width = 0
  for (const { segment } of graphemes.segment(text)) {
    width += invisible.test(segment) ? 0 : wide.test(segment) ? 2 : 1
  }
  return width
}

/** The colour of a quantity that should not be negative. */
export const negative = (quantity: number) => (quantity < 0 ? "red" : undefined)
