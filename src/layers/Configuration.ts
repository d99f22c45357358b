import { Config, Effect, Option, Redacted, Result, Schema } from "effect"
import { OutsideId } from "../schema/Identifier.ts"

/**
 * The configuration by environment variables (CONTRACTS section 3). A wrong or missing value stops the start with one
 * line per problem that names the variable.
 */

export const roles = ["inventory-api", "event-dispatcher", "consumers", "sweeper"] as const
export type Role = (typeof roles)[number]
/** Roles of CONTRACTS that this version does not have yet: named, so that asking for one is not silently nothing. */
const comingRoles = ["admin-api", "wms-outbound-worker", "wms-sync-worker", "signal"] as const

export interface Settings {
  readonly host: string
  readonly port: number
  readonly roles: ReadonlySet<Role>
  /** None: the embedded PostgreSQL. */
  readonly databaseUrl: Option.Option<Redacted.Redacted<string>>
  readonly dataDirectory: string
  /** None: the built-in issuer of development tokens. */
  readonly jwks: Option.Option<{ readonly url: string; readonly issuer: string; readonly audience: string }>
  /** None: the broker kept in PostgreSQL. */
  readonly kafka: Option.Option<KafkaSettings>
  /** Put before every topic and group; perhaps empty. */
  readonly topicPrefix: string
  /** The merchant of messages and commands that name none. */
  readonly defaultMerchantId: Option.Option<string>
  readonly requestTimeoutMs: number
  readonly sweepIntervalMs: number
  readonly idleInTransactionMs: number
  readonly retention: { readonly outboxMs: number; readonly brokerMs: number; readonly deadLettersMs: number }
  readonly logLevel: (typeof logLevels)[keyof typeof logLevels]
  /** None: nothing is exported. */
  readonly otlpEndpoint: Option.Option<string>
}

export interface KafkaSettings {
  /** host:port of brokers to begin with. */
  readonly brokers: ReadonlyArray<string>
  readonly sasl: Option.Option<{
    readonly mechanism: (typeof saslMechanisms)[number]
    readonly username: string
    readonly password: Redacted.Redacted<string>
  }>
  readonly ssl: boolean
}

const saslMechanisms = ["plain", "scram-sha-256", "scram-sha-512"] as const

const hourMs = 60 * 60 * 1000

/** What LOG_LEVEL may say. */
const logLevels = { debug: "Debug", info: "Info", warning: "Warn", error: "Error" } as const

/** One variable: how it is read and what it means. The table of the docs is made of these. */
interface Variable<A> {
  readonly name: string
  readonly config: Config.Config<A>
  readonly fallback: string
  readonly meaning: string
}

const variable = <A>(
  name: string,
  config: (name: string) => Config.Config<A>,
  fallback: string,
  meaning: string
): Variable<A> => ({
  name,
  config: config(name),
  fallback,
  meaning
})

const atLeast = (minimum: number, maximum: number) => (name: string) =>
  Config.schema(
    Schema.NumberFromString.check(
      Schema.isInt({ message: "must be a whole number" }),
      Schema.isBetween({ minimum, maximum }, { message: `must be from ${minimum} to ${maximum}` })
    ),
    name
  )
const text = (name: string) => Config.NonEmptyString(name)
const url =
  (...protocols: ReadonlyArray<string>) =>
  (name: string) =>
    Config.schema(
      Schema.String.check(
        Schema.makeFilter((value: string) =>
          URL.canParse(value) && protocols.includes(new URL(value).protocol)
            ? undefined
            : `must be a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`
        )
      ),
      name
    )

