import { Effect } from "effect"
import type { Bulk, Command, DiscrepancyKind, ItemRef, Posting } from "../schema/Posting.ts"
import type { Session, StatementFailed } from "./Db.ts"
import {
  Books,
  type DiscrepancyRow,
  type EventRow,
  type IdempotencyRow,
  type ItemRow,
  type LedgerRow,
  type LineRow,
  type LocationRow,
  type ReservationRow,
  type StockRow,
  type TrackingRow,
  keyOf,
  openKey
} from "./decide/Books.ts"
import { adjustmentKey } from "./decide/adjustments.ts"
import { deletedItemKey, initialStockKey } from "./decide/catalog.ts"
import { hasOwnRow, postingKey } from "./decide/decide.ts"
import { failedPaymentKey, receivedOrderKey, returnKey } from "./decide/orders.ts"
import { cancelledOrderKey } from "./decide/reservations.ts"
import { saleLineKey } from "./decide/sales.ts"
import { arrays, parameter } from "./PostgresTypes.ts"

/**
 * What a batch of postings reads and writes. The lock order is the same everywhere (DESIGN): advisory locks over the
 * documents in a statement of their own, then what they guard, then the item rows, which are the locks of their stocks.
 */

/** Idempotency keys are kept for 24 hours (CONTRACTS section 4). */
export const idempotencyAgeMs = 24 * 60 * 60 * 1000
export const outboxBuckets = 4
export const outboxChannel = "holdfast_outbox"

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

  const begin: Array<Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, StatementFailed>> = [
    session.run("BEGIN ISOLATION LEVEL READ COMMITTED", []),
    session.run(takeLocks, [arrays.text([...needs.locks])]),
    session.run("SELECT pg_current_xact_id()::text", [])
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
    read(
      readTracking,
      columns(needs.tracking.values()),
      ([merchantId, trackingKey, postingId, answer, recordedAt]) =>
        books.tracking.set(keyOf(merchantId as string, trackingKey as string), {
          merchantId,
          trackingKey,
          postingId,
          answer,
          recordedAt
        } as never)
    )
  }
  if (needs.idempotency.size > 0) {
    const since = parameter("timestamptz", at - idempotencyAgeMs)
    read(
      readIdempotency,
      [...columns(needs.idempotency.values()), since],
      ([merchantId, idempotencyKey, fingerprint, answer, createdAt]) =>
        books.idempotency.set(keyOf(merchantId as string, idempotencyKey as string), {
          merchantId,
          idempotencyKey,
          fingerprint,
          answer,
          createdAt
        } as never)
    )
  }
  if (needs.merchants.size > 0) {
    read(readLocations, [arrays.text([...needs.merchants])], takeLocationRow(books))
  }
  if (needs.discrepancies.size > 0) {
    const [merchants, ids] = columns(needs.discrepancies.values())
    read(readDiscrepancies, [merchants, ids], (row) => {
      const discrepancy = discrepancyRow(row)
      books.discrepancies.set(keyOf(discrepancy.merchantId, discrepancy.discrepancyId), discrepancy)
      if (discrepancy.itemId !== null) {
        needs.items.set(keyOf(discrepancy.merchantId, discrepancy.itemId), [
          discrepancy.merchantId,
          discrepancy.itemId
        ])
      }
    })
  }
  const answers = yield* Effect.all(begin, { concurrency: "unbounded" })
  reads.forEach((take, index) => take(answers[index + 3]!))
  const transactionId = answers[2]![0]![0] as string

  const linked = [...needs.items.values(), ...itemsOfOrders(books)]
  if (linked.length + needs.variants.size + needs.skus.size > 0) {
    const [items, stocks] = yield* Effect.all(
      [
        session.run(lockItems, [
          ...columns(needs.variants.values()),
          ...columns(needs.skus.values()),
          arrays.text(linked.map(([merchantId]) => merchantId)),
          arrays.uuid(linked.map(([, itemId]) => itemId))
        ]),
        // A statement of its own, and so a snapshot of its own: it sees what was committed before the locks were had.
        session.run(readStocks, [
          ...columns(needs.variants.values()),
          ...columns(needs.skus.values()),
          arrays.text(linked.map(([merchantId]) => merchantId)),
          arrays.uuid(linked.map(([, itemId]) => itemId))
        ])
      ],
      { concurrency: "unbounded" }
    )
    for (const row of items) books.addItem(itemRow(row))
    for (const row of stocks) books.addStock(stockRow(row))
    const subjects = subjectsOf(postings, books)
    if (subjects.length > 0) {
      for (const [merchantId, subject, kind] of yield* session.run(readOpen, columns(subjects))) {
        books.open.set(openKey(merchantId as string, subject as string, kind as DiscrepancyKind), true)
      }
    }
  }
  return { books, transactionId }
})

