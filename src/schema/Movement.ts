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

const fromOrder = { source: "ORDER", isTracked: false } as const
const adjusted = { event: "InventoryAdjusted" } as const

export const movements = {
  RECEIPT: {
    onHand: rises,
    reserved: stays,
    unallocatable: rises,
    source: null,
    ...adjusted,
    changeType: "RECEIPT",
    reservation: null,
    isTracked: true
  },
  ORDER_ALLOCATE: {
    onHand: stays,
    reserved: rises,
    unallocatable: stays,
    ...fromOrder,
    event: "InventoryAllocated",
    changeType: null,
    reservation: "HOLDS"
  },
  ORDER_RELEASE: {
    onHand: stays,
    reserved: falls,
    unallocatable: stays,
    ...fromOrder,
    event: "InventoryReleased",
    changeType: null,
    reservation: "HOLDS"
  },
  SALE: {
    onHand: falls,
    reserved: falls,
    unallocatable: stays,
    ...fromOrder,
    ...adjusted,
    changeType: "SALE",
    reservation: "SELLS"
  },
  RETURN: {
    onHand: rises,
    reserved: stays,
    unallocatable: rises,
    source: null,
    ...adjusted,
    changeType: "RETURN",
    reservation: "RETURNS",
    isTracked: true
  },
  ADJUSTMENT: {
    onHand: either,
    reserved: either,
    unallocatable: either,
    source: null,
    ...adjusted,
    changeType: "CORRECTION",
    reservation: null,
    isTracked: true
  },
  TRANSFER_OUT: {
    onHand: falls,
    reserved: stays,
    unallocatable: falls,
    source: "TRANSFER",
    ...adjusted,
    changeType: "TRANSFER_OUT",
    reservation: null,
    isTracked: true
  },
  TRANSFER_IN: {
    onHand: rises,
    reserved: stays,
    unallocatable: rises,
    source: "TRANSFER",
    ...adjusted,
    changeType: "TRANSFER_IN",
    reservation: null,
    isTracked: true
  },
  MATERIAL_RESERVE: {
    onHand: stays,
    reserved: rises,
    unallocatable: stays,
    source: "KITCHEN",
    ...adjusted,
    changeType: null,
    reservation: "HOLDS",
    isTracked: false
  },
  MATERIAL_RELEASE: {
    onHand: stays,
    reserved: falls,
    unallocatable: stays,
    source: "KITCHEN",
    ...adjusted,
    changeType: null,
    reservation: "HOLDS",
    isTracked: false
  },
  MATERIAL_CONSUME: {
    onHand: falls,
    reserved: falls,
    unallocatable: stays,
    source: "KITCHEN",
    ...adjusted,
    changeType: "MATERIAL_CONSUME",
    reservation: "SELLS",
    isTracked: false
  }
} as const satisfies Readonly<Record<string, MovementKind>>

export type MovementType = keyof typeof movements
export const movementTypes = Object.keys(movements) as ReadonlyArray<MovementType>
export const movementKind = (type: MovementType): MovementKind => movements[type]

/** The types that a condition is true of, as a list for SQL's IN. */
export const movementTypesInSql = (isMeant: (kind: MovementKind) => boolean): string =>
  movementTypes
    .filter((type) => isMeant(movements[type]))
    .map((type) => `'${type}'`)
    .join(", ")
