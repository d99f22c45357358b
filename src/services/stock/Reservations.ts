import { Cause, Clock, Context, Effect, Layer, Metric } from "effect"
import { type DatabaseUnavailable, ReservationNotFound } from "../../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { ConfirmReservation } from "../kernel/commands/confirmations.ts"
import type { ExtendReservation, ReleaseReservation, ReserveStock } from "../kernel/commands/reservations.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { ReservationLineAnswer, ReservationStatus } from "../../schema/Reservation.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"

/** A reservation as it stands, with what it holds and held. Times are epoch milliseconds. */
export interface Reservation {
  readonly reservationId: string
  readonly orderId: string
  readonly status: ReservationStatus
  readonly expiresAt: number
  readonly createdAt: number
  readonly updatedAt: number
  readonly metadata: unknown
  readonly lines: ReadonlyArray<
    ReservationLineAnswer & { readonly sold: number; readonly released: number; readonly returned: number }
  >
}

type Does<C extends ReserveStock | ReleaseReservation | ConfirmReservation | ExtendReservation> = (
  caller: Caller,
  command: Omit<C, "_tag">
) => Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>

/** Promises to orders (CONTRACTS section 2, "Life of a reservation"). */
export class Reservations extends Context.Service<
  Reservations,
  {
    readonly reserve: Does<ReserveStock>
    readonly release: Does<ReleaseReservation>
    readonly confirm: Does<ConfirmReservation>
    readonly extend: Does<ExtendReservation>
    readonly get: (
      merchantId: string,
      reservationId: string
    ) => Effect.Effect<Reservation, ReservationNotFound | DatabaseUnavailable>
    /** Newest first. */
    readonly list: (
      merchantId: string,
      filter: {
        readonly orderId?: string | undefined
        readonly status?: ReservationStatus | undefined
        readonly limit?: number | undefined
        readonly cursor?: string | undefined
      }
    ) => Effect.Effect<Page<Reservation>, InvalidCursor | DatabaseUnavailable>
    /**
     * One sweep: expires all that is due when it begins, in bounded batches, oldest first, and goes on past what cannot
     * be expired. Any number of replicas may run it. Returns how many it expired.
     */
    readonly expireDue: Effect.Effect<number, DatabaseUnavailable>
  }
>()("holdfast/services/Reservations") {
  static readonly layer = Layer.effect(
    Reservations,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db

      const get = Effect.fn("Reservations.get")(function* (merchantId: string, reservationId: string) {
        const [found] = yield* withLines(db, merchantId, [reservationId])
        return found ?? (yield* new ReservationNotFound({ reservationId }))
      })

      const list: Reservations["Service"]["list"] = Effect.fn("Reservations.list")(
        function* (merchantId, filter) {
          const after = yield* positionOf(filter.cursor, ["time", "uuid"])
          const limit = filter.limit ?? defaultLimit
          const rows = yield* db.read<{ reservation_id: string; created_at: number }>(
            merchantId,
            listStatement,
            [
              parameter("text", merchantId),
              parameter("text", filter.orderId ?? null),
              parameter("text", filter.status ?? null),
              parameter("timestamptz", after?.[0] ?? null),
              parameter("uuid", after?.[1] ?? null),
              parameter("int4", limit + 1)
            ]
          )
          const page = pageOf(
            rows,
            limit,
            (row) => row.reservation_id,
            (row) => [row.created_at, row.reservation_id]
          )
          return { ...page, data: yield* withLines(db, merchantId, page.data) }
        }
      )

      const expire = Effect.fnUntraced(function* (
        { merchant_id, order_id, reservation_id }: DueRow,
        now: number
      ) {
        const { answer } = yield* ledger.post(
          {
            merchantId: merchant_id,
            actor: "holdfast sweeper",
            requestId: reservation_id,
            deadline: now + expireDeadlineMs
          },
          { _tag: "ExpireReservation", orderId: order_id, reservationId: reservation_id }
        )
        if (answer.expired) yield* Metric.update(expiryDelay, (answer.at - answer.expiresAt) / 1000)
        return answer.expired
      })

      const expireDue = Effect.gen(function* () {
        const startedAt = yield* Clock.currentTimeMillis
        let expired = 0
        for (let after: DueRow | undefined; ;) {
          const now = yield* Clock.currentTimeMillis
          const due: ReadonlyArray<DueRow> = yield* db.maintain<DueRow>(dueStatement, [
            parameter("timestamptz", startedAt),
            parameter("timestamptz", after?.expires_at ?? null),
            parameter("uuid", after?.reservation_id ?? null),
            parameter("int4", expireBatch)
          ])
          const outcomes = yield* Effect.forEach(
            due,
            (row) =>
              // What could not be expired now is due again in the next sweep, and holds up nobody else.
              Effect.catchCause(expire(row, now), (cause) =>
                Cause.hasInterruptsOnly(cause)
                  ? Effect.failCause(cause as Cause.Cause<never>)
                  : Effect.as(Metric.update(expiryFailures, 1), false)
              ),
            { concurrency: "unbounded" }
          )
          expired += outcomes.filter((done) => done).length
          if (due.length < expireBatch) return expired
          after = due.at(-1)
        }
      }).pipe(Effect.withSpan("Reservations.expireDue"))

      return Reservations.of({
        reserve: (caller, command) => ledger.post(caller, { ...command, _tag: "ReserveStock" }),
        release: (caller, command) => ledger.post(caller, { ...command, _tag: "ReleaseReservation" }),
        confirm: (caller, command) => ledger.post(caller, { ...command, _tag: "ConfirmReservation" }),
        extend: (caller, command) => ledger.post(caller, { ...command, _tag: "ExtendReservation" }),
        get,
        list,
        expireDue
      })
    })
  )
}

