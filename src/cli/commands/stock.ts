import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { maxLimit } from "../../schema/Page.ts"
import { type ItemStatus, itemStatuses } from "../../schema/Item.ts"
import { Availability, type ItemThen, type StockView } from "../../services/stock/Availability.ts"
import { Catalog } from "../../services/stock/Catalog.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, limit, merchant, moment, productVariantId } from "../options.ts"
import { type Column, momentOf, negative, printJson, printRows } from "../Table.ts"

export const stock = Command.make(
  "stock",
  {
    productVariantId: productVariantId.pipe(
      Argument.withDescription("By location and lot; without it, all items"),
      Argument.optional
    ),
    at: moment("at", "As it was recorded at this time, such as 2030-01-31T12:00:00Z"),
    search: Flag.String("search").pipe(
      Flag.withDescription("Of the list: a part of id, sku or name"),
      Flag.optional
    ),
    status: Flag.Literals("status", itemStatuses).pipe(
      Flag.withDescription("Of the list: items of this status"),
      Flag.optional
    ),
    limit: limit(200),
    merchant,
    json
  },
  ({ at, json, limit, merchant, productVariantId, search, status }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        if (Option.isSome(productVariantId)) {
          return yield* showItem(merchantId, productVariantId.value, Option.getOrUndefined(at), json)
        }
        const { hasMore, items } = yield* itemsOf(merchantId, {
          search: Option.getOrUndefined(search),
          status: Option.getOrUndefined(status),
          at: Option.getOrUndefined(at),
          limit
        })
        yield* printRows(items, Option.isSome(at) ? figures : [...figures, statusColumn], {
          json,
          empty: "Nothing is stocked."
        })
        if (hasMore) yield* Console.error(`There are more than ${limit}: --limit or --search.`)
      })
    )
).pipe(Command.withDescription("Show what is in stock, now or at a time"))

/** One item in full: a row for each stock, and their sum. */
const showItem = Effect.fnUntraced(function* (
  merchantId: string,
  variantId: string,
  at: number | undefined,
  json: boolean
) {
  const availability = yield* Availability
  const item = yield* at === undefined
    ? availability.ofVariant(merchantId, variantId)
    : availability.ofVariantAt(merchantId, variantId, at)
  if (json) return yield* printJson(item)
  const names = [
    item.productVariantId,
    ...(item.sku === null ? [] : [`sku ${item.sku}`]),
    ...("status" in item ? [item.status] : [`at ${momentOf(at!)}`]),
    ...(item.stocked ? [] : ["made to order"])
  ]
  yield* Console.log(names.join(", "))
  const total = {
    ...item,
    locationId: "total",
    lotNumber: null,
    expiresAt: null,
    stockId: null,
    version: null
  }
  yield* printRows<StockLine>(item.stocks.length > 1 ? [...item.stocks, total] : item.stocks, stockColumns, {
    json,
    empty: "There is no stock of it."
  })
})

type StockLine = Omit<StockView, "stockId" | "version"> & {
  readonly stockId: string | null
  readonly version: number | null
}

const stockColumns: ReadonlyArray<Column<StockLine>> = [
  { title: "location", value: (row) => row.locationId },
  { title: "lot", value: (row) => row.lotNumber },
  { title: "expires", value: (row) => momentOf(row.expiresAt) },
  { title: "on hand", value: (row) => row.quantity, colour: (row) => negative(row.quantity) },
  { title: "reserved", value: (row) => row.reservedQuantity },
  { title: "unallocatable", value: (row) => row.unallocatableQuantity, zeroIsNothing: true },
  { title: "available", value: (row) => row.availableQuantity, colour: () => "bold" },
  { title: "version", value: (row) => row.version },
  { title: "stock", value: (row) => row.stockId, id: "shortened" }
]

interface ItemLine extends Pick<
  ItemThen,
  | "itemId"
  | "productVariantId"
  | "sku"
  | "quantity"
  | "reservedQuantity"
  | "unallocatableQuantity"
  | "availableQuantity"
> {
  readonly name: string | null
  readonly status?: ItemStatus
}

/** The items, page by page, with their figures of now or of then. Those that came later are left out. */
const itemsOf = Effect.fnUntraced(function* (
  merchantId: string,
  {
    at,
    limit,
    ...filter
  }: {
    readonly search: string | undefined
    readonly status: ItemStatus | undefined
    readonly at: number | undefined
    readonly limit: number
  }
) {
  const catalog = yield* Catalog
  const availability = yield* Availability
  const items: Array<ItemLine> = []
  let cursor: string | null | undefined
  while (cursor !== null && items.length <= limit) {
    const page = yield* catalog.items(merchantId, { ...filter, kind: "PRODUCT", limit: maxLimit, cursor })
    cursor = page.nextCursor
    if (at === undefined) {
      items.push(...page.data)
      continue
    }
    const ids = page.data.map(({ itemId }) => itemId)
    const then = yield* availability.ofItemsAt(merchantId, ids, at)
    for (const { createdAt, itemId, name } of page.data) {
      const { itemId: _, stocked: __, stocks: ___, ...line } = then.get(itemId)!
      if (createdAt <= at) items.push({ itemId, ...line, name })
    }
  }
  return { items: items.slice(0, limit), hasMore: items.length > limit }
})

const figures: ReadonlyArray<Column<ItemLine>> = [
  { title: "variant", value: (row) => row.productVariantId },
  { title: "sku", value: (row) => row.sku },
  { title: "name", value: (row) => row.name },
  { title: "on hand", value: (row) => row.quantity, colour: (row) => negative(row.quantity) },
  { title: "reserved", value: (row) => row.reservedQuantity },
  { title: "unallocatable", value: (row) => row.unallocatableQuantity, zeroIsNothing: true },
  { title: "available", value: (row) => row.availableQuantity, colour: () => "bold" }
]
const statusColumn: Column<ItemLine> = {
  title: "status",
  value: (row) => row.status,
  colour: ({ status }) =>
    status === "OUT_OF_STOCK"
      ? "red"
      : status === "LOW_STOCK"
        ? "yellow"
        : status === "IN_STOCK"
          ? "green"
          : "dim"
}
