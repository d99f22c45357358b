import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import * as net from "node:net"
import * as path from "node:path"
import { hasData, running } from "../../src/layers/EmbeddedPostgres.ts"
import { connect } from "../support/ledger.ts"
import { emptyFolder } from "../support/Postgres.ts"
import { type Program, eventually, merchantAt, run, startService } from "../support/service.ts"

/** Wrong command lines, wrong folders, and commands beside a service that keeps a database of its own. */

/** Processes start and stop here, which takes its time where all processors are busy. */
const timeout = 180_000

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")

/** Runs a command to its end, in a folder of its own. */
const holdfast = Effect.fnUntraced(function* (
  folder: string,
  parameters: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {}
) {
  const program = yield* run(environment, parameters, undefined, folder)
  const { code } = yield* program.ended
  return { code, out: linesOf(program.stdout()), errors: linesOf(program.stderr()) }
}, Effect.scoped)

describe("a wrong command line", { timeout }, () => {
  it.live("exits 2, and says its fault first, on stderr, without the help", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      const faults: ReadonlyArray<readonly [parameters: string, fault: string, help: string]> = [
        ["stock --limitt 5", "there is no flag --limitt: did you mean --limit?", "holdfast stock"],
        ["stok", 'holdfast has no command "stok": did you mean stock?', "holdfast"],
        ["dlq foo", 'holdfast dlq has no command "foo"', "holdfast dlq"],
        ["stock --limit 0", '--limit "0" is not a value greater than or equal to 1', "holdfast stock"],
        ["stock --limit abc", '--limit "abc" is not a whole number', "holdfast stock"],
        ["stock --limit", "--limit needs a value: a whole number", "holdfast stock"],
        ["stock a b", '"b" is more than this command takes', "holdfast stock"],
        ["import f --format xml", '--format "xml" is not csv or jsonl', "holdfast import"],
        [
          "ledger detach --before 2026-13",
          '--before "2026-13" must be a month, as 2026-01',
          "holdfast ledger detach"
        ],
        ["history", "<product-variant-id> is missing", "holdfast history"]
      ]
      for (const [parameters, fault, help] of faults) {
        assert.deepStrictEqual(yield* holdfast(folder, parameters.split(" ")), {
          code: 2,
          out: [],
          errors: [`holdfast: ${fault}`, `holdfast: ${help} --help shows how it is used`]
        })
      }
    })
  )

  it.live("is not what has no command: that asks for the help", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      for (const parameters of [[], ["dlq"], ["stock", "--help"]]) {
        const { code, errors, out } = yield* holdfast(folder, parameters)
        assert.deepStrictEqual([code, errors], [0, []])
        assert.include(out, "USAGE")
      }
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(folder)), [])
    })
  )
})