/** Reservations expired in one go: small enough that reserves beside it hardly wait. */
const expireBatch = 256
const expireDeadlineMs = 10_000

const expiryDelay = Metric.histogram("holdfast_expiry_delay_seconds", {
  description: "Time from a reservation's expiresAt to its expiry by the sweeper",
  boundaries: [0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800]
})

const expiryFailures = Metric.counter("holdfast_expiry_failures_total", {
  description: "Reservations that a sweep could not expire; the next one tries again",
  incremental: true
})

interface DueRow {
  readonly merchant_id: string
  readonly order_id: string
  readonly reservation_id: string
  readonly expires_at: number
}

// reservation_due: the sweeper sees all merchants
const dueStatement = `
  SELECT merchant_id, order_id, reservation_id, expires_at
  FROM reservation
  WHERE status = 'PENDING' AND expires_at <= $1
    AND ($2 IS NULL OR (expires_at, reservation_id) > ($2, $3))
  ORDER BY expires_at, reservation_id
  LIMIT $4`

// reservation_pkey, or reservation_by_order with an order
const listStatement = `
  SELECT reservation_id, created_at
  FROM reservation
  WHERE merchant_id = $1
    AND ($2 IS NULL OR order_id = $2)
    AND ($3 IS NULL OR status = $3)
    AND ($4 IS NULL OR (created_at, reservation_id) < ($4, $5))
  ORDER BY created_at DESC, reservation_id DESC
  LIMIT $6`

// reservation_pkey, reservation_line_pkey
const linesStatement = `
  SELECT r.reservation_id, r.order_id, r.status, r.metadata, r.expires_at, r.created_at, r.updated_at,
         l.line_number, l.item_id, i.product_variant_id, i.sku, l.stock_id, s.location_id, s.lot_number, l.quantity,
         l.open, l.sold, l.released, l.returned
  FROM unnest($2) WITH ORDINALITY AS wanted (reservation_id, position)
  JOIN reservation r ON r.merchant_id = $1 AND r.reservation_id = wanted.reservation_id
  LEFT JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
  LEFT JOIN item i ON i.merchant_id = l.merchant_id AND i.item_id = l.item_id
  LEFT JOIN stock s ON s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id
  ORDER BY wanted.position, l.line_number`

interface ReservationLineRow {
  readonly reservation_id: string
  readonly order_id: string
  readonly status: ReservationStatus
  readonly metadata: string | null
  readonly expires_at: number
  readonly created_at: number
  readonly updated_at: number
  readonly line_number: number | null
  readonly item_id: string
  readonly product_variant_id: string | null
  readonly sku: string | null
  readonly stock_id: string | null
  readonly location_id: string | null
  readonly lot_number: string | null
  readonly quantity: number
  readonly open: number
  readonly sold: number
  readonly released: number
  readonly returned: number
}

const withLines = Effect.fnUntraced(function* (
  db: Db["Service"],
  merchantId: string,
  reservationIds: ReadonlyArray<string>
) {
  if (reservationIds.length === 0) return []
  const rows = yield* db.read<ReservationLineRow>(merchantId, linesStatement, [
    parameter("text", merchantId),
    arrays.uuid(reservationIds)
  ])
  return [...Map.groupBy(rows, (row) => row.reservation_id).values()].map((lines): Reservation => {
    const head = lines[0]!
    return {
      reservationId: head.reservation_id,
      orderId: head.order_id,
      status: head.status,
      expiresAt: head.expires_at,
      createdAt: head.created_at,
      updatedAt: head.updated_at,
      metadata: head.metadata === null ? null : JSON.parse(head.metadata),
      lines: lines
        .filter((line) => line.line_number !== null)
        .map((line) => ({
          itemId: line.item_id,
          productVariantId: line.product_variant_id,
          sku: line.sku,
          stockId: line.stock_id,
          locationId: line.location_id,
          lotNumber: line.lot_number === "" ? null : line.lot_number,
          quantity: line.quantity,
          open: line.open,
          sold: line.sold,
          released: line.released,
          returned: line.returned
        }))
    }
  })
})
