import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  type DiscrepancyKind,
  balanceDiscrepancies,
  balanceDiscrepanciesInSql,
  balanceDiscrepancyKindsInSql
} from "../../../src/schema/Discrepancy.ts"
import { type ItemStatus, itemStatuses, statusInSql, statusOf } from "../../../src/schema/Item.ts"
import { sellable } from "../../../src/services/kernel/figures.ts"
import type { StockRow } from "../../../src/services/kernel/tables/stock.ts"
import { parameter } from "../../../src/services/PostgresTypes.ts"
import { expiredInSql, lotInSql, sellableInSql } from "../../../src/services/stock/figuresInSql.ts"
import { connect, dawn } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"

/** Rules that the kernel has in TypeScript and statements in SQL: over a grid of values, both say the same. */

const quantities = [-7, -2, -1, 0, 1, 2, 3, 5, 8]
const grid = (name: string) => `unnest(ARRAY[${quantities.join(", ")}]::bigint[]) AS ${name}`

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
      type Figures = Pick<StockRow, "onHand" | "reserved" | "unallocatable" | "lotExpiresAt">
      const rows = yield* sql.run<
        Figures & { sellable: number; expired: number; lot: string | null; lotNumber: string }
      >(
        `SELECT s.on_hand AS "onHand", s.reserved, s.unallocatable, s.lot_expires_at AS "lotExpiresAt",
                s.lot_number AS "lotNumber", ${sellableInSql("s", "$1")} AS sellable,
                ${expiredInSql("s", "$1")} AS expired, ${lotInSql("s")} AS lot
         FROM (
           SELECT on_hand, reserved, unallocatable, lot_number, $1 + make_interval(secs => away) AS lot_expires_at
           FROM ${grid("on_hand")}, ${grid("reserved")}, ${grid("unallocatable")},
             unnest(ARRAY[-1, 0, 1, NULL]) AS away, unnest(ARRAY['', 'L']) AS lot_number
         ) s`,
        [parameter("timestamptz", dawn)]
      )
      assert.strictEqual(rows.length, 8 * quantities.length ** 3)
      for (const row of rows) {
        const stock = row as unknown as StockRow
        const unexpired = sellable({ ...stock, lotExpiresAt: null }, dawn)
        assert.strictEqual(row.sellable, sellable(stock, dawn), JSON.stringify(row))
        assert.strictEqual(row.expired, unexpired - row.sellable, JSON.stringify(row))
        assert.strictEqual(row.lot, row.lotNumber === "" ? null : row.lotNumber)
      }
    })
  )
})