describe("a command", { timeout }, () => {
  it.live("in a folder without a database makes none, and says where it looked", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      for (const parameters of [["stock"], ["token"], ["export"], ["audit"], ["tail", "t"]]) {
        const { code, errors, out } = yield* holdfast(folder, parameters)
        assert.isAbove(code!, 0)
        assert.deepStrictEqual(out, [])
        assert.match(
          errors.join("\n"),
          /there is no database in \.holdfast: .*HOLDFAST_DATA_DIR.*holdfast serve/
        )
      }
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(folder)), [])
    })
  )

  it.live("says so at once where a data folder can never be", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      for (const parent of process.platform === "linux" ? ["/proc", "/dev/null"] : ["/dev/null"]) {
        const dataDir = { HOLDFAST_DATA_DIR: `${parent}/x`, PORT: "0" }
        const { code, errors } = yield* holdfast(folder, ["serve"], dataDir)
        assert.strictEqual(code, 1)
        assert.match(
          errors[0]!,
          new RegExp(`^holdfast: Cannot make ${parent}/x: .*another HOLDFAST_DATA_DIR`)
        )
      }
    })
  )

  it.live("shares its database with a service that starts meanwhile, and sees it restart", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      const dataDir = path.join(folder, ".holdfast")
      const server = Effect.orDie(running(dataDir))
      assert.strictEqual((yield* holdfast(folder, ["migrate"])).code, 0)
      assert.isUndefined(yield* server, "the last to leave has stopped it")

      const tail = yield* run({}, ["tail", "inventory.events"], undefined, folder)
      yield* eventually(server, (url) => url !== undefined)
      const day = Effect.fnUntraced(function* (item: string) {
        const service = yield* startService(undefined, {}, { folder })
        const shop = yield* merchantAt(service)
        yield* shop.item(item)
        yield* shop.receive(item, 1)
        yield* seen(tail, item)
        assert.strictEqual((yield* holdfast(folder, ["stock", "--merchant", shop.merchantId])).code, 0)
        yield* service.kill("SIGTERM")
        assert.deepStrictEqual(yield* service.ended, { code: 0, signal: null })
      }, Effect.scoped)
      yield* day("cup")
      assert.isUndefined(yield* server, "the service has taken it over, and stops it with itself")
      yield* day("saucer")
      const printed = linesOf(tail.stdout())
      assert.strictEqual(new Set(printed).size, printed.length, "nothing is printed twice")
      yield* tail.kill("SIGINT")
      assert.deepStrictEqual(yield* tail.ended, { code: 0, signal: null })
    })
  )

  it.live("leaves the database to another command that uses it", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      const dataDir = path.join(folder, ".holdfast")
      const server = Effect.orDie(running(dataDir))
      assert.strictEqual((yield* holdfast(folder, ["migrate"])).code, 0)
      assert.isTrue(yield* hasData(dataDir))
      const tail = yield* run({}, ["tail", "inventory.events"], undefined, folder)
      const url = yield* eventually(server, (found) => found !== undefined)
      assert.strictEqual((yield* holdfast(folder, ["stock"])).code, 0)
      yield* Effect.scoped(
        Effect.gen(function* () {
          // A connection of ours is somebody else to the command that ends.
          const sql = yield* connect(url!)
          yield* tail.kill("SIGINT")
          yield* tail.ended
          assert.strictEqual((yield* sql.run("SELECT 1 AS one")).length, 1)
        })
      )
      assert.isDefined(yield* server)
      assert.strictEqual((yield* holdfast(folder, ["stock"])).code, 0)
      assert.isUndefined(yield* server)
    })
  )
})

describe("a service", { timeout }, () => {
  it.live("whose port is taken says how to choose another, and makes no database", () =>
    Effect.gen(function* () {
      const folder = yield* emptyFolder
      const taken = yield* Effect.acquireRelease(
        Effect.callback<net.Server>((resume) => {
          const server = net.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = taken.address() as net.AddressInfo
      assert.deepStrictEqual(yield* holdfast(folder, ["serve"], { PORT: String(port) }), {
        code: 1,
        out: [],
        errors: [
          `holdfast: PORT: ${port} is taken on 127.0.0.1: end the program that listens there, or choose another, such as PORT=${port + 1} (PORT=0: any free one)`
        ]
      })
      const elsewhere = yield* holdfast(folder, ["serve"], { HOST: "203.0.113.9" })
      assert.deepStrictEqual(elsewhere.errors, ["holdfast: HOST: 203.0.113.9 is no address of this machine"])
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(folder)), [])
    })
  )

  it.live("that is piped prints no token", () =>
    Effect.gen(function* () {
      const service = yield* startService(undefined, {}, { folder: yield* emptyFolder })
      yield* eventually(Effect.sync(service.stdout), (text) => text.includes("holdfast token issues one"))
      assert.notMatch(service.stdout(), /Bearer|eyJ/)
      yield* service.kill("SIGTERM")
      yield* service.ended
    })
  )
})

const seen = (program: Program, text: string) =>
  eventually(Effect.sync(program.stdout), (printed) => printed.includes(text))
