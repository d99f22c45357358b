import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { layerWith, type PrivateJwk } from "../../../src/layers/DevIssuer.ts"
import { DevTokenRequest } from "../../../src/schema/DevToken.ts"
import { JwksUnavailable } from "../../../src/schema/Failure.ts"
import { everyPermission, Permission, type VerifiedClaims } from "../../../src/schema/Principal.ts"
import { Authentication } from "../../../src/services/identity/Authentication.ts"
import { DevIssuer, InvalidToken, Jwks, tokenLengthMax } from "../../../src/services/identity/Jwks.ts"
import { permissionsOfRole } from "../../../src/schema/Role.ts"
import { Policies } from "../../../src/services/identity/Policies.ts"

// Goal: a token becomes a principal with exactly its permissions, is believed no longer than it may be, and costs one
// verification a minute. Method: a Jwks that counts what it is asked; TestClock; the dev issuer with its key in memory.

const hour = 3_600_000

const claimsOf = (change: Partial<VerifiedClaims> = {}): VerifiedClaims => ({
  subject: "order-service",
  merchantId: "merchant-a",
  scopes: ["inventory:read"],
  roles: [],
  expiresAt: hour,
  ...change
})

const makeStub = (claims: VerifiedClaims = claimsOf()) => {
  const stub = {
    asked: new Array<string>(),
    answer: (): Effect.Effect<VerifiedClaims, InvalidToken | JwksUnavailable> => Effect.succeed(claims)
  }
  const jwksLayer = Layer.succeed(Jwks, {
    verify: (token) =>
      Effect.suspend(() => {
        stub.asked.push(token)
        return stub.answer()
      })
  })
  return Object.assign(stub, {
    layer: Authentication.layer.pipe(Layer.provide([Policies.layerLocal, jwksLayer]))
  })
}

const authenticate = (header: string | undefined) =>
  Authentication.use((authentication) => authentication.authenticate(header))
const permissionsOf = (change: Partial<VerifiedClaims>) =>
  Policies.use((policies) => policies.permissionsOf(claimsOf({ scopes: [], ...change }))).pipe(
    Effect.map((permissions) => [...permissions].sort()),
    Effect.provide(Policies.layerLocal)
  )

/** What the table does: the first key stays. */
const makeStore = () => {
  let stored: PrivateJwk | undefined
  return (candidate: PrivateJwk) => Effect.sync(() => (stored ??= candidate))
}
const processOn = (store: ReturnType<typeof makeStore>) =>
  Authentication.layer.pipe(Layer.provide(Policies.layerLocal), Layer.provideMerge(layerWith(store)))
const issue = (request: DevTokenRequest) => DevIssuer.use((issuer) => issuer.issue(request))
const principalOf = (request: DevTokenRequest) =>
  Effect.flatMap(issue(request), (token) => authenticate(`Bearer ${token}`)).pipe(
    Effect.provide(processOn(makeStore()))
  )

