import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../schema/Failure.ts"
import type { Command, MendedFinding, PostingFailure, Refusal } from "../schema/Posting.ts"
import type { Finding } from "./audit/Finding.ts"
import { Db } from "./Db.ts"
import { parameter } from "./PostgresTypes.ts"
import { StockLedger } from "./StockLedger.ts"
import { nextUuid } from "./Uuid.ts"

/** What a person has looked into, and says why it is so. */
export interface Acknowledgement {
  /** Findings' ids, or stocks' ids: a stock's stands for all findings about it that nothing can be derived for. */
  readonly of: ReadonlySet<string>
}

/** One bounded transaction of a repair: what it is about, and what it would do, in words. */
export interface RepairStep {
  readonly merchantId: string
  readonly subject: string
  readonly says: string
  readonly findings: ReadonlyArray<Finding>
  readonly act: Act
}
type Act =
  | { readonly _tag: "Post"; readonly command: Command }
  | { readonly _tag: "Acknowledge" }
  | { readonly _tag: "Track"; readonly postingId: string }
  | { readonly _tag: "Guard"; readonly statement: string }

export interface RepairPlan {
  /** In the order in which they are done. */
  readonly steps: ReadonlyArray<RepairStep>
  /** What nothing can be derived for: it waits for a person to acknowledge it. */
  readonly left: ReadonlyArray<Finding>
}

/**
 * Mends what audit has found (decision 0009): the books follow the ledger, through the kernel's own rules and locks, and
 * each repair is kept in `audit_repair`. What cannot be derived is acknowledged by a person, or left.
 */
