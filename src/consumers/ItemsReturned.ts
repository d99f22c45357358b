import { Effect } from "effect"
import { ItemsReturned, returnConditionOf, variantOf } from "../schema/Message.ts"
import { Orders } from "../services/orders/Orders.ts"
import { identifiedConsumer } from "./Consumer.ts"

/** What came back is restocked, once per message: two equal returns of one order are two. */
const returning = (topic: string) =>
  identifiedConsumer({
    topic,
    payload: ItemsReturned,
    // Without an order the returns of one item keep their order.
    aggregate: (returned) => returned.orderId ?? linesOf(returned)[0]!.productVariantId,
    handle: (caller, returned, messageId) =>
      Effect.flatMap(Orders, (orders) =>
        orders.takeBack(caller, {
          messageId: `${topic} ${messageId}`,
          orderId: returned.orderId ?? undefined,
          lines: linesOf(returned)
        })
      ).pipe(Effect.map(({ answer }) => (answer.applied ? "applied" : "repeated")))
  })

/** What the message says of the condition of all is that of a line which says nothing. */
const linesOf = ({ condition, items, productVariantId, quantityReturned }: ItemsReturned) =>
  items?.map((line) => ({
    productVariantId: variantOf(line),
    quantity: line.quantity,
    condition: returnConditionOf(line.condition ?? condition)
  })) ?? [
    {
      productVariantId: productVariantId!,
      quantity: quantityReturned!,
      condition: returnConditionOf(condition)
    }
  ]

export const orderReturned = returning("order.returned")
export const returnProcessed = returning("return.processed")
