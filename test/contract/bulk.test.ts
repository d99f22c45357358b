import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { assertInvariants } from "../support/invariants.ts"
import { connect } from "../support/ledger.ts"
import { Service, fresh, merchant } from "../support/service.ts"
import {
  assertAnswer,
  assertProblem,
  assertRefusedFields,
  listAt,
  moment,
  pick,
  someText,
  uuid
} from "../support/shape.ts"

/** `POST bulk` (CONTRACTS 4.2) against the running program. */

const api = "/api/v1/inventory"
const bulk = `${api}/bulk`
const keyed = (key: string) => ({ headers: { "idempotency-key": key } })

/** The figures of an item with one unnamed lot at the default location, as adjust-stock tells them. */
const adjusted = (variant: string, quantity: number, version: number, more: object = {}) => {
  const figures = { quantity, reservedQuantity: 0, unallocatableQuantity: 0, ...more }
  return {
    applied: true,
    productVariantId: variant,
    sku: null,
    ...figures,
    availableQuantity: figures.quantity - figures.reservedQuantity - figures.unallocatableQuantity,
    status: "IN_STOCK",
    stocks: [{ stockId: uuid, locationId: "default", lotNumber: null, ...figures, version }],
    discrepancies: []
  }
}

/** A problem without its type and instance, as a row tells it. */
const refused = (index: number, status: number, code: string, members: object = {}) => ({
  index,
  status,
  code,
  title: someText,
  detail: someText,
  ...members
})

const short = (requested: number) => [{ productVariantId: "cup", sku: "CUP", requested, available: 2 }]

const reserving = (orderId: string, length: number) => ({
  type: "reserve",
  orderId,
  items: Array.from({ length }, () => ({ variantId: "cup", quantity: 1 }))
})

