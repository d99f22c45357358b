import { Effect, Redacted, type Scope } from "effect"
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import type { Readable } from "node:stream"
import { execute } from "./Database.ts"

/** The real program, as a process of its own, on a database that is migrated already. */
export interface Service {
  readonly port: number
  readonly tokenOf: (merchantId: string) => Promise<string>
  /** A sample of /metrics by its name, summed over its labels. */
  readonly metric: (name: string) => Promise<number>
  /** Processor seconds that the service has used, and its connections in PostgreSQL; 0 where they cannot be seen. */
  readonly processorSeconds: () => Promise<{ readonly service: number; readonly database: number }>
}

/** Linux counts in hundredths of a second (CLK_TCK), in the 14th and 15th field. */
export const processorSecondsOf = async (pid: number): Promise<number> => {
  const stat = await fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100
}

const startTimeoutMs = 30_000
const endTimeoutMs = 15_000

/** Starts the program; SIGTERM ends it, so that it says goodbye to its database and writes its profile. */
export const startProgram = (
  databaseUrl: Redacted.Redacted<string>,
  options: {
    readonly profileFolder: string | undefined
    readonly roles?: string
    readonly environment?: Readonly<Record<string, string>> | undefined
  }
): ChildProcessByStdio<null, Readable, null> => {
  const main = path.join(import.meta.dirname, "..", "..", "src", "main.ts")
  const profiling =
    options.profileFolder === undefined
      ? []
      : ["--cpu-prof", `--cpu-prof-dir=${path.resolve(options.profileFolder)}`]
  return spawn(process.execPath, [...profiling, main, "serve"], {
    env: {
      PATH: process.env["PATH"],
      HOST: "127.0.0.1",
      PORT: "0",
      ROLES: options.roles ?? "all",
      DATABASE_URL: Redacted.value(databaseUrl),
      HOLDFAST_DEV: "1",
      ...options.environment
    },
    stdio: ["ignore", "pipe", "inherit"]
  })
}

export const endProgram = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    const timer = setTimeout(() => child.kill("SIGKILL"), endTimeoutMs)
    child.on("exit", () => {
      clearTimeout(timer)
      resolve()
    })
    child.kill("SIGTERM")
  })

export const service = (
  databaseUrl: Redacted.Redacted<string>,
  profileFolder: string | undefined,
  roles = "all"
): Effect.Effect<Service, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = startProgram(databaseUrl, { profileFolder, roles })
      const port = await new Promise<number>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("the service does not start")), startTimeoutMs)
        let printed = ""
        child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
          printed += chunk
          const found = /listens on http:\/\/[^\s:]+:(\d+)/.exec(printed)?.[1]
          if (found === undefined) return
          clearTimeout(timer)
          resolve(Number(found))
        })
        child.on("exit", (code) => reject(new Error(`the service ended with ${code}:\n${printed}`)))
      })
      return { child, port }
    }),
    ({ child }) => Effect.promise(() => endProgram(child))
  ).pipe(
    Effect.map(({ child, port }) => {
      const base = `http://127.0.0.1:${port}`
      return {
        port,
        tokenOf: async (merchantId) => {
          const response = await fetch(`${base}/dev/token`, {
            method: "POST",
            body: JSON.stringify({ merchantId })
          })
          return ((await response.json()) as { readonly token: string }).token
        },
        metric: async (name) => {
          let sum = 0
          for (const line of (await (await fetch(`${base}/metrics`)).text()).split("\n")) {
            if (line.startsWith(`${name} `) || line.startsWith(`${name}{`))
              sum += Number(line.split(" ").at(-1))
          }
          return sum
        },
        processorSeconds: async () => {
          const rows = await Effect.runPromise(
            execute(databaseUrl, "SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
          )
          const spent = await Promise.all(rows.map(({ pid }) => processorSecondsOf(Number(pid))))
          return {
            service: await processorSecondsOf(child.pid!),
            database: spent.reduce((sum, each) => sum + each, 0)
          }
        }
      }
    })
  )
