import { Effect, Fiber, Layer, type Redacted, Schedule } from "effect"
import * as DatabaseClock from "../src/layers/DatabaseClock.ts"
import * as Postgres from "../src/layers/Postgres.ts"
import * as PostgresBroker from "../src/layers/PostgresBroker.ts"
import { Broker, type IncomingMessage } from "../src/services/messaging/Broker.ts"
import { type Options, generate, median, print } from "./reserve.ts"
import { execute, freshDatabase, server } from "./support/Database.ts"
import { atLeast, below, machineOf, printFigures, writeReport } from "./support/Report.ts"
import { seed } from "./support/Seed.ts"
import { endProgram, processorSecondsOf, service, startProgram } from "./support/Service.ts"

/**
 * From the outbox to a consumer, over the broker in PostgreSQL. The dispatcher is a process of its own that comes and
 * goes, the service that reserves stays: what the dispatcher costs is seen in turns, on the same machine at once.
 */
const full = {
  rounds: 5,
  seconds: 4,
  warmupSeconds: 1,
  firstWarmupSeconds: 5,
  pacedSeconds: 10,
  drains: 3,
  drainedEvents: 120_000
}
const quick = {
  rounds: 2,
  seconds: 2,
  warmupSeconds: 0.5,
  firstWarmupSeconds: 3,
  pacedSeconds: 5,
  drains: 1,
  drainedEvents: 100_000
}
const connections = 64
const spreadItems = 100_000
export const pacedPerSecond = 1_000
const pacedP99Ms = 100
const targets = { drainedPerSecond: 20_000, shareWithDispatcher: 0.85 }
const topic = "inventory.events"

