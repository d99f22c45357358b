import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Service, eventually, fresh, merchant } from "../support/service.ts"
import {
  assertAnswer,
  assertEnvelope,
  assertProblem,
  assertShape,
  listAt,
  moment,
  pick,
  textAt,
  uuid
} from "../support/shape.ts"

/** The orders contract (CONTRACTS 4.1) against the running program. */

const api = "/api/v1/inventory"

const cups = (quantity: number) => ({ productId: "p", variantId: "cup", quantity })
const ordersOf = (body: unknown) => listAt(body, "data").map((each) => pick(each, "orderId"))

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("orders contract", (it) => {
  it.effect("tells line by line whether the items could be reserved", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const answer = yield* post(`${api}/check-availability`, {
        items: [
          { productId: "p1", variantId: "cup", quantity: 5 },
          { variantId: "unknown", quantity: 1 }
        ]
      })
      assertEnvelope(answer, 200, {
        available: false,
        items: [
          { productId: "p1", variantId: "cup", available: true, requestedQuantity: 5, availableQuantity: 5 },
          { variantId: "unknown", available: false, requestedQuantity: 1, availableQuantity: 0 }
        ]
      })
      const enough = yield* post(`${api}/check-availability`, { items: [{ variantId: "cup", quantity: 5 }] })
      assert.strictEqual(pick(enough.body, "data.available"), true)
    })
  )

  it.effect("checks lines of the same variant together, as they would be reserved", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const line = { variantId: "cup", quantity: 3 }
      const answer = yield* post(`${api}/check-availability`, { items: [line, line] })
      const told = { variantId: "cup", available: false, requestedQuantity: 3, availableQuantity: 5 }
      assertEnvelope(answer, 200, { available: false, items: [told, told] })
    })
  )

  it.effect("holds nothing for a check", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* post(`${api}/check-availability`, { items: [{ variantId: "cup", quantity: 5 }] })
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "availableQuantity"), 5)
    })
  )

  it.effect("reserves with 201 and tells what is held until when", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* item("lid")
      yield* receive("cup", 5)
      yield* receive("lid", 5)
      const orderId = fresh("order")
      const answer = yield* post(`${api}/reserve`, {
        orderId,
        items: [
          { productId: "p1", variantId: "cup", quantity: 2 },
          { variantId: "lid", quantity: 1 }
        ]
      })
      assertEnvelope(answer, 201, {
        reservationId: uuid,
        orderId,
        status: "PENDING",
        applied: true,
        items: [
          { productId: "p1", variantId: "cup", quantity: 2, reserved: true },
          { variantId: "lid", quantity: 1, reserved: true }
        ],
        allocations: [
          { variantId: "cup", stockId: uuid, locationId: "default", lotNumber: null, quantity: 2 },
          { variantId: "lid", stockId: uuid, locationId: "default", lotNumber: null, quantity: 1 }
        ],
        expiresAt: moment
      })
      const at = Date.parse(textAt(answer.body, "meta.timestamp"))
      assert.strictEqual(Date.parse(textAt(answer.body, "data.expiresAt")) - at, 1_800_000)
      assertShape(pick((yield* get(`${api}/cup`)).body, "reservedQuantity"), 2)
    })
  )

  it.effect("holds for as long as expiresIn says", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 1)
      const { body } = yield* reserve("o", [["cup", 1]], { expiresIn: 604_800 })
      const at = Date.parse(textAt(body, "meta.timestamp"))
      assert.strictEqual(Date.parse(textAt(body, "data.expiresAt")) - at, 604_800_000)
    })
  )

  it.effect("refuses all lines when one is short, and names every short one", () =>
    Effect.gen(function* () {
      const { get, item, receive, reserve } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* item("lid")
      yield* item("jug")
      yield* receive("cup", 1)
      yield* receive("lid", 9)
      const answer = yield* reserve("o", [
        ["cup", 2],
        ["lid", 1],
        ["jug", 3]
      ])
      assertProblem(answer, 409, "INSUFFICIENT_INVENTORY", { items: pick(answer.body, "items") })
      const short = listAt(answer.body, "items") as ReadonlyArray<{ productVariantId: string }>
      assert.sameDeepMembers([...short], [
        { productVariantId: "cup", sku: "CUP", requested: 2, available: 1 },
        { productVariantId: "jug", requested: 3, available: 0 }
      ] as never)
      assert.strictEqual(pick((yield* get(`${api}/lid`)).body, "reservedQuantity"), 0)
      assert.deepStrictEqual(pick((yield* get(`${api}/reservations`)).body, "data"), [])
    })
  )

  it.effect("sums lines for the same item before it looks at the stock", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const short = yield* reserve("o", [
        ["cup", 3],
        ["cup", 3]
      ])
      assertProblem(short, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", requested: 6, available: 5 }]
      })
      const most = 1_000_000_000_000
      const summed = yield* reserve("o", [
        ["cup", most],
        ["cup", most]
      ])
      assertProblem(summed, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", requested: 2 * most, available: 5 }]
      })
    })
  )

  it.effect("names more than one movement may carry where that much is there", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      const most = 1_000_000_000_000
      yield* item("grain")
      yield* receive("grain", most)
      yield* receive("grain", most)
      assert.strictEqual(pick((yield* get(`${api}/grain`)).body, "availableQuantity"), 2 * most)
      const short = yield* reserve("o", [
        ["grain", most],
        ["grain", most],
        ["grain", most]
      ])
      assertProblem(short, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "grain", requested: 3 * most, available: 2 * most }]
      })
      yield* reserve("o", [
        ["grain", most],
        ["grain", most]
      ])
      const all = yield* post(`${api}/grain/release`, { orderId: "o" })
      assert.strictEqual(pick(all.body, "releasedQuantity"), 2 * most, all.text)
    })
  )

  it.effect("refuses unknown variants with 422, naming them", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const answer = yield* reserve("o", [
        ["cup", 1],
        ["nowhere", 1]
      ])
      assertProblem(answer, 422, "RESERVATION_FAILED", { reason: "UNKNOWN_ITEM", items: ["nowhere"] })
    })
  )

  it.effect("repeats a reservation of the same items with 200, in whatever order they come", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* item("lid")
      yield* receive("cup", 5)
      yield* receive("lid", 5)
      const first = yield* reserve("o", [
        ["cup", 2],
        ["lid", 1]
      ])
      const again = yield* reserve("o", [
        ["lid", 1],
        ["cup", 1],
        ["cup", 1]
      ])
      assertEnvelope(again, 200, {
        reservationId: pick(first.body, "data.reservationId"),
        orderId: "o",
        status: "PENDING",
        applied: false,
        items: [
          { variantId: "lid", quantity: 1, reserved: true },
          { variantId: "cup", quantity: 1, reserved: true },
          { variantId: "cup", quantity: 1, reserved: true }
        ],
        allocations: pick(first.body, "data.allocations"),
        expiresAt: pick(first.body, "data.expiresAt")
      })
    })
  )

  it.effect("refuses other items for an order that is reserved", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const first = yield* reserve("o", [["cup", 2]])
      assertProblem(yield* reserve("o", [["cup", 3]]), 422, "RESERVATION_FAILED", {
        reason: "OTHER_ITEMS",
        reservationId: pick(first.body, "data.reservationId")
      })
    })
  )

  it.effect("takes from the given location and nowhere else", () =>
    Effect.gen(function* () {
      const { item, location, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* location("shop")
      yield* receive("cup", 5)
      yield* receive("cup", 2, { locationId: "shop" })
      assertProblem(
        yield* reserve("o1", [["cup", 3]], { locationId: "shop" }),
        409,
        "INSUFFICIENT_INVENTORY",
        {
          items: [{ productVariantId: "cup", requested: 3, available: 2 }]
        }
      )
      assert.strictEqual((yield* reserve("o2", [["cup", 2]], { locationId: "shop" })).status, 201)
      assertProblem(yield* reserve("o3", [["cup", 1]], { locationId: "nowhere" }), 404, "NOT_FOUND", {
        locationId: "nowhere"
      })
    })
  )

  it.effect("splits over the other locations what the default one cannot fill, in order of creation", () =>
    Effect.gen(function* () {
      const { get, item, location, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* location("second")
      yield* location("third")
      yield* receive("cup", 2)
      yield* receive("cup", 2, { locationId: "third" })
      yield* receive("cup", 2, { locationId: "second" })
      const { body } = yield* reserve("o", [["cup", 5]])
      const found = yield* get(`${api}/reservations/${textAt(body, "data.reservationId")}`)
      assert.deepStrictEqual(
        (listAt(found.body, "data.lines") as ReadonlyArray<unknown>).map((line) => [
          pick(line, "allocation.locationId"),
          pick(line, "quantity")
        ]),
        [
          ["default", 2],
          ["second", 2],
          ["third", 1]
        ]
      )
    })
  )

  it.effect("takes what expires first, and nothing of a lot past its expiry", () =>
    Effect.gen(function* () {
      const { get, item, receive, reserve } = yield* merchant
      yield* item("milk")
      yield* receive("milk", 2, { lotNumber: "none" })
      yield* receive("milk", 2, { lotNumber: "late", expiresAt: "2999-01-01T00:00:00Z" })
      yield* receive("milk", 2, { lotNumber: "soon", expiresAt: "2998-01-01T00:00:00Z" })
      yield* receive("milk", 9, { lotNumber: "past", expiresAt: "2001-01-01T00:00:00Z" })
      const { body } = yield* reserve("o", [["milk", 5]])
      const found = yield* get(`${api}/reservations/${textAt(body, "data.reservationId")}`)
      assert.deepStrictEqual(
        listAt(found.body, "data.lines").map((line) => [
          pick(line, "allocation.lotNumber"),
          pick(line, "quantity")
        ]),
        [
          ["soon", 2],
          ["late", 2],
          ["none", 1]
        ]
      )
      assertProblem(yield* reserve("o2", [["milk", 2]]), 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "milk", requested: 2, available: 1 }]
      })
    })
  )

  it.effect("sells an item that is not stocked without moving stock", () =>
    Effect.gen(function* () {
      const { get, item, post, reserve } = yield* merchant
      yield* item("latte", { stocked: false })
      const check = yield* post(`${api}/check-availability`, {
        items: [{ variantId: "latte", quantity: 7 }]
      })
      assert.strictEqual(pick(check.body, "data.available"), true)
      const { body, status } = yield* reserve("o", [["latte", 7]])
      assert.strictEqual(status, 201)
      const found = yield* get(`${api}/reservations/${textAt(body, "data.reservationId")}`)
      assert.strictEqual(pick(found.body, "data.lines.0.allocation"), null)
      assert.strictEqual((yield* post(`${api}/confirm`, { orderId: "o" })).status, 200)
      assertShape(pick((yield* get(`${api}/latte`)).body, "quantity"), 0)
    })
  )

  it.effect("releases once, and says that it was released before", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("o", [["cup", 2]])
      assertEnvelope(yield* post(`${api}/release`, { orderId: "o" }), 200, {
        orderId: "o",
        released: true,
        applied: true
      })
      assertEnvelope(yield* post(`${api}/release`, { orderId: "o" }), 200, {
        orderId: "o",
        released: true,
        applied: false
      })
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "availableQuantity"), 5)
    })
  )

  it.effect("answers 404 to release, confirm and extend of an order that was never seen", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const members = { orderId: "never" }
      assertProblem(yield* post(`${api}/release`, { orderId: "never" }), 404, "NOT_FOUND", members)
      assertProblem(yield* post(`${api}/confirm`, { orderId: "never" }), 404, "NOT_FOUND", members)
      assertProblem(
        yield* post(`${api}/extend`, { orderId: "never", expiresIn: 60 }),
        404,
        "NOT_FOUND",
        members
      )
    })
  )

  it.effect("does not release what is confirmed", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const { body } = yield* reserve("o", [["cup", 2]])
      yield* post(`${api}/confirm`, { orderId: "o" })
      assertProblem(yield* post(`${api}/release`, { orderId: "o" }), 409, "RESERVATION_CONFIRMED", {
        orderId: "o",
        reservationId: pick(body, "data.reservationId")
      })
    })
  )

  it.effect("reserves anew after a release", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const first = yield* reserve("o", [["cup", 2]])
      yield* post(`${api}/release`, { orderId: "o" })
      const second = yield* reserve("o", [["cup", 4]])
      assert.strictEqual(second.status, 201)
      assert.notStrictEqual(pick(first.body, "data.reservationId"), pick(second.body, "data.reservationId"))
    })
  )

  it.effect("confirms once: stock and hold go down together", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reservationId = textAt((yield* reserve("o", [["cup", 2]])).body, "data.reservationId")
      assertEnvelope(yield* post(`${api}/confirm`, { orderId: "o", reservationId }), 200, {
        orderId: "o",
        reservationId,
        confirmed: true,
        applied: true,
        status: "CONFIRMED"
      })
      assertEnvelope(yield* post(`${api}/confirm`, { orderId: "o" }), 200, {
        orderId: "o",
        reservationId,
        confirmed: true,
        applied: false,
        status: "CONFIRMED"
      })
      const { body } = yield* get(`${api}/cup`)
      assert.deepStrictEqual(
        ["quantity", "reservedQuantity", "availableQuantity"].map((name) => pick(body, name)),
        [3, 0, 3]
      )
      const again = yield* reserve("o", [["cup", 2]])
      assert.strictEqual(again.status, 200)
      assert.strictEqual(pick(again.body, "data.reservationId"), reservationId)
      assert.strictEqual(pick(again.body, "data.status"), "CONFIRMED")
      assert.strictEqual(pick(again.body, "data.applied"), false)
    })
  )

  it.effect("confirms a part: that is sold, and the rest stays PENDING", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reservationId = textAt((yield* reserve("o", [["cup", 3]])).body, "data.reservationId")
      const part = { orderId: "o", items: [{ variantId: "cup", quantity: 2 }] }
      const sold = { orderId: "o", reservationId, confirmed: true, applied: true }
      assertEnvelope(yield* post(`${api}/confirm`, part), 200, { ...sold, status: "PENDING" })
      assertShape(pick((yield* get(`${api}/cup`)).body, "reservedQuantity"), 1)
      assertProblem(yield* post(`${api}/confirm`, part), 409, "CONFIRM_EXCEEDS_RESERVATION", {
        orderId: "o",
        items: [{ productVariantId: "cup", requested: 2, available: 1 }]
      })
      const unknown = { orderId: "o", items: [{ variantId: "jug", quantity: 1 }] }
      assertProblem(yield* post(`${api}/confirm`, unknown), 422, "RESERVATION_FAILED", {
        reason: "UNKNOWN_ITEM",
        items: ["jug"]
      })
      assertEnvelope(yield* post(`${api}/confirm`, { orderId: "o" }), 200, { ...sold, status: "CONFIRMED" })
    })
  )

  it.effect("amends what is held in one step, or changes nothing", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* item("jug")
      yield* receive("cup", 5)
      yield* receive("jug", 1)
      const amend = (items: ReadonlyArray<object>, given: object = {}) =>
        post(`${api}/amend`, { orderId: "o", items, ...given })
      assertProblem(yield* amend([cups(1)]), 404, "NOT_FOUND", { orderId: "o" })
      const reservationId = textAt((yield* reserve("o", [["cup", 3]])).body, "data.reservationId")
      const amended = (quantity: number, applied: boolean) => ({
        reservationId,
        orderId: "o",
        status: "PENDING",
        applied,
        items: [{ ...cups(quantity), reserved: true }],
        allocations: [{ variantId: "cup", stockId: uuid, locationId: "default", lotNumber: null, quantity }],
        expiresAt: moment
      })
      assertEnvelope(yield* amend([cups(2)]), 200, amended(2, true))
      assertEnvelope(yield* amend([cups(2)]), 200, amended(2, false))
      const short = yield* amend([cups(6), { variantId: "jug", quantity: 1 }])
      assertProblem(short, 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", requested: 6, available: 5 }]
      })
      assertShape(pick((yield* get(`${api}/jug`)).body, "reservedQuantity"), 0)
      assertShape(pick((yield* get(`${api}/cup`)).body, "reservedQuantity"), 2)
      assertProblem(yield* amend([{ variantId: "mug", quantity: 1 }]), 422, "RESERVATION_FAILED", {
        reason: "UNKNOWN_ITEM",
        items: ["mug"]
      })
      const other = yield* reserve("o", [["cup", 4]])
      assertProblem(other, 422, "RESERVATION_FAILED", { reason: "OTHER_ITEMS", reservationId })
      assert.include(textAt(other.body, "detail"), "/amend")
      yield* post(`${api}/confirm`, { orderId: "o" })
      assertProblem(yield* amend([cups(2)]), 409, "RESERVATION_CONFIRMED", { orderId: "o", reservationId })
    })
  )

  it.effect("compares a repeat with what the order holds now, not with what it once asked for", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 3)
      const reservationId = textAt((yield* reserve("o", [["cup", 3]])).body, "data.reservationId")
      yield* post(`${api}/cup/release`, { orderId: "o", quantity: 1 })
      assert.strictEqual((yield* reserve("other", [["cup", 1]])).status, 201)
      assertProblem(yield* reserve("o", [["cup", 3]]), 422, "RESERVATION_FAILED", {
        reason: "OTHER_ITEMS",
        reservationId
      })
      const again = yield* reserve("o", [["cup", 2]])
      assert.strictEqual(again.status, 200)
      assert.strictEqual(pick(again.body, "data.applied"), false)
    })
  )

  it.effect("takes each line from its own location and lot, and says so", () =>
    Effect.gen(function* () {
      const { adjust, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      assert.strictEqual((yield* post("/v1/api/inventory/locations", { locationId: "north" })).status, 201)
      yield* adjust("cup", "RECEIPT", 5, { locationId: "north", lotNumber: "L1" })
      const answer = yield* post(`${api}/reserve`, {
        orderId: "o",
        items: [
          { variantId: "cup", quantity: 1 },
          { variantId: "cup", quantity: 2, locationId: "north", lotNumber: "L1" }
        ]
      })
      assert.strictEqual(answer.status, 201, answer.text)
      const allocations = listAt(answer.body, "data.allocations").map((each) =>
        ["locationId", "lotNumber", "quantity"].map((name) => pick(each, name))
      )
      assert.sameDeepMembers(allocations, [
        ["default", null, 1],
        ["north", "L1", 2]
      ])
    })
  )

  it.effect("does not confirm by the reservation id of another order", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("o1", [["cup", 1]])
      const reservationId = textAt((yield* reserve("o2", [["cup", 1]])).body, "data.reservationId")
      assertProblem(yield* post(`${api}/confirm`, { orderId: "o1", reservationId }), 404, "NOT_FOUND", {
        orderId: "o1",
        reservationId
      })
    })
  )

  it.effect("does not confirm or extend what was released", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reservationId = textAt((yield* reserve("o", [["cup", 2]])).body, "data.reservationId")
      yield* post(`${api}/release`, { orderId: "o" })
      const members = { orderId: "o", reservationId }
      assertProblem(yield* post(`${api}/confirm`, { orderId: "o" }), 409, "RESERVATION_CANCELLED", members)
      assertProblem(
        yield* post(`${api}/extend`, { orderId: "o", expiresIn: 60 }),
        409,
        "RESERVATION_CANCELLED",
        members
      )
    })
  )

  it.effect("extends from now, and only what is pending", () =>
    Effect.gen(function* () {
      const { item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reservationId = textAt((yield* reserve("o", [["cup", 2]])).body, "data.reservationId")
      const extended = yield* post(`${api}/extend`, { orderId: "o", expiresIn: 60 })
      assertEnvelope(extended, 200, { orderId: "o", reservationId, expiresAt: moment })
      const at = Date.parse(textAt(extended.body, "meta.timestamp"))
      assert.strictEqual(Date.parse(textAt(extended.body, "data.expiresAt")) - at, 60_000)
      yield* post(`${api}/confirm`, { orderId: "o" })
      assertProblem(
        yield* post(`${api}/extend`, { orderId: "o", expiresIn: 60 }),
        409,
        "RESERVATION_CONFIRMED",
        {
          orderId: "o",
          reservationId
        }
      )
    })
  )

  it.effect("expires by itself, gives the stock back, and is confirmed later only from what is there", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 2)
      const reserved = yield* reserve("o", [["cup", 2]], { expiresIn: 1 })
      const reservationId = textAt(reserved.body, "data.reservationId")
      const expired = yield* eventually(
        get(`${api}/reservations/${reservationId}`),
        ({ body }) => pick(body, "data.status") === "EXPIRED"
      )
      assertShape(pick(expired.body, "data.lines.0.released"), 2)
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "availableQuantity"), 2)
      const extend = yield* post(`${api}/extend`, { orderId: "o", expiresIn: 60 })
      assertProblem(extend, 409, "RESERVATION_EXPIRED", { orderId: "o", reservationId, items: [] })

      yield* reserve("other", [["cup", 1]])
      assertProblem(yield* post(`${api}/confirm`, { orderId: "o" }), 409, "RESERVATION_EXPIRED", {
        orderId: "o",
        reservationId,
        items: [{ productVariantId: "cup", requested: 2, available: 1 }]
      })
      yield* post(`${api}/release`, { orderId: "other" })
      assertEnvelope(yield* post(`${api}/confirm`, { orderId: "o" }), 200, {
        orderId: "o",
        reservationId,
        confirmed: true,
        applied: true,
        status: "CONFIRMED"
      })
    })
  )

  it.effect("shows a reservation with its lines and allocations", () =>
    Effect.gen(function* () {
      const { get, item, receive, reserve } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 5, { lotNumber: "L1" })
      const metadata = { channel: "web", nested: { list: [1, "two", null, true, 1.5] }, "": "\u0000\ud800" }
      const reserved = yield* reserve("o", [["cup", 2]], { metadata })
      const reservationId = textAt(reserved.body, "data.reservationId")
      const view = {
        reservationId,
        orderId: "o",
        status: "PENDING",
        expiresAt: pick(reserved.body, "data.expiresAt"),
        createdAt: moment,
        updatedAt: moment,
        metadata,
        lines: [
          {
            itemId: uuid,
            variantId: "cup",
            sku: "CUP",
            quantity: 2,
            open: 2,
            sold: 0,
            released: 0,
            returned: 0,
            allocation: { stockId: uuid, locationId: "default", lotNumber: "L1" }
          }
        ]
      }
      assertEnvelope(yield* get(`${api}/reservations/${reservationId}`), 200, view)
      assertAnswer(yield* get(`${api}/reservations?orderId=o`), 200, {
        success: true,
        data: [view],
        nextCursor: null,
        meta: { timestamp: moment }
      })
    })
  )

  it.effect("answers 404 to a reservation id that does not exist", () =>
    Effect.gen(function* () {
      const { get } = yield* merchant
      const reservationId = "00000000-0000-7000-8000-000000000000"
      assertProblem(yield* get(`${api}/reservations/${reservationId}`), 404, "NOT_FOUND", { reservationId })
    })
  )

  it.effect("lists reservations newest first, by order and status, page by page", () =>
    Effect.gen(function* () {
      const { get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 9)
      for (const orderId of ["o1", "o2", "o3"]) yield* reserve(orderId, [["cup", 1]])
      yield* post(`${api}/release`, { orderId: "o2" })
      assert.deepStrictEqual(ordersOf((yield* get(`${api}/reservations`)).body), ["o3", "o2", "o1"])
      assert.deepStrictEqual(ordersOf((yield* get(`${api}/reservations?status=PENDING`)).body), ["o3", "o1"])
      assert.deepStrictEqual(ordersOf((yield* get(`${api}/reservations?status=CANCELLED`)).body), ["o2"])
      assert.deepStrictEqual(ordersOf((yield* get(`${api}/reservations?orderId=o1`)).body), ["o1"])
      assert.deepStrictEqual(ordersOf((yield* get(`${api}/reservations?orderId=none`)).body), [])
      const first = yield* get(`${api}/reservations?limit=2`)
      assert.deepStrictEqual(ordersOf(first.body), ["o3", "o2"])
      const cursor = encodeURIComponent(textAt(first.body, "nextCursor"))
      const second = yield* get(`${api}/reservations?limit=2&cursor=${cursor}`)
      assert.deepStrictEqual(ordersOf(second.body), ["o1"])
      assert.strictEqual(pick(second.body, "nextCursor"), null)
    })
  )

  it.effect("sells exactly the stock to many who want the last units", () =>
    Effect.gen(function* () {
      const { get, item, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 7)
      const answers = yield* Effect.forEach(
        Array.from({ length: 30 }, (_, index) => `o${index}`),
        (orderId) => reserve(orderId, [["cup", 1]]),
        { concurrency: "unbounded" }
      )
      const statuses = answers.map(({ status }) => status)
      assert.strictEqual(statuses.filter((status) => status === 201).length, 7)
      assert.strictEqual(statuses.filter((status) => status === 409).length, 23)
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "availableQuantity"), 0)
    })
  )
})
