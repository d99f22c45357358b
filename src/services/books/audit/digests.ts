import { Effect } from "effect"
import type { Ask } from "./Asking.ts"

/**
 * How a movement is summed up, by PostgreSQL for the ledger and by this process for the outbox, to the same number: the
 * 64-bit hashes that PostgreSQL has for values of a type with a seed (Jenkins' lookup3). They are what hash partitions
 * are made by, and therefore stay as they are; and they take the bytes of a value, where a digest of its text took four
 * times as long. They follow the order of bytes of the database's machine: `agree` asks whether it is that of this code.
 */

/** What of a movement its event tells. */
export interface Moved {
  readonly stockId: string
  readonly type: string
  readonly onHandDelta: number
  readonly reservedDelta: number
  readonly unallocatableDelta: number
}
export interface Told extends Moved {
  readonly merchantId: string
  readonly postingId: string
}

/** The deltas are the seeds of the others' hashes, and these together that of the posting's. */
export const digestInSql = (row: string): string =>
  `uuid_hash_extended(${row}.posting_id, uuid_hash_extended(${row}.stock_id, ${row}.on_hand_delta)
        # hashtextextended(${row}.type, ${row}.reserved_delta)
        # hashtextextended(${row}.merchant_id, ${row}.unallocatable_delta))`

const sample: Told = {
  merchantId: "merchant",
  postingId: "01234567-89ab-7cde-8f01-23456789abcd",
  stockId: "fedcba98-7654-7210-8fed-cba987654321",
  type: "RECEIPT",
  onHandDelta: 1,
  reservedDelta: -2,
  unallocatableDelta: 2 ** 40
}
const sampleStatement = `
  SELECT ${digestInSql("sample")}::text AS digest
  FROM (VALUES ('${sample.merchantId}', '${sample.postingId}'::uuid, '${sample.stockId}'::uuid, '${sample.type}',
    ${sample.onHandDelta}::bigint, ${sample.reservedDelta}::bigint, ${sample.unallocatableDelta}::bigint))
    AS sample (merchant_id, posting_id, stock_id, type, on_hand_delta, reserved_delta, unallocatable_delta)`

/** Without this, every movement would be taken for one that no event tells of. */
export const agree = Effect.fnUntraced(function* (ask: Ask) {
  const [row] = yield* ask<{ digest: string }>(sampleStatement, [])
  const digest: Digest = { high: 0, low: 0 }
  digestOf(sample.merchantId, sample.postingId, sample, digest)
  if (BigInt(row!.digest) !== ((BigInt(digest.high) << 32n) | BigInt(digest.low >>> 0))) {
    return yield* Effect.die(
      new Error("PostgreSQL hashes values otherwise than audit does: is its machine a big-endian one?")
    )
  }
})

/** Which reservation is about which stock: what a line and the movements that were made for it have in common. */
export interface Pair {
  readonly merchantId: string
  readonly reservationId: string
  readonly stockId: string
  readonly itemId: string
}
/** What a reservation holds of a stock, has sold and has taken back. */
export interface Figures {
  open: number
  sold: number
  returned: number
}

export const pairDigestInSql = (row: string): string =>
  `uuid_hash_extended(${row}.reservation_id, uuid_hash_extended(${row}.stock_id, uuid_hash_extended(${row}.item_id,
             hashtextextended(${row}.merchant_id, 0))))`

/** A movement's number and balances, and its item: after it, and before it as its deltas say. */
const stateInSql = (row: string, ...figures: readonly [string, string, string, string]): string =>
  `uuid_hash_extended(${row}.item_id, ${figures.reduce((seed, figure) => `hashint8extended(${figure}, ${seed})`, "0")})`
export const stateAfterInSql = (row: string): string =>
  stateInSql(row, `${row}.sequence`, `${row}.on_hand`, `${row}.reserved`, `${row}.unallocatable`)
export const stateBeforeInSql = (row: string): string =>
  stateInSql(
    row,
    `${row}.sequence - 1`,
    `${row}.on_hand - ${row}.on_hand_delta`,
    `${row}.reserved - ${row}.reserved_delta`,
    `${row}.unallocatable - ${row}.unallocatable_delta`
  )

/** The digests of many rows, or these and their figures, travel as one value: no sorting by cells, no row for each. */
export const gatherInSql = (...values: ReadonlyArray<string>): string =>
  `string_agg(${values.map((value) => `int8send(${value})`).join(" || ")}, '')`

/** The lower bits of a digest say which cell. */
const cells = 65_536
export const cellInSql = (digest: string): string => `(${digest} & ${cells - 1})::int`

