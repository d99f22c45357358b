import { Effect, Schema, SchemaGetter, SchemaIssue } from "effect"

const rfc3339 = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/

/** A moment from outside: RFC 3339 with an offset, decoded to epoch milliseconds. */
export const Instant = Schema.String.annotate({
  identifier: "Timestamp",
  format: "date-time",
  description: "RFC 3339, with an offset"
}).pipe(
  Schema.decodeTo(Schema.Int, {
    decode: SchemaGetter.transformEffect((text: string) => {
      const at = rfc3339.test(text) ? Date.parse(text) : Number.NaN
      return Number.isNaN(at) || Math.abs(at) > 253_402_300_799_999
        ? Effect.fail(
            new SchemaIssue.InvalidValue({
              message: "must be a time as of RFC 3339, such as 2030-01-31T12:00:00Z"
            })
          )
        : Effect.succeed(at)
    }),
    encode: SchemaGetter.transform((at: number) => new Date(at).toISOString())
  })
)

/** A moment going out: RFC 3339 in UTC with milliseconds. */
export const Timestamp = Schema.String.annotate({
  format: "date-time",
  description: "RFC 3339 in UTC with milliseconds"
})

export const timestamp = (at: number): string => new Date(at).toISOString()
export const timestampOrNull = (at: number | null): string | null => (at === null ? null : timestamp(at))
