import { Effect } from "effect"
import type { Caller } from "../schema/Caller.ts"
import { OrderEnded } from "../schema/Message.ts"
import type { CancelOrder } from "../services/kernel/commands/orders.ts"
import { Orders } from "../services/orders/Orders.ts"
import { consumer, identifiedConsumer } from "./Consumer.ts"

/** Three ways in which an order comes to nothing: what it still holds is released. */

const ended = (caller: Caller, command: Omit<CancelOrder, "_tag">) =>
  Effect.flatMap(Orders, (orders) => orders.cancel(caller, command)).pipe(
    Effect.map(({ answer }) => (answer.applied ? ("applied" as const) : ("repeated" as const)))
  )

/** Nothing is reserved for the order any more: once is enough. */
const ending = (topic: string, reason: CancelOrder["reason"]) =>
  consumer({
    topic,
    payload: OrderEnded,
    aggregate: ({ orderId }) => orderId,
    handle: (caller, { orderId }) => ended(caller, { orderId, reason })
  })

export const orderCancelled = ending("order.cancelled", "CANCELLED")
export const orderFraudulent = ending("order.fraudulent", "FRAUDULENT")

/** The order may be paid yet, and may reserve again: each failed payment releases what is held then, once a message. */
export const orderPaymentFailed = identifiedConsumer({
  topic: "order.payment-failed",
  payload: OrderEnded,
  aggregate: ({ orderId }) => orderId,
  identity: "OPTIONAL",
  handle: (caller, { orderId }, messageId) => ended(caller, { orderId, reason: "PAYMENT_FAILED", messageId })
})
