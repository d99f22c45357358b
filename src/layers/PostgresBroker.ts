import { PgTypes } from "@effect/sql-pg"
import { Clock, Deferred, Effect, Exit, Layer, Queue, Result, Scope, Semaphore } from "effect"
import {
  Broker,
  BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  messageBytesMax
} from "../services/messaging/Broker.ts"
import { Db, type Parameters, type Row, type Session, type StatementFailed } from "../services/Db.ts"
import { arrays, parameter, types } from "../services/PostgresTypes.ts"
import {
  type GroupStore,
  type GroupTimings,
  type OwnedPartition,
  type Sleepers,
  type StoredPartition,
  type WakeUp,
  type Wanted,
  defaultTimings,
  subscribe,
  wake
} from "./GroupMember.ts"
import {
  type Prepared,
  headersFrom,
  keyFrom,
  partitionsPerTopic,
  prepare,
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
/** Calls that wait for the publisher; more wait outside. */
const publishBacklogMax = 1_024
/** What one statement publishes at most, unless a single message is larger. */
const publishMessagesMax = 4_000
const publishBytesMax = 8_000_000
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
  const store = storeOf(run, topics)
  const notifications = yield* db.listen(channel)
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(Queue.takeAll(notifications), (payloads) => {
        for (const payload of new Set(payloads)) wake(sleepers, wakeUpOf(payload))
      })
    )
  )
  const publish = yield* publisher(db, options.messageBytesMax ?? messageBytesMax)
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