describe("Authentication", () => {
  it.effect("makes a principal of a verified token", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* authenticate("Bearer a.b.c"), {
        subject: "order-service",
        merchantId: "merchant-a",
        permissions: new Set<Permission>(["inventory:read"]),
        expiresAt: hour
      })
      assert.deepStrictEqual(stub.asked, ["a.b.c"])
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("takes the scheme in any case, and the bare token of a socket for the same", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      yield* authenticate("bearer a.b.c")
      yield* authenticate("BEARER  a.b.c")
      yield* Authentication.use((authentication) => authentication.authenticateToken("a.b.c"))
      assert.deepStrictEqual(stub.asked, ["a.b.c"])
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect.each([undefined, "", "Bearer", "Basic a.b.c", "a.b.c", "Bearera.b.c", " Bearer a.b.c"])(
    "refuses the header %o without asking",
    (header) => {
      const stub = makeStub()
      return Effect.gen(function* () {
        assert.strictEqual((yield* Effect.flip(authenticate(header)))._tag, "Unauthenticated")
        assert.deepStrictEqual(stub.asked, [])
      }).pipe(Effect.provide(stub.layer))
    }
  )

  it.effect("refuses a token over 8 KB before any work", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      const tooLong = "x".repeat(tokenLengthMax + 1)
      assert.strictEqual((yield* Effect.flip(authenticate(`Bearer ${tooLong}`)))._tag, "Unauthenticated")
      assert.deepStrictEqual(stub.asked, [])
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("verifies a token once a minute", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      yield* authenticate("Bearer a.b.c")
      yield* TestClock.adjust(59_999)
      yield* authenticate("Bearer a.b.c")
      assert.strictEqual(stub.asked.length, 1)
      yield* TestClock.adjust(1)
      yield* authenticate("Bearer a.b.c")
      assert.strictEqual(stub.asked.length, 2)
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("believes no token past its end", () => {
    const stub = makeStub(claimsOf({ expiresAt: 10_000 }))
    return Effect.gen(function* () {
      yield* authenticate("Bearer a.b.c")
      yield* TestClock.adjust(10_000)
      stub.answer = () => Effect.fail(new InvalidToken({ reason: "expired" }))
      assert.strictEqual((yield* Effect.flip(authenticate("Bearer a.b.c")))._tag, "Unauthenticated")
      assert.strictEqual(stub.asked.length, 2)
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("tells tokens apart by their whole text", () => {
    const stub = makeStub()
    const tail = "s".repeat(86)
    return Effect.gen(function* () {
      yield* authenticate(`Bearer head.genuine.${tail}`)
      stub.answer = () => Effect.fail(new InvalidToken({ reason: "signature" }))
      const forged = `Bearer head.forged_.${tail}`
      assert.strictEqual((yield* Effect.flip(authenticate(forged)))._tag, "Unauthenticated")
      yield* authenticate(`Bearer head.genuine.${tail}`)
      assert.strictEqual(stub.asked.length, 2)
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("keeps no refusals, and neither tells why nor keeps it when keys are missing", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      stub.answer = () => Effect.fail(new InvalidToken({ reason: "signature" }))
      const refused = yield* Effect.flip(authenticate("Bearer a.b.c"))
      assert.notInclude(JSON.stringify(refused), "signature")
      stub.answer = () => Effect.fail(new JwksUnavailable({ retryAfterSeconds: 3 }))
      const unavailable = yield* Effect.flip(authenticate("Bearer a.b.c"))
      assert.deepStrictEqual(unavailable, new JwksUnavailable({ retryAfterSeconds: 3 }))
      stub.answer = () => Effect.succeed(claimsOf())
      yield* authenticate("Bearer a.b.c")
      assert.strictEqual(stub.asked.length, 3)
    }).pipe(Effect.provide(stub.layer))
  })

  it.effect("remembers at most 10,000 tokens, and forgets first those that are not used", () => {
    const stub = makeStub()
    return Effect.gen(function* () {
      yield* authenticate("Bearer used")
      yield* authenticate("Bearer unused")
      for (let token = 0; token < 10_000; token++) {
        yield* authenticate(`Bearer ${token}`)
        if (token % 1_000 === 0) yield* authenticate("Bearer used")
      }
      yield* authenticate("Bearer used")
      yield* authenticate("Bearer unused")
      assert.strictEqual(stub.asked.filter((token) => token === "used").length, 1)
      assert.strictEqual(stub.asked.filter((token) => token === "unused").length, 2)
    }).pipe(Effect.provide(stub.layer))
  })
})

describe("Policies", () => {
  it.effect("give a service what its scopes name, and nothing for those of other services", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* permissionsOf({ scopes: ["openid", "inventory:reserve", "INVENTORY:READ", "inventory:*"] }),
        ["inventory:reserve"]
      )
    })
  )

  it.effect("let admin imply every permission", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* permissionsOf({ scopes: ["admin"] }), [...everyPermission].sort())
      assert.deepStrictEqual(yield* permissionsOf({ roles: ["owner"] }), [...everyPermission].sort())
    })
  )

  it.effect("add up roles and scopes, and give unknown roles nothing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* permissionsOf({ roles: ["constructor", "Owner", ""] }), [])
      assert.deepStrictEqual(yield* permissionsOf({ roles: ["kitchen", "viewer"], scopes: ["wms:sync"] }), [
        "inventory:read",
        "kitchen:write",
        "notifications:read",
        "wms:sync"
      ])
    })
  )

  it("make nobody but owner and admin an admin", () => {
    const admins = [...permissionsOfRole].filter(([, permissions]) => permissions.includes("admin"))
    assert.deepStrictEqual(
      admins.map(([role]) => role),
      ["owner", "admin"]
    )
  })
})

