import type { Caller } from "../../schema/Caller.ts"
import type {
  BalanceOverflow,
  DatabaseUnavailable,
  IdempotencyKeyReused,
  OperationTimedOut,
  Overloaded
} from "../../schema/Failure.ts"

/** A command with all that it needs to be decided: its id and time come with it, so that running it again is harmless. */
export interface Posting<C extends { readonly _tag: string } = { readonly _tag: string }> {
  /** UUIDv7; ids of what the posting creates are derived from it. A reservation carries it as its own id. */
  readonly id: string
  readonly at: number
  readonly caller: Caller
  readonly command: C
}

/** What any posting may be refused with by its decision, whatever it asks for. */
export type CommonRefusal = BalanceOverflow | IdempotencyKeyReused

/** What any posting may fail with, whatever it asks for. */
export type PostingFailure = CommonRefusal | DatabaseUnavailable | OperationTimedOut | Overloaded

/** The answer of a command, or why it is refused. A refusal leaves no trace in the unit of work. */
export type Decision<A, R = never> = { readonly answer: A } | { readonly refusal: R }
export const answered = <A>(answer: A): { readonly answer: A } => ({ answer })
export const refused = <R>(refusal: R): { readonly refusal: R } => ({ refusal })
