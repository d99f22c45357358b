-- Units of a sale that came back before the sale was told: what has yet to come back is sold less returned less these.
-- A constant default is kept in the catalogue: no row is rewritten.
ALTER TABLE reservation_line ADD COLUMN returned_early bigint NOT NULL DEFAULT 0;
ALTER TABLE reservation_line ADD CONSTRAINT reservation_line_returned_was_sold
  CHECK (returned_early >= 0 AND returned + returned_early <= sold) NOT VALID;
ALTER TABLE reservation_line VALIDATE CONSTRAINT reservation_line_returned_was_sold;

-- A return beyond the sale is open for each order and item, so that it closes when that item's sale comes.
UPDATE discrepancy
SET subject = order_id || E'\x1f' || item_id::text
WHERE kind = 'RETURN_EXCEEDS_SALE' AND subject = order_id AND item_id IS NOT NULL;
