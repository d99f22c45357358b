import { assert, describe, inject, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { attributeOf, collector } from "../support/collector.ts"
import { connect } from "../support/ledger.ts"
import { ownKafkaMissing, saslUser } from "../support/kafka.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type Answer, eventually, fresh, merchantAt, run, startService } from "../support/service.ts"
import { sharedKafka } from "../support/shared.ts"

/** What leaves the program for those who watch it: that it arrives, and that it tells no secret. */

const api = "/api/v1/inventory"
/** Processes start and stop here, which takes its time where all processors are busy. */
const timeout = 120_000
/** Shaped so that it can stand in a URL, a header, a token and JSON without being written differently. */
const canary = (what: string): string => `canary${what}${randomBytes(12).toString("hex")}`

const hex = (bytes: number): string => randomBytes(bytes).toString("hex")

describe("over OTLP", { timeout }, () => {
  it.live(
    "traces, metrics and logs arrive, with request id and merchant, and continue the caller's trace",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const collected = yield* collector
        const service = yield* startService(Redacted.value(url), {
          OTEL_EXPORTER_OTLP_ENDPOINT: collected.endpoint,
          LOG_LEVEL: "debug"
        })
        const shop = yield* merchantAt(service)
        yield* shop.item("cup")
        yield* shop.receive("cup", 5)
        const traceId = hex(16)
        const parentId = hex(8)
        const requestId = fresh("request")
        const answer = yield* shop.post(
          `${api}/reserve`,
          { orderId: "o", items: [{ variantId: "cup", quantity: 1 }] },
          { headers: { traceparent: `00-${traceId}-${parentId}-01`, "x-request-id": requestId } }
        )
        assert.strictEqual(answer.status, 201)
        const refusedId = fresh("request")
        yield* service.call("GET", `${api}/cup`, undefined, { headers: { "x-request-id": refusedId } })
        yield* eventually(service.call("GET", "/metrics"), ({ text }) =>
          text.includes("holdfast_outbox_events_published_total ")
        )
        // Ends by saying what it has not said yet.
        yield* service.kill("SIGTERM")
        assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null }, service.stderr())

        const spans = collected.spans()
        const span = spans.find((each) => attributeOf(each, "holdfast.request_id") === requestId)!
        assert.isDefined(span, `no span of ${requestId} among ${spans.length}`)
        assert.strictEqual(span.traceId, traceId)
        assert.strictEqual(span.parentSpanId, parentId)
        assert.strictEqual(attributeOf(span, "holdfast.merchant_id"), shop.merchantId)
        assert.strictEqual(attributeOf(span, "http.route"), `${api}/reserve`)
        assert.strictEqual(attributeOf(span, "http.request.method"), "POST")
        assert.strictEqual(attributeOf(span, "http.response.status_code"), "201")
        const refused = spans.find((each) => attributeOf(each, "holdfast.request_id") === refusedId)!
        assert.strictEqual(attributeOf(refused, "http.response.status_code"), "401")
        assert.isUndefined(attributeOf(refused, "holdfast.merchant_id"))

        const logs = collected.logs()
        const logOf = (id: string) => logs.find((each) => attributeOf(each, "requestId") === id)
        assert.strictEqual(attributeOf(logOf(requestId)!, "merchantId"), shop.merchantId)
        assert.include(JSON.stringify(logOf(requestId)!.body), "answered")
        assert.isDefined(logOf(refusedId))
        // The same on its standard output.
        const line = service
          .stdout()
          .split("\n")
          .find((each) => each.includes(`requestId=${requestId}`))
        assert.match(
          line!,
          new RegExp(`level=DEBUG .*POST /api/v1/inventory/reserve.* merchantId=${shop.merchantId}`)
        )

        const names = new Set(collected.metrics().map(({ name }) => name))
        for (const name of [
          "http_server_request_duration_seconds",
          "holdfast_postings_total",
          "holdfast_outbox_events_published_total",
          "process_resident_memory_bytes"
        ]) {
          assert.isTrue(names.has(name), name)
        }

        // And whoever gets the event can go on with the trace.
        const sql = yield* connect(url)
        const events = yield* sql.run<{ event: string }>(
          `SELECT e.event::text AS event
         FROM outbox o
         CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
         WHERE e.event ->> 'requestId' = '${requestId}'`
        )
        assert.isAbove(events.length, 0)
        for (const { event } of events) assert.include(event, `00-${traceId}-${span.spanId}-01`)
      }).pipe(Effect.scoped)
  )

  it.live("a collector that is not there costs nobody an answer, nor the end its time", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const service = yield* startService(Redacted.value(url), {
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9"
      })
      const shop = yield* merchantAt(service)
      yield* shop.item("cup")
      yield* shop.receive("cup", 5)
      assert.strictEqual((yield* shop.reserve("o", [["cup", 1]])).status, 201)
      yield* service.kill("SIGTERM")
      assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null }, service.stderr())
    }).pipe(Effect.scoped)
  )
})

