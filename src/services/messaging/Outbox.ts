import { Clock, Context, Effect, Layer, Metric, Option, Queue, Schedule } from "effect"
import type { DatabaseUnavailable } from "../../schema/Failure.ts"
import { type OutboxEvent, envelopeOf, headersOf } from "../../schema/Event.ts"
import { Broker, type BrokerUnavailable } from "./Broker.ts"
import { keyOf } from "../kernel/Needs.ts"
import { Db, type Row, type Session, type StatementFailed } from "../Db.ts"
import { passFailPoint } from "../FailPoint.ts"
import { outboxBuckets, outboxChannel } from "../OutboxBuckets.ts"
import { arrays, parameter, rowsOf } from "../PostgresTypes.ts"

// One file: a round reads, sends, marks and holds back by one protocol, whose steps are right only together.

/** An event that the broker refused, or that waits behind one or for its topic. */
export interface HeldEvent {
  readonly eventId: string
  readonly merchantId: string
  readonly state: "FAILED" | "HELD" | "REQUEUED" | "WAITING"
  readonly key: string
  readonly event: OutboxEvent
  readonly error: string | null
}

/**
 * Tells the world what was committed: at least once, in the order of each key, with any number of dispatchers. An
 * outage of broker or database is waited out, and so is a topic that does not exist, while all others go on; only the
 * broker's refusal of a record makes an event FAILED, and that holds back its key.
 */
export class Outbox extends Context.Service<
  Outbox,
  {
    /** Publishes for as long as it runs. Several may run: each bucket is one dispatcher's at a time. */
    readonly dispatch: Effect.Effect<never>
    readonly held: Effect.Effect<ReadonlyArray<HeldEvent>, DatabaseUnavailable>
    /** FAILED events are tried again, before those that wait behind them. Returns how many. */
    readonly requeue: (eventIds: ReadonlyArray<string>) => Effect.Effect<number, DatabaseUnavailable>
    /** FAILED events are given up, and those behind them go on; so are those that are WAITING. Returns how many. */
    readonly drop: (eventIds: ReadonlyArray<string>) => Effect.Effect<number, DatabaseUnavailable>
    /** Removes what was sent longer ago than this, in bounded batches; what was not sent stays. Returns how many rows. */
    readonly removeSent: (olderThanMs: number) => Effect.Effect<number, DatabaseUnavailable>
  }
>()("holdfast/services/Outbox") {
  static readonly layer = Layer.effect(
    Outbox,
    Effect.gen(function* () {
      const db = yield* Db
      const broker = yield* Broker

      const held: Outbox["Service"]["held"] = Effect.map(db.maintain<HeldRow>(heldStatement, []), (rows) =>
        rows.map((row) => ({ ...row, event: JSON.parse(row.event) as OutboxEvent }))
      )
      const count = (statement: string, parameters: ReadonlyArray<unknown>) =>
        Effect.map(db.maintain<{ count: number }>(statement, parameters), ([row]) => row?.count ?? 0)

      return Outbox.of({
        dispatch: dispatch(db, broker),
        held,
        requeue: (eventIds) => count(requeueStatement, [arrays.text(eventIds)]),
        drop: (eventIds) => count(dropStatement, [arrays.text(eventIds)]),
        removeSent: Effect.fn("Outbox.removeSent")(function* (olderThanMs) {
          const before = (yield* Clock.currentTimeMillis) - olderThanMs
          let removed = 0
          for (;;) {
            const batch = yield* count(removeSentStatement, [
              parameter("timestamptz", before),
              parameter("int4", removeBatch),
              parameter("int4", outboxBuckets)
            ])
            removed += batch
            if (batch === 0) return removed
          }
        })
      })
    })
  )
}

/** Why a broker refuses what it has no topic for. */
const noTopic = "UNKNOWN_TOPIC"
/** Group rows read at once: a few thousand events. */
const groupsPerRead = 64
/** A record that the broker refuses is offered this often before its event is FAILED. */
const refusalsMax = 3
/** Notifications wake the dispatcher; this is the backstop, and how soon another's buckets are taken over. */
const pollEvery = "500 millis"
/**
 * Rounds of a bucket begin at least this far apart, so that under load a round takes along what many batches wrote: a
 * round costs two commits however much it carries. What comes after a silence goes at once.
 */
