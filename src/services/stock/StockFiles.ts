import { Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import type { AnswerOf } from "../kernel/Command.ts"
import {
  fileRowOf,
  itemFields,
  type LoadRows,
  type loadRows,
  type previewRows,
  stockFields
} from "../kernel/commands/files.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { StockFileRow } from "../../schema/StockFileRow.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ItemRow, items } from "../kernel/tables/catalog.ts"
import { type StockRow, stocks } from "../kernel/tables/stock.ts"

/** Rows of a file that are loaded together, and what became of them. */
export type Chunk = Omit<LoadRows, "_tag">
export type Loaded = AnswerOf<typeof loadRows>
export type Previewed = AnswerOf<typeof previewRows>

/** Whole merchants in and out: items with their stocks, as rows of a file. */
export class StockFiles extends Context.Service<
  StockFiles,
  {
    /**
     * Loads a chunk in one transaction, each row for itself: its item is ensured and its stock set to the row's quantity.
     * Locations must be there.
     */
    readonly load: (caller: Caller, chunk: Chunk) => Effect.Effect<Loaded, PostingFailure>
    /** What that would do. Nothing is changed. */
    readonly preview: (caller: Caller, chunk: Chunk) => Effect.Effect<Previewed, PostingFailure>
    /** Creates a location unless it is there. Returns whether it was created. */
    readonly ensureLocation: (caller: Caller, locationId: string) => Effect.Effect<boolean, PostingFailure>
    /**
     * The stocks of the next items (products that are not deleted, in the order of their creation), each page as it
     * stands when it is read: no transaction stays open between them. An item without stock is a row of its own.
     */
    readonly page: (
      merchantId: string,
      after: string | null
    ) => Effect.Effect<
      { readonly rows: ReadonlyArray<StockFileRow>; readonly next: string | null },
      DatabaseUnavailable
    >
  }
>()("holdfast/services/StockFiles") {
  static readonly layer = Layer.effect(
    StockFiles,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db

      const page: StockFiles["Service"]["page"] = Effect.fn("StockFiles.page")(function* (merchantId, after) {
        const found = yield* db.read<PageRow>(merchantId, pageStatement, [
          parameter("text", merchantId),
          parameter("uuid", after ?? nilUuid),
          parameter("int4", pageItems)
        ])
        const last = found.at(-1)
        return { rows: found.map(fileRow), next: last?.isLast === false ? last.itemId : null }
      })

      return StockFiles.of({
        load: (caller, chunk) =>
          Effect.map(ledger.post(caller, { _tag: "LoadRows", ...chunk }), ({ answer }) => answer),
        preview: (caller, chunk) =>
          Effect.map(ledger.post(caller, { _tag: "PreviewRows", ...chunk }), ({ answer }) => answer),
        ensureLocation: (caller, locationId) =>
          Effect.map(
            ledger.post(caller, { _tag: "EnsureLocation", locationId }),
            ({ answer }) => answer.created
          ),
        page
      })
    })
  )
}

/** Small enough to be read in a moment, large enough that the way to the database does not count. */
const pageItems = 1_000

// item_pkey, stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
const pageStatement = `
  WITH page AS MATERIALIZED (
    SELECT i.*
    FROM item i
    WHERE i.merchant_id = $1 AND i.item_id > $2 AND i.kind = 'PRODUCT' AND i.deleted_at IS NULL
    ORDER BY i.item_id
    LIMIT $3
  )
  SELECT ${fieldsInSql(items, "page", ["itemId", ...itemFields])},
         ${fieldsInSql(stocks, "s", stockFields)},
         (SELECT count(*) FROM page) < $3 AS "isLast"
  FROM page
  LEFT JOIN stock s ON s.merchant_id = $1 AND s.item_id = page.item_id
  LEFT JOIN location l ON l.merchant_id = $1 AND l.location_id = s.location_id
  ORDER BY page.item_id, l.position, s.lot_number`

type PageRow = Pick<ItemRow, "itemId" | (typeof itemFields)[number]> & {
  // Null in the row of an item without stock.
  readonly [F in (typeof stockFields)[number]]: StockRow[F] | null
} & { readonly isLast: boolean }

const fileRow = (row: PageRow): StockFileRow =>
  fileRowOf(row, row.locationId === null ? undefined : (row as typeof row & StockRow))
