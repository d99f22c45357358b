import { Console, Effect, Layer } from "effect"
import { Argument, Command } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { ConsumerGroups } from "../../services/messaging/ConsumerGroups.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation } from "../service.ts"
import { momentOf, printRows } from "../Table.ts"

const withGroups = <A, E>(use: (groups: ConsumerGroups["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(ConsumerGroups, use),
      ConsumerGroups.layer.pipe(Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

export const groups = Command.make("groups").pipe(
  Command.withDescription("Consumer groups of the broker in PostgreSQL, and how far behind they are"),
  Command.withSubcommands([
    Command.make("list", { json }, ({ json }) =>
      withGroups((groups) =>
        Effect.flatMap(groups.list, (rows) =>
          printRows(
            rows,
            [
              { title: "group", value: ({ group }) => group },
              { title: "members", value: ({ members }) => members },
              { title: "behind", value: ({ behind }) => behind },
              { title: "oldest", value: ({ oldestAt }) => momentOf(oldestAt) },
              { title: "committed", value: ({ committedAt }) => momentOf(committedAt) }
            ],
            { json, empty: "There are no consumer groups." }
          )
        )
      )
    ).pipe(Command.withDescription("List them")),
    Command.make("forget", { group: Argument.String("group") }, ({ group }) =>
      withGroups((groups) =>
        Effect.flatMap(groups.forget(group), (forgotten) =>
          forgotten
            ? Console.log(`${group} is forgotten`)
            : Effect.fail(new Error(`there is no group ${group} without members`))
        )
      )
    ).pipe(Command.withDescription("Forget one without members, so that it pins messages no longer"))
  ])
)
