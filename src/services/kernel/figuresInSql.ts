/**
 * What statements have in common about stock: the figures of a stock and of an item, at a time. The rules are those of
 * `figures.ts`, and a test compares the two. Names are the aliases of rows.
 */

/** What a stock has to sell. */
export const sellableInSql = (stock: string, location: string, at: string): string =>
  `holdfast_sellable(${stock}.on_hand, ${stock}.reserved, ${stock}.unallocatable,
           CASE WHEN ${location}.retired THEN '-infinity' ELSE ${stock}.lot_expires_at END, ${at})`

/** What is free in a lot past its expiry: it is shown as unallocatable. */
export const expiredInSql = (stock: string, at: string): string =>
  `CASE WHEN ${stock}.lot_expires_at <= ${at}
           THEN GREATEST(0, ${stock}.on_hand - ${stock}.reserved - ${stock}.unallocatable) ELSE 0 END`

/** Whether an item is sold at all. */
export const isOnSaleInSql = (item: string): string =>
  `(NOT ${item}.discontinued AND ${item}.deleted_at IS NULL)`

/** What can be sold of an item, of all its stocks in a group: the one formula of CONTRACTS section 1. */
export const sellableOfItemInSql = (item: string, stock: string, location: string, at: string): string =>
  `CASE WHEN ${isOnSaleInSql(item)}
           THEN GREATEST(0, COALESCE(sum(${sellableInSql(stock, location, at)}
             + LEAST(0, ${stock}.on_hand - ${stock}.reserved - ${stock}.unallocatable)), 0))
           ELSE 0 END::bigint`

/** The name of a stock's lot: '' is the one unnamed lot of items without lots. */
export const lotInSql = (stock: string): string => `NULLIF(${stock}.lot_number, '')`
