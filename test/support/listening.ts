import { Effect, type Scope } from "effect"
import { once } from "node:events"
import type { AddressInfo, Server, Socket } from "node:net"

/** Has a server listen on a port of its own on this machine until the scope closes, which ends its connections. */
export const listening = (server: Server): Effect.Effect<number, never, Scope.Scope> => {
  const sockets = new Set<Socket>()
  return Effect.acquireRelease(
    Effect.promise(async () => {
      server.on("connection", (socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return (server.address() as AddressInfo).port
    }),
    () =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )
}
