import { Effect, Exit, Scope } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import type { TestProject } from "vitest/node"
import type { ConnectWorker } from "./debezium.ts"
import type { Kafka } from "./kafka.ts"
import type { ProgramName } from "./program.ts"

/**
 * What a run has once, for all its files, since it takes seconds: servers in Java, and the program in few files. Each is
 * made when the first test asks for it, at a door that the run keeps open for its workers; servers end with the run.
 * Whoever uses one has topics, groups and connectors of its own.
 */

declare module "vitest" {
  interface ProvidedContext {
    /** Where what the run has once is asked for. */
    readonly shared: string
  }
}

interface Shared {
  readonly kafka: Pick<Kafka, "brokers" | "saslBrokers">
  readonly connect: ConnectWorker
  /** The file of each. */
  readonly programs: Readonly<Record<ProgramName, string>>
}

/** The globalSetup of vitest. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const scope = Scope.makeUnsafe()
  const served = <A>(server: Effect.Effect<A, never, Scope.Scope>) =>
    Effect.runPromise(Scope.provide(server, scope))
  // Imported when they are asked for: most of what they stand on is of no use here.
  const kafkaOnce = once(async () => served((await import("./kafka.ts")).ownKafka({ sasl: true })))
  const connectOnce = once(async () => {
    const brokers = givenBrokers === "" ? (await kafkaOnce()).brokers : givenBrokers
    return served((await import("./debezium.ts")).startConnect(brokers))
  })
  const programsOnce = once(async () => (await import("./program.ts")).bundle())
  const shared: { readonly [Name in keyof Shared]: () => Promise<Shared[Name]> } = {
    kafka: async () => {
      const { brokers, saslBrokers } = await kafkaOnce()
      return { brokers, saslBrokers }
    },
    connect: connectOnce,
    programs: programsOnce
  }
  const door = createServer((request, response) => {
    shared[request.url!.slice(1) as keyof Shared]().then(
      (answer) => response.end(JSON.stringify(answer)),
      (cause: unknown) => response.writeHead(500).end(String(cause))
    )
  })
  await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve))
  project.provide("shared", `http://127.0.0.1:${(door.address() as AddressInfo).port}`)
  return async () => {
    door.close()
    door.closeAllConnections()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const once = <A>(make: () => Promise<A>) => {
  let made: Promise<A> | undefined
  return () => (made ??= make())
}

const givenBrokers = process.env["TEST_KAFKA_BROKERS"] ?? ""

const shared = <Name extends keyof Shared>(name: Name): Effect.Effect<Shared[Name]> =>
  Effect.promise(async () => {
    // Imported here: the globalSetup has no business with a worker's context.
    const { inject } = await import("vitest")
    const answer = await fetch(`${inject("shared")}/${name}`)
    const text = await answer.text()
    if (!answer.ok) throw new Error(`the run has no ${name}: ${text}`)
    return JSON.parse(text) as Shared[Name]
  })

/** The run's own Kafka, for whoever needs its listener for users. */
export const sharedKafka = shared("kafka")

/** The brokers of TEST_KAFKA_BROKERS, or those of the run. */
export const kafka: Effect.Effect<{ readonly brokers: string }> =
  givenBrokers === "" ? sharedKafka : Effect.succeed({ brokers: givenBrokers })

/** The run's Kafka Connect, with Debezium in it, over the brokers of `kafka`. */
export const connectWorker = shared("connect")

/** The file of a program, to be started. */
export const program = (name: ProgramName): Effect.Effect<string> =>
  Effect.map(shared("programs"), (files) => files[name])
