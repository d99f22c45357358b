/**
 * Values that the documentation shows in bodies and answers, by the name of the schema or, where that says more, of the
 * field. Without one a viewer makes text up from the pattern of an id, which nobody can read.
 */

const id = "01a1c0de-0000-7000-8000-000000000001"
const time = "2031-06-30T12:00:00.000Z"

export const examplesOfSchemas: Readonly<Record<string, string | number>> = {
  Balance: 8,
  Count: 10,
  ExpiresIn: 1800,
  NewItemId: "espresso-cup",
  OutsideId: "espresso-cup",
  Quantity: 2,
  Text: "monthly count",
  Timestamp: time,
  Total: 8,
  Uuid: id
}

export const examplesOfFields: Readonly<Record<string, string | number>> = {
  actor: "ann",
  closedAt: time,
  createdAt: time,
  detail: "What happened, and what to do about it.",
  expiresAt: time,
  instance: id,
  locationId: "paris",
  lotNumber: "L-2031",
  name: "Espresso cup",
  occurredAt: time,
  openedAt: time,
  orderId: "order-1001",
  productId: "espresso",
  productVariantId: "espresso-cup",
  recordedAt: time,
  reference: "delivery-1",
  sku: "CUP-1",
  updatedAt: time,
  variantId: "espresso-cup"
}
