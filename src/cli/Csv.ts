/** CSV as RFC 4180 has it and as spreadsheets write it: quotes where they are needed, either line end. */

/** A record, or why there is none. */
export type CsvRecord = {
  /** That it ends in, counted from 1. */
  readonly line: number
  /** Bytes from the begin of the file to its end. */
  readonly end: number
} & ({ readonly fields: ReadonlyArray<string> } | { readonly complaint: string })

const newline = 0x0a
const byteOrderMark = "\uFEFF"

/** Reads records from a file's bytes, part by part. Empty lines are none. */
export class CsvReader {
  readonly #recordBytesMax: number
  /** What has come of a line that goes on in the next part. */
  #rest: Buffer = Buffer.alloc(0)
  /** Whether the line is too long to be kept, and is passed over up to its end. */
  #passesOver = false
  #line = 0
  #end = 0
  /** Of the record that is open: where it began, the fields that are whole, and the text of one that is in quotes. */
  #begin = 0
  #fields: Array<string> = []
  #quoted: string | undefined

  constructor(recordBytesMax: number) {
    this.#recordBytesMax = recordBytesMax
  }

  /** The records that end in the next part. */
  *read(part: Buffer): Generator<CsvRecord> {
    const bytes = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part])
    let from = 0
    for (let to = bytes.indexOf(newline); to !== -1; to = bytes.indexOf(newline, from)) {
      const record = this.#take(bytes.toString("utf8", from, to), to + 1 - from)
      if (record !== undefined) yield record
      from = to + 1
    }
    const isTooLong = bytes.length - from > this.#recordBytesMax
    if (this.#passesOver || isTooLong) {
      this.#passesOver = true
      this.#end += bytes.length - from
      this.#rest = Buffer.alloc(0)
    } else this.#rest = bytes.subarray(from)
  }

  /** The last record, where no line end follows it. */
  *finish(): Generator<CsvRecord> {
    if (this.#rest.length > 0 || this.#passesOver) {
      const record = this.#take(this.#rest.toString(), this.#rest.length)
      if (record !== undefined) yield record
    }
    if (this.#quoted !== undefined) yield this.#refuse("a quote is not closed")
  }

  /** A line without its line end: the record that ends in it, if any. */
  #take(text: string, bytes: number): CsvRecord | undefined {
    this.#line += 1
    this.#end += bytes
    if (this.#passesOver || this.#end - this.#begin > this.#recordBytesMax) {
      this.#passesOver = false
      return this.#refuse(`it has more than ${this.#recordBytesMax} bytes`)
    }
    const line = this.#line === 1 && text.startsWith(byteOrderMark) ? text.slice(1) : text
    const problem = line.includes('"') || this.#quoted !== undefined ? this.#cutQuoted(line) : this.#cut(line)
    if (problem !== undefined) return this.#refuse(problem)
    if (this.#quoted !== undefined) return undefined
    const fields = this.#fields
    this.#close()
    return fields.length === 0 ? undefined : { fields, line: this.#line, end: this.#end }
  }

  /** A line without quotes. */
  #cut(line: string): undefined {
    const text = line.endsWith("\r") ? line.slice(0, -1) : line
    if (text !== "") this.#fields = text.split(",")
  }

  /** A line with quotes, or one that begins within them. Says what is wrong. */
  #cutQuoted(line: string): string | undefined {
    const to = line.endsWith("\r") ? line.length - 1 : line.length
    let at = 0
    for (;;) {
      if (this.#quoted === undefined) {
        if (line[at] !== '"') {
          const comma = line.indexOf(",", at)
          const field = line.slice(at, comma === -1 ? to : comma)
          if (field.includes('"')) return "a quote within a field that does not begin with one"
          this.#fields.push(field)
          if (comma === -1) return undefined
          at = comma + 1
          continue
        }
        this.#quoted = ""
        at += 1
      }
      const quote = line.indexOf('"', at)
      if (quote === -1) {
        this.#quoted += `${line.slice(at)}\n`
        return undefined
      }
      this.#quoted += line.slice(at, quote)
      at = quote + 1
      if (line[at] === '"') {
        this.#quoted += '"'
        at += 1
        continue
      }
      this.#fields.push(this.#quoted)
      this.#quoted = undefined
      if (at === to) return undefined
      if (line[at] !== ",") return "a closing quote that is followed by text"
      at += 1
    }
  }

  #refuse(problem: string): CsvRecord {
    this.#close()
    return { complaint: `is not CSV: ${problem}`, line: this.#line, end: this.#end }
  }

  #close(): void {
    this.#begin = this.#end
    this.#fields = []
    this.#quoted = undefined
  }
}
