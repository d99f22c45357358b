import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { assertInvariants } from "../../support/invariants.ts"
import {
  type Sql,
  caller,
  connect,
  dawn,
  inOneBatch,
  ledger,
  ledgerFrom,
  lockItem,
  untilWaiting
} from "../../support/ledger.ts"

/** The kernel over a real PostgreSQL: batches, their failures, and what a caller is told (DESIGN, "Rules"). */

const countOf = (sql: Sql, table: string) =>
  Effect.map(sql.run<{ count: number }>(`SELECT count(*) AS count FROM ${table}`), ([row]) => row!.count)

/** Which requests came to be one transaction: the ledger rows of one transaction carry its id. */
const transactionsOf = (sql: Sql, condition: string) =>
  Effect.map(
    sql.run<{ count: number }>(
      `SELECT count(DISTINCT xmin::text) AS count FROM inventory_ledger WHERE ${condition}`
    ),
    ([row]) => row!.count
  )

/** A trigger of the database that spoils what the kernel writes. */
const spoil = Effect.fnUntraced(function* (
  sql: Sql,
  table: string,
  when: "INSERT" | "UPDATE",
  body: string,
  condition = "true"
) {
  yield* sql.run("CREATE SEQUENCE IF NOT EXISTS spoilt")
  yield* sql.run(`
    CREATE OR REPLACE FUNCTION spoil_${table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} RETURN NEW; END $$`)
  yield* sql.run(`
    CREATE TRIGGER spoil BEFORE ${when} ON ${table} FOR EACH ROW
    WHEN (${condition}) EXECUTE FUNCTION spoil_${table}()`)
})
/** Sequences keep their value when a transaction is rolled back: only the first run is spoilt. */
const once = (statement: string) => `IF nextval('spoilt') = 1 THEN ${statement} END IF;`

/** No kernel connection may sit in a transaction, with its locks, when nothing is being done. */
const assertNothingHeld = (sql: Sql) =>
  Effect.map(
    sql.run(
      `SELECT state, query FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'holdfast kernel' AND state <> 'idle'`
    ),
    (rows) => assert.deepStrictEqual(rows, [])
  )

