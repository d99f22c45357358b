import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Schema } from "effect"
import { HttpClient, HttpClientError, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { createHmac, generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto"
import { layer, coolDownMs } from "../../src/layers/JwksHttp.ts"
import { Unauthenticated } from "../../src/schema/Principal.ts"
import { Authentication } from "../../src/services/identity/Authentication.ts"
import { Jwks, type RefusalReason } from "../../src/services/identity/Jwks.ts"
import { Policies } from "../../src/services/identity/Policies.ts"

// Goal: only a token that our issuer signed for us, and that is valid now, is ever accepted, and no token makes us ask
// anybody but the issuer, nor the issuer more often than it can bear.
// Method: tokens are put together by hand from texts, so that every malformed one can be made; the issuer is an
// HttpClient that records who was asked; time is TestClock's.

const jwksUrl = "https://issuer.test/jw-certs"
const issuer = "https://issuer.test"
const audience = "holdfast"
const waitMsMax = 2_000
const nowSeconds = 1_700_000_000

interface Key {
  readonly kid: string
  readonly alg: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

const ecKey = (kid: string): Key => ({
  kid,
  alg: "ES256",
  ...generateKeyPairSync("ec", { namedCurve: "P-256" })
})
const key1 = ecKey("key-1")
const key2 = ecKey("key-2")
const attackerKey = ecKey("attacker")
const rsaKey: Key = { kid: "rsa", alg: "RS256", ...generateKeyPairSync("rsa", { modulusLength: 2048 }) }
const edKey: Key = { kid: "ed", alg: "EdDSA", ...generateKeyPairSync("ed25519") }
const shortRsaKey: Key = {
  kid: "short",
  alg: "RS256",
  ...generateKeyPairSync("rsa", { modulusLength: 1024 })
}

const publicJwk = (key: Key) => ({
  ...key.publicKey.export({ format: "jwk" }),
  kid: key.kid,
  alg: key.alg,
  use: "sig"
})

const base64url = (text: string) => Buffer.from(text).toString("base64url")

const signature = (key: Key, input: string) =>
  sign(key.alg === "EdDSA" ? null : "sha256", Buffer.from(input), {
    key: key.privateKey,
    dsaEncoding: "ieee-p1363"
  }).toString("base64url")

/** A token of exactly these texts, signed by `key`. */
const signed = (key: Key, header: string, payload: string) => {
  const input = `${base64url(header)}.${base64url(payload)}`
  return `${input}.${signature(key, input)}`
}

const goodClaims = {
  iss: issuer,
  aud: audience,
  sub: "order-service",
  merchant_id: "merchant-a",
  scope: "inventory:read inventory:reserve",
  exp: nowSeconds + 86_400
}

interface Changes {
  readonly key?: Key
  /** Members to put over the good ones; `undefined` takes one away. */
  readonly header?: object
  readonly claims?: object
}

const tokenOf = ({ claims = {}, header = {}, key = key1 }: Changes = {}) =>
  signed(
    key,
    JSON.stringify({ alg: key.alg, typ: "JWT", kid: key.kid, ...header }),
    JSON.stringify({ ...goodClaims, ...claims })
  )

/** An issuer whose answers a test may change, and everybody who was asked for anything. */
const makeStub = (...keys: ReadonlyArray<Key>) => {
  const stub = {
    asked: new Array<string>(),
    keys: keys.map(publicJwk) as ReadonlyArray<object>,
    answer: (): Effect.Effect<Response, "refused"> => Effect.succeed(Response.json({ keys: stub.keys }))
  }
  const httpLayer = Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request, url) =>
      Effect.suspend(() => {
        stub.asked.push(url.href)
        return stub.answer()
      }).pipe(
        Effect.map((response) => HttpClientResponse.fromWeb(request, response)),
        Effect.mapError(
          (cause) =>
            new HttpClientError.HttpClientError({
              reason: new HttpClientError.TransportError({ request, cause })
            })
        )
      )
    )
  )
  const jwksLayer = layer({ url: jwksUrl, issuer, audience, waitMsMax }).pipe(Layer.provide(httpLayer))
  return Object.assign(stub, {
    layer: Authentication.layer.pipe(Layer.provide(Policies.layerLocal), Layer.provideMerge(jwksLayer))
  })
}

