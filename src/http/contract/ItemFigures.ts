import { Schema } from "effect"
import { OutsideId } from "../../schema/Identifier.ts"
import { itemStatuses } from "../../schema/Item.ts"
import { Balance, Total } from "../../schema/Quantity.ts"

/** The state of an item, as the answers of several calls show it. */

export const ItemStatus = Schema.Literals(itemStatuses).annotate({ identifier: "ItemStatus" })

export const itemFigures = {
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  quantity: Balance,
  reservedQuantity: Balance,
  unallocatableQuantity: Balance,
  availableQuantity: Total,
  status: ItemStatus
}
