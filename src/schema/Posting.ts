import type {
  AmbiguousStock,
  BalanceOverflow,
  CountMismatch,
  DatabaseUnavailable,
  DiscrepancyNotFound,
  DiscrepancyPersists,
  IdempotencyKeyReused,
  InsufficientStock,
  ItemConflict,
  ItemNotFound,
  LocationNotFound,
  LotMismatch,
  OperationTimedOut,
  Overloaded,
  RefusalData,
  ReleaseExceedsReservation,
  ReservationAlreadyConfirmed,
  ReservationCancelled,
  ReservationExpired,
  ReservationFailed,
  ReservationNotFound,
  RowRefused,
  StockNotFound,
  VersionMismatch
} from "./Failure.ts"

/** How an item is named from outside, or by us. */
export type ItemRef = { readonly variantId: string } | { readonly sku: string } | { readonly itemId: string }

export const itemStatuses = [
  "AWAITING_INITIAL_STOCK",
  "IN_STOCK",
  "LOW_STOCK",
  "OUT_OF_STOCK",
  "DISCONTINUED"
] as const
export type ItemStatus = (typeof itemStatuses)[number]
export type ReservationStatus = "PENDING" | "CONFIRMED" | "CANCELLED" | "EXPIRED"
export const movementTypes = [
  "RECEIPT",
  "ORDER_ALLOCATE",
  "ORDER_RELEASE",
  "SALE",
  "RETURN",
  "ADJUSTMENT",
  "TRANSFER_OUT",
  "TRANSFER_IN",
  "MATERIAL_RESERVE",
  "MATERIAL_RELEASE",
  "MATERIAL_CONSUME"
] as const
export type MovementType = (typeof movementTypes)[number]
export type MovementSource =
  | "ORDER"
  | "WMS_SYNC"
  | "WMS_OUTBOUND"
  | "MANUAL_ADJUSTMENT"
  | "CATALOG"
  | "KITCHEN"
  | "PURCHASE_ORDER"
  | "TRANSFER"
export type ChangeType = "RECEIPT" | "SALE" | "RETURN" | "DAMAGE" | "CORRECTION"
export type DiscrepancyKind =
  | "NEGATIVE_STOCK"
  | "OVERCOMMITTED"
  | "EXPIRED_LOT_SOLD"
  | "RETURN_EXCEEDS_SALE"
  | "CANCELLED_AFTER_SALE"
  | "SALE_LINE_CHANGED"
  | "DISCONTINUED_WITH_STOCK"
  | "COUNT_DIFFERENCE"

/**
 * What a posting asks for. Each command is decided whole: some documents change state and some stocks move, or
 * nothing happens.
 */
