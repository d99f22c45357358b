import { Schema } from "effect"

/**
 * What the ledger's movements are (CONTRACTS section 1). This table is the one place that knows what a type means: the
 * kernel, the events, the audit and the repairs ask it.
 */

export type MovementSource =
  | "ORDER"
  | "WMS_SYNC"
  | "WMS_OUTBOUND"
  | "MANUAL_ADJUSTMENT"
  | "CATALOG"
  | "KITCHEN"
  | "PURCHASE_ORDER"
  | "TRANSFER"

/** The least and the greatest sign that a movement's delta may have. */
type Signs = readonly [least: -1 | 0, greatest: 0 | 1]
const stays: Signs = [0, 0]
const rises: Signs = [0, 1]
const falls: Signs = [-1, 0]
const either: Signs = [-1, 1]

/** How the quantity of an item changes. */
export const changesOfLevel = [
  "RECEIPT",
  "SALE",
  "RETURN",
  "CORRECTION",
  "TRANSFER_OUT",
  "TRANSFER_IN",
  "MATERIAL_CONSUME"
] as const
type ChangeOfLevel = (typeof changesOfLevel)[number]

interface MovementKind {
  readonly onHand: Signs
  readonly reserved: Signs
  readonly unallocatable: Signs
  /** Where such movements come from; `null`: the command says it. */
  readonly source: MovementSource | null
  /** The event that carries it. */
  readonly event: "InventoryAllocated" | "InventoryReleased" | "InventoryAdjusted"
  /** `changeType` of the event StockLevelChanged; `null`: it changes nobody's quantity. */
  readonly changeType: ChangeOfLevel | null
  /** What it is for the reservation that it names: it holds or gives back, sells, or takes back what was sold. */
  readonly reservation: "HOLDS" | "SELLS" | "RETURNS" | null
  /** Whether its posting always leaves a tracking row of its own. */
  readonly isTracked: boolean
}

const kind = (
  onHand: Signs,
  reserved: Signs,
  unallocatable: Signs,
  means: Partial<MovementKind>
): MovementKind => ({
  onHand,
  reserved,
  unallocatable,
  source: null,
  event: "InventoryAdjusted",
  changeType: null,
  reservation: null,
  isTracked: false,
  ...means
})
const byKitchen = { source: "KITCHEN" } as const
const tracked = { isTracked: true } as const
const moved = { source: "TRANSFER", isTracked: true } as const

const kinds = {
  RECEIPT: kind(rises, stays, rises, { changeType: "RECEIPT", ...tracked }),
  ORDER_ALLOCATE: kind(stays, rises, stays, {
    source: "ORDER",
    event: "InventoryAllocated",
    reservation: "HOLDS"
  }),
  ORDER_RELEASE: kind(stays, falls, stays, {
    source: "ORDER",
    event: "InventoryReleased",
    reservation: "HOLDS"
  }),
  SALE: kind(falls, falls, stays, { source: "ORDER", changeType: "SALE", reservation: "SELLS" }),
  RETURN: kind(rises, stays, rises, { changeType: "RETURN", reservation: "RETURNS", ...tracked }),
  ADJUSTMENT: kind(either, either, either, { changeType: "CORRECTION", ...tracked }),
  TRANSFER_OUT: kind(falls, stays, falls, { changeType: "TRANSFER_OUT", ...moved }),
  TRANSFER_IN: kind(rises, stays, rises, { changeType: "TRANSFER_IN", ...moved }),
  MATERIAL_RESERVE: kind(stays, rises, stays, { reservation: "HOLDS", ...byKitchen }),
  MATERIAL_RELEASE: kind(stays, falls, stays, { reservation: "HOLDS", ...byKitchen }),
  MATERIAL_CONSUME: kind(falls, falls, stays, {
    changeType: "MATERIAL_CONSUME",
    reservation: "SELLS",
    ...byKitchen
  })
}

export type MovementType = keyof typeof kinds
export const movementTypes = Object.keys(kinds) as ReadonlyArray<MovementType>
export const movementKind = (type: MovementType): MovementKind => kinds[type]

/** The types that a condition is true of, as a list for SQL's IN. */
export const movementTypesInSql = (isMeant: (kind: MovementKind) => boolean): string =>
  movementTypes
    .filter((type) => isMeant(kinds[type]))
    .map((type) => `'${type}'`)
    .join(", ")

/** What moves for the reservation that it names, as lists for SQL's IN. */
export const sellingTypes = movementTypesInSql(({ reservation }) => reservation === "SELLS")
export const returningTypes = movementTypesInSql(({ reservation }) => reservation === "RETURNS")
export const typesOfReservations = movementTypesInSql(({ reservation }) => reservation !== null)

/** How goods come back: what is DAMAGED is there, and is not for sale. */
export const ReturnCondition = Schema.Literals(["GOOD", "DAMAGED"]).annotate({
  identifier: "ReturnCondition"
})
export type ReturnCondition = typeof ReturnCondition.Type

/** How stock is adjusted outside the life of a reservation (CONTRACTS 4.2, `adjust-stock`). */
export const changeTypes = [
  "RECEIPT",
  "SALE",
  "RETURN",
  "DAMAGE",
  "QUARANTINE",
  "UNQUARANTINE",
  "WRITE_OFF",
  "CORRECTION"
] as const
export type ChangeType = (typeof changeTypes)[number]
