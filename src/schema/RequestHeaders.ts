/** Headers that name the request which a call or a message is part of. A malformed one is ignored. */
export interface RequestHeaders {
  readonly [name: string]: string | undefined
}

const requestIdPattern = /^[\x21-\x7e]{1,128}$/

/** `x-request-id`, as the caller gave it. */
export const requestIdOf = (headers: RequestHeaders): string | undefined =>
  matching(requestIdPattern, headers["x-request-id"])

/** W3C Trace Context, section 3.2: version ff and ids of zeros alone are invalid. */
const traceparentPattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** `traceparent`, as the caller gave it. */
export const traceparentOf = (headers: RequestHeaders): string | undefined =>
  matching(traceparentPattern, headers["traceparent"])

const matching = (pattern: RegExp, given: string | undefined): string | undefined =>
  given !== undefined && pattern.test(given) ? given : undefined
