import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import { type Ask, type Key, type Range, askOf, beginning } from "./audit/Asking.ts"
import { reservationKindsInSql } from "../../schema/Reservation.ts"
import { guards } from "./audit/catalog.ts"
import { Comparison, agree } from "./audit/digests.ts"
import {
  type Marks,
  type Question,
  firstKey,
  nextRange,
  linesIn,
  questions,
  reservations,
  strangers,
  tracked
} from "./audit/documents.ts"
import { type Look, type Window, lookIntoLedger, lookIntoOutbox, looksOf, tell } from "./audit/events.ts"
import type { Finding } from "./audit/Finding.ts"
import { type Suspicion, pass } from "./audit/movements.ts"
import {
  type Slice,
  chain,
  differsIn,
  homes,
  isHot,
  longChain,
  longNets,
  partsOf,
  nets,
  slicesAfter,
  states
} from "./audit/stocks.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type ReservationRow, reservations as reservationTable } from "../kernel/tables/reservations.ts"

// One file: the order of the questions, their slices and their bounds are read together.

/** What an audit looked at and found. Times are epoch milliseconds. */
export interface AuditReport {
  readonly at: number
  readonly durationMs: number
  readonly merchantId: string | null
  readonly holds: boolean
  /** How much was looked at. */
  readonly looked: {
    readonly stocks: number
    readonly movements: number
    readonly events: number
  }
  /** How many findings of each invariant, those that were acknowledged apart. */
  readonly found: Readonly<Record<number, number>>
  readonly acknowledged: number
  /** The PENDING reservation that is longest past its expiry, if any (invariant 6). */
  readonly overdue: Overdue | null
  /** What could not be looked at, and why. */
  readonly notChecked: ReadonlyArray<string>
}
export interface Overdue extends Pick<ReservationRow, (typeof overdueFields)[number]> {
  readonly lateMs: number
}
const overdueFields = [
  "merchantId",
  "orderId",
  "reservationId",
  "expiresAt"
] as const satisfies ReadonlyArray<keyof ReservationRow>

/**
 * Proves the invariants of CONTRACTS section 2 on a live database. It blocks no writer and holds no snapshot: it walks
 * ranges of keys with one short read-only statement each, and tells only what it has seen twice.
 */
export class Audit extends Context.Service<
  Audit,
  {
    /** Asks everything, of one merchant or of all. What is found is told at once and not kept. */
    readonly examine: (options: {
      readonly merchantId?: string | undefined
      /** Movements are compared with the events of postings up to then (epoch milliseconds); some seconds ago without. */
      readonly upTo?: number | undefined
      readonly tell: (finding: Finding) => Effect.Effect<void>
    }) => Effect.Effect<AuditReport, DatabaseUnavailable>
  }
>()("holdfast/services/Audit") {
  static readonly layer = Layer.effect(
    Audit,
    Effect.map(Db, (db) => {
      const ask = askOf(db)
      return Audit.of({ examine: (options) => examine(ask, options) })
    })
  )
}

/** What was posted later than this before the audit began may still be on its way, and is not asked about. */
const settleMs = 5_000
/** By then a posting is committed or refused for good: its deadline and a transaction's time-outs are far behind it. */
const settledMs = 30_000

const examine = Effect.fn("Audit.examine")(function* (
  ask: Ask,
  options: Parameters<Audit["Service"]["examine"]>[0]
) {
  const { merchantId } = options
  const began = yield* Clock.currentTimeMillis
  yield* agree(ask)
  const marks = yield* readMarks(ask)
  const windows = windowsOf(marks, options.upTo ?? began - settleMs)
  const found: Record<number, number> = { 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0 }
  let acknowledged = 0
  const report = Effect.fnUntraced(function* (findings: ReadonlyArray<Finding>) {
    if (findings.length === 0) return
    const known = yield* acknowledgedOf(ask, findings)
    for (const finding of findings) {
      if (known.has(`${finding.merchantId} ${finding.id}`)) acknowledged += 1
      else {
        found[finding.invariant]! += 1
        yield* options.tell(finding)
      }
    }
  })

  if (merchantId === undefined) yield* report(yield* guards(ask))
  yield* report(yield* strangers(ask, merchantId))
  const passing: Passing = {
    merchantId,
    windows,
    comparisons: { events: new Comparison(), lines: new Comparison() },
    marks,
    report
  }
  const { comparisons } = passing
  const telling = { merchantId, window: windows.outbox, compared: windows.events }
  // Two connections read while this process goes through the events that the third has brought.
  const [walked, told] = yield* Effect.all(
    [
      walkStocks(ask, passing),
      tell(ask, { ...telling, comparison: comparisons.events }),
      Effect.forEach(
        [reservations(windows.lines, comparisons.lines), ...questions],
        (question) => walk(ask, question, { merchantId, report }),
        { discard: true }
      )
    ],
    { concurrency: "unbounded" }
  )
  yield* lookIntoLines(ask, passing)
  yield* askAgain(ask, told.findings, { ...telling, comparison: comparisons.events, report })
  const overdue = yield* oldestOverdue(ask, merchantId, began)
  const ended = yield* Clock.currentTimeMillis
  return {
    at: began,
    durationMs: ended - began,
    merchantId: merchantId ?? null,
    holds: Object.values(found).every((count) => count === 0),
    looked: { ...walked, events: told.events },
    found,
    acknowledged,
    overdue,
    notChecked: yield* leftOut(ask, marks, windows.outbox.upTo, merchantId)
  } satisfies AuditReport
})

