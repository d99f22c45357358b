import { Effect } from "effect"
import { OrderEnded } from "../schema/Message.ts"
import type { CancelOrder } from "../services/kernel/commands/orders.ts"
import { Orders } from "../services/orders/Orders.ts"
import { consumer } from "./Consumer.ts"

/** Three ways in which an order comes to nothing: what it still holds is released, once for each. */
const ending = (topic: string, reason: CancelOrder["reason"]) =>
  consumer({
    topic,
    payload: OrderEnded,
    aggregate: ({ orderId }) => orderId,
    handle: (caller, { orderId }) =>
      Effect.flatMap(Orders, (orders) => orders.cancel(caller, { orderId, reason })).pipe(
        Effect.map(({ answer }) => (answer.applied ? "applied" : "repeated"))
      )
  })

/** Nothing is reserved for the order any more. */
export const orderCancelled = ending("order.cancelled", "CANCELLED")
/** The order may be paid yet: it may reserve again. */
export const orderPaymentFailed = ending("order.payment-failed", "PAYMENT_FAILED")
/** Nothing is reserved for the order any more. */
export const orderFraudulent = ending("order.fraudulent", "FRAUDULENT")