const roundSpacingMs = 20
/** Group rows of a bucket that one statement removes at most. */
const removeBatch = 500
const waitOut = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])
/** How often topics are looked for that events wait for. */
const topicsEveryMs = 5_000
/** The first half of the advisory locks that buckets are held by; the second is the bucket. */
const bucketLocks = 0x686f6c64

const published = Metric.counter("holdfast_outbox_events_published_total", {
  description: "Events that the broker acknowledged",
  incremental: true
})
const refusedEvents = Metric.counter("holdfast_outbox_events_failed_total", {
  description: "Events that the broker refused for good",
  incremental: true
})
const delaySeconds = Metric.histogram("holdfast_outbox_delay_seconds", {
  description: "Time from an event's posting to the broker's acknowledgement",
  boundaries: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300]
})
const outages = Metric.counter("holdfast_outbox_outages_total", {
  description:
    "Times that the dispatcher met an outage and waited it out, by what was away (broker, database)",
  incremental: true
})
const heldEvents = Metric.gauge("holdfast_outbox_events_held", {
  description: "Events that are set aside: refused by the broker, behind one that was, or without their topic"
})
const depth = Metric.gauge("holdfast_outbox_events_pending", {
  description: "Events that wait to be published"
})
const age = Metric.gauge("holdfast_outbox_oldest_seconds", {
  description: "Age of the oldest event that waits"
})

/** A dispatcher outlives every failure of database and broker: it begins again on a new connection. */
const dispatch = (db: Db["Service"], broker: Broker["Service"]): Effect.Effect<never> =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* db.session
      const wakes = yield* db.listen(outboxChannel)
      const buckets = Array.from({ length: outboxBuckets }, (_, bucket) => bucket)
      const signals = yield* Effect.forEach(buckets, () => Queue.sliding<void>(1))
      const relay = Effect.forever(
        Effect.map(Queue.take(wakes), (named) => {
          // The buckets that were written to; nothing after a lost connection: all of them.
          const woken = named === "" ? buckets : named.split(",").map(Number)
          for (const bucket of woken)
            if (signals[bucket] !== undefined) Queue.offerUnsafe(signals[bucket], undefined)
        })
      )
      return yield* Effect.raceFirst(
        relay,
        Effect.raceFirst(
          keepMeasuring(db),
          Effect.forEach(buckets, (bucket) => runBucket(session, broker, bucket, signals[bucket]!), {
            concurrency: "unbounded"
          }) as Effect.Effect<never, StatementFailed>
        )
      )
    })
  ).pipe(
    Effect.tapError((failure) =>
      Effect.andThen(
        Metric.update(Metric.withAttributes(outages, { away: "database" }), 1),
        Effect.logWarning("the dispatcher begins again", failure)
      )
    ),
    Effect.retry(waitOut),
    Effect.catchCause((cause) =>
      Effect.andThen(Effect.logError("the dispatcher died", cause), Effect.sleep("1 second"))
    ),
    Effect.forever
  ) as Effect.Effect<never>

/** Publishes one bucket for as long as its lock is held; the lock goes with the connection. */
const runBucket = Effect.fnUntraced(function* (
  session: Session,
  broker: Broker["Service"],
  bucket: number,
  signal: Queue.Queue<void>
) {
  const lock = [parameter("int4", bucketLocks), parameter("int4", bucket)]
  for (;;) {
    const [row] = yield* session.run("SELECT pg_try_advisory_lock($1, $2)", lock)
    if (row?.[0] === true) break
    yield* Effect.sleep(pollEvery)
  }
  // A row that somebody has garbled stops its own bucket, whose keys it may be one of, and no other.
  return yield* publishBucket(session, broker, bucket, signal).pipe(
    Effect.catchDefect((defect) =>
      Effect.andThen(
        Effect.logError(`bucket ${bucket} of the outbox cannot be published`, defect),
        Effect.sleep("1 second")
      )
    ),
    Effect.forever
  )
})

