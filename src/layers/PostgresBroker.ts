import { PgTypes } from "@effect/sql-pg"
import { Clock, Effect, Exit, Layer, Queue, Result, Scope, Semaphore } from "effect"
import {
  Broker,
  BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  messageBytesMax
} from "../services/messaging/Broker.ts"
import { Db, type Parameters, type Row, type Session, type StatementFailed } from "../services/Db.ts"
import { groupLocks } from "../services/messaging/ConsumerGroups.ts"
import { arrays, parameter, types } from "../services/PostgresTypes.ts"
import {
  type GroupStore,
  type Member,
  type Sleepers,
  type StoredPartition,
  type WakeUp,
  type Wanted,
  subscribe,
  wake
} from "./GroupMember.ts"
import { type GroupTimings, defaultTimings } from "./Holdings.ts"
import {
  type Prepared,
  headersFrom,
  headersOf,
  keyFrom,
  makePublisher,
  partitionOf,
  partitionsPerTopic,
  refusedNames
} from "./Publishing.ts"

/**
 * Durable topics in PostgreSQL, for when no Kafka is configured (migrations/0002_broker.sql). Offsets are given under
 * the lock of the partition's row, which is held until the messages are committed: they have no gaps, and whoever sees
 * one sees all before it. Every step is one statement; nothing stays open while somebody waits.
 */

export interface PostgresBrokerOptions {
  readonly timings?: Partial<GroupTimings>
  readonly messageBytesMax?: number
}

const channel = "holdfast_broker"
/** What one look for messages brings at most, over all partitions; a single message may be larger. */
const fetchBytesMax = 8_000_000
/** Deadlocks and lock time-outs end by themselves; who meets more than this many in a row is told of an outage. */
const conflictRetriesMax = 3
/** One statement removes at most so many messages of a partition. */
const removeMax = 2_000
const readyWithinMs = 2_000
/** A notification holds 8,000 bytes; with more topics than this it says "anything". */
const topicsNamedMax = 500

export const layer = (options: PostgresBrokerOptions = {}): Layer.Layer<Broker, never, Db> =>
  Layer.effect(Broker, make(options))

const make = Effect.fnUntraced(function* (options: PostgresBrokerOptions) {
  const db = yield* Db
  const timings = { ...defaultTimings, ...options.timings }
  const sleepers: Sleepers = new Set()
  const run = yield* heldSession(db)
  const topics = topicsOf(run)
  const store = storeOf(run, yield* lockSession(db, timings), topics)
  const notifications = yield* db.listen(channel)
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(Queue.takeAll(notifications), (payloads) => {
        for (const payload of new Set(payloads)) wake(sleepers, wakeUpOf(payload))
      })
    )
  )
  const publishing = yield* heldSession(db)
  const published = topicsOf(publishing)
  const publish = yield* makePublisher(options.messageBytesMax ?? messageBytesMax, (messages) =>
    answered(Effect.tapError(insert(publishing, published, messages), () => Effect.sync(published.forget)))
  )
  return Broker.of({
    publish,
    subscribe: (asked) => subscribe({ store, sleepers, timings, subscribe: asked }),
    removeExpired: (olderThanMs) => removeExpired(db, olderThanMs),
    createTopics: Effect.fnUntraced(function* (names) {
      const refused = refusedNames(names)
      if (refused !== undefined) return yield* refused
      const present = new Set(
        (yield* answered(run(readTopics, [arrays.text(names)]))).map(([, , name]) => name)
      )
      yield* answered(topics.ensure(names, yield* Clock.currentTimeMillis))
      return names.filter((name) => !present.has(name))
    }),
    missingTopics: () => Effect.succeed([]),
    // broker_topic_pkey
    ready: run("SELECT topic_id FROM broker_topic LIMIT 1", []).pipe(
      Effect.timeout(readyWithinMs),
      Effect.isSuccess
    )
  })
})

// Connections

type Run = (statement: string, parameters: Parameters) => Effect.Effect<ReadonlyArray<Row>, StatementFailed>

interface Held {
  readonly session: Session
  readonly scope: Scope.Closeable
  readonly number: number
}

