import { Effect } from "effect"
import type { Bulk, Command, DiscrepancyKind, ItemRef, Posting } from "../../schema/Posting.ts"
import type { Session, StatementFailed } from "../Db.ts"
import { Books, type ReservationRow, keyOf, openKey } from "./decide/Books.ts"
import { adjustmentKey } from "./decide/adjustments.ts"
import { deletedItemKey, initialStockKey } from "./decide/catalog.ts"
import { hasOwnRow, postingKey } from "./decide/decide.ts"
import { failedPaymentKey, receivedOrderKey, returnKey } from "./decide/orders.ts"
import { cancelledOrderKey } from "./decide/reservations.ts"
import { saleLineKey, saleSubjects } from "./decide/sales.ts"
import {
  columnsOf,
  discrepancies,
  idempotency,
  items,
  lines,
  locations,
  reservations,
  rowOf,
  stocks,
  tracking,
  widthOf
} from "./LedgerTables.ts"
import { readTruths } from "./LedgerTruths.ts"
import { writesOf } from "./LedgerWrites.ts"
import { arrays, parameter, rowsOf } from "../PostgresTypes.ts"

/**
 * What a batch of postings reads and writes. The lock order is the same everywhere (DESIGN): advisory locks over the
 * documents in a statement of their own, then what they guard, then the item rows, which are the locks of their stocks.
 */

/** Idempotency keys are kept for 24 hours (CONTRACTS section 4). */
export const idempotencyAgeMs = 24 * 60 * 60 * 1000

/** What a batch needs of the database, gathered from its postings. */
interface Needs {
  readonly locks: Set<string>
  readonly orders: Map<string, readonly [merchantId: string, orderId: string]>
  readonly tracking: Map<string, readonly [merchantId: string, key: string]>
  readonly idempotency: Map<string, readonly [merchantId: string, key: string]>
  readonly variants: Map<string, readonly [merchantId: string, variantId: string]>
  readonly skus: Map<string, readonly [merchantId: string, sku: string]>
  readonly items: Map<string, readonly [merchantId: string, itemId: string]>
  /** Merchants whose locations matter to the batch, and those that may not exist yet. */
  readonly merchants: Set<string>
  readonly discrepancies: Map<string, readonly [merchantId: string, discrepancyId: string]>
}

/** `known`: merchants, and locations by `keyOf`, that are known to exist, so that nobody has to wait to create them. */
export const needsOf = (postings: ReadonlyArray<Posting>, known: ReadonlySet<string>): Needs => {
  const needs: Needs = {
    locks: new Set(),
    orders: new Map(),
    tracking: new Map(),
    idempotency: new Map(),
    variants: new Map(),
    skus: new Map(),
    items: new Map(),
    merchants: new Set(),
    discrepancies: new Map()
  }
  for (const { caller, command, id } of postings) {
    const { merchantId } = caller
    const pair = (map: Map<string, readonly [string, string]>, value: string, lock?: string): void => {
      map.set(keyOf(merchantId, value), [merchantId, value])
      if (lock !== undefined) needs.locks.add(`${lock} ${keyOf(merchantId, value)}`)
    }
    const item = (ref: ItemRef, lock?: string): void =>
      "variantId" in ref
        ? pair(needs.variants, ref.variantId, lock === undefined ? undefined : "variant")
        : "sku" in ref
          ? pair(needs.skus, ref.sku, lock === undefined ? undefined : "sku")
          : pair(needs.items, ref.itemId)
    if (!known.has(merchantId)) {
      needs.merchants.add(merchantId)
      needs.locks.add(`merchant ${merchantId}`)
    }
    if (caller.idempotency !== undefined) pair(needs.idempotency, caller.idempotency.key, "idempotency")
    if (hasOwnRow(command)) pair(needs.tracking, postingKey(id))
    for (const operation of operationsOf(command)) {
      if ("orderId" in operation && operation.orderId !== undefined)
        pair(needs.orders, operation.orderId, "order")
      needsOfOperation(operation, { known, needs, merchantId, pair, item })
    }
  }
  return needs
}

type Operation = Exclude<Command, Bulk>

/** What a command asks for, one by one. */
const operationsOf = (command: Command): ReadonlyArray<Operation> =>
  command._tag === "Bulk" ? command.operations.flatMap(operationsOf) : [command]

