import { Console, Effect, Option, Terminal } from "effect"
import { CliOutput, TerminalCapabilities } from "effect/cli"
import { timestamp } from "../schema/Time.ts"

/** What commands print: aligned tables for a person, one JSON value a line for a program. */

/** One column. A value that is not there shows as `-`; a column in which there is nothing is left out. */
export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string | number | null | undefined
  /** Only on a terminal that takes colours. */
  readonly colour?: (row: Row) => Colour | undefined
  /**
   * A column of ids, which are never broken into lines. One that is `shortened` shows no more of their ends than tells
   * them apart, where the table would be too wide; commands that take such an id take its end.
   */
  readonly id?: "whole" | "shortened"
  /** Zero is nothing as well: what is hardly ever anything else. */
  readonly zeroIsNothing?: boolean
}
export type Colour = keyof typeof sequences

/** Select Graphic Rendition: what begins a colour. */
const sequences = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2, bold: 1 } as const
const reset = "\u001b[0m"
const painted = (text: string, colour: Colour | undefined): string =>
  colour === undefined || text === "" ? text : `\u001b[${sequences[colour]}m${text}${reset}`

/** A line of text in a colour, where the terminal takes colours. */
export const paint = (text: string, colour: Colour): Effect.Effect<string> =>
  Effect.map(TerminalCapabilities.TerminalCapabilities, ({ canColor }) =>
    canColor ? painted(text, colour) : text
  )

/** What separates columns. */
const gap = "  "
/** Text is broken into lines of at least this width; a terminal that is narrower yet has lines that it breaks itself. */
const cellWidthMin = 8
/** Words up to this width (a time of day has it) are broken only where lines of whole words would be too wide. */
const wordWidthMax = 13
const idEndMin = 6

interface Shown {
  readonly title: string
  readonly cells: ReadonlyArray<string>
  readonly colours: ReadonlyArray<Colour | undefined>
  readonly isNumeric: boolean
  readonly id: Column<never>["id"]
  width: number
}

/**
 * The lines of a table: a heading, then the rows, columns padded to the widest value as a terminal shows it. A column
 * of numbers is aligned to the right, and no line ends in blanks. Where `width` is given and the table is wider, ids are
 * shortened and text is broken into lines inside of its column, the widest first.
 */
export const table = <Row>(
  rows: ReadonlyArray<Row>,
  columns: ReadonlyArray<Column<Row>>,
  options: { readonly colours?: boolean; readonly width?: number } = {}
): ReadonlyArray<string> => {
  const colours = options.colours ?? false
  const shown = columns.flatMap(({ colour, id, title, value, zeroIsNothing }): ReadonlyArray<Shown> => {
    const values = rows.map(value)
    const isNothing = (each: (typeof values)[number]): boolean =>
      each === null || each === undefined || (zeroIsNothing === true && each === 0)
    if (values.every(isNothing)) return []
    const cells = values.map((each) => plain(each ?? "-"))
    return [
      {
        title,
        cells,
        colours: colours && colour !== undefined ? rows.map(colour) : [],
        isNumeric: values.every((each) => typeof each !== "string"),
        id,
        width: widthOfAll([title, ...cells])
      }
    ]
  })
  const fitted = fit(shown, options.width ?? Number.POSITIVE_INFINITY)
  const line = (cell: (column: Shown) => readonly [string, Colour | undefined]): ReadonlyArray<string> => {
    const cells = fitted.map((column) => {
      const [text, colour] = cell(column)
      return { column, colour, lines: wrap(text, column.width) }
    })
    const height = Math.max(...cells.map(({ lines }) => lines.length))
    return Array.from({ length: height }, (_, at) => {
      const last = cells.findLastIndex(({ lines }) => (lines[at] ?? "") !== "")
      return cells
        .slice(0, last + 1)
        .map(({ colour, column, lines }, index) => {
          const text = lines[at] ?? ""
          const padding = " ".repeat(column.width - CliOutput.displayWidth(text))
          const ink = painted(text, colour)
          return column.isNumeric ? padding + ink : index === last ? ink : ink + padding
        })
        .join(gap)
    })
  }
  return [
    ...line(({ title }) => [title, colours ? "bold" : undefined]),
    ...rows.flatMap((_, index) => line((column) => [column.cells[index]!, column.colours[index]]))
  ]
}

const widthOfAll = (texts: ReadonlyArray<string>): number =>
  Math.max(...texts.map((text) => CliOutput.displayWidth(text)))
const totalWidth = (columns: ReadonlyArray<Shown>): number =>
  columns.reduce((sum, { width }) => sum + width, gap.length * (columns.length - 1))

