import { Schema } from "effect"
import {
  DefaultLocation,
  DiscrepancyNotFound,
  DiscrepancyPersists,
  ItemConflict,
  LocationNotFound
} from "../../../schema/Failure.ts"
import { discrepancyKinds } from "../../../schema/Discrepancy.ts"
import { ItemAnswer, ItemKind, LocationAnswer } from "../../../schema/Item.ts"
import {
  createItem,
  createLocation,
  initialize,
  type ItemAttributes,
  locationOf,
  retireItem
} from "../catalogue.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { itemFigures } from "../figures.ts"
import type { TrackingKey } from "../Needs.ts"
import { answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { capturedVariants, type ItemRow, type LocationRow } from "../tables/catalog.ts"
import { discrepancyById } from "../tables/documents.ts"
import { initialStockKey, itemDeletedKey } from "../trackingKeys.ts"

/** What is stocked and where: items, locations, merchants; and discrepancies resolved by hand. */

/**
 * The idempotent upsert *ensureInventoryItem*: finds the item by product variant or sku, adopts one that was known by its
 * sku alone, or creates it. Attributes that are not given stay as they are.
 */
const ensureItemShape = commandShape({
  tag: "EnsureItem",
  payload: {
    productVariantId: Schema.optional(Schema.String),
    sku: Schema.optional(Schema.String),
    kind: ItemKind,
    name: Schema.optional(Schema.String),
    productId: Schema.optional(Schema.String),
    unit: Schema.optional(Schema.String),
    stocked: Schema.optional(Schema.Boolean),
    lowStockThreshold: Schema.optional(Schema.Number),
    safetyStock: Schema.optional(Schema.Number),
    /** How far a count may differ from the books, in base units, before it opens a discrepancy. */
    countTolerance: Schema.optional(Schema.Number),
    discontinued: Schema.optional(Schema.Boolean),
    /** Received once for the item, whatever else came in already. 0 says that there is none; without it nothing is said. */
    initialStock: Schema.optional(Schema.Number),
    /** What a message says may be older than a deletion that is known: then the item stays deleted. */
    keepsDeletion: Schema.optional(Schema.Boolean),
    /**
     * The captured row that the item comes from: its merchant is remembered, for a delete that carries the key alone. The
     * captured table is the truth of its names: a sku that another of its rows still has here moves to this one.
     */
    capturedRow: Schema.optional(Schema.String)
  },
  answer: Schema.Struct({ at: Schema.Number, created: Schema.Boolean, item: ItemAnswer }),
  refusals: [ItemConflict]
})
export type EnsureItem = PayloadOf<typeof ensureItemShape>

export const ensureItem = defineCommand(ensureItemShape, {
  source: "CATALOG",
  weight: () => 2,
  needs: (need, command) => {
    const { capturedRow, initialStock, productVariantId, sku } = command
    if (productVariantId !== undefined) need.item({ variantId: productVariantId }, { creates: true })
    if (sku !== undefined) need.item({ sku }, { creates: true })
    if (initialStock !== undefined) need.locations()
    if (capturedRow !== undefined) need.lock("captured", capturedRow)
    // Under the lock of the variant (or of the sku, where there is none).
    return {
      deleted:
        productVariantId === undefined
          ? undefined
          : need.tracking(itemDeletedKey(productVariantId), { isLocked: true }),
      initialStock:
        initialStock === undefined ? undefined : need.tracking(initialStockKey(command), { isLocked: true })
    }
  },
  decide: (context, command, keys) => {
    const { at, merchantId, posting, unit } = context
    const { productVariantId } = command
    const { bySku: itemsBySku, byVariant: itemsByVariant } = unit.items.indexes
    const byVariant =
      productVariantId === undefined ? undefined : itemsByVariant.get(merchantId, productVariantId)
    const deletion = keys.deleted === undefined ? undefined : context.tracked(keys.deleted)
    const isRevived = deletion !== undefined && command.keepsDeletion !== true
    if (isRevived) unit.tracking.remove(deletion)
    const isDeleted = deletion !== undefined && !isRevived
    // Its sku may be another's by now.
    const sku = isDeleted ? undefined : command.sku
    const named = sku === undefined ? undefined : itemsBySku.get(merchantId, sku)
    const isCaptured = command.capturedRow !== undefined
    // A deleted item needs its sku no longer; of captured rows, the one that was told last has it.
    const givesUp =
      named !== undefined &&
      named !== byVariant &&
      (named.deletedAt !== null || (isCaptured && named.captured))
    if (givesUp) unit.items.update(named, { sku: null, updatedAt: Math.max(named.updatedAt, at) })
    const bySku = givesUp ? undefined : named
    const conflict =
      byVariant !== undefined && bySku !== undefined
        ? byVariant !== bySku
        : bySku !== undefined && bySku.productVariantId !== null && productVariantId !== undefined
    if (conflict) return refused(new ItemConflict({ productVariantId: productVariantId!, sku: sku! }))
    const known = byVariant ?? bySku
    const given: ItemAttributes = {
      productVariantId,
      sku,
      name: command.name,
      productId: command.productId,
      unit: command.unit,
      stocked: command.stocked,
      lowStockThreshold: command.lowStockThreshold,
      safetyStock: command.safetyStock,
      countTolerance: command.countTolerance,
      discontinued: command.discontinued ?? (isRevived ? false : undefined),
      captured: isCaptured ? true : undefined
    }
    const item = known ?? createItem(context, posting.id, given, command.kind)
    if (known !== undefined) changeItem(context, known, given)
    if (command.initialStock !== undefined) {
      receiveInitialStock(context, item, keys.initialStock!, command.initialStock)
    }
    if (isDeleted) retireItem(context, item)
    else if (item.deletedAt !== null || item.deletionPending) {
      const updatedAt = Math.max(item.updatedAt, at)
      unit.items.update(item, { deletedAt: null, deletionPending: false, updatedAt })
    }
    if (command.capturedRow !== undefined) {
      unit.rows(capturedVariants).insert({ rowId: command.capturedRow, ownerId: merchantId })
    }
    return answered({ at, created: item.itemId === posting.id, item: itemAnswer(context, item) })
  }
})

const changeItem = (context: PostingContext, item: ItemRow, given: ItemAttributes): void => {
  const changes = Object.entries(given).filter(
    ([field, value]) => value !== undefined && item[field as keyof ItemRow] !== value
  )
  if (changes.length === 0) return
  // Touched first: a new threshold or a discontinuation changes the status, and an event says so.
  context.touch(item)
  const patch: Partial<ItemRow> = Object.fromEntries(changes)
  context.unit.items.update(item, { ...patch, updatedAt: Math.max(item.updatedAt, context.at) })
}

/** Goods that an item came with: a fact, once for the item. None is an answer too: then it is out of stock. */
const receiveInitialStock = (
  context: PostingContext,
  item: ItemRow,
  applied: TrackingKey,
  quantity: number
): void => {
  if (context.tracked(applied) !== undefined) return
  context.track(applied)
  initialize(context, item)
  if (quantity === 0 || !item.stocked) return
  context.move(context.stockIn(item, locationOf(context, undefined)), "RECEIPT", { onHand: quantity })
}

const itemAnswer = ({ at, unit }: PostingContext, item: ItemRow): ItemAnswer => ({
  ...itemFigures(unit, item, at),
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

/**
 * A product variant is gone: soft-deleted where nothing is in stock nor held, otherwise DISCONTINUED with a discrepancy
 * until that is so. One that was never heard of is remembered as deleted. Harmless to repeat.
 */
const deleteItemShape = commandShape({
  tag: "DeleteItem",
  payload: {
    productVariantId: Schema.String,
    /** Leaves what was never heard of alone, instead of remembering that it is deleted. */
    mustExist: Schema.optional(Schema.Boolean)
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** REMEMBERED: it was not known, and will be deleted when it is. UNKNOWN: the same, and nothing was done. */
    outcome: Schema.Literals(["DELETED", "DISCONTINUED", "REMEMBERED", "UNKNOWN"]),
    /** False where it had been deleted before. */
    applied: Schema.Boolean
  }),
  refusals: [],
  version: 2,
  upgrade: (kept, version) => (version === 1 ? { ...(kept as object), applied: true } : kept)
})
export type DeleteItem = PayloadOf<typeof deleteItemShape>

export const deleteItem = defineCommand(deleteItemShape, {
  needs: (need, { productVariantId }) => {
    need.item({ variantId: productVariantId }, { creates: true })
    return { deleted: need.tracking(itemDeletedKey(productVariantId), { isLocked: true }) }
  },
  decide: (context, { mustExist, productVariantId }, { deleted }) => {
    const { at, merchantId, posting, unit } = context
    const known = unit.items.indexes.byVariant.get(merchantId, productVariantId)
    if (known === undefined && mustExist === true) return answered({ at, outcome: "UNKNOWN", applied: false })
    const applied = context.tracked(deleted) === undefined
    if (applied) context.track(deleted)
    // Remembered as an item that is deleted, so that a fact about it finds it so.
    const item = known ?? createItem(context, posting.id, { productVariantId })
    retireItem(context, item)
    const outcome = known === undefined ? "REMEMBERED" : item.deletedAt === null ? "DISCONTINUED" : "DELETED"
    return answered({ at, outcome, applied })
  }
})

/** *ensureDefaultLocation*: the merchant with its default location. Harmless to repeat. */
const ensureMerchantCommandShape = commandShape({
  tag: "EnsureMerchant",
  payload: {},
  answer: Schema.Struct({ at: Schema.Number, created: Schema.Boolean }),
  refusals: []
})
export type EnsureMerchant = PayloadOf<typeof ensureMerchantCommandShape>

export const ensureMerchantCommand = defineCommand(ensureMerchantCommandShape, {
  needs: () => undefined,
  // Done for every posting, before it is decided.
  decide: ({ at, isNewMerchant }) => answered({ at, created: isNewMerchant })
})

const ensureLocationShape = commandShape({
  tag: "EnsureLocation",
  payload: { locationId: Schema.String, name: Schema.optional(Schema.String) },
  answer: Schema.Struct({ at: Schema.Number, created: Schema.Boolean, location: LocationAnswer }),
  refusals: [],
  version: 2,
  upgrade: (kept, version) => (version === 1 ? withPlace(kept as KeptLocation) : kept)
})
export type EnsureLocation = PayloadOf<typeof ensureLocationShape>

interface KeptLocation {
  readonly location: Omit<LocationAnswer, "order" | "retired">
}
/** An answer from before locations were ordered and retired: the place is the least that it can have been. */
const withPlace = ({ location, ...kept }: KeptLocation) => ({
  ...kept,
  location: { ...location, order: location.isDefault ? 0 : 1, retired: false }
})

export const ensureLocation = defineCommand(ensureLocationShape, {
  needs: (need, { locationId, name }) => {
    if (name !== undefined) need.locationsToChange()
    return { location: need.location(locationId, { creates: true }) }
  },
  decide: (context, { locationId, name }, keys) => {
    const { at, unit } = context
    const known = context.location(keys.location)
    if (known === undefined) {
      const location = createLocation(context, locationId, name ?? null)
      return answered({ at, created: true, location: locationAnswer(location) })
    }
    if (name !== undefined && name !== known.name) unit.locations.update(known, { name })
    return answered({ at, created: false, location: locationAnswer(known) })
  }
})

/**
 * Renames a location, moves it in the picking order, or retires it. What is not given stays as it is. The default location
 * comes first and is where goods go that name no other: it can be neither moved nor retired.
 */
const updateLocationShape = commandShape({
  tag: "UpdateLocation",
  payload: {
    locationId: Schema.String,
    name: Schema.optional(Schema.String),
    /** Its place among the locations after the default one, from 1; what is past the last is the last. */
    order: Schema.optional(Schema.Number),
    retired: Schema.optional(Schema.Boolean)
  },
  answer: Schema.Struct({ at: Schema.Number, location: LocationAnswer }),
  refusals: [DefaultLocation, LocationNotFound]
})
export type UpdateLocation = PayloadOf<typeof updateLocationShape>

export const updateLocation = defineCommand(updateLocationShape, {
  needs: (need, { locationId }) => {
    need.locationsToChange()
    return { location: need.location(locationId) }
  },
  decide: (context, { locationId, name, order, retired }, keys) => {
    const { at, unit } = context
    const location = context.location(keys.location)
    if (location === undefined) return refused(new LocationNotFound({ locationId }))
    const isMoved = order !== undefined && order !== location.position
    const isRetired = location.retired === true
    if (location.isDefault && (isMoved || retired === true))
      return refused(new DefaultLocation({ locationId }))
    if (name !== undefined && name !== location.name) unit.locations.update(location, { name })
    if (retired !== undefined && retired !== isRetired) changeLocation(context, location, { retired })
    if (isMoved) moveLocation(context, location, order)
    return answered({ at, location: locationAnswer(location) })
  }
})

/** Stocks carry what is asked of their location: those that the batch has read are to be picked by what it says now. */
const changeLocation = (
  { merchantId, unit }: PostingContext,
  location: LocationRow,
  change: { readonly retired: boolean } | { readonly position: number }
): void => {
  unit.locations.update(location, change)
  const { locationId, position: locationPosition } = location
  const locationRetired = location.retired === true
  for (const [merchant, , stock] of unit.stocks.indexes.byId) {
    if (merchant !== merchantId || stock.locationId !== locationId) continue
    unit.stocks.update(stock, { locationPosition, locationRetired })
  }
}

const moveLocation = (context: PostingContext, location: LocationRow, order: number): void => {
  const { merchantId, unit } = context
  const others = (unit.locations.lists.ofMerchant.get(merchantId, merchantId) ?? [])
    .filter((other) => !other.isDefault && other !== location)
    .sort((a, b) => a.position - b.position)
  const inOrder = others.toSpliced(Math.max(0, order - 1), 0, location)
  for (const [index, other] of inOrder.entries()) {
    if (other.position !== index + 1) changeLocation(context, other, { position: index + 1 })
  }
}

/** A copy: a later posting of the batch may change the row, and an answer stays as it was given. */
const locationAnswer = ({
  createdAt,
  isDefault,
  locationId,
  name,
  position: order,
  retired
}: LocationRow): LocationAnswer => ({
  locationId,
  name,
  isDefault,
  order,
  retired: retired === true,
  createdAt
})

/** Resolves by hand, with a reason. One whose condition lasts closes itself when the books are right, not before. */
const resolveDiscrepancyShape = commandShape({
  tag: "ResolveDiscrepancy",
  payload: { discrepancyId: Schema.String, reason: Schema.String },
  answer: Schema.Struct({ at: Schema.Number, discrepancyId: Schema.String, resolved: Schema.Boolean }),
  refusals: [DiscrepancyNotFound, DiscrepancyPersists]
})
export type ResolveDiscrepancy = PayloadOf<typeof resolveDiscrepancyShape>

export const resolveDiscrepancy = defineCommand(resolveDiscrepancyShape, {
  needs: (need, { discrepancyId }) => ({ discrepancy: need.row(discrepancyById, discrepancyId) }),
  decide: (context, { discrepancyId, reason }, keys) => {
    const { at, posting } = context
    const row = context.row(discrepancyById, keys.discrepancy)
    if (row === undefined) return refused(new DiscrepancyNotFound({ discrepancyId }))
    if (row.status !== "OPEN") return answered({ at, discrepancyId, resolved: false })
    if (discrepancyKinds[row.kind].closesItself) return refused(new DiscrepancyPersists({ discrepancyId }))
    context.closeDiscrepancy(row, { actor: posting.caller.actor, reason })
    return answered({ at, discrepancyId, resolved: true })
  }
})
