import { Schema } from "effect"
import {
  type PublishedTopic,
  type ReceivedTopic,
  groupOf,
  publishedTopics,
  receivedTopics
} from "../schema/Topic.ts"

/** The document of /asyncapi.json (AsyncAPI 3.0), made of the schemas that decode what comes in. */

type Json = Readonly<Record<string, unknown>>

const ref = (...path: ReadonlyArray<string>): Json => ({
  $ref: `#/${path.map((part) => part.replaceAll("~", "~0").replaceAll("/", "~1")).join("/")}`
})
const schemaRef = (name: string): Json => ref("components", "schemas", name)

/** Schemas by the names that they have of themselves, as references within the document. */
class Components {
  readonly schemas: Record<string, unknown> = {}

  add(schema: Schema.Constraint): unknown {
    const { definitions, schema: own } = Schema.toJsonSchemaDocument(schema)
    for (const [name, definition] of Object.entries(definitions)) {
      this.put(name, relocated(definition))
    }
    return relocated(own)
  }
  put(name: string, schema: unknown): void {
    const before = this.schemas[name]
    // Two schemas of one name would each be taken for the other.
    if (before !== undefined && JSON.stringify(before) !== JSON.stringify(schema)) {
      throw new Error(`two schemas are called ${name}`)
    }
    this.schemas[name] = schema
  }
}

const relocated = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(relocated)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) =>
      name === "$ref" && typeof member === "string"
        ? [name, member.replace(/^#\/\$defs\//, "#/components/schemas/")]
        : [name, relocated(member)]
    )
  )
}

const text = { type: "string" }
const commonHeaders: Json = {
  "x-request-id": { ...text, description: "The request that it is part of: goes on with all that follows" },
  traceparent: { ...text, description: "W3C trace context" },
  "x-merchant-id": { ...text, description: "The merchant, where the value names none" }
}
/** CloudEvents 1.0, binary mode. */
const eventHeaders: Json = {
  ...commonHeaders,
  ce_id: text,
  ce_type: text,
  ce_source: { const: "holdfast" },
  ce_time: { ...text, format: "date-time" },
  ce_specversion: { const: "1.0" },
  "content-type": { const: "application/json" }
}
const deadLetterHeaders: Json = {
  "dlq-id": { ...text, description: "What holdfast dlq calls it" },
  "dlq-reason": {
    ...text,
    description:
      "Why: UNREADABLE, EMPTY, NOT_JSON, TOO_LARGE, INVALID, MERCHANT_UNRESOLVED, IDENTITY_UNRESOLVED, DEFECT, or what refused it"
  },
  "dlq-detail": text,
  "dlq-topic": text,
  "dlq-partition": text,
  "dlq-offset": text,
  "dlq-published-at": { ...text, format: "date-time" },
  "dlq-recorded-at": { ...text, format: "date-time" }
}
const headers = (properties: Json, required: ReadonlyArray<string> = []): Json => ({
  type: "object",
  properties,
  ...(required.length > 0 ? { required } : {})
})

const received = (
  components: Components,
  { format, payload, topic, summary, onceFor }: ReceivedTopic
): Json => {
  const own = components.add(payload)
  return {
    name: topic,
    title: topic,
    summary,
    description: `Applied once for ${onceFor}.`,
    contentType: "application/json",
    headers: schemaRef("MessageHeaders"),
    payload:
      format === "CDC"
        ? {
            oneOf: [
              { description: "Without schemas", allOf: [own] },
              {
                description: "With schemas",
                type: "object",
                required: ["schema", "payload"],
                properties: { payload: own }
              },
              { description: "A tombstone", type: "null" }
            ]
          }
        : {
            anyOf: [
              { description: "The payload itself", allOf: [own, schemaRef("MessageFields")] },
              {
                description: "An envelope",
                allOf: [
                  schemaRef("MessageFields"),
                  {
                    type: "object",
                    required: ["data"],
                    properties: { data: { allOf: [own, schemaRef("MerchantField")] } }
                  }
                ]
              }
            ]
          },
    bindings: kafkaKey(
      format === "CDC"
        ? "The row's key, as Debezium writes it"
        : "What the message is about: messages of one key keep their order"
    )
  }
}

const published = (
  components: Components,
  { key }: PublishedTopic,
  { data, summary, type }: PublishedTopic["events"][number]
): Json => ({
  name: type,
  title: type,
  summary,
  contentType: "application/json",
  headers: schemaRef("EventHeaders"),
  correlationId: { location: "$message.payload#/correlationId" },
  payload: {
    allOf: [
      schemaRef("EventEnvelope"),
      { type: "object", properties: { type: { const: type }, data: components.add(data) } }
    ]
  },
  bindings: kafkaKey(`The ${key}: events of one key keep their order`)
})

