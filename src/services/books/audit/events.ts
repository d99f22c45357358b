import { Effect } from "effect"
import { hash } from "node:crypto"
import type { DatabaseUnavailable } from "../../../schema/Failure.ts"
import { nilUuid } from "../../../schema/Identifier.ts"
import { bucketOf, outboxBuckets } from "../../OutboxBuckets.ts"
import { arrays, parameter } from "../../PostgresTypes.ts"
import { fieldsInSql } from "../../kernel/Table.ts"
import { type ItemRow, items as itemTable } from "../../kernel/tables/catalog.ts"
import { type LedgerRow, ledger } from "../../kernel/tables/stock.ts"
import { type Ask, type Key, type Range, beginning, rangeParameters, within } from "./Asking.ts"
import {
  type Comparison,
  type Digest,
  type Told,
  cellInSql,
  cellOf,
  digestInSql,
  digestOf
} from "./digests.ts"
import { type EventTold, type Unreadable, readEvents } from "./eventText.ts"
import { type Finding, finding } from "./Finding.ts"

// One file: the two sides of the comparison of movements and events have to agree line by line.

/**
 * Invariant 4, and 7 of events: the outbox is read once, in the order of its buckets, and compared with the ledger.
 *
 * A ledger row and the event that tells of it are found by no index from one another. So both sides are summed up in a
 * fixed number of cells (the row's digest says which one, and what is added), and only where a cell's two sums differ are
 * its rows looked at one by one. What is compared is what was posted up to one moment, some seconds ago: a posting's id
 * carries its time, so that both sides mean the same postings, whatever is posted meanwhile.
 */

/** Differing cells whose rows are looked at one by one in one go: about a sixty-fourth of all rows is held at most. */
const cellsPerLook = 1_024
/** Group rows of the outbox read at once. */
const groupsPerRead = 32
/** Items whose numbers are held at once; more are asked about in another pass over the outbox. */
const itemsPerPass = 250_000
/** Keys that wait for their broker and are remembered. */
const waitingKeysMax = 100_000

/** The postings that both sides are asked about: later than `after`, and not after `upTo`. Epoch milliseconds. */
export interface Window {
  readonly after: number | null
  readonly upTo: number
}

export const idAt = (at: number): string => {
  const time = Math.max(0, at).toString(16).padStart(12, "0")
  return `${time.slice(0, 8)}-${time.slice(8)}-0000-0000-000000000000`
}
/** The least id of a posting in the window, and the least one after it. */
export const boundsOf = ({ after, upTo }: Window) => ({
  least: after === null ? nilUuid : idAt(after + 1),
  beyond: idAt(upTo + 1)
})

/** A movement as a key of its own. Ids hold no control characters. */
const textOf = (told: Told): string =>
  [
    told.merchantId,
    told.postingId,
    told.stockId,
    told.type,
    told.onHandDelta,
    told.reservedDelta,
    told.unallocatableDelta
  ].join("\u001f")

export const windowParameters = (window: Window) => {
  const { beyond, least } = boundsOf(window)
  return [parameter("text", least), parameter("text", beyond), parameter("timestamptz", window.upTo)]
}
/** A row that was forged may carry any posting: what was recorded by then counts by its own time. */
export const inWindow = `l.posting_id >= $10::text::uuid AND (l.posting_id < $11::text::uuid OR l.recorded_at <= $12)`

// inventory_ledger_pkey
const rowsStatement = (range: Range) => `
  SELECT ${fieldsInSql(ledger, "l", ["merchantId", "postingId", "stockId", "type"])},
         ${fieldsInSql(ledger, "l", ["onHandDelta", "reservedDelta", "unallocatableDelta"])},
         ${fieldsInSql(ledger, "l", ["sequence", "recordedAt"])}
  FROM inventory_ledger l
  WHERE ${within(range, "uuid", "l", "stock_id")}
    AND ${inWindow}
    AND ${cellInSql(digestInSql("l"))} = ANY ($13)`

/** The movements of a few cells, one by one: in the ledger and not told (positive), or told and not there. */
export class Look {
  readonly cells: ReadonlySet<number>
  readonly #digest: Digest = { high: 0, low: 0 }
  readonly #left = new Map<string, { count: number; readonly told: Told; readonly row: object }>()

  constructor(cells: ReadonlyArray<number>) {
    this.cells = new Set(cells)
  }

