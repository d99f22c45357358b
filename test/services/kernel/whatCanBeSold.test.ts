import { assert, describe, it } from "@effect/vitest"
import type { AdjustStock } from "../../../src/services/kernel/commands/stock.ts"
import { keyOf } from "../../../src/services/kernel/Needs.ts"
import { Desk, merchantId, variant } from "../../support/books.ts"

// Goal: an example for each sentence of CONTRACTS sections 1 and 4.2 about what can be sold, about units that are damaged
// or quarantined, lots, deletions and locations. Method: commands played one by one over tables in memory.

/** A desk where `v` is stocked, and `north` is a second location. */
const deskWith = (): Desk => {
  const desk = new Desk()
  desk.post({ _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v", sku: "S" })
  desk.post({ _tag: "EnsureLocation", locationId: "north" })
  return desk
}

const adjusting = (
  changeType: AdjustStock["changeType"],
  quantity: number,
  given: Partial<Omit<AdjustStock, "_tag" | "changeType" | "quantity">> = {}
): AdjustStock => ({ _tag: "AdjustStock", changeType, item: variant("v"), quantity, ...given })

const reserving = (
  quantity: number,
  {
    orderId = "o",
    ...given
  }: { readonly orderId?: string; readonly locationId?: string; readonly stockId?: string } = {}
) => ({
  _tag: "ReserveStock" as const,
  orderId,
  kind: "ORDER" as const,
  lines: [{ item: variant("v"), quantity, stockId: given.stockId }],
  expiresInSeconds: 600,
  locationId: given.locationId
})
const paid = (quantity: number, given: { readonly orderId?: string; readonly locationId?: string } = {}) => ({
  _tag: "RecordSale" as const,
  orderId: given.orderId ?? "paid",
  lines: [{ productVariantId: "v", quantity, locationId: given.locationId }]
})
const confirming = { _tag: "ConfirmReservation" as const, orderId: "o" }
const deleting = { _tag: "DeleteItem" as const, productVariantId: "v" }
const ensuring = (given: { readonly productVariantId?: string; readonly sku?: string }) => ({
  _tag: "EnsureItem" as const,
  kind: "PRODUCT" as const,
  ...given
})
const discontinuing = (discontinued: boolean) => ({ ...ensuring({ productVariantId: "v" }), discontinued })

/** What is available of `v`, as an answer shows it. */
const shown = (desk: Desk) => desk.post(ensuring({ productVariantId: "v" })).item
const short = (desk: Desk, command: Parameters<Desk["refusal"]>[0]) => {
  const refusal = desk.refusal(command)
  assert.strictEqual(refusal._tag, "InsufficientStock")
  return "items" in refusal ? (refusal.items[0] as { readonly available: number }).available : undefined
}

const expiryOf = (desk: Desk, locationId = "default") => desk.stockOf("v", locationId, "L").lotExpiresAt

/** An item that was deleted while it was held, and sold since. */
const emptied = (): Desk => {
  const desk = deskWith()
  desk.post(adjusting("RECEIPT", 2))
  desk.post(reserving(2))
  assert.deepInclude(desk.post(deleting), { outcome: "DISCONTINUED", applied: true })
  assert.deepEqual(desk.openDiscrepancies(), ["DISCONTINUED_WITH_STOCK"])
  desk.post(confirming)
  return desk
}

const captured = (rowId: string, sku: string) => ({
  _tag: "EnsureItem" as const,
  kind: "PRODUCT" as const,
  productVariantId: rowId,
  sku,
  keepsDeletion: true,
  capturedRow: rowId
})
const skus = (desk: Desk) => [desk.item("1").sku, desk.item("2").sku]

const placing = (
  locationId: string,
  given: { readonly order?: number; readonly retired?: boolean; readonly name?: string }
) => ({ _tag: "UpdateLocation" as const, locationId, ...given })
const orders = (desk: Desk) =>
  [...desk.store.locations.values()]
    .sort((a, b) => a.position - b.position)
    .map(({ locationId }) => locationId)

describe("what was sold below zero", () => {
  it("is not promised again because goods came into another lot", () => {
    const desk = deskWith()
    desk.post(paid(3))
    desk.post(adjusting("RECEIPT", 10, { lotNumber: "L" }))
    assert.deepInclude(shown(desk), { quantity: 7, availableQuantity: 7 })
    assert.strictEqual(short(desk, reserving(8)), 7)
    desk.post(reserving(7))
    assert.deepInclude(shown(desk), { quantity: 7, reservedQuantity: 7, availableQuantity: 0 })
    assert.strictEqual(short(desk, reserving(1, { orderId: "another" })), 0)
    assert.strictEqual(short(desk, adjusting("SALE", 1)), 0)
  })

  it("is not promised from another location either, and not from one lot by name", () => {
    const desk = deskWith()
    desk.post(paid(3))
    desk.post(adjusting("RECEIPT", 10, { locationId: "north" }))
    assert.strictEqual(short(desk, reserving(8, { locationId: "north" })), 7)
    assert.strictEqual(short(desk, adjusting("SALE", 8, { locationId: "north" })), 7)
    assert.strictEqual(short(desk, reserving(8, { stockId: desk.stockOf("v", "north").stockId })), 7)
    desk.post(reserving(7, { locationId: "north" }))
  })

  it("is made up at its own location first, and does not hold back what another one has", () => {
    const desk = deskWith()
    desk.post(paid(3))
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L" }))
    desk.post(adjusting("RECEIPT", 4, { locationId: "north" }))
    // Of the default location's five, three are missing in its other lot.
    assert.strictEqual(short(desk, reserving(3, { locationId: "default" })), 2)
    assert.strictEqual(short(desk, reserving(5, { locationId: "north" })), 4)
    desk.post(reserving(6))
    assert.deepEqual(desk.balances("v"), [
      ["default", "", -3, 0, 0],
      ["default", "L", 5, 2, 0],
      ["north", "", 4, 4, 0]
    ])
  })

  it("counts in a lot that has expired, whose units do not", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 2, { lotNumber: "old", lotExpiresAt: desk.now + 1_000 }))
    desk.post(adjusting("RECEIPT", 4))
    desk.post(adjusting("DAMAGE", 3, { lotNumber: "old" }))
    desk.pass(1)
    assert.deepInclude(shown(desk), { quantity: 6, availableQuantity: 3 })
  })

  it("counts for what an expired reservation takes again when it is confirmed", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L" }))
    const { reservation } = desk.post(reserving(5))
    desk.pass(600)
    const { reservationId } = reservation
    desk.post({ _tag: "ExpireReservation", orderId: "o", reservationId })
    desk.post(adjusting("CORRECTION", 0, { lotNumber: "M" }))
    desk.post(adjusting("DAMAGE", 1, { lotNumber: "M" }))
    assert.strictEqual(desk.refusal(confirming)._tag, "ReservationExpired")
  })

  it("makes the item's status and its crossings those of what can be sold", () => {
    const desk = deskWith()
    desk.post({ ...ensuring({ productVariantId: "v" }), lowStockThreshold: 4 } as never)
    desk.post(adjusting("RECEIPT", 6, { lotNumber: "L" }))
    assert.strictEqual(desk.item("v").status, "IN_STOCK")
    desk.post(paid(2, { locationId: "north" }))
    assert.strictEqual(desk.item("v").status, "LOW_STOCK")
    assert.lengthOf(desk.eventsOfType("inventory.low_stock"), 1)
  })
})

