import { assert, describe, it } from "@effect/vitest"
import type { AdjustStock } from "../../../src/services/kernel/commands/stock.ts"
import type { ItemRef } from "../../../src/schema/Item.ts"
import { envelopeOf } from "../../../src/schema/Event.ts"
import { orderCancelledKey } from "../../../src/services/kernel/trackingKeys.ts"
import { Desk, epoch, merchantId, postingId, snapshotOf, variant, decide } from "../../support/books.ts"

// Goal: every sentence of CONTRACTS section 2 ("Promises and facts", "Life of a reservation"), of section 1 ("Where it
// is taken from") and of 4.2 (`adjust-stock`) that the kernel holds today has an example. Method: commands played one
// by one over tables in memory. Found by random histories, kept here: those that say what went wrong.

/** A desk where `v` (and whatever else is named) is stocked, and `north` is a second location. */
const deskWith = (...variantIds: ReadonlyArray<string>): Desk => {
  const desk = new Desk()
  for (const productVariantId of ["v", ...variantIds]) {
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId })
  }
  desk.post({ _tag: "EnsureLocation", locationId: "north" })
  return desk
}

type Adjusting = Partial<Omit<AdjustStock, "_tag" | "changeType" | "quantity">>
const adjusting = (
  changeType: AdjustStock["changeType"],
  quantity: number,
  given: Adjusting = {}
): AdjustStock => ({
  _tag: "AdjustStock",
  changeType,
  item: variant("v"),
  quantity,
  ...given
})
const receipt = (quantity: number, given?: Adjusting) => adjusting("RECEIPT", quantity, given)
const sale = (quantity: number, given?: Adjusting) => adjusting("SALE", quantity, given)
const correction = (quantity: number, given?: Adjusting) => adjusting("CORRECTION", quantity, given)
const giveBack = (quantity: number, given?: Adjusting) => adjusting("RETURN", quantity, given)

const minutes = 60
type Wanted = readonly [variantId: string, quantity: number, stockId?: string]
const reserving = (
  lines: ReadonlyArray<Wanted>,
  given: { readonly orderId?: string; readonly locationId?: string; readonly expiresInSeconds?: number } = {}
) => ({
  _tag: "ReserveStock" as const,
  orderId: "o",
  kind: "ORDER" as const,
  lines: lines.map(([variantId, quantity, stockId]) => ({ item: variant(variantId), quantity, stockId })),
  expiresInSeconds: 10 * minutes,
  ...given
})
const reservingVariant = (variantId: string, quantity: number, orderId = "o") => ({
  ...reserving([[variantId, quantity]], { orderId }),
  kind: "VARIANT" as const
})
const confirming = (reservationId?: string) => ({
  _tag: "ConfirmReservation" as const,
  orderId: "o",
  reservationId
})
const releasing = (line?: { readonly item: ItemRef; readonly quantity?: number }) => ({
  _tag: "ReleaseReservation" as const,
  orderId: "o",
  line,
  reason: "RELEASED" as const
})
const releasingPart = (quantity: number, variantId = "v") => releasing({ item: variant(variantId), quantity })
const extending = (expiresInSeconds: number) => ({
  _tag: "ExtendReservation" as const,
  orderId: "o",
  expiresInSeconds
})
const expiring = (reservationId: string) => ({
  _tag: "ExpireReservation" as const,
  orderId: "o",
  reservationId
})

/** Reserves and lets the sweeper find it due. */
const reserveAndExpire = (desk: Desk, quantity: number): string => {
  const { reservation } = desk.post(reserving([["v", quantity]]))
  desk.pass(10 * minutes)
  assert.isTrue(desk.post(expiring(reservation.reservationId)).expired)
  return reservation.reservationId
}

const soldOf = (desk: Desk, orderId = "o"): number =>
  desk
    .reservations(orderId)
    .flatMap(({ lines }) => lines)
    .reduce((sum, { sold }) => sum + sold, 0)

describe("where it is taken from", () => {
  it("takes from the given location and nowhere else", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(2, { locationId: "north" }))
    const refusal = desk.refusal(reserving([["v", 3]], { locationId: "north" }))
    assert.deepInclude(refusal, { _tag: "InsufficientStock" })
    assert.deepEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", requested: 3, available: 2 }
    ])
    desk.post(reserving([["v", 2]], { locationId: "north" }))
    assert.deepEqual(desk.balances("v"), [
      ["default", "", 5, 0, 0],
      ["north", "", 2, 2, 0]
    ])
  })

  it("takes from the default location first, then from the others in order of their creation", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureLocation", locationId: "a-third" })
    desk.post(receipt(1, { locationId: "a-third" }))
    desk.post(receipt(1, { locationId: "north" }))
    desk.post(receipt(1))
    const { reservation } = desk.post(reserving([["v", 2]]))
    assert.deepEqual(
      reservation.lines.map(({ locationId }) => locationId),
      ["default", "north"]
    )
  })

  it("splits over the other locations what one cannot fill", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    desk.post(receipt(4, { locationId: "north" }))
    const { reservation } = desk.post(reserving([["v", 5]]))
    assert.deepEqual(
      reservation.lines.map(({ locationId, quantity }) => [locationId, quantity]),
      [
        ["default", 3],
        ["north", 2]
      ]
    )
  })

  it("takes first what expires first inside a location, lots without expiry last and oldest first", () => {
    const desk = deskWith()
    const lot = (lotNumber: string, days?: number) =>
      desk.post(
        receipt(1, { lotNumber, lotExpiresAt: days === undefined ? undefined : epoch + days * 86_400_000 })
      )
    lot("never, first")
    desk.pass(1)
    lot("never, second")
    lot("in nine days", 9)
    lot("in two days", 2)
    const { reservation } = desk.post(reserving([["v", 4]]))
    assert.deepEqual(
      reservation.lines.map(({ lotNumber }) => lotNumber),
      ["in two days", "in nine days", "never, first", "never, second"]
    )
  })

  it("sells nothing of a lot past its expiry", () => {
    const desk = deskWith()
    desk.post(receipt(5, { lotNumber: "L", lotExpiresAt: epoch + 60_000 }))
    desk.pass(59)
    assert.isTrue(desk.post(sale(1)).applied)
    desk.pass(1)
    const refusal = desk.refusal(sale(1))
    assert.deepEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", requested: 1, available: 0 }
    ])
    const { item } = desk.post(receipt(1, { lotNumber: "M" }))
    assert.deepInclude(item, { quantity: 5, availableQuantity: 1 })
  })

  it("confirms what is held in a lot past its expiry, with a discrepancy", () => {
    const desk = deskWith()
    desk.post(receipt(5, { lotNumber: "L", lotExpiresAt: epoch + 60_000 }))
    desk.post(reserving([["v", 2]]))
    desk.pass(60)
    assert.isTrue(desk.post(confirming()).applied)
    assert.deepEqual(desk.balances("v"), [["default", "L", 3, 0, 0]])
    assert.deepEqual(desk.openDiscrepancies(), ["EXPIRED_LOT_SOLD"])
  })

  it("takes a line that names its stock from that stock, before lines that take from any", () => {
    const desk = deskWith()
    desk.post(receipt(2, { lotNumber: "early", lotExpiresAt: epoch + 86_400_000 }))
    desk.post(receipt(2, { lotNumber: "late" }))
    const early = desk.stockOf("v", "default", "early")
    desk.post(
      reserving([
        ["v", 2],
        ["v", 2, early.stockId]
      ])
    )
    assert.deepEqual(desk.balances("v"), [
      ["default", "early", 2, 2, 0],
      ["default", "late", 2, 2, 0]
    ])
    assert.strictEqual(
      desk.refusal(reserving([["v", 1, postingId(epoch, 0)]], { orderId: "p" }))._tag,
      "StockNotFound"
    )
  })
})

