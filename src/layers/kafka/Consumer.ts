import { Deferred, Effect, Latch, Metric, Schedule, type Scope } from "effect"
import type { Admin, Consumer, EachBatchPayload } from "kafkajs"
import {
  type BrokerUnavailable,
  type IncomingMessage,
  type Lag,
  PartitionLost,
  type Position,
  type SubscribeOptions,
  type Subscription,
  inFlightMax
} from "../../services/messaging/Broker.ts"
import {
  type GroupTimings,
  Holding,
  Holdings,
  checkNames,
  opened,
  placeOf,
  revoke,
  subscriptionOf
} from "../Holdings.ts"
import type { MissingTopics } from "../KafkaBroker.ts"
import {
  type Ask,
  type Client,
  type KafkaOptions,
  endsItsFetchers,
  errorTypeOf,
  openClient,
  requestTimeoutMs,
  unavailable
} from "./Client.ts"
import { isFilling, unreadableReason } from "./Compression.ts"

/**
 * A member of one of Kafka's consumer groups. kafkajs joins, fetches and hands over batches; it waits for a batch until
 * all of it is committed, so that nothing is in flight when it joins again. Whatever it does wrong is seen from outside
 * and ends this consumer of kafkajs; another one is made in its place.
 */

export interface ConsumerOptions {
  readonly kafka: KafkaOptions
  readonly timings: GroupTimings
  readonly subscribe: SubscribeOptions
  readonly ask: Ask<Admin>
  readonly missingTopics: MissingTopics
}

/** A fetch waits this long for messages. */
const fetchWaitMs = 500
/** In one fetch, of all partitions and of one, compressed; a batch is never cut, so that it may be larger. */
const fetchBytesMax = 2_000_000
const partitionBytesMax = 250_000
/** Batches of so many partitions are delivered beside each other. */
const partitionsAtOnce = 256
/** A partition that has stood still between two looks, so far apart, is looked into. */
const standStillMs = 30_000
/** Beyond the time in which members commit what they were given. */
const rebalanceMarginMs = 5_000
/** Attempts of kafkajs' own, within about a session; then it crashes, and is made anew. */
const attempts = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 8 }
const retryPauseMs = 50
const rebuildPauseMs = 200
const rebuildPauseMaxMs = 1_000
const leaveWithinMs = 2_000
/** How often topics are looked for that are missing, or whose partitions may have become more. */
const topicsEveryMs = 5_000

/** Real time, not the Clock service: it tells whether the broker answers, and decides nothing that is kept. */
const now = (): number => performance.now()

const rebuilds = Metric.counter("holdfast_consumer_rebuilds_total", {
  description: "Consumers of Kafka that were made anew, by group and reason (crash, session, silent)",
  incremental: true
})

interface Member {
  readonly options: ConsumerOptions
  readonly topics: ReadonlyArray<string>
  readonly holdings: Holdings
  missing: ReadonlyArray<string>
  life: Life | undefined
  /** Opened when there may be messages to deliver, or a batch is done. */
  readonly stirred: Latch.Latch
}

/** A consumer of kafkajs. */
interface Life {
  readonly client: Client
  readonly consumer: Consumer
  readonly ended: Deferred.Deferred<Reason>
  /** The batches that kafkajs waits for. */
  readonly batches: Map<Holding, Batch>
  /** What kafkajs gave with a batch acts for the whole consumer. */
  calls: Pick<EachBatchPayload, "heartbeat" | "commitOffsetsIfNecessary"> | undefined
  joined: boolean
  joiningSince: number
  /** When the coordinator last heard of this member, as far as it has answered. */
  heardAt: number
  /** When a fetch was answered, or the last batch was done. */
  fetchedAt: number
  /** What a heartbeat was answered when the group changes, until it has been joined again. */
  rebalance: unknown
  /** A partition that is looked into, and whether anything is there. */
  probe: { readonly holding: Holding; found: boolean } | undefined
}

interface Batch {
  readonly payload: EachBatchPayload
  readonly last: number
  readonly resolve: () => void
  readonly reject: (cause: unknown) => void
}

interface Reason {
  readonly reason: "crash" | "session" | "silent" | "topics"
  readonly cause?: unknown
}

