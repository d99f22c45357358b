import { Effect, Result } from "effect"
import { ProductVariantRow, unavailableValue } from "../schema/ChangeRecord.ts"
import { isDiscontinued } from "../schema/Message.ts"
import { type Decoded, resolveMerchant } from "../schema/MessageDecoding.ts"
import { Catalog, type VariantRowChange } from "../services/stock/Catalog.ts"
import { cdcConsumer } from "./CdcConsumer.ts"

/** The catalogue's table of product variants: each row is an item, whose id is the row's id as text. */
export const cdcProductVariant = cdcConsumer({
  topic: "nx.seller.public.product_variant",
  row: ProductVariantRow,
  change: (change, { headers }, defaults): Decoded<VariantRowChange> => {
    if (change._tag === "Deleted") return Result.succeed(change)
    const { merchant_id, sku, status } = change.row
    return Result.map(
      resolveMerchant([textOf(merchant_id), headers["x-merchant-id"]], defaults),
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
    Effect.flatMap(Catalog, (catalog) => catalog.applyRowChange(origin, change)).pipe(
      Effect.map((outcome) => (outcome === "UNKNOWN" ? "ignored" : "applied"))
    )
})

/** Undefined for a column that is missing, null, empty or not in the record. */
const textOf = (column: string | number | null | undefined): string | undefined =>
  column === undefined || column === null || column === "" || column === unavailableValue
    ? undefined
    : String(column)