describe("promises", () => {
  it("refuses all lines when one is short, names every short line, and changes nothing", () => {
    const desk = deskWith("w", "x")
    desk.post(receipt(5))
    desk.post(receipt(1, { item: variant("w") }))
    const before = JSON.stringify([...desk.store.stocks.values()])
    const refusal = desk.refusal(
      reserving([
        ["v", 5],
        ["w", 2],
        ["x", 1]
      ])
    )
    assert.sameDeepMembers("items" in refusal ? [...refusal.items] : [], [
      { productVariantId: "w", requested: 2, available: 1 },
      { productVariantId: "x", requested: 1, available: 0 }
    ])
    assert.strictEqual(JSON.stringify([...desk.store.stocks.values()]), before)
    assert.deepEqual(desk.reservations("o"), [])
  })

  it("sums lines for the same item first, under whichever of its names", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", sku: "s" })
    desk.post(receipt(5))
    const twice = {
      ...reserving([]),
      lines: [
        { item: variant("v"), quantity: 3 },
        { item: { sku: "s" }, quantity: 3 }
      ]
    }
    const refusal = desk.refusal(twice)
    assert.deepEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", sku: "s", requested: 6, available: 5 }
    ])
  })

  it("refuses what is unknown, discontinued or at an unknown location", () => {
    const desk = deskWith("old")
    desk.post(receipt(5, { item: variant("old") }))
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "old", discontinued: true })
    const unknown = desk.refusal(
      reserving([
        ["v", 1],
        ["nobody", 1]
      ])
    )
    assert.deepInclude(unknown, { _tag: "ItemNotFound" })
    assert.deepInclude(desk.refusal(reserving([["old", 1]])), {
      _tag: "ReservationFailed",
      reason: "DISCONTINUED_ITEM"
    })
    assert.strictEqual(
      desk.refusal(reserving([["v", 1]], { locationId: "nowhere" }))._tag,
      "LocationNotFound"
    )
  })

  it("does not sell what another order holds", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    desk.post(reserving([["v", 2]]))
    assert.strictEqual(desk.refusal(sale(2, { orderId: "p" }))._tag, "InsufficientStock")
    assert.strictEqual(desk.refusal(reserving([["v", 2]], { orderId: "p" }))._tag, "InsufficientStock")
    desk.post(sale(1, { orderId: "p" }))
  })

  it("reserves and sells an item that is not stocked without moving stock of its own", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "made", stocked: false })
    desk.post(receipt(1))
    const { reservation } = desk.post(
      reserving([
        ["made", 7],
        ["v", 1]
      ])
    )
    assert.sameDeepMembers(
      reservation.lines.map(({ open, productVariantId, stockId }) => [
        productVariantId,
        open,
        stockId === null
      ]),
      [
        ["made", 7, true],
        ["v", 1, false]
      ]
    )
    desk.post(confirming())
    assert.strictEqual(soldOf(desk), 8)
    assert.deepEqual(desk.balances("made"), [])
    assert.isTrue(desk.post(sale(2, { item: variant("made"), orderId: "p" })).applied)
    assert.isFalse(desk.post(sale(2, { item: variant("made"), orderId: "p" })).applied)
  })
})

describe("facts", () => {
  it("records a count below what is promised, and opens a discrepancy until the books are right again", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 4]]))
    desk.post(correction(3))
    assert.deepEqual(desk.balances("v"), [["default", "", 3, 4, 0]])
    assert.deepEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
    assert.isTrue(desk.stockOf("v").discrepancy)
    desk.post(receipt(1))
    assert.deepEqual(desk.openDiscrepancies(), [])
    assert.isFalse(desk.stockOf("v").discrepancy)
    assert.lengthOf(desk.eventsOfType("DiscrepancyOpened"), 1)
    assert.lengthOf(desk.eventsOfType("DiscrepancyClosed"), 1)
  })

  it("takes the balance below zero when what is held is sold and was not there", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 4]]))
    desk.post(correction(1))
    assert.isTrue(desk.post(confirming()).applied)
    assert.deepEqual(desk.balances("v"), [["default", "", -3, 0, 0]])
    assert.deepEqual(desk.openDiscrepancies(), ["NEGATIVE_STOCK"])
    assert.strictEqual(desk.refusal(sale(1))._tag, "InsufficientStock")
    desk.post(receipt(3))
    assert.deepEqual(desk.openDiscrepancies(), [])
  })

  it("opens and closes within one batch as it would over several", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(reserving([["v", 2]]))
    desk.batch(desk.posting(correction(1)), desk.posting(correction(2)), desk.posting(correction(0)))
    assert.deepEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
    desk.batch(desk.posting(correction(2)), desk.posting(correction(1)), desk.posting(correction(2)))
    assert.deepEqual(desk.openDiscrepancies(), [])
  })

  it("adds what is damaged to what cannot be allocated, and leaves the quantity", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { item } = desk.post(adjusting("DAMAGE", 2))
    assert.deepInclude(item, { quantity: 5, unallocatableQuantity: 2, availableQuantity: 3 })
    desk.post(adjusting("DAMAGE", 4))
    assert.deepEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
  })

  it("brings returns of an order back to the stocks that it was sold from", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(receipt(4, { locationId: "north" }))
    desk.post(reserving([["v", 3]]))
    desk.post(confirming())
    desk.post(giveBack(1, { orderId: "o" }))
    desk.post(giveBack(1, { orderId: "o" }))
    assert.deepEqual(desk.balances("v"), [
      ["default", "", 1, 0, 0],
      ["north", "", 3, 0, 0]
    ])
    assert.deepEqual(desk.openDiscrepancies(), [])
  })

  it("takes back more than was sold, where returns without an order go, with a discrepancy", () => {
    const desk = deskWith()
    desk.post(receipt(1, { locationId: "north" }))
    desk.post(sale(1, { orderId: "o" }))
    const { stocks } = desk.post(giveBack(3, { orderId: "o" }))
    assert.sameDeepMembers(
      stocks.map(({ locationId, quantity }) => [locationId, quantity]),
      [
        ["north", 1],
        ["default", 2]
      ]
    )
    assert.deepEqual(desk.openDiscrepancies(), ["RETURN_EXCEEDS_SALE"])
  })

  it("sets the counted quantity of the one stock that is meant, and refuses a count that could mean several", () => {
    const desk = deskWith()
    desk.post(correction(4))
    assert.deepEqual(desk.balances("v"), [["default", "", 4, 0, 0]])
    desk.post(correction(6))
    desk.post(receipt(2, { lotNumber: "L" }))
    desk.post(receipt(2, { lotNumber: "L", locationId: "north" }))
    const refusal = desk.refusal(correction(1))
    assert.lengthOf(refusal._tag === "AmbiguousStock" ? refusal.stocks : [], 3)
    assert.strictEqual(desk.refusal(correction(1, { lotNumber: "L" }))._tag, "AmbiguousStock")
    desk.post(correction(1, { lotNumber: "L", locationId: "north" }))
    assert.deepEqual(desk.balances("v"), [
      ["default", "", 6, 0, 0],
      ["default", "L", 2, 0, 0],
      ["north", "L", 1, 0, 0]
    ])
  })

  it("knows from its first count on that an item has no stock, and not before", () => {
    const desk = deskWith()
    assert.strictEqual(desk.item("v").status, "AWAITING_INITIAL_STOCK")
    desk.post(correction(0))
    assert.strictEqual(desk.item("v").status, "OUT_OF_STOCK")
    assert.deepEqual(desk.store.ledger, [])
  })

  it("refuses a balance past 2^53−1", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    const stock = desk.stockOf("v")
    for (const row of [stock, desk.item("v")]) row.onHand = Number.MAX_SAFE_INTEGER - 5
    assert.strictEqual(desk.refusal(receipt(6))._tag, "BalanceOverflow")
    desk.post(receipt(5))
    // Each stock may hold that much, all of them together may not.
    assert.strictEqual(desk.refusal(receipt(1, { locationId: "north" }))._tag, "BalanceOverflow")
  })

  it("leaves no trace of what it had begun when a balance turns out to be past 2^53−1", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    for (const row of [desk.stockOf("v"), desk.item("v")]) row.onHand = Number.MAX_SAFE_INTEGER
    const posting = desk.posting(receipt(1, { locationId: "north", reference: "r" }))
    const books = desk.store.open([posting], desk.now)
    const before = snapshotOf(books)
    assert.isTrue("refusal" in decide(books, posting))
    assert.strictEqual(snapshotOf(books), before)
  })

  it("refuses damage whose total over all stocks is past 2^53−1", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(receipt(1, { locationId: "north" }))
    Object.assign(desk.stockOf("v"), { unallocatable: Number.MAX_SAFE_INTEGER, discrepancy: true })
    desk.item("v").unallocatable = Number.MAX_SAFE_INTEGER
    assert.strictEqual(desk.refusal(adjusting("DAMAGE", 1, { locationId: "north" }))._tag, "BalanceOverflow")
  })
})