describe("a batch", () => {
  it.effect("takes all that wait, in the order of their arrival, into one transaction", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("cup")
      yield* shop.receive("cup", 50)
      const results = yield* inOneBatch(
        shop,
        Array.from({ length: 100 }, (_, index) => shop.reserve(`order-${index}`, [["cup", 1]]))
      )
      assert.deepStrictEqual(
        results.map((result) => (Result.isSuccess(result) ? "created" : result.failure._tag)),
        Array.from({ length: 100 }, (_, index) => (index < 50 ? "created" : "InsufficientStock"))
      )
      assert.strictEqual(yield* transactionsOf(shop.sql, "type = 'ORDER_ALLOCATE'"), 1)
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("over which the connection is lost, because it is too long for it, is made of fewer", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const { item, receive, reserve, sql, url } = shop
      yield* item("cup")
      yield* receive("cup", 200)
      yield* sql.run(`
        CREATE FUNCTION too_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF (SELECT count(*) FROM inserted) > 40 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
          RETURN NULL;
        END $$`)
      yield* sql.run(`
        CREATE TRIGGER too_many AFTER INSERT ON inventory_ledger REFERENCING NEW TABLE AS inserted
        FOR EACH STATEMENT EXECUTE FUNCTION too_many()`)
      const orders = Array.from({ length: 200 }, (_, index) => reserve(`order-${index}`, [["cup", 1]]))
      const results = yield* inOneBatch(shop, orders)
      assert.isTrue(results.every(Result.isSuccess))
      assert.strictEqual(yield* countOf(sql, "reservation"), 200)
      assert.strictEqual(yield* transactionsOf(sql, "type = 'ORDER_ALLOCATE'"), 8)
      yield* assertInvariants(url)
    })
  )

  it.effect("refuses one posting beside others without a trace of it", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("cup")
      yield* shop.item("saucer")
      yield* shop.receive("cup", 10)
      const results = yield* inOneBatch(shop, [
        shop.reserve("first", [["cup", 1]]),
        // Takes cups before it finds that there are no saucers.
        shop.reserve("refused", [
          ["cup", 5],
          ["saucer", 1]
        ]),
        shop.reserve("refused", [["cup", 9]]),
        shop.reserve("last", [["cup", 9]])
      ])
      assert.deepStrictEqual(
        results.map((result) => (Result.isSuccess(result) ? "created" : result.failure._tag)),
        // The second of the refused order is decided on the books as they were before the first.
        ["created", "InsufficientStock", "created", "InsufficientStock"]
      )
      assert.strictEqual(yield* transactionsOf(shop.sql, "type = 'ORDER_ALLOCATE'"), 1)
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("may hold a whole life of one order", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("cup")
      yield* shop.receive("cup", 3)
      yield* shop.reserve("order", [["cup", 1]])
      const results = yield* inOneBatch<unknown, { readonly _tag: string }>(shop, [
        shop.release("order"),
        shop.reserve("order", [["cup", 2]]),
        shop.extend("order", 60),
        shop.release("order"),
        shop.reserve("order", [["cup", 3]]),
        shop.confirm("order"),
        shop.release("order"),
        shop.receive("cup", 1),
        shop.reserve("order", [["cup", 3]])
      ])
      assert.deepStrictEqual(
        results.map((result) => (Result.isSuccess(result) ? "done" : result.failure._tag)),
        ["done", "done", "done", "done", "done", "done", "ReservationAlreadyConfirmed", "done", "done"]
      )
      assert.deepStrictEqual(
        yield* shop.sql.run(
          `SELECT status, count(*) AS count FROM reservation GROUP BY status ORDER BY status`
        ),
        [
          { status: "CANCELLED", count: 2 },
          { status: "CONFIRMED", count: 1 }
        ]
      )
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("creates what its later postings use: merchant, location, item, stock", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const of = { merchantId: "new" }
      const results = yield* inOneBatch<unknown, { readonly _tag: string }>(shop, [
        shop.item("cup", {}, of),
        shop.location("north", of),
        shop.receive("cup", 5, { locationId: "north" }, of),
        shop.reserve("order", [["cup", 5]], {}, of),
        shop.item("cup", { sku: "CUP" }, of)
      ])
      assert.deepStrictEqual(
        results.map(Result.isSuccess),
        results.map(() => true)
      )
      assert.strictEqual(yield* countOf(shop.sql, "merchant"), 2)
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("passes a sku from one item to another", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("old", { sku: "CUP" })
      const results = yield* inOneBatch(shop, [
        shop.item("old", { sku: "CUP-OLD" }),
        shop.item("new", { sku: "CUP" })
      ])
      assert.deepStrictEqual(results.map(Result.isSuccess), [true, true])
      assert.deepStrictEqual(
        yield* shop.sql.run(`SELECT product_variant_id, sku FROM item WHERE sku IS NOT NULL ORDER BY sku`),
        [
          { product_variant_id: "new", sku: "CUP" },
          { product_variant_id: "old", sku: "CUP-OLD" }
        ]
      )
    })
  )
})

