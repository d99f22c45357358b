import { Effect } from "effect"
import { ProductVariantCreated } from "../schema/Message.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { consumer } from "./Consumer.ts"

/** *ensureInventoryItem*, and its first stock once. A deletion that came before it is the later truth. */
export const productVariantCreated = consumer({
  topic: "product-variant.created",
  payload: ProductVariantCreated,
  aggregate: ({ productVariantId }) => productVariantId,
  handle: (caller, { initialStock, name, productId, productVariantId, sku }) =>
    Effect.flatMap(Catalog, (catalog) =>
      catalog.ensureItem(caller, {
        kind: "PRODUCT",
        productVariantId,
        sku: sku ?? undefined,
        productId: productId ?? undefined,
        name: name ?? undefined,
        initialStock: initialStock ?? undefined,
        keepsDeletion: true
      })
    ).pipe(Effect.map(({ answer }) => (answer.created ? "applied" : "repeated")))
})
