-- The kernel's tables. merchant_id leads every key, so that the database can be distributed by merchant.

CREATE TABLE merchant (
  merchant_id text PRIMARY KEY,
  created_at timestamptz NOT NULL
);

CREATE TABLE location (
  merchant_id text NOT NULL REFERENCES merchant,
  location_id text NOT NULL,
  name text,
  is_default boolean NOT NULL DEFAULT false,
  -- Order of creation inside the merchant: stock is taken from locations in this order, the default first.
  position integer NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, location_id)
);
CREATE UNIQUE INDEX location_one_default ON location (merchant_id) WHERE is_default;

-- An item holds the totals over its stocks; its row is the lock of those stocks and the order of its events.
-- fillfactor 50 keeps the updates of a hot row HOT. Nothing from here on has a foreign key: the kernel, the only writer,
-- decides over the rows that it would look up again, nothing of what they name is ever removed, and audit asks for it
-- (decision 0015).
CREATE TABLE item (
  merchant_id text NOT NULL,
  item_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('PRODUCT', 'MATERIAL')),
  product_variant_id text,
  sku text,
  product_id text,
  name text,
  unit text NOT NULL DEFAULT 'each',
  stocked boolean NOT NULL DEFAULT true,
  low_stock_threshold bigint NOT NULL DEFAULT 0,
  safety_stock bigint NOT NULL DEFAULT 0,
  -- How far a count may differ from the books before it opens a discrepancy.
  count_tolerance bigint NOT NULL DEFAULT 0,
  discontinued boolean NOT NULL DEFAULT false,
  initialized boolean NOT NULL DEFAULT false,
  status text NOT NULL CHECK (status IN
    ('AWAITING_INITIAL_STOCK', 'IN_STOCK', 'LOW_STOCK', 'OUT_OF_STOCK', 'DISCONTINUED')),
  on_hand bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  unallocatable bigint NOT NULL DEFAULT 0,
  event_sequence bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (merchant_id, item_id),
  UNIQUE (merchant_id, product_variant_id),
  UNIQUE (merchant_id, sku)
) WITH (fillfactor = 50);

CREATE TABLE stock (
  merchant_id text NOT NULL,
  stock_id uuid NOT NULL,
  item_id uuid NOT NULL,
  location_id text NOT NULL,
  -- '' is the one unnamed lot of items without lots.
  lot_number text NOT NULL DEFAULT '',
  lot_expires_at timestamptz,
  on_hand bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  unallocatable bigint NOT NULL DEFAULT 0,
  -- The number of the last movement: the version that compare-and-set speaks of.
  sequence bigint NOT NULL DEFAULT 0,
  -- Whether a balance discrepancy is open on this stock. A fact may break the books, silence may not.
  discrepancy boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, stock_id),
  UNIQUE (merchant_id, item_id, location_id, lot_number),
  CONSTRAINT stock_balance_or_discrepancy
    CHECK (discrepancy OR (on_hand >= 0 AND reserved + unallocatable <= on_hand)),
  CONSTRAINT stock_holds_are_counts CHECK (reserved >= 0 AND unallocatable >= 0)
) WITH (fillfactor = 50);

-- "What lies at this location", in the order of creation.
CREATE INDEX stock_by_location ON stock (merchant_id, location_id, stock_id);

CREATE TABLE inventory_ledger (
  merchant_id text NOT NULL,
  stock_id uuid NOT NULL,
  recorded_at timestamptz NOT NULL,
  sequence bigint NOT NULL,
  item_id uuid NOT NULL,
  type text NOT NULL,
  on_hand_delta bigint NOT NULL,
  reserved_delta bigint NOT NULL,
  unallocatable_delta bigint NOT NULL,
  on_hand bigint NOT NULL,
  reserved bigint NOT NULL,
  unallocatable bigint NOT NULL,
  source text NOT NULL,
  posting_id uuid NOT NULL,
  actor text NOT NULL,
  order_id text,
  reservation_id uuid,
  reference text,
  reason text,
  occurred_at timestamptz,
  -- The partition column must be part of the key; recorded_at never decreases within a stock.
  PRIMARY KEY (merchant_id, stock_id, recorded_at, sequence)
) PARTITION BY RANGE (recorded_at);

CREATE FUNCTION holdfast_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'inventory_ledger is append-only: % is refused', TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Correct a figure with a new movement; history is never rewritten.';
END $$;

CREATE TRIGGER inventory_ledger_append_only
  BEFORE UPDATE OR DELETE ON inventory_ledger
  FOR EACH ROW EXECUTE FUNCTION holdfast_ledger_is_append_only();
CREATE TRIGGER inventory_ledger_no_truncate
  BEFORE TRUNCATE ON inventory_ledger
  FOR EACH STATEMENT EXECUTE FUNCTION holdfast_ledger_is_append_only();

