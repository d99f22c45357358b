/**
 * The role that reads run under, so that row-level security guards them: `holdfast_reader_<user>`. Roles belong to the
 * server and not to a database, so each user of it has a reader of its own, and no migration makes one (decision 0024).
 */

/** Its name, asked under the user that connects; the cast cuts it to the length of a name. */
export const readerRole = `('holdfast_reader_' || current_user)::name`

/** Whether the user may take on a role, given as SQL for its oid. Being a member is enough before PostgreSQL 16. */
export const mayTakeOn = (role: string): string =>
  `pg_has_role(current_user, ${role},
    CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)`

/**
 * Takes the role on for the rest of a connection, wherever it has been granted the tables: to be refused it from then on
 * is a failure. Where it has not, because nobody could make it, reads run as the user itself.
 */
export const takeOnReaderRole = `
  SELECT set_config('role', r.rolname, false)
  FROM pg_roles r
  WHERE r.rolname = ${readerRole} AND has_table_privilege(r.oid, to_regclass('stock'), 'SELECT')`

/**
 * Makes the role unless it is there, and grants it what row-level security guards. Changes nothing where all is as it
 * must be, or where the user may not do it.
 */
export const ensureReaderRole = `
  DO $$
  DECLARE
    reader constant name := ${readerRole};
    guarded regclass;
  BEGIN
    -- Services that start together take turns.
    PERFORM pg_advisory_xact_lock(hashtextextended('holdfast reader role', 0));
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', reader);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database's service was faster
      END;
    END IF;
    IF NOT ${mayTakeOn("reader")} THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', reader);
    END IF;
    IF NOT has_schema_privilege(reader, current_schema(), 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), reader);
    END IF;
    FOR guarded IN
      SELECT c.oid
      FROM pg_class c
      JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = 'one_merchant'
      WHERE c.relnamespace = current_schema()::regnamespace AND NOT has_table_privilege(reader, c.oid, 'SELECT')
    LOOP
      EXECUTE format('GRANT SELECT ON %s TO %I', guarded, reader);
    END LOOP;
  EXCEPTION WHEN insufficient_privilege THEN NULL;
  END $$`
