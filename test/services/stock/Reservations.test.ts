import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, References } from "effect"
import { TestClock } from "effect/testing"
import { assertInvariants } from "../../support/invariants.ts"
import { dawn, ledger, replica, shopOf } from "../../support/ledger.ts"
import { cursorOf } from "../../../src/schema/Page.ts"

/** The life of a reservation over a real PostgreSQL, by the TestClock (CONTRACTS section 2). */

interface ReservationState {
  readonly order_id: string
  readonly status: string
}
const states = `SELECT order_id, status FROM reservation ORDER BY created_at, order_id`

describe("expiry", () => {
  it.effect("gives the stock back at expiresAt and not before, and tells of it", () =>
    Effect.gen(function* () {
      const { available, item, receive, reservations, reserve, sql, url } = yield* ledger
      const { itemId } = yield* item("cup")
      yield* receive("cup", 5)
      const { answer } = yield* reserve("order", [["cup", 3]], { expiresInSeconds: 60 })
      assert.strictEqual(answer.reservation.expiresAt, dawn + 60_000)

      yield* TestClock.setTime(dawn + 59_999)
      assert.strictEqual(yield* reservations.expireDue, 0)
      assert.strictEqual(yield* available("cup"), 2)

      yield* TestClock.setTime(dawn + 60_000)
      assert.strictEqual(yield* reservations.expireDue, 1)
      assert.strictEqual(yield* available("cup"), 5)
      const expired = yield* reservations.get("acme", answer.reservation.reservationId)
      assert.strictEqual(expired.status, "EXPIRED")
      assert.deepInclude(expired.lines[0], { open: 0, sold: 0, released: 3 })
      const events = yield* sql.run<{ type: string; data: Record<string, unknown> }>(
        `SELECT e ->> 'type' AS type, e -> 'data' AS data
         FROM outbox CROSS JOIN LATERAL jsonb_array_elements(events::jsonb) AS e
         WHERE e ->> 'key' = '${itemId}' ORDER BY (e -> 'data' ->> 'sequence')::bigint DESC LIMIT 2`
      )
      assert.deepStrictEqual(
        events.map(({ type }) => type),
        ["ReservationExpired", "InventoryReleased"]
      )
      assert.deepInclude(events[1]!.data, { reason: "EXPIRED", orderId: "order", availableQuantity: 5 })
      assert.strictEqual(yield* reservations.expireDue, 0)
      yield* assertInvariants(url)
    })
  )

  it.effect("takes all that is due, more than a batch of them, the oldest first", () =>
    Effect.gen(function* () {
      const { item, receive, reservations, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 1_000)
      yield* Effect.forEach(
        Array.from({ length: 600 }, (_, index) => index),
        // Many are due in the same moment, over the end of a batch.
        (index) =>
          reserve(`order-${index}`, [["cup", 1]], { expiresInSeconds: 300 - Math.floor(index / 100) }),
        { concurrency: "unbounded" }
      )
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* reservations.expireDue, 600)
      const released = yield* sql.run<{ expires_at: number }>(
        `SELECT r.expires_at
         FROM inventory_ledger l
         JOIN reservation r ON r.merchant_id = l.merchant_id AND r.reservation_id = l.reservation_id
         WHERE l.type = 'ORDER_RELEASE'
         ORDER BY l.sequence`
      )
      const moments = released.map(({ expires_at }) => expires_at)
      assert.strictEqual(moments.length, 600)
      assert.deepStrictEqual(
        moments,
        moments.toSorted((a, b) => a - b)
      )
      assert.strictEqual(yield* reservations.expireDue, 0)
      yield* assertInvariants(url)
    })
  )

  it.effect(
    "goes on past reservations that cannot be expired, a whole batch of them",
    () =>
      Effect.gen(function* () {
        const { item, receive, reservations, reserve, sql, url } = yield* ledger
        yield* item("cup")
        yield* receive("cup", 1_000)
        const reserveMany = (prefix: string, count: number, expiresInSeconds: number) =>
          Effect.forEach(
            Array.from({ length: count }, (_, index) => index),
            (index) => reserve(`${prefix}-${index}`, [["cup", 1]], { expiresInSeconds }),
            { concurrency: "unbounded" }
          )
        yield* reserveMany("stuck", 256, 60)
        yield* reserveMany("good", 10, 120)
        // A row that cannot be written stands for whatever bug there may be.
        yield* sql.run(`
        CREATE FUNCTION refuse_stuck() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'stuck';
        END $$`)
        yield* sql.run(`
        CREATE TRIGGER stuck BEFORE UPDATE ON reservation
        FOR EACH ROW WHEN (OLD.order_id LIKE 'stuck-%') EXECUTE FUNCTION refuse_stuck()`)
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(yield* reservations.expireDue, 10)
        const statuses = yield* sql.run(
          "SELECT status, count(*) AS count FROM reservation GROUP BY status ORDER BY status"
        )
        assert.deepStrictEqual(statuses, [
          { status: "EXPIRED", count: 10 },
          { status: "PENDING", count: 256 }
        ])
        yield* sql.run("DROP TRIGGER stuck ON reservation")
        assert.strictEqual(yield* reservations.expireDue, 256)
        yield* assertInvariants(url)
        // Each refusal is logged with its trace: hundreds of them here.
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    // Each has several transactions of its own.
    120_000
  )

  it.effect("happens once where two sweepers meet", () =>
    Effect.gen(function* () {
      const { available, item, receive, reservations, reserve, url } = yield* ledger
      const other = shopOf(yield* replica(url))
      yield* item("cup")
      yield* receive("cup", 100)
      yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index),
        (index) => reserve(`order-${index}`, [["cup", 1]], { expiresInSeconds: 1 }),
        { concurrency: "unbounded" }
      )
      yield* TestClock.adjust("1 second")
      const counts = yield* Effect.all([reservations.expireDue, other.reservations.expireDue], {
        concurrency: "unbounded"
      })
      assert.strictEqual(counts[0] + counts[1], 60)
      assert.strictEqual(yield* available("cup"), 100)
      yield* assertInvariants(url)
    })
  )

  it.effect("of one reservation is not held up by another that cannot expire", () =>
    Effect.gen(function* () {
      const { available, item, receive, reservations, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 10)
      yield* reserve("poison", [["cup", 1]], { expiresInSeconds: 1 })
      yield* Effect.forEach(["a", "b", "c"], (order) => reserve(order, [["cup", 1]], { expiresInSeconds: 2 }))
      yield* sql.run(`
        CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'poison'; END $$`)
      yield* sql.run(`
        CREATE TRIGGER poison BEFORE UPDATE ON reservation FOR EACH ROW
        WHEN (NEW.order_id = 'poison') EXECUTE FUNCTION poison()`)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* reservations.expireDue, 3)
      assert.strictEqual(yield* available("cup"), 9)
      assert.deepStrictEqual(
        yield* sql.run<ReservationState>(`${states} LIMIT 1`).pipe(Effect.map(([row]) => row!.status)),
        "EXPIRED"
      )
      yield* assertInvariants(url)
    })
  )

  it.effect("makes way for the same order's next reservation before any sweeper has been there", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 3)
      const first = yield* reserve("order", [["cup", 3]], { expiresInSeconds: 10 })
      yield* TestClock.adjust("10 seconds")
      const second = yield* reserve("order", [["cup", 2]], { expiresInSeconds: 10 })
      assert.isTrue(second.answer.created)
      assert.notStrictEqual(second.answer.reservation.reservationId, first.answer.reservation.reservationId)
      assert.deepStrictEqual(
        (yield* sql.run<ReservationState>(states)).map(({ status }) => status),
        ["EXPIRED", "PENDING"]
      )
      assert.strictEqual(yield* available("cup"), 1)
      yield* assertInvariants(url)
    })
  )
})