export const outbox = Effect.fnUntraced(function* (options: Options) {
  const settings = options.quick ? quick : full
  const wanted = (name: "paced" | "reserve" | "drain") => options.only?.has(name) ?? true
  const startedAt = performance.now()
  const maintenance = yield* server
  const books = yield* freshDatabase(maintenance, "bench_outbox")
  yield* seed(books, [
    { merchantId: "hot", items: 1 },
    { merchantId: "spread", items: spreadItems }
  ])
  const holdfast = yield* service(books, options.profile, "inventory-api,sweeper")
  const tokens = yield* Effect.promise(async () => ({
    hot: [await holdfast.tokenOf("hot")],
    spread: [await holdfast.tokenOf("spread")]
  }))
  let runs = 0
  const load = (merchant: "hot" | "spread", seconds: number, ratePerSecond?: number) =>
    generate({
      port: holdfast.port,
      connections,
      warmupSeconds: settings.warmupSeconds,
      seconds,
      tokens: tokens[merchant],
      items: merchant === "hot" ? 1 : spreadItems,
      run: `order-${(runs += 1)}`,
      ...(ratePerSecond === undefined ? {} : { ratePerSecond })
    })
  const dispatcher = dispatcherOf(books, options.profile)

  print(`  Warming up, ${connections} connections, ${settings.rounds} rounds`)
  yield* Effect.promise(() => load("spread", settings.firstWarmupSeconds / 2))
  yield* Effect.promise(() => load("hot", settings.firstWarmupSeconds / 2))

  const paced = wanted("paced")
    ? yield* pacedRun(books, dispatcher, consume(books), (seconds) => load("hot", seconds, pacedPerSecond))(
        settings.pacedSeconds
      )
    : undefined

  const off: Array<Measured> = []
  const on: Array<Measured> = []
  const measure = Effect.fnUntraced(function* () {
    const before = yield* Effect.promise(holdfast.processorSeconds)
    const { answers, p99Ms, perSecond } = yield* Effect.promise(() => load("hot", settings.seconds))
    const waiting = yield* pending(books)
    const after = yield* Effect.promise(holdfast.processorSeconds)
    const each = (seconds: number): number => Math.round((seconds * 1e6) / answers["201"]!)
    return {
      perSecond,
      p99Ms,
      waiting,
      microseconds: {
        service: each(after.service - before.service),
        database: each(after.database - before.database)
      }
    }
  })
  if (wanted("reserve")) {
    yield* Effect.scoped(
      Effect.gen(function* () {
        // Stopped for the rounds without it rather than ended, or each round with it would begin with a cold one.
        const running = yield* dispatcher
        yield* drained(books)
        yield* Effect.promise(() => load("hot", settings.seconds))
        for (let round = 0; round < settings.rounds; round++) {
          // Which goes first alternates, so that a machine that grows slower or faster favours neither.
          for (const withDispatcher of round % 2 === 0 ? [false, true] : [true, false]) {
            yield* drained(books)
            if (!withDispatcher) running.kill("SIGSTOP")
            const measured = yield* measure()
            running.kill("SIGCONT")
            ;(withDispatcher ? on : off).push(measured)
            print(
              `  ${String(round + 1).padStart(2)}  ${withDispatcher ? "on " : "off"}    ${describe(measured)}` +
                (withDispatcher ? `, ${measured.waiting} events behind` : "")
            )
          }
        }
      })
    )
  }

  const drains: Array<Drain> = []
  for (let round = 0; wanted("drain") && round < settings.drains; round++) {
    yield* fill(books, settings.drainedEvents, () => load("spread", 2))
    const drain = yield* Effect.scoped(
      Effect.gen(function* () {
        const events = yield* pending(books)
        const before = Date.now()
        const running = yield* dispatcher
        const spent = spentSince(books, before, running.pid!)
        yield* begun(books)
        const starting = yield* spent
        yield* drained(books)
        return yield* drainOf(books, events, before, starting, yield* spent)
      })
    )
    drains.push(drain)
    print(
      `  ${String(round + 1).padStart(2)}  drain  ${String(drain.perSecond).padStart(7)}/s of ${drain.events} events in groups of ${drain.eventsPerGroup}` +
        `   µs: dispatcher ${drain.microseconds.dispatcher}, database ${drain.microseconds.database}`
    )
  }

  const reserved = {
    off: Math.round(medianOf(off, (each) => each.perSecond)),
    on: Math.round(medianOf(on, (each) => each.perSecond))
  }
  const share = Math.round((reserved.on / reserved.off) * 100) / 100
  const perSecond = Math.round(medianOf(drains, (each) => each.perSecond))
  const ratios = [
    atLeast("drained", "events/s drained", perSecond, targets.drainedPerSecond),
    pacedFigure(paced),
    atLeast(
      "reserve",
      `reserve/s with the dispatcher (${reserved.on}) / without (${reserved.off})`,
      share,
      targets.shareWithDispatcher
    )
  ]
  printFigures(ratios, startedAt)
  if (options.quick || options.only !== undefined) return
  yield* writeReport({
    benchmark: "outbox",
    date: new Date().toISOString(),
    machine: yield* machineOf(maintenance),
    settings: { ...settings, connections, spreadItems, pacedPerSecond },
    ratios,
    latency: paced,
    reserved,
    rounds: { off, on, drains }
  })
})

const medianOf = <A>(results: ReadonlyArray<A>, of: (result: A) => number) => median(results.map(of))

interface Measured {
  readonly perSecond: number
  readonly p99Ms: number
  /** Events that waited when the load ended. */
  readonly waiting: number
  /** Processor time of a reservation, in the service and in all connections of the database. */
  readonly microseconds: { readonly service: number; readonly database: number }
}

const describe = ({ microseconds, p99Ms, perSecond }: Measured): string =>
  `${perSecond.toFixed(0).padStart(7)}/s   p99 ${p99Ms.toFixed(1)} ms` +
  `   µs: service ${microseconds.service}, database ${microseconds.database}`

/**
 * One thousand a second: how long each event takes from its posting, which is before its commit, to the consumer, which
 * runs beside it.
 */
