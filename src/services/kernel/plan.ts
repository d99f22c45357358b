import type { ShortLine } from "../../schema/Failure.ts"
import { isOnSale } from "./figures.ts"
import { type Place, shortLine } from "./holds.ts"
import { allocateSellable } from "./pickOrder.ts"
import type { PostingContext } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { StockRow } from "./tables/stock.ts"

/** What is wanted of an item, and from where as far as that is said. */
export interface Wanted extends Place {
  readonly item: ItemRow
  readonly stockId: string | null
  quantity: number
  /** What the order holds of it besides: a refusal says what it would have in all. */
  readonly held?: number
}

/** What names more of its place can come from fewer stocks: it goes before what may come from any. */
export const mostNamedFirst = <P extends Place>(places: ReadonlyArray<P>): ReadonlyArray<P> =>
  places.toSorted((a, b) => namesOf(b) - namesOf(a))

const namesOf = ({ locationId, lotNumber, stockId }: Place): number =>
  (stockId === null ? 0 : 4) + (lotNumber === undefined ? 0 : 2) + (locationId === undefined ? 0 : 1)

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
export const planOf = (context: PostingContext, lines: ReadonlyArray<Wanted>): Plan => {
  const planned = []
  const short: Array<ShortLine> = []
  const taken = new Map<StockRow, number>()
  for (const wanted of mostNamedFirst(lines)) {
    const { held = 0, item, locationId, lotNumber, quantity, stockId } = wanted
    if (!item.stocked && isOnSale(item)) {
      planned.push({ item, stock: null, quantity })
      continue
    }
    const stocks = stocksAt(context, item, locationId, stockId).filter(
      (stock) => lotNumber === undefined || stock.lotNumber === lotNumber
    )
    const all = context.unit.stocksOf(item)
    const { picks, short: missing } = allocateSellable(item, all, stocks, quantity, context.at, taken)
    if (missing > 0) short.push(shortLine(item, held + quantity, held + quantity - missing))
    for (const pick of picks) {
      taken.set(pick.stock, (taken.get(pick.stock) ?? 0) + pick.quantity)
      planned.push({ item, ...pick })
    }
  }
  return { planned, short }
}
