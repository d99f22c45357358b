import { Effect, type Redacted } from "effect"
import { migrate } from "../../src/layers/Migrations.ts"
import { execute } from "./Database.ts"

/** The books that a benchmark begins with: merchants with items `variant-1` … that no run can empty. */
export interface SeededMerchant {
  readonly merchantId: string
  readonly items: number
}

export const onHand = 1_000_000_000_000

/** Ids that can be counted to, in the order of their making as a UUIDv7 would be. */
export const idOf = (kind: "item" | "stock", number: string): string =>
  `CAST('00000000-0000-7000-${kind === "item" ? "8000" : "9000"}-' || lpad(to_hex(${number}), 12, '0') AS uuid)`

export const seed = Effect.fnUntraced(function* (
  url: Redacted.Redacted<string>,
  merchants: ReadonlyArray<SeededMerchant>
) {
  yield* migrate(url)
  const wanted = merchants.map(({ items, merchantId }) => `('${merchantId}', ${items})`).join(", ")
  yield* execute(
    url,
    `CREATE TABLE bench_merchant AS
     SELECT merchant_id, items, sum(items) OVER (ORDER BY merchant_id) - items AS first
     FROM (VALUES ${wanted}) AS wanted (merchant_id, items)`,
    `INSERT INTO merchant SELECT merchant_id, now() FROM bench_merchant`,
    `INSERT INTO location (merchant_id, location_id, is_default, position, created_at)
     SELECT merchant_id, 'default', true, 0, now() FROM bench_merchant`,
    `INSERT INTO item (merchant_id, item_id, kind, product_variant_id, sku, name, initialized, status, on_hand,
       event_sequence, created_at, updated_at)
     SELECT merchant_id, ${idOf("item", "first::bigint + n")}, 'PRODUCT', 'variant-' || n, 'SKU-' || n, 'Item ' || n, true,
            'IN_STOCK', ${onHand}, 1, now(), now()
     FROM bench_merchant, generate_series(1, items) AS n`,
    `INSERT INTO stock (merchant_id, stock_id, item_id, location_id, on_hand, sequence, created_at, updated_at)
     SELECT merchant_id, ${idOf("stock", "first::bigint + n")}, ${idOf("item", "first::bigint + n")}, 'default', ${onHand}, 1,
            now(), now()
     FROM bench_merchant, generate_series(1, items) AS n`,
    `SELECT holdfast_ensure_partition('inventory_ledger', CAST(now() AS date)),
            holdfast_ensure_partition('outbox', CAST(now() AS date))`,
    `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta,
       reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor)
     SELECT merchant_id, stock_id, updated_at, 1, item_id, 'RECEIPT', on_hand, 0, 0, on_hand, 0, 0, 'BENCH', stock_id,
            'bench'
     FROM stock`,
    `VACUUM ANALYZE`
  )
})