export const pacedRun =
  <R>(
    books: Redacted.Redacted<string>,
    dispatcher: ReturnType<typeof dispatcherOf>,
    consumer: Effect.Effect<never, unknown, R>,
    load: (seconds: number) => Promise<unknown>
  ) =>
  (seconds: number) =>
    Effect.scoped(
      Effect.gen(function* () {
        yield* dispatcher
        yield* drained(books)
        const reads = yield* Effect.forkScoped(consumer)
        yield* Effect.promise(() => load(1))
        const from = Date.now()
        yield* Effect.promise(() => load(seconds))
        yield* drained(books)
        yield* Effect.sleep("1 second")
        yield* Fiber.interrupt(reads)
        const paced = pacedOf(from)
        print(
          `      paced     ${paced.events} events   p50 ${paced.p50Ms} ms   p99 ${paced.p99Ms} ms   max ${paced.maxMs} ms`
        )
        return paced
      })
    )

const pacedFigure = (paced: { readonly p99Ms: number } | undefined) =>
  below(
    "paced",
    `p99 ms from a posting to a consumer at ${pacedPerSecond}/s`,
    paced?.p99Ms ?? Number.NaN,
    pacedP99Ms
  )

/** The program with this role only, for as long as the scope. */
export const dispatcherOf = (
  books: Redacted.Redacted<string>,
  profileFolder: string | undefined,
  environment?: Readonly<Record<string, string>>
) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = startProgram(books, { profileFolder, roles: "event-dispatcher", environment })
      child.stdout.resume()
      return child
    }),
    (child) =>
      Effect.promise(() => {
        child.kill("SIGCONT")
        return endProgram(child)
      })
  )

export const pending = (books: Redacted.Redacted<string>) =>
  Effect.map(
    execute(
      books,
      "SELECT COALESCE(sum(event_count), 0)::integer AS events FROM outbox WHERE sent_at IS NULL"
    ),
    ([row]) => Number(row!["events"])
  )

const drainMaxMs = 120_000

/** Waits until nothing waits. */
export const drained = Effect.fnUntraced(function* (books: Redacted.Redacted<string>) {
  const giveUp = Date.now() + drainMaxMs
  for (;;) {
    const [row] = yield* execute(
      books,
      "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL) AS waits, EXISTS (SELECT FROM outbox_failure) AS failed"
    )
    if (row!["failed"] === true) return yield* Effect.die(new Error("the broker refused an event"))
    if (row!["waits"] === false) return
    if (Date.now() > giveUp) return yield* Effect.die(new Error("the outbox is not drained"))
    yield* Effect.sleep("200 millis")
  }
})

/** Groups as the kernel has just written them under load, over again until there are enough. */
export const fill = Effect.fnUntraced(function* (
  books: Redacted.Redacted<string>,
  events: number,
  load: () => Promise<unknown>
) {
  yield* Effect.promise(load)
  for (;;) {
    const waiting = yield* pending(books)
    if (waiting >= events) break
    yield* execute(
      books,
      `INSERT INTO outbox (bucket, recorded_at, events, event_count)
       SELECT bucket, recorded_at, events, event_count
       FROM (
         SELECT *, sum(event_count) OVER (ORDER BY position) AS total FROM outbox WHERE sent_at IS NULL
       ) AS group_of_events
       WHERE total <= ${events - waiting} + event_count
       ORDER BY position`
    )
  }
  // Of what was sent before only the messages are left, and what the dispatcher finds has been seen by a vacuum.
  yield* execute(
    books,
    `DELETE FROM outbox WHERE sent_at IS NOT NULL`,
    `TRUNCATE broker_message`,
    `VACUUM ANALYZE outbox`,
    `CHECKPOINT`
  )
})

interface Drain {
  readonly events: number
  readonly eventsPerGroup: number
  /** From the first statement that publishes to the last that marks. */
  readonly perSecond: number
  /** From the start of the process, which is most of the difference. */
  readonly perSecondWithStart: number
  readonly microseconds: { readonly dispatcher: number; readonly database: number }
}

/** Processor seconds of a dispatcher and of the connections that have been opened since it was started. */
interface Spent {
  readonly dispatcher: number
  readonly database: number
}

