import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Socket } from "node:net"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { connect, untilWaiting } from "../support/ledger.ts"
import { withServices } from "../support/processes.ts"
import { eventually } from "../support/service.ts"
import { answersOf, bytesOf, opened } from "./clients.ts"
import { connections, merchantId, report, stocked } from "./load.ts"

/** SIGTERM under load: what was being worked on is answered, and the service ends whatever its clients do. */

const endsWithinMs = 12_000

/** A client that asks again on the same connection as soon as it is answered, and does not let go of it. */
const keptAlive = (socket: Socket, token: string, number: number) => {
  const state = {
    /** The order that is not answered yet. */
    waiting: undefined as string | undefined,
    acknowledged: new Array<string>(),
    statuses: new Set<number>(),
    closed: false
  }
  let index = 0
  const ask = () => {
    state.waiting = `order-${number}-${index++}`
    socket.write(
      bytesOf({
        method: "POST",
        path: "/api/v1/inventory/reserve",
        token,
        body: { orderId: state.waiting, items: [{ variantId: "cup", quantity: 1 }] }
      })
    )
  }
  socket.on(
    "data",
    answersOf((status, head) => {
      state.statuses.add(status)
      if (status === 201) state.acknowledged.push(state.waiting!)
      state.waiting = undefined
      // A client that was told so does not ask on this connection again.
      if (!/\r\nconnection: close\r\n/i.test(head)) ask()
    })
  )
  socket.on("close", () => {
    state.closed = true
  })
  ask()
  return state
}

describe("SIGTERM under load", () => {
  for (const signals of [1, 2]) {
    it.live(`answers what is being worked on and exits 0: ${signals} of them`, () =>
      withServices(1, ([service], { sql, url }) =>
        Effect.gen(function* () {
          const shop = yield* stocked(service!)
          const sockets = yield* Effect.promise(() =>
            Promise.all(Array.from({ length: connections }, () => opened(service!.port)))
          )
          const idle = yield* Effect.promise(() =>
            Promise.all(Array.from({ length: connections }, () => opened(service!.port)))
          )
          let idleClosed = 0
          for (const socket of idle) socket.on("close", () => (idleClosed += 1)).resume()
          // Some have begun a request, and never end it: its head, and the second time also its body.
          const unfinished = bytesOf({
            method: "POST",
            path: "/api/v1/inventory/reserve",
            token: shop.token,
            body: {}
          })
          for (const socket of idle.slice(0, 4)) socket.write(unfinished.slice(0, 40))
          if (signals === 2) for (const socket of idle.slice(4, 8)) socket.write(unfinished.slice(0, -1))
          const clients = sockets.map((socket, number) => keptAlive(socket, shop.token, number))
          const acknowledged = () => clients.reduce((sum, client) => sum + client.acknowledged.length, 0)
          yield* eventually(Effect.sync(acknowledged), (count) => count >= 500)

          // Holds what is being worked on, so that the signal certainly meets it.
          const other = yield* connect(url)
          yield* other.run("BEGIN")
          yield* other.run("SELECT FROM item WHERE merchant_id = $1 FOR UPDATE", [
            parameter("text", merchantId)
          ])
          yield* untilWaiting(sql, 1)
          yield* Effect.sleep("200 millis")
          const inFlight = clients.map(({ waiting }) => waiting)
          const before = acknowledged()
          const signalledAt = performance.now()
          for (let times = 0; times < signals; times++) {
            yield* service!.kill("SIGTERM")
            yield* Effect.sleep("300 millis")
          }
          yield* other.run("ROLLBACK")
          const ended = yield* service!.ended
          const endedAfterMs = performance.now() - signalledAt
          yield* eventually(
            Effect.sync(() => clients.filter(({ closed }) => !closed).length + idle.length - idleClosed),
            (open) => open === 0
          )
          const rows = yield* sql.run<{ order_id: string }>("SELECT order_id FROM reservation")
          const there = new Set(rows.map(({ order_id }) => order_id))
          const statuses = [...new Set(clients.flatMap((client) => [...client.statuses]))]
          report(`SIGTERM ${signals} times`, {
            inFlight: inFlight.filter((order) => order !== undefined).length,
            answered: acknowledged() - before,
            statuses,
            endedAfterMs
          })
          assert.deepStrictEqual(ended, { code: 0, signal: null }, service!.stderr())
          assert.isBelow(endedAfterMs, endsWithinMs)
          assert.deepStrictEqual(statuses, [201])
          assert.isAbove(inFlight.filter((order) => order !== undefined).length, connections / 2)
          for (const [number, client] of clients.entries()) {
            const held = inFlight[number]
            if (held !== undefined) assert.include(client.acknowledged, held)
            // A request that came too late to be worked on has no answer, and no effect.
            if (client.waiting !== undefined) assert.isFalse(there.has(client.waiting), client.waiting)
          }
          assert.strictEqual(there.size, acknowledged())
          for (const socket of [...sockets, ...idle]) socket.destroy()
        }).pipe(Effect.scoped)
      )
    )
  }
})
