import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import {
  type RunningService,
  Service,
  fresh,
  merchant,
  merchantAt,
  startService
} from "../support/service.ts"
import { assertProblem, pick } from "../support/shape.ts"
import { changing, worldOf } from "./routes.ts"

/** The Idempotency-Key (CONTRACTS section 4) against the running program, and against two of them. */

const api = "/api/v1/inventory"
const keyed = (key: string) => ({ headers: { "idempotency-key": key } })

/** Another process on the database of the first. */
class Second extends Context.Service<Second, RunningService>()("holdfast/test/Second") {
  static readonly layer = Layer.effect(
    Second,
    Effect.flatMap(Service, ({ databaseUrl }) => startService(databaseUrl))
  )
}

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("Idempotency-Key", (it) => {
  it.effect("answers the same request again byte for byte, on every route that changes something", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      for (const route of changing.filter(({ reads }) => reads !== true)) {
        const body = JSON.stringify(route.body!(world))
        const key = fresh("key")
        const path = route.path(world)
        const first = yield* shop.call(route.method, path, body, keyed(key))
        assert.isBelow(first.status, 300, first.text)
        assert.isUndefined(first.headers["idempotency-replayed"])
        for (let time = 0; time < 2; time++) {
          const again = yield* shop.call(route.method, path, body, keyed(key))
          assert.strictEqual(again.text, first.text, route.name)
          assert.strictEqual(again.status, first.status, route.name)
          assert.strictEqual(again.headers["content-type"], first.headers["content-type"])
          assert.strictEqual(again.headers["idempotency-replayed"], "true")
        }
        const other = yield* shop.call(route.method, path, ` ${body}`, keyed(key))
        assertProblem(other, 422, "IDEMPOTENCY_KEY_REUSED", { idempotencyKey: key })
      }
    })
  )

  it.effect("still answers as it first did when the world has moved on", () =>
    Effect.gen(function* () {
      const { get, item, patch, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const key = fresh("key")
      const body = { orderId: "o", items: [{ variantId: "cup", quantity: 5 }] }
      const first = yield* post(`${api}/reserve`, body, keyed(key))
      yield* post(`${api}/release`, { orderId: "o" })
      yield* patch("/v1/api/inventory/product-variants/cup", { name: "renamed", sku: "NEW" })
      const again = yield* post(`${api}/reserve`, body, keyed(key))
      assert.deepStrictEqual([again.status, again.text], [201, first.text])
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "reservedQuantity"), 0)
    })
  )

  it.effect("takes the same key for another route as another request", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup", { sku: "CUP" })
      yield* item("lid")
      yield* receive("cup", 5)
      const key = fresh("key")
      const body = JSON.stringify({ orderId: "o", quantity: 1 })
      yield* post(`${api}/cup/reserve`, body, keyed(key))
      for (const path of [`${api}/cup/release`, `${api}/lid/release`, `${api}/lid/reserve`]) {
        assertProblem(yield* post(path, body, keyed(key)), 422, "IDEMPOTENCY_KEY_REUSED", {
          idempotencyKey: key
        })
      }
    })
  )

  it.effect("keeps keys apart by merchant", () =>
    Effect.gen(function* () {
      const key = fresh("key")
      for (const shop of [yield* merchant, yield* merchant]) {
        yield* shop.item("cup")
        const body = { productVariantId: "cup", changeType: "RECEIPT", quantity: 5 }
        const answer = yield* shop.post(`${api}/adjust-stock`, body, keyed(key))
        assert.strictEqual(answer.status, 200, answer.text)
        assert.isUndefined(answer.headers["idempotency-replayed"])
        assert.strictEqual(pick((yield* shop.get(`${api}/cup`)).body, "quantity"), 5)
      }
    })
  )

  it.effect("does not keep failures: the same request succeeds once it can", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      const key = fresh("key")
      const body = { orderId: "o", items: [{ variantId: "cup", quantity: 5 }] }
      const reserve = post(`${api}/reserve`, body, keyed(key))
      assertProblem(yield* post(`${api}/reserve`, "{", keyed(key)), 400, "VALIDATION_FAILED", {
        errors: [{ path: "body", message: "Expected a valid JSON body" }]
      })
      assert.strictEqual((yield* reserve).status, 422)
      yield* item("cup")
      assert.strictEqual((yield* reserve).status, 409)
      yield* receive("cup", 5)
      const answer = yield* reserve
      assert.strictEqual(answer.status, 201, answer.text)
      assert.isUndefined(answer.headers["idempotency-replayed"])
      assert.strictEqual((yield* reserve).headers["idempotency-replayed"], "true")
    })
  )

  it.effect("has one effect when twenty send the same key at once", () =>
    Effect.gen(function* () {
      const { get, item, post } = yield* merchant
      yield* item("cup")
      const body = { productVariantId: "cup", changeType: "RECEIPT", quantity: 1 }
      const answers = yield* Effect.all(
        Array.from({ length: 20 }, () => post(`${api}/adjust-stock`, body, keyed("same"))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(answers.map(({ text }) => text)).size, 1)
      assert.deepStrictEqual([...new Set(answers.map(({ status }) => status))], [200])
      const fresh = answers.filter(({ headers }) => headers["idempotency-replayed"] === undefined)
      assert.strictEqual(fresh.length, 1)
      assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 1)
    })
  )

  it.layer(Second.layer, { timeout: "120 seconds" })("over two processes", (it) => {
    it.effect("has one effect when twenty send the same key to two processes at once", () =>
      Effect.gen(function* () {
        const second = yield* Second
        const here = yield* merchant
        const there = yield* merchantAt(second, here.merchantId)
        yield* here.item("cup")
        const body = { productVariantId: "cup", changeType: "RECEIPT", quantity: 1 }
        for (const round of ["a", "b", "c"]) {
          const answers = yield* Effect.all(
            Array.from({ length: 20 }, (_, index) =>
              (index % 2 === 0 ? here : there).post(`${api}/adjust-stock`, body, keyed(round))
            ),
            { concurrency: "unbounded" }
          )
          assert.strictEqual(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size, 1)
          assert.strictEqual(
            answers.filter(({ headers }) => headers["idempotency-replayed"] === undefined).length,
            1
          )
        }
        // A token that one process issued is good at the other.
        const read = yield* second.call("GET", `${api}/cup`, undefined, { token: here.token })
        assert.strictEqual(pick(read.body, "quantity"), 3)
        const crossed = yield* here.post(`${api}/adjust-stock`, { ...body, quantity: 2 }, keyed("a"))
        assertProblem(crossed, 422, "IDEMPOTENCY_KEY_REUSED", { idempotencyKey: "a" })
      })
    )

    it.effect("shows what one process acknowledged on the other at once, and never oversells over both", () =>
      Effect.gen(function* () {
        const second = yield* Second
        const here = yield* merchant
        const there = yield* merchantAt(second, here.merchantId)
        yield* here.item("cup")
        for (let quantity = 1; quantity <= 10; quantity++) {
          const [one, other] = quantity % 2 === 0 ? [here, there] : [there, here]
          yield* one.receive("cup", 1)
          assert.strictEqual(pick((yield* other.get(`${api}/cup`)).body, "quantity"), quantity)
        }
        const answers = yield* Effect.all(
          Array.from({ length: 40 }, (_, index) =>
            (index % 2 === 0 ? here : there).reserve(`o${index}`, [["cup", 1]])
          ),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(answers.filter(({ status }) => status === 201).length, 10)
        assert.strictEqual(answers.filter(({ status }) => status === 409).length, 30)
      })
    )
  })
})
