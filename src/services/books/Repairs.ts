import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import type { Command, Refusal } from "../kernel/commands.ts"
import type { RepairedFinding } from "../kernel/commands/repair.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { Finding } from "./audit/Finding.ts"
import { Db } from "../Db.ts"
import { parameter } from "../PostgresTypes.ts"
import { postingKey, postingKeyPrefix } from "../kernel/trackingKeys.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { nextUuid } from "../Uuid.ts"

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
              parameter("text", postingKey(act.postingId)),
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
  const judgement = judge(findings, acknowledgement)
  const guards = putBack(findings)
  const items = rebuild(findings, judgement, reason)
  const reservations = settle(findings, judgement, reason)
  return {
    steps: [
      ...guards.steps,
      ...track(findings),
      ...items.steps,
      ...reservations.steps,
      // After the reservations: what they make up for themselves is not made up for again.
      ...items.settling,
      ...acknowledge(judgement)
    ],
    left: [...waiting(findings, judgement), ...guards.left, ...items.left, ...reservations.left]
  }
}

/** What a person's acknowledgement makes of findings that nothing can be derived for. */
interface Judgement {
  readonly acknowledged: ReadonlySet<Finding>
  /** Stocks with a broken ledger that nobody has acknowledged yet. */
  readonly unsettled: ReadonlySet<string>
}

const judge = (findings: ReadonlyArray<Finding>, acknowledgement: Acknowledgement): Judgement => {
  const isAcknowledged = ({ id, mend, stockId }: Finding): boolean =>
    mend === "ACKNOWLEDGE" &&
    (acknowledgement.of.has(id) || (stockId !== null && acknowledgement.of.has(stockId)))
  const broken = findings.filter(({ check }) => breaks.has(check))
  // One break of a stock is acknowledged with all of them: the chain goes on after the last.
  const settled = new Set(broken.filter(isAcknowledged).map(({ stockId }) => stockId!))
  return {
    acknowledged: new Set(
      findings.filter(
        (each) => isAcknowledged(each) || (breaks.has(each.check) && settled.has(each.stockId!))
      )
    ),
    unsettled: new Set(
      broken.flatMap(({ stockId }) => (stockId !== null && settled.has(stockId) ? [] : [stockId!]))
    )
  }
}

/** An item whose stock does not follow its broken ledger waits for the acknowledgement, and with it all that it totals. */
const isWaiting = (group: ReadonlyArray<Finding>, { unsettled }: Judgement): boolean =>
  group.some(({ stockId }) => stockId !== null && unsettled.has(stockId))

const orderOf = ({ merchantId, orderId }: Finding): string => `${merchantId} ${orderId}`

/** What waits for a person. What an order's lines say that it sold is mended with them. */
const waiting = (findings: ReadonlyArray<Finding>, { acknowledged }: Judgement): ReadonlyArray<Finding> => {
  const mended = new Set(findings.filter(({ mend }) => mend === "RESERVATION").map(orderOf))
  return findings.filter(
    (each) =>
      each.mend === "ACKNOWLEDGE" &&
      !acknowledged.has(each) &&
      !(each.check === "sold-once" && mended.has(orderOf(each)))
  )
}

const putBack = (findings: ReadonlyArray<Finding>): RepairPlan => {
  const steps: Array<RepairStep> = []
  const left: Array<Finding> = []
  for (const each of findings) {
    const { detail, mend } = each.row
    if (each.mend !== "SCHEMA") continue
    if (typeof mend === "string") {
      steps.push(step([each], `${String(detail)}: it is put back`, { _tag: "Guard", statement: mend }))
    } else left.push(each)
  }
  return { steps, left }
}

const track = (findings: ReadonlyArray<Finding>): ReadonlyArray<RepairStep> =>
  findings
    .filter(({ mend }) => mend === "TRACKING")
    .map((each) => {
      const key = each.row["trackingKey"]
      const postingId =
        typeof key === "string" ? key.slice(postingKeyPrefix.length) : String(each.row["postingId"])
      return step([each], `posting ${postingId} is written down as applied`, { _tag: "Track", postingId })
    })

