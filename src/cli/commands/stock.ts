import { Console, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import * as Migrations from "../../layers/Migrations.ts"
import { OutsideId, Uuid } from "../../schema/Identifier.ts"
import { maxLimit } from "../../schema/Page.ts"
import {
  type Caller,
  type ItemStatus,
  itemStatuses,
  type MovementType,
  movementTypes
} from "../../schema/Posting.ts"
import { Quantity } from "../../schema/Quantity.ts"
import { Instant } from "../../schema/Time.ts"
import { Availability, type ItemThen, type StockView } from "../../services/stock/Availability.ts"
import { Catalog } from "../../services/stock/Catalog.ts"
import { type Movement, Movements } from "../../services/stock/Movements.ts"
import { Reservations } from "../../services/stock/Reservations.ts"
import { commandCaller } from "../caller.ts"
import { commandDatabase } from "../database.ts"
import { json, merchant, merchantOf } from "../options.ts"
import { foundation, operations } from "../service.ts"
import { type Column, momentOf, printRows } from "../Table.ts"

/** `holdfast stock`, `history`, `reserve`, `release`: looking into the books and promising from them, for a person. */

const productVariantId = Argument.String("product-variant-id").pipe(Argument.withSchema(OutsideId))
const orderId = Argument.String("order-id").pipe(Argument.withSchema(OutsideId))
const limit = (fallback: number) =>
  Flag.Int("limit").pipe(
    Flag.withDescription(`At most so many (${fallback})`),
    Flag.withSchema(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
    Flag.withDefault(fallback)
  )
const moment = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withSchema(Instant), Flag.optional)

/** A command does not migrate by itself: that is the service's business, or an operator's. */
export class DatabaseNotCurrent extends Schema.TaggedError<DatabaseNotCurrent>()("DatabaseNotCurrent", {
  lacking: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `the database lacks ${this.lacking.join(", ")}: holdfast migrate, or start the service, which does so`
  }
}

/** Runs beside a service, on the same database, for the merchant that was named. */
const forMerchant = <A, E>(
  given: Option.Option<string>,
  use: (caller: Caller) => Effect.Effect<A, E, Availability | Catalog | Movements | Reservations>
) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const merchantId = yield* merchantOf(given, settings)
    const url = yield* commandDatabase(settings)
    const { lacking } = yield* Migrations.compare(url)
    if (lacking.length > 0) return yield* new DatabaseNotCurrent({ lacking })
    return yield* Effect.provide(
      Effect.flatMap(commandCaller(merchantId, settings), use),
      operations.pipe(Layer.provideMerge(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

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
  if (json) return yield* Console.log(JSON.stringify(item))
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
  { title: "unallocatable", value: (row) => row.unallocatableQuantity },
  { title: "available", value: (row) => row.availableQuantity, colour: () => "bold" },
  { title: "version", value: (row) => row.version },
  { title: "stock", value: (row) => row.stockId }
]

const negative = (quantity: number) => (quantity < 0 ? "red" : undefined)

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
  { title: "unallocatable", value: (row) => row.unallocatableQuantity },
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

export const history = Command.make(
  "history",
  {
    productVariantId,
    stock: Flag.String("stock").pipe(
      Flag.withDescription("Only this stock, as holdfast stock names it"),
      Flag.withSchema(Uuid),
      Flag.optional
    ),
    from: moment("from", "Recorded then or later"),
    to: moment("to", "Recorded before then"),
    types: Flag.Literals("type", movementTypes).pipe(
      Flag.withDescription("Only movements of this type; may be given several times"),
      Flag.atLeast(0)
    ),
    limit: limit(50),
    merchant,
    json
  },
  ({ from, json, limit, merchant, productVariantId, stock, to, types }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        const movements = yield* Movements
        const found: Array<Movement> = []
        let cursor: string | null | undefined
        while (cursor !== null && found.length < limit) {
          const filter = {
            from: Option.getOrUndefined(from),
            to: Option.getOrUndefined(to),
            ...(types.length === 0 ? {} : { types: types as ReadonlyArray<MovementType> }),
            limit: Math.min(maxLimit, limit - found.length),
            cursor
          }
          const page = yield* Option.isSome(stock)
            ? movements.ofStock(merchantId, stock.value, filter)
            : movements.ofVariant(merchantId, productVariantId, filter)
          found.push(...page.data)
          cursor = page.nextCursor
        }
        yield* printRows(found, movementColumns, { json, empty: "Nothing has moved." })
        if (cursor !== null) yield* Console.error(`There are more than ${limit}: --limit, --from or --to.`)
      })
    )
).pipe(Command.withDescription("Show what moved, when, why and by whom, newest first"))

/** A change, with its sign; what did not change is left out. */
const delta = (quantity: number): string | null =>
  quantity === 0 ? null : quantity > 0 ? `+${quantity}` : String(quantity)

const movementColumns: ReadonlyArray<Column<Movement>> = [
  { title: "recorded", value: (row) => momentOf(row.recordedAt) },
  { title: "type", value: (row) => row.type },
  { title: "location", value: (row) => row.locationId },
  { title: "lot", value: (row) => row.lotNumber },
  { title: "on hand", value: (row) => delta(row.onHandDelta) },
  { title: "reserved", value: (row) => delta(row.reservedDelta) },
  { title: "unallocatable", value: (row) => delta(row.unallocatableDelta) },
  { title: "= on hand", value: (row) => row.onHand, colour: (row) => negative(row.onHand) },
  { title: "= reserved", value: (row) => row.reserved },
  { title: "order", value: (row) => row.orderId },
  { title: "actor", value: (row) => row.actor },
  { title: "source", value: (row) => row.source },
  { title: "reference", value: (row) => row.reference },
  { title: "reason", value: (row) => row.reason }
]

const isQuantity = Schema.is(Quantity)
const isOutsideId = Schema.is(OutsideId)

/** `<variant>=<quantity>`; a variant may have `=` in its own name. */
const wanted = Argument.String("variant=quantity").pipe(
  Argument.filterMap(
    (text) => {
      const at = text.lastIndexOf("=")
      const variantId = text.slice(0, Math.max(0, at))
      const quantity = /^\d+$/.test(text.slice(at + 1)) ? Number(text.slice(at + 1)) : 0
      return isOutsideId(variantId) && isQuantity(quantity)
        ? Option.some({ variantId, quantity })
        : Option.none()
    },
    (text) => `${JSON.stringify(text)} is not <variant>=<quantity>, such as espresso-cup=2`
  )
)

export const reserve = Command.make(
  "reserve",
  {
    orderId,
    items: wanted.pipe(Argument.withDescription("What, and how much of it"), Argument.variadic({ min: 1 })),
    expiresIn: Flag.Int("expires-in").pipe(
      Flag.withDescription("Seconds until it expires (1800)"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 604_800 }))),
      Flag.withDefault(1_800)
    ),
    location: Flag.String("location").pipe(
      Flag.withDescription("From this location and no other"),
      Flag.withSchema(OutsideId),
      Flag.optional
    ),
    merchant,
    json
  },
  ({ expiresIn, items, json, location, merchant, orderId }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { reserve } = yield* Reservations
        const { answer } = yield* reserve(caller, {
          orderId,
          kind: "ORDER",
          lines: items.map(({ quantity, variantId }) => ({ item: { variantId }, quantity })),
          expiresInSeconds: expiresIn,
          locationId: Option.getOrUndefined(location)
        })
        const { created, reservation } = answer
        if (json) return yield* Console.log(JSON.stringify({ created, ...reservation }))
        yield* printRows(
          reservation.lines,
          [
            { title: "variant", value: (line) => line.productVariantId },
            { title: "sku", value: (line) => line.sku },
            { title: "location", value: (line) => line.locationId },
            { title: "lot", value: (line) => line.lotNumber },
            { title: "quantity", value: (line) => line.quantity }
          ],
          { json, empty: "It holds nothing." }
        )
        const state =
          reservation.status === "PENDING"
            ? `until ${momentOf(reservation.expiresAt)}`
            : `and ${reservation.status} since`
        yield* Console.log(
          `${created ? "Reserved" : "Reserved already"} for order ${orderId} ${state}: reservation ${reservation.reservationId}`
        )
      })
    )
).pipe(Command.withDescription("Reserve stock for an order: all lines or none"))

export const release = Command.make("release", { orderId, merchant, json }, ({ json, merchant, orderId }) =>
  forMerchant(
    merchant,
    Effect.fnUntraced(function* (caller) {
      const { release } = yield* Reservations
      const { answer } = yield* release(caller, { orderId, reason: "RELEASED" })
      const { quantity, released } = answer
      if (json) return yield* Console.log(JSON.stringify({ orderId, released, quantity }))
      yield* Console.log(
        released ? `Released ${quantity} of order ${orderId}` : `Order ${orderId} holds nothing any more`
      )
    })
  )
).pipe(Command.withDescription("Give back what an order still holds"))
