import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { globSync, readFileSync } from "node:fs"
import path from "node:path"
import * as MemoryBroker from "./support/MemoryBroker.ts"
import * as Postgres from "../src/layers/Postgres.ts"
import { Health } from "../src/services/Health.ts"
import { StockFiles } from "../src/services/stock/StockFiles.ts"
import { tables } from "../src/services/kernel/tables.ts"
import { caller, connect, dawn, services, shopOf } from "./support/ledger.ts"
import { freshDatabase } from "./support/Postgres.ts"
import { recordedDb } from "./support/recordedDb.ts"

/**
 * What DESIGN says of the whole: which room may import which, and that merchant_id leads every key, index and statement.
 */

const root = path.join(import.meta.dirname, "..")
const source = path.join(root, "src")

/**
 * DESIGN, "Rooms". A room is a folder; `services` alone stands for the files directly in it, and `services/*` for all of
 * its rooms. Files directly under src are composition, as src/cli is.
 */
const mayImport: Readonly<Record<string, ReadonlyArray<string>>> = {
  schema: [],
  services: ["schema"],
  "services/*": ["schema", "services", "services/kernel"],
  "services/kernel": ["schema", "services"],
  layers: ["schema", "services", "services/*"],
  "http/contract": ["schema"],
  http: ["schema", "services", "services/*", "http/contract"],
  consumers: ["schema", "services", "services/*"],
  // Who installs the client has nothing of the service.
  client: [],
  cli: ["schema", "services", "services/*", "layers", "http/contract", "http", "consumers", "client"]
}

/** Files that may import further rooms, and why. */
const exceptions: ReadonlyArray<{
  readonly from: string
  readonly to: ReadonlyArray<string>
  readonly why: string
}> = [
  {
    from: "services/Doctor.ts",
    to: ["services/kernel", "services/messaging"],
    why: "it examines what every room depends on: lanes, broker, consumer groups"
  },
  {
    from: "services/Health.ts",
    to: ["services/messaging"],
    why: "readiness includes the broker and its topics"
  },
  {
    from: "services/books/Retention.ts",
    to: ["services/messaging"],
    why: "it removes published events, and messages of the PostgreSQL broker, by age"
  }
]

interface Import {
  readonly from: string
  readonly to: string
}

