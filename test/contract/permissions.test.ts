import { assert, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { SignJWT, exportJWK, generateKeyPair } from "jose"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import path from "node:path"
import { freshDatabase } from "../support/Postgres.ts"
import { startService } from "../support/service.ts"
import { assertProblem } from "../support/shape.ts"

/** The worked examples of docs/permissions.md: their variables configure a service, and their tokens are let in. */

const text = readFileSync(path.join(import.meta.dirname, "..", "..", "docs", "permissions.md"), "utf8")
const blockOf = (kind: string): string => new RegExp(`\`\`\`${kind}\n(.*?)\`\`\``, "s").exec(text)![1]!

type Keys = Awaited<ReturnType<typeof generateKeyPair>>
const key = Effect.promise(() => generateKeyPair("RS256", { extractable: true }))

/** An issuer's keys on a port of our own: what stands in for the host that the example names. */
const keysAt = (publicKey: Keys["publicKey"]) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const jwk = { ...(await exportJWK(publicKey)), kid: "key-1", alg: "RS256", use: "sig" }
      const server = createServer((_, response) => response.end(JSON.stringify({ keys: [jwk] })))
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return server
    }),
    (server) => Effect.sync(() => server.close())
  )

const examples = [
  { issuer: "keycloak", typ: "JWT" },
  { issuer: "auth0", typ: "at+jwt" }
]
for (const { issuer, typ } of examples) {
  it.live(
    `${issuer}: its variables and its token work as they are documented`,
    () =>
      Effect.gen(function* () {
        const { privateKey, publicKey } = yield* key
        const { port } = (yield* keysAt(publicKey)).address() as AddressInfo
        const variables = Object.fromEntries(
          blockOf(`sh ${issuer}`)
            .trim()
            .split("\n")
            .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string])
        )
        assert.sameMembers(Object.keys(variables), ["JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"])
        const { url } = yield* freshDatabase
        const service = yield* startService(Redacted.value(url), {
          ...variables,
          JWKS_URL: `http://127.0.0.1:${port}${new URL(variables["JWKS_URL"]!).pathname}`,
          HOLDFAST_DEV: "0",
          HOST: "127.0.0.1"
        })
        const { exp, iat, ...claims } = JSON.parse(blockOf(`json ${issuer}`)) as Record<string, unknown>
        assert.isNumber(exp)
        assert.isNumber(iat)
        const token = yield* Effect.promise(() =>
          new SignJWT(claims)
            .setProtectedHeader({ alg: "RS256", typ, kid: "key-1" })
            .setIssuedAt()
            .setExpirationTime("5 minutes")
            .sign(privateKey)
        )
        const call = (method: string, target: string, body?: unknown) =>
          service.call(method, target, body, { token })
        assert.strictEqual((yield* call("GET", "/v1/api/inventory/stocks")).status, 200)
        const hint = yield* call("POST", "/api/v1/inventory/check-availability", {
          items: [{ variantId: "cup", quantity: 1 }]
        })
        assert.strictEqual(hint.status, 200, hint.text)
        const refused = yield* call("POST", "/v1/api/inventory/product-variants", { sku: "CUP" })
        assertProblem(refused, 403, "FORBIDDEN", { permission: "catalog:write" })
      }).pipe(Effect.scoped),
    120_000
  )
}
