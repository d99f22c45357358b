import { Effect, Layer, Option, Schedule } from "effect"
import { isFailing } from "../http/contract/Problem.ts"
import * as Configuration from "../layers/Configuration.ts"
import { migrate } from "../layers/Migrations.ts"
import { StockLedger } from "../services/kernel/StockLedger.ts"
import { Partitions } from "../services/Partitions.ts"
import { StockFiles } from "../services/stock/StockFiles.ts"
import { commandDatabase } from "./database.ts"
import { merchantOf } from "./options.ts"
import { foundation } from "./service.ts"

/** The frame of `holdfast import` and `holdfast export`: a merchant's items and stocks as a file, and back. */

/** Deadline of one chunk, and the time for which a database that does not answer is retried. */
export const chunkDeadlineMs = 60_000
const patienceMs = 60_000
/** One chunk is decided as a whole, on a machine that may be busy. The kernel's default is for single calls. */
const idleInTransactionMs = 10_000

export const withFiles = <A, E>(
  given: Option.Option<string>,
  use: (files: StockFiles["Service"], merchantId: string) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const settings = yield* Configuration.load
    const merchantId = yield* merchantOf(given, settings)
    const url = yield* commandDatabase(settings)
    // An embedded database may be of an earlier version, and no service runs that would migrate it.
    if (Option.isNone(settings.databaseUrl)) yield* migrate(url)
    const patient = {
      ...settings,
      idleInTransactionMs: Math.max(settings.idleInTransactionMs, idleInTransactionMs),
      requestTimeoutMs: Math.max(settings.requestTimeoutMs, chunkDeadlineMs)
    }
    return yield* Effect.provide(
      Effect.flatMap(StockFiles, (files) => use(files, merchantId)),
      StockFiles.layer.pipe(
        Layer.provide(StockLedger.layer),
        Layer.provide(Partitions.layer),
        Layer.provide(foundation(patient, url))
      )
    )
  }).pipe(Effect.scoped)

/** Retries during an outage: repeating is harmless, because an operation that was done answers as before. */
export const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, {
    schedule: Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: patienceMs })),
    while: (failure) => isFailing(failure) && passing.has(failure._tag)
  })
const passing = new Set<string>(["DatabaseUnavailable", "OperationTimedOut", "Overloaded"])
