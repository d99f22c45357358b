import { Effect, Schema } from "effect"
import { Base64Url } from "effect/encoding"

/** Lists come in pages: an opaque cursor names where the next one begins (CONTRACTS section 4). */

export const defaultLimit = 50
export const maxLimit = 200

export const Limit = Schema.NumberFromString.check(
  Schema.isInt({ message: "must be a whole number" }),
  Schema.isBetween({ minimum: 1, maximum: maxLimit }, { message: `must be from 1 to ${maxLimit}` })
).annotate({
  description: `How many entries a page has at most: 1 to ${maxLimit}, ${defaultLimit} without it`,
  examples: [defaultLimit]
})

export const pageQuery = {
  limit: Schema.optionalKey(Limit),
  cursor: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(1024)).annotate({
      description: "The nextCursor of the page before, with the same filters; without it the first page"
    })
  )
}

/** The cursor was not made by this service, or not for this list. */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>()("InvalidCursor", {}) {}

export interface Page<A> {
  readonly data: ReadonlyArray<A>
  readonly nextCursor: string | null
}

/** A cursor is the sort key of the last row of a page. */
export const cursorOf = (position: ReadonlyArray<string | number>): string =>
  Base64Url.encode(JSON.stringify(position))

const Position = Schema.fromJsonString(Schema.Array(Schema.Union([Schema.String, Schema.Finite])))
const decodePosition = Schema.decodeUnknownEffect(Position)

/** What a position is made of. A forged cursor must not reach a statement with a value that its column cannot be. */
const isPart = {
  uuid: (value: unknown) =>
    typeof value === "string" && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value),
  /** Epoch milliseconds, within what a Date can be. */
  time: (value: unknown) => Number.isInteger(value) && Math.abs(value as number) <= 8.64e15,
  integer: (value: unknown) => Number.isSafeInteger(value)
}

export const positionOf = (
  cursor: string | undefined,
  parts: ReadonlyArray<keyof typeof isPart>
): Effect.Effect<ReadonlyArray<string | number> | undefined, InvalidCursor> =>
  cursor === undefined
    ? Effect.succeed(undefined)
    : Effect.fromResult(Base64Url.decodeString(cursor)).pipe(
        Effect.flatMap(decodePosition),
        Effect.mapError(() => new InvalidCursor()),
        Effect.filterOrFail(
          (position) =>
            position.length === parts.length && parts.every((part, index) => isPart[part](position[index])),
          () => new InvalidCursor()
        )
      )

/** Cuts what a query for one row more than the limit has answered into a page. */
export const pageOf = <R, A>(
  rows: ReadonlyArray<R>,
  limit: number,
  show: (row: R) => A,
  position: (row: R) => ReadonlyArray<string | number>
): Page<A> => {
  const shown = rows.slice(0, limit)
  return {
    data: shown.map(show),
    nextCursor: rows.length > limit ? cursorOf(position(shown.at(-1)!)) : null
  }
}

/**
 * The same where a filter has no index: the query looks through a bounded number of rows, numbers them by `place`, and
 * answers with the wanted ones and the last one that it looked at. A page may then be shorter than its limit, and even
 * empty, while there are more: whoever lists goes on until there is no cursor.
 */
export const pageOfLooked = <R extends { readonly place: number }, A>(
  rows: ReadonlyArray<R>,
  limit: number,
  looked: number,
  isWanted: (row: R) => boolean,
  show: (row: R) => A,
  position: (row: R) => ReadonlyArray<string | number>
): Page<A> => {
  const page = pageOf(rows.filter(isWanted), limit, show, position)
  const last = rows.at(-1)
  return page.nextCursor === null && last !== undefined && last.place === looked
    ? { ...page, nextCursor: cursorOf(position(last)) }
    : page
}
