import { Console, Effect } from "effect"
import { problemOf } from "../http/contract/Problem.ts"
import type { Failing } from "../http/contract/ProblemKinds.ts"
import type { Loaded } from "../services/stock/StockFiles.ts"
import type { RowChunk } from "./StockFile.ts"

/** The progress bar is for a person at a terminal, never for a file or a pipe. */
const terminal = process.stderr
const barWidth = 30
/** Moves to the first column and clears the line. */
const startOfLine = "\r\u001b[K"

/** Reports an import: each refused row at once, progress on a terminal, and a summary. */
export class ImportReport {
  readonly #json: boolean
  readonly #bytes: number
  rows = 0
  refused = 0
  replayed = 0
  readonly locations: Array<string> = []

  constructor(json: boolean, bytes: number) {
    this.#json = json
    this.#bytes = bytes
  }

  read({ bytesRead, reads }: RowChunk): Effect.Effect<void> {
    this.rows += reads.length
    const refuse = Effect.forEach(
      reads.filter((read) => "complaint" in read),
      (read) => this.#refuse(read.line, "VALIDATION_FAILED", read.complaint),
      { discard: true }
    )
    return Effect.andThen(refuse, this.#show(bytesRead))
  }

  take(lines: ReadonlyArray<number>, { refused, replayed }: Loaded): Effect.Effect<void> {
    if (replayed) this.replayed += lines.length - refused.length
    return Effect.forEach(
      refused,
      ({ failure, index }) => {
        const { code, detail } = problemOf(failure as unknown as Failing)
        return this.#refuse(lines[index]!, code, detail)
      },
      { discard: true }
    )
  }

  #refuse(line: number, code: string, detail: string): Effect.Effect<void> {
    this.refused += 1
    return this.#json
      ? Console.log(JSON.stringify({ line, code, detail }))
      : Effect.andThen(this.clear, Console.error(`line ${line}: ${code}: ${detail}`))
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

  summarize(elapsedMs: number): Effect.Effect<void> {
    const { locations, refused, replayed, rows } = this
    const loaded = rows - refused - replayed
    if (this.#json) {
      const summary = { rows, loaded, refused, replayed, locationsCreated: locations, elapsedMs }
      return Console.log(JSON.stringify(summary))
    }
    const lines = [
      `${rows} rows in ${(elapsedMs / 1000).toFixed(1)} s: ${loaded + replayed} loaded, ${refused} refused.`,
      ...(locations.length === 0 ? [] : [`Locations that are new: ${locations.join(", ")}.`]),
      ...(replayed === 0
        ? []
        : [
            `${replayed} of them were loaded by an earlier run of this file and were not touched again (--again loads them anew).`
          ])
    ]
    return Effect.forEach(lines, (line) => Console.log(line), { discard: true })
  }
}
