import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Exit, Logger, Option, type Runtime } from "effect"
import { Command } from "effect/cli"
import { createRequire } from "node:module"
import { adjust } from "./cli/commands/adjust.ts"
import { audit } from "./cli/commands/audit.ts"
import { backup } from "./cli/commands/backup.ts"
import { confirm } from "./cli/commands/confirm.ts"
import { discrepancies } from "./cli/commands/discrepancies.ts"
import { dlq } from "./cli/commands/dlq.ts"
import { doctor } from "./cli/commands/doctor.ts"
import { exportFile } from "./cli/commands/export.ts"
import { groups } from "./cli/commands/groups.ts"
import { history } from "./cli/commands/history.ts"
import { importFile } from "./cli/commands/import.ts"
import { items } from "./cli/commands/items.ts"
import { ledger } from "./cli/commands/ledger.ts"
import { locations } from "./cli/commands/locations.ts"
import { migrate } from "./cli/commands/migrate.ts"
import { outbox } from "./cli/commands/outbox.ts"
import { publish } from "./cli/commands/publish.ts"
import { receive } from "./cli/commands/receive.ts"
import { release } from "./cli/commands/release.ts"
import { reservations } from "./cli/commands/reservations.ts"
import { reserve } from "./cli/commands/reserve.ts"
import { serve } from "./cli/commands/serve.ts"
import { stock } from "./cli/commands/stock.ts"
import { tail } from "./cli/commands/tail.ts"
import { token } from "./cli/commands/token.ts"
import { topics } from "./cli/commands/topics.ts"
import { linesOf } from "./cli/failures.ts"
import { presenter, usageCode } from "./cli/usage.ts"

// Outside of what is compiled: the same file beside src and beside dist.
const { version } = createRequire(import.meta.url)("../package.json") as { readonly version: string }

const holdfast = Command.make("holdfast").pipe(
  Command.withDescription("The inventory service that never oversells"),
  Command.withSubcommands([
    serve,
    migrate,
    doctor,
    token,
    stock,
    history,
    items,
    locations,
    receive,
    adjust,
    reserve,
    confirm,
    release,
    reservations,
    discrepancies,
    publish,
    tail,
    topics,
    groups,
    outbox,
    dlq,
    importFile,
    exportFile,
    audit,
    ledger,
    backup
  ])
)

/**
 * 0 when it did what it was asked or was told to stop, 2 when the command line is wrong; otherwise what the failure says
 * of itself, or 1.
 */
const teardown: Runtime.Teardown = (exit, onExit) =>
  onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : exitCodeOf(exit.cause))

const exitCodeOf = (cause: Cause.Cause<unknown>): number => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  const misuse = usageCode(failure)
  if (misuse !== undefined) return misuse
  return typeof failure === "object" && failure !== null && "exitCode" in failure
    ? Number(failure.exitCode)
    : 1
}

Command.run(holdfast, { version }).pipe(
  Effect.tapCause((cause) =>
    Effect.forEach(linesOf(cause), (line) => Console.error(`holdfast: ${line}`), { discard: true })
  ),
  // What a command prints is its answer, which a program may read: what it logs goes beside it.
  Effect.provide([
    NodeServices.layer,
    presenter,
    Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])
  ]),
  (main) => NodeRuntime.runMain(main, { disableErrorReporting: true, teardown })
)
