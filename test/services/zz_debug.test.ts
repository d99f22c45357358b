import { it } from "@effect/vitest"
import { Effect } from "effect"
import { desks, withServices } from "../support/processes.ts"
for (let i=0;i<10;i++) it.live("debug"+i, () =>
      withServices(2, (services) =>
        Effect.gen(function* () {
          const shops = yield* desks(services)
          yield* Effect.forEach(
            Array.from({ length: 60 }, (_, index) => index),
            (index) =>
              Effect.forEach(
                shops,
                (shop) =>
                  Effect.all(
                    [shop.item(`item-${index % 20}`, { sku: `sku-${index % 20}` }), shop.location(`north-${index % 5}`)],
                    { concurrency: "unbounded" }
                  ),
                { concurrency: "unbounded" }
              ),
            { concurrency: 16 }
          ).pipe(Effect.exit)
          yield* Effect.sleep(500)
          for (const s of services) { const t = s.stdout()+s.stderr(); if (/level=/.test(t)) console.log(t.slice(0,7000)) }
        })
      ), 60000)
