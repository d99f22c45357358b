import { DiscrepancyNotFound, DiscrepancyPersists, ItemConflict } from "../../schema/Failure.ts"
import type {
  Answers,
  EnsureItem,
  EnsureLocation,
  ItemAnswer,
  LocationAnswer,
  ResolveDiscrepancy
} from "../../schema/Posting.ts"
import { type Books, type ItemRow, type LocationRow, itemFigures, keyOf, openKey } from "./Books.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"

/** What is stocked and where: items, locations, merchants, and the work list of discrepancies. */

export const defaultLocationId = "default"

/** A merchant is created with its default location when it is first named (CONTRACTS section 5). */
export const ensureMerchant = (draft: Draft): void => {
  const { at, books, merchantId } = draft
  if (books.merchants.has(merchantId)) return
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
  books.index(books.locations, keyOf(merchantId, defaultLocationId), location)
}

/**
 * *ensureInventoryItem*: finds the item by product variant or sku, adopts one that was known by its sku alone, or
 * creates it. Attributes that are not given stay as they are.
 */
export const ensureItem = (draft: Draft, command: EnsureItem): Decision<Answers["EnsureItem"]> => {
  const { at, books, merchantId, posting } = draft
  const { productVariantId, sku } = command
  const byVariant =
    productVariantId === undefined ? undefined : books.itemsByVariant.get(keyOf(merchantId, productVariantId))
  const bySku = sku === undefined ? undefined : books.itemsBySku.get(keyOf(merchantId, sku))
  const conflict =
    byVariant !== undefined && bySku !== undefined
      ? byVariant !== bySku
      : bySku !== undefined && bySku.productVariantId !== null && productVariantId !== undefined
  if (conflict) {
    return refused(new ItemConflict({ productVariantId: productVariantId!, sku: sku! }))
  }
  const known = byVariant ?? bySku
  const given = definedOf({
    productVariantId,
    sku,
    name: command.name,
    productId: command.productId,
    unit: command.unit,
    stocked: command.stocked,
    lowStockThreshold: command.lowStockThreshold,
    safetyStock: command.safetyStock,
    discontinued: command.discontinued
  })
  if (known === undefined) {
    const item: ItemRow = {
      merchantId,
      itemId: posting.id,
      kind: command.kind,
      productVariantId: null,
      sku: null,
      productId: null,
      name: null,
      unit: "each",
      stocked: true,
      lowStockThreshold: 0,
      safetyStock: 0,
      discontinued: false,
      initialized: false,
      ...given,
      status: command.discontinued === true ? "DISCONTINUED" : "AWAITING_INITIAL_STOCK",
      onHand: 0,
      reserved: 0,
      unallocatable: 0,
      eventSequence: 0,
      createdAt: at,
      updatedAt: at,
      deletedAt: null
    }
    books.insert(books.written.items, item)
    books.index(books.items, keyOf(merchantId, item.itemId), item)
    indexNames(books, item)
    return answered({ at, created: true, item: itemAnswer(draft, item) })
  }
  const created = known.itemId === posting.id
  const patch = Object.fromEntries(
    Object.entries({ ...given, ...(known.deletedAt === null ? {} : { deletedAt: null }) }).filter(
      ([field, value]) => known[field as keyof ItemRow] !== value
    )
  ) as Partial<ItemRow>
  if (Object.keys(patch).length > 0) {
    // Touched first: a new threshold or a discontinuation changes the status, and that is told.
    draft.touch(known)
    // A sku that is given up is free for another item of the same batch.
    if (patch.sku !== undefined && known.sku !== null)
      books.unindex(books.itemsBySku, keyOf(merchantId, known.sku))
    books.change(books.changed.items, known, { ...patch, updatedAt: Math.max(known.updatedAt, at) })
    indexNames(books, known)
  }
  return answered({ at, created, item: itemAnswer(draft, known) })
}

const indexNames = (books: Books, item: ItemRow): void => {
  const { merchantId } = item
  if (item.productVariantId !== null)
    books.index(books.itemsByVariant, keyOf(merchantId, item.productVariantId), item)
  if (item.sku !== null) books.index(books.itemsBySku, keyOf(merchantId, item.sku), item)
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
  const known = books.locations.get(keyOf(merchantId, command.locationId))
  if (known !== undefined) {
    if (command.name !== undefined && command.name !== known.name) {
      books.change(books.changed.locations, known, { name: command.name })
    }
    return answered({ at, created: false, location: locationAnswer(known) })
  }
  let position = 0
  for (const other of books.locations.values()) {
    if (other.merchantId === merchantId) position = Math.max(position, other.position + 1)
  }
  const location = {
    merchantId,
    locationId: command.locationId,
    name: command.name ?? null,
    isDefault: false,
    position,
    createdAt: at
  }
  books.insert(books.written.locations, location)
  books.index(books.locations, keyOf(merchantId, command.locationId), location)
  return answered({ at, created: true, location: locationAnswer(location) })
}

/** Resolves by hand, with a reason. One whose condition lasts closes itself when the books are right, not before. */
export const resolveDiscrepancy = (
  draft: Draft,
  command: ResolveDiscrepancy
): Decision<Answers["ResolveDiscrepancy"]> => {
  const { at, books, merchantId, posting } = draft
  const { discrepancyId } = command
  const row = books.discrepancies.get(keyOf(merchantId, discrepancyId))
  if (row === undefined) return refused(new DiscrepancyNotFound({ discrepancyId }))
  if (row.status !== "OPEN") return answered({ at, discrepancyId, resolved: false })
  if (row.kind === "NEGATIVE_STOCK" || row.kind === "OVERCOMMITTED") {
    return refused(new DiscrepancyPersists({ discrepancyId }))
  }
  books.unindex(books.open, openKey(merchantId, row.subject, row.kind))
  books.change(books.changed.discrepancies, row, {
    status: "RESOLVED",
    closedAt: at,
    closedBy: posting.caller.actor,
    reason: command.reason
  })
  const item = row.itemId === null ? undefined : books.items.get(keyOf(merchantId, row.itemId))
  if (item !== undefined) {
    draft.notify(item, "DiscrepancyClosed", { discrepancyId, kind: row.kind, stockId: row.stockId })
  }
  return answered({ at, discrepancyId, resolved: true })
}

const definedOf = <A extends object>(fields: A): { [K in keyof A]?: Exclude<A[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof A]?: Exclude<A[K], undefined>
  }
