import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, type Redacted, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryBroker from "../../support/MemoryBroker.ts"
import * as Postgres from "../../../src/layers/Postgres.ts"
import { Audit } from "../../../src/services/books/Audit.ts"
import type { Finding } from "../../../src/services/books/audit/Finding.ts"
import { Db } from "../../../src/services/Db.ts"
import { LedgerHistory } from "../../../src/services/books/LedgerHistory.ts"
import { Outbox } from "../../../src/services/messaging/Outbox.ts"
import { Partitions } from "../../../src/services/Partitions.ts"
import { parameter } from "../../../src/services/PostgresTypes.ts"
import { Retention } from "../../../src/services/books/Retention.ts"
import { type Sql, caller, connect, dawn, replica, shopOf } from "../../support/ledger.ts"
import { assertInvariants } from "../../support/invariants.ts"
import { freshDatabase } from "../../support/Postgres.ts"

/** What is removed by age and what never is; months of the ledger that go, and what they leave. */

const hour = 60 * 60 * 1000
const day = 24 * hour

/** A shop, and its housekeeper. */
const keptOn = Effect.fnUntraced(function* (url: Redacted.Redacted<string>, time: number) {
  yield* TestClock.setTime(time)
  const books = yield* replica(url)
  const shop = { url, sql: yield* connect(url), ...shopOf(books) }
  const context = yield* Layer.build(
    Layer.mergeAll(
      Retention.layer({ outboxMs: 7 * day, brokerMs: 7 * day, deadLettersMs: 7 * day }),
      LedgerHistory.layer
    ).pipe(
      Layer.provideMerge(Outbox.layer),
      Layer.provideMerge(Partitions.layer),
      Layer.provideMerge(MemoryBroker.layer()),
      Layer.provide(Layer.effect(Db, Db).pipe(Layer.provide(Postgres.layer({ url: shop.url }))))
    )
  )
  const { removeExpired } = Context.get(context, Retention)
  return {
    ...shop,
    removeExpired,
    history: Context.get(context, LedgerHistory),
    outbox: Context.get(context, Outbox),
    partitions: Context.get(context, Partitions),
    /** How many rows each table has. */
    counts: Effect.map(
      shop.sql.run<{ outbox: number; idempotency: number; tracking: number }>(
        `SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM idempotency) AS idempotency,
                (SELECT count(*) FROM tracking) AS tracking`
      ),
      ([row]) => row!
    )
  }
})

const kept = Effect.flatMap(freshDatabase, ({ url }) => keptOn(url, dawn))

/** What one day of a shop does, by services that are gone afterwards: nothing of theirs ticks while months go by. */
const onDay = <A, E>(
  url: Redacted.Redacted<string>,
  time: number,
  use: (shop: Effect.Success<typeof kept>) => Effect.Effect<A, E, Scope.Scope>
) => Effect.scoped(Effect.flatMap(keptOn(url, time), use))

const sent = (sql: Sql, at: number) =>
  sql.run("UPDATE outbox SET sent_at = $1 WHERE sent_at IS NULL", [parameter("timestamptz", at)])

const keyed = (key: string) => ({ idempotency: { key, fingerprint: "print" } })

