import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Service, fresh, merchant, run } from "../support/service.ts"
import { pick } from "../support/shape.ts"

/**
 * `holdfast items`, `locations`, `receive`, `adjust`, `confirm`, `reservations` and `discrepancies`, each a process of its
 * own beside the running service.
 */

/** Each command is a program that starts: seconds, where all processors are busy. */
const patience = 240_000

/** Runs a command for a merchant to its end. */
const commandsOf = (merchantId: string) => {
  const holdfast = (...parameters: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const { databaseUrl } = yield* Service
      const environment = { DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1", DEFAULT_MERCHANT_ID: merchantId }
      const program = yield* run(environment, parameters)
      const { code } = yield* program.ended
      return { code, lines: linesOf(program.stdout()), complaints: linesOf(program.stderr()) }
    }).pipe(Effect.scoped)
  /** What it printed, where nothing may be wrong. */
  const done = (...parameters: ReadonlyArray<string>) =>
    Effect.map(holdfast(...parameters), ({ code, complaints, lines }) => {
      assert.strictEqual(code, 0, complaints.join("\n"))
      return lines
    })
  const json = (...parameters: ReadonlyArray<string>) =>
    Effect.map(done(...parameters, "--json"), (lines) => lines.map((line) => JSON.parse(line) as unknown))
  return { holdfast, done, json }
}

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")

