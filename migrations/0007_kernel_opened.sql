-- A decision reads what is open about the items that it locks; by their subjects, discrepancy_one_open finds what is
-- open about orders.
CREATE INDEX discrepancy_open_by_item ON discrepancy (merchant_id, item_id) WHERE status = 'OPEN';

-- Materials of an order's dishes are held by a document of kind MATERIAL, whose lines name the promise that they are
-- held for.
ALTER TABLE reservation DROP CONSTRAINT reservation_kind_check;
ALTER TABLE reservation ADD CONSTRAINT reservation_kind_check
  CHECK (kind IN ('ORDER', 'VARIANT', 'SALE', 'MATERIAL')) NOT VALID;
ALTER TABLE reservation VALIDATE CONSTRAINT reservation_kind_check;
ALTER TABLE reservation_line ADD COLUMN promise_id uuid;
