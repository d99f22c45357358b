import { BalanceOverflow, IdempotencyKeyReused } from "../../../schema/Failure.ts"
import type { AnyRefusal, Answers, Command, Posting } from "../../../schema/Posting.ts"
import { adjust } from "./adjustments.ts"
import type { Books } from "./Books.ts"
import { bulk } from "./bulk.ts"
import { deleteItem, ensureItem, ensureLocation, ensureMerchant, resolveDiscrepancy } from "./catalog.ts"
import { type Decision, Draft, answered, refused } from "./Draft.ts"
import { cancelOrder, confirmOrder, receiveOrder, returnGoods } from "./orders.ts"
import { count } from "./count.ts"
import { mendItem, mendReservation } from "./mend.ts"
import { confirm, expire, extend, release, reserve } from "./reservations.ts"
import { recordSale } from "./sales.ts"

/** What became of one posting of a batch. */
export type Verdict =
  | { readonly answer: Answers[keyof Answers]; readonly replayed: boolean }
  | { readonly refusal: AnyRefusal }

export const postingKey = (postingId: string): string => `POSTING|${postingId}`

/**
 * Whether a posting keeps its answer in a row of its own, for its own second run. Some need none: a reservation and the
 * lines of a sale carry the posting's id themselves, and expiry is harmless to repeat.
 */
export const hasOwnRow = ({ _tag }: Command): boolean =>
  _tag !== "ReserveStock" && _tag !== "ExpireReservation" && _tag !== "RecordSale"

/**
 * Decides one posting over the books: its answer, with the books changed accordingly, or a typed refusal, with the
 * books as they were. Pure but for the books: no database, no clock, no randomness.
 */
export const decide = (books: Books, posting: Posting): Verdict => {
  const { idempotency, merchantId } = posting.caller

  // Its own second run (after a commit whose answer was lost) is told what the first one was told.
  const own = books.tracking.get(merchantId, postingKey(posting.id))
  if (own?.answer) return { answer: JSON.parse(own.answer), replayed: false }
  if (idempotency !== undefined) {
    const kept = books.idempotency.get(merchantId, idempotency.key)
    if (kept !== undefined) {
      if (kept.fingerprint !== idempotency.fingerprint) {
        return { refusal: new IdempotencyKeyReused({ idempotencyKey: idempotency.key }) }
      }
      const answer: Answers[keyof Answers] = JSON.parse(kept.answer)
      // Its own second run is not a replay. A reservation has no row under its posting's id, but carries it.
      const isOwn =
        own !== undefined || ("reservation" in answer && answer.reservation.reservationId === posting.id)
      return { answer, replayed: !isOwn }
    }
  }

  books.begin()
  const draft = new Draft(books, posting)
  ensureMerchant(draft)
  const decision = perform(draft)
  if ("refusal" in decision) {
    books.undo()
    return decision
  }
  keep(draft, decision.answer)
  books.end()
  return { answer: decision.answer, replayed: false }
}

/** What the draft asks for, with its movements and the events that tell of them. What is refused is yet to be undone. */
const perform = (draft: Draft): Decision<Answers[keyof Answers]> => {
  const decision = run(draft, draft.posting.command)
  if ("refusal" in decision) return decision
  draft.finish()
  return draft.overflow === undefined
    ? decision
    : refused(new BalanceOverflow({ stockId: draft.overflow.stockId }))
}

const run = (draft: Draft, command: Command): Decision<Answers[keyof Answers]> => {
  switch (command._tag) {
    case "ReserveStock":
      return reserve(draft, command)
    case "ReleaseReservation":
      return release(draft, command)
    case "ConfirmReservation":
      return confirm(draft, command)
    case "ExtendReservation":
      return extend(draft, command)
    case "ExpireReservation":
      return expire(draft, command)
    case "AdjustStock":
      return adjust(draft, command)
    case "EnsureItem":
      return ensureItem(draft, command)
    case "EnsureLocation":
      return ensureLocation(draft, command)
    case "ResolveDiscrepancy":
      return resolveDiscrepancy(draft, command)
    case "EnsureMerchant":
      // Done for every posting, before it is decided.
      return answered({ at: draft.at, created: draft.isNewMerchant })
    case "DeleteItem":
      return deleteItem(draft, command)
    case "RecordSale":
      return recordSale(draft, command)
    case "ReceiveOrder":
      return receiveOrder(draft, command)
    case "ConfirmOrder":
      return confirmOrder(draft, command)
    case "CancelOrder":
      return cancelOrder(draft, command)
    case "ReturnGoods":
      return returnGoods(draft, command)
    case "CountStock":
      return count(draft, command)
    case "MendItem":
      return mendItem(draft, command)
    case "MendReservation":
      return mendReservation(draft, command)
    case "Bulk":
      return bulk(draft, command, perform)
  }
}

/**
 * Keeps the answer with its Idempotency-Key or, where there is none, with the posting's id. A reservation carries its
 * posting's id itself, and expiry is harmless to repeat: those two need no row of their own.
 */
const keep = (draft: Draft, given: Answers[keyof Answers]): void => {
  const { at, books, merchantId, posting } = draft
  const { idempotency } = posting.caller
  const tracked = hasOwnRow(posting.command)
  if (!tracked && idempotency === undefined) return
  const answer = JSON.stringify(given)
  if (tracked) {
    const row = {
      merchantId,
      trackingKey: postingKey(posting.id),
      postingId: posting.id,
      // Once is enough: the answer of a bulk is long.
      answer: idempotency === undefined ? answer : null,
      recordedAt: at
    }
    books.insert(books.written.tracking, row)
    books.index(books.tracking, merchantId, row.trackingKey, row)
  }
  if (idempotency !== undefined) {
    const row = {
      merchantId,
      idempotencyKey: idempotency.key,
      fingerprint: idempotency.fingerprint,
      answer,
      createdAt: at
    }
    books.insert(books.written.idempotency, row)
    books.index(books.idempotency, merchantId, idempotency.key, row)
  }
}