/** How much a command adds to a batch: the locks it takes and the lines it writes, whichever is more. */
export const weightOf = (command: Command): number => {
  switch (command._tag) {
    case "Bulk":
      return command.operations.reduce((sum, operation) => sum + weightOf(operation), 0)
    case "AdjustStock":
    case "EnsureItem":
      return 2
    case "RecordSale":
    case "ReceiveOrder":
    case "ReturnGoods":
      return 2 * command.lines.length
    default:
      return "lines" in command ? command.lines.length : "counts" in command ? command.counts.length : 1
  }
}

const needsOfOperation = (
  command: Operation,
  {
    item,
    known,
    merchantId,
    needs,
    pair
  }: {
    readonly known: ReadonlySet<string>
    readonly needs: Needs
    readonly merchantId: string
    readonly pair: (map: Map<string, readonly [string, string]>, value: string, lock?: string) => void
    readonly item: (ref: ItemRef, lock?: string) => void
  }
): void => {
  switch (command._tag) {
    case "ReserveStock":
      for (const line of command.lines) item(line.item)
      pair(needs.tracking, cancelledOrderKey(command.orderId))
      if (command.locationId !== undefined) needs.merchants.add(merchantId)
      return
    case "ReleaseReservation":
      if (command.line !== undefined) item(command.line.item)
      return
    case "ConfirmReservation":
    case "ConfirmOrder":
      pair(needs.tracking, cancelledOrderKey(command.orderId))
      return
    case "ExtendReservation":
    case "ExpireReservation":
      return
    case "AdjustStock": {
      item(command.item)
      needs.merchants.add(merchantId)
      const key = adjustmentKey(command)
      if (key !== undefined) pair(needs.tracking, key, "tracking")
      return
    }
    case "EnsureItem":
      if (command.productVariantId !== undefined) item({ variantId: command.productVariantId }, "catalog")
      if (command.sku !== undefined) item({ sku: command.sku }, "catalog")
      // Under the lock of the variant (or of the sku, where there is none).
      if (command.productVariantId !== undefined)
        pair(needs.tracking, deletedItemKey(command.productVariantId))
      if (command.initialStock !== undefined) {
        pair(needs.tracking, initialStockKey(command))
        needs.merchants.add(merchantId)
      }
      if (command.capturedRow !== undefined) needs.locks.add(`captured ${command.capturedRow}`)
      return
    case "DeleteItem":
      item({ variantId: command.productVariantId }, "catalog")
      pair(needs.tracking, deletedItemKey(command.productVariantId))
      return
    case "EnsureMerchant":
      return
    case "EnsureLocation":
      needs.merchants.add(merchantId)
      needs.locks.add(`locations ${merchantId}`)
      return
    // What messages name may be new: the locks are those of who creates it. Keys that name an order are under its lock.
    case "RecordSale":
      needs.merchants.add(merchantId)
      pair(needs.tracking, cancelledOrderKey(command.orderId))
      for (const line of command.lines) {
        item({ variantId: line.productVariantId }, "catalog")
        pair(needs.tracking, saleLineKey(command.orderId, line))
        if (line.locationId !== undefined && !known.has(keyOf(merchantId, line.locationId)))
          needs.locks.add(`locations ${merchantId}`)
      }
      return
    case "ReceiveOrder":
      for (const line of command.lines) item({ variantId: line.productVariantId }, "catalog")
      pair(needs.tracking, cancelledOrderKey(command.orderId))
      pair(needs.tracking, receivedOrderKey(command.orderId))
      return
    case "CancelOrder":
      pair(needs.tracking, cancelledOrderKey(command.orderId))
      pair(needs.tracking, failedPaymentKey(command.orderId))
      return
    case "ReturnGoods":
      needs.merchants.add(merchantId)
      for (const line of command.lines) item({ variantId: line.productVariantId }, "catalog")
      pair(needs.tracking, returnKey(command.messageId), "tracking")
      return
    case "CountStock":
      for (const count of command.counts) item(count.item)
      needs.merchants.add(merchantId)
      return
    case "ResolveDiscrepancy":
      pair(needs.discrepancies, command.discrepancyId, "discrepancy")
      return
    case "MendItem":
      item({ itemId: command.itemId })
      return
    case "MendReservation":
      for (const itemId of command.itemIds) item({ itemId })
      return
  }
}

const columns = (pairs: Iterable<readonly [string, string]>) => {
  const all = [...pairs]
  return [
    arrays.text(all.map(([merchantId]) => merchantId)),
    arrays.text(all.map(([, value]) => value))
  ] as const
}

