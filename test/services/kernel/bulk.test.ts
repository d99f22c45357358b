import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Bulk, BulkOperation } from "../../../src/services/kernel/commands/bulk.ts"
import type { Command, Posting } from "../../../src/services/kernel/commands.ts"
import {
  Desk,
  MemoryStore,
  callerOf,
  postingId,
  snapshotOf,
  variant,
  decide,
  type Verdict
} from "../../support/books.ts"
import { histories, play, share } from "./histories.ts"

// Goal: a bulk is the same as its operations one after the other, but for what is all or none. Method: the postings of
// random histories are decided twice from the same books, each alone and all in a bulk; what is left is compared, with
// ids told by the order in which they appear, since only the kernel knows them. `npm run test:faults` plays three times as
// many as `npm test`.

describe("a bulk", { timeout: 120_000 }, () => {
  it("with continueOnFailure does what its operations do one after the other, and answers each as it would", () => {
    comparing((before, operations, at) => {
      const alone = before.copy()
      const verdicts = operations.map((operation, index) =>
        runOn(alone, { id: postingId(at, 1_000_000 + index), at, caller: callerOf(at), command: operation })
      )
      const together = before.copy()
      const verdict = runOn(together, bulkPosting(at, { mode: "continueOnFailure", operations }))
      assert.strictEqual(storeText(together), storeText(alone))
      assert.deepStrictEqual(
        plain("answer" in verdict && verdict.answer),
        plain({
          at,
          rows: verdicts.map((one, index) =>
            "answer" in one ? { index, answer: one.answer } : { index, failure: { ...one.refusal } }
          )
        })
      )
      return verdicts.some((one) => "refusal" in one) && verdicts.some((one) => "answer" in one)
    })
  })

  it("that is atomic does all of it, or names the first that is refused and leaves no trace", () => {
    comparing((before, operations, at) => {
      const alone = before.copy()
      let refusedAt: number | undefined
      for (const [index, command] of operations.entries()) {
        const posting = { id: postingId(at, 1_000_000 + index), at, caller: callerOf(at), command }
        if ("refusal" in runOn(alone, posting)) {
          refusedAt = index
          break
        }
      }
      const posting = bulkPosting(at, { mode: "atomic", operations })
      const books = before.open([posting], at)
      const untouched = snapshotOf(books)
      const verdict = decide(books, posting)
      if (refusedAt === undefined) {
        const together = before.copy()
        runOn(together, posting)
        assert.strictEqual(storeText(together), storeText(alone))
      } else {
        assert.deepInclude("refusal" in verdict && { ...verdict.refusal }, {
          _tag: "RowRefused",
          index: refusedAt
        })
        assert.strictEqual(snapshotOf(books), untouched)
      }
      return refusedAt !== undefined && refusedAt > 0
    })
  })

  it("undoes a group whose last operation is refused, and that group alone", () => {
    comparing((before, operations, at) => {
      const hopeless: BulkOperation = {
        _tag: "AdjustStock",
        changeType: "RECEIPT",
        item: variant("nobody stocks this"),
        quantity: 1
      }
      const group: BulkOperation = { _tag: "Bulk", mode: "atomic", operations: [...operations, hopeless] }
      const together = before.copy()
      runOn(
        together,
        bulkPosting(at, { mode: "continueOnFailure", operations: [group, ...operations, group] })
      )
      const alone = before.copy()
      runOn(alone, bulkPosting(at, { mode: "continueOnFailure", operations }))
      assert.strictEqual(storeText(together), storeText(alone))
      return operations.length > 0
    })
  })

  it("gives no id away twice, however many its operations need", () => {
    const desk = new Desk()
    const locations = Array.from({ length: 40 }, (_, index) => `place ${index}`)
    for (const locationId of locations) desk.post({ _tag: "EnsureLocation", locationId })
    const rows = Array.from({ length: 120 }, (_, index) => `v${index}`).flatMap(
      (productVariantId): ReadonlyArray<BulkOperation> => [
        { _tag: "EnsureItem", kind: "PRODUCT", productVariantId },
        ...locations.map((locationId): BulkOperation => ({
          _tag: "AdjustStock",
          changeType: "RECEIPT",
          item: variant(productVariantId),
          quantity: 1,
          locationId
        }))
      ]
    )
    desk.post({ _tag: "Bulk", mode: "atomic", operations: rows })
    const { events, items, ledger, stocks } = desk.store
    assert.strictEqual(stocks.size, 4_800)
    const ids = [
      ...[...items.values()].map(({ itemId }) => itemId),
      ...[...stocks.values()].map(({ stockId }) => stockId),
      ...new Set(ledger.map((row) => row.postingId))
    ]
    // The posting of a new item has the item's id.
    assert.strictEqual(new Set(ids).size, 120 + 4_800 + 4_800)
    assert.strictEqual(new Set(events.map(({ id }) => id)).size, events.length)
  })

  it("answers its own second run as the first, and another run with its Idempotency-Key as a replay", () => {
    const desk = new Desk()
    const caller = { idempotency: { key: "k", fingerprint: "f" } }
    const posting = desk.posting(
      {
        _tag: "Bulk",
        mode: "continueOnFailure",
        operations: [
          { _tag: "EnsureItem", kind: "PRODUCT", productVariantId: "v" },
          { _tag: "AdjustStock", changeType: "RECEIPT", item: variant("v"), quantity: 5 },
          { _tag: "AdjustStock", changeType: "SALE", item: variant("v"), quantity: 6 }
        ]
      },
      caller
    )
    const [first] = desk.batch(posting)
    const before = storeText(desk.store)
    const [second] = desk.batch(posting)
    const third = desk.verdict(posting.command, caller)
    assert.deepStrictEqual(plain(second), plain(first))
    assert.deepStrictEqual(plain(third), { ...(plain(first) as object), replayed: true })
    assert.strictEqual(storeText(desk.store), before)
    // The answer is long: it is kept once.
    const kept = [...desk.store.tracking.values()].find((row) => row.postingId === posting.id)
    assert.isNull(kept!.answer)
  })
})

