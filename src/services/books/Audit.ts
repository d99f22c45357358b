import { Clock, Context, Effect, Layer, type Scope } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { reservationKindsInSql } from "../../schema/Reservation.ts"
import { guards } from "./audit/catalog.ts"
import { type Check, type Finding, findingOf } from "./audit/Finding.ts"
import { eventColumns, unpackOutbox } from "./audit/OutboxReading.ts"
import { type Ask, eachRange, partition, weightedRanges } from "./audit/ranges.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { keysOf, type KeyWalk, type Question, type Walk, within } from "../kernel/Question.ts"
import { outboxQuestions } from "../kernel/questions/outbox.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { tables } from "../kernel/tables.ts"
import { type ReservationRow, reservations } from "../kernel/tables/reservations.ts"

/** What an audit looked at and found. Times are epoch milliseconds. */
export interface AuditReport {
  readonly at: number
  readonly durationMs: number
  readonly merchantId: string | null
  readonly holds: boolean
  /** How much was looked at. */
  readonly looked: { readonly stocks: number; readonly movements: number; readonly events: number }
  /** How many findings of each invariant, those that were acknowledged apart. */
  readonly found: Readonly<Record<number, number>>
  readonly acknowledged: number
  /** The PENDING reservation that is longest past its expiry, if any (invariant 6). */
  readonly overdue: Overdue | null
  /** What could not be looked at, and why. */
  readonly notChecked: ReadonlyArray<string>
}
const overdueFields = ["merchantId", "orderId", "reservationId", "expiresAt"] as const
export interface Overdue extends Pick<ReservationRow, (typeof overdueFields)[number]> {
  readonly lateMs: number
}

/**
 * Proves the invariants of CONTRACTS section 2 on a live database: it asks each table's questions (`kernel/Question.ts`)
 * over ranges of its keys. It blocks no writer, and holds a snapshot only as long as one short statement takes.
 */
export class Audit extends Context.Service<
  Audit,
  {
    /** Asks everything, of one merchant or of all. What is found is passed on at once and not kept. */
    readonly examine: (options: {
      readonly merchantId?: string | undefined
      readonly tell: (finding: Finding) => Effect.Effect<void>
    }) => Effect.Effect<AuditReport, DatabaseUnavailable>
  }
>()("holdfast/services/Audit") {
  static readonly layer = Layer.effect(
    Audit,
    Effect.map(Db, (db) =>
      Audit.of({ examine: (options) => Effect.scoped(examine(db.survey, db.surveySession, options)) })
    )
  )
}

const questions: ReadonlyArray<Question> = [...tables.flatMap((table) => table.questions), ...outboxQuestions]
const keyWalks = Object.keys(keysOf) as ReadonlyArray<KeyWalk>

const examine = Effect.fn("Audit.examine")(function* (
  ask: Ask,
  session: Effect.Effect<Ask, DatabaseUnavailable, Scope.Scope>,
  { merchantId, tell }: Parameters<Audit["Service"]["examine"]>[0]
) {
  const began = yield* Clock.currentTimeMillis
  const found: Record<number, number> = { 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0 }
  let acknowledged = 0
  const report = Effect.fnUntraced(function* (findings: ReadonlyArray<Finding>) {
    if (findings.length === 0) return
    const known = yield* acknowledgedOf(ask, findings)
    for (const finding of findings) {
      if (known.has(`${finding.merchantId} ${finding.id}`)) acknowledged += 1
      else {
        found[finding.invariant]! += 1
        yield* tell(finding)
      }
    }
  })
  if (merchantId === undefined) yield* report(yield* guards(ask))
  const ofLines = Effect.gen(function* () {
    const own = yield* session
    const ranges = yield* weightedRanges(own, "stock", merchantId)
    const look = yield* partition(own, "audit_line", lineColumns, ranges)
    yield* eachRange(own, keysOf.lines, merchantId, (range) => Effect.asVoid(own(copyStatement, range)))
    for (const [index, range] of ranges.entries()) {
      yield* look(index)
      yield* askOver(own, "stocks", [range.whole], report)
      yield* askOver(own, "movements", yield* range.parts, report)
      yield* askOver(own, "shares", range.shares, report)
    }
    for (const walk of keyWalks) {
      yield* eachRange(own, keysOf[walk], merchantId, (range) => askOver(own, walk, [range], report))
    }
    const sum = (of: "rows" | "weight"): number => ranges.reduce((total, range) => total + range[of], 0)
    return { stocks: sum("rows"), movements: sum("weight") }
  })
  const ofEvents = Effect.gen(function* () {
    const own = yield* session
    const ranges = yield* weightedRanges(own, "item", merchantId)
    const look = yield* partition(own, "audit_event", eventColumns, ranges)
    const events = yield* unpackOutbox(own, ask, merchantId, report)
    for (const [index, range] of ranges.entries()) {
      yield* look(index)
      yield* askOver(own, "itemsReported", [range.whole], report)
      yield* askOver(own, "sharesReported", range.shares, report)
    }
    yield* look("row")
    yield* askOver(own, "once", [[parameter("text", merchantId ?? null)]], report)
    return events
  })
  const [{ movements, stocks }, events] = yield* Effect.all([ofLines, ofEvents], { concurrency: "unbounded" })
  const overdue = yield* oldestOverdue(ask, merchantId, began)
  return {
    at: began,
    durationMs: (yield* Clock.currentTimeMillis) - began,
    merchantId: merchantId ?? null,
    holds: Object.values(found).every((count) => count === 0),
    looked: { stocks, movements, events },
    found,
    acknowledged,
    overdue,
    notChecked: yield* leftOut(ask, merchantId)
  } satisfies AuditReport
})