type Report = (findings: ReadonlyArray<Finding>) => Effect.Effect<void, DatabaseUnavailable>

/** What the passes over the tables share: the same postings and lines are summed up on both sides of a comparison. */
interface Passing {
  readonly merchantId: string | undefined
  readonly windows: ReturnType<typeof windowsOf>
  readonly comparisons: { readonly events: Comparison; readonly lines: Comparison }
  readonly marks: Marks
  readonly report: Report
}

/** Stocks and their ledger: invariants 1 to 3, and the ledger's side of 2 and 4. */
const walkStocks = Effect.fnUntraced(function* (ask: Ask, options: Passing) {
  const looked = { stocks: 0, movements: 0 }
  yield* eachSlice(
    ask,
    options.merchantId,
    Effect.fnUntraced(function* (slice) {
      looked.stocks += slice.stocks
      looked.movements += slice.movements
      yield* ledgerOf(ask, slice, options)
      yield* options.report(yield* states(ask, slice.range))
    })
  )
  return looked
})

/** A slice's movements: their chain, their homes, their tracking rows and events, and what they say of reservations. */
const ledgerOf = Effect.fnUntraced(function* (ask: Ask, slice: Slice, options: Passing) {
  const { comparisons, report, windows } = options
  const { range } = slice
  if (isHot(slice)) {
    const { parts, since } = yield* partsOf(ask, range)
    let isBroken = false
    for (const part of parts) {
      const suspicion = yield* pass(ask, part, options)
      isBroken ||= suspicion.chain
      yield* follow(ask, part, { ...suspicion, chain: false }, options)
    }
    if (isBroken) yield* report(yield* longChain(ask, range))
    const lines = { window: windows.lines, comparison: comparisons.lines }
    return yield* report(yield* longNets(ask, slice, { parts, since, ...lines }))
  }
  yield* follow(ask, range, yield* pass(ask, range, options), options)
})

/** What a pass was suspicious of is asked for by itself. */
const follow = Effect.fnUntraced(function* (
  ask: Ask,
  range: Range,
  { chain: isBroken, homes: isAstray, lines: isAmiss, tracked: isUntold }: Suspicion,
  { marks, report }: Passing
) {
  if (isBroken) yield* report(yield* chain(ask, range))
  if (isAstray) yield* report(yield* homes(ask, range))
  if (isUntold) yield* report(yield* tracked(ask, range, marks))
  if (isAmiss) yield* report(yield* nets(ask, range))
})

const walk = Effect.fnUntraced(function* (
  ask: Ask,
  question: Question,
  options: { readonly merchantId: string | undefined; readonly report: Report }
) {
  let from: Key | undefined = firstKey(question, options.merchantId)
  while (from !== undefined) {
    const { next, range }: { readonly next: Key | undefined; readonly range: Range } = yield* nextRange(
      ask,
      question,
      from,
      options.merchantId
    )
    yield* options.report(yield* question.ask(ask, range))
    from = next
  }
})

/** What seems wrong with the outbox, by itself or beside the ledger, is asked again once all of it has settled. */
const askAgain = Effect.fnUntraced(function* (
  ask: Ask,
  suspicions: ReadonlyArray<Finding>,
  options: {
    readonly merchantId: string | undefined
    readonly window: Window
    readonly compared: Window
    readonly comparison: Comparison
    readonly report: Report
  }
) {
  const { compared, comparison, merchantId, report, window } = options
  const looks = looksOf(comparison)
  if (suspicions.length === 0 && looks.length === 0) return
  const age = (yield* Clock.currentTimeMillis) - window.upTo
  if (age < settledMs) yield* Effect.sleep(settledMs - age)
  if (suspicions.length > 0) {
    const known = new Set(suspicions.map(({ id }) => id))
    const again = yield* tell(ask, { merchantId, window, compared, comparison: new Comparison() })
    yield* report(again.findings.filter(({ id }) => known.has(id)))
  }
  for (const look of looks) {
    yield* lookIntoStocks(ask, merchantId, compared, look)
    yield* lookIntoOutbox(ask, merchantId, compared, look)
    yield* report(look.findings())
  }
})

