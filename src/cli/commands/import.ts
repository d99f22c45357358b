import { Clock, Console, Effect, Exit, Fiber, Layer, Option, Schedule, Schema, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import path from "node:path"
import { isFailing, problemOf } from "../../http/contract/Problem.ts"
import type { Failing } from "../../http/contract/ProblemKinds.ts"
import * as Configuration from "../../layers/Configuration.ts"
import { migrate } from "../../layers/Migrations.ts"
import type { StockFileRow } from "../../schema/StockFileRow.ts"
import { Partitions } from "../../services/Partitions.ts"
import { type Loaded, StockFiles } from "../../services/stock/StockFiles.ts"
import { StockLedger } from "../../services/kernel/StockLedger.ts"
import { nextUuid } from "../../services/Uuid.ts"
import { defaultLocationId } from "../../services/kernel/decide/catalog.ts"
import { commandDatabase } from "../database.ts"
import { json, merchant, merchantOf } from "../options.ts"
import { foundation } from "../service.ts"
import {
  FileUnreadable,
  type Format,
  type Lot,
  formats,
  header,
  identify,
  readRows,
  written
} from "../StockFile.ts"

/** `holdfast import` and `holdfast export`: a merchant's items and stocks as a file, and back. */

/** Rows that are loaded in one transaction: so many that its round trips do not count, so few that others hardly wait. */
const chunkRows = 500
/** Chunks on their way at once: one that is decided and one that is written, and one ready for each. */
const chunksInFlight = 4
/** How long a chunk may take, and how long a database that does not answer is asked again. */
const chunkDeadlineMs = 60_000
const patienceMs = 60_000
/** A chunk is decided in one go, on a machine that may be busy: the kernel's own time-out is for single calls. */
const idleInTransactionMs = 10_000

/** Some rows of the file are not in the books. Which, and why, was told line by line. */
export class RowsRefused extends Schema.TaggedError<RowsRefused>()("RowsRefused", {
  refused: Schema.Int,
  rows: Schema.Int
}) {
  readonly exitCode = 1
  override get message(): string {
    return `${this.refused} of ${this.rows} rows were refused, the others are loaded: mend them and import the file again`
  }
}

const format = Flag.Literals("format", formats).pipe(
  Flag.withDescription("csv or jsonl; without it, what the file's name says"),
  Flag.optional
)

const formatOf = (given: Option.Option<Format>, file: string): Effect.Effect<Format, FileUnreadable> => {
  if (Option.isSome(given)) return Effect.succeed(given.value)
  const extension = path.extname(file).toLowerCase()
  return extension === ".csv"
    ? Effect.succeed("csv")
    : [".jsonl", ".ndjson"].includes(extension)
      ? Effect.succeed("jsonl")
      : Effect.fail(
          new FileUnreadable({
            reason: `${file}: say --format csv or --format jsonl, its name does not tell`
          })
        )
}

const withFiles = <A, E>(
  given: Option.Option<string>,
  use: (files: StockFiles["Service"], merchantId: string) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const merchantId = yield* merchantOf(given, settings)
    const url = yield* commandDatabase(settings)
    // An embedded database may be as new as the command: nobody else brings it up to date.
    if (Option.isNone(settings.databaseUrl)) yield* migrate(url)
    const patient = {
      ...settings,
      idleInTransactionMs: Math.max(settings.idleInTransactionMs, idleInTransactionMs),
      requestTimeoutMs: Math.max(settings.requestTimeoutMs, chunkDeadlineMs)
    }
    return yield* Effect.provide(
      Effect.flatMap(StockFiles, (files) => use(files, merchantId)),
      StockFiles.layer.pipe(
        Layer.provide(StockLedger.layer),
        Layer.provide(Partitions.layer),
        Layer.provide(foundation(patient, url))
      )
    )
  }).pipe(Effect.scoped)

