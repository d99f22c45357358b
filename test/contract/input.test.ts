import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as http from "node:http"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { connect } from "../support/ledger.ts"
import { type Answer, Service, fresh, merchant } from "../support/service.ts"
import { assertProblem, assertRefusedFields, listAt, pick } from "../support/shape.ts"
import { type Kind, type Merchant, type Route, type World, changing, routes, worldOf } from "./routes.ts"

// Goal: nothing that a client can put into a body is answered with 5xx, or changes anything unless it is right.
// Method: every changing route's good body, spoilt in one place at a time; what the merchant has is compared after.

/** Written into the body as it stands: JSON.stringify would not write it. */
class Raw {
  readonly json: string
  constructor(json: string) {
    this.json = json
  }
}

const tooLong = "x".repeat(129)
const notText: ReadonlyArray<unknown> = [7, true, null, [], {}, ["x"]]
const badIds = [
  "",
  ".",
  "..",
  tooLong,
  "a\u0000b",
  "\u0000",
  "a\nb",
  "\u007f",
  "\u0085",
  "\ud800",
  "a\udfff",
  ...notText
]
const badNumbers = [-1, 1.5, -0.5, 1e12 + 1, 2 ** 53, -(2 ** 53), 1e300, "1", "", true, null, [], {}, [1]]
const unwritable = ["1e400", "-1e400", "9007199254740993", "1000000000000.5", "99999999999999999999"].map(
  (json) => new Raw(json)
)
const badText = ["x".repeat(1_025), "\u0000", "a\u0000b", "\ud800", "a\tb", ...notText]

const bad: { readonly [K in Kind]: ReadonlyArray<unknown> } = {
  id: badIds,
  newId: [...badIds, "reserve", "adjust-stock", "bulk"],
  quantity: [0, ...badNumbers, ...unwritable, new Raw("-0"), new Raw("0.0")],
  count: [...badNumbers, ...unwritable],
  seconds: [0, -1, 1.5, 604_801, "60", "", true, null, [], {}, ...unwritable],
  text: badText,
  reason: ["", ...badText],
  moment: ["", "now", "2030-02-30T00:00:00Z", "2030-01-01", "2030-01-01T00:00:00", "\u0000", ...notText],
  uuid: ["", "x", "01A00000-0000-7000-8000-00000000000A", "01a00000000070008000000000000000", ...notText],
  flag: ["true", "", 0, 1, null, [], {}],
  choice: ["", "receipt", "NONE", "\u0000", ...notText],
  lines: [[], null, {}, "x", 7, [null], [[]], ["x"], [7], [{}], Array.from({ length: 501 }, () => ({}))],
  metadata: [null, [], "x", 7, { big: new Raw("9007199254740993") }, { deep: [{ huge: new Raw("1e400") }] }]
}

/** The body with one field set, or taken away. */
const spoilt = (body: unknown, path: string, value: unknown): unknown => {
  const copy = structuredClone(body)
  const names = path.split(".")
  const last = names.pop()!
  const at = names.reduce<unknown>((found, name) => (found as Record<string, unknown>)[name], copy)
  if (value === undefined) delete (at as Record<string, unknown>)[last]
  else (at as Record<string, unknown>)[last] = value
  return copy
}

const written = (body: unknown): string => {
  const raws: Array<string> = []
  const text = JSON.stringify(body, (_, value: unknown) =>
    value instanceof Raw ? `<raw ${raws.push(value.json) - 1}>` : value
  )
  return text.replace(/"<raw (\d+)>"/g, (_, index: string) => raws[Number(index)]!)
}

/** The paths of all objects in a body, itself first; metadata may have any fields. */
const objectsOf = (
  value: unknown,
  path: ReadonlyArray<string> = []
): ReadonlyArray<ReadonlyArray<string>> => {
  if (typeof value !== "object" || value === null) return []
  const inside = Object.entries(value).flatMap(([name, field]) =>
    name === "metadata" ? [] : objectsOf(field, [...path, name])
  )
  return Array.isArray(value) ? inside : [path, ...inside]
}

