import { Context, Effect, Layer, type Redacted } from "effect"
import * as Postgres from "../../src/layers/Postgres.ts"
import * as PostgresBroker from "../../src/layers/PostgresBroker.ts"
import { groupOf } from "../../src/schema/Topic.ts"
import { Broker, type IncomingMessage, type OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import { connect } from "./ledger.ts"
import { eventually, fresh } from "./service.ts"

/** Another service that speaks with a running program, through the broker that PostgreSQL keeps. */

export const messagesAt = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const sql = yield* connect(url)
  const context = yield* Layer.build(PostgresBroker.layer().pipe(Layer.provide(Postgres.layer({ url }))))
  const broker = Context.get(context, Broker)
  const publish = (...messages: ReadonlyArray<OutgoingMessage>) =>
    Effect.flatMap(Effect.orDie(broker.publish(messages)), (refusals) =>
      refusals.every((refusal) => refusal === undefined)
        ? Effect.void
        : Effect.die(new Error(`the broker refused a message: ${JSON.stringify(refusals)}`))
    )
  return {
    publish,
    /** A message as most are: JSON, keyed by what it is about. */
    send: (
      topic: string,
      value: unknown,
      { headers = {}, key = null }: { headers?: Record<string, string>; key?: string | null } = {}
    ) => publish({ topic, key, headers, value: JSON.stringify(value) }),
    /** Everything that was published to a topic has been dealt with. */
    untilDone: (topic: string) =>
      eventually(
        Effect.map(
          sql.run<{ behind: number | null }>(
            `SELECT sum(p.next_offset - coalesce(o.committed_offset, 0)) AS behind
             FROM broker_topic t
             JOIN broker_partition p USING (topic_id)
             LEFT JOIN broker_offset o ON o.partition_id = p.partition_id AND o.group_name = $2
             WHERE t.topic = $1`,
            [topic, groupOf(topic)]
          ),
          ([row]) => Number(row?.behind ?? 0)
        ),
        (behind) => behind === 0
      ),
    /** Receives a topic from its beginning, for as long as the scope is open. */
    receive: Effect.fnUntraced(function* (...topics: ReadonlyArray<string>) {
      const received: Array<IncomingMessage> = []
      const subscription = yield* Effect.orDie(broker.subscribe({ group: fresh("reader"), topics }))
      yield* Effect.gen(function* () {
        const messages = yield* subscription.poll(1_000)
        received.push(...messages)
        yield* subscription.commit(messages)
      }).pipe(Effect.retry({ times: 100 }), Effect.forever, Effect.forkScoped)
      return received
    })
  }
})

/** What a message says. */
export const said = ({ value }: IncomingMessage): Record<string, unknown> =>
  JSON.parse(Buffer.from(value!).toString()) as Record<string, unknown>
