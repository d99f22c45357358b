/**
 * Where a key goes: as Java's producer has it, so that the messages of a key meet in one partition whoever sends them.
 */

const m = 0x5bd1e995
const seed = 0x9747b28c

/** MurmurHash2 in 32 bits, as org.apache.kafka.common.utils.Utils.murmur2; signed. */
export const murmur2 = (bytes: Uint8Array): number => {
  const { length } = bytes
  let hash = seed ^ length
  const whole = length - (length % 4)
  for (let at = 0; at < whole; at += 4) {
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    k = Math.imul(k, m)
    k ^= k >>> 24
    hash = Math.imul(hash, m) ^ Math.imul(k, m)
  }
  const rest = length - whole
  if (rest >= 3) hash ^= bytes[whole + 2]! << 16
  if (rest >= 2) hash ^= bytes[whole + 1]! << 8
  if (rest >= 1) hash = Math.imul(hash ^ bytes[whole]!, m)
  hash ^= hash >>> 13
  hash = Math.imul(hash, m)
  return hash ^ (hash >>> 15)
}

export const partitionOf = (key: Uint8Array, partitions: number): number =>
  (murmur2(key) & 0x7fffffff) % partitions
