import { Clock, Effect, Exit, Fiber, Stream } from "effect"
import type { Chunk, Loaded, Previewed, StockFiles } from "../services/stock/StockFiles.ts"
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
  /** What all of its chunks are loaded with. */
  readonly terms: Pick<Chunk, "fileHash" | "run" | "again" | "reason">
  readonly dryRun: boolean
  /** Locations that exist, as far as the import knows. */
  readonly locations: Set<string>
  readonly report: ImportReport
}

interface InFlight {
  readonly chunk: RowChunk
  readonly names: Names
  /** Of a chunk of which no row can be read there is nothing to load. */
  readonly fiber: Fiber.Fiber<Exit.Exit<Loaded | Previewed, unknown>> | undefined
}

/**
 * Sends the chunks in the file's order, several at once, and reports them in that order. Chunks that may name the same
 * item are sent one after the other, so that the last line wins, however often the import is interrupted.
 */
export const loadAll = Effect.fnUntraced(function* (importing: Importing, chunks: AsyncIterable<RowChunk>) {
  const inFlight: Array<InFlight> = []
  const awaitFirst = Effect.gen(function* () {
    const { chunk, fiber } = inFlight.shift()!
    const loaded = fiber === undefined ? undefined : yield* Effect.flatten(Fiber.join(fiber))
    yield* importing.report.take(chunk, loaded)
  })
  const send = Effect.fnUntraced(function* (chunk: RowChunk) {
    const rows = chunk.reads.filter((read) => "row" in read)
    const names = namesOf(rows)
    while (inFlight.length >= chunksInFlight || inFlight.some((other) => mayShareItem(other.names, names)))
      yield* awaitFirst
    if (!importing.dryRun) yield* ensureLocations(importing, rows)
    const fiber =
      rows.length === 0
        ? undefined
        : yield* Effect.forkChild(Effect.exit(loadChunk(importing, chunk.number, rows)), {
            startImmediately: true
          })
    inFlight.push({ chunk, names, fiber })
  })
  yield* Stream.fromAsyncIterable(chunks, (cause) =>
    cause instanceof FileUnreadable ? cause : new FileUnreadable({ reason: String(cause) })
  ).pipe(Stream.runForEach(send))
  while (inFlight.length > 0) yield* awaitFirst
})

type Rows = Chunk["rows"]

const loadChunk = Effect.fnUntraced(function* (
  { dryRun, files, merchantId, terms }: Importing,
  chunk: number,
  rows: Rows
) {
  const asked = Effect.gen(function* () {
    const caller = yield* callerOf(merchantId)
    const given = { ...terms, chunk, rows }
    return dryRun ? yield* files.preview(caller, given) : yield* files.load(caller, given)
  })
  return yield* patiently(asked)
})

/** New locations are created in the order of the file, because stock is picked in the order of their creation. */
const ensureLocations = Effect.fnUntraced(function* (
  { files, locations, merchantId, report }: Importing,
  rows: Rows
) {
  for (const { row } of rows) {
    const { locationId, quantity } = row
    if (locationId === undefined || quantity === undefined || locations.has(locationId)) continue
    const created = yield* patiently(
      Effect.flatMap(callerOf(merchantId), (caller) => files.ensureLocation(caller, locationId))
    )
    locations.add(locationId)
    if (created) report.createdLocation(locationId)
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

const namesOf = (rows: Rows): Names => {
  const variants = new Set<string>()
  const skus = new Set<string>()
  let byVariantAlone = false
  let bySkuAlone = false
  for (const { row } of rows) {
    const { productVariantId, sku } = row
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