export const variables = {
  host: variable("HOST", text, "loopback while the dev issuer is open, otherwise all", "address of HTTP"),
  port: variable("PORT", atLeast(0, 65_535), "8080", "port of HTTP (0: any free one)"),
  roles: variable("ROLES", text, "all", `comma list of ${roles.join(", ")}`),
  databaseUrl: variable(
    "DATABASE_URL",
    (name) => Config.map(url("postgres:", "postgresql:")(name), (value) => Redacted.make(value)),
    "embedded PostgreSQL",
    "the PostgreSQL to use, 15 or later; unset: a real one is started under HOLDFAST_DATA_DIR"
  ),
  dataDirectory: variable("HOLDFAST_DATA_DIR", text, ".holdfast", "embedded data; survives restarts"),
  jwksUrl: variable(
    "JWKS_URL",
    url("http:", "https:"),
    "dev issuer",
    "where the token issuer publishes its keys"
  ),
  jwtIssuer: variable("JWT_ISSUER", text, "dev issuer", "the iss that tokens must have"),
  jwtAudience: variable("JWT_AUDIENCE", text, "dev issuer", "the aud that tokens must have"),
  dev: variable(
    "HOLDFAST_DEV",
    text,
    "unset",
    "1 opens the dev issuer together with DATABASE_URL: never in production"
  ),
  kafkaBrokers: variable(
    "KAFKA_BROKERS",
    (name) =>
      Config.schema(
        Schema.String.check(
          Schema.isPattern(/^(?:(?:[^\s:,[\]]+|\[[\da-fA-F:.]+\]):\d{1,5}(?:,(?!$)|$))+$/, {
            message: "must be host:port, or several separated by commas"
          })
        ),
        name
      ),
    "the broker kept in PostgreSQL",
    "host:port of Kafka (IPv6 as [::1]:9092), or several separated by commas"
  ),
  kafkaSaslMechanism: variable(
    "KAFKA_SASL_MECHANISM",
    (name) => Config.schema(Schema.Literals(saslMechanisms), name),
    "none",
    saslMechanisms.join(", ")
  ),
  kafkaSaslUsername: variable("KAFKA_SASL_USERNAME", text, "none", "who Kafka takes us for"),
  kafkaSaslPassword: variable(
    "KAFKA_SASL_PASSWORD",
    (name) => Config.map(text(name), (value) => Redacted.make(value)),
    "none",
    "and how it knows"
  ),
  kafkaSsl: variable(
    "KAFKA_SSL",
    (name) => Config.schema(Schema.Literals(["true", "false", "1", "0"]), name),
    "false",
    "true: TLS, verified by the system's certificates and those of NODE_EXTRA_CA_CERTS"
  ),
  topicPrefix: variable(
    "TOPIC_PREFIX",
    (name) =>
      Config.schema(
        Schema.String.check(
          Schema.isPattern(/^[A-Za-z0-9._-]{0,100}$/, {
            message: "must be at most 100 letters, digits, dots, underscores and hyphens"
          })
        ),
        name
      ),
    "empty",
    "put before the name of every topic and group"
  ),
  defaultMerchantId: variable(
    "DEFAULT_MERCHANT_ID",
    (name) => Config.schema(OutsideId, name),
    "demo with the dev issuer, otherwise unset",
    "merchant of messages and commands that name none"
  ),
  requestTimeoutMs: variable(
    "REQUEST_TIMEOUT_MS",
    atLeast(1, 600_000),
    "2500",
    "when a request is answered with 408"
  ),
  sweepIntervalMs: variable(
    "SWEEP_INTERVAL_MS",
    atLeast(10, 3_600_000),
    "1000",
    "how often expired reservations are looked for"
  ),
  idleInTransactionMs: variable(
    "IDLE_IN_TRANSACTION_MS",
    atLeast(10, 60_000),
    "300",
    "after which PostgreSQL ends a kernel transaction whose process froze"
  ),
  outboxRetentionHours: variable(
    "OUTBOX_RETENTION_HOURS",
    atLeast(1, 87_600),
    "168",
    "how long events are kept after they were sent"
  ),
  brokerRetentionHours: variable(
    "BROKER_RETENTION_HOURS",
    atLeast(1, 87_600),
    "168",
    "how long the broker in PostgreSQL keeps messages that every group has committed"
  ),
  deadLetterRetentionHours: variable(
    "DEAD_LETTER_RETENTION_HOURS",
    atLeast(1, 87_600),
    "168",
    "how long dead letters are kept after they were replayed; all others stay"
  ),
  logLevel: variable(
    "LOG_LEVEL",
    text,
    "info",
    `what is logged: ${Object.keys(logLevels).join(", ")}; debug has a line for each request`
  ),
  otlpEndpoint: variable(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    url("http:", "https:"),
    "none",
    "where traces, metrics and logs are sent by OTLP over HTTP"
  )
}

/** Variables of CONTRACTS that mean nothing yet: setting one is refused rather than ignored. */
const comingVariables = ["REDIS_URL", "IDENTITY_URL", "WMS_URL", "RATE_LIMIT_PER_SECOND"]

export class ConfigurationInvalid extends Schema.TaggedError<ConfigurationInvalid>()("ConfigurationInvalid", {
  problems: Schema.Array(Schema.String)
}) {}

