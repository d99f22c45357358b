import type { OutboxEvent } from "./Event.ts"
import type { MovementType } from "./Posting.ts"

/**
 * Events as text, on their way into the outbox. Every movement is told, so that writing it down counts: the events that
 * tell of items are written by their shape, which is what `JSON.stringify` makes of them, byte for byte (a test says so).
 */

/**
 * The events as a JSON array, in pieces that are made as they are asked for: one long string would be copied as a whole,
 * several times.
 */
export const outboxPieces = (events: ReadonlyArray<OutboxEvent>): Iterable<string> => ({
  *[Symbol.iterator]() {
    yield "["
    let isFirst = true
    for (const event of events) {
      yield isFirst ? textOf(event) : `,${textOf(event)}`
      isFirst = false
    }
    yield "]"
  }
})

// Ids of ours, topics and types hold nothing that JSON would escape; all else is quoted.
const textOf = (event: OutboxEvent): string =>
  `{"id":"${event.id}","topic":"${event.topic}","key":${quoted(event.key)},"type":"${event.type}","data":${dataText(event)}${callerText(event)}}`

const dataText = ({ data, type }: OutboxEvent): string => {
  switch (type) {
    case "InventoryAllocated":
    case "InventoryReleased":
    case "InventoryAdjusted":
      return movedText(data as unknown as Moved)
    case "StockLevelChanged":
      return levelText(data as unknown as LevelChanged)
    case "StockStatusChanged":
      return statusText(data as unknown as StatusChanged)
    default:
      return JSON.stringify(data)
  }
}

interface Names {
  readonly merchantId: string
  readonly itemId: string
  readonly productVariantId: string | null
  readonly sku: string | null
}
interface OfItem extends Names {
  readonly quantity: number
  readonly reservedQuantity: number
  readonly availableQuantity: number
  readonly sequence: number
}
interface Movement {
  readonly stockId: string
  readonly locationId: string
  readonly lotNumber: string | null
  readonly type: MovementType
  readonly onHandDelta: number
  readonly reservedDelta: number
  readonly unallocatableDelta: number
}
interface Moved extends OfItem {
  readonly orderId: string | undefined
  readonly reservationId: string | undefined
  readonly reason: string | undefined
  readonly movements: ReadonlyArray<Movement>
}
interface LevelChanged extends OfItem {
  readonly changeType: string
  readonly quantityBefore: number
  readonly quantityAfter: number
}
interface StatusChanged extends OfItem {
  readonly statusBefore: string
  readonly statusAfter: string
}

const movedText = (data: Moved): string => {
  let movements = ""
  for (const movement of data.movements) movements += (movements === "" ? "" : ",") + movementText(movement)
  return (
    `{${namesText(data)}${optional("orderId", data.orderId)}${optional("reservationId", data.reservationId)}` +
    `${optional("reason", data.reason)},"movements":[${movements}],${figuresText(data)},"sequence":${data.sequence}}`
  )
}

const movementText = (movement: Movement): string =>
  `{"stockId":"${movement.stockId}","locationId":${quoted(movement.locationId)},"lotNumber":${quoted(movement.lotNumber)},` +
  `"type":"${movement.type}","onHandDelta":${movement.onHandDelta},"reservedDelta":${movement.reservedDelta},` +
  `"unallocatableDelta":${movement.unallocatableDelta}}`

const levelText = (data: LevelChanged): string =>
  `{${namesText(data)},${figuresText(data)},"changeType":"${data.changeType}",` +
  `"quantityBefore":${data.quantityBefore},"quantityAfter":${data.quantityAfter},"sequence":${data.sequence}}`

const statusText = (data: StatusChanged): string =>
  `{${namesText(data)},${figuresText(data)},"statusBefore":"${data.statusBefore}",` +
  `"statusAfter":"${data.statusAfter}","sequence":${data.sequence}}`

const figuresText = (data: OfItem): string =>
  `"quantity":${data.quantity},"reservedQuantity":${data.reservedQuantity},"availableQuantity":${data.availableQuantity}`

/** The text of what is alike several times in a row: events of an item follow each other, and so do those of a caller. */
const repeated = <T>(isLike: (one: T, other: T) => boolean, textOf: (of: T) => string) => {
  let last: { readonly of: T; readonly text: string } | undefined
  return (of: T): string => {
    if (last === undefined || !isLike(last.of, of)) last = { of, text: textOf(of) }
    return last.text
  }
}

const namesText = repeated<Names>(
  (one, other) =>
    one.itemId === other.itemId &&
    one.productVariantId === other.productVariantId &&
    one.sku === other.sku &&
    one.merchantId === other.merchantId,
  (of) =>
    `"merchantId":${quoted(of.merchantId)},"itemId":"${of.itemId}",` +
    `"productVariantId":${quoted(of.productVariantId)},"sku":${quoted(of.sku)}`
)

const callerText = repeated<OutboxEvent>(
  (one, other) =>
    one.requestId === other.requestId &&
    one.at === other.at &&
    one.merchantId === other.merchantId &&
    one.traceparent === other.traceparent,
  (of) =>
    `,"merchantId":${quoted(of.merchantId)},"at":${of.at},"requestId":${quoted(of.requestId)}` +
    optional("traceparent", of.traceparent)
)

const optional = (name: string, value: string | undefined): string =>
  value === undefined ? "" : `,"${name}":${quoted(value)}`

const quoted = (text: string | null): string =>
  text === null ? "null" : isPlain.test(text) ? `"${text}"` : JSON.stringify(text)
/** Nothing that JSON escapes: quotes, backslashes, control characters, lone surrogates. */
const isPlain = /^[ !#-[\]-\uD7FF\uE000-\uFFFF]*$/
