import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { NewItemId, OutsideId, Text, Uuid } from "../../schema/Identifier.ts"
import { pageQuery } from "../../schema/Page.ts"
import { Balance, Count, Total } from "../../schema/Quantity.ts"
import { Instant, Timestamp } from "../../schema/Time.ts"
import { ExampleCall, RequiredPermission, listOf } from "./Contract.ts"
import { ItemStatus } from "./ItemFigures.ts"
import { MovementList, movementQuery, movementsDescription } from "./Movement.ts"
import { problem } from "./Problem.ts"

/** The contract of the point-of-sale suite: what is stocked and where, `/v1/api/inventory/…` (CONTRACTS 4.4). */

const attributes = {
  name: Schema.optionalKey(Text),
  productId: Schema.optionalKey(OutsideId),
  stocked: Schema.optionalKey(Schema.Boolean),
  lowStockThreshold: Schema.optionalKey(
    Count.annotate({
      description:
        "The item is LOW_STOCK, and inventory.low_stock is told, where no more than this is available"
    })
  ),
  safetyStock: Schema.optionalKey(
    Count.annotate({
      description:
        "What should always be in stock: a figure for those who reorder (safetyStockShortfall). It is not withheld from sale"
    })
  ),
  status: Schema.optionalKey(
    Schema.Literals(["ACTIVE", "DISCONTINUED"]).annotate({
      description:
        "DISCONTINUED: nothing new is promised or sold of it; what is in stock stays in quantity, and a discrepancy is open until it is gone. ACTIVE: it is sold again"
    })
  ),
  countTolerance: Schema.optionalKey(
    Count.annotate({
      description:
        "How far a count may differ from the books, in base units, before it opens a discrepancy (0: any difference does)"
    })
  )
}

export const EnsureItem = Schema.Struct({
  productVariantId: Schema.optionalKey(NewItemId),
  sku: Schema.optionalKey(NewItemId),
  ...attributes
}).check(
  Schema.makeFilter(({ productVariantId, sku }) =>
    productVariantId === undefined && sku === undefined
      ? { path: ["productVariantId"], issue: "is required where there is no sku" }
      : undefined
  )
)
export const UpdateItem = Schema.Struct({ sku: Schema.optionalKey(NewItemId), ...attributes })

export const ItemView = Schema.Struct({
  itemId: Uuid,
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  productId: Schema.NullOr(OutsideId),
  name: Schema.NullOr(Schema.String),
  unit: Schema.String,
  stocked: Schema.Boolean,
  lowStockThreshold: Count,
  safetyStock: Count,
  safetyStockShortfall: Total.annotate({
    description:
      "How much is missing until safetyStock is available; 0 for what is discontinued or made to order"
  }),
  countTolerance: Count,
  status: ItemStatus,
  quantity: Balance,
  reservedQuantity: Balance,
  unallocatableQuantity: Balance,
  availableQuantity: Total,
  createdAt: Timestamp,
  updatedAt: Timestamp
}).annotate({ identifier: "Item" })

export const LocationView = Schema.Struct({
  locationId: OutsideId,
  name: Schema.NullOr(Schema.String),
  isDefault: Schema.Boolean,
  order: Count.annotate({
    description: "Its place in the order in which stock is taken from locations: the default one is 0"
  }),
  retired: Schema.Boolean.annotate({
    description: "Nothing new is promised from it: its stock is in quantity, and not in availableQuantity"
  }),
  createdAt: Timestamp
}).annotate({ identifier: "Location" })

export const UpdateLocation = Schema.Struct({
  name: Schema.optionalKey(Text),
  order: Schema.optionalKey(
    Count.annotate({
      description:
        "Its new place after the default location, from 1; the others move up or down. What is past the last is the last"
    })
  ),
  retired: Schema.optionalKey(Schema.Boolean)
})

export const StockView = Schema.Struct({
  stockId: Uuid,
  itemId: Uuid,
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  expiresAt: Schema.NullOr(Timestamp),
  quantity: Balance,
  reservedQuantity: Balance,
  unallocatableQuantity: Balance,
  expiredQuantity: Total.annotate({
    description:
      "The part of unallocatableQuantity that is there because the lot has expired; no movement speaks of it"
  }),
  availableQuantity: Total,
  discrepancy: Schema.Boolean.annotate({ description: "Whether a discrepancy of its balance is open" }),
  version: Count.annotate({ description: "The number of its last movement, for expectedVersion" }),
  createdAt: Timestamp,
  updatedAt: Timestamp
}).annotate({ identifier: "Stock" })

