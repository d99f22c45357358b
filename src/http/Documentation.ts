import { Effect, Layer, Option } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApiSwagger, OpenApi } from "effect/http-api"
import { DevIssuer } from "../services/identity/Jwks.ts"
import { asyncApi } from "./AsyncApi.ts"
import { openApi, version } from "./OpenApiDocument.ts"
import { escapeHtml, pageOf, pageOrJson } from "./Page.ts"
import * as ProblemPages from "./ProblemPages.ts"
import { Api } from "./contract/Api.ts"

/** What the service says of itself: where to go, its contracts, and a page to try its calls on. */

export const paths = [
  "/",
  "/openapi.json",
  "/asyncapi.json",
  "/docs",
  "/docs/problems",
  "/docs/problems/:code"
] as const

/** Where to go, by what is found there. */
const entrances = {
  documentation: "/docs",
  problems: "/docs/problems",
  openapi: "/openapi.json",
  asyncapi: "/asyncapi.json",
  ready: "/health/ready",
  live: "/health/live",
  metrics: "/metrics"
}
const entranceTexts: Readonly<Record<keyof typeof entrances | "developmentToken", string>> = {
  documentation: "all calls, with examples, to try",
  problems: "all errors: what they mean and what to do",
  openapi: "the calls for programs, as OpenAPI 3.1",
  asyncapi: "the messages for programs, as AsyncAPI 3.0",
  ready: "whether the service can work, and what it depends on",
  live: "whether the process lives",
  metrics: "metrics for Prometheus",
  developmentToken: "POST {} here for a token: open on development machines only"
}

const name = "Holdfast"
const description = "The inventory service that never oversells: stock, reservations and a ledger."

const home = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const isDevelopment = Option.isSome(yield* Effect.serviceOption(DevIssuer))
    const links: Readonly<Record<string, string>> = {
      ...entrances,
      ...(isDevelopment ? { developmentToken: "/dev/token" } : {})
    }
    const body = { name, version, description, ...links }
    const page = pageOf(
      name,
      `<h1>${escapeHtml(name)} ${escapeHtml(version)}</h1>
<p>${description}</p>
<table>
${Object.entries(links)
  .map(([entrance, path]) => {
    const target = entrance === "developmentToken" ? `<code>${path}</code>` : `<a href="${path}">${path}</a>`
    return `<tr><td>${target}</td><td>${entranceTexts[entrance as keyof typeof entranceTexts]}</td></tr>`
  })
  .join("\n")}
</table>`
    )
    yield* router.add("GET", "/", (request) => Effect.succeed(pageOrJson(request, page, body)))
  })
)

/**
 * Swagger UI as `effect` brings it, because it shows nothing but the document. It is rendered when it is first asked for:
 * its scripts are two megabytes.
 */
const viewer = Effect.promise(async () => {
  // The document as it is published, in place of what the viewer would make of the contract itself.
  const api = Api.annotate(OpenApi.Transform, () => ({ ...openApi() }))
  const { dispose, handler } = HttpRouter.toWebHandler(HttpApiSwagger.layer(api, { path: "/docs" }), {
    disableLogger: true
  })
  const page = await handler(new Request("http://localhost/docs"))
  const html = await page.text()
  await dispose()
  return html
})

/** Where the service is its own issuer, calls from the page carry a fresh development token. */
const fillInToken = `<script>
  window.addEventListener("load", async () => {
    const answer = await fetch("/dev/token", { method: "POST" })
    const { token } = await answer.json()
    window.ui.preauthorizeApiKey("bearer", token)
  })
</script>`

/** Without an icon of its own a browser asks for /favicon.ico. */
const viewerStyle = `<link rel="icon" href="data:,"><style>
  .swagger-ui .info .title small.version-stamp { display: none }
  .swagger-ui .markdown table { display: table; width: auto } .swagger-ui .markdown td, .swagger-ui .markdown th { padding: 4px 12px 4px 0 }
</style>`

const viewerPage = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const script = Option.isSome(yield* Effect.serviceOption(DevIssuer)) ? fillInToken : ""
    const page = yield* Effect.cached(
      Effect.map(viewer, (html) =>
        html
          .replace("</head>", `${viewerStyle}</head>`)
          // The viewer's own scripts have such tags in them: the last ones are the page's.
          .replace(/<\/body>\s*<\/html>\s*$/, `${script}</body></html>`)
      )
    )
    yield* router.add("GET", "/docs", Effect.map(page, HttpServerResponse.html))
  })
)

export const layer = Layer.mergeAll(
  home,
  viewerPage,
  ProblemPages.layer,
  HttpRouter.add(
    "GET",
    "/openapi.json",
    Effect.sync(() => HttpServerResponse.jsonUnsafe(openApi()))
  ),
  HttpRouter.add(
    "GET",
    "/asyncapi.json",
    Effect.sync(() => HttpServerResponse.jsonUnsafe(asyncApi))
  )
)
