import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { NewItemId } from "../../schema/Identifier.ts"
import { type ItemAnswer, itemStatuses } from "../../schema/Item.ts"
import { Catalog } from "../../services/stock/Catalog.ts"
import { forMerchant } from "../merchantCommand.ts"
import { count, id, json, limit, merchant, text } from "../options.ts"
import { rowsUpTo } from "../pages.ts"
import { type Column, printJson, printRows } from "../Table.ts"

/** `holdfast items`: what is stocked. `holdfast stock` shows how much of it there is. */

const columns: ReadonlyArray<Column<ItemAnswer>> = [
  { title: "variant", value: (row) => row.productVariantId },
  { title: "sku", value: (row) => row.sku },
  { title: "name", value: (row) => row.name },
  { title: "product", value: (row) => row.productId },
  { title: "stocked", value: (row) => (row.stocked ? "yes" : "made to order") },
  { title: "low at", value: (row) => row.lowStockThreshold },
  { title: "safety stock", value: (row) => row.safetyStock },
  { title: "tolerance", value: (row) => row.countTolerance },
  { title: "status", value: (row) => row.status }
]

const list = Command.make(
  "list",
  {
    search: Flag.String("search").pipe(Flag.withDescription("A part of id, sku or name"), Flag.optional),
    status: Flag.Literals("status", itemStatuses).pipe(
      Flag.withDescription("Items of this status"),
      Flag.optional
    ),
    limit: limit(200),
    merchant,
    json
  },
  ({ json, limit, merchant, search, status }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        const { items } = yield* Catalog
        const rows = yield* rowsUpTo(limit, "--limit or --search", (page) =>
          items(merchantId, {
            kind: "PRODUCT",
            search: Option.getOrUndefined(search),
            status: Option.getOrUndefined(status),
            ...page
          })
        )
        yield* printRows(rows, columns, { json, empty: "There are no items." })
      })
    )
).pipe(Command.withDescription("List them with what is set for them"))

const stocked = Flag.Literals("stocked", ["true", "false"]).pipe(
  Flag.withDescription("false: made to order, so that only its materials move"),
  Flag.optional
)

const set = Command.make(
  "set",
  {
    productVariantId: Argument.String("product-variant-id").pipe(Argument.withSchema(NewItemId)),
    sku: id("sku", "Its sku"),
    name: text("name", "Its name"),
    product: id("product", "The product that it is a variant of"),
    stocked,
    lowStockThreshold: count("low-stock-threshold", "LOW_STOCK when no more than this is available"),
    safetyStock: count("safety-stock", "What those who reorder keep in stock"),
    countTolerance: count("count-tolerance", "How far a count may differ without a discrepancy"),
    merchant,
    json
  },
  (given) =>
    forMerchant(
      given.merchant,
      Effect.fnUntraced(function* (caller) {
        const { ensureItem } = yield* Catalog
        const { answer } = yield* ensureItem(caller, {
          kind: "PRODUCT",
          productVariantId: given.productVariantId,
          sku: Option.getOrUndefined(given.sku),
          name: Option.getOrUndefined(given.name),
          productId: Option.getOrUndefined(given.product),
          stocked: Option.getOrUndefined(Option.map(given.stocked, (value) => value === "true")),
          lowStockThreshold: Option.getOrUndefined(given.lowStockThreshold),
          safetyStock: Option.getOrUndefined(given.safetyStock),
          countTolerance: Option.getOrUndefined(given.countTolerance)
        })
        const { created, item } = answer
        if (given.json) return yield* printJson({ created, ...item })
        yield* printRows([item], columns, { json: false, empty: "" })
        yield* Console.log(created ? "It is new." : "It was there.")
      })
    )
).pipe(Command.withDescription("Create an item, or set what is given of one: the rest stays as it is"))

export const items = Command.make("items").pipe(
  Command.withDescription("What is stocked"),
  Command.withSubcommands([list, set])
)
