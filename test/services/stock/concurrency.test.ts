import { assert, layer } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Redacted } from "effect"
import { connect } from "../../support/ledger.ts"
import { assertUnbroken, desks, statusesOf } from "../../support/processes.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { type Answer, fresh, startService } from "../../support/service.ts"

/**
 * Real processes over real HTTP: no interleaving of requests and replicas oversells (CONTRACTS section 2). Two services
 * on one database, and a merchant of each test's own.
 */

const connections = 64
const testBoundMs = 120_000

const pair = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const services = yield* Effect.all(
    // Sweepers compete with whoever asks: as often as they can.
    [1, 2].map(() => startService(Redacted.value(url), { SWEEP_INTERVAL_MS: "10" })),
    { concurrency: "unbounded" }
  )
  return { services, url, sql: yield* connect(url) }
})

class Pair extends Context.Service<Pair, Effect.Success<typeof pair>>()("holdfast/test/Pair") {
  static readonly layer = Layer.effect(Pair, pair)
}

/** A merchant that nobody else has, and its desk at each service. */
const desksOfMyOwn = Effect.gen(function* () {
  const { services, sql } = yield* Pair
  const merchantId = fresh("merchant")
  return { shops: yield* desks(services, merchantId), merchantId, sql }
})

interface Reserved {
  readonly data: { readonly reservationId: string }
}
const idOf = (answer: Answer): string => (answer.body as Reserved).data.reservationId