/** The body of an answer arrives in turns of the event loop, which the test's clock does not wait for. */
const settled = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const atNow = TestClock.setTime(nowSeconds * 1_000)
const verify = (token: string) => Jwks.use((jwks) => jwks.verify(token))
const refusal = (token: string) =>
  verify(token).pipe(
    Effect.flip,
    Effect.map((failure) => (failure._tag === "InvalidToken" ? failure.reason : failure._tag))
  )

/** Shows `count` tokens, each with a kid that was never seen before. */
const flood = (count: number) =>
  Effect.forEach(
    Array.from({ length: count }, () => randomUUID()),
    (kid) => refusal(`${base64url(JSON.stringify({ alg: "ES256", kid }))}.AAAA.AAAA`),
    { concurrency: 100, discard: true }
  )

describe("JwksHttp", () => {
  describe("accepts", () => {
    it.effect.each<{ readonly name: string; readonly change: Changes }>([
      { name: "ES256", change: {} },
      { name: "RS256", change: { key: rsaKey } },
      { name: "EdDSA", change: { key: edKey } },
      { name: "no typ", change: { header: { typ: undefined } } },
      { name: "an access token by its typ", change: { header: { typ: "at+jwt" } } },
      { name: "a typ in full and in capitals", change: { header: { typ: "application/JWT" } } },
      { name: "an audience list that holds ours", change: { claims: { aud: ["other", audience] } } },
      { name: "exp within the tolerance", change: { claims: { exp: nowSeconds - 4 } } },
      { name: "nbf within the tolerance", change: { claims: { nbf: nowSeconds + 5 } } },
      { name: "a colon and escapes in a claim", change: { claims: { note: 'a": {"b' } } },
      { name: "nested claims", change: { claims: { act: { sub: "x", list: [{ a: 1 }, { a: 2 }] } } } }
    ])("$name", ({ change }) => {
      const stub = makeStub(key1, rsaKey, edKey)
      return Effect.gen(function* () {
        yield* atNow
        const claims = yield* verify(tokenOf(change))
        assert.strictEqual(claims.merchantId, "merchant-a")
        assert.strictEqual(claims.subject, "order-service")
        assert.deepStrictEqual(claims.scopes, ["inventory:read", "inventory:reserve"])
        assert.deepStrictEqual(stub.asked, [jwksUrl])
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("a token without kid when one of several keys of its kind signed it", () => {
      const stub = makeStub(key1, key2, rsaKey)
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf({ key: key2, header: { kid: undefined } }))
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("a good token among keys that cannot be used", () => {
      const stub = makeStub(key1)
      stub.keys = [
        { kty: "AKP", alg: "ML-DSA-44", pub: "AA" },
        { kty: "EC", crv: "P-256", kid: "broken", x: "AA", y: "AA" },
        {},
        ...stub.keys
      ]
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf())
        assert.strictEqual(yield* refusal(tokenOf({ header: { kid: "broken" } })), "unusable_key")
      }).pipe(Effect.provide(stub.layer))
    })
  })

  describe("refuses", () => {
    const header = JSON.stringify({ alg: "ES256", typ: "JWT", kid: key1.kid })
    const payload = JSON.stringify(goodClaims)
    const [goodHeader = "", goodPayload = "", goodSignature = ""] = tokenOf().split(".")
    const publicPem = key1.publicKey.export({ format: "pem", type: "spki" })
    const hmacSigned = (alg: string, secret: string | Buffer) => {
      const input = `${base64url(JSON.stringify({ alg, typ: "JWT", kid: key1.kid }))}.${goodPayload}`
      return `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`
    }
    const unsigned = (alg: unknown, tail = "") =>
      `${base64url(JSON.stringify({ alg, typ: "JWT", kid: key1.kid }))}.${goodPayload}.${tail}`
    const attackerJwk = attackerKey.publicKey.export({ format: "jwk" })

    const attacks: ReadonlyArray<readonly [name: string, token: string, reason: RefusalReason]> = [
      ["alg none without a signature", unsigned("none"), "form"],
      ["alg none with a signature", unsigned("none", goodSignature), "header"],
      ["alg None", unsigned("None", "AA"), "header"],
      ["alg NONE", unsigned("NONE", "AA"), "header"],
      ["alg nOnE", unsigned("nOnE", "AA"), "header"],
      ["alg none with a space", unsigned("none ", "AA"), "header"],
      ["an empty alg", unsigned("", goodSignature), "header"],
      ["alg null", unsigned(null, goodSignature), "header"],
      ["no alg", unsigned(undefined, goodSignature), "header"],
      ["alg as a list", unsigned(["ES256"], goodSignature), "header"],
      ["alg in another case", unsigned("es256", goodSignature), "header"],
      ["HS256 keyed with the public key as PEM", hmacSigned("HS256", publicPem), "header"],
      [
        "HS256 keyed with the public key as JWK",
        hmacSigned("HS256", JSON.stringify(publicJwk(key1))),
        "header"
      ],
      ["HS512", hmacSigned("HS512", publicPem), "header"],
      ["an algorithm that is not allowed", tokenOf({ key: rsaKey, header: { alg: "PS256" } }), "header"],
      ["an algorithm of another kind of key", tokenOf({ header: { alg: "RS256" } }), "unknown_key"],
      ["an RSA key that is too short", tokenOf({ key: shortRsaKey }), "unusable_key"],
      ["a signature by somebody else", tokenOf({ key: attackerKey, header: { kid: key1.kid } }), "signature"],
      [
        "an embedded jwk",
        tokenOf({ key: attackerKey, header: { kid: key1.kid, jwk: attackerJwk } }),
        "signature"
      ],
      [
        "an embedded jwk without kid",
        tokenOf({ key: attackerKey, header: { kid: undefined, jwk: attackerJwk } }),
        "unknown_key"
      ],
      ["a jku", tokenOf({ key: attackerKey, header: { jku: "https://attacker.test/keys" } }), "unknown_key"],
      ["an x5u", tokenOf({ key: attackerKey, header: { x5u: "https://attacker.test/cert" } }), "unknown_key"],
      ["an x5c", tokenOf({ key: attackerKey, header: { x5c: [publicPem] } }), "unknown_key"],
      ["a kid that is a path", tokenOf({ header: { kid: "../../../../dev/null" } }), "unknown_key"],
      ["a kid that is SQL", tokenOf({ header: { kid: "' OR 1=1; --" } }), "unknown_key"],
      ["a kid that is a URL", tokenOf({ header: { kid: "https://attacker.test/key" } }), "unknown_key"],
      ["a kid that every object has", tokenOf({ header: { kid: "__proto__" } }), "unknown_key"],
      ["a kid of 257 characters", tokenOf({ header: { kid: "k".repeat(257) } }), "header"],
      ["a kid of 10 KB", tokenOf({ header: { kid: "k".repeat(10_240) } }), "length"],
      ["a kid that is a list", tokenOf({ header: { kid: [key1.kid] } }), "header"],
      ["a kid that is null", tokenOf({ header: { kid: null } }), "header"],
      ["an unknown crit", tokenOf({ header: { crit: ["exp"], exp: 1 } }), "header"],
      ["an empty crit", tokenOf({ header: { crit: [] } }), "header"],
      ["a crit that is no list", tokenOf({ header: { crit: "b64" } }), "header"],
      ["a payload that is not encoded", tokenOf({ header: { crit: ["b64"], b64: false } }), "claims"],
      ["another typ", tokenOf({ header: { typ: "logout+jwt" } }), "header"],
      ["a typ that is no text", tokenOf({ header: { typ: 1 } }), "header"],
      ["a token inside the token", tokenOf({ header: { cty: "JWT" } }), "header"],
      ["an encrypted token", `${base64url('{"alg":"dir","enc":"A256GCM"}')}..AAAA.AAAA.AAAA`, "form"],
      ["an encrypted token as payload", signed(key1, header, "eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA"), "claims"],
      [
        "a tampered payload",
        `${goodHeader}.${base64url(JSON.stringify({ ...goodClaims, merchant_id: "merchant-b" }))}.${goodSignature}`,
        "signature"
      ],
      ["a tampered header", `${base64url(`${header} `)}.${goodPayload}.${goodSignature}`, "signature"],
      ["a signature cut short", `${goodHeader}.${goodPayload}.${goodSignature.slice(0, 40)}`, "signature"],
      ["no signature", `${goodHeader}.${goodPayload}.`, "form"],
      ["two segments", `${goodHeader}.${goodPayload}`, "form"],
      ["four segments", `${tokenOf()}.AAAA`, "form"],
      ["line breaks", `${goodHeader}.\n${goodPayload}.${goodSignature}`, "form"],
      ["padding", `${goodHeader}.${goodPayload}.${goodSignature}==`, "form"],
      ["nothing", "", "form"],
      ["a header that is no JSON", signed(key1, "not json", payload), "header"],
      ["a header that is no object", signed(key1, "[]", payload), "header"],
      ["a header nested deep", signed(key1, "[".repeat(2_000), payload), "header"],
      ["a payload that is no JSON", signed(key1, header, "not json"), "claims"],
      ["a payload that is a list", signed(key1, header, "[1]"), "claims"],
      ["exp past", tokenOf({ claims: { exp: nowSeconds - 3_600 } }), "expired"],
      ["exp past by the tolerance", tokenOf({ claims: { exp: nowSeconds - 5 } }), "expired"],
      ["exp missing", tokenOf({ claims: { exp: undefined } }), "claims"],
      ["exp as text", tokenOf({ claims: { exp: String(nowSeconds + 60) } }), "claims"],
      ["exp null", tokenOf({ claims: { exp: null } }), "claims"],
      ["exp beyond all time", signed(key1, header, payload.replace(/"exp":\d+/, '"exp":1e400')), "claims"],
      ["exp beyond dates", tokenOf({ claims: { exp: 8_640_000_000_001 } }), "claims"],
      ["nbf ahead", tokenOf({ claims: { nbf: nowSeconds + 3_600 } }), "not_yet_valid"],
      ["nbf ahead by more than the tolerance", tokenOf({ claims: { nbf: nowSeconds + 6 } }), "not_yet_valid"],
      ["nbf as text", tokenOf({ claims: { nbf: "0" } }), "claims"],
      ["iat as text", tokenOf({ claims: { iat: "0" } }), "claims"],
      ["another aud", tokenOf({ claims: { aud: "other" } }), "audience"],
      ["an aud in capitals", tokenOf({ claims: { aud: "Holdfast" } }), "audience"],
      ["aud missing", tokenOf({ claims: { aud: undefined } }), "audience"],
      ["an empty list as aud", tokenOf({ claims: { aud: [] } }), "audience"],
      ["a list of others as aud", tokenOf({ claims: { aud: ["other", "holdfast2"] } }), "audience"],
      ["a list in a list as aud", tokenOf({ claims: { aud: [[audience]] } }), "audience"],
      ["an object as aud", tokenOf({ claims: { aud: { 0: audience } } }), "audience"],
      ["iss with a slash more", tokenOf({ claims: { iss: `${issuer}/` } }), "issuer"],
      ["iss missing", tokenOf({ claims: { iss: undefined } }), "issuer"],
      ["a list as iss", tokenOf({ claims: { iss: [issuer] } }), "issuer"],
      ["no merchant", tokenOf({ claims: { merchant_id: undefined } }), "claims"],
      ["an empty merchant", tokenOf({ claims: { merchant_id: "" } }), "claims"],
      ["a merchant that is a number", tokenOf({ claims: { merchant_id: 1 } }), "claims"],
      ["a list of merchants", tokenOf({ claims: { merchant_id: ["merchant-a"] } }), "claims"],
      ["a merchant of 129 characters", tokenOf({ claims: { merchant_id: "m".repeat(129) } }), "claims"],
      ["a merchant with NUL", tokenOf({ claims: { merchant_id: "merchant-a\0" } }), "claims"],
      [
        "a merchant with a lone surrogate",
        tokenOf({ claims: { merchant_id: "merchant-a\ud800" } }),
        "claims"
      ],
      ["no subject", tokenOf({ claims: { sub: undefined } }), "claims"],
      ["a subject with a line break", tokenOf({ claims: { sub: "a\nb" } }), "claims"],
      ["a list as scope", tokenOf({ claims: { scope: ["admin"] } }), "claims"],
      ["text as roles", tokenOf({ claims: { roles: "admin" } }), "claims"],
      ["a role that is no text", tokenOf({ claims: { roles: [{}] } }), "claims"],
      ["a claim twice", signed(key1, header, payload.replace("{", '{"merchant_id":"merchant-b",')), "claims"],
      [
        "a claim twice, once in escapes",
        signed(key1, header, payload.replace("{", '{"merchant\\u005fid":"merchant-b",')),
        "claims"
      ],
      ["a header member twice", signed(key1, header.replace("{", '{"alg":"none",'), payload), "header"],
      ["100 KB", tokenOf({ claims: { pad: "x".repeat(100_000) } }), "length"],
      ["8 KB and one", `${tokenOf()}${"A".repeat(8_193 - tokenOf().length)}`, "length"]
    ]

    it.effect.each(attacks.map(([name, token, reason]) => ({ name, token, reason })))(
      "$name, with one body for all and asking nobody but the issuer",
      ({ reason, token }) => {
        const stub = makeStub(key1, rsaKey, shortRsaKey)
        return Effect.gen(function* () {
          yield* atNow
          assert.strictEqual(yield* refusal(token), reason)
          const outside = yield* Authentication.use((authentication) =>
            Effect.flip(authentication.authenticate(`Bearer ${token}`))
          )
          assert.instanceOf(outside, Unauthenticated)
          assert.deepStrictEqual(yield* Schema.encodeUnknownEffect(Unauthenticated)(outside), {
            _tag: "Unauthenticated"
          })
          assert.isTrue(stub.asked.every((url) => url === jwksUrl))
          assert.isAtMost(stub.asked.length, 1)
        }).pipe(Effect.provide(stub.layer))
      }
    )

    it.effect("what is malformed without asking the issuer at all", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* refusal("garbage")
        yield* refusal(unsigned("none", "AA"))
        assert.deepStrictEqual(stub.asked, [])
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("a token signed with a secret or a private key that the issuer published by mistake", () => {
      const stub = makeStub()
      stub.keys = [
        { kty: "oct", kid: "secret", k: base64url("secret"), alg: "HS256" },
        { ...attackerKey.privateKey.export({ format: "jwk" }), kid: attackerKey.kid }
      ]
      return Effect.gen(function* () {
        yield* atNow
        assert.strictEqual(yield* refusal(tokenOf({ key: attackerKey })), "unknown_key")
      }).pipe(Effect.provide(stub.layer))
    })
  })

  describe("keys", () => {
    it.effect("are fetched once for many tokens at once", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* Effect.forEach(Array.from({ length: 50 }), () => verify(tokenOf()), { concurrency: 50 })
        assert.strictEqual(stub.asked.length, 1)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("that are new work within the cool-down", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf())
        stub.keys = [publicJwk(key1), publicJwk(key2)]
        yield* TestClock.adjust(coolDownMs - 1)
        assert.strictEqual(yield* refusal(tokenOf({ key: key2 })), "unknown_key")
        assert.strictEqual(stub.asked.length, 1)
        yield* TestClock.adjust(1)
        yield* verify(tokenOf({ key: key2 }))
        yield* verify(tokenOf({ key: key1 }))
        assert.strictEqual(stub.asked.length, 2)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("that are new and have no id work within the cool-down", () => {
      const stub = makeStub(key1)
      const nameless = { header: { kid: undefined } }
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf(nameless))
        stub.keys = [publicJwk(key2)]
        yield* TestClock.adjust(coolDownMs)
        yield* verify(tokenOf({ key: key2, ...nameless }))
        assert.strictEqual(stub.asked.length, 2)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("that are retired stop within ten minutes, however busy we are", () => {
      const stub = makeStub(key1)
      const authenticate = Authentication.use((authentication) =>
        Effect.exit(authentication.authenticate(`Bearer ${tokenOf()}`))
      )
      return Effect.gen(function* () {
        yield* atNow
        assert.isTrue(Exit.isSuccess(yield* authenticate))
        stub.keys = [publicJwk(key2)]
        let minutes = 0
        while (Exit.isSuccess(yield* authenticate)) {
          yield* TestClock.adjust("15 seconds")
          minutes += 0.25
        }
        assert.isAtMost(minutes, 10)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect.each([7, 8.5, 9.9])(
      "that are retired stop within ten minutes after %s idle minutes",
      (idleMinutes) => {
        const stub = makeStub(key1)
        const authenticate = Authentication.use((authentication) =>
          Effect.exit(authentication.authenticate(`Bearer ${tokenOf()}`))
        )
        return Effect.gen(function* () {
          yield* atNow
          assert.isTrue(Exit.isSuccess(yield* authenticate))
          stub.keys = [publicJwk(key2)]
          yield* TestClock.adjust(idleMinutes * 60_000)
          yield* authenticate
          yield* TestClock.adjust((10 - idleMinutes) * 60_000)
          assert.isTrue(Exit.isFailure(yield* authenticate))
        }).pipe(Effect.provide(stub.layer))
      }
    )

    it.effect("all gone from the published set stop too", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf())
        stub.keys = []
        yield* TestClock.adjust("9 minutes")
        assert.strictEqual(yield* refusal(tokenOf()), "unknown_key")
      }).pipe(Effect.provide(stub.layer))
    })

    const badAnswers: ReadonlyArray<
      readonly [name: string, answer: () => Effect.Effect<Response, "refused">]
    > = [
      ["refuses the connection", () => Effect.fail("refused")],
      ["answers 503", () => Effect.succeed(new Response("{}", { status: 503 }))],
      ["answers 404 with keys", () => Effect.succeed(Response.json({ keys: [] }, { status: 404 }))],
      ["answers a web page", () => Effect.succeed(new Response("<html>"))],
      ["answers nothing", () => Effect.succeed(new Response(null))],
      ["answers another object", () => Effect.succeed(Response.json({ error: "busy" }))],
      ["answers keys that are no objects", () => Effect.succeed(Response.json({ keys: ["key"] }))],
      ["answers too much", () => Effect.succeed(Response.json({ keys: [], pad: "x".repeat(1024 * 1024) }))],
      [
        "breaks off",
        () => Effect.succeed(new Response(new ReadableStream({ pull: (c) => c.error("gone") })))
      ],
      ["has a bug of ours behind it", () => Effect.die("a defect")]
    ]

    it.effect.each(badAnswers.map(([name, answer]) => ({ name, answer })))(
      "at hand stay in use while the issuer $name, and none at hand is JwksUnavailable",
      ({ answer }) => {
        const stub = makeStub(key1)
        const good = stub.answer
        return Effect.gen(function* () {
          yield* atNow
          stub.answer = answer
          assert.strictEqual(yield* refusal(tokenOf()), "JwksUnavailable")
          stub.answer = good
          yield* TestClock.adjust("30 seconds")
          yield* verify(tokenOf())
          stub.answer = answer
          yield* TestClock.adjust("1 hour")
          yield* verify(tokenOf())
          assert.strictEqual(yield* refusal(tokenOf({ header: { kid: "unknown" } })), "unknown_key")
        }).pipe(Effect.provide(stub.layer))
      }
    )

    it.effect("are had again within 30 s of the issuer being well, and it is not stormed meanwhile", () => {
      const stub = makeStub(key1)
      const good = stub.answer
      return Effect.gen(function* () {
        yield* atNow
        stub.answer = () => Effect.fail("refused")
        for (let second = 0; second < 600; second++) {
          const failure = yield* Effect.flip(verify(tokenOf()))
          assert.strictEqual(failure._tag, "JwksUnavailable")
          if (failure._tag === "JwksUnavailable") assert.isAtLeast(failure.retryAfterSeconds, 1)
          yield* TestClock.adjust("1 second")
        }
        assert.isAtMost(stub.asked.length, 5 + 600 / 10)
        stub.answer = good
        yield* TestClock.adjust("10 seconds")
        yield* verify(tokenOf())
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("at hand are not asked for again and again of an issuer that fails", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf())
        stub.answer = () => Effect.fail("refused")
        for (let second = 0; second < 900; second += 5) {
          yield* TestClock.adjust("5 seconds")
          yield* verify(tokenOf())
          yield* flood(1)
        }
        assert.isAtMost(stub.asked.length, 1 + 900_000 / coolDownMs)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("of an issuer that never answers keep nobody longer than its deadline", () => {
      const stub = makeStub(key1)
      const good = stub.answer
      return Effect.gen(function* () {
        yield* atNow
        stub.answer = () => Effect.never
        const cold = yield* Effect.forkChild(refusal(tokenOf()), { startImmediately: true })
        yield* TestClock.adjust(waitMsMax - 1)
        assert.isUndefined(cold.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(cold), "JwksUnavailable")

        stub.answer = good
        yield* TestClock.adjust("10 seconds")
        yield* verify(tokenOf())
        stub.answer = () => Effect.never
        yield* TestClock.adjust(coolDownMs)
        const unknown = yield* Effect.forkChild(refusal(tokenOf({ key: key2 })), { startImmediately: true })
        yield* TestClock.adjust(waitMsMax)
        assert.strictEqual(yield* Fiber.join(unknown), "unknown_key")
        // Whose key is at hand never waits, however old the keys are.
        yield* TestClock.adjust("20 minutes")
        yield* verify(tokenOf())
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("are kept fresh without a caller who waits", () => {
      const stub = makeStub(key1)
      return Effect.gen(function* () {
        yield* atNow
        yield* verify(tokenOf())
        for (let fetched = 1; fetched <= 12; fetched++) {
          assert.strictEqual(stub.asked.length, fetched)
          yield* TestClock.adjust("5 minutes")
          yield* settled
        }
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect("arrive for the others although the caller who asked first gives up", () => {
      const stub = makeStub(key1)
      const gate = Deferred.makeUnsafe<void>()
      const good = stub.answer
      stub.answer = () => Effect.andThen(Deferred.await(gate), good())
      return Effect.gen(function* () {
        yield* atNow
        const first = yield* Effect.forkChild(verify(tokenOf()), { startImmediately: true })
        const second = yield* Effect.forkChild(verify(tokenOf()), { startImmediately: true })
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(second)
        assert.strictEqual(stub.asked.length, 1)
      }).pipe(Effect.provide(stub.layer))
    })

    it.effect(
      "that nobody has are asked for at most once per cool-down, 10,000 ids or not",
      () => {
        const stub = makeStub(key1)
        const good = stub.answer
        return Effect.gen(function* () {
          yield* atNow
          yield* flood(10_000)
          assert.strictEqual(stub.asked.length, 1)
          yield* TestClock.adjust(coolDownMs - 1)
          yield* flood(1_000)
          assert.strictEqual(stub.asked.length, 1)
          yield* TestClock.adjust(1)
          yield* flood(1_000)
          assert.strictEqual(stub.asked.length, 2)
          // A fetch that fails counts too: this is where jose's own cool-down does not.
          stub.answer = () => Effect.fail("refused")
          yield* TestClock.adjust(coolDownMs)
          yield* flood(1_000)
          assert.strictEqual(stub.asked.length, 3)
          stub.answer = good
          yield* verify(tokenOf())
        }).pipe(Effect.provide(stub.layer))
      },
      60_000
    )
  })
})
