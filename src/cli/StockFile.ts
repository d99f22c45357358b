import { Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { type Column, StockFileRow, columns, writtenColumns } from "../schema/StockFileRow.ts"
import { timestamp } from "../schema/Time.ts"
import { readerOf } from "../schema/Validation.ts"
import { defaultLocationId } from "../services/kernel/catalogue.ts"
import { type Defect, type FileRecord, fileRecords, recordBytesMax } from "./fileRecords.ts"

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

/** A row of the file, or why it cannot be read. */
export type Read = Place & ({ readonly row: StockFileRow } | { readonly complaint: string })

/** Where in the file a row stands: its lines as an editor counts them, and its bytes without the line end. */
export interface Place {
  readonly line: number
  readonly lastLine: number
  readonly from: number
  readonly to: number
}

/** The hash and the size of a file. */
export const identify = async (path: string): Promise<{ readonly hash: string; readonly bytes: number }> => {
  const hash = createHash("sha256")
  let bytes = 0
  try {
    for await (const part of createReadStream(path, { highWaterMark: 256 * 1024 })) {
      hash.update(part as Buffer)
      bytes += (part as Buffer).length
    }
  } catch (cause) {
    throw unreadable(path, cause)
  }
  return { hash: hash.digest("hex"), bytes }
}

const unreadable = (path: string, cause: unknown): FileUnreadable => {
  if (cause instanceof FileUnreadable) return cause
  const { code } = cause as { readonly code?: string }
  const reason =
    code === "ENOENT"
      ? "is not there"
      : code === "EISDIR"
        ? "is a folder"
        : `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`
  return new FileUnreadable({ reason: `${path} ${reason}` })
}

/** The rows of some consecutive lines of the file. */
export interface RowChunk {
  /** The same lines are in the chunk of the same number whenever the file is read. */
  readonly number: number
  readonly reads: ReadonlyArray<Read>
  /** Where the last of them ends. */
  readonly bytesRead: number
}

/** Names that are told of columns that are not read: of JSON lines, each row may have others. */
const unreadNamesMax = 50
const unreadNameLengthMax = 100

/** Reads the rows of one file of stock, and notes what of it is not read. */
export class StockFileReader {
  readonly path: string
  readonly format: Format
  /** Names of columns that mean nothing here, in the order in which they were met. */
  readonly unreadColumns = new Set<string>()
  /** The bytes of a CSV file's header line, with what stands before it. */
  headerTo = 0
  readonly #known = new Map<string, Column | undefined>()

  constructor(path: string, format: Format) {
    this.path = path
    this.format = format
  }

  /** The rows in chunks of so many lines each. */
  async *chunks(lines: number): AsyncGenerator<RowChunk> {
    let number = 0
    let reads: Array<Read> = []
    let bytesRead = 0
    for await (const parts of this.#reads()) {
      for (const read of parts) {
        const place = Math.floor((read.line - 1) / lines)
        if (place !== number && reads.length > 0) {
          yield { number, reads, bytesRead }
          reads = []
        }
        number = place
        bytesRead = read.to
        reads.push(read)
      }
    }
    if (reads.length > 0) yield { number, reads, bytesRead }
  }

  async *#reads(): AsyncGenerator<ReadonlyArray<Read>> {
    const isCsv = this.format === "csv"
    let header: Header | undefined
    try {
      for await (const records of fileRecords(this.path, isCsv ? "csv" : "lines")) {
        const reads: Array<Read> = []
        for (const record of records) {
          if (record.isBlank) continue
          if (!isCsv) reads.push(this.#jsonRow(record))
          else if (header === undefined) header = this.#headerOf(record)
          else reads.push(csvRow(header, record))
        }
        yield reads
      }
    } catch (cause) {
      throw unreadable(this.path, cause)
    }
    if (isCsv && header === undefined) {
      throw new FileUnreadable({ reason: `${this.path} is empty: it needs a header line` })
    }
  }

  #headerOf(record: FileRecord): Header {
    const { path } = this
    const refuse = (reason: string) => new FileUnreadable({ reason: `${path} ${reason}` })
    if (record.defect !== undefined) throw refuse(`has a header line that ${complaints[record.defect]}`)
    const cells = Array.from({ length: record.cellCount }, (_, index) => record.cell(index))
    if (cells.some((cell) => cell?.includes("\0"))) throw refuse("is in UTF-16: save it as CSV UTF-8")
    // They are shown on a terminal.
    const names = cells.map((cell = "\uFFFD") => cell.trim().replace(/[\p{Cc}\p{Bidi_C}]/gu, "\uFFFD"))
    const header = names.map((name) => columnOf(name))
    const twice = header.findIndex((column, index) => column !== undefined && header.indexOf(column) < index)
    if (twice !== -1) {
      const first = names[header.indexOf(header[twice])]
      throw refuse(`has two columns with the name ${header[twice]}: ${first} and ${names[twice]}`)
    }
    if (!header.includes("productVariantId") && !header.includes("sku")) {
      if (cells.includes(undefined)) throw refuse("is not UTF-8: save it as CSV UTF-8")
      throw refuse(
        `has no column productVariantId or sku: its header line must name the columns, separated by commas (${columns.join(", ")})`
      )
    }
    names.forEach((name, index) => {
      if (header[index] === undefined && name !== "") this.#leaveUnread(name)
    })
    this.headerTo = record.to
    return header
  }

  #jsonRow(record: FileRecord): Read {
    const { defect } = record
    if (defect !== undefined) return broken(record, complaints[defect])
    const text = record.cell(0)
    if (text === undefined) return broken(record, notUtf8)
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch {
      return broken(record, "is not JSON")
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return broken(record, "is not a JSON object")
    }
    const fields: Record<string, unknown> = {}
    for (const [name, field] of Object.entries(value)) {
      const column = this.#columnOfName(name)
      if (column === undefined) continue
      if (column in fields) return broken(record, `names ${column} twice`)
      fields[column] = field
    }
    return rowOf(fields, record)
  }

  /** The names of JSON lines are those of the line before, as a rule. */
  #columnOfName(name: string): Column | undefined {
    if (this.#known.has(name)) return this.#known.get(name)
    const column = columnOf(name)
    if (column === undefined) this.#leaveUnread(name)
    if (this.#known.size < 4 * unreadNamesMax) this.#known.set(name, column)
    return column
  }

  #leaveUnread(name: string): void {
    if (this.unreadColumns.size < unreadNamesMax) this.unreadColumns.add(name.slice(0, unreadNameLengthMax))
  }
}

