import type { Deltas } from "./PostingContext.ts"
import type { StockRow } from "./tables/stock.ts"

/**
 * What a count does to a stock. Whoever counts counts damaged units too: where there are fewer units than are written
 * down as damaged or quarantined, those are gone with the others. Undefined where the books say the same.
 */
export const countedDeltas = (stock: StockRow, quantity: number): Deltas | undefined => {
  const onHand = quantity - stock.onHand
  // A file of balances may say that less than nothing is there: then nothing of it is damaged.
  const unallocatable = Math.min(0, Math.max(0, quantity) - stock.unallocatable)
  return onHand === 0 && unallocatable === 0 ? undefined : { onHand, unallocatable }
}
