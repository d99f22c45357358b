import type { PgTypes } from "@effect/sql-pg"
import { Context, Effect, Layer } from "effect"
import { type DatabaseUnavailable, ItemNotFound, StockNotFound } from "../../schema/Failure.ts"
import { nilUuid } from "../../schema/Identifier.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOfLooked, positionOf } from "../../schema/Page.ts"
import type { AdjustStock } from "../kernel/commands/stock.ts"
import type { Bulk } from "../kernel/commands/bulk.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { CountStock } from "../kernel/commands/count.ts"
import type { MovementType } from "../../schema/Movement.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import { Db } from "../Db.ts"
import { arrays, parameter } from "../PostgresTypes.ts"
import { StockLedger } from "../kernel/StockLedger.ts"
import { fieldsInSql } from "../kernel/Table.ts"
import { type LedgerRow, type StockRow, ledger as ledgerTable } from "../kernel/tables/stock.ts"
import { lotInSql } from "../kernel/figuresInSql.ts"

/** One ledger row. Times are epoch milliseconds. */
export interface Movement
  extends Pick<LedgerRow, "stockId" | (typeof movementFields)[number]>, Pick<StockRow, "locationId"> {
  readonly lotNumber: string | null
}
const movementFields = [
  "sequence",
  "type",
  "onHandDelta",
  "reservedDelta",
  "unallocatableDelta",
  "onHand",
  "reserved",
  "unallocatable",
  "source",
  "orderId",
  "reservationId",
  "reference",
  "reason",
  "actor",
  "occurredAt",
  "recordedAt"
] as const satisfies ReadonlyArray<keyof LedgerRow>

/** Which movements are asked for. Times are epoch milliseconds, and those at which movements were recorded. */
export interface MovementFilter {
  /** Inclusive. */
  readonly from?: number | undefined
  /** Exclusive, so that one range begins where another ends without losing or repeating a movement. */
  readonly to?: number | undefined
  readonly types?: ReadonlyArray<MovementType> | undefined
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/** What moved, and moving it by hand. */
export class Movements extends Context.Service<
  Movements,
  {
    readonly adjust: (
      caller: Caller,
      command: Omit<AdjustStock, "_tag">
    ) => Effect.Effect<Posted<AdjustStock>, Refusal<AdjustStock> | PostingFailure>
    /** Counted quantities, all or none: the books follow them, and what differs beyond the tolerance is a discrepancy. */
    readonly count: (
      caller: Caller,
      command: Omit<CountStock, "_tag">
    ) => Effect.Effect<Posted<CountStock>, Refusal<CountStock> | PostingFailure>
    /** Many operations in one transaction: all or none, or an answer for each. */
    readonly bulk: (
      caller: Caller,
      command: Omit<Bulk, "_tag">
    ) => Effect.Effect<Posted<Bulk>, Refusal<Bulk> | PostingFailure>
    /**
     * The movements of all stocks of an item, newest first, also of one that was deleted. With `types`, a page may be
     * shorter than its limit while there are more (`nextCursor`): how many movements it looks through is bounded.
     */
    readonly ofVariant: (
      merchantId: string,
      variantId: string,
      filter: MovementFilter
    ) => Effect.Effect<Page<Movement>, InvalidCursor | ItemNotFound | DatabaseUnavailable>
    /** The same of one stock. */
    readonly ofStock: (
      merchantId: string,
      stockId: string,
      filter: MovementFilter
    ) => Effect.Effect<Page<Movement>, InvalidCursor | StockNotFound | DatabaseUnavailable>
  }
>()("holdfast/services/Movements") {
  static readonly layer = Layer.effect(
    Movements,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db

      const pageBy = Effect.fnUntraced(function* (
        statement: string,
        merchantId: string,
        name: PgTypes.Parameter,
        { cursor, from, limit = defaultLimit, to = endOfTime, types }: MovementFilter
      ) {
        const after = yield* positionOf(cursor, ["time", "uuid", "integer"])
        // Before it is the end of the range, or where the page before ended, whichever is the older one.
        const [recordedAt, stockId, sequence] =
          after === undefined || (after[0] as number) >= to ? [to, nilUuid, 0] : after
        const looked = types === undefined ? limit + 1 : Math.max(limit + 1, lookedThroughMax)
        const rows = yield* db.read<MovementRow>(merchantId, statement, [
          parameter("text", merchantId),
          name,
          parameter("timestamptz", from ?? beginningOfTime),
          parameter("timestamptz", recordedAt),
          parameter("uuid", stockId),
          parameter("int8", sequence),
          parameter("int4", looked),
          arrays.text(types ?? []),
          parameter("int4", limit + 1)
        ])
        const isWanted = ({ type }: Movement): boolean => types?.includes(type) ?? true
        return pageOfLooked(
          rows,
          limit,
          looked,
          isWanted,
          ({ place, ...movement }) => movement,
          positionOfRow
        )
      })

      const ofVariant: Movements["Service"]["ofVariant"] = Effect.fn("Movements.ofVariant")(
        function* (merchantId, variantId, filter) {
          const name = parameter("text", variantId)
          const page = yield* pageBy(byVariant, merchantId, name, filter)
          if (page.data.length === 0) {
            const known = yield* db.read(merchantId, itemStatement, [parameter("text", merchantId), name])
            if (known.length === 0) return yield* new ItemNotFound({ items: [variantId] })
          }
          return page
        }
      )

      const ofStock: Movements["Service"]["ofStock"] = Effect.fn("Movements.ofStock")(
        function* (merchantId, stockId, filter) {
          const name = parameter("uuid", stockId)
          const page = yield* pageBy(byStock, merchantId, name, filter)
          if (page.data.length === 0) {
            const known = yield* db.read(merchantId, stockStatement, [parameter("text", merchantId), name])
            if (known.length === 0) return yield* new StockNotFound({ item: stockId })
          }
          return page
        }
      )

      return Movements.of({
        adjust: (caller, command) => ledger.post(caller, { ...command, _tag: "AdjustStock" }),
        count: (caller, command) => ledger.post(caller, { ...command, _tag: "CountStock" }),
        bulk: (caller, command) => ledger.post(caller, { ...command, _tag: "Bulk" }),
        ofVariant,
        ofStock
      })
    })
  )
}