export const subscribe: (
  options: ConsumerOptions
) => Effect.Effect<Subscription, BrokerUnavailable, Scope.Scope> = Effect.fnUntraced(function* (options) {
  const { subscribe: asked } = options
  yield* checkNames(asked)
  const topics = [...new Set(asked.topics)].sort()
  const member: Member = {
    options,
    topics,
    holdings: new Holdings(),
    // Whoever subscribes is told of an outage; whatever comes later is waited out.
    missing: yield* options.missingTopics(topics),
    life: undefined,
    stirred: Latch.makeUnsafe()
  }
  yield* noteMissing(member, [])
  yield* Effect.forkScoped(keepConsuming(member))
  return yield* subscriptionOf({
    holdings: member.holdings,
    take: (messagesMax, taken) => take(member, messagesMax, taken),
    commit: (positions) => commit(member, positions),
    lag: lag(member)
  })
})

// Delivery

const take = Effect.fnUntraced(function* (
  member: Member,
  messagesMax: number,
  taken: Array<IncomingMessage>
) {
  const { pollMs, sessionMs } = member.options.timings
  for (;;) {
    member.stirred.closeUnsafe()
    // Who was frozen may find itself here before its heartbeat: others may hold its partitions by now.
    const heardAt = member.life?.heardAt ?? Number.NEGATIVE_INFINITY
    if (now() - heardAt < sessionMs) {
      member.holdings.take(messagesMax, taken)
      if (taken.length > 0) return taken
    }
    yield* opened(member.stirred, pollMs)
  }
})

/** Commits that the group's next generation may accept, or another coordinator. */
const passing: ReadonlySet<string> = new Set([
  "REBALANCE_IN_PROGRESS",
  "GROUP_LOAD_IN_PROGRESS",
  "GROUP_COORDINATOR_NOT_AVAILABLE",
  "NOT_COORDINATOR_FOR_GROUP"
])
/** The group does not know this member, or no more as it was. */
const expelled: ReadonlySet<string> = new Set(["UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION"])

const commit = Effect.fnUntraced(function* (member: Member, positions: ReadonlyArray<Position>) {
  const { holdings, options } = member
  const boundMs = options.kafka.requestTimeoutMs ?? requestTimeoutMs
  const giveUpAt = now() + boundMs
  for (;;) {
    if (now() - (member.life?.heardAt ?? now()) >= options.timings.sessionMs)
      yield* revoke(holdings, options.subscribe, holdings.all)
    // Looked at anew each time: the group may have moved on meanwhile.
    const { due, lost } = holdings.committable(positions)
    if (due.length > 0) {
      const { life } = member
      const failure = yield* Effect.flip(sendCommit(life, due, boundMs)).pipe(Effect.option)
      if (failure._tag === "None") {
        for (const { holding, next } of due) {
          holding.committed = Math.max(holding.committed, next)
          settle(member, life!, holding)
        }
        member.stirred.openUnsafe()
      } else {
        const type = errorTypeOf(failure.value.cause) ?? ""
        if (expelled.has(type)) {
          lost.push(...due.map(({ holding }) => holding.place))
          yield* revoke(
            holdings,
            options.subscribe,
            due.map(({ holding }) => holding)
          )
        } else if (passing.has(type) && now() < giveUpAt) {
          yield* Effect.sleep(retryPauseMs)
          continue
        } else return yield* failure.value
      }
    }
    if (lost.length === 0) return
    return yield* new PartitionLost({ partitions: lost })
  }
})

const sendCommit = (
  life: Life | undefined,
  due: ReadonlyArray<{ readonly holding: Holding; readonly next: number }>,
  boundMs: number
): Effect.Effect<void, BrokerUnavailable> =>
  asked(
    () =>
      life?.calls?.commitOffsetsIfNecessary({
        topics: [...Map.groupBy(due, ({ holding }) => holding.place.topic)].map(([topic, of]) => ({
          topic,
          partitions: of.map(({ holding, next }) => ({
            partition: holding.place.partition,
            offset: String(next)
          }))
        }))
      }) ?? Promise.reject(new Error("the consumer is being made anew")),
    boundMs
  )

const asked = <A>(question: () => Promise<A>, withinMs: number): Effect.Effect<A, BrokerUnavailable> =>
  Effect.tryPromise({ try: question, catch: unavailable }).pipe(
    Effect.timeoutOrElse({
      duration: withinMs,
      orElse: () => Effect.fail(unavailable(new Error(`Kafka does not answer within ${withinMs} ms`)))
    })
  )

// The batches of kafkajs

