import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Logger } from "effect"
import { program } from "../../src/cli/commands/serve.ts"
import { FailPoint } from "../../src/services/FailPoint.ts"
import { killAt } from "./failPoints.ts"

/**
 * The real service, but that it kills itself with SIGKILL when it passes a fail-point for the n-th time:
 * `node test/support/failingService.ts <fail-point> <n>`.
 */
const [, , name = "", count] = process.argv

program.pipe(
  Effect.provideService(FailPoint, killAt(name, Number(count))),
  Effect.provide([NodeServices.layer, Logger.layer([Logger.consoleLogFmt])]),
  NodeRuntime.runMain
)