/** The imports of one file, of values and types, static and dynamic; paths are relative to src. */
const importsOf = (file: string): ReadonlyArray<Import> => {
  const text = readFileSync(path.join(source, file), "utf8")
  const pattern = /(?:\bfrom\s+|\bimport\s+|\bimport\(\s*)["'](\.[^"']*)["']/g
  return [...text.matchAll(pattern)].map(([, specifier]) => ({
    from: file,
    to: path.relative(source, path.resolve(source, path.dirname(file), specifier!))
  }))
}

const files = globSync("**/*.ts", { cwd: source }).sort()
const imports = files.flatMap(importsOf).filter(({ to }) => !to.endsWith("package.json"))
const roomOf = (file: string): string => {
  const [first, second, ...rest] = file.split(path.sep)
  if (second === undefined) return "cli"
  if (first === "services" && rest.length > 0) return `services/${second}`
  return first === "http" && second === "contract" ? "http/contract" : first!
}

const isAllowed = (room: string, other: string): boolean => {
  const allowed = mayImport[room] ?? (room.startsWith("services/") ? mayImport["services/*"] : undefined)
  return (
    allowed !== undefined &&
    (room === other ||
      allowed.includes(other) ||
      (other.startsWith("services/") && allowed.includes("services/*")))
  )
}

/** Lines of a file of these rooms. A longer file has two subjects. */
const linesMax = 400

const show = ({ from, to }: Import): string => `src/${from} imports ${to}`

describe("the rooms of src", () => {
  it("are those of DESIGN", () => {
    const unknown = files.filter(
      (file) => mayImport[roomOf(file)] === undefined && !roomOf(file).startsWith("services/")
    )
    assert.deepStrictEqual(unknown, [])
    assert.isAbove(imports.length, 100)
  })

  it("import only what the table allows", () => {
    const used = new Set<string>()
    const broken = imports.filter(({ from, to }) => {
      if (isAllowed(roomOf(from), roomOf(to))) return false
      const exception = exceptions.find((each) => each.from === from && each.to.includes(roomOf(to)))
      if (exception !== undefined) used.add(`${from} ${roomOf(to)}`)
      return exception === undefined
    })
    assert.deepStrictEqual(broken.map(show), [])
    const named = exceptions.flatMap(({ from, to }) => to.map((room) => `${from} ${room}`))
    assert.sameMembers([...used], named, "an exception that nothing needs")
  })

  it("have one file of handlers for each group of the contract, and handlers import no handlers", () => {
    const groups = files.flatMap((file) => /^http\/contract\/(.+)Api\.ts$/.exec(file)?.[1] ?? [])
    const handlers = files.flatMap((file) => /^http\/(.+)Handlers\.ts$/.exec(file)?.[1] ?? [])
    assert.sameMembers(handlers, groups)
    const among = imports.filter(({ from, to }) => from.endsWith("Handlers.ts") && to.endsWith("Handlers.ts"))
    assert.deepStrictEqual(among.map(show), [])
  })

  it("share parts of the contract in files of their own, not from group to group", () => {
    const among = imports.filter(
      ({ from, to }) => /contract\/.+Api\.ts$/.test(from) && /contract\/.+Api\.ts$/.test(to)
    )
    assert.deepStrictEqual(among.map(show), [])
  })

  it(`have files of at most ${linesMax} lines in http, consumers and cli`, () => {
    const long = files.filter(
      (file) =>
        ["http", "http/contract", "consumers", "cli"].includes(roomOf(file)) &&
        readFileSync(path.join(source, file), "utf8").split("\n").length > linesMax + 1
    )
    assert.deepStrictEqual(long, [])
  })

  it("import nothing from outside src but the installed packages", () => {
    const outside = imports.filter(({ to }) => to.startsWith(".."))
    assert.deepStrictEqual(outside.map(show), [])
  })

  it("let a client import the HTTP contract without the server", () => {
    const reached = new Set<string>()
    const follow = (file: string): void => {
      if (reached.has(file)) return
      reached.add(file)
      for (const { from, to } of imports) if (from === file) follow(to)
    }
    follow(path.join("http", "contract", "Api.ts"))
    assert.isAbove(reached.size, 5)
    const server = [...reached].filter((file) => !["schema", "http/contract"].includes(roomOf(file)))
    assert.deepStrictEqual(server, [])
  })

  it("have no utils, no common, and no index that only re-exports", () => {
    const nameless = files.filter((file) =>
      file.split(path.sep).some((part) => /^(utils?|common|helpers?|misc|shared|index)(\.ts)?$/i.test(part))
    )
    assert.deepStrictEqual(nameless, [])
  })
})

/** Tables that are not merchants' data. A table with merchant_id is never one of them. */
const tablesWithoutMerchant: Readonly<Record<string, string>> = {
  outbox: "the dispatcher reads it for all merchants, by bucket and position; a row holds a group's events",
  dead_letter: "messages that may name no merchant, or a wrong one: they are the operator's",
  captured_variant: "whose a captured row is, asked before any merchant is known",
  dev_issuer_key: "one key pair of a development database",
  holdfast_migration: "which migrations were applied",
  retention_mark: "how far back each table's rows are kept, for all merchants"
}
/** The broker that is kept in PostgreSQL stands for Kafka: topics and groups, not merchants, own its rows. */
const isOfTheBroker = (table: string): boolean => table.startsWith("broker_")

/** Indexes of merchants' tables that merchant_id does not lead, because what they serve sees all merchants. */
const indexesAcrossMerchants: Readonly<Record<string, string>> = {
  outbox_failure_by_key: "the dispatcher asks for a bucket which keys are held back, whoever's they are",
  outbox_failure_by_topic: "the dispatcher asks for a bucket what waits for a topic, whoever's it is",
  reservation_due: "the sweeper looks for what is due, whoever's it is",
  tracking_by_age: "clean-up removes what is old, whoever's it is",
  idempotency_by_age: "clean-up removes what is old, whoever's it is"
}

const isExempt = (table: string): boolean => table in tablesWithoutMerchant || isOfTheBroker(table)

/** Statements of migrations, without what their comments say. */
const migrations = globSync("*.sql", { cwd: path.join(root, "migrations") }).map((name) => {
  const text = readFileSync(path.join(root, "migrations", name), "utf8")
  return { name, statements: text.replaceAll(/--.*$/gm, "") }
})

describe("the migrations", () => {
  it("name no role and ask for nothing that only a superuser has (decision 0024)", () => {
    const forbidden =
      /\b(GRANT|REVOKE|(CREATE|ALTER|DROP) (ROLE|USER)|SET ROLE|holdfast_reader|pg_statistic|pg_authid)\b/i
    const found = migrations.flatMap(({ name, statements }) => {
      const match = forbidden.exec(statements)
      return match === null ? [] : [`${name}: ${match[0]}`]
    })
    assert.deepStrictEqual(found, [])
  })
})

describe("the tables", () => {
  const catalog = Effect.gen(function* () {
    const sql = yield* connect((yield* freshDatabase).url)
    const tables = yield* sql.run<{ name: string; column: string | null; secured: boolean }>(
      `SELECT c.relname AS name, a.attname AS column, c.relrowsecurity AS secured
       FROM pg_class c
       LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'merchant_id' AND a.attnotnull
       WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       ORDER BY c.relname`
    )
    const indexes = yield* sql.run<{ table: string; name: string; first: string | null; key: boolean }>(
      `SELECT t.relname AS table, i.relname AS name, a.attname AS first, x.indisunique AS key
       FROM pg_index x
       JOIN pg_class t ON t.oid = x.indrelid
       JOIN pg_class i ON i.oid = x.indexrelid
       LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
       WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition
       ORDER BY t.relname, i.relname`
    )
    return { tables, indexes }
  })

  it.effect("are led by merchant_id in every primary key, unique constraint and index", () =>
    Effect.gen(function* () {
      const { indexes, tables } = yield* catalog
      assert.isAbove(tables.length, 10)
      const astray = indexes.filter(
        ({ first, name, table }) =>
          first !== "merchant_id" && !isExempt(table) && !(name in indexesAcrossMerchants)
      )
      assert.deepStrictEqual(
        astray.map(({ name, table }) => `${table}: ${name}`),
        []
      )
      const keyless = tables.filter(
        ({ name }) => !isExempt(name) && !indexes.some(({ key, table }) => key && table === name)
      )
      assert.deepStrictEqual(keyless, [])
    })
  )

  it.effect("have a merchant_id that is never null, and row-level security, unless they are named here", () =>
    Effect.gen(function* () {
      const { tables } = yield* catalog
      const wrong = tables.filter(({ column, name, secured }) =>
        isExempt(name) ? column !== null : column === null || !secured
      )
      assert.deepStrictEqual(wrong, [])
    })
  )

  it.effect("have every exemption that is named here", () =>
    Effect.gen(function* () {
      const { indexes, tables } = yield* catalog
      const tableNames = tables.map(({ name }) => name)
      assert.includeMembers(tableNames, Object.keys(tablesWithoutMerchant))
      assert.includeMembers(
        indexes.map(({ name }) => name),
        Object.keys(indexesAcrossMerchants)
      )
    })
  )
})

/** Those that others than the kernel write, and those that it writes. */
const merchantTables = [
  "outbox_failure",
  ...tables.filter(({ key }) => key.includes("merchantId")).map(({ name }) => name)
]

/** Statements that see all merchants, and why they may. */
const statementsAcrossMerchants: ReadonlyArray<readonly [pattern: RegExp, why: string]> = [
  [/FROM reservation WHERE status = 'PENDING' AND expires_at <= \$1 AND/, "the sweeper's due query"]
]

/** Cuts a statement into its query blocks: sub-queries and members of a UNION each stand for themselves. */
const blocksOf = (statement: string): ReadonlyArray<string> => {
  const blocks: Array<string> = []
  const open: Array<number> = []
  let text = statement
    .replace(/--.*$/gm, " ")
    .replace(/'[^']*'/g, "''")
    .replace(/\s+/g, " ")
  for (let index = 0; index < text.length; index++) {
    if (text[index] === "(") open.push(index)
    if (text[index] !== ")") continue
    const start = open.pop()!
    const inner = text.slice(start + 1, index)
    if (!/^\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b/i.test(inner)) continue
    blocks.push(inner)
    text = `${text.slice(0, start)}()${text.slice(index + 1)}`
    index = start + 1
  }
  return [...blocks, text].flatMap((block) => block.split(/\b(?:UNION|EXCEPT|INTERSECT)(?: ALL)?\b/i))
}

/** Tables stand after commas in a FROM clause only; elsewhere commas separate columns. */
const withoutColumns = (block: string): string => {
  let text = block
  for (let before = ""; before !== text;) {
    before = text
    text = text.replace(/\([^()]+\)/g, "()")
  }
  return text.replace(
    /\b(SELECT|SET|RETURNING|ORDER BY|GROUP BY)\b.*?(?=\b(?:FROM|WHERE|ORDER|LIMIT|RETURNING)\b|$)/gi,
    "$1 "
  )
}

/** The merchants' tables that a statement reads or writes without naming the merchant. */
const unscopedTables = (statement: string): ReadonlyArray<string> =>
  blocksOf(statement).flatMap((block) => {
    const tables = merchantTables.join("|")
    const pattern = new RegExp(
      `(\\b(?:FROM|JOIN|UPDATE|INTO|USING)|,)\\s+(?:ONLY\\s+)?(${tables})\\b(?:\\s+(?:AS\\s+)?(?!(?:WHERE|SET|ON|JOIN|LEFT|CROSS|ORDER|GROUP|LIMIT|SELECT|VALUES|USING|FOR)\\b)([a-z_]+)\\b)?`,
      "gi"
    )
    const found = [...withoutColumns(block).matchAll(pattern)]
    return found.flatMap(([, word, table, alias]) => {
      if (/^INTO$/i.test(word!)) {
        return new RegExp(`INTO\\s+${table}\\s*\\(\\s*merchant_id\\b`, "i").test(block) ? [] : [table!]
      }
      const name = alias ?? table!
      const scoped =
        new RegExp(`\\b${name}\\.merchant_id\\s*=`).test(block) ||
        new RegExp(`=\\s*${name}\\.merchant_id\\b`).test(block) ||
        // Without any other table around, the column needs no qualifier.
        (found.length === 1 && /(^|[^.\w])merchant_id\s*=\s*\$/.test(block))
      return scoped ? [] : [table!]
    })
  })

describe("the statements", () => {
  it("are looked at closely enough", () => {
    const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
      ["SELECT * FROM stock WHERE stock_id = $1", ["stock"]],
      ["SELECT * FROM stock WHERE merchant_id = $1 AND stock_id = $2", []],
      ["SELECT 1 FROM item i JOIN stock s ON s.item_id = i.item_id WHERE i.merchant_id = $1", ["stock"]],
      ["SELECT 1 FROM item i JOIN stock s USING (item_id) WHERE i.merchant_id = $1", ["stock"]],
      ["SELECT 1 FROM item i, stock s WHERE i.merchant_id = $1", ["stock"]],
      ["SELECT (SELECT count(*) FROM stock) FROM item WHERE merchant_id = $1", ["stock"]],
      ["SELECT 1 FROM item WHERE merchant_id = $1 UNION SELECT 1 FROM item", ["item"]],
      ["UPDATE stock SET on_hand = 0 WHERE stock_id = $1", ["stock"]],
      [
        "UPDATE stock s SET on_hand = 0 FROM unnest($1) AS u (merchant_id) WHERE s.merchant_id = u.merchant_id",
        []
      ],
      ["INSERT INTO stock (stock_id, merchant_id) VALUES ($1, $2)", ["stock"]],
      ["INSERT INTO stock (merchant_id, stock_id) SELECT * FROM unnest($1, $2)", []],
      ["DELETE FROM tracking WHERE recorded_at < $1", ["tracking"]]
    ]
    for (const [statement, expected] of cases) {
      assert.deepStrictEqual(unscopedTables(statement), expected, statement)
    }
  })

  it.effect("of a day's work all name the merchant, but for those that are named here", () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      yield* TestClock.setTime(dawn)
      const statements = new Set<string>()
      const recorded = recordedDb(Postgres.layer({ url, idleInTransactionMs: 10_000 }), (statement) =>
        statements.add(statement)
      )
      const context = yield* Layer.build(
        Layer.mergeAll(Health.layer.pipe(Layer.provide(MemoryBroker.layer())), StockFiles.layer).pipe(
          Layer.provideMerge(services),
          Layer.provideMerge(recorded)
        )
      )
      yield* aDaysWork(shopOf(context))
      const files = Context.get(context, StockFiles)
      const rows = [{ line: 2, row: { productVariantId: "cup", quantity: 3, locationId: "default" } }]
      const terms = { fileHash: "hash", chunk: 0, run: "run", again: false, reason: "file" }
      yield* files.load(yield* caller(), { ...terms, rows })
      yield* files.page("acme", null)
      yield* Context.get(context, Health).ready

      const used = new Set<RegExp>()
      const unscoped = [...statements].flatMap((statement) => {
        const tables = unscopedTables(statement)
        if (tables.length === 0) return []
        const text = statement.replace(/\s+/g, " ")
        const exemption = statementsAcrossMerchants.find(([pattern]) => pattern.test(text))
        if (exemption === undefined) return [{ tables, statement: text }]
        used.add(exemption[0])
        return []
      })
      assert.deepStrictEqual(unscoped, [])
      assert.strictEqual(used.size, statementsAcrossMerchants.length, "an exemption that nothing needs")
      const touched = merchantTables.filter((table) =>
        [...statements].some((statement) => new RegExp(`\\b${table}\\b`).test(statement))
      )
      // outbox_failure is the dispatcher's, the others are audit's.
      assert.deepStrictEqual(
        merchantTables.filter((table) => !touched.includes(table)),
        ["outbox_failure", "audit_repair"]
      )
    })
  )
})

