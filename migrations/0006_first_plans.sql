-- What the planner is told of tables that are still empty: merchant_id, which leads every key, selects nothing by itself,
-- and ids are hardly ever the same. Without it all indexes of an empty table look alike to it, and a plan that walks all
-- rows of a merchant to find each one is made, and kept, until the table is analyzed: loading the first 20,000 items of
-- a new database took two minutes instead of seconds. What autovacuum finds out later replaces this.
DO $$
DECLARE
  tenant_column record;
BEGIN
  FOR tenant_column IN
    SELECT c.relname::text AS relname, a.attname::text AS attname,
      CASE WHEN a.attname = 'merchant_id' THEN 1 ELSE -1 END AS n_distinct
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
      AND (a.attname IN ('merchant_id', 'product_variant_id', 'sku', 'order_id', 'tracking_key')
        OR a.atttypid = 'uuid'::regtype)
      AND EXISTS (SELECT FROM pg_attribute m WHERE m.attrelid = c.oid AND m.attname = 'merchant_id')
      AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid AND s.staattnum = a.attnum)
  LOOP
    PERFORM pg_restore_attribute_stats(
      'schemaname', current_schema()::text, 'relname', tenant_column.relname, 'attname', tenant_column.attname,
      'inherited', false, 'null_frac', 0::real, 'avg_width', 16, 'n_distinct', tenant_column.n_distinct::real);
  END LOOP;
END $$;
