import type { CallOptions } from "./CallOptions.ts"

/** Made from the contract by "npm run generate": the calls, and the types of what they take and answer. */

export const operations = {
  orders: {
    checkAvailability: ["POST", "/api/v1/inventory/check-availability"],
    reserve: ["POST", "/api/v1/inventory/reserve"],
    release: ["POST", "/api/v1/inventory/release"],
    confirm: ["POST", "/api/v1/inventory/confirm"],
    amend: ["POST", "/api/v1/inventory/amend"],
    extend: ["POST", "/api/v1/inventory/extend"],
    getReservation: ["GET", "/api/v1/inventory/reservations/{id}"],
    listReservations: ["GET", "/api/v1/inventory/reservations"]
  },
  variants: {
    getVariants: ["GET", "/api/v1/inventory"],
    getVariant: ["GET", "/api/v1/inventory/{productVariantId}"],
    reserveVariant: ["POST", "/api/v1/inventory/{productVariantId}/reserve"],
    releaseVariant: ["POST", "/api/v1/inventory/{productVariantId}/release"],
    adjustStock: ["POST", "/api/v1/inventory/adjust-stock"],
    listMovements: ["GET", "/api/v1/inventory/{productVariantId}/ledger"]
  },
  warehouse: {
    reserveSkus: ["POST", "/inventory/reserve"],
    releaseOrder: ["POST", "/inventory/release"],
    getSku: ["GET", "/inventory/{sku}"]
  },
  catalog: {
    createItem: ["POST", "/v1/api/inventory/product-variants"],
    listItems: ["GET", "/v1/api/inventory/product-variants"],
    updateItem: ["PATCH", "/v1/api/inventory/product-variants/{productVariantId}"],
    deleteItem: ["DELETE", "/v1/api/inventory/product-variants/{productVariantId}"],
    createLocation: ["POST", "/v1/api/inventory/locations"],
    listLocations: ["GET", "/v1/api/inventory/locations"],
    updateLocation: ["PATCH", "/v1/api/inventory/locations/{locationId}"],
    listStocks: ["GET", "/v1/api/inventory/stocks"],
    listLots: ["GET", "/v1/api/inventory/lots"],
    getStock: ["GET", "/v1/api/inventory/stocks/{stockId}"],
    listStockMovements: ["GET", "/v1/api/inventory/stocks/{stockId}/ledger"],
    listDiscrepancies: ["GET", "/v1/api/inventory/discrepancies"],
    resolveDiscrepancy: ["POST", "/v1/api/inventory/discrepancies/{discrepancyId}/resolve"]
  },
  bulk: {
    bulk: ["POST", "/api/v1/inventory/bulk"],
    count: ["POST", "/api/v1/inventory/count"]
  },
  sales: {
    recordSale: ["POST", "/v1/api/inventory/sales"]
  }
} as const satisfies Readonly<
  Record<string, Readonly<Record<string, readonly [method: string, path: string]>>>
>

