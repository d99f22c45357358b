import { Schema } from "effect"
import { OutsideId, Uuid } from "./Identifier.ts"
import { itemStatuses, movementTypes } from "./Posting.ts"
import { Balance, Total } from "./Quantity.ts"
import { Timestamp } from "./Time.ts"

/**
 * What Holdfast tells other services (CONTRACTS section 6): the `data` of each type of event. Fields are only ever added
 * here. A test compares what is published with these, field by field.
 */

const ItemStatus = Schema.Literals(itemStatuses).annotate({ identifier: "ItemStatus" })
const MovementType = Schema.Literals(movementTypes).annotate({ identifier: "MovementType" })

const names = {
  merchantId: OutsideId,
  itemId: Uuid,
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  /** Of the item's events: without gaps, so that a consumer sees what it has missed. */
  sequence: Schema.Int.annotate({ description: "Number of the event among those of its item, from 1" })
}
const figures = { quantity: Balance, reservedQuantity: Balance, availableQuantity: Total }

const Movement = Schema.Struct({
  stockId: Uuid,
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  type: MovementType,
  onHandDelta: Balance,
  reservedDelta: Balance,
  unallocatableDelta: Balance
}).annotate({ identifier: "Movement" })

const moved = {
  ...names,
  orderId: Schema.optionalKey(OutsideId),
  reservationId: Schema.optionalKey(Uuid),
  movements: Schema.Array(Movement),
  ...figures
}

export const InventoryAllocated = Schema.Struct(moved).annotate({ identifier: "InventoryAllocated" })
export const InventoryReleased = Schema.Struct({
  ...moved,
  reason: Schema.optionalKey(Schema.Literals(["RELEASED", "EXPIRED", "CANCELLED"]))
}).annotate({ identifier: "InventoryReleased" })
export const InventoryAdjusted = Schema.Struct(moved).annotate({ identifier: "InventoryAdjusted" })

export const StockLevelChanged = Schema.Struct({
  ...names,
  ...figures,
  changeType: Schema.Literals([
    "RECEIPT",
    "SALE",
    "RETURN",
    "CORRECTION",
    "TRANSFER_OUT",
    "TRANSFER_IN",
    "MATERIAL_CONSUME"
  ]),
  quantityBefore: Balance,
  quantityAfter: Balance
}).annotate({ identifier: "StockLevelChanged" })
export const StockStatusChanged = Schema.Struct({
  ...names,
  ...figures,
  statusBefore: ItemStatus,
  statusAfter: ItemStatus
}).annotate({ identifier: "StockStatusChanged" })

export const ReservationExpired = Schema.Struct({
  ...names,
  orderId: OutsideId,
  reservationId: Uuid,
  expiresAt: Timestamp
}).annotate({ identifier: "ReservationExpired" })

const discrepancy = {
  ...names,
  kind: Schema.String,
  stockId: Schema.NullOr(Uuid)
}
export const DiscrepancyOpened = Schema.Struct({
  ...discrepancy,
  discrepancyId: Uuid,
  orderId: Schema.optionalKey(OutsideId),
  detail: Schema.Record(Schema.String, Schema.Json)
}).annotate({ identifier: "DiscrepancyOpened" })
export const DiscrepancyClosed = Schema.Struct({
  ...discrepancy,
  discrepancyId: Schema.optionalKey(Uuid)
}).annotate({ identifier: "DiscrepancyClosed" })

/** The answers to `order.created` and `inventory.confirm_requested`. */
export const InventoryConfirmed = Schema.Struct({
  merchantId: OutsideId,
  orderId: OutsideId,
  reservationId: Uuid
}).annotate({ identifier: "InventoryConfirmed" })
export const InventoryConfirmationFailed = Schema.Struct({
  merchantId: OutsideId,
  orderId: OutsideId,
  reservationId: Schema.NullOr(OutsideId),
  reason: Schema.Literals([
    "INSUFFICIENT_INVENTORY",
    "DISCONTINUED_ITEM",
    "ITEMS_MISMATCH",
    "ORDER_CANCELLED",
    "RESERVATION_NOT_FOUND",
    "RESERVATION_EXPIRED",
    "RESERVATION_CANCELLED"
  ]),
  items: Schema.Array(
    Schema.Struct({
      productVariantId: Schema.optionalKey(OutsideId),
      sku: Schema.optionalKey(OutsideId),
      requested: Total,
      available: Total
    })
  ).annotate({ description: "What is short, if that is the reason" })
}).annotate({ identifier: "InventoryConfirmationFailed" })

const crossing = {
  merchantId: OutsideId,
  productId: Schema.optionalKey(OutsideId),
  variantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  availableQuantity: Total,
  threshold: Total
}
export const InventoryOutOfStock = Schema.Struct(crossing).annotate({ identifier: "InventoryOutOfStock" })
export const InventoryLowStock = Schema.Struct(crossing).annotate({ identifier: "InventoryLowStock" })
