import type { Answers } from "../services/kernel/commands.ts"
import type { AdjustStock as AdjustCommand } from "../services/kernel/commands/stock.ts"
import type { ChangeType } from "../schema/Movement.ts"
import type { ReservationAnswer, ReservationLineAnswer } from "../schema/Reservation.ts"
import { timestamp, timestampOrNull } from "../schema/Time.ts"
import type { Movement } from "../services/stock/Movements.ts"
import type { AdjustedStock } from "./contract/Adjustment.ts"
import type { MovementView } from "./contract/Movement.ts"
import type {
  Allocations,
  ReleasedOrder,
  ReleasedVariant,
  ReserveOrder,
  ReservedOrder,
  ReservedVariant
} from "./contract/Reservation.ts"
import type { AdjustStock } from "./contract/VariantsApi.ts"

/** Parameters and answers that the handlers of several groups translate alike: a single call and its bulk operation. */

export const adjustmentOf = (
  given: Omit<typeof AdjustStock.Type, "changeType">,
  changeType: ChangeType
): Omit<AdjustCommand, "_tag"> => ({
  changeType,
  item: { variantId: given.productVariantId },
  quantity: given.quantity ?? given.quantitySold!,
  orderId: given.orderId,
  locationId: given.locationId,
  lotNumber: given.lotNumber,
  lotExpiresAt: given.expiresAt,
  condition: given.condition,
  reason: given.reason,
  reference: given.reference,
  occurredAt: given.occurredAt,
  expectedVersion: given.expectedVersion
})

export const adjustedStock = ({
  applied,
  discrepancies,
  item: { itemId: _, ...figures },
  stocks
}: Answers["AdjustStock"]): typeof AdjustedStock.Encoded => ({ applied, ...figures, stocks, discrepancies })

/** A line of an order, as the kernel takes it. */
export const wantedLine = ({
  locationId,
  lotNumber,
  quantity,
  variantId
}: (typeof ReserveOrder.Type)["items"][number]) => ({ item: { variantId }, quantity, locationId, lotNumber })

/** What a line holds or, where its reservation holds nothing any more, was sold. */
export const quantityNow = (
  { status }: Pick<ReservationAnswer, "status">,
  { open, sold }: ReservationLineAnswer
): number => (status === "PENDING" ? open : sold)

const allocationsOf = (reservation: ReservationAnswer): typeof Allocations.Encoded =>
  reservation.lines.flatMap((line) => {
    const { locationId, lotNumber, productVariantId: variantId, stockId } = line
    const quantity = quantityNow(reservation, line)
    return stockId === null || quantity === 0 ? [] : [{ variantId, stockId, locationId, lotNumber, quantity }]
  })

/** `items`: as they were asked for, and the reservation has just that. */
export const reservedOrder = (
  reservation: ReservationAnswer,
  items: (typeof ReserveOrder.Type)["items"],
  applied: boolean
): typeof ReservedOrder.Encoded => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  status: reservation.status,
  applied,
  items: items.map((line) => ({ ...line, reserved: true as const })),
  allocations: allocationsOf(reservation),
  expiresAt: timestamp(reservation.expiresAt)
})

export const reservedVariant = (
  { created: applied, reservation }: Answers["ReserveStock"],
  productVariantId: string,
  quantity: number
): typeof ReservedVariant.Encoded => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  productVariantId,
  quantity,
  status: reservation.status,
  applied,
  allocations: allocationsOf(reservation),
  expiresAt: timestamp(reservation.expiresAt)
})

/** Nothing of it is held any more, whether or not this call gave it back. */
export const releasedOrder = (
  { applied }: Answers["ReleaseReservation"],
  orderId: string
): typeof ReleasedOrder.Encoded => ({ orderId, released: true, applied })

export const releasedVariant = (
  { applied, item, quantity }: Answers["ReleaseReservation"],
  orderId: string
): typeof ReleasedVariant.Encoded => {
  const { itemId: _, ...figures } = item!
  return { orderId, released: true, applied, releasedQuantity: quantity, ...figures }
}

export const movementView = (movement: Movement): typeof MovementView.Encoded => ({
  ...movement,
  occurredAt: timestampOrNull(movement.occurredAt),
  recordedAt: timestamp(movement.recordedAt)
})