/**
 * What the batch may open a discrepancy about that no balance tells: a lot that was sold past its expiry, a return that
 * exceeds the sale, a count that differs. Hardly ever anything.
 */
const subjectsOf = (
  postings: ReadonlyArray<Posting>,
  books: Books
): ReadonlyArray<readonly [merchantId: string, subject: string]> => {
  const subjects: Array<readonly [string, string]> = []
  for (const { at, caller, command } of postings) {
    for (const operation of operationsOf(command)) {
      if (operation._tag === "CountStock") {
        for (const count of operation.counts) {
          const item = books.findItem(caller.merchantId, count.item)
          if (item === undefined) continue
          for (const { merchantId, stockId } of books.stocksOf(item)) subjects.push([merchantId, stockId])
        }
      }
      if (!("orderId" in operation) || operation.orderId === undefined) continue
      if (operation._tag === "AdjustStock" && operation.changeType === "RETURN") {
        subjects.push([caller.merchantId, operation.orderId])
      }
      for (const { lines } of books.reservationsOf(caller.merchantId, operation.orderId)) {
        for (const { merchantId, open, stockId } of lines) {
          const stock =
            open > 0 && stockId !== null ? books.stocks.get(keyOf(merchantId, stockId)) : undefined
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
  FROM unnest($1, $2) AS wanted (merchant_id, subject)
  JOIN discrepancy d ON d.merchant_id = wanted.merchant_id AND d.subject = wanted.subject AND d.status = 'OPEN'`

/** The items that the orders' documents speak of: they are locked with those that the postings name. */
const itemsOfOrders = (books: Books): ReadonlyArray<readonly [string, string]> => {
  const items = new Map<string, readonly [string, string]>()
  for (const reservations of books.reservationsOfOrder.values()) {
    for (const { lines } of reservations) {
      for (const { itemId, merchantId } of lines) items.set(keyOf(merchantId, itemId), [merchantId, itemId])
    }
  }
  return [...items.values()]
}

const takeLocks = `
  SELECT pg_advisory_xact_lock(lock)::text
  FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock FROM unnest($1) AS key ORDER BY lock) AS locks`

// reservation_by_order, reservation_line_pkey. OFFSET 0 has each order looked up, however small the table seemed when
// the plan was made.
const readOrders = `
  SELECT r.merchant_id, r.reservation_id, r.order_id, r.kind, r.scope, r.status, r.request, r.metadata,
         r.expires_at, r.created_at, r.updated_at,
         l.line_number, l.item_id, l.stock_id, l.quantity, l.open, l.sold, l.released, l.expired,
         l.returned, l.paid
  FROM unnest($1, $2) AS wanted (merchant_id, order_id)
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
  return (row: ReadonlyArray<unknown>): void => {
    const [
      merchantId,
      reservationId,
      orderId,
      kind,
      scope,
      status,
      request,
      metadata,
      expiresAt,
      createdAt,
      updatedAt
    ] = row as [
      string,
      string,
      string,
      "ORDER",
      string,
      "PENDING",
      string,
      string | null,
      number,
      number,
      number
    ]
    if (current?.reservationId !== reservationId || current.merchantId !== merchantId) {
      current = {
        merchantId,
        reservationId,
        orderId,
        kind,
        scope,
        status,
        request,
        metadata,
        expiresAt,
        createdAt,
        updatedAt,
        lines: []
      }
      books.addReservation(current)
    }
    if (row[11] !== null) {
      const [lineNumber, itemId, stockId, quantity, open, sold, released, expired, returned, paid] =
        row.slice(11)
      current.lines.push({
        merchantId,
        reservationId,
        lineNumber,
        itemId,
        stockId,
        quantity,
        open,
        sold,
        released,
        expired,
        returned,
        paid
      } as LineRow)
    }
  }
}

// tracking_pkey
const readTracking = `
  SELECT t.merchant_id, t.tracking_key, t.posting_id, t.answer, t.recorded_at
  FROM unnest($1, $2) AS wanted (merchant_id, tracking_key)
  JOIN tracking t ON t.merchant_id = wanted.merchant_id AND t.tracking_key = wanted.tracking_key`

// idempotency_pkey
const readIdempotency = `
  SELECT i.merchant_id, i.idempotency_key, i.fingerprint, i.answer, i.created_at
  FROM unnest($1, $2) AS wanted (merchant_id, idempotency_key)
  JOIN idempotency i ON i.merchant_id = wanted.merchant_id AND i.idempotency_key = wanted.idempotency_key
  WHERE i.created_at > $3`

// merchant_pkey, location_pkey
const readLocations = `
  SELECT l.merchant_id, l.location_id, l.name, l.is_default, l.position, l.created_at
  FROM unnest($1) AS wanted (merchant_id)
  JOIN location l ON l.merchant_id = wanted.merchant_id
  ORDER BY l.merchant_id, l.position`

const takeLocationRow =
  (books: Books) =>
  (row: ReadonlyArray<unknown>): void => {
    const [merchantId, locationId, name, isDefault, position, createdAt] = row as [
      string,
      string,
      string | null,
      boolean,
      number,
      number
    ]
    const location: LocationRow = { merchantId, locationId, name, isDefault, position, createdAt }
    books.merchants.add(merchantId)
    books.locations.set(keyOf(merchantId, locationId), location)
  }

// discrepancy_pkey
const readDiscrepancies = `
  SELECT d.merchant_id, d.discrepancy_id, d.kind, d.subject, d.stock_id, d.item_id, d.order_id, d.detail, d.status,
         d.opened_at, d.closed_at, d.closed_by, d.reason
  FROM unnest($1, $2) AS wanted (merchant_id, discrepancy_id)
  JOIN discrepancy d
    ON d.merchant_id = wanted.merchant_id AND d.discrepancy_id = wanted.discrepancy_id::uuid`

const discrepancyRow = (row: ReadonlyArray<unknown>): DiscrepancyRow => {
  const [
    merchantId,
    discrepancyId,
    kind,
    subject,
    stockId,
    itemId,
    orderId,
    detail,
    status,
    openedAt,
    closedAt
  ] = row
  return {
    merchantId,
    discrepancyId,
    kind,
    subject,
    stockId,
    itemId,
    orderId,
    detail,
    status,
    openedAt,
    closedAt,
    closedBy: row[11],
    reason: row[12]
  } as DiscrepancyRow
}

// item_merchant_id_product_variant_id_key, item_merchant_id_sku_key, item_pkey. UNION, because OR scans the table.
const wantedItems = `
  SELECT i.merchant_id, i.item_id
  FROM unnest($1, $2) AS wanted (merchant_id, variant_id)
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.product_variant_id = wanted.variant_id
  UNION
  SELECT i.merchant_id, i.item_id
  FROM unnest($3, $4) AS wanted (merchant_id, sku)
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.sku = wanted.sku
  UNION
  SELECT linked.merchant_id, linked.item_id
  FROM unnest($5, $6) AS linked (merchant_id, item_id)`

// The item row is the lock of its stocks, and the order of its events.
const lockItems = `
  WITH wanted AS MATERIALIZED (${wantedItems})
  SELECT i.merchant_id, i.item_id, i.kind, i.product_variant_id, i.sku, i.product_id, i.name, i.unit, i.stocked,
         i.low_stock_threshold, i.safety_stock, i.discontinued, i.initialized, i.status, i.on_hand, i.reserved,
         i.unallocatable, i.event_sequence, i.created_at, i.updated_at, i.deleted_at, i.count_tolerance
  FROM wanted
  JOIN item i ON i.merchant_id = wanted.merchant_id AND i.item_id = wanted.item_id
  ORDER BY i.merchant_id, i.item_id
  FOR NO KEY UPDATE OF i`

const itemRow = (row: ReadonlyArray<unknown>): ItemRow => {
  const [merchantId, itemId, kind, productVariantId, sku, productId, name, unit, stocked, lowStockThreshold] =
    row
  const [safetyStock, discontinued, initialized, status, onHand, reserved, unallocatable, eventSequence] =
    row.slice(10)
  return {
    merchantId,
    itemId,
    kind,
    productVariantId,
    sku,
    productId,
    name,
    unit,
    stocked,
    lowStockThreshold,
    safetyStock,
    discontinued,
    initialized,
    status,
    onHand,
    reserved,
    unallocatable,
    eventSequence,
    createdAt: row[18],
    updatedAt: row[19],
    deletedAt: row[20],
    countTolerance: row[21]
  } as ItemRow
}

// stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
const readStocks = `
  WITH wanted AS MATERIALIZED (${wantedItems})
  SELECT s.merchant_id, s.stock_id, s.item_id, s.location_id, l.is_default, l.position, s.lot_number,
         s.lot_expires_at, s.on_hand, s.reserved, s.unallocatable, s.sequence, s.discrepancy, s.created_at,
         s.updated_at
  FROM wanted
  JOIN stock s ON s.merchant_id = wanted.merchant_id AND s.item_id = wanted.item_id
  JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id`

const stockRow = (row: ReadonlyArray<unknown>): StockRow => {
  const [
    merchantId,
    stockId,
    itemId,
    locationId,
    locationIsDefault,
    locationPosition,
    lotNumber,
    lotExpiresAt
  ] = row
  const [onHand, reserved, unallocatable, sequence, discrepancy, createdAt, updatedAt] = row.slice(8)
  return {
    merchantId,
    stockId,
    itemId,
    locationId,
    locationIsDefault,
    locationPosition,
    lotNumber,
    lotExpiresAt,
    onHand,
    reserved,
    unallocatable,
    sequence,
    discrepancy,
    createdAt,
    updatedAt
  } as StockRow
}

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

type Column<R> = readonly [type: keyof typeof arrays, value: (row: R) => unknown]

/** A set-based write: one typed array a column, for `unnest`. */
interface Write<R> {
  readonly statement: string
  readonly columns: ReadonlyArray<Column<R>>
}

const writesOf = ({ changed, written }: Books): ReadonlyArray<readonly [string, ReadonlyArray<unknown>]> => {
  const statements: Array<readonly [string, ReadonlyArray<unknown>]> = []
  const insert = <R>(write: Write<R>, rows: Iterable<R>): void => {
    const all = [...rows]
    if (all.length > 0) {
      statements.push([write.statement, write.columns.map(([type, value]) => arrays[type](all.map(value)))])
    }
  }
  /** An update also says how many rows it must match. A row that the batch itself inserts is inserted as it stands. */
  const update = <R>(write: Write<R>, rows: Set<R>, inserted: ReadonlySet<R>): void => {
    const all = [...rows].filter((row) => !inserted.has(row))
    if (all.length > 0) {
      const columns = write.columns.map(([type, value]) => arrays[type](all.map(value)))
      statements.push([write.statement, [...columns, parameter("int4", all.length)]])
    }
  }
  insert(
    insertMerchants,
    [...written.merchants].map((merchantId) => ({ merchantId, at: atOf(written.locations, merchantId) }))
  )
  insert(insertLocations, written.locations)
  update(updateLocations, changed.locations, written.locations)
  // Updates first: a name that one item gives up may be another's in the same batch.
  insert(freeSkus, written.freedSkus)
  update(updateItems, changed.items, written.items)
  insert(insertItems, written.items)
  insert(insertStocks, written.stocks)
  update(updateStocks, changed.stocks, written.stocks)
  insert(insertLedger, written.ledger)
  // Updates first where a unique index is partial: the reservation that ends makes way for the order's next one.
  update(updateReservations, changed.reservations, written.reservations)
  insert(insertReservations, written.reservations)
  insert(insertLines, written.lines)
  update(updateLines, changed.lines, written.lines)
  insert(deleteTracking, written.forgotten)
  insert(insertTracking, written.tracking)
  insert(insertIdempotency, written.idempotency)
  insert(closeDiscrepancies, written.closings)
  update(updateDiscrepancies, changed.discrepancies, written.discrepancies)
  insert(insertDiscrepancies, written.discrepancies)
  // The last of several, since one statement writes a row once.
  const captured = new Map(written.captured.map((row) => [row.rowId, row]))
  insert(insertCaptured, captured.values())
  if (written.events.length > 0) {
    const groups = [...Map.groupBy(written.events, ({ key }) => bucketOf(key))]
    insert(
      insertOutbox,
      groups.map(([bucket, events]) => ({ bucket, events }))
    )
    // Names the buckets, so that a dispatcher looks into no others.
    statements.push([
      `SELECT pg_notify('${outboxChannel}', $1)::text`,
      [parameter("text", groups.map(([bucket]) => bucket).join(","))]
    ])
  }
  return statements
}

const atOf = (locations: ReadonlySet<LocationRow>, merchantId: string): number => {
  for (const location of locations) if (location.merchantId === merchantId) return location.createdAt
  return 0
}

/** FNV-1a: the bucket of a key, the same in every process. */
export const bucketOf = (key: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  return (hash >>> 0) % outboxBuckets
}

const insertMerchants: Write<{ readonly merchantId: string; readonly at: number }> = {
  statement: `
    INSERT INTO merchant (merchant_id, created_at) SELECT * FROM unnest($1, $2)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["timestamptz", (row) => row.at]
  ]
}

const insertLocations: Write<LocationRow> = {
  statement: `
    INSERT INTO location (merchant_id, location_id, name, is_default, position, created_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.locationId],
    ["text", (row) => row.name],
    ["bool", (row) => row.isDefault],
    ["int4", (row) => row.position],
    ["timestamptz", (row) => row.createdAt]
  ]
}

const updateLocations: Write<LocationRow> = {
  statement: `
    WITH written AS (
      UPDATE location l SET name = u.name
      FROM unnest($1, $2, $3) AS u (merchant_id, location_id, name)
      WHERE l.merchant_id = u.merchant_id AND l.location_id = u.location_id
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $4, 'location')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.locationId],
    ["text", (row) => row.name]
  ]
}

const insertItems: Write<ItemRow> = {
  statement: `
    INSERT INTO item (merchant_id, item_id, kind, product_variant_id, sku, product_id, name, unit, stocked,
      low_stock_threshold, safety_stock, discontinued, initialized, status, on_hand, reserved, unallocatable,
      event_sequence, created_at, updated_at, deleted_at, count_tolerance)
    SELECT *
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.itemId],
    ["text", (row) => row.kind],
    ["text", (row) => row.productVariantId],
    ["text", (row) => row.sku],
    ["text", (row) => row.productId],
    ["text", (row) => row.name],
    ["text", (row) => row.unit],
    ["bool", (row) => row.stocked],
    ["int8", (row) => row.lowStockThreshold],
    ["int8", (row) => row.safetyStock],
    ["bool", (row) => row.discontinued],
    ["bool", (row) => row.initialized],
    ["text", (row) => row.status],
    ["int8", (row) => row.onHand],
    ["int8", (row) => row.reserved],
    ["int8", (row) => row.unallocatable],
    ["int8", (row) => row.eventSequence],
    ["timestamptz", (row) => row.createdAt],
    ["timestamptz", (row) => row.updatedAt],
    ["timestamptz", (row) => row.deletedAt],
    ["int8", (row) => row.countTolerance]
  ]
}

