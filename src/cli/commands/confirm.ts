import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { Uuid } from "../../schema/Identifier.ts"
import { Reservations } from "../../services/stock/Reservations.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, merchant, orderId } from "../options.ts"
import { printJson } from "../Table.ts"

export const confirm = Command.make(
  "confirm",
  {
    orderId,
    reservation: Flag.String("reservation").pipe(
      Flag.withDescription("Only this reservation of the order"),
      Flag.withSchema(Uuid),
      Flag.optional
    ),
    merchant,
    json
  },
  ({ json, merchant, orderId, reservation }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { confirm } = yield* Reservations
        const { answer } = yield* confirm(caller, {
          orderId,
          reservationId: Option.getOrUndefined(reservation)
        })
        const { confirmed: applied, reservationId } = answer
        if (json) {
          return yield* printJson({ orderId, reservationId, confirmed: true, applied })
        }
        yield* Console.log(
          `Order ${orderId} ${applied ? "is" : "was"} confirmed${applied ? "" : " before"}: reservation ${reservationId}`
        )
      })
    )
).pipe(Command.withDescription("Sell what an order has reserved"))
