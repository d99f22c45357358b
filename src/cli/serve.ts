import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import {
  Cause,
  Console,
  Effect,
  Exit,
  Layer,
  Logger,
  Option,
  Redacted,
  Runtime,
  Schedule,
  Schema
} from "effect"
import { HttpServer } from "effect/http"
import * as Operations from "../http/Operations.ts"
import * as Server from "../http/Server.ts"
import * as Configuration from "../layers/Configuration.ts"
import * as DatabaseClock from "../layers/DatabaseClock.ts"
import * as DevIssuerLive from "../layers/DevIssuer.ts"
import * as EmbeddedPostgres from "../layers/EmbeddedPostgres.ts"
import * as JwksHttp from "../layers/JwksHttp.ts"
import { migrate } from "../layers/Migrations.ts"
import * as Postgres from "../layers/Postgres.ts"
import { Authentication } from "../services/Authentication.ts"
import { Availability } from "../services/Availability.ts"
import { Catalog } from "../services/Catalog.ts"
import { Db } from "../services/Db.ts"
import { Discrepancies } from "../services/Discrepancies.ts"
import { Health } from "../services/Health.ts"
import { DevIssuer } from "../services/Jwks.ts"
import { Movements } from "../services/Movements.ts"
import { Partitions } from "../services/Partitions.ts"
import { Policies } from "../services/Policies.ts"
import { parameter } from "../services/PostgresTypes.ts"
import { Reservations } from "../services/Reservations.ts"
import { StockLedger } from "../services/StockLedger.ts"

/** Composition only: the configuration decides which layers the service is made of. */

const operations = Layer.mergeAll(
  Availability.layer,
  Catalog.layer,
  Discrepancies.layer,
  Movements.layer,
  Reservations.layer
).pipe(Layer.provideMerge(StockLedger.layer), Layer.provideMerge(Partitions.layer))

/** The dev issuer keeps its key in the database, so that all processes of one database agree on it. */
const devIssuer = Layer.unwrap(
  Effect.map(Db, (db) =>
    DevIssuerLive.layerWith((candidate) =>
      Effect.gen(function* () {
        const [row] = yield* db.maintain<{ private_jwk: typeof candidate }>(
          `WITH offered AS (
             INSERT INTO dev_issuer_key (id, private_jwk, created_at) VALUES (1, $1::text::jsonb, clock_timestamp())
             ON CONFLICT DO NOTHING
             RETURNING private_jwk
           )
           SELECT private_jwk FROM offered UNION ALL SELECT private_jwk FROM dev_issuer_key`,
          [parameter("text", JSON.stringify(candidate))]
        )
        return row === undefined
          ? yield* Effect.die("the key was taken and is not there yet")
          : row.private_jwk
      })
    )
  )
)

const sweeper = (intervalMs: number) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { expireDue } = yield* Reservations
      // As long as a sweep finds work the next one follows at once.
      const sweep = expireDue.pipe(
        Effect.repeat({ until: (expired) => expired === 0 }),
        Effect.catch(() => Effect.logWarning("the sweeper waits for the database")),
        Effect.catchCause((cause) => Effect.logError("a sweep died", cause))
      )
      yield* Effect.forkScoped(Effect.repeat(sweep, Schedule.spaced(intervalMs)))
    })
  )

const service = (settings: Configuration.Settings, url: Redacted.Redacted<string>) => {
  const jwks = Option.match(settings.jwks, {
    onNone: () => devIssuer,
    onSome: (config) => JwksHttp.layer(config).pipe(Layer.provide(NodeHttpClient.layerUndici))
  })
  const authentication = Authentication.layer.pipe(
    Layer.provide(Policies.layerLocal),
    Layer.provideMerge(jwks)
  )
  const server = Server.layer(
    settings,
    Option.isNone(settings.jwks) ? (Operations.layerDevIssuer as typeof Layer.empty) : Layer.empty
  )
  return Layer.mergeAll(
    settings.roles.has("inventory-api")
      ? Layer.effectDiscard(welcome(settings)).pipe(Layer.provideMerge(server))
      : Layer.empty,
    settings.roles.has("sweeper") ? sweeper(settings.sweepIntervalMs) : Layer.empty
  ).pipe(
    Layer.provide(Health.layer),
    Layer.provide(operations),
    Layer.provide(authentication),
    Layer.provideMerge(DatabaseClock.layer),
    Layer.provide(Postgres.layer({ url, idleInTransactionMs: settings.idleInTransactionMs }))
  )
}

/** One screen: where it listens, where the docs are, and a first call that works when pasted. */
const welcome = Effect.fnUntraced(function* (settings: Configuration.Settings) {
  const server = yield* HttpServer.HttpServer
  const port = "port" in server.address ? server.address.port : settings.port
  const host = ["::", "0.0.0.0"].includes(settings.host) ? "localhost" : settings.host
  const base = `http://${host.includes(":") ? `[${host}]` : host}:${port}`
  yield* Console.log(`\n  Holdfast listens on ${base}`)
  yield* Console.log(`  Documentation     ${base}/docs`)
  yield* Console.log(
    `  Database          ${Option.isNone(settings.databaseUrl) ? `embedded, in ${settings.dataDirectory}` : "DATABASE_URL"}`
  )
  const issuer = yield* Effect.serviceOption(DevIssuer)
  if (Option.isNone(issuer)) return
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

const program = Effect.gen(function* () {
  const settings = yield* Configuration.load
  const url = Option.isSome(settings.databaseUrl)
    ? settings.databaseUrl.value
    : (yield* EmbeddedPostgres.start({ dataDir: settings.dataDirectory })).url
  yield* migrate(url)
  yield* Layer.launch(service(settings, url))
}).pipe(Effect.scoped)

const describe = (failure: unknown): ReadonlyArray<string> =>
  failure instanceof Configuration.ConfigurationInvalid
    ? failure.problems
    : [Schema.isSchemaError(failure) ? failure.message : String((failure as Error).message ?? failure)]

/** Exits 0 when it was asked to stop, 1 with one line per problem when it could not start. */
const teardown: Runtime.Teardown = (exit, onExit) => {
  onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
}

export const serve = (): void => {
  program.pipe(
    Effect.tapCause((cause) => {
      const failure = Cause.findErrorOption(cause)
      if (Option.isSome(failure))
        return Effect.forEach(describe(failure.value), (line) => Console.error(`holdfast: ${line}`))
      return Cause.hasInterruptsOnly(cause) ? Effect.void : Console.error(`holdfast: ${Cause.pretty(cause)}`)
    }),
    Effect.provide(Logger.layer([Logger.consoleLogFmt])),
    (main) => NodeRuntime.runMain(main, { disableErrorReporting: true, teardown })
  )
}
