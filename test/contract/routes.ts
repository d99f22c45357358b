import { Effect } from "effect"
import type { Permission } from "../../src/schema/Principal.ts"
import { fresh, type merchant } from "../support/service.ts"
import { textAt } from "../support/shape.ts"

/** Every route of the contract with a call that succeeds: what the tests of the edge walk over. */

export type Merchant = Effect.Success<typeof merchant>

/** What a merchant has, so that every route finds something. */
export interface World {
  readonly variantId: string
  readonly sku: string
  /** An item without stock, which may be deleted. */
  readonly deletableId: string
  readonly locationId: string
  readonly stockId: string
  readonly discrepancyId: string
  /** An order with a pending reservation of two for each route that ends or changes one. */
  readonly orders: Readonly<
    Record<"amend" | "confirm" | "extend" | "release" | "releaseSkus" | "releaseVariant", string>
  >
  readonly reservationId: string
}

/** How a field is read, and so what is bad for it. */
export type Kind =
  | "choice"
  | "count"
  | "flag"
  | "id"
  | "lines"
  | "metadata"
  | "moment"
  | "newId"
  | "quantity"
  | "reason"
  | "seconds"
  | "text"
  | "uuid"

export interface Route {
  /** Group and endpoint, as the contract names them. */
  readonly name: string
  readonly method: "DELETE" | "GET" | "PATCH" | "POST"
  readonly path: (world: World) => string
  readonly permission: Permission
  readonly body?: (world: World) => Readonly<Record<string, unknown>>
  readonly fields?: Readonly<Record<string, Kind>>
  readonly required?: ReadonlyArray<string>
  /** Reading alone, it has no effect that an Idempotency-Key would have to keep. */
  readonly reads?: boolean
}

const orders = "/api/v1/inventory"
const catalog = "/v1/api/inventory"

