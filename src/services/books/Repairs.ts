import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import type { Command, Refusal } from "../kernel/commands.ts"
import type { RepairedFinding } from "../kernel/commands/repair.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { Check } from "../kernel/Question.ts"
import type { Finding } from "./audit/Finding.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { postingKey } from "../kernel/trackingKeys.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { nextUuid } from "../Uuid.ts"

/** One bounded transaction of a repair: what it is about, and what it would do, in words. */
export interface RepairStep {
  readonly merchantId: string
  readonly subject: string
  readonly says: string
  readonly findings: ReadonlyArray<Finding>
  readonly act:
    | { readonly _tag: "Post"; readonly command: Command }
    | { readonly _tag: "Acknowledge" }
    | { readonly _tag: "Track"; readonly key: string; readonly postingId: string }
    | { readonly _tag: "Guard"; readonly statement: string }
}

export interface RepairPlan {
  /** In the order in which they are done. */
  readonly steps: ReadonlyArray<RepairStep>
  /** Nothing can be derived for these: they wait for a person to acknowledge them. */
  readonly left: ReadonlyArray<Finding>
}

/**
 * Repairs what audit has found (decision 0009): the books follow the ledger, through the kernel's own rules and locks, and
 * each repair is kept in `audit_repair`. What cannot be derived is acknowledged by a person, or left.
 */
export class Repairs extends Context.Service<
  Repairs,
  {
    /**
     * What would be done about findings, some of which a person has looked into: findings' ids, or a stock's id for all
     * findings about it that nothing can be derived for. Pure: nothing is asked and nothing changed.
     */
    readonly plan: (
      findings: ReadonlyArray<Finding>,
      acknowledged: ReadonlySet<string>,
      reason: string
    ) => RepairPlan
    /** Does one step, as `actor`, and keeps it in `audit_repair`. */
    readonly run: (
      step: RepairStep,
      by: { readonly actor: string; readonly reason: string }
    ) => Effect.Effect<void, PostingFailure | Refusal<Command> | DatabaseUnavailable>
  }
>()("holdfast/services/Repairs") {
  static readonly layer = Layer.effect(
    Repairs,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db
      const run: Repairs["Service"]["run"] = Effect.fn("Repairs.run")(function* (step, { actor, reason }) {
        const { act, findings, merchantId, says, subject } = step
        const now = yield* Clock.currentTimeMillis
        if (act._tag === "Post") {
          const requestId = yield* nextUuid
          yield* ledger.post({ merchantId, actor, requestId, deadline: now + deadlineMs }, act.command)
        } else {
          if (act._tag === "Guard") yield* db.maintain(guarded(act.statement), [])
          if (act._tag === "Track") {
            yield* db.maintain(trackStatement, [
              parameter("text", merchantId),
              parameter("text", act.key),
              parameter("uuid", act.postingId),
              parameter("timestamptz", now)
            ])
          }
          for (const { check, id, row, subject } of findings) {
            const kept = [id, check, act._tag.toUpperCase(), subject, JSON.stringify(row), actor, reason]
            yield* db.maintain(logStatement, [
              parameter("text", merchantId),
              parameter("uuid", yield* nextUuid),
              ...kept.map((text) => parameter("text", text)),
              parameter("timestamptz", now)
            ])
          }
        }
        yield* Effect.logInfo("a repair of the books", { merchantId, subject, says, actor, reason })
      })
      return Repairs.of({ plan, run })
    })
  )
}

const deadlineMs = 10_000
/** A trigger or policy waits for those who use its table only so long: they wait behind it meanwhile. */
const guarded = (statement: string): string =>
  `DO $guard$ BEGIN SET LOCAL lock_timeout = '2s'; EXECUTE $text$${statement}$text$; END $guard$`

// tracking_pkey
const trackStatement = `
  INSERT INTO tracking (merchant_id, tracking_key, posting_id, answer, recorded_at)
  VALUES ($1, $2, $3, NULL, $4)
  ON CONFLICT (merchant_id, tracking_key) DO UPDATE SET posting_id = excluded.posting_id`

