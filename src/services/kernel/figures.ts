import { type ItemFigures, type StockFigures, statusOf } from "../../schema/Item.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { StockRow } from "./tables/stock.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/** What can be sold, and the figures that callers are shown. */

export const isExpired = ({ lotExpiresAt }: StockRow, at: number): boolean =>
  lotExpiresAt !== null && lotExpiresAt <= at

/**
 * What can be sold of a stock at a time: `max(0, onHand − reserved − unallocatable)`, and nothing of a lot past its
 * expiry (CONTRACTS section 1: one formula everywhere).
 */
export const sellable = (stock: StockRow, at: number): number =>
  isExpired(stock, at) ? 0 : Math.max(0, stock.onHand - stock.reserved - stock.unallocatable)

export const sellableOf = (stocks: ReadonlyArray<StockRow>, at: number): number => {
  let sum = 0
  for (const stock of stocks) sum += sellable(stock, at)
  return sum
}

/** What would be sellable if no lot ever expired: views show the difference as unallocatable (CONTRACTS section 1). */
const sellableWithoutExpiry = (stocks: ReadonlyArray<StockRow>): number =>
  sellableOf(stocks, Number.NEGATIVE_INFINITY)

export const hasStock = (stocks: ReadonlyArray<StockRow>): boolean =>
  stocks.some(({ onHand, reserved, unallocatable }) => onHand !== 0 || reserved !== 0 || unallocatable !== 0)

/** Whether an item is sold no more although there is stock of it: a discrepancy is open for as long as it is so. */
export const isDiscontinuedWithStock = (unit: UnitOfWork, item: ItemRow): boolean =>
  item.discontinued && hasStock(unit.stocksOf(item))

export const itemFigures = (unit: UnitOfWork, item: ItemRow, at: number): ItemFigures => {
  const stocks = unit.stocksOf(item)
  const available = sellableOf(stocks, at)
  return {
    itemId: item.itemId,
    productVariantId: item.productVariantId,
    sku: item.sku,
    quantity: item.onHand,
    reservedQuantity: item.reserved,
    unallocatableQuantity: item.unallocatable + sellableWithoutExpiry(stocks) - available,
    availableQuantity: available,
    status: statusOf(item, available)
  }
}

/** '' is the one unnamed lot of items without lots. */
export const lotOf = ({ lotNumber }: Pick<StockRow, "lotNumber">): string | null =>
  lotNumber === "" ? null : lotNumber

export const stockFigures = (stock: StockRow): StockFigures => ({
  stockId: stock.stockId,
  locationId: stock.locationId,
  lotNumber: lotOf(stock),
  quantity: stock.onHand,
  reservedQuantity: stock.reserved,
  unallocatableQuantity: stock.unallocatable,
  version: stock.sequence
})
