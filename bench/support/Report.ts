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
    postgresql: version!["server_version"],
    loadAverage: os.loadavg()[2]
  }
})

/** A figure beside its target. */
export interface Figure {
  readonly name: string
  readonly what: string
  readonly measured: number
  readonly target: number
  readonly met: boolean
}
export const atLeast = (name: string, what: string, measured: number, target: number): Figure => ({
  name,
  what,
  measured,
  target,
  met: measured >= target
})
export const below = (name: string, what: string, measured: number, target: number): Figure => ({
  name,
  what,
  measured,
  target,
  met: measured < target
})

/** The figures of a run that were measured, and what it ran on. */
export const printFigures = (figures: ReadonlyArray<Figure>, startedAt: number): void => {
  for (const { measured, met, target, what } of figures) {
    if (Number.isNaN(measured)) continue
    process.stdout.write(
      `  ${what.padEnd(52)}${String(measured).padStart(10)}   ${target} ${met ? "met" : "missed"}\n`
    )
  }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0)
  process.stdout.write(
    `  ${seconds} s on ${os.availableParallelism()} cores, load ${os.loadavg()[0]!.toFixed(1)}\n`
  )
}

/** Writes `bench/results/<benchmark>.json`. */
export const writeReport = (
  report: Readonly<Record<string, unknown>> & { readonly benchmark: string }
): Effect.Effect<void> =>
  Effect.promise(async () => {
    const file = path.join(import.meta.dirname, "..", "results", `${report.benchmark}.json`)
    await fs.mkdir(path.dirname(file), { recursive: true })
    await fs.writeFile(file, JSON.stringify(report, null, 2) + "\n")
  })
