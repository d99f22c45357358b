import { decompress } from "./Compression.ts"

/**
 * The answer to a Fetch request of version 11 (Kafka 2.4), and the record batches in it. kafkajs cannot tell where to read
 * on behind a batch that was compacted away, lets records of aborted transactions through where several overlap, and
 * fails all partitions for what it cannot read in one.
 */

export const fetchVersion = 11

export interface FetchedRecord {
  readonly offset: number
  readonly timestamp: number
  readonly key: string | null
  /** Of headers that come several times the last one counts. */
  readonly headers: Readonly<Record<string, string>>
  readonly value: Buffer | null
}

/** A batch that cannot be read, from its first offset to its last, as it came. */
export interface UnreadableBatch {
  readonly first: number
  readonly last: number
  readonly timestamp: number
  readonly bytes: Buffer
  readonly reason: string
}

export interface FetchedPartition {
  readonly partition: number
  readonly errorCode: number
  /**
   * Without what is for no consumer: markers of transactions, and what those left that were aborted. A batch is not cut,
   * so that its first records may lie before what was asked for.
   */
  readonly records: ReadonlyArray<FetchedRecord>
  /** Where to read on, or `undefined` where nothing was in it. Before `unreadable`, if there is one. */
  readonly next: number | undefined
  readonly unreadable: UnreadableBatch | undefined
}

export interface FetchAnswer {
  readonly errorCode: number
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<FetchedPartition>
  }>
}

interface AbortedTransaction {
  readonly producerId: bigint
  readonly first: number
}

export const decodeFetch = async (bytes: Buffer): Promise<FetchAnswer> => {
  let at = 4 // how long the broker wants to be left alone: it sees to that itself
  const int32 = () => bytes.readInt32BE((at += 4) - 4)
  const int16 = () => bytes.readInt16BE((at += 2) - 2)
  const int64 = () => bytes.readBigInt64BE((at += 8) - 8)
  const errorCode = int16()
  at += 4 // no session was asked for
  const topics: Array<FetchAnswer["topics"][number]> = []
  for (let topicsLeft = int32(); topicsLeft > 0; topicsLeft--) {
    const nameBytes = int16()
    const topic = bytes.toString("utf8", at, (at += nameBytes))
    const partitions: Array<FetchedPartition> = []
    for (let partitionsLeft = int32(); partitionsLeft > 0; partitionsLeft--) {
      const partition = int32()
      const partitionCode = int16()
      at += 24 // where the log begins, ends, and is stable
      const aborted: Array<AbortedTransaction> = []
      for (let abortedLeft = int32(); abortedLeft > 0; abortedLeft--)
        aborted.push({ producerId: int64(), first: Number(int64()) })
      at += 4 // no replica is preferred by whoever names no rack
      const length = Math.max(0, int32())
      const batches = bytes.subarray(at, (at += length))
      partitions.push({ partition, errorCode: partitionCode, ...(await decodeBatches(batches, aborted)) })
    }
    topics.push({ topic, partitions })
  }
  return { errorCode, topics }
}

/** Where the fields of a batch are: https://kafka.apache.org/documentation/#recordbatch */
const fields = {
  length: 8,
  magic: 16,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  recordCount: 57,
  records: 61
} as const
/** The offset and the length, which the length does not count. */
const frameBytes = 12
const batchFormat = 2
const codecMask = 0x07
const logAppendTime = 0x08
const transactional = 0x10
const control = 0x20

