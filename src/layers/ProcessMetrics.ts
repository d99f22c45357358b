import { Clock, Effect, Layer, Metric, Schedule } from "effect"
import { readdir } from "node:fs/promises"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** What every Prometheus client tells of its process, under the names that dashboards know. */

const measureEvery = "5 seconds"
/** How finely the event loop is looked at; a delay below this is not seen. */
const resolutionMs = 10

const cpuSeconds = Metric.counter("process_cpu_seconds_total", {
  description: "Processor time of the process, user and system",
  incremental: true
})
const startTime = Metric.gauge("process_start_time_seconds", {
  description: "When the process started, in seconds since 1970"
})
const residentBytes = Metric.gauge("process_resident_memory_bytes", {
  description: "Resident memory of the process"
})
const openFiles = Metric.gauge("process_open_fds", {
  description: "Open file descriptors, sockets among them (Linux only)"
})
const heapBytes = Metric.gauge("nodejs_heap_size_used_bytes", {
  description: "Memory that JavaScript objects take"
})
const loopDelay = Metric.gauge("nodejs_eventloop_lag_p99_seconds", {
  description: "How late the event loop was within the last five seconds, 99th percentile"
})

/** Keeps measuring for as long as it is open. */
export const layer: Layer.Layer<never> = Layer.effectDiscard(
  Effect.gen(function* () {
    const delays = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
        histogram.enable()
        return histogram
      }),
      (histogram) => Effect.sync(() => histogram.disable())
    )
    const now = yield* Clock.currentTimeMillis
    yield* Metric.update(startTime, now / 1000 - process.uptime())
    let counted = 0
    const measure = Effect.gen(function* () {
      const { system, user } = process.cpuUsage()
      const seconds = (system + user) / 1e6
      yield* Metric.update(cpuSeconds, seconds - counted)
      counted = seconds
      const { heapUsed, rss } = process.memoryUsage()
      yield* Metric.update(residentBytes, rss)
      yield* Metric.update(heapBytes, heapUsed)
      yield* Metric.update(loopDelay, Math.max(0, delays.percentile(99) / 1e9 - resolutionMs / 1000))
      delays.reset()
      const files = yield* Effect.option(Effect.tryPromise(() => readdir("/proc/self/fd")))
      if (files._tag === "Some") yield* Metric.update(openFiles, files.value.length)
    })
    yield* measure
    yield* Effect.forkScoped(Effect.repeat(measure, Schedule.spaced(measureEvery)))
  })
)
