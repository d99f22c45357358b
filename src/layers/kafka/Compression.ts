import kafkajs from "kafkajs"
import { setImmediate } from "node:timers/promises"
import { promisify } from "node:util"
import * as zlib from "node:zlib"

/**
 * What producers compress record batches with, by its number in the batch's attributes: gzip, Snappy, LZ4 and Zstandard.
 * Snappy and LZ4 are decoded here: both formats are frozen and take a page each, and what packages there are either
 * trust the lengths that they read or keep what they once took (docs/dependencies.md).
 */

/** A batch takes no more than this when it is unpacked: brokers bound it by what it takes packed. */
export const unpackedBytesMax = 128 * 1024 * 1024
/** Events compress nearly as well at the lowest level, in a third of the time. */
const compressionLevel = 1

const gunzip = promisify(zlib.gunzip)
const unzstd = promisify(zlib.zstdDecompress)

/** Fails with an error that says what is wrong with the bytes. */
export const decompress = async (
  codec: number,
  packed: Buffer,
  bytesMax = unpackedBytesMax
): Promise<Buffer> => {
  switch (codec) {
    case 1:
      return gunzip(packed, { maxOutputLength: bytesMax })
    case 2:
      return unsnap(packed, bytesMax)
    case 3:
      return unlz4(packed, bytesMax)
    case 4:
      return unzstd(packed, { maxOutputLength: bytesMax })
    default:
      throw new Error(`nobody here knows the compression ${codec}`)
  }
}

/** Has kafkajs decode what any producer may have compressed; what no codec can read becomes an unreadable record. */
export const registerCodecs = (): void => {
  for (let codec = 1; codec <= 7; codec++)
    (kafkajs.CompressionCodecs as Record<number, () => unknown>)[codec] = () => ({
      compress: ({ buffer }: { readonly buffer: Buffer }) =>
        setImmediate(zlib.gzipSync(buffer, { level: compressionLevel })),
      decompress: (packed: Buffer) =>
        decompress(codec, packed).catch((cause: unknown) => unreadableRecords(packed, cause))
    })
}

/** No producer writes a record's own attributes: they tell apart what stands here for records that cannot be read. */
const unreadable = 0x55
const filling = 0x56
/** More records than any batch has: kafkajs reads as many as the batch says it has, which no codec is told. */
const fillingCount = 1_000_000

/** Why this is no record: its value is the compressed records of a batch that cannot be read. */
export const unreadableReason = (record: {
  readonly attributes: number
  readonly key: Buffer | null
}): string | undefined => (record.attributes === unreadable ? String(record.key) : undefined)

export const isFilling = ({ attributes }: { readonly attributes: number }): boolean => attributes === filling

const unreadableRecords = (packed: Buffer, cause: unknown): Buffer => {
  const reason = Buffer.from(String((cause as Error).message))
  const body = Buffer.concat([
    Buffer.from([unreadable, 0, 0]),
    varint(reason.length),
    reason,
    varint(packed.length),
    packed,
    varint(0)
  ])
  // Each of six bytes: no key, no value, no headers.
  const fill = Buffer.alloc(7 * fillingCount, Buffer.from([12, filling, 0, 0, 1, 1, 0]))
  return Buffer.concat([varint(body.length), body, fill])
}

/** Zigzag, of a length. */
const varint = (length: number): Buffer => {
  const bytes: Array<number> = []
  let rest = 2 * length
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest & 0x7f) | 0x80)
  return Buffer.from([...bytes, rest])
}

const tooLarge = (bytesMax: number) => new Error(`unpacked it takes more than ${bytesMax} bytes`)
const cutShort = () => new Error("compressed bytes end early")
const broken = () => new Error("compressed bytes refer to what is not there")

// Snappy

/** Before the blocks of Java's producers; others send one block as it is. */
const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00])
/** The magic and two versions. */
const xerialHeadBytes = 16

const unsnap = (packed: Buffer, bytesMax: number): Buffer => {
  if (!packed.subarray(0, xerialMagic.length).equals(xerialMagic)) return unsnapBlock(packed, bytesMax)
  const blocks: Array<Buffer> = []
  let total = 0
  for (let at = xerialHeadBytes; at < packed.length;) {
    if (at + 4 > packed.length) throw cutShort()
    const length = packed.readUInt32BE(at)
    at += 4
    if (at + length > packed.length) throw cutShort()
    const block = unsnapBlock(packed.subarray(at, at + length), bytesMax - total)
    total += block.length
    blocks.push(block)
    at += length
  }
  return Buffer.concat(blocks, total)
}

