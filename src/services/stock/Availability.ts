import { Clock, Context, Effect, Layer } from "effect"
import {
  type DatabaseUnavailable,
  HistoryNotKept,
  ItemNotFound,
  MomentInFuture
} from "../../schema/Failure.ts"
import { Db } from "../Db.ts"
import { statusOf } from "../../schema/Item.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ItemRow, items } from "../kernel/tables/catalog.ts"
import { type StockRow, stocks } from "../kernel/tables/stock.ts"
import {
  expiredIn,
  isOnSale,
  sellable,
  sellableAt,
  sellableOf,
  type StockBalance
} from "../kernel/figures.ts"
import { lotInSql } from "../kernel/figuresInSql.ts"

/** One stock as it is shown: what a lot past its expiry still has free is shown as unallocatable. */
export interface StockView extends Pick<StockRow, "stockId" | "locationId"> {
  readonly lotNumber: string | null
  readonly expiresAt: number | null
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  readonly availableQuantity: number
  readonly version: number
}

/** An item as it stands now. Times are epoch milliseconds. */
export interface ItemView extends Pick<ItemRow, (typeof itemFields)[number] | "status" | "updatedAt"> {
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  /**
   * What can be sold of the item. Less than the sum of its stocks where more was sold of one than it has, and nothing of an
   * item that is discontinued.
   */
  readonly availableQuantity: number
  /** In the order in which they are taken: by location, first-expired-first-out. */
  readonly stocks: ReadonlyArray<StockView>
  /** Its stocks by location, in the same order. */
  readonly locations: ReadonlyArray<LocationView>
}

/** What an item has at one location. */
export interface LocationView {
  readonly locationId: string
  readonly quantity: number
  readonly reservedQuantity: number
  /** What can be sold there: no more than of the whole item. */
  readonly availableQuantity: number
  readonly stocks: ReadonlyArray<StockView>
}
const itemFields = ["itemId", "productVariantId", "sku", "stocked"] as const satisfies ReadonlyArray<
  keyof ItemRow
>

/**
 * An item's balances as they were recorded at a moment. Threshold and discontinuation are not recorded over time, and so
 * there is no status.
 */
export interface ItemThen extends Omit<ItemView, "status" | "updatedAt"> {
  /** When the newest movement of then was recorded; null if none had been. */
  readonly updatedAt: number | null
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
    /**
     * The same as it was recorded at a moment (epoch milliseconds), movements of that very millisecond included, also of
     * items that were deleted since. What had not been recorded by then is 0, and a lot's expiry is judged at that
     * moment. Movements are recorded with the time of their request: those of the last seconds may still be on their way.
     */
    readonly ofVariantsAt: (
      merchantId: string,
      variantIds: ReadonlyArray<string>,
      at: number
    ) => Effect.Effect<ReadonlyMap<string, ItemThen>, HistoryNotKept | MomentInFuture | DatabaseUnavailable>
    /** The same by our ids of the items. */
    readonly ofItemsAt: (
      merchantId: string,
      itemIds: ReadonlyArray<string>,
      at: number
    ) => Effect.Effect<ReadonlyMap<string, ItemThen>, HistoryNotKept | MomentInFuture | DatabaseUnavailable>
    readonly ofVariantAt: (
      merchantId: string,
      variantId: string,
      at: number
    ) => Effect.Effect<ItemThen, HistoryNotKept | ItemNotFound | MomentInFuture | DatabaseUnavailable>
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
          arrays.text(names)
        ])
        return [...Map.groupBy(rows, (row) => row.itemId).values()].map((ofItem) => itemView(ofItem, now))
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

      const itemsThen = Effect.fnUntraced(function* (
        merchantId: string,
        statement: string,
        names: unknown,
        at: number
      ) {
        const now = yield* Clock.currentTimeMillis
        const moment = new Date(at).toISOString()
        if (at > now + clocksDifferMs) return yield* new MomentInFuture({ at: moment })
        const rows = yield* db.read<ItemStockThenRow>(merchantId, statement, [
          parameter("text", merchantId),
          names,
          parameter("timestamptz", at)
        ])
        const lost = rows.filter(({ isLost }) => isLost)
        if (lost.length > 0) {
          return yield* new HistoryNotKept({ at: moment, stockIds: lost.map(({ stockId }) => stockId!) })
        }
        return [...Map.groupBy(rows, (row) => row.itemId).values()].map((ofItem) => itemThen(ofItem, at))
      })

      const ofVariantsAt: Availability["Service"]["ofVariantsAt"] = Effect.fn("Availability.ofVariantsAt")(
        function* (merchantId, variantIds, at) {
          const items = yield* itemsThen(merchantId, byVariantAt, arrays.text(variantIds), at)
          return new Map(items.map((item) => [item.productVariantId!, item]))
        }
      )
      const ofItemsAt: Availability["Service"]["ofItemsAt"] = Effect.fn("Availability.ofItemsAt")(
        function* (merchantId, itemIds, at) {
          const items = yield* itemsThen(merchantId, byItemAt, arrays.uuid(itemIds), at)
          return new Map(items.map((item) => [item.itemId, item]))
        }
      )
      const ofVariantAt: Availability["Service"]["ofVariantAt"] = Effect.fn("Availability.ofVariantAt")(
        function* (merchantId, variantId, at) {
          const item = (yield* ofVariantsAt(merchantId, [variantId], at)).get(variantId)
          return item ?? (yield* new ItemNotFound({ items: [variantId] }))
        }
      )
      return Availability.of({ ofVariants, ofVariant, ofVariantsAt, ofItemsAt, ofVariantAt, ofSku })
    })
  )
}

