import { PgConnection } from "@effect/sql-pg"
import { Effect, Layer, Metric, Pool, Queue, Redacted, type Scope } from "effect"
import type { SqlError } from "effect/sql"
import { connect, type Socket } from "node:net"
import { DatabaseUnavailable, retryAfterSeconds } from "../schema/Failure.ts"
import { Db, type Parameters, type Row, type Session, StatementFailed, type Survey } from "../services/Db.ts"
import { parameter, types } from "../services/PostgresTypes.ts"
import { takeOnReaderRole } from "../services/ReaderRole.ts"

export interface PostgresOptions {
  readonly url: Redacted.Redacted<string>
  /** A replica that freezes inside a transaction holds its locks: PostgreSQL ends it after this long. */
  readonly idleInTransactionMs?: number
  /** When a read that is not answered is given up. */
  readonly readTimeoutMs?: number
}

const readerConnections = 8
const maintenanceConnections = 4
const surveyConnections = 2
/** The kernel waits for locks at most this long; readers and maintenance have their own bounds. */
const kernelStatementTimeoutMs = 3_000
const readerStatementTimeoutMs = 5_000
const maintenanceStatementTimeoutMs = 10_000
/** A range of very large books has very many rows (`rangesMax` in `books/audit/ranges.ts`). */
const surveySessionTimeoutMs = 60_000
const readTimeoutMs = 2_500
/** A socket that is owed an answer and says nothing for this long beyond its statement's time-out is given up. */
const silenceMs = 2_000
const connectTimeoutMs = 2_000
const keepAliveMs = 5_000
const readBufferBytes = 65_536
/**
 * Every statement of the kernel and of readers looks keys up, each by an index. A plan made for tables that were small
 * would scan them, and is kept: a batch's reads took ten times as long on a new database until it was analyzed.
 * Plans are made without their values, and anew now and then (`planAgeMs`).
 */
export const plansByIndex = {
  plan_cache_mode: "force_generic_plan",
  enable_seqscan: "off",
  enable_hashjoin: "off",
  enable_mergejoin: "off",
  jit: "off"
}
/**
 * How old a kept plan may be. One that was made while a table had nothing in it may walk all of the table, or all of a
 * merchant's rows, for each key: tables that were analyzed while they were empty made a batch of 512 sales take 3 s once
 * there were 20,000. Planning takes the size of that moment into account; all of a connection's plans take a few ms.
 */
const planAgeMs = 60_000
/**
 * PostgreSQL takes a range of keys of two columns for a single row as soon as one merchant has most of the table, and
 * joins two such ranges by reading the one again for each row of the other: that did not end. What is looked up row by row
 * is written with OFFSET 0, as a lateral join or an EXISTS: it is looked up by its index whatever is said here, and no
 * table is read whole for it.
 */
const plansByRange = {
  plan_cache_mode: "force_custom_plan",
  enable_seqscan: "off",
  enable_nestloop: "off",
  // What is summed up is hashed: a range that is taken for a row would be sorted first, in twice the time.
  enable_sort: "off",
  max_parallel_workers_per_gather: "0",
  work_mem: "32MB",
  jit: "off"
}
const surveySettings = {
  application_name: "holdfast survey",
  ...plansByRange,
  default_transaction_isolation: "repeatable read",
  idle_in_transaction_session_timeout: "5000"
}
/** Notifications that nobody has taken yet, and how soon a lost connection for them is opened again. */
const listenBacklogMax = 4_096
const listenAgainMs = 500

const conflicts = new Set(["25P02", "40001", "40P01", "23505", "55P03", "57014", "HF001"])
/** Connection, resources, operator intervention, system errors, a read-only or recovering server. */
const unavailable = /^(08|28|53|57P|58|25P03|25P04|25006|XX)/