export interface Client {
  readonly orders: {
    /** Could these items be reserved now? A hint, not a promise: only reserving holds stock. An unknown variant is not available (0). Needs the permission `inventory:reserve`. */
    readonly checkAvailability: (
      input: OrdersCheckAvailabilityBody,
      options?: CallOptions
    ) => Promise<OrdersCheckAvailabilityAnswer>
    /** Reserve the items of an order. All lines or none, each from its own location and lot if it names them. Idempotent by order: the items are compared with what the order holds now, or was sold once it is CONFIRMED; the same ones are answered with it (200, applied: false), others are refused (422): amend changes what is held. Needs the permission `inventory:reserve`. */
    readonly reserve: (input: OrdersReserveBody, options?: CallOptions) => Promise<OrdersReserveAnswer>
    /** Give back what an order holds. Needs the permission `inventory:reserve`. */
    readonly release: (input: OrdersReleaseBody, options?: CallOptions) => Promise<OrdersReleaseAnswer>
    /** Sell what an order holds, or a part of it. With items, that part is sold and the rest stays PENDING; confirming a part is repeatable only with an Idempotency-Key. Idempotent by order otherwise: a repeat answers confirmed: true, applied: false. Needs the permission `inventory:reserve`. */
    readonly confirm: (input: OrdersConfirmBody, options?: CallOptions) => Promise<OrdersConfirmAnswer>
    /** Change what an order holds to these items. In one step: the difference is taken or given back, first-expired-first-out. Short, or not PENDING: 409, and everything stays as it was. Repeating it is harmless (applied: false). With expiresIn it is held for that long from now. Needs the permission `inventory:reserve`. */
    readonly amend: (input: OrdersAmendBody, options?: CallOptions) => Promise<OrdersAmendAnswer>
    /** Hold an order's items longer, counted from now. Needs the permission `inventory:reserve`. */
    readonly extend: (input: OrdersExtendBody, options?: CallOptions) => Promise<OrdersExtendAnswer>
    /** A reservation with its lines and allocations. Needs the permission `inventory:read`. */
    readonly getReservation: (
      input: {
        /** The reservationId of the answer that made it */
        readonly id: Uuid
      },
      options?: CallOptions
    ) => Promise<OrdersGetReservationAnswer>
    /** Reservations, newest first. Needs the permission `inventory:read`. */
    readonly listReservations: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Only the reservations of this order */
        readonly orderId?: OutsideId
        /** Only the reservations in this state */
        readonly status?: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
      },
      options?: CallOptions
    ) => Promise<OrdersListReservationsAnswer>
  }
  readonly variants: {
    /** The stock of up to 200 product variants. Needs the permission `inventory:read`. */
    readonly getVariants: (
      input: {
        /** Up to 200 ids: separated by commas, or the parameter repeated */
        readonly productVariantIds: ReadonlyArray<string>
        /** The balances as they were recorded at this time, movements of that very millisecond included; not in the future */
        readonly at?: Timestamp
      },
      options?: CallOptions
    ) => Promise<VariantsGetVariantsAnswer>
    /** The stock of a product variant, by location and batch. With at, as it was recorded at that time: what had not been recorded by then is 0, a lot's expiry is judged at that time, and a product variant that was deleted since is still told. Movements are recorded with the time of their request: those of the last seconds may still be on their way. Needs the permission `inventory:read`. */
    readonly getVariant: (
      input: {
        /** The id that the shop gives the product variant */
        readonly productVariantId: OutsideId
        /** The balances as they were recorded at this time, movements of that very millisecond included; not in the future */
        readonly at?: Timestamp
      },
      options?: CallOptions
    ) => Promise<VariantsGetVariantAnswer>
    /** Reserve a product variant for an order. Needs the permission `inventory:reserve`. */
    readonly reserveVariant: (
      input: {
        /** The id that the shop gives the product variant */
        readonly productVariantId: OutsideId
      } & VariantsReserveVariantBody,
      options?: CallOptions
    ) => Promise<VariantsReserveVariantAnswer>
    /** Give back what an order holds of a product variant, or part of it. Releasing a part is repeatable only with an Idempotency-Key. Needs the permission `inventory:reserve`. */
    readonly releaseVariant: (
      input: {
        /** The id that the shop gives the product variant */
        readonly productVariantId: OutsideId
      } & VariantsReleaseVariantBody,
      options?: CallOptions
    ) => Promise<VariantsReleaseVariantAnswer>
    /** Record a receipt, sale, return, damage, quarantine, write-off or count. DAMAGE and QUARANTINE take units out of what can be sold, and quantity stays; UNQUARANTINE brings them back. WRITE_OFF throws units away: those that are damaged or quarantined first, and more than that of the good ones. CORRECTION sets a stock's counted quantity, damaged units counted too, and with expiresAt the expiry of its lot. Every type but CORRECTION and a SALE of an order is applied once with a reference or an Idempotency-Key; without, each call is another one. Needs the permission `inventory:adjust`. */
    readonly adjustStock: (
      input: VariantsAdjustStockBody,
      options?: CallOptions
    ) => Promise<VariantsAdjustStockAnswer>
    /** What moved, when, why and by whom. Newest first. A page that is picked by type may be shorter than its limit, and even empty, while there are more: go on until nextCursor is null. Needs the permission `inventory:read`. */
    readonly listMovements: (
      input: {
        /** The id that the shop gives the product variant */
        readonly productVariantId: OutsideId
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Recorded then or later */
        readonly from?: Timestamp
        /** Recorded before then */
        readonly to?: Timestamp
        /** One or several of RECEIPT, ORDER_ALLOCATE, ORDER_RELEASE, SALE, RETURN, ADJUSTMENT, TRANSFER_OUT, TRANSFER_IN, MATERIAL_RESERVE, MATERIAL_RELEASE, MATERIAL_CONSUME: separated by commas, or the parameter repeated */
        readonly type?: ReadonlyArray<string>
      },
      options?: CallOptions
    ) => Promise<VariantsListMovementsAnswer>
  }
  readonly warehouse: {
    /** Allocate skus to an order, first-expired-first-out. Needs the permission `inventory:reserve`. */
    readonly reserveSkus: (
      input: WarehouseReserveSkusBody,
      options?: CallOptions
    ) => Promise<WarehouseReserveSkusAnswer>
    /** Give back what an order holds. Needs the permission `inventory:reserve`. */
    readonly releaseOrder: (
      input: WarehouseReleaseOrderBody,
      options?: CallOptions
    ) => Promise<WarehouseReleaseOrderAnswer>
    /** The stock of a sku, by batch. Needs the permission `inventory:read`. */
    readonly getSku: (
      input: {
        /** The sku of the item */
        readonly sku: OutsideId
      },
      options?: CallOptions
    ) => Promise<WarehouseGetSkuAnswer>
  }
  readonly catalog: {
    /** Stock a product variant. An idempotent upsert: it adopts an item that was known by its sku alone. Needs the permission `catalog:write`. */
    readonly createItem: (input: CatalogCreateItemBody, options?: CallOptions) => Promise<Item>
    /** Search the items. In the order of their creation. A page looks through at most 5,000 items: with filters it may be shorter than its limit, and even empty, while there are more. Go on until nextCursor is null. Needs the permission `inventory:read`. */
    readonly listItems: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Only items whose id, sku or name has this text in it */
        readonly search?: Text
        /** Only items in this state */
        readonly status?: ItemStatus
        /** true: only items of which less is available than their safetyStock; false: only others */
        readonly belowSafetyStock?: "true" | "false"
      },
      options?: CallOptions
    ) => Promise<CatalogListItemsAnswer>
    /** Change a product variant's stocking: threshold, safety stock, name, status, …. Needs the permission `catalog:write`. */
    readonly updateItem: (
      input: {
        /** The id that the shop gives the product variant */
        readonly productVariantId: NewItemId
      } & CatalogUpdateItemBody,
      options?: CallOptions
    ) => Promise<Item>
    /** Delete a product variant. Without stock and holds it is gone, and its sku is free. Otherwise it is DISCONTINUED until its last unit and hold are gone, and deleted then. Messages do not bring it back; POST product-variants does. Needs the permission `catalog:write`. */
    readonly deleteItem: (
      input: {
        /** Opaque text of 1 to 128 characters, not necessarily a UUID */
        readonly productVariantId: OutsideId
      },
      options?: CallOptions
    ) => Promise<DeletedItem>
    /** Create a location, or rename it. Needs the permission `catalog:write`. */
    readonly createLocation: (input: CatalogCreateLocationBody, options?: CallOptions) => Promise<Location>
    /** The locations, the default one first. Needs the permission `inventory:read`. */
    readonly listLocations: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
      },
      options?: CallOptions
    ) => Promise<CatalogListLocationsAnswer>
    /** Rename a location, move it in the picking order, or retire it. Nothing new is promised from a retired location, and what is there is not counted as available anywhere; what was promised before may be confirmed, and facts that name it (goods received, sold, counted) are recorded. The default location can be neither moved nor retired. Needs the permission `catalog:write`. */
    readonly updateLocation: (
      input: {
        /** Opaque text of 1 to 128 characters, not necessarily a UUID */
        readonly locationId: OutsideId
      } & CatalogUpdateLocationBody,
      options?: CallOptions
    ) => Promise<Location>
    /** The stocks: one item at one location in one lot. In the order of their creation. quantity, reservedQuantity and unallocatableQuantity − expiredQuantity are the sums of the deltas in the stock's ledger. Needs the permission `inventory:read`. */
    readonly listStocks: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Only the stocks of this product variant */
        readonly productVariantId?: OutsideId
        /** Only the stocks of this sku */
        readonly sku?: OutsideId
        /** Only the stocks at this location */
        readonly locationId?: OutsideId
      },
      options?: CallOptions
    ) => Promise<CatalogListStocksAnswer>
    /** The lots that go off. One row for each location where there is something of the lot, on hand or held; the soonest expiry first, those that have expired already among them. Needs the permission `inventory:read`. */
    readonly listLots: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Exclusive. Without it, all lots that expire */
        readonly expiresBefore?: Timestamp
        /** Only what lies there */
        readonly locationId?: OutsideId
      },
      options?: CallOptions
    ) => Promise<CatalogListLotsAnswer>
    /** One stock. Needs the permission `inventory:read`. */
    readonly getStock: (
      input: {
        /** The stockId of its entry in the list of stocks */
        readonly stockId: Uuid
      },
      options?: CallOptions
    ) => Promise<Stock>
    /** What moved in one stock. Newest first. A page that is picked by type may be shorter than its limit, and even empty, while there are more: go on until nextCursor is null. Needs the permission `inventory:read`. */
    readonly listStockMovements: (
      input: {
        /** The stockId of its entry in the list of stocks */
        readonly stockId: Uuid
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Recorded then or later */
        readonly from?: Timestamp
        /** Recorded before then */
        readonly to?: Timestamp
        /** One or several of RECEIPT, ORDER_ALLOCATE, ORDER_RELEASE, SALE, RETURN, ADJUSTMENT, TRANSFER_OUT, TRANSFER_IN, MATERIAL_RESERVE, MATERIAL_RELEASE, MATERIAL_CONSUME: separated by commas, or the parameter repeated */
        readonly type?: ReadonlyArray<string>
      },
      options?: CallOptions
    ) => Promise<CatalogListStockMovementsAnswer>
    /** Where books and facts differ, newest first. Needs the permission `inventory:read`. */
    readonly listDiscrepancies: (
      input?: {
        /** How many entries a page has at most: 1 to 200, 50 without it */
        readonly limit?: number
        /** The nextCursor of the page before, with the same filters; without it the first page */
        readonly cursor?: string
        /** Only discrepancies in this state: CLOSED by themselves, RESOLVED by hand */
        readonly status?: "OPEN" | "CLOSED" | "RESOLVED"
        /** Only discrepancies of this kind, such as COUNT_DIFFERENCE */
        readonly kind?: Text
        /** Only discrepancies of this product variant */
        readonly productVariantId?: OutsideId
        /** Only discrepancies of this sku */
        readonly sku?: OutsideId
      },
      options?: CallOptions
    ) => Promise<CatalogListDiscrepanciesAnswer>
    /** Resolve a discrepancy by hand, with a reason. Needs the permission `inventory:adjust`. */
    readonly resolveDiscrepancy: (
      input: {
        /** The discrepancyId of its entry in the list */
        readonly discrepancyId: Uuid
      } & CatalogResolveDiscrepancyBody,
      options?: CallOptions
    ) => Promise<CatalogResolveDiscrepancyAnswer>
  }
  readonly bulk: {
    /** Many changes in one transaction. Up to 1000 operations, decided in order, each over what those before it have left. continueOnFailure: an answer for each, and one that is refused leaves nothing behind. atomic: the first that is refused refuses all (409 or 422, with its own code, its members and its index). Send an Idempotency-Key: most operations are not repeatable by themselves. Needs the permission `inventory:adjust`. */
    readonly bulk: (input: BulkBulkBody, options?: CallOptions) => Promise<BulkBulkAnswer>
    /** Record counted quantities, all or none. Each difference is a movement, and one beyond the item's countTolerance opens a COUNT_DIFFERENCE discrepancy. expectedVersion or expectedQuantity makes a row compare-and-set: those of stocks that have moved are named, and nothing changes. A stock that is not there yet has version 0 and quantity 0. Needs the permission `inventory:adjust`. */
    readonly count: (input: BulkCountBody, options?: CallOptions) => Promise<BulkCountAnswer>
  }
  readonly sales: {
    /** Record a paid sale. The payload and the effect of the message payment.success: a fact, never refused because stock is short. Each line is recorded once, whichever way it is told. Lines that name a location were sold there; what the order holds beyond what was paid is released. Needs the permission `inventory:adjust`. */
    readonly recordSale: (input: SalesRecordSaleBody, options?: CallOptions) => Promise<SalesRecordSaleAnswer>
  }
}

