import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OutsideId } from "../../schema/Identifier.ts"
import { Quantity } from "../../schema/Quantity.ts"
import { Reservations } from "../../services/stock/Reservations.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, merchant, orderId } from "../options.ts"
import { momentOf, printJson, printRows } from "../Table.ts"

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
        if (json) return yield* printJson({ created, ...reservation })
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