/** The columns as they fit into the width, as far as they can. */
const fit = (columns: ReadonlyArray<Shown>, width: number): ReadonlyArray<Shown> => {
  if (totalWidth(columns) <= width) return columns
  const fitted = columns.map((column) => (column.id === "shortened" ? shortened(column) : { ...column }))
  const breakable = fitted.filter(({ id, isNumeric }) => id === undefined && !isNumeric)
  const widthOfWords = ({ cells, title }: Shown): number =>
    Math.max(cellWidthMin, Math.min(wordWidthMax, widthOfAll([title, ...cells].flatMap(wordsOf))))
  for (const widthMin of [widthOfWords, () => cellWidthMin]) {
    const least = new Map(breakable.map((column) => [column, widthMin(column)]))
    for (let excess = totalWidth(fitted) - width; excess > 0; excess -= 1) {
      const [widest] = breakable
        .filter((column) => column.width > least.get(column)!)
        .toSorted((one, other) => other.width - one.width)
      if (widest === undefined) break
      widest.width -= 1
    }
  }
  return fitted
}

/** A text may be broken behind these. */
const wordsOf = (text: string): ReadonlyArray<string> => text.split(/(?<=[\s,;/])/u)

/** Ends and not beginnings, because those of version 7 begin with their time. */
const shortened = (column: Shown): Shown => {
  const ids = [...new Set(column.cells)]
  let length = idEndMin
  while (new Set(ids.map((id) => id.slice(-length))).size < ids.length) length += 1
  const cells = column.cells.map((id) => (id.length > length + 1 ? `…${id.slice(-length)}` : id))
  return { ...column, cells, width: widthOfAll([column.title, ...cells]) }
}

const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" })

/** Lines of at most this width: broken between words where one ends in time, otherwise wherever they are full. */
const wrap = (text: string, width: number): ReadonlyArray<string> => {
  if (CliOutput.displayWidth(text) <= width) return [text]
  const lines: Array<string> = []
  let line = ""
  for (const word of wordsOf(text)) {
    if (line !== "" && CliOutput.displayWidth((line + word).trimEnd()) > width) {
      lines.push(line.trimEnd())
      line = ""
    }
    for (const { segment } of graphemes.segment(word)) {
      if (CliOutput.displayWidth((line + segment).trimEnd()) > width) {
        lines.push(line)
        line = ""
      }
      line += segment
    }
  }
  return [...lines, line.trimEnd()]
}

/** Prints rows: as JSON, one value a line, or as a table; `empty` says in words that there are none. */
export const printRows = Effect.fnUntraced(function* <Row>(
  rows: ReadonlyArray<Row>,
  columns: ReadonlyArray<Column<Row>>,
  options: { readonly json: boolean; readonly empty: string }
) {
  if (options.json) return yield* Effect.forEach(rows, printJson, { discard: true })
  if (rows.length === 0) return yield* Console.log(options.empty)
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  const terminal = yield* Effect.serviceOption(Terminal.Terminal)
  // 0 where it is no terminal.
  const width = Option.isSome(terminal) ? yield* terminal.value.columns : 0
  const lines = table(rows, columns, { colours: canColor, ...(width > 0 ? { width } : {}) })
  for (const line of lines) yield* Console.log(line)
})

/** Prints a value as JSON in one line, with times as HTTP has them. */
export const printJson = (value: unknown): Effect.Effect<void> =>
  Console.log(JSON.stringify(withTimes(value)))

/** Epoch milliseconds go by these names inside; what a caller gave is left as it is. */
const isTime = /(^at|At|^from|^until|^to)$/
const given = new Set(["metadata", "headers", "payload"])
const withTimes = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(withTimes)
    : typeof value === "object" && value !== null
      ? Object.fromEntries(
          Object.entries(value).map(([name, each]) => [
            name,
            typeof each === "number" && isTime.test(name)
              ? timestamp(each)
              : given.has(name)
                ? each
                : withTimes(each)
          ])
        )
      : value

/** A moment as a person reads it, in UTC as everywhere: `2030-01-31 12:00:00.000Z`. */
export const momentOf = (at: number | null): string | null =>
  at === null ? null : new Date(at).toISOString().replace("T", " ")

/** What would move the cursor or hide in a terminal is shown as a mark: data never steers the screen it is shown on. */
const plain = (value: string | number): string =>
  String(value).replace(/[\p{Cc}\p{Cs}\p{Bidi_C}]/gu, "\uFFFD")

/** The colour of a quantity that should not be negative. */
export const negative = (quantity: number) => (quantity < 0 ? "red" : undefined)
