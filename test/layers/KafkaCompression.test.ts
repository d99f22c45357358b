import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { decompress } from "../../src/layers/kafka/Compression.ts"

// Goal: whatever a foreign producer may have compressed is read, or named as what cannot be read.
// Method: compressed bytes made by hand, byte by byte.

// What cannot be had from a real Kafka, which packs as Java does (KafkaBroker.test.ts), is packed here by hand: literals
// alone, and one repetition that overlaps itself.

const runOf = (bytes: Buffer): number => {
  let from = bytes.length
  while (from > 1 && bytes[from - 2] === bytes[from - 1]) from--
  return from
}

/** Literals up to the last run, and the run by copies of one byte back, in the three forms that a copy has. */
const snappyOf = (bytes: Buffer): Buffer => {
  const literals = runOf(bytes)
  const size: Array<number> = []
  let rest = bytes.length
  for (; rest > 0x7f; rest >>>= 7) size.push((rest & 0x7f) | 0x80)
  size.push(rest)
  const parts: Array<Buffer> = [Buffer.from([...size, 62 << 2, 0, 0, 0])]
  parts[0]!.writeUIntLE(literals - 1, size.length + 1, 3)
  parts.push(bytes.subarray(0, literals))
  for (let left = bytes.length - literals, turn = 0; left > 0; turn++) {
    const length = Math.min(left, left >= 4 && turn % 3 === 0 ? 11 : 64)
    left -= length
    if (turn % 3 === 0 && length >= 4 && length <= 11) parts.push(Buffer.from([((length - 4) << 2) | 1, 1]))
    else if (turn % 3 === 2) parts.push(Buffer.from([((length - 1) << 2) | 3, 1, 0, 0, 0]))
    else parts.push(Buffer.from([((length - 1) << 2) | 2, 1, 0]))
  }
  return Buffer.concat(parts)
}

const xerialOf = (bytes: Buffer): Buffer => {
  const blocks: Array<Buffer> = [
    Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1])
  ]
  for (let at = 0; at < bytes.length; at += 100) {
    const block = snappyOf(bytes.subarray(at, at + 100))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(block.length)
    blocks.push(length, block)
  }
  return Buffer.concat(blocks)
}

const lz4Length = (length: number): ReadonlyArray<number> => {
  if (length < 15) return []
  const more: Array<number> = []
  let left = length - 15
  for (; left >= 255; left -= 255) more.push(255)
  return [...more, left]
}

const lz4BlockHead = (length: number, mark = 0) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(length + mark)
  return bytes
}

/** Blocks that refer to those before them, each with a checksum, and one that is stored as it is. */
const lz4Of = (bytes: Buffer): Buffer => {
  const at = Math.min(40, bytes.length - 1)
  const stored = bytes.subarray(0, at)
  const rest = bytes.subarray(at)
  const literals = runOf(rest)
  // The run may be as short as a match must not be, and a block ends with literals.
  const run = rest.length - literals - 5
  const sequences =
    run < 4
      ? [Buffer.from([Math.min(15, rest.length) << 4, ...lz4Length(rest.length)]), rest]
      : [
          Buffer.from([(Math.min(15, literals) << 4) | Math.min(15, run - 4), ...lz4Length(literals)]),
          rest.subarray(0, literals),
          Buffer.from([1, 0, ...lz4Length(run - 4), 5 << 4]),
          rest.subarray(-5)
        ]
  const packed = Buffer.concat(sequences)
  const checksum = Buffer.alloc(4)
  return Buffer.concat([
    Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x50, 0x70, 0]),
    lz4BlockHead(stored.length, 0x80000000),
    stored,
    checksum,
    lz4BlockHead(packed.length),
    packed,
    checksum,
    lz4BlockHead(0)
  ])
}

const refusal = (codec: number, bytes: Buffer, bytesMax?: number): Promise<string> =>
  decompress(codec, bytes, bytesMax).then(
    () => "nothing",
    (cause: unknown) => String(cause)
  )

describe("compressed bytes", () => {
  it("take no more than they may, whatever they say of themselves", async () => {
    const large = Buffer.alloc(70_000, 1)
    for (const [codec, pack] of [
      [1, gzipSync],
      [2, snappyOf],
      [2, xerialOf],
      [3, lz4Of],
      [4, zstdCompressSync]
    ] as const) {
      const packed = pack(large)
      assert.isTrue((await decompress(codec, packed)).equals(large), String(codec))
      assert.match(await refusal(codec, packed, 60_000), /larger|more than/i)
    }
    // A gigabyte, it says.
    assert.match(await refusal(2, Buffer.from([0x80, 0x80, 0x80, 0x80, 0x04, 0])), /more than/)
  })

  it("that were damaged are refused or read as something else, and never read past their end", async () => {
    const content = Buffer.from("the quick brown fox ".repeat(20) + "z".repeat(200))
    const packed = [
      [2, snappyOf(content)],
      [2, xerialOf(content)],
      [3, lz4Of(content)]
    ] as const
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...packed),
        fc.nat(),
        fc.nat(255),
        fc.boolean(),
        async ([codec, whole], at, byte, cut) => {
          const damaged = Buffer.from(whole)
          damaged[at % damaged.length] = byte
          const bytes = cut ? damaged.subarray(0, at % damaged.length) : damaged
          const outcome = await decompress(codec, bytes, 100_000).then(
            (unpacked) => unpacked.length,
            (cause: unknown) => cause
          )
          if (typeof outcome !== "number") assert.instanceOf(outcome, Error)
          else assert.isAtMost(outcome, 100_000)
        }
      ),
      { numRuns: 500 }
    )
  })
})
