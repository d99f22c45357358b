import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { OutsideId } from "../../schema/Identifier.ts"
import { PaymentSuccess } from "../../schema/Message.ts"
import { Count } from "../../schema/Quantity.ts"
import { ExampleCall, RequiredPermission, maxLines } from "./Contract.ts"
import { problem } from "./Problem.ts"

/** The contract of paid sales for those without a broker: `/v1/api/inventory/sales` (CONTRACTS 4.2). */

const PaidSale = PaymentSuccess.check(
  Schema.makeFilter(({ items }) =>
    items.length > maxLines ? { path: ["items"], issue: `must have at most ${maxLines} lines` } : undefined
  )
)

export const RecordedSale = Schema.Struct({
  saleOrderId: OutsideId,
  applied: Schema.Boolean.annotate({
    description: "false: every line was recorded before, by message or over HTTP; this call sold nothing"
  }),
  lines: Schema.Struct({
    applied: Count.annotate({ description: "Lines that are sold by this call" }),
    repeated: Count.annotate({ description: "Lines that were recorded before, with the same quantity" }),
    changed: Count.annotate({
      description:
        "Lines that were recorded before with another quantity: a SALE_LINE_CHANGED discrepancy is open"
    })
  }).annotate({ description: "Lines of one saleOrderItemId (else of one item and location) count as one" })
})

export class SalesApi extends HttpApiGroup.make("sales")
  .add(
    HttpApiEndpoint.post("recordSale", "/sales", {
      payload: PaidSale,
      success: RecordedSale,
      error: [problem("ItemNotFound"), problem("LocationNotFound")]
    })
      .annotate(RequiredPermission, "inventory:adjust")
      .annotate(ExampleCall, {
        body: {
          saleOrderId: "order-1003",
          items: [{ saleOrderItemId: "line-1", productVariantId: "espresso-cup", quantity: 1 }]
        }
      })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Record a paid sale",
          description:
            "The payload and the effect of the message payment.success: a fact, never refused because stock is short. Each line is recorded once, whichever way it is told. Lines that name a location were sold there; what the order holds beyond what was paid is released."
        })
      )
  )
  .prefix("/v1/api/inventory")
  .annotateMerge(
    OpenApi.annotations({ title: "Sales", description: "Paid sales, for those without a broker." })
  ) {}
