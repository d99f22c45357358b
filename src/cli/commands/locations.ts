import { Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OutsideId } from "../../schema/Identifier.ts"
import { Catalog } from "../../services/stock/Catalog.ts"
import { forMerchant } from "../merchantCommand.ts"
import { count, json, limit, merchant, text } from "../options.ts"
import { rowsUpTo } from "../pages.ts"
import { printJson, momentOf, printRows } from "../Table.ts"

/** `holdfast locations`: where stock is held, in the order in which it is picked. */

const list = Command.make("list", { limit: limit(200), merchant, json }, ({ json, limit, merchant }) =>
  forMerchant(
    merchant,
    Effect.fnUntraced(function* ({ merchantId }) {
      const { locations } = yield* Catalog
      const rows = yield* rowsUpTo(limit, "--limit", (page) => locations(merchantId, page))
      yield* printRows(
        rows,
        [
          { title: "location", value: (row) => row.locationId },
          { title: "name", value: (row) => row.name },
          { title: "default", value: (row) => (row.isDefault ? "yes" : null) },
          { title: "order", value: (row) => row.order },
          { title: "retired", value: (row) => (row.retired ? "yes" : null) },
          { title: "created", value: (row) => momentOf(row.createdAt) }
        ],
        { json, empty: "There are no locations." }
      )
    })
  )
).pipe(Command.withDescription("List them in picking order"))

const set = Command.make(
  "set",
  {
    locationId: Argument.String("location-id").pipe(Argument.withSchema(OutsideId)),
    name: text("name", "Its name"),
    order: count("order", "Its place in picking order, from 1 (the default location is before all)"),
    retired: Flag.Literals("retired", ["yes", "no"]).pipe(
      Flag.withDescription("yes: nothing is promised from it any more"),
      Flag.optional
    ),
    merchant,
    json
  },
  ({ json, locationId, merchant, name, order, retired }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { ensureLocation, updateLocation } = yield* Catalog
        const ensured = yield* ensureLocation(caller, { locationId, name: Option.getOrUndefined(name) })
        const { created } = ensured.answer
        const isChanged = Option.isSome(order) || Option.isSome(retired)
        const { location } = isChanged
          ? (yield* updateLocation(caller, {
              locationId,
              order: Option.getOrUndefined(order),
              retired: Option.getOrUndefined(Option.map(retired, (said) => said === "yes"))
            })).answer
          : ensured.answer
        if (json) return yield* printJson({ created, ...location })
        const called = location.name === null ? "" : ` (${location.name})`
        const state = location.retired ? ", and is retired" : ""
        yield* Console.log(`Location ${locationId}${called} ${created ? "is new" : "was there"}${state}`)
      })
    )
).pipe(Command.withDescription("Create a location, name it, move it in picking order, or retire it"))

export const locations = Command.make("locations").pipe(
  Command.withDescription("Where stock is held"),
  Command.withSubcommands([list, set])
)
