import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { connect } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { eventually, merchantAt, run, startService } from "../../support/service.ts"

/** Housekeeping as the program does it: by its role, and by the commands of an operator. */

/** Processes start here, which takes its time where all processors are busy. */
const timeout = 120_000

const holdfast = Effect.fnUntraced(function* (databaseUrl: string, ...parameters: ReadonlyArray<string>) {
  const program = yield* run({ DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1" }, parameters)
  const { code } = yield* program.ended
  return { code, stdout: program.stdout(), stderr: program.stderr() }
})

describe("housekeeping", { timeout }, () => {
  it.live("is done by a process with the role sweeper, as soon as it starts", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      yield* sql.run(
        `INSERT INTO idempotency (merchant_id, idempotency_key, fingerprint, answer, created_at)
         SELECT 'acme', 'key-' || n, '', '', now() - n * interval '20 hours' FROM generate_series(1, 3) AS n`
      )
      yield* startService(Redacted.value(url), { ROLES: "sweeper" })
      const keys = sql.run<{ key: string }>("SELECT idempotency_key AS key FROM idempotency")
      yield* eventually(keys, (rows) => rows.length === 1 && rows[0]!.key === "key-1")
      const ahead = sql.run(
        `SELECT FROM pg_inherits WHERE inhparent IN ('inventory_ledger'::regclass, 'outbox'::regclass)`
      )
      yield* eventually(ahead, ({ length }) => length === 8)
    })
  )
})

describe("holdfast ledger", { timeout }, () => {
  it.live("lists the months and detaches those that are over", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const address = Redacted.value(url)
      const service = yield* startService(address)
      const { item, merchantId, receive } = yield* merchantAt(service)
      yield* item("cup")
      yield* receive("cup", 5)
      const sql = yield* connect(url)
      // As if the cup had been received in a month long ago.
      yield* sql.run("SELECT holdfast_ensure_partition('inventory_ledger', '2024-02-10')")
      yield* sql.run("SET session_replication_role = replica")
      yield* sql.run(
        `UPDATE inventory_ledger SET recorded_at = '2024-02-10 08:00+00' WHERE merchant_id = '${merchantId}'`
      )
      yield* sql.run("SET session_replication_role = DEFAULT")

      const detached = yield* holdfast(address, "ledger", "detach", "--before", "2024-03")
      assert.strictEqual(detached.code, 0, detached.stderr)
      assert.match(detached.stdout, /^table +closing balances\ninventory_ledger_202402 +1\n/)
      const months = yield* holdfast(address, "ledger", "months", "--json")
      const listed = months.stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { name: string; attached: boolean })
      assert.deepInclude(
        listed.map(({ attached, name }) => ({ name, attached })),
        { name: "inventory_ledger_202402", attached: false }
      )
      assert.isAbove(listed.filter(({ attached }) => attached).length, 0)
      assert.deepStrictEqual(yield* sql.run("SELECT on_hand, kind FROM ledger_checkpoint"), [
        { on_hand: 5, kind: "CLOSING" }
      ])
      // The service goes on with what it has.
      yield* receive("cup", 1)
      const again = yield* holdfast(address, "ledger", "detach", "--before", "2024-03")
      assert.strictEqual(again.stdout, "No month before 2024-03 is in the ledger.\n")
    })
  )

  it.live("refuses a month that is not over, and what is no month", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const early = yield* holdfast(Redacted.value(url), "ledger", "detach", "--before", "2999-01")
      assert.strictEqual(early.code, 1)
      assert.match(
        early.stderr,
        /^holdfast: 2999-01 is too late: .* The latest that can be named is \d{4}-\d{2}$/m
      )
      const wrong = yield* holdfast(Redacted.value(url), "ledger", "detach", "--before", "soon")
      assert.strictEqual(wrong.code, 2)
      assert.include(wrong.stderr, "must be a month, as 2026-01")
    })
  )
})
