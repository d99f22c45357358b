import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted, Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import path from "node:path"
import { publishedTopics, receivedTopics } from "../../src/schema/Topic.ts"
import type { IncomingMessage } from "../../src/services/messaging/Broker.ts"
import { assertInvariants } from "../support/invariants.ts"
import { connect } from "../support/ledger.ts"
import { messagesAt, said } from "../support/messages.ts"
import { Service, eventually, fresh, merchantAt, run } from "../support/service.ts"

// Goal: every message of CONTRACTS sections 5 and 6 against the running program.
// Method: another service that publishes and receives over the same broker; what the books say is asked over HTTP.

const page = readFileSync(path.join(import.meta.dirname, "..", "..", "docs", "messages.md"), "utf8")
const examples = new Map(
  [...page.matchAll(/^```json (\S+)\n([\s\S]*?)^```$/gm)].map(([, name, text]) => [name!, text!])
)

class Messages extends Context.Service<Messages, Effect.Success<ReturnType<typeof messagesAt>>>()(
  "holdfast/test/Messages"
) {
  static readonly layer = Layer.effect(
    Messages,
    Effect.flatMap(Service, ({ databaseUrl }) => messagesAt(Redacted.make(databaseUrl)))
  )
}

type Figures = {
  readonly quantity: number
  readonly reservedQuantity: number
  readonly availableQuantity: number
  readonly status: string
}

/** A merchant that speaks by messages and is looked at over HTTP. */
const shop = Effect.gen(function* () {
  const service = yield* Service
  const messages = yield* Messages
  const at = yield* merchantAt(service)
  const { merchantId } = at
  return {
    ...at,
    ...messages,
    /** Publishes a message of this merchant, and waits until it has been dealt with. */
    tell: (topic: string, message: object, more: { headers?: Record<string, string>; key?: string } = {}) =>
      Effect.andThen(messages.send(topic, { merchantId, ...message }, more), messages.untilDone(topic)),
    figures: (variant: string) =>
      Effect.map(at.get(`/api/v1/inventory/${variant}`), ({ body }) => {
        const { availableQuantity, quantity, reservedQuantity, status } = body as Figures
        return { availableQuantity, quantity, reservedQuantity, status }
      }),
    discrepancies: Effect.map(at.get("/v1/api/inventory/discrepancies?status=OPEN"), ({ body }) =>
      (body as { data: ReadonlyArray<{ kind: string }> }).data.map(({ kind }) => kind)
    )
  }
})

const of = (received: ReadonlyArray<IncomingMessage>, merchantId: string) =>
  received
    .map(said)
    .filter(
      ({ data }) => (data as { merchantId: string }).merchantId === merchantId
    ) as unknown as ReadonlyArray<Envelope>
interface Envelope {
  readonly type: string
  readonly correlationId: string
  readonly data: Readonly<Record<string, unknown>>
}

const keysOf = (value: unknown, at = ""): ReadonlyArray<string> =>
  Array.isArray(value)
    ? value.slice(0, 1).flatMap((element) => keysOf(element, `${at}[]`))
    : typeof value === "object" && value !== null
      ? Object.entries(value).flatMap(([name, member]) => [
          `${at}.${name}`,
          ...keysOf(member, `${at}.${name}`)
        ])
      : []

const shared = { excludeTestServices: true, timeout: "120 seconds" } as const
const saleOf = (saleOrderId: string) => ({
  saleOrderId,
  items: [{ saleOrderItemId: "1", productVariantId: "cup", quantity: 2 }]
})
const boundMs = 90_000

