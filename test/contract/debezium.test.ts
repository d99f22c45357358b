import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { debezium } from "../support/debezium.ts"
import { ownKafkaMissing } from "../support/kafka.ts"
import { connect } from "../support/ledger.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { eventually, fresh, merchantAt, startService } from "../support/service.ts"
import { pick } from "../support/shape.ts"
import { connectWorker, kafka } from "../support/shared.ts"

// Goal: what is written into another service's tables is in the books, by way of Debezium and Kafka.
// Method: a real connector on a real database, with and without schemas in its records, and the program beside it.

const timeout = 300_000

describe.skipIf(ownKafkaMissing !== undefined)("captured tables", { timeout }, () => {
  for (const schemas of [false, true]) {
    it.live(`are followed by the books, their records ${schemas ? "with" : "without"} schemas`, () =>
      Effect.gen(function* () {
        const { brokers } = yield* kafka
        const prefix = `${fresh("captured")}.`
        const { sql } = yield* debezium(yield* connectWorker, {
          brokers,
          prefix,
          schemas,
          rows: [
            "INSERT INTO merchant VALUES ('acme', 'Acme')",
            "INSERT INTO product_variant VALUES ('cup', 'acme', 'CUP', 'active', 9.90, 'A cup')"
          ]
        })
        const { url } = yield* freshDatabase
        const service = yield* startService(Redacted.value(url), {
          KAFKA_BROKERS: brokers,
          TOPIC_PREFIX: prefix
        })
        const acme = yield* merchantAt(service, "acme")
        const status = (variant: string) =>
          Effect.map(acme.get(`/api/v1/inventory/${variant}`), (answer) =>
            answer.status === 200 ? pick(answer.body, "status") : answer.status
          )
        const until = (variant: string, wanted: unknown) =>
          eventually(status(variant), (found) => found === wanted)

        // What was there before the connector comes as a snapshot.
        yield* until("cup", "AWAITING_INITIAL_STOCK")
        yield* sql.run("INSERT INTO product_variant VALUES ('plate', 'acme', NULL, 'draft', NULL, 'A plate')")
        yield* until("plate", "AWAITING_INITIAL_STOCK")
        yield* sql.run("UPDATE product_variant SET status = 'discontinued' WHERE id = 'plate'")
        yield* until("plate", "DISCONTINUED")
        // A delete names the row alone.
        yield* sql.run("DELETE FROM product_variant WHERE id = 'plate'")
        yield* until("plate", 404)
        // A key that changes is a row that goes and another that comes.
        yield* sql.run("UPDATE product_variant SET id = 'mug' WHERE id = 'cup'")
        yield* until("mug", "AWAITING_INITIAL_STOCK")
        yield* until("cup", 404)
        yield* sql.run("INSERT INTO merchant VALUES ('bistro', 'Bistro')")
        const books = yield* connect(url)
        yield* eventually(
          books.run("SELECT 1 FROM location WHERE merchant_id = 'bistro'"),
          (rows) => rows.length === 1
        )
        yield* sql.run("TRUNCATE product_variant")
        yield* sql.run("INSERT INTO product_variant VALUES ('last', 'acme', 'LAST', 'active', 1, '')")
        yield* until("last", "AWAITING_INITIAL_STOCK")
        const letters = yield* books.run("SELECT topic, reason, detail FROM dead_letter")
        assert.deepStrictEqual(letters, [])
      })
    )
  }
})
