import { Console, Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import { OutsideId } from "../../schema/Identifier.ts"
import { Catalog } from "../../services/stock/Catalog.ts"
import { forMerchant } from "../merchantCommand.ts"
import { json, limit, merchant, text } from "../options.ts"
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
    merchant,
    json
  },
  ({ json, locationId, merchant, name }) =>
    forMerchant(
      merchant,
      Effect.fnUntraced(function* (caller) {
        const { ensureLocation } = yield* Catalog
        const { answer } = yield* ensureLocation(caller, { locationId, name: Option.getOrUndefined(name) })
        const { created, location } = answer
        if (json) return yield* printJson({ created, ...location })
        const called = location.name === null ? "" : ` (${location.name})`
        yield* Console.log(`Location ${locationId}${called} ${created ? "is new" : "was there"}`)
      })
    )
).pipe(Command.withDescription("Create a location, or name one"))

export const locations = Command.make("locations").pipe(
  Command.withDescription("Where stock is held"),
  Command.withSubcommands([list, set])
)
