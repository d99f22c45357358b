import { Context, Effect, Exit, Layer, Scope } from "effect"
import type { Consumer } from "../../src/consumers/Consumer.ts"
import * as Runner from "../../src/consumers/Runner.ts"
import type { RunnerOptions } from "../../src/consumers/Worker.ts"
import { makeCluster } from "./MemoryBroker.ts"
import * as Postgres from "../../src/layers/Postgres.ts"
import { groupOf } from "../../src/schema/Topic.ts"
import { Broker, type IncomingMessage, type OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import { Db } from "../../src/services/Db.ts"
import { DeadLetters } from "../../src/services/messaging/DeadLetters.ts"
import { FailPoint } from "../../src/services/FailPoint.ts"
import { timings } from "./brokers.ts"
import { freshDatabase } from "./Postgres.ts"
import { eventually } from "./service.ts"

/** Consumers at work over a broker in memory, with its faults at hand, and a real database. */

/** As large as a poisonous message may be. */
const messageBytesMax = 8 * 1024 * 1024

export const streams = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  const cluster = makeCluster({ timings, messageBytesMax })
  const { broker } = yield* cluster.connect
  const db = Context.get(yield* Layer.build(Postgres.layer({ url })), Db)
  const base = Context.make(Db, db)
  const deadLettersOver = (over: Broker["Service"]) =>
    Effect.map(
      Layer.build(
        DeadLetters.layer.pipe(Layer.provide(Layer.succeedContext(Context.add(base, Broker, over))))
      ),
      (context) => Context.get(context, DeadLetters)
    )
  const deadLetters = yield* deadLettersOver(broker)

  /** Another process with these consumers, until it is stopped or crashes. */
  const start = Effect.fnUntraced(function* <E, R>(
    consumers: ReadonlyArray<Consumer<E, R>>,
    context: Context.Context<R>,
    options: Partial<RunnerOptions> & {
      readonly failPoint?: typeof FailPoint.Service
      /** What becomes of a message on its way to the consumer. */
      readonly delivered?: (message: IncomingMessage) => IncomingMessage
    } = {}
  ) {
    const replica = yield* cluster.connect
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const { delivered = (message) => message, failPoint, ...runner } = options
    const delivering = Broker.of({
      ...replica.broker,
      subscribe: (asked) =>
        Effect.map(replica.broker.subscribe(asked), (subscription) => ({
          ...subscription,
          poll: (max) => Effect.map(subscription.poll(max), (messages) => messages.map(delivered))
        }))
    })
    const layer = Runner.layer(consumers, {
      defaultMerchantId: undefined,
      refusalPatienceMs: 0,
      ...runner
    }).pipe(
      Layer.provide(
        Layer.succeedContext(
          Context.merge(base, context).pipe(
            Context.add(Broker, delivering),
            Context.add(DeadLetters, yield* deadLettersOver(replica.broker))
          )
        )
      )
    )
    const build = Layer.buildWithScope(layer as Layer.Layer<never, never, never>, scope)
    yield* failPoint === undefined ? build : Effect.provideService(build, FailPoint, failPoint)
    return { ...replica, stop: Scope.close(scope, Exit.void) }
  })

  /** What the group of a topic has not committed. */
  const lag = (topic: string) => cluster.lag(groupOf(topic), topic)

  return {
    url,
    cluster,
    broker,
    db,
    deadLetters,
    start,
    publish: (...messages: ReadonlyArray<OutgoingMessage>) => Effect.orDie(broker.publish(messages)),
    lag,
    untilDone: (topic: string) => eventually(lag(topic), (left) => left === 0),
    /** All that lies in a topic. */
    read: (topic: string, count: number) =>
      Effect.scoped(
        Effect.gen(function* () {
          const subscription = yield* broker.subscribe({ group: `reader.${++readers}`, topics: [topic] })
          const messages: Array<IncomingMessage> = []
          while (messages.length < count) {
            const polled = yield* subscription.poll(100)
            messages.push(...polled)
            yield* subscription.commit(polled)
          }
          return messages
        })
      ).pipe(Effect.orDie)
  }
})
let readers = 0
