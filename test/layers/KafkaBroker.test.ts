import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schedule, type Scope } from "effect"
import { Kafka as KafkaClient, logLevel } from "kafkajs"
import { connect as dialTcp, createServer } from "node:net"
import { gunzipSync } from "node:zlib"
import * as KafkaBroker from "../../src/layers/KafkaBroker.ts"
import { murmur2, partitionOf } from "../../src/layers/kafka/Partitioner.ts"
import * as PrefixedBroker from "../../src/layers/PrefixedBroker.ts"
import {
  Broker,
  type IncomingMessage,
  type OutgoingMessage,
  type Subscription
} from "../../src/services/messaging/Broker.ts"
import { type OwnKafka, makeTopics, ownKafka, ownKafkaMissing, saslUser } from "../support/kafka.ts"
import { listening } from "../support/listening.ts"
import { tcpCable } from "../support/proxy.ts"

// Goal: what only Kafka can show of its broker: logins, refusals of its own, restarts, connections that go silent.
// Method: a server of the file's own that is stopped and started, and a cable that loses what it carries.

class Server extends Context.Service<Server, OwnKafka>()("holdfast/test/Server") {}

const restricted = {
  "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
  // Whoever has not logged in may do everything, and `user` what it is given: the reverse of what one would run.
  "super.users": "User:ANONYMOUS",
  // Compacts at once what a topic wants compacted.
  "log.cleaner.backoff.ms": "100"
}

const serverLayer = Layer.effect(Server, ownKafka({ sasl: true, tls: true, properties: restricted }))

const timings = { heartbeatMs: 200, sessionMs: 6_000, handoverMs: 3_000, pollMs: 200 }

const connect = (options: Partial<KafkaBroker.KafkaBrokerOptions> = {}) =>
  Effect.flatMap(Server, ({ brokers }) =>
    Effect.map(Layer.build(KafkaBroker.layer({ brokers: [brokers], timings, ...options })), (context) =>
      Context.get(context, Broker)
    )
  )

let names = 0
const fresh = (name: string): string => `${name}.${++names}`
const freshTopic = Effect.fnUntraced(function* (name: string, partitions = 8) {
  const topic = fresh(name)
  const { createTopics } = yield* connect()
  // A server that was restarted a moment ago takes connections before it takes topics.
  yield* Effect.retry(createTopics([topic], { partitions }), {
    times: 100,
    schedule: Schedule.spaced("200 millis")
  })
  return topic
}, Effect.scoped)

const message = (topic: string, value: string, key: string | null = "k"): OutgoingMessage => ({
  topic,
  key,
  headers: {},
  value
})
const text = ({ value }: IncomingMessage): string => (value === null ? "null" : Buffer.from(value).toString())
const range = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => String(from + index))

/** Nothing that compresses. */
const random = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536))
  return bytes
}

const collect = (subscription: Subscription, count: number) =>
  Effect.gen(function* () {
    const messages: Array<IncomingMessage> = []
    while (messages.length < count) {
      const polled = yield* subscription.poll(count - messages.length)
      messages.push(...polled)
      yield* Effect.retry(
        Effect.catchTag(subscription.commit(polled), "PartitionLost", () => Effect.void),
        Schedule.spaced("50 millis")
      )
    }
    return messages
  }).pipe(
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => Effect.die(new Error(`there were not ${count} messages`))
    })
  )

/** Waits until so many messages are not committed. */
const lagOf = (subscription: Subscription, left: number) =>
  Effect.repeat(subscription.lag, {
    until: (partitions) => partitions.reduce((sum, { lag }) => sum + lag, 0) === left,
    schedule: Schedule.spaced("50 millis")
  })

/** How a batch begins at offset 1: its format (2) is at 16, its attributes are at 21. */
const headOfOffset1 = Buffer.from([0, 0, 0, 0, 0, 0, 0, 1])

const published = (broker: Broker["Service"], messages: ReadonlyArray<OutgoingMessage>) =>
  Effect.retry(broker.publish(messages), Schedule.spaced("50 millis"))

describe("the partition of a key", () => {
  it("is that of Java's producer", () => {
    // The values of Kafka's own tests (org.apache.kafka.common.utils.UtilsTest).
    const known: ReadonlyArray<readonly [string, number]> = [
      ["21", -973932308],
      ["foobar", -790332482],
      ["a-little-bit-long-string", -985981536],
      ["a-little-bit-longer-string", -1486304829],
      ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
      ["abc", 479470107]
    ]
    for (const [key, hash] of known) assert.strictEqual(murmur2(Buffer.from(key)), hash, key)
    assert.strictEqual(partitionOf(Buffer.from("foobar"), 8), (-790332482 & 0x7fffffff) % 8)
  })
})

