import { defineConfig } from "vitest/config"
import { longTests } from "./test/support/longTests.ts"
import SlowestFirst from "./test/support/slowestFirst.ts"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/faults/**", ...longTests, "node_modules/**"],
    globalSetup: ["test/support/Postgres.ts", "test/support/shared.ts"],
    reporters: ["default", "./test/support/closingLine.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Tests wait for real servers and child processes, and never sleep.
    // Real servers on a machine that others share: where nobody looks on, a test may fail once, and the report says so.
    retry: process.env["CI"] === undefined ? 0 : 1,
    pool: "forks",
    sequence: { sequencer: SlowestFirst },
    // Effect and the sources are loaded once a worker, not once a file: no file changes what is global.
    isolate: false,
    // One more than the smallest machine has cores: most files wait for a server now and then.
    maxWorkers: 3
  }
})
