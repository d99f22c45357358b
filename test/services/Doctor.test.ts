import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { start } from "../../src/layers/EmbeddedPostgres.ts"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { Broker } from "../../src/services/messaging/Broker.ts"
import { ConsumerGroups } from "../../src/services/messaging/ConsumerGroups.ts"
import type { Access } from "../../src/services/DatabaseAccess.ts"
import {
  Doctor,
  type Finding,
  type Limits,
  type ServerRow,
  accessFindings,
  serverFindings
} from "../../src/services/Doctor.ts"
import { Partitions } from "../../src/services/Partitions.ts"
import { parameter } from "../../src/services/PostgresTypes.ts"
import { readerRole } from "../../src/services/ReaderRole.ts"
import { type Sql, connect } from "../support/ledger.ts"
import { freshDatabase, removeFolder } from "../support/Postgres.ts"

/** Each finding has a cause that is made here, in a real database, and is gone when the cause is. */

const none = Number.POSITIVE_INFINITY
/** No age is worth mentioning, but for those that a test asks about. */
const unhurried: Limits = {
  clockOffset: [none, none],
  snapshot: [none, none],
  unsent: [none, none],
  overdue: [none, none],
  pinned: [none, none]
}

const practice = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const sql = yield* connect(url)
  const context = yield* Layer.build(
    Doctor.layer.pipe(
      Layer.provideMerge(Layer.mergeAll(PostgresBroker.layer(), ConsumerGroups.layer, Partitions.layer)),
      Layer.provide(Postgres.layer({ url }))
    )
  )
  const { examine } = Context.get(context, Doctor)
  yield* Context.get(context, Partitions).prepare
  return { context, examine, sql, url }
})

const about = (findings: ReadonlyArray<Finding>, check: string, level: Finding["level"] = "WRONG") =>
  findings.filter((finding) => finding.check === check && finding.level === level)

const assertMended = (finding: Finding | undefined, found: RegExp, mend: RegExp) => {
  assert.isDefined(finding)
  assert.match(finding.found, found)
  assert.match(finding.mend ?? "", mend)
}

