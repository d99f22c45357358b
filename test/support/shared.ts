import { Effect, Exit, Scope } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import type { TestProject } from "vitest/node"
import type { ConnectWorker } from "./debezium.ts"
import type { Kafka } from "./kafka.ts"

/**
 * Servers in Java that a run has once, for all its files: they take seconds to start. Each starts when the first test
 * asks for it, at a door that the run keeps open for its workers, and ends with the run. Whoever uses one has topics,
 * groups and connectors of its own.
 */

declare module "vitest" {
  interface ProvidedContext {
    /** Where the run's servers are asked for. */
    readonly sharedServers: string
  }
}

type SharedKafka = Pick<Kafka, "brokers" | "saslBrokers">

/** The globalSetup of vitest. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const scope = Scope.makeUnsafe()
  const once = <A>(start: () => Promise<Effect.Effect<A, never, Scope.Scope>>) => {
    let started: Promise<A> | undefined
    return () => (started ??= start().then((server) => Effect.runPromise(Scope.provide(server, scope))))
  }
  // Imported when they are asked for: most of what they stand on is of no use here.
  const startedKafka = once(async () => (await import("./kafka.ts")).ownKafka({ sasl: true }))
  const startedConnect = once(async () =>
    (await import("./debezium.ts")).startConnect(
      givenBrokers === "" ? (await startedKafka()).brokers : givenBrokers
    )
  )
  const servers: Readonly<Record<string, () => Promise<SharedKafka | ConnectWorker>>> = {
    "/kafka": async () => {
      const { brokers, saslBrokers } = await startedKafka()
      return { brokers, saslBrokers }
    },
    "/connect": startedConnect
  }
  const door = createServer((request, response) => {
    servers[request.url!]!().then(
      (answer) => response.end(JSON.stringify(answer)),
      (cause: unknown) => response.writeHead(500).end(String(cause))
    )
  })
  await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve))
  project.provide("sharedServers", `http://127.0.0.1:${(door.address() as AddressInfo).port}`)
  return async () => {
    door.close()
    door.closeAllConnections()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const givenBrokers = process.env["TEST_KAFKA_BROKERS"] ?? ""

const shared = <A>(name: "kafka" | "connect"): Effect.Effect<A> =>
  Effect.promise(async () => {
    // Imported here: the globalSetup has no business with a worker's context.
    const { inject } = await import("vitest")
    const answer = await fetch(`${inject("sharedServers")}/${name}`)
    const text = await answer.text()
    if (!answer.ok) throw new Error(`the run has no ${name}: ${text}`)
    return JSON.parse(text) as A
  })

/** The run's own Kafka, for whoever needs its listener for users. */
export const sharedKafka: Effect.Effect<SharedKafka> = shared("kafka")

/** The brokers of TEST_KAFKA_BROKERS, or those of the run. */
export const kafka: Effect.Effect<{ readonly brokers: string }> =
  givenBrokers === "" ? sharedKafka : Effect.succeed({ brokers: givenBrokers })

/** The run's Kafka Connect, with Debezium in it, over the brokers of `kafka`. */
export const connectWorker: Effect.Effect<ConnectWorker> = shared("connect")
