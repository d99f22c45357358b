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