export interface ReserveStock {
  readonly _tag: "ReserveStock"
  readonly orderId: string
  /** ORDER: one PENDING reservation an order; VARIANT: one an order and item. */
  readonly kind: "ORDER" | "VARIANT"
  readonly lines: ReadonlyArray<{
    readonly item: ItemRef
    readonly quantity: number
    readonly stockId?: string | undefined
  }>
  readonly expiresInSeconds: number
  readonly locationId?: string | undefined
  readonly metadata?: unknown
}
export interface ReleaseReservation {
  readonly _tag: "ReleaseReservation"
  readonly orderId: string
  /** Without it, all that the order still holds. Without a quantity, all of that item. */
  readonly line?: { readonly item: ItemRef; readonly quantity?: number | undefined } | undefined
  readonly reason: "RELEASED" | "CANCELLED"
}
export interface ConfirmReservation {
  readonly _tag: "ConfirmReservation"
  readonly orderId: string
  readonly reservationId?: string | undefined
}
export interface ExtendReservation {
  readonly _tag: "ExtendReservation"
  readonly orderId: string
  readonly expiresInSeconds: number
}
/** The sweeper's: expires the reservation if it is PENDING and due, and otherwise does nothing. */
export interface ExpireReservation {
  readonly _tag: "ExpireReservation"
  readonly orderId: string
  readonly reservationId: string
}
export interface AdjustStock {
  readonly _tag: "AdjustStock"
  readonly changeType: ChangeType
  readonly item: ItemRef
  readonly quantity: number
  readonly orderId?: string | undefined
  readonly locationId?: string | undefined
  readonly lotNumber?: string | undefined
  /** Epoch milliseconds. */
  readonly lotExpiresAt?: number | undefined
  readonly reason?: string | undefined
  readonly reference?: string | undefined
  /** Epoch milliseconds. */
  readonly occurredAt?: number | undefined
  readonly expectedVersion?: number | undefined
}
/** The idempotent upsert *ensureInventoryItem*: attributes that are not given stay as they are. */
export interface EnsureItem {
  readonly _tag: "EnsureItem"
  readonly productVariantId?: string | undefined
  readonly sku?: string | undefined
  readonly kind: "PRODUCT" | "MATERIAL"
  readonly name?: string | undefined
  readonly productId?: string | undefined
  readonly unit?: string | undefined
  readonly stocked?: boolean | undefined
  readonly lowStockThreshold?: number | undefined
  readonly safetyStock?: number | undefined
  /** How far a count may differ from the books, in base units, before it opens a discrepancy. */
  readonly countTolerance?: number | undefined
  readonly discontinued?: boolean | undefined
  /** Received once for the item, whatever else came in already. 0 says that there is none; without it nothing is said. */
  readonly initialStock?: number | undefined
  /** What a message says may be older than a deletion that is known: then the item stays deleted. */
  readonly keepsDeletion?: boolean | undefined
  /** The captured row that the item comes from: its merchant is remembered, for a delete that carries the key alone. */
  readonly capturedRow?: string | undefined
}
/**
 * A product variant is gone: soft-deleted where nothing is in stock, otherwise DISCONTINUED with a discrepancy. One that
 * was never heard of is remembered as deleted. Harmless to repeat.
 */
export interface DeleteItem {
  readonly _tag: "DeleteItem"
  readonly productVariantId: string
}
/** *ensureDefaultLocation*: the merchant with its default location. Harmless to repeat. */
export interface EnsureMerchant {
  readonly _tag: "EnsureMerchant"
}
export interface EnsureLocation {
  readonly _tag: "EnsureLocation"
  readonly locationId: string
  readonly name?: string | undefined
}
export interface ResolveDiscrepancy {
  readonly _tag: "ResolveDiscrepancy"
  readonly discrepancyId: string
  readonly reason: string
}

/* What the messages of other services ask for (CONTRACTS section 5). */

/** One line of a paid sale. Items and locations that are named here first are created. */
export interface SaleLine {
  readonly saleOrderItemId?: string | undefined
  readonly productVariantId: string
  readonly quantity: number
  readonly locationId?: string | undefined
}
/**
 * `payment.success`: a fact, never refused. Sells what the order holds, the rest directly and below zero if need be, and
 * releases what was not paid. Lines of the same key (`saleOrderItemId`, else item and location) are summed, and each key
 * has one effect: told again it has none, and with another quantity a discrepancy says so.
 */
export interface RecordSale {
  readonly _tag: "RecordSale"
  /** The `saleOrderId`: the same order. */
  readonly orderId: string
  readonly lines: ReadonlyArray<SaleLine>
  /** Epoch milliseconds. */
  readonly occurredAt?: number | undefined
}
/** `order.created`: checks what the order holds against its items, or reserves them. Once per order. */
export interface ReceiveOrder {
  readonly _tag: "ReceiveOrder"
  readonly orderId: string
  readonly lines: ReadonlyArray<{ readonly productVariantId: string; readonly quantity: number }>
  /** The one that the order service believes to have: told in a failure where the order has none. */
  readonly reservationId?: string | undefined
  readonly expiresInSeconds: number
}
/** `inventory.confirm_requested`: confirms as `ConfirmReservation` does, and answers every request by an event. */
export interface ConfirmOrder {
  readonly _tag: "ConfirmOrder"
  readonly orderId: string
  readonly reservationId?: string | undefined
}
/**
 * `order.cancelled`, `order.fraudulent`, `order.payment-failed`: releases what the order still holds. The first two are
 * remembered, also of an order that is not known yet: nothing is reserved for it any more. Once per order and reason.
 */
