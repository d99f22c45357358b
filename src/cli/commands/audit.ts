import { Console, Effect, Layer, Option, Schema } from "effect"
import { Command, Flag, Prompt } from "effect/cli"
import * as Configuration from "../../layers/Configuration.ts"
import * as DatabaseClock from "../../layers/DatabaseClock.ts"
import * as Postgres from "../../layers/Postgres.ts"
import { DatabaseUnavailable } from "../../schema/Failure.ts"
import { Audit, type AuditReport } from "../../services/books/Audit.ts"
import type { Finding } from "../../services/books/audit/Finding.ts"
import { Partitions } from "../../services/Partitions.ts"
import { type RepairPlan, Repairs } from "../../services/books/Repairs.ts"
import { StockLedger } from "../../services/kernel/StockLedger.ts"
import { commandDatabase } from "../database.ts"
import { json, merchant } from "../options.ts"
import { momentOf, paint, printJson, printRows } from "../Table.ts"

/** `holdfast audit`: proves the books, and repairs them, beside a running service. */

/** An invariant does not hold: the audit ended, and its exit code says so. */
export class BooksBroken extends Schema.TaggedError<BooksBroken>()("BooksBroken", {
  findings: Schema.Int
}) {
  readonly exitCode = 1
  override get message(): string {
    return `${this.findings} ${this.findings === 1 ? "finding" : "findings"}: docs/audit.md says what each means and how it is repaired`
  }
}

/** The audit could not examine everything, so that it has no result. */
export class CouldNotLook extends Schema.TaggedError<CouldNotLook>()("CouldNotLook", {
  cause: Schema.Defect()
}) {
  readonly exitCode = 2
  override get message(): string {
    return this.cause instanceof DatabaseUnavailable
      ? "the books could not be looked at: the database does not answer (DATABASE_URL)"
      : "the books could not be looked at"
  }
}

const couldNotLook = (cause: unknown): CouldNotLook => new CouldNotLook({ cause })

/** Findings that are printed for a person. All are counted, and `--json` prints each. */
const shownMax = 200

const invariants: ReadonlyArray<readonly [number: number, says: string]> = [
  [1, "stocks are their ledger, items their stocks"],
  [2, "what is reserved is held by open lines"],
  [3, "a broken balance has its open discrepancy"],
  [4, "every movement is told, in order"],
  [5, "every fact is applied once, every line sold once"],
  [6, "nothing stays pending past its expiry"],
  [7, "merchants are apart"]
]

/** Findings that one repair keeps in memory and works on. The next repair finds the others. */
const repairedMax = 5_000

const repair = Flag.Boolean("repair").pipe(
  Flag.withDescription("Show what would repair the books, and do it when confirmed"),
  Flag.withDefault(false)
)
const yes = Flag.Boolean("yes").pipe(
  Flag.withDescription("Confirm the repair without being asked"),
  Flag.withDefault(false)
)
const acknowledge = Flag.String("acknowledge").pipe(
  Flag.withDescription(
    "With --repair: a finding, or a stock with all its findings, that nothing can be derived for and that was looked into"
  ),
  Flag.between(0, Number.MAX_SAFE_INTEGER)
)
const reason = Flag.String("reason").pipe(
  Flag.withDescription("With --repair: why; kept with what was done"),
  Flag.optional
)

/** An acknowledgement needs a reason, which is kept. */
export class ReasonMissing extends Schema.TaggedError<ReasonMissing>()("ReasonMissing", {}) {
  readonly exitCode = 2
  override get message(): string {
    return "--acknowledge needs --repair and a --reason: it is kept, and audit takes it as it is from then on"
  }
}

export const audit = Command.make(
  "audit",
  { json, merchant, repair, yes, acknowledge, reason },
  ({ acknowledge, json, merchant, reason, repair, yes }) =>
    Effect.gen(function* () {
      if (acknowledge.length > 0 && (!repair || Option.isNone(reason))) return yield* new ReasonMissing()
      const merchantId = Option.getOrUndefined(merchant)
      const look = looking({ json, merchantId, keeps: repair ? repairedMax : shownMax })
      yield* withBooks(
        Effect.gen(function* () {
          const first = yield* look
          if (!repair) return yield* judge(first.report)
          const isDone = yield* repairAll(first.findings, {
            json,
            yes,
            acknowledged: new Set(acknowledge),
            reason: Option.getOrElse(reason, () => "audit --repair")
          })
          return yield* judge(isDone ? (yield* look).report : first.report)
        })
      )
    })
).pipe(
  Command.withDescription(
    "Prove the books: exit 0 when everything holds, 1 with the rows in question when not, 2 when it could not look"
  )
)

const judge = (report: AuditReport) =>
  report.holds ? Effect.void : Effect.fail(new BooksBroken({ findings: countOf(report) }))

/** Examines everything, prints the report, and keeps the first findings. */
const looking = Effect.fnUntraced(function* (options: {
  readonly json: boolean
  readonly merchantId: string | undefined
  readonly keeps: number
}) {
  const { json, keeps, merchantId } = options
  const { examine } = yield* Audit
  const findings: Array<Finding> = []
  const report = yield* examine({
    merchantId,
    tell: (finding) =>
      Effect.suspend(() => {
        if (findings.length < keeps) findings.push(finding)
        return json ? printJson(finding) : Effect.void
      })
  })
  if (json) yield* printJson(report)
  else yield* show(report, findings.slice(0, shownMax))
  return { findings, report }
})

