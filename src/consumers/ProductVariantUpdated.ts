import { Effect } from "effect"
import { ProductVariantUpdated, isDiscontinued } from "../schema/Message.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { consumer } from "./Consumer.ts"

/** Whether a variant may be sold. Other changes of a variant do not concern stock. */
export const productVariantUpdated = consumer({
  topic: "product-variant.updated",
  payload: ProductVariantUpdated,
  aggregate: ({ productVariantId }) => productVariantId,
  handle: (caller, { isOrderable, productVariantId, status }) =>
    Effect.flatMap(Catalog, (catalog) =>
      catalog.ensureItem(caller, {
        kind: "PRODUCT",
        productVariantId,
        discontinued: isDiscontinued(status ?? undefined, isOrderable ?? undefined),
        keepsDeletion: true
      })
    ).pipe(Effect.as("applied" as const))
})
