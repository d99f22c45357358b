import { type ItemFigures, type StockFigures, statusOf } from "../../schema/Item.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { StockRow } from "./tables/stock.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/**
 * What can be sold, and the figures that callers are shown. `figuresInSql.ts` has the same rules for statements, and a test
 * compares the two.
 */

/** What the rules look at in a stock, whoever has read it. */
export type StockBalance = Pick<
  StockRow,
  "locationId" | "locationRetired" | "lotExpiresAt" | "onHand" | "reserved" | "unallocatable"
>

export const isExpired = ({ lotExpiresAt }: Pick<StockRow, "lotExpiresAt">, at: number): boolean =>
  lotExpiresAt !== null && lotExpiresAt <= at

/** Neither held nor damaged. Below zero: more was taken than there is. */
const balanceOf = ({ onHand, reserved, unallocatable }: StockBalance): number =>
  onHand - reserved - unallocatable

/** What a stock has to sell: nothing of a lot past its expiry, nor at a location that is retired. */
export const sellable = (stock: StockBalance, at: number): number =>
  stock.locationRetired || isExpired(stock, at) ? 0 : Math.max(0, balanceOf(stock))

/** By how much a stock is below zero: so much was sold that it does not have. */
const missingIn = (stock: StockBalance): number => Math.max(0, -balanceOf(stock))

/** What is free in a lot past its expiry: no movement speaks of it, and views show it as unallocatable. */
export const expiredIn = (stock: StockBalance, at: number): number =>
  isExpired(stock, at) ? Math.max(0, balanceOf(stock)) : 0

/**
 * What can be sold of an item: the one formula of CONTRACTS section 1. What the stocks have to sell, less what is missing
 * in any of them, because goods that were sold are not promised again where another lot or location has some; nothing
 * where the item is discontinued or deleted. Of the stocks of one location it is what can be sold there, as far as the
 * whole item has so much (`sellableAt`).
 */
export const sellableOf = (
  item: Pick<ItemRow, "discontinued" | "deletedAt">,
  stocks: ReadonlyArray<StockBalance>,
  at: number
): number => {
  if (!isOnSale(item)) return 0
  let sum = 0
  for (const stock of stocks) sum += sellable(stock, at) - missingIn(stock)
  return Math.max(0, sum)
}

export const isOnSale = ({ deletedAt, discontinued }: Pick<ItemRow, "discontinued" | "deletedAt">): boolean =>
  !discontinued && deletedAt === null

/** What can be sold at one location: what it has, and no more than there is of the item. `stocks` are all of the item's. */
export const sellableAt = (
  item: Pick<ItemRow, "discontinued" | "deletedAt">,
  stocks: ReadonlyArray<StockBalance>,
  locationId: string,
  at: number
): number => {
  const there = stocks.filter((stock) => stock.locationId === locationId)
  return Math.min(sellableOf(item, there, at), sellableOf(item, stocks, at))
}

export const isMissingAny = (stocks: ReadonlyArray<StockBalance>): boolean =>
  stocks.some((stock) => balanceOf(stock) < 0)

export const hasStock = (stocks: ReadonlyArray<StockRow>): boolean =>
  stocks.some(({ onHand, reserved, unallocatable }) => onHand !== 0 || reserved !== 0 || unallocatable !== 0)

/** Whether an item is sold no more although there is stock of it: a discrepancy is open for as long as it is so. */
export const isDiscontinuedWithStock = (unit: UnitOfWork, item: ItemRow): boolean =>
  item.discontinued && hasStock(unit.stocksOf(item))

export const itemFigures = (unit: UnitOfWork, item: ItemRow, at: number): ItemFigures => {
  const stocks = unit.stocksOf(item)
  const available = sellableOf(item, stocks, at)
  return {
    itemId: item.itemId,
    productVariantId: item.productVariantId,
    sku: item.sku,
    quantity: item.onHand,
    reservedQuantity: item.reserved,
    unallocatableQuantity: stocks.reduce((sum, stock) => sum + expiredIn(stock, at), item.unallocatable),
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
