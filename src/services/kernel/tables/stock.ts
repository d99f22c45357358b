import type { MovementSource, MovementType } from "../../../schema/Movement.ts"
import { rowsOf } from "../../PostgresTypes.ts"
import { ledgerQuestions, stockQuestions } from "../questions/stock.ts"
import {
  bool,
  by,
  columnsOf,
  defineTable,
  int8,
  orNull,
  readOfItems,
  rowReader,
  type RowOf,
  text,
  timestamptz,
  uuid,
  widthOf
} from "../Table.ts"

/** Balances, and the ledger that they are the sums of. */

const stock = defineTable({
  name: "stock",
  key: { merchantId: text(), stockId: uuid() },
  fixed: {
    itemId: uuid(),
    locationId: text(),
    lotNumber: text(),
    createdAt: timestamptz()
  },
  changing: {
    lotExpiresAt: orNull(timestamptz()),
    onHand: int8(),
    reserved: int8(),
    unallocatable: int8(),
    sequence: int8(),
    discrepancy: bool(),
    updatedAt: timestamptz()
  },
  /** Of its location: whether that is the default one, its place in the picking order, and whether it is retired. */
  related: {} as {
    readonly locationIsDefault: boolean
    readonly locationPosition: number
    readonly locationRetired: boolean
  }
})({
  unique: [["merchantId", "itemId", "locationId", "lotNumber"]],
  checks: ["stock_balance_or_discrepancy", "stock_holds_are_counts"],
  indexes: { byId: by("stockId") },
  lists: { ofItem: by("itemId") },
  questions: stockQuestions
})
export type StockRow = RowOf<typeof stock>

const columnsOfStock = rowReader(stock)
const afterColumns = widthOf(stock)

export const stocks = readOfItems(stock, {
  // stock_merchant_id_item_id_location_id_lot_number_key, location_pkey
  statement: `
  SELECT ${columnsOf(stock, "s")}, l.is_default, l.position, COALESCE(l.retired, false)
  FROM ${rowsOf(["merchant_id", "item_id"])} AS wanted
  JOIN stock s ON s.merchant_id = wanted.merchant_id AND s.item_id = wanted.item_id
  JOIN location l ON l.merchant_id = s.merchant_id AND l.location_id = s.location_id`,
  subjects: false,
  rowOf: (values) => ({
    ...columnsOfStock(values),
    locationIsDefault: values[afterColumns] as boolean,
    locationPosition: values[afterColumns + 1] as number,
    locationRetired: values[afterColumns + 2] as boolean
  })
})

export const ledger = defineTable({
  name: "inventory_ledger",
  key: { merchantId: text(), stockId: uuid(), recordedAt: timestamptz(), sequence: int8() },
  fixed: {
    itemId: uuid(),
    type: text<MovementType>(),
    onHandDelta: int8(),
    reservedDelta: int8(),
    unallocatableDelta: int8(),
    onHand: int8(),
    reserved: int8(),
    unallocatable: int8(),
    source: text<MovementSource>(),
    postingId: uuid(),
    actor: text(),
    orderId: orNull(text()),
    reservationId: orNull(uuid()),
    reference: orNull(text()),
    reason: orNull(text()),
    occurredAt: orNull(timestamptz())
  },
  changing: {
    /**
     * The number, among its item's events, of the event that reports it: known once the posting is decided, and never
     * changed after the INSERT.
     */
    eventSequence: orNull(int8())
  }
})({ appendOnly: "holdfast_ledger_is_append_only", questions: ledgerQuestions })
export type LedgerRow = RowOf<typeof ledger>
