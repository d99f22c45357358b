import { hash } from "node:crypto"
import { type Check, checks, type Repair } from "../../kernel/Question.ts"

export type { Check } from "../../kernel/Question.ts"

/** One row (or a few that do not go together) that breaks an invariant. Times in `row` are epoch milliseconds. */
export interface Finding {
  /** The same answer to the same question about the same row has the same id: what an acknowledgement names. */
  readonly id: string
  readonly check: Check
  readonly invariant: number
  readonly says: string
  readonly repair: Repair
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

const ids = ["itemId", "stockId", "orderId", "reservationId"] as const

/** The finding of a row that a question has answered with (`kernel/Question.ts`). */
export const findingOf = (check: Check, answer: object): Finding => {
  const fields = Object.entries(answer).map(([name, value]) => [camelCased(name), value] as const)
  const { merchantId, subject, ...rest } = Object.fromEntries(fields) as Record<string, unknown>
  const about = { merchantId: String(merchantId ?? ""), subject: String(subject) }
  const named = Object.fromEntries(ids.map((id) => [id, rest[id] ?? null])) as Pick<
    Finding,
    (typeof ids)[number]
  >
  for (const id of ids) delete rest[id]
  // What a repair derives is found under its subject, whatever the figures are by then.
  const known = checks[check].repair === "ACKNOWLEDGE" ? rest : ""
  const identity = JSON.stringify([check, about.merchantId, about.subject, known])
  return { id: hash("sha256", identity).slice(0, 16), check, ...checks[check], ...about, ...named, row: rest }
}

const camelCased = (name: string): string =>
  name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
