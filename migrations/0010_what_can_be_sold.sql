-- A location that is retired promises nothing new. Null: it never was. Its place in the picking order can be changed.
ALTER TABLE location ADD COLUMN retired boolean;

-- A deleted item that is still in stock or held: the posting that empties it deletes it.
ALTER TABLE item ADD COLUMN deletion_pending boolean NOT NULL DEFAULT false;
-- Whether the captured table of product variants has a row of it, which says the item's sku.
ALTER TABLE item ADD COLUMN captured boolean NOT NULL DEFAULT false;

UPDATE item i SET captured = true
FROM captured_variant c
WHERE c.owner_id = i.merchant_id AND c.row_id = i.product_variant_id;

-- What was deleted while it was in stock is still there, or has been emptied since.
UPDATE item i SET deletion_pending = true
FROM tracking t
WHERE i.discontinued
  AND i.deleted_at IS NULL
  AND t.merchant_id = i.merchant_id
  AND t.tracking_key = 'ITEM_DELETED' || chr(31) || i.product_variant_id;

UPDATE item i SET deletion_pending = false, deleted_at = i.updated_at
WHERE i.deletion_pending
  AND NOT EXISTS (
    SELECT FROM stock s
    WHERE s.merchant_id = i.merchant_id
      AND s.item_id = i.item_id
      AND (s.on_hand <> 0 OR s.reserved <> 0 OR s.unallocatable <> 0)
  );

-- The status follows what can be sold, which is less where a stock is below zero. Where a lot expires it is judged when it
-- is asked for.
UPDATE item i SET status = CASE
    WHEN sold.available <= 0 THEN 'OUT_OF_STOCK'
    WHEN sold.available <= i.low_stock_threshold THEN 'LOW_STOCK'
    ELSE 'IN_STOCK'
  END
FROM (
  SELECT s.merchant_id, s.item_id, sum(s.on_hand - s.reserved - s.unallocatable) AS available
  FROM stock s
  GROUP BY s.merchant_id, s.item_id
  HAVING bool_or(s.discrepancy) AND bool_and(s.lot_expires_at IS NULL)
) sold
WHERE i.merchant_id = sold.merchant_id
  AND i.item_id = sold.item_id
  AND i.initialized
  AND NOT i.discontinued;

-- "Which lots go off", soonest first.
CREATE INDEX stock_by_expiry ON stock (merchant_id, lot_expires_at, stock_id) WHERE lot_expires_at IS NOT NULL;
