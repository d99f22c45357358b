import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { assertInvariants } from "../support/invariants.ts"
import { Service, fresh, merchant } from "../support/service.ts"
import {
  assertAnswer,
  assertProblem,
  assertRefusedFields,
  listAt,
  pick,
  textAt,
  uuid
} from "../support/shape.ts"

/** `POST count` (CONTRACTS 4.2) against the running program. */

const api = "/api/v1/inventory"
const count = `${api}/count`
const discrepancies = "/v1/api/inventory/discrepancies"

const counted = (
  productVariantId: string,
  quantity: number,
  difference: number,
  version: number,
  more: object = {}
) => ({
  productVariantId,
  sku: null,
  stockId: uuid,
  locationId: "default",
  lotNumber: null,
  quantity,
  reservedQuantity: 0,
  unallocatableQuantity: 0,
  version,
  difference,
  discrepancy: difference !== 0,
  ...more
})

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("count", (it) => {
  it.effect("sets what was counted: each difference is a movement with its reason, what agrees is none", () =>
    Effect.gen(function* () {
      const { get, item, location, post, receive } = yield* merchant
      for (const variant of ["cup", "pot", "jug"]) yield* item(variant)
      yield* location("shop")
      yield* receive("cup", 5)
      yield* receive("pot", 7, { locationId: "shop", lotNumber: "A" })
      yield* receive("jug", 3)
      const answer = yield* post(count, {
        counts: [
          { productVariantId: "cup", quantity: 4 },
          { productVariantId: "pot", lotNumber: "A", quantity: 9 },
          { productVariantId: "jug", quantity: 3 }
        ],
        reason: "yearly"
      })
      assertAnswer(answer, 200, {
        counts: [
          counted("cup", 4, -1, 2),
          counted("pot", 9, 2, 2, { locationId: "shop", lotNumber: "A" }),
          counted("jug", 3, 0, 1)
        ]
      })
      const [movement] = listAt((yield* get(`${api}/cup/ledger`)).body, "data")
      const told = ["type", "onHandDelta", "onHand", "reason", "source", "actor"]
      assert.deepStrictEqual(
        told.map((field) => pick(movement, field)),
        ["ADJUSTMENT", -1, 4, "yearly", "MANUAL_ADJUSTMENT", "tester"]
      )
      assert.strictEqual(listAt((yield* get(`${api}/jug/ledger`)).body, "data").length, 1)
    })
  )

  it.effect(
    "compares and sets with expectedVersion or expectedQuantity: names all that moved, changes nothing",
    () =>
      Effect.gen(function* () {
        const { get, item, post, receive } = yield* merchant
        for (const variant of ["cup", "pot", "jug"]) yield* item(variant, { sku: variant.toUpperCase() })
        yield* receive("cup", 5)
        yield* receive("pot", 7)
        const wrong = yield* post(count, {
          counts: [
            { productVariantId: "cup", quantity: 1, expectedVersion: 1 },
            { productVariantId: "pot", quantity: 2, expectedVersion: 2, expectedQuantity: 7 },
            { productVariantId: "jug", quantity: 3, expectedQuantity: 1 }
          ]
        })
        assertProblem(wrong, 409, "VERSION_MISMATCH", {
          counts: [
            {
              index: 1,
              productVariantId: "pot",
              sku: "POT",
              expectedVersion: 2,
              expectedQuantity: 7,
              version: 1,
              quantity: 7
            },
            { index: 2, productVariantId: "jug", sku: "JUG", expectedQuantity: 1, version: 0, quantity: 0 }
          ]
        })
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
        assert.strictEqual(pick((yield* get(`${api}/jug`)).body, "status"), "AWAITING_INITIAL_STOCK")
        const right = yield* post(count, {
          counts: [
            { productVariantId: "cup", quantity: 1, expectedVersion: 1 },
            { productVariantId: "pot", quantity: 2, expectedVersion: 1, expectedQuantity: 7 },
            // One that is not there yet.
            { productVariantId: "jug", quantity: 3, expectedVersion: 0, expectedQuantity: 0 }
          ]
        })
        assert.deepStrictEqual(
          listAt(right.body, "counts").map((row) => pick(row, "quantity")),
          [1, 2, 3],
          right.text
        )
        const again = yield* post(count, {
          counts: [{ productVariantId: "cup", quantity: 1, expectedVersion: 1 }]
        })
        assertProblem(again, 409, "VERSION_MISMATCH", {
          counts: [
            { index: 0, productVariantId: "cup", sku: "CUP", expectedVersion: 1, version: 2, quantity: 1 }
          ]
        })
      })
  )

  it.effect("is all rows or none: an unknown item, location or an ambiguous stock refuses it", () =>
    Effect.gen(function* () {
      const { get, item, location, post, receive } = yield* merchant
      yield* item("cup")
      yield* item("pot")
      yield* location("shop")
      yield* receive("cup", 5)
      yield* receive("pot", 5)
      yield* receive("pot", 5, { locationId: "shop" })
      const cup = { productVariantId: "cup", quantity: 1 }
      const unknown = yield* post(count, {
        counts: [cup, { productVariantId: "x", quantity: 1 }, { productVariantId: "y", quantity: 1 }]
      })
      assertProblem(unknown, 404, "NOT_FOUND", { items: ["x", "y"] })
      assertProblem(yield* post(count, { locationId: "nowhere", counts: [cup] }), 404, "NOT_FOUND", {
        locationId: "nowhere"
      })
      const two = { productVariantId: "pot", quantity: 1 }
      const ambiguous = yield* post(count, { counts: [cup, two] })
      assertProblem(ambiguous, 422, "AMBIGUOUS_STOCK", {
        index: 1,
        stocks: pick(ambiguous.body, "stocks")
      })
      assertRefusedFields(yield* post(count, { counts: [cup, two, cup] }), "body.counts.2")
      const many = Array.from({ length: 501 }, (_, index) => ({ ...cup, lotNumber: `${index}` }))
      assertRefusedFields(yield* post(count, { counts: many }), "body.counts")
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 5)
      assert.strictEqual((yield* post(count, { locationId: "shop", counts: [two] })).status, 200)
      assert.strictEqual(pick((yield* get(`${api}/pot`)).body, "quantity"), 6)
    })
  )

  it.effect("opens one discrepancy for each stock that differs by more than its item's tolerance", () =>
    Effect.gen(function* () {
      const { databaseUrl } = yield* Service
      const { get, item, patch, post, receive } = yield* merchant
      yield* item("cup", { countTolerance: 2 })
      yield* item("pot")
      yield* item("new")
      yield* receive("cup", 10)
      yield* receive("pot", 10)
      const setTo = (productVariantId: string, quantity: number) =>
        Effect.map(post(count, { counts: [{ productVariantId, quantity }] }), (answer) =>
          pick(answer.body, "counts.0.discrepancy")
        )
      const open = Effect.map(get(`${discrepancies}?status=OPEN`), ({ body }) => listAt(body, "data"))
      assert.isFalse(yield* setTo("cup", 8))
      assert.isFalse(yield* setTo("new", 50), "the first count of an item is its initial stock")
      assert.deepStrictEqual(yield* open, [])
      assert.isTrue(yield* setTo("cup", 5))
      assert.isTrue(yield* setTo("cup", 9), "one is open for the stock already")
      assert.isTrue(yield* setTo("pot", 9))
      const found = yield* open
      assert.deepStrictEqual(
        found.map((one) => [pick(one, "kind"), pick(one, "productVariantId"), pick(one, "detail")]),
        [
          ["COUNT_DIFFERENCE", "pot", { booked: 10, counted: 9, tolerance: 0 }],
          ["COUNT_DIFFERENCE", "cup", { booked: 8, counted: 5, tolerance: 2 }]
        ]
      )
      // It is not the balance that is wrong: only a person can explain it.
      const cup = textAt(found[1], "discrepancyId")
      assert.isFalse(yield* setTo("cup", 9))
      assert.strictEqual((yield* open).length, 2)
      assertAnswer(
        yield* post(`${discrepancies}/${cup}/resolve`, { reason: "found behind the shelf" }),
        200,
        {
          discrepancyId: cup,
          resolved: true
        }
      )
      assert.strictEqual((yield* open).length, 1)
      yield* patch("/v1/api/inventory/product-variants/cup", { countTolerance: 0 })
      assert.isTrue(yield* setTo("cup", 8))
      assert.strictEqual((yield* open).length, 2)
      yield* assertInvariants(Redacted.make(databaseUrl))
    })
  )

  it.effect(
    "that finds less than is reserved is recorded all the same, and the shortage is a discrepancy",
    () =>
      Effect.gen(function* () {
        const { get, item, post, receive, reserve } = yield* merchant
        yield* item("cup", { countTolerance: 100 })
        yield* receive("cup", 5)
        yield* reserve("o", [["cup", 4]])
        const answer = yield* post(count, { counts: [{ productVariantId: "cup", quantity: 3 }] })
        assertAnswer(answer, 200, {
          counts: [counted("cup", 3, -2, 3, { reservedQuantity: 4, discrepancy: false })]
        })
        const [open] = listAt((yield* get(`${discrepancies}?status=OPEN`)).body, "data")
        assert.strictEqual(pick(open, "kind"), "OVERCOMMITTED")
      })
  )

  it.effect(
    "is told again by its Idempotency-Key, asks for inventory:adjust, and knows no other merchant's",
    () =>
      Effect.gen(function* () {
        const { get, item, merchantId, post, receive } = yield* merchant
        const other = yield* merchant
        yield* item("cup")
        yield* receive("cup", 5)
        const key = { headers: { "idempotency-key": fresh("key") } }
        const body = { counts: [{ productVariantId: "cup", quantity: 2 }] }
        const first = yield* post(count, body, key)
        yield* receive("cup", 1)
        const again = yield* post(count, body, key)
        assert.deepStrictEqual([again.text, again.headers["idempotency-replayed"]], [first.text, "true"])
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 3)
        assertProblem(yield* other.post(count, body), 404, "NOT_FOUND", { items: ["cup"] })
        const { token } = yield* Service
        const reader = yield* token({ merchantId, scope: "inventory:read inventory:reserve" })
        assertProblem(yield* post(count, body, { token: reader }), 403, "FORBIDDEN", {
          permission: "inventory:adjust"
        })
      })
  )
})
