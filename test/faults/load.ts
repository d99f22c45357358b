import { assert } from "@effect/vitest"
import { Effect, Exit, Fiber, type Redacted } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import { assertInvariants } from "../support/invariants.ts"
import type { Sql } from "../support/ledger.ts"
import { type Answer, type RunningService, eventually, merchantAt } from "../support/service.ts"

/** Load under which faults happen, what it remembers, and what must be true of its answers afterwards. */

export const merchantId = "acme"
export const connections = 32
/** As many again that only read. */
const readers = 4

export interface Sample {
  /** Both by `performance.now()`. */
  readonly askedAt: number
  readonly answeredAt: number
  readonly kind: "read" | "write"
  /** `undefined`: the connection was lost. */
  readonly answer: Answer | undefined
}

export interface Load {
  readonly samples: ReadonlyArray<Sample>
  /** Orders whose reservation was acknowledged, with its id. */
  readonly acknowledged: ReadonlyMap<string, string>
  /** Orders that were asked for, whatever came of it. */
  readonly asked: ReadonlySet<string>
  /** Asks no more; completes when all that was asked is answered or lost. */
  readonly stop: Effect.Effect<void>
}

export const items = [
  ["cup", 1],
  ["saucer", 1]
] as const

export const stocked = Effect.fnUntraced(function* (service: RunningService, quantity = 10_000_000) {
  const shop = yield* merchantAt(service, merchantId)
  for (const [variant] of items) {
    yield* shop.item(variant)
    yield* shop.receive(variant, quantity)
  }
  return shop
})

/** Reserves without end, over many connections. What fails is not tried again. */
export const load = Effect.fnUntraced(function* (service: RunningService, prefix = "order") {
  const shop = yield* merchantAt(service, merchantId)
  const samples: Array<Sample> = []
  const acknowledged = new Map<string, string>()
  const asked = new Set<string>()
  const state = { running: true }
  const ask = (kind: Sample["kind"], call: Effect.Effect<Answer>) =>
    Effect.gen(function* () {
      const askedAt = performance.now()
      const exit: Exit.Exit<Answer> = yield* Effect.exit(call)
      const answer = Exit.isSuccess(exit) ? exit.value : undefined
      samples.push({ askedAt, answeredAt: performance.now(), kind, answer })
      // Something is away: not to turn in circles until the test says what happens next.
      if (answer === undefined || answer.status >= 400) yield* Effect.sleep("20 millis")
      return answer
    })
  const writer = (number: number) =>
    Effect.gen(function* () {
      for (let index = 0; state.running; index++) {
        const order = `${prefix}-${number}-${index}`
        asked.add(order)
        const answer = yield* ask("write", shop.reserve(order, items))
        if (answer?.status === 201) acknowledged.set(order, reservationOf(answer))
      }
    })
  const reader = Effect.gen(function* () {
    while (state.running) {
      yield* ask("read", shop.get("/api/v1/inventory/cup"))
      yield* Effect.sleep("20 millis")
    }
  })
  const workers = [
    ...Array.from({ length: connections }, (_, number) => writer(number)),
    ...Array.from({ length: readers }, () => reader)
  ]
  const fibers = yield* Effect.forEach(workers, (worker) =>
    Effect.forkChild(worker, { startImmediately: true })
  )
  const started: Load = {
    samples,
    acknowledged,
    asked,
    stop: Effect.suspend(() => {
      state.running = false
      return Effect.asVoid(Effect.forEach(fibers, Fiber.join, { concurrency: "unbounded" }))
    })
  }
  return started
})

export const reservationOf = (answer: Answer): string =>
  (answer.body as { readonly data: { readonly reservationId: string } }).data.reservationId

/** However long it takes on this machine: the test's own time-out bounds it. */
export const untilAcknowledged = ({ acknowledged }: Load, more: number) => {
  const wanted = acknowledged.size + more
  return Effect.repeat(Effect.sleep("10 millis"), { until: () => acknowledged.size >= wanted })
}

export interface Throughput {
  /** Writes answered with success, per second. */
  readonly perSecond: number
  /** What a program that only calculates got done beside it: how much of the machine there was to have. */
  readonly machine: number
}

/** Over the next so many milliseconds. */
export const throughput = Effect.fnUntraced(function* ({ acknowledged }: Load, forMs: number) {
  const before = acknowledged.size
  const since = performance.now()
  const machine = yield* Effect.promise(() => calculate(forMs))
  const measured: Throughput = {
    perSecond: ((acknowledged.size - before) * 1_000) / (performance.now() - since),
    machine
  }
  return measured
})

/** Rounds of hashing that a process of its own gets done in that time. */
const calculate = (forMs: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const program = `
      const { hash } = require("node:crypto"), data = Buffer.alloc(65536), end = performance.now() + ${forMs}
      let rounds = 0
      while (performance.now() < end) { hash("sha256", data); rounds++ }
      process.stdout.write(String(rounds))`
    execFile(process.execPath, ["-e", program], (error, stdout) =>
      error === null ? resolve(Number(stdout)) : reject(error)
    )
  })

