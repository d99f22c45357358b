import type { Answers } from "../services/kernel/commands.ts"
import type { AdjustStock as AdjustCommand } from "../services/kernel/commands/stock.ts"
import type { ChangeType } from "../schema/Movement.ts"
import { timestamp, timestampOrNull } from "../schema/Time.ts"
import type { Movement } from "../services/stock/Movements.ts"
import type { AdjustedStock } from "./contract/Adjustment.ts"
import type { MovementView } from "./contract/Movement.ts"
import type { ReleasedVariant, ReservedVariant } from "./contract/Reservation.ts"
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
  item: { itemId: _, ...figures },
  stocks
}: Answers["AdjustStock"]): typeof AdjustedStock.Encoded => ({ applied, ...figures, stocks })

export const reservedVariant = (
  { reservation }: Answers["ReserveStock"],
  productVariantId: string,
  quantity: number
): typeof ReservedVariant.Encoded => ({
  reservationId: reservation.reservationId,
  orderId: reservation.orderId,
  productVariantId,
  quantity,
  status: reservation.status,
  expiresAt: timestamp(reservation.expiresAt)
})

export const releasedVariant = (
  { item, quantity, released }: Answers["ReleaseReservation"],
  orderId: string
): typeof ReleasedVariant.Encoded => {
  const { itemId: _, ...figures } = item!
  return { orderId, released, releasedQuantity: quantity, ...figures }
}

export const movementView = (movement: Movement): typeof MovementView.Encoded => ({
  ...movement,
  occurredAt: timestampOrNull(movement.occurredAt),
  recordedAt: timestamp(movement.recordedAt)
})
