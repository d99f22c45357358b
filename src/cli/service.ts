import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { type Duration, Effect, Layer, Option, type Redacted, References, Schedule, Schema } from "effect"
import { Otlp } from "effect/observability"
import * as Runner from "../consumers/Runner.ts"
import { topics } from "../consumers/topics.ts"
import * as Operations from "../http/Operations.ts"
import * as Server from "../http/Server.ts"
import type * as Configuration from "../layers/Configuration.ts"
import * as DatabaseClock from "../layers/DatabaseClock.ts"
import * as DevIssuer from "../layers/DevIssuer.ts"
import * as KafkaBroker from "../layers/KafkaBroker.ts"
import * as JwksHttp from "../layers/JwksHttp.ts"
import * as Postgres from "../layers/Postgres.ts"
import * as PostgresBroker from "../layers/PostgresBroker.ts"
import * as PrefixedBroker from "../layers/PrefixedBroker.ts"
import * as ProcessMetrics from "../layers/ProcessMetrics.ts"
import { topicNames } from "../schema/Topic.ts"
import { Authentication } from "../services/identity/Authentication.ts"
import { Availability } from "../services/stock/Availability.ts"
import { Broker, BrokerUnavailable } from "../services/messaging/Broker.ts"
import { Catalog } from "../services/stock/Catalog.ts"
import type { Db } from "../services/Db.ts"
import { DeadLetters } from "../services/messaging/DeadLetters.ts"
import { Discrepancies } from "../services/stock/Discrepancies.ts"
import { Health } from "../services/Health.ts"
import { Movements } from "../services/stock/Movements.ts"
import { Orders } from "../services/orders/Orders.ts"
import { Outbox } from "../services/messaging/Outbox.ts"
import { Partitions } from "../services/Partitions.ts"
import { Policies } from "../services/identity/Policies.ts"
import { Reservations } from "../services/stock/Reservations.ts"
import { Retention } from "../services/books/Retention.ts"
import { Stocks } from "../services/stock/Stocks.ts"
import { StockLedger } from "../services/kernel/StockLedger.ts"

/** Composition only: the configuration decides which layers a service or a command is made of. */

/** Kafka where it is configured, otherwise the broker kept in PostgreSQL. */
const broker = ({ kafka, topicPrefix }: Configuration.Settings) =>
  PrefixedBroker.layer(topicPrefix).pipe(
    Layer.provide(
      Option.match(kafka, {
        onNone: () => PostgresBroker.layer(),
        onSome: ({ brokers, sasl, ssl }) =>
          KafkaBroker.layer({
            brokers,
            ...(Option.isSome(sasl) ? { sasl: sasl.value } : {}),
            ...(ssl ? { tls: {} } : {})
          }) as Layer.Layer<Broker, never, Db>
      })
    )
  )

/** Database, clock and broker: what everything else stands on. */
export const foundation = (settings: Configuration.Settings, url: Redacted.Redacted<string>) =>
  broker(settings).pipe(
    Layer.provideMerge(DatabaseClock.layer),
    Layer.provideMerge(
      Postgres.layer({
        url,
        idleInTransactionMs: settings.idleInTransactionMs,
        readTimeoutMs: settings.requestTimeoutMs
      })
    )
  )

/** Nobody answers at KAFKA_BROKERS: a wrong address, or an outage. */
export class BrokerUnreachable extends Schema.TaggedError<BrokerUnreachable>()("BrokerUnreachable", {
  brokers: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `KAFKA_BROKERS: no broker answers at ${this.brokers}: ${this.reason}`
  }
}

/** The brokers answer, and do not let us in. */
export class BrokerLoginRefused extends Schema.TaggedError<BrokerLoginRefused>()("BrokerLoginRefused", {
  brokers: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    const variables = "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD"
    return `${variables}: the broker at ${this.brokers} refuses the login: ${this.reason}`
  }
}

/** Whoever starts a service waits for at most 15 s to be told that there is no broker: for all attempts together. */
const brokerWithinMs = 8_000
const brokerPauseMs = 500

/**
 * A service that would only wait does not start, and topics that do not exist are named once at the start. Later
 * outages are waited out.
 */
const brokerAtStart = (settings: Configuration.Settings) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { missingTopics } = yield* Broker
      let failure = new BrokerUnavailable({ cause: new Error(`not within ${brokerWithinMs} ms`) })
      const missing = yield* missingTopics(topicNames).pipe(
        Effect.tapError((met) => Effect.sync(() => (failure = met))),
        Effect.retry({ schedule: Schedule.spaced(brokerPauseMs), while: ({ denied }) => denied !== true }),
        Effect.timeoutOrElse({ duration: brokerWithinMs, orElse: () => Effect.fail(failure) }),
        Effect.mapError(({ cause, denied }) => {
          const brokers = Option.match(settings.kafka, {
            onNone: () => "",
            onSome: (kafka) => kafka.brokers.join(",")
          })
          const reason = cause instanceof Error ? cause.message : String(cause)
          return denied === true
            ? new BrokerLoginRefused({ brokers, reason })
            : new BrokerUnreachable({ brokers, reason })
        })
      )
      if (missing.length > 0)
        yield* Effect.logWarning(
          `topics do not exist: ${missing.join(", ")}; holdfast topics create makes them, the others work meanwhile`
        )
    })
  )