describe("extension", () => {
  it.effect("counts from now, and keeps the sweeper away", () =>
    Effect.gen(function* () {
      const { extend, item, receive, reservations, reserve, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 1)
      yield* reserve("order", [["cup", 1]], { expiresInSeconds: 60 })
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual((yield* extend("order", 100)).expiresAt, dawn + 159_000)
      yield* TestClock.adjust("99 seconds")
      assert.strictEqual(yield* reservations.expireDue, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Effect.flip(extend("order", 100)))._tag, "ReservationExpired")
      assert.strictEqual(yield* reservations.expireDue, 1)
      assert.strictEqual((yield* Effect.flip(extend("order", 100)))._tag, "ReservationExpired")
      yield* assertInvariants(url)
    })
  )

  it.effect("is of PENDING reservations only", () =>
    Effect.gen(function* () {
      const { confirm, extend, item, receive, release, reserve } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 2)
      assert.strictEqual((yield* Effect.flip(extend("nobody", 1)))._tag, "ReservationNotFound")
      yield* reserve("sold", [["cup", 1]])
      yield* confirm("sold")
      assert.strictEqual((yield* Effect.flip(extend("sold", 1)))._tag, "ReservationAlreadyConfirmed")
      yield* reserve("gone", [["cup", 1]])
      yield* release("gone")
      assert.strictEqual((yield* Effect.flip(extend("gone", 1)))._tag, "ReservationCancelled")
    })
  )
})