/** Replicas follow one clock within milliseconds: no time that one has written is refused by another. */
const clocksDifferMs = 1_000

/** An item beside one of its stocks, if it has any. */
interface FiguresRow
  extends Pick<ItemRow, (typeof itemFields)[number]>, StockBalance, Pick<StockView, "lotNumber" | "version"> {
  readonly stockId: string | null
}
const figuresInSql = `${fieldsInSql(items, "i", itemFields)},
         ${fieldsInSql(stocks, "s", ["stockId", "locationId", "lotExpiresAt", "onHand", "reserved", "unallocatable"])},
         ${lotInSql("s")} AS "lotNumber", s.sequence AS version`

const statusFields = [
  "lowStockThreshold",
  "discontinued",
  "deletedAt",
  "initialized",
  "updatedAt"
] as const satisfies ReadonlyArray<keyof ItemRow>
type ItemStockRow = FiguresRow & Pick<ItemRow, (typeof statusFields)[number]>

interface ItemStockThenRow extends FiguresRow {
  readonly recordedAt: number | null
  /** The stock was there, and what moved it has been removed by age. */
  readonly isLost: boolean
}

/** OFFSET 0 has each item and its stocks looked up, however small the tables seemed when the plan was made. */
const itemsWith = (name: "product_variant_id" | "sku"): string => `
  SELECT ${figuresInSql}, COALESCE(l.retired, false) AS "locationRetired", ${fieldsInSql(items, "i", statusFields)}
  FROM unnest($2) AS wanted (name)
  CROSS JOIN LATERAL (
    SELECT *
    FROM item
    WHERE item.merchant_id = $1 AND item.${name} = wanted.name AND item.deleted_at IS NULL
    OFFSET 0
  ) i
  LEFT JOIN LATERAL (
    SELECT *
    FROM stock
    WHERE stock.merchant_id = i.merchant_id AND stock.item_id = i.item_id
    OFFSET 0
  ) s ON true
  LEFT JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id
  ORDER BY i.item_id, l.is_default DESC, l.position, s.lot_expires_at NULLS LAST, s.created_at, s.stock_id`

// item_merchant_id_product_variant_id_key, stock_merchant_id_item_id_location_id_lot_number_key
const byVariant = itemsWith("product_variant_id")
// item_merchant_id_sku_key
const bySku = itemsWith("sku")

/**
 * Each stock by the newest of its movements at the moment; where retention took those away, by the balance that it left
 * (or that a person acknowledged). A stock that came later has neither, and is not shown. OFFSET 0 has the stocks of an
 * item looked up, however small the tables seemed when the plan was made.
 */
