import { Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import { Quantity } from "../../schema/Quantity.ts"
import { Movements } from "../../services/stock/Movements.ts"
import { printAdjusted } from "../adjusted.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, merchant, place, productVariantId, text } from "../options.ts"

export const receive = Command.make(
  "receive",
  {
    productVariantId,
    quantity: Argument.Int("quantity").pipe(Argument.withSchema(Quantity)),
    ...place,
    reference: text("reference", "The delivery: what comes under the same one is received once"),
    reason: text("reason", "Noted with the movement"),
    merchant,
    json
  },
  ({ expires, json, location, lot, merchant, productVariantId, quantity, reason, reference }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { adjust } = yield* Movements
        const { answer } = yield* adjust(caller, {
          changeType: "RECEIPT",
          item: { variantId: productVariantId },
          quantity,
          locationId: Option.getOrUndefined(location),
          lotNumber: Option.getOrUndefined(lot),
          lotExpiresAt: Option.getOrUndefined(expires),
          reference: Option.getOrUndefined(reference),
          reason: Option.getOrUndefined(reason)
        })
        yield* printAdjusted(answer, json)
      })
    )
).pipe(Command.withDescription("Receive goods: into the default location unless another is named"))
