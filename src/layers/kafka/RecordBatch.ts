import { promisify } from "node:util"
import { gzip } from "node:zlib"
import { crc32c } from "./Protocol.ts"

/**
 * The body of a Produce request, versions 3 to 7, and its record batches in format 2: one pass over the messages into
 * one buffer. kafkajs encodes each field into a buffer of its own, which costs several times as much as all the rest.
 */

export interface OutgoingRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, string>>
}

export interface OutgoingBatch {
  readonly topic: string
  readonly partition: number
  readonly records: ReadonlyArray<OutgoingRecord>
}

const compress = promisify(gzip)
/** Events compress nearly as well at the lowest level, in a third of the time. */
const compressionLevel = 1
const gzipped = 1
const magic = 2
const allInSyncReplicas = -1
/** From the offset to the checksum, and from there to the records. */
const headBytes = 21
const bodyHeadBytes = 40
/** More than the lengths of a record, or of a header, ever take. */
const lengthsBytesMax = 48

export const encodeProduce = async (
  batches: ReadonlyArray<OutgoingBatch>,
  timeoutMs: number,
  timestamp: number
): Promise<Buffer> => {
  // All at once: compressing is done beside this thread.
  const encoded = await Promise.all(
    batches.map(async ({ partition, records, topic }) => ({
      topic,
      partition,
      bytes: await encodeBatch(records, timestamp)
    }))
  )
  const byTopic = Map.groupBy(encoded, ({ topic }) => topic)
  const head = Buffer.alloc(12)
  head.writeInt16BE(-1, 0) // no transaction
  head.writeInt16BE(allInSyncReplicas, 2)
  head.writeInt32BE(timeoutMs, 4)
  head.writeInt32BE(byTopic.size, 8)
  const parts: Array<Buffer> = [head]
  for (const [topic, of] of byTopic) {
    const name = Buffer.from(topic)
    const topicHead = Buffer.alloc(6 + name.length)
    topicHead.writeInt16BE(name.length, 0)
    name.copy(topicHead, 2)
    topicHead.writeInt32BE(of.length, 2 + name.length)
    parts.push(topicHead)
    for (const { bytes, partition } of of) {
      const partitionHead = Buffer.alloc(8)
      partitionHead.writeInt32BE(partition, 0)
      partitionHead.writeInt32BE(bytes.length, 4)
      parts.push(partitionHead, bytes)
    }
  }
  return Buffer.concat(parts)
}

const encodeBatch = async (records: ReadonlyArray<OutgoingRecord>, timestamp: number): Promise<Buffer> => {
  const packed = await compress(encodeRecords(records), { level: compressionLevel })
  const batch = Buffer.alloc(headBytes + bodyHeadBytes + packed.length)
  batch.writeBigInt64BE(0n, 0)
  batch.writeInt32BE(batch.length - 12, 8)
  batch.writeInt32BE(-1, 12) // no leader epoch
  batch.writeInt8(magic, 16)
  const body = batch.subarray(headBytes)
  body.writeInt16BE(gzipped, 0)
  body.writeInt32BE(records.length - 1, 2)
  body.writeBigInt64BE(BigInt(timestamp), 6)
  body.writeBigInt64BE(BigInt(timestamp), 14)
  body.writeBigInt64BE(-1n, 22) // not idempotent: no producer, epoch and sequence
  body.writeInt16BE(-1, 30)
  body.writeInt32BE(-1, 32)
  body.writeInt32BE(records.length, 36)
  packed.copy(body, bodyHeadBytes)
  batch.writeUInt32BE(crc32c(body), 17)
  return batch
}

const encodeRecords = (records: ReadonlyArray<OutgoingRecord>): Buffer => {
  let size = 0
  for (const { headers, key, value } of records) {
    size += lengthsBytesMax + (key?.length ?? 0) + (value?.length ?? 0)
    for (const name in headers)
      // A character of UTF-16 takes at most three bytes.
      size += lengthsBytesMax + 3 * (name.length + headers[name]!.length)
  }
  const bytes = Buffer.allocUnsafe(size)
  let at = 0
  for (const [index, { headers, key, value }] of records.entries()) {
    // The length comes first and is known last: room for the longest one, and what it does not need is closed up.
    const start = at + 5
    let end = start
    bytes[end++] = 0
    bytes[end++] = 0 // all of a batch have its time
    end = writeVarint(bytes, end, index)
    end = writeBytes(bytes, end, key)
    end = writeBytes(bytes, end, value)
    const names = Object.keys(headers)
    end = writeVarint(bytes, end, names.length)
    for (const name of names) {
      end = writeText(bytes, end, name)
      end = writeText(bytes, end, headers[name]!)
    }
    const length = end - start
    const body = writeVarint(bytes, at, length)
    bytes.copyWithin(body, start, end)
    at = body + length
  }
  return bytes.subarray(0, at)
}

/** Numbers of 31 bits, zigzag. */
const writeVarint = (bytes: Buffer, from: number, value: number): number => {
  let rest = ((value << 1) ^ (value >> 31)) >>> 0
  let at = from
  while (rest > 0x7f) {
    bytes[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[at++] = rest
  return at
}

const writeBytes = (bytes: Buffer, from: number, content: Buffer | null): number => {
  if (content === null) return writeVarint(bytes, from, -1)
  const at = writeVarint(bytes, from, content.length)
  content.copy(bytes, at)
  return at + content.length
}

const writeText = (bytes: Buffer, from: number, text: string): number => {
  const length = Buffer.byteLength(text)
  const at = writeVarint(bytes, from, length)
  bytes.write(text, at, length)
  return at + length
}
