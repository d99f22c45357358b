import { Console, Effect } from "effect"
import { type Problem, problemOf } from "../http/contract/Problem.ts"
import type { Failing } from "../http/contract/ProblemKinds.ts"
import { type StockFileRow, writtenColumns } from "../schema/StockFileRow.ts"
import { timestamp } from "../schema/Time.ts"
import { ValidationFailed } from "../schema/Validation.ts"
import type { Loaded, Previewed } from "../services/stock/StockFiles.ts"
import { memberLines, membersOf } from "./failures.ts"
import type { RejectsFile, RejectsUnwritable } from "./RejectsFile.ts"
import { fieldsOf, type Place, type RowChunk } from "./StockFile.ts"
import { momentOf } from "./Table.ts"

/** The progress bar is for a person at a terminal, never for a file or a pipe. */
const terminal = process.stderr
const barWidth = 30
/** Moves to the first column and clears the line. */
const startOfLine = "\r\u001b[K"

/** Reports an import in the file's order: refused rows, what a dry run would change, and a summary. */
export class ImportReport {
  readonly #json: boolean
  readonly #dryRun: boolean
  readonly #bytes: number
  readonly #rejects: RejectsFile | undefined
  rows = 0
  refused = 0
  #unchanged = 0
  #changed = 0
  #withQuantity = 0
  #severalLines = 0
  #firstOfSeveral: Place | undefined
  #earlier = 0
  #earliest = Number.POSITIVE_INFINITY
  #latest = Number.NEGATIVE_INFINITY
  readonly #locations = new Set<string>()

  constructor(options: {
    readonly json: boolean
    readonly dryRun: boolean
    readonly bytes: number
    readonly rejects: RejectsFile | undefined
  }) {
    this.#json = options.json
    this.#dryRun = options.dryRun
    this.#bytes = options.bytes
    this.#rejects = options.rejects
  }

  createdLocation(locationId: string): void {
    this.#locations.add(locationId)
  }

