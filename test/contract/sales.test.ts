import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Service, merchant } from "../support/service.ts"
import { assertAnswer, assertProblem, assertRefusedFields, listAt, pick } from "../support/shape.ts"

/** Paid sales over HTTP (CONTRACTS 4.2, `POST /v1/api/inventory/sales`) against the running program. */

const api = "/v1/api/inventory/sales"

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("paid sales over HTTP", (it) => {
  it.effect("are recorded once per line, below zero if need be", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 2)
      const sale = {
        saleOrderId: "s",
        items: [
          { saleOrderItemId: "1", productVariantId: "cup", quantity: 3 },
          { saleOrderItemId: "2", productVariantId: "cup", quantity: 0 }
        ]
      }
      const told = { saleOrderId: "s", applied: true, lines: { applied: 1, repeated: 0, changed: 0 } }
      assertAnswer(yield* post(api, sale), 200, told)
      assertAnswer(yield* post(api, sale), 200, {
        ...told,
        applied: false,
        lines: { applied: 0, repeated: 1, changed: 0 }
      })
      const other = { saleOrderId: "s", items: [{ ...sale.items[0], quantity: 4 }] }
      assertAnswer(yield* post(api, other), 200, {
        ...told,
        applied: false,
        lines: { applied: 0, repeated: 0, changed: 1 }
      })
      assert.strictEqual(pick((yield* get("/api/v1/inventory/cup")).body, "quantity"), -1)
      const open = yield* get("/v1/api/inventory/discrepancies?status=OPEN")
      assert.sameMembers(
        listAt(open.body, "data").map((each) => pick(each, "kind")),
        ["NEGATIVE_STOCK", "SALE_LINE_CHANGED"]
      )
    })
  )

  it.effect("were sold where they say, and what the order holds elsewhere is given back", () =>
    Effect.gen(function* () {
      const { adjust, get, item, post, receive, reserve } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      yield* post("/v1/api/inventory/locations", { locationId: "shop" })
      yield* adjust("cup", "RECEIPT", 5, { locationId: "shop" })
      yield* reserve("o", [["cup", 2]])
      const items = [{ productVariantId: "cup", quantity: 2, locationId: "shop" }]
      assert.strictEqual((yield* post(api, { saleOrderId: "o", items })).status, 200)
      const { body } = yield* get("/api/v1/inventory/cup")
      const figures = listAt(body, "locations").map((each) =>
        ["locationId", "quantity", "reservedQuantity"].map((name) => pick(each, name))
      )
      assert.sameDeepMembers(figures, [
        ["default", 5, 0],
        ["shop", 3, 0]
      ])
    })
  )

  it.effect("name items and locations that nobody has created with 404, and bad fields with 400", () =>
    Effect.gen(function* () {
      const { item, post } = yield* merchant
      yield* item("cup")
      const cup = { productVariantId: "cup", quantity: 1 }
      const sale = (...items: ReadonlyArray<object>) => post(api, { saleOrderId: "s", items })
      assertProblem(yield* sale(cup, { productVariantId: "jug", quantity: 1 }), 404, "NOT_FOUND", {
        items: ["jug"]
      })
      assertProblem(yield* sale({ ...cup, locationId: "moon" }), 404, "NOT_FOUND", { locationId: "moon" })
      assertRefusedFields(yield* sale({ ...cup, quantity: -1 }), "body.items.0.quantity")
      assertRefusedFields(yield* sale(), "body.items")
    })
  )
})