describe("retention", { timeout: 60_000 }, () => {
  it.effect("removes an event seven days after it was sent, and never one that was not", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const before = yield* onDay(url, dawn, ({ counts, item, receive }) =>
        Effect.gen(function* () {
          yield* item("cup")
          yield* receive("cup", 3)
          yield* sent(sql, dawn + hour)
          yield* TestClock.adjust("8 hours")
          yield* receive("cup", 1)
          return yield* counts
        })
      )
      yield* onDay(url, dawn + 7 * day + hour, ({ removeExpired }) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* removeExpired).outbox, 0, "not a moment too early")
          yield* TestClock.adjust("1 milli")
          assert.strictEqual((yield* removeExpired).outbox, before.outbox - 1)
        })
      )
      const removed = yield* onDay(url, dawn + 27 * day, ({ removeExpired }) => removeExpired)
      assert.strictEqual(removed.outbox, 0)
      const left = yield* sql.run<{ sent: number | null }>("SELECT sent_at AS sent FROM outbox")
      assert.deepStrictEqual(left, [{ sent: null }])
      const [mark] = yield* sql.run<{ since: number }>(
        "SELECT kept_since AS since FROM retention_mark WHERE table_name = 'outbox'"
      )
      assert.strictEqual(mark!.since, dawn, "what is newer than the mark is all still there")
    })
  )

  it.effect("passes over what waits, however much that is", () =>
    Effect.gen(function* () {
      const { removeExpired, sql, partitions } = yield* kept
      yield* partitions.prepare
      yield* sql.run(
        `INSERT INTO outbox (bucket, recorded_at, events, event_count, sent_at)
         SELECT 0, $1, '[]', 0, CASE WHEN n <= 20 THEN NULL ELSE $1 END FROM generate_series(1, 2600) AS n`,
        [parameter("timestamptz", dawn)]
      )
      yield* TestClock.adjust("8 days")
      assert.strictEqual((yield* removeExpired).outbox, 2_580)
      assert.strictEqual((yield* removeExpired).outbox, 0)
    })
  )

  it.effect("drops a month of the outbox that is over and empty, and keeps one where an event waits", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      yield* onDay(url, dawn, ({ item }) => item("cup"))
      yield* sent(sql, dawn)
      yield* onDay(url, Date.UTC(2026, 5, 1), ({ receive }) => receive("cup", 1))
      yield* onDay(url, Date.UTC(2026, 6, 10), ({ outbox, partitions, removeExpired }) =>
        Effect.gen(function* () {
          yield* removeExpired
          const names = (yield* partitions.list("outbox")).map(({ name }) => name)
          assert.notInclude(names, "outbox_202605")
          assert.include(names, "outbox_202606")
          assert.strictEqual((yield* outbox.held).length, 0)
        })
      )
      yield* sent(sql, Date.UTC(2026, 6, 10))
      const { partitions, receive, removeExpired } = yield* keptOn(url, Date.UTC(2026, 6, 18))
      yield* removeExpired
      const names = (yield* partitions.list("outbox")).map(({ name }) => name)
      assert.notInclude(names, "outbox_202606")
      // The table takes events as before.
      yield* receive("cup", 1)
      assert.strictEqual((yield* sql.run("SELECT FROM outbox")).length, 1)
    })
  )

  it.effect("keeps an idempotency key for its day, replays it until then, and removes it afterwards", () =>
    Effect.gen(function* () {
      const { counts, item, movements, receive, removeExpired } = yield* kept
      yield* item("cup")
      yield* receive("cup", 3, {}, keyed("k"))
      const again = Effect.flatMap(caller(keyed("k")), (from) =>
        movements.adjust(from, { changeType: "RECEIPT", item: { variantId: "cup" }, quantity: 3 })
      )
      yield* TestClock.adjust("23 hours")
      yield* removeExpired
      assert.isTrue((yield* again).replayed)
      yield* TestClock.adjust("3 hours")
      assert.strictEqual((yield* removeExpired).idempotency, 1)
      assert.strictEqual((yield* counts).idempotency, 0)
    })
  )

  it.effect("forgets a posting's own row, and never an outside fact or a cancelled order", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const keys = Effect.map(
        sql.run<{ kind: string; count: number }>(
          `SELECT split_part(split_part(tracking_key, '|', 1), E'\\x1f', 1) AS kind, count(*) AS count
           FROM tracking GROUP BY 1 ORDER BY 1`
        ),
        (rows) => Object.fromEntries(rows.map(({ count, kind }) => [kind, count]))
      )
      const facts = { ORDER_CANCELLED: 1, RECEIPT: 1, SALE: 1 }
      yield* onDay(url, dawn, ({ adjust, confirm, item, receive, removeExpired, reserve }) =>
        Effect.gen(function* () {
          yield* item("cup")
          yield* receive("cup", 9, { reference: "delivery:1" })
          yield* adjust({ changeType: "SALE", item: { variantId: "cup" }, quantity: 1, orderId: "direct" })
          yield* reserve("order", [["cup", 2]])
          yield* confirm("order")
          yield* sql.run(
            `INSERT INTO tracking (merchant_id, tracking_key, posting_id, recorded_at)
             VALUES ('acme', 'ORDER_CANCELLED|gone', gen_random_uuid(), $1)`,
            [parameter("timestamptz", dawn)]
          )
          assert.deepInclude(yield* keys, facts)
          yield* TestClock.adjust("23 hours")
          assert.strictEqual((yield* removeExpired).tracking, 0)
          yield* TestClock.adjust("2 hours")
          assert.isAbove((yield* removeExpired).tracking, 3)
          assert.deepStrictEqual(yield* keys, facts)
        })
      )

      // Much later everything that was told once is still known.
      yield* onDay(url, dawn + 21 * day, (later) =>
        Effect.gen(function* () {
          yield* later.removeExpired
          const again = yield* later.adjust({
            changeType: "RECEIPT",
            item: { variantId: "cup" },
            quantity: 9,
            reference: "delivery:1"
          })
          assert.isFalse(again.applied)
          const sale = {
            changeType: "SALE",
            item: { variantId: "cup" },
            quantity: 1,
            orderId: "direct"
          } as const
          assert.isFalse((yield* later.adjust(sale)).applied)
          assert.isFalse((yield* later.reserve("order", [["cup", 2]])).answer.created)
          assert.strictEqual(
            (yield* Effect.flip(later.reserve("gone", [["cup", 1]])))._tag,
            "ReservationFailed"
          )
          assert.strictEqual(yield* later.available("cup"), 6)
        })
      )
    })
  )

  it.effect("is done by several at once: everything goes once", () =>
    Effect.gen(function* () {
      const { removeExpired, sql } = yield* kept
      yield* sql.run(
        `INSERT INTO idempotency (merchant_id, idempotency_key, fingerprint, answer, created_at)
         SELECT 'acme', 'k' || n, '', '', $1 FROM generate_series(1, 5000) AS n`,
        [parameter("timestamptz", dawn)]
      )
      yield* TestClock.adjust("2 days")
      const removed = yield* Effect.all([removeExpired, removeExpired, removeExpired], {
        concurrency: "unbounded"
      })
      const again = yield* removeExpired
      assert.strictEqual(
        [...removed, again].reduce((sum, { idempotency }) => sum + idempotency, 0),
        5_000
      )
    })
  )
})

