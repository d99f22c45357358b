import { Effect, Option, Schema } from "effect"
import { Argument, Flag } from "effect/cli"
import type * as Configuration from "../layers/Configuration.ts"
import { OutsideId, Text } from "../schema/Identifier.ts"
import { Count } from "../schema/Quantity.ts"
import { DayOrInstant, Instant } from "../schema/Time.ts"

/** Arguments and flags that commands share. */

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

/** The merchant of a command: the named one, else the default one. */
export const merchantOf = (
  given: Option.Option<string>,
  settings: Configuration.Settings
): Effect.Effect<string, MerchantMissing> =>
  Option.match(
    Option.orElse(given, () => settings.defaultMerchantId),
    { onNone: () => Effect.fail(new MerchantMissing()), onSome: Effect.succeed }
  )

export const productVariantId = Argument.String("product-variant-id").pipe(Argument.withSchema(OutsideId))
export const orderId = Argument.String("order-id").pipe(Argument.withSchema(OutsideId))
export const limit = (fallback: number) =>
  Flag.Int("limit").pipe(
    Flag.withDescription(`At most so many (${fallback})`),
    Flag.withSchema(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
    Flag.withDefault(fallback)
  )
const optional = <A>(name: string, description: string, schema: Schema.Codec<A, string>) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withSchema(schema), Flag.optional)
export const id = (name: string, description: string) => optional(name, description, OutsideId)
export const text = (name: string, description: string) => optional(name, description, Text)
/** Where a stock is, and in which lot. */
export const place = {
  location: id("location", "At this location"),
  lot: id("lot", "Of this lot"),
  expires: optional(
    "expires",
    "When the lot expires: 2030-01-31 (good through that day) or a time",
    DayOrInstant
  )
}
export const count = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.withSchema(Count), Flag.optional)

export const moment = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withSchema(Instant), Flag.optional)
