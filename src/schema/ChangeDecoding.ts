import { Result, Schema } from "effect"
import { RowKey } from "./ChangeRecord.ts"
import {
  type DeadLetterReason,
  type Decoded,
  type EncodedMessage,
  type JsonObject,
  decodeExactObject,
  invalid,
  isObject
} from "./MessageDecoding.ts"

/**
 * Decoding of change records (Debezium), with or without their schemas: rows that a snapshot read, and rows that were
 * created, updated or deleted.
 */

/** A change of one row. Of a deleted row only the key is known: the record's other columns are fillers. */
export type RowChange<Row> =
  | { readonly _tag: "Written"; readonly rowId: string; readonly row: Row }
  | { readonly _tag: "Deleted"; readonly rowId: string }

type RowDecoder<Row> = (value: unknown) => Result.Result<Row, Schema.SchemaError>

/** Undefined for records without a row: tombstones, truncations, heartbeats and transaction markers. */
export const decodeRowChange = <Row extends { readonly id: string | number }>(
  message: EncodedMessage,
  decodeRow: RowDecoder<Row>
): Decoded<RowChange<Row> | undefined> =>
  Result.gen(function* () {
    if (message.value === null) return undefined
    const record = unwrapped(yield* decodeExactObject(message.value))
    if (record === null || hasNoRow(record)) return undefined
    return record["op"] === "d"
      ? { _tag: "Deleted", rowId: yield* rowIdOf(message) }
      : yield* written(record, decodeRow)
  })

/** A record with its schemas is an object of `schema` and `payload`; a `null` payload is a tombstone. */
const unwrapped = (record: JsonObject): JsonObject | null => {
  if (!("schema" in record) || !("payload" in record)) return record
  return isObject(record["payload"]) ? record["payload"] : null
}

const heartbeatFields: ReadonlySet<string> = new Set(["ts_ms", "ts_us", "ts_ns"])
const hasNoRow = (record: JsonObject): boolean =>
  // A truncation, or a message written into the database's log.
  record["op"] === "t" ||
  record["op"] === "m" ||
  // A heartbeat; the begin or end of a transaction.
  (record["op"] === undefined &&
    (Object.keys(record).every((name) => heartbeatFields.has(name)) ||
      record["status"] === "BEGIN" ||
      record["status"] === "END"))

const writeOperations: ReadonlySet<unknown> = new Set(["r", "c", "u"])

const written = <Row extends { readonly id: string | number }>(
  record: JsonObject,
  decodeRow: RowDecoder<Row>
): Decoded<RowChange<Row>> => {
  if (!writeOperations.has(record["op"])) {
    return Result.fail({ code: "INVALID", detail: "op must be r, c, u or d" })
  }
  const row = Result.mapError(decodeRow(record["after"]), (error) => invalid(error, "after"))
  return Result.map(row, (row) => ({ _tag: "Written", rowId: String(row.id), row }))
}

const decodeKey = Schema.decodeUnknownResult(RowKey)
const rowIdOf = ({ key }: EncodedMessage): Decoded<string> =>
  Result.gen(function* () {
    const record = yield* decodeExactObject(key === null ? null : Buffer.from(key))
    const { id } = yield* decodeKey(unwrapped(record))
    return String(id)
  }).pipe(
    Result.mapError((): DeadLetterReason => ({
      code: "INVALID",
      detail: "the key must be a JSON object with the row's id"
    }))
  )
