import { Schema } from "effect"
import { RefusalData, RowRefused } from "../../../schema/Failure.ts"
import {
  type AnswerOf,
  type CommandDefinition,
  commandShape,
  defineCommand,
  definitionOf,
  definitionsOf,
  type PayloadOf
} from "../Command.ts"
import type { Needs } from "../Needs.ts"
import { perform } from "../operation.ts"
import { answered, refused } from "../Posting.ts"
import { ensureItem, ensureLocation } from "./catalog.ts"
import { releaseReservation, reserveStock } from "./reservations.ts"
import { adjustStock } from "./stock.ts"

/** Many operations in one posting and one transaction (CONTRACTS 4.2, `POST bulk`). */

const simple = [reserveStock, releaseReservation, adjustStock, ensureItem, ensureLocation] as const
type Simple = (typeof simple)[number]

export interface Bulk {
  readonly _tag: "Bulk"
  /**
   * `atomic`: the first operation that is refused refuses all. `continueOnFailure`: each for itself; an operation that is
   * an atomic `Bulk` is a group that stands or falls together.
   */
  readonly mode: "atomic" | "continueOnFailure"
  readonly operations: ReadonlyArray<BulkOperation>
}
export type BulkOperation = PayloadOf<Simple> | Bulk

/** What became of one operation. */
export type BulkRow =
  | { readonly index: number; readonly answer: AnswerOf<Simple> | BulkAnswer }
  | { readonly index: number; readonly failure: RefusalData }
export interface BulkAnswer {
  readonly at: number
  /** In the order of the operations. */
  readonly rows: ReadonlyArray<BulkRow>
}

const operation: Schema.Codec<BulkOperation> = Schema.suspend(() =>
  Schema.Union([...simple.map(({ payload }) => payload), bulk.payload])
) as never

const answer: Schema.Codec<BulkAnswer> = Schema.Struct({
  at: Schema.Number,
  rows: Schema.Array(
    Schema.Union([
      Schema.Struct({
        index: Schema.Number,
        answer: Schema.suspend((): Schema.Codec<unknown> =>
          Schema.Union([...simple.map((one) => one.answer as Schema.Codec<unknown>), answer])
        )
      }),
      Schema.Struct({ index: Schema.Number, failure: RefusalData })
    ])
  )
}) as never

/** Each operation sees the books as those before it have left them, and one that is refused is undone alone. */
const bulkShape = commandShape({
  tag: "Bulk",
  payload: {
    mode: Schema.Literals(["atomic", "continueOnFailure"]),
    operations: Schema.Array(operation)
  },
  answer,
  refusals: [RowRefused]
})

export const bulk: CommandDefinition<Bulk, BulkAnswer, RowRefused, ReadonlyArray<unknown>> = defineCommand(
  bulkShape,
  {
    weight: ({ operations }) => operations.reduce((sum, one) => sum + definitionFor(one).weight(one), 0),
    needs: (need: Needs, { operations }): ReadonlyArray<unknown> =>
      operations.map((one) => definitionFor(one).needs(need, one)),
    decide: (context, command, keys) => {
      const { at, ids, posting, unit } = context
      const rows: Array<BulkRow> = []
      for (const [index, one] of command.operations.entries()) {
        const mark = unit.mark
        const nested = { id: context.nextId(), at, caller: posting.caller, command: one }
        const decision = perform(unit, definitionFor(one), nested, keys[index], ids)
        if ("refusal" in decision) {
          unit.undoTo(mark)
          // Plain data, because an answer is kept.
          const failure: RefusalData = { ...decision.refusal }
          if (command.mode === "atomic") return refused(new RowRefused({ index, failure }))
          rows.push({ index, failure })
        } else rows.push({ index, answer: decision.answer })
      }
      return answered({ at, rows })
    }
  }
)

const definitions = definitionsOf([...simple, bulk])
const definitionFor = ({ _tag }: BulkOperation): CommandDefinition => definitionOf(definitions, _tag)
