import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, Logger } from "effect"
import { Command } from "effect/cli"
import { importFile } from "../../src/cli/commands/import.ts"
import { FailPoint } from "../../src/services/FailPoint.ts"
import { killAt } from "./failPoints.ts"

/**
 * `holdfast import`, but that it kills itself with SIGKILL when it passes a fail-point for the n-th time:
 * `node test/support/failingImport.ts <fail-point> <n> <file> …`.
 */
const [, , name = "", count, ...parameters] = process.argv

Command.runWith(importFile, { version: "0" })(parameters).pipe(
  Effect.provideService(FailPoint, killAt(name, Number(count))),
  Effect.provide([NodeServices.layer, Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])]),
  (main) => NodeRuntime.runMain(main)
)