/** A connection of its own, which is opened when it is first needed. */
const sessions = Effect.fnUntraced(function* (
  db: Db["Service"],
  begin: (session: Session) => Effect.Effect<unknown, StatementFailed>
) {
  const outer = yield* Effect.scope
  const opening = yield* Semaphore.make(1)
  let held: Held | undefined
  let opened = 0
  /** Another one instead of the one that failed, which is kept for as long as there is no other. */
  const renew = (failed: Held | undefined) =>
    opening.withPermits(1)(
      Effect.gen(function* () {
        if (held !== undefined && held !== failed) return held
        const scope = yield* Scope.fork(outer)
        const session = yield* Scope.provide(db.session, scope).pipe(
          Effect.tap(begin),
          Effect.onError(() => Scope.close(scope, Exit.void))
        )
        held = { session, scope, number: (opened += 1) }
        if (failed !== undefined) yield* Scope.close(failed.scope, Exit.void)
        return held
      })
    )
  return {
    get: Effect.suspend(() => (held === undefined ? renew(undefined) : Effect.succeed(held))),
    renew,
    drop: (failed: Held) =>
      Effect.suspend(() => {
        if (held === failed) held = undefined
        return Scope.close(failed.scope, Exit.void)
      })
  }
})

const isGone = (failure: StatementFailed): boolean => failure.disposition === "UNAVAILABLE"

/** Statements on a connection that is opened again when it is lost. */
const heldSession = Effect.fnUntraced(function* (db: Db["Service"]) {
  const { drop, get } = yield* sessions(db, () => Effect.void)
  const run: Run = (statement, parameters) =>
    Effect.flatMap(get, (held) =>
      Effect.tapError(held.session.run(statement, parameters), (failure) =>
        isGone(failure) ? drop(held) : Effect.void
      )
    )
  return run
})

/** A conflict is tried again; what is left is that the broker does not answer. */
const answered = <A>(effect: Effect.Effect<A, StatementFailed>): Effect.Effect<A, BrokerUnavailable> =>
  effect.pipe(
    Effect.retry({ times: conflictRetriesMax, while: (failure) => failure.disposition === "CONFLICT" }),
    Effect.catch((failure) =>
      failure.disposition === "DEFECT"
        ? Effect.die(failure) // broken SQL: our own bug
        : Effect.fail(new BrokerUnavailable({ cause: failure }))
    )
  )

const bytea = (values: ReadonlyArray<Uint8Array | null>) =>
  Result.getOrThrow(PgTypes.array(values, PgTypes.OID.bytea, types))

// Topics

interface Topics {
  readonly ensure: (
    topics: ReadonlyArray<string>,
    now: number
  ) => Effect.Effect<ReadonlyMap<string, ReadonlyArray<StoredPartition>>, StatementFailed>
  readonly byId: ReadonlyMap<number, StoredPartition>
  readonly forget: () => void
}

/** Topics never change, so that each is looked up once. */
const topicsOf = (run: Run): Topics => {
  const known = new Map<string, Array<StoredPartition>>()
  const byId = new Map<number, StoredPartition>()
  return {
    byId,
    ensure: Effect.fnUntraced(function* (topics, now) {
      const unknown = topics.filter((topic) => !known.has(topic))
      if (unknown.length === 0) return known
      const asked = arrays.text([...new Set(unknown)])
      yield* run(createTopics, [
        asked,
        parameter("timestamptz", now),
        parameter("int4", partitionsPerTopic - 1)
      ])
      for (const [partitionId, topicId, topic, partition] of (yield* run(readTopics, [
        asked
      ])) as ReadonlyArray<[number, number, string, number]>) {
        const partitions = known.get(topic) ?? []
        partitions[partition] = { partitionId, topicId, topic, partition }
        byId.set(partitionId, partitions[partition])
        known.set(topic, partitions)
      }
      return known
    }),
    forget: () => known.clear()
  }
}

// broker_topic_topic_key; a topic that another process is making is waited for
const createTopics = `
  WITH created AS (
    INSERT INTO broker_topic (topic, created_at)
    SELECT t.topic, $2
    FROM UNNEST($1) AS t (topic)
    ORDER BY t.topic
    ON CONFLICT (topic) DO NOTHING
    RETURNING topic_id
  )
  INSERT INTO broker_partition (topic_id, partition, last_published_at)
  SELECT c.topic_id, p.partition, $2
  FROM created c
  CROSS JOIN generate_series(0, $3) AS p (partition)`

