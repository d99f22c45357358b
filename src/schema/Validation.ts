import { Result, Schema, SchemaAST, SchemaIssue } from "effect"
import { closestMatch } from "leven"

/** Decoding of input from outside, with an explanation of each bad field. */

/** A field that is not valid, and what is wrong with it: read one after the other they are a sentence. */
export const FieldError = Schema.Struct({ path: Schema.String, message: Schema.String })

/** Bad input: one entry for each bad field. Nothing changed. */
export class ValidationFailed extends Schema.TaggedError<ValidationFailed>()("ValidationFailed", {
  errors: Schema.Array(FieldError)
}) {}

const unknownName = "is not known here: "

/**
 * A missing field "is required", an unknown one is answered with the names that are known there; other defects have the
 * words of their schema.
 */
export const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) => {
    if (issue._tag === "MissingKey") return "is required"
    return issue._tag === "UnexpectedKey"
      ? `${unknownName}${namesOf(issue.ast).join(", ")}`
      : SchemaIssue.defaultLeafHook(issue)
  }
})

const namesOf = (ast: SchemaAST.AST): ReadonlyArray<string> =>
  SchemaAST.isObjects(ast) ? ast.propertySignatures.map(({ name }) => String(name)) : []

/** What becomes of fields that a schema does not know: an error in a call, nothing in a message or a file. */
export interface ReaderOptions {
  readonly onExcessProperty: "error" | "ignore"
}

/**
 * Decodes input by its schema, or names each bad field; `slot` is the part of the request that holds the fields. Decoding
 * stops at the first defect, and all defects are listed in a second pass: good input takes two thirds of the time so.
 */
export const readerOf = <S extends Schema.ConstraintDecoder<unknown>>(schema: S, options?: ReaderOptions) => {
  const decode = Schema.decodeUnknownResult(schema, { ...options, errors: "first" })
  const explain = Schema.decodeUnknownResult(schema, { ...options, errors: "all" })
  return (input: unknown, slot: string): Result.Result<S["Type"], ValidationFailed> =>
    Result.orElse(decode(input), () =>
      Result.mapError(explain(input), ({ issue }) => new ValidationFailed({ errors: badFields(issue, slot) }))
    )
}

const badFields = (issue: SchemaIssue.Issue, slot: string): ValidationFailed["errors"] =>
  formatIssues(issue).issues.map(({ message, path }) => {
    const parts = (path ?? []).map((part) => String(typeof part === "object" ? part.key : part))
    return {
      path: [slot, ...parts].join("."),
      message: message.startsWith(unknownName)
        ? unknownNameMessage(parts.at(-1)!, message.slice(unknownName.length).split(", "))
        : message
    }
  })

/** An unknown name with the known one that was likely meant, or with all that are known. */
export const unknownNameMessage = (name: string, known: ReadonlyArray<string>): string => {
  const wanted = plain(name)
  const likely =
    known.find((candidate) => plain(candidate) === wanted) ??
    // A name that was cut short or drawn out: location for locationId.
    known.find((candidate) => wanted !== "" && plain(candidate).startsWith(wanted)) ??
    known.find((candidate) => wanted.startsWith(plain(candidate))) ??
    closestMatch(name, known, { maxDistance: Math.max(1, Math.floor(name.length / 3)) })
  return likely === undefined
    ? `is not known here: known ${known.length === 1 ? "is" : "are"} ${known.join(", ")}`
    : `is not known here: did you mean ${likely}?`
}
/** Other services write the same name as expires_in, expires-in or ExpiresIn. */
const plain = (name: string): string => name.toLowerCase().replace(/[-_]/g, "")
