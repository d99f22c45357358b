import { Effect } from "effect"
import { MomentInFuture } from "../schema/Failure.ts"
import { timestamp, timestampOrNull } from "../schema/Time.ts"
import { ValidationFailed } from "../schema/Validation.ts"
import { Availability, type ItemThen, type ItemView, type StockView } from "../services/stock/Availability.ts"
import { Movements } from "../services/stock/Movements.ts"
import { Reservations } from "../services/stock/Reservations.ts"
import { answer } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import { adjustedStock, adjustmentOf, movementView, releasedVariant, reservedVariant } from "./Views.ts"
import { AdjustedStock } from "./contract/Adjustment.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import { MovementList, movementFilter } from "./contract/Movement.ts"
import { defaultExpiresIn, ReleasedVariant, ReservedVariant } from "./contract/Reservation.ts"
import { type Batch, VariantList, VariantListThen, VariantThen, VariantView } from "./contract/VariantsApi.ts"

export const VariantsHandlers = routesOf(
  "variants",
  Effect.gen(function* () {
    const availability = yield* Availability
    const movements = yield* Movements
    const reservations = yield* Reservations
    return {
      getVariants: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const wanted = [...new Set(query.productVariantIds)]
        const listed = <A, B>(found: ReadonlyMap<string, A>, show: (item: A) => B) => ({
          data: wanted.flatMap((id) => (found.has(id) ? [show(found.get(id)!)] : [])),
          missing: wanted.filter((id) => !found.has(id))
        })
        const { at } = query
        if (at === undefined) {
          return answer(VariantList, listed(yield* availability.ofVariants(merchantId, wanted), view))
        }
        const then = yield* notAhead(availability.ofVariantsAt(merchantId, wanted, at))
        return answer(
          VariantListThen,
          listed(then, (item) => viewThen(item, at))
        )
      }),

      getVariant: Effect.fnUntraced(function* ({ params: { productVariantId }, query: { at } }) {
        const { merchantId } = yield* CurrentCaller
        if (at === undefined) {
          return answer(VariantView, view(yield* availability.ofVariant(merchantId, productVariantId)))
        }
        const then = yield* notAhead(availability.ofVariantAt(merchantId, productVariantId, at))
        return answer(VariantThen, viewThen(then, at))
      }),

      reserveVariant: Effect.fnUntraced(function* ({ params: { productVariantId }, payload }) {
        const posted = yield* reservations.reserve(yield* CurrentCaller, {
          orderId: payload.orderId,
          kind: "VARIANT",
          lines: [{ item: { variantId: productVariantId }, quantity: payload.quantity }],
          expiresInSeconds: payload.expiresIn ?? defaultExpiresIn
        })
        return answer(ReservedVariant, reservedVariant(posted.answer, productVariantId, payload.quantity), {
          status: posted.answer.created ? 201 : 200,
          replayed: posted.replayed
        })
      }),

      releaseVariant: Effect.fnUntraced(function* ({ params: { productVariantId }, payload }) {
        const posted = yield* reservations.release(yield* CurrentCaller, {
          orderId: payload.orderId,
          line: { item: { variantId: productVariantId }, quantity: payload.quantity },
          reason: "RELEASED"
        })
        return answer(ReleasedVariant, releasedVariant(posted.answer, payload.orderId), {
          replayed: posted.replayed
        })
      }),

      adjustStock: Effect.fnUntraced(function* ({ payload }) {
        const posted = yield* movements.adjust(
          yield* CurrentCaller,
          adjustmentOf(payload, payload.changeType)
        )
        return answer(AdjustedStock, adjustedStock(posted.answer), { replayed: posted.replayed })
      }),

      listMovements: Effect.fnUntraced(function* ({ params, query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* movements.ofVariant(merchantId, params.productVariantId, movementFilter(query))
        return answer(MovementList, { ...page, data: page.data.map(movementView) })
      })
    }
  })
)

/** A time ahead is a bad field like any other. */
const notAhead = <A, E, R>(effect: Effect.Effect<A, E | MomentInFuture, R>) =>
  Effect.catchIf(
    effect,
    (failure) => failure instanceof MomentInFuture,
    () =>
      new ValidationFailed({
        errors: [{ path: "query.at", message: "must not lie in the future: nothing is recorded there yet" }]
      })
  )

const view = (item: ItemView): typeof VariantView.Encoded => ({
  ...figuresView(item),
  status: item.status,
  updatedAt: timestamp(item.updatedAt)
})

const viewThen = (item: ItemThen, at: number): typeof VariantThen.Encoded => ({
  ...figuresView(item),
  at: timestamp(at),
  updatedAt: timestampOrNull(item.updatedAt)
})

const figuresView = (item: Omit<ItemView, "status" | "updatedAt">) => ({
  productVariantId: item.productVariantId!,
  sku: item.sku,
  stocked: item.stocked,
  quantity: item.quantity,
  reservedQuantity: item.reservedQuantity,
  availableQuantity: item.availableQuantity,
  locations: [...Map.groupBy(item.stocks, ({ locationId }) => locationId)].map(([locationId, stocks]) => {
    const sum = (of: (stock: StockView) => number): number =>
      stocks.reduce((total, stock) => total + of(stock), 0)
    return {
      locationId,
      quantity: sum((stock) => stock.quantity),
      reservedQuantity: sum((stock) => stock.reservedQuantity),
      availableQuantity: sum((stock) => stock.availableQuantity),
      batches: stocks.map(batch)
    }
  })
})

const batch = ({ expiresAt, locationId: _, ...stock }: StockView): typeof Batch.Encoded => ({
  ...stock,
  expiresAt: timestampOrNull(expiresAt)
})
