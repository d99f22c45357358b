import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { connect } from "../support/ledger.ts"
import { oldPostgres } from "../support/oldPostgres.ts"
import { ownedDatabase } from "../support/Postgres.ts"
import { eventually, merchantAt, run, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/** A user that owns its database and is no superuser, as a managed PostgreSQL gives it (docs/operations.md). */

/** Processes start and stop here, which takes its time where all processors are busy. */
const timeout = 240_000

/** Runs a command to its end. */
const holdfast = (url: Redacted.Redacted<string>, ...parameters: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const program = yield* run(
      { DATABASE_URL: Redacted.value(url), HOLDFAST_DEV: "1", PORT: "0" },
      parameters
    )
    const { code } = yield* program.ended
    return { code, lines: program.stdout().split("\n").slice(0, -1), errors: program.stderr() }
  }).pipe(Effect.scoped)

interface Found {
  readonly check: string
  readonly level: string
  readonly found: string
  readonly mend?: string
}

const doctor = (url: Redacted.Redacted<string>) =>
  Effect.map(holdfast(url, "doctor", "--json"), ({ lines }) => {
    const findings = lines.map((line) => JSON.parse(line) as Found)
    return (check: string) => findings.filter((finding) => finding.check === check)
  })

/** A day of a shop in small: every part of a service writes and reads once. */
const worksAll = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const service = yield* startService(Redacted.value(url), { SWEEP_INTERVAL_MS: "50" })
  const shop = yield* merchantAt(service)
  const quantity = Effect.map(shop.get("/api/v1/inventory/cup"), ({ body }) => [
    pick(body, "quantity"),
    pick(body, "reservedQuantity")
  ])
  yield* shop.item("cup", { sku: "CUP" })
  yield* shop.receive("cup", 10)
  yield* shop.reserve("o-1", [["cup", 2]])
  assert.strictEqual((yield* shop.post("/api/v1/inventory/confirm", { orderId: "o-1" })).status, 200)
  yield* shop.reserve("o-2", [["cup", 1]], { expiresIn: 1 })
  yield* eventually(
    shop.get("/api/v1/inventory/reservations?orderId=o-2"),
    ({ body }) => pick(body, "data.0.status") === "EXPIRED"
  )
  const paid = {
    merchantId: shop.merchantId,
    saleOrderId: "o-3",
    items: [{ productVariantId: "cup", quantity: 3 }]
  }
  const published = yield* holdfast(url, "publish", "payment.success", JSON.stringify(paid))
  assert.strictEqual(published.code, 0, published.errors)
  yield* eventually(quantity, ([left]) => left === 5)
  const tailed = yield* holdfast(url, "tail", "inventory.events", "--count", "4")
  assert.strictEqual(tailed.lines.length, 4, tailed.errors)
  const folder = yield* Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "holdfast-owner-")))
  const file = path.join(folder, "stock.csv")
  yield* Effect.promise(() => fs.writeFile(file, "productVariantId,quantity\ncup,7\n"))
  const imported = yield* holdfast(url, "import", file, "--merchant", shop.merchantId)
  assert.strictEqual(imported.code, 0, imported.errors)
  yield* Effect.promise(() => fs.rm(folder, { recursive: true }))
  assert.deepStrictEqual(yield* quantity, [7, 0])
  const months = yield* holdfast(url, "ledger", "months")
  assert.strictEqual(months.code, 0, months.errors)
  const audited = yield* holdfast(url, "audit")
  assert.strictEqual(audited.code, 0, audited.lines.join("\n") + audited.errors)
  assert.strictEqual((yield* service.call("GET", "/health/ready")).status, 200)
  assert.notInclude(service.stdout(), "level=ERROR")
  return service
})

const guarded = /^row-level security guards \d+ tables of merchants$/

