import { movementFields } from "../../../schema/OutgoingEvent.ts"
import type { Moved } from "./digests.ts"

/**
 * Reads of the outbox's text what audit asks of its events.
 *
 * To parse everything that events tell took most of an audit's processor time. So the text is matched with the shape that
 * the kernel writes, which leaves nothing of it unread and makes values of no more than what is asked. An event of another
 * shape (a character that is escaped, a detail of a discrepancy, fields that somebody has put into another order) is left
 * to `JSON.parse`: what is asked of it is the same.
 */

/** What is asked of an event. */
export interface EventTold {
  readonly id: string
  readonly key: unknown
  readonly merchantId: string
  /** The merchant that its data tells of. */
  readonly tellsOf: unknown
  readonly itemId: string | undefined
  readonly sequence: number | undefined
  readonly movements: ReadonlyArray<Moved>
}

/** What cannot be read: all of a row, or one of its events, by its place from 1. */
export interface Unreadable {
  readonly ordinal: number | null
  readonly says: string
}

/** A text without escapes; a whole number that a double holds; a value that is not asked for. */
const text = String.raw`[^"\\\x00-\x1f]*`
const whole = String.raw`-?(?:0|[1-9]\d{0,14})`
const value = `(?:"${text}"|${whole}|null)`
/** Whatever else an event tells, by members of one value each: what they are called is for the event's schema to say. */
const others = `(?:,"(?!(?:merchantId|itemId|movements|sequence)")[A-Za-z]+":${value})*`

/** A movement as the schema of events has it; what is asked of it is taken, if `open` is a group that captures. */
const movementOf = (open: "(" | "(?:"): string => {
  const asked: Readonly<Record<string, string>> = {
    stockId: `"${open}${text})"`,
    type: `"${open}${text})"`,
    onHandDelta: `${open}${whole})`,
    reservedDelta: `${open}${whole})`,
    unallocatableDelta: `${open}${whole})`
  }
  const members = movementFields.map((field) => `"${field}":${asked[field] ?? value}`)
  return String.raw`\{${members.join(",")}\}`
}

/**
 * An event as the kernel emits it and `JSON.stringify` writes it. Most have one movement, or none. Its data is of its own
 * merchant, and its key the item that it is about (`\2` and `\3`): where they are not, it is parsed.
 */
export const eventPattern = new RegExp(
  String.raw`\{"id":"(${text})","topic":"${text}","key":"(${text})","type":"${text}"` +
    String.raw`,"data":\{"merchantId":"(${text})"(,"itemId":"\2")?${others}` +
    String.raw`(?:,"movements":\[(?:${movementOf("(")}((?:,${movementOf("(?:")})*))?\])?${others}` +
    String.raw`(?:,"sequence":(${whole}))?\}` +
    String.raw`,"merchantId":"\3","at":${whole},"requestId":"${text}"(?:,"traceparent":"${text}")?(?:,"correlationId":"${text}")?\}`,
  "y"
)

const none: ReadonlyArray<Moved> = []

/** `refuse` is told of what cannot be read; what was taken of a row before its text breaks off stays taken. */
export const readEvents = (
  events: string,
  take: (event: EventTold) => void,
  refuse: (unreadable: Unreadable) => void
): void => {
  let taken = 0
  let at = 0
  // Behind the bracket, and then behind each comma.
  for (let before = "["; events[at] === before; before = ",") {
    eventPattern.lastIndex = at + 1
    const match = eventPattern.exec(events)
    if (match === null) break
    at = eventPattern.lastIndex
    taken += 1
    take(matched(match))
  }
  if (events[at] !== "]" || at !== events.length - 1) parse(events, taken, take, refuse)
}

const matched = (match: RegExpExecArray): EventTold => {
  const [, id, key, merchantId, item, stockId, type, onHand, reserved, unallocatable, others, sequence] =
    match
  let movements = none
  if (stockId !== undefined) {
    const first: Moved = {
      stockId,
      type: type!,
      onHandDelta: Number(onHand),
      reservedDelta: Number(reserved),
      unallocatableDelta: Number(unallocatable)
    }
    movements = others === "" ? [first] : [first, ...moved(JSON.parse(`[${others!.slice(1)}]`))]
  }
  return {
    id: id!,
    key,
    merchantId: merchantId!,
    tellsOf: merchantId,
    itemId: item === undefined ? undefined : key,
    sequence: sequence === undefined ? undefined : Number(sequence),
    movements
  }
}

/** All but the first events of a row, whatever their shape. */
const parse = (
  text: string,
  taken: number,
  take: (event: EventTold) => void,
  refuse: (unreadable: Unreadable) => void
): void => {
  let events: unknown
  try {
    events = JSON.parse(text)
  } catch (failure) {
    return refuse({ ordinal: null, says: `it is not JSON: ${(failure as Error).message}` })
  }
  if (!Array.isArray(events)) return refuse({ ordinal: null, says: "it is not an array" })
  for (let index = taken; index < events.length; index++) {
    const event = parsed(events[index])
    if (typeof event === "string") refuse({ ordinal: index + 1, says: event })
    else take(event)
  }
}

const isObject = (json: unknown): json is Readonly<Record<string, unknown>> =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** What is asked of an event, or what is wrong with it. */
const parsed = (event: unknown): EventTold | string => {
  if (!isObject(event)) return "it is not an object"
  const { data, id, key, merchantId } = event
  if (typeof id !== "string") return "its id is not a text"
  if (typeof merchantId !== "string") return "its merchant is not a text"
  if (!isObject(data)) return "its data is not an object"
  const { itemId, merchantId: tellsOf, movements = none, sequence } = data
  if (!Array.isArray(movements) || !movements.every(isMovement)) return "its movements are none"
  return {
    id,
    key,
    merchantId,
    tellsOf,
    itemId: typeof itemId === "string" ? itemId : undefined,
    sequence: typeof sequence === "number" ? sequence : undefined,
    movements: moved(movements)
  }
}

const moved = (movements: ReadonlyArray<Moved>): ReadonlyArray<Moved> =>
  movements.map(({ onHandDelta, reservedDelta, stockId, type, unallocatableDelta }) => ({
    stockId,
    type,
    onHandDelta,
    reservedDelta,
    unallocatableDelta
  }))

const isMovement = (json: unknown): json is Moved =>
  isObject(json) &&
  typeof json["stockId"] === "string" &&
  typeof json["type"] === "string" &&
  [json["onHandDelta"], json["reservedDelta"], json["unallocatableDelta"]].every(Number.isSafeInteger)
