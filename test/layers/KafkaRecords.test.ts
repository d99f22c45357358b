import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { decompress } from "../../src/layers/kafka/Compression.ts"
import { decodeBatches } from "../../src/layers/kafka/FetchAnswer.ts"

// Goal: whatever a foreign producer may have written, and compaction may have left, is read in its place or named.
// Method: record batches made by hand, byte by byte, as Kafka's documentation has them.

const varint = (value: number): Buffer => {
  const bytes: Array<number> = []
  let rest = BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n))
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  return Buffer.from([...bytes, Number(rest)])
}
const sized = (content: Buffer | string | null): ReadonlyArray<Buffer> =>
  content === null ? [varint(-1)] : [varint(Buffer.byteLength(content)), Buffer.from(content)]

interface Written {
  readonly offset: number
  readonly value?: string | null
  readonly key?: Buffer | string | null
  readonly headers?: ReadonlyArray<readonly [string, string | null]>
  readonly timestamp?: number
}

interface Options {
  readonly last?: number
  readonly attributes?: number
  readonly producerId?: bigint
  readonly pack?: (bytes: Buffer) => Buffer
  readonly magic?: number
  readonly maxTimestamp?: number
}

const baseTimestamp = 1_700_000_000_000

const batch = (first: number, written: ReadonlyArray<Written>, options: Options = {}): Buffer => {
  const records = written.map(
    ({ headers = [], key = null, offset, timestamp = baseTimestamp, value = `${offset}` }) => {
      const body = Buffer.concat([
        Buffer.from([0]),
        varint(timestamp - baseTimestamp),
        varint(offset - first),
        ...sized(key),
        ...sized(value),
        varint(headers.length),
        ...headers.flatMap(([name, content]) => [...sized(name), ...sized(content)])
      ])
      return Buffer.concat([varint(body.length), body])
    }
  )
  const packed = (options.pack ?? ((bytes) => bytes))(Buffer.concat(records))
  const head = Buffer.alloc(61)
  head.writeBigInt64BE(BigInt(first), 0)
  head.writeInt32BE(head.length - 12 + packed.length, 8)
  head.writeInt8(options.magic ?? 2, 16)
  head.writeInt16BE(options.attributes ?? 0, 21)
  head.writeInt32BE((options.last ?? written.at(-1)?.offset ?? first) - first, 23)
  head.writeBigInt64BE(BigInt(baseTimestamp), 27)
  head.writeBigInt64BE(BigInt(options.maxTimestamp ?? baseTimestamp), 35)
  head.writeBigInt64BE(options.producerId ?? -1n, 43)
  head.writeInt32BE(written.length, 57)
  return Buffer.concat([head, packed])
}

const transactional = 0x10
const control = 0x20
const of = (producer: number, ...offsets: ReadonlyArray<number>) =>
  batch(
    offsets[0]!,
    offsets.map((offset) => ({ offset })),
    { attributes: transactional, producerId: BigInt(producer) }
  )
const marker = (producer: number, offset: number, type: "abort" | "commit") =>
  batch(offset, [{ offset, key: Buffer.from([0, 0, 0, type === "abort" ? 0 : 1]) }], {
    attributes: transactional | control,
    producerId: BigInt(producer)
  })

const read = async (
  batches: ReadonlyArray<Buffer>,
  aborted: ReadonlyArray<readonly [number, number]> = []
) => {
  const found = await decodeBatches(
    Buffer.concat(batches),
    aborted.map(([producer, first]) => ({ producerId: BigInt(producer), first }))
  )
  return { ...found, offsets: found.records.map(({ offset }) => offset) }
}

