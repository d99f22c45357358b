import { Effect, Result, Schema } from "effect"
import { RowKey } from "../schema/ChangeRecord.ts"
import type { IncomingMessage } from "../services/messaging/Broker.ts"
import type { Reason } from "../services/messaging/DeadLetters.ts"
import type { Consumer, Origin, Outcome } from "./Consumer.ts"
import * as Reading from "../schema/MessageDecoding.ts"

/**
 * Topics of captured tables (Debezium): records with or without their schemas, rows that were read by a snapshot,
 * created, updated and deleted. Tombstones, truncations, heartbeats and transaction markers ask for nothing.
 */

/** What a record says. Of a deleted row the key is all that is known: what else it shows are fillers. */
export type RowChange<Row> =
  | { readonly _tag: "Written"; readonly rowId: string; readonly row: Row }
  | { readonly _tag: "Deleted"; readonly rowId: string }

export const captured = <Row extends { readonly id: string | number }, I, Change, E, R>(definition: {
  readonly topic: string
  readonly row: Schema.Codec<Row, I>
  /** What is asked of the books, with the merchant that the row names. */
  readonly change: (
    change: RowChange<Row>,
    message: IncomingMessage,
    defaults: Reading.Defaults
  ) => Result.Result<Change, Reason>
  readonly handle: (origin: Origin, change: Change) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> => {
  const decodeRow = Schema.decodeUnknownResult(definition.row, { errors: "all" })
  const ignored = { aggregate: undefined, run: () => Effect.succeed("ignored" as const) }
  return {
    topic: definition.topic,
    read: (message, defaults) =>
      Result.gen(function* () {
        const { value } = message
        if (value === null) return ignored
        const record = unwrapped(yield* Reading.exactObjectOf(value))
        if (record === null || saysNothingOfARow(record)) return ignored
        const change: RowChange<Row> =
          record["op"] === "d"
            ? { _tag: "Deleted", rowId: yield* keyOf(message) }
            : yield* written(record, decodeRow)
        const asked = yield* definition.change(change, message, defaults)
        return { aggregate: change.rowId, run: (origin: Origin) => definition.handle(origin, asked) }
      })
  }
}

type JsonObject = Readonly<Record<string, unknown>>

/** A record with its schemas is an object of both; `null` is a tombstone. */
const unwrapped = (record: JsonObject): JsonObject | null => {
  if (!("schema" in record) || !("payload" in record)) return record
  return Reading.isObject(record["payload"]) ? record["payload"] : null
}

const clocks: ReadonlySet<string> = new Set(["ts_ms", "ts_us", "ts_ns"])
const saysNothingOfARow = (record: JsonObject): boolean =>
  // A truncation, or a message that was written into the log.
  record["op"] === "t" ||
  record["op"] === "m" ||
  // A heartbeat; the begin or end of a transaction.
  (record["op"] === undefined &&
    (Object.keys(record).every((name) => clocks.has(name)) ||
      record["status"] === "BEGIN" ||
      record["status"] === "END"))

const operations: ReadonlySet<unknown> = new Set(["r", "c", "u"])

const written = <Row extends { readonly id: string | number }>(
  record: JsonObject,
  decode: (value: unknown) => Result.Result<Row, Schema.SchemaError>
): Result.Result<RowChange<Row>, Reason> => {
  if (!operations.has(record["op"])) {
    return Result.fail({ code: "INVALID", detail: "op must be r, c, u or d" })
  }
  const row = Result.mapError(decode(record["after"]), (error) => Reading.invalid(error, "after"))
  return Result.map(row, (row) => ({ _tag: "Written", rowId: String(row.id), row }))
}

const decodeKey = Schema.decodeUnknownResult(RowKey)
const keyOf = ({ key }: IncomingMessage): Result.Result<string, Reason> =>
  Result.gen(function* () {
    const record = yield* Reading.exactObjectOf(key === null ? null : Buffer.from(key))
    const { id } = yield* decodeKey(unwrapped(record))
    return String(id)
  }).pipe(
    Result.mapError(() => ({ code: "INVALID", detail: "the key must be a JSON object with the row's id" }))
  )