/** Of the lines that are about stock, copied for a key that their table has no index by. */
const lineColumns = {
  merchant_id: "text",
  stock_id: "uuid",
  reservation_id: "uuid",
  item_id: "uuid",
  open: "int8",
  sold: "int8",
  returned: "int8"
}

// reservation_line_pkey
const copyStatement = `
  INSERT INTO audit_line_row
  SELECT l.merchant_id, l.stock_id, l.reservation_id, l.item_id, l.open, l.sold, l.returned
  FROM reservation_line l
  WHERE ${within("l", "reservation_id")}
    AND l.stock_id IS NOT NULL`

/** Asks all questions of one walk, over the ranges of these parameters. */
const askOver = Effect.fnUntraced(function* (
  ask: Ask,
  walk: Walk,
  ranges: ReadonlyArray<ReadonlyArray<unknown>>,
  report: (findings: ReadonlyArray<Finding>) => Effect.Effect<void, DatabaseUnavailable>
) {
  for (const { check, statement } of questions.filter((question) => question.over === walk)) {
    for (const range of ranges) {
      const rows = yield* ask<{ readonly check?: Check }>(statement, range)
      yield* report(rows.map(({ check: own = check!, ...row }) => findingOf(own, row)))
    }
  }
})

/** Which of these findings a person has acknowledged, with a reason. */
const acknowledgedOf = Effect.fnUntraced(function* (ask: Ask, findings: ReadonlyArray<Finding>) {
  const rows = yield* ask<{ merchantId: string; finding: string }>(acknowledgedStatement, [
    arrays.text(findings.map(({ merchantId }) => merchantId)),
    arrays.text(findings.map(({ id }) => id))
  ])
  return new Set(rows.map(({ finding, merchantId }) => `${merchantId} ${finding}`))
})

// audit_repair_by_finding
const acknowledgedStatement = `
  SELECT DISTINCT r.merchant_id AS "merchantId", r.finding
  FROM unnest($1, $2) AS found (merchant_id, finding)
  CROSS JOIN LATERAL (
    SELECT r.merchant_id, r.finding, r.action
    FROM audit_repair r
    WHERE r.merchant_id = found.merchant_id AND r.finding = found.finding
    OFFSET 0
  ) r
  WHERE r.action = 'ACKNOWLEDGE'`

const oldestOverdue = Effect.fnUntraced(function* (ask: Ask, merchantId: string | undefined, now: number) {
  const [overdue] = yield* ask<Omit<Overdue, "lateMs">>(overdueStatement, [
    parameter("timestamptz", now),
    parameter("text", merchantId ?? null)
  ])
  return overdue === undefined ? null : { ...overdue, lateMs: now - overdue.expiresAt }
})

// reservation_due
const overdueStatement = `
  SELECT ${fieldsInSql(reservations, "r", overdueFields)}
  FROM reservation r
  WHERE r.status = 'PENDING' AND r.expires_at <= $1 AND r.kind IN (${reservationKindsInSql(({ expires }) => expires)})
    AND ($2::text IS NULL OR r.merchant_id = $2)
  ORDER BY r.expires_at
  LIMIT 1`

const leftOut = Effect.fnUntraced(function* (ask: Ask, merchantId: string | undefined) {
  const marks = yield* ask<{ readonly table: string; readonly since: number }>(
    `SELECT table_name AS "table", kept_since AS since FROM retention_mark ORDER BY table_name`,
    []
  )
  const [row] = yield* ask<{ stocks: number }>(checkpointedStatement, [parameter("text", merchantId ?? null)])
  return [
    "whether a broker outside of this database acknowledged what is marked SENT: only it knows",
    ...marks.map(({ since, table }) => `${table} before ${new Date(since).toISOString()}: removed by age`),
    ...(row!.stocks === 0
      ? []
      : [
          `movements before the checkpoints of ${row!.stocks} stocks, and what reservations from before them moved`
        ])
  ]
})

// ledger_checkpoint_pkey
const checkpointedStatement = `
  SELECT count(DISTINCT (c.merchant_id, c.stock_id)) AS stocks
  FROM ledger_checkpoint c
  WHERE $1::text IS NULL OR c.merchant_id = $1`
