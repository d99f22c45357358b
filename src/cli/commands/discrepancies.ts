import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { type DiscrepancyKind, discrepancyKinds } from "../../schema/Discrepancy.ts"
import { Text, Uuid } from "../../schema/Identifier.ts"
import { Discrepancies, type Discrepancy } from "../../services/stock/Discrepancies.ts"
import { forMerchant } from "../merchantCommand.ts"
import { id, json, limit, merchant } from "../options.ts"
import { rowsUpTo } from "../pages.ts"
import { type Column, printJson, momentOf, printRows } from "../Table.ts"

/** `holdfast discrepancies`: where facts contradict the books, and how that was explained. */

const kinds = Object.keys(discrepancyKinds) as ReadonlyArray<DiscrepancyKind>

const columns: ReadonlyArray<Column<Discrepancy>> = [
  { title: "discrepancy", id: "whole", value: (row) => row.discrepancyId },
  { title: "kind", value: (row) => row.kind },
  {
    title: "status",
    value: (row) => row.status,
    colour: ({ status }) => (status === "OPEN" ? "red" : "dim")
  },
  { title: "variant", value: (row) => row.productVariantId },
  { title: "sku", value: (row) => row.sku },
  { title: "order", value: (row) => row.orderId },
  { title: "opened", value: (row) => momentOf(row.openedAt) },
  { title: "closed", value: (row) => momentOf(row.closedAt) },
  { title: "by", value: (row) => row.closedBy },
  { title: "reason", value: (row) => row.reason },
  {
    title: "detail",
    value: (row) =>
      Object.entries(row.detail)
        .map(
          ([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`
        )
        .join(", ")
  }
]

const discrepancyId = Argument.String("discrepancy-id").pipe(Argument.withSchema(Uuid))

const list = Command.make(
  "list",
  {
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("Those too that are closed or resolved"),
      Flag.withDefault(false)
    ),
    kind: Flag.Literals("kind", kinds).pipe(Flag.withDescription("Of this kind"), Flag.optional),
    variant: id("variant", "About this product variant"),
    limit: limit(50),
    merchant,
    json
  },
  ({ all, json, kind, limit, merchant, variant }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* ({ merchantId }) {
        const { list } = yield* Discrepancies
        const rows = yield* rowsUpTo(limit, "--limit, --kind or --variant", (page) =>
          list(merchantId, {
            status: all ? undefined : "OPEN",
            kind: Option.getOrUndefined(kind),
            productVariantId: Option.getOrUndefined(variant),
            ...page
          })
        )
        yield* printRows(rows, columns, { json, empty: "There are no discrepancies." })
      })
    )
).pipe(Command.withDescription("List those that are open, newest first"))

const show = Command.make("show", { discrepancyId, merchant, json }, ({ discrepancyId, json, merchant }) =>
  forMerchant(
    merchant,
    Effect.fnUntraced(function* ({ merchantId }) {
      const { get } = yield* Discrepancies
      const discrepancy = yield* get(merchantId, discrepancyId)
      if (json) return yield* printJson(discrepancy)
      yield* printRows([discrepancy], columns, { json, empty: "" })
      const { closesItself } = discrepancyKinds[discrepancy.kind]
      if (discrepancy.status !== "OPEN") return
      yield* Console.log(
        closesItself
          ? "It closes by itself when its condition ends."
          : `Explain it: holdfast discrepancies resolve ${discrepancyId} --reason "…"`
      )
    })
  )
).pipe(Command.withDescription("Show one, and what closes it"))

const resolve = Command.make(
  "resolve",
  {
    discrepancyId,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("What a person says about it"),
      Flag.withSchema(Text)
    ),
    merchant,
    json
  },
  ({ discrepancyId, json, merchant, reason }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { resolve } = yield* Discrepancies
        const { answer } = yield* resolve(caller, { discrepancyId, reason })
        const { resolved: applied } = answer
        if (json) return yield* printJson({ discrepancyId, applied })
        yield* Console.log(applied ? `Resolved ${discrepancyId}` : `${discrepancyId} was not open any more`)
      })
    )
).pipe(Command.withDescription("Close one with a reason, unless its condition lasts"))

export const discrepancies = Command.make("discrepancies").pipe(
  Command.withDescription("Where facts contradict the books"),
  Command.withSubcommands([list, show, resolve])
)
