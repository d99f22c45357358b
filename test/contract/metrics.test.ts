import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { globSync, readFileSync } from "node:fs"
import path from "node:path"
import { messagesAt } from "../support/messages.ts"
import { Service, eventually, merchant } from "../support/service.ts"

/** docs/metrics.md against the code and against /metrics of a program that has something to tell. */

const root = path.join(import.meta.dirname, "..", "..")

interface Described {
  readonly type: string
  readonly labels: ReadonlyArray<string>
}

/** The rows of the page's table, by name. */
const documented = new Map<string, Described>(
  readFileSync(path.join(root, "docs", "metrics.md"), "utf8")
    .split("\n")
    .filter((line) => /^\| `\w+` /.test(line))
    .map((line) => {
      const [, name, type, labels] = line.split("|").map((cell) => cell.trim())
      return [
        name!.replaceAll("`", ""),
        { type: type!, labels: [...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label!).sort() }
      ]
    })
)

/** Every metric that the code makes. */
const declared = new Map(
  globSync("src/**/*.ts", { cwd: root }).flatMap((file) =>
    [
      ...readFileSync(path.join(root, file), "utf8").matchAll(
        /Metric\.(counter|gauge|histogram|summary|frequency)\(\s*"([^"]+)"/g
      )
    ].map(([, type, name]) => [name!, type!] as const)
  )
)

/** What /metrics says, by the name of the family. */
const exposed = (text: string): ReadonlyMap<string, Described> => {
  const families = new Map<string, { type: string; labels: Set<string> }>()
  let current = { type: "", labels: new Set<string>() }
  for (const line of text.trimEnd().split("\n")) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line)
    if (type !== null) families.set(type[1]!, (current = { type: type[2]!, labels: new Set() }))
    if (line.startsWith("#")) continue
    for (const [, label] of line.replace(/^[^{]*/, "").matchAll(/[{,](\w+)="/g)) {
      if (label !== "le") current.labels.add(label!)
    }
  }
  return new Map(
    [...families].map(([name, { labels, type }]) => [name, { type, labels: [...labels].sort() }])
  )
}

const valueOf = (text: string, sample: string): number =>
  Number(
    text
      .split("\n")
      .find((line) => line.startsWith(`${sample} `))
      ?.split(" ")[1] ?? 0
  )

/** What a program that works always gives; the others count what goes wrong. */
const always = [...documented.keys()].filter(
  (name) => !/_(retries|rebuilds|failures|outages|failed|fetches)_total$|_events_failed_total$/.test(name)
)

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("docs/metrics.md", (it) => {
  it("has a row for each metric that the code makes, under a conventional name, and no other", () => {
    assert.deepStrictEqual([...documented.keys()].sort(), [...declared.keys()].sort())
    for (const [name, type] of declared) {
      assert.strictEqual(documented.get(name)!.type, type, name)
      assert.match(name, /^(http_server|holdfast|process|nodejs)_[a-z0-9_]+$/)
      assert.strictEqual(name.endsWith("_total"), type === "counter", name)
      assert.notMatch(name, /_(ms|millis|milliseconds|minutes|count|sum|bucket)(_total)?$/)
    }
  })

  it.effect("says what a running program gives", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const shop = yield* merchant
      yield* shop.item("cup")
      yield* shop.receive("cup", 5)
      yield* shop.reserve("o", [["cup", 1]])
      yield* shop.reserve("short", [["cup", 9]])
      yield* shop.reserve("expires", [["cup", 1]], { expiresIn: 1 })
      yield* service.call("GET", "/api/v1/inventory/cup", undefined, { token: "none" })
      const { send } = yield* messagesAt(Redacted.make(service.databaseUrl))
      const { merchantId } = shop
      yield* send("product-variant.deleted", { merchantId, productVariantId: "saucer" })
      yield* send("product-variant.deleted", { merchantId })
      const text = yield* eventually(
        Effect.map(service.call("GET", "/metrics"), (answer) => answer.text),
        (found) => always.every((name) => found.includes(`# TYPE ${name} `))
      )
      const found = exposed(text)
      for (const [name, { labels, type }] of found) {
        assert.deepStrictEqual({ type, labels }, documented.get(name), name)
        assert.match(text, new RegExp(`^# HELP ${name} \\S`, "m"))
      }
      assert.isAtLeast(found.size, always.length)
      const { body } = yield* shop.get("/api/v1/inventory/reservations?orderId=expires")
      assert.include(JSON.stringify(body), "EXPIRED")
    })
  )

  it.effect("counts reservations by outcome, refusals by reason, and tells how much waits", () =>
    Effect.gen(function* () {
      const service = yield* Service
      const shop = yield* merchant
      const metrics = Effect.map(service.call("GET", "/metrics"), ({ text }) => text)
      const before = yield* metrics
      yield* shop.item("cup")
      yield* shop.receive("cup", 5)
      for (const order of ["a", "b", "c", "d"]) yield* shop.reserve(order, [["cup", 1]])
      yield* shop.reserve("a", [["cup", 1]])
      yield* shop.post("/api/v1/inventory/confirm", { orderId: "a" })
      yield* shop.post("/api/v1/inventory/confirm", { orderId: "a" })
      yield* shop.post("/api/v1/inventory/confirm", { orderId: "b" })
      yield* shop.post("/api/v1/inventory/release", { orderId: "c" })
      yield* shop.adjust("cup", "SALE", 1, { orderId: "direct" })
      yield* shop.reserve("short", [["cup", 9]])
      yield* shop.get("/api/v1/inventory/none")
      const counted = yield* metrics
      const more = (sample: string) => valueOf(counted, sample) - valueOf(before, sample)
      for (const [outcome, count] of [
        ["made", 4],
        ["confirmed", 2],
        ["cancelled", 1],
        ["expired", 0]
      ] as const) {
        assert.strictEqual(more(`holdfast_reservations_total{outcome="${outcome}"}`), count, outcome)
      }
      assert.strictEqual(more(`holdfast_refusals_total{reason="InsufficientStock"}`), 1)
      assert.strictEqual(more(`holdfast_refusals_total{reason="ItemNotFound"}`), 1)
      const drained = yield* eventually(
        metrics,
        (text) => valueOf(text, "holdfast_outbox_events_pending") === 0
      )
      assert.strictEqual(valueOf(drained, "holdfast_outbox_events_held"), 0)
      assert.isAbove(valueOf(drained, "process_resident_memory_bytes"), 50_000_000)
      assert.isAbove(valueOf(drained, "process_cpu_seconds_total"), 0)
      assert.isAbove(valueOf(drained, "process_start_time_seconds"), 1_700_000_000)
    })
  )
})
