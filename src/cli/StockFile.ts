import { Result, Schema } from "effect"
import { parse } from "csv-parse"
import { createHash } from "node:crypto"
import { type ReadStream, createReadStream } from "node:fs"
import { pipeline } from "node:stream/promises"
import { type Column, StockFileRow, columns } from "../schema/StockFileRow.ts"
import { timestamp } from "../schema/Time.ts"
import { readerOf } from "../schema/Validation.ts"
import { defaultLocationId } from "../services/kernel/catalogue.ts"

/** Files of stock, as text: CSV with a header line, or JSON lines of the same names (CONTRACTS section 8). */

export const formats = ["csv", "jsonl"] as const
export type Format = (typeof formats)[number]

/** The file cannot be read, or not to its end. */
export class FileUnreadable extends Schema.TaggedError<FileUnreadable>()("FileUnreadable", {
  reason: Schema.String
}) {
  override get message(): string {
    return this.reason
  }
}

/** A row of the file, or its defect. Lines are counted from 1, the header included. */
export type Read =
  | { readonly line: number; readonly row: StockFileRow }
  | { readonly line: number; readonly complaint: string }

/** A record (a row of a CSV file, a JSON line) may be this long: what is longer is not one, and memory stays bounded. */
const recordLengthMax = 64 * 1024

/** The hash and the size of a file. Fails with the line at which the file is not UTF-8. */
export const identify = async (path: string): Promise<{ readonly hash: string; readonly bytes: number }> => {
  const hash = createHash("sha256")
  const utf8 = new TextDecoder("utf-8", { fatal: true })
  let bytes = 0
  let line = 1
  try {
    for await (const part of createReadStream(path, { highWaterMark: 256 * 1024 })) {
      const buffer = part as Buffer
      hash.update(buffer)
      bytes += buffer.length
      utf8.decode(buffer, { stream: true })
      for (let at = buffer.indexOf(newline); at !== -1; at = buffer.indexOf(newline, at + 1)) line += 1
    }
    utf8.decode()
  } catch (cause) {
    throw unreadable(path, cause, line)
  }
  return { hash: hash.digest("hex"), bytes }
}

const newline = 0x0a

const unreadable = (path: string, cause: unknown, line: number): FileUnreadable => {
  if (cause instanceof FileUnreadable) return cause
  const { code } = cause as { readonly code?: string }
  const reason =
    code === "ENOENT"
      ? "is not there"
      : code === "EISDIR"
        ? "is a folder"
        : code === "ERR_ENCODING_INVALID_ENCODED_DATA"
          ? `is not UTF-8 (after line ${line}): save it as CSV UTF-8`
          : `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`
  return new FileUnreadable({ reason: `${path} ${reason}` })
}

/** Consecutive rows of the file, and the byte where the last of them ends. */
export interface RowChunk {
  readonly reads: ReadonlyArray<Read>
  readonly bytesRead: number
}

/** Rows that were parsed together, each with the byte where it ends. */
type Parts = AsyncGenerator<ReadonlyArray<readonly [read: Read, end: number]>>

/** The rows of a file, in chunks of at most `size`. The same file gives the same chunks. */
export async function* readRows(path: string, format: Format, size: number): AsyncGenerator<RowChunk> {
  const source = createReadStream(path, { highWaterMark: 256 * 1024 })
  let reads: Array<Read> = []
  let bytesRead = 0
  try {
    for await (const part of format === "csv" ? csvRows(path, source) : jsonRows(path, source)) {
      for (const [read, end] of part) {
        reads.push(read)
        bytesRead = end
        if (reads.length === size) {
          yield { reads, bytesRead }
          reads = []
        }
      }
    }
  } catch (cause) {
    throw unreadable(path, cause, 1)
  } finally {
    source.destroy()
  }
  if (reads.length > 0) yield { reads, bytesRead }
}

interface Parsed {
  readonly record: ReadonlyArray<string>
  readonly info: { readonly lines: number; readonly bytes: number }
}

async function* csvRows(path: string, source: ReadStream): Parts {
  let reads: Array<readonly [Read, number]> = []
  let end = 0
  let skipped: number | undefined
  /** A line end of two characters within quotes counts twice for the parser. */
  let countedTwice = 0
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: recordLengthMax,
    skip_records_with_error: true,
    on_skip: (error) => {
      const { lines = 0 } = error as unknown as { readonly lines?: number }
      // A record that is wrong in two places is skipped twice.
      if (skipped !== lines)
        reads.push([{ line: lines - countedTwice, complaint: `is not CSV: ${error?.message}` }, end])
      skipped = lines
      return undefined
    }
  })
  const feeding = pipeline(source, parser)
  feeding.catch(() => undefined)
  let header: Header | undefined
  const take = ({ info, record }: Parsed): void => {
    for (const cell of record) if (cell.includes("\r\n")) countedTwice += cell.split("\r\n").length - 1
    end = info.bytes
    if (header === undefined) header = headerOf(path, record)
    else reads.push([csvRow(header, record, info.lines - countedTwice), end])
  }
  try {
    for await (const parsed of parser) {
      take(parsed as Parsed)
      // All that is parsed already is taken in one go: a step of an async loop costs as much as a row.
      for (let more = parser.read() as Parsed | null; more !== null; more = parser.read() as Parsed | null) {
        take(more)
      }
      yield reads
      reads = []
    }
    await feeding
  } finally {
    parser.destroy()
  }
  if (header === undefined) throw new FileUnreadable({ reason: `${path} is empty: it needs a header line` })
  if (reads.length > 0) yield reads
}