const itemsThenWith = (name: "product_variant_id" | "item_id"): string => `
  SELECT ${figuresInSql}, COALESCE(s.retired, false) AS "locationRetired", s.recorded_at AS "recordedAt", COALESCE(s.is_lost, false) AS "isLost"
  FROM unnest($2) AS wanted (name)
  CROSS JOIN LATERAL (
    SELECT *
    FROM item
    WHERE item.merchant_id = $1 AND item.${name} = wanted.name
    OFFSET 0
  ) i
  LEFT JOIN LATERAL (
    SELECT stock.stock_id, stock.location_id, stock.lot_number, stock.lot_expires_at, stock.created_at,
           l.is_default, l.position, l.retired,
           COALESCE(recorded.on_hand, 0) AS on_hand, COALESCE(recorded.reserved, 0) AS reserved,
           COALESCE(recorded.unallocatable, 0) AS unallocatable, COALESCE(recorded.sequence, 0) AS sequence,
           recorded.recorded_at,
           -- Months are detached oldest first: what is not in the ledger was at most in the month that a later closing
           -- balance ends, and how it stood inside that month is not known any more.
           NOT COALESCE(recorded.in_ledger, false) AND stock.created_at <= $3 AND EXISTS (
             SELECT
             FROM ledger_checkpoint c
             WHERE c.merchant_id = stock.merchant_id
               AND c.stock_id = stock.stock_id
               AND c.recorded_at > $3
               AND date_trunc('month', c.recorded_at, 'UTC') <= $3
           ) AS is_lost
    FROM stock
    JOIN location l ON l.merchant_id = stock.merchant_id AND l.location_id = stock.location_id
    LEFT JOIN LATERAL (
      SELECT known.*, bool_or(known.rank = 0) OVER () AS in_ledger
      FROM (
        (
          SELECT m.sequence, m.recorded_at, m.on_hand, m.reserved, m.unallocatable, 0 AS rank
          FROM inventory_ledger m
          WHERE m.merchant_id = stock.merchant_id AND m.stock_id = stock.stock_id AND m.recorded_at <= $3
          ORDER BY m.recorded_at DESC, m.sequence DESC
          LIMIT 1
        )
        UNION ALL
        (
          SELECT c.sequence, c.recorded_at, c.on_hand, c.reserved, c.unallocatable, 1 AS rank
          FROM ledger_checkpoint c
          WHERE c.merchant_id = stock.merchant_id AND c.stock_id = stock.stock_id AND c.recorded_at <= $3
          ORDER BY c.sequence DESC
          LIMIT 1
        )
      ) known
      ORDER BY known.sequence DESC, known.rank DESC
      LIMIT 1
    ) recorded ON true
    WHERE stock.merchant_id = i.merchant_id
      AND stock.item_id = i.item_id
      AND (recorded.sequence IS NOT NULL OR stock.created_at <= $3)
    OFFSET 0
  ) s ON true
  ORDER BY i.item_id, s.is_default DESC, s.position, s.lot_expires_at NULLS LAST, s.created_at, s.stock_id`

// item_merchant_id_product_variant_id_key, stock_merchant_id_item_id_location_id_lot_number_key, inventory_ledger_pkey,
// ledger_checkpoint_pkey
const byVariantAt = itemsThenWith("product_variant_id")
// item_pkey, and the same
const byItemAt = itemsThenWith("item_id")

const itemView = (rows: ReadonlyArray<ItemStockRow>, at: number): ItemView => {
  const item = rows[0]!
  const figures = figuresOf(rows, item, at)
  return { ...figures, status: statusOf(item, figures.availableQuantity), updatedAt: item.updatedAt }
}

/** Whether it was discontinued then is not recorded: what could be sold is told as of an item on sale. */
const onSale = { discontinued: false, deletedAt: null }
const itemThen = (rows: ReadonlyArray<ItemStockThenRow>, at: number): ItemThen => ({
  ...figuresOf(rows, onSale, at),
  updatedAt: rows.reduce<number | null>(
    (newest, { recordedAt }) =>
      recordedAt === null || (newest !== null && newest >= recordedAt) ? newest : recordedAt,
    null
  )
})

const figuresOf = (
  rows: ReadonlyArray<FiguresRow>,
  sold: Pick<ItemRow, "discontinued" | "deletedAt">,
  at: number
): Omit<ItemView, "status" | "updatedAt"> => {
  const { itemId, productVariantId, sku, stocked } = rows[0]!
  // An item without stocks is a row without one.
  const balances = rows[0]!.stockId === null ? [] : rows
  const views = balances.map((row) => stockViewOf(row, sold, at))
  return {
    itemId,
    productVariantId,
    sku,
    stocked,
    quantity: sumOf(views, "quantity"),
    reservedQuantity: sumOf(views, "reservedQuantity"),
    unallocatableQuantity: sumOf(views, "unallocatableQuantity"),
    availableQuantity: sellableOf(sold, balances, at),
    stocks: views,
    locations: [...Map.groupBy(views, ({ locationId }) => locationId)].map(([locationId, there]) => ({
      locationId,
      quantity: sumOf(there, "quantity"),
      reservedQuantity: sumOf(there, "reservedQuantity"),
      availableQuantity: sellableAt(sold, balances, locationId, at),
      stocks: there
    }))
  }
}

const sumOf = (
  views: ReadonlyArray<StockView>,
  figure: "quantity" | "reservedQuantity" | "unallocatableQuantity"
): number => views.reduce((sum, view) => sum + view[figure], 0)

const stockViewOf = (
  row: FiguresRow,
  sold: Pick<ItemRow, "discontinued" | "deletedAt">,
  at: number
): StockView => ({
  stockId: row.stockId!,
  locationId: row.locationId,
  lotNumber: row.lotNumber,
  expiresAt: row.lotExpiresAt,
  quantity: row.onHand,
  reservedQuantity: row.reserved,
  unallocatableQuantity: row.unallocatable + expiredIn(row, at),
  availableQuantity: isOnSale(sold) ? sellable(row, at) : 0,
  version: row.version
})
