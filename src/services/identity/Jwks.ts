import { Context, type Effect, Schema } from "effect"
import type { DevTokenRequest } from "../../schema/DevToken.ts"
import type { JwksUnavailable } from "../../schema/Failure.ts"
import type { VerifiedClaims } from "../../schema/Principal.ts"

/** Longer tokens are refused before any work: 8 KB holds every claim set that we read several times over. */
export const tokenLengthMax = 8_192

/**
 * Why a token was refused, for logs and metrics only.
 * - `length`, `form`: too long, or not three base64url segments;
 * - `header`: algorithm not allowed, or a `kid`, `typ` or `cty` that we do not take;
 * - `unknown_key`: no key of the issuer fits (perhaps not yet);
 * - `unusable_key`: the issuer published a key of that name that is malformed or too short;
 * - `signature`: the key fits and the signature is wrong;
 * - `expired`, `not_yet_valid`, `issuer`, `audience`: what they say;
 * - `claims`: a claim is missing, twice there, or of the wrong type.
 */
export const RefusalReason = Schema.Literals([
  "length",
  "form",
  "header",
  "unknown_key",
  "unusable_key",
  "signature",
  "expired",
  "not_yet_valid",
  "issuer",
  "audience",
  "claims"
])
export type RefusalReason = typeof RefusalReason.Type

/** The token proves nothing. Callers outside only ever see `Unauthenticated`. */
export class InvalidToken extends Schema.TaggedError<InvalidToken>()("InvalidToken", {
  reason: RefusalReason
}) {}

/** The port to whoever issues tokens: is this token genuine, meant for us, and valid now? */
export class Jwks extends Context.Service<
  Jwks,
  {
    readonly verify: (token: string) => Effect.Effect<VerifiedClaims, InvalidToken | JwksUnavailable>
  }
>()("holdfast/services/Jwks") {}

/** A JSON Web Key Set (RFC 7517) of public keys. */
export interface PublicJwks {
  readonly keys: ReadonlyArray<{ readonly kty: string; readonly [member: string]: unknown }>
}

/**
 * What stands in for an identity service on a developer's machine: hands out tokens to whoever asks. The same layer
 * then provides the `Jwks` that trusts it, and it alone.
 */
export class DevIssuer extends Context.Service<
  DevIssuer,
  {
    /** The public half of its key, for `GET /dev/jw-certs`. */
    readonly jwks: PublicJwks
    readonly issue: (request: DevTokenRequest) => Effect.Effect<string>
  }
>()("holdfast/services/DevIssuer") {}
