import { Effect, Redacted } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import type { LoadResult } from "./loadGenerator.ts"
import { type Options, generate, median, print } from "./reserve.ts"
import { execute, freshDatabase, server } from "./support/Database.ts"
import { seedHistory } from "./support/History.ts"
import { endedChildrenSeconds, serverSeconds } from "./support/Processors.ts"
import { machineOf, writeReport } from "./support/Report.ts"
import { type Service, service } from "./support/Service.ts"

/**
 * What age does: the same work on books that were begun a moment ago and on books that have grown for years, in turns on
 * one server. And how soon books are proven and loaded.
 */

const connections = 64
const small = { items: 1_000, movements: 10 }
const full = {
  large: { items: 1_000_000, movements: 10 },
  rounds: 5,
  seconds: 6,
  warmupSeconds: 1,
  pacedSeconds: 20,
  reads: 2_000,
  importRows: 200_000
}
const quick = {
  large: { items: 20_000, movements: 10 },
  rounds: 2,
  seconds: 2,
  warmupSeconds: 0.5,
  pacedSeconds: 4,
  reads: 200,
  importRows: 10_000
}
const targets = {
  growth: 0.9,
  pacedP99Ms: 10,
  auditSecondsPerMillion: 30,
  importPerSecond: 20_000
}

export const history = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const wants = (name: string): boolean => options.only?.has(name) ?? true
  const startedAt = performance.now()
  const loadBefore = os.loadavg()[0]
  const maintenance = yield* server
  const results: Record<string, unknown> = {}

  if (["growth", "paced", "reads", "audit"].some(wants)) {
    const young = yield* freshDatabase(maintenance, "bench_young")
    const old = yield* freshDatabase(maintenance, "bench_old")
    yield* seedHistory(young, small)
    const seeding = performance.now()
    yield* seedHistory(old, settings.large)
    const [size] = yield* execute(
      old,
      "SELECT pg_database_size(current_database())::text AS bytes, pg_size_pretty(pg_database_size(current_database())) AS pretty"
    )
    print(
      `  ${settings.large.items} items and ${settings.large.items * settings.large.movements} movements seeded in ` +
        `${((performance.now() - seeding) / 1000).toFixed(0)} s: ${String(size!["pretty"])}`
    )
    results["seeded"] = { small, large: settings.large, bytes: Number(size!["bytes"]) }
    const books = {
      young: yield* desk(young, small.items, options.profile),
      old: yield* desk(old, settings.large.items, options.profile)
    }
    if (wants("growth")) results["growth"] = yield* growth(books, settings)
    if (wants("paced")) results["paced"] = yield* paced(books, settings)
    if (wants("reads")) results["reads"] = yield* reads(books, settings)
    if (wants("audit")) results["audit"] = yield* audit(old)
  }
  if (wants("import")) {
    const empty = yield* freshDatabase(maintenance, "bench_import")
    results["import"] = yield* importing(empty, settings.importRows)
  }

  print(`  ${((performance.now() - startedAt) / 1000).toFixed(0)} s in all`)
  if (options.quick || options.only !== undefined) return
  const report = {
    benchmark: "history",
    date: new Date().toISOString(),
    machine: {
      ...(yield* machineOf(maintenance)),
      loadAverageBefore: loadBefore,
      loadAverageAfter: os.loadavg()[0]
    },
    settings: { ...settings, connections, small },
    targets,
    results
  }
  yield* writeReport(report)
})

type Settings = typeof full

/** A service on books of one merchant, and who may ask it. */
interface Desk {
  readonly holdfast: Service
  readonly items: number
  readonly token: string
}

const desk = Effect.fnUntraced(function* (
  url: Redacted.Redacted<string>,
  items: number,
  profile: string | undefined
) {
  const holdfast = yield* service(url, profile)
  const token = yield* Effect.promise(() => holdfast.tokenOf("history"))
  return { holdfast, items, token } satisfies Desk
})

interface Books {
  readonly young: Desk
  readonly old: Desk
}

let runs = 0
const reserving = (
  { holdfast, token }: Desk,
  items: number,
  load: { readonly seconds: number; readonly warmupSeconds: number; readonly ratePerSecond?: number }
): Promise<LoadResult> =>
  generate({
    port: holdfast.port,
    connections,
    tokens: [token],
    items,
    run: `order-${(runs += 1)}`,
    ...load
  })

