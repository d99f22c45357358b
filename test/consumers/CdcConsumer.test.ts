import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Result } from "effect"
import { readFileSync, readdirSync } from "node:fs"
import path from "node:path"
import { cdcMerchant } from "../../src/consumers/CdcMerchant.ts"
import { cdcProductVariant } from "../../src/consumers/CdcProductVariant.ts"
import type { Caller } from "../../src/schema/Caller.ts"
import type { IncomingMessage } from "../../src/services/messaging/Broker.ts"
import { Catalog, type VariantRowChange } from "../../src/services/stock/Catalog.ts"

// Goal: what is asked of the books for each kind of record that Debezium writes, whatever the converter's settings.
// Method: records that a real connector wrote, as text (numbers in them do not fit a double).

const folder = path.join(import.meta.dirname, "debezium")
const origin = { actor: "a", requestId: "r", deadline: 0 }

/** What the catalogue is asked for by a record. */
const asked = (message: IncomingMessage, merchantId?: string) => {
  const consumer = message.topic.endsWith(".merchant") ? cdcMerchant : cdcProductVariant
  const calls: Array<VariantRowChange | string> = []
  const catalog = {
    applyRowChange: (_: unknown, record: VariantRowChange) =>
      Effect.sync(() => (calls.push(record), record._tag === "Deleted" ? "DELETED" : "ENSURED")),
    ensureMerchant: (caller: Caller) =>
      Effect.sync(() => (calls.push(caller.merchantId), { answer: { created: true } }))
  }
  const read = consumer.read(message, { merchantId })
  if (Result.isFailure(read)) return read.failure.code
  const outcome = Effect.runSync(
    Effect.provideContext(
      read.success.run(origin) as Effect.Effect<string, unknown, Catalog>,
      Context.make(Catalog, catalog as never)
    )
  )
  assert.strictEqual(outcome, calls.length === 0 ? "ignored" : "applied")
  return calls
}

interface Sample {
  readonly topic: string
  readonly key: string | null
  readonly value: string | null
  readonly headers: Record<string, string>
}
const incoming = ({ value, ...sample }: Sample): IncomingMessage => ({
  ...sample,
  partition: 0,
  offset: 0,
  value: value === null ? null : Buffer.from(value),
  publishedAt: 0
})
const sampled = (name: string): Sample =>
  JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Sample
const acme = "11111111-1111-1111-1111-111111111111"
const written = (rowId: string, sku: string, discontinued: boolean) => ({
  _tag: "Written",
  rowId,
  merchantId: acme,
  sku,
  discontinued
})
const deleted = (rowId: string): VariantRowChange => ({ _tag: "Deleted", rowId })

/** Samples by name, and what each asks for. */
const expected: Readonly<Record<string, unknown>> = {
  "product_variant.r": [written("1", "SKU-0", false)],
  "product_variant.c": [written("2", "SKU-1", false)],
  "product_variant.u": [written("2", "SKU-1", false)],
  "product_variant.pkchange.d": [deleted("2")],
  "product_variant.pkchange.c": [written("1000", "SKU-1", false)],
  "product_variant.d": [deleted("1000")],
  "product_variant.d.full-identity": [deleted("1000")],
  "product_variant.tombstone": [],
  "product_variant.t": [],
  "merchant.r": [acme],
  "merchant.c": ["8bb6e266-1ee0-47d3-b9e4-15db99e85c04"],
  heartbeat: [],
  "message.m": [],
  "transaction.BEGIN": []
}

const changed = (change: (value: { after: Record<string, unknown> }) => void): IncomingMessage => {
  const sample = sampled("plain/product_variant.c")
  const value = JSON.parse(sample.value!) as { after: Record<string, unknown> }
  change(value)
  return incoming({ ...sample, value: JSON.stringify(value) })
}

describe("records of captured tables", () => {
  for (const kind of ["plain", "wrapped"]) {
    for (const file of readdirSync(path.join(folder, kind)).sort()) {
      const name = file.replace(/\.json$/, "")
      it(`${kind}: ${name} asks for what it says`, () => {
        const sample = sampled(`${kind}/${name}`)
        const calls = asked(incoming(sample))
        // Each run of the connector had rows of its own.
        if (kind === "wrapped" && name === "merchant.c") assert.strictEqual(calls.length, 1)
        else assert.deepStrictEqual(calls, expected[name])
      })
    }
  }

  it("a value that did not change, an empty one and none say nothing", () => {
    for (const column of ["__debezium_unavailable_value", "", null]) {
      const calls = asked(changed(({ after }) => Object.assign(after, { sku: column, status: column })))
      assert.deepStrictEqual(calls, [
        { _tag: "Written", rowId: "2", merchantId: acme, sku: undefined, discontinued: undefined }
      ])
    }
  })

  it("columns that we know nothing of, and missing ones, do no harm", () => {
    const calls = asked(
      changed((value) => {
        value.after = { id: 2, merchant_id: acme, colour: { deep: [1, 2] } }
      })
    )
    assert.deepStrictEqual(calls, [
      { _tag: "Written", rowId: "2", merchantId: acme, sku: undefined, discontinued: undefined }
    ])
  })

  it("an id past 2^53−1 is not rounded, in the row or in the key", () => {
    const big = "9007199254740993"
    const create = incoming({
      ...sampled("plain/product_variant.c"),
      value: `{"op":"c","after":{"id":${big},"merchant_id":"${acme}"}}`
    })
    assert.strictEqual((asked(create)[0] as { rowId: string }).rowId, big)
    const remove = incoming({ ...sampled("plain/product_variant.d"), key: `{"id":${big}}` })
    assert.deepStrictEqual(asked(remove), [deleted(big)])
  })

  it("a row whose merchant is a number names it as text; one without is the default merchant's, or unresolved", () => {
    const numbered = changed(({ after }) => (after["merchant_id"] = 42))
    assert.strictEqual((asked(numbered)[0] as { merchantId: string }).merchantId, "42")
    const nobody = changed(({ after }) => (after["merchant_id"] = null))
    assert.strictEqual((asked(nobody, "demo")[0] as { merchantId: string }).merchantId, "demo")
    assert.strictEqual(asked(nobody), "MERCHANT_UNRESOLVED")
  })

  it("a merchant that is deleted keeps its books", () => {
    const gone = incoming({
      ...sampled("plain/merchant.c"),
      value: `{"op":"d","before":{"id":"${acme}"},"after":null}`
    })
    assert.deepStrictEqual(asked(gone), [])
  })

  it("what is no record is refused, and so is a delete whose key says nothing", () => {
    const { topic } = sampled("plain/product_variant.c")
    const at = (value: string, key: string | null = null) =>
      asked(incoming({ topic, key, value, headers: {} }))
    assert.strictEqual(at("not json"), "NOT_JSON")
    assert.strictEqual(at(""), "EMPTY")
    assert.strictEqual(at(`{"hello":1}`), "INVALID")
    assert.strictEqual(at(`{"op":"c","after":null}`), "INVALID")
    assert.strictEqual(at(`{"op":"c","after":{"sku":"CUP"}}`), "INVALID")
    for (const key of [null, "2", "{}", `{"id":null}`]) {
      assert.strictEqual(at(`{"op":"d","before":null,"after":null}`, key), "INVALID")
    }
  })
})
