import { assert, describe, it } from "@effect/vitest"
import type { CancelOrder, ReturnGoods } from "../../../src/services/kernel/commands/orders.ts"
import type { EnsureItem } from "../../../src/services/kernel/commands/catalog.ts"
import type { SaleLine } from "../../../src/services/kernel/commands/sales.ts"
import { saleLineKey, saleStockKey } from "../../../src/services/kernel/trackingKeys.ts"
import { Desk, epoch, merchantId, variant, decide } from "../../support/books.ts"

// Goal: every sentence of CONTRACTS section 5 about the topics of orders and the catalogue, and of section 2 about paid
// sales and cancelled orders, has an example. Method: commands played one by one over tables in memory.

const deskWith = (...variantIds: ReadonlyArray<string>): Desk => {
  const desk = new Desk()
  for (const productVariantId of ["v", ...variantIds]) {
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId })
  }
  desk.post({ _tag: "EnsureLocation", locationId: "north" })
  return desk
}
const receipt = (
  quantity: number,
  given: { readonly locationId?: string; readonly lotNumber?: string; readonly lotExpiresAt?: number } = {},
  variantId = "v"
) => ({
  _tag: "AdjustStock" as const,
  changeType: "RECEIPT" as const,
  item: variant(variantId),
  quantity,
  ...given
})
const saleByHand = (quantity: number, reference?: string, variantId = "v") => ({
  _tag: "AdjustStock" as const,
  changeType: "SALE" as const,
  item: variant(variantId),
  quantity,
  orderId: "o",
  reference
})
const reserving = (
  lines: Readonly<Record<string, number>>,
  given: { readonly locationId?: string } = {}
) => ({
  _tag: "ReserveStock" as const,
  orderId: "o",
  kind: "ORDER" as const,
  lines: Object.entries(lines).map(([variantId, quantity]) => ({ item: variant(variantId), quantity })),
  expiresInSeconds: 600,
  ...given
})
const confirming = { _tag: "ConfirmReservation", orderId: "o" } as const
const asked = (reservationId?: string) => ({ _tag: "ConfirmOrder" as const, orderId: "o", reservationId })
const releasing = { _tag: "ReleaseReservation", orderId: "o", reason: "RELEASED" } as const
const paid = (...lines: ReadonlyArray<SaleLine>) => ({ _tag: "RecordSale" as const, orderId: "o", lines })
const line = (quantity: number, given: Partial<SaleLine> = {}): SaleLine => ({
  productVariantId: "v",
  quantity,
  ...given
})
const created = (lines: Readonly<Record<string, number>>, reservationId?: string) => ({
  _tag: "ReceiveOrder" as const,
  orderId: "o",
  lines: Object.entries(lines).map(([productVariantId, quantity]) => ({ productVariantId, quantity })),
  reservationId,
  expiresInSeconds: 1800
})
const cancelling = (reason: CancelOrder["reason"] = "CANCELLED", messageId?: string) => ({
  _tag: "CancelOrder" as const,
  orderId: "o",
  reason,
  messageId
})
const returned = (quantity: number, given: Partial<ReturnGoods> = {}) => ({
  _tag: "ReturnGoods" as const,
  messageId: "m1",
  orderId: "o",
  lines: [{ productVariantId: "v", quantity }],
  ...given
})
const variantCreated = (given: Partial<EnsureItem> = {}) => ({
  _tag: "EnsureItem" as const,
  kind: "PRODUCT" as const,
  productVariantId: "v",
  keepsDeletion: true,
  ...given
})
const variantDeleted = { _tag: "DeleteItem", productVariantId: "v" } as const

const reserveAndExpire = (desk: Desk, quantity: number): string => {
  const { reservationId } = desk.post(reserving({ v: quantity })).reservation
  desk.pass(601)
  desk.post({ _tag: "ExpireReservation", orderId: "o", reservationId })
  return reservationId
}
const answersOf = (desk: Desk) =>
  desk.store.events
    .filter(({ key }) => key === "o")
    .map(({ data, type }) => [
      type.replace("inventory.", ""),
      data["reservationId"],
      data["reason"],
      data["items"]
    ])
const keysOf = (desk: Desk) => [...desk.store.tracking.values()].map(({ trackingKey }) => trackingKey)