describe("an item that is discontinued", () => {
  it("has one figure for what can be sold of it, which is none, and keeps its quantity", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    desk.post(reserving(2))
    const { item } = desk.post(discontinuing(true))
    assert.deepInclude(item, {
      status: "DISCONTINUED",
      quantity: 5,
      reservedQuantity: 2,
      unallocatableQuantity: 0,
      availableQuantity: 0
    })
    assert.strictEqual(short(desk, adjusting("SALE", 1)), 0)
    assert.strictEqual(short(desk, adjusting("SALE", 1, { orderId: "direct" })), 0)
    assert.deepInclude(desk.refusal(reserving(1, { orderId: "another" })), { reason: "DISCONTINUED_ITEM" })
    // It crosses to nothing as if it were sold out.
    assert.lengthOf(desk.eventsOfType("inventory.out_of_stock"), 1)
  })

  it("is sold to those whom it was promised before, and by facts", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    desk.post(reserving(2))
    desk.post(discontinuing(true))
    assert.isTrue(desk.post(confirming).applied)
    desk.post(paid(2))
    assert.deepEqual(desk.balances("v"), [["default", "", 1, 0, 0]])
    desk.post(discontinuing(false))
    assert.deepInclude(shown(desk), { availableQuantity: 1, status: "IN_STOCK" })
  })

  it("is not taken again for a reservation that expired", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    const { reservation } = desk.post(reserving(2))
    desk.pass(600)
    desk.post({ _tag: "ExpireReservation", orderId: "o", reservationId: reservation.reservationId })
    desk.post(discontinuing(true))
    assert.deepInclude(desk.refusal(confirming), { _tag: "ReservationExpired" })
  })

  it("is not sold either where it is made to order", () => {
    const desk = deskWith()
    desk.post({ ...ensuring({ productVariantId: "v" }), stocked: false } as never)
    desk.post(adjusting("SALE", 1))
    desk.post(discontinuing(true))
    assert.strictEqual(short(desk, adjusting("SALE", 1)), 0)
  })
})

