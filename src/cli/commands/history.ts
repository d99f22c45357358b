import { Console, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { maxLimit } from "../../schema/Page.ts"
import { type MovementType, movementTypes } from "../../schema/Movement.ts"
import { Availability } from "../../services/stock/Availability.ts"
import { type Movement, Movements } from "../../services/stock/Movements.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, limit, merchant, moment, productVariantId } from "../options.ts"
import { type Column, momentOf, negative, printRows } from "../Table.ts"

export const history = Command.make(
  "history",
  {
    productVariantId,
    stock: Flag.String("stock").pipe(
      Flag.withDescription("Only this stock, by its id or the end of it that holdfast stock shows"),
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
        const stockId = Option.isSome(stock)
          ? yield* stockOf(merchantId, productVariantId, stock.value)
          : undefined
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
          const page = yield* stockId === undefined
            ? movements.ofVariant(merchantId, productVariantId, filter)
            : movements.ofStock(merchantId, stockId, filter)
          found.push(...page.data)
          cursor = page.nextCursor
        }
        yield* printRows(found, movementColumns, { json, empty: "Nothing has moved." })
        if (cursor !== null) yield* Console.error(`There are more than ${limit}: --limit, --from or --to.`)
      })
    )
).pipe(Command.withDescription("Show what moved, when, why and by whom, newest first"))

/** No stock of the item has an id that ends so, or several have. */
export class StockUnclear extends Schema.TaggedError<StockUnclear>()("StockUnclear", {
  end: Schema.String,
  count: Schema.Int
}) {
  override get message(): string {
    return `${this.count === 0 ? "no stock of this item has an id that ends" : `${this.count} stocks of this item have ids that end`} in ${this.end}: holdfast stock shows them`
  }
}

/** The stock of an item whose id is, or ends in, the given text. */
const stockOf = Effect.fnUntraced(function* (merchantId: string, variantId: string, given: string) {
  const { stocks } = yield* Effect.flatMap(Availability, ({ ofVariant }) => ofVariant(merchantId, variantId))
  const end = given.replace(/^…/, "")
  const found = stocks.filter(({ stockId }) => stockId.endsWith(end))
  return found.length === 1 ? found[0]!.stockId : yield* new StockUnclear({ end: given, count: found.length })
})

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
