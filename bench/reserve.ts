import { Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"
import type { Load, LoadResult } from "./loadGenerator.ts"
import { machineLimit, machineLimitTables, reservationsPerBatch } from "./machineLimit.ts"
import { findClients, output } from "./support/Clients.ts"
import { execute, freshDatabase, server } from "./support/Database.ts"
import { machineOf, writeReport } from "./support/Report.ts"
import { seed } from "./support/Seed.ts"
import { type Service, service } from "./support/Service.ts"
import { textbook, textbookTables } from "./textbook.ts"

/**
 * Reserving over HTTP with authentication, against the textbook's transaction and against what the same PostgreSQL can
 * write at all. Both sides of every ratio take turns within one run, so that what else the machine does hits both.
 */
export interface Options {
  readonly quick: boolean
  readonly only: ReadonlySet<string> | undefined
  readonly profile: string | undefined
}

const connections = 64
const spreadItems = 100_000
const merchantCount = 200
const full = {
  rounds: 5,
  seconds: 4,
  warmupSeconds: 0.5,
  pauseMs: 200,
  firstWarmupSeconds: 20,
  pacedSeconds: 10
}
const quick = {
  rounds: 2,
  seconds: 2,
  warmupSeconds: 0.5,
  pauseMs: 100,
  firstWarmupSeconds: 3,
  pacedSeconds: 4
}

const targets = { hot: 12, spread: 3, limit: 0.4, pacedP99Ms: 10 }

export const reserve = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const startedAt = performance.now()
  const loadBefore = os.loadavg()[0]
  const clients = yield* Effect.promise(findClients)
  const maintenance = yield* server
  const books = yield* freshDatabase(maintenance, "bench_service")
  const limit = yield* freshDatabase(maintenance, "bench_limit")
  const simple = yield* freshDatabase(maintenance, "bench_textbook")
  const merchants = Array.from({ length: merchantCount }, (_, index) => ({
    merchantId: `m${index}`,
    items: 1
  }))
  yield* seed(books, [
    { merchantId: "hot", items: 1 },
    { merchantId: "spread", items: spreadItems },
    ...merchants
  ])
  // In the order of their names: the one item of "hot" is the first, then come those of "spread".
  yield* seed(limit, [
    { merchantId: "hot", items: 1 },
    { merchantId: "spread", items: spreadItems }
  ])
  yield* execute(limit, ...machineLimitTables("spread"))
  yield* execute(simple, ...textbookTables(spreadItems))

  const holdfast = yield* service(books, options.profile)
  const tokens = yield* Effect.promise(async () => ({
    hot: [await holdfast.tokenOf("hot")],
    spread: [await holdfast.tokenOf("spread")],
    merchants: await Promise.all(merchants.map(({ merchantId }) => holdfast.tokenOf(merchantId)))
  }))
  let runs = 0
  const load = (asked: Pick<Load, "tokens" | "items" | "seconds"> & Partial<Load>): Promise<LoadResult> =>
    generate({
      port: holdfast.port,
      connections,
      warmupSeconds: settings.warmupSeconds,
      run: `order-${(runs += 1)}`,
      ...asked
    })
  const sql = (
    databaseUrl: Redacted.Redacted<string>,
    script: ReturnType<typeof textbook>,
    clientCount: number
  ) =>
    clients.run({
      databaseUrl: Redacted.value(databaseUrl),
      script,
      clients: clientCount,
      seconds: Math.ceil(settings.seconds)
    })

  const results = new Map<string, Array<Measured>>()
  const measured = {
    hot: () =>
      measureService(holdfast, () => load({ tokens: tokens.hot, items: 1, seconds: settings.seconds })),
    hotTextbook: async () => ({ perSecond: await sql(simple, textbook(1), connections) }),
    hotLimit: async () => ({
      perSecond: (await sql(limit, machineLimit("hot", 1, 1), 1)) * reservationsPerBatch
    }),
    spread: () =>
      measureService(holdfast, () =>
        load({ tokens: tokens.spread, items: spreadItems, seconds: settings.seconds })
      ),
    spreadTextbook: async () => ({ perSecond: await sql(simple, textbook(spreadItems), connections) }),
    spreadLimit: async () => ({
      perSecond: (await sql(limit, machineLimit("spread", 2, spreadItems), 1)) * reservationsPerBatch
    }),
    merchants: () =>
      measureService(holdfast, () => load({ tokens: tokens.merchants, items: 1, seconds: settings.seconds }))
  }
  const wanted = (Object.keys(measured) as Array<keyof typeof measured>).filter(
    (name) => options.only?.has(name) ?? true
  )

  print(`  Warming up on ${clients.name}, ${connections} connections, ${settings.rounds} rounds`)
  yield* Effect.promise(() =>
    load({ tokens: tokens.spread, items: spreadItems, seconds: settings.firstWarmupSeconds / 2 })
  )
  yield* Effect.promise(() =>
    load({ tokens: tokens.hot, items: 1, seconds: settings.firstWarmupSeconds / 2 })
  )
  for (let round = 0; round < settings.rounds; round++) {
    for (const name of wanted) {
      yield* Effect.sleep(settings.pauseMs)
      const result = yield* Effect.promise(measured[name])
      results.set(name, [...(results.get(name) ?? []), result])
      print(`  ${String(round + 1).padStart(2)}  ${name.padEnd(16)} ${describe(result)}`)
    }
  }
  const rate = (name: keyof typeof measured): number =>
    median(results.get(name)?.map((each) => each.perSecond))
  // At half of the rate that one hot item was reserved at: what callers see when the service is not pressed.
  const paced =
    options.only === undefined || options.only.has("paced")
      ? yield* Effect.promise(() =>
          measureService(holdfast, () =>
            load({
              tokens: tokens.hot,
              items: 1,
              seconds: settings.pacedSeconds,
              ratePerSecond: Math.round(rate("hot") / 2)
            })
          )
        )
      : undefined
  if (paced !== undefined) print(`      ${"paced".padEnd(16)} ${describe(paced)}`)
  yield* proveBooks(books)

  const ratios = [
    ratio("hot", "one hot item / textbook", rate("hot"), rate("hotTextbook"), targets.hot),
    ratio("spread", "100,000 items / textbook", rate("spread"), rate("spreadTextbook"), targets.spread),
    ratio("hotLimit", "one hot item / machine's limit", rate("hot"), rate("hotLimit"), targets.limit),
    ratio(
      "spreadLimit",
      "100,000 items / machine's limit",
      rate("spread"),
      rate("spreadLimit"),
      targets.limit
    ),
    ratio(
      "merchants",
      "200 merchants, a hot item each / textbook hot",
      rate("merchants"),
      rate("hotTextbook"),
      targets.hot
    )
  ]
  const hot = results.get("hot") ?? []
  const latency = {
    hotP50Ms: median(hot.map(({ p50Ms }) => p50Ms!)),
    hotP99Ms: median(hot.map(({ p99Ms }) => p99Ms!)),
    pacedPerSecond: paced?.perSecond ?? Number.NaN,
    pacedP50Ms: paced?.p50Ms ?? Number.NaN,
    pacedP99Ms: paced?.p99Ms ?? Number.NaN,
    pacedP99TargetMs: targets.pacedP99Ms,
    hotBatch: median(hot.map(({ batch }) => batch!)),
    spreadBatch: median((results.get("spread") ?? []).map(({ batch }) => batch!))
  }
  const report = {
    benchmark: "reserve",
    date: new Date().toISOString(),
    machine: {
      ...(yield* machineOf(maintenance)),
      loadAverageBefore: loadBefore,
      loadAverageAfter: os.loadavg()[0]
    },
    settings: { ...settings, connections, spreadItems, merchants: merchantCount, clients: clients.name },
    ratios,
    latency,
    rounds: Object.fromEntries(results)
  }
  print(table(ratios, latency))
  print(
    `  ${((performance.now() - startedAt) / 1000).toFixed(0)} s on ${report.machine.cores} cores, PostgreSQL ${report.machine.postgresql}, Node ${report.machine.node}`
  )
  if (!options.quick && options.only === undefined) {
    yield* writeReport(report)
  }
})