const publishBucket = Effect.fnUntraced(function* (
  session: Session,
  broker: Broker["Service"],
  bucket: number,
  signal: Queue.Queue<void>
): Effect.fn.Return<never, StatementFailed | BrokerUnavailable> {
  const pause = Effect.timeoutOption(Queue.take(signal), pollEvery)
  const which = [parameter("int4", bucket)]
  const absent = new AbsentTopics()
  for (const [topic] of yield* session.run(waitingStatement, which)) absent.add(topic as string)
  let roundAt = 0
  let lookAt = 0
  for (;;) {
    yield* Effect.sleep(Math.max(0, roundAt + roundSpacingMs - (yield* Clock.currentTimeMillis)))
    roundAt = yield* Clock.currentTimeMillis
    if (absent.any && roundAt >= lookAt) {
      yield* lookForTopics(broker, absent)
      lookAt = (yield* Clock.currentTimeMillis) + topicsEveryMs
    }
    const { returned } = absent
    // One round trip: what was let go goes before what is read beside it, which is then read again.
    const [released, pending, holds] = yield* Effect.all(
      [
        session.run(releasedStatement, [parameter("int4", bucket), parameter("text", returned ?? null)]),
        session.run(pendingStatement, [parameter("int4", bucket), parameter("int4", groupsPerRead)]),
        session.run(holdsStatement, which)
      ],
      { concurrency: "unbounded" }
    )
    if (released.length > 0) yield* publishReleased(session, broker, released, absent)
    else {
      if (returned !== undefined) absent.settle(returned)
      if (pending.length > 0) yield* publishPending(session, broker, bucket, pending, holds, absent)
      if (pending.length < groupsPerRead) yield* pause
      else roundAt = 0
    }
  }
})

/**
 * The topics that events of a bucket wait for. While some wait, what comes later for the topic waits behind them, whatever
 * its key; other topics go on, as no order is promised among topics.
 */
class AbsentTopics {
  /** Whether the topic has come back: then what waits for it is published, and after that it is absent no more. */
  private readonly topics = new Map<string, boolean>()

  get any(): boolean {
    return this.topics.size > 0
  }
  get names(): ReadonlyArray<string> {
    return [...this.topics.keys()]
  }
  /** One that has come back. */
  get returned(): string | undefined {
    for (const [topic, returned] of this.topics) if (returned) return topic
    return undefined
  }
  /** Whether events wait for it, or did a moment ago. */
  has(topic: string): boolean {
    return this.topics.has(topic)
  }
  isAway(topic: string): boolean {
    return this.topics.get(topic) === false
  }
  add(topic: string): void {
    this.topics.set(topic, false)
  }
  comesBack(topic: string): void {
    this.topics.set(topic, true)
  }
  /** Nothing waits for it any more. */
  settle(topic: string): void {
    if (this.topics.get(topic) === true) this.topics.delete(topic)
  }
}

/** An outage says nothing of topics: they are looked for again. */
const lookForTopics = Effect.fnUntraced(function* (broker: Broker["Service"], absent: AbsentTopics) {
  const missing = yield* Effect.option(broker.missingTopics(absent.names))
  if (Option.isNone(missing)) return
  for (const topic of absent.names) {
    if (missing.value.includes(topic) || !absent.isAway(topic)) continue
    absent.comesBack(topic)
    yield* Effect.logInfo("a topic is there that events waited for", topic)
  }
})

interface Dispatched {
  readonly event: OutboxEvent
  readonly position: number
  readonly ordinal: number
}

