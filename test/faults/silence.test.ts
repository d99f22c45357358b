import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, type Scope } from "effect"
import { once } from "node:events"
import { type AddressInfo, type Socket, connect as connectTo, createServer } from "node:net"
import * as Postgres from "../../src/layers/Postgres.ts"
import { Db } from "../../src/services/Db.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { connect } from "../support/ledger.ts"
import { eventually, startService } from "../support/service.ts"
import {
  askAgain,
  assertAnswered,
  assertBooks,
  healthy,
  load,
  report,
  stocked,
  untilAcknowledged
} from "./load.ts"

/** Connections that go silent without closing, while new ones work: as after a firewall has forgotten them. */

const silentNetwork = (
  target: Redacted.Redacted<string>
): Effect.Effect<
  { readonly url: Redacted.Redacted<string>; readonly silence: () => number },
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const to = new URL(Redacted.value(target))
    const open = new Set<Socket>()
    const server = createServer((client) => {
      const upstream = connectTo({ host: "127.0.0.1", port: Number(to.port) })
      open.add(client)
      client.on("close", () => {
        open.delete(client)
        upstream.destroy()
      })
      for (const [from, into] of [
        [client, upstream],
        [upstream, client]
      ] as const) {
        from.on("error", () => undefined)
        from.on("data", (bytes) => {
          if (!silent.has(client)) into.write(bytes)
        })
      }
    })
    const silent = new Set<Socket>()
    yield* Effect.acquireRelease(
      Effect.promise(async () => {
        server.listen(0, "127.0.0.1")
        await once(server, "listening")
      }),
      () =>
        Effect.sync(() => {
          for (const socket of open) socket.destroy()
          server.close()
        })
    )
    const url = new URL(to)
    url.hostname = "127.0.0.1"
    url.port = String((server.address() as AddressInfo).port)
    return {
      url: Redacted.make(url.href),
      silence: () => {
        for (const socket of open) silent.add(socket)
        return open.size
      }
    }
  })

const requestTimeoutMs = 2_500

describe("connections that go silent", () => {
  it.live("under load are answered for within the deadline, lose nothing, and others take their place", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const network = yield* silentNetwork(url)
      const service = yield* startService(Redacted.value(network.url), {
        REQUEST_TIMEOUT_MS: String(requestTimeoutMs)
      })
      yield* stocked(service)
      const work = yield* load(service)
      yield* untilAcknowledged(work, 300)
      const silenced = network.silence()
      const since = performance.now()
      // None of those that were open says anything from here on, so that this is answered on new ones.
      yield* untilAcknowledged(work, 300)
      const recoveredMs = performance.now() - since
      yield* work.stop
      yield* healthy(service)
      const counts = assertAnswered(work, requestTimeoutMs)
      const again = yield* askAgain(service, sql, work)
      report("connections gone silent under load", { silenced, counts, ...again, recoveredMs })
      assert.isAbove(silenced, 4)
      assert.isAbove((counts[408] ?? 0) + (counts[503] ?? 0), 0, "nobody noticed")
      assert.isBelow(recoveredMs, 30_000)
      yield* assertBooks(url, sql, work)
    }).pipe(Effect.scoped)
  )

  it.live("are given up by those who read, and others take their place", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const network = yield* silentNetwork(url)
      const context = yield* Layer.build(Postgres.layer({ url: network.url, readTimeoutMs: 500 }))
      const db = Context.get(context, Db)
      const counts = { answered: 0, refused: 0 }
      const readers = yield* Effect.forEach(Array.from({ length: 16 }), () =>
        db.read<{ one: number }>("acme", "SELECT pg_sleep(0.01)::text, 1 AS one", []).pipe(
          Effect.match({
            onSuccess: () => (counts.answered += 1),
            onFailure: () => (counts.refused += 1)
          }),
          Effect.forever,
          Effect.forkChild
        )
      )
      const answered = (more: number) => {
        const wanted = counts.answered + more
        return eventually(
          Effect.sync(() => counts.answered),
          (count) => count >= wanted
        )
      }
      yield* answered(200)
      const silenced = network.silence()
      const since = performance.now()
      yield* eventually(
        Effect.sync(() => counts.refused),
        (count) => count >= 16
      )
      yield* answered(500)
      const recoveredMs = performance.now() - since
      report("connections gone silent", { silenced, ...counts, recoveredMs })
      yield* Effect.forEach(readers, Fiber.interrupt)
      assert.isAbove(silenced, 4)
      assert.isBelow(recoveredMs, 20_000)
    }).pipe(Effect.scoped)
  )
})
