import { Clock, Context, Duration, Effect, Layer, Schedule } from "effect"
import { Db } from "../services/Db.ts"

/**
 * The one clock of all replicas (CONTRACTS section 7): the database's time as it was when last asked, every minute, plus
 * the time elapsed since then on the host's monotonic clock; never running backwards. What the host takes the time of
 * day to be decides nothing: somebody may set it. It is believed only until the database has answered once.
 */

const measureEvery = Duration.minutes(1)
/** The time is taken from the quickest of a few questions: half of a short round trip is a small error. */
const samples = 5

export const layer: Layer.Layer<never, never, Db> = Layer.effectContext(
  Effect.gen(function* () {
    const db = yield* Db
    const host = yield* Clock.Clock
    const elapsed = (): number => Number(host.monotonicTimeNanosUnsafe()) / 1e6
    /** What time it was when the monotonic clock stood at 0. */
    let origin = host.currentTimeMillisUnsafe() - elapsed()
    let last = 0
    const now = (): number => {
      last = Math.max(last, Math.round(origin + elapsed()))
      return last
    }
    const nowNanos = (): bigint => BigInt(now()) * 1_000_000n

    const measure = Effect.gen(function* () {
      let best = { roundTrip: Number.POSITIVE_INFINITY, origin }
      for (let sample = 0; sample < samples; sample++) {
        const asked = elapsed()
        const [row] = yield* db.maintain<{ now: number }>("SELECT clock_timestamp() AS now", [])
        const answered = elapsed()
        const roundTrip = answered - asked
        if (roundTrip < best.roundTrip) best = { roundTrip, origin: row!.now - (asked + answered) / 2 }
      }
      origin = best.origin
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
