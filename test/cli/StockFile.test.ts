import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { FileUnreadable, type Format, type Read, StockFileReader, identify } from "../../src/cli/StockFile.ts"

/** Files of stock as text, without a database: what is a row, what is not, and what is no file of stock at all. */

const file = (name: string, content: string | Buffer) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(path.join(tmpdir(), "holdfast-stock-file-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    ),
    (folder) => {
      const where = path.join(folder, name)
      writeFileSync(where, content)
      return where
    }
  )

/** All rows of a file as import reads it, in chunks of so many lines, or why it cannot be read. */
const read = (where: string, format: Format, lines = 3) =>
  Effect.tryPromise({
    try: async () => {
      await identify(where)
      const chunks: Array<ReadonlyArray<Read>> = []
      for await (const { reads } of new StockFileReader(where, format).chunks(lines)) chunks.push(reads)
      return chunks
    },
    catch: (cause) => cause as FileUnreadable
  })

/** Rows of a CSV file by their lines: the row, or what is said of it. */
const readCsv = Effect.fnUntraced(function* (content: string | Buffer, name = "stock.csv") {
  const where = yield* file(name, content)
  const chunks = yield* read(where, name.endsWith("csv") ? "csv" : "jsonl", 1_000)
  return chunks.flat().map((one) => ["row" in one ? one.row : one.complaint, one.line, one.lastLine] as const)
})

const complaintOf = (one: Read | undefined): string =>
  one !== undefined && "complaint" in one ? one.complaint : ""

describe("a file of stock", () => {
  for (const [says, name, content, reason] of [
    ["in UTF-16", "wide.csv", Buffer.from("sku,name\ncup,x\n", "utf16le"), "is in UTF-16"],
    [
      "in UTF-16 with a byte order mark",
      "marked.csv",
      Buffer.from("\uFEFFsku\ncup\n", "utf16le"),
      "is not UTF-8: save it as CSV UTF-8"
    ],
    ["with semicolons", "names.csv", "variant;quantity\ncup;1\n", "has no column productVariantId or sku"],
    ["with a column twice", "twice.csv", "sku,quantity,sku\ncup,1,x\n", "two columns with the name sku"],
    ["with a column under two names", "two.csv", "sku,Quantity,QUANTITY\ncup,1,2\n", "Quantity and QUANTITY"],
    ["with a broken header", "header.csv", 'sku,"quantity\ncup,1\n', "header line"],
    ["that is empty", "empty.csv", "", "is empty"]
  ] as const) {
    it.effect(`${says} is refused with what is wrong with it`, () =>
      Effect.gen(function* () {
        const where = yield* file(name, content)
        const failure = yield* Effect.flip(read(where, name.endsWith("csv") ? "csv" : "jsonl"))
        assert.instanceOf(failure, FileUnreadable)
        assert.include(failure.message, reason)
        assert.include(failure.message, where)
      })
    )
  }

  it.effect("that is not there, or a folder, is refused", () =>
    Effect.gen(function* () {
      const where = yield* file("stock.csv", "sku\n")
      const missing = yield* Effect.flip(read(`${where}.gone`, "csv"))
      assert.strictEqual(missing.message, `${where}.gone is not there`)
      const folder = yield* Effect.flip(read(path.dirname(where), "csv"))
      assert.strictEqual(folder.message, `${path.dirname(where)} is a folder`)
    })
  )

  it.effect("gives the same chunks however it is cut into blocks, with the lines of each row", () =>
    Effect.gen(function* () {
      // Several blocks as they are read from the disk, with text of two lines in a column that is nobody's.
      const remark = `"${"x".repeat(150)}\r\nsaid ""y"""`
      const rows = Array.from({ length: 4_000 }, (_, n) => `v${n},${remark},${n}`)
      const where = yield* file("stock.csv", ["productVariantId,remark,quantity", ...rows].join("\r\n"))
      const chunks = yield* read(where, "csv", 2_000)
      assert.deepStrictEqual(
        chunks.map((reads) => reads.length),
        [1_000, 1_000, 1_000, 1_000]
      )
      chunks.flat().forEach((one, n) => {
        const { from, to, ...rest } = one
        assert.deepStrictEqual(rest, {
          line: 2 + 2 * n,
          lastLine: 3 + 2 * n,
          row: { productVariantId: `v${n}`, quantity: n }
        })
        assert.strictEqual(to - from, rows[n]!.length)
      })
    })
  )

  for (const format of ["csv", "jsonl"] as const) {
    it.effect(`knows how far it was read, row by row (${format})`, () =>
      Effect.gen(function* () {
        const names = ["Ä", "B", "CC", "ÖÖ", "E", "F"]
        const rows = names.map((sku) => (format === "csv" ? sku : JSON.stringify({ sku })))
        const lines = format === "csv" ? ["sku", ...rows] : rows
        const where = yield* file(`stock.${format}`, lines.join("\n"))
        const ends = yield* Effect.promise(async () => {
          const found: Array<number> = []
          for await (const { bytesRead } of new StockFileReader(where, format).chunks(2))
            found.push(bytesRead)
          return found
        })
        // The header is the first line of its chunk.
        const last = format === "csv" ? [2, 4, 6, 7] : [2, 4, 6]
        assert.deepStrictEqual(
          ends,
          last.map((count) => Buffer.byteLength(lines.slice(0, count).join("\n")))
        )
      })
    )
  }

  it.effect("says everything that is wrong with a row, and takes the times that the others give", () =>
    Effect.gen(function* () {
      const where = yield* file(
        "stock.csv",
        [
          "sku,quantity,expiresAt,lowStockThreshold",
          "a,many,tomorrow,-1",
          "b,1,2999-01-01T00:00:00+01:00,2",
          ",1,,",
          "c,1,2999-02-30T00:00:00Z,"
        ].join("\n")
      )
      const [first, second, third, fourth] = (yield* read(where, "csv")).flat()
      for (const name of ["quantity", "expiresAt", "lowStockThreshold"])
        assert.include(complaintOf(first), name)
      assert.deepInclude(second, {
        line: 3,
        row: { sku: "b", quantity: 1, expiresAt: Date.parse("2998-12-31T23:00:00Z"), lowStockThreshold: 2 }
      })
      assert.strictEqual(complaintOf(third), "productVariantId is required where there is no sku")
      assert.include(complaintOf(fourth), "expiresAt must be a day such as")
    })
  )

  for (const [says, name, long, rest, rowOf] of [
    [
      "cell",
      "long.csv",
      (text: string) => `bad,1,${text}`,
      "sku,quantity,remark\n",
      (n: number) => `s${n},1,`
    ],
    [
      "cell in quotes, of several lines",
      "quoted.csv",
      (text: string) => `bad,1,"${text}\n${text}"`,
      "sku,quantity,remark\n",
      (n: number) => `s${n},1,"x"`
    ],
    [
      "JSON line",
      "long.jsonl",
      (text: string) => JSON.stringify({ sku: text }),
      "",
      (n: number) => `{"sku":"s${n}","quantity":1}`
    ]
  ] as const) {
    it.effect(`with a ${says} that is too long is read on behind it`, () =>
      Effect.gen(function* () {
        // One that is held, one that is longer than a block, and one that is never held as a whole.
        for (const length of [100_000, 300_000, 3_000_000]) {
          const good = Array.from({ length: 150 }, (_, n) => rowOf(n))
          const rows = yield* readCsv(rest + [...good, long("x".repeat(length)), ...good].join("\n"), name)
          const refused = rows.filter(([row]) => typeof row === "string")
          const line = rest === "" ? 151 : 152
          const lines = says.includes("several") ? 2 : 1
          assert.deepStrictEqual(refused, [["has more than 65536 bytes", line, line + lines - 1]])
          assert.strictEqual(rows.length, 301)
          assert.strictEqual(rows.at(-1)![1], line + lines - 1 + 150)
        }
      })
    )
  }

  it.effect("with a quote that is not closed is read on behind its line, however far the end is", () =>
    Effect.gen(function* () {
      for (const count of [1, 150, 40_000]) {
        const good = Array.from({ length: count }, (_, n) => `s${n},1,`)
        const rows = yield* readCsv(
          ["sku,quantity,remark", 'bad,1,"open', ...good, 'also,1,"open', ...good].join("\n")
        )
        const refused = rows.filter(([row]) => typeof row === "string").map(([, line]) => line)
        assert.deepStrictEqual(refused, [2, count + 3])
        assert.strictEqual(rows.length, 2 + 2 * count)
      }
    })
  )

  it.effect("takes a cell of several lines as one, and what is in it for no row", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* readCsv('sku,quantity,remark\ncup,1,"so\nevil,9,\nbad"\r\npot,2,"a",b\npan,3,\n'),
        [
          [{ sku: "cup", quantity: 1 }, 2, 4],
          ["has 4 cells, and the header line has 3", 5, 5],
          [{ sku: "pan", quantity: 3 }, 6, 6]
        ]
      )
      // Also where the row is refused for something else.
      const [first, second] = yield* readCsv('sku,remark,quantity\ncup,"so\nevil,x,9\nbad",1" rack\npan,,3\n')
      assert.deepStrictEqual([first![1], first![2]], [2, 4])
      assert.include(first![0], "quote within a cell")
      assert.deepStrictEqual(second, [{ sku: "pan", quantity: 3 }, 5, 5])
    })
  )

  it.effect("has any line ends, also mixed, and lines of nothing but separators", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* readCsv('\uFEFFsku,quantity\r\na,1\nb,2\rc,3\r\n\r\n,\n , \r"",""\nd,4,,\ne\n\nf,5'),
        [
          [{ sku: "a", quantity: 1 }, 2, 2],
          [{ sku: "b", quantity: 2 }, 3, 3],
          [{ sku: "c", quantity: 3 }, 4, 4],
          [{ sku: "d", quantity: 4 }, 9, 9],
          [{ sku: "e" }, 10, 10],
          [{ sku: "f", quantity: 5 }, 12, 12]
        ]
      )
      assert.deepStrictEqual(yield* readCsv('{"sku":"a"}\r\n\n{"sku":"b"}\r{"sku":"c"}', "stock.jsonl"), [
        [{ sku: "a" }, 1, 1],
        [{ sku: "b" }, 3, 3],
        [{ sku: "c" }, 4, 4]
      ])
    })
  )

  it.effect("names its columns in any case, with blanks, - or _, and is told which are not read", () =>
    Effect.gen(function* () {
      const csv = yield* file(
        "names.csv",
        "Product Variant-ID,SKU,QUANTITY,location_id,Low stock threshold,Colour,,Qty\nv,s,1,shop,2,red,,7\n"
      )
      const jsonl = yield* file(
        "names.jsonl",
        '{"product_variant_id":"v","Sku":"s","Quantity":1,"LOCATION ID":"shop","lowStockThreshold":2,"Colour":"red","Qty":7}'
      )
      for (const [where, format] of [
        [csv, "csv"],
        [jsonl, "jsonl"]
      ] as const) {
        const reader = new StockFileReader(where, format)
        const reads: Array<Read> = []
        yield* Effect.promise(async () => {
          for await (const chunk of reader.chunks(10)) reads.push(...chunk.reads)
        })
        assert.deepInclude(reads[0], {
          row: { productVariantId: "v", sku: "s", quantity: 1, locationId: "shop", lowStockThreshold: 2 }
        })
        assert.deepStrictEqual([...reader.unreadColumns], ["Colour", "Qty"])
      }
    })
  )

  it.effect("guesses no number and no date", () =>
    Effect.gen(function* () {
      const quantities = ["10.0", "10.00", "10.0000", " 10 ", "+10", '"10"']
      const rows = yield* readCsv(`sku,quantity\n${quantities.map((text) => `cup,${text}`).join("\n")}`)
      assert.deepStrictEqual(
        rows.map(([row]) => row),
        quantities.map(() => ({ sku: "cup", quantity: 10 }))
      )
      // 1.000 is a thousand to many.
      const never = ['"1,000"', "1.000", "1 000", "1'000", "1e3", "10.5", '"10,0"', "0x10", "ten", "1.", ".0"]
      for (const [row] of yield* readCsv(`sku,quantity\n${never.map((text) => `cup,${text}`).join("\n")}`)) {
        assert.include(row, "quantity must be a whole number")
      }
      const [day, ...others] = yield* readCsv(
        "sku,expiresAt\ncup,2028-02-29\ncup,2027-02-29\ncup,31.01.2030\ncup,1/2/2030\ncup,2030-01-31 12:00\ncup,2030-1-3\n"
      )
      assert.deepStrictEqual(day![0], { sku: "cup", expiresAt: Date.parse("2028-02-29T23:59:59.999Z") })
      assert.strictEqual(others.length, 5)
      for (const [row] of others) assert.include(row, "expiresAt must be a day")
      const [yes, no, maybe] = yield* readCsv("sku,stocked\ncup,TRUE\ncup,false\ncup,1\n")
      assert.deepStrictEqual(
        [yes![0], no![0], maybe![0]],
        [{ sku: "cup", stocked: true }, { sku: "cup", stocked: false }, "stocked must be true or false"]
      )
    })
  )

  it.effect("trims ids, and takes what a row expects with a quantity only", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* readCsv(
          'sku,quantity,locationId,lotNumber,expectedQuantity\n  cup ,1,"shop  ",\tL , 3.0\ncup,,,,3\n'
        ),
        [
          [{ sku: "cup", quantity: 1, locationId: "shop", lotNumber: "L", expectedQuantity: 3 }, 2, 2],
          ["quantity is required where the row expects a quantity or a version", 3, 3]
        ]
      )
    })
  )

  it.effect("refuses the rows that are not UTF-8, and no others", () =>
    Effect.gen(function* () {
      const latin = Buffer.from("sku,name\ncup,M\u00fchle\n", "latin1")
      const rows = yield* readCsv(Buffer.concat([latin, Buffer.from("pot,M\u00fchle\n")]))
      assert.deepStrictEqual(rows, [
        ["is not UTF-8: save the file as CSV UTF-8", 2, 2],
        [{ sku: "pot", name: "M\u00fchle" }, 3, 3]
      ])
    })
  )
})

