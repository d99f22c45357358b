import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import clientManifest from "../client/package.json" with { type: "json" }
import manifest from "../package.json" with { type: "json" }
import { HoldfastError, createClient, entriesOf } from "../src/client/createClient.ts"
import { Service, merchant } from "./support/service.ts"

/** The typed client: against the service, against one that fails, and packed as who installs it has it. */

const root = path.join(import.meta.dirname, "..")
const timeout = 120_000
const installedBytesMax = 10 * 1024 * 1024

const clientOf = Effect.gen(function* () {
  const { port } = yield* Service
  const { token } = yield* merchant
  return {
    baseUrl: `http://127.0.0.1:${port}`,
    client: createClient({ baseUrl: `http://127.0.0.1:${port}/`, token }),
    token
  }
})

const refused = (call: Promise<unknown>): Promise<HoldfastError> =>
  call.then(
    () => assert.fail("the call was not refused"),
    (error: unknown) => {
      assert.instanceOf(error, HoldfastError)
      return error
    }
  )

/** A service that gives these answers, one after the other, and keeps what it was sent. */
const answering = (
  answers: ReadonlyArray<{ readonly status: number; readonly retryAfter?: string; readonly body: object }>
) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const keys: Array<string | undefined> = []
      const server = createServer((request, response) => {
        keys.push(request.headers["idempotency-key"] as string | undefined)
        const { body, retryAfter, status } = answers[Math.min(keys.length, answers.length) - 1]!
        response.writeHead(status, {
          "content-type": "application/json",
          ...(retryAfter === undefined ? {} : { "retry-after": retryAfter })
        })
        response.end(JSON.stringify(body))
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return { keys, server, baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    }),
    ({ server }) => Effect.sync(() => server.close())
  )

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("the client", (it) => {
  it.effect("calls by name, with what goes into path, query and body in one object", () =>
    Effect.gen(function* () {
      const { client } = yield* clientOf
      yield* Effect.promise(async () => {
        await client.catalog.createItem({ productVariantId: "a/b cup", sku: "CUP", name: "Cup" })
        const received = await client.variants.adjustStock(
          { productVariantId: "a/b cup", changeType: "RECEIPT", quantity: 10 },
          { idempotencyKey: "delivery-1" }
        )
        assert.strictEqual(received.quantity, 10)
        const reserved = await client.orders.reserve({
          orderId: "order-1",
          items: [{ variantId: "a/b cup", quantity: 2 }]
        })
        const reservation = await client.orders.getReservation({ id: reserved.data.reservationId })
        assert.strictEqual(reservation.data.status, "PENDING")
        const more = await client.variants.reserveVariant({
          productVariantId: "a/b cup",
          orderId: "order-2",
          quantity: 1
        })
        assert.strictEqual(more.productVariantId, "a/b cup")
        assert.strictEqual((await client.orders.confirm({ orderId: "order-1" })).data.confirmed, true)
        const variant = await client.variants.getVariant({ productVariantId: "a/b cup" })
        assert.deepStrictEqual([variant.quantity, variant.reservedQuantity], [8, 1])
        const several = await client.variants.getVariants({ productVariantIds: ["a/b cup", "none"] })
        assert.deepStrictEqual(several.missing, ["none"])
      })
    })
  )

  it.effect("throws what the service refuses as an error with its problem", () =>
    Effect.gen(function* () {
      const { baseUrl, client } = yield* clientOf
      yield* Effect.promise(async () => {
        const none = await refused(client.variants.getVariant({ productVariantId: "none" }))
        assert.deepStrictEqual([none.status, none.code], [404, "NOT_FOUND"])
        assert.include(none.message, "Not stocked here")
        await client.catalog.createItem({ productVariantId: "cup" })
        const short = await refused(
          client.orders.reserve(
            { orderId: "o", items: [{ variantId: "cup", quantity: 1 }] },
            { requestId: "request-7" }
          )
        )
        assert.deepStrictEqual([short.code, short.problem.instance], ["INSUFFICIENT_INVENTORY", "request-7"])
        const stranger = createClient({ baseUrl, token: async () => "no token" })
        assert.strictEqual((await refused(stranger.catalog.listStocks())).status, 401)
      })
    })
  )

  it.effect("walks through all pages of a list", () =>
    Effect.gen(function* () {
      const { client } = yield* clientOf
      const found = yield* Effect.promise(async () => {
        const skus = Array.from({ length: 5 }, (_, index) => `SKU-${index}`)
        for (const sku of skus) await client.catalog.createItem({ sku })
        const found: Array<string | null> = []
        for await (const { sku } of entriesOf(client.catalog.listItems, { limit: 2 })) found.push(sku)
        assert.deepStrictEqual(found, skus)
        return found
      })
      assert.strictEqual(found.length, 5)
    })
  )

  it.effect("sends again what may be sent again, with the same key, and nothing else", () =>
    Effect.gen(function* () {
      const problem = { type: "t", title: "t", detail: "d" }
      const busy = {
        status: 503,
        retryAfter: "0",
        body: { ...problem, status: 503, code: "INVENTORY_UNAVAILABLE" }
      }
      const late = { status: 408, body: { ...problem, status: 408, code: "INVENTORY_TIMEOUT" } }
      const done = { status: 200, body: { applied: true } }
      const sale = { productVariantId: "cup", changeType: "SALE", quantity: 1 } as const
      const attempts = Effect.fnUntraced(function* (
        answers: Parameters<typeof answering>[0],
        idempotencyKey?: string
      ) {
        const { baseUrl, keys } = yield* answering(answers)
        const client = createClient({ baseUrl, token: "t" })
        const options = idempotencyKey === undefined ? {} : { idempotencyKey }
        yield* Effect.promise(() => client.variants.adjustStock(sale, options).catch(() => undefined))
        return keys
      })
      // Nothing was changed: it may be sent again with or without a key.
      assert.deepStrictEqual(yield* attempts([busy, done]), [undefined, undefined])
      assert.deepStrictEqual(yield* attempts([busy, busy, busy, busy]), [undefined, undefined, undefined])
      // The outcome is not known: without a key the sale might be a second one.
      assert.deepStrictEqual(yield* attempts([late, done]), [undefined])
      assert.deepStrictEqual(yield* attempts([late, done], "key-1"), ["key-1", "key-1"])
    })
  )

  it.effect(
    "is a package of its own that weighs nothing, has its types, and needs no other",
    () =>
      Effect.gen(function* () {
        const { baseUrl, token } = yield* clientOf
        yield* Effect.promise(async () => {
          const folder = await fs.mkdtemp(path.join(os.tmpdir(), "holdfast-client-"))
          try {
            await checkPackage(folder, { BASE_URL: baseUrl, TOKEN: token })
          } finally {
            await fs.rm(folder, { recursive: true, force: true })
          }
        })
      }),
    timeout
  )
})

