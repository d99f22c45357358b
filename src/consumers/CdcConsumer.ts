import { Effect, Result, Schema } from "effect"
import { type RowChange, decodeRowChange } from "../schema/ChangeDecoding.ts"
import type { Decoded, Defaults, EncodedMessage } from "../schema/MessageDecoding.ts"
import type { Consumer, Origin, Outcome } from "./Consumer.ts"

/** A consumer of a topic of change records (change data capture by Debezium). Records without a row are ignored. */
export const cdcConsumer = <Row extends { readonly id: string | number }, I, Change, E, R>(definition: {
  readonly topic: string
  readonly row: Schema.Codec<Row, I>
  /** The operation's input, with the merchant that the row names. */
  readonly change: (change: RowChange<Row>, message: EncodedMessage, defaults: Defaults) => Decoded<Change>
  readonly handle: (origin: Origin, change: Change) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> => {
  const decodeRow = Schema.decodeUnknownResult(definition.row, { errors: "all" })
  const ignored = { aggregate: undefined, run: () => Effect.succeed("ignored" as const) }
  return {
    topic: definition.topic,
    read: (message, defaults) =>
      Result.gen(function* () {
        const change = yield* decodeRowChange(message, decodeRow)
        if (change === undefined) return ignored
        const input = yield* definition.change(change, message, defaults)
        return { aggregate: change.rowId, run: (origin: Origin) => definition.handle(origin, input) }
      })
  }
}