const failedWith = (error: SqlError.SqlError): StatementFailed => {
  const cause = error.reason.cause as { readonly code?: unknown; readonly syscall?: unknown } | undefined
  // The socket's own failure: its code may look like a SQLSTATE (EPIPE) but is none.
  const isSocket = cause?.syscall !== undefined
  const sqlState =
    !isSocket && typeof cause?.code === "string" && /^[0-9A-Z]{5}$/.test(cause.code) ? cause.code : undefined
  const disposition =
    sqlState === undefined
      ? isSocket || error.reason._tag === "ConnectionError" || error.reason._tag === "AuthenticationError"
        ? "UNAVAILABLE"
        : "DEFECT"
      : conflicts.has(sqlState)
        ? "CONFLICT"
        : unavailable.test(sqlState)
          ? "UNAVAILABLE"
          : "DEFECT"
  return new StatementFailed({ disposition, sqlState, cause: error.reason.cause ?? error })
}

const statementFailures = Metric.counter("holdfast_statement_failures_total", {
  description: "Statements that PostgreSQL refused or did not answer, by disposition",
  incremental: true
})

interface OpenSession extends Session {
  readonly rows: (
    statement: string,
    parameters: Parameters
  ) => Effect.Effect<ReadonlyArray<object>, StatementFailed>
  readonly alive: () => boolean
}

/**
 * What arrives is read into one buffer again and again, because `PgConnection` copies it at once. A buffer of its own for
 * each read lies outside of V8's heap and has it collected all the time: a quarter of what an audit took.
 */
const connectTo = (databaseUrl: Redacted.Redacted<string>): Socket => {
  const url = new URL(Redacted.value(databaseUrl))
  const host = url.hostname.replace(/^\[|\]$/g, "")
  const socket: Socket = connect({
    host,
    port: Number(url.port || 5432),
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafe(readBufferBytes),
      callback: (size, buffer) => {
        socket.emit("data", buffer.subarray(0, size))
        return true
      }
    }
  })
  return socket
}

/**
 * Opens a connection whose socket is given up when an answer is owed for too long: a frozen server or a connection that
 * went silent would otherwise hold its caller for as long as TCP does.
 */
const openSession = (
  options: PostgresOptions,
  settings: Readonly<Record<string, string>>
): Effect.Effect<OpenSession, StatementFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const patienceMs = Number(settings["statement_timeout"]) + silenceMs
    let socket: Socket | undefined
    let owed = 0
    let broken = false
    const connection = yield* PgConnection.make({
      url: options.url,
      connectTimeout: connectTimeoutMs,
      multiplex: true,
      types,
      applicationName: settings["application_name"] ?? "holdfast",
      startupParameters: { ...settings, timezone: "UTC" },
      stream: () => {
        const opened = connectTo(options.url)
        socket = opened
        opened.on("timeout", () => opened.destroy(new Error("PostgreSQL has not answered in time")))
        opened.on("close", () => {
          broken = true
        })
        return opened
      }
    }).pipe(
      // Whatever the reason (a database that takes no connections is 55000): nothing was asked yet, nothing answered.
      Effect.mapError((error) => {
        const { cause, sqlState } = failedWith(error)
        return new StatementFailed({ disposition: "UNAVAILABLE", sqlState, cause })
      })
    )
    const owe = Effect.sync(() => {
      owed += 1
      if (owed === 1) socket?.setTimeout(patienceMs)
    })
    const settle = Effect.sync(() => {
      owed -= 1
      if (owed === 0) socket?.setTimeout(0)
    })
    // Whose caller gave up may have gone silent: the next caller's own question would start its time anew, for ever.
    const doubt = Effect.sync(() => {
      const doubted = socket
      const read = doubted?.bytesRead
      const look = () => {
        if (doubted?.bytesRead === read) doubted?.destroy(new Error("PostgreSQL has not answered in time"))
      }
      setTimeout(look, patienceMs).unref()
    })
    const answered = <A>(query: Effect.Effect<A, SqlError.SqlError>): Effect.Effect<A, StatementFailed> =>
      Effect.andThen(owe, query).pipe(
        Effect.onInterrupt(() => doubt),
        Effect.ensuring(settle),
        Effect.mapError(failedWith),
        Effect.tapError((failure) =>
          Metric.update(Metric.withAttributes(statementFailures, { disposition: failure.disposition }), 1)
        )
      )
    const keepsPlans = settings["plan_cache_mode"] === plansByIndex.plan_cache_mode
    let plannedAt = performance.now()
    let asked = 0
    /** Sent just before the statement. In a transaction that has failed it is refused, which nobody needs to know. */
    const planAnew = <A>(query: Effect.Effect<A, StatementFailed>): Effect.Effect<A, StatementFailed> =>
      Effect.suspend(() => {
        asked += 1
        const now = performance.now()
        // A power of two: soon after the beginning, when tables grow fastest compared with what they were.
        if (!keepsPlans || ((asked & (asked - 1)) !== 0 && now - plannedAt < planAgeMs)) return query
        plannedAt = now
        const discard = Effect.ignore(answered(connection.queryValues("DISCARD PLANS", [])))
        return Effect.andThen(Effect.forkDetach(discard, { startImmediately: true }), query)
      })
    return {
      run: (statement, parameters) =>
        planAnew(answered(connection.queryValues(statement, parameters))) as Effect.Effect<
          ReadonlyArray<Row>,
          StatementFailed
        >,
      rows: (statement, parameters) =>
        planAnew(answered(Effect.map(connection.query(statement, parameters), ({ rows }) => rows))),
      alive: () => !broken
    }
  })