export const importFile = Command.make(
  "import",
  {
    file: Argument.String("file").pipe(Argument.withDescription("CSV with a header line, or JSON lines")),
    format,
    merchant,
    again: Flag.Boolean("again").pipe(
      Flag.withDescription("Load the file anew, also what an earlier run of it has loaded"),
      Flag.withDefault(false)
    ),
    json
  },
  ({ again, file, format, json, merchant }) =>
    Effect.gen(function* () {
      const kind = yield* formatOf(format, file)
      const { bytes, hash } = yield* readable(() => identify(file))
      const run = again ? ` ${yield* nextUuid}` : ""
      yield* withFiles(merchant, (files, merchantId) =>
        Effect.gen(function* () {
          const startedAt = yield* Clock.currentTimeMillis
          const report = new Report(json, bytes)
          const books: Importing = {
            files,
            merchantId,
            key: `holdfast import ${hash}${run}`,
            reason: `import of ${path.basename(file).replace(/[\p{Cc}\p{Cs}]/gu, "")}`.slice(0, 1_024),
            locations: new Set([defaultLocationId]),
            report
          }
          yield* Effect.ensuring(loadAll(books, readRows(file, kind, chunkRows)), report.clear)
          if ((yield* readable(() => identify(file))).hash !== hash) {
            return yield* new FileUnreadable({
              reason: `${file} was changed while it was read: import it again as it is now`
            })
          }
          yield* report.summarize((yield* Clock.currentTimeMillis) - startedAt)
          const { refused, rows } = report
          if (refused > 0) return yield* new RowsRefused({ refused, rows })
        })
      )
    })
).pipe(
  Command.withDescription(
    "Load items and stocks from a file. Safe to run again: what was loaded from it is not touched a second time (24 h)"
  )
)

const readable = <A>(read: () => Promise<A>): Effect.Effect<A, FileUnreadable> =>
  Effect.tryPromise({
    try: read,
    catch: (cause) =>
      cause instanceof FileUnreadable ? cause : new FileUnreadable({ reason: String(cause) })
  })

interface Importing {
  readonly files: StockFiles["Service"]
  readonly merchantId: string
  readonly key: string
  readonly reason: string
  /** Those that are there, as far as the import knows. */
  readonly locations: Set<string>
  readonly report: Report
}

interface InFlight {
  readonly lines: ReadonlyArray<number>
  readonly names: Names
  readonly fiber: Fiber.Fiber<Exit.Exit<Loaded, unknown>>
}

/**
 * Sends the chunks in the file's order, several at once. Chunks that may speak of the same item are sent one after the
 * other, so that the last line wins, however often the import is interrupted.
 */
const loadAll = Effect.fnUntraced(function* (books: Importing, chunks: AsyncIterable<Lot>) {
  const flying: Array<InFlight> = []
  const land = Effect.gen(function* () {
    const first = flying.shift()!
    const loaded = yield* Effect.flatten(Fiber.join(first.fiber))
    yield* books.report.take(first.lines, loaded)
  })
  let number = 0
  const send = Effect.fnUntraced(function* (chunk: Lot) {
    number += 1
    const good = chunk.reads.filter((read) => "row" in read)
    yield* books.report.read(chunk)
    if (good.length === 0) return
    const rows = good.map(({ row }) => row)
    const names = namesOf(rows)
    while (flying.length >= chunksInFlight || flying.some((other) => mayMeet(other.names, names))) yield* land
    yield* ensureLocations(books, rows)
    const fiber = yield* Effect.forkChild(Effect.exit(loadChunk(books, number, rows)), {
      startImmediately: true
    })
    flying.push({ lines: good.map(({ line }) => line), names, fiber })
  })
  yield* Stream.fromAsyncIterable(chunks, (cause) =>
    cause instanceof FileUnreadable ? cause : new FileUnreadable({ reason: String(cause) })
  ).pipe(Stream.runForEach(send))
  while (flying.length > 0) yield* land
})

