import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import { Reservations } from "../../services/stock/Reservations.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, merchant, orderId } from "../options.ts"
import { printJson } from "../Table.ts"

export const release = Command.make("release", { orderId, merchant, json }, ({ json, merchant, orderId }) =>
  forMerchant(
    merchant,
    Effect.fnUntraced(function* (caller) {
      const { release } = yield* Reservations
      const { answer } = yield* release(caller, { orderId, reason: "RELEASED" })
      const { quantity, released } = answer
      if (json) return yield* printJson({ orderId, released, quantity })
      yield* Console.log(
        released ? `Released ${quantity} of order ${orderId}` : `Order ${orderId} holds nothing any more`
      )
    })
  )
).pipe(Command.withDescription("Give back what an order still holds"))
