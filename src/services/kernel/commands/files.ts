import { Schema } from "effect"
import { type BalanceOverflow, type ItemConflict, RefusalData, StockMoved } from "../../../schema/Failure.ts"
import type { ItemRef } from "../../../schema/Item.ts"
import { StockFileRow } from "../../../schema/StockFileRow.ts"
import { createLocation } from "../catalogue.ts"
import { type AnswerOf, commandShape, defineCommand, type PayloadOf, type RefusalOf } from "../Command.ts"
import type { LocationKey, Needs, RowKey } from "../Needs.ts"
import { perform } from "../operation.ts"
import { answered } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { matchStock } from "../stockMatching.ts"
import type { ItemRow } from "../tables/catalog.ts"
import { fileChunkByKey, type FileChunkRow, fileChunks } from "../tables/files.ts"
import type { StockRow } from "../tables/stock.ts"
import { postingKey } from "../trackingKeys.ts"
import { type EnsureItem, ensureItem } from "./catalog.ts"
import { type AdjustStock, adjustStock } from "./stock.ts"

/** Rows of a file of stock (CONTRACTS section 8). */

/** Lines from the first to the last, both of them included. */
const LineRange = Schema.Tuple([Schema.Number, Schema.Number])
const Load = Schema.Struct({
  at: Schema.Number,
  /** Which run of an import it was. */
  run: Schema.String,
  lines: Schema.Array(LineRange)
})
type Load = typeof Load.Type

const payload = {
  /** The file, by its bytes. */
  fileHash: Schema.String,
  /** The chunk, by its place in the file: the same lines whenever the file is read. */
  chunk: Schema.Number,
  run: Schema.String,
  /** Loads what another run has loaded once more. */
  again: Schema.Boolean,
  reason: Schema.String,
  rows: Schema.Array(Schema.Struct({ line: Schema.Number, row: StockFileRow }))
}
const loaded = {
  at: Schema.Number,
  /** Nothing of such a row is left. It is tried again when the file is imported again. */
  refused: Schema.Array(Schema.Struct({ line: Schema.Number, failure: RefusalData })),
  /** How many lines other runs have loaded, and when: they were left alone. */
  earlier: Schema.Array(Schema.Struct({ at: Schema.Number, lines: Schema.Number }))
}

const loadRowsShape = commandShape({
  tag: "LoadRows",
  payload,
  answer: Schema.Struct(loaded),
  refusals: []
})
export type LoadRows = PayloadOf<typeof loadRowsShape>

/**
 * Each row for itself: its item is ensured, and its stock set to the row's quantity. Locations must be there. A row is
 * known by the file's bytes and its line and is loaded once, which is written down with it.
 */
export const loadRows = defineCommand(loadRowsShape, {
  // What is loaded already writes nothing: a file that is imported again is read past at once.
  keepsAnswer: false,
  weight: ({ rows }) => weightOfRow * rows.length,
  needs: (need, command) => neededFor(need, command, { creates: false }),
  decide: (context, command, keys) => {
    const { known, loads, rows, ...answer } = openRows(context, command, keys)
    const lines: Array<number> = []
    const refused: Array<RefusedRow> = []
    for (const row of rows) {
      const mark = context.unit.mark
      const refusal = loadRow(context, row)
      if (refusal === undefined) lines.push(row.line)
      else {
        context.unit.undoTo(mark)
        refused.push({ line: row.line, failure: { ...refusal } })
      }
    }
    // What another run has loaded is not loaded any more once this one was to do it again and was refused.
    if (lines.length > 0 || loads.length < loadsOf(known).length) {
      const { at, merchantId, unit } = context
      const own = lines.length === 0 ? [] : [{ at, run: command.run, lines: rangesOf(lines) }]
      const all = { loads: [...loads, ...own] }
      context.track(postingKey(context.posting.id))
      const chunks = unit.rows(fileChunks)
      if (known === undefined) chunks.insert({ merchantId, chunkKey: keys.chunk, loads: all })
      else chunks.update(known, { loads: all })
    }
    return answered({ ...answer, refused })
  }
})

const previewRowsShape = commandShape({
  tag: "PreviewRows",
  payload,
  answer: Schema.Struct({
    ...loaded,
    /** The rows that would be loaded: what the books say of their items and stocks, and what they would say. */
    changes: Schema.Array(
      Schema.Struct({ line: Schema.Number, before: Schema.NullOr(StockFileRow), after: StockFileRow })
    ),
    /** Locations that would be created. */
    locations: Schema.Array(Schema.String)
  }),
  refusals: []
})
export type PreviewRows = PayloadOf<typeof previewRowsShape>

