/** How the outbox is shared out: a key's events are all in one bucket, and a bucket has one dispatcher at a time. */

export const outboxBuckets = 4
/** Notified with the buckets that were written to. */
export const outboxChannel = "holdfast_outbox"

/** FNV-1a: the bucket of a key, the same in every process. */
export const bucketOf = (key: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  return (hash >>> 0) % outboxBuckets
}
