import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { hash } from "node:crypto"
import * as MessageDecoding from "../../src/schema/MessageDecoding.ts"
import { topics } from "../../src/consumers/topics.ts"
import type { IncomingMessage } from "../../src/services/messaging/Broker.ts"
import type { DeadLetterReason } from "../../src/schema/MessageDecoding.ts"

// Goal: what CONTRACTS section 5 says of a message before anything is asked of the books: one sentence, one test.

const message = (
  value: unknown,
  { headers = {}, key = null, topic = "order.returned" }: Partial<IncomingMessage> = {}
): IncomingMessage => ({
  topic,
  partition: 0,
  offset: 0,
  key,
  headers,
  value:
    value === null || value instanceof Uint8Array
      ? value
      : Buffer.from(typeof value === "string" ? value : JSON.stringify(value)),
  publishedAt: 0
})
const codeOf = (read: Result.Result<unknown, DeadLetterReason>): string =>
  Result.isFailure(read) ? read.failure.code : `read ${JSON.stringify(read.success)}`

const merchantOf = (
  body: Record<string, unknown>,
  headers: Record<string, string> = {},
  merchantId?: string
) => {
  const read = MessageDecoding.merchantOf(body, message(body, { headers }), { merchantId })
  return Result.isSuccess(read) ? read.success : read.failure.code
}

const identityOf = (body: Record<string, unknown>, headers: Record<string, string> = {}) => {
  const read = MessageDecoding.identityOf(body, message(body, { headers }))
  return Result.isSuccess(read) ? read.success : read.failure.code
}

const readAs = (topic: string, value: unknown) =>
  codeOf(
    topics
      .find((consumer) => consumer.topic === topic)!
      .read(message(value, { topic }), { merchantId: "acme" })
  )

describe("the value of a message", () => {
  it("may have fields that are not known, at any depth: payloads only gain them", () => {
    const paid = { saleOrderId: "o", items: [{ productVariantId: "v", quantity: 1 }] }
    const more = { zzzUnknown: { deeper: 1 }, location: "paris" }
    const later = { ...paid, ...more, items: paid.items.map((line) => ({ ...line, ...more })) }
    assert.match(readAs("payment.success", paid), /^read /)
    assert.strictEqual(readAs("payment.success", later), readAs("payment.success", paid))
  })

  const cases: ReadonlyArray<readonly [string, Uint8Array | string | null, string]> = [
    ["a tombstone", null, "EMPTY"],
    ["an empty one", "", "EMPTY"],
    ["blanks", "  ", "NOT_JSON"],
    ["what is not JSON", "{", "NOT_JSON"],
    ["an array", "[1]", "NOT_JSON"],
    ["a text", `"text"`, "NOT_JSON"],
    ["what is not UTF-8", new Uint8Array([0x7b, 0xff, 0x7d]), "NOT_JSON"],
    ["JSON that is too deep", `{"a":${"[".repeat(40)}${"]".repeat(40)}}`, "NOT_JSON"],
    ["two members of one name", `{"id":"a","id":"b"}`, "NOT_JSON"],
    ["5 MiB", `{"a":"${"x".repeat(5 * 1024 * 1024)}"}`, "TOO_LARGE"]
  ]
  for (const [what, value, code] of cases) {
    it(`is refused when it is ${what}`, () => {
      assert.strictEqual(codeOf(MessageDecoding.decodeObject(message(value).value)), code)
    })
  }

  it("keeps whole numbers past 2^53−1 where they may be ids", () => {
    const { value } = message(`{"id":9007199254740993,"n":12,"m":-9223372036854775808,"f":1.5e300}`)
    assert.deepStrictEqual(Result.getOrThrow(MessageDecoding.decodeExactObject(value)), {
      id: "9007199254740993",
      n: 12,
      m: "-9223372036854775808",
      f: 1.5e300
    })
  })

  it("is told by its bad fields, each with its path, and without what is in them", () => {
    const Line = Schema.Struct({ variantId: Schema.NonEmptyString, quantity: Schema.Int })
    const decode = Schema.decodeUnknownResult(Schema.Struct({ items: Schema.Array(Line) }), { errors: "all" })
    const read = MessageDecoding.payloadOf({ items: [{ quantity: "secret" }] }, decode)
    assert.strictEqual(codeOf(read), "INVALID")
    const { detail } = (read as Result.Failure<unknown, DeadLetterReason>).failure
    assert.include(detail, "items.0.variantId is required")
    assert.include(detail, "items.0.quantity")
    assert.notInclude(detail, "secret")
  })

  it("may stand in an envelope's data, or not", () => {
    const decode = Schema.decodeUnknownResult(Schema.Struct({ orderId: Schema.String }))
    const plain = MessageDecoding.payloadOf({ orderId: "o", data: { orderId: "other" } }, decode)
    const enveloped = MessageDecoding.payloadOf(
      { id: "i", type: "t", data: { orderId: "o", more: 1 } },
      decode
    )
    assert.deepStrictEqual(Result.getOrThrow(plain), { orderId: "o" })
    assert.deepStrictEqual(Result.getOrThrow(enveloped), { orderId: "o" })
  })
})

