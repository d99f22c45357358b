import type { ItemKind } from "../../schema/Item.ts"
import { hasStock } from "./figures.ts"
import type { ItemKey, LocationKey } from "./Needs.ts"
import type { PostingContext } from "./PostingContext.ts"
import type { ItemRow, LocationRow } from "./tables/catalog.ts"

/** Items, locations and merchants as postings find, create and retire them. */

export const defaultLocationId = "default"

/** A merchant is created with its default location when it is first named (CONTRACTS section 5). */
export const ensureMerchant = (context: PostingContext): void => {
  const { at: createdAt, merchantId, unit } = context
  if (unit.knowsMerchant(merchantId)) return
  context.isNewMerchant = true
  unit.merchants.insert({ merchantId, createdAt })
  unit.locations.insert({
    merchantId,
    locationId: defaultLocationId,
    name: null,
    isDefault: true,
    position: 0,
    retired: null,
    createdAt
  })
}

/** The location that is named, created when a message is the first to do so; the default one where none is. */
export const locationOf = (context: PostingContext, key: LocationKey | string | undefined): LocationRow => {
  const { merchantId, unit } = context
  const { byId } = unit.locations.indexes
  if (key !== undefined) return byId.get(merchantId, key) ?? createLocation(context, key, null)
  const location = byId.get(merchantId, defaultLocationId)
  // Every merchant is given its default location in the posting that first names it.
  if (location?.isDefault !== true) throw new Error(`merchant ${merchantId} has no default location`)
  return location
}

export const createLocation = (
  { at: createdAt, merchantId, unit }: PostingContext,
  locationId: string,
  name: string | null
): LocationRow => {
  const others = unit.locations.lists.ofMerchant.get(merchantId, merchantId) ?? []
  const position = others.reduce((next, other) => Math.max(next, other.position + 1), 0)
  const location: LocationRow = {
    merchantId,
    locationId,
    name,
    isDefault: false,
    position,
    retired: null,
    createdAt
  }
  unit.locations.insert(location)
  return location
}

/** The attributes of an item that a caller may give. */
export interface ItemAttributes {
  readonly productVariantId?: string | undefined
  readonly sku?: string | undefined
  readonly name?: string | undefined
  readonly productId?: string | undefined
  readonly unit?: string | undefined
  readonly stocked?: boolean | undefined
  readonly lowStockThreshold?: number | undefined
  readonly safetyStock?: number | undefined
  readonly countTolerance?: number | undefined
  readonly discontinued?: boolean | undefined
  readonly captured?: boolean | undefined
}

export const createItem = (
  { at, merchantId, unit }: PostingContext,
  itemId: string,
  given: ItemAttributes,
  kind: ItemKind = "PRODUCT"
): ItemRow => {
  const discontinued = given.discontinued ?? false
  const item: ItemRow = {
    merchantId,
    itemId,
    kind,
    productVariantId: given.productVariantId ?? null,
    sku: given.sku ?? null,
    productId: given.productId ?? null,
    name: given.name ?? null,
    unit: given.unit ?? "each",
    stocked: given.stocked ?? true,
    lowStockThreshold: given.lowStockThreshold ?? 0,
    safetyStock: given.safetyStock ?? 0,
    countTolerance: given.countTolerance ?? 0,
    discontinued,
    initialized: false,
    status: discontinued ? "DISCONTINUED" : "AWAITING_INITIAL_STOCK",
    onHand: 0,
    reserved: 0,
    unallocatable: 0,
    eventSequence: 0,
    createdAt: at,
    updatedAt: at,
    deletedAt: null,
    deletionPending: false,
    captured: given.captured ?? false
  }
  unit.items.insert(item)
  return item
}

/** The item that a message names: created when it is first named, and found although it was deleted. */
export const itemOfMessage = (context: PostingContext, key: ItemKey): ItemRow => {
  if (!("variantId" in key)) throw new Error("messages name product variants")
  const { variantId: productVariantId } = key
  return (
    context.unit.items.indexes.byVariant.get(context.merchantId, productVariantId) ??
    createItem(context, context.nextId(), { productVariantId })
  )
}

/** Retires a deleted item: removes it, or marks it discontinued until it is not in stock nor held any more. */
export const retireItem = (context: PostingContext, item: ItemRow): void => {
  const { at, unit } = context
  context.touch(item)
  const updatedAt = Math.max(item.updatedAt, at)
  if (!hasStock(unit.stocksOf(item))) {
    if (item.deletedAt === null) unit.items.update(item, { deletedAt: at, deletionPending: false, updatedAt })
  } else if (!item.deletionPending || !item.discontinued) {
    unit.items.update(item, { deletedAt: null, discontinued: true, deletionPending: true, updatedAt })
  }
}

/** From its first count or receipt on, an item has stock to speak of. */
export const initialize = (context: PostingContext, item: ItemRow): void => {
  context.touch(item)
  if (!item.initialized) context.unit.items.update(item, { initialized: true })
}
