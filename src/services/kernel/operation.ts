import { BalanceOverflow } from "../../schema/Failure.ts"
import type { CommandDefinition } from "./Command.ts"
import type { DerivedIds } from "./ids.ts"
import { type Decision, type Posting, refused } from "./Posting.ts"
import { PostingContext } from "./PostingContext.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/**
 * Decides one command, with its movements and the events that carry them. What a refusal leaves in the unit of work is
 * for the caller to undo.
 */
export const perform = <Answer, Refusal, Command extends { readonly _tag: string }, Keys>(
  unit: UnitOfWork,
  definition: CommandDefinition<Command, Answer, Refusal, Keys>,
  posting: Posting<Command>,
  keys: Keys,
  ids: DerivedIds,
  prepare: (context: PostingContext) => void = () => undefined
): Decision<Answer, Refusal | BalanceOverflow> => {
  const context = new PostingContext(unit, posting, definition.source, ids)
  prepare(context)
  const decision = definition.decide(context, posting.command, keys)
  if ("refusal" in decision) return decision
  context.finish()
  return context.overflow === undefined
    ? decision
    : refused(new BalanceOverflow({ stockId: context.overflow.stockId }))
}