describe("a deadline", () => {
  it.effect("that passed before the batch begins refuses the posting, and nothing changes", () =>
    Effect.gen(function* () {
      const { item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      const lock = yield* lockItem(url, "cup")
      const held = [
        yield* Effect.forkChild(receive("cup", 1), { startImmediately: true }),
        yield* Effect.andThen(
          untilWaiting(sql, 1),
          Effect.forkChild(receive("cup", 1), { startImmediately: true })
        )
      ]
      yield* untilWaiting(sql, 2)
      const late = yield* Effect.forkChild(
        Effect.flip(reserve("late", [["cup", 1]], {}, { deadline: dawn + 1_000 })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(late))._tag, "OperationTimedOut")
      yield* lock.release
      yield* Effect.forEach(held, Fiber.join)
      // Later in the queue than the one that must not come alive.
      assert.isTrue((yield* reserve("late", [["cup", 1]])).answer.created)
      assert.strictEqual(yield* countOf(sql, "reservation"), 1)
      yield* assertInvariants(url)
    })
  )

  it.effect("that is over when the request is made is refused", () =>
    Effect.gen(function* () {
      const { item, sql } = yield* ledger
      const failure = yield* Effect.flip(item("cup", {}, { deadline: dawn }))
      assert.strictEqual(failure._tag, "OperationTimedOut")
      yield* item("saucer")
      assert.strictEqual(yield* countOf(sql, "item"), 1)
    })
  )

  it.effect("that passes inside the batch leaves the outcome unknown but whole", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      const lock = yield* lockItem(url, "cup")
      const asked = yield* Effect.forkChild(
        Effect.flip(reserve("order", [["cup", 2]], {}, { deadline: dawn + 2_500 })),
        { startImmediately: true }
      )
      yield* untilWaiting(sql, 1)
      yield* TestClock.adjust("2500 millis")
      assert.deepInclude(yield* Fiber.join(asked), { _tag: "OperationTimedOut", operation: "ReserveStock" })
      yield* lock.release
      // Asking again tells which it was.
      assert.isFalse((yield* reserve("order", [["cup", 2]])).answer.created)
      assert.strictEqual(yield* available("cup"), 3)
      yield* assertInvariants(url)
    })
  )
})

describe("the queue", () => {
  it.effect("has an end: what does not fit is refused at once, what waits is done", () =>
    Effect.gen(function* () {
      const { item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 10_000)
      const lock = yield* lockItem(url, "cup")
      const held = [yield* Effect.forkChild(receive("cup", 1), { startImmediately: true })]
      yield* untilWaiting(sql, 1)
      held.push(yield* Effect.forkChild(receive("cup", 1), { startImmediately: true }))
      yield* untilWaiting(sql, 2)
      const asked: Array<Fiber.Fiber<Result.Result<unknown, { readonly _tag: string }>>> = []
      for (let index = 0; index < 8_200; index++) {
        asked.push(
          yield* Effect.forkChild(Effect.result(reserve(`order-${index}`, [["cup", 1]])), {
            startImmediately: true
          })
        )
      }
      const refused = yield* Effect.forEach(asked.slice(8_192), Fiber.join)
      for (const result of refused) {
        assert.deepInclude(Result.isFailure(result) ? result.failure : {}, { _tag: "Overloaded" })
      }
      yield* lock.release
      const done = yield* Effect.forEach(asked.slice(0, 8_192), Fiber.join)
      assert.isTrue(done.every(Result.isSuccess))
      assert.strictEqual(yield* countOf(sql, "reservation"), 8_192)
      assert.isAtMost(yield* transactionsOf(sql, "type = 'ORDER_ALLOCATE'"), 17)
      yield* Effect.forEach(held, Fiber.join)
      yield* assertInvariants(url)
    })
  )
})

const key = (fingerprint: string) => ({ idempotency: { key: "key", fingerprint } })