/** Items of the whole books, and as few of the old books as the young ones have: what age does, and what width does. */
const growth = Effect.fnUntraced(function* ({ old, young }: Books, settings: Settings) {
  const measurements = {
    young: () => reserving(young, young.items, settings),
    old: () => reserving(old, old.items, settings),
    oldFew: () => reserving(old, young.items, settings)
  }
  const names = Object.keys(measurements) as ReadonlyArray<keyof typeof measurements>
  // Both services are warm before either is measured.
  for (const name of names) yield* Effect.promise(measurements[name])
  const rounds: Record<string, Array<number>> = {}
  for (let round = 0; round < settings.rounds; round++) {
    for (const name of names) {
      const { p50Ms, p99Ms, perSecond } = yield* Effect.promise(measurements[name])
      rounds[name] = [...(rounds[name] ?? []), perSecond]
      print(
        `  ${String(round + 1).padStart(2)}  ${name.padEnd(8)} ${perSecond.toFixed(0).padStart(7)}/s` +
          `   p50 ${p50Ms.toFixed(1)} ms   p99 ${p99Ms.toFixed(1)} ms`
      )
    }
  }
  const rates = Object.fromEntries(names.map((name) => [name, median(rounds[name])])) as Record<
    (typeof names)[number],
    number
  >
  const ratio = rates.old / rates.young
  const ratioOfFew = rates.oldFew / rates.young
  line(
    `${old.items} items / ${young.items}, reserve/s`,
    `${ratio.toFixed(2)} (of the same ${young.items}: ${ratioOfFew.toFixed(2)})`,
    `≥ ${targets.growth}`,
    ratio >= targets.growth
  )
  return { rates, ratio, ratioOfFew, rounds }
})

/** At half of what was reached, latency counted from when a request was due. */
const paced = Effect.fnUntraced(function* ({ old, young }: Books, settings: Settings) {
  const measured: Record<string, unknown> = {}
  for (const [name, books] of [
    ["young", young],
    ["old", old]
  ] as const) {
    const top = yield* Effect.promise(() => reserving(books, books.items, settings))
    const ratePerSecond = Math.round(top.perSecond / 2)
    const result = yield* Effect.promise(() =>
      reserving(books, books.items, { ...settings, seconds: settings.pacedSeconds, ratePerSecond })
    )
    measured[name] = { ratePerSecond, p50Ms: result.p50Ms, p99Ms: result.p99Ms }
    line(
      `${books.items} items at ${ratePerSecond}/s, half load`,
      `p50 ${result.p50Ms.toFixed(1)} ms, p99 ${result.p99Ms.toFixed(1)} ms`,
      `p99 ≤ ${targets.pacedP99Ms} ms`,
      result.p99Ms <= targets.pacedP99Ms
    )
  }
  return measured
})

/** One question after the other: the balance at some moment of the past, and a page of an item's movements. */
const reads = Effect.fnUntraced(function* (books: Books, settings: Settings) {
  const measured: Record<string, unknown> = {}
  const api = "/api/v1/inventory"
  const questions = {
    at: (variant: string) => {
      const at = new Date(Date.now() - Math.random() * small.movements * 25 * 86_400_000)
      return `${api}/${variant}?at=${at.toISOString()}`
    },
    ledger: (variant: string) => `${api}/${variant}/ledger`
  }
  for (const [question, pathOf] of Object.entries(questions)) {
    for (const name of ["young", "old"] as const) {
      const { holdfast, items, token } = books[name]
      const latencies: Array<number> = []
      yield* Effect.promise(async () => {
        for (let index = 0; index < settings.reads * 1.1; index++) {
          const variant = `variant-${1 + Math.floor(Math.random() * items)}`
          const asked = performance.now()
          const answer = await fetch(`http://127.0.0.1:${holdfast.port}${pathOf(variant)}`, {
            headers: { authorization: `Bearer ${token}` }
          })
          const text = await answer.text()
          if (answer.status !== 200) throw new Error(`${pathOf(variant)} was answered ${text}`)
          // The first tenth warms up.
          if (index >= settings.reads * 0.1) latencies.push(performance.now() - asked)
        }
      })
      latencies.sort((a, b) => a - b)
      const p99Ms = latencies[Math.floor(latencies.length * 0.99)]!
      measured[`${question} ${name}`] = { p50Ms: median(latencies), p99Ms }
      line(
        `${question === "at" ? "a balance of the past" : "a page of movements"} of ${items} items`,
        `p50 ${median(latencies).toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`
      )
    }
  }
  return measured
})

