import { cdcMerchant } from "./CdcMerchant.ts"
import { cdcProductVariant } from "./CdcProductVariant.ts"
import type { EnsureItem } from "../services/kernel/commands/catalog.ts"
import type { PostingFailure } from "../services/kernel/Posting.ts"
import type { Refusal } from "../services/kernel/commands.ts"
import type { Catalog } from "../services/stock/Catalog.ts"
import type { Orders } from "../services/orders/Orders.ts"
import { confirmRequested } from "./ConfirmRequested.ts"
import type { Consumer } from "./Consumer.ts"
import { orderReturned, returnProcessed } from "./ItemsReturned.ts"
import { orderCreated } from "./OrderCreated.ts"
import { orderCancelled, orderFraudulent, orderPaymentFailed } from "./OrderEnded.ts"
import { paymentSuccess } from "./PaymentSuccess.ts"
import { productVariantCreated } from "./ProductVariantCreated.ts"
import { productVariantDeleted } from "./ProductVariantDeleted.ts"
import { productVariantUpdated } from "./ProductVariantUpdated.ts"

/** The topics that the role `consumers` consumes. */
export const topics: ReadonlyArray<Consumer<Refusal<EnsureItem> | PostingFailure, Catalog | Orders>> = [
  paymentSuccess,
  orderCreated,
  orderCancelled,
  orderPaymentFailed,
  orderFraudulent,
  orderReturned,
  returnProcessed,
  confirmRequested,
  productVariantCreated,
  productVariantUpdated,
  productVariantDeleted,
  cdcProductVariant,
  cdcMerchant
]
