import { Console, Effect, Layer, Option, Schema } from "effect"
import { Command } from "effect/cli"
import * as Configuration from "../layers/Configuration.ts"
import * as DatabaseClock from "../layers/DatabaseClock.ts"
import * as Postgres from "../layers/Postgres.ts"
import { DatabaseUnavailable } from "../schema/Failure.ts"
import { Audit, type AuditReport } from "../services/Audit.ts"
import type { Finding } from "../services/audit/Finding.ts"
import { commandDatabase } from "./database.ts"
import { json, merchant } from "./options.ts"
import { momentOf, paint, printRows } from "./Table.ts"

/** `holdfast audit`: proves the books, beside a running service. */

/** Something does not hold: the audit did its work, and its exit code says so. */
export class BooksBroken extends Schema.TaggedError<BooksBroken>()("BooksBroken", {
  findings: Schema.Int
}) {
  readonly exitCode = 1
  override get message(): string {
    return `${this.findings} ${this.findings === 1 ? "finding" : "findings"}: docs/audit.md says what each means and how it is mended`
  }
}

/** The audit could not look, or not at everything: nothing is said of the books. */
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

/** What a person is shown at most; all are counted. `--json` tells every one. */
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

export const audit = Command.make("audit", { json, merchant }, ({ json, merchant }) =>
  Effect.gen(function* () {
    const shown: Array<Finding> = []
    const report = yield* looking(
      Effect.gen(function* () {
        const { examine } = yield* Audit
        return yield* examine({
          merchantId: Option.getOrUndefined(merchant),
          tell: (finding) =>
            json
              ? Console.log(JSON.stringify(finding))
              : Effect.sync(() => {
                  if (shown.length < shownMax) shown.push(finding)
                })
        })
      })
    )
    if (json) yield* Console.log(JSON.stringify(report))
    else yield* show(report, shown)
    if (!report.holds) return yield* new BooksBroken({ findings: countOf(report) })
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription(
    "Prove the books: exit 0 when everything holds, 1 with the rows in question when not, 2 when it could not look"
  )
)

const countOf = ({ found }: AuditReport): number =>
  Object.values(found).reduce((sum, count) => sum + count, 0)

/** What an audit stands on. It needs no broker. */
const looking = <A, E>(use: Effect.Effect<A, E, Audit>) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const url = yield* commandDatabase(settings)
    return yield* Effect.provide(
      use,
      Audit.layer.pipe(
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
    Effect.mapError(couldNotLook),
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