describe("an Idempotency-Key", () => {
  it.effect("replays the first answer to the same request, and refuses another", () =>
    Effect.gen(function* () {
      const { available, item, receive, sql, url } = yield* ledger
      yield* item("cup")
      const first = yield* receive("cup", 5, {}, key("a"))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* receive("cup", 5, {}, key("a")), first)
      const reused = yield* Effect.flip(receive("cup", 6, {}, key("b")))
      assert.deepInclude(reused, { _tag: "IdempotencyKeyReused", idempotencyKey: "key" })
      assert.strictEqual(yield* available("cup"), 5)
      assert.strictEqual(yield* countOf(sql, "idempotency"), 1)
      yield* assertInvariants(url)
    })
  )

  it.effect("is one merchant's own", () =>
    Effect.gen(function* () {
      const { available, item, receive } = yield* ledger
      yield* item("cup")
      yield* item("cup", {}, { merchantId: "other" })
      yield* receive("cup", 5, {}, key("a"))
      yield* receive("cup", 7, {}, { merchantId: "other", ...key("b") })
      assert.strictEqual(yield* available("cup"), 5)
      assert.strictEqual(yield* available("cup", "other"), 7)
    })
  )

  it.effect("used many times at once has one effect, also over a batch", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("cup")
      const results = yield* inOneBatch(
        shop,
        Array.from({ length: 50 }, () =>
          Effect.flatMap(caller(key("a")), (from) =>
            shop.movements.adjust(from, { changeType: "RECEIPT", item: { variantId: "cup" }, quantity: 1 })
          )
        )
      )
      assert.deepStrictEqual(
        results.map((result) => Result.isSuccess(result) && result.success.replayed),
        Array.from({ length: 50 }, (_, index) => index > 0)
      )
      assert.strictEqual(yield* shop.available("cup"), 1)
      yield* assertInvariants(shop.url)
    })
  )

  it.effect("may be used again after 24 hours", () =>
    Effect.gen(function* () {
      const { available, item, receive, sql } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5, {}, key("a"))
      yield* TestClock.adjust("24 hours")
      yield* receive("cup", 6, {}, key("b"))
      assert.strictEqual(yield* available("cup"), 11)
      yield* TestClock.adjust("23 hours")
      assert.strictEqual((yield* Effect.flip(receive("cup", 5, {}, key("a"))))._tag, "IdempotencyKeyReused")
      assert.deepStrictEqual(yield* sql.run(`SELECT fingerprint FROM idempotency`), [{ fingerprint: "b" }])
    })
  )

  it.effect("is not spent by a refusal", () =>
    Effect.gen(function* () {
      const { item, receive, reserve } = yield* ledger
      yield* item("cup")
      assert.strictEqual(
        (yield* Effect.flip(reserve("order", [["cup", 1]], {}, key("a"))))._tag,
        "InsufficientStock"
      )
      yield* receive("cup", 1)
      const { answer, replayed } = yield* reserve("order", [["cup", 1]], {}, key("a"))
      assert.deepInclude({ ...answer, replayed }, { created: true, replayed: false })
    })
  )
})

