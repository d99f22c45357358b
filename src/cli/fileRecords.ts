import { isUtf8 } from "node:buffer"
import { open } from "node:fs/promises"

/**
 * Splits a file into records: rows of CSV (RFC 4180, with any line ends) or lines. One whose quotes or length are wrong
 * comes out with its defect and reading goes on behind it, which no maintained reader does (decision 23).
 */

/** What is longer is not a record, and memory stays bounded. */
export const recordBytesMax = 64 * 1024
const blockBytes = 256 * 1024

/** One record of a file. Lines are counted from 1, as an editor counts them; bytes from 0. */
export interface FileRecord {
  readonly line: number
  /** Where it ends: a cell in quotes may go over several lines. */
  readonly lastLine: number
  readonly from: number
  /** Without its line end. */
  readonly to: number
  /** Why it has no cells. */
  readonly defect: Defect | undefined
  /** Whether it holds nothing but separators, quotes and blanks. */
  readonly isBlank: boolean
  readonly cellCount: number
  /** The text of a cell without its quotes; undefined where its bytes are not UTF-8. */
  readonly cell: (index: number) => string | undefined
}
export type Defect = "OPEN_QUOTE" | "STRAY_QUOTE" | "TOO_LONG"

/** How a file is split: `csv` by commas and quotes as well, `lines` by line ends alone. */
export type Splitting = "csv" | "lines"

/** The records of a file, those that end in one block of it at a time. */
export async function* fileRecords(
  path: string,
  splitting: Splitting
): AsyncGenerator<ReadonlyArray<FileRecord>> {
  const file = await open(path)
  try {
    let held: Held = { bytes: Buffer.alloc(0), offset: 0, isLast: false }
    let record = begin(0, 1, splitting)
    for (;;) {
      const found: Array<FileRecord> = []
      for (;;) {
        const step = advance(held, record)
        if (step === "MORE" || step === "END") break
        if (step === "RECORD") {
          found.push(ended(held, record))
          record = begin(record.next, record.line + record.linesWithin + 1, splitting)
        } else {
          // The quote was opened by mistake: the first line is broken by itself, and the second begins a record.
          found.push(brokenLine(record))
          record = begin(record.secondLine!, record.line + 1, splitting)
        }
        // Back to a line that was let go of.
        if (record.from < held.offset) break
      }
      if (found.length > 0) yield found
      if (held.isLast && record.at === held.offset + held.bytes.length) return
      // Of a record that is too long to be held, only the end is looked for.
      const keptFrom = record.isTooLong ? record.at : record.from
      const kept = keptFrom < held.offset ? Buffer.alloc(0) : held.bytes.subarray(keptFrom - held.offset)
      const bytes = Buffer.allocUnsafe(kept.length + blockBytes)
      kept.copy(bytes)
      const { bytesRead } = await file.read(bytes, kept.length, blockBytes, keptFrom + kept.length)
      held = {
        bytes: bytes.subarray(0, kept.length + bytesRead),
        offset: keptFrom,
        isLast: bytesRead === 0
      }
      if (keptFrom === 0 && record.at === 0 && held.bytes.subarray(0, 3).equals(byteOrderMark)) {
        record = begin(3, 1, splitting)
      }
    }
  } finally {
    await file.close()
  }
}

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])

/** The part of the file that is in memory. */
interface Held {
  readonly bytes: Buffer
  /** Where in the file it begins. */
  readonly offset: number
  /** Whether it reaches to the end of the file. */
  readonly isLast: boolean
}

/** A record that is being read. All places are offsets in the file. */
interface OpenRecord {
  readonly from: number
  readonly line: number
  at: number
  state: State
  cellFrom: number
  /** Begin and end of each cell; the begin of one in quotes, which is one behind its quote, is negative. */
  readonly cells: Array<number>
  linesWithin: number
  firstLineTo: number
  /** Where its second line begins, if it has one. */
  secondLine: number | undefined
  /** After its line end. */
  next: number
  isAscii: boolean
  isBlank: boolean
  hasStrayQuote: boolean
  isTooLong: boolean
}

type State =
  | "LINE"
  /** At the begin of a cell, or at the blanks before its text. */
  | "START"
  | "PLAIN"
  | "QUOTED"
  /** After a quote within quotes: the cell's end, or the first of two that mean one. */
  | "QUOTE"
  /** At blanks after the closing quote. */
  | "CLOSED"
  /** In the rest of a line whose quotes are wrong. */
  | "BROKEN"

const begin = (from: number, line: number, splitting: Splitting): OpenRecord => ({
  from,
  line,
  at: from,
  state: splitting === "csv" ? "START" : "LINE",
  cellFrom: from,
  cells: [],
  linesWithin: 0,
  firstLineTo: from,
  secondLine: undefined,
  next: from,
  isAscii: true,
  isBlank: true,
  hasStrayQuote: false,
  isTooLong: false
})

const lineFeed = 0x0a
const carriageReturn = 0x0d
const quote = 0x22
const comma = 0x2c
const blank = 0x20
const tab = 0x09

