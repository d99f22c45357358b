import { Effect, Result } from "effect"
import { ProductVariantRow, unavailableValue } from "../schema/ChangeRecord.ts"
import { Catalog, type CapturedVariant } from "../services/stock/Catalog.ts"
import type { Reason } from "../services/messaging/DeadLetters.ts"
import { captured } from "./CdcConsumer.ts"
import { isDiscontinued } from "./ProductVariantUpdated.ts"
import * as Reading from "../schema/MessageDecoding.ts"

/** The catalogue's own table: each row is an item, named by the row's id as text. */
export const capturedProductVariant = captured({
  topic: "nx.seller.public.product_variant",
  row: ProductVariantRow,
  change: (change, { headers }, defaults): Result.Result<CapturedVariant, Reason> => {
    if (change._tag === "Deleted") return Result.succeed(change)
    const { merchant_id, sku, status } = change.row
    return Result.map(
      Reading.oneMerchant([textOf(merchant_id), headers["x-merchant-id"]], defaults),
      (merchantId) => ({
        _tag: "Written",
        rowId: change.rowId,
        merchantId,
        sku: textOf(sku),
        discontinued: isDiscontinued(textOf(status))
      })
    )
  },
  handle: (origin, change) =>
    Effect.flatMap(Catalog, (catalog) => catalog.followCaptured(origin, change)).pipe(
      Effect.map((outcome) => (outcome === "UNKNOWN" ? "ignored" : "applied"))
    )
})

/** Undefined where the column says nothing. */
const textOf = (column: string | number | null | undefined): string | undefined =>
  column === undefined || column === null || column === "" || column === unavailableValue
    ? undefined
    : String(column)