/** Publishes the next groups of a bucket and marks them. */
const publishPending = Effect.fnUntraced(function* (
  session: Session,
  broker: Broker["Service"],
  bucket: number,
  rows: ReadonlyArray<Row>,
  holds: ReadonlyArray<Row>,
  absent: AbsentTopics
) {
  const events: Array<Dispatched> = rows.flatMap(([position, , text]) =>
    (JSON.parse(text as string) as ReadonlyArray<OutboxEvent>).map((event, ordinal) => ({
      event,
      position: position as number,
      ordinal
    }))
  )
  const behind = new Set(holds.map(([merchantId, key]) => keyOf(merchantId as string, key as string)))
  const aside = yield* publishInOrder(broker, events, behind, absent, (topic) => absent.has(topic))
  yield* passFailPoint("afterSendBeforeMark")
  const now = yield* Clock.currentTimeMillis
  yield* session.run(markStatement, [
    parameter("int4", bucket),
    arrays.int8(rows.map(([position]) => position)),
    arrays.timestamptz(rows.map(([, recordedAt]) => recordedAt)),
    parameter("timestamptz", now),
    ...setAside(aside)
  ])
})

/** Orders of two merchants may have one name: what holds back the one is no concern of the other. */
const ownKeyOf = ({ key, merchantId }: OutboxEvent): string => keyOf(merchantId, key)

interface Aside extends Dispatched {
  readonly state: "FAILED" | "HELD" | "WAITING"
  readonly error: string | null
}

const setAside = (aside: ReadonlyArray<Aside>) => [
  arrays.text(aside.map(({ event }) => event.merchantId)),
  arrays.text(aside.map(({ event }) => event.id)),
  arrays.text(aside.map(({ state }) => state)),
  arrays.text(aside.map(({ event }) => event.topic)),
  arrays.int8(aside.map(({ position }) => position)),
  arrays.int4(aside.map(({ ordinal }) => ordinal)),
  arrays.text(aside.map(({ event }) => event.key)),
  arrays.text(aside.map(({ event }) => JSON.stringify(event))),
  arrays.text(aside.map(({ error }) => error))
]

/**
 * Publishes events in order, except those behind a refused one, and those that wait for their topic. Waits an outage out.
 * Returns what is to be set aside: these, and the refused ones.
 */
const publishInOrder = Effect.fnUntraced(function* (
  broker: Broker["Service"],
  events: ReadonlyArray<Dispatched>,
  behind: Set<string>,
  absent: AbsentTopics,
  mustWait: (topic: string) => boolean
) {
  const aside: Array<Aside> = []
  const isAside = (held: Dispatched): boolean => {
    const { event } = held
    if (behind.has(ownKeyOf(event))) aside.push({ ...held, state: "HELD", error: null })
    else if (mustWait(event.topic)) aside.push({ ...held, state: "WAITING", error: noTopic })
    else return false
    return true
  }
  let refused = events
  for (let known = false; !known;) {
    const offered = refused.filter((held) => !isAside(held))
    const answers = yield* untilAnswered(broker, offered)
    refused = offered.filter((_, index) => answers[index] !== undefined)
    known = true
    for (const [index, { event }] of offered.entries()) {
      if (answers[index]?.reason !== noTopic || mustWait(event.topic)) continue
      absent.add(event.topic)
      known = false
      yield* Effect.logWarning(
        "events wait for a topic that does not exist, and the others go on",
        event.topic
      )
    }
  }
  // The rare path, one by one: the broker has also refused what follows a refused record in its key.
  for (const again of refused) {
    if (isAside(again)) continue
    const error = yield* offerAgain(broker, again)
    if (error === undefined) continue
    if (error.reason === noTopic) {
      absent.add(again.event.topic)
      aside.push({ ...again, state: "WAITING", error: noTopic })
      continue
    }
    behind.add(ownKeyOf(again.event))
    aside.push({ ...again, state: "FAILED", error: `${error.reason}: ${error.detail}` })
    yield* Metric.update(refusedEvents, 1)
    yield* Effect.logError("the broker refused an event: its key is held back", {
      id: again.event.id,
      topic: again.event.topic,
      error: error.reason
    })
  }
  yield* Metric.update(published, events.length - aside.length)
  return aside
})

/** The refusal of the last offer, or `undefined` once one is taken. */
const offerAgain = (broker: Broker["Service"], refused: Dispatched) =>
  Effect.map(untilAnswered(broker, [refused]), ([refusal]) => refusal).pipe(
    Effect.repeat({
      until: (refusal) => refusal === undefined,
      // The round that found it and the first offer here are two of them.
      times: refusalsMax - 2,
      schedule: Schedule.spaced("100 millis")
    })
  )

