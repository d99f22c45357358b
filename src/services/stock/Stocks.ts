import { Clock, Context, Effect, Layer } from "effect"
import { type DatabaseUnavailable, StockNotFound } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"

/**
 * One stock: the balance of one item, at one location, in one lot. `quantity`, `reservedQuantity` and
 * `unallocatableQuantity − expiredQuantity` are the sums of its movements' deltas. Times are epoch milliseconds.
 */
export interface Stock {
  readonly stockId: string
  readonly itemId: string
  readonly productVariantId: string | null
  readonly sku: string | null
  readonly locationId: string
  readonly lotNumber: string | null
  readonly expiresAt: number | null
  readonly quantity: number
  readonly reservedQuantity: number
  /** Damaged, quarantined, or free in a lot past its expiry. */
  readonly unallocatableQuantity: number
  /** The part of it that was sellable until the lot expired: no movement speaks of it. */
  readonly expiredQuantity: number
  readonly availableQuantity: number
  /** Whether a discrepancy of its balance is open. */
  readonly discrepancy: boolean
  /** The number of its last movement, which compare-and-set speaks of. */
  readonly version: number
  readonly createdAt: number
  readonly updatedAt: number
}

export interface StockFilter {
  readonly productVariantId?: string | undefined
  readonly sku?: string | undefined
  readonly locationId?: string | undefined
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/** The stocks behind the figures of items. Never from a cache. */
export class Stocks extends Context.Service<
  Stocks,
  {
    /** In the order of their creation. */
    readonly list: (
      merchantId: string,
      filter: StockFilter
    ) => Effect.Effect<Page<Stock>, InvalidCursor | DatabaseUnavailable>
    readonly byId: (
      merchantId: string,
      stockId: string
    ) => Effect.Effect<Stock, StockNotFound | DatabaseUnavailable>
  }
>()("holdfast/services/Stocks") {
  static readonly layer = Layer.effect(
    Stocks,
    Effect.gen(function* () {
      const db = yield* Db

      const list: Stocks["Service"]["list"] = Effect.fn("Stocks.list")(function* (merchantId, filter) {
        const { cursor, limit = defaultLimit, locationId, productVariantId, sku } = filter
        const after = yield* positionOf(cursor, ["uuid"])
        const byItem = productVariantId ?? sku
        const statement =
          productVariantId !== undefined
            ? ofVariant
            : sku !== undefined
              ? ofSku
              : locationId !== undefined
                ? atLocation
                : ofMerchant
        const rows = yield* db.read<StockRow>(merchantId, statement, [
          parameter("text", merchantId),
          parameter("timestamptz", yield* Clock.currentTimeMillis),
          parameter("uuid", after?.[0] ?? nilUuid),
          parameter("int4", limit + 1),
          ...(byItem === undefined
            ? locationId === undefined
              ? []
              : [parameter("text", locationId)]
            : [
                parameter("text", byItem),
                parameter("text", locationId ?? null),
                parameter("text", sku ?? null)
              ])
        ])
        return pageOf(rows, limit, stock, (row) => [row.stock_id])
      })

      const byId: Stocks["Service"]["byId"] = Effect.fn("Stocks.byId")(function* (merchantId, stockId) {
        const [row] = yield* db.read<StockRow>(merchantId, withId, [
          parameter("text", merchantId),
          parameter("timestamptz", yield* Clock.currentTimeMillis),
          parameter("uuid", stockId)
        ])
        return row === undefined ? yield* new StockNotFound({ item: stockId }) : stock(row)
      })

      return Stocks.of({ list, byId })
    })
  )
}

const columns = `
  SELECT s.stock_id, s.item_id, i.product_variant_id, i.sku, s.location_id, s.lot_number, s.lot_expires_at, s.on_hand,
         s.reserved, s.unallocatable,
         holdfast_sellable(s.on_hand, s.reserved, s.unallocatable, s.lot_expires_at, $2) AS sellable,
         s.discrepancy, s.sequence, s.created_at, s.updated_at`

/** The stocks first and their items by look-ups (OFFSET 0), however small the tables seemed when the plan was made. */
const stocksWhere = (condition: string): string => `${columns}
  FROM (
    SELECT *
    FROM stock
    WHERE stock.merchant_id = $1 AND ${condition}
    ORDER BY stock.stock_id
    LIMIT $4
  ) s
  CROSS JOIN LATERAL (
    SELECT item.product_variant_id, item.sku
    FROM item
    WHERE item.merchant_id = s.merchant_id AND item.item_id = s.item_id
    OFFSET 0
  ) i
  ORDER BY s.stock_id`

// stock_pkey, item_pkey; ids are UUIDv7, so that their order is that of creation
const ofMerchant = stocksWhere("stock.stock_id > $3")

// stock_by_location, item_pkey
const atLocation = stocksWhere("stock.location_id = $5 AND stock.stock_id > $3")

const ofItem = (name: "product_variant_id" | "sku"): string => `${columns}
  FROM item i
  CROSS JOIN LATERAL (
    SELECT *
    FROM stock
    WHERE stock.merchant_id = i.merchant_id
      AND stock.item_id = i.item_id
      AND stock.stock_id > $3
      AND ($6 IS NULL OR stock.location_id = $6)
    OFFSET 0
  ) s
  WHERE i.merchant_id = $1
    AND i.${name} = $5
    AND ($7 IS NULL OR i.sku = $7)
  ORDER BY s.stock_id
  LIMIT $4`
// item_merchant_id_product_variant_id_key, stock_merchant_id_item_id_location_id_lot_number_key
const ofVariant = ofItem("product_variant_id")
// item_merchant_id_sku_key, stock_merchant_id_item_id_location_id_lot_number_key
const ofSku = ofItem("sku")

// stock_pkey, item_pkey
const withId = `${columns}
  FROM stock s
  JOIN item i ON i.merchant_id = s.merchant_id AND i.item_id = s.item_id
  WHERE s.merchant_id = $1 AND s.stock_id = $3`

interface StockRow {
  readonly stock_id: string
  readonly item_id: string
  readonly product_variant_id: string | null
  readonly sku: string | null
  readonly location_id: string
  readonly lot_number: string
  readonly lot_expires_at: number | null
  readonly on_hand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly sellable: number
  readonly discrepancy: boolean
  readonly sequence: number
  readonly created_at: number
  readonly updated_at: number
}

const stock = (row: StockRow): Stock => {
  const expiredQuantity = Math.max(0, row.on_hand - row.reserved - row.unallocatable) - row.sellable
  return {
    stockId: row.stock_id,
    itemId: row.item_id,
    productVariantId: row.product_variant_id,
    sku: row.sku,
    locationId: row.location_id,
    lotNumber: row.lot_number === "" ? null : row.lot_number,
    expiresAt: row.lot_expires_at,
    quantity: row.on_hand,
    reservedQuantity: row.reserved,
    unallocatableQuantity: row.unallocatable + expiredQuantity,
    expiredQuantity,
    availableQuantity: row.sellable,
    discrepancy: row.discrepancy,
    version: row.sequence,
    createdAt: row.created_at,
    updatedAt: row.updated_at
  }
}
