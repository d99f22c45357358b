import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  type DiscrepancyKind,
  balanceDiscrepancies,
  balanceDiscrepanciesInSql,
  balanceDiscrepancyKindsInSql
} from "../../../src/schema/Discrepancy.ts"
import { type ItemStatus, itemStatuses, statusInSql, statusOf } from "../../../src/schema/Item.ts"
import { expiredIn, sellable, sellableOf, type StockBalance } from "../../../src/services/kernel/figures.ts"
import {
  expiredInSql,
  lotInSql,
  sellableInSql,
  sellableOfItemInSql
} from "../../../src/services/kernel/figuresInSql.ts"
import { parameter } from "../../../src/services/PostgresTypes.ts"
import { connect, dawn } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"

/** Rules that the kernel has in TypeScript and statements in SQL: over a grid of values, both say the same. */

const quantities = [-7, -2, -1, 0, 1, 2, 3, 5, 8]
const grid = (name: string) => `unnest(ARRAY[${quantities.join(", ")}]::bigint[]) AS ${name}`

const stockOf = (onHand: number, kind: string): StockBalance => ({
  locationId: "l",
  locationRetired: kind === "retired",
  lotExpiresAt: kind === "expired" ? dawn : null,
  onHand,
  reserved: 0,
  unallocatable: 0
})

