import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Fiber, Option, Schedule, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { shareOf } from "../../src/layers/GroupMember.ts"
import { makeCluster } from "../support/MemoryBroker.ts"
import type { IncomingMessage, OutgoingMessage, Subscription } from "../../src/services/messaging/Broker.ts"
import { BrokerDatabase, BrokerWorld, kafkaWorld, memoryWorld, postgresWorld } from "../support/brokers.ts"
import { kafkaMissing } from "../support/kafka.ts"
import { connect } from "../support/ledger.ts"

// Goal: every broker behind the port keeps the same promises: order per key, at least once, one member per partition.
// Method: one suite over each kind of broker, with topics and groups of each test's own. Where a session has to run out
// real time passes, within bounds; nothing sleeps. What only one kind can show follows after the suite.

let names = 0
/** Of this run only: a broker that was given keeps what others left. */
const run = crypto.randomUUID().slice(0, 8)
const fresh = (name: string): string => `${name}.${run}.${++names}`
/** A topic that is there, as brokers differ in what they make by themselves. */
const freshTopic = (name: string) =>
  Effect.gen(function* () {
    const topic = fresh(name)
    yield* (yield* BrokerWorld).makeTopic(topic)
    return topic
  })
const message = (topic: string, value: string, key: string | null = "k"): OutgoingMessage => ({
  topic,
  key,
  headers: {},
  value
})
const numbered = (topic: string, count: number, key: string | null = "k", from = 0) =>
  Array.from({ length: count }, (_, index) => message(topic, String(from + index), key))
const text = ({ value }: IncomingMessage): string => (value === null ? "null" : Buffer.from(value).toString())
/** What of a message must come as it went, to be compared. */
const shown = ({ key, headers, value }: OutgoingMessage | IncomingMessage): string =>
  JSON.stringify([key, headers, value === null ? null : Buffer.from(value as Uint8Array).toString("hex")])
const range = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => String(from + index))

const patience = "15 seconds"
const within = <A, E, R>(effect: Effect.Effect<A, E, R>, what: string) =>
  Effect.timeoutOrElse(effect, {
    duration: patience,
    orElse: () => Effect.die(new Error(`no ${what} in time`))
  })

/** Waits until it holds. */
const eventually = <E, R>(holds: Effect.Effect<boolean, E, R>, what: string) =>
  within(Effect.repeat(holds, { until: (yes) => yes, schedule: Schedule.spaced("10 millis") }), what)

/** Polls until there are that many messages; commits each poll if asked to. */
const collect = (subscription: Subscription, count: number, options: { readonly commit: boolean }) =>
  within(
    Effect.gen(function* () {
      const messages: Array<IncomingMessage> = []
      while (messages.length < count) {
        const polled = yield* subscription.poll(count - messages.length)
        messages.push(...polled)
        if (options.commit) yield* subscription.commit(polled)
      }
      return messages
    }),
    `${count} messages`
  )

const held = (subscription: Subscription) => Effect.map(subscription.assignment, (all) => all.length)
const holds = (subscription: Subscription, count: number) =>
  eventually(
    Effect.map(held(subscription), (now) => now === count),
    `${count} partitions`
  )
const nothingComes = (subscription: Subscription) =>
  Effect.gen(function* () {
    const polled = yield* subscription.poll(10).pipe(Effect.timeoutOption("300 millis"))
    assert.deepStrictEqual(
      Option.map(polled, (messages) => messages.map(text)),
      Option.none()
    )
  })

