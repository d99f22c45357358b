import { Schema } from "effect"
import type { MovementType } from "./Movement.ts"

/** Reservations and what they hold (CONTRACTS sections 1 and 2). */

export const reservationStatuses = ["PENDING", "CONFIRMED", "CANCELLED", "EXPIRED"] as const
export type ReservationStatus = (typeof reservationStatuses)[number]

interface KindOfReservation {
  /** Whether it is a promise to an order: release, confirm, extend and a repeated reserve act on it. */
  readonly isPromise: boolean
  /** Whether the sweeper gives it back when it is due. */
  readonly expires: boolean
  /** Whether its lines are what the order bought: payments, returns and "sold once" look at them. */
  readonly isOfOrderLines: boolean
  /** How the quantities of one kind add up to what an order asked for: the latest replaces the others, or all count. */
  readonly asks: "LARGEST" | "ALL" | "NOTHING"
  readonly holdsBy: MovementType
  readonly releasesBy: MovementType
  readonly sellsBy: MovementType
}
const byOrder = { holdsBy: "ORDER_ALLOCATE", releasesBy: "ORDER_RELEASE", sellsBy: "SALE" } as const

/** What each kind of reservation is. This table is the one place that says which kinds an operation means. */
export const reservationKinds = {
  /** One PENDING an order. */
  ORDER: { isPromise: true, expires: true, isOfOrderLines: true, asks: "LARGEST", ...byOrder },
  /** One PENDING an order and item. */
  VARIANT: { isPromise: true, expires: true, isOfOrderLines: true, asks: "LARGEST", ...byOrder },
  /** What an order was sold without a reservation (decision 0003). */
  SALE: { isPromise: false, expires: false, isOfOrderLines: true, asks: "ALL", ...byOrder },
  /** Materials of an order's dishes, held through its promises: their lines name the promise that they are held for. */
  MATERIAL: {
    isPromise: false,
    expires: false,
    isOfOrderLines: false,
    asks: "NOTHING",
    holdsBy: "MATERIAL_RESERVE",
    releasesBy: "MATERIAL_RELEASE",
    sellsBy: "MATERIAL_CONSUME"
  }
} as const satisfies Readonly<Record<string, KindOfReservation>>

export type ReservationKind = keyof typeof reservationKinds
export const kindOf = ({ kind }: { readonly kind: ReservationKind }): KindOfReservation =>
  reservationKinds[kind]

/** The kinds that a condition is true of, as a list for SQL's IN. */
export const reservationKindsInSql = (isMeant: (kind: KindOfReservation) => boolean): string =>
  (Object.keys(reservationKinds) as ReadonlyArray<ReservationKind>)
    .filter((kind) => isMeant(reservationKinds[kind]))
    .map((kind) => `'${kind}'`)
    .join(", ")

export const ReservationLineAnswer = Schema.Struct({
  itemId: Schema.String,
  productVariantId: Schema.NullOr(Schema.String),
  sku: Schema.NullOr(Schema.String),
  stockId: Schema.NullOr(Schema.String),
  locationId: Schema.NullOr(Schema.String),
  lotNumber: Schema.NullOr(Schema.String),
  quantity: Schema.Number,
  open: Schema.Number,
  sold: Schema.Number
})
export type ReservationLineAnswer = typeof ReservationLineAnswer.Type

/** A reservation in an answer of the kernel. Times are epoch milliseconds. */
export const ReservationAnswer = Schema.Struct({
  reservationId: Schema.String,
  orderId: Schema.String,
  status: Schema.Literals(reservationStatuses),
  expiresAt: Schema.Number,
  lines: Schema.Array(ReservationLineAnswer)
})
export type ReservationAnswer = typeof ReservationAnswer.Type
