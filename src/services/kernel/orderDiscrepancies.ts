import type { OrderKey } from "./Needs.ts"
import type { PostingContext } from "./PostingContext.ts"
import type { ItemRow } from "./tables/catalog.ts"
import type { LineRow } from "./tables/reservations.ts"
import { returnSubject } from "./trackingKeys.ts"

/** Where what is told of an order contradicts itself: cancelled after its sale, returned beyond it. */

/** What was sold and has not come back. */
export const outstanding = ({ returned, returnedEarly, sold }: LineRow): number =>
  sold - returned - returnedEarly

const linesOf = (context: PostingContext, orderId: OrderKey): ReadonlyArray<LineRow> =>
  context.reservationsOf(orderId).flatMap(({ lines }) => lines)

/** The order was sold, and it was cancelled or found fraudulent: nothing is put back by itself. */
export const openCancelledAfterSale = (context: PostingContext, orderId: OrderKey): void => {
  const sold = linesOf(context, orderId).filter((line) => outstanding(line) > 0)
  if (sold.length === 0) return
  const item = context.unit.items.indexes.byId.get(context.merchantId, sold[0]!.itemId)!
  const lines = sold.map((line) => ({
    itemId: line.itemId,
    stockId: line.stockId,
    quantity: outstanding(line)
  }))
  context.openDiscrepancy("CANCELLED_AFTER_SALE", { item, orderId }, { lines })
}

/** Once all of it has come back, nothing is left to say. */
export const closeCancelledAfterSale = (context: PostingContext, orderId: OrderKey): void => {
  const open = context.discrepancyOf(orderId, "CANCELLED_AFTER_SALE")
  if (open === undefined || linesOf(context, orderId).some((line) => outstanding(line) > 0)) return
  context.closeDiscrepancy(open, null)
}

/** More of an item came back than its order was sold; `detail.quantity` says how much, for as long as it is so. */
export const openReturnExceedsSale = (
  context: PostingContext,
  orderId: OrderKey,
  item: ItemRow,
  quantity: number
): void => {
  const subject = returnSubject(orderId, item.itemId)
  const open = context.discrepancyOf(subject, "RETURN_EXCEEDS_SALE")
  if (open !== undefined) {
    context.unit.discrepancies.update(open, { detail: { quantity: quantityOf(open) + quantity } })
  }
  context.openDiscrepancy("RETURN_EXCEEDS_SALE", { item, orderId, subject }, { quantity })
}

/** A sale is told of which goods came back before: the return exceeds what the order was sold by so much less. */
export const coverReturn = (context: PostingContext, orderId: string, line: LineRow): void => {
  const open = context.discrepancyOf(returnSubject(orderId, line.itemId), "RETURN_EXCEEDS_SALE")
  if (open === undefined) return
  const { discrepancies, lines } = context.unit
  const exceeds = quantityOf(open)
  const covered = Math.min(exceeds, outstanding(line))
  if (covered > 0) lines.update(line, { returnedEarly: line.returnedEarly + covered })
  if (covered === exceeds) context.closeDiscrepancy(open, null)
  else if (covered > 0) discrepancies.update(open, { detail: { quantity: exceeds - covered } })
}

const quantityOf = ({ detail }: { readonly detail: Readonly<Record<string, unknown>> }): number =>
  Number(detail["quantity"])