export const load: Effect.Effect<Settings, ConfigurationInvalid> = Effect.gen(function* () {
  const problems: Array<string> = []
  const read = Effect.fnUntraced(function* <A>({ config, name }: Variable<A>) {
    const result = yield* Effect.result(Config.option(config))
    if (Result.isSuccess(result)) return Option.getOrUndefined(result.success)
    problems.push(`${name}: ${reasonOf(result.failure)}`)
    return undefined
  })

  const databaseUrl = yield* read(variables.databaseUrl)
  const jwksUrl = yield* read(variables.jwksUrl)
  const issuer = yield* read(variables.jwtIssuer)
  const audience = yield* read(variables.jwtAudience)
  const dev = yield* read(variables.dev)
  const asked = (yield* read(variables.roles)) ?? "all"

  if (dev !== undefined && dev !== "0" && dev !== "1") problems.push("HOLDFAST_DEV: must be 1 or 0")
  const givesJwks = [jwksUrl, issuer, audience].some((value) => value !== undefined)
  const needsJwks = databaseUrl !== undefined && dev !== "1"
  if (givesJwks || needsJwks) {
    const why = givesJwks
      ? "the other JWKS variables are set"
      : "DATABASE_URL is set (or HOLDFAST_DEV=1, for development only)"
    if (jwksUrl === undefined) problems.push(`JWKS_URL: is required because ${why}`)
    if (issuer === undefined) problems.push(`JWT_ISSUER: is required because ${why}`)
    if (audience === undefined) problems.push(`JWT_AUDIENCE: is required because ${why}`)
  }
  for (const name of comingVariables) {
    if ((yield* read(variable(name, text, "", ""))) !== undefined) {
      problems.push(`${name}: is not supported by this version yet, unset it`)
    }
  }
  const brokers = yield* read(variables.kafkaBrokers)
  const mechanism = yield* read(variables.kafkaSaslMechanism)
  const username = yield* read(variables.kafkaSaslUsername)
  const password = yield* read(variables.kafkaSaslPassword)
  const ssl = yield* read(variables.kafkaSsl)
  const sasl = [mechanism, username, password]
  if (sasl.some((value) => value !== undefined) && sasl.includes(undefined)) {
    const why = "is required because another KAFKA_SASL variable is set"
    if (mechanism === undefined) problems.push(`KAFKA_SASL_MECHANISM: ${why}`)
    if (username === undefined) problems.push(`KAFKA_SASL_USERNAME: ${why}`)
    if (password === undefined) problems.push(`KAFKA_SASL_PASSWORD: ${why}`)
  }
  if (brokers === undefined && (ssl !== undefined || sasl.some((value) => value !== undefined)))
    problems.push("KAFKA_BROKERS: is required because other KAFKA variables are set")
  const chosen = new Set<Role>()
  for (const role of asked.split(",").map((name) => name.trim())) {
    if (role === "all") for (const each of roles) chosen.add(each)
    else if ((roles as ReadonlyArray<string>).includes(role)) chosen.add(role as Role)
    else if ((comingRoles as ReadonlyArray<string>).includes(role)) {
      problems.push(`ROLES: ${role} is not supported by this version yet`)
    } else
      problems.push(`ROLES: there is no role ${JSON.stringify(role)}; there are all, ${roles.join(", ")}`)
  }
  const logLevel = (yield* read(variables.logLevel)) ?? "info"
  if (!Object.hasOwn(logLevels, logLevel)) {
    problems.push(`LOG_LEVEL: must be one of ${Object.keys(logLevels).join(", ")}`)
  }
  const host = yield* read(variables.host)
  const defaultMerchantId = yield* read(variables.defaultMerchantId)
  const settings: Settings = {
    host: host ?? (givesJwks ? "::" : "127.0.0.1"),
    port: (yield* read(variables.port)) ?? 8080,
    roles: chosen,
    databaseUrl: Option.fromUndefinedOr(databaseUrl),
    dataDirectory: (yield* read(variables.dataDirectory)) ?? ".holdfast",
    jwks: givesJwks
      ? Option.some({ url: jwksUrl ?? "", issuer: issuer ?? "", audience: audience ?? "" })
      : Option.none(),
    kafka:
      brokers === undefined
        ? Option.none()
        : Option.some({
            brokers: brokers.split(","),
            sasl:
              mechanism === undefined || username === undefined || password === undefined
                ? Option.none()
                : Option.some({ mechanism, username, password }),
            ssl: ssl === "true" || ssl === "1"
          }),
    topicPrefix: (yield* read(variables.topicPrefix)) ?? "",
    defaultMerchantId: Option.fromUndefinedOr(defaultMerchantId ?? (givesJwks ? undefined : "demo")),
    requestTimeoutMs: (yield* read(variables.requestTimeoutMs)) ?? 2_500,
    sweepIntervalMs: (yield* read(variables.sweepIntervalMs)) ?? 1_000,
    idleInTransactionMs: (yield* read(variables.idleInTransactionMs)) ?? 300,
    retention: {
      outboxMs: ((yield* read(variables.outboxRetentionHours)) ?? 168) * hourMs,
      brokerMs: ((yield* read(variables.brokerRetentionHours)) ?? 168) * hourMs,
      deadLettersMs: ((yield* read(variables.deadLetterRetentionHours)) ?? 168) * hourMs
    },
    logLevel: logLevels[logLevel as keyof typeof logLevels],
    otlpEndpoint: Option.fromUndefinedOr(yield* read(variables.otlpEndpoint))
  }
  return problems.length === 0 ? settings : yield* new ConfigurationInvalid({ problems })
})

/** The schema's own words, without the path that the variable's name says better. */
const reasonOf = ({ cause }: Config.ConfigError): string => cause.message.split("\n")[0]!.trim()