/** What `LoadRows` would do, once the locations are there: decided in the same way and undone. */
export const previewRows = defineCommand(previewRowsShape, {
  // It has no effect that a second run could find.
  keepsAnswer: false,
  weight: ({ rows }) => weightOfRow * rows.length,
  needs: (need, command) => neededFor(need, command, { creates: true }),
  decide: (context, command, keys) => {
    const { unit } = context
    const { rows, ...answer } = openRows(context, command, keys)
    const refused: Array<RefusedRow> = []
    const changes: Array<AnswerOf<typeof previewRowsShape>["changes"][number]> = []
    const locations: Array<string> = []
    for (const row of rows) {
      const mark = unit.mark
      if (row.location !== undefined && context.location(row.location) === undefined) {
        createLocation(context, row.location, null)
        locations.push(row.location)
      }
      const before = standing(context, row)
      const refusal = loadRow(context, row)
      if (refusal === undefined) changes.push({ line: row.line, before, after: standing(context, row)! })
      else {
        unit.undoTo(mark)
        refused.push({ line: row.line, failure: { ...refusal } })
      }
    }
    // Also the merchant with its default location, where it is new.
    unit.undoTo(0)
    return answered({ at: answer.at, earlier: answer.earlier, refused, changes, locations })
  }
})

/** An item and a stock. */
const weightOfRow = 4

type RefusedRow = AnswerOf<typeof loadRowsShape>["refused"][number]

/** The rows that are not loaded yet, and what is known of those that are. */
const openRows = (context: PostingContext, command: Terms, keys: NeededRows) => {
  const known = context.row(fileChunkByKey, keys.chunk)
  const loads = loadsOf(known).filter(({ run }) => !command.again || run === command.run)
  const earlier = new Map<Load, number>()
  const rows = keys.rows.filter(({ line }) => {
    const load = loads.find(({ lines }) => lines.some(([first, last]) => first <= line && line <= last))
    if (load !== undefined && load.run !== command.run) earlier.set(load, (earlier.get(load) ?? 0) + 1)
    return load === undefined
  })
  return {
    at: context.at,
    known,
    loads,
    rows,
    earlier: [...earlier].map(([{ at }, lines]) => ({ at, lines }))
  }
}

const loadsOf = (known: FileChunkRow | undefined): ReadonlyArray<Load> =>
  (known?.loads["loads"] ?? []) as ReadonlyArray<Load>

type Terms = Omit<LoadRows, "_tag">

export interface NeededRows {
  readonly chunk: RowKey<FileChunkRow>
  readonly rows: ReadonlyArray<NeededRow>
}

interface NeededRow {
  readonly line: number
  readonly row: StockFileRow
  readonly item: EnsureItem
  readonly itemKeys: ReturnType<typeof ensureItem.needs>
  /** Of a row with a quantity. */
  readonly stock: AdjustStock | undefined
  readonly stockKeys: ReturnType<typeof adjustStock.needs> | undefined
  readonly location: LocationKey | undefined
}

const neededFor = (need: Needs, command: Terms, locations: { readonly creates: boolean }): NeededRows => ({
  chunk: need.row(fileChunkByKey, `${command.fileHash} ${command.chunk}`),
  rows: command.rows.map(({ line, row }) => {
    const item = itemOf(row)
    const stock = stockOf(row, command.reason)
    const { locationId } = row
    return {
      line,
      row,
      item,
      itemKeys: ensureItem.needs(need, item),
      stock,
      stockKeys: stock === undefined ? undefined : adjustStock.needs(need, stock),
      location:
        stock === undefined || locationId === undefined ? undefined : need.location(locationId, locations)
    }
  })
})

const itemOf = (row: StockFileRow): EnsureItem => {
  const { countTolerance, lowStockThreshold, name, productId, productVariantId, safetyStock, sku, stocked } =
    row
  return {
    _tag: "EnsureItem",
    kind: "PRODUCT",
    productVariantId,
    sku,
    name,
    productId,
    stocked,
    lowStockThreshold,
    safetyStock,
    countTolerance
  }
}

/** Without a quantity the row is of the item alone. */
const stockOf = (row: StockFileRow, reason: string): AdjustStock | undefined => {
  const { expiresAt, locationId, lotNumber, quantity } = row
  return quantity === undefined
    ? undefined
    : {
        _tag: "AdjustStock",
        changeType: "CORRECTION",
        item: refOf(row),
        quantity,
        locationId,
        lotNumber,
        lotExpiresAt: expiresAt,
        reason
      }
}