describe("units that are damaged or quarantined", () => {
  it("are thrown away, and the rest is for sale", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 10))
    desk.post(adjusting("DAMAGE", 2))
    desk.post(adjusting("WRITE_OFF", 2))
    desk.post(adjusting("CORRECTION", 8))
    assert.deepInclude(shown(desk), { quantity: 8, unallocatableQuantity: 0, availableQuantity: 8 })
    assert.deepEqual(desk.openDiscrepancies(), [])
  })

  it("are counted too", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 10))
    desk.post(adjusting("DAMAGE", 2))
    desk.post(adjusting("CORRECTION", 9))
    assert.deepEqual(desk.balances("v"), [["default", "", 9, 0, 2]])
  })

  it.each([
    ["a CORRECTION", (desk: Desk, quantity: number) => void desk.post(adjusting("CORRECTION", quantity))],
    [
      "a count",
      (desk: Desk, quantity: number) =>
        void desk.post({ _tag: "CountStock", counts: [{ item: variant("v"), quantity }] })
    ]
  ])("are fewer where fewer are counted by %s, and nothing stays open", (_, count) => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 10))
    desk.post(adjusting("DAMAGE", 4))
    count(desk, 3)
    assert.deepEqual(desk.balances("v"), [["default", "", 3, 0, 3]])
    count(desk, 0)
    assert.deepEqual(desk.balances("v"), [["default", "", 0, 0, 0]])
    assert.notInclude(desk.openDiscrepancies(), "OVERCOMMITTED")
  })

  it("are none where a file of balances says that less than nothing is there", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 3))
    desk.post(adjusting("DAMAGE", 1))
    desk.post(adjusting("CORRECTION", -2))
    assert.deepEqual(desk.balances("v"), [["default", "", -2, 0, 0]])
    desk.post(adjusting("CORRECTION", -2))
    assert.deepEqual(desk.openDiscrepancies(), ["NEGATIVE_STOCK"])
  })

  it("are let go by a count that says what the books say, where more are damaged than there are", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 3))
    desk.post(adjusting("DAMAGE", 5))
    assert.deepEqual(desk.openDiscrepancies(), ["OVERCOMMITTED"])
    desk.post(adjusting("CORRECTION", 3))
    assert.deepEqual(desk.balances("v"), [["default", "", 3, 0, 3]])
    assert.deepEqual(desk.openDiscrepancies(), [])
  })

  it("go into quarantine and come back, and no more than there are", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 10))
    desk.post(adjusting("QUARANTINE", 4))
    assert.deepInclude(shown(desk), { quantity: 10, unallocatableQuantity: 4, availableQuantity: 6 })
    const refusal = desk.refusal(adjusting("UNQUARANTINE", 5))
    assert.deepInclude(refusal, { _tag: "UnallocatableExceeded", requested: 5, unallocatable: 4 })
    desk.post(adjusting("UNQUARANTINE", 3))
    assert.deepEqual(desk.balances("v"), [["default", "", 10, 0, 1]])
  })

  it("are fewer than what is thrown away: the rest is taken from what is good, and below zero if need be", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    desk.post(adjusting("DAMAGE", 2))
    desk.post(adjusting("WRITE_OFF", 3))
    assert.deepEqual(desk.balances("v"), [["default", "", 2, 0, 0]])
    desk.post(adjusting("WRITE_OFF", 3))
    assert.deepEqual(desk.balances("v"), [["default", "", -1, 0, 0]])
    assert.deepEqual(desk.openDiscrepancies(), ["NEGATIVE_STOCK"])
  })

  it("come back damaged, to the stock that they were sold from and beyond that", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    desk.post(reserving(2))
    desk.post(confirming)
    desk.post(adjusting("RETURN", 3, { orderId: "o", condition: "DAMAGED" }))
    assert.deepEqual(desk.balances("v"), [["default", "", 6, 0, 3]])
    desk.post({
      _tag: "ReturnGoods",
      messageId: "m",
      lines: [
        { productVariantId: "v", quantity: 1, condition: "DAMAGED" },
        { productVariantId: "v", quantity: 1 }
      ]
    })
    assert.deepEqual(desk.balances("v"), [["default", "", 8, 0, 4]])
  })

  it("are thrown away once where the reference is the same", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5))
    const given = { reference: "skip:1" }
    assert.isTrue(desk.post(adjusting("WRITE_OFF", 1, given)).applied)
    assert.isFalse(desk.post(adjusting("WRITE_OFF", 1, given)).applied)
    // The same paper may say that others are quarantined.
    assert.isTrue(desk.post(adjusting("QUARANTINE", 1, given)).applied)
    assert.deepEqual(desk.balances("v"), [["default", "", 4, 0, 1]])
  })
})

