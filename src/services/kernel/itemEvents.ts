import type { ItemStatus } from "../../schema/Item.ts"
import { movementKind } from "../../schema/Movement.ts"
import {
  InventoryAdjusted,
  InventoryAllocated,
  InventoryLowStock,
  InventoryOutOfStock,
  InventoryReleased,
  StockLevelChanged,
  StockStatusChanged
} from "../../schema/OutgoingEvent.ts"
import { lotOf } from "./figures.ts"
import type { Moved, PostingContext, Touched } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"

/**
 * Emits what a posting did to an item, in the order of the item's sequence, and returns the last number. The data of each
 * event is written out: events are made with every movement, and gathered of parts they cost more than all else.
 */
export const eventsOfItem = (
  context: PostingContext,
  item: ItemRow,
  touched: Touched,
  now: { readonly available: number; readonly status: ItemStatus }
): number => {
  const { itemId, merchantId, onHand: quantity, productVariantId, reserved: reservedQuantity, sku } = item
  const { available: availableQuantity, status } = now
  let sequence = item.eventSequence
  for (const { movements, type } of eventsOf(touched.movements)) {
    const { orderId, releaseReason: reason, reservationId } = movements[0]!.notes
    sequence += 1
    // The row was inserted by this posting: undoing the posting undoes it as a whole.
    for (const { row } of movements) row.eventSequence = sequence
    // The three differ in the reason alone, which only a release has.
    context.emit(eventOfType[type] as typeof InventoryReleased, itemId, {
      merchantId,
      itemId,
      productVariantId,
      sku,
      orderId,
      reservationId,
      reason,
      movements: movements.map(movementData),
      quantity,
      reservedQuantity,
      availableQuantity,
      sequence
    })
  }
  for (const { data, event } of touched.events) {
    sequence += 1
    context.emit(event, itemId, { merchantId, itemId, productVariantId, sku, ...data, sequence })
  }
  if (quantity !== touched.quantityBefore) {
    const { type } = touched.movements.find(({ row }) => row.onHandDelta !== 0)!.row
    sequence += 1
    context.emit(StockLevelChanged, itemId, {
      merchantId,
      itemId,
      productVariantId,
      sku,
      quantity,
      reservedQuantity,
      availableQuantity,
      changeType: movementKind(type).changeType!,
      quantityBefore: touched.quantityBefore,
      quantityAfter: quantity,
      sequence
    })
  }
  if (status !== touched.statusBefore) {
    sequence += 1
    context.emit(StockStatusChanged, itemId, {
      merchantId,
      itemId,
      productVariantId,
      sku,
      quantity,
      reservedQuantity,
      availableQuantity,
      statusBefore: touched.statusBefore,
      statusAfter: status,
      sequence
    })
  }
  emitCrossings(context, item, touched.availableBefore, availableQuantity)
  return sequence
}

const eventOfType = { InventoryAllocated, InventoryReleased, InventoryAdjusted }

/** The events that carry the movements of an item: one for those of a type of event, in the order in which types come up. */
const eventsOf = (
  movements: ReadonlyArray<Moved>
): ReadonlyArray<{ readonly type: keyof typeof eventOfType; readonly movements: Array<Moved> }> => {
  const events: Array<{ readonly type: keyof typeof eventOfType; readonly movements: Array<Moved> }> = []
  for (const movement of movements) {
    const type = movementKind(movement.row.type).event
    const same = events.find((event) => event.type === type)
    if (same === undefined) events.push({ type, movements: [movement] })
    else same.movements.push(movement)
  }
  return events
}

const movementData = ({ row, stock }: Moved) => ({
  stockId: row.stockId,
  locationId: stock.locationId,
  lotNumber: lotOf(stock),
  type: row.type,
  onHandDelta: row.onHandDelta,
  reservedDelta: row.reservedDelta,
  unallocatableDelta: row.unallocatableDelta
})

/** Once per crossing of the item's total, not per sale (CONTRACTS section 6). */
const emitCrossings = (context: PostingContext, item: ItemRow, before: number, after: number): void => {
  const threshold = item.lowStockThreshold
  const isLow = threshold > 0 && before > threshold && after <= threshold
  const isOut = before > 0 && after <= 0
  if (!isLow && !isOut) return
  const data = {
    merchantId: item.merchantId,
    productId: item.productId ?? undefined,
    variantId: item.productVariantId,
    sku: item.sku,
    availableQuantity: after,
    threshold
  }
  if (isLow) context.emit(InventoryLowStock, item.itemId, data)
  if (isOut) context.emit(InventoryOutOfStock, item.itemId, data)
}
