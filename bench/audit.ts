import { Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"
import { migrate } from "../src/layers/Migrations.ts"
import { movementsPerStock, seedBooks } from "./support/Books.ts"
import { freshDatabase, server } from "./support/Database.ts"
import { service } from "./support/Service.ts"

/**
 * `npm run bench -- audit`: how long `holdfast audit` takes over a million movements, their reservations and events,
 * while reservations go on, and how much memory it needs. Nothing may be found.
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

  const quiet = yield* audited(url)
  yield* say(`alone:                  ${line(quiet)}`)
  const running = yield* service(url, undefined)
  const token = yield* Effect.promise(() => running.tokenOf("bench"))
  const load = yield* reserving(running.port, token, items)
  const busy = yield* audited(url)
  const reserved = yield* load.stop
  yield* say(
    `beside reservations:    ${line(busy)}; ${Math.round(reserved / busy.seconds)} reservations/s meanwhile`
  )
  // What went on meanwhile is audited too.
  yield* say(`after them:             ${line(yield* audited(url))}`)
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
  readonly load: number
  readonly findings: ReadonlyArray<string>
}
const line = ({ events, findings, holds, load, memoryMiB, movements, seconds }: Audited): string =>
  `${seconds.toFixed(1)} s for ${movements} movements and ${events} events, ${memoryMiB} MiB resident at most, ` +
  `${holds ? "holds" : `BROKEN ${findings.slice(0, 3).join(" ")}`} (load average ${load.toFixed(1)})`

/** The command as anybody runs it, as a process of its own. */
const audited = (url: Redacted.Redacted<string>) =>
  Effect.promise(
    () =>
      new Promise<Audited>((resolve, reject) => {
        const main = path.join(import.meta.dirname, "..", "src", "main.ts")
        const child = spawn(
          process.execPath,
          ["--import", path.join(import.meta.dirname, "support", "peakMemory.js"), main, "audit", "--json"],
          {
            env: { PATH: process.env["PATH"], DATABASE_URL: Redacted.value(url), HOLDFAST_DEV: "1" },
            stdio: ["ignore", "pipe", "pipe"]
          }
        )
        let printed = ""
        let told = ""
        child.stdout.setEncoding("utf8").on("data", (chunk: string) => (printed += chunk))
        child.stderr.setEncoding("utf8").on("data", (chunk: string) => (told += chunk))
        child.on("exit", (code) => {
          const lines = printed.trimEnd().split("\n")
          if (code !== 0 && code !== 1) return reject(new Error(`the audit ended with ${code}: ${told}`))
          const report = JSON.parse(lines.at(-1)!)
          resolve({
            seconds: report.durationMs / 1000,
            holds: report.holds,
            ...report.looked,
            memoryMiB: Math.round(Number(/peak (\d+)/.exec(told)?.[1] ?? 0) / 1024),
            load: os.loadavg()[0]!,
            findings: lines.slice(0, -1)
          })
        })
      })
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
