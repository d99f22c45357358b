import { Effect } from "effect"
import { OrderCreated, variantOf } from "../schema/Message.ts"
import { Orders } from "../services/orders/Orders.ts"
import { consumer } from "./Consumer.ts"

/** As long as a reservation that is asked for over HTTP without saying how long. */
const expiresInSeconds = 1_800

/** Checks what the order holds, or reserves it. What cannot be done is told by `inventory.confirmation_failed`. */
export const orderCreated = consumer({
  topic: "order.created",
  payload: OrderCreated,
  aggregate: ({ orderId }) => orderId,
  handle: (caller, { items, orderId, reservationId }) =>
    Effect.flatMap(Orders, (orders) =>
      orders.receive(caller, {
        orderId,
        lines: items.map((line) => ({ productVariantId: variantOf(line), quantity: line.quantity })),
        reservationId: reservationId ?? undefined,
        expiresInSeconds
      })
    ).pipe(Effect.map(({ answer }) => (answer.outcome === "IGNORED" ? "ignored" : "applied")))
})