/** In a statement of its own before the others: within one, a unique key does not pass from row to row. */
const freeSkus: Write<ItemRow> = {
  statement: `
    UPDATE item i SET sku = NULL
    FROM unnest($1, $2) AS u (merchant_id, item_id)
    WHERE i.merchant_id = u.merchant_id AND i.item_id = u.item_id`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.itemId]
  ]
}

/** The catalogue's columns change seldom; they travel with the figures all the same, so that one statement serves. */
const updateItems: Write<ItemRow> = {
  statement: `
    WITH written AS (
      UPDATE item i
      SET product_variant_id = u.product_variant_id, sku = u.sku, product_id = u.product_id, name = u.name,
          unit = u.unit, stocked = u.stocked, low_stock_threshold = u.low_stock_threshold,
          safety_stock = u.safety_stock, discontinued = u.discontinued, initialized = u.initialized,
          status = u.status, on_hand = u.on_hand, reserved = u.reserved, unallocatable = u.unallocatable,
          event_sequence = u.event_sequence, updated_at = u.updated_at, deleted_at = u.deleted_at,
          count_tolerance = u.count_tolerance
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
        AS u (merchant_id, item_id, product_variant_id, sku, product_id, name, unit, stocked, low_stock_threshold,
          safety_stock, discontinued, initialized, status, on_hand, reserved, unallocatable, event_sequence,
          updated_at, deleted_at, count_tolerance)
      WHERE i.merchant_id = u.merchant_id AND i.item_id = u.item_id
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $21, 'item')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.itemId],
    ["text", (row) => row.productVariantId],
    ["text", (row) => row.sku],
    ["text", (row) => row.productId],
    ["text", (row) => row.name],
    ["text", (row) => row.unit],
    ["bool", (row) => row.stocked],
    ["int8", (row) => row.lowStockThreshold],
    ["int8", (row) => row.safetyStock],
    ["bool", (row) => row.discontinued],
    ["bool", (row) => row.initialized],
    ["text", (row) => row.status],
    ["int8", (row) => row.onHand],
    ["int8", (row) => row.reserved],
    ["int8", (row) => row.unallocatable],
    ["int8", (row) => row.eventSequence],
    ["timestamptz", (row) => row.updatedAt],
    ["timestamptz", (row) => row.deletedAt],
    ["int8", (row) => row.countTolerance]
  ]
}

const insertStocks: Write<StockRow> = {
  statement: `
    INSERT INTO stock (merchant_id, stock_id, item_id, location_id, lot_number, lot_expires_at, on_hand, reserved,
      unallocatable, sequence, discrepancy, created_at, updated_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.stockId],
    ["uuid", (row) => row.itemId],
    ["text", (row) => row.locationId],
    ["text", (row) => row.lotNumber],
    ["timestamptz", (row) => row.lotExpiresAt],
    ["int8", (row) => row.onHand],
    ["int8", (row) => row.reserved],
    ["int8", (row) => row.unallocatable],
    ["int8", (row) => row.sequence],
    ["bool", (row) => row.discrepancy],
    ["timestamptz", (row) => row.createdAt],
    ["timestamptz", (row) => row.updatedAt]
  ]
}