// broker_topic_topic_key, broker_partition_topic_id_partition_key
const readTopics = `
  SELECT p.partition_id, t.topic_id, t.topic, p.partition
  FROM broker_topic t
  JOIN broker_partition p ON p.topic_id = t.topic_id
  WHERE t.topic = ANY ($1)`

// Publishing

const insert = Effect.fnUntraced(function* (run: Run, topics: Topics, messages: ReadonlyArray<Prepared>) {
  const now = yield* Clock.currentTimeMillis
  const known = yield* topics.ensure(
    messages.map(({ message }) => message.topic),
    now
  )
  const counts = new Map<number, number>()
  const topicIds = new Set<number>()
  const partitionIds: Array<number> = []
  const ordinals: Array<number> = []
  for (const prepared of messages) {
    const { partitionId, topicId } = known.get(prepared.message.topic)![partitionOf(prepared)]!
    const ordinal = counts.get(partitionId) ?? 0
    counts.set(partitionId, ordinal + 1)
    topicIds.add(topicId)
    partitionIds.push(partitionId)
    ordinals.push(ordinal)
  }
  yield* run(insertMessages, [
    arrays.int4([...counts.keys()]),
    arrays.int4([...counts.values()]),
    parameter("timestamptz", now),
    arrays.int4(partitionIds),
    arrays.int4(ordinals),
    bytea(messages.map(({ key }) => key)),
    arrays.text(messages.map(({ message }) => headersOf(message.headers))),
    bytea(messages.map(({ value }) => value)),
    parameter("text", channel),
    parameter("text", topicIds.size > topicsNamedMax ? "" : `t ${[...topicIds].join(",")}`)
  ])
})

// broker_partition_pkey: the locks are taken in its order, so that publishers do not deadlock. FOR NO KEY UPDATE reads
// the row as it is once the lock is had, not as it was in the statement's snapshot.
const insertMessages = `
  WITH locked AS MATERIALIZED (
    SELECT p.partition_id, p.next_offset, GREATEST(p.last_published_at, $3) AS published_at
    FROM broker_partition p
    WHERE p.partition_id = ANY ($1)
    ORDER BY p.partition_id
    FOR NO KEY UPDATE
  ), advanced AS (
    UPDATE broker_partition p
    SET next_offset = l.next_offset + c.message_count,
        last_published_at = l.published_at
    FROM locked l
    JOIN UNNEST($1, $2) AS c (partition_id, message_count) ON c.partition_id = l.partition_id
    WHERE p.partition_id = l.partition_id
    RETURNING p.partition_id
  ), inserted AS (
    INSERT INTO broker_message (partition_id, message_offset, published_at, key, headers, value)
    SELECT l.partition_id, l.next_offset + m.ordinal, l.published_at, m.key, m.headers, m.value
    FROM UNNEST($4, $5, $6, $7, $8) AS m (partition_id, ordinal, key, headers, value)
    JOIN locked l ON l.partition_id = m.partition_id
    RETURNING 1
  )
  SELECT
    holdfast_expect((SELECT COUNT(*) FROM advanced), CARDINALITY($1), 'broker_partition')::text,
    holdfast_expect((SELECT COUNT(*) FROM inserted), CARDINALITY($4), 'broker_message')::text,
    pg_notify($9, $10)::text`

/** What a notification says: `t` the topics that have new messages, `g` the group that changed, or nothing certain. */
const wakeUpOf = (payload: string): WakeUp =>
  payload.startsWith("t ")
    ? { topicIds: new Set(payload.slice(2).split(",").map(Number)) }
    : payload.startsWith("g ")
      ? { group: payload.slice(2) }
      : undefined

// Groups

/**
 * The session that has the locks of this process. PostgreSQL ends it when it has been silent for longer than a session of
 * the group lasts, so that a process that is frozen loses its locks, after it has given them up itself.
 */
