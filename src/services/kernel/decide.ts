import type { Some } from "../../schema/Some.ts"
import { IdempotencyKeyReused } from "../../schema/Failure.ts"
import { ensureMerchant } from "./catalogue.ts"
import { type CommandDefinition, type Definitions, definitionOf, keptAnswer, readAnswer } from "./Command.ts"
import { DerivedIds } from "./ids.ts"
import { BatchNeeds, Needs, type TrackingKey } from "./Needs.ts"
import { perform } from "./operation.ts"
import type { CommonRefusal, Posting } from "./Posting.ts"
import { postingKey } from "./trackingKeys.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"

/** What became of one posting of a batch. */
export type Verdict<Answer = Some, Refusal = Some> =
  | { readonly answer: Answer; readonly replayed: boolean }
  | { readonly refusal: Refusal | CommonRefusal }

/** A posting with its definition, and the keys of what was locked and read for it. */
export interface Prepared {
  readonly posting: Posting
  readonly definitions: Definitions
  readonly definition: CommandDefinition
  readonly keys: unknown
  /** Its own tracking row, which only its second run asks for. */
  readonly own: TrackingKey | undefined
}

/** Idempotency keys are kept for 24 hours (CONTRACTS section 4). */
export const idempotencyAgeMs = 24 * 60 * 60 * 1000

/**
 * What postings need locked and read. `known`: merchants, and locations by `keyOf`, that are known to exist, so that nobody
 * has to wait to create them.
 */
export const prepare = (
  definitions: Definitions,
  postings: ReadonlyArray<Posting>,
  known: { has(key: string): boolean }
): { readonly needs: BatchNeeds; readonly prepared: ReadonlyArray<Prepared> } => {
  const needs = new BatchNeeds(known)
  const prepared = postings.map((posting): Prepared => {
    const { caller, command, id } = posting
    const definition = definitionOf(definitions, command._tag)
    const need = new Needs(needs, caller.merchantId)
    need.merchant()
    if (caller.idempotency !== undefined) need.idempotency(caller.idempotency.key)
    const own = definition.keepsAnswer ? need.tracking(postingKey(id), { isLocked: true }) : undefined
    return { posting, definitions, definition, keys: definition.needs(need, command), own }
  })
  return { needs, prepared }
}

/**
 * Decides one posting over the unit of work: its answer, with the rows changed accordingly, or a typed refusal, with the
 * rows as they were. Pure but for the unit of work: no database, no clock, no randomness.
 */
export const decide = (unit: UnitOfWork, prepared: Prepared): Verdict => {
  const { definition, keys, posting } = prepared
  const known = knownAnswer(unit, prepared)
  if (known !== undefined) return known
  unit.keep()
  const ids = new DerivedIds(posting.id)
  const decision = perform(unit, definition, posting, keys, ids, ensureMerchant)
  if ("refusal" in decision) {
    unit.undoTo(0)
    return decision
  }
  keepAnswer(unit, prepared, decision.answer)
  unit.keep()
  return { answer: decision.answer, replayed: false }
}

/** The answer of an earlier run of this posting, or of another one with its Idempotency-Key. */
const knownAnswer = (
  unit: UnitOfWork,
  { definition, definitions, own, posting }: Prepared
): Verdict | undefined => {
  const { idempotency, merchantId } = posting.caller
  // Its own second run (after a commit whose answer was lost) is answered as the first one was.
  const first = own === undefined ? undefined : unit.tracking.indexes.byKey.get(merchantId, own)
  if (first !== undefined && first.answer !== null) {
    return { answer: readAnswer(definitions, definition, first.answer).answer, replayed: false }
  }
  if (idempotency === undefined) return undefined
  const kept = unit.idempotency.indexes.byKey.get(merchantId, idempotency.key)
  if (kept === undefined || kept.createdAt <= posting.at - idempotencyAgeMs) return undefined
  if (kept.fingerprint !== idempotency.fingerprint) {
    return { refusal: new IdempotencyKeyReused({ idempotencyKey: idempotency.key }) }
  }
  const { answer, postingId } = readAnswer(definitions, definition, kept.answer)
  return { answer, replayed: first === undefined && postingId !== posting.id }
}

/** Keeps the answer with its Idempotency-Key or, where there is none, with the posting's id. */
const keepAnswer = (unit: UnitOfWork, { definition, own, posting }: Prepared, given: unknown): void => {
  const { idempotency, merchantId } = posting.caller
  if (own === undefined && idempotency === undefined) return
  const answer = keptAnswer(definition, posting.id, given)
  if (own !== undefined) {
    unit.tracking.insert({
      merchantId,
      trackingKey: own,
      postingId: posting.id,
      // Once is enough: the answer of a bulk is long.
      answer: idempotency === undefined ? answer : null,
      recordedAt: posting.at
    })
  }
  if (idempotency !== undefined) {
    const { fingerprint, key: idempotencyKey } = idempotency
    unit.idempotency.insert({ merchantId, idempotencyKey, fingerprint, answer, createdAt: posting.at })
  }
}
