import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import {
  type InvalidCursor,
  type Page,
  defaultLimit,
  pageOf,
  pageOfLooked,
  positionOf
} from "../../schema/Page.ts"
import type { Caller } from "../../schema/Caller.ts"
import type {
  DeleteItem,
  EnsureItem,
  EnsureLocation,
  EnsureMerchant,
  UpdateLocation
} from "../kernel/commands/catalog.ts"
import { type ItemAnswer, type ItemStatus, type LocationAnswer, statusInSql } from "../../schema/Item.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { items as itemTable, locations as locationTable } from "../kernel/tables/catalog.ts"
import { expiredInSql, sellableOfItemInSql } from "../kernel/figuresInSql.ts"

export interface ItemFilter {
  /** A part of the product variant id, the sku or the name, in any case. */
  readonly search?: string | undefined
  readonly status?: ItemStatus | undefined
  /** Only those of which less is available than their safety stock, and that are meant to be stocked again. */
  readonly belowSafetyStock?: boolean | undefined
  readonly kind: "PRODUCT" | "MATERIAL"
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/**
 * A record of the captured table of product variants (`nx.seller.public.product_variant`). The row's id is the
 * productVariantId. A delete carries nothing else.
 */
export type VariantRowChange =
  | {
      readonly _tag: "Written"
      readonly rowId: string
      readonly merchantId: string
      readonly sku?: string | undefined
      readonly discontinued?: boolean | undefined
    }
  | { readonly _tag: "Deleted"; readonly rowId: string }

/** What a merchant stocks, and where. */
export class Catalog extends Context.Service<
  Catalog,
  {
    readonly ensureItem: (
      caller: Caller,
      command: Omit<EnsureItem, "_tag">
    ) => Effect.Effect<Posted<EnsureItem>, Refusal<EnsureItem> | PostingFailure>
    readonly ensureLocation: (
      caller: Caller,
      command: Omit<EnsureLocation, "_tag">
    ) => Effect.Effect<Posted<EnsureLocation>, PostingFailure>
    readonly updateLocation: (
      caller: Caller,
      command: Omit<UpdateLocation, "_tag">
    ) => Effect.Effect<Posted<UpdateLocation>, Refusal<UpdateLocation> | PostingFailure>
    /** *ensureDefaultLocation*: the caller's merchant, with its default location. */
    readonly ensureMerchant: (caller: Caller) => Effect.Effect<Posted<EnsureMerchant>, PostingFailure>
    readonly deleteItem: (
      caller: Caller,
      command: Omit<DeleteItem, "_tag">
    ) => Effect.Effect<Posted<DeleteItem>, PostingFailure>
    /**
     * Applies a change of a captured row, whose records are told in their order: *ensureInventoryItem*, or the deletion of
     * the item at the merchant that the row's earlier records named. A sku that another captured row still has here moves
     * to this one. UNKNOWN: a delete of a row that was never seen.
     */
    readonly applyRowChange: (
      caller: Omit<Caller, "merchantId">,
      change: VariantRowChange
    ) => Effect.Effect<"ENSURED" | "DELETED" | "UNKNOWN", Refusal<EnsureItem> | PostingFailure>
    /**
     * In the order of their creation. A page may be shorter than its limit while there are more (`nextCursor`): how many
     * items it looks through is bounded.
     */
    readonly items: (
      merchantId: string,
      filter: ItemFilter
    ) => Effect.Effect<Page<ItemAnswer>, InvalidCursor | DatabaseUnavailable>
    /** The default one first, then in the order in which stock is taken from them. */
    readonly locations: (
      merchantId: string,
      page: { readonly limit?: number | undefined; readonly cursor?: string | undefined }
    ) => Effect.Effect<Page<LocationAnswer>, InvalidCursor | DatabaseUnavailable>
  }
>()("holdfast/services/Catalog") {
  static readonly layer = Layer.effect(
    Catalog,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db

      const items: Catalog["Service"]["items"] = Effect.fn("Catalog.items")(function* (merchantId, filter) {
        const after = yield* positionOf(filter.cursor, ["uuid"])
        const limit = filter.limit ?? defaultLimit
        const rows = yield* db.read<ItemRow>(merchantId, itemsStatement, [
          parameter("text", merchantId),
          parameter("text", filter.kind),
          parameter("text", filter.status ?? null),
          parameter("text", filter.search === undefined ? null : `%${likeText(filter.search)}%`),
          parameter("uuid", after?.[0] ?? nilUuid),
          parameter("int4", limit + 1),
          parameter("timestamptz", yield* Clock.currentTimeMillis),
          parameter("bool", filter.belowSafetyStock ?? false),
          parameter("int4", lookedThroughMax)
        ])
        return pageOfLooked(
          rows,
          limit,
          lookedThroughMax,
          ({ isWanted }) => isWanted,
          ({ isWanted, place, ...item }) => item,
          ({ itemId }) => [itemId]
        )
      })

      const locations: Catalog["Service"]["locations"] = Effect.fn("Catalog.locations")(
        function* (merchantId, page) {
          const after = yield* positionOf(page.cursor, ["integer"])
          const limit = page.limit ?? defaultLimit
          const rows = yield* db.read<LocationRow>(merchantId, locationsStatement, [
            parameter("text", merchantId),
            parameter("int8", after?.[0] ?? -1),
            parameter("int4", limit + 1)
          ])
          return pageOf(
            rows,
            limit,
            ({ retired, ...location }) => ({ ...location, retired: retired === true }),
            ({ order }) => [order]
          )
        }
      )

      const applyRowChange: Catalog["Service"]["applyRowChange"] = Effect.fn("Catalog.applyRowChange")(
        function* (caller, change) {
          const { rowId } = change
          const [known] = yield* db.maintain<{ ownerId: string }>(capturedStatement, [
            parameter("text", rowId)
          ])
          const owner = known?.ownerId
          const isGone = change._tag === "Deleted" || change.merchantId !== owner
          // A row that has changed hands is gone for the merchant that had it.
          if (owner !== undefined && isGone) {
            const former = { ...caller, merchantId: owner }
            yield* ledger.post(former, { _tag: "DeleteItem", productVariantId: rowId })
          }
          if (change._tag === "Deleted") return owner === undefined ? "UNKNOWN" : "DELETED"
          yield* ledger.post(
            { ...caller, merchantId: change.merchantId },
            {
              _tag: "EnsureItem",
              kind: "PRODUCT",
              productVariantId: rowId,
              sku: change.sku,
              discontinued: change.discontinued,
              // One that comes back to a merchant was deleted there when it went.
              keepsDeletion: owner === undefined || owner === change.merchantId,
              capturedRow: rowId
            }
          )
          return "ENSURED"
        }
      )

      return Catalog.of({
        ensureItem: (caller, command) => ledger.post(caller, { ...command, _tag: "EnsureItem" }),
        ensureLocation: (caller, command) => ledger.post(caller, { ...command, _tag: "EnsureLocation" }),
        updateLocation: (caller, command) => ledger.post(caller, { ...command, _tag: "UpdateLocation" }),
        ensureMerchant: (caller) => ledger.post(caller, { _tag: "EnsureMerchant" }),
        deleteItem: (caller, command) => ledger.post(caller, { ...command, _tag: "DeleteItem" }),
        applyRowChange,
        items,
        locations
      })
    })
  )
}

