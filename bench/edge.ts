import { Effect } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"
import type { Ready, Spent } from "./edgeServer.ts"
import type { Load } from "./loadGenerator.ts"
import { type Options, generate, median, print } from "./reserve.ts"
import { writeReport } from "./support/Report.ts"

/**
 * What surrounds a reservation: the processor time of a request from the socket to the kernel and back, beside that of
 * a server that does nothing but HTTP and JSON. Both take turns, because the machine's own pace changes meanwhile.
 */
const connections = 64
const full = { rounds: 15, seconds: 1, firstWarmupSeconds: 20 }
const quick = { rounds: 5, seconds: 1, firstWarmupSeconds: 10 }
const kinds = ["contract", "bare"] as const

export const edge = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const loadBefore = os.loadavg()[0]
  const servers = yield* Effect.forEach(kinds, (kind) =>
    Effect.acquireRelease(
      Effect.promise(() => start(kind, options.profile)),
      ({ child }) => Effect.promise(() => end(child))
    )
  )
  let runs = 0
  const measure = async ({ child, port, token }: Server, seconds: number): Promise<number> => {
    const before = await heard<Spent>(child, "spent")
    const load: Load = {
      port,
      connections,
      warmupSeconds: 0,
      seconds,
      tokens: [token],
      items: 1,
      run: `order-${(runs += 1)}`
    }
    await generate(load)
    const after = await heard<Spent>(child, "spent")
    return (after.microseconds - before.microseconds) / (after.answered - before.answered)
  }
  const rounds: Array<Record<string, number>> = []
  yield* Effect.promise(async () => {
    for (const server of servers) await measure(server, settings.firstWarmupSeconds)
    for (let round = 0; round < settings.rounds; round++) {
      const figures: Record<string, number> = {}
      for (const server of servers) {
        figures[server.kind] = Math.round((await measure(server, settings.seconds)) * 10) / 10
      }
      rounds.push(figures)
      print(
        `  ${String(round + 1).padStart(2)}  ${kinds.map((kind) => `${kind} ${figures[kind]} µs`).join("   ")}`
      )
    }
  })
  const of = (kind: (typeof kinds)[number]) => median(rounds.map((figures) => figures[kind]!))
  const ratio =
    Math.round(median(rounds.map((figures) => figures["contract"]! / figures["bare"]!)) * 100) / 100
  print(
    `\n  a request: ${of("contract")} µs of processor time, of a bare server ${of("bare")} µs, ratio ${ratio}` +
      `\n  load ${loadBefore!.toFixed(1)} before, ${os.loadavg()[0]!.toFixed(1)} after\n`
  )
  if (!options.quick && options.only === undefined && options.profile === undefined) {
    yield* writeReport({
      benchmark: "edge",
      date: new Date().toISOString(),
      machine: {
        cores: os.availableParallelism(),
        model: os.cpus()[0]?.model,
        node: process.version,
        loadAverageBefore: loadBefore,
        loadAverageAfter: os.loadavg()[0]
      },
      settings: { ...settings, connections },
      microseconds: { contract: of("contract"), bare: of("bare"), ratio },
      rounds
    })
  }
})

interface Server extends Ready {
  readonly kind: (typeof kinds)[number]
  readonly child: ChildProcess
}

const start = async (kind: Server["kind"], profile: string | undefined): Promise<Server> => {
  const profiling =
    profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${path.resolve(profile, kind)}`]
  const child = fork(path.join(import.meta.dirname, "edgeServer.ts"), [kind], { execArgv: profiling })
  return { kind, child, ...(await heard<Ready>(child)) }
}

/** What a server says next, after it was asked where that is needed. */
const heard = <A>(child: ChildProcess, question?: string): Promise<A> =>
  new Promise((resolve, reject) => {
    const ended = (): void => reject(new Error("a server ended"))
    child.once("exit", ended)
    child.once("message", (message) => {
      child.off("exit", ended)
      resolve(message as A)
    })
    if (question !== undefined) child.send(question)
  })

const end = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once("exit", () => resolve())
    child.disconnect()
  })
