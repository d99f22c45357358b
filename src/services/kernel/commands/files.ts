import { Schema } from "effect"
import { type BalanceOverflow, type ItemConflict, RefusalData, StockMoved } from "../../../schema/Failure.ts"
import type { ItemRef } from "../../../schema/Item.ts"
import { StockFileRow } from "../../../schema/StockFileRow.ts"
import { createLocation } from "../catalogue.ts"
import { commandShape, defineCommand, type PayloadOf, type RefusalOf } from "../Command.ts"
import type { LocationKey, Needs } from "../Needs.ts"
import { perform } from "../operation.ts"
import { answered } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { matchStock } from "../stockMatching.ts"
import type { ItemRow } from "../tables/catalog.ts"
import { fileChunkByKey, fileChunks } from "../tables/files.ts"
import type { StockRow } from "../tables/stock.ts"
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

const loadRowsShape = commandShape({
  tag: "LoadRows",
  payload: {
    /** The file, by its bytes. */
    fileHash: Schema.String,
    /** The chunk, by its place in the file: the same lines whenever the file is read. */
    chunk: Schema.Number,
    run: Schema.String,
    /** Loads what another run has loaded once more. */
    again: Schema.Boolean,
    /** Answers what would change, and changes nothing. */
    dryRun: Schema.Boolean,
    reason: Schema.String,
    rows: Schema.Array(Schema.Struct({ line: Schema.Number, row: StockFileRow }))
  },
  answer: Schema.Struct({
    at: Schema.Number,
    /** Nothing of such a row is left. It is tried again when the file is imported again. */
    refused: Schema.Array(Schema.Struct({ line: Schema.Number, failure: RefusalData })),
    /** Lines that other runs have loaded, and when: they were left alone. */
    earlier: Schema.Array(Schema.Struct({ at: Schema.Number, lines: Schema.Number })),
    /** Of a dry run: what it would have changed, and the locations that it would have created. */
    changes: Schema.Array(
      Schema.Struct({
        line: Schema.Number,
        before: Schema.NullOr(StockFileRow),
        after: StockFileRow
      })
    ),
    locations: Schema.Array(Schema.String)
  }),
  refusals: []
})
export type LoadRows = PayloadOf<typeof loadRowsShape>

/**
 * Each row for itself: its item is ensured, and its stock set to the row's quantity. A row is known by the file's bytes and
 * its line, and loaded once. What was loaded is written down with it, so that a second run of the posting finds its effect.
 */
export const loadRows = defineCommand(loadRowsShape, {
  keepsAnswer: false,
  weight: ({ rows }) => 4 * rows.length,
  needs: (need, command) => ({
    chunk: need.row(fileChunkByKey, `${command.fileHash} ${command.chunk}`),
    rows: command.rows.map(({ row }) => neededFor(need, row, command))
  }),
  decide: (context, command, keys) => {
    const { at, unit } = context
    const known = context.row(fileChunkByKey, keys.chunk)
    const loads = ((known?.loads["loads"] ?? []) as ReadonlyArray<Load>).filter(
      ({ run }) => !command.again || run === command.run
    )
    const refusals: Array<{ readonly line: number; readonly failure: RefusalData }> = []
    const changes: Array<Change & { readonly line: number }> = []
    const locations: Array<string> = []
    const loaded: Array<number> = []
    const earlier = new Map<Load, number>()
    for (const [index, { line }] of command.rows.entries()) {
      const load = loads.find(({ lines }) => lines.some(([first, last]) => first <= line && line <= last))
      if (load !== undefined) {
        if (load.run !== command.run) earlier.set(load, (earlier.get(load) ?? 0) + 1)
        continue
      }
      const mark = unit.mark
      const row = keys.rows[index]!
      if (command.dryRun && row.location !== undefined && context.location(row.location) === undefined) {
        createLocation(context, row.location, null)
        locations.push(row.location)
      }
      const before = command.dryRun ? standing(context, row) : undefined
      const refusal = loadRow(context, row)
      if (refusal !== undefined) {
        unit.undoTo(mark)
        refusals.push({ line, failure: { ...refusal } })
      } else if (before === undefined) loaded.push(line)
      else changes.push({ line, before: before ?? null, after: standing(context, row)! })
    }
    // Also the merchant and its default location, where it is new.
    if (command.dryRun) unit.undoTo(0)
    else if (loaded.length > 0) {
      const chunks = unit.rows(fileChunks)
      const all = { loads: [...loads, { at, run: command.run, lines: rangesOf(loaded) }] }
      if (known === undefined) {
        chunks.insert({ merchantId: context.merchantId, chunkKey: keys.chunk, loads: all })
      } else chunks.update(known, { loads: all })
    }
    return answered({
      at,
      refused: refusals,
      earlier: [...earlier].map(([load, lines]) => ({ at: load.at, lines })),
      changes,
      locations
    })
  }
})

interface NeededRow {
  readonly row: StockFileRow
  readonly item: EnsureItem
  readonly itemKeys: ReturnType<typeof ensureItem.needs>
  /** Of a row with a quantity. */
  readonly stock: AdjustStock | undefined
  readonly stockKeys: ReturnType<typeof adjustStock.needs> | undefined
  readonly location: LocationKey | undefined
}

const neededFor = (need: Needs, row: StockFileRow, { dryRun, reason }: LoadRows): NeededRow => {
  const item = itemOf(row)
  const stock = stockOf(row, reason)
  const { locationId } = row
  return {
    row,
    item,
    itemKeys: ensureItem.needs(need, item),
    stock,
    stockKeys: stock === undefined ? undefined : adjustStock.needs(need, stock),
    location:
      stock === undefined || locationId === undefined
        ? undefined
        : need.location(locationId, { creates: dryRun })
  }
}

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

interface Change {
  readonly before: StockFileRow | null
  readonly after: StockFileRow
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
