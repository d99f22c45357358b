import { assert, inject, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { readFile } from "node:fs/promises"
import path from "node:path"
import { Api } from "../../src/http/contract/Api.ts"
import { Service, eventually, fresh, merchant, merchantAt, startService } from "../support/service.ts"
import { assertAnswer, assertProblem, listAt, moment, pick } from "../support/shape.ts"
import { connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { parameter } from "../../src/services/PostgresTypes.ts"

/** What is always there (CONTRACTS section 3), and how the program answers when its database does not. */

const api = "/api/v1/inventory"
/** Processes start here, which takes its time where all processors are busy. */
const timeout = 120_000
const checkedIn = Effect.promise(() =>
  readFile(path.join(import.meta.dirname, "..", "..", "openapi.json"), "utf8")
)

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("operations", (it) => {
  it.effect("is alive and ready, and says what it depends on, without a token", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      assertAnswer(yield* call("GET", "/health/live"), 200, { status: "UP" })
      const ready = yield* call("GET", "/health/ready")
      assert.strictEqual(ready.status, 200)
      assert.strictEqual(pick(ready.body, "status"), "UP")
      const checks = pick(ready.body, "checks") as Record<string, string>
      assert.include(checks, { database: "UP", migrations: "UP" })
      assert.isTrue(Object.values(checks).every((check) => check === "UP"))
    })
  )

  it.effect("publishes the contract that is checked in: every route of the Api, as OpenAPI 3.1", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      const { body, headers, status } = yield* call("GET", "/openapi.json")
      assert.strictEqual(status, 200)
      assert.strictEqual(headers["content-type"], "application/json")
      assert.match(String(pick(body, "openapi")), /^3\.1\.\d$/)
      assert.deepStrictEqual(body, JSON.parse(yield* checkedIn))
      const paths = pick(body, "paths") as Record<string, Record<string, unknown>>
      for (const { endpoints } of Object.values(Api.groups)) {
        for (const { method, path: route } of Object.values(endpoints)) {
          const named = (route as string).replace(/:(\w+)/g, "{$1}")
          const operation = (paths[named] ?? paths[`${named}/`])?.[method.toLowerCase()]
          assert.isDefined(operation, `${method} ${named}`)
          assert.isString(pick(operation, "summary"), `${method} ${named} has a summary`)
          const statuses = Object.keys(pick(operation, "responses") as object)
          for (const always of ["400", "401", "403", "500", "503"]) {
            assert.include(statuses, always, `${method} ${named}`)
          }
        }
      }
    })
  )

  it.effect("counts what it does, as Prometheus reads it", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      yield* shop.item("cup")
      yield* shop.receive("cup", 1)
      yield* shop.reserve("o", [["cup", 2]])
      yield* shop.get(`${api}/cup`)
      const { headers, status, text } = yield* shop.call("GET", "/metrics")
      assert.strictEqual(status, 200)
      assert.match(headers["content-type"]!, /^text\/plain; version=0\.0\.4/)
      for (const line of text.trimEnd().split("\n")) {
        assert.match(
          line,
          /^(# (HELP|TYPE) [a-zA-Z_:][\w:]* .+|[a-zA-Z_:][\w:]*(\{[a-zA-Z_]\w*="([^"\\]|\\.)*"(,[a-zA-Z_]\w*="([^"\\]|\\.)*")*\})? (-?[\d.e+-]+|[+-]Inf|NaN))$/
        )
      }
      for (const name of [
        /^holdfast_postings_total\{[^}]*command="ReserveStock"[^}]*outcome="InsufficientStock"/m,
        /^holdfast_postings_total\{[^}]*command="AdjustStock"[^}]*outcome="applied"/m,
        /^holdfast_batch_postings_bucket\{/m,
        /^holdfast_batch_duration_seconds_count/m,
        /^http_server_request_duration_seconds_bucket\{[^}]*route="GET \/api\/v1\/inventory\/:productVariantId"/m
      ]) {
        assert.match(text, name)
      }
      assert.notInclude(text, shop.merchantId)
    })
  )

  it.effect("tells times in UTC with milliseconds, wherever it tells one", () =>
    Effect.gen(function* () {
      const shop = yield* merchant
      yield* shop.item("cup", { sku: "CUP" })
      yield* shop.receive("cup", 2, { lotNumber: "L", expiresAt: "2999-01-01T02:00:00+02:00" })
      yield* shop.reserve("o", [["cup", 1]])
      yield* shop.adjust("cup", "DAMAGE", 3)
      const texts = yield* Effect.forEach(
        [
          `${api}/cup`,
          `${api}/cup/ledger`,
          `${api}/reservations`,
          "/inventory/CUP",
          "/v1/api/inventory/product-variants",
          "/v1/api/inventory/locations",
          "/v1/api/inventory/discrepancies"
        ],
        (target) => Effect.map(shop.get(target), ({ text }) => text)
      )
      const times = [...texts.join("\n").matchAll(/"(?:\w+At|timestamp)":"([^"]+)"/g)].map(([, time]) => time)
      assert.isAbove(times.length, 10)
      for (const time of times) assert.isTrue(moment.holds(time), time)
      assert.include(times, "2999-01-01T00:00:00.000Z")
    })
  )

  it.effect("logs no token, no body and no statement of what a client did wrong", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const shop = yield* merchant
      const secret = fresh("secret")
      yield* shop.post(`${api}/reserve`, { orderId: `${secret}\u0000`, items: [{ variantId: secret }] })
      yield* shop.get(`${api}/${secret}`)
      yield* service.call("GET", `${api}/x`, undefined, { token: secret })
      const logged = service.stdout() + service.stderr()
      assert.notInclude(logged, secret)
      assert.notInclude(logged, shop.token)
      assert.notInclude(logged, "level=ERROR")
    })
  )

  it.effect(
    "answers 408 past its time-out; what came of it is whole, and asking again tells",
    () =>
      Effect.gen(function* () {
        const { databaseUrl } = yield* Service
        const hurried = yield* startService(databaseUrl, { REQUEST_TIMEOUT_MS: "500" })
        const { get, item, merchantId, receive } = yield* merchant
        yield* item("cup")
        yield* receive("cup", 5)
        const { post } = yield* merchantAt(hurried, merchantId)
        const body = { productVariantId: "cup", changeType: "RECEIPT", quantity: 1 }
        const key = { headers: { "idempotency-key": "k" } }
        const answer = yield* Effect.scoped(
          Effect.gen(function* () {
            const sql = yield* connect(Redacted.make(databaseUrl))
            yield* sql.run("BEGIN")
            yield* sql.run("SELECT FROM item WHERE merchant_id = $1 FOR UPDATE", [
              parameter("text", merchantId)
            ])
            return yield* post(`${api}/adjust-stock`, body, key)
          })
        )
        assertProblem(answer, 408, "INVENTORY_TIMEOUT", { operation: "AdjustStock" })
        const again = yield* eventually(
          post(`${api}/adjust-stock`, body, key),
          ({ status }) => status !== 408
        )
        assert.strictEqual(again.status, 200, again.text)
        assert.strictEqual(pick((yield* get(`${api}/cup`)).body, "quantity"), 6)
      }),
    timeout
  )

  it.effect(
    "answers 503 with Retry-After while the database is away, and heals by itself",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const service = yield* startService(Redacted.value(url))
        const shop = yield* merchantAt(service)
        yield* shop.item("cup")
        yield* shop.receive("cup", 5)
        const database = new URL(Redacted.value(url)).pathname.slice(1)
        const sql = yield* connect(Redacted.make(inject("postgresUrl")))
        yield* sql.run(`ALTER DATABASE ${database} ALLOW_CONNECTIONS false`)
        yield* sql.run(
          `SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = '${database}'`
        )
        const receive = shop.adjust("cup", "RECEIPT", 1)
        const read = shop.get(`${api}/cup`)
        for (const call of [receive, read]) {
          const answer = yield* call
          assertProblem(answer, 503, "INVENTORY_UNAVAILABLE", { retryAfterSeconds: 1 })
          assert.strictEqual(answer.headers["retry-after"], "1")
          assert.notMatch(answer.text, /postgres|connection|SELECT|at file/i)
        }
        assert.strictEqual((yield* shop.get("/health/live")).status, 200)
        const ready = yield* shop.get("/health/ready")
        assert.strictEqual(ready.status, 503)
        assert.strictEqual(pick(ready.body, "checks.database"), "DOWN")
        yield* sql.run(`ALTER DATABASE ${database} ALLOW_CONNECTIONS true`)
        yield* eventually(shop.get("/health/ready"), ({ status }) => status === 200)
        assert.strictEqual((yield* eventually(receive, ({ status }) => status !== 503)).status, 200)
        assert.strictEqual(pick((yield* read).body, "quantity"), 6)
        assert.strictEqual(listAt((yield* shop.get(`${api}/cup/ledger`)).body, "data").length, 2)
      }),
    timeout
  )
})
