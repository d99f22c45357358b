import { PgConnection } from "@effect/sql-pg"
import { Effect, type Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { type EmbeddedPostgresError, codeOf, failure, isRoot, messageOf, onFiles } from "./Files.ts"

/**
 * A copy of the embedded database that is taken while it works: PostgreSQL's own low-level backup, as pg_basebackup does
 * it, for whoever has only the server's binaries. What comes out is a data folder: HOLDFAST_DATA_DIR may name it.
 */

/** What the next server makes anew, or must not find. PostgreSQL's manual, "Backing Up the Data Directory". */
const emptied = new Set([
  "pg_wal",
  "pg_replslot",
  "pg_dynshmem",
  "pg_notify",
  "pg_serial",
  "pg_snapshots",
  "pg_stat_tmp",
  "pg_subtrans"
])
const leftOut = (name: string): boolean =>
  name === "postmaster.pid" ||
  name === "postmaster.opts" ||
  name === "backup_label" ||
  name === "tablespace_map" ||
  name === "pg_internal.init" ||
  name.startsWith("pgsql_tmp")
/** Where replay begins is said by the label; this file is copied last all the same, as pg_basebackup does. */
const control = path.join("global", "pg_control")

export interface Backup {
  readonly folder: string
  readonly bytes: number
}

/**
 * Copies the cluster (`cluster/data` and `cluster/password`) that is served at `url` into `target`, which must not exist;
 * it appears whole, with all that was committed before the call, or not at all.
 */
export const backUp = Effect.fn("EmbeddedPostgres.backUp")(function* (
  cluster: string,
  url: Redacted.Redacted<string>,
  target: string
) {
  const folder = path.resolve(target)
  const unfinished = `${folder}.unfinished-${randomBytes(4).toString("hex")}`
  const data = path.join(cluster, "data")
  const copy = path.join(unfinished, "postgres", "cluster", "data")
  if (yield* onFiles(`Cannot look at ${folder}`, () => there(folder))) {
    return yield* failure("folder", `${folder} is there already: name a folder that is not`)
  }
  yield* Effect.addFinalizer(() =>
    Effect.promise(() => fs.rm(unfinished, { recursive: true, force: true }).catch(() => undefined))
  )
  yield* onFiles(`Cannot write ${unfinished}`, async () => {
    await fs.mkdir(path.dirname(copy), { recursive: true })
    await ownedAs(data, copy, () => fs.mkdir(copy, { mode: 0o700 }))
    await copyFile(path.join(cluster, "password"), path.join(path.dirname(copy), "password"))
  })
  const connection = yield* PgConnection.make({ url, applicationName: "holdfast backup" }).pipe(refused)
  const ask = (statement: string, parameters: ReadonlyArray<unknown> = []) =>
    Effect.map(connection.queryValues(statement, parameters), ([row]) => row ?? []).pipe(refused)

  // The slot keeps the log until it is copied; being temporary, it goes with the connection.
  yield* ask("SELECT pg_create_physical_replication_slot($1, true, true)::text", [
    `holdfast_backup_${randomBytes(4).toString("hex")}`
  ])
  const [first] = yield* ask(
    "SELECT pg_walfile_name(pg_backup_start(label => 'holdfast backup', fast => true)) AS first"
  )
  let bytes = yield* onFiles(`Cannot copy ${data}`, () => copyTree(data, copy, ""))
  bytes += yield* onFiles(`Cannot copy ${data}`, () =>
    copyFile(path.join(data, control), path.join(copy, control))
  )
  const [last, label] = yield* ask(
    "SELECT pg_walfile_name(lsn), labelfile FROM pg_backup_stop(wait_for_archive => false)"
  )
  yield* onFiles(`Cannot write ${copy}`, async () => {
    const file = path.join(copy, "backup_label")
    await ownedAs(data, file, () => fs.writeFile(file, label as string, { mode: 0o600, flush: true }))
  })
  bytes += yield* copyLog(data, copy, first as string, last as string)
  yield* onFiles(`Cannot write ${folder}`, async () => {
    await fs.rename(unfinished, folder)
    await sync(path.dirname(folder))
  })
  return { folder, bytes } satisfies Backup
}, Effect.scoped)

const refused = <A, R>(effect: Effect.Effect<A, unknown, R>): Effect.Effect<A, EmbeddedPostgresError, R> =>
  Effect.mapError(effect, (cause) =>
    failure("connect", `The database refuses to be backed up: ${messageOf(cause)}`)
  )

const there = (file: string): Promise<boolean> =>
  fs.lstat(file).then(
    () => true,
    (cause: unknown) => {
      if (codeOf(cause) === "ENOENT") return false
      throw cause
    }
  )

/** The segments of the log from the first to the last that the copy needs to become whole, and timeline histories. */
const copyLog = Effect.fnUntraced(function* (data: string, copy: string, first: string, last: string) {
  const folder = path.join(data, "pg_wal")
  const [copied, bytes] = yield* onFiles(`Cannot copy ${folder}`, async () => {
    const names = (await fs.readdir(folder)).filter(
      // Beside the timeline, which they begin with, their names grow with the log.
      (name) =>
        name.endsWith(".history") ||
        (/^[0-9A-F]{24}$/.test(name) && name.slice(8) >= first.slice(8) && name.slice(8) <= last.slice(8))
    )
    let sum = 0
    for (const name of names) sum += await copyFile(path.join(folder, name), path.join(copy, "pg_wal", name))
    await sync(path.join(copy, "pg_wal"))
    return [new Set(names), sum] as const
  })
  if (copied.has(first) && copied.has(last)) return bytes
  return yield* failure("folder", `The log of ${data} was removed while it was copied: try again`)
})

/** Copies a folder's contents, what vanishes meanwhile left out: replaying the log makes it as it must be. */
const copyTree = async (source: string, target: string, below: string): Promise<number> => {
  let bytes = 0
  for (const entry of await fs.readdir(path.join(source, below), { withFileTypes: true })) {
    const name = path.join(below, entry.name)
    if (leftOut(entry.name) || name === control) continue
    try {
      if (entry.isDirectory()) {
        const made = path.join(target, name)
        await ownedAs(path.join(source, name), made, () => fs.mkdir(made, { mode: 0o700 }))
        if (name === path.join("pg_wal")) {
          for (const folder of ["archive_status", "summaries"]) {
            const part = path.join(made, folder)
            await ownedAs(path.join(source, name), part, () => fs.mkdir(part, { mode: 0o700 }))
          }
        }
        if (!emptied.has(name)) bytes += await copyTree(source, target, name)
      } else if (entry.isFile()) {
        bytes += await copyFile(path.join(source, name), path.join(target, name))
      }
    } catch (cause) {
      if (codeOf(cause) !== "ENOENT") throw cause
    }
  }
  await sync(path.join(target, below))
  return bytes
}

const copyFile = async (source: string, target: string): Promise<number> => {
  await ownedAs(source, target, () => fs.copyFile(source, target, constants.COPYFILE_FICLONE))
  const file = await fs.open(target, "r")
  try {
    await file.sync()
    return (await file.stat()).size
  } finally {
    await file.close()
  }
}

/** What root copies stays the database account's: PostgreSQL refuses what is not its own. */
const ownedAs = async (source: string, target: string, make: () => Promise<unknown>): Promise<void> => {
  await make()
  if (!isRoot) return
  const { gid, uid } = await fs.stat(source)
  await fs.chown(target, uid, gid)
}

const sync = async (folder: string): Promise<void> => {
  const opened = await fs.open(folder, "r")
  await opened.sync().finally(() => opened.close())
}
