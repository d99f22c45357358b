import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { Broker } from "../../services/messaging/Broker.ts"
import { nextUuid } from "../../services/Uuid.ts"
import { commandDatabase } from "../database.ts"
import { foundation } from "../service.ts"

export const publish = Command.make(
  "publish",
  {
    topic: Argument.String("topic"),
    value: Argument.String("json").pipe(Argument.withDescription("The message, as JSON")),
    key: Flag.String("key").pipe(
      Flag.withDescription("The key whose messages keep their order"),
      Flag.optional
    ),
    merchant: Flag.String("merchant").pipe(Flag.withDescription("Header x-merchant-id"), Flag.optional)
  },
  ({ key, merchant, topic, value }) =>
    Effect.gen(function* () {
      yield* Effect.try({
        try: () => JSON.parse(value) as unknown,
        catch: () => new Error("the message is not JSON")
      })
      const settings = yield* Configuration.load
      const url = yield* commandDatabase(settings)
      const id = yield* nextUuid
      const [refusal] = yield* Effect.provide(
        Effect.flatMap(Broker, (broker) =>
          broker.publish([
            {
              topic,
              key: Option.getOrNull(key),
              value,
              headers: {
                ce_id: id,
                "content-type": "application/json",
                ...(Option.isSome(merchant) ? { "x-merchant-id": merchant.value } : {})
              }
            }
          ])
        ),
        foundation(settings, url)
      )
      if (refusal !== undefined)
        return yield* Effect.fail(new Error(`the broker refused it: ${refusal.detail} (${refusal.reason})`))
      yield* Console.log(`published ${id} to ${topic}`)
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Publish one message"))