/** The codes that problems have today; later versions may add some. */
export type ProblemCode =
  | "AMBIGUOUS_STOCK"
  | "BALANCE_OVERFLOW"
  | "CONFIRM_EXCEEDS_RESERVATION"
  | "DEFAULT_LOCATION"
  | "DISCREPANCY_PERSISTS"
  | "FORBIDDEN"
  | "HISTORY_NOT_KEPT"
  | "IDEMPOTENCY_KEY_REUSED"
  | "INSUFFICIENT_INVENTORY"
  | "INTERNAL_ERROR"
  | "INVENTORY_TIMEOUT"
  | "INVENTORY_UNAVAILABLE"
  | "ITEM_CONFLICT"
  | "LOT_MISMATCH"
  | "METHOD_NOT_ALLOWED"
  | "NOT_FOUND"
  | "PAYLOAD_TOO_LARGE"
  | "RELEASE_EXCEEDS_RESERVATION"
  | "RESERVATION_CANCELLED"
  | "RESERVATION_CONFIRMED"
  | "RESERVATION_EXPIRED"
  | "RESERVATION_FAILED"
  | "ROW_REFUSED"
  | "UNALLOCATABLE_EXCEEDED"
  | "UNAUTHENTICATED"
  | "UNSUPPORTED_MEDIA_TYPE"
  | "VALIDATION_FAILED"
  | "VERSION_MISMATCH"

/** Several stocks match */
export type AmbiguousStockProblem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "AMBIGUOUS_STOCK"
  readonly stocks: ReadonlyArray<{
    readonly stockId: string
    readonly locationId: string
    readonly lotNumber: string | null
  }>
}

/** A signed whole number of the item's base unit */
export type Balance = number

/** The balance would be too large */
export type BalanceOverflowProblem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "BALANCE_OVERFLOW"
  readonly stockId: string
}

export type Batch = {
  readonly stockId: Uuid
  readonly lotNumber: string | null
  readonly expiresAt: string | null
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly unallocatableQuantity: Balance
  readonly availableQuantity: Total
  readonly version: Count
}

export type BulkAdjustment = {
  readonly type:
    | "receipt"
    | "sale"
    | "return"
    | "damage"
    | "quarantine"
    | "unquarantine"
    | "write_off"
    | "correction"
  readonly productVariantId: OutsideId
  readonly quantity?: Count
  readonly quantitySold?: Quantity
  readonly orderId?: OutsideId
  readonly locationId?: OutsideId
  readonly lotNumber?: OutsideId
  /** The lot's expiry: of goods that come in (RECEIPT, RETURN), or corrected by a CORRECTION, where null says that the lot does not expire */
  readonly expiresAt?: Timestamp | null
  readonly condition?: ReturnCondition
  readonly reason?: Text
  readonly reference?: Text
  readonly occurredAt?: Timestamp
  readonly expectedVersion?: Count
}

export type BulkRelease = {
  readonly type: "release"
  readonly orderId: OutsideId
  readonly productVariantId?: OutsideId
  readonly quantity?: Quantity
}

/** As POST {productVariantId}/reserve */
export type BulkReserve = {
  readonly type: "reserve"
  readonly productVariantId: OutsideId
  readonly orderId: OutsideId
  readonly quantity: Quantity
  readonly expiresIn?: ExpiresIn
}

/** As POST reserve: all lines of the order, or none */
export type BulkReserveOrder = {
  readonly type: "reserve"
  readonly orderId: OutsideId
  readonly items: ReadonlyArray<{
    readonly productId?: OutsideId
    readonly variantId: OutsideId
    readonly quantity: Quantity
    readonly locationId?: OutsideId
    readonly lotNumber?: OutsideId
  }>
  readonly expiresIn?: ExpiresIn
  readonly locationId?: OutsideId
  readonly metadata?: { readonly [name: string]: unknown }
}

