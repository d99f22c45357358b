import { hash } from "node:crypto"

/**
 * What audit asks of the books. Each check belongs to an invariant of CONTRACTS section 2 and says what does not hold
 * when it finds a row; `mend` is what `audit --repair` does about it:
 *
 * - `ITEM`: the item's stocks are rebuilt from the ledger, its totals from its stocks, its discrepancies from both.
 * - `RESERVATION`: the document is settled with what the ledger says of it, by a movement where stock is held.
 * - `TRACKING`: the row is written as its posting says.
 * - `SCHEMA`: the trigger or policy is put back.
 * - `ACKNOWLEDGE`: nothing can be derived. A person says why it is so; a broken ledger goes on from a checkpoint.
 */
export const checks = {
  "ledger-follows": {
    invariant: 1,
    says: "a movement does not follow the one before it",
    mend: "ACKNOWLEDGE"
  },
  "ledger-ends": {
    invariant: 1,
    says: "the stock's last movements are missing from the ledger",
    mend: "ACKNOWLEDGE"
  },
  "stock-is-its-ledger": {
    invariant: 1,
    says: "a stock is not what its ledger says",
    mend: "ITEM"
  },
  "item-is-its-stocks": {
    invariant: 1,
    says: "an item is not the sum of its stocks",
    mend: "ITEM"
  },
  "item-status": {
    invariant: 1,
    says: "an item's status is not what its figures say",
    mend: "ITEM"
  },
  "reserved-is-open": {
    invariant: 2,
    says: "what is reserved of a stock is not what is open on it",
    mend: "ITEM"
  },
  "line-is-its-ledger": {
    invariant: 2,
    says: "what a reservation holds, has sold or has taken back of a stock is not what the ledger says",
    mend: "RESERVATION"
  },
  "pending-holds": {
    invariant: 2,
    says: "a reservation that is not PENDING holds stock, or a PENDING one holds none",
    mend: "RESERVATION"
  },
  "line-of-a-reservation": {
    invariant: 2,
    says: "lines are of a reservation that is not there",
    mend: "RESERVATION"
  },
  "balance-has-its-discrepancy": {
    invariant: 3,
    says: "a broken balance has no open discrepancy, or an open one names a balance that is not broken",
    mend: "ITEM"
  },
  "movement-is-told": {
    invariant: 4,
    says: "a movement has no event, or an event tells of a movement that is not in the ledger",
    mend: "ACKNOWLEDGE"
  },
  "events-are-readable": {
    invariant: 4,
    says: "a row of the outbox is no list of events, or holds what is none: what it told is lost, and it cannot be sent",
    mend: "ACKNOWLEDGE"
  },
  "events-are-numbered": {
    invariant: 4,
    says: "an item's events are not numbered one by one in the order of the outbox",
    mend: "ACKNOWLEDGE"
  },
  "last-event-is-told": {
    invariant: 4,
    says: "an item's number of events is greater than that of its last event",
    mend: "ACKNOWLEDGE"
  },
  "number-was-told": {
    invariant: 4,
    says: "an item's number of events is less than that of its last event",
    mend: "ITEM"
  },
  "event-in-its-bucket": {
    invariant: 4,
    says: "an event lies in a bucket that its key does not belong to, or has no key at all",
    mend: "ACKNOWLEDGE"
  },
  "sent-in-order": {
    invariant: 4,
    says: "an event is marked SENT although an earlier one of its key is not",
    mend: "ACKNOWLEDGE"
  },
  "tracking-names-its-posting": {
    invariant: 5,
    says: "a tracking row names another posting than its own",
    mend: "TRACKING"
  },
  "posting-is-tracked": {
    invariant: 5,
    says: "a posting has moved stock, and nothing tells that it was applied",
    mend: "TRACKING"
  },
  "sold-once": {
    invariant: 5,
    says: "an order was sold more of an item than it asked for",
    mend: "ACKNOWLEDGE"
  },
  "own-merchant": {
    invariant: 7,
    says: "a row refers to what its merchant does not have",
    mend: "ACKNOWLEDGE"
  },
  "event-of-its-merchant": {
    invariant: 7,
    says: "an event tells of another merchant than its own",
    mend: "ACKNOWLEDGE"
  },
  "row-security": {
    invariant: 7,
    says: "a table of merchants' data is not guarded by row-level security",
    mend: "SCHEMA"
  },
  "append-only": {
    invariant: 1,
    says: "a table that is append-only is not guarded by its trigger",
    mend: "SCHEMA"
  },
  "constraint-in-place": {
    invariant: 5,
    says: "a key or check that the books rely on is missing or not valid",
    mend: "ACKNOWLEDGE"
  }
} as const satisfies Readonly<Record<string, Rule>>

export type Mend = "ITEM" | "RESERVATION" | "TRACKING" | "SCHEMA" | "ACKNOWLEDGE"
interface Rule {
  readonly invariant: number
  readonly says: string
  readonly mend: Mend
}
export type Check = keyof typeof checks

/** One row (or a few that do not go together) that breaks an invariant. Times in `row` are epoch milliseconds. */
export interface Finding {
  /** The same answer to the same question about the same row has the same id: what an acknowledgement names. */
  readonly id: string
  readonly check: Check
  readonly invariant: number
  readonly says: string
  readonly mend: Mend
  /** Empty where it is about the schema. */
  readonly merchantId: string
  /** What it is about, in words: `stock 0197…`, `reservation 0197… of order 17`. */
  readonly subject: string
  readonly itemId: string | null
  readonly stockId: string | null
  readonly orderId: string | null
  readonly reservationId: string | null
  /** What is there, and what should be. */
  readonly row: Readonly<Record<string, unknown>>
}

/** Makes a finding. `identity` is what makes it the same one when asked again; without it, the whole row. */
export const finding = (
  check: Check,
  about: {
    readonly merchantId: string
    readonly subject: string
    readonly itemId?: string | null
    readonly stockId?: string | null
    readonly orderId?: string | null
    readonly reservationId?: string | null
    readonly row: Readonly<Record<string, unknown>>
    readonly identity?: unknown
  }
): Finding => {
  const { invariant, mend, says } = checks[check]
  const identity = JSON.stringify([check, about.merchantId, about.subject, about.identity ?? about.row])
  return {
    id: hash("sha256", identity).slice(0, 16),
    check,
    invariant,
    says,
    mend,
    merchantId: about.merchantId,
    subject: about.subject,
    itemId: about.itemId ?? null,
    stockId: about.stockId ?? null,
    orderId: about.orderId ?? null,
    reservationId: about.reservationId ?? null,
    row: about.row
  }
}
