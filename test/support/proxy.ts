import { Effect, Redacted, type Scope } from "effect"
import { type Socket, connect, createServer } from "node:net"
import { listening } from "./listening.ts"

/**
 * A proxy between the kernel and PostgreSQL that loses what a network can lose. It knows enough of the protocol to tell
 * which statement a message executes.
 */

export type Fault =
  /** The answer to COMMIT is swallowed and the connection cut: it is committed, and the kernel does not know. */
  | "answer to COMMIT lost"
  /** The connection is cut before COMMIT has left: it is not committed, and the kernel does not know. */
  | "COMMIT lost"
  /** The kernel's side is cut; COMMIT reaches PostgreSQL only after the kernel has asked what became of it. */
  | "COMMIT late"

export interface Proxy {
  readonly url: Redacted.Redacted<string>
  /** What to do at the next COMMIT. The proxy is transparent before and after it. */
  readonly arm: (
    fault: Fault,
    more?: { readonly status?: keyof typeof statusAnswers; readonly refuse?: number }
  ) => void
  /** How often a fault was injected: a test in which it never fired proves nothing. */
  readonly fired: () => number
  readonly statusAsked: () => number
}

const statusQuery = "pg_xact_status($1::text::xid8)"
/**
 * Of the same length, so that the message around it stays as it is: a server that no longer knows the transaction, and
 * one that has given its id to another after a crash.
 */
const statusAnswers = {
  forgotten: "nullif($1::text, $1)".padEnd(statusQuery.length),
  "of another": "'committed'".padEnd(statusQuery.length)
}

export const proxyTo = (target: Redacted.Redacted<string>): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function* () {
    let armed: Fault | undefined
    let status: keyof typeof statusAnswers | undefined
    let refuse = 0
    let refuseAfterwards = 0
    let fired = 0
    let statusAsked = 0
    let deliverLate: (() => void) | undefined
    const sockets = new Set<Socket>()

    const server = createServer((client) => {
      if (refuse > 0) {
        refuse -= 1
        client.destroy()
        return
      }
      const database = connect(addressOf(target))
      let swallow = false
      const messages = frontendMessages()
      const cut = () => {
        fired += 1
        refuse = refuseAfterwards
        client.destroy()
      }
      client.on("data", (bytes) => {
        const out: Array<Buffer> = []
        const sent = messages(bytes)
        for (const [index, { query, message }] of sent.entries()) {
          if (query?.includes(statusQuery) === true) {
            statusAsked += 1
            const text = message.indexOf(statusQuery)
            if (status !== undefined && text >= 0) message.write(statusAnswers[status], text)
            deliverLate?.()
          }
          if (query === "COMMIT" && armed !== undefined) {
            const fault = armed
            armed = undefined
            if (fault === "answer to COMMIT lost") swallow = true
            else {
              database.write(Buffer.concat(out))
              out.length = 0
              // What follows in the same chunk belongs to the COMMIT.
              const rest = Buffer.concat(sent.slice(index).map((late) => late.message))
              cut()
              if (fault === "COMMIT lost") database.destroy()
              else {
                deliverLate = () => {
                  deliverLate = undefined
                  database.end(rest)
                }
              }
              return
            }
          }
          out.push(message)
        }
        if (out.length > 0) database.write(Buffer.concat(out))
      })
      database.on("data", (bytes) => {
        if (swallow && bytes.includes("COMMIT\0")) {
          cut()
          database.destroy()
        } else if (!client.destroyed) client.write(bytes)
      })
      for (const [socket, other] of [
        [client, database],
        [database, client]
      ] as const) {
        sockets.add(socket)
        socket.on("error", () => undefined)
        socket.on("close", () => {
          sockets.delete(socket)
          if (deliverLate === undefined || socket !== client) other.destroy()
        })
      }
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
      })
    )
    const port = yield* listening(server)
    return {
      url: movedTo(target, port),
      arm: (fault, more = {}) => {
        armed = fault
        status = more.status
        refuseAfterwards = more.refuse ?? 0
      },
      fired: () => fired,
      statusAsked: () => statusAsked
    }
  })

const addressOf = (url: Redacted.Redacted<string>): { readonly host: string; readonly port: number } => {
  const { hostname, port } = new URL(Redacted.value(url))
  return { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port) }
}

const movedTo = (url: Redacted.Redacted<string>, port: number): Redacted.Redacted<string> => {
  const moved = new URL(Redacted.value(url))
  moved.hostname = "127.0.0.1"
  moved.port = String(port)
  return Redacted.make(moved.href)
}