describe("confirm", () => {
  it.effect("sells what is held, also past expiresAt while no sweeper has been there", () =>
    Effect.gen(function* () {
      const { availability, confirm, item, receive, reservations, reserve, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 3)
      yield* reserve("order", [["cup", 2]], { expiresInSeconds: 1 })
      yield* TestClock.adjust("1 hour")
      assert.deepInclude(yield* confirm("order"), { applied: true })
      assert.deepInclude(yield* confirm("order"), { applied: false })
      assert.strictEqual(yield* reservations.expireDue, 0)
      assert.deepInclude(yield* availability.ofVariant("acme", "cup"), { quantity: 1, reservedQuantity: 0 })
      yield* assertInvariants(url)
    })
  )

  it.effect("of an expired one takes the stock again while there is enough", () =>
    Effect.gen(function* () {
      const { availability, confirm, item, receive, reservations, reserve, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 3)
      const { answer } = yield* reserve("order", [["cup", 2]], { expiresInSeconds: 1 })
      yield* TestClock.adjust("1 second")
      yield* reservations.expireDue
      assert.deepInclude(yield* confirm("order"), {
        applied: true,
        reservationId: answer.reservation.reservationId
      })
      assert.deepInclude(yield* availability.ofVariant("acme", "cup"), { quantity: 1, reservedQuantity: 0 })
      assert.strictEqual(
        (yield* reservations.get("acme", answer.reservation.reservationId)).status,
        "CONFIRMED"
      )
      yield* assertInvariants(url)
    })
  )

  it.effect("of an expired one is refused when another has taken the stock, and changes nothing", () =>
    Effect.gen(function* () {
      const { availability, confirm, item, receive, reservations, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* item("saucer")
      yield* receive("cup", 3)
      yield* receive("saucer", 3)
      const items = [
        ["cup", 2],
        ["saucer", 2]
      ] as const
      yield* reserve("slow", items, { expiresInSeconds: 1 })
      yield* TestClock.adjust("1 second")
      yield* reservations.expireDue
      yield* reserve("quick", [["saucer", 2]])
      const [before] = yield* sql.run(`SELECT count(*) AS rows FROM inventory_ledger`)
      const refusal = yield* Effect.flip(confirm("slow"))
      assert.strictEqual(refusal._tag, "ReservationExpired")
      assert.deepStrictEqual("items" in refusal ? refusal.items : [], [
        { productVariantId: "saucer", requested: 2, available: 1 }
      ] as never)
      assert.deepStrictEqual(yield* sql.run(`SELECT count(*) AS rows FROM inventory_ledger`), [before!])
      assert.deepInclude(yield* availability.ofVariant("acme", "cup"), { quantity: 3, reservedQuantity: 0 })
      yield* assertInvariants(url)
    })
  )

  it.effect("against release against expiry in the same instant has one winner", () =>
    Effect.gen(function* () {
      const { confirm, item, receive, release, reservations, reserve, sql, url } = yield* ledger
      const other = shopOf(yield* replica(url))
      yield* item("cup")
      yield* receive("cup", 100)
      for (let round = 0; round < 20; round++) {
        const order = `order-${round}`
        yield* reserve(order, [["cup", 1]], { expiresInSeconds: 1 })
        yield* TestClock.adjust("1 second")
        const [confirmed, released, expired] = yield* Effect.all(
          [
            Effect.result(round % 2 === 0 ? confirm(order) : other.confirm(order)),
            Effect.result(round % 2 === 0 ? other.release(order) : release(order)),
            other.reservations.expireDue
          ],
          { concurrency: "unbounded" }
        )
        const [row] = yield* sql.run<{ status: string; sold: number }>(
          `SELECT r.status, sum(l.sold)::bigint AS sold
           FROM reservation r JOIN reservation_line l USING (merchant_id, reservation_id)
           WHERE r.order_id = '${order}' GROUP BY r.status`
        )
        // Confirm may come after expiry and take the stock again; then both have happened, in that order.
        const won = confirmed._tag === "Success" && confirmed.success.applied
        assert.strictEqual(row!.status, won ? "CONFIRMED" : expired === 1 ? "EXPIRED" : "CANCELLED")
        assert.strictEqual(row!.sold, won ? 1 : 0)
        if (won && released._tag === "Success") assert.isFalse(released.success.applied)
      }
      assert.strictEqual(yield* reservations.expireDue, 0)
      yield* assertInvariants(url)
    })
  )
})

describe("reserving again", () => {
  it.effect("is answered with the live one, refused for other items, and new after an end", () =>
    Effect.gen(function* () {
      const { confirm, item, receive, release, reserve, url } = yield* ledger
      yield* item("cup")
      yield* item("saucer")
      yield* receive("cup", 10)
      yield* receive("saucer", 10)
      const first = (yield* reserve("order", [
        ["cup", 1],
        ["cup", 1],
        ["saucer", 1]
      ])).answer
      const again = (yield* reserve("order", [
        ["saucer", 1],
        ["cup", 2]
      ])).answer
      assert.isFalse(again.created)
      assert.strictEqual(again.reservation.reservationId, first.reservation.reservationId)
      const other = yield* Effect.flip(reserve("order", [["cup", 2]]))
      assert.deepInclude(other, { _tag: "ReservationFailed", reason: "OTHER_ITEMS" })
      yield* release("order")
      const second = (yield* reserve("order", [["cup", 2]])).answer
      assert.isTrue(second.created)
      yield* confirm("order")
      assert.isFalse((yield* reserve("order", [["cup", 2]])).answer.created)
      yield* assertInvariants(url)
    })
  )

  it.effect("by one order at two replicas at once makes one reservation", () =>
    Effect.gen(function* () {
      const shop = yield* ledger
      const other = shopOf(yield* replica(shop.url))
      yield* shop.item("cup")
      yield* shop.receive("cup", 100)
      for (let round = 0; round < 10; round++) {
        const answers = yield* Effect.forEach(
          [shop, other, shop, other],
          ({ reserve }) => reserve(`order-${round}`, [["cup", 1]]),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(answers.filter(({ answer }) => answer.created).length, 1)
        assert.strictEqual(new Set(answers.map(({ answer }) => answer.reservation.reservationId)).size, 1)
      }
      assert.strictEqual(yield* shop.available("cup"), 90)
      yield* assertInvariants(shop.url)
    })
  )
})

describe("what is taken", () => {
  const day = 24 * 60 * 60 * 1000

  it.effect(
    "is first-expired-first-out inside a location, the default location first, then by creation",
    () =>
      Effect.gen(function* () {
        const { available, item, location, receive, reserve, url } = yield* ledger
        yield* item("milk")
        yield* location("north")
        yield* location("east")
        yield* receive("milk", 2, { locationId: "east", lotNumber: "E1", lotExpiresAt: dawn + day })
        yield* receive("milk", 2, { locationId: "north" })
        yield* receive("milk", 2, { lotNumber: "D0" })
        yield* receive("milk", 2, { lotNumber: "D3", lotExpiresAt: dawn + 3 * day })
        yield* receive("milk", 2, { lotNumber: "D2", lotExpiresAt: dawn + 2 * day })
        yield* receive("milk", 5, { lotNumber: "OLD", lotExpiresAt: dawn })
        assert.strictEqual(yield* available("milk"), 10)
        const { answer } = yield* reserve("order", [["milk", 9]])
        assert.deepStrictEqual(
          answer.reservation.lines.map(({ locationId, lotNumber, quantity }) => [
            locationId,
            lotNumber,
            quantity
          ]),
          [
            ["default", "D2", 2],
            ["default", "D3", 2],
            ["default", "D0", 2],
            ["north", null, 2],
            ["east", "E1", 1]
          ]
        )
        yield* assertInvariants(url)
      })
  )

  it.effect("stays inside the given location", () =>
    Effect.gen(function* () {
      const { item, location, receive, reserve } = yield* ledger
      yield* item("milk")
      yield* location("north")
      yield* receive("milk", 1, { locationId: "north" })
      yield* receive("milk", 5)
      const refusal = yield* Effect.flip(reserve("order", [["milk", 2]], { locationId: "north" }))
      assert.deepInclude(refusal, {
        _tag: "InsufficientStock",
        items: [{ productVariantId: "milk", requested: 2, available: 1 }]
      })
      const unknown = yield* Effect.flip(reserve("order", [["milk", 1]], { locationId: "south" }))
      assert.strictEqual(unknown._tag, "LocationNotFound")
    })
  )

  it.effect("is nothing at all when one line of many is short", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      yield* Effect.forEach(["a", "b", "c"], (variant) => item(variant))
      yield* receive("a", 5)
      yield* receive("b", 5)
      yield* receive("c", 1)
      const refusal = yield* Effect.flip(
        reserve("order", [
          ["a", 5],
          ["b", 6],
          ["c", 2]
        ])
      )
      assert.strictEqual(refusal._tag, "InsufficientStock")
      assert.deepStrictEqual(
        "items" in refusal
          ? refusal.items?.map((line) => (line as { productVariantId: string }).productVariantId).sort()
          : [],
        ["b", "c"]
      )
      assert.strictEqual(yield* available("a"), 5)
      assert.deepStrictEqual(yield* sql.run(states), [])
      yield* assertInvariants(url)
    })
  )

  it.effect("of a lot that expires while it is held can still be confirmed, with a discrepancy", () =>
    Effect.gen(function* () {
      const { available, confirm, discrepancies, item, receive, reserve, url } = yield* ledger
      yield* item("milk")
      yield* receive("milk", 5, { lotNumber: "L", lotExpiresAt: dawn + 1_000 })
      yield* reserve("order", [["milk", 2]])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* available("milk"), 0)
      assert.strictEqual((yield* Effect.flip(reserve("late", [["milk", 1]])))._tag, "InsufficientStock")
      assert.isTrue((yield* confirm("order")).applied)
      const { data } = yield* discrepancies.list("acme", {})
      assert.deepInclude(data[0], { kind: "EXPIRED_LOT_SOLD", status: "OPEN", orderId: "order" })
      yield* assertInvariants(url)
    })
  )
})