describe("record batches", () => {
  it("are read with keys, headers, tombstones and times", async () => {
    const { next, records } = await read([
      batch(7, [
        {
          offset: 7,
          key: "k",
          value: "v",
          headers: [
            ["a", "1"],
            ["b", null],
            ["a", "2"]
          ],
          timestamp: baseTimestamp + 5
        },
        { offset: 8, key: "", value: "", timestamp: baseTimestamp - 86_400_000_000 },
        { offset: 1_000_000, value: null }
      ]),
      batch(1_000_001, [{ offset: 1_000_001 }], { attributes: 0x08, maxTimestamp: baseTimestamp + 9 })
    ])
    assert.deepStrictEqual(
      records.map(({ value, ...rest }) => ({ ...rest, value: value?.toString() })),
      [
        { offset: 7, timestamp: baseTimestamp + 5, key: "k", headers: { a: "2", b: "" }, value: "v" },
        { offset: 8, timestamp: baseTimestamp - 86_400_000_000, key: "", headers: {}, value: "" },
        { offset: 1_000_000, timestamp: baseTimestamp, key: null, headers: {}, value: undefined },
        { offset: 1_000_001, timestamp: baseTimestamp + 9, key: null, headers: {}, value: "1000001" }
      ]
    )
    assert.strictEqual(next, 1_000_002)
  })

  it("say where to read on behind what was compacted away, in part or whole", async () => {
    assert.strictEqual((await read([])).next, undefined)
    const tail = await read([batch(0, [{ offset: 0 }, { offset: 3 }], { last: 9 })])
    assert.deepStrictEqual([tail.offsets, tail.next], [[0, 3], 10])
    const whole = await read([batch(10, [], { last: 19, producerId: 4n })])
    assert.deepStrictEqual([whole.offsets, whole.next], [[], 20])
    const packed = await read([batch(10, [], { last: 19, attributes: 4 })])
    assert.deepStrictEqual([packed.next, packed.unreadable], [20, undefined])
    const gap = await read([
      batch(0, [{ offset: 0 }]),
      batch(50, [], { last: 59 }),
      batch(80, [{ offset: 85 }])
    ])
    assert.deepStrictEqual([gap.offsets, gap.next], [[0, 85], 86])
  })

  it("leave the last one alone that was cut", async () => {
    const cut = batch(5, [{ offset: 5 }])
    for (const bytes of [1, 11, 12, 60, cut.length - 1]) {
      const found = await read([batch(0, [{ offset: 0 }]), cut.subarray(0, bytes)])
      assert.deepStrictEqual([found.offsets, found.next], [[0], 1], String(bytes))
    }
  })

  it("are passed over where their transaction was aborted, however transactions overlap", async () => {
    const committed = await read([of(1, 0, 1), marker(1, 2, "commit"), batch(3, [{ offset: 3 }])])
    assert.deepStrictEqual([committed.offsets, committed.next], [[0, 1, 3], 4])
    const onlyMarkers = await read([marker(1, 0, "commit"), marker(2, 1, "abort")])
    assert.deepStrictEqual([onlyMarkers.offsets, onlyMarkers.next], [[], 2])
    const aborted = await read(
      [of(1, 0, 1), marker(1, 2, "abort"), of(1, 3), marker(1, 4, "commit")],
      [[1, 0]]
    )
    assert.deepStrictEqual([aborted.offsets, aborted.next], [[3], 5])
    // Both began before what was fetched, in an order of the broker's own; a third one and somebody without any go on.
    const several = await read(
      [
        of(2, 10),
        of(1, 11),
        of(3, 12),
        batch(13, [{ offset: 13, key: Buffer.from([0, 0, 0, 0]) }], { producerId: 2n }),
        of(2, 14),
        marker(2, 15, "abort"),
        of(1, 16),
        of(2, 17),
        marker(1, 18, "abort"),
        marker(3, 19, "commit"),
        of(1, 20)
      ],
      [
        [1, 9],
        [2, 8]
      ]
    )
    assert.deepStrictEqual([several.offsets, several.next], [[12, 13, 17, 20], 21])
  })

  it("that cannot be read are named, with what was before them and nothing of what was aborted", async () => {
    const before = batch(0, [{ offset: 0 }])
    const unknown = batch(1, [{ offset: 1 }, { offset: 4 }], { attributes: 5 })
    const found = await read([before, unknown, batch(5, [{ offset: 5 }])])
    assert.deepStrictEqual([found.offsets, found.next], [[0], 1])
    const { bytes, ...named } = found.unreadable!
    assert.deepStrictEqual(named, {
      first: 1,
      last: 4,
      timestamp: baseTimestamp,
      reason: "nobody here knows the compression 5"
    })
    assert.deepStrictEqual(bytes, unknown)
    for (const broken of [
      batch(1, [{ offset: 1 }], { attributes: 1 }),
      batch(1, [{ offset: 1 }], { pack: (bytes) => bytes.subarray(0, -1) }),
      batch(1, [{ offset: 1 }], { pack: () => Buffer.alloc(20, 0xff) }),
      batch(1, [{ offset: 1 }], { magic: 1 })
    ])
      assert.strictEqual((await read([broken])).unreadable?.first, 1)
    const aborted = await read(
      [batch(1, [{ offset: 1 }], { attributes: transactional | 5, producerId: 1n }), marker(1, 2, "abort")],
      [[1, 1]]
    )
    assert.deepStrictEqual([aborted.unreadable, aborted.next], [undefined, 3])
  })

  it("are unpacked, whatever they are packed with", async () => {
    const packers: ReadonlyArray<readonly [number, (bytes: Buffer) => Buffer]> = [
      [1, gzipSync],
      [2, snappyOf],
      [2, xerialOf],
      [3, lz4Of],
      [4, zstdCompressSync]
    ]
    for (const [attributes, pack] of packers) {
      const found = await read([
        batch(0, [{ offset: 0 }, { offset: 1 }, { offset: 2, value: "a".repeat(300) }], { attributes, pack })
      ])
      assert.strictEqual(found.unreadable, undefined)
      assert.deepStrictEqual(
        found.records.map(({ value }) => value?.toString()),
        ["0", "1", "a".repeat(300)]
      )
    }
  })
})

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
