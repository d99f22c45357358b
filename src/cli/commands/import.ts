import { Clock, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import path from "node:path"
import { defaultLocationId } from "../../services/kernel/catalogue.ts"
import { nextUuid } from "../../services/Uuid.ts"
import { type Importing, loadAll } from "../importChunks.ts"
import { ImportReport } from "../ImportReport.ts"
import { json, merchant } from "../options.ts"
import { openRejects } from "../RejectsFile.ts"
import { FileUnreadable, type Format, formats, identify, StockFileReader } from "../StockFile.ts"
import { withFiles } from "../stockFileCommand.ts"

/**
 * The rows of so many lines are one transaction: enough to make its round trips cheap, few enough that other callers
 * hardly wait. What was loaded of a file is remembered by chunks: of another number, every file would be a new one.
 */
const chunkLines = 500

/** Some rows of the file were not loaded. The lines before say which and why. */
export class RowsRefused extends Schema.TaggedError<RowsRefused>()("RowsRefused", {
  file: Schema.String,
  refused: Schema.Int,
  rows: Schema.Int,
  rejects: Schema.NullOr(Schema.String),
  dryRun: Schema.Boolean
}) {
  readonly exitCode = 1
  override get message(): string {
    const { dryRun, file, refused, rejects, rows } = this
    const counted = `${refused} of ${rows} rows ${dryRun ? "would be" : "were"} refused`
    if (dryRun) return counted
    return rejects === null
      ? `${counted}, the others are loaded. holdfast import ${file} --rejects FILE writes them to a file of their own and loads nothing twice: correct that and import it. This file, corrected, would set the other rows back, over what was sold meanwhile`
      : `${counted}, the others are loaded: correct them in ${rejects} and import that file alone`
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
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Say what would change and be refused, and change nothing"),
      Flag.withDefault(false)
    ),
    rejects: Flag.String("rejects").pipe(
      Flag.withDescription("Write the rows that are refused to this file, which must not be there yet"),
      Flag.optional
    ),
    json
  },
  ({ again, dryRun, file, format, json, merchant, rejects }) =>
    Effect.gen(function* () {
      const reader = new StockFileReader(file, yield* formatOf(format, file))
      const { bytes, hash } = yield* readable(() => identify(file))
      yield* withFiles(merchant, (files, merchantId) =>
        Effect.gen(function* () {
          const startedAt = yield* Clock.currentTimeMillis
          const rejectsFile = Option.isSome(rejects) ? yield* openRejects(rejects.value, reader) : undefined
          const report = new ImportReport({ json, dryRun, bytes, rejects: rejectsFile })
          const importing: Importing = {
            files,
            merchantId,
            terms: {
              fileHash: hash,
              run: yield* nextUuid,
              again,
              reason: `import of ${path.basename(file).replace(/[\p{Cc}\p{Cs}]/gu, "")}`.slice(0, 1_024)
            },
            dryRun,
            locations: new Set([defaultLocationId]),
            report
          }
          yield* Effect.ensuring(loadAll(importing, reader.chunks(chunkLines)), report.clear)
          if ((yield* readable(() => identify(file))).hash !== hash) {
            return yield* new FileUnreadable({
              reason: `${file} was changed while it was read: import it again as it is now`
            })
          }
          yield* report.summarize((yield* Clock.currentTimeMillis) - startedAt, [...reader.unreadColumns])
          const { refused, rows } = report
          if (refused > 0) {
            return yield* new RowsRefused({ file, refused, rows, rejects: rejectsFile?.path ?? null, dryRun })
          }
        }).pipe(Effect.scoped)
      )
    })
).pipe(
  Command.withDescription(
    "Load items and stocks from a file. Safe to run again: what was loaded from it is not touched a second time"
  )
)

const readable = <A>(read: () => Promise<A>): Effect.Effect<A, FileUnreadable> =>
  Effect.tryPromise({
    try: read,
    catch: (cause) =>
      cause instanceof FileUnreadable ? cause : new FileUnreadable({ reason: String(cause) })
  })
