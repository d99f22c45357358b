import { RowRefused } from "../../../schema/Failure.ts"
import type { Answers, Bulk, BulkRow } from "../../../schema/Posting.ts"
import { type Decision, type Draft, answered, refused } from "./Draft.ts"

/**
 * Many operations in one posting (CONTRACTS 4.2, `POST bulk`): each sees the books as those before it have left them,
 * and one that is refused is undone alone.
 */
export const bulk = (
  draft: Draft,
  command: Bulk,
  perform: (operation: Draft) => Decision<Answers[keyof Answers]>
): Decision<Answers["Bulk"]> => {
  const { at, books } = draft
  const rows: Array<BulkRow> = []
  for (let index = 0; index < command.operations.length; index++) {
    const operation = command.operations[index]!
    const mark = books.mark()
    const decision = perform(draft.operation(operation))
    if ("refusal" in decision) {
      books.undoTo(mark)
      // Plain data, because an answer is kept.
      const failure = { ...decision.refusal }
      if (command.mode === "atomic") return refused(new RowRefused({ index, failure }))
      rows.push({ index, failure })
    } else if (command.onlyRefusals !== true) {
      rows.push({ index, answer: decision.answer as Answers[typeof operation._tag] })
    }
  }
  return answered({ at, rows })
}