layer(Pair.layer, { excludeTestServices: true, timeout: "120 seconds" })("over two processes", (it) => {
  it.effect(
    "a merchant, items and locations that nobody has met are made once, whoever is asked",
    () =>
      Effect.gen(function* () {
        const { merchantId, shops, sql } = yield* desksOfMyOwn
        const answers = yield* Effect.forEach(
          Array.from({ length: 60 }, (_, index) => index),
          (index) =>
            Effect.forEach(
              shops,
              (shop) =>
                Effect.all(
                  [
                    shop.item(`item-${index % 20}`, { sku: `sku-${index % 20}` }),
                    shop.location(`north-${index % 5}`)
                  ],
                  { concurrency: "unbounded" }
                ),
              { concurrency: "unbounded" }
            ),
          { concurrency: 16 }
        )
        assert.strictEqual(answers.length, 60)
        assert.deepStrictEqual(
          yield* sql.run(
            `SELECT (SELECT count(*) FROM merchant WHERE merchant_id = $1) AS merchants,
                    (SELECT count(*) FROM item WHERE merchant_id = $1) AS items,
                    (SELECT count(*) FROM location WHERE merchant_id = $1) AS locations,
                    (SELECT count(DISTINCT position) FROM location WHERE merchant_id = $1) AS places`,
            [merchantId]
          ),
          [{ merchants: 1, items: 20, locations: 6, places: 6 }]
        )
      }),
    testBoundMs
  )

  for (const processes of [1, 2]) {
    it.effect(
      `the last units are sold to exactly as many as there are, by ${processes === 1 ? "one process" : "two processes"}`,
      () =>
        Effect.gen(function* () {
          const { merchantId, shops, sql } = yield* desksOfMyOwn
          yield* shops[0]!.item("cup")
          yield* shops[0]!.receive("cup", 500)
          const answers = yield* Effect.forEach(
            Array.from({ length: 2_000 }, (_, index) => index),
            (index) => shops[index % processes]!.reserve(`order-${index}`, [["cup", 1]]),
            { concurrency: connections }
          )
          assert.deepStrictEqual(statusesOf(answers), { 201: 500, 409: 1_500 })
          const rows = yield* sql.run("SELECT on_hand, reserved FROM item WHERE merchant_id = $1", [
            merchantId
          ])
          assert.deepStrictEqual(rows, [{ on_hand: 500, reserved: 500 }])
        }),
      testBoundMs
    )
  }

  it.effect(
    "several items are reserved in opposite orders without a deadlock",
    () =>
      Effect.gen(function* () {
        const { shops } = yield* desksOfMyOwn
        const variants = ["a", "b", "c", "d"]
        yield* Effect.forEach(variants, (variant) =>
          Effect.andThen(shops[0]!.item(variant), shops[0]!.receive(variant, 200))
        )
        const answers = yield* Effect.forEach(
          Array.from({ length: 400 }, (_, index) => index),
          (index) => {
            const items = variants.map((variant) => [variant, 1] as const)
            return shops[index % 2]!.reserve(`order-${index}`, index % 2 === 0 ? items : items.toReversed())
          },
          { concurrency: connections }
        )
        assert.deepStrictEqual(statusesOf(answers), { 201: 200, 409: 200 })
      }),
    testBoundMs
  )

  it.effect(
    "those that meet the same order make one reservation",
    () =>
      Effect.gen(function* () {
        const { merchantId, shops, sql } = yield* desksOfMyOwn
        yield* shops[0]!.item("cup")
        yield* shops[0]!.receive("cup", 1_000)
        const rounds = yield* Effect.forEach(
          Array.from({ length: 80 }, (_, index) => index),
          (index) =>
            Effect.forEach([0, 1, 0, 1], (shop) => shops[shop]!.reserve(`order-${index}`, [["cup", 2]]), {
              concurrency: "unbounded"
            }),
          { concurrency: connections / 4 }
        )
        for (const answers of rounds) {
          assert.deepStrictEqual(statusesOf(answers), { 200: 3, 201: 1 })
          assert.strictEqual(new Set(answers.map(idOf)).size, 1)
        }
        assert.deepStrictEqual(
          yield* sql.run("SELECT reserved FROM item WHERE merchant_id = $1", [merchantId]),
          [{ reserved: 160 }]
        )
      }),
    testBoundMs
  )

  it.effect(
    "those that are asked with the same Idempotency-Key at once have one effect",
    () =>
      Effect.gen(function* () {
        const { merchantId, shops, sql } = yield* desksOfMyOwn
        yield* shops[0]!.item("cup")
        const headers = { "idempotency-key": "key" }
        const answers = yield* Effect.forEach(
          Array.from({ length: 50 }, (_, index) => index),
          (index) =>
            shops[index % 2]!.post(
              "/api/v1/inventory/adjust-stock",
              { productVariantId: "cup", changeType: "RECEIPT", quantity: 7 },
              { headers }
            ),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(statusesOf(answers), { 200: 50 })
        assert.strictEqual(new Set(answers.map(({ text }) => text)).size, 1)
        const first = answers.filter((answer) => answer.headers["idempotency-replayed"] === undefined)
        assert.strictEqual(first.length, 1)
        assert.deepStrictEqual(
          yield* sql.run("SELECT on_hand FROM item WHERE merchant_id = $1", [merchantId]),
          [{ on_hand: 7 }]
        )
      }),
    testBoundMs
  )

  it.effect(
    "confirm, release and expiry of one reservation in the same instant have one outcome, whichever is asked",
    () =>
      Effect.gen(function* () {
        const { merchantId, shops, sql } = yield* desksOfMyOwn
        yield* shops[0]!.item("cup")
        yield* shops[0]!.receive("cup", 1_000)
        const contest = Effect.fnUntraced(function* (index: number) {
          const orderId = `order-${index}`
          const reserved = yield* shops[index % 2]!.reserve(orderId, [["cup", 1]], { expiresIn: 1 })
          const { expiresAt } = (reserved.body as { data: { expiresAt: string } }).data
          // The instant is the point: all three come as close to expiresAt as they can.
          yield* Effect.sleep(Date.parse(expiresAt) - (yield* Clock.currentTimeMillis) + (index % 20))
          return yield* Effect.all(
            [
              shops[index % 2]!.post("/api/v1/inventory/confirm", { orderId }),
              shops[(index + 1) % 2]!.post("/api/v1/inventory/release", { orderId })
            ],
            { concurrency: "unbounded" }
          )
        })
        const rounds = yield* Effect.forEach(
          Array.from({ length: 120 }, (_, index) => index),
          contest,
          {
            concurrency: "unbounded"
          }
        )
        for (const [confirmed, released] of rounds) {
          assert.include([200, 409], confirmed.status, confirmed.text)
          assert.include([200, 409], released.status, released.text)
        }
        const rows = yield* sql.run<{ status: string; count: number; sold: number }>(
          `SELECT r.status, count(DISTINCT r.reservation_id) AS count, sum(l.sold)::bigint AS sold
           FROM reservation r
           JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
           WHERE r.merchant_id = $1
           GROUP BY r.status ORDER BY r.status`,
          [merchantId]
        )
        const sold = rounds.filter(([confirmed]) => confirmed.status === 200).length
        for (const row of rows) {
          assert.include(["CONFIRMED", "CANCELLED", "EXPIRED"], row.status)
          assert.strictEqual(row.sold, row.status === "CONFIRMED" ? sold : 0)
        }
        assert.strictEqual(
          rows.reduce((sum, row) => sum + row.count, 0),
          120
        )
      }),
    testBoundMs
  )

  it.effect(
    "after all of it the books are right, and PostgreSQL has seen no deadlock",
    () =>
      Effect.gen(function* () {
        const { services, sql, url } = yield* Pair
        for (const service of services) yield* service.kill("SIGKILL")
        yield* assertUnbroken({ url, sql })
      }),
    testBoundMs
  )
})
