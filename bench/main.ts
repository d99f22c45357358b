import { Cause, Effect, Exit, type Runtime } from "effect"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { parseArgs } from "node:util"
import { audit } from "./audit.ts"
import { edge } from "./edge.ts"
import { history } from "./history.ts"
import { kafka } from "./kafka.ts"
import { outbox } from "./outbox.ts"
import { reserve } from "./reserve.ts"
import { streams } from "./streams.ts"

/** `npm run bench -- <benchmark>`: what is started is ended again, however the run ends (docs/performance.md). */

const benchmarks = { reserve, edge, outbox, history, streams, kafka, audit }

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    profile: { type: "string" }
  }
})
const name = positionals[0] ?? ""

const usage = `
  npm run bench -- <benchmark> [options]

  Benchmarks: ${Object.keys(benchmarks).join(", ")}
  --quick           fewer and shorter rounds; nothing is written to bench/results
  --only a,b        only these measurements; nothing is written to bench/results
  --profile FOLDER  writes a CPU profile of the service there

  BENCH_DATABASE_URL: a PostgreSQL 18 to use, with the right to create databases. Unset: an embedded one is started.
`

/** 0 when it ran to its end, 1 otherwise; a benchmark that was stopped did not. */
const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause))
    process.stderr.write(Cause.pretty(exit.cause) + "\n")
  onExit(Exit.isSuccess(exit) ? 0 : 1)
}

if (!Object.hasOwn(benchmarks, name)) {
  process.stderr.write(usage)
  process.exitCode = 1
} else {
  const options = {
    quick: values.quick,
    only: values.only === undefined ? undefined : new Set(values.only.split(",")),
    profile: values.profile
  }
  NodeRuntime.runMain(Effect.scoped(benchmarks[name as keyof typeof benchmarks](options)), {
    disableErrorReporting: true,
    teardown
  })
}
