import { Clock, Context, Effect, Layer } from "effect"
import type { DatabaseUnavailable } from "../schema/Failure.ts"
import { reservationKindsInSql } from "../schema/Reservation.ts"
import { topicNames } from "../schema/Topic.ts"
import { Broker } from "./messaging/Broker.ts"
import { ConsumerGroups } from "./messaging/ConsumerGroups.ts"
import { type Access, accessStatement, obstacles, withoutReader } from "./DatabaseAccess.ts"
import { Db } from "./Db.ts"
import { Partitions } from "./Partitions.ts"
import { parameter } from "./PostgresTypes.ts"
import { readerRole } from "./ReaderRole.ts"
import { kernelLocksMax } from "./kernel/StockLedger.ts"

// One file: a list of findings that do not know of each other, read from top to bottom.

/** What was looked at, what was found, and what to do about it. `WRONG` must be mended, `WARNING` should be. */
export interface Finding {
  readonly check: string
  readonly level: "OK" | "WARNING" | "WRONG"
  readonly found: string
  readonly mend?: string
}

export const ok = (check: string, found: string): Finding => ({ check, level: "OK", found })
export const warning = (check: string, found: string, mend: string): Finding => ({
  check,
  level: "WARNING",
  found,
  mend
})
export const wrong = (check: string, found: string, mend: string): Finding => ({
  check,
  level: "WRONG",
  found,
  mend
})

/** From when on an age is worth a warning, and from when on it must be mended, in seconds. */
export interface Limits {
  readonly clockOffset: readonly [warning: number, wrong: number]
  readonly snapshot: readonly [warning: number, wrong: number]
  readonly unsent: readonly [warning: number, wrong: number]
  readonly overdue: readonly [warning: number, wrong: number]
  readonly pinned: readonly [warning: number, wrong: number]
}

const defaultLimits: Limits = {
  clockOffset: [1, 60],
  // A hot row's throughput fell to a fifth within 12 s of one idle transaction.
  snapshot: [30, 300],
  unsent: [10, 60],
  overdue: [10, 60],
  // Nothing is lost by it; the disk fills.
  pinned: [24 * 60 * 60, Number.POSITIVE_INFINITY]
}

/** Looks a database over that is up to date, and what runs on it. Nothing is changed. */
export class Doctor extends Context.Service<
  Doctor,
  {
    /** Asked with the host's own clock: how far that is from the database's is one of the findings. */
    readonly examine: (limits?: Partial<Limits>) => Effect.Effect<ReadonlyArray<Finding>, DatabaseUnavailable>
    /** What can be said of a server before there are tables. */
    readonly examineServer: Effect.Effect<ReadonlyArray<Finding>, DatabaseUnavailable>
  }
>()("holdfast/services/Doctor") {
  static readonly layer = Layer.effect(
    Doctor,
    Effect.gen(function* () {
      const db = yield* Db
      const broker = yield* Broker
      const groups = yield* ConsumerGroups
      const partitions = yield* Partitions

      const examine: Doctor["Service"]["examine"] = Effect.fn("Doctor.examine")(function* (given = {}) {
        const limits = { ...defaultLimits, ...given }
        const offset = yield* clockOffset(db)
        const now = (yield* Clock.currentTimeMillis) + offset
        const findings = [
          clock(offset, limits),
          ...(yield* reader(db)),
          yield* snapshots(db, limits),
          ...(yield* slots(db)),
          yield* partitioning(partitions, now),
          ...(yield* outbox(db, now, limits)),
          yield* sweeping(db, now, limits)
        ]
        return [...findings, ...(yield* brokers(broker)), ...(yield* abandoned(groups, now, limits))]
      })

      return Doctor.of({
        examine,
        examineServer: Effect.gen(function* () {
          const [server] = yield* db.maintain<ServerRow>(serverStatement, [])
          const [access] = yield* db.maintain<Access>(accessStatement, [])
          return [...serverFindings(server!), ...accessFindings(access!)]
        })
      })
    })
  )
}

const seconds = (value: number): string =>
  Math.abs(value) < 120
    ? `${Math.round(value)} s`
    : Math.abs(value) < 7_200
      ? `${Math.round(value / 60)} min`
      : `${Math.round(value / 3_600)} h`

const graded = (
  check: string,
  value: number,
  [warns, wrongs]: readonly [number, number],
  found: string,
  mend: string
): Finding =>
  value >= wrongs
    ? wrong(check, found, mend)
    : value >= warns
      ? warning(check, found, mend)
      : ok(check, found)

// The server

export interface ServerRow {
  readonly version: string
  readonly standby: boolean
  readonly read_only: boolean
  readonly max_connections: number
  readonly held_back: number
  readonly connected: number
  readonly max_locks: number
  readonly max_prepared: number
  readonly fsync: string
  readonly full_page_writes: string
  readonly synchronous_commit: string
  readonly database: string
  readonly size: string
}