const logStatement = `
  INSERT INTO audit_repair (merchant_id, repair_id, finding, invariant, action, subject, before, after, actor, reason,
    repaired_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, '{}', $8, $9, $10)`

/** A broken ledger: a stock with one is not rebuilt from it, until a person has acknowledged that it goes on. */
const breaks: ReadonlySet<Check> = new Set(["ledger-follows", "ledger-ends"])

interface Phase {
  readonly of: (finding: Finding) => boolean
  /** Findings of one merchant with the same are one step. */
  readonly by: "id" | "itemId" | "reservationId"
  /** Undefined where it cannot be done. */
  readonly stepOf: (group: ReadonlyArray<Finding>, reason: string) => RepairStep | undefined
}

const plan: Repairs["Service"]["plan"] = (findings, acknowledged, reason) => {
  const isNamed = ({ id, stockId }: Finding): boolean =>
    acknowledged.has(id) || (stockId !== null && acknowledged.has(stockId))
  const broken = findings.filter(({ check }) => breaks.has(check))
  // One break of a stock is acknowledged with all of them: the chain goes on after the last.
  const goesOn = new Set(broken.filter(isNamed).map(({ stockId }) => stockId))
  const waitsFor = new Set(broken.map(({ stockId }) => stockId).filter((stockId) => !goesOn.has(stockId)))
  const isOver = ({ check, stockId }: Finding): boolean => breaks.has(check) && goesOn.has(stockId)
  const phases: ReadonlyArray<Phase> = [
    { of: ({ repair }) => repair === "SCHEMA", by: "id", stepOf: guardStep },
    { of: ({ repair }) => repair === "TRACKING", by: "id", stepOf: trackStep },
    {
      of: (each) => isOver(each) || (each.repair === "ITEM" && !isHeld(each)),
      by: "itemId",
      stepOf: itemStep
    },
    { of: ({ repair }) => repair === "RESERVATION", by: "reservationId", stepOf: reservationStep },
    // After the reservations: what they make up for themselves is not made up for again.
    { of: isHeld, by: "itemId", stepOf: itemStep },
    {
      of: (each) => each.repair === "ACKNOWLEDGE" && !breaks.has(each.check) && isNamed(each),
      by: "id",
      stepOf: acknowledgeStep
    }
  ]
  const steps: Array<RepairStep> = []
  const left = new Set(findings)
  for (const { by, of, stepOf } of phases) {
    const groups = Map.groupBy(findings.filter(of), (each) => `${each.merchantId}\u001f${each[by]}`)
    for (const group of groups.values()) {
      const step = group.some(({ stockId }) => waitsFor.has(stockId)) ? undefined : stepOf(group, reason)
      if (step === undefined) continue
      steps.push(step)
      for (const each of group) left.delete(each)
    }
  }
  // What an order's lines say that it sold is repaired with them.
  const orders = new Set(findings.filter(({ repair }) => repair === "RESERVATION").map(orderOf))
  return {
    steps,
    left: [...left].filter((each) => each.check !== "sold-once" || !orders.has(orderOf(each)))
  }
}

const isHeld = ({ check }: Finding): boolean => check === "reserved-is-open"
const orderOf = ({ merchantId, orderId }: Finding): string => `${merchantId} ${orderId}`

const about = (findings: ReadonlyArray<Finding>) => {
  const { merchantId, subject } = findings[0]!
  return { merchantId, subject, findings }
}

const acknowledgeStep: Phase["stepOf"] = (group) => ({
  ...about(group),
  says: "it is acknowledged as it is",
  act: { _tag: "Acknowledge" }
})

const guardStep: Phase["stepOf"] = (group) => {
  const { detail, repair } = group[0]!.row
  return typeof repair === "string"
    ? {
        ...about(group),
        says: `${String(detail)}: it is put back`,
        act: { _tag: "Guard", statement: repair }
      }
    : undefined
}

