import { Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../schema/Page.ts"
import type { Caller, Posted, PostingFailure, Refusal, ResolveDiscrepancy } from "../schema/Posting.ts"
import { Db } from "./Db.ts"
import { parameter } from "./PostgresTypes.ts"
import { StockLedger } from "./StockLedger.ts"

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
          const rows = yield* db.read<DiscrepancyRow>(merchantId, listStatement, [
            parameter("text", merchantId),
            parameter("text", filter.status ?? null),
            parameter("text", filter.kind ?? null),
            parameter("uuid", before?.[0] ?? null),
            parameter("int4", limit + 1)
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

// discrepancy_pkey; ids are UUIDv7, so that their order is that of opening
const listStatement = `
  SELECT d.discrepancy_id, d.kind, d.status, d.stock_id, d.item_id, i.product_variant_id, i.sku, d.order_id, d.detail,
         d.opened_at, d.closed_at, d.closed_by, d.reason
  FROM discrepancy d
  LEFT JOIN item i ON i.merchant_id = d.merchant_id AND i.item_id = d.item_id
  WHERE d.merchant_id = $1
    AND ($2 IS NULL OR d.status = $2)
    AND ($3 IS NULL OR d.kind = $3)
    AND ($4 IS NULL OR d.discrepancy_id < $4)
  ORDER BY d.discrepancy_id DESC
  LIMIT $5`

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
