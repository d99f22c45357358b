import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Latch, Schema } from "effect"
import { consumer } from "../../src/consumers/Consumer.ts"
import { DatabaseUnavailable, ItemNotFound, OperationTimedOut, Overloaded } from "../../src/schema/Failure.ts"
import type { Caller } from "../../src/schema/Caller.ts"
import type { OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import { streams } from "../support/consumers.ts"
import { eventually, fresh } from "../support/service.ts"

// Goal: the runner's promises, whatever the topic: order, one effect, nothing lost, nothing skipped for an outage.
// Method: a topic of the test's own, whose operation does as the test says, over the broker in memory and its faults.

const Told = Schema.Struct({ about: Schema.String, number: Schema.Int })

interface Call extends Caller {
  readonly about: string
  readonly number: number
}

/** A topic whose operation remembers its calls, and does with each what the test wants. */
const recorded = (act: (call: Call) => Effect.Effect<void, unknown> = () => Effect.void) => {
  const topic = fresh("topic")
  const calls: Array<Call> = []
  const applied: Array<Call> = []
  return {
    topic,
    calls,
    applied,
    numbers: () => applied.map(({ number }) => number),
    consumer: consumer({
      topic,
      payload: Told,
      aggregate: ({ about }) => about,
      handle: (caller, told) => {
        const call = { ...caller, ...told }
        calls.push(call)
        return Effect.as(
          Effect.tap(act(call), () => Effect.sync(() => void applied.push(call))),
          "applied" as const
        )
      }
    }),
    message: (
      number: number,
      { about = `thing ${number}`, key = about, ...more }: Partial<OutgoingMessage> & { about?: string } = {}
    ): OutgoingMessage => ({
      topic,
      key,
      headers: {},
      value: JSON.stringify({ merchantId: "acme", about, number }),
      ...more
    })
  }
}
const nothing = Context.empty()
const range = (count: number) => Array.from({ length: count }, (_, index) => index)

describe("the runner", () => {
  it.live("applies each message and commits it", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const told = recorded()
      yield* start([told.consumer], nothing)
      yield* publish(...range(100).map((number) => told.message(number)))
      yield* untilDone(told.topic)
      assert.sameMembers(told.numbers(), range(100))
    })
  )

  it.live("works on all that was delivered at once, and in order within a key", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const all = Latch.makeUnsafe()
      let running = 0
      const told = recorded(({ number }) =>
        // The first of each of forty keys wait for each other.
        number < 40
          ? Effect.andThen(
              Effect.sync(() => ++running === 40 && all.openUnsafe()),
              all.await
            )
          : Effect.void
      )
      yield* start([told.consumer], nothing)
      yield* publish(...range(400).map((number) => told.message(number, { about: `thing ${number % 40}` })))
      yield* untilDone(told.topic)
      const perKey = Map.groupBy(told.applied, ({ about }) => about)
      assert.strictEqual(perKey.size, 40)
      for (const calls of perKey.values()) {
        const numbers = calls.map(({ number }) => number)
        assert.deepStrictEqual(
          numbers,
          numbers.toSorted((a, b) => a - b)
        )
        assert.strictEqual(numbers.length, 10)
      }
    })
  )

  it.live("keeps the order of what is about the same thing, whatever the keys", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const gate = Latch.makeUnsafe()
      const told = recorded(({ number }) => (number === 0 ? gate.await : Effect.void))
      yield* start([told.consumer], nothing)
      // Keys of one partition, found by trying: the broker says where each came to lie.
      const keys = yield* keysOfOnePartition(3)
      yield* publish(...keys.map((key, number) => told.message(number, { about: "one order", key })))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count === 1
      )
      gate.openUnsafe()
      yield* untilDone(told.topic)
      assert.deepStrictEqual(told.numbers(), [0, 1, 2])
    })
  )

  it.live("commits only up to the first message that has not had its effect", () =>
    Effect.gen(function* () {
      const { lag, publish, start, untilDone } = yield* streams
      const gate = Latch.makeUnsafe()
      const told = recorded(({ number }) => (number === 2 ? gate.await : Effect.void))
      yield* start([told.consumer], nothing)
      const keys = yield* keysOfOnePartition(10)
      yield* publish(...keys.map((key, number) => told.message(number, { key })))
      yield* eventually(
        Effect.sync(() => told.applied.length),
        (count) => count === 9
      )
      yield* eventually(lag(told.topic), (left) => left === 8)
      gate.openUnsafe()
      yield* untilDone(told.topic)
    })
  )

  it.live("lets one refused message refuse nobody else, and buries it with its reason", () =>
    Effect.gen(function* () {
      const { publish, read, start, untilDone } = yield* streams
      const told = recorded(({ number }) =>
        number === 3 ? Effect.fail(new ItemNotFound({ items: ["cup"] })) : Effect.void
      )
      yield* start([told.consumer], nothing)
      const bad = told.message(3, { about: "one thing", headers: { "x-request-id": "r-1" } })
      yield* publish(
        ...range(10).map((number) => (number === 3 ? bad : told.message(number, { about: "one thing" })))
      )
      yield* untilDone(told.topic)
      assert.deepStrictEqual(
        told.numbers(),
        range(10).filter((number) => number !== 3)
      )
      const [buried] = yield* read(`${told.topic}.dlq`, 1)
      assert.strictEqual(Buffer.from(buried!.value!).toString(), bad.value)
      assert.strictEqual(buried!.key, "one thing")
      assert.include(buried!.headers, {
        "x-request-id": "r-1",
        "dlq-reason": "ITEM_NOT_FOUND",
        "dlq-topic": told.topic,
        "dlq-offset": "3"
      })
    })
  )

  it.live("buries 5 MiB, and keeps what the dead letters' own topic refuses", () =>
    Effect.gen(function* () {
      const { cluster, deadLetters, publish, read, start, untilDone } = yield* streams
      const told = recorded()
      yield* start([told.consumer], nothing)
      const large = { ...told.message(0, { about: "one thing" }), value: Buffer.alloc(5 * 1024 * 1024, "x") }
      yield* publish(large, told.message(1, { about: "one thing" }))
      yield* untilDone(told.topic)
      const [buried] = yield* read(`${told.topic}.dlq`, 1)
      assert.strictEqual(buried!.value!.byteLength, large.value.byteLength)
      yield* cluster.refuse(({ topic }) => topic.endsWith(".dlq"))
      yield* publish({ ...told.message(2), value: "not json" }, told.message(3))
      yield* untilDone(told.topic)
      assert.sameMembers(told.numbers(), [1, 3])
      const letters = yield* deadLetters.list({ topic: told.topic })
      assert.deepStrictEqual(
        letters.map(({ reason, valueBytes }) => [reason.code, valueBytes]),
        [
          ["TOO_LARGE", 5 * 1024 * 1024],
          ["NOT_JSON", 8]
        ]
      )
      const { value } = (yield* deadLetters.show(letters[1]!.deadLetterId))!
      assert.strictEqual(Buffer.from(value!).toString(), "not json")
    })
  )

  it.live("asks again for a while before a refusal is for good: what it is for may be on its way", () =>
    Effect.gen(function* () {
      const { deadLetters, publish, start, untilDone } = yield* streams
      const other = recorded()
      const told = recorded(() =>
        other.applied.length === 0 ? Effect.fail(new ItemNotFound({ items: [] })) : Effect.void
      )
      yield* start([told.consumer, other.consumer], nothing, { refusalPatienceMs: 60_000 })
      yield* publish(told.message(1))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count > 1
      )
      yield* publish(other.message(2))
      yield* untilDone(told.topic)
      assert.deepStrictEqual(told.numbers(), [1])
      assert.deepStrictEqual(yield* deadLetters.list({}), [])
    })
  )

  it.live("waits an outage of the database out: in order, nothing skipped, nothing buried", () =>
    Effect.gen(function* () {
      const { deadLetters, lag, publish, start, untilDone } = yield* streams
      let away = true
      const failures = [
        new DatabaseUnavailable({ retryAfterSeconds: 1 }),
        new OperationTimedOut({ operation: "test" }),
        new Overloaded({ retryAfterSeconds: 1 })
      ]
      const told = recorded(({ number }) => (away ? Effect.fail(failures[number % 3]!) : Effect.void))
      yield* start([told.consumer], nothing)
      yield* publish(...range(60).map((number) => told.message(number, { about: `thing ${number % 6}` })))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count > 9
      )
      assert.strictEqual(yield* lag(told.topic), 60)
      away = false
      yield* untilDone(told.topic)
      for (const calls of Map.groupBy(told.applied, ({ about }) => about).values()) {
        const numbers = calls.map(({ number }) => number)
        assert.deepStrictEqual(
          numbers,
          numbers.toSorted((a, b) => a - b)
        )
      }
      assert.sameMembers(told.numbers(), range(60))
      assert.deepStrictEqual(yield* deadLetters.list({}), [])
    })
  )

  it.live("asks little of a database that is away", () =>
    Effect.gen(function* () {
      const { publish, start } = yield* streams
      const told = recorded(() => Effect.fail(new DatabaseUnavailable({ retryAfterSeconds: 1 })))
      yield* start([told.consumer], nothing)
      yield* publish(...range(500).map((number) => told.message(number)))
      // Every message was tried once at most, as they came, and then one at a time asks whether it is over.
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count >= 500
      ).pipe(Effect.timeoutOption("2 seconds"))
      assert.isBelow(told.calls.length, 600)
    })
  )

  it.live("waits an outage of the broker out before it commits or buries", () =>
    Effect.gen(function* () {
      const { cluster, deadLetters, publish, start, untilDone } = yield* streams
      const told = recorded(({ number }) =>
        Effect.andThen(
          cluster.setOutage(true),
          number === 1 ? Effect.fail(new ItemNotFound({ items: [] })) : Effect.void
        )
      )
      yield* start([told.consumer], nothing)
      yield* publish(told.message(0), told.message(1))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count === 2
      )
      assert.deepStrictEqual(yield* deadLetters.list({}), [])
      yield* cluster.setOutage(false)
      yield* untilDone(told.topic)
      assert.deepStrictEqual(told.numbers(), [0])
      assert.strictEqual((yield* deadLetters.list({})).length, 1)
      assert.strictEqual(told.calls.length, 2)
    })
  )

  it.live("applies again what was applied and not committed when the process was killed", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const reached = yield* Deferred.make<void>()
      const told = recorded()
      const first = yield* start([told.consumer], nothing, {
        failPoint: (name) =>
          name === "afterEffectBeforeOffset"
            ? Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
            : Effect.void
      })
      yield* publish(...range(5).map((number) => told.message(number)))
      yield* Deferred.await(reached)
      yield* first.crash
      const again = recorded()
      yield* start([{ ...again.consumer, topic: told.topic }], nothing)
      yield* untilDone(told.topic)
      assert.sameMembers(again.numbers(), range(5))
    })
  )

  it.live("stops the work on a partition that has become another's", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const gate = Latch.makeUnsafe()
      const told = recorded(() => gate.await)
      const stuck = yield* start([told.consumer], nothing)
      yield* publish(...range(64).map((number) => told.message(number)))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count === 64
      )
      // As a frozen process: the others do not wait for it.
      yield* stuck.unplug
      const other = recorded()
      yield* start([{ ...other.consumer, topic: told.topic }], nothing)
      yield* untilDone(told.topic)
      assert.sameMembers(other.numbers(), range(64))
      yield* stuck.plug
      // Once it is back it takes its share again, and is not stuck with what it was given before.
      let number = 100
      yield* eventually(
        Effect.map(
          Effect.suspend(() => publish(told.message(number++))),
          () => told.calls.filter(({ number }) => number >= 100)
        ),
        (calls) => calls.length > 0
      )
      gate.openUnsafe()
    })
  )

  it.live("has no more in hand than it may", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const gate = Latch.makeUnsafe()
      const told = recorded(() => gate.await)
      yield* start([told.consumer], nothing)
      for (const part of range(4)) {
        yield* publish(...range(1_000).map((number) => told.message(part * 1_000 + number)))
      }
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count >= 1_024
      )
      assert.isBelow(told.calls.length, 1_024 + 512)
      gate.openUnsafe()
      yield* untilDone(told.topic)
      assert.strictEqual(new Set(told.numbers()).size, 4_000)
    })
  )

  it.live("buries what is no message as it came, and never sends it again", () =>
    Effect.gen(function* () {
      const { deadLetters, lag, publish, read, start, untilDone } = yield* streams
      const told = recorded()
      yield* start([told.consumer], nothing, {
        delivered: (message) =>
          message.key === "1" ? { ...message, key: null, unreadable: "nobody can read it" } : message
      })
      yield* publish(...range(3).map((number) => told.message(number, { key: String(number) })))
      yield* untilDone(told.topic)
      assert.sameMembers(told.numbers(), [0, 2])
      const [letter] = yield* deadLetters.list({ topic: told.topic })
      assert.deepStrictEqual(letter!.reason, { code: "UNREADABLE", detail: "nobody can read it" })
      const [there] = yield* read(`${told.topic}.dlq`, 1)
      assert.deepStrictEqual(there!.value, (yield* deadLetters.show(letter!.deadLetterId))!.value)
      const [replayed] = yield* deadLetters.replay([letter!.deadLetterId])
      assert.strictEqual(replayed!.outcome, "REFUSED")
      assert.strictEqual(yield* lag(told.topic), 0)
      assert.strictEqual((yield* deadLetters.list({ topic: told.topic })).length, 1)
    })
  )

  it.live("buries what meets a bug, after some attempts", () =>
    Effect.gen(function* () {
      const { deadLetters, publish, start, untilDone } = yield* streams
      const told = recorded(({ number }) => (number === 1 ? Effect.die(new Error("a bug")) : Effect.void))
      yield* start([told.consumer], nothing)
      yield* publish(...range(3).map((number) => told.message(number, { about: "one thing" })))
      yield* untilDone(told.topic)
      assert.deepStrictEqual(told.numbers(), [0, 2])
      assert.strictEqual(told.calls.filter(({ number }) => number === 1).length, 3)
      const [letter] = yield* deadLetters.list({ topic: told.topic })
      assert.strictEqual(letter!.reason.code, "DEFECT")
    })
  )

  it.live("ends what has begun and commits it when it is told to stop, and begins nothing more", () =>
    Effect.gen(function* () {
      const { lag, publish, start } = yield* streams
      const gate = Latch.makeUnsafe()
      const told = recorded(() => gate.await)
      const running = yield* start([told.consumer], nothing)
      yield* publish(...range(4).map((number) => told.message(number, { about: `thing ${number % 2}` })))
      yield* eventually(
        Effect.sync(() => told.calls.length),
        (count) => count === 2
      )
      const stopping = yield* Effect.forkChild(running.stop, { startImmediately: true })
      gate.openUnsafe()
      yield* Fiber.join(stopping)
      assert.sameMembers(told.numbers(), [0, 1])
      assert.isAtMost(yield* lag(told.topic), 2)
    })
  )

  it.live("takes the request's id and trace from the message, and the actor from the topic", () =>
    Effect.gen(function* () {
      const { publish, start, untilDone } = yield* streams
      const told = recorded()
      yield* start([told.consumer], nothing)
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      yield* publish(
        told.message(0, { headers: { "x-request-id": "request-7", traceparent } }),
        told.message(1, { headers: { "x-request-id": "not\nan id", traceparent: "nonsense" } })
      )
      yield* untilDone(told.topic)
      const [first, second] = told.applied.toSorted((a, b) => a.number - b.number)
      assert.include(first, { actor: told.topic, requestId: "request-7", traceparent, merchantId: "acme" })
      assert.match(second!.requestId, new RegExp(`^${told.topic}:\\d+:\\d+$`))
      assert.isUndefined(second!.traceparent)
    })
  )
})

/** Keys that come to lie in one partition. */
const keysOfOnePartition = Effect.fnUntraced(function* (count: number) {
  const { broker, read } = yield* streams
  const topic = fresh("keys")
  yield* Effect.orDie(
    broker.publish(
      range(count * 40).map((number) => ({ topic, key: `key-${number}`, headers: {}, value: "" }))
    )
  )
  const messages = yield* read(topic, count * 40)
  return messages
    .filter(({ partition }) => partition === 0)
    .map(({ key }) => key!)
    .slice(0, count)
})