  /** Whether a movement is in one of the cells. */
  has(told: Told): boolean {
    digestOf(told.merchantId, told.postingId, told, this.#digest)
    return this.cells.has(cellOf(this.#digest))
  }

  add(told: Told, count: number, row: object): void {
    const text = textOf(told)
    const known = this.#left.get(text)
    const sum = (known?.count ?? 0) + count
    if (sum === 0) this.#left.delete(text)
    else this.#left.set(text, { count: sum, told, row: known?.row ?? row })
  }

  findings(): ReadonlyArray<Finding> {
    return [...this.#left.values()].map(({ count, row, told }) =>
      finding("movement-is-told", {
        merchantId: told.merchantId,
        stockId: told.stockId,
        subject: `posting ${told.postingId} on stock ${told.stockId}`,
        row: { ...told, ...row, untold: Math.max(0, count), unmoved: Math.max(0, -count) }
      })
    )
  }
}

export const lookIntoLedger = Effect.fnUntraced(function* (
  ask: Ask,
  range: Range,
  window: Window,
  look: Look
) {
  const rows = yield* ask<Told & Pick<LedgerRow, "sequence" | "recordedAt">>(rowsStatement(range), [
    ...rangeParameters(range),
    ...windowParameters(window),
    arrays.int4([...look.cells])
  ])
  for (const { recordedAt, sequence, ...told } of rows) look.add(told, 1, { sequence, recordedAt })
})

interface GroupRow {
  readonly position: number
  readonly recordedAt: number
  readonly sent: boolean
  readonly events: string
}

// outbox_pkey
const groupsStatement = `
  SELECT position, recorded_at AS "recordedAt", sent_at IS NOT NULL AS sent, events
  FROM outbox
  WHERE bucket = $1 AND position > $2
  ORDER BY position
  LIMIT $3`

/** Every event of the outbox, in the order of its buckets. */
const readOutbox = Effect.fnUntraced(function* (
  ask: Ask,
  take: (event: EventTold, group: GroupRow, bucket: number) => void,
  refuse: (unreadable: Unreadable, group: GroupRow, bucket: number) => void = () => undefined
) {
  for (let bucket = 0; bucket < outboxBuckets; bucket++) {
    let position = -1
    for (;;) {
      const rows = yield* ask<GroupRow>(groupsStatement, [
        parameter("int4", bucket),
        parameter("int8", position),
        parameter("int4", groupsPerRead)
      ])
      for (const row of rows) {
        readEvents(
          row.events,
          (event) => take(event, row, bucket),
          (unreadable) => refuse(unreadable, row, bucket)
        )
      }
      if (rows.length < groupsPerRead) break
      position = rows.at(-1)!.position
    }
  }
})

/** An event's id is its posting's, with a number. */
const postingOf = ({ id }: EventTold): string => {
  const end = id.indexOf(".")
  return end < 0 ? id : id.slice(0, end)
}
/** Whether an event is of a posting in the window: its id begins with the posting's, and sorts like it. */
const isIn = (window: Window) => {
  const { beyond, least } = boundsOf(window)
  return ({ id }: EventTold): boolean => id >= least && id < beyond
}

/** What is cut out of a text keeps all of it in memory: what outlives its row is copied. */
const kept = (text: string): string => Buffer.from(text).toString()

const toldBy = (event: EventTold): ReadonlyArray<Told> => {
  const { merchantId, movements } = event
  const postingId = postingOf(event)
  return movements.map((moved) => ({ merchantId, postingId, ...moved }))
}

export interface Telling {
  readonly findings: ReadonlyArray<Finding>
  readonly events: number
}

type NumberedItem = Pick<ItemRow, "merchantId" | "itemId" | "eventSequence">
const numberOf = (item: string) => fieldsInSql(itemTable, item, ["merchantId", "itemId", "eventSequence"])

// item_pkey
const itemsStatement = (merchantId: string | undefined) => `
  SELECT ${numberOf("i")}
  FROM item i
  WHERE (i.merchant_id, i.item_id) > ($1::text, $2::text::uuid)
    AND ${merchantId === undefined ? "$4::text IS NULL" : "i.merchant_id = $4::text"}
  ORDER BY i.merchant_id, i.item_id
  LIMIT $3`

interface Numbered {
  /** The item's own number, as it was before the outbox was read. */
  readonly sequence: number
  /** That of its last event. */
  last: number | undefined
  /** Where its events lie. */
  bucket: number | undefined
}

/** By merchant and item: each is asked for by its own text, which is there already. */
type Items = Map<string, Map<string, Numbered>>

/** The items after a key, as many as are held at once. */
const readItems = Effect.fnUntraced(function* (ask: Ask, from: Key, merchantId: string | undefined) {
  const items: Items = new Map()
  let count = 0
  let next: Key = from
  for (;;) {
    const rows = yield* ask<NumberedItem>(itemsStatement(merchantId), [
      parameter("text", next.merchantId),
      parameter("text", next.id),
      parameter("int4", itemsPerRead),
      parameter("text", merchantId ?? null)
    ])
    for (const { eventSequence, itemId, merchantId } of rows) {
      const own = items.get(merchantId) ?? new Map<string, Numbered>()
      own.set(itemId, { sequence: eventSequence, last: undefined, bucket: undefined })
      items.set(merchantId, own)
    }
    count += rows.length
    const last = rows.at(-1)
    if (last !== undefined) next = { merchantId: last.merchantId, id: last.itemId }
    if (rows.length < itemsPerRead) return { items, next: undefined }
    if (count >= itemsPerPass) return { items, next }
  }
})
const itemsPerRead = 10_000

/**
 * One pass over the outbox for some items: their numbers, and, in the first pass, all else that an event is asked about.
 * What it finds is a suspicion while others write; what a second pass finds too is so.
 */
const pass = Effect.fnUntraced(function* (
  ask: Ask,
  options: {
    readonly merchantId: string | undefined
    readonly window: Window
    readonly compared: Window
    readonly items: Items
    readonly isWhole: boolean
    readonly comparison: Comparison | undefined
    readonly gaps: ReadonlySet<string>
  }
) {
  const { compared, comparison, gaps, isWhole, items, merchantId, window } = options
  const found: Array<Finding> = []
  const isAsked = isIn(window)
  const isCompared = isIn(compared)
  const { least } = boundsOf(window)
  /** The first event of each key that is not SENT yet. */
  const waiting = new Map<string, string>()
  const digest: Digest = { high: 0, low: 0 }
  let events = 0
  const take = (event: EventTold, { sent }: GroupRow, bucket: number): void => {
    const { itemId, key, sequence } = event
    if (merchantId !== undefined && event.merchantId !== merchantId) return
    events += 1
    const about = () => ({ merchantId: event.merchantId, subject: `event ${event.id}` })
    const item = itemId === undefined ? undefined : items.get(event.merchantId)?.get(itemId)
    const isNow = isAsked(event)
    if (comparison !== undefined) {
      if (event.movements.length > 0 && isCompared(event)) {
        const postingId = postingOf(event)
        for (const moved of event.movements) {
          digestOf(event.merchantId, postingId, moved, digest)
          comparison.add(digest, -1)
        }
      }
      const isOfItem = item !== undefined && key === itemId
      const keyBucket = isOfItem
        ? (item.bucket ??= bucketOf(itemId!))
        : typeof key === "string"
          ? bucketOf(key)
          : undefined
      if (keyBucket !== bucket) {
        found.push(finding("event-in-its-bucket", { ...about(), row: { key, bucket } }))
      }
      if (typeof key === "string" && (!sent || waiting.size > 0)) {
        const earlier = waiting.get(key)
        if (sent && earlier !== undefined) {
          found.push(finding("sent-in-order", { ...about(), row: { key, unsent: earlier } }))
        } else if (!sent && earlier === undefined && waiting.size < waitingKeysMax) {
          waiting.set(kept(key), kept(event.id))
        }
      }
      if (event.tellsOf !== event.merchantId) {
        found.push(finding("event-of-its-merchant", { ...about(), row: { tells: event.tellsOf ?? null } }))
      }
    }
    if (itemId === undefined) return
    if (item === undefined) {
      if (isWhole && isNow) found.push(finding("event-of-its-merchant", { ...about(), row: { itemId } }))
      return
    }
    if (sequence === undefined) return
    // Of what was removed by age, any part may be left.
    const isFirst = item.last === undefined
    const expected = isFirst ? (window.after === null ? 1 : sequence) : item.last! + 1
    if (isNow && sequence !== expected && !gaps.has(`${event.merchantId} item ${itemId} ${sequence - 1}`)) {
      found.push(
        finding("events-are-numbered", {
          ...about(),
          itemId,
          subject: `event ${event.id} of item ${itemId}`,
          row: { sequence, sequenceExpected: expected }
        })
      )
    }
    if (isNow || event.id >= least) item.last = sequence
  }
  yield* readOutbox(ask, take, (unreadable, group, bucket) => {
    if (comparison !== undefined) found.push(unreadableOf(unreadable, group, bucket))
  })
  return { found, events }
})

/** Whose it is cannot be known: it is told to every merchant that asks. The same row is known by all of its text. */
const unreadableOf = (
  { ordinal, says }: Unreadable,
  { events, position, recordedAt, sent }: GroupRow,
  bucket: number
): Finding => {
  const row = `row ${position} of bucket ${bucket} of the outbox`
  return finding("events-are-readable", {
    merchantId: "",
    subject: ordinal === null ? row : `event ${ordinal} in ${row}`,
    identity: [recordedAt, hash("sha256", events)],
    row: { bucket, position, recordedAt, sent, says, text: events.slice(0, textShownMax) }
  })
}
/** Characters of a text that cannot be read. */
const textShownMax = 200

/** An item's number is that of its last event, as far as one is kept. */
const lastTold = Effect.fnUntraced(function* (ask: Ask, items: Items, window: Window) {
  const found: Array<Finding> = []
  const told = (merchantId: string, itemId: string, sequence: number, last: number): unknown =>
    found.push(
      finding(last < sequence ? "last-event-is-told" : "number-was-told", {
        merchantId,
        itemId,
        subject: `item ${itemId}`,
        identity: last < sequence ? last : "",
        row: { sequence, sequenceTold: last }
      })
    )
  /** More was told of them than the number that was read before: it has grown since, or was turned back. */
  const grown: Array<readonly [string, string, number]> = []
  for (const [merchantId, own] of items) {
    for (const [itemId, { last, sequence }] of own) {
      if (last === undefined && window.after !== null) continue
      if ((last ?? 0) < sequence) told(merchantId, itemId, sequence, last ?? 0)
      else if (last !== undefined && last > sequence) grown.push([merchantId, itemId, last])
    }
  }
  for (let index = 0; index < grown.length; index += itemsPerRead) {
    const some = grown.slice(index, index + itemsPerRead)
    const rows = yield* ask<NumberedItem & { last: number }>(turnedBackStatement, [
      arrays.text(some.map(([merchantId]) => merchantId)),
      arrays.uuid(some.map(([, itemId]) => itemId)),
      arrays.int8(some.map(([, , last]) => last))
    ])
    for (const row of rows) told(row.merchantId, row.itemId, row.eventSequence, row.last)
  }
  return found
})

// item_pkey
const turnedBackStatement = `
  SELECT ${numberOf("i")}, told.last
  FROM unnest($1, $2, $3) AS told (merchant_id, item_id, last)
  CROSS JOIN LATERAL (
    SELECT i.merchant_id, i.item_id, i.event_sequence
    FROM item i
    WHERE i.merchant_id = told.merchant_id AND i.item_id = told.item_id
    OFFSET 0
  ) i
  WHERE i.event_sequence < told.last`

/** All that the outbox is asked about by itself, and its side of the comparison with the ledger. */
export const tell: (
  ask: Ask,
  options: {
    readonly merchantId: string | undefined
    /** The postings whose events are asked about, and those that are compared with the ledger. */
    readonly window: Window
    readonly compared: Window
    readonly comparison: Comparison
  }
) => Effect.Effect<Telling, DatabaseUnavailable> = Effect.fnUntraced(function* (ask, options) {
  const { compared, merchantId, window } = options
  const found: Array<Finding> = []
  let events = 0
  let from: Key | undefined = beginning(merchantId, nilUuid)
  let comparison: Comparison | undefined = options.comparison
  const gaps = new Set(
    (yield* ask<{ gap: string }>(gapsStatement, [parameter("text", merchantId ?? null)])).map(
      ({ gap }) => gap
    )
  )
  while (from !== undefined) {
    const isFirst: boolean = comparison !== undefined
    const { items, next }: { readonly items: Items; readonly next: Key | undefined } = yield* readItems(
      ask,
      from,
      merchantId
    )
    const told = yield* pass(ask, {
      merchantId,
      window,
      compared,
      items,
      comparison,
      gaps,
      isWhole: isFirst && next === undefined
    })
    for (const each of told.found) found.push(each)
    for (const each of yield* lastTold(ask, items, window)) found.push(each)
    events = Math.max(events, told.events)
    comparison = undefined
    from = next
  }
  return { findings: found, events }
})

// Numbers whose events were lost, which a person has acknowledged: the next one follows.
const gapsStatement = `
  SELECT r.merchant_id || ' ' || r.subject || ' ' || (r.before ->> 'sequence') AS gap
  FROM audit_repair r
  WHERE r.action = 'ACKNOWLEDGE' AND r.invariant = 'last-event-is-told' AND ($1::text IS NULL OR r.merchant_id = $1)`

/** The outbox's side of a closer look. */
export const lookIntoOutbox = (ask: Ask, merchantId: string | undefined, window: Window, look: Look) => {
  const isAsked = isIn(window)
  return readOutbox(ask, (event, group, bucket) => {
    if ((merchantId !== undefined && event.merchantId !== merchantId) || !isAsked(event)) return
    for (const told of toldBy(event)) {
      if (!look.has(told)) continue
      const { merchantId, postingId, stockId, type } = told
      const copy = {
        ...told,
        merchantId: kept(merchantId),
        postingId: kept(postingId),
        stockId: kept(stockId),
        type: kept(type)
      }
      look.add(copy, -1, { eventId: kept(event.id), bucket, position: group.position })
    }
  })
}

export const looksOf = (comparison: Comparison): ReadonlyArray<Look> => {
  const differing = comparison.differing()
  const looks: Array<Look> = []
  for (let index = 0; index < differing.length; index += cellsPerLook) {
    looks.push(new Look(differing.slice(index, index + cellsPerLook)))
  }
  return looks
}
