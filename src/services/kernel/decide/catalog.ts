import { DiscrepancyNotFound, DiscrepancyPersists, ItemConflict } from "../../../schema/Failure.ts"
import type {
  Answers,
  DeleteItem,
  EnsureItem,
  EnsureLocation,
  ItemAnswer,
  LocationAnswer,
  ResolveDiscrepancy
} from "../../../schema/Posting.ts"
import { type Books, type ItemRow, type LocationRow, isEmpty, itemFigures, openKey } from "./Books.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"

/** What is stocked and where: items, locations, merchants, and the work list of discrepancies. */

export const defaultLocationId = "default"

/** A merchant is created with its default location when it is first named (CONTRACTS section 5). */
export const ensureMerchant = (draft: Draft): void => {
  const { at, books, merchantId } = draft
  if (books.merchants.has(merchantId)) return
  draft.isNewMerchant = true
  books.insert(books.merchants, merchantId)
  books.insert(books.written.merchants, merchantId)
  const location = {
    merchantId,
    locationId: defaultLocationId,
    name: null,
    isDefault: true,
    position: 0,
    createdAt: at
  }
  books.insert(books.written.locations, location)
  books.index(books.locations, merchantId, defaultLocationId, location)
}

/** That a product variant was deleted: what messages say of it may be older. */
export const deletedItemKey = (productVariantId: string): string => `ITEM_DELETED\u001f${productVariantId}`

/** The initial stock of an item, under the name by which it is told. */
export const initialStockKey = ({ productVariantId, sku }: EnsureItem): string =>
  ["INITIAL_STOCK", ...(productVariantId === undefined ? ["sku", sku] : ["variant", productVariantId])].join(
    "\u001f"
  )

/**
 * *ensureInventoryItem*: finds the item by product variant or sku, adopts one that was known by its sku alone, or
 * creates it. Attributes that are not given stay as they are.
 */
export const ensureItem = (draft: Draft, command: EnsureItem): Decision<Answers["EnsureItem"]> => {
  const { at, books, merchantId, posting } = draft
  const { productVariantId } = command
  const byVariant =
    productVariantId === undefined ? undefined : books.itemsByVariant.get(merchantId, productVariantId)
  const deletion =
    productVariantId === undefined
      ? undefined
      : books.tracking.get(merchantId, deletedItemKey(productVariantId))
  const isRevived = deletion !== undefined && command.keepsDeletion !== true
  if (isRevived) books.forget(deletion)
  const isDeleted = deletion !== undefined && !isRevived
  // Its sku may be another's by now.
  const sku = isDeleted ? undefined : command.sku
  const named = sku === undefined ? undefined : books.itemsBySku.get(merchantId, sku)
  // An item that is deleted needs its sku no longer: product variants come and go, skus stay.
  const isFree =
    named !== undefined && named !== byVariant && named.deletedAt !== null && productVariantId !== undefined
  if (isFree) renameSku(draft, named, null)
  const bySku = isFree ? undefined : named
  const conflict =
    byVariant !== undefined && bySku !== undefined
      ? byVariant !== bySku
      : bySku !== undefined && bySku.productVariantId !== null && productVariantId !== undefined
  if (conflict) {
    return refused(new ItemConflict({ productVariantId: productVariantId!, sku: sku! }))
  }
  const known = byVariant ?? bySku
  const given = {
    productVariantId,
    sku,
    name: command.name,
    productId: command.productId,
    unit: command.unit,
    stocked: command.stocked,
    lowStockThreshold: command.lowStockThreshold,
    safetyStock: command.safetyStock,
    countTolerance: command.countTolerance,
    discontinued: command.discontinued ?? (isRevived ? false : undefined)
  }
  const item = known ?? createItem(draft, posting.id, given, command.kind)
  if (known !== undefined) changeItem(draft, known, definedOf(given))
  if (command.initialStock !== undefined) receiveInitialStock(draft, command, item, command.initialStock)
  if (isDeleted) bury(draft, item)
  else if (item.deletedAt !== null)
    books.change(books.changed.items, item, { deletedAt: null, updatedAt: Math.max(item.updatedAt, at) })
  if (command.capturedRow !== undefined)
    books.insert(books.written.captured, { rowId: command.capturedRow, merchantId })
  return answered({ at, created: item.itemId === posting.id, item: itemAnswer(draft, item) })
}

