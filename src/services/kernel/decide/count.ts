import { CountMismatch, ItemNotFound, LocationNotFound, RowRefused } from "../../../schema/Failure.ts"
import type { AnyRefusal, Answers, CountStock, CountedStock } from "../../../schema/Posting.ts"
import { initialize, stockFor, stockMeant } from "./adjustments.ts"
import { type ItemRow, type StockRow, stockFigures } from "./Books.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"
import { nameOf } from "./reservations.ts"

/**
 * Counted quantities (CONTRACTS 4.2, `POST count`). What was expected is judged of all rows before anything moves, so
 * that one refusal names all that have moved meanwhile.
 */
export const count = (draft: Draft, command: CountStock): Decision<Answers["CountStock"]> => {
  const { at, books, merchantId } = draft
  const { locationId } = command
  if (locationId !== undefined && !books.locations.has(merchantId, locationId)) {
    return refused(new LocationNotFound({ locationId }))
  }
  const unknown = command.counts.filter(({ item }) => books.findItem(merchantId, item) === undefined)
  if (unknown.length > 0) return refused(new ItemNotFound({ items: unknown.map(({ item }) => nameOf(item)) }))

  const awaiting = new Set<ItemRow>()
  const mismatches: Array<CountMismatch["counts"][number]> = []
  for (const [index, row] of command.counts.entries()) {
    const item = books.findItem(merchantId, row.item)!
    if (!item.initialized) awaiting.add(item)
    const meant = stockMeant(draft, item, { locationId, lotNumber: row.lotNumber })
    if ("refusal" in meant) return refused(new RowRefused({ index, failure: { ...meant.refusal } }))
    const { productVariantId, sku } = item
    const version = meant.found?.sequence ?? 0
    const quantity = meant.found?.onHand ?? 0
    if (version !== (row.expectedVersion ?? version) || quantity !== (row.expectedQuantity ?? quantity)) {
      const { expectedQuantity, expectedVersion } = row
      const expected = {
        ...(expectedVersion === undefined ? {} : { expectedVersion }),
        ...(expectedQuantity === undefined ? {} : { expectedQuantity })
      }
      mismatches.push({ index, productVariantId, sku, ...expected, version, quantity })
    }
  }
  if (mismatches.length > 0) return refused(new CountMismatch({ counts: mismatches }))

  const counts: Array<CountedStock> = []
  for (const [index, row] of command.counts.entries()) {
    const item = books.findItem(merchantId, row.item)!
    const stock = countedStock(draft, item, { locationId, lotNumber: row.lotNumber })
    if ("refusal" in stock) return refused(new RowRefused({ index, failure: { ...stock.refusal } }))
    const isFirst = awaiting.has(item)
    counts.push(
      settleCount(draft, item, stock.found, { counted: row.quantity, isFirst, reason: command.reason })
    )
  }
  return answered({ at, counts })
}

const countedStock = (
  draft: Draft,
  item: ItemRow,
  place: { readonly locationId: string | undefined; readonly lotNumber: string | undefined }
): { readonly found: StockRow } | { readonly refusal: AnyRefusal } => {
  const meant = stockMeant(draft, item, place)
  if ("refusal" in meant) return meant
  return meant.found === undefined ? stockFor(draft, item, place) : { found: meant.found }
}

/**
 * The books follow the count, and what differs by more than the item's tolerance is to be explained. An item that awaits
 * its initial stock is given it by its first count: there is nothing yet that it could differ from.
 */
const settleCount = (
  draft: Draft,
  item: ItemRow,
  stock: StockRow,
  {
    counted,
    isFirst,
    reason
  }: { readonly counted: number; readonly isFirst: boolean; readonly reason: string | undefined }
): CountedStock => {
  const before = stock.onHand
  const difference = counted - before
  draft.touch(item)
  initialize(draft, item)
  if (difference !== 0) {
    draft.move(stock, "ADJUSTMENT", { onHand: difference }, { source: "MANUAL_ADJUSTMENT", reason })
  }
  const tolerance = item.countTolerance
  const discrepancy = !isFirst && Math.abs(difference) > tolerance
  if (discrepancy) {
    draft.openDiscrepancy("COUNT_DIFFERENCE", { item, stock }, { booked: before, counted, tolerance })
  }
  const { productVariantId, sku } = item
  return { productVariantId, sku, ...stockFigures(stock), difference, discrepancy }
}
