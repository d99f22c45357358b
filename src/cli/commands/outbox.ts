import { Clock, Console, Effect, Layer } from "effect"
import { Argument, Command } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { Outbox } from "../../services/messaging/Outbox.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation, operations } from "../service.ts"
import { printRows } from "../Table.ts"

const eventIds = Argument.String("event-id").pipe(Argument.variadic({ min: 1 }))
const withOutbox = <A, E>(use: (outbox: Outbox["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(Outbox, use),
      operations.pipe(Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

export const outbox = Command.make("outbox").pipe(
  Command.withDescription("Events that the broker refused, and those that wait behind them"),
  Command.withSubcommands([
    Command.make("list", { json }, ({ json }) =>
      withOutbox((outbox) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          yield* printRows(
            yield* outbox.held,
            [
              {
                title: "state",
                value: ({ state }) => state,
                colour: ({ state }) => (state === "FAILED" ? "red" : undefined)
              },
              { title: "event", value: ({ eventId }) => eventId, id: "whole" },
              { title: "topic", value: ({ event }) => event.topic },
              { title: "type", value: ({ event }) => event.type },
              { title: "key", value: ({ key }) => key },
              { title: "age (s)", value: ({ event }) => Math.round((now - event.at) / 1000) },
              { title: "error", value: ({ error }) => error }
            ],
            { json, empty: "Nothing is held back." }
          )
        })
      )
    ).pipe(Command.withDescription("List them")),
    Command.make("requeue", { eventIds }, ({ eventIds }) =>
      withOutbox((outbox) =>
        Effect.flatMap(outbox.requeue(eventIds), (count) => Console.log(`${count} will be published again`))
      )
    ).pipe(Command.withDescription("Try FAILED events again, in the order of their keys")),
    Command.make("drop", { eventIds }, ({ eventIds }) =>
      withOutbox((outbox) =>
        Effect.flatMap(outbox.drop(eventIds), (count) => Console.log(`${count} dropped`))
      )
    ).pipe(Command.withDescription("Give FAILED events up, and let those behind them go on"))
  ])
)