const admit = (member: Member, life: Life, payload: EachBatchPayload): Promise<void> =>
  new Promise((resolve, reject) => {
    const { batch } = payload
    life.calls = payload
    const holding = member.holdings.find(batch)
    if (life !== member.life || life.rebalance !== undefined || holding === undefined) {
      const cause = life.rebalance ?? new Error("a batch of a partition that is not held")
      if (life.rebalance === undefined) crash(life, cause)
      reject(cause)
      return
    }
    if (life.probe?.holding === holding) {
      life.probe.found = true
      resolve()
      return
    }
    const messages = batch.messages.flatMap((record) => incomingOf(batch, record))
    if (holding.delivered === holding.first)
      holding.first = holding.committed = holding.delivered = messages[0]!.offset
    const last = Math.max(Number(batch.lastOffset()), messages.at(-1)!.offset)
    life.batches.set(holding, { payload, last, resolve, reject })
    holding.accept(messages)
    member.stirred.openUnsafe()
  })

const incomingOf = (
  { partition, topic }: EachBatchPayload["batch"],
  record: EachBatchPayload["batch"]["messages"][number]
): ReadonlyArray<IncomingMessage> => {
  if (isFilling(record)) return []
  const reason = unreadableReason(record)
  const first = Number(record.offset)
  const headers: Record<string, string> = {}
  // Of headers that come several times the last one counts.
  for (const [name, values] of Object.entries(record.headers ?? {}))
    headers[name] = String((Array.isArray(values) ? values.at(-1) : values) ?? "")
  const message = { topic, partition, offset: first, headers, publishedAt: Number(record.timestamp) }
  if (reason === undefined) return [{ ...message, key: record.key?.toString() ?? null, value: record.value }]
  const { batchContext } = record as { readonly batchContext?: { readonly lastOffsetDelta: number } }
  const offset = first + (batchContext?.lastOffsetDelta ?? 0)
  const unreadable = `the batch of offsets ${first} to ${offset}: ${reason}`
  return [{ ...message, offset, key: null, value: record.value, unreadable }]
}

/** Lets kafkajs go on where all of a batch is committed. */
const settle = (member: Member, life: Life, holding: Holding): void => {
  const batch = life.batches.get(holding)
  if (batch === undefined || !holding.drained || holding.buffer.length > 0) return
  // The others wait too, and then it is told of all at once.
  if (life.rebalance !== undefined) return
  life.batches.delete(holding)
  life.fetchedAt = now()
  passTo(life, holding, batch.last + 1)
  batch.payload.resolveOffset(String(batch.last))
  batch.resolve()
}

/**
 * Behind the last message there may be what is for no consumer: markers of transactions, and what those left that were
 * aborted. The group would lag for ever if it were not committed.
 */
const passTo = (life: Life, holding: Holding, next: number): void => {
  if (life.probe?.holding === holding) {
    life.probe.found = true
    return
  }
  if (!life.joined || !holding.drained || next <= holding.committed) return
  if (holding.delivered === holding.first) holding.first = next
  holding.committed = holding.delivered = next
  const { partition, topic } = holding.place
  life.consumer.commitOffsets([{ topic, partition, offset: String(next) }]).catch(() => undefined)
}

// The consumers of kafkajs, one after the other

const keepConsuming = Effect.fnUntraced(function* (member: Member) {
  const { group } = member.options.subscribe
  let pauseMs = rebuildPauseMs
  for (;;) {
    const lived = yield* Effect.scoped(live(member)).pipe(
      Effect.catch((failure) =>
        Effect.succeed({ reason: "crash", cause: failure.cause, joined: false } as const)
      ),
      Effect.catchDefect((cause) => Effect.succeed({ reason: "crash", cause, joined: false } as const))
    )
    // An answer, be it that the group's coordinator is still reading, is no outage.
    if (lived.joined || errorTypeOf(lived.cause) !== undefined) pauseMs = rebuildPauseMs
    if (lived.reason !== "topics") {
      yield* Metric.update(Metric.withAttributes(rebuilds, { group, reason: lived.reason }), 1)
      // An outage is said once, when it begins.
      if (pauseMs === rebuildPauseMs)
        yield* Effect.logWarning("a consumer of Kafka is made anew", group, lived.reason, lived.cause)
      yield* Effect.sleep(pauseMs)
      pauseMs = Math.min(rebuildPauseMaxMs, 2 * pauseMs)
    }
    const before = member.missing
    member.missing = yield* Effect.orElseSucceed(member.options.missingTopics(member.topics), () => before)
    yield* noteMissing(member, before)
  }
})

