-- What the consumers of other services' topics must remember.

-- The merchant of each captured product variant: the change record of a delete carries the row's key alone, and so
-- this is asked for before any merchant is known. No reader's: it has no row-level security and no grant.
CREATE TABLE captured_variant (
  row_id text PRIMARY KEY,
  merchant_id text NOT NULL
);
