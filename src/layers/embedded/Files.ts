import { Effect, Schema } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"

/** Files and folders, and the failure that says in words why they, or anything else here, cannot be used. */

/**
 * Why there is no embedded database; `reason` says it in words and names the remedy.
 * - `unsupported`: no binaries for this machine, or they do not run here;
 * - `in_use`: another service holds the folder; `busy`: a command does, for a moment;
 * - `folder`: the folder cannot be used as it is (missing, another owner, another version, not passable);
 * - `settings`: a setting that cannot be given;
 * - `taken`: other servers took the port or the directory in every one of our attempts;
 * - `initdb`, `start`, `connect`: that step failed.
 */
export class EmbeddedPostgresError extends Schema.TaggedError<EmbeddedPostgresError>()(
  "EmbeddedPostgresError",
  {
    problem: Schema.Literals([
      "unsupported",
      "in_use",
      "busy",
      "folder",
      "settings",
      "initdb",
      "taken",
      "start",
      "connect"
    ]),
    reason: Schema.String
  }
) {
  override get message(): string {
    return this.reason
  }
}

export const failure = (problem: EmbeddedPostgresError["problem"], reason: string): EmbeddedPostgresError =>
  new EmbeddedPostgresError({ problem, reason })

export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

export const codeOf = (cause: unknown): unknown =>
  cause instanceof Error && "code" in cause ? cause.code : undefined

export const isRoot = process.getuid?.() === 0

export const onFiles = <A>(what: string, use: () => Promise<A>): Effect.Effect<A, EmbeddedPostgresError> =>
  Effect.tryPromise({ try: use, catch: (cause) => failure("folder", withMend(what, cause)) })

const withMend = (what: string, cause: unknown): string => {
  const mend = ["EACCES", "EPERM", "EROFS", "ENOTDIR", "ENOENT", "EEXIST"].includes(String(codeOf(cause)))
    ? ". Run the service as the owner of that folder, or choose another HOLDFAST_DATA_DIR"
    : ""
  return `${what}: ${messageOf(cause)}${mend}`
}

/** What root makes in a user's folder stays usable for that user. */
export const giveToFolderOwner = async (file: string): Promise<void> => {
  if (!isRoot) return
  const { gid, uid } = await fs.stat(path.dirname(file))
  await fs.lchown(file, uid, gid)
}

export const readOptional = (file: string): Effect.Effect<string | undefined, EmbeddedPostgresError> =>
  onFiles(`Cannot read ${file}`, () =>
    fs.readFile(file, "utf8").catch((cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return undefined
      throw cause
    })
  )

export const exists = (file: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    fs.access(file).then(
      () => true,
      () => false
    )
  )

/**
 * Makes the folder unless it is there, with exactly this mode (root's umask may be 077); answers its real path. Folder by
 * folder: where nothing can be made, as below /proc, Node's own `recursive` tries for ever.
 */
export const makeFolder = (folder: string, mode: number): Effect.Effect<string, EmbeddedPostgresError> =>
  onFiles(`Cannot make ${folder}`, async () => {
    const missing: Array<string> = []
    for (let at = path.resolve(folder); !(await isThere(at)); at = path.dirname(at)) missing.unshift(at)
    for (const at of missing) {
      await fs.mkdir(at, { mode }).catch((cause: unknown) => {
        if (codeOf(cause) !== "EEXIST") throw cause // another process was faster
      })
    }
    if (missing.length > 0) await fs.chmod(folder, mode)
    return fs.realpath(folder)
  })

const isThere = (file: string): Promise<boolean> =>
  fs.stat(file).then(
    () => true,
    (cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return false
      throw cause
    }
  )
