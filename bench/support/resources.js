/** Loaded into a process that is measured: says at its end how much memory it had at most, in KiB, and its seconds of a processor. */
process.on("exit", () => {
  const { maxRSS, systemCPUTime, userCPUTime } = process.resourceUsage()
  process.stderr.write(`peak ${maxRSS}\nprocessor ${(userCPUTime + systemCPUTime) / 1e6}\n`)
})
