import { isKept, keptSinceInSql, type Question, wasCommitted, within } from "../Question.ts"

/**
 * Invariant 4 and 7 of the outbox, which is no table of a definition: the batch writes it beside them all (`writes.ts`). Its
 * events are unpacked into `audit_event` first (`books/audit/OutboxReading.ts`).
 */

const eventId = `e.posting_id || '.' || e.number`
const noneRemoved = `${keptSinceInSql("outbox", "inventory_ledger")} IS NULL`

export const outboxQuestions: ReadonlyArray<Question> = [
  {
    // From 1 without gaps; of what was removed by age, any part may be left. After a number whose event is known to be
    // lost, because a person has acknowledged it, the next one follows.
    check: "events-are-numbered",
    over: "itemsReported",
    // audit_event, audit_repair
    statement: `
  SELECT e.merchant_id, e.item_id, 'event ' || ${eventId} || ' of item ' || e.item_id AS subject, e.sequence,
         e.sequence_expected
  FROM (
    SELECT e.merchant_id, e.item_id, e.posting_id, e.number, e.sequence,
           COALESCE(max(e.last_sequence) OVER before + 1, CASE WHEN ${noneRemoved} THEN 1 ELSE e.sequence END)
             AS sequence_expected
    FROM audit_event e
    WHERE e.number IS NOT NULL AND e.sequence IS NOT NULL AND ${isKept("e")}
    WINDOW before AS (
      PARTITION BY e.item_id, e.merchant_id ORDER BY e.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
  ) e
  WHERE e.sequence <> e.sequence_expected
    AND NOT EXISTS (
      SELECT FROM audit_repair r
      WHERE r.merchant_id = e.merchant_id AND r.action = 'ACKNOWLEDGE' AND r.invariant = 'last-event-is-told'
        AND r.subject = 'item ' || e.item_id AND r.before ->> 'sequence' = (e.sequence - 1)::text
      OFFSET 0
    )`
  },
  {
    // An item's number is that of its last event, among those after which none was removed by age.
    over: "itemsReported",
    // item_pkey, audit_event
    statement: `
  SELECT CASE WHEN i.event_sequence < last.sequence THEN 'number-was-told' ELSE 'last-event-is-told' END AS check,
         i.merchant_id, i.item_id, 'item ' || i.item_id AS subject, i.event_sequence AS sequence,
         COALESCE(last.sequence, 0) AS sequence_told
  FROM item i
  LEFT JOIN (
    SELECT e.merchant_id, e.item_id, max(e.last_sequence) AS sequence
    FROM audit_event e
    WHERE ${isKept("e")}
    GROUP BY e.merchant_id, e.item_id
  ) last ON last.merchant_id = i.merchant_id AND last.item_id = i.item_id
  WHERE ${within("i", "item_id")}
    AND (i.event_sequence < last.sequence
      OR i.event_sequence > COALESCE(last.sequence, CASE WHEN ${noneRemoved} THEN 0 ELSE i.event_sequence END)
        AND ${wasCommitted("i")})`
  },
  {
    // An event is about an item of its merchant.
    check: "event-of-its-merchant",
    over: "itemsReported",
    // audit_event, item_pkey
    statement: `
  SELECT e.merchant_id, 'event ' || ${eventId} AS subject, e.item_id AS names_item
  FROM audit_event e
  WHERE e.number IS NOT NULL AND ${isKept("e")}
    AND NOT EXISTS (
      SELECT
      FROM item i
      WHERE ${within("i", "item_id")} AND i.merchant_id = e.merchant_id AND i.item_id = e.item_id
    )`
  },
  {
    // A discrepancy that an event reports is there.
    check: "discrepancy-is-there",
    over: "itemsReported",
    // audit_event, discrepancy_pkey
    statement: `
  SELECT e.merchant_id, e.item_id, 'event ' || ${eventId} AS subject, e.discrepancy_id
  FROM audit_event e
  WHERE e.discrepancy_id IS NOT NULL
    AND NOT EXISTS (
      SELECT FROM discrepancy d
      WHERE d.merchant_id = e.merchant_id AND d.discrepancy_id = e.discrepancy_id
      OFFSET 0
    )`
  },
  {
    check: "event-is-there-once",
    over: "itemsReported",
    // audit_event
    statement: `
  SELECT e.merchant_id, e.item_id, 'event ' || ${eventId} AS subject, count(*) AS times
  FROM audit_event e
  WHERE e.number IS NOT NULL
  GROUP BY e.posting_id, e.number, e.merchant_id, e.item_id
  HAVING count(*) > 1`
  },
  {
    // The same of events that are about no item: few.
    check: "event-is-there-once",
    over: "once",
    // audit_event
    statement: `
  SELECT e.merchant_id, 'event ' || ${eventId} AS subject, count(*) AS times
  FROM audit_event e
  WHERE e.item_id IS NULL AND ($1::text IS NULL OR e.merchant_id = $1::text)
  GROUP BY e.posting_id, e.number, e.merchant_id
  HAVING count(*) > 1`
  },
  {
    // Of one key, nothing is SENT before what came earlier. Rows behind the first that waits are looked at, if any is SENT.
    check: "sent-in-order",
    over: "once",
    // outbox_pending, outbox_pkey
    statement: `
  SELECT sent.event ->> 'merchantId' AS merchant_id, 'event ' || (sent.event ->> 'id') AS subject,
         sent.event ->> 'key' AS key, sent.position, earlier.position AS unsent_position
  FROM (
    SELECT o.bucket, o.position, e.event
    FROM (SELECT o.bucket, min(o.position) AS position FROM outbox o WHERE o.sent_at IS NULL GROUP BY o.bucket) first
    CROSS JOIN LATERAL (
      SELECT o.bucket, o.position, o.events
      FROM outbox o
      WHERE o.bucket = first.bucket AND o.position > first.position AND o.sent_at IS NOT NULL
      ORDER BY o.position
      LIMIT 100
    ) o
    CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN o.events IS JSON ARRAY THEN o.events::jsonb END) AS e (event)
  ) sent
  CROSS JOIN LATERAL (
    SELECT u.position
    FROM outbox u
    WHERE u.bucket = sent.bucket AND u.position < sent.position AND u.sent_at IS NULL
      AND strpos(u.events, '"key":' || (sent.event -> 'key')::text) > 0
    ORDER BY u.position
    LIMIT 1
  ) earlier
  WHERE $1::text IS NULL OR sent.event ->> 'merchantId' = $1::text`
  }
]