/** The batches of a partition. `aborted` says for each producer where a transaction begins that was aborted. */
export const decodeBatches = async (
  bytes: Buffer,
  aborted: ReadonlyArray<AbortedTransaction>
): Promise<Pick<FetchedPartition, "records" | "next" | "unreadable">> => {
  const records: Array<FetchedRecord> = []
  const ahead = aborted.toSorted((a, b) => a.first - b.first)
  const aborting = new Set<bigint>()
  let next: number | undefined
  for (let at = 0; at + frameBytes <= bytes.length;) {
    const end = at + frameBytes + bytes.readInt32BE(at + fields.length)
    // The last one may be cut.
    if (end > bytes.length) break
    const batch = bytes.subarray(at, end)
    at = end
    const first = Number(batch.readBigInt64BE(0))
    const magic = batch[fields.magic]!
    if (magic !== batchFormat) {
      const reason = `its format is ${magic}, that of before Kafka 0.11`
      return {
        records,
        next: next ?? first,
        unreadable: { first, last: first, timestamp: 0, bytes: batch, reason }
      }
    }
    const last = first + batch.readInt32BE(fields.lastOffsetDelta)
    const attributes = batch.readInt16BE(fields.attributes)
    const producerId = batch.readBigInt64BE(fields.producerId)
    while (ahead.length > 0 && ahead[0]!.first <= last) aborting.add(ahead.shift()!.producerId)
    if ((attributes & control) !== 0) {
      if (isAbort(batch)) aborting.delete(producerId)
    } else if ((attributes & transactional) === 0 || !aborting.has(producerId)) {
      try {
        // One by one: a batch may have more than fit on the stack.
        for (const record of await decodeRecords(batch, first, attributes)) records.push(record)
      } catch (cause) {
        const timestamp = Number(batch.readBigInt64BE(fields.maxTimestamp))
        const reason = cause instanceof Error ? cause.message : String(cause)
        return { records, next: next ?? first, unreadable: { first, last, timestamp, bytes: batch, reason } }
      }
    }
    // Of what was compacted away the batch may be all that is left: its records end before it does, or there are none.
    next = last + 1
  }
  return { records, next, unreadable: undefined }
}

/** The key of a control record is a version and its type. */
const isAbort = (batch: Buffer): boolean => {
  if (batch.readInt32BE(fields.recordCount) === 0) return false
  const reader = new Reader(batch, fields.records)
  reader.record()
  const key = reader.bytesOrNull()
  return key !== null && key.length >= 4 && key.readInt16BE(2) === 0
}

const decodeRecords = async (
  batch: Buffer,
  first: number,
  attributes: number
): Promise<ReadonlyArray<FetchedRecord>> => {
  const count = batch.readInt32BE(fields.recordCount)
  if (count === 0) return []
  const reader = new Reader(await decompress(attributes & codecMask, batch.subarray(fields.records)), 0)
  const baseTimestamp = Number(batch.readBigInt64BE(fields.baseTimestamp))
  const appendedAt =
    (attributes & logAppendTime) === 0 ? undefined : Number(batch.readBigInt64BE(fields.maxTimestamp))
  const records: Array<FetchedRecord> = []
  for (let index = 0; index < count; index++) {
    const { offsetDelta, timestampDelta } = reader.record()
    const key = reader.bytesOrNull()
    const value = reader.bytesOrNull()
    records.push({
      offset: first + offsetDelta,
      timestamp: appendedAt ?? baseTimestamp + timestampDelta,
      key: key === null ? null : key.toString(),
      headers: reader.headers(),
      value
    })
  }
  return records
}

/** Reads one record after the other. */
class Reader {
  private readonly bytes: Buffer
  private at: number

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes
    this.at = at
  }
  /** The beginning of a record, up to its key. */
  record(): { readonly timestampDelta: number; readonly offsetDelta: number } {
    this.varint() // its length
    this.at += 1 // no attributes are known
    return { timestampDelta: this.varint(), offsetDelta: this.varint() }
  }
  bytesOrNull(): Buffer | null {
    const length = this.varint()
    if (length < 0) return null
    const start = this.at
    this.at += length
    if (this.at > this.bytes.length) throw new Error("a record ends early")
    return this.bytes.subarray(start, this.at)
  }
  headers(): Readonly<Record<string, string>> {
    const headers: Record<string, string> = {}
    for (let left = this.varint(); left > 0; left--) {
      const name = this.bytesOrNull()?.toString() ?? ""
      headers[name] = this.bytesOrNull()?.toString() ?? ""
    }
    return headers
  }
  /** Zigzag, of up to 64 bits: more than a number holds is in no field that is read here. */
  private varint(): number {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[this.at++]
      if (byte === undefined || scale > 2 ** 63) throw new Error("a record ends early")
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2
    }
  }
}
