import { Console, Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import * as EmbeddedPostgres from "../../layers/EmbeddedPostgres.ts"
import { commandDatabase } from "../database.ts"

export const backup = Command.make(
  "backup",
  { folder: Argument.String("folder").pipe(Argument.withDescription("Where to; it must not exist yet")) },
  ({ folder }) =>
    Effect.gen(function* () {
      const settings = yield* Configuration.load
      if (Option.isSome(settings.databaseUrl)) {
        return yield* Effect.fail(
          new Error("this is for the embedded database: back up DATABASE_URL with pg_basebackup or pg_dump")
        )
      }
      const url = yield* commandDatabase(settings)
      const made = yield* EmbeddedPostgres.backUp(settings.dataDirectory, url, folder)
      yield* Console.log(
        `${(made.bytes / 2 ** 20).toFixed(1)} MiB in ${made.folder}. To run it: HOLDFAST_DATA_DIR=${made.folder}`
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Copy the embedded database into a folder, while it works"))