const updateStocks: Write<StockRow> = {
  statement: `
    WITH written AS (
      UPDATE stock s
      SET on_hand = u.on_hand, reserved = u.reserved, unallocatable = u.unallocatable, sequence = u.sequence,
          discrepancy = u.discrepancy, updated_at = u.updated_at
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
        AS u (merchant_id, stock_id, on_hand, reserved, unallocatable, sequence, discrepancy, updated_at)
      WHERE s.merchant_id = u.merchant_id AND s.stock_id = u.stock_id
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $9, 'stock')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.stockId],
    ["int8", (row) => row.onHand],
    ["int8", (row) => row.reserved],
    ["int8", (row) => row.unallocatable],
    ["int8", (row) => row.sequence],
    ["bool", (row) => row.discrepancy],
    ["timestamptz", (row) => row.updatedAt]
  ]
}

const insertLedger: Write<LedgerRow> = {
  statement: `
    INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta,
      reserved_delta, unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor, order_id,
      reservation_id, reference, reason, occurred_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.stockId],
    ["timestamptz", (row) => row.recordedAt],
    ["int8", (row) => row.sequence],
    ["uuid", (row) => row.itemId],
    ["text", (row) => row.type],
    ["int8", (row) => row.onHandDelta],
    ["int8", (row) => row.reservedDelta],
    ["int8", (row) => row.unallocatableDelta],
    ["int8", (row) => row.onHand],
    ["int8", (row) => row.reserved],
    ["int8", (row) => row.unallocatable],
    ["text", (row) => row.source],
    ["uuid", (row) => row.postingId],
    ["text", (row) => row.actor],
    ["text", (row) => row.orderId],
    ["uuid", (row) => row.reservationId],
    ["text", (row) => row.reference],
    ["text", (row) => row.reason],
    ["timestamptz", (row) => row.occurredAt]
  ]
}

