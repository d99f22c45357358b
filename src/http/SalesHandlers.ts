import { Effect } from "effect"
import { paidSale } from "../schema/Message.ts"
import { Orders } from "../services/orders/Orders.ts"
import { answer } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import { RecordedSale } from "./contract/SalesApi.ts"

export const SalesHandlers = routesOf(
  "sales",
  Effect.gen(function* () {
    const orders = yield* Orders
    return {
      recordSale: Effect.fnUntraced(function* ({ payload }) {
        const posted = yield* orders.reportSale(yield* CurrentCaller, paidSale(payload))
        const { at: _, ...lines } = posted.answer
        return answer(
          RecordedSale,
          { saleOrderId: payload.saleOrderId, applied: lines.applied > 0, lines },
          { replayed: posted.replayed }
        )
      })
    }
  })
)
