import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Api } from "../../src/http/contract/Api.ts"
import { everyPermission } from "../../src/schema/Principal.ts"
import { type Answer, Service, eventually, fresh, merchant, merchantAt } from "../support/service.ts"
import {
  assertAnswer,
  assertProblem,
  assertRefusedFields,
  assertShape,
  listAt,
  pick,
  someText,
  textAt,
  uuid
} from "../support/shape.ts"
import { routes, worldOf } from "./routes.ts"

/** The edge around every call (CONTRACTS section 4; RELIABILITY, "Attacks to refuse") against the running program. */

const orders = "/api/v1/inventory"
const catalog = "/v1/api/inventory"

/** As tokens and cursors are written. */
const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url")

/** A problem without what differs from request to request. */
const apartFromInstance = ({ body }: Answer) => {
  const { instance, ...rest } = body as Record<string, unknown>
  assert.isString(instance)
  return rest
}

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("edge", (it) => {
  it("knows every route of the contract", () => {
    const names = Object.entries(Api.groups).flatMap(([group, { endpoints }]) =>
      Object.keys(endpoints).map((endpoint) => `${group}.${endpoint}`)
    )
    // A route that is new has its place in routes.ts, and is then walked over by all tests of the edge.
    assert.deepStrictEqual(routes.map(({ name }) => name).sort(), names.sort())
  })

  it.effect("answers every route with 2xx where all is well", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      for (const { body, method, name, path } of routes) {
        const answer = yield* shop.call(method, path(world), body?.(world))
        assert.isBelow(answer.status, 300, `${name}: ${answer.text}`)
        assert.strictEqual(answer.headers["content-type"], "application/json")
      }
    })
  )

  it.effect("answers 401 without a token on every route, before it looks at anything else", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      const world = yield* worldOf(yield* merchant)
      for (const { body, method, path } of routes) {
        for (const sent of body === undefined ? [undefined] : [body(world), "not JSON", ""]) {
          const answer = yield* call(method, path(world), sent)
          assertProblem(answer, 401, "UNAUTHENTICATED")
          assert.strictEqual(answer.headers["www-authenticate"], "Bearer")
        }
      }
    })
  )

  it.effect("answers every bad token with the same body", () =>
    Effect.gen(function* () {
      const { call, token } = yield* Service
      const good = yield* token({ merchantId: fresh("merchant") })
      const [header, payload, signature] = good.split(".") as [string, string, string]
      const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as Record<string, unknown>
      const target = `${orders}/reservations`
      const reference = apartFromInstance(yield* call("GET", target))
      const bad = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        `Basic ${Buffer.from("a:b").toString("base64")}`,
        good,
        `Bearer ${good}x`,
        `Bearer ${good} ${good}`,
        `Bearer ${header}.${payload}.`,
        `Bearer ${header}.${payload}`,
        `Bearer ${encode({ alg: "none" })}.${payload}.`,
        `Bearer ${encode({ alg: "NONE", typ: "JWT" })}.${payload}.${signature}`,
        `Bearer ${encode({ alg: "HS256", typ: "JWT" })}.${payload}.${signature}`,
        `Bearer ${header}.${encode({ ...claims, merchant_id: "other" })}.${signature}`,
        `Bearer ${"a".repeat(12_000)}`
      ]
      for (const authorization of bad) {
        const answer = yield* call("GET", target, undefined, { headers: { authorization } })
        assertProblem(answer, 401, "UNAUTHENTICATED")
        assert.deepStrictEqual(apartFromInstance(answer), reference)
      }
    })
  )

  it.effect("stops believing a token when it expires", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const token = yield* service.token({ merchantId: fresh("merchant"), expiresIn: 1 })
      const list = service.call("GET", `${orders}/reservations`, undefined, { token })
      assert.strictEqual((yield* list).status, 200)
      assertProblem(yield* eventually(list, ({ status }) => status !== 200), 401, "UNAUTHENTICATED")
    })
  )

  it.effect("asks each route's permission, and no other's", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      const { merchantId } = shop
      for (const { body, method, name, path, permission } of routes) {
        const others = [...everyPermission].filter((each) => each !== permission && each !== "admin")
        const without = yield* service.token({ merchantId, scope: others.join(" ") })
        const refused = yield* service.call(method, path(world), body?.(world), { token: without })
        assertProblem(refused, 403, "FORBIDDEN", { permission })
        const only = yield* service.token({ merchantId, scope: permission })
        const allowed = yield* service.call(method, path(world), body?.(world), { token: only })
        assert.isBelow(allowed.status, 300, `${name}: ${allowed.text}`)
      }
    })
  )

  it.effect("grants people what their roles grant", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      const statusAs = (roles: ReadonlyArray<string>, scope?: string) =>
        Effect.gen(function* () {
          const { merchantId } = shop
          const token = yield* service.token({
            merchantId,
            roles,
            ...(scope === undefined ? {} : { scope })
          })
          const read = yield* service.call("GET", `${orders}/${world.variantId}`, undefined, { token })
          const change = yield* service.call(
            "POST",
            `${catalog}/locations`,
            { locationId: world.locationId },
            { token }
          )
          return [read.status, change.status]
        })
      assert.deepStrictEqual(yield* statusAs(["viewer"]), [200, 403])
      assert.deepStrictEqual(yield* statusAs(["owner"]), [200, 200])
      assert.deepStrictEqual(yield* statusAs(["viewer", "manager"]), [200, 200])
      assert.deepStrictEqual(yield* statusAs(["nobody"]), [403, 403])
      assert.deepStrictEqual(yield* statusAs([], ""), [403, 403])
      assert.deepStrictEqual(yield* statusAs([], "openid inventory:read"), [200, 403])
      assert.deepStrictEqual(yield* statusAs([], "INVENTORY:READ admin:read"), [403, 403])
    })
  )

  it.effect("checks a permission before it looks at the body", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const token = yield* service.token({ merchantId: fresh("merchant"), scope: "" })
      const answer = yield* service.call("POST", `${orders}/reserve`, "not JSON", { token })
      assertProblem(answer, 403, "FORBIDDEN", { permission: "inventory:reserve" })
    })
  )

  it.effect("tells what is another merchant's from what does not exist by nothing", () =>
    Effect.gen(function* () {
      const theirs = yield* worldOf(yield* merchant)
      const shop = yield* merchant
      yield* shop.item("own", { sku: "OWN" })
      yield* shop.receive("own", 5)
      const none = fresh("none")
      const noId = "01a00000-0000-7000-8000-000000000000"
      const line = { quantity: 1 }
      /** The same call about theirs and about nothing. */
      const calls: ReadonlyArray<
        readonly [string, (id: string) => string, string, (((id: string) => unknown) | undefined)?, string?]
      > = [
        ["GET", (id) => `${orders}/${id}`, theirs.variantId],
        ["GET", (id) => `${orders}?productVariantIds=${id}`, theirs.variantId],
        ["GET", (id) => `${orders}/${id}/ledger`, theirs.variantId],
        ["GET", (id) => `${orders}/reservations/${id}`, theirs.reservationId, undefined, noId],
        ["GET", (id) => `${orders}/reservations?orderId=${id}`, theirs.orders.extend],
        ["GET", (id) => `/inventory/${id}`, theirs.sku],
        ["GET", (id) => `${catalog}/product-variants?search=${id}`, theirs.variantId],
        [
          "POST",
          () => `${orders}/check-availability`,
          theirs.variantId,
          (variantId) => ({ items: [{ variantId, ...line }] })
        ],
        [
          "POST",
          () => `${orders}/reserve`,
          theirs.variantId,
          (variantId) => ({ orderId: "o", items: [{ variantId, ...line }] })
        ],
        [
          "POST",
          () => `${orders}/reserve`,
          theirs.locationId,
          (locationId) => ({ orderId: "o", items: [{ variantId: "own", ...line }], locationId })
        ],
        ["POST", () => `${orders}/release`, theirs.orders.release, (orderId) => ({ orderId })],
        ["POST", () => `${orders}/confirm`, theirs.orders.confirm, (orderId) => ({ orderId })],
        [
          "POST",
          () => `${orders}/confirm`,
          theirs.reservationId,
          (reservationId) => ({ orderId: theirs.orders.confirm, reservationId }),
          noId
        ],
        ["POST", () => `${orders}/extend`, theirs.orders.extend, (orderId) => ({ orderId, expiresIn: 60 })],
        ["POST", (id) => `${orders}/${id}/reserve`, theirs.variantId, () => ({ orderId: "o", quantity: 1 })],
        [
          "POST",
          (id) => `${orders}/${id}/release`,
          theirs.variantId,
          () => ({ orderId: theirs.orders.releaseVariant })
        ],
        ["POST", () => `${orders}/own/release`, theirs.orders.releaseVariant, (orderId) => ({ orderId })],
        ...["RECEIPT", "SALE", "RETURN", "DAMAGE", "CORRECTION"].flatMap((changeType) => [
          [
            "POST",
            () => `${orders}/adjust-stock`,
            theirs.variantId,
            (productVariantId: string) => ({ productVariantId, changeType, quantity: 1 })
          ] as const,
          [
            "POST",
            () => `${orders}/adjust-stock`,
            theirs.locationId,
            (locationId: string) => ({ productVariantId: "own", changeType, quantity: 1, locationId })
          ] as const
        ]),
        [
          "POST",
          () => "/inventory/reserve",
          theirs.sku,
          (sku) => ({ orderId: "o", items: [{ sku, ...line }] })
        ],
        [
          "POST",
          () => "/inventory/reserve",
          theirs.stockId,
          (skuBatchId) => ({ orderId: "o", items: [{ sku: "OWN", ...line, skuBatchId }] }),
          noId
        ],
        ["POST", () => "/inventory/release", theirs.orders.releaseSkus, (orderId) => ({ orderId })],
        [
          "POST",
          (id) => `${catalog}/discrepancies/${id}/resolve`,
          theirs.discrepancyId,
          () => ({ reason: "r" }),
          noId
        ]
      ]
      for (const [method, path, foreign, body, missing = none] of calls) {
        const about = (id: string) =>
          Effect.map(shop.call(method, path(id), body?.(id)), ({ headers, status, text }) => ({
            status,
            text: text
              .replaceAll(id, "<id>")
              .replaceAll(headers["x-request-id"]!, "<instance>")
              .replaceAll(/"timestamp":"[^"]+"/g, "<now>")
          }))
        const toTheirs = yield* about(foreign)
        const toNothing = yield* about(missing)
        assert.deepStrictEqual(toTheirs, toNothing, `${method} ${path("<id>")}`)
        assert.isBelow(toTheirs.status, 500)
      }
    })
  )

  it.effect("shows nothing of one merchant in any list of another, whatever cursor it brings", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      yield* worldOf(shop)
      yield* shop.item(`second-${shop.merchantId}`)
      const other = yield* merchant
      yield* other.item("own")
      for (const path of [
        `${orders}/reservations`,
        `${catalog}/product-variants`,
        `${catalog}/locations`,
        `${catalog}/discrepancies`
      ]) {
        const cursor = pick((yield* shop.get(`${path}?limit=1`)).body, "nextCursor")
        for (const query of ["", "?limit=200", `?cursor=${String(cursor)}`]) {
          const { text } = yield* other.get(path + query)
          assert.notInclude(text, shop.merchantId)
        }
      }
    })
  )

  it.effect("keeps the same ids of two merchants apart", () =>
    Effect.gen(function* () {
      const first = yield* merchant
      const second = yield* merchant
      for (const shop of [first, second]) {
        yield* shop.item("cup", { sku: "CUP" })
        yield* shop.receive("cup", 5)
      }
      assert.strictEqual((yield* first.reserve("o", [["cup", 5]])).status, 201)
      assert.strictEqual((yield* second.reserve("o", [["cup", 3]])).status, 201)
      yield* first.post(`${orders}/confirm`, { orderId: "o" })
      const { body } = yield* second.get(`${orders}/cup`)
      assert.deepStrictEqual([pick(body, "quantity"), pick(body, "reservedQuantity")], [5, 3])
    })
  )

  it.effect("refuses fields that are not the caller's to set, and changes nothing", () =>
    Effect.gen(function* () {
      const victim = yield* merchant
      yield* victim.item("cup")
      const before = yield* victim.get(`${orders}/cup`)
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      const smuggled = {
        merchantId: victim.merchantId,
        merchant_id: victim.merchantId,
        id: "01a00000-0000-7000-8000-000000000000",
        itemId: "01a00000-0000-7000-8000-000000000000",
        onHand: 987_654_321,
        reserved: 987_654_321,
        reservedQuantity: 987_654_321,
        availableQuantity: 987_654_321,
        unallocatableQuantity: 987_654_321,
        status: "DISCONTINUED",
        isDefault: true,
        discontinued: true,
        actor: "somebody else",
        createdAt: "2001-01-01T00:00:00.000Z",
        updatedAt: "2001-01-01T00:00:00.000Z",
        closedBy: "somebody else",
        ["__proto__"]: { polluted: true },
        constructor: { prototype: { polluted: true } }
      }
      for (const { body, method, name, path } of routes) {
        if (body === undefined) continue
        const answer = yield* shop.call(method, path(world), { ...smuggled, ...body(world) })
        assertProblem(answer, 400, "VALIDATION_FAILED", { errors: pick(answer.body, "errors") })
        const refused = listAt(answer.body, "errors").map((error) => pick(error, "path"))
        for (const field of ["merchantId", "onHand", "reserved", "actor", "__proto__", "constructor"]) {
          assert.include(refused, `body.${field}`, name)
        }
        assert.notInclude(answer.text, victim.merchantId, name)
      }
      const after = yield* victim.get(`${orders}/cup`)
      assert.strictEqual(after.text, before.text)
      const locations = yield* shop.get(`${catalog}/locations`)
      assert.strictEqual(
        listAt(locations.body, "data").filter((each) => pick(each, "isDefault") === true).length,
        1
      )
      const discrepancies = yield* shop.get(`${catalog}/discrepancies`)
      assert.isNull(pick(discrepancies.body, "data.0.closedBy"))
      const ledger = yield* shop.get(`${orders}/${world.variantId}/ledger`)
      assert.notInclude(ledger.text, "somebody else")
    })
  )

  it.effect("returns the request id that it was given, and makes one where none can be taken", () =>
    Effect.gen(function* () {
      const { get, post } = yield* merchant
      const { call } = yield* Service
      for (const target of [`${orders}/reservations`, `${orders}/unknown`, "/nowhere", "/a/%ZZ"]) {
        const given = yield* get(target, { headers: { "x-request-id": "req-7" } })
        assert.strictEqual(given.headers["x-request-id"], "req-7", target)
        if (given.status !== 200) assert.strictEqual(pick(given.body, "instance"), "req-7")
        for (const bad of ["", "with space", "x".repeat(129), "ü"]) {
          const made = yield* get(target, { headers: { "x-request-id": bad } })
          assertShape(made.headers["x-request-id"], uuid)
        }
        assertShape((yield* get(target)).headers["x-request-id"], uuid)
      }
      const unauthenticated = yield* call("GET", `${orders}/x`, undefined, {
        headers: { "x-request-id": "req-8" }
      })
      assert.strictEqual(unauthenticated.headers["x-request-id"], "req-8")
      const invalid = yield* post(`${orders}/reserve`, {}, { headers: { "x-request-id": "req-9" } })
      assert.strictEqual(pick(invalid.body, "instance"), "req-9")
    })
  )

  it.effect("answers an unknown route with a problem, also where the path cannot be decoded", () =>
    Effect.gen(function* () {
      const { call, get } = yield* merchant
      for (const target of [
        "/nowhere",
        "/api/v1/inventory/a/b/c",
        "/api/v2/inventory/cup",
        "/v1/api/inventory",
        "/API/V1/INVENTORY/reservations",
        `${orders}/%ZZ`,
        `${orders}/%E0%A4%A`,
        `${orders}/%C0%AF/ledger`,
        `${orders}/${"x".repeat(2_000)}`
      ]) {
        assertProblem(yield* get(target), 404, "NOT_FOUND")
      }
      for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
        assertProblem(yield* call(method, "/nowhere"), 404, "NOT_FOUND")
      }
    })
  )

  it.effect("answers a wrong method with 405 and the right ones", () =>
    Effect.gen(function* () {
      const { call } = yield* merchant
      const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
        [`${catalog}/product-variants`, ["POST", "GET", "HEAD"]],
        [`${catalog}/product-variants/cup`, ["PATCH"]],
        [`${orders}/cup/ledger`, ["GET", "HEAD"]],
        ["/health/live", ["GET", "HEAD"]]
      ]
      for (const [target, allow] of cases) {
        for (const method of ["DELETE", "PUT", "OPTIONS", "TRACE"]) {
          const answer = yield* call(method, target)
          assertProblem(answer, 405, "METHOD_NOT_ALLOWED", { allow })
          assert.strictEqual(answer.headers["allow"], allow.join(", "))
        }
      }
    })
  )

  it.effect("answers HEAD like GET, without the body", () =>
    Effect.gen(function* () {
      const { call } = yield* merchant
      for (const target of [`${orders}/reservations`, "/health/ready", "/openapi.json"]) {
        const answer = yield* call("HEAD", target)
        assert.strictEqual(answer.status, 200, target)
        assert.strictEqual(answer.text, "")
      }
      assert.strictEqual((yield* call("HEAD", `${orders}/unknown`)).status, 404)
    })
  )

  it.effect("bounds the length of pages and refuses cursors that it did not make", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      const world = yield* worldOf(shop)
      const lists = [
        `${orders}/reservations`,
        `${orders}/${world.variantId}/ledger`,
        `${catalog}/product-variants`,
        `${catalog}/locations`,
        `${catalog}/discrepancies`
      ]
      for (const path of lists) {
        for (const limit of ["1", "200"]) {
          const answer = yield* shop.get(`${path}?limit=${limit}`)
          assert.strictEqual(answer.status, 200)
          const given = listAt(answer.body, "data").length
          assert.isAtMost(given, Number(limit))
          assert.isAtLeast(given, 1)
        }
        for (const limit of ["0", "201", "-1", "1.5", "x", "", "NaN", "1e400", "1&limit=2"]) {
          assertRefusedFields(yield* shop.get(`${path}?limit=${limit}`), "query.limit")
        }
        for (const cursor of [
          "",
          "x",
          "%00",
          "ä",
          encode([]),
          encode({}),
          encode(null),
          encode(["x"]),
          encode([1, "x"]),
          encode([1e300, "x", 1]),
          encode([1.5]),
          encode(["x", "y", "z"]),
          encode([Number.MAX_SAFE_INTEGER, world.reservationId, 1e300]),
          encode(["'; DROP TABLE item; --"])
        ]) {
          const answer = yield* shop.get(`${path}?cursor=${encodeURIComponent(cursor)}`)
          assertProblem(answer, 400, "VALIDATION_FAILED")
        }
        assertRefusedFields(yield* shop.get(`${path}?cursor=${"x".repeat(1_025)}`), "query.cursor")
      }
      assertRefusedFields(yield* shop.get(`${catalog}/discrepancies?status=open`), "query.status")
      assertRefusedFields(yield* shop.get(`${catalog}/discrepancies?kind=a%00b`), "query.kind")
      assertRefusedFields(yield* shop.get(`${orders}/reservations?status=open`), "query.status")
      assertRefusedFields(yield* shop.get(`${orders}/reservations?orderId=%00`), "query.orderId")
      assertRefusedFields(yield* shop.get(`${catalog}/product-variants?search=%00`), "query.search")
    })
  )

  it.effect("walks through a list page by page, each row once", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      const ids = Array.from({ length: 23 }, (_, index) => `item-${String(index).padStart(2, "0")}`)
      for (const id of ids) yield* shop.item(id)
      const seen: Array<unknown> = []
      let query = "?limit=5"
      let pages = 0
      for (;;) {
        const page = yield* shop.get(`${catalog}/product-variants${query}`)
        seen.push(...listAt(page.body, "data").map((each) => pick(each, "productVariantId")))
        pages += 1
        if (pick(page.body, "nextCursor") === null) break
        query = `?limit=5&cursor=${encodeURIComponent(textAt(page.body, "nextCursor"))}`
      }
      assert.deepStrictEqual(seen, ids)
      assert.strictEqual(pages, 5)
      const all = yield* shop.get(`${catalog}/product-variants`)
      assert.strictEqual(listAt(all.body, "data").length, 23)
    })
  )

  it.effect("issues development tokens within bounds, and refuses the rest with problems", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      assertAnswer(yield* call("POST", "/dev/token"), 200, { token: someText })
      assertAnswer(yield* call("POST", "/dev/token", {}), 200, { token: someText })
      for (const body of [
        "not JSON",
        "[]",
        '"text"',
        "null",
        "7",
        '{"merchantId":""}',
        '{"merchantId":"\\ud800"}',
        '{"merchantId":"a\\u0000b"}',
        '{"merchantId":null}',
        '{"sub":7}',
        '{"scopes":"inventory:read"}',
        '{"scope":["a"]}',
        '{"scope":"\\""}',
        '{"roles":"owner"}',
        '{"roles":[""]}',
        '{"expiresIn":0}',
        '{"expiresIn":1e400}',
        '{"expiresIn":31536001}'
      ]) {
        const answer = yield* call("POST", "/dev/token", body)
        assertProblemWithoutId(answer)
      }
      const keys = yield* call("GET", "/dev/jw-certs")
      assertAnswer(keys, 200, {
        keys: [
          {
            kty: "EC",
            crv: "P-256",
            x: someText,
            y: someText,
            kid: someText,
            alg: "ES256",
            use: "sig"
          }
        ]
      })
    })
  )

  it.effect("creates a merchant with its default location at first use", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const { get, item, receive } = yield* merchantAt(service, `größe ${fresh("m")} / 'x' "y" \\`)
      assert.deepStrictEqual(pick((yield* get(`${catalog}/product-variants`)).body, "data"), [])
      yield* item("cup")
      yield* receive("cup", 1)
      const locations = yield* get(`${catalog}/locations`)
      assert.strictEqual(pick(locations.body, "data.0.locationId"), "default")
    })
  )
})

const assertProblemWithoutId = (answer: Answer): void => {
  assert.strictEqual(answer.status, 400, answer.text)
  assert.strictEqual(answer.headers["content-type"], "application/problem+json")
  assert.strictEqual(pick(answer.body, "code"), "VALIDATION_FAILED")
}