interface Measured {
  readonly perSecond: number
  readonly p50Ms?: number
  readonly p99Ms?: number
  /** Average of postings committed in one transaction. */
  readonly batch?: number
  /** Processor time that a reservation took of the service, of its connections in PostgreSQL, and of the generator. */
  readonly microseconds?: { readonly service: number; readonly database: number; readonly generator: number }
}

export const generate = async (load: Load): Promise<LoadResult> => {
  const file = path.join(import.meta.dirname, "loadGenerator.ts")
  const child = spawn(process.execPath, [file, JSON.stringify(load)], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const result = JSON.parse(await output(child)) as LoadResult
  const refused = Object.keys(result.answers).filter((status) => status !== "201")
  if (refused.length > 0) throw new Error(`not all was reserved: ${JSON.stringify(result.answers)}`)
  reservedInAll += result.answers["201"] ?? 0
  return result
}
let reservedInAll = 0

const measureService = async (holdfast: Service, run: () => Promise<LoadResult>): Promise<Measured> => {
  const before = { ...(await batches(holdfast)), ...(await holdfast.processorSeconds()) }
  const { answers, generatorSeconds, p50Ms, p99Ms, perSecond } = await run()
  const after = { ...(await batches(holdfast)), ...(await holdfast.processorSeconds()) }
  const each = (seconds: number): number => Math.round((seconds * 1e6) / answers["201"]!)
  return {
    perSecond,
    p50Ms,
    p99Ms,
    batch: (after.postings - before.postings) / (after.count - before.count),
    microseconds: {
      service: each(after.service - before.service),
      database: each(after.database - before.database),
      generator: each(generatorSeconds)
    }
  }
}

const batches = async (holdfast: Service) => ({
  postings: await holdfast.metric("holdfast_batch_postings_sum"),
  count: await holdfast.metric("holdfast_batch_postings_count")
})

/** A rate counts only if what it counts is in the books: reserved figures, lines and ledger agree with the answers. */
const proveBooks = Effect.fnUntraced(function* (books: Redacted.Redacted<string>) {
  const [row] = yield* execute(
    books,
    `SELECT (SELECT sum(reserved) FROM stock)::text AS stocks,
            (SELECT sum(reserved) FROM item)::text AS items,
            (SELECT sum(open) FROM reservation_line)::text AS lines,
            (SELECT sum(reserved_delta) FROM inventory_ledger)::text AS ledger,
            (SELECT sum(event_count) FROM outbox)::text AS events`
  )
  const wrong = Object.entries(row!).filter(([, figure]) => Number(figure) !== reservedInAll)
  if (wrong.length > 0) {
    return yield* Effect.die(new Error(`answered ${reservedInAll} reservations, but ${JSON.stringify(row)}`))
  }
  print(`      books hold all ${reservedInAll} reservations that were answered`)
})

interface Ratio {
  readonly name: string
  readonly what: string
  readonly ours: number
  readonly theirs: number
  readonly ratio: number
  readonly target: number
  readonly met: boolean
}

const ratio = (name: string, what: string, ours: number, theirs: number, target: number): Ratio => ({
  name,
  what,
  ours: Math.round(ours),
  theirs: Math.round(theirs),
  ratio: Math.round((ours / theirs) * 100) / 100,
  target,
  met: ours / theirs >= target
})

export const median = (values: ReadonlyArray<number> = []): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const describe = ({ batch, microseconds, p50Ms, p99Ms, perSecond }: Measured): string =>
  `${perSecond.toFixed(0).padStart(7)}/s` +
  (p50Ms === undefined
    ? ""
    : `   p50 ${p50Ms.toFixed(1)} ms   p99 ${p99Ms!.toFixed(1)} ms   batch ${batch!.toFixed(0)}` +
      `   µs: service ${microseconds!.service}, database ${microseconds!.database}, generator ${microseconds!.generator}`)

const table = (ratios: ReadonlyArray<Ratio>, latency: Readonly<Record<string, number>>): string => {
  const ms = (name: string) => `${latency[name]!.toFixed(1)} ms`
  const lines = [
    ["", "ours/s", "theirs/s", "ratio", "target"],
    ...ratios.map((each) => [
      each.what,
      String(each.ours),
      String(each.theirs),
      each.ratio.toFixed(2),
      `≥ ${each.target} ${each.met ? "met" : "missed"}`
    ]),
    ["p50, p99 of one hot item at full rate", ms("hotP50Ms"), ms("hotP99Ms"), "", ""],
    [
      "p50, p99 at half of that rate",
      ms("pacedP50Ms"),
      ms("pacedP99Ms"),
      "",
      `p99 ≤ ${targets.pacedP99Ms} ms ${latency["pacedP99Ms"]! <= targets.pacedP99Ms ? "met" : "missed"}`
    ],
    [
      "postings a batch, hot and spread",
      latency["hotBatch"]!.toFixed(0),
      latency["spreadBatch"]!.toFixed(0),
      "",
      ""
    ]
  ]
  return (
    "\n" +
    lines
      .map(([what, ...rest]) => `  ${what!.padEnd(48)}${rest.map((cell) => cell.padStart(12)).join("")}`)
      .join("\n") +
    "\n"
  )
}

export const print = (line: string): void => {
  process.stdout.write(line + "\n")
}