const untilAnswered = (broker: Broker["Service"], events: ReadonlyArray<Dispatched>) =>
  broker
    .publish(
      events.map(({ event }) => ({
        topic: event.topic,
        key: event.key,
        headers: headersOf(event),
        value: envelopeOf(event)
      }))
    )
    .pipe(
      Effect.tapError((failure: BrokerUnavailable) =>
        Effect.andThen(
          Metric.update(Metric.withAttributes(outages, { away: "broker" }), 1),
          Effect.logWarning("the broker does not answer", failure)
        )
      ),
      Effect.retry(waitOut),
      Effect.tap(() =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          events.length === 0 ? Effect.void : Metric.update(delaySeconds, (now - events[0]!.event.at) / 1000)
        )
      )
    )

/**
 * Publishes what has been let go, before newer events: by an operator, those of keys of which none is FAILED any more; or
 * because their topic is there now.
 */
const publishReleased = Effect.fnUntraced(function* (
  session: Session,
  broker: Broker["Service"],
  rows: ReadonlyArray<Row>,
  absent: AbsentTopics
) {
  const events = rows.map(([text, position, ordinal]) => ({
    event: JSON.parse(text as string) as OutboxEvent,
    position: position as number,
    ordinal: ordinal as number
  }))
  const aside = yield* publishInOrder(broker, events, new Set(), absent, (topic) => absent.isAway(topic))
  const kept = new Map(aside.map((held) => [held.event.id, held]))
  const sent = events.filter(({ event }) => !kept.has(event.id))
  yield* session.run(settleReleasedStatement, [
    arrays.text(sent.map(({ event }) => event.merchantId)),
    arrays.text(sent.map(({ event }) => event.id)),
    arrays.text(aside.map(({ event }) => event.merchantId)),
    arrays.text(aside.map(({ event }) => event.id)),
    arrays.text(aside.map(({ state }) => state)),
    arrays.text(aside.map(({ error }) => error))
  ])
})

const keepMeasuring = (db: Db["Service"]): Effect.Effect<never> =>
  Effect.gen(function* () {
    const [row] = yield* db.maintain<{ events: number; oldest: number | null; held: number }>(
      depthStatement,
      []
    )
    const now = yield* Clock.currentTimeMillis
    yield* Metric.update(depth, row?.events ?? 0)
    yield* Metric.update(heldEvents, row?.held ?? 0)
    yield* Metric.update(
      age,
      row === undefined || row.oldest === null ? 0 : Math.max(0, (now - row.oldest) / 1000)
    )
  }).pipe(Effect.ignore, Effect.andThen(Effect.sleep("5 seconds")), Effect.forever)

// outbox_pending
const pendingStatement = `
  SELECT position, recorded_at, events
  FROM outbox
  WHERE bucket = $1 AND sent_at IS NULL
  ORDER BY position
  LIMIT $2`

// outbox_failure_by_key
const holdsStatement = `
  SELECT DISTINCT merchant_id, event_key
  FROM outbox_failure
  WHERE bucket = $1 AND state <> 'WAITING'`

// outbox_failure_by_topic: once, by whoever takes the bucket over
const waitingStatement = `
  SELECT DISTINCT topic
  FROM outbox_failure
  WHERE bucket = $1 AND state = 'WAITING'`

// outbox_pkey
const markStatement = `
  WITH aside AS (
    INSERT INTO outbox_failure (merchant_id, event_id, state, topic, bucket, position, ordinal, event_key, event, error,
      recorded_at)
    SELECT merchant_id, event_id, state, topic, $1, position, ordinal, event_key, event, error, $4
    FROM ${rowsOf(["merchant_id", "event_id", "state", "topic", "position", "ordinal", "event_key", "event", "error"], 5)} AS u
    ON CONFLICT (merchant_id, event_id) DO NOTHING
  )
  UPDATE outbox o
  SET sent_at = $4
  FROM ${rowsOf(["position", "recorded_at"], 2)} AS sent
  WHERE o.bucket = $1 AND o.position = sent.position AND o.recorded_at = sent.recorded_at AND o.sent_at IS NULL`

