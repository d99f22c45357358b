import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted } from "effect"
import * as Postgres from "../../src/layers/Postgres.ts"
import { Db } from "../../src/services/Db.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { connect } from "../support/ledger.ts"
import { tcpCable } from "../support/proxy.ts"
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

const requestTimeoutMs = 2_500

describe("connections that go silent", () => {
  it.live("under load are answered for within the deadline, lose nothing, and others take their place", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const cable = yield* tcpCable
      const service = yield* startService(Redacted.value(yield* cable.reach(url)), {
        REQUEST_TIMEOUT_MS: String(requestTimeoutMs)
      })
      yield* stocked(service)
      const work = yield* load(service)
      yield* untilAcknowledged(work, 300)
      const silenced = yield* cable.silence
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
      const cable = yield* tcpCable
      const context = yield* Layer.build(Postgres.layer({ url: yield* cable.reach(url), readTimeoutMs: 500 }))
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
      const silenced = yield* cable.silence
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
