import { Clock, Context, Effect, Layer, Schema } from "effect"
import {
  calculateJwkThumbprint,
  createLocalJWKSet,
  exportJWK,
  generateKeyPair,
  importJWK,
  SignJWT
} from "jose"
import { devTokenDefaults, type DevTokenRequest } from "../schema/DevToken.ts"
import { everyPermission } from "../schema/Principal.ts"
import { Db } from "../services/Db.ts"
import { parameter } from "../services/PostgresTypes.ts"
import { DevIssuer, Jwks, type PublicJwks } from "../services/identity/Jwks.ts"
import { checkForm, checkSignature, type TokenRules } from "./SignedToken.ts"

export const devTokenRules: TokenRules = { issuer: "holdfast-dev", audience: "holdfast" }

const algorithm = "ES256"

/** The dev issuer's key pair as it is stored (RFC 7518, section 6.2). */
export const PrivateJwk = Schema.Struct({
  kty: Schema.Literal("EC"),
  crv: Schema.Literal("P-256"),
  x: Schema.String,
  y: Schema.String,
  d: Schema.String,
  kid: Schema.String
})
export type PrivateJwk = typeof PrivateJwk.Type

/**
 * Takes a fresh key and answers with the one that all processes share: the stored one, which is the fresh one only for
 * whoever came first.
 */
export type KeyStore<E> = (candidate: PrivateJwk) => Effect.Effect<PrivateJwk, E>

/** The issuer and a `Jwks` that trusts it alone, without HTTP in between. Tests bring a store of their own. */
export const layerWith = <E>(storedKey: KeyStore<E>): Layer.Layer<DevIssuer | Jwks, E> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { d, ...publicJwk } = yield* Effect.flatMap(makeCandidate, storedKey)
      const privateKey = yield* Effect.promise(() => importJWK({ ...publicJwk, d }, algorithm))
      const jwks: PublicJwks = { keys: [{ ...publicJwk, alg: algorithm, use: "sig" }] }
      const keys = createLocalJWKSet({ keys: [...jwks.keys] })

      const issue = Effect.fn("DevIssuer.issue")(function* (request: DevTokenRequest) {
        const issuedAtSeconds = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
        const token = new SignJWT({
          merchant_id: request.merchantId ?? devTokenDefaults.merchantId,
          ...scopeOf(request),
          ...(request.roles === undefined ? {} : { roles: request.roles })
        })
          .setProtectedHeader({ alg: algorithm, typ: "JWT", kid: publicJwk.kid })
          .setIssuer(devTokenRules.issuer)
          .setAudience(devTokenRules.audience)
          .setSubject(request.sub ?? devTokenDefaults.subject)
          .setIssuedAt(issuedAtSeconds)
          .setExpirationTime(issuedAtSeconds + (request.expiresIn ?? devTokenDefaults.expiresInSeconds))
        // Signing with a key that was imported can fail only by our own bug.
        return yield* Effect.promise(() => token.sign(privateKey))
      })

      const verify = Effect.fn("Jwks.verify")(function* (token: string) {
        yield* checkForm(token)
        return yield* checkSignature(token, keys, devTokenRules)
      })

      return Context.make(DevIssuer, { jwks, issue }).pipe(Context.add(Jwks, { verify }))
    })
  )

/** The issuer whose key is stored in the table `dev_issuer_key`, so that all processes of one database agree on it. */
export const layer = Layer.unwrap(
  Effect.map(Db, (db) =>
    layerWith((candidate) =>
      Effect.gen(function* () {
        yield* db.maintain(offerKeyStatement, [parameter("text", JSON.stringify(candidate))])
        const [row] = yield* db.maintain<{ private_jwk: PrivateJwk }>(keyStatement, [])
        return row!.private_jwk
      })
    )
  )
)

const offerKeyStatement = `
  INSERT INTO dev_issuer_key (id, private_jwk, created_at)
  VALUES (1, $1::text::jsonb, clock_timestamp())
  ON CONFLICT DO NOTHING`

const keyStatement = `SELECT private_jwk FROM dev_issuer_key WHERE id = 1`

const makeCandidate: Effect.Effect<PrivateJwk> = Effect.promise(async () => {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
  const jwk = await exportJWK(privateKey)
  return { ...jwk, kid: await calculateJwkThumbprint(jwk) }
}).pipe(
  Effect.flatMap(Schema.decodeUnknownEffect(PrivateJwk)),
  // A P-256 pair always exports these members.
  Effect.orDie
)

/** Every scope is for whoever says nothing about permissions; `roles` alone must not come with more than they grant. */
const scopeOf = (request: DevTokenRequest): { readonly scope?: string } => {
  if (request.scope !== undefined) return { scope: request.scope }
  return request.roles === undefined ? { scope: [...everyPermission].join(" ") } : {}
}
