import type { CallOptions } from "./CallOptions.ts"
import { type Client, operations } from "./operations.ts"

export type { CallOptions } from "./CallOptions.ts"
export type * from "./operations.ts"

/** The typed client: promises over `fetch`, without a dependency. Its calls and types are made from the contract. */

export interface ClientOptions {
  /** Where the service listens, such as `http://127.0.0.1:8080`. */
  readonly baseUrl: string
  /** The token, or a function that is asked for one before each call. */
  readonly token: string | (() => string | Promise<string>)
  /** In place of the global `fetch`. */
  readonly fetch?: typeof fetch
  /** How often a call is sent at most, when it may be sent again: 3. */
  readonly attempts?: number
}

/** An error as the service answers it (RFC 9457); further members belong to its code. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  /** What happened, and what to do about it. */
  readonly detail: string
  readonly code: string
  readonly instance?: string
  readonly [member: string]: unknown
}

/** The service refused the call. */
export class HoldfastError extends Error {
  override readonly name = "HoldfastError"
  readonly problem: Problem
  readonly status: number
  readonly code: string
  constructor(problem: Problem) {
    super(`${problem.code}: ${problem.detail}`)
    this.problem = problem
    this.status = problem.status
    this.code = problem.code
  }
}

const defaultAttempts = 3
const retryPauseMs = 200

/** @throws {HoldfastError} by each call that the service refuses; what `fetch` throws when there is no answer. */
export const createClient = (options: ClientOptions): Client =>
  Object.fromEntries(
    Object.entries(operations).map(([group, calls]) => [
      group,
      Object.fromEntries(
        Object.entries(calls).map(([name, [method, path]]) => [
          name,
          (input: Input = {}, callOptions: CallOptions = {}) =>
            send(options, method, path, input, callOptions)
        ])
      )
    ])
  ) as unknown as Client

interface Input {
  readonly [name: string]: unknown
}

const send = async (
  options: ClientOptions,
  method: string,
  path: string,
  input: Input,
  { idempotencyKey, requestId, signal }: CallOptions
): Promise<unknown> => {
  const { body, url } = requestOf(options.baseUrl, method, path, input)
  const isRepeatable = method === "GET" || idempotencyKey !== undefined
  for (let attempt = 1; ; attempt++) {
    const mayRepeat = attempt < (options.attempts ?? defaultAttempts)
    const token = typeof options.token === "string" ? options.token : await options.token()
    let response: Response
    try {
      response = await (options.fetch ?? fetch)(url, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          accept: "application/json, application/problem+json",
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
          ...(requestId === undefined ? {} : { "x-request-id": requestId })
        },
        ...(body === undefined ? {} : { body }),
        ...(signal === undefined ? {} : { signal })
      })
    } catch (cause) {
      // Whether the call had its effect is not known.
      if (!mayRepeat || !isRepeatable || signal?.aborted === true) throw cause
      await pause(attempt * retryPauseMs, signal)
      continue
    }
    if (response.ok) return response.json()
    const problem = await problemOf(response)
    // 503 and 429 have changed nothing; of 408 the outcome is not known.
    const isWorthwhile =
      problem.status === 503 || problem.status === 429 || (problem.status === 408 && isRepeatable)
    if (!mayRepeat || !isWorthwhile) throw new HoldfastError(problem)
    const afterSeconds = Number(response.headers.get("retry-after") ?? 0)
    await pause(Math.max(afterSeconds * 1_000, attempt * retryPauseMs), signal)
  }
}

/** What is named in the path goes there; the rest is the query of a GET, and the body of anything else. */
const requestOf = (baseUrl: string, method: string, path: string, input: Input) => {
  const rest = new Map(Object.entries(input).filter(([, value]) => value !== undefined))
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = rest.get(name)
    if (typeof value !== "string" || value === "") throw new TypeError(`${name} is required`)
    rest.delete(name)
    return encodeURIComponent(value)
  })
  const url = `${baseUrl.replace(/\/+$/, "")}${filled}`
  if (method !== "GET") return { url, body: JSON.stringify(Object.fromEntries(rest)) }
  const query = new URLSearchParams(
    [...rest].flatMap(([name, value]) => [value].flat().map((each): [string, string] => [name, String(each)]))
  )
  return { url: query.size === 0 ? url : `${url}?${query}`, body: undefined }
}

/** What comes from elsewhere, a proxy for one, may be no problem. */
const problemOf = async (response: Response): Promise<Problem> => {
  const text = await response.text()
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body === "object" && body !== null && "code" in body && "detail" in body)
      return body as Problem
  } catch {
    // It is not JSON.
  }
  return {
    type: "about:blank",
    title: response.statusText,
    status: response.status,
    detail: text.slice(0, 200),
    code: `HTTP_${response.status}`
  }
}

const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(signal.reason)
    const timer = setTimeout(resolve, ms)
    signal?.addEventListener("abort", () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })

/** Every entry of a list, page after page: `for await (const stock of entriesOf(client.catalog.listStocks))`. */
export async function* entriesOf<I extends { readonly cursor?: string }, A>(
  list: (input: I) => Promise<{ readonly data: ReadonlyArray<A>; readonly nextCursor: string | null }>,
  input: Omit<I, "cursor"> = {} as I
): AsyncGenerator<A, void, undefined> {
  for (let cursor: string | null | undefined; cursor !== null;) {
    const page = await list({ ...input, ...(cursor === undefined ? {} : { cursor }) } as I)
    yield* page.data
    cursor = page.nextCursor
  }
}