/** Names the topics that do not exist, once: whoever runs this can make them while the others work. */
const noteMissing = (
  {
    missing,
    options: {
      subscribe: { group }
    }
  }: Member,
  before: ReadonlyArray<string>
) => {
  const named = missing.join(", ")
  if (named === before.join(", ")) return Effect.void
  return named === ""
    ? Effect.logInfo("all topics are there", group)
    : Effect.logWarning(
        `topics do not exist and are waited for: ${named} (holdfast topics create makes them)`,
        group
      )
}

const live = Effect.fnUntraced(function* (member: Member) {
  const { kafka, subscribe: wanted, timings } = member.options
  const { handoverMs, heartbeatMs, sessionMs } = timings
  const boundMs = kafka.requestTimeoutMs ?? requestTimeoutMs
  const topics = member.topics.filter((topic) => !member.missing.includes(topic))
  if (topics.length === 0) {
    yield* topicsCome(member)
    return { reason: "topics", cause: undefined, joined: false } as const
  }
  const client = yield* openClient(kafka, attempts)
  const consumer = client.kafka.consumer({
    groupId: wanted.group,
    sessionTimeout: sessionMs,
    heartbeatInterval: heartbeatMs,
    rebalanceTimeout: handoverMs + rebalanceMarginMs,
    maxWaitTimeInMs: fetchWaitMs,
    maxBytes: fetchBytesMax,
    maxBytesPerPartition: partitionBytesMax,
    metadataMaxAge: Math.min(topicsEveryMs, heartbeatMs * 5),
    allowAutoTopicCreation: false,
    // Whether it is made anew is decided here.
    retry: { ...attempts, restartOnFailure: () => Promise.resolve(false) }
  })
  const life: Life = {
    client,
    consumer,
    ended: Deferred.makeUnsafe(),
    batches: new Map(),
    calls: undefined,
    joined: false,
    joiningSince: now(),
    heardAt: now(),
    fetchedAt: now(),
    rebalance: undefined,
    probe: undefined
  }
  member.life = life
  const context = yield* Effect.context<never>()
  listen(member, life, Effect.runForkWith(context))
  yield* Effect.addFinalizer(() => end(member, life))
  yield* asked(() => consumer.connect(), 2 * boundMs)
  yield* asked(() => consumer.subscribe({ topics: [...topics], fromBeginning: true }), 2 * boundMs)
  consumer
    .run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: partitionsAtOnce,
      eachBatch: (payload) => admit(member, life, payload)
    })
    .catch((cause: unknown) => crash(life, cause))
  yield* Effect.forkScoped(keepAlive(member, life))
  yield* Effect.forkScoped(watchHoles(member, life))
  const topicsCame = Effect.as(topicsCome(member), { reason: "topics" } as const)
  const { reason, cause } = (yield* Effect.raceFirst(
    Effect.raceFirst(Deferred.await(life.ended), topicsCame),
    watch(member, life)
  )) as Reason
  return { reason, cause, joined: life.joined }
})

const crash = ({ ended }: Life, cause: unknown): void =>
  void Deferred.doneUnsafe(ended, Effect.succeed({ reason: "crash", cause }))

const topicsCome = Effect.fnUntraced(function* (member: Member) {
  if (member.missing.length === 0) return yield* Effect.never
  for (;;) {
    yield* Effect.sleep(Math.min(topicsEveryMs, member.options.timings.heartbeatMs * 5))
    const missing = yield* Effect.option(member.options.missingTopics(member.missing))
    if (missing._tag === "Some" && missing.value.length < member.missing.length) return
  }
})

const listen = (member: Member, life: Life, fork: (effect: Effect.Effect<void>) => unknown): void => {
  const { consumer } = life
  const { CRASH, GROUP_JOIN, REBALANCING, REQUEST, REQUEST_TIMEOUT, START_BATCH_PROCESS } = consumer.events
  consumer.on(CRASH, ({ payload: { error } }) => crash(life, error))
  consumer.on(REQUEST, ({ payload: { apiName, duration } }) => {
    if (apiName === "Fetch") life.fetchedAt = now()
    else if (apiName === "Heartbeat" || apiName === "SyncGroup") life.heardAt = now() - duration
  })
  // kafkajs would leave the connection as it is.
  consumer.on(REQUEST_TIMEOUT, () => life.client.cut())
  consumer.on(REBALANCING, () => {
    life.joined = false
    life.joiningSince = now()
  })
  consumer.on(GROUP_JOIN, ({ payload: { memberAssignment } }) => {
    if (life === member.life) fork(joined(member, life, memberAssignment))
  })
  consumer.on(START_BATCH_PROCESS, ({ payload: { batchSize, lastOffset, partition, topic } }) => {
    const holding = batchSize === 0 ? member.holdings.find({ topic, partition }) : undefined
    if (holding !== undefined && life === member.life) passTo(life, holding, Number(lastOffset) + 1)
  })
}

