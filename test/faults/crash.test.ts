import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, type Scope } from "effect"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import path from "node:path"
import { start } from "../../src/layers/EmbeddedPostgres.ts"
import { migrate } from "../../src/layers/Migrations.ts"
import { assertInvariants } from "../support/invariants.ts"
import { type Sql, connect } from "../support/ledger.ts"
import { freshDatabase, removeFolder } from "../support/Postgres.ts"
import { type Answer, type RunningService, eventually, merchantAt, startService } from "../support/service.ts"

/** kill -9 under load: what was acknowledged is there, nothing is there by half, and the service is healthy again. */

const testBoundMs = 120_000
const connections = 32

interface Load {
  /** Orders whose reservation was answered with 201, with its id. */
  readonly acknowledged: Map<string, string>
  /** Orders that were asked for, whatever came of it. */
  readonly asked: Set<string>
  readonly stop: () => void
  readonly ended: Effect.Effect<void>
}

/** Reserves without end, over many connections, and remembers what was acknowledged. What fails is not tried again. */
const load = Effect.fnUntraced(function* (service: RunningService) {
  const shop = yield* merchantAt(service, "acme")
  const acknowledged = new Map<string, string>()
  const asked = new Set<string>()
  const state = { running: true }
  const worker = (number: number) =>
    Effect.gen(function* () {
      for (let index = 0; state.running; index++) {
        const order = `order-${number}-${index}`
        asked.add(order)
        const exit: Exit.Exit<Answer> = yield* Effect.exit(
          shop.reserve(order, [
            ["cup", 1],
            ["saucer", 1]
          ])
        )
        if (Exit.isSuccess(exit) && exit.value.status === 201) {
          acknowledged.set(order, (exit.value.body as { data: { reservationId: string } }).data.reservationId)
        } else {
          // The connection is gone, or the database: not to turn in circles until the test says what happens next.
          yield* Effect.sleep("5 millis")
        }
      }
    })
  const workers = yield* Effect.forEach(
    Array.from({ length: connections }, (_, number) => number),
    (number) => Effect.forkChild(worker(number), { startImmediately: true })
  )
  const result: Load = {
    acknowledged,
    asked,
    stop: () => {
      state.running = false
    },
    ended: Effect.asVoid(Effect.forEach(workers, Fiber.join, { concurrency: "unbounded" }))
  }
  return result
})

const stocked = Effect.fnUntraced(function* (service: RunningService) {
  const shop = yield* merchantAt(service, "acme")
  for (const variant of ["cup", "saucer"]) {
    yield* shop.item(variant)
    yield* shop.receive(variant, 1_000_000)
  }
})

const untilAcknowledged = ({ acknowledged }: Load, count: number) =>
  eventually(
    Effect.sync(() => acknowledged.size),
    (size) => size >= count
  )

const assertAcknowledgedIsThere = Effect.fnUntraced(function* (sql: Sql, { acknowledged, asked }: Load) {
  const rows = yield* sql.run<{ order_id: string; reservation_id: string }>(
    "SELECT order_id, reservation_id::text FROM reservation"
  )
  const there = new Map(rows.map((row) => [row.order_id, row.reservation_id]))
  for (const [order, reservation] of acknowledged) assert.strictEqual(there.get(order), reservation, order)
  for (const order of there.keys()) assert.isTrue(asked.has(order), order)
})

const healthy = (service: RunningService) =>
  eventually(service.call("GET", "/health/ready"), ({ status }) => status === 200)

describe("kill -9 under load", () => {
  it.live(
    "of the service loses nothing that was acknowledged",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const sql = yield* connect(url)
        const before = yield* startService(Redacted.value(url))
        yield* stocked(before)
        const work = yield* load(before)
        yield* untilAcknowledged(work, 300)
        yield* before.kill("SIGKILL")
        yield* before.ended
        work.stop()
        yield* work.ended
        const after = yield* startService(Redacted.value(url))
        yield* healthy(after)
        yield* assertAcknowledgedIsThere(sql, work)
        yield* assertInvariants(url)
        // Asking again tells which of the unanswered ones happened, or makes them happen.
        const shop = yield* merchantAt(after, "acme")
        const unanswered = [...work.asked]
          .filter((order) => !work.acknowledged.has(order))
          .slice(-2 * connections)
        const answers = yield* Effect.forEach(
          unanswered,
          (order) =>
            shop.reserve(order, [
              ["cup", 1],
              ["saucer", 1]
            ]),
          { concurrency: connections }
        )
        for (const answer of answers) assert.include([200, 201], answer.status, answer.text)
        yield* assertInvariants(url)
      }),
    testBoundMs
  )

  it.live(
    "of PostgreSQL loses nothing that was acknowledged, and the service finds it again by itself",
    () =>
      Effect.gen(function* () {
        const dataDir = yield* folder
        const postgres = yield* start({
          dataDir,
          settings: { fsync: "off", log_statement: "none" },
          diesWithService: true
        })
        yield* migrate(postgres.url)
        const service = yield* startService(Redacted.value(postgres.url), { REQUEST_TIMEOUT_MS: "2500" })
        yield* stocked(service)
        const work = yield* load(service)
        yield* untilAcknowledged(work, 300)
        const postmaster = Number(
          (yield* Effect.promise(() =>
            fs.readFile(path.join(postgres.dataDirectory, "postmaster.pid"), "utf8")
          )).split("\n")[0]
        )
        process.kill(postmaster, "SIGKILL")
        const before = work.acknowledged.size
        yield* untilAcknowledged(work, before + 300)
        work.stop()
        yield* work.ended
        yield* healthy(service)
        const sql = yield* connect(postgres.url)
        yield* assertAcknowledgedIsThere(sql, work)
        yield* assertInvariants(postgres.url)
      }),
    testBoundMs
  )
})

const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(async () => {
    const name = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-crash-"))
    await fs.chmod(name, 0o755)
    return name
  }),
  (name) => Effect.promise(() => removeFolder(name))
)
