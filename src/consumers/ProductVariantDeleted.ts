import { Effect } from "effect"
import { ProductVariantDeleted } from "../schema/Message.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { consumer } from "./Consumer.ts"

/** Gone where nothing is in stock, discontinued where something is, remembered where it was never heard of. */
export const productVariantDeleted = consumer({
  topic: "product-variant.deleted",
  payload: ProductVariantDeleted,
  aggregate: ({ productVariantId }) => productVariantId,
  handle: (caller, { productVariantId }) =>
    Effect.flatMap(Catalog, (catalog) => catalog.deleteItem(caller, { productVariantId })).pipe(
      Effect.as("applied" as const)
    )
})