describe("the expiry of a lot", () => {
  it("is corrected with its count, wherever the lot lies, and an event tells", () => {
    const desk = deskWith()
    const [wrong, right] = [desk.now + 1_000, desk.now + 60_000]
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L", lotExpiresAt: wrong }))
    desk.post(adjusting("RECEIPT", 3, { lotNumber: "L", lotExpiresAt: wrong, locationId: "north" }))
    desk.post(adjusting("CORRECTION", 5, { lotNumber: "L", lotExpiresAt: right, locationId: "default" }))
    assert.deepEqual([expiryOf(desk), expiryOf(desk, "north")], [right, right])
    desk.pass(2)
    assert.strictEqual(shown(desk).availableQuantity, 8)
    const events = desk.eventsOfType("LotExpiryChanged")
    assert.deepEqual(
      events.map(({ data }) => [data["locationId"], data["expiresAtAfter"]]),
      ["default", "north"].map((locationId) => [locationId, new Date(right).toISOString()])
    )
    assert.deepEqual(
      desk.store.ledger.map(({ type }) => type),
      ["RECEIPT", "RECEIPT"]
    )
  })

  it("is taken off by null, and what can be sold and the status follow at once", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L", lotExpiresAt: desk.now + 1_000 }))
    desk.pass(1)
    assert.deepInclude(shown(desk), { availableQuantity: 0, unallocatableQuantity: 5 })
    const { item } = desk.post(adjusting("CORRECTION", 5, { lotNumber: "L", lotExpiresAt: null }))
    assert.deepInclude(item, { availableQuantity: 5, unallocatableQuantity: 0, status: "IN_STOCK" })
    assert.isNull(expiryOf(desk))
  })

  it("crosses to nothing where it is corrected to a day that is past", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L" }))
    desk.post(adjusting("CORRECTION", 5, { lotNumber: "L", lotExpiresAt: desk.now }))
    assert.strictEqual(desk.item("v").status, "OUT_OF_STOCK")
    assert.lengthOf(desk.eventsOfType("inventory.out_of_stock"), 1)
  })

  it("is one for the lot: another one of goods that come in is refused at any location, and none is the known one", () => {
    const desk = deskWith()
    const expiresAt = desk.now + 60_000
    desk.post(adjusting("RECEIPT", 5, { lotNumber: "L", lotExpiresAt: expiresAt }))
    const other = { lotNumber: "L", lotExpiresAt: expiresAt + 1, locationId: "north" }
    assert.strictEqual(desk.refusal(adjusting("RECEIPT", 1, other))._tag, "LotMismatch")
    desk.post(adjusting("RECEIPT", 1, { lotNumber: "L", locationId: "north" }))
    assert.strictEqual(expiryOf(desk, "north"), expiresAt)
    // Goods without a lot number are no lot: each place has its own.
    desk.post(adjusting("RECEIPT", 1, { lotExpiresAt: expiresAt }))
    desk.post(adjusting("RECEIPT", 1, { lotExpiresAt: expiresAt + 1, locationId: "north" }))
  })
})

