import { Schema } from "effect"
import { OutsideId } from "./Identifier.ts"

export const devTokenDefaults = { subject: "dev", merchantId: "demo", expiresInSeconds: 86_400 } as const

const expiresInSecondsMax = 31_536_000
const scopeLengthMax = 2_048
const rolesMax = 32
const roleLengthMax = 64

/**
 * Body of `POST /dev/token` (CONTRACTS section 3). Without `scope` and `roles` the token holds every scope; an empty
 * `scope` is none. The bounds keep every token that can be asked for below the length that is accepted.
 */
export const DevTokenRequest = Schema.Struct({
  sub: Schema.optionalKey(OutsideId),
  merchantId: Schema.optionalKey(OutsideId),
  scope: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(scopeLengthMax, { message: `must have at most ${scopeLengthMax} characters` }),
      // The characters of RFC 6749, appendix A.4, with the space that separates.
      Schema.isPattern(/^[\x20\x21\x23-\x5B\x5D-\x7E]*$/, { message: "must be scopes separated by spaces" })
    )
  ),
  roles: Schema.optionalKey(
    Schema.Array(
      Schema.String.check(
        Schema.isMinLength(1, { message: "must not be empty" }),
        Schema.isMaxLength(roleLengthMax, { message: `must have at most ${roleLengthMax} characters` }),
        Schema.isPattern(/^[\x21\x23-\x5B\x5D-\x7E]*$/, { message: "must be printable ASCII without spaces" })
      )
    ).check(Schema.isMaxLength(rolesMax, { message: `must have at most ${rolesMax} roles` }))
  ),
  /** Seconds. */
  expiresIn: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: expiresInSecondsMax }))
  )
}).annotate({ identifier: "DevTokenRequest" })
export type DevTokenRequest = typeof DevTokenRequest.Type

export const DevTokenAnswer = Schema.Struct({ token: Schema.String }).annotate({
  identifier: "DevTokenAnswer"
})
export type DevTokenAnswer = typeof DevTokenAnswer.Type
