import { execFile, spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { type Script, pgbenchText } from "./Script.ts"

/** Clients that speak SQL, without a service in between: pgbench, or our own where it is not installed. */
export interface Clients {
  readonly name: string
  /** Transactions per second, with prepared statements. */
  readonly run: (options: {
    readonly databaseUrl: string
    readonly script: Script
    readonly clients: number
    readonly seconds: number
  }) => Promise<number>
}

export const findClients = async (): Promise<Clients> => {
  try {
    const { stdout } = await promisify(execFile)("pgbench", ["--version"])
    return pgbench(stdout.trim())
  } catch {
    return plain
  }
}

/** Ids that one run gives away are not another's. Each process has databases of its own. */
let runs = 0

const pgbench = (version: string): Clients => ({
  name: version,
  run: async ({ clients, databaseUrl, script, seconds }) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-bench-script-"))
    try {
      const file = path.join(folder, "script.sql")
      await fs.writeFile(file, pgbenchText(script))
      runs += 1
      const { stdout } = await promisify(execFile)("pgbench", [
        "--no-vacuum",
        "--protocol=prepared",
        `--client=${clients}`,
        `--jobs=${Math.min(clients, 2)}`,
        `--time=${seconds}`,
        `--file=${file}`,
        `--define=run=${runs}`,
        "--define=n=0",
        databaseUrl
      ])
      const tps = /^tps = ([\d.]+)/m.exec(stdout)?.[1]
      if (tps === undefined) throw new Error(`pgbench printed no rate:\n${stdout}`)
      return Number(tps)
    } finally {
      await fs.rm(folder, { recursive: true, force: true })
    }
  }
})

const plain: Clients = {
  name: "plain SQL on @effect/sql-pg connections (pgbench is not installed)",
  run: async ({ clients, databaseUrl, script, seconds }) => {
    runs += 1
    const options = JSON.stringify({ clients, databaseUrl, script, seconds, run: runs })
    const file = path.join(import.meta.dirname, "plainClients.ts")
    return Number(
      await output(spawn(process.execPath, [file], { stdio: ["pipe", "pipe", "inherit"] }), options)
    )
  }
}

/** What a child prints until it ends; one that fails is a failure here. */
export const output = (child: ReturnType<typeof spawn>, input = ""): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = ""
    child.stdout!.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
    child.on("error", reject)
    child.on("close", (code) =>
      code === 0
        ? resolve(text)
        : reject(new Error(`${child.spawnargs.slice(0, 2).join(" ")} ended with ${code}`))
    )
    child.stdin?.end(input)
  })
