import { Effect, Schema, type Scope } from "effect"
import { type FileHandle, open, rm } from "node:fs/promises"
import type { Place, StockFileReader } from "./StockFile.ts"

/** Rows that were refused, byte by byte as they stand in the file, under its header line: to be corrected and imported. */

/** The file for refused rows cannot be written. */
export class RejectsUnwritable extends Schema.TaggedError<RejectsUnwritable>()("RejectsUnwritable", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} cannot be written: ${this.reason}`
  }
}

export interface RejectsFile {
  readonly path: string
  readonly add: (row: Place) => Effect.Effect<void, RejectsUnwritable>
}

/** Never over a file that is there: it may hold the corrections of an earlier run. Where nothing is refused none is left. */
export const openRejects = (
  path: string,
  reader: StockFileReader
): Effect.Effect<RejectsFile, RejectsUnwritable, Scope.Scope> =>
  Effect.gen(function* () {
    const writing = <A>(write: () => Promise<A>): Effect.Effect<A, RejectsUnwritable> =>
      Effect.tryPromise({
        try: write,
        catch: (cause) => new RejectsUnwritable({ path, reason: reasonOf(cause) })
      })
    let isEmpty = true
    const to = yield* Effect.acquireRelease(
      writing(() => open(path, "wx")),
      (file) => Effect.promise(() => file.close().then(() => (isEmpty ? rm(path) : undefined)))
    )
    const from = yield* Effect.acquireRelease(
      writing(() => open(reader.path)),
      (file) => Effect.promise(() => file.close())
    )
    const lineEnd = reader.format === "csv" ? "\r\n" : "\n"
    const copy = async (begin: number, end: number): Promise<void> => {
      await copyBytes(from, to, begin, end)
      await to.appendFile(lineEnd)
    }
    return {
      path,
      add: (row) =>
        writing(async () => {
          if (isEmpty && reader.format === "csv") await copy(0, reader.headerTo)
          isEmpty = false
          await copy(row.from, row.to)
        })
    }
  })

const copyBytesMax = 64 * 1024
const copyBytes = async (from: FileHandle, to: FileHandle, begin: number, end: number): Promise<void> => {
  const bytes = Buffer.allocUnsafe(Math.min(copyBytesMax, end - begin))
  for (let at = begin; at < end;) {
    const { bytesRead } = await from.read(bytes, 0, Math.min(bytes.length, end - at), at)
    if (bytesRead === 0) return
    await to.appendFile(bytes.subarray(0, bytesRead))
    at += bytesRead
  }
}

const reasonOf = (cause: unknown): string => {
  const { code, message } = cause as { readonly code?: string; readonly message?: string }
  return code === "EEXIST"
    ? "it is there already, perhaps with corrections: name another file, or remove it"
    : (message ?? String(cause))
}