// outbox_failure_by_key; outbox_failure_by_topic
const releasedStatement = `
  SELECT event, position, ordinal
  FROM (
    (
      SELECT f.event, f.position, f.ordinal
      FROM outbox_failure f
      WHERE f.bucket = $1 AND f.state <> 'WAITING'
        AND NOT EXISTS (
          SELECT 1
          FROM outbox_failure blocking
          WHERE blocking.bucket = f.bucket AND blocking.event_key = f.event_key
            AND blocking.merchant_id = f.merchant_id AND blocking.state = 'FAILED'
        )
      ORDER BY f.position, f.ordinal
      LIMIT 1000
    )
    UNION ALL
    (
      SELECT f.event, f.position, f.ordinal
      FROM outbox_failure f
      WHERE f.bucket = $1 AND f.state = 'WAITING' AND f.topic = $2
      ORDER BY f.position, f.ordinal
      LIMIT 1000
    )
  ) released
  ORDER BY position, ordinal`

// outbox_failure_pkey
const settleReleasedStatement = `
  WITH gone AS (
    DELETE FROM outbox_failure f
    USING ${rowsOf(["merchant_id", "event_id"])} AS sent
    WHERE f.merchant_id = sent.merchant_id AND f.event_id = sent.event_id
  )
  UPDATE outbox_failure f
  SET state = kept.state, error = kept.error
  FROM ${rowsOf(["merchant_id", "event_id", "state", "error"], 3)} AS kept
  WHERE f.merchant_id = kept.merchant_id AND f.event_id = kept.event_id`

interface HeldRow extends Omit<HeldEvent, "event"> {
  readonly event: string
}

const heldStatement = `
  SELECT event_id AS "eventId", merchant_id AS "merchantId", state, event_key AS "key", event, error
  FROM outbox_failure
  ORDER BY state = 'WAITING', bucket, position, ordinal
  LIMIT 1000`

const requeueStatement = `
  WITH requeued AS (
    UPDATE outbox_failure SET state = 'REQUEUED' WHERE event_id = ANY ($1) AND state = 'FAILED' RETURNING 1
  )
  SELECT count(*) AS count FROM requeued`

const dropStatement = `
  WITH dropped AS (
    DELETE FROM outbox_failure WHERE event_id = ANY ($1) AND state IN ('FAILED', 'WAITING') RETURNING 1
  )
  SELECT count(*) AS count FROM dropped`

const depthStatement = `
  SELECT COALESCE(sum(event_count), 0)::bigint AS events, min(recorded_at) AS oldest,
         (SELECT count(*) FROM outbox_failure) AS held
  FROM outbox
  WHERE sent_at IS NULL`

// outbox_pkey: positions of a bucket grow with time, so that what is old enough is at its beginning. What waits there
// still is passed over.
const removeSentStatement = `
  WITH old AS (
    SELECT earliest.bucket, earliest.position, earliest.recorded_at
    FROM generate_series(0, $3 - 1) AS b (bucket)
    CROSS JOIN LATERAL (
      SELECT o.bucket, o.position, o.recorded_at, o.sent_at
      FROM outbox o
      WHERE o.bucket = b.bucket
      ORDER BY o.position
      LIMIT $2
    ) earliest
    WHERE earliest.sent_at < $1
  ), removed AS (
    DELETE FROM outbox o
    USING old
    WHERE o.bucket = old.bucket AND o.position = old.position AND o.recorded_at = old.recorded_at
    RETURNING o.recorded_at
  ), marked AS (
    INSERT INTO retention_mark (table_name, kept_since)
    SELECT 'outbox', max(recorded_at) FROM removed HAVING count(*) > 0
    ON CONFLICT (table_name) DO UPDATE
    SET kept_since = GREATEST(retention_mark.kept_since, excluded.kept_since)
  )
  SELECT count(*) AS count FROM removed`