const serverStatement = `
  SELECT current_setting('server_version') AS version,
         pg_is_in_recovery() AS standby,
         current_setting('default_transaction_read_only')::boolean AS read_only,
         current_setting('max_connections')::integer AS max_connections,
         current_setting('superuser_reserved_connections')::integer
           + COALESCE(current_setting('reserved_connections', true), '0')::integer AS held_back,
         (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected,
         current_setting('max_locks_per_transaction')::integer AS max_locks,
         current_setting('max_prepared_transactions')::integer AS max_prepared,
         current_setting('fsync') AS fsync,
         current_setting('full_page_writes') AS full_page_writes,
         current_setting('synchronous_commit') AS synchronous_commit,
         current_database()::text AS database,
         pg_size_pretty(pg_database_size(current_database())) AS size`

/** Connections of one service with all roles at its busiest: kernel, readers, maintenance, dispatcher, listeners. */
const connectionsOfService = 24
const alter = (setting: string, value: string): string => `ALTER SYSTEM SET ${setting} = ${value}`

/** Exported for what no server here can be: a standby. */
export const serverFindings = (row: ServerRow): ReadonlyArray<Finding> => {
  const slots = row.max_locks * (row.max_connections + row.max_prepared)
  const room = row.max_connections - row.held_back
  return [
    ok("database", `PostgreSQL ${row.version}, database ${row.database} of ${row.size}`),
    ...(row.standby || row.read_only
      ? [
          wrong(
            "database",
            row.standby ? "it is a standby: it can only be read" : "default_transaction_read_only is on",
            row.standby
              ? "name the primary in DATABASE_URL"
              : "ALTER DATABASE … SET default_transaction_read_only = off"
          )
        ]
      : []),
    ...(["fsync", "full_page_writes", "synchronous_commit"] as const).map((setting) =>
      row[setting] === "off"
        ? wrong(
            "durability",
            `${setting} is off: what was acknowledged can be lost when the machine fails`,
            `${alter(setting, "on")}; SELECT pg_reload_conf()`
          )
        : ok("durability", `${setting} is ${row[setting]}`)
    ),
    slots < kernelLocksMax
      ? wrong(
          "locks",
          `room for ${slots} locks, and one replica's fullest batches take ${kernelLocksMax}`,
          `${alter("max_locks_per_transaction", String(locksWanted(row)))}, and restart PostgreSQL`
        )
      : ok("locks", `room for ${slots} locks, one replica's fullest batches take ${kernelLocksMax}`),
    room < connectionsOfService
      ? wrong(
          "connections",
          `${room} connections for users, and one service takes up to ${connectionsOfService}`,
          `${alter("max_connections", "100")}, and restart PostgreSQL`
        )
      : row.connected + connectionsOfService > room
        ? warning(
            "connections",
            `${row.connected} of ${room} connections are used: another service of ${connectionsOfService} has no room`,
            `${alter("max_connections", String(row.max_connections * 2))}, and restart PostgreSQL; or end other clients`
          )
        : ok("connections", `${row.connected} of ${room} connections are used`)
  ]
}

/** Enough for three replicas, in PostgreSQL's own steps of 64. */
const locksWanted = (row: ServerRow): number =>
  Math.ceil((3 * kernelLocksMax) / (row.max_connections + row.max_prepared) / 64) * 64

// What the user may do

/** Exported for what no server here can be: too old. */
export const accessFindings = (access: Access): ReadonlyArray<Finding> => {
  const found = obstacles(access)
  const unguarded = withoutReader(access)
  return [
    ...(found.length > 0
      ? found.map((obstacle) => wrong("rights", obstacle.found, obstacle.mend))
      : [
          ok(
            "rights",
            `${access.user_name} may do in the schema ${access.schema_name} what the service and its migrations do`
          )
        ]),
    ...(unguarded === undefined ? [] : [warning("tenancy", unguarded.found, unguarded.mend)]),
    ...(access.sees_all_transactions
      ? []
      : [
          ok(
            "snapshots",
            `only transactions of ${access.user_name} are seen: GRANT pg_read_all_stats TO "${access.user_name}" shows the others'`
          )
        ])
  ]
}

// The clock

const samples = 5

/** How far the database's clock is ahead of the host's, in milliseconds: of the quickest of a few questions. */
const clockOffset = Effect.fnUntraced(function* (db: Db["Service"]) {
  let best = { roundTrip: Number.POSITIVE_INFINITY, offset: 0 }
  for (let sample = 0; sample < samples; sample++) {
    const asked = yield* Clock.currentTimeMillis
    const [row] = yield* db.maintain<{ now: number }>("SELECT clock_timestamp() AS now", [])
    const answered = yield* Clock.currentTimeMillis
    if (answered - asked < best.roundTrip) {
      best = { roundTrip: answered - asked, offset: row!.now - (asked + answered) / 2 }
    }
  }
  return Math.abs(best.offset) <= best.roundTrip / 2 + 1 ? 0 : best.offset
})

