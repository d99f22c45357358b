import { Clock, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import path from "node:path"
import { defaultLocationId } from "../../services/kernel/catalogue.ts"
import { nextUuid } from "../../services/Uuid.ts"
import { type Importing, loadAll } from "../importChunks.ts"
import { ImportReport } from "../ImportReport.ts"
import { json, merchant } from "../options.ts"
import { FileUnreadable, type Format, formats, identify, readRows } from "../StockFile.ts"
import { withFiles } from "../stockFileCommand.ts"

/** Rows of one transaction: enough to make its round trips cheap, few enough that other callers hardly wait. */
const chunkRows = 500

/** Some rows of the file were not loaded. The lines before say which and why. */
export class RowsRefused extends Schema.TaggedError<RowsRefused>()("RowsRefused", {
  refused: Schema.Int,
  rows: Schema.Int
}) {
  readonly exitCode = 1
  override get message(): string {
    return `${this.refused} of ${this.rows} rows were refused, the others are loaded: correct them and import the file again`
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
          const report = new ImportReport(json, bytes)
          const importing: Importing = {
            files,
            merchantId,
            key: `holdfast import ${hash}${run}`,
            reason: `import of ${path.basename(file).replace(/[\p{Cc}\p{Cs}]/gu, "")}`.slice(0, 1_024),
            locations: new Set([defaultLocationId]),
            report
          }
          yield* Effect.ensuring(loadAll(importing, readRows(file, kind, chunkRows)), report.clear)
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