export const DiscrepancyView = Schema.Struct({
  discrepancyId: Uuid,
  kind: Schema.String,
  status: Schema.Literals(["OPEN", "CLOSED", "RESOLVED"]),
  stockId: Schema.NullOr(Uuid),
  itemId: Schema.NullOr(Uuid),
  productVariantId: Schema.NullOr(OutsideId),
  sku: Schema.NullOr(OutsideId),
  orderId: Schema.NullOr(Schema.String),
  detail: Schema.Json,
  openedAt: Timestamp,
  closedAt: Schema.NullOr(Timestamp),
  closedBy: Schema.NullOr(Schema.String),
  reason: Schema.NullOr(Schema.String)
}).annotate({ identifier: "Discrepancy" })

export const DeletedItem = Schema.Struct({
  productVariantId: OutsideId,
  status: Schema.Literals(["DELETED", "DISCONTINUED"]).annotate({
    description:
      "DISCONTINUED: it is in stock or held, and is deleted with its last unit and hold. A discrepancy is open until then"
  }),
  applied: Schema.Boolean.annotate({ description: "false: it had been deleted before, nothing changed" })
}).annotate({ identifier: "DeletedItem" })

export const ItemList = listOf(ItemView)
export const LocationList = listOf(LocationView)
export const StockList = listOf(StockView)
export const DiscrepancyList = listOf(DiscrepancyView)
export const ResolvedDiscrepancy = Schema.Struct({ discrepancyId: Uuid, resolved: Schema.Boolean })

const stockParams = {
  stockId: Uuid.annotate({ description: "The stockId of its entry in the list of stocks" })
}

