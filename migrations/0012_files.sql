-- What was loaded from files: for each part of a file, by the hash of its bytes, which lines were, when and by which run.
-- It is kept for good: whoever imports a file again is told that it was loaded, however long ago.
CREATE TABLE file_chunk (
  merchant_id text NOT NULL,
  chunk_key text NOT NULL,
  loads jsonb NOT NULL,
  PRIMARY KEY (merchant_id, chunk_key)
);
ALTER TABLE file_chunk ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_merchant ON file_chunk FOR SELECT
  USING (merchant_id = current_setting('holdfast.merchant_id', true));
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_reader') THEN
    GRANT SELECT ON file_chunk TO holdfast_reader;
  END IF;
END $$;