const clock = (offset: number, { clockOffset: limit }: Limits): Finding =>
  graded(
    "clock",
    Math.abs(offset) / 1000,
    limit,
    offset === 0
      ? "this machine and the database agree"
      : `this machine's clock is ${(Math.abs(offset) / 1000).toFixed(1)} s ${offset > 0 ? "behind" : "ahead of"} the database's`,
    "set both by NTP: Holdfast follows the database's clock, and so do expiry and the validity of tokens"
  )

// Who may read what

interface ReaderRow {
  readonly name: string
  readonly exempt: boolean
}

const readerStatement = `
  SELECT rolname::text AS name, rolsuper OR rolbypassrls AS exempt FROM pg_roles WHERE rolname = ${readerRole}`

/** Tables of merchants that the readers' role may read whole, and those that it may not read at all. */
const securityStatement = `
  SELECT c.relname::text AS name, has_table_privilege(${readerRole}, c.oid, 'SELECT') AS readable,
         c.relrowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid) AS secured
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'merchant_id' AND NOT a.attisdropped
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
  ORDER BY c.relname`

const reader = Effect.fnUntraced(function* (db: Db["Service"]) {
  const [access] = yield* db.maintain<Access>(accessStatement, [])
  // examineServer has said so.
  if (withoutReader(access!) !== undefined) return []
  const [role] = yield* db.maintain<ReaderRow>(readerStatement, [])
  const unguarded = warning(
    "tenancy",
    `reads run without row-level security, since the role ${access!.reader} was not granted the tables`,
    "holdfast migrate makes the role and grants them; then start the service again"
  )
  if (role === undefined) return [unguarded]
  if (role.exempt) {
    return [
      wrong(
        "tenancy",
        `${role.name} is exempt from row-level security: a read could see another merchant's rows`,
        `ALTER ROLE "${role.name}" NOSUPERUSER NOBYPASSRLS`
      )
    ]
  }
  const tables = yield* db.maintain<{ name: string; readable: boolean; secured: boolean }>(
    securityStatement,
    []
  )
  if (!tables.some(({ readable }) => readable)) return [unguarded]
  const open = tables.filter(({ readable, secured }) => readable && !secured).map(({ name }) => name)
  const closed = tables.filter(({ readable, secured }) => secured && !readable).map(({ name }) => name)
  return [
    ...(open.length > 0
      ? [
          wrong(
            "tenancy",
            `no row-level security on ${open.join(", ")}`,
            "ALTER TABLE … ENABLE ROW LEVEL SECURITY, with the policy one_merchant (migrations/0001_kernel.sql)"
          )
        ]
      : []),
    ...(closed.length > 0
      ? [wrong("tenancy", `${role.name} may not read ${closed.join(", ")}`, "holdfast migrate grants it")]
      : []),
    ...(open.length + closed.length === 0
      ? [
          ok(
            "tenancy",
            `row-level security guards ${tables.filter(({ secured }) => secured).length} tables of merchants`
          )
        ]
      : [])
  ]
})

// What holds back clean-up

interface SnapshotRow {
  readonly pid: number
  readonly application_name: string
  readonly state: string | null
  readonly began: number
  readonly now: number
}

const snapshotStatement = `
  SELECT pid, application_name, state, xact_start AS began, clock_timestamp() AS now
  FROM pg_stat_activity
  WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
    AND backend_type <> 'autovacuum worker' AND xact_start IS NOT NULL
  ORDER BY xact_start
  LIMIT 1`

const snapshots = Effect.fnUntraced(function* (db: Db["Service"], limits: Limits) {
  const [oldest] = yield* db.maintain<SnapshotRow>(snapshotStatement, [])
  if (oldest === undefined) return ok("snapshots", "no transaction is open")
  const age = (oldest.now - oldest.began) / 1000
  return graded(
    "snapshots",
    age,
    limits.snapshot,
    `the oldest transaction is open for ${seconds(age)}: ${oldest.application_name || "unnamed"}, process ${oldest.pid}, ${oldest.state ?? "unknown"}`,
    `no dead row can be removed meanwhile, and hot items become slow: SELECT pg_terminate_backend(${oldest.pid})`
  )
})

const slotsStatement = `
  SELECT slot_name::text AS name, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) AS kept
  FROM pg_replication_slots
  WHERE NOT active
  ORDER BY slot_name`