/** What of `before` is there `after`, were it the same share of the machine; more than all is all. */
export const shareOf = (before: Throughput, after: Throughput): number =>
  after.perSecond / before.perSecond / Math.min(1, after.machine / before.machine)

const expected = new Set([200, 201, 408, 409, 503])

/** Every caller is answered, within its deadline, with what it can act on. Returns how many had which status. */
export const assertAnswered = (
  { samples }: Load,
  requestTimeoutMs: number
): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { answer, answeredAt, askedAt, kind } of samples) {
    assert.isDefined(answer, `a ${kind} was not answered`)
    counts[answer.status] = (counts[answer.status] ?? 0) + 1
    assert.isTrue(expected.has(answer.status), `${kind}: ${answer.status} ${answer.text}`)
    if (answer.status === 503) assert.match(answer.headers["retry-after"] ?? "", /^\d+$/)
    // On a busy machine the answer waits for this process, too.
    assert.isAtMost(answeredAt - askedAt, 2 * requestTimeoutMs, `${kind}: ${answer.status}`)
  }
  return counts
}

/** What was acknowledged is in the books, and nothing is there that nobody asked for. */
export const assertAcknowledgedIsThere = Effect.fnUntraced(function* (
  sql: Sql,
  { acknowledged, asked }: Load
) {
  const rows = yield* sql.run<{ order_id: string; reservation_id: string }>(
    "SELECT order_id, reservation_id::text FROM reservation"
  )
  const there = new Map(rows.map((row) => [row.order_id, row.reservation_id]))
  assert.strictEqual(there.size, rows.length, "an order has two reservations")
  for (const [order, reservation] of acknowledged) assert.strictEqual(there.get(order), reservation, order)
  for (const order of there.keys()) assert.isTrue(asked.has(order), order)
  return there
})

/**
 * Asks again, with the same order ids, for what was not answered. Each has exactly one reservation then. Returns how
 * many had one already and how many were made now.
 */
export const askAgain = Effect.fnUntraced(function* (
  service: RunningService,
  sql: Sql,
  { acknowledged, asked }: Load
) {
  const shop = yield* merchantAt(service, merchantId)
  const unanswered = [...asked].filter((order) => !acknowledged.has(order))
  const answers = yield* Effect.forEach(unanswered, (order) => shop.reserve(order, items), {
    concurrency: connections
  })
  for (const { status, text } of answers) {
    assert.include([200, 201], status, `${text}\n${service.stdout()}`)
  }
  const rows = yield* sql.run<{ order_id: string; reservation_id: string }>(
    "SELECT order_id, reservation_id::text FROM reservation"
  )
  assert.deepStrictEqual(rows.map((row) => row.order_id).sort(), [...asked].sort())
  return {
    existed: answers.filter(({ status }) => status === 200).length,
    made: answers.filter(({ status }) => status === 201).length
  }
})

export const healthy = (service: RunningService) =>
  eventually(service.call("GET", "/health/ready"), ({ status }) => status === 200)

/** Looks at the service's health all the time, and remembers what it saw. */
export const watchHealth = Effect.fnUntraced(function* (service: RunningService) {
  const seen = { up: 0, down: 0, live: new Array<number>() }
  const alive = Effect.gen(function* () {
    const since = performance.now()
    const { status } = yield* service.call("GET", "/health/live")
    assert.strictEqual(status, 200)
    seen.live.push(performance.now() - since)
    yield* Effect.sleep("50 millis")
  })
  const ready = Effect.gen(function* () {
    const { body, status } = yield* service.call("GET", "/health/ready")
    assert.include([200, 503], status)
    assert.strictEqual((body as { readonly status: string }).status, status === 200 ? "UP" : "DOWN")
    seen[status === 200 ? "up" : "down"] += 1
    yield* Effect.sleep("20 millis")
  })
  const fibers = yield* Effect.forEach([alive, ready], (look) => Effect.forkChild(Effect.forever(look)))
  return {
    seen,
    stop: Effect.forEach(
      fibers,
      (fiber) =>
        Effect.gen(function* () {
          const failed = fiber.pollUnsafe()
          if (failed !== undefined) return yield* failed
          return yield* Fiber.interrupt(fiber)
        }),
      { discard: true }
    )
  }
})

/** Resident memory of a process, in MB. */
export const residentMb = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024

export const percentile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** A figure of this run, for the reader of its output. */
export const report = (what: string, figures: Readonly<Record<string, unknown>>): void => {
  process.stdout.write(
    `  ${what}: ${JSON.stringify(figures, (_, value: unknown) => (typeof value === "number" ? Math.round(value * 10) / 10 : value))}\n`
  )
}

export const assertBooks = Effect.fnUntraced(function* (
  url: Redacted.Redacted<string>,
  sql: Sql,
  work: Load
) {
  yield* assertAcknowledgedIsThere(sql, work)
  yield* assertInvariants(url)
})
