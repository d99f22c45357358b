import { Effect, type Redacted } from "effect"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { execute } from "./Database.ts"

/** The machine that a benchmark ran on, as its result tells it. */
export const machineOf = Effect.fnUntraced(function* (database: Redacted.Redacted<string>) {
  const [version] = yield* execute(database, "SHOW server_version")
  return {
    cores: os.availableParallelism(),
    model: os.cpus()[0]?.model,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    node: process.version,
    postgresql: version!["server_version"]
  }
})

/** Writes `bench/results/<benchmark>.json`. */
export const writeReport = (report: { readonly benchmark: string }): Effect.Effect<void> =>
  Effect.promise(async () => {
    const file = path.join(import.meta.dirname, "..", "results", `${report.benchmark}.json`)
    await fs.mkdir(path.dirname(file), { recursive: true })
    await fs.writeFile(file, JSON.stringify(report, null, 2) + "\n")
  })
