import { Context, Schema, SchemaTransformation } from "effect"
import { HttpApiMiddleware } from "effect/http-api"
import type { Caller } from "../../schema/Caller.ts"
import type { Permission, Principal } from "../../schema/Principal.ts"
import { commonProblems } from "./Problem.ts"

/** What all groups of the contract share. */

/** The permission that a call needs (CONTRACTS section 4), declared beside its route. */
export class RequiredPermission extends Context.Service<RequiredPermission, Permission>()(
  "holdfast/http/RequiredPermission"
) {}

/** A call that works when it is sent in the order of the introduction, declared beside its route: for the documentation. */
export class ExampleCall extends Context.Service<
  ExampleCall,
  {
    /** Values of path parameters, and of query parameters that this call needs. */
    readonly params?: Readonly<Record<string, unknown>>
    readonly body?: Readonly<Record<string, unknown>>
  }
>()("holdfast/http/ExampleCall") {}

/** The authenticated caller of this request, as operations take it. */
export class CurrentCaller extends Context.Service<
  CurrentCaller,
  Caller & { readonly principal: Principal }
>()("holdfast/http/CurrentCaller") {}

/**
 * Authentication, permission, limits, idempotency, deadlines and problems: around every call of the contract. This is
 * what callers and handlers see of it; `CallPipeline` does it.
 */
export class Edge extends HttpApiMiddleware.Service<Edge, { provides: CurrentCaller }>()(
  "holdfast/http/Edge",
  {
    error: commonProblems
  }
) {}

/** Lines a request may have. */
export const maxLines = 500

/** The envelope of the orders contract (CONTRACTS 4.1). */
export const envelope = <S extends Schema.Constraint>(data: S) =>
  Schema.Struct({ success: Schema.Literal(true), data, meta: Schema.Struct({ timestamp: Schema.String }) })

export const listOf = <S extends Schema.Constraint>(element: S) =>
  Schema.Struct({ data: Schema.Array(element), nextCursor: Schema.NullOr(Schema.String) })

/** A list in a query: the parameter once for each element, or elements separated by commas, or both. */
export const listParameter = <S extends Schema.Codec<string, string>>(
  element: S,
  annotations: { readonly description: string; readonly examples: ReadonlyArray<ReadonlyArray<string>> }
) =>
  Schema.Array(Schema.String)
    .annotate(annotations)
    .pipe(
      Schema.decodeTo(
        Schema.Array(element),
        SchemaTransformation.transform<ReadonlyArray<S["Encoded"]>, ReadonlyArray<string>>({
          decode: (given) => given.flatMap((text) => text.split(",")),
          encode: (elements) => elements
        })
      )
    )
