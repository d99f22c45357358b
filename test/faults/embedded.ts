import { assert } from "@effect/vitest"
import { Effect, type Redacted } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import path from "node:path"
import { running } from "../../src/layers/EmbeddedPostgres.ts"
import { readPostmaster } from "../../src/layers/embedded/Processes.ts"
import { assertInvariants } from "../support/invariants.ts"
import { type Sql, connect } from "../support/ledger.ts"
import { removeFolder } from "../support/Postgres.ts"
import { type RunningService, eventually, startService } from "../support/service.ts"

/** The service with the PostgreSQL that it starts itself, and what can happen to that one. */

export interface EmbeddedService {
  readonly service: RunningService
  readonly url: Redacted.Redacted<string>
  /** A connection of the test's, opened after the fault: the fault ends those before it. */
  readonly connect: Effect.Effect<Sql, never, import("effect").Scope.Scope>
  /** A signal to the server's main process. */
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Every process of the server stands still until `thaw`. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

/** Ends with the invariants, and with a service that stops by itself, its database with it. */
export const withEmbeddedService = <A, E>(
  environment: Readonly<Record<string, string>>,
  use: (embedded: EmbeddedService) => Effect.Effect<A, E, import("effect").Scope.Scope>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const dataDir = yield* Effect.acquireRelease(Effect.sync(makeFolder), (folder) =>
        Effect.andThen(
          Effect.flatMap(postmasterOf(folder), (pid) =>
            Effect.sync(() => {
              if (pid !== undefined) signalAll([pid, ...childrenOf(pid)], "SIGKILL")
            })
          ),
          Effect.promise(() => removeFolder(folder))
        )
      )
      const service = yield* startService(undefined, { HOLDFAST_DATA_DIR: dataDir, ...environment })
      const url = (yield* Effect.orDie(running(dataDir)))!
      let frozen: ReadonlyArray<number> = []
      const thaw = Effect.sync(() => {
        signalAll(frozen.toReversed(), "SIGCONT")
        frozen = []
      })
      yield* Effect.addFinalizer(() => thaw)
      const result = yield* use({
        service,
        url,
        connect: connect(url),
        signal: (signal) =>
          Effect.map(postmasterOf(dataDir), (pid) => {
            process.kill(pid!, signal)
          }),
        freeze: Effect.gen(function* () {
          const pid = (yield* postmasterOf(dataDir))!
          // The one that makes the others first.
          process.kill(pid, "SIGSTOP")
          yield* eventually(
            Effect.sync(() => stateOf(pid)),
            (state) => state === "T"
          )
          frozen = [pid, ...childrenOf(pid)]
          signalAll(frozen, "SIGSTOP")
          assert.isAbove(frozen.length, 5)
        }),
        thaw
      })
      yield* assertInvariants(url)
      yield* service.kill("SIGTERM")
      assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null }, service.stderr())
      assert.isUndefined(yield* Effect.orDie(running(dataDir)))
      return result
    })
  )

const makeFolder = (): string => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `holdfast-test-${process.pid}-`))
  // Run as root, PostgreSQL has another account, which must get in.
  fs.chmodSync(folder, 0o755)
  return folder
}

const postmasterOf = (dataDir: string) =>
  Effect.gen(function* () {
    const named = path.join(dataDir, "postgres.home")
    const home = fs.existsSync(named) ? fs.readFileSync(named, "utf8").trim() : path.join(dataDir, "postgres")
    return (yield* Effect.orDie(readPostmaster(path.join(home, "cluster", "data"))))?.pid
  })

/** The fields of /proc/<pid>/stat after the name, which may hold anything. */
const statOf = (pid: number): ReadonlyArray<string> => {
  try {
    return fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ")
  } catch {
    return [] // gone
  }
}
const stateOf = (pid: number) => statOf(pid)[0]
const childrenOf = (parent: number): ReadonlyArray<number> =>
  fs
    .readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && statOf(pid)[1] === String(parent))

const signalAll = (pids: ReadonlyArray<number>, signal: NodeJS.Signals): void => {
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch {
      // It has ended meanwhile.
    }
  }
}