/** Items that do not follow their ledger, or whose broken ledger is acknowledged; those to be settled apart. */
const rebuild = (findings: ReadonlyArray<Finding>, judgement: Judgement, reason: string) => {
  const steps: Array<RepairStep> = []
  const settling: Array<RepairStep> = []
  const left: Array<Finding> = []
  const isAbout = (each: Finding): boolean =>
    each.mend === "ITEM" || (breaks.has(each.check) && judgement.acknowledged.has(each))
  const groups = groupedBy(findings.filter(isAbout), ({ itemId }) => itemId)
  for (const group of groups) {
    if (isWaiting(group, judgement)) {
      left.push(...group.filter(({ mend }) => mend === "ITEM"))
      continue
    }
    const rebuilt = group.filter(({ check }) => check !== "reserved-is-open")
    const settled = group.filter(({ check }) => check === "reserved-is-open")
    if (rebuilt.length > 0) steps.push(itemStep(rebuilt, false, reason))
    if (settled.length > 0) settling.push(itemStep(settled, true, reason))
  }
  return { steps, settling, left }
}

const itemStep = (group: ReadonlyArray<Finding>, settles: boolean, reason: string): RepairStep => {
  const broken = group.filter(({ check }) => breaks.has(check)).map(({ stockId }) => stockId!)
  const acknowledged = [...new Set(broken)]
  const told = group.find(({ check }) => check === "number-was-told")?.row["sequenceTold"]
  const command = {
    _tag: "RepairItem" as const,
    itemId: group[0]!.itemId!,
    acknowledged,
    movesReserved: settles,
    ...(typeof told === "number" ? { eventsEmitted: told } : {}),
    reason,
    findings: group.map(repairedFinding)
  }
  return step(group, sayingOf(group, acknowledged), { _tag: "Post", command })
}

const settle = (findings: ReadonlyArray<Finding>, judgement: Judgement, reason: string): RepairPlan => {
  const steps: Array<RepairStep> = []
  const left: Array<Finding> = []
  const about = findings.filter(({ mend }) => mend === "RESERVATION")
  for (const group of groupedBy(about, ({ reservationId }) => reservationId)) {
    const orderId = group.find((each) => each.orderId !== null)?.orderId
    if (orderId === undefined || orderId === null || isWaiting(group, judgement)) {
      left.push(...group)
      continue
    }
    const reservationId = group[0]!.reservationId!
    const command = {
      _tag: "RepairReservation" as const,
      orderId,
      reservationId,
      itemIds: [...new Set(group.flatMap(({ itemId }) => (itemId === null ? [] : [itemId])))],
      since: Number.parseInt(reservationId.replaceAll("-", "").slice(0, 12), 16),
      reason,
      findings: group.map(repairedFinding)
    }
    const says = "the reservation is settled with the ledger: its sales follow, its stock by a movement"
    steps.push(step(group, says, { _tag: "Post", command }))
  }
  return { steps, left }
}

/** Breaks of a ledger are acknowledged with their item. */
const acknowledge = ({ acknowledged }: Judgement): ReadonlyArray<RepairStep> =>
  [...acknowledged]
    .filter(({ check }) => !breaks.has(check))
    .map((each) => step([each], "it is acknowledged as it is", { _tag: "Acknowledge" }))

/** The findings of one merchant about one thing, in the order in which the first was found. */
const groupedBy = (
  findings: ReadonlyArray<Finding>,
  idOf: (finding: Finding) => string | null
): Iterable<ReadonlyArray<Finding>> =>
  Map.groupBy(findings, (each) => `${each.merchantId}\u001f${idOf(each)}`).values()

const step = (findings: ReadonlyArray<Finding>, says: string, act: Act): RepairStep => {
  const { itemId, merchantId, reservationId, subject } = findings[0]!
  const isItem = act._tag === "Post" && act.command._tag === "RepairItem"
  const isReservation = act._tag === "Post" && act.command._tag === "RepairReservation"
  return {
    merchantId,
    subject: isItem ? `item ${itemId}` : isReservation ? `reservation ${reservationId}` : subject,
    says,
    findings,
    act
  }
}

const repairedFinding = ({ check, id, subject }: Finding): RepairedFinding => ({
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
