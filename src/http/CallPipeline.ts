import { Clock, Context, Effect, Layer, LogLevel, Metric, Random, References, Tracer } from "effect"
import { type HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { HttpApiEndpoint } from "effect/http-api"
import { hash } from "node:crypto"
import type { Principal } from "../schema/Principal.ts"
import { requestIdOf, traceparentOf } from "../schema/RequestHeaders.ts"
import { ValidationFailed } from "../schema/Validation.ts"
import { Authentication } from "../services/identity/Authentication.ts"
import { uuidV7 } from "../services/Uuid.ts"
import { CurrentCaller, RequiredPermission } from "./contract/Contract.ts"
import { Forbidden } from "./contract/HttpFailure.ts"
import { onePerKey } from "./onePerKey.ts"
import { bodyOf } from "./RequestBody.ts"
import { problemResponse } from "./Responses.ts"

export interface CallPipelineOptions {
  readonly requestTimeoutMs: number
}

const idempotencyKeyLengthMax = 255

const requestSeconds = Metric.histogram("http_server_request_duration_seconds", {
  description: "Time from a request's arrival to its answer, by route and status",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
})

type Handled = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown>

/** What surrounds every call of the contract. Failures of all kinds leave as problems, with the request's id. */
export class CallPipeline extends Context.Service<
  CallPipeline,
  {
    /** A call is given its body's text: a JSON object within its limits, or nothing where the call takes none. */
    readonly around: (
      endpoint: HttpApiEndpoint.Top,
      call: (
        body: string,
        context: Context.Context<HttpRouter.Provided>
      ) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, CurrentCaller>
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest>
  }
>()("holdfast/http/CallPipeline") {}

/**
 * One function of more than 70 lines: its parts share what was read of the request by closing over it. Passing that from
 * function to function costs an object per request and hides the order of the steps.
 */
export const layer = (options: CallPipelineOptions): Layer.Layer<CallPipeline, never, Authentication> =>
  Layer.effect(
    CallPipeline,
    Effect.gen(function* () {
      const authentication = yield* Authentication
      // A metric adds its attributes to the context that it is counted in: to a request's that copied all services.
      const context = yield* Effect.context<never>()
      const around: CallPipeline["Service"]["around"] = (endpoint, call) => {
        const permission = Context.getUnsafe(endpoint.annotations, RequiredPermission)
        const takesBody = endpoint.payload.has("application/json")
        const route = `${endpoint.method} ${endpoint.path}`
        const durationOf = durationsOf(route)
        return Effect.withFiber((fiber) => {
          const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
          const clock = fiber.getRef(Clock.Clock)
          const startedAt = clock.currentTimeMillisUnsafe()
          const requestId = requestIdOf(request.headers) ?? uuidV7(startedAt, fiber.getRef(Random.Random))
          // There is a span only where spans are exported.
          const parent = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
          const span = parent?._tag === "Span" ? parent : undefined
          const annotate = (name: string, value: string): void => span?.attribute(name, value)
          const traceparent = span === undefined ? traceparentOf(request.headers) : spanTraceparent(span)
          annotate("http.route", endpoint.path)
          annotate("holdfast.request_id", requestId)
          let merchant: string | undefined

          const enter = (principal: Principal, body: string): Handled => {
            const idempotency = idempotencyOf(request, body)
            if (idempotency instanceof ValidationFailed) return Effect.fail(idempotency)
            const { merchantId } = principal
            const caller = {
              principal,
              merchantId,
              actor: principal.subject,
              requestId,
              deadline: startedAt + options.requestTimeoutMs,
              ...(traceparent === undefined ? {} : { traceparent }),
              ...(idempotency === undefined ? {} : { idempotency })
            }
            const annotations = { ...fiber.getRef(References.CurrentLogAnnotations), requestId, merchantId }
            // As the router does: the end of the request, which is this fiber's, puts its context back.
            fiber.setContext(
              Context.add(
                Context.add(fiber.context, CurrentCaller, caller),
                References.CurrentLogAnnotations,
                annotations
              )
            )
            return call(body, fiber.context as Context.Context<HttpRouter.Provided>) as Handled
          }
          const answered: Handled = Effect.flatMap(
            authentication.authenticate(request.headers["authorization"]),
            (principal): Handled => {
              if (!principal.permissions.has(permission)) return Effect.fail(new Forbidden({ permission }))
              merchant = principal.merchantId
              annotate("holdfast.merchant_id", merchant)
              return takesBody
                ? Effect.flatMap(bodyOf(request), (body) => enter(principal, body))
                : enter(principal, "")
            }
          )
          const logged = <A>(effect: Effect.Effect<A>): Effect.Effect<A> =>
            Effect.annotateLogs(effect, {
              requestId,
              ...(merchant === undefined ? {} : { merchantId: merchant })
            })
          const finish = (response: HttpServerResponse.HttpServerResponse) => {
            const seconds = (clock.currentTimeMillisUnsafe() - startedAt) / 1000
            durationOf(response.status).updateUnsafe(seconds, context)
            const answer = HttpServerResponse.setHeader(response, "x-request-id", requestId)
            return LogLevel.isGreaterThan(fiber.getRef(References.MinimumLogLevel), "Debug")
              ? Effect.succeed(answer)
              : Effect.as(
                  logged(Effect.logDebug("answered", { route, status: answer.status, seconds })),
                  answer
                )
          }
          return Effect.matchCauseEffect(answered, {
            onFailure: (cause) => Effect.flatMap(logged(problemResponse(cause, requestId)), finish),
            onSuccess: finish
          })
        })
      }
      return { around }
    })
  )

/** The events of a request continue the request's own span, which continues the caller's; without one, the caller's. */
const spanTraceparent = ({ sampled, spanId, traceId }: Tracer.Span): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`

const durationsOf = (route: string) =>
  onePerKey((status: number) => Metric.withAttributes(requestSeconds, { route, status: String(status) }))

/** An Idempotency-Key covers the method, the path and the raw body. */
const idempotencyOf = (request: HttpServerRequest.HttpServerRequest, body: string) => {
  const key = request.headers["idempotency-key"]
  if (key === undefined || request.method === "GET") return undefined
  if (key.length === 0 || key.length > idempotencyKeyLengthMax || !/^[\x20-\x7e]*$/.test(key)) {
    const message = `must have from 1 to ${idempotencyKeyLengthMax} printable ASCII characters`
    return new ValidationFailed({ errors: [{ path: "headers.idempotency-key", message }] })
  }
  return { key, fingerprint: hash("sha256", `${request.method} ${request.url}\n${body}`) }
}
