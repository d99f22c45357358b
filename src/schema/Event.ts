import { timestamp } from "./Time.ts"

/**
 * An event of CONTRACTS section 6 on its way out: the envelope and the CloudEvents headers around what the kernel wrote.
 */

/** As it lies in the outbox. `at` is epoch milliseconds. */
export interface OutboxEvent {
  readonly id: string
  readonly topic: string
  /** What its order is kept for: the item, the order, … */
  readonly key: string
  readonly type: string
  readonly merchantId: string
  readonly at: number
  readonly requestId: string
  readonly traceparent?: string | undefined
  /** One for all events of a posting. Rows of earlier versions have none. */
  readonly correlationId?: string | undefined
  readonly data: Readonly<Record<string, unknown>>
}

const source = "holdfast"

/** The events of a transaction are of one moment or few, and writing one down costs as much as all else of a header. */
let written = { at: Number.NaN, text: "" }
const timeOf = (at: number): string => {
  if (written.at !== at) written = { at, text: timestamp(at) }
  return written.text
}

/** The value: what a posting does for an order is correlated by it, all else by the request that caused it. */
export const envelopeOf = (event: OutboxEvent): string =>
  JSON.stringify({
    id: event.id,
    type: event.type,
    source,
    dataVersion: "1.0",
    timestamp: timeOf(event.at),
    correlationId: event.correlationId ?? event.data["orderId"] ?? event.requestId,
    data: event.data
  })

/** CloudEvents 1.0, binary mode. */
export const headersOf = (event: OutboxEvent): Record<string, string> => ({
  ce_id: event.id,
  ce_type: event.type,
  ce_source: source,
  ce_time: timeOf(event.at),
  ce_specversion: "1.0",
  "content-type": "application/json",
  "x-request-id": event.requestId,
  "x-merchant-id": event.merchantId,
  ...(event.traceparent === undefined ? {} : { traceparent: event.traceparent })
})
