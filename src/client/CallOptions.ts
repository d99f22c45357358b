/** What may be said of a single call, beside what it takes. */
export interface CallOptions {
  /** With the same key and body the call has its effect once, however often it is sent. */
  readonly idempotencyKey?: string
  /** Found again in the service's log and in the problems that it answers with. */
  readonly requestId?: string
  readonly signal?: AbortSignal
}
