import { Clock, Context, Duration, Effect, Layer, Schedule } from "effect"
import { Db } from "../services/Db.ts"

/**
 * The one clock of all replicas (CONTRACTS section 7): the host's clock, corrected by its offset from the database's,
 * measured at the start and every minute, and never running backwards.
 */

const measureEvery = Duration.minutes(1)
/** The offset is taken from the quickest of a few questions: half of a short round trip is a small error. */
const samples = 5

export const layer: Layer.Layer<never, never, Db> = Layer.effectContext(
  Effect.gen(function* () {
    const db = yield* Db
    const host = yield* Clock.Clock
    let offset = 0
    let last = 0
    const now = (): number => {
      last = Math.max(last, Math.round(host.currentTimeMillisUnsafe() + offset))
      return last
    }
    const nowNanos = (): bigint => BigInt(now()) * 1_000_000n

    const measure = Effect.gen(function* () {
      let best = { roundTrip: Number.POSITIVE_INFINITY, offset }
      for (let sample = 0; sample < samples; sample++) {
        const asked = host.currentTimeMillisUnsafe()
        const [row] = yield* db.maintain<{ now: number }>("SELECT clock_timestamp() AS now", [])
        const answered = host.currentTimeMillisUnsafe()
        const roundTrip = answered - asked
        if (roundTrip < best.roundTrip) best = { roundTrip, offset: row!.now - (asked + answered) / 2 }
      }
      // Within the error of the measurement the host's clock is right.
      offset = Math.abs(best.offset) <= best.roundTrip / 2 + 1 ? 0 : best.offset
    })
    const keepMeasuring = Effect.retry(measure, Schedule.spaced("1 second")).pipe(
      Effect.repeat(Schedule.spaced(measureEvery))
    )
    yield* Effect.orElseSucceed(measure, () => undefined)
    yield* Effect.forkScoped(Effect.delay(keepMeasuring, measureEvery))

    const clock: Clock.Clock = {
      currentTimeMillisUnsafe: now,
      currentTimeMillis: Effect.sync(now),
      currentTimeNanosUnsafe: nowNanos,
      currentTimeNanos: Effect.sync(nowNanos),
      monotonicTimeNanosUnsafe: () => host.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: host.monotonicTimeNanos,
      sleep: (duration) => host.sleep(duration)
    }
    return Context.make(Clock.Clock, clock)
  })
)