describe("a paid sale", () => {
  it("is sold from what the order holds", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving({ v: 3 }))
    assert.deepInclude(desk.post(paid(line(3))), { applied: 1, repeated: 0, changed: 0 })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    assert.deepStrictEqual(desk.statuses("o"), ["CONFIRMED"])
  })

  it("sells what was paid of it and releases the rest", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, {}, "w"))
    desk.post(reserving({ v: 3, w: 2 }))
    desk.post(paid(line(1)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 4, 0, 0]])
    assert.deepStrictEqual(desk.balances("w"), [["default", "", 5, 0, 0]])
    assert.deepStrictEqual(desk.statuses("o"), ["CONFIRMED"])
  })

  it("deducts directly what exceeds what the order holds", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving({ v: 3 }))
    desk.post(paid(line(4)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 1, 0, 0]])
    assert.deepStrictEqual(
      desk.reservations("o").map(({ kind, lines }) => [kind, lines.map(({ sold }) => sold)]),
      [
        ["ORDER", [3]],
        ["SALE", [1]]
      ]
    )
  })

  it("was sold where it says, and what the order holds elsewhere is given back", () => {
    for (const held of [2, 3]) {
      const desk = deskWith()
      desk.post(receipt(5))
      desk.post(receipt(5, { locationId: "north" }))
      desk.post(reserving({ v: held }))
      desk.post(paid(line(2, { locationId: "north" })))
      assert.deepStrictEqual(desk.balances("v"), [
        ["default", "", 5, 0, 0],
        ["north", "", 3, 0, 0]
      ])
      assert.deepStrictEqual(desk.statuses("o"), ["CONFIRMED"])
    }
  })

  it("was sold where it says, below zero if need be, and not from what the order holds elsewhere", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving({ v: 2 }))
    desk.post(paid(line(2, { locationId: "shop" })))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 5, 0, 0],
      ["shop", "", -2, 0, 0]
    ])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["NEGATIVE_STOCK"])
    assert.deepInclude(desk.post(confirming), { applied: false, status: "CONFIRMED" })
  })

  it("takes what is held at its location first, and lines that name none take the rest", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(receipt(5, { locationId: "north" }))
    desk.post(reserving({ v: 3 }))
    desk.post(paid(line(2), line(1, { locationId: "north" })))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 0, 0, 0],
      ["north", "", 4, 0, 0]
    ])
  })

  it("counts lines of nothing as nothing, and the others as what they are", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving({ v: 3 }))
    const none = line(0, { productVariantId: "ghost", locationId: "nowhere" })
    assert.deepInclude(desk.post(paid(none)), { applied: 0, repeated: 0, changed: 0 })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 3, 0]])
    assert.deepInclude(desk.post(paid(none, line(3))), { applied: 1, repeated: 0, changed: 0 })
    assert.deepInclude(desk.post(paid(line(0))), { applied: 0, repeated: 0, changed: 0 })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
    assert.isFalse(
      [...desk.store.items.values()].some(({ productVariantId }) => productVariantId === "ghost")
    )
  })

  it("told over HTTP and by message is one sale, and names what nobody has created", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const reported = (...lines: ReadonlyArray<SaleLine>) => ({
      ...paid(...lines),
      _tag: "ReportSale" as const
    })
    assert.deepInclude(desk.refusal(reported(line(1), line(1, { productVariantId: "ghost" }))), {
      _tag: "ItemNotFound",
      items: ["ghost"]
    })
    assert.strictEqual(desk.refusal(reported(line(1, { locationId: "nowhere" })))._tag, "LocationNotFound")
    assert.deepInclude(desk.post(reported(line(7))), { applied: 1, repeated: 0 })
    assert.deepInclude(desk.post(paid(line(7))), { applied: 0, repeated: 1 })
    assert.deepInclude(desk.post(reported(line(7))), { applied: 0, repeated: 1 })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", -2, 0, 0]])
  })

  it("goes below zero if need be, with discrepancies, and is never refused", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post({ ...reserving({ v: 2 }), orderId: "other" })
    desk.post(paid(line(1)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 1, 2, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
    desk.post({ ...paid(line(4)), orderId: "third" })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", -3, 2, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["NEGATIVE_STOCK", "OVERCOMMITTED"])
  })

  it("is taken from what can be sold in picking order first, then from what is there, then from the unnamed lot", () => {
    const desk = deskWith()
    const late = { lotNumber: "A", lotExpiresAt: epoch + 900_000 }
    desk.post(receipt(2, late))
    desk.post(receipt(3, { lotNumber: "B" }))
    desk.post(receipt(4, { locationId: "north" }))
    desk.post({ ...reserving({ v: 5 }), orderId: "other" })
    desk.post(paid(line(5)))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "A", 1, 2, 0],
      ["default", "B", 3, 3, 0],
      ["north", "", 0, 0, 0]
    ])
    desk.post({ ...paid(line(6)), orderId: "third" })
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "A", 0, 2, 0],
      ["default", "B", 0, 3, 0],
      ["north", "", 0, 0, 0],
      ["default", "", -2, 0, 0]
    ])
  })

  it("of a given location is taken there and nowhere else", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(receipt(1, { locationId: "north" }))
    desk.post(paid(line(3, { locationId: "north" })))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 9, 0, 0],
      ["north", "", -2, 0, 0]
    ])
  })

  it("of what the order holds at the given location is sold from there before another", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(receipt(2, { locationId: "north" }))
    desk.post(reserving({ v: 4 }))
    desk.post(paid(line(1), line(2, { locationId: "north" })))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 1, 0, 0],
      ["north", "", 0, 0, 0]
    ])
  })

  it("of an expired lot is sold with a discrepancy", () => {
    const desk = deskWith()
    desk.post(receipt(2, { lotNumber: "A", lotExpiresAt: epoch + 1_000 }))
    desk.pass(2)
    desk.post(paid(line(1)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "A", 1, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["EXPIRED_LOT_SOLD"])
  })

  it("of an expired reservation is a direct one, and the reservation stays EXPIRED", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    reserveAndExpire(desk, 3)
    desk.post({ ...reserving({ v: 3 }), orderId: "other" })
    desk.post(paid(line(3)))
    assert.deepStrictEqual(desk.statuses("o"), ["EXPIRED", "CONFIRMED"])
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 0, 3, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
  })

  it("of a reservation that is due and not swept is sold from it", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    desk.post(reserving({ v: 3 }))
    desk.pass(601)
    desk.post(paid(line(3)))
    assert.deepStrictEqual(desk.statuses("o"), ["CONFIRMED"])
  })

  it("has its effect once, however often it is told", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(paid(line(2), line(1, { saleOrderItemId: "i" })))
    assert.deepInclude(desk.post(paid(line(1, { saleOrderItemId: "i" }), line(2))), {
      applied: 0,
      repeated: 2
    })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 6, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
  })

  it("told again does not touch what the order holds anew", () => {
    const desk = deskWith("w")
    desk.post(receipt(9))
    desk.post(receipt(9, {}, "w"))
    desk.post(paid(line(2)))
    desk.post(reserving({ w: 1 }))
    desk.post(paid(line(2)))
    assert.deepStrictEqual(desk.statuses("o"), ["CONFIRMED", "PENDING"])
  })

  it("sums lines of the same key before it looks whether they are known", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(paid(line(1), line(2), line(1, { locationId: "north" })))
    assert.deepInclude(desk.post(paid(line(3))), { applied: 0, repeated: 1, changed: 0 })
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 6, 0, 0],
      ["north", "", -1, 0, 0]
    ])
  })

  it("told with another quantity opens a discrepancy and sells nothing", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(paid(line(2, { saleOrderItemId: "i" }), line(1)))
    assert.deepInclude(desk.post(paid(line(3, { saleOrderItemId: "i" }), line(5))), {
      applied: 0,
      changed: 2
    })
    assert.deepInclude(desk.post(paid(line(3, { saleOrderItemId: "i" }))), { changed: 1 })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 6, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["SALE_LINE_CHANGED", "SALE_LINE_CHANGED"])
    assert.lengthOf(desk.eventsOfType("DiscrepancyOpened"), 2)
  })

  it("sells a further line of the same item, also when it comes in a message of its own", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(paid(line(2, { saleOrderItemId: "i" })))
    desk.post(paid(line(2, { saleOrderItemId: "j" })))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 0, 0]])
  })

  it("notes the lines it has sold, and the stocks it was sold from", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(receipt(3, { locationId: "north" }))
    desk.post(reserving({ v: 2 }))
    desk.post(paid(line(3, { saleOrderItemId: "i" })))
    const stocks = [desk.stockOf("v"), desk.stockOf("v", "north")]
    assert.includeMembers(keysOf(desk), [
      saleLineKey("o", line(3, { saleOrderItemId: "i" })),
      ...stocks.map(({ stockId }) => saleStockKey("o", stockId))
    ])
  })

  it("is answered in its own second run as in the first, without a second effect", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(paid(line(1, { saleOrderItemId: "i" })))
    const posting = desk.posting(
      paid(line(1, { saleOrderItemId: "i" }), line(2), line(4, { locationId: "south" }))
    )
    const [first] = desk.batch(posting)
    assert.deepStrictEqual(decide(desk.store.open([posting], desk.now), posting), first)
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 6, 0, 0],
      ["south", "", -4, 0, 0]
    ])
  })

  it("creates the merchant, the items and the locations that it is the first to name", () => {
    const desk = new Desk()
    desk.post(
      paid(
        { productVariantId: "new", quantity: 2, locationId: "bar" },
        { productVariantId: "new", quantity: 1 }
      )
    )
    assert.deepStrictEqual(desk.balances("new"), [
      ["bar", "", -2, 0, 0],
      ["default", "", -1, 0, 0]
    ])
    assert.strictEqual(desk.item("new").status, "AWAITING_INITIAL_STOCK")
  })

  it("of an item that is not stocked moves nothing and is sold once", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "tea", stocked: false })
    desk.post(paid({ productVariantId: "tea", quantity: 2 }))
    desk.post(paid({ productVariantId: "tea", quantity: 2 }))
    assert.deepStrictEqual(desk.balances("tea"), [])
    assert.deepStrictEqual(
      desk.reservations("o").map(({ lines }) => lines.map(({ sold }) => sold)),
      [[2]]
    )
    assert.isFalse(desk.post(saleByHand(2, undefined, "tea")).applied)
  })

  it("of a discontinued or deleted item is sold all the same", () => {
    const desk = deskWith("w")
    desk.post(receipt(2, {}, "w"))
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "w", discontinued: true })
    desk.post(variantDeleted)
    desk.post(paid(line(1), { productVariantId: "w", quantity: 2 }))
    assert.deepStrictEqual(desk.balances("w"), [["default", "", 0, 0, 0]])
    // One that is deleted comes back as discontinued: its books are not empty any more.
    assert.deepStrictEqual(desk.balances("v"), [["default", "", -1, 0, 0]])
    assert.deepInclude(desk.item("v"), { deletedAt: null, status: "DISCONTINUED" })
    assert.deepStrictEqual(desk.openDiscrepancies(), ["DISCONTINUED_WITH_STOCK", "NEGATIVE_STOCK"])
  })

  it("refuses what would pass 2^53−1, as everything does", () => {
    const desk = deskWith()
    const lines = Array.from({ length: 9_008 }, () => line(10 ** 12))
    assert.strictEqual(desk.refusal(paid(...lines))._tag, "BalanceOverflow")
    assert.strictEqual(desk.post(paid(line(1))).applied, 1)
  })
})

