import { HttpServerRequest, HttpServerResponse } from "effect/http"

/** Pages that a person reads in a browser, without scripts and without anything from another host. */

export const escapeHtml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

const style = `
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
  h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2rem } code { background: #f1f1f4; padding: .1em .3em; border-radius: 3px }
  table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0 } a { color: #0b57a4 }
  @media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1f } code { background: #2b2b31 } a { color: #8ab4f8 } }`

/** `body` is HTML: texts in it are escaped by who makes it. */
export const pageOf = (title: string, body: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
${body}
</body>
</html>
`

/** A page for who asks for HTML, as browsers do, and JSON for everybody else. */
export const pageOrJson = (
  request: HttpServerRequest.HttpServerRequest,
  page: string,
  json: unknown,
  status = 200
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeader(
    prefersHtml(request.headers["accept"])
      ? HttpServerResponse.html(page).pipe(HttpServerResponse.setStatus(status))
      : HttpServerResponse.jsonUnsafe(json, { status }),
    "vary",
    "accept"
  )

/** Browsers name text/html before everything else; programs name JSON, anything, or nothing. */
const prefersHtml = (accept = ""): boolean => {
  const html = accept.indexOf("text/html")
  const json = accept.indexOf("application/json")
  return html >= 0 && (json < 0 || html < json)
}
