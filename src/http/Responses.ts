import { Cause, Effect, Metric, Option, type Schema } from "effect"
import { HttpServerResponse } from "effect/http"
import { timestamp } from "../schema/Time.ts"
import { InternalError } from "./contract/HttpFailure.ts"
import { isFailing, problemOf } from "./contract/Problem.ts"
import type { Failing } from "./contract/ProblemKinds.ts"
import { onePerKey } from "./onePerKey.ts"

/**
 * Answers are rendered from what the operation answered and nothing else, so that the kept answer of an
 * Idempotency-Key renders to the same bytes again.
 */
const respond = (body: unknown, status: number, replayed: boolean): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(JSON.stringify(body), {
    status,
    contentType: "application/json",
    ...(replayed ? { headers: { "idempotency-replayed": "true" } } : {})
  })

/** An answer of a POST or PATCH, checked against its schema by the compiler. */
export const answer = <S extends Schema.Constraint>(
  _schema: S,
  body: S["Encoded"],
  options: { readonly status?: 200 | 201 | 202; readonly replayed?: boolean } = {}
) => respond(body, options.status ?? 200, options.replayed ?? false)

/** The same in the envelope of the orders contract. */
export const enveloped = <S extends Schema.Constraint>(
  _schema: S,
  data: S["Encoded"],
  at: number,
  options: { readonly status?: 200 | 201; readonly replayed?: boolean } = {}
) =>
  respond(
    { success: true, data, meta: { timestamp: timestamp(at) } },
    options.status ?? 200,
    options.replayed ?? false
  )

const refusals = Metric.counter("holdfast_refusals_total", {
  description: "Requests that were refused, by the failure that they were answered with",
  incremental: true
})
const refusalsOf = onePerKey((reason: string) => Metric.withAttributes(refusals, { reason }))

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
