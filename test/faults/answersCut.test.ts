import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { once } from "node:events"
import * as http from "node:http"
import { type AddressInfo, connect as connectTo, createServer } from "node:net"
import { withServices } from "../support/processes.ts"
import { merchantAt } from "../support/service.ts"
import { merchantId, report, stocked } from "./load.ts"

/** The effect is there, the answer is not: the client asks again. */

interface Cutter {
  readonly port: number
  readonly cut: () => number
}

/** A proxy that hands requests on and cuts the connection when their answer comes, which is after the commit. */
const cutterBefore = (port: number): Effect.Effect<Cutter, never, Scope.Scope> =>
  Effect.gen(function* () {
    let cut = 0
    const server = createServer((client) => {
      const upstream = connectTo({ host: "127.0.0.1", port })
      client.on("error", () => undefined).pipe(upstream)
      client.on("close", () => upstream.destroy())
      upstream.on("error", () => client.destroy())
      upstream.once("data", () => {
        cut += 1
        client.destroy()
      })
    })
    yield* Effect.acquireRelease(
      Effect.promise(async () => {
        server.listen(0, "127.0.0.1")
        await once(server, "listening")
      }),
      () => Effect.sync(() => server.close())
    )
    return { port: (server.address() as AddressInfo).port, cut: () => cut }
  })

/** A request whose answer never comes. */
const askInVain = (
  { port }: Cutter,
  token: string,
  target: string,
  body: unknown,
  headers: Readonly<Record<string, string>>
): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const sent = http.request(
      {
        host: "127.0.0.1",
        port,
        agent: false,
        method: "POST",
        path: target,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers }
      },
      () => resume(Effect.die(new Error("it was answered")))
    )
    sent.on("error", () => resume(Effect.void))
    sent.end(JSON.stringify(body))
  })

describe("1,000 answers cut off after the commit", () => {
  it.live("and asked for again have as many effects as orders, not one more", () =>
    withServices(2, (services, { sql }) =>
      Effect.gen(function* () {
        yield* stocked(services[0]!)
        const desks = yield* Effect.forEach(services, (service) => merchantAt(service, merchantId))
        const cutters = yield* Effect.forEach(services, ({ port }) => cutterBefore(port))
        const count = 500
        const requests = Array.from({ length: 2 * count }, (_, index) =>
          index < count
            ? {
                target: "/api/v1/inventory/reserve",
                body: { orderId: `order-${index}`, items: [{ variantId: "cup", quantity: 2 }] },
                headers: {}
              }
            : {
                target: "/api/v1/inventory/adjust-stock",
                body: { productVariantId: "saucer", changeType: "RECEIPT", quantity: 3 },
                headers: { "idempotency-key": `key-${index}` }
              }
        )
        const [before] = yield* sql.run<{ on_hand: number }>(
          "SELECT on_hand FROM item WHERE product_variant_id = 'saucer'"
        )
        const answers = yield* Effect.forEach(
          requests,
          ({ body, headers, target }, index) =>
            Effect.gen(function* () {
              const way = index % 2
              // Every tenth client is unlucky twice.
              for (let times = index % 10 === 0 ? 2 : 1; times > 0; times--) {
                yield* askInVain(cutters[way]!, desks[way]!.token, target, body, headers)
              }
              // Again at the other process.
              return yield* desks[1 - way]!.post(target, body, { headers })
            }),
          { concurrency: 64 }
        )
        const cut = cutters.reduce((sum, cutter) => sum + cutter.cut(), 0)
        assert.strictEqual(cut, 1_100)
        for (const [index, { headers, status, text }] of answers.entries()) {
          assert.strictEqual(status, 200, text)
          if (index >= count) assert.strictEqual(headers["idempotency-replayed"], "true")
        }
        const [reservations] = yield* sql.run<{ count: number; orders: number }>(
          "SELECT count(*) AS count, count(DISTINCT order_id) AS orders FROM reservation"
        )
        assert.deepStrictEqual(reservations, { count, orders: count })
        const rows = yield* sql.run(
          "SELECT product_variant_id AS item, on_hand, reserved FROM item ORDER BY product_variant_id"
        )
        assert.deepStrictEqual(rows, [
          { item: "cup", on_hand: 10_000_000, reserved: 2 * count },
          { item: "saucer", on_hand: before!.on_hand + 3 * count, reserved: 0 }
        ])
        report("answers cut off", { cut, answered: answers.length })
      }).pipe(Effect.scoped)
    )
  )
})

