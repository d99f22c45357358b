import { Cause, Clock, Deferred, Effect, Exit, Layer, Metric, Schema, type Scope, Stream } from "effect"
import { HttpClient } from "effect/http"
import { createLocalJWKSet, errors, type JSONWebKeySet, jwtVerify } from "jose"
import { JwksUnavailable } from "../schema/Failure.ts"
import { OutsideId } from "../schema/Identifier.ts"
import type { VerifiedClaims } from "../schema/Principal.ts"
import { verifiedTokenAgeMsMax } from "../services/identity/Authentication.ts"
import { InvalidToken, Jwks, type RefusalReason, tokenLengthMax } from "../services/identity/Jwks.ts"

/** What a token must say to be meant for us: compared as they are, character by character. */
export interface TokenRules {
  readonly issuer: string
  readonly audience: string
}

export interface JwksHttpConfig extends TokenRules {
  /** `JWKS_URL`: where the issuer publishes its public keys. */
  readonly url: string
}

/** From this age on keys are fetched again in the background, so that a key in use never makes a caller wait. */
export const keysRefreshAgeMs = 300_000
/** A key that the issuer has retired stops within this time, unless the issuer cannot be asked. */
export const keysAgeMsMax = 600_000
/** So callers wait for fresh keys from here on: a verified token is believed a while longer, and a fetch takes time. */
const keysTrustedAgeMs = keysAgeMsMax - 2 * verifiedTokenAgeMsMax
/** While older keys are at hand, a caller waits only this long for fresh ones: its own deadline is near. */
const staleWaitMsMax = 1_000
/**
 * With keys at hand the issuer is asked at most this often, whether it answers or not: for a key that we do not know,
 * because the `kid` is chosen by whoever sends the token, and after a failure, because we can live with what we have.
 */
export const coolDownMs = 30_000
const fetchTimeoutMs = 5_000
const fetchBytesMax = 1024 * 1024
/** Without keys nobody gets in: the waits between fetches double only up to where we are well again within 30 s. */
const backOffMsFirst = 500
const backOffMsMax = 10_000

/**
 * Verifies tokens with the keys published at `url`. Keys are fetched at the first token, again in the background, and
 * when a token names a key that is not among them; one fetch runs at a time, and whoever needs it waits for that one.
 * While fetching fails the keys at hand go on being used. `jose` has a remote key set too, but its cool-down counts
 * from the last *successful* fetch, so that an issuer that is down is asked once per token (RELIABILITY, "Traps").
 */
export const layer = (config: JwksHttpConfig): Layer.Layer<Jwks, never, HttpClient.HttpClient> =>
  Layer.effect(
    Jwks,
    Effect.gen(function* () {
      const keySets = yield* makeKeySets(yield* makeFetchKeys(config.url))

      const verify = Effect.fn("Jwks.verify")(function* (token: string) {
        // What cannot be valid under any key is refused first: garbage never makes us ask the issuer.
        yield* checkForm(token)
        const keys = yield* keySets.current
        return yield* checkSignature(token, keys, config).pipe(
          Effect.catchIf(
            (refused) => refused.reason === "unknown_key",
            (refused) =>
              Effect.flatMap(keySets.newerThan(keys), (newer) =>
                newer === undefined ? Effect.fail(refused) : checkSignature(token, newer, config)
              )
          )
        )
      })

      return { verify }
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// The issuer's keys

export type KeySet = ReturnType<typeof createLocalJWKSet>

class JwksFetchFailed extends Schema.TaggedError<JwksFetchFailed>()("JwksFetchFailed", {
  reason: Schema.Literals(["transport", "status", "size", "content", "timeout"]),
  status: Schema.optionalKey(Schema.Int),
  /** For the log. Never what the issuer answered: it may be long, and none of our business. */
  detail: Schema.optionalKey(Schema.String)
}) {}

const transportFailed = (error: { readonly message: string }) =>
  new JwksFetchFailed({ reason: "transport", detail: error.message.slice(0, 200) })

const PublishedKeys = Schema.fromJsonString(
  Schema.Struct({ keys: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)) })
)
const keysMax = 100

const makeFetchKeys = Effect.fnUntraced(function* (url: string) {
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  return Effect.gen(function* () {
    const response = yield* client.get(url, { acceptJson: true }).pipe(Effect.mapError(transportFailed))
    if (response.status !== 200) {
      return yield* new JwksFetchFailed({ reason: "status", status: response.status })
    }
    const bytes = yield* response.stream.pipe(
      Stream.mapError(transportFailed),
      Stream.runFoldEffect(
        () => ({ chunks: new Array<Uint8Array>(), length: 0 }),
        (read, chunk) => {
          read.chunks.push(chunk)
          read.length += chunk.byteLength
          return read.length > fetchBytesMax
            ? Effect.fail(new JwksFetchFailed({ reason: "size" }))
            : Effect.succeed(read)
        }
      )
    )
    const published = yield* Schema.decodeUnknownEffect(PublishedKeys)(
      Buffer.concat(bytes.chunks).toString("utf8")
    ).pipe(Effect.mapError(() => new JwksFetchFailed({ reason: "content" })))
    return yield* toKeySet(published.keys)
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: fetchTimeoutMs,
      orElse: () => Effect.fail(new JwksFetchFailed({ reason: "timeout" }))
    }),
    Effect.withSpan("Jwks.fetch")
  )
})