type Header = ReadonlyArray<Column | undefined>

const headerOf = (path: string, names: ReadonlyArray<string>): Header => {
  const given = names.map((name) => name.trim())
  const known = given.map((name) => columns.find((column) => column === name))
  const twice = given.find((name, index) => known[index] !== undefined && given.indexOf(name) !== index)
  if (twice !== undefined)
    throw new FileUnreadable({ reason: `${path} has two columns with the name ${twice}` })
  if (!known.includes("productVariantId") && !known.includes("sku")) {
    throw new FileUnreadable({
      reason: `${path} has no column productVariantId or sku: its header line must name the columns, separated by commas (${columns.join(", ")})`
    })
  }
  return known
}

const csvRow = (header: Header, record: ReadonlyArray<string>, line: number): Read => {
  if (record.length !== header.length) {
    return { line, complaint: `has ${record.length} fields, and the header line has ${header.length}` }
  }
  const fields: Record<string, unknown> = {}
  for (let index = 0; index < header.length; index++) {
    const column = header[index]
    if (column === undefined) continue
    const cell = record[index]!
    fields[column] = isNumeric(column) ? numberOf(cell) : unguarded(cell)
  }
  return rowOf(fields, line)
}

const isNumeric = (column: Column): boolean => column === "quantity" || column === "lowStockThreshold"
/** A cell that is no number stays text, and is told by that. */
const numberOf = (cell: string): number | string => {
  const text = cell.trim()
  return /^[+-]?\d{1,16}$/.test(text) ? Number(text) : text
}

/**
 * A spreadsheet takes a cell that begins like this for a formula, whatever is in quotes: a name could run commands on the
 * computer of whoever opens the file. Such text is written with an apostrophe before it, which is taken off again.
 */
const formulaLike = /^'*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]/
const guarded = (text: string): string => (formulaLike.test(text) ? `'${text}` : text)
const unguarded = (cell: string): string =>
  cell.startsWith("'") && formulaLike.test(cell) ? cell.slice(1) : cell

async function* jsonRows(path: string, source: ReadStream): Parts {
  const utf8 = new TextDecoder("utf-8")
  let rest = ""
  let line = 0
  let end = 0
  for await (const part of source) {
    const lines = (rest + utf8.decode(part as Buffer, { stream: true })).split("\n")
    rest = lines.pop()!
    if (rest.length > recordLengthMax) {
      throw new FileUnreadable({
        reason: `line ${line + lines.length + 1} of ${path} has more than ${recordLengthMax} characters: is it JSON, one value a line?`
      })
    }
    const reads: Array<readonly [Read, number]> = []
    for (const text of lines) {
      line += 1
      end += Buffer.byteLength(text) + 1
      if (text.trim() !== "") reads.push([jsonRow(text, line), end])
    }
    yield reads
  }
  if (rest.trim() !== "") yield [[jsonRow(rest, line + 1), end + Buffer.byteLength(rest)]]
}

const jsonRow = (text: string, line: number): Read => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { line, complaint: "is not JSON" }
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { line, complaint: "is not a JSON object" }
  }
  const fields: Record<string, unknown> = {}
  for (const column of columns)
    if (column in value) fields[column] = (value as Record<string, unknown>)[column]
  return rowOf(fields, line)
}

const readRow = readerOf(StockFileRow)

/**
 * A field that is there and empty speaks, too: of the default location, and of the unnamed lot. Where the file has no
 * such column at all, nothing is said of it. Any other empty field is as if it were not there.
 */
const rowOf = (fields: Record<string, unknown>, line: number): Read => {
  for (const column of columns) {
    const value = fields[column]
    if (value !== "" && value !== null) continue
    if (column === "locationId") fields[column] = defaultLocationId
    else if (column === "lotNumber") fields[column] = ""
    else delete fields[column]
  }
  const read = readRow(fields, "")
  if (Result.isSuccess(read)) return { line, row: read.success }
  const complaints = read.failure.errors.map(({ message, path }) => `${path.slice(1)} ${message}`)
  return { line, complaint: complaints.join("; ") }
}

export const header = (format: Format): string => (format === "csv" ? `${columns.join(",")}\r\n` : "")

/** A row as text, with its line end (CRLF in CSV, as RFC 4180 has it). */
export const written = (format: Format, row: StockFileRow): string => {
  const { expiresAt, ...fields } = row
  const values: Partial<Record<Column, string | number>> = {
    ...fields,
    ...(expiresAt === undefined ? {} : { expiresAt: timestamp(expiresAt) })
  }
  return format === "jsonl"
    ? `${JSON.stringify(Object.fromEntries(columns.flatMap((name) => (name in values ? [[name, values[name]]] : []))))}\n`
    : `${columns.map((column) => cell(values[column])).join(",")}\r\n`
}

const cell = (value: string | number | undefined): string => {
  if (value === undefined) return ""
  if (typeof value === "number") return String(value)
  const text = guarded(value)
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
