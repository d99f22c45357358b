import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { execFile } from "node:child_process"
import path from "node:path"
import { promisify } from "node:util"
import manifest from "../../package.json" with { type: "json" }
import { openApi } from "../../src/http/OpenApiDocument.ts"
import { kinds } from "../../src/http/contract/ProblemKinds.ts"
import { routes } from "./routes.ts"
import { freshDatabase } from "../support/Postgres.ts"
import { type RunningService, Service, merchantAt, startService } from "../support/service.ts"
import { assertProblem, listAt, pick, textAt } from "../support/shape.ts"

// Goal: whoever meets the service finds out by the service alone what to call, with what, and what an error means.
// Method: the documents are read as a person and as a program reads them, and every call in them is sent as it stands.

const root = path.join(import.meta.dirname, "..", "..")
/** Processes start here, which takes its time where all processors are busy. */
const timeout = 120_000

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  readonly security: unknown
  readonly parameters: ReadonlyArray<Parameter>
  readonly requestBody?: { readonly content: { readonly "application/json": { readonly example: unknown } } }
  readonly responses: Readonly<Record<string, unknown>>
}
interface Parameter {
  readonly $ref?: string
  readonly name: string
  readonly in: string
  readonly description: string
  readonly example?: unknown
  readonly schema: Readonly<Record<string, unknown>>
}
interface Call extends Operation {
  readonly method: string
  readonly path: string
}

const document = JSON.parse(JSON.stringify(openApi())) as {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> }
}
const calls: ReadonlyArray<Call> = Object.entries(document.paths).flatMap(([path, operations]) =>
  Object.entries(operations).map(([method, operation]) => ({
    ...operation,
    method: method.toUpperCase(),
    path
  }))
)

