import { PgConnection } from "@effect/sql-pg"
import { Clock, Context, Effect, Fiber, Layer, type Redacted, type Result, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Postgres from "../../src/layers/Postgres.ts"
import type { Caller } from "../../src/schema/Caller.ts"
import { Availability } from "../../src/services/stock/Availability.ts"
import { Catalog } from "../../src/services/stock/Catalog.ts"
import { Db } from "../../src/services/Db.ts"
import { Discrepancies } from "../../src/services/stock/Discrepancies.ts"
import { Movements } from "../../src/services/stock/Movements.ts"
import { Orders } from "../../src/services/orders/Orders.ts"
import { Partitions } from "../../src/services/Partitions.ts"
import { Reservations } from "../../src/services/stock/Reservations.ts"
import { StockLedger } from "../../src/services/kernel/StockLedger.ts"
import { Stocks } from "../../src/services/stock/Stocks.ts"
import { types } from "../../src/services/PostgresTypes.ts"
import { freshDatabase } from "./Postgres.ts"

/** The services over a real PostgreSQL, under the TestClock: what the service tests stand on. */

/** When tests begin: in the middle of a month of 2026, so that partitions are those of one month. */
export const dawn = Date.UTC(2026, 4, 11, 8)

export type Services =
  | Availability
  | Catalog
  | Discrepancies
  | Movements
  | Orders
  | Partitions
  | Reservations
  | StockLedger
  | Stocks

export const services: Layer.Layer<Services, never, Db> = Layer.mergeAll(
  Availability.layer,
  Catalog.layer,
  Discrepancies.layer,
  Movements.layer,
  Orders.layer,
  Reservations.layer,
  Stocks.layer
).pipe(Layer.provideMerge(StockLedger.layer), Layer.provideMerge(Partitions.layer))

/** One process' worth of services on a database. Building it twice is what two replicas are. */
export const replica = (
  url: Redacted.Redacted<string>
): Effect.Effect<Context.Context<Services | Db>, never, Scope.Scope> =>
  Layer.build(services.pipe(Layer.provideMerge(Postgres.layer({ url, idleInTransactionMs: 10_000 }))))

/** A database of its own with the services on it, from a time on. */
export const ledgerFrom = Effect.fnUntraced(function* (time: number) {
  const { url } = yield* freshDatabase
  yield* TestClock.setTime(time)
  const context = yield* replica(url)
  return { url, context, sql: yield* connect(url), ...shopOf(context) }
})

export const ledger = ledgerFrom(dawn)

export interface Sql {
  /** A statement, or several without parameters; the rows of the last one. `int8` as numbers, times as epoch ms. */
  readonly run: <R = Record<string, unknown>>(
    statement: string,
    parameters?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<R>>
  /** The SQLSTATE with which a statement is refused, or undefined. */
  readonly refusal: (statement: string) => Effect.Effect<string | undefined>
}

/** A connection behind the kernel's back. */
export const connect = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const connection = yield* Effect.orDie(
    PgConnection.make({
      url,
      types,
      applicationName: "holdfast test",
      startupParameters: { timezone: "UTC" }
    })
  )
  const sql: Sql = {
    run: (statement, parameters) =>
      Effect.map(Effect.orDie(connection.query(statement, parameters)), ({ rows }) => rows as never),
    refusal: (statement) =>
      Effect.match(connection.query(statement), {
        onFailure: ({ reason }) =>
          (reason.cause as { readonly code?: string } | undefined)?.code ?? reason._tag,
        onSuccess: () => undefined
      })
  }
  return sql
})

const merchant = "acme"
/** More than any test advances the clock by while something is in flight. */
export const patienceMs = 60_000

let requests = 0

/** A request of one merchant, made now. */
export const caller = (change: Partial<Caller> = {}): Effect.Effect<Caller> =>
  Effect.map(Clock.currentTimeMillis, (now) => ({
    merchantId: merchant,
    actor: "tester",
    requestId: `request-${++requests}`,
    deadline: now + patienceMs,
    ...change
  }))

type ReserveOptions = {
  readonly expiresInSeconds?: number
  readonly kind?: "ORDER" | "VARIANT"
  readonly locationId?: string
}

