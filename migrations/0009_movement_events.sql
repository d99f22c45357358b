-- Which event of its item reports a movement: the number that the event carries as `sequence`. So movements and events
-- are compared by a key (audit). NULL on movements that are older than the column and whose event is not kept any more.
ALTER TABLE inventory_ledger ADD COLUMN event_sequence bigint;

-- Months that were detached keep the ledger's shape, so that they can be attached again.
DO $$
DECLARE
  detached text;
BEGIN
  FOR detached IN
    SELECT c.relname
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^inventory_ledger_[0-9]{6}$'
  LOOP
    EXECUTE format('ALTER TABLE %I ADD COLUMN IF NOT EXISTS event_sequence bigint', detached);
  END LOOP;
END $$;

-- A posting reports the movements of one item and one type in one event. A row of the outbox that is not a JSON array
-- fills nothing: audit names it.
ALTER TABLE inventory_ledger DISABLE TRIGGER inventory_ledger_append_only;
UPDATE inventory_ledger l
SET event_sequence = reported.sequence
FROM (
  SELECT e.event ->> 'merchantId' AS merchant_id, m.movement ->> 'stockId' AS stock_id, m.movement ->> 'type' AS type,
         split_part(e.event ->> 'id', '.', 1) AS posting_id, e.event -> 'data' ->> 'sequence' AS sequence
  FROM outbox o
  CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN o.events IS JSON ARRAY THEN o.events::jsonb END) AS e (event)
  CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(e.event -> 'data' -> 'movements') WHEN 'array' THEN e.event -> 'data' -> 'movements' END
  ) AS m (movement)
  OFFSET 0
) AS told (merchant_id, stock_id, type, posting_id, sequence)
CROSS JOIN LATERAL (
  SELECT told.sequence::bigint AS sequence, told.stock_id::uuid AS stock_id, told.posting_id::uuid AS posting_id
  WHERE told.sequence ~ '^[0-9]{1,15}$' AND pg_input_is_valid(told.stock_id, 'uuid')
    AND pg_input_is_valid(told.posting_id, 'uuid')
  OFFSET 0
) AS reported
WHERE l.merchant_id = told.merchant_id AND l.stock_id = reported.stock_id AND l.posting_id = reported.posting_id
  AND l.type = told.type;
ALTER TABLE inventory_ledger ENABLE TRIGGER inventory_ledger_append_only;
