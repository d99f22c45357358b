import { type AnswerOf, type CommandDefinition, type PayloadOf, type RefusalOf } from "./Command.ts"
import { bulk } from "./commands/bulk.ts"
import {
  deleteItem,
  ensureItem,
  ensureLocation,
  ensureMerchantCommand,
  resolveDiscrepancy
} from "./commands/catalog.ts"
import { confirmReservation } from "./commands/confirmations.ts"
import { countStock } from "./commands/count.ts"
import { loadRows, previewRows } from "./commands/files.ts"
import { cancelOrder, confirmOrder, receiveOrder, returnGoods } from "./commands/orders.ts"
import { repairItem, repairReservation } from "./commands/repair.ts"
import {
  expireReservation,
  extendReservation,
  releaseReservation,
  reserveStock
} from "./commands/reservations.ts"
import { recordSale } from "./commands/sales.ts"
import { adjustStock } from "./commands/stock.ts"
import type { CommonRefusal, Posting as PostingOf } from "./Posting.ts"

/** Every command of the kernel. The types of commands, answers and refusals are those of this list. */
export const commands = [
  reserveStock,
  releaseReservation,
  confirmReservation,
  extendReservation,
  expireReservation,
  adjustStock,
  countStock,
  ensureItem,
  ensureLocation,
  ensureMerchantCommand,
  deleteItem,
  resolveDiscrepancy,
  recordSale,
  receiveOrder,
  confirmOrder,
  cancelOrder,
  returnGoods,
  repairItem,
  repairReservation,
  bulk,
  loadRows,
  previewRows
] as const satisfies ReadonlyArray<CommandDefinition>

type Definition = (typeof commands)[number]
export type Command = PayloadOf<Definition>
export type Answers = { readonly [Tag in Command["_tag"]]: AnswerOf<DefinitionOf<Tag>> }
export type Answer<C extends Command> = Answers[C["_tag"]]
export type Refusal<C extends Command> = RefusalOf<DefinitionOf<C["_tag"]>>
type DefinitionOf<Tag extends Command["_tag"]> = Extract<Definition, { readonly tag: Tag }>
export type Posting<C extends Command = Command> = PostingOf<C>

/** An answer, and whether it is the stored one of an earlier request with the same Idempotency-Key. */
export interface Posted<C extends Command> {
  readonly answer: Answer<C>
  readonly replayed: boolean
}

/** Whatever a command may be refused with. */
export type AnyRefusal = RefusalOf<Definition> | CommonRefusal