/** Both halves of a 64-bit number, each as a signed 32-bit one; made anew by each function below. */
export interface Digest {
  high: number
  low: number
}

export const cellOf = ({ low }: Digest): number => low & (cells - 1)

/** Two sides that should have the same rows: in each cell how many the one has more, and the sums of their digests. */
export class Comparison {
  readonly #counts = new Int32Array(cells)
  readonly #highs = new Int32Array(cells)
  readonly #lows = new Int32Array(cells)
  /** Used again for each range: what lies outside of the heap makes V8 collect all of it. */
  #firsts = new Int32Array(0)
  #sums = new Float64Array(0)

  /** A row of the one side (1) or of the other (-1). */
  add(digest: Digest, side: 1 | -1, cell = cellOf(digest)): void {
    this.#counts[cell]! += side
    this.#highs[cell]! += side * digest.high
    this.#lows[cell]! += side * digest.low
  }

  /** Gathered digests. */
  addAll(gathered: Uint8Array | null, side: 1 | -1): void {
    if (gathered === null) return
    const view = viewOf(gathered)
    const digest: Digest = { high: 0, low: 0 }
    for (let at = 0; at < view.byteLength; at += 8) {
      digest.high = view.getInt32(at)
      digest.low = view.getInt32(at + 4)
      this.add(digest, side)
    }
  }

  /** Gathered digests of pairs, each with figures. Those of the same pair are added up first. */
  addPairs(gathered: Uint8Array | null, side: 1 | -1): void {
    if (gathered === null) return
    const view = viewOf(gathered)
    const pairs = view.byteLength / pairBytes
    const size = 2 ** Math.ceil(Math.log2(pairs * 2))
    if (this.#firsts.length < size) {
      this.#firsts = new Int32Array(size)
      this.#sums = new Float64Array(size * 3)
    }
    /** Of each hash the first pair that has it, counted from 1; the next place is for the next one. */
    const firsts = this.#firsts.fill(0, 0, size)
    const sums = this.#sums.fill(0, 0, pairs * 3)
    for (let pair = 0; pair < pairs; pair++) {
      const at = pair * pairBytes
      const high = view.getInt32(at)
      const low = view.getInt32(at + 4)
      let place = low & (size - 1)
      let first = pair
      while (firsts[place] !== 0) {
        const other = (firsts[place]! - 1) * pairBytes
        if (view.getInt32(other + 4) === low && view.getInt32(other) === high) {
          first = firsts[place]! - 1
          break
        }
        place = (place + 1) & (size - 1)
      }
      if (first === pair) firsts[place] = pair + 1
      for (let figure = 0; figure < 3; figure++) {
        const value = view.getInt32(at + 8 + figure * 8) * 2 ** 32 + view.getUint32(at + 12 + figure * 8)
        sums[first * 3 + figure]! += value
      }
    }
    const digest: Digest = { high: 0, low: 0 }
    for (let hash = 0; hash < size; hash++) {
      const first = firsts[hash]!
      if (first === 0) continue
      const at = (first - 1) * pairBytes
      const place = (first - 1) * 3
      digest.high = view.getInt32(at)
      digest.low = view.getInt32(at + 4)
      this.addPair(digest, { open: sums[place]!, sold: sums[place + 1]!, returned: sums[place + 2]! }, side)
    }
  }

  /** A pair's digest says which cell; what is added there is also of its figures. */
  addPair(digest: Digest, figures: Figures, side: 1 | -1): void {
    const cell = cellOf(digest)
    withFigures(digest, figures)
    this.add(digest, side, cell)
  }

  /** The cells whose sides differ. */
  differing(): ReadonlyArray<number> {
    const found: Array<number> = []
    for (let cell = 0; cell < cells; cell++) {
      if (this.#counts[cell] !== 0 || this.#highs[cell] !== 0 || this.#lows[cell] !== 0) found.push(cell)
    }
    return found
  }
}

const pairBytes = 32
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

let a = 0
let b = 0
let c = 0

const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by))

const mix = (): void => {
  a = (a - c) ^ rotate(c, 4)
  c = (c + b) | 0
  b = (b - a) ^ rotate(a, 6)
  a = (a + c) | 0
  c = (c - b) ^ rotate(b, 8)
  b = (b + a) | 0
  a = (a - c) ^ rotate(c, 16)
  c = (c + b) | 0
  b = (b - a) ^ rotate(a, 19)
  a = (a + c) | 0
  c = (c - b) ^ rotate(b, 4)
  b = (b + a) | 0
}

