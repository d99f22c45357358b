import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { Broker, MessageRefused, type OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import { Db } from "../../src/services/Db.ts"
import { outboxBuckets } from "../../src/services/OutboxBuckets.ts"
import { Outbox } from "../../src/services/messaging/Outbox.ts"
import { assertInvariants } from "../support/invariants.ts"
import { connect, replica, shopOf } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { eventually, run, startService } from "../support/service.ts"
import { assertInSequence, consume, untilAllReceived, untilAllSent } from "./consumer.ts"
import { assertBooks, load, merchantId, report, stocked, untilAcknowledged } from "./load.ts"

/** Every committed event arrives, those of a key in their order, whatever happens to dispatchers and transactions. */

const kills = 6

describe("two dispatchers", () => {
  it.live(
    "killed between send and mark, while transactions commit late, lose nothing and keep the order",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const address = Redacted.value(url)
        const sql = yield* connect(url)
        const api = yield* startService(address, { ROLES: "inventory-api,sweeper" })
        yield* stocked(api)
        const received = yield* consume(url)
        const work = yield* load(api)
        yield* untilAcknowledged(work, 100)

        const dispatcher = { DATABASE_URL: address, HOLDFAST_DEV: "1", PORT: "0", ROLES: "event-dispatcher" }
        const died = { times: 0, untilAllWereLate: true }
        const enough = () => died.times >= kills && !died.untilAllWereLate
        /** One dies and the next one takes its place, until enough have died and all that is late has come. */
        const dieAgainAndAgain = Effect.fnUntraced(function* (slot: number) {
          while (!enough()) {
            const passes = String(3 + ((died.times * 5 + slot) % 11))
            yield* Effect.scoped(
              Effect.gen(function* () {
                const program = yield* run(
                  dispatcher,
                  ["afterSendBeforeMark", passes],
                  "test/support/failingService.ts"
                )
                const ended = yield* Effect.raceFirst(
                  program.ended,
                  // The other one may have all buckets, and may have been the last to die.
                  Effect.as(
                    eventually(Effect.sync(enough), (isEnough) => isEnough),
                    undefined
                  )
                )
                if (ended === undefined) return
                assert.strictEqual(ended.signal, "SIGKILL", program.stderr())
                assert.include(program.stderr(), "killed at afterSendBeforeMark")
                died.times += 1
              })
            )
          }
        })
        const dying = yield* Effect.forEach([0, 1], (slot) => Effect.forkChild(dieAgainAndAgain(slot)))

        let overtaken = 0
        for (const round of [0, 1]) {
          const late = yield* connect(url)
          yield* late.run("BEGIN")
          const rows: Array<{ position: number }> = []
          for (let bucket = 0; bucket < outboxBuckets; bucket++) {
            rows.push(
              ...(yield* late.run<{ position: number }>(insertLate(bucket, `late-${round}-${bucket}`)))
            )
          }
          const positions = rows.map(({ position }) => position)
          // The length of time is the point: later ones commit and are sent meanwhile.
          yield* Effect.sleep("5 seconds")
          const later = sql.run<{ count: number }>(
            `SELECT count(*) AS count FROM outbox WHERE sent_at IS NOT NULL AND position > ${Math.max(...positions)}`
          )
          const [sent] = yield* eventually(later, ([row]) => row!.count > 0)
          overtaken += sent!.count
          yield* late.run("COMMIT")
        }
        died.untilAllWereLate = false
        yield* Effect.forEach(dying, Fiber.join)
        const survivor = yield* run(dispatcher)
        yield* work.stop
        yield* untilAllSent(sql)
        const events = yield* untilAllReceived(sql, received)
        const duplicates = assertInSequence(received)
        const late = new Set(received.filter(({ key }) => key.startsWith("late-")).map(({ key }) => key))
        report("dispatchers killed", { killed: died.times, overtaken, events, duplicates, late: late.size })
        assert.isAtLeast(died.times, kills)
        assert.isAbove(overtaken, 0, "no transaction was late")
        assert.isAbove(duplicates, 0, "nobody died between send and mark")
        assert.strictEqual(late.size, 2 * outboxBuckets)
        yield* survivor.kill("SIGTERM")
        assert.deepStrictEqual(yield* survivor.ended, { code: 0, signal: null }, survivor.stderr())
        yield* assertBooks(url, sql, work)
      }).pipe(Effect.scoped)
  )
})

/** An event of a key of its own. */
const insertLate = (bucket: number, key: string): string => {
  const event = {
    id: `${randomUUID()}.1`,
    topic: "inventory.events",
    key,
    type: "StockLevelChanged",
    merchantId,
    at: 0,
    requestId: key,
    data: { merchantId }
  }
  return `INSERT INTO outbox (bucket, recorded_at, events, event_count)
          VALUES (${bucket}, date_trunc('milliseconds', now()), '${JSON.stringify([event])}', 1)
          RETURNING position`
}