const complaints: Readonly<Record<Defect, string>> = {
  OPEN_QUOTE: "has a cell whose quote is not closed, or that goes on behind its closing quote",
  STRAY_QUOTE:
    "has a quote within a cell that does not begin with one: put the cell in quotes and double those in it",
  TOO_LONG: `has more than ${recordBytesMax} bytes`
}
const notUtf8 = "is not UTF-8: save the file as CSV UTF-8"

type Header = ReadonlyArray<Column | undefined>

/** A column by its name, whatever its case, with blanks, `-` or `_` in it. */
const columnOf = (name: string): Column | undefined => byName.get(plainName(name))
const plainName = (name: string): string => name.toLowerCase().replace(/[\s_-]/g, "")
const byName = new Map(columns.map((column) => [plainName(column), column]))

const broken = (place: Place, complaint: string): Read => ({ ...placeOf(place), complaint })
const placeOf = ({ from, lastLine, line, to }: Place): Place => ({ line, lastLine, from, to })

const csvRow = (header: Header, record: FileRecord): Read => {
  const { cellCount, defect } = record
  if (defect !== undefined) return broken(record, complaints[defect])
  for (let index = header.length; index < cellCount; index++) {
    if (record.cell(index)?.trim() === "") continue
    return broken(record, `has ${cellCount} cells, and the header line has ${header.length}`)
  }
  const fields: Record<string, unknown> = {}
  for (let index = 0; index < header.length; index++) {
    const column = header[index]
    if (column === undefined) continue
    // Programs leave out the empty cells at the end of a row.
    const cell = index < cellCount ? record.cell(index) : ""
    if (cell === undefined) return broken(record, notUtf8)
    fields[column] = valueOf[column](cell)
  }
  return rowOf(fields, record)
}

