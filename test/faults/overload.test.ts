import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { eventually, merchantAt } from "../support/service.ts"
import { type PipelinedAnswer, pipelined } from "./clients.ts"
import { withEmbeddedService } from "./embedded.ts"
import { healthy, merchantId, percentile, report, residentMb, stocked } from "./load.ts"

/** More requests than can wait, while the database stands still: refused early, and health still answers. */

const requestTimeoutMs = 12_000
/** The queue of the kernel holds 8,192; what its two lanes have taken comes on top. */
const clients = 130
const requestsEach = 100

describe("more requests than the queue takes", () => {
  it.live("are refused early while the database is frozen, and health still answers", () =>
    withEmbeddedService({ REQUEST_TIMEOUT_MS: String(requestTimeoutMs) }, (embedded) =>
      Effect.gen(function* () {
        const { service } = embedded
        const shop = yield* stocked(service)
        const body = (order: string) => ({ orderId: order, items: [{ variantId: "cup", quantity: 1 }] })
        // Compiled, so that what is measured is the refusal.
        for (let index = 0; index < 500; index++) yield* shop.post("/api/v1/inventory/reserve", body("warm"))
        const memory = [residentMb(service.pid)]
        yield* embedded.freeze
        const floods = Array.from({ length: clients }, (_, client) =>
          pipelined(
            service.port,
            Array.from({ length: requestsEach }, (_, index) => ({
              method: "POST",
              path: "/api/v1/inventory/reserve",
              token: shop.token,
              body: body(`flood-${client}-${index}`)
            }))
          )
        )
        const probe = Effect.gen(function* () {
          const since = performance.now()
          const answer = yield* shop.post("/api/v1/inventory/reserve", body("probe"))
          return { answer, ms: performance.now() - since }
        })
        // The queue is full when somebody is refused at once.
        yield* eventually(
          Effect.raceFirst(probe, Effect.as(Effect.sleep("1 second"), undefined)),
          (probed) => probed?.answer.status === 503
        )
        memory.push(residentMb(service.pid))
        const refusals: Array<number> = []
        const live: Array<number> = []
        for (let index = 0; index < 40; index++) {
          const { answer, ms } = yield* probe
          if (answer.status !== 503) continue
          assert.match(answer.headers["retry-after"] ?? "", /^\d+$/)
          assert.include(answer.text, "Too much work is waiting")
          refusals.push(ms)
          const since = performance.now()
          assert.strictEqual((yield* service.call("GET", "/health/live")).status, 200)
          live.push(performance.now() - since)
        }
        const answers: ReadonlyArray<PipelinedAnswer> = (yield* Effect.promise(() =>
          Promise.all(floods)
        )).flat()
        memory.push(residentMb(service.pid))
        yield* embedded.thaw
        yield* healthy(service)

        const counts: Record<string, number> = {}
        for (const { answeredAfterMs, retryAfter, status } of answers) {
          counts[status] = (counts[status] ?? 0) + 1
          assert.include([408, 503], status)
          if (status === 503) assert.isTrue(retryAfter)
          assert.isBelow(answeredAfterMs, requestTimeoutMs + 3_000)
        }
        report("overload", {
          counts,
          refused: refusals.length,
          refusalMs: percentile(refusals, 0.9),
          liveMs: [percentile(live, 0.5), percentile(live, 0.9), Math.max(...live)],
          memory
        })
        assert.strictEqual(answers.length, clients * requestsEach)
        assert.isAtLeast(refusals.length, 10)
        assert.isBelow(percentile(refusals, 0.9), 500)
        assert.isBelow(percentile(live, 0.9), 100)
        // And it is over.
        const after = yield* merchantAt(service, merchantId)
        assert.strictEqual((yield* after.reserve("after", [["cup", 1]])).status, 201)
      })
    )
  )
})