const insertReservations: Write<ReservationRow> = {
  statement: `
    INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, scope, status, request, metadata,
      expires_at, created_at, updated_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.reservationId],
    ["text", (row) => row.orderId],
    ["text", (row) => row.kind],
    ["text", (row) => row.scope],
    ["text", (row) => row.status],
    ["text", (row) => row.request],
    ["text", (row) => row.metadata],
    ["timestamptz", (row) => row.expiresAt],
    ["timestamptz", (row) => row.createdAt],
    ["timestamptz", (row) => row.updatedAt]
  ]
}

const updateReservations: Write<ReservationRow> = {
  statement: `
    WITH written AS (
      UPDATE reservation r
      SET status = u.status, expires_at = u.expires_at, updated_at = u.updated_at
      FROM unnest($1, $2, $3, $4, $5) AS u (merchant_id, reservation_id, status, expires_at, updated_at)
      WHERE r.merchant_id = u.merchant_id AND r.reservation_id = u.reservation_id
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $6, 'reservation')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.reservationId],
    ["text", (row) => row.status],
    ["timestamptz", (row) => row.expiresAt],
    ["timestamptz", (row) => row.updatedAt]
  ]
}

const insertLines: Write<LineRow> = {
  statement: `
    INSERT INTO reservation_line (merchant_id, reservation_id, line_number, item_id, stock_id, quantity, open, sold,
      released, expired, returned, paid)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.reservationId],
    ["int4", (row) => row.lineNumber],
    ["uuid", (row) => row.itemId],
    ["uuid", (row) => row.stockId],
    ["int8", (row) => row.quantity],
    ["int8", (row) => row.open],
    ["int8", (row) => row.sold],
    ["int8", (row) => row.released],
    ["int8", (row) => row.expired],
    ["int8", (row) => row.returned],
    ["int8", (row) => row.paid]
  ]
}

const updateLines: Write<LineRow> = {
  statement: `
    WITH written AS (
      UPDATE reservation_line l
      SET open = u.open, sold = u.sold, released = u.released, expired = u.expired, returned = u.returned,
          paid = u.paid
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
        AS u (merchant_id, reservation_id, line_number, open, sold, released, expired, returned, paid)
      WHERE l.merchant_id = u.merchant_id AND l.reservation_id = u.reservation_id AND l.line_number = u.line_number
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $10, 'reservation_line')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.reservationId],
    ["int4", (row) => row.lineNumber],
    ["int8", (row) => row.open],
    ["int8", (row) => row.sold],
    ["int8", (row) => row.released],
    ["int8", (row) => row.expired],
    ["int8", (row) => row.returned],
    ["int8", (row) => row.paid]
  ]
}

