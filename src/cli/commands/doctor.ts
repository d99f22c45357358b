import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Clock, Console, Effect, Layer, Option, Redacted, Result, Schema } from "effect"
import { Command } from "effect/cli"
import { HttpClient } from "effect/http"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import * as Configuration from "../../layers/Configuration.ts"
import * as EmbeddedPostgres from "../../layers/EmbeddedPostgres.ts"
import * as Migrations from "../../layers/Migrations.ts"
import * as Postgres from "../../layers/Postgres.ts"
import { ConsumerGroups } from "../../services/messaging/ConsumerGroups.ts"
import { Doctor, type Finding, ok, warning, wrong } from "../../services/Doctor.ts"
import { Partitions } from "../../services/Partitions.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation } from "../service.ts"
import { type Colour, paint } from "../Table.ts"

/** The printed findings include some that keep Holdfast from working. */
export class MustBeMended extends Schema.TaggedError<MustBeMended>()("MustBeMended", { count: Schema.Int }) {
  override get message(): string {
    return `${this.count} must be mended`
  }
}

export const doctor = Command.make("doctor", { json }, ({ json }) =>
  Effect.gen(function* () {
    const findings = yield* diagnosis
    yield* json
      ? Effect.forEach(findings, (finding) => Console.log(JSON.stringify(finding)), { discard: true })
      : printFindings(findings)
    const count = findings.filter(({ level }) => level === "WRONG").length
    if (count > 0) return yield* new MustBeMended({ count })
  })
).pipe(
  Command.withDescription(
    "Look over configuration, database, broker and clocks, and name the remedy for each finding"
  )
)

/** Each step needs the one before it; after a failed step the later ones are left out. */
export const diagnosis = Effect.gen(function* () {
  const findings: Array<Finding> = [
    ok("node", `Node.js ${process.version}`),
    ...unknownVariables(process.env)
  ]
  const loaded = yield* Effect.result(Configuration.load)
  if (Result.isFailure(loaded)) {
    return [
      ...findings,
      ...loaded.failure.problems.map((problem) =>
        wrong("configuration", problem, "set it as docs/configuration.md says")
      )
    ]
  }
  const settings = loaded.success
  findings.push(...configuration(settings), ...(yield* issuer(settings)))
  if (Option.isNone(settings.databaseUrl) && !(yield* EmbeddedPostgres.hasData(settings.dataDirectory))) {
    return [
      ...findings,
      ok("database", `there is none in ${settings.dataDirectory} yet: holdfast serve makes it`)
    ]
  }
  return [...findings, ...(yield* database(settings))]
})

/** A variable of ours that is spelled wrong does nothing, in silence. */
export const unknownVariables = (
  environment: Readonly<Record<string, string | undefined>>
): ReadonlyArray<Finding> => {
  const known = new Set(Object.values(Configuration.variables).map(({ name }) => name))
  return Object.keys(environment)
    .filter((name) => name.startsWith("HOLDFAST_") && !known.has(name))
    .sort()
    .map((name) =>
      warning("configuration", `${name} is set, and nothing reads it`, "correct its name, or unset it")
    )
}

const configuration = (settings: Configuration.Settings): ReadonlyArray<Finding> =>
  Option.isSome(settings.databaseUrl) && Option.isNone(settings.jwks)
    ? [
        warning(
          "configuration",
          "HOLDFAST_DEV=1: whoever can reach the service is given a token for everything",
          "set JWKS_URL, JWT_ISSUER and JWT_AUDIENCE, and unset HOLDFAST_DEV, for anything but development"
        )
      ]
    : [ok("configuration", "every variable is as it must be")]

const KeySet = Schema.Struct({ keys: Schema.NonEmptyArray(Schema.Struct({ kty: Schema.String })) })

/** Without the issuer's keys every call is answered 503 or 401. */
const issuer = ({ jwks }: Configuration.Settings) =>
  Option.match(jwks, {
    onNone: () => Effect.succeed<ReadonlyArray<Finding>>([]),
    onSome: ({ url }) =>
      HttpClient.get(url).pipe(
        Effect.flatMap((response) => response.json),
        Effect.flatMap(Schema.decodeUnknownEffect(KeySet)),
        Effect.timeout("3 seconds"),
        Effect.match({
          onSuccess: ({ keys }): ReadonlyArray<Finding> => [
            ok("tokens", `${keys.length} keys at JWKS_URL ${url}`)
          ],
          onFailure: () => [
            wrong(
              "tokens",
              `JWKS_URL ${url} does not answer with a set of keys`,
              "correct JWKS_URL, or start the token issuer: without its keys every call is refused"
            )
          ]
        }),
        Effect.provide(NodeHttpClient.layerUndici)
      )
  })