/** Connects once and goes: what stands in the way, for who asks why nothing answers. */
export const probe = (url: Redacted.Redacted<string>): Effect.Effect<void, StatementFailed> =>
  Effect.scoped(
    Effect.flatMap(
      openSession(
        { url },
        { application_name: "holdfast doctor", statement_timeout: String(connectTimeoutMs) }
      ),
      ({ run }) => Effect.asVoid(run("SELECT 1", []))
    )
  )

/** Nothing is ever asked of this connection, so that only keep-alive probes can find it dead. */
const listening = Effect.fnUntraced(function* (options: PostgresOptions, channel: string) {
  const payloads = yield* Queue.sliding<string>(listenBacklogMax)
  const untilLost = Effect.gen(function* () {
    const opened: { socket?: Socket } = {}
    const connection = yield* PgConnection.make({
      url: options.url,
      connectTimeout: connectTimeoutMs,
      applicationName: `holdfast listener of ${channel}`,
      stream: () => {
        opened.socket = connectTo(options.url)
        return opened.socket.setKeepAlive(true, keepAliveMs)
      }
    })
    const notifications = yield* connection.listen(channel)
    // Closing would ask the server to stop notifying first, and wait for a frozen one for ever.
    yield* Effect.addFinalizer(() => Effect.sync(() => opened.socket?.destroy()))
    yield* Queue.offer(payloads, "")
    for (;;) yield* Queue.offer(payloads, (yield* Queue.take(notifications)).payload)
  })
  yield* Effect.scoped(untilLost).pipe(
    Effect.catchCause((cause) => Effect.logDebug(`No longer listening to ${channel}`, cause)),
    Effect.andThen(Effect.sleep(listenAgainMs)),
    Effect.forever,
    Effect.forkScoped
  )
  return Queue.asDequeue(payloads)
})

const pooled = (acquire: ReturnType<typeof openSession>, size: number) =>
  Pool.makeWithTTL({ acquire, min: 0, max: size, timeToLive: "60 seconds" })

/** A session in which row-level security guards what is read, wherever that is set up. */
const openReader = (options: PostgresOptions, settings: Readonly<Record<string, string>>) =>
  Effect.tap(openSession(options, settings), ({ run }) =>
    Effect.mapError(
      run(takeOnReaderRole, []),
      // Nothing was asked yet, as when no connection can be opened.
      ({ cause, sqlState }) => new StatementFailed({ disposition: "UNAVAILABLE", sqlState, cause })
    )
  )

type SessionPool = Pool.Pool<OpenSession, StatementFailed>