describe("the merchant of a message", () => {
  it("is named at the top level", () => assert.strictEqual(merchantOf({ merchantId: "a" }), "a"))
  it("or in data", () => assert.strictEqual(merchantOf({ data: { merchantId: "a" } }), "a"))
  it("else by the header", () => assert.strictEqual(merchantOf({}, { "x-merchant-id": "a" }), "a"))
  it("else it is the default one", () => assert.strictEqual(merchantOf({}, {}, "d"), "d"))
  it("which does not count where one is named", () =>
    assert.strictEqual(merchantOf({ merchantId: "a" }, {}, "d"), "a"))
  it("may be named twice the same", () =>
    assert.strictEqual(
      merchantOf({ merchantId: "a", data: { merchantId: "a" } }, { "x-merchant-id": "a" }),
      "a"
    ))

  const unresolved: ReadonlyArray<readonly [string, Record<string, unknown>, Record<string, string>?]> = [
    ["nobody names it", {}],
    ["top level and data differ", { merchantId: "a", data: { merchantId: "b" } }],
    ["top level and header differ", { merchantId: "a" }, { "x-merchant-id": "b" }],
    ["data and header differ", { data: { merchantId: "a" } }, { "x-merchant-id": "b" }],
    ["it is not text", { merchantId: 7 }],
    ["it is empty", { merchantId: "" }],
    ["it is too long", { merchantId: "x".repeat(129) }],
    ["it is no own member", JSON.parse(`{"__proto__":{"merchantId":"a"}}`) as Record<string, unknown>]
  ]
  for (const [when, body, headers] of unresolved) {
    it(`is unresolved when ${when}`, () =>
      assert.strictEqual(merchantOf(body, headers), "MERCHANT_UNRESOLVED"))
  }
})

describe("the identity of a message that has no natural key", () => {
  it("is its id", () => assert.strictEqual(identityOf({ id: "a" }, { ce_id: "b" }), "a"))
  it("else the header ce_id", () => assert.strictEqual(identityOf({}, { ce_id: "b" }), "b"))
  it("else the hash of a value with a timestamp", () => {
    const body = { n: 1, timestamp: "2026-01-01T00:00:00Z" }
    assert.strictEqual(identityOf(body), hash("sha256", JSON.stringify(body)))
    const inData = { n: 1, data: { timestamp: "2026-01-01T00:00:00Z" } }
    assert.strictEqual(identityOf(inData), hash("sha256", JSON.stringify(inData)))
  })
  it("else there is none", () => assert.strictEqual(identityOf({ n: 1 }), "IDENTITY_UNRESOLVED"))
  it("and an id that cannot be one is none", () =>
    assert.strictEqual(identityOf({ id: { a: 1 } }), "IDENTITY_UNRESOLVED"))
})

describe("a payload", () => {
  const line = { productVariantId: "cup", quantity: 1 }
  const bad: ReadonlyArray<readonly [string, string, unknown]> = [
    ["payment.success", "no order", { items: [line] }],
    ["payment.success", "no items", { saleOrderId: "o", items: [] }],
    ["payment.success", "half a cup", { saleOrderId: "o", items: [{ ...line, quantity: 0.5 }] }],
    ["payment.success", "less than nothing", { saleOrderId: "o", items: [{ ...line, quantity: -1 }] }],
    ["order.created", "a quantity of 0", { orderId: "o", items: [{ ...line, quantity: 0 }] }],
    ["payment.success", "a quantity that is text", { saleOrderId: "o", items: [{ ...line, quantity: "1" }] }],
    ["payment.success", "a quantity past 10^12", { saleOrderId: "o", items: [{ ...line, quantity: 1e13 }] }],
    ["payment.success", "an id that is a number", { saleOrderId: 5, items: [line] }],
    ["order.created", "a line without a variant", { orderId: "o", items: [{ quantity: 1 }] }],
    ["order.created", "a line of two variants", { orderId: "o", items: [{ ...line, variantId: "other" }] }],
    ["order.cancelled", "no order", {}],
    ["order.cancelled", "an id with a control character", { orderId: "a\u0000b" }],
    ["order.returned", "nothing that was returned", { id: "m", orderId: "o" }],
    ["return.processed", "no quantity", { id: "m", productVariantId: "cup" }],
    ["inventory.confirm_requested", "no reservation", { data: { orderId: "o" } }],
    ["product-variant.created", "no variant", { sku: "CUP" }],
    ["product-variant.created", "less than nothing", { productVariantId: "cup", initialStock: -1 }]
  ]
  for (const [topic, what, value] of bad) {
    it(`of ${topic} with ${what} is refused`, () => assert.strictEqual(readAs(topic, value), "INVALID"))
  }

  it("may say null for what it leaves out, and more than we know", () => {
    const items = [{ ...line, locationId: null, saleOrderItemId: null, price: 9.99 }]
    assert.include(
      readAs("payment.success", { saleOrderId: "o", items, kitchenTickets: null, payments: [{ id: 1 }] }),
      "read"
    )
    const created = { productVariantId: "cup", sku: null, initialStock: null, title: "Cup" }
    assert.include(readAs("product-variant.created", created), "read")
  })
  it("names its variant as the order service does, or as the return service", () => {
    for (const name of ["variantId", "productVariantId"]) {
      const items = [{ [name]: "cup", quantity: 1 }]
      assert.include(readAs("order.created", { orderId: "o", items }), "read")
      assert.include(readAs("order.returned", { id: "m", orderId: "o", items }), "read")
    }
    assert.include(
      readAs("return.processed", { id: "m", productVariantId: "cup", quantityReturned: 1 }),
      "read"
    )
  })
})