const checkPackage = async (folder: string, environment: Readonly<Record<string, string>>): Promise<void> => {
  const PATH = `${path.dirname(process.execPath)}${path.delimiter}${process.env["PATH"]}`
  const execute = async (at: string, command: string, ...parameters: ReadonlyArray<string>) =>
    promisify(execFile)(command, [...parameters], { cwd: at, env: { ...process.env, PATH, ...environment } })
  assert.strictEqual(clientManifest.version, manifest.version)
  assert.notProperty(clientManifest, "dependencies")
  await execute(path.join(root, "client"), "npm", "pack", "--silent", "--pack-destination", folder)
  await fs.writeFile(path.join(folder, "package.json"), `{ "type": "module" }`)
  const packed = `${clientManifest.name}-${clientManifest.version}.tgz`
  await execute(folder, "npm", "install", "--offline", "--no-audit", "--no-fund", "--no-save", `./${packed}`)
  const installed = await fs.readdir(path.join(folder, "node_modules"), {
    recursive: true,
    withFileTypes: true
  })
  const sizes = await Promise.all(
    installed
      .filter((entry) => entry.isFile())
      .map(async (entry) => (await fs.stat(path.join(entry.parentPath, entry.name))).size)
  )
  const bytes = sizes.reduce((sum, size) => sum + size, 0)
  assert.isBelow(bytes, installedBytesMax)
  assert.isAbove(bytes, 10_000)
  await fs.writeFile(path.join(folder, "client.ts"), program)
  const flags = "--noEmit --strict --module nodenext --target es2022 --lib es2022,dom client.ts".split(" ")
  await execute(
    folder,
    process.execPath,
    path.join(root, "node_modules", "typescript", "bin", "tsc"),
    ...flags
  )
  const { stdout } = await execute(folder, process.execPath, "client.ts")
  assert.strictEqual(stdout, "0 NOT_FOUND\n")
}

/** Compiles only if the types are known: an unknown field, or `any` in its place, is an error. */
const program = `
import { HoldfastError, createClient } from "holdfast-client"

declare const process: { readonly env: Record<string, string> }
const client = createClient({ baseUrl: process.env.BASE_URL!, token: process.env.TOKEN! })
const stocks = await client.catalog.listStocks({ limit: 1 })
const count: number = stocks.data.length
// @ts-expect-error there is no such field
void stocks.nothing
// @ts-expect-error there is no such parameter
if (count < 0) await client.catalog.listStocks({ limt: 1 })
try {
  await client.variants.getVariant({ productVariantId: "none" })
} catch (error) {
  console.log(count, error instanceof HoldfastError ? error.code : error)
}
`
