import { Context, Effect, Layer, type Redacted } from "effect"
import * as Postgres from "../src/layers/Postgres.ts"
import * as PostgresBroker from "../src/layers/PostgresBroker.ts"
import { groupOf } from "../src/schema/Topic.ts"
import { Broker } from "../src/services/messaging/Broker.ts"
import { type Options, median, print } from "./reserve.ts"
import { execute, freshDatabase, server } from "./support/Database.ts"
import { atLeast, machineOf, printFigures, writeReport } from "./support/Report.ts"
import { seed } from "./support/Seed.ts"
import { endProgram, processorSecondsOf, startProgram } from "./support/Service.ts"

/**
 * `payment.success` from a topic into the books: messages that wait in the broker kept in PostgreSQL, a process of the
 * role `consumers`, and the time from its first commit until nothing waits. A third are duplicates, and each sale is
 * checked to have had its effect once.
 */
const full = { rounds: 3, messages: 60_000, warmUp: 30_000 }
const quick = { rounds: 1, messages: 20_000, warmUp: 10_000 }
const spreadItems = 100_000
const target = 5_000
const topic = "payment.success"
const publishedAtOnce = 1_000

export const streams = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const startedAt = performance.now()
  const maintenance = yield* server
  const books = yield* freshDatabase(maintenance, "bench_streams")
  yield* seed(books, [
    { merchantId: "hot", items: 1 },
    { merchantId: "spread", items: spreadItems }
  ])
  const broker = Context.get(
    yield* Layer.build(PostgresBroker.layer().pipe(Layer.provide(Postgres.layer({ url: books })))),
    Broker
  )
  // Stopped while messages are published, so that a round begins with all of them waiting.
  const consumer = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const child = startProgram(books, { profileFolder: options.profile, roles: "consumers" })
      child.stdout.resume()
      return child
    }),
    (child) =>
      Effect.promise(() => {
        child.kill("SIGCONT")
        return endProgram(child)
      })
  )
  let orders = 0
  const publish = Effect.fnUntraced(function* (merchantId: string, messages: number) {
    for (let published = 0; published < messages; published += publishedAtOnce) {
      const sales = Array.from({ length: publishedAtOnce }, (_, index) => {
        // Two new ones, then the one before again.
        const order = index % 3 === 2 ? orders : (orders += 1)
        const item = merchantId === "hot" ? 1 : 1 + ((order * 7919) % spreadItems)
        return {
          topic,
          key: `order-${order}`,
          headers: {},
          value: JSON.stringify({
            merchantId,
            saleOrderId: `order-${order}`,
            items: [{ saleOrderItemId: "1", productVariantId: `variant-${item}`, quantity: 1 }]
          })
        }
      })
      yield* broker.publish(sales)
    }
  })
  yield* publish("spread", settings.warmUp / 2)
  yield* publish("hot", settings.warmUp / 2)
  print(`  Warming up, ${settings.messages} messages a round`)
  yield* drained(books)

  const rounds: Array<Round> = []
  for (let round = 0; round < settings.rounds; round++) {
    for (const merchantId of ["spread", "hot"]) {
      consumer.kill("SIGSTOP")
      const salesBefore = yield* salesOf(books)
      const ordersBefore = orders
      yield* publish(merchantId, settings.messages)
      yield* execute(books, "CHECKPOINT")
      const waiting = yield* behind(books)
      const spentBefore = yield* spent(books, consumer.pid!)
      const before = performance.now()
      consumer.kill("SIGCONT")
      yield* drained(books)
      const seconds = (performance.now() - before) / 1000
      const spentAfter = yield* spent(books, consumer.pid!)
      const sales = (yield* salesOf(books)) - salesBefore
      if (sales !== orders - ordersBefore) {
        return yield* Effect.die(new Error(`${sales} effects of ${orders - ordersBefore} sales`))
      }
      const each = (name: "service" | "database"): number =>
        Math.round(((spentAfter[name] - spentBefore[name]) * 1e6) / waiting)
      const measured: Round = {
        merchantId,
        messages: waiting,
        sales,
        perSecond: Math.round(waiting / seconds),
        microseconds: { service: each("service"), database: each("database") }
      }
      rounds.push(measured)
      print(
        `  ${String(round + 1).padStart(2)}  ${merchantId.padEnd(7)}${String(measured.perSecond).padStart(7)}/s of ${waiting}` +
          ` (${sales} sales)   µs: service ${measured.microseconds.service}, database ${measured.microseconds.database}`
      )
    }
  }

  const perSecondOf = (merchantId: string): number =>
    Math.round(median(rounds.filter((each) => each.merchantId === merchantId).map((each) => each.perSecond)))
  const ratios = ["spread", "hot"].map((merchantId) =>
    atLeast(merchantId, `payment.success/s, ${merchantId}`, perSecondOf(merchantId), target)
  )
  printFigures(ratios, startedAt)
  if (options.quick || options.only !== undefined) return
  yield* writeReport({
    benchmark: "streams",
    date: new Date().toISOString(),
    machine: yield* machineOf(maintenance),
    settings: { ...settings, spreadItems },
    ratios,
    rounds
  })
})

interface Round {
  readonly merchantId: string
  readonly messages: number
  readonly sales: number
  readonly perSecond: number
  /** Processor time of a message, in the service and in all connections of the database. */
  readonly microseconds: { readonly service: number; readonly database: number }
}

const drainMaxMs = 300_000

/** Waits until the group has committed all there is. */
const drained = Effect.fnUntraced(function* (books: Redacted.Redacted<string>) {
  const giveUp = Date.now() + drainMaxMs
  while ((yield* behind(books)) > 0) {
    if (Date.now() > giveUp) return yield* Effect.die(new Error("the topic is not drained"))
    yield* Effect.sleep("50 millis")
  }
})

const behind = (books: Redacted.Redacted<string>) =>
  Effect.map(
    execute(
      books,
      `SELECT COALESCE(sum(p.next_offset - COALESCE(o.committed_offset, 0)), 0)::integer AS behind
       FROM broker_topic t
       JOIN broker_partition p USING (topic_id)
       LEFT JOIN broker_offset o ON o.partition_id = p.partition_id AND o.group_name = '${groupOf(topic)}'
       WHERE t.topic = '${topic}'`
    ),
    ([row]) => Number(row!["behind"])
  )

const salesOf = (books: Redacted.Redacted<string>) =>
  Effect.map(
    execute(books, "SELECT count(*)::integer AS sales FROM inventory_ledger WHERE type = 'SALE'"),
    ([row]) => Number(row!["sales"])
  )

const spent = Effect.fnUntraced(function* (books: Redacted.Redacted<string>, pid: number) {
  const rows = yield* execute(
    books,
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
  )
  const database = yield* Effect.promise(() =>
    Promise.all(rows.map((row) => processorSecondsOf(Number(row["pid"]))))
  )
  return {
    service: yield* Effect.promise(() => processorSecondsOf(pid)),
    database: database.reduce((sum, each) => sum + each, 0)
  }
})
