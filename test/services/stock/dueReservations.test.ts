import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Postgres from "../../../src/layers/Postgres.ts"
import { Reservations } from "../../../src/services/stock/Reservations.ts"
import { connect, dawn, services } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { recordedDb } from "../../support/recordedDb.ts"

/** What the sweeper looks for, among very many reservations: kinds that expire, by the index of what is due. */

const settled = 20_000
const pending = 2_000

/** Of each kind, some PENDING ones that were due an hour ago among many that are not PENDING any more. */
const grow = `
  INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, scope, status, request, expires_at, created_at,
    updated_at)
  SELECT 'acme', gen_random_uuid(), kind || n, kind, '', CASE WHEN n <= ${pending} THEN 'PENDING' ELSE 'CONFIRMED' END,
         '[]', to_timestamp(${dawn / 1000}) + make_interval(hours => 1, secs => n), to_timestamp(0), to_timestamp(0)
  FROM unnest(ARRAY['ORDER', 'VARIANT', 'SALE', 'MATERIAL']) AS kind, generate_series(1, ${settled}) AS n`

it.effect("the sweeper finds what is due by its index, of the kinds that expire", () =>
  Effect.gen(function* () {
    const { url } = yield* freshDatabase
    yield* TestClock.setTime(dawn)
    const sql = yield* connect(url)
    yield* sql.run(grow)
    yield* sql.run("ANALYZE reservation")
    const asked: Array<{ readonly statement: string; readonly parameters: ReadonlyArray<unknown> }> = []
    const recorded = recordedDb(Postgres.layer({ url }), (statement, parameters, way) => {
      if (way === "maintain") asked.push({ statement, parameters })
    })
    const context = yield* Layer.build(services.pipe(Layer.provideMerge(recorded)))
    assert.strictEqual(yield* Context.get(context, Reservations).expireDue, 0)
    const { statement } = asked.find((each) => each.statement.includes("'PENDING'"))!

    const now = new Date(dawn + 3_600_000 + 10_000).toISOString()
    const after = "NULL, NULL"
    yield* sql.run(`PREPARE due (timestamptz, timestamptz, uuid, int4) AS ${statement}`)
    const due = yield* sql.run<{ orderId: string }>(`EXECUTE due ('${now}', ${after}, 256)`)
    assert.sameMembers(
      due.map(({ orderId }) => orderId),
      ["ORDER", "VARIANT"].flatMap((kind) => Array.from({ length: 10 }, (_, n) => `${kind}${n + 1}`))
    )
    // With its values, as the first times, and without them.
    for (const mode of ["force_custom_plan", "force_generic_plan"]) {
      yield* sql.run(`SET plan_cache_mode = ${mode}`)
      const lines = yield* sql.run<{ "QUERY PLAN": string }>(
        `EXPLAIN (COSTS OFF) EXECUTE due ('${now}', ${after}, 256)`
      )
      const plan = lines.map((line) => line["QUERY PLAN"]).join("\n")
      assert.match(plan, /Index Scan using reservation_due on reservation/, mode)
      assert.notMatch(plan, /Seq Scan|reservation_by_order/, mode)
    }
  })
)
