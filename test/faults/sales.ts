import { Effect, Schedule } from "effect"
import type { OutgoingMessage } from "../../src/services/messaging/Broker.ts"
import type { Sql } from "../support/ledger.ts"

/** Paid sales over a broker, each of one item of one merchant, and what has become of them. */

export const salesTopic = "payment.success"

/** The sale of an order, of one of so many items. */
export const saleOf = (order: number, items: number, quantity = 1): OutgoingMessage => ({
  topic: salesTopic,
  key: `order-${order}`,
  headers: {},
  value: JSON.stringify({
    merchantId: "acme",
    saleOrderId: `order-${order}`,
    items: [{ saleOrderItemId: "1", productVariantId: `item-${order % items}`, quantity }]
  })
})

/** How many sales the books have. */
export const sold = (sql: Sql) =>
  Effect.map(
    sql.run<{ count: number }>("SELECT count(*) AS count FROM inventory_ledger WHERE type = 'SALE'"),
    ([row]) => row!.count
  )

/** Looks until what is found is wanted, for as long as the test may take. */
export const lookUntil = <A>(look: Effect.Effect<A>, isWanted: (found: A) => boolean) =>
  Effect.repeat(look, { until: isWanted, schedule: Schedule.spaced("200 millis") })
