import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer, type Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as Postgres from "../../../src/layers/Postgres.ts"
import { Db } from "../../../src/services/Db.ts"
import { arrays } from "../../../src/services/PostgresTypes.ts"
import { connect, dawn, services, shopOf } from "../../support/ledger.ts"
import { freshDatabase } from "../../support/Postgres.ts"
import { recordedDb } from "../../support/recordedDb.ts"

/**
 * Each statement that looks into the books, on tables with many rows in several partitions and with the plan settings of
 * the service: it uses the indexes that its comment names and no others, scans no table, and reads no more of the ledger
 * than it tells of.
 */

/** Months of ledger, the newest of which is that of dawn. */
const months = 14
const lots = 5
const perLot = 2_000
const filler = 6_000

const stockId = (n: number) => `00000000-0000-7000-8000-${String(n).padStart(12, "0")}`
const uuidOf = (n: string) => `('00000000-0000-7000-8000-' || lpad((${n})::text, 12, '0'))::uuid`

/** One item with several lots and a long history, among many others of the same merchant and of another one. */
const grow = (now: number): ReadonlyArray<string> => [
  `SELECT holdfast_ensure_partition('inventory_ledger', (date '2026-05-01' - make_interval(months => m))::date)
   FROM generate_series(0, ${months - 1}) AS m`,
  `INSERT INTO merchant (merchant_id, created_at) SELECT m, to_timestamp(0) FROM unnest(ARRAY['acme', 'other']) AS m`,
  `INSERT INTO location (merchant_id, location_id, is_default, position, created_at)
   SELECT m, l, l = 'default', CASE l WHEN 'default' THEN 0 ELSE 1 END, to_timestamp(0)
   FROM unnest(ARRAY['acme', 'other']) AS m, unnest(ARRAY['default', 'shop']) AS l`,
  `INSERT INTO item (merchant_id, item_id, kind, product_variant_id, sku, status, initialized, on_hand, created_at, updated_at)
   SELECT m, ${uuidOf("n")}, 'PRODUCT', 'v' || n, 'S' || n, 'IN_STOCK', true, 1000, to_timestamp(0), to_timestamp(0)
   FROM unnest(ARRAY['acme', 'other']) AS m, generate_series(1, ${filler}) AS n`,
  `INSERT INTO stock (merchant_id, stock_id, item_id, location_id, lot_number, on_hand, sequence, created_at, updated_at)
   SELECT m, ${uuidOf("n")}, ${uuidOf(`greatest(1, n - ${lots - 1})`)}, CASE WHEN n % 7 = 0 THEN 'shop' ELSE 'default' END,
          CASE WHEN n <= ${lots} THEN 'L' || n ELSE '' END, 1000, ${perLot}, to_timestamp(0), to_timestamp(0)
   FROM unnest(ARRAY['acme', 'other']) AS m, generate_series(1, ${filler}) AS n`,
  // The lots move evenly over all months, the others once each.
  `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta, reserved_delta,
     unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor)
   SELECT m, ${uuidOf("lot")}, to_timestamp(${now / 1000}) - make_interval(days => ${months - 1} * 30) * (1 - k::float / ${perLot}),
          k, ${uuidOf("1")}, CASE WHEN k % 500 = 1 THEN 'RETURN' ELSE 'RECEIPT' END, 1, 0, 0, k, 0, 0, 'MANUAL_ADJUSTMENT',
          ${uuidOf("k")}, 'tester'
   FROM unnest(ARRAY['acme', 'other']) AS m, generate_series(1, ${lots}) AS lot, generate_series(1, ${perLot}) AS k`,
  `INSERT INTO inventory_ledger (merchant_id, stock_id, recorded_at, sequence, item_id, type, on_hand_delta, reserved_delta,
     unallocatable_delta, on_hand, reserved, unallocatable, source, posting_id, actor)
   SELECT m, ${uuidOf("n")}, to_timestamp(${now / 1000}) - make_interval(hours => n), 1, ${uuidOf(`n - ${lots - 1}`)}, 'RECEIPT',
          1000, 0, 0, 1000, 0, 0, 'MANUAL_ADJUSTMENT', ${uuidOf("n")}, 'tester'
   FROM unnest(ARRAY['acme', 'other']) AS m, generate_series(${lots + 1}, ${filler}) AS n`,
  `INSERT INTO discrepancy (merchant_id, discrepancy_id, kind, subject, stock_id, item_id, status, opened_at)
   SELECT m, ${uuidOf("n")}, 'NEGATIVE_STOCK', 's' || n, ${uuidOf("n")}, ${uuidOf(`greatest(1, n - ${lots - 1})`)},
          CASE WHEN n % 100 = 0 THEN 'OPEN' ELSE 'CLOSED' END, to_timestamp(0)
   FROM unnest(ARRAY['acme', 'other']) AS m, generate_series(1, ${filler}) AS n`,
  "ANALYZE"
]

