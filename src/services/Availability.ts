import { Clock, Context, Effect, Layer } from "effect"
import { type DatabaseUnavailable, ItemNotFound } from "../schema/Failure.ts"
import type { ItemStatus } from "../schema/Posting.ts"
import { Db } from "./Db.ts"
import { statusOf } from "./decide/Books.ts"
import { arrays, parameter } from "./PostgresTypes.ts"

/** One stock as it is shown: what a lot past its expiry still has free is shown as unallocatable. */
export interface StockView {
  readonly stockId: string
  readonly locationId: string
  readonly lotNumber: string | null
  readonly expiresAt: number | null
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  readonly availableQuantity: number
  readonly version: number
}

/** An item as it stands now. Times are epoch milliseconds. */
export interface ItemView {
  readonly itemId: string
  readonly productVariantId: string | null
  readonly sku: string | null
  readonly stocked: boolean
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  readonly availableQuantity: number
  readonly status: ItemStatus
  readonly updatedAt: number
  /** In the order in which they are taken: by location, first-expired-first-out. */
  readonly stocks: ReadonlyArray<StockView>
}

/** What can be sold, by the one formula of CONTRACTS section 1. Never from a cache. */
export class Availability extends Context.Service<
  Availability,
  {
    /** The items of these product variants, by variant id; an unknown one is missing. */
    readonly ofVariants: (
      merchantId: string,
      variantIds: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyMap<string, ItemView>, DatabaseUnavailable>
    readonly ofVariant: (
      merchantId: string,
      variantId: string
    ) => Effect.Effect<ItemView, ItemNotFound | DatabaseUnavailable>
    readonly ofSku: (
      merchantId: string,
      sku: string
    ) => Effect.Effect<ItemView, ItemNotFound | DatabaseUnavailable>
  }
>()("holdfast/services/Availability") {
  static readonly layer = Layer.effect(
    Availability,
    Effect.gen(function* () {
      const db = yield* Db

      const itemsBy = Effect.fnUntraced(function* (
        merchantId: string,
        statement: string,
        names: ReadonlyArray<string>
      ) {
        const now = yield* Clock.currentTimeMillis
        const rows = yield* db.read<ItemStockRow>(merchantId, statement, [
          parameter("text", merchantId),
          arrays.text(names),
          parameter("timestamptz", now)
        ])
        return [...Map.groupBy(rows, (row) => row.item_id).values()].map(itemView)
      })

      const ofVariants: Availability["Service"]["ofVariants"] = Effect.fn("Availability.ofVariants")(
        function* (merchantId, variantIds) {
          const items = yield* itemsBy(merchantId, byVariant, variantIds)
          return new Map(items.map((item) => [item.productVariantId!, item]))
        }
      )
      const ofVariant = Effect.fn("Availability.ofVariant")(function* (
        merchantId: string,
        variantId: string
      ) {
        const [item] = yield* itemsBy(merchantId, byVariant, [variantId])
        return item ?? (yield* new ItemNotFound({ items: [variantId] }))
      })
      const ofSku = Effect.fn("Availability.ofSku")(function* (merchantId: string, sku: string) {
        const [item] = yield* itemsBy(merchantId, bySku, [sku])
        return item ?? (yield* new ItemNotFound({ items: [sku] }))
      })
      return Availability.of({ ofVariants, ofVariant, ofSku })
    })
  )
}

interface ItemStockRow {
  readonly item_id: string
  readonly product_variant_id: string | null
  readonly sku: string | null
  readonly stocked: boolean
  readonly low_stock_threshold: number
  readonly discontinued: boolean
  readonly initialized: boolean
  readonly item_updated_at: number
  readonly stock_id: string | null
  readonly location_id: string
  readonly lot_number: string
  readonly lot_expires_at: number | null
  readonly on_hand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly sellable: number
  readonly version: number
}

const itemsWith = (name: "product_variant_id" | "sku"): string => `
  SELECT i.item_id, i.product_variant_id, i.sku, i.stocked, i.low_stock_threshold, i.discontinued, i.initialized,
         i.updated_at AS item_updated_at, s.stock_id, s.location_id, s.lot_number, s.lot_expires_at, s.on_hand,
         s.reserved, s.unallocatable,
         holdfast_sellable(s.on_hand, s.reserved, s.unallocatable, s.lot_expires_at, $3) AS sellable,
         s.sequence AS version
  FROM unnest($2) AS wanted (name)
  JOIN item i ON i.merchant_id = $1 AND i.${name} = wanted.name AND i.deleted_at IS NULL
  LEFT JOIN stock s ON s.merchant_id = i.merchant_id AND s.item_id = i.item_id
  LEFT JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id
  ORDER BY i.item_id, l.is_default DESC, l.position, s.lot_expires_at NULLS LAST, s.created_at, s.stock_id`

// item_merchant_id_product_variant_id_key, stock_merchant_id_item_id_location_id_lot_number_key
const byVariant = itemsWith("product_variant_id")
// item_merchant_id_sku_key
const bySku = itemsWith("sku")

const itemView = (rows: ReadonlyArray<ItemStockRow>): ItemView => {
  const item = rows[0]!
  const stocks = rows.filter((row) => row.stock_id !== null).map(stockView)
  const sum = (of: (stock: StockView) => number): number =>
    stocks.reduce((total, stock) => total + of(stock), 0)
  const availableQuantity = sum((stock) => stock.availableQuantity)
  return {
    itemId: item.item_id,
    productVariantId: item.product_variant_id,
    sku: item.sku,
    stocked: item.stocked,
    quantity: sum((stock) => stock.quantity),
    reservedQuantity: sum((stock) => stock.reservedQuantity),
    unallocatableQuantity: sum((stock) => stock.unallocatableQuantity),
    availableQuantity,
    status: statusOf(
      {
        discontinued: item.discontinued,
        initialized: item.initialized,
        lowStockThreshold: item.low_stock_threshold
      },
      availableQuantity
    ),
    updatedAt: item.item_updated_at,
    stocks
  }
}

const stockView = (row: ItemStockRow): StockView => {
  const free = Math.max(0, row.on_hand - row.reserved - row.unallocatable)
  return {
    stockId: row.stock_id!,
    locationId: row.location_id,
    lotNumber: row.lot_number === "" ? null : row.lot_number,
    expiresAt: row.lot_expires_at,
    quantity: row.on_hand,
    reservedQuantity: row.reserved,
    unallocatableQuantity: row.unallocatable + (free - row.sellable),
    availableQuantity: row.sellable,
    version: row.version
  }
}
