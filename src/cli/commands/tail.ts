import { Console, Effect, Layer, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { Broker } from "../../services/messaging/Broker.ts"
import { ConsumerGroups } from "../../services/messaging/ConsumerGroups.ts"
import { nextUuid } from "../../services/Uuid.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation } from "../service.ts"

export const tail = Command.make(
  "tail",
  {
    topic: Argument.String("topic"),
    group: Flag.String("group").pipe(
      Flag.withDescription(
        "Read on as this consumer group, and commit; without it, everything from the beginning"
      ),
      Flag.optional
    ),
    count: Flag.Int("count").pipe(Flag.withDescription("Stop after so many messages"), Flag.optional),
    json
  },
  ({ count, group, json, topic }) =>
    Effect.gen(function* () {
      const settings = yield* Configuration.load
      const url = yield* commandDatabase(settings)
      const name = Option.getOrElse(group, () => undefined) ?? `tail-${yield* nextUuid}`
      const read = Effect.gen(function* () {
        const broker = yield* Broker
        const subscription = yield* broker.subscribe({ group: name, topics: [topic] })
        let left = Option.getOrElse(count, () => Number.POSITIVE_INFINITY)
        while (left > 0) {
          const deliveries = yield* subscription.poll(Math.min(left, 100))
          for (const { headers, key, offset, partition, publishedAt, value } of deliveries) {
            const text = value === null ? "(tombstone)" : new TextDecoder().decode(value)
            yield* Console.log(
              json
                ? JSON.stringify({ topic, partition, offset, key, headers, publishedAt, value: text })
                : `${new Date(publishedAt).toISOString()} ${partition}:${offset} ${key ?? "-"} ${text}`
            )
          }
          left -= deliveries.length
          yield* subscription.commit(deliveries)
        }
      })
      // Without removal, a group made for this call alone would pin its messages for ever.
      const forgetOwn = Option.isSome(group)
        ? Effect.void
        : Effect.ignore(Effect.flatMap(ConsumerGroups, ({ forget }) => forget(settings.topicPrefix + name)))
      yield* Effect.provide(
        Effect.ensuring(Effect.scoped(read), forgetOwn),
        ConsumerGroups.layer.pipe(Layer.provideMerge(foundation(settings, url)))
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Print the messages of a topic as they come"))
