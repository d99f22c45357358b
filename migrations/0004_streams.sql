-- What the consumers of other services' topics must remember.

-- Whose each captured product variant is: the change record of a delete carries the row's key alone, and so this is
-- asked for before any merchant is known. No reader's: it is granted to nobody.
CREATE TABLE captured_variant (
  row_id text PRIMARY KEY,
  owner_id text NOT NULL
);