const end = (): void => {
  c = ((c ^ b) - rotate(b, 14)) | 0
  a = ((a ^ c) - rotate(c, 11)) | 0
  b = ((b ^ a) - rotate(a, 25)) | 0
  c = ((c ^ b) - rotate(b, 16)) | 0
  a = ((a ^ c) - rotate(c, 4)) | 0
  b = ((b ^ a) - rotate(a, 14)) | 0
  c = ((c ^ b) - rotate(b, 24)) | 0
}

const begin = (length: number, seedHigh: number, seedLow: number): void => {
  a = b = c = (0x9e3779b9 + length + 3_923_095) | 0
  if (seedHigh !== 0 || seedLow !== 0) {
    a = (a + seedHigh) | 0
    b = (b + seedLow) | 0
    mix()
  }
}

const upper = (value: number): number => Math.floor(value / 0x1_0000_0000) | 0
const lower = (value: number): number => value | 0

/** The value of a hexadecimal digit, by its character's code. */
const digits = new Uint8Array(128)
for (let value = 0; value < 16; value++) {
  digits[value.toString(16).charCodeAt(0)] = value
  digits[value.toString(16).toUpperCase().charCodeAt(0)] = value
}
const byteAt = (text: string, at: number): number =>
  (digits[text.charCodeAt(at) & 127]! << 4) | digits[text.charCodeAt(at + 1) & 127]!

/** `uuid_hash_extended`: what it answers is left in b (upper half) and c (lower half). The bytes lie in groups of 4-2-2-2-6. */
const hashUuid = (id: string, seedHigh: number, seedLow: number): void => {
  begin(16, seedHigh, seedLow)
  a += byteAt(id, 0) | (byteAt(id, 2) << 8) | (byteAt(id, 4) << 16) | (byteAt(id, 6) << 24)
  b += byteAt(id, 9) | (byteAt(id, 11) << 8) | (byteAt(id, 14) << 16) | (byteAt(id, 16) << 24)
  c += byteAt(id, 19) | (byteAt(id, 21) << 8) | (byteAt(id, 24) << 16) | (byteAt(id, 26) << 24)
  mix()
  a += byteAt(id, 28) | (byteAt(id, 30) << 8) | (byteAt(id, 32) << 16) | (byteAt(id, 34) << 24)
  end()
}

const encoder = new TextEncoder()
let bytes = new Uint8Array(1_024)

/** `hashtextextended`. */
const hashText = (text: string, seedHigh: number, seedLow: number): void => {
  if (text.length * 3 > bytes.length) bytes = new Uint8Array(text.length * 6)
  let length = text.length
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code > 127) {
      length = encoder.encodeInto(text, bytes).written
      break
    }
    bytes[index] = code
  }
  const word = (at: number, most: number): number => {
    let sum = 0
    for (let index = 0; index < most; index++) sum |= bytes[at + index]! << (8 * index)
    return sum
  }
  begin(length, seedHigh, seedLow)
  let at = 0
  for (; length - at >= 12; at += 12) {
    a += word(at, 4)
    b += word(at + 4, 4)
    c += word(at + 8, 4)
    mix()
  }
  const left = length - at
  a += word(at, Math.min(4, left))
  b += word(at + 4, Math.max(0, Math.min(4, left - 4)))
  // The lowest byte is kept for the length.
  c += word(at + 8, Math.max(0, left - 8)) << 8
  end()
}

/** The digest of a movement, written into `digest`. */
export const digestOf = (
  merchantId: string,
  postingId: string,
  { onHandDelta, reservedDelta, stockId, type, unallocatableDelta }: Moved,
  digest: Digest
): void => {
  hashUuid(stockId, upper(onHandDelta), lower(onHandDelta))
  let high = b
  let low = c
  hashText(type, upper(reservedDelta), lower(reservedDelta))
  high ^= b
  low ^= c
  hashText(merchantId, upper(unallocatableDelta), lower(unallocatableDelta))
  hashUuid(postingId, high ^ b, low ^ c)
  digest.high = b
  digest.low = c
}

export const pairDigestOf = ({ itemId, merchantId, reservationId, stockId }: Pair, digest: Digest): void => {
  hashText(merchantId, 0, 0)
  hashUuid(itemId, b, c)
  hashUuid(stockId, b, c)
  hashUuid(reservationId, b, c)
  digest.high = b
  digest.low = c
}

/** Only this process asks for it: PostgreSQL knows of no figures but those of single movements and lines. */
const withFigures = (digest: Digest, { open, returned, sold }: Figures): void => {
  begin(24, digest.high, digest.low)
  a += lower(open)
  b += upper(open)
  c += lower(sold)
  mix()
  a += upper(sold)
  b += lower(returned)
  c += upper(returned)
  end()
  digest.high = b
  digest.low = c
}