/** Keeps what can verify a signature. Secrets that somebody published are left out, kinds that we do not know too. */
const toKeySet = (published: ReadonlyArray<{ readonly [member: string]: unknown }>) =>
  Effect.try({
    try: (): KeySet =>
      createLocalJWKSet({
        keys: published
          .filter((key) => key["kty"] === "EC" || key["kty"] === "RSA" || key["kty"] === "OKP")
          .filter((key) => key["d"] === undefined)
          .slice(0, keysMax)
      } as JSONWebKeySet),
    catch: () => new JwksFetchFailed({ reason: "content" })
  })

const fetches = Metric.counter("holdfast_jwks_fetches_total", {
  description: "Fetches of the token issuer's keys, by outcome",
  incremental: true
})

/**
 * Holds the last key set that was fetched and decides when to fetch again.
 *
 * `current` fails with `JwksUnavailable` only while no key set was ever fetched. `newerThan` gives the key set that
 * came after the given one, fetching it unless the cool-down forbids, and `undefined` if there is none.
 */
const makeKeySets = Effect.fnUntraced(function* (
  fetchKeys: Effect.Effect<KeySet, JwksFetchFailed>
): Effect.fn.Return<
  {
    readonly current: Effect.Effect<KeySet, JwksUnavailable>
    readonly newerThan: (keys: KeySet) => Effect.Effect<KeySet | undefined>
  },
  never,
  Scope.Scope
> {
  const scope = yield* Effect.scope
  let held: { readonly keys: KeySet; readonly asOf: number } | undefined
  let running: Deferred.Deferred<void> | undefined
  let startedAt = Number.NEGATIVE_INFINITY
  let failures = 0
  let retryAt = Number.NEGATIVE_INFINITY

  const finish = (exit: Exit.Exit<KeySet, JwksFetchFailed>) =>
    Clock.currentTimeMillis.pipe(
      Effect.flatMap((now) => {
        if (Exit.isSuccess(exit)) {
          // Counted from the start of the fetch: the issuer may have retired a key right after it answered.
          held = { keys: exit.value, asOf: startedAt }
          failures = 0
          return Metric.update(Metric.withAttributes(fetches, { outcome: "ok" }), 1)
        }
        // We are stopping: that says nothing about the issuer.
        if (Cause.hasInterruptsOnly(exit.cause)) return Effect.void
        const backOffMs = Math.min(backOffMsFirst * 2 ** failures, backOffMsMax)
        retryAt = now + (held === undefined ? backOffMs : coolDownMs)
        failures += 1
        return Metric.update(Metric.withAttributes(fetches, { outcome: "failed" }), 1).pipe(
          Effect.andThen(
            Effect.logWarning("The token issuer's keys could not be fetched", Cause.squash(exit.cause), {
              olderKeysInUse: held !== undefined
            })
          )
        )
      })
    )

  /**
   * The fetch that is running, or a new one if `startsAt` has come, or nothing. It runs in the layer's scope, so that
   * a caller who gives up does not end it for the others; uninterruptible up to there, so that none is ever announced
   * and not started.
   */
  const refresh = (startsAt: (now: number) => boolean): Effect.Effect<Deferred.Deferred<void> | undefined> =>
    Effect.uninterruptible(
      Clock.clockWith((clock) => {
        const now = clock.currentTimeMillisUnsafe()
        if (running !== undefined || now < retryAt || !startsAt(now)) return Effect.succeed(running)
        const done = Deferred.makeUnsafe<void>()
        running = done
        startedAt = now
        const announce = Effect.suspend(() => {
          running = undefined
          return Deferred.succeed(done, undefined)
        })
        return fetchKeys.pipe(
          Effect.onExit((exit) => Effect.ensuring(finish(exit), announce)),
          Effect.ignore,
          Effect.forkIn(scope, { startImmediately: true }),
          Effect.as(done)
        )
      })
    )

  const heldKeys = () => held?.keys

  const current = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (held !== undefined && now - held.asOf < keysRefreshAgeMs) return held.keys
    const fetching = yield* refresh(() => true)
    if (held !== undefined) {
      // After a failure nobody waits: the issuer has to be well again before its keys are fresh again.
      if (fetching !== undefined && failures === 0 && now - held.asOf >= keysTrustedAgeMs) {
        yield* Effect.timeoutOption(Deferred.await(fetching), staleWaitMsMax)
      }
      return held.keys
    }
    if (fetching !== undefined) yield* Deferred.await(fetching)
    return heldKeys() ?? (yield* unavailable)
  })

  const unavailable = Clock.clockWith((clock) => {
    const waitMs = retryAt - clock.currentTimeMillisUnsafe()
    return Effect.fail(new JwksUnavailable({ retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1_000)) }))
  })

  const newerThan = Effect.fnUntraced(function* (keys: KeySet) {
    if (held === undefined || held.keys === keys) {
      // From the last start, whatever came of it: a failing issuer is not asked more often than a healthy one.
      const fetching = yield* refresh((now) => now - startedAt >= coolDownMs)
      if (fetching !== undefined) yield* Deferred.await(fetching)
    }
    return held === undefined || held.keys === keys ? undefined : held.keys
  })

  return { current, newerThan }
})

// ---------------------------------------------------------------------------------------------------------------------
// One token

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
