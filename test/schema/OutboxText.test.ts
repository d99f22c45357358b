import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { OutboxEvent } from "../../src/schema/Event.ts"
import { outboxPieces } from "../../src/schema/OutboxText.ts"

// Goal: events are written as JSON.stringify writes them, byte for byte. Method: events of every shape that the kernel
// makes, with names that hold any character (the kernel's own tests compare all events that it makes in the same way).

const name = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.constantFrom('"', "\\", "\u2028", "\ud800")
)
const orNull = fc.option(name)
const orNot = fc.option(name, { nil: undefined })
const figure = fc.maxSafeInteger()
const uuid = fc.uuid()

const names = { merchantId: name, itemId: uuid, productVariantId: orNull, sku: orNull }
const figures = { quantity: figure, reservedQuantity: figure, availableQuantity: figure }
const movement = fc.record({
  stockId: uuid,
  locationId: name,
  lotNumber: orNull,
  type: fc.constantFrom("RECEIPT", "ADJUSTMENT"),
  onHandDelta: figure,
  reservedDelta: figure,
  unallocatableDelta: figure
})
const moved = fc.record({
  ...names,
  orderId: orNot,
  reservationId: fc.option(uuid, { nil: undefined }),
  reason: fc.constantFrom("RELEASED", undefined),
  movements: fc.array(movement, { maxLength: 3 }),
  ...figures,
  sequence: figure
})
const levelChanged = fc.record({
  ...names,
  ...figures,
  changeType: fc.constantFrom("SALE", "CORRECTION"),
  quantityBefore: figure,
  quantityAfter: figure,
  sequence: figure
})
const statusChanged = fc.record({
  ...names,
  ...figures,
  statusBefore: fc.constant("IN_STOCK"),
  statusAfter: fc.constant("OUT_OF_STOCK"),
  sequence: figure
})
const told = fc.oneof(
  fc.tuple(fc.constantFrom("InventoryAllocated", "InventoryReleased", "InventoryAdjusted"), moved),
  fc.tuple(fc.constant("StockLevelChanged"), levelChanged),
  fc.tuple(fc.constant("StockStatusChanged"), statusChanged),
  fc.tuple(fc.constantFrom("DiscrepancyOpened", "inventory.confirmed"), fc.dictionary(name, fc.jsonValue()))
)
const event = fc
  .record({
    id: uuid.map((id) => `${id}.1`),
    key: name,
    told,
    merchantId: name,
    at: figure,
    requestId: name,
    traceparent: orNot
  })
  .map(({ at, id, key, merchantId, requestId, told: [type, data], traceparent }): OutboxEvent => ({
    id,
    topic: "inventory.events",
    key,
    type,
    data,
    merchantId,
    at,
    requestId,
    traceparent
  }))

const change =
  <K extends keyof OutboxEvent>(field: K, value: OutboxEvent[K]) =>
  (one: OutboxEvent) => ({
    ...one,
    [field]: value
  })
const rename = (field: string, value: string) => (one: OutboxEvent) => ({
  ...one,
  data: { ...one.data, [field]: value }
})
const changes = [
  change("merchantId", "other"),
  change("at", 1),
  change("requestId", "other"),
  change("traceparent", "00-other"),
  rename("merchantId", "other"),
  rename("itemId", "00000000-0000-7000-8000-000000000000"),
  rename("productVariantId", "other"),
  rename("sku", "other")
]

describe("outboxPieces", () => {
  it("writes what JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.array(event), (events) => {
        assert.strictEqual([...outboxPieces(events)].join(""), JSON.stringify(events))
      })
    )
  })

  it("tells apart neighbours that differ in one name alone", () => {
    fc.assert(
      fc.property(event, fc.constantFrom(...changes), (one, changed) => {
        const events = [one, changed(one), one]
        assert.strictEqual([...outboxPieces(events)].join(""), JSON.stringify(events))
      })
    )
  })
})
