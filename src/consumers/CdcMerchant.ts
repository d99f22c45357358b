import { Effect, Result } from "effect"
import { MerchantRow } from "../schema/ChangeRecord.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import { cdcConsumer } from "./CdcConsumer.ts"

/** A merchant gets its default location as soon as its row exists. A deleted merchant keeps its stock records. */
export const cdcMerchant = cdcConsumer({
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