/** Everything that the services do, once: so that every statement of theirs has run. */
const aDaysWork = Effect.fnUntraced(function* (shop: ReturnType<typeof shopOf>) {
  const {
    adjust,
    availability,
    catalog,
    confirm,
    discrepancies,
    extend,
    item,
    location,
    movements,
    receive,
    stocks
  } = shop
  const key = { idempotency: { key: "key", fingerprint: "print" } }
  yield* item("cup", { sku: "CUP" }, key)
  yield* item("cup", { name: "a cup" })
  yield* location("north")
  yield* Effect.flatMap(caller(), (from) =>
    catalog.ensureLocation(from, { locationId: "north", name: "North" })
  )
  yield* receive("cup", 9, { reference: "receipt:1" })
  yield* receive("cup", 3, { lotNumber: "L", lotExpiresAt: dawn + 1_000, locationId: "north" })
  yield* shop.reserve("sold", [["cup", 2]])
  yield* extend("sold", 60)
  yield* confirm("sold")
  yield* shop.reserve("gone", [["cup", 2]], { locationId: "north" })
  yield* shop.release("gone")
  const { answer } = yield* shop.reserve("late", [["cup", 2]], { expiresInSeconds: 1 })
  yield* shop.reserve("lot", [["cup", 1]], { locationId: "north", expiresInSeconds: 60 })
  yield* TestClock.adjust("1 second")
  yield* shop.reservations.expireDue
  yield* confirm("lot")
  const opened = (yield* discrepancies.list("acme", { status: "OPEN" })).data[0]!
  yield* Effect.flatMap(caller(), (from) =>
    discrepancies.resolve(from, { discrepancyId: opened.discrepancyId, reason: "thrown away" })
  )
  const cup = { variantId: "cup" }
  yield* adjust({ changeType: "SALE", item: cup, quantity: 1, orderId: "direct" })
  yield* adjust({ changeType: "RETURN", item: cup, quantity: 1, orderId: "direct" })
  yield* adjust({ changeType: "DAMAGE", item: cup, quantity: 2, locationId: "default" })
  yield* adjust({ changeType: "CORRECTION", item: { sku: "CUP" }, quantity: 1, locationId: "default" })
  yield* adjust({ changeType: "CORRECTION", item: cup, quantity: 5, locationId: "default" })
  yield* availability.ofVariants("acme", ["cup", "saucer"])
  yield* availability.ofSku("acme", "CUP")
  yield* availability.ofVariantAt("acme", "cup", dawn)
  yield* movements.ofVariant("acme", "cup", {})
  const [stock] = (yield* stocks.list("acme", { productVariantId: "cup" })).data
  yield* stocks.list("acme", {})
  yield* stocks.list("acme", { sku: "CUP" })
  yield* stocks.list("acme", { locationId: "north" })
  yield* stocks.byId("acme", stock!.stockId)
  yield* movements.ofStock("acme", stock!.stockId, {})
  yield* discrepancies.get("acme", opened.discrepancyId)
  yield* discrepancies.list("acme", {})
  yield* discrepancies.list("acme", { productVariantId: "cup" })
  yield* discrepancies.list("acme", { sku: "CUP" })
  yield* catalog.items("acme", { kind: "PRODUCT", search: "c" })
  yield* catalog.locations("acme", {})
  yield* shop.reservations.get("acme", answer.reservation.reservationId)
  yield* shop.reservations.list("acme", {})
})
