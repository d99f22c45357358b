import { connect, type Socket } from "node:net"

/** Clients that speak HTTP by hand, over sockets of their own. */

export interface PipelinedRequest {
  readonly method: string
  readonly path: string
  readonly token: string
  readonly body?: unknown
}

export interface PipelinedAnswer {
  readonly status: number
  readonly retryAfter: boolean
  readonly body: string
}

/** The bytes of a request. */
export const bytesOf = ({ body, method, path, token }: PipelinedRequest): string => {
  const text = body === undefined ? "" : JSON.stringify(body)
  return [
    `${method} ${path} HTTP/1.1`,
    "host: localhost",
    `authorization: Bearer ${token}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(text)}`,
    "",
    text
  ].join("\r\n")
}

/** Sends all requests at once on one connection, and waits for as many answers. */
export const pipelined = (
  port: number,
  requests: ReadonlyArray<PipelinedRequest>
): Promise<ReadonlyArray<PipelinedAnswer>> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port })
    const answers: Array<PipelinedAnswer> = []
    const read = answersOf((status, head, body) => {
      answers.push({
        status,
        body,
        retryAfter: /\r\nretry-after: \d+\r\n/i.test(head)
      })
      if (answers.length === requests.length) socket.end()
    })
    socket.on("data", read)
    socket.on("error", reject)
    socket.on("close", () => resolve(answers))
    socket.write(requests.map(bytesOf).join(""))
  })

/** Cuts what comes into answers: a head with a content-length, and as many bytes. */
export const answersOf = (
  take: (status: number, head: string, body: string) => void
): ((bytes: Buffer) => void) => {
  let rest = Buffer.alloc(0)
  return (bytes) => {
    rest = Buffer.concat([rest, bytes])
    for (;;) {
      const end = rest.indexOf("\r\n\r\n")
      if (end < 0) return
      const head = `${rest.toString("latin1", 0, end)}\r\n`
      const length = Number(/\r\ncontent-length: (\d+)\r\n/i.exec(head)?.[1] ?? 0)
      if (rest.length < end + 4 + length) return
      take(Number(head.slice(9, 12)), head, rest.toString("utf8", end + 4, end + 4 + length))
      rest = rest.subarray(end + 4 + length)
    }
  }
}

/** A socket that is open, or why it is not. */
export const opened = (port: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port })
    socket.once("error", reject)
    socket.once("connect", () => {
      socket.off("error", reject)
      socket.on("error", () => undefined)
      resolve(socket)
    })
  })