const spentSince = (books: Redacted.Redacted<string>, startedAt: number, pid: number) =>
  Effect.gen(function* () {
    const backends = yield* execute(
      books,
      `SELECT pid FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid()
         AND backend_start > to_timestamp(${startedAt} / 1000.0)`
    )
    const each = yield* Effect.promise(() =>
      Promise.all(backends.map((backend) => processorSecondsOf(Number(backend["pid"]))))
    )
    return {
      dispatcher: yield* Effect.promise(() => processorSecondsOf(pid)),
      database: each.reduce((sum, seconds) => sum + seconds, 0)
    } satisfies Spent
  })

/** Waits until something was published: what the process spends on its start is no event's. */
const begun = (books: Redacted.Redacted<string>) =>
  execute(books, "SELECT EXISTS (SELECT FROM broker_message) AS begun").pipe(
    Effect.repeat({ until: ([row]) => row!["begun"] === true, schedule: Schedule.spaced("20 millis") })
  )

const drainOf = Effect.fnUntraced(function* (
  books: Redacted.Redacted<string>,
  events: number,
  startedAt: number,
  starting: Spent,
  ended: Spent
) {
  const [row] = yield* execute(
    books,
    `SELECT (SELECT count(*) FROM broker_message)::integer AS messages,
            (SELECT count(*) FROM outbox)::integer AS groups,
            (SELECT extract(epoch FROM min(published_at)) * 1000 FROM broker_message)::float8 AS first,
            (SELECT extract(epoch FROM max(sent_at)) * 1000 FROM outbox)::float8 AS last`
  )
  const messages = Number(row!["messages"])
  if (messages !== events) return yield* Effect.die(new Error(`${events} events became ${messages} messages`))
  const last = Number(row!["last"])
  return {
    events,
    eventsPerGroup: Math.round(events / Number(row!["groups"])),
    perSecond: Math.round((events * 1000) / (last - Number(row!["first"]))),
    perSecondWithStart: Math.round((events * 1000) / (last - startedAt)),
    microseconds: {
      dispatcher: Math.round(((ended.dispatcher - starting.dispatcher) * 1e6) / events),
      database: Math.round(((ended.database - starting.database) * 1e6) / events)
    }
  } satisfies Drain
})

/** What the consumer of the paced run has seen: when an event was posted, and how much later it was here. */
const seen: Array<{ readonly at: number; readonly ms: number }> = []
const sequences = new Map<string, number>()

/** A consumer group of one member in this process, on connections of its own. */
const consume = Effect.fnUntraced(function* (books: Redacted.Redacted<string>) {
  return yield* Effect.provide(
    reading,
    PostgresBroker.layer().pipe(
      Layer.provideMerge(DatabaseClock.layer),
      Layer.provideMerge(Postgres.layer({ url: books }))
    )
  )
})

/** Reads for as long as it runs, and notes what it sees. */
export const reading = Effect.scoped(
  Effect.gen(function* () {
    const broker = yield* Broker
    const subscription = yield* broker.subscribe({ group: "bench", topics: [topic] })
    for (;;) {
      const messages = yield* subscription.poll(500)
      const now = Date.now()
      for (const message of messages) see(message, now)
      yield* subscription.commit(messages)
    }
  })
)

const see = ({ value }: IncomingMessage, now: number): void => {
  const { data, timestamp } = JSON.parse(Buffer.from(value!).toString()) as {
    readonly timestamp: string
    readonly data: { readonly itemId: string; readonly sequence: number }
  }
  const at = Date.parse(timestamp)
  seen.push({ at, ms: now - at })
  const before = sequences.get(data.itemId)
  if (before !== undefined && data.sequence !== before + 1)
    throw new Error(`sequence ${data.sequence} after ${before}`)
  sequences.set(data.itemId, data.sequence)
}

const pacedOf = (from: number) => {
  const ms = seen
    .filter(({ at }) => at >= from)
    .map((each) => each.ms)
    .sort((a, b) => a - b)
  const at = (share: number) => ms[Math.min(ms.length - 1, Math.floor(ms.length * share))] ?? Number.NaN
  return { events: ms.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: ms.at(-1) ?? Number.NaN }
}
