import { type Effect, Result, Schema } from "effect"
import {
  type Decoded,
  type Defaults,
  decodeObject,
  identityOf,
  merchantOf,
  payloadOf
} from "../schema/MessageDecoding.ts"
import type { Caller } from "../schema/Caller.ts"
import type { IncomingMessage } from "../services/messaging/Broker.ts"

/** The description of one topic: how its messages are decoded, and which operation each of them calls. */

/** `repeated`: the message had been applied before; `ignored`: it calls no operation. */
export type Outcome = "applied" | "repeated" | "ignored"

/** The part of the caller that does not depend on the payload, with the deadline of this attempt. */
export type Origin = Omit<Caller, "merchantId" | "idempotency">

/** The work for a message that could be decoded. */
export interface Work<E, R> {
  /** Messages of one partition with the same aggregate keep their order, as messages of one key do. */
  readonly aggregate: string | undefined
  /** Effects, tracking and events are one transaction: running again is harmless and answers `repeated`. */
  readonly run: (origin: Origin) => Effect.Effect<Outcome, E, R>
}

export interface Consumer<E, R> {
  readonly topic: string
  readonly read: (message: IncomingMessage, defaults: Defaults) => Decoded<Work<E, R>>
}

/** A consumer of a topic whose payload is JSON of our own contract. */
export const consumer = <A, I, E, R>(definition: {
  readonly topic: string
  readonly payload: Schema.Codec<A, I>
  /** The id of the payload's subject; the consumer puts the merchant before it. */
  readonly aggregate: (payload: A) => string
  readonly handle: (caller: Caller, payload: A) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> =>
  identifiedConsumer({
    ...definition,
    identity: "NONE",
    handle: (caller, payload) => definition.handle(caller, payload)
  })

/**
 * A consumer whose messages have no natural key: the message's identity makes it idempotent. `OPTIONAL`: one without is not
 * a dead letter; its identity is then undefined.
 */
export const identifiedConsumer = <
  A,
  I,
  E,
  R,
  const Identity extends "NEEDED" | "OPTIONAL" | "NONE" = "NEEDED"
>(definition: {
  readonly topic: string
  readonly payload: Schema.Codec<A, I>
  readonly aggregate: (payload: A) => string
  readonly identity?: Identity
  readonly handle: (
    caller: Caller,
    payload: A,
    messageId: Identity extends "NEEDED" ? string : string | undefined
  ) => Effect.Effect<Outcome, E, R>
}): Consumer<E, R> => {
  const decode = Schema.decodeUnknownResult(definition.payload, { errors: "all" })
  return {
    topic: definition.topic,
    read: (message, defaults) =>
      Result.gen(function* () {
        const body = yield* decodeObject(message.value)
        const payload = yield* payloadOf(body, decode)
        const merchantId = yield* merchantOf(body, message, defaults)
        const identity =
          definition.identity === "NONE" ? Result.succeed(undefined) : identityOf(body, message)
        const messageId =
          definition.identity === "OPTIONAL" ? Result.getOrUndefined(identity) : yield* identity
        return {
          aggregate: `${merchantId} ${definition.aggregate(payload)}`,
          run: (origin) => definition.handle({ ...origin, merchantId }, payload, messageId as string)
        }
      })
  }
}