describe("an item that is deleted while there is stock of it", () => {
  it("is deleted by the posting that sells the last unit, and its sku is free", () => {
    const desk = emptied()
    assert.isNotNull(desk.item("v").deletedAt)
    assert.deepEqual(desk.openDiscrepancies(), [])
    assert.isTrue(desk.post(ensuring({ productVariantId: "next", sku: "S" })).created)
    assert.deepEqual([desk.item("v").sku, desk.item("next").sku], [null, "S"])
  })

  it("gives its sku to an item that is known by it alone", () => {
    const desk = emptied()
    assert.isTrue(desk.post(ensuring({ sku: "S" })).created)
    assert.isNotNull(desk.item("v").deletedAt)
  })

  it("is not deleted while a unit of it is missing in one stock and there in another", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 1, { locationId: "north" }))
    desk.post(paid(1, { locationId: "default" }))
    desk.post(deleting)
    assert.deepInclude(desk.item("v"), { onHand: 0, deletedAt: null, status: "DISCONTINUED" })
    desk.post(adjusting("CORRECTION", 0, { locationId: "north" }))
    assert.isNull(desk.item("v").deletedAt)
    desk.post(adjusting("CORRECTION", 0, { locationId: "default" }))
    assert.isNotNull(desk.item("v").deletedAt)
  })

  it.each([
    ["a release", { _tag: "ReleaseReservation", orderId: "o", reason: "RELEASED" } as const],
    ["a write-off", undefined]
  ])("is deleted by %s too, if that is the last", (_, release) => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 2))
    if (release !== undefined) desk.post(reserving(1))
    desk.post(deleting)
    desk.post(adjusting("WRITE_OFF", 2))
    if (release !== undefined) {
      assert.isNull(desk.item("v").deletedAt)
      desk.post(release)
    }
    assert.isNotNull(desk.item("v").deletedAt)
  })

  it("comes back with a fact and goes again, and for good by a call only", () => {
    const desk = emptied()
    desk.post({ _tag: "ReturnGoods", messageId: "m", lines: [{ productVariantId: "v", quantity: 1 }] })
    assert.deepInclude(desk.item("v"), { deletedAt: null, status: "DISCONTINUED" })
    desk.post(adjusting("WRITE_OFF", 1))
    assert.isNotNull(desk.item("v").deletedAt)
    desk.post({ _tag: "ReturnGoods", messageId: "n", lines: [{ productVariantId: "v", quantity: 1 }] })
    desk.post(ensuring({ productVariantId: "v" }))
    desk.post(adjusting("WRITE_OFF", 1))
    assert.deepInclude(desk.item("v"), { deletedAt: null, status: "OUT_OF_STOCK" })
  })

  it("is deleted once: a repeat says that it changed nothing", () => {
    const desk = deskWith()
    assert.deepInclude(desk.post(deleting), { outcome: "DELETED", applied: true })
    assert.deepInclude(desk.post(deleting), { outcome: "DELETED", applied: false })
    const unknown = { ...deleting, productVariantId: "w", mustExist: true }
    assert.deepInclude(desk.post(unknown), { outcome: "UNKNOWN", applied: false })
    assert.throws(() => desk.item("w"))
  })
})

describe("captured rows", () => {
  it("swap their skus", () => {
    const desk = deskWith()
    desk.post(captured("1", "A"))
    desk.post(captured("2", "B"))
    desk.post(captured("1", "B"))
    assert.deepEqual(skus(desk), ["B", null])
    desk.post(captured("2", "A"))
    assert.deepEqual(skus(desk), ["B", "A"])
  })

  it("swap their skus in one batch", () => {
    const desk = deskWith()
    desk.post(captured("1", "A"))
    desk.post(captured("2", "B"))
    const verdicts = desk.batch(desk.posting(captured("1", "B")), desk.posting(captured("2", "A")))
    assert.isTrue(verdicts.every((verdict) => "answer" in verdict))
    assert.deepEqual(skus(desk), ["B", "A"])
  })

  it("take a sku from no item that the table does not have", () => {
    const desk = deskWith()
    assert.strictEqual(desk.refusal(captured("1", "S"))._tag, "ItemConflict")
    assert.strictEqual(desk.item("v").sku, "S")
  })

  it("get another key while there is stock: the sku goes with the new one, the old one when it is sold", () => {
    const desk = deskWith()
    desk.post(captured("1", "A"))
    desk.post(adjusting("RECEIPT", 1, { item: variant("1") }))
    desk.post({ _tag: "DeleteItem", productVariantId: "1" })
    assert.isTrue(desk.post(captured("2", "A")).created)
    assert.deepEqual(skus(desk), [null, "A"])
    assert.deepInclude(desk.item("1"), { status: "DISCONTINUED", onHand: 1, deletedAt: null })
    desk.post(adjusting("WRITE_OFF", 1, { item: variant("1") }))
    assert.isNotNull(desk.item("1").deletedAt)
  })
})

