import { PgTypes } from "@effect/sql-pg"
import { Result } from "effect"

/** How values travel to and from PostgreSQL. */

/** `int8` as safe integers, `timestamptz` as epoch milliseconds: decoded once, here. */
export const types = PgTypes.makeRegistry()

const two32 = 0x1_0000_0000
const done = Result.succeed(undefined)

/** Both are a signed 64-bit integer on the wire, written into and read from the frame without an array of its own. */
const integerCodec = (
  /** What goes over the wire, as a number where that is exact. */
  toWire: (value: number) => number | bigint,
  /** Takes the upper half, signed, and the lower. */
  fromWire: (high: number, low: number) => Result.Result<number, PgTypes.CodecError>
): PgTypes.Codec<number> => {
  const read = (bytes: Uint8Array, offset: number) =>
    fromWire(
      (bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!,
      ((bytes[offset + 4]! << 24) |
        (bytes[offset + 5]! << 16) |
        (bytes[offset + 6]! << 8) |
        bytes[offset + 7]!) >>>
        0
    )
  return {
    read,
    decode: (bytes) => read(bytes, 0),
    write: (sink, value) => {
      const wire = toWire(value)
      if (typeof wire === "bigint") sink.bigInt64(wire)
      else {
        const high = Math.floor(wire / two32)
        sink.int32(high)
        sink.int32((wire - high * two32) | 0)
      }
      return done
    },
    encode: (value) => {
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setBigInt64(0, BigInt(toWire(value)))
      return Result.succeed(bytes)
    }
  }
}

types.register<number>(
  PgTypes.OID.int8,
  integerCodec(
    // What is not a whole number throws here, as it did not where it was made.
    (value) => (Number.isSafeInteger(value) ? value : BigInt(value)),
    (high, low) => {
      const value = high * two32 + low
      return Number.isSafeInteger(value)
        ? Result.succeed(value)
        : Result.fail(new PgTypes.CodecError({ message: "int8 is past 2^53−1" }))
    }
  ),
  { arrayOid: PgTypes.OID.int8Array }
)

/** Milliseconds from 1970 to PostgreSQL's epoch, 2000-01-01. */
const postgresEpochMs = Date.UTC(2000, 0, 1)
types.register<number>(
  PgTypes.OID.timestamptz,
  integerCodec(
    // Microseconds are past 2^53 from the year 2285 on: a lot may well say that it never expires.
    (value) => {
      const microseconds = (value - postgresEpochMs) * 1000
      return Number.isSafeInteger(microseconds) ? microseconds : BigInt(value - postgresEpochMs) * 1000n
    },
    (high, low) => {
      const microseconds = high * two32 + low
      return Result.succeed(
        postgresEpochMs +
          (Number.isSafeInteger(microseconds)
            ? Math.floor(microseconds / 1000)
            : Number(((BigInt(high) << 32n) | BigInt(low)) / 1000n))
      )
    }
  ),
  { arrayOid: PgTypes.OID.timestamptzArray }
)

/**
 * Long text in pieces, which are written one after the other: as one string it would be copied, and room made for three
 * bytes a character. It travels as `varchar`, which PostgreSQL takes for `text` as it is.
 */
types.register<Iterable<string>>(
  PgTypes.OID.varchar,
  {
    write: (sink, pieces) => {
      for (const piece of pieces) sink.utf8(piece)
      return done
    },
    encode: (pieces) => Result.succeed(new TextEncoder().encode([...pieces].join(""))),
    decode: (bytes) => Result.succeed([new TextDecoder().decode(bytes)])
  },
  { arrayOid: PgTypes.OID.varcharArray }
)

const arrayOf = (oid: number) => (values: ReadonlyArray<unknown>) =>
  Result.getOrThrow(PgTypes.array(values, oid, types))

/** Typed array parameters for `rowsOf`: the fastest way in, and the only one that takes arrays of nulls. */
export const arrays = {
  text: arrayOf(PgTypes.OID.text),
  /** Of each text, its pieces. */
  pieces: arrayOf(PgTypes.OID.varchar),
  uuid: arrayOf(PgTypes.OID.uuid),
  int8: arrayOf(PgTypes.OID.int8),
  int4: arrayOf(PgTypes.OID.int4),
  bool: arrayOf(PgTypes.OID.bool),
  timestamptz: arrayOf(PgTypes.OID.timestamptz),
  jsonb: arrayOf(PgTypes.OID.jsonb)
}
/**
 * Rows of parallel array parameters, from `$first` on, as a subquery. In a select list sets are unrolled side by side,
 * row by row; as `unnest($1, $2, …)` in FROM each would be written into and read from a store of its own, which took
 * four times as long, and as long for a single row as its insertion did (docs/performance.md).
 */
export const rowsOf = (columns: ReadonlyArray<string>, first = 1): string =>
  `(SELECT ${columns.map((column, index) => `unnest($${first + index}) AS ${column}`).join(", ")})`
/** A single typed parameter. */
export const parameter = (oid: keyof typeof PgTypes.OID, value: unknown): PgTypes.Parameter => ({
  [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId,
  oid: PgTypes.OID[oid],
  value
})
