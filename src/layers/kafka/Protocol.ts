import { createRequire } from "node:module"
import type { Socket } from "node:net"
import { decodeFetch, fetchVersion } from "./FetchAnswer.ts"

/**
 * What we use of kafkajs 2.2.4: its wire protocol, connections, TLS and SASL, which lie below its public clients. The
 * clients themselves are not used (docs/decisions/0010): what they do wrong cannot be seen from outside, and they keep
 * fewer promises than our port makes. The version is pinned exactly, as these paths are not its API.
 */

const load = createRequire(import.meta.url) as (path: string) => unknown

export type Api =
  | "Produce"
  | "Fetch"
  | "ListOffsets"
  | "Metadata"
  | "OffsetCommit"
  | "OffsetFetch"
  | "GroupCoordinator"
  | "JoinGroup"
  | "Heartbeat"
  | "LeaveGroup"
  | "SyncGroup"
  | "CreateTopics"

interface WireRequest {
  readonly request: { readonly apiVersion: number }
  readonly response: { readonly decode: (raw: unknown) => Promise<unknown> }
}

const schedule = "scheduleCheckPendingRequests"

interface RequestQueue {
  readonly pending: ReadonlyArray<unknown>
  readonly throttledUntil: number
  readonly destroy: () => void
}

interface Connection {
  readonly requestQueue: RequestQueue
  readonly rejectRequests: (error: Error) => void
}

/** Two connections to one broker: one for fetches, which wait, and one for everything else. */
export interface ConnectionPool {
  readonly pool: ReadonlyArray<Connection>
  readonly send: (request: unknown) => Promise<unknown>
}

export interface KafkaNode {
  readonly connect: () => Promise<void>
  readonly isConnected: () => boolean
  readonly versions: unknown
}

export interface WireLogger {
  readonly namespace: (name: string) => WireLogger
}

export type SocketFactory = (options: {
  readonly host: string
  readonly port: number
  readonly ssl: unknown
  readonly onConnect: () => void
}) => Socket

export interface ConnectionOptions {
  readonly host: string
  readonly port: number
  readonly sasl: unknown
  readonly ssl: unknown
  readonly clientId: string
  readonly socketFactory: SocketFactory
  readonly connectionTimeout: number
  readonly enforceRequestTimeout: false
  readonly logger: WireLogger
}

/**
 * It sets a timer after each response even if nothing waits, for a negative time, of which Node.js warns. That is mended
 * for all of the process, also for the clients of tests.
 */
const { prototype: queues } = load("kafkajs/src/network/requestQueue") as {
  readonly prototype: { [schedule]: (this: RequestQueue) => void }
}
const { [schedule]: scheduleCheck } = queues
queues[schedule] = function () {
  if (this.pending.length > 0 || this.throttledUntil > Date.now()) scheduleCheck.call(this)
}

export const makeConnectionPool = (options: ConnectionOptions): ConnectionPool =>
  new (load("kafkajs/src/network/connectionPool") as new (options: ConnectionOptions) => ConnectionPool)(
    options
  )

export const makeNode = (options: {
  readonly connectionPool: ConnectionPool
  readonly logger: WireLogger
}): KafkaNode =>
  new (load("kafkajs/src/broker") as new (given: object) => KafkaNode)({
    ...options,
    allowAutoTopicCreation: false
  })

const apis = load("kafkajs/src/protocol/requests") as {
  readonly requests: Readonly<Record<Api, unknown>>
  readonly lookup: (
    versions: unknown
  ) => (key: number, definition: unknown) => (parameters: object) => WireRequest
}
const apiKeys = load("kafkajs/src/protocol/requests/apiKeys") as Readonly<Record<Api, number>>

const asItCame = async (bytes: unknown) => bytes

/**
 * A request in the newest version that both sides know, whose answer comes as bytes, and what decodes them: kafkajs would
 * throw the first error code of an answer and hide what else was answered. Decoding many messages takes its time, in
 * which the broker is not silent.
 */
