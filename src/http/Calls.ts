import { Context, Effect, type Layer, Result, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, type HttpApiEndpoint, type HttpApiGroup } from "effect/http-api"
import { Api } from "./Api.ts"
import { CurrentCaller, Edge } from "./Contract.ts"
import { RequestBody } from "./EdgeLive.ts"
import { ValidationFailed, badFields } from "./Problem.ts"

type Groups = (typeof Api)["groups"]

/** For each call of a group, what answers it. Answers are rendered already (see Answer.ts). */
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
 * The routes of one group of the contract. They do what those of `HttpApiBuilder` do, with the edge around each: but
 * all of what a call sends is decoded in one step, its answer is not encoded once more, and its context is not merged
 * with all of the server's, which took a third of a small call's processor time (docs/performance.md).
 */
export const routesOf = <Name extends keyof Groups, R>(
  name: Name,
  make: Effect.Effect<Handlers<Groups[Name]["endpoints"]>, never, R>
): Layer.Layer<never, never, R | Edge | HttpRouter.HttpRouter> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const handlers = (yield* make) as unknown as Readonly<Record<string, Handler>>
      const edge = yield* Edge
      const group: HttpApiGroup.Top = Api.groups[name] as never
      yield* router.addAll(
        Object.values(group.endpoints as Record<string, HttpApiEndpoint.Top>).map((endpoint) => {
          const handle = decoded(group, endpoint, handlers[endpoint.identifier]!)
          const surrounded = edge(handle as never, { endpoint: endpoint as never, group: group as never })
          return HttpRouter.route(endpoint.method, endpoint.path as HttpRouter.PathInput, surrounded as Call)
        })
      )
    })
  )

type Call = Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest>
type Handler = (
  request: unknown
) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, CurrentCaller>

/** The handler with what was sent, or a refusal that names each bad field of the first part that has one. */
const decoded = (group: HttpApiGroup.Top, endpoint: HttpApiEndpoint.Top, handler: Handler) => {
  const params = endpoint.params && reader(endpoint.params, "path")
  const query = endpoint.query && reader(Schema.toCodecArrayFromSingle(endpoint.query), "query")
  const payload = endpoint.payload.get("application/json")
  const body = payload && reader(Schema.Union(payload.schemas as ReadonlyArray<Schema.Top>), "body")
  return Effect.withFiber<HttpServerResponse.HttpServerResponse, unknown, CurrentCaller>((fiber) => {
    const context = fiber.context as Context.Context<HttpRouter.Provided | RequestBody>
    const call: Record<string, unknown> = {
      request: Context.get(context, HttpServerRequest.HttpServerRequest),
      endpoint,
      group
    }
    if (params !== undefined) {
      const read = params(Context.get(context, HttpRouter.RouteContext).params)
      if (Result.isFailure(read)) return Effect.fail(read.failure)
      call["params"] = read.success
    }
    if (query !== undefined) {
      const read = query(Context.get(context, HttpServerRequest.ParsedSearchParams))
      if (Result.isFailure(read)) return Effect.fail(read.failure)
      call["query"] = read.success
    }
    if (body !== undefined) {
      let json: unknown
      try {
        json = JSON.parse(Context.get(context, RequestBody))
      } catch {
        return notJson
      }
      const read = body(json)
      if (Result.isFailure(read)) return Effect.fail(read.failure)
      call["payload"] = read.success
    }
    return handler(call)
  })
}

const notJson = Effect.fail(
  new ValidationFailed({ errors: [{ path: "body", message: "Expected a valid JSON body" }] })
)

/** Decodes one part of a request; none of the contract's schemas waits for anything. */
const reader = (schema: Schema.Top, slot: string) => {
  const decode = Schema.decodeUnknownResult(
    schema as unknown as Schema.ConstraintDecoder<unknown>,
    Context.getOrUndefined(Api.annotations, HttpApi.ParseOptions)
  )
  return (input: unknown): Result.Result<unknown, ValidationFailed> =>
    Result.mapError(decode(input), ({ issue }) => new ValidationFailed({ errors: badFields(issue, slot) }))
}
