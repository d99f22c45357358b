import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Audit } from "../../../src/services/books/Audit.ts"
import type { Check, Finding } from "../../../src/services/books/audit/Finding.ts"
import { bucketOf } from "../../../src/services/OutboxBuckets.ts"
import { Repairs } from "../../../src/services/books/Repairs.ts"
import { assertInvariants } from "../../support/invariants.ts"
import { caller, dawn, ledger } from "../../support/ledger.ts"

/**
 * Audit against books that are right, and against ones that were changed behind the service's back: by somebody with the
 * owner's rights, who switches triggers and foreign keys off. Each change is found, named, repaired as its kind is repaired,
 * and the service goes on. What the tests know of the invariants (test/support/invariants.ts) is asked beside it.
 */

/** The services, an audit over them, and a hand behind their back. */
const books = Effect.gen(function* () {
  const shop = yield* ledger
  const context = yield* Layer.build(
    Layer.mergeAll(Audit.layer, Repairs.layer).pipe(Layer.provide(Layer.succeedContext(shop.context)))
  )
  const { examine } = Context.get(context, Audit)
  const { plan, run } = Context.get(context, Repairs)
  const audit = Effect.fnUntraced(function* (merchantId?: string) {
    yield* TestClock.adjust("1 minute")
    const findings: Array<Finding> = []
    const report = yield* examine({
      merchantId,
      tell: (finding) => Effect.sync(() => findings.push(finding))
    })
    return { ...report, findings }
  })
  return {
    ...shop,
    audit,
    examine,
    /** Repairs what an audit finds, and answers with what it could not repair. */
    repair: Effect.fnUntraced(function* (acknowledged: ReadonlyArray<string> = []) {
      const { findings } = yield* audit()
      const { left, steps } = plan(findings, new Set(acknowledged), "a test")
      for (const step of steps) yield* run(step, { actor: "tester", reason: "a test" })
      return left
    }),
    /** Statements of the owner's, with triggers and foreign keys switched off. */
    tamper: Effect.fnUntraced(function* (statements: string) {
      yield* shop.sql.run("SET session_replication_role = replica")
      for (const statement of statements.split(";")) yield* shop.sql.run(statement)
      yield* shop.sql.run("SET session_replication_role = DEFAULT")
    })
  }
})

type Books = Effect.Success<typeof books>

/** A little of everything: receipts, lots, reservations in every state, sales, returns, damage and counts. */
const aDay = Effect.fnUntraced(function* ({
  adjust,
  confirm,
  item,
  location,
  orders,
  receive,
  release,
  reserve
}: Books) {
  yield* item("cup", { sku: "CUP", lowStockThreshold: 5 })
  yield* item("pan")
  yield* location("north")
  yield* receive("cup", 50, { reference: "receipt:1" })
  yield* receive("cup", 8, { locationId: "north", lotNumber: "L1", lotExpiresAt: dawn + 86_400_000 })
  yield* receive("pan", 10)
  yield* TestClock.adjust("1 second")
  const held = [
    ["cup", 3],
    ["pan", 2]
  ] as const
  yield* reserve("held", held, { expiresInSeconds: 86_400 })
  yield* reserve("also held", [["pan", 1]], { expiresInSeconds: 86_400 })
  yield* TestClock.adjust("1 second")
  yield* reserve("sold", [["cup", 4]])
  yield* confirm("sold")
  yield* reserve("gone", [["pan", 1]])
  yield* release("gone")
  yield* adjust({ changeType: "SALE", item: { variantId: "pan" }, quantity: 1, orderId: "direct" })
  yield* adjust({ changeType: "RETURN", item: { variantId: "cup" }, quantity: 2, orderId: "sold" })
  yield* adjust({ changeType: "RETURN", item: { variantId: "cup" }, quantity: 1, orderId: "direct" })
  yield* reserve("paid", [["cup", 1]])
  const lines = [{ productVariantId: "cup", quantity: 1 }]
  yield* orders.recordSale(yield* caller(), { orderId: "paid", lines })
  yield* TestClock.adjust("1 second")
  yield* adjust({ changeType: "DAMAGE", item: { variantId: "pan" }, quantity: 1 })
  yield* adjust({ changeType: "CORRECTION", item: { variantId: "pan" }, quantity: 8 })
})

/** The stock of the pan, and of the cup at the default location. */
const stockOf = (variantId: string) =>
  `(SELECT stock_id FROM stock JOIN item USING (merchant_id, item_id)
    WHERE product_variant_id = '${variantId}' AND location_id = 'default')`