/** What Holdfast does, over the foundation. */
export const operations = Layer.mergeAll(
  Availability.layer,
  Catalog.layer,
  DeadLetters.layer,
  Discrepancies.layer,
  Movements.layer,
  Orders.layer,
  Outbox.layer,
  Reservations.layer,
  Stocks.layer
).pipe(Layer.provideMerge(StockLedger.layer), Layer.provideMerge(Partitions.layer))

const dispatcher = Layer.effectDiscard(Effect.flatMap(Outbox, ({ dispatch }) => Effect.forkScoped(dispatch)))

/** Does a task again and again, whatever becomes of it: an outage puts it off, and a bug of ours ends one turn. */
const every = <A, E, R>(name: string, task: Effect.Effect<A, E, R>, interval: Duration.Input) =>
  task.pipe(
    Effect.catch((failure) => Effect.logWarning(`${name} waits for the database`, failure)),
    Effect.catchCause((cause) => Effect.logError(`${name} died`, cause)),
    Effect.repeat(Schedule.spaced(interval)),
    Effect.forkScoped
  )

const sweeper = (intervalMs: number) =>
  Layer.effectDiscard(
    Effect.flatMap(Reservations, ({ expireDue }) => every("the sweeper", expireDue, intervalMs))
  )

/** Makes partitions long before they are needed, and removes what is past its age. */
const housekeeper = Layer.effectDiscard(
  Effect.gen(function* () {
    const { prepare } = yield* Partitions
    const { measureSnapshots, removeExpired } = yield* Retention
    yield* every("making partitions", prepare, "1 hour")
    yield* every("removing what is past its age", removeExpired, "1 hour")
    yield* every("measuring open snapshots", measureSnapshots, "15 seconds")
  })
)

/** `onListening` runs once HTTP does. */
export const service = <E, R>(
  settings: Configuration.Settings,
  url: Redacted.Redacted<string>,
  onListening: Effect.Effect<void, E, R>
) => {
  const jwks = Option.match(settings.jwks, {
    onNone: () => DevIssuer.layer,
    onSome: (config) =>
      // A caller who waited for keys still hears what became of it within its own deadline.
      JwksHttp.layer({ ...config, waitMsMax: settings.requestTimeoutMs * 0.8 }).pipe(
        Layer.provide(NodeHttpClient.layerUndici)
      )
  })
  const authentication = Authentication.layer.pipe(
    Layer.provide(Policies.layerLocal),
    Layer.provideMerge(jwks)
  )
  const server = Server.layer(
    { ...settings, contract: settings.roles.has("inventory-api") },
    Option.isNone(settings.jwks) ? (Operations.layerDevIssuer as typeof Layer.empty) : Layer.empty
  )
  return Layer.mergeAll(
    Layer.effectDiscard(onListening).pipe(Layer.provideMerge(server)),
    ProcessMetrics.layer,
    settings.roles.has("event-dispatcher") ? dispatcher : Layer.empty,
    settings.roles.has("consumers")
      ? Runner.layer(topics, { defaultMerchantId: Option.getOrUndefined(settings.defaultMerchantId) })
      : Layer.empty,
    settings.roles.has("sweeper")
      ? Layer.mergeAll(
          sweeper(settings.sweepIntervalMs),
          housekeeper.pipe(Layer.provide(Retention.layer(settings.retention)))
        )
      : Layer.empty
  ).pipe(
    Layer.provide(Health.layer),
    Layer.provide(operations),
    Layer.provide(authentication),
    Layer.provide(brokerAtStart(settings)),
    Layer.provide(foundation(settings, url)),
    Layer.provide(telemetry(settings)),
    Layer.provide(Layer.succeed(References.MinimumLogLevel, settings.logLevel))
  )
}

const telemetry = ({ otlpEndpoint }: Configuration.Settings) =>
  Option.match(otlpEndpoint, {
    // Spans that nobody is sent are not made: they are a twentieth of what a request costs.
    onNone: () => Layer.succeed(References.TracerEnabled, false),
    onSome: (baseUrl) =>
      Otlp.layerJson({ baseUrl, resource: { serviceName: "holdfast" } }).pipe(
        Layer.provide(NodeHttpClient.layerUndici)
      )
  })