/** What became of an operation: the result of its single call, or the code and the other members of its problem */
export type BulkResult = {
  /** The place of the operation in the request, from 0 */
  readonly index: Count
  /** The HTTP status that the operation would have had alone */
  readonly status: number
  readonly result?:
    | {
        /** false: it had been applied before, nothing changed */
        readonly applied: boolean
        readonly productVariantId: OutsideId | null
        readonly sku: OutsideId | null
        readonly quantity: Balance
        readonly reservedQuantity: Balance
        readonly unallocatableQuantity: Balance
        readonly availableQuantity: Total
        readonly status: ItemStatus
        readonly stocks: ReadonlyArray<{
          readonly stockId: Uuid
          readonly locationId: OutsideId
          readonly lotNumber: string | null
          readonly quantity: Balance
          readonly reservedQuantity: Balance
          readonly unallocatableQuantity: Balance
          readonly version: Count
        }>
        /** What it contradicts: the discrepancies that it opened, or adds to */
        readonly discrepancies: ReadonlyArray<{
          readonly discrepancyId: Uuid
          readonly kind:
            | "NEGATIVE_STOCK"
            | "OVERCOMMITTED"
            | "DISCONTINUED_WITH_STOCK"
            | "EXPIRED_LOT_SOLD"
            | "RETURN_EXCEEDS_SALE"
            | "CANCELLED_AFTER_SALE"
            | "SALE_LINE_CHANGED"
            | "COUNT_DIFFERENCE"
        }>
      }
    | {
        readonly reservationId: Uuid
        readonly orderId: OutsideId
        readonly productVariantId: OutsideId
        readonly quantity: Quantity
        readonly status: string
        /** false: a repeat, answered with what is so now; this call changed nothing */
        readonly applied: boolean
        /** Which stock it holds or, once it is CONFIRMED, was sold from */
        readonly allocations: ReadonlyArray<{
          readonly variantId: OutsideId | null
          readonly stockId: Uuid
          readonly locationId: OutsideId | null
          readonly lotNumber: string | null
          readonly quantity: Total
        }>
        /** RFC 3339 in UTC with milliseconds */
        readonly expiresAt: string
      }
    | {
        readonly reservationId: Uuid
        readonly orderId: OutsideId
        readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
        /** false: a repeat, answered with what is so now; this call changed nothing */
        readonly applied: boolean
        readonly items: ReadonlyArray<{
          readonly productId?: OutsideId
          readonly variantId: OutsideId
          readonly quantity: Quantity
          readonly reserved: true
        }>
        /** Which stock it holds or, once it is CONFIRMED, was sold from */
        readonly allocations: ReadonlyArray<{
          readonly variantId: OutsideId | null
          readonly stockId: Uuid
          readonly locationId: OutsideId | null
          readonly lotNumber: string | null
          readonly quantity: Total
        }>
        /** RFC 3339 in UTC with milliseconds */
        readonly expiresAt: string
      }
    | {
        readonly orderId: OutsideId
        readonly released: boolean
        /** false: a repeat, answered with what is so now; this call changed nothing */
        readonly applied: boolean
        readonly releasedQuantity: Total
        readonly productVariantId: OutsideId | null
        readonly sku: OutsideId | null
        readonly quantity: Balance
        readonly reservedQuantity: Balance
        readonly unallocatableQuantity: Balance
        readonly availableQuantity: Total
        readonly status: ItemStatus
      }
    | {
        readonly orderId: OutsideId
        readonly released: boolean
        /** false: a repeat, answered with what is so now; this call changed nothing */
        readonly applied: boolean
      }
  readonly code?: string
  readonly title?: string
  readonly detail?: string
}

/** More than is reserved */
export type ConfirmExceedsReservationProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "CONFIRM_EXCEEDS_RESERVATION"
  readonly orderId: string
  readonly items: ReadonlyArray<{
    readonly productVariantId?: OutsideId
    readonly sku?: OutsideId
    readonly requested: Total
    readonly available: Total
  }>
}

/** A whole number of the item's base unit, from 0 to 10^12 */
export type Count = number

/** Counted stocks have moved meanwhile */
export type CountMismatchProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "VERSION_MISMATCH"
  readonly counts: ReadonlyArray<{
    readonly index: Count
    readonly productVariantId: OutsideId | null
    readonly sku: OutsideId | null
    readonly expectedVersion?: Count
    readonly expectedQuantity?: Balance
    readonly version: Count
    readonly quantity: Balance
  }>
}

/** The inventory is unavailable */
export type DatabaseUnavailableProblem = {
  readonly type: string
  readonly title: string
  readonly status: 503
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INVENTORY_UNAVAILABLE"
  readonly retryAfterSeconds: number
}

/** The default location stays as it is */
export type DefaultLocationProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "DEFAULT_LOCATION"
  readonly locationId: string
}

export type DeletedItem = {
  readonly productVariantId: OutsideId
  /** DISCONTINUED: it is in stock or held, and is deleted with its last unit and hold. A discrepancy is open until then */
  readonly status: "DELETED" | "DISCONTINUED"
  /** false: it had been deleted before, nothing changed */
  readonly applied: boolean
}

export type Discrepancy = {
  readonly discrepancyId: Uuid
  readonly kind: string
  readonly status: "OPEN" | "CLOSED" | "RESOLVED"
  readonly stockId: Uuid | null
  readonly itemId: Uuid | null
  readonly productVariantId: OutsideId | null
  readonly sku: OutsideId | null
  readonly orderId: string | null
  readonly detail: unknown
  /** RFC 3339 in UTC with milliseconds */
  readonly openedAt: string
  readonly closedAt: string | null
  readonly closedBy: string | null
  readonly reason: string | null
}

/** No such discrepancy */
export type DiscrepancyNotFoundProblem = {
  readonly type: string
  readonly title: string
  readonly status: 404
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "NOT_FOUND"
  readonly discrepancyId: string
}

/** The discrepancy still holds */
export type DiscrepancyPersistsProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "DISCREPANCY_PERSISTS"
  readonly discrepancyId: string
}

/** Seconds, from 1 to 604,800 (7 days) */
export type ExpiresIn = number

/** Permission missing */
export type ForbiddenProblem = {
  readonly type: string
  readonly title: string
  readonly status: 403
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "FORBIDDEN"
  readonly permission: Permission
}

/** The movements of that time are no longer kept */
export type HistoryNotKeptProblem = {
  readonly type: string
  readonly title: string
  readonly status: 410
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "HISTORY_NOT_KEPT"
  readonly at: string
  readonly stockIds: ReadonlyArray<string>
}

/** The Idempotency-Key was used for another request */
export type IdempotencyKeyReusedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "IDEMPOTENCY_KEY_REUSED"
  readonly idempotencyKey: string
}

/** Not enough stock */
export type InsufficientStockProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INSUFFICIENT_INVENTORY"
  readonly items: ReadonlyArray<{
    readonly productVariantId?: OutsideId
    readonly sku?: OutsideId
    readonly requested: Total
    readonly available: Total
  }>
}

