import { Effect } from "effect"
import type { Ask } from "./Asking.ts"
import { type Finding, finding } from "./Finding.ts"

/** What guards the books in the database itself: row-level security, append-only triggers, keys and checks. */

interface GuardRow {
  readonly check: "row-security" | "append-only" | "constraint-in-place"
  readonly subject: string
  readonly detail: string
  /** What puts it back, or null where it is no statement of ours to run. */
  readonly mend: string | null
}

/** Tables whose rows stay as they were written, and the functions that refuse to change them. */
const appendOnly = [
  ["inventory_ledger", "holdfast_ledger_is_append_only"],
  ["ledger_checkpoint", "holdfast_is_append_only"],
  ["audit_repair", "holdfast_is_append_only"]
] as const

/** The keys and checks that the books rely on: table, and the columns of the key or the name of the check. */
const keys: ReadonlyArray<readonly [table: string, columns: string]> = [
  ["item", "merchant_id, item_id"],
  ["stock", "merchant_id, stock_id"],
  ["stock", "merchant_id, item_id, location_id, lot_number"],
  ["inventory_ledger", "merchant_id, stock_id, recorded_at, sequence"],
  ["reservation", "merchant_id, reservation_id"],
  ["reservation_line", "merchant_id, reservation_id, line_number"],
  ["tracking", "merchant_id, tracking_key"],
  ["idempotency", "merchant_id, idempotency_key"],
  ["discrepancy", "merchant_id, discrepancy_id"],
  ["discrepancy", "merchant_id, subject, kind"]
]

const securityStatement = `
  SELECT 'row-security' AS check, c.relname AS subject,
         CASE WHEN NOT c.relrowsecurity THEN 'row-level security is off'
              WHEN p.polname IS NULL THEN 'the policy one_merchant is missing'
              ELSE 'a policy lets holdfast_reader see other merchants' END AS detail,
         CASE WHEN NOT c.relrowsecurity THEN format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', c.relname)
              WHEN p.polname IS NULL THEN format('CREATE POLICY one_merchant ON %I FOR SELECT TO holdfast_reader
                USING (merchant_id = current_setting(''holdfast.merchant_id'', true))', c.relname) END AS mend
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'merchant_id' AND NOT a.attisdropped
  LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = 'one_merchant'
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND has_table_privilege('holdfast_reader', c.oid, 'SELECT')
    AND (NOT c.relrowsecurity
      OR p.polname IS NULL
      OR EXISTS (
        SELECT
        FROM pg_policy other
        WHERE other.polrelid = c.oid AND other.polpermissive
          AND pg_get_expr(other.polqual, other.polrelid) IS DISTINCT FROM
            '(merchant_id = current_setting(''holdfast.merchant_id''::text, true))'
      ))
  UNION ALL
  SELECT 'row-security', r.rolname, 'this role is exempt from row-level security, or may write', NULL
  FROM pg_roles r
  WHERE r.rolname = 'holdfast_reader'
    AND (r.rolsuper OR r.rolbypassrls OR EXISTS (
      SELECT
      FROM pg_class c
      WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
    ))`

const triggersStatement = `
  SELECT 'append-only' AS check, t.name AS subject,
         CASE WHEN g.tgname IS NULL THEN 'the trigger ' || w.suffix || ' is missing'
              ELSE 'the trigger ' || g.tgname || ' is disabled' END AS detail,
         CASE WHEN g.tgname IS NOT NULL THEN format('ALTER TABLE %I ENABLE TRIGGER %I', t.name, g.tgname)
              WHEN w.suffix = 'no_truncate' THEN format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I
                FOR EACH STATEMENT EXECUTE FUNCTION %I()', t.root || '_no_truncate', t.name, t.guard)
              WHEN t.name = t.root THEN format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I
                FOR EACH ROW EXECUTE FUNCTION %I()', t.root || '_append_only', t.name, t.guard) END AS mend
  FROM (
    SELECT c.oid, c.relname AS name, root.name AS root, root.guard
    FROM (VALUES ${appendOnly.map(([table, guard]) => `('${table}', '${guard}')`).join(", ")}) AS root (name, guard)
    CROSS JOIN LATERAL (
      SELECT root.name::regclass AS relid
      UNION
      SELECT relid FROM pg_partition_tree(root.name::regclass)
    ) tree
    JOIN pg_class c ON c.oid = tree.relid
  ) t
  -- BEFORE (2) with UPDATE (16) and DELETE (8) for each row (1); BEFORE (2) TRUNCATE (32) for the statement.
  CROSS JOIN (VALUES ('append_only', 27), ('no_truncate', 34)) AS w (suffix, kind)
  LEFT JOIN LATERAL (
    SELECT g.tgname, g.tgenabled
    FROM pg_trigger g
    JOIN pg_proc f ON f.oid = g.tgfoid
    WHERE g.tgrelid = t.oid AND f.proname = t.guard AND g.tgtype & w.kind = w.kind
    ORDER BY g.tgenabled IN ('O', 'A') DESC
    LIMIT 1
  ) g ON true
  WHERE g.tgname IS NULL OR g.tgenabled NOT IN ('O', 'A')`

const keysStatement = `
  SELECT 'constraint-in-place' AS check, wanted.relation || ' (' || wanted.columns || ')' AS subject,
         'no valid unique index' AS detail, NULL AS mend
  FROM (VALUES ${keys.map(([table, columns]) => `('${table}', '${columns}')`).join(", ")})
    AS wanted (relation, columns)
  WHERE NOT EXISTS (
    SELECT
    FROM pg_index x
    WHERE x.indrelid = wanted.relation::regclass AND x.indisunique AND x.indisvalid
      AND wanted.columns = (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place)
        FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
      )
  )
  UNION ALL
  SELECT 'constraint-in-place', wanted.name, 'the check is missing or was never validated', NULL
  FROM (VALUES ('stock_balance_or_discrepancy'), ('stock_holds_are_counts')) AS wanted (name)
  WHERE NOT EXISTS (
    SELECT
    FROM pg_constraint k
    WHERE k.conrelid = 'stock'::regclass AND k.conname = wanted.name AND k.contype = 'c' AND k.convalidated
  )`

/** What guards the books and is not in place. */
export const guards = Effect.fnUntraced(function* (ask: Ask) {
  const found: Array<Finding> = []
  for (const statement of [securityStatement, triggersStatement, keysStatement]) {
    for (const { check, detail, mend, subject } of yield* ask<GuardRow>(statement, [])) {
      found.push(finding(check, { merchantId: "", subject, row: { detail, mend } }))
    }
  }
  return found
})
