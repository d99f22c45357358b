import { Cause, Clock, Context, Effect, Layer, Metric } from "effect"
import { type DatabaseUnavailable, ReservationNotFound } from "../../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../../schema/Page.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { AmendReservation } from "../kernel/commands/amendments.ts"
import type { ConfirmReservation } from "../kernel/commands/confirmations.ts"
import type { ExtendReservation, ReleaseReservation, ReserveStock } from "../kernel/commands/reservations.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import {
  type ReservationLineAnswer,
  type ReservationStatus,
  reservationKindsInSql
} from "../../schema/Reservation.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { items } from "../kernel/tables/catalog.ts"
import {
  type LineRow,
  type ReservationRow,
  reservationLines,
  reservations
} from "../kernel/tables/reservations.ts"
import { stocks } from "../kernel/tables/stock.ts"
import { lotInSql } from "../kernel/figuresInSql.ts"

/** A reservation as it stands, with what it holds and held. Times are epoch milliseconds. */
export interface Reservation extends Pick<
  ReservationRow,
  "reservationId" | "orderId" | "status" | "expiresAt" | "createdAt" | "updatedAt"
> {
  readonly metadata: unknown
  readonly lines: ReadonlyArray<ReservationLineAnswer & Pick<LineRow, "released" | "returned">>
}

type Does<
  C extends ReserveStock | AmendReservation | ReleaseReservation | ConfirmReservation | ExtendReservation
> = (caller: Caller, command: Omit<C, "_tag">) => Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>

/** Promises to orders (CONTRACTS section 2, "Life of a reservation"). */
export class Reservations extends Context.Service<
  Reservations,
  {
    readonly reserve: Does<ReserveStock>
    /** Changes what an order holds, in one step. */
    readonly amend: Does<AmendReservation>
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
          const rows = yield* db.read<Pick<ReservationRow, "reservationId" | "createdAt">>(
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
            ({ reservationId }) => reservationId,
            ({ createdAt, reservationId }) => [createdAt, reservationId]
          )
          return { ...page, data: yield* withLines(db, merchantId, page.data) }
        }
      )

      const expire = Effect.fnUntraced(function* (
        { merchantId, orderId, reservationId }: DueRow,
        now: number
      ) {
        const { answer } = yield* ledger.post(
          {
            merchantId,
            actor: "holdfast sweeper",
            requestId: reservationId,
            deadline: now + expireDeadlineMs
          },
          { _tag: "ExpireReservation", orderId, reservationId }
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
            parameter("timestamptz", after?.expiresAt ?? null),
            parameter("uuid", after?.reservationId ?? null),
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
        amend: (caller, command) => ledger.post(caller, { ...command, _tag: "AmendReservation" }),
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

const dueFields = ["merchantId", "orderId", "reservationId", "expiresAt"] as const satisfies ReadonlyArray<
  keyof ReservationRow
>
type DueRow = Pick<ReservationRow, (typeof dueFields)[number]>

// reservation_due: the sweeper sees all merchants
const dueStatement = `
  SELECT ${fieldsInSql(reservations, "reservation", dueFields)}
  FROM reservation
  WHERE status = 'PENDING' AND expires_at <= $1
    AND kind IN (${reservationKindsInSql(({ expires }) => expires)})
    AND ($2 IS NULL OR (expires_at, reservation_id) > ($2, $3))
  ORDER BY expires_at, reservation_id
  LIMIT $4`

// reservation_pkey, or reservation_by_order with an order
const listStatement = `
  SELECT ${fieldsInSql(reservations, "reservation", ["reservationId", "createdAt"])}
  FROM reservation
  WHERE merchant_id = $1
    AND ($2 IS NULL OR order_id = $2)
    AND ($3 IS NULL OR status = $3)
    AND ($4 IS NULL OR (created_at, reservation_id) < ($4, $5))
  ORDER BY created_at DESC, reservation_id DESC
  LIMIT $6`

const headFields = [
  "reservationId",
  "orderId",
  "status",
  "expiresAt",
  "createdAt",
  "updatedAt",
  "metadata"
] as const satisfies ReadonlyArray<keyof ReservationRow>

// reservation_pkey, reservation_line_pkey
const linesStatement = `
  SELECT ${fieldsInSql(reservations, "r", headFields)},
         ${fieldsInSql(reservationLines, "l", ["lineNumber", "itemId"])},
         ${fieldsInSql(items, "i", ["productVariantId", "sku"])}, l.stock_id AS "stockId",
         ${fieldsInSql(stocks, "s", ["locationId"])}, ${lotInSql("s")} AS "lotNumber",
         ${fieldsInSql(reservationLines, "l", ["quantity", "open", "sold", "released", "returned"])}
  FROM unnest($2) WITH ORDINALITY AS wanted (reservation_id, position)
  JOIN reservation r ON r.merchant_id = $1 AND r.reservation_id = wanted.reservation_id
  LEFT JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
  LEFT JOIN item i ON i.merchant_id = l.merchant_id AND i.item_id = l.item_id
  LEFT JOIN stock s ON s.merchant_id = l.merchant_id AND s.stock_id = l.stock_id
  ORDER BY wanted.position, l.line_number`

type ReservationLineRow = Pick<ReservationRow, (typeof headFields)[number]> &
  Reservation["lines"][number] & {
    /** Null where a reservation has no lines. */
    readonly lineNumber: number | null
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
  return [...Map.groupBy(rows, (row) => row.reservationId).values()].map((lines): Reservation => {
    const { createdAt, expiresAt, metadata, orderId, reservationId, status, updatedAt } = lines[0]!
    return {
      reservationId,
      orderId,
      status,
      expiresAt,
      createdAt,
      updatedAt,
      metadata: metadata === null ? null : JSON.parse(metadata),
      lines: lines.filter(({ lineNumber }) => lineNumber !== null).map(lineOf)
    }
  })
})

const lineOf = ({
  createdAt,
  expiresAt,
  lineNumber,
  metadata,
  orderId,
  reservationId,
  status,
  updatedAt,
  ...line
}: ReservationLineRow): Reservation["lines"][number] => line