const command = path.join(import.meta.dirname, "..", "bin", "holdfast.js")

const holdfast = (databaseUrl: Redacted.Redacted<string>, ...parameters: ReadonlyArray<string>) =>
  Effect.promise((signal) =>
    promisify(execFile)(process.execPath, ["--import", resources, command, ...parameters], {
      signal,
      env: {
        PATH: process.env["PATH"],
        DATABASE_URL: Redacted.value(databaseUrl),
        HOLDFAST_DEV: "1",
        DEFAULT_MERCHANT_ID: "history"
      },
      maxBuffer: 2 ** 26
    })
  )
const resources = path.join(import.meta.dirname, "support", "resources.js")

/** `holdfast audit` over the old books; it fails where they do not hold. */
const audit = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const startedAt = performance.now()
  // Ten million movements take minutes, in which nothing else is said.
  const waiting = Effect.forever(
    Effect.andThen(
      Effect.sync(() => print(`  auditing for ${((performance.now() - startedAt) / 1000).toFixed(0)} s`)),
      Effect.sleep("15 seconds")
    )
  )
  const { stderr, stdout } = yield* Effect.raceFirst(holdfast(url, "audit", "--json"), waiting)
  const report = JSON.parse(stdout.trim().split("\n").at(-1)!) as {
    readonly durationMs: number
    readonly looked: { readonly movements: number }
  }
  const memoryMiB = Math.round(Number(/peak (\d+)/.exec(stderr)?.[1] ?? 0) / 1024)
  const seconds = report.durationMs / 1000
  const perMillion = (seconds * 1e6) / report.looked.movements
  line(
    `audit of ${report.looked.movements} movements`,
    `${seconds.toFixed(1)} s, ${perMillion.toFixed(1)} s a million, ${memoryMiB} MiB`,
    `≤ ${targets.auditSecondsPerMillion} s a million`,
    perMillion <= targets.auditSecondsPerMillion
  )
  return { ...report, memoryMiB, secondsPerMillion: perMillion }
})

/** `holdfast import` of a CSV file into empty books, from the start of the process to its end. */
const importing = Effect.fnUntraced(function* (url: Redacted.Redacted<string>, rows: number) {
  yield* holdfast(url, "migrate")
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "holdfast-bench-import-"))),
    (made) => Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
  )
  const file = path.join(folder, "items.csv")
  const lines = Array.from({ length: rows }, (_, index) => `variant-${index},SKU-${index},${index % 1000}`)
  yield* Effect.promise(() => fs.writeFile(file, `productVariantId,sku,quantity\n${lines.join("\n")}\n`))
  const startedAt = performance.now()
  const before = { process: yield* endedChildrenSeconds, server: yield* serverSeconds(url) }
  yield* holdfast(url, "import", file)
  const seconds = (performance.now() - startedAt) / 1000
  const microseconds = {
    process: (((yield* endedChildrenSeconds) - before.process) * 1e6) / rows,
    server: (((yield* serverSeconds(url)) - before.server) * 1e6) / rows
  }
  const [counted] = yield* execute(url, "SELECT count(*)::text AS items FROM item")
  if (Number(counted!["items"]) !== rows) {
    return yield* Effect.die(
      new Error(`${rows} rows were imported, but there are ${String(counted!["items"])}`)
    )
  }
  const perSecond = rows / seconds
  line(
    `import of ${rows} rows`,
    `${perSecond.toFixed(0)}/s, µs a row: ${microseconds.process.toFixed(0)} the process, ${microseconds.server.toFixed(0)} PostgreSQL`,
    `≥ ${targets.importPerSecond}/s`,
    perSecond >= targets.importPerSecond
  )
  return { rows, seconds, perSecond, microseconds }
})

const line = (what: string, measured: string, target = "", met?: boolean): void =>
  print(
    `  ${what.padEnd(46)} ${measured.padEnd(44)} ${target}${met === undefined ? "" : met ? ", met" : ", missed"}`
  )
