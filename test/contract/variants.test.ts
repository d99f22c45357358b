import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { connect } from "../support/ledger.ts"
import { messagesAt } from "../support/messages.ts"
import { Service, eventually, merchant } from "../support/service.ts"
import {
  assertAnswer,
  assertProblem,
  assertRefusedFields,
  assertShape,
  listAt,
  moment,
  pick,
  textAt,
  uuid
} from "../support/shape.ts"

/** The variants contract (CONTRACTS 4.2) against the running program. */

const api = "/api/v1/inventory"

/** What adjust-stock tells of an item with one unnamed lot at the default location. */
const adjusted = (
  applied: boolean,
  figures: {
    readonly quantity: number
    readonly reserved?: number
    readonly unallocatable?: number
    readonly available: number
    readonly status?: string
    readonly version: number
  }
) => {
  const balances = {
    quantity: figures.quantity,
    reservedQuantity: figures.reserved ?? 0,
    unallocatableQuantity: figures.unallocatable ?? 0
  }
  return {
    applied,
    productVariantId: "cup",
    sku: null,
    ...balances,
    availableQuantity: figures.available,
    status: figures.status ?? "IN_STOCK",
    stocks: applied
      ? [{ stockId: uuid, locationId: "default", lotNumber: null, ...balances, version: figures.version }]
      : [],
    discrepancies: []
  }
}

const ids = (count: number) => Array.from({ length: count }, (_, index) => `v${index}`).join(",")

const released = (
  quantity: number,
  did: boolean,
  figures: { readonly reserved: number; readonly available: number }
) => ({
  orderId: "o",
  released: true,
  applied: did,
  releasedQuantity: quantity,
  productVariantId: "cup",
  sku: null,
  quantity: 5,
  reservedQuantity: figures.reserved,
  unallocatableQuantity: 0,
  availableQuantity: figures.available,
  status: "IN_STOCK"
})