const orderOf = (orderId: string) => `(SELECT reservation_id FROM reservation WHERE order_id = '${orderId}')`

const namesOf = (findings: ReadonlyArray<Finding>): ReadonlyArray<Check> =>
  [...new Set(findings.map(({ check }) => check))].sort()

/** The service goes on: it sells what is there and not more. */
const goesOn = Effect.fnUntraced(function* ({ audit, available, confirm, reserve, sql }: Books) {
  const left = yield* available("pan")
  yield* reserve("next", [["pan", left]])
  const refused = yield* Effect.flip(reserve("one too many", [["pan", 1]]))
  assert.strictEqual(refused._tag, "InsufficientStock")
  yield* confirm("next")
  const { findings } = yield* audit()
  assert.deepStrictEqual(findings, [])
  const [row] = yield* sql.run<{ count: number }>("SELECT count(*) AS count FROM audit_repair")
  return row!.count
})

/** A key for each bucket. */
const keysByBucket = [0, 1, 2, 3]
  .map((bucket) => [..."abcdefghijklmnop"].find((key) => bucketOf(key) === bucket)!)
  .map((key) => `'${key}'`)
  .join(", ")

interface Case {
  readonly says: string
  readonly statement: string
  /** What is found, by the names of the checks. */
  readonly found: ReadonlyArray<Check>
  /** Whether a person must acknowledge something: the findings of a stock, or each. */
  readonly acknowledges?: true
  /** The oracle of the tests is not told of acknowledgements. */
  readonly keepsHistory?: true
}

