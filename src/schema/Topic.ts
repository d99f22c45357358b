import type { Some } from "./Some.ts"
import type { Schema } from "effect"
import { MerchantRow, ProductVariantRow, changeOf } from "./ChangeRecord.ts"
import * as Message from "./Message.ts"
import { type EventDefinition, outgoingEvents } from "./OutgoingEvent.ts"

/**
 * The contract of messages: every topic that is received and published, with the schemas that decode what comes in and
 * describe what goes out. /asyncapi.json is made of it.
 */

/** A topic that other services publish and Holdfast consumes (CONTRACTS section 5). */
export interface ReceivedTopic {
  readonly topic: string
  readonly summary: string
  /** What its effect is applied once for, however often it is told. */
  readonly onceFor: string
  readonly payload: Schema.Constraint
  /** Ours: JSON that may stand in an envelope's `data`. CDC: records of a captured table. */
  readonly format: "JSON" | "CDC"
}

/** Each topic has a group of its own: one that waits for its topic, or lags, holds up no other. */
export const groupOf = (topic: string): string => `holdfast.${topic}`

/** Where the messages of a topic go that can never be applied as things are. */
export const deadLetterTopicOf = (topic: string): string => `${topic}.dlq`

export const receivedTopics: ReadonlyArray<ReceivedTopic> = [
  {
    topic: "payment.success",
    summary: "A sale was paid: what it holds is sold, the rest directly, below zero if need be",
    onceFor: "saleOrderId and saleOrderItemId, or item and location",
    payload: Message.PaymentSuccess,
    format: "JSON"
  },
  {
    topic: "order.created",
    summary:
      "Checks what the order holds against its items, or reserves them; what cannot be done is answered by inventory.confirmation_failed",
    onceFor: "orderId",
    payload: Message.OrderCreated,
    format: "JSON"
  },
  {
    topic: "inventory.confirm_requested",
    summary:
      "Sells what is reserved; every request is answered by inventory.confirmed or inventory.confirmation_failed",
    onceFor: "reservationId",
    payload: Message.ConfirmRequested,
    format: "JSON"
  },
  {
    topic: "order.cancelled",
    summary: "Releases what the order still holds; nothing is reserved for it any more",
    onceFor: "orderId",
    payload: Message.OrderEnded,
    format: "JSON"
  },
  {
    topic: "order.fraudulent",
    summary: "Releases what the order still holds; nothing is reserved for it any more",
    onceFor: "orderId",
    payload: Message.OrderEnded,
    format: "JSON"
  },
  {
    topic: "order.payment-failed",
    summary: "Releases what the order still holds; it may reserve again",
    onceFor: "orderId",
    payload: Message.OrderEnded,
    format: "JSON"
  },
  {
    topic: "order.returned",
    summary: "Restocks what came back, where it was sold from",
    onceFor: "the message's id, or header ce_id, or the hash of a value with a timestamp",
    payload: Message.ItemsReturned,
    format: "JSON"
  },
  {
    topic: "return.processed",
    summary: "Restocks what came back, where it was sold from",
    onceFor: "the message's id, or header ce_id, or the hash of a value with a timestamp",
    payload: Message.ItemsReturned,
    format: "JSON"
  },
  {
    topic: "product-variant.created",
    summary: "Stocks a variant, with its initial stock if it says one",
    onceFor: "productVariantId",
    payload: Message.ProductVariantCreated,
    format: "JSON"
  },
  {
    topic: "product-variant.updated",
    summary: "Whether a variant is sold on",
    onceFor: "the state it tells",
    payload: Message.ProductVariantUpdated,
    format: "JSON"
  },
  {
    topic: "product-variant.deleted",
    summary: "Ends a variant: deleted without stock, otherwise discontinued with a discrepancy",
    onceFor: "productVariantId",
    payload: Message.ProductVariantDeleted,
    format: "JSON"
  },
  {
    topic: "nx.seller.public.product_variant",
    summary:
      "Rows of the catalogue's table, captured by Debezium: stocks each, and ends those that are deleted",
    onceFor: "the row's state",
    payload: changeOf(ProductVariantRow).annotate({ identifier: "ProductVariantChange" }),
    format: "CDC"
  },
  {
    topic: "nx.seller.public.merchant",
    summary: "Rows of the table of merchants, captured by Debezium: gives each its default location",
    onceFor: "the row's id",
    payload: changeOf(MerchantRow).annotate({ identifier: "MerchantChange" }),
    format: "CDC"
  }
]

/** A topic that Holdfast publishes through its outbox (CONTRACTS section 6). */
export interface PublishedTopic {
  readonly topic: string
  readonly summary: string
  /** What the key of a message is: within it the order of events is kept. */
  readonly key: string
  /** Their type stands in `type` and in the header `ce_type`. */
  readonly events: ReadonlyArray<EventDefinition<Some>>
}

const published = (topic: string, key: string, summary: string): PublishedTopic => ({
  topic,
  summary,
  key,
  events: outgoingEvents.filter((event) => event.topic === topic)
})

export const publishedTopics: ReadonlyArray<PublishedTopic> = [
  published("inventory.events", "itemId", "Everything that happens to an item's stock"),
  published("inventory.confirmed", "orderId", "What an order asked to confirm is sold"),
  published("inventory.confirmation_failed", "orderId", "What an order asked for could not be held or sold"),
  published(
    "inventory.out_of_stock",
    "itemId",
    "Nothing of an item can be sold any more: once per crossing of its total"
  ),
  published(
    "inventory.low_stock",
    "itemId",
    "An item has come down to its threshold: once per crossing of its total"
  )
]

/** Every topic that must be there for all messages to flow; dead letters have `<topic>.dlq` beside theirs. */
export const topicNames: ReadonlyArray<string> = [
  ...receivedTopics.flatMap(({ topic }) => [topic, deadLetterTopicOf(topic)]),
  ...publishedTopics.map(({ topic }) => topic)
]
