import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { merchantAt, run, startService } from "../support/service.ts"

/** `holdfast audit` as a person and a program run it, beside a running service. */

const api = "/api/v1/inventory"
const timeout = 150_000

/** Runs the command to its end. */
const audit = Effect.fnUntraced(function* (databaseUrl: string, ...parameters: ReadonlyArray<string>) {
  const program = yield* run({ DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1" }, ["audit", ...parameters])
  const { code } = yield* program.ended
  return { code, out: program.stdout(), err: program.stderr() }
})

const books = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const databaseUrl = Redacted.value(url)
  const service = yield* startService(databaseUrl)
  const shop = yield* merchantAt(service, "acme")
  yield* shop.item("cup")
  yield* shop.receive("cup", 1_000)
  return { databaseUrl, shop, sql: yield* connect(url) }
})

describe("holdfast audit", { timeout }, () => {
  it.live("exits 0 and never cries wolf while reservations are made, sold and released", () =>
    Effect.gen(function* () {
      const { databaseUrl, shop } = yield* books
      const writer = (name: string) =>
        Effect.gen(function* () {
          for (let n = 0; ; n++) {
            const orderId = `${name}-${n}`
            const items = [{ variantId: "cup", quantity: 1 }]
            yield* shop.call("POST", `${api}/reserve`, { orderId, items })
            yield* shop.call("POST", `${api}/${n % 2 === 0 ? "release" : "confirm"}`, { orderId })
          }
        })
      const writers = yield* Effect.forEach(["a", "b"], (name) => Effect.forkChild(writer(name)))
      for (let time = 0; time < 4; time++) {
        const { code, err, out } = yield* audit(databaseUrl, "--json")
        assert.strictEqual(code, 0, out + err)
        assert.isTrue(JSON.parse(out.trimEnd().split("\n").at(-1)!).holds)
      }
      yield* Effect.forEach(writers, Fiber.interrupt)
    })
  )

  it.live("exits 1 and names the row, shows the repair, and does it only when told to", () =>
    Effect.gen(function* () {
      const { databaseUrl, shop, sql } = yield* books
      const [stock] = yield* sql.run<{ stock_id: string }>("UPDATE stock SET on_hand = 7 RETURNING stock_id")
      const found = yield* audit(databaseUrl, "--json")
      assert.strictEqual(found.code, 1, found.out + found.err)
      const findings = found.out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line))
        .slice(0, -1)
      assert.sameMembers(
        findings.map(({ check }) => check),
        ["stock-is-its-ledger", "item-is-its-stocks"]
      )
      const [named] = findings.filter(({ check }) => check === "stock-is-its-ledger")
      assert.strictEqual(named.stockId, stock!.stock_id)
      assert.strictEqual(named.row.onHand, 7)
      assert.strictEqual(named.row.ledgerOnHand, 1_000)

      const shown = yield* audit(databaseUrl, "--repair")
      assert.strictEqual(shown.code, 1)
      assert.include(shown.out, "(7, 0, 0) becomes (1000, 0, 0)")
      assert.include(shown.err, "--yes")
      assert.deepStrictEqual(yield* sql.run("SELECT on_hand FROM stock"), [{ on_hand: 7 }])

      const done = yield* audit(databaseUrl, "--repair", "--yes", "--reason", "a typing mistake")
      assert.strictEqual(done.code, 0, done.out + done.err)
      assert.deepStrictEqual(yield* sql.run("SELECT on_hand FROM stock"), [{ on_hand: 1_000 }])
      const kept = yield* sql.run<{ reason: string }>("SELECT reason FROM audit_repair")
      assert.deepStrictEqual([...new Set(kept.map(({ reason }) => reason))], ["a typing mistake"])
      const order = { orderId: "all", items: [{ variantId: "cup", quantity: 1_000 }] }
      assert.strictEqual((yield* shop.call("POST", `${api}/reserve`, order)).status, 201)
    })
  )

  it.live("names a row of the outbox that is no JSON, and what else there is", () =>
    Effect.gen(function* () {
      const { databaseUrl, sql } = yield* books
      const [row] = yield* sql.run<{ bucket: number; position: number }>(
        `UPDATE outbox SET events = '[{"id":' WHERE events LIKE '%RECEIPT%' RETURNING bucket, position`
      )
      yield* sql.run("UPDATE stock SET on_hand = 7")
      const found = yield* audit(databaseUrl, "--json", "--repair")
      assert.strictEqual(found.code, 1, found.out + found.err)
      const lines = found.out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line))
      const [named] = lines.filter(({ check }) => check === "events-are-readable")
      assert.deepInclude(named.row, { bucket: row!.bucket, position: row!.position, text: '[{"id":' })
      assert.include(
        lines.map(({ check }) => check),
        "stock-is-its-ledger"
      )
      // Nothing can be derived: it waits for a person.
      assert.deepInclude(lines, {
        left: `row ${row!.position} of bucket ${row!.bucket} of the outbox`,
        finding: named.id
      })
    })
  )

  it.live("exits 2 when it cannot look, and asks a reason for what is acknowledged", () =>
    Effect.gen(function* () {
      const nowhere = yield* audit("postgres://nobody:secret-word@127.0.0.1:9/none")
      assert.strictEqual(nowhere.code, 2)
      assert.notInclude(nowhere.err, "secret-word")
      const { url } = yield* freshDatabase
      const reasonless = yield* audit(Redacted.value(url), "--repair", "--acknowledge", "0123456789abcdef")
      assert.strictEqual(reasonless.code, 2)
      assert.include(reasonless.err, "--reason")
    })
  )
})