/** Prints the plan of a repair and runs it once confirmed. Answers whether any step was run. */
const repairAll = Effect.fnUntraced(function* (
  findings: ReadonlyArray<Finding>,
  {
    acknowledged,
    json,
    reason,
    yes
  }: {
    readonly json: boolean
    readonly yes: boolean
    readonly acknowledged: ReadonlySet<string>
    readonly reason: string
  }
) {
  const { plan, run } = yield* Repairs
  const planned = plan(findings, acknowledged, reason)
  yield* json ? printPlan(planned) : showPlan(planned)
  const { steps } = planned
  if (steps.length === 0) return false
  if (!yes && (!process.stdin.isTTY || json)) {
    yield* Console.error("holdfast: nothing was changed: --yes does it")
    return false
  }
  const message = `Do these ${steps.length} things?`
  const confirmed = Effect.catch(Prompt.Confirm({ message, initial: false }), () => Effect.succeed(false))
  if (!yes && !(yield* confirmed)) return false
  const actor = `cli:${process.env["USER"] ?? process.env["LOGNAME"] ?? "operator"}`
  for (const step of steps) {
    yield* run(step, { actor, reason }).pipe(
      // A failed step stops no other, and the audit that follows reports what is left.
      Effect.catch(({ _tag, message }) =>
        Console.error(`holdfast: ${step.subject} could not be repaired: ${_tag} ${message}`)
      )
    )
  }
  return true
})

const printPlan = Effect.fnUntraced(function* ({ left, steps }: RepairPlan) {
  for (const { findings, merchantId, says, subject } of steps) {
    const step = { step: subject, merchantId, says, findings: findings.map(({ id }) => id) }
    yield* Console.log(JSON.stringify(step))
  }
  for (const { id, subject } of left) yield* Console.log(JSON.stringify({ left: subject, finding: id }))
})

const showPlan = Effect.fnUntraced(function* ({ left, steps }: RepairPlan) {
  if (steps.length > 0) {
    yield* Console.log("\nA repair would do this:\n")
    yield* printRows(
      steps,
      [
        { title: "MERCHANT", value: ({ merchantId }) => merchantId || null },
        { title: "ABOUT", value: ({ subject }) => subject },
        { title: "WHAT", value: ({ says }) => says }
      ],
      { json: false, empty: "" }
    )
  }
  if (left.length === 0) return
  yield* Console.log(
    `\n${left.length} of the findings wait for a person: nothing that is kept says what is right. Look into them, then\n--acknowledge <finding or stock> --reason "…" takes them as they are:`
  )
  for (const { id, subject } of left.slice(0, shownMax)) yield* Console.log(`  ${id}  ${subject}`)
})

const countOf = ({ found }: AuditReport): number =>
  Object.values(found).reduce((sum, count) => sum + count, 0)

/** The layers of an audit and a repair: the database and the kernel. Neither needs a broker. */
const withBooks = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      use,
      Layer.mergeAll(Audit.layer, Repairs.layer).pipe(
        Layer.provideMerge(StockLedger.layer.pipe(Layer.provide(Partitions.layer))),
        Layer.provideMerge(DatabaseClock.layer),
        Layer.provide(
          Postgres.layer({
            url,
            idleInTransactionMs: settings.idleInTransactionMs,
            readTimeoutMs: settings.requestTimeoutMs
          })
        )
      )
    )
  }).pipe(
    Effect.scoped,
    Effect.mapError((failure) => (failure instanceof BooksBroken ? failure : couldNotLook(failure))),
    Effect.catchDefect((defect) => Effect.fail(couldNotLook(defect)))
  )

const show = Effect.fnUntraced(function* (report: AuditReport, shown: ReadonlyArray<Finding>) {
  const { acknowledged, looked, overdue } = report
  yield* printRows(
    invariants,
    [
      { title: "INVARIANT", value: ([number]) => number },
      {
        title: "RESULT",
        value: ([number]) =>
          report.found[number] === 0 ? (number === 6 && overdue !== null ? "late" : "holds") : "BROKEN",
        colour: ([number]) =>
          report.found[number] === 0 ? (number === 6 && overdue !== null ? "yellow" : "green") : "red"
      },
      { title: "FINDINGS", value: ([number]) => report.found[number] ?? 0 },
      { title: "SAYS", value: ([, says]) => says }
    ],
    { json: false, empty: "" }
  )
  if (shown.length > 0) {
    yield* Console.log("")
    yield* printRows(
      shown,
      [
        { title: "INV", value: ({ invariant }) => invariant },
        { title: "FINDING", value: ({ id }) => id },
        { title: "MERCHANT", value: ({ merchantId }) => merchantId || null },
        { title: "ABOUT", value: ({ subject }) => subject },
        { title: "SAYS", value: ({ says }) => says },
        { title: "ROW", value: ({ row }) => rowText(row) }
      ],
      { json: false, empty: "" }
    )
    const more = countOf(report) - shown.length
    if (more > 0) yield* Console.log(`… and ${more} more: --json tells every one`)
  }
  yield* Console.log(
    `\nLooked at ${looked.stocks} stocks, ${looked.movements} movements and ${looked.events} events in ${(report.durationMs / 1000).toFixed(1)} s.`
  )
  if (acknowledged > 0)
    yield* Console.log(`${acknowledged} findings were acknowledged before and are not told again.`)
  yield* Console.log(
    overdue === null
      ? "No reservation is PENDING past its expiry."
      : `The oldest reservation that is PENDING past its expiry: ${overdue.reservationId} of order ${overdue.orderId} (${overdue.merchantId}), since ${momentOf(overdue.expiresAt)}, ${(overdue.lateMs / 1000).toFixed(1)} s.`
  )
  for (const left of report.notChecked) yield* Console.log(yield* paint(`Not checked: ${left}.`, "dim"))
})

const rowText = (row: Finding["row"]): string =>
  Object.entries(row)
    .map(
      ([name, value]) =>
        `${name} ${Array.isArray(value) ? value.join("+") || "none" : String(value ?? "none")}`
    )
    .join(", ")
