import { Effect } from "effect"
import { writeSync } from "node:fs"
import type { FailPoint } from "../../src/services/FailPoint.ts"

/** A fail-point at which the process kills itself with SIGKILL when it passes it for the n-th time. */
export const killAt = (name: string, count: number): typeof FailPoint.Service => {
  let passes = 0
  return Effect.fnUntraced(function* (passed: string) {
    if (passed !== name || ++passes < count) return
    writeSync(2, `killed at ${passed}\n`)
    process.kill(process.pid, "SIGKILL")
    // Whatever the signal still leaves time for does not happen.
    yield* Effect.never
  })
}
