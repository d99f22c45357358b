import { Clock, Effect, Metric, Option } from "effect"
import type { IncomingMessage, Subscription } from "../services/messaging/Broker.ts"
import type { Outcome } from "./Consumer.ts"
import type { Shared, Worker } from "./Worker.ts"

/** Metrics of consumers: outcomes, retries, lag and delay by topic. */

const handled = Metric.counter("holdfast_consumer_messages_total", {
  description: "Messages by topic and outcome (applied, repeated, ignored, dead_letter)",
  incremental: true
})
const retries = Metric.counter("holdfast_consumer_retries_total", {
  description: "Attempts that were made again, by topic and cause",
  incremental: true
})
const lagMessages = Metric.gauge("holdfast_consumer_lag_messages", {
  description: "Messages of a topic that its group has not committed"
})
const oldestSeconds = Metric.gauge("holdfast_consumer_oldest_seconds", {
  description: "Age of the oldest message of a topic that this process was given and has not committed"
})
const delaySeconds = Metric.histogram("holdfast_consumer_delay_seconds", {
  description: "Time from a message's publication to its effect, by topic",
  boundaries: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600]
})

/** Measures the lag and the age of the backlog. */
export const measure = Effect.fnUntraced(function* <E, R>(
  { backlog, consumer }: Worker<E, R>,
  subscription: Subscription
) {
  const attributes = { topic: consumer.topic }
  const lag = yield* Effect.option(subscription.lag)
  if (Option.isSome(lag)) {
    const messages = lag.value.reduce((sum, partition) => sum + partition.lag, 0)
    yield* Metric.update(Metric.withAttributes(lagMessages, attributes), messages)
  }
  const oldest = backlog.oldestPublishedAt
  const now = yield* Clock.currentTimeMillis
  const age = oldest === undefined ? 0 : Math.max(0, now - oldest) / 1000
  yield* Metric.update(Metric.withAttributes(oldestSeconds, attributes), age)
})

/** Caches without a limit, of metrics with their attributes: topics and outcomes are few. */
const outcomes = new Map<string, typeof handled>()
const delays = new Map<string, typeof delaySeconds>()
/** Counts a finished message and its delay. */
export const count = (
  { clock, metrics }: Shared,
  topic: string,
  outcome: Outcome | "dead_letter",
  { publishedAt }: IncomingMessage
): void => {
  const key = `${topic} ${outcome}`
  let messages = outcomes.get(key)
  if (messages === undefined) {
    outcomes.set(key, (messages = Metric.withAttributes(handled, { topic, outcome })))
  }
  let delay = delays.get(topic)
  if (delay === undefined) delays.set(topic, (delay = Metric.withAttributes(delaySeconds, { topic })))
  messages.updateUnsafe(1, metrics)
  delay.updateUnsafe(Math.max(0, clock.currentTimeMillisUnsafe() - publishedAt) / 1000, metrics)
}
export const countRetry = (topic: string, cause: string) =>
  Metric.update(Metric.withAttributes(retries, { topic, cause }), 1)