/** Ten in stock, and an order that holds, held or never reserved three of them. */
const begin = (state: "held" | "expired" | "never reserved"): Desk => {
  const desk = deskWith()
  desk.post(receipt(10))
  if (state === "held") desk.post(reserving({ v: 3 }))
  if (state === "expired") reserveAndExpire(desk, 3)
  return desk
}

describe("an order line is sold once, whichever of the ways sells it", () => {
  const ways = {
    confirm: (desk: Desk) => desk.verdict(confirming),
    "inventory.confirm_requested": (desk: Desk) => desk.verdict(asked()),
    "payment.success": (desk: Desk) => desk.verdict(paid(line(3))),
    "adjust-stock SALE": (desk: Desk) => desk.verdict(saleByHand(3))
  }
  for (const state of ["held", "expired", "never reserved"] as const) {
    for (const [first, sells] of Object.entries(ways)) {
      for (const [second, sellsAgain] of Object.entries(ways)) {
        if (state === "never reserved" && first.includes("confirm")) continue
        it(`${first}, then ${second} (${state})`, () => {
          const desk = begin(state)
          sells(desk)
          assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
          sellsAgain(desk)
          sells(desk)
          assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
          assert.deepStrictEqual(desk.openDiscrepancies(), [])
        })
      }
    }
  }

  it("and what was sold of it before counts for the payment", () => {
    const desk = begin("never reserved")
    desk.post(saleByHand(1, "a"))
    desk.post(saleByHand(1, "b"))
    desk.post(paid(line(3)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
    assert.isFalse(desk.post(saleByHand(1, "c")).applied)
  })

  it("and a payment for less than was sold takes nothing back and sells nothing", () => {
    const desk = begin("held")
    desk.post(confirming)
    desk.post(paid(line(2)))
    desk.post(paid(line(1, { saleOrderItemId: "i" })))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
    desk.post(paid(line(1, { saleOrderItemId: "j" })))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 6, 0, 0]])
  })

  it("and a confirmation takes nothing that the payment left", () => {
    const desk = begin("expired")
    desk.post(paid(line(1)))
    assert.isTrue(desk.post(asked()).confirmed)
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 9, 0, 0]])
    assert.deepStrictEqual(desk.statuses("o"), ["EXPIRED", "CONFIRMED"])
  })

  it("and a reserve after the payment is answered by the sale, not with more stock", () => {
    const desk = begin("never reserved")
    desk.post(paid(line(3)))
    assert.deepInclude(desk.post(reserving({ v: 3 })), { created: false })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
    assert.strictEqual(desk.refusal(releasing)._tag, "ReservationAlreadyConfirmed")
  })

  it("and is sold although the order gave its reservation back", () => {
    const desk = begin("held")
    desk.post(releasing)
    desk.post(paid(line(3)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
    assert.isTrue(desk.post(asked()).confirmed)
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
  })
})

