import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { chmod } from "node:fs/promises"
import { tmpdir } from "node:os"
import path from "node:path"
import { connect } from "../support/ledger.ts"
import { removeFolder } from "../support/Postgres.ts"
import { Service, fresh, merchant, merchantAt, run, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/** `holdfast import` and `holdfast export` (CONTRACTS section 8), as processes of their own beside a running service. */

const api = "/api/v1/inventory"
const header = "productVariantId,sku,quantity,locationId,lotNumber,expiresAt,name,lowStockThreshold"

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

const lotUntil = (expiresAt: string) =>
  file("lots.csv", `productVariantId,quantity,lotNumber,expiresAt\nmilk,5,L,${expiresAt}\n`)

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
        assert.sameMembers(lines.slice(0, -1), [
          "line 4: VALIDATION_FAILED",
          "line 5: VALIDATION_FAILED",
          "line 6: ITEM_CONFLICT",
          "line 9: VALIDATION_FAILED",
          "line 10: VALIDATION_FAILED"
        ])
        assert.include(told.at(-1), "5 of 9 rows were refused")
        assert.include(out, "4 loaded, 5 refused")
        assert.include(out, "Locations that are new: shop.")
        const cup = (yield* get(`${api}/cup`)).body
        assert.deepInclude(cup, { sku: "CUP", quantity: 5, status: "IN_STOCK" })
        assert.strictEqual(pick(cup, "locations.0.locationId"), "shop")
        assert.deepInclude((yield* get(`${api}/tea`)).body, { quantity: 0, status: "OUT_OF_STOCK" })
        assert.deepInclude((yield* get(`${api}/mug`)).body, { quantity: 0, status: "AWAITING_INITIAL_STOCK" })
        assert.strictEqual(pick((yield* get(`${api}/last`)).body, "quantity"), 7)
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
          locationsCreated: ["shop"]
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
        assert.strictEqual(yield* exported(merchantId), `${header}\r\ncup,,-3,default,,,,0\r\n`)
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
        assert.include(again.out, "1 of them were loaded by an earlier run")
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
    "says that a file cannot be read to its end, and loads nothing of it",
    () =>
      Effect.gen(function* () {
        const merchantId = fresh("merchant")
        const where = yield* file(
          "latin.csv",
          Buffer.from("productVariantId,name\ncup,M\u00fchle\n", "latin1")
        )
        const { code, err } = yield* load(where, merchantId)
        assert.deepStrictEqual(
          [code, err],
          [1, `holdfast: ${where} is not UTF-8 (after line 1): save it as CSV UTF-8\n`]
        )
        assert.deepStrictEqual((yield* booksOf(merchantId)).items, [])
      }),
    patience
  )

  it.effect(
    "corrects the expiry of a lot that is known",
    () =>
      Effect.gen(function* () {
        const { get, merchantId } = yield* merchant
        yield* load(yield* lotUntil("2001-01-01T00:00:00Z"), merchantId)
        const milk = Effect.map(get(`${api}/milk`), ({ body }) => [
          pick(body, "availableQuantity"),
          pick(body, "locations.0.batches.0.expiresAt")
        ])
        assert.deepStrictEqual(yield* milk, [0, "2001-01-01T00:00:00.000Z"])
        const { code } = yield* load(yield* lotUntil("2999-01-01T00:00:00Z"), merchantId)
        assert.strictEqual(code, 0)
        assert.deepStrictEqual(yield* milk, [5, "2999-01-01T00:00:00.000Z"])
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