/** Where lines and ledger differ in sum, each line is looked at, and what has moved is summed up again. */
const lookIntoLines = Effect.fnUntraced(function* (ask: Ask, options: Passing) {
  const { comparisons, merchantId, report, windows } = options
  const cells = comparisons.lines.differing()
  if (cells.length === 0) return
  yield* walk(ask, linesIn(windows.lines, cells), { merchantId, report })
  yield* eachSlice(ask, merchantId, (slice) =>
    // One that is hot was compared reservation by reservation.
    isHot(slice)
      ? Effect.void
      : Effect.gen(function* () {
          if (yield* differsIn(ask, slice.range, cells)) yield* report(yield* nets(ask, slice.range))
        })
  )
})

const lookIntoStocks = (ask: Ask, merchantId: string | undefined, window: Window, look: Look) =>
  eachSlice(
    ask,
    merchantId,
    Effect.fnUntraced(function* (slice) {
      const ranges = isHot(slice) ? (yield* partsOf(ask, slice.range)).parts : [slice.range]
      for (const range of ranges) yield* lookIntoLedger(ask, range, window, look)
    })
  )

const eachSlice = Effect.fnUntraced(function* (
  ask: Ask,
  merchantId: string | undefined,
  use: (slice: Slice) => Effect.Effect<void, DatabaseUnavailable>
) {
  let from: Key | undefined = beginning(merchantId, nilUuid)
  while (from !== undefined) {
    const page: Effect.Success<ReturnType<typeof slicesAfter>> = yield* slicesAfter(ask, from, merchantId)
    for (const slice of page.slices) yield* use(slice)
    from = page.isLast ? undefined : page.next
  }
})

/** What the outbox is asked about by itself, and what of the ledger can be compared with events and with lines. */
const windowsOf = ({ ledgerKeptSince, outboxKeptSince }: AllMarks, upTo: number) => {
  const later =
    ledgerKeptSince === null || outboxKeptSince === null
      ? (ledgerKeptSince ?? outboxKeptSince)
      : Math.max(ledgerKeptSince, outboxKeptSince)
  const of = (after: number | null): Window => ({ after, upTo })
  return { outbox: of(outboxKeptSince), events: of(later), lines: of(ledgerKeptSince) }
}

interface AllMarks extends Marks {
  readonly outboxKeptSince: number | null
}

const readMarks = Effect.fnUntraced(function* (ask: Ask) {
  const rows = yield* ask<{ table: string; keptSince: number }>(marksStatement, [])
  const of = (table: string): number | null => rows.find((mark) => mark.table === table)?.keptSince ?? null
  const marks: AllMarks = {
    trackingKeptSince: of("tracking"),
    outboxKeptSince: of("outbox"),
    ledgerKeptSince: of("inventory_ledger")
  }
  return marks
})

// retention_mark_pkey. Rounded up: what was recorded within the same millisecond may be gone.
const marksStatement = `
  SELECT table_name AS "table", date_trunc('milliseconds', kept_since) + interval '1 millisecond' AS "keptSince"
  FROM retention_mark`

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
  SELECT ${fieldsInSql(reservationTable, "r", overdueFields)}
  FROM reservation r
  WHERE r.status = 'PENDING' AND r.expires_at <= $1 AND r.kind IN (${reservationKindsInSql(({ expires }) => expires)})
    AND ($2::text IS NULL OR r.merchant_id = $2)
  ORDER BY r.expires_at
  LIMIT 1`

const moment = (at: number): string => new Date(at).toISOString()

const leftOut = Effect.fnUntraced(function* (
  ask: Ask,
  marks: AllMarks,
  upTo: number,
  merchantId: string | undefined
) {
  const left = [
    `postings after ${moment(upTo)}, against their events: some may still be on their way`,
    "whether a broker outside of this database acknowledged what is marked SENT: only it knows"
  ]
  if (marks.outboxKeptSince !== null) {
    left.push(`events of postings before ${moment(marks.outboxKeptSince)}: sent, and removed by age`)
  }
  if (marks.trackingKeptSince !== null) {
    left.push(`tracking rows from before ${moment(marks.trackingKeptSince)}: removed by age`)
  }
  const [row] = yield* ask<{ stocks: number }>(checkpointedStatement, [parameter("text", merchantId ?? null)])
  if (row !== undefined && row.stocks > 0) {
    left.push(
      `movements before the checkpoints of ${row.stocks} stocks, and what reservations from before them moved`
    )
  }
  return left
})

// ledger_checkpoint_pkey
const checkpointedStatement = `
  SELECT count(*) AS stocks
  FROM (
    SELECT DISTINCT c.merchant_id, c.stock_id
    FROM ledger_checkpoint c
    WHERE $1::text IS NULL OR c.merchant_id = $1
  ) checkpointed`
