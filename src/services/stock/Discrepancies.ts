import { Context, Effect, Layer, identity } from "effect"
import { type DatabaseUnavailable, DiscrepancyNotFound } from "../../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { ResolveDiscrepancy } from "../kernel/commands/catalog.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ItemRow, items } from "../kernel/tables/catalog.ts"
import { type DiscrepancyRow, discrepancies } from "../kernel/tables/documents.ts"
import { StockLedger } from "../kernel/StockLedger.ts"

/** Where the books and the facts differ. Times are epoch milliseconds. */
export interface Discrepancy
  extends Omit<DiscrepancyRow, "merchantId" | "subject">, Pick<ItemRow, "productVariantId" | "sku"> {}

export class Discrepancies extends Context.Service<
  Discrepancies,
  {
    readonly resolve: (
      caller: Caller,
      command: Omit<ResolveDiscrepancy, "_tag">
    ) => Effect.Effect<Posted<ResolveDiscrepancy>, Refusal<ResolveDiscrepancy> | PostingFailure>
    readonly get: (
      merchantId: string,
      discrepancyId: string
    ) => Effect.Effect<Discrepancy, DiscrepancyNotFound | DatabaseUnavailable>
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
          const rows = yield* db.read<Discrepancy>(merchantId, statement, [
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
          return pageOf(rows, limit, identity, ({ discrepancyId }) => [discrepancyId])
        }
      )
      const get: Discrepancies["Service"]["get"] = Effect.fn("Discrepancies.get")(
        function* (merchantId, discrepancyId) {
          const [found] = yield* db.read<Discrepancy>(merchantId, byId, [
            parameter("text", merchantId),
            parameter("uuid", discrepancyId)
          ])
          return found ?? (yield* new DiscrepancyNotFound({ discrepancyId }))
        }
      )
      return Discrepancies.of({
        get,
        resolve: (caller, command) => ledger.post(caller, { ...command, _tag: "ResolveDiscrepancy" }),
        list
      })
    })
  )
}

/** No UUIDv7 comes after it. */
const lastUuid = "ffffffff-ffff-ffff-ffff-ffffffffffff"

const columns = `
  SELECT ${fieldsInSql(discrepancies, "d", ["discrepancyId", "kind", "status", "stockId", "itemId"])},
         ${fieldsInSql(items, "i", ["productVariantId", "sku"])},
         ${fieldsInSql(discrepancies, "d", ["orderId", "detail", "openedAt", "closedAt", "closedBy", "reason"])}
  FROM discrepancy d`

const page = `
    AND d.merchant_id = $1
    AND d.discrepancy_id < $2
    AND ($4 IS NULL OR d.kind = $4)
  ORDER BY d.discrepancy_id DESC
  LIMIT $3`

const ofAnyItem = `${columns}
  LEFT JOIN item i ON i.merchant_id = d.merchant_id AND i.item_id = d.item_id`

// discrepancy_pkey, item_pkey
const byId = `${ofAnyItem}
  WHERE d.merchant_id = $1 AND d.discrepancy_id = $2`

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
