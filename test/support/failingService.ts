import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Logger } from "effect"
import { writeSync } from "node:fs"
import { program } from "../../src/cli/serve.ts"
import { FailPoint } from "../../src/services/FailPoint.ts"

/**
 * The real service, but that it kills itself with SIGKILL when it passes a fail-point for the n-th time:
 * `node test/support/failingService.ts <fail-point> <n>`.
 */
const [, , name, count] = process.argv
let passes = 0

const killAtLast = Effect.fnUntraced(function* (passed: string) {
  if (passed !== name || ++passes < Number(count)) return
  writeSync(2, `killed at ${passed}\n`)
  process.kill(process.pid, "SIGKILL")
  // Whatever the signal still leaves time for does not happen.
  yield* Effect.never
})

program.pipe(
  Effect.provideService(FailPoint, killAtLast),
  Effect.provide([NodeServices.layer, Logger.layer([Logger.consoleLogFmt])]),
  NodeRuntime.runMain
)
