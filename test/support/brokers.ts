import { Context, Effect, Layer, Queue, type Redacted, type Scope } from "effect"
import type { GroupTimings } from "../../src/layers/Holdings.ts"
import { makeCluster } from "./MemoryBroker.ts"
import * as KafkaBroker from "../../src/layers/KafkaBroker.ts"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { DatabaseUnavailable } from "../../src/schema/Failure.ts"
import { Broker, type OutgoingMessage, messageBytesMax } from "../../src/services/messaging/Broker.ts"
import { Db, StatementFailed } from "../../src/services/Db.ts"
import { freshDatabase } from "./Postgres.ts"
import { tcpCable } from "./proxy.ts"
import { kafka } from "./shared.ts"

/** Brokers under test: each kind as a world in which replicas can be made and cut off. */

/** One process' connection to the broker. */
export interface Replica {
  readonly broker: Broker["Service"]
  /** From here on nothing gets through, either way, until `plug`: as a pulled cable, or a frozen process. */
  readonly unplug: Effect.Effect<void>
  readonly plug: Effect.Effect<void>
}

export class BrokerWorld extends Context.Service<
  BrokerWorld,
  {
    /** Another process. It leaves properly when the scope closes. */
    readonly replica: Effect.Effect<Replica, never, Scope.Scope>
    readonly makeTopic: (topic: string) => Effect.Effect<void>
    /** A message that this broker refuses for good. */
    readonly refusedMessage: (topic: string) => OutgoingMessage
    /** Whether `removeExpired` is the broker's business, and not the cluster's as with Kafka. */
    readonly removesExpired: boolean
    /** Whether more of a partition is delivered before all that was fetched with it is committed (decision 0019). */
    readonly fetchesAhead: boolean
  }
>()("holdfast/test/BrokerWorld") {}

/** Short, so that tests do not wait; long enough for a machine that does other things too. */
export const timings: GroupTimings = { heartbeatMs: 100, sessionMs: 1_500, handoverMs: 5_000, pollMs: 200 }

const tooLarge = (topic: string): OutgoingMessage => ({
  topic,
  key: "k",
  headers: {},
  value: new Uint8Array(messageBytesMax + 1)
})

export const memoryWorld: Layer.Layer<BrokerWorld> = Layer.sync(BrokerWorld, () => {
  const cluster = makeCluster({ timings })
  return BrokerWorld.of({
    replica: cluster.connect,
    makeTopic: () => Effect.void,
    refusedMessage: tooLarge,
    removesExpired: true,
    fetchesAhead: true
  })
})

/** The database under a PostgreSQL world, for what only PostgreSQL can be asked. */
export class BrokerDatabase extends Context.Service<
  BrokerDatabase,
  { readonly url: Redacted.Redacted<string> }
>()("holdfast/test/BrokerDatabase") {}

export const postgresWorld: Layer.Layer<BrokerWorld | BrokerDatabase> = Layer.effectContext(
  Effect.gen(function* () {
    const { url } = yield* freshDatabase
    return Context.make(
      BrokerWorld,
      BrokerWorld.of({
        replica: postgresReplica(url),
        makeTopic: () => Effect.void,
        refusedMessage: tooLarge,
        removesExpired: true,
        fetchesAhead: true
      })
    ).pipe(Context.add(BrokerDatabase, { url }))
  })
)

const postgresReplica = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const db = Context.get(yield* Layer.build(Postgres.layer({ url })), Db)
  const cable = yield* cableTo(db)
  const context = yield* Layer.build(
    PostgresBroker.layer({ timings }).pipe(Layer.provide(Layer.succeed(Db, cable.db)))
  )
  return { broker: Context.get(context, Broker), unplug: cable.unplug, plug: cable.plug }
})

/** A Kafka of the run's own, or that of TEST_KAFKA_BROKERS. */
export const kafkaWorld: Layer.Layer<BrokerWorld> = Layer.effect(
  BrokerWorld,
  Effect.gen(function* () {
    const brokers = (yield* kafka).brokers.split(",")
    const context = yield* Layer.build(KafkaBroker.layer({ brokers }))
    const { createTopics } = Context.get(context, Broker)
    return BrokerWorld.of({
      replica: kafkaReplica(brokers),
      makeTopic: (topic) => Effect.orDie(Effect.asVoid(createTopics([topic]))),
      refusedMessage: tooLarge,
      removesExpired: false,
      fetchesAhead: false
    })
  })
)

/** Coordinators of Kafka expel by the second rather than by the millisecond. */
const kafkaTimings: GroupTimings = { ...timings, sessionMs: 3_000 }

const kafkaReplica = Effect.fnUntraced(function* (brokers: ReadonlyArray<string>) {
  const cable = yield* tcpCable
  const context = yield* Layer.build(
    KafkaBroker.layer({
      brokers,
      timings: kafkaTimings,
      dial: cable.dial
    })
  )
  return { broker: Context.get(context, Broker), unplug: cable.cut, plug: cable.plug }
})

/** A database behind a cable that can be pulled. */
const cableTo = Effect.fnUntraced(function* (db: Db["Service"]) {
  const ears: Array<Queue.Queue<string>> = []
  let plugged = true
  const cut = new StatementFailed({ disposition: "UNAVAILABLE", sqlState: undefined, cause: "unplugged" })
  /** Pulled before, nothing happens; pulled meanwhile, it happens and the answer is lost. */
  const through = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>, failure: E) => {
    const check = Effect.suspend(() => (plugged ? Effect.void : Effect.fail(failure)))
    return Effect.andThen(check, effect).pipe(Effect.tap(check)) as Effect.Effect<A, E, Scope.Scope>
  }
  return {
    unplug: Effect.sync(() => void (plugged = false)),
    plug: Effect.suspend(() => {
      plugged = true
      return Effect.forEach(ears, (ear) => Queue.offer(ear, ""), { discard: true })
    }),
    db: Db.of({
      ...db,
      session: Effect.map(through(db.session, cut), (session) => ({
        ...session,
        run: (statement, parameters) =>
          through(session.run(statement, parameters), cut) as ReturnType<typeof session.run>
      })),
      maintain: (statement, parameters) =>
        through(
          db.maintain(statement, parameters),
          new DatabaseUnavailable({ retryAfterSeconds: 1 })
        ) as ReturnType<typeof db.maintain<never>>,
      listen: Effect.fnUntraced(function* (channel) {
        const heard = yield* db.listen(channel)
        const ear = yield* Queue.unbounded<string>()
        ears.push(ear)
        yield* Queue.take(heard).pipe(
          Effect.flatMap((payload) => (plugged ? Queue.offer(ear, payload) : Effect.void)),
          Effect.forever,
          Effect.forkScoped
        )
        return Queue.asDequeue(ear)
      })
    })
  }
})