const suite = (it: { readonly effect: typeof import("@effect/vitest").effect }) => {
  // The suite's tests need the world that `layer` provides, which the type of a bare `it` does not know.
  type Body = () => Effect.Effect<void, unknown, BrokerWorld | Scope.Scope>
  const test = (name: string, body: Body) =>
    it.effect(name, body as () => Effect.Effect<void, unknown, Scope.Scope>, 60_000)
  /** For tests that wait more than they work: those that stand one behind the other run beside each other. */
  const testBeside = (name: string, body: Body) =>
    it.effect(name, body as () => Effect.Effect<void, unknown, Scope.Scope>, {
      timeout: 60_000,
      concurrent: true
    })

  test("keeps the order of a key within a call and over overlapping calls", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("order")
      const keys = ["a", "b", "c", "d", "e"]
      yield* Effect.forEach(
        range(0, 40),
        (call) =>
          broker.publish(
            range(0, 25).map((index) =>
              message(topic, `${Number(call) * 25 + Number(index)}`, keys[Number(index) % 5])
            )
          ),
        { concurrency: "unbounded" }
      )
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      const messages = yield* collect(subscription, 1_000, { commit: true })
      for (const key of keys) {
        const values = messages.filter((one) => one.key === key).map((one) => Number(text(one)))
        assert.strictEqual(values.length, 200)
        assert.deepStrictEqual(
          values,
          values.toSorted((a, b) => a - b)
        )
        assert.strictEqual(
          new Set(messages.filter((one) => one.key === key).map((one) => one.partition)).size,
          1
        )
      }
    }))

  test("gives back keys, headers and values as they were sent", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("round-trip")
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index)
      const headers = { ce_id: "1", "x-empty": "", "x-text": "Grüße \u{1F600} \u0000 \"'\\", __proto: "x" }
      const sent: ReadonlyArray<OutgoingMessage> = [
        { topic, key: "k", headers, value: "text" },
        { topic, key: "k", headers: {}, value: bytes },
        { topic, key: "k", headers: {}, value: "" },
        { topic, key: "k", headers: {}, value: null },
        { topic, key: "", headers: {}, value: "empty key" },
        { topic, key: "Grüße \u{1F600}\u0000", headers: {}, value: "odd key" },
        { topic, key: null, headers: {}, value: "no key" }
      ]
      assert.deepStrictEqual(
        yield* broker.publish(sent),
        sent.map(() => undefined)
      )
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      const came = yield* collect(subscription, sent.length, { commit: false })
      assert.deepStrictEqual(came.map(shown).toSorted(), sent.map(shown).toSorted())
      const keyed = came.filter((one) => one.key === "k")
      assert.deepStrictEqual(
        keyed.map((one) => one.offset),
        [0, 1, 2, 3]
      )
      for (const one of came) assert.isTrue(Math.abs(one.publishedAt - Date.now()) < 60_000)
    }))

  testBeside("names a refused message and publishes its neighbours", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const { broker } = yield* world.replica
      const topic = yield* freshTopic("refused")
      const answer = yield* broker.publish([
        message(topic, "before"),
        world.refusedMessage(topic),
        message("no/such topic", "x", null),
        message(topic, "after", "another key")
      ])
      assert.deepStrictEqual(
        answer.map((refusal) => refusal?._tag),
        [undefined, "MessageRefused", "MessageRefused", undefined]
      )
      assert.strictEqual(answer[1]?.reason, "TOO_LARGE")
      assert.strictEqual(answer[2]?.reason, "INVALID_TOPIC")
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      assert.sameMembers((yield* collect(subscription, 2, { commit: true })).map(text), ["before", "after"])
      yield* nothingComes(subscription)
    })
  )

  testBeside("refuses within a call what follows a refused message in its key, and nothing else", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const { broker } = yield* world.replica
      const topic = yield* freshTopic("refused")
      const other = yield* freshTopic("refused")
      const refused = world.refusedMessage(topic)
      const messages = [
        message(topic, "before", refused.key),
        { ...refused, key: null },
        message(topic, "keyless", null),
        refused,
        message(topic, "behind", refused.key),
        message(other, "elsewhere", refused.key),
        message(topic, "beside", "another key")
      ]
      const published = [0, 2, 6]
      const answer = yield* broker.publish(messages)
      assert.deepStrictEqual(
        answer.flatMap((refusal, index) => (refusal === undefined ? [index] : [])),
        published
      )
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic, other] })
      const came = yield* collect(subscription, published.length, { commit: true })
      assert.sameMembers(came.map(text), ["before", "keyless", "beside"])
      yield* nothingComes(subscription)
      // Another call begins anew: whoever sends again does so in order.
      assert.deepStrictEqual(yield* broker.publish([messages[4]!, messages[5]!]), [undefined, undefined])
    })
  )

  testBeside("begins at the earliest message for a group that is new, each group by itself", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("earliest")
      yield* broker.publish(numbered(topic, 5))
      const first = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      assert.deepStrictEqual((yield* collect(first, 5, { commit: true })).map(text), range(0, 5))
      yield* broker.publish(numbered(topic, 5, "k", 5))
      const second = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      assert.deepStrictEqual((yield* collect(second, 10, { commit: true })).map(text), range(0, 10))
      assert.deepStrictEqual((yield* collect(first, 5, { commit: true })).map(text), range(5, 10))
    })
  )

  testBeside("waits for what is published later, in several topics", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const [one, two] = [yield* freshTopic("later"), yield* freshTopic("later")]
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [one, two] })
      const waiting = yield* Effect.forkChild(collect(subscription, 2, { commit: true }))
      yield* broker.publish([message(one, "1"), message(two, "2")])
      const came = yield* Fiber.join(waiting)
      assert.deepStrictEqual(came.map((each) => [each.topic, text(each)]).toSorted(), [
        [one, "1"],
        [two, "2"]
      ])
    })
  )

  testBeside("goes on behind the last commit when the next member comes", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const [topic, group] = [yield* freshTopic("commit"), fresh("group")]
      yield* broker.publish(numbered(topic, 10))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const subscription = yield* broker.subscribe({ group, topics: [topic] })
          const messages = yield* collect(subscription, 10, { commit: false })
          yield* subscription.commit(messages.slice(0, 6))
          // Going back is not a failure, and changes nothing.
          yield* subscription.commit(messages.slice(0, 2))
        })
      )
      const next = yield* broker.subscribe({ group, topics: [topic] })
      assert.deepStrictEqual((yield* collect(next, 4, { commit: true })).map(text), range(6, 10))
    })
  )

  testBeside("delivers again what a member that died had not committed", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const [dying, living] = [yield* world.replica, yield* world.replica]
      const [topic, group] = [yield* freshTopic("death"), fresh("group")]
      yield* living.broker.publish(numbered(topic, 10))
      const first = yield* dying.broker.subscribe({ group, topics: [topic] })
      const messages = yield* collect(first, 10, { commit: false })
      yield* first.commit(messages.slice(0, 4))
      yield* dying.unplug
      const second = yield* living.broker.subscribe({ group, topics: [topic] })
      assert.deepStrictEqual((yield* collect(second, 6, { commit: true })).map(text), range(4, 10))
      yield* holds(second, 8)
    })
  )

  testBeside("refuses the commit of a member that was taken for dead, and lets it come back", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const [frozen, living] = [yield* world.replica, yield* world.replica]
      const [topic, group] = [yield* freshTopic("zombie"), fresh("group")]
      yield* living.broker.publish(numbered(topic, 3))
      const first = yield* frozen.broker.subscribe({ group, topics: [topic] })
      const messages = yield* collect(first, 3, { commit: false })
      yield* frozen.unplug
      const second = yield* living.broker.subscribe({ group, topics: [topic] })
      assert.deepStrictEqual((yield* collect(second, 3, { commit: false })).map(text), range(0, 3))
      yield* frozen.plug
      const lost = yield* Effect.flip(first.commit(messages))
      assert.strictEqual(lost._tag, "PartitionLost")
      const { partition } = messages[0]!
      assert.deepStrictEqual(lost._tag === "PartitionLost" ? lost.partitions : [], [{ topic, partition }])
      // What was delivered is committed before anything is handed over.
      yield* second.commit([{ topic, partition, offset: 2 }])
      yield* holds(first, 4)
      yield* holds(second, 4)
    })
  )

  test("shares the partitions among two members and gives each message to one", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const [one, two] = [yield* world.replica, yield* world.replica]
      const [topic, group] = [yield* freshTopic("share"), fresh("group")]
      const first = yield* one.broker.subscribe({ group, topics: [topic] })
      yield* holds(first, 8)
      const second = yield* two.broker.subscribe({ group, topics: [topic] })
      yield* holds(first, 4)
      yield* holds(second, 4)
      const partitions = [...(yield* first.assignment), ...(yield* second.assignment)]
      assert.deepStrictEqual(
        partitions.map(({ partition }) => partition).toSorted(),
        [0, 1, 2, 3, 4, 5, 6, 7]
      )
      yield* one.broker.publish(range(0, 400).map((value) => message(topic, value, value)))
      const seen: Array<string> = []
      const work = (subscription: Subscription) =>
        Effect.gen(function* () {
          const polled = yield* subscription.poll(20)
          seen.push(...polled.map(text))
          yield* subscription.commit(polled)
        }).pipe(Effect.forever, Effect.forkScoped)
      yield* work(first)
      yield* work(second)
      yield* eventually(
        Effect.sync(() => seen.length >= 400),
        "400 messages"
      )
      assert.deepStrictEqual(
        seen.map(Number).toSorted((a, b) => a - b),
        range(0, 400).map(Number)
      )
    }))

  test("loses nothing and gives no partition to two at once while members come and go", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const replicas = [yield* world.replica, yield* world.replica, yield* world.replica]
      const [topic, group] = [yield* freshTopic("rebalance"), fresh("group")]
      const busy = new Map<number, number>()
      const last = new Map<string, number>()
      const seen = new Set<string>()
      const wrong: Array<string> = []
      let changes = 0
      const member = (index: number) =>
        Effect.gen(function* () {
          const subscription = yield* replicas[index % 3]!.broker.subscribe({
            group,
            topics: [topic],
            inFlightMax: 20
          })
          changes += 1
          for (;;) {
            // What was polled is finished: a member that leaves properly leaves nothing behind.
            const polled = yield* subscription.poll(10)
            yield* Effect.gen(function* () {
              for (const { partition } of polled) {
                const other = busy.get(partition)
                if (other !== undefined && other !== index)
                  wrong.push(`partition ${partition}: ${other} and ${index}`)
                busy.set(partition, index)
              }
              yield* Effect.yieldNow
              for (const one of polled) {
                seen.add(text(one))
                const before = last.get(one.key!) ?? -1
                if (Number(text(one)) !== before + 8) {
                  if (before !== -1) wrong.push(`${one.key}: ${before} then ${text(one)}`)
                }
                last.set(one.key!, Number(text(one)))
              }
              yield* Effect.yieldNow
              for (const { partition } of polled) busy.delete(partition)
              yield* subscription.commit(polled)
            }).pipe(Effect.uninterruptible)
          }
        }).pipe(Effect.scoped)
      const publishing = yield* Effect.forkScoped(
        Effect.forEach(
          range(0, 120),
          (round) =>
            Effect.andThen(
              replicas[0]!.broker.publish(
                range(0, 40).map((index) => {
                  const value = Number(round) * 40 + Number(index)
                  return message(topic, String(value), `key ${value % 8}`)
                })
              ),
              Effect.yieldNow
            ),
          { discard: true }
        )
      )
      const crew = [yield* Effect.forkScoped(member(0))]
      for (let index = 1; index < 8; index++) {
        crew.push(yield* Effect.forkScoped(member(index)))
        yield* eventually(
          Effect.sync(() => changes > index),
          "member"
        )
        if (index % 2 === 0) yield* Fiber.interrupt(crew.shift()!)
      }
      yield* Fiber.join(publishing)
      yield* eventually(
        Effect.sync(() => seen.size === 4_800),
        "end"
      )
      assert.deepStrictEqual(wrong, [])
    }))

  testBeside("gives no more of a partition than may be in flight, until some is committed", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("in-flight")
      yield* broker.publish(numbered(topic, 50))
      const subscription = yield* broker.subscribe({
        group: fresh("group"),
        topics: [topic],
        inFlightMax: 10
      })
      const first = yield* collect(subscription, 10, { commit: false })
      yield* nothingComes(subscription)
      yield* subscription.commit(first.slice(0, 3))
      assert.deepStrictEqual((yield* collect(subscription, 3, { commit: false })).map(text), range(10, 13))
      yield* nothingComes(subscription)
    })
  )

  testBeside("commits the positions that it can, and names the partitions that it was not given", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const [topic, other, group] = [
        yield* freshTopic("positions"),
        yield* freshTopic("other"),
        fresh("group")
      ]
      yield* broker.publish(numbered(topic, 4))
      const subscription = yield* broker.subscribe({ group, topics: [topic] })
      const messages = yield* collect(subscription, 4, { commit: false })
      const failure = yield* Effect.flip(
        subscription.commit([messages[1]!, { topic: other, partition: 3, offset: 0 }])
      )
      assert.deepStrictEqual(failure._tag === "PartitionLost" ? failure.partitions : [], [
        { topic: other, partition: 3 }
      ])
      const beyond = yield* Effect.flip(subscription.commit([{ ...messages[3]!, offset: 4 }]))
      assert.strictEqual(beyond._tag, "PartitionLost")
      const lag = (yield* subscription.lag).find(({ partition }) => partition === messages[0]!.partition)
      assert.strictEqual(lag?.committed, 2)
    })
  )

  testBeside("tells how far a group is behind in each partition", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const [topic, group] = [yield* freshTopic("lag"), fresh("group")]
      const subscription = yield* broker.subscribe({ group, topics: [topic] })
      assert.strictEqual((yield* subscription.lag).length, 8)
      yield* broker.publish([...numbered(topic, 7, "a"), ...numbered(topic, 5, "b")])
      const total = Effect.map(subscription.lag, (lags) => lags.reduce((sum, { lag }) => sum + lag, 0))
      assert.strictEqual(yield* total, 12)
      const messages = yield* collect(subscription, 12, { commit: false })
      yield* subscription.commit(messages.filter(({ key }) => key === "a").slice(0, 3))
      const { partition } = messages.find(({ key }) => key === "a")!
      const ofA = (yield* subscription.lag).find((lag) => lag.partition === partition)!
      assert.strictEqual(ofA.committed, 3)
      assert.strictEqual(ofA.end - ofA.committed, ofA.lag)
      assert.strictEqual(yield* total, 9)
      yield* subscription.commit(messages)
      assert.strictEqual(yield* total, 0)
    })
  )

  testBeside("fails what is asked during an outage, and goes on after it with nothing lost", () =>
    Effect.gen(function* () {
      const { fetchesAhead, replica } = yield* BrokerWorld
      const { broker, plug, unplug } = yield* replica
      const [topic, group] = [yield* freshTopic("outage"), fresh("group")]
      yield* broker.publish(numbered(topic, 2))
      const subscription = yield* broker.subscribe({ group, topics: [topic] })
      const before = yield* collect(subscription, 2, { commit: false })
      assert.isTrue(yield* broker.ready)
      yield* unplug
      assert.isFalse(yield* broker.ready)
      assert.strictEqual((yield* Effect.flip(broker.publish(numbered(topic, 1))))._tag, "BrokerUnavailable")
      assert.strictEqual((yield* Effect.flip(subscription.commit(before)))._tag, "BrokerUnavailable")
      assert.strictEqual((yield* Effect.flip(subscription.lag))._tag, "BrokerUnavailable")
      assert.strictEqual(
        (yield* Effect.flip(Effect.scoped(broker.subscribe({ group, topics: [topic] }))))._tag,
        "BrokerUnavailable"
      )
      const waiting = yield* Effect.forkChild(collect(subscription, 3, { commit: false }))
      yield* plug
      yield* within(
        Effect.retry(broker.publish(numbered(topic, 3, "k", 2)), Schedule.spaced("20 millis")),
        "publishing"
      )
      assert.isTrue(yield* broker.ready)
      if (!fetchesAhead)
        yield* within(Effect.retry(subscription.commit(before), Schedule.spaced("20 millis")), "commit")
      const after = yield* Fiber.join(waiting)
      assert.deepStrictEqual(after.map(text), range(2, 5))
      yield* subscription.commit([...before, ...after])
    })
  )

  testBeside("starts again from the last commit after an outage that was longer than a session", () =>
    Effect.gen(function* () {
      const { broker, plug, unplug } = yield* (yield* BrokerWorld).replica
      const [topic, group] = [yield* freshTopic("long-outage"), fresh("group")]
      yield* broker.publish(numbered(topic, 3))
      const subscription = yield* broker.subscribe({ group, topics: [topic] })
      const before = yield* collect(subscription, 3, { commit: false })
      yield* subscription.commit(before.slice(0, 1))
      yield* unplug
      yield* holds(subscription, 0)
      yield* plug
      assert.deepStrictEqual((yield* collect(subscription, 2, { commit: true })).map(text), range(1, 3))
      yield* holds(subscription, 8)
    })
  )

  test("takes a big batch in one call, over many topics", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topics = [yield* freshTopic("big"), yield* freshTopic("big"), yield* freshTopic("big")]
      const count = 15_000
      yield* broker.publish(
        range(0, count).map((value) => message(topics[Number(value) % 3]!, value.padEnd(100), `key ${value}`))
      )
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics })
      const messages = yield* collect(subscription, count, { commit: true })
      assert.strictEqual(new Set(messages.map(text)).size, count)
    }))

  test("moves messages as large as may be, a few at a time", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("large")
      // Random, so that no compression makes it easy.
      const value = crypto.getRandomValues(new Uint8Array(65_536))
      const large = Buffer.concat(Array.from({ length: 15 }, () => value)).subarray(0, 950_000)
      yield* broker.publish(range(0, 24).map(() => ({ topic, key: "k", headers: {}, value: large })))
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      const messages = yield* collect(subscription, 24, { commit: true })
      assert.isTrue(messages.every((one) => Buffer.compare(one.value!, large) === 0))
    }))

  test("loses nothing when polls are interrupted", () =>
    Effect.gen(function* () {
      const { broker } = yield* (yield* BrokerWorld).replica
      const topic = yield* freshTopic("interrupted")
      const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      yield* Effect.forkScoped(
        Effect.forEach(range(0, 200), (value) => broker.publish([message(topic, value, null)]), {
          discard: true
        })
      )
      const seen = new Set<string>()
      yield* within(
        Effect.gen(function* () {
          while (seen.size < 200) {
            const polled = yield* subscription.poll(5).pipe(Effect.timeoutOption("1 millis"))
            if (Option.isNone(polled)) continue
            for (const one of polled.value) seen.add(text(one))
            yield* subscription.commit(polled.value)
          }
        }),
        "200 messages"
      )
    }))

  test("removes what is old and committed by every known group, and nothing else", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      if (!world.removesExpired) return
      const { broker } = yield* world.replica
      const [topic, fast, slow] = [yield* freshTopic("retention"), fresh("group"), fresh("group")]
      yield* broker.publish(numbered(topic, 10))
      const ahead = yield* broker.subscribe({ group: fast, topics: [topic] })
      const behind = yield* broker.subscribe({ group: slow, topics: [topic] })
      yield* collect(ahead, 10, { commit: true })
      const messages = yield* collect(behind, 10, { commit: false })
      yield* behind.commit(messages.slice(0, 4))
      yield* broker.removeExpired(60_000)
      // Everything is older than a second from now.
      yield* broker.removeExpired(-1_000)
      const late = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
      const kept = yield* collect(late, 6, { commit: true })
      assert.deepStrictEqual(kept.map(text), range(4, 10))
      assert.deepStrictEqual(
        kept.map(({ offset }) => offset),
        [4, 5, 6, 7, 8, 9]
      )
      assert.strictEqual(
        (yield* late.lag).reduce((sum, { lag }) => sum + lag, 0),
        0
      )
      yield* behind.commit(messages)
      assert.strictEqual(yield* broker.removeExpired(-1_000), 6)
      yield* broker.publish(numbered(topic, 1, "k", 10))
      const [next] = yield* collect(late, 1, { commit: true })
      assert.strictEqual(next!.offset, 10)
    }))
}

