import type { Table } from "./Table.ts"
import { capturedVariants, items, locations, merchants } from "./tables/catalog.ts"
import { discrepancies, idempotency, tracking } from "./tables/documents.ts"
import { fileChunks } from "./tables/files.ts"
import { checkpoints, repairs } from "./tables/repair.ts"
import { reservationLines, reservations } from "./tables/reservations.ts"
import { ledger, stocks } from "./tables/stock.ts"

/** Every table that the kernel writes, in the order in which it writes them. */
export const tables: ReadonlyArray<Table> = [
  merchants,
  locations,
  items,
  stocks,
  ledger,
  reservations,
  reservationLines,
  tracking,
  idempotency,
  discrepancies,
  checkpoints,
  repairs,
  capturedVariants,
  fileChunks
]