describe("an adjustment is applied once", () => {
  it("under its reference", () => {
    const desk = deskWith()
    assert.isTrue(desk.post(receipt(2, { reference: "delivery/1" })).applied)
    assert.isFalse(desk.post(receipt(2, { reference: "delivery/1" })).applied)
    assert.isTrue(desk.post(receipt(2, { reference: "delivery/2" })).applied)
    assert.strictEqual(desk.item("v").onHand, 4)
  })

  it("for each place, lot and order of one reference: a delivery of two lots is two facts", () => {
    const desk = deskWith()
    const reference = "delivery/1"
    desk.post(receipt(1, { reference, lotNumber: "L" }))
    desk.post(receipt(2, { reference, lotNumber: "M" }))
    desk.post(receipt(4, { reference, lotNumber: "M", locationId: "north" }))
    assert.strictEqual(desk.item("v").onHand, 7)
    desk.post(giveBack(1, { reference: "parcel", orderId: "o" }))
    desk.post(giveBack(1, { reference: "parcel", orderId: "p" }))
    assert.strictEqual(desk.item("v").onHand, 9)
  })

  it("for the item that is meant: the sku of one may be the variant of another", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", sku: "v" })
    assert.isTrue(desk.post(receipt(1, { reference: "r" })).applied)
    assert.isTrue(desk.post(receipt(1, { reference: "r", item: { sku: "v" } })).applied)
  })

  it("whatever characters names are made of", () => {
    const desk = deskWith("y", "x|variant|y")
    desk.post(receipt(5, { item: variant("y") }))
    desk.post(receipt(5, { item: variant("x|variant|y") }))
    assert.isTrue(desk.post(sale(1, { orderId: "a", item: variant("x|variant|y") })).applied)
    assert.isTrue(desk.post(sale(1, { orderId: "a|variant|x", item: variant("y") })).applied)
  })

  it("and a repeat is told so, although the first run has moved the stock past the expected version", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    const counted = correction(7, { reference: "count/1", expectedVersion: 1 })
    assert.isTrue(desk.post(counted).applied)
    assert.isFalse(desk.post(counted).applied)
    const sold = sale(2, { orderId: "o", expectedVersion: 2 })
    assert.isTrue(desk.post(sold).applied)
    assert.isFalse(desk.post(sold).applied)
  })
})

describe("expectedVersion", () => {
  it("is that of the stock, and makes the adjustment compare-and-set", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    const { stocks } = desk.post(correction(5, { expectedVersion: 1 }))
    assert.strictEqual(stocks[0]!.version, 2)
    const refusal = desk.refusal(correction(6, { expectedVersion: 1 }))
    assert.deepInclude(refusal, { _tag: "VersionMismatch", expected: 1, actual: 2, quantity: 5 })
    assert.strictEqual(desk.refusal(sale(1, { expectedVersion: 1 }))._tag, "VersionMismatch")
    assert.strictEqual(desk.refusal(adjusting("DAMAGE", 1, { expectedVersion: 3 }))._tag, "VersionMismatch")
  })

  it("is that of the stock which a receipt goes into, not of the only one that there is", () => {
    const desk = deskWith()
    desk.post(receipt(2, { locationId: "north" }))
    assert.strictEqual(desk.refusal(receipt(1, { expectedVersion: 1 }))._tag, "StockNotFound")
    desk.post(receipt(1))
    desk.post(receipt(1, { expectedVersion: 1 }))
    assert.deepEqual(desk.balances("v"), [
      ["north", "", 2, 0, 0],
      ["default", "", 2, 0, 0]
    ])
  })

  it("holds for what an order sells of its reservation and beyond it together", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 2]]))
    assert.strictEqual(desk.refusal(sale(3, { orderId: "o", expectedVersion: 1 }))._tag, "VersionMismatch")
    desk.post(sale(3, { orderId: "o", expectedVersion: 2 }))
    assert.deepEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
  })
})

describe("an order line is sold once", () => {
  it("a sale of a reserved order lowers quantity and reserved together", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 3]]))
    const { item } = desk.post(sale(3, { orderId: "o" }))
    assert.deepInclude(item, { quantity: 2, reservedQuantity: 0, availableQuantity: 2 })
    assert.deepEqual(desk.statuses("o"), ["CONFIRMED"])
  })

  it("confirm, then adjust-stock: the second says that it was applied already", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 3]]))
    desk.post(confirming())
    assert.isFalse(desk.post(sale(3, { orderId: "o" })).applied)
    assert.strictEqual(desk.item("v").onHand, 2)
  })

  it("adjust-stock, then confirm: the second says that it was confirmed already", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.post(sale(3, { orderId: "o" }))
    assert.deepInclude(desk.post(confirming()), {
      applied: false,
      reservationId: reservation.reservationId
    })
    assert.strictEqual(desk.item("v").onHand, 2)
  })

  it("sold without a reservation once per reference, and refused when short", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    assert.isTrue(desk.post(sale(2, { orderId: "o" })).applied)
    assert.isFalse(desk.post(sale(2, { orderId: "o" })).applied)
    assert.isTrue(desk.post(sale(1, { orderId: "o", reference: "a second parcel" })).applied)
    assert.strictEqual(desk.refusal(sale(3, { orderId: "p" }))._tag, "InsufficientStock")
    assert.strictEqual(desk.item("v").onHand, 2)
  })

  it("sold without a reservation, it is known: reserve, confirm, release and extend answer from that sale", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(sale(3, { orderId: "o" }))
    const { created, reservation } = desk.post(reserving([["v", 3]]))
    assert.isFalse(created)
    assert.strictEqual(reservation.status, "CONFIRMED")
    const told = { applied: false, reservationId: reservation.reservationId }
    assert.deepInclude(desk.post(confirming()), told)
    assert.deepInclude(desk.post(confirming(reservation.reservationId)), told)
    assert.strictEqual(desk.refusal(releasing())._tag, "ReservationAlreadyConfirmed")
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationAlreadyConfirmed")
    assert.deepInclude(desk.refusal(reserving([["v", 4]])), { reason: "OTHER_ITEMS" })
  })

  it("sells beyond the reservation what can be sold, or nothing at all", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 3]]))
    assert.strictEqual(desk.refusal(sale(6, { orderId: "o" }))._tag, "InsufficientStock")
    assert.strictEqual(soldOf(desk), 0)
    desk.post(sale(5, { orderId: "o" }))
    assert.deepEqual(desk.balances("v"), [["default", "", 0, 0, 0]])
  })

  it("a repeat of the reserve is told of the reservation, also when more than it was sold", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.post(sale(5, { orderId: "o" }))
    const again = desk.post(reserving([["v", 3]]))
    assert.isFalse(again.created)
    assert.strictEqual(again.reservation.reservationId, reservation.reservationId)
  })
})