describe.skipIf(ownKafkaMissing !== undefined)("Kafka", () => {
  layer(serverLayer, { excludeTestServices: true, timeout: "150 seconds" })("its broker", (it) => {
    const test = (name: string, body: () => Effect.Effect<void, unknown, Server | Scope.Scope>) =>
      it.effect(name, body as () => Effect.Effect<void, unknown, Server | Scope.Scope>, 120_000)

    test("knows who logs in by each mechanism, and lets nobody in with a wrong password", () =>
      Effect.gen(function* () {
        const { saslBrokers } = yield* Server
        for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"] as const) {
          const login = { mechanism, username: saslUser.username, password: Redacted.make(saslUser.password) }
          const broker = yield* connect({ brokers: [saslBrokers], sasl: login })
          assert.isTrue(yield* broker.ready, mechanism)
          const wrong = { ...login, password: Redacted.make("wrong") }
          const stranger = yield* connect({ brokers: [saslBrokers], sasl: wrong })
          assert.isFalse(yield* stranger.ready, mechanism)
          const failure = yield* Effect.flip(stranger.missingTopics([]))
          assert.match(String(failure.cause), /authentication/i)
        }
      }))

    test("reaches a server by an IPv6 address", () =>
      Effect.gen(function* () {
        const { brokers } = yield* Server
        const port = Number(brokers.split(":")[1])
        const dialled = new Set<string>()
        const broker = yield* connect({
          brokers: [`[::1]:${port}`],
          // The server listens on 127.0.0.1 alone.
          dial: ({ host }) => {
            dialled.add(host)
            return dialTcp({ host: "127.0.0.1", port })
          }
        })
        assert.isTrue(yield* broker.ready)
        assert.isTrue(dialled.has("::1"))
      }))

    test("speaks TLS with whom it can verify, and with nobody else", () =>
      Effect.gen(function* () {
        const { certificate, tlsBrokers } = yield* Server
        const topic = yield* freshTopic("tls")
        const broker = yield* connect({ brokers: [tlsBrokers], tls: { ca: certificate } })
        assert.deepStrictEqual(yield* broker.publish([message(topic, "1")]), [undefined])
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        assert.deepStrictEqual((yield* collect(subscription, 1)).map(text), ["1"])
        const stranger = yield* connect({ brokers: [tlsBrokers], tls: {} })
        assert.isFalse(yield* stranger.ready)
      }))

    test("is told of what the cluster refuses: a topic that is none, one without the right, a message too large", () =>
      Effect.gen(function* () {
        const { saslBrokers } = yield* Server
        const topic = yield* freshTopic("forbidden")
        const broker = yield* connect()
        const [unknown] = yield* broker.publish([message(fresh("never-made"), "1")])
        assert.strictEqual(unknown?.reason, "UNKNOWN_TOPIC")
        const login = {
          mechanism: "plain" as const,
          username: saslUser.username,
          password: Redacted.make(saslUser.password)
        }
        const restrictedBroker = yield* connect({ brokers: [saslBrokers], sasl: login })
        const [forbidden] = yield* restrictedBroker.publish([message(topic, "1")])
        assert.strictEqual(forbidden?.reason, "FORBIDDEN")
        // More than the topic takes, and nothing that compresses.
        const generous = yield* connect({ messageBytesMax: 3_000_000 })
        const few = yield* freshTopic("large", 1)
        const mixed = [
          message(few, "before", "a"),
          { topic: few, key: "b", headers: {}, value: random(2_000_000) },
          message(few, "behind", "b"),
          message(few, "beside", "a")
        ]
        const answer = yield* generous.publish(mixed)
        assert.deepStrictEqual(
          answer.map((refusal) => refusal?.reason),
          [undefined, "TOO_LARGE", "OTHER", undefined]
        )
        const subscription = yield* generous.subscribe({ group: fresh("group"), topics: [few] })
        assert.deepStrictEqual((yield* collect(subscription, 2)).map(text), ["before", "beside"])
      }))

    test("finds the one message that a batch was refused for, and keeps the order of the others", () =>
      Effect.gen(function* () {
        const topic = yield* freshTopic("poisoned", 1)
        const broker = yield* connect({ messageBytesMax: 3_000_000 })
        const large = random(2_000_000)
        const messages = range(0, 50).map((value) => message(topic, value, "k"))
        messages.splice(20, 0, { topic, key: "poison", headers: {}, value: large })
        const answer = yield* broker.publish(messages)
        assert.deepStrictEqual(
          answer.flatMap((refusal, index) => (refusal === undefined ? [] : [[index, refusal.reason]])),
          [[20, "TOO_LARGE"]]
        )
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        assert.deepStrictEqual((yield* collect(subscription, 50)).map(text), range(0, 50))
      }))

    test("keeps the order of a key over topics when one of them refuses it", () =>
      Effect.gen(function* () {
        const [one, two] = [yield* freshTopic("one"), fresh("never-made")]
        const broker = yield* connect()
        const answer = yield* broker.publish([
          message(one, "1"),
          message(two, "2"),
          message(one, "3"),
          message(one, "4", "other")
        ])
        assert.deepStrictEqual(
          answer.map((refusal) => refusal?.reason),
          [undefined, "UNKNOWN_TOPIC", "OTHER", undefined]
        )
      }))

    test("waits for a topic that is made later while the others work, and names it", () =>
      Effect.gen(function* () {
        const broker = yield* connect()
        const [present, late] = [yield* freshTopic("present"), fresh("late")]
        assert.deepStrictEqual(yield* broker.missingTopics([present, late]), [late])
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [present, late] })
        yield* broker.publish([message(present, "1")])
        assert.deepStrictEqual((yield* collect(subscription, 1)).map(text), ["1"])
        assert.deepStrictEqual(yield* broker.createTopics([present, late]), [late])
        assert.deepStrictEqual(yield* broker.missingTopics([present, late]), [])
        yield* broker.publish([message(late, "2")])
        assert.deepStrictEqual((yield* collect(subscription, 1)).map(text), ["2"])
        const refused = yield* Effect.flip(broker.createTopics(["no/topic"]))
        assert.strictEqual(refused._tag, "TopicsRefused")
        const many = yield* Effect.flip(broker.createTopics([fresh("replicas")], { replicas: 7 }))
        assert.strictEqual(many._tag, "TopicsRefused")
      }))

    test("reads what was compressed in any way that Kafka knows, and what was not", () =>
      Effect.gen(function* () {
        const broker = yield* connect()
        const { brokers } = yield* Server
        // A topic's own compression has the broker pack anew what it is sent: as Java's producers do, by the same code.
        for (const compression of ["uncompressed", "gzip", "snappy", "lz4", "zstd"]) {
          const topic = fresh(compression)
          yield* makeTopics(brokers, [topic], {
            partitions: 1,
            configuration: { "compression.type": compression }
          })
          const large = "0123456789abcdef".repeat(12_000) + Buffer.from(random(30_000)).toString("hex")
          const values = [...range(0, 200), large, ""]
          assert.deepStrictEqual(
            yield* broker.publish(values.map((value) => message(topic, value))),
            values.map(() => undefined)
          )
          const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
          assert.deepStrictEqual((yield* collect(subscription, values.length)).map(text), values, compression)
        }
      }))

    test("hands over a batch that it cannot read as it came, and goes on behind it", () =>
      Effect.gen(function* () {
        const { brokers } = yield* Server
        const topic = yield* freshTopic("unreadable", 1)
        const honest = yield* connect()
        yield* honest.publish([message(topic, "before")])
        yield* honest.publish([message(topic, "1"), message(topic, "2")])
        yield* honest.publish([message(topic, "behind")])
        // On the way back, the batch at offset 1 says that it is compressed in a way that nobody knows.
        let tampered = 0
        const port = yield* listening(
          createServer((near) => {
            const far = dialTcp(Number(brokers.split(":")[1]), "127.0.0.1")
            near
              .on("error", () => undefined)
              .on("close", () => far.destroy())
              .pipe(far)
            far.on("error", () => undefined).on("close", () => near.destroy())
            far.on("data", (bytes: Buffer) => {
              for (let at = -1; (at = bytes.indexOf(headOfOffset1, at + 1)) >= 0;) {
                if (at + 61 > bytes.length || bytes[at + 16] !== 2) continue
                bytes.writeInt16BE(5, at + 21)
                tampered += 1
              }
              near.write(bytes)
            })
          })
        )
        const broker = yield* connect({ dial: () => dialTcp(port, "127.0.0.1") })
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        const came = yield* collect(subscription, 3)
        assert.deepStrictEqual(
          came.map(({ offset, unreadable }) => [offset, unreadable]),
          [
            [0, undefined],
            [2, "the batch of offsets 1 to 2: nobody here knows the compression 5"],
            [3, undefined]
          ]
        )
        assert.deepStrictEqual([text(came[0]!), text(came[2]!)], ["before", "behind"])
        // The records as they came, compressed.
        assert.isAbove(gunzipSync(came[1]!.value!).byteLength, 0)
        assert.isAbove(tampered, 0)
        yield* lagOf(subscription, 0)
      }))

    test("sees of transactions what was committed, passes over what was aborted, and lags behind neither", () =>
      Effect.gen(function* () {
        const { brokers } = yield* Server
        const topic = yield* freshTopic("transactions", 1)
        const broker = yield* connect()
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        const transact = (values: ReadonlyArray<string>, end: "commit" | "abort") =>
          Effect.promise(async () => {
            const producer = new KafkaClient({ brokers: [brokers], logLevel: logLevel.NOTHING }).producer({
              transactionalId: fresh("producer"),
              idempotent: true,
              maxInFlightRequests: 1
            })
            await producer.connect()
            const transaction = await producer.transaction()
            await transaction.send({ topic, messages: values.map((value) => ({ key: "k", value })) })
            await transaction[end]()
            await producer.disconnect()
          })
        yield* transact(["1", "2"], "commit")
        yield* transact(["never", "never"], "abort")
        yield* broker.publish([message(topic, "3")])
        yield* transact(["4"], "commit")
        assert.deepStrictEqual((yield* collect(subscription, 4)).map(text), ["1", "2", "3", "4"])
        // Behind the last message there is its marker, and then nothing but what was aborted.
        yield* lagOf(subscription, 0)
        yield* transact(["never"], "abort")
        yield* lagOf(subscription, 0)
        assert.deepStrictEqual(yield* subscription.lag, [
          { topic, partition: 0, committed: 11, end: 11, lag: 0 }
        ])
        yield* broker.publish([message(topic, "5")])
        assert.deepStrictEqual((yield* collect(subscription, 1)).map(text), ["5"])
      }))

    test("passes a range of which compaction has left nothing", () =>
      Effect.gen(function* () {
        const { brokers } = yield* Server
        const topic = fresh("compacted")
        yield* makeTopics(brokers, [topic], {
          partitions: 1,
          configuration: {
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.001",
            "max.compaction.lag.ms": "100",
            "delete.retention.ms": "0",
            "segment.bytes": "1048576"
          }
        })
        const broker = yield* connect()
        // The last batch of such a producer is kept for its number, empty, when its records are compacted away.
        const write = (key: string, value: Buffer | null) =>
          Effect.promise(async () => {
            const producer = new KafkaClient({ brokers: [brokers], logLevel: logLevel.NOTHING }).producer({
              idempotent: true,
              maxInFlightRequests: 1
            })
            await producer.connect()
            await producer.send({ topic, messages: Array.from({ length: 5 }, () => ({ key, value })) })
            await producer.disconnect()
          }).pipe(Effect.andThen(Effect.sleep("400 millis")))
        yield* write("k", Buffer.from("gone"))
        yield* write("k", null)
        // So large that no segment takes it together with what is before it.
        yield* Effect.promise(async () => {
          const producer = new KafkaClient({ brokers: [brokers], logLevel: logLevel.NOTHING }).producer()
          await producer.connect()
          await producer.send({ topic, messages: [{ key: "large", value: Buffer.from(random(1_048_440)) }] })
          await producer.disconnect()
        })
        yield* Effect.sleep("400 millis")
        yield* broker.publish([message(topic, "last", "another key")])
        yield* Effect.sleep("4 seconds")
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        const came = yield* collect(subscription, 2)
        assert.deepStrictEqual(
          came.map(({ key, offset }) => [key, offset]),
          [
            ["large", 10],
            ["another key", 11]
          ]
        )
        yield* lagOf(subscription, 0)
      }))

    test("gives each installation topics and groups of its own by a prefix", () =>
      Effect.gen(function* () {
        const plain = yield* connect()
        const [north, south] = ["north.", "south."].map((prefix) => PrefixedBroker.prefixed(plain, prefix))
        const topic = fresh("prefixed")
        assert.deepStrictEqual(yield* north!.createTopics([topic]), [topic])
        assert.deepStrictEqual(yield* south!.missingTopics([topic]), [topic])
        yield* north!.publish([message(topic, "1")])
        const [refusal] = yield* south!.publish([message(topic, "1")])
        assert.strictEqual(refusal?.topic, topic)
        const subscription = yield* north!.subscribe({ group: "group", topics: [topic] })
        const [came] = yield* subscription.poll(1)
        assert.strictEqual(came!.topic, topic)
        yield* subscription.commit([came!])
        assert.strictEqual((yield* subscription.assignment)[0]!.topic, topic)
        assert.strictEqual((yield* subscription.lag)[0]!.topic, topic)
        const lost = yield* Effect.flip(subscription.commit([{ ...came!, offset: 7 }]))
        assert.strictEqual(lost._tag === "PartitionLost" ? lost.partitions[0]!.topic : "", topic)
        const other = yield* plain.subscribe({ group: "group", topics: [`north.${topic}`] })
        assert.deepStrictEqual((yield* other.poll(1)).map(text), ["1"])
      }))

    test("loses nothing when connections go silent, and is told of it in bounded time", () =>
      Effect.gen(function* () {
        const cable = yield* tcpCable
        const topic = yield* freshTopic("silent")
        const broker = yield* connect({ dial: cable.dial, requestTimeoutMs: 1_500 })
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        yield* published(
          broker,
          range(0, 20).map((value) => message(topic, value, value))
        )
        yield* collect(subscription, 20)
        assert.isAbove(yield* cable.silence, 2)
        const told = yield* Effect.flip(broker.publish([message(topic, "lost?", "x")]))
        assert.strictEqual(told._tag, "BrokerUnavailable")
        yield* published(
          broker,
          range(20, 40).map((value) => message(topic, value, value))
        )
        const came = yield* collect(subscription, 20)
        const missed = range(20, 40).filter((value) => !came.map(text).includes(value))
        // What was lost on the way was never acknowledged; should it have arrived, one of the others came after it.
        assert.isAtMost(missed.length, 1)
      }))

    test("goes on where it was after a restart of the server, killed or stopped", () =>
      Effect.gen(function* () {
        const server = yield* Server
        const topic = yield* freshTopic("restart")
        const broker = yield* connect()
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        const seen = new Set<string>()
        const reading = yield* Effect.forkChild(
          Effect.gen(function* () {
            while (seen.size < 600) for (const one of yield* collect(subscription, 1)) seen.add(text(one))
          })
        )
        for (const [round, end] of [server.kill, server.stop].entries()) {
          const first = round * 300
          yield* published(
            broker,
            range(first, first + 100).map((value) => message(topic, value, value))
          )
          yield* end
          const during = yield* Effect.forkChild(
            Effect.forEach(
              range(first + 100, first + 200),
              (value) => published(broker, [message(topic, value, value)]),
              { discard: true }
            )
          )
          assert.isFalse(yield* broker.ready)
          yield* server.start
          yield* Fiber.join(during)
          yield* published(
            broker,
            range(first + 200, first + 300).map((value) => message(topic, value, value))
          )
        }
        yield* Fiber.join(reading)
        assert.strictEqual(seen.size, 600)
        assert.isTrue(yield* broker.ready)
      }))

    test("outlives a server that freezes for longer than a session", () =>
      Effect.gen(function* () {
        const server = yield* Server
        const topic = yield* freshTopic("frozen")
        const broker = yield* connect({ requestTimeoutMs: 1_500, timings: { ...timings, sessionMs: 3_000 } })
        const subscription = yield* broker.subscribe({ group: fresh("group"), topics: [topic] })
        yield* published(broker, [message(topic, "before")])
        yield* collect(subscription, 1)
        yield* server.freeze
        assert.strictEqual(
          (yield* Effect.flip(broker.publish([message(topic, "lost?")])))._tag,
          "BrokerUnavailable"
        )
        // Nobody knows any more whether the partitions are still this member's.
        yield* Effect.repeat(subscription.assignment, {
          until: (held) => held.length === 0,
          schedule: Schedule.spaced("50 millis")
        })
        yield* server.thaw
        yield* published(broker, [message(topic, "after")])
        const came = new Set<string>()
        while (!came.has("after")) for (const one of yield* collect(subscription, 1)) came.add(text(one))
      }))

    test("lets go within a moment, with a fetch under way and with the server gone", () =>
      Effect.gen(function* () {
        const server = yield* Server
        const [topic, group] = [yield* freshTopic("leaving"), fresh("group")]
        const subscribed = (broker: Broker["Service"]) =>
          Effect.scoped(
            Effect.flatMap(broker.subscribe({ group, topics: [topic] }), (subscription) =>
              Effect.repeat(subscription.assignment, {
                until: (held) => held.length === 8,
                schedule: Schedule.spaced("20 millis")
              })
            )
          )
        const broker = yield* connect()
        // Each has said goodbye, or the next one would wait for its session to end.
        yield* Effect.forEach(range(0, 10), () => subscribed(broker), { discard: true }).pipe(
          Effect.timeout("50 seconds")
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* broker.subscribe({ group, topics: [topic] })
            yield* server.kill
          })
        )
        yield* server.start
      }))
  })
})
