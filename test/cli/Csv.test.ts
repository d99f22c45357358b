import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { type CsvRecord, CsvReader } from "../../src/cli/Csv.ts"

// Goal: what RFC 4180 allows is read as it was written, wherever the file is cut into parts; what it does not is said,
// with its line, and the lines after it are read. Method: records of any text, written with quotes where they are needed.

const bytesMax = 1_000

const recordsOf = (parts: ReadonlyArray<Buffer>): ReadonlyArray<CsvRecord> => {
  const reader = new CsvReader(bytesMax)
  return [...parts.flatMap((part) => [...reader.read(part)]), ...reader.finish()]
}
const read = (text: string): ReadonlyArray<CsvRecord> => recordsOf([Buffer.from(text)])

const fieldsOf = (record: CsvRecord): ReadonlyArray<string> =>
  "fields" in record ? record.fields : [record.complaint]

// Text that is UTF-8, with what matters to CSV more often than chance would have it.
const field = fc.oneof(
  fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
  fc.array(fc.constantFrom('"', ",", "\n", "\r\n", "a", "ö"), { maxLength: 6 }).map((parts) => parts.join(""))
)
const written = (text: string, quotes: boolean): string =>
  quotes || /[",\r\n\uFEFF]/.test(text) || text === "" ? `"${text.replaceAll('"', '""')}"` : text

describe("CsvReader", () => {
  it("reads what was written, with the line and the byte where each record ends", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.tuple(field, fc.boolean()), { minLength: 1, maxLength: 4 })),
        fc.constantFrom("\n", "\r\n"),
        fc.boolean(),
        fc.boolean(),
        fc.nat(40),
        (records, lineEnd, marked, ended, size) => {
          const lines = records.map((fields) =>
            fields.map(([text, quotes]) => written(text, quotes)).join(",")
          )
          const mark = marked ? "\uFEFF" : ""
          const bytes = Buffer.from(mark + lines.join(lineEnd) + (ended && lines.length > 0 ? lineEnd : ""))
          const parts = Array.from({ length: Math.ceil(bytes.length / (size + 1)) }, (_, index) =>
            bytes.subarray(index * (size + 1), (index + 1) * (size + 1))
          )
          const found = recordsOf(parts)
          assert.deepStrictEqual(
            found.map(fieldsOf),
            records.map((fields) => fields.map(([text]) => text))
          )
          let before = mark
          found.forEach((record, index) => {
            before += lines[index]! + (index < lines.length - 1 || ended ? lineEnd : "")
            assert.strictEqual(record.end, Buffer.byteLength(before))
            assert.strictEqual(record.line, before.replace(/\r?\n$/, "").split("\n").length)
          })
        }
      )
    )
  })

  it("passes over empty lines", () => {
    assert.deepStrictEqual(read('a\n\n\r\nb\n""\n').map(fieldsOf), [["a"], ["b"], [""]])
  })

  for (const [what, text, complaint, line] of [
    ["a quote within a field", 'x\na"b,c\ny\n', "a quote within a field that does not begin with one", 2],
    ["text after a closing quote", 'x\n"a"b,c\ny\n', "a closing quote that is followed by text", 2],
    ["a line that is too long", `x\n${"a".repeat(2_000)}\ny\n`, "it has more than 1000 bytes", 2],
    ["a record that is too long", `x\n"${"a\n".repeat(600)}\ny\n`, "it has more than 1000 bytes", 501]
  ] as const) {
    it(`says what is wrong with ${what}, and goes on with the next line`, () => {
      for (const size of [7, 100, 5_000]) {
        const bytes = Buffer.from(text)
        const parts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
          bytes.subarray(index * size, (index + 1) * size)
        )
        const found = recordsOf(parts)
        assert.deepStrictEqual(fieldsOf(found[0]!), ["x"])
        assert.deepStrictEqual(fieldsOf(found[1]!), [`is not CSV: ${complaint}`])
        assert.strictEqual(found[1]!.line, line)
        assert.deepStrictEqual(fieldsOf(found.at(-1)!), ["y"])
      }
    })
  }

  it("says that a quote is not closed", () => {
    const [first, second] = read('x\n"a\nb\n')
    assert.deepStrictEqual(fieldsOf(first!), ["x"])
    assert.deepStrictEqual(fieldsOf(second!), ["is not CSV: a quote is not closed"])
  })
})
