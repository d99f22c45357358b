import { Context, Effect, Layer } from "effect"
import type { CancelOrder, ConfirmOrder, ReceiveOrder, ReturnGoods } from "../kernel/commands/orders.ts"
import type { Caller } from "../../schema/Caller.ts"
import type { Posted, Refusal } from "../kernel/commands.ts"
import type { PostingFailure } from "../kernel/Posting.ts"
import type { RecordSale, ReportSale } from "../kernel/commands/sales.ts"
import { StockLedger } from "../kernel/StockLedger.ts"

type Does<C extends RecordSale | ReportSale | ReceiveOrder | ConfirmOrder | CancelOrder | ReturnGoods> = (
  caller: Caller,
  command: Omit<C, "_tag">
) => Effect.Effect<Posted<C>, Refusal<C> | PostingFailure>

/**
 * What the order, sale and payment services tell and ask by messages (CONTRACTS section 5). None of it is refused by a
 * rule (but for what a sale over HTTP names that is unknown): what cannot be done is answered by an event or noted as a discrepancy. Every operation may be repeated, and the
 * messages about one order may come in any order.
 *
 * What is left to fail is that the database does not answer (`DatabaseUnavailable`, `Overloaded`, `OperationTimedOut`:
 * ask again) or that a balance would pass 2^53−1 (`BalanceOverflow`: for good).
 */
export class Orders extends Context.Service<
  Orders,
  {
    /** `payment.success`: sells what was paid, whatever the books say. Once per line. */
    readonly recordSale: Does<RecordSale>
    /** The same over HTTP, for those without a broker: items and locations that nobody has created are refused. */
    readonly reportSale: Does<ReportSale>
    /** `order.created`: checks what the order holds, or reserves. Once per order. */
    readonly receive: Does<ReceiveOrder>
    /** `inventory.confirm_requested`: confirms, and answers each request by an event. */
    readonly confirm: Does<ConfirmOrder>
    /** `order.cancelled`, `order.fraudulent`: once per order. `order.payment-failed`: once per message. */
    readonly cancel: Does<CancelOrder>
    /** `order.returned`, `return.processed`. Once per message. */
    readonly takeBack: Does<ReturnGoods>
  }
>()("holdfast/services/Orders") {
  static readonly layer = Layer.effect(
    Orders,
    Effect.gen(function* () {
      const ledger = yield* StockLedger
      return Orders.of({
        recordSale: (caller, command) => ledger.post(caller, { ...command, _tag: "RecordSale" }),
        reportSale: (caller, command) => ledger.post(caller, { ...command, _tag: "ReportSale" }),
        receive: (caller, command) => ledger.post(caller, { ...command, _tag: "ReceiveOrder" }),
        confirm: (caller, command) => ledger.post(caller, { ...command, _tag: "ConfirmOrder" }),
        cancel: (caller, command) => ledger.post(caller, { ...command, _tag: "CancelOrder" }),
        takeBack: (caller, command) => ledger.post(caller, { ...command, _tag: "ReturnGoods" })
      })
    })
  )
}