const key = (each: unknown) => `${String(pick(each, "stockId"))} ${String(pick(each, "sequence"))}`

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("variants contract", (it) => {
  it.effect("shows the stock of a variant by location and batch, in the order in which it is taken", () =>
    Effect.gen(function* () {
      const { get, item, location, receive, reserve } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* location("shop")
      yield* receive("cup", 4, { locationId: "shop" })
      yield* receive("cup", 5, { lotNumber: "B", expiresAt: "2999-01-01T00:00:00Z" })
      yield* receive("cup", 6, { lotNumber: "A", expiresAt: "2998-01-01T01:00:00.5+01:00" })
      yield* receive("cup", 7, { lotNumber: "old", expiresAt: "2001-01-01T00:00:00Z" })
      yield* reserve("o", [["cup", 2]])
      const answer = yield* get(`${api}/cup`)
      const batch = { stockId: uuid, reservedQuantity: 0, unallocatableQuantity: 0, version: 1 }
      assertAnswer(answer, 200, {
        productVariantId: "cup",
        sku: "CUP",
        stocked: true,
        quantity: 22,
        reservedQuantity: 2,
        availableQuantity: 13,
        status: "IN_STOCK",
        updatedAt: moment,
        locations: [
          {
            locationId: "default",
            quantity: 18,
            reservedQuantity: 2,
            availableQuantity: 9,
            batches: [
              {
                ...batch,
                lotNumber: "old",
                expiresAt: "2001-01-01T00:00:00.000Z",
                quantity: 7,
                unallocatableQuantity: 7,
                availableQuantity: 0
              },
              {
                ...batch,
                lotNumber: "A",
                expiresAt: "2998-01-01T00:00:00.500Z",
                quantity: 6,
                reservedQuantity: 2,
                availableQuantity: 4,
                version: 2
              },
              {
                ...batch,
                lotNumber: "B",
                expiresAt: "2999-01-01T00:00:00.000Z",
                quantity: 5,
                availableQuantity: 5
              }
            ]
          },
          {
            locationId: "shop",
            quantity: 4,
            reservedQuantity: 0,
            availableQuantity: 4,
            batches: [{ ...batch, lotNumber: null, expiresAt: null, quantity: 4, availableQuantity: 4 }]
          }
        ]
      })
    })
  )

  it.effect("shows an item that nothing was received of", () =>
    Effect.gen(function* () {
      const { get, item } = yield* merchant
      yield* item("cup")
      assertAnswer(yield* get(`${api}/cup`), 200, {
        productVariantId: "cup",
        sku: null,
        stocked: true,
        quantity: 0,
        reservedQuantity: 0,
        availableQuantity: 0,
        status: "AWAITING_INITIAL_STOCK",
        updatedAt: moment,
        locations: []
      })
    })
  )

  it.effect("answers 404 to an unknown variant, whatever is asked of it", () =>
    Effect.gen(function* () {
      const { adjust, get, post } = yield* merchant
      const members = { items: ["unknown"] }
      const reserve = { orderId: "o", quantity: 1 }
      assertProblem(yield* get(`${api}/unknown`), 404, "NOT_FOUND", members)
      assertProblem(yield* get(`${api}/unknown/ledger`), 404, "NOT_FOUND", members)
      assertProblem(yield* post(`${api}/unknown/reserve`, reserve), 404, "NOT_FOUND", members)
      assertProblem(yield* post(`${api}/unknown/release`, reserve), 404, "NOT_FOUND", members)
      assertProblem(yield* adjust("unknown", "RECEIPT", 1), 404, "NOT_FOUND", members)
    })
  )

  it.effect("takes ids of all visible characters, percent-encoded", () =>
    Effect.gen(function* () {
      const { get, item } = yield* merchant
      const id = "größe 40/41 %2F ?#&+;=ü😀"
      yield* item(id)
      const answer = yield* get(`${api}/${encodeURIComponent(id)}`)
      assert.strictEqual(pick(answer.body, "productVariantId"), id)
      yield* item("A")
      yield* item("a", { sku: "small" })
      assert.strictEqual(pick((yield* get(`${api}/a`)).body, "sku"), "small")
      assert.strictEqual(pick((yield* get(`${api}/A`)).body, "sku"), null)
    })
  )

  it.effect("tells an item whose id differs from a route only in case from that route", () =>
    Effect.gen(function* () {
      const { get, item } = yield* merchant
      yield* item("Reservations")
      const answer = yield* get(`${api}/Reservations`)
      assert.strictEqual(pick(answer.body, "productVariantId"), "Reservations", answer.text)
    })
  )

  it.effect("shows up to 200 variants in one go, in the order asked, and names the missing ones", () =>
    Effect.gen(function* () {
      const { get, item } = yield* merchant
      yield* item("cup")
      yield* item("lid")
      const answer = yield* get(`${api}?productVariantIds=lid,none,cup,lid`)
      assert.strictEqual(answer.status, 200, answer.text)
      assert.deepStrictEqual(
        listAt(answer.body, "data").map((each) => pick(each, "productVariantId")),
        ["lid", "cup"]
      )
      assert.deepStrictEqual(pick(answer.body, "missing"), ["none"])
      assert.deepStrictEqual(listAt(answer.body, "data")[1], (yield* get(`${api}/cup`)).body)
      assert.strictEqual(
        listAt((yield* get(`${api}?productVariantIds=${ids(200)}`)).body, "missing").length,
        200
      )
      assertRefusedFields(yield* get(`${api}?productVariantIds=${ids(201)}`), "query.productVariantIds")
      assertRefusedFields(yield* get(`${api}?productVariantIds=a%00b`), "query.productVariantIds.0")
      assertRefusedFields(yield* get(`${api}?productVariantIds=`), "query.productVariantIds.0")
      assertRefusedFields(yield* get(api), "query.productVariantIds")
    })
  )

  it.effect("reserves one variant for an order, and repeats with 200", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const body = { orderId: "o", quantity: 2, expiresIn: 60 }
      const first = yield* post(`${api}/cup/reserve`, body)
      const expected = {
        reservationId: uuid,
        orderId: "o",
        productVariantId: "cup",
        quantity: 2,
        status: "PENDING",
        applied: true,
        allocations: [
          { variantId: "cup", stockId: uuid, locationId: "default", lotNumber: null, quantity: 2 }
        ],
        expiresAt: moment
      }
      assertAnswer(first, 201, expected)
      const again = yield* post(`${api}/cup/reserve`, body)
      assertAnswer(again, 200, { ...(first.body as object), applied: false })
      assertProblem(yield* post(`${api}/cup/reserve`, { ...body, quantity: 3 }), 422, "RESERVATION_FAILED", {
        reason: "OTHER_ITEMS",
        reservationId: pick(first.body, "reservationId")
      })
    })
  )

  it.effect("holds several variants of one order apart", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      for (const id of ["cup", "lid"]) {
        yield* item(id)
        yield* receive(id, 5)
        const { status } = yield* post(`${api}/${id}/reserve`, { orderId: "o", quantity: 1 })
        assert.strictEqual(status, 201)
      }
      const release = yield* post(`${api}/cup/release`, { orderId: "o" })
      assert.strictEqual(pick(release.body, "releasedQuantity"), 1)
      const again = yield* post(`${api}/lid/reserve`, { orderId: "o", quantity: 1 })
      assert.strictEqual(again.status, 200, again.text)
    })
  )

  it.effect("refuses to reserve more than is there", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 1)
      const answer = yield* post(`${api}/cup/reserve`, { orderId: "o", quantity: 2 })
      assertProblem(answer, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", sku: "CUP", requested: 2, available: 1 }]
      })
    })
  )

  it.effect("releases a part of a line, then the rest, and never more than is held", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reserved = yield* post(`${api}/cup/reserve`, { orderId: "o", quantity: 3 })
      assertAnswer(
        yield* post(`${api}/cup/release`, { orderId: "o", quantity: 1 }),
        200,
        released(1, true, { reserved: 2, available: 3 })
      )
      assertProblem(
        yield* post(`${api}/cup/release`, { orderId: "o", quantity: 3 }),
        409,
        "RELEASE_EXCEEDS_RESERVATION",
        { orderId: "o", requested: 3, held: 2 }
      )
      assertAnswer(
        yield* post(`${api}/cup/release`, { orderId: "o" }),
        200,
        released(2, true, { reserved: 0, available: 5 })
      )
      assertAnswer(
        yield* post(`${api}/cup/release`, { orderId: "o" }),
        200,
        released(0, false, { reserved: 0, available: 5 })
      )
      const found = yield* get(`${api}/reservations/${textAt(reserved.body, "reservationId")}`)
      assert.strictEqual(pick(found.body, "data.status"), "CANCELLED")
    })
  )

  it.effect("answers 404 to a release of what the order never reserved, and 409 of what is sold", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* item("lid")
      yield* receive("cup", 5)
      const reserved = yield* post(`${api}/cup/reserve`, { orderId: "o", quantity: 1 })
      assertProblem(yield* post(`${api}/lid/release`, { orderId: "o" }), 404, "NOT_FOUND", { orderId: "o" })
      yield* post(`${api}/confirm`, { orderId: "o" })
      assertProblem(yield* post(`${api}/cup/release`, { orderId: "o" }), 409, "RESERVATION_CONFIRMED", {
        orderId: "o",
        reservationId: pick(reserved.body, "reservationId")
      })
    })
  )

  it.effect("RECEIPT adds, every time without a reference and once with one", () =>
    Effect.gen(function* () {
      const { adjust, item } = yield* merchant
      yield* item("cup")
      assertAnswer(
        yield* adjust("cup", "RECEIPT", 5),
        200,
        adjusted(true, { quantity: 5, available: 5, version: 1 })
      )
      assertAnswer(
        yield* adjust("cup", "RECEIPT", 5),
        200,
        adjusted(true, { quantity: 10, available: 10, version: 2 })
      )
      const reference = "https://erp.example/deliveries/7"
      assertAnswer(
        yield* adjust("cup", "RECEIPT", 1, { reference }),
        200,
        adjusted(true, { quantity: 11, available: 11, version: 3 })
      )
      assertAnswer(
        yield* adjust("cup", "RECEIPT", 1, { reference }),
        200,
        adjusted(false, { quantity: 11, available: 11, version: 3 })
      )
    })
  )

  it.effect("RECEIPT at an unknown location is refused, and into a known lot only with its expiry", () =>
    Effect.gen(function* () {
      const { adjust, item } = yield* merchant
      yield* item("milk")
      assertProblem(yield* adjust("milk", "RECEIPT", 1, { locationId: "nowhere" }), 404, "NOT_FOUND", {
        locationId: "nowhere"
      })
      const lot = { lotNumber: "L", expiresAt: "2999-01-01T00:00:00Z" }
      assert.strictEqual((yield* adjust("milk", "RECEIPT", 1, lot)).status, 200)
      assert.strictEqual((yield* adjust("milk", "RECEIPT", 1, lot)).status, 200)
      assert.strictEqual((yield* adjust("milk", "RECEIPT", 1, { lotNumber: "L" })).status, 200)
      assertProblem(
        yield* adjust("milk", "RECEIPT", 1, { ...lot, expiresAt: "2999-01-02T00:00:00Z" }),
        422,
        "LOT_MISMATCH",
        { lotNumber: "L", expiresAt: "2999-01-01T00:00:00.000Z" }
      )
    })
  )

  it.effect("SALE of a reserved order lowers quantity and hold together, and happens once", () =>
    Effect.gen(function* () {
      const { adjust, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* post(`${api}/cup/reserve`, { orderId: "o", quantity: 2 })
      assertAnswer(
        yield* adjust("cup", "SALE", 2, { orderId: "o" }),
        200,
        adjusted(true, { quantity: 3, available: 3, version: 3 })
      )
      assertAnswer(
        yield* adjust("cup", "SALE", 2, { orderId: "o" }),
        200,
        adjusted(false, { quantity: 3, available: 3, version: 3 })
      )
      const confirm = yield* post(`${api}/confirm`, { orderId: "o" })
      assert.strictEqual(pick(confirm.body, "data.confirmed"), true)
      assert.strictEqual(pick(confirm.body, "data.applied"), false)
    })
  )

  it.effect("SALE without a reservation sells what can be sold, once an order, and refuses more", () =>
    Effect.gen(function* () {
      const { adjust, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* post(`${api}/cup/reserve`, { orderId: "held", quantity: 2 })
      assertProblem(yield* adjust("cup", "SALE", 4, { orderId: "o" }), 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", requested: 4, available: 3 }]
      })
      const sold = adjusted(true, { quantity: 2, reserved: 2, available: 0, version: 3 })
      assertAnswer(yield* adjust("cup", "SALE", 3, { orderId: "o" }), 200, {
        ...sold,
        status: "OUT_OF_STOCK"
      })
      assertAnswer(yield* adjust("cup", "SALE", 3, { orderId: "o" }), 200, {
        ...sold,
        applied: false,
        status: "OUT_OF_STOCK",
        stocks: []
      })
    })
  )

  it.effect("SALE takes quantitySold as another name of quantity", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const sale = { productVariantId: "cup", changeType: "SALE" }
      assertAnswer(
        yield* post(`${api}/adjust-stock`, { ...sale, quantitySold: 2 }),
        200,
        adjusted(true, { quantity: 3, available: 3, version: 2 })
      )
      assertRefusedFields(
        yield* post(`${api}/adjust-stock`, { ...sale, quantity: 1, quantitySold: 2 }),
        "body.quantitySold"
      )
      assertRefusedFields(yield* post(`${api}/adjust-stock`, sale), "body.quantity")
      assertRefusedFields(yield* post(`${api}/adjust-stock`, { ...sale, quantity: 0 }), "body.quantity")
    })
  )

  it.effect("RETURN with an order goes back to the stocks that it was sold from", () =>
    Effect.gen(function* () {
      const { adjust, get, item, location, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* location("shop")
      yield* receive("cup", 5, { locationId: "shop", lotNumber: "L" })
      yield* reserve("o", [["cup", 3]])
      yield* post(`${api}/confirm`, { orderId: "o" })
      const answer = yield* adjust("cup", "RETURN", 2, { orderId: "o", reason: "did not fit" })
      assertAnswer(answer, 200, {
        applied: true,
        productVariantId: "cup",
        sku: null,
        quantity: 4,
        reservedQuantity: 0,
        unallocatableQuantity: 0,
        availableQuantity: 4,
        status: "IN_STOCK",
        stocks: [
          {
            stockId: uuid,
            locationId: "shop",
            lotNumber: "L",
            quantity: 4,
            reservedQuantity: 0,
            unallocatableQuantity: 0,
            version: 4
          }
        ],
        discrepancies: []
      })
      const orders = yield* get(`${api}/reservations?orderId=o`)
      assert.strictEqual(pick(orders.body, "data.0.lines.0.returned"), 2)
    })
  )

  it.effect("RETURN of more than was sold is recorded, and a discrepancy says so", () =>
    Effect.gen(function* () {
      const { adjust, get, item, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* adjust("cup", "SALE", 1, { orderId: "o" })
      const answer = yield* adjust("cup", "RETURN", 3, { orderId: "o" })
      assert.strictEqual(pick(answer.body, "quantity"), 7, answer.text)
      assertShape(pick(answer.body, "discrepancies"), [{ discrepancyId: uuid, kind: "RETURN_EXCEEDS_SALE" }])
      const found = yield* get("/v1/api/inventory/discrepancies")
      assert.deepStrictEqual(
        listAt(found.body, "data").map((each) => [pick(each, "kind"), pick(each, "detail")]),
        [["RETURN_EXCEEDS_SALE", { quantity: 2 }]]
      )
    })
  )

  it.effect("DAMAGE makes units unallocatable and leaves the quantity", () =>
    Effect.gen(function* () {
      const { adjust, item, receive } = yield* merchant
      yield* item("cup")
      assertProblem(yield* adjust("cup", "DAMAGE", 1), 404, "NOT_FOUND", { item: "cup" })
      yield* receive("cup", 5)
      assertAnswer(
        yield* adjust("cup", "DAMAGE", 2, { reason: "fell" }),
        200,
        adjusted(true, { quantity: 5, unallocatable: 2, available: 3, version: 2 })
      )
    })
  )

  it.effect("throws damaged units away, so that the rest is for sale", () =>
    Effect.gen(function* () {
      const { adjust, get, item, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 10)
      yield* adjust("cup", "DAMAGE", 2)
      assertAnswer(
        yield* adjust("cup", "WRITE_OFF", 2, { reason: "bin" }),
        200,
        adjusted(true, { quantity: 8, available: 8, version: 3 })
      )
      assertAnswer(
        yield* adjust("cup", "CORRECTION", 8),
        200,
        adjusted(true, { quantity: 8, available: 8, version: 3 })
      )
      yield* adjust("cup", "DAMAGE", 3)
      assertAnswer(
        yield* adjust("cup", "CORRECTION", 0),
        200,
        adjusted(true, { quantity: 0, available: 0, status: "OUT_OF_STOCK", version: 5 })
      )
      const open = yield* get("/v1/api/inventory/discrepancies?status=OPEN")
      assert.deepStrictEqual(pick(open.body, "data"), [])
    })
  )

  it.effect(
    "QUARANTINE takes units out of what can be sold, and UNQUARANTINE brings back what is there",
    () =>
      Effect.gen(function* () {
        const { adjust, item, receive } = yield* merchant
        yield* item("cup")
        yield* receive("cup", 5)
        assertAnswer(
          yield* adjust("cup", "QUARANTINE", 3),
          200,
          adjusted(true, { quantity: 5, unallocatable: 3, available: 2, version: 2 })
        )
        assertProblem(yield* adjust("cup", "UNQUARANTINE", 4), 409, "UNALLOCATABLE_EXCEEDED", {
          stockId: uuid,
          requested: 4,
          unallocatable: 3
        })
        assertAnswer(
          yield* adjust("cup", "UNQUARANTINE", 3),
          200,
          adjusted(true, { quantity: 5, available: 5, version: 3 })
        )
      })
  )

  it.effect("a RETURN comes back DAMAGED, and nothing else has a condition", () =>
    Effect.gen(function* () {
      const { adjust, item, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* adjust("cup", "SALE", 2, { orderId: "o" })
      assertAnswer(
        yield* adjust("cup", "RETURN", 2, { orderId: "o", condition: "DAMAGED" }),
        200,
        adjusted(true, { quantity: 5, unallocatable: 2, available: 3, version: 3 })
      )
      assertRefusedFields(yield* adjust("cup", "RECEIPT", 1, { condition: "DAMAGED" }), "body.condition")
      assertRefusedFields(yield* adjust("cup", "RETURN", 1, { condition: "LOST" }), "body.condition")
    })
  )

  it.effect("does in bulk what it does alone: quarantine, write-off, a damaged return", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 9)
      const productVariantId = "cup"
      const answer = yield* post(`${api}/bulk`, {
        mode: "continueOnFailure",
        operations: [
          { type: "quarantine", productVariantId, quantity: 4 },
          { type: "unquarantine", productVariantId, quantity: 1 },
          { type: "unquarantine", productVariantId, quantity: 9 },
          { type: "write_off", productVariantId, quantity: 2 },
          { type: "return", productVariantId, quantity: 1, condition: "DAMAGED" }
        ]
      })
      assert.strictEqual(answer.status, 200)
      assert.deepStrictEqual(
        listAt(answer.body, "results").map((row) => pick(row, "status")),
        [200, 200, 409, 200, 200]
      )
      const cup = yield* get(`${api}/cup`)
      assert.strictEqual(pick(cup.body, "locations.0.batches.0.unallocatableQuantity"), 2)
      assert.strictEqual(pick(cup.body, "quantity"), 8)
      assert.strictEqual(pick(cup.body, "availableQuantity"), 6)
    })
  )

  it.effect(
    "promises no more than there is after a sale below zero, in check, reserve, sale and every GET",
    () =>
      Effect.gen(function* () {
        const { adjust, get, item, location, merchantId, post, receive, reserve } = yield* merchant
        const { databaseUrl } = yield* Service
        yield* item("cup", { sku: `sku-${merchantId}` })
        yield* location("north")
        const messages = yield* messagesAt(Redacted.make(databaseUrl))
        yield* messages.send("payment.success", {
          merchantId,
          saleOrderId: "paid",
          items: [{ productVariantId: "cup", quantity: 3 }]
        })
        yield* messages.untilDone("payment.success")
        yield* receive("cup", 10, { lotNumber: "L", locationId: "north" })
        const cup = yield* get(`${api}/cup`)
        assert.strictEqual(pick(cup.body, "quantity"), 7)
        assert.strictEqual(pick(cup.body, "availableQuantity"), 7)
        assert.deepStrictEqual(
          listAt(cup.body, "locations").map((each) => [
            pick(each, "locationId"),
            pick(each, "quantity"),
            pick(each, "availableQuantity")
          ]),
          [
            ["default", -3, 0],
            ["north", 10, 7]
          ]
        )
        const checked = yield* post(`${api}/check-availability`, {
          items: [{ variantId: "cup", quantity: 8 }]
        })
        assert.strictEqual(pick(checked.body, "data.available"), false)
        assert.strictEqual(pick(checked.body, "data.items.0.availableQuantity"), 7)
        const [listed] = listAt((yield* get("/v1/api/inventory/product-variants")).body, "data")
        assert.strictEqual(pick(listed, "availableQuantity"), 7)
        assert.strictEqual(pick((yield* get(`/inventory/sku-${merchantId}`)).body, "availableQuantity"), 7)
        for (const locationId of [undefined, "north"]) {
          const refused = yield* reserve("o", [["cup", 8]], locationId === undefined ? {} : { locationId })
          assert.strictEqual(refused.status, 409)
          assert.strictEqual(pick(refused.body, "items.0.available"), 7)
          const unsold = yield* adjust("cup", "SALE", 8, locationId === undefined ? {} : { locationId })
          assert.strictEqual(unsold.status, 409)
        }
        assert.strictEqual((yield* reserve("o", [["cup", 7]])).status, 201)
        assert.strictEqual((yield* adjust("cup", "SALE", 1)).status, 409)
      })
  )

  it.effect("CORRECTION corrects the expiry of a lot, or says that there is none", () =>
    Effect.gen(function* () {
      const { adjust, get, item, receive } = yield* merchant
      yield* item("milk")
      const lot = { lotNumber: "L" }
      yield* receive("milk", 5, { ...lot, expiresAt: "2001-01-01T00:00:00Z" })
      const milk = Effect.map(get(`${api}/milk`), ({ body }) => [
        pick(body, "availableQuantity"),
        pick(body, "locations.0.batches.0.expiresAt")
      ])
      assert.deepStrictEqual(yield* milk, [0, "2001-01-01T00:00:00.000Z"])
      const right = "2999-01-01T00:00:00.000Z"
      const refused = yield* adjust("milk", "RECEIPT", 1, { ...lot, expiresAt: right })
      assertProblem(refused, 422, "LOT_MISMATCH", { lotNumber: "L", expiresAt: "2001-01-01T00:00:00.000Z" })
      assert.include(String(pick(refused.body, "detail")), "CORRECTION with expiresAt")
      const corrected = yield* adjust("milk", "CORRECTION", 5, { ...lot, expiresAt: right })
      assert.strictEqual(pick(corrected.body, "availableQuantity"), 5)
      assert.strictEqual(pick(corrected.body, "status"), "IN_STOCK")
      assert.deepStrictEqual(yield* milk, [5, right])
      assert.strictEqual((yield* adjust("milk", "RECEIPT", 1, { ...lot, expiresAt: right })).status, 200)
      assert.strictEqual((yield* adjust("milk", "CORRECTION", 6, { ...lot, expiresAt: null })).status, 200)
      assert.deepStrictEqual(yield* milk, [6, null])
      assertRefusedFields(yield* adjust("milk", "RECEIPT", 1, { ...lot, expiresAt: null }), "body.expiresAt")
      assertRefusedFields(yield* adjust("milk", "DAMAGE", 1, { ...lot, expiresAt: right }), "body.expiresAt")
    })
  )

  it.effect("CORRECTION sets the counted quantity of the one stock that is meant", () =>
    Effect.gen(function* () {
      const { adjust, item, location } = yield* merchant
      yield* item("cup")
      assertAnswer(
        yield* adjust("cup", "CORRECTION", 4),
        200,
        adjusted(true, { quantity: 4, available: 4, version: 1 })
      )
      assertAnswer(
        yield* adjust("cup", "CORRECTION", 0),
        200,
        adjusted(true, { quantity: 0, available: 0, status: "OUT_OF_STOCK", version: 2 })
      )
      yield* location("shop")
      yield* adjust("cup", "CORRECTION", 3, { locationId: "shop" })
      const answer = yield* adjust("cup", "CORRECTION", 1)
      assertProblem(answer, 422, "AMBIGUOUS_STOCK", { stocks: pick(answer.body, "stocks") })
      assert.sameDeepMembers(
        listAt(answer.body, "stocks").map((stock) => pick(stock, "locationId")) as Array<unknown>,
        ["default", "shop"]
      )
      for (const stock of listAt(answer.body, "stocks")) {
        assertShape(stock, { stockId: uuid, locationId: pick(stock, "locationId"), lotNumber: null })
      }
      assert.strictEqual((yield* adjust("cup", "CORRECTION", 1, { locationId: "shop" })).status, 200)
    })
  )

  it.effect("expectedVersion makes an adjustment compare-and-set", () =>
    Effect.gen(function* () {
      const { adjust, get, item, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const version = pick((yield* get(`${api}/cup`)).body, "locations.0.batches.0.version")
      assert.strictEqual(version, 1)
      assert.strictEqual((yield* adjust("cup", "CORRECTION", 9, { expectedVersion: 1 })).status, 200)
      for (const changeType of ["CORRECTION", "DAMAGE", "RECEIPT", "SALE", "RETURN"]) {
        assertProblem(yield* adjust("cup", changeType, 1, { expectedVersion: 1 }), 409, "VERSION_MISMATCH", {
          expected: 1,
          actual: 2,
          quantity: 9
        })
      }
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 9)
    })
  )

  it.effect("follows a threshold with its status", () =>
    Effect.gen(function* () {
      const { adjust, item } = yield* merchant
      yield* item("cup", { lowStockThreshold: 3 })
      const status = (changeType: string, quantity: number) =>
        Effect.map(adjust("cup", changeType, quantity), ({ body }) => pick(body, "status"))
      assert.strictEqual(yield* status("RECEIPT", 4), "IN_STOCK")
      assert.strictEqual(yield* status("SALE", 1), "LOW_STOCK")
      assert.strictEqual(yield* status("SALE", 3), "OUT_OF_STOCK")
      assert.strictEqual(yield* status("RETURN", 1), "LOW_STOCK")
    })
  )

  it.effect("refuses a balance past 2^53−1 with 422, and takes one that just reaches it", () =>
    Effect.gen(function* () {
      const { adjust, get, item, merchantId, receive } = yield* merchant
      yield* item("sand")
      yield* receive("sand", 1)
      // By receipts it would take 9,007 of the largest.
      const sql = yield* connect(Redacted.make((yield* Service).databaseUrl))
      for (const statement of [
        "UPDATE stock SET on_hand = 9007199254740000 WHERE merchant_id = $1",
        "UPDATE item SET on_hand = 9007199254740000 WHERE merchant_id = $1"
      ]) {
        yield* sql.run(statement, [parameter("text", merchantId)])
      }
      assertProblem(yield* adjust("sand", "RECEIPT", 992), 422, "BALANCE_OVERFLOW", { stockId: uuid })
      assert.strictEqual((yield* adjust("sand", "RECEIPT", 991)).status, 200)
      assert.strictEqual(pick((yield* get(`${api}/sand`)).body, "quantity"), Number.MAX_SAFE_INTEGER)
      assertProblem(yield* adjust("sand", "RECEIPT", 1), 422, "BALANCE_OVERFLOW", { stockId: uuid })
    })
  )

  it.effect("lists the movements newest first, field by field", () =>
    Effect.gen(function* () {
      const { adjust, get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5, {
        reference: "https://erp.example/7",
        reason: "delivery",
        occurredAt: "2020-01-01T00:00:00Z"
      })
      const reservationId = textAt((yield* reserve("o", [["cup", 2]])).body, "data.reservationId")
      yield* post(`${api}/confirm`, { orderId: "o" })
      yield* adjust("cup", "DAMAGE", 1)
      const answer = yield* get(`${api}/cup/ledger`)
      const base = {
        stockId: uuid,
        locationId: "default",
        lotNumber: null,
        orderId: null,
        reservationId: null,
        reference: null,
        reason: null,
        actor: "tester",
        occurredAt: null,
        recordedAt: moment
      }
      assertAnswer(answer, 200, {
        data: [
          {
            ...base,
            sequence: 4,
            type: "ADJUSTMENT",
            source: "MANUAL_ADJUSTMENT",
            onHandDelta: 0,
            reservedDelta: 0,
            unallocatableDelta: 1,
            onHand: 3,
            reserved: 0,
            unallocatable: 1
          },
          {
            ...base,
            sequence: 3,
            type: "SALE",
            source: "ORDER",
            orderId: "o",
            reservationId,
            onHandDelta: -2,
            reservedDelta: -2,
            unallocatableDelta: 0,
            onHand: 3,
            reserved: 0,
            unallocatable: 0
          },
          {
            ...base,
            sequence: 2,
            type: "ORDER_ALLOCATE",
            source: "ORDER",
            orderId: "o",
            reservationId,
            onHandDelta: 0,
            reservedDelta: 2,
            unallocatableDelta: 0,
            onHand: 5,
            reserved: 2,
            unallocatable: 0
          },
          {
            ...base,
            sequence: 1,
            type: "RECEIPT",
            source: "MANUAL_ADJUSTMENT",
            reference: "https://erp.example/7",
            reason: "delivery",
            occurredAt: "2020-01-01T00:00:00.000Z",
            onHandDelta: 5,
            reservedDelta: 0,
            unallocatableDelta: 0,
            onHand: 5,
            reserved: 0,
            unallocatable: 0
          }
        ],
        nextCursor: null
      })
    })
  )

  it.effect("pages through the movements of several stocks without losing or repeating one", () =>
    Effect.gen(function* () {
      const { get, item, location, receive } = yield* merchant
      yield* item("cup")
      yield* location("shop")
      yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) => receive("cup", 1, index % 2 === 0 ? {} : { locationId: "shop" }),
        { concurrency: "unbounded" }
      )
      const seen: Array<string> = []
      let cursor: string | null = ""
      while (cursor !== null) {
        const query: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`
        const page = yield* get(`${api}/cup/ledger?limit=7${query}`)
        seen.push(...listAt(page.body, "data").map(key))
        cursor = pick(page.body, "nextCursor") as string | null
      }
      assert.strictEqual(seen.length, 40)
      assert.strictEqual(new Set(seen).size, 40)
      const all = yield* get(`${api}/cup/ledger?limit=200`)
      assert.deepStrictEqual(listAt(all.body, "data").map(key), seen)
    })
  )

  it.effect("refuses times that do not exist", () =>
    Effect.gen(function* () {
      const { adjust, item } = yield* merchant
      yield* item("cup")
      for (const time of [
        "2030-02-30T00:00:00Z",
        "2030-13-01T00:00:00Z",
        "2030-01-01T24:00:00Z",
        "2030-01-01T00:00:00",
        "2030-01-01",
        "yesterday",
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00+14:00"
      ]) {
        assertRefusedFields(yield* adjust("cup", "RECEIPT", 1, { occurredAt: time }), "body.occurredAt")
        assertRefusedFields(
          yield* adjust("cup", "RECEIPT", 1, { lotNumber: "L", expiresAt: time }),
          "body.expiresAt"
        )
      }
      const leap = yield* adjust("cup", "RECEIPT", 1, { occurredAt: "2028-02-29T23:59:59.999999999+05:30" })
      assert.strictEqual(leap.status, 200, leap.text)
    })
  )

  it.effect("stops selling a lot once it has expired, without anybody writing it down", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("milk")
      yield* receive("milk", 2, { lotNumber: "L", expiresAt: new Date(Date.now() + 700).toISOString() })
      yield* receive("milk", 1, { lotNumber: "M" })
      yield* eventually(get(`${api}/milk`), ({ body }) => pick(body, "availableQuantity") === 1)
      assertProblem(
        yield* post(`${api}/milk/reserve`, { orderId: "o", quantity: 2 }),
        409,
        "INSUFFICIENT_INVENTORY",
        { items: [{ productVariantId: "milk", requested: 2, available: 1 }] }
      )
      assert.strictEqual(pick((yield* get(`${api}/milk`)).body, "quantity"), 3)
    })
  )
})
