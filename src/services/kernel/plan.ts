import type { ShortLine } from "../../schema/Failure.ts"
import { isOnSale } from "./figures.ts"
import { shortLine } from "./holds.ts"
import { allocateSellable } from "./pickOrder.ts"
import type { PostingContext } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { StockRow } from "./tables/stock.ts"

/** What is wanted of an item, and of which stock if it is to be that one. */
export interface Wanted {
  readonly item: ItemRow
  readonly stockId: string | null
  quantity: number
}

export interface Plan {
  readonly planned: ReadonlyArray<{
    readonly item: ItemRow
    readonly stock: StockRow | null
    readonly quantity: number
  }>
  readonly short: ReadonlyArray<ShortLine>
}

export const stocksAt = (
  { unit }: PostingContext,
  item: ItemRow,
  locationId: string | undefined,
  stockId: string | null = null
): ReadonlyArray<StockRow> =>
  unit
    .stocksOf(item)
    .filter(
      (stock) =>
        (stockId === null || stock.stockId === stockId) &&
        (locationId === undefined || stock.locationId === locationId)
    )

/** Where a promise of these lines is taken from, and what is short. Nothing is taken twice. */
export const planOf = (
  context: PostingContext,
  lines: ReadonlyArray<Wanted>,
  locationId: string | undefined
): Plan => {
  const planned = []
  const short: Array<ShortLine> = []
  const taken = new Map<StockRow, number>()
  // What is wanted of one stock can come from nowhere else: it goes before what may come from any.
  const inOrder = [...lines].sort((a, b) => Number(b.stockId !== null) - Number(a.stockId !== null))
  for (const { item, quantity, stockId } of inOrder) {
    if (!item.stocked && isOnSale(item)) {
      planned.push({ item, stock: null, quantity })
      continue
    }
    const stocks = stocksAt(context, item, locationId, stockId)
    const all = context.unit.stocksOf(item)
    const { picks, short: missing } = allocateSellable(item, all, stocks, quantity, context.at, taken)
    if (missing > 0) short.push(shortLine(item, quantity, quantity - missing))
    for (const pick of picks) {
      taken.set(pick.stock, (taken.get(pick.stock) ?? 0) + pick.quantity)
      planned.push({ item, ...pick })
    }
  }
  return { planned, short }
}