export interface CancelOrder {
  readonly _tag: "CancelOrder"
  readonly orderId: string
  readonly reason: "CANCELLED" | "FRAUDULENT" | "PAYMENT_FAILED"
}
/**
 * `order.returned`, `return.processed`: a fact, never refused. Goes back to the stocks that the order was sold from; what
 * exceeds that, and what names no order, goes to the default location. Once per `messageId`.
 */
export interface ReturnGoods {
  readonly _tag: "ReturnGoods"
  /** The identity of the message (CONTRACTS section 5). */
  readonly messageId: string
  readonly orderId?: string | undefined
  readonly lines: ReadonlyArray<{ readonly productVariantId: string; readonly quantity: number }>
  readonly reason?: string | undefined
  /** Epoch milliseconds. */
  readonly occurredAt?: number | undefined
}
/* What `audit --repair` asks for. */

/** What audit has found, and this answers. */
export interface MendedFinding {
  readonly finding: string
  readonly check: string
  readonly subject: string
  /** Whether a person has acknowledged it, rather than that it is mended. */
  readonly acknowledges: boolean
}
/** Rebuilds an item's stocks from the ledger, its totals from its stocks, its discrepancies from both. */
export interface MendItem {
  readonly _tag: "MendItem"
  readonly itemId: string
  /** The stocks whose broken ledger is acknowledged: their chain goes on from what they have. */
  readonly acknowledged: ReadonlyArray<string>
  /** Whether what is reserved beyond (or less than) the open lines is made up for by a movement. */
  readonly settles: boolean
  /** The number of the item's last event that was told, where the item's own is less. */
  readonly eventsTold?: number | undefined
  readonly reason: string
  readonly findings: ReadonlyArray<MendedFinding>
}
/** Settles a reservation with the ledger. */
export interface MendReservation {
  readonly _tag: "MendReservation"
  readonly orderId: string
  readonly reservationId: string
  /** The items that it has moved, by its lines or by the ledger: they are locked. */
  readonly itemIds: ReadonlyArray<string>
  /** When it was made (epoch milliseconds): its movements are not older. */
  readonly since: number
  readonly reason: string
  readonly findings: ReadonlyArray<MendedFinding>
}
export interface Mended {
  readonly finding: string
  readonly subject: string
  readonly action: string
  readonly before: Readonly<Record<string, unknown>>
  readonly after: Readonly<Record<string, unknown>>
}

/**
 * Counted quantities: a fact that the books follow, all rows or none. Expectations are of the books before any of it, and
 * make a row compare-and-set; of a stock that is not there yet they are 0.
 */
export interface CountStock {
  readonly _tag: "CountStock"
  readonly counts: ReadonlyArray<{
    readonly item: ItemRef
    readonly lotNumber?: string | undefined
    readonly quantity: number
    readonly expectedVersion?: number | undefined
    readonly expectedQuantity?: number | undefined
  }>
  readonly locationId?: string | undefined
  readonly reason?: string | undefined
}
/**
 * Many operations in one posting and one transaction, decided in order, each as a posting of its own. `atomic`: the first
 * that is refused refuses all. `continueOnFailure`: each for itself; an operation that is an atomic `Bulk` is a group
 * that stands or falls together.
 */
export interface Bulk {
  readonly _tag: "Bulk"
  readonly mode: "atomic" | "continueOnFailure"
  readonly operations: ReadonlyArray<BulkOperation>
  /** Leaves the answers of what was done away: who loads a file asks for what was refused. */
  readonly onlyRefusals?: boolean | undefined
}
export type BulkOperation =
  | ReserveStock
  | ReleaseReservation
  | AdjustStock
  | EnsureItem
  | EnsureLocation
  | Bulk

export type Command =
  | ReserveStock
  | ReleaseReservation
  | ConfirmReservation
  | ExtendReservation
  | ExpireReservation
  | AdjustStock
  | EnsureItem
  | EnsureLocation
  | EnsureMerchant
  | DeleteItem
  | ResolveDiscrepancy
  | CountStock
  | RecordSale
  | ReceiveOrder
  | ConfirmOrder
  | CancelOrder
  | ReturnGoods
  | MendItem
  | MendReservation
  | Bulk

