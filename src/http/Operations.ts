import { Effect, Layer, Result } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { DevTokenRequest } from "../schema/DevToken.ts"
import { type ValidationFailed, readerOf } from "../schema/Validation.ts"
import { DevIssuer } from "../services/identity/Jwks.ts"
import { Health } from "../services/Health.ts"
import * as Documentation from "./Documentation.ts"
import { bodyLimitBytes, parseJson } from "./RequestBody.ts"
import { problemResponse, responseOf } from "./Responses.ts"
import { nextUuid } from "../services/Uuid.ts"
import { PayloadTooLarge } from "./contract/HttpFailure.ts"

/** What is always there, outside the contract: health, metrics, documentation, and the dev issuer where it is open. */

export const paths = ["/health/live", "/health/ready", "/metrics", ...Documentation.paths] as const

const health = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const { missingTopics, ready } = yield* Health
    yield* router.add("GET", "/health/live", Effect.succeed(HttpServerResponse.jsonUnsafe({ status: "UP" })))
    yield* router.add(
      "GET",
      "/health/ready",
      Effect.map(Effect.all([ready, missingTopics], { concurrency: "unbounded" }), ([checks, missing]) => {
        const up = Object.values(checks).every((check) => check === "UP")
        return HttpServerResponse.jsonUnsafe(
          // A topic that is missing stops its own messages only.
          { status: up ? "UP" : "DOWN", checks, ...(missing.length === 0 ? {} : { missingTopics: missing }) },
          { status: up ? 200 : 503 }
        )
      })
    )
  })
)

const readTokenRequest = readerOf(DevTokenRequest, { onExcessProperty: "error" })

/** An empty body asks for the defaults. */
const tokenRequestOf = (text: string): Result.Result<DevTokenRequest, ValidationFailed> =>
  Result.flatMap(parseJson(text === "" ? "{}" : text), (json) => readTokenRequest(json, "body"))

/** `GET /dev/jw-certs` and `POST /dev/token`: only where the service is its own issuer (CONTRACTS section 3). */
export const layerDevIssuer = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const { issue, jwks } = yield* DevIssuer
    yield* router.add("GET", "/dev/jw-certs", Effect.succeed(HttpServerResponse.jsonUnsafe(jwks)))
    yield* router.add("POST", "/dev/token", (request) =>
      Effect.gen(function* () {
        const text = yield* Effect.mapError(
          request.text,
          () => new PayloadTooLarge({ limitBytes: bodyLimitBytes })
        )
        const asked = yield* Effect.fromResult(tokenRequestOf(text))
        return HttpServerResponse.jsonUnsafe({ token: yield* issue(asked) })
      }).pipe(
        Effect.catch((failure) => Effect.map(nextUuid, (id) => responseOf(failure, id))),
        Effect.catchCause((cause) => Effect.flatMap(nextUuid, (id) => problemResponse(cause, id)))
      )
    )
  })
)

export const layer = Layer.mergeAll(
  health,
  Documentation.layer,
  PrometheusMetrics.layerHttp({ path: "/metrics" })
)
