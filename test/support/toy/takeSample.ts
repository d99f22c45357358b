import { Schema } from "effect"
import { InsufficientStock, ItemNotFound } from "../../../src/schema/Failure.ts"
import { ItemRef, nameOf } from "../../../src/schema/Item.ts"
import { commandShape, defineCommand, type PayloadOf } from "../../../src/services/kernel/Command.ts"
import { shortLine } from "../../../src/services/kernel/holds.ts"
import { allocate } from "../../../src/services/kernel/pickOrder.ts"
import { answered, refused } from "../../../src/services/kernel/Posting.ts"
import { sampleById, samples } from "./samplesTable.ts"

const takeSampleShape = commandShape({
  tag: "TakeSample",
  payload: { sampleId: Schema.String, item: ItemRef, quantity: Schema.Number },
  answer: Schema.Struct({ taken: Schema.Number, total: Schema.Number }),
  refusals: [ItemNotFound, InsufficientStock],
  version: 2,
  // The first form of the answer had no total: it was of what was taken then.
  upgrade: (kept, version) =>
    version === 1 ? { ...(kept as object), total: (kept as { taken: number }).taken } : kept
})
export type TakeSample = PayloadOf<typeof takeSampleShape>

/** Takes units of an item away, to be looked at: a command that only the test of the kernel's lists knows. */
export const takeSample = defineCommand(takeSampleShape, {
  source: "MANUAL_ADJUSTMENT",
  needs: (need, { item, sampleId }) => ({ item: need.item(item), sample: need.row(sampleById, sampleId) }),
  decide: (context, { item: ref, quantity, sampleId }, keys) => {
    const { at: takenAt, merchantId, unit } = context
    const item = context.findItem(keys.item)
    if (item === undefined) return refused(new ItemNotFound({ items: [nameOf(ref)] }))
    const { picks, short } = allocate(unit.stocksOf(item), quantity, context.at)
    if (short > 0)
      return refused(new InsufficientStock({ items: [shortLine(item, quantity, quantity - short)] }))
    for (const pick of picks) context.move(pick.stock, "ADJUSTMENT", { onHand: -pick.quantity })
    const known = context.row(sampleById, keys.sample)
    const rows = unit.rows(samples)
    const total = (known?.quantity ?? 0) + quantity
    if (known === undefined) rows.insert({ merchantId, sampleId, itemId: item.itemId, takenAt, quantity })
    else rows.update(known, { quantity: total })
    return answered({ taken: quantity, total })
  }
})
