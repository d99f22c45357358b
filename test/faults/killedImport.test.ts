import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { assertInvariants } from "../support/invariants.ts"
import { type Sql, connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type Program, eventually, run } from "../support/service.ts"
import { report } from "./load.ts"

// Goal: an import that is killed half-way and started again ends with the same books as one that was not. Method: one
// file of 100,000 rows is loaded into two databases, into one of them by a process that is killed again and again, by
// SIGKILL from outside and at both fail-points around a COMMIT; what the tables hold is compared, without ids and times.

const rows = 100_000
const places = 40

/** The file: rows of every kind, some of which are refused, and some that speak of an item again far behind. */
const content = (): string => {
  const lines = ["productVariantId,sku,quantity,locationId,lotNumber,expiresAt,name,lowStockThreshold"]
  for (let n = 0; n < rows; n++) {
    const quantity = (n * 7) % 1_000
    const place = n % 5 === 0 ? `place ${n % places}` : ""
    if (n % 1_999 === 7) lines.push(`v${n},s${n - 7},1,,,,,`) // the sku of another item
    else if (n % 1_999 === 8) lines.push(`v${n},s${n},many,,,,,`) // no quantity
    else if (n % 997 === 5) lines.push(`v${n},s${n},-3,,,,,`) // below zero
    else if (n % 97 === 6) lines.push(`v${n},s${n},,,,,Item ${n},5`) // the item alone
    else if (n % 89 === 3 && n > 30_000) lines.push(`v${n - 30_000},,${quantity},shelf,,,,`) // an item again
    else if (n % 83 === 4)
      lines.push(`v${n},s${n},${quantity},${place},L${n % 9},2999-01-${10 + (n % 9)}T00:00:00Z,,`)
    else lines.push(`v${n},s${n},${quantity},${place},,,"Item ${n}, ""new""",${n % 20}`)
  }
  return lines.join("\n")
}

const file = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(path.join(tmpdir(), "holdfast-killed-import-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  ),
  (folder) => {
    const where = path.join(folder, "large.csv")
    writeFileSync(where, content())
    return where
  }
)

const database = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  return { url, address: Redacted.value(url), sql: yield* connect(url) }
})

/** What a database holds: how many rows of each table, and a digest of what they say. */
const booksOf = (sql: Sql) =>
  Effect.gen(function* () {
    // What was loaded a moment ago is not known to the planner yet.
    yield* sql.run("ANALYZE item, stock, inventory_ledger, location")
    const digest = (columns: string, from: string) =>
      Effect.map(
        sql.run<{ count: number; digest: string }>(
          `SELECT count(*) AS count, md5(string_agg(line, ',' ORDER BY line COLLATE "C")) AS digest
           FROM (SELECT row (${columns})::text AS line FROM ${from}) AS lines`
        ),
        ([row]) => row!
      )
    const stock = "i.product_variant_id, s.location_id, s.lot_number"
    const ofStock = "JOIN item i USING (merchant_id, item_id)"
    return {
      items: yield* digest(
        `product_variant_id, sku, name, low_stock_threshold, status, initialized, on_hand, reserved, unallocatable,
         event_sequence, deleted_at`,
        "item"
      ),
      stocks: yield* digest(
        `${stock}, s.lot_expires_at, s.on_hand, s.reserved, s.unallocatable, s.sequence, s.discrepancy`,
        `stock s ${ofStock}`
      ),
      movements: yield* digest(
        `${stock}, l.sequence, l.type, l.on_hand_delta, l.on_hand, l.source, l.actor, l.reason`,
        `inventory_ledger l JOIN stock s USING (merchant_id, stock_id) JOIN item i ON i.item_id = s.item_id`
      ),
      discrepancies: yield* digest(
        `${stock}, d.kind, d.status, d.detail`,
        "discrepancy d JOIN stock s USING (merchant_id, stock_id) JOIN item i ON i.item_id = s.item_id"
      ),
      locations: yield* sql.run("SELECT position, location_id FROM location ORDER BY position"),
      events: yield* sql.run(
        `SELECT e.event ->> 'type' AS type, count(*) AS count, count(DISTINCT e.event ->> 'id') AS ids
         FROM outbox o
         CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
         GROUP BY 1
         ORDER BY 1`
      ),
      chunks: yield* sql.run("SELECT count(*) AS count FROM file_chunk")
    }
  })