-- kind: ORDER (one PENDING an order), VARIANT (one PENDING an order and item), SALE (sold without a reservation).
CREATE TABLE reservation (
  merchant_id text NOT NULL,
  reservation_id uuid NOT NULL,
  order_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('ORDER', 'VARIANT', 'SALE')),
  -- '' or, for kind VARIANT, the item: what the one PENDING reservation is unique for.
  scope text NOT NULL DEFAULT '',
  status text NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED', 'EXPIRED')),
  -- What was asked for, [[itemId, quantity, stockId|null], …] by item: a repeat is compared with it.
  request text NOT NULL,
  metadata text,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, reservation_id)
) WITH (fillfactor = 80);
-- The reservations of an order, and one PENDING for each kind and scope: NULL stands for PENDING and is like no other
-- but itself. One index does both, because each one more makes every reservation dearer (docs/performance.md).
CREATE UNIQUE INDEX reservation_by_order ON reservation (merchant_id, order_id, kind, scope,
  (CASE WHEN status = 'PENDING' THEN NULL ELSE reservation_id END)) NULLS NOT DISTINCT;
-- The sweeper sees all merchants: the one index that merchant_id does not lead.
CREATE INDEX reservation_due ON reservation (expires_at) WHERE status = 'PENDING';

-- quantity = open + sold + released; expired is the part of released that the order did not give back itself;
-- returned is what came back of what was sold; paid is what a payment has spoken of, so that it is not sold again.
CREATE TABLE reservation_line (
  merchant_id text NOT NULL,
  reservation_id uuid NOT NULL,
  line_number integer NOT NULL,
  item_id uuid NOT NULL,
  -- NULL for an item that is not stocked: it is sold without moving stock of its own.
  stock_id uuid,
  quantity bigint NOT NULL,
  open bigint NOT NULL,
  sold bigint NOT NULL DEFAULT 0,
  released bigint NOT NULL DEFAULT 0,
  expired bigint NOT NULL DEFAULT 0,
  returned bigint NOT NULL DEFAULT 0,
  paid bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (merchant_id, reservation_id, line_number),
  CHECK (open >= 0 AND sold >= 0 AND released >= 0 AND quantity = open + sold + released),
  CHECK (expired >= 0 AND expired <= released),
  CHECK (returned >= 0 AND returned <= sold),
  CHECK (paid >= 0 AND paid <= sold)
) WITH (fillfactor = 80);
-- "What holds this stock" (audit, invariant 2).
CREATE INDEX reservation_line_open ON reservation_line (merchant_id, stock_id) WHERE open > 0;

-- An outside fact, or a posting, that has been applied, so that it is applied once. answer: what it was told.
CREATE TABLE tracking (
  merchant_id text NOT NULL,
  tracking_key text NOT NULL,
  posting_id uuid NOT NULL,
  answer text,
  recorded_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, tracking_key)
);
-- What is removed by age: a posting's own row, which only its second run asks for. An outside fact is known for ever.
CREATE INDEX tracking_by_age ON tracking (recorded_at) WHERE tracking_key LIKE 'POSTING|%';

