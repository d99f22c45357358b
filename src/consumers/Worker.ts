import type { Clock, Context, FiberSet, Latch, Scope } from "effect"
import type { CircuitBreaker } from "effect/persistence"
import type { Broker } from "../services/messaging/Broker.ts"
import type { DeadLetters } from "../services/messaging/DeadLetters.ts"
import type { Db } from "../services/Db.ts"
import type { FailPoint } from "../services/FailPoint.ts"
import type { Backlog } from "./Backlog.ts"
import type { Consumer } from "./Consumer.ts"

/** The state of the runner: what all consumers of the process share, and what each consumer has of its own. */

export interface RunnerOptions {
  /** The merchant of a message that names none. */
  readonly defaultMerchantId: string | undefined
  /** Replaces the time for which a refused message is retried before it becomes a dead letter. */
  readonly refusalPatienceMs?: number | undefined
}

export interface Shared {
  readonly broker: Broker["Service"]
  readonly db: Db["Service"]
  readonly deadLetters: DeadLetters["Service"]
  readonly failPoint: typeof FailPoint.Service
  readonly breaker: CircuitBreaker.CircuitBreaker
  readonly options: RunnerOptions
  readonly clock: Clock.Clock
  /** The context that metrics are written with. */
  readonly metrics: Context.Context<never>
  /** Whether the last attempt of any consumer met an outage. */
  inOutage: boolean
  /** Bytes of all messages that were delivered and are not committed. */
  bytes: number
}

/** A running consumer of one topic. */
export interface Worker<E, R> {
  readonly shared: Shared
  readonly consumer: Consumer<E, R>
  readonly backlog: Backlog
  /** The work on each partition, in a scope that closes only after the running attempts have ended. */
  readonly workScope: Scope.Closeable
  readonly work: Map<number, PartitionWork>
  /** Opened when the backlog may have room for more messages. */
  readonly room: Latch.Latch
  /** Opened when an offset may be ready to commit. */
  readonly mayCommit: Latch.Latch
  /** Counts the revocations: a message that was polled before the last one of its partition is not started. */
  revocations: number
  readonly revokedAt: Map<number, number>
}

/** The work on the messages of one partition, until it is revoked. */
export interface PartitionWork {
  readonly fibers: FiberSet.FiberSet<void>
  /** Open while no attempt runs. */
  readonly idle: Latch.Latch
  attempts: number
  stopping: boolean
}
