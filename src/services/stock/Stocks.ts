import { Clock, Context, Effect, Layer, identity } from "effect"
import { type DatabaseUnavailable, StockNotFound } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ItemRow, items } from "../kernel/tables/catalog.ts"
import { type StockRow, stocks } from "../kernel/tables/stock.ts"
import { expiredInSql, isOnSaleInSql, lotInSql, sellableInSql } from "../kernel/figuresInSql.ts"

/**
 * One stock: the balance of one item, at one location, in one lot. `quantity`, `reservedQuantity` and
 * `unallocatableQuantity − expiredQuantity` are the sums of its movements' deltas. Times are epoch milliseconds.
 */
export interface Stock
  extends
    Pick<StockRow, "stockId" | "itemId" | "locationId" | "discrepancy" | "createdAt" | "updatedAt">,
    Pick<ItemRow, "productVariantId" | "sku"> {
  readonly lotNumber: string | null
  readonly expiresAt: number | null
  readonly quantity: number
  readonly reservedQuantity: number
  /** Damaged, quarantined, or free in a lot past its expiry. */
  readonly unallocatableQuantity: number
  /** The part of it that was sellable until the lot expired: no movement speaks of it. */
  readonly expiredQuantity: number
  readonly availableQuantity: number
  /** The number of its last movement, which compare-and-set speaks of. */
  readonly version: number
}

export interface StockFilter {
  readonly productVariantId?: string | undefined
  readonly sku?: string | undefined
  readonly locationId?: string | undefined
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

const beginningOfTime = Date.UTC(1900, 0, 1)
const endOfTime = Date.UTC(9999, 11, 31)

/** The stocks behind the figures of items. Never from a cache. */
export class Stocks extends Context.Service<
  Stocks,
  {
    /** In the order of their creation. */
    readonly list: (
      merchantId: string,
      filter: StockFilter
    ) => Effect.Effect<Page<Stock>, InvalidCursor | DatabaseUnavailable>
    /** Those of lots that expire before a time or have expired, and of which there is anything: the soonest first. */
    readonly expiring: (
      merchantId: string,
      filter: {
        /** Epoch milliseconds, exclusive. */
        readonly expiresBefore?: number | undefined
        readonly locationId?: string | undefined
        readonly limit?: number | undefined
        readonly cursor?: string | undefined
      }
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
        const rows = yield* db.read<Stock>(merchantId, statement, [
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
        return pageOf(rows, limit, identity, ({ stockId }) => [stockId])
      })

      const expiringOf: Stocks["Service"]["expiring"] = Effect.fn("Stocks.expiring")(function* (
        merchantId,
        { cursor, expiresBefore, limit = defaultLimit, locationId }
      ) {
        const after = yield* positionOf(cursor, ["time", "uuid"])
        const rows = yield* db.read<Stock>(merchantId, expiring, [
          parameter("text", merchantId),
          parameter("timestamptz", yield* Clock.currentTimeMillis),
          parameter("uuid", after?.[1] ?? nilUuid),
          parameter("int4", limit + 1),
          parameter("timestamptz", expiresBefore ?? endOfTime),
          parameter("timestamptz", after?.[0] ?? beginningOfTime),
          parameter("text", locationId ?? null)
        ])
        return pageOf(rows, limit, identity, ({ expiresAt, stockId }) => [expiresAt!, stockId])
      })

      const byId: Stocks["Service"]["byId"] = Effect.fn("Stocks.byId")(function* (merchantId, stockId) {
        const [stock] = yield* db.read<Stock>(merchantId, withId, [
          parameter("text", merchantId),
          parameter("timestamptz", yield* Clock.currentTimeMillis),
          parameter("uuid", stockId)
        ])
        return stock ?? (yield* new StockNotFound({ item: stockId }))
      })

      return Stocks.of({ list, expiring: expiringOf, byId })
    })
  )
}

const columns = `
  SELECT ${fieldsInSql(stocks, "s", ["stockId", "itemId"])},
         ${fieldsInSql(items, "i", ["productVariantId", "sku"])},
         ${fieldsInSql(stocks, "s", ["locationId"])}, ${lotInSql("s")} AS "lotNumber",
         s.lot_expires_at AS "expiresAt", s.on_hand AS quantity, s.reserved AS "reservedQuantity",
         s.unallocatable + ${expiredInSql("s", "$2")} AS "unallocatableQuantity",
         ${expiredInSql("s", "$2")} AS "expiredQuantity",
         CASE WHEN ${isOnSaleInSql("i")} THEN ${sellableInSql("s", "l", "$2")} ELSE 0 END AS "availableQuantity",
         s.discrepancy, s.sequence AS version, ${fieldsInSql(stocks, "s", ["createdAt", "updatedAt"])}`

// location_pkey
const itsLocation = `CROSS JOIN LATERAL (
    SELECT location.retired
    FROM location
    WHERE location.merchant_id = s.merchant_id AND location.location_id = s.location_id
    OFFSET 0
  ) l`

/** The stocks first and their items by look-ups (OFFSET 0), however small the tables seemed when the plan was made. */
const stocksWhere = (condition: string, order = "s.stock_id"): string => `${columns}
  FROM (
    SELECT *
    FROM stock s
    WHERE s.merchant_id = $1 AND ${condition}
    ORDER BY ${order}
    LIMIT $4
  ) s
  CROSS JOIN LATERAL (
    SELECT item.product_variant_id, item.sku, item.discontinued, item.deleted_at
    FROM item
    WHERE item.merchant_id = s.merchant_id AND item.item_id = s.item_id
    OFFSET 0
  ) i
  ${itsLocation}
  ORDER BY ${order}`

// stock_pkey, item_pkey; ids are UUIDv7, so that their order is that of creation
const ofMerchant = stocksWhere("s.stock_id > $3")

// stock_by_location, item_pkey
const atLocation = stocksWhere("s.location_id = $5 AND s.stock_id > $3")

// stock_by_expiry, item_pkey
const expiring = stocksWhere(
  `s.lot_expires_at < $5
      AND (s.lot_expires_at, s.stock_id) > ($6, $3)
      AND (s.on_hand <> 0 OR s.reserved <> 0)
      AND ($7 IS NULL OR s.location_id = $7)`,
  "s.lot_expires_at, s.stock_id"
)

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
  ${itsLocation}
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
  ${itsLocation}
  WHERE s.merchant_id = $1 AND s.stock_id = $3`