export class CatalogApi extends HttpApiGroup.make("catalog")
  .add(
    HttpApiEndpoint.post("createItem", "/product-variants", {
      payload: EnsureItem,
      success: [
        ItemView.pipe(HttpApiSchema.status(201)),
        ItemView.annotate({ description: "Known already; what was given is updated" })
      ],
      error: problem("ItemConflict")
    })
      .annotate(RequiredPermission, "catalog:write")
      .annotate(ExampleCall, {
        body: { productVariantId: "espresso-cup", sku: "CUP-1", name: "Espresso cup", lowStockThreshold: 5 }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Stock a product variant",
          description: "An idempotent upsert: it adopts an item that was known by its sku alone."
        })
      ),
    HttpApiEndpoint.patch("updateItem", "/product-variants/:productVariantId", {
      params: {
        productVariantId: NewItemId.annotate({
          description: "The id that the shop gives the product variant"
        })
      },
      payload: UpdateItem,
      success: [ItemView, ItemView.pipe(HttpApiSchema.status(201))],
      error: problem("ItemConflict")
    })
      .annotate(RequiredPermission, "catalog:write")
      .annotate(ExampleCall, {
        params: { productVariantId: "espresso-cup" },
        body: { name: "Espresso cup, blue", safetyStock: 10 }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Change a product variant's stocking: threshold, safety stock, name, status, …"
        })
      ),
    HttpApiEndpoint.delete("deleteItem", "/product-variants/:productVariantId", {
      params: { productVariantId: OutsideId },
      success: DeletedItem,
      error: problem("ItemNotFound")
    })
      .annotate(RequiredPermission, "catalog:write")
      .annotate(ExampleCall, { params: { productVariantId: "espresso-cup" } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Delete a product variant",
          description:
            "Without stock and holds it is gone, and its sku is free. Otherwise it is DISCONTINUED until its last unit and hold are gone, and deleted then. Messages do not bring it back; POST product-variants does."
        })
      ),
    HttpApiEndpoint.get("listItems", "/product-variants", {
      query: {
        ...pageQuery,
        search: Schema.optionalKey(
          Text.annotate({ description: "Only items whose id, sku or name has this text in it" })
        ),
        status: Schema.optionalKey(ItemStatus.annotate({ description: "Only items in this state" })),
        belowSafetyStock: Schema.optionalKey(
          Schema.Literals(["true", "false"]).annotate({
            description:
              "true: only items of which less is available than their safetyStock; false: only others"
          })
        )
      },
      success: ItemList
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(
        OpenApi.annotations({
          summary: "Search the items",
          description:
            "In the order of their creation. A page looks through at most 5,000 items: with filters it may be shorter than its limit, and even empty, while there are more. Go on until nextCursor is null."
        })
      ),
    HttpApiEndpoint.post("createLocation", "/locations", {
      payload: Schema.Struct({ locationId: OutsideId, name: Schema.optionalKey(Text) }),
      success: [LocationView.pipe(HttpApiSchema.status(201)), LocationView]
    })
      .annotate(RequiredPermission, "catalog:write")
      .annotate(ExampleCall, { body: { locationId: "paris", name: "Shop in Paris" } })
      .annotateMerge(OpenApi.annotations({ summary: "Create a location, or rename it" })),
    HttpApiEndpoint.patch("updateLocation", "/locations/:locationId", {
      params: { locationId: OutsideId },
      payload: UpdateLocation,
      success: LocationView,
      error: [problem("LocationNotFound"), problem("DefaultLocation")]
    })
      .annotate(RequiredPermission, "catalog:write")
      .annotate(ExampleCall, { params: { locationId: "paris" }, body: { name: "Shop in Paris", order: 1 } })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Rename a location, move it in the picking order, or retire it",
          description:
            "Nothing new is promised from a retired location, and what is there is not counted as available anywhere; what was promised before may be confirmed, and facts that name it (goods received, sold, counted) are recorded. The default location can be neither moved nor retired."
        })
      ),
    HttpApiEndpoint.get("listLocations", "/locations", { query: pageQuery, success: LocationList })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(OpenApi.annotations({ summary: "The locations, the default one first" })),
    HttpApiEndpoint.get("listStocks", "/stocks", {
      query: {
        ...pageQuery,
        productVariantId: Schema.optionalKey(
          OutsideId.annotate({ description: "Only the stocks of this product variant" })
        ),
        sku: Schema.optionalKey(OutsideId.annotate({ description: "Only the stocks of this sku" })),
        locationId: Schema.optionalKey(
          OutsideId.annotate({ description: "Only the stocks at this location" })
        )
      },
      success: StockList
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(
        OpenApi.annotations({
          summary: "The stocks: one item at one location in one lot",
          description:
            "In the order of their creation. quantity, reservedQuantity and unallocatableQuantity − expiredQuantity are the sums of the deltas in the stock's ledger."
        })
      ),
    HttpApiEndpoint.get("listLots", "/lots", {
      query: {
        ...pageQuery,
        expiresBefore: Schema.optionalKey(
          Instant.annotate({ description: "Exclusive. Without it, all lots that expire" })
        ),
        locationId: Schema.optionalKey(OutsideId.annotate({ description: "Only what lies there" }))
      },
      success: StockList
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(
        OpenApi.annotations({
          summary: "The lots that go off",
          description:
            "One row for each location where there is something of the lot, on hand or held; the soonest expiry first, those that have expired already among them."
        })
      ),
    HttpApiEndpoint.get("getStock", "/stocks/:stockId", {
      params: stockParams,
      success: StockView,
      error: problem("StockNotFound")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { stockId: "01a1c0de-0000-7000-8000-000000000002" } })
      .annotateMerge(OpenApi.annotations({ summary: "One stock" })),
    HttpApiEndpoint.get("listStockMovements", "/stocks/:stockId/ledger", {
      params: stockParams,
      query: movementQuery,
      success: MovementList,
      error: problem("StockNotFound")
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotate(ExampleCall, { params: { stockId: "01a1c0de-0000-7000-8000-000000000002" } })
      .annotateMerge(
        OpenApi.annotations({ summary: "What moved in one stock", description: movementsDescription })
      ),
    HttpApiEndpoint.get("listDiscrepancies", "/discrepancies", {
      query: {
        ...pageQuery,
        status: Schema.optionalKey(
          Schema.Literals(["OPEN", "CLOSED", "RESOLVED"]).annotate({
            description: "Only discrepancies in this state: CLOSED by themselves, RESOLVED by hand"
          })
        ),
        kind: Schema.optionalKey(
          Text.annotate({ description: "Only discrepancies of this kind, such as COUNT_DIFFERENCE" })
        ),
        productVariantId: Schema.optionalKey(
          OutsideId.annotate({ description: "Only discrepancies of this product variant" })
        ),
        sku: Schema.optionalKey(OutsideId.annotate({ description: "Only discrepancies of this sku" }))
      },
      success: DiscrepancyList
    })
      .annotate(RequiredPermission, "inventory:read")
      .annotateMerge(OpenApi.annotations({ summary: "Where books and facts differ, newest first" })),
    HttpApiEndpoint.post("resolveDiscrepancy", "/discrepancies/:discrepancyId/resolve", {
      params: { discrepancyId: Uuid.annotate({ description: "The discrepancyId of its entry in the list" }) },
      payload: Schema.Struct({ reason: Text.check(Schema.isMinLength(1)) }),
      success: ResolvedDiscrepancy,
      error: [problem("DiscrepancyNotFound"), problem("DiscrepancyPersists")]
    })
      .annotate(RequiredPermission, "inventory:adjust")
      .annotate(ExampleCall, {
        params: { discrepancyId: "01a1c0de-0000-7000-8000-000000000003" },
        body: { reason: "counted again: the books were right" }
      })
      .annotateMerge(OpenApi.annotations({ summary: "Resolve a discrepancy by hand, with a reason" }))
  )
  .prefix("/v1/api/inventory")
  .annotateMerge(
    OpenApi.annotations({ title: "Catalog", description: "Items, locations, stocks, discrepancies." })
  ) {}