layer(memoryWorld, { excludeTestServices: true })("the broker in memory", suite as never)

describe.skipIf(kafkaMissing !== undefined)("Kafka", () => {
  layer(kafkaWorld, { excludeTestServices: true, timeout: "120 seconds" })(
    "the broker in Kafka",
    suite as never
  )
})

layer(postgresWorld, { excludeTestServices: true })("the broker in PostgreSQL", (it) => {
  suite(it as never)

  it.effect("gives offsets without gaps, in the order of commit, to publishers of opposite orders", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const replicas = [yield* world.replica, yield* world.replica]
      const topics = [yield* freshTopic("gapless"), yield* freshTopic("gapless")]
      const subscription = yield* replicas[0]!.broker.subscribe({ group: fresh("group"), topics })
      const publishing = yield* Effect.forkChild(
        Effect.forEach(
          [0, 1].flatMap((replica) => range(0, 150).map((call) => [replica, call] as const)),
          ([replica, call]) =>
            replicas[replica]!.broker.publish(
              (replica === 0 ? topics : topics.toReversed()).flatMap((topic) =>
                range(0, 16).map((key) => message(topic, `${replica} ${call}`, key))
              )
            ),
          { concurrency: 40, discard: true }
        )
      )
      const messages = yield* collect(subscription, 300 * 32, { commit: true })
      yield* Fiber.join(publishing)
      const next = new Map<string, number>()
      for (const { topic, partition, offset } of messages) {
        const place = `${topic}/${partition}`
        assert.strictEqual(offset, next.get(place) ?? 0)
        next.set(place, offset + 1)
      }
    })
  )

  it.effect("goes on when PostgreSQL ends all its connections", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const sql = yield* connect((yield* BrokerDatabase).url)
      const { broker } = yield* world.replica
      const [topic, group] = [yield* freshTopic("ended"), fresh("group")]
      const subscription = yield* broker.subscribe({ group, topics: [topic] })
      yield* broker.publish(numbered(topic, 1))
      yield* collect(subscription, 1, { commit: true })
      yield* sql.run(`SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'holdfast test'`)
      yield* within(
        Effect.retry(broker.publish(numbered(topic, 1, "k", 1)), Schedule.spaced("20 millis")),
        "publishing"
      )
      const came = yield* collect(subscription, 1, { commit: false })
      assert.deepStrictEqual(came.map(text), ["1"])
      yield* within(Effect.retry(subscription.commit(came), Schedule.spaced("20 millis")), "commit")
    })
  )

  it.effect("leaves no transaction open and grants the reader nothing", () =>
    Effect.gen(function* () {
      const world = yield* BrokerWorld
      const sql = yield* connect((yield* BrokerDatabase).url)
      const { broker } = yield* world.replica
      const subscription = yield* broker.subscribe({
        group: fresh("group"),
        topics: [yield* freshTopic("waiting")]
      })
      const waiting = yield* Effect.forkChild(subscription.poll(1))
      yield* eventually(
        Effect.map(
          sql.run(`SELECT 1 FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
              AND (state LIKE 'idle in transaction%' OR backend_xmin IS NOT NULL)`),
          (rows) => rows.length === 0
        ),
        "rest"
      )
      yield* Fiber.interrupt(waiting)
      const granted = yield* sql.run(`SELECT table_name FROM information_schema.role_table_grants
        WHERE grantee LIKE 'holdfast_reader%' AND table_name LIKE 'broker%'`)
      assert.deepStrictEqual(granted, [])
    })
  )
})