describe("secrets", { timeout }, () => {
  /** A database whose URL has a password that nothing else has. */
  const databaseWith = Effect.fnUntraced(function* (password: string) {
    const maintenance = yield* connect(Redacted.make(inject("postgresUrl")))
    const role = `holdfast_test_${hex(6)}`
    yield* Effect.acquireRelease(
      maintenance.run(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${password}'`),
      () => maintenance.run(`DROP ROLE ${role}`)
    )
    const url = new URL(Redacted.value((yield* freshDatabase).url))
    url.username = role
    url.password = password
    return {
      address: url.href,
      database: url.pathname.slice(1),
      maintenance,
      sql: yield* connect(Redacted.make(url.href))
    }
  })

  it.live("are in no log, no metric, no problem and nothing that is exported, whatever happens", () =>
    Effect.gen(function* () {
      const secrets = {
        password: canary("Password"),
        key: canary("IdempotencyKey"),
        body: canary("Body"),
        badToken: canary("Token"),
        kafkaPassword: saslUser.password
      }
      const collected = yield* collector
      const { address, database, maintenance, sql } = yield* databaseWith(secrets.password)
      const kafkaLogin =
        ownKafkaMissing === undefined
          ? {
              KAFKA_BROKERS: (yield* sharedKafka).saslBrokers,
              KAFKA_SASL_MECHANISM: "plain",
              KAFKA_SASL_USERNAME: saslUser.username,
              KAFKA_SASL_PASSWORD: secrets.kafkaPassword,
              TOPIC_PREFIX: `${fresh("telemetry")}.`
            }
          : {}
      const service = yield* startService(address, {
        OTEL_EXPORTER_OTLP_ENDPOINT: collected.endpoint,
        LOG_LEVEL: "debug",
        ...kafkaLogin,
        REQUEST_TIMEOUT_MS: "3000"
      })
      const shop = yield* merchantAt(service)
      const answers: Array<Answer> = []
      const statuses = new Set<number>()
      const ask = (body: unknown, headers: Readonly<Record<string, string>> = {}) =>
        Effect.map(shop.post(`${api}/reserve`, body, { headers }), (answer) => {
          answers.push(answer)
          statuses.add(answer.status)
          return answer
        })
      const order = (orderId: string, quantity = 1) => ({
        orderId,
        items: [{ variantId: "cup", quantity }],
        metadata: { card: secrets.body }
      })
      const keyed = { "idempotency-key": secrets.key }
      yield* shop.item("cup")
      yield* shop.receive("cup", 5)

      // What goes well, and what callers do wrong.
      yield* ask(order("o"), keyed)
      yield* ask(order("o"), keyed)
      yield* ask({ ...order("o"), expiresIn: "soon" }, keyed)
      yield* ask(`{"orderId":"o","items":${secrets.body}`, keyed)
      yield* ask(order("short", 99), { "idempotency-key": `${secrets.key}1` })
      for (const token of [secrets.badToken, `${shop.token}x`, `${shop.token.slice(0, -4)}AAAA`]) {
        answers.push(yield* service.call("GET", `${api}/cup`, undefined, { token }))
      }
      answers.push(
        yield* service.call("GET", `${api}/cup`, undefined, {
          headers: { authorization: `Basic ${secrets.badToken}`, cookie: `session=${secrets.badToken}` }
        })
      )
      // Our own bug: a row that the database refuses, in the words of which the row's values are.
      yield* sql.run("ALTER TABLE reservation ADD CONSTRAINT refused CHECK (order_id NOT LIKE 'refused-%')")
      assert.strictEqual((yield* ask(order("refused-1"), keyed)).status, 422)
      assert.strictEqual(
        (yield* ask(order("refused-2"), { "idempotency-key": `${secrets.key}2` })).status,
        500
      )
      // Too late, and the database away.
      const other = yield* connect(Redacted.make(address))
      yield* other.run("BEGIN")
      yield* other.run(`SELECT FROM item WHERE merchant_id = '${shop.merchantId}' FOR UPDATE`)
      yield* ask(order("late"), { "idempotency-key": `${secrets.key}3` })
      yield* other.run("ROLLBACK")
      yield* maintenance.run(`ALTER DATABASE ${database} ALLOW_CONNECTIONS false`)
      yield* maintenance.run(
        `SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = '${database}'`
      )
      yield* ask(order("away"), { "idempotency-key": `${secrets.key}4` })
      answers.push(yield* shop.get("/health/ready"))
      yield* maintenance.run(`ALTER DATABASE ${database} ALLOW_CONNECTIONS true`)
      yield* eventually(shop.get("/health/ready"), ({ status }) => status === 200)
      answers.push(yield* service.call("GET", "/metrics"))
      yield* service.kill("SIGTERM")
      assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null }, service.stderr())

      // It was all of that.
      for (const status of [201, 400, 408, 409, 422, 500, 503])
        assert.isTrue(statuses.has(status), `no ${status}`)
      assert.include(service.stdout(), "level=ERROR")
      assert.isAbove(collected.spans().length, 10)
      assert.isAbove(collected.logs().length, 10)
      assert.isAbove(collected.metrics().length, 10)

      const problems = answers.filter(({ status }) => status >= 400)
      assert.isAbove(problems.length, 8)
      const places: Readonly<Record<string, string>> = {
        log: service.stdout() + service.stderr(),
        export: collected.payloads.join("\n"),
        metrics: answers.find(({ text }) => text.startsWith("# "))!.text,
        // A caller is told which key of its own it used before.
        problems: problems
          .map(({ headers, text }) => JSON.stringify(headers) + text)
          .join("\n")
          .replaceAll(`"idempotencyKey":"${secrets.key}"`, "")
      }
      for (const [place, text] of Object.entries(places)) {
        assert.isAbove(text.length, 1_000, place)
        for (const [what, secret] of Object.entries(secrets)) {
          assert.notInclude(text, secret, `the ${what} is in the ${place}`)
        }
        for (const part of shop.token.split(".").slice(1)) {
          assert.notInclude(text, part, `a part of a token is in the ${place}`)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("are not in what a start that fails says", () =>
    Effect.gen(function* () {
      const secret = canary("Password")
      for (const environment of [
        { DATABASE_URL: `postgres://somebody:${secret}@127.0.0.1:9/none` },
        { DATABASE_URL: `postgres://somebody:${secret}@127.0.0.1:not-a-port/none` },
        { DATABASE_URL: `mysql://somebody:${secret}@127.0.0.1/none` },
        {
          DATABASE_URL: `postgres://somebody:${secret}@127.0.0.1:9/none`,
          KAFKA_BROKERS: "127.0.0.1:9",
          KAFKA_SASL_MECHANISM: "none-such",
          KAFKA_SASL_USERNAME: "somebody",
          KAFKA_SASL_PASSWORD: secret
        }
      ]) {
        const program = yield* run({ HOLDFAST_DEV: "1", PORT: "0", ...environment })
        assert.strictEqual((yield* program.ended).code, 1)
        assert.match(program.stderr(), /^holdfast: /)
        assert.notInclude(program.stdout() + program.stderr(), secret)
      }
    }).pipe(Effect.scoped)
  )
})
