/** Who asks, for whom, until when. Times are epoch milliseconds of the one clock (CONTRACTS section 7). */
export interface Caller {
  readonly merchantId: string
  readonly actor: string
  readonly requestId: string
  readonly traceparent?: string | undefined
  /** Past it, a posting whose batch has not started is refused, and the caller is told that the outcome is unknown. */
  readonly deadline: number
  readonly idempotency?: { readonly key: string; readonly fingerprint: string } | undefined
}