describe("order.created", () => {
  it("reserves for an order that nobody has reserved for, once, and never sells", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { outcome, reservationId } = desk.post(created({ v: 3 }))
    assert.strictEqual(outcome, "RESERVED")
    assert.strictEqual(desk.post(created({ v: 3 })).outcome, "IGNORED")
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 3, 0]])
    assert.deepStrictEqual(
      desk.reservations("o").map((row) => [row.reservationId, row.expiresAt]),
      [[reservationId, desk.now + 1_800_000]]
    )
    assert.deepStrictEqual(answersOf(desk), [])
  })

  it("that cannot be reserved is told to the order service, with what is short", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    assert.deepInclude(desk.post(created({ v: 3, unknown: 1 }, "r")), {
      outcome: "FAILED",
      reason: "INSUFFICIENT_INVENTORY"
    })
    assert.deepStrictEqual(answersOf(desk), [
      [
        "confirmation_failed",
        "r",
        "INSUFFICIENT_INVENTORY",
        [
          { productVariantId: "v", requested: 3, available: 2 },
          { productVariantId: "unknown", requested: 1, available: 0 }
        ]
      ]
    ])
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    assert.strictEqual(desk.item("unknown").status, "AWAITING_INITIAL_STOCK")
    // Once per order, although it might be reserved by now.
    desk.post(receipt(9))
    assert.strictEqual(desk.post(created({ v: 3 })).outcome, "IGNORED")
  })

  it("of a discontinued or deleted item is told to the order service", () => {
    for (const end of [variantDeleted, variantCreated({ discontinued: true })]) {
      const desk = deskWith()
      desk.post(end)
      desk.post(created({ v: 1 }))
      assert.deepStrictEqual(answersOf(desk), [
        [
          "confirmation_failed",
          null,
          "DISCONTINUED_ITEM",
          [{ productVariantId: "v", requested: 1, available: 0 }]
        ]
      ])
    }
  })

  it("is checked against a live reservation: the same items match", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, {}, "w"))
    const { reservationId } = desk.post(reserving({ v: 3, w: 1 })).reservation
    assert.deepInclude(desk.post(created({ w: 1, v: 3 })), { outcome: "MATCHED", reservationId })
    assert.deepStrictEqual(answersOf(desk), [])
  })

  it("matches what is held after a part was given back, and what was sold meanwhile", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(reserving({ v: 3 }))
    desk.post({ ...releasing, line: { item: variant("v"), quantity: 1 } })
    assert.strictEqual(desk.post(created({ v: 2 })).outcome, "MATCHED")
    desk.post({ ...reserving({ v: 3 }), orderId: "p" })
    desk.post({ ...paid(line(4)), orderId: "p" })
    assert.strictEqual(desk.post({ ...created({ v: 4 }), orderId: "p" }).outcome, "MATCHED")
  })

  it("that differs from the live reservation is told to the order service", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    const { reservationId } = desk.post(reserving({ v: 3 })).reservation
    desk.post(created({ v: 2, w: 1 }))
    assert.deepStrictEqual(answersOf(desk), [
      [
        "confirmation_failed",
        reservationId,
        "ITEMS_MISMATCH",
        [
          { productVariantId: "v", requested: 2, available: 3 },
          { productVariantId: "w", requested: 1, available: 0 }
        ]
      ]
    ])
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 3, 0]])
  })

  it("reserves nothing for an order that was sold, or whose reservation is over", () => {
    const sold = deskWith()
    sold.post(receipt(9))
    sold.post(paid(line(2)))
    assert.strictEqual(sold.post(created({ v: 2 })).outcome, "IGNORED")
    assert.deepStrictEqual(sold.balances("v"), [["default", "", 7, 0, 0]])

    const over = deskWith()
    over.post(receipt(9))
    reserveAndExpire(over, 2)
    assert.strictEqual(over.post(created({ v: 2 })).outcome, "IGNORED")
    assert.deepStrictEqual(over.balances("v"), [["default", "", 9, 0, 0]])
  })

  it("of a cancelled order is ignored; after a failed payment it is not", () => {
    for (const reason of ["CANCELLED", "FRAUDULENT", "PAYMENT_FAILED"] as const) {
      const desk = deskWith()
      desk.post(receipt(9))
      desk.post(cancelling(reason))
      const isOver = reason !== "PAYMENT_FAILED"
      assert.strictEqual(desk.post(created({ v: 2 })).outcome, isOver ? "IGNORED" : "RESERVED")
    }
  })
})

