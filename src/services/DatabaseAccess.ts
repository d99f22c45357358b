import { mayTakeOn, readerRole } from "./ReaderRole.ts"

/** What a database must be and its user must be allowed, asked before anything is changed (docs/operations.md). */

/** The oldest PostgreSQL that has what the tables are made of: NULLS NOT DISTINCT, and views with security_invoker. */
export const versionMin = 15

export interface Access {
  readonly version: string
  readonly version_number: number
  readonly user_name: string
  /** Where tables are created; null where the search path names no schema that the user may use. */
  readonly schema_name: string | null
  readonly may_create: boolean | null
  /** Tables of ours that belong to a role that this user is no member of. */
  readonly owned_by_others: string | null
  readonly reader: string
  /** Null where there is no such role. */
  readonly may_take_on_reader: boolean | null
  readonly may_grant_reader: boolean | null
  readonly may_create_roles: boolean
  readonly sees_all_transactions: boolean
}

export const accessStatement = `
  SELECT current_setting('server_version') AS version,
         current_setting('server_version_num')::integer AS version_number,
         current_user::text AS user_name,
         current_schema()::text AS schema_name,
         has_schema_privilege(current_schema(), 'CREATE') AS may_create,
         (SELECT string_agg(c.relname, ', ' ORDER BY c.relname)
          FROM pg_class c
          WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
            AND c.relname IN ('holdfast_migration', 'item', 'stock', 'inventory_ledger', 'outbox')
            AND NOT pg_has_role(current_user, c.relowner, 'USAGE')) AS owned_by_others,
         ${readerRole}::text AS reader,
         ${mayTakeOn("r.oid")} AS may_take_on_reader,
         pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') AS may_grant_reader,
         u.rolsuper OR u.rolcreaterole AS may_create_roles,
         pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all_transactions
  FROM pg_roles u
  LEFT JOIN pg_roles r ON r.rolname = ${readerRole}
  WHERE u.rolname = current_user`

/** What was found, and what to do about it. */
export interface Obstacle {
  readonly found: string
  readonly mend: string
}

/** Why no service can run on this database under this user; empty where one can. */
export const obstacles = (access: Access): ReadonlyArray<Obstacle> => [
  ...(Math.floor(access.version_number / 10_000) < versionMin
    ? [
        {
          found: `PostgreSQL ${access.version} is older than ${versionMin}, and lacks NULLS NOT DISTINCT and security_invoker, which the tables are made of`,
          mend: `upgrade it to PostgreSQL ${versionMin} or later`
        }
      ]
    : []),
  ...(access.schema_name === null
    ? [
        {
          found: `the user ${access.user_name} may use no schema of its search_path`,
          mend: `GRANT USAGE, CREATE ON SCHEMA public TO ${access.user_name}, or make it the owner of the database`
        }
      ]
    : access.may_create !== true
      ? [
          {
            found: `the user ${access.user_name} may not create tables in the schema ${access.schema_name}`,
            mend: `GRANT CREATE ON SCHEMA ${access.schema_name} TO ${access.user_name}, or make it the owner of the database`
          }
        ]
      : []),
  ...(access.owned_by_others === null
    ? []
    : [
        {
          found: `the tables ${access.owned_by_others} do not belong to the user ${access.user_name}`,
          mend: `name their owner in DATABASE_URL, or GRANT that owner TO ${access.user_name}`
        }
      ])
]

/** Why reads would run as the user itself, without row-level security; undefined where they will be guarded. */
export const withoutReader = (access: Access): Obstacle | undefined =>
  access.may_take_on_reader === true ||
  access.may_grant_reader === true ||
  (access.may_take_on_reader === null && access.may_create_roles)
    ? undefined
    : {
        found:
          access.may_take_on_reader === null
            ? `the user ${access.user_name} may not create the role ${access.reader}: reads are kept apart by merchant in their statements, and not by row-level security as well`
            : `the user ${access.user_name} may not take on the role ${access.reader}: reads are kept apart by merchant in their statements, and not by row-level security as well`,
        mend: `${access.may_take_on_reader === null ? `CREATE ROLE "${access.reader}" NOLOGIN; ` : ""}GRANT "${access.reader}" TO "${access.user_name}"; then holdfast migrate, and start the service again`
      }
