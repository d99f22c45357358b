import { Cause, Deferred, Effect, Latch, Layer, Metric, Schedule, Schema, type Scope, Stream } from "effect"
import { HttpClient } from "effect/http"
import { createLocalJWKSet, type JSONWebKeySet } from "jose"
import { JwksUnavailable } from "../schema/Failure.ts"
import { Jwks } from "../services/identity/Jwks.ts"
import { checkForm, checkSignature, type KeySet, type TokenRules } from "./SignedToken.ts"

export interface JwksHttpConfig extends TokenRules {
  /** `JWKS_URL`: where the issuer publishes its public keys. */
  readonly url: string
  /** How long a caller waits for keys that are being fetched: within its own deadline, `REQUEST_TIMEOUT_MS`. */
  readonly waitMsMax: number
}

/**
 * So often keys are fetched again, so that a key that the issuer has retired stops within ten minutes, and one in use
 * never makes a caller wait.
 */
const refreshMs = 300_000
/**
 * With keys at hand the issuer is asked at most this often, whether it answers or not: for a key that we do not know,
 * because the `kid` is chosen by whoever sends the token, and after a failure, because we can live with what we have.
 */
export const coolDownMs = 30_000
/** Without keys nobody gets in: the waits between fetches double only up to where we are well again within 30 s. */
const backOff = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("10 seconds")])
const fetchTimeout = "5 seconds"
const fetchCharactersMax = 1024 * 1024
const keysMax = 100

/**
 * Verifies tokens with the keys published at `url`. From the first token on a fiber keeps the keys fresh; a token that
 * names a key that is not among them hastens it. While fetching fails the keys at hand go on being used. `jose` has a
 * remote key set too, but its cool-down counts from the last *successful* fetch, so that an issuer that is down is
 * asked once per token (RELIABILITY, "Traps").
 */
export const layer = (config: JwksHttpConfig): Layer.Layer<Jwks, never, HttpClient.HttpClient> =>
  Layer.effect(
    Jwks,
    Effect.gen(function* () {
      const keySets = yield* keepFresh(fetchKeys(yield* HttpClient.HttpClient, config.url), config.waitMsMax)

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

/** `detail` is for the log, and never what the issuer answered: it may be long, and none of our business. */
class JwksFetchFailed extends Schema.TaggedError<JwksFetchFailed>()("JwksFetchFailed", {
  reason: Schema.Literals(["transport", "status", "size", "content", "timeout"]),
  detail: Schema.optionalKey(Schema.String)
}) {}

const transportFailed = (error: { readonly message: string }) =>
  new JwksFetchFailed({ reason: "transport", detail: error.message.slice(0, 200) })

const PublishedKeys = Schema.fromJsonString(
  Schema.Struct({ keys: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)) })
)

const fetchKeys = (client: HttpClient.HttpClient, url: string): Effect.Effect<KeySet, JwksFetchFailed> =>
  Effect.gen(function* () {
    const response = yield* HttpClient.withScope(client)
      .get(url, { acceptJson: true })
      .pipe(Effect.mapError(transportFailed))
    if (response.status !== 200) {
      return yield* new JwksFetchFailed({ reason: "status", detail: String(response.status) })
    }
    const text = yield* response.stream.pipe(
      Stream.mapError(transportFailed),
      Stream.decodeText(),
      Stream.runFoldEffect(
        () => "",
        (read, part) =>
          read.length + part.length > fetchCharactersMax
            ? Effect.fail(new JwksFetchFailed({ reason: "size" }))
            : Effect.succeed(read + part)
      )
    )
    const published = yield* Schema.decodeUnknownEffect(PublishedKeys)(text)
    return yield* toKeySet(published.keys)
  }).pipe(
    Effect.catchTag("SchemaError", () => Effect.fail(new JwksFetchFailed({ reason: "content" }))),
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: fetchTimeout,
      orElse: () => Effect.fail(new JwksFetchFailed({ reason: "timeout" }))
    }),
    Effect.withSpan("Jwks.fetch")
  )

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
 * Keeps the last key set that was fetched fresh, from the first time that it is wanted.
 *
 * `current` fails with `JwksUnavailable` only while no key set was ever fetched. `newerThan` gives the key set that
 * came after the given one, fetching it unless the cool-down forbids, and `undefined` if there is none.
 */
const keepFresh = Effect.fnUntraced(function* (
  fetch: Effect.Effect<KeySet, JwksFetchFailed>,
  waitMsMax: number
): Effect.fn.Return<
  {
    readonly current: Effect.Effect<KeySet, JwksUnavailable>
    readonly newerThan: (keys: KeySet) => Effect.Effect<KeySet | undefined>
  },
  never,
  Scope.Scope
> {
  let held: KeySet | undefined
  /** Between two fetches, when nobody may hasten the next one. */
  let rests = false
  let ended = Deferred.makeUnsafe<void>()
  const wanted = Latch.makeUnsafe(false)

  const attempt = Effect.gen(function* () {
    rests = false
    held = yield* fetch
    yield* Metric.update(Metric.withAttributes(fetches, { outcome: "ok" }), 1)
  }).pipe(
    Effect.catchCause((cause) =>
      // We are stopping: that says nothing about the issuer.
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Metric.update(Metric.withAttributes(fetches, { outcome: "failed" }), 1).pipe(
            Effect.andThen(
              Effect.logWarning("The token issuer's keys could not be fetched", Cause.squash(cause), {
                olderKeysInUse: held !== undefined
              })
            ),
            Effect.andThen(Effect.fail("failed"))
          )
    ),
    Effect.ensuring(
      Effect.suspend(() => {
        rests = true
        wanted.closeUnsafe()
        const done = ended
        ended = Deferred.makeUnsafe()
        return Deferred.succeed(done, undefined)
      })
    )
  )

  const again = Effect.sleep(coolDownMs).pipe(
    Effect.andThen(Effect.sync(() => (rests = false))),
    Effect.andThen(Effect.raceFirst(wanted.await, Effect.sleep(refreshMs - coolDownMs))),
    Effect.andThen(Effect.retry(attempt, Schedule.spaced(coolDownMs)))
  )
  yield* wanted.await.pipe(
    Effect.andThen(Effect.retry(attempt, backOff)),
    Effect.andThen(Effect.forever(again)),
    Effect.forkScoped
  )

  /** Waits until the fetch that runs, or the one that begins, has ended. */
  const nextFetch = Effect.suspend(() => {
    if (rests) return Effect.void
    // Taken before the fiber wakes: it may run, and end, within `open`.
    const end = Deferred.await(ended)
    return Effect.andThen(wanted.open, Effect.timeoutOption(end, waitMsMax))
  })

  const orUnavailable = Effect.suspend(() =>
    held === undefined ? Effect.fail(new JwksUnavailable({ retryAfterSeconds: 5 })) : Effect.succeed(held)
  )

  return {
    current: Effect.suspend(() =>
      held === undefined ? Effect.andThen(nextFetch, orUnavailable) : Effect.succeed(held)
    ),
    newerThan: (keys) =>
      Effect.suspend(() => (held === keys ? nextFetch : Effect.void)).pipe(
        Effect.map(() => (held === keys ? undefined : held))
      )
  }
})
