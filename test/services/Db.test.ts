import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit } from "effect"
import { Db } from "../../src/services/Db.ts"
import { Partitions } from "../../src/services/Partitions.ts"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { connect, dawn, ledger, replica } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"

/** What the database itself guards: tenancy, the append-only ledger, and the partitions (DESIGN, "Scale"). */

const tenantTables = [
  "location",
  "item",
  "stock",
  "inventory_ledger",
  "reservation",
  "reservation_line",
  "tracking"
]

/** Two merchants with the same names for everything. */
const twoMerchants = Effect.gen(function* () {
  const shop = yield* ledger
  for (const merchantId of ["acme", "other"]) {
    yield* shop.item("cup", { sku: "CUP" }, { merchantId })
    yield* shop.receive("cup", 5, { reference: "receipt:1" }, { merchantId })
    yield* shop.reserve("order", [["cup", 2]], {}, { merchantId })
  }
  return { ...shop, db: Context.get(shop.context, Db) }
})

describe("the kernel's connection", () => {
  it.effect("that the server has ended is unavailable, not a defect, however its loss shows", () =>
    Effect.gen(function* () {
      const { db, sql } = yield* twoMerchants
      // The server's word comes first, the socket's own failure (EPIPE, ECONNRESET) while it is written to.
      for (const length of [1, 1_000_000, 20_000_000]) {
        const session = yield* db.session
        const [[pid]] = (yield* session.run("SELECT pg_backend_pid()", [])) as unknown as [[number]]
        yield* sql.run("SELECT pg_terminate_backend($1)", [parameter("int4", pid)])
        const write = session.run("SELECT length($1)", [parameter("text", "x".repeat(length))])
        for (let time = 0; time < 3; time++) {
          assert.strictEqual((yield* Effect.flip(write)).disposition, "UNAVAILABLE")
        }
      }
    })
  )
})