describe("a balance", () => {
  it.effect("past 2^53−1 is refused, and the posting with it", () =>
    Effect.gen(function* () {
      const { adjust, available, item, location, receive, url } = yield* ledger
      yield* item("cup")
      yield* location("north")
      yield* receive("cup", Number.MAX_SAFE_INTEGER - 1)
      assert.strictEqual((yield* Effect.flip(receive("cup", 2)))._tag, "BalanceOverflow")
      // The item's total counts too, not only each stock.
      assert.strictEqual(
        (yield* Effect.flip(receive("cup", 2, { locationId: "north" })))._tag,
        "BalanceOverflow"
      )
      yield* receive("cup", 1)
      assert.strictEqual(yield* available("cup"), Number.MAX_SAFE_INTEGER)
      const damage = (locationId: string, quantity: number) =>
        adjust({ changeType: "DAMAGE", item: { variantId: "cup" }, quantity, locationId })
      yield* adjust({
        changeType: "CORRECTION",
        item: { variantId: "cup" },
        quantity: 5,
        locationId: "default"
      })
      yield* receive("cup", 1, { locationId: "north" })
      yield* damage("default", Number.MAX_SAFE_INTEGER)
      assert.strictEqual((yield* Effect.flip(damage("north", 1)))._tag, "BalanceOverflow")
      yield* receive("cup", 1)
      yield* assertInvariants(url)
    })
  )

  it.effect("that a fact has broken has its discrepancy, until it is right again", () =>
    Effect.gen(function* () {
      const { adjust, available, confirm, discrepancies, item, receive, reserve, url } = yield* ledger
      const count = (quantity: number) =>
        adjust({ changeType: "CORRECTION", item: { variantId: "cup" }, quantity })
      const open = Effect.map(discrepancies.list("acme", { status: "OPEN" }), ({ data }) =>
        data.map(({ kind }) => kind).sort()
      )
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("order", [["cup", 4]])
      yield* count(3)
      assert.deepStrictEqual(yield* open, ["OVERCOMMITTED"])
      assert.strictEqual(yield* available("cup"), 0)
      yield* assertInvariants(url)
      yield* confirm("order")
      assert.deepStrictEqual(yield* open, ["NEGATIVE_STOCK"])
      yield* assertInvariants(url)
      const { data } = yield* discrepancies.list("acme", { status: "OPEN" })
      const from = yield* caller()
      const discrepancyId = data[0]!.discrepancyId
      assert.strictEqual(
        (yield* Effect.flip(discrepancies.resolve(from, { discrepancyId, reason: "no" })))._tag,
        "DiscrepancyPersists"
      )
      yield* receive("cup", 1)
      assert.deepStrictEqual(yield* open, [])
      assert.strictEqual((yield* discrepancies.list("acme", { status: "CLOSED" })).data.length, 2)
      yield* assertInvariants(url)
    })
  )

  it.effect("may break and be mended within one batch, and break again", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const count = (quantity: number) =>
        shop.adjust({ changeType: "CORRECTION", item: { variantId: "cup" }, quantity })
      yield* shop.item("cup")
      yield* shop.receive("cup", 5)
      yield* shop.reserve("order", [["cup", 4]])
      yield* inOneBatch(shop, [count(3), count(4), count(3), count(2), count(9)])
      const discrepancies = Effect.map(shop.discrepancies.list("acme", {}), ({ data }) =>
        data.map(({ kind, status }) => `${kind} ${status}`)
      )
      assert.deepStrictEqual(yield* discrepancies, ["OVERCOMMITTED CLOSED", "OVERCOMMITTED CLOSED"])
      yield* assertInvariants(shop.url)
      // One that stands from an earlier batch is closed, and a new one opened, in one batch.
      yield* count(1)
      yield* inOneBatch(shop, [count(8), count(0)])
      assert.deepStrictEqual(
        (yield* discrepancies).filter((row) => row.endsWith("OPEN")),
        ["OVERCOMMITTED OPEN"]
      )
      yield* assertInvariants(shop.url)
    })
  )

  // Known: a discrepancy that is no balance is told of again, under an id that is not there, while the first one stands.
  it.effect("is told of once when the same discrepancy stands already", () =>
    Effect.gen(function* () {
      const { confirm, discrepancies, item, receive, reserve, sql } = yield* ledger
      yield* item("milk")
      yield* receive("milk", 5, { lotNumber: "L", lotExpiresAt: dawn + 1 })
      yield* reserve("a", [["milk", 1]])
      yield* reserve("b", [["milk", 1]])
      yield* TestClock.adjust("1 second")
      yield* confirm("a")
      yield* confirm("b")
      const { data } = yield* discrepancies.list("acme", {})
      const told = yield* sql.run<{ id: string }>(
        `SELECT e -> 'data' ->> 'discrepancyId' AS id
         FROM outbox CROSS JOIN LATERAL jsonb_array_elements(events::jsonb) AS e
         WHERE e ->> 'type' = 'DiscrepancyOpened'`
      )
      const known = new Set(data.map(({ discrepancyId }) => discrepancyId))
      for (const { id } of told)
        assert.isTrue(known.has(id), "an event tells of a discrepancy that is not there")
    })
  )

  it.effect("resolved by hand can come up again within the same batch", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      yield* shop.item("milk")
      yield* shop.receive("milk", 5, { lotNumber: "L", lotExpiresAt: dawn + 1 })
      yield* shop.reserve("a", [["milk", 1]])
      yield* shop.reserve("b", [["milk", 1]])
      yield* TestClock.adjust("1 second")
      yield* shop.confirm("a")
      const [standing] = (yield* shop.discrepancies.list("acme", {})).data
      yield* inOneBatch<unknown, { readonly _tag: string }>(shop, [
        Effect.flatMap(caller(), (from) =>
          shop.discrepancies.resolve(from, { discrepancyId: standing!.discrepancyId, reason: "thrown away" })
        ),
        shop.confirm("b")
      ])
      const { data } = yield* shop.discrepancies.list("acme", {})
      assert.deepStrictEqual(data.map(({ kind, status }) => `${kind} ${status}`).sort(), [
        "EXPIRED_LOT_SOLD OPEN",
        "EXPIRED_LOT_SOLD RESOLVED"
      ])
    })
  )
})

