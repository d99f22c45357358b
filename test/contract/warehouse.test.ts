import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Service, merchant } from "../support/service.ts"
import {
  assertAnswer,
  assertProblem,
  assertRefusedFields,
  listAt,
  moment,
  pick,
  textAt,
  uuid
} from "../support/shape.ts"

/** The warehouse contract (CONTRACTS 4.3) against the running program. */

const unknownStock = "00000000-0000-7000-8000-000000000000"

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("warehouse contract", (it) => {
  it.effect("shows a sku by batch, and its damaged and expired units as unallocatable", () =>
    Effect.gen(function* () {
      const { adjust, get, item, post, receive } = yield* merchant
      yield* item("milk", { sku: "MILK" })
      yield* receive("milk", 3, { lotNumber: "old", expiresAt: "2001-01-01T00:00:00Z" })
      yield* receive("milk", 9, { lotNumber: "new", expiresAt: "2999-01-01T00:00:00Z" })
      yield* adjust("milk", "DAMAGE", 2, { lotNumber: "new" })
      yield* post("/inventory/reserve", { orderId: "o", items: [{ sku: "MILK", quantity: 4 }] })
      const batch = { skuBatchId: uuid, locationId: "default" }
      assertAnswer(yield* get("/inventory/MILK"), 200, {
        sku: "MILK",
        totalQuantity: 12,
        unallocatableQuantity: 5,
        reservedQuantity: 4,
        availableQuantity: 3,
        batches: [
          {
            ...batch,
            lotNumber: "old",
            expiresAt: "2001-01-01T00:00:00.000Z",
            totalQuantity: 3,
            unallocatableQuantity: 3,
            reservedQuantity: 0,
            availableQuantity: 0,
            version: 1
          },
          {
            ...batch,
            lotNumber: "new",
            expiresAt: "2999-01-01T00:00:00.000Z",
            totalQuantity: 9,
            unallocatableQuantity: 2,
            reservedQuantity: 4,
            availableQuantity: 3,
            version: 3
          }
        ],
        lastWmsSyncAt: null
      })
    })
  )

  it.effect("answers 404 to an unknown sku", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 5)
      assertProblem(yield* get("/inventory/NONE"), 404, "NOT_FOUND", { items: ["NONE"] })
      const items = [
        { sku: "CUP", quantity: 1 },
        { sku: "NONE", quantity: 1 }
      ]
      assertProblem(yield* post("/inventory/reserve", { orderId: "o", items }), 404, "NOT_FOUND", {
        items: ["NONE"]
      })
      assert.strictEqual(pick((yield* get("/inventory/CUP")).body, "reservedQuantity"), 0)
    })
  )

  it.effect("allocates first-expired-first-out, tells the batches, and repeats with 200", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("milk", { sku: "MILK" })
      yield* receive("milk", 3, { lotNumber: "late", expiresAt: "2999-01-01T00:00:00Z" })
      yield* receive("milk", 2, { lotNumber: "soon", expiresAt: "2998-01-01T00:00:00Z" })
      const body = { orderId: "o", items: [{ sku: "MILK", quantity: 4 }], expiresIn: 60 }
      const first = yield* post("/inventory/reserve", body)
      assertAnswer(first, 201, {
        reservationId: uuid,
        orderId: "o",
        status: "PENDING",
        applied: true,
        allocations: [
          { sku: "MILK", skuBatchId: uuid, lotNumber: "soon", quantity: 2 },
          { sku: "MILK", skuBatchId: uuid, lotNumber: "late", quantity: 2 }
        ],
        expiresAt: moment
      })
      assertAnswer(yield* post("/inventory/reserve", body), 200, {
        ...(first.body as object),
        applied: false
      })
      assertProblem(
        yield* post("/inventory/reserve", { ...body, items: [{ sku: "MILK", quantity: 5 }] }),
        422,
        "RESERVATION_FAILED",
        { reason: "OTHER_ITEMS", reservationId: pick(first.body, "reservationId") }
      )
    })
  )

  it.effect("allocates from the batch that is named and from no other", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("milk", { sku: "MILK" })
      yield* receive("milk", 3, { lotNumber: "A" })
      yield* receive("milk", 2, { lotNumber: "B" })
      const batches = listAt((yield* get("/inventory/MILK")).body, "batches")
      const skuBatchId = textAt(
        batches.find((batch) => pick(batch, "lotNumber") === "B"),
        "skuBatchId"
      )
      const line = { sku: "MILK", skuBatchId }
      assertProblem(
        yield* post("/inventory/reserve", { orderId: "o1", items: [{ ...line, quantity: 3 }] }),
        409,
        "INSUFFICIENT_INVENTORY",
        { items: [{ productVariantId: "milk", sku: "MILK", requested: 3, available: 2 }] }
      )
      const answer = yield* post("/inventory/reserve", { orderId: "o2", items: [{ ...line, quantity: 2 }] })
      assert.deepStrictEqual(pick(answer.body, "allocations"), [{ ...line, lotNumber: "B", quantity: 2 }])
      assertProblem(
        yield* post("/inventory/reserve", {
          orderId: "o3",
          items: [{ sku: "MILK", quantity: 1, skuBatchId: unknownStock }]
        }),
        404,
        "NOT_FOUND",
        { item: unknownStock }
      )
      assertRefusedFields(
        yield* post("/inventory/reserve", {
          orderId: "o4",
          items: [{ sku: "MILK", quantity: 1, skuBatchId: "B" }]
        }),
        "body.items.0.skuBatchId"
      )
    })
  )

  it.effect("refuses all lines when one is short, and names every short one", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* item("lid", { sku: "LID" })
      yield* receive("cup", 1)
      yield* receive("lid", 5)
      const answer = yield* post("/inventory/reserve", {
        orderId: "o",
        items: [
          { sku: "CUP", quantity: 2 },
          { sku: "LID", quantity: 2 }
        ]
      })
      assertProblem(answer, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", sku: "CUP", requested: 2, available: 1 }]
      })
      assert.strictEqual(pick((yield* get("/inventory/LID")).body, "reservedQuantity"), 0)
    })
  )

  it.effect("releases an order once; 404 for one never seen, 409 for one that is sold", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 5)
      const reserve = (orderId: string) =>
        post("/inventory/reserve", { orderId, items: [{ sku: "CUP", quantity: 2 }] })
      yield* reserve("o")
      assertAnswer(yield* post("/inventory/release", { orderId: "o" }), 200, {
        orderId: "o",
        released: true,
        applied: true
      })
      assertAnswer(yield* post("/inventory/release", { orderId: "o" }), 200, {
        orderId: "o",
        released: true,
        applied: false
      })
      assert.strictEqual(pick((yield* get("/inventory/CUP")).body, "availableQuantity"), 5)
      assertProblem(yield* post("/inventory/release", { orderId: "never" }), 404, "NOT_FOUND", {
        orderId: "never"
      })
      const sold = yield* reserve("sold")
      yield* post("/api/v1/inventory/confirm", { orderId: "sold" })
      assertProblem(yield* post("/inventory/release", { orderId: "sold" }), 409, "RESERVATION_CONFIRMED", {
        orderId: "sold",
        reservationId: pick(sold.body, "reservationId")
      })
    })
  )

  it.effect("knows an order by one id, whichever contract speaks of it", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 5)
      const first = yield* reserve("o", [["cup", 2]])
      const same = yield* post("/inventory/reserve", { orderId: "o", items: [{ sku: "CUP", quantity: 2 }] })
      assert.strictEqual(same.status, 200, same.text)
      assert.strictEqual(pick(same.body, "reservationId"), pick(first.body, "data.reservationId"))
      const released = yield* post("/inventory/release", { orderId: "o" })
      assert.strictEqual(pick(released.body, "released"), true)
    })
  )
})
