/** What the readers of stock have in common: the figures of a stock, the row of a statement, at a time. */

/** What can be sold of a stock: the one formula of CONTRACTS section 1. */
export const sellableInSql = (stock: string, at: string): string =>
  `holdfast_sellable(${stock}.on_hand, ${stock}.reserved, ${stock}.unallocatable, ${stock}.lot_expires_at, ${at})`

/** What could still be sold if its lot had not expired: it is shown as unallocatable. */
export const expiredInSql = (stock: string, at: string): string =>
  `holdfast_sellable(${stock}.on_hand, ${stock}.reserved, ${stock}.unallocatable, NULL, ${at})
           - ${sellableInSql(stock, at)}`

/** The name of a stock's lot: '' is the one unnamed lot of items without lots. */
export const lotInSql = (stock: string): string => `NULLIF(${stock}.lot_number, '')`
