import { Effect, type Redacted } from "effect"
import * as fs from "node:fs/promises"
import { execute } from "./Database.ts"

/** Processor time, as Linux counts it (in hundredths of a second, CLK_TCK); 0 where it cannot be seen. */

interface Spent {
  readonly parent: number
  readonly ownSeconds: number
  /** Of its children that have ended. */
  readonly endedSeconds: number
}

/** The fields of /proc/<pid>/stat after the name, which may hold anything. */
const spentBy = async (pid: number | string): Promise<Spent> => {
  const stat = await fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const seconds = (first: number) => (Number(fields[first] ?? 0) + Number(fields[first + 1] ?? 0)) / 100
  return { parent: Number(fields[1] ?? 0), ownSeconds: seconds(11), endedSeconds: seconds(13) }
}

/** What the children of this process have spent that have ended. */
export const endedChildrenSeconds: Effect.Effect<number> = Effect.promise(
  async () => (await spentBy("self")).endedSeconds
)

/** What all processes of a server on this machine have spent, those that have ended among them. */
export const serverSeconds = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const [row] = yield* execute(
        url,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
      )
      return yield* Effect.promise(async () => {
        const { parent } = await spentBy(Number(row?.["pid"]))
        const pids = (await fs.readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name))
        const all = await Promise.all(pids.map(spentBy))
        const children = all.filter((each) => parent > 1 && each.parent === parent)
        const { endedSeconds, ownSeconds } = await spentBy(parent)
        return children.reduce((sum, each) => sum + each.ownSeconds, ownSeconds + endedSeconds)
      })
    })
  )
})