const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth)

/** Bodies that are wrong whatever the route, and what they are answered with. */
const wrongBodies = (good: string): ReadonlyArray<readonly [string, string, number]> => {
  const inside = good.slice(1)
  const firstName = /^\{("[^"]+")/.exec(good)![1]!
  return [
    ["empty", "", 400],
    ["white space", " \n\t ", 400],
    ["not JSON", "orderId=7", 400],
    ["cut off", good.slice(0, -1), 400],
    ["followed by more", `${good}{}`, 400],
    ["single quotes", good.replaceAll('"', "'"), 400],
    ["trailing comma", `${good.slice(0, -1)},}`, 400],
    ["comment", `/* hello */${good}`, 400],
    ["an array", `[${good}]`, 400],
    ["text", JSON.stringify(good), 400],
    ["a number", "7", 400],
    ["null", "null", 400],
    ["true", "true", 400],
    ["NaN", `{"unknown":NaN,${inside}`, 400],
    ["a raw control character", `{"unknown":"\u0000",${inside}`, 400],
    ["a name twice", `{${firstName}:"first",${inside}`, 400],
    ["a name twice, once escaped", `{"\\u0061":1,"a":2,${inside}`, 400],
    ["a name twice inside", `{"unknown":[{"a":1,"b":{"a":1},"a":2}],${inside}`, 400],
    ["40 levels deep", `{"unknown":${nested(40)},${inside}`, 400],
    ["100,000 levels deep", `{"unknown":${nested(100_000)},${inside}`, 400],
    ["100,000 open brackets", `{"unknown":${"[".repeat(100_000)}`, 400],
    ["more than 1 MiB", `{"unknown":"${"x".repeat(1_048_576)}",${inside}`, 413]
  ]
}

const wrongTypes = [
  "text/plain",
  "application/x-www-form-urlencoded",
  "multipart/form-data",
  "application/xml",
  "application/vnd.api+json",
  "application/jsonp",
  "json",
  ""
]

const bodyOf = (orderId: string) => `{"orderId":"${orderId}","items":[{"variantId":"cup","quantity":1}]}`

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("bad input", (it) => {
  for (const route of changing) {
    it.effect(`${route.name} refuses it, and nothing changes`, () =>
      Effect.gen(function* () {
        const shop = yield* merchant
        const world = yield* worldOf(shop)
        const before = yield* everythingOf(shop, world)
        yield* refusesWrongBodies(shop, route, world)
        yield* refusesWrongFields(shop, route, world)
        assert.deepStrictEqual(yield* everythingOf(shop, world), before)
      })
    )
  }

  it.effect("names every bad field, not only the first one", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const answer = yield* post("/api/v1/inventory/reserve", {
        orderId: "",
        items: [{ variantId: "cup", quantity: 0 }, { quantity: 1 }, { variantId: 7, quantity: "x" }],
        expiresIn: 0,
        metadata: 7
      })
      assertProblem(answer, 400, "VALIDATION_FAILED", { errors: pick(answer.body, "errors") })
      assert.sameMembers(
        listAt(answer.body, "errors").map((error) => pick(error, "path")) as Array<unknown>,
        [
          "body.orderId",
          "body.items.0.quantity",
          "body.items.1.variantId",
          "body.items.2.variantId",
          "body.items.2.quantity",
          "body.expiresIn",
          "body.metadata"
        ]
      )
    })
  )

  it.effect("takes what is just within the limits", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      const longest = "ü".repeat(128)
      yield* item(longest)
      yield* receive(longest, 1_000_000_000_000)
      const reserve = (body: unknown) => post("/api/v1/inventory/reserve", body)
      const lines = Array.from({ length: 500 }, () => ({ variantId: longest, quantity: 1 }))
      const most = yield* reserve({ orderId: longest, items: lines, expiresIn: 604_800 })
      assert.strictEqual(most.status, 201, most.text)
      const items = [{ variantId: longest, quantity: 1 }]
      const metadata = (text: string) => `"items":${JSON.stringify(items)},"metadata":{"kept":${text}}}`
      const deep = `{"orderId":"deep",${metadata(nested(30))}`
      assert.strictEqual((yield* reserve(deep)).status, 201)
      const around = `{"orderId":"full",${metadata('""')}`
      const filler = "x".repeat(1_048_576 - Buffer.byteLength(around))
      const full = `{"orderId":"full",${metadata(`"${filler}"`)}`
      assert.strictEqual(Buffer.byteLength(full), 1_048_576)
      assert.strictEqual((yield* reserve(full)).status, 201)
      const over = yield* reserve(`${full} `)
      assertProblem(over, 413, "PAYLOAD_TOO_LARGE", { limitBytes: 1_048_576 })
    })
  )

  for (const route of changing) {
    it.effect(`${route.name} refuses fields that it does not know, at any depth`, () =>
      Effect.gen(function* () {
        const shop = yield* merchant
        const world = yield* worldOf(shop)
        const before = yield* everythingOf(shop, world)
        const good = route.body!(world)
        for (const place of objectsOf(good)) {
          const path = [...place, "zzzUnknown"].join(".")
          const answer = yield* send(shop, route, world, JSON.stringify(spoilt(good, path, 1)))
          if (route.name === "bulk.bulk" && place.length > 0) {
            assert.strictEqual(pick(answer.body, `results.${place[1]}.status`) ?? answer.status, 400)
          } else assertRefusedFields(answer, `body.${path}`)
        }
        assert.deepStrictEqual(yield* everythingOf(shop, world), before)
      })
    )
  }

  it.effect("names the field that was likely meant in place of one that it does not know", () =>
    Effect.gen(function* () {
      const { get, item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const refused = yield* post("/api/v1/inventory/reserve", {
        orderId: "o",
        items: [{ variantId: "cup", quantty: 1, quantity: 1 }],
        location: "paris",
        expires_in: 5,
        xyz: null
      })
      assertProblem(refused, 400, "VALIDATION_FAILED", {
        errors: [
          { path: "body.location", message: "is not known here: did you mean locationId?" },
          { path: "body.expires_in", message: "is not known here: did you mean expiresIn?" },
          {
            path: "body.xyz",
            message: "is not known here: known are orderId, items, expiresIn, locationId, metadata"
          },
          { path: "body.items.0.quantty", message: "is not known here: did you mean quantity?" }
        ]
      })
      const filter = yield* get("/v1/api/inventory/discrepancies?statuss=OPEN")
      assertProblem(filter, 400, "VALIDATION_FAILED", {
        errors: [{ path: "query.statuss", message: "is not known here: did you mean status?" }]
      })
      const bulk = yield* post("/api/v1/inventory/bulk", {
        mode: "continueOnFailure",
        operations: [{ type: "receipt", productVariantId: "cup", quantity: 1, lot: "L" }]
      })
      assert.strictEqual(pick(bulk.body, "results.0.status"), 400, bulk.text)
      assert.include(bulk.text, "did you mean lotNumber?")
      assert.strictEqual(pick((yield* get("/api/v1/inventory/cup")).body, "reservedQuantity"), 0)
    })
  )

  for (const route of routes) {
    it.effect(`${route.name} refuses query parameters that it does not know`, () =>
      Effect.gen(function* () {
        const shop = yield* merchant
        const world = yield* worldOf(shop)
        const target = route.path(world)
        const body = route.body === undefined ? undefined : route.body(world)
        const answer = yield* shop.call(
          route.method,
          `${target}${target.includes("?") ? "&" : "?"}zzzUnknown=1`,
          body
        )
        assertRefusedFields(answer, "query.zzzUnknown")
      })
    )
  }

  it.effect("refuses the ids . and .., which no path can name", () =>
    Effect.gen(function* () {
      const { adjust, get, post } = yield* merchant
      for (const id of [".", ".."]) {
        assertRefusedFields(
          yield* post("/v1/api/inventory/product-variants", { productVariantId: id, sku: id }),
          "body.productVariantId",
          "body.sku"
        )
        assertRefusedFields(yield* adjust("cup", "RECEIPT", 1, { locationId: id }), "body.locationId")
        assertRefusedFields(
          yield* get(`/v1/api/inventory/stocks?locationId=${encodeURIComponent(id)}`),
          "query.locationId"
        )
      }
      const dots = yield* post("/v1/api/inventory/product-variants", { productVariantId: "..." })
      assert.strictEqual(dots.status, 201, dots.text)
    })
  )

  it.effect("takes a list in a query separated by commas, repeated, or both", () =>
    Effect.gen(function* () {
      const { get, item, receive } = yield* merchant
      for (const variantId of ["a", "b", "c"]) yield* item(variantId)
      yield* receive("a", 1)
      const listed = (query: string) =>
        Effect.map(get(`/api/v1/inventory?${query}`), ({ body }) =>
          listAt(body, "data").map((found) => pick(found, "productVariantId"))
        )
      for (const query of [
        "productVariantIds=a,b,c",
        "productVariantIds=a&productVariantIds=b&productVariantIds=c",
        "productVariantIds=a,b&productVariantIds=c"
      ]) {
        assert.deepStrictEqual(yield* listed(query), ["a", "b", "c"], query)
      }
      for (const query of ["type=RECEIPT,SALE", "type=RECEIPT&type=SALE"]) {
        const ledger = yield* get(`/api/v1/inventory/a/ledger?${query}`)
        assert.strictEqual(listAt(ledger.body, "data").length, 1, ledger.text)
      }
      const wrong = yield* get("/api/v1/inventory/a/ledger?type=RECEIPT&type=NONE")
      assert.strictEqual(wrong.status, 400, wrong.text)
    })
  )

  it.effect("takes JSON in every form that it may have", () =>
    Effect.gen(function* () {
      const { call, item, receive, token } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 99)
      const send = (body: string, headers: Record<string, string>) =>
        call("POST", "/api/v1/inventory/reserve", body, { token, headers })
      for (const type of ["application/json", "Application/JSON", "application/json; charset=utf-8"]) {
        const answer = yield* send(bodyOf(fresh("o")), { "content-type": type })
        assert.strictEqual(answer.status, 201, answer.text)
      }
      assert.strictEqual((yield* send(`\uFEFF${bodyOf("bom")}`, {})).status, 201)
      assert.strictEqual((yield* send(` \r\n\t${bodyOf("space")} `, {})).status, 201)
      assert.strictEqual((yield* send(bodyOf("\\u0061\\/b"), {})).status, 201)
      assert.strictEqual(
        (yield* send('{"orderId":"e","items":[{"variantId":"cup","quantity":1e0}]}', {})).status,
        201
      )
    })
  )

  it.effect("reads the same body however it comes: whole, in pieces, in chunks, asked for first", () =>
    Effect.gen(function* () {
      const { item, receive, token } = yield* merchant
      const { port } = yield* Service
      const variantId = "Täßchen"
      yield* item(variantId)
      yield* receive(variantId, 9)
      const send = (orderId: string, headers: Record<string, string | number>, pieces: number) =>
        Effect.promise(() => {
          const body = Buffer.from(JSON.stringify({ orderId, items: [{ variantId, quantity: 1 }] }))
          const length = headers["transfer-encoding"] === undefined ? { "content-length": body.length } : {}
          return new Promise<string>((resolve, reject) => {
            const request = http.request({
              host: "127.0.0.1",
              port,
              method: "POST",
              path: "/api/v1/inventory/reserve",
              headers: { authorization: `Bearer ${token}`, ...length, ...headers }
            })
            // Each piece is sent when the one before is on its way, so that characters are cut in two.
            const write = (from: number): void => {
              const to = from + Math.ceil(body.length / pieces)
              if (to >= body.length) request.end(body.subarray(from))
              else request.write(body.subarray(from, to), () => setImmediate(write, to))
            }
            request.on("response", (response) => {
              let text = ""
              response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
              response.on("end", () => resolve(`${response.statusCode} ${text}`))
            })
            request.on("error", reject)
            if (headers["expect"] === undefined) write(0)
            else request.on("continue", () => write(0)).flushHeaders()
          })
        })
      const ways: ReadonlyArray<readonly [Record<string, string>, number]> = [
        [{}, 1],
        [{}, 1_000],
        [{ "transfer-encoding": "chunked" }, 1],
        [{ "transfer-encoding": "chunked" }, 1_000],
        [{ expect: "100-continue" }, 1],
        [{ expect: "100-continue" }, 7]
      ]
      for (const [index, [headers, pieces]] of ways.entries()) {
        const answer = yield* send(`order-${index}`, headers, pieces)
        assert.match(answer, /^201 /)
        assert.include(answer, `"orderId":"order-${index}","items":[{"variantId":"${variantId}"`)
      }
    })
  )

  it.effect("refuses what is compressed, or larger than it says", () =>
    Effect.gen(function* () {
      const { call } = yield* merchant
      for (const encoding of ["gzip", "deflate", "br"]) {
        const answer = yield* call("POST", "/api/v1/inventory/reserve", "{}", {
          headers: { "content-encoding": encoding }
        })
        assertProblem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
      }
      const large = yield* call("POST", "/api/v1/inventory/reserve", `{"x":"${"x".repeat(1_100_000)}"}`, {
        headers: { "transfer-encoding": "chunked" }
      })
      assertProblem(large, 413, "PAYLOAD_TOO_LARGE", { limitBytes: 1_048_576 })
      const announced = yield* call("POST", "/api/v1/inventory/reserve", undefined, {
        headers: { "content-type": "application/json", "content-length": "1073741824" }
      })
      assertProblem(announced, 413, "PAYLOAD_TOO_LARGE", { limitBytes: 1_048_576 })
    })
  )

  it.effect("refuses what is not UTF-8, and not the character that stands for it", () =>
    Effect.gen(function* () {
      const { call, item, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      const reserve = (body: string | Buffer) =>
        call("POST", "/api/v1/inventory/reserve", body, { headers: { "content-type": "application/json" } })
      for (const bytes of ["ff", "c0af", "eda080", "f4908080", "e282"]) {
        const [before, after] = bodyOf("a|b").split("|") as [string, string]
        const answer = yield* reserve(
          Buffer.concat([Buffer.from(before), Buffer.from(bytes, "hex"), Buffer.from(after)])
        )
        assertProblem(answer, 400, "VALIDATION_FAILED", {
          errors: [{ path: "body", message: "must be UTF-8" }]
        })
      }
      assert.strictEqual((yield* reserve(bodyOf("a\uFFFDb"))).status, 201)
    })
  )

  it.effect("refuses a list so long that naming its faults would be work for seconds", () =>
    Effect.gen(function* () {
      const { post } = yield* merchant
      const answer = yield* post(
        "/api/v1/inventory/reserve",
        `{"orderId":"o","items":[${"0,".repeat(399_999)}0]}`
      )
      assertProblem(answer, 400, "VALIDATION_FAILED", {
        errors: [{ path: "body", message: "must not have more than 1000 entries in an object or a list" }]
      })
    })
  )

  it.effect("refuses an Idempotency-Key that cannot be one", () =>
    Effect.gen(function* () {
      const { item, post, receive } = yield* merchant
      yield* item("cup")
      yield* receive("cup", 5)
      for (const key of ["", "x".repeat(256), "ü"]) {
        const answer = yield* post(
          "/api/v1/inventory/adjust-stock",
          { productVariantId: "cup", changeType: "RECEIPT", quantity: 1 },
          { headers: { "idempotency-key": key } }
        )
        assertProblem(answer, 400, "VALIDATION_FAILED", { errors: pick(answer.body, "errors") })
        assert.strictEqual(pick(answer.body, "errors.0.path"), "headers.idempotency-key")
      }
    })
  )
})

