import { Clock, Effect, Exit, Fiber, Stream } from "effect"
import type { StockFileRow } from "../schema/StockFileRow.ts"
import type { Loaded, StockFiles } from "../services/stock/StockFiles.ts"
import { nextUuid } from "../services/Uuid.ts"
import type { ImportReport } from "./ImportReport.ts"
import { FileUnreadable, type RowChunk } from "./StockFile.ts"
import { chunkDeadlineMs, patiently } from "./stockFileCommand.ts"

/** Chunks that are loaded at once: one that is decided, one that is written, and one ready for each. */
const chunksInFlight = 4

/** One import on its way. */
export interface Importing {
  readonly files: StockFiles["Service"]
  readonly merchantId: string
  readonly key: string
  readonly reason: string
  /** Locations that exist, as far as the import knows. */
  readonly locations: Set<string>
  readonly report: ImportReport
}

interface InFlight {
  readonly lines: ReadonlyArray<number>
  readonly names: Names
  readonly fiber: Fiber.Fiber<Exit.Exit<Loaded, unknown>>
}

/**
 * Sends the chunks in the file's order, several at once. Chunks that may name the same item are sent one after the
 * other, so that the last line wins, however often the import is interrupted.
 */
export const loadAll = Effect.fnUntraced(function* (importing: Importing, chunks: AsyncIterable<RowChunk>) {
  const inFlight: Array<InFlight> = []
  const awaitFirst = Effect.gen(function* () {
    const first = inFlight.shift()!
    const loaded = yield* Effect.flatten(Fiber.join(first.fiber))
    yield* importing.report.take(first.lines, loaded)
  })
  let number = 0
  const send = Effect.fnUntraced(function* (chunk: RowChunk) {
    number += 1
    const good = chunk.reads.filter((read) => "row" in read)
    yield* importing.report.read(chunk)
    if (good.length === 0) return
    const rows = good.map(({ row }) => row)
    const names = namesOf(rows)
    while (inFlight.length >= chunksInFlight || inFlight.some((other) => mayShareItem(other.names, names)))
      yield* awaitFirst
    yield* ensureLocations(importing, rows)
    const fiber = yield* Effect.forkChild(Effect.exit(loadChunk(importing, number, rows)), {
      startImmediately: true
    })
    inFlight.push({ lines: good.map(({ line }) => line), names, fiber })
  })
  yield* Stream.fromAsyncIterable(chunks, (cause) =>
    cause instanceof FileUnreadable ? cause : new FileUnreadable({ reason: String(cause) })
  ).pipe(Stream.runForEach(send))
  while (inFlight.length > 0) yield* awaitFirst
})

const loadChunk = Effect.fnUntraced(function* (
  { files, key, merchantId, reason }: Importing,
  number: number,
  rows: ReadonlyArray<StockFileRow>
) {
  const asked = Effect.gen(function* () {
    const caller = yield* callerOf(merchantId)
    return yield* files.load(caller, { rows, key: `${key} ${number}`, reason })
  })
  return yield* patiently(asked)
})

/** New locations are created in the order of the file, because stock is picked in the order of their creation. */
const ensureLocations = Effect.fnUntraced(function* (
  { files, locations, merchantId, report }: Importing,
  rows: ReadonlyArray<StockFileRow>
) {
  for (const { locationId, quantity } of rows) {
    if (locationId === undefined || quantity === undefined || locations.has(locationId)) continue
    const created = yield* patiently(
      Effect.flatMap(callerOf(merchantId), (caller) => files.ensureLocation(caller, locationId))
    )
    locations.add(locationId)
    if (created) report.locations.push(locationId)
  }
})

const callerOf = Effect.fnUntraced(function* (merchantId: string) {
  return {
    merchantId,
    actor: "holdfast import",
    requestId: yield* nextUuid,
    deadline: (yield* Clock.currentTimeMillis) + chunkDeadlineMs
  }
})

/** The names of the items in a chunk. */
interface Names {
  readonly variants: ReadonlySet<string>
  readonly skus: ReadonlySet<string>
  /** Whether the chunk has rows with one name alone: another chunk may have the same item under its other name. */
  readonly byVariantAlone: boolean
  readonly bySkuAlone: boolean
}

const namesOf = (rows: ReadonlyArray<StockFileRow>): Names => {
  const variants = new Set<string>()
  const skus = new Set<string>()
  let byVariantAlone = false
  let bySkuAlone = false
  for (const { productVariantId, sku } of rows) {
    if (productVariantId === undefined) bySkuAlone = true
    else variants.add(productVariantId)
    if (sku === undefined) byVariantAlone = true
    else skus.add(sku)
  }
  return { variants, skus, byVariantAlone, bySkuAlone }
}

const mayShareItem = (a: Names, b: Names): boolean =>
  haveCommon(a.variants, b.variants) ||
  haveCommon(a.skus, b.skus) ||
  (a.byVariantAlone && b.bySkuAlone) ||
  (a.bySkuAlone && b.byVariantAlone)

const haveCommon = (a: ReadonlySet<string>, b: ReadonlySet<string>): boolean => {
  for (const name of a) if (b.has(name)) return true
  return false
}
