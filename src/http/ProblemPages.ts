import { Effect, Layer } from "effect"
import { HttpRouter } from "effect/http"
import { nextUuid } from "../services/Uuid.ts"
import { escapeHtml, pageOf, pageOrJson } from "./Page.ts"
import { responseOf } from "./Responses.ts"
import { RouteNotFound } from "./contract/HttpFailure.ts"
import { type ProblemCode, problemCodes, problemTypeOf } from "./contract/ProblemCodes.ts"
import { kinds } from "./contract/ProblemKinds.ts"

/** `/docs/problems` and `/docs/problems/<code>`, where the `type` of a problem leads: what it means and what to do. */

interface DocumentedProblem {
  readonly type: string
  readonly code: ProblemCode
  /** A code that several failures share has a title, and perhaps a status, for each. */
  readonly occurrences: ReadonlyArray<{ readonly title: string; readonly status: number }>
  readonly meaning: string
  readonly remedy: string
}

const problems: ReadonlyArray<DocumentedProblem> = (Object.keys(problemCodes) as Array<ProblemCode>)
  .toSorted()
  .map((code) => ({
    type: problemTypeOf(code),
    code,
    occurrences: Object.values(kinds)
      .filter((kind) => kind.code === code)
      .map(({ status, title }) => ({ title, status })),
    ...problemCodes[code]
  }))

const statusesOf = ({ occurrences }: DocumentedProblem): string =>
  [...new Set(occurrences.map(({ status }) => status))].join(", ")

const home = `<p><a href="/docs">All calls</a> · <a href="/docs/problems">All problems</a></p>`

const pageOfProblem = (problem: DocumentedProblem): string =>
  pageOf(
    problem.code,
    `${home}
<h1><code>${problem.code}</code></h1>
<p>${problem.occurrences.map(({ status, title }) => `${status}: ${escapeHtml(title)}`).join("<br>")}</p>
<h2>What it means</h2>
<p>${escapeHtml(problem.meaning)}</p>
<h2>What to do</h2>
<p>${escapeHtml(problem.remedy)}</p>`
  )

const listPage = pageOf(
  "Problems",
  `<p><a href="/docs">All calls</a></p>
<h1>Problems</h1>
<p>An error is answered as a problem (RFC 9457): its <code>code</code> is one of these, and its <code>type</code> leads to the page about it.</p>
<table>
<tr><th>code</th><th>status</th><th>what it means</th></tr>
${problems
  .map(
    (problem) =>
      `<tr><td><a href="${problem.type}"><code>${problem.code}</code></a></td><td>${statusesOf(problem)}</td><td>${escapeHtml(problem.meaning)}</td></tr>`
  )
  .join("\n")}
</table>`
)

export const layer = Layer.mergeAll(
  HttpRouter.add("GET", "/docs/problems", (request) =>
    Effect.succeed(pageOrJson(request, listPage, { data: problems }))
  ),
  HttpRouter.add("GET", "/docs/problems/:code", (request) =>
    Effect.gen(function* () {
      const { code } = yield* HttpRouter.params
      const problem = problems.find((documented) => documented.code === code)
      return problem === undefined
        ? responseOf(new RouteNotFound(), yield* nextUuid)
        : pageOrJson(request, pageOfProblem(problem), problem)
    })
  )
)