describe("the locations of a merchant", () => {
  it("are taken from in the order that they are given, the default one first", () => {
    const desk = deskWith()
    desk.post({ _tag: "EnsureLocation", locationId: "south" })
    for (const locationId of ["default", "north", "south"]) desk.post(adjusting("RECEIPT", 1, { locationId }))
    assert.deepInclude(desk.post(placing("south", { order: 1 })).location, { order: 1, retired: false })
    assert.deepEqual(orders(desk), ["default", "south", "north"])
    const { reservation } = desk.post(reserving(2))
    assert.deepEqual(
      reservation.lines.map(({ locationId }) => locationId),
      ["default", "south"]
    )
    desk.post(placing("south", { order: 9 }))
    assert.deepEqual(orders(desk), ["default", "north", "south"])
    desk.post({ _tag: "EnsureLocation", locationId: "east" })
    assert.deepEqual(orders(desk), ["default", "north", "south", "east"])
    desk.post(placing("east", { order: 0 }))
    assert.deepEqual(orders(desk), ["default", "east", "north", "south"])
    desk.post(placing("east", { order: 2 }))
    assert.deepEqual(orders(desk), ["default", "north", "east", "south"])
  })

  it("promise nothing new where they are retired; what was promised is sold, and facts are recorded", () => {
    const desk = deskWith()
    desk.post(adjusting("RECEIPT", 3, { locationId: "north" }))
    desk.post(reserving(1))
    desk.post(placing("north", { retired: true }))
    assert.deepInclude(shown(desk), { quantity: 3, unallocatableQuantity: 0, availableQuantity: 0 })
    assert.strictEqual(short(desk, reserving(1, { orderId: "another", locationId: "north" })), 0)
    assert.strictEqual(short(desk, adjusting("SALE", 1, { locationId: "north" })), 0)
    assert.isTrue(desk.post(confirming).applied)
    desk.post(adjusting("RECEIPT", 1, { locationId: "north" }))
    desk.post(paid(1, { locationId: "north" }))
    assert.deepEqual(desk.balances("v"), [["north", "", 2, 0, 0]])
    desk.post(placing("north", { retired: false }))
    assert.strictEqual(shown(desk).availableQuantity, 2)
  })

  it("have a default one that is neither moved nor retired", () => {
    const desk = deskWith()
    assert.strictEqual(desk.refusal(placing("default", { order: 1 }))._tag, "DefaultLocation")
    assert.strictEqual(desk.refusal(placing("default", { retired: true }))._tag, "DefaultLocation")
    assert.strictEqual(desk.post(placing("default", { name: "Shop", order: 0 })).location.name, "Shop")
    assert.strictEqual(desk.refusal(placing("nowhere", { name: "x" }))._tag, "LocationNotFound")
  })

  it("are told in answers that were kept before they had an order", () => {
    const desk = deskWith()
    const { locationId, name, isDefault, createdAt } = desk.post({
      _tag: "EnsureLocation",
      locationId: "north"
    }).location
    const idempotency = { key: "k", fingerprint: "f" }
    desk.store.idempotency.set(keyOf(merchantId, "k"), {
      merchantId,
      idempotencyKey: "k",
      fingerprint: "f",
      answer: JSON.stringify({
        posting: "p",
        command: "EnsureLocation",
        version: 1,
        answer: { at: desk.now, created: true, location: { locationId, name, isDefault, createdAt } }
      }),
      createdAt: desk.now
    })
    const replayed = desk.post({ _tag: "EnsureLocation", locationId: "north" }, { idempotency })
    assert.deepEqual(replayed.location, { locationId, name, isDefault, order: 1, retired: false, createdAt })
  })
})
