import { hash } from "node:crypto"
import { type ItemRef, nameOf } from "../../schema/Item.ts"

/**
 * The names under which outside facts are applied once. Each is made here and nowhere else. Names from outside hold any
 * visible character, so that only a control character can part them. The forms are those of rows that are stored already.
 */
const joined = (...parts: ReadonlyArray<string | undefined>): string => parts.join("\u001f")

/** A row of an index holds 2,704 bytes, and a character up to four of them: what is longer is known by its hash. */
const keyLengthMax = 400

/** A posting's own row, which only its second run asks for. It is removed by age. */
export const postingKey = (postingId: string): string => `${postingKeyPrefix}${postingId}`
export const postingKeyPrefix = "POSTING|"

/** A cancelled or fraudulent order: nothing is reserved for it any more. */
export const orderCancelledKey = (orderId: string): string => `ORDER_CANCELLED|${orderId}`
export const orderReceivedKey = (orderId: string): string => joined("ORDER_CREATED", orderId)
/** Without the identity of a message, an order's first one counts. */
export const paymentFailedKey = (orderId: string, messageId?: string): string =>
  messageId === undefined
    ? joined("PAYMENT_FAILED", orderId)
    : joined("PAYMENT_FAILED", orderId, identity(messageId))

export const returnKey = (messageId: string): string => joined("RETURN", identity(messageId))

/** An identity of a message is of any length. */
const identity = (messageId: string): string =>
  messageId.length <= messageIdLengthMax ? messageId : hash("sha256", messageId)
const messageIdLengthMax = 200

/** What a return beyond the sale is open about: there is one for an order and item. */
export const returnSubject = (orderId: string, itemId: string): string => joined(orderId, itemId)

/** What a line of a paid sale is known by: its own id, else its item and location. */
export const saleLineKey = (
  orderId: string,
  line: {
    readonly saleOrderItemId?: string | undefined
    readonly productVariantId: string
    readonly locationId?: string | undefined
  }
): string =>
  line.saleOrderItemId === undefined
    ? joined("SALE_ORDER", orderId, "item", line.productVariantId, line.locationId ?? "")
    : joined("SALE_ORDER", orderId, "line", line.saleOrderItemId)

/** The stocks that a paid order was sold from. */
export const saleStockKey = (orderId: string, stockId: string): string =>
  joined("SALE_ORDER", orderId, "stock", stockId)
/** The same of expressions in a statement. */
export const saleStockKeyInSql = (orderId: string, stockId: string): string =>
  `'SALE_ORDER' || chr(31) || ${orderId} || chr(31) || 'stock' || chr(31) || ${stockId}`

/** That a product variant was deleted: what messages say of it may be older. */
export const itemDeletedKey = (productVariantId: string): string => joined("ITEM_DELETED", productVariantId)

/** The initial stock of an item, under the name by which it is told. */
export const initialStockKey = (item: {
  readonly productVariantId?: string | undefined
  readonly sku?: string | undefined
}): string =>
  item.productVariantId === undefined
    ? joined("INITIAL_STOCK", "sku", item.sku)
    : joined("INITIAL_STOCK", "variant", item.productVariantId)

/**
 * An adjustment with a reference, or a direct sale of an order. One delivery or count may be about several places and lots
 * under one reference, and each is a fact of its own.
 */
export const adjustmentKey = (adjustment: {
  readonly changeType: string
  readonly item: ItemRef
  readonly orderId?: string | undefined
  readonly reference?: string | undefined
  readonly locationId?: string | undefined
  readonly lotNumber?: string | undefined
}): string | undefined => {
  const { changeType, item, locationId, lotNumber, orderId, reference } = adjustment
  const isSaleOfOrder = changeType === "SALE" && orderId !== undefined
  if (reference === undefined && !isSaleOfOrder) return undefined
  const kind = "variantId" in item ? "variant" : "sku" in item ? "sku" : "item"
  const place = isSaleOfOrder ? [] : [locationId, lotNumber]
  const key = joined(changeType, orderId, kind, nameOf(item), reference, ...place)
  return key.length <= keyLengthMax ? key : joined(changeType, hash("sha256", key))
}
