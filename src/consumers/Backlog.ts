import { Deferred } from "effect"
import type { IncomingMessage, Position } from "../services/messaging/Broker.ts"

/**
 * What a consumer was delivered of its topic and has not committed yet: what is done, what may be committed, and what
 * each message has to wait for. No effects: each method is one step.
 */

/** One message on its way. */
export interface Delivery {
  readonly message: IncomingMessage
  readonly bytes: number
  /** It has had its effect, or is a dead letter. */
  done: boolean
  /** For those that wait for it. */
  readonly finished: Deferred.Deferred<void>
}

class Partition {
  /** In the order of their offsets, which may have gaps. */
  readonly deliveries: Array<Delivery> = []
  /** The last delivery that named the key, of those that are not done. */
  readonly last = new Map<string, Delivery>()
}

export class Backlog {
  readonly #partitions = new Map<number, Partition>()
  #count = 0
  #bytes = 0

  get count(): number {
    return this.#count
  }
  get bytes(): number {
    return this.#bytes
  }
  /** When the oldest message that is not committed was published. */
  get oldestPublishedAt(): number | undefined {
    let oldest: number | undefined
    for (const { deliveries } of this.#partitions.values()) {
      const first = deliveries[0]?.message.publishedAt
      if (first !== undefined && (oldest === undefined || first < oldest)) oldest = first
    }
    return oldest
  }

  /** Takes a message in; answers with those that must be done before it, because they name one of its keys. */
  add(message: IncomingMessage, keys: ReadonlyArray<string>) {
    const bytes = (message.value?.byteLength ?? 0) + (message.key?.length ?? 0)
    const delivery: Delivery = { message, bytes, done: false, finished: Deferred.makeUnsafe() }
    let partition = this.#partitions.get(message.partition)
    if (partition === undefined) this.#partitions.set(message.partition, (partition = new Partition()))
    const before = new Set<Delivery>()
    for (const key of keys) {
      const earlier = partition.last.get(key)
      if (earlier !== undefined) before.add(earlier)
      partition.last.set(key, delivery)
    }
    partition.deliveries.push(delivery)
    this.#count += 1
    this.#bytes += bytes
    return { delivery, before }
  }

  done(delivery: Delivery, keys: ReadonlyArray<string>): void {
    delivery.done = true
    const last = this.#partitions.get(delivery.message.partition)?.last
    for (const key of keys) if (last?.get(key) === delivery) last.delete(key)
  }

  /** The last message of each partition up to which all are done. */
  committable(): ReadonlyArray<Position> {
    const positions: Array<Position> = []
    for (const { deliveries } of this.#partitions.values()) {
      const open = deliveries.findIndex(({ done }) => !done)
      const last = open === -1 ? deliveries.at(-1) : deliveries[open - 1]
      if (last !== undefined) positions.push(last.message)
    }
    return positions
  }

  /** Forgets what lies at or before these positions: it is committed, or not ours to commit. */
  forgetUntil(positions: ReadonlyArray<Position>): void {
    for (const { offset, partition } of positions) {
      const deliveries = this.#partitions.get(partition)?.deliveries
      if (deliveries === undefined) continue
      const later = deliveries.findIndex(({ message }) => message.offset > offset)
      this.#release(deliveries.splice(0, later === -1 ? deliveries.length : later))
    }
  }

  forgetPartition(partition: number): void {
    this.#release(this.#partitions.get(partition)?.deliveries ?? [])
    this.#partitions.delete(partition)
  }

  #release(deliveries: ReadonlyArray<Delivery>): void {
    this.#count -= deliveries.length
    for (const { bytes } of deliveries) this.#bytes -= bytes
  }
}
