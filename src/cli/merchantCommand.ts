import { Effect, Layer, Option, Schema } from "effect"
import * as Configuration from "../layers/Configuration.ts"
import * as Migrations from "../layers/Migrations.ts"
import type { Caller } from "../schema/Caller.ts"
import type { Availability } from "../services/stock/Availability.ts"
import type { Catalog } from "../services/stock/Catalog.ts"
import type { Discrepancies } from "../services/stock/Discrepancies.ts"
import type { Movements } from "../services/stock/Movements.ts"
import type { Reservations } from "../services/stock/Reservations.ts"
import { commandCaller } from "./caller.ts"
import { commandDatabase } from "./database.ts"
import { merchantOf } from "./options.ts"
import { foundation, operations } from "./service.ts"

/** The frame of commands that are about one merchant's stock, items, reservations or discrepancies. */

/** Commands do not migrate: the service or an operator does. */
export class DatabaseNotCurrent extends Schema.TaggedError<DatabaseNotCurrent>()("DatabaseNotCurrent", {
  lacking: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `the database lacks ${this.lacking.join(", ")}: holdfast migrate, or start the service, which does so`
  }
}

/** Runs an operation beside a service, on the same database, for the named merchant. */
export const forMerchant = <A, E>(
  given: Option.Option<string>,
  use: (
    caller: Caller
  ) => Effect.Effect<A, E, Availability | Catalog | Discrepancies | Movements | Reservations>
) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const merchantId = yield* merchantOf(given, settings)
    const url = yield* commandDatabase(settings)
    const { lacking } = yield* Migrations.compare(url)
    if (lacking.length > 0) return yield* new DatabaseNotCurrent({ lacking })
    return yield* Effect.provide(
      Effect.flatMap(commandCaller(merchantId, settings), use),
      operations.pipe(Layer.provideMerge(foundation(settings, url)))
    )
  }).pipe(Effect.scoped)