describe("an event that the broker refuses", () => {
  it.live("is FAILED and holds back its key alone, until it is requeued or dropped", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const services = yield* replica(url)
      const { confirm, item, receive, reserve } = shopOf(services)
      const refuser = yield* refusingBroker(Context.get(services, Db))
      const outbox = Context.get(
        yield* Layer.build(
          Outbox.layer.pipe(
            Layer.provide(Layer.succeed(Broker, refuser.broker)),
            Layer.provide(Layer.succeed(Db, Context.get(services, Db)))
          )
        ),
        Outbox
      )
      const held = Effect.orDie(outbox.held)
      const received = yield* consume(url)
      const { itemId: cup } = yield* item("cup")
      const { itemId: saucer } = yield* item("saucer")
      yield* receive("cup", 100)
      yield* receive("saucer", 100)
      yield* Effect.forkScoped(outbox.dispatch)
      yield* untilAllReceived(sql, received)
      const last = (key: string) => received.filter((event) => event.key === key).at(-1)?.sequence
      const statuses = Effect.map(
        sql.run<{ status: string; count: number }>(
          "SELECT status, count(*) AS count FROM domain_event WHERE status <> 'SENT' GROUP BY status ORDER BY 1"
        ),
        (rows) => Object.fromEntries(rows.map(({ count, status }) => [status, count]))
      )
      const sell = Effect.fnUntraced(function* (order: string) {
        yield* reserve(order, [
          ["cup", 1],
          ["saucer", 1]
        ])
        yield* confirm(order)
      })
      const leftOut = new Set<string>()
      for (const way of ["requeue", "drop"] as const) {
        const before = last(cup)!
        refuser.refuse(cup, before + 2)
        yield* sell(`${way}-1`)
        yield* eventually(held, (events) => events.some(({ state }) => state === "FAILED"))
        // Those of a later transaction wait too, and other keys do not.
        yield* sell(`${way}-2`)
        const [row] = yield* sql.run<{ last: number }>(
          "SELECT event_sequence AS last FROM item WHERE product_variant_id = 'saucer'"
        )
        yield* eventually(
          Effect.sync(() => last(saucer)),
          (sequence) => sequence === row!.last
        )
        yield* untilAllSent(sql)
        assert.strictEqual(last(cup), before + 1)
        const aside = yield* held
        assert.isAtLeast(aside.length, 3)
        assert.deepStrictEqual(
          aside.map(({ key, state }) => [key, state]),
          aside.map((_, index) => [cup, index === 0 ? "FAILED" : "HELD"])
        )
        assert.match(aside[0]!.error!, /refused by the test/)
        assert.deepStrictEqual(yield* statuses, { FAILED: 1, PENDING: aside.length - 1 })

        if (way === "requeue") {
          // Still refused: it fails again, and nothing overtakes it.
          assert.strictEqual(yield* outbox.requeue([aside[0]!.eventId]), 1)
          yield* eventually(held, ([first]) => first?.state === "FAILED")
          assert.strictEqual(last(cup), before + 1)
          refuser.refuse(cup, Number.NaN)
          assert.strictEqual(yield* outbox.requeue([aside[0]!.eventId]), 1)
          yield* untilAllReceived(sql, received)
        } else {
          assert.strictEqual(yield* outbox.drop([aside[0]!.eventId]), 1)
          yield* untilAllReceived(sql, received, [aside[0]!.eventId])
          leftOut.add(`${cup} ${before + 2}`)
        }
        assert.deepStrictEqual(yield* held, [])
      }
      assertInSequence(received, leftOut)
      assert.strictEqual(leftOut.size, 1)
      assert.isAtLeast(refuser.refused(), 9)
      report("events refused", { refused: refuser.refused(), received: received.length })
      yield* assertInvariants(url)
    }).pipe(Effect.scoped)
  )
})

/** The broker in PostgreSQL, but that it refuses one event, and what follows it in its key. */
const refusingBroker = Effect.fnUntraced(function* (db: Db["Service"]) {
  const context = yield* Layer.build(PostgresBroker.layer().pipe(Layer.provide(Layer.succeed(Db, db))))
  const broker = Context.get(context, Broker)
  let wanted = { key: "", sequence: Number.NaN }
  let refused = 0
  const isWanted = ({ key, value }: OutgoingMessage) =>
    key === wanted.key &&
    (JSON.parse(value as string) as { data: { sequence?: number } }).data.sequence === wanted.sequence
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(function* (messages) {
    const behind = new Set<string | null>()
    const passed = messages.filter((message) => {
      if (isWanted(message)) {
        refused += 1
        behind.add(message.key)
      }
      return !behind.has(message.key)
    })
    const answers = yield* broker.publish(passed)
    return messages.map((message) => {
      const index = passed.indexOf(message)
      return index >= 0
        ? answers[index]
        : new MessageRefused({ reason: "OTHER", topic: message.topic, detail: "refused by the test" })
    })
  })
  return {
    broker: Broker.of({ ...broker, publish }),
    refuse: (key: string, sequence: number) => {
      wanted = { key, sequence }
    },
    refused: () => refused
  }
})
