-- A policy holds for whoever is granted a table. Databases of earlier versions have theirs for one role of that server.
DO $$
DECLARE
  guarded regclass;
BEGIN
  FOR guarded IN
    SELECT p.polrelid
    FROM pg_policy p
    JOIN pg_class c ON c.oid = p.polrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND p.polname = 'one_merchant' AND p.polroles <> '{0}'
  LOOP
    EXECUTE format('ALTER POLICY one_merchant ON %s TO PUBLIC', guarded);
  END LOOP;
END $$;

-- What later versions of PostgreSQL have of their own: audit asks ids of version 7 for their time (17), and takes any value
-- of a group (16). PostgreSQL's own go before these.
DO $$
BEGIN
  IF to_regprocedure('pg_catalog.uuid_extract_timestamp(uuid)') IS NULL THEN
    CREATE FUNCTION uuid_extract_timestamp(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$
      SELECT CASE WHEN substr(id::text, 15, 1) = '7'
        THEN to_timestamp(('x' || replace(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0) END
    $f$;
  END IF;
  IF to_regprocedure('pg_catalog.any_value(anyelement)') IS NULL THEN
    CREATE FUNCTION holdfast_first(anyelement, anyelement) RETURNS anyelement
      LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $f$ SELECT $1 $f$;
    CREATE AGGREGATE any_value(anyelement)
      (SFUNC = holdfast_first, STYPE = anyelement, COMBINEFUNC = holdfast_first, PARALLEL = SAFE);
  END IF;
END $$;
