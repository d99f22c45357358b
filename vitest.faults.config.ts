import { defineConfig } from "vitest/config"
import { longTests } from "./test/support/longTests.ts"

export default defineConfig({
  test: {
    // The kernel's random histories too: `npm test` plays a fifth of them.
    include: ["test/faults/**/*.test.ts", ...longTests, "test/services/kernel/{properties,bulk}.test.ts"],
    env: { HISTORIES: "all" },
    globalSetup: ["test/support/Postgres.ts", "test/support/shared.ts"],
    reporters: ["default", "./test/support/closingLine.ts"],
    // A busy machine takes several times as long as a quiet one.
    testTimeout: 480_000,
    hookTimeout: 60_000,
    // Real servers on a machine that others share: where nobody looks on, a test may fail once, and the report says so.
    retry: process.env["CI"] === undefined ? 0 : 1,
    pool: "forks",
    // What is measured under a fault must not be another test's load.
    maxWorkers: 1,
    fileParallelism: false
  }
})