describe("partitions", { timeout: 60_000 }, () => {
  it.effect("are there months ahead of a service that prepares them", () =>
    Effect.gen(function* () {
      const { partitions } = yield* kept
      assert.isAbove(yield* partitions.prepare, 0)
      assert.strictEqual(yield* partitions.prepare, 0)
      for (const parent of ["inventory_ledger", "outbox"] as const) {
        assert.deepStrictEqual(
          (yield* partitions.list(parent)).map(({ name }) => name),
          ["202605", "202606", "202607", "202608"].map((month) => `${parent}_${month}`)
        )
      }
    })
  )

  it.effect("are never missing where a posting writes, even if nobody prepares them", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      yield* onDay(url, dawn, ({ item }) => item("cup"))
      // The last moments of months, and the first ones: also after a month in which nothing happened.
      for (const at of [
        Date.UTC(2026, 4, 31, 23, 59, 59, 999),
        Date.UTC(2026, 5, 1),
        Date.UTC(2026, 5, 30, 23, 59, 59, 999),
        Date.UTC(2026, 7, 31, 23, 59, 59, 999),
        Date.UTC(2026, 8, 1)
      ]) {
        yield* onDay(url, at, ({ receive }) => receive("cup", 1))
      }
      // Also for a service that was there before the month began, and waited over its end.
      const { partitions, receive } = yield* keptOn(url, Date.UTC(2026, 10, 30, 23, 59, 59, 999))
      yield* receive("cup", 1)
      yield* TestClock.adjust("1 milli")
      yield* receive("cup", 1)
      assert.isAbove((yield* partitions.missing(Date.UTC(2026, 11, 1))).length, 0)
      yield* assertInvariants(url)
    })
  )
})

/** What an audit finds once everything has settled. */
const audited = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  yield* TestClock.adjust("1 minute")
  const findings: Array<Finding> = []
  const { holds } = yield* Effect.provide(
    Effect.flatMap(Audit, ({ examine }) =>
      examine({ tell: (finding) => Effect.sync(() => void findings.push(finding)) })
    ),
    Audit.layer.pipe(Layer.provide(Postgres.layer({ url })))
  )
  return { findings, holds }
})

const closings = (sql: Sql) =>
  sql.run(
    `SELECT i.product_variant_id AS variant, c.sequence, c.on_hand, c.reserved, c.unallocatable, c.recorded_at AS at
     FROM ledger_checkpoint c
     JOIN stock s USING (merchant_id, stock_id)
     JOIN item i ON i.merchant_id = s.merchant_id AND i.item_id = s.item_id
     WHERE c.kind = 'CLOSING'
     ORDER BY c.recorded_at, variant`
  )