describe("a posting that cannot be written", () => {
  const poisons: ReadonlyArray<readonly [string, (sql: Sql) => Effect.Effect<void>, number]> = [
    [
      "because the database refuses a row of it",
      (sql) => spoil(sql, "reservation", "INSERT", "RAISE EXCEPTION 'poison';", "NEW.order_id = 'poison'"),
      60
    ],
    ["because a value of it has no encoding", () => Effect.void, Number.NaN]
  ]
  for (const [why, prepare, expiresInSeconds] of poisons) {
    it.effect(`${why}, fails alone of its batch`, () =>
      Effect.gen(function* () {
        const shop = yield* ledger
        yield* shop.item("cup")
        yield* shop.receive("cup", 100)
        yield* prepare(shop.sql)
        const exits = yield* inOneBatch(
          shop,
          Array.from({ length: 40 }, (_, index) =>
            Effect.exit(
              index === 17
                ? shop.reserve("poison", [["cup", 1]], { expiresInSeconds })
                : shop.reserve(`order-${index}`, [["cup", 1]])
            )
          )
        )
        exits.forEach((result, index) => {
          const exit = Result.getOrThrow(result)
          assert.strictEqual(Exit.isSuccess(exit), index !== 17, `order-${index}`)
          if (Exit.isFailure(exit)) assert.isTrue(Cause.hasDies(exit.cause))
        })
        assert.strictEqual(yield* countOf(shop.sql, "reservation"), 39)
        yield* assertNothingHeld(shop.sql)
        // The lanes go on.
        yield* shop.reserve("after", [["cup", 1]])
        yield* assertInvariants(shop.url)
      })
    )
  }

  it.effect("because deciding it fails, holds no lock afterwards", () =>
    Effect.gen(function* () {
      const { item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* item("saucer")
      yield* receive("cup", 5)
      yield* sql.run(`UPDATE location SET is_default = false`)
      const exit = yield* Effect.exit(receive("saucer", 1))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      yield* assertNothingHeld(sql)
      yield* reserve("order", [["cup", 1]])
      yield* assertInvariants(url)
    })
  )
})

describe("a conflict", () => {
  it.effect("with a row that appeared behind the kernel's back runs the batch again", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      const { itemId } = yield* item("cup")
      yield* receive("cup", 5)
      const other = yield* connect(url)
      yield* other.run("BEGIN")
      yield* other.run(
        `INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, scope, status, request, expires_at,
           created_at, updated_at)
         SELECT 'acme', '01990000-0000-7000-8000-000000000000', 'order', 'ORDER', '', 'PENDING',
           '[["${itemId}",2,null]]', t, t, t FROM (VALUES ('2027-01-01Z'::timestamptz)) AS v (t)`
      )
      // A line of no stock: what it holds is not taken off any.
      yield* other.run(
        `INSERT INTO reservation_line (merchant_id, reservation_id, line_number, item_id, quantity, open)
         VALUES ('acme', '01990000-0000-7000-8000-000000000000', 1, '${itemId}', 2, 2)`
      )
      const asked = yield* Effect.forkChild(reserve("order", [["cup", 2]]), { startImmediately: true })
      yield* untilWaiting(sql, 1)
      yield* other.run("COMMIT")
      const { answer } = yield* Fiber.join(asked)
      assert.isFalse(answer.created)
      assert.strictEqual(answer.reservation.reservationId, "01990000-0000-7000-8000-000000000000")
      assert.strictEqual(yield* available("cup"), 5)
    })
  )

  for (const sqlState of [
    "unique_violation",
    "serialization_failure",
    "deadlock_detected",
    "lock_not_available"
  ]) {
    it.effect(`of the kind ${sqlState} is met by running the batch again`, () =>
      Effect.gen(function* () {
        const { available, item, receive, reserve, sql, url } = yield* ledger
        yield* item("cup")
        yield* receive("cup", 5)
        // After the ledger and before the outbox: what follows it in the same flight fails as well.
        yield* spoil(sql, "reservation", "INSERT", once(`RAISE ${sqlState};`))
        assert.isTrue((yield* reserve("order", [["cup", 2]])).answer.created)
        assert.strictEqual(yield* available("cup"), 3)
        yield* assertInvariants(url)
      })
    )
  }

  it.effect("that lasts ends in a typed failure, and nothing is written", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      yield* spoil(sql, "reservation", "INSERT", "RAISE unique_violation;")
      assert.strictEqual((yield* Effect.flip(reserve("order", [["cup", 2]])))._tag, "DatabaseUnavailable")
      assert.strictEqual(yield* available("cup"), 5)
      yield* assertNothingHeld(sql)
      yield* assertInvariants(url)
    })
  )
})