const lockSession = (db: Db["Service"], { heartbeatMs, sessionMs }: GroupTimings) =>
  sessions(db, (session) =>
    session.run("SELECT set_config('idle_session_timeout', $1, false)", [
      parameter("text", String(sessionMs + heartbeatMs))
    ])
  )

const storeOf = (
  run: Run,
  locks: Effect.Success<ReturnType<typeof lockSession>>,
  topics: Topics
): GroupStore => {
  const notify = (group: string) =>
    run(notifyGroup, [parameter("text", channel), parameter("text", `g ${group}`)])
  const partitionsOf = (member: Member, now: number) =>
    Effect.map(topics.ensure(member.topics, now), (known) =>
      member.topics.flatMap((name) => known.get(name) ?? [])
    )
  /** Whether a lock was had or given up must be known: whoever does not hear it gives up the session. */
  const locking = (statement: string, parameters: Parameters) =>
    Effect.flatMap(locks.get, (held) =>
      Effect.tapError(held.session.run(statement, parameters), (failure) =>
        isGone(failure) ? locks.drop(held) : Effect.void
      )
    )
  const members = new Set<Member>()
  return {
    members,
    join: (member, now) =>
      answered(
        Effect.gen(function* () {
          const partitions = yield* partitionsOf(member, now)
          const group = parameter("text", member.group)
          yield* run(insertOffsets, [group, arrays.int4(partitions.map(({ partitionId }) => partitionId))])
          yield* locking(takePart, [group, topicIdsOf(partitions)])
          yield* notify(member.group)
        })
      ),
    look: (member, now) =>
      answered(
        Effect.gen(function* () {
          const partitions = yield* partitionsOf(member, now)
          const held = yield* locks.get
          const look = (of: Held) => of.session.run(readLocks, [parameter("text", member.group)])
          const [rows, { number }] = yield* Effect.map(look(held), (rows) => [rows, held] as const).pipe(
            Effect.catchIf(isGone, () =>
              Effect.flatMap(locks.renew(held), (renewed) =>
                Effect.map(look(renewed), (rows) => [rows, renewed] as const)
              )
            )
          )
          const byLock = new Map(
            (rows as ReadonlyArray<[number, number, boolean]>).map(([lock, ...more]) => [lock, more])
          )
          return {
            session: number,
            partitions,
            processes: new Map(
              partitions.map(({ topicId }) => [topicId, byLock.get(2 ** 32 - topicId)?.[0] ?? 1])
            ),
            taken: new Set(
              partitions
                .map(({ partitionId }) => partitionId)
                .filter((partitionId) => byLock.get(partitionId)?.[1] === false)
            )
          }
        })
      ),
    claim: (member, partitionIds) =>
      answered(
        Effect.gen(function* () {
          const asked = [parameter("text", member.group), arrays.int4(partitionIds)]
          // Statements of their own: what was committed before the lock was had is seen.
          const locked = new Set((yield* locking(claimLocks, asked)).map(([partitionId]) => partitionId))
          const rows = (yield* locking(readOffsets, asked)) as ReadonlyArray<[number, number]>
          return rows
            .filter(([partitionId]) => locked.has(partitionId))
            .map(([partitionId, next]) => ({ partitionId, next }))
        })
      ),
    release: (member, partitionIds) =>
      answered(
        Effect.andThen(
          locking(releaseLocks, [parameter("text", member.group), arrays.int4(partitionIds)]),
          notify(member.group)
        )
      ).pipe(Effect.asVoid),
    commit: (member, session, commits, now) =>
      answered(
        Effect.flatMap(locks.get, (held) =>
          held.number === session
            ? Effect.as(
                held.session.run(commitOffsets, [
                  parameter("text", member.group),
                  arrays.int4(commits.map(({ partitionId }) => partitionId)),
                  arrays.int8(commits.map(({ next }) => next)),
                  parameter("timestamptz", now)
                ]),
                true
              )
            : Effect.succeed(false)
        )
      ),
    leave: (member) =>
      answered(
        Effect.gen(function* () {
          const group = parameter("text", member.group)
          const own = [...topics.byId.values()].filter(({ topic }) => member.topics.includes(topic))
          yield* locking(releaseLocks, [group, arrays.int4([...member.held])])
          yield* locking(takeNoPart, [group, topicIdsOf(own)])
          // Nobody would keep it from being silent.
          if (members.size === 1) yield* Effect.flatMap(locks.get, locks.drop)
          yield* notify(member.group)
        })
      ),
    fetch: (wanted) =>
      answered(
        Effect.gen(function* () {
          const bytesMax = Math.ceil(fetchBytesMax / wanted.length)
          const rows = yield* run(fetchMessages, [
            arrays.int4(wanted.map(({ partitionId }) => partitionId)),
            arrays.int8(wanted.map(({ from }) => from)),
            arrays.int4(wanted.map((partition) => partition.messagesMax)),
            parameter("int4", bytesMax)
          ])
          return fetchedOf(topics.byId, wanted, rows, bytesMax)
        })
      ),
    lag: (group, names) =>
      answered(
        Effect.map(run(readLag, [parameter("text", group), arrays.text(names)]), (rows) =>
          (rows as ReadonlyArray<[string, number, number, number]>).map(
            ([topic, partition, committed, end]): Lag => ({
              topic,
              partition,
              committed,
              end,
              lag: Math.max(0, end - committed)
            })
          )
        )
      )
  }
}