describe("inventory.confirm_requested", () => {
  it("sells the reservation and answers every request", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { reservationId } = desk.post(reserving({ v: 3 })).reservation
    desk.post(asked(reservationId))
    desk.post(asked(reservationId))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    assert.deepStrictEqual(
      answersOf(desk).map(([type, id]) => [type, id]),
      [
        ["confirmed", reservationId],
        ["confirmed", reservationId]
      ]
    )
  })

  it("takes the stock of an expired reservation again, or says what is short", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    const reservationId = reserveAndExpire(desk, 3)
    desk.post({ ...reserving({ v: 1 }), orderId: "other" })
    assert.deepInclude(desk.post(asked(reservationId)), { confirmed: false, reason: "RESERVATION_EXPIRED" })
    desk.post({ ...releasing, orderId: "other" })
    assert.deepInclude(desk.post(asked(reservationId)), { confirmed: true, reservationId })
    assert.deepStrictEqual(answersOf(desk), [
      [
        "confirmation_failed",
        reservationId,
        "RESERVATION_EXPIRED",
        [{ productVariantId: "v", requested: 3, available: 2 }]
      ],
      ["confirmed", reservationId, undefined, undefined]
    ])
  })

  it("fails with the reason: not found, released, cancelled", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    desk.post(asked("nobody's"))
    desk.post(reserving({ v: 3 }))
    desk.post(releasing)
    desk.post(asked())
    desk.post(cancelling())
    desk.post(asked())
    assert.deepStrictEqual(
      answersOf(desk).map(([, , reason]) => reason),
      ["RESERVATION_NOT_FOUND", "RESERVATION_CANCELLED", "ORDER_CANCELLED"]
    )
  })
})

