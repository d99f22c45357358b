import { Schema } from "effect"
import { CountMismatch, ItemNotFound, LocationNotFound, RowRefused } from "../../../schema/Failure.ts"
import { ItemRef, nameOf, StockFigures } from "../../../schema/Item.ts"
import { initialize, locationOf } from "../catalogue.ts"
import { commandShape, defineCommand, type PayloadOf } from "../Command.ts"
import { countedDeltas } from "../counting.ts"
import { stockFigures } from "../figures.ts"
import { answered, refused } from "../Posting.ts"
import type { PostingContext } from "../PostingContext.ts"
import { matchStock } from "../stockMatching.ts"
import type { ItemRow } from "../tables/catalog.ts"
import type { StockRow } from "../tables/stock.ts"

/** Stock as it was counted (CONTRACTS 4.2, `POST count`). */

const countedStock = Schema.Struct({
  productVariantId: Schema.NullOr(Schema.String),
  sku: Schema.NullOr(Schema.String),
  ...StockFigures.fields,
  /** What was counted less what the books said. */
  difference: Schema.Number,
  /** Whether that is more than the item's tolerance, and so a discrepancy. */
  discrepancy: Schema.Boolean
})
export type CountedStock = typeof countedStock.Type

/**
 * Counted quantities: a fact that the books follow, all rows or none. Expectations are of the books before any of it, and
 * make a row compare-and-set; of a stock that is not there yet they are 0. What was expected is judged of all rows before
 * anything moves, so that one refusal names all that have moved meanwhile.
 */
const countStockShape = commandShape({
  tag: "CountStock",
  payload: {
    counts: Schema.Array(
      Schema.Struct({
        item: ItemRef,
        lotNumber: Schema.optional(Schema.String),
        quantity: Schema.Number,
        expectedVersion: Schema.optional(Schema.Number),
        expectedQuantity: Schema.optional(Schema.Number)
      })
    ),
    locationId: Schema.optional(Schema.String),
    reason: Schema.optional(Schema.String)
  },
  /** In the order of the counts. */
  answer: Schema.Struct({ at: Schema.Number, counts: Schema.Array(countedStock) }),
  refusals: [CountMismatch, ItemNotFound, LocationNotFound, RowRefused]
})
export type CountStock = PayloadOf<typeof countStockShape>

export const countStock = defineCommand(countStockShape, {
  source: "MANUAL_ADJUSTMENT",
  weight: ({ counts }) => counts.length,
  needs: (need, { counts, locationId }) => {
    need.locations()
    return {
      items: counts.map(({ item }) => need.item(item)),
      location: locationId === undefined ? undefined : need.location(locationId)
    }
  },
  decide: (context, command, keys) => {
    const { locationId, reason } = command
    if (keys.location !== undefined && context.location(keys.location) === undefined) {
      return refused(new LocationNotFound({ locationId: keys.location }))
    }
    const found = keys.items.map((key) => context.findItem(key))
    const unknown = command.counts.filter((_, index) => found[index] === undefined)
    if (unknown.length > 0)
      return refused(new ItemNotFound({ items: unknown.map(({ item }) => nameOf(item)) }))
    const rows = command.counts.map((row, index) => ({
      ...row,
      index,
      item: found[index]!,
      place: { locationId, lotNumber: row.lotNumber }
    }))

    const awaiting = new Set<ItemRow>()
    const mismatches: Array<CountMismatch["counts"][number]> = []
    for (const { expectedQuantity, expectedVersion, index, item, place } of rows) {
      if (!item.initialized) awaiting.add(item)
      const meant = matchStock(context, item, place)
      if ("refusal" in meant) return refused(new RowRefused({ index, failure: { ...meant.refusal } }))
      const { productVariantId, sku } = item
      const version = meant.found?.sequence ?? 0
      const quantity = meant.found?.onHand ?? 0
      if (version === (expectedVersion ?? version) && quantity === (expectedQuantity ?? quantity)) continue
      const expected = {
        ...(expectedVersion === undefined ? {} : { expectedVersion }),
        ...(expectedQuantity === undefined ? {} : { expectedQuantity })
      }
      mismatches.push({ index, productVariantId, sku, ...expected, version, quantity })
    }
    if (mismatches.length > 0) return refused(new CountMismatch({ counts: mismatches }))

    const counts: Array<CountedStock> = []
    for (const { index, item, place, quantity } of rows) {
      // An earlier row may have opened another stock that this one means as well.
      const meant = matchStock(context, item, place)
      if ("refusal" in meant) return refused(new RowRefused({ index, failure: { ...meant.refusal } }))
      const stock = meant.found ?? context.stockIn(item, locationOf(context, locationId), place.lotNumber)
      counts.push(recordCount(context, item, stock, { quantity, isFirst: awaiting.has(item), reason }))
    }
    return answered({ at: context.at, counts })
  }
})

/**
 * The books follow the count, and what differs by more than the item's tolerance is to be explained. An item that awaits
 * its initial stock is given it by its first count: there is nothing yet that it could differ from.
 */
const recordCount = (
  context: PostingContext,
  item: ItemRow,
  stock: StockRow,
  counted: { readonly quantity: number; readonly isFirst: boolean; readonly reason: string | undefined }
): CountedStock => {
  const { isFirst, quantity, reason } = counted
  const booked = stock.onHand
  const difference = quantity - booked
  initialize(context, item)
  const deltas = countedDeltas(stock, quantity)
  if (deltas !== undefined) context.move(stock, "ADJUSTMENT", deltas, { reason })
  const tolerance = item.countTolerance
  const discrepancy = !isFirst && Math.abs(difference) > tolerance
  if (discrepancy) {
    context.openDiscrepancy("COUNT_DIFFERENCE", { item, stock }, { booked, counted: quantity, tolerance })
  }
  const { productVariantId, sku } = item
  return { productVariantId, sku, ...stockFigures(stock), difference, discrepancy }
}
