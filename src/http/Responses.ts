import type { Schema } from "effect"
import { HttpServerResponse } from "effect/http"
import { timestamp } from "../schema/Time.ts"

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