// Goal: whatever a file holds, each of its rows is read or named by its line. Method: files are put together from pieces
// of which it is known what they are, with random line ends; the pieces are counted, not parsed.

interface Piece {
  readonly text: string | Buffer
  /** What must become of it: read as this sku, named, or passed over because there is nothing in it. */
  readonly is: { readonly sku: string } | "named" | "nothing"
}
const pieces: fc.Arbitrary<Piece> = fc.oneof(
  { weight: 6, arbitrary: fc.nat(999).map((n): Piece => ({ text: `s${n},1,`, is: { sku: `s${n}` } })) },
  {
    weight: 2,
    arbitrary: fc.nat(9).map((n): Piece => ({ text: `"s${n}", 1.0 ,"a ""b"", c"`, is: { sku: `s${n}` } }))
  },
  { weight: 1, arbitrary: fc.constant<Piece>({ text: "s,1,\0\u00e4\u{1F600}", is: { sku: "s" } }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Piece>({ text: "", is: "nothing" }, { text: " ,,", is: "nothing" })
  },
  ...[
    'bad,1,"open',
    '"bad,1,',
    'bad,1,3" pipe',
    'bad,1,"a"b',
    "bad,many,",
    "bad,1,x,y",
    "b\0ad,1,",
    `bad,1,${"x".repeat(70_000)}`,
    `bad,1,"${"x".repeat(70_000)}"`,
    Buffer.from([0x62, 0xff, 0x2c, 0x31])
  ].map((text) => ({ weight: 1, arbitrary: fc.constant<Piece>({ text, is: "named" }) }))
)
const lineEnds = fc.constantFrom("\n", "\r\n", "\r")

describe("random files of rows, some of them broken", () => {
  it("have every row read or named by its line", async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "holdfast-stock-file-"))
    const where = path.join(folder, "random.csv")
    try {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.tuple(pieces, lineEnds), { maxLength: 40 }), async (rows) => {
          writeFileSync(
            where,
            Buffer.concat([
              Buffer.from("sku,quantity,remark\r\n"),
              ...rows.flatMap(([{ text }, end]) => [Buffer.from(text), Buffer.from(end)])
            ])
          )
          const reads: Array<Read> = []
          for await (const chunk of new StockFileReader(where, "csv").chunks(7)) reads.push(...chunk.reads)
          let line = 2
          // A line end of CR and one of LF behind an empty row are one.
          rows.forEach(([{ is, text }, end], index) => {
            const joins = end === "\n" && text.length === 0 && rows[index - 1]?.[1] === "\r"
            if (joins) return
            const of = reads.filter((one) => one.line <= line && line <= one.lastLine)
            if (is === "nothing") assert.isAtMost(of.length, 1)
            else {
              assert.strictEqual(of.length, 1, `line ${line}`)
              const [one] = of
              if (is === "named" && one!.line === one!.lastLine) assert.property(one, "complaint")
              else if (is !== "named" && one!.line < line) assert.property(one, "complaint")
              else if (is !== "named" && "row" in one! && one.line === line)
                assert.strictEqual(one.row.sku, is.sku)
            }
            line += 1
          })
          // Nothing is read that no piece is.
          for (const one of reads) if ("row" in one) assert.match(one.row.sku!, /^(s\d*|bad)$/)
        }),
        { numRuns: 300 }
      )
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
