import { Effect } from "effect"
import { timestamp, timestampOrNull } from "../schema/Time.ts"
import { Availability } from "../services/stock/Availability.ts"
import { Reservations } from "../services/stock/Reservations.ts"
import { answer } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import { quantityNow, releasedOrder } from "./Views.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import { ReleasedOrder, defaultExpiresIn } from "./contract/Reservation.ts"
import { AllocatedOrder, SkuView } from "./contract/WarehouseApi.ts"

export const WarehouseHandlers = routesOf(
  "warehouse",
  Effect.gen(function* () {
    const availability = yield* Availability
    const reservations = yield* Reservations
    return {
      reserveSkus: Effect.fnUntraced(function* ({ payload }) {
        const posted = yield* reservations.reserve(yield* CurrentCaller, {
          orderId: payload.orderId,
          kind: "ORDER",
          lines: payload.items.map(({ quantity, sku, skuBatchId }) => ({
            item: { sku },
            quantity,
            stockId: skuBatchId
          })),
          expiresInSeconds: payload.expiresIn ?? defaultExpiresIn
        })
        const { created, reservation } = posted.answer
        return answer(
          AllocatedOrder,
          {
            reservationId: reservation.reservationId,
            orderId: reservation.orderId,
            status: reservation.status,
            applied: created,
            allocations: reservation.lines.flatMap((line) => {
              const { lotNumber, sku, stockId } = line
              const quantity = quantityNow(reservation, line)
              return quantity === 0 ? [] : [{ sku, skuBatchId: stockId, lotNumber, quantity }]
            }),
            expiresAt: timestamp(reservation.expiresAt)
          },
          { status: created ? 201 : 200, replayed: posted.replayed }
        )
      }),

      releaseOrder: Effect.fnUntraced(function* ({ payload: { orderId } }) {
        const posted = yield* reservations.release(yield* CurrentCaller, { orderId, reason: "RELEASED" })
        return answer(ReleasedOrder, releasedOrder(posted.answer, orderId), { replayed: posted.replayed })
      }),

      getSku: Effect.fnUntraced(function* ({ params }) {
        const { merchantId } = yield* CurrentCaller
        const item = yield* availability.ofSku(merchantId, params.sku)
        return answer(SkuView, {
          sku: item.sku!,
          totalQuantity: item.quantity,
          unallocatableQuantity: item.unallocatableQuantity,
          reservedQuantity: item.reservedQuantity,
          availableQuantity: item.availableQuantity,
          batches: item.stocks.map(({ expiresAt, quantity, stockId, ...stock }) => ({
            ...stock,
            skuBatchId: stockId,
            expiresAt: timestampOrNull(expiresAt),
            totalQuantity: quantity
          })),
          // Nothing has been synchronised with a warehouse system yet.
          lastWmsSyncAt: null
        })
      })
    }
  })
)