interface FrontendMessage {
  /** The statement that the message parses or binds. */
  readonly query: string | undefined
  readonly message: Buffer
}

/** A text that ends with NUL, and where the next one begins. */
const textAt = (message: Buffer, from: number): readonly [value: string, next: number] => {
  const end = message.indexOf(0, from)
  return [message.toString("utf8", from, end), end + 1]
}

/** Cuts what a client sends into messages, and remembers what its prepared statements are. */
const frontendMessages = () => {
  let rest = Buffer.alloc(0)
  let started = false
  const prepared = new Map<string, string>()
  return (bytes: Buffer): ReadonlyArray<FrontendMessage> => {
    rest = Buffer.concat([rest, bytes])
    const found: Array<FrontendMessage> = []
    while (true) {
      // The first message has no type.
      const head = started ? 1 : 0
      if (rest.length < head + 4) return found
      const length = head + rest.readInt32BE(head)
      if (rest.length < length) return found
      const message = Buffer.from(rest.subarray(0, length))
      rest = rest.subarray(length)
      let query: string | undefined
      if (started && message[0] === 0x50) {
        const [name, next] = textAt(message, 5)
        ;[query] = textAt(message, next)
        prepared.set(name, query)
      } else if (started && message[0] === 0x42) {
        const [, next] = textAt(message, 5)
        query = prepared.get(textAt(message, next)[0])
      }
      started = true
      found.push({ query, message })
    }
  }
}

/** Connections by way of a cable that can be cut, or lose what it carries. */
export interface Cable {
  /** Connects to there. */
  readonly dial: (address: { readonly host: string; readonly port: number }) => Socket
  /** For who cannot be told how to connect: the same database, by way of the cable. */
  readonly reach: (
    url: Redacted.Redacted<string>
  ) => Effect.Effect<Redacted.Redacted<string>, never, Scope.Scope>
  /** Ends the connections, and every new one, until `plug`. */
  readonly cut: Effect.Effect<void>
  readonly plug: Effect.Effect<void>
  /**
   * Silences the connections that there are, as a router that has forgotten them: nothing gets through either way and
   * nobody is told. New ones work. Answers with how many there were.
   */
  readonly silence: Effect.Effect<number>
}

export const tcpCable: Effect.Effect<Cable, never, Scope.Scope> = Effect.gen(function* () {
  /** By the port that a connection comes from: where it wants to go, and where it arrived. Either may be first. */
  const wanted = new Map<number, { readonly host: string; readonly port: number }>()
  const arrived = new Map<number, Socket>()
  const lines = new Set<{ readonly ends: ReadonlyArray<Socket>; silent: boolean }>()
  let plugged = true
  const join = (near: Socket, target: { readonly host: string; readonly port: number }): void => {
    if (!plugged) {
      near.destroy()
      return
    }
    const far = connect(target)
    const line = { ends: [near, far], silent: false }
    lines.add(line)
    for (const [source, other] of [
      [near, far],
      [far, near]
    ] as const) {
      source.on("data", (bytes) => {
        if (!line.silent) other.write(bytes)
      })
      source.on("error", () => undefined)
      source.on("close", () => {
        if (line.silent) return
        lines.delete(line)
        other.destroy()
      })
    }
  }
  const meet = (from: number): void => {
    const near = arrived.get(from)
    const target = wanted.get(from)
    if (near === undefined || target === undefined) return
    arrived.delete(from)
    wanted.delete(from)
    join(near, target)
  }
  const server = createServer((near) => {
    near.on("error", () => undefined)
    arrived.set(near.remotePort!, near)
    meet(near.remotePort!)
  })
  const cut = () => {
    for (const { ends } of lines) for (const end of ends) end.destroy()
    lines.clear()
  }
  yield* Effect.addFinalizer(() => Effect.sync(cut))
  const port = yield* listening(server)
  return {
    dial: (address) => {
      const socket = connect({ host: "127.0.0.1", port })
      socket.once("connect", () => {
        wanted.set(socket.localPort!, address)
        meet(socket.localPort!)
      })
      return socket
    },
    reach: (url) =>
      Effect.map(listening(createServer((near) => join(near, addressOf(url)))), (door) => movedTo(url, door)),
    cut: Effect.sync(() => {
      plugged = false
      cut()
    }),
    plug: Effect.sync(() => void (plugged = true)),
    silence: Effect.sync(() => {
      for (const line of lines) line.silent = true
      return lines.size
    })
  } satisfies Cable
})
