import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { execFileSync } from "node:child_process"
import type { Socket } from "node:net"
import { withServices } from "../support/processes.ts"
import { eventually, merchantAt } from "../support/service.ts"
import { answersOf, bytesOf, opened } from "./clients.ts"
import { merchantId, percentile, report, residentMb, stocked } from "./load.ts"

/** Clients that hold connections without saying much, or say what is not so, beside one that behaves. */

/** Ten seconds for the head of a request, thirty for all of it, and what looking for them takes. */
const headBoundMs = 15_000
const requestBoundMs = 35_000
/** Promised are 100 ms; on a machine that does other things, too, a multiple of what there was without such clients. */
const p99MsMax = 250
const p99TimesMax = 4

const openFiles = Number(execFileSync("/bin/sh", ["-c", "ulimit -n"]).toString().trim())
const idleConnections = openFiles >= 11_000 ? 10_000 : 2_000

/** When a socket was opened, when the other side closed it, and what it said before. */
interface Held {
  readonly socket: Socket
  readonly openedAt: number
  closedAt: number | undefined
  readonly statuses: Array<number>
}

const hold = async (port: number): Promise<Held> => {
  const socket = await opened(port)
  const held: Held = { socket, openedAt: performance.now(), closedAt: undefined, statuses: [] }
  socket.on(
    "data",
    answersOf((status) => held.statuses.push(status))
  )
  socket.on("close", () => {
    held.closedAt = performance.now()
  })
  return held
}

/** A few at a time: a listener's backlog is not what is tested. */
const holdMany = (port: number, count: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    () => Effect.promise(() => hold(port)),
    { concurrency: 100 }
  )

const untilClosed = (clients: ReadonlyArray<Held>) =>
  eventually(
    Effect.sync(() => clients.filter(({ closedAt }) => closedAt === undefined).length),
    (open) => open === 0
  )

const longestMs = (clients: ReadonlyArray<Held>) =>
  Math.max(...clients.map(({ closedAt, openedAt }) => closedAt! - openedAt))

describe("slow and lying clients", () => {
  it.live("are cut off in time, change nothing, and harm nobody who behaves", () =>
    withServices(1, ([service], { sql }) =>
      Effect.gen(function* () {
        const { port } = service!
        const shop = yield* stocked(service!)
        const lie = yield* merchantAt(service!, merchantId)
        const reserve = (order: string) =>
          bytesOf({
            method: "POST",
            path: "/api/v1/inventory/reserve",
            token: lie.token,
            body: { orderId: order, items: [{ variantId: "cup", quantity: 1 }] }
          })

        let orders = 0
        const behave = (sample: Array<number>) =>
          Effect.gen(function* () {
            const since = performance.now()
            const answer = yield* shop.reserve(`good-${orders++}`, [["cup", 1]])
            assert.strictEqual(answer.status, 201)
            sample.push(performance.now() - since)
            yield* Effect.sleep("10 millis")
          })
        const alone: Array<number> = []
        for (let index = 0; index < 300; index++) yield* behave(alone)

        const beside: Array<number> = []
        const memory = [residentMb(service!.pid)]
        const behaving = yield* Effect.forkChild(Effect.forever(behave(beside)))

        const slowHeads = yield* holdMany(port, 200)
        const slowBodies = yield* holdMany(port, 200)
        const longLies = yield* holdMany(port, 50)
        const shortLies = yield* holdMany(port, 50)
        const head = reserve("slow-head")
        const body = reserve("slow-body")
        const bodyFrom = body.indexOf("\r\n\r\n") + 4
        for (const { socket } of slowBodies) socket.write(body.slice(0, bodyFrom))
        // More than comes, and less.
        for (const { socket } of longLies) {
          socket.write(reserve("long-lie").replace(/content-length: \d+/, "content-length: 500"))
        }
        for (const { socket } of shortLies) {
          socket.write(reserve("short-lie").replace(/content-length: \d+/, "content-length: 10"))
        }
        // A byte a second.
        const dripping = yield* Effect.forkChild(
          Effect.gen(function* () {
            for (let at = 0; ; at++) {
              for (const { closedAt, socket } of slowHeads)
                if (closedAt === undefined) socket.write(head[at]!)
              for (const { closedAt, socket } of slowBodies) {
                if (closedAt === undefined) socket.write(body[bodyFrom + at] ?? " ")
              }
              yield* Effect.sleep("1 second")
            }
          })
        )
        const idle = yield* holdMany(port, idleConnections)
        const openAtOnce = idle.filter(({ closedAt }) => closedAt === undefined).length
        memory.push(residentMb(service!.pid))

        yield* untilClosed(shortLies)
        yield* untilClosed(slowHeads)
        yield* untilClosed(idle)
        yield* untilClosed(slowBodies)
        yield* untilClosed(longLies)
        yield* Fiber.interrupt(dripping)
        const ended = behaving.pollUnsafe()
        if (ended !== undefined) yield* ended
        yield* Fiber.interrupt(behaving)
        memory.push(residentMb(service!.pid))

        report("slow clients", {
          idle: openAtOnce,
          headsClosedMs: longestMs(slowHeads),
          idleClosedMs: longestMs(idle),
          bodiesClosedMs: longestMs(slowBodies),
          lies: [...new Set([...longLies, ...shortLies].flatMap(({ statuses }) => statuses))],
          requests: beside.length,
          alone: [percentile(alone, 0.5), percentile(alone, 0.99)],
          beside: [percentile(beside, 0.5), percentile(beside, 0.99)],
          memory
        })
        assert.isAbove(openAtOnce, idleConnections * 0.9)
        assert.isBelow(longestMs(slowHeads), headBoundMs)
        assert.isBelow(longestMs(idle), headBoundMs)
        assert.isBelow(longestMs(slowBodies), requestBoundMs)
        assert.isBelow(longestMs(longLies), requestBoundMs)
        for (const { statuses } of [...slowHeads, ...slowBodies, ...longLies, ...shortLies]) {
          for (const status of statuses) assert.include([400, 408], status)
        }
        assert.isBelow(percentile(beside, 0.99), Math.max(p99MsMax, p99TimesMax * percentile(alone, 0.99)))
        const rows = yield* sql.run<{ count: number }>(
          "SELECT count(*) AS count FROM reservation WHERE order_id NOT LIKE 'good-%'"
        )
        assert.deepStrictEqual(rows, [{ count: 0 }])
      })
    )
  )
})
