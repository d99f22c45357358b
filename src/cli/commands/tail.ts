import { Console, Effect, Layer, Option, Schedule } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { timestamp } from "../../schema/Time.ts"
import { Broker, type IncomingMessage } from "../../services/messaging/Broker.ts"
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
      /** What was printed last of each partition: what an outage kept from being committed is delivered again. */
      const printed = new Map<number, number>()
      const wanted = Option.getOrElse(count, () => Number.POSITIVE_INFINITY)
      const shown = { messages: 0 }
      const print = Effect.fnUntraced(function* (delivery: IncomingMessage) {
        const { headers, key, offset, partition, publishedAt, value } = delivery
        if (offset <= (printed.get(partition) ?? -1)) return
        printed.set(partition, offset)
        shown.messages += 1
        const at = timestamp(publishedAt)
        const text = value === null ? "(tombstone)" : new TextDecoder().decode(value)
        yield* Console.log(
          json
            ? JSON.stringify({ topic, partition, offset, key, headers, publishedAt: at, value: text })
            : `${at} ${partition}:${offset} ${key ?? "-"} ${text}`
        )
      })
      const read = Effect.gen(function* () {
        const broker = yield* Broker
        const subscription = yield* broker.subscribe({ group: name, topics: [topic] })
        while (shown.messages < wanted) {
          const deliveries = yield* subscription.poll(Math.min(wanted - shown.messages, 100))
          yield* Effect.forEach(deliveries, print, { discard: true })
          yield* subscription.commit(deliveries).pipe(
            Effect.tapErrorTag("BrokerUnavailable", () =>
              Effect.logWarning("the broker does not answer: reading goes on when it does")
            ),
            Effect.retry({
              schedule: Schedule.spaced("1 second"),
              while: ({ _tag }) => _tag === "BrokerUnavailable"
            }),
            Effect.catchTag("PartitionLost", () => Effect.void)
          )
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
