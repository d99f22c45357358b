import { Result, Schema, SchemaIssue } from "effect"

/** Decoding of input from outside, with an explanation of each bad field. */

/** Bad input: one entry for each bad field. Nothing changed. */
export class ValidationFailed extends Schema.TaggedError<ValidationFailed>()("ValidationFailed", {
  errors: Schema.Array(Schema.Struct({ path: Schema.String, message: Schema.String }))
}) {}

/** A missing field "is required"; other defects have the words of their schema. */
export const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) => (issue._tag === "MissingKey" ? "is required" : SchemaIssue.defaultLeafHook(issue))
})

/**
 * Decodes input by its schema, or names each bad field; `slot` is the part of the request that holds the fields. Decoding
 * stops at the first defect, and all defects are listed in a second pass: good input takes two thirds of the time so.
 */
export const readerOf = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "first" })
  const explain = Schema.decodeUnknownResult(schema, { errors: "all" })
  return (input: unknown, slot: string): Result.Result<S["Type"], ValidationFailed> =>
    Result.orElse(decode(input), () =>
      Result.mapError(explain(input), ({ issue }) => new ValidationFailed({ errors: badFields(issue, slot) }))
    )
}

const badFields = (issue: SchemaIssue.Issue, slot: string): ValidationFailed["errors"] =>
  formatIssues(issue).issues.map(({ message, path }) => ({
    path: [slot, ...(path ?? []).map((part) => String(typeof part === "object" ? part.key : part))].join("."),
    message
  }))
