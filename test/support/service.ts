import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import * as http from "node:http"
import path from "node:path"
import { freshDatabase } from "./Postgres.ts"
import { program } from "./shared.ts"

/** The program as its users run it: a process of its own over a database of its own, spoken to by HTTP alone. */

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  /** The bytes as text, and what they say where they are JSON. */
  readonly text: string
  readonly body: unknown
}

export interface CallOptions {
  readonly token?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
}

export interface TokenRequest {
  readonly sub?: string
  readonly merchantId?: string
  readonly scope?: string
  readonly roles?: ReadonlyArray<string>
  readonly expiresIn?: number
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A process, whether or not it gets as far as listening. */
export interface Program {
  readonly pid: number
  readonly stdout: () => string
  readonly stderr: () => string
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

export interface RunningService extends Program {
  readonly port: number
  readonly databaseUrl: string
  /** A body that is text goes out as it is; anything else as JSON, with its content type. */
  readonly call: (
    method: string,
    path: string,
    body?: unknown,
    options?: CallOptions
  ) => Effect.Effect<Answer>
  readonly token: (request?: TokenRequest) => Effect.Effect<string>
}

const root = path.join(import.meta.dirname, "..", "..")
/** Starting takes a second, and ten where all processors are busy; whatever takes longer than this never will. */
const patience = "60 seconds"
const callTimeoutMs = 30_000
/** What V8 has compiled once need not be compiled again: most of what a start costs. */
export const compileCache = path.join(root, "node_modules", ".cache", "holdfast-test")

/**
 * Loaded into the program before it starts: its standard input is a pipe of ours, which ends when this process does,
 * however it does. So not even a killed test run leaves a service behind.
 */
const dieWithTheTests = `data:text/javascript,${encodeURIComponent(
  `process.stdin.on("end", () => process.kill(process.pid, "SIGKILL")).resume().unref()`
)}`

/**
 * Starts the program, or a script in its place, with these environment variables and no others of ours. It is killed
 * when the scope closes.
 */
export const run = (
  environment: Readonly<Record<string, string>>,
  parameters: ReadonlyArray<string> = ["serve"],
  script?: string,
  folder = root
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.map(script === undefined ? program("main") : Effect.succeed(script), (file) =>
        launch(environment, parameters, file, folder)
      ),
      ({ child, ended }) =>
        Effect.andThen(
          Effect.sync(() => child.kill("SIGKILL")),
          Effect.promise(() => ended)
        )
    ),
    ({ child, ended, output }) => ({
      pid: child.pid!,
      stdout: () => output.stdout,
      stderr: () => output.stderr,
      kill: (signal) => Effect.sync(() => void child.kill(signal)),
      ended: within(
        Effect.promise(() => ended),
        () => `the program did not end:\n${output.stdout}\n${output.stderr}`
      )
    })
  )

const launch = (
  environment: Readonly<Record<string, string>>,
  parameters: ReadonlyArray<string>,
  script: string,
  folder: string
) => {
  const inherited = Object.fromEntries(
    ["PATH", "HOME", "TMPDIR"].flatMap((name) => {
      const value = process.env[name]
      return value === undefined ? [] : [[name, value]]
    })
  )
  const child: ChildProcess = spawn(process.execPath, ["--import", dieWithTheTests, script, ...parameters], {
    cwd: folder,
    env: { ...inherited, NODE_COMPILE_CACHE: compileCache, ...environment },
    stdio: "pipe"
  })
  const output = { stdout: "", stderr: "" }
  child.stdout!.setEncoding("utf8").on("data", (text: string) => (output.stdout += text))
  child.stderr!.setEncoding("utf8").on("data", (text: string) => (output.stderr += text))
  const ended = new Promise<Ended>((resolve) => {
    // Not at "exit": what was written last may still be on its way.
    child.once("close", (code, signal) => resolve({ code, signal }))
  })
  return { child, ended, output }
}

const within = <A>(effect: Effect.Effect<A>, complaint: () => string): Effect.Effect<A> =>
  Effect.timeoutOrElse(effect, { duration: patience, orElse: () => Effect.die(new Error(complaint())) })

/**
 * Starts a service on a database (undefined: the embedded one) and waits until it listens. Several may share one
 * database.
 */
export const startService = Effect.fnUntraced(function* (
  databaseUrl: string | undefined,
  environment: Readonly<Record<string, string>> = {},
  {
    folder,
    parameters = ["serve"],
    script
  }: { folder?: string; parameters?: ReadonlyArray<string>; script?: string } = {}
) {
  const program = yield* run(
    {
      PORT: "0",
      ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl, HOLDFAST_DEV: "1" }),
      // Long enough for a machine on which other tests run as well.
      REQUEST_TIMEOUT_MS: "20000",
      ...environment
    },
    parameters,
    script,
    folder
  )
  const listening = Effect.sync(() =>
    /Holdfast listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(program.stdout())
  )
  const [, port] = yield* within(
    Effect.raceFirst(
      untilDefined(listening),
      Effect.flatMap(program.ended, (ended) =>
        Effect.die(
          new Error(`the service ended: ${JSON.stringify(ended)}\n${program.stdout()}\n${program.stderr()}`)
        )
      )
    ),
    () => `the service does not listen:\n${program.stdout()}\n${program.stderr()}`
  )
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => new http.Agent({ keepAlive: true, maxSockets: 64 })),
    (agent) => Effect.sync(() => agent.destroy())
  )
  const call: RunningService["call"] = (method, target, body, options = {}) =>
    request(agent, Number(port), method, target, body, options)
  const service: RunningService = {
    ...program,
    port: Number(port),
    databaseUrl: databaseUrl ?? "",
    call,
    token: (asked = {}) =>
      Effect.map(call("POST", "/dev/token", asked), ({ body, text }) => {
        const { token } = (body ?? {}) as { readonly token?: string }
        if (token === undefined) throw new Error(`no token was issued: ${text}`)
        return token
      })
  }
  return service
})