const send = (shop: Merchant, route: Route, world: World, body: string, contentType = "application/json") =>
  shop.call(route.method, route.path(world), body, {
    // A failure must not be kept under it either.
    headers: { "content-type": contentType, "idempotency-key": fresh("key") }
  })

const refusesWrongBodies = Effect.fnUntraced(function* (shop: Merchant, route: Route, world: World) {
  const good = JSON.stringify(route.body!(world))
  for (const [name, body, status] of wrongBodies(good)) {
    const answer = yield* send(shop, route, world, body)
    assertRefused(answer, status, `${route.name} with a body that is ${name}`)
  }
  for (const contentType of wrongTypes) {
    const answer = yield* send(shop, route, world, good, contentType)
    assertRefused(answer, 415, `${route.name} as ${contentType}`)
  }
})

const refusesWrongFields = Effect.fnUntraced(function* (shop: Merchant, route: Route, world: World) {
  const good = route.body!(world)
  const cases = [
    ...(route.required ?? []).map((path) => [path, undefined] as const),
    ...Object.entries(route.fields!).flatMap(([path, kind]) =>
      bad[kind].map((value) => [path, value] as const)
    )
  ]
  for (const [path, value] of cases) {
    const body = written(spoilt(good, path, value))
    const answer = yield* send(shop, route, world, body)
    const what = `${route.name} with ${body.slice(0, 300)}`
    assertRefused(answer, 400, what)
    const named = listAt(answer.body, "errors").map((error) => pick(error, "path"))
    assert.isTrue(
      named.every((each) => String(each).startsWith(`body.${path.split(".")[0]!}`)),
      `${what} blames ${named.join(", ")}`
    )
  }
})