describe("the doctor", { timeout: 60_000 }, () => {
  it.live("finds nothing wrong with a new database", () =>
    Effect.gen(function* () {
      const { examine } = yield* practice
      const findings = yield* examine({ snapshot: [none, none] })
      assert.deepStrictEqual(
        findings.filter(({ level }) => level !== "OK"),
        []
      )
      assert.deepStrictEqual(
        [...new Set(findings.map(({ check }) => check))],
        ["clock", "tenancy", "snapshots", "partitions", "outbox", "expiry", "broker"]
      )
    })
  )

  it.live("finds that the machine's clock is not the database's", () =>
    Effect.gen(function* () {
      const { examine } = yield* practice
      const host = yield* Clock.Clock
      const offBy = (offset: number) => {
        const now = () => host.currentTimeMillisUnsafe() + offset
        return Effect.provideService(examine({ snapshot: [none, none] }), Clock.Clock, {
          currentTimeMillisUnsafe: now,
          currentTimeMillis: Effect.sync(now),
          currentTimeNanosUnsafe: () => host.currentTimeNanosUnsafe(),
          currentTimeNanos: host.currentTimeNanos,
          monotonicTimeNanosUnsafe: () => host.monotonicTimeNanosUnsafe(),
          monotonicTimeNanos: host.monotonicTimeNanos,
          sleep: (duration) => host.sleep(duration)
        })
      }
      const [behind] = about(yield* offBy(-90_000), "clock")
      assertMended(behind, /^this machine's clock is (89|90)\.\d s behind the database's$/, /NTP/)
      const [ahead] = about(yield* offBy(5_000), "clock", "WARNING")
      assertMended(ahead, /^this machine's clock is [45]\.\d s ahead of the database's$/, /NTP/)
    })
  )

  it.live("finds events that nobody sends, and those that the broker refused", () =>
    Effect.gen(function* () {
      const { examine, sql } = yield* practice
      yield* sql.run(`INSERT INTO outbox (bucket, recorded_at, events, event_count)
        VALUES (0, clock_timestamp() - interval '1 second', '[]', 3)`)
      const [unsent] = about(yield* examine({ ...unhurried, unsent: [0, 0] }), "outbox")
      assertMended(unsent, /^3 events wait to be sent, the oldest for \d+ s$/, /event-dispatcher/)
      yield* sql.run("UPDATE outbox SET sent_at = clock_timestamp()")
      assert.deepStrictEqual(about(yield* examine({ ...unhurried, unsent: [0, 0] }), "outbox"), [])

      yield* sql.run(`INSERT INTO outbox_failure (merchant_id, event_id, state, topic, bucket, position, ordinal,
          event_key, event, error, recorded_at)
        SELECT 'acme', 'e' || n, (ARRAY['FAILED', 'HELD', 'HELD', 'WAITING'])[n], 'inventory.events', 0, n, 1, 'k', '{}',
               'TOO_LARGE', now()
        FROM generate_series(1, 4) AS n`)
      const findings = yield* examine(unhurried)
      const [failed] = about(findings, "outbox")
      assertMended(failed, /refused 1 events for good, and 2 wait/, /holdfast outbox requeue/)
      const [waiting] = about(findings, "outbox", "WARNING")
      assertMended(waiting, /^1 events wait .*: inventory.events$/, /holdfast topics create/)
    })
  )

  it.live("finds reservations that nobody expires", () =>
    Effect.gen(function* () {
      const { examine, sql } = yield* practice
      yield* sql.run(`INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, status, request, expires_at,
          created_at, updated_at)
        VALUES ('acme', gen_random_uuid(), 'o', 'ORDER', 'PENDING', '[]', now() - interval '1 hour', now(), now())`)
      const [overdue] = about(yield* examine({ ...unhurried, overdue: [60, 600] }), "expiry")
      assertMended(overdue, /^1 reservations are past their expiry, the oldest for 60 min$/, /sweeper/)
    })
  )

  it.live("finds who may see what is another merchant's", () =>
    Effect.gen(function* () {
      const { examine, sql } = yield* practice
      const tenancy = Effect.map(examine(unhurried), (findings) => about(findings, "tenancy"))
      yield* sql.run("ALTER TABLE stock DISABLE ROW LEVEL SECURITY")
      assertMended((yield* tenancy)[0], /no row-level security on stock$/, /ENABLE ROW LEVEL SECURITY/)
      yield* sql.run("ALTER TABLE stock ENABLE ROW LEVEL SECURITY")
      yield* sql.run("DROP POLICY one_merchant ON item")
      assertMended((yield* tenancy)[0], /no row-level security on item$/, /one_merchant/)
      const [{ reader }] = (yield* sql.run<{ reader: string }>(`SELECT ${readerRole}::text AS reader`)) as [
        { readonly reader: string }
      ]
      yield* sql.run(`REVOKE SELECT ON item FROM ${reader}`)
      yield* sql.run(`REVOKE SELECT ON location FROM ${reader}`)
      assertMended(
        (yield* tenancy)[0],
        /holdfast_reader_\w+ may not read location$/,
        /^holdfast migrate grants it$/
      )
      yield* sql.run(`REVOKE ALL ON ALL TABLES IN SCHEMA public FROM ${reader}`)
      assertMended(
        about(yield* examine(unhurried), "tenancy", "WARNING")[0],
        /^reads run without row-level security, since the role holdfast_reader_\w+ was not granted/,
        /^holdfast migrate makes the role/
      )
    })
  )

  it.live("finds partitions that are missing", () =>
    Effect.gen(function* () {
      const { context, examine, sql } = yield* practice
      const [next] = yield* sql.run<{ name: string }>(
        "SELECT 'outbox_' || to_char(now() + interval '2 months', 'YYYYMM') AS name"
      )
      yield* sql.run(`DROP TABLE ${next!.name}`)
      const [missing] = about(yield* examine(unhurried), "partitions", "WARNING")
      assertMended(missing, new RegExp(`missing: ${next!.name}$`), /sweeper/)
      assert.strictEqual(yield* Context.get(context, Partitions).prepare, 1)
      assert.deepStrictEqual(about(yield* examine(unhurried), "partitions", "WARNING"), [])
    })
  )

  it.live("finds the transaction that holds back clean-up, and whose it is", () =>
    Effect.gen(function* () {
      const { examine, url } = yield* practice
      const other = yield* connect(url)
      yield* other.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
      const [own] = yield* other.run<{ pid: number }>(
        "SELECT pg_backend_pid() AS pid FROM stock RIGHT JOIN (SELECT 1) ON true"
      )
      // Other tests use the same server: whichever is the oldest there is named with its process.
      const [found] = about(yield* examine({ ...unhurried, snapshot: [0, 0] }), "snapshots")
      assertMended(
        found,
        /the oldest transaction is open for \d+ s: .*, process \d+, /,
        /pg_terminate_backend\(\d+\)/
      )
      assert.isAbove(own!.pid, 0)
      yield* other.run("ROLLBACK")
    })
  )

  it.live("finds a replication slot that nobody reads", () =>
    Effect.gen(function* () {
      const { examine, sql } = yield* practice
      const name = `holdfast_test_${randomBytes(4).toString("hex")}`
      yield* sql.run("SELECT 1 FROM pg_create_physical_replication_slot($1, true)", [parameter("text", name)])
      yield* Effect.addFinalizer(() => drop(sql, name))
      const slots = about(yield* examine(unhurried), "replication", "WARNING")
      assertMended(
        slots.find(({ found }) => found.includes(name)),
        /nobody reads the replication slot/,
        new RegExp(`pg_drop_replication_slot\\('${name}'\\)`)
      )
    })
  )

  it.live("finds a consumer group that is gone and keeps messages, until it is forgotten", () =>
    Effect.gen(function* () {
      const { context, examine, sql } = yield* practice
      const broker = Context.get(context, Broker)
      yield* broker.publish([{ topic: "t", key: "k", headers: {}, value: "{}" }])
      yield* Effect.scoped(
        Effect.flatMap(broker.subscribe({ group: "gone", topics: ["t"] }), ({ poll }) => poll(1))
      )
      const limits = { ...unhurried, pinned: [0, 0] as const }
      const [pinned] = about(yield* examine(limits), "broker")
      assertMended(
        pinned,
        /the consumer group gone has no member and keeps 1 messages/,
        /holdfast groups forget gone$/
      )
      assert.strictEqual(yield* broker.removeExpired(-60_000), 0)
      const { forget, list } = Context.get(context, ConsumerGroups)
      assert.deepInclude((yield* list)[0]!, { group: "gone", members: 0, behind: 1 })
      assert.isTrue(yield* forget("gone"))
      assert.isFalse(yield* forget("gone"))
      assert.deepStrictEqual(about(yield* examine(limits), "broker"), [])
      assert.strictEqual(yield* broker.removeExpired(-60_000), 1)

      yield* broker.subscribe({ group: "here", topics: ["t"] })
      assert.isFalse(yield* forget("here"), "a group with members is not forgotten")
      assert.strictEqual(
        (yield* sql.run("SELECT FROM broker_offset WHERE group_name = 'here'")).length > 0,
        true
      )
    })
  )
})