describe("a write that matches another number of rows", () => {
  const tables = ["item", "stock", "reservation", "reservation_line"]
  for (const table of tables) {
    it.effect(`of ${table} aborts the batch, which is run again`, () =>
      Effect.gen(function* () {
        const { available, confirm, item, receive, reserve, sql, url } = yield* ledger
        yield* item("cup")
        yield* receive("cup", 5)
        yield* reserve("order", [["cup", 2]])
        // The row is skipped, as if it had been deleted in the meantime.
        yield* spoil(sql, table, "UPDATE", once("RETURN NULL;"))
        assert.isTrue((yield* confirm("order")).applied)
        assert.strictEqual(yield* available("cup"), 3)
        yield* assertInvariants(url)
      })
    )
  }

  it.effect("for good is never committed", () =>
    Effect.gen(function* () {
      const { confirm, item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("order", [["cup", 2]])
      yield* spoil(sql, "reservation_line", "UPDATE", "RETURN NULL;")
      assert.strictEqual((yield* Effect.flip(confirm("order")))._tag, "DatabaseUnavailable")
      assert.deepStrictEqual(yield* sql.run("SELECT status FROM reservation"), [{ status: "PENDING" }])
      yield* assertInvariants(url)
    })
  )
})

describe("a reference", () => {
  it.effect("as long as it may be, in any script, is known again", () =>
    Effect.gen(function* () {
      const { item, receive } = yield* ledger
      yield* item("milk")
      const reference = "\u{1F95B}".repeat(512)
      const first = yield* receive("milk", 5, { reference })
      const second = yield* receive("milk", 5, { reference })
      assert.deepStrictEqual([first.applied, second.applied], [true, false])
    })
  )
})

describe("ledger time", () => {
  it.effect("never decreases within a stock, whichever clock its replica has", () =>
    Effect.gen(function* () {
      const { item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      yield* sql.run(`UPDATE stock SET updated_at = updated_at + interval '3 seconds'`)
      yield* reserve("order", [["cup", 1]])
      const rows = yield* sql.run<{ recorded_at: number }>(
        "SELECT recorded_at FROM inventory_ledger ORDER BY sequence"
      )
      assert.deepStrictEqual(
        rows.map(({ recorded_at }) => recorded_at - dawn),
        [0, 3_000]
      )
      yield* assertInvariants(url)
    })
  )

  it.effect("goes on over the end of a month, into a new partition", () =>
    Effect.gen(function* () {
      const { item, receive, reserve, sql, url } = yield* ledgerFrom(Date.UTC(2026, 5, 1) - 1)
      yield* item("cup")
      yield* receive("cup", 5)
      yield* TestClock.adjust(1)
      yield* reserve("june", [["cup", 1]])
      assert.deepStrictEqual(
        yield* sql.run(
          "SELECT tableoid::regclass::text AS partition FROM inventory_ledger ORDER BY sequence"
        ),
        ["202605", "202606"].map((month) => ({ partition: `inventory_ledger_${month}` }))
      )
      yield* assertInvariants(url)
    })
  )
})
