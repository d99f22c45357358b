import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import { type EmbeddedPostgresError, failure, isRoot, makeFolder, onFiles, readOptional } from "./Files.ts"

/** The account that PostgreSQL runs under, which must not be root: which one it is, what it runs and where it can go. */

/** Another account than the service's own, which is what `undefined` stands for. */
export type Account = { readonly name: string; readonly uid: number; readonly gid: number } | undefined

/** initdb takes one second; on a slow disk, syncing its files takes most of it. */
const commandBoundMs = 120_000
/** Where data and binaries go that root's own folders would hide; both survive a restart of the machine. */
const systemFolders = ["/var/lib/holdfast", "/var/tmp/holdfast"]

export const findAccount = Effect.fnUntraced(function* (
  home: string,
  owner: { readonly uid: number; readonly gid: number } | undefined
): Effect.fn.Return<Account, EmbeddedPostgresError> {
  if (!isRoot) {
    const own = process.getuid?.()
    if (owner === undefined || owner.uid === own) return undefined
    return yield* failure(
      "folder",
      `${home} belongs to uid ${owner.uid}, this service runs as uid ${own}: run it as that user or as root, ` +
        "or choose another HOLDFAST_DATA_DIR"
    )
  }
  if (owner?.uid === 0) {
    return yield* failure(
      "folder",
      `${home}/cluster/data belongs to root, which PostgreSQL refuses: chown -R nobody it`
    )
  }
  // Data that a user has made stay that user's.
  if (owner !== undefined) return { name: `uid ${owner.uid}`, uid: owner.uid, gid: owner.gid }
  // initdb wants an account that has a name, and this one exists everywhere.
  const accounts = (yield* readOptional("/etc/passwd")) ?? ""
  const [, uid, gid] = /^nobody:[^:]*:(-?\d+):(-?\d+):/m.exec(accounts) ?? ["", "65534", "65534"]
  return { name: "nobody", uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }
})

/** Nothing of the service's environment reaches PostgreSQL: PGOPTIONS and its like would change what it does. */
export const environment = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" }

// Node takes ids as signed numbers: macOS has an account -2.
export const identity = (account: Account) =>
  account === undefined ? {} : { uid: account.uid | 0, gid: account.gid | 0 }

interface Outcome {
  readonly ok: boolean
  readonly output: string
  readonly errors: string
}

/** Runs a command to its end. The working directory is one that every account can pass. */
export const run = (
  command: string,
  parameters: ReadonlyArray<string>,
  account: Account
): Effect.Effect<Outcome> =>
  Effect.callback((resume) => {
    const child = execFile(
      command,
      [...parameters],
      { ...identity(account), cwd: "/", env: environment, timeout: commandBoundMs, killSignal: "SIGKILL" },
      (error, output, errors) =>
        resume(
          Effect.succeed({
            ok: error === null,
            output,
            errors: errors === "" && error !== null ? error.message : errors
          })
        )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

export const passable = (folder: string, account: Account): Effect.Effect<boolean> =>
  Effect.map(run("/bin/sh", ["-c", 'cd -- "$1"', "sh", folder], account), ({ ok }) => ok)

/** A folder of root's that nobody else can write to, so that what lies there can be trusted. */
export const findSystemFolder = Effect.fnUntraced(function* (account: Account) {
  for (const folder of systemFolders) {
    const trusted = yield* makeFolder(folder, 0o755).pipe(
      Effect.andThen(onFiles("", () => fs.lstat(folder))),
      Effect.map((found) => found.isDirectory() && found.uid === 0 && (found.mode & 0o022) === 0),
      Effect.catch(() => Effect.succeed(false))
    )
    if (trusted && (yield* passable(folder, account))) return folder
  }
  return yield* failure(
    "folder",
    `PostgreSQL does not run as root, and neither the data folder nor ${systemFolders.join(" nor ")} can be used by ` +
      "another account: choose a HOLDFAST_DATA_DIR outside of private folders, or set DATABASE_URL"
  )
})
