import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Queue } from "effect"
import { Kafka, logLevel } from "kafkajs"
import { type Debezium, debezium, sellerTopics } from "../support/debezium.ts"
import { ownKafkaMissing } from "../support/kafka.ts"
import { connectWorker, kafka } from "../support/shared.ts"

// Goal: what is written to another service's tables arrives in Kafka as change data capture sends it.
// Method: a real connector on a real PostgreSQL, and a real Kafka; what came is read without any code of ours.

class Captured extends Context.Service<
  Captured,
  { readonly sql: Debezium["sql"]; readonly records: Queue.Queue<CapturedRecord> }
>()("holdfast/test/Captured") {}

interface CapturedRecord {
  readonly topic: string
  readonly key: unknown
  readonly value: { readonly op: string; readonly after: object | null } | null
}

const capture = Layer.effect(
  Captured,
  Effect.gen(function* () {
    const { brokers } = yield* kafka
    const prefix = `cdc${crypto.randomUUID()}.`
    const { sql } = yield* debezium(yield* connectWorker, {
      brokers,
      prefix,
      rows: [
        "INSERT INTO merchant VALUES ('acme', 'Acme')",
        "INSERT INTO product_variant (id, merchant_id, sku) VALUES ('cup', 'acme', 'CUP-1')"
      ]
    })
    const records = yield* Queue.unbounded<CapturedRecord>()
    const consumer = new Kafka({ brokers: [brokers], logLevel: logLevel.NOTHING }).consumer({
      groupId: `${prefix}test`,
      maxWaitTimeInMs: 100
    })
    yield* Effect.acquireRelease(
      Effect.promise(async () => {
        await consumer.connect()
        await consumer.subscribe({
          topics: sellerTopics.map((topic) => `${prefix}${topic}`),
          fromBeginning: true
        })
        await consumer.run({
          eachMessage: async ({ message: { key, value }, topic }) => {
            Queue.offerUnsafe(records, {
              topic: topic.slice(prefix.length),
              key: JSON.parse(String(key)),
              value: value === null ? null : (JSON.parse(String(value)) as CapturedRecord["value"])
            })
          }
        })
      }),
      () => Effect.promise(() => consumer.disconnect())
    )
    return { sql, records }
  })
)

const nextOf = (topic: string) =>
  Effect.gen(function* () {
    const { records } = yield* Captured
    for (;;) {
      const record = yield* Queue.take(records)
      if (record.topic === `nx.seller.public.${topic}`) return record
    }
  }).pipe(Effect.timeout("20 seconds"))

describe.skipIf(ownKafkaMissing !== undefined)("change data capture by Debezium", () => {
  layer(capture, { excludeTestServices: true, timeout: "120 seconds" })("a connector", (it) => {
    it.effect("sends what was there, what changes, and a tombstone behind what is deleted", () =>
      Effect.gen(function* () {
        const { sql } = yield* Captured
        const snapshot = yield* nextOf("product_variant")
        assert.deepStrictEqual(snapshot.key, { id: "cup" })
        assert.strictEqual(snapshot.value?.op, "r")
        assert.include(snapshot.value?.after, { id: "cup", merchant_id: "acme", sku: "CUP-1" })
        yield* sql.run("INSERT INTO product_variant (id, merchant_id) VALUES ('saucer', 'acme')")
        const created = yield* nextOf("product_variant")
        assert.strictEqual(created.value?.op, "c")
        assert.include(created.value?.after, { id: "saucer", merchant_id: "acme", sku: null })
        yield* sql.run("UPDATE product_variant SET sku = 'S' WHERE id = 'saucer'")
        assert.strictEqual((yield* nextOf("product_variant")).value?.op, "u")
        yield* sql.run("DELETE FROM product_variant WHERE id = 'saucer'")
        const deleted = yield* nextOf("product_variant")
        assert.strictEqual(deleted.value?.op, "d")
        assert.deepStrictEqual(deleted.key, { id: "saucer" })
        const tombstone = yield* nextOf("product_variant")
        assert.deepStrictEqual([tombstone.key, tombstone.value], [{ id: "saucer" }, null])
      })
    )
  })
})
