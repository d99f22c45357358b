import { statusInSql } from "../../../schema/Item.ts"
import { sellableOfItemInSql } from "../figuresInSql.ts"
import { type Question, within } from "../Question.ts"

/** Invariants 1, 3 and 7 of items. */

const totals = `
    SELECT COALESCE(sum(s.on_hand), 0)::bigint AS on_hand, COALESCE(sum(s.reserved), 0)::bigint AS reserved,
           COALESCE(sum(s.unallocatable), 0)::bigint AS unallocatable,
           COALESCE(bool_or(s.on_hand <> 0 OR s.reserved <> 0 OR s.unallocatable <> 0), false) AS has_stock
    FROM stock s
    WHERE s.merchant_id = i.merchant_id AND s.item_id = i.item_id
    OFFSET 0`

const sold = `
    SELECT ${sellableOfItemInSql("i", "s", "l", "now()")} AS sellable,
           COALESCE(bool_or(s.lot_expires_at IS NOT NULL OR l.retired IS NOT NULL), false) AS is_judged
    FROM stock s
    LEFT JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id
    WHERE s.merchant_id = i.merchant_id AND s.item_id = i.item_id
    OFFSET 0`

export const itemQuestions: ReadonlyArray<Question> = [
  {
    check: "item-is-its-stocks",
    over: "items",
    // item_pkey, stock_merchant_id_item_id_location_id_lot_number_key
    statement: `
  SELECT i.merchant_id, i.item_id, 'item ' || i.item_id AS subject, i.on_hand, sums.on_hand AS stocks_on_hand, i.reserved,
         sums.reserved AS stocks_reserved, i.unallocatable, sums.unallocatable AS stocks_unallocatable
  FROM item i
  CROSS JOIN LATERAL (${totals}) sums
  WHERE ${within("i", "item_id")}
    AND (i.on_hand, i.reserved, i.unallocatable) IS DISTINCT FROM (sums.on_hand, sums.reserved, sums.unallocatable)`
  },
  {
    // What can be sold depends on the clock where a lot expires, and on more than the item where a location was ever
    // retired, and the status with it: it is asked only where neither is so.
    check: "item-status",
    over: "items",
    // item_pkey, stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
    statement: `
  SELECT i.merchant_id, i.item_id, 'item ' || i.item_id AS subject, i.status,
         ${statusInSql("i", "sold.sellable")} AS status_expected
  FROM item i
  CROSS JOIN LATERAL (${sold}) sold
  WHERE ${within("i", "item_id")}
    AND NOT sold.is_judged AND i.status <> ${statusInSql("i", "sold.sellable")}`
  },
  {
    // Discontinued and in stock: open, and only then.
    check: "discontinued-has-its-discrepancy",
    over: "items",
    // item_pkey, stock_merchant_id_item_id_location_id_lot_number_key, discrepancy_one_open
    statement: `
  SELECT *
  FROM (
    SELECT i.merchant_id, i.item_id, 'item ' || i.item_id AS subject, i.discontinued, sums.has_stock,
           EXISTS (
             SELECT FROM discrepancy d
             WHERE d.merchant_id = i.merchant_id AND d.subject = i.item_id::text
               AND d.kind = 'DISCONTINUED_WITH_STOCK' AND d.status = 'OPEN'
             OFFSET 0
           ) AS is_open
    FROM item i
    CROSS JOIN LATERAL (${totals}) sums
    WHERE ${within("i", "item_id")}
  ) stated
  WHERE is_open <> (discontinued AND has_stock)`
  },
  {
    check: "deleted-has-no-stock",
    over: "items",
    // item_pkey, stock_merchant_id_item_id_location_id_lot_number_key
    statement: `
  SELECT i.merchant_id, i.item_id, 'item ' || i.item_id AS subject, i.deleted_at, sums.on_hand, sums.reserved,
         sums.unallocatable
  FROM item i
  CROSS JOIN LATERAL (${totals}) sums
  WHERE ${within("i", "item_id")}
    AND i.deleted_at IS NOT NULL AND sums.has_stock`
  },
  {
    // Items are of merchants that are there: no foreign key says it (decision 0015).
    check: "own-merchant",
    over: "items",
    // item_pkey, merchant_pkey
    statement: `
  SELECT DISTINCT i.merchant_id, 'items of merchant ' || i.merchant_id AS subject, false AS has_merchant
  FROM item i
  WHERE ${within("i", "item_id")}
    AND NOT EXISTS (SELECT FROM merchant m WHERE m.merchant_id = i.merchant_id OFFSET 0)`
  }
]