/** A cell that is no whole number stays text, and is refused as that. What may be a thousand is not taken for one. */
const numberOf = (cell: string): number | string => {
  const text = cell.trim()
  return /^[+-]?\d{1,16}(\.0{1,2}|\.0{4,})?$/.test(text) ? Number(text) : text
}
const booleanOf = (cell: string): boolean | string => {
  const text = cell.trim().toLowerCase()
  return text === "true" || text === "false" ? text === "true" : text
}

/**
 * A spreadsheet takes a cell that begins like this for a formula, whatever is in quotes: a name could run commands on the
 * computer of whoever opens the file. Such text is written with an apostrophe before it, which is taken off again; and so
 * is an id with blanks around it, because those of ids are trimmed.
 */
const formula = /^'*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]/
const formulaOrBlanks = /^'*(?:[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]|\s)|\s$/
const isId = (column: Column): boolean => valueOf[column] === idOf
const guarded = (column: Column, text: string): string =>
  (isId(column) ? formulaOrBlanks : formula).test(text) ? `'${text}` : text
const textOf = (cell: string): string =>
  cell.startsWith("'") && formula.test(cell.slice(1)) ? cell.slice(1) : cell
const idOf = (cell: string): string =>
  cell.startsWith("'") && formulaOrBlanks.test(cell.slice(1)) ? cell.slice(1) : cell.trim()
const trimmed = (cell: string): string => cell.trim()

const valueOf: Readonly<Record<Column, (cell: string) => unknown>> = {
  productVariantId: idOf,
  sku: idOf,
  quantity: numberOf,
  locationId: idOf,
  lotNumber: idOf,
  expiresAt: trimmed,
  name: textOf,
  lowStockThreshold: numberOf,
  safetyStock: numberOf,
  countTolerance: numberOf,
  productId: idOf,
  stocked: booleanOf,
  expectedQuantity: numberOf,
  expectedVersion: numberOf
}

const readRow = readerOf(StockFileRow)

/**
 * A field that is there and empty speaks, too: of the default location, and of the unnamed lot. Where the file has no
 * such column at all, nothing is said of it. Any other empty field is as if it were not there.
 */
const rowOf = (fields: Record<string, unknown>, place: Place): Read => {
  for (const column of columns) {
    const value = fields[column]
    if (value !== "" && value !== null) continue
    if (column === "locationId") fields[column] = defaultLocationId
    else if (column === "lotNumber") fields[column] = ""
    else delete fields[column]
  }
  const read = readRow(fields, "")
  if (Result.isSuccess(read)) return { ...placeOf(place), row: read.success }
  const complaint = read.failure.errors.map(({ message, path }) => `${path.slice(1)} ${message}`).join("; ")
  return broken(place, complaint)
}

export const header = (format: Format): string => (format === "csv" ? `${writtenColumns.join(",")}\r\n` : "")

/** A row with the values that are written. */
export const fieldsOf = ({ expiresAt, ...fields }: StockFileRow): Fields =>
  expiresAt === undefined ? fields : { ...fields, expiresAt: timestamp(expiresAt) }
type Fields = Partial<Record<Column, string | number | boolean>>

/** A row as text, with its line end (CRLF in CSV, as RFC 4180 has it). */
export const written = (format: Format, row: StockFileRow): string => {
  const fields = fieldsOf(row)
  return format === "jsonl"
    ? `${JSON.stringify(Object.fromEntries(writtenColumns.flatMap((name) => (name in fields ? [[name, fields[name]]] : []))))}\n`
    : `${writtenColumns.map((column) => cell(column, fields[column])).join(",")}\r\n`
}

const cell = (column: Column, value: string | number | boolean | undefined): string => {
  if (value === undefined || value === "") return ""
  if (typeof value !== "string") return String(value)
  const text = guarded(column, value)
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
