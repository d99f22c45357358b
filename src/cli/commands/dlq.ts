import { Clock, Console, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import { Uuid } from "../../schema/Identifier.ts"
import { type DeadLetter, DeadLetters } from "../../services/messaging/DeadLetters.ts"
import { commandDatabase } from "../database.ts"
import { json } from "../options.ts"
import { foundation } from "../service.ts"
import { momentOf, printJson, printRows } from "../Table.ts"

/** `holdfast dlq`: messages that could not be applied. Their cause is fixed first; then they are published again. */

const ids = Argument.String("id").pipe(Argument.withSchema(Uuid))
const topic = Flag.String("topic").pipe(Flag.withDescription("Only those of this topic"), Flag.optional)

const withDeadLetters = <A, E>(use: (deadLetters: DeadLetters["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      Effect.flatMap(DeadLetters, use),
      DeadLetters.layer.pipe(Layer.provide(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)

/** There is no dead letter with that id: it was dropped, or never was. */
export class DeadLetterNotFound extends Schema.TaggedError<DeadLetterNotFound>()("DeadLetterNotFound", {
  deadLetterId: Schema.String
}) {
  override get message(): string {
    return `there is no dead letter ${this.deadLetterId}: see holdfast dlq list --all`
  }
}

/** Some of the dead letters were not published: the lines before say which and why. */
export class NotReplayed extends Schema.TaggedError<NotReplayed>()("NotReplayed", { count: Schema.Int }) {
  override get message(): string {
    return `${this.count} could not be replayed`
  }
}

const place = ({ offset, partition }: DeadLetter): string => `${partition}:${offset}`

const list = Command.make(
  "list",
  {
    topic,
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("Those too that were replayed"),
      Flag.withDefault(false)
    ),
    json
  },
  ({ all, json, topic }) =>
    withDeadLetters((deadLetters) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        yield* printRows(
          yield* deadLetters.list({ topic: Option.getOrUndefined(topic), replayed: all }),
          [
            { title: "id", value: ({ deadLetterId }) => deadLetterId, id: "whole" },
            { title: "topic", value: ({ topic }) => topic },
            { title: "place", value: place },
            { title: "bytes", value: ({ valueBytes }) => valueBytes },
            { title: "age (s)", value: ({ recordedAt }) => Math.round((now - recordedAt) / 1000) },
            { title: "replays", value: ({ replays }) => replays },
            { title: "reason", value: ({ reason }) => reason.code, colour: () => "red" },
            { title: "detail", value: ({ reason }) => reason.detail }
          ],
          { json, empty: "There are no dead letters." }
        )
      })
    )
).pipe(Command.withDescription("List those that wait, oldest first"))

/** Characters of a value that a person is shown. */
const shownMax = 4_000
/** What JSON leaves as it is and would still steer a terminal. */
const escaped = (text: string): string =>
  text.replace(
    /[\u007F-\u009F\p{Bidi_C}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

const show = Command.make("show", { id: ids, json }, ({ id, json }) =>
  withDeadLetters((deadLetters) =>
    Effect.gen(function* () {
      const found = yield* deadLetters.show(id)
      if (found === undefined) return yield* new DeadLetterNotFound({ deadLetterId: id })
      const { value, ...letter } = found
      if (json) {
        const valueBase64 = value === null ? null : Buffer.from(value).toString("base64")
        return yield* printJson({ ...letter, valueBase64 })
      }
      const text = value === null ? null : Buffer.from(value).toString()
      const shown = {
        ...letter,
        publishedAt: momentOf(letter.publishedAt),
        recordedAt: momentOf(letter.recordedAt),
        replayedAt: momentOf(letter.replayedAt),
        value: text !== null && text.length > shownMax ? `${text.slice(0, shownMax)}…` : text
      }
      yield* Console.log(escaped(JSON.stringify(shown, undefined, 2)))
    })
  )
).pipe(Command.withDescription("Show one: why, where it lay, its headers and what is in it"))

const replay = Command.make(
  "replay",
  {
    ids: ids.pipe(Argument.variadic()),
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("All that were never replayed"),
      Flag.withDefault(false)
    ),
    topic
  },
  ({ all, ids, topic }) =>
    withDeadLetters((deadLetters) =>
      Effect.gen(function* () {
        const wanted =
          all || Option.isSome(topic)
            ? (yield* deadLetters.list({ topic: Option.getOrUndefined(topic) })).map(
                ({ deadLetterId }) => deadLetterId
              )
            : ids
        const replayed = yield* deadLetters.replay(wanted)
        const failed = replayed.filter(({ outcome }) => outcome !== "PUBLISHED")
        for (const { deadLetterId, detail, outcome } of failed) {
          yield* Console.log(`${deadLetterId} ${outcome} ${detail ?? ""}`.trimEnd())
        }
        yield* Console.log(`${replayed.length - failed.length} published again`)
        if (failed.length > 0) return yield* new NotReplayed({ count: failed.length })
      })
    )
).pipe(
  Command.withDescription(
    "Publish them again as they came, to the topic they came from; repeating it does no harm"
  )
)

const drop = Command.make("drop", { ids: ids.pipe(Argument.variadic({ min: 1 })) }, ({ ids }) =>
  withDeadLetters((deadLetters) =>
    Effect.flatMap(deadLetters.drop(ids), (count) => Console.log(`${count} dropped`))
  )
).pipe(Command.withDescription("Forget them: what they say will never be applied"))

export const dlq = Command.make("dlq").pipe(
  Command.withDescription("Dead letters: messages that could not be applied"),
  Command.withSubcommands([list, show, replay, drop])
)
