import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import lz4 from "lz4-napi"
import { gzipSync, zstdCompressSync } from "node:zlib"
import snappy from "snappy"
import { decompress } from "../../src/layers/kafka/Compression.ts"

// Goal: whatever a foreign producer may have compressed is read, or named as what cannot be read.
// Method: compressed bytes as other producers send them, whole and damaged (KafkaBroker.test.ts has those of Java).

/** As Java's producers do, in several blocks. */
const xerialOf = (bytes: Buffer): Buffer => {
  const blocks: Array<Buffer> = [
    Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1])
  ]
  for (let at = 0; at < bytes.length; at += 100) {
    const block = snappy.compressSync(bytes.subarray(at, at + 100))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(block.length)
    blocks.push(length, block)
  }
  return Buffer.concat(blocks)
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
      [2, snappy.compressSync],
      [2, xerialOf],
      [3, lz4.compressFrameSync],
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
      [2, snappy.compressSync(content)],
      [2, xerialOf(content)],
      [3, lz4.compressFrameSync(content)]
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