CREATE TABLE idempotency (
  merchant_id text NOT NULL,
  idempotency_key text NOT NULL,
  fingerprint text NOT NULL,
  answer text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, idempotency_key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE discrepancy (
  merchant_id text NOT NULL,
  discrepancy_id uuid NOT NULL,
  kind text NOT NULL,
  subject text NOT NULL,
  stock_id uuid,
  item_id uuid,
  order_id text,
  detail jsonb NOT NULL DEFAULT '{}',
  status text NOT NULL DEFAULT 'OPEN' CHECK (status IN ('OPEN', 'CLOSED', 'RESOLVED')),
  opened_at timestamptz NOT NULL,
  closed_at timestamptz,
  closed_by text,
  reason text,
  PRIMARY KEY (merchant_id, discrepancy_id)
);
CREATE UNIQUE INDEX discrepancy_one_open ON discrepancy (merchant_id, subject, kind) WHERE status = 'OPEN';
-- The work list: what is open among all that ever was, and what is about one item.
CREATE INDEX discrepancy_by_status ON discrepancy (merchant_id, status, discrepancy_id);
CREATE INDEX discrepancy_by_item ON discrepancy (merchant_id, item_id, discrepancy_id);

-- The outbox: one row per transaction and bucket. Rows are read by state, never by position, because positions
-- commit out of order; within a bucket a key's rows are in order, because position is taken under its item's lock.
CREATE SEQUENCE outbox_position CACHE 1;
CREATE TABLE outbox (
  bucket smallint NOT NULL,
  position bigint NOT NULL DEFAULT nextval('outbox_position'),
  -- Milliseconds, as all times of ours: a row is marked by what was read of it.
  recorded_at timestamptz(3) NOT NULL,
  -- A JSON array of events, in order.
  events text NOT NULL,
  event_count integer NOT NULL,
  sent_at timestamptz,
  PRIMARY KEY (bucket, position, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX outbox_pending ON outbox (bucket, position) WHERE sent_at IS NULL;
-- Groups of events are long and alike: lz4 pays for itself, pglz costs more than the bytes it saves.
DO $$
BEGIN
  ALTER TABLE outbox ALTER COLUMN events SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  ALTER TABLE outbox ALTER COLUMN events SET STORAGE EXTERNAL;
END $$;

-- Events that the broker refused for good, and those of the same key that wait behind one: they are published in order
-- once the FAILED one is requeued or dropped. And events that are WAITING for a topic that does not exist: they hold back
-- nothing but what comes later for that topic.
CREATE TABLE outbox_failure (
  merchant_id text NOT NULL,
  event_id text NOT NULL,
  state text NOT NULL CHECK (state IN ('FAILED', 'HELD', 'REQUEUED', 'WAITING')),
  topic text NOT NULL,
  bucket smallint NOT NULL,
  position bigint NOT NULL,
  ordinal integer NOT NULL,
  event_key text NOT NULL,
  event text NOT NULL,
  error text,
  recorded_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, event_id)
);
CREATE INDEX outbox_failure_by_key ON outbox_failure (bucket, event_key, position, ordinal) WHERE state <> 'WAITING';
CREATE INDEX outbox_failure_by_topic ON outbox_failure (bucket, topic, position, ordinal) WHERE state = 'WAITING';

-- The key pair of the built-in issuer of development tokens, shared by all processes of one database.
CREATE TABLE dev_issuer_key (
  id integer PRIMARY KEY CHECK (id = 1),
  private_jwk jsonb NOT NULL,
  created_at timestamptz NOT NULL
);

-- A partition is created apart and attached, because CREATE … PARTITION OF waits for readers while it blocks writers.
CREATE FUNCTION holdfast_ensure_partition(parent text, month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  lower_bound timestamptz := (date_trunc('month', month::timestamp)) AT TIME ZONE 'UTC';
  upper_bound timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
  partition text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
BEGIN
  IF to_regclass(partition) IS NOT NULL THEN
    RETURN false;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('holdfast partitions', 0));
  -- Asked of the catalog itself: to_regclass would answer from a cache that an advisory lock does not refresh.
  IF EXISTS (
    SELECT FROM pg_class c
    WHERE c.relname = partition AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = parent::regclass)
  ) THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    parent, partition, lower_bound, upper_bound);
  IF parent = 'inventory_ledger' THEN
    EXECUTE format('CREATE TRIGGER inventory_ledger_no_truncate BEFORE TRUNCATE ON %I
      FOR EACH STATEMENT EXECUTE FUNCTION holdfast_ledger_is_append_only()', partition);
  END IF;
  RETURN true;
END $$;

-- What can be sold of a stock: the one formula (the pure one is sellable() in the kernel).
CREATE FUNCTION holdfast_sellable(on_hand bigint, reserved bigint, unallocatable bigint, lot_expires_at timestamptz,
  at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN lot_expires_at <= at THEN 0 ELSE GREATEST(0, on_hand - reserved - unallocatable) END
$$;

-- Aborts the transaction when a set-based write matched fewer or more rows than were decided on.
CREATE FUNCTION holdfast_expect(actual bigint, expected integer, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF actual <> expected THEN
    RAISE EXCEPTION 'expected to write % rows of %, wrote %', expected, what, actual USING ERRCODE = 'HF001';
  END IF;
END $$;

-- Row-level security: a read sees the one merchant that it has named. The role that reads run under is no migration's:
-- roles belong to the server, and the tables to whoever applies this (decision 0024).
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['merchant', 'location', 'item', 'stock', 'inventory_ledger', 'reservation',
    'reservation_line', 'tracking', 'idempotency', 'discrepancy', 'outbox_failure']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY one_merchant ON %I FOR SELECT
      USING (merchant_id = current_setting(''holdfast.merchant_id'', true))', tenant_table);
  END LOOP;
END $$;

-- The names of the warehouse document, for those who know the books by them.
CREATE VIEW sku WITH (security_invoker = true) AS
  SELECT merchant_id, item_id AS id, sku AS sku_code, name FROM item WHERE sku IS NOT NULL;
CREATE VIEW sku_batch WITH (security_invoker = true) AS
  SELECT merchant_id, stock_id AS id, item_id AS sku_id, NULLIF(lot_number, '') AS lot_number,
         lot_expires_at AS expires_at, on_hand AS total_quantity, unallocatable AS unallocatable_quantity,
         on_hand - reserved - unallocatable AS available_quantity, sequence AS version, updated_at
  FROM stock;
CREATE VIEW order_reservation WITH (security_invoker = true) AS
  SELECT r.merchant_id, r.reservation_id AS id, r.order_id, l.stock_id AS sku_batch_id, l.quantity, r.status,
         r.created_at, r.expires_at
  FROM reservation r
  JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id;
CREATE VIEW domain_event AS
  SELECT e.event ->> 'merchantId' AS merchant_id, e.event ->> 'id' AS id, e.event ->> 'type' AS type,
         e.event AS payload, o.recorded_at AS created_at, COALESCE(o.sent_at, o.recorded_at) AS updated_at,
         CASE WHEN f.state = 'FAILED' THEN 'FAILED'
              WHEN f.state IS NOT NULL OR o.sent_at IS NULL THEN 'PENDING'
              ELSE 'SENT' END AS status
  FROM outbox o
  CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
  LEFT JOIN outbox_failure f
    ON f.merchant_id = e.event ->> 'merchantId' AND f.event_id = e.event ->> 'id';
