import { Effect } from "effect"
import { ProductVariantUpdated } from "../schema/Message.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { consumer } from "./Consumer.ts"

/** Whether a variant may be sold. What else changed about it is no concern of the books. */
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

/** The words by which catalogues say that a variant is not sold any more. */
const endings: ReadonlySet<string> = new Set(["ARCHIVED", "DELETED", "DISCONTINUED", "RETIRED"])

/** Undefined where the message says nothing about it. A variant that may not be ordered may not be reserved either. */
export const isDiscontinued = (status?: string, isOrderable?: boolean): boolean | undefined =>
  status === undefined && isOrderable === undefined
    ? undefined
    : isOrderable === false || (status !== undefined && endings.has(status.trim().toUpperCase()))
