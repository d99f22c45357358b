import { Effect, type Redacted } from "effect"
import { migrate } from "../../src/layers/Migrations.ts"
import { execute } from "./Database.ts"
import { idOf, onHand } from "./Seed.ts"

/** A UUIDv7 says when a posting was made, and audit looks. */
const posting = (at: string): string =>
  `CAST(lpad(to_hex(CAST(EXTRACT(epoch FROM ${at}) * 1000 AS bigint)), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0') AS uuid)`

/**
 * Books of one merchant, `history`, that have grown: every item was received again and again over the months, and its
 * events were sent and removed long ago. Written set by set in the order of the ledger's key, about 100,000 movements
 * a second; `holdfast audit` finds nothing wrong with them.
 */
export const seedHistory = Effect.fnUntraced(function* (
  url: Redacted.Redacted<string>,
  { items, movements }: { readonly items: number; readonly movements: number }
) {
  yield* migrate(url)
  const days = (movement: number): string => `interval '${(movements - movement) * 25 + 1} days'`
  const item = idOf("item", "n")
  const stock = idOf("stock", "n")
  const first = onHand - (movements - 1)
  yield* execute(
    url,
    `INSERT INTO merchant SELECT 'history', now()`,
    `INSERT INTO location (merchant_id, location_id, is_default, position, created_at)
     SELECT 'history', 'default', true, 0, now() - ${days(1)}`,
    `INSERT INTO item (merchant_id, item_id, kind, product_variant_id, sku, name, initialized, status, on_hand,
       event_sequence, created_at, updated_at)
     SELECT 'history', ${item}, 'PRODUCT', 'variant-' || n, 'SKU-' || n, 'Item ' || n, true, 'IN_STOCK', ${onHand},
            ${movements}, now() - ${days(1)}, now() - ${days(movements)}
     FROM generate_series(1, ${items}) AS n`,
    `INSERT INTO stock (merchant_id, stock_id, item_id, location_id, on_hand, sequence, created_at, updated_at)
     SELECT 'history', ${stock}, ${item}, 'default', ${onHand}, ${movements}, now() - ${days(1)}, now() - ${days(movements)}
     FROM generate_series(1, ${items}) AS n`
  )
  for (let movement = 1; movement <= movements; movement++) {
    const balance = first + movement - 1
    const at = `CAST(now() AS date) - ${days(movement)}`
    yield* execute(
      url,
      `SELECT holdfast_ensure_partition('inventory_ledger', CAST(now() - ${days(movement)} AS date))`,
      `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta,
         reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor)
       SELECT 'history', ${stock}, ${at}, ${movement}, ${item}, 'RECEIPT',
              ${movement === 1 ? first : 1}, 0, 0, ${balance}, 0, 0, 'MANUAL_ADJUSTMENT', ${posting(at)}, 'bench'
       FROM generate_series(1, ${items}) AS n`
    )
  }
  yield* execute(
    url,
    `INSERT INTO retention_mark (table_name, kept_since) VALUES ('outbox', now()), ('tracking', now())`,
    `SELECT holdfast_ensure_partition(parent, CAST(now() AS date))
     FROM (VALUES ('inventory_ledger'), ('outbox')) AS tables (parent)`,
    `VACUUM ANALYZE`
  )
})