type ItemAttributes = { [K in Exclude<keyof EnsureItem, "_tag">]?: Exclude<EnsureItem[K], undefined> }

const createItem = (
  draft: Draft,
  itemId: string,
  given: { readonly [K in keyof ItemAttributes]?: ItemAttributes[K] | undefined },
  kind: EnsureItem["kind"] = "PRODUCT"
): ItemRow => {
  const { at, books, merchantId } = draft
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
    deletedAt: null
  }
  books.insertItem(item)
  indexNames(books, item)
  return item
}

const changeItem = (draft: Draft, item: ItemRow, given: ItemAttributes): void => {
  const { at, books } = draft
  const patch: ItemAttributes = Object.fromEntries(
    Object.entries(given).filter(([field, value]) => item[field as keyof ItemRow] !== value)
  )
  if (Object.keys(patch).length === 0) return
  // Touched first: a new threshold or a discontinuation changes the status, and that is told.
  draft.touch(item)
  if (patch.sku !== undefined) renameSku(draft, item, patch.sku)
  books.change(books.changed.items, item, { ...patch, updatedAt: Math.max(item.updatedAt, at) })
  indexNames(books, item)
}

/** A sku that is given up is free for another item of the same batch. */
const renameSku = ({ books, merchantId }: Draft, item: ItemRow, sku: string | null): void => {
  if (item.sku !== null) {
    books.unindex(books.itemsBySku, merchantId, item.sku)
    if (!books.written.items.has(item)) books.insert(books.written.freedSkus, item)
  }
  books.change(books.changed.items, item, { sku })
}

/** Goods that an item came with: a fact, once for the item. None is an answer too: then it is out of stock. */
const receiveInitialStock = (draft: Draft, command: EnsureItem, item: ItemRow, quantity: number): void => {
  const { at, books, merchantId, posting } = draft
  const trackingKey = initialStockKey(command)
  if (books.tracking.has(merchantId, trackingKey)) return
  books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  draft.touch(item)
  if (!item.initialized) books.change(books.changed.items, item, { initialized: true })
  if (quantity === 0 || !item.stocked) return
  const stock = draft.stockIn(item, locationOf(draft, undefined))
  draft.move(stock, "RECEIPT", { onHand: quantity }, { source: "CATALOG" })
}

export const deleteItem = (draft: Draft, command: DeleteItem): Decision<Answers["DeleteItem"]> => {
  const { at, books, merchantId, posting } = draft
  const { productVariantId } = command
  const trackingKey = deletedItemKey(productVariantId)
  if (!books.tracking.has(merchantId, trackingKey)) {
    books.track({ merchantId, trackingKey, postingId: posting.id, answer: null, recordedAt: at })
  }
  const known = books.itemsByVariant.get(merchantId, productVariantId)
  // Remembered as an item that is deleted, so that a fact about it finds it so.
  const item = known ?? createItem(draft, posting.id, { productVariantId })
  bury(draft, item)
  const outcome = known === undefined ? "REMEMBERED" : item.deletedAt === null ? "DISCONTINUED" : "DELETED"
  return answered({ at, outcome })
}

/** What a deletion leaves of an item: nothing, or, while there is stock of it, one that is sold no more. */
export const bury = (draft: Draft, item: ItemRow): void => {
  const { at, books } = draft
  draft.touch(item)
  if (isEmpty(books, item)) {
    if (item.deletedAt === null)
      books.change(books.changed.items, item, { deletedAt: at, updatedAt: Math.max(item.updatedAt, at) })
  } else if (item.deletedAt !== null || !item.discontinued) {
    books.change(books.changed.items, item, {
      deletedAt: null,
      discontinued: true,
      updatedAt: Math.max(item.updatedAt, at)
    })
  }
}

/** The item that a message speaks of: created when it is first named, and found although it was deleted. */
export const itemOfMessage = (draft: Draft, productVariantId: string): ItemRow =>
  draft.books.itemsByVariant.get(draft.merchantId, productVariantId) ??
  createItem(draft, draft.nextId(), { productVariantId })

