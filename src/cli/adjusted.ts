import { Console, Effect } from "effect"
import type { Answers } from "../services/kernel/commands.ts"
import { printJson, printRows } from "./Table.ts"

/** What an adjustment of stock has made of it. */
export const printAdjusted = Effect.fnUntraced(function* (
  { applied, item, stocks }: Answers["AdjustStock"],
  json: boolean
) {
  if (json) return yield* printJson({ applied, ...item, stocks })
  if (!applied) yield* Console.log("It was applied before: nothing changed.")
  yield* printRows(
    stocks,
    [
      { title: "location", value: (row) => row.locationId },
      { title: "lot", value: (row) => row.lotNumber },
      { title: "on hand", value: (row) => row.quantity },
      { title: "reserved", value: (row) => row.reservedQuantity },
      { title: "unallocatable", value: (row) => row.unallocatableQuantity },
      { title: "version", value: (row) => row.version }
    ],
    { json, empty: "No stock has moved." }
  )
  const { availableQuantity, productVariantId, quantity, sku, status } = item
  yield* Console.log(
    `${productVariantId ?? sku} has ${quantity} in all, ${availableQuantity} available: ${status}`
  )
})
