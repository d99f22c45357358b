import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schedule } from "effect"
import * as KafkaBroker from "../../src/layers/KafkaBroker.ts"
import { topicNames } from "../../src/schema/Topic.ts"
import { Broker, type OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import { assertInvariants } from "../support/invariants.ts"
import { makeTopics, ownKafka, ownKafkaMissing } from "../support/kafka.ts"
import { type Sql, connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type RunningService, run, startService } from "../support/service.ts"
import { withEmbeddedService } from "./embedded.ts"
import { lookUntil, saleOf, salesTopic, sold } from "./sales.ts"

// Goal: a paid sale that was published has its effect once, whatever dies, restarts or stands still meanwhile.
// Method: many sales over a real Kafka, a third of them twice, in an order that a seed gives; then what the books say.

const timeout = 900_000
const seed = Number(process.env["SEED"] ?? 20_261_121)

/** Mulberry32: small, and the same sequence for the same seed. */
const randomOf = (start: number) => {
  let state = start
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

/** `count` messages, a third of which say again what another one says. */
const salesOf = (
  count: number
): { readonly messages: ReadonlyArray<OutgoingMessage>; readonly orders: number } => {
  const random = randomOf(seed)
  const orders = Math.ceil((count * 2) / 3)
  const numbers = Array.from({ length: count }, (_, index) =>
    index < orders ? index : Math.floor(random() * orders)
  )
  for (let index = numbers.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1))
    ;[numbers[index], numbers[other]] = [numbers[other]!, numbers[index]!]
  }
  return {
    orders,
    messages: numbers.map((order) => saleOf(order, 50, 1 + (order % 3)))
  }
}

const publisher = (brokers: string) =>
  Effect.gen(function* () {
    const broker = Context.get(yield* Layer.build(KafkaBroker.layer({ brokers: brokers.split(",") })), Broker)
    return Effect.fnUntraced(function* (messages: ReadonlyArray<OutgoingMessage>) {
      const atOnce = 500
      for (let from = 0; from < messages.length; from += atOnce) {
        // What was not acknowledged is published again: a duplicate more.
        yield* Effect.retry(
          broker.publish(messages.slice(from, from + atOnce)),
          Schedule.spaced("500 millis")
        )
      }
    })
  })

const lagOf = (service: RunningService) =>
  Effect.map(service.call("GET", "/metrics"), ({ text }) => {
    const line = text
      .split("\n")
      .find((each) => each.startsWith(`holdfast_consumer_lag_messages{topic="${salesTopic}"}`))
    return line === undefined ? Number.NaN : Number(line.split(" ")[1])
  })

/** Each order was sold once, in full, and nothing was given up. */
const assertSoldOnce = Effect.fnUntraced(function* (sql: Sql, orders: number) {
  const [totals] = yield* sql.run<{ rows: number; orders: number; quantity: number }>(
    `SELECT count(*) AS rows, count(DISTINCT order_id) AS orders, -sum(on_hand_delta)::int8 AS quantity
     FROM inventory_ledger WHERE type = 'SALE'`
  )
  const quantity = Array.from({ length: orders }, (_, order) => 1 + (order % 3)).reduce((a, b) => a + b, 0)
  assert.deepStrictEqual(totals, { rows: orders, orders, quantity })
  assert.deepStrictEqual(yield* sql.run("SELECT topic, reason, detail FROM dead_letter"), [])
})

describe.skipIf(ownKafkaMissing !== undefined)("paid sales over Kafka", { timeout }, () => {
  it.live("are applied once, the service killed three times and the broker restarted", () =>
    Effect.gen(function* () {
      const kafka = yield* ownKafka()
      yield* makeTopics(kafka.brokers, topicNames)
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const environment = {
        KAFKA_BROKERS: kafka.brokers,
        DATABASE_URL: Redacted.value(url),
        HOLDFAST_DEV: "1",
        PORT: "0"
      }
      const { messages, orders } = salesOf(20_000)
      const publish = yield* publisher(kafka.brokers)
      const publishing = yield* Effect.forkChild(publish(messages), { startImmediately: true })
      // Killed where it hurts most: what had its effect is not committed.
      for (const passes of ["6", "9", "12"]) {
        const before = yield* sold(sql)
        const program = yield* run(
          { ...environment, ROLES: "consumers" },
          ["afterEffectBeforeOffset", passes],
          "test/support/failingService.ts"
        )
        const ended = yield* lookUntil(
          Effect.raceFirst(program.ended, Effect.as(Effect.sleep("1 second"), undefined)),
          (found) => found !== undefined
        )
        assert.strictEqual(ended?.signal, "SIGKILL", program.stderr())
        const after = yield* sold(sql)
        assert.isAbove(after, before)
        assert.isBelow(after, orders)
      }
      const service = yield* startService(Redacted.value(url), environment)
      const left = orders - (yield* sold(sql))
      yield* lookUntil(sold(sql), (count) => count > orders - left / 2)
      assert.isBelow(yield* sold(sql), orders)
      yield* kafka.stop
      yield* kafka.start
      yield* Fiber.join(publishing)
      yield* lookUntil(sold(sql), (count) => count >= orders)
      yield* lookUntil(lagOf(service), (lag) => lag === 0)
      yield* assertSoldOnce(sql, orders)
      yield* assertInvariants(url)
    })
  )

  it.live("wait for a PostgreSQL that stands still for a minute, and a broker for forty seconds", () =>
    Effect.gen(function* () {
      const kafka = yield* ownKafka()
      yield* makeTopics(kafka.brokers, topicNames)
      const publish = yield* publisher(kafka.brokers)
      yield* withEmbeddedService({ KAFKA_BROKERS: kafka.brokers }, (embedded) =>
        Effect.gen(function* () {
          const { messages, orders } = salesOf(6_000)
          const third = messages.length / 3
          const count = (least: number) =>
            lookUntil(
              Effect.scoped(Effect.flatMap(embedded.connect, sold)).pipe(
                Effect.timeoutOrElse({ duration: "5 seconds", orElse: () => Effect.succeed(0) }),
                Effect.catchCause(() => Effect.succeed(0))
              ),
              (found) => found >= least
            )
          yield* publish(messages.slice(0, third))
          yield* count(500)
          yield* embedded.freeze
          yield* publish(messages.slice(third, 2 * third))
          yield* Effect.sleep("60 seconds")
          yield* embedded.thaw
          const before = yield* count(1_500)
          yield* kafka.freeze
          const publishing = yield* Effect.forkChild(publish(messages.slice(2 * third)), {
            startImmediately: true
          })
          yield* Effect.sleep("40 seconds")
          yield* kafka.thaw
          yield* Fiber.join(publishing)
          assert.isBelow(before, orders)
          yield* count(orders)
          yield* lookUntil(lagOf(embedded.service), (lag) => lag === 0)
          yield* assertSoldOnce(yield* embedded.connect, orders)
        })
      )
    })
  )
})