interface PlanNode {
  readonly "Node Type": string
  readonly "Relation Name"?: string
  readonly "Index Name"?: string
  readonly "Actual Rows"?: number
  readonly "Actual Loops"?: number
  readonly "Rows Removed by Filter"?: number
  readonly Plans?: ReadonlyArray<PlanNode>
}

const nodesOf = (node: PlanNode): ReadonlyArray<PlanNode> => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

const books = Effect.gen(function* () {
  const { url } = yield* freshDatabase
  yield* TestClock.setTime(dawn)
  const sql = yield* connect(url)
  for (const statement of grow(dawn)) yield* sql.run(statement)
  for (const [name, value] of Object.entries(Postgres.plansByIndex)) yield* sql.run(`SET ${name} = ${value}`)
  const asked: Array<{ readonly statement: string; readonly parameters: ReadonlyArray<unknown> }> = []
  const recorded = recordedDb(Postgres.layer({ url }), (statement, parameters, way) => {
    if (way === "read") asked.push({ statement, parameters })
  })
  const context = yield* Layer.build(services.pipe(Layer.provideMerge(recorded)))

  /** What PostgreSQL does for an operation: its plan nodes, as they were executed. */
  const plansOf = Effect.fnUntraced(function* <A, E>(operation: Effect.Effect<A, E>) {
    asked.length = 0
    const answer = yield* operation
    const nodes: Array<PlanNode> = []
    for (const { parameters, statement } of asked) {
      const given = parameters.map((_, index) => `$${index + 1}`)
      const [{ types, values }] = (yield* sql.run<{ types: string; values: string }>(
        `SELECT concat_ws(', ', ${given.map((each) => `pg_typeof(${each})`).join(", ")}) AS types,
                concat_ws(', ', ${given.map((each) => `quote_nullable(${each}::text)`).join(", ")}) AS values`,
        parameters
      )) as [{ types: string; values: string }]
      // Planned without its values, as the service has it, and run with them.
      yield* sql.run(`PREPARE looked (${types}) AS ${statement}`)
      const [row] = yield* sql.run<{ "QUERY PLAN": ReadonlyArray<{ readonly Plan: PlanNode }> }>(
        `EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE looked (${values})`
      )
      yield* sql.run("DEALLOCATE looked")
      nodes.push(...nodesOf(row!["QUERY PLAN"][0]!.Plan))
    }
    return { answer, nodes }
  })
  return { plansOf, ...shopOf(context) }
})

class Books extends Context.Service<Books, Effect.Success<typeof books>>()("holdfast/test/Books") {
  static readonly layer = Layer.effect(Books, books)
}

/** The tables that were read, and by which indexes, partitions under the name of their table. */
const indexesOf = (nodes: ReadonlyArray<PlanNode>): ReadonlyArray<string> =>
  [
    ...new Set(
      nodes.flatMap((node) => {
        const name =
          node["Index Name"] ?? (node["Relation Name"] === undefined ? undefined : node["Node Type"])
        return name === undefined || node["Actual Loops"] === 0
          ? []
          : [name.replace(/^inventory_ledger_\d+_/, "inventory_ledger_")]
      })
    )
  ].sort()

const ofLedger = (nodes: ReadonlyArray<PlanNode>) =>
  nodes.filter(
    (node) => /^inventory_ledger_\d+$/.test(node["Relation Name"] ?? "") && node["Actual Loops"]! > 0
  )