const topicIdsOf = (partitions: ReadonlyArray<StoredPartition>) =>
  arrays.int4([...new Set(partitions.map(({ topicId }) => topicId))])

const fetchedOf = (
  partitions: ReadonlyMap<number, StoredPartition>,
  wanted: ReadonlyArray<Wanted>,
  rows: ReadonlyArray<Row>,
  bytesMax: number
) => {
  const found = new Map<number, { messages: Array<IncomingMessage>; bytes: number; mayHaveMore: boolean }>()
  for (const { partitionId } of wanted) found.set(partitionId, { messages: [], bytes: 0, mayHaveMore: false })
  for (const row of rows as ReadonlyArray<
    [number, number, number, Uint8Array | null, string, Uint8Array | null]
  >) {
    const [partitionId, offset, publishedAt, key, headers, value] = row
    const { topic, partition } = partitions.get(partitionId)!
    const into = found.get(partitionId)!
    into.bytes += value?.byteLength ?? 0
    into.messages.push({
      topic,
      partition,
      offset,
      key: keyFrom(key),
      headers: headersFrom(headers),
      value,
      publishedAt
    })
  }
  for (const { partitionId, messagesMax } of wanted) {
    const into = found.get(partitionId)!
    into.messages.sort((a, b) => a.offset - b.offset)
    // Fewer than asked for, and not held back for their size: there are no more.
    into.mayHaveMore = into.messages.length === messagesMax || into.bytes >= bytesMax
  }
  return found
}

const notifyGroup = "SELECT pg_notify($1, $2)::text"

// broker_offset_pkey, broker_message_pkey: a new group begins at the earliest message that is kept
const insertOffsets = `
  INSERT INTO broker_offset (partition_id, group_name, committed_offset)
  SELECT p.partition_id, $1, COALESCE(
    (SELECT MIN(m.message_offset) FROM broker_message m WHERE m.partition_id = p.partition_id),
    p.next_offset)
  FROM broker_partition p
  WHERE p.partition_id = ANY ($2)
  ORDER BY p.partition_id
  ON CONFLICT (partition_id, group_name) DO NOTHING`

// Locks of sessions. The first half is the group; the second is a partition, or below zero a topic, which whoever takes
// part in the group has shared.

const takePart = `
  SELECT pg_advisory_lock_shared(hashtext($1), -t.topic_id)::text
  FROM UNNEST($2) AS t (topic_id)`

const takeNoPart = `
  SELECT pg_advisory_unlock_shared(hashtext($1), -t.topic_id)
  FROM UNNEST($2) AS t (topic_id)`

const readLocks = `
  SELECT l.objid::int8, COUNT(*)::int4, BOOL_OR(l.pid = pg_backend_pid())
  FROM pg_locks l
  WHERE ${groupLocks("$1")}
  GROUP BY l.objid`

const claimLocks = `
  SELECT p.partition_id
  FROM UNNEST($2) AS p (partition_id)
  WHERE pg_try_advisory_lock(hashtext($1), p.partition_id)`

