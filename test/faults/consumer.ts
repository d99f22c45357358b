import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { Broker } from "../../src/services/messaging/Broker.ts"
import type { Sql } from "../support/ledger.ts"
import { eventually, fresh } from "../support/service.ts"

/** A consumer that remembers everything, and what its memories must be like. */

export const topics = [
  "inventory.events",
  "inventory.confirmed",
  "inventory.confirmation_failed",
  "inventory.low_stock",
  "inventory.out_of_stock"
]

interface Received {
  readonly id: string
  readonly topic: string
  readonly key: string
  readonly type: string
  /** Of an item's events: their number. */
  readonly sequence: number | undefined
}

/** Receives from the broker in PostgreSQL for as long as the scope is open. */
export const consume = (url: Redacted.Redacted<string>) =>
  Effect.flatMap(
    Layer.build(PostgresBroker.layer().pipe(Layer.provide(Postgres.layer({ url })))),
    (context) => consumeFrom(Context.get(context, Broker))
  )

export const consumeFrom = Effect.fnUntraced(function* (broker: Broker["Service"]) {
  const received: Array<Received> = []
  const subscription = yield* broker.subscribe({ group: fresh("group"), topics })
  yield* Effect.gen(function* () {
    const messages = yield* subscription.poll(1_000)
    for (const { headers, key, topic, value } of messages) {
      const { data } = JSON.parse(Buffer.from(value!).toString()) as { data: { sequence?: number } }
      received.push({
        id: headers["ce_id"]!,
        type: headers["ce_type"]!,
        topic,
        key: key!,
        sequence: data.sequence
      })
    }
    yield* subscription.commit(messages)
  }).pipe(Effect.retry({ times: 100 }), Effect.forever, Effect.forkScoped)
  return received
})

/** All that was committed has come. `except` never will. */
export const untilAllReceived = Effect.fnUntraced(function* (
  sql: Sql,
  received: ReadonlyArray<Received>,
  except: ReadonlyArray<string> = []
) {
  const rows = yield* sql.run<{ id: string }>("SELECT id FROM domain_event")
  const awaited = rows.map(({ id }) => id).filter((id) => !except.includes(id))
  yield* eventually(
    Effect.sync(() => {
      const ids = new Set(received.map(({ id }) => id))
      return awaited.filter((id) => !ids.has(id)).length
    }),
    (missing) => missing === 0
  )
  return awaited.length
})

/**
 * The events of each item came in their sequence, none left out. Duplicates come only as a redelivery: from an earlier
 * point on, one after the other. Returns how many duplicates there were.
 */
export const assertInSequence = (
  received: ReadonlyArray<Received>,
  leftOut: ReadonlySet<string> = new Set()
): number => {
  let duplicates = 0
  const perKey = Map.groupBy(
    received.filter(({ sequence }) => sequence !== undefined),
    ({ key }) => key
  )
  for (const [key, events] of perKey) {
    let before = 0
    let last = 0
    for (const { sequence } of events as ReadonlyArray<{ sequence: number }>) {
      let next = before + 1
      while (leftOut.has(`${key} ${next}`)) next += 1
      assert.isTrue(
        sequence === next || sequence <= before,
        `item ${key}: ${sequence} came after ${before}, ${last} was the last`
      )
      if (sequence <= last) duplicates += 1
      before = sequence
      last = Math.max(last, sequence)
    }
  }
  return duplicates
}

export const untilAllSent = (sql: Sql) =>
  eventually(
    Effect.map(
      sql.run<{ count: number }>("SELECT count(*) AS count FROM outbox WHERE sent_at IS NULL"),
      ([row]) => row!.count
    ),
    (count) => count === 0
  )