/** A page that is picked by type looks through at most so many movements: nothing but their time is indexed. */
const lookedThroughMax = 2_000

/** What a filter without bounds begins and ends with: a comparison, and no special case, finds the index. */
const beginningOfTime = Date.UTC(1970, 0, 1)
const endOfTime = Date.UTC(9999, 11, 31)

// item_merchant_id_product_variant_id_key
const itemStatement = `
  SELECT item_id
  FROM item
  WHERE merchant_id = $1 AND product_variant_id = $2`

// stock_pkey
const stockStatement = `
  SELECT stock_id
  FROM stock
  WHERE merchant_id = $1 AND stock_id = $2`

/**
 * Of each stock the newest before the position, merged. The position's time is compared by itself as well, because
 * partitions are left out by that comparison and not by one of rows. OFFSET 0 has the stocks of the item looked up,
 * however small the tables seemed when the plan was made.
 */
const movementsOf = (stocks: string): string => `
  SELECT *
  FROM (
    SELECT m.stock_id AS "stockId", s.location_id AS "locationId", ${lotInSql("s")} AS "lotNumber",
           ${fieldsInSql(ledgerTable, "m", movementFields)},
           row_number() OVER (ORDER BY m.recorded_at DESC, m.stock_id DESC, m.sequence DESC) AS place
    FROM ${stocks}
    CROSS JOIN LATERAL (
      SELECT *
      FROM inventory_ledger l
      WHERE l.merchant_id = s.merchant_id
        AND l.stock_id = s.stock_id
        AND l.recorded_at >= $3
        AND l.recorded_at <= $4
        AND (l.recorded_at, l.stock_id, l.sequence) < ($4, $5, $6)
      ORDER BY l.recorded_at DESC, l.sequence DESC
      LIMIT $7
    ) m
    WHERE s.merchant_id = $1
    ORDER BY place
    LIMIT $7
  ) looked
  WHERE place = $7 OR cardinality($8) = 0 OR type = ANY ($8)
  ORDER BY place
  LIMIT $9`

// item_merchant_id_product_variant_id_key, stock_merchant_id_item_id_location_id_lot_number_key, inventory_ledger_pkey
const byVariant = movementsOf(`(
      SELECT stock.*
      FROM item i
      CROSS JOIN LATERAL (
        SELECT *
        FROM stock
        WHERE stock.merchant_id = i.merchant_id AND stock.item_id = i.item_id
        OFFSET 0
      ) stock
      WHERE i.merchant_id = $1 AND i.product_variant_id = $2
      OFFSET 0
    ) s`)
// stock_pkey, inventory_ledger_pkey
const byStock = movementsOf(`(SELECT * FROM stock WHERE merchant_id = $1 AND stock_id = $2) s`)

interface MovementRow extends Movement {
  /** Counted from the newest that the page looked at. */
  readonly place: number
}

const positionOfRow = ({ recordedAt, sequence, stockId }: MovementRow) => [recordedAt, stockId, sequence]