layer(Service.layer, { excludeTestServices: true, timeout: "180 seconds" })(
  "commands for a merchant",
  (it) => {
    it.effect(
      "stock an item, receive it into a lot, sell what an order has reserved, and correct what is left",
      () =>
        Effect.gen(function* () {
          const { get, merchantId } = yield* merchant
          const { done, holdfast, json } = commandsOf(merchantId)
          assert.deepStrictEqual(yield* done("locations", "set", "shop", "--name", "The shop"), [
            "Location shop (The shop) is new"
          ])
          assert.deepStrictEqual(
            (yield* json("locations", "list")).map((row) => [
              pick(row, "locationId"),
              pick(row, "isDefault")
            ]),
            [
              ["default", true],
              ["shop", false]
            ]
          )
          yield* done("locations", "set", "yard", "--order", "1")
          assert.deepStrictEqual(yield* done("locations", "set", "shop", "--retired", "yes"), [
            "Location shop (The shop) was there, and is retired"
          ])
          assert.deepStrictEqual(
            (yield* json("locations", "list")).map((row) => [
              pick(row, "locationId"),
              pick(row, "order"),
              pick(row, "retired")
            ]),
            [
              ["default", 0, false],
              ["yard", 1, false],
              ["shop", 2, true]
            ]
          )
          yield* done("locations", "set", "shop", "--retired", "no")
          const set = yield* done(
            "items",
            "set",
            "cup",
            "--sku",
            "CUP",
            "--name",
            "Cup",
            "--safety-stock",
            "4"
          )
          assert.include(set[1], "Cup")
          assert.strictEqual(set.at(-1), "It is new.")
          const changed = yield* json(
            "items",
            "set",
            "cup",
            "--low-stock-threshold",
            "2",
            "--stocked",
            "true"
          )
          assert.deepInclude(changed[0], {
            created: false,
            sku: "CUP",
            name: "Cup",
            safetyStock: 4,
            lowStockThreshold: 2
          })
          // The times of JSON are those of HTTP.
          assert.match(String(pick(changed[0], "createdAt")), /^\d{4}-\d\d-\d\dT[\d:.]{12}Z$/)
          assert.deepStrictEqual(
            (yield* json("items", "list", "--search", "CU")).map((row) => pick(row, "productVariantId")),
            ["cup"]
          )

          const into = ["--location", "shop", "--lot", "L7"]
          const received = yield* done(
            "receive",
            "cup",
            "10",
            ...into,
            "--expires",
            "2999-01-31",
            "--reference",
            "delivery:1"
          )
          assert.include(received.at(-1), "cup has 10 in all, 10 available: IN_STOCK")
          const again = yield* done("receive", "cup", "10", ...into, "--reference", "delivery:1")
          assert.include(again[0], "It was applied before")
          const batches = pick((yield* get("/inventory/CUP")).body, "batches") as ReadonlyArray<object>
          assert.lengthOf(batches, 1)
          assert.deepInclude(batches[0], { lotNumber: "L7", expiresAt: "2999-01-31T23:59:59.999Z" })
          const damaged = yield* json("adjust", "cup", "DAMAGE", "1", ...into, "--reason", "dropped")
          assert.deepInclude(damaged[0], { applied: true, quantity: 10, availableQuantity: 9 })

          yield* done("reserve", "o-1", "cup=3")
          const [held] = yield* json("reservations", "list", "--status", "PENDING")
          assert.deepInclude(held, { orderId: "o-1", status: "PENDING" })
          const reservationId = String(pick(held, "reservationId"))
          assert.deepStrictEqual(yield* done("confirm", "o-1"), [
            `Order o-1 is confirmed: reservation ${reservationId}`
          ])
          assert.deepStrictEqual(yield* json("confirm", "o-1", "--reservation", reservationId), [
            { orderId: "o-1", reservationId, confirmed: true, applied: false }
          ])
          const shown = yield* done("reservations", "show", reservationId)
          assert.include(shown[1], "CONFIRMED")
          assert.match(shown.at(-1)!, /^cup +CUP +shop +L7 +3 +0 +3\b/)
          assert.deepStrictEqual(yield* done("reservations", "list", "--order", "o-2"), [
            "There are no reservations."
          ])
          const version = pick((yield* get("/inventory/CUP")).body, "batches.0.version") as number
          const stale = yield* holdfast(
            "adjust",
            "cup",
            "CORRECTION",
            "8",
            "--expected-version",
            String(version - 1)
          )
          assert.strictEqual(stale.code, 1)
          assert.include(stale.complaints[0], "VERSION_MISMATCH")
          yield* done("adjust", "cup", "CORRECTION", "8", "--expected-version", String(version))
          assert.strictEqual(pick((yield* get("/inventory/CUP")).body, "totalQuantity"), 8)
        }),
      patience
    )

    it.effect(
      "show where facts contradict the books, and close it with a reason",
      () =>
        Effect.gen(function* () {
          const { item, merchantId, post, receive } = yield* merchant
          const { done, holdfast, json } = commandsOf(merchantId)
          yield* item("cup")
          yield* receive("cup", 5)
          yield* post("/api/v1/inventory/count", { counts: [{ productVariantId: "cup", quantity: 3 }] })
          const [open] = yield* json("discrepancies", "list", "--variant", "cup")
          assert.deepInclude(open, { kind: "COUNT_DIFFERENCE", status: "OPEN", closedAt: null })
          const id = String(pick(open, "discrepancyId"))
          const shown = yield* done("discrepancies", "show", id)
          assert.include(shown[1], "booked 5, counted 3, tolerance 0")
          assert.include(shown.at(-1), `holdfast discrepancies resolve ${id} --reason`)
          assert.deepStrictEqual(yield* done("discrepancies", "resolve", id, "--reason", "two broke"), [
            `Resolved ${id}`
          ])
          assert.deepStrictEqual(yield* json("discrepancies", "resolve", id, "--reason", "again"), [
            { discrepancyId: id, applied: false }
          ])
          assert.deepStrictEqual(yield* done("discrepancies", "list"), ["There are no discrepancies."])
          const [closed] = yield* json("discrepancies", "list", "--all", "--kind", "COUNT_DIFFERENCE")
          assert.deepInclude(closed, { status: "RESOLVED", reason: "two broke" })
          assert.match(String(pick(closed, "closedBy")), /^cli:./)
          const other = yield* merchant
          const theirs = yield* commandsOf(other.merchantId).holdfast("discrepancies", "show", id)
          assert.strictEqual(theirs.code, 1)
          assert.include(theirs.complaints[0], "NOT_FOUND: No such discrepancy")
          const unknown = yield* holdfast("confirm", fresh("order"))
          assert.strictEqual(unknown.code, 1)
          assert.include(unknown.complaints[0], "NOT_FOUND: No such reservation")
          const damaged = yield* json("adjust", "cup", "RETURN", "1", "--condition", "DAMAGED")
          assert.strictEqual(pick(damaged[0], "unallocatableQuantity"), 1)
          const refused = yield* holdfast("adjust", "cup", "DAMAGE", "1", "--condition", "DAMAGED")
          assert.include(refused.complaints.join("\n"), "condition is of a RETURN only")
          const nothing = yield* holdfast("adjust", "cup", "DAMAGE", "0")
          assert.include(nothing.complaints.join("\n"), "must be at least 1 (only a CORRECTION may count 0)")
        }),
      patience
    )
  }
)
