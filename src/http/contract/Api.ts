import { HttpApi, OpenApi } from "effect/http-api"
import { BulkApi } from "./BulkApi.ts"
import { CatalogApi } from "./CatalogApi.ts"
import { Edge } from "./Contract.ts"
import { OrdersApi } from "./OrdersApi.ts"
import { VariantsApi } from "./VariantsApi.ts"
import { WarehouseApi } from "./WarehouseApi.ts"

/** The whole HTTP contract: what a client needs, without the server. */
export class Api extends HttpApi.make("holdfast")
  .add(OrdersApi)
  .add(VariantsApi)
  .add(WarehouseApi)
  .add(CatalogApi)
  .add(BulkApi)
  .middleware(Edge)
  // Every bad field is named, not only the first one.
  .annotate(HttpApi.ParseOptions, { errors: "all" })
  .annotateMerge(OpenApi.annotations({ title: "Holdfast" })) {}
