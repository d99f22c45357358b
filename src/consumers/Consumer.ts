import { type Effect, Result, Schema } from "effect"
import type { Caller } from "../schema/Posting.ts"
import type { IncomingMessage } from "../services/messaging/Broker.ts"
import type { Reason } from "../services/messaging/DeadLetters.ts"
import * as Reading from "../schema/MessageDecoding.ts"

/** What each topic's file says of its topic: how a message is read, and which operation it asks for. */

/** `repeated`: it had been applied before; `ignored`: it asks for nothing. */
export type Outcome = "applied" | "repeated" | "ignored"

/** The part of the caller that the message itself decides, and until when this attempt may take. */
export type Origin = Omit<Caller, "merchantId" | "idempotency">

/** What is to be done for a message that could be read. */
export interface Work<E, R> {
  /** Two messages of one partition that name the same keep their order, as those of one key do. */
  readonly aggregate: string | undefined
  /** Effects, tracking and events are one transaction: asking again is harmless, and tells whether it was applied. */
  readonly run: (origin: Origin) => Effect.Effect<Outcome, E, R>
}

export interface Consumer<E, R> {
  readonly topic: string
  readonly read: (message: IncomingMessage, defaults: Reading.Defaults) => Result.Result<Work<E, R>, Reason>
}

/** A consumer of a topic whose payload is JSON of our own contract. */
export const consumer = <A, I, E, R>(definition: {
  readonly topic: string
  readonly payload: Schema.Codec<A, I>
  /** What the payload is about; the merchant is put before it. */
  readonly aggregate: (payload: A) => string
  readonly handle: (caller: Caller, payload: A) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> =>
  identifiedConsumer({
    ...definition,
    identified: false,
    handle: (caller, payload) => definition.handle(caller, payload)
  })

/** One whose message has no natural key, and is told apart by its identity. */
export const identifiedConsumer = <A, I, E, R>(definition: {
  readonly topic: string
  readonly payload: Schema.Codec<A, I>
  readonly aggregate: (payload: A) => string
  readonly identified?: boolean
  readonly handle: (caller: Caller, payload: A, messageId: string) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> => {
  const decode = Schema.decodeUnknownResult(definition.payload, { errors: "all" })
  return {
    topic: definition.topic,
    read: (message, defaults) =>
      Result.gen(function* () {
        const body = yield* Reading.objectOf(message.value)
        const payload = yield* Reading.payloadOf(body, decode)
        const merchantId = yield* Reading.merchantOf(body, message, defaults)
        const messageId = definition.identified === false ? "" : yield* Reading.identityOf(body, message)
        return {
          aggregate: `${merchantId} ${definition.aggregate(payload)}`,
          run: (origin) => definition.handle({ ...origin, merchantId }, payload, messageId)
        }
      })
  }
}