const database = Effect.fnUntraced(function* (settings: Configuration.Settings) {
  const started = yield* Effect.result(commandDatabase(settings))
  if (Result.isFailure(started)) {
    return [
      wrong("database", started.failure.message, "see server.log beside the data, and docs/operations.md")
    ]
  }
  const url = started.success
  const findings: Array<Finding> = []
  if (Option.isNone(settings.databaseUrl)) findings.push(yield* disk(settings.dataDirectory))
  const probed = yield* Effect.result(Postgres.probe(url))
  if (Result.isFailure(probed)) return [...findings, unreachable(url, probed.failure)]
  const compared = yield* Effect.result(Migrations.compare(url))
  const migrations = Result.isSuccess(compared)
    ? migrationFindings(compared.success)
    : [wrong("migrations", compared.failure.message, "give the user of DATABASE_URL the right to its tables")]
  const isCurrent = migrations.every(({ level }) => level === "OK")
  // Over the service's own foundation, whose clock follows the database's: how far the host's own is from it is asked.
  const host = yield* Clock.Clock
  const looked = Effect.gen(function* () {
    const { examine, examineServer } = yield* Doctor
    const server = yield* examineServer
    const rest = isCurrent ? yield* Effect.provideService(examine(), Clock.Clock, host) : []
    return [...server, ...migrations, ...rest]
  })
  return [
    ...findings,
    ...(yield* looked.pipe(
      Effect.provide(doctorLayer(settings, url)),
      Effect.catch(() =>
        Effect.succeed([wrong("database", "it has stopped answering", "see its log, then ask again")])
      )
    ))
  ]
}, Effect.scoped)

const doctorLayer = (settings: Configuration.Settings, url: Redacted.Redacted<string>) =>
  Doctor.layer.pipe(
    Layer.provide([ConsumerGroups.layer, Partitions.layer]),
    Layer.provide(foundation(settings, url))
  )

const unreachable = (
  url: Redacted.Redacted<string>,
  { cause, sqlState }: { readonly cause: unknown; readonly sqlState: string | undefined }
): Finding => {
  const { hostname, pathname, port, username } = new URL(Redacted.value(url))
  const where = `${hostname}:${port || 5432}${pathname}`
  const said = causeOf(cause)
  const remedy = sqlState?.startsWith("28")
    ? `correct user and password of DATABASE_URL (user ${username || "none"}), or pg_hba.conf`
    : sqlState === "3D000"
      ? `CREATE DATABASE ${pathname.slice(1)}`
      : sqlState === "53300"
        ? "raise max_connections, or end other clients"
        : `see whether PostgreSQL runs at ${hostname}:${port || 5432} and is reachable from here`
  return wrong("database", `${where} cannot be reached: ${said}`, remedy)
}

/** The words of the innermost cause: the outer ones only say that it failed. */
const causeOf = (cause: unknown): string => {
  let words = ""
  for (let at: unknown = cause, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const code = (at as { readonly code?: unknown }).code
    if (at.message !== "") words = at.message
    else if (typeof code === "string") words = code
  }
  return words || String(cause)
}

export const migrationFindings = ({
  lacking,
  unknown
}: {
  readonly lacking: ReadonlyArray<string>
  readonly unknown: ReadonlyArray<string>
}): ReadonlyArray<Finding> =>
  unknown.length > 0
    ? [
        wrong(
          "migrations",
          `the database has ${unknown.join(", ")}, which this version does not know`,
          "run the version of Holdfast that applied it, or a later one"
        )
      ]
    : lacking.length > 0
      ? [
          wrong(
            "migrations",
            `not applied: ${lacking.join(", ")}`,
            "holdfast migrate, or start the service, which does so"
          )
        ]
      : [ok("migrations", "all are applied")]

const gibibyte = 2 ** 30
const diskWarningBytes = 2 * gibibyte
const diskWrongBytes = gibibyte / 4

const disk = (folder: string): Effect.Effect<Finding> =>
  Effect.promise(async () => {
    const named = await fs.readFile(path.join(folder, "postgres.home"), "utf8").catch(() => folder)
    const { bavail, bsize } = await fs.statfs(named.trim())
    return diskFinding(named.trim(), bavail * bsize)
  })

/** A full disk stops every write: PostgreSQL ends itself when it cannot write its log. */
export const diskFinding = (folder: string, freeBytes: number): Finding => {
  const found = `${(freeBytes / gibibyte).toFixed(1)} GiB are free in ${folder}`
  const remedy = "make room, or move HOLDFAST_DATA_DIR while the service is stopped"
  return freeBytes < diskWrongBytes
    ? wrong("disk", found, remedy)
    : freeBytes < diskWarningBytes
      ? warning("disk", found, remedy)
      : ok("disk", found)
}

const marks: Readonly<Record<Finding["level"], readonly [mark: string, colour: Colour]>> = {
  OK: ["ok", "green"],
  WARNING: ["warning", "yellow"],
  WRONG: ["WRONG", "red"]
}

const printFindings = Effect.fnUntraced(function* (findings: ReadonlyArray<Finding>) {
  const checkWidth = Math.max(...findings.map(({ check }) => check.length))
  for (const { check, found, level, mend } of findings) {
    const [mark, colour] = marks[level]
    yield* Console.log(`${yield* paint(mark.padEnd(7), colour)}  ${check.padEnd(checkWidth)}  ${found}`)
    if (mend !== undefined) yield* Console.log(`${" ".repeat(9 + checkWidth)}  mend: ${mend}`)
  }
})
