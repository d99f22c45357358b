import { Context, Effect, Layer } from "effect"
import { type DatabaseUnavailable, ItemNotFound } from "../schema/Failure.ts"
import { type InvalidCursor, type Page, defaultLimit, pageOf, positionOf } from "../schema/Page.ts"
import type { AdjustStock, Caller, MovementType, Posted, PostingFailure, Refusal } from "../schema/Posting.ts"
import { Db } from "./Db.ts"
import { parameter } from "./PostgresTypes.ts"
import { StockLedger } from "./StockLedger.ts"

/** One ledger row. Times are epoch milliseconds. */
export interface Movement {
  readonly stockId: string
  readonly locationId: string
  readonly lotNumber: string | null
  readonly sequence: number
  readonly type: MovementType
  readonly onHandDelta: number
  readonly reservedDelta: number
  readonly unallocatableDelta: number
  readonly onHand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly source: string
  readonly orderId: string | null
  readonly reservationId: string | null
  readonly reference: string | null
  readonly reason: string | null
  readonly actor: string
  readonly occurredAt: number | null
  readonly recordedAt: number
}

/** What moved, and moving it by hand. */
export class Movements extends Context.Service<
  Movements,
  {
    readonly adjust: (
      caller: Caller,
      command: Omit<AdjustStock, "_tag">
    ) => Effect.Effect<Posted<AdjustStock>, Refusal<AdjustStock> | PostingFailure>
    /** The movements of an item, newest first. */
    readonly ofVariant: (
      merchantId: string,
      variantId: string,
      page: { readonly limit?: number | undefined; readonly cursor?: string | undefined }
    ) => Effect.Effect<Page<Movement>, InvalidCursor | ItemNotFound | DatabaseUnavailable>
  }
>()("holdfast/services/Movements") {
  static readonly layer = Layer.effect(
    Movements,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      const db = yield* Db

      const ofVariant: Movements["Service"]["ofVariant"] = Effect.fn("Movements.ofVariant")(
        function* (merchantId, variantId, page) {
          const after = yield* positionOf(page.cursor, ["time", "uuid", "integer"])
          const limit = page.limit ?? defaultLimit
          const known = yield* db.read(merchantId, itemStatement, [
            parameter("text", merchantId),
            parameter("text", variantId)
          ])
          if (known.length === 0) return yield* new ItemNotFound({ items: [variantId] })
          const rows = yield* db.read<MovementRow>(merchantId, movementsStatement, [
            parameter("text", merchantId),
            parameter("text", variantId),
            parameter("timestamptz", after?.[0] ?? null),
            parameter("uuid", after?.[1] ?? null),
            parameter("int8", after?.[2] ?? null),
            parameter("int4", limit + 1)
          ])
          return pageOf(rows, limit, movement, (row) => [row.recorded_at, row.stock_id, row.sequence])
        }
      )

      return Movements.of({
        adjust: (caller, command) => ledger.post(caller, { ...command, _tag: "AdjustStock" }),
        ofVariant
      })
    })
  )
}

// item_merchant_id_product_variant_id_key
const itemStatement = `
  SELECT item_id
  FROM item
  WHERE merchant_id = $1 AND product_variant_id = $2 AND deleted_at IS NULL`

// inventory_ledger_pkey: the newest of each stock of the item, merged
const movementsStatement = `
  SELECT m.stock_id, s.location_id, s.lot_number, m.sequence, m.type, m.on_hand_delta, m.reserved_delta,
         m.unallocatable_delta, m.on_hand, m.reserved, m.unallocatable, m.source, m.order_id, m.reservation_id,
         m.reference, m.reason, m.actor, m.occurred_at, m.recorded_at
  FROM item i
  JOIN stock s ON s.merchant_id = i.merchant_id AND s.item_id = i.item_id
  CROSS JOIN LATERAL (
    SELECT *
    FROM inventory_ledger l
    WHERE l.merchant_id = s.merchant_id
      AND l.stock_id = s.stock_id
      AND ($3 IS NULL OR (l.recorded_at, l.stock_id, l.sequence) < ($3, $4, $5))
    ORDER BY l.recorded_at DESC, l.sequence DESC
    LIMIT $6
  ) m
  WHERE i.merchant_id = $1 AND i.product_variant_id = $2
  ORDER BY m.recorded_at DESC, m.stock_id DESC, m.sequence DESC
  LIMIT $6`

interface MovementRow {
  readonly stock_id: string
  readonly location_id: string
  readonly lot_number: string
  readonly sequence: number
  readonly type: MovementType
  readonly on_hand_delta: number
  readonly reserved_delta: number
  readonly unallocatable_delta: number
  readonly on_hand: number
  readonly reserved: number
  readonly unallocatable: number
  readonly source: string
  readonly order_id: string | null
  readonly reservation_id: string | null
  readonly reference: string | null
  readonly reason: string | null
  readonly actor: string
  readonly occurred_at: number | null
  readonly recorded_at: number
}

const movement = (row: MovementRow): Movement => ({
  stockId: row.stock_id,
  locationId: row.location_id,
  lotNumber: row.lot_number === "" ? null : row.lot_number,
  sequence: row.sequence,
  type: row.type,
  onHandDelta: row.on_hand_delta,
  reservedDelta: row.reserved_delta,
  unallocatableDelta: row.unallocatable_delta,
  onHand: row.on_hand,
  reserved: row.reserved,
  unallocatable: row.unallocatable,
  source: row.source,
  orderId: row.order_id,
  reservationId: row.reservation_id,
  reference: row.reference,
  reason: row.reason,
  actor: row.actor,
  occurredAt: row.occurred_at,
  recordedAt: row.recorded_at
})
