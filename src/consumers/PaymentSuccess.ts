import { Effect } from "effect"
import { paidSale, PaymentSuccess } from "../schema/Message.ts"
import { Orders } from "../services/orders/Orders.ts"
import { consumer } from "./Consumer.ts"

/** A paid sale is a fact: it is always recorded, once per line (CONTRACTS section 5). */
export const paymentSuccess = consumer({
  topic: "payment.success",
  payload: PaymentSuccess,
  aggregate: ({ saleOrderId }) => saleOrderId,
  handle: (caller, payload) =>
    Effect.flatMap(Orders, (orders) => orders.recordSale(caller, paidSale(payload))).pipe(
      Effect.map(({ answer }) => (answer.applied + answer.changed > 0 ? "applied" : "repeated"))
    )
})