const kafkaKey = (description: string): Json => ({
  kafka: { key: { type: "string", description }, bindingVersion: "0.5.0" }
})

const envelope: Json = {
  type: "object",
  required: ["id", "type", "source", "dataVersion", "timestamp", "correlationId", "data"],
  properties: {
    id: { ...text, description: "The same whenever the event is published again" },
    type: text,
    source: { const: "holdfast" },
    dataVersion: { const: "1.0" },
    timestamp: { ...text, format: "date-time" },
    correlationId: { ...text, description: "The order, or the request that it comes from" },
    data: { type: "object", required: ["merchantId"], properties: { merchantId: text } }
  }
}

/** `payment.success` as the name of an operation: PaymentSuccess. */
const nameOf = (topic: string): string =>
  topic.replace(/(?:^|[._-])([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** One function of more than 70 lines: a document, written in the order in which it is read. */
const make = (): Json => {
  const components = new Components()
  const merchantField = {
    type: "object",
    properties: {
      merchantId: {
        ...text,
        description:
          "Else the header x-merchant-id, else DEFAULT_MERCHANT_ID; two that differ are a dead letter"
      }
    }
  }
  components.put("MerchantField", merchantField)
  components.put("MessageFields", {
    type: "object",
    properties: {
      id: { ...text, description: "Identity of a message that has no natural key" },
      timestamp: {
        ...text,
        description: "Where there is no id, equal bytes with a timestamp are one message"
      },
      ...merchantField.properties
    }
  })
  components.put("MessageHeaders", headers({ ...commonHeaders, ce_id: text }))
  components.put(
    "EventHeaders",
    headers(eventHeaders, ["ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion", "x-merchant-id"])
  )
  components.put("EventEnvelope", envelope)
  components.put("DeadLetterHeaders", headers(deadLetterHeaders, Object.keys(deadLetterHeaders)))

  const channels: Record<string, unknown> = {}
  const operations: Record<string, unknown> = {}
  const messages: Record<string, unknown> = {}
  for (const topic of receivedTopics) {
    messages[topic.topic] = received(components, topic)
    channels[topic.topic] = {
      address: topic.topic,
      summary: topic.summary,
      messages: { [topic.topic]: ref("components", "messages", topic.topic) }
    }
    operations[`receive${nameOf(topic.topic)}`] = {
      action: "receive",
      channel: ref("channels", topic.topic),
      summary: topic.summary,
      bindings: { kafka: { groupId: { const: groupOf(topic.topic) }, bindingVersion: "0.5.0" } }
    }
  }
  for (const topic of publishedTopics) {
    for (const event of topic.events) messages[event.type] = published(components, topic, event)
    channels[topic.topic] = {
      address: topic.topic,
      summary: topic.summary,
      messages: Object.fromEntries(
        topic.events.map(({ type }) => [type, ref("components", "messages", type)])
      )
    }
    operations[`send${nameOf(topic.topic)}`] = {
      action: "send",
      channel: ref("channels", topic.topic),
      summary: topic.summary
    }
  }
  messages["deadLetter"] = {
    name: "deadLetter",
    title: "Dead letter",
    summary: "A message that cannot be applied as things are: its key, headers and bytes as they came",
    headers: { allOf: [schemaRef("MessageHeaders"), schemaRef("DeadLetterHeaders")] },
    payload: { description: "The original bytes, whatever they are" }
  }
  channels["deadLetters"] = {
    address: "{topic}.dlq",
    summary: "What could not be applied: see holdfast dlq",
    parameters: {
      topic: {
        description: "The topic it came from",
        enum: receivedTopics.map(({ topic }) => topic)
      }
    },
    messages: { deadLetter: ref("components", "messages", "deadLetter") }
  }
  operations["sendDeadLetter"] = { action: "send", channel: ref("channels", "deadLetters") }
  return {
    asyncapi: "3.0.0",
    info: {
      title: "Holdfast",
      version: "1.0.0",
      description:
        "What Holdfast hears and tells. Delivery is at least once in both directions; what comes in has its effect once. Fields are only ever added; unknown ones are ignored.",
      license: { name: "Apache-2.0" }
    },
    defaultContentType: "application/json",
    channels,
    operations,
    components: { messages, schemas: components.schemas }
  }
}

export const asyncApi: Json = make()
