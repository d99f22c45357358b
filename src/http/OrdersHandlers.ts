import { Clock, Effect } from "effect"
import { ItemNotFound, ReservationFailed } from "../schema/Failure.ts"
import { timestamp } from "../schema/Time.ts"
import { Availability, type ItemView } from "../services/stock/Availability.ts"
import { type Reservation, Reservations } from "../services/stock/Reservations.ts"
import { answer, enveloped } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import {
  AvailabilityOfItems,
  ExtendedOrder,
  ReservationList,
  ReservationView,
  type CheckAvailability
} from "./contract/OrdersApi.ts"
import { ConfirmedOrder, ReleasedOrder, ReservedOrder, defaultExpiresIn } from "./contract/Reservation.ts"
import { releasedOrder, reservedOrder, wantedLine } from "./Views.ts"

export const OrdersHandlers = routesOf(
  "orders",
  Effect.gen(function* () {
    const reservations = yield* Reservations
    const availability = yield* Availability
    return {
      checkAvailability: Effect.fnUntraced(function* ({ payload }) {
        const { merchantId } = yield* CurrentCaller
        const at = yield* Clock.currentTimeMillis
        const items = yield* availability.ofVariants(merchantId, [
          ...new Set(payload.items.map(({ variantId }) => variantId))
        ])
        const lines = availabilityOf(payload.items, items)
        return enveloped(
          AvailabilityOfItems,
          { available: lines.every(({ available }) => available), items: lines },
          at
        )
      }),

      reserve: Effect.fnUntraced(function* ({ payload }) {
        const posted = yield* reservations
          .reserve(yield* CurrentCaller, {
            orderId: payload.orderId,
            kind: "ORDER",
            lines: payload.items.map(wantedLine),
            expiresInSeconds: payload.expiresIn ?? defaultExpiresIn,
            locationId: payload.locationId,
            metadata: payload.metadata
          })
          .pipe(unknownItemsFail)
        const { at, created, reservation } = posted.answer
        return enveloped(ReservedOrder, reservedOrder(reservation, payload.items, created), at, {
          status: created ? 201 : 200,
          replayed: posted.replayed
        })
      }),

      amend: Effect.fnUntraced(function* ({ payload: { expiresIn, items, orderId } }) {
        const { answer: amended, replayed } = yield* reservations
          .amend(yield* CurrentCaller, { orderId, lines: items.map(wantedLine), expiresInSeconds: expiresIn })
          .pipe(unknownItemsFail)
        const { applied, at, reservation } = amended
        return enveloped(ReservedOrder, reservedOrder(reservation, items, applied), at, { replayed })
      }),

      release: Effect.fnUntraced(function* ({ payload: { orderId } }) {
        const { answer: released, replayed } = yield* reservations.release(yield* CurrentCaller, {
          orderId,
          reason: "RELEASED"
        })
        return enveloped(ReleasedOrder, releasedOrder(released, orderId), released.at, { replayed })
      }),

      confirm: Effect.fnUntraced(function* ({ payload: { items, orderId, reservationId } }) {
        const { answer: confirmed, replayed } = yield* reservations
          .confirm(yield* CurrentCaller, { orderId, reservationId, lines: items?.map(wantedLine) })
          .pipe(unknownItemsFail)
        const { applied, at, reservationId: sold, status } = confirmed
        const data = { orderId, reservationId: sold, confirmed: true, applied, status }
        return enveloped(ConfirmedOrder, data, at, { replayed })
      }),

      extend: Effect.fnUntraced(function* ({ payload: { expiresIn, orderId } }) {
        const { answer: extended, replayed } = yield* reservations.extend(yield* CurrentCaller, {
          orderId,
          expiresInSeconds: expiresIn
        })
        const data = {
          orderId,
          reservationId: extended.reservationId,
          expiresAt: timestamp(extended.expiresAt)
        }
        return enveloped(ExtendedOrder, data, extended.at, { replayed })
      }),

      getReservation: Effect.fnUntraced(function* ({ params }) {
        const { merchantId } = yield* CurrentCaller
        const found = yield* reservations.get(merchantId, params.id)
        return enveloped(ReservationView, view(found), yield* Clock.currentTimeMillis)
      }),

      listReservations: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* reservations.list(merchantId, query)
        return answer(ReservationList, {
          success: true,
          data: page.data.map(view),
          nextCursor: page.nextCursor,
          meta: { timestamp: timestamp(yield* Clock.currentTimeMillis) }
        })
      })
    }
  })
)

/** On this contract an unknown variant is a reservation that cannot be made (CONTRACTS 4.1). */
const unknownItemsFail = <A, E, R>(effect: Effect.Effect<A, E | ItemNotFound, R>) =>
  Effect.catchIf(
    effect,
    (failure) => failure instanceof ItemNotFound,
    ({ items }) => new ReservationFailed({ reason: "UNKNOWN_ITEM", items })
  )

/** Lines of the same variant are answered together, as they are reserved. */
const availabilityOf = (
  lines: (typeof CheckAvailability.Type)["items"],
  items: ReadonlyMap<string, ItemView>
): (typeof AvailabilityOfItems.Encoded)["items"] => {
  const requested = new Map<string, number>()
  for (const { quantity, variantId } of lines) {
    requested.set(variantId, (requested.get(variantId) ?? 0) + quantity)
  }
  return lines.map(({ productId, quantity, variantId }) => {
    const item = items.get(variantId)
    const isMadeToOrder = item !== undefined && !item.stocked && item.status !== "DISCONTINUED"
    const availableQuantity = isMadeToOrder ? requested.get(variantId)! : (item?.availableQuantity ?? 0)
    return {
      ...(productId === undefined ? {} : { productId }),
      variantId,
      available: availableQuantity >= requested.get(variantId)!,
      requestedQuantity: quantity,
      availableQuantity
    }
  })
}

const view = (reservation: Reservation): typeof ReservationView.Encoded => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  status: reservation.status,
  expiresAt: timestamp(reservation.expiresAt),
  createdAt: timestamp(reservation.createdAt),
  updatedAt: timestamp(reservation.updatedAt),
  metadata: reservation.metadata as typeof ReservationView.Encoded.metadata,
  lines: reservation.lines.map((line) => ({
    itemId: line.itemId,
    variantId: line.productVariantId,
    sku: line.sku,
    quantity: line.quantity,
    open: line.open,
    sold: line.sold,
    released: line.released,
    returned: line.returned,
    allocation:
      line.stockId === null
        ? null
        : { stockId: line.stockId, locationId: line.locationId, lotNumber: line.lotNumber }
  }))
})