/**
 * Reads on until the record ends. `MORE`: what is held ends before it does; `END`: so does the file, with no record left;
 * `REWIND`: a quote that was opened in its first line is closed nowhere, or in the midst of a cell.
 */
const advance = (held: Held, record: OpenRecord): "RECORD" | "REWIND" | "MORE" | "END" => {
  const { bytes, isLast, offset } = held
  const end = bytes.length
  let at = record.at - offset
  let { isAscii, isBlank, state } = record
  const stop = <S>(step: S): S => {
    record.at = at + offset
    record.state = state
    record.isAscii = isAscii
    record.isBlank = isBlank
    if (record.at - record.from > recordBytesMax) record.isTooLong = true
    return step
  }
  const endCell = (): void => {
    if (!record.isTooLong) record.cells.push(record.cellFrom, at + offset)
  }
  while (at < end) {
    const byte = bytes[at]!
    if (byte > quote && byte !== comma) {
      isBlank = false
      if (byte > 0x7f) isAscii = false
      if (state === "START") state = "PLAIN"
      else if (state === "QUOTE" || state === "CLOSED") {
        if (record.secondLine !== undefined) return stop("REWIND")
        state = "BROKEN"
      }
    } else if (byte === comma) {
      if (state === "LINE") isBlank = false
      else if (state !== "QUOTED" && state !== "BROKEN") {
        endCell()
        record.cellFrom = at + offset + 1
        state = "START"
      }
    } else if (byte === quote) {
      if (state === "START") {
        state = "QUOTED"
        record.cellFrom = -(at + offset + 1)
      } else if (state === "QUOTED") state = "QUOTE"
      else if (state === "QUOTE") {
        state = "QUOTED"
        isBlank = false
      } else if (state === "CLOSED") {
        if (record.secondLine !== undefined) return stop("REWIND")
        state = "BROKEN"
      } else {
        isBlank = false
        if (state === "PLAIN") record.hasStrayQuote = true
      }
    } else if (byte === lineFeed || byte === carriageReturn) {
      // Whether the next byte belongs to the line end is told by the next block.
      if (byte === carriageReturn && at + 1 === end && !isLast) return stop("MORE")
      const next = at + offset + (byte === carriageReturn && bytes[at + 1] === lineFeed ? 2 : 1)
      if (state !== "QUOTED") {
        if (state !== "BROKEN") endCell()
        record.next = next
        return stop("RECORD")
      }
      record.linesWithin += 1
      if (record.secondLine === undefined) {
        record.secondLine = next
        record.firstLineTo = at + offset
      }
      at = next - offset - 1
    } else if (byte === blank || byte === tab) {
      if (state === "QUOTE") state = "CLOSED"
    } else {
      isBlank = false
      if (state === "START") state = "PLAIN"
      else if (state === "QUOTE" || state === "CLOSED") {
        if (record.secondLine !== undefined) return stop("REWIND")
        state = "BROKEN"
      }
    }
    at += 1
  }
  if (!isLast) return stop("MORE")
  if (at + offset === record.from) return stop("END")
  if (state === "QUOTED") {
    if (record.secondLine !== undefined) return stop("REWIND")
    state = "BROKEN"
  }
  if (state !== "BROKEN") endCell()
  record.next = at + offset
  return stop("RECORD")
}

const brokenLine = ({ firstLineTo, from, line }: OpenRecord): FileRecord => ({
  line,
  lastLine: line,
  from,
  to: firstLineTo,
  defect: "OPEN_QUOTE",
  isBlank: false,
  cellCount: 0,
  cell: () => undefined
})

const ended = ({ bytes, offset }: Held, record: OpenRecord): FileRecord => {
  const { at, cells, from, isAscii, line } = record
  const defect =
    record.state === "BROKEN"
      ? "OPEN_QUOTE"
      : record.isTooLong
        ? "TOO_LONG"
        : record.hasStrayQuote
          ? "STRAY_QUOTE"
          : undefined
  // The cells are cut from the record's own text, so that none of them keeps a whole block in memory.
  const text =
    defect === undefined && isAscii ? bytes.toString("latin1", from - offset, at - offset) : undefined
  const textOf = (cellFrom: number, cellTo: number): string | undefined => {
    if (text !== undefined) return text.slice(cellFrom - from, cellTo - from)
    const part = bytes.subarray(cellFrom - offset, cellTo - offset)
    return isUtf8(part) ? part.toString() : undefined
  }
  return {
    line,
    lastLine: line + record.linesWithin,
    from,
    to: at,
    defect,
    isBlank: record.isBlank && defect === undefined,
    cellCount: defect === undefined ? cells.length / 2 : 0,
    cell: (index) => {
      const cellFrom = cells[2 * index]!
      const cellTo = cells[2 * index + 1]!
      if (cellFrom >= 0) return textOf(cellFrom, cellTo)
      const quoted = textOf(-cellFrom, cellTo)
      if (quoted === undefined) return undefined
      const inner = quoted.slice(0, quoted.lastIndexOf('"'))
      return inner.includes('"') ? inner.replaceAll('""', '"') : inner
    }
  }
}