describe("a reading connection", () => {
  it.effect("sees the rows of its merchant only, even where a statement asks for all or for another's", () =>
    Effect.gen(function* () {
      const { db, sql } = yield* twoMerchants
      for (const table of tenantTables) {
        const [both] = yield* sql.run<{ merchants: number }>(
          `SELECT count(DISTINCT merchant_id) AS merchants FROM ${table}`
        )
        assert.strictEqual(both!.merchants, 2, table)
        const own = yield* db.read<{ merchant_id: string }>(
          "acme",
          `SELECT DISTINCT merchant_id FROM ${table}`,
          []
        )
        assert.deepStrictEqual(own, [{ merchant_id: "acme" }], table)
        const others = yield* db.read("acme", `SELECT 1 FROM ${table} WHERE merchant_id = $1`, [
          parameter("text", "other")
        ])
        assert.deepStrictEqual(others, [], table)
      }
      assert.deepStrictEqual(yield* db.read("nobody", "SELECT 1 FROM item", []), [])
      assert.deepStrictEqual(yield* db.read("", "SELECT 1 FROM item", []), [])
    })
  )

  it.effect("names its merchant anew for every read, however many there are at once", () =>
    Effect.gen(function* () {
      const { db } = yield* twoMerchants
      const reads = Array.from({ length: 200 }, (_, index) => (index % 3 === 0 ? "acme" : "other"))
      const seen = yield* Effect.forEach(
        reads,
        (merchantId) =>
          db.read<{ merchant_id: string }>(
            merchantId,
            "SELECT merchant_id, pg_sleep(0.001 * random())::text FROM item",
            []
          ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        seen.map(([row]) => row!.merchant_id),
        reads
      )
    })
  )

  it.effect("is handed on clean by one who was interrupted", () =>
    Effect.gen(function* () {
      const { db } = yield* twoMerchants
      for (let round = 0; round < 40; round++) {
        const interrupted = yield* Effect.forkChild(
          db.read("other", "SELECT merchant_id FROM item, pg_sleep(0.005)", []),
          { startImmediately: true }
        )
        const read = db.read<{ merchant_id: string }>("acme", "SELECT merchant_id FROM item", [])
        const [rows] = yield* Effect.all([read, Effect.sync(() => interrupted.interruptUnsafe())], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(rows, [{ merchant_id: "acme" }])
      }
    })
  )

  const forbidden = {
    write: "UPDATE item SET on_hand = 1000",
    insert: "INSERT INTO merchant VALUES ('mine', now())",
    delete: "DELETE FROM reservation",
    "read a partition behind the policy": "SELECT * FROM inventory_ledger_202605",
    "read the outbox": "SELECT * FROM outbox",
    "read the dev issuer's key": "SELECT * FROM dev_issuer_key",
    "read the view of events": "SELECT * FROM domain_event",
    "lock a row": "SELECT 1 FROM item FOR UPDATE",
    "make a partition": "SELECT holdfast_ensure_partition('outbox', '2031-01-01'::date)"
  }
  for (const [what, statement] of Object.entries(forbidden)) {
    it.effect(`may not ${what}`, () =>
      Effect.gen(function* () {
        const { db, sql } = yield* twoMerchants
        const exit = yield* Effect.exit(db.read("acme", statement, []))
        assert.isTrue(Exit.isFailure(exit))
        assert.deepStrictEqual(yield* sql.run("SELECT DISTINCT on_hand FROM item"), [{ on_hand: 5 }])
      })
    )
  }

  it.effect("does not tell an item of another merchant from one that is not there", () =>
    Effect.gen(function* () {
      const { availability, item, movements } = yield* twoMerchants
      yield* item("secret", { sku: "SECRET" }, { merchantId: "other" })
      for (const read of [
        (name: string) => Effect.flip(availability.ofVariant("acme", name)),
        (name: string) => Effect.flip(availability.ofSku("acme", name)),
        (name: string) => Effect.flip(Effect.asVoid(movements.ofVariant("acme", name, {})))
      ]) {
        for (const name of ["secret", "SECRET", "nothing"]) {
          assert.deepInclude(yield* read(name), { _tag: "ItemNotFound", items: [name] })
        }
      }
    })
  )
})

describe("the ledger", () => {
  const attacks = [
    "UPDATE # SET reason = 'rewritten'",
    "UPDATE # SET on_hand = 0 WHERE sequence = 1",
    "DELETE FROM #",
    "DELETE FROM # WHERE sequence = 1",
    "TRUNCATE #",
    `INSERT INTO # SELECT * FROM # LIMIT 1
     ON CONFLICT (merchant_id, stock_id, recorded_at, sequence) DO UPDATE SET reason = 'rewritten'`
  ]
  for (const table of ["inventory_ledger", "inventory_ledger_202605"]) {
    it.effect(`is append-only for its owner too, by the name of ${table}`, () =>
      Effect.gen(function* () {
        const { sql } = yield* twoMerchants
        const before = yield* sql.run(
          "SELECT * FROM inventory_ledger ORDER BY merchant_id, stock_id, sequence"
        )
        for (const attack of attacks) {
          assert.strictEqual(yield* sql.refusal(attack.replaceAll("#", table)), "23001", attack)
        }
        assert.deepStrictEqual(
          yield* sql.run("SELECT * FROM inventory_ledger ORDER BY merchant_id, stock_id, sequence"),
          before
        )
      })
    )
  }
})

describe("partitions", () => {
  it.effect("are made once, however many ask for them at the same moment", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const replicas = yield* Effect.forEach([1, 2, 3, 4], () => replica(url))
      for (let month = 0; month < 6; month++) {
        yield* Effect.forEach(
          [...replicas, ...replicas],
          (context) => Context.get(context, Partitions).ensure(Date.UTC(2027, month, 15)),
          { concurrency: "unbounded" }
        )
      }
      const [row] = yield* sql.run<{ count: number }>(
        `SELECT count(*) AS count FROM pg_inherits WHERE inhparent IN ('inventory_ledger'::regclass, 'outbox'::regclass)`
      )
      assert.strictEqual(row!.count, 12)
    })
  )

  it.effect("are there a week ahead, and hold the right rows at both ends of a month", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const { ensure } = Context.get(yield* replica(url), Partitions)
      const names = Effect.map(
        sql.run<{ name: string }>(
          `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'outbox'::regclass ORDER BY 1`
        ),
        (rows) => rows.map(({ name }) => name)
      )
      yield* ensure(dawn)
      assert.deepStrictEqual(yield* names, ["outbox_202605"])
      yield* ensure(Date.UTC(2026, 4, 25) - 1)
      assert.deepStrictEqual(yield* names, ["outbox_202605"])
      yield* ensure(Date.UTC(2026, 4, 25))
      assert.deepStrictEqual(yield* names, ["outbox_202605", "outbox_202606"])
      for (const at of ["2026-05-01T00:00:00Z", "2026-05-31T23:59:59.999Z", "2026-06-01T00:00:00Z"]) {
        yield* sql.run(
          `INSERT INTO outbox (bucket, recorded_at, events, event_count) VALUES (0, '${at}', '[]', 0)`
        )
      }
      assert.deepStrictEqual(
        yield* sql.run(
          "SELECT tableoid::regclass::text AS name, count(*) AS count FROM outbox GROUP BY 1 ORDER BY 1"
        ),
        [
          { name: "outbox_202605", count: 2 },
          { name: "outbox_202606", count: 1 }
        ]
      )
    })
  )
})
