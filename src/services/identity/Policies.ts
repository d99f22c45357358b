import { Context, Effect, Layer, Schema } from "effect"
import { Permission, type VerifiedClaims, withImplied } from "../../schema/Principal.ts"
import { permissionsOfRole } from "../../schema/Role.ts"

const isPermission = Schema.is(Permission)

/** The scopes of a service are permissions by name; those meant for other services (`openid`) grant nothing. */
const permissionsOfScope = (scope: string): ReadonlyArray<Permission> => (isPermission(scope) ? [scope] : [])

/**
 * What the claims of a token allow. Services carry scopes, people roles; a token with both holds what either grants,
 * because issuers add scopes of their own (`openid profile`) to the tokens of people.
 */
export class Policies extends Context.Service<
  Policies,
  {
    readonly permissionsOf: (claims: VerifiedClaims) => Effect.Effect<ReadonlySet<Permission>>
  }
>()("holdfast/services/Policies") {
  /** The table above. A look-up at `IDENTITY_URL` is another layer of the same service, and falls back to this one. */
  static readonly layerLocal = Layer.succeed(Policies, {
    permissionsOf: (claims) =>
      Effect.sync(() =>
        withImplied([
          ...claims.scopes.flatMap(permissionsOfScope),
          ...claims.roles.flatMap((role) => permissionsOfRole.get(role) ?? [])
        ])
      )
  })
}