const slots = (db: Db["Service"]) =>
  Effect.map(db.maintain<{ name: string; kept: string | null }>(slotsStatement, []), (rows) =>
    rows.map(({ kept, name }) =>
      warning(
        "replication",
        `nobody reads the replication slot ${name}, which keeps ${kept ?? "nothing yet"} of the log`,
        `start its reader, or SELECT pg_drop_replication_slot('${name}')`
      )
    )
  )

// What runs

const partitioning = (partitions: Partitions["Service"], now: number) =>
  Effect.map(partitions.missing(now), (missing) =>
    missing.length === 0
      ? ok("partitions", "those of this month and the months ahead are there")
      : warning(
          "partitions",
          `missing: ${missing.join(", ")}`,
          "a service with the role sweeper makes them; postings make the next one themselves when it is due"
        )
  )

const outboxStatement = `
  SELECT (SELECT min(recorded_at) FROM outbox WHERE sent_at IS NULL) AS oldest,
         (SELECT COALESCE(sum(event_count), 0)::bigint FROM outbox WHERE sent_at IS NULL) AS pending,
         (SELECT count(*) FROM outbox_failure WHERE state = 'FAILED') AS failed,
         (SELECT count(*) FROM outbox_failure WHERE state IN ('HELD', 'REQUEUED')) AS held,
         (SELECT count(*) FROM outbox_failure WHERE state = 'WAITING') AS waiting,
         (SELECT string_agg(DISTINCT topic, ', ') FROM outbox_failure WHERE state = 'WAITING') AS topics`

const outbox = Effect.fnUntraced(function* (db: Db["Service"], now: number, limits: Limits) {
  const [row] = yield* db.maintain<{
    oldest: number | null
    pending: number
    failed: number
    held: number
    waiting: number
    topics: string | null
  }>(outboxStatement, [])
  const { failed, held, oldest, pending, topics, waiting } = row!
  const age = oldest === null ? 0 : (now - oldest) / 1000
  return [
    oldest === null
      ? ok("outbox", "every event was sent")
      : graded(
          "outbox",
          age,
          limits.unsent,
          `${pending} events wait to be sent, the oldest for ${seconds(age)}`,
          "run a service with the role event-dispatcher, and see whether the broker answers it"
        ),
    ...(failed > 0
      ? [
          wrong(
            "outbox",
            `the broker refused ${failed} events for good, and ${held} wait behind them`,
            "holdfast outbox list says why; fix the cause and holdfast outbox requeue, or holdfast outbox drop"
          )
        ]
      : []),
    ...(waiting > 0
      ? [
          warning(
            "outbox",
            `${waiting} events wait for topics that do not exist: ${topics}`,
            "holdfast topics create makes them, and the events follow"
          )
        ]
      : [])
  ]
})

// reservation_due
const overdueStatement = `
  SELECT min(expires_at) AS oldest, count(*) AS count
  FROM (
    SELECT expires_at
    FROM reservation
    WHERE status = 'PENDING' AND expires_at <= $1 AND kind IN (${reservationKindsInSql(({ expires }) => expires)})
    LIMIT 100000
  ) AS due`

const sweeping = Effect.fnUntraced(function* (db: Db["Service"], now: number, limits: Limits) {
  const [row] = yield* db.maintain<{ oldest: number | null; count: number }>(overdueStatement, [
    parameter("timestamptz", now)
  ])
  const { count, oldest } = row!
  if (oldest === null) return ok("expiry", "no reservation is overdue")
  const age = (now - oldest) / 1000
  return graded(
    "expiry",
    age,
    limits.overdue,
    `${count} reservations are past their expiry, the oldest for ${seconds(age)}`,
    "run a service with the role sweeper"
  )
})

const brokers = Effect.fnUntraced(function* (broker: Broker["Service"]) {
  const away = wrong(
    "broker",
    "the broker does not answer",
    "start it, or correct KAFKA_BROKERS; events wait meanwhile and none is lost"
  )
  if (!(yield* broker.ready)) return [away]
  return yield* Effect.match(broker.missingTopics(topicNames), {
    onFailure: () => [away],
    onSuccess: (missing) =>
      missing.length === 0
        ? [ok("broker", "the broker answers, and has every topic")]
        : [
            warning(
              "broker",
              `topics do not exist: ${missing.join(", ")}`,
              "holdfast topics create, or make them by your own means"
            )
          ]
  })
})

const abandoned = Effect.fnUntraced(function* (
  groups: ConsumerGroups["Service"],
  now: number,
  limits: Limits
) {
  return (yield* groups.list)
    .filter(({ behind, members }) => members === 0 && behind > 0)
    .map(({ behind, group, oldestAt }) => {
      const age = (now - (oldestAt ?? now)) / 1000
      return graded(
        "broker",
        age,
        limits.pinned,
        `the consumer group ${group} has no member and keeps ${behind} messages, the oldest from ${seconds(age)} ago`,
        `start its consumers, or holdfast groups forget ${group}`
      )
    })
})