/** Begins the transaction, takes the locks and reads the books. Answers with the transaction's id, for its COMMIT. */
export const open = Effect.fnUntraced(function* (
  session: Session,
  postings: ReadonlyArray<Posting>,
  known: ReadonlySet<string>,
  at: number
) {
  const books = new Books()
  const needs = needsOf(postings, known)
  for (const { caller } of postings) {
    if (known.has(caller.merchantId)) books.merchants.add(caller.merchantId)
  }

  const wantItem = (merchantId: string, itemId: string): unknown =>
    needs.items.set(keyOf(merchantId, itemId), [merchantId, itemId])

  const begin: Array<Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, StatementFailed>> = [
    session.run("BEGIN ISOLATION LEVEL READ COMMITTED", []),
    session.run(takeLocks, [arrays.text([...needs.locks])])
  ]
  const reads: Array<(rows: ReadonlyArray<ReadonlyArray<unknown>>) => void> = []
  const read = (
    statement: string,
    parameters: ReadonlyArray<unknown>,
    take: (row: ReadonlyArray<unknown>) => void
  ): void => {
    begin.push(session.run(statement, parameters))
    reads.push((rows) => rows.forEach(take))
  }
  if (needs.orders.size > 0) read(readOrders, columns(needs.orders.values()), takeOrderRow(books))
  if (needs.tracking.size > 0) {
    read(readTracking, columns(needs.tracking.values()), (values) => {
      const row = trackingOf(values)
      books.tracking.set(row.merchantId, row.trackingKey, row)
    })
  }
  if (needs.idempotency.size > 0) {
    const since = parameter("timestamptz", at - idempotencyAgeMs)
    read(readIdempotency, [...columns(needs.idempotency.values()), since], (values) => {
      const row = idempotencyOf(values)
      books.idempotency.set(row.merchantId, row.idempotencyKey, row)
    })
  }
  if (needs.merchants.size > 0) {
    read(readLocations, [arrays.text([...needs.merchants])], (values) => {
      const row = locationOf(values)
      books.merchants.add(row.merchantId)
      books.locations.set(row.merchantId, row.locationId, row)
    })
  }
  if (needs.variants.size + needs.skus.size > 0) {
    const names = [...columns(needs.variants.values()), ...columns(needs.skus.values())]
    read(findItems, names, ([merchantId, itemId]) => wantItem(merchantId as string, itemId as string))
  }
  if (needs.discrepancies.size > 0) {
    read(readDiscrepancies, columns(needs.discrepancies.values()), (values) => {
      const discrepancy = discrepancyOf(values)
      books.discrepancies.set(discrepancy.merchantId, discrepancy.discrepancyId, discrepancy)
      if (discrepancy.itemId !== null) wantItem(discrepancy.merchantId, discrepancy.itemId)
    })
  }
  const answers = yield* Effect.all(begin, { concurrency: "unbounded" })
  const [, locked, ...found] = answers
  reads.forEach((take, index) => take(found[index]!))
  const transactionId = locked![0]![1] as string

  // The items that the orders' documents speak of are locked with those that the postings name.
  for (const reservations of books.reservationsOfOrder.values()) {
    for (const { lines } of reservations) {
      for (const { itemId, merchantId } of lines) wantItem(merchantId, itemId)
    }
  }
  if (needs.items.size > 0) {
    const wanted = [
      arrays.text([...needs.items.values()].map(([merchantId]) => merchantId)),
      arrays.uuid([...needs.items.values()].map(([, itemId]) => itemId))
    ]
    const [foundItems, foundStocks] = yield* Effect.all(
      [
        session.run(lockItems, wanted),
        // A statement of its own, and so a snapshot of its own: it sees what was committed before the locks were had.
        session.run(readStocks, wanted)
      ],
      { concurrency: "unbounded" }
    )
    for (const row of foundItems) books.addItem(itemOf(row))
    for (const row of foundStocks) {
      books.addStock({
        ...stockOf(row),
        locationIsDefault: row[placeOf] as boolean,
        locationPosition: row[placeOf + 1] as number
      })
    }
  }
  yield* readTruths(session, postings, books)
  const subjects = subjectsOf(postings, books)
  if (subjects.length > 0) {
    for (const [merchantId, subject, kind] of yield* session.run(readOpen, columns(subjects))) {
      books.open.set(merchantId as string, openKey(subject as string, kind as DiscrepancyKind), true)
    }
  }
  return { books, transactionId }
})

