-- What the planner is told of tables that are still empty: that merchant_id, which leads every key, selects nothing by
-- itself. Without it all indexes of an empty table look alike to it, and a plan that walks all rows of a merchant to find
-- each one is made, and kept, until the table is analyzed: loading the first 20,000 items of a new database took two
-- minutes instead of seconds. What autovacuum finds out later replaces this.
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOR tenant_table IN
    SELECT c.relname
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'merchant_id'
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
      AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid)
  LOOP
    PERFORM pg_restore_attribute_stats(
      'schemaname', current_schema()::text, 'relname', tenant_table, 'attname', 'merchant_id', 'inherited', false,
      'null_frac', 0::real, 'avg_width', 16, 'n_distinct', 1::real);
  END LOOP;
END $$;