export const routes: ReadonlyArray<Route> = [
  {
    name: "orders.checkAvailability",
    method: "POST",
    path: () => `${orders}/check-availability`,
    permission: "inventory:reserve",
    body: ({ variantId }) => ({ items: [{ productId: "p", variantId, quantity: 1 }] }),
    fields: {
      items: "lines",
      "items.0.productId": "id",
      "items.0.variantId": "id",
      "items.0.quantity": "quantity"
    },
    required: ["items", "items.0.variantId", "items.0.quantity"],
    reads: true
  },
  {
    name: "orders.reserve",
    method: "POST",
    path: () => `${orders}/reserve`,
    permission: "inventory:reserve",
    body: ({ locationId, variantId }) => ({
      orderId: fresh("order"),
      items: [{ productId: "p", variantId, quantity: 1 }],
      expiresIn: 600,
      locationId,
      metadata: { channel: "web" }
    }),
    fields: {
      orderId: "id",
      items: "lines",
      "items.0.productId": "id",
      "items.0.variantId": "id",
      "items.0.quantity": "quantity",
      "items.0.locationId": "id",
      "items.0.lotNumber": "id",
      expiresIn: "seconds",
      locationId: "id",
      metadata: "metadata"
    },
    required: ["orderId", "items", "items.0.variantId", "items.0.quantity"]
  },
  {
    name: "orders.amend",
    method: "POST",
    path: () => `${orders}/amend`,
    permission: "inventory:reserve",
    body: ({ orders: { amend }, variantId }) => ({
      orderId: amend,
      items: [{ productId: "p", variantId, quantity: 1 }],
      expiresIn: 600
    }),
    fields: {
      orderId: "id",
      items: "lines",
      "items.0.productId": "id",
      "items.0.variantId": "id",
      "items.0.quantity": "quantity",
      "items.0.locationId": "id",
      "items.0.lotNumber": "id",
      expiresIn: "seconds"
    },
    required: ["orderId", "items", "items.0.variantId", "items.0.quantity"]
  },
  {
    name: "orders.release",
    method: "POST",
    path: () => `${orders}/release`,
    permission: "inventory:reserve",
    body: (world) => ({ orderId: world.orders.release }),
    fields: { orderId: "id" },
    required: ["orderId"]
  },
  {
    name: "orders.confirm",
    method: "POST",
    path: () => `${orders}/confirm`,
    permission: "inventory:reserve",
    body: (world) => ({ orderId: world.orders.confirm, reservationId: world.reservationId }),
    fields: { orderId: "id", reservationId: "uuid" },
    required: ["orderId"]
  },
  {
    name: "orders.extend",
    method: "POST",
    path: () => `${orders}/extend`,
    permission: "inventory:reserve",
    body: (world) => ({ orderId: world.orders.extend, expiresIn: 600 }),
    fields: { orderId: "id", expiresIn: "seconds" },
    required: ["orderId", "expiresIn"]
  },
  {
    name: "orders.getReservation",
    method: "GET",
    path: ({ reservationId }) => `${orders}/reservations/${reservationId}`,
    permission: "inventory:read"
  },
  {
    name: "orders.listReservations",
    method: "GET",
    path: () => `${orders}/reservations`,
    permission: "inventory:read"
  },
  {
    name: "variants.getVariants",
    method: "GET",
    path: ({ variantId }) => `${orders}?productVariantIds=${variantId}`,
    permission: "inventory:read"
  },
  {
    name: "variants.getVariant",
    method: "GET",
    path: ({ variantId }) => `${orders}/${variantId}`,
    permission: "inventory:read"
  },
  {
    name: "variants.reserveVariant",
    method: "POST",
    path: ({ variantId }) => `${orders}/${variantId}/reserve`,
    permission: "inventory:reserve",
    body: () => ({ orderId: fresh("order"), quantity: 1, expiresIn: 600 }),
    fields: { orderId: "id", quantity: "quantity", expiresIn: "seconds" },
    required: ["orderId", "quantity"]
  },
  {
    name: "variants.releaseVariant",
    method: "POST",
    path: ({ variantId }) => `${orders}/${variantId}/release`,
    permission: "inventory:reserve",
    body: (world) => ({ orderId: world.orders.releaseVariant, quantity: 1 }),
    fields: { orderId: "id", quantity: "quantity" },
    required: ["orderId"]
  },
  {
    name: "variants.adjustStock",
    method: "POST",
    path: () => `${orders}/adjust-stock`,
    permission: "inventory:adjust",
    body: ({ locationId, variantId }) => ({
      productVariantId: variantId,
      changeType: "RECEIPT",
      quantity: 1,
      locationId,
      lotNumber: "L",
      expiresAt: "2999-01-01T00:00:00Z",
      reason: "delivery",
      occurredAt: "2020-01-01T00:00:00Z"
    }),
    fields: {
      productVariantId: "id",
      changeType: "choice",
      quantity: "quantity",
      quantitySold: "quantity",
      orderId: "id",
      locationId: "id",
      lotNumber: "id",
      expiresAt: "moment",
      condition: "choice",
      reason: "text",
      reference: "text",
      occurredAt: "moment",
      expectedVersion: "count"
    },
    required: ["productVariantId", "changeType", "quantity"]
  },
  {
    name: "variants.listMovements",
    method: "GET",
    path: ({ variantId }) => `${orders}/${variantId}/ledger`,
    permission: "inventory:read"
  },
  {
    name: "sales.recordSale",
    method: "POST",
    path: () => `${catalog}/sales`,
    permission: "inventory:adjust",
    body: ({ variantId }) => ({
      saleOrderId: fresh("sale"),
      items: [{ saleOrderItemId: "1", productVariantId: variantId, quantity: 1 }]
    }),
    fields: {
      saleOrderId: "id",
      items: "lines",
      // The message's optional fields may be null, and so may these.
      "items.0.productVariantId": "id",
      "items.0.quantity": "count"
    },
    required: ["saleOrderId", "items", "items.0.productVariantId", "items.0.quantity"]
  },
  {
    name: "bulk.bulk",
    method: "POST",
    path: () => `${orders}/bulk`,
    permission: "inventory:adjust",
    body: ({ locationId, variantId }) => ({
      mode: "atomic",
      operations: [
        {
          type: "receipt",
          productVariantId: variantId,
          quantity: 1,
          locationId,
          lotNumber: "L",
          expiresAt: "2999-01-01T00:00:00Z",
          reason: "r",
          reference: fresh("reference"),
          occurredAt: "2026-01-01T00:00:00Z"
        },
        {
          type: "reserve",
          orderId: fresh("order"),
          items: [{ productId: "p", variantId, quantity: 1 }],
          expiresIn: 600,
          locationId,
          metadata: { channel: "web" }
        },
        { type: "sale", productVariantId: variantId, quantity: 1, orderId: fresh("order") }
      ]
    }),
    fields: {
      mode: "choice",
      operations: "lines",
      "operations.0.productVariantId": "id",
      "operations.0.quantity": "quantity",
      "operations.0.locationId": "id",
      "operations.0.lotNumber": "id",
      "operations.0.expiresAt": "moment",
      "operations.0.condition": "choice",
      "operations.0.reason": "text",
      "operations.0.reference": "text",
      "operations.0.occurredAt": "moment",
      "operations.1.orderId": "id",
      "operations.1.items": "lines",
      "operations.1.items.0.variantId": "id",
      "operations.1.items.0.quantity": "quantity",
      "operations.1.expiresIn": "seconds",
      "operations.1.locationId": "id",
      "operations.1.metadata": "metadata",
      "operations.2.orderId": "id"
    },
    required: ["mode", "operations", "operations.0.type", "operations.0.quantity", "operations.1.orderId"]
  },
  {
    name: "bulk.count",
    method: "POST",
    path: () => `${orders}/count`,
    permission: "inventory:adjust",
    body: ({ locationId, variantId }) => ({
      locationId,
      counts: [
        {
          productVariantId: variantId,
          lotNumber: "counted",
          quantity: 0,
          expectedVersion: 0,
          expectedQuantity: 0
        }
      ],
      reason: "yearly"
    }),
    fields: {
      locationId: "id",
      counts: "lines",
      "counts.0.productVariantId": "id",
      "counts.0.lotNumber": "id",
      "counts.0.quantity": "count",
      "counts.0.expectedVersion": "count",
      reason: "text"
    },
    required: ["counts", "counts.0.productVariantId", "counts.0.quantity"]
  },
  {
    name: "warehouse.reserveSkus",
    method: "POST",
    path: () => "/inventory/reserve",
    permission: "inventory:reserve",
    body: ({ sku, stockId }) => ({
      orderId: fresh("order"),
      items: [{ sku, quantity: 1, skuBatchId: stockId }],
      expiresIn: 600
    }),
    fields: {
      orderId: "id",
      items: "lines",
      "items.0.sku": "id",
      "items.0.quantity": "quantity",
      "items.0.skuBatchId": "uuid",
      expiresIn: "seconds"
    },
    required: ["orderId", "items", "items.0.sku", "items.0.quantity"]
  },
  {
    name: "warehouse.releaseOrder",
    method: "POST",
    path: () => "/inventory/release",
    permission: "inventory:reserve",
    body: (world) => ({ orderId: world.orders.releaseSkus }),
    fields: { orderId: "id" },
    required: ["orderId"]
  },
  {
    name: "warehouse.getSku",
    method: "GET",
    path: ({ sku }) => `/inventory/${sku}`,
    permission: "inventory:read"
  },
  {
    name: "catalog.createItem",
    method: "POST",
    path: () => `${catalog}/product-variants`,
    permission: "catalog:write",
    body: () => ({
      productVariantId: fresh("variant"),
      sku: fresh("sku"),
      name: "Cup",
      productId: "p",
      stocked: true,
      lowStockThreshold: 1,
      safetyStock: 1,
      countTolerance: 1,
      status: "ACTIVE"
    }),
    fields: {
      productVariantId: "newId",
      sku: "newId",
      name: "text",
      productId: "id",
      stocked: "flag",
      lowStockThreshold: "count",
      safetyStock: "count",
      countTolerance: "count",
      status: "choice"
    }
  },
  {
    name: "catalog.updateItem",
    method: "PATCH",
    path: ({ variantId }) => `${catalog}/product-variants/${variantId}`,
    permission: "catalog:write",
    body: ({ sku }) => ({ sku, name: fresh("name"), status: "ACTIVE" }),
    fields: {
      sku: "newId",
      name: "text",
      productId: "id",
      stocked: "flag",
      lowStockThreshold: "count",
      safetyStock: "count",
      countTolerance: "count",
      status: "choice"
    }
  },
  {
    name: "catalog.deleteItem",
    method: "DELETE",
    path: ({ deletableId }) => `${catalog}/product-variants/${deletableId}`,
    permission: "catalog:write"
  },
  {
    name: "catalog.listItems",
    method: "GET",
    path: () => `${catalog}/product-variants`,
    permission: "inventory:read"
  },
  {
    name: "catalog.createLocation",
    method: "POST",
    path: () => `${catalog}/locations`,
    permission: "catalog:write",
    body: () => ({ locationId: fresh("location"), name: "Shop" }),
    fields: { locationId: "id", name: "text" },
    required: ["locationId"]
  },
  {
    name: "catalog.updateLocation",
    method: "PATCH",
    path: ({ locationId }) => `${catalog}/locations/${locationId}`,
    permission: "catalog:write",
    body: () => ({ name: fresh("name"), order: 1, retired: false }),
    fields: { name: "text", order: "count", retired: "flag" }
  },
  {
    name: "catalog.listLocations",
    method: "GET",
    path: () => `${catalog}/locations`,
    permission: "inventory:read"
  },
  {
    name: "catalog.listStocks",
    method: "GET",
    path: () => `${catalog}/stocks`,
    permission: "inventory:read"
  },
  {
    name: "catalog.listLots",
    method: "GET",
    path: ({ locationId }) => `${catalog}/lots?expiresBefore=2999-01-01T00:00:00Z&locationId=${locationId}`,
    permission: "inventory:read"
  },
  {
    name: "catalog.getStock",
    method: "GET",
    path: ({ stockId }) => `${catalog}/stocks/${stockId}`,
    permission: "inventory:read"
  },
  {
    name: "catalog.listStockMovements",
    method: "GET",
    path: ({ stockId }) => `${catalog}/stocks/${stockId}/ledger`,
    permission: "inventory:read"
  },
  {
    name: "catalog.listDiscrepancies",
    method: "GET",
    path: () => `${catalog}/discrepancies`,
    permission: "inventory:read"
  },
  {
    name: "catalog.resolveDiscrepancy",
    method: "POST",
    path: ({ discrepancyId }) => `${catalog}/discrepancies/${discrepancyId}/resolve`,
    permission: "inventory:adjust",
    body: () => ({ reason: "seen" }),
    fields: { reason: "reason" },
    required: ["reason"]
  }
]