/** Who asks, for whom, until when. Times are epoch milliseconds of the one clock (CONTRACTS section 7). */
export interface Caller {
  readonly merchantId: string
  readonly actor: string
  readonly requestId: string
  readonly traceparent?: string | undefined
  /** Past it, a posting whose batch has not started is refused, and the caller is told that the outcome is unknown. */
  readonly deadline: number
  readonly idempotency?: { readonly key: string; readonly fingerprint: string } | undefined
}

/** A command with all that it needs to be decided: its id and time come with it, so that running it again is harmless. */
export interface Posting<C extends Command = Command> {
  /** UUIDv7; ids of what the posting creates are derived from it. A reservation carries it as its own id. */
  readonly id: string
  readonly at: number
  readonly caller: Caller
  readonly command: C
}

/* Answers: plain data that survives JSON, because an answer is kept with an idempotency key and told again. */

export interface ReservationAnswer {
  readonly reservationId: string
  readonly orderId: string
  readonly status: ReservationStatus
  readonly expiresAt: number
  readonly lines: ReadonlyArray<ReservationLineAnswer>
}
export interface ReservationLineAnswer {
  readonly itemId: string
  readonly productVariantId: string | null
  readonly sku: string | null
  readonly stockId: string | null
  readonly locationId: string | null
  readonly lotNumber: string | null
  readonly quantity: number
  readonly open: number
}
export interface ItemFigures {
  readonly itemId: string
  readonly productVariantId: string | null
  readonly sku: string | null
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  readonly availableQuantity: number
  readonly status: ItemStatus
}
export interface StockFigures {
  readonly stockId: string
  readonly locationId: string
  readonly lotNumber: string | null
  readonly quantity: number
  readonly reservedQuantity: number
  readonly unallocatableQuantity: number
  readonly version: number
}

export interface Answers {
  readonly ReserveStock: {
    readonly at: number
    readonly created: boolean
    readonly reservation: ReservationAnswer
  }
  readonly ReleaseReservation: {
    readonly at: number
    readonly released: boolean
    readonly quantity: number
    readonly item: ItemFigures | null
  }
  readonly ConfirmReservation: {
    readonly at: number
    readonly confirmed: boolean
    readonly reservationId: string
  }
  readonly ExtendReservation: {
    readonly at: number
    readonly reservationId: string
    readonly expiresAt: number
  }
  readonly ExpireReservation: { readonly at: number; readonly expired: boolean; readonly expiresAt: number }
  readonly AdjustStock: {
    readonly at: number
    readonly applied: boolean
    readonly item: ItemFigures
    readonly stocks: ReadonlyArray<StockFigures>
  }
  readonly EnsureItem: { readonly at: number; readonly created: boolean; readonly item: ItemAnswer }
  readonly EnsureLocation: {
    readonly at: number
    readonly created: boolean
    readonly location: LocationAnswer
  }
  readonly MendItem: { readonly at: number; readonly mended: ReadonlyArray<Mended> }
  readonly MendReservation: { readonly at: number; readonly mended: ReadonlyArray<Mended> }
  readonly ResolveDiscrepancy: {
    readonly at: number
    readonly discrepancyId: string
    readonly resolved: boolean
  }
  readonly EnsureMerchant: { readonly at: number; readonly created: boolean }
  readonly DeleteItem: {
    readonly at: number
    /** REMEMBERED: it was not known, and will be deleted when it is. */
    readonly outcome: "DELETED" | "DISCONTINUED" | "REMEMBERED"
  }
  readonly RecordSale: {
    readonly at: number
    /** How many lines (after those of one key were summed) had their effect now, had it before, or speak otherwise than
     * before. */
    readonly applied: number
    readonly repeated: number
    readonly changed: number
  }
  readonly ReceiveOrder: {
    readonly at: number
    /**
     * RESERVED now; MATCHED by what the order holds or was sold; FAILED, which `inventory.confirmation_failed` tells; or
     * IGNORED: received before, cancelled, or over (its reservation expired or was released).
     */
    readonly outcome: "RESERVED" | "MATCHED" | "FAILED" | "IGNORED"
    readonly reservationId: string | null
    readonly reason: ConfirmationFailure | null
  }
  readonly ConfirmOrder: {
    readonly at: number
    /** What the event says: `inventory.confirmed`, or `inventory.confirmation_failed` with the reason. */
    readonly confirmed: boolean
    readonly reservationId: string | null
    readonly reason: ConfirmationFailure | null
  }
  readonly CancelOrder: {
    readonly at: number
    /** False when the order was cancelled in this way before. */
    readonly applied: boolean
    readonly released: number
  }
  readonly ReturnGoods: { readonly at: number; readonly applied: boolean }
  readonly CountStock: {
    readonly at: number
    /** In the order of the counts. */
    readonly counts: ReadonlyArray<CountedStock>
  }
  readonly Bulk: {
    readonly at: number
    /** In the order of the operations. */
    readonly rows: ReadonlyArray<BulkRow>
  }
}
export interface CountedStock extends StockFigures {
  readonly productVariantId: string | null
  readonly sku: string | null
  /** What was counted less what the books said. */
  readonly difference: number
  /** Whether that is more than the item's tolerance, and so a discrepancy. */
  readonly discrepancy: boolean
}
/** What became of one operation. */
export type BulkRow =
  | { readonly index: number; readonly answer: Answers[BulkOperation["_tag"]] }
  | { readonly index: number; readonly failure: RefusalData }