/**
 * What the batch may open a discrepancy about that no balance tells: a lot that was sold past its expiry, a return that
 * exceeds the sale, a sale that is told otherwise than before, a count that differs. Hardly ever anything.
 */
const subjectsOf = (
  postings: ReadonlyArray<Posting>,
  books: Books
): ReadonlyArray<readonly [merchantId: string, subject: string]> => {
  const subjects: Array<readonly [string, string]> = []
  for (const { at, caller, command } of postings) {
    for (const operation of operationsOf(command)) {
      if (operation._tag === "MendItem" || operation._tag === "MendReservation") {
        for (const { merchantId, stockId } of books.stocks.values()) subjects.push([merchantId, stockId])
      }
      if (operation._tag === "CountStock") {
        for (const count of operation.counts) {
          const item = books.findItem(caller.merchantId, count.item)
          if (item === undefined) continue
          for (const { merchantId, stockId } of books.stocksOf(item)) subjects.push([merchantId, stockId])
        }
      }
      if (!("orderId" in operation) || operation.orderId === undefined) continue
      const isReturn = operation._tag === "AdjustStock" && operation.changeType === "RETURN"
      if (isReturn || operation._tag === "ReturnGoods") {
        subjects.push([caller.merchantId, operation.orderId])
      }
      if (operation._tag === "RecordSale") {
        for (const subject of saleSubjects(books, caller.merchantId, operation, at))
          subjects.push([caller.merchantId, subject])
      }
      for (const { lines } of books.reservationsOf(caller.merchantId, operation.orderId)) {
        for (const { merchantId, open, stockId } of lines) {
          const stock = open > 0 && stockId !== null ? books.stocks.get(merchantId, stockId) : undefined
          if (stock !== undefined && stock.lotExpiresAt !== null && stock.lotExpiresAt <= at) {
            subjects.push([merchantId, stock.stockId])
          }
        }
      }
    }
  }
  return subjects
}

// discrepancy_one_open
const readOpen = `
  SELECT d.merchant_id, d.subject, d.kind
  FROM ${rowsOf(["merchant_id", "subject"])} AS wanted
  JOIN discrepancy d ON d.merchant_id = wanted.merchant_id AND d.subject = wanted.subject AND d.status = 'OPEN'`

// Counted, because a row to be sent and read for each lock costs as much as the lock.
const takeLocks = `
  SELECT count(pg_advisory_xact_lock(lock)::text), pg_current_xact_id()::text
  FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock FROM ${rowsOf(["key"])} AS keys ORDER BY lock) AS locks`

// reservation_by_order, reservation_line_pkey. OFFSET 0 has each order looked up, however small the table seemed when
// the plan was made.
const readOrders = `
  SELECT ${columnsOf(reservations, "r")}, ${columnsOf(lines, "l")}
  FROM ${rowsOf(["merchant_id", "order_id"])} AS wanted
  CROSS JOIN LATERAL (
    SELECT *
    FROM reservation
    WHERE reservation.merchant_id = wanted.merchant_id AND reservation.order_id = wanted.order_id
    OFFSET 0
  ) AS r
  LEFT JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
  ORDER BY r.merchant_id, r.order_id, r.created_at, r.reservation_id, l.line_number`

const takeOrderRow = (books: Books) => {
  let current: ReservationRow | undefined
  return (values: ReadonlyArray<unknown>): void => {
    const head = reservationOf(values)
    if (current?.reservationId !== head.reservationId || current.merchantId !== head.merchantId) {
      current = { ...head, lines: [] }
      books.addReservation(current)
    }
    const line = lineOf(values)
    // A reservation without lines: the join gives none.
    if (line.lineNumber !== null) current.lines.push(line)
  }
}
const reservationOf = rowOf(reservations)
const lineOf = rowOf(lines, widthOf(reservations))

// tracking_pkey
const readTracking = `
  SELECT ${columnsOf(tracking, "t")}
  FROM ${rowsOf(["merchant_id", "tracking_key"])} AS wanted
  JOIN tracking t ON t.merchant_id = wanted.merchant_id AND t.tracking_key = wanted.tracking_key`
const trackingOf = rowOf(tracking)

// idempotency_pkey
const readIdempotency = `
  SELECT ${columnsOf(idempotency, "i")}
  FROM ${rowsOf(["merchant_id", "idempotency_key"])} AS wanted
  JOIN idempotency i ON i.merchant_id = wanted.merchant_id AND i.idempotency_key = wanted.idempotency_key
  WHERE i.created_at > $3`
