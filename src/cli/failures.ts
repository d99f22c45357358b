import { Cause, Option, Schema } from "effect"
import { CliError } from "effect/cli"
import { isFailing, type Problem, problemOf } from "../http/contract/Problem.ts"
import { ConfigurationInvalid } from "../layers/Configuration.ts"
import { FieldError } from "../schema/Validation.ts"

/** The members of a problem that its first two lines do not say already. */
const said = new Set(["type", "title", "status", "detail", "instance", "code", "retryAfterSeconds"])

/**
 * What a command that failed says, each line complete in itself. A failure of an operation has its code and title, what
 * happened and what to do about it, and the fields that tell where; anything else has the words of its error. Only our
 * own bugs come with a trace.
 */
export const linesOf = (cause: Cause.Cause<unknown>): ReadonlyArray<string> => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (failure === undefined) return Cause.hasInterruptsOnly(cause) ? [] : [Cause.pretty(cause)]
  // What is wrong with the command line has been said (usage.ts).
  if (CliError.isCliError(failure)) return []
  if (failure instanceof ConfigurationInvalid) return failure.problems
  if (isFailing(failure)) {
    const problem = problemOf(failure)
    return [`${problem.code}: ${problem.title}`, problem.detail, ...memberLines(membersOf(problem))]
  }
  const messages: Array<string> = []
  for (let at: unknown = failure; at instanceof Error && messages.length < 4; at = at.cause) {
    if (at.message !== "" && !messages.includes(at.message)) messages.push(at.message)
  }
  return [messages.join(": ") || String((failure as { readonly _tag?: string })._tag ?? failure)]
}

export const membersOf = (problem: Problem): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(problem).filter(
      ([name, value]) => !said.has(name) && value !== undefined && value !== null
    )
  )

/** `items: productVariantId cup, requested 5, available 2`: a line for each of them; of a field that is bad, its sentence. */
export const memberLines = (members: Readonly<Record<string, unknown>>): ReadonlyArray<string> =>
  Object.entries(members).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((each) =>
      isFieldError(each) ? `${each.path} ${each.message}` : `${name}: ${textOf(each)}`
    )
  )

const isFieldError = Schema.is(FieldError)

/** `productVariantId cup, requested 5, available 2` */
const textOf = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? Object.entries(value)
        .map(([name, each]) => `${name} ${textOf(each)}`)
        .join(", ")
    : String(value ?? "-")
