import { Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable, RefusalData } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import type { Bulk, BulkOperation } from "../kernel/commands/bulk.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { ItemRef } from "../../schema/Item.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { Refusal } from "../kernel/commands.ts"
import type { StockFileRow } from "../../schema/StockFileRow.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ItemRow, items } from "../kernel/tables/catalog.ts"
import { type StockRow, stocks } from "../kernel/tables/stock.ts"

/** Rows of a file, loaded together. */
export interface Chunk {
  readonly rows: ReadonlyArray<StockFileRow>
  /** What tells the chunk from all others, of this file and any other: it is loaded once (for 24 hours). */
  readonly key: string
  /** Noted with every movement. */
  readonly reason: string
}

/** What became of a chunk. */
export interface Loaded {
  /** The rows that were refused, by their place in the chunk. Nothing of such a row is left. */
  readonly refused: ReadonlyArray<{ readonly index: number; readonly failure: RefusalData }>
  /** Whether it had been loaded before: nothing was touched again. */
  readonly replayed: boolean
}

/** Whole merchants in and out: items with their stocks, as rows of a file. */
export class StockFiles extends Context.Service<
  StockFiles,
  {
    /**
     * Loads a chunk in one transaction, each row for itself: its item is ensured and its stock set to the row's quantity.
     * Locations must be there.
     */
    readonly load: (
      caller: Omit<Caller, "idempotency">,
      chunk: Chunk
    ) => Effect.Effect<Loaded, Refusal<Bulk> | PostingFailure>
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

      const load: StockFiles["Service"]["load"] = Effect.fn("StockFiles.load")(function* (caller, chunk) {
        const { key, reason, rows } = chunk
        const { answer, replayed } = yield* ledger.post(
          { ...caller, idempotency: { key, fingerprint: key } },
          {
            _tag: "Bulk",
            mode: "continueOnFailure",
            operations: rows.map((row) => operationOf(row, reason)),
            onlyRefusals: true
          }
        )
        const refused = answer.rows.flatMap((row) =>
          "failure" in row ? [{ index: row.index, failure: ofOperation(row.failure) }] : []
        )
        return { refused, replayed }
      })

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
        load,
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

/** A row stands or falls as a whole: its item and its stock are a group. */
const operationOf = (row: StockFileRow, reason: string): BulkOperation => {
  const { expiresAt, locationId, lotNumber, lowStockThreshold, name, productVariantId, quantity, sku } = row
  const item: BulkOperation = {
    _tag: "EnsureItem",
    kind: "PRODUCT",
    productVariantId,
    sku,
    name,
    lowStockThreshold
  }
  if (quantity === undefined) return item
  const ref: ItemRef = productVariantId === undefined ? { sku: sku! } : { variantId: productVariantId }
  const stock: BulkOperation = {
    _tag: "AdjustStock",
    changeType: "CORRECTION",
    item: ref,
    quantity,
    locationId,
    lotNumber,
    lotExpiresAt: expiresAt,
    reason
  }
  return { _tag: "Bulk", mode: "atomic", operations: [item, stock], onlyRefusals: true }
}

/** Of a group, what its operation was refused with. */
const ofOperation = (failure: RefusalData): RefusalData =>
  failure._tag === "RowRefused" ? (failure["failure"] as RefusalData) : failure

/** Small enough to be read in a moment, large enough that the way to the database does not count. */
const pageItems = 1_000

const itemFields = [
  "itemId",
  "productVariantId",
  "sku",
  "name",
  "lowStockThreshold"
] as const satisfies ReadonlyArray<keyof ItemRow>
/** Null in the row of an item without stock. */
const stockFields = ["locationId", "lotNumber", "lotExpiresAt", "onHand"] as const satisfies ReadonlyArray<
  keyof StockRow
>

// item_pkey, stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
const pageStatement = `
  WITH page AS MATERIALIZED (
    SELECT i.item_id, i.product_variant_id, i.sku, i.name, i.low_stock_threshold
    FROM item i
    WHERE i.merchant_id = $1 AND i.item_id > $2 AND i.kind = 'PRODUCT' AND i.deleted_at IS NULL
    ORDER BY i.item_id
    LIMIT $3
  )
  SELECT ${fieldsInSql(items, "page", itemFields)},
         ${fieldsInSql(stocks, "s", stockFields)},
         (SELECT count(*) FROM page) < $3 AS "isLast"
  FROM page
  LEFT JOIN stock s ON s.merchant_id = $1 AND s.item_id = page.item_id
  LEFT JOIN location l ON l.merchant_id = $1 AND l.location_id = s.location_id
  ORDER BY page.item_id, l.position, s.lot_number`

type PageRow = Pick<ItemRow, (typeof itemFields)[number]> & {
  readonly [F in (typeof stockFields)[number]]: StockRow[F] | null
} & { readonly isLast: boolean }

const fileRow = ({
  locationId,
  lotExpiresAt,
  lotNumber,
  lowStockThreshold,
  name,
  onHand,
  productVariantId,
  sku
}: PageRow): StockFileRow => ({
  ...(productVariantId === null ? {} : { productVariantId }),
  ...(sku === null ? {} : { sku }),
  ...(locationId === null ? {} : { quantity: onHand!, locationId, lotNumber: lotNumber! }),
  ...(lotExpiresAt === null ? {} : { expiresAt: lotExpiresAt }),
  ...(name === null ? {} : { name }),
  lowStockThreshold
})