layer(Service.layer, { excludeTestServices: true, timeout: "120 seconds" })("the documentation", (it) => {
  it.effect("GET / says what this is and where to go, to programs and to browsers", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      const told = yield* call("GET", "/")
      assert.strictEqual(told.status, 200)
      assert.strictEqual(told.headers["content-type"], "application/json")
      assert.strictEqual(pick(told.body, "name"), "Holdfast")
      assert.strictEqual(pick(told.body, "version"), manifest.version)
      const targets = Object.values(told.body as Record<string, string>).filter((text) =>
        text.startsWith("/")
      )
      assert.includeMembers(targets, ["/docs", "/docs/problems", "/openapi.json", "/health/ready"])
      const browser = { headers: { accept: "text/html,application/xhtml+xml,*/*;q=0.8" } }
      const page = yield* call("GET", "/", undefined, browser)
      assert.match(page.headers["content-type"]!, /^text\/html/)
      for (const target of targets) {
        assert.include(page.text, target)
        if (target !== "/dev/token") assert.strictEqual((yield* call("GET", target)).status, 200, target)
      }
    })
  )

  it.effect("the type of a problem leads to a page that says what it means and what to do", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      const refused = yield* call("GET", "/api/v1/inventory/cup")
      assertProblem(refused, 401, "UNAUTHENTICATED")
      const codes = new Set(Object.values(kinds).map(({ code }) => code as string))
      for (const code of codes) {
        const told = yield* call("GET", `/docs/problems/${code}`)
        assert.strictEqual(told.status, 200, code)
        assert.strictEqual(pick(told.body, "code"), code)
        assert.isNotEmpty(textAt(told.body, "meaning"))
        assert.isNotEmpty(textAt(told.body, "remedy"))
        assert.isAtLeast(listAt(told.body, "occurrences").length, 1)
      }
      const page = yield* call("GET", textAt(refused.body, "type"), undefined, {
        headers: { accept: "text/html" }
      })
      assert.match(page.headers["content-type"]!, /^text\/html/)
      assert.include(page.text, "What to do")
      const list = yield* call("GET", "/docs/problems")
      assert.sameMembers(
        listAt(list.body, "data").map((problem) => pick(problem, "code") as string),
        [...codes]
      )
      assert.strictEqual((yield* call("GET", "/docs/problems/NONE")).status, 404)
      assertProblem(yield* call("POST", "/docs/problems"), 405, "METHOD_NOT_ALLOWED", {
        allow: ["GET", "HEAD"]
      })
    })
  )

  it.effect("a refusal for want of a permission names it and how to get it", () =>
    Effect.gen(function* () {
      const { call, token } = yield* Service
      const reader = yield* token({ scope: "inventory:read" })
      const body = { productVariantId: "cup", changeType: "RECEIPT", quantity: 1 }
      const refused = yield* call("POST", "/api/v1/inventory/adjust-stock", body, { token: reader })
      assertProblem(refused, 403, "FORBIDDEN", { permission: "inventory:adjust" })
      const detail = textAt(refused.body, "detail")
      for (const said of [
        "scope inventory:adjust",
        "owner, admin, manager, warehouse",
        "/docs/problems/FORBIDDEN"
      ]) {
        assert.include(detail, said)
      }
    })
  )

  it.effect("/docs loads nothing from elsewhere, praises nobody, and fills in a development token", () =>
    Effect.gen(function* () {
      const { call } = yield* Service
      const { headers, status, text } = yield* call("GET", "/docs")
      assert.strictEqual(status, 200)
      assert.match(headers["content-type"]!, /^text\/html/)
      const loaded = [...text.matchAll(/<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="([^"]*)"/g)]
      assert.deepStrictEqual(
        loaded.map(([, from]) => from).filter((from) => /^(https?:)?\/\//.test(from!)),
        []
      )
      assert.notMatch(text, /scalar\.com|powered by/i)
      const [, embedded] = /<script id="swagger-spec" type="application\/json">\s*(.*?)\s*<\/script>/s.exec(
        text
      )!
      assert.deepStrictEqual(JSON.parse(embedded!), document)
      assert.match(text, /preauthorizeApiKey\("bearer", token\)\s*\}\)\s*<\/script><\/body><\/html>$/)
    })
  )

  it.effect(
    "/docs fills in no token where another issuer is configured",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const service = yield* startService(Redacted.value(url), {
          JWKS_URL: "http://127.0.0.1:9/jwks",
          JWT_ISSUER: "https://login.example.com/",
          JWT_AUDIENCE: "holdfast",
          HOLDFAST_DEV: "0",
          HOST: "127.0.0.1"
        })
        const page = yield* service.call("GET", "/docs")
        assert.strictEqual(page.status, 200)
        assert.include(page.text, "SwaggerUIBundle(")
        assert.notInclude(page.text, `fetch("/dev/token"`)
        assert.notProperty((yield* service.call("GET", "/")).body, "developmentToken")
      }),
    timeout
  )

  it.effect("describes each operation and parameter, with its permission and an example", () =>
    Effect.sync(() => {
      assert.strictEqual(calls.length, routes.length)
      for (const { description, operationId, parameters, requestBody, security, summary } of calls) {
        assert.isNotEmpty(summary, operationId)
        const { body, permission } = routes.find(({ name }) => name === operationId)!
        assert.include(description, `\`${permission}\``, operationId)
        assert.deepStrictEqual(security, [{ bearer: [permission] }], operationId)
        if (body !== undefined) {
          assert.isDefined(requestBody!.content["application/json"].example, operationId)
          const references = parameters.map(({ $ref }) => $ref)
          assert.include(references, "#/components/parameters/IdempotencyKey")
        }
        for (const parameter of parameters) {
          if (parameter.$ref !== undefined) continue
          const name = `${operationId} ${parameter.name}`
          assert.isNotEmpty(parameter.description, name)
          // An optional filter that is filled in would hide what a first call should show.
          if (parameter.in === "path") assert.isDefined(parameter.example, name)
        }
      }
    })
  )

  it.effect("has one version, servers, names that do not depend on order, and answers that may grow", () =>
    Effect.sync(() => {
      assert.strictEqual(pick(document, "info.version"), manifest.version)
      assert.strictEqual(pick(document, "servers.0.url"), "/")
      const names = Object.keys(document.components.schemas)
      assert.deepStrictEqual(
        names.filter((name) => !/^[A-Z][A-Za-z0-9]*$/.test(name)),
        []
      )
      for (const { operationId, requestBody, responses } of calls) {
        assert.deepStrictEqual(closedIn(responses), [], operationId)
        if (requestBody !== undefined) assert.isNotEmpty(closedIn(requestBody), operationId)
      }
    })
  )

  it.effect(
    "has sample calls that work when they are sent as they are",
    () =>
      Effect.gen(function* () {
        const { url } = yield* freshDatabase
        const service = yield* startService(Redacted.value(url))
        yield* sendsAllSamples(service)
      }),
    timeout
  )

  it.effect(
    "passes the lint of its kind without an error or a warning",
    () =>
      Effect.gen(function* () {
        const { stderr, stdout } = yield* Effect.promise(() =>
          promisify(execFile)(
            process.execPath,
            ["node_modules/@redocly/cli/bin/cli.js", "lint", "openapi.json"],
            {
              cwd: root,
              env: { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" }
            }
          )
        )
        assert.match(stderr + stdout, /Your API description is valid/)
        assert.notMatch(stderr + stdout, /You have \d+ (warning|error)/)
      }),
    timeout
  )
})

