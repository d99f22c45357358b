import { PgConnection } from "@effect/sql-pg"
import { Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"
import { migrate } from "../src/layers/Migrations.ts"
import { movementsPerStock, seedBooks } from "./support/Books.ts"
import { freshDatabase, server } from "./support/Database.ts"
import { machineOf, writeReport } from "./support/Report.ts"
import { processorSecondsOf, service } from "./support/Service.ts"

/**
 * `npm run bench -- audit`: how long `holdfast audit` takes over a million movements, their reservations and events,
 * while reservations go on, and how much memory and processor time it needs. Nothing may be found.
 */
export const audit = Effect.fnUntraced(function* (options: { readonly quick: boolean }) {
  const items = options.quick ? 500 : 10_000
  const maintenance = yield* server
  const url = yield* freshDatabase(maintenance, "holdfast_bench_audit")
  yield* migrate(url)
  const began = performance.now()
  yield* seedBooks(url, items)
  const movements = items * movementsPerStock
  yield* say(`${movements} movements of ${items} stocks seeded in ${secondsSince(began)} s`)

  const alone = yield* audited(url)
  yield* say(`alone:                  ${line(alone)}`)
  const running = yield* service(url, undefined)
  const token = yield* Effect.promise(() => running.tokenOf("bench"))
  const load = yield* reserving(running.port, token, items)
  const beside = yield* audited(url)
  const reservedPerSecond = Math.round((yield* load.stop) / beside.seconds)
  yield* say(`beside reservations:    ${line(beside)}; ${reservedPerSecond} reservations/s meanwhile`)
  // What went on meanwhile is audited too.
  const after = yield* audited(url)
  yield* say(`after them:             ${line(after)}`)
  for (const { findings } of [alone, beside, after]) {
    if (findings.length > 0) return yield* Effect.die(new Error(`the audit found ${findings[0]}`))
  }
  if (!options.quick) {
    const report = {
      benchmark: "audit",
      date: new Date().toISOString(),
      machine: yield* machineOf(maintenance),
      alone,
      beside: { ...beside, reservedPerSecond },
      after
    }
    yield* writeReport(report)
  }
})

const connections = 8

const say = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))
const secondsSince = (began: number): string => ((performance.now() - began) / 1000).toFixed(1)

interface Audited {
  readonly seconds: number
  readonly holds: boolean
  readonly movements: number
  readonly events: number
  readonly memoryMiB: number
  /** Processor time of the process, and of its connections in PostgreSQL where that can be seen. */
  readonly processorSeconds: { readonly audit: number; readonly database: number }
  readonly load: number
  readonly findings: ReadonlyArray<string>
}
const line = ({ events, findings, holds, load, memoryMiB, movements, processorSeconds, seconds }: Audited) =>
  `${seconds.toFixed(1)} s for ${movements} movements and ${events} events, ${memoryMiB} MiB resident at most, ` +
  `${processorSeconds.audit.toFixed(1)} + ${processorSeconds.database.toFixed(1)} s of processors, ` +
  `${holds ? "holds" : `BROKEN ${findings.slice(0, 3).join(" ")}`} (load average ${load.toFixed(1)})`

/** The command as anybody runs it, as a process of its own. */
const audited = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const used = new Map<number, number>()
  // Its connections are gone with the audit: what is seen of them last is what they have used.
  const watch = Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url, applicationName: "holdfast bench" })
      for (;;) {
        const { rows } = yield* connection.query(connectionsStatement)
        for (const { pid } of rows as ReadonlyArray<{ readonly pid: number }>) {
          used.set(pid, yield* Effect.promise(() => processorSecondsOf(pid)))
        }
        yield* Effect.sleep("50 millis")
      }
    })
  )
  const { code, printed, told } = yield* Effect.raceFirst(command(url), watch)
  const lines = printed.trimEnd().split("\n")
  if (code !== 0 && code !== 1) return yield* Effect.die(new Error(`the audit ended with ${code}: ${told}`))
  const report = JSON.parse(lines.at(-1)!)
  const said = (what: string): number => Number(new RegExp(`${what} ([\\d.]+)`).exec(told)?.[1] ?? 0)
  return {
    seconds: report.durationMs / 1000,
    holds: report.holds,
    ...report.looked,
    memoryMiB: Math.round(said("peak") / 1024),
    processorSeconds: {
      audit: said("processor"),
      database: [...used.values()].reduce((sum, each) => sum + each, 0)
    },
    load: os.loadavg()[0]!,
    findings: lines.slice(0, -1)
  } as Audited
})

const connectionsStatement = `
  SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'holdfast survey'`

const command = (url: Redacted.Redacted<string>) =>
  Effect.promise(
    () =>
      new Promise<{ readonly code: number | null; readonly printed: string; readonly told: string }>(
        (resolve) => {
          const main = path.join(import.meta.dirname, "..", "bin", "holdfast.js")
          const child = spawn(
            process.execPath,
            ["--import", path.join(import.meta.dirname, "support", "resources.js"), main, "audit", "--json"],
            {
              env: { PATH: process.env["PATH"], DATABASE_URL: Redacted.value(url), HOLDFAST_DEV: "1" },
              stdio: ["ignore", "pipe", "pipe"]
            }
          )
          let printed = ""
          let told = ""
          child.stdout.setEncoding("utf8").on("data", (chunk: string) => (printed += chunk))
          child.stderr.setEncoding("utf8").on("data", (chunk: string) => (told += chunk))
          child.on("exit", (code) => resolve({ code, printed, told }))
        }
      )
  )

/** Reserves on a few connections until it is stopped. */
const reserving = (port: number, token: string, items: number) =>
  Effect.sync(() => {
    const running = { isStopped: false }
    let reserved = 0
    const one = async (connection: number): Promise<void> => {
      for (let n = 0; !running.isStopped; n++) {
        const variantId = `variant-${1 + Math.floor(Math.random() * items)}`
        const response = await fetch(`http://127.0.0.1:${port}/api/v1/inventory/reserve`, {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({
            orderId: `load-${connection}-${n}`,
            items: [{ variantId, quantity: 1 }]
          })
        })
        await response.arrayBuffer()
        if (response.status === 201) reserved += 1
      }
    }
    const all = Promise.all(Array.from({ length: connections }, (_, connection) => one(connection)))
    return {
      stop: Effect.promise(async () => {
        running.isStopped = true
        await all
        return reserved
      })
    }
  })