describe("DevIssuer", () => {
  it.effect("issues by default a day of everything for the demo merchant", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* principalOf({}), {
        subject: "dev",
        merchantId: "demo",
        permissions: everyPermission,
        expiresAt: 86_400_000
      })
    })
  )

  it.effect("issues what is asked for, and an empty scope is none", () =>
    Effect.gen(function* () {
      const asked = yield* principalOf({ sub: "s", merchantId: "m", scope: "inventory:read", expiresIn: 60 })
      assert.deepStrictEqual(asked, {
        subject: "s",
        merchantId: "m",
        permissions: new Set<Permission>(["inventory:read"]),
        expiresAt: 60_000
      })
      assert.deepStrictEqual((yield* principalOf({ scope: "" })).permissions, new Set())
      assert.deepStrictEqual((yield* principalOf({ roles: [] })).permissions, new Set())
      assert.deepStrictEqual(
        (yield* principalOf({ roles: ["kitchen"] })).permissions,
        new Set<Permission>(["inventory:read", "kitchen:write", "notifications:read"])
      )
    })
  )

  it.effect("ends its tokens when they say so", () =>
    Effect.gen(function* () {
      const token = yield* issue({ expiresIn: 1 })
      yield* TestClock.adjust("6 seconds")
      assert.strictEqual((yield* Effect.flip(authenticate(`Bearer ${token}`)))._tag, "Unauthenticated")
    }).pipe(Effect.provide(processOn(makeStore())))
  )

  it.effect("agrees with another process on the same database, and with none on another", () => {
    const store = makeStore()
    return Effect.gen(function* () {
      const token = yield* issue({}).pipe(Effect.provide(processOn(store)))
      const there = authenticate(`Bearer ${token}`)
      assert.strictEqual((yield* there.pipe(Effect.provide(processOn(store)))).subject, "dev")
      const elsewhere = yield* Effect.flip(there.pipe(Effect.provide(processOn(makeStore()))))
      assert.strictEqual(elsewhere._tag, "Unauthenticated")
    })
  })

  it.effect("publishes no private key", () =>
    Effect.gen(function* () {
      const issuer = yield* DevIssuer
      assert.strictEqual(issuer.jwks.keys.length, 1)
      assert.notProperty(issuer.jwks.keys[0], "d")
    }).pipe(Effect.provide(processOn(makeStore())))
  )

  it.effect("issues no token that is too long to be taken", () =>
    Effect.gen(function* () {
      const largest = yield* Schema.decodeUnknownEffect(DevTokenRequest)({
        sub: "é".repeat(128),
        merchantId: "€".repeat(128),
        scope: "s".repeat(2_048),
        roles: Array.from({ length: 32 }, () => "r".repeat(64)),
        expiresIn: 31_536_000
      })
      assert.strictEqual((yield* principalOf(largest)).merchantId, "€".repeat(128))
    })
  )

  it.effect.each([
    { sub: "" },
    { merchantId: "a\0" },
    { scope: ["admin"] },
    { scope: "a\nb" },
    { roles: "admin" },
    { expiresIn: 0 },
    { expiresIn: 31_536_001 },
    { expiresIn: 1.5 },
    { expiresIn: "60" }
  ])("refuses to be asked for %o", (request) =>
    Effect.gen(function* () {
      assert.isTrue(
        (yield* Effect.exit(Schema.decodeUnknownEffect(DevTokenRequest)(request)))._tag === "Failure"
      )
    })
  )
})
