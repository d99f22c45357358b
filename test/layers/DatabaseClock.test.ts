import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer } from "effect"
import * as DatabaseClock from "../../src/layers/DatabaseClock.ts"
import * as Postgres from "../../src/layers/Postgres.ts"
import { Db } from "../../src/services/Db.ts"
import { freshDatabase } from "../support/Postgres.ts"

/** A host whose time of day is set by hand and whose monotonic clock goes on as it should, over a real PostgreSQL. */

const hour = 3_600_000

const onHost = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const real = yield* Clock.Clock
  const host = { ahead: 0 }
  const timeOfDay = () => real.currentTimeMillisUnsafe() + host.ahead
  const clock: Clock.Clock = {
    ...real,
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
    sleep: (duration) => real.sleep(duration),
    currentTimeMillisUnsafe: timeOfDay,
    currentTimeMillis: Effect.sync(timeOfDay)
  }
  const start = (ahead: number) =>
    Effect.suspend(() => {
      host.ahead = ahead
      return Layer.build(
        DatabaseClock.layer.pipe(
          Layer.provideMerge(Postgres.layer({ url, idleInTransactionMs: 10_000 })),
          Layer.provideMerge(Layer.succeed(Clock.Clock, clock))
        )
      )
    })
  return { host, start }
})

/** How far a clock is from the database's, in milliseconds. */
const aheadOfDatabase = Effect.fnUntraced(function* (context: Context.Context<Db>) {
  const [row] = yield* Context.get(context, Db).maintain<{ now: number }>(
    "SELECT clock_timestamp() AS now",
    []
  )
  return Context.get(context, Clock.Clock).currentTimeMillisUnsafe() - row!.now
})

describe("DatabaseClock", () => {
  it.live("shows the database's time on a host that is an hour ahead or behind", () =>
    Effect.gen(function* () {
      const { start } = yield* onHost
      for (const ahead of [hour, -hour])
        assert.isBelow(Math.abs(yield* aheadOfDatabase(yield* start(ahead))), 1_000)
    })
  )

  it.live("does not follow the host's time of day when it is set", () =>
    Effect.gen(function* () {
      const { host, start } = yield* onHost
      const context = yield* start(0)
      const clock = Context.get(context, Clock.Clock)
      const before = clock.currentTimeMillisUnsafe()
      for (const ahead of [hour, -hour, 0]) {
        host.ahead = ahead
        assert.isBelow(Math.abs(yield* aheadOfDatabase(context)), 1_000)
        assert.isAtLeast(clock.currentTimeMillisUnsafe(), before)
      }
    })
  )
})
