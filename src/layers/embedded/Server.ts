import { Effect, Random, Schedule } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import { createServer } from "node:net"
import * as path from "node:path"
import { type Account, environment, identity, run } from "./Account.ts"
import { type Binaries } from "./Binaries.ts"
import { type EmbeddedPostgresError, failure, onFiles } from "./Files.ts"
import { findBackends, readPostmaster, serves, signalTo, titleOf } from "./Processes.ts"
import { logTail } from "./ServerLog.ts"

/** One run of PostgreSQL over the cluster, from its port to its end and what outlives it. */

/** Everything that a server is started with, but for its port. */
export interface Plan {
  readonly account: Account
  readonly binaries: Binaries
  readonly clusterName: string
  readonly configuration: string
  readonly dataDirectory: string
  readonly log: string
  readonly wrapper: ReadonlyArray<string>
}

export interface Server {
  readonly pid: number
  readonly port: number
  readonly isRunning: Effect.Effect<boolean>
  /** Completes with the way it ended. */
  readonly ended: Effect.Effect<string>
}

/** Below every system's range of outgoing ports: a client that retries there could otherwise connect to itself. */
const portMin = 20_000
const portMax = 29_999
/** Recovery after a crash replays up to `max_wal_size`; an exit is seen at once, this bounds only a server that hangs. */
const readyBoundMs = 300_000
const readyPollMs = 10

/**
 * A fast shutdown ends the sessions and writes a checkpoint; then the less polite signals have their turn. Even a frozen
 * server is gone within ten seconds, which is what a service has before it is killed itself; recovery loses nothing.
 */
const shutdownSteps = [
  { signal: "SIGINT", boundMs: 5_000 },
  { signal: "SIGQUIT", boundMs: 2_000 },
  { signal: "SIGKILL", boundMs: 2_000 }
] as const
/** Backends leave by themselves when they see that their postmaster is gone; a busy one may not look for long. */
const leftoverSteps = [
  { signal: undefined, boundMs: 3_000 },
  { signal: "SIGQUIT", boundMs: 2_000 },
  { signal: "SIGKILL", boundMs: 2_000 }
] as const
const leftoverPollMs = 50
/** Nobody tells us when a server dies that is not our child. */
const adoptedPollMs = 250

/** The port, if nobody listens there. */
export const asFree = (port: number): Effect.Effect<number, EmbeddedPostgresError> =>
  Effect.callback((resume) => {
    const probe = createServer()
    probe.once("error", (error) =>
      resume(Effect.fail(failure("taken", `Port ${port} is taken: ${error.message}`)))
    )
    probe.listen({ host: "127.0.0.1", port, exclusive: true }, () =>
      probe.close(() => resume(Effect.succeed(port)))
    )
  })

export const freePort: Effect.Effect<number, EmbeddedPostgresError> = Effect.flatMap(
  Random.nextIntBetween(portMin, portMax),
  asFree
)

/** A command that ends what it starts when the service dies. */
export const findWrapper = Effect.suspend(() => {
  const wrapper = ["/usr/bin/setpriv", "--pdeathsig", "QUIT", "--"]
  return process.platform === "linux"
    ? Effect.map(run(wrapper[0] ?? "", [...wrapper.slice(1), "/bin/true"], undefined), ({ ok }) =>
        ok ? wrapper : []
      )
    : Effect.succeed([])
})