/** Something went wrong on our side */
export type InternalErrorProblem = {
  readonly type: string
  readonly title: string
  readonly status: 500
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INTERNAL_ERROR"
}

/** The cursor is not valid */
export type InvalidCursorProblem = {
  readonly type: string
  readonly title: string
  readonly status: 400
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "VALIDATION_FAILED"
}

export type Item = {
  readonly itemId: Uuid
  readonly productVariantId: OutsideId | null
  readonly sku: OutsideId | null
  readonly productId: OutsideId | null
  readonly name: string | null
  readonly unit: string
  readonly stocked: boolean
  readonly lowStockThreshold: Count
  readonly safetyStock: Count
  /** How much is missing until safetyStock is available; 0 for what is discontinued or made to order */
  readonly safetyStockShortfall: Total
  readonly countTolerance: Count
  readonly status: ItemStatus
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly unallocatableQuantity: Balance
  readonly availableQuantity: Total
  /** RFC 3339 in UTC with milliseconds */
  readonly createdAt: string
  /** RFC 3339 in UTC with milliseconds */
  readonly updatedAt: string
}

/** Two different items */
export type ItemConflictProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "ITEM_CONFLICT"
  readonly productVariantId: string
  readonly sku: string
}

/** Unknown item */
export type ItemNotFoundProblem = {
  readonly type: string
  readonly title: string
  readonly status: 404
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "NOT_FOUND"
  readonly items: ReadonlyArray<string>
}

export type ItemStatus = "AWAITING_INITIAL_STOCK" | "IN_STOCK" | "LOW_STOCK" | "OUT_OF_STOCK" | "DISCONTINUED"

/** Tokens cannot be verified */
export type JwksUnavailableProblem = {
  readonly type: string
  readonly title: string
  readonly status: 503
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INVENTORY_UNAVAILABLE"
  readonly retryAfterSeconds: number
}

export type Location = {
  readonly locationId: OutsideId
  readonly name: string | null
  readonly isDefault: boolean
  /** Its place in the order in which stock is taken from locations: the default one is 0 */
  readonly order: Count
  /** Nothing new is promised from it: its stock is in quantity, and not in availableQuantity */
  readonly retired: boolean
  /** RFC 3339 in UTC with milliseconds */
  readonly createdAt: string
}

/** Unknown location */
export type LocationNotFoundProblem = {
  readonly type: string
  readonly title: string
  readonly status: 404
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "NOT_FOUND"
  readonly locationId: string
}

/** The lot has another expiry */
export type LotMismatchProblem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "LOT_MISMATCH"
  readonly lotNumber: string
  readonly expiresAt: string | null
}

export type Movement = {
  readonly stockId: Uuid
  readonly locationId: OutsideId
  readonly lotNumber: string | null
  readonly sequence: Count
  readonly type: string
  readonly onHandDelta: Balance
  readonly reservedDelta: Balance
  readonly unallocatableDelta: Balance
  readonly onHand: Balance
  readonly reserved: Balance
  readonly unallocatable: Balance
  readonly source: string
  readonly orderId: string | null
  readonly reservationId: Uuid | null
  readonly reference: string | null
  readonly reason: string | null
  readonly actor: string
  readonly occurredAt: string | null
  /** RFC 3339 in UTC with milliseconds */
  readonly recordedAt: string
}

/** Opaque text of 1 to 128 characters, not necessarily a UUID */
export type NewItemId = string

/** The operation took too long */
export type OperationTimedOutProblem = {
  readonly type: string
  readonly title: string
  readonly status: 408
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INVENTORY_TIMEOUT"
  readonly operation: string
}

/** Opaque text of 1 to 128 characters, not necessarily a UUID */
export type OutsideId = string

/** Too much work is waiting */
export type OverloadedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 503
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "INVENTORY_UNAVAILABLE"
  readonly retryAfterSeconds: number
}

/** The body is too large */
export type PayloadTooLargeProblem = {
  readonly type: string
  readonly title: string
  readonly status: 413
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "PAYLOAD_TOO_LARGE"
  readonly limitBytes: number
}

/** The permission that the token lacks */
export type Permission =
  | "inventory:read"
  | "inventory:reserve"
  | "inventory:adjust"
  | "catalog:write"
  | "procurement:write"
  | "kitchen:write"
  | "wms:sync"
  | "notifications:read"
  | "admin"

/** A whole number of the item's base unit, from 1 to 10^12 */
export type Quantity = number

/** More than is reserved */
export type ReleaseExceedsReservationProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "RELEASE_EXCEEDS_RESERVATION"
  readonly orderId: string
  readonly requested: Quantity
  readonly held: Total
}

/** The reservation is confirmed already */
export type ReservationAlreadyConfirmedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "RESERVATION_CONFIRMED"
  readonly orderId: string
  readonly reservationId: string
}

/** The reservation was released */
export type ReservationCancelledProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "RESERVATION_CANCELLED"
  readonly orderId: string
  readonly reservationId: string
}

/** The reservation has expired */
export type ReservationExpiredProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "RESERVATION_EXPIRED"
  readonly orderId: string
  readonly reservationId: string
  readonly items: ReadonlyArray<{
    readonly productVariantId?: OutsideId
    readonly sku?: OutsideId
    readonly requested: Total
    readonly available: Total
  }>
}

/** The reservation cannot be made */
export type ReservationFailedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "RESERVATION_FAILED"
  readonly reason: "UNKNOWN_ITEM" | "DISCONTINUED_ITEM" | "OTHER_ITEMS" | "ORDER_CANCELLED"
  readonly items?: ReadonlyArray<string>
  readonly reservationId?: string
}

/** No such reservation */
export type ReservationNotFoundProblem = {
  readonly type: string
  readonly title: string
  readonly status: 404
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "NOT_FOUND"
  readonly orderId?: string
  readonly reservationId?: string
}

/** Of a RETURN: what comes back DAMAGED is unallocatable */
export type ReturnCondition = "GOOD" | "DAMAGED"

/** One operation was refused */
export type RowRefused409Problem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  /** The code of the operation's own failure */
  readonly code: string
  /** The place of the operation in the request, from 0 */
  readonly index: number
}

/** One operation was refused */
export type RowRefused422Problem = {
  readonly type: string
  readonly title: string
  readonly status: 422
  readonly detail: string
  /** The request id */
  readonly instance?: string
  /** The code of the operation's own failure */
  readonly code: string
  /** The place of the operation in the request, from 0 */
  readonly index: number
}

export type Stock = {
  readonly stockId: Uuid
  readonly itemId: Uuid
  readonly productVariantId: OutsideId | null
  readonly sku: OutsideId | null
  readonly locationId: OutsideId
  readonly lotNumber: string | null
  readonly expiresAt: string | null
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly unallocatableQuantity: Balance
  /** The part of unallocatableQuantity that is there because the lot has expired; no movement speaks of it */
  readonly expiredQuantity: Total
  readonly availableQuantity: Total
  /** Whether a discrepancy of its balance is open */
  readonly discrepancy: boolean
  /** The number of its last movement, for expectedVersion */
  readonly version: Count
  /** RFC 3339 in UTC with milliseconds */
  readonly createdAt: string
  /** RFC 3339 in UTC with milliseconds */
  readonly updatedAt: string
}

