import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { createServer } from "node:net"
import { freePort } from "../../src/layers/embedded/Server.ts"
import { listening } from "../support/listening.ts"
import { ownKafka, ownKafkaMissing, saslUser } from "../support/kafka.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { eventually, fresh, merchantAt, run, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"

// Goal: the program over Kafka as it is run: from a start without a broker to one that is lost and comes back.
// Method: processes of their own, and a Kafka of their own that is stopped and started.

const timeout = 240_000

describe("the program without its Kafka", { timeout }, () => {
  it.live(
    "does not start, and says in one line who does not answer, whether nobody listens or nobody speaks",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const nobody = yield* Effect.orDie(freePort)
        // From its first connection on, which is when the program has begun to wait.
        let since: number | undefined
        const silent = yield* listening(
          createServer((socket) => {
            since ??= performance.now()
            socket.resume().on("error", () => undefined)
          })
        )
        const failing = Effect.fnUntraced(function* (brokers: string) {
          const program = yield* run({
            PORT: "0",
            DATABASE_URL: Redacted.value(url),
            HOLDFAST_DEV: "1",
            KAFKA_BROKERS: brokers
          })
          const { code } = yield* program.ended
          assert.strictEqual(code, 1, program.stdout())
          assert.notInclude(program.stdout(), "listens")
          const lines = program.stderr().trimEnd().split("\n")
          assert.strictEqual(lines.length, 1, program.stderr())
          assert.include(lines[0], `holdfast: KAFKA_BROKERS: no broker answers at ${brokers}: `)
        })
        const waiting = failing(`127.0.0.1:${silent},localhost:${silent},127.0.0.1:${nobody}`).pipe(
          // What the contract gives it.
          Effect.andThen(Effect.sync(() => assert.isBelow(performance.now() - since!, 15_000)))
        )
        yield* Effect.all([failing(`127.0.0.1:${nobody}`), waiting], { concurrency: 2 })
      })
  )

  it.live("refuses half of a login", () =>
    Effect.gen(function* () {
      const program = yield* run({
        KAFKA_BROKERS: "no port",
        KAFKA_SASL_MECHANISM: "plain",
        TOPIC_PREFIX: "a b"
      })
      assert.strictEqual((yield* program.ended).code, 1)
      for (const name of ["KAFKA_BROKERS", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "TOPIC_PREFIX"])
        assert.include(program.stderr(), `holdfast: ${name}: `)
    })
  )
})

describe.skipIf(ownKafkaMissing !== undefined)("the program over Kafka", { timeout }, () => {
  it.live(
    "names missing topics, works once they are made, and goes on by itself after the broker was lost",
    () =>
      Effect.gen(function* () {
        const kafka = yield* ownKafka({ sasl: true })
        const { url } = yield* freshDatabase
        const environment = {
          KAFKA_BROKERS: kafka.saslBrokers,
          KAFKA_SASL_MECHANISM: "scram-sha-256",
          KAFKA_SASL_USERNAME: saslUser.username,
          KAFKA_SASL_PASSWORD: saslUser.password,
          TOPIC_PREFIX: "shop.",
          DATABASE_URL: Redacted.value(url),
          HOLDFAST_DEV: "1"
        }
        const command = Effect.fnUntraced(function* (...parameters: ReadonlyArray<string>) {
          const program = yield* run(environment, parameters)
          const { code } = yield* program.ended
          assert.strictEqual(code, 0, program.stderr())
          return program.stdout()
        })
        const stranger = yield* run({ ...environment, PORT: "0", KAFKA_SASL_PASSWORD: "wrong" })
        assert.strictEqual((yield* stranger.ended).code, 1)
        assert.match(
          stranger.stderr(),
          /^holdfast: KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: the broker at \S+ refuses the login: .+\n$/
        )
        const service = yield* startService(environment.DATABASE_URL, environment)
        const health = service.call("GET", "/health/ready")
        // A broker that started a moment ago may take longer to answer than a look at its health waits.
        const before = yield* eventually(health, ({ status }) => status === 200)
        assert.strictEqual(pick(before.body, "checks.broker"), "UP")
        const missing = pick(before.body, "missingTopics") as ReadonlyArray<string>
        assert.includeMembers([...missing], ["payment.success", "payment.success.dlq", "inventory.events"])
        assert.include(service.stdout(), "payment.success")

        // What happens meanwhile is told once there is where to tell it.
        const shop = yield* merchantAt(service)
        const cup = fresh("cup")
        yield* shop.item(cup)
        yield* shop.receive(cup, 9)

        const made = yield* command("topics", "create")
        assert.include(made, "created payment.success\n")
        assert.match(yield* command("topics", "create"), /^0 created, /)
        assert.notInclude(yield* command("topics", "list"), "missing")
        const after = yield* eventually(health, ({ body }) => pick(body, "missingTopics") === undefined)
        assert.strictEqual(after.status, 200)

        assert.include(yield* command("tail", "inventory.events", "--count", "1"), cup)
        assert.include(yield* command("outbox", "list"), "Nothing is held back.")

        // In: topics that were missing when their consumers began.
        const paid = Effect.fnUntraced(function* (orderId: string) {
          yield* command(
            "publish",
            "payment.success",
            JSON.stringify({
              saleOrderId: orderId,
              merchantId: shop.merchantId,
              items: [{ productVariantId: cup, quantity: 1 }]
            }),
            "--key",
            orderId
          )
        })
        const quantity = Effect.map(shop.get(`/api/v1/inventory/${cup}`), ({ body }) =>
          pick(body, "quantity")
        )
        yield* paid(fresh("order"))
        yield* eventually(quantity, (left) => left === 8)

        yield* kafka.kill
        yield* eventually(health, ({ status }) => status === 503)
        assert.strictEqual(pick((yield* health).body, "checks.broker"), "DOWN")
        // Stock is still promised while nobody can be told.
        yield* shop.receive(cup, 2)
        yield* kafka.start
        yield* eventually(health, ({ status }) => status === 200)
        yield* paid(fresh("order"))
        yield* eventually(quantity, (left) => left === 9)
        const told = yield* command("tail", "inventory.events", "--count", "6")
        assert.include(told, '"quantity":10')

        yield* service.kill("SIGTERM")
        assert.strictEqual((yield* service.ended).code, 0)
      })
  )
})