/** Runs on a pooled session; one whose connection broke is thrown away, and the use is tried once more on a new one. */
const using = <A>(
  pool: SessionPool,
  use: (session: OpenSession) => Effect.Effect<A, StatementFailed>
): Effect.Effect<A, DatabaseUnavailable> => {
  const once = Effect.scoped(
    Effect.flatMap(Pool.get(pool), (session) =>
      session.alive()
        ? Effect.tapError(use(session), () =>
            session.alive() ? Effect.void : Pool.invalidate(pool, session)
          )
        : Effect.andThen(
            Pool.invalidate(pool, session),
            Effect.fail(
              new StatementFailed({ disposition: "UNAVAILABLE", sqlState: undefined, cause: "stale" })
            )
          )
    )
  )
  return once.pipe(
    // A read is harmless to repeat: connections that died in the pool are not the caller's concern.
    Effect.retry({ times: size(pool), while: (failure) => failure.disposition === "UNAVAILABLE" }),
    Effect.catch(unavailableOrDefect)
  )
}
const unavailableOrDefect = (failure: StatementFailed): Effect.Effect<never, DatabaseUnavailable> =>
  failure.disposition === "DEFECT"
    ? Effect.die(failure) // broken SQL or rows that do not decode: our own bug
    : Effect.fail(new DatabaseUnavailable({ retryAfterSeconds }))
/** Rows of one statement, on any of the pool's connections. */
const asking =
  (pool: SessionPool): Db["Service"]["maintain"] =>
  (statement, parameters) =>
    using(pool, (session) =>
      Effect.map(session.rows(statement, parameters), (rows) => rows as ReadonlyArray<never>)
    )
const size = (pool: SessionPool): number => pool.config.maxSize + 1

export const layer = (options: PostgresOptions): Layer.Layer<Db> =>
  Layer.effect(
    Db,
    Effect.gen(function* () {
      const readers = yield* pooled(
        openReader(options, {
          application_name: "holdfast reader",
          ...plansByIndex,
          statement_timeout: String(readerStatementTimeoutMs),
          idle_in_transaction_session_timeout: "5000"
        }),
        readerConnections
      )
      const maintainers = yield* pooled(
        openSession(options, {
          application_name: "holdfast maintenance",
          statement_timeout: String(maintenanceStatementTimeoutMs),
          idle_in_transaction_session_timeout: "5000"
        }),
        maintenanceConnections
      )
      const surveyors = yield* pooled(
        openSession(options, {
          ...surveySettings,
          default_transaction_read_only: "on",
          statement_timeout: String(maintenanceStatementTimeoutMs)
        }),
        surveyConnections
      )
      return Db.of({
        session: openSession(options, {
          application_name: "holdfast kernel",
          ...plansByIndex,
          statement_timeout: String(kernelStatementTimeoutMs),
          idle_in_transaction_session_timeout: String(options.idleInTransactionMs ?? 300)
        }),
        listen: (channel) => listening(options, channel),
        read: (merchantId, statement, parameters) =>
          using(readers, (session) =>
            Effect.map(
              Effect.all(
                [
                  session.run("SELECT set_config('holdfast.merchant_id', $1, false)", [
                    parameter("text", merchantId)
                  ]),
                  session.rows(statement, parameters)
                ],
                { concurrency: "unbounded" }
              ),
              ([, rows]) => rows as ReadonlyArray<never>
            )
          ).pipe(
            // Nobody waits out a pool or a server that froze: who reads is told to ask again.
            Effect.timeoutOrElse({
              duration: options.readTimeoutMs ?? readTimeoutMs,
              orElse: () => Effect.fail(new DatabaseUnavailable({ retryAfterSeconds }))
            })
          ),
        maintain: asking(maintainers),
        survey: asking(surveyors),
        surveySession: openSession(options, {
          ...surveySettings,
          statement_timeout: String(surveySessionTimeoutMs)
        }).pipe(
          Effect.map(
            ({ rows }): Survey =>
              (statement, parameters) =>
                rows(statement, parameters).pipe(
                  Effect.map((all) => all as ReadonlyArray<never>),
                  Effect.catch(unavailableOrDefect)
                )
          ),
          Effect.catch(unavailableOrDefect)
        )
      })
    })
  )