describe("reading", () => {
  it.effect("lists newest first, page by page, by order and by status", () =>
    Effect.gen(function* () {
      const { confirm, item, receive, reservations, reserve } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 10)
      for (const order of ["a", "b", "c", "d", "e"]) {
        yield* reserve(order, [["cup", 1]])
        if (order !== "c") yield* TestClock.adjust("1 second")
      }
      yield* confirm("b")
      const seen: Array<string> = []
      let cursor: string | undefined
      do {
        const page = yield* reservations.list("acme", {
          limit: 2,
          ...(cursor === undefined ? {} : { cursor })
        })
        seen.push(...page.data.map(({ orderId }) => orderId))
        cursor = page.nextCursor ?? undefined
      } while (cursor !== undefined)
      assert.strictEqual(seen.length, 5)
      assert.strictEqual(seen[0], "e")
      assert.deepStrictEqual(seen.slice(3), ["b", "a"])
      const byStatus = yield* reservations.list("acme", { status: "CONFIRMED" })
      assert.deepStrictEqual(
        byStatus.data.map(({ orderId }) => orderId),
        ["b"]
      )
      const byOrder = yield* reservations.list("acme", { orderId: "d" })
      assert.strictEqual(byOrder.data.length, 1)
      assert.deepStrictEqual((yield* reservations.list("other", {})).data, [])
    })
  )

  it.effect("refuses a cursor that was not made for the list", () =>
    Effect.gen(function* () {
      const { catalog, discrepancies, item, movements, reservations } = yield* ledger
      yield* item("cup")
      const forged = [
        ["x"],
        [1],
        [1.5, "x"],
        [1, "x"],
        [1e300, "00000000-0000-7000-8000-000000000000"],
        [1, "x", 1]
      ]
      for (const position of forged) {
        const cursor = cursorOf(position)
        const lists: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
          reservations.list("acme", { cursor }),
          discrepancies.list("acme", { cursor }),
          movements.ofVariant("acme", "cup", { cursor }),
          catalog.items("acme", { kind: "PRODUCT", cursor })
        ]
        for (const list of lists) {
          assert.strictEqual((yield* Effect.flip(list))._tag, "InvalidCursor", JSON.stringify(position))
        }
      }
    })
  )

  it.effect("does not find another merchant's reservation", () =>
    Effect.gen(function* () {
      const { item, receive, reservations, reserve } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 1)
      const { answer } = yield* reserve("order", [["cup", 1]])
      const refusal = yield* Effect.flip(reservations.get("other", answer.reservation.reservationId))
      assert.strictEqual(refusal._tag, "ReservationNotFound")
    })
  )
})

describe("a caller that goes away", () => {
  it.effect("leaves what it asked for whole", () =>
    Effect.gen(function* () {
      const { available, item, receive, reserve, sql, url } = yield* ledger
      yield* item("cup")
      yield* receive("cup", 5)
      const asking = yield* Effect.forkChild(reserve("order", [["cup", 2]]), { startImmediately: true })
      yield* Fiber.interrupt(asking)
      // The next posting of the same order comes after it, by the order's lock.
      yield* reserve("order", [["cup", 2]])
      assert.strictEqual((yield* sql.run(states)).length, 1)
      assert.strictEqual(yield* available("cup"), 3)
      yield* assertInvariants(url)
    })
  )
})
