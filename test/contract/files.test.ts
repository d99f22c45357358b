import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { chmod } from "node:fs/promises"
import { tmpdir } from "node:os"
import path from "node:path"
import { connect } from "../support/ledger.ts"
import { removeFolder } from "../support/Postgres.ts"
import { Service, fresh, merchant, merchantAt, run, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/** `holdfast import` and `holdfast export` (CONTRACTS section 8), as processes of their own beside a running service. */

const api = "/api/v1/inventory"
const header =
  "productVariantId,sku,quantity,locationId,lotNumber,expiresAt,name,lowStockThreshold,safetyStock,countTolerance,productId,stocked"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(path.join(tmpdir(), "holdfast-files-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

/** For an embedded database: also where that is kept elsewhere it goes with the test. */
const dataFolder = Effect.acquireRelease(
  Effect.promise(async () => {
    const made = mkdtempSync(path.join(tmpdir(), "holdfast-files-"))
    // Run as root, PostgreSQL has another account, which must get in.
    await chmod(made, 0o755)
    return made
  }),
  (made) => Effect.promise(() => removeFolder(made))
)

const file = Effect.fnUntraced(function* (name: string, content: string | Buffer) {
  const where = path.join(yield* folder, name)
  writeFileSync(where, content)
  return where
})

const holdfast = Effect.fnUntraced(function* (...parameters: ReadonlyArray<string>) {
  const { databaseUrl } = yield* Service
  return yield* run({ DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1" }, parameters)
})

/** What a command printed, once it has ended. */
const done = Effect.fnUntraced(function* (...parameters: ReadonlyArray<string>) {
  const program = yield* holdfast(...parameters)
  const { code } = yield* program.ended
  return { code, out: program.stdout(), err: program.stderr() }
})

const load = (where: string, merchantId: string, ...flags: ReadonlyArray<string>) =>
  done("import", where, "--merchant", merchantId, ...flags)
const exported = (merchantId: string, ...flags: ReadonlyArray<string>) =>
  Effect.map(done("export", "--merchant", merchantId, ...flags), ({ out }) => out)

/** What the books of a merchant say, without ids and times. */
const booksOf = Effect.fnUntraced(function* (merchantId: string) {
  const sql = yield* connect(Redacted.make((yield* Service).databaseUrl))
  // What was loaded a moment ago is not known to the planner yet.
  yield* sql.run("ANALYZE")
  const question = (columns: string, from: string) =>
    sql.run(`SELECT ${columns} FROM ${from} ORDER BY ${columns}`, [merchantId])
  return {
    items: yield* question(
      "product_variant_id, sku, name, low_stock_threshold, status, initialized, on_hand, reserved",
      "item WHERE merchant_id = $1"
    ),
    stocks: yield* question(
      "product_variant_id, i.sku, location_id, lot_number, lot_expires_at, s.on_hand, s.sequence",
      "stock s JOIN item i USING (merchant_id, item_id) WHERE merchant_id = $1"
    ),
    locations: yield* question("position, location_id", "location WHERE merchant_id = $1"),
    ledger: yield* sql.run(
      `SELECT count(*) AS movements, sum(on_hand_delta)::bigint AS total
       FROM inventory_ledger WHERE merchant_id = $1`,
      [merchantId]
    )
  }
})

/** Each test starts several processes, on a machine that may be busy with others. */
const patience = 180_000

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("import and export", (it) => {
  it.effect(
    "loads a CSV file: each bad row is told by its line, the rest is loaded, and the exit code says so",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const where = yield* file(
          "stock.csv",
          [
            `\uFEFFname,sku,remark,quantity,productVariantId,locationId,lowStockThreshold`,
            `"Cup, ""big""",CUP,,5,cup,shop,2`,
            ``,
            `Pot,POT,,many,pot,shop,`,
            `Pan,PAN,,1,pan,shop`,
            `Jug,CUP,,3,jug,shop,`,
            `Tea,,note,0,tea,,`,
            `Mug,,,,mug,,`,
            `,,,1,,shop,`,
            `Bad "quote" here,X,,1,x,shop,`,
            `Last,LAST,,7,last,shop,`
          ].join("\r\n")
        )
        const { code, err, out } = yield* load(where, merchantId)
        assert.strictEqual(code, 1)
        const told = err.trimEnd().split("\n")
        const lines = told.map((line) => line.split(":").slice(0, 2).join(":"))
        assert.deepStrictEqual(lines.slice(0, -1), [
          "line 4: VALIDATION_FAILED",
          "line 6: ITEM_CONFLICT",
          "line 9: VALIDATION_FAILED",
          "line 10: VALIDATION_FAILED"
        ])
        assert.include(told.at(-1), "4 of 9 rows were refused")
        assert.include(out, "5 loaded, 4 refused")
        assert.include(out, "Columns that are not read: remark.")
        assert.include(out, "Locations that are new: shop.")
        const cup = (yield* get(`${api}/cup`)).body
        assert.deepInclude(cup, { sku: "CUP", quantity: 5, status: "IN_STOCK" })
        assert.strictEqual(pick(cup, "locations.0.locationId"), "shop")
        assert.deepInclude((yield* get(`${api}/tea`)).body, { quantity: 0, status: "OUT_OF_STOCK" })
        assert.deepInclude((yield* get(`${api}/mug`)).body, { quantity: 0, status: "AWAITING_INITIAL_STOCK" })
        assert.strictEqual(pick((yield* get(`${api}/last`)).body, "quantity"), 7)
        // The empty cell at the end of its row was left out.
        assert.strictEqual(pick((yield* get(`${api}/pan`)).body, "quantity"), 1)
        // Of a row that was refused nothing is left.
        assert.strictEqual((yield* get(`${api}/jug`)).status, 404)
        const movement = pick((yield* get(`${api}/cup/ledger`)).body, "data.0")
        assert.deepInclude(movement, {
          type: "ADJUSTMENT",
          onHandDelta: 5,
          actor: "holdfast import",
          reason: "import of stock.csv"
        })
      })
  )

  it.effect(
    "loads JSON lines of the same names, and tells a program in JSON",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const where = yield* file(
          "stock.jsonl",
          [
            JSON.stringify({ productVariantId: "cup", quantity: 5, lotNumber: "L", locationId: "shop" }),
            `{"sku":"POT","quantity":"5"}`,
            `nonsense`,
            JSON.stringify({
              sku: "POT",
              quantity: 2,
              expiresAt: "2999-01-31T00:00:00+01:00",
              lotNumber: "A"
            })
          ].join("\n")
        )
        const { code, out } = yield* load(where, merchantId, "--json")
        assert.strictEqual(code, 1)
        const told = out
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line) as Record<string, unknown>)
        assert.deepStrictEqual(
          told.map(({ code, line }) => [line, code]),
          [
            [2, "VALIDATION_FAILED"],
            [3, "VALIDATION_FAILED"],
            [undefined, undefined]
          ]
        )
        const { elapsedMs: _, ...summary } = told.at(-1)!
        assert.deepStrictEqual(summary, {
          rows: 4,
          loaded: 2,
          refused: 2,
          replayed: 0,
          replayedFrom: null,
          replayedTo: null,
          locationsCreated: ["shop"],
          columnsNotRead: [],
          rowsOfSeveralLines: 0
        })
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
        const pot = (yield* get("/inventory/POT")).body
        assert.deepInclude(pick(pot, "batches.0"), { lotNumber: "A", expiresAt: "2999-01-30T23:00:00.000Z" })
      }),
    patience
  )

  for (const format of ["csv", "jsonl"] as const) {
    it.effect(
      `exports as ${format} what imports again to the same figures, formulas and all`,
      () =>
        Effect.gen(function* () {
          const { adjust, item, location, merchantId, receive } = yield* merchant
          yield* location("shop")
          yield* location("-1+1")
          for (const name of [
            "=1+1",
            "+x",
            "-x",
            "@x",
            "'=quoted",
            "'tis",
            `a "b", c`,
            " spaced ",
            "＝wide"
          ]) {
            yield* item(`v ${name}`, { sku: name, name, lowStockThreshold: 3 })
            yield* receive(`v ${name}`, 4, { locationId: "-1+1" })
          }
          yield* item("none")
          yield* item("below")
          yield* receive("below", 2)
          yield* adjust("below", "SALE", 2, { orderId: "o" })
          yield* receive("below", 9, {
            locationId: "shop",
            lotNumber: "B",
            expiresAt: "2999-01-01T00:00:00Z"
          })
          yield* receive("below", 1, { locationId: "shop" })
          const first = yield* exported(merchantId, "--format", format)
          if (format === "csv") {
            assert.isTrue(first.startsWith(`${header}\r\n`))
            // No cell but a number begins as a formula does.
            assert.notMatch(first, /(^|,|")[=+@＝]/m)
          }
          const copy = fresh("merchant")
          const where = yield* file(`copy.${format}`, first)
          const loaded = yield* load(where, copy)
          assert.strictEqual(loaded.code, 0, loaded.err)
          assert.strictEqual(yield* exported(copy, "--format", format), first)
          // The same file over the books that it came from: nothing is different, so nothing moves.
          if (format === "jsonl") return
          const before = yield* booksOf(merchantId)
          assert.strictEqual((yield* load(where, merchantId)).code, 0)
          assert.deepStrictEqual(yield* booksOf(merchantId), before)
        }),
      patience
    )
  }

  it.effect(
    "says what the books say of a stock below zero, and loads it so",
    () =>
      Effect.gen(function* () {
        const merchantId = fresh("merchant")
        const where = yield* file("below.csv", `productVariantId,quantity\ncup,-3\n`)
        assert.strictEqual((yield* load(where, merchantId)).code, 0)
        assert.strictEqual(yield* exported(merchantId), `${header}\r\ncup,,-3,default,,,,0,0,0,,true\r\n`)
      }),
    patience
  )

  it.effect(
    "does not touch again what moved since an earlier run of the same file, unless it is told to",
    () =>
      Effect.gen(function* () {
        const { adjust, get, merchantId } = yield* merchant
        const where = yield* file("stock.csv", `productVariantId,quantity\ncup,5\npot,x\n`)
        yield* load(where, merchantId)
        yield* adjust("cup", "SALE", 2)
        const again = yield* load(where, merchantId)
        assert.strictEqual(again.code, 1)
        assert.include(again.err, "line 3: VALIDATION_FAILED")
        assert.include(again.out, "1 of them was loaded by an earlier run")
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 3)
        assert.strictEqual((yield* load(where, merchantId, "--again")).code, 1)
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
        const other = yield* file("stock.csv", `productVariantId,quantity\ncup,4\n`)
        assert.strictEqual((yield* load(other, merchantId)).code, 0)
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 4)
      })
  )

  it.effect(
    "lets the last line of a stock win, however far apart the lines are",
    () =>
      Effect.gen(function* () {
        const merchantId = fresh("merchant")
        const rows = Array.from({ length: 4_000 }, (_, index) => `v${index % 7},,${index},place ${index % 3}`)
        const where = yield* file(
          "twice.csv",
          ["productVariantId,sku,quantity,locationId", ...rows].join("\n")
        )
        assert.strictEqual((yield* load(where, merchantId)).code, 0)
        const { locations, stocks } = yield* booksOf(merchantId)
        assert.deepStrictEqual(
          stocks.map((row) => row["on_hand"]).sort(),
          Array.from({ length: 21 }, (_, index) => 3_979 + index)
        )
        assert.deepStrictEqual(
          locations.map((row) => row["location_id"]),
          ["default", "place 0", "place 1", "place 2"]
        )
      }),
    patience
  )

  it.effect(
    "loads every other row of a file with one that cannot be read, and names that by its line",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const good = Array.from({ length: 150 }, (_, n) => `cup ${n},1,`)
        const where = yield* file(
          "long.csv",
          Buffer.concat([
            Buffer.from(
              ["productVariantId,quantity,remark", "first,1,", `long,1,${"x".repeat(100_000)}`].join("\r\n")
            ),
            Buffer.from(["", ...good, 'open,1,"', ...good.map((row) => `2${row}`)].join("\n")),
            Buffer.from("\rcaf\u00e9,1,\rlast,1,", "latin1")
          ])
        )
        const { code, err, out } = yield* load(where, merchantId)
        assert.strictEqual(code, 1)
        assert.deepStrictEqual(
          err
            .trimEnd()
            .split("\n")
            .slice(0, -1)
            .map((line) => line.split(":").slice(0, 2).join(":")),
          ["line 3: VALIDATION_FAILED", "line 154: VALIDATION_FAILED", "line 305: VALIDATION_FAILED"]
        )
        assert.include(out, "305 rows")
        assert.include(out, "302 loaded, 3 refused")
        assert.strictEqual(pick((yield* get(`${api}/2cup%20149`)).body, "quantity"), 1)
        assert.strictEqual(pick((yield* get(`${api}/last`)).body, "quantity"), 1)
        // Nothing of a file of another encoding is guessed.
        const latin = yield* file(
          "latin.csv",
          Buffer.from("productVariantId,name\nm\u00fc,M\u00fchle\n", "latin1")
        )
        const refused = yield* load(latin, merchantId)
        assert.strictEqual(refused.code, 1)
        assert.include(refused.err, "line 2: VALIDATION_FAILED: is not UTF-8: save the file as CSV UTF-8")
      }),
    patience
  )

  it.effect(
    "reads columns whatever their case, and says which it did not read and that no stock is set",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const where = yield* file("stock.csv", "SKU,Quantity\r\nCUP,5\nPOT,6\nPAN,7\n")
        const { code, out } = yield* load(where, merchantId)
        assert.deepStrictEqual([code, out.split(": ")[1]], [0, "3 loaded, 0 refused.\n"])
        assert.strictEqual(pick((yield* get("/inventory/POT")).body, "totalQuantity"), 6)
        const other = yield* load(yield* file("other.csv", "SKU,Qty\nCUP,9\n"), merchantId)
        assert.include(other.out, "Columns that are not read: Qty.")
        assert.include(other.out, "No row has a quantity: no stock is set.")
        assert.strictEqual(pick((yield* get("/inventory/CUP")).body, "totalQuantity"), 5)
      }),
    patience
  )

  it.effect(
    "is told that a file was loaded before and when, also where another one was loaded since",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const quantity = Effect.map(get(`${api}/cup`), ({ body }) => pick(body, "quantity"))
        const first = yield* file("stock.csv", `productVariantId,quantity\ncup,5\n`)
        const second = yield* file("stock.csv", `productVariantId,quantity\ncup,4\n`)
        assert.include((yield* load(first, merchantId)).out, "1 loaded, 0 refused")
        const loadedAt = pick((yield* get(`${api}/cup/ledger`)).body, "data.0.recordedAt") as string
        assert.include((yield* load(second, merchantId)).out, "1 loaded, 0 refused")
        const again = yield* load(first, merchantId)
        assert.strictEqual(again.code, 0)
        assert.include(again.out, "0 loaded, 0 refused")
        assert.include(
          again.out,
          `1 of them was loaded by an earlier run of this file, at ${loadedAt.replace("T", " ")}`
        )
        assert.strictEqual(yield* quantity, 4)
        // Not by age either: the keys of requests are kept for a day, this for good.
        const sql = yield* connect(Redacted.make((yield* Service).databaseUrl))
        yield* sql.run(
          "UPDATE idempotency SET created_at = created_at - interval '2 days' WHERE merchant_id = $1",
          [merchantId]
        )
        assert.include((yield* load(first, merchantId)).out, "0 loaded, 0 refused")
        assert.include((yield* load(first, merchantId, "--again")).out, "1 loaded, 0 refused")
        assert.strictEqual(yield* quantity, 5)
        // What was loaded again was loaded.
        assert.include((yield* load(first, merchantId)).out, "0 loaded, 0 refused")
      }),
    patience
  )

  it.effect(
    "writes refused rows to a file of their own, which is corrected without touching what was sold meanwhile",
    () =>
      Effect.gen(function* () {
        const { adjust, get, merchantId } = yield* merchant
        const where = yield* file(
          "stock.csv",
          `\uFEFFproductVariantId,quantity,remark\r\ncup,5,"a\r\nb"\r\npot,many,"c\r\nd"\r\npan,7,"e\r\n`
        )
        const rejects = path.join(yield* folder, "rejects.csv")
        const refused = yield* load(where, merchantId, "--rejects", rejects)
        assert.strictEqual(refused.code, 1)
        assert.include(
          refused.err,
          `2 of 3 rows were refused, the others are loaded: correct them in ${rejects}`
        )
        assert.strictEqual(
          readFileSync(rejects, "utf8"),
          `\uFEFFproductVariantId,quantity,remark\r\npot,many,"c\r\nd"\r\npan,7,"e\r\n`
        )
        yield* adjust("cup", "SALE", 2)
        // It may hold corrections: it is written over by nothing.
        const twice = yield* load(where, merchantId, "--rejects", rejects)
        assert.strictEqual(twice.code, 1)
        assert.include(twice.err, "it is there already")
        writeFileSync(rejects, readFileSync(rejects, "utf8").replace("many", "6").replace('"e', "e"))
        const mended = yield* load(rejects, merchantId)
        assert.strictEqual(mended.code, 0, mended.err)
        for (const [variant, quantity] of [
          ["cup", 3],
          ["pot", 6],
          ["pan", 7]
        ] as const) {
          assert.strictEqual(pick((yield* get(`${api}/${variant}`)).body, "quantity"), quantity)
        }
        // Without the flag the way is shown, and an import that refuses nothing leaves no file.
        const other = path.join(yield* folder, "none.csv")
        assert.include(
          (yield* load(where, merchantId)).err,
          `--rejects FILE writes them to a file of their own`
        )
        assert.strictEqual((yield* load(rejects, merchantId, "--rejects", other)).code, 0)
        assert.isFalse(existsSync(other))
      }),
    patience
  )

  it.effect(
    "sets a quantity only where the row's expectation holds, and tries what was refused again",
    () =>
      Effect.gen(function* () {
        const { adjust, get, item, merchantId, receive } = yield* merchant
        yield* item("cup")
        yield* receive("cup", 5)
        const where = yield* file(
          "counted.csv",
          `productVariantId,quantity,expectedQuantity,Expected Version\ncup,8,3,\npot,2,0,0\n`
        )
        const first = yield* load(where, merchantId, "--json")
        assert.strictEqual(first.code, 1)
        assert.deepInclude(JSON.parse(first.out.split("\n")[0]!), {
          line: 2,
          code: "VERSION_MISMATCH",
          expectedQuantity: 3,
          quantity: 5,
          version: 1
        })
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
        yield* adjust("cup", "SALE", 2)
        yield* adjust("pot", "RECEIPT", 1)
        const second = yield* load(where, merchantId)
        assert.strictEqual(second.code, 0, second.err)
        assert.include(second.out, "2 rows")
        assert.include(second.out, "1 loaded, 0 refused")
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 8)
        assert.strictEqual(pick((yield* get(`${api}/pot`)).body, "quantity"), 3)
        const stale = yield* file("stale.csv", "productVariantId,quantity,expectedVersion\ncup,1,2\n")
        assert.include((yield* load(stale, merchantId)).err, "line 2: VERSION_MISMATCH")
      }),
    patience
  )

  it.effect(
    "says by --dry-run what would change, and changes nothing",
    () =>
      Effect.gen(function* () {
        const merchantId = fresh("merchant")
        const where = yield* file(
          "stock.csv",
          "productVariantId,sku,quantity,locationId,name\ncup,CUP,5,shop,Cup\npot,,many,,\njug,CUP,1,,\n"
        )
        const dry = yield* load(where, merchantId, "--dry-run")
        assert.strictEqual(dry.code, 1)
        assert.include(
          dry.out,
          'line 2: new item cup at shop: productVariantId "cup", sku "CUP", quantity 5, name "Cup"'
        )
        assert.include(dry.out, "1 would change something, 0 would change nothing, 2 would be refused")
        assert.include(dry.out, "Locations that would be new: shop.")
        assert.include(dry.err, "line 3: VALIDATION_FAILED")
        assert.include(dry.err, "line 4: ITEM_CONFLICT")
        const sql = yield* connect(Redacted.make((yield* Service).databaseUrl))
        assert.deepStrictEqual(
          yield* sql.run("SELECT 1 FROM merchant WHERE merchant_id = $1", [merchantId]),
          []
        )
        assert.strictEqual((yield* load(where, merchantId)).code, 1)
        const before = yield* booksOf(merchantId)
        const changed = yield* file(
          "stock.jsonl",
          '{"productVariantId":"cup","quantity":8,"lotNumber":"","locationId":"shop","name":"Big cup"}\n{"sku":"CUP"}\n'
        )
        const second = yield* load(changed, merchantId, "--dry-run")
        assert.strictEqual(second.code, 0, second.err)
        assert.include(second.out, 'line 1: cup at shop: quantity 5 → 8, name "Cup" → "Big cup"\n')
        assert.include(second.out, "1 would change something, 1 would change nothing, 0 would be refused")
        assert.deepStrictEqual(yield* booksOf(merchantId), before)
        // Nothing was loaded by it.
        assert.include((yield* load(changed, merchantId)).out, "2 loaded, 0 refused")
      }),
    patience
  )

  it.effect(
    "has all that an item is told of exported and imported again, and a day as the whole of it",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        const where = yield* file(
          "stock.csv",
          [
            "sku,quantity,lotNumber,expiresAt,safetyStock,countTolerance,productId,stocked",
            "CUP,5,L,2999-01-31,7,3,p 1,true",
            "TEA,,,,,,,FALSE"
          ].join("\n")
        )
        assert.strictEqual((yield* load(where, merchantId)).code, 0)
        const all = (yield* exported(merchantId)).split("\r\n")
        assert.deepStrictEqual(all, [
          header,
          ",CUP,5,default,L,2999-01-31T23:59:59.999Z,,0,7,3,p 1,true",
          ",TEA,,,,,,0,0,0,,false",
          ""
        ])
        const batch = pick((yield* get("/inventory/CUP")).body, "batches.0")
        assert.deepInclude(batch, { lotNumber: "L", expiresAt: "2999-01-31T23:59:59.999Z" })
        const copy = fresh("merchant")
        assert.strictEqual((yield* load(yield* file("copy.csv", all.join("\r\n")), copy)).code, 0)
        assert.deepStrictEqual((yield* exported(copy)).split("\r\n"), all)
      }),
    patience
  )

  it.effect(
    "works beside a service with the embedded database, for the default merchant",
    () =>
      Effect.gen(function* () {
        const environment = { HOLDFAST_DATA_DIR: yield* dataFolder }
        const service = yield* startService(undefined, environment)
        const { get } = yield* merchantAt(service, "demo")
        const where = yield* file("stock.csv", `productVariantId,quantity\ncup,5\n`)
        const loading = yield* run(environment, ["import", where])
        assert.deepStrictEqual(yield* loading.ended, { code: 0, signal: null }, loading.stderr())
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
        // Killed, it would leave its database running.
        yield* service.kill("SIGTERM")
        assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null })
      }),
    patience
  )
})
