import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { ByteSize, Effect, Layer, type Types } from "effect"
import {
  HttpIncomingMessage,
  HttpRouter,
  HttpServerError,
  type HttpServerRequest,
  HttpServerResponse
} from "effect/http"
import { requestIdOf } from "../schema/RequestHeaders.ts"
import { nextUuid } from "../services/Uuid.ts"
import { bodyLimitBytes } from "./RequestBody.ts"
import { responseOf } from "./Responses.ts"
import { Api } from "./contract/Api.ts"
import { BulkHandlers } from "./BulkHandlers.ts"
import { CatalogHandlers } from "./CatalogHandlers.ts"
import { DrainingServer } from "./DrainingServer.ts"
import * as CallPipeline from "./CallPipeline.ts"
import * as Operations from "./Operations.ts"
import { OrdersHandlers } from "./OrdersHandlers.ts"
import { SalesHandlers } from "./SalesHandlers.ts"
import { VariantsHandlers } from "./VariantsHandlers.ts"
import { WarehouseHandlers } from "./WarehouseHandlers.ts"
import { MethodNotAllowed, RouteNotFound } from "./contract/HttpFailure.ts"

export interface ServerOptions {
  readonly host: string
  readonly port: number
  readonly requestTimeoutMs: number
  /** Whether it serves the contract too, or only what is always there: health, metrics, documentation. */
  readonly contract: boolean
}

/** Node's own are lax (60 s and 300 s): a client that sends slowly holds a connection, and nothing else, this long. */
const headersTimeoutMs = 10_000
const requestTimeoutMs = 30_000
/** How often connections are looked over for those; every 30 s by default, which would make 40 s out of 10. */
const connectionsCheckMs = 1_000
const keepAliveTimeoutMs = 65_000
const maxHeaderBytes = 16 * 1024
/** SIGTERM: what is in flight is finished within this (CONTRACTS section 3). */
const drainTimeoutMs = 10_000
/** What is still worked on then is interrupted; so long has its answer, before connections are cut off. */
const farewellMs = 500
/** Ids have up to 128 characters, each up to 12 when percent-encoded. */
const maxParamLength = 128 * 12

const calls = Layer.mergeAll(
  OrdersHandlers,
  VariantsHandlers,
  WarehouseHandlers,
  CatalogHandlers,
  BulkHandlers,
  SalesHandlers
)

const contractOf = (options: ServerOptions) => {
  const contract = calls.pipe(Layer.provide(CallPipeline.layer(options)))
  return options.contract ? contract : (Layer.empty as typeof contract)
}

export const layer = (
  options: ServerOptions,
  extraRoutes: Layer.Layer<never, never, HttpRouter.HttpRouter>
) =>
  HttpRouter.serve(Layer.mergeAll(contractOf(options), Operations.layer, extraRoutes, nothingHere), {
    disableLogger: true,
    disableListenLog: true,
    // As written: an id is another one in another case, and so is a route.
    routerConfig: { maxParamLength, caseSensitive: true }
  }).pipe(
    Layer.provide(Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(bodyLimitBytes))),
    Layer.provideMerge(
      NodeHttpServer.layer(
        () =>
          new DrainingServer(
            {
              headersTimeout: headersTimeoutMs,
              requestTimeout: requestTimeoutMs,
              connectionsCheckingInterval: connectionsCheckMs,
              keepAliveTimeout: keepAliveTimeoutMs,
              maxHeaderSize: maxHeaderBytes
            },
            drainTimeoutMs + farewellMs
          ),
        { host: options.host, port: options.port, gracefulShutdownTimeout: drainTimeoutMs }
      )
    )
  )

/** What no route takes is a problem too: a path that is unknown, cannot be decoded or names an id that is too long. */
const nothingHere = HttpRouter.use((router) =>
  router.addGlobalMiddleware(
    (handle) =>
      // The types leave out that the router itself fails where it finds no route.
      Effect.catchIf(handle as Effect.Effect<Response, unknown>, isRouteNotFound, ({ reason: { request } }) =>
        Effect.map(nextUuid, (requestId) => notFound(request, requestId))
      ) as Effect.Effect<Response, Types.unhandled>
  )
)
type Response = HttpServerResponse.HttpServerResponse

const notFound = (request: HttpServerRequest.HttpServerRequest, madeId: string): Response => {
  const requestId = requestIdOf(request.headers) ?? madeId
  const allow = methodsOf(request.url.split("?", 1)[0]!)
  const failure =
    allow.length === 0 || allow.includes(request.method)
      ? new RouteNotFound()
      : new MethodNotAllowed({ allow })
  return HttpServerResponse.setHeader(responseOf(failure, requestId), "x-request-id", requestId)
}

const isRouteNotFound = (error: unknown): error is HttpServerError.HttpServerError =>
  HttpServerError.isHttpServerError(error) && error.reason._tag === "RouteNotFound"

const methodsOf = (path: string): ReadonlyArray<string> => [
  ...new Set(
    routes
      .filter(({ pattern }) => pattern.test(path))
      .flatMap(({ method }) => (method === "GET" ? ["GET", "HEAD"] : [method]))
  )
]

const routes = [
  ...Object.values(Api.groups).flatMap((group) =>
    Object.values(group.endpoints).map(({ method, path }) => ({
      method: method as string,
      path: path as string
    }))
  ),
  ...Operations.paths.map((path) => ({ method: "GET", path }))
].map(({ method, path }) => ({ method, pattern: new RegExp(`^${path.replace(/:[^/]+/g, "[^/]+")}/?$`) }))
