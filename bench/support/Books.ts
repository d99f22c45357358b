import { Effect, type Redacted } from "effect"
import { bucketOf } from "../../src/services/OutboxBuckets.ts"
import { execute } from "./Database.ts"

export const movementsPerStock = 100

const uuid = (time: string, kind: string, number: string): string =>
  `CAST(substr(${time}, 1, 8) || '-' || substr(${time}, 9, 4) || '-7000-${kind}-' || lpad(to_hex(${number}), 12, '0') AS uuid)`
const idOf = (kind: "8001" | "8002", n: number): string =>
  `00000000-0000-7000-${kind}-${n.toString(16).padStart(12, "0")}`

/** The receipt has two events, each reservation one and each sale two. */
const eventSequence = (k: string, part: string): string =>
  `${part} + CASE WHEN ${k} = 1 THEN 0 WHEN ${k} % 2 = 0 THEN 3 * (${k} / 2) - 1 ELSE 3 * (${k} / 2) END`

/** An event of a movement, byte for byte as the kernel writes it: what was moved, and after it the change of quantity. */
const eventText = `
  '{"id":"' || m.posting_id || '.' || part || '","topic":"inventory.events","key":"' || m.item_id || '","type":"'
  || CASE WHEN part = 2 THEN 'StockLevelChanged' WHEN m.k % 2 = 0 THEN 'InventoryAllocated' ELSE 'InventoryAdjusted' END
  || '","data":{"merchantId":"bench","itemId":"' || m.item_id || '","productVariantId":"variant-' || m.n || '","sku":null,'
  || CASE WHEN part = 2 THEN ''
          ELSE COALESCE('"orderId":"' || m.order_id || '","reservationId":"' || m.reservation_id || '",', '')
            || '"movements":[{"stockId":"' || m.stock_id || '","locationId":"default","lotNumber":null,"type":"'
            || CASE WHEN m.k = 1 THEN 'RECEIPT' WHEN m.k % 2 = 0 THEN 'ORDER_ALLOCATE' ELSE 'SALE' END
            || '","onHandDelta":' || CASE WHEN m.k = 1 THEN 1000000 WHEN m.k % 2 = 0 THEN 0 ELSE -1 END
            || ',"reservedDelta":' || CASE WHEN m.k = 1 THEN 0 WHEN m.k % 2 = 0 THEN 1 ELSE -1 END
            || ',"unallocatableDelta":0}],'
     END
  || '"quantity":1000000,"reservedQuantity":1,"availableQuantity":999999,'
  || CASE WHEN part = 2 THEN '"changeType":"' || CASE WHEN m.k = 1 THEN 'RECEIPT' ELSE 'SALE' END
            || '","quantityBefore":1000001,"quantityAfter":1000000,'
          ELSE '' END
  || '"sequence":' || ${eventSequence("m.k", "part")}
  || '},"merchantId":"bench","at":' || CAST(extract(epoch FROM m.at) * 1000 AS bigint)
  || ',"requestId":"' || m.posting_id || '"}'`

/**
 * Books that hold, as the kernel would have written them: each stock received once, then reserved and sold in turn; the
 * last reservation is open. Movement k of item n is of posting n * 1000 + k, a second after the one before it.
 */