layer(Messages.layer.pipe(Layer.provideMerge(Service.layer)), shared)("docs/messages.md", (it) => {
  it("has an example of every topic that is received, and of what is published", () => {
    for (const { topic } of receivedTopics) assert.isTrue(examples.has(topic), topic)
    for (const { topic } of publishedTopics) assert.include(page, `\`${topic}\``)
  })

  it.effect(
    "shows messages that do what it says, in this order",
    () =>
      Effect.gen(function* () {
        const service = yield* Service
        const { publish, receive, untilDone } = yield* Messages
        const acme = yield* merchantAt(service, "acme")
        const told = yield* receive(...publishedTopics.map(({ topic }) => topic))
        const send = Effect.fnUntraced(function* (
          topic: string,
          change: (text: string) => string = (text) => text
        ) {
          const key = topic === "nx.seller.public.product_variant" ? `{"id":7}` : null
          yield* publish({ topic, key, headers: {}, value: change(examples.get(topic)!) })
          yield* untilDone(topic)
        })
        const cup = (field: keyof Figures, variant = "cup-blue") =>
          Effect.map(acme.get(`/api/v1/inventory/${variant}`), ({ body }) => (body as Figures)[field])

        yield* send("product-variant.created")
        assert.strictEqual(yield* cup("quantity"), 10)
        yield* send("payment.success")
        assert.strictEqual(yield* cup("quantity"), 8)
        yield* send("order.created")
        assert.strictEqual(yield* cup("reservedQuantity"), 3)
        const { body } = yield* acme.get("/api/v1/inventory/reservations?orderId=order-2")
        const { reservationId } = (body as { data: ReadonlyArray<{ reservationId: string }> }).data[0]!
        yield* send("inventory.confirm_requested", (text) =>
          text.replace("d290f1ee-6c54-4b01-90e6-d701748f0851", reservationId)
        )
        assert.deepStrictEqual([yield* cup("quantity"), yield* cup("reservedQuantity")], [5, 0])
        for (const order of ["order-3", "order-4", "order-5"]) yield* acme.reserve(order, [["cup-blue", 1]])
        assert.strictEqual(yield* cup("reservedQuantity"), 3)
        yield* send("order.cancelled")
        yield* send("order.fraudulent")
        yield* send("order.payment-failed")
        assert.strictEqual(yield* cup("reservedQuantity"), 0)
        yield* send("order.returned")
        yield* send("return.processed")
        assert.strictEqual(yield* cup("quantity"), 7)
        yield* publish({
          topic: "order.created",
          key: "order-6",
          headers: {},
          value: JSON.stringify({
            merchantId: "acme",
            orderId: "order-6",
            items: [{ variantId: "cup-blue", quantity: 900 }]
          })
        })
        yield* untilDone("order.created")
        yield* acme.adjust("cup-blue", "SALE", 7, { orderId: "order-7" })
        yield* send("product-variant.updated")
        assert.strictEqual(yield* cup("status"), "DISCONTINUED")
        yield* acme.item("cup-red")
        yield* send("product-variant.deleted")
        assert.strictEqual((yield* acme.get("/api/v1/inventory/cup-red")).status, 404)
        yield* send("nx.seller.public.product_variant")
        assert.strictEqual(yield* cup("status", "7"), "AWAITING_INITIAL_STOCK")
        yield* send("nx.seller.public.merchant")

        // What goes out has the shape that the page shows.
        for (const type of [
          "InventoryAdjusted",
          "inventory.confirmed",
          "inventory.confirmation_failed",
          "inventory.out_of_stock"
        ]) {
          const found = yield* eventually(
            Effect.sync(() => of(told, "acme").filter((event) => event.type === type)),
            (events) => events.length > 0
          )
          const shown = JSON.parse(examples.get(type)!) as Envelope
          const actual = found.find(({ data }) => data["orderId"] === shown.data["orderId"])
          assert.isDefined(actual, type)
          assert.sameMembers([...keysOf(actual!)], [...keysOf(shown)], type)
        }
      }),
    boundMs
  )
})

const assertOnlyDescribed = (received: ReadonlyArray<IncomingMessage>) => {
  const described = new Map(
    publishedTopics.flatMap(({ events, topic }) =>
      events.map(({ data, type }) => [
        `${topic} ${type}`,
        Schema.decodeUnknownResult(data as Schema.Codec<unknown>, {
          errors: "all",
          onExcessProperty: "error"
        })
      ])
    )
  )
  for (const message of received) {
    const { data, type } = said(message) as unknown as Envelope
    const decode = described.get(`${message.topic} ${type}`)
    assert.isDefined(decode, `${message.topic} ${type}`)
    const decoded = decode!(data)
    assert.isTrue(Result.isSuccess(decoded), `${type} ${JSON.stringify(data)} ${String(decoded)}`)
    assert.include(message.headers, {
      ce_type: type,
      ce_source: "holdfast",
      ce_specversion: "1.0",
      "x-merchant-id": (data as { merchantId: string }).merchantId
    })
  }
  return new Set(received.map((message) => said(message)["type"] as string))
}