describe("rules that are in TypeScript and in SQL", () => {
  it.effect("give an item the same status", () =>
    Effect.gen(function* () {
      const sql = yield* connect((yield* freshDatabase).url)
      const rows = yield* sql.run<Parameters<typeof statusOf>[0] & { available: number; status: ItemStatus }>(
        `SELECT item.discontinued, item.initialized, item.low_stock_threshold AS "lowStockThreshold", available,
                ${statusInSql("item", "available")} AS status
         FROM (
           SELECT discontinued, initialized, low_stock_threshold
           FROM unnest(ARRAY[false, true]) AS discontinued, unnest(ARRAY[false, true]) AS initialized,
             ${grid("low_stock_threshold")}
         ) item, ${grid("available")}`
      )
      assert.strictEqual(rows.length, 4 * quantities.length ** 2)
      for (const row of rows) {
        assert.strictEqual(row.status, statusOf(row, row.available), JSON.stringify(row))
      }
      assert.sameMembers([...new Set(rows.map(({ status }) => status))], [...itemStatuses])
    })
  )

  it.effect("call for the same discrepancies of a balance", () =>
    Effect.gen(function* () {
      const sql = yield* connect((yield* freshDatabase).url)
      const rows = yield* sql.run<
        Parameters<typeof balanceDiscrepancies>[0] & {
          kinds: ReadonlyArray<DiscrepancyKind>
          isKnown: boolean
        }
      >(
        `SELECT s.on_hand AS "onHand", s.reserved, s.unallocatable, ${balanceDiscrepanciesInSql("s")} AS kinds,
                ${balanceDiscrepanciesInSql("s")} <@ ARRAY[${balanceDiscrepancyKindsInSql}] AS "isKnown"
         FROM (
           SELECT on_hand, reserved, unallocatable
           FROM ${grid("on_hand")}, ${grid("reserved")}, ${grid("unallocatable")}
         ) s`
      )
      assert.strictEqual(rows.length, quantities.length ** 3)
      for (const row of rows) {
        assert.deepStrictEqual(row.kinds, balanceDiscrepancies(row), JSON.stringify(row))
        assert.isTrue(row.isKnown)
      }
      // None, either, and both.
      assert.strictEqual(new Set(rows.map(({ kinds }) => kinds.join())).size, 4)
    })
  )

  it.effect("find the same to be sold of a stock, and the rest of an expired lot not", () =>
    Effect.gen(function* () {
      const sql = yield* connect((yield* freshDatabase).url)
      const rows = yield* sql.run<
        StockBalance & { sellable: number; expired: number; lot: string | null; lotNumber: string }
      >(
        `SELECT s.on_hand AS "onHand", s.reserved, s.unallocatable, s.lot_expires_at AS "lotExpiresAt",
                s.lot_number AS "lotNumber", COALESCE(l.retired, false) AS "locationRetired",
                ${sellableInSql("s", "l", "$1")} AS sellable, ${expiredInSql("s", "$1")} AS expired,
                ${lotInSql("s")} AS lot
         FROM (
           SELECT on_hand, reserved, unallocatable, lot_number, $1 + make_interval(secs => away) AS lot_expires_at
           FROM ${grid("on_hand")}, ${grid("reserved")}, ${grid("unallocatable")},
             unnest(ARRAY[-1, 0, 1, NULL]) AS away, unnest(ARRAY['', 'L']) AS lot_number
         ) s, unnest(ARRAY[NULL, false, true]) AS l (retired)`,
        [parameter("timestamptz", dawn)]
      )
      assert.strictEqual(rows.length, 3 * 8 * quantities.length ** 3)
      for (const row of rows) {
        assert.strictEqual(row.sellable, sellable(row, dawn), JSON.stringify(row))
        assert.strictEqual(row.expired, expiredIn(row, dawn), JSON.stringify(row))
        assert.strictEqual(row.lot, row.lotNumber === "" ? null : row.lotNumber)
      }
      assert.isTrue(rows.some((row) => row.sellable > 0) && rows.some((row) => row.expired > 0))
    })
  )

  it.effect("find the same to be sold of an item, whatever is missing in one of its stocks", () =>
    Effect.gen(function* () {
      const sql = yield* connect((yield* freshDatabase).url)
      // Two stocks, of balances from −7 to 8, the first good, expired or at a retired location; and no stock at all.
      const rows = yield* sql.run<{
        discontinued: boolean
        deletedAt: number | null
        first: number | null
        second: number
        kind: "good" | "expired" | "retired"
        available: number
      }>(
        `SELECT i.discontinued, i.deleted_at AS "deletedAt", i.first, i.second, i.kind, sold.available
         FROM (
           SELECT discontinued, CASE WHEN deleted THEN $1 END AS deleted_at, first, second, kind
           FROM unnest(ARRAY[false, true]) AS discontinued, unnest(ARRAY[false, true]) AS deleted,
             unnest(ARRAY[NULL, ${quantities.join(", ")}]::bigint[]) AS first, ${grid("second")},
             unnest(ARRAY['good', 'expired', 'retired']) AS kind
         ) i
         CROSS JOIN LATERAL (
           SELECT ${sellableOfItemInSql("i", "s", "l", "$1")} AS available
           FROM (
             SELECT i.first AS on_hand, CASE WHEN i.kind = 'expired' THEN $1 END AS lot_expires_at,
                    CASE WHEN i.kind = 'retired' THEN 'closed' ELSE 'open' END AS place
             UNION ALL
             SELECT i.second, NULL, 'open'
           ) given
           CROSS JOIN LATERAL (
             SELECT given.on_hand, 0::bigint AS reserved, 0::bigint AS unallocatable, given.lot_expires_at
           ) s
           CROSS JOIN LATERAL (SELECT given.place = 'closed' AS retired) l
           WHERE i.first IS NOT NULL
         ) sold`,
        [parameter("timestamptz", dawn)]
      )
      assert.strictEqual(rows.length, 4 * 3 * (quantities.length + 1) * quantities.length)
      for (const row of rows) {
        const { first, kind, second } = row
        const stocks = first === null ? [] : [stockOf(first, kind), stockOf(second, "good")]
        assert.strictEqual(row.available, sellableOf(row, stocks, dawn), JSON.stringify(row))
      }
      // Ten units and three that are missing are seven.
      assert.isTrue(
        rows.some(({ available, first, second }) => first === -2 && second === 8 && available === 6)
      )
    })
  )
})
