import { Context, Effect, Layer } from "effect"
import { batchWeightMax } from "./batch.ts"
import { type CommandDefinition, definitionsOf } from "./Command.ts"
import { type Command, commands, type Posted, type Refusal } from "./commands.ts"
import { groupCommit, lanes } from "./GroupCommit.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { PostingFailure } from "./Posting.ts"
import type { Table } from "./Table.ts"
import { tables } from "./tables.ts"

/**
 * The only writer of stock, ledger and outbox. Concurrent callers do not each fight for a hot row: while a transaction
 * is in flight, new postings queue, and the next one takes all that wait (decision 0001).
 */
export class StockLedger extends Context.Service<
  StockLedger,
  {
    /**
     * Decides and commits a command, together with its ledger rows, tracking, idempotency row and events, or not at
     * all. Interrupting it does not roll back what is in flight. Past the caller's deadline the outcome is unknown but
     * whole: `OperationTimedOut`.
     */
    readonly post: <C extends Command>(
      caller: Caller,
      command: C
    ) => Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>
  }
>()("holdfast/services/kernel/StockLedger") {
  /** A kernel of other commands and tables than the two lists name: they are all that it knows. */
  static readonly layerOf = (ofCommands: ReadonlyArray<CommandDefinition>, ofTables: ReadonlyArray<Table>) =>
    Layer.effect(
      StockLedger,
      // The list that definitions are found in is what `Command`, `Posted` and `Refusal` are derived from.
      Effect.map(groupCommit(definitionsOf(ofCommands), ofTables), (post) =>
        StockLedger.of({ post: post as never })
      )
    )

  static readonly layer = StockLedger.layerOf(commands, tables)
}

/** Advisory locks that the batches of one process take at their fullest. */
export const kernelLocksMax = lanes * batchWeightMax