/** How many rows of the ledger were read, shown or not. */
const readOfLedger = (nodes: ReadonlyArray<PlanNode>): number =>
  ofLedger(nodes).reduce(
    (sum, node) =>
      sum + (node["Actual Rows"]! + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"]!,
    0
  )

/** How many rows of a table that has no partitions were read, and not thrown away at once. */
const readOf = (nodes: ReadonlyArray<PlanNode>, table: string): number =>
  nodes
    .filter((node) => node["Relation Name"] === table)
    .reduce((sum, node) => sum + node["Actual Rows"]! * node["Actual Loops"]!, 0)

const itemByVariant = "item_merchant_id_product_variant_id_key"
const itemBySku = "item_merchant_id_sku_key"
const stocksOfItem = "stock_merchant_id_item_id_location_id_lot_number_key"

layer(Books.layer, { timeout: "120 seconds" })("statements that look into the books", (it) => {
  it.effect("find the movements of an item by the ledger's key, a page's worth of each stock", () =>
    Effect.gen(function* () {
      const { movements, plansOf } = yield* Books
      const limit = 20
      const first = yield* plansOf(movements.ofVariant("acme", "v1", { limit }))
      assert.deepStrictEqual(indexesOf(first.nodes), ["inventory_ledger_pkey", itemByVariant, stocksOfItem])
      assert.isAtMost(readOfLedger(first.nodes), (limit + 1) * lots)
      assert.strictEqual(first.answer.data.length, limit)

      // A page from the middle of the history is no dearer than the first.
      const to = dawn - 200 * 24 * 60 * 60 * 1000
      const middle = yield* plansOf(movements.ofVariant("acme", "v1", { limit, to }))
      const cursor = middle.answer.nextCursor!
      const next = yield* plansOf(movements.ofVariant("acme", "v1", { limit, to, cursor }))
      for (const { answer, nodes } of [middle, next]) {
        assert.deepStrictEqual(indexesOf(nodes), ["inventory_ledger_pkey", itemByVariant, stocksOfItem])
        assert.isAtMost(readOfLedger(nodes), (limit + 1 + lots) * lots)
        assert.strictEqual(answer.data.length, limit)
        assert.isBelow(answer.data[0]!.recordedAt, to)
      }
    })
  )

  it.effect("look through a bounded number of movements for a type that is rare", () =>
    Effect.gen(function* () {
      const { movements, plansOf } = yield* Books
      const { nodes } = yield* plansOf(movements.ofStock("acme", stockId(1), { types: ["TRANSFER_IN"] }))
      assert.deepStrictEqual(indexesOf(nodes), ["inventory_ledger_pkey", "stock_pkey"])
      assert.isAtMost(readOfLedger(nodes), 2_000)
    })
  )

  it.effect(
    "find a balance of then with one movement of each stock, whatever the age and the partitions",
    () =>
      Effect.gen(function* () {
        const { availability, plansOf } = yield* Books
        for (const days of [0, 1, 100, 200, 380]) {
          const at = dawn - days * 24 * 60 * 60 * 1000
          const { answer, nodes } = yield* plansOf(availability.ofVariantAt("acme", "v1", at))
          assert.deepStrictEqual(
            indexesOf(nodes).filter((name) => name !== "ledger_checkpoint_pkey"),
            ["inventory_ledger_pkey", itemByVariant, "location_pkey", stocksOfItem]
          )
          assert.strictEqual(answer.stocks.length, lots)
          assert.strictEqual(readOfLedger(nodes), lots, `${days} days ago`)
          // The newest partition of then has it: no older one is looked at.
          assert.strictEqual(ofLedger(nodes).length, 1, `${days} days ago`)
        }
      })
  )

  it.effect("list stocks by the key, by location, and by item", () =>
    Effect.gen(function* () {
      const { plansOf, stocks } = yield* Books
      const cases = [
        [{}, ["item_pkey", "stock_pkey"]],
        [{ locationId: "shop" }, ["item_pkey", "stock_by_location"]],
        [{ productVariantId: "v1" }, [itemByVariant, stocksOfItem]],
        [{ sku: "S1", locationId: "default" }, [itemBySku, stocksOfItem]]
      ] as const
      for (const [filter, expected] of cases) {
        const { answer, nodes } = yield* plansOf(stocks.list("acme", { ...filter, limit: 3 }))
        assert.deepStrictEqual(indexesOf(nodes), [...expected], JSON.stringify(filter))
        assert.strictEqual(answer.data.length, 3)
        const { nodes: next } = yield* plansOf(
          stocks.list("acme", { ...filter, limit: 3, cursor: answer.nextCursor! })
        )
        assert.deepStrictEqual(indexesOf(next), [...expected], JSON.stringify(filter))
      }
      const one = yield* plansOf(stocks.byId("acme", stockId(3)))
      assert.deepStrictEqual(indexesOf(one.nodes), ["item_pkey", "stock_pkey"])
    })
  )

  it.effect(
    "list items by the key, and look at no more than are shown, or than a page may look through",
    () =>
      Effect.gen(function* () {
        const { catalog, plansOf } = yield* Books
        const kind = "PRODUCT"
        const { answer, nodes } = yield* plansOf(catalog.items("acme", { kind, limit: 3 }))
        assert.strictEqual(answer.data.length, 3)
        assert.deepStrictEqual(indexesOf(nodes), ["item_pkey", stocksOfItem])
        // A page of three needs four items, and the stocks of these.
        assert.isAtMost(readOf(nodes, "item"), 5)
        assert.isAtMost(readOf(nodes, "stock"), 5 + lots)
        const rare = { kind, status: "DISCONTINUED" } as const
        const first = yield* plansOf(catalog.items("acme", rare))
        assert.strictEqual(first.answer.data.length, 0)
        assert.deepStrictEqual(indexesOf(first.nodes), ["item_pkey", stocksOfItem])
        assert.strictEqual(readOf(first.nodes, "item"), 5_000)
        const rest = yield* catalog.items("acme", { ...rare, cursor: first.answer.nextCursor! })
        assert.deepStrictEqual(rest, { data: [], nextCursor: null })
      })
  )

  it.effect("list discrepancies by the key, by status, and by item", () =>
    Effect.gen(function* () {
      const { discrepancies, plansOf } = yield* Books
      const cases = [
        [{}, ["discrepancy_pkey", "item_pkey"]],
        [{ status: "OPEN", kind: "NEGATIVE_STOCK" }, ["discrepancy_by_status", "item_pkey"]],
        [{ productVariantId: "v1" }, ["discrepancy_by_item", itemByVariant]],
        [{ sku: "S1", status: "CLOSED" }, ["discrepancy_by_item", itemBySku]]
      ] as const
      for (const [filter, expected] of cases) {
        const { answer, nodes } = yield* plansOf(discrepancies.list("acme", { ...filter, limit: 3 }))
        assert.deepStrictEqual(indexesOf(nodes), [...expected], JSON.stringify(filter))
        assert.strictEqual(answer.data.length, 3)
      }
    })
  )
})

it.effect(
  "a kept plan of tables that were empty is made anew once they are not, on the same connection",
  () =>
    Effect.gen(function* () {
      const { url } = yield* freshDatabase
      const sql = yield* connect(url)
      yield* sql.run("VACUUM ANALYZE")
      const session = yield* Effect.flatMap(
        Layer.build(Postgres.layer({ url })),
        (context) => Context.get(context, Db).session
      )
      const statement = `
        SELECT t.posting_id
        FROM unnest($1, $2) AS wanted (merchant_id, tracking_key)
        JOIN tracking t ON t.merchant_id = wanted.merchant_id AND t.tracking_key = wanted.tracking_key`
      const look = session.run(statement, [arrays.text(["acme"]), arrays.text(["k1"])])
      const planned = Effect.gen(function* () {
        const [name] = yield* session.run(
          "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%SELECT t.posting_id%' AND statement NOT LIKE '%pg_prepared%'",
          []
        )
        const rows = yield* session.run(`EXPLAIN EXECUTE "${name![0]}" (NULL, NULL)`, [])
        return rows.map(([line]) => line).join("\n")
      })
      yield* look
      assert.include(yield* planned, "Join Filter")
      yield* sql.run(`INSERT INTO tracking (merchant_id, tracking_key, posting_id, recorded_at)
        SELECT 'acme', 'k' || n, ${uuidOf("n")}, to_timestamp(0) FROM generate_series(1, 5000) AS n`)
      for (let again = 0; again < 16; again++) yield* look
      assert.include(
        yield* planned,
        "Index Cond: ((merchant_id = wanted.merchant_id) AND (tracking_key = wanted.tracking_key))"
      )
    }),
  60_000
)

/** What a plan looks for in an index, and that it walks all rows of a merchant; of locations all are wanted. */
interface Conditions extends PlanNode {
  readonly "Index Cond"?: string
}
const walksMerchant = (node: Conditions): boolean =>
  node["Relation Name"] !== "location" &&
  node["Index Name"] !== "location_pkey" &&
  node["Index Cond"] !== undefined &&
  /^\(merchant_id = [^()]*(\([^()]*\))?[^()]*\)$/.test(node["Index Cond"])

/** The services of a process, and every statement of their sessions. */
const recordedSessions = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const asked = new Map<string, ReadonlyArray<unknown>>()
  const recorded = recordedDb(
    Postgres.layer({ url, idleInTransactionMs: 10_000 }),
    (statement, parameters, way) => {
      if (way === "session" && parameters.length > 0) asked.set(statement, parameters)
    }
  )
  return { asked, shop: shopOf(yield* Layer.build(services.pipe(Layer.provideMerge(recorded)))) }
})

