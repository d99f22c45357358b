import { Schema } from "effect"
import { Permission } from "../../schema/Principal.ts"

/** Failures that only an HTTP call can have. Those of operations are in schema/Failure.ts. */

/** Every permission is named in the token's scope or follows from its roles. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {
  permission: Permission.annotate({ description: "The permission that the token lacks" })
}) {}

export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  limitBytes: Schema.Int
}) {}

export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  {}
) {}

export class RouteNotFound extends Schema.TaggedError<RouteNotFound>()("RouteNotFound", {}) {}

export class MethodNotAllowed extends Schema.TaggedError<MethodNotAllowed>()("MethodNotAllowed", {
  allow: Schema.Array(Schema.String)
}) {}

/** Our own bug, or an outage that no other failure names. The cause is in the logs, under the request id. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", {}) {}
