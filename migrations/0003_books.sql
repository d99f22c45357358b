-- What keeps the books provable as they grow and are mended: where the chain of a stock's movements begins, how far back
-- rows are kept, and what was mended by whom.

-- From which balances a stock's movements go on: those up to `sequence` are not asked about any more. Two ways lead here,
-- and audit begins at the newest of either.
-- CLOSING: retention took the movements away; CHECKPOINT: a person has acknowledged a break in the ledger.
CREATE TABLE ledger_checkpoint (
  merchant_id text NOT NULL,
  stock_id uuid NOT NULL,
  -- The number and ledger time of the last movement that it stands for. The next one has sequence + 1.
  sequence bigint NOT NULL,
  recorded_at timestamptz NOT NULL,
  on_hand bigint NOT NULL,
  reserved bigint NOT NULL,
  unallocatable bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('CHECKPOINT', 'CLOSING')),
  actor text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, stock_id, sequence)
);

-- What audit --repair did, or what a person has acknowledged: one row for each finding that it answers.
CREATE TABLE audit_repair (
  merchant_id text NOT NULL,
  repair_id uuid NOT NULL,
  -- The finding's id: the same question about the same row with the same answer has the same one.
  finding text NOT NULL,
  invariant text NOT NULL,
  action text NOT NULL,
  subject text NOT NULL,
  before jsonb NOT NULL,
  after jsonb NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  repaired_at timestamptz NOT NULL,
  PRIMARY KEY (merchant_id, repair_id)
);
-- "Has this finding been acknowledged?" (audit)
CREATE INDEX audit_repair_by_finding ON audit_repair (merchant_id, finding);

-- How far back rows are kept: all that was recorded after kept_since is still there. Who removes rows by age moves it in
-- the same statement, so that audit takes nothing for lost that was removed. No row: nothing was ever removed.
CREATE TABLE retention_mark (
  table_name text PRIMARY KEY,
  kept_since timestamptz NOT NULL
);

CREATE FUNCTION holdfast_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['ledger_checkpoint', 'audit_repair']
  LOOP
    EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I
      FOR EACH ROW EXECUTE FUNCTION holdfast_is_append_only()', tenant_table || '_append_only', tenant_table);
    EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I
      FOR EACH STATEMENT EXECUTE FUNCTION holdfast_is_append_only()', tenant_table || '_no_truncate', tenant_table);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY one_merchant ON %I FOR SELECT
      USING (merchant_id = current_setting(''holdfast.merchant_id'', true))', tenant_table);
  END LOOP;
END $$;