describe("life of a reservation: reserving again", () => {
  it("answers with the same reservation for the same items, in whatever order they are named", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    const first = desk.post(
      reserving([
        ["v", 2],
        ["w", 1]
      ])
    )
    const second = desk.post(
      reserving([
        ["w", 1],
        ["v", 1],
        ["v", 1]
      ])
    )
    assert.isTrue(first.created)
    assert.isFalse(second.created)
    assert.deepEqual(second.reservation, first.reservation)
    desk.post(confirming())
    const third = desk.post(
      reserving([
        ["v", 2],
        ["w", 1]
      ])
    )
    assert.deepInclude(third.reservation, {
      reservationId: first.reservation.reservationId,
      status: "CONFIRMED"
    })
    assert.lengthOf(desk.reservations("o"), 1)
  })

  it("is compared with what the order holds now, and not with what it once asked for", () => {
    for (const again of [reserving([["v", 3]]), reservingVariant("v", 3)]) {
      const desk = deskWith()
      desk.post(receipt(3))
      desk.post(again)
      desk.post(releasingPart(1))
      desk.post(reserving([["v", 1]], { orderId: "other" }))
      assert.deepInclude(desk.refusal(again), { reason: "OTHER_ITEMS" })
      const held = { ...again, lines: [{ item: variant("v"), quantity: 2 }] }
      assert.isFalse(desk.post(held).created)
      desk.post(confirming())
      assert.deepInclude(desk.refusal(again), { reason: "OTHER_ITEMS" })
      assert.deepInclude(desk.post(held).reservation, { status: "CONFIRMED" })
    }
  })

  it("by sku is compared with what is held of the stocks that it names", () => {
    const desk = deskWith()
    for (const lotNumber of ["A", "B"]) desk.post(receipt(3, { lotNumber }))
    const a = desk.stockOf("v", "default", "A").stockId
    const b = desk.stockOf("v", "default", "B").stockId
    desk.post(reserving([["v", 2, a]]))
    assert.isFalse(desk.post(reserving([["v", 2, a]])).created)
    assert.isFalse(desk.post(reserving([["v", 2]])).created)
    assert.deepInclude(desk.refusal(reserving([["v", 2, b]])), { reason: "OTHER_ITEMS" })
  })

  it("of what a paid sale took is compared with what was paid", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 3]]))
    desk.post({ _tag: "RecordSale", orderId: "o", lines: [{ productVariantId: "v", quantity: 2 }] })
    assert.deepInclude(desk.refusal(reserving([["v", 3]])), { reason: "OTHER_ITEMS" })
    const { created, reservation } = desk.post(reserving([["v", 2]]))
    assert.isFalse(created)
    assert.strictEqual(reservation.status, "CONFIRMED")
  })

  it("is not another request because another location is asked for", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(5, { locationId: "north" }))
    const { reservation } = desk.post(reserving([["v", 2]], { locationId: "north" }))
    const again = desk.post(reserving([["v", 2]]))
    assert.isFalse(again.created)
    assert.deepEqual(again.reservation, reservation)
  })

  it("refuses other items while one is PENDING or CONFIRMED: at most one PENDING reservation an order", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { reservation } = desk.post(reserving([["v", 2]]))
    const told = { reason: "OTHER_ITEMS", reservationId: reservation.reservationId }
    assert.deepInclude(desk.refusal(reserving([["v", 3]])), told)
    assert.deepInclude(desk.refusal(reserving([["nobody", 2]])), told)
    desk.post(confirming())
    assert.deepInclude(desk.refusal(reserving([["v", 3]])), told)
  })

  it("holds at most one an order and variant under the variants contract", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    desk.post(reservingVariant("v", 2))
    assert.isTrue(desk.post(reservingVariant("w", 2)).created)
    assert.isFalse(desk.post(reservingVariant("v", 2)).created)
    assert.deepInclude(desk.refusal(reservingVariant("v", 3)), { reason: "OTHER_ITEMS" })
    assert.deepEqual(desk.statuses("o"), ["PENDING", "PENDING"])
  })

  it("makes a new one after CANCELLED and after EXPIRED", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 2]]))
    desk.post(releasing())
    desk.pass(1)
    assert.isTrue(desk.post(reserving([["v", 3]])).created)
    desk.post(releasing())
    desk.pass(1)
    reserveAndExpire(desk, 4)
    assert.isTrue(desk.post(reserving([["v", 5]])).created)
    assert.deepEqual(desk.statuses("o"), ["CANCELLED", "CANCELLED", "EXPIRED", "PENDING"])
    assert.strictEqual(desk.item("v").reserved, 5)
  })

  it("makes way for itself when it is due and no sweeper has been there", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(reserving([["v", 2]]))
    desk.pass(10 * minutes)
    assert.isTrue(desk.post(reserving([["v", 2]])).created)
    assert.deepEqual(desk.statuses("o"), ["EXPIRED", "PENDING"])
    assert.lengthOf(desk.eventsOfType("ReservationExpired"), 1)
  })

  it("is not made anew when the due one was sold in part: that one is CONFIRMED", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.post(sale(2, { orderId: "o" }))
    desk.pass(10 * minutes)
    // It was sold two: an answer that it has three would not be so.
    assert.deepInclude(desk.refusal(reserving([["v", 3]])), { reason: "OTHER_ITEMS" })
    const again = desk.post(reserving([["v", 2]]))
    assert.isFalse(again.created)
    assert.deepInclude(again.reservation, { reservationId: reservation.reservationId, status: "CONFIRMED" })
    assert.deepEqual(desk.balances("v"), [["default", "", 7, 0, 0]])
  })

  it("is refused when the order has left a tombstone", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const reservationId = reserveAndExpire(desk, 2)
    leaveTombstone(desk, "o")
    assert.deepInclude(desk.refusal(reserving([["v", 2]])), { reason: "ORDER_CANCELLED" })
    assert.deepInclude(desk.refusal(reservingVariant("v", 2)), { reason: "ORDER_CANCELLED" })
    assert.strictEqual(desk.refusal(confirming(reservationId))._tag, "ReservationExpired")
    assert.isTrue(desk.post(reserving([["v", 2]], { orderId: "p" })).created)
  })
})

describe("life of a reservation: confirm", () => {
  it("sells what is held, and says so once", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { reservation } = desk.post(reserving([["v", 2]]))
    const { reservationId } = reservation
    assert.deepInclude(desk.post(confirming()), { applied: true, reservationId })
    assert.deepInclude(desk.post(confirming()), { applied: false, reservationId })
    assert.deepEqual(desk.balances("v"), [["default", "", 3, 0, 0]])
  })

  it("of a PENDING one always succeeds, also past its expiresAt while no sweeper has been there", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(reserving([["v", 2]]))
    desk.pass(60 * minutes)
    assert.isTrue(desk.post(confirming()).applied)
  })

  it("of an EXPIRED one takes the stock again in the same posting", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(receipt(2, { locationId: "north" }))
    const reservationId = reserveAndExpire(desk, 2)
    desk.post(sale(1))
    assert.deepInclude(desk.post(confirming()), { applied: true, reservationId })
    assert.deepEqual(desk.statuses("o"), ["CONFIRMED"])
    assert.deepEqual(desk.balances("v"), [
      ["default", "", 0, 0, 0],
      ["north", "", 1, 0, 0]
    ])
    assert.deepInclude(desk.post(confirming()), { applied: false, reservationId })
  })

  it("of an EXPIRED one fails when the stock cannot be had again, and says what is short", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    const reservationId = reserveAndExpire(desk, 2)
    desk.post(sale(1))
    const refusal = desk.refusal(confirming())
    assert.deepInclude(refusal, { _tag: "ReservationExpired", reservationId })
    assert.deepEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", requested: 2, available: 1 }
    ])
    assert.deepEqual(desk.statuses("o"), ["EXPIRED"])
  })

  it("of an EXPIRED one does not sell again what the order was sold meanwhile", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    reserveAndExpire(desk, 3)
    desk.post(sale(3, { orderId: "o" }))
    assert.isFalse(desk.post(confirming()).applied)
    assert.strictEqual(desk.item("v").onHand, 6)
  })

  it("of an EXPIRED one sells what is left of it when the order was sold a part meanwhile", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    reserveAndExpire(desk, 3)
    desk.post(sale(1, { orderId: "o" }))
    assert.isTrue(desk.post(confirming()).applied)
    assert.strictEqual(desk.item("v").onHand, 6)
  })

  it("of an EXPIRED one fails when the order has reserved anew: only the newer one is sold", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const old = reserveAndExpire(desk, 3)
    const { reservation } = desk.post(reserving([["v", 3]]))
    assert.deepInclude(desk.refusal(confirming(old)), { _tag: "ReservationExpired", reservationId: old })
    assert.deepInclude(desk.post(confirming()), { applied: true, reservationId: reservation.reservationId })
    assert.deepInclude(desk.refusal(confirming(old)), { _tag: "ReservationExpired", reservationId: old })
    assert.strictEqual(desk.item("v").onHand, 6)
  })

  it("of an EXPIRED one fails while the order holds the item under the other contract", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const old = reserveAndExpire(desk, 3)
    desk.post(reservingVariant("v", 3))
    assert.strictEqual(desk.refusal(confirming(old))._tag, "ReservationExpired")
    desk.post(confirming())
    assert.strictEqual(desk.item("v").onHand, 6)
  })

  it("does not fall back to an EXPIRED one when the order has released the newer one", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const old = reserveAndExpire(desk, 3)
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.post(releasing())
    assert.deepInclude(desk.refusal(confirming()), {
      _tag: "ReservationCancelled",
      reservationId: reservation.reservationId
    })
    assert.strictEqual(desk.refusal(confirming(old))._tag, "ReservationExpired")
    assert.strictEqual(desk.item("v").onHand, 9)
  })

  it("of one that was never seen is not found, of a CANCELLED one refused", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    assert.strictEqual(desk.refusal(confirming())._tag, "ReservationNotFound")
    desk.post(reserving([["v", 2]]))
    assert.strictEqual(desk.refusal(confirming(postingId(epoch, 0)))._tag, "ReservationNotFound")
    desk.post(releasing())
    assert.strictEqual(desk.refusal(confirming())._tag, "ReservationCancelled")
  })

  it("of an EXPIRED one does not sell what the order itself had released before", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const { reservation } = desk.post(reserving([["v", 5]]))
    desk.post(releasingPart(2))
    desk.pass(10 * minutes)
    desk.post(expiring(reservation.reservationId))
    desk.post(confirming())
    assert.strictEqual(soldOf(desk), 3)
  })

  it("of an EXPIRED one takes from the location that was given, and nowhere else", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(2, { locationId: "north" }))
    const { reservation } = desk.post(reserving([["v", 2]], { locationId: "north" }))
    desk.pass(10 * minutes)
    desk.post(expiring(reservation.reservationId))
    desk.post(sale(2, { locationId: "north" }))
    assert.strictEqual(desk.refusal(confirming())._tag, "ReservationExpired")
  })

  it("of an EXPIRED one takes from the stock that was named, and from no other", () => {
    const desk = deskWith()
    desk.post(receipt(2, { lotNumber: "L" }))
    desk.post(receipt(2, { lotNumber: "M" }))
    const { stockId } = desk.stockOf("v", "default", "M")
    const { reservation } = desk.post(reserving([["v", 2, stockId]]))
    desk.pass(10 * minutes)
    desk.post(expiring(reservation.reservationId))
    desk.post(confirming())
    assert.deepEqual(desk.balances("v"), [
      ["default", "L", 2, 0, 0],
      ["default", "M", 0, 0, 0]
    ])
  })
})