/** No such stock */
export type StockNotFoundProblem = {
  readonly type: string
  readonly title: string
  readonly status: 404
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "NOT_FOUND"
  readonly item: string
}

/** Text of at most 1024 characters */
export type Text = string

/** RFC 3339, with an offset */
export type Timestamp = string

/** A whole number of the item's base unit, from 0 */
export type Total = number

/** Less is damaged or quarantined */
export type UnallocatableExceededProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "UNALLOCATABLE_EXCEEDED"
  readonly stockId: string
  readonly requested: Quantity
  readonly unallocatable: Total
}

/** A valid token is needed */
export type UnauthenticatedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 401
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "UNAUTHENTICATED"
}

/** The body must be JSON */
export type UnsupportedMediaTypeProblem = {
  readonly type: string
  readonly title: string
  readonly status: 415
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "UNSUPPORTED_MEDIA_TYPE"
}

/** A UUID in lower case */
export type Uuid = string

/** The request is not valid */
export type ValidationFailedProblem = {
  readonly type: string
  readonly title: string
  readonly status: 400
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "VALIDATION_FAILED"
  readonly errors: ReadonlyArray<{
    readonly path: string
    readonly message: string
  }>
}

export type Variant = {
  readonly productVariantId: OutsideId
  readonly sku: OutsideId | null
  /** false: made to order, sold without a stock of its own, whatever availableQuantity says */
  readonly stocked: boolean
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly availableQuantity: Total
  readonly locations: ReadonlyArray<{
    readonly locationId: OutsideId
    readonly quantity: Balance
    readonly reservedQuantity: Balance
    readonly availableQuantity: Total
    readonly batches: ReadonlyArray<Batch>
  }>
  readonly status: ItemStatus
  /** RFC 3339 in UTC with milliseconds */
  readonly updatedAt: string
}

/** The balances as they were recorded at that time */
export type VariantThen = {
  readonly productVariantId: OutsideId
  readonly sku: OutsideId | null
  /** false: made to order, sold without a stock of its own, whatever availableQuantity says */
  readonly stocked: boolean
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly availableQuantity: Total
  readonly locations: ReadonlyArray<{
    readonly locationId: OutsideId
    readonly quantity: Balance
    readonly reservedQuantity: Balance
    readonly availableQuantity: Total
    readonly batches: ReadonlyArray<Batch>
  }>
  /** RFC 3339 in UTC with milliseconds */
  readonly at: string
  /** When the newest movement of then was recorded; null if none had been */
  readonly updatedAt: string | null
}

/** The stock has moved meanwhile */
export type VersionMismatchProblem = {
  readonly type: string
  readonly title: string
  readonly status: 409
  readonly detail: string
  /** The request id */
  readonly instance?: string
  readonly code: "VERSION_MISMATCH"
  readonly expected: Count
  readonly actual: Count
  readonly quantity: Balance
}

export type OrdersCheckAvailabilityBody = {
  readonly items: ReadonlyArray<{
    readonly productId?: OutsideId
    readonly variantId: OutsideId
    readonly quantity: Quantity
  }>
}

