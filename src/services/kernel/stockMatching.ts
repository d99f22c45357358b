import { AmbiguousStock, LotMismatch } from "../../schema/Failure.ts"
import { timestampOrNull } from "../../schema/Time.ts"
import { locationOf } from "./catalogue.ts"
import { lotOf } from "./figures.ts"
import { refused } from "./Posting.ts"
import type { PostingContext } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { StockRow } from "./tables/stock.ts"

/** Which stock of an item is meant, by what a request says of its place. */

/** Where a stock is, as far as the request says. */
export interface Place {
  readonly locationId?: string | undefined
  readonly lotNumber?: string | undefined
  readonly lotExpiresAt?: number | null | undefined
}

export const stocksMatching = (
  { unit }: PostingContext,
  item: ItemRow,
  place: Place
): ReadonlyArray<StockRow> =>
  unit
    .stocksOf(item)
    .filter(
      (stock) =>
        (place.locationId === undefined || stock.locationId === place.locationId) &&
        (place.lotNumber === undefined || stock.lotNumber === place.lotNumber)
    )

/** The one stock of the given location and lot, where that leaves no choice; undefined where it is not there yet. */
export const matchStock = (
  context: PostingContext,
  item: ItemRow,
  place: Place
): { readonly found: StockRow | undefined } | { readonly refusal: AmbiguousStock } => {
  const matching = stocksMatching(context, item, place)
  if (matching.length <= 1) return { found: matching[0] }
  const stocks = matching.map((stock) => ({
    stockId: stock.stockId,
    locationId: stock.locationId,
    lotNumber: lotOf(stock)
  }))
  return refused(new AmbiguousStock({ stocks }))
}

/**
 * The stock of the given (or default) location and (or unnamed) lot, opened if it is not there yet. A lot has one expiry:
 * at another location it is the same, and another one is corrected on purpose (CORRECTION) or not at all.
 */
export const stockFor = (
  context: PostingContext,
  item: ItemRow,
  place: Place
): { readonly found: StockRow } | { readonly refusal: LotMismatch } => {
  const lotNumber = place.lotNumber ?? ""
  const given = place.lotExpiresAt ?? null
  const existing = stockAt(context, item, place)
  const elsewhere = lotNumber === "" ? [] : stocksMatching(context, item, { lotNumber })
  const known = existing === undefined ? elsewhere : [existing]
  if (given !== null && known.length > 0 && !known.some(({ lotExpiresAt }) => lotExpiresAt === given)) {
    return refused(new LotMismatch({ lotNumber, expiresAt: timestampOrNull(known[0]!.lotExpiresAt) }))
  }
  if (existing !== undefined) return { found: existing }
  const lotExpiresAt = given ?? known[0]?.lotExpiresAt ?? null
  return { found: context.openStock(item, locationOf(context, place.locationId), lotNumber, lotExpiresAt) }
}

export const stockAt = (context: PostingContext, item: ItemRow, place: Place): StockRow | undefined => {
  const { locationId } = locationOf(context, place.locationId)
  const lotNumber = place.lotNumber ?? ""
  return context.unit
    .stocksOf(item)
    .find((stock) => stock.locationId === locationId && stock.lotNumber === lotNumber)
}
