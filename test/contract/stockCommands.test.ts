import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Service, fresh, merchant, run } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/** `holdfast stock`, `history`, `reserve` and `release`, each a process of its own beside the running service. */

/** Each command is a program that starts: seconds, where all processors are busy. */
const patience = 240_000

/** Runs a command to its end. */
const holdfast = (parameters: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const { databaseUrl } = yield* Service
    const program = yield* run({ DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1", ...environment }, parameters)
    const { code } = yield* program.ended
    return { code, lines: linesOf(program.stdout()), complaints: linesOf(program.stderr()) }
  }).pipe(Effect.scoped)

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")

/** The cells of a line of a table. */
const cells = (line: string | undefined): ReadonlyArray<string> => (line ?? "").split(/ {2,}/)

const json = (line: string | undefined): unknown => JSON.parse(line ?? "") as unknown

layer(Service.layer, { excludeTestServices: true, timeout: "180 seconds" })("commands for stock", (it) => {
  it.effect(
    "reserve for an order what a person then sees held, and give it back",
    () =>
      Effect.gen(function* () {
        const { get, item, location, merchantId, receive } = yield* merchant
        yield* item("cup", { sku: "CUP", name: "茶碗" })
        yield* item("milk", { lowStockThreshold: 50 })
        yield* location("shop")
        yield* receive("cup", 120)
        yield* receive("milk", 20, { lotNumber: "L7", expiresAt: "2999-01-01T00:00:00Z" })
        yield* receive("milk", 9, { locationId: "shop" })
        const before = new Date().toISOString()

        const reserved = yield* holdfast(["reserve", "o-1", "cup=2", "milk=25", "--merchant", merchantId])
        assert.strictEqual(reserved.code, 0, reserved.complaints.join("\n"))
        assert.deepStrictEqual(cells(reserved.lines[0]), ["variant", "sku", "location", "lot", "quantity"])
        assert.deepStrictEqual(reserved.lines.slice(1, 4).map(cells).sort(), [
          ["cup", "CUP", "default", "-", "2"],
          ["milk", "-", "default", "L7", "20"],
          ["milk", "-", "shop", "-", "5"]
        ])
        assert.match(reserved.lines[4]!, /^Reserved for order o-1 until \S+ \S+Z: reservation [0-9a-f-]{36}$/)

        const listed = yield* holdfast(["stock"], { DEFAULT_MERCHANT_ID: merchantId })
        assert.deepStrictEqual(listed.lines, [
          "variant  sku  name  on hand  reserved  available  status",
          "cup      CUP  茶碗      120         2        118  IN_STOCK",
          "milk     -    -          29        25          4  LOW_STOCK"
        ])
        const shown = yield* holdfast(["stock", "milk", "--merchant", merchantId])
        assert.strictEqual(shown.lines[0], "milk, LOW_STOCK")
        assert.deepStrictEqual(
          shown.lines.slice(2).map((line) => cells(line).slice(0, 7)),
          [
            ["default", "L7", "2999-01-01 00:00:00.000Z", "20", "20", "0", "2"],
            ["shop", "-", "-", "9", "5", "4", "2"],
            ["total", "-", "-", "29", "25", "4", "-"]
          ]
        )
        const then = yield* holdfast(["stock", "milk", "--at", before, "--json", "--merchant", merchantId])
        assert.strictEqual(then.lines.length, 1)
        assert.strictEqual(pick(json(then.lines[0]), "reservedQuantity"), 0)
        assert.strictEqual(pick(json(then.lines[0]), "availableQuantity"), 29)

        const moved = yield* holdfast([
          "history",
          "milk",
          "--type",
          "ORDER_ALLOCATE",
          "--json",
          "--merchant",
          merchantId
        ])
        assert.deepStrictEqual(
          moved.lines.map((line) => [pick(json(line), "type"), pick(json(line), "orderId")]),
          [
            ["ORDER_ALLOCATE", "o-1"],
            ["ORDER_ALLOCATE", "o-1"]
          ]
        )
        assert.match(String(pick(json(moved.lines[0]), "actor")), /^cli:./)

        const released = yield* holdfast(["release", "o-1", "--merchant", merchantId])
        assert.deepStrictEqual([released.code, released.lines], [0, ["Released 27 of order o-1"]])
        assert.strictEqual(pick((yield* get("/api/v1/inventory/milk")).body, "reservedQuantity"), 0)
        const again = yield* holdfast(["release", "o-1", "--json", "--merchant", merchantId])
        assert.deepStrictEqual(again.lines.map(json), [{ orderId: "o-1", released: false, quantity: 0 }])
      }),
    patience
  )

  it.effect(
    "say on stderr what is wrong and what to do, and exit 1",
    () =>
      Effect.gen(function* () {
        const { get, item, merchantId, receive } = yield* merchant
        const other = yield* merchant
        yield* item("cup", { sku: "CUP" })
        yield* receive("cup", 5)
        yield* other.item("theirs")
        const refused = Effect.fnUntraced(function* (...parameters: ReadonlyArray<string>) {
          const { code, complaints, lines } = yield* holdfast([...parameters, "--merchant", merchantId])
          assert.deepStrictEqual([code, lines], [1, []], complaints.join("\n"))
          return complaints
        })
        assert.deepStrictEqual(yield* refused("reserve", "o", "cup=6"), [
          "holdfast: INSUFFICIENT_INVENTORY: Not enough stock",
          "holdfast: One item is short: lower the quantities to what is available (see items). Nothing was changed.",
          "holdfast: items: productVariantId cup, sku CUP, requested 6, available 5"
        ])
        assert.include((yield* refused("stock", "theirs"))[0], "NOT_FOUND: Unknown item")
        assert.include((yield* refused("history", "theirs"))[0], "NOT_FOUND: Unknown item")
        assert.include((yield* refused("release", fresh("order")))[0], "NOT_FOUND: No such reservation")
        assert.deepStrictEqual(yield* refused("stock", "cup", "--at", "2999-01-01T00:00:00Z"), [
          "holdfast: 2999-01-01T00:00:00.000Z lies in the future: nothing is recorded there yet"
        ])
        assert.strictEqual(pick((yield* get("/api/v1/inventory/cup")).body, "reservedQuantity"), 0)
      }),
    patience
  )

  it.effect(
    "refuse what is no command, and a database without books",
    () =>
      Effect.gen(function* () {
        const malformed = yield* holdfast(["reserve", "o", "cup"])
        assert.strictEqual(malformed.code, 2)
        assert.include(malformed.complaints.join("\n"), `"cup" is not <variant>=<quantity>`)
        const database = new URL((yield* Service).databaseUrl)
        database.pathname = "/postgres"
        const empty = yield* holdfast(["stock"], { DATABASE_URL: database.href })
        assert.strictEqual(empty.code, 1)
        assert.match(empty.complaints[0]!, /^holdfast: the database lacks 0001_kernel, .*: holdfast migrate/)
      }),
    patience
  )
})
