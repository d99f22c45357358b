import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { eventually, merchantAt, run, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/** How the program starts and stops (CONTRACTS section 3). */

const api = "/api/v1/inventory"
/** The port of discard, where nobody listens. */
const nowhere = "postgres://nobody:secret-word@127.0.0.1:9/none"

/** Starts it with a wrong configuration; it must end by itself, and these are the lines that it says. */
const complaints = Effect.fnUntraced(function* (environment: Readonly<Record<string, string>>) {
  const program = yield* run(environment)
  const { code } = yield* program.ended
  assert.strictEqual(code, 1, program.stdout())
  assert.notInclude(program.stdout(), "listens")
  return program.stderr().trimEnd().split("\n")
})

const databaseUrl = Effect.map(freshDatabase, ({ url }) => Redacted.value(url))

/** Processes start and stop here, which takes its time where all processors are busy. */
const timeout = 120_000

describe("the program", { timeout }, () => {
  it.live("names every wrong variable on a line of its own, and exits 1", () =>
    Effect.gen(function* () {
      const lines = yield* complaints({
        PORT: "65536",
        ROLES: "inventory-api,chef",
        DATABASE_URL: "mysql://db",
        HOLDFAST_DEV: "yes",
        REQUEST_TIMEOUT_MS: "0",
        SWEEP_INTERVAL_MS: "soon"
      })
      for (const name of [
        "PORT",
        "DATABASE_URL",
        "HOLDFAST_DEV",
        "REQUEST_TIMEOUT_MS",
        "SWEEP_INTERVAL_MS"
      ]) {
        assert.strictEqual(
          lines.filter((line) => line.startsWith(`holdfast: ${name}: `)).length,
          1,
          `${name} in ${lines.join("\n")}`
        )
      }
      assert.include(lines, "holdfast: SWEEP_INTERVAL_MS: must be a whole number")
      assert.isTrue(lines.some((line) => line.startsWith(`holdfast: ROLES: there is no role "chef"`)))
      assert.isTrue(
        lines.every((line) => /^holdfast: [A-Z_]+: .+/.test(line)),
        lines.join("\n")
      )
    })
  )

  it.live("opens no door silently: DATABASE_URL asks for an issuer of tokens", () =>
    Effect.gen(function* () {
      const lines = yield* complaints({ DATABASE_URL: nowhere, PORT: "0" })
      assert.deepStrictEqual(
        lines.map((line) => line.split(":")[1]!.trim()),
        ["JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"]
      )
    })
  )

  it.live("says that the database cannot be reached, without its password, and exits 1", () =>
    Effect.gen(function* () {
      const lines = yield* complaints({ DATABASE_URL: nowhere, HOLDFAST_DEV: "1", PORT: "0" })
      assert.strictEqual(lines.length, 1, lines.join("\n"))
      assert.match(lines[0]!, /^holdfast: .*connect.*127\.0\.0\.1:9/)
      assert.notInclude(lines[0]!, "secret-word")
    })
  )

  it.live("says that its port is taken, and exits 1", () =>
    Effect.gen(function* () {
      const url = yield* databaseUrl
      const first = yield* startService(url)
      const lines = yield* complaints({ DATABASE_URL: url, HOLDFAST_DEV: "1", PORT: String(first.port) })
      assert.strictEqual(lines.length, 1, lines.join("\n"))
      assert.match(lines[0]!, new RegExp(`^holdfast: PORT: ${first.port} is taken on 127\\.0\\.0\\.1: `))
      assert.strictEqual((yield* first.call("GET", "/health/ready")).status, 200)
    })
  )

  it.live("finishes on SIGTERM what is in flight, lets a second signal change nothing, and exits 0", () =>
    Effect.gen(function* () {
      const url = yield* databaseUrl
      // The sources as they are, as in a checkout.
      const service = yield* startService(url, {}, { script: "bin/holdfast.js" })
      const { adjust, item, merchantId, receive } = yield* merchantAt(service)
      yield* item("cup")
      yield* receive("cup", 5)
      const sql = yield* connect(Redacted.make(url))
      yield* sql.run("BEGIN")
      yield* sql.run("SELECT FROM item WHERE merchant_id = $1 FOR UPDATE", [parameter("text", merchantId)])
      const inFlight = yield* Effect.forkChild(adjust("cup", "RECEIPT", 1))
      const other = yield* connect(Redacted.make(url))
      yield* eventually(
        other.run(
          "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ),
        ({ length }) => length === 1
      )
      yield* service.kill("SIGTERM")
      // It takes no more work from here on …
      yield* eventually(
        Effect.exit(service.call("GET", "/health/live", undefined, { headers: { connection: "close" } })),
        ({ _tag }) => _tag === "Failure"
      )
      yield* service.kill("SIGTERM")
      yield* service.kill("SIGINT")
      // … and what it had taken is done.
      yield* sql.run("COMMIT")
      const answer = yield* Fiber.join(inFlight)
      assert.strictEqual(answer.status, 200, answer.text)
      assert.strictEqual(pick(answer.body, "quantity"), 6)
      assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null })
      assert.strictEqual(service.stderr(), "")
    })
  )

  it.live("has lost nothing that it acknowledged when it is killed, and neither has another process", () =>
    Effect.gen(function* () {
      const url = yield* databaseUrl
      const first = yield* startService(url)
      const { adjust, item, merchantId } = yield* merchantAt(first)
      yield* item("cup")
      let acknowledged = 0
      const writing = yield* Effect.forkChild(
        Effect.forever(
          Effect.tap(adjust("cup", "RECEIPT", 1), ({ status }) => {
            if (status === 200) acknowledged += 1
            return Effect.void
          })
        )
      )
      yield* eventually(
        Effect.sync(() => acknowledged),
        (count) => count >= 20
      )
      yield* first.kill("SIGKILL")
      assert.strictEqual((yield* first.ended).signal, "SIGKILL")
      yield* Fiber.await(writing)
      const second = yield* startService(url)
      const { get } = yield* merchantAt(second, merchantId)
      const quantity = pick((yield* get(`${api}/cup`)).body, "quantity") as number
      // The one whose answer never came may have happened.
      assert.include([acknowledged, acknowledged + 1], quantity)
    })
  )

  it.live("sweeps where that is its role, and serves nothing but its health and metrics", () =>
    Effect.gen(function* () {
      const url = yield* databaseUrl
      const serving = yield* startService(url, { ROLES: "inventory-api" })
      const shop = yield* merchantAt(serving)
      yield* shop.item("cup")
      yield* shop.receive("cup", 1)
      yield* shop.reserve("o", [["cup", 1]], { expiresIn: 1 })
      const sweeper = yield* startService(url, { ROLES: "sweeper", SWEEP_INTERVAL_MS: "50" })
      yield* eventually(
        shop.get(`${api}/reservations?orderId=o`),
        ({ body }) => pick(body, "data.0.status") === "EXPIRED"
      )
      assert.strictEqual((yield* sweeper.call("GET", "/health/ready")).status, 200)
      assert.match((yield* sweeper.call("GET", "/metrics")).text, /^holdfast_expiry_delay_seconds_count 1$/m)
      const { token } = shop
      assert.strictEqual((yield* sweeper.call("GET", `${api}/cup`, undefined, { token })).status, 404)
      assert.notInclude(sweeper.stdout(), "curl")
      yield* sweeper.kill("SIGTERM")
      assert.deepStrictEqual(yield* sweeper.ended, { code: 0, signal: null })
    })
  )
})
