import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Redacted, Schedule } from "effect"
import { Kafka as KafkaClient, logLevel } from "kafkajs"
import * as KafkaBroker from "../../src/layers/KafkaBroker.ts"
import { Broker } from "../../src/services/messaging/Broker.ts"
import { assertInvariants } from "../support/invariants.ts"
import { type OwnKafka, ownCluster, ownKafkaMissing } from "../support/kafka.ts"
import { connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { run, startService } from "../support/service.ts"
import { assertInSequence, consumeFrom, untilAllReceived, untilAllSent } from "./consumer.ts"
import { report } from "./load.ts"
import { lookUntil, saleOf, salesTopic, sold } from "./sales.ts"

// Goal: nodes of a cluster die while messages flow in and out, and everything goes on by itself: each sale has its effect
// once, and what is told of each item comes in its order.
// Method: three real nodes; whoever leads the partitions that matter is killed, and comes back before the next one goes.

/** A minute on a quiet machine; where others work as well, nodes take long to be missed and to catch up. */
const timeout = 900_000
const items = 20

/** Who leads each partition of a topic, by node id, and how many replicas are in sync; asked of whoever lives. */
const partitionsOf = (nodes: ReadonlyArray<OwnKafka>, name: string) =>
  Effect.promise(async () => {
    const brokers = nodes.map((node) => node.brokers)
    const admin = new KafkaClient({ brokers, logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    const { topics } = await admin.fetchTopicMetadata({ topics: [name] })
    await admin.disconnect()
    return topics[0]!.partitions.toSorted((a, b) => a.partitionId - b.partitionId)
  })

describe.skipIf(ownKafkaMissing !== undefined)("a Kafka of three nodes", { timeout }, () => {
  it.live("loses its leaders one after the other while messages flow, and nothing of what they carried", () =>
    Effect.gen(function* () {
      const nodes = yield* ownCluster(3)
      const addresses = nodes.map(({ brokers }) => brokers).join()
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const environment = {
        KAFKA_BROKERS: addresses,
        DATABASE_URL: Redacted.value(url),
        HOLDFAST_DEV: "1"
      }
      const creating = yield* run(environment, ["topics", "create", "--replicas", "3", "--partitions", "4"])
      assert.strictEqual((yield* creating.ended).code, 0, creating.stderr())
      const [first] = yield* partitionsOf(nodes, salesTopic)
      assert.lengthOf(first!.replicas, 3)

      const service = yield* startService(environment.DATABASE_URL, environment)
      yield* Effect.addFinalizer((exit) =>
        Exit.isFailure(exit) ? Effect.sync(() => process.stderr.write(service.stdout())) : Effect.void
      )
      const context = yield* Layer.build(KafkaBroker.layer({ brokers: addresses.split(",") }))
      const broker = Context.get(context, Broker)
      const received = yield* consumeFrom(broker)
      const flow = { published: 0, stopping: false }
      // What is not acknowledged is published again: a duplicate more, never one less.
      const publishing = yield* Effect.gen(function* () {
        while (!flow.stopping) {
          const batch = Array.from({ length: 25 }, (_, index) => saleOf(flow.published + index, items))
          const refusals = yield* Effect.retry(broker.publish(batch), Schedule.spaced("100 millis"))
          assert.deepStrictEqual(
            refusals,
            batch.map(() => undefined)
          )
          flow.published += batch.length
          yield* Effect.sleep("100 millis")
        }
      }).pipe(Effect.forkChild)
      const soldMore = (count: number) =>
        Effect.flatMap(sold(sql), (before) => lookUntil(sold(sql), (now) => now >= before + count))
      yield* soldMore(200)

      // Who leads what comes in, what goes out, and what the consumers have committed.
      const resumedMs: Array<number> = []
      for (const leading of [salesTopic, "inventory.events", "__consumer_offsets"]) {
        const [{ leader }] = (yield* partitionsOf(nodes, leading)) as never as [{ leader: number }]
        const victim = nodes[leader - 1]!
        yield* victim.kill
        const since = performance.now()
        yield* soldMore(200)
        resumedMs.push(Math.round(performance.now() - since))
        assert.strictEqual((yield* service.call("GET", "/health/ready")).status, 200)
        yield* victim.start
        // Before it has caught up, two of three are all there are.
        for (const name of [salesTopic, "inventory.events", "__consumer_offsets"])
          yield* lookUntil(partitionsOf(nodes, name), (found) => found.every(({ isr }) => isr.length === 3))
      }
      flow.stopping = true
      yield* Fiber.join(publishing)
      const { published } = flow
      yield* lookUntil(sold(sql), (count) => count >= published)
      yield* untilAllSent(sql)
      const awaited = yield* untilAllReceived(sql, received)
      const duplicates = assertInSequence(received)
      report("a cluster that loses its leaders", { published, awaited, duplicates, resumedMs })

      const [books] = yield* sql.run<{ rows: number; orders: number }>(
        "SELECT count(*) AS rows, count(DISTINCT order_id) AS orders FROM inventory_ledger WHERE type = 'SALE'"
      )
      assert.deepStrictEqual(books, { rows: published, orders: published })
      assert.deepStrictEqual(yield* sql.run("SELECT topic, reason, detail FROM dead_letter"), [])
      assert.deepStrictEqual(yield* sql.run("SELECT state, topic, error FROM outbox_failure"), [])
      yield* lookUntil(service.call("GET", "/metrics"), ({ text }) =>
        new RegExp(`^holdfast_consumer_lag_messages\\{topic="${salesTopic}"\\} 0$`, "m").test(text)
      )
      yield* assertInvariants(url)
    })
  )
})
