import { Clock, Console, Effect, Layer, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../layers/Configuration.ts"
import * as EmbeddedPostgres from "../layers/EmbeddedPostgres.ts"
import { migrate as applyMigrations } from "../layers/Migrations.ts"
import { Broker } from "../services/messaging/Broker.ts"
import { DevIssuer } from "../services/identity/Jwks.ts"
import { ConsumerGroups } from "../services/messaging/ConsumerGroups.ts"
import { Outbox } from "../services/messaging/Outbox.ts"
import { nextUuid } from "../services/Uuid.ts"
import { commandDatabase } from "./database.ts"
import { json } from "./options.ts"
import { devIssuer, foundation, operations } from "./service.ts"
import { momentOf, printRows } from "./Table.ts"

/** Commands for a person at a terminal. They work beside a running service, on the same database. */

export const migrate = Command.make("migrate", {}, () =>
  Effect.gen(function* () {
    yield* applyMigrations(yield* commandDatabase(yield* Configuration.load))
    yield* Console.log("The database is up to date.")
  }).pipe(Effect.scoped)
).pipe(Command.withDescription("Bring the database up to date"))

export const backup = Command.make(
  "backup",
  { folder: Argument.String("folder").pipe(Argument.withDescription("Where to; it must not exist yet")) },
  ({ folder }) =>
    Effect.gen(function* () {
      const settings = yield* Configuration.load
      if (Option.isSome(settings.databaseUrl)) {
        return yield* Effect.fail(
          new Error("this is for the embedded database: back up DATABASE_URL with pg_basebackup or pg_dump")
        )
      }
      const url = yield* commandDatabase(settings)
      const made = yield* EmbeddedPostgres.backUp(settings.dataDirectory, url, folder)
      yield* Console.log(
        `${(made.bytes / 2 ** 20).toFixed(1)} MiB in ${made.folder}. To run it: HOLDFAST_DATA_DIR=${made.folder}`
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Copy the embedded database into a folder, while it works"))

export const token = Command.make(
  "token",
  {
    merchant: Flag.String("merchant").pipe(Flag.withDescription("The merchant"), Flag.withDefault("demo")),
    scope: Flag.String("scope").pipe(
      Flag.withDescription("Permissions, separated by spaces; without it, all of them"),
      Flag.optional
    )
  },
  ({ merchant, scope }) =>
    Effect.gen(function* () {
      const settings = yield* Configuration.load
      if (Option.isSome(settings.jwks)) {
        return yield* Effect.fail(
          new Error("tokens come from the issuer that JWKS_URL names, not from Holdfast")
        )
      }
      const url = yield* commandDatabase(settings)
      const issued = Effect.flatMap(DevIssuer, ({ issue }) =>
        issue({ merchantId: merchant, ...(Option.isSome(scope) ? { scope: scope.value } : {}) })
      )
      yield* Console.log(
        yield* Effect.provide(issued, devIssuer.pipe(Layer.provide(foundation(settings, url))))
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Issue a development token"))

export const publish = Command.make(
  "publish",
  {
    topic: Argument.String("topic"),
    value: Argument.String("json").pipe(Argument.withDescription("The message, as JSON")),
    key: Flag.String("key").pipe(Flag.withDescription("What its order is kept for"), Flag.optional),
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
      // A group of this call's own would keep its messages for ever.
      const forgetOwn = Option.isSome(group)
        ? Effect.void
        : Effect.ignore(Effect.flatMap(ConsumerGroups, ({ forget }) => forget(settings.topicPrefix + name)))
      yield* Effect.provide(
        Effect.ensuring(Effect.scoped(read), forgetOwn),
        ConsumerGroups.layer.pipe(Layer.provideMerge(foundation(settings, url)))
      )
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Print the messages of a topic as they come"))

const withGroups = <A, E>(use: (groups: ConsumerGroups["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(ConsumerGroups, use),
      ConsumerGroups.layer.pipe(Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

export const groups = Command.make("groups").pipe(
  Command.withDescription("Consumer groups of the broker in PostgreSQL, and how far behind they are"),
  Command.withSubcommands([
    Command.make("list", { json }, ({ json }) =>
      withGroups((groups) =>
        Effect.flatMap(groups.list, (rows) =>
          printRows(
            rows,
            [
              { title: "group", value: ({ group }) => group },
              { title: "members", value: ({ members }) => members },
              { title: "behind", value: ({ behind }) => behind },
              { title: "oldest", value: ({ oldestAt }) => momentOf(oldestAt) },
              { title: "committed", value: ({ committedAt }) => momentOf(committedAt) }
            ],
            { json, empty: "There are no consumer groups." }
          )
        )
      )
    ).pipe(Command.withDescription("List them")),
    Command.make("forget", { group: Argument.String("group") }, ({ group }) =>
      withGroups((groups) =>
        Effect.flatMap(groups.forget(group), (forgotten) =>
          forgotten
            ? Console.log(`${group} is forgotten`)
            : Effect.fail(new Error(`there is no group ${group} without members`))
        )
      )
    ).pipe(Command.withDescription("Forget one without members, so that it pins messages no longer"))
  ])
)

const eventIds = Argument.String("event-id").pipe(Argument.variadic({ min: 1 }))
const withOutbox = <A, E>(use: (outbox: Outbox["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(Outbox, use),
      operations.pipe(Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

export const outbox = Command.make("outbox").pipe(
  Command.withDescription("Events that the broker refused, and those that wait behind them"),
  Command.withSubcommands([
    Command.make("list", { json }, ({ json }) =>
      withOutbox((outbox) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          yield* printRows(
            yield* outbox.held,
            [
              {
                title: "state",
                value: ({ state }) => state,
                colour: ({ state }) => (state === "FAILED" ? "red" : undefined)
              },
              { title: "event", value: ({ eventId }) => eventId },
              { title: "topic", value: ({ event }) => event.topic },
              { title: "type", value: ({ event }) => event.type },
              { title: "key", value: ({ key }) => key },
              { title: "age (s)", value: ({ event }) => Math.round((now - event.at) / 1000) },
              { title: "error", value: ({ error }) => error }
            ],
            { json, empty: "Nothing is held back." }
          )
        })
      )
    ).pipe(Command.withDescription("List them")),
    Command.make("requeue", { eventIds }, ({ eventIds }) =>
      withOutbox((outbox) =>
        Effect.flatMap(outbox.requeue(eventIds), (count) => Console.log(`${count} will be published again`))
      )
    ).pipe(Command.withDescription("Try FAILED events again, in the order of their keys")),
    Command.make("drop", { eventIds }, ({ eventIds }) =>
      withOutbox((outbox) =>
        Effect.flatMap(outbox.drop(eventIds), (count) => Console.log(`${count} dropped`))
      )
    ).pipe(Command.withDescription("Give FAILED events up, and let those behind them go on"))
  ])
)
