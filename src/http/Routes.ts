import { Context, Effect, type Layer, Result, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { ValidationFailed, readerOf } from "../schema/Validation.ts"
import { Api } from "./contract/Api.ts"
import type { CurrentCaller } from "./contract/Contract.ts"
import { CallPipeline } from "./CallPipeline.ts"
import { parseJson } from "./RequestBody.ts"

type Groups = (typeof Api)["groups"]

/** For each call of a group, what answers it. Answers are rendered already (see Responses.ts). */
type Handlers<Endpoints extends Record<string, HttpApiEndpoint.Constraint>> = {
  readonly [Name in keyof Endpoints]: (
    request: Parameters<HttpApiEndpoint.Handler<Endpoints[Name], never, never>>[0]
  ) => Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    Endpoints[Name]["~Error"]["Type"] | HttpApiEndpoint.MiddlewareError<Endpoints[Name]>,
    CurrentCaller
  >
}

/**
 * The routes of one group of the contract. They do what those of `HttpApiBuilder` do, with the call pipeline around each: but
 * all of what a call sends is decoded in one step, its answer is not encoded once more, and its context is not merged
 * with all of the server's, which took a third of a small call's processor time (docs/performance.md).
 *
 * The argument of a group with many calls has more than 70 lines: it is a list of small functions, one for each call.
 */
export const routesOf = <Name extends keyof Groups, R>(
  name: Name,
  make: Effect.Effect<Handlers<Groups[Name]["endpoints"]>, never, R>
): Layer.Layer<never, never, R | CallPipeline | HttpRouter.HttpRouter> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const handlers = (yield* make) as unknown as Readonly<Record<string, Handler>>
      const { around } = yield* CallPipeline
      const group: HttpApiGroup.Top = Api.groups[name] as never
      yield* router.addAll(
        Object.values(group.endpoints as Record<string, HttpApiEndpoint.Top>).map((endpoint) =>
          HttpRouter.route(
            endpoint.method,
            endpoint.path as HttpRouter.PathInput,
            around(endpoint, decoding(group, endpoint, handlers[endpoint.identifier]!))
          )
        )
      )
    })
  )

type Answer = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, CurrentCaller>
type Handler = (request: unknown) => Answer

/** The handler with what was sent, or a refusal that names each bad field of the first part that has one. */
const decoding = (group: HttpApiGroup.Top, endpoint: HttpApiEndpoint.Top, handler: Handler) => {
  const readParams = endpoint.params && readerOfPart(endpoint.params)
  const readQuery = endpoint.query
    ? readerOfPart(Schema.toCodecArrayFromSingle(endpoint.query))
    : refuseParameters
  const payloads = endpoint.payload.get("application/json")
  const readBody = payloads && readerOfPart(Schema.Union(payloads.schemas as ReadonlyArray<Schema.Top>))
  return (body: string, context: Context.Context<HttpRouter.Provided>): Answer => {
    const params = readParams?.(Context.get(context, HttpRouter.RouteContext).params, "path")
    if (params !== undefined && Result.isFailure(params)) return Effect.fail(params.failure)
    const query = readQuery(Context.get(context, HttpServerRequest.ParsedSearchParams), "query")
    if (Result.isFailure(query)) return Effect.fail(query.failure)
    const payload = readBody && Result.flatMap(parseJson(body), (json) => readBody(json, "body"))
    if (payload !== undefined && Result.isFailure(payload)) return Effect.fail(payload.failure)
    return handler({
      request: Context.get(context, HttpServerRequest.HttpServerRequest),
      endpoint,
      group,
      params: params?.success,
      query: query.success,
      payload: payload?.success
    })
  }
}

/**
 * None of the contract's schemas waits for anything. A name that is not known is a fault: a misspelt filter that was
 * ignored would list everything (CONTRACTS section 4).
 */
const readerOfPart = (schema: Schema.Top) =>
  readerOf(schema as unknown as Schema.ConstraintDecoder<unknown>, { onExcessProperty: "error" })

/** A struct without fields takes any object, so that a call without parameters needs a rule of its own. */
const refuseParameters = (given: object, slot: string): Result.Result<undefined, ValidationFailed> => {
  const errors = Object.keys(given).map((name) => ({
    path: `${slot}.${name}`,
    message: "is not known here: this call takes no query parameters"
  }))
  return errors.length === 0 ? Result.succeed(undefined) : Result.fail(new ValidationFailed({ errors }))
}
