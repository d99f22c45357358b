import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { FileUnreadable, type Format, type Read, identify, readRows } from "../../src/cli/StockFile.ts"

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

/** All rows of a file as import reads it, or why it cannot be read. */
const read = (where: string, format: Format, size = 3) =>
  Effect.tryPromise({
    try: async () => {
      await identify(where)
      const lots: Array<ReadonlyArray<Read>> = []
      for await (const { reads } of readRows(where, format, size)) lots.push(reads)
      return lots
    },
    catch: (cause) => cause as FileUnreadable
  })

const complaintOf = (one: Read | undefined): string =>
  one !== undefined && "complaint" in one ? one.complaint : ""

describe("a file of stock", () => {
  for (const [says, name, content, reason] of [
    [
      "in another encoding",
      "latin.csv",
      Buffer.from("sku,name\ncup,M\u00fchle\n", "latin1"),
      "is not UTF-8 (after line 1)"
    ],
    ["in UTF-16", "wide.csv", Buffer.from("sku,name\ncup,x\n", "utf16le"), "has no column"],
    ["with semicolons", "names.csv", "variant;quantity\ncup;1\n", "has no column productVariantId or sku"],
    ["with a column twice", "twice.csv", "sku,quantity,sku\ncup,1,x\n", "two columns with the name sku"],
    ["that is empty", "empty.csv", "", "is empty"],
    ["with a line without an end", "long.jsonl", `{"sku":"${"x".repeat(100_000)}"`, "line 1"]
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

  it.effect("gives the same lots however it is cut into parts, with the line of each row", () =>
    Effect.gen(function* () {
      // Several parts as they are read from the disk, with text of two lines in a column that is nobody's.
      const remark = `"${"x".repeat(150)}\r\nsaid ""y"""`
      const rows = Array.from({ length: 4_000 }, (_, n) => `v${n},${remark},${n}`)
      const where = yield* file("stock.csv", ["productVariantId,remark,quantity", ...rows].join("\r\n"))
      const lots = yield* read(where, "csv", 1_000)
      assert.deepStrictEqual(
        lots.map((reads) => reads.length),
        [1_000, 1_000, 1_000, 1_000]
      )
      lots.flat().forEach((one, n) => {
        // A row is told by the line where it ends.
        assert.deepStrictEqual(one, { line: 3 + 2 * n, row: { productVariantId: `v${n}`, quantity: n } })
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
          for await (const { bytesRead } of readRows(where, format, 2)) found.push(bytesRead)
          return found
        })
        assert.deepStrictEqual(
          ends,
          [lines.length - 4, lines.length - 2, lines.length].map((count) => {
            const bytes = Buffer.byteLength(lines.slice(0, count).join("\n"))
            return count === lines.length ? bytes : bytes + 1
          })
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
      const [[first, second, third], [fourth]] = (yield* read(where, "csv")) as [Array<Read>, Array<Read>]
      for (const name of ["quantity", "expiresAt", "lowStockThreshold"])
        assert.include(complaintOf(first), name)
      assert.deepStrictEqual(second, {
        line: 3,
        row: { sku: "b", quantity: 1, expiresAt: Date.parse("2998-12-31T23:00:00Z"), lowStockThreshold: 2 }
      })
      assert.include(complaintOf(third), "productVariantId is required where there is no sku")
      assert.include(complaintOf(fourth), "expiresAt must be a time")
    })
  )
})