export class Repairs extends Context.Service<
  Repairs,
  {
    /** What would be done about findings. Pure: nothing is asked and nothing changed. */
    readonly plan: (
      findings: ReadonlyArray<Finding>,
      acknowledgement: Acknowledgement,
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
              parameter("text", `POSTING|${act.postingId}`),
              parameter("uuid", act.postingId),
              parameter("timestamptz", now)
            ])
          }
          for (const finding of findings) {
            yield* db.maintain(logStatement, [
              parameter("text", merchantId),
              parameter("uuid", yield* nextUuid),
              parameter("text", finding.id),
              parameter("text", finding.check),
              parameter("text", act._tag === "Acknowledge" ? "ACKNOWLEDGE" : act._tag.toUpperCase()),
              parameter("text", finding.subject),
              parameter("text", JSON.stringify(finding.row)),
              parameter("text", actor),
              parameter("text", reason),
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

/** A broken ledger: a stock with one is not rebuilt from it. */
const breaks = new Set(["ledger-follows", "ledger-ends"])

const plan: Repairs["Service"]["plan"] = (findings, acknowledgement, reason) => {
  const isAcknowledged = ({ id, mend, stockId }: Finding): boolean =>
    mend === "ACKNOWLEDGE" &&
    (acknowledgement.of.has(id) || (stockId !== null && acknowledgement.of.has(stockId)))
  const broken = findings.filter(({ check }) => breaks.has(check))
  // One break of a stock is acknowledged with all of them: the chain goes on after the last.
  const isSettled = (stockId: string): boolean =>
    broken.some((each) => each.stockId === stockId && isAcknowledged(each))
  const acknowledged = findings.filter(
    (each) => isAcknowledged(each) || (breaks.has(each.check) && isSettled(each.stockId!))
  )
  const unsettled = new Set(broken.flatMap(({ stockId }) => (isSettled(stockId!) ? [] : [stockId!])))
  const mendedOrders = new Set(
    findings
      .filter(({ mend }) => mend === "RESERVATION")
      .map(({ merchantId, orderId }) => `${merchantId} ${orderId}`)
  )
  const left = findings.filter(
    (each) =>
      each.mend === "ACKNOWLEDGE" &&
      !acknowledged.includes(each) &&
      // What its lines say that it sold is mended with them.
      !(each.check === "sold-once" && mendedOrders.has(`${each.merchantId} ${each.orderId}`))
  )

  const guardSteps = findings.flatMap((each): ReadonlyArray<RepairStep> => {
    const { mend } = each.row
    if (each.mend !== "SCHEMA") return []
    if (typeof mend !== "string") {
      left.push(each)
      return []
    }
    return [step([each], `${String(each.row["detail"])}: it is put back`, { _tag: "Guard", statement: mend })]
  })
  const trackSteps = findings
    .filter(({ mend }) => mend === "TRACKING")
    .map((each) => {
      const key = each.row["trackingKey"]
      const postingId = typeof key === "string" ? key.slice("POSTING|".length) : String(each.row["postingId"])
      return step([each], `posting ${postingId} is written down as applied`, {
        _tag: "Track",
        postingId
      })
    })

  const items = new Map<string, Array<Finding>>()
  const reservations = new Map<string, Array<Finding>>()
  for (const each of findings) {
    const isBreak = breaks.has(each.check) && acknowledged.includes(each)
    if (isBreak || each.mend === "ITEM") add(items, `${each.merchantId}\u001f${each.itemId}`, each)
    else if (each.mend === "RESERVATION")
      add(reservations, `${each.merchantId}\u001f${each.reservationId}`, each)
  }
  // An item whose stock does not follow its broken ledger waits for the acknowledgement, and with it all that it totals.
  const isWaiting = (group: ReadonlyArray<Finding>): boolean =>
    group.some(({ stockId }) => stockId !== null && unsettled.has(stockId))
  const itemSteps: Array<RepairStep> = []
  const settleSteps: Array<RepairStep> = []
  for (const group of items.values()) {
    if (isWaiting(group)) {
      left.push(...group.filter(({ mend }) => mend === "ITEM"))
      continue
    }
    const { itemId } = group[0]!
    const stocks = group.filter(({ check }) => breaks.has(check)).map(({ stockId }) => stockId!)
    const told = group.find(({ check }) => check === "number-was-told")?.row["sequenceTold"]
    const mend = (some: ReadonlyArray<Finding>, settles: boolean): RepairStep => {
      const acknowledged = settles ? [] : [...new Set(stocks)]
      const command = {
        _tag: "MendItem" as const,
        itemId: itemId!,
        acknowledged,
        settles,
        ...(typeof told === "number" ? { eventsTold: told } : {}),
        reason,
        findings: some.map(mendedFinding)
      }
      return step(some, sayingOf(some, acknowledged), { _tag: "Post", command })
    }
    const rebuilt = group.filter(({ check }) => check !== "reserved-is-open")
    const settled = group.filter(({ check }) => check === "reserved-is-open")
    if (rebuilt.length > 0) itemSteps.push(mend(rebuilt, false))
    // After the reservations: what they make up for themselves is not made up for again.
    if (settled.length > 0) settleSteps.push(mend(settled, true))
  }
  const reservationSteps: Array<RepairStep> = []
  for (const group of reservations.values()) {
    const orderId = group.find((each) => each.orderId !== null)?.orderId
    if (orderId === undefined || orderId === null || isWaiting(group)) {
      left.push(...group)
      continue
    }
    const reservationId = group[0]!.reservationId!
    const since = Number.parseInt(reservationId.replaceAll("-", "").slice(0, 12), 16)
    const itemIds = [...new Set(group.flatMap(({ itemId }) => (itemId === null ? [] : [itemId])))]
    reservationSteps.push(
      step(group, "the reservation is settled with the ledger: its sales follow, its stock by a movement", {
        _tag: "Post",
        command: {
          _tag: "MendReservation",
          orderId,
          reservationId,
          itemIds,
          since,
          reason,
          findings: group.map(mendedFinding)
        }
      })
    )
  }
  const acknowledgeSteps = acknowledged
    .filter(({ check }) => !breaks.has(check))
    .map((each) => step([each], "it is acknowledged as it is", { _tag: "Acknowledge" }))
  return {
    steps: [
      ...guardSteps,
      ...trackSteps,
      ...itemSteps,
      ...reservationSteps,
      ...settleSteps,
      ...acknowledgeSteps
    ],
    left
  }
}

const add = (groups: Map<string, Array<Finding>>, key: string, each: Finding): void => {
  const known = groups.get(key)
  if (known === undefined) groups.set(key, [each])
  else known.push(each)
}

const step = (findings: ReadonlyArray<Finding>, says: string, act: Act): RepairStep => {
  const { itemId, merchantId, reservationId, subject } = findings[0]!
  const isItem = act._tag === "Post" && act.command._tag === "MendItem"
  const isReservation = act._tag === "Post" && act.command._tag === "MendReservation"
  return {
    merchantId,
    subject: isItem ? `item ${itemId}` : isReservation ? `reservation ${reservationId}` : subject,
    says,
    findings,
    act
  }
}

const mendedFinding = ({ check, id, subject }: Finding): MendedFinding => ({
  finding: id,
  check,
  subject,
  acknowledges: breaks.has(check)
})

const sayingOf = (group: ReadonlyArray<Finding>, broken: ReadonlyArray<string>): string => {
  const parts: Array<string> = []
  for (const stockId of new Set(broken)) {
    parts.push(`stock ${stockId} goes on from a checkpoint of what it has`)
  }
  for (const { check, row, stockId } of group) {
    const [on, reserved, unallocatable] = ["OnHand", "Reserved", "Unallocatable"]
    if (check === "stock-is-its-ledger") {
      parts.push(
        `stock ${stockId}: ${figures(row, "onHand", "reserved", "unallocatable")} becomes ${figures(row, `ledger${on}`, `ledger${reserved}`, `ledger${unallocatable}`)}`
      )
    }
    if (check === "item-is-its-stocks") {
      parts.push(
        `the item: ${figures(row, "onHand", "reserved", "unallocatable")} becomes ${figures(row, `stocks${on}`, `stocks${reserved}`, `stocks${unallocatable}`)}`
      )
    }
    if (check === "item-status")
      parts.push(`status ${String(row["status"])} becomes ${String(row["statusExpected"])}`)
    if (check === "reserved-is-open") {
      parts.push(
        `stock ${stockId}: ${String(row["reserved"])} reserved, ${String(row["open"])} open on its lines: what its ledger and reservations do not settle, a movement does`
      )
    }
    if (check === "balance-has-its-discrepancy") {
      const called = row["called"] as ReadonlyArray<string>
      parts.push(`stock ${stockId}: open discrepancies become ${called.join(" and ") || "none"}`)
    }
    if (check === "number-was-told") parts.push(`events go on from number ${String(row["sequenceTold"])}`)
  }
  return parts.join("; ")
}

const figures = (row: Finding["row"], ...names: ReadonlyArray<string>): string =>
  `(${names.map((name) => String(row[name])).join(", ")})`
