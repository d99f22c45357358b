import { sellable } from "./figures.ts"
import type { StockRow } from "./tables/stock.ts"

/** The order in which stock is taken: by location (default first, then oldest), first-expired-first-out inside it. */
export const byPickOrder = (a: StockRow, b: StockRow): number =>
  Number(b.locationIsDefault) - Number(a.locationIsDefault) ||
  a.locationPosition - b.locationPosition ||
  (a.lotExpiresAt ?? Number.POSITIVE_INFINITY) - (b.lotExpiresAt ?? Number.POSITIVE_INFINITY) ||
  a.createdAt - b.createdAt ||
  (a.stockId < b.stockId ? -1 : 1)

export interface Pick {
  readonly stock: StockRow
  readonly quantity: number
}

/** Takes up to `quantity` from the stocks, in picking order, and not what is `taken`. What is missing is `short`. */
export const allocate = (
  stocks: ReadonlyArray<StockRow>,
  quantity: number,
  at: number,
  taken: ReadonlyMap<StockRow, number> = new Map()
): { readonly picks: ReadonlyArray<Pick>; readonly short: number } => {
  const picks: Array<Pick> = []
  let open = quantity
  for (const stock of [...stocks].sort(byPickOrder)) {
    const take = Math.min(open, sellable(stock, at) - (taken.get(stock) ?? 0))
    if (take > 0) picks.push({ stock, quantity: take })
    open -= take
    if (open === 0) break
  }
  return { picks, short: open }
}
