import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Uuid } from "../../schema/Identifier.ts"
import { reservationStatuses } from "../../schema/Reservation.ts"
import { type Reservation, Reservations } from "../../services/stock/Reservations.ts"
import { forMerchant } from "../merchantCommand.ts"
import { id, json, limit, merchant } from "../options.ts"
import { rowsUpTo } from "../pages.ts"
import { type Column, printJson, momentOf, printRows } from "../Table.ts"

/** `holdfast reservations`: what orders were promised, and what became of it. */

const sumOf = ({ lines }: Reservation, field: "quantity" | "open" | "sold"): number =>
  lines.reduce((sum, line) => sum + line[field], 0)

const columns: ReadonlyArray<Column<Reservation>> = [
  { title: "reservation", id: "whole", value: (row) => row.reservationId },
  { title: "order", value: (row) => row.orderId },
  {
    title: "status",
    value: (row) => row.status,
    colour: ({ status }) => (status === "PENDING" ? "yellow" : status === "CONFIRMED" ? "green" : "dim")
  },
  { title: "quantity", value: (row) => sumOf(row, "quantity") },
  { title: "held", value: (row) => sumOf(row, "open") },
  { title: "sold", value: (row) => sumOf(row, "sold") },
  { title: "created", value: (row) => momentOf(row.createdAt) },
  { title: "expires", value: (row) => momentOf(row.expiresAt) }
]

const list = Command.make(
  "list",
  {
    order: id("order", "Of this order"),
    status: Flag.Literals("status", reservationStatuses).pipe(
      Flag.withDescription("Of this status"),
      Flag.optional
    ),
    limit: limit(50),
    merchant,
    json
  },
  ({ json, limit, merchant, order, status }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        const { list } = yield* Reservations
        const rows = yield* rowsUpTo(limit, "--limit, --order or --status", (page) =>
          list(merchantId, {
            orderId: Option.getOrUndefined(order),
            status: Option.getOrUndefined(status),
            ...page
          })
        )
        yield* printRows(rows, columns, { json, empty: "There are no reservations." })
      })
    )
).pipe(Command.withDescription("List them, newest first"))

const show = Command.make(
  "show",
  { reservationId: Argument.String("reservation-id").pipe(Argument.withSchema(Uuid)), merchant, json },
  ({ json, merchant, reservationId }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        const { get } = yield* Reservations
        const reservation = yield* get(merchantId, reservationId)
        if (json) return yield* printJson(reservation)
        yield* printRows([reservation], columns, { json, empty: "" })
        yield* printRows(
          reservation.lines,
          [
            { title: "variant", value: (line) => line.productVariantId },
            { title: "sku", value: (line) => line.sku },
            { title: "location", value: (line) => line.locationId },
            { title: "lot", value: (line) => line.lotNumber },
            { title: "quantity", value: (line) => line.quantity },
            { title: "held", value: (line) => line.open },
            { title: "sold", value: (line) => line.sold },
            { title: "released", value: (line) => line.released },
            { title: "returned", value: (line) => line.returned }
          ],
          { json, empty: "It has no lines." }
        )
      })
    )
).pipe(Command.withDescription("Show one with its lines, and from which stock they are"))

export const reservations = Command.make("reservations").pipe(
  Command.withDescription("What orders were promised, and what became of it"),
  Command.withSubcommands([list, show])
)
