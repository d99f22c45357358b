import { PgTypes } from "@effect/sql-pg"
import { Result } from "effect"

/** How values travel to and from PostgreSQL. */

/** `int8` as safe integers, `timestamptz` as epoch milliseconds: decoded once, here. */
export const types = PgTypes.makeRegistry()

const two32 = 0x1_0000_0000
const done = Result.succeed(undefined)

/** Both are a signed 64-bit integer on the wire, kept within 2^53. Values are written into and read from the frames. */
const integerCodec = (
  toWire: (value: number) => number,
  fromWire: (wire: number) => Result.Result<number, PgTypes.CodecError>
): PgTypes.Codec<number> => {
  const read = (bytes: Uint8Array, offset: number) => {
    const high =
      (bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!
    const low =
      (bytes[offset + 4]! << 24) | (bytes[offset + 5]! << 16) | (bytes[offset + 6]! << 8) | bytes[offset + 7]!
    return fromWire(high * two32 + (low >>> 0))
  }
  return {
    read,
    decode: (bytes) => read(bytes, 0),
    write: (sink, value) => {
      const wire = toWire(value)
      if (!Number.isSafeInteger(wire)) return notSafe
      const high = Math.floor(wire / two32)
      sink.int32(high)
      sink.int32((wire - high * two32) | 0)
      return done
    },
    encode: (value) => {
      const wire = toWire(value)
      if (!Number.isSafeInteger(wire)) return notSafe
      const bytes = new Uint8Array(8)
      const view = new DataView(bytes.buffer)
      view.setInt32(0, Math.floor(wire / two32))
      view.setUint32(4, wire - Math.floor(wire / two32) * two32)
      return Result.succeed(bytes)
    }
  }
}
const notSafe = Result.fail(new PgTypes.CodecError({ message: "an integer past 2^53−1" }))

types.register<number>(
  PgTypes.OID.int8,
  integerCodec(
    (value) => value,
    (wire) =>
      Number.isSafeInteger(wire)
        ? Result.succeed(wire)
        : Result.fail(new PgTypes.CodecError({ message: "int8 is past 2^53−1" }))
  ),
  { arrayOid: PgTypes.OID.int8Array }
)
/** Milliseconds from 1970 to PostgreSQL's epoch, 2000-01-01. */
const postgresEpochMs = Date.UTC(2000, 0, 1)
types.register<number>(
  PgTypes.OID.timestamptz,
  integerCodec(
    (value) => (value - postgresEpochMs) * 1000,
    (wire) => Result.succeed(Math.floor(wire / 1000) + postgresEpochMs)
  ),
  { arrayOid: PgTypes.OID.timestamptzArray }
)

const arrayOf = (oid: number) => (values: ReadonlyArray<unknown>) =>
  Result.getOrThrow(PgTypes.array(values, oid, types))

/** Typed array parameters for `unnest`: the fastest way in, and the only one that takes arrays of nulls. */
export const arrays = {
  text: arrayOf(PgTypes.OID.text),
  uuid: arrayOf(PgTypes.OID.uuid),
  int8: arrayOf(PgTypes.OID.int8),
  int4: arrayOf(PgTypes.OID.int4),
  bool: arrayOf(PgTypes.OID.bool),
  timestamptz: arrayOf(PgTypes.OID.timestamptz)
}
/** A single typed parameter. */
export const parameter = (oid: keyof typeof PgTypes.OID, value: unknown): PgTypes.Parameter => ({
  [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId,
  oid: PgTypes.OID[oid],
  value
})