export const seedBooks = Effect.fnUntraced(function* (url: Redacted.Redacted<string>, items: number) {
  const numbers = Array.from({ length: items }, (_, index) => index + 1)
  const wanted = numbers.map(
    (n) => `(${n}, '${idOf("8001", n)}'::uuid, '${idOf("8002", n)}'::uuid, ${bucketOf(idOf("8001", n))})`
  )
  const time = `lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0')`
  const held = `CASE WHEN k % 2 = 0 THEN 1 ELSE 0 END`
  const sold = `(k - 1) / 2`
  yield* execute(
    url,
    `INSERT INTO merchant VALUES ('bench', now())`,
    `INSERT INTO location (merchant_id, location_id, is_default, position, created_at) VALUES ('bench', 'default', true, 0, now())`,
    `CREATE TABLE bench_item (n bigint, item_id uuid, stock_id uuid, bucket smallint)`,
    ...Array.from(
      { length: Math.ceil(items / 1000) },
      (_, index) =>
        `INSERT INTO bench_item VALUES ${wanted.slice(index * 1000, (index + 1) * 1000).join(", ")}`
    ),
    `CREATE TABLE bench_movement AS
     SELECT n, k, item_id, stock_id, bucket, at, ${uuid(time, "9000", "n * 1000 + k")} AS posting_id,
            -- A sale is of the reservation that was made just before it.
            CASE WHEN k = 1 THEN NULL
                 WHEN k % 2 = 0 THEN ${uuid(time, "9000", "n * 1000 + k")}
                 ELSE ${uuid(time.replaceAll("at)", "at - interval '1 second')"), "9000", "n * 1000 + k - 1")}
            END AS reservation_id,
            CASE WHEN k = 1 THEN NULL ELSE 'order-' || n || '-' || k / 2 END AS order_id
     FROM (
       SELECT *, date_trunc('milliseconds', now()) - interval '10 minutes' + k * interval '1 second' AS at
       FROM bench_item, generate_series(1, ${movementsPerStock}) AS k
     ) movements`,
    `SELECT holdfast_ensure_partition('inventory_ledger', CAST(now() AS date)),
            holdfast_ensure_partition('outbox', CAST(now() AS date))`,
    `INSERT INTO item (merchant_id, item_id, kind, product_variant_id, initialized, status, on_hand, reserved,
       event_sequence, created_at, updated_at)
     SELECT 'bench', item_id, 'PRODUCT', 'variant-' || n, true, 'IN_STOCK', 1000000 - 49, 1, 2 + 50 + 49 * 2, now(), now()
     FROM bench_item`,
    `INSERT INTO stock (merchant_id, stock_id, item_id, location_id, on_hand, reserved, sequence, created_at, updated_at)
     SELECT 'bench', stock_id, item_id, 'default', 1000000 - 49, 1, ${movementsPerStock}, at, at
     FROM bench_movement WHERE k = ${movementsPerStock}`,
    `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta,
       reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor, order_id,
       reservation_id, event_sequence)
     SELECT 'bench', stock_id, at, k, item_id,
            CASE WHEN k = 1 THEN 'RECEIPT' WHEN k % 2 = 0 THEN 'ORDER_ALLOCATE' ELSE 'SALE' END,
            CASE WHEN k = 1 THEN 1000000 WHEN k % 2 = 0 THEN 0 ELSE -1 END,
            CASE WHEN k = 1 THEN 0 WHEN k % 2 = 0 THEN 1 ELSE -1 END, 0,
            1000000 - ${sold}, ${held}, 0, 'ORDER', posting_id, 'bench', order_id, reservation_id,
            ${eventSequence("k", "1")}
     FROM bench_movement`,
    `INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, status, request, expires_at, created_at,
       updated_at)
     SELECT 'bench', reservation_id, order_id, 'ORDER', CASE WHEN k = ${movementsPerStock} THEN 'PENDING' ELSE 'CONFIRMED' END,
            format('[["%s",1,null]]', item_id), now() + interval '1 day', at, at
     FROM bench_movement WHERE k % 2 = 0`,
    `INSERT INTO reservation_line (merchant_id, reservation_id, line_number, item_id, stock_id, quantity, open, sold)
     SELECT 'bench', reservation_id, 1, item_id, stock_id, 1,
            CASE WHEN k = ${movementsPerStock} THEN 1 ELSE 0 END, CASE WHEN k = ${movementsPerStock} THEN 0 ELSE 1 END
     FROM bench_movement WHERE k % 2 = 0`,
    `INSERT INTO tracking (merchant_id, tracking_key, posting_id, recorded_at)
     SELECT 'bench', 'POSTING|' || posting_id, posting_id, at FROM bench_movement WHERE k % 2 = 1`,
    `INSERT INTO outbox (bucket, recorded_at, events, event_count, sent_at)
     SELECT bucket, max(at), '[' || string_agg(event, ',' ORDER BY n, part) || ']', count(*), now()
     FROM (SELECT m.bucket, m.at, m.n, m.k, part, ${eventText} AS event
           FROM bench_movement m
           CROSS JOIN generate_series(1, CASE WHEN m.k % 2 = 0 THEN 1 ELSE 2 END) AS part) events
     GROUP BY bucket, k, n / 100
     ORDER BY k`,
    `DROP TABLE bench_item, bench_movement`,
    `VACUUM ANALYZE`
  )
})