export type OrdersCheckAvailabilityAnswer = {
  readonly success: true
  readonly data: {
    readonly available: boolean
    readonly items: ReadonlyArray<{
      readonly productId?: OutsideId
      readonly variantId: OutsideId
      readonly available: boolean
      readonly requestedQuantity: Quantity
      readonly availableQuantity: Total
    }>
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersReserveBody = {
  readonly orderId: OutsideId
  readonly items: ReadonlyArray<{
    readonly productId?: OutsideId
    readonly variantId: OutsideId
    readonly quantity: Quantity
    readonly locationId?: OutsideId
    readonly lotNumber?: OutsideId
  }>
  readonly expiresIn?: ExpiresIn
  readonly locationId?: OutsideId
  readonly metadata?: { readonly [name: string]: unknown }
}

/** The order holds the same items already, or was sold them (see status) */
export type OrdersReserveAnswer = {
  readonly success: true
  readonly data: {
    readonly reservationId: Uuid
    readonly orderId: OutsideId
    readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
    /** false: a repeat, answered with what is so now; this call changed nothing */
    readonly applied: boolean
    readonly items: ReadonlyArray<{
      readonly productId?: OutsideId
      readonly variantId: OutsideId
      readonly quantity: Quantity
      readonly reserved: true
    }>
    /** Which stock it holds or, once it is CONFIRMED, was sold from */
    readonly allocations: ReadonlyArray<{
      readonly variantId: OutsideId | null
      readonly stockId: Uuid
      readonly locationId: OutsideId | null
      readonly lotNumber: string | null
      readonly quantity: Total
    }>
    /** RFC 3339 in UTC with milliseconds */
    readonly expiresAt: string
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersReleaseBody = {
  readonly orderId: OutsideId
}

export type OrdersReleaseAnswer = {
  readonly success: true
  readonly data: {
    readonly orderId: OutsideId
    readonly released: boolean
    /** false: a repeat, answered with what is so now; this call changed nothing */
    readonly applied: boolean
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersConfirmBody = {
  readonly orderId: OutsideId
  readonly reservationId?: Uuid
  readonly items?: ReadonlyArray<{
    readonly productId?: OutsideId
    readonly variantId: OutsideId
    readonly quantity: Quantity
  }>
}

export type OrdersConfirmAnswer = {
  readonly success: true
  readonly data: {
    readonly orderId: OutsideId
    readonly reservationId: Uuid
    readonly confirmed: boolean
    /** false: a repeat, answered with what is so now; this call changed nothing */
    readonly applied: boolean
    /** PENDING: a part was sold, and the rest is held; CONFIRMED: nothing is held any more */
    readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersAmendBody = {
  readonly orderId: OutsideId
  readonly items: ReadonlyArray<{
    readonly productId?: OutsideId
    readonly variantId: OutsideId
    readonly quantity: Quantity
    readonly locationId?: OutsideId
    readonly lotNumber?: OutsideId
  }>
  readonly expiresIn?: ExpiresIn
}

export type OrdersAmendAnswer = {
  readonly success: true
  readonly data: {
    readonly reservationId: Uuid
    readonly orderId: OutsideId
    readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
    /** false: a repeat, answered with what is so now; this call changed nothing */
    readonly applied: boolean
    readonly items: ReadonlyArray<{
      readonly productId?: OutsideId
      readonly variantId: OutsideId
      readonly quantity: Quantity
      readonly reserved: true
    }>
    /** Which stock it holds or, once it is CONFIRMED, was sold from */
    readonly allocations: ReadonlyArray<{
      readonly variantId: OutsideId | null
      readonly stockId: Uuid
      readonly locationId: OutsideId | null
      readonly lotNumber: string | null
      readonly quantity: Total
    }>
    /** RFC 3339 in UTC with milliseconds */
    readonly expiresAt: string
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersExtendBody = {
  readonly orderId: OutsideId
  readonly expiresIn: ExpiresIn
}

export type OrdersExtendAnswer = {
  readonly success: true
  readonly data: {
    readonly orderId: OutsideId
    readonly reservationId: Uuid
    /** RFC 3339 in UTC with milliseconds */
    readonly expiresAt: string
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersGetReservationAnswer = {
  readonly success: true
  readonly data: {
    readonly reservationId: Uuid
    readonly orderId: OutsideId
    readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
    /** RFC 3339 in UTC with milliseconds */
    readonly expiresAt: string
    /** RFC 3339 in UTC with milliseconds */
    readonly createdAt: string
    /** RFC 3339 in UTC with milliseconds */
    readonly updatedAt: string
    readonly metadata: unknown
    readonly lines: ReadonlyArray<{
      readonly itemId: Uuid
      readonly variantId: OutsideId | null
      readonly sku: OutsideId | null
      readonly quantity: Balance
      readonly open: Balance
      readonly sold: Balance
      readonly released: Balance
      readonly returned: Balance
      readonly allocation: {
        readonly stockId: Uuid
        readonly locationId: OutsideId | null
        readonly lotNumber: string | null
      } | null
    }>
  }
  readonly meta: {
    readonly timestamp: string
  }
}

export type OrdersListReservationsAnswer = {
  readonly success: true
  readonly data: ReadonlyArray<{
    readonly reservationId: Uuid
    readonly orderId: OutsideId
    readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
    /** RFC 3339 in UTC with milliseconds */
    readonly expiresAt: string
    /** RFC 3339 in UTC with milliseconds */
    readonly createdAt: string
    /** RFC 3339 in UTC with milliseconds */
    readonly updatedAt: string
    readonly metadata: unknown
    readonly lines: ReadonlyArray<{
      readonly itemId: Uuid
      readonly variantId: OutsideId | null
      readonly sku: OutsideId | null
      readonly quantity: Balance
      readonly open: Balance
      readonly sold: Balance
      readonly released: Balance
      readonly returned: Balance
      readonly allocation: {
        readonly stockId: Uuid
        readonly locationId: OutsideId | null
        readonly lotNumber: string | null
      } | null
    }>
  }>
  readonly nextCursor: string | null
  readonly meta: {
    /** RFC 3339 in UTC with milliseconds */
    readonly timestamp: string
  }
}

export type VariantsGetVariantsAnswer =
  | {
      readonly data: ReadonlyArray<Variant>
      readonly missing: ReadonlyArray<string>
    }
  | {
      readonly data: ReadonlyArray<VariantThen>
      readonly missing: ReadonlyArray<string>
    }

export type VariantsGetVariantAnswer = Variant | VariantThen

export type VariantsReserveVariantBody = {
  readonly orderId: OutsideId
  readonly quantity: Quantity
  readonly expiresIn?: ExpiresIn
}

/** The order holds the same quantity already, or was sold it (see status) */
export type VariantsReserveVariantAnswer = {
  readonly reservationId: Uuid
  readonly orderId: OutsideId
  readonly productVariantId: OutsideId
  readonly quantity: Quantity
  readonly status: string
  /** false: a repeat, answered with what is so now; this call changed nothing */
  readonly applied: boolean
  /** Which stock it holds or, once it is CONFIRMED, was sold from */
  readonly allocations: ReadonlyArray<{
    readonly variantId: OutsideId | null
    readonly stockId: Uuid
    readonly locationId: OutsideId | null
    readonly lotNumber: string | null
    readonly quantity: Total
  }>
  /** RFC 3339 in UTC with milliseconds */
  readonly expiresAt: string
}

export type VariantsReleaseVariantBody = {
  readonly orderId: OutsideId
  readonly quantity?: Quantity
}

export type VariantsReleaseVariantAnswer = {
  readonly orderId: OutsideId
  readonly released: boolean
  /** false: a repeat, answered with what is so now; this call changed nothing */
  readonly applied: boolean
  readonly releasedQuantity: Total
  readonly productVariantId: OutsideId | null
  readonly sku: OutsideId | null
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly unallocatableQuantity: Balance
  readonly availableQuantity: Total
  readonly status: ItemStatus
}

export type VariantsAdjustStockBody = {
  readonly productVariantId: OutsideId
  readonly quantity?: Count
  readonly quantitySold?: Quantity
  readonly orderId?: OutsideId
  readonly locationId?: OutsideId
  readonly lotNumber?: OutsideId
  /** The lot's expiry: of goods that come in (RECEIPT, RETURN), or corrected by a CORRECTION, where null says that the lot does not expire */
  readonly expiresAt?: Timestamp | null
  readonly condition?: ReturnCondition
  readonly reason?: Text
  readonly reference?: Text
  readonly occurredAt?: Timestamp
  readonly expectedVersion?: Count
  readonly changeType:
    | "RECEIPT"
    | "SALE"
    | "RETURN"
    | "DAMAGE"
    | "QUARANTINE"
    | "UNQUARANTINE"
    | "WRITE_OFF"
    | "CORRECTION"
}

export type VariantsAdjustStockAnswer = {
  /** false: it had been applied before, nothing changed */
  readonly applied: boolean
  readonly productVariantId: OutsideId | null
  readonly sku: OutsideId | null
  readonly quantity: Balance
  readonly reservedQuantity: Balance
  readonly unallocatableQuantity: Balance
  readonly availableQuantity: Total
  readonly status: ItemStatus
  readonly stocks: ReadonlyArray<{
    readonly stockId: Uuid
    readonly locationId: OutsideId
    readonly lotNumber: string | null
    readonly quantity: Balance
    readonly reservedQuantity: Balance
    readonly unallocatableQuantity: Balance
    readonly version: Count
  }>
  /** What it contradicts: the discrepancies that it opened, or adds to */
  readonly discrepancies: ReadonlyArray<{
    readonly discrepancyId: Uuid
    readonly kind:
      | "NEGATIVE_STOCK"
      | "OVERCOMMITTED"
      | "DISCONTINUED_WITH_STOCK"
      | "EXPIRED_LOT_SOLD"
      | "RETURN_EXCEEDS_SALE"
      | "CANCELLED_AFTER_SALE"
      | "SALE_LINE_CHANGED"
      | "COUNT_DIFFERENCE"
  }>
}

export type VariantsListMovementsAnswer = {
  readonly data: ReadonlyArray<Movement>
  readonly nextCursor: string | null
}

export type WarehouseReserveSkusBody = {
  readonly orderId: OutsideId
  readonly items: ReadonlyArray<{
    readonly sku: OutsideId
    readonly quantity: Quantity
    readonly skuBatchId?: Uuid
  }>
  readonly expiresIn?: ExpiresIn
}

/** The order holds the same items already, or was sold them (see status) */
export type WarehouseReserveSkusAnswer = {
  readonly reservationId: Uuid
  readonly orderId: OutsideId
  readonly status: "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
  /** false: a repeat, answered with what is so now; this call changed nothing */
  readonly applied: boolean
  readonly allocations: ReadonlyArray<{
    readonly sku: OutsideId | null
    readonly skuBatchId: Uuid | null
    readonly lotNumber: string | null
    readonly quantity: Total
  }>
  /** RFC 3339 in UTC with milliseconds */
  readonly expiresAt: string
}

export type WarehouseReleaseOrderBody = {
  readonly orderId: OutsideId
}

export type WarehouseReleaseOrderAnswer = {
  readonly orderId: OutsideId
  readonly released: boolean
  /** false: a repeat, answered with what is so now; this call changed nothing */
  readonly applied: boolean
}

export type WarehouseGetSkuAnswer = {
  readonly sku: OutsideId
  readonly totalQuantity: Balance
  readonly unallocatableQuantity: Balance
  readonly reservedQuantity: Balance
  readonly availableQuantity: Total
  readonly batches: ReadonlyArray<{
    readonly skuBatchId: Uuid
    readonly locationId: OutsideId
    readonly lotNumber: string | null
    readonly expiresAt: string | null
    readonly totalQuantity: Balance
    readonly unallocatableQuantity: Balance
    readonly reservedQuantity: Balance
    readonly availableQuantity: Total
    readonly version: Count
  }>
  readonly lastWmsSyncAt: string | null
}

export type CatalogCreateItemBody = {
  readonly productVariantId?: NewItemId
  readonly sku?: NewItemId
  readonly name?: Text
  readonly productId?: OutsideId
  readonly stocked?: boolean
  /** The item is LOW_STOCK, and inventory.low_stock is told, where no more than this is available */
  readonly lowStockThreshold?: Count
  /** What should always be in stock: a figure for those who reorder (safetyStockShortfall). It is not withheld from sale */
  readonly safetyStock?: Count
  /** DISCONTINUED: nothing new is promised or sold of it; what is in stock stays in quantity, and a discrepancy is open until it is gone. ACTIVE: it is sold again */
  readonly status?: "ACTIVE" | "DISCONTINUED"
  /** How far a count may differ from the books, in base units, before it opens a discrepancy (0: any difference does) */
  readonly countTolerance?: Count
}

export type CatalogListItemsAnswer = {
  readonly data: ReadonlyArray<Item>
  readonly nextCursor: string | null
}

export type CatalogUpdateItemBody = {
  readonly sku?: NewItemId
  readonly name?: Text
  readonly productId?: OutsideId
  readonly stocked?: boolean
  /** The item is LOW_STOCK, and inventory.low_stock is told, where no more than this is available */
  readonly lowStockThreshold?: Count
  /** What should always be in stock: a figure for those who reorder (safetyStockShortfall). It is not withheld from sale */
  readonly safetyStock?: Count
  /** DISCONTINUED: nothing new is promised or sold of it; what is in stock stays in quantity, and a discrepancy is open until it is gone. ACTIVE: it is sold again */
  readonly status?: "ACTIVE" | "DISCONTINUED"
  /** How far a count may differ from the books, in base units, before it opens a discrepancy (0: any difference does) */
  readonly countTolerance?: Count
}

export type CatalogCreateLocationBody = {
  readonly locationId: OutsideId
  readonly name?: Text
}

export type CatalogListLocationsAnswer = {
  readonly data: ReadonlyArray<Location>
  readonly nextCursor: string | null
}

export type CatalogUpdateLocationBody = {
  readonly name?: Text
  /** Its new place after the default location, from 1; the others move up or down. What is past the last is the last */
  readonly order?: Count
  readonly retired?: boolean
}

export type CatalogListStocksAnswer = {
  readonly data: ReadonlyArray<Stock>
  readonly nextCursor: string | null
}

export type CatalogListLotsAnswer = {
  readonly data: ReadonlyArray<Stock>
  readonly nextCursor: string | null
}

export type CatalogListStockMovementsAnswer = {
  readonly data: ReadonlyArray<Movement>
  readonly nextCursor: string | null
}

export type CatalogListDiscrepanciesAnswer = {
  readonly data: ReadonlyArray<Discrepancy>
  readonly nextCursor: string | null
}

export type CatalogResolveDiscrepancyBody = {
  /** Text of at most 1024 characters */
  readonly reason: string
}

export type CatalogResolveDiscrepancyAnswer = {
  readonly discrepancyId: Uuid
  readonly resolved: boolean
}

export type BulkBulkBody = {
  readonly mode: "atomic" | "continueOnFailure"
  readonly operations: ReadonlyArray<BulkAdjustment | BulkReserve | BulkReserveOrder | BulkRelease>
}

export type BulkBulkAnswer = {
  readonly mode: "atomic" | "continueOnFailure"
  readonly succeeded: Count
  readonly failed: Count
  readonly results: ReadonlyArray<BulkResult>
}

export type BulkCountBody = {
  readonly locationId?: OutsideId
  readonly counts: ReadonlyArray<{
    readonly productVariantId: OutsideId
    readonly lotNumber?: OutsideId
    readonly quantity: Count
    readonly expectedVersion?: Count
    readonly expectedQuantity?: Balance
  }>
  readonly reason?: Text
}

export type BulkCountAnswer = {
  readonly counts: ReadonlyArray<{
    readonly productVariantId: OutsideId | null
    readonly sku: OutsideId | null
    readonly stockId: Uuid
    readonly locationId: OutsideId
    readonly lotNumber: string | null
    readonly quantity: Balance
    readonly reservedQuantity: Balance
    readonly unallocatableQuantity: Balance
    readonly version: Count
    /** What was counted less what the books said */
    readonly difference: Balance
    /** Whether the difference is beyond the item's countTolerance, and so a discrepancy */
    readonly discrepancy: boolean
  }>
}

export type SalesRecordSaleBody = {
  readonly saleOrderId: OutsideId
  readonly items: ReadonlyArray<{
    readonly saleOrderItemId?: OutsideId | null
    readonly productVariantId: OutsideId
    readonly quantity: Count
    readonly locationId?: OutsideId | null
  }>
  readonly kitchenTickets?: ReadonlyArray<{
    readonly kitchenTicketItemId: OutsideId
    readonly productVariantId: OutsideId
    readonly quantity: Count
  }> | null
}

export type SalesRecordSaleAnswer = {
  readonly saleOrderId: OutsideId
  /** false: every line was recorded before, by message or over HTTP; this call sold nothing */
  readonly applied: boolean
  /** Lines of one saleOrderItemId (else of one item and location) count as one */
  readonly lines: {
    /** Lines that are sold by this call */
    readonly applied: Count
    /** Lines that were recorded before, with the same quantity */
    readonly repeated: Count
    /** Lines that were recorded before with another quantity: a SALE_LINE_CHANGED discrepancy is open */
    readonly changed: Count
  }
}
