import { Cache, Clock, Context, Effect, Exit, Layer, Metric } from "effect"
import type { JwksUnavailable } from "../../schema/Failure.ts"
import { type Principal, Unauthenticated } from "../../schema/Principal.ts"
import { type InvalidToken, Jwks, tokenLengthMax } from "./Jwks.ts"
import { Policies } from "./Policies.ts"

/** A verified token is believed this long without asking again: what a retired key or a changed role outlives. */
export const verifiedTokenAgeMsMax = 60_000

/** Tokens are kept whole as keys: at 8 KB each, the longest that are taken, these are 32 MiB. */
const verifiedTokensMax = 4_096

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

      const verify = Effect.fn("Authentication.verify")(
        function* (token: string) {
          const claims = yield* jwks.verify(token)
          const permissions = yield* policies.permissionsOf(claims)
          const principal: Principal = {
            subject: claims.subject,
            merchantId: claims.merchantId,
            permissions,
            expiresAt: claims.expiresAt
          }
          const believedMs = Math.min(
            claims.expiresAt - (yield* Clock.currentTimeMillis),
            verifiedTokenAgeMsMax
          )
          return { principal, believedMs }
        },
        Effect.catchTag("InvalidToken", refuse)
      )
      const verified = yield* Cache.makeWith(verify, {
        capacity: verifiedTokensMax,
        // Refusals are not kept: whoever sends bad tokens could fill any cache with them.
        timeToLive: (exit) => (Exit.isSuccess(exit) ? Math.max(0, exit.value.believedMs) : 0)
      })

      const authenticateToken = (
        token: string
      ): Effect.Effect<Principal, Unauthenticated | JwksUnavailable> =>
        token.length > tokenLengthMax
          ? unauthenticated
          : Effect.map(Cache.get(verified, token), ({ principal }) => principal)

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
