import { Context, Data, type Effect, type Queue, type Scope } from "effect"
import type { DatabaseUnavailable } from "../schema/Failure.ts"

/**
 * The port to PostgreSQL. Values travel as plain data: `int8` as safe integers (a figure past 2^53−1 fails to decode),
 * `timestamptz` as epoch milliseconds.
 */

/**
 * A statement that failed, told apart by its SQLSTATE:
 * - `CONFLICT`: serialization, deadlock, unique key, lock or statement time-out. Running the transaction again helps.
 * - `UNAVAILABLE`: the connection or the server is gone, or has no room. Nothing was answered.
 * - `DEFECT`: broken SQL, data that the schema refuses. Running it again fails again.
 */
export class StatementFailed extends Data.TaggedError("StatementFailed")<{
  readonly disposition: "CONFLICT" | "UNAVAILABLE" | "DEFECT"
  readonly sqlState: string | undefined
  readonly cause: unknown
}> {
  override get message(): string {
    return `${this.disposition} ${this.sqlState ?? "no answer"}: ${String((this.cause as Error)?.message ?? this.cause)}`
  }
}

export type Row = ReadonlyArray<unknown>
export type Parameters = ReadonlyArray<unknown>

/** A connection of its own. Statements sent in the same tick travel together and are answered in order. */
export interface Session {
  readonly run: (
    statement: string,
    parameters: Parameters
  ) => Effect.Effect<ReadonlyArray<Row>, StatementFailed>
}

/** A statement on a connection for surveys, with rows by the names of their columns. */
export type Survey = <R extends object>(
  statement: string,
  parameters: Parameters
) => Effect.Effect<ReadonlyArray<R>, DatabaseUnavailable>

export class Db extends Context.Service<
  Db,
  {
    /** The kernel's own connection: exempt from row-level security, with a short idle-in-transaction time-out. */
    readonly session: Effect.Effect<Session, StatementFailed, Scope.Scope>
    /**
     * Reads one merchant's rows. Row-level security is armed for that merchant, whatever the statement says. A defect
     * of the statement dies; what is left is that the database does not answer.
     */
    readonly read: <R extends object>(
      merchantId: string,
      statement: string,
      parameters: Parameters
    ) => Effect.Effect<ReadonlyArray<R>, DatabaseUnavailable>
    /** Sees all merchants: for sweepers, the dispatcher, clean-up and health, which are named as such. */
    readonly maintain: <R extends object>(
      statement: string,
      parameters: Parameters
    ) => Effect.Effect<ReadonlyArray<R>, DatabaseUnavailable>
    /**
     * The same, for questions over ranges of many rows (audit): read-only, and the two sides of a join are read as the
     * ranges that they are, never row by row.
     */
    readonly survey: Survey
    /** The same on a connection of its own, which may have temporary tables. */
    readonly surveySession: Effect.Effect<Survey, DatabaseUnavailable, Scope.Scope>
    /**
     * The payloads of a channel's notifications, on a connection of its own that is opened again when it is lost. An
     * empty one comes after each (re)connection: what was notified meanwhile was missed. Who falls far behind loses the
     * oldest, so that everyone must also look by themselves now and then.
     */
    readonly listen: (channel: string) => Effect.Effect<Queue.Dequeue<string>, never, Scope.Scope>
  }
>()("holdfast/services/Db") {}
