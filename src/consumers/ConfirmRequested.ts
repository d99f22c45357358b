import { Effect } from "effect"
import { ConfirmRequested } from "../schema/Message.ts"
import { Orders } from "../services/orders/Orders.ts"
import { consumer } from "./Consumer.ts"

/** Sells what is reserved. Every request is answered by an event, also a repeated one. */
export const confirmRequested = consumer({
  topic: "inventory.confirm_requested",
  payload: ConfirmRequested,
  aggregate: ({ orderId }) => orderId,
  handle: (caller, { orderId, reservationId }) =>
    Effect.flatMap(Orders, (orders) => orders.confirm(caller, { orderId, reservationId })).pipe(
      Effect.map(({ answer }) => (answer.confirmed && !answer.applied ? "repeated" : "applied"))
    )
})
