import { Effect } from "effect"
import { columnName } from "../../kernel/Table.ts"
import { tables } from "../../kernel/tables.ts"
import { readerRole } from "../../ReaderRole.ts"
import { type Finding, findingOf } from "./Finding.ts"
import type { Ask } from "./ranges.ts"

/** What guards the books in the database itself: row-level security, append-only triggers, keys and checks. */

interface GuardRow {
  readonly check: "row-security" | "append-only" | "constraint-in-place"
  readonly subject: string
  readonly detail: string
  /** What puts it back, or null where it is no statement of ours to run. */
  readonly repair: string | null
}

type Pairs = ReadonlyArray<readonly [table: string, what: string]>
const valuesOf = (pairs: Pairs): string => pairs.map(([table, what]) => `('${table}', '${what}')`).join(", ")

/** Tables whose rows stay as they were written, and the functions that refuse to change them. */
const appendOnly: Pairs = tables.flatMap((table) =>
  table.appendOnly === null ? [] : [[table.name, table.appendOnly]]
)

/** The keys that the books rely on, by their columns. */
const keys: Pairs = tables.flatMap(({ key, name, unique }) =>
  [key, ...unique].map((fields) => [name, fields.map(columnName).join(", ")] as const)
)

/** And the checks, by their names. */
const checks: Pairs = tables.flatMap((table) => table.checks.map((check) => [table.name, check] as const))

const securityStatement = `
  SELECT 'row-security' AS check, c.relname AS subject,
         CASE WHEN NOT c.relrowsecurity THEN 'row-level security is off'
              WHEN p.polname IS NULL THEN 'the policy one_merchant is missing'
              ELSE 'a policy lets readers see other merchants' END AS detail,
         CASE WHEN NOT c.relrowsecurity THEN format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', c.relname)
              WHEN p.polname IS NULL THEN format('CREATE POLICY one_merchant ON %I FOR SELECT
                USING (merchant_id = current_setting(''holdfast.merchant_id'', true))', c.relname) END AS repair
  FROM pg_class c
  JOIN pg_roles r ON r.rolname = ${readerRole} AND has_table_privilege(r.oid, c.oid, 'SELECT')
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'merchant_id' AND NOT a.attisdropped
  LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = 'one_merchant'
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
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
  WHERE r.rolname = ${readerRole}
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
                FOR EACH ROW EXECUTE FUNCTION %I()', t.root || '_append_only', t.name, t.guard) END AS repair
  FROM (
    SELECT c.oid, c.relname AS name, root.name AS root, root.guard
    FROM (VALUES ${valuesOf(appendOnly)}) AS root (name, guard)
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
         'no valid unique index' AS detail, NULL AS repair
  FROM (VALUES ${valuesOf(keys)})
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
  FROM (VALUES ${valuesOf(checks)}) AS wanted (relation, name)
  WHERE NOT EXISTS (
    SELECT
    FROM pg_constraint k
    WHERE k.conrelid = wanted.relation::regclass AND k.conname = wanted.name AND k.contype = 'c' AND k.convalidated
  )`

/** What guards the books and is not in place. */
export const guards = Effect.fnUntraced(function* (ask: Ask) {
  const found: Array<Finding> = []
  for (const statement of [securityStatement, triggersStatement, keysStatement]) {
    for (const { check, ...row } of yield* ask<GuardRow>(statement, [])) found.push(findingOf(check, row))
  }
  return found
})