/** What tests do most, in one line each. Everything is of one merchant unless the caller says otherwise. */
export const shopOf = (context: Context.Context<Services>) => {
  const reservations = Context.get(context, Reservations)
  const catalog = Context.get(context, Catalog)
  const movements = Context.get(context, Movements)
  const availability = Context.get(context, Availability)
  const discrepancies = Context.get(context, Discrepancies)
  const orders = Context.get(context, Orders)
  const stocks = Context.get(context, Stocks)
  const adjust = Effect.fnUntraced(function* (
    command: Parameters<Movements["Service"]["adjust"]>[1],
    change?: Partial<Caller>
  ) {
    return (yield* movements.adjust(yield* caller(change), command)).answer
  })
  return {
    reservations,
    catalog,
    movements,
    availability,
    discrepancies,
    orders,
    stocks,
    adjust,
    item: Effect.fnUntraced(function* (
      variantId: string,
      attributes: Partial<Parameters<Catalog["Service"]["ensureItem"]>[1]> = {},
      change?: Partial<Caller>
    ) {
      return (yield* catalog.ensureItem(yield* caller(change), {
        productVariantId: variantId,
        kind: "PRODUCT",
        ...attributes
      })).answer.item
    }),
    location: Effect.fnUntraced(function* (locationId: string, change?: Partial<Caller>) {
      return (yield* catalog.ensureLocation(yield* caller(change), { locationId })).answer
    }),
    receive: (
      variantId: string,
      quantity: number,
      where: {
        readonly locationId?: string
        readonly lotNumber?: string
        readonly lotExpiresAt?: number
        readonly reference?: string
      } = {},
      change?: Partial<Caller>
    ) => adjust({ changeType: "RECEIPT", item: { variantId }, quantity, ...where }, change),
    /** The items are `[variant, quantity]`. */
    reserve: Effect.fnUntraced(function* (
      orderId: string,
      items: ReadonlyArray<readonly [string, number]>,
      options: ReserveOptions = {},
      change?: Partial<Caller>
    ) {
      return yield* reservations.reserve(yield* caller(change), {
        orderId,
        kind: "ORDER",
        expiresInSeconds: 1800,
        lines: items.map(([variantId, quantity]) => ({ item: { variantId }, quantity })),
        ...options
      })
    }),
    confirm: Effect.fnUntraced(function* (orderId: string, change?: Partial<Caller>) {
      return (yield* reservations.confirm(yield* caller(change), { orderId })).answer
    }),
    release: Effect.fnUntraced(function* (orderId: string, change?: Partial<Caller>) {
      return (yield* reservations.release(yield* caller(change), { orderId, reason: "RELEASED" })).answer
    }),
    extend: Effect.fnUntraced(function* (
      orderId: string,
      expiresInSeconds: number,
      change?: Partial<Caller>
    ) {
      return (yield* reservations.extend(yield* caller(change), { orderId, expiresInSeconds })).answer
    }),
    available: (variantId: string, merchantId = merchant) =>
      Effect.map(availability.ofVariant(merchantId, variantId), (item) => item.availableQuantity)
  }
}

/**
 * Asks until it is so. Nothing waits for a length of time: what is asked for will come true, or the test times out. The
 * pause between is by the machine's clock, whatever the test's clock says, and leaves the processor to what is waited for.
 */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.asVoid(
    Effect.repeat(
      Effect.tap(condition, (holds) => (holds ? Effect.void : pause)),
      { until: (holds) => holds }
    )
  )

const pause = Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, pauseMs)))
const pauseMs = 2

/** How many connections to this database wait for a lock. */
const waiters = (sql: Sql) =>
  Effect.map(
    sql.run<{ count: number }>(
      `SELECT count(*) AS count FROM pg_stat_activity
       WHERE datname = current_database() AND wait_event_type = 'Lock'`
    ),
    ([row]) => row!.count
  )

export const untilWaiting = (sql: Sql, count: number) =>
  until(Effect.map(waiters(sql), (waiting) => waiting >= count))

/** Locks an item's row behind the kernel's back; whoever needs it waits until `release`. */
export const lockItem = Effect.fnUntraced(function* (url: Redacted.Redacted<string>, variantId: string) {
  const other = yield* connect(url)
  yield* other.run("BEGIN")
  yield* other.run("SELECT 1 FROM item WHERE product_variant_id = $1 FOR UPDATE", [variantId])
  return { release: Effect.asVoid(other.run("ROLLBACK")) }
})

/**
 * Runs requests in one batch: both lanes are held up over an item of their own until all requests wait in the queue, in
 * the order given.
 */
export const inOneBatch = Effect.fnUntraced(function* <A, E>(
  { item, receive, sql, url }: Effect.Success<typeof ledger>,
  requests: ReadonlyArray<Effect.Effect<A, E>>
) {
  yield* item("plug")
  const lock = yield* lockItem(url, "plug")
  const plugs: Array<Fiber.Fiber<unknown, unknown>> = []
  for (const lane of [1, 2]) {
    plugs.push(yield* Effect.forkChild(receive("plug", lane), { startImmediately: true }))
    yield* untilWaiting(sql, lane)
  }
  const asked: Array<Fiber.Fiber<Result.Result<A, E>>> = []
  for (const request of requests) {
    asked.push(yield* Effect.forkChild(Effect.result(request), { startImmediately: true }))
  }
  yield* lock.release
  const results = yield* Effect.forEach(asked, Fiber.join)
  yield* Effect.forEach(plugs, Fiber.join)
  return results
})
