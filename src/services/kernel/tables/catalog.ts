import type { ItemKind, ItemStatus } from "../../../schema/Item.ts"
import {
  bool,
  by,
  defineTable,
  int4,
  int8,
  orNull,
  readBy,
  type RowOf,
  text,
  timestamptz,
  uuid
} from "../Table.ts"
import { itemQuestions } from "../questions/catalog.ts"

/** Merchants, where they keep stock, and what they stock. */

export const merchants = defineTable({
  name: "merchant",
  key: { merchantId: text() },
  fixed: { createdAt: timestamptz() },
  changing: {}
})()

export const locations = defineTable({
  name: "location",
  key: { merchantId: text(), locationId: text() },
  fixed: { isDefault: bool(), createdAt: timestamptz() },
  changing: {
    name: orNull(text()),
    /** Stock is taken from the default location first, and then in this order. */
    position: int4(),
    /** Whether nothing new is promised from it; null: that was never so, and no status of an item can be older. */
    retired: orNull(bool())
  }
})({ indexes: { byId: by("locationId") }, lists: { ofMerchant: by("merchantId") } })
export type LocationRow = RowOf<typeof locations>

// location_pkey
export const locationsOfMerchant = readBy(locations, "merchantId")

/** The catalogue's columns change seldom; they travel with the figures all the same, so that one statement serves. */
export const items = defineTable({
  name: "item",
  key: { merchantId: text(), itemId: uuid() },
  fixed: { kind: text<ItemKind>(), createdAt: timestamptz() },
  changing: {
    productVariantId: orNull(text()),
    sku: orNull(text()),
    productId: orNull(text()),
    name: orNull(text()),
    unit: text(),
    stocked: bool(),
    lowStockThreshold: int8(),
    safetyStock: int8(),
    countTolerance: int8(),
    discontinued: bool(),
    initialized: bool(),
    status: text<ItemStatus>(),
    onHand: int8(),
    reserved: int8(),
    unallocatable: int8(),
    eventSequence: int8(),
    updatedAt: timestamptz(),
    deletedAt: orNull(timestamptz()),
    /** It was deleted while it was in stock or held: the posting that empties it deletes it. */
    deletionPending: bool(),
    /** Whether the captured table of product variants has a row of it, which says its sku. */
    captured: bool()
  }
})({
  unique: [
    ["merchantId", "productVariantId"],
    ["merchantId", "sku"]
  ],
  passing: ["sku"],
  indexes: { byId: by("itemId"), byVariant: by("productVariantId"), bySku: by("sku") },
  questions: itemQuestions
})
export type ItemRow = RowOf<typeof items>

/** Whose a captured row is: a delete carries the row's key alone. The newest record of a row says it. */
export const capturedVariants = defineTable({
  name: "captured_variant",
  key: { rowId: text() },
  fixed: {},
  changing: { ownerId: text() }
})({
  onConflict: `ON CONFLICT (row_id) DO UPDATE SET owner_id = excluded.owner_id
    WHERE captured_variant.owner_id <> excluded.owner_id`
})