describe("statements of the kernel on a database that nobody has analyzed", () => {
  it.effect(
    "find their rows by more than the merchant as soon as there are a thousand, although nothing else is known of them",
    () =>
      Effect.gen(function* () {
        yield* TestClock.setTime(dawn)
        const { url } = yield* freshDatabase
        const { asked, shop } = yield* recordedSessions(url)
        yield* shop.item("cup", { sku: "CUP" })
        yield* shop.receive("cup", 5, { reference: "delivery:1" })
        yield* shop.reserve("order", [["cup", 1]])
        yield* shop.confirm("order")
        yield* shop.adjust({ changeType: "CORRECTION", item: { variantId: "cup" }, quantity: 3 })

        // Another one, whose few tables with several keys hold a thousand rows of one merchant. Below that a plan may walk
        // them all, and by decision 0016 it is made anew before there are twice as many.
        const sql = yield* connect((yield* freshDatabase).url)
        for (const table of ["item", "reservation"])
          yield* sql.run(`ALTER TABLE ${table} SET (autovacuum_enabled = off)`)
        yield* sql.run(`INSERT INTO item (merchant_id, item_id, kind, product_variant_id, sku, status, created_at, updated_at)
          SELECT 'acme', ${uuidOf("n")}, 'PRODUCT', 'v' || n, 's' || n, 'IN_STOCK', now(), now()
          FROM generate_series(1, 1000) AS n`)
        yield* sql.run(`INSERT INTO reservation (merchant_id, reservation_id, order_id, kind, status, request, expires_at,
            created_at, updated_at)
          SELECT 'acme', ${uuidOf("n")}, 'o' || n, 'ORDER', 'PENDING', '[]', now(), now(), now()
          FROM generate_series(1, 1000) AS n`)
        for (const [name, value] of Object.entries(Postgres.plansByIndex)) {
          yield* sql.run(`SET ${name} = ${value}`)
        }
        let looked = 0
        for (const [statement, parameters] of asked) {
          const given = parameters.map((_, index) => `$${index + 1}`)
          const [row] = yield* sql.run<{ types: string }>(
            `SELECT concat_ws(', ', ${given.map((each) => `pg_typeof(${each})`).join(", ")}) AS types`,
            parameters
          )
          yield* sql.run(`PREPARE looked (${row!.types}) AS ${statement}`)
          const [plan] = yield* sql.run<{ "QUERY PLAN": ReadonlyArray<{ readonly Plan: PlanNode }> }>(
            `EXPLAIN (FORMAT JSON) EXECUTE looked (${given.map(() => "NULL").join(", ")})`
          )
          yield* sql.run("DEALLOCATE looked")
          const nodes: ReadonlyArray<Conditions> = nodesOf(plan!["QUERY PLAN"][0]!.Plan)
          looked += nodes.filter((node) => node["Index Cond"] !== undefined).length
          assert.deepStrictEqual(nodes.filter(walksMerchant), [], statement)
        }
        assert.isAbove(looked, 10)
      }),
    60_000
  )
})
