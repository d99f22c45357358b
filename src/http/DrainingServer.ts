import { type IncomingMessage, Server, type ServerOptions, ServerResponse } from "node:http"
import type { Socket } from "node:net"

/**
 * An HTTP server that lets go of its connections when it is closed. Node closes those that are idle between requests;
 * a client that goes on asking on a kept-alive one, or that has not said a whole request yet, would hold it open.
 */
export class DrainingServer extends Server {
  readonly #connections = new Set<Socket>()
  readonly #unanswered = new Set<ServerResponse>()
  readonly #patienceMs: number
  #closing = false

  /** What is not answered so many milliseconds after the closing began is cut off. */
  constructor(options: ServerOptions, patienceMs: number) {
    super({ ...options, ServerResponse: WholeResponse })
    this.#patienceMs = patienceMs
    this.on("connection", (socket: Socket) => {
      this.#connections.add(socket)
      socket.once("close", () => this.#connections.delete(socket))
    })
    const track = (_: IncomingMessage, response: ServerResponse) => {
      this.#unanswered.add(response)
      response.once("close", () => this.#unanswered.delete(response))
      if (this.#closing) closeAfter(response)
    }
    this.on("request", track)
    this.on("checkContinue", track)
  }

  override close(callback?: (error?: Error) => void): this {
    if (!this.#closing) {
      this.#closing = true
      // The last answer of each connection, where a client has not waited for one before it asked for the next.
      const last = new Map([...this.#unanswered].map((response) => [response.req.socket, response]))
      for (const response of last.values()) closeAfter(response)
      for (const socket of this.#connections) if (!last.has(socket)) socket.destroySoon()
      setTimeout(() => this.closeAllConnections(), this.#patienceMs).unref()
    }
    return super.close(callback)
  }
}

/**
 * Effect has Node compare what is written with the Content-Length that it counted itself. Node then does not send an
 * answer that is given whole in one write: another piece and another tick, 4 to 7 µs.
 */
class WholeResponse<Request extends IncomingMessage> extends ServerResponse<Request> {}
Object.defineProperty(WholeResponse.prototype, "strictContentLength", { get: () => false, set: () => {} })

/** The connection ends with this answer, and the client is told so where it still can be. */
const closeAfter = (response: ServerResponse): void => {
  if (response.headersSent) response.once("finish", () => response.req.socket.destroySoon())
  else response.setHeader("connection", "close")
}
