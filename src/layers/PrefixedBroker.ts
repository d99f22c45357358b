import { Effect, Layer } from "effect"
import {
  Broker,
  MessageRefused,
  PartitionLost,
  type Subscription,
  type TopicPartition,
  TopicsRefused
} from "../services/messaging/Broker.ts"

/**
 * A broker whose topics and groups all begin with a prefix that nobody above it sees (TOPIC_PREFIX): several
 * installations share a cluster, and each has its own.
 */
export const layer = (prefix: string): Layer.Layer<Broker, never, Broker> =>
  Layer.effect(
    Broker,
    Effect.map(Broker, (broker) => (prefix === "" ? broker : prefixed(broker, prefix)))
  )

export const prefixed = (broker: Broker["Service"], prefix: string): Broker["Service"] => {
  const there = (name: string): string => prefix + name
  const back = (name: string): string => name.slice(prefix.length)
  const placeBack = <A extends TopicPartition>(place: A): A => ({ ...place, topic: back(place.topic) })
  const refusedBack = ({ detail, reason, topic }: MessageRefused) =>
    new MessageRefused({ reason, topic: back(topic), detail })
  const topicsRefusedBack = (refused: TopicsRefused) =>
    new TopicsRefused({
      refusals: refused.refusals.map(({ detail, topic }) => ({ topic: back(topic), detail }))
    })
  return Broker.of({
    ...broker,
    publish: (messages) =>
      Effect.map(
        broker.publish(messages.map((message) => ({ ...message, topic: there(message.topic) }))),
        (refusals) => refusals.map((refusal) => refusal && refusedBack(refusal))
      ),
    subscribe: (asked) =>
      Effect.map(
        broker.subscribe({
          ...asked,
          group: there(asked.group),
          topics: asked.topics.map(there),
          onRevoked: (partitions) => asked.onRevoked?.(partitions.map(placeBack)) ?? Effect.void
        }),
        (subscription) => prefixedSubscription(subscription, there, placeBack)
      ),
    createTopics: (topics, options) =>
      broker.createTopics(topics.map(there), options).pipe(
        Effect.map((made) => made.map(back)),
        Effect.catchTag("TopicsRefused", (refused) => Effect.fail(topicsRefusedBack(refused)))
      ),
    missingTopics: (topics) =>
      Effect.map(broker.missingTopics(topics.map(there)), (missing) => missing.map(back))
  })
}

const prefixedSubscription = (
  subscription: Subscription,
  there: (name: string) => string,
  placeBack: <A extends TopicPartition>(place: A) => A
): Subscription => {
  const allBack = <A extends TopicPartition>(places: ReadonlyArray<A>): ReadonlyArray<A> =>
    places.map(placeBack)
  return {
    poll: (messagesMax) => Effect.map(subscription.poll(messagesMax), allBack),
    commit: (positions) =>
      subscription
        .commit(positions.map(({ offset, partition, topic }) => ({ topic: there(topic), partition, offset })))
        .pipe(
          Effect.catchTag("PartitionLost", ({ partitions }) =>
            Effect.fail(new PartitionLost({ partitions: allBack(partitions) }))
          )
        ),
    lag: Effect.map(subscription.lag, allBack),
    assignment: Effect.map(subscription.assignment, allBack)
  }
}
