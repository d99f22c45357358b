import { PgTypes } from "@effect/sql-pg"
import { Result } from "effect"

/** How values travel to and from PostgreSQL. */

/** `int8` as safe integers, `timestamptz` as epoch milliseconds: decoded once, here. */
export const types = PgTypes.makeRegistry()
const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
types.register<number>(
  PgTypes.OID.int8,
  {
    encode: (value) => {
      const bytes = new Uint8Array(8)
      viewOf(bytes).setBigInt64(0, BigInt(value))
      return Result.succeed(bytes)
    },
    decode: (bytes) => {
      const view = viewOf(bytes)
      const value = view.getInt32(0) * 0x1_0000_0000 + view.getUint32(4)
      return Number.isSafeInteger(value)
        ? Result.succeed(value)
        : Result.fail(new PgTypes.CodecError({ message: "int8 is past 2^53−1" }))
    }
  },
  { arrayOid: PgTypes.OID.int8Array }
)
/** Microseconds from 1970 to PostgreSQL's epoch, 2000-01-01. */
const postgresEpochMs = Date.UTC(2000, 0, 1)
types.register<number>(
  PgTypes.OID.timestamptz,
  {
    encode: (value) => {
      const bytes = new Uint8Array(8)
      viewOf(bytes).setBigInt64(0, BigInt(value - postgresEpochMs) * 1000n)
      return Result.succeed(bytes)
    },
    decode: (bytes) => {
      const view = viewOf(bytes)
      const microseconds = view.getInt32(0) * 0x1_0000_0000 + view.getUint32(4)
      return Result.succeed(Math.floor(microseconds / 1000) + postgresEpochMs)
    }
  },
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