const releaseLocks = `
  SELECT pg_advisory_unlock(hashtext($1), p.partition_id)
  FROM UNNEST($2) AS p (partition_id)`

// broker_offset_pkey
const readOffsets = `
  SELECT o.partition_id, o.committed_offset
  FROM broker_offset o
  WHERE o.partition_id = ANY ($2) AND o.group_name = $1`

// broker_offset_pkey; the session that it is sent on is the fence
const commitOffsets = `
  UPDATE broker_offset o
  SET committed_offset = GREATEST(o.committed_offset, c.next_offset), committed_at = $4
  FROM UNNEST($2, $3) AS c (partition_id, next_offset)
  WHERE o.partition_id = c.partition_id AND o.group_name = $1`

// broker_message_pkey, for each partition from its offset on; what is beyond the bytes stays for the next time
const fetchMessages = `
  SELECT w.partition_id, m.message_offset, m.published_at, m.key, m.headers, m.value
  FROM UNNEST($1, $2, $3) AS w (partition_id, from_offset, messages_max)
  CROSS JOIN LATERAL (
    SELECT n.*, SUM(COALESCE(octet_length(n.value), 0)) OVER (ORDER BY n.message_offset) AS bytes
    FROM (
      SELECT b.message_offset, b.published_at, b.key, b.headers, b.value
      FROM broker_message b
      WHERE b.partition_id = w.partition_id AND b.message_offset >= w.from_offset
      ORDER BY b.message_offset
      LIMIT w.messages_max
    ) n
  ) m
  WHERE m.bytes - COALESCE(octet_length(m.value), 0) < $4`

// broker_topic_topic_key, broker_partition_topic_id_partition_key, broker_offset_pkey
const readLag = `
  SELECT t.topic, p.partition, o.committed_offset, p.next_offset
  FROM broker_topic t
  JOIN broker_partition p ON p.topic_id = t.topic_id
  JOIN broker_offset o ON o.partition_id = p.partition_id AND o.group_name = $1
  WHERE t.topic = ANY ($2)
  ORDER BY t.topic, p.partition`

// Retention

/** Partition after partition, a bounded number of messages in each statement, so that no vacuum waits long for one. */
const removeExpired = Effect.fnUntraced(
  function* (db: Db["Service"], olderThanMs: number) {
    const before = parameter("timestamptz", (yield* Clock.currentTimeMillis) - olderThanMs)
    let removed = 0
    for (const { partition_id } of yield* db.maintain<{ readonly partition_id: number }>(readExpired, [
      before
    ])) {
      for (;;) {
        const rows = yield* db.maintain<{ readonly removed: number }>(removeMessages, [
          parameter("int4", partition_id),
          before,
          parameter("int4", removeMax)
        ])
        removed += rows[0]!.removed
        if (rows[0]!.removed < removeMax) break
      }
    }
    return removed
  },
  Effect.mapError((cause) => new BrokerUnavailable({ cause }))
)

// broker_message_pkey: one look at the beginning of each partition
const readExpired = `
  SELECT p.partition_id
  FROM broker_partition p
  CROSS JOIN LATERAL (
    SELECT m.published_at
    FROM broker_message m
    WHERE m.partition_id = p.partition_id
    ORDER BY m.message_offset
    LIMIT 1
  ) earliest
  WHERE earliest.published_at < $1`

// broker_message_pkey, broker_offset_pkey. Time never decreases within a partition, so that the old ones among the
// first are all before the others.
const removeMessages = `
  WITH removed AS (
    DELETE FROM broker_message m
    USING (
      SELECT e.message_offset, e.published_at
      FROM broker_message e
      WHERE e.partition_id = $1
        AND e.message_offset < COALESCE(
          (SELECT MIN(o.committed_offset) FROM broker_offset o WHERE o.partition_id = $1),
          9223372036854775807)
      ORDER BY e.message_offset
      LIMIT $3
    ) earliest
    WHERE m.partition_id = $1 AND m.message_offset = earliest.message_offset AND earliest.published_at < $2
    RETURNING 1
  )
  SELECT COUNT(*) AS removed FROM removed`