describe("the faults of the broker in memory", () => {
  it.effect("takes as long as it is told, by the clock", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const { broker } = yield* cluster.connect
      yield* cluster.setDelay(1_000)
      const publishing = yield* Effect.forkChild(broker.publish(numbered("t", 1)))
      yield* TestClock.adjust(999)
      assert.isUndefined(publishing.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(publishing), [undefined])
    })
  )

  it.effect("publishes twice what was told to be unavailable after it happened", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const { broker } = yield* cluster.connect
      yield* cluster.setAnswersLost(true)
      assert.strictEqual((yield* Effect.flip(broker.publish([message("t", "1")])))._tag, "BrokerUnavailable")
      yield* cluster.setAnswersLost(false)
      yield* broker.publish([message("t", "1")])
      const subscription = yield* broker.subscribe({ group: "g", topics: ["t"] })
      assert.deepStrictEqual((yield* subscription.poll(10)).map(text), ["1", "1"])
    })
  )

  it.effect("passes the partitions of a crashed member on at once", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const [one, two] = [yield* cluster.connect, yield* cluster.connect]
      yield* one.broker.publish(numbered("t", 3))
      const first = yield* one.broker.subscribe({ group: "g", topics: ["t"] })
      const messages = yield* first.poll(10)
      assert.deepStrictEqual(messages.map(text), range(0, 3))
      yield* one.crash
      const second = yield* two.broker.subscribe({ group: "g", topics: ["t"] })
      assert.deepStrictEqual((yield* second.poll(10)).map(text), range(0, 3))
      assert.strictEqual((yield* Effect.flip(first.commit(messages)))._tag, "BrokerUnavailable")
    })
  )

  it.effect("refuses what the test wants refused", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const { broker } = yield* cluster.connect
      yield* cluster.refuse(({ value }) => value === "1")
      const answer = yield* broker.publish(numbered("t", 3, null))
      assert.deepStrictEqual(
        answer.map((refusal) => refusal?.reason),
        [undefined, "OTHER", undefined]
      )
    })
  )

  it.effect("silences a member whose session has run out before it delivers anything more", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const { broker, unplug } = yield* cluster.connect
      yield* broker.publish(numbered("t", 10))
      const subscription = yield* broker.subscribe({ group: "g", topics: ["t"] })
      assert.strictEqual((yield* subscription.poll(4)).length, 4)
      yield* unplug
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(yield* subscription.assignment, [])
      const polled = yield* Effect.forkChild(subscription.poll(4))
      yield* TestClock.adjust(60_000)
      assert.isUndefined(polled.pollUnsafe())
    })
  )

  it.effect("keeps what it has fetched to itself while it cannot know whether it is still in the group", () =>
    Effect.gen(function* () {
      const cluster = makeCluster()
      const { broker } = yield* cluster.connect
      yield* broker.publish(range(0, 80).map((value) => message("t", value, value)))
      const subscription = yield* broker.subscribe({ group: "g", topics: ["t"] })
      const first = yield* subscription.poll(4)
      // The heartbeat hangs: nobody tells that the session has run out.
      yield* cluster.setDelay(20_000)
      yield* TestClock.adjust(10_000)
      const polled = yield* Effect.forkChild(subscription.poll(4))
      yield* TestClock.adjust(100)
      assert.isUndefined(polled.pollUnsafe())
      yield* cluster.setDelay(0)
      yield* TestClock.adjust(30_000)
      // Its session has run out meanwhile: what was not committed may come again.
      assert.strictEqual(first.length + (yield* Fiber.join(polled)).length, 8)
    })
  )
})

describe("the share of a member", () => {
  it("is as even as can be among processes, and among the members of one, and leaves no partition to nobody", () => {
    for (let partitions = 1; partitions <= 12; partitions++)
      for (let processes = 1; processes <= 11; processes++)
        for (let members = 1; members <= 3; members++) {
          const shares = Array.from({ length: members }, (_, index) =>
            shareOf(partitions, processes, members, index)
          )
          const ofProcess = shares.reduce((sum, share) => sum + share, 0)
          assert.strictEqual(ofProcess, Math.ceil(partitions / processes))
          assert.isTrue(Math.max(...shares) - Math.min(...shares) <= 1)
        }
  })
})