describe("a user that is no superuser", { timeout }, () => {
  it.live("is served beside another installation on the same server, each with its own role for reads", () =>
    Effect.gen(function* () {
      for (const { role, url } of [yield* ownedDatabase("CREATEROLE"), yield* ownedDatabase("CREATEROLE")]) {
        const before = yield* doctor(url)
        assert.deepStrictEqual(
          before("rights").map(({ level }) => level),
          ["OK"]
        )
        assert.strictEqual(before("migrations")[0]?.level, "WRONG")
        yield* worksAll(url)
        const after = yield* doctor(url)
        assert.match(
          after("tenancy")
            .map(({ found }) => found)
            .join("\n"),
          guarded
        )
        assert.match(after("snapshots")[0]!.found, /^only transactions of shop_/)
        const sql = yield* connect(url)
        yield* sql.run(`SET ROLE holdfast_reader_${role}`)
        assert.deepStrictEqual(yield* sql.run("SELECT FROM item"), [], "no merchant is named")
      }
    })
  )

  it.live("may be one that makes no roles: the service says what is missing, and how to give it", () =>
    Effect.gen(function* () {
      const { role, superuser, url } = yield* ownedDatabase("")
      const lacking = new RegExp(`^the user ${role} may not create the role holdfast_reader_${role}: `)
      const [before] = (yield* doctor(url))("tenancy")
      assert.strictEqual(before?.level, "WARNING")
      assert.match(before!.found, lacking)
      const service = yield* worksAll(url)
      assert.match(service.stdout(), /level=WARN .*message="the user shop_\w+ may not create the role/)
      const [after] = (yield* doctor(url))("tenancy")
      assert.deepStrictEqual(after, before)
      // What it says, done by somebody who may.
      const administrator = yield* connect(superuser)
      for (const statement of before!.mend!.split("; ").slice(0, 2)) yield* administrator.run(statement)
      assert.strictEqual((yield* holdfast(url, "migrate")).code, 0)
      assert.match((yield* doctor(url))("tenancy")[0]!.found, guarded)
    })
  )

  it.live(
    "that may not create tables is refused before anything is changed, with the right that it lacks",
    () =>
      Effect.gen(function* () {
        const { role, superuser, url } = yield* ownedDatabase("")
        const administrator = yield* connect(superuser)
        yield* administrator.run("ALTER SCHEMA public OWNER TO CURRENT_USER")
        const grant = `GRANT CREATE ON SCHEMA public TO ${role}`
        const [wrong] = (yield* doctor(url))("rights")
        assert.strictEqual(wrong?.level, "WRONG")
        assert.include(wrong!.mend, grant)
        const started = yield* holdfast(url, "serve")
        assert.strictEqual(started.code, 1)
        assert.include(
          started.errors,
          `the user ${role} may not create tables in the schema public: ${grant}`
        )
        assert.deepStrictEqual(
          yield* administrator.run("SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace"),
          []
        )
        yield* administrator.run(grant)
        yield* worksAll(url)
      })
  )

  it.live(
    "goes on with a database whose policies are for a role of the server, as earlier versions made them",
    () =>
      Effect.gen(function* () {
        const { superuser, url } = yield* ownedDatabase("CREATEROLE")
        assert.strictEqual((yield* holdfast(url, "migrate")).code, 0)
        const administrator = yield* connect(superuser)
        yield* administrator.run("DELETE FROM holdfast_migration WHERE migration_id = 13")
        yield* administrator.run("ALTER POLICY one_merchant ON stock TO CURRENT_USER")
        yield* worksAll(url)
      })
  )

  it.live("is served by PostgreSQL 15, the oldest that will do", () =>
    Effect.gen(function* () {
      const server = yield* oldPostgres
      for (const { url } of [
        yield* ownedDatabase("CREATEROLE", server),
        yield* ownedDatabase("CREATEROLE", server)
      ]) {
        yield* worksAll(url)
        const after = yield* doctor(url)
        assert.match(after("database")[0]!.found, /^PostgreSQL 15\./)
        assert.match(
          after("tenancy")
            .map(({ found }) => found)
            .join("\n"),
          guarded
        )
      }
    })
  )
})
