import { Console, Effect } from "effect"
import { maxLimit, type Page } from "../schema/Page.ts"

/** Rows of a list, page by page, up to a limit. Where there are more it says so on stderr, with the flags that help. */
export const rowsUpTo = Effect.fnUntraced(function* <Row, E, R>(
  limit: number,
  flags: string,
  pageOf: (page: {
    readonly limit: number
    readonly cursor: string | undefined
  }) => Effect.Effect<Page<Row>, E, R>
) {
  const rows: Array<Row> = []
  let cursor: string | undefined
  do {
    const page: Page<Row> = yield* pageOf({ limit: Math.min(maxLimit, limit - rows.length), cursor })
    rows.push(...page.data)
    cursor = page.nextCursor ?? undefined
  } while (cursor !== undefined && rows.length < limit)
  if (cursor !== undefined) yield* Console.error(`There are more than ${limit}: ${flags}.`)
  return rows
})