layer(Messages.layer.pipe(Layer.provideMerge(Service.layer)), shared)("messages", (it) => {
  it.effect(
    "payment.success sells once per line, below zero if need be, and creates what it names first",
    () =>
      Effect.gen(function* () {
        const { discrepancies, figures, receive, tell, untilDone, send, merchantId } = yield* shop
        const items = [{ productVariantId: "cup", quantity: 3, locationId: "kiosk" }]
        yield* tell("payment.success", { saleOrderId: "o-1", items })
        assert.include(yield* figures("cup"), { quantity: -3, availableQuantity: 0 })
        assert.include(yield* discrepancies, "NEGATIVE_STOCK")
        yield* tell("payment.success", { saleOrderId: "o-1", items })
        yield* send("payment.success", { data: { merchantId, saleOrderId: "o-1", items }, id: "other" })
        yield* untilDone("payment.success")
        assert.include(yield* figures("cup"), { quantity: -3 })
        yield* tell("payment.success", { saleOrderId: "o-1", items: [{ ...items[0], quantity: 5 }] })
        assert.include(yield* figures("cup"), { quantity: -3 })
        assert.include(yield* discrepancies, "SALE_LINE_CHANGED")
        const told = yield* receive("inventory.events")
        yield* eventually(
          Effect.sync(() => of(told, merchantId).map(({ type }) => type)),
          (types) => types.includes("InventoryAdjusted") && types.includes("DiscrepancyOpened")
        )
      }),
    boundMs
  )

  it.effect(
    "orders that come to nothing give back what they hold, also when the ending comes first",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, item, merchantId, receive, reserve, tell } = yield* shop
        yield* item("cup")
        yield* adjust("cup", "RECEIPT", 10)
        for (const topic of ["order.cancelled", "order.payment-failed", "order.fraudulent"]) {
          const orderId = fresh("order")
          yield* reserve(orderId, [["cup", 4]])
          assert.include(yield* figures("cup"), { reservedQuantity: 4 })
          yield* tell(topic, { orderId })
          yield* tell(topic, { orderId })
          assert.include(yield* figures("cup"), { reservedQuantity: 0, quantity: 10 })
          const again = yield* reserve(orderId, [["cup", 4]])
          assert.strictEqual(again.status, topic === "order.payment-failed" ? 201 : 422)
          if (again.status === 201) yield* tell("order.cancelled", { orderId })
        }
        // Cancelled before it was created.
        yield* tell("order.cancelled", { orderId: "late" })
        yield* tell("order.created", { orderId: "late", items: [{ variantId: "cup", quantity: 1 }] })
        assert.include(yield* figures("cup"), { reservedQuantity: 0 })
        const told = yield* receive("inventory.events")
        yield* eventually(
          Effect.sync(() => of(told, merchantId).filter(({ type }) => type === "InventoryReleased").length),
          (released) => released >= 4
        )
      }),
    boundMs
  )

  it.effect(
    "inventory.confirm_requested is answered each time",
    () =>
      Effect.gen(function* () {
        const { figures, item, receive, reserve, tell, merchantId, adjust } = yield* shop
        const told = yield* receive("inventory.confirmed", "inventory.confirmation_failed")
        yield* item("cup")
        yield* adjust("cup", "RECEIPT", 10)
        const orderId = fresh("order")
        const { body } = yield* reserve(orderId, [["cup", 4]])
        const { reservationId } = (body as { data: { reservationId: string } }).data
        for (const _ of [1, 2]) {
          yield* tell("inventory.confirm_requested", { id: fresh("m"), data: { orderId, reservationId } })
        }
        yield* tell("inventory.confirm_requested", { data: { orderId: "unknown", reservationId } })
        const answers = yield* eventually(
          Effect.sync(() => of(told, merchantId)),
          (found) => found.length === 3
        )
        assert.sameMembers(
          answers.map(({ type, data }) => `${type} ${String(data["orderId"])} ${String(data["applied"])}`),
          [
            `inventory.confirmed ${orderId} true`,
            `inventory.confirmed ${orderId} false`,
            "inventory.confirmation_failed unknown undefined"
          ]
        )
        assert.include(yield* figures("cup"), { quantity: 6, reservedQuantity: 0 })
      }),
    boundMs
  )

  it.effect(
    "each failed payment gives back what is held at that moment, once a message",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, item, reserve, tell } = yield* shop
        yield* item("cup")
        yield* adjust("cup", "RECEIPT", 10)
        const orderId = fresh("order")
        for (const id of [fresh("m"), fresh("m")]) {
          yield* reserve(orderId, [["cup", 4]])
          yield* tell("order.payment-failed", { id, orderId })
          assert.include(yield* figures("cup"), { reservedQuantity: 0 })
          yield* reserve(orderId, [["cup", 4]])
          yield* tell("order.payment-failed", { id, orderId })
          assert.include(yield* figures("cup"), { reservedQuantity: 4 })
          yield* tell("order.payment-failed", { orderId, timestamp: id })
          assert.include(yield* figures("cup"), { reservedQuantity: 0 })
        }
      }),
    boundMs
  )

  it.effect(
    "lines of nothing in a fact are nothing, and the others count",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, item, tell } = yield* shop
        yield* item("cup")
        yield* adjust("cup", "RECEIPT", 10)
        const none = { productVariantId: "ghost", quantity: 0 }
        const cup = { productVariantId: "cup", quantity: 2 }
        yield* tell("payment.success", { saleOrderId: fresh("sale"), items: [none, cup] })
        assert.include(yield* figures("cup"), { quantity: 8 })
        yield* tell("order.returned", { id: fresh("m"), items: [none, { ...cup, quantity: 1 }] })
        assert.include(yield* figures("cup"), { quantity: 9 })
        yield* tell("return.processed", { id: fresh("m"), productVariantId: "cup", quantityReturned: 0 })
        assert.include(yield* figures("cup"), { quantity: 9 })
      }),
    boundMs
  )

  it.effect(
    "a paid sale told by message and over HTTP is one",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, item, post, tell } = yield* shop
        yield* item("cup")
        yield* adjust("cup", "RECEIPT", 10)
        const sales = "/v1/api/inventory/sales"
        const [first, second] = [fresh("sale"), fresh("sale")]
        yield* tell("payment.success", saleOf(first))
        const repeated = yield* post(sales, saleOf(first))
        assert.deepInclude(repeated.body, { applied: false, lines: { applied: 0, repeated: 1, changed: 0 } })
        assert.deepInclude((yield* post(sales, saleOf(second))).body, { applied: true })
        yield* tell("payment.success", saleOf(second))
        assert.include(yield* figures("cup"), { quantity: 6 })
      }),
    boundMs
  )

  it.effect(
    "returns are told apart by their identity",
    () =>
      Effect.gen(function* () {
        const { figures, item, tell } = yield* shop
        yield* item("cup")
        const returned = { productVariantId: "cup", quantityReturned: 1 }
        yield* tell("return.processed", { ...returned, id: "r-1" })
        yield* tell("return.processed", { ...returned, id: "r-1" })
        assert.include(yield* figures("cup"), { quantity: 1 })
        yield* tell("return.processed", { ...returned, id: "r-2" })
        yield* tell("return.processed", returned, { headers: { ce_id: "r-3" } })
        yield* tell("return.processed", returned, { headers: { ce_id: "r-3" } })
        assert.include(yield* figures("cup"), { quantity: 3 })
        const timed = { ...returned, timestamp: "2026-05-11T08:00:00Z" }
        yield* tell("return.processed", timed)
        yield* tell("return.processed", timed)
        assert.include(yield* figures("cup"), { quantity: 4 })
        yield* tell("order.returned", { id: "r-4", items: [{ variantId: "cup", quantity: 2 }] })
        assert.include(yield* figures("cup"), { quantity: 6 })
        // Without any identity it could not be told from its own repetition.
        yield* tell("return.processed", returned)
        assert.include(yield* figures("cup"), { quantity: 6 })
      }),
    boundMs
  )

  it.effect(
    "returns that say DAMAGED come back unallocatable",
    () =>
      Effect.gen(function* () {
        const { figures, item, tell } = yield* shop
        yield* item("cup")
        yield* tell("return.processed", {
          id: "d-1",
          productVariantId: "cup",
          quantityReturned: 2,
          condition: "Damaged"
        })
        yield* tell("order.returned", {
          id: "d-2",
          items: [
            { variantId: "cup", quantity: 3, condition: "DAMAGED" },
            { variantId: "cup", quantity: 1, condition: "as new" }
          ]
        })
        assert.include(yield* figures("cup"), { quantity: 6, availableQuantity: 1 })
      }),
    boundMs
  )

  it.effect(
    "a deleted variant goes with its last unit, and its sku is the next one's by message and over HTTP",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, get, item, post, reserve, tell } = yield* shop
        for (const [gone, next] of [
          ["old-1", "new-1"],
          ["old-2", "new-2"]
        ] as const) {
          const sku = `sku-${gone}`
          yield* item(gone, { sku })
          yield* adjust(gone, "RECEIPT", 2)
          yield* reserve(`order-${gone}`, [[gone, 2]])
          yield* tell("product-variant.deleted", { productVariantId: gone })
          assert.include(yield* figures(gone), { quantity: 2, availableQuantity: 0, status: "DISCONTINUED" })
          yield* post("/api/v1/inventory/confirm", { orderId: `order-${gone}` })
          assert.strictEqual((yield* get(`/api/v1/inventory/${gone}`)).status, 404)
          if (next === "new-1") yield* tell("product-variant.created", { productVariantId: next, sku })
          else yield* item(next, { sku })
          assert.strictEqual((yield* get(`/inventory/${sku}`)).status, 200)
          assert.include(yield* figures(next), { status: "AWAITING_INITIAL_STOCK" })
        }
      }),
    boundMs
  )

  it.effect(
    "captured rows swap their skus, and one that gets another key leaves its stock behind",
    () =>
      Effect.gen(function* () {
        const { adjust, figures, get, merchantId, publish, untilDone } = yield* shop
        const topic = "nx.seller.public.product_variant"
        const [one, two] = [Math.floor(Math.random() * 1e9), Math.floor(Math.random() * 1e9)]
        const [a, b] = [`A-${one}`, `B-${two}`]
        const record = (id: number, change: object) =>
          Effect.andThen(
            publish({ topic, key: JSON.stringify({ id }), headers: {}, value: JSON.stringify(change) }),
            untilDone(topic)
          )
        const row = (id: number, sku: string) =>
          record(id, { op: "u", after: { id, merchant_id: merchantId, sku } })
        const skuOf = (id: number) =>
          Effect.map(get(`/api/v1/inventory/${id}`), ({ body }) => (body as { sku: unknown }).sku)
        yield* row(one, a)
        yield* row(two, b)
        yield* row(one, b)
        yield* row(two, a)
        assert.deepStrictEqual([yield* skuOf(one), yield* skuOf(two)], [b, a])
        yield* adjust(String(one), "RECEIPT", 1)
        const three = Math.floor(Math.random() * 1e9)
        yield* record(one, { op: "d", before: { id: one }, after: null })
        yield* row(three, b)
        assert.strictEqual(yield* skuOf(three), b)
        assert.include(yield* figures(String(one)), { quantity: 1, status: "DISCONTINUED" })
        assert.isNull(yield* skuOf(one))
        yield* adjust(String(one), "WRITE_OFF", 1)
        assert.strictEqual((yield* get(`/api/v1/inventory/${one}`)).status, 404)
      }),
    boundMs
  )

  it.effect(
    "captured rows are items, and a delete finds the merchant by what the row said before",
    () =>
      Effect.gen(function* () {
        const { figures, get, merchantId, publish, untilDone } = yield* shop
        const topic = "nx.seller.public.product_variant"
        const id = Math.floor(Math.random() * 1e9)
        const key = JSON.stringify({ id })
        const record = (value: unknown) =>
          Effect.andThen(
            publish({ topic, key, headers: {}, value: value === null ? null : JSON.stringify(value) }),
            untilDone(topic)
          )
        yield* record({ op: "d", before: { id, merchant_id: "" }, after: null })
        yield* record({ op: "c", after: { id, merchant_id: merchantId, sku: `SKU-${id}`, status: "active" } })
        assert.include(yield* figures(String(id)), { status: "AWAITING_INITIAL_STOCK" })
        yield* record({
          op: "u",
          before: null,
          after: { id, merchant_id: merchantId, status: "discontinued" }
        })
        assert.include(yield* figures(String(id)), { status: "DISCONTINUED" })
        yield* record({ op: "d", before: { id, merchant_id: "", sku: "" }, after: null })
        yield* record(null)
        assert.strictEqual((yield* get(`/api/v1/inventory/${id}`)).status, 404)
        const other = fresh("merchant")
        const merchants = "nx.seller.public.merchant"
        yield* publish({
          topic: merchants,
          key: JSON.stringify({ id: other }),
          headers: {},
          value: JSON.stringify({ op: "c", after: { id: other } })
        })
        yield* untilDone(merchants)
        const at = yield* merchantAt(yield* Service, other)
        const { body } = yield* at.get("/v1/api/inventory/locations")
        assert.strictEqual((body as { data: ReadonlyArray<unknown> }).data.length, 1)
      }),
    boundMs
  )

  it.effect(
    "a message's request and trace go on into the books and out with its events",
    () =>
      Effect.gen(function* () {
        const { merchantId, receive, tell } = yield* shop
        const told = yield* receive("inventory.events")
        const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        yield* tell(
          "payment.success",
          { saleOrderId: "o", items: [{ productVariantId: "cup", quantity: 1 }] },
          { headers: { "x-request-id": "request-77", traceparent } }
        )
        const ours = yield* eventually(
          Effect.sync(() => told.filter(({ headers }) => headers["x-merchant-id"] === merchantId)),
          (found) => found.length > 0
        )
        for (const { headers } of ours) assert.include(headers, { "x-request-id": "request-77", traceparent })
      }),
    boundMs
  )

  it.effect(
    "poison is buried with its reason, what is behind it goes on, and holdfast dlq looks after it",
    () =>
      Effect.gen(function* () {
        const service = yield* Service
        const { figures, item, merchantId, publish, receive, send, untilDone } = yield* shop
        const topic = "return.processed"
        const buried = yield* receive(`${topic}.dlq`)
        const key = fresh("key")
        yield* item("cup")
        const returned = { productVariantId: "cup", quantityReturned: 1 }
        const poison: ReadonlyArray<readonly [string, string | Uint8Array | null]> = [
          ["NOT_JSON", "not json"],
          ["EMPTY", ""],
          ["EMPTY", null],
          ["INVALID", JSON.stringify({ merchantId, id: "a", productVariantId: 7, quantityReturned: "1" })],
          [
            "MERCHANT_UNRESOLVED",
            JSON.stringify({ ...returned, merchantId: "a", data: { merchantId: "b" } })
          ],
          ["IDENTITY_UNRESOLVED", JSON.stringify({ ...returned, merchantId })],
          ["NOT_JSON", new Uint8Array([0xff, 0xfe, 0x00])]
        ]
        yield* publish(
          ...poison.map(([, value]) => ({ topic, key, headers: { "x-request-id": key }, value }))
        )
        yield* send(topic, { ...returned, merchantId, id: "behind" }, { key })
        yield* untilDone(topic)
        assert.include(yield* figures("cup"), { quantity: 1 })
        const letters = yield* eventually(
          Effect.sync(() => buried.filter((letter) => letter.key === key)),
          (found) => found.length === poison.length
        )
        assert.deepStrictEqual(
          letters.map(({ headers }) => headers["dlq-reason"]),
          poison.map(([reason]) => reason)
        )
        letters.forEach(({ headers, value }, index) => {
          const sent = poison[index]![1]
          assert.deepStrictEqual(
            value === null ? null : Buffer.from(value),
            sent === null ? null : Buffer.from(sent as string)
          )
          assert.include(headers, { "x-request-id": key, "dlq-topic": topic })
          assert.match(headers["dlq-offset"]!, /^\d+$/)
        })

        const dlq = (...parameters: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            const program = yield* run({ DATABASE_URL: service.databaseUrl, HOLDFAST_DEV: "1" }, [
              "dlq",
              ...parameters
            ])
            const { code } = yield* program.ended
            return { code, output: program.stdout() + program.stderr() }
          })
        const listed = yield* dlq("list", "--topic", topic, "--json")
        const rows = listed.output
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as { deadLetterId: string; key: string; reason: { code: string } })
          .filter((row) => row.key === key)
        assert.deepStrictEqual(
          rows.map(({ reason }) => reason.code),
          poison.map(([reason]) => reason)
        )
        const shown = yield* dlq("show", rows[3]!.deadLetterId)
        assert.include(shown.output, "INVALID")
        assert.include(shown.output, "quantityReturned")
        const gone = yield* dlq("drop", rows[0]!.deadLetterId)
        assert.include(gone.output, "1 dropped")
        assert.strictEqual((yield* dlq("show", rows[0]!.deadLetterId)).code, 1)
        // What is not mended is buried again, at its new place.
        const replayed = yield* dlq("replay", rows[3]!.deadLetterId)
        assert.strictEqual(replayed.code, 0)
        yield* untilDone(topic)
        yield* eventually(
          Effect.sync(() => buried.filter((letter) => letter.key === key).length),
          (count) => count === poison.length + 1
        )
      }),
    boundMs
  )

  it.effect(
    "a dead letter that is replayed after its cause is mended is applied once, however often",
    () =>
      Effect.gen(function* () {
        const service = yield* Service
        const { figures, item, patch, tell } = yield* shop
        const sku = fresh("sku")
        yield* item("other", { sku })
        yield* tell("product-variant.created", { productVariantId: "cup", sku, initialStock: 4 })
        const sql = yield* connect(Redacted.make(service.databaseUrl))
        const { untilDone } = yield* Messages
        const [letter] = yield* sql.run<{ id: string; reason: string }>(
          "SELECT dead_letter_id::text AS id, reason FROM dead_letter WHERE encode(value, 'escape') LIKE $1",
          [`%${sku}%`]
        )
        assert.strictEqual(letter!.reason, "ITEM_CONFLICT")
        const mended = yield* patch("/v1/api/inventory/product-variants/other", { sku: `${sku}-other` })
        assert.strictEqual(mended.status, 200, mended.text)
        for (const _ of [1, 2]) {
          const replay = yield* run({ DATABASE_URL: service.databaseUrl, HOLDFAST_DEV: "1" }, [
            "dlq",
            "replay",
            letter!.id
          ])
          assert.strictEqual((yield* replay.ended).code, 0, replay.stderr())
          yield* untilDone("product-variant.created")
        }
        assert.include(yield* figures("cup"), { quantity: 4 })
      }),
    boundMs
  )

  it.effect(
    "everything that is published is as /asyncapi.json describes it",
    () =>
      Effect.gen(function* () {
        const { adjust, item, merchantId, receive, reserve, tell } = yield* shop
        const told = yield* receive(...publishedTopics.map(({ topic }) => topic))
        yield* item("cup", { lowStockThreshold: 3 })
        yield* adjust("cup", "RECEIPT", 5, { lotNumber: "L-1" })
        yield* adjust("cup", "CORRECTION", 5, { lotNumber: "L-1", expiresAt: "2999-01-01T00:00:00Z" })
        yield* reserve("o-1", [["cup", 3]], { expiresIn: 1 })
        yield* reserve("o-2", [["cup", 2]])
        yield* tell("order.cancelled", { orderId: "o-2" })
        yield* tell("payment.success", {
          saleOrderId: "o-3",
          items: [{ productVariantId: "cup", quantity: 9 }]
        })
        yield* adjust("cup", "RECEIPT", 20)
        yield* tell("order.created", { orderId: "o-4", items: [{ variantId: "cup", quantity: 99 }] })
        yield* tell("product-variant.created", { productVariantId: "plate", initialStock: 2 })
        yield* tell("product-variant.deleted", { productVariantId: "plate" })
        yield* reserve("o-5", [["cup", 1]])
        yield* tell("inventory.confirm_requested", { data: { orderId: "o-5", reservationId: "x" } })
        const wanted = publishedTopics
          .flatMap(({ events }) => events.map(({ type }) => type))
          .filter((type) => type !== "inventory.confirmed")
        yield* eventually(
          Effect.sync(() => new Set(of(told, merchantId).map(({ type }) => type))),
          (types) => wanted.every((type) => types.has(type))
        )
        assertOnlyDescribed(told)
      }),
    boundMs
  )

  it.effect("the books are right after all of it", () =>
    Effect.gen(function* () {
      yield* assertInvariants(Redacted.make((yield* Service).databaseUrl))
    })
  )
})