export const spawnServer = (plan: Plan, port: number, log: number): Server => {
  const postgres = path.join(plan.binaries.folder, "bin", "postgres")
  const [command = postgres, ...parameters] = [
    ...plan.wrapper,
    postgres,
    "-D",
    plan.dataDirectory,
    "-p",
    String(port)
  ]
  const child = spawn(command, parameters, {
    ...identity(plan.account),
    cwd: "/",
    env: environment,
    stdio: ["ignore", log, log],
    // A process group of its own: Ctrl-C must reach the service only, which stops the database last.
    detached: true
  })
  child.unref()
  let running = true
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message))
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`))
  }).finally(() => {
    running = false
  })
  return {
    pid: child.pid ?? 0,
    port,
    isRunning: Effect.sync(() => running),
    ended: Effect.promise(() => ended)
  }
}

/** A server that is not our child. */
export const strayServer = (pid: number, port: number, dataDirectory: string): Server => {
  const isRunning = serves(pid, dataDirectory)
  return {
    pid,
    port,
    isRunning,
    ended: isRunning.pipe(
      Effect.repeat({ while: (running) => running, schedule: Schedule.spaced(adoptedPollMs) }),
      Effect.as("gone")
    )
  }
}

export const awaitReady = (
  plan: Plan,
  server: Server,
  loggedBefore: number
): Effect.Effect<void, EmbeddedPostgresError> => {
  const failed = (how: string) =>
    Effect.flatMap(logTail(plan.log, loggedBefore), (tail) =>
      Effect.fail(
        failure("start", `The embedded PostgreSQL did not start (${how}). The end of ${plan.log}:\n${tail}`)
      )
    )
  const ready = readPostmaster(plan.dataDirectory).pipe(
    Effect.map((found) => found?.pid === server.pid && found.status === "ready"),
    Effect.orElseSucceed(() => false)
  )
  return Effect.raceFirst(
    Effect.flatMap(eventually(ready, readyPollMs, readyBoundMs), (isReady) =>
      isReady ? Effect.void : failed(`not ready after ${readyBoundMs / 1_000} s`)
    ),
    Effect.flatMap(server.ended, failed)
  )
}

/** Polite first, then less so; a process is looked at again before each signal, since ids are used again. */
export const stop = Effect.fnUntraced(function* (server: Server) {
  for (const { boundMs, signal } of shutdownSteps) {
    if (!(yield* server.isRunning) || server.pid === 0) return
    yield* signalTo(server.pid, signal)
    const ended = yield* server.ended.pipe(
      Effect.as(true),
      Effect.timeoutOrElse({ duration: boundMs, orElse: () => Effect.succeed(false) })
    )
    if (ended) return
    yield* Effect.logWarning(
      `The embedded PostgreSQL (pid ${server.pid}) did not stop ${boundMs / 1_000} s after ${signal}`
    )
  }
})

/**
 * After a death without goodbye: waits for backends that outlive their postmaster, and removes a pid file that only
 * *looks* alive. PostgreSQL refuses to start over it when its pid now is another process of the same account, which in
 * containers happens at every other restart, or a zombie that nobody has reaped.
 */
export const clearRemains = Effect.fnUntraced(function* (plan: Plan) {
  const found = yield* readPostmaster(plan.dataDirectory)
  const title = found === undefined ? undefined : yield* titleOf(found.pid)
  // When it may be a server all the same, PostgreSQL decides: it never starts beside a live one.
  if (title?.includes("postgres") === true) return
  for (const { boundMs, signal } of leftoverSteps) {
    const leftovers = yield* findBackends(plan.clusterName)
    if (leftovers.length === 0) break
    if (signal !== undefined) {
      yield* Effect.logWarning(
        `Sending ${signal} to backends that have outlived their postmaster: ${leftovers.join(", ")}`
      )
      yield* Effect.forEach(leftovers, (pid) => signalTo(pid, signal))
    }
    const none = Effect.map(findBackends(plan.clusterName), (backends) => backends.length === 0)
    yield* eventually(none, leftoverPollMs, boundMs)
  }
  if (title === undefined || (yield* findBackends(plan.clusterName)).length > 0) return
  yield* onFiles(`Cannot write to ${plan.dataDirectory}`, () =>
    fs.rm(path.join(plan.dataDirectory, "postmaster.pid"), { force: true })
  )
})

/** Polls until it holds; answers whether it did within the bound. */
const eventually = (
  condition: Effect.Effect<boolean>,
  everyMs: number,
  boundMs: number
): Effect.Effect<boolean> =>
  condition.pipe(
    Effect.repeat({ until: (holds) => holds, schedule: Schedule.spaced(everyMs) }),
    Effect.timeoutOrElse({ duration: boundMs, orElse: () => Effect.succeed(false) })
  )