/** Names and places of closed objects in what is reachable from a part of the document. */
const closedIn = (part: unknown): ReadonlyArray<string> => {
  const seen = new Set<string>()
  const walk = (value: unknown, at: string): ReadonlyArray<string> => {
    if (typeof value !== "object" || value === null) return []
    const { $ref, additionalProperties } = value as Readonly<Record<string, unknown>>
    if (typeof $ref === "string") {
      if (seen.has($ref)) return []
      seen.add($ref)
      return walk(document.components.schemas[$ref.split("/").at(-1)!], $ref)
    }
    return [
      ...(additionalProperties === false ? [at] : []),
      ...Object.entries(value).flatMap(([name, field]) => walk(field, `${at}/${name}`))
    ]
  }
  return walk(part, "")
}

/** The order in which the introduction tells to send them; all others follow as they are listed. */
const first = [
  "catalog.createItem",
  "catalog.createLocation",
  "variants.adjustStock",
  "orders.checkAvailability",
  "orders.reserve",
  "orders.extend",
  "orders.amend",
  "orders.confirm",
  "variants.reserveVariant",
  "variants.releaseVariant",
  "warehouse.reserveSkus",
  "bulk.count"
]

/** What the others need is deleted at the end. */
const last = ["catalog.deleteItem"]

const sendsAllSamples = Effect.fnUntraced(function* (service: RunningService) {
  const shop = yield* merchantAt(service, "demo")
  const sorted = [
    ...first.map((name) => calls.find(({ operationId }) => operationId === name)!),
    ...calls.filter(({ operationId }) => !first.includes(operationId) && !last.includes(operationId)),
    ...calls.filter(({ operationId }) => last.includes(operationId))
  ]
  for (const call of sorted) {
    // Ids that the service makes are not known beforehand.
    const made = {
      id: yield* Effect.map(shop.get("/api/v1/inventory/reservations"), ({ body }) =>
        pick(body, "data.0.reservationId")
      ),
      stockId: yield* Effect.map(shop.get("/v1/api/inventory/stocks"), ({ body }) =>
        pick(body, "data.0.stockId")
      ),
      discrepancyId: yield* Effect.map(shop.get("/v1/api/inventory/discrepancies?status=OPEN"), ({ body }) =>
        pick(body, "data.0.discrepancyId")
      )
    } as Readonly<Record<string, string | undefined>>
    const valueOf = ({ example, name }: Parameter) => encodeURIComponent(made[name] ?? String(example))
    const query = call.parameters.filter(
      ({ example, in: place }) => place === "query" && example !== undefined
    )
    const target = call.parameters
      .filter(({ in: place }) => place === "path")
      .reduce((path, parameter) => path.replace(`{${parameter.name}}`, valueOf(parameter)), call.path)
    const answer = yield* shop.call(
      call.method,
      `${target}${query.length === 0 ? "" : `?${query.map((each) => `${each.name}=${valueOf(each)}`).join("&")}`}`,
      call.requestBody?.content["application/json"].example
    )
    assert.isBelow(answer.status, 300, `${call.operationId}: ${answer.text}`)
    const results = pick(answer.body, "results")
    if (Array.isArray(results)) assert.strictEqual(pick(answer.body, "failed"), 0, answer.text)
  }
})
