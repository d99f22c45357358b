import type { Some } from "../../schema/Some.ts"
import { Schema } from "effect"
import type { MovementSource } from "../../schema/Movement.ts"
import type { Needs } from "./Needs.ts"
import type { Decision } from "./Posting.ts"
import type { PostingContext } from "./PostingContext.ts"

/** What is asked, answered and refused: the schemas of a command. */
export interface CommandShape<
  Payload extends { readonly _tag: string } = Some,
  Answer = Some,
  Refusal = Some
> {
  readonly tag: Payload["_tag"]
  readonly payload: Schema.Codec<Payload, Some>
  readonly answer: Schema.Codec<Answer, Some>
  /** Raised when the answer's form changes: kept answers of an older form are brought up to it by `upgrade`. */
  readonly version: number
  readonly upgrade: (kept: unknown, version: number) => unknown
  readonly encode: (answer: Answer) => unknown
  readonly decode: (kept: unknown) => Answer
  /** Not there at run time: every failure that the decision may answer with, besides those of every posting. */
  readonly refusal?: Refusal
}

/**
 * What a command is to the kernel: one definition. The types of commands, answers and refusals, what is locked and read,
 * the bounds of a batch and how kept answers are read are derived from the list of definitions (`commands.ts`).
 */
export interface CommandDefinition<
  Payload extends { readonly _tag: string } = Some,
  Answer = Some,
  Refusal = Some,
  Keys = Some
> extends CommandShape<Payload, Answer, Refusal> {
  /** Where its movements come from, unless their type says it. */
  readonly source: MovementSource | null
  /**
   * Whether the posting keeps its answer in a tracking row of its own, for its own second run. One that finds its effect
   * again by itself needs none.
   */
  readonly keepsAnswer: boolean
  /** How much it adds to a batch: the locks it takes and the lines it writes, whichever is more. */
  readonly weight: (command: Payload) => number
  readonly needs: (need: Needs, command: Payload) => Keys
  /**
   * Decides over the unit of work: pure but for it. What it may refuse with is what its shape names, and the compiler
   * knows.
   */
  readonly decide: (context: PostingContext, command: Payload, keys: Keys) => Decision<Answer, Refusal>
}

type RefusalClass = abstract new (...args: Some) => { readonly _tag: string }

export const commandShape = <
  const Tag extends string,
  Fields extends Schema.Struct.Fields,
  Answer,
  const Refusals extends ReadonlyArray<RefusalClass>
>(shape: {
  readonly tag: Tag
  readonly payload: Fields
  readonly answer: Schema.Codec<Answer, Some>
  readonly refusals: Refusals
  readonly version?: number
  readonly upgrade?: (kept: unknown, version: number) => unknown
}): CommandShape<
  Schema.Struct<Fields>["Type"] & { readonly _tag: Tag },
  Answer,
  InstanceType<Refusals[number]>
> => ({
  tag: shape.tag as never,
  payload: Schema.TaggedStruct(shape.tag, shape.payload) as never,
  answer: shape.answer,
  version: shape.version ?? 1,
  upgrade: shape.upgrade ?? ((kept) => kept),
  encode: Schema.encodeUnknownSync(shape.answer),
  decode: Schema.decodeUnknownSync(shape.answer)
})

export const defineCommand = <Payload extends { readonly _tag: string }, Answer, Refusal, Keys>(
  shape: CommandShape<Payload, Answer, Refusal>,
  definition: {
    readonly source?: MovementSource
    readonly keepsAnswer?: boolean
    readonly weight?: (command: Payload) => number
    readonly needs: (need: Needs, command: Payload) => Keys
    readonly decide: (context: PostingContext, command: Payload, keys: Keys) => Decision<Answer, Refusal>
  }
): CommandDefinition<Payload, Answer, Refusal, Keys> => ({
  ...shape,
  source: definition.source ?? null,
  keepsAnswer: definition.keepsAnswer ?? true,
  weight: definition.weight ?? (() => 1),
  needs: definition.needs,
  decide: definition.decide
})

/** A list of definitions, as the kernel looks them up. */
export type Definitions = ReadonlyMap<string, CommandDefinition>
export const definitionsOf = (list: ReadonlyArray<CommandDefinition>): Definitions =>
  new Map(list.map((definition) => [definition.tag, definition]))

export const definitionOf = (definitions: Definitions, tag: string): CommandDefinition => {
  const definition = definitions.get(tag)
  if (definition === undefined) throw new Error(`${tag} is not among the kernel's commands`)
  return definition
}

export type PayloadOf<S> = S extends CommandShape<infer P> ? P : never
export type AnswerOf<S> = S extends CommandShape<Some, infer A> ? A : never
export type RefusalOf<S> = S extends CommandShape<Some, Some, infer R> ? R : never

/**
 * Kept answers are JSON: the posting that made them, its command, the version of their form, and the answer by its schema,
 * so that a replay after an upgrade is rendered as the first answer was.
 */
interface KeptAnswer {
  readonly posting: string
  readonly command: string
  readonly version: number
  readonly answer: unknown
}

const isKept = (kept: unknown): kept is KeptAnswer =>
  typeof kept === "object" && kept !== null && "posting" in kept && "command" in kept && "answer" in kept

export const keptAnswer = (definition: CommandDefinition, postingId: string, answer: unknown): string => {
  const kept: KeptAnswer = {
    posting: postingId,
    command: definition.tag,
    version: definition.version,
    answer: definition.encode(answer)
  }
  return JSON.stringify(kept)
}

/** An answer that was kept, and the posting that made it: null for one from before answers had versions. */
export const readAnswer = (
  definitions: Definitions,
  asked: CommandDefinition,
  text: string
): { readonly answer: Some; readonly postingId: string | null } => {
  const kept: unknown = JSON.parse(text)
  const { answer, command, posting, version } = isKept(kept)
    ? kept
    : { answer: kept, command: asked.tag, posting: null, version: 1 }
  const definition = definitionOf(definitions, command)
  return { answer: definition.decode(definition.upgrade(answer, version)), postingId: posting }
}
