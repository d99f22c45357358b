import type { Script } from "./support/Script.ts"

/**
 * How the books say a reservation is made: one transaction a request that locks the row of the stock, changes it and
 * writes what happened. It is given what helps it: prepared statements, counted ids, few indexes, room on the page of
 * a hot row, and no check of who is asking.
 */
export const textbookTables = (items: number): ReadonlyArray<string> => [
  `CREATE TABLE stock (
     item_id bigint PRIMARY KEY,
     on_hand bigint NOT NULL,
     reserved bigint NOT NULL DEFAULT 0,
     updated_at timestamptz NOT NULL DEFAULT now(),
     CHECK (reserved <= on_hand)
   ) WITH (fillfactor = 50)`,
  `CREATE TABLE ledger (
     item_id bigint NOT NULL,
     order_id bigint NOT NULL,
     type text NOT NULL,
     reserved_delta bigint NOT NULL,
     recorded_at timestamptz NOT NULL,
     PRIMARY KEY (item_id, order_id)
   )`,
  `CREATE TABLE reservation (
     order_id bigint PRIMARY KEY,
     status text NOT NULL,
     expires_at timestamptz NOT NULL,
     created_at timestamptz NOT NULL
   )`,
  `CREATE TABLE reservation_line (
     order_id bigint NOT NULL,
     item_id bigint NOT NULL,
     quantity bigint NOT NULL,
     PRIMARY KEY (order_id, item_id)
   )`,
  `CREATE TABLE outbox (
     id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
     payload text NOT NULL,
     recorded_at timestamptz NOT NULL,
     sent_at timestamptz
   )`,
  `INSERT INTO stock (item_id, on_hand) SELECT n, 1000000000000 FROM generate_series(1, ${items}) AS n`,
  `VACUUM ANALYZE`
]

export const textbook = (items: number): Script => ({
  variables: [
    { name: "item", random: [1, items] },
    { name: "orderid", unique: true }
  ],
  statements: [
    `BEGIN`,
    `SELECT on_hand, reserved FROM stock WHERE item_id = :item FOR UPDATE`,
    `UPDATE stock SET reserved = reserved + 1, updated_at = now() WHERE item_id = :item`,
    `INSERT INTO ledger (item_id, order_id, type, reserved_delta, recorded_at)
     VALUES (:item, :orderid, 'ORDER_ALLOCATE', 1, now())`,
    `INSERT INTO reservation (order_id, status, expires_at, created_at)
     VALUES (:orderid, 'PENDING', now() + interval '15 minutes', now())`,
    `INSERT INTO reservation_line (order_id, item_id, quantity) VALUES (:orderid, :item, 1)`,
    `INSERT INTO outbox (payload, recorded_at)
     VALUES ('{"type":"InventoryAllocated","orderId":' || CAST(:orderid AS bigint) || ',"itemId":' ||
             CAST(:item AS bigint) || ',"quantity":1}', now())`,
    `COMMIT`
  ]
})
