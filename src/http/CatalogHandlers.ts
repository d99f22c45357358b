import { Effect } from "effect"
import { ItemNotFound } from "../schema/Failure.ts"
import type { EnsureItem } from "../services/kernel/commands/catalog.ts"
import type { ItemAnswer, LocationAnswer } from "../schema/Item.ts"
import type { Posted } from "../services/kernel/commands.ts"
import { timestamp, timestampOrNull } from "../schema/Time.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { Discrepancies, type Discrepancy } from "../services/stock/Discrepancies.ts"
import { Movements } from "../services/stock/Movements.ts"
import { type Stock, Stocks } from "../services/stock/Stocks.ts"
import { answer } from "./Responses.ts"
import { routesOf } from "./Routes.ts"
import {
  DeletedItem,
  DiscrepancyList,
  type DiscrepancyView,
  ItemList,
  ItemView,
  LocationList,
  LocationView,
  ResolvedDiscrepancy,
  StockList,
  StockView
} from "./contract/CatalogApi.ts"
import { CurrentCaller } from "./contract/Contract.ts"
import { movementView } from "./Views.ts"
import { MovementList, movementFilter } from "./contract/Movement.ts"

export const CatalogHandlers = routesOf(
  "catalog",
  Effect.gen(function* () {
    const catalog = yield* Catalog
    const discrepancies = yield* Discrepancies
    const movements = yield* Movements
    const stocks = yield* Stocks
    return {
      createItem: Effect.fnUntraced(function* ({ payload }) {
        return ensured(yield* catalog.ensureItem(yield* CurrentCaller, attributesOf(payload)))
      }),

      updateItem: Effect.fnUntraced(function* ({ params: { productVariantId }, payload }) {
        const caller = yield* CurrentCaller
        return ensured(yield* catalog.ensureItem(caller, { ...attributesOf(payload), productVariantId }))
      }),

      deleteItem: Effect.fnUntraced(function* ({ params: { productVariantId } }) {
        const posted = yield* catalog.deleteItem(yield* CurrentCaller, { productVariantId, mustExist: true })
        const { applied, outcome } = posted.answer
        if (outcome === "UNKNOWN") return yield* new ItemNotFound({ items: [productVariantId] })
        const status = outcome === "DISCONTINUED" ? outcome : "DELETED"
        return answer(DeletedItem, { productVariantId, status, applied }, { replayed: posted.replayed })
      }),

      listItems: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* catalog.items(merchantId, {
          ...query,
          belowSafetyStock: query.belowSafetyStock === "true",
          kind: "PRODUCT"
        })
        return answer(ItemList, { ...page, data: page.data.map(itemView) })
      }),

      createLocation: Effect.fnUntraced(function* ({ payload }) {
        const posted = yield* catalog.ensureLocation(yield* CurrentCaller, payload)
        const { created, location } = posted.answer
        return answer(LocationView, locationView(location), {
          status: created ? 201 : 200,
          replayed: posted.replayed
        })
      }),

      updateLocation: Effect.fnUntraced(function* ({ params: { locationId }, payload }) {
        const posted = yield* catalog.updateLocation(yield* CurrentCaller, { ...payload, locationId })
        return answer(LocationView, locationView(posted.answer.location), { replayed: posted.replayed })
      }),

      listLocations: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* catalog.locations(merchantId, query)
        return answer(LocationList, { ...page, data: page.data.map(locationView) })
      }),

      listStocks: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* stocks.list(merchantId, query)
        return answer(StockList, { ...page, data: page.data.map(stockView) })
      }),

      listLots: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* stocks.expiring(merchantId, query)
        return answer(StockList, { ...page, data: page.data.map(stockView) })
      }),

      getStock: Effect.fnUntraced(function* ({ params: { stockId } }) {
        const { merchantId } = yield* CurrentCaller
        return answer(StockView, stockView(yield* stocks.byId(merchantId, stockId)))
      }),

      listStockMovements: Effect.fnUntraced(function* ({ params: { stockId }, query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* movements.ofStock(merchantId, stockId, movementFilter(query))
        return answer(MovementList, { ...page, data: page.data.map(movementView) })
      }),

      listDiscrepancies: Effect.fnUntraced(function* ({ query }) {
        const { merchantId } = yield* CurrentCaller
        const page = yield* discrepancies.list(merchantId, query)
        return answer(DiscrepancyList, { ...page, data: page.data.map(discrepancyView) })
      }),

      resolveDiscrepancy: Effect.fnUntraced(function* ({ params: { discrepancyId }, payload: { reason } }) {
        const posted = yield* discrepancies.resolve(yield* CurrentCaller, { discrepancyId, reason })
        return answer(
          ResolvedDiscrepancy,
          { discrepancyId, resolved: posted.answer.resolved },
          { replayed: posted.replayed }
        )
      })
    }
  })
)

const ensured = ({ answer: { created, item }, replayed }: Posted<EnsureItem>) =>
  answer(ItemView, itemView(item), { status: created ? 201 : 200, replayed })

/** A status is what the item is to be; that it is in stock or short of it is a figure. */
const attributesOf = <A extends { readonly status?: "ACTIVE" | "DISCONTINUED" }>({
  status,
  ...attributes
}: A) => ({
  ...attributes,
  kind: "PRODUCT" as const,
  discontinued: status === undefined ? undefined : status === "DISCONTINUED"
})

const itemView = ({ kind: _, ...item }: ItemAnswer): typeof ItemView.Encoded => ({
  ...item,
  safetyStockShortfall:
    item.stocked && item.status !== "DISCONTINUED"
      ? Math.max(0, item.safetyStock - item.availableQuantity)
      : 0,
  createdAt: timestamp(item.createdAt),
  updatedAt: timestamp(item.updatedAt)
})

const locationView = (location: LocationAnswer): typeof LocationView.Encoded => ({
  ...location,
  createdAt: timestamp(location.createdAt)
})

const stockView = (stock: Stock): typeof StockView.Encoded => ({
  ...stock,
  expiresAt: timestampOrNull(stock.expiresAt),
  createdAt: timestamp(stock.createdAt),
  updatedAt: timestamp(stock.updatedAt)
})

const discrepancyView = (discrepancy: Discrepancy): typeof DiscrepancyView.Encoded => ({
  ...discrepancy,
  detail: discrepancy.detail as typeof DiscrepancyView.Encoded.detail,
  openedAt: timestamp(discrepancy.openedAt),
  closedAt: timestampOrNull(discrepancy.closedAt)
})