/** The location that is named, created when a message is the first to do so; the default one where none is. */
export const locationOf = (draft: Draft, locationId: string | undefined): LocationRow => {
  const { books, merchantId } = draft
  if (locationId !== undefined) {
    return books.locations.get(merchantId, locationId) ?? createLocation(draft, locationId, null)
  }
  const location = books.locations.get(merchantId, defaultLocationId)
  // Every merchant is given its default location in the posting that first names it.
  if (location?.isDefault !== true) throw new Error(`merchant ${merchantId} has no default location`)
  return location
}

const indexNames = (books: Books, item: ItemRow): void => {
  const { merchantId } = item
  if (item.productVariantId !== null)
    books.index(books.itemsByVariant, merchantId, item.productVariantId, item)
  if (item.sku !== null) books.index(books.itemsBySku, merchantId, item.sku, item)
}

const itemAnswer = (draft: Draft, item: ItemRow): ItemAnswer => ({
  ...itemFigures(draft.books, item, draft.at),
  kind: item.kind,
  productId: item.productId,
  name: item.name,
  unit: item.unit,
  stocked: item.stocked,
  lowStockThreshold: item.lowStockThreshold,
  safetyStock: item.safetyStock,
  countTolerance: item.countTolerance,
  createdAt: item.createdAt,
  updatedAt: item.updatedAt
})

/** A copy: a later posting of the batch may change the row, and an answer stays as it was given. */
const locationAnswer = ({ createdAt, isDefault, locationId, name }: LocationRow): LocationAnswer => ({
  locationId,
  name,
  isDefault,
  createdAt
})

export const ensureLocation = (
  draft: Draft,
  command: EnsureLocation
): Decision<Answers["EnsureLocation"]> => {
  const { at, books, merchantId } = draft
  const known = books.locations.get(merchantId, command.locationId)
  if (known !== undefined) {
    if (command.name !== undefined && command.name !== known.name) {
      books.change(books.changed.locations, known, { name: command.name })
    }
    return answered({ at, created: false, location: locationAnswer(known) })
  }
  const location = createLocation(draft, command.locationId, command.name ?? null)
  return answered({ at, created: true, location: locationAnswer(location) })
}

const createLocation = (draft: Draft, locationId: string, name: string | null): LocationRow => {
  const { at, books, merchantId } = draft
  let position = 0
  for (const other of books.locations.values()) {
    if (other.merchantId === merchantId) position = Math.max(position, other.position + 1)
  }
  const location = { merchantId, locationId, name, isDefault: false, position, createdAt: at }
  books.insert(books.written.locations, location)
  books.index(books.locations, merchantId, locationId, location)
  return location
}

const closesItself: ReadonlySet<string> = new Set([
  "NEGATIVE_STOCK",
  "OVERCOMMITTED",
  "DISCONTINUED_WITH_STOCK"
])

/** Resolves by hand, with a reason. One whose condition lasts closes itself when the books are right, not before. */
export const resolveDiscrepancy = (
  draft: Draft,
  command: ResolveDiscrepancy
): Decision<Answers["ResolveDiscrepancy"]> => {
  const { at, books, merchantId, posting } = draft
  const { discrepancyId } = command
  const row = books.discrepancies.get(merchantId, discrepancyId)
  if (row === undefined) return refused(new DiscrepancyNotFound({ discrepancyId }))
  if (row.status !== "OPEN") return answered({ at, discrepancyId, resolved: false })
  if (closesItself.has(row.kind)) return refused(new DiscrepancyPersists({ discrepancyId }))
  books.unindex(books.open, merchantId, openKey(row.subject, row.kind))
  books.change(books.changed.discrepancies, row, {
    status: "RESOLVED",
    closedAt: at,
    closedBy: posting.caller.actor,
    reason: command.reason
  })
  const item = row.itemId === null ? undefined : books.items.get(merchantId, row.itemId)
  if (item !== undefined) {
    draft.notify(item, "DiscrepancyClosed", { discrepancyId, kind: row.kind, stockId: row.stockId })
  }
  return answered({ at, discrepancyId, resolved: true })
}

const definedOf = <A extends object>(fields: A): { [K in keyof A]?: Exclude<A[K], undefined> } => {
  const defined: { [K in keyof A]?: Exclude<A[K], undefined> } = {}
  for (const field in fields) {
    const value = fields[field]
    if (value !== undefined) defined[field] = value as Exclude<A[typeof field], undefined>
  }
  return defined
}