/** A page looks through at most so many items: what can be asked for of them is judged by the clock, or any part of a name. */
const lookedThroughMax = 5_000

const likeText = (text: string): string => text.replace(/[\\%_]/g, "\\$&")

// captured_variant_pkey. Before the merchant of the row is known, and so across all of them.
const capturedStatement = `SELECT owner_id AS "ownerId" FROM captured_variant WHERE row_id = $1`

// item_pkey; ids are UUIDv7, so that their order is that of creation. The status is judged by the clock, as everywhere
// (statusOf): the one that is kept with the item is that of its last event.
const itemsStatement = `
  SELECT ${fieldsInSql(itemTable, "i", ["itemId", "kind", "productVariantId", "sku", "productId", "name"])},
         ${fieldsInSql(itemTable, "i", ["unit", "stocked", "lowStockThreshold", "safetyStock", "countTolerance"])}, now.status,
         i.on_hand AS quantity, i.reserved AS "reservedQuantity",
         i.unallocatable + sellable.expired AS "unallocatableQuantity", sellable.available AS "availableQuantity",
         ${fieldsInSql(itemTable, "i", ["createdAt", "updatedAt"])}, i.place, wanted.is_wanted AS "isWanted"
  FROM (
    SELECT item.*, row_number() OVER (ORDER BY item.item_id) AS place
    FROM item
    WHERE item.merchant_id = $1 AND item.item_id > $5
    ORDER BY item.item_id
    LIMIT $9
  ) i
  CROSS JOIN LATERAL (
    SELECT ${sellableOfItemInSql("i", "s", "l", "$7")} AS available,
           COALESCE(sum(${expiredInSql("s", "$7")}), 0)::bigint AS expired
    FROM stock s
    JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id
    WHERE s.merchant_id = i.merchant_id AND s.item_id = i.item_id
  ) sellable
  CROSS JOIN LATERAL (
    SELECT ${statusInSql("i", "sellable.available")} AS status
  ) now
  CROSS JOIN LATERAL (
    SELECT COALESCE(
      i.deleted_at IS NULL
        AND i.kind = $2
        AND ($3 IS NULL OR now.status = $3)
        AND ($4 IS NULL OR i.product_variant_id ILIKE $4 OR i.sku ILIKE $4 OR i.name ILIKE $4)
        AND (NOT $8 OR (i.stocked AND NOT i.discontinued AND sellable.available < i.safety_stock)),
      false
    ) AS is_wanted
  ) wanted
  WHERE wanted.is_wanted OR i.place = $9
  ORDER BY i.item_id
  LIMIT $6`

interface ItemRow extends ItemAnswer {
  /** Counted from the first that the page looked at. */
  readonly place: number
  readonly isWanted: boolean
}

// location_pkey
const locationsStatement = `
  SELECT ${fieldsInSql(locationTable, "l", ["locationId", "name", "isDefault", "retired", "createdAt"])},
         l.position AS "order"
  FROM location l
  WHERE l.merchant_id = $1 AND l.position > $2
  ORDER BY l.position
  LIMIT $3`

interface LocationRow extends Omit<LocationAnswer, "retired"> {
  readonly retired: boolean | null
}