const cases: ReadonlyArray<Case> = [
  {
    says: "a stock's quantity",
    statement: `UPDATE stock SET on_hand = on_hand - 1 WHERE stock_id = ${stockOf("pan")}`,
    found: ["item-is-its-stocks", "stock-is-its-ledger"]
  },
  {
    says: "a stock's reserved",
    statement: `UPDATE stock SET reserved = reserved + 1 WHERE stock_id = ${stockOf("pan")}`,
    found: ["item-is-its-stocks", "reserved-is-open", "stock-is-its-ledger"]
  },
  {
    says: "a stock's unallocatable, and its item's with it",
    statement: `UPDATE stock SET unallocatable = 0 WHERE stock_id = ${stockOf("pan")};
      UPDATE item SET unallocatable = 0 WHERE product_variant_id = 'pan'`,
    found: ["stock-is-its-ledger"]
  },
  {
    says: "a stock's sequence, turned back",
    statement: `UPDATE stock SET sequence = sequence - 1 WHERE stock_id = ${stockOf("pan")}`,
    found: ["stock-is-its-ledger"]
  },
  {
    says: "a stock's flag",
    statement: `UPDATE stock SET discrepancy = true WHERE stock_id = ${stockOf("pan")}`,
    found: ["balance-has-its-discrepancy"]
  },
  {
    says: "an item's totals",
    statement: "UPDATE item SET on_hand = on_hand + 5 WHERE product_variant_id = 'pan'",
    found: ["item-is-its-stocks"]
  },
  {
    says: "an item's status",
    statement: "UPDATE item SET status = 'OUT_OF_STOCK' WHERE product_variant_id = 'pan'",
    found: ["item-status"]
  },
  {
    says: "an item's number of events, turned back",
    statement: "UPDATE item SET event_sequence = event_sequence - 2 WHERE product_variant_id = 'pan'",
    found: ["number-was-told"]
  },
  {
    says: "an item's number of events, put on",
    statement: "UPDATE item SET event_sequence = event_sequence + 2 WHERE product_variant_id = 'pan'",
    found: ["last-event-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "what a line holds",
    statement: `UPDATE reservation_line SET open = open + 1, quantity = quantity + 1
      WHERE reservation_id = ${orderOf("also held")}`,
    found: ["line-is-its-ledger", "reserved-is-open"]
  },
  {
    says: "what two lines hold, so that the sum is right",
    statement: `UPDATE reservation_line SET open = open + 1, quantity = quantity + 1
      WHERE reservation_id = ${orderOf("also held")};
      UPDATE reservation_line SET open = open - 1, released = 1
      WHERE reservation_id = ${orderOf("held")} AND stock_id = ${stockOf("pan")}`,
    found: ["line-is-its-ledger"]
  },
  {
    says: "what a line has sold",
    statement: `UPDATE reservation_line SET sold = sold - 1, released = released + 1
      WHERE reservation_id = ${orderOf("direct")}`,
    found: ["line-is-its-ledger", "pending-holds"]
  },
  {
    says: "what a line has sold, to more than was asked for",
    statement: `UPDATE reservation_line SET sold = sold + 1, quantity = quantity + 1
      WHERE reservation_id = ${orderOf("sold")}`,
    found: ["line-is-its-ledger", "sold-once"]
  },
  {
    says: "what a line has taken back",
    statement: `UPDATE reservation_line SET returned = 0 WHERE reservation_id = ${orderOf("sold")}`,
    found: ["line-is-its-ledger"]
  },
  {
    says: "a line that is gone",
    statement: `DELETE FROM reservation_line WHERE reservation_id = ${orderOf("also held")}`,
    found: ["line-is-its-ledger", "pending-holds", "reserved-is-open"]
  },
  {
    says: "a line that was never reserved",
    statement: `INSERT INTO reservation_line (merchant_id, reservation_id, line_number, item_id, stock_id, quantity, open)
      SELECT merchant_id, ${orderOf("sold")}, 7, item_id, stock_id, 1, 1 FROM stock WHERE stock_id = ${stockOf("pan")}`,
    found: ["line-is-its-ledger", "pending-holds", "reserved-is-open"]
  },
  {
    says: "the item of a line",
    statement: `UPDATE reservation_line
      SET item_id = (SELECT item_id FROM item WHERE product_variant_id = 'cup')
      WHERE reservation_id = ${orderOf("also held")}`,
    found: ["own-merchant"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a reservation's status, given up",
    statement: "UPDATE reservation SET status = 'CANCELLED' WHERE order_id = 'held'",
    found: ["pending-holds"]
  },
  {
    says: "a reservation's status, taken up again",
    statement: "UPDATE reservation SET status = 'PENDING' WHERE order_id = 'gone'",
    found: ["pending-holds"]
  },
  {
    says: "a reservation that is gone",
    statement: "DELETE FROM reservation WHERE order_id = 'also held'",
    found: ["line-of-a-reservation"]
  },
  {
    says: "a reservation that is gone with its lines",
    statement: `DELETE FROM reservation_line WHERE reservation_id = ${orderOf("also held")};
      DELETE FROM reservation WHERE order_id = 'also held'`,
    found: ["line-is-its-ledger", "reserved-is-open"]
  },
  {
    says: "a tracking row that is gone",
    statement: `DELETE FROM tracking WHERE posting_id IN
      (SELECT posting_id FROM inventory_ledger WHERE type = 'RECEIPT' AND stock_id = ${stockOf("pan")})`,
    found: ["posting-is-tracked"]
  },
  {
    says: "a tracking row of another posting",
    statement: `UPDATE tracking SET posting_id = gen_random_uuid() WHERE tracking_key LIKE 'POSTING|%'
      AND posting_id IN (SELECT posting_id FROM inventory_ledger WHERE type = 'RECEIPT' AND stock_id = ${stockOf("pan")})`,
    found: ["tracking-names-its-posting"]
  },
  {
    says: "a movement's balance",
    statement: `UPDATE inventory_ledger SET on_hand = on_hand + 1 WHERE stock_id = ${stockOf("pan")} AND sequence = 3`,
    found: ["ledger-follows"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "what a movement has moved",
    statement: `UPDATE inventory_ledger SET on_hand_delta = on_hand_delta + 1
      WHERE stock_id = ${stockOf("pan")} AND sequence = 1`,
    found: ["ledger-follows", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "the type of a movement",
    statement: `UPDATE inventory_ledger SET type = 'TRANSFER_IN' WHERE stock_id = ${stockOf("pan")} AND sequence = 1`,
    found: ["movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a movement that is gone",
    statement: `DELETE FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND type = 'ADJUSTMENT'
      AND unallocatable_delta = 1`,
    found: ["ledger-follows", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "the last movement, gone",
    statement: `DELETE FROM inventory_ledger WHERE stock_id = ${stockOf("pan")}
      AND sequence = (SELECT sequence FROM stock WHERE stock_id = ${stockOf("pan")})`,
    found: ["ledger-ends", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a movement that is there twice",
    statement: `INSERT INTO inventory_ledger
      SELECT merchant_id, stock_id, recorded_at + interval '1 microsecond', sequence, item_id, type, on_hand_delta,
             reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor, order_id,
             reservation_id, reference, reason, occurred_at
      FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1`,
    found: ["ledger-follows", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an event that is gone",
    statement: `DELETE FROM outbox WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["events-are-numbered", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a row of events that is no JSON",
    statement: `UPDATE outbox SET events = 'lost' WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["events-are-numbered", "events-are-readable", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a row of events that breaks off behind them",
    statement: `UPDATE outbox SET events = left(events, -1) WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    // What the row held cannot be compared any more.
    found: ["events-are-numbered", "events-are-readable", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an event that is none, behind others",
    statement: `UPDATE outbox SET events = left(events, -1) || ',7]' WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["events-are-readable"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "what an event tells was moved",
    statement: `UPDATE outbox SET events = replace(events, '"onHandDelta":10,', '"onHandDelta":10.5,')
      WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["events-are-numbered", "events-are-readable", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an event of another merchant",
    statement: `UPDATE outbox SET events = replace(events, '"data":{"merchantId":"acme"', '"data":{"merchantId":"other"')
      WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["event-of-its-merchant"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an event in the bucket of another key",
    statement: `UPDATE outbox
      SET events = regexp_replace(events, '"key":"[^"]*"', '"key":"' || (ARRAY[${keysByBucket}])[(bucket + 1) % 4 + 1] || '"')
      WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["event-in-its-bucket"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an event marked SENT before an earlier one",
    statement: `UPDATE outbox SET sent_at = recorded_at WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND type = 'SALE') || '%'`,
    found: ["sent-in-order"],
    acknowledges: true
  },
  {
    says: "a movement of another merchant's",
    statement: `UPDATE inventory_ledger SET merchant_id = 'other' WHERE stock_id = ${stockOf("pan")} AND sequence = 1`,
    found: ["ledger-follows", "movement-is-told", "own-merchant", "posting-is-tracked"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "items whose merchant is gone",
    statement: `DELETE FROM merchant`,
    found: ["own-merchant"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a line on another merchant's stock",
    statement: `INSERT INTO stock (merchant_id, stock_id, item_id, location_id, created_at, updated_at)
      SELECT 'other', gen_random_uuid(), item_id, location_id, created_at, updated_at
      FROM stock WHERE stock_id = ${stockOf("pan")}`,
    found: ["own-merchant"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a discrepancy about another merchant's stock",
    statement: `INSERT INTO discrepancy (merchant_id, discrepancy_id, kind, subject, stock_id, opened_at)
      SELECT 'other', gen_random_uuid(), 'EXPIRED_LOT_SOLD', stock_id::text, stock_id, created_at
      FROM stock WHERE stock_id = ${stockOf("pan")}`,
    found: ["own-merchant"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "an item that is discontinued while it is in stock, and nobody is told",
    statement:
      "UPDATE item SET discontinued = true, status = 'DISCONTINUED' WHERE product_variant_id = 'cup'",
    found: ["discontinued-has-its-discrepancy"]
  },
  {
    says: "a discrepancy about a discontinued item that is none",
    statement: `INSERT INTO discrepancy (merchant_id, discrepancy_id, kind, subject, item_id, opened_at)
      SELECT merchant_id, gen_random_uuid(), 'DISCONTINUED_WITH_STOCK', item_id::text, item_id, created_at
      FROM item WHERE product_variant_id = 'cup'`,
    found: ["discontinued-has-its-discrepancy"]
  },
  {
    says: "a deleted item that is in stock",
    statement: "UPDATE item SET deleted_at = updated_at WHERE product_variant_id = 'cup'",
    found: ["deleted-has-no-stock"]
  },
  {
    says: "events that are there twice",
    statement: `INSERT INTO outbox (bucket, recorded_at, events, event_count)
      SELECT bucket, recorded_at, events, event_count FROM outbox WHERE events LIKE '%' ||
      (SELECT posting_id FROM inventory_ledger WHERE stock_id = ${stockOf("pan")} AND sequence = 1) || '%'`,
    found: ["event-is-there-once", "events-are-numbered", "movement-is-told"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "a discrepancy that was reported, gone",
    statement: "DELETE FROM discrepancy WHERE kind = 'RETURN_EXCEEDS_SALE'",
    found: ["discrepancy-is-there"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "the note of a stock that a paid order was sold from, gone",
    statement: `DELETE FROM tracking WHERE tracking_key LIKE E'SALE\\_ORDER\x1fpaid\x1fstock%'`,
    found: ["paid-stock-is-noted"]
  },
  {
    says: "what was paid of a line",
    statement: `UPDATE reservation_line SET paid = 0 WHERE reservation_id = ${orderOf("paid")}`,
    found: ["noted-stock-is-paid"],
    acknowledges: true,
    keepsHistory: true
  },
  {
    says: "row-level security, switched off",
    statement: "ALTER TABLE stock DISABLE ROW LEVEL SECURITY",
    found: ["row-security"]
  },
  {
    says: "a policy that lets everybody see",
    statement: "DROP POLICY one_merchant ON reservation",
    found: ["row-security"]
  },
  {
    says: "the ledger's guard, switched off",
    statement: "ALTER TABLE inventory_ledger DISABLE TRIGGER inventory_ledger_append_only",
    found: ["append-only"]
  }
]

describe("an audit", { timeout: 60_000 }, () => {
  it.effect("finds nothing wrong with books that nobody has changed", () =>
    Effect.gen(function* () {
      const shop = yield* books
      yield* aDay(shop)
      const { findings, holds, looked } = yield* shop.audit()
      assert.deepStrictEqual(findings, [])
      assert.isTrue(holds)
      assert.strictEqual(looked.stocks, 3)
      assert.isAbove(looked.movements, 8)
      assert.isAbove(looked.events, 10)
    })
  )

  it.effect("finds nothing wrong with an empty database", () =>
    Effect.gen(function* () {
      const { audit } = yield* books
      assert.isTrue((yield* audit()).holds)
    })
  )

  it.effect("names the oldest reservation that is PENDING past its expiry", () =>
    Effect.gen(function* () {
      const { audit, item, receive, reserve } = yield* books
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("late", [["cup", 1]], { expiresInSeconds: 20 })
      yield* reserve("later", [["cup", 1]], { expiresInSeconds: 40 })
      const { holds, overdue } = yield* audit()
      assert.isTrue(holds)
      assert.strictEqual(overdue?.orderId, "late")
      assert.strictEqual(overdue?.lateMs, 40_000)
    })
  )

  it.effect("takes two lines of one reservation on one stock for what they come to", () =>
    Effect.gen(function* () {
      const { audit, confirm, item, receive, reservations, reserve, sql } = yield* books
      yield* item("cup")
      yield* receive("cup", 5)
      yield* reserve("late", [["cup", 2]], { expiresInSeconds: 20 })
      yield* TestClock.adjust("1 minute")
      yield* reservations.expireDue
      yield* confirm("late")
      const [lines] = yield* sql.run(
        "SELECT count(*), count(DISTINCT stock_id) AS stocks FROM reservation_line"
      )
      assert.deepStrictEqual(lines, { count: 2, stocks: 1 })
      assert.deepStrictEqual((yield* audit()).findings, [])
    })
  )

  it.effect("looks at one merchant alone when asked to", () =>
    Effect.gen(function* () {
      const shop = yield* books
      const other = { merchantId: "other" }
      yield* aDay(shop)
      yield* shop.item("cup", {}, other)
      yield* shop.receive("cup", 5, {}, other)
      yield* shop.tamper("UPDATE item SET on_hand = on_hand + 1 WHERE merchant_id = 'other'")
      assert.isTrue((yield* shop.audit("acme")).holds)
      const { findings, looked } = yield* shop.audit("other")
      assert.deepStrictEqual(namesOf(findings), ["item-is-its-stocks"])
      assert.strictEqual(looked.stocks, 1)
    })
  )
})

describe("what was changed behind the service's back", { timeout: 60_000 }, () => {
  for (const { acknowledges, found, keepsHistory, says, statement } of cases) {
    it.effect(`is found and repaired: ${says}`, () =>
      Effect.gen(function* () {
        const shop = yield* books
        yield* aDay(shop)
        yield* shop.tamper(statement)
        const first = yield* shop.audit()
        assert.deepStrictEqual(namesOf(first.findings), [...found].sort())
        assert.isFalse(first.holds)

        const left = yield* shop.repair()
        if (acknowledges === undefined) assert.deepStrictEqual(left, [])
        else {
          assert.isAbove(left.length, 0)
          assert.isFalse((yield* shop.audit()).holds, "nothing is acknowledged by itself")
          const ids = left.map(({ id }) => id)
          yield* shop.repair(ids)
          // What was acknowledged first may be what kept the rest from being repaired.
          yield* shop.repair(ids)
        }
        const { findings } = yield* shop.audit()
        assert.deepStrictEqual(findings, [])
        assert.isAbove(yield* goesOn(shop), 0)
        if (keepsHistory === undefined) yield* assertInvariants(shop.url)
      })
    )
  }
})
