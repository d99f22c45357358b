import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { eventually } from "../support/service.ts"
import { type EmbeddedService, withEmbeddedService } from "./embedded.ts"
import {
  assertAcknowledgedIsThere,
  assertAnswered,
  askAgain,
  healthy,
  load,
  percentile,
  report,
  residentMb,
  shareOf,
  stocked,
  type Throughput,
  throughput,
  untilAcknowledged,
  watchHealth
} from "./load.ts"

/**
 * The service's own PostgreSQL is killed, stopped and frozen under load: callers get an answer that they can act on
 * within their deadline, and the service is as it was before, by itself.
 */

const requestTimeoutMs = 2_500
const environment = { REQUEST_TIMEOUT_MS: String(requestTimeoutMs) }
const outagesWanted = 4
/** Of the throughput before the fault. */
const shareMin = 0.7
/**
 * What a process may gain over its faults. Alive are 75 MB of its heap, before the first outage and after the twelfth;
 * V8 lets garbage lie up to three times that. A queue of what is asked in 30 s and not answered would hold more.
 */
const growthMbMax = 200

describe("PostgreSQL under load", () => {
  for (const [what, signal] of [
    ["killed", "SIGKILL"],
    ["stopped", "SIGINT"]
  ] as const) {
    it.live(`${what} again and again loses nothing, and the service finds it again`, () =>
      withEmbeddedService(environment, (embedded) =>
        Effect.gen(function* () {
          const { service } = embedded
          yield* stocked(service)
          const work = yield* load(service)
          yield* untilAcknowledged(work, 1_000)
          const health = yield* watchHealth(service)
          const memory: Array<number> = []
          let outages = 0
          for (let round = 0; round < outagesWanted; round++) {
            const downBefore = health.seen.down
            yield* embedded.signal(signal)
            yield* eventually(
              Effect.sync(() => health.seen.down),
              (down) => down > downBefore
            )
            outages += 1
            yield* healthy(service)
            yield* untilAcknowledged(work, 300)
            memory.push(residentMb(service.pid))
          }
          yield* work.stop
          yield* health.stop
          assert.strictEqual(outages, outagesWanted)
          const counts = assertAnswered(work, requestTimeoutMs)
          assert.isAbove(counts[503] ?? 0, 0, "nobody noticed")
          yield* settled(embedded, work)
          report(`PostgreSQL ${what}`, { counts, memory, live: percentile(health.seen.live, 0.99) })
          // From the first outage on: what an outage takes for itself is taken then.
          assert.isBelow(memory.at(-1)! - memory[0]!, growthMbMax)
        })
      )
    )
  }

  it.live("frozen for 30 s is answered for within the deadline, and as fast as before 10 s after", () =>
    withEmbeddedService(environment, (embedded) =>
      Effect.gen(function* () {
        const { service } = embedded
        yield* stocked(service)
        const work = yield* load(service)
        // Compiled and grown to its size.
        yield* untilAcknowledged(work, 3_000)
        const before = yield* throughput(work, 4_000)
        const health = yield* watchHealth(service)
        const memory = [residentMb(service.pid)]
        yield* embedded.freeze
        const frozenAt = performance.now()
        const acknowledged = work.acknowledged.size
        for (let second = 0; second < 30; second++) {
          yield* Effect.sleep("1 second")
          memory.push(residentMb(service.pid))
        }
        const meanwhile = work.acknowledged.size - acknowledged
        const thawedAt = performance.now()
        yield* embedded.thaw
        assert.isAtLeast(thawedAt - frozenAt, 30_000)
        assert.isBelow(meanwhile, 100, "it was not frozen")
        yield* Effect.sleep("10 seconds")
        // Of three tries: the machine does other things, too.
        const after: Array<Throughput> = []
        const shares: Array<number> = []
        while (after.length < 3 && Math.max(0, ...shares) < shareMin) {
          after.push(yield* throughput(work, 4_000))
          shares.push(shareOf(before, after.at(-1)!))
        }
        assert.strictEqual((yield* service.call("GET", "/health/ready")).status, 200)
        memory.push(residentMb(service.pid))
        yield* work.stop
        yield* health.stop
        const counts = assertAnswered(work, requestTimeoutMs)
        const during = work.samples.filter(
          ({ askedAt, answeredAt }) => askedAt > frozenAt + 1_000 && answeredAt < thawedAt
        )
        report("PostgreSQL frozen for 30 s", {
          counts,
          during: Object.groupBy(during, ({ answer }) => String(answer?.status))[408]?.length,
          before,
          after,
          shares,
          memory: [memory[0], Math.max(...memory), memory.at(-1)],
          live: percentile(health.seen.live, 0.99),
          down: health.seen.down
        })
        assert.isAbove(during.length, 0)
        for (const { answer } of during) assert.include([408, 503], answer!.status, answer!.text)
        assert.isAbove(health.seen.down, 0)
        assert.isBelow(Math.max(...memory) - memory[0]!, growthMbMax)
        assert.isAtLeast(Math.max(...shares), shareMin)
        yield* settled(embedded, work)
      })
    )
  )
})

/** What was acknowledged is there; what was not answered is asked again, and is there once. */
const settled = Effect.fnUntraced(function* (
  { connect, service }: EmbeddedService,
  work: Effect.Success<ReturnType<typeof load>>
) {
  const sql = yield* connect
  yield* assertAcknowledgedIsThere(sql, work)
  yield* askAgain(service, sql, work)
})