/** How often something outside is looked at. Waiting for it is bounded by `within`, or by the test's own time-out. */
const poll = "10 millis"

const untilDefined = <A, E, R>(look: Effect.Effect<A | null | undefined, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(look, (found) =>
    found === undefined || found === null
      ? Effect.andThen(Effect.sleep(poll), untilDefined(look))
      : Effect.succeed(found)
  )

/** Looks again until what it finds is as wanted; shows what it found last if that takes too long. */
export const eventually = <A, R>(
  look: Effect.Effect<A, never, R>,
  isWanted: (found: A) => boolean
): Effect.Effect<A, never, R> => {
  let last: A
  return Effect.timeoutOrElse(
    untilDefined(Effect.map(look, (found) => (isWanted((last = found)) ? { found } : undefined))),
    {
      duration: patience,
      orElse: () => Effect.die(new Error(`it did not become true; last seen: ${JSON.stringify(last)}`))
    }
  ).pipe(Effect.map(({ found }) => found))
}

const request = (
  agent: http.Agent,
  port: number,
  method: string,
  target: string,
  body: unknown,
  { headers, token }: CallOptions
): Effect.Effect<Answer> =>
  Effect.callback<Answer>((resume) => {
    const sent = http.request(
      {
        agent,
        host: "127.0.0.1",
        port,
        method,
        path: target,
        timeout: callTimeoutMs,
        headers: {
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...headers
        }
      },
      (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.on("error", fail)
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8")
          resume(
            Effect.succeed({
              status: response.statusCode!,
              headers: response.headers as Answer["headers"],
              text,
              body: parsed(text)
            })
          )
        })
      }
    )
    const fail = (cause: Error) =>
      resume(Effect.die(new Error(`${method} ${target.slice(0, 200)} was not answered`, { cause })))
    sent.on("error", fail)
    sent.on("timeout", () => sent.destroy(new Error(`no answer within ${callTimeoutMs} ms`)))
    if (body !== undefined)
      sent.write(typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body))
    sent.end()
    return Effect.sync(() => sent.destroy())
  })

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** One service that the tests of a file share, on a fresh database. */
export class Service extends Context.Service<Service, RunningService>()("holdfast/test/Service") {
  static readonly layer = Layer.effect(
    Service,
    Effect.flatMap(freshDatabase, ({ url }) => startService(Redacted.value(url)))
  )
}

/** An id that no other test has. */
export const fresh = (prefix: string): string => `${prefix}-${randomUUID()}`

const expected = (answer: Effect.Effect<Answer>) =>
  Effect.map(answer, (given) => {
    if (given.status >= 300) throw new Error(`a test's own preparation failed: ${given.text}`)
    return given
  })

/** A merchant of its own, with a token for everything and what tests do most in one line each. */
export const merchant = Effect.gen(function* () {
  return yield* merchantAt(yield* Service)
})

export const merchantAt = Effect.fnUntraced(function* (
  service: Pick<RunningService, "call" | "token">,
  merchantId: string = fresh("merchant")
) {
  const token = yield* service.token({ merchantId, sub: "tester" })
  const call = (method: string, target: string, body?: unknown, options: CallOptions = {}) =>
    service.call(method, target, body, { token, ...options })
  const get = (target: string, options?: CallOptions) => call("GET", target, undefined, options)
  const post = (target: string, body: unknown, options?: CallOptions) => call("POST", target, body, options)
  const patch = (target: string, body: unknown, options?: CallOptions) => call("PATCH", target, body, options)
  return {
    merchantId,
    token,
    call,
    get,
    post,
    patch,
    /** Stocks an item: its product variant id is what the test calls it. */
    item: (productVariantId: string, attributes: Readonly<Record<string, unknown>> = {}) =>
      expected(post("/v1/api/inventory/product-variants", { productVariantId, ...attributes })),
    location: (locationId: string) => expected(post("/v1/api/inventory/locations", { locationId })),
    adjust: (
      productVariantId: string,
      changeType: string,
      quantity: number,
      more: Readonly<Record<string, unknown>> = {}
    ) => post("/api/v1/inventory/adjust-stock", { productVariantId, changeType, quantity, ...more }),
    receive: (productVariantId: string, quantity: number, more: Readonly<Record<string, unknown>> = {}) =>
      expected(
        post("/api/v1/inventory/adjust-stock", { productVariantId, changeType: "RECEIPT", quantity, ...more })
      ),
    /** The items are `[variant, quantity]`. */
    reserve: (
      orderId: string,
      items: ReadonlyArray<readonly [string, number]>,
      more: Readonly<Record<string, unknown>> = {}
    ) =>
      post("/api/v1/inventory/reserve", {
        orderId,
        items: items.map(([variantId, quantity]) => ({ variantId, quantity })),
        ...more
      })
  }
})
