/** Where a fact contradicts the books (CONTRACTS section 2, "Discrepancies"). */

interface KindOfDiscrepancy {
  /**
   * Whether it is for the stock to be put right, whereupon it closes by itself: it cannot be resolved by hand before. Those
   * about an order close by themselves too when their condition ends, but its end may never come.
   */
  readonly closesItself: boolean
}

export const discrepancyKinds = {
  NEGATIVE_STOCK: { closesItself: true },
  OVERCOMMITTED: { closesItself: true },
  DISCONTINUED_WITH_STOCK: { closesItself: true },
  EXPIRED_LOT_SOLD: { closesItself: false },
  RETURN_EXCEEDS_SALE: { closesItself: false },
  CANCELLED_AFTER_SALE: { closesItself: false },
  SALE_LINE_CHANGED: { closesItself: false },
  COUNT_DIFFERENCE: { closesItself: false }
} as const satisfies Readonly<Record<string, KindOfDiscrepancy>>

export type DiscrepancyKind = keyof typeof discrepancyKinds
export const kindsOfDiscrepancy = Object.keys(discrepancyKinds) as ReadonlyArray<DiscrepancyKind>
export type DiscrepancyStatus = "OPEN" | "CLOSED" | "RESOLVED"

interface Balances {
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
}

/** The discrepancies that a stock's balances call for by themselves. `balanceDiscrepanciesInSql` is the same rule. */
export const balanceDiscrepancies = ({
  onHand,
  reserved,
  unallocatable
}: Balances): ReadonlyArray<DiscrepancyKind> => {
  const held = reserved + unallocatable
  const isOvercommitted = held > onHand && held > 0
  if (onHand >= 0) return isOvercommitted ? overcommitted : sound
  return isOvercommitted ? negativeAndOvercommitted : negative
}
const sound: ReadonlyArray<DiscrepancyKind> = []
const negative: ReadonlyArray<DiscrepancyKind> = ["NEGATIVE_STOCK"]
const overcommitted: ReadonlyArray<DiscrepancyKind> = ["OVERCOMMITTED"]
const negativeAndOvercommitted: ReadonlyArray<DiscrepancyKind> = ["NEGATIVE_STOCK", "OVERCOMMITTED"]

/** The kinds that balances call for, as a list for SQL's IN. */
export const balanceDiscrepancyKindsInSql = negativeAndOvercommitted.map((kind) => `'${kind}'`).join(", ")

/** The same for the row of a stock in a statement, as an array of text. A test compares the two. */
export const balanceDiscrepanciesInSql = (stock: string): string => `array_remove(ARRAY[
      CASE WHEN ${stock}.on_hand < 0 THEN 'NEGATIVE_STOCK' END,
      CASE WHEN ${stock}.reserved + ${stock}.unallocatable > GREATEST(${stock}.on_hand, 0) THEN 'OVERCOMMITTED' END
    ], NULL)`
