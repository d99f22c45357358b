import { isMissingAny, isOnSale, sellable, sellableOf } from "./figures.ts"
import type { ItemRow } from "./tables/catalog.ts"
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

type Taken = ReadonlyMap<StockRow, number>
const nothingTaken: Taken = new Map()

interface Allocation {
  readonly picks: ReadonlyArray<Pick>
  /** What is missing of the quantity. */
  readonly short: number
}

/**
 * Takes up to `quantity` of what the stocks have to sell, in picking order, and not what is `taken`; from each location no
 * more than `mostAt` says, if anything. This is how a fact is accounted for; a promise takes no more than can be sold
 * (`allocateSellable`).
 */
export const allocate = (
  stocks: ReadonlyArray<StockRow>,
  quantity: number,
  at: number,
  taken: Taken = nothingTaken,
  mostAt?: Map<string, number>
): Allocation => {
  const picks: Array<Pick> = []
  let open = quantity
  for (const stock of [...stocks].sort(byPickOrder)) {
    const there = mostAt?.get(stock.locationId) ?? Number.POSITIVE_INFINITY
    const take = Math.min(open, there, sellable(stock, at) - (taken.get(stock) ?? 0))
    if (take <= 0) continue
    picks.push({ stock, quantity: take })
    mostAt?.set(stock.locationId, there - take)
    open -= take
    if (open === 0) break
  }
  return { picks, short: open }
}

/**
 * What a promise takes of an item, from those of its stocks that it may come from: no more than can be sold of the whole
 * item, and from each location no more than can be sold there.
 */
export const allocateSellable = (
  item: ItemRow,
  all: ReadonlyArray<StockRow>,
  wanted: ReadonlyArray<StockRow>,
  quantity: number,
  at: number,
  taken: Taken = nothingTaken
): Allocation => {
  if (!isOnSale(item)) return { picks: [], short: quantity }
  // Where nothing is below zero, what the stocks have to sell is what can be sold.
  if (!isMissingAny(all)) return allocate(wanted, quantity, at, taken)
  const leftOf = (stocks: ReadonlyArray<StockRow>): number =>
    stocks.reduce((left, stock) => left - (taken.get(stock) ?? 0), sellableOf(item, stocks, at))
  const mostAt = new Map<string, number>()
  for (const [locationId, there] of Map.groupBy(all, (stock) => stock.locationId)) {
    mostAt.set(locationId, leftOf(there))
  }
  const most = Math.min(quantity, leftOf(all))
  const { picks, short } = allocate(wanted, most, at, taken, mostAt)
  return { picks, short: quantity - most + short }
}
