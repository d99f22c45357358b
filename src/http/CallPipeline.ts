import {
  Cause,
  Clock,
  Context,
  Effect,
  Layer,
  LogLevel,
  Metric,
  Option,
  Random,
  References,
  Tracer
} from "effect"
import { type HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { HttpApiEndpoint } from "effect/http-api"
import { isUtf8 } from "node:buffer"
import { hash } from "node:crypto"
import { IncomingMessage } from "node:http"
import type { Principal } from "../schema/Principal.ts"
import { ValidationFailed } from "../schema/Validation.ts"
import { Authentication } from "../services/identity/Authentication.ts"
import { uuidV7 } from "../services/Uuid.ts"
import { CurrentCaller, RequiredPermission, maxLines } from "./contract/Contract.ts"
import { checkJson } from "../schema/JsonLimits.ts"
import { Forbidden, InternalError, PayloadTooLarge, UnsupportedMediaType } from "./contract/HttpFailure.ts"
import { isFailing, problemOf } from "./contract/Problem.ts"
import type { Failing } from "./contract/ProblemKinds.ts"

export interface EdgeOptions {
  readonly requestTimeoutMs: number
}

export const bodyLimitBytes = 1024 * 1024
const idempotencyKeyLengthMax = 255
/** Bodies with longer lists are not looked at. What a call takes is less, and refused by the name of its field. */
const entriesMax = 2 * maxLines
const requestIdPattern = /^[\x21-\x7e]{1,128}$/
const traceparentPattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

const requestSeconds = Metric.histogram("http_server_request_duration_seconds", {
  description: "Time from a request's arrival to its answer, by route and status",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
})

const refusals = Metric.counter("holdfast_refusals_total", {
  description: "Requests that were refused, by the failure that they were answered with",
  incremental: true
})

type Handled = Effect.Effect<HttpServerResponse.HttpServerResponse, unknown>

/** What surrounds every call of the contract. Failures of all kinds leave as problems, with the request's id. */
export class Surroundings extends Context.Service<
  Surroundings,
  {
    /** A call is given its body's text: a JSON object within its limits, or nothing where the method takes none. */
    readonly around: (
      endpoint: HttpApiEndpoint.Top,
      call: (
        body: string,
        context: Context.Context<HttpRouter.Provided>
      ) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, CurrentCaller>
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest>
  }
>()("holdfast/http/Surroundings") {}

export const layer = (options: EdgeOptions): Layer.Layer<Surroundings, never, Authentication> =>
  Layer.effect(
    Surroundings,
    Effect.gen(function* () {
      const authentication = yield* Authentication
      // A metric adds its attributes to the context that it is counted in: to a request's that copied all services.
      const context = yield* Effect.context<never>()
      const around: Surroundings["Service"]["around"] = (endpoint, call) => {
        const permission = Context.getUnsafe(endpoint.annotations, RequiredPermission)
        const route = `${endpoint.method} ${endpoint.path}`
        const durationOf = durationsOf(route)
        return Effect.withFiber((fiber) => {
          const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
          const clock = fiber.getRef(Clock.Clock)
          const startedAt = clock.currentTimeMillisUnsafe()
          const requestId = givenRequestId(request) ?? uuidV7(startedAt, fiber.getRef(Random.Random))
          // There is a span only where spans are exported.
          const parent = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
          const span = parent?._tag === "Span" ? parent : undefined
          const annotate = (name: string, value: string): void => span?.attribute(name, value)
          const traceparent = span === undefined ? givenTraceparent(request) : traceparentOf(span)
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
              return endpoint.method === "GET"
                ? enter(principal, "")
                : Effect.flatMap(bodyOf(request), (body) => enter(principal, body))
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

/** The caller's own request id, where it can be taken over. */
export const givenRequestId = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const given = request.headers["x-request-id"]
  return given !== undefined && requestIdPattern.test(given) ? given : undefined
}

/** What the events of a request continue: its own span, which continues the caller's, or the caller's itself. */
const traceparentOf = ({ sampled, spanId, traceId }: Tracer.Span): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
const givenTraceparent = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const given = request.headers["traceparent"]
  return given !== undefined && traceparentPattern.test(given) ? given : undefined
}

/** Metrics with their attributes, made once each: they are few. */
const madeOnce = <K, M>(make: (key: K) => M): ((key: K) => M) => {
  const made = new Map<K, M>()
  return (key) => {
    let metric = made.get(key)
    if (metric === undefined) made.set(key, (metric = make(key)))
    return metric
  }
}
const durationsOf = (route: string) =>
  madeOnce((status: number) => Metric.withAttributes(requestSeconds, { route, status: String(status) }))
const refusalsOf = madeOnce((reason: string) => Metric.withAttributes(refusals, { reason }))

/** The body, read once within its limit. It must be a JSON object; what is in it is the schema's business. */
const bodyOf = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<string, PayloadTooLarge | UnsupportedMediaType | ValidationFailed> => {
  const contentType = request.headers["content-type"]
  const encoding = request.headers["content-encoding"]
  if (
    (contentType !== undefined && !/^application\/json\s*(;|$)/i.test(contentType)) ||
    (encoding !== undefined && encoding !== "identity")
  ) {
    return Effect.fail(new UnsupportedMediaType())
  }
  if (Number(request.headers["content-length"] ?? 0) > bodyLimitBytes) return tooLarge
  return Effect.flatMap(bytesOf(request), (bytes) => {
    const text = decoder.decode(bytes)
    // What is not UTF-8 was decoded to this character: two ids that differ would become one.
    const garbled = text.includes("\uFFFD") && !isUtf8(bytes)
    const defect = garbled ? "must be UTF-8" : checkJson(text, entriesMax)
    return defect === undefined
      ? Effect.succeed(text)
      : Effect.fail(new ValidationFailed({ errors: [{ path: "body", message: defect }] }))
  })
}
const decoder = new TextDecoder()
const tooLarge = Effect.suspend(() => Effect.fail(new PayloadTooLarge({ limitBytes: bodyLimitBytes })))

/**
 * A body whose length was told, and is within the limit, is taken from Node as it comes: `request.arrayBuffer` watches
 * a stream of any length and kind until it is closed, which takes 20 µs longer. Node reads no further than the length.
 */
const bytesOf = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<Uint8Array, PayloadTooLarge> => {
  const { headers, source } = request
  return source instanceof IncomingMessage &&
    headers["content-length"] !== undefined &&
    headers["expect"] === undefined &&
    headers["upgrade"] === undefined
    ? Effect.callback((resume) => {
        const chunks: Array<Buffer> = []
        const onData = (chunk: Buffer): unknown => chunks.push(chunk)
        const onEnd = (): void =>
          resume(Effect.succeed(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
        source.on("data", onData).on("end", onEnd)
        // Whoever goes away before the end is nobody to answer: the server interrupts their request.
        return Effect.sync(() => source.off("data", onData).off("end", onEnd).destroy())
      })
    : Effect.matchEffect(request.arrayBuffer, {
        onFailure: () => tooLarge,
        onSuccess: (buffer) => Effect.succeed(new Uint8Array(buffer))
      })
}

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

const failureOf = (cause: Cause.Cause<unknown>): Failing | undefined => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return isFailing(error) ? error : undefined
}

export const problemResponse = (
  cause: Cause.Cause<unknown>,
  requestId: string
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const failure = failureOf(cause) ?? new InternalError()
  const response = responseOf(failure, requestId)
  // Whoever gave up is not there to be answered.
  if (Cause.hasInterruptsOnly(cause)) return Effect.succeed(response)
  const counted = Effect.as(Metric.update(refusalsOf(failure._tag), 1), response)
  return failure._tag === "InternalError"
    ? Effect.andThen(Effect.logError("a request died", cause), counted)
    : counted
}

export const responseOf = (failure: Failing, requestId: string): HttpServerResponse.HttpServerResponse => {
  const problem = problemOf(failure, requestId)
  const headers: Record<string, string> = {}
  if ("retryAfterSeconds" in failure) headers["retry-after"] = String(failure.retryAfterSeconds)
  if (problem.status === 401) headers["www-authenticate"] = "Bearer"
  if ("allow" in failure) headers["allow"] = failure.allow.join(", ")
  // What is left of a body that is too large is not read: the connection cannot be used again.
  if (problem.status === 413) headers["connection"] = "close"
  return HttpServerResponse.text(JSON.stringify(problem), {
    status: problem.status,
    contentType: "application/problem+json",
    headers
  })
}