  /** What became of a chunk's rows; `loaded` is of those that could be read. */
  take(
    { bytesRead, reads }: RowChunk,
    loaded: Loaded | Previewed | undefined
  ): Effect.Effect<void, RejectsUnwritable> {
    this.rows += reads.length
    for (const { at, lines } of loaded?.earlier ?? []) {
      this.#earlier += lines
      this.#earliest = Math.min(this.#earliest, at)
      this.#latest = Math.max(this.#latest, at)
    }
    const preview = loaded !== undefined && "changes" in loaded ? loaded : undefined
    for (const locationId of preview?.locations ?? []) this.#locations.add(locationId)
    const failures = new Map(loaded?.refused.map(({ failure, line }) => [line, failure]))
    const changes = new Map(preview?.changes.map((change) => [change.line, change]))
    const lines: Array<Effect.Effect<void, RejectsUnwritable>> = []
    for (const read of reads) {
      if (read.lastLine > read.line) {
        this.#severalLines += 1
        this.#firstOfSeveral ??= read
      }
      const failure = failures.get(read.line)
      const change = changes.get(read.line)
      if ("complaint" in read) lines.push(this.#refuse(read, unreadable(read.complaint)))
      else if (failure !== undefined) lines.push(this.#refuse(read, problemOf(failure as unknown as Failing)))
      else if (change !== undefined) lines.push(this.#change(change))
      if ("row" in read && read.row.quantity !== undefined) this.#withQuantity += 1
    }
    return Effect.andThen(Effect.all(lines, { discard: true }), this.#show(bytesRead))
  }

  #refuse(place: Place, problem: Problem): Effect.Effect<void, RejectsUnwritable> {
    this.refused += 1
    const { lastLine, line } = place
    const { code, detail } = problem
    const members = membersOf(problem)
    const spoken = this.#json
      ? Console.log(
          JSON.stringify({ line, ...(lastLine > line ? { lastLine } : {}), code, detail, ...members })
        )
      : Effect.andThen(
          this.clear,
          Console.error(shown(`${linesOf(place)}: ${code}: ${[detail, ...memberLines(members)].join("; ")}`))
        )
    return this.#rejects === undefined ? spoken : Effect.andThen(spoken, this.#rejects.add(place))
  }

  /** Of a dry run: what would be there instead of what. */
  #change({ after, before, line }: Previewed["changes"][number]): Effect.Effect<void> {
    const differences = differencesOf(before, after)
    if (differences.length === 0) {
      this.#unchanged += 1
      return Effect.void
    }
    this.#changed += 1
    if (this.#json) {
      return Console.log(
        JSON.stringify({ line, before: before === null ? null : fieldsOf(before), after: fieldsOf(after) })
      )
    }
    const name = after.productVariantId ?? after.sku
    const place =
      after.locationId === undefined
        ? ""
        : ` at ${after.locationId}${after.lotNumber ? `, lot ${after.lotNumber}` : ""}`
    const isNew = before === null ? "new item " : ""
    return Effect.andThen(
      this.clear,
      Console.log(shown(`line ${line}: ${isNew}${name}${place}: ${differences.join(", ")}`))
    )
  }

  #show(bytesRead: number): Effect.Effect<void> {
    if (!terminal.isTTY) return Effect.void
    const part = this.#bytes === 0 ? 1 : Math.min(1, bytesRead / this.#bytes)
    const full = Math.floor(part * barWidth)
    const bar = `[${"#".repeat(full)}${".".repeat(barWidth - full)}]`
    return Effect.sync(() => {
      terminal.write(`${startOfLine}${bar} ${Math.floor(part * 100)} %  ${this.rows} rows`)
    })
  }

  /** Clears the progress bar, so that a line can be printed in its place. */
  get clear(): Effect.Effect<void> {
    return Effect.sync(() => {
      if (terminal.isTTY) terminal.write(startOfLine)
    })
  }

  summarize(elapsedMs: number, unreadColumns: ReadonlyArray<string>): Effect.Effect<void> {
    const { refused, rows } = this
    const earlier = this.#earlier
    const locations = [...this.#locations]
    const loaded = this.#dryRun ? 0 : rows - refused - earlier
    if (this.#json) {
      const summary = {
        rows,
        loaded,
        refused,
        replayed: earlier,
        replayedFrom: earlier === 0 ? null : timestamp(this.#earliest),
        replayedTo: earlier === 0 ? null : timestamp(this.#latest),
        ...(this.#dryRun ? { dryRun: true, changed: this.#changed, unchanged: this.#unchanged } : {}),
        locationsCreated: this.#dryRun ? [] : locations,
        columnsNotRead: unreadColumns,
        rowsOfSeveralLines: this.#severalLines,
        elapsedMs
      }
      return Console.log(JSON.stringify(summary))
    }
    const seconds = (elapsedMs / 1000).toFixed(1)
    const lines = [
      this.#dryRun
        ? `${rows} rows in ${seconds} s: ${this.#changed} would change something, ${this.#unchanged} would change nothing, ${refused} would be refused. Nothing was changed.`
        : `${rows} rows in ${seconds} s: ${loaded} loaded, ${refused} refused.`,
      ...(earlier === 0 ? [] : [this.#ofEarlier()]),
      ...(locations.length === 0
        ? []
        : [`Locations that ${this.#dryRun ? "would be" : "are"} new: ${locations.join(", ")}.`]),
      ...(unreadColumns.length === 0
        ? []
        : [shown(`Columns that are not read: ${unreadColumns.join(", ")}.`)]),
      ...(rows > refused && this.#withQuantity === 0 ? ["No row has a quantity: no stock is set."] : []),
      ...(this.#firstOfSeveral === undefined
        ? []
        : [
            `${this.#severalLines} of them go over several lines, because a cell in quotes does: the first is ${linesOf(this.#firstOfSeveral)}.`
          ])
    ]
    return Effect.forEach(lines, (line) => Console.log(line), { discard: true })
  }

  #ofEarlier(): string {
    const first = momentOf(this.#earliest)
    const last = momentOf(this.#latest)
    const moment = first === last ? `at ${first}` : `between ${first} and ${last}`
    const were = this.#earlier === 1 ? "was" : "were"
    return `${this.#earlier} of them ${were} loaded by an earlier run of this file, ${moment}, and ${were} not touched again (--again loads them anew).`
  }
}

const unreadable = (complaint: string): Problem => {
  const { code, status, title, type } = problemOf(new ValidationFailed({ errors: [] }))
  return { type, title, status, code, detail: complaint }
}

/** What a file says never steers the terminal that it is shown on. */
const shown = (text: string): string => text.replace(/[\p{Cc}\p{Bidi_C}]/gu, "\uFFFD")

const linesOf = ({ lastLine, line }: Place): string =>
  lastLine > line ? `lines ${line} to ${lastLine}` : `line ${line}`

/** `quantity 5 → 8`; of what was not there, only what is. */
const differencesOf = (before: StockFileRow | null, after: StockFileRow): ReadonlyArray<string> => {
  const was = fieldsOf(before ?? {})
  const is = fieldsOf(after)
  return writtenColumns.flatMap((column) => {
    if (was[column] === is[column] || is[column] === undefined) return []
    if (column === "locationId" || column === "lotNumber") return []
    const now = JSON.stringify(is[column])
    return [
      was[column] === undefined ? `${column} ${now}` : `${column} ${JSON.stringify(was[column])} → ${now}`
    ]
  })
}