describe("a cancelled order", () => {
  for (const reason of ["CANCELLED", "FRAUDULENT", "PAYMENT_FAILED"] as const) {
    it(`gives back what it still holds, once (${reason})`, () => {
      const desk = deskWith()
      desk.post(receipt(5))
      desk.post(reserving({ v: 3 }))
      assert.deepInclude(desk.post(cancelling(reason)), { applied: true, released: 3 })
      assert.deepInclude(desk.post(cancelling(reason)), { applied: false, released: 0 })
      assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 0, 0]])
      assert.deepStrictEqual(desk.statuses("o"), ["CANCELLED"])
      const reasons = desk.eventsOfType("InventoryReleased").map(({ data }) => data["reason"])
      assert.deepStrictEqual(reasons, [reason === "PAYMENT_FAILED" ? "RELEASED" : "CANCELLED"])
    })

    it(`leaves a tombstone, also before it is known, or not (${reason})`, () => {
      const desk = deskWith()
      desk.post(receipt(5))
      desk.post(cancelling(reason))
      const verdict = desk.verdict(reserving({ v: 1 }))
      if (reason === "PAYMENT_FAILED") assert.property(verdict, "answer")
      else assert.deepInclude((verdict as { refusal: object }).refusal, { reason: "ORDER_CANCELLED" })
    })
  }

  it("told again after a failed payment does not take what the order has reserved anew", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving({ v: 3 }))
    desk.post(cancelling("PAYMENT_FAILED"))
    desk.post(reserving({ v: 3 }))
    desk.post(cancelling("PAYMENT_FAILED"))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 3, 0]])
  })

  it("releases what is held at that moment for each failed payment, once a message", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    for (const message of ["first", "second"]) {
      desk.post(reserving({ v: 3 }))
      assert.deepInclude(desk.post(cancelling("PAYMENT_FAILED", message)), { applied: true, released: 3 })
      assert.deepInclude(desk.post(cancelling("PAYMENT_FAILED", message)), { applied: false, released: 0 })
    }
    desk.post(reserving({ v: 3 }))
    desk.post(cancelling("PAYMENT_FAILED", "second"))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 3, 0]])
  })

  it("that has sent everything back is closed by that, however it came back", () => {
    const back = [
      [returned(1), returned(1, { messageId: "m2" })],
      [
        { ...saleByHand(1), changeType: "RETURN" as const },
        { ...saleByHand(1), changeType: "RETURN" as const }
      ]
    ]
    for (const [first, second] of back) {
      const desk = deskWith()
      desk.post(receipt(5))
      desk.post(paid(line(2)))
      desk.post(cancelling())
      desk.post(first!)
      assert.deepStrictEqual(desk.openDiscrepancies(), ["CANCELLED_AFTER_SALE"])
      desk.post(second!)
      assert.deepStrictEqual(desk.openDiscrepancies(), [])
      assert.lengthOf(desk.eventsOfType("DiscrepancyClosed"), 1)
      desk.post(paid(line(1, { saleOrderItemId: "late" })))
      assert.deepStrictEqual(desk.openDiscrepancies(), ["CANCELLED_AFTER_SALE"])
    }
  })

  it("whose goods came back before the sale was told is no discrepancy", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(cancelling())
    desk.post(returned(2))
    assert.deepStrictEqual(desk.openDiscrepancies(), ["RETURN_EXCEEDS_SALE"])
    desk.post(paid(line(2)))
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 0, 0]])
  })

  it("that was sold is not restocked: a discrepancy says so, in whatever order sale and cancellation are told", () => {
    const sales = [[paid(line(2))], [reserving({ v: 2 }), confirming], [saleByHand(2)]] as const
    for (const commands of sales) {
      const desk = deskWith()
      desk.post(receipt(5))
      for (const command of commands) desk.post(command)
      desk.post(cancelling())
      desk.post(cancelling("FRAUDULENT"))
      assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 0, 0]])
      assert.deepStrictEqual(desk.openDiscrepancies(), ["CANCELLED_AFTER_SALE"])
    }
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(cancelling())
    desk.post(paid(line(2)))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["CANCELLED_AFTER_SALE"])
  })

  it("that has sent everything back is no discrepancy", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(paid(line(2)))
    desk.post(returned(2))
    desk.post(cancelling())
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
  })

  it("is resolved by hand, and stays so when it is told again", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(paid(line(2)))
    desk.post(cancelling())
    const { discrepancyId } = [...desk.store.discrepancies.values()][0]!
    assert.isTrue(desk.post({ _tag: "ResolveDiscrepancy", discrepancyId, reason: "refunded" }).resolved)
    desk.post(cancelling())
    desk.post(paid(line(2)))
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
  })
})