const codes = new Map([
  [400, "VALIDATION_FAILED"],
  [413, "PAYLOAD_TOO_LARGE"],
  [415, "UNSUPPORTED_MEDIA_TYPE"]
])

const assertRefused = (answer: Answer, status: number, what: string): void => {
  assert.strictEqual(answer.status, status, `${what}: ${answer.text.slice(0, 500)}`)
  assert.strictEqual(answer.headers["content-type"], "application/problem+json", what)
  assert.strictEqual(pick(answer.body, "code"), codes.get(status), what)
  assert.strictEqual(pick(answer.body, "status"), status, what)
  assert.strictEqual(pick(answer.body, "instance"), answer.headers["x-request-id"], what)
}

/** All that is told of a merchant, and how many rows it has of everything. */
const everythingOf = Effect.fnUntraced(function* (shop: Merchant, world: World) {
  const reads = yield* Effect.forEach(
    [
      `/api/v1/inventory/${world.variantId}`,
      `/api/v1/inventory/${world.variantId}/ledger?limit=200`,
      `/inventory/${world.sku}`,
      "/v1/api/inventory/product-variants?limit=200",
      "/v1/api/inventory/locations?limit=200",
      "/v1/api/inventory/discrepancies?limit=200"
    ],
    (path) => Effect.map(shop.get(path), ({ body }) => body)
  )
  const reservations = yield* shop.get("/api/v1/inventory/reservations?limit=200")
  const sql = yield* connect(Redacted.make((yield* Service).databaseUrl))
  const [rows] = yield* sql.run(countStatement, [parameter("text", shop.merchantId)])
  return { reads, reservations: pick(reservations.body, "data"), rows }
})

const countStatement = `
  SELECT
    (SELECT count(*) FROM merchant) AS merchants,
    (SELECT count(*) FROM location WHERE merchant_id = $1) AS locations,
    (SELECT count(*) FROM item WHERE merchant_id = $1) AS items,
    (SELECT count(*) FROM stock WHERE merchant_id = $1) AS stocks,
    (SELECT count(*) FROM inventory_ledger WHERE merchant_id = $1) AS movements,
    (SELECT count(*) FROM reservation WHERE merchant_id = $1) AS reservations,
    (SELECT count(*) FROM reservation_line WHERE merchant_id = $1) AS lines,
    (SELECT count(*) FROM tracking WHERE merchant_id = $1) AS tracking,
    (SELECT count(*) FROM idempotency WHERE merchant_id = $1) AS keys,
    (SELECT count(*) FROM discrepancy WHERE merchant_id = $1) AS discrepancies,
    (SELECT count(*) FROM outbox) AS outbox`
