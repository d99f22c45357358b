import { BaseSequencer, type TestSpecification } from "vitest/node"

/**
 * The files that take longest, which begin first, so that none of them is left alone at the end. Vitest knows how long
 * a file took the last time, but not on a machine where there was none. A file that is not named here has the order that
 * Vitest gives it.
 */
const slowest: ReadonlyArray<string> = [
  "contract/kafka",
  "layers/Broker",
  "services/books/Audit",
  "contract/messages",
  "services/kernel/StockLedger",
  "contract/merchantCommands",
  "layers/EmbeddedPostgres",
  "contract/debezium",
  "contract/files",
  "services/stock/Reservations",
  "contract/telemetry",
  "services/books/Retention",
  "contract/stockCommands",
  "contract/audit",
  "consumers/Runner",
  "services/orders/Orders",
  "contract/process",
  "services/stock/concurrency",
  "cli/commands/doctor",
  "services/kernel/properties"
]

export default class SlowestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return (await super.sort(files)).toSorted((one, other) => rank(one) - rank(other))
  }
}

const rank = ({ moduleId }: TestSpecification): number => {
  const place = slowest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
  return place === -1 ? slowest.length : place
}
