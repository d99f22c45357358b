import { defineTable, jsonb, readBy, type RowOf, by, text } from "../Table.ts"

/** What was loaded from files (decision 23). */

/** Which lines of a part of a file were loaded, when, and by which run of an import. */
export const fileChunks = defineTable({
  name: "file_chunk",
  /** `chunkKey`: the SHA-256 of the file, and the number of the part. */
  key: { merchantId: text(), chunkKey: text() },
  fixed: {},
  changing: { loads: jsonb() }
})({ indexes: { byKey: by("chunkKey") } })
export type FileChunkRow = RowOf<typeof fileChunks>

// file_chunk_pkey
export const fileChunkByKey = readBy(fileChunks, "chunkKey")
