import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { topicNames } from "../../schema/Topic.ts"
import { Broker } from "../../services/messaging/Broker.ts"
import { commandDatabase } from "../database.ts"
import { foundation } from "../service.ts"

/** The topics of the broker. With Kafka nothing else makes any. */

const positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }))

const withBroker = <A, E>(use: (broker: Broker["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(Effect.flatMap(Broker, use), foundation(settings, url))
  }).pipe(Effect.scoped)

const create = Command.make(
  "create",
  {
    names: Argument.String("topic").pipe(
      Argument.withDescription(
        "Without any: all that Holdfast receives and publishes, and their dead letters"
      ),
      Argument.variadic()
    ),
    partitions: Flag.Int("partitions").pipe(
      Flag.withSchema(positive),
      Flag.withDescription(
        "Of each topic; keys are spread over them, so that it cannot be changed later (8)"
      ),
      Flag.optional
    ),
    replicas: Flag.Int("replicas").pipe(
      Flag.withSchema(positive),
      Flag.withDescription("Of each message (3, or as many as there are brokers); all but one must have it"),
      Flag.optional
    )
  },
  ({ names, partitions, replicas }) =>
    withBroker((broker) =>
      Effect.gen(function* () {
        const wanted = names.length === 0 ? topicNames : names
        const made = yield* broker.createTopics(wanted, {
          partitions: Option.getOrUndefined(partitions),
          replicas: Option.getOrUndefined(replicas)
        })
        for (const topic of made) yield* Console.log(`created ${topic}`)
        yield* Console.log(`${made.length} created, ${wanted.length - made.length} were there`)
      })
    )
).pipe(Command.withDescription("Create the topics that are not there; what is there stays as it is"))

const list = Command.make("list", {}, () =>
  withBroker((broker) =>
    Effect.gen(function* () {
      const missing = new Set(yield* broker.missingTopics(topicNames))
      for (const topic of topicNames)
        yield* Console.log(`${missing.has(topic) ? "missing" : "there  "} ${topic}`)
    })
  )
).pipe(Command.withDescription("The topics that Holdfast needs, and whether they are there"))

export const topics = Command.make("topics").pipe(
  Command.withDescription("The broker's topics"),
  Command.withSubcommands([create, list])
)
