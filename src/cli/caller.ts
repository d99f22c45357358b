import { Clock, Effect } from "effect"
import { userInfo } from "node:os"
import type * as Configuration from "../layers/Configuration.ts"
import type { Caller } from "../schema/Caller.ts"
import { nextUuid } from "../services/Uuid.ts"

/** Who asks at a terminal: the books tell it by the name under which they are logged in. */
export const commandCaller = (merchantId: string, settings: Configuration.Settings): Effect.Effect<Caller> =>
  Effect.gen(function* () {
    return {
      merchantId,
      actor: `cli:${userName()}`,
      requestId: yield* nextUuid,
      deadline: (yield* Clock.currentTimeMillis) + settings.requestTimeoutMs
    }
  })

/** A container may run under a number that no account has. */
const userName = (): string => {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? "unknown")
  }
}
