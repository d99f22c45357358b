import { Clock, Effect, Schema } from "effect"
import { type createLocalJWKSet, errors, jwtVerify } from "jose"
import { OutsideId } from "../schema/Identifier.ts"
import type { VerifiedClaims } from "../schema/Principal.ts"
import { InvalidToken, type RefusalReason, tokenLengthMax } from "../services/identity/Jwks.ts"

/** Whether a token is genuine, given the issuer's keys: RFC 7519 as RFC 8725 wants it read, on top of `jose`. */

/** What a token must say to be meant for us: compared as they are, character by character. */
export interface TokenRules {
  readonly issuer: string
  readonly audience: string
}

export type KeySet = ReturnType<typeof createLocalJWKSet>

/** HMAC and `none` are not among them, so that no public key is ever taken for a secret (RFC 8725, section 3.1). */
const algorithms = ["ES256", "RS256", "EdDSA"] as const
const clockToleranceSeconds = 5
const keyIdLengthMax = 256
/** How many keys are tried for a token that names none. */
const keysTriedMax = 8

/**
 * The header as far as we read it. `jwk`, `jku`, `x5u` and `x5c` are not read: a token does not choose the key that
 * it is judged by. `crit` is judged by `jose`, which knows no extension that a JWT may use.
 */
const Header = Schema.Struct({
  alg: Schema.Literals(algorithms),
  kid: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(keyIdLengthMax))),
  // Other kinds of tokens of the same issuer (logout tokens, for one) prove something else (RFC 8725, section 3.11).
  typ: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^(application\/)?(at\+)?jwt$/i))),
  // A token inside the token: its claims are not those that we would read.
  cty: Schema.optionalKey(Schema.Never)
})

/** The latest time that a `Date` can hold, in seconds: whatever is later, like `1e400`, is no time. */
const epochSecondsMax = 8_640_000_000_000

const Claims = Schema.Struct({
  sub: OutsideId,
  merchant_id: OutsideId,
  exp: Schema.Finite.check(Schema.isLessThanOrEqualTo(epochSecondsMax)),
  scope: Schema.optionalKey(Schema.String),
  roles: Schema.optionalKey(Schema.Array(Schema.String))
})

/** What can be told without a key. */
export const checkForm = (token: string): Effect.Effect<void, InvalidToken> =>
  Effect.suspend(() => {
    const refusal = formRefusal(token)
    return refusal === undefined ? Effect.void : Effect.fail(new InvalidToken({ reason: refusal }))
  })

const formRefusal = (token: string): RefusalReason | undefined => {
  if (token.length > tokenLengthMax) return "length"
  const segments = /^([\w-]+)\.[\w-]+\.[\w-]+$/.exec(token)
  if (segments === null) return "form"
  return isHeader(parseSegment(segments[1] ?? "")) ? undefined : "header"
}

const namesKey = (token: string): boolean => {
  const header = parseSegment(token.split(".")[0] ?? "")
  return isHeader(header) && header.kid !== undefined
}

const isHeader = Schema.is(Header)
const isClaims = Schema.is(Claims)

/**
 * Whether one of `keys` signed the token and its claims are meant for us now. Time comes from Effect's clock. A token
 * that `checkForm` refused must not be brought here.
 */
export const checkSignature = Effect.fnUntraced(function* (token: string, keys: KeySet, rules: TokenRules) {
  const now = yield* Clock.currentTimeMillis
  yield* Effect.tryPromise({
    try: () =>
      verifyWithAny(token, keys, {
        algorithms: [...algorithms],
        issuer: rules.issuer,
        audience: rules.audience,
        requiredClaims: ["exp"],
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(now)
      }),
    catch: (error) => {
      const reason = refusalReason(error)
      // A token that names no key may be signed with one that we do not have yet.
      return new InvalidToken({ reason: reason === "signature" && !namesKey(token) ? "unknown_key" : reason })
    }
  })
  const claims = parseSegment(token.split(".")[1] ?? "")
  if (!isClaims(claims)) return yield* new InvalidToken({ reason: "claims" })
  const verified: VerifiedClaims = {
    subject: claims.sub,
    merchantId: claims.merchant_id,
    scopes: claims.scope?.split(" ").filter((scope) => scope !== "") ?? [],
    roles: claims.roles ?? [],
    expiresAt: claims.exp * 1_000
  }
  return verified
})

/** A token without `kid` fits every key of its kind, and the issuer may have more than one. */
const verifyWithAny = async (token: string, keys: KeySet, options: Parameters<typeof jwtVerify>[2]) => {
  try {
    await jwtVerify(token, keys, options)
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    let tried = 0
    for await (const key of error) {
      if (tried++ === keysTriedMax) break
      const failure = await jwtVerify(token, key, options).then(() => undefined, asError)
      if (failure === undefined) return
      if (!(failure instanceof errors.JWSSignatureVerificationFailed)) throw failure
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

const asError = (cause: unknown) => (cause instanceof Error ? cause : new Error("not an error", { cause }))

const refusalReason = (error: unknown): RefusalReason => {
  if (error instanceof errors.JWKSNoMatchingKey) return "unknown_key"
  if (error instanceof errors.JWSSignatureVerificationFailed) return "signature"
  if (error instanceof errors.JWTExpired) return "expired"
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "iss") return "issuer"
    if (error.claim === "aud") return "audience"
    return error.claim === "nbf" && error.reason === "check_failed" ? "not_yet_valid" : "claims"
  }
  if (error instanceof errors.JWTInvalid) return "claims"
  return error instanceof errors.JOSEError ? "header" : "unusable_key"
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** The JSON object in a segment of a token, or `undefined`; what is written twice is no object of ours. */
const parseSegment = (segment: string): unknown => {
  try {
    const text = utf8.decode(Buffer.from(segment, "base64url"))
    const value: unknown = JSON.parse(text)
    return hasDuplicateMembers(text, value) ? undefined : value
  } catch {
    return undefined
  }
}

/**
 * `JSON.parse` keeps the last of two members of one name, other readers the first, so that a gateway and we could read
 * two different merchants in one token. In valid JSON each member has one colon outside of strings: more colons than
 * members mean that some were lost. Walks without recursion, because depth is the sender's choice.
 */
const hasDuplicateMembers = (text: string, value: unknown): boolean => {
  let lost = text.replace(/"(?:[^"\\]|\\.)*"/g, "").split(":").length - 1
  const open: Array<unknown> = [value]
  while (open.length > 0) {
    const next = open.pop()
    if (typeof next !== "object" || next === null) continue
    const inner: ReadonlyArray<unknown> = Object.values(next)
    if (!Array.isArray(next)) lost -= inner.length
    for (const child of inner) open.push(child)
  }
  return lost > 0
}