describe("detaching months of the ledger", { timeout: 120_000 }, () => {
  const may = Date.UTC(2026, 4, 31, 8)
  const june = Date.UTC(2026, 5, 1, 8)
  const july = Date.UTC(2026, 6, 2)

  /** Cups that moved in May, June and July; saucers in May only. */
  const years = Effect.gen(function* () {
    const { url } = yield* freshDatabase
    yield* onDay(url, may, ({ item, receive, reserve }) =>
      Effect.gen(function* () {
        yield* item("cup")
        yield* item("saucer")
        yield* receive("cup", 5)
        yield* receive("saucer", 7)
        yield* reserve("order", [["cup", 2]], { expiresInSeconds: 604_800 })
      })
    )
    yield* onDay(url, june, ({ receive }) => receive("cup", 1))
    const shop = yield* keptOn(url, july)
    yield* shop.receive("cup", 1)
    return shop
  })

  it.effect("leaves the balance of each stock that moved in them, and the rows in tables of their own", () =>
    Effect.gen(function* () {
      const { available, history, item, receive, sql } = yield* years
      const detached = yield* history.detach(Date.UTC(2026, 6, 1), "tester")
      assert.deepStrictEqual(detached, [
        { name: "inventory_ledger_202605", closed: 2 },
        { name: "inventory_ledger_202606", closed: 1 }
      ])
      const none = { unallocatable: 0 }
      assert.deepStrictEqual(yield* closings(sql), [
        { variant: "cup", sequence: 2, on_hand: 5, reserved: 2, ...none, at: may },
        { variant: "saucer", sequence: 1, on_hand: 7, reserved: 0, ...none, at: may },
        { variant: "cup", sequence: 3, on_hand: 6, reserved: 2, ...none, at: june }
      ])
      assert.strictEqual((yield* sql.run("SELECT FROM inventory_ledger")).length, 1)
      assert.strictEqual((yield* sql.run("SELECT FROM inventory_ledger_202605")).length, 3)
      const [mark] = yield* sql.run<{ since: number }>(
        "SELECT kept_since AS since FROM retention_mark WHERE table_name = 'inventory_ledger'"
      )
      assert.strictEqual(mark!.since, Date.UTC(2026, 6, 1))

      // History is never rewritten, wherever it is; and the books go on where they were.
      assert.strictEqual(yield* sql.refusal("UPDATE inventory_ledger_202605 SET on_hand = 0"), "23001")
      assert.strictEqual(yield* sql.refusal("DELETE FROM inventory_ledger_202606"), "23001")
      assert.strictEqual(yield* sql.refusal("TRUNCATE inventory_ledger_202605"), "23001")
      yield* receive("saucer", 1)
      yield* item("plate")
      assert.strictEqual(yield* available("saucer"), 8)
      const chain = yield* sql.run(
        `SELECT l.stock_id FROM inventory_ledger l
         JOIN LATERAL (
           SELECT * FROM ledger_checkpoint c
           WHERE c.merchant_id = l.merchant_id AND c.stock_id = l.stock_id ORDER BY c.sequence DESC LIMIT 1
         ) c ON true
         WHERE l.sequence = c.sequence + 1 AND l.on_hand = c.on_hand + l.on_hand_delta
           AND l.reserved = c.reserved + l.reserved_delta`
      )
      assert.strictEqual(chain.length, 2)
    })
  )

  it.effect("is refused for a month into which movements still come", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const refused = yield* onDay(url, july, ({ history }) =>
        Effect.flip(history.detach(Date.UTC(2026, 7, 1), "tester"))
      )
      assert.deepInclude(refused, { _tag: "MonthNotOver", before: "2026-08", latest: "2026-07" })
      // Half a day into August, a posting of July may still be under way.
      yield* onDay(url, Date.UTC(2026, 7, 1, 12), (later) =>
        Effect.map(Effect.flip(later.history.detach(Date.UTC(2026, 7, 1), "tester")), ({ _tag }) =>
          assert.strictEqual(_tag, "MonthNotOver")
        )
      )
    })
  )

  it.effect("goes on where it was broken off, and does nothing twice", () =>
    Effect.gen(function* () {
      const { history, sql } = yield* years
      // As if it had been killed after the closing balances of May and the first half of the detaching.
      yield* history.detach(Date.UTC(2026, 5, 1), "tester")
      assert.deepStrictEqual(yield* history.detach(Date.UTC(2026, 5, 1), "tester"), [])
      const before = yield* closings(sql)
      yield* sql.run(
        `ALTER TABLE inventory_ledger ATTACH PARTITION inventory_ledger_202605
         FOR VALUES FROM ('2026-05-01 00:00+00') TO ('2026-06-01 00:00+00')`
      )
      assert.deepStrictEqual(yield* history.detach(Date.UTC(2026, 5, 1), "tester"), [
        { name: "inventory_ledger_202605", closed: 0 }
      ])
      assert.deepStrictEqual(yield* closings(sql), before)
    })
  )

  it.effect("does not stop postings, and waits for who still reads", () =>
    Effect.gen(function* () {
      const { available, history, receive, sql, url } = yield* years
      const reader = yield* connect(url)
      yield* reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
      yield* reader.run("SELECT count(*) FROM inventory_ledger")
      const detaching = yield* Effect.forkChild(history.detach(Date.UTC(2026, 5, 1), "tester"))
      const pending = sql.run(
        "SELECT FROM pg_stat_activity WHERE query LIKE '%DETACH PARTITION%' AND wait_event_type = 'Lock' AND datname = current_database()"
      )
      yield* Effect.repeat(pending, { until: ({ length }) => length > 0 })
      for (let round = 0; round < 20; round++) yield* receive("cup", 1)
      assert.strictEqual(yield* available("cup"), 25)
      assert.deepStrictEqual(yield* reader.run("SELECT count(*) AS count FROM inventory_ledger"), [
        { count: 5 }
      ])
      yield* reader.run("COMMIT")
      assert.strictEqual((yield* Fiber.join(detaching)).length, 1)
    })
  )

  it.effect("leaves books that are proven, and balances of the time that is kept", () =>
    Effect.gen(function* () {
      const { adjust, availability, confirm, history, receive, removeExpired, reserve, sql, url } =
        yield* years
      yield* confirm("order")
      yield* reserve("next", [["saucer", 3]])
      yield* sent(sql, july)
      yield* TestClock.adjust("8 days")
      yield* removeExpired
      yield* history.detach(Date.UTC(2026, 6, 1), "tester")
      yield* receive("saucer", 1)
      yield* adjust({ changeType: "RETURN", item: { variantId: "cup" }, quantity: 1, orderId: "order" })

      const { findings, holds } = yield* audited(url)
      assert.deepStrictEqual(findings, [])
      assert.isTrue(holds)

      const at = (moment: number) => availability.ofVariantAt("acme", "saucer", moment)
      assert.strictEqual((yield* at(Date.UTC(2026, 6, 1))).quantity, 7)
      assert.strictEqual((yield* at(may)).quantity, 7)
      assert.strictEqual((yield* at(may - 1)).quantity, 0)
    })
  )

  it.effect("are audited from the closing balances, and one that was changed is found", () =>
    Effect.gen(function* () {
      const { history, sql, url } = yield* years
      yield* history.detach(Date.UTC(2026, 6, 1), "tester")
      assert.deepStrictEqual((yield* audited(url)).findings, [])
      const stockOf = Effect.fnUntraced(function* (variantId: string) {
        const [row] = yield* sql.run<{ stock_id: string }>(
          "SELECT stock_id FROM stock JOIN item USING (merchant_id, item_id) WHERE product_variant_id = $1",
          [variantId]
        )
        return row!.stock_id
      })
      const [cup, saucer] = [yield* stockOf("cup"), yield* stockOf("saucer")]
      const change = Effect.fnUntraced(function* (column: string, stockId: string) {
        yield* sql.run("SET session_replication_role = replica")
        yield* sql.run(
          `UPDATE ledger_checkpoint c SET ${column} = ${column} + 1
           WHERE stock_id = '${stockId}'
             AND sequence = (SELECT max(sequence) FROM ledger_checkpoint WHERE stock_id = c.stock_id)`
        )
        yield* sql.run("SET session_replication_role = DEFAULT")
      })

      // The cup has moved since: its next movement does not follow. The saucer has not: it is not what it was left with.
      yield* change("reserved", cup)
      yield* change("on_hand", saucer)
      const { findings, holds } = yield* audited(url)
      assert.isFalse(holds)
      const follows = findings.find(({ check }) => check === "ledger-follows")
      const differs = findings.find(({ check }) => check === "stock-is-its-ledger")
      assert.strictEqual(findings.length, 2)
      assert.strictEqual(follows?.subject, `movement 4 of stock ${cup}`)
      assert.deepInclude(follows?.row, { reserved: 2, reservedExpected: 3 })
      assert.strictEqual(differs?.stockId, saucer)
      assert.deepInclude(differs?.row, { onHand: 7, ledgerOnHand: 8 })
    })
  )
})