/** Why `inventory.confirmation_failed`. `INSUFFICIENT_INVENTORY` and an expired one name what is short. */
export type ConfirmationFailure =
  | "INSUFFICIENT_INVENTORY"
  | "DISCONTINUED_ITEM"
  | "ITEMS_MISMATCH"
  | "ORDER_CANCELLED"
  | "RESERVATION_NOT_FOUND"
  | "RESERVATION_EXPIRED"
  | "RESERVATION_CANCELLED"
export interface ItemAnswer extends ItemFigures {
  readonly kind: "PRODUCT" | "MATERIAL"
  readonly productId: string | null
  readonly name: string | null
  readonly unit: string
  readonly stocked: boolean
  readonly lowStockThreshold: number
  readonly safetyStock: number
  readonly countTolerance: number
  readonly createdAt: number
  readonly updatedAt: number
}
export interface LocationAnswer {
  readonly locationId: string
  readonly name: string | null
  readonly isDefault: boolean
  readonly createdAt: number
}

/** What `decide` may refuse each command with. */
export interface Refusals {
  readonly ReserveStock:
    | InsufficientStock
    | ItemNotFound
    | LocationNotFound
    | StockNotFound
    | ReservationFailed
  readonly ReleaseReservation:
    | ItemNotFound
    | ReservationNotFound
    | ReservationAlreadyConfirmed
    | ReleaseExceedsReservation
  readonly ConfirmReservation: ReservationNotFound | ReservationExpired | ReservationCancelled
  readonly ExtendReservation:
    | ReservationNotFound
    | ReservationAlreadyConfirmed
    | ReservationExpired
    | ReservationCancelled
  readonly ExpireReservation: ReservationNotFound
  readonly AdjustStock:
    | AmbiguousStock
    | InsufficientStock
    | ItemNotFound
    | LocationNotFound
    | LotMismatch
    | StockNotFound
    | VersionMismatch
  readonly EnsureItem: ItemConflict
  readonly EnsureLocation: never
  readonly ResolveDiscrepancy: DiscrepancyNotFound | DiscrepancyPersists
  readonly MendItem: ItemNotFound
  readonly MendReservation: ReservationNotFound
  readonly EnsureMerchant: never
  readonly DeleteItem: never
  readonly RecordSale: never
  readonly ReceiveOrder: never
  readonly ConfirmOrder: never
  readonly CancelOrder: never
  readonly ReturnGoods: never
  readonly CountStock: CountMismatch | ItemNotFound | LocationNotFound | RowRefused
  readonly Bulk: RowRefused
}

/** What any posting may fail with, whatever it asks for. */
export type PostingFailure =
  | BalanceOverflow
  | DatabaseUnavailable
  | IdempotencyKeyReused
  | OperationTimedOut
  | Overloaded

export type Answer<C extends Command> = Answers[C["_tag"]]
export type Refusal<C extends Command> = Refusals[C["_tag"]]
export type AnyRefusal = Refusals[keyof Refusals] | BalanceOverflow | IdempotencyKeyReused

/** An answer, and whether it is the stored one of an earlier request with the same Idempotency-Key. */
export interface Posted<C extends Command> {
  readonly answer: Answer<C>
  readonly replayed: boolean
}