describe("goods that come back", () => {
  it("go to the stocks that the order was sold from, once per message", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(receipt(3, { locationId: "north" }))
    desk.post(paid(line(3)))
    assert.isTrue(desk.post(returned(2)).applied)
    assert.isFalse(desk.post(returned(2)).applied)
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 1, 0, 0],
      ["north", "", 2, 0, 0]
    ])
    desk.post(returned(1, { messageId: "m2" }))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 1, 0, 0],
      ["north", "", 3, 0, 0]
    ])
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
  })

  it("beyond what was sold go to the default location, with a discrepancy", () => {
    const desk = deskWith()
    desk.post(returned(2))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), ["RETURN_EXCEEDS_SALE"])
  })

  it("without an order go to the default location; unknown items are created", () => {
    const desk = new Desk()
    desk.post({ _tag: "ReturnGoods", messageId: "m", lines: [{ productVariantId: "new", quantity: 2 }] })
    assert.deepStrictEqual(desk.balances("new"), [["default", "", 2, 0, 0]])
    assert.strictEqual(desk.item("new").status, "IN_STOCK")
    assert.deepStrictEqual(
      desk.store.ledger.map(({ source, type }) => [type, source]),
      [["RETURN", "ORDER"]]
    )
  })

  it("of a deleted item bring it back as discontinued, with a discrepancy", () => {
    const desk = deskWith()
    desk.post(variantDeleted)
    desk.post(returned(1, { orderId: undefined }))
    assert.deepInclude(desk.item("v"), { deletedAt: null, status: "DISCONTINUED", onHand: 1 })
    assert.deepStrictEqual(desk.openDiscrepancies(), ["DISCONTINUED_WITH_STOCK"])
  })
})

