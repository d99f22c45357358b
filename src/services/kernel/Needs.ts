import type { Some } from "../../schema/Some.ts"
import type { ItemRef } from "../../schema/Item.ts"
import type { ReadBy } from "./Table.ts"
import { locationsOfMerchant } from "./tables/catalog.ts"
import { idempotencyByKey, trackingByKey } from "./tables/documents.ts"
import { reservationsOfOrder } from "./tables/reservations.ts"
import type { UnitOfWork } from "./UnitOfWork.ts"
import type { Session, StatementFailed } from "../Db.ts"
import type { Effect } from "effect"

/**
 * What postings need locked and read before they are decided. A command asks for it by name and is handed the same names
 * again: a decision looks at nothing by a key that was not locked and read.
 */

declare const asked: unique symbol
type Asked<Kind extends string, Value = string> = Value & { readonly [asked]: Kind }
/** An order, with its reservations and their lines, under its lock. */
export type OrderKey = Asked<"order">
/** A tracking row, there or not. */
export type TrackingKey = Asked<"tracking">
/** An item, there or not, with its stocks: its row is their lock. */
export type ItemKey = Asked<"item", ItemRef>
/** A location, there or not. */
export type LocationKey = Asked<"location">
/** A row of any table by one of its fields, there or not. */
export type RowKey<R> = Asked<"row"> & { readonly row?: R }

/** A key inside one merchant. Ids hold no control characters, so that the separator cannot be forged. */
export const keyOf = (merchantId: string, id: string): string => `${merchantId}\u001f${id}`

type Pair = readonly [merchantId: string, value: string]
const listed = (map: Map<string, Pair>, merchantId: string, value: string): unknown =>
  map.set(keyOf(merchantId, value), [merchantId, value])

/** Something else that is read once the items are locked, before anything is decided: what only repairs ask for. */
export type LaterRead<Request> = (
  session: Session,
  unit: UnitOfWork,
  requests: ReadonlyArray<Request>
) => Effect.Effect<void, StatementFailed>

/** What a batch needs of the database, gathered from its postings. */
export class BatchNeeds {
  /** Names of advisory locks. */
  readonly locks = new Set<string>()
  readonly reads = new Map<ReadBy, Map<string, Pair>>()
  readonly variants = new Map<string, Pair>()
  readonly skus = new Map<string, Pair>()
  readonly items = new Map<string, Pair>()
  /** What there may be an open discrepancy about that names none of the locked items. */
  readonly subjects = new Map<string, Pair>()
  readonly later = new Map<LaterRead<Some>, Array<unknown>>()
  /** Merchants, and locations by `keyOf`, that are known to exist, so that nobody has to wait to create them. */
  readonly known: { has(key: string): boolean }

  constructor(known: { has(key: string): boolean }) {
    this.known = known
  }

  read(read: ReadBy, merchantId: string, value: string): void {
    let wanted = this.reads.get(read)
    if (wanted === undefined) this.reads.set(read, (wanted = new Map()))
    listed(wanted, merchantId, value)
  }
}

/** What one posting needs. */
export class Needs {
  readonly #batch: BatchNeeds
  readonly merchantId: string

  constructor(batch: BatchNeeds, merchantId: string) {
    this.#batch = batch
    this.merchantId = merchantId
  }

  /** A lock of the merchant's without a row. Locks of the same name exclude each other until the batch commits. */
  lock(kind: string, id: string): void {
    this.#batch.locks.add(`${kind} ${keyOf(this.merchantId, id)}`)
  }

  /** The merchant, which may be new. */
  merchant(): void {
    const { merchantId } = this
    if (this.#batch.known.has(merchantId)) return
    this.#batch.locks.add(`merchant ${merchantId}`)
    this.locations()
  }

  /** Where the merchant keeps stock. */
  locations(): void {
    this.#batch.read(locationsOfMerchant, this.merchantId, this.merchantId)
  }

  /** Where the merchant keeps stock, to change it: the order of locations is a matter of all of them. */
  locationsToChange(): void {
    this.#batch.locks.add(`locations ${this.merchantId}`)
    this.locations()
  }

  /** `creates`: the location may be new. */
  location(locationId: string, { creates = false } = {}): LocationKey {
    this.locations()
    const key = keyOf(this.merchantId, locationId)
    if (creates && !this.#batch.known.has(key)) this.#batch.locks.add(`locations ${this.merchantId}`)
    return locationId as LocationKey
  }

  order(orderId: string): OrderKey {
    this.lock("order", orderId)
    this.#batch.read(reservationsOfOrder, this.merchantId, orderId)
    listed(this.#batch.subjects, this.merchantId, orderId)
    return orderId as OrderKey
  }

  /**
   * `creates`: the item may be new, or be known by this name from now on, so that the name is locked. Without it the lock
   * of the item's row is enough.
   */
  item(ref: ItemRef, { creates = false } = {}): ItemKey {
    const { merchantId } = this
    if ("variantId" in ref) {
      listed(this.#batch.variants, merchantId, ref.variantId)
      if (creates) this.lock("variant", ref.variantId)
    } else if ("sku" in ref) {
      listed(this.#batch.skus, merchantId, ref.sku)
      if (creates) this.lock("sku", ref.sku)
    } else listed(this.#batch.items, merchantId, ref.itemId)
    return ref as ItemKey
  }

  /**
   * `isLocked`: another lock of the posting guards it already (its order's, its item's). `isSubject`: there may be an open
   * discrepancy about it.
   */
  tracking(key: string, { isLocked = false, isSubject = false } = {}): TrackingKey {
    if (!isLocked) this.lock("tracking", key)
    this.#batch.read(trackingByKey, this.merchantId, key)
    if (isSubject) listed(this.#batch.subjects, this.merchantId, key)
    return key as TrackingKey
  }

  idempotency(key: string): void {
    this.lock("idempotency", key)
    this.#batch.read(idempotencyByKey, this.merchantId, key)
  }

  /** A row by one of its fields, under a lock of its own. */
  row<R extends object>(read: ReadBy<R>, value: string): RowKey<R> {
    this.lock(read.table.name, value)
    this.#batch.read(read, this.merchantId, value)
    return value as RowKey<R>
  }

  /** Something that is read once the items are locked. */
  later<Request>(read: LaterRead<Request>, request: Request): void {
    const requests = this.#batch.later.get(read)
    if (requests === undefined) this.#batch.later.set(read, [request])
    else requests.push(request)
  }
}