describe("life of a reservation: release", () => {
  it("gives back all that is held, and says so once", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 2]]))
    assert.deepInclude(desk.post(releasing()), { applied: true, quantity: 2 })
    assert.deepInclude(desk.post(releasing()), { applied: false, quantity: 0 })
    assert.deepEqual(desk.statuses("o"), ["CANCELLED"])
    assert.deepEqual(desk.balances("v"), [["default", "", 5, 0, 0]])
    const [told] = desk.eventsOfType("InventoryReleased")
    assert.deepInclude(told!.data, { reason: "RELEASED", reservedQuantity: 0, availableQuantity: 5 })
  })

  it("of what was never seen is not found, of what is sold refused", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    assert.strictEqual(desk.refusal(releasing())._tag, "ReservationNotFound")
    desk.post(reserving([["v", 2]]))
    assert.strictEqual(desk.refusal(releasing({ item: variant("w") }))._tag, "ReservationNotFound")
    assert.strictEqual(desk.refusal(releasing({ item: variant("nobody") }))._tag, "ItemNotFound")
    desk.post(confirming())
    assert.strictEqual(desk.refusal(releasing())._tag, "ReservationAlreadyConfirmed")
    assert.strictEqual(desk.refusal(releasing({ item: variant("v") }))._tag, "ReservationAlreadyConfirmed")
  })

  it("of a part leaves the rest, and gives back last what was taken first", () => {
    const desk = deskWith()
    desk.post(receipt(2, { lotNumber: "early", lotExpiresAt: epoch + 86_400_000 }))
    desk.post(receipt(5, { lotNumber: "late" }))
    desk.post(reserving([["v", 4]]))
    const { item } = desk.post(releasingPart(3))
    assert.deepInclude(item, { reservedQuantity: 1, availableQuantity: 6 })
    assert.deepEqual(desk.statuses("o"), ["PENDING"])
    assert.deepEqual(desk.balances("v"), [
      ["default", "early", 2, 1, 0],
      ["default", "late", 5, 0, 0]
    ])
  })

  it("of the last part makes it CANCELLED, or CONFIRMED when any of it was sold", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(reserving([["v", 3]]))
    desk.post(releasingPart(2))
    desk.post(releasingPart(1))
    desk.pass(1)
    desk.post(reserving([["v", 3]]))
    desk.post(sale(1, { orderId: "o" }))
    desk.post(releasingPart(2))
    assert.deepEqual(desk.statuses("o"), ["CANCELLED", "CONFIRMED"])
  })

  it("of more than is held is refused", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(reserving([["v", 3]]))
    assert.deepInclude(desk.refusal(releasingPart(4)), {
      _tag: "ReleaseExceedsReservation",
      requested: 4,
      held: 3
    })
    assert.strictEqual(desk.item("v").reserved, 3)
  })
})

describe("life of a reservation: extend and expire", () => {
  it("extends from now, and only what is PENDING", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationNotFound")
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.pass(9 * minutes)
    assert.strictEqual(desk.post(extending(60)).expiresAt, desk.now + 60_000)
    desk.pass(59)
    assert.isFalse(desk.post(expiring(reservation.reservationId)).expired)
    desk.pass(1)
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationExpired")
    desk.post(expiring(reservation.reservationId))
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationExpired")
    desk.post(confirming())
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationAlreadyConfirmed")
  })

  it("does not extend what was released", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(reserving([["v", 3]]))
    desk.post(releasing())
    assert.strictEqual(desk.refusal(extending(60))._tag, "ReservationCancelled")
  })

  it("expires what is due and nothing else, and tells of it once", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.pass(10 * minutes - 1)
    assert.isFalse(desk.post(expiring(reservation.reservationId)).expired)
    desk.pass(1)
    assert.isTrue(desk.post(expiring(reservation.reservationId)).expired)
    assert.isFalse(desk.post(expiring(reservation.reservationId)).expired)
    assert.deepEqual(desk.balances("v"), [["default", "", 9, 0, 0]])
    assert.lengthOf(desk.eventsOfType("ReservationExpired"), 1)
    assert.deepInclude(desk.eventsOfType("InventoryReleased")[0]!.data, { reason: "EXPIRED" })
    assert.strictEqual(desk.refusal(expiring(postingId(epoch, 0)))._tag, "ReservationNotFound")
  })

  it("expires what is left of one that was sold in part, which is CONFIRMED then", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const { reservation } = desk.post(reserving([["v", 3]]))
    desk.post(sale(1, { orderId: "o" }))
    desk.pass(10 * minutes)
    desk.post(expiring(reservation.reservationId))
    assert.deepEqual(desk.statuses("o"), ["CONFIRMED"])
    assert.deepEqual(desk.balances("v"), [["default", "", 8, 0, 0]])
  })
})

describe("reservations of the orders and of the variants contract, of one order", () => {
  it("stand side by side, and by order are confirmed, released and extended together", () => {
    const desk = deskWith("w")
    desk.post(receipt(9))
    desk.post(receipt(9, { item: variant("w") }))
    const both = () => {
      desk.pass(1)
      desk.post(reserving([["v", 2]]))
      desk.post(reservingVariant("w", 3))
    }
    both()
    desk.post(releasing())
    assert.deepEqual(desk.statuses("o"), ["CANCELLED", "CANCELLED"])
    both()
    const { expiresAt } = desk.post(extending(60))
    assert.deepEqual(
      desk
        .reservations("o")
        .slice(2)
        .map((row) => row.expiresAt),
      [expiresAt, expiresAt]
    )
    desk.post(confirming())
    assert.deepEqual(desk.statuses("o").slice(2), ["CONFIRMED", "CONFIRMED"])
    assert.deepEqual([desk.item("v").onHand, desk.item("w").onHand], [7, 6])
  })

  it("are confirmed one at a time by their id", () => {
    const desk = deskWith("w")
    desk.post(receipt(9))
    desk.post(receipt(9, { item: variant("w") }))
    desk.post(reserving([["v", 2]]))
    const { reservation } = desk.post(reservingVariant("w", 3))
    desk.post(confirming(reservation.reservationId))
    assert.sameMembers([...desk.statuses("o")], ["PENDING", "CONFIRMED"])
    assert.isTrue(desk.post(confirming()).applied)
  })

  it("hold the same item twice when both ask for it, and a partial release is counted over both", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    desk.post(reserving([["v", 2]]))
    desk.post(reservingVariant("v", 3))
    assert.strictEqual(desk.item("v").reserved, 5)
    assert.deepInclude(desk.refusal(releasingPart(6)), { held: 5 })
    desk.post(releasingPart(4))
    assert.deepEqual(desk.statuses("o"), ["PENDING", "CANCELLED"])
    assert.strictEqual(desk.item("v").reserved, 1)
  })
})