/** What a bulk may hold. */
const isBulkable = (command: Command): command is BulkOperation =>
  ["ReserveStock", "ReleaseReservation", "AdjustStock", "EnsureItem", "EnsureLocation"].includes(command._tag)

/** Compares what is asked in each batch of random histories, over the books before it. Most must be telling ones. */
const comparing = (
  compare: (before: MemoryStore, operations: ReadonlyArray<BulkOperation>, at: number) => boolean
): void => {
  const numRuns = share(300)
  let telling = 0
  fc.assert(
    fc.property(histories, (script) => {
      let before: MemoryStore | undefined
      play(
        script.map(({ advance, asks }) => ({ advance, asks: asks.filter((one) => one.do !== "cancel") })),
        {
          onCommitted: ({ postings, store }) => {
            const operations = postings.map(({ command }) => command).filter(isBulkable)
            const at = postings.at(-1)?.at
            if (before !== undefined && at !== undefined && compare(before, operations, at)) telling += 1
            before = store.copy()
          }
        }
      )
    }),
    { numRuns }
  )
  assert.isAbove(telling, numRuns / 3)
}

const bulkPosting = (at: number, bulk: Omit<Bulk, "_tag">): Posting<Bulk> => ({
  id: postingId(at, 2_000_000),
  at,
  caller: callerOf(at),
  command: { ...bulk, _tag: "Bulk" }
})

/** A posting alone in its batch. */
const runOn = (store: MemoryStore, posting: Posting): Verdict => {
  const books = store.open([posting], posting.at)
  const verdict = decide(books, posting)
  store.commit(books)
  return verdict
}

const uuids = /[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}/g

/** Text in which each id is told by the order in which it appears first. */
const named = (text: string): string => {
  const names = new Map<string, string>()
  return text.replace(uuids, (id) => {
    if (!names.has(id)) names.set(id, `id ${names.size}`)
    return names.get(id)!
  })
}

const plain = (value: unknown): unknown => JSON.parse(named(JSON.stringify(value)))

/** All that a store holds, but for the rows that say which posting was run. */
const storeText = (store: MemoryStore): string =>
  named(
    JSON.stringify([
      ...[
        store.locations,
        store.items,
        store.stocks,
        store.reservations,
        store.lines,
        store.discrepancies
      ].map((rows) => [...rows.values()]),
      store.ledger,
      [...store.tracking.values()].filter(({ trackingKey }) => !trackingKey.startsWith("POSTING|")),
      store.events
    ])
  )
