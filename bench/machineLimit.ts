import { idOf } from "./support/Seed.ts"
import type { Script } from "./support/Script.ts"

/**
 * What this machine's PostgreSQL can take: one connection that writes the rows of 256 reservations a transaction, into
 * the service's own tables, with the values made by the server and nothing asked, locked, decided or answered.
 */
export const reservationsPerBatch = 256

const buckets = 4

/** Groups of events as the service writes them, made beforehand. */
export const machineLimitTables = (merchantId: string): ReadonlyArray<string> => {
  const event = `json_build_object(
      'id', '00000000-0000-7000-a000-' || lpad(to_hex(n), 12, '0') || '.1', 'topic', 'inventory.events',
      'key', ${idOf("item", "n")}, 'type', 'InventoryAllocated',
      'data', json_build_object('merchantId', '${merchantId}', 'itemId', ${idOf("item", "n")},
        'productVariantId', 'variant-' || n, 'sku', 'SKU-' || n, 'orderId', 'order-' || n,
        'reservationId', '00000000-0000-7000-a000-' || lpad(to_hex(n), 12, '0'),
        'movements', json_build_array(json_build_object('stockId', ${idOf("stock", "n")}, 'locationId', 'default',
          'lotNumber', NULL, 'type', 'ORDER_ALLOCATE', 'onHandDelta', 0, 'reservedDelta', 1, 'unallocatableDelta', 0)),
        'quantity', 1000000000000, 'reservedQuantity', 100000 + n, 'availableQuantity', 999999900000 - n,
        'sequence', 100000 + n),
      'merchantId', '${merchantId}', 'at', 1760000000000 + n, 'requestId',
      '00000000-0000-7000-b000-' || lpad(to_hex(n), 12, '0'))::text`
  const group = (first: number, count: number) =>
    `SELECT '[' || string_agg(${event}, ',') || ']' FROM generate_series(${first}, ${first + count - 1}) AS n`
  const spread = Array.from({ length: buckets }, (_, bucket) => {
    const count = reservationsPerBatch / buckets
    return `INSERT INTO bench_outbox_spread SELECT ${bucket}, (${group(1 + bucket * count, count)}), ${count}`
  })
  return [
    `CREATE TABLE bench_outbox_hot (bucket smallint, events text STORAGE EXTERNAL, event_count integer)`,
    `CREATE TABLE bench_outbox_spread (bucket smallint, events text STORAGE EXTERNAL, event_count integer)`,
    `INSERT INTO bench_outbox_hot SELECT 0, (${group(1, reservationsPerBatch)}), ${reservationsPerBatch}`,
    ...spread
  ]
}

export const machineLimit = (merchantId: string, firstItem: number, items: number): Script => {
  const id = (n: string) =>
    `CAST('00000000-0000-7000-c000-' || lpad(to_hex(CAST(:batch AS bigint) * ${reservationsPerBatch} + ${n}), 12, '0') AS uuid)`
  /** The items of the batch: one, or as many as there are reservations, the same ones in each statement. */
  const picked =
    items === 1
      ? `(SELECT ${firstItem} AS item, n FROM generate_series(1, ${reservationsPerBatch}) AS n) AS picked`
      : `(SELECT ${firstItem} + abs(hashint8(CAST(:batch AS bigint) * ${reservationsPerBatch} + n)::bigint) % ${items} AS item, n
          FROM generate_series(1, ${reservationsPerBatch}) AS n) AS picked`
  const one = items === 1
  const each = one ? reservationsPerBatch : 1
  const update = (table: "item" | "stock", counter: string): string =>
    one
      ? `UPDATE ${table}
         SET reserved = reserved + ${each}, ${counter} = ${counter} + ${each}, updated_at = now()
         WHERE merchant_id = '${merchantId}' AND ${table}_id = ${idOf(table, `${firstItem}::bigint`)}`
      : `UPDATE ${table} t
         SET reserved = reserved + ${each}, ${counter} = ${counter} + ${each}, updated_at = now()
         FROM (SELECT ${idOf(table, "item")} AS id FROM ${picked}) AS p
         WHERE t.merchant_id = '${merchantId}' AND t.${table}_id = p.id`
  return {
    variables: [{ name: "batch", unique: true }],
    statements: [
      `BEGIN`,
      update("item", "event_sequence"),
      update("stock", "sequence"),
      `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta,
         reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor, order_id,
         reservation_id)
       SELECT '${merchantId}', ${idOf("stock", "item")}, now(), n, ${idOf("item", "item")}, 'ORDER_ALLOCATE', 0, 1, 0,
              1000000000000, n, 0, 'ORDER', ${id("n")}, 'dev', 'order-' || CAST(:batch AS bigint) || '-' || n, ${id("n")}
       FROM ${picked}`,
      `INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, scope, status, request, metadata,
         expires_at, created_at, updated_at)
       SELECT '${merchantId}', ${id("n")}, 'order-' || CAST(:batch AS bigint) || '-' || n, 'ORDER', '', 'PENDING',
              '[["00000000-0000-7000-8000-000000000000",1,null]]', NULL, now() + interval '15 minutes', now(), now()
       FROM generate_series(1, ${reservationsPerBatch}) AS n`,
      `INSERT INTO reservation_line (merchant_id, reservation_id, line_number, item_id, stock_id, quantity, open, sold,
         released, returned)
       SELECT '${merchantId}', ${id("n")}, 1, ${idOf("item", "item")}, ${idOf("stock", "item")}, 1, 1, 0, 0, 0
       FROM ${picked}`,
      `INSERT INTO outbox (bucket, recorded_at, events, event_count)
       SELECT bucket, now(), events, event_count FROM bench_outbox_${one ? "hot" : "spread"}`,
      `SELECT pg_notify('holdfast_outbox', '')`,
      `COMMIT`
    ]
  }
}
