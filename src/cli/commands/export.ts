import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import type { StockFiles } from "../../services/stock/StockFiles.ts"
import { merchant } from "../options.ts"
import { formats, header, written } from "../StockFile.ts"
import { patiently, withFiles } from "../stockFileCommand.ts"

export const exportFile = Command.make(
  "export",
  {
    format: Flag.Literals("format", formats).pipe(
      Flag.withDescription("csv or jsonl"),
      Flag.withDefault("csv")
    ),
    merchant
  },
  ({ format, merchant }) =>
    withFiles(merchant, (files, merchantId) =>
      Effect.gen(function* () {
        yield* print(header(format))
        let after: string | null = null
        do {
          const page: Effect.Success<ReturnType<StockFiles["Service"]["page"]>> = yield* patiently(
            files.page(merchantId, after)
          )
          yield* print(page.rows.map((row) => written(format, row)).join(""))
          after = page.next
        } while (after !== null)
      })
    )
).pipe(Command.withDescription("Print all items with their stocks, as a file that import takes"))

const print = (text: string): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    process.stdout.write(text, () => resume(Effect.void))
  })