const trackStep: Phase["stepOf"] = (group) => {
  const { row } = group[0]!
  const postingId = String(row["postingId"])
  const key = String(row["trackingKey"] ?? postingKey(postingId))
  const says = `posting ${postingId} is written down as applied`
  return { ...about(group), says, act: { _tag: "Track", key, postingId } }
}

/** An item is rebuilt from the ledger, and goes on where its broken ledger is acknowledged. */
const itemStep: Phase["stepOf"] = (group, reason) => {
  const itemId = group[0]!.itemId!
  const reported = group.find(({ check }) => check === "number-was-told")?.row["sequenceTold"]
  const acknowledged = [
    ...new Set(group.filter(({ check }) => breaks.has(check)).map(({ stockId }) => stockId!))
  ]
  const command = {
    _tag: "RepairItem" as const,
    itemId,
    acknowledged,
    movesReserved: group.some(({ check }) => check === "reserved-is-open"),
    ...(typeof reported === "number" ? { eventsEmitted: reported } : {}),
    reason,
    findings: group.map(repairedFinding)
  }
  const says = [
    ...acknowledged.map((stockId) => `stock ${stockId} goes on from a checkpoint of what it has`),
    ...group.flatMap(({ check, row, stockId }) => {
      const text = effects[check]?.(row)
      return text === undefined ? [] : [stockId === null ? text : `stock ${stockId}: ${text}`]
    })
  ].join("; ")
  return { ...about(group), subject: `item ${itemId}`, says, act: { _tag: "Post", command } }
}

const figures = (row: Finding["row"], prefix = ""): string =>
  `(${["onHand", "reserved", "unallocatable"]
    .map((name) => String(row[prefix === "" ? name : `${prefix}${name[0]!.toUpperCase()}${name.slice(1)}`]))
    .join(", ")})`

/** What rebuilding an item does about what was found, in words. */
const effects: { readonly [C in Check]?: (row: Finding["row"]) => string } = {
  "stock-is-its-ledger": (row) => `${figures(row)} becomes ${figures(row, "ledger")}`,
  "item-is-its-stocks": (row) => `the item: ${figures(row)} becomes ${figures(row, "stocks")}`,
  "item-status": ({ status, statusExpected }) => `status ${String(status)} becomes ${String(statusExpected)}`,
  "reserved-is-open": ({ open, reserved }) =>
    `${String(reserved)} reserved, ${String(open)} open on its lines: a movement makes up for what its ledger and reservations do not`,
  "balance-has-its-discrepancy": ({ called }) =>
    `open discrepancies become ${(called as ReadonlyArray<string>).join(" and ") || "none"}`,
  "discontinued-has-its-discrepancy": ({ isOpen }) =>
    `DISCONTINUED_WITH_STOCK ${isOpen === true ? "closes" : "opens"}`,
  "deleted-has-no-stock": () => "the item is discontinued instead, while it has stock",
  "number-was-told": ({ sequenceTold }) => `events go on from number ${String(sequenceTold)}`
}

const reservationStep: Phase["stepOf"] = (group, reason) => {
  const reservationId = group[0]!.reservationId!
  const orderId = group.find((one) => one.orderId !== null)?.orderId
  if (orderId === undefined || orderId === null) return undefined
  const command = {
    _tag: "RepairReservation" as const,
    orderId,
    reservationId,
    itemIds: [...new Set(group.flatMap(({ itemId }) => (itemId === null ? [] : [itemId])))],
    // A reservation carries its posting's id, and that its time.
    since: Number.parseInt(reservationId.replaceAll("-", "").slice(0, 12), 16),
    reason,
    findings: group.map(repairedFinding)
  }
  const says = "the reservation is made to agree with the ledger: its sales follow, its stock by a movement"
  return { ...about(group), subject: `reservation ${reservationId}`, says, act: { _tag: "Post", command } }
}

const repairedFinding = ({ check, id, subject }: Finding): RepairedFinding => ({
  finding: id,
  check,
  subject,
  acknowledges: breaks.has(check)
})
