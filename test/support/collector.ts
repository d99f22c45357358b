import { Effect, type Scope } from "effect"
import { createServer } from "node:http"
import { listening } from "./listening.ts"

/** A collector of OpenTelemetry on this machine, which keeps what it is sent over OTLP/HTTP as JSON. */

interface Attribute {
  readonly key: string
  readonly value: Readonly<Record<string, unknown>>
}

interface Attributed {
  readonly attributes?: ReadonlyArray<Attribute>
}

export interface CollectedSpan extends Attributed {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
}

export interface CollectedLog extends Attributed {
  readonly severityText: string
  readonly body: unknown
}

export interface CollectedMetric {
  readonly name: string
}

export interface Collector {
  readonly endpoint: string
  /** Every body as it came, whatever it was sent to. */
  readonly payloads: ReadonlyArray<string>
  readonly spans: () => ReadonlyArray<CollectedSpan>
  readonly logs: () => ReadonlyArray<CollectedLog>
  readonly metrics: () => ReadonlyArray<CollectedMetric>
}

export const collector: Effect.Effect<Collector, never, Scope.Scope> = Effect.gen(function* () {
  const payloads: Array<string> = []
  const bodies = new Map<string, Array<Record<string, unknown>>>()
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString("utf8")
      payloads.push(`${JSON.stringify(request.headers)}\n${text}`)
      const sent = bodies.get(request.url!) ?? []
      sent.push(JSON.parse(text) as Record<string, unknown>)
      bodies.set(request.url!, sent)
      response.setHeader("content-type", "application/json").end("{}")
    })
  })
  const port = yield* listening(server)
  /** `resourceSpans[].scopeSpans[].spans[]`, and the same of the other signals. */
  const collected = (path: string, resource: string, scope: string, kind: string): ReadonlyArray<unknown> =>
    (bodies.get(path) ?? [])
      .flatMap((body) => body[resource] as ReadonlyArray<Record<string, unknown>>)
      .flatMap((each) => each[scope] as ReadonlyArray<Record<string, unknown>>)
      .flatMap((each) => each[kind] as ReadonlyArray<unknown>)
  return {
    endpoint: `http://127.0.0.1:${port}`,
    payloads,
    spans: () =>
      collected("/v1/traces", "resourceSpans", "scopeSpans", "spans") as ReadonlyArray<CollectedSpan>,
    logs: () =>
      collected("/v1/logs", "resourceLogs", "scopeLogs", "logRecords") as ReadonlyArray<CollectedLog>,
    metrics: () =>
      collected("/v1/metrics", "resourceMetrics", "scopeMetrics", "metrics") as ReadonlyArray<CollectedMetric>
  }
})

/** An attribute of a span or a log, as text. */
export const attributeOf = ({ attributes = [] }: Attributed, name: string): string | undefined => {
  const found = attributes.find(({ key }) => key === name)
  return found === undefined ? undefined : String(Object.values(found.value)[0])
}
