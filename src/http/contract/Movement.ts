import { Schema } from "effect"
import { Uuid, OutsideId } from "../../schema/Identifier.ts"
import { pageQuery } from "../../schema/Page.ts"
import { type MovementType, movementTypes } from "../../schema/Movement.ts"
import { Balance, Count } from "../../schema/Quantity.ts"
import { Instant, Timestamp } from "../../schema/Time.ts"
import { listOf, listParameter } from "./Contract.ts"

/** Lists of movements: of a variant, and of a single stock. */

export const MovementView = Schema.Struct({
  stockId: Uuid,
  locationId: OutsideId,
  lotNumber: Schema.NullOr(Schema.String),
  sequence: Count,
  type: Schema.String,
  onHandDelta: Balance,
  reservedDelta: Balance,
  unallocatableDelta: Balance,
  onHand: Balance,
  reserved: Balance,
  unallocatable: Balance,
  source: Schema.String,
  orderId: Schema.NullOr(Schema.String),
  reservationId: Schema.NullOr(Uuid),
  reference: Schema.NullOr(Schema.String),
  reason: Schema.NullOr(Schema.String),
  actor: Schema.String,
  occurredAt: Schema.NullOr(Timestamp),
  recordedAt: Timestamp
}).annotate({ identifier: "Movement" })
export const MovementList = listOf(MovementView)

const MovementTypeParameter = Schema.Literals(movementTypes).annotate({
  message: `must be one or several of ${movementTypes.join(", ")}`
})

export const movementQuery = Schema.Struct({
  ...pageQuery,
  from: Schema.optionalKey(Instant.annotate({ description: "Recorded then or later" })),
  to: Schema.optionalKey(Instant.annotate({ description: "Recorded before then" })),
  type: Schema.optionalKey(
    listParameter(MovementTypeParameter, {
      description: `One or several of ${movementTypes.join(", ")}: separated by commas, or the parameter repeated`,
      examples: [["RECEIPT", "SALE"]]
    })
  )
}).check(
  Schema.makeFilter(({ from, to }) =>
    from !== undefined && to !== undefined && to < from
      ? { path: ["to"], issue: "must not be before from" }
      : undefined
  )
)
export const movementFilter = ({
  type,
  ...filter
}: typeof movementQuery.Type): Omit<typeof movementQuery.Type, "type"> & {
  readonly types?: ReadonlyArray<MovementType>
} => ({ ...filter, ...(type === undefined ? {} : { types: type }) })

/** What lists of movements have in common, for their documentation. */
export const movementsDescription =
  "Newest first. A page that is picked by type may be shorter than its limit, and even empty, while there are more: go on until nextCursor is null."