describe("discrepancies", () => {
  it("are not resolved by hand while their condition lasts", () => {
    const desk = deskWith()
    desk.post(receipt(1))
    desk.post(adjusting("DAMAGE", 2))
    const { discrepancyId } = [...desk.store.discrepancies.values()][0]!
    const resolving = { _tag: "ResolveDiscrepancy" as const, discrepancyId, reason: "seen" }
    assert.strictEqual(desk.refusal(resolving)._tag, "DiscrepancyPersists")
    desk.post(receipt(1))
    assert.isFalse(desk.post(resolving).resolved)
    assert.strictEqual(
      desk.refusal({ ...resolving, discrepancyId: postingId(epoch, 0) })._tag,
      "DiscrepancyNotFound"
    )
  })

  it("of other kinds are resolved with a reason, once, and open again at the next occasion", () => {
    const desk = deskWith()
    desk.post(giveBack(1, { orderId: "o" }))
    const { discrepancyId } = [...desk.store.discrepancies.values()][0]!
    const resolving = { _tag: "ResolveDiscrepancy" as const, discrepancyId, reason: "a gift" }
    // In one batch, too: what is found after the resolving is not lost with it.
    desk.batch(desk.posting(resolving), desk.posting(giveBack(1, { orderId: "o" })))
    assert.deepInclude(desk.store.discrepancies.get(`${merchantId}\u001f${discrepancyId}`), {
      status: "RESOLVED",
      reason: "a gift",
      closedBy: "tester"
    })
    assert.deepEqual(desk.openDiscrepancies(), ["RETURN_EXCEEDS_SALE"])
    assert.isFalse(desk.post(resolving).resolved)
  })
})

describe("merchants", () => {
  it("are strangers to each other, also with the same names in the same batch", () => {
    const desk = deskWith()
    const theirs = { merchantId: "n" }
    const item = { _tag: "EnsureItem" as const, kind: "PRODUCT" as const, productVariantId: "v" }
    const key = { idempotency: { key: "k", fingerprint: "f" } }
    const verdicts = desk.batch(
      desk.posting(receipt(3, { reference: "r" }), key),
      desk.posting(item, theirs),
      desk.posting(receipt(5, { reference: "r" }), { ...theirs, ...key }),
      desk.posting(reserving([["v", 3]])),
      desk.posting(reserving([["v", 5]]), theirs),
      desk.posting(confirming(), theirs),
      desk.posting(receipt(1, { locationId: "north" }), theirs)
    )
    assert.deepEqual(
      verdicts.map((verdict) => ("refusal" in verdict ? verdict.refusal._tag : "answered")),
      ["answered", "answered", "answered", "answered", "answered", "answered", "LocationNotFound"]
    )
    const sums = [...desk.store.items.values()].map((row) => [row.merchantId, row.onHand, row.reserved])
    assert.deepEqual(sums, [
      ["m", 3, 3],
      ["n", 0, 0]
    ])
  })
})

describe("what the item's total crosses", () => {
  it("is told once per crossing, not per sale", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", lowStockThreshold: 3 })
    desk.post(receipt(3))
    desk.post(receipt(3, { locationId: "north" }))
    desk.post(sale(2))
    assert.lengthOf(desk.eventsOfType("inventory.low_stock"), 0)
    desk.post(sale(1))
    desk.post(sale(1))
    assert.lengthOf(desk.eventsOfType("inventory.low_stock"), 1)
    assert.lengthOf(desk.eventsOfType("inventory.out_of_stock"), 0)
    desk.post(reserving([["v", 2]]))
    assert.lengthOf(desk.eventsOfType("inventory.out_of_stock"), 1)
    desk.post(confirming())
    assert.lengthOf(desk.eventsOfType("inventory.out_of_stock"), 1)
    assert.deepEqual(
      desk.eventsOfType("StockStatusChanged").map(({ data }) => data["statusAfter"]),
      ["LOW_STOCK", "IN_STOCK", "LOW_STOCK", "OUT_OF_STOCK"]
    )
  })
})

describe("the catalogue", () => {
  it("adopts an item that is known by its sku alone, and refuses to make one item of two", () => {
    const desk = new Desk()
    const first = desk.post({ _tag: "EnsureItem", kind: "PRODUCT", sku: "s" })
    const adopted = desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", sku: "s" })
    assert.isFalse(adopted.created)
    assert.deepInclude(adopted.item, { itemId: first.item.itemId, productVariantId: "v", sku: "s" })
    const other = { _tag: "EnsureItem" as const, kind: "PRODUCT" as const, productVariantId: "w" }
    assert.strictEqual(desk.refusal({ ...other, sku: "s" })._tag, "ItemConflict")
    desk.post({ ...other, sku: "t" })
    assert.strictEqual(desk.refusal({ ...other, sku: "s" })._tag, "ItemConflict")
  })

  it("frees a sku that an item has given up, within the same batch too", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", sku: "old" })
    const verdicts = desk.batch(
      desk.posting({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", sku: "new" }),
      desk.posting({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "w", sku: "old" })
    )
    assert.isTrue(verdicts.every((verdict) => "answer" in verdict))
    assert.deepEqual([desk.item("v").sku, desk.item("w").sku], ["new", "old"])
  })

  it("tells each caller of a batch what it was when it asked", () => {
    const desk = deskWith()
    const naming = (name: string) => desk.posting({ _tag: "EnsureLocation", locationId: "north", name })
    const verdicts = desk.batch(naming("first"), naming("second"))
    assert.deepEqual(
      verdicts.map(
        (verdict) => "answer" in verdict && "location" in verdict.answer && verdict.answer.location
      ),
      ["first", "second"].map((name) => ({
        locationId: "north",
        name,
        isDefault: false,
        order: 1,
        retired: false,
        createdAt: epoch
      }))
    )
  })
})

describe("an Idempotency-Key", () => {
  it("replays the answer for a day, and is free again after that", () => {
    const desk = deskWith()
    const caller = { idempotency: { key: "k", fingerprint: "f" } }
    desk.post(receipt(2), caller)
    assert.deepInclude(desk.verdict(receipt(2), caller), { replayed: true })
    assert.strictEqual(
      desk.refusal(receipt(2), { idempotency: { key: "k", fingerprint: "g" } })._tag,
      "IdempotencyKeyReused"
    )
    desk.pass(24 * 60 * minutes)
    assert.deepInclude(desk.verdict(receipt(2), caller), { replayed: false })
    assert.strictEqual(desk.item("v").onHand, 4)
  })

  it("keeps no refusal: the same request may succeed later", () => {
    const desk = deskWith()
    const caller = { idempotency: { key: "k", fingerprint: "f" } }
    assert.strictEqual(desk.refusal(sale(1), caller)._tag, "InsufficientStock")
    desk.post(receipt(1))
    assert.isTrue(desk.post(sale(1), caller).applied)
  })
})

describe("a posting that runs a second time", () => {
  it("is told of the reservation that it made, whatever has become of the order meanwhile", () => {
    const desk = deskWith()
    desk.post(receipt(9))
    const first = desk.posting(reserving([["v", 3]]))
    desk.batch(first)
    desk.post(releasing())
    desk.pass(1)
    desk.post(reserving([["v", 4]]))
    desk.pass(10 * minutes)
    const [again] = desk.batch(first)
    assert.deepInclude("answer" in again! && "reservation" in again.answer ? again.answer.reservation : {}, {
      reservationId: first.id
    })
    assert.deepEqual(desk.statuses("o"), ["CANCELLED", "PENDING"])
  })
})

/** What the operation behind `order.cancelled` leaves; the kernel has no command for it yet. */
const leaveTombstone = (desk: Desk, orderId: string): void => {
  const trackingKey = orderCancelledKey(orderId)
  desk.store.tracking.set(`${merchantId}\u001f${trackingKey}`, {
    merchantId,
    trackingKey,
    postingId: postingId(epoch, 0),
    answer: null,
    recordedAt: epoch
  })
}

type Placed = readonly [variantId: string, quantity: number, locationId?: string, lotNumber?: string]
const placed = (lines: ReadonlyArray<Placed>) =>
  lines.map(([variantId, quantity, locationId, lotNumber]) => ({
    item: variant(variantId),
    quantity,
    locationId,
    lotNumber
  }))
const amending = (lines: ReadonlyArray<Placed>, expiresInSeconds?: number) => ({
  _tag: "AmendReservation" as const,
  orderId: "o",
  lines: placed(lines),
  expiresInSeconds
})
const heldAt = (reservation: { readonly lines: ReadonlyArray<HeldLine> }) =>
  reservation.lines
    .filter(({ open }) => open > 0)
    .map(({ locationId, lotNumber, open }) => [locationId, lotNumber, open])
interface HeldLine {
  readonly locationId: string | null
  readonly lotNumber: string | null
  readonly open: number
}

describe("where each line is taken from", () => {
  it("is its own location and lot, before that of the request", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(5, { locationId: "north", lotNumber: "A", lotExpiresAt: epoch + 1_000_000 }))
    desk.post(receipt(5, { locationId: "north", lotNumber: "B", lotExpiresAt: epoch + 2_000_000 }))
    const lines = placed([
      ["v", 2],
      ["v", 3, "north", "B"]
    ])
    const { reservation } = desk.post({ ...reserving([]), lines, locationId: "default" })
    assert.sameDeepMembers(heldAt(reservation), [
      ["default", null, 2],
      ["north", "B", 3]
    ])
    assert.isFalse(desk.post({ ...reserving([]), lines }).created)
    const elsewhere = placed([
      ["v", 2],
      ["v", 3, "north", "A"]
    ])
    assert.deepInclude(desk.refusal({ ...reserving([]), lines: elsewhere }), { reason: "OTHER_ITEMS" })
  })

  it("is taken first where more is named, and names what is short there", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(receipt(2, { locationId: "north" }))
    const lines = placed([
      ["v", 2],
      ["v", 2, "default"]
    ])
    assert.sameDeepMembers(heldAt(desk.post({ ...reserving([]), lines }).reservation), [
      ["default", null, 2],
      ["north", null, 2]
    ])
    const refusal = desk.refusal({ ...reserving([], { orderId: "p" }), lines: placed([["v", 1, "north"]]) })
    assert.deepInclude(refusal, { _tag: "InsufficientStock" })
    const unknown = { ...reserving([], { orderId: "p" }), lines: placed([["v", 1, "nowhere"]]) }
    assert.deepInclude(desk.refusal(unknown), { _tag: "LocationNotFound", locationId: "nowhere" })
  })
})

