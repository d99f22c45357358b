import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import type { Merchant } from "./routes.ts"
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

/** Looking into the books (CONTRACTS 4.2 and 4.4): ledgers, balances of then, stocks, the work list. */

const variants = "/api/v1/inventory"
const catalog = "/v1/api/inventory"
const unknownId = "00000000-0000-7000-8000-000000000000"

/** All of a list, page by page. */
const walk = Effect.fnUntraced(function* ({ get }: Merchant, path: string, limit: number) {
  const seen: Array<unknown> = []
  let cursor: string | null = ""
  while (cursor !== null) {
    const page: Effect.Success<ReturnType<Merchant["get"]>> = yield* get(
      `${path}${path.includes("?") ? "&" : "?"}limit=${limit}${cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`}`
    )
    assert.strictEqual(page.status, 200, page.text)
    const data = listAt(page.body, "data")
    assert.isAtMost(data.length, limit)
    seen.push(...data)
    cursor = pick(page.body, "nextCursor") as string | null
  }
  return seen
})

const sum = (rows: ReadonlyArray<unknown>, field: string): number =>
  rows.reduce<number>((total, row) => total + (pick(row, field) as number), 0)

/** One item at two locations and in a lot, with a sale and damage. */
const shop = Effect.gen(function* () {
  const owner = yield* merchant
  const { adjust, item, location, post, receive, reserve } = owner
  yield* item("cup", { sku: "CUP" })
  yield* item("lid", { sku: "LID" })
  yield* location("shop")
  yield* receive("cup", 9, { reason: "delivery", reference: "po:1" })
  yield* receive("cup", 5, { locationId: "shop" })
  yield* receive("cup", 4, { lotNumber: "L", expiresAt: "2999-01-01T00:00:00Z" })
  yield* receive("lid", 7)
  yield* reserve("o", [["cup", 6]])
  yield* post(`${variants}/confirm`, { orderId: "o" })
  yield* reserve("held", [["cup", 3]])
  yield* adjust("cup", "DAMAGE", 1, { locationId: "shop" })
  return owner
})

const stockView = (change: Readonly<Record<string, unknown>>) => ({
  stockId: uuid,
  itemId: uuid,
  productVariantId: "cup",
  sku: "CUP",
  locationId: "default",
  lotNumber: null,
  expiresAt: null,
  reservedQuantity: 0,
  unallocatableQuantity: 0,
  expiredQuantity: 0,
  discrepancy: false,
  createdAt: moment,
  updatedAt: moment,
  ...change
})

layer(Service.layer, { excludeTestServices: true, timeout: "180 seconds" })("the books over HTTP", (it) => {
  it.effect("lists stocks by item, sku and location, and shows each by its id", () =>
    Effect.gen(function* () {
      const { get } = yield* shop
      const list = yield* get(`${catalog}/stocks?productVariantId=cup`)
      const plain = stockView({ quantity: 7, reservedQuantity: 3, availableQuantity: 4, version: 4 })
      const atShop = stockView({
        locationId: "shop",
        quantity: 5,
        unallocatableQuantity: 1,
        availableQuantity: 4,
        version: 2
      })
      const lot = stockView({
        lotNumber: "L",
        expiresAt: "2999-01-01T00:00:00.000Z",
        quantity: 0,
        availableQuantity: 0,
        version: 3
      })
      assertAnswer(list, 200, { data: [plain, atShop, lot], nextCursor: null })
      assertAnswer(yield* get(`${catalog}/stocks?sku=CUP&locationId=shop`), 200, {
        data: [atShop],
        nextCursor: null
      })
      const first = pick(list.body, "data.0")
      assertAnswer(yield* get(`${catalog}/stocks/${textAt(first, "stockId")}`), 200, first)
      const names = (path: string) =>
        Effect.map(get(path), ({ body }) =>
          listAt(body, "data").map((each) => pick(each, "productVariantId"))
        )
      assert.deepStrictEqual(yield* names(`${catalog}/stocks`), ["cup", "cup", "cup", "lid"])
      assert.deepStrictEqual(yield* names(`${catalog}/stocks?locationId=default`), ["cup", "cup", "lid"])
      assert.deepStrictEqual(yield* names(`${catalog}/stocks?productVariantId=cup&sku=LID`), [])
      assert.deepStrictEqual(yield* names(`${catalog}/stocks?productVariantId=unknown`), [])
      assert.deepStrictEqual(yield* names(`${catalog}/stocks?locationId=unknown`), [])
    })
  )

  it.effect("lets every figure of the items be followed to the movements that made it", () =>
    Effect.gen(function* () {
      const owner = yield* shop
      const { get } = owner
      const items = yield* walk(owner, `${catalog}/product-variants`, 1)
      assert.strictEqual(items.length, 2)
      for (const each of items) {
        const id = textAt(each, "productVariantId")
        const { body } = yield* get(`${variants}/${id}`)
        const stocks = yield* walk(owner, `${catalog}/stocks?productVariantId=${id}`, 2)
        for (const field of ["quantity", "reservedQuantity", "availableQuantity"]) {
          assert.strictEqual(pick(each, field), pick(body, field))
          assert.strictEqual(pick(each, field), sum(stocks, field))
        }
        assert.strictEqual(pick(each, "unallocatableQuantity"), sum(stocks, "unallocatableQuantity"))
        for (const stock of stocks) {
          const rows = yield* walk(owner, `${catalog}/stocks/${textAt(stock, "stockId")}/ledger`, 2)
          assert.strictEqual(pick(stock, "quantity"), sum(rows, "onHandDelta"))
          assert.strictEqual(pick(stock, "reservedQuantity"), sum(rows, "reservedDelta"))
          assert.strictEqual(
            (pick(stock, "unallocatableQuantity") as number) - (pick(stock, "expiredQuantity") as number),
            sum(rows, "unallocatableDelta")
          )
          assert.deepStrictEqual(
            rows.map((row) => pick(row, "sequence")),
            rows.map((_, index) => rows.length - index)
          )
        }
        const all = yield* walk(owner, `${variants}/${id}/ledger`, 3)
        assert.strictEqual(pick(each, "quantity"), sum(all, "onHandDelta"))
      }
    })
  )

  it.effect("picks movements by type and time", () =>
    Effect.gen(function* () {
      const { get } = yield* shop
      const types = (query: string) =>
        Effect.map(get(`${variants}/cup/ledger?${query}`), ({ body }) =>
          listAt(body, "data").map((each) => pick(each, "type"))
        )
      assert.deepStrictEqual(yield* types("type=SALE"), ["SALE", "SALE"])
      assert.deepStrictEqual(yield* types("type=ADJUSTMENT,RECEIPT"), [
        "ADJUSTMENT",
        "RECEIPT",
        "RECEIPT",
        "RECEIPT"
      ])
      const { body } = yield* get(`${variants}/cup/ledger?type=SALE&limit=1`)
      assert.isString(pick(body, "nextCursor"))
      const sold = textAt(body, "data.0.recordedAt")
      const before = yield* get(`${variants}/cup/ledger?to=${sold}&limit=200`)
      const since = yield* get(`${variants}/cup/ledger?from=${sold}&limit=200`)
      const all = yield* get(`${variants}/cup/ledger?limit=200`)
      assert.deepStrictEqual(
        [...listAt(since.body, "data"), ...listAt(before.body, "data")],
        listAt(all.body, "data")
      )
      assert.isAbove(listAt(before.body, "data").length, 2)
      assert.deepStrictEqual(yield* types(`from=${sold}&to=${sold}`), [])
    })
  )

  it.effect("tells the balances of then: before anything, at the very millisecond, and now", () =>
    Effect.gen(function* () {
      const { get } = yield* shop
      const then = (at: string) => get(`${variants}/cup?at=${encodeURIComponent(at)}`)
      const nothing = {
        productVariantId: "cup",
        sku: "CUP",
        stocked: true,
        quantity: 0,
        reservedQuantity: 0,
        availableQuantity: 0,
        at: "2001-02-03T04:05:06.000Z",
        updatedAt: null,
        locations: []
      }
      assertAnswer(yield* then("2001-02-03T05:05:06+01:00"), 200, nothing)

      const rows = listAt((yield* get(`${variants}/cup/ledger?limit=200`)).body, "data")
      const first = textAt(rows.at(-1), "recordedAt")
      // Usually one; a second receipt may have come within the same millisecond.
      const atFirst = rows.filter((row) => pick(row, "recordedAt") === first)
      const quantity = sum(atFirst, "onHandDelta")
      const received = yield* then(first)
      const figures = { quantity, reservedQuantity: 0, availableQuantity: quantity }
      assertAnswer(received, 200, {
        ...nothing,
        ...figures,
        at: first,
        updatedAt: first,
        locations: pick(received.body, "locations")
      })
      assert.sameDeepMembers(
        listAt(received.body, "locations").flatMap((location) =>
          listAt(location, "batches").map((each) => [pick(each, "stockId"), pick(each, "quantity")])
        ),
        atFirst.map((row) => [pick(row, "stockId"), pick(row, "onHand")])
      )
      assert.strictEqual(
        pick((yield* then(new Date(Date.parse(first) - 1).toISOString())).body, "quantity"),
        0
      )
      const newest = textAt((yield* get(`${variants}/cup/ledger?limit=1`)).body, "data.0.recordedAt")
      const current = (yield* get(`${variants}/cup`)).body
      assert.deepStrictEqual(pick((yield* then(newest)).body, "locations"), pick(current, "locations"))

      const several = yield* get(`${variants}?productVariantIds=lid,nothing,cup&at=${newest}`)
      assert.deepStrictEqual(
        listAt(several.body, "data").map((each) => [pick(each, "productVariantId"), pick(each, "at")]),
        [
          ["lid", newest],
          ["cup", newest]
        ]
      )
      assert.deepStrictEqual(pick(several.body, "missing"), ["nothing"])
    })
  )

  it.effect("refuses times ahead, times that do not exist, and filters that mean nothing", () =>
    Effect.gen(function* () {
      const { get } = yield* shop
      const { body } = yield* get(`${catalog}/stocks?productVariantId=lid`)
      const stockId = textAt(body, "data.0.stockId")
      for (const at of ["2999-01-01T00:00:00Z", "yesterday", "2020-02-30T00:00:00Z", "2020-01-01", "", "0"]) {
        assertRefusedFields(yield* get(`${variants}/cup?at=${at}`), "query.at")
        assertRefusedFields(yield* get(`${variants}?productVariantIds=cup&at=${at}`), "query.at")
      }
      for (const ledger of [`${variants}/cup/ledger`, `${catalog}/stocks/${stockId}/ledger`]) {
        for (const [query, ...fields] of [
          ["from=yesterday", "query.from"],
          ["to=2020-13-01T00:00:00Z", "query.to"],
          ["from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z", "query.to"],
          ["type=receipt", "query.type.0"],
          ["type=RECEIPT,", "query.type.1"],
          ["limit=0", "query.limit"],
          ["limit=201&type=NONE", "query.limit", "query.type.0"]
        ] as const) {
          assertRefusedFields(yield* get(`${ledger}?${query}`), ...fields)
        }
      }
      for (const list of ["stocks", "discrepancies"]) {
        assertRefusedFields(yield* get(`${catalog}/${list}?limit=201`), "query.limit")
        assertRefusedFields(yield* get(`${catalog}/${list}?productVariantId=`), "query.productVariantId")
      }
      assertRefusedFields(
        yield* get(`${catalog}/product-variants?belowSafetyStock=1`),
        "query.belowSafetyStock"
      )
      assertRefusedFields(yield* get(`${catalog}/stocks/x`), "path.stockId")
      assertRefusedFields(yield* get(`${catalog}/stocks/x/ledger`), "path.stockId")
      const wrong = Buffer.from(JSON.stringify(["x"])).toString("base64url")
      for (const list of [
        `${catalog}/stocks`,
        `${catalog}/discrepancies`,
        `${variants}/cup/ledger`,
        `${catalog}/stocks/${stockId}/ledger`
      ]) {
        for (const cursor of ["!", wrong]) {
          const answer = yield* get(`${list}?cursor=${cursor}`)
          assert.strictEqual(answer.status, 400, list)
          assert.strictEqual(pick(answer.body, "code"), "VALIDATION_FAILED")
        }
      }
    })
  )

  it.effect("shows nothing of another merchant: not by id, not by name, not by a cursor", () =>
    Effect.gen(function* () {
      const mine = yield* shop
      const theirs = yield* merchant
      yield* theirs.item("other")
      yield* theirs.receive("other", 1)
      const { body } = yield* mine.get(`${catalog}/stocks?limit=1`)
      const stockId = textAt(body, "data.0.stockId")
      assertProblem(yield* theirs.get(`${catalog}/stocks/${stockId}`), 404, "NOT_FOUND", { item: stockId })
      assertProblem(yield* theirs.get(`${catalog}/stocks/${stockId}/ledger`), 404, "NOT_FOUND", {
        item: stockId
      })
      assertProblem(yield* mine.get(`${catalog}/stocks/${unknownId}`), 404, "NOT_FOUND", { item: unknownId })
      const members = { items: ["cup"] }
      assertProblem(yield* theirs.get(`${variants}/cup/ledger`), 404, "NOT_FOUND", members)
      const at = new Date().toISOString()
      assertProblem(yield* theirs.get(`${variants}/cup?at=${at}`), 404, "NOT_FOUND", members)
      assert.deepStrictEqual(
        pick((yield* theirs.get(`${variants}?productVariantIds=cup&at=${at}`)).body, "missing"),
        ["cup"]
      )
      for (const query of ["productVariantId=cup", "sku=CUP", "locationId=shop"]) {
        assertAnswer(yield* theirs.get(`${catalog}/stocks?${query}`), 200, { data: [], nextCursor: null })
      }
      // A cursor is a position, and a position says nothing of whose list it is used in.
      const cursor = encodeURIComponent(textAt(body, "nextCursor"))
      const page = yield* theirs.get(`${catalog}/stocks?cursor=${cursor}`)
      const names = listAt(page.body, "data").map((each) => pick(each, "productVariantId"))
      assert.deepStrictEqual(names, ["other"])
      const { body: ledger } = yield* mine.get(`${variants}/cup/ledger?limit=1`)
      const position = encodeURIComponent(textAt(ledger, "nextCursor"))
      const moved = yield* theirs.get(`${variants}/other/ledger?cursor=${position}`)
      for (const each of listAt(moved.body, "data")) assert.strictEqual(pick(each, "onHandDelta"), 1)
    })
  )

  it.effect("gives safety stock to those who reorder, and withholds it from no sale", () =>
    Effect.gen(function* () {
      const { get, item, patch, receive, reserve } = yield* merchant
      yield* item("cup", { safetyStock: 5 })
      yield* item("lid", { safetyStock: 2 })
      yield* item("latte", { stocked: false, safetyStock: 9 })
      yield* receive("cup", 6)
      yield* receive("lid", 1)
      const below = Effect.map(get(`${catalog}/product-variants?belowSafetyStock=true`), ({ body }) =>
        listAt(body, "data").map((each) => [
          pick(each, "productVariantId"),
          pick(each, "safetyStockShortfall")
        ])
      )
      assert.deepStrictEqual(yield* below, [["lid", 1]])
      // What can be sold is the same formula with and without it.
      assert.strictEqual(pick((yield* get(`${variants}/cup`)).body, "availableQuantity"), 6)
      assert.strictEqual((yield* reserve("all", [["cup", 6]])).status, 201)
      assert.deepStrictEqual(yield* below, [
        ["cup", 5],
        ["lid", 1]
      ])
      const patched = yield* patch(`${catalog}/product-variants/lid`, { safetyStock: 1 })
      assert.strictEqual(pick(patched.body, "safetyStockShortfall"), 0)
      assert.deepStrictEqual(yield* below, [["cup", 5]])
      assert.strictEqual(pick((yield* get(`${variants}/latte`)).body, "stocked"), false)
    })
  )

  it.effect("makes LOW_STOCK of a threshold that is raised, and takes it back with it", () =>
    Effect.gen(function* () {
      const { get, item, patch, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 6)
      const status = Effect.map(get(`${variants}/cup`), ({ body }) => pick(body, "status"))
      assert.strictEqual(yield* status, "IN_STOCK")
      yield* patch(`${catalog}/product-variants/cup`, { lowStockThreshold: 6 })
      assert.strictEqual(yield* status, "LOW_STOCK")
      const { body } = yield* get(`${catalog}/product-variants?status=LOW_STOCK`)
      assert.deepStrictEqual(
        listAt(body, "data").map((each) => pick(each, "productVariantId")),
        ["cup"]
      )
      yield* patch(`${catalog}/product-variants/cup`, { lowStockThreshold: 5 })
      assert.strictEqual(yield* status, "IN_STOCK")
    })
  )

  it.effect("picks discrepancies by item, kind and status, one open for each stock and kind", () =>
    Effect.gen(function* () {
      const owner = yield* merchant
      const { adjust, get, item, receive } = owner
      for (const id of ["cup", "lid"]) {
        yield* item(id, { sku: id.toUpperCase() })
        yield* receive(id, 2)
        yield* adjust(id, "DAMAGE", 3)
        yield* adjust(id, "DAMAGE", 1)
      }
      yield* adjust("cup", "CORRECTION", 9)
      yield* adjust("cup", "DAMAGE", 9)
      const found = (query: string) =>
        Effect.map(get(`${catalog}/discrepancies?${query}`), ({ body }) =>
          listAt(body, "data").map((each) => [pick(each, "productVariantId"), pick(each, "status")])
        )
      assert.deepStrictEqual(yield* found(""), [
        ["cup", "OPEN"],
        ["lid", "OPEN"],
        ["cup", "CLOSED"]
      ])
      assert.deepStrictEqual(yield* found("productVariantId=cup"), [
        ["cup", "OPEN"],
        ["cup", "CLOSED"]
      ])
      assert.deepStrictEqual(yield* found("sku=CUP&status=CLOSED"), [["cup", "CLOSED"]])
      assert.deepStrictEqual(yield* found("status=OPEN&kind=OVERCOMMITTED"), [
        ["cup", "OPEN"],
        ["lid", "OPEN"]
      ])
      assert.deepStrictEqual(yield* found("status=OPEN&kind=NEGATIVE_STOCK"), [])
      assert.deepStrictEqual(yield* found("productVariantId=unknown"), [])
      assert.strictEqual((yield* walk(owner, `${catalog}/discrepancies`, 1)).length, 3)
      const { body } = yield* get(`${catalog}/stocks?productVariantId=cup`)
      assert.strictEqual(pick(body, "data.0.discrepancy"), true)
      const theirs = yield* merchant
      assert.deepStrictEqual(pick((yield* theirs.get(`${catalog}/discrepancies`)).body, "data"), [])
    })
  )
})