const examineServer = (url: Redacted.Redacted<string>) =>
  Effect.provide(
    Effect.flatMap(Doctor, (doctor) => doctor.examineServer),
    Doctor.layer.pipe(
      Layer.provide(Layer.mergeAll(PostgresBroker.layer(), ConsumerGroups.layer, Partitions.layer)),
      Layer.provide(Postgres.layer({ url }))
    )
  )

describe("the doctor of a server", { timeout: 60_000 }, () => {
  it.live("finds what is set so that it loses data, or has no room", () =>
    Effect.gen(function* () {
      const dataDir = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-doctor-"))
          await fs.chmod(folder, 0o755)
          return folder
        }),
        (folder) => Effect.promise(() => removeFolder(folder))
      )
      const { url } = yield* start({
        dataDir,
        diesWithService: true,
        settings: {
          fsync: "off",
          full_page_writes: "off",
          synchronous_commit: "off",
          max_connections: "20",
          max_locks_per_transaction: "10"
        }
      })
      const findings = yield* examineServer(url)
      const wrong = findings.filter(({ level }) => level === "WRONG").map(({ found }) => found.split(":")[0])
      assert.deepStrictEqual(wrong, [
        "fsync is off",
        "full_page_writes is off",
        "synchronous_commit is off",
        "room for 200 locks, and one replica's fullest batches take 8192",
        "17 connections for users, and one service takes up to 24"
      ])
      const mends = findings.map(({ mend }) => mend).join("\n")
      assert.include(mends, "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()")
      assert.include(mends, "ALTER SYSTEM SET max_locks_per_transaction = 1280, and restart PostgreSQL")
      assert.include(mends, "ALTER SYSTEM SET max_connections = 100")
    })
  )

  it.live("finds one that takes no writes", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      const { pathname } = new URL(Redacted.value(url))
      yield* sql.run(`ALTER DATABASE ${pathname.slice(1)} SET default_transaction_read_only = on`)
      const [refusing] = about(yield* examineServer(url), "database")
      assertMended(refusing, /default_transaction_read_only is on/, /ALTER DATABASE/)
    })
  )

  it("finds one that is too old, and says what it lacks", () => {
    // No such server can be started here.
    const access: Access = {
      version: "14.19",
      version_number: 140_019,
      user_name: "shop",
      schema_name: "public",
      may_create: true,
      owned_by_others: null,
      reader: "holdfast_reader_shop",
      may_take_on_reader: null,
      may_grant_reader: null,
      may_create_roles: true,
      sees_all_transactions: true
    }
    const [old, ...others] = accessFindings(access)
    assert.deepStrictEqual(others, [])
    assert.strictEqual(old?.level, "WRONG")
    assertMended(
      old,
      /^PostgreSQL 14.19 is older than 15, and lacks NULLS NOT DISTINCT/,
      /^upgrade it to PostgreSQL 15/
    )
    const [kept] = accessFindings({ ...access, version: "15.18", version_number: 150_018 })
    assert.strictEqual(kept?.level, "OK")
  })

  it("finds a standby, and one that is nearly full", () => {
    // No such server can be started here.
    const row: ServerRow = {
      version: "18.4",
      standby: false,
      read_only: false,
      max_connections: 100,
      held_back: 3,
      connected: 5,
      max_locks: 256,
      max_prepared: 0,
      fsync: "on",
      full_page_writes: "on",
      synchronous_commit: "on",
      database: "holdfast",
      size: "8 MB"
    }
    const levels = (change: Partial<ServerRow>) =>
      serverFindings({ ...row, ...change })
        .filter(({ level }) => level !== "OK")
        .map(({ check, level }) => `${level} ${check}`)
    assert.deepStrictEqual(levels({}), [])
    assert.deepStrictEqual(levels({ standby: true }), ["WRONG database"])
    assert.deepStrictEqual(levels({ connected: 80 }), ["WARNING connections"])
  })
})

const drop = (sql: Sql, slot: string) =>
  sql.run("SELECT pg_drop_replication_slot($1)::text", [parameter("text", slot)])
