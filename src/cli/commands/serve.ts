import { Console, Effect, Layer, Logger, Option } from "effect"
import { Command } from "effect/cli"
import { HttpServer } from "effect/http"
import * as Configuration from "../../layers/Configuration.ts"
import { migrate } from "../../layers/Migrations.ts"
import { DevIssuer } from "../../services/identity/Jwks.ts"
import { serviceDatabase } from "../database.ts"
import { service } from "../service.ts"

/** The service, until it is told to stop. What it prints is its log. */
export const program = Effect.gen(function* () {
  const settings = yield* Configuration.load
  const url = yield* serviceDatabase(settings)
  yield* migrate(url)
  yield* Layer.launch(service(settings, url, welcome(settings)))
}).pipe(Effect.scoped, Effect.provide(Logger.layer([Logger.consoleLogFmt])))

export const serve = Command.make("serve", {}, () => program).pipe(
  Command.withDescription("Run the service until it is told to stop")
)

/** One screen: where it listens, where the docs are, and a first call that works when pasted. */
const welcome = Effect.fnUntraced(function* (settings: Configuration.Settings) {
  const server = yield* HttpServer.HttpServer
  const port = "port" in server.address ? server.address.port : settings.port
  const host = ["::", "0.0.0.0"].includes(settings.host) ? "localhost" : settings.host
  const base = `http://${host.includes(":") ? `[${host}]` : host}:${port}`
  const database = Option.isNone(settings.databaseUrl)
    ? `embedded, in ${settings.dataDirectory}`
    : "DATABASE_URL"
  yield* Console.log(`
  Holdfast listens on ${base}
  Documentation       ${base}/docs
  Database            ${database}`)
  const issuer = yield* Effect.serviceOption(DevIssuer)
  if (Option.isNone(issuer) || !settings.roles.has("inventory-api")) return
  const token = yield* issuer.value.issue({})
  yield* Console.log(`
  Development tokens are open to all who can reach this address: set JWKS_URL for anything else.
  Stock something:

curl -s ${base}/v1/api/inventory/product-variants \\
  -H 'Content-Type: application/json' \\
  -H 'Authorization: Bearer ${token}' \\
  -d '{"productVariantId":"espresso-cup","sku":"CUP-1"}'
`)
})
