import { connect, type Socket } from "node:net"

/**
 * Reserves over HTTP as fast as it is answered, or at a given rate, from a process of its own. It shares the machine
 * with what it measures, so that it does as little as it can: HTTP/1.1 written by hand over kept-alive sockets, one
 * request at a time on each, and of an answer only the status and the length are read.
 *
 * `node bench/loadGenerator.ts '{…}'` prints one line of JSON.
 */
export interface Load {
  readonly port: number
  readonly connections: number
  readonly warmupSeconds: number
  readonly seconds: number
  /** One token a merchant; requests go to them in turn. */
  readonly tokens: ReadonlyArray<string>
  /** Each merchant's items are `variant-1` … `variant-<items>`: each request reserves one of one, at random. */
  readonly items: number
  /** Makes the orders' ids unlike those of other runs. */
  readonly run: string
  /** Unset: each connection sends its next request when it has its answer. */
  readonly ratePerSecond?: number
}

export interface LoadResult {
  /** In the measured window. */
  readonly reserved: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of the whole run, by status. */
  readonly answers: Readonly<Record<string, number>>
  /** Processor time of this process. */
  readonly generatorSeconds: number
}

const drainMs = 3_000

const run = (load: Load): Promise<LoadResult> =>
  new Promise((resolve, reject) => {
    const heads = load.tokens.map(
      (token) =>
        `POST /api/v1/inventory/reserve HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\n` +
        `Content-Type: application/json\r\nContent-Length: `
    )
    let sent = 0
    const request = (): string => {
      sent += 1
      const variant = load.items === 1 ? 1 : 1 + Math.floor(Math.random() * load.items)
      const body = `{"orderId":"${load.run}-${sent}","items":[{"variantId":"variant-${variant}","quantity":1}]}`
      return `${heads[sent % heads.length]!}${body.length}\r\n\r\n${body}`
    }

    const startedAt = performance.now()
    const measuredFrom = startedAt + load.warmupSeconds * 1000
    const measuredTo = measuredFrom + load.seconds * 1000
    const cpu = process.cpuUsage()
    const latencies: Array<number> = []
    const answers: Record<string, number> = {}
    /** Open requests by socket: when each was due, which with a given rate is before it could be sent. */
    const idle: Array<Socket> = []
    const overdue: Array<number> = []
    const sockets: Array<Socket> = []
    let open = 0
    let ended = false

    const send = (socket: Socket, due: number): void => {
      open += 1
      dueOf.set(socket, due)
      socket.write(request(), "latin1")
    }
    const dueOf = new Map<Socket, number>()

    const answered = (socket: Socket, status: string): void => {
      const now = performance.now()
      open -= 1
      answers[status] = (answers[status] ?? 0) + 1
      if (status === "201" && now >= measuredFrom && now < measuredTo)
        latencies.push(now - dueOf.get(socket)!)
      if (now >= measuredTo) {
        if (open === 0) finish()
      } else if (load.ratePerSecond === undefined) send(socket, now)
      else if (overdue.length > 0) send(socket, overdue.shift()!)
      else idle.push(socket)
    }

    const finish = (): void => {
      if (ended) return
      ended = true
      for (const socket of sockets) socket.destroy()
      const { system, user } = process.cpuUsage(cpu)
      latencies.sort((a, b) => a - b)
      const at = (share: number): number =>
        latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? Number.NaN
      resolve({
        reserved: latencies.length,
        perSecond: latencies.length / load.seconds,
        p50Ms: at(0.5),
        p99Ms: at(0.99),
        answers,
        generatorSeconds: (system + user) / 1e6
      })
    }

    for (let index = 0; index < load.connections; index++) {
      const socket = connect({ host: "127.0.0.1", port: load.port, noDelay: true })
      sockets.push(socket)
      let pending = ""
      socket.setEncoding("latin1")
      socket.on("data", (chunk: unknown) => {
        const text = pending === "" ? (chunk as string) : pending + (chunk as string)
        const headEnd = text.indexOf("\r\n\r\n")
        const length = headEnd === -1 ? undefined : lengthOf(text, headEnd)
        if (length === undefined || text.length < headEnd + 4 + length) pending = text
        else {
          pending = ""
          answered(socket, text.slice(9, 12))
        }
      })
      socket.on("error", reject)
      socket.on("close", () => {
        if (!ended) reject(new Error("the service closed a connection"))
      })
      socket.on("connect", () => {
        if (load.ratePerSecond === undefined) send(socket, performance.now())
        else idle.push(socket)
      })
    }

    if (load.ratePerSecond !== undefined) {
      const intervalMs = 1000 / load.ratePerSecond
      let due = startedAt + 100
      const ticker = setInterval(() => {
        for (const now = performance.now(); due <= now; due += intervalMs) {
          const socket = idle.pop()
          if (socket === undefined) overdue.push(due)
          else send(socket, due)
        }
        if (due >= measuredTo) clearInterval(ticker)
      }, 1)
    }
    setTimeout(() => (open === 0 ? finish() : setTimeout(finish, drainMs)), measuredTo - startedAt + 50)
  })

const lengthOf = (text: string, headEnd: number): number | undefined => {
  const at = text.search(/\r\ncontent-length: */i)
  if (at === -1 || at > headEnd) throw new Error("an answer without Content-Length")
  return Number.parseInt(text.slice(at + 17, headEnd + 2), 10)
}

process.stdout.write(JSON.stringify(await run(JSON.parse(process.argv[2]!) as Load)) + "\n")
