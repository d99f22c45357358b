import type { ReservationKind, ReservationStatus } from "../../../schema/Reservation.ts"
import { rowsOf } from "../../PostgresTypes.ts"
import { lineQuestions, reservationQuestions } from "../questions/reservations.ts"
import {
  by,
  columnsOf,
  defineTable,
  int4,
  int8,
  orNull,
  readBy,
  rowReader,
  type RowOf,
  text,
  timestamptz,
  uuid,
  widthOf
} from "../Table.ts"

/** Promises to orders, and what they hold. */

export const reservationLines = defineTable({
  name: "reservation_line",
  key: { merchantId: text(), reservationId: uuid(), lineNumber: int4() },
  fixed: {
    itemId: uuid(),
    stockId: orNull(uuid()),
    /** The promise that a line of kind MATERIAL is held for; null on all others, which are a promise themselves. */
    promiseId: orNull(uuid()),
    quantity: int8()
  },
  changing: {
    open: int8(),
    sold: int8(),
    released: int8(),
    /** The part of `released` that the order did not give back itself. */
    expired: int8(),
    returned: int8(),
    /** The part of `sold` that came back before the sale was told: no movement names the reservation for it. */
    returnedEarly: int8(),
    /** The part of `sold` that a payment has covered (RecordSale). */
    paid: int8()
  }
})({ questions: lineQuestions })
export type LineRow = RowOf<typeof reservationLines>

export const reservations = defineTable({
  name: "reservation",
  key: { merchantId: text(), reservationId: uuid() },
  fixed: {
    orderId: text(),
    kind: text<ReservationKind>(),
    scope: text(),
    metadata: orNull(text()),
    createdAt: timestamptz()
  },
  changing: {
    /** What it was asked for, or was amended to (`Asked`). */
    request: text(),
    status: text<ReservationStatus>(),
    expiresAt: timestamptz(),
    updatedAt: timestamptz()
  },
  related: {} as { readonly lines: Array<LineRow> }
})({
  watched: "status",
  lists: { ofOrder: by("orderId") },
  itemsOf: ({ lines }) => lines.map(({ itemId }) => itemId),
  questions: reservationQuestions
})
export type ReservationRow = RowOf<typeof reservations>

const reservationOf = rowReader(reservations)
const lineOf = rowReader(reservationLines, widthOf(reservations))

export const reservationsOfOrder = readBy(reservations, "orderId", {
  // reservation_by_order, reservation_line_pkey. OFFSET 0 has each order looked up, however small the table seemed when
  // the plan was made.
  statement: `
  SELECT ${columnsOf(reservations, "r")}, ${columnsOf(reservationLines, "l")}
  FROM ${rowsOf(["merchant_id", "order_id"])} AS wanted
  CROSS JOIN LATERAL (
    SELECT *
    FROM reservation
    WHERE reservation.merchant_id = wanted.merchant_id AND reservation.order_id = wanted.order_id
    OFFSET 0
  ) AS r
  LEFT JOIN reservation_line l ON l.merchant_id = r.merchant_id AND l.reservation_id = r.reservation_id
  ORDER BY r.merchant_id, r.order_id, r.created_at, r.reservation_id, l.line_number`,
  rowsOf: (answer) => {
    const found: Array<ReservationRow> = []
    for (const values of answer) {
      const head = reservationOf(values)
      let current = found.at(-1)
      if (current?.reservationId !== head.reservationId || current.merchantId !== head.merchantId) {
        current = { ...head, lines: [] }
        found.push(current)
      }
      const line = lineOf(values)
      // A reservation without lines: the join gives none.
      if (line.lineNumber !== null) current.lines.push(line)
    }
    return found
  }
})
