import { defineTable, int8, jsonb, type RowOf, text, timestamptz, uuid } from "../Table.ts"

/** What a repair of the books leaves behind. */

/** From where the chain of a stock's movements goes on. */
export const checkpoints = defineTable({
  name: "ledger_checkpoint",
  key: { merchantId: text(), stockId: uuid(), sequence: int8() },
  fixed: {
    recordedAt: timestamptz(),
    onHand: int8(),
    reserved: int8(),
    unallocatable: int8(),
    kind: text<"CHECKPOINT">(),
    actor: text(),
    reason: text(),
    createdAt: timestamptz()
  },
  changing: {}
})({
  onConflict: "ON CONFLICT (merchant_id, stock_id, sequence) DO NOTHING",
  appendOnly: "holdfast_is_append_only"
})
export type CheckpointRow = RowOf<typeof checkpoints>

/** What was repaired, or acknowledged, of what the audit found. */
export const repairs = defineTable({
  name: "audit_repair",
  key: { merchantId: text(), repairId: uuid() },
  fixed: {
    finding: text(),
    invariant: text(),
    action: text(),
    subject: text(),
    before: jsonb(),
    after: jsonb(),
    actor: text(),
    reason: text(),
    repairedAt: timestamptz()
  },
  changing: {}
})({ appendOnly: "holdfast_is_append_only" })
