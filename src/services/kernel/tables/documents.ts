import type { DiscrepancyKind, DiscrepancyStatus } from "../../../schema/Discrepancy.ts"
import { rowsOf } from "../../PostgresTypes.ts"
import { discrepancyQuestions, trackingQuestions } from "../questions/documents.ts"
import {
  by,
  columnsOf,
  defineTable,
  jsonb,
  orNull,
  readBy,
  readOfItems,
  rowReader,
  type RowOf,
  text,
  timestamptz,
  uuid
} from "../Table.ts"

/** What was applied and answered already, and where facts contradict the books. */

export const tracking = defineTable({
  name: "tracking",
  key: { merchantId: text(), trackingKey: text() },
  fixed: { postingId: uuid(), answer: orNull(text()), recordedAt: timestamptz() },
  changing: {}
})({ indexes: { byKey: by("trackingKey") }, questions: trackingQuestions })
export type TrackingRow = RowOf<typeof tracking>

// tracking_pkey
export const trackingByKey = readBy(tracking, "trackingKey")

export const idempotency = defineTable({
  name: "idempotency",
  key: { merchantId: text(), idempotencyKey: text() },
  fixed: { fingerprint: text(), answer: text(), createdAt: timestamptz() },
  changing: {}
})({
  // A key past its age may be used again: its old row makes way.
  onConflict: `ON CONFLICT (merchant_id, idempotency_key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at`,
  indexes: { byKey: by("idempotencyKey") }
})
export type IdempotencyRow = RowOf<typeof idempotency>

// idempotency_pkey
export const idempotencyByKey = readBy(idempotency, "idempotencyKey")

const discrepancy = defineTable({
  name: "discrepancy",
  key: { merchantId: text(), discrepancyId: uuid() },
  fixed: {
    kind: text<DiscrepancyKind>(),
    /** What there is one open discrepancy of a kind for: a stock, an item, an order, a tracking key. */
    subject: text(),
    stockId: orNull(uuid()),
    itemId: orNull(uuid()),
    orderId: orNull(text()),
    openedAt: timestamptz()
  },
  changing: {
    detail: jsonb(),
    status: text<DiscrepancyStatus>(),
    closedAt: orNull(timestamptz()),
    closedBy: orNull(text()),
    reason: orNull(text())
  }
})({
  unique: [["merchantId", "subject", "kind"]],
  indexes: {
    byId: by("discrepancyId"),
    open: {
      fields: ["status"],
      nameOf: ({ kind, status, subject }) => (status === "OPEN" ? openName(subject, kind) : null)
    }
  },
  itemsOf: ({ itemId }) => (itemId === null ? [] : [itemId]),
  questions: discrepancyQuestions
})
export type DiscrepancyRow = RowOf<typeof discrepancy>

/** What an open discrepancy is found by. */
export const openName = (subject: string, kind: DiscrepancyKind): string => `${subject} ${kind}`

/** What is open about the items that are locked, and about the batch's orders. */
export const discrepancies = readOfItems(discrepancy, {
  // discrepancy_open_by_item, discrepancy_one_open. UNION, because OR scans the table, and takes away what is both.
  statement: `
  SELECT ${columnsOf(discrepancy, "d")}
  FROM ${rowsOf(["merchant_id", "item_id"])} AS wanted
  JOIN discrepancy d
    ON d.merchant_id = wanted.merchant_id AND d.item_id = wanted.item_id AND d.status = 'OPEN'
  UNION ALL
  SELECT ${columnsOf(discrepancy, "d")}
  FROM ${rowsOf(["merchant_id", "subject"], 3)} AS wanted
  JOIN discrepancy d
    ON d.merchant_id = wanted.merchant_id AND d.subject = wanted.subject AND d.status = 'OPEN'`,
  subjects: true,
  rowOf: rowReader(discrepancy)
})

// discrepancy_pkey
export const discrepancyById = readBy(discrepancies, "discrepancyId")
