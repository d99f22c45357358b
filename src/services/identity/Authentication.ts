import { Clock, Context, Effect, Layer, Metric } from "effect"
import type { JwksUnavailable } from "../../schema/Failure.ts"
import { type Principal, Unauthenticated } from "../../schema/Principal.ts"
import { type InvalidToken, Jwks, tokenLengthMax } from "./Jwks.ts"
import { Policies } from "./Policies.ts"

/** A verified token is believed this long without asking again: what a retired key or a changed role outlives. */
export const verifiedTokenAgeMsMax = 60_000

const verifiedTokensMax = 10_000
/** Tokens are kept whole as keys, so that their number alone would not bound the memory they take. */
const verifiedTokenCharactersMax = 16 * 1024 * 1024

const refusedTokens = Metric.counter("holdfast_tokens_refused_total", {
  description: "Tokens that were refused, by reason",
  incremental: true
})

/**
 * Who is calling. `authenticate` takes the `Authorization` header of a request, `authenticateToken` the bare token of
 * a socket's handshake. A token seen within the last minute costs a look-up by its exact text and no cryptography.
 */
export class Authentication extends Context.Service<
  Authentication,
  {
    readonly authenticate: (
      authorizationHeader: string | undefined
    ) => Effect.Effect<Principal, Unauthenticated | JwksUnavailable>
    readonly authenticateToken: (token: string) => Effect.Effect<Principal, Unauthenticated | JwksUnavailable>
  }
>()("holdfast/services/Authentication") {
  static readonly layer = Layer.effect(
    Authentication,
    Effect.gen(function* () {
      const jwks = yield* Jwks
      const policies = yield* Policies
      const verified = makeVerifiedTokens()

      const verify = Effect.fn("Authentication.verify")(
        function* (token: string) {
          // Read before verifying, so that the time this takes is part of the entry's life.
          const now = yield* Clock.currentTimeMillis
          const claims = yield* jwks.verify(token)
          const permissions = yield* policies.permissionsOf(claims)
          const principal: Principal = {
            subject: claims.subject,
            merchantId: claims.merchantId,
            permissions,
            expiresAt: claims.expiresAt
          }
          // Refusals are not kept: whoever sends bad tokens could fill any cache with them.
          const endsAt = Math.min(claims.expiresAt, now + verifiedTokenAgeMsMax)
          verified.remember({ token, found: Effect.succeed(principal), endsAt })
          return principal
        },
        Effect.catchTag("InvalidToken", refuse)
      )

      const authenticateToken = (
        token: string
      ): Effect.Effect<Principal, Unauthenticated | JwksUnavailable> =>
        token.length > tokenLengthMax
          ? unauthenticated
          : Clock.clockWith(
              (clock) => verified.recall(token, clock.currentTimeMillisUnsafe())?.found ?? verify(token)
            )

      return {
        authenticateToken,
        authenticate: (authorizationHeader) => {
          const token = bearerToken(authorizationHeader)
          return token === undefined ? unauthenticated : authenticateToken(token)
        }
      }
    })
  )
}

const unauthenticated = Effect.suspend(() => Effect.fail(new Unauthenticated()))

const refuse = (refused: InvalidToken) =>
  Metric.update(Metric.withAttributes(refusedTokens, { reason: refused.reason }), 1).pipe(
    Effect.andThen(Effect.logDebug("A token was refused", { reason: refused.reason })),
    Effect.andThen(unauthenticated)
  )

const bearerToken = (authorizationHeader: string | undefined): string | undefined => {
  if (authorizationHeader === undefined) return undefined
  // The scheme is case-insensitive and may be followed by several spaces (RFC 9110, section 11).
  const scheme = /^bearer +/i.exec(authorizationHeader)
  return scheme === null ? undefined : authorizationHeader.slice(scheme[0].length)
}

interface VerifiedToken {
  readonly token: string
  /** The answer, made once. */
  readonly found: Effect.Effect<Principal>
  readonly endsAt: number
}

/** 256 bits of the signature. */
const keyLength = 43

/**
 * The tokens used last, by their exact text, in two generations: when the recent one is full it becomes the older one
 * and what was the older is forgotten. A token in use moves back to the recent one, so that the least recently used go
 * first, and unlike in a list ordered by use, finding a recent token writes nothing.
 *
 * The key is the end of the token and the text is compared after that: every request brings its token as a new string,
 * and hashing all of it takes three times as long as the rest of the look-up. Only genuine tokens get in, so nobody
 * can make two of them collide.
 */
const makeVerifiedTokens = () => {
  let recent = new Map<string, VerifiedToken>()
  let recentCharacters = 0
  let older = new Map<string, VerifiedToken>()

  const remember = (entry: VerifiedToken) => {
    if (recent.size >= verifiedTokensMax / 2 || recentCharacters >= verifiedTokenCharactersMax / 2) {
      older = recent
      recent = new Map()
      recentCharacters = 0
    }
    const key = entry.token.slice(-keyLength)
    recentCharacters += entry.token.length - (recent.get(key)?.token.length ?? 0)
    recent.set(key, entry)
  }

  const recall = (token: string, now: number): VerifiedToken | undefined => {
    const key = token.slice(-keyLength)
    const entry = recent.get(key)
    if (entry !== undefined) return entry.token === token && now < entry.endsAt ? entry : undefined
    const aged = older.get(key)
    if (aged === undefined || aged.token !== token || now >= aged.endsAt) return undefined
    older.delete(key)
    remember(aged)
    return aged
  }

  return { remember, recall }
}