const idempotencyOf = rowOf(idempotency)

// merchant_pkey, location_pkey
const readLocations = `
  SELECT ${columnsOf(locations, "l")}
  FROM ${rowsOf(["merchant_id"])} AS wanted
  JOIN location l ON l.merchant_id = wanted.merchant_id
  ORDER BY l.merchant_id, l.position`

const locationOf = rowOf(locations)

// discrepancy_pkey
const readDiscrepancies = `
  SELECT ${columnsOf(discrepancies, "d")}
  FROM ${rowsOf(["merchant_id", "discrepancy_id"])} AS wanted
  JOIN discrepancy d
    ON d.merchant_id = wanted.merchant_id AND d.discrepancy_id = wanted.discrepancy_id::uuid`

const discrepancyOf = rowOf(discrepancies)

// item_merchant_id_product_variant_id_key, item_merchant_id_sku_key. UNION, because OR scans the table.
const findItems = `
  SELECT i.merchant_id, i.item_id
  FROM ${rowsOf(["merchant_id", "variant_id"])} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.product_variant_id = wanted.variant_id
  UNION ALL
  SELECT i.merchant_id, i.item_id
  FROM ${rowsOf(["merchant_id", "sku"], 3)} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.sku = wanted.sku`

// item_pkey. The item row is the lock of its stocks, and the order of its events.
const lockItems = `
  SELECT ${columnsOf(items, "i")}
  FROM ${rowsOf(["merchant_id", "item_id"])} AS wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.item_id = wanted.item_id
  ORDER BY i.merchant_id, i.item_id
  FOR NO KEY UPDATE OF i`

const itemOf = rowOf(items)

// stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
const readStocks = `
  SELECT ${columnsOf(stocks, "s")}, l.is_default, l.position
  FROM ${rowsOf(["merchant_id", "item_id"])} AS wanted
  JOIN stock s ON s.merchant_id = wanted.merchant_id AND s.item_id = wanted.item_id
  JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id`

const stockOf = rowOf(stocks)
const placeOf = widthOf(stocks)

/** Writes what the batch has decided and commits, in one flight. Every update asserts how many rows it matched. */
export const commit = Effect.fnUntraced(function* (session: Session, books: Books) {
  const writes = writesOf(books).map(([statement, parameters]) => session.run(statement, parameters))
  yield* Effect.all([...writes, session.run("COMMIT", [])], { concurrency: "unbounded", discard: true })
})

/**
 * Whether a transaction whose answer is lost may still come to commit. After a crash its id may be in the future of the
 * server that recovered: then it never wrote anything.
 */
export const isInProgress = (
  session: Session,
  transactionId: string
): Effect.Effect<boolean, StatementFailed> =>
  Effect.map(session.run(readStatus, [transactionId]), ([row]) => row?.[0] === "in progress")

const readStatus = `
  SELECT CASE WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    THEN pg_xact_status($1::text::xid8) END`

/**
 * Whether what a batch has decided is in the database. Asked by a row that carries a posting's id, and not by
 * `pg_xact_status`: a server that crashed gives the ids of transactions whose WAL was not flushed to others, so that
 * "committed" may be said of somebody else's. One row speaks for all, since they were written by one transaction.
 */
export const isWritten = Effect.fnUntraced(function* (session: Session, { written }: Books) {
  const [tracked] = written.tracking
  const [reservation] = written.reservations
  const rows =
    tracked !== undefined
      ? yield* session.run(readWrittenTracking, [tracked.merchantId, tracked.trackingKey, tracked.postingId])
      : reservation !== undefined
        ? yield* session.run(readWrittenReservation, [reservation.merchantId, reservation.reservationId])
        : []
  return rows.length > 0
})

// tracking_pkey
const readWrittenTracking = `
  SELECT 1 FROM tracking WHERE merchant_id = $1::text AND tracking_key = $2::text AND posting_id = $3::text::uuid`

// reservation_pkey
const readWrittenReservation = `
  SELECT 1 FROM reservation WHERE merchant_id = $1::text AND reservation_id = $2::text::uuid`

export const rollback = (session: Session): Effect.Effect<void, StatementFailed> =>
  Effect.asVoid(session.run("ROLLBACK", []))

export const hasWrites = ({ changed, written }: Books): boolean =>
  [...Object.values(written), ...Object.values(changed)].some((rows) =>
    Array.isArray(rows) ? rows.length > 0 : rows.size > 0
  )