export const requestOf = (
  versions: unknown,
  api: Api,
  parameters: object
): { readonly request: unknown; readonly decode: (bytes: unknown) => Promise<unknown> } => {
  const { request, response, ...made } = apis.lookup(versions)(apiKeys[api], apis.requests[api])(parameters)
  if (api === "Fetch" && request.apiVersion !== fetchVersion)
    throw new Error("the broker is older than Kafka 2.4")
  const body = encodedBody in parameters ? (parameters[encodedBody] as Buffer) : undefined
  const encoded = body === undefined ? {} : { encode: async () => ({ buf: body, buffer: body }) }
  return {
    request: {
      ...made,
      request: { ...request, ...encoded },
      logResponseError: false,
      response: { decode: asItCame, parse: asItCame }
    },
    decode: api === "Fetch" ? (bytes) => decodeFetch(bytes as Buffer) : response.decode
  }
}

/** Among the parameters of a request: its body, encoded already. */
export const encodedBody = Symbol("encodedBody")

export const crc32c = load("kafkajs/src/protocol/recordBatch/crc32C") as (bytes: Buffer) => number

export const errorTypeOf = (code: number): string =>
  (
    load("kafkajs/src/protocol/error") as { createErrorFromCode: (code: number) => { type: string } }
  ).createErrorFromCode(code).type

/** kafkajs calls by the same name a connection that ended during the login, of which only its words tell. */
export const isLoginRefused = (cause: unknown): boolean => {
  const { message, name, type } = (cause ?? {}) as { message?: string; name?: string; type?: string }
  return (
    (name === "KafkaJSSASLAuthenticationError" && !/connection/i.test(message ?? "")) ||
    type === "UNSUPPORTED_SASL_MECHANISM"
  )
}

/** Error codes of Kafka's protocol that decide something here. */
export const codes = {
  none: 0,
  offsetOutOfRange: 1,
  unknownTopicOrPartition: 3,
  messageTooLarge: 10,
  coordinatorLoading: 14,
  coordinatorNotAvailable: 15,
  notCoordinator: 16,
  invalidTopic: 17,
  recordListTooLarge: 18,
  illegalGeneration: 22,
  unknownMember: 25,
  rebalanceInProgress: 27,
  topicAuthorizationFailed: 29,
  topicAlreadyExists: 36,
  memberIdRequired: 79,
  invalidRecord: 87
} as const

/** Of these the broker says that they pass: a leader is elected, a replica catches up, a topic is being made. */
const passing = new Set([2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 41, 56, 74, 75, 78, 88])
export const isPassing = (code: number): boolean => passing.has(code)

export interface GroupProtocol {
  readonly encodeMember: (topics: ReadonlyArray<string>) => Buffer
  readonly decodeMember: (bytes: Buffer) => ReadonlyArray<string>
  readonly encodeAssignment: (assignment: Readonly<Record<string, ReadonlyArray<number>>>) => Buffer
  readonly decodeAssignment: (bytes: Buffer) => Readonly<Record<string, ReadonlyArray<number>>>
}

const { MemberAssignment, MemberMetadata } = load("kafkajs/src/consumer/assignerProtocol") as {
  readonly MemberMetadata: {
    readonly encode: (metadata: object) => Buffer
    readonly decode: (bytes: Buffer) => { readonly topics: ReadonlyArray<string> }
  }
  readonly MemberAssignment: {
    readonly encode: (assignment: object) => Buffer
    readonly decode: (
      bytes: Buffer
    ) => { readonly assignment: Readonly<Record<string, ReadonlyArray<number>>> } | null
  }
}

export const groupProtocol: GroupProtocol = {
  encodeMember: (topics) => MemberMetadata.encode({ version: 0, topics }),
  decodeMember: (bytes) => MemberMetadata.decode(bytes).topics,
  encodeAssignment: (assignment) => MemberAssignment.encode({ version: 0, assignment }),
  decodeAssignment: (bytes) => MemberAssignment.decode(bytes)?.assignment ?? {}
}

export type LogLine = (level: "ERROR" | "WARN", message: string, details: object) => void

const levels = { warn: 2 }

/** kafkajs' own words, from warnings upwards. */
export const wireLogger = (write: LogLine): WireLogger =>
  (
    load("kafkajs/src/loggers") as {
      readonly createLogger: (options: object) => WireLogger
    }
  ).createLogger({
    level: levels.warn,
    logCreator:
      () =>
      ({ label, log }: { readonly label: "ERROR" | "WARN"; readonly log: Record<string, unknown> }) => {
        const { message, timestamp: _, logger: __, ...details } = log
        write(label, String(message), details)
      }
  })
