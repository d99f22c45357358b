import { Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import type * as Configuration from "../layers/Configuration.ts"
import { OutsideId } from "../schema/Identifier.ts"

/** Flags that commands share. */

export const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Print JSON, one value a line"),
  Flag.withDefault(false)
)

export const merchant = Flag.String("merchant").pipe(
  Flag.withDescription("The merchant; without it, DEFAULT_MERCHANT_ID"),
  Flag.withSchema(OutsideId),
  Flag.optional
)

/** No merchant was named, and there is no default one. */
export class MerchantMissing extends Schema.TaggedError<MerchantMissing>()("MerchantMissing", {}) {
  override get message(): string {
    return "whose stock? Name the merchant with --merchant, or set DEFAULT_MERCHANT_ID"
  }
}

/** The merchant that a command is about: the one it names, else the default one. */
export const merchantOf = (
  given: Option.Option<string>,
  settings: Configuration.Settings
): Effect.Effect<string, MerchantMissing> =>
  Option.match(
    Option.orElse(given, () => settings.defaultMerchantId),
    { onNone: () => Effect.fail(new MerchantMissing()), onSome: Effect.succeed }
  )
