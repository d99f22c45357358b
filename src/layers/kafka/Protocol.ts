import { createRequire } from "node:module"
import type { Socket } from "node:net"
import { promisify } from "node:util"
import * as zlib from "node:zlib"

/**
 * What we use of kafkajs 2.2.4: its wire protocol, connections, TLS, SASL and compression, which lie below its public
 * clients. The clients themselves are not used (docs/decisions/0010): what they do wrong cannot be seen from outside,
 * and they keep fewer promises than our port makes. The version is pinned exactly, as these paths are not its API.
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
  readonly request: object
  readonly response: { readonly decode: (raw: unknown) => Promise<unknown> }
}

interface Connection {
  readonly requestQueue: {
    readonly pending: ReadonlyArray<unknown>
    readonly throttledUntil: number
    scheduleCheckPendingRequests: () => void
    readonly destroy: () => void
  }
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

export const makeConnectionPool = (options: ConnectionOptions): ConnectionPool => {
  const made = new (load("kafkajs/src/network/connectionPool") as new (
    options: ConnectionOptions
  ) => ConnectionPool)(options)
  for (const { requestQueue } of made.pool) {
    // It sets a timer after each response even if nothing waits, for a negative time, of which Node.js warns.
    const schedule = requestQueue.scheduleCheckPendingRequests
    requestQueue.scheduleCheckPendingRequests = () => {
      if (requestQueue.pending.length > 0 || requestQueue.throttledUntil > Date.now())
        schedule.call(requestQueue)
    }
  }
  return made
}

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
  const body = encodedBody in parameters ? (parameters[encodedBody] as Buffer) : undefined
  const encoded = body === undefined ? {} : { encode: async () => ({ buf: body, buffer: body }) }
  return {
    request: {
      ...made,
      request: { ...request, ...encoded },
      logResponseError: false,
      response: { decode: asItCame, parse: asItCame }
    },
    decode: response.decode
  }
}

/** Among the parameters of a request: its body, encoded already. */
export const encodedBody = Symbol("encodedBody")

export const crc32c = load("kafkajs/src/protocol/recordBatch/crc32C") as (bytes: Buffer) => number

const { Codecs } = load("kafkajs/src/protocol/message/compression") as {
  readonly Codecs: Record<number, () => unknown>
}
const codecOf = (
  compress: (bytes: Buffer) => Promise<Buffer>,
  decompress: (bytes: Buffer) => Promise<Buffer>
) => {
  const codec = { compress: (encoder: { readonly buffer: Buffer }) => compress(encoder.buffer), decompress }
  return () => codec
}
Codecs[4] = codecOf(promisify(zlib.zstdCompress), promisify(zlib.zstdDecompress))

export const errorTypeOf = (code: number): string =>
  (
    load("kafkajs/src/protocol/error") as { createErrorFromCode: (code: number) => { type: string } }
  ).createErrorFromCode(code).type

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

export interface WireMessage {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, Buffer | ReadonlyArray<Buffer>>>
  readonly timestamp: string
  readonly offset: string
}

/** What was fetched of a partition, without control records and what aborted transactions left. */
export interface WireBatch {
  readonly messages: ReadonlyArray<WireMessage>
  readonly rawMessages: ReadonlyArray<unknown>
  readonly lastOffset: () => string
}

export const batchOf = load("kafkajs/src/consumer/batch") as new (
  topic: string,
  fetchedOffset: string,
  partition: FetchedPartition
) => WireBatch

export interface FetchedPartition {
  readonly partition: number
  readonly errorCode: number
  readonly highWatermark: string
}

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
