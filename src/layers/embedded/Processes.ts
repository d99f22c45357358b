import { Effect } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { run } from "./Account.ts"
import { type EmbeddedPostgresError, readOptional } from "./Files.ts"

/** The system's processes: who serves a directory, who belongs to it, and whether an id still means what it meant. */

interface Postmaster {
  readonly pid: number
  readonly port: number
  readonly status: string
}

/** PostgreSQL's own note of who serves the directory: pid, directory, start time, port, sockets, …, status. */
export const readPostmaster = (
  dataDirectory: string
): Effect.Effect<Postmaster | undefined, EmbeddedPostgresError> =>
  Effect.map(readOptional(path.join(dataDirectory, "postmaster.pid")), (text) => {
    const lines = text?.split("\n") ?? []
    const pid = Number(lines[0])
    return Number.isSafeInteger(pid) && pid > 0
      ? { pid, port: Number(lines[3] ?? 0), status: lines[7]?.trim() ?? "starting" }
      : undefined
  })

/** Whether that process is the server of that directory: ids are used again, so that being alive says nothing. */
export const serves = (pid: number, dataDirectory: string): Effect.Effect<boolean> =>
  Effect.map(
    titleOf(pid),
    (title) => title?.includes("postgres") === true && `${title} `.includes(`${dataDirectory} `)
  )

export const findBackends = (clusterName: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.map(titles, (found) =>
    found.filter(({ title }) => title.startsWith(`postgres: ${clusterName}: `)).map(({ pid }) => pid)
  )

/**
 * A process's command line or the title that it gave itself; empty for a zombie, undefined if there is none. On Linux
 * from /proc, where these are the lines that root may read of every account even without the right to trace.
 */
export const titleOf = (pid: number): Effect.Effect<string | undefined> =>
  process.platform === "linux"
    ? Effect.promise(() =>
        fs.readFile(`/proc/${pid}/cmdline`, "utf8").then(
          (line) => line.replaceAll("\0", " ").trim(),
          () => undefined
        )
      )
    : Effect.map(run("/bin/ps", ["-ww", "-p", String(pid), "-o", "command="], undefined), ({ ok, output }) =>
        ok ? output.trim() : undefined
      )

const titles: Effect.Effect<ReadonlyArray<{ readonly pid: number; readonly title: string }>> = Effect.suspend(
  () =>
    process.platform === "linux"
      ? Effect.flatMap(
          Effect.promise(() => fs.readdir("/proc")),
          (names) =>
            Effect.forEach(
              names.filter((name) => /^\d+$/.test(name)).map(Number),
              (pid) => Effect.map(titleOf(pid), (title) => ({ pid, title: title ?? "" })),
              { concurrency: 16 }
            )
        )
      : Effect.map(run("/bin/ps", ["-wwaxo", "pid=,command="], undefined), ({ output }) =>
          output.split("\n").map((line) => {
            const [, pid, title] = /^\s*(\d+)\s+(.*)$/.exec(line) ?? []
            return { pid: Number(pid ?? 0), title: title ?? "" }
          })
        )
)

export const signalTo = (pid: number, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.ignore(Effect.try(() => process.kill(pid, signal))) // it may be gone already