/** All that the database keeps of a merchant. */
const tracesOf = Effect.fnUntraced(function* (merchantId: string) {
  const { databaseUrl } = yield* Service
  const sql = yield* connect(Redacted.make(databaseUrl))
  const [row] = yield* sql.run(
    `SELECT
       (SELECT count(*) FROM inventory_ledger WHERE merchant_id = $1) AS ledger,
       (SELECT count(*) FROM domain_event WHERE merchant_id = $1) AS events,
       (SELECT count(*) FROM tracking WHERE merchant_id = $1) AS tracking,
       (SELECT count(*) FROM idempotency WHERE merchant_id = $1) AS idempotency,
       (SELECT count(*) FROM reservation WHERE merchant_id = $1) AS reservations,
       (SELECT count(*) FROM discrepancy WHERE merchant_id = $1) AS discrepancies,
       (SELECT count(*) FROM stock WHERE merchant_id = $1) AS stocks,
       (SELECT jsonb_agg(to_jsonb(i) ORDER BY item_id)::text FROM item i WHERE merchant_id = $1) AS items`,
    [merchantId]
  )
  return row!
})

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("bulk", (it) => {
  it.effect(
    "does every kind of operation, each as its single call would, over what those before it left",
    () =>
      Effect.gen(function* () {
        const { get, item, post, receive } = yield* merchant
        yield* item("cup")
        yield* item("pot")
        yield* receive("pot", 9)
        const answer = yield* post(bulk, {
          mode: "continueOnFailure",
          operations: [
            { type: "receipt", productVariantId: "cup", quantity: 10 },
            { type: "sale", productVariantId: "cup", quantitySold: 1, orderId: "sold" },
            { type: "return", productVariantId: "cup", quantity: 1, orderId: "sold" },
            { type: "damage", productVariantId: "cup", quantity: 2 },
            { type: "correction", productVariantId: "cup", quantity: 12 },
            { type: "reserve", productVariantId: "cup", orderId: "o", quantity: 4, expiresIn: 60 },
            { type: "reserve", productVariantId: "cup", orderId: "o", quantity: 4 },
            { type: "release", productVariantId: "cup", orderId: "o", quantity: 1 },
            {
              type: "reserve",
              orderId: "both",
              items: [
                { productId: "p", variantId: "cup", quantity: 1 },
                { variantId: "pot", quantity: 2 }
              ]
            },
            { type: "release", orderId: "both" }
          ]
        })
        const reserved = {
          reservationId: uuid,
          orderId: "o",
          productVariantId: "cup",
          quantity: 4,
          status: "PENDING",
          applied: true,
          allocations: [
            { variantId: "cup", stockId: uuid, locationId: "default", lotNumber: null, quantity: 4 }
          ],
          expiresAt: moment
        }
        assertAnswer(answer, 200, {
          mode: "continueOnFailure",
          succeeded: 10,
          failed: 0,
          results: [
            { index: 0, status: 200, result: adjusted("cup", 10, 1) },
            { index: 1, status: 200, result: adjusted("cup", 9, 2) },
            { index: 2, status: 200, result: adjusted("cup", 10, 3) },
            { index: 3, status: 200, result: adjusted("cup", 10, 4, { unallocatableQuantity: 2 }) },
            { index: 4, status: 200, result: adjusted("cup", 12, 5, { unallocatableQuantity: 2 }) },
            { index: 5, status: 201, result: reserved },
            { index: 6, status: 200, result: { ...reserved, applied: false } },
            {
              index: 7,
              status: 200,
              result: {
                orderId: "o",
                released: true,
                applied: true,
                releasedQuantity: 1,
                productVariantId: "cup",
                sku: null,
                quantity: 12,
                reservedQuantity: 3,
                unallocatableQuantity: 2,
                availableQuantity: 7,
                status: "IN_STOCK"
              }
            },
            {
              index: 8,
              status: 201,
              result: {
                reservationId: uuid,
                orderId: "both",
                status: "PENDING",
                applied: true,
                items: [
                  { productId: "p", variantId: "cup", quantity: 1, reserved: true },
                  { variantId: "pot", quantity: 2, reserved: true }
                ],
                allocations: [
                  { variantId: "cup", stockId: uuid, locationId: "default", lotNumber: null, quantity: 1 },
                  { variantId: "pot", stockId: uuid, locationId: "default", lotNumber: null, quantity: 2 }
                ],
                expiresAt: moment
              }
            },
            { index: 9, status: 200, result: { orderId: "both", released: true, applied: true } }
          ]
        })
        const cup = (yield* get(`${api}/cup`)).body
        assert.deepStrictEqual(
          [pick(cup, "quantity"), pick(cup, "reservedQuantity"), pick(cup, "availableQuantity")],
          [12, 3, 7]
        )
        const pot = (yield* get(`${api}/pot`)).body
        assert.deepStrictEqual([pick(pot, "quantity"), pick(pot, "reservedQuantity")], [9, 0])
        assert.strictEqual(listAt((yield* get(`${api}/cup/ledger`)).body, "data").length, 9)
      })
  )

  it.effect(
    "with continueOnFailure answers each failure with its status, code and members, and does the rest",
    () =>
      Effect.gen(function* () {
        const { get, item, location, post, receive, reserve } = yield* merchant
        yield* item("cup", { sku: "CUP" })
        yield* location("shop")
        yield* receive("cup", 2)
        yield* receive("cup", 1, { locationId: "shop" })
        yield* reserve("held", [["cup", 1]])
        const answer = yield* post(bulk, {
          mode: "continueOnFailure",
          operations: [
            { type: "sale", productVariantId: "cup", quantity: 7 },
            { type: "receipt", productVariantId: "nothing", quantity: 1 },
            { type: "receipt", productVariantId: "cup", quantity: 1, locationId: "nowhere" },
            { type: "correction", productVariantId: "cup", quantity: 1 },
            { type: "damage", productVariantId: "cup", quantity: 1, locationId: "shop", expectedVersion: 5 },
            { type: "reserve", orderId: "held", productVariantId: "cup", quantity: 5 },
            { type: "reserve", orderId: "new", items: [{ variantId: "nothing", quantity: 1 }] },
            { type: "release", orderId: "unknown" },
            { type: "release", orderId: "held", productVariantId: "cup", quantity: 2 },
            { type: "receipt", productVariantId: "cup", quantity: 0 },
            { type: "steal", productVariantId: "cup", quantity: 1 },
            "receipt",
            { type: "release", orderId: "held", quantity: 2 },
            { type: "receipt", productVariantId: "cup", quantity: 10 }
          ]
        })
        assert.strictEqual(answer.status, 200, answer.text)
        const results = listAt(answer.body, "results")
        assertAnswer(answer, 200, {
          mode: "continueOnFailure",
          succeeded: 1,
          failed: 13,
          results: [
            refused(0, 409, "INSUFFICIENT_INVENTORY", { items: short(7) }),
            refused(1, 404, "NOT_FOUND", { items: ["nothing"] }),
            refused(2, 404, "NOT_FOUND", { locationId: "nowhere" }),
            refused(3, 422, "AMBIGUOUS_STOCK", { stocks: pick(results[3], "stocks") }),
            refused(4, 409, "VERSION_MISMATCH", { expected: 5, actual: 1, quantity: 1 }),
            refused(5, 409, "INSUFFICIENT_INVENTORY", { items: short(5) }),
            refused(6, 422, "RESERVATION_FAILED", { reason: "UNKNOWN_ITEM", items: ["nothing"] }),
            refused(7, 404, "NOT_FOUND", { orderId: "unknown" }),
            refused(8, 409, "RELEASE_EXCEEDS_RESERVATION", { orderId: "held", requested: 2, held: 1 }),
            refused(9, 400, "VALIDATION_FAILED", {
              errors: [{ path: "body.operations.9.quantity", message: someText }]
            }),
            refused(10, 400, "VALIDATION_FAILED", {
              errors: [{ path: "body.operations.10.type", message: someText }]
            }),
            refused(11, 400, "VALIDATION_FAILED", {
              errors: [{ path: "body.operations.11", message: "must be an object" }]
            }),
            refused(12, 400, "VALIDATION_FAILED", {
              errors: [{ path: "body.operations.12.productVariantId", message: someText }]
            }),
            {
              index: 13,
              status: 200,
              result: {
                ...adjusted("cup", 13, 3, { reservedQuantity: 1 }),
                sku: "CUP",
                stocks: [
                  {
                    stockId: uuid,
                    locationId: "default",
                    lotNumber: null,
                    quantity: 12,
                    reservedQuantity: 1,
                    unallocatableQuantity: 0,
                    version: 3
                  }
                ],
                discrepancies: []
              }
            }
          ]
        })
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 13)
      })
  )

  it.effect("that is atomic does all of it, or names what was refused and leaves no trace", () =>
    Effect.gen(function* () {
      const { get, item, merchantId, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const before = yield* tracesOf(merchantId)
      const operations = [
        { type: "receipt", productVariantId: "cup", quantity: 3, reference: "delivery", lotNumber: "new" },
        { type: "reserve", productVariantId: "cup", orderId: "o", quantity: 4 },
        { type: "return", productVariantId: "cup", quantity: 1, orderId: "never sold" },
        { type: "sale", productVariantId: "cup", quantity: 6 }
      ]
      const key = fresh("key")
      const refusal = yield* post(bulk, { mode: "atomic", operations }, keyed(key))
      assertProblem(refusal, 409, "INSUFFICIENT_INVENTORY", {
        index: 3,
        items: [{ productVariantId: "cup", requested: 6, available: 5 }]
      })
      const unknown = yield* post(bulk, {
        mode: "atomic",
        operations: [operations[0], { type: "damage", productVariantId: "pot", quantity: 1 }]
      })
      assertProblem(unknown, 422, "NOT_FOUND", { index: 1, items: ["pot"] })
      const bad = yield* post(bulk, {
        mode: "atomic",
        operations: [operations[0], { ...operations[1], quantity: 0 }, { type: "none" }]
      })
      assertRefusedFields(bad, "body.operations.1.quantity", "body.operations.2.type")
      assert.deepStrictEqual(yield* tracesOf(merchantId), before)
      // Only 2xx are kept: the same key may try again.
      const done = yield* post(
        bulk,
        { mode: "atomic", operations: operations.with(3, { ...operations[3]!, quantity: 5 }) },
        keyed(key)
      )
      assert.deepStrictEqual([done.status, pick(done.body, "succeeded")], [200, 4], done.text)
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 4)
    })
  )

  it.effect("is kept by an Idempotency-Key, and told again byte for byte", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const key = fresh("key")
      const body = {
        mode: "continueOnFailure",
        operations: [
          { type: "receipt", productVariantId: "cup", quantity: 3 },
          { type: "sale", productVariantId: "cup", quantity: 9 },
          { type: "sale", productVariantId: "cup" },
          { type: "reserve", productVariantId: "cup", orderId: "o", quantity: 2 }
        ]
      }
      const first = yield* post(bulk, body, keyed(key))
      yield* post(`${api}/adjust-stock`, { productVariantId: "cup", changeType: "SALE", quantity: 6 })
      const again = yield* post(bulk, body, keyed(key))
      assert.deepStrictEqual([again.status, again.text], [200, first.text])
      assert.strictEqual(again.headers["idempotency-replayed"], "true")
      assert.deepStrictEqual(
        listAt(first.body, "results").map((row) => pick(row, "status")),
        [200, 409, 400, 201]
      )
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 2)
      const other = yield* post(bulk, { ...body, mode: "atomic" }, keyed(key))
      assert.strictEqual(other.status, 400)
      const another = yield* post(bulk, { ...body, operations: body.operations.slice(0, 1) }, keyed(key))
      assertProblem(another, 422, "IDEMPOTENCY_KEY_REUSED", { idempotencyKey: key })
    })
  )

  it.effect("takes 1,000 operations, whose books are right, and no more", () =>
    Effect.gen(function* () {
      const { databaseUrl } = yield* Service
      const { get, item, post, receive } = yield* merchant
      for (const variant of ["a", "b", "c"]) {
        yield* item(variant)
        yield* receive(variant, 100)
      }
      const operations = Array.from({ length: 1_000 }, (_, index) => {
        const productVariantId = ["a", "b", "c"][index % 3]
        return index % 2 === 0
          ? { type: "reserve", productVariantId, orderId: `o${index}`, quantity: 1 }
          : { type: "receipt", productVariantId, quantity: 2, reference: `r${index}` }
      })
      const over = yield* post(bulk, {
        mode: "continueOnFailure",
        operations: [...operations, operations[0]]
      })
      assertRefusedFields(over, "body")
      assertRefusedFields(yield* post(bulk, { mode: "continueOnFailure", operations: [] }), "body.operations")
      const answer = yield* post(bulk, { mode: "atomic", operations })
      assert.strictEqual(answer.status, 200, answer.text.slice(0, 500))
      assert.strictEqual(pick(answer.body, "succeeded"), 1_000)
      const totals = yield* Effect.forEach(["a", "b", "c"], (variant) => get(`${api}/${variant}`))
      const sum = (field: string) => totals.reduce((total, { body }) => total + Number(pick(body, field)), 0)
      assert.deepStrictEqual([sum("quantity"), sum("reservedQuantity")], [1_300, 500])
      yield* assertInvariants(Redacted.make(databaseUrl))
    })
  )

  it.effect("bounds the lines of all its reservations", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5_000)
      const operations = ["o1", "o2", "o3", "o4"].map((orderId) => reserving(orderId, 500))
      const over = yield* post(bulk, { mode: "atomic", operations: [...operations, reserving("o5", 1)] })
      assertRefusedFields(over, "body.operations")
      assert.strictEqual((yield* post(bulk, { mode: "atomic", operations })).status, 200)
    })
  )

  it.effect("asks for inventory:adjust, and touches nothing of another merchant", () =>
    Effect.gen(function* () {
      const { item, receive, get, reserve } = yield* merchant
      const other = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("o", [["cup", 1]])
      const operations = [
        { type: "receipt", productVariantId: "cup", quantity: 1 },
        { type: "release", orderId: "o" }
      ]
      const answer = yield* other.post(bulk, { mode: "continueOnFailure", operations })
      assert.deepStrictEqual(
        listAt(answer.body, "results").map((row) => pick(row, "status")),
        [404, 404]
      )
      const cup = (yield* get(`${api}/cup`)).body
      assert.deepStrictEqual([pick(cup, "quantity"), pick(cup, "reservedQuantity")], [5, 1])
      const { token } = yield* Service
      const reader = yield* token({ merchantId: other.merchantId, scope: "inventory:read inventory:reserve" })
      const forbidden = yield* other.post(bulk, { mode: "atomic", operations }, { token: reader })
      assertProblem(forbidden, 403, "FORBIDDEN", { permission: "inventory:adjust" })
    })
  )

  it.effect("never oversells, whoever else reserves and sells beside it", () =>
    Effect.gen(function* () {
      const { databaseUrl } = yield* Service
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 60)
      const bulks = Effect.forEach(
        Array.from({ length: 8 }, (_, index) => index),
        (index) =>
          post(bulk, {
            mode: index % 2 === 0 ? "atomic" : "continueOnFailure",
            operations: Array.from({ length: 10 }, (__, row) => ({
              type: "reserve",
              productVariantId: "cup",
              orderId: `bulk ${index} ${row}`,
              quantity: 1
            }))
          }),
        { concurrency: "unbounded" }
      )
      const singles = Effect.forEach(
        Array.from({ length: 20 }, (_, index) => index),
        (index) => post(`${api}/cup/reserve`, { orderId: `single ${index}`, quantity: 1 }),
        { concurrency: "unbounded" }
      )
      yield* Effect.all([bulks, singles], { concurrency: "unbounded" })
      const cup = (yield* get(`${api}/cup`)).body
      assert.isAtLeast(Number(pick(cup, "reservedQuantity")), 51)
      assert.isAtMost(Number(pick(cup, "reservedQuantity")), 60)
      yield* assertInvariants(Redacted.make(databaseUrl))
    })
  )
})
