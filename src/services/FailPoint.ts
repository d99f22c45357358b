import { Context, Effect } from "effect"

/** Moments between two steps at which a crash would hurt most. Tests crash there; otherwise nothing happens. */
export type FailPointName =
  | "beforeCommit"
  | "afterCommitBeforeReply"
  | "afterSendBeforeMark"
  | "afterEffectBeforeOffset"

export const FailPoint = Context.Reference<(name: FailPointName) => Effect.Effect<void>>(
  "holdfast/services/FailPoint",
  { defaultValue: () => () => Effect.void }
)

export const passFailPoint = (name: FailPointName): Effect.Effect<void> =>
  Effect.flatMap(FailPoint, (pass) => pass(name))