/** Holds what the group has assigned. As a rule nothing was held: but a leader that moved has kafkajs join by itself. */
const joined = (
  member: Member,
  life: Life,
  assignment: Readonly<Record<string, ReadonlyArray<number>>>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { holdings, options } = member
    life.joined = true
    life.rebalance = undefined
    life.heardAt = life.fetchedAt = now()
    const assigned = Object.entries(assignment).flatMap(([topic, partitions]) =>
      partitions.map((partition) => ({ topic, partition }))
    )
    const places = new Set(assigned.map(placeOf))
    const gone = holdings.all.filter(({ place }) => !places.has(placeOf(place)))
    for (const place of assigned) {
      const holding = holdings.find(place)
      if (holding === undefined || !life.batches.has(holding))
        holdings.set(new Holding(place, 0, options.subscribe.inFlightMax ?? inFlightMax))
    }
    return Effect.map(revoke(holdings, options.subscribe, gone), () => {
      for (const holding of gone) {
        life.batches.get(holding)?.resolve()
        life.batches.delete(holding)
      }
    })
  })

/** Heartbeats while kafkajs waits for batches: between them they are its own. */
const rejoins: ReadonlySet<string> = new Set(["REBALANCE_IN_PROGRESS", "NOT_COORDINATOR_FOR_GROUP"])

const keepAlive = Effect.fnUntraced(function* (member: Member, life: Life) {
  const { heartbeatMs, sessionMs } = member.options.timings
  for (;;) {
    yield* Effect.sleep(heartbeatMs / 2)
    const { calls } = life
    if (life.batches.size === 0 || calls === undefined) continue
    const beat = yield* Effect.result(asked(() => calls.heartbeat(), sessionMs))
    if (beat._tag === "Success") continue
    const { cause } = beat.failure
    const type = errorTypeOf(cause) ?? ""
    if (!rejoins.has(type) && !expelled.has(type)) continue
    life.rebalance = cause
    yield* handOver(member, life, cause, !expelled.has(type))
  }
})

/** Delivers nothing more, and waits until what was delivered is committed or that takes too long. */
const handOver = Effect.fnUntraced(function* (
  member: Member,
  life: Life,
  cause: unknown,
  mayCommit: boolean
) {
  const { holdings, options, stirred } = member
  const { handoverMs, heartbeatMs } = options.timings
  for (const holding of holdings.all) holding.handOver(now())
  const giveUpAt = mayCommit ? now() + handoverMs : now()
  while (now() < giveUpAt && holdings.all.some(({ drained }) => !drained)) {
    if (now() - life.heardAt >= heartbeatMs)
      yield* Effect.ignore(asked(() => life.calls!.heartbeat(), heartbeatMs))
    yield* opened(stirred, retryPauseMs)
    stirred.closeUnsafe()
  }
  const handedOver = holdings.all.filter(({ handingOverSince }) => handingOverSince !== undefined)
  yield* revoke(holdings, options.subscribe, handedOver)
  life.joined = false
  life.joiningSince = now()
  const batches = [...life.batches.values()]
  life.batches.clear()
  for (const { reject } of batches) reject(cause)
})

/** Why this consumer is of no use any more. */
const watch = Effect.fnUntraced(function* (member: Member, life: Life): Effect.fn.Return<Reason> {
  const { kafka, timings } = member.options
  const { handoverMs, heartbeatMs, sessionMs } = timings
  const boundMs = kafka.requestTimeoutMs ?? requestTimeoutMs
  for (;;) {
    yield* Effect.sleep(Math.min(heartbeatMs, 500))
    if (life.joined) {
      // Others may have taken over by now. What comes back later comes back from what was committed.
      if (now() - life.heardAt >= sessionMs) return { reason: "session" }
      const fetching = life.batches.size === 0
      if (fetching && now() - life.fetchedAt >= fetchWaitMs + 2 * boundMs) return { reason: "silent" }
    } else if (now() - life.joiningSince >= handoverMs + rebalanceMarginMs + 2 * boundMs)
      return { reason: "silent" }
  }
})

