import { Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { ResolveDiscrepancy } from "../kernel/commands/catalog.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"

/** Where the books and the facts differ. Times are epoch milliseconds. */
export interface Discrepancy {
  readonly discrepancyId: string
  readonly kind: string
  readonly status: "OPEN" | "CLOSED" | "RESOLVED"
  readonly stockId: string | null
  readonly itemId: string | null
  readonly productVariantId: string | null
  readonly sku: string | null
  readonly orderId: string | null
  readonly detail: unknown
  readonly openedAt: number
  readonly closedAt: number | null
  readonly closedBy: string | null
  readonly reason: string | null
}

export class Discrepancies extends Context.Service<
  Discrepancies,
  {
    readonly resolve: (
      caller: Caller,
      command: Omit<ResolveDiscrepancy, "_tag">
    ) => Effect.Effect<Posted<ResolveDiscrepancy>, Refusal<ResolveDiscrepancy> | PostingFailure>
    /** Newest first. */
    readonly list: (
      merchantId: string,
      filter: {
        readonly status?: Discrepancy["status"] | undefined
        readonly kind?: string | undefined
        readonly productVariantId?: string | undefined
        readonly sku?: string | undefined
        readonly limit?: number | undefined
        readonly cursor?: string | undefined
      }
    ) => Effect.Effect<Page<Discrepancy>, InvalidCursor | DatabaseUnavailable>
  }
>()("holdfast/services/Discrepancies") {
  static readonly layer = Layer.effect(
    Discrepancies,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db
      const list: Discrepancies["Service"]["list"] = Effect.fn("Discrepancies.list")(
        function* (merchantId, filter) {
          const before = yield* positionOf(filter.cursor, ["uuid"])
          const limit = filter.limit ?? defaultLimit
          const { kind, productVariantId, sku, status } = filter
          const item = productVariantId ?? sku
          const statement =
            productVariantId !== undefined
              ? ofVariant
              : sku !== undefined
                ? ofSku
                : status !== undefined
                  ? withStatus
                  : ofMerchant
          const rows = yield* db.read<DiscrepancyRow>(merchantId, statement, [
            parameter("text", merchantId),
            parameter("uuid", before?.[0] ?? lastUuid),
            parameter("int4", limit + 1),
            parameter("text", kind ?? null),
            ...(item === undefined
              ? status === undefined
                ? []
                : [parameter("text", status)]
              : [parameter("text", item), parameter("text", status ?? null), parameter("text", sku ?? null)])
          ])
          return pageOf(rows, limit, discrepancy, (row) => [row.discrepancy_id])
        }
      )
      return Discrepancies.of({
        resolve: (caller, command) => ledger.post(caller, { ...command, _tag: "ResolveDiscrepancy" }),
        list
      })
    })
  )
}

/** No UUIDv7 comes after it. */
const lastUuid = "ffffffff-ffff-ffff-ffff-ffffffffffff"

const columns = `
  SELECT d.discrepancy_id, d.kind, d.status, d.stock_id, d.item_id, i.product_variant_id, i.sku, d.order_id, d.detail,
         d.opened_at, d.closed_at, d.closed_by, d.reason
  FROM discrepancy d`

const page = `
    AND d.merchant_id = $1
    AND d.discrepancy_id < $2
    AND ($4 IS NULL OR d.kind = $4)
  ORDER BY d.discrepancy_id DESC
  LIMIT $3`

const ofAnyItem = `${columns}
  LEFT JOIN item i ON i.merchant_id = d.merchant_id AND i.item_id = d.item_id`

// discrepancy_pkey, item_pkey; ids are UUIDv7, so that their order is that of opening
const ofMerchant = `${ofAnyItem}
  WHERE true ${page}`

// discrepancy_by_status, item_pkey
const withStatus = `${ofAnyItem}
  WHERE d.status = $5 ${page}`

const ofItem = (name: "product_variant_id" | "sku"): string => `${columns}
  JOIN item i ON i.merchant_id = d.merchant_id AND i.item_id = d.item_id
  WHERE i.merchant_id = $1
    AND i.${name} = $5
    AND ($6 IS NULL OR d.status = $6)
    AND ($7 IS NULL OR i.sku = $7) ${page}`
// item_merchant_id_product_variant_id_key, discrepancy_by_item
const ofVariant = ofItem("product_variant_id")
// item_merchant_id_sku_key, discrepancy_by_item
const ofSku = ofItem("sku")

interface DiscrepancyRow {
  readonly discrepancy_id: string
  readonly kind: string
  readonly status: Discrepancy["status"]
  readonly stock_id: string | null
  readonly item_id: string | null
  readonly product_variant_id: string | null
  readonly sku: string | null
  readonly order_id: string | null
  readonly detail: unknown
  readonly opened_at: number
  readonly closed_at: number | null
  readonly closed_by: string | null
  readonly reason: string | null
}

const discrepancy = (row: DiscrepancyRow): Discrepancy => ({
  discrepancyId: row.discrepancy_id,
  kind: row.kind,
  status: row.status,
  stockId: row.stock_id,
  itemId: row.item_id,
  productVariantId: row.product_variant_id,
  sku: row.sku,
  orderId: row.order_id,
  detail: row.detail,
  openedAt: row.opened_at,
  closedAt: row.closed_at,
  closedBy: row.closed_by,
  reason: row.reason
})
