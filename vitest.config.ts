import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/faults/**", "node_modules/**"],
    globalSetup: ["test/support/Postgres.ts"],
    reporters: ["default", "./test/support/closingLine.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Real servers and child processes: a test may wait for them, never sleep.
    pool: "forks",
    maxWorkers: 2
  }
})