/** Statements on a connection of its own, which is opened when it is first needed and again when it is lost. */
const heldSession = Effect.fnUntraced(function* (db: Db["Service"]) {
  const outer = yield* Effect.scope
  const opening = yield* Semaphore.make(1)
  let held: { readonly session: Session; readonly scope: Scope.Closeable } | undefined
  const open = opening.withPermits(1)(
    Effect.gen(function* () {
      if (held !== undefined) return held
      const scope = yield* Scope.fork(outer)
      const session = yield* Effect.onError(Scope.provide(db.session, scope), () =>
        Scope.close(scope, Exit.void)
      )
      return (held = { session, scope })
    })
  )
  const run: Run = (statement, parameters) =>
    Effect.flatMap(held === undefined ? open : Effect.succeed(held), (current) =>
      Effect.tapError(current.session.run(statement, parameters), (failure) => {
        if (failure.disposition !== "UNAVAILABLE" || held !== current) return Effect.void
        held = undefined
        return Scope.close(current.scope, Exit.void)
      })
    )
  return ((statement, parameters) => Effect.suspend(() => run(statement, parameters))) satisfies Run
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

interface Call {
  readonly prepared: ReadonlyArray<Prepared>
  readonly bytes: number
  readonly done: Deferred.Deferred<void, BrokerUnavailable>
}

/** One fiber publishes for all callers, in the order of their calls: what waits meanwhile goes in the next statement. */
const publisher = Effect.fnUntraced(function* (db: Db["Service"], bytesMax: number) {
  const run = yield* heldSession(db)
  const topics = topicsOf(run)
  const calls = yield* Queue.bounded<Call>(publishBacklogMax)
  const closed = yield* Deferred.make<never, BrokerUnavailable>()
  yield* Effect.addFinalizer(() =>
    Deferred.fail(closed, new BrokerUnavailable({ cause: new Error("the broker is closed") }))
  )
  yield* Effect.forkScoped(
    Effect.forever(Effect.flatMap(Queue.takeAll(calls), (waiting) => publishAll(run, topics, calls, waiting)))
  )
  let keylessTurn = 0
  const publish: Broker["Service"]["publish"] = Effect.fnUntraced(function* (messages) {
    const { prepared, refusals } = prepare(messages, {
      messageBytesMax: bytesMax,
      keylessPartition: keylessTurn++ % partitionsPerTopic
    })
    if (prepared.length === 0) return refusals
    const done = Deferred.makeUnsafe<void, BrokerUnavailable>()
    const published = Effect.andThen(
      Queue.offer(calls, { prepared, bytes: bytesOf(prepared), done }),
      Deferred.await(done)
    )
    // Who still waits when the layer closes is told so.
    yield* Effect.raceFirst(published, Deferred.await(closed))
    return refusals
  })
  return publish
})

const publishAll = Effect.fnUntraced(function* (
  run: Run,
  topics: Topics,
  calls: Queue.Queue<Call>,
  waiting: ReadonlyArray<Call>
) {
  for (let start = 0; start < waiting.length;) {
    const end = endOfGroup(waiting, start)
    const group = waiting.slice(start, end)
    const outcome = yield* Effect.exit(publishGroup(run, topics, group))
    start = end
    for (const { done } of group) Deferred.doneUnsafe(done, outcome)
    if (Exit.isSuccess(outcome)) continue
    // Who waits behind fails too: its messages may be of the same keys, and would overtake those that are tried again.
    for (const { done } of waiting.slice(start)) Deferred.doneUnsafe(done, outcome)
    for (const { done } of yield* Queue.clear(calls)) Deferred.doneUnsafe(done, outcome)
    return
  }
})

/** Calls that one statement takes: as many as fit, at least one. */
const endOfGroup = (calls: ReadonlyArray<Call>, start: number): number => {
  let messages = 0
  let bytes = 0
  let end = start
  for (; end < calls.length; end++) {
    messages += calls[end]!.prepared.length
    bytes += calls[end]!.bytes
    if (end > start && (messages > publishMessagesMax || bytes > publishBytesMax)) break
  }
  return end
}

const bytesOf = (prepared: ReadonlyArray<Prepared>): number =>
  prepared.reduce((sum, message) => sum + message.bytes, 0)

const publishGroup = Effect.fnUntraced(function* (run: Run, topics: Topics, group: ReadonlyArray<Call>) {
  const messages = group.length === 1 ? group[0]!.prepared : group.flatMap(({ prepared }) => prepared)
  for (let start = 0; start < messages.length;) {
    let end = start + 1
    for (let bytes = messages[start]!.bytes; end < messages.length; end++) {
      bytes += messages[end]!.bytes
      if (bytes > publishBytesMax || end - start === publishMessagesMax) break
    }
    const part = start === 0 && end === messages.length ? messages : messages.slice(start, end)
    yield* answered(Effect.tapError(insert(run, topics, part), () => Effect.sync(topics.forget)))
    start = end
  }
})

const insert = Effect.fnUntraced(function* (run: Run, topics: Topics, messages: ReadonlyArray<Prepared>) {
  const now = yield* Clock.currentTimeMillis
  const known = yield* topics.ensure(
    messages.map(({ topic }) => topic),
    now
  )
  const counts = new Map<number, number>()
  const topicIds = new Set<number>()
  const partitionIds: Array<number> = []
  const ordinals: Array<number> = []
  for (const { topic, partition } of messages) {
    const { partitionId, topicId } = known.get(topic)![partition]!
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
    arrays.text(messages.map(({ headers }) => headers)),
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

const storeOf = (run: Run, topics: Topics): GroupStore => {
  const notify = (group: string) =>
    run(notifyGroup, [parameter("text", channel), parameter("text", `g ${group}`)])
  const partitionsOf = (names: ReadonlyArray<string>, now: number) =>
    Effect.map(topics.ensure(names, now), (known) => names.flatMap((name) => known.get(name) ?? []))
  return {
    join: (member, now) =>
      answered(
        Effect.gen(function* () {
          const partitions = yield* partitionsOf(member.topics, now)
          const group = parameter("text", member.group)
          yield* run(insertOffsets, [group, arrays.int4(partitions.map(({ partitionId }) => partitionId))])
          yield* run(insertMember, [
            group,
            parameter("uuid", member.memberId),
            arrays.text(member.topics),
            parameter("timestamptz", now)
          ])
          yield* notify(member.group)
        })
      ),
    beat: (member, now, silentSince) =>
      answered(
        Effect.gen(function* () {
          const partitions = yield* partitionsOf(member.topics, now)
          const group = parameter("text", member.group)
          const id = parameter("uuid", member.memberId)
          const [alive, , owners, members] = yield* Effect.all(
            [
              run(beatMember, [group, id, parameter("timestamptz", now)]),
              silentSince === undefined
                ? Effect.void
                : run(expelMembers, [group, id, parameter("timestamptz", silentSince)]),
              run(readOwners, [group, arrays.int4(partitions.map(({ partitionId }) => partitionId))]),
              run(readMembers, [group])
            ],
            { concurrency: "unbounded" }
          )
          if (alive.length === 0) return undefined
          return {
            members: (members as ReadonlyArray<[string, ReadonlyArray<string>]>).map(
              ([memberId, subscribed]) => ({ memberId, topics: subscribed })
            ),
            partitions: ownedOf(partitions, owners)
          }
        })
      ),
    claim: (member, claims) =>
      Effect.map(
        answered(
          run(claimPartitions, [
            parameter("text", member.group),
            parameter("uuid", member.memberId),
            arrays.int4(claims.map(({ partitionId }) => partitionId)),
            arrays.int8(claims.map(({ epoch }) => epoch))
          ])
        ),
        (rows) =>
          (rows as ReadonlyArray<[number, number, number]>).map(([partitionId, epoch, next]) => ({
            partitionId,
            epoch,
            next
          }))
      ),
    release: (member, claims) =>
      answered(
        Effect.andThen(
          run(releasePartitions, [
            parameter("text", member.group),
            parameter("uuid", member.memberId),
            arrays.int4(claims.map(({ partitionId }) => partitionId)),
            arrays.int8(claims.map(({ epoch }) => epoch))
          ]),
          notify(member.group)
        )
      ).pipe(Effect.asVoid),
    commit: (member, commits, now) =>
      Effect.map(
        answered(
          run(commitOffsets, [
            parameter("text", member.group),
            parameter("uuid", member.memberId),
            arrays.int4(commits.map(({ partitionId }) => partitionId)),
            arrays.int8(commits.map(({ epoch }) => epoch)),
            arrays.int8(commits.map(({ next }) => next)),
            parameter("timestamptz", now)
          ])
        ),
        (rows) => new Set((rows as ReadonlyArray<[number]>).map(([partitionId]) => partitionId))
      ),
    leave: (member) =>
      answered(
        Effect.gen(function* () {
          const group = parameter("text", member.group)
          const id = parameter("uuid", member.memberId)
          const held = [...topics.byId.values()].filter(({ topic }) => member.topics.includes(topic))
          yield* run(deleteMember, [group, id])
          yield* run(releaseAll, [group, id, arrays.int4(held.map(({ partitionId }) => partitionId))])
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

const ownedOf = (
  partitions: ReadonlyArray<StoredPartition>,
  owners: ReadonlyArray<Row>
): ReadonlyArray<OwnedPartition> => {
  const byId = new Map(
    (owners as ReadonlyArray<[number, string | null, boolean, number]>).map((row) => [row[0], row])
  )
  return partitions.flatMap((partition) => {
    const row = byId.get(partition.partitionId)
    return row === undefined ? [] : [{ ...partition, owner: row[1], ownerLives: row[2], epoch: row[3] }]
  })
}

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

// broker_member_pkey
const insertMember = `
  INSERT INTO broker_member (group_name, member_id, topics, heartbeat_at)
  VALUES ($1, $2, $3, $4)
  ON CONFLICT (group_name, member_id) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at`

// broker_member_pkey
const beatMember = `
  UPDATE broker_member
  SET heartbeat_at = GREATEST(heartbeat_at, $3)
  WHERE group_name = $1 AND member_id = $2
  RETURNING 1`

// broker_member_pkey; a row that is locked is being beaten, so that its member is alive
const expelMembers = `
  DELETE FROM broker_member m
  USING (
    SELECT s.member_id
    FROM broker_member s
    WHERE s.group_name = $1 AND s.member_id <> $2 AND s.heartbeat_at < $3
    FOR UPDATE SKIP LOCKED
  ) silent
  WHERE m.group_name = $1 AND m.member_id = silent.member_id`

// broker_offset_pkey, broker_member_pkey; both of one snapshot, or an owner that has just joined would seem dead
const readOwners = `
  SELECT o.partition_id, o.owner, m.member_id IS NOT NULL, o.epoch
  FROM broker_offset o
  LEFT JOIN broker_member m ON m.group_name = o.group_name AND m.member_id = o.owner
  WHERE o.partition_id = ANY ($2) AND o.group_name = $1`

// broker_member_pkey
const readMembers = `
  SELECT member_id, topics
  FROM broker_member
  WHERE group_name = $1
  ORDER BY member_id`

// broker_offset_pkey; whoever claimed meanwhile has moved the epoch on, whoever was expelled meanwhile claims nothing
const claimPartitions = `
  UPDATE broker_offset o
  SET owner = $2, epoch = o.epoch + 1
  FROM UNNEST($3, $4) AS c (partition_id, epoch)
  WHERE o.partition_id = c.partition_id AND o.group_name = $1 AND o.epoch = c.epoch
    AND EXISTS (SELECT FROM broker_member m WHERE m.group_name = $1 AND m.member_id = $2)
  RETURNING o.partition_id, o.epoch, o.committed_offset`

// broker_offset_pkey
const releasePartitions = `
  UPDATE broker_offset o
  SET owner = NULL
  FROM UNNEST($3, $4) AS c (partition_id, epoch)
  WHERE o.partition_id = c.partition_id AND o.group_name = $1 AND o.owner = $2 AND o.epoch = c.epoch`

// broker_member_pkey
const deleteMember = `
  DELETE FROM broker_member
  WHERE group_name = $1 AND member_id = $2`

// broker_offset_pkey
const releaseAll = `
  UPDATE broker_offset
  SET owner = NULL
  WHERE partition_id = ANY ($3) AND group_name = $1 AND owner = $2`

// broker_offset_pkey; the epoch is the fence
const commitOffsets = `
  UPDATE broker_offset o
  SET committed_offset = GREATEST(o.committed_offset, c.next_offset), committed_at = $6
  FROM UNNEST($3, $4, $5) AS c (partition_id, epoch, next_offset)
  WHERE o.partition_id = c.partition_id AND o.group_name = $1 AND o.owner = $2 AND o.epoch = c.epoch
  RETURNING o.partition_id`

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
