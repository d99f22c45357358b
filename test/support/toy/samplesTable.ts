import { by, defineTable, int8, readBy, text, timestamptz, uuid } from "../../../src/services/kernel/Table.ts"

/** Units that somebody took away to look at: a table that only the test of the kernel's lists knows. */
export const samples = defineTable({
  name: "sample",
  key: { merchantId: text(), sampleId: text() },
  fixed: { itemId: uuid(), takenAt: timestamptz() },
  changing: { quantity: int8() }
})({ indexes: { byId: by("sampleId") }, itemsOf: ({ itemId }) => [itemId] })

// sample_pkey
export const sampleById = readBy(samples, "sampleId")

/** The migration that goes with it. */
export const createSamples = `
  CREATE TABLE sample (
    merchant_id text NOT NULL,
    sample_id text NOT NULL,
    item_id uuid NOT NULL,
    taken_at timestamptz NOT NULL,
    quantity bigint NOT NULL,
    PRIMARY KEY (merchant_id, sample_id)
  )`
