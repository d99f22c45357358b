import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { running } from "../../src/layers/EmbeddedPostgres.ts"
import { assertInvariants } from "../support/invariants.ts"
import { connect } from "../support/ledger.ts"
import { removeFolder } from "../support/Postgres.ts"
import { eventually, merchantAt, run, startService } from "../support/service.ts"

/** `holdfast backup` of a service that works, and what a service finds that is started over it. */

/** Several processes and two databases, where other tests run as well. */
const timeout = 240_000

/** A folder that is not there yet, and goes with the test. */
const folder = Effect.acquireRelease(
  Effect.promise(async () => {
    const parent = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-backup-"))
    // Run as root, PostgreSQL has another account, which must get in.
    await fs.chmod(parent, 0o755)
    return path.join(parent, "data")
  }),
  (data) =>
    Effect.promise(async () => {
      await removeFolder(data)
      await fs.rm(path.dirname(data), { recursive: true, force: true })
    })
)

const command = Effect.fnUntraced(function* (dataDir: string, ...parameters: ReadonlyArray<string>) {
  const program = yield* run({ HOLDFAST_DATA_DIR: dataDir }, parameters)
  const { code } = yield* program.ended
  return { code, stdout: program.stdout(), stderr: program.stderr() }
})

const databaseOf = (dataDir: string) =>
  Effect.flatMap(Effect.orDie(running(dataDir)), (url) =>
    url === undefined ? Effect.die(new Error("no server runs")) : Effect.succeed(url)
  )

describe("a backup of the embedded database", { timeout }, () => {
  it.live(
    "taken under load has all that was acknowledged before it, keeps the books, and goes on telling",
    () =>
      Effect.gen(function* () {
        const original = yield* folder
        const copy = yield* folder
        // Nobody publishes here: all events wait, and the copy must tell every one of them.
        const service = yield* startService(undefined, {
          HOLDFAST_DATA_DIR: original,
          ROLES: "inventory-api,sweeper"
        })
        const { item, merchantId, receive, reserve } = yield* merchantAt(service)
        for (const cup of ["a", "b", "c"]) {
          yield* item(cup)
          yield* receive(cup, 1_000_000)
        }
        let orders = 0
        let acknowledged = 0
        const buyer = Effect.forever(
          Effect.suspend(() => reserve(`order-${(orders += 1)}`, [[["a", "b", "c"][orders % 3]!, 1]])).pipe(
            Effect.tap(({ status, text }) =>
              Effect.sync(() => (assert.strictEqual(status, 201, text), (acknowledged += 1)))
            )
          )
        )
        const buyers = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 16 }), () => buyer, { concurrency: "unbounded" })
        )
        const done = Effect.sync(() => acknowledged)
        yield* eventually(done, (count) => count >= 200)

        const before = acknowledged
        const made = yield* command(original, "backup", copy)
        assert.strictEqual(made.code, 0, made.stderr)
        assert.match(made.stdout, /^\d+\.\d MiB in .*HOLDFAST_DATA_DIR=/)
        const meanwhile = acknowledged
        assert.isAbove(meanwhile, before, "reserving went on while the backup was taken")
        yield* eventually(done, (count) => count >= meanwhile + 50)
        yield* Fiber.interrupt(buyers)
        yield* service.kill("SIGKILL")
        yield* service.ended

        const restored = yield* startService(undefined, { HOLDFAST_DATA_DIR: copy })
        const url = yield* databaseOf(copy)
        const sql = yield* connect(url)
        const count = (statement: string) =>
          Effect.map(sql.run<{ count: number }>(statement), ([row]) => row!.count)
        const reservations = yield* count("SELECT count(*) AS count FROM reservation")
        assert.isAtLeast(reservations, before)
        assert.isAtMost(reservations, orders)
        yield* assertInvariants(url)

        // It works as the original did, and tells all that the original had not told, in order and at least once.
        const here = yield* merchantAt(restored, merchantId)
        assert.strictEqual((yield* here.reserve("afterwards", [["a", 1]])).status, 201)
        yield* eventually(
          count("SELECT count(*) AS count FROM outbox WHERE sent_at IS NULL"),
          (waiting) => waiting === 0
        )
        const untold = yield* sql.run(
          `SELECT e.event ->> 'id' AS id
         FROM outbox o CROSS JOIN LATERAL jsonb_array_elements(o.events::jsonb) AS e (event)
         EXCEPT
         SELECT m.headers::jsonb ->> 'ce_id' FROM broker_message m`
        )
        assert.deepStrictEqual(untold, [])
        const disordered = yield* sql.run(
          `SELECT *
         FROM (
           SELECT d.data ->> 'itemId' AS item, (d.data ->> 'sequence')::bigint AS sequence,
                  lag((d.data ->> 'sequence')::bigint)
                    OVER (PARTITION BY m.partition_id, d.data ->> 'itemId' ORDER BY m.message_offset) AS before
           FROM broker_message m
           CROSS JOIN LATERAL (SELECT convert_from(m.value, 'UTF8')::jsonb -> 'data' AS data) d
           WHERE d.data ? 'sequence'
         ) told
         WHERE sequence < before`
        )
        assert.deepStrictEqual(disordered, [])
        yield* assertInvariants(url)
        const audited = yield* command(copy, "audit", "--json")
        assert.strictEqual(audited.code, 0, `${audited.stdout}${audited.stderr}`)
        yield* restored.kill("SIGTERM")
        assert.deepStrictEqual(yield* restored.ended, { code: 0, signal: null })
      })
  )

  it.live("can be taken while no service runs, and is refused where something is already", () =>
    Effect.gen(function* () {
      const original = yield* folder
      const copy = yield* folder
      assert.strictEqual((yield* command(original, "migrate")).code, 0)
      assert.strictEqual((yield* command(original, "backup", copy)).code, 0)
      const again = yield* command(original, "backup", copy)
      assert.strictEqual(again.code, 1)
      assert.match(again.stderr, /is there already: name a folder that is not/)
      const doctor = yield* command(copy, "doctor", "--json")
      assert.strictEqual(doctor.code, 0, doctor.stdout)
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(path.dirname(copy))), ["data"])
    })
  )
})
