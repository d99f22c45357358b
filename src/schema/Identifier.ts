import { Schema } from "effect"

const maxOutsideIdLength = 128

/**
 * An id given by another service (orders, variants, merchants, locations, skus): opaque text of 1–128 characters
 * without control characters or lone surrogates (CONTRACTS section 1). `.` and `..` are none: in the path of a URL
 * clients and proxies take them away, so that the call would go to another route.
 */
export const OutsideId = Schema.String.annotate({ message: "must be text" })
  .check(
    Schema.isMinLength(1, { message: "must not be empty" }),
    Schema.isMaxLength(maxOutsideIdLength, { message: `must have at most ${maxOutsideIdLength} characters` }),
    Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u, {
      message: "must not contain control characters or unpaired surrogates"
    }),
    Schema.isPattern(/^(?!\.{1,2}$)/, { message: "must not be . or .." })
  )
  .annotate({
    identifier: "OutsideId",
    description: "Opaque text of 1 to 128 characters, not necessarily a UUID"
  })

/** Free text from outside (names, reasons, references), kept as it is. */
export const Text = Schema.String.annotate({ message: "must be text" })
  .check(
    Schema.isMaxLength(1024, { message: "must have at most 1024 characters" }),
    Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u, {
      message: "must not contain control characters or unpaired surrogates"
    })
  )
  .annotate({ identifier: "Text", description: "Text of at most 1024 characters" })

/** An id of ours: a UUID (version 7), in lower case. */
export const Uuid = Schema.String.annotate({ message: "must be a UUID in lower case" })
  .check(
    Schema.isPattern(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/, {
      message: "must be a UUID in lower case"
    })
  )
  .annotate({ identifier: "Uuid", description: "A UUID in lower case" })

/** The least of all UUIDs: a page that begins after it begins with the first row. */
export const nilUuid = "00000000-0000-0000-0000-000000000000"

/** Path segments under `/api/v1/inventory` and `/inventory` that win over ids, and are refused as ids. */
export const reservedWords: ReadonlySet<string> = new Set([
  "adjust-stock",
  "bulk",
  "check-availability",
  "confirm",
  "count",
  "extend",
  "release",
  "reservations",
  "reserve"
])

/** The id of a product variant or a sku that is about to be stocked. */
export const NewItemId = OutsideId.check(
  Schema.makeFilter((id: string) => !reservedWords.has(id), {
    message: `must not be one of the words that name a route (${[...reservedWords].join(", ")})`
  })
).annotate({ identifier: "NewItemId" })
