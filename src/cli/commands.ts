import { Console, Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Configuration from "../layers/Configuration.ts"
import { migrate as applyMigrations } from "../layers/Migrations.ts"
import { DevIssuer } from "../services/Jwks.ts"
import { commandDatabase } from "./database.ts"
import { devIssuer, foundation } from "./service.ts"

/** Commands for a person at a terminal. They work beside a running service, on the same database. */

export const migrate = Command.make("migrate", {}, () =>
  Effect.gen(function* () {
    yield* applyMigrations(yield* commandDatabase(yield* Configuration.load))
    yield* Console.log("The database is up to date.")
  }).pipe(Effect.scoped)
).pipe(Command.withDescription("Bring the database up to date"))

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
        yield* Effect.provide(issued, devIssuer.pipe(Layer.provide(foundation(settings, url))))
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Issue a development token"))