const insertTracking: Write<TrackingRow> = {
  statement: `
    INSERT INTO tracking (merchant_id, tracking_key, posting_id, answer, recorded_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5)`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.trackingKey],
    ["uuid", (row) => row.postingId],
    ["text", (row) => row.answer],
    ["timestamptz", (row) => row.recordedAt]
  ]
}

const deleteTracking: Write<{ readonly merchantId: string; readonly trackingKey: string }> = {
  statement: `
    DELETE FROM tracking t
    USING unnest($1, $2) AS u (merchant_id, tracking_key)
    WHERE t.merchant_id = u.merchant_id AND t.tracking_key = u.tracking_key`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.trackingKey]
  ]
}

/** The newest record of a row says whose it is. */
const insertCaptured: Write<{ readonly rowId: string; readonly merchantId: string }> = {
  statement: `
    INSERT INTO captured_variant (row_id, owner_id)
    SELECT row_id, owner_id FROM unnest($1, $2) AS u (row_id, owner_id)
    ON CONFLICT (row_id) DO UPDATE SET owner_id = excluded.owner_id
    WHERE captured_variant.owner_id <> excluded.owner_id`,
  columns: [
    ["text", (row) => row.rowId],
    ["text", (row) => row.merchantId]
  ]
}

/** A key past its age may be used again: its old row makes way. */
const insertIdempotency: Write<IdempotencyRow> = {
  statement: `
    INSERT INTO idempotency (merchant_id, idempotency_key, fingerprint, answer, created_at)
    SELECT * FROM unnest($1, $2, $3, $4, $5)
    ON CONFLICT (merchant_id, idempotency_key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.idempotencyKey],
    ["text", (row) => row.fingerprint],
    ["text", (row) => row.answer],
    ["timestamptz", (row) => row.createdAt]
  ]
}

/** One open discrepancy for each subject and kind (discrepancy_one_open): what is open already stays as it is. */
const insertDiscrepancies: Write<DiscrepancyRow> = {
  statement: `
    INSERT INTO discrepancy (merchant_id, discrepancy_id, kind, subject, stock_id, item_id, order_id, detail, status,
      opened_at, closed_at, closed_by)
    SELECT merchant_id, discrepancy_id, kind, subject, stock_id, item_id, order_id, detail::jsonb, status, opened_at,
           closed_at, closed_by
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
      AS u (merchant_id, discrepancy_id, kind, subject, stock_id, item_id, order_id, detail, status, opened_at,
        closed_at, closed_by)
    ON CONFLICT (merchant_id, subject, kind) WHERE status = 'OPEN' DO NOTHING`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.discrepancyId],
    ["text", (row) => row.kind],
    ["text", (row) => row.subject],
    ["uuid", (row) => row.stockId],
    ["uuid", (row) => row.itemId],
    ["text", (row) => row.orderId],
    ["text", (row) => JSON.stringify(row.detail)],
    ["text", (row) => row.status],
    ["timestamptz", (row) => row.openedAt],
    ["timestamptz", (row) => row.closedAt],
    ["text", (row) => row.closedBy]
  ]
}

const closeDiscrepancies: Write<{
  readonly merchantId: string
  readonly subject: string
  readonly kind: string
  readonly at: number
}> = {
  statement: `
    UPDATE discrepancy d
    SET status = 'CLOSED', closed_at = u.at, closed_by = 'holdfast'
    FROM unnest($1, $2, $3, $4) AS u (merchant_id, subject, kind, at)
    WHERE d.merchant_id = u.merchant_id AND d.subject = u.subject AND d.kind = u.kind AND d.status = 'OPEN'`,
  columns: [
    ["text", (row) => row.merchantId],
    ["text", (row) => row.subject],
    ["text", (row) => row.kind],
    ["timestamptz", (row) => row.at]
  ]
}

const updateDiscrepancies: Write<DiscrepancyRow> = {
  statement: `
    WITH written AS (
      UPDATE discrepancy d
      SET status = u.status, closed_at = u.closed_at, closed_by = u.closed_by, reason = u.reason
      FROM unnest($1, $2, $3, $4, $5, $6)
        AS u (merchant_id, discrepancy_id, status, closed_at, closed_by, reason)
      WHERE d.merchant_id = u.merchant_id AND d.discrepancy_id = u.discrepancy_id
      RETURNING 1
    )
    SELECT holdfast_expect(count(*), $7, 'discrepancy')::text FROM written`,
  columns: [
    ["text", (row) => row.merchantId],
    ["uuid", (row) => row.discrepancyId],
    ["text", (row) => row.status],
    ["timestamptz", (row) => row.closedAt],
    ["text", (row) => row.closedBy],
    ["text", (row) => row.reason]
  ]
}

/** position is taken here, while the items of the events are locked: a key's rows are in order. */
const insertOutbox: Write<{ readonly bucket: number; readonly events: ReadonlyArray<EventRow> }> = {
  statement: `
    INSERT INTO outbox (bucket, recorded_at, events, event_count)
    SELECT * FROM unnest($1, $2, $3, $4)`,
  columns: [
    ["int4", (row) => row.bucket],
    ["timestamptz", (row) => row.events.at(-1)!.at],
    ["text", (row) => JSON.stringify(row.events)],
    ["int4", (row) => row.events.length]
  ]
}
