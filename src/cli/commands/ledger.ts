import { Console, Effect, Layer, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { LedgerHistory } from "../../services/books/LedgerHistory.ts"
import { Partitions } from "../../services/Partitions.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation } from "../service.ts"
import { printRows } from "../Table.ts"

/** How far back the ledger reaches, and what it weighs. */

const withHistory = <A, E>(use: (history: LedgerHistory["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(LedgerHistory, use),
      LedgerHistory.layer.pipe(Layer.provide(Partitions.layer), Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

const Month = Schema.String.check(
  Schema.isPattern(/^[0-9]{4}-(0[1-9]|1[0-2])$/, { message: "must be a month, as 2026-01" })
)

const before = Flag.String("before").pipe(
  Flag.withDescription("The first month that stays, as 2026-01 (UTC)"),
  Flag.withSchema(Month)
)

const mebibytes = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10

export const ledger = Command.make("ledger").pipe(
  Command.withDescription("The months that the ledger holds, and detaching old ones"),
  Command.withSubcommands([
    Command.make("months", { json }, ({ json }) =>
      withHistory((history) =>
        Effect.flatMap(history.months, (months) =>
          printRows(
            months,
            [
              { title: "month", value: ({ from }) => new Date(from).toISOString().slice(0, 7) },
              { title: "table", value: ({ name }) => name },
              { title: "rows", value: ({ rows }) => rows },
              { title: "MiB", value: ({ bytes }) => mebibytes(bytes) },
              {
                title: "state",
                value: ({ attached }) => (attached ? "kept" : "detached"),
                colour: ({ attached }) => (attached ? undefined : "dim")
              }
            ],
            { json, empty: "Nothing was written yet." }
          )
        )
      )
    ).pipe(Command.withDescription("List the months; rows are PostgreSQL's estimate")),
    Command.make("detach", { before, json }, ({ before, json }) =>
      withHistory((history) =>
        Effect.gen(function* () {
          const months = yield* history.detach(Date.parse(`${before}-01T00:00:00Z`), "holdfast ledger detach")
          yield* printRows(
            months,
            [
              { title: "table", value: ({ name }) => name },
              { title: "closing balances", value: ({ closed }) => closed }
            ],
            { json, empty: `No month before ${before} is in the ledger.` }
          )
          if (json || months.length === 0) return
          yield* Console.log(
            "These tables are out of the ledger and still there. When they are backed up: DROP TABLE."
          )
        })
      )
    ).pipe(
      Command.withDescription(
        "Take the months before one out of the ledger, with a closing balance for each stock that moved in them"
      )
    )
  ])
)
