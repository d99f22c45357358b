import kafkajs from "kafkajs"
import lz4 from "lz4-napi"
import { setImmediate } from "node:timers/promises"
import { promisify } from "node:util"
import * as zlib from "node:zlib"
import snappy from "snappy"

/** What producers compress record batches with, by its number in the batch's attributes: gzip, Snappy, LZ4 and Zstandard. */

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
      return atMost(await lz4.decompressFrame(packed), bytesMax)
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
      // On the spot: the round trips to another thread cost more. What waits comes through between the batches.
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

/** An LZ4 frame is known by its length only once it is unpacked: at most 255 times what it takes packed. */
const atMost = (unpacked: Buffer, bytesMax: number): Buffer => {
  if (unpacked.length > bytesMax) throw tooLarge(bytesMax)
  return unpacked
}

/** Before the blocks of Java's producers; others send one block as it is. */
const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00])
/** The magic and two versions. */
const xerialHeadBytes = 16

const unsnap = async (packed: Buffer, bytesMax: number): Promise<Buffer> => {
  if (!packed.subarray(0, xerialMagic.length).equals(xerialMagic)) return unsnapBlock(packed, bytesMax)
  const blocks: Array<Buffer> = []
  let total = 0
  for (let at = xerialHeadBytes; at < packed.length;) {
    if (at + 4 > packed.length) throw cutShort()
    const length = packed.readUInt32BE(at)
    at += 4
    if (at + length > packed.length) throw cutShort()
    const block = await unsnapBlock(packed.subarray(at, at + length), bytesMax - total)
    total += block.length
    blocks.push(block)
    at += length
  }
  return Buffer.concat(blocks, total)
}

/** A block begins with its size when it is unpacked, which the package allocates whatever it says. */
const unsnapBlock = async (packed: Buffer, bytesMax: number): Promise<Buffer> => {
  let size = 0
  for (const [index, byte] of packed.subarray(0, 5).entries()) {
    size += (byte & 0x7f) * 2 ** (7 * index)
    if (byte < 0x80) break
  }
  if (size > bytesMax) throw tooLarge(bytesMax)
  return (await snappy.uncompress(packed)) as Buffer
}
