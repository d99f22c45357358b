import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Count } from "../../schema/Quantity.ts"
import { ValidationFailed } from "../../schema/Validation.ts"
import { changeTypes, ReturnCondition } from "../../schema/Movement.ts"
import { Movements } from "../../services/stock/Movements.ts"
import { printAdjusted } from "../adjusted.ts"
import { forMerchant } from "../merchantCommand.ts"
import { count, id, json, merchant, place, productVariantId, text } from "../options.ts"

export const adjust = Command.make(
  "adjust",
  {
    productVariantId,
    changeType: Argument.Literals("type", changeTypes).pipe(
      Argument.withDescription("CORRECTION sets what one stock holds; the others move so much")
    ),
    quantity: Argument.Int("quantity").pipe(Argument.withSchema(Count)),
    ...place,
    order: id("order", "Of a SALE or RETURN: the order"),
    condition: Flag.Literals("condition", ReturnCondition.literals).pipe(
      Flag.withDescription("Of a RETURN: whether what comes back can be sold"),
      Flag.optional
    ),
    reference: text("reference", "What comes under the same one is applied once"),
    reason: text("reason", "Noted with the movement"),
    expectedVersion: count("expected-version", "Only if the stock has this version (see holdfast stock)"),
    merchant,
    json
  },
  (given) =>
    forMerchant(
      given.merchant,
      Effect.fnUntraced(function* (caller) {
        const { changeType, productVariantId, quantity } = given
        if (quantity === 0 && changeType !== "CORRECTION") {
          const message = "must be at least 1 (only a CORRECTION may count 0)"
          return yield* new ValidationFailed({ errors: [{ path: "quantity", message }] })
        }
        if (Option.isSome(given.condition) && changeType !== "RETURN") {
          const message = "is of a RETURN only"
          return yield* new ValidationFailed({ errors: [{ path: "condition", message }] })
        }
        const { adjust } = yield* Movements
        const { answer } = yield* adjust(caller, {
          changeType,
          item: { variantId: productVariantId },
          quantity,
          locationId: Option.getOrUndefined(given.location),
          lotNumber: Option.getOrUndefined(given.lot),
          lotExpiresAt: Option.getOrUndefined(given.expires),
          orderId: Option.getOrUndefined(given.order),
          condition: Option.getOrUndefined(given.condition),
          reference: Option.getOrUndefined(given.reference),
          reason: Option.getOrUndefined(given.reason),
          expectedVersion: Option.getOrUndefined(given.expectedVersion)
        })
        yield* printAdjusted(answer, given.json)
      })
    )
).pipe(Command.withDescription("Sell, take back, damage or correct stock"))