describe("amending", () => {
  it("takes what is missing and gives back what is too much, in one posting", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    const { reservationId } = desk.post(
      reserving([
        ["v", 1],
        ["w", 3]
      ])
    ).reservation
    const amended = desk.post(
      amending([
        ["v", 4],
        ["w", 1]
      ])
    )
    assert.isTrue(amended.applied)
    assert.deepInclude(amended.reservation, { reservationId, status: "PENDING" })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 5, 4, 0]])
    assert.deepStrictEqual(desk.balances("w"), [["default", "", 5, 1, 0]])
    const postings = new Set(desk.store.ledger.slice(-2).map(({ postingId }) => postingId))
    assert.strictEqual(postings.size, 1)
    const again = desk.post(
      amending([
        ["v", 4],
        ["w", 1]
      ])
    )
    assert.isFalse(again.applied)
    assert.deepStrictEqual(again.reservation, amended.reservation)
    desk.post(confirming())
    assert.strictEqual(soldOf(desk), 5)
  })

  it("keeps what expires first, and takes what expires first of the rest", () => {
    const desk = deskWith()
    desk.post(receipt(2, { lotNumber: "B", lotExpiresAt: epoch + 2_000_000 }))
    desk.post(receipt(2, { lotNumber: "C", lotExpiresAt: epoch + 3_000_000 }))
    desk.post(reserving([["v", 3]]))
    desk.post(receipt(2, { lotNumber: "A", lotExpiresAt: epoch + 1_000_000 }))
    assert.sameDeepMembers(heldAt(desk.post(amending([["v", 4]])).reservation), [
      ["default", "B", 2],
      ["default", "C", 1],
      ["default", "A", 1]
    ])
    assert.sameDeepMembers(heldAt(desk.post(amending([["v", 2]])).reservation), [
      ["default", "A", 1],
      ["default", "B", 1]
    ])
  })

  it("changes nothing where it is short, and says how much there would be in all", () => {
    const desk = deskWith("w")
    desk.post(receipt(3))
    desk.post(receipt(3, { item: variant("w") }))
    desk.post(
      reserving([
        ["v", 2],
        ["w", 2]
      ])
    )
    const books = () => {
      const { lines, reservations, stocks } = desk.store
      return JSON.stringify([lines, reservations, stocks].map((rows) => [...rows.values()]))
    }
    const before = books()
    const refusal = desk.refusal(
      amending([
        ["v", 5],
        ["w", 1]
      ])
    )
    assert.deepInclude(refusal, { _tag: "InsufficientStock" })
    assert.deepStrictEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", requested: 5, available: 3 }
    ])
    assert.strictEqual(books(), before)
    assert.deepStrictEqual(desk.balances("w"), [["default", "", 3, 2, 0]])
  })

  it("moves what is held to the location that is named", () => {
    const desk = deskWith()
    desk.post(receipt(3))
    desk.post(receipt(3, { locationId: "north" }))
    desk.post(reserving([["v", 2]]))
    assert.deepStrictEqual(heldAt(desk.post(amending([["v", 2, "north"]])).reservation), [["north", null, 2]])
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 3, 0, 0],
      ["north", "", 3, 2, 0]
    ])
  })

  it("changes what was reserved variant by variant, with a reservation for each", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    desk.post(reservingVariant("v", 3))
    desk.post(
      amending([
        ["v", 2],
        ["w", 1]
      ])
    )
    assert.isFalse(desk.post(reservingVariant("v", 2)).created)
    assert.isFalse(desk.post(reservingVariant("w", 1)).created)
    assert.deepStrictEqual(desk.statuses("o"), ["PENDING", "PENDING"])
  })

  it("lengthens it where that is asked for, and otherwise leaves its end", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    const { expiresAt } = desk.post(reserving([["v", 2]])).reservation
    desk.pass(60)
    assert.strictEqual(desk.post(amending([["v", 3]])).reservation.expiresAt, expiresAt)
    assert.strictEqual(desk.post(amending([["v", 3]], 900)).reservation.expiresAt, desk.now + 900_000)
  })

  it("is of a PENDING one only, and takes no more of what is discontinued", () => {
    const desk = deskWith("w")
    desk.post(receipt(9))
    assert.strictEqual(desk.refusal(amending([["v", 1]]))._tag, "ReservationNotFound")
    desk.post(reserving([["v", 2]]))
    assert.strictEqual(desk.refusal(amending([["nobody", 1]]))._tag, "ItemNotFound")
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", discontinued: true })
    assert.deepInclude(desk.refusal(amending([["v", 3]])), { reason: "DISCONTINUED_ITEM" })
    assert.isTrue(desk.post(amending([["v", 1]])).applied)
    desk.pass(10 * minutes)
    assert.strictEqual(desk.refusal(amending([["v", 1]]))._tag, "ReservationExpired")
    desk.post(confirming())
    assert.strictEqual(desk.refusal(amending([["v", 1]]))._tag, "ReservationAlreadyConfirmed")
  })

  it("is what an expired one takes again when it is confirmed", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    const { reservationId } = desk.post(reserving([["v", 3]])).reservation
    desk.post(
      amending([
        ["v", 1],
        ["w", 2]
      ])
    )
    desk.pass(10 * minutes)
    desk.post(expiring(reservationId))
    assert.isTrue(desk.post(confirming()).applied)
    assert.deepStrictEqual([desk.item("v").onHand, desk.item("w").onHand], [4, 3])
  })
})

const part = (...lines: ReadonlyArray<Placed>) => ({ ...confirming(), lines: placed(lines) })

