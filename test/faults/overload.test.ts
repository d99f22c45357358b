import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { merchantAt } from "../support/service.ts"
import { type PipelinedAnswer, pipelined } from "./clients.ts"
import { withEmbeddedService } from "./embedded.ts"
import { healthy, merchantId, percentile, report, residentMb, stocked } from "./load.ts"

/** More requests than can wait, while the database stands still: refused early, and health still answers. */

/** Longer than the test: what is refused is refused for want of room, and not for its age. */
const requestTimeoutMs = 150_000
/** The queue of the kernel holds 8,192; what its two lanes have taken and given up comes on top. */
const clients = 200
const requestsEach = 100
const refusal = "Too much work is waiting"

/** So many lines that few postings fit into a batch: the queue fills faster than it is given up, on any machine. */
const variants = Array.from({ length: 20 }, (_, index) => `item-${index}`)
const large = {
  orderId: "large",
  items: variants.map((variantId) => ({ variantId, quantity: 1 }))
}
const small = (order: string) => ({ orderId: order, items: [{ variantId: "cup", quantity: 1 }] })
/** The first and the last of a client are orders of their own; those between ask for the same one. */
const isOwn = (index: number): boolean => index === 0 || index === requestsEach - 1

describe("more requests than the queue takes", () => {
  it.live("are refused early while the database is frozen, and health still answers", () =>
    withEmbeddedService({ REQUEST_TIMEOUT_MS: String(requestTimeoutMs) }, (embedded) =>
      Effect.gen(function* () {
        const { service } = embedded
        const shop = yield* stocked(service)
        // Compiled, so that what is measured is the refusal.
        for (const variant of variants) {
          yield* shop.item(variant)
          yield* shop.receive(variant, 100)
        }
        for (let index = 0; index < 300; index++) yield* shop.post("/api/v1/inventory/reserve", large)
        const memory = [residentMb(service.pid)]
        yield* embedded.freeze
        const floods = Array.from({ length: clients }, (_, client) =>
          pipelined(
            service.port,
            Array.from({ length: requestsEach }, (_, index) => ({
              method: "POST",
              path: "/api/v1/inventory/reserve",
              token: shop.token,
              body: isOwn(index) ? small(`flood-${client}-${index}`) : large
            }))
          )
        )
        const probe = Effect.gen(function* () {
          const since = performance.now()
          const answer = yield* shop.post("/api/v1/inventory/reserve", small("probe"))
          return { answer, ms: performance.now() - since }
        })
        const floodedAt = performance.now()
        // The queue is full when somebody is refused at once. How long that takes is the machine's affair.
        yield* Effect.repeat(Effect.timeoutOption(probe, "1 second"), {
          until: (probed) => Option.isSome(probed) && probed.value.answer.status === 503
        })
        const filledMs = performance.now() - floodedAt
        memory.push(residentMb(service.pid))
        const refusals: Array<number> = []
        const live: Array<number> = []
        for (let index = 0; index < 40; index++) {
          const { answer, ms } = yield* probe
          if (answer.status !== 503) continue
          assert.match(answer.headers["retry-after"] ?? "", /^\d+$/)
          assert.include(answer.text, refusal)
          refusals.push(ms)
          const since = performance.now()
          assert.strictEqual((yield* service.call("GET", "/health/live")).status, 200)
          live.push(performance.now() - since)
        }
        yield* embedded.thaw
        const answers: ReadonlyArray<PipelinedAnswer> = (yield* Effect.promise(() =>
          Promise.all(floods)
        )).flat()
        yield* healthy(service)
        memory.push(residentMb(service.pid))

        const sql = yield* embedded.connect
        const rows = yield* sql.run<{ order_id: string }>("SELECT order_id FROM reservation")
        const there = new Set(rows.map(({ order_id }) => order_id))
        const counts: Record<string, number> = {}
        let overloaded = 0
        let ownRefused = 0
        for (const [index, { body: text, retryAfter, status }] of answers.entries()) {
          counts[status] = (counts[status] ?? 0) + 1
          assert.include([200, 201, 408, 503], status, text)
          if (status === 503) assert.isTrue(retryAfter)
          if (text.includes(refusal)) overloaded += 1
          if (isOwn(index % requestsEach)) {
            const order = `flood-${Math.floor(index / requestsEach)}-${index % requestsEach}`
            if (status < 300) assert.isTrue(there.has(order), order)
            if (text.includes(refusal)) {
              ownRefused += 1
              assert.isFalse(there.has(order), order)
            }
          }
        }
        report("overload", {
          counts,
          overloaded,
          ownRefused,
          filledMs,
          probesRefused: refusals.length,
          refusalMs: [percentile(refusals, 0.5), percentile(refusals, 0.9)],
          liveMs: [percentile(live, 0.5), percentile(live, 0.9), Math.max(...live)],
          memory
        })
        assert.strictEqual(answers.length, clients * requestsEach)
        assert.isAtLeast(refusals.length, 10)
        assert.isAbove(ownRefused, 0)
        assert.isBelow(percentile(refusals, 0.9), 500)
        assert.isBelow(percentile(live, 0.9), 100)
        // And it is over.
        const after = yield* merchantAt(service, merchantId)
        assert.strictEqual((yield* after.reserve("after", [["cup", 1]])).status, 201)
      })
    )
  )
})
