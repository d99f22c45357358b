import { Schema, SchemaTransformation } from "effect"
import { HttpApiSchema } from "effect/http-api"
import * as Failure from "../../schema/Failure.ts"
import { problemTypeOf } from "./ProblemCodes.ts"
import { type Classes, type Failing, type ProblemKind, classes, kinds } from "./ProblemKinds.ts"

/** Failures as `application/problem+json` (RFC 9457): their bodies, and the schemas of those for the contract. */

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance?: string
  readonly code: string
  readonly [member: string]: unknown
}

export const isFailing = (failure: unknown): failure is Failing =>
  typeof failure === "object" && failure !== null && "_tag" in failure && (failure._tag as string) in kinds

/** What a failure looks like on the wire. */
export const problemOf = (failure: Failing, instance?: string): Problem => {
  if (failure._tag === "RowRefused" && isFailing(failure.failure)) {
    return rowProblemOf(failure.index, failure.failure, instance)
  }
  const kind = kinds[failure._tag] as ProblemKind<Failing>
  const members: Record<string, unknown> = {}
  for (const field of Object.keys(classes[failure._tag].fields)) {
    if (field !== "_tag") members[field] = failure[field as keyof Failing]
  }
  return {
    type: problemTypeOf(kind.code),
    title: kind.title,
    status: kind.status,
    detail: kind.detail(failure),
    ...(instance === undefined ? {} : { instance }),
    code: kind.code,
    ...members
  }
}

/**
 * All were refused because of one: its own problem, and which one it is. The request itself was found and understood,
 * so that it is a conflict or cannot be processed, whatever the one would have been told alone.
 */
const rowProblemOf = (index: number, failure: Failing, instance: string | undefined): Problem => {
  const { status, ...problem } = problemOf(failure, instance)
  return {
    ...problem,
    status: status === 409 ? 409 : 422,
    detail: `Operation ${index} was refused, and with it all of them: ${problem.detail}`,
    index
  }
}

/** The schemas of those problems. */
export const rowProblem = (status: 409 | 422): ReturnType<typeof makeRowProblem> =>
  (rowProblems[status] ??= makeRowProblem(status))
const rowProblems: Partial<Record<409 | 422, ReturnType<typeof makeRowProblem>>> = {}

const makeRowProblem = (status: 409 | 422) =>
  Schema.StructWithRest(
    Schema.Struct({
      type: Schema.String,
      title: Schema.String,
      status: Schema.Literal(status),
      detail: Schema.String,
      instance: Schema.optionalKey(Schema.String.annotate({ description: "The request id" })),
      code: Schema.String.annotate({ description: "The code of the operation's own failure" }),
      index: Schema.Int.annotate({ description: "The place of the operation in the request, from 0" })
    }),
    [Schema.Record(Schema.String, Schema.Unknown)]
  )
    .annotate({ identifier: `RowRefused${status}Problem`, description: kinds.RowRefused.title })
    .pipe(
      Schema.decodeTo(
        Schema.toType(Failure.RowRefused),
        SchemaTransformation.transform({
          decode: ({ index, ...failure }) =>
            new Failure.RowRefused({ index, failure: { ...failure, _tag: failure.code } }),
          encode: (failure) => problemOf(failure) as never
        })
      ),
      HttpApiSchema.status(status),
      HttpApiSchema.asJson({ contentType: "application/problem+json" })
    )

/** The schema of a failure's problem, for the contract and for typed clients: one for all calls that may meet it. */
export const problem = <Tag extends keyof Classes>(tag: Tag): ReturnType<typeof makeProblem<Tag>> => {
  const made = (problems[tag] ?? makeProblem(tag)) as ReturnType<typeof makeProblem<Tag>>
  problems[tag] = made
  return made
}
const problems: Partial<Record<keyof Classes, unknown>> = {}

const makeProblem = <Tag extends keyof Classes>(tag: Tag) => {
  const Class = classes[tag] as unknown as Schema.Codec<InstanceType<Classes[Tag]>> & {
    readonly fields: Schema.Struct.Fields
    new (fields: unknown): InstanceType<Classes[Tag]>
  }
  const { code, status, title } = kinds[tag]
  const { _tag, ...fields } = Class.fields
  return Schema.Struct({
    type: Schema.String,
    title: Schema.String,
    status: Schema.Literal(status),
    detail: Schema.String,
    instance: Schema.optionalKey(Schema.String.annotate({ description: "The request id" })),
    code: Schema.Literal(code),
    ...fields
  })
    .annotate({ identifier: `${tag}Problem`, description: title })
    .pipe(
      Schema.decodeTo(
        Schema.toType(Class),
        SchemaTransformation.transform({
          decode: (problem) => new Class(problem),
          encode: (failure) => problemOf(failure as Failing) as never
        })
      ),
      HttpApiSchema.status(status),
      HttpApiSchema.asJson({ contentType: "application/problem+json" })
    )
}

/** What any call may meet. */
export const commonProblems = [
  problem("ValidationFailed"),
  problem("InvalidCursor"),
  problem("Unauthenticated"),
  problem("Forbidden"),
  problem("OperationTimedOut"),
  problem("PayloadTooLarge"),
  problem("UnsupportedMediaType"),
  problem("BalanceOverflow"),
  problem("IdempotencyKeyReused"),
  problem("InternalError"),
  problem("DatabaseUnavailable"),
  problem("JwksUnavailable"),
  problem("Overloaded")
] as const
