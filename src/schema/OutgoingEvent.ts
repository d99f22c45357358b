import type { Some } from "./Some.ts"
import { Schema } from "effect"
import { OutsideId, Uuid } from "./Identifier.ts"
import { itemStatuses } from "./Item.ts"
import { changesOfLevel, movementTypes } from "./Movement.ts"
import { Balance, Total } from "./Quantity.ts"
import { Timestamp } from "./Time.ts"

/**
 * What Holdfast emits to other services (CONTRACTS section 6): each event with its topic and the shape of its `data`. The
 * kernel emits by these definitions, AsyncAPI describes by them, and a test compares what is published with them. Fields
 * are only ever added.
 */
export interface EventDefinition<Data extends object> {
  readonly type: string
  readonly topic: string
  readonly summary: string
  readonly data: Schema.Codec<Some, Data>
}

/** An event of an item: its names and the number of the event are filled in when it is emitted. */
export interface ItemEventDefinition<Data extends object> extends EventDefinition<Data> {
  readonly ofItem: true
}

type OptionalKeys<D> = { [K in keyof D]-?: {} extends Pick<D, K> ? K : never }[keyof D]
/** A field that may be missing may be given as undefined: JSON leaves it out. */
type Given<D> = Omit<D, OptionalKeys<D>> & { readonly [K in OptionalKeys<D>]?: D[K] | undefined }
export type EventData<E> = E extends EventDefinition<infer Data> ? Given<Data> : never
export type ItemEventData<Data> = Given<Omit<Data, keyof typeof names>>

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

const itemEvent = <const Type extends string, Fields extends Schema.Struct.Fields>(
  type: Type,
  summary: string,
  fields: Fields
) => {
  const data = Schema.Struct({ ...names, ...fields }).annotate({ identifier: type })
  const definition: ItemEventDefinition<typeof data.Encoded> = {
    type,
    topic: "inventory.events",
    summary,
    data: data as never,
    ofItem: true
  }
  return definition
}

/** An event that has a topic to itself, whose name is its type. */
const event = <Fields extends Schema.Struct.Fields>(
  topic: string,
  identifier: string,
  summary: string,
  fields: Fields
) => {
  const data = Schema.Struct(fields).annotate({ identifier })
  const definition: EventDefinition<typeof data.Encoded> = {
    type: topic,
    topic,
    summary,
    data: data as never
  }
  return definition
}

const Movement = Schema.Struct({
  stockId: Uuid,
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  type: MovementType,
  onHandDelta: Balance,
  reservedDelta: Balance,
  unallocatableDelta: Balance
}).annotate({ identifier: "Movement" })

/** In the order in which they are emitted. */
export const movementFields: ReadonlyArray<string> = Object.keys(Movement.fields)

const moved = {
  orderId: Schema.optionalKey(OutsideId),
  reservationId: Schema.optionalKey(Uuid),
  movements: Schema.Array(Movement),
  ...figures
}

export const InventoryAllocated = itemEvent("InventoryAllocated", "Stock was promised to an order", moved)
export const InventoryReleased = itemEvent("InventoryReleased", "A promise ended without a sale", {
  ...moved,
  reason: Schema.optionalKey(Schema.Literals(["RELEASED", "EXPIRED", "CANCELLED"]))
})
export const InventoryAdjusted = itemEvent(
  "InventoryAdjusted",
  "Stock moved otherwise: received, sold, returned, counted, damaged",
  moved
)

export const StockLevelChanged = itemEvent("StockLevelChanged", "The item's total changed", {
  ...figures,
  changeType: Schema.Literals(changesOfLevel),
  quantityBefore: Balance,
  quantityAfter: Balance
})
export const StockStatusChanged = itemEvent("StockStatusChanged", "The item's status changed", {
  ...figures,
  statusBefore: ItemStatus,
  statusAfter: ItemStatus
})

export const LotExpiryChanged = itemEvent("LotExpiryChanged", "The expiry of a lot was corrected", {
  stockId: Uuid,
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  expiresAtBefore: Schema.NullOr(Timestamp),
  expiresAtAfter: Schema.NullOr(Timestamp)
})

export const ReservationExpired = itemEvent("ReservationExpired", "A reservation reached its end", {
  orderId: OutsideId,
  reservationId: Uuid,
  expiresAt: Timestamp
})

const discrepancy = { kind: Schema.String, stockId: Schema.NullOr(Uuid) }
export const DiscrepancyOpened = itemEvent("DiscrepancyOpened", "A fact contradicts the books", {
  ...discrepancy,
  discrepancyId: Uuid,
  orderId: Schema.optionalKey(OutsideId),
  detail: Schema.Record(Schema.String, Schema.Json)
})
export const DiscrepancyClosed = itemEvent("DiscrepancyClosed", "A contradiction ended, or was resolved", {
  ...discrepancy,
  discrepancyId: Schema.optionalKey(Uuid)
})

/** Why `inventory.confirmation_failed`. `INSUFFICIENT_INVENTORY` and an expired one name what is short. */
export const confirmationFailures = [
  "INSUFFICIENT_INVENTORY",
  "DISCONTINUED_ITEM",
  "ITEMS_MISMATCH",
  "ORDER_CANCELLED",
  "RESERVATION_NOT_FOUND",
  "RESERVATION_EXPIRED",
  "RESERVATION_CANCELLED"
] as const
export type ConfirmationFailure = (typeof confirmationFailures)[number]

/** The answers to `order.created` and `inventory.confirm_requested`. */
export const InventoryConfirmed = event(
  "inventory.confirmed",
  "InventoryConfirmed",
  "The order's stock is deducted",
  {
    merchantId: OutsideId,
    orderId: OutsideId,
    reservationId: Uuid,
    applied: Schema.optionalKey(Schema.Boolean).annotate({
      description: "false: all of it had been sold before, and this request changed nothing"
    })
  }
)
export const InventoryConfirmationFailed = event(
  "inventory.confirmation_failed",
  "InventoryConfirmationFailed",
  "Why, and what is short",
  {
    merchantId: OutsideId,
    orderId: OutsideId,
    reservationId: Schema.NullOr(OutsideId),
    reason: Schema.Literals(confirmationFailures),
    items: Schema.Array(
      Schema.Struct({
        productVariantId: Schema.optionalKey(OutsideId),
        sku: Schema.optionalKey(OutsideId),
        requested: Total,
        available: Total
      })
    ).annotate({ description: "What is short, if that is the reason" })
  }
)

const crossing = {
  merchantId: OutsideId,
  productId: Schema.optionalKey(OutsideId),
  variantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  availableQuantity: Total,
  threshold: Total
}
export const InventoryOutOfStock = event(
  "inventory.out_of_stock",
  "InventoryOutOfStock",
  "Sold out",
  crossing
)
export const InventoryLowStock = event("inventory.low_stock", "InventoryLowStock", "Running low", crossing)

/** Every event, in the order in which the topics describe them. */
export const outgoingEvents: ReadonlyArray<EventDefinition<Some>> = [
  InventoryAllocated,
  InventoryReleased,
  InventoryAdjusted,
  StockLevelChanged,
  StockStatusChanged,
  LotExpiryChanged,
  ReservationExpired,
  DiscrepancyOpened,
  DiscrepancyClosed,
  InventoryConfirmed,
  InventoryConfirmationFailed,
  InventoryOutOfStock,
  InventoryLowStock
]
