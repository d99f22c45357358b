import { Effect, Schedule } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { findAccount, findSystemFolder, passable } from "./Account.ts"
import {
  codeOf,
  exists,
  failure,
  giveToFolderOwner,
  isRoot,
  makeFolder,
  messageOf,
  onFiles,
  readOptional
} from "./Files.ts"

/** The folder that holds everything of the server: nobody else serves it, and PostgreSQL's account can pass to it. */

/** A service holds the folder for as long as it runs; a command while it starts the server, or stops it. */
export type Holder = "service" | "command"

/** As long as a first start may take; a command that ends a server takes less. */
const commandBound = "120 seconds"

/** Holds the folder as soon as no command does. */
export const hold = (folder: string, holder: Holder) =>
  Effect.retry(tryHold(folder, holder), {
    schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: commandBound })),
    while: ({ problem }) => problem === "busy"
  })

/**
 * Holds the folder against all others until the scope closes. SQLite's lock on a file is the operating system's: it
 * goes with the process however that dies, it is never taken over by mistake, and it holds between containers that
 * share the folder. Node offers no other.
 */
const tryHold = Effect.fnUntraced(function* (folder: string, holder: Holder) {
  const file = path.join(folder, "postgres.lock")
  const owner = `${file}.owner`
  // Made private first, since whoever can read it could hold it. Opening one that exists would be wrong: closing it
  // again gives up the lock that this very process may have.
  yield* onFiles(`Cannot write ${file}`, () =>
    fs.writeFile(file, "", { flag: "wx", mode: 0o600 }).then(
      () => giveToFolderOwner(file),
      (cause: unknown) => {
        if (codeOf(cause) !== "EEXIST") throw cause
      }
    )
  )
  const acquire = Effect.try({
    try: () => {
      const lock = new DatabaseSync(file, { timeout: 0 })
      try {
        lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        return lock
      } catch (cause) {
        lock.close()
        throw cause
      }
    },
    catch: (cause) =>
      cause instanceof Error && "errcode" in cause && cause.errcode === sqliteBusy
        ? failure("in_use", "")
        : failure(
            "folder",
            `Cannot lock ${file}: ${messageOf(cause)}. Run the service as its owner, or choose another HOLDFAST_DATA_DIR`
          )
  })
  yield* Effect.acquireRelease(acquire, (lock) =>
    Effect.ensuring(
      Effect.promise(() => fs.rm(owner, { force: true }).catch(() => undefined)),
      Effect.sync(() => lock.close())
    )
  ).pipe(
    Effect.catchIf(
      ({ problem }) => problem === "in_use",
      () =>
        Effect.flatMap(readOptional(owner), (text) => {
          // Services of earlier versions wrote their id alone.
          const [pid, held = pid && "service"] = text?.trim().split(" ") ?? []
          return Effect.fail(
            failure(
              // Who holds it has not written its name yet, or is taking it away.
              held === "service" ? "in_use" : "busy",
              `${folder} is already served by ${pid === undefined ? "another Holdfast process" : `the Holdfast ${held} with pid ${pid}`}: ` +
                "stop that one, or give this one another HOLDFAST_DATA_DIR"
            )
          )
        })
    )
  )
  yield* onFiles(`Cannot write ${owner}`, async () => {
    await fs.writeFile(owner, `${process.pid} ${holder}\n`)
    await giveToFolderOwner(owner)
  })
})
const sqliteBusy = 5

/**
 * Finds the folder that holds everything of the server, and the account that it runs under. PostgreSQL refuses root, and
 * another account cannot pass root's private folders: then a system folder is used, which a file in `dataDir` names.
 */
export const findHome = Effect.fnUntraced(function* (dataDir: string) {
  const pointer = path.join(dataDir, "postgres.home")
  const named = (yield* readOptional(pointer))?.trim()
  if (named !== undefined && !(yield* exists(named))) {
    return yield* failure(
      "folder",
      `The data are in ${named}, says ${pointer}, but that folder is not there: restore it, or delete ${pointer} to start empty`
    )
  }
  const home = named ?? (yield* makeFolder(path.join(dataDir, "postgres"), isRoot ? 0o755 : 0o700))
  const owner = yield* ownerOf(path.join(home, "cluster", "data"))
  const account = yield* findAccount(home, owner)
  if (account === undefined || (yield* passable(home, account))) return { account, home }
  if (owner !== undefined) {
    return yield* failure(
      "folder",
      `PostgreSQL runs as ${account.name}, which cannot pass to ${home}: make every folder above it passable (chmod o+x)`
    )
  }
  const moved = path.join(yield* findSystemFolder(account), `data-${randomBytes(6).toString("hex")}`)
  yield* makeFolder(moved, 0o755)
  yield* onFiles(`Cannot write ${pointer}`, async () => {
    await fs.writeFile(path.join(moved, "origin"), `${dataDir}\n`)
    await fs.writeFile(`${pointer}.new`, `${moved}\n`, { flush: true })
    await fs.rename(`${pointer}.new`, pointer)
    await fs.rmdir(home).catch(() => undefined)
  })
  yield* Effect.logInfo(
    `${account.name} cannot pass to ${dataDir}: the embedded PostgreSQL keeps its data in ${moved}`
  )
  return { account, home: moved }
})

const ownerOf = (folder: string): Effect.Effect<{ readonly uid: number; readonly gid: number } | undefined> =>
  Effect.promise(() => fs.stat(folder).catch(() => undefined))
