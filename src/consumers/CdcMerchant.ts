import { Effect, Result } from "effect"
import { MerchantRow } from "../schema/ChangeRecord.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { captured } from "./CdcConsumer.ts"

/** A merchant has its default location from the start. One that is deleted keeps its books. */
export const capturedMerchant = captured({
  topic: "nx.seller.public.merchant",
  row: MerchantRow,
  change: (change) => Result.succeed(change._tag === "Deleted" ? undefined : change.rowId),
  handle: (origin, merchantId) =>
    merchantId === undefined
      ? Effect.succeed("ignored" as const)
      : Effect.flatMap(Catalog, (catalog) => catalog.ensureMerchant({ ...origin, merchantId })).pipe(
          Effect.map(({ answer }) => (answer.created ? "applied" : "repeated"))
        )
})
