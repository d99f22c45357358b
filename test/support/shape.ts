import { assert } from "@effect/vitest"
import type { Answer } from "./service.ts"

/** What an answer must look like, field by field: values where they are known, and a rule where they are not. */

export class Rule {
  readonly name: string
  readonly holds: (value: unknown) => boolean
  constructor(name: string, holds: (value: unknown) => boolean) {
    this.name = name
    this.holds = holds
  }
}

const textLike = (name: string, pattern: RegExp): Rule =>
  new Rule(name, (value) => typeof value === "string" && pattern.test(value))

export const uuid = textLike("a UUID", /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/)
export const moment = textLike(
  "a time as of RFC 3339 in UTC with milliseconds",
  /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/
)
export const someText = textLike("some text", /./)

/** Exactly these fields: none is missing, and none is there that is not named. */
export const assertShape = (actual: unknown, expected: unknown): void =>
  assert.deepStrictEqual(actual, settled(actual, expected))

const settled = (actual: unknown, expected: unknown): unknown => {
  if (expected instanceof Rule) return expected.holds(actual) ? actual : `<${expected.name}>`
  if (Array.isArray(expected)) {
    return expected.map((element, index) =>
      settled(Array.isArray(actual) ? (actual[index] as unknown) : undefined, element)
    )
  }
  if (typeof expected !== "object" || expected === null) return expected
  return Object.fromEntries(
    Object.entries(expected).map(([name, value]) => [
      name,
      settled((actual as Record<string, unknown> | null | undefined)?.[name], value)
    ])
  )
}

export const assertAnswer = (answer: Answer, status: number, expected: unknown): void => {
  assert.strictEqual(answer.status, status, answer.text)
  assert.strictEqual(answer.headers["content-type"], "application/json")
  assertShape(answer.body, expected)
}

/** In the envelope of the orders contract. */
export const assertEnvelope = (answer: Answer, status: number, data: unknown): void =>
  assertAnswer(answer, status, { success: true, data, meta: { timestamp: moment } })

/** A problem as of RFC 9457 with these members, and no others. */
export const assertProblem = (
  answer: Answer,
  status: number,
  code: string,
  members: Readonly<Record<string, unknown>> = {}
): void => {
  assert.strictEqual(answer.status, status, answer.text)
  assert.strictEqual(answer.headers["content-type"], "application/problem+json", answer.text)
  assertShape(answer.body, {
    type: `/docs/problems/${code}`,
    title: someText,
    status,
    detail: someText,
    instance: answer.headers["x-request-id"],
    code,
    ...members
  })
}

/** The fields that were refused, as their paths. */
export const assertRefusedFields = (answer: Answer, ...paths: ReadonlyArray<string>): void => {
  assertProblem(answer, 400, "VALIDATION_FAILED", { errors: pick(answer.body, "errors") })
  const errors = pick(answer.body, "errors") as ReadonlyArray<{ path: string; message: string }>
  for (const error of errors) assertShape(error, { path: someText, message: someText })
  assert.deepStrictEqual([...new Set(errors.map(({ path }) => path))].sort(), [...paths].sort())
}

/** What is at a path such as `data.items.0.quantity`. */
export const pick = (body: unknown, path: string): unknown =>
  path
    .split(".")
    .reduce<unknown>((at, name) => (at as Record<string, unknown> | null | undefined)?.[name], body)

export const textAt = (body: unknown, path: string): string => {
  const found = pick(body, path)
  if (typeof found !== "string") throw new Error(`no text at ${path} of ${JSON.stringify(body)}`)
  return found
}

export const listAt = (body: unknown, path: string): ReadonlyArray<unknown> => {
  const found = pick(body, path)
  if (!Array.isArray(found)) throw new Error(`no list at ${path} of ${JSON.stringify(body)}`)
  return found
}