describe("confirming a part", () => {
  it("sells that, and the rest stays PENDING", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(receipt(5, { item: variant("w") }))
    desk.post(
      reserving([
        ["v", 3],
        ["w", 1]
      ])
    )
    assert.deepInclude(desk.post(part(["v", 2])), { applied: true, status: "PENDING" })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 1, 0]])
    assert.deepInclude(desk.post(part(["v", 1], ["w", 1])), { applied: true, status: "CONFIRMED" })
    assert.deepInclude(desk.post(part(["v", 1], ["w", 1])), { applied: false, status: "CONFIRMED" })
    assert.deepInclude(desk.post(confirming()), { applied: false, status: "CONFIRMED" })
    assert.strictEqual(soldOf(desk), 4)
  })

  it("refuses more than is held, names it, and changes nothing", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(reserving([["v", 3]]))
    desk.post(part(["v", 2]))
    const refusal = desk.refusal(part(["v", 2], ["w", 1]))
    assert.deepInclude(refusal, { _tag: "ConfirmExceedsReservation" })
    assert.deepStrictEqual("items" in refusal && refusal.items, [
      { productVariantId: "v", requested: 2, available: 1 },
      { productVariantId: "w", requested: 1, available: 0 }
    ])
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 1, 0]])
    assert.strictEqual(desk.refusal(part(["nobody", 1]))._tag, "ItemNotFound")
    assert.strictEqual(desk.refusal({ ...part(["v", 1]), orderId: "p" })._tag, "ReservationNotFound")
  })

  it("of an expired one takes that part again, and no more", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    reserveAndExpire(desk, 3)
    assert.strictEqual(desk.refusal(part(["v", 4]))._tag, "ConfirmExceedsReservation")
    assert.deepInclude(desk.post(part(["v", 2])), { applied: true, status: "CONFIRMED" })
    assert.deepStrictEqual(desk.balances("v"), [["default", "", 3, 0, 0]])
  })
})

describe("a sale that names its place", () => {
  it("was sold there: first what is held there, then other stock there, and as much held elsewhere is given back", () => {
    const desk = deskWith()
    desk.post(receipt(2))
    desk.post(receipt(5, { locationId: "north" }))
    // Two at the default location, one in the north.
    desk.post(reserving([["v", 3]]))
    const { applied } = desk.post(sale(2, { orderId: "o", locationId: "north" }))
    assert.isTrue(applied)
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 2, 1, 0],
      ["north", "", 3, 0, 0]
    ])
    assert.deepStrictEqual(desk.statuses("o"), ["PENDING"])
    desk.post(confirming())
    assert.strictEqual(soldOf(desk), 3)
  })

  it("is sold once, though the order held it elsewhere", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(5, { locationId: "north" }))
    desk.post(reserving([["v", 3]]))
    desk.post(sale(3, { orderId: "o", locationId: "north" }))
    assert.isFalse(desk.post(sale(3, { orderId: "o", locationId: "north" })).applied)
    assert.deepInclude(desk.post(confirming()), { applied: false, status: "CONFIRMED" })
    assert.isFalse(desk.post(reserving([["v", 3]])).created)
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 5, 0, 0],
      ["north", "", 2, 0, 0]
    ])
  })

  it("is refused where that place is short, and everything stays as it was", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(receipt(1, { locationId: "north" }))
    desk.post(reserving([["v", 3]]))
    assert.strictEqual(desk.refusal(sale(2, { orderId: "o", locationId: "north" }))._tag, "InsufficientStock")
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "", 5, 3, 0],
      ["north", "", 1, 0, 0]
    ])
  })

  it("may name its lot", () => {
    const desk = deskWith()
    desk.post(receipt(3, { lotNumber: "A", lotExpiresAt: epoch + 1_000_000 }))
    desk.post(receipt(3, { lotNumber: "B", lotExpiresAt: epoch + 2_000_000 }))
    desk.post(reserving([["v", 2]]))
    desk.post(sale(2, { orderId: "o", lotNumber: "B" }))
    assert.deepStrictEqual(desk.balances("v"), [
      ["default", "A", 3, 0, 0],
      ["default", "B", 1, 0, 0]
    ])
  })
})

const detail = (desk: Desk) =>
  [...desk.store.discrepancies.values()]
    .filter(({ status }) => status === "OPEN")
    .map(({ detail: told, kind }) => [kind, told])

describe("a return beyond the sale", () => {
  it("says in its answer which discrepancy it opened, or adds to", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(sale(1, { orderId: "o" }))
    const first = desk.post(giveBack(3, { orderId: "o" })).discrepancies
    assert.deepStrictEqual(
      first.map(({ kind }) => kind),
      ["RETURN_EXCEEDS_SALE"]
    )
    assert.deepStrictEqual(desk.post(giveBack(1, { orderId: "o" })).discrepancies, first)
    assert.deepStrictEqual(detail(desk), [["RETURN_EXCEEDS_SALE", { quantity: 3 }]])
    assert.deepStrictEqual(desk.post(giveBack(1)).discrepancies, [])
  })

  it("closes when the sale comes, and what came back does not come back a second time", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(giveBack(2, { orderId: "o" }))
    desk.post(sale(1, { orderId: "o", reference: "one" }))
    assert.deepStrictEqual(detail(desk), [["RETURN_EXCEEDS_SALE", { quantity: 1 }]])
    desk.post(sale(1, { orderId: "o", reference: "two" }))
    assert.deepStrictEqual(detail(desk), [])
    assert.lengthOf(desk.eventsOfType("DiscrepancyClosed"), 1)
    desk.post(giveBack(1, { orderId: "o" }))
    assert.deepStrictEqual(detail(desk), [["RETURN_EXCEEDS_SALE", { quantity: 1 }]])
  })

  it("is open for each item of the order", () => {
    const desk = deskWith("w")
    desk.post(receipt(5))
    desk.post(giveBack(2, { orderId: "o" }))
    desk.post(giveBack(1, { orderId: "o", item: variant("w") }))
    desk.post(reserving([["v", 2]]))
    desk.post(confirming())
    assert.deepStrictEqual(detail(desk), [["RETURN_EXCEEDS_SALE", { quantity: 1 }]])
  })
})

describe("what contradicts the books", () => {
  it("is named in the answer of the adjustment that opens it", () => {
    const desk = deskWith()
    desk.post(receipt(5))
    desk.post(reserving([["v", 4]]))
    const kinds = desk.post(correction(3)).discrepancies.map(({ kind }) => kind)
    assert.deepStrictEqual(kinds, ["OVERCOMMITTED"])
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "w", discontinued: true })
    const stranded = desk.post(receipt(1, { item: variant("w") })).discrepancies.map(({ kind }) => kind)
    assert.deepStrictEqual(stranded, ["DISCONTINUED_WITH_STOCK"])
  })
})

describe("the events of one posting", () => {
  it("carry one correlation id: the order that it is about, or the request that it comes from", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", lowStockThreshold: 3 })
    const correlated = (command: Parameters<Desk["post"]>[0]) => {
      const { length } = desk.store.events
      desk.post(command)
      const events = desk.store.events.slice(length)
      assert.isAbove(events.length, 1)
      return [...new Set(events.map((event) => JSON.parse(envelopeOf(event)).correlationId))]
    }
    assert.deepStrictEqual(correlated(receipt(5)), ["request"])
    assert.deepStrictEqual(correlated(reserving([["v", 3]])), ["o"])
    assert.deepStrictEqual(correlated(confirming()), ["o"])
    assert.deepStrictEqual(correlated(giveBack(9, { orderId: "o" })), ["o"])
    assert.deepStrictEqual(correlated(correction(1)), ["request"])
  })
})

const replayed = (command: Parameters<Desk["post"]>[0], kept: object): unknown => {
  const desk = deskWith()
  const idempotency = { key: "k", fingerprint: "f" }
  desk.store.idempotency.set("m\u001fk", {
    merchantId,
    idempotencyKey: "k",
    fingerprint: "f",
    answer: JSON.stringify({ posting: "p", command: command._tag, version: 1, answer: kept }),
    createdAt: desk.now
  })
  return desk.post(command, { idempotency })
}

describe("an answer that was kept in the form of an earlier version", () => {
  it("is replayed in today's form", () => {
    const at = epoch
    assert.deepStrictEqual(replayed(releasing(), { at, released: true, quantity: 2, item: null }), {
      at,
      applied: true,
      quantity: 2,
      item: null
    })
    assert.deepStrictEqual(replayed(confirming(), { at, confirmed: true, reservationId: "r" }), {
      at,
      applied: true,
      reservationId: "r",
      status: "CONFIRMED"
    })
    const line = { itemId: "i", productVariantId: "v", sku: null, stockId: "s", quantity: 2, open: 2 }
    const lines = [{ ...line, locationId: "default", lotNumber: null }]
    const reservation = { reservationId: "r", orderId: "o", status: "PENDING", expiresAt: at, lines }
    assert.deepStrictEqual(replayed(reserving([["v", 2]]), { at, created: true, reservation }), {
      at,
      created: true,
      reservation: { ...reservation, lines: [{ ...lines[0], sold: 0 }] }
    })
  })
})
