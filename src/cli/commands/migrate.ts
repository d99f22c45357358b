import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { migrate as applyMigrations } from "../../layers/Migrations.ts"
import { madeDatabase } from "../database.ts"

export const migrate = Command.make("migrate", {}, () =>
  Effect.gen(function* () {
    yield* applyMigrations(yield* madeDatabase(yield* Configuration.load))
    yield* Console.log("The database is up to date.")
  }).pipe(Effect.scoped)
).pipe(Command.withDescription("Bring the database up to date"))