const loadChunk = Effect.fnUntraced(function* (
  { files, key, merchantId, reason }: Importing,
  number: number,
  rows: ReadonlyArray<StockFileRow>
) {
  const asked = Effect.gen(function* () {
    const caller = yield* callerOf(merchantId)
    return yield* files.load(caller, { rows, key: `${key} ${number}`, reason })
  })
  return yield* patiently(asked)
})

/** New locations come to be in the order in which the file names them, which is that in which stock is taken. */
const ensureLocations = Effect.fnUntraced(function* (
  { files, locations, merchantId, report }: Importing,
  rows: ReadonlyArray<StockFileRow>
) {
  for (const { locationId, quantity } of rows) {
    if (locationId === undefined || quantity === undefined || locations.has(locationId)) continue
    const created = yield* patiently(
      Effect.flatMap(callerOf(merchantId), (caller) => files.ensureLocation(caller, locationId))
    )
    locations.add(locationId)
    if (created) report.locations.push(locationId)
  }
})

const callerOf = Effect.fnUntraced(function* (merchantId: string) {
  return {
    merchantId,
    actor: "holdfast import",
    requestId: yield* nextUuid,
    deadline: (yield* Clock.currentTimeMillis) + chunkDeadlineMs
  }
})

/** An outage is waited out: asking again is harmless, because what was done is told again. */
const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, {
    schedule: Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: patienceMs })),
    while: (failure) => isFailing(failure) && passing.has(failure._tag)
  })
const passing = new Set<string>(["DatabaseUnavailable", "OperationTimedOut", "Overloaded"])

/** The items that a chunk speaks of, by their names. */
interface Names {
  readonly variants: ReadonlySet<string>
  readonly skus: ReadonlySet<string>
  /** Whether it has rows that give one name alone: the same item may go by the other elsewhere. */
  readonly byVariantAlone: boolean
  readonly bySkuAlone: boolean
}

const namesOf = (rows: ReadonlyArray<StockFileRow>): Names => {
  const variants = new Set<string>()
  const skus = new Set<string>()
  let byVariantAlone = false
  let bySkuAlone = false
  for (const { productVariantId, sku } of rows) {
    if (productVariantId === undefined) bySkuAlone = true
    else variants.add(productVariantId)
    if (sku === undefined) byVariantAlone = true
    else skus.add(sku)
  }
  return { variants, skus, byVariantAlone, bySkuAlone }
}

const mayMeet = (a: Names, b: Names): boolean =>
  haveCommon(a.variants, b.variants) ||
  haveCommon(a.skus, b.skus) ||
  (a.byVariantAlone && b.bySkuAlone) ||
  (a.bySkuAlone && b.byVariantAlone)

const haveCommon = (a: ReadonlySet<string>, b: ReadonlySet<string>): boolean => {
  for (const name of a) if (b.has(name)) return true
  return false
}

/** The progress bar is for a person who watches: never in a file or a pipe. */
const terminal = process.stderr
const barWidth = 30
/** Back to the first column, and what is in the line away. */
const startOfLine = "\r\u001b[K"

/** What is told of an import: each refused row at once, how far it is on a terminal, and a summary. */
class Report {
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

  read({ bytesRead, reads }: Lot): Effect.Effect<void> {
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

  /** Takes the progress bar away, so that a line can be printed in its place. */
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

export const exportFile = Command.make(
  "export",
  {
    format: Flag.Literals("format", formats).pipe(
      Flag.withDescription("csv or jsonl"),
      Flag.withDefault("csv")
    ),
    merchant
  },
  ({ format, merchant }) =>
    withFiles(merchant, (files, merchantId) =>
      Effect.gen(function* () {
        yield* print(header(format))
        let after: string | null = null
        do {
          const page: Effect.Success<ReturnType<StockFiles["Service"]["page"]>> = yield* patiently(
            files.page(merchantId, after)
          )
          yield* print(page.rows.map((row) => written(format, row)).join(""))
          after = page.next
        } while (after !== null)
      })
    )
).pipe(Command.withDescription("Print all items with their stocks, as a file that import takes"))

const print = (text: string): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    process.stdout.write(text, () => resume(Effect.void))
  })