/**
 * Where compaction has left nothing of a range up to the end of a segment, kafkajs asks for the same again and again. A
 * partition that stands still although there is more is looked into, and the range is passed.
 */
const watchHoles = Effect.fnUntraced(function* (member: Member, life: Life) {
  const stood = new Map<Holding, number>()
  for (;;) {
    yield* Effect.sleep(Math.min(standStillMs, member.options.timings.heartbeatMs * 15))
    const lags = yield* Effect.orElseSucceed(lag(member), () => [])
    for (const { committed, end, ...place } of lags) {
      const holding = member.holdings.find(place)
      if (holding === undefined) continue
      const stands =
        committed < end && holding.drained && holding.buffer.length === 0 && !life.batches.has(holding)
      if (stands && stood.get(holding) === committed) yield* passHole(life, holding, committed, end)
      if (stands) stood.set(holding, committed)
      else stood.delete(holding)
    }
  }
})

const passHole = Effect.fnUntraced(function* (life: Life, holding: Holding, from: number, end: number) {
  const seek = (offset: number) => life.consumer.seek({ ...holding.place, offset: String(offset) })
  const isAnythingAt = (offset: number) =>
    Effect.suspend(() => {
      const probe = (life.probe = { holding, found: false })
      seek(offset)
      return Effect.map(Effect.sleep(2 * fetchWaitMs), () => probe.found)
    })
  yield* Effect.gen(function* () {
    let empty = from
    let filled: number | undefined
    for (let step = 1; filled === undefined && empty < end - 1; step *= 2) {
      const at = Math.min(from + step, end - 1)
      if (yield* isAnythingAt(at)) filled = at
      else empty = at
    }
    while (filled !== undefined && filled - empty > 1) {
      const middle = Math.floor((empty + filled) / 2)
      if (yield* isAnythingAt(middle)) filled = middle
      else empty = middle
    }
    // Of a transaction that was open nothing is seen either: now that there is something behind, it has ended.
    const passed = filled !== undefined && !(yield* isAnythingAt(from))
    life.probe = undefined
    seek(passed ? filled! : from)
    if (passed)
      yield* Effect.logWarning("a range of a topic that compaction took is passed", {
        ...holding.place,
        from,
        next: filled
      })
  }).pipe(Effect.ensuring(Effect.sync(() => (life.probe = undefined))))
})

/** Leaves the group, if the broker listens. */
const end = Effect.fnUntraced(function* (member: Member, life: Life) {
  member.life = undefined
  yield* revoke(member.holdings, member.options.subscribe, member.holdings.all)
  // On new connections, should those that there are be silent.
  if (now() - life.heardAt >= member.options.timings.heartbeatMs * 2) life.client.cut()
  endsItsFetchers(life.consumer)
  const leaving = life.consumer.disconnect()
  for (const { resolve } of life.batches.values()) resolve()
  yield* Effect.ignore(asked(() => leaving, leaveWithinMs))
  life.client.close()
})

// Lag

const lag = (member: Member): Effect.Effect<ReadonlyArray<Lag>, BrokerUnavailable> =>
  member.options
    .ask(async (admin) => {
      const { options } = member
      const present = member.topics.filter((topic) => !member.missing.includes(topic))
      const offsets = await Promise.all(present.map((topic) => admin.fetchTopicOffsets(topic)))
      const committed = await admin.fetchOffsets({ groupId: options.subscribe.group, topics: present })
      return present.flatMap((topic, index) =>
        offsets[index]!.map(({ high, low, partition }) => {
          const of = committed.find((each) => each.topic === topic)?.partitions
          const at = Number(of?.find((each) => each.partition === partition)?.offset ?? -1)
          const end = Number(high)
          const begin = at < 0 ? Number(low) : at
          return { topic, partition, committed: begin, end, lag: Math.max(0, end - begin) }
        }).sort((a, b) => a.partition - b.partition)
      )
    })
    .pipe(
      // A new cluster needs a moment to make its offsets topic.
      Effect.retry({
        while: ({ cause }) => passing.has(errorTypeOf(cause) ?? ""),
        schedule: Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(50)])
      })
    )