const environmentOf = (address: string) => ({
  DATABASE_URL: address,
  HOLDFAST_DEV: "1",
  DEFAULT_MERCHANT_ID: "acme"
})

const chunksOf = (sql: Sql) =>
  Effect.map(sql.run<{ count: number }>("SELECT count(*) AS count FROM file_chunk"), ([row]) => row!.count)

/** On a busy machine loading takes minutes: longer than anything else that is waited for. */
const patiently = <A>(waiting: Effect.Effect<A>) =>
  Effect.exit(waiting).pipe(Effect.repeat({ times: 9, until: Exit.isSuccess }), Effect.flatten)

const ended = Effect.fnUntraced(function* (program: Program) {
  const { code, signal } = yield* patiently(program.ended)
  return { code, signal, err: program.stderr(), out: program.stdout() }
})

describe("an import of 100,000 rows", { timeout: 1_800_000 }, () => {
  it.live("killed again and again and started again ends with the same books as one that was not", () =>
    Effect.gen(function* () {
      const where = yield* file
      const whole = yield* database
      const cut = yield* database
      const importing = (address: string) => run(environmentOf(address), ["import", where])

      const unbroken = yield* Effect.flatMap(importing(whole.address), ended)
      assert.strictEqual(unbroken.code, 1)
      const chunks = yield* chunksOf(whole.sql)

      const left: Array<number> = []
      const killedAt = (failPoint: string, count: number) =>
        Effect.gen(function* () {
          const program = yield* run(
            environmentOf(cut.address),
            [failPoint, String(count), where],
            "test/support/failingImport.ts"
          )
          const { err, signal } = yield* ended(program)
          assert.strictEqual(signal, "SIGKILL", err)
          assert.include(err, `killed at ${failPoint}`)
          left.push(yield* chunksOf(cut.sql))
        })
      const killedFromOutside = (part: number) =>
        Effect.gen(function* () {
          const program = yield* importing(cut.address)
          yield* patiently(eventually(chunksOf(cut.sql), (count) => count >= part * chunks))
          yield* program.kill("SIGKILL")
          assert.strictEqual((yield* ended(program)).signal, "SIGKILL")
          left.push(yield* chunksOf(cut.sql))
        })
      yield* killedAt("beforeCommit", 1)
      // Each new location of the file is a commit of its own, before the rows.
      yield* killedAt("beforeCommit", 20)
      yield* killedFromOutside(0.25)
      yield* killedAt("afterCommitBeforeReply", 20)
      yield* killedFromOutside(0.5)
      yield* killedAt("beforeCommit", 17)
      yield* killedFromOutside(0.75)
      // Each run went on where the one before it was killed, and none got to the end.
      const reached = [...left, chunks]
      assert.isTrue(
        left.every((count, run) => count < reached[run + 1]!),
        `${reached.join(", ")}`
      )
      report("an import killed with so many of its chunks loaded", { left: left.join(", "), of: chunks })

      const last = yield* Effect.flatMap(importing(cut.address), ended)
      assert.deepStrictEqual([last.code, last.err], [unbroken.code, unbroken.err])
      assert.include(last.out, "were loaded by an earlier run")
      assert.deepStrictEqual(yield* booksOf(cut.sql), yield* booksOf(whole.sql))
      yield* assertInvariants(cut.url)
      for (const { address } of [whole, cut]) {
        const audit = yield* Effect.flatMap(run(environmentOf(address), ["audit"]), ended)
        assert.strictEqual(audit.code, 0, audit.out + audit.err)
      }
    }).pipe(Effect.scoped)
  )
})