const refOf = ({ productVariantId, sku }: StockFileRow): ItemRef =>
  productVariantId === undefined ? { sku: sku! } : { variantId: productVariantId }

/** A row stands or falls as a whole: what a refusal leaves is for the caller to undo. */
const loadRow = (
  context: PostingContext,
  { item, itemKeys, row, stock, stockKeys }: NeededRow
): RowRefusal | undefined => {
  const { at, ids, posting, unit } = context
  const { caller } = posting
  const ensured = perform(
    unit,
    ensureItem,
    { id: context.nextId(), at, caller, command: item },
    itemKeys,
    ids
  )
  if ("refusal" in ensured) return ensured.refusal
  if (stock === undefined) return undefined
  const unexpected = unexpectedStock(context, row, stockKeys!.item)
  if (unexpected !== undefined) return unexpected
  const adjusted = perform(
    unit,
    adjustStock,
    { id: context.nextId(), at, caller, command: stock },
    stockKeys!,
    ids
  )
  return "refusal" in adjusted ? adjusted.refusal : undefined
}
type RowRefusal = BalanceOverflow | ItemConflict | RefusalOf<typeof adjustStock> | StockMoved

/** What a row expects makes it compare-and-set. A stock that is not there yet has neither quantity nor version: both are 0. */
const unexpectedStock = (
  context: PostingContext,
  row: StockFileRow,
  key: NonNullable<NeededRow["stockKeys"]>["item"]
): RefusalOf<typeof adjustStock> | StockMoved | undefined => {
  const { expectedQuantity, expectedVersion } = row
  if (expectedQuantity === undefined && expectedVersion === undefined) return undefined
  const meant = matchStock(context, context.findItem(key)!, row)
  if ("refusal" in meant) return meant.refusal
  const quantity = meant.found?.onHand ?? 0
  const version = meant.found?.sequence ?? 0
  if (quantity === (expectedQuantity ?? quantity) && version === (expectedVersion ?? version))
    return undefined
  return new StockMoved({
    ...(expectedQuantity === undefined ? {} : { expectedQuantity }),
    ...(expectedVersion === undefined ? {} : { expectedVersion }),
    quantity,
    version
  })
}

/** What the books say of a row's item and stock, as a row; null where there is no such item. */
const standing = (context: PostingContext, { row, stock }: NeededRow): StockFileRow | null => {
  const { merchantId, unit } = context
  const { productVariantId, sku } = row
  const item =
    (productVariantId === undefined
      ? undefined
      : unit.findItem(merchantId, { variantId: productVariantId })) ??
    (sku === undefined ? undefined : unit.findItem(merchantId, { sku }))
  if (item === undefined) return null
  const meant = stock === undefined ? undefined : matchStock(context, item, row)
  return fileRowOf(item, meant === undefined || "refusal" in meant ? undefined : meant.found)
}

/** An item with one of its stocks, as a row of a file. */
export const fileRowOf = (
  item: Pick<ItemRow, (typeof itemFields)[number]>,
  stock: Pick<StockRow, (typeof stockFields)[number]> | undefined
): StockFileRow => ({
  ...(item.productVariantId === null ? {} : { productVariantId: item.productVariantId }),
  ...(item.sku === null ? {} : { sku: item.sku }),
  ...(stock === undefined
    ? {}
    : { quantity: stock.onHand, locationId: stock.locationId, lotNumber: stock.lotNumber }),
  ...(stock === undefined || stock.lotExpiresAt === null ? {} : { expiresAt: stock.lotExpiresAt }),
  ...(item.name === null ? {} : { name: item.name }),
  lowStockThreshold: item.lowStockThreshold,
  safetyStock: item.safetyStock,
  countTolerance: item.countTolerance,
  ...(item.productId === null ? {} : { productId: item.productId }),
  stocked: item.stocked
})
export const itemFields = [
  "productVariantId",
  "sku",
  "name",
  "lowStockThreshold",
  "safetyStock",
  "countTolerance",
  "productId",
  "stocked"
] as const satisfies ReadonlyArray<keyof ItemRow>
export const stockFields = [
  "locationId",
  "lotNumber",
  "lotExpiresAt",
  "onHand"
] as const satisfies ReadonlyArray<keyof StockRow>

/** Lines in ascending order, those that follow each other together. */
const rangesOf = (lines: ReadonlyArray<number>): Load["lines"] => {
  const ranges: Array<readonly [number, number]> = []
  for (const line of lines) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === line - 1) ranges[ranges.length - 1] = [last[0], line]
    else ranges.push([line, line])
  }
  return ranges
}