describe("a product variant", () => {
  it("awaits its initial stock where none was given, and is out of stock where it is 0", () => {
    const desk = new Desk()
    desk.post(variantCreated())
    assert.strictEqual(desk.item("v").status, "AWAITING_INITIAL_STOCK")
    desk.post(variantCreated({ initialStock: 0 }))
    assert.strictEqual(desk.item("v").status, "OUT_OF_STOCK")
    assert.deepStrictEqual(
      desk.eventsOfType("StockStatusChanged").map(({ data }) => data["statusAfter"]),
      ["OUT_OF_STOCK"]
    )
  })

  it("receives its initial stock once, also after it was sold", () => {
    const desk = new Desk()
    desk.post(paid(line(2)))
    desk.post(variantCreated({ initialStock: 5 }))
    desk.post(variantCreated({ initialStock: 5 }))
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 0, 0]])
    assert.deepStrictEqual(desk.openDiscrepancies(), [])
    assert.deepInclude(desk.store.ledger.at(-1), { type: "RECEIPT", source: "CATALOG", onHandDelta: 5 })
  })

  it("that is discontinued with stock left is a discrepancy until the stock is gone or it is sold again", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(variantCreated({ discontinued: true }))
    assert.strictEqual(desk.item("v").status, "DISCONTINUED")
    assert.deepStrictEqual(desk.openDiscrepancies(), ["DISCONTINUED_WITH_STOCK"])
    const { discrepancyId } = [...desk.store.discrepancies.values()][0]!
    const resolving = { _tag: "ResolveDiscrepancy", discrepancyId, reason: "seen" } as const
    assert.strictEqual(desk.refusal(resolving)._tag, "DiscrepancyPersists")
    desk.post(variantCreated({ discontinued: false }))
    assert.deepStrictEqual([desk.item("v").status, desk.openDiscrepancies()], ["IN_STOCK", []])
    desk.post(variantCreated({ discontinued: true }))
    desk.post(paid(line(2)))
    assert.deepStrictEqual([desk.item("v").status, desk.openDiscrepancies()], ["DISCONTINUED", []])
    assert.lengthOf(desk.eventsOfType("DiscrepancyClosed"), 2)
  })

  it("that is deleted without stock is gone; with stock it is discontinued, with a discrepancy", () => {
    const gone = deskWith()
    assert.strictEqual(gone.post(variantDeleted).outcome, "DELETED")
    assert.strictEqual(gone.refusal(reserving({ v: 1 }))._tag, "ItemNotFound")

    const kept = deskWith()
    kept.post(receipt(2))
    assert.strictEqual(kept.post(variantDeleted).outcome, "DISCONTINUED")
    assert.strictEqual(kept.post(variantDeleted).outcome, "DISCONTINUED")
    assert.deepStrictEqual(
      [kept.item("v").status, kept.openDiscrepancies()],
      ["DISCONTINUED", ["DISCONTINUED_WITH_STOCK"]]
    )
  })

  it("ends the same whichever of its creation and its deletion is told first", () => {
    for (const initialStock of [undefined, 0, 4]) {
      const ends = [
        [variantCreated({ initialStock, sku: "s" }), variantDeleted],
        [variantDeleted, variantCreated({ initialStock, sku: "s" })],
        [variantDeleted, variantCreated({ initialStock, sku: "s" }), variantDeleted],
        [
          variantCreated({ initialStock, sku: "s" }),
          variantDeleted,
          variantCreated({ initialStock, sku: "s" })
        ],
        [variantDeleted, variantCreated({ initialStock, discontinued: false })]
      ].map((commands) => {
        const desk = new Desk()
        for (const command of commands) desk.post(command)
        const { deletedAt, discontinued, onHand, status } = desk.item("v")
        return { isDeleted: deletedAt !== null, discontinued, onHand, status, open: desk.openDiscrepancies() }
      })
      const stock = initialStock ?? 0
      for (const end of ends)
        assert.deepStrictEqual(
          end,
          {
            isDeleted: stock === 0,
            discontinued: stock > 0,
            onHand: stock,
            status:
              stock > 0
                ? "DISCONTINUED"
                : initialStock === undefined
                  ? "AWAITING_INITIAL_STOCK"
                  : "OUT_OF_STOCK",
            open: stock > 0 ? ["DISCONTINUED_WITH_STOCK"] : []
          },
          `${initialStock}`
        )
    }
  })

  it("that is deleted before it is known is remembered", () => {
    const desk = new Desk()
    assert.strictEqual(desk.post(variantDeleted).outcome, "REMEMBERED")
    desk.post(variantCreated({ sku: "s" }))
    assert.strictEqual(desk.refusal(reserving({ v: 1 }))._tag, "ItemNotFound")
  })

  it("that was deleted is brought back over HTTP, and then follows its messages again", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(variantDeleted)
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v" })
    assert.strictEqual(desk.item("v").status, "IN_STOCK")
    desk.post(variantCreated({ discontinued: true }))
    desk.post(variantCreated({ discontinued: false }))
    assert.strictEqual(desk.item("v").status, "IN_STOCK")
    // In one batch, too.
    desk.batch(
      desk.posting(variantDeleted),
      desk.posting({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v" })
    )
    desk.post(variantCreated({ discontinued: false }))
    assert.strictEqual(desk.item("v").status, "IN_STOCK")
  })

  it("that is deleted gives its sku to the next one, and does not want it back", () => {
    const desk = new Desk()
    desk.post(variantCreated({ sku: "s" }))
    desk.post(variantCreated({ productVariantId: "w" }))
    desk.post(variantDeleted)
    desk.post(variantCreated({ productVariantId: "w", sku: "s" }))
    desk.post(variantCreated({ sku: "s" }))
    assert.deepStrictEqual([desk.item("v").sku, desk.item("w").sku], [null, "s"])
  })

  it("that was captured is remembered with its merchant", () => {
    const desk = new Desk()
    desk.post(variantCreated({ capturedRow: "v" }))
    assert.deepStrictEqual([...desk.store.captured], [["v", merchantId]])
  })
})

describe("a merchant", () => {
  it("is created with its default location, once", () => {
    const desk = new Desk()
    desk.post({ _tag: "EnsureMerchant" })
    desk.post({ _tag: "EnsureMerchant" })
    assert.deepStrictEqual(
      [...desk.store.locations.values()].map(({ isDefault, locationId }) => [locationId, isDefault]),
      [["default", true]]
    )
  })
})
