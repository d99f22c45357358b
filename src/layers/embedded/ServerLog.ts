import { Effect, Schedule } from "effect"
import * as fs from "node:fs/promises"

/** The file that takes what the server says. */

const logBytesMax = 8 * 1024 * 1024
const logCheckMs = 30_000
const logTailLines = 20
const logTailBytesMax = 4_096

/** Keeps the log small by halves: the server appends, so that its file can be cut under it. */
export const boundLog = (log: string): Effect.Effect<void> =>
  Effect.tryPromise(async () => {
    const { size } = await fs.stat(log)
    if (size <= logBytesMax) return
    await fs.copyFile(log, `${log}.1`)
    await fs.truncate(log, 0)
  }).pipe(Effect.ignore, Effect.repeat(Schedule.spaced(logCheckMs)), Effect.asVoid)

export const logTail = (log: string, from: number): Effect.Effect<string> =>
  Effect.promise(() =>
    fs.readFile(log).then(
      (text) =>
        text
          // The log may have been cut meanwhile.
          .subarray(Math.max(from > text.length ? 0 : from, text.length - logTailBytesMax))
          .toString()
          .trimEnd()
          .split("\n")
          .slice(-logTailLines)
          .join("\n"),
      () => "(cannot be read)"
    )
  )
