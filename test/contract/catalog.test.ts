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

/** The contract of the point-of-sale suite (CONTRACTS 4.4) against the running program. */

const api = "/v1/api/inventory"

const itemView = (change: Readonly<Record<string, unknown>>) => ({
  itemId: uuid,
  productVariantId: null,
  sku: null,
  productId: null,
  name: null,
  unit: "each",
  stocked: true,
  lowStockThreshold: 0,
  safetyStock: 0,
  safetyStockShortfall: 0,
  countTolerance: 0,
  status: "AWAITING_INITIAL_STOCK",
  quantity: 0,
  reservedQuantity: 0,
  unallocatableQuantity: 0,
  availableQuantity: 0,
  createdAt: moment,
  updatedAt: moment,
  ...change
})

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("catalog contract", (it) => {
  it.effect("stocks an item with 201, and tells it again with 200", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const attributes = {
        productVariantId: "cup",
        sku: "CUP",
        name: "Espresso cup",
        productId: "p1",
        stocked: true,
        lowStockThreshold: 3,
        safetyStock: 1
      }
      const created = yield* post(`${api}/product-variants`, attributes)
      assertAnswer(created, 201, itemView({ ...attributes, safetyStockShortfall: 1 }))
      assertAnswer(yield* post(`${api}/product-variants`, attributes), 200, created.body)
    })
  )

  it.effect("needs a product variant id or a sku, and takes either", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      assertRefusedFields(yield* post(`${api}/product-variants`, { name: "n" }), "body.productVariantId")
      assertAnswer(yield* post(`${api}/product-variants`, { sku: "ONLY" }), 201, itemView({ sku: "ONLY" }))
      assertAnswer(
        yield* post(`${api}/product-variants`, { productVariantId: "only" }),
        201,
        itemView({ productVariantId: "only" })
      )
    })
  )

  it.effect("adopts an item that was known by its sku alone, with its stock", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const bySku = yield* post(`${api}/product-variants`, { sku: "CUP", name: "Cup" })
      const adopted = yield* post(`${api}/product-variants`, { sku: "CUP", productVariantId: "cup" })
      assertAnswer(
        adopted,
        200,
        itemView({ itemId: pick(bySku.body, "itemId"), sku: "CUP", productVariantId: "cup", name: "Cup" })
      )
    })
  )

  it.effect("refuses a sku that is another item's", () =>
    Effect.gen(function* () {
      const { get, item, patch, post } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* item("lid", { sku: "LID" })
      const members = { productVariantId: "lid", sku: "CUP" }
      assertProblem(
        yield* post(`${api}/product-variants`, { ...members, name: "changed" }),
        409,
        "ITEM_CONFLICT",
        members
      )
      assertProblem(
        yield* patch(`${api}/product-variants/lid`, { sku: "CUP", name: "changed" }),
        409,
        "ITEM_CONFLICT",
        members
      )
      const { body } = yield* get(`${api}/product-variants?search=lid`)
      assert.strictEqual(pick(body, "data.0.name"), null)
    })
  )

  it.effect("changes what is given and leaves the rest", () =>
    Effect.gen(function* () {
      const { item, patch, receive } = yield* merchant
      const created = yield* item("cup", { sku: "CUP", name: "Cup", lowStockThreshold: 1 })
      yield* receive("cup", 5)
      const patched = yield* patch(`${api}/product-variants/cup`, { lowStockThreshold: 9 })
      assertAnswer(
        patched,
        200,
        itemView({
          itemId: pick(created.body, "itemId"),
          createdAt: pick(created.body, "createdAt"),
          productVariantId: "cup",
          sku: "CUP",
          name: "Cup",
          lowStockThreshold: 9,
          quantity: 5,
          availableQuantity: 5,
          status: "LOW_STOCK"
        })
      )
    })
  )

  it.effect("creates with 201 an item that a PATCH names first", () =>
    Effect.gen(function* () {
      const { patch } = yield* merchant
      const answer = yield* patch(`${api}/product-variants/new`, { name: "New" })
      assertAnswer(answer, 201, itemView({ productVariantId: "new", name: "New" }))
    })
  )

  it.effect("refuses the words that name a route as ids", () =>
    Effect.gen(function* () {
      const { patch, post } = yield* merchant
      for (const word of [
        "reserve",
        "release",
        "confirm",
        "amend",
        "extend",
        "reservations",
        "adjust-stock"
      ]) {
        assertRefusedFields(
          yield* post(`${api}/product-variants`, { productVariantId: word }),
          "body.productVariantId"
        )
        assertRefusedFields(yield* post(`${api}/product-variants`, { sku: word }), "body.sku")
        assertRefusedFields(yield* patch(`${api}/product-variants/${word}`, {}), "path.productVariantId")
      }
    })
  )

  it.effect("searches id, sku and name in any case, literally", () =>
    Effect.gen(function* () {
      const { get, item } = yield* merchant
      yield* item("cup-1", { sku: "SKU-A", name: "100% Wool_x" })
      yield* item("cup-2", { sku: "SKU-B", name: "Linen" })
      const found = (search: string) =>
        Effect.map(get(`${api}/product-variants?search=${encodeURIComponent(search)}`), ({ body }) =>
          listAt(body, "data").map((each) => pick(each, "productVariantId"))
        )
      assert.deepStrictEqual(yield* found("CUP"), ["cup-1", "cup-2"])
      assert.deepStrictEqual(yield* found("sku-b"), ["cup-2"])
      assert.deepStrictEqual(yield* found("linen"), ["cup-2"])
      assert.deepStrictEqual(yield* found("%"), ["cup-1"])
      assert.deepStrictEqual(yield* found("_"), ["cup-1"])
      assert.deepStrictEqual(yield* found("\\"), [])
      assert.deepStrictEqual(yield* found("' OR true --"), [])
    })
  )

  it.effect("filters items by status", () =>
    Effect.gen(function* () {
      const { get, item, receive } = yield* merchant
      yield* item("in")
      yield* receive("in", 5)
      yield* item("awaiting")
      const found = (status: string) =>
        Effect.map(get(`${api}/product-variants?status=${status}`), ({ body }) =>
          listAt(body, "data").map((each) => pick(each, "productVariantId"))
        )
      assert.deepStrictEqual(yield* found("IN_STOCK"), ["in"])
      assert.deepStrictEqual(yield* found("AWAITING_INITIAL_STOCK"), ["awaiting"])
      assert.deepStrictEqual(yield* found("OUT_OF_STOCK"), [])
      assertRefusedFields(yield* get(`${api}/product-variants?status=in_stock`), "query.status")
    })
  )

  it.effect("gives a merchant its default location, then others in the order of their creation", () =>
    Effect.gen(function* () {
      const { get, item, post } = yield* merchant
      yield* item("cup")
      const shop = yield* post(`${api}/locations`, { locationId: "shop", name: "Shop" })
      const view = {
        locationId: "shop",
        name: "Shop",
        isDefault: false,
        order: 1,
        retired: false,
        createdAt: moment
      }
      assertAnswer(shop, 201, view)
      assertAnswer(yield* post(`${api}/locations`, { locationId: "shop" }), 200, shop.body)
      const renamed = yield* post(`${api}/locations`, { locationId: "shop", name: "Store" })
      assertAnswer(renamed, 200, { ...view, name: "Store" })
      yield* post(`${api}/locations`, { locationId: "attic" })
      assertAnswer(yield* get(`${api}/locations`), 200, {
        data: [
          { ...view, locationId: "default", name: null, isDefault: true, order: 0 },
          { ...view, name: "Store" },
          { ...view, locationId: "attic", name: null, order: 2 }
        ],
        nextCursor: null
      })
    })
  )

  it.effect("renames, orders and retires a location, but for the default one", () =>
    Effect.gen(function* () {
      const { get, item, location, patch, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* location("shop")
      yield* location("attic")
      yield* receive("cup", 1, { locationId: "shop" })
      yield* receive("cup", 2, { locationId: "attic" })
      const place = (locationId: string, change: object) => patch(`${api}/locations/${locationId}`, change)
      const attic = {
        locationId: "attic",
        name: "Attic",
        isDefault: false,
        order: 1,
        retired: false,
        createdAt: moment
      }
      assertAnswer(yield* place("attic", { name: "Attic", order: 1 }), 200, attic)
      const ids = Effect.map(get(`${api}/locations`), ({ body }) =>
        listAt(body, "data").map((each) => pick(each, "locationId"))
      )
      assert.deepStrictEqual(yield* ids, ["default", "attic", "shop"])
      const reserved = yield* reserve("o", [["cup", 1]])
      assert.strictEqual(reserved.status, 201)
      const cup = Effect.map(get("/api/v1/inventory/cup"), ({ body }) => body)
      assert.strictEqual(pick(yield* cup, "locations.0.locationId"), "attic")
      assert.strictEqual(pick(yield* cup, "locations.0.reservedQuantity"), 1)
      assertAnswer(yield* place("attic", { retired: true }), 200, { ...attic, retired: true })
      const closed = yield* cup
      assert.strictEqual(pick(closed, "quantity"), 3)
      assert.strictEqual(pick(closed, "availableQuantity"), 1)
      assert.strictEqual(pick(closed, "locations.0.availableQuantity"), 0)
      assertProblem(
        yield* reserve("p", [["cup", 1]], { locationId: "attic" }),
        409,
        "INSUFFICIENT_INVENTORY",
        { items: [{ productVariantId: "cup", requested: 1, available: 0 }] }
      )
      const [listed] = listAt((yield* get(`${api}/product-variants?search=cup`)).body, "data")
      assert.strictEqual(pick(listed, "availableQuantity"), 1)
      const stocks = yield* get(`${api}/stocks?productVariantId=cup`)
      assert.deepStrictEqual(
        listAt(stocks.body, "data").map((stock) => pick(stock, "availableQuantity")),
        [1, 0]
      )
      for (const change of [{ order: 1 }, { retired: true }]) {
        assertProblem(yield* place("default", change), 409, "DEFAULT_LOCATION", { locationId: "default" })
      }
      assertProblem(yield* place("nowhere", { name: "x" }), 404, "NOT_FOUND", { locationId: "nowhere" })
    })
  )

  it.effect("discontinues an item and sells it again, and says one figure everywhere meanwhile", () =>
    Effect.gen(function* () {
      const { adjust, get, item, patch, post, receive, reserve } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 5)
      yield* reserve("held", [["cup", 1]])
      const status = (word: string) => patch(`${api}/product-variants/cup`, { status: word })
      const figures = { sku: "CUP", productVariantId: "cup", quantity: 5, reservedQuantity: 1 }
      assertAnswer(
        yield* status("DISCONTINUED"),
        200,
        itemView({ ...figures, status: "DISCONTINUED", availableQuantity: 0 })
      )
      const shown = yield* get("/api/v1/inventory/cup")
      assert.strictEqual(pick(shown.body, "availableQuantity"), 0)
      assert.strictEqual(pick(shown.body, "quantity"), 5)
      assert.strictEqual(pick(shown.body, "locations.0.availableQuantity"), 0)
      assert.strictEqual(pick(shown.body, "locations.0.batches.0.availableQuantity"), 0)
      assert.strictEqual(pick((yield* get("/inventory/CUP")).body, "availableQuantity"), 0)
      const [stock] = listAt((yield* get(`${api}/stocks?sku=CUP`)).body, "data")
      assert.strictEqual(pick(stock, "availableQuantity"), 0)
      const [listed] = listAt((yield* get(`${api}/product-variants`)).body, "data")
      assert.strictEqual(pick(listed, "availableQuantity"), 0)
      const checked = yield* post("/api/v1/inventory/check-availability", {
        items: [{ variantId: "cup", quantity: 1 }]
      })
      assert.strictEqual(pick(checked.body, "data.items.0.availableQuantity"), 0)
      assert.strictEqual((yield* reserve("o", [["cup", 1]])).status, 422)
      assertProblem(yield* adjust("cup", "SALE", 1), 409, "INSUFFICIENT_INVENTORY", {
        items: [{ productVariantId: "cup", sku: "CUP", requested: 1, available: 0 }]
      })
      assert.strictEqual((yield* post("/api/v1/inventory/confirm", { orderId: "held" })).status, 200)
      const open = yield* get(`${api}/discrepancies?status=OPEN`)
      assert.strictEqual(pick(open.body, "data.0.kind"), "DISCONTINUED_WITH_STOCK")
      assert.strictEqual(pick((yield* status("ACTIVE")).body, "availableQuantity"), 4)
      assert.deepStrictEqual(pick((yield* get(`${api}/discrepancies?status=OPEN`)).body, "data"), [])
      assertRefusedFields(yield* status("IN_STOCK"), "body.status")
    })
  )

  it.effect("deletes an item, at once or with its last unit, and frees its sku", () =>
    Effect.gen(function* () {
      const { adjust, call, get, item, post, receive, reserve } = yield* merchant
      const remove = (id: string) => call("DELETE", `${api}/product-variants/${id}`)
      yield* item("lid", { sku: "LID" })
      const lid = { productVariantId: "lid", status: "DELETED" }
      assertAnswer(yield* remove("lid"), 200, { ...lid, applied: true })
      assertAnswer(yield* remove("lid"), 200, { ...lid, applied: false })
      assertProblem(yield* remove("unheard-of"), 404, "NOT_FOUND", { items: ["unheard-of"] })
      assert.strictEqual((yield* get("/api/v1/inventory/lid")).status, 404)

      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 2)
      yield* reserve("o", [["cup", 2]])
      const cup = { productVariantId: "cup", status: "DISCONTINUED" }
      assertAnswer(yield* remove("cup"), 200, { ...cup, applied: true })
      assertAnswer(yield* remove("cup"), 200, { ...cup, applied: false })
      const next = { productVariantId: "next", sku: "CUP" }
      assertProblem(yield* post(`${api}/product-variants`, next), 409, "ITEM_CONFLICT", next)
      yield* post("/api/v1/inventory/confirm", { orderId: "o" })
      assert.strictEqual((yield* get("/api/v1/inventory/cup")).status, 404)
      assertAnswer(yield* post(`${api}/product-variants`, next), 201, itemView(next))
      assertProblem(yield* adjust("cup", "RECEIPT", 1), 404, "NOT_FOUND", { items: ["cup"] })
    })
  )

  it.effect("lists the lots that go off, the soonest first, in pages", () =>
    Effect.gen(function* () {
      const { adjust, get, item, location, receive } = yield* merchant
      yield* item("milk", { sku: "MILK" })
      yield* location("shop")
      const lot = (lotNumber: string, expiresAt: string, locationId = "default") =>
        receive("milk", 2, { lotNumber, expiresAt, locationId })
      yield* lot("late", "2031-01-01T00:00:00Z")
      yield* lot("soon", "2030-01-01T00:00:00Z")
      yield* lot("soon", "2030-01-01T00:00:00Z", "shop")
      yield* lot("gone", "2029-01-01T00:00:00Z")
      yield* lot("past", "2001-01-01T00:00:00Z")
      yield* receive("milk", 2)
      yield* adjust("milk", "WRITE_OFF", 2, { lotNumber: "gone" })
      const lots = (query: string) => get(`${api}/lots?${query}`)
      const all = yield* lots("expiresBefore=2030-06-01T00:00:00Z")
      assert.deepStrictEqual(
        listAt(all.body, "data").map((each) => [
          pick(each, "lotNumber"),
          pick(each, "locationId"),
          pick(each, "availableQuantity"),
          pick(each, "expiredQuantity")
        ]),
        [
          ["past", "default", 0, 2],
          ["soon", "default", 2, 0],
          ["soon", "shop", 2, 0]
        ]
      )
      assert.strictEqual(pick(all.body, "data.0.sku"), "MILK")
      assert.lengthOf(listAt((yield* lots("locationId=shop")).body, "data"), 1)
      const seen: Array<unknown> = []
      let cursor = ""
      do {
        const page = yield* lots(`limit=1${cursor === "" ? "" : `&cursor=${cursor}`}`)
        seen.push(pick(page.body, "data.0.lotNumber"))
        cursor = String(pick(page.body, "nextCursor") ?? "")
      } while (cursor !== "")
      assert.deepStrictEqual(seen, ["past", "soon", "soon", "late"])
      // It expires at that very moment, and so not before it.
      assert.lengthOf(listAt((yield* lots("expiresBefore=2030-01-01T00:00:00Z")).body, "data"), 1)
      assertRefusedFields(yield* lots("expiresBefore=tomorrow"), "query.expiresBefore")
    })
  )

  it.effect("opens a discrepancy where damage exceeds what is there, and closes it with the condition", () =>
    Effect.gen(function* () {
      const { adjust, get, item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* receive("cup", 2)
      yield* adjust("cup", "DAMAGE", 3)
      const open = yield* get(`${api}/discrepancies`)
      const view = {
        discrepancyId: uuid,
        kind: "OVERCOMMITTED",
        status: "OPEN",
        stockId: uuid,
        itemId: uuid,
        productVariantId: "cup",
        sku: "CUP",
        orderId: null,
        detail: { onHand: 2, reserved: 0, unallocatable: 3 },
        openedAt: moment,
        closedAt: null,
        closedBy: null,
        reason: null
      }
      assertAnswer(open, 200, { data: [view], nextCursor: null })
      const discrepancyId = textAt(open.body, "data.0.discrepancyId")
      assertProblem(
        yield* post(`${api}/discrepancies/${discrepancyId}/resolve`, { reason: "seen" }),
        409,
        "DISCREPANCY_PERSISTS",
        { discrepancyId }
      )
      yield* adjust("cup", "CORRECTION", 4)
      const closed = yield* get(`${api}/discrepancies`)
      assertAnswer(closed, 200, {
        data: [{ ...view, status: "CLOSED", closedAt: moment, closedBy: "holdfast" }],
        nextCursor: null
      })
      assertAnswer(yield* post(`${api}/discrepancies/${discrepancyId}/resolve`, { reason: "late" }), 200, {
        discrepancyId,
        resolved: false
      })
    })
  )

  it.effect("resolves by hand what no balance speaks of, with a reason, once", () =>
    Effect.gen(function* () {
      const { adjust, get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 2)
      yield* adjust("cup", "SALE", 1, { orderId: "o" })
      yield* adjust("cup", "RETURN", 2, { orderId: "o" })
      const open = yield* get(`${api}/discrepancies?status=OPEN&kind=RETURN_EXCEEDS_SALE`)
      const discrepancyId = textAt(open.body, "data.0.discrepancyId")
      assert.strictEqual(pick(open.body, "data.0.orderId"), "o")
      const resolve = (reason: unknown) => post(`${api}/discrepancies/${discrepancyId}/resolve`, { reason })
      assertRefusedFields(yield* resolve(""), "body.reason")
      assertAnswer(yield* resolve("a gift"), 200, { discrepancyId, resolved: true })
      assertAnswer(yield* resolve("again"), 200, { discrepancyId, resolved: false })
      const resolved = yield* get(`${api}/discrepancies?status=RESOLVED`)
      assert.strictEqual(pick(resolved.body, "data.0.reason"), "a gift")
      assert.strictEqual(pick(resolved.body, "data.0.closedBy"), "tester")
      assert.deepStrictEqual(pick((yield* get(`${api}/discrepancies?status=OPEN`)).body, "data"), [])
    })
  )

  it.effect("answers 404 to a discrepancy that does not exist, and 400 to what is no id", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const discrepancyId = "00000000-0000-7000-8000-000000000000"
      assertProblem(
        yield* post(`${api}/discrepancies/${discrepancyId}/resolve`, { reason: "r" }),
        404,
        "NOT_FOUND",
        { discrepancyId }
      )
      assertRefusedFields(
        yield* post(`${api}/discrepancies/x/resolve`, { reason: "r" }),
        "path.discrepancyId"
      )
    })
  )
})
