import { Console, Effect, Layer, Logger, Option } from "effect"
import { Command } from "effect/cli"
import { HttpServer } from "effect/http"
import { createServer } from "node:net"
import * as Configuration from "../../layers/Configuration.ts"
import { migrate } from "../../layers/Migrations.ts"
import { DevIssuer } from "../../services/identity/Jwks.ts"
import { serviceDatabase } from "../database.ts"
import { service } from "../service.ts"

/** The service, until it is told to stop. What it prints is its log. */
export const program = Effect.gen(function* () {
  const settings = yield* Configuration.load
  // Asked first: a service that cannot listen makes no database.
  yield* portIsFree(settings)
  const url = yield* serviceDatabase(settings)
  yield* migrate(url)
  yield* Layer.launch(service(settings, url, welcome(settings)))
}).pipe(Effect.scoped, Effect.provide(Logger.layer([Logger.consoleLogFmt])))

export const serve = Command.make("serve", {}, () => program).pipe(
  Command.withDescription("Run the service until it is told to stop")
)

/** Opens the port and closes it again, or says why it cannot be had, and what to do. */
const portIsFree = ({ host, port }: Configuration.Settings) =>
  Effect.callback<void, Configuration.ConfigurationInvalid>((resume) => {
    const probe = createServer()
    probe.once("error", (error: NodeJS.ErrnoException) =>
      resume(
        Effect.fail(new Configuration.ConfigurationInvalid({ problems: [portProblem(host, port, error)] }))
      )
    )
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resume(Effect.void)))
    return Effect.sync(() => probe.close())
  })

const portProblem = (host: string, port: number, { code, message }: NodeJS.ErrnoException): string => {
  switch (code) {
    case "EADDRINUSE":
      return `PORT: ${port} is taken on ${host}: end the program that listens there, or choose another, such as PORT=${port + 1} (PORT=0: any free one)`
    case "EACCES":
      return `PORT: this user may not listen on ${port}: choose one from 1024 on`
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return `HOST: ${host} is no address of this machine`
    default:
      return `PORT: ${host}:${port} cannot be listened on: ${message}`
  }
}

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
  yield* Console.log(`
  Development tokens are open to all who can reach this address: set JWKS_URL for anything else.`)
  // What is piped is kept in logs, which are no place for a token.
  if (!process.stdout.isTTY) return yield* Console.log("  holdfast token issues one.\n")
  const token = yield* issuer.value.issue({})
  yield* Console.log(`
  Stock something:

curl -s ${base}/v1/api/inventory/product-variants \\
  -H 'Content-Type: application/json' \\
  -H 'Authorization: Bearer ${token}' \\
  -d '{"productVariantId":"espresso-cup","sku":"CUP-1"}'
`)
})