/** https://github.com/google/snappy/blob/main/format_description.txt */
const unsnapBlock = (packed: Buffer, bytesMax: number): Buffer => {
  let at = 0
  let size = 0
  for (let shift = 0; ; shift += 7) {
    if (at >= packed.length || shift > 28) throw cutShort()
    const byte = packed[at++]!
    size += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  if (size > bytesMax) throw tooLarge(bytesMax)
  const unpacked = Buffer.allocUnsafe(size)
  let end = 0
  while (at < packed.length) {
    const tag = packed[at++]!
    const kind = tag & 3
    if (kind === 0) {
      let length = (tag >>> 2) + 1
      if (length > 60) {
        const lengthBytes = length - 60
        if (at + lengthBytes > packed.length) throw cutShort()
        length = packed.readUIntLE(at, lengthBytes) + 1
        at += lengthBytes
      }
      if (at + length > packed.length) throw cutShort()
      if (end + length > size) throw broken()
      packed.copy(unpacked, end, at, at + length)
      at += length
      end += length
      continue
    }
    const offsetBytes = kind === 3 ? 4 : kind
    if (at + offsetBytes > packed.length) throw cutShort()
    const length = kind === 1 ? ((tag >>> 2) & 7) + 4 : (tag >>> 2) + 1
    const back = packed.readUIntLE(at, offsetBytes) + (kind === 1 ? (tag >>> 5) << 8 : 0)
    at += offsetBytes
    if (end + length > size) throw broken()
    end = repeat(unpacked, end, back, length)
  }
  if (end !== size) throw cutShort()
  return unpacked
}

// LZ4

const lz4Magic = 0x184d2204
const storedBlock = 0x80000000
/** By the three bits of the frame's descriptor; the first four mean nothing. */
const lz4BlockBytes: ReadonlyArray<number> = [0, 0, 0, 0, 1 << 16, 1 << 18, 1 << 20, 1 << 22]

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md; the checksums are left to whoever sent it. */
const unlz4 = (packed: Buffer, bytesMax: number): Buffer => {
  if (packed.length < 7) throw cutShort()
  if (packed.readUInt32LE(0) !== lz4Magic) throw new Error("compressed bytes are no LZ4 frame")
  const flags = packed[4]!
  if (flags >>> 6 !== 1 || (flags & 1) !== 0)
    throw new Error("an LZ4 frame of another version, or with a dictionary")
  const blockBytesMax = lz4BlockBytes[(packed[5]! >>> 4) & 7]!
  const blockTrailBytes = (flags & 0x10) === 0 ? 0 : 4
  // Behind the descriptor, the size of the content if it is said, and the descriptor's checksum.
  let at = 6 + ((flags & 0x08) === 0 ? 0 : 8) + 1
  let unpacked = Buffer.allocUnsafe(Math.min(bytesMax, blockBytesMax + 4 * packed.length))
  let end = 0
  for (;;) {
    if (at + 4 > packed.length) throw cutShort()
    const head = packed.readUInt32LE(at)
    at += 4
    if (head === 0) return unpacked.subarray(0, end)
    const length = head & ~storedBlock
    if (at + length > packed.length) throw cutShort()
    if (end + blockBytesMax > unpacked.length) {
      // A block may be smaller than its bound: only what it takes counts.
      const grown = Buffer.allocUnsafe(
        Math.min(bytesMax + blockBytesMax, 2 * unpacked.length + blockBytesMax)
      )
      unpacked.copy(grown, 0, 0, end)
      unpacked = grown
    }
    const block = packed.subarray(at, at + length)
    const room = Math.min(unpacked.length, end + blockBytesMax)
    if (head >= storedBlock) {
      if (end + length > room) throw broken()
      block.copy(unpacked, end)
      end += length
    } else end = unlz4Block(block, unpacked, end, room)
    if (end > bytesMax) throw tooLarge(bytesMax)
    at += length + blockTrailBytes
  }
}

/** A block may refer to what the blocks before it left. Answers with where it ends. */
const unlz4Block = (packed: Buffer, unpacked: Buffer, from: number, room: number): number => {
  let at = 0
  let end = from
  const more = (length: number): number => {
    for (;;) {
      if (at >= packed.length) throw cutShort()
      const byte = packed[at++]!
      length += byte
      if (byte !== 255) return length
    }
  }
  while (at < packed.length) {
    const token = packed[at++]!
    const literals = token >>> 4 === 15 ? more(15) : token >>> 4
    if (at + literals > packed.length) throw cutShort()
    if (end + literals > room) throw broken()
    packed.copy(unpacked, end, at, at + literals)
    at += literals
    end += literals
    // The last sequence has nothing but literals.
    if (at === packed.length) return end
    if (at + 2 > packed.length) throw cutShort()
    const back = packed.readUInt16LE(at)
    at += 2
    const length = ((token & 15) === 15 ? more(15) : token & 15) + 4
    if (end + length > room) throw broken()
    end = repeat(unpacked, end, back, length)
  }
  return end
}

/** Writes again what lies that far back, which may be what is being written. Answers with where it ends. */
const repeat = (bytes: Buffer, end: number, back: number, length: number): number => {
  if (back === 0 || back > end) throw broken()
  const start = end - back
  if (back >= length && length > 16) bytes.copyWithin(end, start, start + length)
  else for (let index = 0; index < length; index++) bytes[end + index] = bytes[start + index]!
  return end + length
}
