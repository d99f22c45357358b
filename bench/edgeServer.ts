import { Clock, Deferred, Effect, Exit, Layer, Random, References } from "effect"
import { HttpServer } from "effect/http"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as Server from "../src/http/Server.ts"
import * as DevIssuerLayer from "../src/layers/DevIssuer.ts"
import type { Answers, Command, Posted } from "../src/services/kernel/commands.ts"
import type { ReserveStock } from "../src/services/kernel/commands/reservations.ts"
import { Authentication } from "../src/services/identity/Authentication.ts"
import { Availability } from "../src/services/stock/Availability.ts"
import { Catalog } from "../src/services/stock/Catalog.ts"
import { Db } from "../src/services/Db.ts"
import { Discrepancies } from "../src/services/stock/Discrepancies.ts"
import { Health } from "../src/services/Health.ts"
import { DevIssuer } from "../src/services/identity/Jwks.ts"
import { Movements } from "../src/services/stock/Movements.ts"
import { Orders } from "../src/services/orders/Orders.ts"
import { Policies } from "../src/services/identity/Policies.ts"
import { Reservations } from "../src/services/stock/Reservations.ts"
import { StockLedger } from "../src/services/kernel/StockLedger.ts"
import { Stocks } from "../src/services/stock/Stocks.ts"
import { uuidV7 } from "../src/services/Uuid.ts"

/**
 * What `bench/edge.ts` measures, each as a process of its own: `node bench/edgeServer.ts contract` is the service over
 * a kernel that reserves whatever it is asked for, once a turn of the event loop for all that wait; `bare` is
 * `node:http` with nothing but the body, its JSON and an answer of the same size.
 *
 * Says `{ port, token }` to its parent, and for any message what it has spent and answered so far.
 */
export interface Ready {
  readonly port: number
  readonly token: string
}
export interface Spent {
  readonly microseconds: number
  readonly answered: number
}

let answered = 0

/** Callers wait, as they do for a batch. */
let waiting: Array<() => void> = []
const answerLater = (answer: () => void): void => {
  if (waiting.push(answer) > 1) return
  setImmediate(() => {
    const all = waiting
    waiting = []
    for (const each of all) each()
    answered += all.length
  })
}

const reserved = (posting: string, at: number, command: ReserveStock): Answers["ReserveStock"] => ({
  at,
  created: true,
  reservation: {
    reservationId: posting,
    orderId: command.orderId,
    status: "PENDING",
    expiresAt: at + command.expiresInSeconds * 1000,
    lines: []
  }
})

const post = (_: unknown, command: Command) =>
  Effect.withFiber((fiber) => {
    const at = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
    const id = uuidV7(at, fiber.getRef(Random.Random))
    const done = Deferred.makeUnsafe<Posted<ReserveStock>>()
    answerLater(() =>
      Deferred.doneUnsafe(
        done,
        Exit.succeed({ replayed: false, answer: reserved(id, at, command as ReserveStock) })
      )
    )
    return Deferred.await(done)
  })

const contract = () => {
  const ready = Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    const token = yield* (yield* DevIssuer).issue({ merchantId: "bench" })
    process.send!({ port: (address as { readonly port: number }).port, token } satisfies Ready)
  })
  const operations = Layer.mergeAll(
    Availability.layer,
    Catalog.layer,
    Discrepancies.layer,
    Movements.layer,
    Orders.layer,
    Reservations.layer,
    Stocks.layer
  ).pipe(
    Layer.provide(Layer.succeed(StockLedger, { post } as never)),
    // Nothing is read.
    Layer.provide(Layer.succeed(Db, {} as never))
  )
  const health = { ready: Effect.die("not asked for"), missingTopics: Effect.succeed([]) }
  return Layer.effectDiscard(ready).pipe(
    Layer.provide(
      Server.layer(
        { host: "127.0.0.1", port: 0, requestTimeoutMs: 2_500, contract: true },
        Layer.empty as never
      )
    ),
    Layer.provide([operations, Layer.succeed(Health, health)]),
    Layer.provide(Authentication.layer.pipe(Layer.provide(Policies.layerLocal))),
    Layer.provide(DevIssuerLayer.layerWith(Effect.succeed)),
    Layer.provide(Layer.succeed(References.TracerEnabled, false))
  )
}

const bare = (): void => {
  const server = http.createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const command = JSON.parse(Buffer.concat(chunks).toString()) as {
        readonly orderId: string
        readonly items: ReadonlyArray<object>
      }
      answerLater(() => {
        const text = JSON.stringify({
          success: true,
          data: {
            reservationId: "00000000-0000-7000-8000-000000000000",
            orderId: command.orderId,
            status: "PENDING",
            applied: true,
            items: command.items.map((item) => ({ ...item, reserved: true })),
            allocations: [],
            expiresAt: "2030-01-01T00:00:00.000Z"
          },
          meta: { timestamp: "2030-01-01T00:00:00.000Z" }
        })
        response.writeHead(201, {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(text),
          "x-request-id": "00000000-0000-7000-8000-000000000000"
        })
        response.end(text)
      })
    })
  })
  server.listen(0, "127.0.0.1", () => {
    process.send!({ port: (server.address() as AddressInfo).port, token: "none" } satisfies Ready)
  })
}

process.on("message", () => {
  const { system, user } = process.cpuUsage()
  process.send!({ microseconds: system + user, answered } satisfies Spent)
})
process.on("disconnect", () => process.exit(0))

if (process.argv[2] === "bare") bare()
else Effect.runFork(Layer.launch(contract()))
