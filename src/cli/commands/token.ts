import { Console, Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import * as DevIssuerLayer from "../../layers/DevIssuer.ts"
import { DevIssuer } from "../../services/identity/Jwks.ts"
import { commandDatabase } from "../database.ts"
import { foundation } from "../service.ts"

export const token = Command.make(
  "token",
  {
    merchant: Flag.String("merchant").pipe(Flag.withDescription("The merchant"), Flag.withDefault("demo")),
    scope: Flag.String("scope").pipe(
      Flag.withDescription("Permissions, separated by spaces; without it, all of them"),
      Flag.optional
    )
  },
  ({ merchant, scope }) =>
    Effect.gen(function* () {
      const settings = yield* Configuration.load
      if (Option.isSome(settings.jwks)) {
        return yield* Effect.fail(
          new Error("tokens come from the issuer that JWKS_URL names, not from Holdfast")
        )
      }
      const url = yield* commandDatabase(settings)
      const issued = Effect.flatMap(DevIssuer, ({ issue }) =>
        issue({ merchantId: merchant, ...(Option.isSome(scope) ? { scope: scope.value } : {}) })
      )
      yield* Console.log(
        yield* Effect.provide(issued, DevIssuerLayer.layer.pipe(Layer.provide(foundation(settings, url))))
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Issue a development token"))
