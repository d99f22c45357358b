import { HttpApi, OpenApi } from "effect/http-api"
import { BulkApi } from "./BulkApi.ts"
import { CatalogApi } from "./CatalogApi.ts"
import { Edge } from "./Contract.ts"
import { OrdersApi } from "./OrdersApi.ts"
import { SalesApi } from "./SalesApi.ts"
import { VariantsApi } from "./VariantsApi.ts"
import { WarehouseApi } from "./WarehouseApi.ts"

/** The whole HTTP contract: what a client needs, without the server. */
export class Api extends HttpApi.make("holdfast")
  .add(OrdersApi)
  .add(VariantsApi)
  .add(WarehouseApi)
  .add(CatalogApi)
  .add(BulkApi)
  .add(SalesApi)
  .middleware(Edge)
  // Every bad field is named, not only the first one.
  .annotate(HttpApi.ParseOptions, { errors: "all" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Holdfast",
      version: "1.0.0",
      description: "The inventory service that never oversells: stock, reservations and a ledger.",
      license: { name: "Apache-2.0" },
      transform: (spec) => ({
        ...spec,
        // Every operation asks for a token; HttpApi writes an empty list where a middleware declares no scheme.
        paths: Object.fromEntries(
          Object.entries(spec["paths"] as Record<string, Record<string, object>>).map(
            ([path, operations]) => [
              path,
              Object.fromEntries(
                Object.entries(operations).map(([method, operation]) => [
                  method,
                  { ...operation, security: [{ bearer: [] }] }
                ])
              )
            ]
          )
        ),
        components: {
          ...(spec["components"] as object),
          securitySchemes: {
            bearer: {
              type: "http",
              scheme: "bearer",
              bearerFormat: "JWT",
              description:
                "A JWT (ES256, RS256 or EdDSA) with the claims sub, merchant_id, scope or roles, exp, iss, aud."
            }
          }
        }
      })
    })
  ) {}