/** The routes that take a body. */
export const changing = routes.filter((route) => route.body !== undefined)

/** Everything is named after the merchant, so that a trace of it in another's answers can be told. */
export const worldOf = Effect.fnUntraced(function* (shop: Merchant) {
  const { adjust, get, item, location, merchantId, post, receive } = shop
  const variantId = `variant-${merchantId}`
  const sku = `sku-${merchantId}`
  const locationId = `location-${merchantId}`
  yield* item(variantId, { sku, name: `name ${merchantId}` })
  const deletableId = `deletable-${merchantId}`
  yield* item(deletableId)
  yield* location(locationId)
  yield* receive(variantId, 1_000, { locationId, reason: `reason ${merchantId}` })
  const order = (name: string) => `order-${name}-${merchantId}`
  const reserveVariant = (orderId: string) => post(`${orders}/${variantId}/reserve`, { orderId, quantity: 2 })
  const names = {
    confirm: order("confirm"),
    extend: order("extend"),
    release: order("release"),
    releaseSkus: order("skus"),
    releaseVariant: order("variant"),
    amend: order("amend")
  }
  const [confirm] = yield* Effect.forEach(Object.values(names), reserveVariant)
  yield* adjust(variantId, "SALE", 1, { orderId: order("sale") })
  yield* adjust(variantId, "RETURN", 2, { orderId: order("sale"), locationId })
  const discrepancies = yield* get(`${catalog}/discrepancies`)
  const stock = yield* get(`/inventory/${sku}`)
  const world: World = {
    variantId,
    sku,
    deletableId,
    locationId,
    stockId: textAt(stock.body, "batches.0.skuBatchId"),
    discrepancyId: textAt(discrepancies.body, "data.0.discrepancyId"),
    orders: names,
    reservationId: textAt(confirm!.body, "reservationId")
  }
  return world
})