describe("the same Idempotency-Key 50 times at once over two processes", () => {
  it.live("has one effect and one body, and one more when it is older than a day", () =>
    withServices(2, (services, { sql }) =>
      Effect.gen(function* () {
        yield* stocked(services[0]!)
        const desks = yield* Effect.forEach(services, (service) => merchantAt(service, merchantId))
        /** Asks; checks that one of them had the effect and all have its answer. Returns the answer. */
        const askAtOnce = Effect.fnUntraced(function* (key: string, quantity = 1) {
          const answers = yield* Effect.forEach(
            Array.from({ length: 50 }, (_, index) => desks[index % 2]!),
            (desk) =>
              desk.post(
                "/api/v1/inventory/adjust-stock",
                { productVariantId: "cup", changeType: "DAMAGE", quantity },
                { headers: { "idempotency-key": key } }
              ),
            { concurrency: "unbounded" }
          )
          for (const answer of answers) assert.strictEqual(answer.status, 200, answer.text)
          const [text, ...others] = new Set(answers.map((answer) => answer.text))
          assert.deepStrictEqual(others, [])
          const replays = answers.filter(({ headers }) => headers["idempotency-replayed"] === "true").length
          assert.strictEqual(replays, 49)
          return text!
        })
        const damaged = Effect.map(
          sql.run<{ unallocatable: number }>(
            "SELECT unallocatable FROM item WHERE product_variant_id = 'cup'"
          ),
          ([row]) => row!.unallocatable
        )
        const keys = Array.from({ length: 10 }, (_, round) => `key-${round}`)
        const first = yield* Effect.forEach(keys, (key) => askAtOnce(key))
        assert.strictEqual(yield* damaged, 10)

        // A minute before a day has passed each is still what it was; a minute after, it is new, whatever it asks for.
        const age = (by: string) =>
          sql.run<{ count: number }>(
            `WITH aged AS (
               UPDATE idempotency SET created_at = created_at - interval '${by}' RETURNING 1
             )
             SELECT count(*) AS count FROM aged`
          )
        assert.deepStrictEqual(yield* age("23 hours 59 minutes"), [{ count: 10 }])
        const replayed = yield* desks[1]!.post(
          "/api/v1/inventory/adjust-stock",
          { productVariantId: "cup", changeType: "DAMAGE", quantity: 1 },
          { headers: { "idempotency-key": keys[0]! } }
        )
        assert.strictEqual(replayed.text, first[0])
        assert.strictEqual(yield* damaged, 10)
        yield* age("2 minutes")
        const second = yield* Effect.forEach(keys, (key, index) => askAtOnce(key, index % 2 === 0 ? 1 : 2))
        assert.strictEqual(new Set([...first, ...second]).size, 20)
        assert.strictEqual(yield* damaged, 25)
        // And it is kept for a day again.
        assert.strictEqual(
          (yield* desks[0]!.post(
            "/api/v1/inventory/adjust-stock",
            { productVariantId: "cup", changeType: "DAMAGE", quantity: 1 },
            { headers: { "idempotency-key": keys[0]! } }
          )).text,
          second[0]
        )
        assert.strictEqual(yield* damaged, 25)
        report("one key at once", { keys: keys.length, pastItsAge: second.length })
      })
    )
  )
})
